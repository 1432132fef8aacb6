"""A kink, which is no mistake: a ReLU at 0, a tie of a max."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from ...recording import Call, name_of
from ...validation import Array
from ..automatic.automatic import by_autograd, nearby
from ..automatic.stepping import by_complex_step, by_differences, moved_outputs, step_for
from ..blocks import largest
from ..handwritten.subject import CheckError
from ..tracing.graph import BackwardGraph
from .compare import RIGHT, compare
from .comparison import Comparison


def find_kinks(c: Comparison) -> list[int]:
    """Return which gradients differ only where none is defined, and are right beside."""
    if not c.reference.grads:
        return []
    tied = c.graph is not None and has_ties(c.graph)
    bent = [k for k in c.doubtful if tied or _differs_at_kinks(c, k)]
    for size in (1e-4, 1e-3, 1e-2) if bent else ():
        beside = _right_nearby(c, bent, size)
        if len(beside) == len(bent):
            return beside
    return beside if bent else []


def _differs_at_kinks(c: Comparison, k: int) -> bool:
    """Tell whether the slopes from the two sides differ wherever the k-th gradients do."""
    h, g = c.grads[k], np.asarray(c.reference.grads[k])
    if h is None or np.shape(h) != g.shape or not np.isfinite(largest(h)):
        return False
    row = c.rows[k]
    if row.index is not None and not _is_kink(c, k, row.index, row.max_abs):
        return False
    distance = np.abs(h - g)
    scale = max(largest(h), largest(g))
    off = np.flatnonzero(distance > c.reference.sharpness.match * scale + c.floors[k])
    by_size = -distance.ravel()[off]
    worst = off[np.argpartition(by_size, 31)[:32] if off.size > 32 else np.argsort(by_size)]
    return len(worst) > 0 and all(
        _is_kink(c, k, np.unravel_index(flat, g.shape), float(distance.ravel()[flat]))
        for flat in worst
    )


def _is_kink(c: Comparison, k: int, index: tuple[Any, ...], distance: float) -> bool:
    """Tell whether the slope in one entry jumps, by an amount that matters here.

    Half of the step halves what curvature does to the two slopes, and leaves a jump as it is.
    """
    unit = np.zeros(c.subject.values[k].shape)
    unit[index] = 1.0
    step = step_for(c.reference.single)

    def outputs(size: float) -> Array:
        found = moved_outputs(c.subject, {k: unit}, size)
        return np.concatenate([np.ravel(o * u) for o, u in zip(found, c.upstream, strict=True)])

    def bend(size: float) -> float:  # output by output, since the jumps of several may cancel
        return float(np.sum(np.abs(outputs(size) + outputs(-size) - 2 * here))) / size

    try:
        here = outputs(0.0)
        wide = bend(step)
        return wide > 0.1 * distance and 0.75 < bend(step / 2) / wide < 1.5
    except CheckError:
        return False


def _right_nearby(c: Comparison, rows: list[int], size: float) -> list[int]:
    """Return which gradients agree a little off the place, with the reference taken there anew."""
    subject = c.subject
    with subject.session.moved(subject.values, nearby(subject, c.rng, size)):
        try:
            if c.reference.kind == "autograd":
                there = by_autograd(subject, c.upstream, rebind=c.reference.rebound)
            elif c.reference.kind == "complex step":
                there = by_complex_step(subject, c.upstream, 1.0)
            else:
                there = by_differences(subject, c.upstream, 1.0)
            with subject.session.fresh():
                grads = c.backward()
        except Exception:
            return []
    if not there.grads:
        return []
    return [
        k
        for k in rows
        if compare("", grads[k], there.grads[k], there.sharpness, there.noise).verdict in RIGHT
    ]


def has_ties(graph: BackwardGraph) -> bool:
    """Tell whether the forward pass is at a kink: the two sides of a maximum are equal, say."""
    return any(
        bool(_TIES[name_of(call.fun)](call, *map(graph.value, call.args)))
        for call in graph.calls
        if call.gradient_of is None and name_of(call.fun) in _TIES
    )


def _is_reached_twice(call: Call, x: Any, *args: Any) -> bool:
    """Tell whether the largest or smallest entry of an array stands in it more than once."""
    axis = call.kwargs.get("axis", args[0] if args else None)
    best = call.fun.fun(x, axis=axis, keepdims=True)
    return bool(np.any(np.sum(x == best, axis=axis) > 1))


def _are_equal(call: Call, a: Any, b: Any, *_: Any) -> bool:
    return bool(np.any(np.asarray(a) == b))


# When the two slopes of a function differ at the arguments of a call.
_TIES: dict[str, Callable[..., bool]] = {
    **dict.fromkeys(("maximum", "minimum", "fmax", "fmin"), _are_equal),
    **dict.fromkeys(("max", "amax", "min", "amin"), _is_reached_twice),
    **dict.fromkeys(("abs", "absolute", "fabs"), lambda call, x: bool(np.any(x == 0))),
    "clip": lambda call, x, low, high, *_: bool(np.any((x == low) | (x == high))),
}
