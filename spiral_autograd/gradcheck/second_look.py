"""What is not a match at first sight: rounding, a kink, a small constant, or a mistake."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from ..recording import Call, Recording, name_of
from ..validation import Array
from .automatic import (
    by_autograd,
    by_complex_step,
    by_differences,
    find_reference,
    moved_objective,
    nearby,
    step_for,
)
from .blocks import largest
from .compare import RIGHT, close, compare
from .comparison import Comparison
from .graph import BackwardGraph
from .lines import kink_places
from .moments import forward_line


def second_look(c: Comparison) -> BackwardGraph | None:
    """Tell rounding, kinks and idealised constants from mistakes.

    Returns
    -------
    BackwardGraph or None
        That of the forward pass without its first small constant, where it has one.
    """
    if c.doubtful and c.reference.grads:
        c.floors = rounding(c)
        c.compare()
    for k in find_kinks(c):
        c.change(
            k,
            verdict="match",
            rule="kink",
            why="the forward pass has a kink here (a ReLU at 0, a tie of a max): the gradient is "
            "undefined, and beside the kink the handwritten one is right",
            lines=c.places(kink_places, k),
        )
    if c.graph is not None:
        return _idealised(c, c.graph)
    _idealised_by_steps(c)
    return None


# -------------------- rounding --------------------

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
    if not c.small and all(c.rows[k].max_rel > 1e-2 for k in c.doubtful):
        return list(floors)
    for salt in (1, 2, 3):
        for moved, still in (
            (_handwritten_rounded(c, 4 * eps, salt), c.grads),
            (_reference_rounded(c, eps, salt), c.reference.grads),
        ):
            moves = [_move(a, b) for a, b in zip(moved or still, still, strict=True)]
            floors = np.maximum(floors, 8 * np.array(moves))
    return list(floors)


def _handwritten_rounded(c: Comparison, size: float, salt: int) -> list[Any] | None:
    """Return the handwritten gradients for values that are off by rounding."""
    session, values = c.subject.session, c.subject.values
    try:
        with session.moved(values, [_rounded(v, size, salt) for v in values]), session.fresh():
            return c.backward()
    except Exception:
        return None


def _reference_rounded(c: Comparison, size: float, salt: int) -> list[Any] | None:
    """Return the reference gradients with other rounding errors on the way."""
    session, values = c.subject.session, c.subject.values
    try:
        if c.reference.recording is not None:
            return _replayed(c.reference.recording, size, salt)
        if c.reference.kind == "complex step":
            with session.moved(values, [_rounded(v, 4 * size, salt) for v in values]):
                return by_complex_step(c.subject, c.upstream, 1.0).grads
    except Exception:
        return None
    return None


def _replayed(recording: Recording, size: float, salt: int) -> list[Any]:
    values: dict[Call, Any] = {}
    # What flows back through the max in a softmax is zero but for rounding. A handwritten pass
    # leaves it out; here it would take back the very rounding that is to be seen.
    still = {a for c, a in recording.adjoints.items() if name_of(c.fun) in ("max", "amax")}
    for call in recording.calls:
        if call in still and largest(call.value) <= 1e-6 * largest(call.args[0].value):
            continue
        rounds = name_of(call.fun) in _ROUNDING
        if rounds or any(isinstance(a, Call) and a in values for a in call.args):
            args = [values.get(a, a.value) if isinstance(a, Call) else a for a in call.args]
            value = values[call] = call.fun.fun(*args, **call.kwargs)
            if rounds:
                values[call] = _rounded(value, size, salt)
            if name_of(call.fun) in _BETWEEN_TWO:  # x + 0 and x * 1 are not rounded
                same = (value == args[0]) | (value == args[1])
                values[call] = np.where(same, value, values[call])
    return [values.get(g, g.value) if isinstance(g, Call) else g for g in recording.grads]


def _move(new: Any, old: Any) -> float:
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


# -------------------- kinks --------------------


def find_kinks(c: Comparison) -> list[int]:
    """Return which gradients differ only where none is defined, and are right beside."""
    if not c.reference.grads:
        return []
    bent = [k for k in c.doubtful if _differs_at_kinks(c, k)]
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
    distance = np.abs(h - g)
    scale = max(largest(h), largest(g))
    off = np.flatnonzero(distance > c.reference.sharpness.match * scale + c.floors[k])
    worst = off[np.argsort(-distance.ravel()[off], kind="stable")][:32]
    return len(worst) > 0 and all(
        _is_kink(c, k, np.unravel_index(flat, g.shape), float(distance.ravel()[flat]))
        for flat in worst
    )


def _is_kink(c: Comparison, k: int, index: tuple[np.intp, ...], distance: float) -> bool:
    """Tell whether the slope in one entry jumps, by an amount that matters here.

    Half of the step halves what curvature does to the two slopes, and leaves a jump as it is.
    """
    unit = np.zeros(c.subject.values[k].shape)
    unit[index] = 1.0
    step = step_for(c.reference.single)

    def objective(size: float) -> float:
        return moved_objective(c.subject, c.upstream, {k: unit}, size)

    here = objective(0.0)
    wide, narrow = ((objective(s) + objective(-s) - 2 * here) / s for s in (step, step / 2))
    return abs(wide) > 0.1 * distance and 0.75 < narrow / wide < 1.5


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


# -------------------- a small constant left out --------------------


def _idealised(c: Comparison, graph: BackwardGraph) -> BackwardGraph | None:
    """See whether gradients are those of the forward pass without one of its small constants."""
    first = None
    for call, position, constant in graph.small_constants() if c.wrong or c.doubtful else ():
        ideal = graph.without(call, position)
        if ideal is None:
            continue
        first = first or ideal
        place = forward_line(call)
        for k in list(_agreeing(c, [ideal.gradient(k, {}) for k in range(len(c.grads))])):
            why = _without(constant, c.rows[k].max_rel)
            c.change(k, verdict="idealised", lines=(place,) if place else (), why=why)
    return first


def _idealised_by_steps(c: Comparison) -> None:
    """Do the same without a graph: with forward's code, in which the constant is zero."""
    if c.subject.idealised is None or not c.doubtful:
        return
    for constant, ideal in c.subject.idealised():
        try:
            found = find_reference(ideal, c.upstream, np.random.default_rng(0), 1.0)
        except Exception:
            continue
        for k in list(_agreeing(c, found.grads) if found.grads else ()):
            c.change(k, verdict="idealised", why=_without(constant, c.rows[k].max_rel))


def _agreeing(c: Comparison, others: Sequence[Any]) -> Iterator[int]:
    """Yield the doubtful rows whose handwritten gradient is another one."""
    for k in c.doubtful:
        if c.grads[k] is not None:
            other = others[k]
            if np.isfinite(largest(other)) and close(c.grads[k], other, c.tolerance, c.floors[k]):
                yield k


def _without(constant: float, apart: float) -> str:
    return (
        f"exact for the forward pass without its {constant:g}; with it the true gradient "
        f"differs by up to {apart:.2g} of the largest entry"
    )
