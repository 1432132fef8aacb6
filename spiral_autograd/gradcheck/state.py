"""Other people's objects, run again and again from the same state, and left as they were."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from types import FunctionType, MethodType, ModuleType
from typing import Any

import numpy as np
from numpy.random import get_state, set_state

_ATOMS = (str, bytes, int, float, complex, bool, type(None), type, ModuleType, np.generic, np.dtype)
_global_random_state = threading.RLock()


class Snapshot:
    """The state of everything that some objects reach: attributes, containers, arrays, streams.

    Parameters
    ----------
    *roots : objects

    Examples
    --------
    >>> values = {"W": np.zeros(2)}
    >>> before = Snapshot(values)
    >>> values["W"] += 1; values["b"] = None
    >>> before.restore()
    >>> values
    {'W': array([0., 0.])}
    """

    def __init__(self, *roots: Any) -> None:
        self._undo: list[Callable[[], Any]] = []
        self._seen: dict[int, Any] = {}
        pending = list(roots)
        while pending:
            item = pending.pop()
            if isinstance(item, _ATOMS) or id(item) in self._seen:
                continue
            self._seen[id(item)] = item
            pending.extend(self._keep(item))

    def restore(self) -> None:
        """Put everything back."""
        for undo in self._undo:
            undo()

    def _keep(self, item: Any) -> list[Any]:
        """Note how to restore an item, and return what it holds."""
        if isinstance(item, np.ndarray):
            if item.flags.writeable:
                saved = item.copy()
                self._undo.append(lambda: np.copyto(item, saved))
            return list(item.flat) if item.dtype == object else []
        if isinstance(item, dict):
            pairs = dict(item)
            self._undo.append(lambda: _refill(item, pairs))
            return list(pairs.values())
        if isinstance(item, list):
            entries = list(item)
            self._undo.append(lambda: item.__setitem__(slice(None), entries))
            return entries
        if isinstance(item, tuple | set | frozenset):
            return list(item)
        if isinstance(item, np.random.RandomState | np.random.Generator):
            name = "_bit_generator" if isinstance(item, np.random.RandomState) else "bit_generator"
            bits = getattr(item, name)
            state = bits.state
            self._undo.append(lambda: setattr(bits, "state", state))
            return []
        if isinstance(item, MethodType):
            return [item.__self__]
        if isinstance(item, FunctionType):
            return [c.cell_contents for c in item.__closure__ or () if _is_filled(c)]
        return self._keep_attributes(item)

    def _keep_attributes(self, item: Any) -> list[Any]:
        held = []
        attributes = getattr(item, "__dict__", None)
        if isinstance(attributes, dict):
            pairs = dict(attributes)
            self._undo.append(lambda: _refill(attributes, pairs))
            held += list(pairs.values())
        for name in _slots(type(item)):
            value = getattr(item, name, None)
            if hasattr(item, name):
                self._undo.append(partial(setattr, item, name, value))
                held.append(value)
        return held


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
    """Runs code of the user's, each time from the same state of its objects and of np.random."""

    def __init__(self, *roots: Any) -> None:
        self._roots = roots
        self._snapshot = Snapshot(*roots)
        self.random_state = get_state()

    @contextmanager
    def fresh(self) -> Iterator[None]:
        """Begin from the state that was found; what the code then changes stays until the next."""
        self._snapshot.restore()
        set_state(self.random_state)
        yield

    def same_random(self) -> None:
        """Set NumPy's global random state to the one that each run begins from."""
        set_state(self.random_state)

    def add(self, *roots: Any) -> None:
        """Take more objects among those that are restored."""
        self._roots = (*self._roots, *roots)
        self.rebase()

    def restore(self) -> None:
        """Put the objects back into the state to begin from."""
        self._snapshot.restore()

    def rebase(self) -> None:
        """Take the present state as the one to begin from."""
        self._snapshot = Snapshot(*self._roots)


@contextmanager
def untouched(*roots: Any) -> Iterator[Session]:
    """Give a session, and leave the objects and NumPy's global random state as they were."""
    with _global_random_state:
        before, random_state = Snapshot(*roots), get_state()
        try:
            with np.errstate(all="ignore"):
                yield Session(*roots)
        finally:
            before.restore()
            set_state(random_state)
