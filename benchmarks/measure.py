"""Interleaved timings: machines drift, ratios within one run do not."""

from __future__ import annotations

import time
import tracemalloc
from collections.abc import Callable, Mapping
from statistics import median
from typing import Any


def interleaved(
    programs: Mapping[str, Callable[[], Any]], *, repeats: int, calls: int = 1
) -> dict[str, float]:
    """Return the median seconds of a call of each program, timed in turn `repeats` times."""
    seconds: dict[str, list[float]] = {name: [] for name in programs}
    for program in programs.values():
        program()
    for _ in range(repeats):
        for name, program in programs.items():
            started = time.perf_counter()
            for _ in range(calls):
                program()
            seconds[name].append((time.perf_counter() - started) / calls)
    return {name: median(times) for name, times in seconds.items()}


def peak_memory(program: Callable[[], Any]) -> int:
    """Return the bytes that a program holds at its peak, above what was there before."""
    tracemalloc.start()
    try:
        program()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
