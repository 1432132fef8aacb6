"""Gradients that meet in a value: overwritten, or added to themselves, in place of added up."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from ...validation import Array
from ..reference.graph import Change, Site
from ..reference.nodes import Node
from .probes import Edit, Family, Spot

PICKING = ("__getitem__", "take")


def gathered(spot: Spot) -> Iterator[Family]:
    """Gradients that meet in a value overwrite each other, in place of adding up."""
    if spot.site.result is not None:
        return
    x = spot.site.argument
    ways = [Site(u, x, (u,)) for u in x.users if np.shape(u.adjoint) == np.shape(u.value)]
    yield from spot.family([*_kept_alone(spot, ways), *_overwritten(spot, ways)])


def _kept_alone(spot: Spot, ways: Sequence[Site]) -> Iterator[Edit]:
    """Yield one of several ways as the only one; of many the first and the last."""
    lines = [way.result.call.instruction for way in ways if way.result is not None]
    same = len(set(lines)) == 1
    if len(ways) < (2 if same else 3):
        return
    for n in range(len(ways)) if len(ways) <= 6 else (0, len(ways) - 1):
        before, several = lines[:n].count(lines[n]), lines.count(lines[n])
        run = (before + 1, several) if several > 1 else None
        fields = {"path": ways[n], "run": run, "rule": "sum" if same else "term"}
        yield Edit("only", 1.0, _only(spot, ways[n]), fields, of="")


def _overwritten(spot: Spot, ways: Sequence[Site]) -> Iterator[Edit]:
    picks = [way for way in ways if way.result is not None and way.result.name in PICKING]
    of = {"of": spot.site.argument}
    if len(picks) < len(ways) or not picks:
        picks = [way for way in picks if _repeats(way)]
        if picks:
            yield Edit("overwritten", 0.6, _beside_others(spot, picks), of, of="")
        return
    for order in (ways, ways[::-1]):
        yield Edit("overwritten", 0.5, _assigned(order, 0.0), of, of="")
    yield Edit("overwritten", 0.6, _assigned(ways, 1.0), of, of="")


def _repeats(way: Site) -> bool:
    """Tell whether an entry is picked several times at once."""
    counts = np.zeros(np.shape(way.argument.value), dtype=int)
    np.add.at(counts, _index(way), 1)
    return bool(np.any(counts > 1))


def _only(spot: Spot, way: Site) -> Change:
    result = _picked(way)
    return lambda g, c, total: spot.graph.part(way, total(result)) + 0 * c


def _assigned(ways: Sequence[Site], kept: float) -> Change:
    """Return the change by which entries that meet are lost: of all turns, or within each."""

    def change(g: object, c: Array, total: Callable[[Node], Array]) -> object:
        out = np.zeros(np.shape(c))
        for way in ways:
            index = _index(way)
            out[index] = kept * out[index] + total(_picked(way))
        return out

    return change


def _beside_others(spot: Spot, picks: Sequence[Site]) -> Change:
    """Return the change by which entries that meet in one pick are lost, and nothing else is."""
    assigned = _assigned(picks, 1.0)

    def change(g: object, c: Array, total: Callable[[Node], Array]) -> object:
        added = [spot.graph.part(way, total(_picked(way))) for way in picks]
        return c - np.sum(added, axis=0) + assigned(g, c, total)

    return change


def _picked(way: Site) -> Node:
    assert way.result is not None
    return way.result


def _index(way: Site) -> Any:
    node = _picked(way)
    return node.args[1] if node.name == "__getitem__" else tuple(node.args[1:])
