"""Which values of a forward pass were made by the same line, at the turns of a loop."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from ...validation import Shape
from ..reference.graph import Graph, Site
from ..reference.nodes import Node

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


def _is_plain(held: Held, which: str) -> bool:
    """Tell whether the same one number stands for all turns: a state of zeros explains nothing."""
    value = value_of(held)
    return which in ("first", "last") and bool(np.all(value == np.ravel(value)[:1]))


def _is_of(shape: Shape, held: Held) -> bool:
    value = value_of(held)
    return isinstance(value, np.ndarray) and value.shape == shape and value.dtype.kind in "fbiu"


class Turns:
    """The turns of the loops of a forward pass.

    A line is an operation in the reader's code with the calls that lead to it: the same at each
    turn of a loop, and another for each call of a helper function.
    """

    def __init__(self, graph: Graph) -> None:
        self.graph = graph
        self.lines = {node: _line(node) for node in graph.nodes}
        self.places: dict[Node, Mapping[Hashable, tuple[Any, ...]]] = {}  # as `picks` finds them
        self._held: dict[tuple[Node, Shape], dict[Hashable, tuple[Held, str]]] = {}
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

    def at_turns(self, y: Node, shape: Shape) -> dict[Hashable, tuple[Held, str]]:
        """Return the arrays of a shape at some turn of the loop of an operation, and which turn.

        The keys are the same at each turn.
        """
        if (y, shape) in self._held:
            return self._held[y, shape]
        found = self._held[y, shape] = {}
        runs = self._runs[self.lines[y]]
        for line, nodes in self._runs.items():
            if not 1 < len(runs) <= len(nodes) or line[0] is None:
                continue
            t = sum(node.number <= y.number for node in nodes)
            t -= line == self.lines[y] or nodes[0].number < runs[0].number
            for i in (None, *range(min(len(node.args) for node in nodes))):
                if t >= len(nodes) or not _is_of(shape, (nodes[t], i)):
                    continue
                for which, at in WHICH.items():
                    held = nodes[at(t, len(nodes))], i
                    # What a loop begins with is constant: any constant is like it.
                    ends = which in ("first", "last")
                    if _is_of(shape, held) and not (ends and len(np.unique(value_of(held))) < 2):
                        found[line, i, which] = held, self._word(y, held, which)
        return found

    def _word(self, y: Node, held: Held, which: str) -> str:
        """Return of which turn an array is: an argument may have been made at the turn before."""
        node, i = held
        if which == "same" and i in node.argnums:
            made = node.parents[node.argnums.index(i)]
            if self.repeats(made) and self._from_end(made) == self._from_end(y) - 1:
                return "made before"
        return which.split()[0]

    def _from_end(self, node: Node) -> int:
        """Return the turn of a value counted from the last: in the first, it may be a constant."""
        return self.turn[node] - len(self.runs(node))

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
