"""The statements of somebody's code as they ran: what each made, and from what."""

from __future__ import annotations

import ast
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import islice
from types import CodeType, FrameType, ModuleType
from typing import Any

import numpy as np

from ...validation import Array
from ..guard import NEVER, Deadline
from ..source import Place, Step, is_theirs, text_of
from ..subject.reached import dict_of, is_vocabulary

LARGEST = 200_000  # entries of an array that is still noted
_ROOM = 4_000_000  # entries of arrays that are copied before they are written into
_INNER = ("<listcomp>", "<genexpr>", "<dictcomp>", "<setcomp>")  # parts of a statement
_UNKNOWN = object()  # what cannot be told without running the user's code

# What holds a value: ("local", run, name), ("attribute", id, name), ("entry", id, key), ….
Cell = tuple[object, ...]


@dataclass(eq=False)
class Event:
    """One run of a statement, or of one part of what a statement gives."""

    place: Place
    step: Step | None
    run: int  # of the function that it belongs to
    part: str = ""
    sources: set[int] = field(default_factory=set)  # the events that made what it reads
    returns: list[int] = field(default_factory=list)  # the events that returned to it
    parts: dict[str, int] = field(default_factory=dict)
    passing: dict[int, int] = field(default_factory=dict)  # by the id of an array: who passed it on
    gives_back: bool = False  # it returns just what the function was given
    copied: int | None = None  # it gives an array one more name: the event that made the array


@dataclass(eq=False)
class Moment:
    """A value that an event made, or only handed on."""

    event: int
    name: str
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

    def feeding(self, number: int) -> set[int]:
        """Return the events that what an event made came from, itself included."""
        found, pending = {number}, [number]
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


@dataclass(frozen=True)
class _Scope:
    """The names that a statement sees."""

    frame: FrameType
    run: int
    names: Mapping[str, Any]

    def look(self, node: ast.AST) -> tuple[Any, Cell | None]:
        """Return the object that an expression stands for, and what holds it."""
        if isinstance(node, ast.Name):
            if node.id in self.names:
                code = self.frame.f_code
                shared = node.id in code.co_freevars or node.id in code.co_cellvars
                return self.names[node.id], ("local", None if shared else self.run, node.id)
            names = self.frame.f_globals
            return names.get(node.id, _UNKNOWN), ("global", id(names), node.id)
        if not isinstance(node, ast.Attribute | ast.Subscript):
            return _UNKNOWN, None
        held, _ = self.look(node.value)
        if isinstance(node, ast.Attribute):
            fields = None if held is _UNKNOWN else dict_of(held)
            return (fields or {}).get(node.attr, _UNKNOWN), ("attribute", id(held), node.attr)
        key = self._key(node.slice) if type(held) in (dict, list, tuple) else None
        if key is None:
            return _UNKNOWN, None
        try:
            return held[key], ("entry", id(held), key)
        except (LookupError, TypeError):
            return _UNKNOWN, ("entry", id(held), key)

    def held(self, node: ast.AST) -> Any:
        """Return the innermost array, list or dict that an expression is rooted in."""
        while True:
            value = self.look(node)[0]
            inner = getattr(node, "func" if isinstance(node, ast.Call) else "value", None)
            if isinstance(value, np.ndarray | list | dict) or inner is None:
                return value
            node = inner

    def _key(self, node: ast.expr) -> int | str | None:
        """Return a plain key: a number or string, or made of variables that are."""
        if isinstance(node, ast.Constant | ast.Name | ast.Attribute):
            value = node.value if isinstance(node, ast.Constant) else self.look(node)[0]
            return value if isinstance(value, int | str) else None
        if isinstance(node, ast.JoinedStr):
            parts = [v.value if isinstance(v, ast.FormattedValue) else v for v in node.values]
            keys = [self._key(part) for part in parts]
            return None if None in keys else "".join(map(str, keys))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and len(node.args) == 1:
            key = self._key(node.args[0]) if node.func.id == "str" else None
            return None if key is None else str(key)
        if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add | ast.Sub):
            left, right = self._key(node.left), self._key(node.right)
            if isinstance(left, int) and isinstance(right, int):
                return left + right if isinstance(node.op, ast.Add) else left - right
            if isinstance(left, str) and isinstance(right, str):
                return left + right
        return None


class _Recorder:
    """Notes what each statement of the user's code makes."""

    def __init__(self, trail: Trail, deadline: Deadline) -> None:
        self.trail, self.deadline = trail, deadline
        self._frames: dict[int, int] = {}
        self._keep: list[object] = []  # so that no id is given twice
        self._makers: dict[int, int | None] = {}  # by the id of an array; None: it was there
        self._into: dict[int, int] = {}  # by the id of an array that owns its memory, or a list
        self._writers: dict[Cell | None, int] = {}
        self._passing: dict[Cell | None, int] = {}
        self._latest: dict[int, Moment] = {}
        self._live: dict[int, list[Moment]] = {}  # whose values are the user's own arrays
        self._lengths: dict[int, int] = {}
        self._room = _ROOM

    def trace(self, frame: FrameType, what: str, given: Any) -> Any:
        """Follow the user's functions, the way `sys.settrace` asks for."""
        if self.deadline.is_over:  # the code runs on, unobserved
            sys.settrace(None)
            return None
        if what == "call":
            if not is_theirs(frame.f_code) or frame.f_code.co_name in _INNER:
                return None
            self._enter(frame)
        elif what in ("line", "return") and id(frame) in self._frames:
            text = text_of(frame.f_code)
            step = text.at(frame.f_lineno) if text is not None else None
            run = self.trail.runs[self._frames[id(frame)]]
            now = None if run.event is None else self.trail.events[run.event]
            if what == "line" and now and step and now.step is step and step.end > step.line:
                return self.trace  # one more line of the statement that runs
            self._finish(frame, run)
            if what == "line":
                self._begin(frame, run, step)
            else:
                self._leave(frame, run, given)
        return self.trace

    # -------------------- functions --------------------

    def _enter(self, frame: FrameType) -> None:
        outer = frame.f_back
        while outer is not None and id(outer) not in self._frames:
            outer = outer.f_back  # NumPy and Python call the user's functions too
        caller = None if outer is None else self.trail.runs[self._frames[id(outer)]].event
        number = self._frames[id(frame)] = len(self.trail.runs)
        names = dict(frame.f_locals)
        self._keep.append(names)
        given = frozenset(map(id, names.values()))
        if caller is None:
            self.trail.runs.append(Run(frame.f_code, caller, given, len(self.trail.events)))
            for _, array in _arrays(names):
                self._makers.setdefault(id(array), None)
            return
        event, call = self.trail.events[caller], len(self.trail.events)
        self.trail.events.append(
            Event(event.place, event.step, event.run, "()", set(event.sources), event.returns)
        )
        for name, value in names.items():
            cell = ("local", number, name)
            if isinstance(value, np.ndarray):
                self._note(value, call, name, handed=False)  # the caller made it for the call
                self._set(self._passing, cell, event.passing.get(id(value)))
            elif _is_plain(value):
                self._writers[cell] = call
        self.trail.runs.append(Run(frame.f_code, caller, given, len(self.trail.events)))

    def _leave(self, frame: FrameType, run: Run, given: Any) -> None:
        del self._frames[id(frame)]
        if run.event is None:
            return
        event = self.trail.events[run.event]
        if isinstance(event.step and event.step.node, ast.Return):
            self._look_into(given, run.event, "return", "")
        for path, item in [("", given), *((f"[{key!r}]", item) for key, item in _entries(given))]:
            if isinstance(item, np.ndarray) and id(item) in run.given:
                event.passing[id(item)] = event.parts.get(path, run.event)
                self.trail.events[event.passing[id(item)]].gives_back = True
        if run.caller is not None:
            caller = self.trail.events[run.caller]
            for each in (caller, *(self.trail.events[n] for n in caller.parts.values())):
                each.sources.add(run.event)
                each.returns.append(run.event)
        else:
            for name, array in _arrays(frame.f_locals):
                self._note(array, run.event, name, handed=False)
        self._keep.append(given)

    # -------------------- statements --------------------

    def _begin(self, frame: FrameType, run: Run, step: Step | None) -> None:
        number, events = self._frames[id(frame)], self.trail.events
        line = step.line if step is not None else frame.f_lineno
        run.event = len(events)
        event = Event((frame.f_code.co_filename, line), step, number)
        events.append(event)
        if step is None:
            return
        scope = _Scope(frame, number, frame.f_locals)
        for node in step.changed:
            value = scope.held(node)
            if isinstance(value, np.ndarray):
                self._save(value, step)
                event.sources |= self._sources(scope, node, event)
        for node in step.used:
            event.sources |= self._sources(scope, node, event)
        for path, nodes in step.parts.items():
            sources = {n for node in nodes for n in self._sources(scope, node, event)}
            event.parts[path] = len(events)
            events.append(Event(event.place, step, number, path, sources, event.returns))

    def _sources(self, scope: _Scope, node: ast.AST, event: Event) -> set[int]:
        """Return the events that made what an expression stands for."""
        value, cell = scope.look(node)
        found: list[int | None] = []
        if isinstance(value, np.ndarray):
            self._makers.setdefault(id(value), None)
            self._keep.append(value)
            found = [self._makers[id(value)], self._into.get(_memory(value))]
            passing = self._passing.get(cell)
            if passing is not None:
                event.passing[id(value)] = passing
                found.append(passing)
        elif _is_plain(value):
            found = [self._writers.get(cell), self._into.get(id(value))]
        inner = getattr(node, "value", None)
        if not any(n is not None for n in found):
            if not isinstance(node, ast.Name) and isinstance(inner, ast.AST):
                return self._sources(scope, inner, event)
            found = [self._writers.get(cell)] if isinstance(value, np.ndarray) else []
        return {n for n in found if n is not None}

    def _finish(self, frame: FrameType, run: Run) -> None:
        """Note what the statement that has run made, and where it is."""
        if run.event is None or (step := self.trail.events[run.event].step) is None:
            return
        number, event = run.event, self.trail.events[run.event]
        scope = _Scope(frame, self._frames[id(frame)], frame.f_locals)
        targets = step.targets
        for i, target in enumerate(targets):
            value, cell = scope.look(target)
            if value is _UNKNOWN:
                continue
            path = f"[{i}]" if len(targets) > 1 else ""
            made = event.parts.get(path, number)
            self._writers[cell] = made
            self._set(self._passing, cell, self._passed(scope, event, made, value))
            in_place = isinstance(step.node, ast.AugAssign) and id(value) in self._makers
            if not in_place:
                self._look_into(value, number, step.names[i], path)
        for value in {id(v): v for v in map(scope.held, step.changed)}.values():
            self._write(value, number)

    def _passed(self, scope: _Scope, event: Event, number: int, value: Any) -> int | None:
        """Return the event that has passed an array on to where it is held now, if one has."""
        if not isinstance(value, np.ndarray) or id(value) not in self._makers:
            return None
        source = getattr(event.step and event.step.node, "value", None)
        if source is not None and scope.look(source)[0] is value:
            made = self._makers[id(value)]
            event.copied = -1 if made is None else made
            return number
        given = (self.trail.events[n].passing.get(id(value)) for n in event.returns)
        return next((n for n in given if n is not None), None)

    def _write(self, value: Any, number: int) -> None:
        """Note that a statement has written into an array, a list or a dict."""
        event = self.trail.events[number]
        if isinstance(value, np.ndarray):
            if id(value) not in self._makers:
                return
            self._into[_memory(value)] = number
            self._moment(value, number, "", True)
            if isinstance(value.base, np.ndarray):
                self._moment(_owner(value), number, "", True)
        elif isinstance(value, list | dict):
            # Who reads the whole of it reads this entry and those written before.
            before = self._into.get(id(value))
            sources = {number} if before is None else {number, before}
            self._into[id(value)] = len(self.trail.events)
            self.trail.events.append(Event(event.place, None, event.run, sources=sources))
            self._keep.append(value)
            for key, item in islice(_entries(value, newest=True), 16):
                if isinstance(item, np.ndarray) and id(item) not in self._makers:
                    self._note(item, number, f"[{key!r}]")

    # -------------------- values --------------------

    def _look_into(self, value: Any, number: int, name: str, path: str, depth: int = 2) -> None:
        """Note the arrays and numbers that a value is or holds."""
        made = self.trail.events[number].parts.get(path, number)
        if isinstance(value, np.ndarray):
            self._note(value, made, name)
        elif isinstance(value, int | float | np.number) and not isinstance(value, bool):
            self._moment(np.asarray(value), made, name, True)
        elif depth and isinstance(value, list | tuple | dict):
            if self._lengths.get(id(value)) == len(value) or is_vocabulary(value):
                return
            self._lengths[id(value)] = len(value)
            self._keep.append(value)
            for key, item in _entries(value):
                self._look_into(item, number, f"{name}[{key!r}]", f"{path}[{key!r}]", depth - 1)

    def _note(self, array: Array, number: int, name: str, handed: bool = True) -> None:
        """Note an array where it is found: made there, changed since, or handed on."""
        key, into = id(array), self._into.get(_memory(array), -1)
        if key not in self._makers:
            self._makers[key] = number
            self._moment(array, number, name, True)
        else:
            latest = self._latest.get(key)
            if into >= 0 and (latest is None or latest.event < into):
                self._moment(array, into, name, True)
            if handed:
                self._moment(array, number, name, False)

    def _moment(self, array: Array, number: int, name: str, fresh: bool) -> None:
        self._keep.append(array)
        if array.dtype.kind in "fiub" and 0 < array.size <= LARGEST:
            latest = self._latest.get(id(array))
            value = array if fresh or latest is None else latest.value
            moment = Moment(number, name, value, fresh)
            self.trail.moments.append(moment)
            self._live.setdefault(_memory(array), []).append(moment)
            if fresh or latest is None:
                self._latest[id(array)] = moment

    def _save(self, array: Array, step: Step) -> None:
        """Copy what an array has been until now: it is about to be written into.

        What the same statement has written before counts once, by the last of its runs.
        """
        copies: dict[int, Array] = {}
        for moment in self._live.pop(_memory(array), ()):
            event = self.trail.events[moment.event]
            if event.step is step or self._room < 0:
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

    @staticmethod
    def _set(cells: dict[Cell | None, int], cell: Cell | None, number: int | None) -> None:
        cells.pop(cell, None)
        if number is not None:
            cells[cell] = number


def _owner(array: Array) -> Array:
    """Return the array whose memory a view looks into."""
    while isinstance(array.base, np.ndarray):
        array = array.base
    return array


def _memory(array: Array) -> int:
    return id(_owner(array))


def _is_plain(value: object) -> bool:
    """Tell whether a value is a number, a text or a container: nothing with an identity."""
    return value is None or isinstance(value, int | float | str | np.generic | list | tuple | dict)


def _entries(value: object, newest: bool = False) -> Iterator[tuple[Any, Any]]:
    """Yield the keys and values of a list, tuple or dict, if need be the newest first."""
    if isinstance(value, list | tuple):
        yield from ((i, value[i]) for i in range(len(value))[:: -1 if newest else 1])
    elif isinstance(value, dict):
        yield from list(dict.items(value))[:: -1 if newest else 1]


def _arrays(names: Mapping[str, Any], depth: int = 2) -> Iterator[tuple[str, Array]]:
    """Yield the arrays that variables hold, by way of attributes and entries too."""
    for name, value in names.items():
        if isinstance(value, np.ndarray):
            yield name, value
        elif depth and not is_vocabulary(value) and not isinstance(value, ModuleType):
            held = dict(_entries(value)) or dict_of(value) or {}
            yield from _arrays({f"{name}.{key}": held[key] for key in list(held)}, depth - 1)
