"""What is not a match at first sight: rounding, a kink, a small constant, or a mistake."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from ..blocks import differing
from ..finding import found
from ..reference.graph import Graph
from ..reference.stepping import unit_of
from .comparison import Comparison
from .kinks import find_kinks
from .repeats import rounding
from .rows import RIGHT
from .small_constants import find_idealised

AMPLIFIED = 1e6  # how many rounding errors of the output one of a gradient may matter as


def look_again(c: Comparison) -> Graph | None:
    """Tell rounding, kinks and small constants from mistakes.

    Returns the graph of the forward pass without its first small constant, where it has one.
    """
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


def _is_amplified(c: Comparison, k: int) -> bool:
    """Tell whether rounding excuses what it cannot be told from."""
    h, g = np.asarray(c.grads[k], dtype=float), np.asarray(c.reference.grads[k])
    sharp, noise = c.reference.sharpness, np.broadcast_to(c.noise[k], g.shape)
    excused = differing(h, g, sharp.match, 0.0)
    excused &= differing(noise, 0 * g, 100 * sharp.approximate, 0)
    moves = noise * unit_of(c.subject.values[k])
    return bool(np.any(excused & (moves > AMPLIFIED * c.reference.eps * c.reference.size)))
