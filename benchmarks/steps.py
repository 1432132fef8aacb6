"""A training step by each program, in whole runs: shuffles, batches and the loop are in it."""

from __future__ import annotations

from collections.abc import Callable

from .measure import Timings, interleaved, one_core
from .programs import installed, module
from .spiral import Params, task

HIDDEN, BATCHES = (10, 100, 1000), (30, 300, 3000)
STEPS = (3000, 3000), (30_000, 1000), (300_000, 100), (3_000_000, 20)  # hidden * batch: so many
IN_AN_EPOCH = 10


def measure(repeats: int, share: float = 1.0) -> dict[tuple[int, int], Timings]:
    """Return the seconds of a step, by hidden size and batch; `share` of the steps are taken."""
    with one_core():
        return {
            (hidden, batch): _measure_one(hidden, batch, repeats, share)
            for hidden in HIDDEN
            for batch in BATCHES
        }


def _measure_one(hidden: int, batch: int, repeats: int, share: float) -> Timings:
    steps = next(steps for size, steps in STEPS if hidden * batch <= size)
    epochs = max(2, round(steps * share / IN_AN_EPOCH))

    def training(name: str) -> Callable[[], Params]:
        train = module(name).train
        lr = 1.0 if (hidden, batch) == (10, 30) else 1e-3  # the book's; elsewhere none diverges
        samples = batch * IN_AN_EPOCH // 3
        return lambda: train(task(hidden, samples), lr, epochs, batch)

    runs = {name: training(name) for name in installed()}
    timings = interleaved(runs, repeats=repeats if hidden * batch <= 30_000 else repeats // 3 + 2)
    steps = epochs * IN_AN_EPOCH
    return Timings({name: [s / steps for s in timings.seconds[name]] for name in timings})
