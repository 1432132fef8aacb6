"""One search for all mistakes: probe, screen, verify; the cheapest change that explains wins."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import cached_property, partial
from itertools import combinations
from typing import Any

import numpy as np

from ...validation import Array
from ..blocks import largest
from ..finding import Finding, found
from ..guard import OutOfTime
from ..reference.graph import UNFIT, Change, Graph, Node, Site, is_number
from . import arrays, changes
from .case import Case, Reason
from .changes import LIKELIEST, OTHERS, Edit, Family
from .probes import Probes, Spot, Stock
from .turns import Turns

Changes = Mapping[Site, Change]
Make = Callable[[Any, Stock], Iterator[Family]]


@dataclass(frozen=True)
class Candidate:
    """A change at one site, or the same at several, that may explain some gradients."""

    edits: tuple[tuple[Site, Edit], ...]
    rows: frozenset[int]
    cost: float
    how: str = ""  # "turns" of a loop, or "likewise" at other places

    @property
    def changes(self) -> Changes:
        """What it does at which site."""
        return {site: edit.change for site, edit in self.edits}


@dataclass(frozen=True)
class Explained:
    """A change that has been verified, with the gradients that it makes."""

    candidate: Candidate
    rows: list[int]
    bars: Mapping[Node, Any]


def diagnose(*cases: Case) -> list[Reason]:
    """Return what explains the wrong gradients, as far as anything does.

    Parameters
    ----------
    *cases : Case
        The same wrong gradients; beside the true ones of the first case, those of others that the
        mistake may be one against, such as the forward pass without a small constant.

    Returns
    -------
    list of Reason
        Each names the rows that it explains.
    """
    reasons: list[Reason] = []
    rows = list(cases[0].wrong)

    def settle(some: Iterable[Reason | None]) -> None:
        for reason in some:
            if reason is not None:
                reasons.append(reason)
                for k in reason.rows:
                    rows.remove(k)

    def by(rules: Sequence[arrays.Rule]) -> None:
        for case in cases:
            for rule in rules:
                settle(_safely(rule, case, k) for k in list(rows))

    by(arrays.FIRST)
    if len(rows) == 1:  # else what all of them have in common tells more
        by([arrays.given_twice])
    with suppress(OutOfTime):
        for case in cases:
            if case.graph is not None and rows:
                settle(_searched(case, case.graph, rows))
    by(arrays.LATER)
    if not cases[0].deadline.is_over:
        by(arrays.LAST)
    return reasons


LARGE = 100_000  # entries of a gradient for which no rule is cheap


def _safely(rule: arrays.Rule, case: Case, k: int) -> Reason | None:
    h = case.handwritten[k]
    if (case.deadline.is_over and case.automatic[k].size > LARGE) or (
        h is None and rule is not arrays.unwritten
    ):
        return None
    if h is not None and not np.isfinite(case.written(k)).all():
        return None
    with np.errstate(all="ignore"):
        return rule(case, k)


def _searched(case: Case, graph: Graph, rows: Sequence[int]) -> Iterator[Reason]:
    """Yield what one change of the backward pass explains; then two, one after the other."""
    case.deadline.check()
    left = [k for k in rows if case.comparable(k)]
    known: list[tuple[Reason, Candidate]] = []
    modes = (False, True) if graph.cancelled else (False,)
    with np.errstate(all="ignore"):
        for through_max in modes:
            for some in _chunks(graph, left):
                search = Search(case, graph, some, left, {}, through_max)
                for explained in search.explained() if set(some) & set(left) else ():
                    reason = search.reason(explained)
                    known.append((reason, explained.candidate))
                    left = [k for k in left if k not in explained.rows]
                    yield reason
        for first, candidate in known:
            if left:
                for reason in _second(case, graph, left, first, candidate):
                    left = [k for k in left if k not in reason.rows]
                    yield reason


def _chunks(graph: Graph, rows: Sequence[int], most: int = 4) -> list[list[int]]:
    """Return rows in the order of the backward pass: the first may explain those after it."""
    last = {k: max((u.number for u in graph.roots[k].users), default=-1) for k in rows}
    ordered = sorted(rows, key=lambda k: -last[k])
    return [ordered[i : i + most] for i in range(0, len(ordered), most)]


def _second(
    case: Case, graph: Graph, rows: list[int], first: Reason, candidate: Candidate
) -> Iterator[Reason]:
    """Yield the second mistakes that explain gradients once the first one has been made."""
    search = Search(case, graph, rows[:0], rows, candidate.changes)
    moved = [k for k in rows if not np.array_equal(search.now[k], graph.gradient(k))]
    if not moved:
        return
    other = replace(case, automatic=search.now)
    rules = (arrays.named_factor, arrays.layout, arrays.sums, arrays.plain_term)
    for k in moved:
        tries = (_safely(rule, other, k) for rule in rules)
        second = next((reason for reason in tries if reason is not None), None)
        if second is not None:
            rows = [j for j in rows if j != k]
            yield _both(first, second)
    moved = [k for k in moved if k in rows]
    if moved:
        search = Search(case, graph, moved, moved, candidate.changes)
        for explained in search.explained():
            yield _both(first, search.reason(explained))


def _both(first: Reason, second: Reason) -> Reason:
    finding = found("two_mistakes", first=first.finding, second=second.finding, rule=second.rule)
    return replace(second, finding=finding)


class Search:
    """Looks for the changes that explain some wrong gradients, and leave the right ones right."""

    def __init__(
        self,
        case: Case,
        graph: Graph,
        rows: list[int],
        left: Sequence[int],
        before: Changes,
        through_max: bool = False,
    ) -> None:
        self.case, self.graph, self.rows, self.left, self.before = case, graph, rows, left, before
        self.through_max = through_max
        self.bars = graph.rerun(before, through_max=through_max) if before else {}
        self.now = [np.asarray(self.bar(root), dtype=float) for root in graph.roots]
        self.right = [k for k in range(len(case.names)) if k not in case.wrong]
        self.right = [k for k in self.right if case.comparable(k)]
        self.differing = {
            k: int(np.sum(np.abs(case.written(k) - self.now[k]) > case.noise(k))) for k in left
        }
        self.probes = Probes(case, graph, rows, self.now, through_max)
        self.turns = Turns(graph)
        self.stock = Stock(graph, self.turns, self.is_named, self.bar)
        self._families: dict[tuple[Site, Make], list[Family]] = {}
        self._spots: dict[Site, Spot | None] = {}

    def bar(self, node: Node) -> Any:
        """Return the gradient of a value, with the changes that have been made before."""
        return self.bars.get(node, node.adjoint)

    # -------------------- the course --------------------

    def explained(self) -> Iterator[Explained]:
        """Yield what explains gradients, until all are explained or nothing more does."""
        rows, left = set(self.rows), set(self.left)
        pending: list[Candidate] = []
        for some, most in self._course():
            pending = [c for c in (*pending, *some()) if c.rows & rows]
            pending.sort(key=lambda c: (-len(c.rows & rows), c.cost))
            for candidate in [c for c in pending if c.cost < most]:
                pending.remove(candidate)
                self.case.deadline.check()
                explained = self.verified(candidate, left) if candidate.rows & rows else None
                if explained is not None:
                    rows, left = rows - set(explained.rows), left - set(explained.rows)
                    yield explained
            if not rows:
                return

    def _course(self) -> Iterator[tuple[Callable[[], Iterable[Candidate]], float]]:
        """Yield what is tried, one after the other, and which cost is no reason to go on."""
        yield partial(self.natural, LIKELIEST), 2.4
        yield partial(self.repeated, LIKELIEST), 2.4
        yield partial(self.natural, OTHERS), np.inf
        yield partial(self.repeated, OTHERS), np.inf
        for some in (self.alike, self.inner, self.pairs):
            yield some, np.inf

    def natural(self, sort: Sequence[Make]) -> Iterator[Candidate]:
        """Yield changes at single operations, and between values that have names."""
        for site in self.sites:
            spot = self.spot(site)
            if spot is not None:
                yield from self._single(spot, self.families(site, sort))
                if sort is OTHERS:
                    yield from self._filtered(spot, changes.updated(spot))
                else:
                    yield from self._solved(spot)

    def inner(self) -> Iterator[Candidate]:
        """Yield the changes between any values, and by functions of any values."""
        for site in self.graph.passages(lambda node: True):
            natural = site.result is not None and self.is_natural(site.result)
            if not (natural and self.is_natural(site.argument)) and not self.turns.is_inner(site):
                self.sites.append(site)
                spot = self.spot(site)
                if spot is not None:
                    yield from self._solved(spot)
                    yield from self._single(spot, self.families(site))
        for site in self.sites:
            spot = self.spot(site)
            if spot is not None:
                yield from self._filtered(spot, changes.other_functions(spot, self.stock))

    def _single(self, spot: Spot, families: Iterable[Family]) -> Iterator[Candidate]:
        for family in families:
            rows = self.probes.passing(family.effects, family.sizes)
            for i in np.flatnonzero(rows.any(axis=1)):
                edit = family.edit(int(i))
                if edit.kind != "times":
                    yield self.candidate(spot.site, edit, rows[i])

    def _filtered(self, spot: Spot, edits: Iterable[tuple[Edit, Array]]) -> Iterator[Candidate]:
        for edit, rows in edits:
            yield self.candidate(spot.site, edit, rows)

    def _solved(self, spot: Spot) -> Iterator[Candidate]:
        """Yield the multiples of what reaches the argument that explain the gradients."""
        shares = self.probes.share(spot.effect)
        for n, share in enumerate(shares):
            c = 1 + share
            if not np.isfinite(c) or abs(c) < 1e-6 or abs(share) < 1e-6:
                continue
            named = arrays.factor_of(self.case, c) is not None
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
        explained = {k for own, ok in zip(self.probes.rows, rows, strict=True) if ok for k in own}
        cost = self._cost(site, edit) + extra
        return Candidate(((site, edit),), frozenset(explained), cost)

    # -------------------- sites and what may be done there --------------------

    @cached_property
    def sites(self) -> list[Site]:
        """The single operations, all that flows back to a value, and what has names at its ends."""
        found = [*self.graph.edges(), *self.graph.wholes(), *self.passages]
        return [site for site in found if not self.turns.is_inner(site)]

    @cached_property
    def passages(self) -> list[Site]:
        """The longer ways between values that have names."""
        return list(self.graph.passages(self.is_natural))

    def spot(self, site: Site) -> Spot | None:
        """Return a site with what flows there; None where that leads to no wrong gradient."""
        if site not in self._spots:
            self.case.deadline.check()
            self._spots[site] = self._spot(site)
        return self._spots[site]

    def _spot(self, site: Site) -> Spot | None:
        if not self.probes.moves(site.argument):
            return None
        g = np.asarray(self.bar(site.result or site.argument), dtype=float)
        c = np.asarray(self.graph.part(site, g, through_max=self.through_max), dtype=float)
        shape = np.shape(site.argument.value)
        return Spot(self.graph, self.probes, site, g, c) if c.shape == shape else None

    def families(self, site: Site, sort: Sequence[Make] = (*LIKELIEST, *OTHERS)) -> list[Family]:
        """Return the changes of some sorts that are tried at a site."""
        spot = self.spot(site)
        found: list[Family] = []
        for make in sort if spot is not None else ():
            if (site, make) not in self._families:
                self._families[site, make] = list(make(spot, self.stock))
            found += self._families[site, make]
        return found

    # -------------------- the same at several sites --------------------

    def repeated(self, sort: Sequence[Make]) -> Iterator[Candidate]:
        """Yield the same change at each turn of a loop, and what does not flow between turns."""
        if sort is LIKELIEST:
            yield from self._carried()
        for sites in self.turns.classes([*self.graph.edges(), *self.sites_in_loops]):
            yield from self._together(sites, sort, "turns", 0.0)

    @cached_property
    def sites_in_loops(self) -> list[Site]:
        """The longer ways between values with names that run in loops."""
        if not self.turns.count:
            return []
        return [s for s in self.passages if s.via is None]

    def _carried(self) -> Iterator[Candidate]:
        """Yield the loss of all that flows back from one turn of a loop to the turn before."""
        carried = self.turns.carried()
        groups = [[node] for node in carried] + ([list(carried)] if len(carried) > 1 else [])
        for group in groups:
            sites = [site for line in group for site in carried[line]]
            if len({self.turns.lines[site.result] for site in sites if site.result}) < 2:
                continue  # one operation, the same at each turn
            values = [carried[line][-1].argument for line in group]
            edit = replace(changes.times(0.0), kind="not_carried", fields={"values": values}, of="")
            yield Candidate(tuple((s, edit) for s in sites), frozenset(self.rows), 0.1)

    def alike(self) -> Iterator[Candidate]:
        """Yield the same slip at several activations: in all, in those of a sort, in any few."""
        units: dict[Any, list[Site]] = {}
        for site in (*self.passages, *self.graph.edges()):
            natural = self.is_natural(site.argument) and self.is_natural(site.between[0])
            if natural and site.via is None and self.is_activation(site):
                units.setdefault(site.argument, []).append(site)
        lines: dict[Any, list[Site]] = {}
        for argument, sites in units.items():
            best = min(sites, key=self.cost)
            lines.setdefault(self.turns.lines[argument], []).append(best)
        chosen = list(lines.values())
        sorts: dict[Any, list[list[Site]]] = {}
        for sites in chosen:
            sorts.setdefault(tuple(node.name for node in sites[0].between), []).append(sites)
        few = [c for n in range(len(chosen) - 1, 1, -1) for c in combinations(chosen, n)]
        tried = set()
        for some in (chosen, *sorts.values(), *(few if len(chosen) <= 6 else ())):
            together = frozenset(site for sites in some for site in sites)
            if len(some) > 1 and together not in tried:
                tried.add(together)
                ordered = sorted(together, key=lambda s: s.argument.number)
                yield from self._together(ordered, LIKELIEST, "likewise", 1.0)

    def is_activation(self, site: Site) -> bool:
        """Tell whether each entry of the result comes from that of the argument alone."""
        inner = {*site.between, site.argument}
        return all(
            node.name in _ELEMENTWISE and inner.issuperset(node.parents) for node in site.between
        ) and any(node.name not in _LINEAR for node in site.between)

    def _together(
        self, sites: Sequence[Site], sort: Sequence[Make], how: str, extra: float
    ) -> Iterator[Candidate]:
        """Yield the changes that can be made at each of some sites, at all of them at once."""
        if any(self.spot(site) is None for site in sites):
            sites = [site for site in sites if self.spot(site) is not None]
        if len(sites) < 2:
            return
        tables = [self._by_key(site, sort, how) for site in sites]
        common = [key for key in tables[-1] if all(key in table for table in tables[:-1])]
        if not common:
            return
        effects = sum(np.stack([t[k][0].effects[t[k][1]] for k in common]) for t in tables)
        sizes = sum(np.stack([t[k][0].sizes[t[k][1]] for k in common]) for t in tables)
        apart = self.turns.are_apart(sites)
        rows = self.probes.passing(np.asarray(effects), np.asarray(sizes))
        for n, key in enumerate(common):
            if rows[n].any() if apart else _is_natural_slip(key):
                some = [t[key][0].edit(t[key][1]) for t in tables]
                which = frozenset(
                    k
                    for own, ok in zip(self.probes.rows, rows[n], strict=True)
                    if ok or not apart
                    for k in own
                )
                pairs = tuple(zip(sites, some, strict=True))
                yield Candidate(pairs, which, self._cost(sites[-1], some[-1]) + extra, how)

    def _by_key(self, site: Site, sort: Sequence[Make], how: str) -> dict[Any, tuple[Family, int]]:
        return {
            key: (family, i)
            for family in self.families(site, sort)
            for i in range(len(family.effects))
            for key in [family.key(i)]
            if how == "turns" or _is_derivative(key)
        }

    def pairs(self) -> Iterator[Candidate]:
        """Yield the same slip at two or three sites that do not lie behind one another."""
        slips: dict[Any, list[tuple[Site, Family, int]]] = {}
        for site in self.sites:
            for family in self.families(site):
                for i in range(len(family.effects)):
                    slip = _slip(family.key(i))
                    if slip is not None and np.any(family.effects[i]):
                        slips.setdefault(slip, []).append((site, family, i))
        for some in slips.values():
            for count in (2, 3):
                if len(some) >= count and len(some) ** count <= 200_000:
                    yield from self._summing(some, count)

    def _summing(self, some: Sequence[tuple[Site, Family, int]], count: int) -> Iterator[Candidate]:
        """Yield the choices of some changes that explain gradients together."""
        self.case.deadline.check()
        chosen = np.array(list(combinations(range(len(some)), count)))
        effects = np.stack([family.effects[i] for _, family, i in some])[chosen].sum(axis=1)
        sizes = np.stack([family.sizes[i] for _, family, i in some])[chosen].sum(axis=1)
        rows = self.probes.passing(effects, sizes)
        for n in np.flatnonzero(rows.any(axis=1)):
            parts = [some[j] for j in chosen[n]]
            edits = tuple((site, family.edit(i)) for site, family, i in parts)
            if len({site.argument for site, _ in edits}) < count:
                continue
            which = (
                k for own, ok in zip(self.probes.rows, rows[n], strict=True) if ok for k in own
            )
            cost = sum(edit.cost + self.cost(site) for site, edit in edits)
            yield Candidate(edits, frozenset(which), cost, "likewise")

    # -------------------- verified --------------------

    def verified(self, candidate: Candidate, left: set[int]) -> Explained | None:
        """Return which of some gradients a change explains, once the backward pass has run."""
        best: Explained | None = None
        edits = {**self.before, **candidate.changes}
        for through_max in (False, True) if self.graph.cancelled else (False,):
            try:
                bars = self.graph.rerun(edits, through_max=through_max)
            except UNFIT:
                continue
            rows = self._rows_of(bars, left)
            if rows and (best is None or len(rows) > len(best.rows)):
                best = Explained(candidate, rows, bars)
        if best is None or sum(self.differing[k] for k in best.rows) > 2:
            return best
        return best if self._is_confirmed(best) else None

    def _rows_of(self, bars: Mapping[Node, Any], left: set[int]) -> list[int]:
        case, roots = self.case, self.graph.roots
        changed = {k: bars.get(roots[k], roots[k].adjoint) for k in (*self.right, *left)}
        if not all(case.explains(k, changed[k]) for k in self.right if roots[k] in bars):
            return []
        return [k for k in sorted(left) if roots[k] in bars and case.explains(k, changed[k])]

    def _is_confirmed(self, explained: Explained) -> bool:
        """Tell whether what explains a number or two does so for other upstream gradients too.

        Where there are none, a function of a value is not believed: many have any one number.
        """
        if not self.case.others:
            _, edit = explained.candidate.edits[0]
            few = sum(self.differing[k] for k in explained.rows)
            return few > 1 or edit.kind in ("left_out", "times", "not_carried")
        for bars, written in self.case.others:
            off = self.graph.rerun({**self.before, **explained.candidate.changes}, bars)
            for k in explained.rows:
                root = self.graph.roots[k]
                due = off.get(root, bars[root])
                if written[k] is None or not self.case.same(k, written[k], due):
                    return False
        return True

    # -------------------- what is said --------------------

    def is_named(self, node: Node) -> bool:
        """Tell whether the reader's code has a name for a value."""
        return self.case.variable(node) is not None

    def is_natural(self, node: Node) -> bool:
        """Tell whether a person would differentiate by a value: not by the inside of a formula."""
        if self.is_named(node):
            return True
        return node.name not in _INNER and not any(map(is_number, node.call.args))

    def cost(self, site: Site) -> float:
        """Return how far a site is from the first that a person would think of."""
        ends = [node for node in (site.result, site.argument) if node is not None]
        unnamed = sum(not self.is_named(node) for node in ends)
        return 0.3 * unnamed + 0.05 * site.steps + (0.4 if site.via is not None else 0.0)

    def _cost(self, site: Site, edit: Edit) -> float:
        """Return the cost of a change at a site: what is lost is lost at one operation."""
        lost = edit.kind in ("left_out", "times") and site.steps > 1
        ends = (site.result or site.argument, site.argument)
        inside = edit.of == "derivative" and not all(map(self.is_natural, ends))
        return edit.cost + self.cost(site) + 0.4 * lost + 1.5 * inside

    def reason(self, explained: Explained) -> Reason:
        """Return a change that has been verified as a reason."""
        candidate = explained.candidate
        site, edit = candidate.edits[-1]
        change = self._change(site, edit)
        others = [s for s, _ in candidate.edits[:-1]] if candidate.how == "likewise" else []
        finding = found(
            "comes_out",
            flow=self._subject(site, edit),
            change=change,
            turns=candidate.how == "turns",
            likewise=[self._what(s) for s in others],
            rule=change.rule,
        )
        products = [np.asarray(bar) for bar in explained.bars.values()]
        of = self._operation(site, edit)
        return Reason(finding, explained.rows, of.call, products)

    def _operation(self, site: Site, edit: Edit) -> Node:
        """Return the forward operation whose gradient is wrong."""
        if "number" in edit.fields:
            sums = [n for n in reversed(site.between) if n.name in ("sum", "mean", "var", "std")]
            if edit.fields["number"] < len(sums):
                return sums[edit.fields["number"]]
        path: Site | None = edit.fields.get("path")
        return (path.result if path is not None else site.result) or site.argument

    def _what(self, site: Site) -> Finding:
        return self.case.name(site.result or site.argument)

    def _change(self, site: Site, edit: Edit) -> Finding:
        """Return what is done there, with names in place of values."""
        fields = {name: self._named(value) for name, value in edit.fields.items()}
        array = fields.pop("array", None)
        if edit.kind == "operand" and fields["other"] == fields["operand"]:
            fields["other"] = self.case.expression(edit.fields["other"][1])
            if fields["other"] == fields["operand"]:
                fields["other"] = found("another_run", of=fields["operand"])
        if edit.kind == "only":
            path, run = edit.fields["path"], fields.pop("run")
            flow = self._flow(path, run)
            return found(
                "only", flow=flow, overwritten=fields["rule"] == "sum", rule=fields["rule"]
            )
        if edit.kind == "times":
            c = edit.fields["times"]
            return arrays.factor_of(self.case, c) or found(
                "times", times=float(f"{c:.9g}"), also=None
            )
        if edit.kind in ("taken_as", "lost"):
            times = self._times_the_true(site, 1.0 if array is None else array)
            if times is not None:
                return arrays.factor_of(self.case, times) or found("times", times=times, also=None)
        return found(edit.kind, **fields)

    def _times_the_true(self, site: Site, array: Array | float) -> float | None:
        """Return the c with which a wrong derivative is c times the true one, if it is that."""
        spot = self.spot(site)
        if spot is None or spot.g.shape != spot.c.shape:
            return None
        made, true = spot.g * array, spot.c
        norm = float(np.sum(true * true))
        c = float(np.sum(made * true)) / norm if norm > 0 else np.nan
        fits = np.isfinite(c) and largest(made - c * true) <= 1e-9 * largest(made)
        return float(f"{c:.9g}") if fits else None

    def _named(self, value: Any) -> Any:
        if isinstance(value, Node):
            return self.case.name(value)
        if isinstance(value, list):
            return [self._named(item) for item in value]
        if isinstance(value, tuple) and value and isinstance(value[0], Node):
            return self.case.operand(*value)
        if isinstance(value, tuple) and value and value[0] == "value":
            return self.case.name(value[1])
        if isinstance(value, tuple) and value and value[0] == "gradient":
            return found("gradient_of", of=self.case.name(value[1]))
        if isinstance(value, tuple) and value and value[0] == "upstream":
            several = len(self.graph.outputs) > 1
            return found("upstream", output=value[1] if several else None)
        return value

    def _subject(self, site: Site, edit: Edit) -> Finding | None:
        """Return what is said to be changed."""
        y, x = site.result, site.argument
        if not edit.of:
            return None
        if y is None:
            return found("flow_to", argument=self.case.name(x))
        result, argument = self.case.name(y), self.case.name(x)
        if result == argument:  # i = sigmoid(i)
            result = self.case.expression(y)
        if edit.of == "closed":
            return found("closed", result=result, title=edit.fields["title"])
        if edit.of == "derivative":
            by = argument if site.steps > 1 or edit.kind != "lost" else None
            return found("derivative", result=result, by=by)
        if y.call.source is None:
            return found("upstream_of", argument=argument)
        return self._flow(site)

    def _flow(self, site: Site, run: tuple[int, int] | None = None) -> Finding:
        """Return a gradient on its way; `run` tells which of several runs of a line it is."""
        y, x, via = site.result, site.argument, site.via
        assert y is not None
        several = len(y.parents) > 1 or site.steps > 1
        return found(
            "flow",
            result=self.case.name(y),
            via=self.case.name(via) if via not in (None, y) else None,
            argument=self.case.name(x) if several else None,
            run=run,
        )


_INNER = frozenset("negative exp log log1p sqrt square power reciprocal tanh absolute abs".split())
_LINEAR = frozenset("add subtract multiply divide true_divide negative".split())
_ELEMENTWISE = (
    _INNER | _LINEAR | frozenset("maximum minimum where clip sign arctan sin cos".split())
)


def _is_derivative(key: Any) -> bool:
    return key[0] in ("function", "times")


def _is_natural_slip(key: Any) -> bool:
    """Tell whether a change is one that may be made at each turn, where it has to be run."""
    if key[0] == "function":
        return key[3] > 0 and key[2] < 30
    return key[0] in ("times", "operand", "gradient") or key[0] in ("product",) or key[-1] == "c"


def _slip(key: Any) -> Any:
    """Return what a change at one site has in common with the same slip at another."""
    if key[0] == "times":
        return key
    if key[0] == "function":
        return ("function", key[2], key[3]) if key[2] < 8 and key[3] > 0 else None
    if key[0] == "product":
        return key
    if key[0] == "operand" and isinstance(key[2], tuple) and key[2][0] == "T":
        return "not transposed"
    return "transposed" if key[0] == ("transposed",) else None
