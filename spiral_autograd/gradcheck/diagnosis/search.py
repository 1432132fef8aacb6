"""The search for one change in autograd's backward graph that explains wrong gradients."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import cached_property, partial
from itertools import product
from typing import Any

import numpy as np

from ...recording import Call, name_of
from ...validation import Array
from ..blocks import close, largest
from ..reference.backward_graph import UNFIT, BackwardGraph, Values
from .case import Case, Finding
from .composites import composite_edits, composites_of
from .edits import (
    LEFT_OUT,
    Edit,
    factors,
    inverses,
    known_factors,
    partly,
    products,
    wrong_operands,
)
from .layouts import elsewhere, layouts, parts, sums
from .loops import Generate, in_loops, operands_in_loops
from .passages import Passage, is_natural, multiplied, passages, replaced, replaced_in_loops
from .paths import cuts, exchanges, kept_alone, overwritten, wrong_gradients
from .values import ONE, Factor, Screen, factors_of

BY_CALL: tuple[Generate, ...] = (cuts, products, layouts, sums, parts, elsewhere)
ARRANGED: tuple[Generate, ...] = (layouts, sums, parts, elsewhere)
WHOLE = (exchanges, overwritten, kept_alone)


def changed_graph(case: Case, rows: list[int]) -> Finding | None:
    """Find the one change in the backward graph after which all of `rows` come out."""
    if case.graph is None or not all(map(case.comparable, rows)):
        return None
    with np.errstate(all="ignore"):
        search = Search(case, Stock.of(case, case.graph), rows)
        for edit in search.candidates():
            values = search.explained(edit)
            if values is not None:
                return _finding(*_likeliest(case, search, edit, values), rows)
    return None


def _finding(edit: Edit, values: Values, rows: list[int]) -> Finding:
    products = [value for call, value in values.items() if call.gradient_of is not None]
    return Finding(edit.rule, f"comes out if {edit.text}", rows, edit.of, products, values)


def _likeliest(case: Case, search: Search, edit: Edit, values: Values) -> tuple[Edit, Values]:
    """Return the one of changes alike that has most of the values that the lines make."""
    marks = {_mark(moment.value) for moment in case.seen()}
    best, most = (edit, values), _shared(search.graph, values, marks)
    for other in search.alike(edit):
        found = search.explained(other) if not case.late() else None
        if found is not None and (shared := _shared(search.graph, found, marks)) > most:
            best, most = (other, found), shared
    return best


def _shared(graph: BackwardGraph, values: Values, marks: set[Any]) -> int:
    return len(marks & {_mark(values.get(c, graph.value(c))) for c in graph.backward})


def _mark(value: Any) -> tuple[Any, ...]:
    """Return what two arrays have in common that differ by rounding alone."""
    array = np.asarray(value, dtype=float)
    return array.shape, *(f"{np.sum(a):.6e}" for a in (array, np.abs(array), array**2))


class Stock:
    """The changes of a backward graph, for any rows: made once, when they are asked for."""

    def __init__(self, case: Case, graph: BackwardGraph) -> None:
        self.case, self.graph = case, graph
        self._lists: dict[str, list[Edit]] = {}
        self._changes: dict[int, tuple[Edit, list[tuple[Call, Array]] | None]] = {}

    @classmethod
    def of(cls, case: Case, graph: BackwardGraph) -> Stock:
        """Return the stock of a case, the same one each time."""
        if not isinstance(case.stock, Stock):
            case.stock = cls(case, graph)
        return case.stock

    @cached_property
    def calls(self) -> list[Call]:
        """The backward calls, those from the inner turns of long loops left out."""
        return [c for c in reversed(self.graph.backward) if c not in self.graph.repeated]

    @cached_property
    def everywhere(self) -> list[Passage]:
        """All passages."""
        return list(passages(self.case, self.graph))

    @cached_property
    def through(self) -> list[Passage]:
        """The passages, those from the inner turns of long loops left out, natural ones first."""
        repeated = self.graph.repeated
        return sorted((p for p in self.everywhere if p.target not in repeated), key=self._unnatural)

    def _unnatural(self, passage: Passage) -> tuple[Any, ...]:
        ends = (passage.result, passage.argument)
        natural = [is_natural(self.case, end) for end in ends]
        named = [self.case.is_named(end) for end in ends]
        return not all(natural), not all(named), not named[0], passage.steps

    @cached_property
    def natural(self) -> list[Passage]:
        """Those between values that a person would differentiate by."""
        return [p for p in self.through if not self._unnatural(p)[0]]

    @cached_property
    def unnatural(self) -> list[Passage]:
        """The others."""
        return [p for p in self.through if self._unnatural(p)[0]]

    @cached_property
    def screen(self) -> Screen:
        """The functions of values by which a gradient may have been multiplied."""
        return Screen(factors_of(self.case, self.graph))

    def edits(self, name: str) -> Iterator[Edit]:
        """Yield the changes of one sort, until the time is up."""
        if name in self._lists:
            yield from self._lists[name]
            return
        found = []
        for edit in _SORTS[name](self):
            self.case.deadline.check()
            found.append(edit)
            yield edit
        self._lists[name] = found

    def change(self, edit: Edit) -> list[tuple[Call, Array]] | None:
        """Return by what an edit changes each of its values; None where it does not fit."""
        if id(edit) in self._changes:
            return self._changes[id(edit)][1]
        found = self._change(edit)
        if found is None or sum(change.size for _, change in found) <= 4096:
            self._changes[id(edit)] = edit, found  # with the edit, so that its id stays its own
        return found

    def _change(self, edit: Edit) -> list[tuple[Call, Array]] | None:
        found = []
        for call, make in edit.changes.items():
            before = self.graph.array(call)
            try:
                change = np.asarray(make(call, self.graph.value)) - before
                found.append((call, np.broadcast_to(change, before.shape)))
            except UNFIT:
                return None
        return found


_BINARY = set("add subtract multiply divide true_divide power negative".split())


def _composites(stock: Stock) -> Iterator[Edit]:
    kinds: dict[Call, Any] = {}
    for passage in sorted(stock.through, key=lambda p: p.steps):
        result = passage.result
        if result not in kinds:
            kinds[result] = composites_of(stock.graph.array(result))
        yield from composite_edits(stock.case, stock.graph, passage, kinds[result])


def _by_call(*generators: Generate) -> Callable[[Stock], Iterator[Edit]]:
    def edits(stock: Stock) -> Iterator[Edit]:
        for call, generate in product(stock.calls, generators):
            stock.case.deadline.check()
            yield from generate(stock.case, stock.graph, call)

    return edits


def _whole(stock: Stock) -> Iterator[Edit]:
    for generate in WHOLE:
        yield from generate(stock.case, stock.graph)


def _bypasses(stock: Stock, *, unary: bool = False) -> Iterator[Edit]:
    """Yield lost derivatives of single operations; with `unary`, of those of one operand alone."""
    for p in stock.natural if unary else stock.through:
        if p.steps == 1 and not (unary and name_of(p.result.fun) in _BINARY):
            yield replaced(stock.case, stock.graph, p, ONE)


def _loops(stock: Stock) -> Iterator[Edit]:
    for generate in (cuts, products, layouts):
        yield from in_loops(stock.case, stock.graph, generate)
    yield from replaced_in_loops(stock.case, stock.graph, stock.everywhere)
    for generate in (factors, sums, parts, elsewhere):
        yield from in_loops(stock.case, stock.graph, generate)


def _loop_operands(stock: Stock) -> Iterator[Edit]:
    yield from operands_in_loops(stock.case, stock.graph)


_SORTS: dict[str, Callable[[Stock], Iterator[Edit]]] = {
    "composites": _composites,
    "lost": _by_call(cuts, products),
    "factors": _by_call(factors),
    "arranged": _by_call(*ARRANGED),
    "whole": _whole,
    "activations": partial(_bypasses, unary=True),
    "bypasses": _bypasses,
    "gradients": _by_call(wrong_gradients),
    "inverses": _by_call(inverses),
    "loops": _loops,
    "operands": _by_call(wrong_operands),
    "operands in loops": _loop_operands,
    "residuals": _by_call(partial(products, residual=True)),
}


class Search:
    """The changes of a backward graph that are worth a run, for some wrong gradients.

    The backward pass is linear: whether a change can explain the gradients is told first by one
    inner product, in which each gradient has random weights.
    """

    def __init__(self, case: Case, stock: Stock, rows: list[int]) -> None:
        self.case, self.stock, self.graph, self.rows = case, stock, stock.graph, rows
        self.right = [k for k in range(len(case.names)) if k not in case.wrong]
        self.tolerance = max(1e-6, 10 * case.tolerance)
        rng = np.random.default_rng(0)
        weights: dict[int, Array] = {}
        self.target, self.changed = 0.0, 0
        for k in (*rows, *self.right):
            if not case.comparable(k):
                continue
            g, h = case.automatic[k], np.asarray(case.handwritten[k], dtype=float)
            size = max(largest(g), largest(h))
            if size <= 1e3 * case.noise(k):  # a gradient of zero has no digits to compare
                continue
            weights[k] = rng.standard_normal(g.shape) / size
            if k in rows:
                self.target += float(np.sum(weights[k] * (h - g)))
                self.changed += int(np.sum(np.abs(h - g) > case.noise(k)))
        self.sensitivity = self._sensitivities(weights)

    def _sensitivities(self, weights: Mapping[int, Array]) -> Mapping[Call, Array] | None:
        try:
            return self.graph.sensitivities(weights, self.case.deadline)
        except NotImplementedError:  # a vjp that has no vjp of its own: each change is run
            return None

    def candidates(self) -> Iterator[Edit]:
        """Yield the changes that pass the screen, those that a person would name first."""
        for edit in self._candidates():
            self.case.deadline.check()
            if self.possible(edit):
                yield edit

    def _candidates(self) -> Iterator[Edit]:
        edits = self.stock.edits
        for name in ("composites", "activations", "whole", "lost", "residuals"):
            yield from edits(name)
        natural, others = self.stock.natural, self.stock.unnatural
        yield from self._derivatives(natural, own=True)
        yield from self._solved(known_factors(self.case))
        if self.changed < 3:  # too few to solve for a factor
            yield from edits("factors")
        for name in ("arranged", "bypasses"):
            yield from edits(name)
        yield from self._solved(None)
        yield from edits("gradients")
        yield from self._derivatives(others, own=True)
        for name in ("inverses", "loops", "operands", "operands in loops"):
            yield from edits(name)
        yield from self._derivatives([*natural, *others], own=False)
        for call in self.stock.calls:
            for factor in self._factors(call, self.graph.array(call)):
                yield multiplied(self.case, call, factor)

    def alike(self, edit: Edit) -> Iterator[Edit]:
        """Yield the same change at other calls: a factor, say, may be lost anywhere on a chain."""
        if len(edit.changes) == 1:
            for call, generate in product(self.stock.calls, (*BY_CALL, factors)):
                if self.case.late():
                    return
                if call not in edit.changes:
                    same = (e for e in generate(self.case, self.graph, call) if e.key == edit.key)
                    yield from filter(self.possible, same)

    def _solved(self, known: dict[float, str] | None) -> Iterator[Edit]:
        """Yield the factors which, on a path that may be cut, explain the gradients.

        That a path is c times what it should be changes 1 - c times what its cut does. Only
        `known` factors are yielded; with None, any other that is not near to 1 or 0.
        """
        if self.changed < 3:  # one number, or two, tell no factor
            return
        for edit in (*self.stock.edits("composites"), *self.stock.edits("lost")):
            effect = self._effect(edit) if edit.text.endswith(LEFT_OUT) else None
            if effect is None or abs(effect[0]) <= self.tolerance * effect[1]:
                continue
            share = self.target / effect[0]
            c, what = 1 - share, edit.text.removesuffix(LEFT_OUT)
            if known is None:
                if 1e-3 < abs(c) < 1e4:
                    yield partly(edit, share, f"{what}is {c:.6g} times what it should be")
                continue
            for value, text in known.items():
                if abs(c - value) <= self.tolerance * max(1.0, abs(value)):
                    yield partly(edit, 1 - value, f"{what}is {text}")

    def _derivatives(self, through: Iterable[Passage], *, own: bool) -> Iterator[Edit]:
        """Yield wrong derivatives of passages: functions of their own values, or of others."""
        for passage in through:
            if own:
                yield replaced(self.case, self.graph, passage, ONE)
            came = self.graph.array(self.graph.adjoints[passage.result])
            kept = sum(self.graph.array(path) for path in passage.kept)
            factors = self._factors(passage.target, came, kept)
            for factor in sorted(factors, key=lambda factor: factor.rank):
                if own == (factor.of in (passage.result, passage.argument)):
                    yield replaced(self.case, self.graph, passage, factor)

    def _factors(self, call: Call, came: Array, kept: Any = 0.0) -> Iterator[Factor]:
        """Yield the factors with which `came`, beside what is kept of a call, may explain all."""
        sensitivity = self.sensitivity.get(call) if self.sensitivity is not None else None
        if sensitivity is None or self.case.late() or sensitivity.shape != came.shape:
            return
        if not self._reaches([call]):
            return
        before = float(np.sum(sensitivity * (self.graph.array(call) - kept)))
        weight, target = sensitivity * came, self.target + before
        yield from self.stock.screen.passing(weight, target, self.tolerance)

    def _reaches(self, calls: Iterable[Call]) -> bool:
        reached = {k for call in calls for k in self.graph.reaches.get(call, ())}
        return reached >= set(self.rows)

    def possible(self, edit: Edit) -> bool:
        """Tell by inner products whether a change may explain the gradients."""
        if self.sensitivity is None or not edit.screened:
            return True
        effect = self._effect(edit)
        if effect is None:
            return False
        moved, size = effect
        return abs(moved - self.target) <= self.tolerance * (size + abs(self.target))

    def _effect(self, edit: Edit) -> tuple[float, float] | None:
        """Return by how much a change moves Σ weights · gradients, and the size of the terms."""
        if self.sensitivity is None or not self._reaches(edit.changes):
            return None
        moved, size = 0.0, 0.0
        changes = self.stock.change(edit)
        if changes is None:
            return None
        for call, change in changes:
            sensitivity = self.sensitivity.get(call)
            if sensitivity is None:
                return None
            part = sensitivity * change
            moved += float(np.sum(part))
            size += float(np.sum(np.abs(part)))
        return (moved, size) if np.isfinite(moved) else None

    def explained(self, edit: Edit) -> Values | None:
        """Return what a replay changes if all the handwritten gradients come out; else None."""
        case, graph = self.case, self.graph
        try:
            values = graph.replay(edit.changes)
        except UNFIT:
            return None
        if not self._reaches(edit.changes):
            return None
        reached = {k for call in edit.changes for k in graph.reaches.get(call, ())}
        for k in (*self.rows, *(k for k in self.right if k in reached and case.comparable(k))):
            if not case.explains(k, graph.gradient(k, values)):
                return None
        return values if self.changed > 1 or self._is_confirmed(edit) else None

    def _is_confirmed(self, edit: Edit) -> bool:
        """Tell whether what explains one number does so for other upstream gradients too.

        Where there are none, a function of a value is not believed: many have any one number.
        """
        others = self.case.for_other_upstreams(self.rows[0])
        if not others:
            return edit.rule != "value"
        for graph, h in others:
            values = graph.replay(edit.changes)
            g = graph.gradient(self.rows[0], values)
            if not close(h, g, self.case.tolerance, self.case.floors[self.rows[0]]):
                return False
        return True
