"""The same change at several sites: at each turn of a loop, at several activations, at any two."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import combinations
from typing import Any

import numpy as np

from ...validation import Array
from ..reference.graph import Node, Site
from . import changes
from .changes import LIKELIEST
from .probes import Family
from .search import INNER, Candidate, Make, Search

Table = Mapping[Any, tuple[Family, int]]


def repeated(search: Search, sort: Sequence[Make]) -> Iterator[Candidate]:
    """Yield the same change at each turn of a loop."""
    ways = [site for site in search.passages if site.via is None and search.turns.count]
    for sites in search.turns.classes([*search.graph.edges(), *ways]):
        yield from _together(search, sites, sort, "turns", 0.0)


def carried(search: Search) -> Iterator[Candidate]:
    """Yield the loss of all that flows back from one turn of a loop to the turn before."""
    lines = search.turns.carried()
    groups = [[line] for line in lines] + ([list(lines)] if len(lines) > 1 else [])
    for group in groups:
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
        together = frozenset(site for sites in some for site in sites)
        if len(some) > 1 and together not in tried:
            tried.add(together)
            ordered = sorted(together, key=lambda site: site.argument.number)
            yield from _together(search, ordered, LIKELIEST, "likewise", 1.0)


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
        node.name in _ELEMENTWISE and inner.issuperset(node.parents) for node in site.between
    ) and any(node.name not in _LINEAR for node in site.between)


def _together(
    search: Search, sites: Sequence[Site], sort: Sequence[Make], how: str, extra: float
) -> Iterator[Candidate]:
    """Yield the changes that can be made at each of some sites, at all of them at once."""
    sites = [site for site in sites if search.spot(site) is not None]
    tables = [_by_key(search, site, sort, how) for site in sites]
    common = _in_all(tables) if len(tables) > 1 else []
    if not common:
        return
    rows = search.probes.passing(*_sums(tables, common))
    apart = search.turns.are_apart(sites)
    ends = search.is_natural(sites[-1].between[0]) and search.is_natural(sites[-1].argument)
    slips = [_is_natural_slip(key) and (ends or key[0] != "function") for key in common]
    fits = rows.any(axis=1) if apart else np.array(slips)
    for n in np.flatnonzero(fits):
        key = common[n]
        some = [t[key][0].edit(t[key][1]) for t in tables]
        which = search.probes.which(rows[n]) if apart else frozenset(search.rows)
        pairs = tuple(zip(sites, some, strict=True))
        yield Candidate(pairs, which, search.cost_of(sites[-1], some[-1]) + extra, how)


def _in_all(tables: Sequence[Table]) -> list[Any]:
    return [key for key in tables[-1] if all(key in table for table in tables)]


def _sums(tables: Sequence[Table], keys: Sequence[object]) -> tuple[Array, Array]:
    """Return what some changes do together, where they are apart, and the sizes of that."""
    effects = [np.stack([t[key][0].effects[t[key][1]] for key in keys]) for t in tables]
    sizes = [np.stack([t[key][0].sizes[t[key][1]] for key in keys]) for t in tables]
    return np.sum(effects, axis=0), np.sum(sizes, axis=0)


def _by_key(search: Search, site: Site, sort: Sequence[Make], how: str) -> Table:
    return {
        key: (family, i)
        for family in search.families(site, sort)
        for i in range(len(family.effects))
        for key in [family.key(i)]
        if how == "turns" or _is_derivative(key)
    }


def pairs(search: Search) -> Iterator[Candidate]:
    """Yield the same slip at two or three sites that do not lie behind one another."""
    slips: dict[Any, list[tuple[Site, Family, int]]] = {}
    for site in search.sites:
        for family in search.families(site):
            for i in range(len(family.effects)):
                slip = _slip(family.key(i))
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


_LINEAR = frozenset("add subtract multiply divide true_divide negative".split())
_ELEMENTWISE = INNER | _LINEAR | frozenset("maximum minimum where clip sign arctan sin cos".split())


def _is_derivative(key: Any) -> bool:
    return key[0] in ("function", "times")


def _is_natural_slip(key: Any) -> bool:
    """Tell whether a change is one that may be made at each turn, where it has to be run."""
    if key[0] == "function":
        return bool(key[3] > 0 and key[2] < 30)
    return key[0] == "times" or _slip(key) == "turned"


def _slip(key: Any) -> object:
    """Return what a change at one site has in common with the same slip at another."""
    if key[0] == "times":
        return key
    if key[0] == "function":
        return ("function", key[2], key[3]) if key[2] < 8 and key[3] > 0 else None
    turned = key[0] in (("transposed",), ("g_transposed",))
    return "turned" if turned or (key[0] == "operand" and key[2][0] == "T") else None
