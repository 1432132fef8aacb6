"""Called again, and called on other inputs: what a backward pass leaves behind."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from types import MethodType
from typing import Any

import numpy as np

from ...validation import Array
from ..blocks import close, largest
from ..code.lines import state_places
from ..handwritten.conventions import BACKWARD, FORWARD, GRADIENT_LISTS, accepts, positional_names
from ..handwritten.parameters import attributes_of, find_parameters
from ..handwritten.subject import MISSING, CheckError, Subject, checksums, copied, is_array
from .comparison import Comparison, join


@dataclass
class Calls:
    """How the handwritten gradients of later calls differ.

    Attributes
    ----------
    second : dict
        From number to gradient: those that a second call gives otherwise.
    elsewhere : dict
        From number to gradient: those for other inputs that depend on an earlier call.
    grown : list of str
        The lists of gradients that become longer at each call.
    """

    second: dict[int, Array] = field(default_factory=dict)
    elsewhere: dict[int, Array] = field(default_factory=dict)
    grown: list[str] = field(default_factory=list)


def call_again(subject: Subject) -> Calls:
    """Return how the gradients of later calls differ; the first call must have been the last one.

    A stale cache shows only on other inputs: there the gradients after a first call are held
    against those of the object as it was found. What adds up, or changes from call to call, shows
    there too.
    """
    session, runner = subject.session, runner_of(subject)
    if subject.owner is None:
        return Calls()
    inputs = Inputs(runner.inputs)
    session.same_random()
    with inputs.others():
        after = checksums(_tried(subject))
    with session.unused(), inputs.others():
        without = checksums(_tried(subject))
    return _look_closer(subject, inputs) if not after or after != without else Calls()


def _look_closer(subject: Subject, inputs: Inputs) -> Calls:
    """Tell what changes at a second call from what depends on an earlier one, and from a state."""
    session = subject.session
    with session.fresh():
        first = [copied(g) for g in _gradients(subject)]
        before = _lengths(subject.owner)
        session.same_random()
        second = _changed(first, _gradients(subject))
        now = _lengths(subject.owner)
        grown = [name for name in before if now.get(name, 0) > before[name]]
    if second:
        return Calls(second=second if _same_output_again(subject) else {}, grown=grown)
    with session.unused():
        if not inputs.are_in_domain(subject):
            return Calls()
    with session.fresh():
        _gradients(subject)
        session.same_random()
        with inputs.others():
            after = [copied(g) for g in _tried(subject)]
    with session.unused(), inputs.others():
        elsewhere = _changed(_tried(subject), after)
    same = bool(elsewhere) and _same_output_elsewhere(subject, inputs)
    return Calls(elsewhere=elsewhere if same else {}, grown=grown)


def unused_upstream(subject: Subject, first: Sequence[Any]) -> list[str]:
    """Return what to say of a loss whose backward pass takes an upstream gradient for nothing."""
    runner = runner_of(subject)
    if subject.owner is None or subject.takes_upstream or not accepts(runner.backward_method, 1):
        return []
    (name,) = positional_names(runner.backward_method, 1)
    if name[:1] != "d" and not any(word in name for word in ("grad", "upstream")):
        return []
    try:
        with subject.session.fresh():
            doubled = subject.backward([2 * u for u in subject.upstream])
    except CheckError:
        return []
    pairs = [(a, b) for a, b in zip(first, doubled, strict=True) if is_array(a)]
    ignored = any(np.any(a) and np.array_equal(a, b) for a, b in pairs)
    what = f"backward takes {name}, and does not use it: it is right for {name} = 1 only"
    return [what] if ignored else []


def _lengths(layer: Any) -> dict[str, int]:
    """Return the lengths of the lists of gradients that a layer keeps."""
    lists = [(name, attributes_of(layer).get(name)) for name in GRADIENT_LISTS]
    return {name: len(held) for name, held in lists if isinstance(held, list)}


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
        if _is_numeric(a) and np.shape(a) == np.shape(b) and not np.array_equal(a, b)
    }
    if not arrays:
        return {}
    noise = 1e-12 * max(largest(np.asarray(a)) for a in before if _is_numeric(a))
    return {
        k: np.array(b)
        for k, (a, b) in arrays.items()
        if np.isfinite(largest(a)) and not close(a, b, 1e-9 if a.itemsize > 4 else 1e-4, noise)
    }


def _is_numeric(grad: Any) -> bool:
    return grad is not None and grad is not MISSING and np.asarray(grad).dtype.kind == "f"


def _same_output_again(subject: Subject) -> bool:
    """Tell whether a second forward pass gives the same output: else the object has a state."""
    with subject.session.fresh():
        first = [np.array(out) for out in subject.forward()]
    with subject.session.fresh():
        _gradients(subject)
        subject.session.same_random()
        return _equal(first, subject.forward())


def _same_output_elsewhere(subject: Subject, inputs: Inputs) -> bool:
    with subject.session.unused(), inputs.others():
        without = [np.array(out) for out in subject.forward()]
    with subject.session.fresh():
        _gradients(subject)
        subject.session.same_random()
        with inputs.others():
            return _equal(without, subject.forward())


def _equal(ours: Sequence[Any], theirs: Sequence[Any]) -> bool:
    return all(close(a, b, 1e-12) for a, b in zip(ours, theirs, strict=True))


# -------------------- other inputs --------------------


@dataclass
class Inputs:
    """The inputs of a forward pass, which can be exchanged for others of the same shapes.

    Attributes
    ----------
    own : list
    nearer : bool
        Whether the others must be close to these, since farther ones leave the domain.
    """

    own: list[Any]
    nearer: bool = False

    @contextmanager
    def others(self) -> Iterator[None]:
        """Exchange the inputs for a while; labels and indices change places."""
        here = list(self.own)
        self.own[:] = [_other(value, self.nearer) for value in here]
        try:
            yield
        finally:
            self.own[:] = here

    def are_in_domain(self, subject: Subject) -> bool:
        """Tell whether the forward pass takes the others; if need be, take nearer ones."""
        for nearer in (False, True):
            self.nearer = nearer
            with suppress(CheckError), self.others():
                subject.forward()
                return True
        return False


def _other(value: Any, nearer: bool) -> Any:
    if not isinstance(value, np.ndarray):
        return value
    if value.dtype.kind in "iu" and value.ndim > 0:
        return np.roll(value, 1, axis=0)
    if value.dtype.kind != "f":
        return value
    other = value if nearer else -1.1 * value if value.size == 1 else _mixed(value)
    if np.array_equal(other, value):
        other = value + 0.1 * (1 + np.abs(value))
    return np.asarray(other, dtype=value.dtype)


def _mixed(value: Array) -> Array:
    """Return an array in whose rows and columns all entries have changed places.

    Signs and the places of the largest entries change. Mixed from two orders, the entries are new
    ones and stay between the old: positive ones positive, rows of probabilities such rows.
    """
    stream = np.random.default_rng(0)
    first = second = value
    for axis, n in enumerate(value.shape):
        first, second = (np.take(a, _cycle(n, stream), axis) for a in (first, second))
    return 0.9 * first + 0.1 * second


def _cycle(n: int, stream: np.random.Generator) -> Array:
    """Return a random order in which nothing keeps its place."""
    places = stream.permutation(n)
    order = np.empty(n, dtype=int)
    order[places] = np.roll(places, 1)
    return order


# -------------------- what is said of it --------------------

_STATES = {
    "accumulates": "accumulates: a second call adds to the gradient of the first, and the layer "
    "offers no reset (zero_grad or the like); write it anew in each backward pass",
    "second call": "changes at the second call, though the forward pass gives the same output",
    "grows": "stays that of the first call: each backward pass appends to a list of gradients, "
    "which grows, and the layer offers no reset; begin a new list in each backward pass",
    "stale": "depends on an earlier call: a cache is left from a forward pass on other inputs",
}


def judge(c: Comparison, calls: Calls) -> None:
    """Write into the rows what changes from call to call."""
    said = {k: _how(c.grads[k], second) for k, second in calls.second.items()}
    said |= dict.fromkeys(calls.elsewhere, "grows" if calls.grown else "stale")
    reset = reset_by_effect(c.subject) if "accumulates" in said.values() else None
    if reset is not None:
        said = {k: what for k, what in said.items() if what != "accumulates"}
        c.notes.append(f"the gradients add up from call to call, until {reset}() is called")
    for k, what in said.items():
        if k not in c.rows:
            continue
        row = c.rows[k]
        why = join(row.why if row.rule is None else "", _STATES[what])
        c.change(k, verdict="wrong", rule="state", why=why)
        c.failures.append(f"the gradient of {row.name} {_STATES[what]}")
    for k, what in said.items():
        if k in c.rows:
            adds = what in ("accumulates", "grows")
            c.change(k, lines=c.places(state_places, k, "accumulates" if adds else what))


def reset_by_effect(subject: Subject) -> str | None:
    """Return the method of a layer, if any, after which the gradients that it keeps are zero."""
    owner = subject.owner
    names = [n for n in dir(type(owner)) if n[0] != "_" and n not in (*FORWARD, *BACKWARD)]
    for name in names:
        method = getattr(owner, name, None)
        if not isinstance(method, MethodType) or not accepts(method, 0):
            continue
        try:
            with subject.session.fresh():
                _gradients(subject)
                method()
                left = [p.gradient() for p in find_parameters(owner)]
                if left and all(g is None or g is MISSING or not np.any(g) for g in left):
                    return name
        except Exception:  # it is for something else
            continue
        finally:
            subject.session.restore()
    return None


def _how(first: Array, second: Array) -> str:
    multiples = (2.0 * first, 3.0 * first)
    return "accumulates" if any(close(second, m, 1e-9) for m in multiples) else "second call"
