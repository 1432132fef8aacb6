"""Arrays that are known, to be asked whether a value is one of them."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np

from ...validation import Array, Shape
from ..blocks import close, largest
from .trail import LARGEST


class Known:
    """Arrays, to be asked whether a value is one of them, to rounding; `scaled`: or a multiple.

    Each is known by a weighted sum of its entries, so that few have to be compared.
    """

    def __init__(self, values: Iterable[Any], scaled: bool = False) -> None:
        self._scaled = scaled
        self._arrays: dict[Shape, list[Array]] = {}
        self._sums: dict[Shape, tuple[Array, Array]] = {}
        for value in values:
            if value is not None and is_known(value):
                array = _unit(np.asarray(value)) if scaled else np.asarray(value)
                if array is not None:
                    self._arrays.setdefault(array.shape, []).append(array)

    def has(self, asked: object, tolerance: float) -> bool:
        """Tell whether a value is one of the arrays."""
        given: Array = np.asarray(asked, dtype=float)
        arrays = self._arrays.get(given.shape)
        if arrays is None or not np.isfinite(largest(given)):
            return False
        value = _unit(given) if self._scaled else given
        if value is None:
            return False
        if value.shape not in self._sums:
            weights = np.random.default_rng(0).uniform(0.5, 1.5, value.size)
            sums = np.array([np.ravel(array) @ weights for array in arrays])
            order = np.argsort(sums)
            self._arrays[value.shape] = arrays = [arrays[i] for i in order]
            self._sums[value.shape] = weights, sums[order]
        weights, sums = self._sums[value.shape]
        off = 1.5 * (2 * tolerance + 1e-15 * value.size) * value.size * largest(value)
        middle = float(np.ravel(value) @ weights)
        first, last = np.searchsorted(sums, [middle - off, middle + off + 1e-300])
        return any(close(value, array, tolerance) for array in arrays[first:last])


def _unit(value: Array) -> Array | None:
    """Return what all multiples of an array have in common; None where all entries are equal."""
    if np.all(value == value.flat[0]):
        return None
    weights = np.random.default_rng(1).uniform(0.5, 1.5, value.size)
    return value / (np.ravel(value) @ weights or 1.0)


def is_known(value: object, least: int = 1) -> bool:
    """Tell whether a value is an array of finite floats, of a size at which it is noted."""
    array = np.asarray(value)
    small = least <= array.size <= LARGEST and array.dtype.kind == "f"
    return small and bool(np.isfinite(array).all())
