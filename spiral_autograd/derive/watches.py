"""Values that may change: whether one has changed, and how it is put back."""

from __future__ import annotations

import itertools
import operator
import random
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any, TypeAlias

import numpy as np

from .expressions import static_key

MISSING: Any = object()
Get: TypeAlias = Callable[[Any, Any], Any]  # of a name, and what there is where it has no value
Put: TypeAlias = Callable[[Any, Any], object]


class Names:
    """Values by name, of one owner; another object is another value."""

    def __init__(self, path: str, get: Get, put: Put, names: Sequence[Any]) -> None:
        self.path, self.names = path, names
        self.values = [get(name, MISSING) for name in names]
        self.put: Put | None = put
        self._get = get

    def is_same(self) -> bool:
        """Tell whether all names have the values that they had."""
        values = map(self._get, self.names, itertools.repeat(MISSING))
        return all(map(operator.is_, values, self.values))

    def put_back(self) -> Iterator[str]:
        """Give the names their values again; yield how a person reaches those that had others."""
        for name, value in zip(self.names, self.values, strict=True):
            if self.put is not None and self._get(name, MISSING) is not value:
                self.put(name, value)
                yield dotted(self.path, name)


class Contents:
    """All that a container, an array or a random stream holds, as `read` returns it."""

    def __init__(
        self,
        path: str,
        read: Callable[[], Any],
        put: Callable[[], object] | None,
        is_alike: Callable[[Any, Any], bool] = operator.eq,
    ) -> None:
        self.path, self.before, self.put = path, read(), put
        self._read, self._is_alike = read, is_alike

    def is_same(self) -> bool:
        """Tell whether it holds what it held."""
        return self._is_alike(self._read(), self.before)

    def put_back(self) -> Iterator[str]:
        """Put it back as it was; yield how a person reaches it, if it was otherwise."""
        if self.put is not None and not self.is_same():
            self.put()
            yield self.path


def dotted(path: str, name: object) -> str:
    """Return how a person reaches a name of an owner."""
    return f"{path}.{name}" if path else str(name)


def identical(ours: Sequence[Any], theirs: Sequence[Any]) -> bool:
    """Tell whether two sequences hold the same objects."""
    return len(ours) == len(theirs) and all(map(operator.is_, ours, theirs))


def put_entry(table: dict[Any, Any]) -> Put:
    """Return a function that gives a name in a namespace a value, or none."""
    return lambda name, value: (
        table.pop(name) if value is MISSING else table.__setitem__(name, value)
    )


def put_attribute(owner: Any) -> Put:
    """Return a function that gives an attribute a value, or none."""

    def put(name: str, value: Any) -> None:
        if value is MISSING:
            delattr(owner, name)
        else:
            setattr(owner, name, value)

    return put


def refill(container: Any) -> Callable[[], object]:
    """Return a function that gives a list, a dict, a set or a deque the items it has now again."""
    items = dict(container) if isinstance(container, dict) else list(container)
    add = container.extend if hasattr(container, "extend") else container.update
    return lambda: (container.clear(), add(items))


def state_of_stream(path: str, stream: Any) -> Contents:
    """Return what a random stream holds."""
    read: Callable[[], Any]
    write: Callable[..., object]
    if isinstance(stream, random.Random):
        read, write = stream.getstate, stream.setstate
    elif isinstance(stream, np.random.RandomState):
        read, write = partial(stream.get_state, legacy=False), stream.set_state
    else:
        bits = stream.bit_generator
        read, write = partial(getattr, bits, "state"), partial(setattr, bits, "state")
    before: Any = read()
    return Contents(path, lambda: static_key(read()), lambda: write(before))
