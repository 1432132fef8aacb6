"""Why a gradient is wrong: a table of known mistakes, cheap ones first.

A mistake is claimed only where it explains all the numbers to the tolerance.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import replace
from itertools import product

import numpy as np

from ..guard import OutOfTime
from .case import Case, Finding, Rule
from .factors import any_factor, named_factor
from .partly import partly_wrong
from .rules import (
    any_term,
    constant_along,
    given_twice,
    layout,
    never_written,
    plain_term,
    summed_axes,
    upstream_misused,
)
from .search import changed_graph

SINGLE: tuple[Rule, ...] = (
    never_written,
    upstream_misused,
    named_factor,
    layout,
    summed_axes,
    plain_term,
)
LATER: tuple[Rule, ...] = (any_factor, any_term, given_twice)
LAST: tuple[Rule, ...] = (partly_wrong, constant_along)  # less than a reason: for want of one
LARGE = 100_000  # entries of a gradient for which no rule is cheap


def diagnose(*cases: Case) -> list[Finding]:
    """Return what explains the wrong gradients, as far as anything does.

    Parameters
    ----------
    *cases : Case
        The same wrong gradients; beside the true ones of the first case, those of others that the
        mistake may be one against, such as the forward pass without a small constant.

    Returns
    -------
    list of Finding
        Each names the rows that it explains.
    """
    findings: list[Finding] = []
    open_rows = list(cases[0].wrong)

    def settle(found: Iterable[Finding | None]) -> None:
        for finding in found:
            if finding is not None:
                findings.append(finding)
                for k in finding.rows:
                    open_rows.remove(k)

    def by(rules: Sequence[Rule]) -> None:
        for case, rule in product(cases, rules):
            settle(_safely(rule, case, k) for k in list(open_rows))

    by(SINGLE)
    if len(open_rows) == 1:  # else what all of them have in common tells more
        by([given_twice])
    with suppress(OutOfTime):
        _search(cases, open_rows, findings, settle)
    by(LATER)
    if not cases[0].late():
        by(LAST)
    return findings


def _search(
    cases: Sequence[Case],
    open_rows: list[int],
    findings: list[Finding],
    settle: Callable[[Iterable[Finding | None]], None],
) -> None:
    """Settle rows by one change in the backward graph, or by two, until the time is spent."""
    cases[0].deadline.check()
    searched = [*cases, *filter(None, map(_through_every_max, cases))]
    for case in searched:
        together = [k for k in open_rows if case.comparable(k)]
        if len(together) > 1:
            settle([changed_graph(case, together)])
    for case in searched:
        for k in _nearest_to_the_loss(case, open_rows):
            if k in open_rows:
                settle([_spread(case, changed_graph(case, [k]), open_rows)])
        for first in [finding for finding in findings if finding.values]:
            for k in list(open_rows):
                settle([_beside(case, first, k)])


def _through_every_max(case: Case) -> Case | None:
    graph = case.graph.through_every_max() if case.graph is not None else None
    return None if graph is None else replace(case, graph=graph, stock=None)


def _nearest_to_the_loss(case: Case, rows: Iterable[int]) -> list[int]:
    """Return rows in the order of the backward pass: the first may explain those after it."""
    graph = case.graph
    if graph is None:
        return list(rows)
    last = {k: max(map(graph.position, graph.users(graph.roots[k])), default=-1) for k in rows}
    return sorted(rows, key=lambda k: -last[k])


def _spread(case: Case, found: Finding | None, rows: Iterable[int]) -> Finding | None:
    """Return a finding with all the rows that it explains."""
    if found is None or case.graph is None:
        return found
    others = [
        k
        for k in rows
        if k not in found.rows
        and case.comparable(k)
        and case.explains(k, case.graph.gradient(k, dict(found.values)))
    ]
    return replace(found, rows=[*found.rows, *others])


def _safely(rule: Rule, case: Case, k: int) -> Finding | None:
    h = case.handwritten[k]
    if (case.late() and case.automatic[k].size > LARGE) or (
        h is None and rule is not never_written
    ):
        return None
    if h is not None and not np.isfinite(np.asarray(h, dtype=float)).all():
        return None
    with np.errstate(all="ignore"):
        return rule(case, k)


# -------------------- two mistakes --------------------


def _beside(case: Case, first: Finding, k: int) -> Finding | None:
    """Find a second mistake that explains the k-th gradient, once the first one is in the graph."""
    assert case.graph is not None
    graph = case.graph.changed(dict(first.values))
    automatic = [graph.gradient(i, {}) for i in range(len(case.names))]
    other = replace(case, graph=graph, automatic=automatic, stock=None)
    if np.array_equal(automatic[k], case.automatic[k]) or not case.comparable(k):
        return None
    if case.explains(k, automatic[k]):
        return replace(first, rows=[k])
    rules = (named_factor, layout, summed_axes, plain_term)
    tries: Iterator[Finding | None] = (_safely(rule, other, k) for rule in rules)
    second = next((found for found in tries if found is not None), None)
    second = second or changed_graph(other, [k])
    if second is None:
        return None
    return replace(
        second, text=f"has two mistakes: it {first.text}; and beside that, {second.text}"
    )
