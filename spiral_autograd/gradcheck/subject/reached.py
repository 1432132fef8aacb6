"""What somebody's objects reach: what may change while their code runs.

None of the user's own code runs here: no property, no `__getattr__`, no `__eq__`.
"""

from __future__ import annotations

import argparse
import array
import functools
import os
import random
import sys
import sysconfig
import threading
from collections import deque
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
from typing import Any

import numpy as np

ABSENT: Any = object()


class Unreached:
    """What a check itself keeps of somebody's objects: it is not looked through for others."""


_PLAIN: frozenset[type] = frozenset(
    (str, bytes, int, float, complex, bool, type(None), range, np.float64, np.int64)
)
_ATOMS: tuple[type, ...] = (*_PLAIN, ModuleType, CodeType, np.generic, np.dtype, Unreached)
STREAMS = (np.random.RandomState, np.random.Generator, random.Random)
CONTAINERS = (dict, list, tuple, set, frozenset, deque, bytearray, array.array, np.ndarray)
# Of what belongs to libraries, what users keep their own things in.
_OPEN = (
    *(*CONTAINERS, *STREAMS, FunctionType, MethodType, CellType, functools.partial),
    *(SimpleNamespace, argparse.Namespace, threading.local),
)


def reach(*roots: Any) -> Iterator[Any]:
    """Yield every object that some objects reach, once: what may change, and what holds it."""
    return _walked(roots, _Held(), (*_ATOMS, type))


def reach_with_code(*roots: Any) -> Iterator[Any]:
    """Yield besides what their code reaches: classes, the globals that are used, defaults.

    Only of code of the user's own.
    """
    return _walked(roots, _HeldByCode(), _ATOMS)


def _walked(
    roots: Iterable[Any], held: Callable[[Any], Iterable[Any]], atoms: tuple[type, ...]
) -> Iterator[Any]:
    seen: dict[int, Any] = {}
    pending = list(roots)
    while pending:
        item = pending.pop()
        if issubclass(type(item), atoms) or id(item) in seen:
            continue
        seen[id(item)] = item
        pending.extend(held(item))
        yield item


def is_plain(values: Iterable[Any]) -> bool:
    """Tell whether there are only numbers and strings, which reach nothing and cannot change."""
    return set(map(type, values)) <= _PLAIN


def is_vocabulary(held: Any) -> bool:
    """Tell whether a list or dict is long, and holds but numbers and strings, or lists of them."""
    if type(held) not in (dict, list, tuple) or len(held) < 64:
        return False
    values = held.values() if type(held) is dict else held
    inner = (item for item in values if type(item) in (list, tuple))
    return set(map(type, values)) <= _PLAIN | {list, tuple} and all(map(is_plain, inner))


class _Held:
    """What an object holds."""

    def __init__(self) -> None:
        self._modules: set[str] = set()

    def __call__(self, item: Any) -> list[Any]:
        kind = type(item)
        if kind in CONTAINERS:
            return _contents(item)
        if issubclass(kind, CONTAINERS):
            return _contents(item) + _attributes(item)
        if issubclass(kind, np.random.RandomState | np.random.Generator):
            return []
        if issubclass(kind, MethodType):
            return [item.__self__]
        if issubclass(kind, functools.partial):
            return [item.func, item.args, item.keywords]
        if issubclass(kind, CellType):
            return [] if (content := cell_content(item)) is ABSENT else [content]
        if issubclass(kind, FunctionType):
            cells = [c for c in item.__closure__ or () if cell_content(c) is not ABSENT]
            return [*cells, *self._streams(item.__globals__), *_attributes(item)]
        module = sys.modules.get(kind.__module__) if isinstance(kind.__module__, str) else None
        streams = self._streams(vars(module)) if isinstance(module, ModuleType) else []
        return _attributes(item) + streams

    def _streams(self, names: dict[str, Any]) -> list[Any]:
        """Return the random streams among the globals of a module, which its code may draw from."""
        name = str(names.get("__name__"))
        if name in self._modules:
            return []
        self._modules.add(name)
        return [value for value in list(names.values()) if issubclass(type(value), STREAMS)]


class _HeldByCode(_Held):
    """What an object holds, and what its code reaches."""

    def __call__(self, item: Any) -> list[Any]:
        kind = type(item)
        if issubclass(kind, FunctionType):
            more = [item.__defaults__, item.__kwdefaults__]
            used = [value for _, _, value in names_used(item) if _is_open(value)]
            return [*super().__call__(item), *filter(None, more), *used]
        if issubclass(kind, MethodType):
            return [item.__self__, item.__func__]
        if issubclass(kind, type):
            values = [value for base in own_bases(item) for value in vars(base).values()]
            parts = (part for value in values for part in _functions_in(value))
            return [part for part in parts if _is_open(part)]
        return [*super().__call__(item), *([kind] if own_bases(kind) else [])]


def _contents(item: Any) -> list[Any]:
    """Return what a container holds, unless it can be nothing but numbers and strings."""
    kind = type(item)
    if issubclass(kind, np.ndarray):
        return list(item.view(np.ndarray).flat) if item.dtype == object else []
    if issubclass(kind, bytearray | array.array):
        return []
    if issubclass(kind, dict):
        parts = [list(dict.keys(item)), list(dict.values(item))]
    else:
        parts = [list(next(b for b in CONTAINERS if issubclass(kind, b)).__iter__(item))]
    return [value for part in parts if not is_plain(part) for value in part]


def _attributes(item: Any) -> list[Any]:
    """Return what the attributes of an object hold: its dict, and what stands in its slots."""
    attributes = dict_of(item)
    values = (value for _, value in slots_of(item) if value is not ABSENT)
    return [*([] if attributes is None else [attributes]), *values]


def has_any(item: Any, names: frozenset[str]) -> bool:
    """Tell whether an object has one of some attributes, not counting what `__getattr__` gives."""
    there = [base.__dict__ for base in type(item).__mro__]
    return not all(map(names.isdisjoint, [*there, dict_of(item) or {}]))


def dict_of(item: Any) -> dict[str, Any] | None:
    """Return the dict of an object's attributes; None where there is none of the usual kind."""
    kind = type(item)
    if issubclass(kind, type):
        return None
    if issubclass(kind, threading.local):
        return item.__dict__
    for base in kind.__mro__:
        descriptor = base.__dict__.get("__dict__")
        if isinstance(descriptor, GetSetDescriptorType | MemberDescriptorType):
            found = descriptor.__get__(item)
            return found if isinstance(found, dict) else None
    return None


def slots_of(item: Any) -> list[tuple[Any, Any]]:
    """Return the descriptors of an object's slots, each with what stands in it, or ABSENT."""
    found = []
    for base in type(item).__mro__:
        if "__slots__" in base.__dict__:
            for descriptor in list(base.__dict__.values()):
                if isinstance(descriptor, MemberDescriptorType):
                    try:
                        found.append((descriptor, descriptor.__get__(item)))
                    except AttributeError:
                        found.append((descriptor, ABSENT))
    return found


def cell_content(cell: CellType) -> Any:
    """Return what is in a cell of a closure; ABSENT where it is empty."""
    try:
        return cell.cell_contents
    except ValueError:
        return ABSENT


# -------------------- the user's own code --------------------

_LIBRARIES = tuple(
    os.path.normpath(folder) + os.sep
    for folder in {
        *(sysconfig.get_paths()[name] for name in ("stdlib", "platstdlib", "purelib", "platlib")),
        os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__)))),
        os.path.dirname(os.path.dirname(np.__file__)),
    }
)


@functools.lru_cache(maxsize=4096)
def is_own_file(file: str) -> bool:
    """Tell whether code of a file is the user's own: not of a library, nor of this one."""
    file = os.path.normpath(file)
    installed = {"site-packages", "dist-packages"}.intersection(file.split(os.sep))
    return not installed and not file.startswith((*_LIBRARIES, "<frozen"))


def own_bases(kind: type) -> list[type]:
    """Return a class and those that it inherits from, as far as they are the user's own."""
    return [base for base in type.mro(kind) if _is_own_class(base)] if kind is not type else []


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


def _functions_in(value: Any) -> list[Any]:
    """Return the functions that a class attribute is made of; else the attribute itself."""
    if isinstance(value, staticmethod | classmethod):
        return [value.__func__]
    if isinstance(value, property):
        return [f for f in (value.fget, value.fset, value.fdel) if f is not None]
    return [value.func] if isinstance(value, functools.cached_property) else [value]


def names_used(function: FunctionType) -> list[tuple[dict[str, Any], str, Any]]:
    """Return what a function of the user's own uses of its module's globals, and of others'.

    Returns
    -------
    list of (dict, str, object)
        The globals, a name in it, and its value; ABSENT where there is none.
    """
    if not is_own_file(function.__code__.co_filename):
        return []
    names = names_of(function.__code__)
    contents = (cell_content(cell) for cell in function.__closure__ or ())
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
def names_of(code: CodeType) -> tuple[str, ...]:
    """Return the names that code uses, those of the functions inside it too."""
    found = dict.fromkeys(code.co_names)
    pending = [code]
    while pending:
        for inner in pending.pop().co_consts:
            if isinstance(inner, CodeType):
                found.update(dict.fromkeys(inner.co_names))
                pending.append(inner)
    return tuple(found)
