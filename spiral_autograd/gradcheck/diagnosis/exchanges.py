"""Gradients of several values that are taken for one another: q and k, the gates of a cell."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import combinations
from typing import Any

import numpy as np

from ..reference.graph import Site
from ..reference.nodes import Node
from .probes import Edit
from .search import Candidate, Search
from .together import fits

MOST = 12  # values of one shape, else there are too many threes of them


def exchanged(search: Search) -> Iterator[Candidate]:
    """Yield the exchange of the gradients of two values, or of three in a circle."""
    for some in _groups(search):
        for count in (2, 3) if len(some) <= MOST else (2,):
            for chosen in combinations(some, count):
                search.case.deadline.check()
                for order in (chosen, (chosen[0], *chosen[:0:-1]))[: count - 1]:
                    yield from _candidate(search, order)


def _candidate(search: Search, lines: Sequence[Sequence[Node]]) -> Iterator[Candidate]:
    """Yield the exchange of the values of some lines, at each turn, if it explains anything."""
    names = [line[-1] for line in lines]
    edits: list[tuple[Site, Edit]] = []
    for nodes in zip(*lines, strict=True):
        kept: dict[Node, Any] = {}  # the gradients as they are before the first is changed
        for n, node in enumerate(nodes):
            change = _taken(kept, nodes, node, nodes[(n + 1) % len(nodes)])
            edits.append((Site(None, node), Edit("exchanged", 2.6, change, {"of": names}, of="")))
    sites = [site for site, _ in edits]
    if len(lines[0]) == 1 and search.turns.are_apart(sites):
        spots = [(search.spot(site), edit) for site, edit in edits]
        known = [(spot, edit) for spot, edit in spots if spot is not None]
        made = [s.effects([np.asarray(e.change(s.c, s.c, search.bar))]) for s, e in known]
        if not made:
            return
        effects, sizes = zip(*made, strict=True)
        rows = search.probes.passing(np.sum(effects, axis=0), np.sum(sizes, axis=0))
    else:
        rows = fits(search, [edits]) if search.matrices.fit(sites) else np.zeros((1, 0))
    if rows.any():
        how = "turns" if len(lines[0]) > 1 else ""
        extra = 0.3 * (len(lines) - 2)
        yield Candidate(tuple(edits), search.probes.which(rows[0]), 2.6 + extra, how)


def _taken(
    kept: dict[Node, Any], nodes: Sequence[Node], node: Node, other: Node
) -> Callable[[Any, Any, Callable[[Node], Any]], Any]:
    """Return the change that takes the gradient of another value, as it was before all changes."""
    first = max(nodes, key=lambda n: n.number)  # the first to be changed on the way back

    def change(g: Any, c: Any, total: Callable[[Node], Any]) -> Any:
        if node is first:
            kept.update({n: total(n) for n in nodes})
        return kept[other] if kept else total(other)

    return change


def _groups(search: Search) -> Iterator[list[list[Node]]]:
    """Yield the named values of one shape, by their lines, at the turns of a loop together."""
    groups: dict[Any, list[list[Node]]] = {}
    for node in search.graph.nodes:
        runs = search.turns.runs(node)
        plain = isinstance(node.value, np.ndarray) and np.ndim(node.value) and node.parents
        if not plain or node is not runs[0] or not search.is_named(node):
            continue
        shapes = {np.shape(run.value) for run in runs}
        if len(shapes) == 1 and search.probes.moves(runs[-1]):
            groups.setdefault((shapes.pop(), len(runs)), []).append(runs)
    yield from groups.values()
