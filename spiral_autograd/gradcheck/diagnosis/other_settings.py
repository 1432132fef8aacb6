"""The same check with another number for a setting: what is right by a coincidence is not."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import replace
from functools import partial
from itertools import islice
from types import FunctionType
from typing import Any, NamedTuple

import numpy as np

from ...state import Held, Names, dict_of, is_open, kind_of
from ...validation import Array
from ..blocks import close
from ..guard import CheckError, Deadline
from ..reference.reference import at_these_values
from ..subject.session import Session
from ..subject.subject import Subject, differs, draw_upstream
from ..verdict.rows import Comparison
from .second_point import are_shares

Setting = tuple[Any, float]  # by what name it is held, and the number
Way = Callable[[], AbstractContextManager[None]]  # lets a setting be another for a while


class There(NamedTuple):
    """The backward pass where a setting is another."""

    run: Callable[[], list[Any]]
    true: list[Array]
    has_same_outputs: bool  # in shape: else what is divided by a length may be another


_MOST = 6  # settings that are asked


def at_other_settings(c: Comparison, deadline: Deadline) -> Iterator[There]:
    """Yield the backward pass where one setting is another, of those that the output depends on.

    Those are numbers that the objects, the functions and what they are given hold: a stride, a
    rate, a power; arrays of whole numbers: a mask, labels, the edges of a graph; and that rows of
    values add up to 1. Where a gradient is wrong that is right now, backward is not meant for it.
    """
    if not (c.subject.backward_code and c.reference.grads and c.small):
        return
    found = (_first_there(c, ways, deadline) for ways in _settings(c))
    yield from islice(filter(None, found), _MOST)


def _first_there(c: Comparison, ways: Iterable[Way], deadline: Deadline) -> There | None:
    """Return the first other value of a setting that the passes may be meant for, if one is."""
    for way in ways:
        deadline.check()
        try:
            with np.errstate(all="ignore"), way():
                there = _comparison(c)
        except CheckError:
            continue
        if there is not None and _is_meant(c, there) and _uses_as_much(there, c):
            is_like = _have_same_shapes(c.subject, there.subject)
            return There(partial(_run, there, way), there.reference.grads, is_like)
    return None


def _have_same_shapes(one: Subject, other: Subject) -> bool:
    return list(map(np.shape, one.outputs)) == list(map(np.shape, other.outputs))


def _is_meant(c: Comparison, there: Comparison) -> bool:
    """Tell whether what is right is so there too, and what is but for a small constant nearly."""
    nearly = [k for k, row in c.rows.items() if row.verdict == "idealised"]
    pairs = ((there.grads[k], there.reference.grads[k]) for k in nearly)
    return set(c.right) <= set(there.right) and all(close(*pair, 1e-3) for pair in pairs)


def _uses_as_much(there: Comparison, here: Comparison) -> bool:
    """Tell whether no value is left unused there, as a weight in whose place one is made anew."""
    pairs = zip(here.reference.grads, there.reference.grads, strict=True)
    return all(np.any(after) or not np.any(before) for before, after in pairs)


def _run(there: Comparison, way: Way) -> list[Any]:
    with way():
        return there.rerun()


def _comparison(c: Comparison) -> Comparison | None:
    """Return the comparison as things are now; None where the output is what it was."""
    subject, rng = c.subject, np.random.default_rng(4)
    now = at_these_values(subject)
    if not _have_same_shapes(subject, now):
        now = replace(now, upstream=draw_upstream(now.outputs, rng))
    elif not differs(subject.outputs, now.outputs, 1e-12):
        return None
    return c.there(now)


# -------------------- what may be another --------------------


def _settings(c: Comparison) -> Iterator[list[Way]]:
    """Yield the ways in which each setting may be another one.

    A mode, such as for training, only where some gradients are right: these tell if it is meant.
    """
    session, rng = c.subject.session, np.random.default_rng(5)
    inside = _inside_of_libraries(session)
    for name, n in _numbers(held for held in session.start.held if id(held.item) not in inside):
        if c.right or not isinstance(n, bool):
            yield [partial(_holding, session, (name, n), other) for other in _other_numbers(n)]
    arrays = (item for item in session.start.items if id(item) not in inside)
    for array in filter(_is_whole, arrays):
        yield [partial(session.moved, [array], [_other_whole(array, rng)])]
    shares = [value for value in c.subject.values if are_shares(value)]
    if shares:
        others = [value * rng.uniform(0.7, 1.3, value.shape) for value in shares]
        yield [partial(session.moved, shares, others)]


def _numbers(some: Iterable[Held]) -> dict[Setting, None]:
    """Return the numbers that may be settings, each once, with the name that it is held by."""
    pairs = (pair for held in some for pair in zip(*_named(held), strict=True))
    return dict.fromkeys(pair for pair in pairs if _may_be_other(*pair))


def _other_whole(array: Array, rng: np.random.Generator) -> Array:
    """Return other whole numbers of those that there are; of a mask as many ones, or more."""
    if len(np.unique(array)) == 2:  # drawn anew it might be nothing
        return np.where(rng.random(array.shape) < 0.5, array.max(), array)
    return rng.choice(array.ravel(), array.shape)


def _inside_of_libraries(session: Session) -> set[int]:
    """Return what objects of libraries hold, by id: they read and write where its numbers say."""
    tables = [dict_of(item) or {} for item in session.start.items if not is_open(item)]
    return {id(part) for table in tables for part in (table, *table.values())}


def _is_whole(item: object) -> bool:
    """Tell whether it is an array of several whole numbers, but not of one of each row."""
    if type(item) is not np.ndarray or item.dtype.kind not in "fiub" or item.size < 2:
        return False
    numbers = item.astype(float)
    is_whole = np.array_equal(numbers, np.round(numbers)) and np.ptp(numbers) > 0
    return is_whole and (item.ndim < 2 or bool(np.any(numbers.sum(-1) != 1)))


def _other_numbers(number: float) -> list[float]:
    if isinstance(number, bool):
        return [not number]
    return [number + 1, number - 1, 2 * number] if isinstance(number, int) else [0.4 * number]


# -------------------- where numbers are held --------------------


def _may_be_other(name: object, value: object) -> bool:
    is_number = type(value) in (float, bool) or (type(value) is int and value > 1)
    return type(name) in (str, int) and is_number


def _named(held: Held) -> tuple[Sequence[Any], Sequence[Any]]:
    """Return by what names, or at what places, a thing holds something, and that."""
    item, before = held.item, held.before
    if isinstance(item, dict | type) and held.kind is kind_of(type(item)):  # not its attributes
        half = len(before) // 2
        return before[:half], before[half:]
    if isinstance(item, Names):
        return item.names, before
    if isinstance(item, list):
        return range(len(before)), before
    if isinstance(item, FunctionType) and before[1:] and before[1] is not None:
        code, defaults = item.__code__, before[1]
        names = code.co_varnames[: code.co_argcount]
        return names[len(names) - len(defaults) :], defaults
    return (), ()


def _exchanged(held: Held, setting: Setting, other: float) -> list[Any]:
    """Return what a thing holds with another number by a name."""
    names, values = _named(held)
    pairs = zip(names, values, strict=True)
    others = [other if _is(setting, name, value) else value for name, value in pairs]
    if isinstance(held.item, dict | type):
        return [*names, *others]
    if isinstance(held.item, FunctionType):
        return [held.before[0], tuple(others), *held.before[2:]]
    return others


def _is(setting: Setting, name: object, value: object) -> bool:
    return _may_be_other(name, value) and (*setting, type(setting[1])) == (name, value, type(value))


@contextmanager
def _holding(session: Session, setting: Setting, other: float) -> Iterator[None]:
    """Let things begin with another number by a name for a while."""
    there = [
        held
        for held in session.start.held
        if any(_is(setting, *pair) for pair in zip(*_named(held), strict=True))
    ]
    before = [held.before for held in there]
    try:
        for held in there:
            held.before = _exchanged(held, setting, other)
        session.start.restore()
        yield
    finally:
        for held, own in zip(there, before, strict=True):
            held.before = own
        session.start.restore()
