"""Values that may change: whether one has changed, and how it is put back."""

from __future__ import annotations

import itertools
import operator
import random
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from types import CellType
from typing import Any, TypeAlias

import numpy as np

from .expressions import static_key

MISSING: Any = object()
_MISSINGS = itertools.repeat(MISSING)
SAMPLES = 1024  # entries of an array that is too large to be compared
COMPARED_BYTES = 2**18  # an array up to this size is compared entry by entry before each call

Get: TypeAlias = Callable[[Any, Any], Any]  # of a name, and what there is where it has no value
Put: TypeAlias = Callable[[Any, Any], object]


class Names:
    """Values by name, of one owner; another object is another value."""

    def __init__(self, path: str, owner: object, names: Sequence[Any]) -> None:
        self.path, self.names = path, names
        self._get, self._put = _access(owner, names)
        self.values = [self._get(name, MISSING) for name in names]

    def is_same(self) -> bool:
        """Tell whether all names have the values that they had."""
        return all(map(operator.is_, map(self._get, self.names, _MISSINGS), self.values))

    def put_back(self) -> Iterator[str]:
        """Give the names their values again; yield how a person reaches those that had others."""
        for name, value in zip(self.names, self.values, strict=True):
            if self._get(name, MISSING) is not value:
                self._put(name, value)
                yield dotted(self.path, name)


def dotted(path: str, name: object) -> str:
    """Return how a person reaches a name of an owner."""
    if name == "cell_contents":  # of a variable
        return path
    return f"{path}.{name}" if path else str(name)


def _access(owner: Any, names: Sequence[Any]) -> tuple[Get, Put]:
    """Return how names of an owner are read, and how they are given a value, or none."""
    if isinstance(owner, dict):
        return (
            owner.get,
            lambda name, value: (
                owner.pop(name) if value is MISSING else owner.__setitem__(name, value)
            ),
        )
    if isinstance(names, range):  # the entries of an array of objects
        return (lambda k, _: owner.flat[k]), lambda k, value: owner.flat.__setitem__(k, value)
    get: Get = vars(owner).get if isinstance(owner, type) else partial(getattr, owner)
    if isinstance(owner, CellType):
        get = partial(content, owner)
    return (
        get,
        lambda name, value: (
            delattr(owner, name) if value is MISSING else setattr(owner, name, value)
        ),
    )


def content(cell: CellType, *_: object) -> Any:
    """Return what a variable of a closure holds."""
    try:
        return cell.cell_contents
    except ValueError:
        return MISSING


class Contents:
    """All that a container, an array or a random stream holds, as `read` returns it."""

    def __init__(
        self,
        path: str,
        read: Callable[[], Any],
        put: Callable[[], object] | None,
        is_alike: Callable[[Any, Any], bool] = operator.eq,
    ) -> None:
        self.path, self.before = path, read()
        self._read, self._put, self._is_alike = read, put, is_alike

    def is_same(self) -> bool:
        """Tell whether it holds what it held."""
        return self._is_alike(self._read(), self.before)

    def put_back(self) -> Iterator[str]:
        """Put it back as it was; yield how a person reaches it, if it was otherwise."""
        if self._put is not None and not self.is_same():
            self._put()
            yield self.path


def container(path: str, items: Any) -> Contents:
    """Return what a list, a deque, a dict or a set holds: the same objects in the same order."""
    is_dict = isinstance(items, dict)
    copy = dict(items) if is_dict else tuple(items)
    add = items.extend if hasattr(items, "extend") else items.update
    read = (lambda: (*items, *items.values())) if is_dict else (lambda: tuple(items))
    return Contents(path, read, lambda: (items.clear(), add(copy)), _identical)


def _identical(ours: Sequence[Any], theirs: Sequence[Any]) -> bool:
    return len(ours) == len(theirs) and all(map(operator.is_, ours, theirs))


def array(path: str, entries: Any, is_small: bool) -> Contents:
    """Return what an array holds; of a large one, entries that are spread over it."""
    places = None if is_small else np.linspace(0, entries.size - 1, SAMPLES).astype(np.intp)

    def read() -> Any:
        some = entries if places is None else entries.flat[places]
        return entries.shape, entries.dtype, some.tobytes()

    is_copied = is_small and entries.flags.writeable
    put = partial(entries.__setitem__, ..., entries.copy()) if is_copied else None
    return Contents(path, read, put)


def stream(path: str, source: Any) -> Contents:
    """Return what a random stream holds."""
    read: Callable[[], Any]
    write: Callable[..., object]
    if isinstance(source, random.Random):
        read, write = source.getstate, source.setstate
    elif isinstance(source, np.random.RandomState):
        read, write = partial(source.get_state, legacy=False), source.set_state
    else:
        bits = source.bit_generator
        read, write = partial(getattr, bits, "state"), partial(setattr, bits, "state")
    before: Any = read()
    return Contents(path, lambda: static_key(read()), lambda: write(before))
