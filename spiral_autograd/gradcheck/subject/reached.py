"""What somebody's objects reach, and how each kind of thing there is read and put back.

None of the user's own code runs here: no property, no `__getattr__`, no `__eq__`.
"""

from __future__ import annotations

import array
import functools
import itertools
import os
import random
import sys
import threading
from argparse import Namespace
from collections import OrderedDict, deque
from collections.abc import Callable, Iterable, Iterator
from types import (
    CellType,
    CodeType,
    FunctionType,
    GetSetDescriptorType,
    MemberDescriptorType,
    MethodType,
    ModuleType,
    SimpleNamespace,
)
from typing import Any, NamedTuple

import numpy as np

from ...recording import is_installed


class Unreached:
    """What a check itself keeps of somebody's objects: it is not looked through for others."""


ABSENT: Any = Unreached()

_PLAIN: frozenset[type] = frozenset(
    (str, bytes, int, float, complex, bool, type(None), range, np.float64, np.int64)
)
_ATOMS: tuple[type, ...] = (*_PLAIN, ModuleType, CodeType, np.generic, np.dtype, Unreached)
STREAMS = (np.random.RandomState, np.random.Generator, random.Random)


# -------------------- the user's own code --------------------


@functools.lru_cache(maxsize=4096)
def _is_own_file(file: str) -> bool:
    parts = os.path.normpath(file).split(os.sep)
    installed = {"site-packages", "dist-packages"}.intersection(parts)
    return not installed and not is_installed(file) and not file.startswith("<frozen")


def _own_bases(kind: type) -> list[type]:
    """Return a class and those that it inherits from, as far as they are the user's own."""
    return [base for base in kind.__mro__ if _is_own_class(base)]


def _is_own_class(kind: type) -> bool:
    name = kind.__dict__.get("__module__", "builtins")
    if name in sys.stdlib_module_names and name != "__main__":
        return False
    module = sys.modules.get(name) if isinstance(name, str) else None
    file = getattr(module, "__file__", None) if isinstance(module, ModuleType) else None
    if isinstance(file, str):
        return _is_own_file(file)
    return name == "__main__" or any(
        isinstance(f, FunctionType) and _is_own_file(f.__code__.co_filename)
        for f in list(kind.__dict__.values())
    )


def _is_open(value: Any) -> bool:
    """Tell whether what code reaches is to be looked into: nothing of libraries' own is."""
    kind = type(value)
    if issubclass(kind, type):
        return bool(_own_bases(value))
    return issubclass(kind, _OPEN) or bool(_own_bases(kind))


class Globals(NamedTuple):
    """The globals of a module, and the names in it that a function uses."""

    there: dict[str, Any]
    names: tuple[str, ...]


def _globals_of(function: FunctionType) -> Iterator[Globals]:
    """Yield the globals that a function of the user's uses: its module's, and other modules'."""
    if not _is_own_file(function.__code__.co_filename):
        return
    names = _names_of(function.__code__)
    cells = [_standing_in(CellType.cell_contents, cell) for cell in function.__closure__ or ()]
    modules = [*cells, *map(sys.modules.get, names)]
    pending = [function.__globals__, *(vars(m) for m in modules if _is_own_module(m))]
    met: set[int] = set()
    while pending:
        there = pending.pop()
        if id(there) not in met:
            met.add(id(there))
            pending += [vars(m) for m in map(there.get, names) if _is_own_module(m)]
            yield Globals(there, names)


def _is_own_module(value: Any) -> bool:
    file = vars(value).get("__file__") if type(value) is ModuleType else None
    return isinstance(file, str) and _is_own_file(file)


@functools.lru_cache(maxsize=4096)
def _names_of(code: CodeType) -> tuple[str, ...]:
    """Return the names that code uses, those of the functions inside it too."""
    inner = (part for part in code.co_consts if isinstance(part, CodeType))
    return tuple(dict.fromkeys((*code.co_names, *(n for c in inner for n in _names_of(c)))))


# -------------------- how each kind of thing is read, and put back --------------------


class Kind(NamedTuple):
    """How what a thing holds is read as a list, and written back; None where it cannot change.

    `opens` tells which of the parts are looked into for others: by default all that may hold any.
    """

    read: Callable[[Any], list[Any]]
    write: Callable[[Any, list[Any]], object] | None = None
    opens: Callable[[Any], bool] | None = None


def _mapping(kind: type[dict[Any, Any]]) -> Kind:
    def write(held: dict[Any, Any], parts: list[Any]) -> None:
        kind.clear(held)
        kind.update(held, _in_pairs(parts))

    return Kind(lambda held: [*kind.keys(held), *kind.values(held)], write)


def _in_pairs(parts: list[Any]) -> Iterator[tuple[Any, Any]]:
    """Yield the keys and values of which first the keys and then the values stand in a list."""
    half = len(parts) // 2
    return zip(parts[:half], parts[half:], strict=True)


def _elements(kind: Any, refill: Any = None) -> Kind:
    def write(held: Any, parts: list[Any]) -> None:
        kind.clear(held)
        refill(held, parts)

    return Kind(lambda held: list(kind.__iter__(held)), write if refill else None)


def _state(get: Callable[[Any], Any], put: Callable[[Any, Any], Any]) -> Kind:
    """Return the row of what gives its state, which is made for us, and takes it."""
    return Kind(
        lambda held: [get(held)], lambda held, parts: put(held, parts[0]), lambda part: False
    )


def _bytes(kind: Any) -> Kind:
    return _state(
        lambda held: kind.__getitem__(held, slice(None)),
        lambda held, content: kind.__setitem__(held, slice(None), content),
    )


def _read_class(kind: type) -> list[Any]:
    held = dict(vars(kind)) if _is_own_class(kind) else {}
    return [*held, *held.values()]


def _put_class(kind: type, parts: list[Any]) -> None:
    saved = dict(_in_pairs(parts))
    for name, value in saved.items():
        if vars(kind).get(name, ABSENT) is not value:
            type.__setattr__(kind, name, value)
    for name in [n for n in vars(kind) if n not in saved and not n.startswith("__")]:
        type.__delattr__(kind, name)


def _read_globals(used: Globals) -> list[Any]:
    return [used.there.get(name, ABSENT) for name in used.names]


def _put_globals(used: Globals, parts: list[Any]) -> None:
    for name, value in zip(used.names, parts, strict=True):
        if value is not ABSENT:
            used.there[name] = value
        elif not isinstance(used.there.get(name), ModuleType):  # one imported meanwhile stays
            used.there.pop(name, None)


_NOTHING = Kind(lambda held: [])
# By the first of these classes that an object's own inherits from.
_KINDS: dict[type, Kind] = {
    # The numbers of other arrays are kept by the snapshot.
    np.ndarray: Kind(lambda held: list(held.view(np.ndarray).flat) if held.dtype == object else []),
    OrderedDict: _mapping(OrderedDict),  # it has an order of its own
    dict: _mapping(dict),
    list: _elements(list, list.extend),
    Globals: Kind(_read_globals, _put_globals, _is_open),
    tuple: _elements(tuple),
    set: _elements(set, set.update),
    frozenset: _elements(frozenset),
    deque: _elements(deque, deque.extend),
    bytearray: _bytes(bytearray),
    array.array: _bytes(array.array),
    random.SystemRandom: _NOTHING,
    random.Random: _state(random.Random.getstate, random.Random.setstate),
    np.random.RandomState: _state(  # with the second of two normal numbers
        lambda held: held.get_state(legacy=False), np.random.RandomState.set_state
    ),
    np.random.Generator: _state(
        lambda held: held.bit_generator.state,
        lambda held, state: setattr(held.bit_generator, "state", state),
    ),
    threading.local: Kind(lambda held: [held.__dict__]),
    type: Kind(_read_class, _put_class, _is_open),
    object: _NOTHING,
}
_ROWS = {id(kind): row for kind, row in _KINDS.items()}

# What else holds others, and by which attributes.
_HOLDERS: dict[type, str] = {
    FunctionType: "__dict__ __defaults__ __kwdefaults__ __closure__",
    CellType: "cell_contents",
    MethodType: "__self__ __func__",
    functools.partial: "__dict__ func args keywords",
    staticmethod: "__func__",
    classmethod: "__func__",
    property: "fget fset fdel",
}
_ATTRIBUTES = {id(kind): names.split() for kind, names in _HOLDERS.items()}

# Of what belongs to libraries, what users keep their own things in.
_OPEN = (*(kind for kind in _KINDS if kind not in (type, object)), *_HOLDERS)
_OPEN = (*_OPEN, functools.cached_property, SimpleNamespace, Namespace)


def _rows_of(kind: type) -> list[Kind]:
    """Return how objects of a class are read: as what it inherits from, and their attributes."""
    row = next(_ROWS[id(base)] for base in kind.__mro__ if id(base) in _ROWS)
    places = _places_of(kind)

    def read(item: Any) -> list[Any]:
        return [_standing_in(place, item) for place in places]

    def write(item: Any, parts: list[Any]) -> None:
        for place, part in zip(places, parts, strict=True):
            now = _standing_in(place, item)
            if now is not part and part is ABSENT:
                place.__delete__(item)
            elif now is not part:
                place.__set__(item, part)

    return [row, Kind(read, write)] if places else [row]


def _places_of(kind: type) -> list[Any]:
    """Return the descriptors of what objects of a class hold: slots, the dict, what is built in."""
    if issubclass(kind, type):
        return []
    found = []
    for base in kind.__mro__:
        names = _ATTRIBUTES.get(id(base), ["__dict__"])
        has_slots = "__slots__" in base.__dict__
        for name, place in list(base.__dict__.items()):
            is_slot = has_slots and isinstance(place, MemberDescriptorType)
            if is_slot or (name in names and isinstance(place, _DESCRIPTORS)):
                found.append(place)
    return found


_DESCRIPTORS = (GetSetDescriptorType, MemberDescriptorType)


def _standing_in(place: Any, item: Any) -> Any:
    try:
        return place.__get__(item)
    except (AttributeError, ValueError):  # an empty slot, an empty cell
        return ABSENT


_BUILT_IN = {id(kind): _rows_of(kind) for kind in (*_KINDS, *_HOLDERS)}


def dict_of(item: Any) -> dict[str, Any] | None:
    """Return the dict of an object's attributes; None where there is none of the usual kind."""
    if issubclass(type(item), threading.local):
        return item.__dict__
    held = [place.__get__(item) for place in _places_of(type(item)) if place.__name__ == "__dict__"]
    return next((found for found in held if isinstance(found, dict)), None)


def has_any(item: Any, names: frozenset[str]) -> bool:
    """Tell whether an object has one of some attributes, not counting what `__getattr__` gives."""
    there = [base.__dict__ for base in type(item).__mro__]
    return not all(map(names.isdisjoint, [*there, dict_of(item) or {}]))


def is_vocabulary(held: Any) -> bool:
    """Tell whether a list or dict is long, and holds but numbers and strings, or lists of them."""
    if type(held) not in (dict, list, tuple) or len(held) < 64:
        return False
    values = held.values() if type(held) is dict else held
    if not set(map(type, values)) <= _PLAIN | {list, tuple}:
        return False
    inner = itertools.chain.from_iterable(v for v in values if type(v) in (list, tuple))
    return set(map(type, inner)) <= _PLAIN


# -------------------- the walk --------------------

Held = list[tuple[Kind, list[Any]]]


def reach(*roots: Any) -> Iterator[Any]:
    """Yield every object that some objects reach, once: what may change, and what holds it."""
    return (item for item, _ in walk(roots, with_code=False))


def walk(roots: Iterable[Any], *, with_code: bool) -> Iterator[tuple[Any, Held]]:
    """Yield each object that is reached, once, with how it is read and what it holds now.

    With the code: also classes, and the globals that functions use, as far as they are the user's.
    """
    seen: dict[int, Any] = {}
    modules: set[int] = set()
    rows = dict(_BUILT_IN)
    pending = list(roots)
    atoms = _ATOMS if with_code else (*_ATOMS, type)
    while pending:
        item = pending.pop()
        kind = type(item)
        if issubclass(kind, atoms) or id(item) in seen:
            continue
        seen[id(item)] = item
        if id(kind) not in rows:
            rows[id(kind)] = _rows_of(kind)
            pending += _streams_in(sys.modules.get(kind.__module__), modules)
            pending += _own_bases(kind) if with_code else []
        held = [(row, row.read(item)) for row in rows[id(kind)]]
        for row, parts in held:
            compound = [part for part in parts if type(part) not in _PLAIN]
            pending += compound if row.opens is None else filter(row.opens, compound)
        if issubclass(kind, FunctionType):
            pending += _streams_in(sys.modules.get(item.__module__), modules)
            pending += _globals_of(item) if with_code else []
        elif issubclass(kind, type):
            pending += _own_bases(item)
        yield item, held


def _streams_in(module: Any, met: set[int]) -> list[Any]:
    """Return the random streams among the globals of a module, which its code may draw from."""
    if id(module) in met or not isinstance(module, ModuleType):
        return []
    met.add(id(module))
    return [value for value in list(vars(module).values()) if issubclass(type(value), STREAMS)]
