"""The network, its loss and its backward pass by hand, in one function and nothing kept."""

from __future__ import annotations

import numpy as np

from ..spiral import Array, Params, Task, batches


def _step(params: Params, x: Array, t: Array, lr: float) -> float:
    W1, b1, W2, b2 = params.values()
    hidden = 1 / (1 + np.exp(-(np.dot(x, W1) + b1)))
    scores = np.dot(hidden, W2) + b2
    y = np.exp(scores - scores.max(axis=1, keepdims=True))
    y /= y.sum(axis=1, keepdims=True)
    loss = -np.sum(np.log(np.sum(y * t, axis=1))) / len(x)
    dscores = (y - t) / len(x)
    dhidden = np.dot(dscores, W2.T) * hidden * (1 - hidden)
    W2 -= lr * np.dot(hidden.T, dscores)
    b2 -= lr * dscores.sum(axis=0)
    W1 -= lr * np.dot(x.T, dhidden)
    b1 -= lr * dhidden.sum(axis=0)
    return loss


def train(task: Task, lr: float, epochs: int, batch_size: int) -> Params:
    """Return the trained parameters."""
    params = {name: array.copy() for name, array in task.params.items()}
    for x, t in batches(*task[1:], epochs, batch_size):
        _step(params, x, t, lr)
    return params
