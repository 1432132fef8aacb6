"""The step of ``torch_func``, compiled by `torch.compile`."""

from __future__ import annotations

import torch

from ..spiral import Params, Task
from .torch_func import step, trained

torch._dynamo.config.recompile_limit = 32  # it is compiled for each size of network and batch
_compiled = torch.compile(step, dynamic=False)


def train(task: Task, lr: float, epochs: int, batch_size: int) -> Params:
    """Return the trained parameters."""
    with torch.no_grad():
        return trained(_compiled, task, lr, epochs, batch_size)
