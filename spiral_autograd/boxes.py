"""The boxes of a recording: autograd's, but that they refuse to become plain values."""

from __future__ import annotations

import operator
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NoReturn

import autograd.numpy as anp
import numpy as np
from autograd.extend import defvjp, primitive
from autograd.numpy.numpy_boxes import ArrayBox
from autograd.tracer import Box, isbox

# Held while what the process shares (warning filters, random streams, autograd's registry) is
# changed and put back.
process_lock = threading.RLock()


class RecordingError(TypeError):
    """A function cannot be recorded: what it computes depends on values, not on shapes alone."""


class _Running(threading.local):
    """The recording that runs in this thread, if one does."""

    tape: Any = None


running = _Running()


class RecordedBox(ArrayBox):  # type: ignore[misc]
    """A box that stays in the recording. A subclass whose `strict` is false may let values out."""

    __slots__: list[str] = []

    strict = True

    def _refuse(self, what: str) -> NoReturn:
        where = running.tape.here() if running.tape else ""
        raise RecordingError(
            f"a value that depends on the parameters or the data became {what}{where}; a recording "
            "holds for other values too"
        )

    def __getitem__(self, index: object) -> Any:
        parts = index if isinstance(index, tuple) else (index,)
        return take(self, *parts) if any(map(isbox, parts)) else ArrayBox.__getitem__(self, index)


def _refusing(what: str) -> Callable[..., NoReturn]:
    return lambda box, *args, **kwargs: box._refuse(what)


for name, what in {
    "__bool__": "a Python bool (a branch, assert, while, and, or, not)",
    "__float__": "a Python float",
    "__int__": "a Python int",
    "__index__": "a Python index or a length",
    "__complex__": "a Python complex",
    "__array__": "a plain NumPy array",
    "item": "a Python number",
    "tolist": "a Python number",
}.items():
    setattr(RecordedBox, name, _refusing(what))


@primitive  # type: ignore[untyped-decorator]
def take(A: Any, *index: Any) -> Any:
    """Return ``A[index]`` where a part of the index is itself traced."""
    tape = running.tape
    if tape is not None and tape.strict and any(np.asarray(i).dtype == bool for i in index):
        raise RecordingError(
            f"the shape of what a boolean mask selects depends on values{tape.here()}"
        )
    return A[index]


@primitive  # type: ignore[untyped-decorator]
def add_at(g: Any, shape: tuple[int, ...], *index: Any) -> Any:
    """Return zeros with `g` added at ``index``: the vjp of `take`."""
    out = np.zeros(shape, dtype=g.dtype)
    np.add.at(out, index, g)
    return out


defvjp(take, lambda ans, A, *index: lambda g: add_at(g, anp.shape(A), *index))
defvjp(add_at, lambda ans, g, shape, *index: lambda h: take(h, *index))


class RecordedNumber(RecordedBox):
    """A Python number in a recording: with other Python numbers it does Python's arithmetic.

    So a product of Python numbers gives way to an array's dtype, as it does without the recording.
    """

    __slots__: list[str] = []


def _arithmetic(name: str, *, reflected: bool = False) -> Callable[..., Any]:
    apply = primitive(getattr(operator, name))
    of_arrays = getattr(ArrayBox, f"__{'r' * reflected}{name}__", None)

    def method(number: object, *other: object) -> Any:
        if all(type(x) in (RecordedNumber, int, float, bool) for x in other):
            return apply(*other, number) if reflected else apply(number, *other)
        return of_arrays(number, *other) if of_arrays else NotImplemented

    return method


for name in "add sub mul truediv floordiv mod pow neg pos abs".split():
    setattr(RecordedNumber, f"__{name}__", _arithmetic(name))
for name in "add sub mul truediv floordiv mod pow".split():
    setattr(RecordedNumber, f"__r{name}__", _arithmetic(name, reflected=True))

_BOXED_TYPES = [type_ for type_, box in Box.type_mappings.items() if box is ArrayBox]
_BOXED_TYPES.remove(ArrayBox)
_BOXED_TYPES = list(dict.fromkeys([*_BOXED_TYPES, np.bool_, *np.sctypeDict.values()]))
for box_type in (RecordedBox, RecordedNumber):
    Box.types.add(box_type)
    Box.type_mappings[box_type] = RecordedBox


@contextmanager
def recorded_boxes(box_type: type[RecordedBox]) -> Iterator[None]:
    """Let autograd box arrays and scalars of all types in boxes that stay in the recording.

    autograd's registry serves all threads; those that record nothing get the boxes they had.
    """
    mappings = Box.type_mappings
    boxed_types = [*_BOXED_TYPES, int] if box_type.strict else _BOXED_TYPES

    def box(value: object, trace: int, node: object) -> Any:
        tape = running.tape
        if tape is None:
            return before[type(value)](value, trace, node)  # a KeyError is autograd's own refusal
        if tape.strict and trace == tape.trace and type(value) in (int, float):
            return RecordedNumber(value, trace, node)
        return box_type(value, trace, node)

    with process_lock:
        before = {type_: mappings[type_] for type_ in boxed_types if type_ in mappings}
        mappings.update(dict.fromkeys(boxed_types, box))
        try:
            yield
        finally:
            mappings.update(before)
            for type_ in set(boxed_types) - set(before):
                del mappings[type_]
