"""Other people's objects, run again and again from the same state, and left as they were."""

from __future__ import annotations

import pickle
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from types import FunctionType, MethodType, ModuleType
from typing import Any

import numpy as np
from numpy.random import get_state, set_state

from ...validation import Array

_ATOMS = (str, bytes, int, float, complex, bool, type(None), type, ModuleType, np.generic, np.dtype)
_global_random_state = threading.RLock()


def reach(*roots: Any) -> Iterator[Any]:
    """Yield every object that some objects reach, once: what may change, and what holds it."""
    seen: dict[int, Any] = {}
    pending = list(roots)
    while pending:
        item = pending.pop()
        if isinstance(item, _ATOMS) or id(item) in seen:
            continue
        seen[id(item)] = item
        pending.extend(_held(item))
        yield item


def _held(item: Any) -> list[Any]:
    """Return what an object holds."""
    if isinstance(item, np.ndarray):
        return list(item.flat) if item.dtype == object else []
    if isinstance(item, dict):
        return list(item.values())
    if isinstance(item, list | tuple | set | frozenset):
        return list(item)
    if isinstance(item, np.random.RandomState | np.random.Generator):
        return []
    if isinstance(item, MethodType):
        return [item.__self__]
    if isinstance(item, FunctionType):
        cells = [c.cell_contents for c in item.__closure__ or () if _is_filled(c)]
        return cells + _streams(item.__globals__)
    attributes = getattr(item, "__dict__", None)
    held = [attributes] if isinstance(attributes, dict) else []
    module = sys.modules.get(type(item).__module__)
    held += _streams(vars(module)) if module is not None else []
    return held + [getattr(item, name) for name in _slots(type(item)) if hasattr(item, name)]


def _streams(names: dict[str, Any]) -> list[Any]:
    """Return the random streams among the globals of a module, which its code may draw from."""
    kinds = (np.random.RandomState, np.random.Generator)
    return [value for value in list(names.values()) if isinstance(value, kinds)]


class Snapshot:
    """The state of everything that some objects reach: attributes, containers, arrays, streams.

    Parameters
    ----------
    *roots : objects
    like : Snapshot, optional
        An earlier one, whose copies are shared where nothing has changed.

    Examples
    --------
    >>> values = {"W": np.zeros(2)}
    >>> before = Snapshot(values)
    >>> values["W"] += 1; values["b"] = None
    >>> before.restore()
    >>> values
    {'W': array([0., 0.])}
    """

    def __init__(self, *roots: Any, like: Snapshot | None = None) -> None:
        self._like = like
        self._undo: list[Callable[[], Any]] = []
        self._arrays: dict[int, tuple[Array, Array]] = {}
        self._items: list[Any] = []  # kept alive, so that their ids stay theirs
        self.add(*roots)

    def add(self, *roots: Any) -> None:
        """Take in the state of more objects."""
        for item in reach(*roots):
            self._items.append(item)
            self._note(item)

    def restore(self) -> None:
        """Put everything back."""
        for undo in self._undo:
            undo()
        for array, saved in self._arrays.values():
            np.copyto(array, saved)

    def kept(self, array: Array) -> Array | None:
        """Return the content of an array as it was; None of one that was not there."""
        _, saved = self._arrays.get(id(array), (None, None))
        return saved

    def keep(self, array: Array, content: Array) -> None:
        """Let an array be restored to another content."""
        self._arrays[id(array)] = array, content

    def covers(self, array: Array) -> bool:
        """Tell whether restoring would write into an array."""
        return any(np.may_share_memory(array, own) for own, _ in self._arrays.values())

    def _note(self, item: Any) -> None:
        """Note how to restore an object itself."""
        if isinstance(item, np.ndarray):
            if item.flags.writeable:
                self.keep(item, self._copy(item))
        elif isinstance(item, dict):
            self._undo.append(partial(_refill, item, dict(item)))
        elif isinstance(item, list):
            self._undo.append(partial(item.__setitem__, slice(None), list(item)))
        elif isinstance(item, np.random.RandomState):  # with the second of two normal numbers
            self._undo.append(partial(item.set_state, item.get_state(legacy=False)))
        elif isinstance(item, np.random.Generator):
            bits = item.bit_generator
            self._undo.append(partial(setattr, bits, "state", bits.state))
        else:
            for name in _slots(type(item)):
                if hasattr(item, name):
                    self._undo.append(partial(setattr, item, name, getattr(item, name)))

    def _copy(self, array: Array) -> Array:
        """Return a copy, or that of an earlier snapshot where the content is the same."""
        before = self._like.kept(array) if self._like is not None else None
        if before is not None and array.dtype != object and np.array_equal(before, array):
            return before
        return array.copy()


def _refill(mapping: Any, pairs: dict[Any, Any]) -> None:
    mapping.clear()
    mapping.update(pairs)


def _is_filled(cell: Any) -> bool:
    try:
        cell.cell_contents  # noqa: B018
    except ValueError:
        return False
    return True


def _slots(kind: type) -> list[str]:
    names: list[str] = []
    for base in kind.__mro__:
        slots = base.__dict__.get("__slots__", ())
        names += [slots] if isinstance(slots, str) else list(slots)
    return [name for name in names if name not in ("__dict__", "__weakref__")]


class Session:
    """Runs code of the user's, each time from the same state of its objects and of np.random.

    Parameters
    ----------
    *roots : objects
        What the code reaches: its state now is the one to begin from.

    Attributes
    ----------
    original : Snapshot
        The state in which the objects were found, and are left.
    start : Snapshot
        The state to begin from: another where parameters are made in the first forward pass.
    """

    def __init__(self, *roots: Any) -> None:
        self._roots = roots
        self.original = self.start = Snapshot(*roots)
        self.random_state = get_state()
        self._is_at_start = True

    @contextmanager
    def fresh(self) -> Iterator[None]:
        """Begin from the start; what the code then changes stays until the next."""
        self.restore()
        self.same_random()
        self._is_at_start = False
        yield

    @contextmanager
    def unused(self) -> Iterator[None]:
        """Begin from the state in which the objects were found, before any call of ours."""
        self.original.restore()
        self.same_random()
        self._is_at_start = False
        yield

    @contextmanager
    def moved(self, arrays: Sequence[Array], others: Sequence[Array]) -> Iterator[None]:
        """Let the arrays begin with other contents for a while."""
        self.restore()
        saved = [self._content(array) for array in arrays]
        try:
            self._begin_with(arrays, others)
            yield
        finally:
            self._begin_with(arrays, saved)
            self.restore()

    def _content(self, array: Array) -> Array:
        kept = self.start.kept(array)
        return array.copy() if kept is None else kept

    def _begin_with(self, arrays: Sequence[Array], contents: Sequence[Array]) -> None:
        for array, content in zip(arrays, contents, strict=True):
            self.start.keep(array, content)
        self._is_at_start = False

    def same_random(self) -> None:
        """Set NumPy's global random state to the one that each run begins from."""
        set_state(self.random_state)

    def add(self, *roots: Any) -> None:
        """Take more objects among those that are restored."""
        self._roots = (*self._roots, *roots)
        self.start.add(*roots)

    def restore(self) -> None:
        """Put the objects back into the state to begin from."""
        if not self._is_at_start:
            self.start.restore()
            self._is_at_start = True

    def rebase(self) -> None:
        """Take the present state as the one to begin from."""
        self.start = Snapshot(*self._roots, like=self.original)

    def covers(self, array: Array) -> bool:
        """Tell whether restoring would write into an array."""
        return self.start.covers(array) or self.original.covers(array)


@contextmanager
def untouched(*roots: Any) -> Iterator[Session]:
    """Give a session, and leave the objects and NumPy's global random state as they were."""
    with _global_random_state:
        session = Session(*roots)
        try:
            with np.errstate(all="ignore"):
                yield session
        finally:
            session.original.restore()
            session.same_random()


# -------------------- the places of random streams --------------------


def streams_of(*roots: Any) -> list[Any]:
    """Return the bit generators of the random streams that objects reach."""
    streams = (np.random.RandomState, np.random.Generator)
    return [
        item._bit_generator if isinstance(item, np.random.RandomState) else item.bit_generator
        for item in reach(*roots)
        if isinstance(item, streams)
    ]


def states(streams: Sequence[Any]) -> list[Any]:
    """Return the states of bit generators, and before them NumPy's global one."""
    return [get_state(), *((bits, bits.state) for bits in streams)]


def put_back(noted: Sequence[Any]) -> None:
    """Set random streams to states that were noted."""
    set_state(noted[0])
    for bits, state in noted[1:]:
        bits.state = state


def same_states(ours: Sequence[Any], theirs: Sequence[Any]) -> bool:
    """Tell whether the random streams that two notes share stand at the same place."""

    def content(noted: Sequence[Any]) -> dict[int, bytes]:
        own = {id(bits): pickle.dumps(state) for bits, state in noted[1:]}
        return {0: pickle.dumps(noted[0])} | own

    mine, other = content(ours), content(theirs)
    return all(mine[key] == other[key] for key in mine.keys() & other.keys())
