"""What things hold: how each kind is read, put back, and told from what it was.

Between two runs the checker restores with it what somebody's objects reach; `derive` watches with
it what a loss reaches. None of the user's own code runs here: no property, no `__getattr__`, no
`__eq__`.
"""

from __future__ import annotations

import array
import ctypes
import functools
import itertools
import pickle
import random
import sys
import threading
from argparse import Namespace
from collections import OrderedDict, deque
from collections.abc import Callable, Iterator, Sequence
from operator import is_
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

from .recording import is_installed


class Unreached:
    """What a check itself keeps of somebody's objects: it is not looked through for others."""


ABSENT: Any = Unreached()

PLAIN: frozenset[type] = frozenset(
    (str, bytes, int, float, complex, bool, type(None), range, np.float64, np.int64)
)
ATOMS: tuple[type, ...] = (*PLAIN, ModuleType, CodeType, np.generic, np.dtype, Unreached)
STREAMS = (np.random.RandomState, np.random.Generator, random.Random)
GLOBAL_STREAMS: tuple[Any, ...] = (np.random.get_state.__self__, random.getstate.__self__)  # type: ignore[attr-defined]


# -------------------- the user's own code --------------------


def own_bases(kind: type) -> list[type]:
    """Return a class and those that it inherits from, as far as they are the user's own."""
    return [base for base in kind.__mro__ if is_own_class(base)]


def is_own_class(kind: type) -> bool:
    """Tell whether a class is neither Python's nor of an installed package."""
    name = kind.__dict__.get("__module__", "builtins")
    if name == "__main__":
        return True
    if name in sys.stdlib_module_names:
        return False
    module = sys.modules.get(name) if isinstance(name, str) else None
    file = getattr(module, "__file__", None) if isinstance(module, ModuleType) else None
    if isinstance(file, str):
        return not is_installed(file)
    return module is None or any(
        isinstance(f, FunctionType) and not is_installed(f.__code__.co_filename)
        for f in list(kind.__dict__.values())
    )


def is_own_module(value: object) -> bool:
    """Tell whether a value is a module of the user's own."""
    file = vars(value).get("__file__") if type(value) is ModuleType else None
    return isinstance(file, str) and not is_installed(file)


def is_open(value: Any) -> bool:
    """Tell whether what code reaches is to be looked into: nothing of libraries' own is."""
    kind = type(value)
    if issubclass(kind, type):
        return bool(own_bases(value))
    return issubclass(kind, _OPEN) or bool(own_bases(kind))


# -------------------- how each kind of thing is read, and put back --------------------


def identical(ours: Sequence[object], theirs: Sequence[object]) -> bool:
    """Tell whether two lists hold the same objects in the same order."""
    return len(ours) == len(theirs) and all(map(is_, ours, theirs))


class Kind(NamedTuple):
    """How what a thing holds is read as a list, and written back; None where it cannot change.

    `opens` tells which of the parts are looked into for others: by default all that may hold any;
    `is_same` tells whether what is read now is what was read before. `mark`, of an item and of what
    it held before, is not None where it alone tells, at less cost, that it holds the same.
    """

    read: Callable[[Any], Sequence[Any]]
    write: Callable[[Any, Any], object] | None = None
    opens: Callable[[Any], bool] | None = None
    is_same: Callable[[Any, Any], bool] = identical
    mark: Callable[[Any, Any], object] | None = None


class Held:
    """What a thing holds now, which can be compared with what it holds later, and put back."""

    __slots__ = ("_is_same", "_mark", "_read", "before", "item", "kind")

    def __init__(self, item: Any, kind: Kind | None = None) -> None:
        self.item, self.kind = item, kind or kind_of(type(item))
        self._read, self._is_same = self.kind.read, self.kind.is_same
        self.before = self._read(item)
        self._mark = self.kind.mark and self.kind.mark(item, self.before)

    def is_same(self) -> bool:
        """Tell whether the thing holds what it held."""
        return self._is_marked() or self._is_same(self._read(self.item), self.before)

    def put(self) -> None:
        """Let the thing hold again what it held, if that can change and has."""
        if self.kind.write is not None and not self._is_marked():
            self.kind.write(self.item, self.before)

    def _is_marked(self) -> bool:
        mark, noted = self.kind.mark, self._mark
        return mark is not None and noted is not None and mark(self.item, self.before) == noted


class Names(NamedTuple):
    """Some names of a dict, such as the globals that a function uses, or of a class."""

    owner: Any
    names: Sequence[str]

    @property
    def table(self) -> Any:
        """The dict, or that of the class."""
        return vars(self.owner) if isinstance(self.owner, type) else self.owner


def _mapping(kind: type[dict[Any, Any]]) -> Kind:
    def write(held: dict[Any, Any], parts: list[Any]) -> None:
        kind.clear(held)
        kind.update(held, in_pairs(parts))

    return Kind(lambda held: [*kind.keys(held), *kind.values(held)], write)


def in_pairs(parts: Sequence[Any]) -> Iterator[tuple[Any, Any]]:
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
        lambda held: [get(held)],
        lambda held, parts: put(held, parts[0]),
        lambda part: False,
        lambda ours, theirs: pickle.dumps(ours) == pickle.dumps(theirs),
    )


def _numbers_drawn_from(stream: np.random.RandomState, before: Sequence[Any]) -> bytes | None:
    """Return the memory of a stream's generator, which is read in a hundredth of the time."""
    source = stream._bit_generator
    if type(source) is not np.random.MT19937 or before[0]["has_gauss"]:
        return None
    return ctypes.string_at(source.ctypes.state_address, 625 * 4)  # the numbers, and the place


def _bytes(kind: Any) -> Kind:
    return _state(
        lambda held: kind.__getitem__(held, slice(None)),
        lambda held, content: kind.__setitem__(held, slice(None), content),
    )


def _read_class(kind: type) -> list[Any]:
    held = dict(vars(kind)) if is_own_class(kind) else {}
    return [*held, *held.values()]


def _put_class(kind: type, parts: list[Any]) -> None:
    saved = dict(in_pairs(parts))
    new = [name for name in vars(kind) if name not in saved and not name.startswith("__")]
    _put_names(Names(kind, [*saved, *new]), [*saved.values(), *(ABSENT for _ in new)])


def _read_names(used: Names) -> list[Any]:
    return list(map(used.table.get, used.names, itertools.repeat(ABSENT)))


def _put_names(used: Names, parts: list[Any]) -> None:
    owner, table = used.owner, used.table
    is_class = isinstance(owner, type)
    put: Any = type.__setattr__ if is_class else dict.__setitem__
    drop: Any = type.__delattr__ if is_class else dict.__delitem__
    for name, value in zip(used.names, parts, strict=True):
        now = table.get(name, ABSENT)
        if value is not ABSENT and now is not value:
            put(owner, name, value)
        elif value is ABSENT and not isinstance(now, (Unreached, ModuleType)):
            drop(owner, name)  # but a module that was imported meanwhile stays


_NOTHING = Kind(lambda held: [])
# By the first of these classes that an object's own inherits from.
_KINDS: dict[type, Kind] = {
    # The numbers of other arrays are kept by the snapshot.
    np.ndarray: Kind(lambda held: list(held.view(np.ndarray).flat) if held.dtype == object else []),
    OrderedDict: _mapping(OrderedDict),  # it has an order of its own
    dict: _mapping(dict),
    list: _elements(list, list.extend),
    Names: Kind(_read_names, _put_names, is_open),
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
    )._replace(mark=_numbers_drawn_from),
    np.random.Generator: _state(
        lambda held: held.bit_generator.state,
        lambda held, state: setattr(held.bit_generator, "state", state),
    ),
    threading.local: Kind(lambda held: [held.__dict__]),
    type: Kind(_read_class, _put_class, is_open),
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
_OPEN = (*_OPEN, functools.cached_property, SimpleNamespace, Namespace, np.vectorize)


def kind_of(kind: type) -> Kind:
    """Return how objects of a class are read as what it inherits from."""
    return next(_ROWS[id(base)] for base in kind.__mro__ if id(base) in _ROWS)


def kinds_of(kind: type) -> list[Kind]:
    """Return how objects of a class are read: as what it inherits from, and their attributes."""
    places = places_of(kind)
    return [kind_of(kind), in_places(places)] if places else [kind_of(kind)]


def in_places(places: Sequence[Any]) -> Kind:
    """Return how objects are read that hold something by some descriptors of their class."""

    def write(item: object, parts: list[Any]) -> None:
        for place, part in zip(places, parts, strict=True):
            now = standing_in(place, item)
            if now is not part and part is ABSENT:
                place.__delete__(item)
            elif now is not part:
                place.__set__(item, part)

    return Kind(lambda item: [standing_in(place, item) for place in places], write)


def places_of(kind: type) -> list[Any]:
    """Return the descriptors of what objects of a class hold: slots, the dict, what is built in."""
    if issubclass(kind, type):
        return []
    found: list[Any] = []
    for base in kind.__mro__:
        own = [base.__dict__.get(name) for name in _ATTRIBUTES.get(id(base), ["__dict__"])]
        found += (p for p in own if isinstance(p, GetSetDescriptorType | MemberDescriptorType))
        found += (slot for slot in _slots(base) if slot not in own)
    return found


def _slots(kind: type) -> list[Any]:
    """Return the descriptors of the slots that a class itself has."""
    values = list(kind.__dict__.values()) if "__slots__" in kind.__dict__ else ()
    return [place for place in values if isinstance(place, MemberDescriptorType)]


def slots_of(kind: type) -> list[Any]:
    """Return the descriptors of the slots of a class and its bases."""
    return [slot for base in kind.__mro__ for slot in _slots(base)]


def standing_in(place: Any, item: object) -> Any:
    """Return what an object holds by a descriptor; `ABSENT` where that is empty."""
    try:
        return place.__get__(item)
    except (AttributeError, ValueError):  # an empty slot, an empty cell
        return ABSENT


BUILT_IN = {id(kind): kinds_of(kind) for kind in (*_KINDS, *_HOLDERS)}


def dict_of(item: Any) -> dict[str, Any] | None:
    """Return the dict of an object's attributes; None where there is none of the usual kind."""
    if issubclass(type(item), threading.local):
        return item.__dict__
    held = [place.__get__(item) for place in places_of(type(item)) if place.__name__ == "__dict__"]
    return next((found for found in held if isinstance(found, dict)), None)


def has_any(item: Any, names: frozenset[str]) -> bool:
    """Tell whether an object has one of some attributes, not counting what `__getattr__` gives."""
    there = [base.__dict__ for base in type(item).__mro__]
    return not all(map(names.isdisjoint, [*there, dict_of(item) or {}]))


def is_namespace(held: Any) -> bool:
    """Tell whether a dict is what code runs in: the globals of a module, the built-ins, modules."""
    if type(held) is not dict:
        return False
    return "__builtins__" in held or "__spec__" in held or held is sys.modules


def is_vocabulary(held: Any) -> bool:
    """Tell whether a list or dict is long, and holds but numbers and strings, or lists of them."""
    if type(held) not in (dict, list, tuple) or len(held) < 64:
        return False
    values = held.values() if type(held) is dict else held
    if not set(map(type, values)) <= PLAIN | {list, tuple}:
        return False
    inner = itertools.chain.from_iterable(v for v in values if type(v) in (list, tuple))
    return set(map(type, inner)) <= PLAIN
