"""What is rounding and what is a mistake: a mistake repeats at moved values, rounding does not."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ...recording import Call, name_of
from ...validation import Array
from ..blocks import across, largest, moved
from ..reference.automatic import once_more
from ..reference.backward_graph import BackwardGraph
from ..reference.stepping import unit_of
from ..subject.session import reach
from ..subject.subject import CheckError
from .comparison import Comparison
from .guards import Guard

POINTS = 8
FACTOR = 30.0  # a tail of Student's t with seven degrees of freedom: one in 10^8 lies beyond
LONG = 5_000  # calls of a graph from which on half of the points must do


def rounding(c: Comparison) -> list[Any]:
    """Return how far rounding alone moves each entry of each gradient.

    Handwritten minus reference is taken anew at values that differ from the given ones in their
    last bits. What a mistake makes of it stays; what rounding makes of it is drawn anew.
    """
    if c.reference.kind == "central differences":
        return _around_differences(c, _least(c))
    clear = _clear_mistakes(c)
    if clear >= set(c.doubtful):
        return [8 * c.reference.eps * largest(g) for g in c.reference.grads]
    least = _least(c)
    is_long = c.graph is None or len(c.graph.calls) > LONG
    points = range(1, (POINTS // 2 if is_long else POINTS) + 1)
    found = [d for d in (_differences_at(c, salt) for salt in points) if d is not None]
    if len(found) < 2:
        return least
    return [
        floor if k in clear else np.maximum(floor, FACTOR * _scatter([d[k] for d in found], floor))
        for k, floor in enumerate(least)
    ]


def _clear_mistakes(c: Comparison) -> set[int]:
    """Return which gradients are off by much, and by just the same at moved values.

    There the caches are what the forward pass makes of the moved values: a saturated one is as it
    was, and a rounding of it that has not happened excuses nothing.
    """
    clear = set(c.doubtful)
    for salt in (1, 2):
        there = _differences_at(c, salt, rounded_cache=False) if clear else None
        if there is None:
            return set()
        clear = {k for k in clear if _repeats(c, k, there[k])}
        if not c.small or (c.graph is not None and len(c.graph.calls) > LONG):
            break
    return clear


def _around_differences(c: Comparison, least: list[Any]) -> list[Any]:
    """Return the same where the reference is measured: how far it may be off is known."""
    found = [h for h in (_handwritten(c, c.upstream, salt) for salt in (1, 2, 3, 4)) if h]
    moves = [[_difference(h[k], g) for h in found] for k, g in enumerate(c.reference.grads)]
    return [
        np.maximum(floor, FACTOR * _scatter(moves[k], floor)) if len(found) > 1 else floor
        for k, floor in enumerate(least)
    ]


def _size_of_moves(c: Comparison) -> float:
    return 32 * c.reference.eps if c.reference.single else 1e-11


def _differences_at(c: Comparison, salt: int, *, rounded_cache: bool = True) -> list[Any] | None:
    """Return handwritten minus reference at moved values, for a moved upstream gradient."""
    subject, size = c.subject, _size_of_moves(c)
    subject.session.restore()
    values = [moved(v, size, salt) for v in subject.values]
    ups = c.upstream if subject.is_loss else [moved(u, size, salt + 20) for u in c.upstream]
    try:
        with subject.session.moved(subject.values, values):
            hand = _handwritten(c, ups, salt) if rounded_cache else _plainly(c, ups)
            if c.graph is None:
                grads = once_more(subject, ups, c.reference).grads
        if c.graph is not None:  # with its own roundings drawn anew
            eps = float(np.finfo(float).eps) if c.reference.double else c.reference.eps
            eps = eps if rounded_cache else 0.0
            start = {
                **dict(zip(c.graph.roots, values, strict=True)),
                **dict(zip(c.graph.upstream, ups, strict=True)),
            }
            grads = replayed(c.graph, eps, salt, start)
    except CheckError:
        return None
    if hand is None or not grads:
        return None
    return [_difference(h, g) for h, g in zip(hand, grads, strict=True)]


def _plainly(c: Comparison, ups: list[Array]) -> list[Any] | None:
    """Return the handwritten gradients."""
    try:
        with c.subject.session.fresh():
            return c.backward(ups)
    except CheckError:
        return None


def _handwritten(c: Comparison, ups: list[Array], salt: int) -> list[Any] | None:
    """Return the handwritten gradients, with what the forward pass left rounded once more."""
    session, values = c.subject.session, c.subject.values
    size = 4 * c.reference.eps  # enough for each number to become another

    def rounded(kept: Any) -> None:
        for array in reach(kept):
            is_float = isinstance(array, np.ndarray) and array.dtype.kind == "f"
            if is_float and array.flags.writeable and session.start.kept(array) is None:
                array[...] = moved(array, size, salt)

    session.restore()  # the arrays are now at the values that they are to be moved from
    try:
        with session.moved(values, [moved(v, size, salt + 40) for v in values]), session.fresh():
            return c.backward(ups, rounded)
    except CheckError:
        return None


def _difference(h: Any, g: Any) -> Any:
    h = np.asarray(h)
    return h.astype(float) - g if h.dtype.kind in "fiub" and h.shape == np.shape(g) else None


def _scatter(there: list[Any], otherwise: Any) -> Any:
    """Return the deviation of each entry over the points, or that of its row or column."""
    if any(d is None for d in there):
        return np.zeros_like(otherwise)
    known = np.ma.masked_invalid(np.array(there))
    return across(np.ma.filled(np.std(known, axis=0, ddof=1), 0.0))


def _repeats(c: Comparison, k: int, there: Any) -> bool:
    """Tell whether what is furthest off is off by just the same there, and by much.

    Two roundings may be the same by chance: what hardly moves the objective is looked at longer.
    """
    row = c.rows[k]
    if row.index is None or there is None:
        return True  # of another shape
    here = float(row.handwritten[row.index]) - float(row.automatic[row.index])
    moves = abs(here) * unit_of(c.subject.values[k])[row.index]
    is_clear = moves > 1e3 * c.reference.eps * c.reference.size
    return bool(is_clear and abs(there[row.index] - here) < 1e-3 * abs(here))


# -------------------- a recording with its roundings drawn anew --------------------

# The primitives that round. What only chooses or moves its arguments does not, and must not be
# moved itself: the largest entry has to stay one of the entries.
_ROUNDING = frozenset(
    "add subtract multiply divide true_divide power square sqrt reciprocal exp exp2 expm1 log log2 "
    "log10 log1p tanh sinh cosh sin cos tan arctan sum mean var std prod cumsum dot matmul inner "
    "outer tensordot einsum norm logaddexp dot_adjoint_0 dot_adjoint_1 matmul_adjoint_0 "
    "matmul_adjoint_1 tensordot_adjoint_0 tensordot_adjoint_1".split()
)

_BETWEEN_TWO = frozenset("add subtract multiply divide true_divide".split())


def replayed(
    graph: BackwardGraph,
    size: float,
    salt: int,
    start: Mapping[Call, Array] | None = None,
    without: Sequence[Guard] = (),
) -> list[Any]:
    """Return the gradients of a graph in which each result is off by one rounding error.

    Parameters
    ----------
    graph : BackwardGraph
    size : float
        That of the rounding error.
    salt : int
        Another one gives other errors.
    start : dict, optional
        Values for the roots to begin with.
    without : sequence
        The arguments of calls, constants, that are zero in this graph.
    """
    values: dict[Call, Any] = dict(start or {})
    recording = graph.recording

    def get(arg: Any) -> Any:
        return values[arg] if isinstance(arg, Call) and arg in values else graph.value(arg)

    # What flows back through the max in a softmax is zero but for rounding. A handwritten pass
    # leaves it out; here it would take back the very rounding that is to be seen.
    for call in recording.calls:
        if call in graph.still:
            continue
        rounds = size > 0 and name_of(call.fun) in _ROUNDING
        if rounds or any(isinstance(arg, Call) and arg in values for arg in call.args):
            args = [get(arg) for arg in call.args]
            for zero in (position for of, position, _ in without if of is call):
                args[zero] = np.zeros_like(args[zero])[()]
            value = values[call] = call.fun.fun(*args, **call.kwargs)
            if rounds:
                values[call] = moved(value, size, salt)
            if rounds and name_of(call.fun) in _BETWEEN_TWO and all(map(_is_numeric, args)):
                # x + 0 and x * 1 are not rounded
                same = (value == args[0]) | (value == args[1])
                values[call] = np.where(same, value, values[call])
    return [get(grad) for grad in recording.grads]


# -------------------- the least that rounding does --------------------


def _least(c: Comparison) -> list[Any]:
    """Return what the last sum of each gradient is rounded by, and what the reference may be off.

    Any sum is rounded as its terms are, and the array of a gradient as its largest entry: a
    saturated function has no digits where its gradient vanishes. Where there is no cache to round
    once more, what could not move the last bit of the output is no difference either.
    """
    eps, single = c.reference.eps, c.reference.single
    has_cache = c.subject.has_cache
    terms = _last_terms(c.graph) if c.graph is not None else c.reference.grads
    errors: list[Any] = list(c.reference.errors) or [0.0] * len(terms)
    base = (2 if single and has_cache else 8) * eps
    smallest = _UNDERFLOW["float32" if single else c.reference.kind]
    unseen = 0.0 if has_cache else 1e-3 * eps * c.reference.size
    return [
        8 * eps * np.abs(t) + base * largest(g) + 3 * error + smallest + unseen / unit_of(value)
        for t, g, error, value in zip(
            terms, c.reference.grads, errors, c.subject.values, strict=True
        )
    ]


# Below this, products on the way may have been zero; complex functions are not sharp there.
_UNDERFLOW = {
    "float32": 1e-30,
    "autograd": 1e-290,
    "complex step": 1e-60,
    "central differences": 1e-290,
}


def _last_terms(graph: BackwardGraph) -> list[Any]:
    """Return, for each entry, the sum of the absolute terms of the last sum that made it."""
    recording = graph.recording
    needed = [g for g in recording.grads if isinstance(g, Call)]
    seen = set(needed)
    for call in needed:  # and what it adds up
        if name_of(call.fun) in _PASSED:
            more = [a for a in call.args if isinstance(a, Call) and a not in seen]
            seen.update(more)
            needed.extend(more)
    sums: dict[Any, Any] = {}

    def get(arg: Any, adds: bool) -> Any:
        return (
            sums[arg]
            if adds and isinstance(arg, Call) and arg in sums
            else _absolute(graph.value(arg))
        )

    for call in (call for call in recording.calls if call in seen):
        name = name_of(call.fun)
        if name in _PASSED or name in _PRODUCTS:
            fun = np.add if name == "subtract" else call.fun.fun
            sums[call] = np.abs(fun(*(get(a, name in _PASSED) for a in call.args), **call.kwargs))
    return [get(grad, True) for grad in recording.grads]


def _is_numeric(value: Any) -> bool:
    return isinstance(value, float | int | np.ndarray | np.generic)


def _absolute(value: Any) -> Any:
    """Return the absolute value of numbers; other arguments of a call as they are."""
    return np.abs(value) if isinstance(value, float | np.ndarray | np.floating) else value


_PASSED = frozenset("add subtract negative sum reshape transpose squeeze swapaxes moveaxis".split())
_PRODUCTS = frozenset(
    "dot matmul inner tensordot einsum dot_adjoint_0 dot_adjoint_1 matmul_adjoint_0 "
    "matmul_adjoint_1 tensordot_adjoint_0 tensordot_adjoint_1".split()
)
