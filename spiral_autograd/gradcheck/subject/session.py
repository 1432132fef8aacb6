"""Other people's objects, run again and again from the same state, and left as they were."""

from __future__ import annotations

import pickle
import random
import warnings
from array import array as Numbers  # noqa: N812
from collections import OrderedDict, deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from operator import is_
from types import CellType, FunctionType, ModuleType
from typing import Any

import numpy as np
from autograd.tracer import trace_stack
from numpy.random import get_state, set_state

from ...recording import process_lock
from ...validation import Array
from .reached import (
    ABSENT,
    Unreached,
    cell_content,
    names_used,
    own_bases,
    reach_with_code,
    slots_of,
)
from .reached import reach as reach


class Snapshot(Unreached):
    """The state of everything that some objects and their code reach.

    Attributes, containers, arrays, random streams; classes of the user's own, and the globals that
    the user's functions use.

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
        self._globals: dict[int, tuple[dict[str, Any], dict[str, Any]]] = {}
        self._items: dict[int, Any] = {}  # kept alive, so that their ids stay theirs
        self.add(*roots)

    def add(self, *roots: Any) -> None:
        """Take in the state of more objects."""
        for item in reach_with_code(*roots):
            if id(item) not in self._items:
                self._items[id(item)] = item
                self._note(item)

    def restore(self) -> None:
        """Put everything back."""
        failed = [undo for undo in self._undo if not _done(undo)]
        for undo in failed:  # a view may be unlocked only after what it looks into
            undo()
        for names, values in self._globals.values():
            _put_names(names, values)
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

    def _note(self, item: Any) -> None:
        """Note how to restore an object itself."""
        kind = type(item)
        if issubclass(kind, np.ndarray):
            self._note_array(item)
        elif issubclass(kind, FunctionType):
            defaults = item.__defaults__, item.__kwdefaults__
            self._undo.append(partial(_put_defaults, item, defaults))
            for names, name, value in names_used(item):
                _, values = self._globals.setdefault(id(names), (names, {}))
                values.setdefault(name, value)
        elif issubclass(kind, type):
            for base in own_bases(item):
                if base is item or id(base) not in self._items:
                    self._items[id(base)] = base
                    self._undo.append(partial(_put_class, base, dict(vars(base))))
        elif (undo := _undo_of(item)) is not None:
            self._undo.append(undo)
        if not issubclass(kind, type) and (slots := slots_of(item)):
            self._undo.append(partial(_put_slots, item, slots))

    def _note_array(self, item: Array) -> None:
        plain = item.view(np.ndarray)
        if item.flags.writeable or item.flags.owndata:  # what is read-only may be unlocked
            self.keep(item, self._copy(item, plain))
        self._undo.append(partial(_put_form, item, item.shape, item.dtype, item.flags.writeable))

    def _copy(self, array: Array, plain: Array) -> Array:
        """Return a copy, or that of an earlier snapshot where the content is the same."""
        before = self._like.kept(array) if self._like is not None else None
        if before is not None and plain.dtype != object and np.array_equal(before, plain):
            return before
        return plain.copy()


# -------------------- one object, put back --------------------


def _done(undo: Callable[[], Any]) -> bool:
    try:
        undo()
    except ValueError:
        return False
    return True


def _undo_of(item: Any) -> Callable[[], Any] | None:
    """Return what puts a container, a cell or a random stream back; None of anything else."""
    kind = type(item)
    if issubclass(kind, dict):
        base = OrderedDict if issubclass(kind, OrderedDict) else dict  # it has an order of its own
        saved = dict.copy(item) if kind is dict else dict(base.items(item))
        return partial(_refill, item, saved)
    if issubclass(kind, list):
        return partial(_refill_list, item, list.copy(item))
    if issubclass(kind, set):
        return partial(_refill_set, item, set.copy(item))
    if issubclass(kind, deque):
        return partial(_refill_deque, item, list(deque.__iter__(item)))
    if issubclass(kind, bytearray | Numbers):
        return partial(kind.__setitem__, item, slice(None), item[:])
    if issubclass(kind, CellType):
        return partial(_put_in_cell, item, cell_content(item))
    if issubclass(kind, random.Random) and kind is not random.SystemRandom:
        return partial(item.setstate, item.getstate())
    if issubclass(kind, np.random.RandomState):  # with the second of two normal numbers
        return partial(item.set_state, item.get_state(legacy=False))
    if issubclass(kind, np.random.Generator):
        bits = item.bit_generator
        return partial(setattr, bits, "state", bits.state)
    return None


def _refill(mapping: dict[Any, Any], saved: dict[Any, Any]) -> None:
    kind = OrderedDict if issubclass(type(mapping), OrderedDict) else dict
    if dict.__len__(mapping) == len(saved) and all(
        map(is_, (*kind.keys(mapping), *kind.values(mapping)), (*saved, *saved.values()))
    ):
        return
    kind.clear(mapping)
    kind.update(mapping, saved)


def _refill_list(held: list[Any], saved: list[Any]) -> None:
    if list.__len__(held) != len(saved) or not all(map(is_, list.__iter__(held), saved)):
        list.__setitem__(held, slice(None), saved)


def _refill_set(held: set[Any], saved: set[Any]) -> None:
    set.clear(held)
    set.update(held, saved)


def _refill_deque(held: deque[Any], saved: list[Any]) -> None:
    deque.clear(held)
    deque.extend(held, saved)


def _refill_array(held: Array, saved: Array) -> None:
    plain = held.view(np.ndarray)
    if plain.flags.writeable:
        np.copyto(plain, saved)
    elif held.flags.owndata:
        held.flags.writeable = True
        np.copyto(held.view(np.ndarray), saved)
        held.flags.writeable = False


def _put_form(held: Array, shape: tuple[int, ...], dtype: Any, writeable: bool) -> None:
    if held.dtype != dtype:
        held.dtype = dtype  # type: ignore[misc]
    if held.shape != shape:
        held.shape = shape
    if held.flags.writeable != writeable:
        held.flags.writeable = writeable


def _put_in_cell(cell: CellType, content: Any) -> None:
    if content is not ABSENT:
        cell.cell_contents = content
    elif cell_content(cell) is not ABSENT:
        del cell.cell_contents


def _put_names(names: dict[str, Any], values: dict[str, Any]) -> None:
    for name, value in values.items():
        now = names.get(name, ABSENT)
        if now is value:
            continue
        if value is not ABSENT:
            names[name] = value
        elif not isinstance(now, ModuleType):  # one imported meanwhile stays imported
            del names[name]


def _put_defaults(function: FunctionType, defaults: tuple[Any, Any]) -> None:
    if function.__defaults__ is not defaults[0]:
        function.__defaults__ = defaults[0]
    if function.__kwdefaults__ is not defaults[1]:
        function.__kwdefaults__ = defaults[1]


def _put_class(kind: type, saved: dict[str, Any]) -> None:
    for name, value in saved.items():
        if vars(kind).get(name, ABSENT) is not value:
            type.__setattr__(kind, name, value)
    if len(vars(kind)) > len(saved):
        for name in [n for n in vars(kind) if n not in saved and not n.startswith("__")]:
            type.__delattr__(kind, name)


def _put_slots(item: Any, slots: list[tuple[Any, Any]]) -> None:
    for descriptor, value in slots:
        try:
            now = descriptor.__get__(item)
        except AttributeError:
            now = ABSENT
        if now is value:
            continue
        if value is ABSENT:
            descriptor.__delete__(item)
        else:
            descriptor.__set__(item, value)


class Session(Unreached):
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
        self.random_state = get_state(), random.getstate()
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
        """Set the global random states to those that each run begins from: NumPy's, Python's."""
        set_state(self.random_state[0])
        random.setstate(self.random_state[1])

    def leave(self) -> None:
        """Put everything back into the state in which it was found."""
        self.original.restore()
        self.same_random()

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
