"""The reference gradient: autograd; else complex step; else central differences.

A reference is believed only after its own output equals the plain one, and a directional
difference on the caller's own arrays agrees with it. Else the next one is taken.
"""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import autograd.numpy as anp
import numpy as np

from ..recording import Call, Recording, record
from ..validation import Array
from .boxes import NumpyBox
from .handwritten import CheckError, Subject

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
    directions : list of (list of arrays, float)
        Where the arrays are too large for entry by entry: directions, and the derivative in each.
    single : bool
        Whether float32 is anywhere in the forward pass.
    """

    kind: str
    sharpness: Sharpness
    grads: list[Array]
    recording: Recording | None = None
    directions: list[tuple[list[Array], float]] = field(default_factory=list)
    single: bool = False
    trusted: bool = True


def weighted(outputs: Sequence[Any], upstream: Sequence[Any]) -> Any:
    """Return Σ upstream · output: the scalar whose gradient a backward pass computes."""
    total: Any = 0.0
    for out, up in zip(outputs, upstream, strict=True):
        total = total + anp.sum(out * up)
    return total


# -------------------- autograd --------------------


def by_autograd(subject: Subject, upstream: list[Array]) -> Reference:
    """Return autograd's gradient of the forward pass, run on boxes in a copy of the objects."""
    outputs: list[Any] = []

    def loss(values: list[Any], upstream: list[Any]) -> Any:
        found = subject.substitute(values)
        outputs[:] = [_plain(out) for out in found]
        return weighted(found, upstream)

    # The upstream gradient is traced too, so that the graph tells what depends on it.
    with subject.session.fresh(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        recording = record(loss, list(subject.values), list(upstream), box_type=NumpyBox)
    with subject.session.fresh():
        plain = subject.forward()
    single = any(
        getattr(call.value, "dtype", None) in (np.float32, np.float16) for call in recording.calls
    ) or _has_single([*subject.values, *plain])
    _require_equal(outputs, plain, single)
    grads = [np.asarray(g.value if isinstance(g, Call) else g) for g in recording.grads]
    return Reference("autograd", SHARPNESS["autograd", single], grads, recording, single=single)


def _plain(value: Any) -> Any:
    while hasattr(value, "_node"):
        value = value._value
    return np.asarray(value)


def _has_single(arrays: Sequence[Any]) -> bool:
    return any(np.asarray(a).dtype in (np.float32, np.float16) for a in arrays)


class Distrust(Exception):  # noqa: N818 (no error: the next reference is taken)
    """A reference is not to be believed."""


def _require_equal(traced: Sequence[Any], plain: Sequence[Array], single: bool) -> None:
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


# -------------------- complex step --------------------


def complex_derivative(subject: Subject, upstream: list[Array], direction: list[Array]) -> float:
    """Return the derivative in a direction, by a step along the imaginary axis."""
    step = 1e-30
    moved = [
        v.astype(complex) + 1j * step * d for v, d in zip(subject.values, direction, strict=True)
    ]
    with subject.session.fresh(), warnings.catch_warnings():
        warnings.simplefilter("error")
        outputs = [np.asarray(out) for out in subject.substitute(moved)]
    return sum(
        float(np.sum(np.imag(out) * up)) / step for out, up in zip(outputs, upstream, strict=True)
    )


def by_complex_step(subject: Subject, upstream: list[Array], seconds: float) -> Reference:
    """Return the gradient by complex steps, where the forward pass carries complex numbers."""
    with subject.session.fresh():
        plain = subject.forward()
    single = _has_single([*subject.values, *plain])
    zero = [np.zeros(v.shape) for v in subject.values]
    with subject.session.fresh(), warnings.catch_warnings():
        warnings.simplefilter("error")
        outputs = subject.substitute([v.astype(complex) for v in subject.values])
    if not any(np.iscomplexobj(out) for out in outputs):
        raise Distrust("the forward pass does not carry complex numbers")
    _require_equal([np.real(out) for out in outputs], plain, single)
    derivative = lambda direction: complex_derivative(subject, upstream, direction)  # noqa: E731
    complex_derivative(subject, upstream, zero)
    return _measured("complex step", subject, derivative, single, seconds)


# -------------------- central differences --------------------


def objective(subject: Subject, upstream: list[Array]) -> float:
    """Return Σ upstream · output of the caller's own objects, as they stand, in float64."""
    outputs = subject.forward()
    return float(
        sum(np.sum(np.asarray(o, dtype=float) * u) for o, u in zip(outputs, upstream, strict=True))
    )


def difference(
    subject: Subject, upstream: list[Array], direction: list[Array], step: float
) -> float:
    """Return the derivative in a direction, by moving the caller's own arrays and back again."""

    def moved(size: float) -> float:
        with subject.session.fresh():
            for value, d in zip(subject.values, direction, strict=True):
                value += np.asarray(size * d, dtype=value.dtype)
            return objective(subject, upstream)

    try:
        return (moved(step) - moved(-step)) / (2 * step)
    except CheckError:  # moved out of where the forward pass is defined
        return float("nan")
    finally:
        subject.session.restore()


def richardson(
    subject: Subject, upstream: list[Array], direction: list[Array], step: float
) -> float:
    """Return the derivative in a direction, by two differences that cancel the next error term."""
    once = difference(subject, upstream, direction, step)
    twice = difference(subject, upstream, direction, 2 * step)
    return (4 * once - twice) / 3


def step_for(single: bool) -> float:
    """Return a step fit for the dtype."""
    return 1e-2 if single else 1e-5


def by_differences(subject: Subject, upstream: list[Array], seconds: float) -> Reference:
    """Return the gradient by central differences on the caller's own arrays."""
    with subject.session.fresh():
        plain = subject.forward()
    single = _has_single([*subject.values, *plain])
    derivative = lambda d: richardson(subject, upstream, d, step_for(single))  # noqa: E731
    return _measured("central differences", subject, derivative, single, seconds)


def _measured(
    kind: str,
    subject: Subject,
    derivative: Callable[[list[Array]], float],
    single: bool,
    seconds: float,
) -> Reference:
    """Return a gradient entry by entry where time allows, else in random directions."""
    started = time.monotonic()
    zeros = [np.zeros(v.shape) for v in subject.values]
    derivative(zeros)
    one_call = max(time.monotonic() - started, 1e-6)
    entries = sum(v.size for v in subject.values)
    sharpness = SHARPNESS[kind, single]
    if entries * one_call > seconds:
        rng = np.random.default_rng(0)
        directions = []
        for k in range(len(subject.values)):
            for _ in range(2):
                d = list(zeros)
                d[k] = rng.standard_normal(zeros[k].shape) / np.sqrt(zeros[k].size)
                directions.append((d, derivative(d)))
        return Reference(kind, sharpness, [], directions=directions, single=single)
    grads = [np.zeros(v.shape) for v in subject.values]
    for k, grad in enumerate(grads):
        for index in np.ndindex(grad.shape):
            unit = list(zeros)
            unit[k] = np.zeros(grad.shape)
            unit[k][index] = 1.0
            grad[index] = derivative(unit)
    return Reference(kind, sharpness, grads, single=single)


# -------------------- trust --------------------


def balanced_direction(
    subject: Subject, grads: list[Array], rng: np.random.Generator
) -> list[Array]:
    """Return a random direction in which every gradient has about the same share."""
    direction = []
    for value, grad in zip(subject.values, grads, strict=True):
        norm = float(np.linalg.norm(grad.ravel()))
        scale = max(1.0, float(np.max(np.abs(value)))) / np.sqrt(value.size)
        noise = rng.standard_normal(value.shape)
        direction.append(noise * (min(scale, 1 / norm) if norm > 0 else scale))
    return direction


def agrees_with_differences(
    subject: Subject, upstream: list[Array], reference: Reference, rng: np.random.Generator
) -> bool:
    """Tell whether a difference along a random direction agrees with a reference."""
    if not reference.grads:
        return True
    direction = balanced_direction(subject, reference.grads, rng)
    expected = sum(float(np.sum(g * d)) for g, d in zip(reference.grads, direction, strict=True))
    scale = sum(
        float(np.sum(np.abs(g * d))) for g, d in zip(reference.grads, direction, strict=True)
    )
    step = step_for(reference.single)
    tolerance = (2e-2 if reference.single else 1e-5) * max(abs(expected), 0.05 * scale, 1e-12)
    for measure, size in ((difference, step), (richardson, step), (difference, 1e-2 * step)):
        measured = measure(subject, upstream, direction, size)
        if abs(measured - expected) <= tolerance:
            return True
    # Where no step stays inside the domain, differences are no witness against autograd.
    return bool(np.isnan(measured)) and reference.kind == "autograd"


def find_reference(
    subject: Subject, upstream: list[Array], rng: np.random.Generator, seconds: float
) -> Reference:
    """Return the first reference that can be believed."""
    makers: tuple[Callable[[], Reference], ...] = (
        lambda: by_autograd(subject, upstream),
        lambda: by_complex_step(subject, upstream, seconds),
    )
    for make in makers:
        try:
            reference = make()
        except (KeyboardInterrupt, SystemExit):
            raise
        except Exception as error:
            subject.notes.append(_why_not(error))
            continue
        if not all(np.isfinite(grad).all() for grad in reference.grads):
            continue
        if agrees_with_differences(subject, upstream, reference, rng):
            return reference
        if reference.kind == "autograd" and _agrees_nearby(subject, upstream, rng):
            return reference
    return by_differences(subject, upstream, seconds)


def _why_not(error: Exception) -> str:
    return f"{type(error).__name__}: {error}"


def nearby(subject: Subject, rng: np.random.Generator, size: float = 1e-4) -> Callable[[], None]:
    """Move the values a little, off any kink, as the state to begin from; return the way back."""
    saved = [value.copy() for value in subject.values]
    with subject.session.fresh():
        for value in subject.values:
            scale = size * max(1.0, float(np.max(np.abs(value))))
            value += (
                scale * rng.uniform(0.5, 1.0, value.shape) * rng.choice([-1.0, 1.0], value.shape)
            ).astype(value.dtype)
        subject.session.rebase()

    def back() -> None:
        subject.session.restore()
        for value, old in zip(subject.values, saved, strict=True):
            np.copyto(value, old)
        subject.session.rebase()

    return back


def _agrees_nearby(subject: Subject, upstream: list[Array], rng: np.random.Generator) -> bool:
    """Tell whether autograd and differences agree beside a kink, where they need not on it."""
    back = nearby(subject, rng)
    try:
        moved = by_autograd(subject, upstream)
        return agrees_with_differences(subject, upstream, moved, rng)
    except Exception:
        return False
    finally:
        back()
