"""Other people's objects, run again and again from the same state, and left as they were."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import lru_cache
from operator import eq
from types import CellType, CodeType, FunctionType, MethodType, ModuleType
from typing import Any

import numpy as np
from autograd.tracer import trace_stack

from ... import state
from ...boxes import process_lock
from ...recording import is_installed
from ...state import (
    PLAIN,
    STREAMS,
    Held,
    Kind,
    Names,
    Unreached,
    is_namespace,
    is_own_module,
    own_bases,
)
from ...validation import Array
from ..source import inner_codes

# -------------------- the walk --------------------


def reach(*roots: object) -> Iterator[Any]:
    """Yield every object that some objects reach, once: what may change, and what holds it."""
    return (item for item, _ in walk(roots, with_code=False))


def walk(roots: Iterable[Any], *, with_code: bool) -> Iterator[tuple[Any, list[Held]]]:
    """Yield all that is reached, with code also classes and globals, with what it holds."""
    seen: dict[int, object] = {}
    modules: set[int] = set()
    rows = dict(state.BUILT_IN)
    pending = list(roots)
    atoms = state.ATOMS if with_code else (*state.ATOMS, type)
    while pending:
        item = pending.pop()
        kind = type(item)
        if issubclass(kind, atoms) or id(item) in seen or is_namespace(item):
            continue
        seen[id(item)] = item
        if id(kind) not in rows:
            rows[id(kind)] = state.kinds_of(kind)
            pending += _streams_in(sys.modules.get(kind.__module__), modules)
            pending += own_bases(kind) if with_code else []
        held = [Held(item, row) for row in rows[id(kind)]]
        for one in held:
            pending += _opened(one)
        if issubclass(kind, FunctionType):
            pending += _streams_in(sys.modules.get(item.__module__), modules)
            pending += _globals_of(item) if with_code else []
        elif issubclass(kind, type):
            pending += own_bases(item)
        yield item, held


def _opened(held: Held) -> Iterable[Any]:
    """Return what is looked into of what a thing holds."""
    compound = [part for part in held.before if type(part) not in PLAIN]
    return compound if held.kind.opens is None else filter(held.kind.opens, compound)


def _streams_in(module: object, met: set[int]) -> list[object]:
    """Return the random streams among the globals of a module, which its code may draw from."""
    if id(module) in met or not isinstance(module, ModuleType):
        return []
    met.add(id(module))
    return [value for value in list(vars(module).values()) if issubclass(type(value), STREAMS)]


def _globals_of(function: FunctionType) -> Iterator[Names]:
    """Yield the globals that a function of the user's uses: its module's, and other modules'."""
    if is_installed(function.__code__.co_filename):
        return
    names = _names_of(function.__code__)
    cells = [state.standing_in(CellType.cell_contents, cell) for cell in function.__closure__ or ()]
    modules = [*cells, *map(sys.modules.get, names)]
    pending = [function.__globals__, *(vars(m) for m in modules if is_own_module(m))]
    met: set[int] = set()
    while pending:
        there = pending.pop()
        if id(there) not in met:
            met.add(id(there))
            pending += [vars(m) for m in map(there.get, names) if is_own_module(m)]
            yield Names(there, names)


@lru_cache(maxsize=4096)
def _names_of(code: CodeType) -> tuple[str, ...]:
    """Return the names that code uses, those of the functions inside it too."""
    codes = (code, *inner_codes(code))
    return tuple(dict.fromkeys(name for one in codes for name in one.co_names))


# -------------------- what was there, and putting it back --------------------


class Snapshot(Unreached):
    """The state of all that objects and their code reach; it shares copies with one `like` it."""

    def __init__(self, *roots: object, like: Snapshot | None = None) -> None:
        self._like = like
        self._items: dict[int, Any] = {}  # kept alive, so that their ids stay theirs
        self.held: list[Held] = []  # all that can be written back but arrays
        self._forms: list[Held] = []
        self._arrays: dict[int, tuple[Array, Array]] = {}
        self.add(*roots)

    def add(self, *roots: object) -> None:
        """Take in the state of more objects."""
        for item, held in walk(roots, with_code=True):
            if id(item) in self._items:
                continue
            self._items[id(item)] = item
            self.held += [one for one in held if one.kind.write]
            if issubclass(type(item), np.ndarray):
                self._note_array(item)

    @property
    def items(self) -> list[Any]:
        """Everything that the objects and their code reach."""
        return list(self._items.values())

    def restore(self) -> None:
        """Put everything back."""
        others = [held for held in self._forms if not held.is_same()]
        # Forms again at the end: a view may be unlocked only after what it looks into.
        for held in (*others, *self.held, *others):
            if not held.is_same():
                held.put()
        for own, saved in self._arrays.values():
            _refill_array(own, saved)

    def kept(self, array: Array, otherwise: Any = None) -> Any:
        """Return the content of an array as it was; something else of one that was not there."""
        return self._arrays.get(id(array), (None, otherwise))[1]

    def is_as_before(self, array: Array) -> bool:
        """Tell whether an array was there, with the numbers that it has now."""
        plain = array.view(np.ndarray)
        return plain.dtype != object and np.array_equal(self.kept(array), plain)

    def keep(self, array: Array, content: Array) -> None:
        """Let an array be restored to another content."""
        self._arrays[id(array)] = array, content

    def covers(self, array: Array) -> bool:
        """Tell whether restoring would write into an array."""
        return any(np.may_share_memory(array, own) for own, _ in self._arrays.values())

    def _note_array(self, item: Array) -> None:
        if item.flags.writeable or item.flags.owndata:  # what is read-only may be unlocked
            like, plain = self._like, item.view(np.ndarray)
            self.keep(item, like.kept(item) if like and like.is_as_before(item) else plain.copy())
        self._forms.append(Held(item, _FORM))


def _put_form(held: Array, form: list[Any]) -> None:
    shape, dtype, writeable = form
    with suppress(ValueError):
        if held.dtype != dtype:
            held.dtype = dtype  # type: ignore[misc]
        if held.shape != shape:
            held.shape = shape
        if held.flags.writeable != writeable:
            held.flags.writeable = writeable


_FORM = Kind(lambda held: [held.shape, held.dtype, held.flags.writeable], _put_form, is_same=eq)


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

    def __init__(self, *roots: object) -> None:
        self.roots = roots
        self.original = self.start = Snapshot(*roots)
        self.random_states = states([])
        self._is_at_start = True
        self.stands_after_first_call = False  # of both passes, which is kept in sight of the next

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
        self._is_at_start = self.stands_after_first_call = False
        with np.errstate(), warnings.catch_warnings():  # the code may change the settings of both
            yield

    @contextmanager
    def moved(self, arrays: Sequence[Array], others: Sequence[Array]) -> Iterator[None]:
        """Let the arrays begin with other contents for a while."""
        self.restore()
        saved = [a.copy() if (c := self.start.kept(a)) is None else c for a in arrays]
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
        put_back(self.random_states)

    def leave(self) -> None:
        """Put everything back into the state in which it was found."""
        self.original.restore()
        for stream in self.random_states:  # whatever the marks say
            if stream.kind.write is not None:
                stream.kind.write(stream.item, stream.before)

    def add(self, *roots: object) -> None:
        """Take more objects among those that are restored."""
        self.roots = (*self.roots, *roots)
        self.start.add(*roots)

    def restore(self) -> None:
        """Put the objects back into the state to begin from."""
        if not self._is_at_start:
            self.start.restore()
            self._is_at_start, self.stands_after_first_call = True, False

    def rebase(self) -> None:
        """Take the present state as the one to begin from."""
        self.start = Snapshot(*self.roots, like=self.original)

    def covers(self, array: Array) -> bool:
        """Tell whether restoring would write into an array."""
        return self.start.covers(array) or self.original.covers(array)


@contextmanager
def untouched(*roots: object) -> Iterator[Session]:
    """Give a session, and leave objects, and the settings of the process, as they were."""
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


def objects_of(root: object) -> list[Any]:
    """Return the objects with attributes that an object reaches, functions left out."""
    kinds = (FunctionType, MethodType)
    return [i for i in reach(root) if hasattr(i, "__dict__") and not isinstance(i, kinds)]


def streams_of(*roots: object) -> list[object]:
    """Return the random streams that objects reach."""
    return [item for item in reach(*roots) if issubclass(type(item), STREAMS)]


def states(streams: Sequence[object]) -> list[Held]:
    """Return the states of the global random streams and of others."""
    return [Held(stream) for stream in (*state.GLOBAL_STREAMS, *streams)]


def put_back(noted: Sequence[Held]) -> None:
    """Set random streams to states that were noted."""
    for stream in noted:
        stream.put()


def same_states(ours: Sequence[Held], theirs: Sequence[Held]) -> bool:
    """Tell whether the random streams that two notes share stand at the same place."""
    mine = {id(held.item): held for held in ours}
    shared = [(mine[id(held.item)], held) for held in theirs if id(held.item) in mine]
    return all(held.kind.is_same(one.before, held.before) for one, held in shared)
