"""The same change at several sites: at each turn of a loop, or at several activations."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import chain, combinations
from typing import Any

import numpy as np

from ..reference.graph import Change, Graph, Site
from ..reference.nodes import Node
from . import changes
from .changes import FAMILIES
from .matrices import ELEMENTWISE
from .probes import Edit
from .search import Candidate, Make, Search
from .together import together


def repeated(search: Search, sort: Sequence[Make]) -> Iterator[Candidate]:
    """Yield the same change at each turn of a loop."""
    for sites in _classes(search):
        yield from together(search, sites, sort, "turns", 0.0)


def _classes(search: Search) -> list[list[Site]]:
    """Return the sites that are the same at each turn of a loop."""
    if not search.turns.count:
        return []
    ways = [s for s in search.passages if s.via is None and _is_formula(s)]
    whole = (
        n for n in search.graph.nodes if search.is_named(n) or (n.parents and len(n.users) > 1)
    )
    values = [Site(None, node) for node in whole if isinstance(node.value, np.ndarray)]
    return search.turns.classes([*search.graph.edges(), *ways, *values])


def _is_formula(site: Site) -> bool:
    """Tell whether a way leads through no more than an activation or a normalisation."""
    return all(node.name in ELEMENTWISE or node.name in _REDUCING for node in site.between)


def carried(search: Search) -> Iterator[Candidate]:
    """Yield the loss of all that flows back from one turn of a loop to the turn before."""
    lines = search.turns.carried()
    most = len(lines) if len(lines) <= 5 else 1
    groups = [*chain(*(combinations(lines, n) for n in range(1, most + 1))), tuple(lines)]
    for group in dict.fromkeys(filter(None, groups)):
        sites = [site for line in group for site in lines[line]]
        if len({search.turns.lines[site.result] for site in sites if site.result}) < 2:
            continue  # one operation, the same at each turn
        values = [lines[line][-1].argument for line in group]
        edit = replace(changes.times(0.0), kind="not_carried", fields={"values": values}, of="")
        yield Candidate(tuple((s, edit) for s in sites), frozenset(search.rows), 0.1)


def alike(search: Search) -> Iterator[Candidate]:
    """Yield the same slip at several activations: in all, in those of a sort, in any few."""
    chosen = _activations(search)
    sorts: dict[object, list[list[Site]]] = {}
    for sites in chosen:
        sorts.setdefault(tuple(node.name for node in sites[0].between), []).append(sites)
    few = [c for n in range(len(chosen) - 1, 1, -1) for c in combinations(chosen, n)]
    tried = set()
    for some in (chosen, *sorts.values(), *(few if len(chosen) <= 6 else ())):
        joined = frozenset(site for sites in some for site in sites)
        if len(some) > 1 and joined not in tried:
            tried.add(joined)
            ordered = sorted(joined, key=lambda site: site.argument.number)
            yield from together(search, ordered, FAMILIES, "likewise", 1.0)


def _activations(search: Search) -> list[list[Site]]:
    """Return the activations, one at each turn of a loop together."""
    by_argument: dict[Node, list[Site]] = {}
    for site in (*search.passages, *search.graph.edges()):
        natural = search.is_natural(site.argument) and search.is_natural(site.between[0])
        if natural and site.via is None and _is_activation(site):
            by_argument.setdefault(site.argument, []).append(site)
    lines: dict[Any, list[Site]] = {}
    for argument, sites in by_argument.items():
        best = min(sites, key=search.cost)
        lines.setdefault(search.turns.lines[argument], []).append(best)
    return list(lines.values())


def _is_activation(site: Site) -> bool:
    """Tell whether each entry of the result comes from that of the argument alone."""
    inner = {*site.between, site.argument}
    return all(
        node.name in ELEMENTWISE and inner.issuperset(node.parents) for node in site.between
    ) and any(node.name not in _LINEAR for node in site.between)


def truncated(search: Search) -> Iterator[Candidate]:
    """Yield what flows back through no more than so many turns of a loop from where it began."""
    by_turn: dict[int, list[Site]] = {}
    for site in chain(*search.turns.carried().values()):
        if np.ndim(site.argument.value):  # not the sum of the losses
            by_turn.setdefault(search.turns.turn[site.argument], []).append(site)
    if not 2 < len(by_turn) <= 30 or len(search.graph.nodes) > 600:
        return
    for steps in range(1, min(len(by_turn), 9)):
        search.case.deadline.check()
        fields = {"steps": steps}
        edits = tuple(
            (
                site,
                Edit("truncated", 0.3, _younger(search.graph, by_turn, steps, t, site), fields, ""),
            )
            for t, some in by_turn.items()
            for site in some
        )
        yield Candidate(edits, frozenset(search.rows), 1.3 + 0.01 * steps)


def _younger(
    graph: Graph, by_turn: Mapping[int, Sequence[Site]], steps: int, t: int, site: Site
) -> Change:
    """Return the change by which only that flows on which has come through fewer turns."""
    end, known = site.result or site.argument, [None, None]

    def through(turns: range) -> Any:
        """Return what flows back to the site where it can leave none but some turns."""
        cut = [s for n, some in by_turn.items() if n not in turns for s in some]
        bars = graph.rerun(dict.fromkeys(cut, lambda g, part, total: 0 * part)) if cut else {}
        return bars.get(end, end.adjoint)

    def change(g: Any, part: Any, total: object) -> Any:
        if t + steps not in by_turn:
            return part
        if known[0] is not graph.roots[0].adjoint:  # at a second point it is another
            before = range(t + 1, t + steps + 1)
            known[:] = graph.roots[0].adjoint, through(before) - through(before[:-1])
        return graph.part(site, g - known[1])

    return change


_REDUCING = frozenset("sum mean max amax var std reshape".split())
_LINEAR = frozenset("add subtract multiply divide true_divide negative".split())
