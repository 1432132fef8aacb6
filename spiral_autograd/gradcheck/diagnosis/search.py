"""One search for all mistakes: probe, screen, verify; the cheapest change that explains wins."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import chain

import numpy as np

from ...validation import Array
from ..reference.graph import Change, Graph, Site, is_number
from ..reference.nodes import UNFIT, Node
from . import changes
from .case import Case
from .changes import FAMILIES
from .factors import factor_of
from .probes import Edit, Probes, Spot
from .second_point import standing_at
from .turns import Turns
from .updated import updated

Changes = Mapping[Site, Change]
Stage = tuple[Callable[["Search"], Iterable["Candidate"]], float, float]


@dataclass(frozen=True)
class Candidate:
    """A change at one site, or the same at several, that may explain some gradients."""

    edits: tuple[tuple[Site, Edit], ...]
    rows: frozenset[int]
    cost: float

    @property
    def changes(self) -> Changes:
        """What it does at which site."""
        return {site: edit.change for site, edit in self.edits}


@dataclass(frozen=True)
class Explained:
    """A change that has been verified, with the gradients that it makes."""

    candidate: Candidate
    rows: list[int]
    bars: Mapping[Node, object]
    made: list[object]  # by the change itself
    through_max: bool = False


class Search:
    """Looks for the changes that explain some wrong gradients, and leave the right ones right."""

    def __init__(
        self,
        case: Case,
        graph: Graph,
        rows: list[int],
        left: Sequence[int],
        through_max: bool,
    ) -> None:
        self.case, self.graph, self.rows, self.left = case, graph, rows, left
        self.through_max = through_max
        self.right = [k for k in range(len(case.names)) if k not in case.wrong]
        self.right = [k for k in self.right if case.comparable(k)]
        self.differing = {
            k: int(np.sum(np.abs(case.written(k) - graph.gradient(k)) > case.noise(k)))
            for k in left
        }
        self.probes = Probes(case, graph, rows, through_max)
        self.turns = Turns(graph)
        self._spots: dict[Site, Spot | None] = {}

    # -------------------- the course --------------------

    def explained(self, course: Sequence[Stage]) -> Iterator[Explained]:
        """Yield what explains gradients, until all are explained or nothing more does.

        The course is what is tried, one after the other, and up to which cost each is believed.
        """
        rows, left = set(self.rows), set(self.left)
        pending: list[Candidate] = []
        for some, whole, part in course:
            pending = [c for c in (*pending, *some(self)) if c.rows & rows]
            pending.sort(key=lambda c: (-len(c.rows & rows), c.cost))
            for candidate in [c for c in pending if c.cost < (whole if c.rows >= rows else part)]:
                pending.remove(candidate)
                self.case.deadline.check()
                explained = self.verified(candidate, left) if candidate.rows & rows else None
                if explained is not None:
                    rows, left = rows - set(explained.rows), left - set(explained.rows)
                    yield explained
            if not rows:
                return

    def natural(self) -> Iterator[Candidate]:
        """Yield changes at single operations, and between values that have names."""
        for site in self.sites:
            spot = self.spot(site)
            if spot is not None:
                for family in chain.from_iterable(make(spot) for make in FAMILIES):
                    rows = self.probes.passing(family.effects, family.sizes)
                    for i in np.flatnonzero(rows.any(axis=1)):
                        edit = family.edit(int(i))
                        if edit.kind != "times":
                            yield self.candidate(site, edit, rows[i])
                yield from self._solved(spot)

    def updates(self) -> Iterator[Candidate]:
        """Yield what is multiplied by a parameter that has been updated already."""
        for site in self.sites:
            spot = self.spot(site)
            if spot is not None:
                yield from (self.candidate(site, edit, rows) for edit, rows in updated(spot))

    def _solved(self, spot: Spot) -> Iterator[Candidate]:
        """Yield the multiples of what reaches the argument that explain the gradients."""
        shares = self.probes.share(spot.effect)
        for n, share in enumerate(shares):
            c = 1 + share
            if not np.isfinite(c) or abs(c) < 1e-6 or abs(share) < 1e-6:
                continue
            named = factor_of(self.case, c) is not None
            few = all(self.differing[k] < 3 for k in self.probes.rows[n])
            if not named and (few or not 1e-3 < abs(c) < 1e4):
                continue
            effect = share * spot.effect[None]
            rows = self.probes.passing(effect, np.abs(effect))[0]
            if rows.any():
                edit = changes.times(float(c))
                yield self.candidate(spot.site, edit, rows, 0.0 if named else 2.0)

    def candidate(self, site: Site, edit: Edit, rows: Array, extra: float = 0.0) -> Candidate:
        """Return a change at one site as a candidate."""
        cost = self.cost_of(site, edit) + extra
        return Candidate(((site, edit),), self.probes.which(rows), cost)

    # -------------------- sites and what may be done there --------------------

    @cached_property
    def sites(self) -> list[Site]:
        """The single operations, all that flows back to a value, and what has names at its ends."""
        found = [*self.graph.edges(), *self.graph.wholes(), *self.passages]
        return [site for site in self._in_time(found) if not self.turns.is_inner(site)]

    @cached_property
    def passages(self) -> list[Site]:
        """The longer ways between values that have names."""
        return list(self._in_time(self.graph.passages(self.is_natural)))

    def _in_time(self, sites: Iterable[Site]) -> Iterator[Site]:
        for site in sites:
            self.case.deadline.check()
            yield site

    def spot(self, site: Site) -> Spot | None:
        """Return a site with what flows there; None where that leads to no wrong gradient."""
        if site not in self._spots:
            self.case.deadline.check()
            self._spots[site] = self._spot(site)
        return self._spots[site]

    def _spot(self, site: Site) -> Spot | None:
        if not self.probes.moves(site.argument):
            return None
        g = np.asarray((site.result or site.argument).adjoint, dtype=float)
        c = np.asarray(self.graph.part(site, g, through_max=self.through_max), dtype=float)
        shape = np.shape(site.argument.value)
        return Spot(self.graph, self.probes, site, g, c) if c.shape == shape else None

    # -------------------- verified --------------------

    def verified(self, candidate: Candidate, left: set[int]) -> Explained | None:
        """Return which of some gradients a change explains, once the backward pass has run."""
        best: Explained | None = None
        for through_max in (False, True) if self.graph.cancelled else (False,):
            made: list[object] = []
            try:
                bars = self.graph.rerun(candidate.changes, through_max=through_max, made=made)
            except UNFIT:
                continue
            rows = self._rows_of(bars, left)
            if rows and (best is None or len(rows) > len(best.rows)):
                best = Explained(candidate, rows, bars, made, through_max)
        return best if best is None or self._holds_elsewhere(best) else None

    def _rows_of(self, bars: Mapping[Node, object], left: set[int]) -> list[int]:
        case, roots = self.case, self.graph.roots
        changed = {k: bars.get(roots[k], roots[k].adjoint) for k in (*self.right, *left)}
        if not all(case.explains(k, changed[k]) for k in self.right if roots[k] in bars):
            return []
        return [k for k in sorted(left) if roots[k] in bars and case.explains(k, changed[k])]

    def _holds_elsewhere(self, explained: Explained) -> bool:
        """Tell whether what explains gradients does so at a second point too.

        Where there is none, a function is not believed of one number: many have any one.
        """
        changed = self._there(explained)
        if changed is not None:
            rows = explained.rows
            return all(
                k in changed.wrong and changed.explains(k, changed.automatic[k]) for k in rows
            )
        _, edit = explained.candidate.edits[0]
        few = sum(self.differing[k] for k in explained.rows)
        return few > 1 or edit.kind in ("left_out", "times", "not_carried")

    def _there(self, explained: Explained) -> Case | None:
        """Return the case at the second point, with the gradients as a change makes them there."""
        second, changes = self.case.second(), explained.candidate.changes
        if second is None or second.graph is None:
            return None
        with standing_at(second.graph, self.graph):
            try:
                bars = self.graph.rerun(changes, through_max=explained.through_max)
            except UNFIT:
                return replace(second, wrong=[])
            now = [np.asarray(bars.get(root, root.adjoint)) for root in self.graph.roots]
        return replace(second, automatic=now)

    # -------------------- names and costs --------------------

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
        ends = [node for node in (site.result, site.argument) if node is not None]
        unnamed = sum(not self.is_named(node) for node in ends)
        rest = site.steps == 1 and [n.name for n in ends] == ["set_at", "set_at"]
        return 0.3 * unnamed + 0.05 * site.steps + 0.4 * (site.via is not None) + 1.2 * rest

    def cost_of(self, site: Site, edit: Edit) -> float:
        """Return the cost of a change at a site: what is lost is lost at one operation."""
        lost = edit.kind in ("left_out", "times") and site.steps > 1
        shared = not self.turns.repeats(site.argument)  # by the turns: then they overwrite it
        result = site.result or site.argument
        one_turn = edit.kind == "left_out" and shared and self.turns.repeats(result)
        ends = (site.result or site.argument, site.argument)
        inside = edit.of == "derivative" and not all(map(self.is_natural, ends))
        by_steps = edit.of == "closed" and any(map(self.has_own_gradient, site.between[1:]))
        unlikely = 0.4 * lost + 1.0 * one_turn + 1.5 * (inside or by_steps)
        return edit.cost + self.cost(site) + unlikely

    def has_own_gradient(self, node: Node) -> bool:
        """Tell whether the reader's backward pass has a variable for the gradient of a value."""
        name = self.case.variable(node)
        return not self.case.variables_back.isdisjoint((f"d{name}", f"d_{name}", f"grad_{name}"))


INNER = frozenset("negative exp log log1p sqrt square power reciprocal tanh absolute abs".split())
