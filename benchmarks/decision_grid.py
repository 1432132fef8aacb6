"""The decision grid of the trained network against the whole-array program.

Run with: python -m benchmarks.decision_grid
"""

from __future__ import annotations

import numpy as np

import spiral_autograd as sa

from .measure import Timings, interleaved, peak_memory, table
from .spiral import Array, task


def whole_array(params: dict[str, Array], x: Array, h: float = 0.001) -> Array:
    """Return the class map by the straightforward program: every point in one array."""
    xs = np.arange(x[:, 0].min() - 0.1, x[:, 0].max() + 0.1, h)
    ys = np.arange(x[:, 1].min() - 0.1, x[:, 1].max() + 0.1, h)
    columns, rows = np.meshgrid(xs, ys)
    points = np.c_[columns.ravel(), rows.ravel()]
    hidden = 1 / (1 + np.exp(-(np.dot(points, params["W1"]) + params["b1"])))
    scores = np.dot(hidden, params["W2"]) + params["b2"]
    return np.argmax(scores, axis=1).reshape(columns.shape)


def measure(repeats: int = 9) -> tuple[Timings, dict[str, int]]:
    """Return the seconds and the peak bytes of both programs, which must agree at every point."""
    params, x, t, rng = task()
    params = sa.fit(
        params, x, t, optimizer=sa.sgd(1.0), max_epoch=300, batch_size=30, rng=rng
    ).params
    programs = {
        "whole array": lambda: whole_array(params, x),
        "decision_grid": lambda: sa.decision_grid(params, x),
    }
    assert np.array_equal(whole_array(params, x), sa.decision_grid(params, x)[2])
    memory = {name: peak_memory(program) for name, program in programs.items()}
    return interleaved(programs, repeats=repeats), memory


def compared(timings: Timings, memory: dict[str, int]) -> str:
    """Return the comparison as a Markdown table."""
    header = "decision grid, 4,323,264 points", "time [ms]", "ratio", "peak memory [MB]", "ratio"
    rows = [
        (
            name,
            f"{timings.median(name) * 1e3:.0f}",
            f"1 / {timings.ratio('whole array', name):.1f}",
            f"{memory[name] / 1e6:.0f}",
            f"1 / {memory['whole array'] / memory[name]:.1f}",
        )
        for name in timings
    ]
    return table(header, rows)


if __name__ == "__main__":
    print(compared(*measure()))
