"""What people do to an array that should be handed on as it is, or be summed; as tables."""

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
    make : callable
        From what is right to what comes out.
    fields : dict
        Those of the finding.
    """

    kind: str
    make: Callable[[Array], Array]
    fields: Mapping[str, Any] = field(default_factory=dict)

    @property
    def finding(self) -> Finding:
        """What is said of it."""
        return found(self.kind, **self.fields)


def subsets(ndim: int) -> list[Axes]:
    """Return all choices of axes, of arrays with not too many."""
    return [s for n in range(1, ndim + 1) for s in combinations(range(ndim), n)] if ndim < 6 else []


def one(axes: Axes) -> int | Axes:
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
            yield Pattern(kind, partial(np.transpose, axes=axes), fields)
    for axes in orders:
        yield Pattern("reordered", partial(_turned, shape=target, axes=axes))
        if len(target) == len(shape):
            yield Pattern("reordered", partial(_moved_back, shape=target, axes=axes))
    if len(shape) > 1 or len(target) > 1:
        yield Pattern("reordered", lambda a: a.reshape(target, order="F"))
        yield Pattern("reordered", lambda a: a.ravel(order="F").reshape(target))
    for axis, n in enumerate(shape if shape == target else ()):
        if n > 1:
            yield Pattern("reversed", partial(np.flip, axis=axis), {"axis": axis})
            for shift in (1, -1):
                rolled = partial(np.roll, shift=shift, axis=axis)
                yield Pattern("shifted", rolled, {"shift": shift, "axis": axis})


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
                yield Pattern("blocks", made, made.keywords)


def _blocks(a: Array, count: int, axis: int, order: Axes) -> Array:
    parts = np.split(a, count, axis)
    return np.concatenate([parts[i] for i in order], axis)


# -------------------- sums --------------------

_ENDS: dict[str, Callable[..., Array]] = {
    "the_first": lambda a, axis, keepdims: np.take(a, [0], axis[0]),
    "the_last": lambda a, axis, keepdims: np.take(a, [-1], axis[0]),
    "the_largest": np.max,  # which may be the first or last by chance
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
                yield Pattern(kind, made, {"axes": one(axes)})
