"""What is asked of large arrays, block by block: without temporaries of their size."""

from __future__ import annotations

import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from types import EllipsisType

import numpy as np

from ..validation import Array

_ENTRIES = 1 << 16


def blocks(array: Array) -> Iterator[slice | EllipsisType]:
    """Yield indices that take an array apart along its first axis; all of it where it is small."""
    if array.size <= _ENTRIES or array.ndim == 0:
        yield ...
        return
    rows = max(1, _ENTRIES * len(array) // array.size)
    for start in range(0, len(array), rows):
        yield slice(start, start + rows)


def largest(array: object) -> float:
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
        pair = (part[rows].astype(float, copy=False) for part in (ours, theirs))
        total += float(np.vdot(*pair))
    return total


def apart(ours: Array, theirs: Array) -> tuple[float, int]:
    """Return the largest difference of two arrays, infinity if one is not finite; and its place."""
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


@dataclass(frozen=True)
class Furthest:
    """Where two arrays of one shape differ most."""

    distance: float  # infinity where an entry is not finite
    # Relative to the larger of the two largest entries, or to the largest entry of its own row and
    # column where it weighs more there.
    relative: float
    beyond: float  # the most beyond what is excused, relative to its own row and column
    place: int  # in the flattened arrays


def furthest(ours: Array, theirs: Array, excused: float | Array = 0.0) -> Furthest:
    """Return where two arrays differ most, beyond what is excused, for their rows and columns."""
    distance, place = apart(ours, theirs)
    if not 0 < distance < np.inf:
        return Furthest(distance, distance, distance, place)
    scale = max(largest(ours), largest(theirs))
    sizes = [_sizes(ours, theirs, axis) for axis in range(ours.ndim)] or [np.array(scale)]
    excused = np.broadcast_to(excused, ours.shape)
    beyond, most, there, before = 0.0, 0.0, place, 0
    for rows in blocks(ours):
        size = _smallest(sizes, rows)
        with np.errstate(all="ignore"):
            apart_here = np.abs(ours[rows] - theirs[rows])
            over = apart_here - excused[rows]
            share = np.where(over > 0, apart_here / size, 0.0)
            beyond = max(beyond, float(np.max(np.where(over > 0, over / size, 0.0))))
        flat = int(np.argmax(share))
        if share.ravel()[flat] > most:
            most, there = float(share.ravel()[flat]), before + flat
        before += share.size
    if there == place:
        return Furthest(distance, distance / scale, beyond, place)
    at = np.unravel_index(there, ours.shape)
    here = float(np.abs(ours[at] - theirs[at]))
    own = float(min(size[at[axis]] for axis, size in enumerate(sizes)))
    if here / own <= 2 * distance / scale:  # as much where all are looked at together
        return Furthest(distance, distance / scale, beyond, place)
    return Furthest(here, here / own, beyond, there)


def differing(ours: Array, theirs: Array, tolerance: float, excused: float | Array) -> Array:
    """Return which entries differ by more than a share of their own row or column."""
    sizes = [_sizes(ours, theirs, axis) for axis in range(ours.ndim)]
    size = _smallest(sizes, ...) if sizes else np.maximum(np.abs(ours), np.abs(theirs))
    return np.asarray(np.abs(ours - theirs) > tolerance * size + excused)


def across(sizes: Array) -> Array:
    """Return for each entry the smallest of the largest entries of its row, its column, …."""
    parts = [_sizes(sizes, sizes, axis) for axis in range(sizes.ndim)]
    return np.maximum(sizes, _smallest(parts, ...)) if parts else sizes


def _sizes(ours: Array, theirs: Array, axis: int) -> Array:
    """Return the largest absolute entry of each slice that is taken across an axis."""
    others = tuple(i for i in range(ours.ndim) if i != axis)
    ends = [end for a in (ours, theirs) for end in (a.max(axis=others), -a.min(axis=others))]
    return np.maximum.reduce([np.asarray(end, dtype=float) for end in ends])


def _smallest(sizes: Sequence[Array], rows: slice | EllipsisType) -> Array:
    """Return for each entry of a block the smallest of its slices' sizes."""
    first, *rest = sizes
    found = first[rows].reshape(first[rows].shape + (1,) * len(rest))
    for axis, size in enumerate(rest):
        found = np.minimum(found, size.reshape(size.shape + (1,) * (len(rest) - 1 - axis)))
    return found


def close(ours: object, theirs: object, tolerance: float, floor: float = 0.0) -> bool:
    """Tell whether two arrays have the same shape and differ by no more than rounding."""
    ours, theirs = np.asarray(ours), np.asarray(theirs)
    if ours.shape != theirs.shape:
        return False
    if ours.size == 0:
        return True
    distance, _ = apart(ours, theirs)
    if not 0 < distance < np.inf:
        return distance == 0
    return distance <= tolerance * max(largest(ours), largest(theirs)) + floor


def moved(value: Array, size: float, salt: int) -> Array:
    """Return numbers moved up or down by a share `size`: zeros stay, equal numbers stay equal."""
    if not isinstance(value, np.ndarray | np.floating) or value.dtype.kind != "f":
        return value
    if value.size > _ENTRIES:
        flat, out = np.ravel(value), np.empty(value.size, value.dtype)
        for rows in blocks(flat):
            out[rows] = moved(flat[rows], size, salt)
        return out.reshape(value.shape)
    bits = np.atleast_1d(np.abs(value)).astype(float).view(np.uint64)
    mixed = bits + np.uint64((0x9E3779B97F4A7C15 * (salt + 1)) % (1 << 64))
    for shift, factor in _MIXING:
        mixed = (mixed ^ (mixed >> shift)) * factor
    share = (mixed >> np.uint64(11)) * 2.0**-52 - 1  # from -1 to 1
    away = (share + np.copysign(0.25, share)).reshape(np.shape(value))
    return (value * (1 + size * away)).astype(value.dtype)


# Those of SplitMix64 (Steele, Lea and Flood 2014).
_MIXING = [
    (np.uint64(30), np.uint64(0xBF58476D1CE4E5B9)),
    (np.uint64(27), np.uint64(0x94D049BB133111EB)),
    (np.uint64(31), np.uint64(1)),
]


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
