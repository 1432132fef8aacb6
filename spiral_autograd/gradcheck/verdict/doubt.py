"""What is not a match at first sight: rounding, a kink, a small constant, or a mistake."""

from __future__ import annotations

import gc
from dataclasses import replace
from typing import Any

import numpy as np

from ..blocks import differing, largest
from ..finding import Finding, found
from ..reference.graph import Graph
from ..reference.reference import Reference
from ..reference.stepping import unit_of
from ..subject.subject import Subject
from .excuses import find_idealised, find_kinks
from .repeats import rounding
from .rows import RIGHT, Comparison, Tolerances, is_small

AMPLIFIED = 1e6  # how many rounding errors of the output one of a gradient may matter as


def compared(
    subject: Subject,
    reference: Reference,
    grads: list[Any],
    tolerances: Tolerances,
) -> tuple[Comparison, Graph | None]:
    """Return the rows, with rounding, kinks and small constants told from mistakes.

    And the graph of the forward pass without its first small constant, where it has one.
    """
    if not is_small(subject):  # record again if there is something to explain
        reference.recording = None
        gc.collect(1)  # autograd's traces are cycles, which hold arrays
    c = Comparison(subject, reference, grads, tolerances)
    ideal = _look_again(c) if len(c.right) < len(c.rows) else None
    if tolerances.given:
        _accept(c)
    return c, ideal


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
        h, g = row.handwritten, row.automatic
        if not (is_off or row.verdict == "wrong") or h is None or g is None or h.shape != g.shape:
            continue
        beyond_rounding = differing(h, g, c.reference.sharpness.match, c.noise[k])
        allowed = c.tolerances.allows(h, g) | ~beyond_rounding
        if np.all(allowed & np.isfinite(h)):
            said = found("accepted", text=c.tolerances.given, apart=row.max_rel)
            c.change(k, verdict="accepted", findings=(said,))
        elif is_off:
            c.change(k, verdict="wrong", findings=(not_accepted(c),))


def not_accepted(c: Comparison) -> Finding:
    """Return what is said of a gradient that is off by so little that only the caller minds."""
    return found("not_accepted", text=c.tolerances.given)


def _is_amplified(c: Comparison, k: int) -> bool:
    """Tell whether rounding excuses what it cannot be told from."""
    h, g = np.asarray(c.grads[k], dtype=float), np.asarray(c.reference.grads[k])
    sharp, noise = c.reference.sharpness, np.broadcast_to(c.noise[k], g.shape)
    excused = differing(h, g, sharp.match, 0.0)
    excused &= differing(noise, 0 * g, 100 * sharp.approximate, 0)
    moves = noise * unit_of(c.subject.values[k])
    return bool(np.any(excused & (moves > AMPLIFIED * c.reference.eps * c.reference.size)))


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
    h, g = c.grads[k], c.reference.grads[k]
    if h is None or np.shape(h) != g.shape or not np.isfinite(largest(h)):
        return ""
    h = np.asarray(h, dtype=float)  # of a matrix too
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
