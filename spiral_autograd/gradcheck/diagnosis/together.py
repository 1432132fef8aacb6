"""The same change at several sites at once: which of them may explain gradients."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from ...validation import Array
from ..blocks import largest
from ..reference.graph import Site
from ..reference.nodes import UNFIT
from .matrices import Many, flat, like
from .probes import Edit, Family, Spot
from .search import Candidate, Make, Search

Table = Mapping[Any, tuple[Family, int]]


def together(
    search: Search, sites: Sequence[Site], sort: Sequence[Make], how: str, extra: float
) -> Iterator[Candidate]:
    """Yield the changes that can be made at each of some sites, at all of them at once."""
    spots = [spot for site in sites if (spot := search.spot(site)) is not None]
    sites = [spot.site for spot in spots]
    tables = [_by_key(search, site, sort, how) for site in sites]
    common = _different(tables, _in_all(tables)) if len(tables) > 1 else []
    if not common:
        return
    apart = search.turns.are_apart(sites)
    small = apart or search.matrices.fit(sites)
    ends = search.is_natural(sites[-1].argument) and (
        sites[-1].steps == 1 or search.is_natural(sites[-1].result or sites[-1].argument)
    )
    if not apart:
        common = [key for key in common if (ends or key[0] != "function")]
    if not small:
        common = [key for key in common if _is_natural_slip(key)]
    rows = search.probes.passing(*_sums(tables, common)) if apart else None
    if small and not apart:
        rows = _screened(search, spots, tables, common)
    for n in range(len(common)) if rows is None else np.flatnonzero(rows.any(axis=1)):
        key = common[n]
        some = [t[key][0].edit(t[key][1]) for t in tables]
        which = search.probes.which(rows[n]) if rows is not None else frozenset(search.rows)
        pairs = tuple(zip(sites, some, strict=True))
        yield Candidate(pairs, which, search.cost_of(sites[-1], some[-1]) + extra, how)


def _in_all(tables: Sequence[Table]) -> list[Any]:
    return [key for key in tables[-1] if all(key in table for table in tables)]


def _different(tables: Sequence[Table], keys: Sequence[Any]) -> list[Any]:
    """Return the changes without those that change nothing."""
    return [
        key
        for key in keys
        if any(np.any(family.effects[i]) for family, i in (table[key] for table in tables))
    ]


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


# -------------------- sites behind one another: the backward pass as matrices --------------------


def _screened(
    search: Search, spots: Sequence[Spot], tables: Sequence[Table], keys: Sequence[Any]
) -> Array:
    """Tell which changes, by row, may explain which of the wrong gradients, by column."""
    rows = np.zeros((len(keys), len(search.probes.rows)), dtype=bool)
    factors = [[_factor(t[key]) for t in tables] for key in keys]
    plain = all(spot.g.shape == spot.c.shape for spot in spots)
    at_once = [n for n, some in enumerate(factors) if plain and all(f is not None for f in some)]
    if at_once:
        by_site = zip(spots, zip(*(factors[n] for n in at_once), strict=True), strict=True)
        rows[at_once] = _fitting(search, {s.site: _multiplied(np.stack(f)) for s, f in by_site})
    rest = sorted(set(range(len(keys))) - set(at_once))
    if rest:
        edits = [[t[keys[n]][0].edit(t[keys[n]][1]) for n in rest] for t in tables]
        each = {s.site: _each(s.site, some) for s, some in zip(spots, edits, strict=True)}
        rows[rest] = _fitting(search, each)
    return rows


def _factor(chosen: tuple[Family, int]) -> Array | None:
    family, i = chosen
    return None if family.factors is None else family.factors[i]


def _multiplied(factors: Array) -> Many:
    return lambda g, part, total: g * factors


def _each(site: Site, edits: Sequence[Edit]) -> Many:
    """Return several changes, each of which is made with its own row."""
    y, x = site.result or site.argument, site.argument
    size = flat(x.value).size

    def change(g: Array, part: Array, total: Any) -> Array:
        def row(n: int, rows: Array) -> Array:
            return np.asarray(rows[min(n, len(rows) - 1)])

        def made(n: int, edit: Edit) -> Array:
            try:
                return flat(
                    edit.change(
                        like(row(n, g), y.value),
                        like(row(n, part), x.value),
                        lambda node: like(row(n, total(node)), node.value),
                    )
                )
            except UNFIT:
                return np.full(size, np.nan)

        return np.stack([made(n, edit) for n, edit in enumerate(edits)])

    return change


def _fitting(search: Search, changes: Mapping[Site, Many]) -> Array:
    """Tell which of several changes, by row, may explain which wrong gradients, by column."""
    search.case.deadline.check()
    off = search.matrices.run(changes)
    case, roots = search.case, search.graph.roots

    def is_near(k: int, due: Array | float) -> Array:
        made = off.get(roots[k], np.zeros((1, 1)))
        most = 10 * case.noise(k) + 1e-9 * largest(search.now[k])
        return np.asarray(np.max(np.abs(made - due), axis=1) <= most)

    right = np.array([is_near(k, 0.0) for k in search.right if roots[k] in off])
    wrong = [
        [is_near(k, flat(case.written(k) - search.now[k])[None]) for k in some if roots[k] in off]
        for some in search.probes.rows
    ]
    rows = max(len(made) for made in off.values())
    columns = [np.any(some, axis=0) if some else np.zeros(rows, dtype=bool) for some in wrong]
    return np.asarray(np.stack(columns, axis=1) & right.all(axis=0).reshape(-1, 1))


# -------------------- what the same change at several sites has in common --------------------


def _is_derivative(key: Any) -> bool:
    return key[0] in ("function", "times")


def _is_natural_slip(key: Any) -> bool:
    """Tell whether a change is one that may be made at each turn, where it has to be run."""
    if key[0] == "function":
        return bool(key[3] > 0 and key[2] < 30)
    return bool(key[0] == "times")
