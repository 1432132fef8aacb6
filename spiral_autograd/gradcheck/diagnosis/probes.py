"""What a change does to the gradients, told by inner products with a few random weights."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import combinations
from typing import Any

import numpy as np

from ...validation import Array, Shape
from ..blocks import largest
from ..reference.graph import Change, Graph, Site, is_number
from ..reference.nodes import Node
from .case import Case
from .edits import functions_of
from .turns import Held, Turns, value_of

PROBES = 3
NATURAL = frozenset("tanh maximum add dot matmul".split())  # what has a gradient in most code
_MOST = 30_000_000  # numbers that the probes may hold


class Probes:
    """Random weights of the gradients, and how they move with what flows back to each value.

    The backward pass is linear: the inner product of a change at a value with the tangents of it
    tells what becomes of Σ weights · gradients. The gradients form groups, of one that is wrong
    each, and the last of all that are right; each group has its own weights, several times.
    """

    def __init__(
        self, case: Case, graph: Graph, rows: list[int], now: list[Array], through_max: bool
    ) -> None:
        right = [k for k in range(len(case.names)) if k not in case.wrong and case.comparable(k)]
        size = sum(np.size(node.value) for node in graph.nodes) * PROBES * (len(rows) + 1)
        whole = size > _MOST
        self.groups = [[*rows, *right]] if whole else [*([k] for k in rows), right]
        self.rows = [rows] if whole else [[k] for k in rows]
        self.tolerance, self.least = max(1e-6, 10 * case.tolerance), max(1e-10, case.tolerance)
        rng = np.random.default_rng(0)
        self._moves: list[Mapping[Node, Any]] = []
        targets, repeats = [], 1 if whole else PROBES
        for group in self.groups:
            for _ in range(repeats):
                weights, target = {}, 0.0
                for k in group:
                    g, h = now[k], case.written(k)
                    most = max(largest(g), largest(h))
                    if most <= 1e3 * case.noise(k):  # a gradient of zero has no digits to compare
                        continue
                    weights[k] = rng.standard_normal(g.shape) / most
                    if k in rows:
                        target += float(np.sum(weights[k] * (h - g)))
                moves = graph.tangents(weights, through_max=through_max, deadline=case.deadline)
                self._moves.append(moves)
                targets.append(target)
        self.target, self.repeats = np.array(targets), repeats
        self._of: dict[Node, tuple[Array, Array]] = {}

    def at(self, node: Node) -> tuple[Array, Array]:
        """Return the tangents of a value, one in each row, and their absolute values."""
        if node not in self._of:
            shape = np.shape(node.value)
            moves = [moves.get(node) for moves in self._moves]
            rows = [np.zeros(shape) if move is None else move for move in moves]
            table = np.stack([np.broadcast_to(row, shape).ravel() for row in rows]).astype(float)
            self._of[node] = table, np.abs(table)
        return self._of[node]

    def moves(self, node: Node) -> bool:
        """Tell whether a value flows into a gradient that is to be explained."""
        return any(node in moves for moves in self._moves[: self.repeats * len(self.rows)])

    def passing(self, effects: Array, sizes: Array) -> Array:
        """Tell which changes, by row, may explain which of the wrong gradients, by column.

        One that moves a right gradient explains nothing.
        """
        with np.errstate(invalid="ignore"):
            off = np.abs(effects - self.target)
            fits = off <= self.tolerance * (sizes + np.abs(self.target)) + self.least
        fits = fits.reshape(len(effects), len(self.groups), self.repeats).all(axis=2)
        wrong = fits[:, : len(self.rows)] & self._is_off
        if len(self.groups) > len(self.rows):
            wrong = wrong & fits[:, -1:]
        return np.asarray(wrong)

    def which(self, passing: Array) -> frozenset[int]:
        """Return the gradients that are marked as those that a change may explain."""
        return frozenset(k for own, ok in zip(self.rows, passing, strict=True) if ok for k in own)

    @cached_property
    def _is_off(self) -> Array:
        targets = self.target.reshape(-1, self.repeats)[: len(self.rows)]
        return np.asarray(np.any(np.abs(targets) > 10 * self.least, axis=1))

    def share(self, effect: Array) -> Array:
        """Return, for each wrong gradient, what share of a change would explain it; else NaN."""
        with np.errstate(all="ignore"):
            shares = (self.target / effect).reshape(-1, self.repeats)
        known = np.abs(effect).reshape(-1, self.repeats).min(axis=1) > 0
        mean = shares.mean(axis=1)
        fits = known & (np.ptp(shares, axis=1) <= 10 * self.tolerance * np.abs(mean))
        return np.where(fits, mean, np.nan)[: len(self.rows)]


@dataclass(frozen=True)
class Edit:
    """A change at a site, and what is said of it.

    Attributes
    ----------
    kind : str
        Of the finding.
    cost : float
        How far from the first thing that a person would think of.
    change : Change
    fields : dict
        Those of the finding; nodes stand for their names.
    of : str
        What is said to be changed: the "flow" through the site, the "derivative", or "closed".
    """

    kind: str
    cost: float
    change: Change
    fields: Mapping[str, Any] = field(default_factory=dict)
    of: str = "flow"


@dataclass(frozen=True)
class Family:
    """Changes of one sort at a site.

    Attributes
    ----------
    effects, sizes : arrays (changes, probes)
        What each does to the probes, and the size of the terms of that.
    edit : callable
        Returns the i-th change.
    key : callable
        Returns what the i-th has in common with the same change at another site.
    factors : array (changes, numbers) or None
        By what each multiplies that which leaves the result, where that is all that it does.
    same : sequence or None
        For each what is equal where two do the same.
    """

    effects: Array
    sizes: Array
    edit: Callable[[int], Edit]
    key: Callable[[int], Hashable]
    factors: Array | None = None
    same: Sequence[Hashable] | None = None


class Spot:
    """A site with what flows there, and the tangents of its argument."""

    def __init__(self, graph: Graph, probes: Probes, site: Site, g: Array, c: Array) -> None:
        self.graph, self.probes, self.site, self.g, self.c = graph, probes, site, g, c
        self.tangents, self.sizes = probes.at(site.argument)
        self.effect = self.tangents @ c.ravel()  # of all that reaches the argument

    @cached_property
    def weights(self) -> Array | None:
        """The tangents times the gradient that leaves the result, in its shape; None if unlike.

        None too of our own Σ upstream · output, which nobody has differentiated by hand.
        """
        shape = self.g.shape
        if self.site.result in {None, *(site.result for site in self.graph.outputs)}:
            return None
        try:
            if np.broadcast_shapes(shape, self.c.shape) != shape:
                return None
        except ValueError:
            return None
        tangents = self.tangents.reshape(-1, *self.c.shape)
        lifted = tangents.reshape(len(tangents), *(1,) * (len(shape) - self.c.ndim), *self.c.shape)
        return np.asarray(np.broadcast_to(lifted, (len(tangents), *shape)) * self.g)

    def effects(self, others: list[Array]) -> tuple[Array, Array]:
        """Return what becomes of the probes if other arrays reach the argument, and the sizes."""
        table = np.stack([other.ravel() for other in others]) - self.c.ravel()
        return table @ self.tangents.T, np.abs(table) @ self.sizes.T

    def family(
        self, edits: Mapping[Hashable, Edit], total: Callable[[Node], object]
    ) -> Iterator[Family]:
        """Yield some changes of one sort, by their keys; nothing where there are none."""
        if edits:
            keys, made = list(edits), list(edits.values())
            others = [np.asarray(edit.change(self.g, self.c, total)) for edit in made]
            yield Family(*self.effects(others), made.__getitem__, keys.__getitem__)


def folded(weights: Array, shape: tuple[int, ...]) -> Array | None:
    """Return weights summed over the axes along which a shape would be broadcast to theirs."""
    try:
        if np.broadcast_shapes(weights.shape[1:], shape) != weights.shape[1:]:
            return None
    except ValueError:
        return None
    extra = weights.ndim - 1 - len(shape)
    weights = weights.sum(axis=tuple(range(1, 1 + extra))) if extra else weights
    axes = tuple(i + 1 for i, n in enumerate(shape) if n == 1 and weights.shape[i + 1] > 1)
    weights = weights.sum(axis=axes, keepdims=True) if axes else weights
    return np.asarray(weights.reshape(len(weights), -1))


def _is_natural(node: Node) -> bool:
    """Tell whether a value has a gradient in most code: not the 1 + exp(-x) inside a formula."""
    return node.name in NATURAL and not any(map(is_number, node.call.args))


Named = tuple[Any, ...]  # ("value", node), ("gradient", node), ("upstream", number), ("T", axes)


class Stock:
    """What may stand in the place of what is right: values, gradients and functions by shape."""

    def __init__(
        self,
        graph: Graph,
        turns: Turns,
        is_named: Callable[[Node], bool],
        bar: Callable[[Node], Any],
    ) -> None:
        self.graph, self.turns, self.is_named, self.bar = graph, turns, is_named, bar
        self.lengths = sorted({n for node in graph.nodes for n in np.shape(node.value)})
        self._functions: dict[Node, Array] = {}
        self._like: dict[Shape, tuple[list[Named], Array]] = {}
        self._gradients: dict[Shape, tuple[list[Named], Array]] = {}
        self._by_shape: dict[Shape, list[Node]] = {}
        for node in graph.nodes:
            if np.asarray(node.value).dtype.kind == "f":
                self._by_shape.setdefault(np.shape(node.value), []).append(node)

    def functions(self, node: Node) -> Array:
        """Return the functions of a value, one in each row; NaN where one is but a constant."""
        table = self.raw_functions(node).copy()
        with np.errstate(all="ignore"):
            constant = np.ptp(table, axis=1) <= 1e-9 * np.max(np.abs(table), axis=1)
        constant[0] = False  # that the derivative is left out is no mere factor
        table[constant] = np.nan
        return table

    def raw_functions(self, node: Node) -> Array:
        """Return the functions of a value, one in each row, constant or not."""
        if node not in self._functions:
            table = functions_of(np.asarray(node.value))
            if table.size > 400_000:
                return table
            self._functions[node] = table
        return self._functions[node]

    def named(self, shape: Shape) -> list[Node]:
        """Return the values of a shape that have names."""
        return [node for node in self._by_shape.get(shape, ()) if self.is_named(node)]

    def like(self, operation: str, arg: Array) -> tuple[list[Named], Array]:
        """Return what may stand in the place of an operand: what it is, and a row for each."""
        if arg.shape not in self._like:
            nodes = self._by_shape.get(arg.shape, [])
            some: list[Named] = [("value", node) for node in nodes]
            some += [("gradient", n) for n in nodes if not n.parents or self.is_named(n)]
            some += [("held", held) for held in self.constants if value_of(held).shape == arg.shape]
            if arg.ndim > 1:
                turned = self._by_shape.get((*arg.shape[:-2], *arg.shape[:-3:-1]), [])
                some += [("turned", node) for node in turned]
            some += [
                ("through", Site(user, n, (user,)))  # before the decay is added, say
                for n in nodes
                for user in (n.users if not n.parents and 1 < len(n.users) < 5 else ())
            ]
            arrays = [self.array(name) for name in some]
            self._like[arg.shape] = some, _rows(arrays, arg.size)
        some, table = self._like[arg.shape]
        axes = [
            (a, b)
            for a, b in combinations(range(arg.ndim), 2)
            if arg.shape[a] == arg.shape[b] > 1 and (operation == "einsum" or a == arg.ndim - 2)
        ]
        own: list[Named] = [("T", pair) for pair in axes]
        last = [axis for axis in range(max(0, arg.ndim - 2), arg.ndim) if arg.shape[axis] > 1]
        flips = [*((axis,) for axis in last), tuple(last)] if len(last) > 1 else []
        own += [("flip", axes) for axes in flips]
        rows = _rows([self.array(name, arg) for name in own], arg.size)
        return [*some, *own], np.concatenate([table, rows])

    def array(self, name: Named, arg: Any = None) -> Any:
        """Return what may stand in the place of an operand."""
        what, of = name
        if what in ("T", "flip"):
            return np.swapaxes(arg, *of) if what == "T" else np.flip(arg, of)
        if what == "held":
            return value_of(of)
        if what == "turned":
            return np.swapaxes(of.value, -1, -2)
        if what == "through":
            return self.graph.part(of, self.bar(of.result))
        return of.value if what == "value" else self.bar(of)

    @cached_property
    def constants(self) -> list[Held]:
        """The arrays that the forward pass takes and that are no arguments: the data.

        Those that are taken at each turn of a loop are the turns' matter.
        """
        found: dict[int, Held] = {}
        for node in (n for n in self.graph.nodes if not self.turns.repeats(n)):
            for i, arg in enumerate(node.args):
                is_array = isinstance(arg, np.ndarray) and arg.ndim and arg.dtype.kind in "fb"
                if i not in node.argnums and is_array and node.call.source is not None:
                    found.setdefault(id(arg), (node, i))
        return list(found.values())

    def gradients(self, shape: Shape) -> tuple[list[Named], Array]:
        """Return the gradients of a shape, and values that may be taken for one: a row for each."""
        if shape not in self._gradients:
            outputs = self.graph.outputs
            some: list[Named] = [
                ("upstream", number)
                for number, site in enumerate(outputs)
                if np.shape(site.argument.value) == shape
            ]
            nodes = self._by_shape.get(shape, [])
            named = [n for n in nodes if self.is_named(n) or _is_natural(n)]
            some += [(what, n) for what in ("gradient", "value") for n in named]
            arrays = [self.gradient(name, self.bar) for name in some]
            self._gradients[shape] = some, _rows(arrays, int(np.prod(shape)))
        return self._gradients[shape]

    def gradient(self, name: Named, bar: Callable[[Node], Any]) -> Any:
        """Return a gradient, given those of all values, or what may be taken for one."""
        if name[0] != "upstream":
            return bar(name[1]) if name[0] == "gradient" else name[1].value
        weighing = self.graph.outputs[name[1]]
        assert weighing.result is not None
        return self.graph.part(weighing, bar(weighing.result))

    def seen_from(self, y: Node, name: Named) -> Hashable:
        """Return what something is, seen from an operation of a loop: of the same turn, say."""
        is_node = isinstance(name[1], Node)
        return (name[0], self.turns.seen_from(y, name[1])) if is_node else name


def _rows(arrays: Sequence[Array], size: int) -> Array:
    """Return arrays as the rows of a table."""
    rows = [np.asarray(array, dtype=float).ravel() for array in arrays]
    return np.stack(rows) if rows else np.zeros((0, size))
