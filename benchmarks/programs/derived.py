"""autograd's gradient, derived once, in the step that `fit` takes."""

from __future__ import annotations

import warnings
from collections.abc import Callable

import spiral_autograd as sa
from spiral_autograd.gradient_sources import source_of_program
from spiral_autograd.pytree import FlatLayout

from ..spiral import Array, Params, Task


def steps(params: Params, x: Array, t: Array, lr: float) -> Callable[[int], None]:
    """Return run(n), which takes n steps on one batch."""
    layout, optimizer = FlatLayout.of(params), sa.sgd(lr)
    source = source_of_program(layout, sa.derive(sa.loss, params, x, t), [x, t], len(x), 1)
    vectors = layout.pack_tree(params)
    state = optimizer.init(vectors)

    def run(n: int) -> None:
        nonlocal vectors, state
        for _ in range(n):
            _, grads = source.value_and_grad(vectors, source.data)
            vectors, state = optimizer.update(vectors, grads, state)

    return run


def train(task: Task, lr: float, epochs: int, batch_size: int) -> Params:
    """Return the trained parameters; a loss that is not derived would be another program."""
    warnings.simplefilter("error", sa.DerivationWarning)
    return sa.fit(
        *task[:3], optimizer=sa.sgd(lr), max_epoch=epochs, batch_size=batch_size, rng=task.rng
    ).params
