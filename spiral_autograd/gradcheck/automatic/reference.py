"""A reference gradient, and how sharp it is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import autograd.numpy as anp
import numpy as np

from ...recording import Recording
from ...validation import Array
from ..handwritten.subject import Subject

# -------------------- how sharp a reference is --------------------


@dataclass(frozen=True)
class Sharpness:
    """Up to which relative difference a gradient matches, and up to which it is approximate."""

    match: float
    approximate: float


SHARPNESS = {
    ("autograd", False): Sharpness(1e-10, 2e-5),
    ("autograd", True): Sharpness(1e-4, 1e-3),
    ("complex step", False): Sharpness(1e-10, 2e-5),
    ("complex step", True): Sharpness(1e-4, 1e-3),
    ("central differences", False): Sharpness(1e-7, 1e-4),
    ("central differences", True): Sharpness(2e-3, 2e-2),
}


# A direction in which values are moved: a part for each value that moves, by its number.
Direction = dict[int, Array]


@dataclass
class Reference:
    """A reference gradient.

    Attributes
    ----------
    kind : str
        "autograd", "complex step" or "central differences".
    sharpness : Sharpness
    grads : list of arrays
        The gradient for each value of the subject; empty where only directions are known.
    recording : Recording or None
        autograd's backward graph.
    directions : list of (Direction, float)
        Where the arrays are too large for entry by entry: directions, and the derivative in each.
    single : bool
        Whether float32 is anywhere in the forward pass.
    noise : float
        How far rounding alone may move an entry, where the reference is measured.
    size : float
        Σ |upstream · output|: what a difference of two such sums is rounded to.
    rebound : str or None
        What was rebound in the traced forward pass: "arrays", "constants".
    """

    kind: str
    sharpness: Sharpness
    grads: list[Array]
    recording: Recording | None = None
    directions: list[tuple[Direction, float]] = field(default_factory=list)
    single: bool = False
    noise: float = 0.0
    size: float = 0.0
    rebound: str | None = None

    def noise_at(self, step: float) -> float:
        """Return how far rounding moves a difference at a step."""
        eps = float(np.finfo(np.float32 if self.single else np.float64).eps)
        return 4 * eps * self.size / step


def weighted(outputs: Sequence[Any], upstream: Sequence[Any]) -> Any:
    """Return Σ upstream · output: the scalar whose gradient a backward pass computes."""
    total: Any = 0.0
    for out, up in zip(outputs, upstream, strict=True):
        total = total + anp.sum(out * up)
    return total


def size_of(outputs: Sequence[Array], upstream: Sequence[Array]) -> float:
    """Return Σ |upstream · output|."""
    return sum(float(np.sum(np.abs(o * u))) for o, u in zip(outputs, upstream, strict=True))


def outputs_now(subject: Subject) -> list[Array]:
    """Return what the forward pass returns."""
    with subject.session.fresh():
        return subject.forward()


SINGLE = (np.float32, np.float16)


def plain_of(value: Any) -> Any:
    """Return a value out of its boxes."""
    while hasattr(value, "_node"):
        value = value._value
    return np.asarray(value)


def has_single(arrays: Sequence[Any]) -> bool:
    """Tell whether one of some arrays is of single precision, or less."""
    return any(np.asarray(a).dtype in SINGLE for a in arrays)


class Distrust(Exception):  # noqa: N818 (no error: the next reference is taken)
    """A reference is not to be believed."""


def require_equal(traced: Sequence[Any], plain: Sequence[Array], single: bool) -> None:
    """Raise unless a traced forward pass has returned what the plain one does."""
    tolerance = 1e-5 if single else 1e-12
    if len(traced) != len(plain):
        raise Distrust("the traced forward pass has other outputs")
    for ours, theirs in zip(traced, plain, strict=True):
        largest = np.max(np.abs(theirs), initial=0.0) or 1.0
        if (
            np.shape(ours) != theirs.shape
            or np.max(np.abs(ours - theirs), initial=0) > tolerance * largest
        ):
            raise Distrust("the traced forward pass gives another output than the plain one")
