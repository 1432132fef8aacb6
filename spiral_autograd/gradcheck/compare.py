"""Leaf by leaf: exact, match, approximate, wrong or missing. Shapes are never broadcast."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ..validation import Array, Shape
from .automatic import Reference, Sharpness


@dataclass(frozen=True)
class Row:
    """What was found about one gradient.

    Attributes
    ----------
    name : str
        The argument's name, as the person named it.
    shape : tuple of int
        Its shape.
    scale : float
        The largest entry of the reference gradient.
    max_abs, max_rel : float
        The largest difference, and that relative to the larger of the two largest entries.
    index : tuple of int or None
        Where the largest difference is.
    verdict : str
        "exact", "match", "idealised", "approximate", "wrong" or "missing".
    why : str
        The mistake in one sentence with the evidence; empty where there is none.
    rule : str or None
        The kind of mistake: "factor", "layout", "sum", "upstream", "value", "term", "state",
        "unwritten", "part" or "kink".
    lines : tuple of (str, int)
        The places in the reader's code: file and line.
    """

    name: str
    shape: Shape
    scale: float
    max_abs: float
    max_rel: float
    index: tuple[int, ...] | None
    verdict: str
    why: str = ""
    rule: str | None = None
    lines: tuple[tuple[str, int], ...] = ()
    handwritten: Any = field(default=None, repr=False, compare=False)
    automatic: Any = field(default=None, repr=False, compare=False)


FAILURES = ("wrong", "missing")


def largest(array: Any) -> float:
    """Return the largest absolute value of an array."""
    return float(np.max(np.abs(array), initial=0.0))


def close(ours: Any, theirs: Any, tolerance: float, floor: float = 0.0) -> bool:
    """Tell whether two arrays have the same shape and differ by no more than rounding."""
    ours, theirs = np.asarray(ours), np.asarray(theirs)
    if ours.shape != theirs.shape:
        return False
    apart = np.abs(ours - theirs)
    if not np.isfinite(apart).all():
        return False
    scale = max(largest(ours), largest(theirs))
    return float(np.max(apart, initial=0.0)) <= tolerance * scale + floor


def compare(name: str, handwritten: Any, automatic: Array, sharp: Sharpness, floor: float) -> Row:
    """Return the row for a handwritten gradient and the reference."""
    scale = largest(automatic)
    blank = Row(name, automatic.shape, scale, np.nan, np.nan, None, "missing")
    if handwritten is None:
        verdict = "missing" if scale > floor else "match"
        return _with(
            blank,
            verdict=verdict,
            why="no gradient is returned",
            rule="unwritten",
            automatic=automatic,
        )
    h = np.asarray(handwritten)
    if h.dtype.kind not in "fiub":
        return _with(
            blank, verdict="wrong", why=f"a gradient of dtype {h.dtype}", automatic=automatic
        )
    if h.shape != automatic.shape:
        return _with(
            blank,
            verdict="wrong",
            max_abs=np.inf,
            max_rel=np.inf,
            handwritten=h,
            automatic=automatic,
            why=f"has the shape {h.shape} in place of {automatic.shape}",
        )
    with np.errstate(all="ignore"):
        apart = np.abs(h - automatic)
    if h.size == 0:
        return _with(
            blank, verdict="exact", max_abs=0.0, max_rel=0.0, handwritten=h, automatic=automatic
        )
    flat = int(np.argmax(np.where(np.isfinite(apart), apart, np.inf)))
    index = tuple(int(i) for i in np.unravel_index(flat, h.shape))
    max_abs = float(apart.ravel()[flat])
    both = max(scale, largest(h)) if np.isfinite(h).all() else np.nan
    max_rel = max_abs / both if both > 0 else (0.0 if max_abs == 0 else np.inf)
    if not np.isfinite(h).all():
        verdict = "wrong"
    elif max_abs == 0:
        verdict = "exact"
    elif max_abs <= sharp.match * both + floor:
        verdict = "match"
    elif max_abs <= sharp.approximate * both + floor:
        verdict = "approximate"
    else:
        verdict = "wrong"
    return Row(
        name, h.shape, scale, max_abs, max_rel, index, verdict, handwritten=h, automatic=automatic
    )


def _with(row: Row, **changes: Any) -> Row:
    from dataclasses import replace

    return replace(row, **changes)


def compare_directions(
    name: str, k: int, handwritten: Any, shape: Shape, reference: Reference
) -> Row:
    """Return the row for a gradient of which only derivatives in random directions are known."""
    along = [(d[k], value) for d, value in reference.directions if np.any(d[k])]
    scale = max((abs(value) for _, value in along), default=0.0)
    blank = Row(name, shape, scale, np.nan, np.nan, None, "missing")
    if handwritten is None:
        return _with(blank, why="no gradient is returned", rule="unwritten")
    h = np.asarray(handwritten)
    if h.shape != shape:
        return _with(
            blank,
            verdict="wrong",
            max_abs=np.inf,
            max_rel=np.inf,
            why=f"has the shape {h.shape} in place of {shape}",
        )
    apart = max((abs(float(np.sum(h * d)) - value) for d, value in along), default=0.0)
    size = float(np.linalg.norm(h.ravel())) / np.sqrt(max(h.size, 1))
    both = max(scale, size)
    relative = apart / both if both > 0 else 0.0
    sharp = reference.sharpness
    verdict = (
        "match"
        if relative <= sharp.match
        else "approximate"
        if relative <= sharp.approximate
        else "wrong"
    )
    return _with(
        blank,
        verdict=verdict,
        max_abs=apart,
        max_rel=relative,
        handwritten=h,
        why="" if verdict == "match" else "compared along random directions only",
    )
