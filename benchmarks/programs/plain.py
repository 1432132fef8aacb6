"""autograd as a person uses it: a short loss of one's own, traced anew at every step."""

from __future__ import annotations

from typing import Any

import autograd.numpy as np
from autograd import value_and_grad

from ..spiral import Array, Params, Task, batches


def _loss(params: Params, x: Array, t: Array) -> Any:
    hidden = 1 / (1 + np.exp(-(np.dot(x, params["W1"]) + params["b1"])))
    scores = np.dot(hidden, params["W2"]) + params["b2"]
    shifted = scores - np.max(scores, axis=1, keepdims=True)
    log_sum_exp = np.log(np.sum(np.exp(shifted), axis=1))
    return np.sum(log_sum_exp - np.sum(shifted * t, axis=1)) / len(x)


_gradient = value_and_grad(_loss)


def _step(params: Params, x: Array, t: Array, lr: float) -> Params:
    _, grads = _gradient(params, x, t)
    return {name: p - lr * grads[name] for name, p in params.items()}


def train(task: Task, lr: float, epochs: int, batch_size: int) -> Params:
    """Return the trained parameters."""
    params = task.params
    for x, t in batches(*task[1:], epochs, batch_size):
        params = _step(params, x, t, lr)
    return params
