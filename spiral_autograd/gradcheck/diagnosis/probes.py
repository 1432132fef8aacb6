"""Which gradients a change of the backward pass may explain, told by a few numbers."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from ...validation import Array
from ..blocks import largest
from ..reference.graph import Change, Graph, Site
from .case import Case

_MOST = 10_000_000  # numbers that the probes may hold


class Probes:
    """Random weights of all entries of the gradients, and how their sums move with what flows back.

    The backward pass is linear: the inner product of a change at a value with the tangents of it
    tells what becomes of Σ weights · gradients. The gradients form groups, of one that is wrong
    each, and the last of all that are right.
    """

    def __init__(self, case: Case, graph: Graph, rows: list[int], through_max: bool) -> None:
        right = [k for k in range(len(case.names)) if k not in case.wrong and case.comparable(k)]
        size = sum(np.size(node.value) for node in graph.nodes) * (len(rows) + 1)
        whole = size > _MOST
        self.graph, self.through_max = graph, through_max
        self.rows = [rows] if whole else [[k] for k in rows]
        groups = [[*rows, *right]] if whole else [*self.rows, right]
        self.tolerance, self.least = max(1e-6, 10 * case.tolerance), max(1e-10, case.tolerance)
        rng = np.random.default_rng(0)
        weights = [_weights(case, graph, group, rng) for group in groups]
        off = {k: case.written(k) - graph.gradient(k) for k in rows}
        sums = [[np.sum(w * off[k]) for k, w in some.items() if k in off] for some in weights]
        self.target = np.array([sum(some) for some in sums], dtype=float)
        self._moves = [
            graph.tangents(some, through_max=through_max, deadline=case.deadline)
            for some in weights
        ]

    def explained(self, changes: Mapping[Site, Change]) -> frozenset[int]:
        """Return which wrong gradients may be so by changes at sites that lie beside each other.

        What would make right gradients wrong explains nothing.
        """
        flows = [self._moved_by(site, change) for site, change in changes.items()]
        if any(flow is None for flow in flows):
            return frozenset()
        moved, sizes = np.sum(np.array(flows, dtype=float), axis=0)
        allowed = self.tolerance * (sizes + np.abs(self.target)) + self.least
        fits, wrong = np.abs(moved - self.target) <= allowed, len(self.rows)
        if not fits[wrong:].all():
            return frozenset()
        fits &= np.abs(self.target) > 10 * self.least
        return frozenset(k for own, fit in zip(self.rows, fits, strict=False) if fit for k in own)

    def _moved_by(self, site: Site, change: Change) -> Array | None:
        """Return how a change moves each sum of weighted gradients, and the size of its terms.

        None where the site leads into no wrong gradient.
        """
        x, end = site.argument, site.result or site.argument
        if not any(x in moves for moves in self._moves[: len(self.rows)]):
            return None
        part = self.graph.part(site, end.adjoint, through_max=self.through_max)
        by = np.asarray(change(end.adjoint, part) - part)
        terms = [by * np.asarray(moves.get(x, 0)) for moves in self._moves]
        sums = [[np.sum(some), np.sum(np.abs(some))] for some in terms]
        return np.transpose(sums) if by.shape == np.shape(x.value) else None


def _weights(
    case: Case, graph: Graph, group: list[int], rng: np.random.Generator
) -> dict[int, Array]:
    """Return random weights of some gradients; a gradient of zero has no digits to compare."""
    sizes = {k: max(largest(graph.gradient(k)), largest(case.written(k))) for k in group}
    return {
        k: rng.standard_normal(np.shape(graph.gradient(k))) / size
        for k, size in sizes.items()
        if size > 1e3 * case.noise(k)
    }
