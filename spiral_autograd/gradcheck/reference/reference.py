"""The reference gradient: autograd; else complex step; else central differences.

A reference is believed only after its own output equals the plain one, and a directional
difference on the caller's own arrays agrees with it. Else the next one is taken.
"""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable, Sequence
from contextlib import nullcontext, suppress
from dataclasses import dataclass, field, replace
from functools import partial
from types import CodeType
from weakref import WeakKeyDictionary

import autograd.numpy as anp
import numpy as np

from ...recording import Call, Recording, record
from ...validation import Array
from ..blocks import close, largest
from ..guard import CheckError, theirs
from ..subject.session import reach
from ..subject.subject import Subject
from .boxes import NumpyBox
from .special import plain
from .stand_ins import boxed, standing_in
from .stepping import (
    SINGLE,
    Direction,
    Measured,
    Rng,
    Steps,
    balanced_direction,
    complex_derivative,
    complex_outputs,
    has_single,
    nearby,
    outputs_beside,
    random_part,
    unit_of,
)


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
    ("central differences", True): Sharpness(2e-3, 5e-3),
}


@dataclass
class Reference:
    """A reference gradient, and how sharp it is."""

    kind: str  # a key of SHARPNESS
    single: bool  # whether float32 is anywhere in the forward pass
    grads: list[Array]  # for each value of the subject; none where only directions are known
    make: Callable[..., Reference]  # makes it for other values: see at_these_values
    recording: Recording | None = None  # by autograd; its calls only where a graph was asked for
    # Where the arrays are too large for entry by entry: directions, and the derivative in each.
    directions: list[tuple[Direction, float]] = field(default_factory=list)
    noise: float = 0.0  # how far these may be off
    errors: list[Array] = field(default_factory=list)  # how far each measured entry may be off
    double: bool = False  # whether the forward pass ran in float64 on values in float32

    @property
    def sharpness(self) -> Sharpness:
        """Up to where gradients match; in double as sharp as what they are compared with."""
        in_double = self.double and self.kind == "central differences"
        return SHARPNESS["autograd" if in_double else self.kind, self.single]

    @property
    def eps(self) -> float:
        """The rounding of the numbers in the forward and the handwritten backward pass."""
        return float(np.finfo(np.float32 if self.single else np.float64).eps)

    @property
    def eps_of_trace(self) -> float:
        """The rounding of the numbers in the reference's own forward pass."""
        return float(np.finfo(float).eps) if self.double else self.eps

    def recorded(self, subject: Subject) -> Recording | None:
        """Return autograd's passes as a graph with these gradients; None where there is none."""
        # More stays in a box than where no graph is made: what it is written into must hold it.
        ways: list[dict[str, bool]] = [{}, {"rebind": True}]
        for way in ways if self.kind == "autograd" else ():
            with suppress(CheckError):
                made, tolerance = self.make(subject, has_graph=True, **way), self.sharpness.match
                pairs = zip(made.grads, self.grads, strict=True)
                if all(close(ours, theirs, tolerance) for ours, theirs in pairs):
                    return made.recording
        return None

    def steps(self, subject: Subject) -> Steps:
        """Return the steps that differences of this sharpness take."""
        return Steps(subject, self.single, self.double)


def at_these_values(subject: Subject, upstream: list[Array] | None = None) -> Subject:
    """Return a subject with what its forward pass returns for the values as they are now."""
    with subject.session.fresh():
        outputs = [np.array(out) for out in subject.forward()]  # it may write them anew
    upstream = subject.upstream if upstream is None else upstream
    return replace(subject, outputs=outputs, upstream=upstream)


# -------------------- autograd --------------------


def by_autograd(
    subject: Subject, *, rebind: bool = False, double: bool = False, has_graph: bool = False
) -> Reference:
    """Return autograd's gradient of the forward pass, run on boxes in a copy of the objects."""
    # With `rebind` stand-ins for NumPy make arrays that can hold boxes, and those that the objects
    # hold become boxes too. With `double` float32 is given in float64.
    outputs: list[Array] = []

    def objective(values: list[Array], upstream: list[Array]) -> object:
        others = [*values, *map(boxed, constants)]
        found = subject.substitute(others, values=[*subject.values, *constants])
        outputs[:] = [np.asarray(plain(out)) for out in found]
        total = 0.0
        for out, up in zip(found, upstream, strict=True):
            total = total + anp.sum(out * up)
        return total

    # The upstream gradient is traced too, so that the graph tells what depends on it.
    ups = [np.asarray(u, dtype=float) for u in subject.upstream] if double else subject.upstream
    constants = _constants_of(subject) if rebind else []
    stand_in = standing_in(subject.session.start.held) if rebind else nullcontext()
    with subject.session.fresh(), warnings.catch_warnings(), stand_in:
        warnings.simplefilter("ignore")
        values = [v.astype(float) for v in subject.values] if double else list(subject.values)
        with theirs("the traced forward pass"):
            made = record(objective, values, ups, box_type=NumpyBox, has_graph=has_graph)
    has_rounded = not made.dtypes.isdisjoint(map(np.dtype, SINGLE))
    single = has_rounded or has_single([*subject.values, *subject.outputs])
    _require_equal(outputs, subject.outputs, single)
    grads = [np.asarray(g.value if isinstance(g, Call) else g) for g in made.grads]
    if any(g.shape != value.shape for g, value in zip(grads, values, strict=True)):
        raise CheckError("a gradient has not the shape of its value")
    double = double and not has_rounded
    again = partial(by_autograd, rebind=rebind, double=double)
    return Reference("autograd", single, grads, again, made, double=double)


def _constants_of(subject: Subject) -> list[Array]:
    """Return the float arrays that the objects hold beside the values."""
    known = {id(value) for value in subject.values}
    arrays = (item for item in reach(*subject.session.roots) if isinstance(item, np.ndarray))
    return [array for array in arrays if array.dtype.kind == "f" and id(array) not in known]


def _require_equal(traced: Sequence[Array], plain: Sequence[Array], single: bool) -> None:
    """Raise unless a traced forward pass has returned what the plain one does."""
    # In float32, what is small beside 1, as exp(x) - 1, has lost its digits on the way.
    tolerance, least = (1e-5, 4 * float(np.finfo(np.float32).eps)) if single else (1e-12, 0.0)
    if len(traced) != len(plain):
        raise CheckError("the traced forward pass has other outputs")
    for ours, own in zip(traced, plain, strict=True):
        if not close(ours, own, tolerance, least if np.any(own) else tolerance):
            raise CheckError("the traced forward pass gives another output than the plain one")


# -------------------- complex step and differences --------------------


def by_complex_step(subject: Subject, seconds: float = 1.0) -> Reference:
    """Return the gradient by complex steps, where the forward pass carries complex numbers."""
    single = has_single([*subject.values, *subject.outputs])
    outputs = complex_outputs(subject, {}, 0.0)
    if not any(np.iscomplexobj(out) for out in outputs):
        raise CheckError("the forward pass does not carry complex numbers")
    _require_equal([np.real(out) for out in outputs], subject.outputs, single)
    double = runs_in_double(subject)
    reference = Reference("complex step", single, [], by_complex_step, double=double)
    _measure(reference, subject, partial(complex_derivative, subject), seconds)
    return reference


def by_differences(subject: Subject, seconds: float = 1.0, *, double: bool = False) -> Reference:
    """Return the gradient by central differences on the caller's own arrays."""
    single = has_single([*subject.values, *subject.outputs])
    steps = Steps(subject, single, double)
    noise = steps.noise({k: unit_of(value) for k, value in enumerate(subject.values)})
    again = partial(by_differences, double=double)
    reference = Reference("central differences", single, [], again, double=double)
    _measure(reference, subject, partial(steps.derivative, noise=noise), seconds)
    return reference


def _measure(
    reference: Reference,
    subject: Subject,
    derivative: Callable[[Direction], Measured],
    seconds: float,
) -> None:
    """Measure a gradient entry by entry where time allows, else in random directions."""
    started = time.thread_time()  # other processes may be busy too
    derivative({0: unit_of(subject.values[0])})
    one_call = max(time.thread_time() - started, 1e-6)
    if sum(v.size for v in subject.values) * one_call > seconds:
        rng = np.random.default_rng(0)
        for k, value in enumerate(subject.values):
            scale = (largest(value) or 1.0) / np.sqrt(value.size)
            for _ in range(2):
                direction = {k: random_part(value.shape, rng, scale)}
                found = derivative(direction)
                reference.directions.append((direction, found.value))
                reference.noise = max(reference.noise, found.error)
        return
    for k, value in enumerate(subject.values):
        sizes, unit = unit_of(value), np.zeros(value.shape)
        grad, errors = np.zeros(value.shape), np.zeros(value.shape)
        for index in np.ndindex(value.shape):
            unit[index] = sizes[index]
            found = derivative({k: unit})
            grad[index] = found.value / sizes[index]
            errors[index] = found.error / sizes[index]
            unit[index] = 0.0
        reference.grads.append(grad)
        reference.errors.append(errors)


def runs_in_double(subject: Subject) -> bool:
    """Tell whether the forward pass is in float32, and runs as well on values in float64."""
    if not has_single(subject.values):
        return False
    try:
        outputs = outputs_beside(subject, {}, 0.0)
        if any(out.dtype != np.float64 for out in outputs if out.dtype.kind == "f"):
            return False
        _require_equal(outputs, subject.outputs, single=True)
    except CheckError:
        return False
    finally:
        subject.session.restore()
    return True


# -------------------- which one --------------------


# Whether autograd has followed a forward pass, the last time, with stand-ins for NumPy.
_FOLLOWED: WeakKeyDictionary[CodeType, bool] = WeakKeyDictionary()


def find_reference(subject: Subject, rng: Rng, seconds: float) -> Reference:
    """Return the first reference that can be believed; first the way that was for the same code."""
    double = runs_in_double(subject)
    codes = [f.__code__ for f in subject.forward_code[:1] if hasattr(f, "__code__")]
    likely = [_FOLLOWED[code] for code in codes if code in _FOLLOWED]
    tries: list[tuple[bool, Callable[..., Reference]]] = [
        (rebind, partial(by_autograd, rebind=rebind, double=in_float64))
        for in_float64 in ((True, False) if double else (False,))
        for rebind in dict.fromkeys([*likely, False, True])
    ]
    tries.append((False, partial(by_complex_step, seconds=seconds)))
    for rebind, make in tries:
        try:
            reference = make(subject)
        except CheckError:
            continue
        if not all(np.isfinite(np.sum(grad)) for grad in reference.grads):
            continue
        if agrees_with_differences(subject, reference, rng) or _agrees_nearby(subject, make, rng):
            if reference.kind == "autograd":
                _FOLLOWED.update(dict.fromkeys(codes, rebind))
            return reference
    _require_repeatable(subject)
    return by_differences(subject, seconds, double=double)


def _require_repeatable(subject: Subject) -> None:
    """Refuse a forward pass that gives another output from the same state."""
    for before, now in zip(subject.outputs, at_these_values(subject).outputs, strict=True):
        if before.shape != now.shape or not np.array_equal(before, now):
            raise CheckError(
                "the forward pass gives another output at each run, though its objects and "
                "np.random are put back before each: hold its random numbers fixed, for instance "
                "with a Generator as an attribute, which is put back too"
            )


# -------------------- whether to believe it --------------------


def agrees_with_differences(subject: Subject, reference: Reference, rng: Rng) -> bool:
    """Tell whether differences along a random direction agree with a reference, also in float64."""
    if not reference.grads:
        return True
    direction, expected, scale = balanced_direction(subject, reference.grads, rng)
    size = max(abs(expected), 0.2 * scale, 1e-300)
    for double in (False, True) if reference.double else (False,):
        steps = Steps(subject, reference.single, double)
        tolerance = 2e-2 if reference.single and not double else 1e-5
        found = steps.witness(direction, expected, size, tolerance)
        if found is None:
            noise = steps.noise(direction)
            if not noise and reference.double and not double:
                continue  # in float32 the output does not move at all: float64 will tell
            found = steps.witness(direction, expected, size, tolerance, noise)
        if found is None or (reference.kind != "autograd" and not found):
            return False
    return True


def _agrees_nearby(subject: Subject, make: Callable[..., Reference], rng: Rng) -> bool:
    """Tell whether a reference and differences agree beside a kink, where they need not on it."""
    with subject.session.moved(subject.values, nearby(subject, rng)):
        try:
            there = at_these_values(subject)
            return agrees_with_differences(there, make(there), rng)
        except CheckError:
            return False


def gradients_of(subject: Subject) -> list[Array]:
    """Return the gradients of a subject by the first way to have them that works; none if none."""
    try:
        return find_reference(subject, np.random.default_rng(0), 1.0).grads
    except CheckError:
        return []
