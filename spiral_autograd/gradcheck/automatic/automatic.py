"""The reference gradient: autograd; else complex step; else central differences.

A reference is believed only after its own output equals the plain one, and a directional
difference on the caller's own arrays agrees with it. Else the next one is taken.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from functools import partial
from typing import Any

import numpy as np

from ...recording import Call, record
from ...validation import Array
from ..blocks import inner, largest
from ..handwritten.subject import CheckError, Subject
from ..tracing.boxes import NumpyBox
from ..tracing.rebind import rebinding
from .reference import (
    SHARPNESS,
    SINGLE,
    Direction,
    Reference,
    has_single,
    outputs_now,
    plain_of,
    require_equal,
    size_of,
    weighted,
)
from .stepping import by_complex_step, by_differences, difference, random_part, richardson, step_for

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
        outputs[:] = [plain_of(out) for out in found]
        return weighted(found, upstream)

    # The upstream gradient is traced too, so that the graph tells what depends on it.
    stand_in = rebinding(constants=rebind == "constants") if rebind else nullcontext()
    with subject.session.fresh(), warnings.catch_warnings(), stand_in:
        warnings.simplefilter("ignore")
        recording = record(loss, list(subject.values), list(upstream), box_type=NumpyBox)
    plain = outputs_now(subject) if plain is None else plain
    single = any(
        getattr(call.value, "dtype", None) in SINGLE for call in recording.calls
    ) or has_single([*subject.values, *plain])
    require_equal(outputs, plain, single)
    grads = [np.asarray(g.value if isinstance(g, Call) else g) for g in recording.grads]
    sharpness = SHARPNESS["autograd", single]
    size = size_of(plain, upstream)
    return Reference(
        "autograd", sharpness, grads, recording, single=single, size=size, rebound=rebind
    )


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
        except Exception:  # this one cannot be had here
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
    again = outputs_now(subject)
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
