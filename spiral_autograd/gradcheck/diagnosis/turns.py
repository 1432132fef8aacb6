"""Which values of a forward pass were made by the same line, at the turns of a loop."""

from __future__ import annotations

from typing import Any

from ..reference.graph import Graph, Site
from ..reference.nodes import Node

Line = tuple[Any, ...]


class Turns:
    """The turns of the loops of a forward pass.

    A line is an operation in the reader's code with the calls that lead to it: the same at each
    turn of a loop, and another for each call of a helper function.
    """

    def __init__(self, graph: Graph) -> None:
        self.graph = graph
        self.lines = {node: _line(node) for node in graph.nodes}
        self._runs: dict[Line, list[Node]] = {}
        self.turn: dict[Node, int] = {}
        for node in graph.nodes:
            runs = self._runs.setdefault(self.lines[node], [])
            self.turn[node] = len(runs)
            runs.append(node)

    def repeats(self, node: Node) -> bool:
        """Tell whether a value was made in a loop."""
        return len(self._runs[self.lines[node]]) > 1

    def is_inner(self, site: Site) -> bool:
        """Tell whether a site lies in a turn of a long loop that is neither its first nor last.

        So is one that leads through more turns than two.
        """
        node = site.result or site.argument
        loops = self.repeats(node) and self.repeats(site.argument)
        if loops and site.steps > 1 and self.turn[node] - self.turn[site.argument] > 1:
            return True
        last = len(self._runs[self.lines[node]]) - 1
        return last > 3 and 0 < self.turn[node] < last

    def carried(self) -> dict[Line, list[Site]]:
        """Return the ways from a turn of a loop back to the turn before, by the value carried."""
        found: dict[Line, list[Site]] = {}
        for site in self.graph.edges():
            y, x = site.result, site.argument
            if y is None or not x.parents or not (self.repeats(y) and self.repeats(x)):
                continue
            if y.name == x.name == "set_at":  # an array that is filled, turn by turn
                continue
            if self.turn[y] == self.turn[x] + 1:
                found.setdefault(self.lines[x], []).append(site)
        return found


def _line(node: Node) -> Line:
    call, found = node.call, []
    site: Any = call
    if call.instruction is None:
        return None, node.number
    while site is not None:
        found.append(site.instruction)
        site = site.called_at
    return tuple(found)
