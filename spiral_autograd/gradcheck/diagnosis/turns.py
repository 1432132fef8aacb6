"""Which values of a forward pass were made by the same line, at the turns of a loop."""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Iterable, Sequence
from typing import Any

from ..reference.graph import Graph, Node, Site

Line = tuple[Any, ...]


class Turns:
    """The turns of the loops of a forward pass.

    A line is an operation in the reader's code with the calls that lead to it: the same at each
    turn of a loop, and another for each call of a helper function.
    """

    def __init__(self, graph: Graph) -> None:
        self.graph = graph
        self.lines = {node: _line(node) for node in graph.nodes}
        met: Counter[Line] = Counter()
        self.turn: dict[Node, int] = {}
        for node in graph.nodes:
            self.turn[node] = met[self.lines[node]]
            met[self.lines[node]] += 1
        self._times = met
        self.count = max((n for line, n in met.items() if line[0] is not None), default=1)
        self.count = self.count if self.count > 1 else 0

    def repeats(self, node: Node) -> bool:
        """Tell whether a value was made in a loop."""
        return self._times[self.lines[node]] > 1

    def is_inner(self, site: Site) -> bool:
        """Tell whether a site lies in a turn of a long loop that is neither its first nor last."""
        node = site.result or site.argument
        last = self._times[self.lines[node]] - 1
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
            if site.result is not None and self.repeats(site.result):
                x, via = site.argument, site.via
                argument = self.seen_from(site.result, x) if x.parents else (None, len(x.users))
                single = not x.parents and len(x.users) > 1
                key = (
                    self.lines[site.result],
                    (argument, x.number if single else None),
                    self.lines[via] if via is not None else None,
                    site.steps,
                )
                found.setdefault(key, []).append(site)
        classes = [some for some in found.values() if len(some) > 1]
        return [some for some in classes if len({s.result for s in some}) == len(some)]

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
    changed = {site.argument for site in sites}
    flows: set[Node] = set()
    for node in reversed(graph.nodes):
        if node in changed or node in flows:
            if node in results:
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
