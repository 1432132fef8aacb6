"""What a change does to the gradients, told by inner products with a few random weights."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np

from ...validation import Array
from ..blocks import largest
from ..reference.graph import Change, Graph, Site
from ..reference.nodes import UNFIT, Node
from .case import Case
from .edits import functions_of

PROBES = 3
_MOST = 30_000_000  # numbers that the probes may hold


class Probes:
    """Random weights of the gradients, and how they move with what flows back to each value.

    The backward pass is linear: the inner product of a change at a value with the tangents of it
    tells what becomes of Σ weights · gradients. The gradients form groups, of one that is wrong
    each, and the last of all that are right; each group has its own weights, several times.
    """

    def __init__(self, case: Case, graph: Graph, rows: list[int], through_max: bool) -> None:
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
                    g, h = graph.gradient(k), case.written(k)
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
        self._functions: dict[Node, Array] = {}

    def at(self, node: Node) -> tuple[Array, Array]:
        """Return the tangents of a value, one in each row, and their absolute values."""
        if node not in self._of:
            shape = np.shape(node.value)
            moves = [moves.get(node) for moves in self._moves]
            rows = [np.zeros(shape) if move is None else move for move in moves]
            table = np.stack([np.broadcast_to(row, shape).ravel() for row in rows]).astype(float)
            self._of[node] = table, np.abs(table)
        return self._of[node]

    def functions(self, node: Node) -> Array:
        """Return the functions of a value, one in each row; NaN where one is but a constant."""
        if node in self._functions:
            return self._functions[node]
        table = functions_of(np.asarray(node.value))
        with np.errstate(all="ignore"):
            constant = np.ptp(table, axis=1) <= 1e-9 * np.max(np.abs(table), axis=1)
        constant[0] = False  # that the derivative is left out is no mere factor
        table[constant] = np.nan
        if table.size <= 400_000:
            self._functions[node] = table
        return table

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
    """

    effects: Array
    sizes: Array
    edit: Callable[[int], Edit]


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

    def family(self, edits: Iterable[Edit]) -> Iterator[Family]:
        """Yield the changes of one sort that fit; nothing where none does."""
        made: list[tuple[Edit, Array]] = []
        for edit in edits:
            with suppress(*UNFIT):
                other = np.asarray(edit.change(self.g, self.c, lambda node: node.adjoint))
                made += [(edit, other)] if other.shape == self.c.shape else []
        step = max(1, 2_000_000 // max(1, self.c.size))
        for some in (made[start : start + step] for start in range(0, len(made), step)):
            effects, sizes = self.effects([other for _, other in some])
            yield Family(effects, sizes, [edit for edit, _ in some].__getitem__)


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
