"""A reference gradient, and how sharp it is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import autograd.numpy as anp
import numpy as np

from ...recording import Recording
from ...validation import Array
from ..guard import CheckError, theirs
from ..subject.subject import Subject

# -------------------- how sharp a reference is --------------------


@dataclass(frozen=True)
class Sharpness:
    """Up to which relative difference a gradient matches, and up to which it is approximate."""

    match: float
    approximate: float


SHARPNESS = {
    ("autograd", False): Sharpness(1e-10, 1e-6),
    ("autograd", True): Sharpness(1e-5, 1e-4),
    ("complex step", False): Sharpness(1e-10, 1e-6),
    ("complex step", True): Sharpness(1e-5, 1e-4),
    ("central differences", False): Sharpness(1e-7, 1e-6),
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
    errors : list of arrays
        How far each entry may be off, where the reference is measured entry by entry.
    noise : float
        How far the derivatives in the directions may be off.
    size : float
        Σ |upstream · output|: what the gradients are a part of.
    rebound : str or None
        What was rebound in the traced forward pass: "arrays", "constants".
    double : bool
        Whether the forward pass ran in float64 on values in float32.
    """

    kind: str
    sharpness: Sharpness
    grads: list[Array]
    recording: Recording | None = None
    directions: list[tuple[Direction, float]] = field(default_factory=list)
    single: bool = False
    errors: list[Array] = field(default_factory=list)
    noise: float = 0.0
    size: float = 0.0
    rebound: str | None = None
    double: bool = False

    @property
    def eps(self) -> float:
        """The rounding of the numbers in the forward and the handwritten backward pass."""
        return float(np.finfo(np.float32 if self.single else np.float64).eps)

    @property
    def eps_of_trace(self) -> float:
        """The rounding of the numbers in the reference's own forward pass."""
        return float(np.finfo(float).eps) if self.double else self.eps


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


class UntrustedError(CheckError):
    """A reference is not to be had, or not to be believed."""


def substituted(subject: Subject, values: Sequence[Any]) -> list[Any]:
    """Run the forward pass on other values than it was written for, which may raise anything."""
    with theirs("the forward pass"):
        return subject.substitute(values)


def in_double(subject: Subject) -> list[Array]:
    """Return the values of a subject in float64."""
    return [value.astype(np.float64) for value in subject.values]


def runs_in_double(subject: Subject, plain: Sequence[Array]) -> bool:
    """Tell whether the forward pass is in float32, and runs as well on values in float64."""
    if not has_single(subject.values):
        return False
    try:
        with subject.session.fresh():
            outputs = [np.asarray(out) for out in substituted(subject, in_double(subject))]
        if any(out.dtype != np.float64 for out in outputs if out.dtype.kind == "f"):
            return False
        require_equal(outputs, plain, single=True)
    except CheckError:
        return False
    finally:
        subject.session.restore()
    return True


def require_equal(traced: Sequence[Any], plain: Sequence[Array], single: bool) -> None:
    """Raise unless a traced forward pass has returned what the plain one does.

    In float32, what is small beside 1, as exp(x) - 1, has lost its digits on the way.
    """
    tolerance, least = (1e-5, 4 * float(np.finfo(np.float32).eps)) if single else (1e-12, 0.0)
    if len(traced) != len(plain):
        raise UntrustedError("the traced forward pass has other outputs")
    for ours, own in zip(traced, plain, strict=True):
        largest = np.max(np.abs(own), initial=0.0) or 1.0
        if (
            np.shape(ours) != own.shape
            or np.max(np.abs(ours - own), initial=0) > tolerance * largest + least
        ):
            raise UntrustedError("the traced forward pass gives another output than the plain one")
