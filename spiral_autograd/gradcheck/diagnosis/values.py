"""Simple functions of forward values: what people multiply a gradient by."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from ...recording import Call
from ...validation import Array, Shape
from ..reference.backward_graph import BackwardGraph
from .case import Case
from .edits import is_constant

FUNCTIONS: tuple[tuple[str, Callable[[Any], Any]], ...] = (
    ("1", np.ones_like),
    ("{v}", lambda v: v),
    ("1 - {v}", lambda v: 1 - v),
    ("{v} (1 - {v})", lambda v: v * (1 - v)),
    ("{v}² (1 - {v})", lambda v: v * v * (1 - v)),
    ("{v} (1 - {v})²", lambda v: v * (1 - v) ** 2),
    ("{v} (1 + {v})", lambda v: v * (1 + v)),
    ("({v} (1 - {v}))²", lambda v: (v * (1 - v)) ** 2),
    ("(1 - {v})²", lambda v: (1 - v) ** 2),
    ("(1 - {v}²)²", lambda v: (1 - v * v) ** 2),
    ("1 - {v}²", lambda v: 1 - v * v),
    ("({v} > 0)", lambda v: (v > 0).astype(float)),
    ("({v} <= 0)", lambda v: (v <= 0).astype(float)),
    ("1 / {v}", lambda v: 1 / v),
    ("{v}²", lambda v: v * v),
    ("1 / {v}²", lambda v: 1 / (v * v)),
    ("1 + {v}", lambda v: 1 + v),
    ("2 {v}", lambda v: 2 * v),
    ("{v} / 2", lambda v: v / 2),
    ("{v}³", lambda v: v**3),
    ("1 / {v}³", lambda v: v**-3.0),
    ("1 + {v}²", lambda v: 1 + v * v),
    ("1 / (1 + {v}²)", lambda v: 1 / (1 + v * v)),
    ("1 / (1 - {v})", lambda v: 1 / (1 - v)),
    ("1 / ({v} (1 - {v}))", lambda v: 1 / (v * (1 - v))),
    ("1 / (1 - {v}²)", lambda v: 1 / (1 - v * v)),
    ("1 - √{v}", lambda v: 1 - np.sqrt(v)),
    ("exp({v})", np.exp),
    ("exp(-{v})", lambda v: np.exp(-v)),
    ("√{v}", np.sqrt),
    ("1 / √{v}", lambda v: 1 / np.sqrt(v)),
    ("sign {v}", np.sign),
    ("|{v}|", np.abs),
    ("log {v}", np.log),
    ("sigmoid({v})", lambda v: 1 / (1 + np.exp(-v))),
    ("sigmoid({v}) (1 - sigmoid({v}))", lambda v: np.exp(-v) / (1 + np.exp(-v)) ** 2),
    ("1 - sigmoid({v})", lambda v: 1 / (1 + np.exp(v))),
    ("tanh {v}", np.tanh),
    ("1 - tanh² {v}", lambda v: 1 - np.tanh(v) ** 2),
    ("cos {v}", np.cos),
    ("sin {v}", np.sin),
)


_ORDER = {text: i for i, (text, _) in enumerate(FUNCTIONS)}


@dataclass(frozen=True)
class Factor:
    """A simple function of a value, by which a gradient may have been multiplied."""

    text: str  # with {v} for the name
    function: Callable[[Any], Any]
    of: Call | None
    value: Array
    name: str = ""
    rule: str = "value"
    sign: int = 1

    def array(self) -> Array:
        """Return the function of the value."""
        with np.errstate(all="ignore"):
            return np.asarray(self.sign * self.function(self.value), dtype=float)

    @property
    def rank(self) -> int:
        """How far from the first thing that a person would think of."""
        return _ORDER.get(self.text, 0)

    def words(self, name: str) -> str:
        """Return the function with a name for the value."""
        text = self.text.format(v=name)
        if self.sign > 0:
            return text
        return f"-({text})" if " " in text and text[0] != "(" else f"-{text}"


ONE = Factor("1", lambda v: v, None, np.ones(()))
_LARGE = 20_000  # entries; functions of larger values are computed when they are asked for


def factors_of(case: Case, graph: BackwardGraph) -> list[Factor]:
    """Return the simple functions of the forward values, arguments and upstream gradients."""
    found: list[Factor] = []
    seen: set[int] = set()
    for call in (*graph.roots, *graph.forward, *graph.upstream):
        v = graph.array(call)
        if v.dtype.kind != "f" or v.size == 0 or id(v) in seen:
            continue
        if v.ndim == 0 and call in graph.upstream:
            continue
        case.deadline.check()
        seen.add(id(v))
        rule = "upstream" if call in graph.upstream else "value"
        name = case.name_of(call)
        of_it = [Factor(text, function, call, v, name, rule) for text, function in FUNCTIONS]
        found += [f for f in of_it if not 1 < v.size <= _LARGE or not is_constant(f.array())]
    return found


class Screen:
    """Tells by one product of matrices which factors could explain a change, of many at once."""

    def __init__(self, factors: list[Factor]) -> None:
        self._groups: dict[Shape, list[Factor]] = {}
        for factor in factors:
            self._groups.setdefault(factor.value.shape, []).append(factor)
        self._matrices = {
            shape: np.stack([f.array().ravel() for f in group])
            for shape, group in self._groups.items()
            if np.prod(shape) <= _LARGE
        }

    def passing(self, weight: Array, target: float, tolerance: float) -> Iterator[Factor]:
        """Yield the factors f with Σ weight · f = target, or minus that."""
        for shape, group in self._groups.items():
            reduced = _summed_to(weight, shape)
            if reduced is None:
                continue
            flat, known = reduced.ravel(), self._matrices.get(shape)
            for first in range(0, len(group), 1 if known is None else len(group)):
                matrix = group[first].array().reshape(1, -1) if known is None else known
                with np.errstate(all="ignore"):
                    scores, sizes = matrix @ flat, np.abs(matrix) @ np.abs(flat)
                    noise = tolerance * (sizes + abs(target))
                    for sign in (1, -1):
                        for i in np.flatnonzero(np.abs(sign * scores - target) <= noise):
                            yield replace(group[first + i], sign=sign)


def _summed_to(array: Array, shape: Shape) -> Array | None:
    """Return an array summed over the axes along which `shape` would be broadcast to it."""
    try:
        if np.broadcast_shapes(array.shape, shape) != array.shape:
            return None
    except ValueError:
        return None
    extra = array.ndim - len(shape)
    out = array.sum(axis=tuple(range(extra))) if extra else array
    axes = tuple(i for i, n in enumerate(shape) if n == 1 and out.shape[i] > 1)
    return np.asarray(out.sum(axis=axes, keepdims=True)) if axes else np.asarray(out)
