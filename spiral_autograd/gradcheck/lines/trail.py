"""The statements of somebody's code as they ran: what each made, and from what."""

from __future__ import annotations

import ast
import os
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import lru_cache
from importlib.machinery import EXTENSION_SUFFIXES
from itertools import islice
from types import CodeType, FrameType
from typing import Any

import numpy as np

from ...state import is_vocabulary
from ...validation import Array
from ..guard import NEVER, Deadline
from ..source import SKIP, Place, Step, definition_of, text_of
from .scope import UNKNOWN, Cell, Scope, entries, is_plain, leaves

LARGEST = 200_000  # entries of an array that is still noted
_ROOM = 4_000_000  # entries of arrays that are copied before they are written into
_INNER = ("<listcomp>", "<genexpr>", "<dictcomp>", "<setcomp>")  # parts of a statement


@dataclass(eq=False)
class Event:
    """One run of a statement, or of one part of what it gives; ``()``: of what it calls with."""

    place: Place
    step: Step | None
    run: int  # of the function that it belongs to
    part: str = ""
    sources: set[int] = field(default_factory=set)  # the events that made what it reads
    returns: list[int] = field(default_factory=list)  # the events that returned to it
    parts: dict[str, int] = field(default_factory=dict)
    handed: dict[int, int] = field(default_factory=dict)  # by id: who gave an array a new name
    namers: set[int] = field(default_factory=set)  # the events that named what it reads
    copied: int | None = None  # it gives an array a new name: the event that made the array


@dataclass(eq=False)
class Moment:
    """A value that an event made, or only handed on."""

    event: int
    name: str  # of what is returned: "return", "return[1]"
    value: Array
    fresh: bool


@dataclass(eq=False)
class Run:
    """A run of a function: the event that called it, and its first and its present one."""

    code: CodeType
    caller: int | None
    given: frozenset[int]
    first: int
    event: int | None = None
    before: list[Any] = field(default_factory=list)  # what a line of several statements may change


class Trail:
    """The statements that ran, and the values that they made, in order."""

    def __init__(self) -> None:
        self.events: list[Event] = []
        self.runs: list[Run] = []
        self.moments: list[Moment] = []
        self.is_whole = False

    def start_of(self, code: CodeType | None) -> int:
        """Return the first event of the first run of a function; 0 where it did not run."""
        return next((run.first for run in self.runs if run.code is code), 0)

    @property
    def may_not_end(self) -> bool:
        """Whether there is a `while` in the functions that ran."""
        trees = filter(None, map(definition_of, {run.code for run in self.runs}))
        return any(isinstance(node, ast.While) for tree in trees for node in ast.walk(tree))

    def feeding(self, *numbers: int) -> set[int]:
        """Return the events that what some events made came from, themselves included."""
        found, pending = {*numbers}, [*numbers]
        while pending:
            new = self.events[pending.pop()].sources - found
            found |= new
            pending += new
        return found


def follow(run: Callable[[], object], trail: Trail, deadline: Deadline = NEVER) -> None:
    """Note what each statement of the user's code makes while `run` runs, in time."""
    recorder = _Recorder(trail, deadline)
    before = sys.gettrace()
    sys.settrace(recorder.trace)
    try:
        run()
    finally:
        sys.settrace(before)
        recorder.keep_all()
        trail.is_whole = not deadline.is_over


def is_theirs(code: CodeType) -> bool:
    """Tell whether code is the user's: not NumPy's, not Python's, not this package's checker.

    Nor that of a package with compiled parts, as SciPy: with other lines in it the process may die.
    """
    return _is_file_of_theirs(code.co_filename)


@lru_cache(maxsize=4096)
def _is_file_of_theirs(filename: str) -> bool:
    file = os.path.normpath(filename)
    before, installed, after = file.rpartition(f"{os.sep}site-packages{os.sep}")
    is_python = not installed or not _has_compiled(before + installed + after.split(os.sep)[0])
    return is_python and not file.startswith(SKIP) and not file.startswith("<frozen")


@lru_cache(maxsize=256)
def _has_compiled(package: str) -> bool:
    """Tell whether a folder has compiled modules in it."""
    ends = tuple(EXTENSION_SUFFIXES)
    return any(name.endswith(ends) for *_, names in os.walk(package) for name in names)


def is_unchecked(code: CodeType) -> bool:
    """Tell whether code makes views that NumPy does not keep within the memory of their arrays.

    With other sizes they would lie beside it, and what is written there may end the process.
    """
    return "as_strided" in code.co_names


class _Recorder:
    """Notes what each statement of the user's code makes."""

    def __init__(self, trail: Trail, deadline: Deadline) -> None:
        self.trail, self.deadline = trail, deadline
        self._frames: dict[int, int] = {}  # from the id of a frame to its run
        self._keep: list[object] = []  # so that no id is given twice
        self._makers: dict[int, int] = {}  # by the id of an array; -1: it was there
        self._into: dict[int, int] = {}  # by the id of what is written into: a list, a memory
        self._writers: dict[Cell | None, int] = {}
        self._latest: dict[int, Moment] = {}
        self._live: dict[int, list[Moment]] = {}  # whose values are the user's own arrays
        self._lengths: dict[int, int] = {}
        self._room = _ROOM

    def trace(self, frame: FrameType, what: str, given: object) -> Any:
        """Follow the user's functions, the way `sys.settrace` asks for."""
        if self.deadline.is_over:  # the code runs on, unobserved
            sys.settrace(None)
            return None
        if what == "call":
            if not is_theirs(frame.f_code) or frame.f_code.co_name in _INNER:
                return None
            self._enter(frame)
        elif what in ("line", "return") and id(frame) in self._frames:
            self._go_on(frame, what == "return", given)
        return self.trace

    def _go_on(self, frame: FrameType, is_end: bool, given: object) -> None:
        """End the statement that has run, unless this is one more of its lines; begin the next."""
        text, run = text_of(frame.f_code), self.trail.runs[self._frames[id(frame)]]
        step = text.at(frame.f_lineno) if text is not None else None
        scope = Scope(frame, self._frames[id(frame)], frame.f_locals)
        if run.event is not None:
            now = self.trail.events[run.event].step
            if not is_end and step is not None and now is step and step.end > step.line:
                return
            self._finish(scope, run.event)
        if is_end:
            self._leave(scope, run, given)
        else:
            self._begin(scope, run, step)

    def _event(self, *args: Any) -> int:
        self.trail.events.append(Event(*args))
        return len(self.trail.events) - 1

    # -------------------- functions --------------------

    def _enter(self, frame: FrameType) -> None:
        outer = frame.f_back
        while outer is not None and id(outer) not in self._frames:
            outer = outer.f_back  # NumPy and Python call the user's functions too
        caller = None if outer is None else self.trail.runs[self._frames[id(outer)]].event
        number = self._frames[id(frame)] = len(self.trail.runs)
        names = dict(frame.f_locals)
        self._keep.append(names)
        if caller is None:
            for _, value in leaves(names, 3, attributes=True):
                self._makers.setdefault(id(value), -1)
        else:
            event = self.trail.events[caller]
            call = self._event(
                event.place, event.step, event.run, "()", set(event.sources), event.returns
            )
            for name, value in names.items():
                if isinstance(value, np.ndarray):
                    self._note(value, call, name, handed=False)  # made for the call
                    self._writers["local", number, name] = event.handed.get(id(value), -1)
                elif is_plain(value):
                    self._writers["local", number, name] = call
        given = frozenset(map(id, names.values()))
        self.trail.runs.append(Run(frame.f_code, caller, given, len(self.trail.events)))

    def _leave(self, scope: Scope, run: Run, given: object) -> None:
        del self._frames[id(scope.frame)]
        if run.event is None:
            return
        event = self.trail.events[run.event]
        self._keep.append(given)
        if isinstance(event.step and event.step.node, ast.Return):
            self._note_all(given, run.event, "return", "")
        for path, item in leaves(given, 1):
            if id(item) in run.given:  # it returns just what the function was given
                made = event.handed[id(item)] = event.parts.get(path, run.event)
                self.trail.events[made].copied = self._makers.get(id(item), -1)
        if run.caller is None:
            end = self._event(event.place, None, scope.run)  # of what it came is not known
            for path, value in leaves(dict(scope.names), 3, attributes=True):
                self._note(value, end, path, handed=False)
            return
        caller = self.trail.events[run.caller]
        caller.returns.append(run.event)
        for number in (run.caller, *caller.parts.values()):
            self.trail.events[number].sources.add(run.event)

    # -------------------- statements --------------------

    def _begin(self, scope: Scope, run: Run, step: Step | None) -> None:
        file, line = scope.frame.f_code.co_filename, scope.frame.f_lineno
        run.event = self._event((file, step.line if step is not None else line), step, scope.run)
        event = self.trail.events[run.event]
        if step is None:
            return
        run.before = [scope.look(target)[0] for target in step.targets] if step.beside else []
        for node in step.changed:
            if isinstance(value := scope.held(node), np.ndarray):
                self._save(value, step)
                event.sources |= self._sources(scope, node, event)
        for node in step.used:
            event.sources |= self._sources(scope, node, event)
        for path, nodes in step.parts.items():
            sources = {n for node in nodes for n in self._sources(scope, node, event)}
            part = self._event(event.place, step, scope.run, path, sources, event.returns)
            event.parts[path] = part

    def _sources(self, scope: Scope, node: ast.AST, event: Event) -> set[int]:
        """Return the events that made what an expression stands for."""
        value, cell = scope.look(node)
        writer = self._writers.get(cell, -1)
        event.namers |= {writer} - {-1}
        found: set[int] = set()
        if isinstance(value, np.ndarray):
            self._keep.append(value)
            found = {self._makers.setdefault(id(value), -1), self._into.get(_memory(value), -1)}
            if writer >= 0 and self.trail.events[writer].copied is not None:
                event.handed[id(value)] = writer
                found.add(writer)
        elif is_plain(value):
            found = {writer, self._into.get(id(value), -1)}
        found.discard(-1)
        inner = getattr(node, "value", None)
        if not found and isinstance(node, ast.Attribute | ast.Subscript) and inner is not None:
            return self._sources(scope, inner, event)
        return found or ({writer} - {-1} if isinstance(value, np.ndarray) else set())

    def _finish(self, scope: Scope, number: int) -> None:
        """Note what the statement that has run made, and where it is."""
        event = self.trail.events[number]
        step = event.step
        for i, target in enumerate(step.targets if step is not None else ()):
            value, cell = scope.look(target)
            before = self.trail.runs[scope.run].before
            if step is None or value is UNKNOWN or (before and before[i] is value):
                continue
            path = f"[{i}]" if len(step.targets) > 1 else ""
            part = event.parts.get(path, number)
            self._writers[cell] = self._writer(scope, event, part, value)
            if not (isinstance(step.node, ast.AugAssign) and id(value) in self._makers):
                self._note_all(value, number, "", path)
        for value in {id(v): v for v in map(scope.held, step.changed if step else ())}.values():
            self._change(value, number)

    def _writer(self, scope: Scope, event: Event, number: int, value: object) -> int:
        """Return the event that gave a value its name: for what was returned, the return."""
        if not isinstance(value, np.ndarray) or id(value) not in self._makers:
            return number
        source = getattr(event.step and event.step.node, "value", None)
        if source is not None and scope.look(source)[0] is value:
            self.trail.events[number].copied = self._makers[id(value)]
        given = (self.trail.events[n].handed.get(id(value)) for n in event.returns)
        return next((n for n in given if n is not None), number)

    def _change(self, value: object, number: int) -> None:
        """Note that a statement has written into an array, a list or a dict."""
        if isinstance(value, np.ndarray) and id(value) in self._makers:
            self._into[_memory(value)] = number
            for array in {id(a): a for a in (value, _owner(value))}.values():
                self._moment(array, number, "", True)
        elif isinstance(value, list | dict):
            # Who reads the whole of it reads this entry and those written before.
            event, before = self.trail.events[number], self._into.get(id(value), number)
            self._into[id(value)] = self._event(event.place, None, event.run, "", {number, before})
            self._keep.append(value)
            for key, item in islice(entries(value, newest=True), 16):
                if isinstance(item, np.ndarray) and id(item) not in self._makers:
                    self._note(item, number, f"[{key!r}]")

    # -------------------- values --------------------

    def _note_all(self, value: object, number: int, name: str, path: str) -> None:
        """Note the arrays and numbers that a value is or holds."""
        if isinstance(value, list | tuple | dict):
            if self._lengths.get(id(value)) == len(value) or is_vocabulary(value):
                return
            self._lengths[id(value)] = len(value)
            self._keep.append(value)
        parts = self.trail.events[number].parts
        for inner, item in leaves(value, 2):
            self._note(item, parts.get(path + inner, number), name + inner)

    def _note(self, value: object, number: int, name: str, handed: bool = True) -> None:
        """Note an array or a number where it is found: made there, changed since, handed on."""
        if not isinstance(value, np.ndarray):
            self._moment(np.asarray(value), number, name, True)
            return
        key, into = id(value), self._into.get(_memory(value), -1)
        if key not in self._makers:
            self._makers[key] = number
            self._moment(value, number, name, True)
            return
        if into >= 0 and (key not in self._latest or self._latest[key].event < into):
            self._moment(value, into, name, True)
        if handed:
            self._moment(value, number, name, False)

    def _moment(self, array: Array, number: int, name: str, fresh: bool) -> None:
        self._keep.append(array)
        if array.dtype.kind in "fiub" and 0 < array.size <= LARGEST:
            fresh_or_first = fresh or id(array) not in self._latest
            value = array if fresh_or_first else self._latest[id(array)].value
            moment = Moment(number, name, value, fresh)
            self.trail.moments.append(moment)
            self._live.setdefault(_memory(array), []).append(moment)
            if fresh_or_first:
                self._latest[id(array)] = moment

    def _save(self, array: Array, step: Step) -> None:
        """Copy what an array has been until now: it is about to be written into.

        What the same statement has written before counts once, by the last of its runs.
        """
        copies: dict[int, Array] = {}
        for moment in self._live.pop(_memory(array), ()):
            if self.trail.events[moment.event].step is step or self._room < 0:
                moment.event = -1
                continue
            key = id(moment.value)
            if key not in copies:
                copies[key] = np.array(moment.value)
                self._room -= moment.value.size
            moment.value = copies[key]

    def keep_all(self) -> None:
        """Copy the arrays that are still the user's own."""
        for moments in self._live.values():
            for moment in moments:
                moment.value = np.array(moment.value)
        self.trail.moments = [m for m in self.trail.moments if m.event >= 0]


def _owner(array: Array) -> Array:
    """Return the array whose memory a view looks into."""
    while isinstance(array.base, np.ndarray):
        array = array.base
    return array


def _memory(array: Array) -> int:
    return id(_owner(array))
