"""What each line of somebody's code makes while it runs."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from types import CodeType, FrameType, ModuleType
from typing import Any

import numpy as np

from ...validation import Array, Shape
from ..blocks import largest
from ..guard import NEVER, Deadline
from ..source import Step, is_theirs, steps_of
from ..subject.reached import dict_of, is_vocabulary
from .uses import UNKNOWN, Place, Scope, uses_of

LARGEST = 200_000  # entries of an array that is still noted


@dataclass(frozen=True)
class Moment:
    """A value that a line of the backward pass made."""

    file: str
    line: int
    value: Array
    name: str = ""  # such as "dx", "self.dW", "self.grads[0]", "return[1]"
    event: int | None = None  # the run of a statement that made it
    fresh: bool = True  # it was not there before, with these numbers


@dataclass
class Event:
    """One run of a statement.

    Attributes
    ----------
    file, line : str, int
    step : Step or None
        The statement; None where its source cannot be read.
    frame : int
        The run of a function that it belongs to.
    reads : tuple of Place
    writes : tuple of (Place, bool)
        What it writes, and whether all of it is new.
    by_node : list of lists of Place
        What each of the expressions that it reads is read from.
    objects : dict
        From the id of an object that it reads to the places that hold it.
    made : dict
        From a place that it has written to the id of what is there afterwards.
    returns : list of (int, tuple)
        The events that returned to it, each with the ids of the parts of what it gave.
    """

    file: str
    line: int
    step: Step | None
    frame: int
    reads: tuple[Place, ...] = ()
    writes: tuple[tuple[Place, bool], ...] = ()
    by_node: list[list[Place]] = field(default_factory=list)
    objects: dict[int, list[Place]] = field(default_factory=dict)
    made: dict[Place, int] = field(default_factory=dict)
    returns: list[tuple[int, tuple[int, ...]]] = field(default_factory=list)


@dataclass
class Entry:
    """A run of a function: its code, the event that called it, and the objects it was given."""

    code: CodeType
    caller: int | None
    given: dict[str, Any]
    first: int  # the number of the first event since it began
    event: int | None = None


@dataclass
class History:
    """What the user's code has done while something ran.

    Attributes
    ----------
    events : list of Event
    entries : list of Entry
        By the number of the frame.
    born : dict
        From the id of an array to the event during which it was first met.
    """

    events: list[Event] = field(default_factory=list)
    entries: list[Entry] = field(default_factory=list)
    born: dict[int, int] = field(default_factory=dict)


class Moments(list[Moment]):
    """What each line of the user's code made, in order, and how it came about."""

    def __init__(self) -> None:
        super().__init__()
        self.history = History()
        self.is_whole = False


_INNER = ("<listcomp>", "<genexpr>", "<dictcomp>", "<setcomp>")  # parts of a statement
_TURNS = 1000  # runs of one statement that are told apart


class _Recorder:
    """Notes what each line of the user's code makes."""

    def __init__(self, found: Moments, deadline: Deadline) -> None:
        self.found, self.deadline = found, deadline
        self._known: dict[int, Any] = {}
        self._at: dict[int, int] = {}
        self._frames: dict[int, int] = {}
        self._turns: dict[int, int] = {}
        self._keep: list[Any] = []

    def trace(self, frame: FrameType, event: str, arg: Any) -> Any:
        if self.deadline.is_over:  # the code runs on, unobserved
            sys.settrace(None)
            return None
        if not is_theirs(frame.f_code):
            return None
        key = id(frame)
        if event == "call":
            self._at[key] = frame.f_lineno
            self._enter(frame)
            self._take(frame)
        elif event in ("line", "return"):
            line = self._at.get(key, frame.f_lineno)
            self._note(frame, line)
            if event == "return":
                self._give(frame, line, arg)
            else:
                self._begin(frame)
            self._at[key] = frame.f_lineno
        return self.trace

    # -------------------- statements --------------------

    def _enter(self, frame: FrameType) -> None:
        caller = frame.f_back
        while caller is not None and not is_theirs(caller.f_code):
            caller = caller.f_back  # NumPy and Python call the user's functions too
        outer = self._frames.get(id(caller)) if caller is not None else None
        history = self.found.history
        if frame.f_code.co_name in _INNER and outer is not None:
            self._frames[id(frame)] = outer
            return
        event = history.entries[outer].event if outer is not None else None
        given = dict(frame.f_locals)
        self._frames[id(frame)] = len(history.entries)
        history.entries.append(Entry(frame.f_code, event, given, len(history.events)))

    def _current(self, frame: FrameType) -> int | None:
        number = self._frames.get(id(frame))
        return None if number is None else self.found.history.entries[number].event

    def _begin(self, frame: FrameType) -> None:
        """Begin a statement, unless the line is one more of the statement that runs."""
        number = self._frames.get(id(frame))
        if number is None or frame.f_code.co_name in _INNER:
            return
        history = self.found.history
        entry = history.entries[number]
        step = steps_of(frame.f_code).get(frame.f_lineno)
        before = None if entry.event is None else history.events[entry.event]
        if step is not None and before is not None and before.step is step and step.end > step.line:
            return
        self._finish(frame)
        turns = self._turns[id(step)] = self._turns.get(id(step), 0) + 1
        if step is not None and turns > _TURNS and before is not None:
            return
        made = Event(frame.f_code.co_filename, step.line if step else frame.f_lineno, step, number)
        if step is not None:
            self._look(made, step, Scope(frame, number, frame.f_locals))
        entry.event = len(history.events)
        history.events.append(made)

    def _look(self, event: Event, step: Step, scope: Scope) -> None:
        uses = uses_of(step)
        reads: dict[Place, None] = {}
        for node in uses.reads:
            places = list(scope.read(node))
            event.by_node.append(places)
            reads.update(dict.fromkeys(places))
            value = scope.value(node)
            if value is not UNKNOWN:
                event.objects.setdefault(id(value), []).extend(places)
                self._keep.append(value)
        event.reads = tuple(reads)
        writes = [pair for node in uses.anew for pair in scope.written(node, True)]
        writes += [pair for node in uses.into for pair in scope.written(node, False)]
        event.writes = tuple(writes)

    def _finish(self, frame: FrameType) -> None:
        """Note which objects are where the statement has written."""
        number = self._current(frame)
        event = self.found.history.events[number] if number is not None else None
        if event is None or event.step is None:
            return
        scope = Scope(frame, event.frame, frame.f_locals)
        for node in uses_of(event.step).anew:
            value = scope.value(node)
            if value is not UNKNOWN:
                self._keep.append(value)
                event.made.update((place, id(value)) for place, _ in scope.written(node, True))

    # -------------------- values --------------------

    def _take(self, frame: FrameType) -> None:
        """Note what a function is called with: what the caller made for it, the caller made."""
        caller = frame.f_back
        theirs = caller is not None and is_theirs(caller.f_code)
        for name, value in _arrays(frame.f_locals):
            mark = _mark(value)
            if theirs and caller is not None and self._known.get(id(value)) != mark:
                place = caller.f_code.co_filename, caller.f_lineno
                self._add(caller, place, value, name, True)
            self._know(id(value), mark)
            self._keep.append(value)

    def _note(self, frame: FrameType, line: int) -> None:
        for name, value in _arrays(frame.f_locals):
            scalar = value.ndim == 0 and value.base is None
            key, mark = hash((id(frame), name)) if scalar else id(value), _mark(value)
            if self._known.get(key) != mark:
                self._know(key, mark)
                self._add(frame, (frame.f_code.co_filename, line), value, name, True)
                self._keep.append(value)

    def _give(self, frame: FrameType, line: int, given: Any) -> None:
        parts = given if isinstance(given, tuple | list) else (given,)
        for i, item in enumerate(parts):
            for name, value in _arrays({f"return[{i}]": item}):
                mark = _mark(value)
                fresh = self._known.get(id(value)) != mark
                self._add(frame, (frame.f_code.co_filename, line), value, name, fresh)
                self._know(id(value), mark)
                self._keep.append(value)
        self._finish(frame)
        number = self._frames.get(id(frame))
        if number is None or frame.f_code.co_name in _INNER:
            return
        entry = self.found.history.entries[number]
        if entry.event is not None and entry.caller is not None:
            self._keep.append(given)
            ids = (id(given), *map(id, parts))
            self.found.history.events[entry.caller].returns.append((entry.event, ids))

    def _know(self, key: int, mark: Any) -> None:
        self._known[key] = mark
        self.found.history.born.setdefault(key, len(self.found.history.events))

    def _add(
        self, frame: FrameType, place: tuple[str, int], value: Array, name: str, fresh: bool
    ) -> None:
        event = self._current(frame)
        self.found.append(Moment(*place, np.array(value), name, event, fresh))


def moments(run: Callable[[], Any], found: Moments, deadline: Deadline = NEVER) -> None:
    """Note what each line of the user's code makes while `run` runs, in order, in time."""
    recorder = _Recorder(found, deadline)
    before = sys.gettrace()
    sys.settrace(recorder.trace)
    try:
        run()
    finally:
        sys.settrace(before)
        found.is_whole = not deadline.is_over


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
        elif not depth or is_vocabulary(value):
            return
        elif isinstance(value, dict):
            for key, item in list(dict.items(value)):
                collect(f"{name}[{key!r}]", item, depth - 1)
        elif isinstance(value, list | tuple):
            for i, item in enumerate(value):
                collect(f"{name}[{i}]", item, depth - 1)
        elif not isinstance(value, ModuleType):
            for key, item in list((dict_of(value) or {}).items()):
                collect(f"{name}.{key}", item, depth - 1)

    for name, value in list(names.items()):
        collect(name, value, 2)
    return found


class Known:
    """Arrays, to be asked which of them a value is, to rounding.

    Each is known by a weighted sum of its entries, so that few have to be compared.
    """

    def __init__(self, values: Sequence[Any]) -> None:
        self._numbers: dict[Shape, list[int]] = {}
        for i, value in enumerate(values):
            self._numbers.setdefault(np.shape(value), []).append(i)
        self._stacks = {
            shape: np.stack([np.asarray(values[i], dtype=float) for i in numbers])
            for shape, numbers in self._numbers.items()
        }
        self._sums: dict[Shape, tuple[Array, Array, Array]] = {}

    def _sums_of(self, shape: Shape) -> tuple[Array, Array, Array]:
        """Return the weights, the order of the sums of the arrays of a shape, and these."""
        if shape not in self._sums:
            stack = self._stacks[shape]
            weights = np.random.default_rng(0).uniform(0.5, 1.5, stack[0].size)
            with np.errstate(all="ignore"):
                sums = stack.reshape(len(stack), -1) @ weights
            order = np.argsort(sums)
            self._sums[shape] = weights, order, sums[order]
        return self._sums[shape]

    def which(self, value: Any, tolerance: float) -> list[int]:
        """Return the numbers of the arrays that are equal to a value."""
        value = np.asarray(value, dtype=float)
        stack = self._stacks.get(value.shape)
        if stack is None or value.size == 0 or not np.isfinite(largest(value)):
            return []
        weights, order, sums = self._sums_of(value.shape)
        off = (2 * tolerance + 1e-15 * value.size) * float(weights.sum()) * largest(value)
        middle = float(np.ravel(value) @ weights)
        first = np.searchsorted(sums, middle - off, side="left")
        last = np.searchsorted(sums, middle + off, side="right")
        near = np.sort(order[first:last])
        stack, axes = stack[near], tuple(range(1, stack.ndim))
        apart = np.abs(stack - value).max(axis=axes)
        scale = np.maximum(np.abs(stack).max(axis=axes), np.abs(value).max())
        numbers = self._numbers[value.shape]
        return [numbers[near[i]] for i in np.flatnonzero(apart <= tolerance * scale)]
