"""What a loss takes from outside of its arguments, and whether that has changed.

A program holds the values that the loss reached when it was recorded. Everything it reaches is
therefore watched: cheaply, by identity, for each call; and by value, where an identity is another.
What cannot be watched is refused before the loss is recorded.
"""

from __future__ import annotations

import itertools
import operator
import random
import sys
import weakref
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cached_property, partial
from types import BuiltinMethodType, CellType, CodeType, FunctionType, MethodType, ModuleType
from typing import Any, NamedTuple

import numpy as np
from autograd.tracer import getval, isbox

from ..recording import is_installed
from .expressions import static_key
from .kinds import (
    CONSTANT_MODULES,
    has_compiled_state,
    is_compiled,
    is_foreign,
    is_foreign_module,
    slots_of,
)
from .names import line_of, names_in
from .undo import MISSING, put_attribute_back, put_entry_back, stream_undo
from .writer import COMPARED_BYTES

MOST_VALUES = 20_000  # a loss that reaches more is not watched but refused
SAMPLES = 1024  # entries of an array that is too large to be compared

_NUMBERS = (bool, int, float, complex, np.generic)
_IMMUTABLE = (*_NUMBERS, str, bytes, type(None), type(...), np.dtype, range, slice)
_STREAMS = (np.random.RandomState, np.random.Generator, random.Random)
_DYNAMIC = frozenset("getattr setattr vars __dict__ dir attrgetter methodcaller asdict".split())
_UNSEEN = frozenset("eval exec globals locals".split())


class UnwatchableError(Exception):
    """A loss reaches something whose changes cannot be seen; the message says what."""


class TracedError(Exception):
    """A loss reaches a value of a trace that runs: autograd itself differentiates."""


class _Place(NamedTuple):
    """A value to be looked at, and how a person reaches it."""

    path: str
    value: Any


class _Same:
    """An object in a key: equal to itself alone, and not kept alive where that can be helped."""

    __slots__ = ("get", "number")

    def __init__(self, value: Any) -> None:
        self.number = id(value)
        try:
            self.get: Callable[[], Any] = weakref.ref(value)
        except TypeError:
            self.get = lambda: value

    def __hash__(self) -> int:
        return self.number

    def __eq__(self, other: Any) -> bool:
        if type(other) is not _Same or self.number != other.number:
            return False
        value = self.get()
        return value is not None and value is other.get()


class Outside:
    """Everything that a loss reaches besides its arguments.

    Attributes
    ----------
    key : tuple
        The values, to be compared: with an equal one the same program holds.
    """

    def __init__(self, loss: Any, others: list[Any]) -> None:
        self._roots = loss, others
        self._names: set[str] = set()
        self._every_attribute = False
        known: Any = None
        while known != (len(self._names), self._every_attribute):
            known = len(self._names), self._every_attribute
            self._look()  # again, while code that is reached names attributes not yet looked at
        self.key = tuple(self._facts)

    @property
    def watches(self) -> bool:
        """Whether there is anything that could change."""
        return any((self._attributes, self._sequences, self._tables, self._sets, self._arrays))

    def holds(self) -> bool:
        """Tell whether all is as it was, by identity; what is equal but another object is not."""
        try:
            return self._is_same()
        except (LookupError, RuntimeError):  # an array is shorter, or another thread changes a dict
            return False

    def only_watch(self) -> Outside:
        """Drop the copies by which everything could be put back."""
        self._undo.clear()
        self._large.clear()
        return self

    def _is_same(self) -> bool:
        same = operator.is_
        for get, names, values in self._attributes:
            if not all(map(same, map(get, names, itertools.repeat(MISSING)), values)):
                return False
        for sequence, items in self._sequences:
            if len(sequence) != len(items) or not all(map(same, sequence, items)):
                return False
        for table, keys, values in self._tables:
            if len(table) != len(keys) or not all(map(same, table, keys)):
                return False
            if not all(map(same, table.values(), values)):
                return False
        for members, copy in self._sets:
            if members != copy:
                return False
        return all(_array_key(array, places) == key for array, places, key in self._arrays)

    @contextmanager
    def kept(self, changed: list[str]) -> Iterator[None]:
        """Put everything back as it was at the end, and note how a person reaches what differed."""
        writeable = [array for array in self._large if array.flags.writeable]
        for array in writeable:
            array.flags.writeable = False  # a copy would take too much memory
        try:
            yield
        finally:
            for array in writeable:
                array.flags.writeable = True
            changed.extend(path for path, undo in self._undo if undo())

    # ---- the walk ----

    def _look(self) -> None:
        self._facts: list[Any] = []
        self._attributes: list[tuple[Any, tuple[str, ...], tuple[Any, ...]]] = []
        self._sequences: list[tuple[Any, tuple[Any, ...]]] = []
        self._tables: list[tuple[Any, tuple[Any, ...], tuple[Any, ...]]] = []
        self._sets: list[tuple[Any, Any]] = []
        self._arrays: list[tuple[Any, Any, Any]] = []
        self._large: list[Any] = []
        self._undo: list[tuple[str, Callable[[], bool]]] = []
        self._seen: dict[int, tuple[int, Any]] = {}
        self._count = 0
        self._pending: list[_Place] = []
        loss, others = self._roots
        self._push("an argument", others)
        self._push(getattr(loss, "__name__", type(loss).__name__), [loss])
        while self._pending:
            self._visit(*self._pending.pop())

    def _visit(self, path: str, value: Any) -> None:
        if isinstance(value, _IMMUTABLE):
            self._facts.append(static_key(value))
            return
        if isbox(value):
            raise TracedError
        if id(value) in self._seen:
            self._facts.append(("again", self._seen[id(value)][0]))
            return
        self._seen[id(value)] = len(self._seen), value
        for kinds, look in _LOOKS:
            if isinstance(value, kinds):
                look(self, path, value)
                return
        self._object(path, value)

    def _push(self, path: str, values: Any) -> None:
        self._count += len(values)
        if self._count > MOST_VALUES:
            raise UnwatchableError(
                f"it reaches more than {MOST_VALUES:,} values, among them {path}"
            )
        self._pending.extend(_Place(path, value) for value in values)

    def _array(self, path: str, array: Any) -> None:
        if array.dtype.hasobject:
            self._facts.append(("objects", array.shape))
            self._watch(path, partial(_entry, array), tuple(range(array.size)), tuple(array.flat))
            return
        small = array.nbytes <= COMPARED_BYTES
        places = None if small else np.linspace(0, array.size - 1, SAMPLES).astype(np.intp)
        key = _array_key(array, places)
        self._facts.append(key if small else (_Same(array), key))
        self._arrays.append((array, places, key))
        if not small:
            self._large.append(array)
        elif array.flags.writeable:
            copy = array.copy()

            def undo() -> bool:
                if _array_key(array, None) == key:
                    return False
                array[...] = copy
                return True

            self._undo.append((path, undo))
        if type(array) is not np.ndarray:
            self._own_attributes(path, array)

    def _sequence(self, path: str, sequence: Any) -> None:
        items = tuple(sequence)
        self._facts.append((type(sequence), len(items)))
        if not isinstance(sequence, tuple):
            self._sequences.append((sequence, items))

            def undo() -> bool:
                if len(sequence) == len(items) and all(map(operator.is_, sequence, items)):
                    return False
                sequence.clear()
                sequence.extend(items)
                return True

            self._undo.append((path, undo))
        self._push(f"{path}[…]", items)
        self._own_attributes(path, sequence)

    def _table(self, path: str, table: Any) -> None:
        keys, values = tuple(table), tuple(table.values())
        self._facts.append((type(table), len(keys)))
        self._tables.append((table, keys, values))

        def undo() -> bool:
            same = len(table) == len(keys) and all(map(operator.is_, table, keys))
            if same and all(map(operator.is_, table.values(), values)):
                return False
            table.clear()
            table.update(zip(keys, values, strict=True))
            return True

        self._undo.append((path, undo))
        self._push(f"a key of {path}", keys)
        for key, value in zip(keys, values, strict=True):
            name = repr(key)[:40] if isinstance(key, str | int) else "…"
            self._push(f"{path}[{name}]", (value,))
        self._own_attributes(path, table)

    def _set(self, path: str, members: Any) -> None:
        copy = frozenset(members)
        self._facts.append((type(members), copy))
        if not all(isinstance(member, (*_IMMUTABLE, tuple)) for member in copy):
            raise UnwatchableError(f"it reaches {path}, a set of objects")
        if isinstance(members, set):
            self._sets.append((members, copy))

            def undo() -> bool:
                if members == copy:
                    return False
                members.clear()
                members.update(copy)
                return True

            self._undo.append((path, undo))

    def _function(self, path: str, function: FunctionType) -> None:
        code = function.__code__
        self._facts.append(("function", _Same(code)))
        cells = dict(zip(code.co_freevars, function.__closure__ or (), strict=True))
        for name, cell in cells.items():
            self._cell(name, cell)
        if is_installed(code.co_filename):
            return
        names = ("__defaults__", "__kwdefaults__")
        values = tuple(getattr(function, name) for name in names)
        self._watch(path, partial(getattr, function), names, values)
        table = function.__globals__
        named = self._read_code(function.__name__, code, table)
        escapes = [name for name in named if table.get(name) is getval]
        escapes += [name for name, cell in cells.items() if _content(cell) is getval]
        self._refuse_escapes([*escapes, "getval"], function.__name__, code)
        self._namespace("", table, sorted(name for name in named if name in table))
        if vars(function):
            self._namespace(path, vars(function), sorted(self._names))

    def _cell(self, name: str, cell: CellType) -> None:
        if id(cell) in self._seen:
            self._facts.append(("again", self._seen[id(cell)][0]))
            return
        self._seen[id(cell)] = len(self._seen), cell

        value = _content(cell)
        self._watch("", lambda *_: _content(cell), (name,), (value,))

        def undo() -> bool:
            if _content(cell) is value:
                return False
            cell.cell_contents = value
            return True

        self._undo.append((name, undo))

    def _refuse_escapes(self, names: list[str], function: str, code: CodeType) -> None:
        for name in names:
            line = line_of(name, code)
            if line is not None:
                raise UnwatchableError(
                    f"{function} takes a value out of the trace by getval, in {code.co_filename}, "
                    f"line {line}: it would be frozen; pass it as data, or compute inside the trace"
                )

    def _read_code(self, name: str, code: CodeType, table: dict[str, Any]) -> set[str]:
        """Return the globals that code names, and note the attributes that it names."""
        names = names_in(code)
        self._push("an import", [sys.modules[m] for m in names.modules if m in sys.modules])
        if unseen := names.globals & _UNSEEN:
            raise UnwatchableError(f"{name} uses {min(unseen)}, which may reach anything")
        self._every_attribute |= not _DYNAMIC.isdisjoint(names.globals | names.attributes)
        self._names |= names.attributes
        return set(names.globals)

    def _watch(self, path: str, get: Any, names: tuple[Any, ...], values: tuple[Any, ...]) -> None:
        self._attributes.append((get, names, values))
        for name, value in zip(names, values, strict=True):
            if value is MISSING:
                self._facts.append("absent")
            else:
                self._push(f"{path}.{name}" if path else name, (value,))

    def _namespace(self, path: str, table: Any, names: list[str]) -> None:
        """Watch some of the entries of a namespace."""
        if not names:
            return
        values = tuple(table.get(name, MISSING) for name in names)
        self._facts.append(tuple(names))
        self._watch(path, table.get, tuple(names), values)
        for name, value in zip(names, values, strict=True):
            where = f"{path}.{name}" if path else name
            if isinstance(table, dict):
                self._undo.append((where, partial(put_entry_back, table, name, value)))

    def _method(self, path: str, method: Any) -> None:
        self._facts.append("method")
        self._push(path, (method.__func__, method.__self__))

    def _builtin(self, path: str, method: Any) -> None:
        owner = method.__self__
        self._facts.append(("builtin", _Same(method) if owner is None else method.__name__))
        if owner is not None and not isinstance(owner, ModuleType):
            self._push(path, (owner,))

    def _partial(self, path: str, function: Any) -> None:
        self._facts.append("partial")
        self._push(f"an argument of {path}", (function.args, function.keywords))
        self._push(path, (function.func,))

    def _wrapper(self, path: str, wrapper: Any) -> None:
        self._facts.append(type(wrapper))
        parts = ("__func__", "fget", "func")
        self._push(path, [getattr(wrapper, part) for part in parts if hasattr(wrapper, part)])

    def _module(self, path: str, module: ModuleType) -> None:
        self._facts.append(("module", module.__name__))
        if not is_foreign_module(module):
            names = sorted(name for name in self._names if name in vars(module))
            self._namespace(path, vars(module), names)

    def _class(self, path: str, kind: type) -> None:
        self._facts.append(("class", _Same(kind)))
        bases = [base for base in kind.__mro__[:-1] if not is_foreign(base)]
        special = {
            name
            for base in bases
            for name, value in vars(base).items()
            if name.startswith("__") and isinstance(value, FunctionType)
        }
        names = sorted(special | {name for name in self._names if not name.startswith("__")})
        for base in bases:
            table = vars(base)
            self._namespace(path, table, names)
            for name in names:
                undo = partial(put_attribute_back, base, name, table.get(name, MISSING))
                self._undo.append((f"{path}.{name}", undo))

    def _stream(self, path: str, stream: Any) -> None:
        self._facts.append(("stream", _Same(stream)))
        self._undo.append((path, stream_undo(stream)))

    def _object(self, path: str, value: Any) -> None:
        kind = type(value)
        foreign = is_foreign(kind)
        if isinstance(value, Iterator) and foreign:
            raise UnwatchableError(f"it reaches {path}, a {kind.__name__}, which each use changes")
        self._facts.append(("object", _Same(kind)))
        if is_compiled(value):
            self._facts.append(_Same(value))
        elif foreign and kind.__module__.lstrip("_") in CONSTANT_MODULES:
            self._facts.append(static_key(value))
        elif not self._own_attributes(path, value) or has_compiled_state(kind):
            what = f"{path}, a {kind.__name__}, whose changes cannot be seen"
            raise UnwatchableError(f"it reaches {what}")

    def _own_attributes(self, path: str, value: Any) -> bool:
        """Watch the attributes of an object that code may name; tell if it can have any."""
        kind = type(value)
        table = getattr(value, "__dict__", None)
        if isinstance(table, dict):
            every = self._every_attribute or is_foreign(kind) or hasattr(kind, "__getattr__")
            self._namespace(path, table, sorted({*table, *self._names} if every else self._names))
        slots = [name for base in kind.__mro__ for name in slots_of(base)]
        for name in slots:
            now = getattr(value, name, MISSING)
            self._watch(path, partial(getattr, value), (name,), (now,))
            undo = partial(put_attribute_back, value, name, now)
            self._undo.append((f"{path}.{name}", undo))
        if not is_foreign(kind):
            self._push(path, (kind,))
        return isinstance(table, dict) or bool(slots)


def _content(cell: CellType) -> Any:
    try:
        return cell.cell_contents
    except ValueError:
        return MISSING


def _entry(array: Any, place: int, missing: Any) -> Any:
    return array.flat[place]


def _array_key(array: Any, places: Any) -> Any:
    entries = array if places is None else array.flat[places]
    return array.shape, array.dtype, entries.tobytes()


_LOOKS: tuple[tuple[Any, Callable[[Outside, str, Any], None]], ...] = (
    (np.ndarray, Outside._array),
    ((list, tuple, deque), Outside._sequence),
    (dict, Outside._table),
    ((set, frozenset), Outside._set),
    (FunctionType, Outside._function),
    (MethodType, Outside._method),
    (BuiltinMethodType, Outside._builtin),
    (partial, Outside._partial),
    ((staticmethod, classmethod, property, cached_property), Outside._wrapper),
    (ModuleType, Outside._module),
    (type, Outside._class),
    (_STREAMS, Outside._stream),
)
