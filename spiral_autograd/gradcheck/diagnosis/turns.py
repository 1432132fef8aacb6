"""Which values of a forward pass were made by the same line, at the turns of a loop."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Sequence
from typing import Any

from ..reference.graph import Graph, Site
from ..reference.nodes import Node

Line = tuple[Any, ...]

# Which turn, of so many, is taken in the place of the t-th.
WHICH: dict[str, Callable[[int, int], int]] = {
    "before": lambda t, count: t - 1,
    "after": lambda t, count: (t + 1) % count,
    "first": lambda t, count: 0,
    "last": lambda t, count: count - 1,
}


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
        lengths = (len(runs) for line, runs in self._runs.items() if line[0] is not None)
        self.count = max(lengths, default=1)
        self.count = self.count if self.count > 1 else 0

    def runs(self, node: Node) -> list[Node]:
        """Return the values that the line of a value has made, one at each turn."""
        return self._runs[self.lines[node]]

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

    def seen_from(self, y: Node, other: Node) -> Hashable:
        """Return which value another one is, seen from an operation: its line and its turn."""
        if self.repeats(y) and self.repeats(other):
            return self.lines[other], self.turn[other] - self.turn[y]
        return self.lines[other], None

    def classes(self, sites: Iterable[Site]) -> list[list[Site]]:
        """Return the sites that are the same at each turn of a loop."""
        found: dict[Hashable, list[Site]] = {}
        for site in sites:
            y = site.result or site.argument
            if self.repeats(y):
                x, via = site.argument, site.via
                argument = self.seen_from(y, x) if x.parents else (None, len(x.users))
                single = not x.parents and len(x.users) > 1
                key = (
                    (self.lines[y], site.result is None),
                    (argument, x.number if single else None),
                    self.lines[via] if via is not None else None,
                    site.steps,
                    len(site.between) > 1,  # by several ways at once
                )
                found.setdefault(key, []).append(site)
        classes = [some for some in found.values() if len(some) > 1]
        return [
            some for some in classes if len({(s.result, s.argument) for s in some}) == len(some)
        ]

    def carried(self) -> dict[Line, list[Site]]:
        """Return the ways from a turn of a loop back to the turn before, by the value carried."""
        found: dict[Line, list[Site]] = {}
        for site in self.graph.edges():
            y, x = site.result, site.argument
            if y is None or not x.parents or not (self.repeats(y) and self.repeats(x)):
                continue
            if self.turn[y] == self.turn[x] + 1:
                found.setdefault(self.lines[x], []).append(site)
        return found

    def are_apart(self, sites: Sequence[Site]) -> bool:
        """Tell whether no site lies behind another one, so that what they do adds up."""
        return not _behind(self.graph, sites)


def _behind(graph: Graph, sites: Sequence[Site]) -> bool:
    """Tell whether what one site changes flows into the result of another."""
    results = {site.result for site in sites}
    wholes = {site.argument for site in sites if site.result is None}
    changed = {site.argument for site in sites}
    flows: set[Node] = set()
    for node in reversed(graph.nodes):
        if node in changed or node in flows:
            if node in results or (node in wholes and node in flows):
                return True
            flows.update(node.parents)
    return False


def _line(node: Node) -> Line:
    call, found = node.call, []
    site: Any = call
    if call.instruction is None:
        return None, node.number
    while site is not None:
        found.append(site.instruction)
        site = site.called_at
    return tuple(found)


def index_of(node: Node) -> Any:
    """Return the index at which something is picked out of an array, or written into it."""
    if node.name == "__getitem__":
        return node.args[1]
    return tuple(node.args[2 if node.name == "set_at" else 1 :])
