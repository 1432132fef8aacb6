"""Why a gradient is wrong: a table of known mistakes, cheap ones first.

A mistake is claimed only where it explains all the numbers to the tolerance.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from itertools import product

import numpy as np

from ..recording import Call
from ..validation import Array
from .blocks import largest
from .case import Case, Finding, Rule
from .derivatives import (
    ONE,
    Factor,
    Passage,
    Screen,
    composite_edits,
    factors_of,
    multiplied,
    passages,
    replaced,
)
from .edits import BY_CALL, Edit, exchanges, in_loops, products
from .graph import BackwardGraph, Values
from .rules import (
    additive_term,
    constant_along,
    constant_factor,
    given_twice,
    layout,
    never_written,
    partly_wrong,
    summed_axes,
    upstream_misused,
)

SINGLE: tuple[Rule, ...] = (
    never_written,
    constant_factor,
    layout,
    summed_axes,
    upstream_misused,
    additive_term,
)
LAST: tuple[Rule, ...] = (given_twice, partly_wrong, constant_along)


def diagnose(case: Case) -> list[Finding]:
    """Return what explains the wrong gradients, as far as anything does.

    Parameters
    ----------
    case : Case

    Returns
    -------
    list of Finding
        Each names the rows that it explains.
    """
    findings: list[Finding] = []
    open_rows = list(case.wrong)

    def settle(found: Iterable[Finding | None]) -> None:
        for finding in found:
            if finding is not None:
                findings.append(finding)
                for k in finding.rows:
                    open_rows.remove(k)

    for rule in SINGLE:
        settle(_safely(rule, case, k) for k in list(open_rows))
    if len(open_rows) > 1:
        settle([changed_graph(case, list(open_rows))])
    settle(changed_graph(case, [k]) for k in list(open_rows))
    for first in [finding for finding in findings if finding.values]:
        settle(_beside(case, first, k) for k in list(open_rows))
    for rule in LAST:
        settle(_safely(rule, case, k) for k in list(open_rows))
    return findings


def _safely(rule: Rule, case: Case, k: int) -> Finding | None:
    h = case.handwritten[k]
    if case.late() or (h is None and rule is not never_written):
        return None
    if h is not None and not np.isfinite(np.asarray(h, dtype=float)).all():
        return None
    with np.errstate(all="ignore"):
        return rule(case, k)


# -------------------- one change in autograd's backward graph --------------------


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
                return _finding(edit, rows, values)
    return None


def _finding(edit: Edit, rows: list[int], values: Values) -> Finding:
    products = [value for call, value in values.items() if call.gradient_of is not None]
    return Finding(edit.rule, f"comes out if {edit.text}", rows, edit.of, products, values)


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
        self.target = 0.0
        for k in (*rows, *self.right):
            if not case.comparable(k):
                continue
            g, h = case.automatic[k], np.asarray(case.handwritten[k], dtype=float)
            weights[k] = rng.standard_normal(g.shape) / (max(largest(g), largest(h)) or 1.0)
            if k in rows:
                self.target += float(np.sum(weights[k] * (h - g)))
        self.sensitivity = self._sensitivities(weights)
        wanted = set(rows)
        self.calls = [c for c in reversed(graph.backward) if wanted <= graph.reaches[c]]

    def _sensitivities(self, weights: Mapping[int, Array]) -> Mapping[Call, Array] | None:
        try:
            return self.graph.sensitivities(weights)
        except Exception:  # a vjp that has no vjp of its own: each change is run
            return None

    def candidates(self) -> Iterator[Edit]:
        """Yield the changes that pass the screen, those that a person would name first."""
        case, graph = self.case, self.graph
        through = [p for p in passages(graph) if set(self.rows) <= self._reached(p.target)]
        for passage in through:
            yield from filter(self.possible, composite_edits(case, graph, passage))
        for call, generate in product(self.calls, BY_CALL):
            yield from filter(self.possible, generate(case, graph, call))
        yield from filter(self.possible, exchanges(case, graph))
        through.sort(key=lambda p: (not self._is_named(p), p.steps))
        steps = [p for p in through if p.steps == 1]
        yield from filter(self.possible, (replaced(case, graph, p, ONE) for p in steps))
        screen = Screen(factors_of(case, graph)) if self.sensitivity is not None else None
        for own in (True, False):
            for passage in through:
                yield from self._derivatives(screen, passage, own=own)
            if own:
                yield from in_loops(case, graph)
        for call in self.calls:
            yield from filter(self.possible, products(case, graph, call, residual=True))
        for call in self.calls:
            for factor in self._factors(screen, call, graph.array(call)):
                yield multiplied(case, call, factor)

    def _is_named(self, passage: Passage) -> bool:
        return self.case.is_named(passage.result) and self.case.is_named(passage.argument)

    def _derivatives(self, screen: Screen | None, passage: Passage, *, own: bool) -> Iterator[Edit]:
        """Yield the wrong derivatives of a passage: functions of its own values, or of others."""
        case, graph = self.case, self.graph
        if own:
            yield from filter(self.possible, [replaced(case, graph, passage, ONE)])
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
        if self.sensitivity is None:
            return True
        moved, size = 0.0, 0.0
        for call, make in edit.changes.items():
            sensitivity = self.sensitivity.get(call)
            if sensitivity is None:
                return False
            try:
                change = np.asarray(make(call, self.graph.value)) - self.graph.array(call)
            except (ValueError, IndexError, TypeError):
                return False
            if change.shape != sensitivity.shape or not np.isfinite(change).all():
                return True
            moved += float(np.sum(sensitivity * change))
            size += float(np.sum(np.abs(sensitivity * change)))
        return abs(moved - self.target) <= self.tolerance * (size + abs(self.target))

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


# -------------------- two mistakes --------------------


def _beside(case: Case, first: Finding, k: int) -> Finding | None:
    """Find a second mistake that explains the k-th gradient, once the first one is in the graph."""
    assert case.graph is not None
    graph = case.graph.changed(dict(first.values))
    automatic = [graph.gradient(i, {}) for i in range(len(case.names))]
    other = replace(case, graph=graph, automatic=automatic)
    if np.array_equal(automatic[k], case.automatic[k]) or not case.comparable(k):
        return None
    rules = (constant_factor, layout, summed_axes, additive_term)
    tries: Iterator[Finding | None] = (_safely(rule, other, k) for rule in rules)
    second = next((found for found in tries if found is not None), None)
    second = second or changed_graph(other, [k])
    if second is None:
        return None
    return replace(
        second, text=f"has two mistakes: it {first.text}; and beside that, {second.text}"
    )
