"""Why gradients are wrong: by their numbers, and by one change of the backward pass."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from itertools import chain, product

import numpy as np

from ..guard import OutOfTime
from ..reference.graph import Graph
from . import arrays, habits
from .carried import carried, truncated
from .case import Case, Reason
from .search import Search
from .second_point import says_the_same


def diagnose(*cases: Case, rows: Sequence[int] | None = None) -> list[Reason]:
    """Return what explains the wrong gradients, as far as anything does.

    Parameters
    ----------
    *cases : Case
        The same wrong gradients; beside the true ones of the first case, those of others that the
        mistake may be one against, such as the forward pass without a small constant.
    rows : sequence of int, optional
        Those of the wrong gradients that are to be explained; else all.

    Returns
    -------
    list of Reason
        Each names the rows that it explains.
    """
    reasons: list[Reason] = []
    rows = list(cases[0].wrong if rows is None else rows)

    def settle(some: Iterable[Reason | None]) -> None:
        for reason in some:
            if reason is not None:
                reasons[:] = [r for r in reasons if not set(r.rows) <= set(reason.rows)]
                reasons.append(reason)
                rows[:] = [k for k in rows if k not in reason.rows]

    def by(rules: Sequence[arrays.Rule]) -> None:
        for case in cases:
            for rule in rules:
                settle(_safely(rule, case, k) for k in list(rows))

    by((arrays.unwritten, *habits.RULES, *arrays.FIRST))
    if len(rows) == len(cases[0].wrong) == 1:  # else what all of them have in common tells more
        by([arrays.given_twice])
    by_numbers = [reason for reason in reasons if reason.rule in ALONE]
    with suppress(OutOfTime):
        for case in cases:
            if case.graph is not None and rows:
                told = [k for reason in by_numbers for k in reason.rows]
                settle(_searched(case, case.graph, rows, told))
    by(arrays.LATER)
    if not cases[0].deadline.is_over:
        by(arrays.LAST)
    return reasons


# What one gradient's numbers show, where a change that explains others may explain it too.
ALONE = ("sum", "factor", "layout")

LARGE = 100_000  # entries of a gradient for which no rule is cheap


def _safely(rule: arrays.Rule, case: Case, k: int) -> Reason | None:
    h = case.handwritten[k]
    if (case.deadline.is_over and case.automatic[k].size > LARGE) or (
        h is None and rule not in (arrays.unwritten, arrays.zeros)
    ):
        return None
    if h is not None and not np.isfinite(case.written(k)).all():
        return None
    with np.errstate(all="ignore"):
        reason = rule(case, k)
        return reason if reason is None or _holds_elsewhere(case, k, rule, reason) else None


# What they tell they ask of other upstream gradients, or of a second point, themselves.
SURE: tuple[arrays.Rule, ...] = (arrays.misused_upstream, *arrays.LAST)


def _holds_elsewhere(case: Case, k: int, rule: arrays.Rule, reason: Reason) -> bool:
    """Tell whether the same is found at a second point."""
    second = None if rule in SURE or reason.lines else case.second()
    if second is None:
        return True
    there = rule(second, k) if k in second.wrong else None
    return there is not None and says_the_same(there.finding, reason.finding, 10 * second.tolerance)


def _searched(
    case: Case, graph: Graph, rows: Sequence[int], told: Sequence[int]
) -> Iterator[Reason]:
    """Yield what explains gradients by what flows back nowhere.

    What explains some gradients is said of those, too, of which something has been told already.
    """
    case.deadline.check()
    rows, every = ([k for k in some if case.comparable(k)] for some in (rows, [*rows, *told]))
    modes, explained = (False, True) if graph.cancelled else (False,), set[int]()
    with np.errstate(all="ignore"):
        for through_max, some in product(modes, _chunks(graph, rows)):
            now, left = ([k for k in ks if k not in explained] for ks in (some, every))
            search = Search(case, graph, now, left, through_max)
            loops = chain(carried(search), truncated(search))
            for reason in search.reasons(loops) if now else ():
                explained.update(reason.rows)
                yield reason


def _chunks(graph: Graph, rows: Sequence[int], most: int = 12) -> list[list[int]]:
    """Return rows in the order of the backward pass: the first may explain those after it."""
    last = {k: max((u.number for u in graph.roots[k].users), default=-1) for k in rows}
    ordered = sorted(rows, key=lambda k: -last[k])
    return [ordered[i : i + most] for i in range(0, len(ordered), most)]
