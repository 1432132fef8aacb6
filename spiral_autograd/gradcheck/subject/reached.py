"""What somebody's objects reach, and how each kind of thing there is read and put back.

None of the user's own code runs here: no property, no `__getattr__`, no `__eq__`.
"""

from __future__ import annotations

import array
import functools
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


# -------------------- how each kind of thing is read, and put back --------------------


class Kind(NamedTuple):
    """How what a thing holds is read as a list, and written back; None where it cannot change.

    What is read holds nothing further where it is made for us, as the state of a random stream is.
    """

    read: Callable[[Any], list[Any]]
    write: Callable[[Any, list[Any]], object] | None = None
    is_made: bool = False


def _mapping(kind: type[dict[Any, Any]]) -> Kind:
    def write(held: dict[Any, Any], parts: list[Any]) -> None:
        kind.clear(held)
        kind.update(held, _halves(parts))

    return Kind(lambda held: [*kind.keys(held), *kind.values(held)], write)


def _halves(parts: list[Any]) -> dict[Any, Any]:
    """Return the dict of which the keys and then the values stand in a list."""
    half = len(parts) // 2
    return dict(zip(parts[:half], parts[half:], strict=True))


def _elements(kind: Any, refill: Any = None) -> Kind:
    def write(held: Any, parts: list[Any]) -> None:
        kind.clear(held)
        refill(held, parts)

    return Kind(lambda held: list(kind.__iter__(held)), write if refill else None)


def _holding(*names: str) -> Kind:
    return Kind(lambda held: [getattr(held, name) for name in names])


def _state(get: Callable[[Any], Any], put: Callable[[Any, Any], Any]) -> Kind:
    return Kind(lambda held: [get(held)], lambda held, parts: put(held, parts[0]), is_made=True)


def _bytes(kind: Any) -> Kind:
    return _state(
        lambda held: kind.__getitem__(held, slice(None)),
        lambda held, content: kind.__setitem__(held, slice(None), content),
    )


def _read_cell(cell: CellType) -> list[Any]:
    try:
        return [cell.cell_contents]
    except ValueError:
        return []


def _put_in_cell(cell: CellType, parts: list[Any]) -> None:
    if parts:
        cell.cell_contents = parts[0]
    else:
        del cell.cell_contents


def _put_defaults(function: FunctionType, parts: list[Any]) -> None:
    function.__defaults__, function.__kwdefaults__ = parts[:2]


def _read_class(kind: type) -> list[Any]:
    held = dict(vars(kind)) if _is_own_class(kind) else {}
    return [*held, *held.values()]


def _put_class(kind: type, parts: list[Any]) -> None:
    saved = _halves(parts)
    for name, value in saved.items():
        if vars(kind).get(name, ABSENT) is not value:
            type.__setattr__(kind, name, value)
    for name in [n for n in vars(kind) if n not in saved and not n.startswith("__")]:
        type.__delattr__(kind, name)


# By the first of these classes that an object's own inherits from.
_KINDS: dict[type, Kind] = {
    # The numbers of other arrays are kept by the snapshot.
    np.ndarray: Kind(lambda held: list(held.view(np.ndarray).flat) if held.dtype == object else []),
    OrderedDict: _mapping(OrderedDict),  # it has an order of its own
    dict: _mapping(dict),
    list: _elements(list, list.extend),
    tuple: _elements(tuple),
    set: _elements(set, set.update),
    frozenset: _elements(frozenset),
    deque: _elements(deque, deque.extend),
    bytearray: _bytes(bytearray),
    array.array: _bytes(array.array),
    CellType: Kind(_read_cell, _put_in_cell),
    FunctionType: Kind(
        lambda held: [held.__defaults__, held.__kwdefaults__, *(held.__closure__ or ())],
        _put_defaults,
    ),
    MethodType: _holding("__self__", "__func__"),
    functools.partial: _holding("func", "args", "keywords"),
    staticmethod: _holding("__func__"),
    classmethod: _holding("__func__"),
    property: _holding("fget", "fset", "fdel"),
    functools.cached_property: _holding("func"),
    threading.local: _holding("__dict__"),
    random.SystemRandom: _holding(),
    random.Random: _state(random.Random.getstate, random.Random.setstate),
    np.random.RandomState: _state(  # with the second of two normal numbers
        lambda held: held.get_state(legacy=False), np.random.RandomState.set_state
    ),
    np.random.Generator: _state(
        lambda held: held.bit_generator.state,
        lambda held, state: setattr(held.bit_generator, "state", state),
    ),
    type: Kind(_read_class, _put_class, is_made=True),
    object: _holding(),
}
_ROWS = {id(kind): row for kind, row in _KINDS.items()}
# Of what belongs to libraries, what users keep their own things in.
_OPEN = (*(kind for kind in _KINDS if kind not in (type, object)), SimpleNamespace, Namespace)


def _rows_of(kind: type) -> list[Kind]:
    """Return how objects of a class are read: as what it inherits from, and their attributes."""
    row = next(_ROWS[id(base)] for base in kind.__mro__ if id(base) in _ROWS)
    places = [] if issubclass(kind, type) else _places_of(kind)

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
    """Return the descriptors of what objects of a class hold: their slots, and the dict."""
    found = []
    for base in kind.__mro__:
        has_slots = "__slots__" in base.__dict__
        for name, descriptor in list(base.__dict__.items()):
            is_slot = has_slots and isinstance(descriptor, MemberDescriptorType)
            is_dict = name == "__dict__" and isinstance(descriptor, _DESCRIPTORS)
            if is_slot or is_dict:
                found.append(descriptor)
    return found


_DESCRIPTORS = (GetSetDescriptorType, MemberDescriptorType)


def _standing_in(place: Any, item: Any) -> Any:
    try:
        return place.__get__(item)
    except AttributeError:
        return ABSENT


_BUILT_IN = {id(kind): _rows_of(kind) for kind in _KINDS}


def dict_of(item: Any) -> dict[str, Any] | None:
    """Return the dict of an object's attributes; None where there is none of the usual kind."""
    kind = type(item)
    if issubclass(kind, threading.local):
        return item.__dict__
    places = [] if issubclass(kind, type) else _places_of(kind)
    held = (place.__get__(item) for place in places if place.__name__ == "__dict__")
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
    inner = (item for item in values if type(item) in (list, tuple))
    kinds = [set(map(type, part)) for part in inner]
    return set(map(type, values)) <= _PLAIN | {list, tuple} and all(k <= _PLAIN for k in kinds)


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
            pending += _reached_by_class(kind, modules, with_code=with_code)
        held = [(row, row.read(item)) for row in rows[id(kind)]]
        for row, parts in held:
            if not row.is_made:
                pending += [part for part in parts if type(part) not in _PLAIN]
        if issubclass(kind, FunctionType):
            pending += _streams_in(item.__globals__, modules)
        if with_code and issubclass(kind, FunctionType | type):
            pending += filter(_is_open, _used_by(item))
        yield item, held


def _reached_by_class(kind: type, modules: set[int], *, with_code: bool) -> list[Any]:
    """Return what all objects of a class reach: the class, and random streams beside it."""
    module = sys.modules.get(kind.__module__) if isinstance(kind.__module__, str) else None
    streams = _streams_in(vars(module), modules) if isinstance(module, ModuleType) else []
    return [*streams, kind] if with_code and own_bases(kind) else streams


def _streams_in(names: dict[str, Any], met: set[int]) -> list[Any]:
    """Return the random streams among the globals of a module, which its code may draw from."""
    if id(names) in met:
        return []
    met.add(id(names))
    return [value for value in list(names.values()) if issubclass(type(value), STREAMS)]


# -------------------- the user's own code --------------------


@functools.lru_cache(maxsize=4096)
def is_own_file(file: str) -> bool:
    """Tell whether code of a file is the user's own: not of a library, nor of this one."""
    parts = os.path.normpath(file).split(os.sep)
    installed = {"site-packages", "dist-packages"}.intersection(parts)
    return not installed and not is_installed(file) and not file.startswith("<frozen")


def own_bases(kind: type) -> list[type]:
    """Return a class and those that it inherits from, as far as they are the user's own."""
    return [base for base in kind.__mro__ if _is_own_class(base)]


def _is_own_class(kind: type) -> bool:
    name = kind.__dict__.get("__module__", "builtins")
    if name in sys.stdlib_module_names and name != "__main__":
        return False
    module = sys.modules.get(name) if isinstance(name, str) else None
    file = getattr(module, "__file__", None) if isinstance(module, ModuleType) else None
    if isinstance(file, str):
        return is_own_file(file)
    return name == "__main__" or any(
        isinstance(f, FunctionType) and is_own_file(f.__code__.co_filename)
        for f in list(kind.__dict__.values())
    )


def _is_open(value: Any) -> bool:
    """Tell whether what code reaches is to be looked into: nothing of libraries' own is."""
    kind = type(value)
    if issubclass(kind, type):
        return bool(own_bases(value))
    return issubclass(kind, _OPEN) or bool(own_bases(kind))


def _used_by(code: Any) -> list[Any]:
    """Return what a function uses of its globals, or what a class of the user's holds."""
    if isinstance(code, FunctionType):
        return [value for _, _, value in names_used(code)]
    return [value for base in own_bases(code) for value in (base, *vars(base).values())]


def names_used(function: FunctionType) -> list[tuple[dict[str, Any], str, Any]]:
    """Return the globals that a function of the user's own uses: where, the name, and the value.

    Those of its module, and of other modules of the user's; ABSENT where there is none yet.
    """
    if not is_own_file(function.__code__.co_filename):
        return []
    names = _names_of(function.__code__)
    contents = (part for cell in function.__closure__ or () for part in _read_cell(cell))
    modules = [*contents, *(sys.modules.get(name) for name in names)]
    pending = [function.__globals__, *(vars(m) for m in modules if _is_own_module(m))]
    met: set[int] = set()
    found = []
    while pending:
        there = pending.pop()
        if id(there) in met:
            continue
        met.add(id(there))
        for name in names:
            value = there.get(name, ABSENT)
            found.append((there, name, value))
            if _is_own_module(value):
                pending.append(vars(value))
    return found


def _is_own_module(value: Any) -> bool:
    file = vars(value).get("__file__") if type(value) is ModuleType else None
    return isinstance(file, str) and is_own_file(file)


@functools.lru_cache(maxsize=4096)
def _names_of(code: CodeType) -> tuple[str, ...]:
    """Return the names that code uses, those of the functions inside it too."""
    inner = (part for part in code.co_consts if isinstance(part, CodeType))
    return tuple(dict.fromkeys((*code.co_names, *(n for c in inner for n in _names_of(c)))))
