"""Whole processes, as a shell starts them: from start to trained network, and the import alone."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from functools import partial

import numpy as np

from .measure import Timings, interleaved
from .programs import installed

# As it is installed: a package whose bytecode may not be kept is compiled at every import.
ENVIRONMENT = {k: v for k, v in os.environ.items() if k != "PYTHONDONTWRITEBYTECODE"}


def _python(*args: str) -> str:
    command = [sys.executable, *args]
    return subprocess.run(
        command, check=True, env=ENVIRONMENT, stdout=subprocess.PIPE, text=True
    ).stdout


def training(repeats: int) -> Timings:
    """Return the seconds of 3,000 steps on the spiral, Python's start and imports included.

    All the trained networks must be the same one.
    """
    trained: dict[str, list[float]] = {}

    def run(name: str) -> None:
        trained[name] = [float(word) for word in _python("-m", "benchmarks.train", name).split()]

    programs: dict[str, Callable[[], None]] = {name: partial(run, name) for name in installed()}
    timings = interleaved(programs, repeats=repeats)
    for name, squares in trained.items():
        assert np.allclose(squares, trained["derived"], rtol=1e-8), f"{name}: another network"
    return timings


def imports(repeats: int) -> Timings:
    """Return the seconds of a process that imports this library, or autograd's NumPy alone."""
    return interleaved(
        {
            library: partial(_python, "-c", f"import {library}")
            for library in ("spiral_autograd", "autograd.numpy")
        },
        repeats=repeats,
    )
