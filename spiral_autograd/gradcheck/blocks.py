"""What is asked of large arrays, block by block: without temporaries of their size."""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from typing import Any

import numpy as np

from ..validation import Array

_ENTRIES = 1 << 16


def blocks(array: Array) -> Iterator[Any]:
    """Yield indices that take an array apart along its first axis; all of it where it is small."""
    if array.size <= _ENTRIES or array.ndim == 0:
        yield ...
        return
    rows = max(1, _ENTRIES * len(array) // array.size)
    for start in range(0, len(array), rows):
        yield slice(start, start + rows)


def largest(array: Any) -> float:
    """Return the largest absolute value of an array; NaN where it has any."""
    array = np.asarray(array)
    if array.size == 0:
        return 0.0
    if array.size <= _ENTRIES:
        return float(np.abs(array).max())
    return float(np.maximum(array.max(), -array.min()))


def inner(ours: Array, theirs: Array) -> float:
    """Return Σ ours · theirs, in float64."""
    total = 0.0
    for rows in blocks(ours):
        total += float(np.sum(np.multiply(ours[rows], theirs[rows], dtype=float)))
    return total


def apart(ours: Array, theirs: Array) -> tuple[float, int]:
    """Return the largest difference of two arrays of one shape, and its place when flattened.

    Where one is not finite, that place and infinity.
    """
    found, place, before = -1.0, 0, 0
    for rows in blocks(ours):
        with np.errstate(all="ignore"):
            difference = np.abs(ours[rows] - theirs[rows])
        flat = int(np.argmax(difference))
        here = float(difference.ravel()[flat])
        if not np.isfinite(here):
            return np.inf, before + flat
        if here > found:
            found, place = here, before + flat
        before += difference.size
    return found, place


def close(ours: Any, theirs: Any, tolerance: float, floor: float = 0.0) -> bool:
    """Tell whether two arrays have the same shape and differ by no more than rounding."""
    ours, theirs = np.asarray(ours), np.asarray(theirs)
    if ours.shape != theirs.shape:
        return False
    if ours.size == 0:
        return True
    distance, _ = apart(ours, theirs)
    scale = max(largest(ours), largest(theirs))
    return bool(np.isfinite(distance)) and distance <= tolerance * scale + floor


def checksum(array: Array) -> int:
    """Return a number that another content changes; for large arrays at little cost."""
    flat = np.ascontiguousarray(array.T if array.flags.f_contiguous else array).reshape(-1)
    if flat.nbytes < 8 * len(_WEIGHTS) or flat.nbytes % 8:
        return zlib.crc32(flat.data)
    words, total = flat.view(np.uint64), 0
    for start in range(0, len(words), len(_WEIGHTS)):
        part = words[start : start + len(_WEIGHTS)]
        total = 31 * total + int(np.dot(part, _WEIGHTS[: len(part)]))
    return total % (1 << 61)


# Odd, so that no bit is lost modulo 2**64.
_WEIGHTS = np.random.default_rng(0).integers(1 << 62, size=1 << 14, dtype=np.uint64) * 2 + 1
