"""JAX, with the whole run compiled into one `lax.scan`."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import numpy as np

from ..spiral import Array, Params, Task, batches
from .jax_step import step


@partial(jax.jit, static_argnames="n")
def _repeat(params: Params, x: Array, t: Array, lr: float, n: int) -> Params:
    def body(params: Params, _: None) -> tuple[Params, Any]:
        loss, params = step(params, x, t, lr)
        return params, loss

    return jax.lax.scan(body, params, length=n)


@jax.jit
def _scan(params: Params, xs: Array, ts: Array, lr: float) -> tuple[Params, Any]:
    def body(params: Params, batch: tuple[Array, Array]) -> tuple[Params, Any]:
        loss, params = step(params, *batch, lr)
        return params, loss

    return jax.lax.scan(body, params, (xs, ts))


def steps(params: Params, x: Array, t: Array, lr: float) -> Callable[[int], None]:
    """Return run(n), which takes n steps on one batch."""
    params, x, t = jax.device_put((params, x, t))

    def run(n: int) -> None:
        nonlocal params
        params, _ = jax.block_until_ready(_repeat(params, x, t, lr, n))

    return run


def train(task: Task, lr: float, epochs: int, batch_size: int) -> Params:
    """Return the trained parameters."""
    xs, ts = zip(*batches(*task[1:], epochs, batch_size), strict=True)
    params, _ = _scan(task.params, np.stack(xs), np.stack(ts), lr)
    return jax.device_get(params)
