"""Which values of a forward pass were made by the same line, at the turns of a loop."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Hashable, Iterable, Sequence
from functools import cached_property
from typing import Any

import numpy as np

from ...validation import Shape
from ..reference.graph import Graph, Node, Site

Line = tuple[Any, ...]
Held = tuple[Node, int | None]  # an argument of an operation, by its number, or its result

# Which turn, of so many, is taken in the place of the t-th: at the ends of the loop that which is
# next to it does not exist, so that the last of all is taken, as by [-1], or the same once more.
WHICH: dict[str, Callable[[int, int], int]] = {
    "same": lambda t, count: t,
    "before": lambda t, count: t - 1,
    "before or same": lambda t, count: max(t - 1, 0),
    "after": lambda t, count: (t + 1) % count,
    "after or same": lambda t, count: min(t + 1, count - 1),
    "first": lambda t, count: 0,
    "last": lambda t, count: count - 1,
}


def value_of(held: Held) -> Any:
    """Return an argument or the result of an operation."""
    node, i = held
    return node.value if i is None else node.args[i]


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
        """Tell whether a site lies in a turn of a long loop that is neither its first nor last.

        So is one that leads through more turns than two.
        """
        node = site.result or site.argument
        loops = self.repeats(node) and self.repeats(site.argument)
        if loops and site.steps > 1 and self.turn[node] - self.turn[site.argument] > 1:
            return True
        last = self._times[self.lines[node]] - 1
        return last > 3 and 0 < self.turn[node] < last

    def seen_from(self, y: Node, other: Node) -> Hashable:
        """Return which value another one is, seen from an operation: its line and its turn."""
        if self.repeats(y) and self.repeats(other):
            return self.lines[other], self.turn[other] - self.turn[y]
        return self.lines[other], None

    @cached_property
    def roles(self) -> list[tuple[Line, list[list[Held]]]]:
        """The arrays that are made, or used, at each turn of a loop, by the operation."""
        by_line: dict[Line, list[Node]] = {}
        for node in self.graph.nodes:
            by_line.setdefault(self.lines[node], []).append(node)
        return [
            (line, [[(n, i) for n in nodes] for i in (None, *range(len(nodes[0].args)))])
            for line, nodes in by_line.items()
            if len(nodes) > 1 and line[0] is not None
        ]

    def at_turns(self, y: Node, shape: Shape) -> dict[Hashable, tuple[Held, str]]:
        """Return the arrays of a shape at some turn of the loop of an operation, and which turn.

        The keys are the same at each turn.
        """
        found: dict[Hashable, tuple[Held, str]] = {}
        t, count = self.turn[y], self._times[self.lines[y]]
        for line, roles in self.roles:
            for number, held in enumerate(roles if len(roles[0]) == count else ()):
                for which, at in WHICH.items():
                    node, i = held[at(t, count)]
                    if shape == np.shape(value_of((node, i))):
                        word = which.split()[0]
                        if which == "same" and self._is_of_turn_before(y, node, i):
                            word = "before"
                        found[line, number, which] = (node, i), word
        return found

    def _is_of_turn_before(self, y: Node, node: Node, i: int | None) -> bool:
        if i not in node.argnums:
            return False
        made = node.parents[node.argnums.index(i)]
        return self.repeats(made) and self.turn[made] == self.turn[y] - 1

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
