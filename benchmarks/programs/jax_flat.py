"""JAX, with `jit` of one step that owns one flat vector of all parameters."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import jax
from jax.flatten_util import ravel_pytree

from ..spiral import Params, Task, batches
from .jax_step import loss


@lru_cache
def _stepping(unravel: Any) -> Any:
    def step(flat: Any, x: Any, t: Any, lr: float) -> Any:
        value, grad = jax.value_and_grad(lambda v: loss(unravel(v), x, t))(flat)
        return value, flat - lr * grad

    return jax.jit(step, donate_argnums=0)


def train(task: Task, lr: float, epochs: int, batch_size: int) -> Params:
    """Return the trained parameters."""
    flat, unravel = ravel_pytree(jax.device_put(task.params))
    step = _stepping(unravel)
    for x, t in batches(*task[1:], epochs, batch_size):
        _, flat = step(flat, x, t, lr)
    return jax.device_get(unravel(flat))
