"""How far rounding alone moves a gradient."""

from __future__ import annotations

from typing import Any

import numpy as np

from ...recording import Call, name_of
from ...validation import Array
from ..automatic.stepping import by_complex_step
from ..blocks import largest
from ..handwritten.state import reach
from ..tracing.graph import BackwardGraph, Make, again
from .comparison import Comparison
from .second_call import runner_of

# The primitives that round. What only chooses or moves its arguments does not, and must not be
# moved itself: the largest entry has to stay one of the entries.
_ROUNDING = frozenset(
    "add subtract multiply divide true_divide power square sqrt reciprocal exp exp2 expm1 log log2 "
    "log10 log1p tanh sinh cosh sin cos tan arctan sum mean var std prod cumsum dot matmul inner "
    "outer tensordot einsum norm logaddexp dot_adjoint_0 dot_adjoint_1 matmul_adjoint_0 "
    "matmul_adjoint_1 tensordot_adjoint_0 tensordot_adjoint_1".split()
)

_BETWEEN_TWO = frozenset("add subtract multiply divide true_divide".split())


def rounding(c: Comparison) -> list[float]:
    """Return how far rounding alone moves each gradient: all that there is where the true is 0.

    Both passes run again with each rounding error drawn anew. A gradient that is a small
    difference of large terms then moves by as much as it may be off.
    """
    eps = float(np.finfo(np.float32 if c.reference.single else np.float64).eps)
    floors = np.array([c.reference.noise] * len(c.grads))
    if c.graph is not None and c.small:
        floors = np.maximum(floors, 32 * eps * np.array(contributions(c.graph)))
    if not c.small and all(c.rows[k].max_rel > 1e-2 for k in c.doubtful):
        return list(floors)
    for salt in (1, 2, 3):
        for moved, still in (
            (_handwritten_rounded(c, 4 * eps, salt), c.grads),
            (_reference_rounded(c, eps, salt), c.reference.grads),
        ):
            moves = [moved_by(a, b) for a, b in zip(moved or still, still, strict=True)]
            floors = np.maximum(floors, 8 * np.array(moves))
    return list(floors)


def _handwritten_rounded(c: Comparison, size: float, salt: int) -> list[Any] | None:
    """Return the handwritten gradients for values that are off by rounding, and caches so too."""
    session, values, runner = c.subject.session, c.subject.values, runner_of(c.subject)
    try:
        with session.moved(values, [_rounded(v, size, salt) for v in values]), session.fresh():
            if runner is None:
                return c.backward()
            run_backward = runner.run_backward

            def with_rounded_cache(ups: list[Array], *cache: Any) -> Any:
                for array in reach(cache or runner.layer):
                    is_float = isinstance(array, np.ndarray) and array.dtype.kind == "f"
                    if is_float and array.flags.writeable and session.start.kept(array) is None:
                        array[...] = _rounded(array, size, salt)
                return run_backward(ups, *cache)

            vars(runner)["run_backward"] = with_rounded_cache
            try:
                return c.backward()
            finally:
                del vars(runner)["run_backward"]
    except Exception:
        return None


def _reference_rounded(c: Comparison, size: float, salt: int) -> list[Any] | None:
    """Return the reference gradients with other rounding errors on the way."""
    session, values = c.subject.session, c.subject.values
    try:
        if c.graph is not None:
            return replayed(c.graph, size, salt)
        if c.reference.kind == "complex step":
            with session.moved(values, [_rounded(v, 4 * size, salt) for v in values]):
                return by_complex_step(c.subject, c.upstream, 1.0).grads
    except Exception:
        return None
    return None


def replayed(
    graph: BackwardGraph, size: float, salt: int, without: tuple[Call, int] | None = None
) -> list[Any]:
    """Return the gradients of a graph in which each result is off by one rounding error.

    `without` is the argument of a call, a constant, that is zero in this graph.
    """
    values: dict[Call, Any] = {}
    recording = graph.recording

    def get(arg: Any) -> Any:
        return values[arg] if isinstance(arg, Call) and arg in values else graph.value(arg)

    # What flows back through the max in a softmax is zero but for rounding. A handwritten pass
    # leaves it out; here it would take back the very rounding that is to be seen.
    still = {a for c, a in recording.adjoints.items() if name_of(c.fun) in ("max", "amax")}
    for call in recording.calls:
        if call in still and largest(get(call)) <= 1e-6 * largest(get(call.args[0])):
            continue
        rounds = name_of(call.fun) in _ROUNDING
        if rounds or any(isinstance(arg, Call) and arg in values for arg in call.args):
            args = [get(arg) for arg in call.args]
            if without is not None and call is without[0]:
                args[without[1]] = np.zeros_like(args[without[1]])[()]
            value = values[call] = call.fun.fun(*args, **call.kwargs)
            if rounds:
                values[call] = _rounded(value, size, salt)
            if name_of(call.fun) in _BETWEEN_TWO:  # x + 0 and x * 1 are not rounded
                same = (value == args[0]) | (value == args[1])
                values[call] = np.where(same, value, values[call])
    return [get(grad) for grad in recording.grads]


def moved_by(new: Any, old: Any) -> float:
    """Return the largest difference; 0 where there is none to speak of."""
    new, old = np.asarray(new), np.asarray(old)
    if new.dtype.kind != "f" or old.dtype.kind != "f" or new.shape != old.shape:
        return 0.0
    move = largest(new - old)
    # Nothing is told by a rounding that changes everything: a branch went the other way.
    return move if np.isfinite(move) and move <= 1e-3 * max(1.0, largest(old)) else 0.0


def _rounded(value: Array, size: float, salt: int) -> Array:
    """Return an array off by one rounding error: the same one for equal entries, so ties stay."""
    value = np.asarray(value)
    if value.dtype.kind != "f":
        return value
    bits = np.abs(value).astype(float).view(np.uint64)
    signs = (bits * np.uint64(0x9E3779B97F4A7C15 * (2 * salt + 1) & (1 << 64) - 1)) >> np.uint64(63)
    return (value * (1 + size * (2.0 * signs - 1))).astype(value.dtype)


def _absolute(value: Any) -> Any:
    """Return the absolute value of numbers; other arguments of a call as they are."""
    return np.abs(value) if isinstance(value, float | np.ndarray) else value


_ADDING: dict[str, Make] = {
    "subtract": lambda call, get: np.add(*map(get, call.args)),
    "negative": lambda call, get: get(call.args[0]),
}


def contributions(graph: BackwardGraph) -> list[float]:
    """Return the largest sum of the absolute terms that each gradient is added up from.

    A gradient that is small because large terms cancel is rounded as the terms are.
    """
    sums: dict[Call, Any] = {}

    def get(arg: Any) -> Any:
        return sums[arg] if isinstance(arg, Call) and arg in sums else _absolute(graph.value(arg))

    for call in graph.calls:
        if call.gradient_of is not None and graph.carries(call):
            try:
                sums[call] = _absolute(_ADDING.get(name_of(call.fun), again)(call, get))
            except Exception:
                sums[call] = _absolute(graph.value(call))
    return [float(np.max(get(grad), initial=0.0)) for grad in graph.recording.grads]
