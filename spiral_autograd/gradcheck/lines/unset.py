"""Arrays of which entries are never set: `np.empty` makes them of whatever was there before."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np

from ...validation import Array
from ..source import Place
from .trail import Trail, is_theirs

MAKERS = ("empty", "empty_like")


def makes_empty(trail: Trail) -> bool:
    """Tell whether some of the functions that ran call what makes such arrays."""
    return any(name in run.code.co_names for run in trail.runs for name in MAKERS)


def unset_at(run: Callable[[], Sequence[Any]], k: int) -> tuple[Place, int] | None:
    """Return where an array is made whose unset entries the k-th gradient has, and in how many."""
    met: list[Place] = []
    with _marked(met, lambda place: True):
        if not _count_unknown(run()[k]):
            return None
    for place in dict.fromkeys(met):
        with _marked([], place.__eq__):
            count = _count_unknown(run()[k])
        if count:
            return place, count
    return None


def _count_unknown(gradient: Any) -> int:
    return 0 if gradient is None else int(np.isnan(np.asarray(gradient, dtype=float)).sum())


@contextmanager
def _marked(met: list[Place], which: Callable[[Place], bool]) -> Iterator[None]:
    """Let empty arrays that are made at some places be full of NaN for a while; note the places."""
    before = {name: getattr(np, name) for name in MAKERS}

    def marking(make: Callable[..., Array]) -> Callable[..., Array]:
        def made(*args: Any, **named: Any) -> Array:
            array, frame = make(*args, **named), sys._getframe(1)
            if is_theirs(frame.f_code) and array.dtype.kind == "f":
                place = frame.f_code.co_filename, frame.f_lineno
                met.append(place)
                array.fill(np.nan if which(place) else 0.0)
            return array

        return made

    try:
        for name, make in before.items():
            setattr(np, name, marking(make))
        yield
    finally:
        for name, make in before.items():
            setattr(np, name, make)
