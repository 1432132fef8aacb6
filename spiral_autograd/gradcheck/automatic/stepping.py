"""Derivatives by steps: along the imaginary axis, and by central differences."""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable, Sequence
from functools import partial

import numpy as np
from numpy.exceptions import ComplexWarning

from ...validation import Array, Shape
from ..blocks import blocks
from ..handwritten.subject import CheckError, Subject
from .reference import (
    SHARPNESS,
    Direction,
    Distrust,
    Reference,
    has_single,
    outputs_now,
    require_equal,
    size_of,
)

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
    plain = outputs_now(subject) if plain is None else plain
    single = has_single([*subject.values, *plain])
    outputs = _complex_outputs(subject, [v.astype(complex) for v in subject.values])
    if not any(np.iscomplexobj(out) for out in outputs):
        raise Distrust("the forward pass does not carry complex numbers")
    require_equal([np.real(out) for out in outputs], plain, single)
    derivative = partial(complex_derivative, subject, upstream)
    reference = _measured("complex step", subject, derivative, single, seconds)
    reference.size = size_of(plain, upstream)
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
    plain = outputs_now(subject) if plain is None else plain
    single = has_single([*subject.values, *plain])
    step = step_for(single)

    def derivative(direction: Direction, longer: float = 1.0) -> float:
        for shorter in (1.0, 1e-2, 1e-4):
            found = richardson(subject, upstream, direction, longer * shorter * step)
            if np.isfinite(found):  # else the step left the domain of the forward pass
                break
        return found

    reference = _measured("central differences", subject, derivative, single, seconds)
    reference.size = size_of(plain, upstream)
    reference.noise = max(reference.noise_at(step), 4 * _spread(reference, derivative))
    return reference


def _spread(reference: Reference, derivative: Callable[..., float]) -> float:
    """Return how far some entries move with another step: by what the loss itself is rounded."""
    apart = 0.0
    for k, grad in enumerate(reference.grads):
        unit = np.zeros(grad.shape)
        for index in list(np.ndindex(grad.shape))[:4]:
            unit[index] = 1.0
            apart = max(apart, float(abs(derivative({k: unit}, 0.7) - grad[index])))
            unit[index] = 0.0
    return apart if np.isfinite(apart) else 0.0


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
