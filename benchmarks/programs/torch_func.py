"""PyTorch without modules: the gradient of a function, and all updates in one call."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from ..spiral import Params, Task, batches

Step = Callable[[list[Any], Any, Any, float], Any]


def _loss(params: list[Any], x: Any, t: Any) -> Any:
    W1, b1, W2, b2 = params
    scores = torch.addmm(b2, torch.sigmoid(torch.addmm(b1, x, W1)), W2)
    return torch.nn.functional.cross_entropy(scores, t)


_gradient = torch.func.grad_and_value(_loss)


def step(params: list[Any], x: Any, t: Any, lr: float) -> Any:
    """Update the parameters, and return the loss."""
    grads, loss = _gradient(params, x, t)
    torch._foreach_add_(params, grads, alpha=-lr)
    return loss


def trained(step: Step, task: Task, lr: float, epochs: int, batch_size: int) -> Params:
    """Return the parameters that a step has trained."""
    params = [torch.from_numpy(array.copy()) for array in task.params.values()]
    classes = task.t.argmax(axis=1)
    for x, t in batches(task.x, classes, task.rng, epochs, batch_size):
        step(params, torch.from_numpy(x), torch.from_numpy(t), lr)
    return dict(zip(task.params, (array.numpy() for array in params), strict=True))


def train(task: Task, lr: float, epochs: int, batch_size: int) -> Params:
    """Return the trained parameters."""
    with torch.no_grad():
        return trained(step, task, lr, epochs, batch_size)
