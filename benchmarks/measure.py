"""Interleaved timings: machines drift, ratios within one run do not."""

from __future__ import annotations

import os
import time
import tracemalloc
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from statistics import median
from typing import Any


@dataclass(frozen=True)
class Timings:
    """The seconds of each program, one entry for each round in which all of them ran."""

    seconds: Mapping[str, list[float]]

    def __iter__(self) -> Iterator[str]:
        return iter(self.seconds)

    def median(self, name: str) -> float:
        """Return the median seconds of a program."""
        return median(self.seconds[name])

    def ratio(self, name: str, to: str) -> float:
        """Return the median of the ratios of two programs in the same round."""
        pairs = zip(self.seconds[name], self.seconds[to], strict=True)
        return median(ours / theirs for ours, theirs in pairs)


def timed(program: Callable[..., Any], *args: Any) -> float:
    """Return the seconds of one call."""
    started = time.perf_counter()
    program(*args)
    return time.perf_counter() - started


def interleaved(programs: Mapping[str, Callable[[], Any]], *, repeats: int) -> Timings:
    """Time all programs in turn `repeats` times, after one call of each that does not count.

    Every round begins with the next program, so that none always follows the same one.
    """
    names = list(programs)
    seconds: dict[str, list[float]] = {name: [] for name in names}
    for program in programs.values():
        program()
    for i in range(repeats):
        first = i % len(names)
        for name in names[first:] + names[:first]:
            seconds[name].append(timed(programs[name]))
    return Timings(seconds)


@contextmanager
def one_core() -> Iterator[None]:
    """Keep this process, and the threads that it starts meanwhile, on one core (on Linux)."""
    if not hasattr(os, "sched_setaffinity"):
        yield
        return
    cores = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {max(cores)})
    try:
        yield
    finally:
        os.sched_setaffinity(0, cores)


def peak_memory(program: Callable[[], Any]) -> int:
    """Return the bytes that a program holds at its peak, above what was there before."""
    tracemalloc.start()
    try:
        program()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def table(header: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    """Return a Markdown table, whose first column has the names of the rows."""
    header = list(header)
    rule = ["---", *["--:"] * (len(header) - 1)]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in [header, rule, *rows])
