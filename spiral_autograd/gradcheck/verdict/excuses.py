"""Why a gradient may be right though it differs: a kink, or a small constant that is left out.

A kink is a ReLU at 0, a tie of a max. A small constant is one such as 1e-07 in a logarithm: only
what keeps a logarithm, a root or a quotient from zero is left out of a backward pass on purpose. A
target, a margin or a decay is not.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import suppress
from functools import lru_cache, partial

import numpy as np

from ...recording import Call
from ...validation import Array
from ..blocks import close, differing, largest
from ..finding import found
from ..guard import CheckError
from ..primitives import primitive
from ..reference.graph import Graph, is_number
from ..reference.nodes import Node
from ..reference.reference import at_these_values
from ..reference.stepping import nearby, unit_of
from .rows import Comparison

# A jump is that of one kink; a gradient may be a sum over many of them.
_KINKS_IN_A_SUM = 30
# Points near by, at all of which two kinks hardly jump together by chance.
_NEAR = 12
# How far the values move, each time in another direction: in one of them two jumps may cancel.
_STEPS = (*(1e-4,) * 6, 1e-3, 1e-2)

Entries = dict[int, Array]  # which entries of which gradients

SMALL = 1e-2
Guard = tuple[Call, int]  # a call, and the number of its argument that is a small constant
_DIVIDES = ("divide", "true_divide")

# -------------------- a kink --------------------


def find_kinks(c: Comparison) -> Entries:
    """Return which entries differ only where the reference jumps, and are right on both sides."""
    if not c.reference.grads:
        return {}
    here = {k: _off(c, c, k) for k in c.doubtful if _may_be_kink(c, k)}
    found = {k: _between_slopes(c, k, off) for k, off in here.items() if k in c.subject.marks}
    for seed, size in enumerate(_STEPS):
        left = _any({k: off & ~found.get(k, False) for k, off in here.items()})
        if not left:
            break
        excused = _excused(c, left, size, seed)
        if excused is None and not c.reference.single:
            break  # in float32 a tie may need longer steps to be undone
        found |= {k: found.get(k, False) | e for k, e in (excused or {}).items()}
    found = _any(found)
    beyond = _beyond_two_slopes(c, [k for k in found if k not in c.subject.marks])
    return _any({k: some & ~beyond.get(k, False) for k, some in found.items()})


def _any(entries: Entries) -> Entries:
    return {k: some for k, some in entries.items() if some.any()}


def _may_be_kink(c: Comparison, k: int) -> bool:
    """Tell whether the slope in the entry that is furthest off may jump: else the row is wrong."""
    row = c.rows[k]
    if row.index is None or row.both is None:
        return False
    if c.reference.single and not c.reference.double:
        return True
    *_, bend = _slopes(c, k, row.index)
    return bend > 0.01 * row.max_abs


def _slopes(c: Comparison, k: int, index: tuple[int, ...]) -> tuple[float, float, float]:
    """Return the slopes before and after in one entry, and by how much they differ."""
    value = c.subject.values[k]
    unit = np.zeros(value.shape)
    unit[index] = size = unit_of(value)[index]
    found = c.reference.steps(c.subject).slopes({k: unit}, 1e-6)
    return found[0] / size, found[1] / size, found[2] / size


def _between_slopes(c: Comparison, k: int, off: Array) -> Array:
    """Return which entries of a mark's gradient lie between the slopes, where these differ."""
    # The handwritten pass knows nothing of what moves a mark: it cannot be asked near by.
    found = np.zeros_like(off)
    for index in map(tuple, np.argwhere(off)[:64]):
        before, after, _ = _slopes(c, k, index)
        h, width = float(c.grads[k][index]), abs(after - before)
        distance = abs(h - float(c.reference.grads[k][index]))
        inside = min(before, after) - 1e-3 * width <= h <= max(before, after) + 1e-3 * width
        found[index] = inside and width >= 0.5 * distance
    return found


def _excused(c: Comparison, left: Entries, size: float, seed: int) -> Entries | None:
    """Return the entries right on both sides of a jump of the reference; None if none is right."""
    c.subject.session.restore()
    beside: list[list[Array]] = []
    nearer = 1 / 16 if c.reference.single else 1 / 1024
    for share in (1.0, -1.0, nearer, -nearer):
        values = nearby(c.subject, np.random.default_rng(seed), size * share)
        with c.subject.session.moved(c.subject.values, values):
            try:
                there = c.at_these_values()
            except CheckError:
                return None
        # How far rounding moves them is known for the given values alone: here be lenient.
        left = _any({k: here & ~_off(c, there, k, lenience=100) for k, here in left.items()})
        if not left:
            return None
        beside.append(there.reference.grads)
    jumps = {k: _jumps(c, k, [grads[k] for grads in beside], nearer) for k in left}
    return _any({k: off & jumps[k] for k, off in left.items()})


def _jumps(c: Comparison, k: int, beside: list[Array], nearer: float) -> Array:
    """Tell where the reference jumps by about as much as the handwritten gradient is off.

    What is smooth changes by as much less as the points are nearer.
    """
    here, (far, far_before, near, before) = np.asarray(c.reference.grads[k]), beside
    jump = np.maximum.reduce([abs(near - before), abs(near - here), abs(before - here)])
    smooth = 2 * nearer * abs(far - far_before)
    distance = np.abs(np.asarray(c.grads[k], dtype=float) - here)
    return np.asarray(distance <= _KINKS_IN_A_SUM * (jump - smooth))


def _beyond_two_slopes(c: Comparison, rows: Sequence[int]) -> Entries:
    """Return which entries lie beyond both slopes, where there are but two near by.

    Of many kinks the sums have many slopes.
    """
    near = []
    for seed in range(_NEAR if rows else 0):
        values = nearby(c.subject, np.random.default_rng(seed), _STEPS[0])
        with suppress(CheckError), c.subject.session.moved(c.subject.values, values):
            near.append(c.reference_there(at_these_values(c.subject)).grads)
    there = [(k, np.array([grads[k] for grads in near], dtype=float)) for k in rows if near]
    return {k: _is_beyond(np.asarray(c.grads[k]), slopes) for k, slopes in there}


def _is_beyond(h: Array, slopes: Array) -> Array:
    least, most = slopes.min(0), slopes.max(0)
    margin = 0.01 * (most - least)
    are_two = np.all((slopes < least + margin) | (slopes > most - margin), axis=0)
    return np.asarray(are_two & ((h < least - margin) | (h > most + margin)))


def _off(c: Comparison, there: Comparison, k: int, lenience: float = 1.0) -> Array:
    """Return which entries of a gradient are off by more than rounding: all of another shape."""
    both = there.rows[k].both if k in there.rows else None
    if both is None:
        return np.ones(c.subject.values[k].shape, dtype=bool)
    here, beside = (np.where(np.isfinite(n), n, 0.0) for n in (c.noise[k], there.noise[k]))
    return differing(*both, lenience * c.reference.sharpness.match, np.maximum(here, beside))


# -------------------- a small constant --------------------


def find_idealised(c: Comparison) -> Graph | None:
    """Say which gradients are without some small constants; return the graph without those.

    Where no gradient is, that without the first.
    """
    if not (c.doubtful or c.wrong) or c.graph is None:
        return None
    first, meant = None, None
    milder = lru_cache(partial(_agreeing_at_milder_values, c))
    for number, left_out, ideal in ideals(c.graph):
        first = first or ideal
        for k in c.doubtful:
            agrees = _agrees(c, k, ideal.gradient(k))
            if not agrees and not _is_steady(c, ideal, k, left_out):
                agrees = (number, k) in milder()
            if agrees:
                meant = ideal
                constant = max(float(call.args[position]) for call, position in left_out)
                said = found("idealised", constant=constant, apart=c.rows[k].max_rel)
                c.change(k, verdict="idealised", findings=(said,))
                c.constants[k] = [call for call, _ in left_out]
    return meant or first


def _agrees(c: Comparison, k: int, gradient: Array) -> bool:
    """Tell whether a gradient is the ideal one; zeros are not written on purpose."""
    h, true = c.grads[k], c.reference.grads[k]
    if h is None or largest(h) == 0 or not np.isfinite(largest(gradient)):
        return False
    if not close(h, gradient, c.tolerance, c.floors[k]):
        return False
    # One no larger than rounding is near to any that is: it must be far nearer than the true one.
    is_sized = largest(h) > np.max(c.floors[k])
    return is_sized or largest(h - gradient) <= 0.1 * largest(true - gradient)


def _is_steady(c: Comparison, ideal: Graph, k: int, without: list[Guard]) -> bool:
    """Tell whether a gradient has its digits: the log of a saturated 1 - y has few or none."""
    gradient = ideal.gradient(k)
    if not np.isfinite(largest(gradient)):
        return False
    for salt in (1, 2, 3):
        rounding = c.reference.eps_of_trace, salt
        there = ideal.gradients(ideal.replay(without=without, rounding=rounding))[k]
        if not largest(there - gradient) <= 1e-2 * c.tolerance * largest(gradient):
            return False
    return True


def _agreeing_at_milder_values(c: Comparison) -> set[tuple[int, int]]:
    """Return the numbers of small constants, each with that of a gradient which is without it."""
    # Where the ideal forward pass has no digits left, as in the log of a probability that is
    # rounded to zero, a gradient can only be known by its formula: at smaller values, where
    # saturated functions are not, it must be the ideal one.
    most = max((largest(value) for value in c.subject.values), default=1.0)
    tolerance = 100 * c.tolerance if c.reference.single else c.tolerance
    found: set[tuple[int, int]] = set()
    for factor in (0.1, 0.01, *((3 / most,) if most > 1e3 else ())):
        others = [(factor * value).astype(value.dtype) for value in c.subject.values]
        with suppress(CheckError), c.subject.session.moved(c.subject.values, others):
            there = c.at_these_values()
            found |= {
                (number, k)
                for number, left_out, ideal in ideals(there.graph)
                for k in c.doubtful
                if _is_steady(c, ideal, k, left_out)
                and close(there.grads[k], ideal.gradient(k), tolerance)
            }
    return found


# -------------------- in a graph --------------------


def ideals(graph: Graph | None) -> Iterator[tuple[int, list[Guard], Graph]]:
    """Yield the graph without each small constant, and without all: by number, with what is not."""
    found = [
        (node.call, position)
        for node in (graph.nodes if graph is not None else ())
        if primitive(node.name).guards
        for position, arg in enumerate(node.call.args)
        if is_number(arg) and 0 < abs(float(arg)) <= SMALL and _reaches_guarded(node)
    ]
    every = [[guard] for guard in found] + ([found] if len(found) > 1 else [])
    for number, left_out in enumerate(every):
        if graph is not None and (ideal := graph.without(left_out)) is not None:
            yield number, left_out, ideal


def _reaches_guarded(node: Node) -> bool:
    """Tell whether a value is handed on to a logarithm, a root or a denominator."""
    pending, met = [node], {id(node)}
    while pending:
        value = pending.pop()
        for user in value.users:
            if id(user) in met:
                continue
            if _is_guarded(user, value):
                return True
            if user.name in _DIVIDES or primitive(user.name).hands_on:
                met.add(id(user))
                pending.append(user)
    return False


def _is_guarded(user: Node, value: Node) -> bool:
    places = [i for i, p in zip(user.argnums, user.parents, strict=True) if p is value]
    if user.name in _DIVIDES:
        return 1 in places
    if user.name == "power":  # is it a root or a quotient?
        exponent = np.asarray(user.args[1])
        known = 0 in places and exponent.dtype.kind in "fiu"
        return known and bool(np.all(exponent < 0) or np.all(exponent % 1 != 0))
    return primitive(user.name).is_singular
