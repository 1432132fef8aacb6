"""What a loss takes from outside of its arguments, and whether that has changed.

A program holds the values that the loss reached when it was recorded. Everything it reaches is
therefore watched: cheaply, by identity, for each call; and by value, where an identity is another.
What cannot be watched is refused before the loss is recorded.
"""

from __future__ import annotations

import itertools
import operator
import sys
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import cached_property, partial
from types import (
    BuiltinMethodType,
    CellType,
    FunctionType,
    MethodType,
    MethodWrapperType,
    ModuleType,
)
from typing import Any, NamedTuple

import numpy as np
from autograd.tracer import getval, isbox

from .. import state
from ..recording import is_installed
from ..state import ABSENT, STREAMS, Held, Kind, Names, identical, is_own_class
from ..validation import Array
from . import kinds
from .expressions import static_key
from .guards import DerivationError

MOST_VALUES = 20_000  # a loss that reaches more is not watched but refused
SAMPLES = 1024  # entries of an array that is too large to be compared
COMPARED_BYTES = 2**18  # an array up to this size is compared entry by entry before each call

_NUMBERS = (bool, int, float, complex, np.generic)
_IMMUTABLE = (*_NUMBERS, str, bytes, type(None), type(...), np.dtype, range, slice)
_DYNAMIC = frozenset("getattr setattr vars __dict__ dir attrgetter methodcaller asdict".split())
_PARTS = "__func__ __self__ func args keywords fget".split()
_NAMED = "__module__ __qualname__".split()
_METHODS = BuiltinMethodType, MethodType, MethodWrapperType, partial, staticmethod, classmethod
_DEFAULTS = "__defaults__", "__kwdefaults__"
_UNSEEN = frozenset("eval exec globals locals".split())


# An object in a key: bound methods are equal where their objects are the same one.
_same = partial(MethodType, id)


class TracedError(DerivationError):
    """A loss reaches a value of a trace that runs: autograd itself differentiates."""


class Watch(NamedTuple):
    """How a person gets to something that a loss reaches, what it holds, and by which names."""

    path: str
    held: Held
    names: Sequence[object] = ()

    def put_back(self) -> list[str]:
        """Put it back as it was; return how a person reaches what was otherwise."""
        held = self.held
        if held.is_same():
            return []
        found = zip(self.names, held.kind.read(held.item), held.before, strict=False)
        changed = [dotted(self.path, name) for name, now, before in found if now is not before]
        held.put()
        return changed or [self.path]


def dotted(path: str, name: object) -> str:
    """Return how a person reaches a name of an owner."""
    return ".".join(part for part in (path, str(name)) if part)


def _put_entries(array: Array, parts: list[object]) -> None:
    for k, part in enumerate(parts):
        array.flat[k] = part


def _numbers_of(array: Array, is_small: bool) -> Kind:
    """Return how the numbers of an array are read; of a large one, some that are spread over it."""
    places = None if is_small else np.linspace(0, array.size - 1, SAMPLES).astype(np.intp)

    def read(item: Array) -> list[object]:
        some = item if places is None else item.flat[places]
        return [item.shape, item.dtype, some.tobytes()]

    is_copied = is_small and array.flags.writeable
    put = partial(array.__setitem__, ..., array.copy()) if is_copied else None
    return Kind(read, put and (lambda item, parts: put()), is_same=operator.eq)


_ENTRIES = Kind(lambda array: list(array.flat), _put_entries)
_CONTENT = state.in_places([vars(CellType)["cell_contents"]])
_DEFAULT_VALUES = state.in_places([vars(FunctionType)[name] for name in _DEFAULTS])
_DEFAULT_VALUES = _DEFAULT_VALUES._replace(read=operator.attrgetter(*_DEFAULTS))  # for speed


class Outside:
    """Everything that a loss reaches besides its arguments.

    Its `key` holds the values, to be compared: with an equal one the same program holds. Its
    `watches` are those that could change.
    """

    def __init__(self, loss: object, others: list[Any]) -> None:
        self._names: set[str] = set()
        self._every_attribute = False
        known: Any = None
        while known != (len(self._names), self._every_attribute):
            known = len(self._names), self._every_attribute
            self._look(loss, others)  # again, while code names attributes not yet looked at
        self.key = tuple(self._facts)
        named = [held for _, held, _ in self.watches if isinstance(held.item, Names)]
        self._places = [(held.item.table.get, name) for held in named for name in held.item.names]
        self._values = [value for held in named for value in held.before]
        others = [held for _, held, _ in self.watches if not isinstance(held.item, Names)]
        self._tests = [held.is_same for held in others]

    def holds(self) -> bool:
        """Tell whether all is as it was, by identity; what is equal but another object is not."""
        try:
            values = [get(name, ABSENT) for get, name in self._places]  # all at once, for speed
            others = [is_same() for is_same in self._tests]
            return False not in others and identical(values, self._values)
        except (LookupError, RuntimeError):  # an array is shorter, or another thread changes a dict
            return False

    @contextmanager
    def unchanged(self) -> Iterator[None]:
        """Put back what the loss changes meanwhile, and refuse a loss that changes anything."""
        names = "NumPy's global random numbers", "Python's global random numbers"
        streams = map(Watch, names, map(Held, state.GLOBAL_STREAMS))
        watches = [*self.watches, *self._streams, *streams]
        writeable = [array for array in self._large if array.flags.writeable]
        for array in writeable:
            array.flags.writeable = False  # a copy would take too much memory
        try:
            yield
        finally:
            for array in writeable:
                array.flags.writeable = True
            changed = [path for watch in watches for path in watch.put_back()]
        if changed:
            raise DerivationError(
                f"each call changes {changed[0]}, which a program would not; pass what changes "
                "as data"
            )

    # ---- the walk ----

    def _look(self, loss: object, others: list[Any]) -> None:
        self.watches: list[Watch] = []
        self._streams: list[Watch] = []
        self._large: list[Array] = []  # arrays that are compared in some places only
        self._facts: list[Any] = []
        self._seen: dict[int, tuple[int, Any]] = {}
        self._count = 0
        self._pending: list[tuple[str, Any]] = []  # values, and how a person reaches them
        self._push("an argument", others)
        self._push(getattr(loss, "__name__", type(loss).__name__), [loss])
        while self._pending:
            self._visit(*self._pending.pop())

    def _visit(self, path: str, value: object) -> None:
        if isinstance(value, _IMMUTABLE):
            self._facts.append(static_key(value))
            return
        if isbox(value):
            raise TracedError("it reaches a value of a trace that runs")
        if id(value) in self._seen:
            self._facts.append(("again", self._seen[id(value)][0]))
            return
        self._seen[id(value)] = len(self._seen), value
        for types, look in _LOOKS:
            if isinstance(value, types):
                look(self, path, value)
                return
        self._object(path, value)

    def _push(self, path: str, values: Sequence[Any]) -> None:
        self._count += len(values)
        if self._count > MOST_VALUES:
            raise DerivationError(f"it reaches more than {MOST_VALUES:,} values, among them {path}")
        self._pending.extend((path, value) for value in values)

    def _watch(
        self, path: str, owner: object, names: Sequence[Any], kind: Kind | None = None
    ) -> None:
        """Watch some names of an owner, a dict or a class by default, and look at their values."""
        if names:
            item = owner if kind is not None else Names(owner, names)
            held = self._hold(path, item, kind, names)
            self._facts.append(tuple(names))
            for name, value in zip(names, held, strict=True):
                if value is ABSENT:
                    self._facts.append("absent")
                else:
                    self._push(dotted(path, name), (value,))

    def _hold(
        self, path: str, item: object, kind: Kind | None = None, names: Sequence[Any] = ()
    ) -> Sequence[Any]:
        """Watch what something holds, if that can change, and return it."""
        held = Held(item, kind)
        if held.kind.write is not None or kind is not None:
            self.watches.append(Watch(path, held, names))
        return held.before

    # ---- containers ----

    def _array(self, path: str, array: Array) -> None:
        if array.dtype.hasobject:
            self._facts.append(("objects", array.shape))
            self._watch(path, array, range(array.size), _ENTRIES)
            return
        is_small = array.nbytes <= COMPARED_BYTES
        numbers = tuple(self._hold(path, array, _numbers_of(array, is_small)))
        self._large += [] if is_small else [array]
        self._facts.append(numbers if is_small else (_same(array), numbers))
        if type(array) is not np.ndarray:
            self._own_attributes(path, array)

    def _container(self, path: str, container: object) -> None:
        parts = self._hold(path, container)
        self._facts.append((type(container), len(parts)))
        keys = parts[: len(parts) // 2] if isinstance(container, dict) else ()
        self._push(f"a key of {path}", keys)
        for key, part in itertools.zip_longest(keys, parts[len(keys) :]):
            name = repr(key)[:40] if isinstance(key, str | int) else "…"
            self._push(f"{path}[{name}]", (part,))
        self._own_attributes(path, container)

    def _stream(self, path: str, stream: object) -> None:
        watch = Watch(path, Held(stream))
        if watch.held.kind.write is None:
            raise DerivationError(f"it reaches {path}, random numbers that nothing can put back")
        self._facts.append(("stream", _same(stream)))
        self._streams.append(watch)

    # ---- code ----

    def _function(self, path: str, function: FunctionType) -> None:
        code, table = function.__code__, function.__globals__
        self._facts.append(("function", _same(code)))
        cells = dict(zip(code.co_freevars, function.__closure__ or (), strict=True))
        for name, cell in cells.items():
            self._push(name, (cell,))
        if is_installed(code.co_filename):
            return
        self._watch(path, function, _DEFAULTS, _DEFAULT_VALUES)
        names = kinds.names_in(code)
        self._push("an import", [sys.modules[m] for m in names.modules if m in sys.modules])
        if unseen := names.globals & _UNSEEN:
            raise DerivationError(
                f"{function.__name__} uses {min(unseen)}, which may reach anything"
            )
        self._every_attribute |= not _DYNAMIC.isdisjoint(names.globals | names.attributes)
        self._names |= names.attributes
        used = {name: table[name] for name in sorted(names.globals) if name in table}
        values = used | {name: _CONTENT.read(cell)[0] for name, cell in cells.items()}
        for name, line in names.lines.items():
            if name == "getval" or values.get(name) is getval:
                raise DerivationError(
                    f"{function.__name__} takes a value out of the trace by getval, in "
                    f"{code.co_filename}, line {line}: it would be frozen; pass it as data, or "
                    "compute inside the trace"
                )
        self._watch("", table, list(used))
        self._watch(path, vars(function), sorted(self._names) if vars(function) else [])

    def _parts(self, path: str, value: Any) -> None:
        """Look at what a method, a partial function, a property or the like is made of."""
        self._facts.append((type(value), *(getattr(value, name, None) for name in _NAMED)))
        for name in _PARTS:
            if hasattr(value, name):
                where = f"an argument of {path}" if name in ("args", "keywords") else path
                self._push(where, (getattr(value, name),))

    # ---- owners of attributes ----

    def _module(self, path: str, module: ModuleType) -> None:
        self._facts.append(("module", module.__name__))
        if state.is_own_module(module):
            table = vars(module)
            self._watch(path, table, sorted(name for name in self._names if name in table))

    def _class(self, path: str, kind: type) -> None:
        self._facts.append(("class", _same(kind)))
        bases = state.own_bases(kind)
        own = [(name, value) for base in bases for name, value in vars(base).items()]
        special = {n for n, value in own if n[:2] == "__" and isinstance(value, FunctionType)}
        names = sorted(special | {name for name in self._names if name[:2] != "__"})
        for base in bases:
            self._watch(path, base, names)

    def _object(self, path: str, value: object) -> None:
        kind = type(value)
        foreign = not is_own_class(kind)
        if isinstance(value, Iterator) and foreign:
            raise DerivationError(f"it reaches {path}, a {kind.__name__}, which each use changes")
        self._facts.append(("object", _same(kind)))
        if kinds.is_compiled(value):
            self._facts.append(_same(value))
        elif foreign and kind.__module__.lstrip("_") in kinds.CONSTANT_MODULES:
            self._facts.append(static_key(value))
        elif not self._own_attributes(path, value) or kinds.has_compiled_state(kind):
            what = f"{path}, a {kind.__name__}, whose changes cannot be seen"
            raise DerivationError(f"it reaches {what}")

    def _own_attributes(self, path: str, value: object) -> bool:
        """Watch the attributes of an object that code may name; tell if it can have any."""
        kind, table = type(value), state.dict_of(value)
        is_own, slots = is_own_class(kind), state.slots_of(kind)
        if table is not None:
            every = self._every_attribute or not is_own or hasattr(kind, "__getattr__")
            self._watch(path, table, sorted({*table, *self._names} if every else self._names))
        names = [slot.__name__ for slot in slots]
        for name in names:
            getattr(value, name, None)  # an object that will not be looked at raises
        self._watch(path, value, names, state.in_places(slots))
        if is_own:
            self._push(path, (kind,))
        return table is not None or bool(slots)


_LOOKS: tuple[tuple[Any, Callable[[Outside, str, Any], None]], ...] = (
    (np.ndarray, Outside._array),
    ((list, tuple, deque, dict, set, frozenset), Outside._container),
    (FunctionType, Outside._function),
    (CellType, lambda self, path, cell: self._watch(path, cell, ("",), _CONTENT)),
    ((*_METHODS, property, cached_property), Outside._parts),
    (ModuleType, Outside._module),
    (type, Outside._class),
    (STREAMS, Outside._stream),
)
