"""The grammar of mistakes: what people do to an array, to a derivative, to a formula; as tables."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache, partial
from itertools import combinations, permutations, product
from typing import Any

import numpy as np

from ...validation import Array, Shape
from ..finding import Finding, found

Axes = tuple[int, ...]


@dataclass(frozen=True)
class Pattern:
    """One thing that may be done to an array.

    Attributes
    ----------
    kind : str
        Of the finding.
    cost : float
        How far from the first thing that a person would think of.
    make : callable
        From what is right to what comes out.
    fields : dict
        Those of the finding.
    """

    kind: str
    cost: float
    make: Callable[[Array], Array]
    fields: Mapping[str, Any] = field(default_factory=dict)

    @property
    def finding(self) -> Finding:
        """What is said of it."""
        return found(self.kind, **self.fields)


def subsets(ndim: int) -> list[Axes]:
    """Return all choices of axes, of arrays with not too many."""
    return [s for n in range(1, ndim + 1) for s in combinations(range(ndim), n)] if ndim < 6 else []


def one(axes: Axes) -> Any:
    """Return the only one of some axes; else all of them."""
    return axes[0] if len(axes) == 1 else axes


def _kept(patterns: Callable[..., Iterator[Pattern]]) -> Callable[..., Sequence[Pattern]]:
    """Keep the patterns for some shapes."""

    @lru_cache(maxsize=512)
    def kept(*shapes: object, **options: object) -> Sequence[Pattern]:
        return list(patterns(*shapes, **options))

    return kept


# -------------------- an array with its entries elsewhere --------------------


@_kept
def rearrangements(shape: Shape, target: Shape) -> Iterator[Pattern]:
    """Yield how an array may come out in another order: its axes, its entries or its blocks."""
    orders = [*permutations(range(len(shape)))][1:] if 1 < len(shape) <= 5 else []
    for axes in orders:
        if tuple(shape[i] for i in axes) == target:
            is_plain = axes == tuple(range(len(shape)))[::-1]
            kind, fields = ("transposed", {}) if is_plain else ("axes_order", {"axes": axes})
            yield Pattern(kind, 2.0, partial(np.transpose, axes=axes), fields)
    for axes in orders:
        yield Pattern("reordered", 2.0, partial(_turned, shape=target, axes=axes))
        if len(target) == len(shape):
            yield Pattern("reordered", 2.0, partial(_moved_back, shape=target, axes=axes))
    if len(shape) > 1 or len(target) > 1:
        yield Pattern("reordered", 2.0, lambda a: a.reshape(target, order="F"))
        yield Pattern("reordered", 2.0, lambda a: a.ravel(order="F").reshape(target))
    for axis, n in enumerate(shape if shape == target else ()):
        if n > 1:
            yield Pattern("reversed", 2.0, partial(np.flip, axis=axis), {"axis": axis})
            for shift in (1, -1):
                rolled = partial(np.roll, shift=shift, axis=axis)
                yield Pattern("shifted", 2.0, rolled, {"shift": shift, "axis": axis})


def _turned(a: Array, shape: Shape, axes: Axes) -> Array:
    return a.transpose(axes).reshape(shape)


def _moved_back(a: Array, shape: Shape, axes: Axes) -> Array:
    """Return an array taken for one with its axes in another order, and moved back from it."""
    return a.reshape([shape[i] for i in axes]).transpose(np.argsort(axes))


@_kept
def exchanged_blocks(shape: Shape) -> Iterator[Pattern]:
    """Yield an array with its halves, thirds or quarters in another order, as gates may be."""
    for axis, count in product(range(len(shape)), (2, 3, 4)):
        if shape[axis] % count == 0:
            for order in list(permutations(range(count)))[1:]:
                made = partial(_blocks, count=count, axis=axis, order=order)
                yield Pattern("blocks", 2.2, made, made.keywords)


def _blocks(a: Array, count: int, axis: int, order: Axes) -> Array:
    parts = np.split(a, count, axis)
    return np.concatenate([parts[i] for i in order], axis)


# -------------------- sums --------------------

_ENDS: dict[str, Callable[..., Array]] = {
    "the_largest": np.max,
    "the_first": lambda a, axis, keepdims: np.take(a, [0], axis[0]),
    "the_last": lambda a, axis, keepdims: np.take(a, [-1], axis[0]),
}


@_kept
def reductions(shape: Shape, *, ends: bool = False) -> Iterator[Pattern]:
    """Yield an array summed or averaged over axes, which are kept with length 1.

    With `ends`, also the largest entry along them, and the first and last along one.
    """
    kinds: dict[str, Callable[..., Array]] = {"summed": np.sum, "averaged": np.mean}
    for axes in subsets(len(shape)):
        if all(shape[axis] == 1 for axis in axes):
            continue
        for kind, reduce in (kinds | _ENDS if ends else kinds).items():
            if len(axes) == 1 or kind not in ("the_first", "the_last"):
                made = partial(reduce, axis=axes, keepdims=True)
                yield Pattern(kind, 2.0, made, {"axes": one(axes)})


def unbroadcast(part: Array, shape: Shape) -> Array:
    """Return an array summed to a shape from which NumPy would broadcast it."""
    extra = np.ndim(part) - len(shape)
    part = np.sum(part, axis=tuple(range(extra))) if extra > 0 else part
    axes = tuple(i for i, n in enumerate(shape) if n == 1 and np.shape(part)[i] > 1)
    return np.asarray(np.sum(part, axis=axes, keepdims=True) if axes else part)


# -------------------- derivatives --------------------

# What people take for a derivative, or multiply by: the likeliest first.
FUNCTIONS: tuple[tuple[str, Callable[[Any], Any]], ...] = (
    ("1", np.ones_like),
    ("{v}", lambda v: v),
    ("1 - {v}", lambda v: 1 - v),
    ("{v} * (1 - {v})", lambda v: v * (1 - v)),
    ("1 - {v}**2", lambda v: 1 - v * v),
    ("({v} > 0)", lambda v: (v > 0).astype(float)),
    ("1 / {v}", lambda v: 1 / v),
    ("{v}**2", lambda v: v * v),
    ("({v} <= 0)", lambda v: (v <= 0).astype(float)),
    ("{v}**2 * (1 - {v})", lambda v: v * v * (1 - v)),
    ("{v} * (1 - {v})**2", lambda v: v * (1 - v) ** 2),
    ("{v} * (1 + {v})", lambda v: v * (1 + v)),
    ("({v} * (1 - {v}))**2", lambda v: (v * (1 - v)) ** 2),
    ("(1 - {v})**2", lambda v: (1 - v) ** 2),
    ("(1 - {v}**2)**2", lambda v: (1 - v * v) ** 2),
    ("1 / {v}**2", lambda v: 1 / (v * v)),
    ("1 + {v}", lambda v: 1 + v),
    ("2 * {v}", lambda v: 2 * v),
    ("{v} / 2", lambda v: v / 2),
    ("{v}**3", lambda v: v**3),
    ("1 / {v}**3", lambda v: v**-3.0),
    ("1 + {v}**2", lambda v: 1 + v * v),
    ("1 / (1 + {v}**2)", lambda v: 1 / (1 + v * v)),
    ("1 / (1 - {v})", lambda v: 1 / (1 - v)),
    ("1 / ({v} * (1 - {v}))", lambda v: 1 / (v * (1 - v))),
    ("1 / (1 - {v}**2)", lambda v: 1 / (1 - v * v)),
    ("1 - sqrt({v})", lambda v: 1 - np.sqrt(v)),
    ("exp({v})", np.exp),
    ("exp(-{v})", lambda v: np.exp(-v)),
    ("sqrt({v})", np.sqrt),
    ("1 / sqrt({v})", lambda v: 1 / np.sqrt(v)),
    ("sign({v})", np.sign),
    ("abs({v})", np.abs),
    ("log({v})", np.log),
    ("sigmoid({v})", lambda v: 1 / (1 + np.exp(-v))),
    ("sigmoid({v}) * (1 - sigmoid({v}))", lambda v: np.exp(-v) / (1 + np.exp(-v)) ** 2),
    ("1 - sigmoid({v})", lambda v: 1 / (1 + np.exp(v))),
    ("sigmoid({v}) * (1 - {v})", lambda v: (1 - v) / (1 + np.exp(-v))),
    ("{v} * (1 - sigmoid({v}))", lambda v: v / (1 + np.exp(v))),
    ("tanh({v})", np.tanh),
    ("1 - tanh({v})**2", lambda v: 1 - np.tanh(v) ** 2),
    ("cos({v})", np.cos),
    ("sin({v})", np.sin),
)


def functions_of(v: Array) -> Array:
    """Return the simple functions of a value, one in each row; those that do not exist as NaN."""
    with np.errstate(all="ignore"):
        rows = [np.asarray(function(v), dtype=float).ravel() for _, function in FUNCTIONS]
    table = np.stack(rows)
    table[~np.isfinite(table).all(axis=1)] = np.nan
    return table
