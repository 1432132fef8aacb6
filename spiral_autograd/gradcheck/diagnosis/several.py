"""The same change at several sites: at each turn of a loop, at several activations, at any two."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import chain, combinations
from typing import Any

import numpy as np

from ..reference.graph import Site
from ..reference.nodes import Node
from . import changes
from .changes import LIKELIEST
from .loops import OF_TURNS, displaced
from .matrices import ELEMENTWISE
from .picks import picked_elsewhere, put_elsewhere
from .probes import Family
from .search import Candidate, Make, Search
from .together import fits, slip_of, together


def repeated(search: Search, sort: Sequence[Make]) -> Iterator[Candidate]:
    """Yield the same change at each turn of a loop."""
    for sites in _classes(search):
        yield from together(search, sites, sort, "turns", 0.0)


def of_other_turns(search: Search) -> Iterator[Candidate]:
    """Yield what takes, at each turn of a loop, an array or a gradient of another turn."""
    yield from repeated(search, (*OF_TURNS, put_elsewhere, picked_elsewhere))
    for sites in _classes(search):
        some = [site for site in sites if search.spot(site) is not None]
        small = len(some) > 1 and search.matrices.fit(some)
        tried = list(displaced(search.graph, some)) if small else []
        for edits, rows in zip(tried, fits(search, tried) if tried else (), strict=True):
            if rows.any():
                cost = search.cost_of(*edits[-1])
                yield Candidate(tuple(edits), search.probes.which(rows), cost, "turns")


def _classes(search: Search) -> list[list[Site]]:
    """Return the sites that are the same at each turn of a loop."""
    if not search.turns.count:
        return []
    ways = [s for s in search.passages if s.via is None and _is_formula(s)]
    named = filter(search.is_named, search.graph.nodes)
    values = [Site(None, node) for node in named if isinstance(node.value, np.ndarray)]
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
            yield from together(search, ordered, LIKELIEST, "likewise", 1.0)


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


def pairs(search: Search) -> Iterator[Candidate]:
    """Yield the same slip at two or three sites that do not lie behind one another."""
    slips: dict[Any, list[tuple[Site, Family, int]]] = {}
    for site in search.sites:
        for family in search.families(site):
            for i in range(len(family.effects)):
                slip = slip_of(family.key(i))
                if slip is not None and np.any(family.effects[i]):
                    slips.setdefault(slip, []).append((site, family, i))
    for some in slips.values():
        for count in (2, 3):
            if len(some) >= count and len(some) ** count <= 200_000:
                yield from _summing(search, some, count)


def _summing(
    search: Search, some: Sequence[tuple[Site, Family, int]], count: int
) -> Iterator[Candidate]:
    """Yield the choices of some changes that explain gradients together."""
    search.case.deadline.check()
    chosen = np.array(list(combinations(range(len(some)), count)))
    effects = np.stack([family.effects[i] for _, family, i in some])[chosen].sum(axis=1)
    sizes = np.stack([family.sizes[i] for _, family, i in some])[chosen].sum(axis=1)
    rows = search.probes.passing(effects, sizes)
    for n in np.flatnonzero(rows.any(axis=1)):
        parts = [some[j] for j in chosen[n]]
        edits = tuple((site, family.edit(i)) for site, family, i in parts)
        if len({site.argument for site, _ in edits}) < count:
            continue
        cost = sum(edit.cost + search.cost(site) for site, edit in edits)
        yield Candidate(edits, search.probes.which(rows[n]), cost, "likewise")


_REDUCING = frozenset("sum mean max amax var std reshape".split())
_LINEAR = frozenset("add subtract multiply divide true_divide negative".split())
