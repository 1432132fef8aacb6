"""Arrays that are known, to be asked whether a value is one of them."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np

from ...validation import Array, Shape
from ..blocks import close, largest
from .trail import LARGEST


class Known:
    """Arrays, to be asked whether a value is one of them, to rounding.

    Each is known by a weighted sum of its entries, so that few have to be compared.
    """

    def __init__(self, values: Iterable[Any]) -> None:
        self._arrays: dict[Shape, list[Array]] = {}
        self._sums: dict[Shape, tuple[Array, Array]] = {}
        for value in values:
            if value is not None and is_known(value):
                self._arrays.setdefault(np.shape(value), []).append(np.asarray(value))

    def has(self, value: object, tolerance: float) -> bool:
        """Tell whether a value is one of the arrays."""
        value = np.asarray(value, dtype=float)
        arrays = self._arrays.get(value.shape)
        if arrays is None or not np.isfinite(largest(value)):
            return False
        if value.shape not in self._sums:
            weights = np.random.default_rng(0).uniform(0.5, 1.5, value.size)
            sums = np.array([np.ravel(array) @ weights for array in arrays])
            order = np.argsort(sums)
            self._arrays[value.shape] = arrays = [arrays[i] for i in order]
            self._sums[value.shape] = weights, sums[order]
        weights, sums = self._sums[value.shape]
        off = (2 * tolerance + 1e-15 * value.size) * float(weights.sum()) * largest(value)
        middle = float(np.ravel(value) @ weights)
        first, last = np.searchsorted(sums, [middle - off, middle + off + 1e-300])
        return any(close(value, array, tolerance) for array in arrays[first:last])


def is_known(value: object, least: int = 1) -> bool:
    """Tell whether a value is an array of finite floats, of a size at which it is noted."""
    array = np.asarray(value)
    small = least <= array.size <= LARGEST and array.dtype.kind == "f"
    return small and bool(np.isfinite(array).all())
