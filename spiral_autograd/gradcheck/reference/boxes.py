"""Boxes for plain NumPy code: what autograd's boxes lack, for the time of a check.

A box answers NumPy's ufuncs by itself. Here it also answers NumPy's other functions (NEP 18) with
autograd's, has the methods of an array that boxes lack, and lets itself be assigned into: a new
value takes the place of its old one. NumPy's own functions are never patched.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Sequence
from typing import Any

import autograd.numpy as anp
import numpy as np
from autograd.extend import defvjp, primitive
from autograd.numpy import numpy_wrapper
from autograd.numpy.numpy_vjps import unbroadcast
from autograd.tracer import Box, isbox

from ...boxes import RecordedBox, take
from ...validation import Array

Axis = int | tuple[int, ...] | None


@primitive  # type: ignore[untyped-decorator]
def set_at(A: object, value: object, *index: Any) -> object:
    """Return a copy of A with ``A[index] = value``."""
    out = np.array(A)
    out[index] = value
    return out


@primitive  # type: ignore[untyped-decorator]
def cleared_at(g: object, *index: Any) -> object:
    """Return a copy of g that is zero at ``index``."""
    out = np.array(g)
    out[index] = 0
    return out


defvjp(
    set_at,
    lambda ans, A, value, *index: lambda g: cleared_at(g, *index),
    lambda ans, A, value, *index: lambda g: unbroadcast(take(g, *index), anp.metadata(value)),
)
defvjp(cleared_at, lambda ans, g, *index: lambda h: cleared_at(h, *index))


@primitive  # type: ignore[untyped-decorator]
def norm(x: Array, axis: Axis = None, keepdims: bool = False) -> object:
    """Return the root of the sum of squares. autograd's own rule is wrong for some shapes."""
    return np.sqrt(np.sum(x * x, axis=axis, keepdims=keepdims))


def _norm_vjp(ans: Array, x: Array, axis: Axis = None, keepdims: bool = False) -> object:
    kept = np.sum(np.empty(anp.shape(x)), axis=axis, keepdims=True).shape
    return lambda g: anp.reshape(g, kept) * x / anp.reshape(ans, kept)


defvjp(norm, _norm_vjp)


class NumpyBox(RecordedBox):
    """A box that other people's NumPy code takes for an array."""

    __slots__: list[str] = []

    strict = False

    def __array_function__(
        self,
        func: Callable[..., object],
        types: object,
        args: Sequence[object],
        kwargs: dict[str, object],
    ) -> object:
        """Answer a NumPy function with autograd's of the same name."""
        special = _SPECIAL.get(func)
        if special is not None:
            return special(*args, **kwargs)
        space: object = anp
        for part in func.__module__.split(".")[1:]:
            space = getattr(space, part, None) if part in ("linalg", "fft") else space
        function = getattr(space, func.__name__, None)
        if function is None:
            return NotImplemented
        return function(*args, **kwargs)

    def __bool__(self) -> bool:
        return bool(_plain(self))

    def __int__(self) -> int:
        return self._whole(int)

    def __index__(self) -> int:
        return self._whole(lambda value: value.__index__())

    def _whole(self, convert: Callable[[Any], int]) -> int:
        value = _plain(self)
        if np.asarray(value).dtype.kind not in "iub":
            self._refuse("a Python int")
        return int(convert(value))

    def __setitem__(self, index: object, value: object) -> None:
        parts = index if isinstance(index, tuple) else (index,)
        self._assigned(set_at(self, value, *parts))

    def _assigned(self, new: object) -> object:
        """Take a new value in place, as an array does, so that all names of it see it."""
        for name in ("_value", "_node", "_trace"):
            setattr(self, name, getattr(new, name))
        return self

    def __pos__(self) -> object:
        return self

    def __deepcopy__(self, memo: object) -> object:
        return self

    def copy(self, *args: object) -> object:
        """Return a box of the same value, which may be assigned into on its own."""
        return type(self)(self._value, self._trace, self._node)

    __copy__ = copy
    dot = anp.dot

    def transpose(self, *axes: Any) -> object:
        """Return the array with its axes in another order."""
        if len(axes) == 1 and (axes[0] is None or not isinstance(axes[0], int)):
            axes = tuple(axes[0]) if axes[0] is not None else ()
        return anp.transpose(self, axes or None)

    def astype(self, dtype: Any, *args: object, **kwargs: object) -> object:
        """Return the array in another dtype."""
        if np.dtype(dtype).kind in "cO":
            self._refuse(f"an array of dtype {np.dtype(dtype)}")
        if np.dtype(dtype).kind != "f":
            return np.asarray(_plain(self)).astype(dtype)
        if np.dtype(dtype) == self.dtype:
            return self.copy()
        return numpy_wrapper._astype(self, np.dtype(dtype))

    nbytes = property(lambda self: np.asarray(_plain(self)).nbytes)
    flags = property(lambda self: np.asarray(_plain(self)).flags)


def _in_place(function: Callable[..., object]) -> Callable[..., object]:
    return lambda box, other: box._assigned(function(box, other))


for _name, _function in {
    "__iadd__": _in_place(operator.add),
    "__isub__": _in_place(operator.sub),
    "__imul__": _in_place(operator.mul),
    "__itruediv__": _in_place(operator.truediv),
    "__and__": lambda box, other: anp.logical_and(box, other),
    "__or__": lambda box, other: anp.logical_or(box, other),
    "__invert__": lambda box: anp.logical_not(box),
}.items():
    setattr(NumpyBox, _name, _function)

Box.types.add(NumpyBox)
Box.type_mappings[NumpyBox] = NumpyBox


def _plain(value: Any) -> object:
    while isbox(value):
        value = value._value
    return value


def _constant_like(make: Callable[..., Array]) -> object:
    def like(x: Array, *args: object, **kwargs: object) -> object:
        """Return constants in the shape of a box, in a box: they may be assigned into."""
        plain = make(_plain(x), *map(_plain, args), **kwargs)
        if not isbox(x) or plain.dtype.kind != "f":
            return plain
        return x * 0.0 + plain if np.isfinite(np.asarray(_plain(x))).all() else plain

    return like


def _pad(array: object, pad_width: object, mode: object = "constant", **kwargs: object) -> object:
    values = kwargs.get("constant_values", 0)
    if mode != "constant" or np.any(values != 0):
        raise NotImplementedError("only padding with zeros is traced")
    return anp.pad(array, pad_width, mode)


def _clip(x: object, low: object = None, high: object = None, **kwargs: object) -> object:
    low, high = kwargs.get("min", low), kwargs.get("max", high)
    return anp.clip(x, -np.inf if low is None else low, np.inf if high is None else high)


def _norm(x: object, ord: object = None, axis: object = None, keepdims: bool = False) -> object:  # noqa: A002
    of_vectors = isinstance(axis, int) or (axis is None and anp.ndim(x) == 1)
    if ord in (None, "fro") or (ord == 2 and of_vectors):
        return norm(x, axis, keepdims)
    if ord == 1 and of_vectors:
        return anp.sum(anp.abs(x), axis=axis, keepdims=keepdims)
    if ord == np.inf and of_vectors:
        return anp.max(anp.abs(x), axis=axis, keepdims=keepdims)
    return anp.linalg.norm(x, ord, axis, keepdims=keepdims)


def _plain_call(function: Callable[..., object]) -> object:
    return lambda *args, **kwargs: function(*map(_plain, args), **kwargs)


_SPECIAL: dict[Any, Any] = {
    np.copy: lambda x, *args, **kwargs: x.copy(),
    np.pad: _pad,
    np.clip: _clip,
    np.linalg.norm: _norm,
    np.zeros_like: _constant_like(np.zeros_like),
    np.ones_like: _constant_like(np.ones_like),
    np.empty_like: _constant_like(np.zeros_like),
    np.full_like: _constant_like(np.full_like),
    np.transpose: lambda x, axes=None: x.transpose(axes) if isbox(x) else np.transpose(x, axes),
    **{
        getattr(np, name): _plain_call(getattr(np, name))
        for name in "shape ndim size argmax argmin argsort nonzero result_type iscomplexobj "
        "isrealobj shares_memory".split()
    },
}
