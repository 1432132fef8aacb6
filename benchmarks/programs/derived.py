"""`fit`, the whole of it, as a person calls it: autograd's gradient, derived once."""

from __future__ import annotations

import warnings

import spiral_autograd as sa

from ..spiral import Params, Task


def train(task: Task, lr: float, epochs: int, batch_size: int) -> Params:
    """Return the trained parameters; a loss that is not derived would be another program."""
    with warnings.catch_warnings():
        warnings.simplefilter("error", sa.DerivationWarning)
        return sa.fit(
            *task[:3], optimizer=sa.sgd(lr), max_epoch=epochs, batch_size=batch_size, rng=task.rng
        ).params
