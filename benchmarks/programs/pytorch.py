"""PyTorch, eager: modules, a loss and an optimizer, as its tutorials have them."""

from __future__ import annotations

from collections.abc import Callable

import torch

from ..spiral import Params, Task, batches


def _step(
    params: Params, lr: float
) -> tuple[torch.nn.Module, Callable[[torch.Tensor, torch.Tensor], torch.Tensor]]:
    inputs, hidden = params["W1"].shape
    _, classes = params["W2"].shape
    net = torch.nn.Sequential(
        torch.nn.Linear(inputs, hidden), torch.nn.Sigmoid(), torch.nn.Linear(hidden, classes)
    ).double()
    with torch.no_grad():
        for ours, theirs in zip(params.values(), net.parameters(), strict=True):
            theirs.copy_(torch.from_numpy(ours.T))
    criterion = torch.nn.CrossEntropyLoss()
    optimizer = torch.optim.SGD(net.parameters(), lr=lr)

    def step(x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        optimizer.zero_grad()
        loss = criterion(net(x), t)
        loss.backward()
        optimizer.step()
        return loss

    return net, step


def train(task: Task, lr: float, epochs: int, batch_size: int) -> Params:
    """Return the trained parameters."""
    net, step = _step(task.params, lr)
    classes = task.t.argmax(axis=1)
    for x, t in batches(task.x, classes, task.rng, epochs, batch_size):
        step(torch.from_numpy(x), torch.from_numpy(t))
    trained = (theirs.detach().numpy().T for theirs in net.parameters())
    return dict(zip(task.params, trained, strict=True))
