"""Called again, and called on other inputs: what a backward pass leaves behind."""

from __future__ import annotations

import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from types import FunctionType, MethodType
from typing import Any

import numpy as np

from ..pytree import leaves
from ..validation import Array
from .blocks import largest
from .compare import close
from .comparison import Comparison, copied, join
from .handwritten import CheckError, Subject
from .lines import state_places
from .parameters import find_parameters
from .state import Session, reach


@dataclass
class Calls:
    """The handwritten gradients of several calls.

    Attributes
    ----------
    first : list
        Those that are checked: arrays, None or MISSING.
    second : dict
        From number to gradient: those that a second call gives otherwise.
    elsewhere : dict
        From number to gradient: those for other inputs that depend on an earlier call.
    notes : list of str
        What the first call wrote into.
    """

    first: list[Any]
    second: dict[int, Array] = field(default_factory=dict)
    elsewhere: dict[int, Array] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)


def call_again(subject: Subject, upstream: list[Array]) -> Calls:
    """Return the handwritten gradients, and how those of later calls differ.

    A stale cache shows only on other inputs: there the gradients after a first call are held
    against those of the object as it was found. What adds up, or changes from call to call, shows
    there too.
    """
    session, runner = subject.session, runner_of(subject)
    with session.fresh():
        with watched(subject, runner) as notes:
            first = _gradients(subject, upstream)
        if subject.owner is None:
            return Calls([copied(g) for g in first], notes=notes)
        calls = Calls([_own(session, g) for g in first], notes=notes)
        checksums = _checksums(calls.first)
        session.same_random()
        with _others(runner.inputs):
            after = _checksums(_tried(subject, upstream))
    if _checksums(calls.first) != checksums:  # the later call wrote into the same arrays
        with session.fresh():
            calls.first = [copied(g) for g in _gradients(subject, upstream)]
    with session.unused(), _others(runner.inputs):
        without = _checksums(_tried(subject, upstream))
    if not after or after != without:
        _look_closer(calls, subject, upstream, runner.inputs)
    return calls


def _look_closer(calls: Calls, subject: Subject, upstream: list[Array], inputs: list[Any]) -> None:
    """Tell what changes at a second call from what depends on an earlier one, and from a state."""
    session = subject.session
    with session.fresh():
        _gradients(subject, upstream)
        session.same_random()
        second = _changed(calls.first, _gradients(subject, upstream))
    if second:
        calls.second = second if _same_output_again(subject, upstream) else {}
        return
    with session.fresh():
        _gradients(subject, upstream)
        session.same_random()
        with _others(inputs):
            after = [copied(g) for g in _tried(subject, upstream)]
    with session.unused(), _others(inputs):
        elsewhere = _changed(_tried(subject, upstream), after)
    if elsewhere and _same_output_elsewhere(subject, upstream, inputs):
        calls.elsewhere = elsewhere


def runner_of(subject: Subject) -> Any:
    """Return what runs the user's code: a Layer or a Pair; None of a gradient function."""
    runner = getattr(subject.backward, "__self__", None)
    return runner if hasattr(runner, "run_backward") else None


def _gradients(subject: Subject, upstream: list[Array]) -> list[Any]:
    return subject.backward([np.array(u) for u in upstream])


def _tried(subject: Subject, upstream: list[Array]) -> list[Any]:
    try:
        return _gradients(subject, upstream)
    except CheckError:  # the other inputs are not fit for it
        return []


def _own(session: Session, grad: Any) -> Any:
    """Return a gradient that restoring leaves alone: a copy only where it would not."""
    return copied(grad) if isinstance(grad, np.ndarray) and session.covers(grad) else grad


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


def _same_output_again(subject: Subject, upstream: list[Array]) -> bool:
    """Tell whether a second forward pass gives the same output: else the object has a state."""
    with subject.session.fresh():
        first = [np.array(out) for out in subject.forward()]
    with subject.session.fresh():
        _gradients(subject, upstream)
        subject.session.same_random()
        return _equal(first, subject.forward())


def _same_output_elsewhere(subject: Subject, upstream: list[Array], inputs: list[Any]) -> bool:
    with subject.session.unused(), _others(inputs):
        without = [np.array(out) for out in subject.forward()]
    with subject.session.fresh():
        _gradients(subject, upstream)
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
    said = {k: _how(calls.first[k], second) for k, second in calls.second.items()}
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


# -------------------- side effects --------------------


@contextmanager
def watched(subject: Subject, runner: Any) -> Iterator[list[str]]:
    """Note what one call of both passes writes into, and should not.

    Between the two, what forward has made is marked: its arrays that backward finds again.
    """
    notes: list[str] = []
    if runner is None:
        yield notes
        return
    run_backward = runner.run_backward

    def look(ups: list[Array], *cache: Any) -> Any:
        kept = cache[0] if cache else runner.layer
        by_forward = _written(subject)
        made = [
            (array, _checksum(array), bool(array.any()))
            for array in reach(kept)
            if isinstance(array, np.ndarray) and array.dtype != object
            if not _is_as_before(subject.session.start.kept(array), array)
        ]
        given = [np.array(u) for u in ups]
        result = run_backward(ups, *cache)
        if any(not np.array_equal(a, b) for a, b in zip(given, ups, strict=True)):
            notes.append("backward writes into its upstream gradient")
        gradients = [] if cache else _gradient_arrays(kept)
        for array, checksum, is_filled in made:
            if _checksum(array) == checksum or _shares(array, gradients):
                continue
            if is_filled or not _shares(array, leaves(result)):
                notes.append("backward writes into its cache")
                break
        by_backward = [name for name in _written(subject) if name not in by_forward]
        notes.extend(f"forward writes into {name}" for name in by_forward)
        notes.extend(f"backward writes into {name}" for name in by_backward)
        return result

    vars(runner)["run_backward"] = look
    try:
        yield notes
    finally:
        del vars(runner)["run_backward"]


def _gradient_arrays(layer: Any) -> list[Any]:
    """Return the gradients that a layer holds, and those of the layers that it has made inside."""
    kinds = (FunctionType, MethodType)
    holders = [i for i in reach(layer) if hasattr(i, "__dict__") and not isinstance(i, kinds)]
    return [p.gradient() for item in holders for p in find_parameters(item)]


def _written(subject: Subject) -> list[str]:
    """Return the names of the values whose content is not that at the start."""
    start = subject.session.start
    return [
        name
        for name, value in zip(subject.names, subject.values, strict=True)
        if not _is_as_before(start.kept(value), value)
    ]


def _is_as_before(before: Array | None, array: Array) -> bool:
    return before is not None and np.array_equal(before, array)


def _checksums(grads: Sequence[Any]) -> list[int]:
    return [_checksum(g) if isinstance(g, np.ndarray) else 0 for g in grads]


def _checksum(array: Array) -> int:
    """Return a number that another content changes; for large arrays at little cost."""
    flat = np.ascontiguousarray(array.T if array.flags.f_contiguous else array).reshape(-1)
    if flat.nbytes < 8 * len(_WEIGHTS) or flat.nbytes % 8:
        return zlib.crc32(flat.data)
    words, total = flat.view(np.uint64), 0
    for start in range(0, len(words), len(_WEIGHTS)):
        part = words[start : start + len(_WEIGHTS)]
        total = 31 * total + int(np.dot(part, _WEIGHTS[: len(part)]))
    return total % (1 << 61)


# Odd, so that no bit is lost modulo 2**64.
_WEIGHTS = np.random.default_rng(0).integers(1 << 62, size=1 << 14, dtype=np.uint64) * 2 + 1


def _shares(array: Array, others: Sequence[Any]) -> bool:
    return any(isinstance(o, np.ndarray) and np.may_share_memory(array, o) for o in others)
