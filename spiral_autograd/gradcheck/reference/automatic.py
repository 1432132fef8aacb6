"""The reference gradient: autograd; else complex step; else central differences.

A reference is believed only after its own output equals the plain one, and a directional
difference on the caller's own arrays agrees with it. Else the next one is taken.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from functools import partial
from typing import Any

import numpy as np

from ...recording import Call, Recording, record
from ...validation import Array
from ..blocks import inner, largest
from ..guard import CheckError, theirs
from ..reference.boxes import NumpyBox
from ..reference.rebind import standing_in
from ..subject.subject import Subject
from .reference import (
    SHARPNESS,
    SINGLE,
    Direction,
    Reference,
    UntrustedError,
    has_single,
    in_double,
    outputs_now,
    plain_of,
    require_equal,
    runs_in_double,
    size_of,
    weighted,
)
from .stepping import (
    Measured,
    by_complex_step,
    by_differences,
    estimates,
    output_noise,
    random_part,
    unit_of,
)

# -------------------- autograd --------------------


def by_autograd(
    subject: Subject,
    upstream: Sequence[Array],
    plain: Sequence[Array] | None = None,
    *,
    rebind: str | None = None,
    double: bool = False,
) -> Reference:
    """Return autograd's gradient of the forward pass, run on boxes in a copy of the objects.

    `plain` is what the forward pass returns without boxes, where that is known already. With
    `rebind`, the forward pass runs with a stand-in for NumPy whose new arrays can hold boxes; with
    "constants", those that its objects hold become boxes too. With `double`, values in float32 are
    given in float64.
    """
    outputs: list[Any] = []

    def loss(values: list[Any], upstream: list[Any]) -> Any:
        found = subject.substitute(values)
        outputs[:] = [plain_of(out) for out in found]
        return weighted(found, upstream)

    # The upstream gradient is traced too, so that the graph tells what depends on it.
    ups = [np.asarray(up, dtype=float) for up in upstream] if double else list(upstream)
    roots, constants = subject.session.roots, rebind == "constants"
    stand_in = standing_in(*roots, constants=constants) if rebind else nullcontext()
    with subject.session.fresh(), warnings.catch_warnings(), stand_in:
        warnings.simplefilter("ignore")
        values = in_double(subject) if double else list(subject.values)
        recording = _recorded(loss, values, ups)
    plain = outputs_now(subject) if plain is None else plain
    has_rounded = any(getattr(call.value, "dtype", None) in SINGLE for call in recording.calls)
    single = has_rounded or has_single([*subject.values, *plain])
    require_equal(outputs, plain, single)
    grads = [np.asarray(g.value if isinstance(g, Call) else g) for g in recording.grads]
    if any(g.shape != value.shape for g, value in zip(grads, values, strict=True)):
        raise UntrustedError("a gradient has not the shape of its value")
    return Reference(
        "autograd",
        SHARPNESS["autograd", single],
        grads,
        recording,
        single=single,
        size=size_of(plain, upstream),
        rebound=rebind,
        double=double and not has_rounded,
    )


def _recorded(loss: Callable[..., Any], values: list[Array], upstream: list[Array]) -> Recording:
    """Record other people's code, which may raise anything when it runs on boxes."""
    with theirs("the traced forward pass"):
        return record(loss, values, upstream, box_type=NumpyBox)


def once_more(
    subject: Subject, upstream: Sequence[Array], reference: Reference, seconds: float = 1.0
) -> Reference:
    """Return the reference of the same kind for the values as they are now."""
    if reference.kind == "autograd":
        return by_autograd(subject, upstream, rebind=reference.rebound, double=reference.double)
    if reference.kind == "complex step":
        return by_complex_step(subject, list(upstream), seconds)
    return by_differences(subject, list(upstream), seconds, double=reference.double)


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
        scale = (largest(value) or 1.0) / np.sqrt(value.size)
        scale = min(scale, 1 / norm) if norm > 0 else scale
        direction[k] = random_part(value.shape, rng, scale)
        expected += inner(grad, direction[k])
        square += (norm * scale) ** 2
    return direction, expected, float(np.sqrt(square))


def agrees_with_differences(
    subject: Subject, upstream: list[Array], reference: Reference, rng: np.random.Generator
) -> bool:
    """Tell whether differences along a random direction agree with a reference.

    What is in float32 is measured in float64 too, where the reference is in float64.
    """
    if not reference.grads:
        return True
    direction, expected, scale = balanced_direction(subject, reference.grads, rng)
    size = max(abs(expected), 0.2 * scale, 1e-300)
    for double in (False, True) if reference.double else (False,):
        single = reference.single and not double
        measure = partial(estimates, subject, upstream, direction, single=single, double=double)
        tolerance = 2e-2 if single else 1e-5
        found = _witnessed(measure, expected, size, tolerance)
        if found is None:
            noise = output_noise(subject, upstream, direction, single=single, double=double)
            found = _witnessed(partial(measure, noise=noise), expected, size, tolerance)
        if found is None or (reference.kind != "autograd" and not found):
            return False
    return True


def _witnessed(
    measure: Callable[..., Iterator[Measured]], expected: float, size: float, tolerance: float
) -> bool | None:
    """Tell whether a derivative is what differences say; False where they say nothing, else None.

    They say nothing where no step stays inside the domain, or rounding is all that they see. Short
    steps see nothing of what is rounded off in the forward pass: far ones do.
    """
    best = Measured(np.nan, np.inf)
    for first in (1e-3, 0.1):
        for found in measure(first=first):
            if tolerance < 1e-3 and abs(found.value - expected) <= tolerance * size:
                return True  # which is not by chance
            if found.is_extrapolated and found.error < best.error:
                best = found
    if best.error > 0.1 * max(size, abs(best.value)):
        return False
    return True if abs(best.value - expected) <= best.error + tolerance * size else None


def find_reference(
    subject: Subject,
    upstream: list[Array],
    rng: np.random.Generator,
    seconds: float,
    plain: Sequence[Array] | None = None,
) -> Reference:
    """Return the first reference that can be believed."""
    plain = outputs_now(subject) if plain is None else plain
    double = runs_in_double(subject, plain)
    sharp: list[Callable[..., Reference]] = [
        partial(by_autograd, rebind=rebind, double=in_float64)
        for in_float64 in ((True, False) if double else (False,))
        for rebind in (None, "arrays", "constants")
    ]
    sharp.append(partial(by_complex_step, seconds=seconds))
    for make in sharp:
        try:
            reference = make(subject, upstream, plain=plain)
        except CheckError:
            continue
        if not all(np.isfinite(np.sum(grad)) for grad in reference.grads):
            continue
        if agrees_with_differences(subject, upstream, reference, rng):
            return reference
        if _agrees_nearby(subject, upstream, make, rng):
            return reference
    _require_repeatable(subject, plain)
    return by_differences(subject, upstream, seconds, plain, double=double)


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
    for k, value in enumerate(subject.values):
        scale = size * unit_of(value)
        shift = rng.uniform(0.5, 1.0, value.shape) * rng.choice([-1.0, 1.0], value.shape)
        is_still = k in subject.marks
        others.append(value if is_still else value + (scale * shift).astype(value.dtype))
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
        except CheckError:
            return False
