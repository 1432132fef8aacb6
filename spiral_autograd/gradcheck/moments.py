"""What each line of somebody's code makes while it runs."""

from __future__ import annotations

import linecache
import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from types import CodeType, FrameType
from typing import Any

import numpy as np

from ..recording import Call
from ..validation import Array, Shape

LARGEST = 200_000  # entries of an array that is still noted


@dataclass(frozen=True)
class Moment:
    """A value that a line of the backward pass made."""

    file: str
    line: int
    value: Array
    name: str = ""  # such as "dx", "self.dW", "self.grads[0]", "return[1]"


_SKIP = tuple(
    os.path.dirname(os.path.abspath(m)) + os.sep
    for m in (np.__file__, os.__file__, os.path.dirname(__file__))
)


def is_readable(place: tuple[str, int]) -> bool:
    """Tell whether there is a source line to show at a place."""
    return bool(linecache.getline(*place).strip())


def is_theirs(code: CodeType) -> bool:
    """Tell whether code is the user's: not NumPy's, not Python's, not this package's checker."""
    file = os.path.normpath(code.co_filename)
    return not file.startswith(_SKIP) and not file.startswith("<frozen")


class _Recorder:
    """Notes what each line of the user's code makes."""

    def __init__(self) -> None:
        self.found: list[Moment] = []
        self._known: dict[int, Any] = {}
        self._at: dict[int, int] = {}
        self._keep: list[Any] = []

    def trace(self, frame: FrameType, event: str, arg: Any) -> Any:
        if not is_theirs(frame.f_code):
            return None
        key = id(frame)
        if event == "call":
            self._at[key] = frame.f_lineno
            self._take(frame)
        elif event in ("line", "return"):
            line = self._at.get(key, frame.f_lineno)
            self._note(frame, line)
            if event == "return":
                self._give(frame, line, arg)
            self._at[key] = frame.f_lineno
        return self.trace

    def _take(self, frame: FrameType) -> None:
        """Note what a function is called with: what the caller made for it, the caller made."""
        caller = frame.f_back
        theirs = caller is not None and is_theirs(caller.f_code)
        for name, value in _arrays(frame.f_locals):
            mark = _mark(value)
            if theirs and caller is not None and self._known.get(id(value)) != mark:
                place = caller.f_code.co_filename, caller.f_lineno
                self.found.append(Moment(*place, np.array(value), name))
            self._known[id(value)] = mark
            self._keep.append(value)

    def _note(self, frame: FrameType, line: int) -> None:
        for name, value in _arrays(frame.f_locals):
            scalar = value.ndim == 0 and value.base is None
            key, mark = hash((id(frame), name)) if scalar else id(value), _mark(value)
            if self._known.get(key) != mark:
                self._known[key] = mark
                self.found.append(Moment(frame.f_code.co_filename, line, np.array(value), name))
                self._keep.append(value)

    def _give(self, frame: FrameType, line: int, given: Any) -> None:
        given = given if isinstance(given, tuple | list) else (given,)
        for i, item in enumerate(given):
            for name, value in _arrays({f"return[{i}]": item}):
                self.found.append(Moment(frame.f_code.co_filename, line, np.array(value), name))


def moments(run: Callable[[], Any]) -> list[Moment]:
    """Return what each line of the user's code makes while `run` runs, in order."""
    recorder = _Recorder()
    before = sys.gettrace()
    sys.settrace(recorder.trace)
    try:
        run()
    finally:
        sys.settrace(before)
    return recorder.found


def _mark(value: Array) -> Any:
    with np.errstate(all="ignore"):
        return value.shape, float(np.sum(value)), float(np.sum(np.abs(value)))


def _arrays(names: dict[str, Any]) -> list[tuple[str, Array]]:
    found: list[tuple[str, Array]] = []

    def collect(name: str, value: Any, depth: int) -> None:
        if isinstance(value, np.ndarray):
            if value.dtype.kind == "f" and 0 < value.size <= LARGEST:
                found.append((name, value))
        elif isinstance(value, np.floating):
            found.append((name, np.asarray(value)))
        elif depth and isinstance(value, dict):
            for key, item in list(value.items()):
                collect(f"{name}[{key!r}]", item, depth - 1)
        elif depth and isinstance(value, list | tuple):
            for i, item in enumerate(value):
                collect(f"{name}[{i}]", item, depth - 1)
        elif depth and hasattr(value, "__dict__") and not callable(value):
            for key, item in list(vars(value).items()):
                collect(f"{name}.{key}", item, depth - 1)

    for name, value in list(names.items()):
        collect(name, value, 2)
    return found


class Known:
    """Arrays, to be asked which of them a value is, to rounding."""

    def __init__(self, values: Sequence[Any]) -> None:
        self._numbers: dict[Shape, list[int]] = {}
        for i, value in enumerate(values):
            self._numbers.setdefault(np.shape(value), []).append(i)
        self._stacks = {
            shape: np.stack([np.asarray(values[i], dtype=float) for i in numbers])
            for shape, numbers in self._numbers.items()
        }

    def which(self, value: Any, tolerance: float) -> list[int]:
        """Return the numbers of the arrays that are equal to a value."""
        value = np.asarray(value, dtype=float)
        stack = self._stacks.get(value.shape)
        if stack is None or value.size == 0:
            return []
        axes = tuple(range(1, stack.ndim))
        apart = np.abs(stack - value).max(axis=axes)
        scale = np.maximum(np.abs(stack).max(axis=axes), np.abs(value).max())
        return [self._numbers[value.shape][i] for i in np.flatnonzero(apart <= tolerance * scale)]


def backward_line(
    seen: Sequence[Moment], products: Sequence[Any], true_values: Sequence[Any], tolerance: float
) -> tuple[str, int] | None:
    """Return the first line that makes one of `products`, which no true value is equal to."""
    known = Known([np.asarray(v) for v in true_values if np.size(v) <= LARGEST])
    some = [p for p in products if 1 < np.size(p) <= LARGEST and np.any(p)]
    wanted = Known([p for p in some if not known.which(p, tolerance)])
    for moment in seen:
        if wanted.which(moment.value, tolerance):
            return moment.file, moment.line
    return None


def last_line_of(seen: Sequence[Moment], value: Any) -> tuple[str, int] | None:
    """Return the line that first makes just this value, shape included."""
    value = np.asarray(value)
    for moment in seen:
        if moment.value.shape == value.shape and np.array_equal(moment.value, value):
            return moment.file, moment.line
    return None


def forward_line(call: Call | None) -> tuple[str, int] | None:
    """Return the line of the forward operation that a call was recorded at."""
    if call is None or call.source is None:
        return None
    file, line = call.source[0], call.source[1]
    if os.path.normpath(file).startswith(_SKIP) or "site-packages" in file or file.startswith("<"):
        return None
    return file, line
