"""Called again, and called on other inputs: what a backward pass leaves behind."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ..validation import Array
from .blocks import largest
from .compare import close
from .comparison import Comparison, join
from .handwritten import CheckError, Subject, checksums, copied
from .lines import state_places


@dataclass
class Calls:
    """How the handwritten gradients of later calls differ.

    Attributes
    ----------
    second : dict
        From number to gradient: those that a second call gives otherwise.
    elsewhere : dict
        From number to gradient: those for other inputs that depend on an earlier call.
    """

    second: dict[int, Array] = field(default_factory=dict)
    elsewhere: dict[int, Array] = field(default_factory=dict)


def call_again(subject: Subject) -> Calls:
    """Return how the gradients of later calls differ; the first call must have been the last one.

    A stale cache shows only on other inputs: there the gradients after a first call are held
    against those of the object as it was found. What adds up, or changes from call to call, shows
    there too.
    """
    session, runner = subject.session, runner_of(subject)
    if subject.owner is None:
        return Calls()
    session.same_random()
    with _others(runner.inputs):
        after = checksums(_tried(subject))
    with session.unused(), _others(runner.inputs):
        without = checksums(_tried(subject))
    return _look_closer(subject, runner.inputs) if not after or after != without else Calls()


def _look_closer(subject: Subject, inputs: list[Any]) -> Calls:
    """Tell what changes at a second call from what depends on an earlier one, and from a state."""
    session = subject.session
    with session.fresh():
        first = [copied(g) for g in _gradients(subject)]
        session.same_random()
        second = _changed(first, _gradients(subject))
    if second:
        return Calls(second=second if _same_output_again(subject) else {})
    with session.fresh():
        _gradients(subject)
        session.same_random()
        with _others(inputs):
            after = [copied(g) for g in _tried(subject)]
    with session.unused(), _others(inputs):
        elsewhere = _changed(_tried(subject), after)
    same = bool(elsewhere) and _same_output_elsewhere(subject, inputs)
    return Calls(elsewhere=elsewhere if same else {})


def first_gradients(subject: Subject) -> list[Any]:
    """Return the gradients of a first call, made again where a later call wrote into them."""
    if subject.first.are_whole():
        return subject.first.arrays
    with subject.session.fresh():
        return [copied(g) for g in _gradients(subject)]


def runner_of(subject: Subject) -> Any:
    """Return what runs the user's code: a Layer or a Pair; None of a gradient function."""
    runner = getattr(subject.backward, "__self__", None)
    return runner if hasattr(runner, "run_backward") else None


def _gradients(subject: Subject) -> list[Any]:
    return subject.backward([np.array(u) for u in subject.upstream])


def _tried(subject: Subject) -> list[Any]:
    try:
        return _gradients(subject)
    except CheckError:  # the other inputs are not fit for it
        return []


def _changed(before: Sequence[Any], now: Sequence[Any]) -> dict[int, Array]:
    """Return the gradients that are others now."""
    arrays = {
        k: (np.asarray(a), np.asarray(b))
        for k, (a, b) in enumerate(zip(before, now, strict=False))
        if isinstance(a, np.ndarray) and a.dtype.kind == "f" and np.shape(a) == np.shape(b)
        if not np.array_equal(a, b)
    }
    if not arrays:
        return {}
    noise = 1e-12 * max(largest(a) for a in before if isinstance(a, np.ndarray))
    return {
        k: np.array(b)
        for k, (a, b) in arrays.items()
        if np.isfinite(largest(a)) and not close(a, b, 1e-9 if a.itemsize > 4 else 1e-4, noise)
    }


def _same_output_again(subject: Subject) -> bool:
    """Tell whether a second forward pass gives the same output: else the object has a state."""
    with subject.session.fresh():
        first = [np.array(out) for out in subject.forward()]
    with subject.session.fresh():
        _gradients(subject)
        subject.session.same_random()
        return _equal(first, subject.forward())


def _same_output_elsewhere(subject: Subject, inputs: list[Any]) -> bool:
    with subject.session.unused(), _others(inputs):
        without = [np.array(out) for out in subject.forward()]
    with subject.session.fresh():
        _gradients(subject)
        subject.session.same_random()
        with _others(inputs):
            return _equal(without, subject.forward())


def _equal(ours: Sequence[Any], theirs: Sequence[Any]) -> bool:
    return all(close(a, b, 1e-12) for a, b in zip(ours, theirs, strict=True))


@contextmanager
def _others(inputs: list[Any]) -> Iterator[None]:
    """Exchange the inputs for others of the same shapes; labels and indices change places."""
    here = list(inputs)
    inputs[:] = [_other(value) for value in here]
    try:
        yield
    finally:
        inputs[:] = here


def _other(value: Any) -> Any:
    if not isinstance(value, np.ndarray) or value.ndim == 0:
        return value
    if value.dtype.kind in "iu":
        return np.roll(value, 1, axis=0)
    if value.dtype.kind == "f":
        return value + (0.1 * (1 + np.abs(value))).astype(value.dtype)
    return value


# -------------------- what is said of it --------------------

_STATES = {
    "accumulates": "accumulates: a second call adds to the gradient of the first, and the layer "
    "offers no reset (zero_grad or the like); write it anew in each backward pass",
    "second call": "changes at the second call, though the forward pass gives the same output",
    "stale": "depends on an earlier call: a cache is left from a forward pass on other inputs",
}


def judge(c: Comparison, calls: Calls) -> None:
    """Write into the rows what changes from call to call."""
    said = {k: _how(c.grads[k], second) for k, second in calls.second.items()}
    said |= dict.fromkeys(calls.elsewhere, "stale")
    for k, what in said.items():
        if k not in c.rows:
            continue
        row = c.rows[k]
        why = join(row.why if row.rule is None else "", _STATES[what])
        c.change(k, verdict="wrong", rule="state", why=why)
        c.failures.append(f"the gradient of {row.name} {_STATES[what]}")
    for k, what in said.items():
        if k in c.rows:
            c.change(k, lines=c.places(state_places, k, what))


def _how(first: Array, second: Array) -> str:
    multiples = (2.0 * first, 3.0 * first)
    return "accumulates" if any(close(second, m, 1e-9) for m in multiples) else "second call"
