"""The derived program alone, with the flat update in place: no copies, nothing kept."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

import spiral_autograd as sa
from spiral_autograd.pytree import FlatLayout

from ..spiral import Array, Params


def steps(params: Params, x: Array, t: Array, lr: float) -> Callable[[int], None]:
    """Return run(n), which takes n steps on one batch."""
    make, dtypes = sa.derive(sa.loss, params, x, t).buffered
    layout = FlatLayout.of(params)
    vector, gradient = (layout.pack_tree(params) for _ in range(2))
    batch = [array[None].astype(dtype) for array, dtype in zip((x, t), dtypes, strict=True)]
    (step,), losses = make(layout.views(vector), layout.views(gradient), batch, 1)
    rate = np.array(lr)

    def run(n: int) -> None:
        for _ in range(n):
            step()
            losses(1)
            np.multiply(gradient, rate, gradient)
            np.subtract(vector, gradient, vector)

    return run
