"""What is not a match at first sight: rounding, a kink, a small constant, or a mistake."""

from __future__ import annotations

import numpy as np

from ..validation import Array
from .automatic import (
    by_autograd,
    by_complex_step,
    by_differences,
    moved_outputs,
    nearby,
    step_for,
)
from .blocks import largest
from .compare import RIGHT, compare
from .comparison import Comparison
from .graph import BackwardGraph
from .handwritten import CheckError
from .idealised import find_idealised
from .lines import kink_places
from .rounding import rounding


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
    ideal = find_idealised(c)
    for k in c.doubtful:
        if c.rows[k].verdict == "approximate" and not c.rows[k].why:
            c.change(k, why=f"differs by more than rounding, though by little; {_not_known(c)}")
    return ideal


def _not_known(c: Comparison) -> str:
    match = c.reference.sharpness.match
    return f"why is not known (a match differs by at most {match:g} of the largest entry)"


# -------------------- kinks --------------------


def find_kinks(c: Comparison) -> list[int]:
    """Return which gradients differ only where none is defined, and are right beside."""
    if not c.reference.grads:
        return []
    tied = c.graph is not None and c.graph.has_ties()
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

    def outputs(size: float) -> Array:
        found = moved_outputs(c.subject, {k: unit}, size)
        return np.concatenate([np.ravel(o * u) for o, u in zip(found, c.upstream, strict=True)])

    def bend(size: float) -> float:  # output by output, since the jumps of several may cancel
        return float(np.sum(np.abs(outputs(size) + outputs(-size) - 2 * here))) / size

    try:
        here = outputs(0.0)
        wide, narrow = bend(step), bend(step / 2)
    except CheckError:
        return False
    return wide > 0.1 * distance and 0.75 < narrow / wide < 1.5


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
