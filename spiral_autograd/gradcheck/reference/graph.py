"""autograd's forward pass as nodes, and its backward pass as a linear map that can be changed."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from ...pytree import leaves
from ...recording import Call, Recording, name_of, parents_of
from ...validation import Array
from ..blocks import largest, moved
from ..guard import NEVER, Deadline
from ..primitives import primitive
from .nodes import UNFIT, Node

Rounding = tuple[float, int]  # the size of roundings that are drawn anew, and the number of a draw
# From what leaves the result of a site, and what reaches its argument, to what reaches the argument
# in place of it. Linear in both.
Change = Callable[[Any, Any], Any]
Flows = dict[Node, Any]  # what flows back to each value, or how that moves


@dataclass(frozen=True, eq=False)
class Site:
    """Where a gradient may go wrong: on its way from a `result` back to an `argument`."""

    result: Node | None  # None where it is all that flows back to the argument
    argument: Node
    between: tuple[Node, ...] = ()  # the nodes that it leads through, the result first
    via: Node | None = None  # the one user of the argument by way of which, if not by all
    steps: int = 1


Changes = Mapping[Site, Change]


class Graph:
    """A recorded forward pass, from the arguments to the loss, and the gradients of all values."""

    def __init__(self, recording: Recording, values: Mapping[Call, object] | None = None) -> None:
        self.recording, self._values = recording, values or {}
        roots: list[Call] = list(recording.params)
        adjoints = dict(zip(roots, recording.grads, strict=True)) | recording.adjoints
        self.of: dict[Call, Node] = {}  # from a recorded call to its node
        forward = [c for c in recording.calls if c.gradient_of is None and c in adjoints]
        lists = _taken_apart(forward)
        for call in (*roots, *(c for c in forward if c not in lists)):
            made = next((a for a in parents_of(call) if a in lists), call)
            self.of[call] = node = self._node(call, made, self.value(adjoints[call]))
            for parent in dict.fromkeys(node.parents):
                parent.users.append(node)
        self.nodes = list(self.of.values())  # in the order in which they were made
        self.roots = self.nodes[: len(roots)]  # the arguments
        self.end = self.of.get(recording.loss)

    def _node(self, call: Call, made: Call, adjoint: Any) -> Node:
        """Return the node of a call, whose value another one may have made in a list."""
        found = [self.of.get(a) if isinstance(a, Call) else None for a in made.args]
        return Node(
            call,
            made,
            self.value(made),
            self.value(call),
            [self.value(arg) for arg in made.args],
            tuple(i for i, parent in enumerate(found) if parent is not None),
            [parent for parent in found if parent is not None],
            adjoint,
            len(self.of),
        )

    @cached_property
    def outputs(self) -> list[Site]:
        """The ways from our own Σ upstream · output back to the outputs."""
        given = set(self.upstream)
        weighing = [n for n in self.nodes if any(a in given for a in parents_of(n.call))]
        return [Site(n, n.parents[0], (n,)) for n in weighing if n.call.source is None]

    @property
    def upstream(self) -> list[Call]:
        """The calls that stand for the upstream gradient."""
        return [leaf for leaf in leaves(list(self.recording.data)) if isinstance(leaf, Call)]

    def value(self, arg: Any, changed: Mapping[Call, object] | None = None) -> Any:
        """Return the value of a call, by default that in this graph, or a constant itself."""
        if not isinstance(arg, Call):
            return arg
        return (changed or {}).get(arg, self._values.get(arg, arg.value))

    def gradient(self, k: int) -> Array:
        """Return the gradient of the k-th argument."""
        return np.asarray(self.roots[k].adjoint)

    @cached_property
    def cancelled(self) -> set[Node]:
        """Each max or min through which nothing flows back: most backward passes leave it out."""
        return {
            node
            for node in self.nodes
            if node.name in ("max", "amax", "min", "amin") and _cancels(node)
        }

    # -------------------- forward again --------------------

    def replay(
        self,
        start: Mapping[Call, object] | None = None,
        *,
        without: Iterable[tuple[Call, int]] = (),
        rounding: Rounding | None = None,
    ) -> dict[Call, object]:
        """Return what differs in both passes: from other values, without constants, or rounded."""
        values: dict[Call, object] = dict(start or {})
        zeros: dict[Call, list[int]] = {}
        for call, position in without:
            zeros.setdefault(call, []).append(position)
        still = {id(self.recording.adjoints[node.call]) for node in self.cancelled}
        for call in self.recording.calls:
            depends = call in zeros or any(a in values for a in parents_of(call))
            if id(call) in still or not (depends or rounding):
                continue
            args = [
                np.zeros_like(a)[()] if position in zeros.get(call, ()) else self.value(a, values)
                for position, a in enumerate(call.args)
            ]
            value = call.fun.fun(*args, **call.kwargs)
            values[call] = value if rounding is None else _rounded(call, value, args, *rounding)
        return values

    def gradients(self, values: Mapping[Call, object]) -> list[Array]:
        """Return the gradient of each argument, given the values that a replay changed."""
        return [np.asarray(self.value(grad, values)) for grad in self.recording.grads]

    def without(self, constants: Iterable[tuple[Call, int]]) -> Graph | None:
        """Return the graph of the forward pass with some constants at zero; None if it has none."""
        try:
            with np.errstate(all="ignore"):
                return Graph(self.recording, {**self._values, **self.replay(without=constants)})
        except UNFIT:
            return None

    # -------------------- backward again, with changes --------------------

    def flows(
        self, node: Node, g: object, *, through_max: bool = False
    ) -> Iterator[tuple[Node, Any]]:
        """Yield the parents of a node with what of its gradient flows back to them."""
        if node.parents and (through_max or node not in self.cancelled):
            yield from zip(node.parents, node.vjp(g), strict=True)

    def part(self, site: Site, g: object, *, through_max: bool = False) -> Any:
        """Return what reaches the argument of a site of the gradient `g` of its result."""
        if site.result is None:
            return g
        inner, bars = set(site.between), {site.result: g}
        for node in site.between:
            if node in bars:
                for parent, part in self.flows(node, bars[node], through_max=through_max):
                    last = parent is site.argument and site.via in (None, node)
                    if last or (parent in inner and parent is not site.argument):
                        _add(bars, parent, part)
        return bars.get(site.argument, np.zeros(np.shape(site.argument.value)))

    def rerun(self, changes: Changes, *, through_max: bool = False) -> dict[Node, object]:
        """Return the gradients that differ with some changes."""
        by_node: dict[Node, list[tuple[Site, Change]]] = {}
        for site, change in changes.items():
            by_node.setdefault(site.result or site.argument, []).append((site, change))
        off: Flows = {}
        for node in reversed(self.nodes[: max(node.number for node in by_node) + 1]):
            g = node.adjoint + off[node] if node in off else node.adjoint
            for site, change in by_node.get(node, ()):
                before = self.part(site, g, through_max=through_max)
                _add(off, site.argument, change(g, before) - before)
            if node in off:
                for parent, some in self.flows(node, off[node], through_max=through_max):
                    _add(off, parent, some)
        return {node: node.adjoint + by for node, by in off.items()}

    def tangents(
        self, weights: Mapping[int, Array], *, through_max: bool = False, deadline: Deadline = NEVER
    ) -> Flows:
        """Return how Σ weights · gradients moves with what flows back to each node."""
        # The backward pass is linear: its transpose is a forward pass in which the arguments move.
        moves: Flows = {self.roots[k]: weight for k, weight in weights.items()}
        for node in self.nodes:
            deadline.check()
            stands = not through_max and node in self.cancelled
            if not stands and any(parent in moves for parent in node.parents):
                moves[node] = node.jvp(moves)
        return moves

    # -------------------- where to change it --------------------

    def edges(self) -> Iterator[Site]:
        """Yield the way from each value to each value that it is made of."""
        for node in self.nodes:
            for parent in dict.fromkeys(node.parents):
                yield Site(node, parent, (node,))

    def wholes(self) -> Iterator[Site]:
        """Yield all that flows back to each value in which several ways meet, and to the roots."""
        yield from (Site(None, n) for n in self.nodes if len(n.users) > 1 or not n.parents)

    def passages(self, is_end: Callable[[Node], bool], furthest: int = 10) -> Iterator[Site]:
        """Yield the longer ways between values of one shape that may be ends of them."""
        ours = {site.result for site in self.outputs}
        for node in filter(is_end, self.nodes):
            above = _above(node, furthest) if np.ndim(node.value) and node not in ours else {}
            ordered = sorted(above, key=lambda n: n.number)
            for argument in ordered:
                if np.shape(argument.value) != np.shape(node.value) or not is_end(argument):
                    continue
                if above[argument] > 1 or sum(user in above for user in argument.users) > 1:
                    yield from _ways(node, argument, ordered, above[argument])


def _above(node: Node, furthest: int) -> dict[Node, int]:
    """Return the values that a value comes from, with the number of steps to them."""
    above, level = {node: 0}, [node]
    for steps in range(1, furthest + 1):
        level = list(dict.fromkeys(p for n in level for p in n.parents if p not in above))
        above |= dict.fromkeys(level, steps)
    return above


def _taken_apart(forward: Sequence[Call]) -> set[Call]:
    """Return the calls that make lists of arrays which are used one by one."""
    lists = {call for call in forward if isinstance(call.value, list | tuple)}
    for call in forward if lists else ():
        if name_of(call.fun) != "container_take":
            lists -= set(parents_of(call))
    return lists


def _ways(node: Node, argument: Node, above: Sequence[Node], steps: int) -> Iterator[Site]:
    """Yield the way from a node back to an argument; of several also each by its last step."""
    reached = {argument}
    for other in above:
        if other.number > argument.number and any(p in reached for p in other.parents):
            reached.add(other)
    between = tuple(sorted(reached - {argument}, key=lambda n: -n.number))
    yield Site(node, argument, between, None, steps)
    last = [user for user in argument.users if user in reached]
    if len(last) > 1:
        yield from (Site(node, argument, between, via, steps) for via in last)


def _add(bars: Flows, node: Node, part: object) -> None:
    bars[node] = _added(bars[node], part) if node in bars else part


def _added(one: Any, other: Any) -> object:
    """Return the sum of two gradients; those of a list of arrays, as `split` returns, are lists."""
    if isinstance(one, list | tuple):
        return type(one)(map(_added, one, other))
    return one + other


def _cancels(node: Node) -> bool:
    """Tell whether what flows back to a value adds up to nothing."""
    most = max((largest(near.adjoint) for near in (*node.users, *node.parents)), default=0.0)
    return largest(node.adjoint) <= 1e-6 * most


def _rounded(call: Call, value: Any, args: Sequence[object], size: float, salt: int) -> Any:
    """Return the result of a call off by one rounding more."""
    known = primitive(name_of(call.fun))
    if not known.rounds:  # the largest entry has to stay one of the entries
        return value
    other = moved(value, size, salt)
    kinds = float | int | np.ndarray | np.generic
    if not known.is_arithmetic or not all(isinstance(arg, kinds) for arg in args):
        return other
    same = (value == args[0]) | (value == args[1])  # x + 0 and x * 1 are not rounded
    return np.where(same, value, other)


def is_number(arg: object) -> bool:
    """Tell whether an argument of a call is one constant number."""
    kinds = int | float | np.generic | np.ndarray
    return isinstance(arg, kinds) and not isinstance(arg, bool | str) and np.ndim(arg) == 0
