"""What is not a match at first sight: rounding, a kink, a small constant, or a mistake."""

from __future__ import annotations

import numpy as np

from ..code.lines import kink_places
from ..tracing.graph import BackwardGraph
from .compare import RIGHT
from .comparison import Comparison
from .idealised import find_idealised
from .kinks import find_kinks
from .repeats import rounding


def second_look(c: Comparison) -> BackwardGraph | None:
    """Tell rounding, kinks and idealised constants from mistakes.

    Returns
    -------
    BackwardGraph or None
        That of the forward pass without its first small constant, where it has one.
    """
    if c.doubtful and c.reference.grads:
        c.noise = rounding(c)
        c.compare()
    for k, excused in find_kinks(c).items():
        c.noise[k] = np.where(excused, np.inf, c.noise[k])
        c.compare_row(k)
        if c.rows[k].verdict not in RIGHT:
            continue
        c.change(
            k,
            verdict="match",
            rule="kink",
            why="the forward pass has a kink here (a ReLU at 0, a tie of a max): the gradient is "
            "undefined, and beside the kink the handwritten one is right",
            lines=c.places(kink_places, k),
        )
    ideal = find_idealised(c)
    for k in c.doubtful:
        if c.rows[k].verdict == "approximate" and not c.rows[k].why:
            c.change(k, why=f"differs by more than rounding, though by little; {_not_known(c)}")
    return ideal


def _not_known(c: Comparison) -> str:
    match = c.reference.sharpness.match
    return f"why is not known (a match differs by at most {match:g} of the largest entry)"
