"""Called again, and called on other inputs: what a backward pass leaves behind."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import cache, partial
from itertools import pairwise
from types import FunctionType, MethodType
from typing import Any, NamedTuple

import numpy as np

from ...recording import is_installed
from ...validation import Array
from ..blocks import close, largest
from ..finding import Finding, found, together
from ..guard import CheckError, theirs
from ..subject.conventions import BACKWARD, FORWARD, GRADIENT_LISTS
from ..subject.objects import accepts, attributes_of, positional_names
from ..subject.parameters import find_parameters
from ..subject.session import Session
from ..subject.subject import MISSING, Subject, checksums, copied, differs, is_array
from .rows import Comparison, Gradients

AGAIN = 5  # runs from one state that must give the same

Given = Callable[[], AbstractContextManager[None]]  # `with given():` sets something for a while


class Calls(NamedTuple):
    """How the gradients of later calls differ, if they do, and why there can be no later call."""

    changes: Mapping[int, str] = {}  # kinds of findings, by the number of the gradient
    error: str = ""


def call_again(subject: Subject) -> Calls:
    """Return how the gradients of later calls differ from those of the first."""
    session = subject.session
    same, far, near = _inputs(subject)
    if not subject.backward_code:  # a finished gradient
        return Calls()
    unsteady = _unsteady(subject, subject.first.arrays) if _makes_sets(session) else set()
    if unsteady:
        return Calls(dict.fromkeys(unsteady, "unsteady"))
    # What adds up, changes from call to call or is left from other inputs shows on other inputs.
    if session.stands_after_first_call:
        after = _run(subject, nullcontext, far, far, keep=checksums).kept
    else:
        after = _run(subject, session.fresh, same, far, far, keep=checksums).kept[1:]
    if len(after) == 2 and after == 2 * _run(subject, session.unused, far, keep=checksums).kept:
        return Calls()
    run = _run(subject, session.fresh, same, same, same)
    hows = _changing(*run.kept) if run.kept else {}
    if hows:  # else the object has a state
        is_same = _gives_the_same(subject, (session.fresh, same), (session.fresh, same, same, same))
        return Calls(hows if is_same else {})
    # farther ones may leave the domain
    others = next((g for g in (far, near) if _run(subject, session.unused, last=g).outputs), None)
    stale = set() if others is None else _stale(subject, same, others)
    return Calls(dict.fromkeys(stale, "grows" if run.has_grown else "stale"), run.error)


def _changing(first: list[Any], *rest: list[Any]) -> dict[int, str]:
    """Return how gradients change from call to call, of those that do."""
    changed = set().union(*(_changed(first, later) for later in rest))
    if changed:
        changed |= {k for k, g in enumerate(first) if _is_double(rest[0][k], g)}
    return {k: _how(first[k], [grads[k] for grads in rest]) for k in sorted(changed)}


def _unsteady(subject: Subject, first: Gradients) -> set[int]:
    """Return which gradients are others in another run from the same state, as sets make them."""
    runs = (_run(subject, subject.session.fresh, nullcontext).kept for _ in range(AGAIN))
    return set().union(*(_changed(first, grads) for kept in runs for grads in kept))


def _makes_sets(session: Session) -> bool:
    """Tell whether somebody's own code calls `set`, whose order is another one in each run."""
    functions = (item for item in session.start.items if isinstance(item, FunctionType))
    codes = (f.__code__ for f in functions if not is_installed(f.__code__.co_filename))
    return any("set" in code.co_names for code in codes)


def _stale(subject: Subject, same: Given, others: Given) -> set[int]:
    """Return which gradients for other inputs depend on an earlier call, though no output does."""
    fresh, unused = subject.session.fresh, subject.session.unused
    there = _run(subject, fresh, same, others).kept[1:]
    alone = _run(subject, unused, others).kept
    stale = _changed(alone[0], there[0]) if alone and there else set()
    is_same = stale and _gives_the_same(subject, (unused, others), (fresh, same, others))
    return stale if is_same else set()


class Run(NamedTuple):
    """What passes on some inputs, one after another, have given."""

    kept: list[Any]  # of the gradients of each
    lengths: list[list[int]]  # of the lists of gradients that the layer keeps, after each
    outputs: list[Array]  # of a last forward pass
    error: str = ""  # what the next one has raised

    @property
    def has_grown(self) -> bool:
        """Whether such a list is longer after a later pass than after the one before."""
        pairs = (zip(*pair, strict=True) for pair in pairwise(self.lengths))
        return any(0 <= before < now for pair in pairs for before, now in pair)


def _run(
    subject: Subject,
    start: Given,
    *given: Given,
    last: Given | None = None,
    keep: Callable[[Gradients], Any] = lambda grads: list(map(copied, grads)),
) -> Run:
    """Run both passes on some inputs, one after another, and forward alone on the `last` ones."""
    run = Run([], [], [])
    with start():
        try:
            for inputs in given:
                subject.session.same_random()
                with inputs():
                    run.kept.append(keep(_gradients(subject)))
                run.lengths.append(_lengths(subject.owner))
            if last is not None:
                subject.session.same_random()
                with last():
                    run.outputs.extend(map(np.array, subject.forward()))
        except CheckError as error:
            cause = error.__cause__
            text = str(error) if cause is None else f"{type(cause).__name__}: {cause}"
            return run._replace(error=text)
    return run


def _gives_the_same(subject: Subject, one: Sequence[Given], other: Sequence[Given]) -> bool:
    """Tell whether the last of some forward passes gives the same output, after those before it."""
    ours, others = (_run(subject, *before, last=last).outputs for *before, last in (one, other))
    return not ours or not others or not differs(ours, others, 1e-12)


def _lengths(layer: object) -> list[int]:
    """Return the lengths of the lists of gradients that a layer keeps."""
    attributes = {} if layer is None else attributes_of(layer)
    lists = map(attributes.get, GRADIENT_LISTS)
    return [len(held) if isinstance(held, list) else -1 for held in lists]


def _gradients(subject: Subject) -> Gradients:
    if not subject.has_cache:
        subject.forward()  # what a gradient function reads may be the loss's to leave
    return subject.backward([np.array(u) for u in subject.upstream])


def first_gradients(subject: Subject) -> Gradients:
    """Return the gradients of a first call, made again where a later call wrote into them."""
    if subject.first.are_whole():
        return subject.first.arrays
    with subject.session.fresh():
        return [copied(g) for g in _gradients(subject)]


def unused_upstream(subject: Subject, first: Gradients) -> list[Finding]:
    """Return what to say of a loss whose backward pass takes an upstream gradient for nothing."""
    if subject.owner is None or subject.takes_upstream or not accepts(subject.backward_code[0], 1):
        return []
    (name,) = positional_names(subject.backward_code[0], 1)
    if name[:1] != "d" and not any(word in name for word in ("grad", "upstream")):
        return []
    try:
        with subject.session.fresh():
            doubled = subject.backward([2 * u for u in subject.upstream])
    except CheckError:
        return []
    pairs = [(a, b) for a, b in zip(first, doubled, strict=True) if is_array(a)]
    ignored = any(np.any(a) and np.array_equal(a, b) for a, b in pairs)
    return [found("upstream_unused", name=name)] if ignored else []


# -------------------- the same, or another --------------------


def _changed(before: Gradients, now: Gradients) -> set[int]:
    """Return which gradients are others now."""
    numeric = [np.asarray(a) for a in before if _is_numeric(a)]
    noise = 1e-12 * max(map(largest, numeric), default=0.0)
    return {
        k
        for k, (a, b) in enumerate(zip(before, now, strict=False))
        if _is_numeric(a) and np.shape(a) == np.shape(b) and not np.array_equal(a, b)
        if np.isfinite(largest(a)) and not close(a, b, _same(a), noise)
    }


def _is_double(later: Array, first: Array) -> bool:
    """Tell whether a gradient has doubled, however small it is beside the others."""
    if not _is_numeric(first) or not np.any(first) or np.shape(later) != np.shape(first):
        return False
    return close(later, 2 * np.asarray(first), _same(first))


def _same(grad: object) -> float:
    """Return up to which share of the largest entry two calls count as equal."""
    return 1e-9 if np.asarray(grad).itemsize > 4 else 1e-4


def _is_numeric(grad: object) -> bool:
    return np.asarray(grad).dtype.kind == "f"


# -------------------- other inputs --------------------


def _inputs(subject: Subject) -> list[Given]:
    """Return what gives a forward pass copies of its inputs, others, and nearer others."""
    # Of each as it was before a forward pass wrote into it.
    own = [subject.session.start.kept(v, v) for v in subject.inputs]

    def given(change: Callable[[Array], Array]) -> Given:
        changed = cache(lambda: [change(v) if is_array(v) else v for v in own])
        return lambda: subject.given([v.copy() if is_array(v) else v for v in changed()])

    return [given(lambda v: v), given(_other), given(partial(_other, nearer=True))]


def _other(value: Array, nearer: bool = False) -> Array:
    """Return other numbers, or labels in another order."""
    if value.dtype.kind in "iu" and value.ndim > 0:
        there, at = np.unique(np.roll(value, 1, axis=0), return_inverse=True)
        used = max(len(there) - 1, 2)  # one is used no more: a table may keep its gradient
        return there[at.reshape(value.shape) % used % len(there)]
    if value.dtype.kind != "f":
        return value
    other = value if nearer else -1.1 * value if value.size == 1 else _mixed(value)
    if np.array_equal(other, value):
        other = value + 0.1 * (1 + np.abs(value))
    return np.asarray(other, dtype=value.dtype)


def _mixed(value: Array) -> Array:
    """Return an array mixed from two orders of its rows and columns, in which no entry stays."""
    # New entries stay between the old: positive ones positive, rows of probabilities such rows.
    stream = np.random.default_rng(0)
    first = second = value
    for axis, n in enumerate(value.shape):
        first, second = (np.take(a, _cycle(n, stream), axis) for a in (first, second))
    return 0.9 * first + 0.1 * second


def _cycle(n: int, stream: np.random.Generator) -> Array:
    """Return a random order in which nothing keeps its place."""
    places = stream.permutation(n)
    order = np.empty(n, dtype=int)
    order[places[1:]], order[places[:1]] = places[:-1], places[-1:]
    return order


# -------------------- what is said of it --------------------


def judge(c: Comparison, calls: Calls) -> None:
    """Write into the rows what changes from call to call."""
    said = _without_sums(c, calls.changes)
    if calls.error:
        c.notes.append(found("no_other_call", error=calls.error))
    for what in dict.fromkeys(said.values()):
        rows = [k for k in c.rows if said.get(k) == what]
        for k in rows:
            before = c.rows[k].findings if c.rows[k].rule is None else ()
            lines = c.rows[k].lines if before else ()
            c.change(k, verdict="wrong", findings=together(before, found(what)), lines=lines)
        names = [c.rows[k].name for k in rows]
        c.failures += [found("gradients", names=names, what=found(what))] if rows else []


def _without_sums(c: Comparison, said: Mapping[int, str]) -> Mapping[int, str]:
    """Return how the gradients change; that all of them add up is a note, and no mistake."""
    adding = [k for k, what in said.items() if what == "accumulates"]
    reset = _reset_by_effect(c.subject) if adding else None
    if not adding or (reset is None and not _all_add(c, adding)):
        return said
    names = [c.subject.names[k] for k in adding]
    c.notes.append(found("accumulating", names=names, reset=reset))
    return {k: what for k, what in said.items() if what != "accumulates"}


def _how(first: Array, later: Sequence[Array]) -> str:
    """Return the kind of change: added up, or at which call."""
    if all(close(g, n * np.asarray(first), _same(first)) for n, g in enumerate(later, start=2)):
        return "accumulates"
    return "second_call" if _changed([first], [*later[:1]]) else "third_call"


def _all_add(c: Comparison, adding: Sequence[int]) -> bool:
    """Tell whether the gradients of all parameters add up from zero, and no others."""
    parameters = range(c.subject.n_inputs, len(c.grads))
    return set(adding) == {k for k in parameters if _is_numeric(c.grads[k]) and np.any(c.grads[k])}


def _reset_by_effect(subject: Subject) -> str | None:
    """Return the method of a layer, if any, after which the gradients that it keeps are zero."""
    owner = subject.owner
    names = [n for n in dir(type(owner)) if n[0] != "_" and n not in (*FORWARD, *BACKWARD)]
    methods = {name: getattr(owner, name, None) for name in names}
    for name, method in methods.items():
        if not isinstance(method, MethodType) or not accepts(method, 0):
            continue
        try:
            with subject.session.fresh():
                _gradients(subject)
                with theirs(f"the method {name}"):
                    method()
                left = [p.gradient() for p in find_parameters(owner)]
                if left and all(g is None or g is MISSING or not np.any(g) for g in left):
                    return name
        except CheckError:  # it is for something else
            continue
        finally:
            subject.session.restore()
    return None
