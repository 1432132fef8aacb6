"""A training step by each program, on one batch, for networks and batches of nine sizes."""

from __future__ import annotations

from .measure import Timings, interleaved_steps, one_core
from .programs import installed, module
from .spiral import task

HIDDEN, BATCHES = (10, 100, 1000), (30, 300, 3000)
LR = 1e-3  # small: thousands of steps on one batch shall not drive the scores to extremes


def measure(repeats: int, slot: float) -> dict[tuple[int, int], Timings]:
    """Return the seconds of a step, by hidden size and batch."""
    with one_core():
        return {
            (hidden, batch): _measure_one(hidden, batch, repeats, slot)
            for hidden in HIDDEN
            for batch in BATCHES
        }


def _measure_one(hidden: int, batch: int, repeats: int, slot: float) -> Timings:
    params, x, t, rng = task(hidden, samples_per_class=max(100, batch // 3))
    rows = rng.permutation(len(x))[:batch]
    runs = {name: module(name).steps(params, x[rows], t[rows], LR) for name in installed()}
    small = hidden * batch <= 30_000
    return interleaved_steps(runs, repeats=repeats if small else max(repeats // 3, 5), slot=slot)
