"""The search for one change in autograd's backward graph that explains wrong gradients."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import partial
from itertools import product
from typing import Any

import numpy as np

from ..recording import Call
from ..validation import Array
from .blocks import largest
from .case import Case, Finding
from .derivatives import (
    ONE,
    Factor,
    Passage,
    Screen,
    composite_edits,
    factors_of,
    is_natural,
    multiplied,
    passages,
    replaced,
    replaced_in_loops,
)
from .edits import (
    BY_CALL,
    LEFT_OUT,
    WHOLE,
    Edit,
    cuts,
    factors,
    in_loops,
    known_factors,
    operands_in_loops,
    partly,
    products,
    wrong_operands,
)
from .graph import BackwardGraph, Values


def changed_graph(case: Case, rows: list[int]) -> Finding | None:
    """Find the one change in the backward graph after which all of `rows` come out."""
    graph = case.graph
    if graph is None or not all(map(case.comparable, rows)):
        return None
    with np.errstate(all="ignore"):
        search = Search(case, graph, rows)
        for edit in search.candidates():
            if case.late():
                return None
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


class Search:
    """The changes of a backward graph that are worth a run, for some wrong gradients.

    The backward pass is linear: whether a change can explain the gradients is told first by one
    inner product, in which each gradient has random weights.
    """

    def __init__(self, case: Case, graph: BackwardGraph, rows: list[int]) -> None:
        self.case, self.graph, self.rows = case, graph, rows
        self.right = [k for k in range(len(case.names)) if k not in case.wrong]
        self.tolerance = max(1e-6, 10 * case.tolerance)
        rng = np.random.default_rng(0)
        weights: dict[int, Array] = {}
        self.target, self.changed = 0.0, 0
        for k in (*rows, *self.right):
            if not case.comparable(k):
                continue
            g, h = case.automatic[k], np.asarray(case.handwritten[k], dtype=float)
            weights[k] = rng.standard_normal(g.shape) / (max(largest(g), largest(h)) or 1.0)
            if k in rows:
                self.target += float(np.sum(weights[k] * (h - g)))
                self.changed += int(np.sum(np.abs(h - g) > case.noise(k)))
        self.sensitivity = self._sensitivities(weights)
        wanted = set(rows)
        calls = [c for c in reversed(graph.backward) if wanted <= graph.reaches[c]]
        self.calls = [c for c in calls if c not in graph.repeated]

    def _sensitivities(self, weights: Mapping[int, Array]) -> Mapping[Call, Array] | None:
        try:
            return self.graph.sensitivities(weights)
        except Exception:  # a vjp that has no vjp of its own: each change is run
            return None

    def candidates(self) -> Iterator[Edit]:
        """Yield the changes that pass the screen, those that a person would name first."""
        return filter(self.possible, self._candidates())

    def _candidates(self) -> Iterator[Edit]:
        case, graph = self.case, self.graph
        everywhere = [p for p in passages(graph) if set(self.rows) <= self._reached(p.target)]
        through = [p for p in everywhere if p.target not in graph.repeated]
        for passage in through:
            yield from composite_edits(case, graph, passage)
        for call, generate in product(self.calls, BY_CALL):
            yield from generate(case, graph, call)
        for generate_all in WHOLE:
            yield from generate_all(case, graph)
        cut = [e for p in through for e in composite_edits(case, graph, p)]
        cut += [e for call in self.calls for e in cuts(case, graph, call)]
        yield from self._solved(cut, known_factors(case))
        through.sort(key=self._unnatural)
        yield from (replaced(case, graph, p, ONE) for p in through if p.steps == 1)
        screen = Screen(factors_of(case, graph)) if self.sensitivity is not None else None
        for passage in through:
            yield from self._derivatives(screen, passage, own=True)
        yield from in_loops(case, graph)
        yield from replaced_in_loops(case, graph, everywhere)
        for call in self.calls:
            yield from wrong_operands(case, graph, call)
        yield from operands_in_loops(case, graph)
        for passage in through:
            yield from self._derivatives(screen, passage, own=False)
        yield from self._solved(cut, None)
        for call in self.calls:
            yield from products(case, graph, call, residual=True)
        for call in self.calls:
            for factor in self._factors(screen, call, graph.array(call)):
                yield multiplied(case, call, factor)

    def alike(self, edit: Edit) -> Iterator[Edit]:
        """Yield the same change at other calls: a factor, say, may be lost anywhere on a chain."""
        if len(edit.changes) == 1:
            for call, generate in product(self.calls, (*BY_CALL, factors)):
                if call not in edit.changes:
                    same = (e for e in generate(self.case, self.graph, call) if e.key == edit.key)
                    yield from filter(self.possible, same)

    def _unnatural(self, passage: Passage) -> tuple[Any, ...]:
        """Order passages: first those between values that a person has names for."""
        ends = (passage.result, passage.argument)
        named, natural = (
            [test(end) for end in ends]
            for test in (self.case.is_named, partial(is_natural, self.case))
        )
        return not all(natural), not all(named), not named[0], passage.steps

    def _solved(self, cut: list[Edit], known: dict[float, str] | None) -> Iterator[Edit]:
        """Yield the factors which, on a path that may be cut, explain the gradients.

        That a path is c times what it should be changes 1 - c times what its cut does. Only
        `known` factors are yielded; with None, any other that is not near to 1 or 0.
        """
        if self.changed < 3:  # one number, or two, tell no factor
            return
        for edit in cut:
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

    def _derivatives(self, screen: Screen | None, passage: Passage, *, own: bool) -> Iterator[Edit]:
        """Yield the wrong derivatives of a passage: functions of its own values, or of others."""
        case, graph = self.case, self.graph
        if own:
            yield replaced(case, graph, passage, ONE)
        came = graph.array(graph.adjoints[passage.result])
        for factor in self._factors(screen, passage.target, came):
            if own == (factor.of in (passage.result, passage.argument)):
                yield replaced(case, graph, passage, factor)

    def _reached(self, call: Call) -> frozenset[int]:
        return self.graph.reaches.get(call, frozenset())

    def _factors(self, screen: Screen | None, call: Call, came: Array) -> Iterator[Factor]:
        """Yield the factors with which `came` in the place of a call may explain all."""
        if screen is None or self.sensitivity is None:
            return
        sensitivity = self.sensitivity.get(call)
        if sensitivity is None or self.case.late() or sensitivity.shape != came.shape:
            return
        before = float(np.sum(sensitivity * self.graph.array(call)))
        yield from screen.passing(sensitivity * came, self.target + before, self.tolerance)

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
        moved, size = 0.0, 0.0
        for call, make in edit.changes.items():
            sensitivity = self.sensitivity.get(call) if self.sensitivity is not None else None
            try:
                change = np.asarray(make(call, self.graph.value)) - self.graph.array(call)
            except (ValueError, IndexError, TypeError):
                return None
            if sensitivity is None:
                return None
            if change.shape != sensitivity.shape:
                change = np.broadcast_to(change, sensitivity.shape)
            moved += float(np.sum(sensitivity * change))
            size += float(np.sum(np.abs(sensitivity * change)))
        return (moved, size) if np.isfinite(moved) else None

    def explained(self, edit: Edit) -> Values | None:
        """Return what a replay changes if all the handwritten gradients come out; else None."""
        case, graph = self.case, self.graph
        try:
            values = graph.replay(edit.changes)
        except Exception:
            return None
        reached = {k for call in edit.changes for k in graph.reaches.get(call, ())}
        if not reached >= set(self.rows):
            return None
        for k in (*self.rows, *(k for k in self.right if k in reached and case.comparable(k))):
            if not case.explains(k, graph.gradient(k, values)):
                return None
        return values
