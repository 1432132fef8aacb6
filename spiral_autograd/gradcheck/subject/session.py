"""Other people's objects, run again and again from the same state, and left as they were."""

from __future__ import annotations

import pickle
import random
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from operator import is_
from typing import Any

import numpy as np
from autograd.tracer import trace_stack
from numpy.random import get_state, set_state

from ...boxes import process_lock
from ...validation import Array
from .reached import Unreached, walk
from .reached import reach as reach

Form = tuple[tuple[int, ...], Any, bool]  # shape, dtype, and whether it can be written into


class Snapshot(Unreached):
    """The state of everything that some objects and their code reach, which can be put back.

    Where an earlier snapshot is given, copies of arrays that have not changed are shared with it.

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
        self._items: dict[int, Any] = {}  # kept alive, so that their ids stay theirs
        self._held: list[tuple[Any, Callable[[Any], list[Any]], Any, list[Any]]] = []
        self._forms: list[tuple[Array, Form]] = []
        self._arrays: dict[int, tuple[Array, Array]] = {}
        self.add(*roots)

    def add(self, *roots: Any) -> None:
        """Take in the state of more objects."""
        for item, held in walk(roots, with_code=True):
            if id(item) in self._items:
                continue
            self._items[id(item)] = item
            self._held += [(item, *kind[:2], parts) for kind, parts in held if kind.write]
            if issubclass(type(item), np.ndarray):
                self._note_array(item)

    def restore(self) -> None:
        """Put everything back."""
        locked = [(array, form) for array, form in self._forms if not _put_form(array, form)]
        for item, read, write, parts in self._held:
            now = read(item)
            if len(now) != len(parts) or not all(map(is_, now, parts)):
                write(item, parts)
        for array, form in locked:  # a view may be unlocked only after what it looks into
            _put_form(array, form)
        for own, saved in self._arrays.values():
            _refill_array(own, saved)

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

    def _note_array(self, item: Array) -> None:
        plain = item.view(np.ndarray)
        if item.flags.writeable or item.flags.owndata:  # what is read-only may be unlocked
            before = self._like.kept(item) if self._like is not None else None
            is_same = before is not None and plain.dtype != object and np.array_equal(before, plain)
            self.keep(item, before if is_same and before is not None else plain.copy())
        self._forms.append((item, (item.shape, item.dtype, item.flags.writeable)))


def _put_form(held: Array, form: Form) -> bool:
    """Give an array its shape, dtype and flag back, and tell whether that could be done."""
    shape, dtype, writeable = form
    try:
        if held.dtype != dtype:
            held.dtype = dtype  # type: ignore[misc]
        if held.shape != shape:
            held.shape = shape
        if held.flags.writeable != writeable:
            held.flags.writeable = writeable
    except ValueError:
        return False
    return True


def _refill_array(held: Array, saved: Array) -> None:
    plain = held.view(np.ndarray)
    if plain.flags.writeable:
        np.copyto(plain, saved)
    elif held.flags.owndata:
        held.flags.writeable = True
        np.copyto(held.view(np.ndarray), saved)
        held.flags.writeable = False


class Session(Unreached):
    """Runs code of the user's, each time from the same state of its objects and of np.random.

    `original` is the state in which they were found, and are left; `start` the one to begin from,
    which is another where parameters are made in the first forward pass.
    """

    def __init__(self, *roots: Any) -> None:
        self.roots = roots
        self.original = self.start = Snapshot(*roots)
        (self.random_state,) = states([])
        self._is_at_start = True

    @contextmanager
    def fresh(self) -> Iterator[None]:
        """Begin from the start; what the code then changes stays until the next."""
        self.restore()
        with self._running():
            yield

    @contextmanager
    def unused(self) -> Iterator[None]:
        """Begin from the state in which the objects were found, before any call of ours."""
        self.original.restore()
        with self._running():
            yield

    @contextmanager
    def _running(self) -> Iterator[None]:
        self.same_random()
        self._is_at_start = False
        with np.errstate(), warnings.catch_warnings():  # the code may change the settings of both
            yield

    @contextmanager
    def moved(self, arrays: Sequence[Array], others: Sequence[Array]) -> Iterator[None]:
        """Let the arrays begin with other contents for a while."""
        self.restore()
        kept = [(array, self.start.kept(array)) for array in arrays]
        saved = [array.copy() if content is None else content for array, content in kept]
        try:
            self._begin_with(arrays, others)
            yield
        finally:
            self._begin_with(arrays, saved)
            self.restore()

    def _begin_with(self, arrays: Sequence[Array], contents: Sequence[Array]) -> None:
        for array, content in zip(arrays, contents, strict=True):
            self.start.keep(array, content)
        self._is_at_start = False

    def same_random(self) -> None:
        """Set the global random states to those that each run begins from: NumPy's, Python's."""
        put_back([self.random_state])

    def leave(self) -> None:
        """Put everything back into the state in which it was found."""
        self.original.restore()
        self.same_random()

    def add(self, *roots: Any) -> None:
        """Take more objects among those that are restored."""
        self.roots = (*self.roots, *roots)
        self.start.add(*roots)

    def restore(self) -> None:
        """Put the objects back into the state to begin from."""
        if not self._is_at_start:
            self.start.restore()
            self._is_at_start = True

    def rebase(self) -> None:
        """Take the present state as the one to begin from."""
        self.start = Snapshot(*self.roots, like=self.original)

    def covers(self, array: Array) -> bool:
        """Tell whether restoring would write into an array."""
        return self.start.covers(array) or self.original.covers(array)


@contextmanager
def untouched(*roots: Any) -> Iterator[Session]:
    """Give a session, and leave the objects and what is the whole process's as they were.

    That is the global random states, the settings of NumPy and of warnings, and autograd's traces.
    """
    with process_lock, np.printoptions(), warnings.catch_warnings():
        session, top = Session(*roots), trace_stack.top
        try:
            with np.errstate(all="ignore"):
                yield session
        finally:
            trace_stack.top = top
            try:
                session.leave()
            except KeyboardInterrupt:  # one more, in the middle of it
                session.leave()
                raise


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
    """Return the states of bit generators, and before them the global ones."""
    return [(get_state(), random.getstate()), *((bits, bits.state) for bits in streams)]


def put_back(noted: Sequence[Any]) -> None:
    """Set random streams to states that were noted."""
    set_state(noted[0][0])
    random.setstate(noted[0][1])
    for bits, state in noted[1:]:
        bits.state = state


def same_states(ours: Sequence[Any], theirs: Sequence[Any]) -> bool:
    """Tell whether the random streams that two notes share stand at the same place."""

    def content(noted: Sequence[Any]) -> dict[int, bytes]:
        own = {id(bits): pickle.dumps(state) for bits, state in noted[1:]}
        return {0: pickle.dumps(noted[0])} | own

    mine, other = content(ours), content(theirs)
    return all(mine[key] == other[key] for key in mine.keys() & other.keys())
