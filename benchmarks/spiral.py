"""The task that all programs share, in plain NumPy: the spiral, the network's start, the batches.

It stands here a second time so that a program of another library need not import this one; the
streams are those of ``load_data``, ``init_params`` and ``fit``, so that all train the same network.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple, TypeAlias

import numpy as np

Array: TypeAlias = np.ndarray[Any, Any]
Params: TypeAlias = dict[str, Array]
Batch: TypeAlias = tuple[Array, Array]


class Task(NamedTuple):
    """Data, initial parameters, and the stream of the shuffles."""

    params: Params
    x: Array
    t: Array
    rng: np.random.RandomState


def task(hidden: int = 10, samples_per_class: int = 100) -> Task:
    """Return the spiral with a network of so many hidden units."""
    rng = np.random.RandomState(1984)
    noise = rng.standard_normal((3, samples_per_class))
    radius = np.arange(samples_per_class) / samples_per_class
    angle = 4.0 * np.arange(3)[:, None] + 4.0 * radius + 0.2 * noise
    x = np.stack([radius * np.sin(angle), radius * np.cos(angle)], axis=-1).reshape(-1, 2)
    t = np.repeat(np.eye(3, dtype=np.int64), samples_per_class, axis=0)
    W1, W2 = (0.01 * rng.standard_normal(shape) for shape in ((2, hidden), (hidden, 3)))
    return Task({"W1": W1, "b1": np.zeros(hidden), "W2": W2, "b2": np.zeros(3)}, x, t, rng)


def batches(
    x: Array, t: Array, rng: np.random.RandomState, epochs: int, batch_size: int
) -> Iterator[Batch]:
    """Yield the book's batches: each epoch re-orders the data of the one before."""
    for _ in range(epochs):
        order = rng.permutation(len(x))
        x, t = x[order], t[order]
        for start in range(0, len(x) - batch_size + 1, batch_size):
            yield x[start : start + batch_size], t[start : start + batch_size]
