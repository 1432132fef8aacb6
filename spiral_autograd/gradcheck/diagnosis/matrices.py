"""The backward pass as matrices: many changes of it run at once, or one in little time."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from ...validation import Array
from ..reference.graph import Graph, Site, departures, part_of
from ..reference.nodes import Node

MOST = 6000  # backward passes through one operation that the matrices may cost
ELEMENTWISE = frozenset(
    "add subtract multiply divide true_divide negative exp log log1p sqrt square power reciprocal "
    "tanh absolute abs maximum minimum where clip sign arctan sin cos".split()
)

# From what leaves the result of a site, what reaches its argument, and the gradients of all nodes,
# for several changes in the rows, to what reaches the argument in place of it.
Many = Callable[[Array, Array, Callable[[Node], Array]], Array]


class Matrices:
    """What of the gradient of each value flows back to each that it is made of, as a matrix.

    A value that is a list of arrays is one row of numbers here. `bar` returns the gradients
    that there are without the changes.
    """

    def __init__(self, graph: Graph, bar: Callable[[Node], object], through_max: bool) -> None:
        self.graph, self.bar, self.through_max = graph, bar, through_max
        self._of: dict[Node, list[tuple[Node, Array]]] = {}
        self._costs = np.cumsum([_cost(node) for node in graph.nodes])

    def fit(self, sites: Sequence[Site]) -> bool:
        """Tell whether the backward pass from some sites on is small enough."""
        last = max((site.result or site.argument).number for site in sites)
        return bool(self._costs[last] <= MOST)

    def run(self, changes: Mapping[Site, Many]) -> dict[Node, Array]:
        """Return what becomes of the gradients, a row for each of several changes."""
        nodes, bar = self.graph.nodes, lambda node: flat(self.bar(node))[None]
        return departures(changes, nodes, bar, self._flows, self.part)

    def part(self, site: Site, g: Array) -> Array:
        """Return what reaches the argument of a site of some gradients of its result."""
        nothing = np.zeros((len(g), flat(site.argument.value).size))
        return np.asarray(part_of(site, g, self._flows, nothing))

    def _flows(self, node: Node, bars: Array) -> Iterator[tuple[Node, Array]]:
        if node not in self._of:
            self._of[node] = list(self._matrices(node))
        for parent, matrix in self._of[node]:
            yield parent, bars * matrix if matrix.ndim == 1 else bars @ matrix

    def _matrices(self, node: Node) -> Iterator[tuple[Node, Array]]:
        size = flat(node.value).size

        def flows(g: Array) -> list[Array]:
            parts = self.graph.flows(node, like(g, node.value), through_max=self.through_max)
            return [flat(part) for _, part in parts]

        ones = flows(np.ones(size))
        parents = node.parents[: len(ones)]  # none through a max that stands
        if _is_elementwise(node):
            yield from zip(parents, ones, strict=True)
        elif parents:
            rows = [flows(e) for e in np.eye(size)]
            yield from zip(parents, map(np.stack, zip(*rows, strict=True)), strict=True)


def _is_elementwise(node: Node) -> bool:
    alike = all(np.shape(p.value) == np.shape(node.value) for p in node.parents)
    return alike and node.name in ELEMENTWISE


def _cost(node: Node) -> int:
    """Return how many backward passes the matrices of an operation need, and memory in place."""
    size = flat(node.value).size
    most = max((flat(p.value).size for p in node.parents), default=0)
    return 1 if _is_elementwise(node) else size + size * most // 1000


def flat(value: Any) -> Array:
    """Return an array, or a list of arrays, as one row of numbers."""
    if isinstance(value, list | tuple):
        return np.concatenate([flat(item) for item in value]) if value else np.zeros(0)
    return np.asarray(value, dtype=float).ravel()


def like(row: Array, value: Any) -> Any:
    """Return a row of numbers in the form of a value."""
    if isinstance(value, list | tuple):
        ends = np.cumsum([flat(item).size for item in value])[:-1]
        return [like(r, item) for r, item in zip(np.split(row, ends), value, strict=True)]
    return row.reshape(np.shape(value))
