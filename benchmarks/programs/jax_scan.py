"""JAX, with the whole run compiled into one `lax.scan`."""

from __future__ import annotations

from typing import Any

import jax
import numpy as np

from ..spiral import Array, Params, Task, batches
from .jax_step import step


@jax.jit
def _scan(params: Params, xs: Array, ts: Array, lr: float) -> tuple[Params, Any]:
    def body(params: Params, batch: tuple[Array, Array]) -> tuple[Params, Any]:
        loss, params = step(params, *batch, lr)
        return params, loss

    return jax.lax.scan(body, params, (xs, ts))


def train(task: Task, lr: float, epochs: int, batch_size: int) -> Params:
    """Return the trained parameters."""
    xs, ts = zip(*batches(*task[1:], epochs, batch_size), strict=True)
    params, _ = _scan(task.params, np.stack(xs), np.stack(ts), lr)
    return jax.device_get(params)
