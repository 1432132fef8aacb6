"""What is not a match at first sight: rounding, a kink, a small constant, or a mistake."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from ..blocks import differing
from ..finding import found
from ..lines.lines import kink_places
from ..reference.backward_graph import BackwardGraph
from ..reference.stepping import unit_of
from .comparison import Comparison
from .idealised import find_idealised
from .kinks import find_kinks
from .repeats import rounding
from .rows import RIGHT

AMPLIFIED = 1e6  # how many rounding errors of the output one of a gradient may matter as


def second_look(c: Comparison) -> BackwardGraph | None:
    """Tell rounding, kinks and idealised constants from mistakes.

    Returns
    -------
    BackwardGraph or None
        That of the forward pass without its first small constant, where it has one.
    """
    if c.doubtful and c.reference.grads:
        doubtful = c.doubtful
        c.noise = rounding(c)
        c.compare()
        for k in doubtful:
            _say_unknown(c, k)
    for k, excused in find_kinks(c).items():
        c.noise[k] = np.where(excused, np.inf, c.noise[k])
        row = c.compared(k)
        if row.verdict in RIGHT:
            lines = c.places(kink_places, k)  # while the row counts as wrong
            row = replace(row, verdict="match", findings=(found("kink"),), lines=lines)
        c.rows[k] = row
    ideal = find_idealised(c)
    for k in c.doubtful:
        if c.rows[k].verdict == "approximate" and not c.rows[k].findings:
            c.change(k, findings=(found("approximate", match=c.reference.sharpness.match),))
    return ideal


def _say_unknown(c: Comparison, k: int) -> None:
    """Say so where rounding excuses what it cannot be told from."""
    if c.rows[k].verdict not in RIGHT:
        return
    h, g = np.asarray(c.grads[k], dtype=float), np.asarray(c.reference.grads[k])
    sharp, noise = c.reference.sharpness, np.broadcast_to(c.noise[k], g.shape)
    excused = differing(h, g, sharp.match, 0.0) & differing(
        noise, 0 * g, 100 * sharp.approximate, 0
    )
    moves = noise * unit_of(c.subject.values[k])
    if np.any(excused & (moves > AMPLIFIED * c.reference.eps * c.reference.size)):
        c.change(k, verdict="approximate", findings=(found("amplified"),))
