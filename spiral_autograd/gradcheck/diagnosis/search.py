"""What of a backward pass is left out: looked for in autograd's own, by leaving it out there."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from itertools import chain

import numpy as np

from ...validation import Array
from ..finding import Finding, found
from ..reference.graph import Change, Graph, Site, is_number
from ..reference.nodes import UNFIT, Node
from .case import UNLIKELY, Case, Reason
from .probes import Probes
from .second_point import standing_at
from .turns import Turns


@dataclass(frozen=True)
class Candidate:
    """A change of the backward pass that may explain some gradients.

    Attributes
    ----------
    changes : mapping of Site to Change
    rows : set of int
        The gradients that it may explain.
    cost : float
        How far it is from what a person would think of first.
    node : Node
        The result of the forward operation whose gradient is wrong.
    say : callable
        Returns what is said of it.
    """

    changes: Mapping[Site, Change]
    rows: frozenset[int]
    cost: float
    node: Node
    say: Callable[[], Finding]


def nothing(g: object, part: Array) -> object:
    """The change by which nothing flows back through a site."""
    return 0 * part


def unchanged(g: object, part: object) -> object:
    """The change by which a gradient flows back through a site as it is."""
    return g


class Search:
    """Looks for what is left out, so that wrong gradients come out as they are, and right ones."""

    def __init__(
        self,
        case: Case,
        graph: Graph,
        rows: list[int],
        left: Sequence[int],
        through_max: bool,
    ) -> None:
        self.case, self.graph, self.rows, self.left = case, graph, rows, set(left)
        right = [k for k in range(len(case.names)) if k not in case.wrong]
        self.right = [k for k in right if case.comparable(k)]
        self.probes = Probes(case, graph, rows, through_max)
        self.turns = Turns(graph)

    def reasons(self, more: Iterable[Candidate]) -> Iterator[Reason]:
        """Yield what explains gradients, until all are explained or nothing more does."""
        rows, left = set(self.rows), set(self.left)
        candidates = [*more, *self.left_out(), *self.only_one_way()]
        for candidate in sorted(candidates, key=lambda c: (-len(c.rows), c.cost)):
            self.case.deadline.check()
            reason = self.verified(candidate, left) if candidate.rows & rows else None
            if reason is not None:
                rows, left = rows - {*reason.rows}, left - {*reason.rows}
                yield reason

    # -------------------- what may be left out --------------------

    def left_out(self) -> Iterator[Candidate]:
        """Yield what flows back, or its derivative, at operations and between named values."""
        for site in chain(self.graph.edges(), self.graph.wholes(), self.passages):
            y, x = site.result, site.argument
            is_own = y is None and not x.parents  # it would be but zero
            if is_own or self.turns.is_inner(site):
                continue
            cost, say = self.cost(site), partial(self._left_out, site)
            yield from self._explaining({site: nothing}, cost + self.unlikely(site), y or x, say)
            if y is not None and np.shape(y.value) == np.shape(x.value):
                say = partial(self._lost, site, y)
                yield from self._explaining({site: unchanged}, cost + 0.5, y, say)

    def only_one_way(self) -> Iterator[Candidate]:
        """Yield all ways back to a value but one: of many but the first, or but the last."""
        for x, ways in self._several_ways():
            cost = 1.0 + self.cost(Site(None, x))
            for n in range(len(ways)) if len(ways) <= 6 else (0, len(ways) - 1):
                others = [way for way in ways if way is not ways[n]]
                changes, say = dict.fromkeys(others, nothing), partial(self._only, ways, n)
                yield from self._explaining(changes, cost, x.users[n], say)

    def _several_ways(self) -> Iterator[tuple[Node, list[Site]]]:
        """Yield the values to which two turns of a line, or three lines, lead back."""
        for x in (x for x in self.graph.nodes if len(x.users) > 1):
            ways = [Site(u, x, (u,)) for u in x.users if np.shape(u.adjoint) == np.shape(u.value)]
            is_turn = len({user.call.instruction for user in x.users}) == 1
            if len(ways) > 2 - is_turn and not self.turns.is_inner(Site(None, x)):
                yield x, ways

    def _explaining(
        self, changes: Mapping[Site, Change], cost: float, node: Node, say: Callable[[], Finding]
    ) -> Iterator[Candidate]:
        """Yield changes at sites beside each other as a candidate, where they explain anything."""
        self.case.deadline.check()
        if rows := self.probes.explained(changes):
            yield Candidate(changes, rows, cost, node, say)

    @cached_property
    def passages(self) -> list[Site]:
        """The longer ways between values that have names."""
        return list(self.graph.passages(self.is_natural))

    def is_named(self, node: Node) -> bool:
        """Tell whether the reader's code has a name for a value."""
        return self.case.variable(node) is not None

    def is_natural(self, node: Node) -> bool:
        """Tell whether a person would differentiate by a value: not by the inside of a formula."""
        if self.is_named(node) or any(node is out.argument for out in self.graph.outputs):
            return True
        return node.name not in INNER and not any(map(is_number, node.call.args))

    def cost(self, site: Site) -> float:
        """Return how far a site is from the first that a person would think of."""
        unnamed = sum(not self.is_named(node) for node in _ends(site))
        return 0.3 * unnamed + 0.05 * site.steps

    def unlikely(self, site: Site) -> float:
        """Return how unlikely it is that one site is left out, and nothing beside it."""
        ends = _ends(site)
        rest = site.steps == 1 and [node.name for node in ends] == ["set_at", "set_at"]
        shared = not self.turns.repeats(site.argument)  # by the turns: then they overwrite it
        one_turn = shared and self.turns.repeats(ends[0])
        return 0.4 * (site.via is not None) + UNLIKELY * (site.steps > 1) + 1.2 * rest + one_turn

    # -------------------- verified --------------------

    def verified(self, candidate: Candidate, left: set[int]) -> Reason | None:
        """Return a candidate as a reason of those gradients that it makes as they are, if any.

        A max through which nothing flows back, as in a softmax, is often left out, too.
        """
        best: Reason | None = None
        is_through = False
        for through_max in (False, True) if self.graph.cancelled else (False,):
            try:
                bars = self.graph.rerun(candidate.changes, through_max=through_max)
            except UNFIT:
                continue
            rows = self._rows_of(bars, left)
            if rows and (best is None or len(rows) > len(best.rows)):
                best = Reason(candidate.say(), rows, candidate.node.call, cost=candidate.cost)
                is_through = through_max
        return best if best and self._holds_elsewhere(candidate, best, is_through) else None

    def _rows_of(self, bars: Mapping[Node, object], left: set[int]) -> list[int]:
        case, roots = self.case, self.graph.roots
        changed = {k: bars.get(roots[k], roots[k].adjoint) for k in (*self.right, *left)}
        if not all(case.explains(k, changed[k]) for k in self.right if roots[k] in bars):
            return []
        return [k for k in sorted(left) if roots[k] in bars and case.explains(k, changed[k])]

    def _holds_elsewhere(self, candidate: Candidate, reason: Reason, through_max: bool) -> bool:
        """Tell whether what explains gradients does so at a second point too, if there is one."""
        second = self.case.second()
        if second is None or second.graph is None:
            return True
        with standing_at(second.graph, self.graph):
            try:
                bars = self.graph.rerun(candidate.changes, through_max=through_max)
            except UNFIT:
                return False
            now = [np.asarray(bars.get(root, root.adjoint)) for root in self.graph.roots]
        there = replace(second, automatic=now)
        return all(k in there.wrong and there.explains(k, now[k]) for k in reason.rows)

    # -------------------- what is said --------------------

    def _left_out(self, site: Site) -> Finding:
        y, x = site.result, site.argument
        if y is None:
            return found("left_out", flow=found("flow_to", argument=self.case.name(x)))
        if y.call.source is None:
            return found("left_out", flow=found("upstream_of", argument=self.case.name(x)))
        return found("left_out", flow=self._flow(site))

    def _lost(self, site: Site, y: Node) -> Finding:
        result, by = self.case.name(y), self.case.name(site.argument)
        if result == by:  # i = sigmoid(i)
            result = self.case.expression(y)
        return found("lost", result=result, by=by if site.steps > 1 else None)

    def _only(self, ways: Sequence[Site], n: int) -> Finding:
        """Say that only the n-th of several ways is kept, and which run of its line it is."""
        lines = [way.result.call.instruction for way in ways if way.result is not None]
        before, several = lines[:n].count(lines[n]), lines.count(lines[n])
        flow = self._flow(ways[n], (before + 1, several) if several > 1 else None)
        is_turn = len(set(lines)) == 1
        rule = "sum" if is_turn else "term"
        return found("only", flow=flow, overwritten=is_turn, is_set=False, rule=rule)

    def _flow(self, site: Site, run: tuple[int, int] | None = None) -> Finding:
        """Return a gradient on its way; `run` tells which of several runs of a line it is."""
        y, x, via, name = site.result, site.argument, site.via, self.case.name
        assert y is not None
        several = len(y.parents) > 1 or site.steps > 1
        return found(
            "flow",
            result=name(y),
            via=name(via) if via not in (None, y) else None,
            argument=name(x) if several else None,
            run=run,
        )


INNER = frozenset("negative exp log log1p sqrt square power reciprocal tanh absolute abs".split())


def _ends(site: Site) -> list[Node]:
    return [node for node in (site.result, site.argument) if node is not None]
