"""What is not a match at first sight: rounding, a kink, a small constant, or a mistake.

A mistake repeats at moved values, rounding does not.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Any

import numpy as np

from ...recording import Call, name_of
from ...validation import Array
from ..blocks import across, differing, largest, moved
from ..finding import Finding, found
from ..guard import CheckError
from ..primitives import primitive
from ..reference.graph import Graph
from ..reference.reference import Reference, at_these_values
from ..reference.stepping import unit_of
from ..subject.session import reach
from ..subject.subject import Subject
from .excuses import find_idealised, find_kinks
from .rows import RIGHT, Comparison, Floor, Gradients, Tolerances

AMPLIFIED = 1e6  # how many rounding errors of the output one of a gradient may matter as
Apart = list[Array | None]  # handwritten minus true gradients; None where the shapes differ
POINTS = 8
FACTOR = 30.0  # a tail of Student's t with seven degrees of freedom: one in 10^8 lies beyond
LONG = 5_000  # calls of a graph from which on half of the points must do


def compared(
    subject: Subject, reference: Reference, grads: Gradients, tolerances: Tolerances
) -> tuple[Comparison, Graph | None]:
    """Return the rows, mistakes told from the rest, and the graph without a small constant."""
    c = Comparison(subject, reference, grads, tolerances)
    ideal = _look_again(c) if len(c.right) < len(c.rows) else None
    if reference.errors:
        _say_imprecise(c)
    if tolerances.given:
        _accept(c)
    return c, ideal


def _say_imprecise(c: Comparison) -> None:
    """Say where measured gradients excuse far more than a match is off by."""
    for k, row in c.rows.items():
        if row.verdict == "match" and not row.findings and row.max_rel > 100 * c.tolerance:
            said = found("imprecise", reference=c.reference.kind, apart=row.max_rel)
            c.change(k, verdict="approximate", findings=(said,))


def _look_again(c: Comparison) -> Graph | None:
    if c.doubtful and c.reference.grads:
        doubtful = c.doubtful
        c.noise = rounding(c)
        c.compare()
        for k in doubtful:
            if c.rows[k].verdict in RIGHT and _is_amplified(c, k):
                c.change(k, verdict="approximate", findings=(found("amplified"),))
    for k, excused in find_kinks(c).items():
        c.noise[k] = np.where(excused, np.inf, c.noise[k])
        row = c.compared(k)
        if row.verdict in RIGHT:
            row = replace(row, verdict="match", findings=(found("kink"),))
        c.rows[k] = row
    ideal = find_idealised(c)
    for k in c.doubtful:
        if c.rows[k].verdict == "approximate" and not c.rows[k].findings:
            c.change(k, findings=(found("approximate", match=c.reference.sharpness.match),))
    return ideal


def _accept(c: Comparison) -> None:
    """Draw the border of what is wrong where the caller has it; a match stays a match."""
    for k, row in c.rows.items():
        is_off = any(what.kind == "approximate" for what in row.findings)
        if not (is_off or row.verdict == "wrong") or row.both is None:
            continue
        beyond_rounding = differing(*row.both, c.reference.sharpness.match, c.noise[k])
        if np.all(c.tolerances.allows(*row.both) | ~beyond_rounding):
            said = found("accepted", text=c.tolerances.given, apart=row.max_rel)
            c.change(k, verdict="accepted", findings=(said,))
        elif is_off:
            c.change(k, verdict="wrong", findings=(not_accepted(c),))


def not_accepted(c: Comparison) -> Finding:
    """Return what is said of a gradient that is off by so little that only the caller minds."""
    return found("not_accepted", text=c.tolerances.given)


def _is_amplified(c: Comparison, k: int) -> bool:
    """Tell whether rounding excuses what it cannot be told from."""
    both, sharp = c.rows[k].both, c.reference.sharpness
    if both is None:
        return False
    noise = np.broadcast_to(c.noise[k], both[1].shape)
    excused = differing(*both, sharp.match, 0.0)
    excused &= differing(noise, 0 * noise, 100 * sharp.approximate, 0)
    moves = noise * unit_of(c.subject.values[k])
    return bool(np.any(excused & (moves > AMPLIFIED * c.reference.eps * c.size)))


def ask_differences(c: Comparison) -> None:
    """Ask central differences about the wrong rows; what they side with is right, or said."""
    asked = {k: _side_of_differences(c, k) for k in c.wrong if c.reference.grads}
    for k in (k for k, side in asked.items() if side == "handwritten"):
        said = found("differences_disagree", reference=c.reference.kind)
        c.change(k, verdict="approximate", findings=(said,))
    names = [c.rows[k].name for k, side in asked.items() if side == "reference"]
    if names and c.reference.kind != "central differences":
        c.notes.append(found("differences_agree", reference=c.reference.kind, names=names))


def _side_of_differences(c: Comparison, k: int) -> str:
    """Return with which gradient differences side, along that in which the two differ most."""
    if (both := c.rows[k].both) is None:
        return ""
    h, g = both
    direction = h - g
    norm = float(np.linalg.norm(direction.ravel()))
    if norm == 0 or not np.isfinite(norm):
        return ""
    direction /= norm
    ours, theirs = float(np.vdot(h, direction)), float(np.vdot(g, direction))
    sizes = np.maximum(np.abs(direction), 1e-12 * largest(direction))
    # no entry moves by more than its own size
    unit = float(np.min(unit_of(c.subject.values[k]) / sizes))
    best = c.reference.steps(c.subject).derivative({k: unit * direction})
    measured = best.value / unit
    if not best.error / unit <= 0.1 * abs(ours - theirs):
        return ""  # they cannot tell
    if abs(measured - theirs) < 0.1 * abs(measured - ours):
        return "reference"
    return "handwritten" if abs(measured - ours) < 0.1 * abs(measured - theirs) else ""


# -------------------- rounding: what a mistake repeats, it does not --------------------


def rounding(c: Comparison) -> list[Floor]:
    """Return how far rounding alone moves each entry of each gradient."""
    # Handwritten minus reference is taken anew at values that differ from the given ones in their
    # last bits. What a mistake makes of it stays; what rounding makes of it is drawn anew.
    clear = set() if c.reference.kind == "central differences" else _clear_mistakes(c)
    if clear and clear >= set(c.doubtful):
        return [8 * c.reference.eps * largest(g) for g in c.reference.grads]
    points = range(1, 1 + (POINTS // 2 if c.graph is None or _is_long(c.graph) else POINTS))
    apart = [d for d in (_apart_at(c, salt) for salt in points) if d]
    floors = [np.maximum(*pair) for pair in zip(_least(c), _of_float32(c), strict=True)]
    for k, floor in enumerate(floors) if len(apart) > 1 else ():
        if k not in clear:
            floors[k] = np.maximum(floor, FACTOR * _scatter([d[k] for d in apart], floor))
    return floors


def _of_float32(c: Comparison) -> list[Floor]:
    """Return how far a handwritten gradient is off where autograd's own is the same in float32."""
    reference = c.reference
    floors: list[Floor] = [0.0] * len(reference.grads)
    if not reference.double or reference.kind != "autograd":
        return floors
    with suppress(CheckError):
        single = reference.make(c.subject, double=False).grads
        for k, row in c.rows.items():
            if row.both is not None:
                differs = differing(row.both[0], single[k], reference.sharpness.match, 0.0)
                floors[k] = np.where(differs, 0.0, np.abs(np.subtract(*row.both)))
    return floors


def _is_long(graph: Graph) -> bool:
    return len(graph.recording.calls) > LONG


def _clear_mistakes(c: Comparison) -> set[int]:
    """Return which gradients are off by much, and by just the same at moved values."""
    # There the caches are what the forward pass makes of the moved values: a saturated one is as
    # it was, and a rounding of it that has not happened excuses nothing.
    clear = set(c.doubtful)
    for salt in (1, 2):
        there = _apart_at(c, salt, rounded=False) if clear else None
        if there is None:
            return set()
        clear = {k for k in clear if _repeats(c, k, there[k])}
        if not c.small or (c.graph is not None and _is_long(c.graph)):
            break
    return clear


def _repeats(c: Comparison, k: int, there: Array | None) -> bool:
    """Tell whether what is furthest off is off by just the same there, and by more than chance."""
    row = c.rows[k]
    if row.index is None or there is None or row.handwritten is None or row.automatic is None:
        return True  # of another shape
    here = float(row.handwritten[row.index]) - float(row.automatic[row.index])
    moves = abs(here) * unit_of(c.subject.values[k])[row.index]
    is_clear = moves > 1e3 * c.reference.eps * max(c.size, _size_within(c.graph))
    return bool(is_clear and abs(there[row.index] - here) < 1e-3 * abs(here))


def _size_within(graph: Graph | None) -> float:
    """Return how much the values on the way to the objective are of it, though they may cancel."""
    nodes = graph.nodes if graph is not None else []
    arrays = (n for n in nodes if np.shape(n.adjoint) == np.shape(n.value))
    return max((largest(np.asarray(n.adjoint) * n.value) for n in arrays), default=0.0)


def _apart_at(c: Comparison, salt: int, *, rounded: bool = True) -> Apart | None:
    """Return handwritten minus reference at moved values, both with other roundings if wanted."""
    subject, reference, graph = c.subject, c.reference, c.graph  # of the values as they are given
    if reference.kind == "central differences":  # how far these may be off is known
        hand = _handwritten(c, c.upstream, salt)
        return _differences(hand, reference.grads) if hand else None
    size = 32 * reference.eps if reference.single else 1e-11
    subject.session.restore()
    values = [moved(v, size, salt) for v in subject.values]
    ups = c.upstream if subject.is_loss else [moved(u, size, salt + 20) for u in c.upstream]
    try:
        with subject.session.moved(subject.values, values):
            hand = _handwritten(c, ups, salt if rounded else None)
            if graph is None:
                grads = reference.make(at_these_values(subject, ups)).grads
        if graph is not None:
            calls = [*(root.call for root in graph.roots), *graph.upstream]
            start = dict(zip(calls, [*values, *ups], strict=True))
            draw = (reference.eps_of_trace, salt) if rounded else None
            grads = graph.gradients(graph.replay(start, rounding=draw))
    except CheckError:
        return None
    return _differences(hand, grads) if hand and grads else None


def _handwritten(c: Comparison, ups: list[Array], salt: int | None) -> Gradients | None:
    """Return the handwritten gradients; with a salt what forward left is rounded once more."""
    session, values = c.subject.session, c.subject.values
    size = 4 * c.reference.eps  # enough for each number to become another

    def rounded(kept: object) -> None:
        for array in reach(kept):
            is_float = isinstance(array, np.ndarray) and array.dtype.kind == "f"
            if is_float and array.flags.writeable and session.start.kept(array) is None:
                array[...] = moved(array, size, salt or 0)

    session.restore()  # the arrays are now at the values that they are to be moved from
    try:
        if salt is None:
            with session.fresh():
                return c.backward(ups)
        others = [moved(v, size, salt + 40) for v in values]
        with session.moved(values, others), session.fresh():
            return c.backward(ups, rounded)
    except CheckError:
        return None


def _differences(hand: Gradients, grads: Sequence[Array]) -> Apart:
    """Return handwritten minus true gradients; None where the shapes differ."""
    pairs = ((np.asarray(h), g) for h, g in zip(hand, grads, strict=True))
    return [
        h.astype(float) - g if h.dtype.kind in "fiub" and h.shape == np.shape(g) else None
        for h, g in pairs
    ]


def _scatter(there: Apart, otherwise: Floor) -> Array:
    """Return the deviation of each entry over the points, or that of its row or column."""
    if any(d is None for d in there):
        return np.zeros_like(otherwise)
    known = np.ma.masked_invalid(np.array(there))
    return across(np.ma.filled(np.std(known, axis=0, ddof=1), 0.0))


# -------------------- the least that rounding does --------------------


def _least(c: Comparison) -> list[Floor]:
    """Return what the last sum of each gradient is rounded by, with what the reference is off."""
    # Any sum is rounded as its terms are, and the array of a gradient as its largest entry: a
    # saturated function has no digits where its gradient vanishes. Where there is no cache to round
    # once more, what could not move the last bit of the output is no difference either.
    eps, single = c.reference.eps, c.reference.single
    has_cache = c.subject.has_cache
    terms = _last_terms(c.graph) if c.graph is not None else c.reference.grads
    errors: list[Floor] = [*c.reference.errors] or [0.0] * len(terms)
    base = (2 if single and has_cache else 8) * eps
    smallest = 1e-30 if single else 1e-290  # below it, products on the way may have been zero
    unseen = 0.0 if has_cache else 1e-3 * eps * c.size
    return [
        8 * eps * np.abs(t) + base * largest(g) + 3 * error + smallest + unseen / unit_of(value)
        for t, g, error, value in zip(
            terms, c.reference.grads, errors, c.subject.values, strict=True
        )
    ]


def _last_terms(graph: Graph) -> list[Array]:
    """Return, for each entry, the sum of the absolute terms of the last sum that made it."""
    sums: dict[Call, Array] = {}

    def absolute(arg: object, of_sum: bool) -> Any:
        """Return the absolute terms of a value; what is no number as it is."""
        if of_sum and isinstance(arg, Call) and arg in sums:
            return sums[arg]
        value = graph.value(arg)
        return np.abs(value) if isinstance(value, float | np.ndarray | np.floating) else value

    for call in graph.recording.calls:
        known = primitive(name_of(call.fun))
        passes = known.adds or known.moves  # it only adds up, or lays out in another way
        if passes or (known.multiplies and known.sums):
            fun = np.add if name_of(call.fun) == "subtract" else call.fun.fun
            sums[call] = np.abs(fun(*(absolute(a, passes) for a in call.args), **call.kwargs))
    return [absolute(grad, True) for grad in graph.recording.grads]
