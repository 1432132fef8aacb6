"""A kink, which is no mistake: a ReLU at 0, a tie of a max."""

from __future__ import annotations

import numpy as np

from ...validation import Array
from ..blocks import apart, differing
from ..guard import CheckError
from ..reference.stepping import nearby, unit_of
from .rows import Comparison, Floor

# A jump is that of one kink; a gradient may be a sum over many of them.
_KINKS_IN_A_SUM = 30

Entries = dict[int, Array]  # which entries of which gradients


def find_kinks(c: Comparison) -> Entries:
    """Return which entries differ only where no gradient is defined, and are right beside.

    An entry is at a kink where the reference jumps between values that are close together, and
    the handwritten gradient agrees with it at each of them.
    """
    if not c.reference.grads:
        return {}
    rows = [k for k in c.doubtful if _may_be_kink(c, k)]
    offs = {k: _off(c, k, c.grads[k], c.reference.grads[k]) for k in rows}
    here = {k: off for k, off in offs.items() if off is not None}
    found = {k: _between_slopes(c, k, off) for k, off in here.items() if k in c.subject.marks}
    for size in (1e-4, 1e-3, 1e-2):
        left = _any({k: off & ~found.get(k, False) for k, off in here.items()})
        if not left:
            break
        excused = _excused(c, left, size)
        if not excused and not c.reference.single:
            break  # in float32 a tie may need longer steps to be undone
        found |= {k: found.get(k, False) | e for k, e in excused.items()}
    return _any(found)


def _any(entries: Entries) -> Entries:
    return {k: some for k, some in entries.items() if some.any()}


def _may_be_kink(c: Comparison, k: int) -> bool:
    """Tell whether the slope in the entry that is furthest off may jump: else the row is wrong."""
    row = c.rows[k]
    if row.index is None or (c.reference.single and not c.reference.double):
        return row.index is not None
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
    """Return which entries of a mark's gradient lie between the slopes, where these differ.

    The handwritten pass knows nothing of what moves a mark: it cannot be asked near by.
    """
    found = np.zeros_like(off)
    for index in map(tuple, np.argwhere(off)[:64]):
        before, after, _ = _slopes(c, k, index)
        h, width = float(c.grads[k][index]), abs(after - before)
        distance = abs(h - float(c.reference.grads[k][index]))
        inside = min(before, after) - 1e-3 * width <= h <= max(before, after) + 1e-3 * width
        found[index] = inside and width >= 0.5 * distance
    return found


def _excused(c: Comparison, left: Entries, size: float) -> Entries:
    """Return the entries that are right at four places near by, two and two on opposite sides."""
    c.subject.session.restore()
    beside: list[list[Array]] = []
    nearer = 1 / 16 if c.reference.single else 1 / 1024
    for share in (1.0, -1.0, nearer, -nearer):
        values = nearby(c.subject, np.random.default_rng(0), size * share)
        there = _look(c, left, values)
        if there is None:
            return {}
        off, grads = there
        left = _any({k: here & ~off[k] for k, here in left.items()})
        if not left:
            return {}
        beside.append(grads)
    return _any({k: off & _jumps(c, k, *(b[k] for b in beside[-2:])) for k, off in left.items()})


def _jumps(c: Comparison, k: int, after: Array, before: Array) -> Array:
    """Tell where the reference jumps by about as much as the handwritten gradient is off."""
    here = np.asarray(c.reference.grads[k])
    jump = np.maximum.reduce([abs(after - before), abs(after - here), abs(before - here)])
    distance = np.abs(np.asarray(c.grads[k], dtype=float) - here)
    return np.asarray(distance <= _KINKS_IN_A_SUM * jump)


def _look(c: Comparison, rows: Entries, values: list[Array]) -> tuple[Entries, list[Array]] | None:
    """Return what is off at other values, and the reference; None where that cannot be had."""
    with c.subject.session.moved(c.subject.values, values):
        try:
            there = c.at_these_values()
        except CheckError:
            return None
    true = there.reference.grads
    if not true:
        return None
    off = {}
    for k in rows:
        found = _off(c, k, there.grads[k], true[k], there.noise[k], lenience=100)
        off[k] = np.ones(np.shape(true[k]), dtype=bool) if found is None else found
    return off, list(map(np.asarray, true))


def _off(
    c: Comparison, k: int, h: Array | None, g: Array, errors: Floor = 0.0, *, lenience: float = 1.0
) -> Array | None:
    """Return which entries of a gradient are off by more than rounding; None of another shape.

    How far rounding moves them is known for the given values alone: at others be lenient.
    """
    g = np.asarray(g)
    if h is None or np.shape(h) != g.shape or np.asarray(h).dtype.kind not in "fiub":
        return None
    h = np.asarray(h, dtype=float)
    if not np.isfinite(apart(h, g)[0]):
        return None
    noise = np.where(np.isfinite(c.noise[k]), c.noise[k], 0.0)
    tolerance = lenience * c.reference.sharpness.match
    return differing(h, g, tolerance, np.maximum(noise, errors))
