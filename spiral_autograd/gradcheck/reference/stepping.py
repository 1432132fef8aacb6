"""Derivatives by steps: along the imaginary axis, and by central differences."""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from itertools import pairwise
from typing import NamedTuple

import numpy as np
from numpy.exceptions import ComplexWarning

from ...validation import Array, Shape
from ..blocks import blocks, largest
from ..subject.subject import CheckError, Subject
from .reference import (
    SHARPNESS,
    Direction,
    Reference,
    UntrustedError,
    has_single,
    in_double,
    outputs_now,
    require_equal,
    runs_in_double,
    size_of,
    substituted,
)


class Measured(NamedTuple):
    """A derivative, how far it may be off, its shortest step, and whether it has longer ones."""

    value: float
    error: float
    step: float = 0.0
    is_extrapolated: bool = False


# -------------------- complex step --------------------


def complex_derivative(subject: Subject, upstream: list[Array], direction: Direction) -> Measured:
    """Return the derivative in a direction, by a step along the imaginary axis."""
    step = 1e-30

    def moved() -> list[Array]:
        return [
            v + 1j * (step * direction[k].astype(float)) if k in direction else v.astype(complex)
            for k, v in enumerate(subject.values)
        ]

    outputs = _complex_outputs(subject, moved)
    parts = (np.sum(np.imag(out) * up) for out, up in zip(outputs, upstream, strict=True))
    return Measured(float(sum(parts)) / step, 0.0)


def _complex_outputs(subject: Subject, values: Callable[[], list[Array]]) -> list[Array]:
    """Run the forward pass on complex numbers; what throws the imaginary part away is an error."""
    with subject.session.fresh(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        warnings.simplefilter("error", ComplexWarning)
        return [np.asarray(out) for out in substituted(subject, values())]


def by_complex_step(
    subject: Subject,
    upstream: list[Array],
    seconds: float,
    plain: Sequence[Array] | None = None,
) -> Reference:
    """Return the gradient by complex steps, where the forward pass carries complex numbers."""
    plain = outputs_now(subject) if plain is None else plain
    single = has_single([*subject.values, *plain])
    outputs = _complex_outputs(subject, lambda: [v.astype(complex) for v in subject.values])
    if not any(np.iscomplexobj(out) for out in outputs):
        raise UntrustedError("the forward pass does not carry complex numbers")
    require_equal([np.real(out) for out in outputs], plain, single)
    derivative = partial(complex_derivative, subject, upstream)
    reference = _measured("complex step", subject, derivative, single, seconds)
    reference.size = size_of(plain, upstream)
    reference.double = runs_in_double(subject, plain)
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


def _double_outputs(subject: Subject, direction: Direction, size: float) -> list[Array]:
    """Return the outputs of a copy in float64, with its arrays moved."""
    with subject.session.fresh():
        moved = in_double(subject)
        for k, part in direction.items():
            moved[k] = moved[k] + size * part.astype(float)
        return [np.asarray(out, dtype=float) for out in substituted(subject, moved)]


# How much shorter each step is than the one before, and how many there are.
_SHORTER, _LEVELS = 4.0, 10


ENOUGH = 1e-10  # the relative error at which an estimate is good enough


def best_of(found: Iterable[Measured]) -> Measured:
    """Return the best of some estimates of a derivative; take no more than are needed.

    A step that leaves the domain of the forward pass, or crosses a kink, is passed over. Where
    estimates contradict each other, the shorter steps are right: far away a function may be flat.
    """
    best = Measured(np.nan, np.inf)
    for estimate in found:
        if not estimate.is_extrapolated:
            if best.value and estimate.error > best.error:  # rounding is all that it could see
                break
            continue
        contradicts = abs(estimate.value - best.value) > 3 * (estimate.error + best.error)
        if estimate.error < best.error or contradicts:
            best = estimate
        if best.value and best.error <= ENOUGH * abs(best.value):
            break
    return best


def estimates(
    subject: Subject,
    upstream: Sequence[Array],
    direction: Direction,
    *,
    single: bool = False,
    double: bool = False,
    noise: float = 0.0,
    first: float | None = None,
) -> Iterator[Measured]:
    """Yield estimates of the derivative in a direction, from ever shorter steps.

    Each difference cancels the next error term of those before it (Richardson), and is as good as
    it agrees with those it is made of, rounding added (Ridders 1982).

    Parameters
    ----------
    subject : Subject
    upstream : sequence of arrays
    direction : dict
        Of the size of the values.
    single : bool
        Whether float32 is anywhere in the forward pass.
    double : bool
        Whether to run a copy in float64 in place of the caller's own objects.
    noise : float
        How far rounding inside the forward pass moves Σ upstream · output, where that is known.
    first : float, optional
        The first step, relative to the direction.
    """
    outputs = _double_outputs if double else moved_outputs
    single = single and not double
    above: list[Measured] = []
    step = first or (0.1 if single else 1e-3)
    for _ in range(_LEVELS):
        try:
            ahead, behind = (outputs(subject, direction, s) for s in (step, -step))
            value, error = _quotient(ahead, behind, upstream, step, single)
            here = [Measured(value, max(error, noise / step), step)]
        except CheckError:
            here = []
        if here and np.isfinite(here[0].value):
            yield here[0]
        else:
            here = []
        rounding = here[0].error if here else 0.0
        for j, coarser in enumerate(above if here else []):
            weight = _SHORTER ** (2 * (j + 1))
            value = (weight * here[j].value - coarser.value) / (weight - 1)
            apart = max(abs(value - here[j].value), abs(value - coarser.value))
            here.append(Measured(value, rounding + apart, step, True))
            yield here[-1]
        above, step = here, step / _SHORTER


def _quotient(
    ahead: list[Array], behind: list[Array], upstream: Sequence[Array], step: float, single: bool
) -> tuple[float, float]:
    """Return a difference quotient, and how far rounding may have moved it.

    Rounding may also have swallowed the difference: it counts where there is none as well.
    """
    eps = float(np.finfo(np.float32 if single else np.float64).eps)
    value = square = 0.0
    for a, b, up in zip(ahead, behind, upstream, strict=True):
        value += float(np.sum(up * (a - b)))
        square += float(np.sum((up * (np.abs(a) + np.abs(b))) ** 2))
    return value / (2 * step), eps * float(np.sqrt(square)) / (2 * step)


def slopes(
    subject: Subject,
    upstream: Sequence[Array],
    direction: Direction,
    step: float,
    *,
    double: bool = False,
) -> tuple[float, float, float]:
    """Return the slopes before and after, and by how much those of the outputs differ.

    Output by output, since the jumps of several may cancel; infinite where that is unknown.
    """
    outputs = _double_outputs if double else moved_outputs
    try:
        here, ahead, behind = (outputs(subject, direction, s) for s in (0.0, step, -step))
    except CheckError:
        return np.nan, np.nan, np.inf
    parts = list(zip(here, ahead, behind, upstream, strict=True))
    before = sum(float(np.sum((o - b) * up)) for o, _, b, up in parts) / step
    after = sum(float(np.sum((a - o) * up)) for o, a, _, up in parts) / step
    bend = sum(float(np.sum(np.abs((a + b - 2 * o) * up))) for o, a, b, up in parts) / step
    return before, after, bend


def output_noise(
    subject: Subject,
    upstream: Sequence[Array],
    direction: Direction,
    *,
    single: bool = False,
    double: bool = False,
) -> float:
    """Return how far rounding inside the forward pass moves Σ upstream · output.

    At the shortest steps nothing else makes one difference quotient unlike the next. What is
    rounded off on the way to the output, as the 1 - y of a saturated y, is a staircase: where a
    step sees nothing, the longer one before it has seen one stair.
    """
    measure = partial(estimates, subject, upstream, direction, single=single, double=double)
    found = [m for m in measure(first=0.1) if not m.is_extrapolated]
    pairs = list(pairwise(found))
    last = [abs(b.value - a.value) * b.step for a, b in pairs[-3:]]
    stairs = [abs(a.value) * a.step for a, b in pairs if a.value and not b.value]
    return max([*last, *stairs], default=0.0)


def by_differences(
    subject: Subject,
    upstream: list[Array],
    seconds: float,
    plain: Sequence[Array] | None = None,
    *,
    double: bool = False,
) -> Reference:
    """Return the gradient by central differences on the caller's own arrays."""
    plain = outputs_now(subject) if plain is None else plain
    single = has_single([*subject.values, *plain])
    units = {k: unit_of(value) for k, value in enumerate(subject.values)}
    noise = output_noise(subject, upstream, units, single=single, double=double)
    measure = partial(estimates, subject, upstream, single=single, double=double, noise=noise)

    def derivative(direction: Direction) -> Measured:
        return best_of(measure(direction))

    reference = _measured("central differences", subject, derivative, single, seconds)
    reference.size, reference.double = size_of(plain, upstream), double
    if double:  # as sharp as what it is compared with
        reference.sharpness = SHARPNESS["autograd", True]
    return reference


def unit_of(value: Array) -> Array:
    """Return the size of each entry, by which a step is measured; zeros have that of the others."""
    sizes = np.abs(value).astype(float)
    return np.maximum(sizes, 1e-2 * largest(sizes) or 1.0)


def _measured(
    kind: str,
    subject: Subject,
    derivative: Callable[[Direction], Measured],
    single: bool,
    seconds: float,
) -> Reference:
    """Return a gradient entry by entry where time allows, else in random directions."""
    sharpness = SHARPNESS[kind, single]
    started = time.monotonic()
    derivative({0: unit_of(subject.values[0])})
    one_call = max(time.monotonic() - started, 1e-6)
    if sum(v.size for v in subject.values) * one_call > seconds:
        rng = np.random.default_rng(0)
        reference = Reference(kind, sharpness, [], single=single)
        for k, value in enumerate(subject.values):
            scale = (largest(value) or 1.0) / np.sqrt(value.size)
            for _ in range(2):
                direction = {k: random_part(value.shape, rng, scale)}
                found = derivative(direction)
                reference.directions.append((direction, found.value))
                reference.noise = max(reference.noise, found.error)
        return reference
    reference = Reference(
        kind, sharpness, [np.zeros(v.shape) for v in subject.values], single=single
    )
    reference.errors = [np.zeros(v.shape) for v in subject.values]
    for k, value in enumerate(subject.values):
        sizes, unit = unit_of(value), np.zeros(value.shape)
        for index in np.ndindex(value.shape):
            unit[index] = sizes[index]
            found = derivative({k: unit})
            reference.grads[k][index] = found.value / sizes[index]
            reference.errors[k][index] = found.error / sizes[index]
            unit[index] = 0.0
    return reference


def random_part(shape: Shape, rng: np.random.Generator, scale: float = 1.0) -> Array:
    """Return random numbers of mean 0 and deviation `scale`, in float32: half of the memory."""
    part = rng.random(shape, dtype=np.float32)
    part -= np.float32(0.5)
    part *= np.float32(scale * np.sqrt(12))
    return part
