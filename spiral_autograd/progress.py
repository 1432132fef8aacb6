"""How far a run is, said where a person watches: in a terminal or a notebook, nowhere else."""

from __future__ import annotations

import sys
import time
import warnings
from collections.abc import Callable

EVERY = 0.2  # seconds between two looks at the line
AFTER = 1.0  # seconds before the first: what is shorter needs none

Show = Callable[[int, str], None]


def watched() -> bool:
    """Tell whether a person sees what is written to standard error."""
    return "ipykernel" in sys.modules or bool(sys.stderr and sys.stderr.isatty())


def progress(total: int) -> tuple[Show, Callable[[], None]]:
    """Return what shows that so many of `total` are done, with a few words, and what ends it."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the advice to install ipywidgets in a notebook
            from tqdm.auto import tqdm
    except ImportError:
        return _line(total)
    bar = tqdm(total=total, unit="batch", leave=False, delay=AFTER, mininterval=EVERY)

    def show(done: int, words: str) -> None:
        bar.set_postfix_str(words, refresh=False)
        bar.update(done - bar.n)

    return show, bar.close


def _line(total: int) -> tuple[Show, Callable[[], None]]:
    """Return the same as a line of text that is written over itself, and wiped at the end."""
    after = time.monotonic() + AFTER

    def write(line: str) -> None:
        if time.monotonic() >= after:
            sys.stderr.write(f"\r{line:79}" + "\r" * (not line))
            sys.stderr.flush()

    def show(done: int, words: str) -> None:
        write(f"{done / total:4.0%} of {total:,} batches, {words}")

    return show, lambda: write("")
