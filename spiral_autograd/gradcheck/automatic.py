"""The reference gradient: autograd; else complex step; else central differences.

A reference is believed only after its own output equals the plain one, and a directional
difference on the caller's own arrays agrees with it. Else the next one is taken.
"""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import autograd.numpy as anp
import numpy as np
from numpy.exceptions import ComplexWarning

from ..recording import Call, Recording, record
from ..validation import Array, Shape
from .blocks import blocks, inner, largest
from .boxes import NumpyBox
from .handwritten import CheckError, Subject
from .rebind import rebinding

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


# -------------------- autograd --------------------


def by_autograd(
    subject: Subject,
    upstream: list[Array],
    plain: Sequence[Array] | None = None,
    *,
    rebind: str | None = None,
) -> Reference:
    """Return autograd's gradient of the forward pass, run on boxes in a copy of the objects.

    `plain` is what the forward pass returns without boxes, where that is known already. With
    `rebind`, the forward pass runs with a stand-in for NumPy whose new arrays can hold boxes; with
    "constants", those that its objects hold become boxes too.
    """
    outputs: list[Any] = []

    def loss(values: list[Any], upstream: list[Any]) -> Any:
        found = subject.substitute(values)
        outputs[:] = [_plain(out) for out in found]
        return weighted(found, upstream)

    # The upstream gradient is traced too, so that the graph tells what depends on it.
    stand_in = rebinding(constants=rebind == "constants") if rebind else nullcontext()
    with subject.session.fresh(), warnings.catch_warnings(), stand_in:
        warnings.simplefilter("ignore")
        recording = record(loss, list(subject.values), list(upstream), box_type=NumpyBox)
    plain = _outputs(subject) if plain is None else plain
    single = any(
        getattr(call.value, "dtype", None) in _SINGLE for call in recording.calls
    ) or _has_single([*subject.values, *plain])
    _require_equal(outputs, plain, single)
    grads = [np.asarray(g.value if isinstance(g, Call) else g) for g in recording.grads]
    sharpness = SHARPNESS["autograd", single]
    size = _size(plain, upstream)
    return Reference(
        "autograd", sharpness, grads, recording, single=single, size=size, rebound=rebind
    )


def _size(outputs: Sequence[Array], upstream: Sequence[Array]) -> float:
    return sum(float(np.sum(np.abs(o * u))) for o, u in zip(outputs, upstream, strict=True))


def _outputs(subject: Subject) -> list[Array]:
    with subject.session.fresh():
        return subject.forward()


_SINGLE = (np.float32, np.float16)


def _plain(value: Any) -> Any:
    while hasattr(value, "_node"):
        value = value._value
    return np.asarray(value)


def _has_single(arrays: Sequence[Any]) -> bool:
    return any(np.asarray(a).dtype in _SINGLE for a in arrays)


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


def complex_derivative(subject: Subject, upstream: list[Array], direction: Direction) -> float:
    """Return the derivative in a direction, by a step along the imaginary axis."""
    step = 1e-30
    moved = [
        v + 1j * (step * direction[k].astype(float)) if k in direction else v.astype(complex)
        for k, v in enumerate(subject.values)
    ]
    outputs = _complex_outputs(subject, moved)
    return sum(
        float(np.sum(np.imag(out) * up)) / step for out, up in zip(outputs, upstream, strict=True)
    )


def _complex_outputs(subject: Subject, values: list[Array]) -> list[Array]:
    """Run the forward pass on complex numbers; what throws the imaginary part away is an error."""
    with subject.session.fresh(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        warnings.simplefilter("error", ComplexWarning)
        return [np.asarray(out) for out in subject.substitute(values)]


def by_complex_step(
    subject: Subject,
    upstream: list[Array],
    seconds: float,
    plain: Sequence[Array] | None = None,
) -> Reference:
    """Return the gradient by complex steps, where the forward pass carries complex numbers."""
    plain = _outputs(subject) if plain is None else plain
    single = _has_single([*subject.values, *plain])
    outputs = _complex_outputs(subject, [v.astype(complex) for v in subject.values])
    if not any(np.iscomplexobj(out) for out in outputs):
        raise Distrust("the forward pass does not carry complex numbers")
    _require_equal([np.real(out) for out in outputs], plain, single)
    derivative = partial(complex_derivative, subject, upstream)
    reference = _measured("complex step", subject, derivative, single, seconds)
    reference.size = _size(plain, upstream)
    return reference


# -------------------- central differences --------------------


def moved_outputs(subject: Subject, direction: Direction, size: float) -> list[Array]:
    """Return the outputs, in float64, with the caller's own arrays moved, and moved back."""
    try:
        with subject.session.fresh():
            for k, part in direction.items():
                value = subject.values[k]
                for rows in blocks(value):
                    value[rows] += (size * part[rows].astype(float)).astype(value.dtype)
            return [np.array(out, dtype=float) for out in subject.forward()]
    finally:
        subject.session.restore()


def moved_objective(
    subject: Subject, upstream: list[Array], direction: Direction, size: float
) -> float:
    """Return Σ upstream · output with the arrays moved; NaN where it is not defined."""
    try:
        outputs = moved_outputs(subject, direction, size)
    except CheckError:
        return float("nan")
    return float(sum(np.sum(o * u) for o, u in zip(outputs, upstream, strict=True)))


def difference(subject: Subject, upstream: list[Array], direction: Direction, step: float) -> float:
    """Return the derivative in a direction, by moving the caller's own arrays and back again."""
    ahead, behind = (moved_objective(subject, upstream, direction, s) for s in (step, -step))
    return (ahead - behind) / (2 * step)


def richardson(subject: Subject, upstream: list[Array], direction: Direction, step: float) -> float:
    """Return the derivative in a direction, by two differences that cancel the next error term."""
    once = difference(subject, upstream, direction, step)
    twice = difference(subject, upstream, direction, 2 * step)
    return (4 * once - twice) / 3


def step_for(single: bool) -> float:
    """Return a step fit for the dtype."""
    return 1e-2 if single else 1e-5


def by_differences(
    subject: Subject,
    upstream: list[Array],
    seconds: float,
    plain: Sequence[Array] | None = None,
) -> Reference:
    """Return the gradient by central differences on the caller's own arrays."""
    plain = _outputs(subject) if plain is None else plain
    single = _has_single([*subject.values, *plain])
    step = step_for(single)

    def derivative(direction: Direction) -> float:
        for shorter in (1.0, 1e-2, 1e-4):
            found = richardson(subject, upstream, direction, shorter * step)
            if np.isfinite(found):  # else the step left the domain of the forward pass
                break
        return found

    reference = _measured("central differences", subject, derivative, single, seconds)
    reference.size = _size(plain, upstream)
    reference.noise = reference.noise_at(step)
    return reference


def _measured(
    kind: str,
    subject: Subject,
    derivative: Callable[[Direction], float],
    single: bool,
    seconds: float,
) -> Reference:
    """Return a gradient entry by entry where time allows, else in random directions."""
    started = time.monotonic()
    derivative({})
    one_call = max(time.monotonic() - started, 1e-6)
    sharpness = SHARPNESS[kind, single]
    if sum(v.size for v in subject.values) * one_call > seconds:
        rng = np.random.default_rng(0)
        directions = []
        for k, value in enumerate(subject.values):
            for _ in range(2):
                noise = random_part(value.shape, rng, 1 / np.sqrt(value.size))
                directions.append(({k: noise}, derivative({k: noise})))
        return Reference(kind, sharpness, [], directions=directions, single=single)
    grads = [np.zeros(v.shape) for v in subject.values]
    for k, grad in enumerate(grads):
        unit = np.zeros(grad.shape)
        for index in np.ndindex(grad.shape):
            unit[index] = 1.0
            grad[index] = derivative({k: unit})
            unit[index] = 0.0
    return Reference(kind, sharpness, grads, single=single)


def random_part(shape: Shape, rng: np.random.Generator, scale: float = 1.0) -> Array:
    """Return random numbers of mean 0 and deviation `scale`, in float32: half of the memory."""
    part = rng.random(shape, dtype=np.float32)
    part -= np.float32(0.5)
    part *= np.float32(scale * np.sqrt(12))
    return part


# -------------------- trust --------------------


def balanced_direction(
    subject: Subject, grads: list[Array], rng: np.random.Generator
) -> tuple[Direction, float, float]:
    """Return a random direction in which every gradient has about the same share.

    Returns
    -------
    direction
    expected : float
        The derivative in it.
    size : float
        What the derivative is in other such directions.
    """
    direction, expected, square = {}, 0.0, 0.0
    for k, (value, grad) in enumerate(zip(subject.values, grads, strict=True)):
        norm = float(np.sqrt(inner(grad, grad)))
        scale = max(1.0, largest(value)) / np.sqrt(value.size)
        scale = min(scale, 1 / norm) if norm > 0 else scale
        direction[k] = random_part(value.shape, rng, scale)
        expected += inner(grad, direction[k])
        square += (norm * scale) ** 2
    return direction, expected, float(np.sqrt(square))


# Ways to measure a derivative, and by which factor to change the step: far steps where few digits
# are left near by, near ones where the forward pass bends sharply.
_STEPS = (
    (difference, 1.0),
    (richardson, 1.0),
    (richardson, 1e-2),
    (richardson, 1e-3),
    (richardson, 1e1),
    (richardson, 1e2),
)


def agrees_with_differences(
    subject: Subject, upstream: list[Array], reference: Reference, rng: np.random.Generator
) -> bool:
    """Tell whether a difference along a random direction agrees with a reference."""
    if not reference.grads:
        return True
    direction, expected, scale = balanced_direction(subject, reference.grads, rng)
    step = step_for(reference.single)
    tolerance = (2e-2 if reference.single else 1e-5) * max(abs(expected), 0.2 * scale, 1e-12)
    for measure, shorter in _STEPS:
        measured = measure(subject, upstream, direction, shorter * step)
        if abs(measured - expected) <= tolerance + reference.noise_at(shorter * step):
            return True
    # Where no step stays inside the domain, differences are no witness against autograd.
    return bool(np.isnan(measured)) and reference.kind == "autograd"


def find_reference(
    subject: Subject,
    upstream: list[Array],
    rng: np.random.Generator,
    seconds: float,
    plain: Sequence[Array] | None = None,
) -> Reference:
    """Return the first reference that can be believed."""
    sharp: tuple[Callable[..., Reference], ...] = (
        by_autograd,
        partial(by_autograd, rebind="arrays"),
        partial(by_autograd, rebind="constants"),
        partial(by_complex_step, seconds=seconds),
    )
    for make in sharp:
        try:
            reference = make(subject, upstream, plain=plain)
        except Exception as error:
            subject.notes.append(f"{type(error).__name__}: {error}")
            continue
        if not all(np.isfinite(np.sum(grad)) for grad in reference.grads):
            continue
        if agrees_with_differences(subject, upstream, reference, rng):
            return reference
        if _agrees_nearby(subject, upstream, make, rng):
            return reference
    _require_repeatable(subject, plain)
    return by_differences(subject, upstream, seconds, plain)


def _require_repeatable(subject: Subject, plain: Sequence[Array] | None) -> None:
    """Refuse a forward pass that gives another output from the same state."""
    again = _outputs(subject)
    for before, now in zip(again if plain is None else plain, again, strict=True):
        if before.shape != now.shape or not np.array_equal(before, now):
            raise CheckError(
                "the forward pass gives another output at each run, though its objects and "
                "np.random are put back before each: hold its random numbers fixed, for instance "
                "with a Generator as an attribute, which is put back too"
            )


def nearby(subject: Subject, rng: np.random.Generator, size: float = 1e-4) -> list[Array]:
    """Return the values moved a little, off any kink."""
    others = []
    for value in subject.values:
        scale = size * max(1.0, largest(value))
        shift = rng.uniform(0.5, 1.0, value.shape) * rng.choice([-1.0, 1.0], value.shape)
        others.append(value + (scale * shift).astype(value.dtype))
    return others


def _agrees_nearby(
    subject: Subject,
    upstream: list[Array],
    make: Callable[..., Reference],
    rng: np.random.Generator,
) -> bool:
    """Tell whether a reference and differences agree beside a kink, where they need not on it."""
    with subject.session.moved(subject.values, nearby(subject, rng)):
        try:
            moved = make(subject, upstream)
            return agrees_with_differences(subject, upstream, moved, rng)
        except Exception:
            return False
