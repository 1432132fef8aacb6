"""Arrays that are known, to be asked whether a value is one of them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from functools import lru_cache
from typing import Any

import numpy as np

from ...validation import Array, Shape
from ..blocks import close, largest
from .trail import LARGEST

_NEAR, _SLOPED = 6, 10_000  # gradients behind one another, and their entries


class Known:
    """Arrays, to be asked whether a value is one of them, to rounding; `scaled`: or a multiple.

    Each is known by a weighted sum of its entries, so that few have to be compared.
    """

    def __init__(self, values: Iterable[Any], scaled: bool = False) -> None:
        self._scaled = scaled
        self._arrays: dict[Shape, list[Array]] = {}
        self._sums: dict[Shape, Array] = {}
        for value in values:
            if value is not None and is_known(value):
                array = _unit(np.asarray(value)) if scaled else np.asarray(value)
                if array is not None:
                    self._arrays.setdefault(array.shape, []).append(array)

    def has(self, asked: object, tolerance: float) -> bool:
        """Tell whether a value is one of the arrays."""
        given = numbers_of(asked)
        arrays = None if given is None else self._arrays.get(given.shape)
        if given is None or arrays is None or not np.isfinite(most := largest(given)):
            return False
        value = _unit(given.astype(float)) if self._scaled else given.astype(float)
        if value is None:
            return False
        weights = _weights(0, value.size)
        if value.shape not in self._sums:
            sums = np.array([np.ravel(array) @ weights for array in arrays])
            order = np.argsort(sums)
            self._arrays[value.shape] = arrays = [arrays[i] for i in order]
            self._sums[value.shape] = sums[order]
        sums = self._sums[value.shape]
        most = largest(value) if self._scaled else most
        off = (2 * tolerance + 1e-15 * value.size) * float(weights.sum()) * most
        middle = float(np.ravel(value) @ weights)
        first, last = np.searchsorted(sums, [middle - off, middle + off + 1e-300])
        return any(close(value, array, tolerance) for array in arrays[first:last])


def _unit(value: Array) -> Array | None:
    """Return what all multiples of an array have in common; None where all entries are equal."""
    if np.all(value == value.flat[0]):
        return None
    return value / (np.ravel(value) @ _weights(1, value.size) or 1.0)


@lru_cache(100)
def _weights(seed: int, size: int) -> Array:
    return np.random.default_rng(seed).uniform(0.5, 1.5, size)


def is_known(value: object, least: int = 1) -> bool:
    """Tell whether a value is an array of finite floats, of a size at which it is noted."""
    array = numbers_of(value)
    if array is None or not least <= array.size <= LARGEST:
        return False
    return array.dtype.kind == "f" and bool(np.isfinite(array).all())


def numbers_of(value: object) -> Array | None:
    """Return a number, an array, or lists of them as an array; None of anything else."""
    if not isinstance(value, np.ndarray | np.generic | float | int | list | tuple):
        return None
    with suppress(TypeError, ValueError):  # of several shapes, or with other things in it
        array = np.asarray(value)
        return array if array.dtype.kind in "fiub" else None
    return None


def slopes_of(gradients: Sequence[Any]) -> Iterator[Array]:
    """Yield by what gradients are multiplied, entry by entry, to give those that come after."""
    arrays = [np.asarray(g) for g in gradients if is_known(g, 2) and np.size(g) <= _SLOPED]
    with np.errstate(all="ignore"):
        for i, before in enumerate(arrays):
            near = arrays[i + 1 : i + 1 + _NEAR]
            yield from (after / before for after in near if after.shape == before.shape)


def shares_right(
    floors: Sequence[float],
    tolerance: float,
    truths: Sequence[Sequence[Any]],
    grads: Sequence[Any],
) -> list[float]:
    """Return of each gradient which share is right, by the likeliest of some true ones."""
    pairs = enumerate(zip(grads, floors, strict=True))
    return [
        max(_share_right(g, true[k], floor, tolerance) for true in truths if true)
        for k, (g, floor) in pairs
    ]


def _share_right(grad: Any, true: Any, floor: float, tolerance: float) -> float:
    """Return which share of a gradient's entries are right: 1 where it is, as a whole."""
    if grad is None or np.shape(grad) != np.shape(true):
        return 0.0
    if close(grad, true, tolerance, floor):
        return 1.0
    off = np.abs(np.subtract(grad, true)) > tolerance * largest(true) + floor
    return 0.999 * (1 - float(np.mean(off)))
