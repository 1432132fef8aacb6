"""How an objective moves with its values: by complex steps, and by central differences.

The objective is Σ upstream · output.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import NamedTuple

import numpy as np
from numpy.exceptions import ComplexWarning

from ...validation import Array, Shape
from ..blocks import blocks, inner, largest
from ..guard import CheckError, theirs
from ..subject.subject import Subject

# A direction in which values are moved: a part for each value that moves, by its number.
Direction = dict[int, Array]
Rng = np.random.Generator

SINGLE = (np.float32, np.float16)
_SHORTER, _LEVELS = 4.0, 10  # how much shorter each step is than the one before, and how many
ENOUGH = 1e-10  # the relative error at which an estimate is good enough


class Measured(NamedTuple):
    """A derivative, how far it may be off, its shortest step, and whether it has longer ones."""

    value: float
    error: float
    step: float = 0.0
    is_extrapolated: bool = False


def has_single(arrays: Sequence[object]) -> bool:
    """Tell whether one of some arrays is of single precision, or less."""
    return any(np.asarray(a).dtype in SINGLE for a in arrays)


def outputs_beside(
    subject: Subject, direction: Direction, size: complex, kind: type = float
) -> list[Array]:
    """Run a copy of the forward pass on values of another dtype, moved by a step."""
    with subject.session.fresh(), theirs("the forward pass"):
        moved: list[Array] = [value.astype(kind) for value in subject.values]
        for k, part in direction.items():
            moved[k] = moved[k] + size * part.astype(float)
        return [np.asarray(out) for out in subject.substitute(moved)]


def unit_of(value: Array) -> Array:
    """Return the size of each entry, by which a step is measured; zeros have that of the others."""
    sizes = np.abs(value).astype(float)
    return np.maximum(sizes, 1e-2 * largest(sizes) or 1.0)


def random_part(shape: Shape, rng: Rng, scale: float = 1.0) -> Array:
    """Return random numbers of mean 0 and deviation `scale`, in float32: half of the memory."""
    part = rng.random(shape, dtype=np.float32)
    part -= np.float32(0.5)
    part *= np.float32(scale * np.sqrt(12))
    return part


# -------------------- where to --------------------


def nearby(subject: Subject, rng: Rng, size: float = 1e-4) -> list[Array]:
    """Return the values moved a little, off any kink; marks stay."""
    others = []
    for k, value in enumerate(subject.values):
        shift = rng.uniform(0.5, 1.0, value.shape) * rng.choice([-1.0, 1.0], value.shape)
        moved = value + (size * unit_of(value) * shift).astype(value.dtype)
        others.append(value if k in subject.marks else moved)
    return others


def balanced_direction(
    subject: Subject, grads: list[Array], rng: Rng
) -> tuple[Direction, float, float]:
    """Return a direction in which gradients have like shares, the derivative there, and others."""
    direction, expected, square = {}, 0.0, 0.0
    for k, (value, grad) in enumerate(zip(subject.values, grads, strict=True)):
        norm = float(np.sqrt(inner(grad, grad)))
        scale = (largest(value) or 1.0) / np.sqrt(value.size)
        scale = min(scale, 1 / norm) if norm > 0 else scale
        direction[k] = random_part(value.shape, rng, scale)
        expected += inner(grad, direction[k])
        square += (norm * scale) ** 2
    return direction, expected, float(np.sqrt(square))


# -------------------- along the imaginary axis --------------------


def complex_outputs(subject: Subject, direction: Direction, size: float) -> list[Array]:
    """Run the forward pass on complex numbers; what throws the imaginary part away is an error."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        warnings.simplefilter("error", ComplexWarning)
        return outputs_beside(subject, direction, 1j * size, complex)


def complex_derivative(subject: Subject, direction: Direction) -> Measured:
    """Return the derivative in a direction, by a step along the imaginary axis."""
    step = 1e-30
    outputs = complex_outputs(subject, direction, step)
    parts = (np.sum(np.imag(out) * up) for out, up in zip(outputs, subject.upstream, strict=True))
    return Measured(float(sum(parts)) / step, 0.0)


# -------------------- by differences --------------------


@dataclass(frozen=True)
class Steps:
    """Steps of a subject's values along directions, relative to these, and back."""

    subject: Subject
    single: bool = False  # float32 is somewhere in the forward pass
    double: bool = False  # a copy in float64 is moved, not the caller's own arrays

    def outputs(self, direction: Direction, size: float) -> list[Array]:
        """Return the outputs, in float64, after a step."""
        subject = self.subject
        if self.double:
            return [out.astype(float) for out in outputs_beside(subject, direction, size)]
        try:
            with subject.session.fresh():
                for k, part in direction.items():
                    value = subject.values[k]
                    for rows in blocks(value):
                        step = np.multiply(part[rows], size, dtype=float)
                        value[rows] += step.astype(value.dtype, copy=False)
                return [np.array(out, dtype=float) for out in subject.forward()]
        finally:
            subject.session.restore()

    def _quotient(self, direction: Direction, step: float) -> tuple[float, float]:
        """Return a difference quotient, and how far rounding may have moved it, or swallowed it."""
        ahead, behind = (self.outputs(direction, s) for s in (step, -step))
        eps = float(np.finfo(np.float32 if self.single and not self.double else np.float64).eps)
        value = square = 0.0
        for a, b, up in zip(ahead, behind, self.subject.upstream, strict=True):
            value += float(np.sum(up * (a - b)))
            square += float(np.sum((up * (np.abs(a) + np.abs(b))) ** 2))
        return value / (2 * step), eps * float(np.sqrt(square)) / (2 * step)

    def estimates(
        self, direction: Direction, *, noise: float = 0.0, first: float | None = None
    ) -> Iterator[Measured]:
        """Yield estimates of the derivative in a direction, from ever shorter steps."""
        # Each difference cancels the next error term of those before it (Richardson), and is as
        # good as it agrees with those it is made of, rounding added (Ridders 1982).
        above: list[Measured] = []
        step = first or (0.1 if self.single and not self.double else 1e-3)
        for _ in range(_LEVELS):
            here: list[Measured] = []
            try:
                value, error = self._quotient(direction, step)
                if np.isfinite(value):
                    here = [Measured(value, max(error, noise / step), step)]
            except CheckError:  # outside of the domain
                pass
            yield from here
            for j, coarser in enumerate(above if here else []):
                weight = _SHORTER ** (2 * (j + 1))
                value = (weight * here[j].value - coarser.value) / (weight - 1)
                apart = max(abs(value - here[j].value), abs(value - coarser.value))
                here.append(Measured(value, here[0].error + apart, step, True))
                yield here[-1]
            above, step = here, step / _SHORTER

    def derivative(self, direction: Direction, noise: float = 0.0) -> Measured:
        """Return the best of the estimates of a derivative; take no more than are needed."""
        # A step that leaves the domain, or crosses a kink, is passed over. Where estimates
        # contradict each other, the shorter steps are right: far away a function may be flat.
        best = Measured(np.nan, np.inf)
        for estimate in self.estimates(direction, noise=noise):
            if not estimate.is_extrapolated:
                if best.value and estimate.error > best.error:  # all that it could see is rounding
                    break
                continue
            contradicts = abs(estimate.value - best.value) > 3 * (estimate.error + best.error)
            if estimate.error < best.error or contradicts:
                best = estimate
            if best.value and best.error <= ENOUGH * abs(best.value):
                break
        return best

    def slopes(self, direction: Direction, step: float) -> tuple[float, float, float]:
        """Return the slopes before and after, and by how much they differ, output by output."""
        try:
            here, ahead, behind = (self.outputs(direction, s) for s in (0.0, step, -step))
        except CheckError:
            return np.nan, np.nan, np.inf
        parts = list(zip(here, ahead, behind, self.subject.upstream, strict=True))
        before = sum(float(np.sum((o - b) * up)) for o, _, b, up in parts) / step
        after = sum(float(np.sum((a - o) * up)) for o, a, _, up in parts) / step
        bend = sum(float(np.sum(np.abs((a + b - 2 * o) * up))) for o, a, b, up in parts) / step
        return before, after, bend

    def noise(self, direction: Direction) -> float:
        """Return how far rounding inside the forward pass moves the objective."""
        # At the shortest steps nothing else makes one difference quotient unlike the next. What is
        # rounded off on the way to the output, as the 1 - y of a saturated y, is a staircase: where
        # a step sees nothing, the longer one before it has seen one stair.
        plain = [m for m in self.estimates(direction, first=0.1) if not m.is_extrapolated]
        pairs = list(pairwise(plain))
        last = [abs(b.value - a.value) * b.step for a, b in pairs[-3:]]
        stairs = [abs(a.value) * a.step for a, b in pairs if a.value and not b.value]
        return max([*last, *stairs], default=0.0)

    def witness(
        self,
        direction: Direction,
        expected: float,
        size: float,
        tolerance: float,
        noise: float = 0.0,
    ) -> bool | None:
        """Tell whether a derivative is what differences say: None if another, False if nothing."""
        # Short steps see nothing of what is rounded off in the forward pass: far ones do.
        best = Measured(np.nan, np.inf)
        for first in (1e-3, 0.1):
            for found in self.estimates(direction, noise=noise, first=first):
                if tolerance < 1e-3 and abs(found.value - expected) <= tolerance * size:
                    return True  # which is not by chance
                if found.is_extrapolated and found.error < best.error:
                    best = found
        if best.error > 0.1 * max(size, abs(best.value)):
            return False
        return True if abs(best.value - expected) <= best.error + tolerance * size else None
