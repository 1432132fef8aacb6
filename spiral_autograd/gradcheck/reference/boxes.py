"""Boxes for plain NumPy code: what autograd's boxes lack, for the time of a check.

A box answers NumPy's ufuncs by itself. Here it also answers NumPy's other functions (NEP 18) with
autograd's, has the methods of an array that boxes lack, and lets itself be assigned into: a new
value takes the place of its old one. NumPy's own functions are never patched.
"""

from __future__ import annotations

import dis
import math
import operator
import sys
from collections.abc import Callable, Sequence
from types import FrameType
from typing import Any

import autograd.numpy as anp
import numpy as np
from autograd.core import primitive_vjps
from autograd.extend import defjvp, defvjp, primitive
from autograd.numpy import numpy_wrapper
from autograd.numpy.numpy_vjps import unbroadcast
from autograd.tracer import Box, isbox, trace_primitives_map
from numpy.typing import DTypeLike

from ...boxes import RecordedBox, take
from ...validation import Array
from .special import differentiable, plain

Axis = int | tuple[int, ...] | None
Function = Callable[..., object]


@primitive  # type: ignore[untyped-decorator]
def set_at(A: object, value: object, *index: Any) -> object:
    """Return a copy of A with ``A[index] = value``."""
    out = np.array(A)
    out[index] = value
    return out


defvjp(
    set_at,
    lambda ans, A, value, *index: lambda g: set_at(g, 0.0, *index),
    lambda ans, A, value, *index: lambda g: unbroadcast(take(g, *index), anp.metadata(value)),
)


@primitive  # type: ignore[untyped-decorator]
def norm(x: Array, axis: Axis = None, keepdims: bool = False) -> object:
    """Return the root of the sum of squares. autograd's own rule is wrong for some shapes."""
    return np.sqrt(np.sum(x * x, axis=axis, keepdims=keepdims))


def _norm_vjp(ans: Array, x: Array, axis: Axis = None, keepdims: bool = False) -> object:
    kept = np.sum(np.empty(anp.shape(x)), axis=axis, keepdims=True).shape
    return lambda g: anp.reshape(g, kept) * x / anp.reshape(ans, kept)


defvjp(norm, _norm_vjp)


@primitive  # type: ignore[untyped-decorator]
def as_float(x: Array) -> float:
    """Return an array of one entry as a Python float."""
    return float(x)


def _as_float_vjp(ans: float, x: Array) -> object:
    shape, dtype = anp.shape(x), anp.result_type(x)
    return lambda g: _cast(anp.reshape(g, shape), dtype)


def _cast(x: Any, dtype: DTypeLike) -> Any:
    """Return an array or a number in another dtype: NumPy 2.0 casts arrays only."""
    if anp.ndim(x):
        return numpy_wrapper._astype(x, dtype)
    return anp.reshape(numpy_wrapper._astype(anp.reshape(x, (1,)), dtype), ())


defvjp(as_float, _as_float_vjp)
defjvp(as_float, lambda g, ans, x: anp.reshape(g, ()))


def as_number(value: Any) -> object:
    """Return a traced float as a traced Python float; another value as it is."""
    if not isbox(value) or value.dtype.kind != "f":
        return value
    return _relabelled(value) if isinstance(plain(value), float) else as_float(value)


def _relabelled(value: Any) -> Any:
    """Return NumPy's float64 as Python's float, which is no step of the computation."""
    if not isbox(value):
        return float(value)
    return type(value)(_relabelled(value._value), value._trace, value._node)


class NumpyBox(RecordedBox):
    """A box that other people's NumPy code takes for an array."""

    __slots__: list[str] = []

    strict = False

    def __array_function__(
        self, func: Function, types: object, args: Sequence[object], kwargs: dict[str, object]
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

    def __array_ufunc__(
        self, ufunc: np.ufunc, method: str, *inputs: object, **kwargs: object
    ) -> object:
        """Answer a ufunc with autograd's, or with ours where autograd knows no derivative."""
        dtype = kwargs.pop("dtype", None)
        if dtype is not None:  # in which it computes
            inputs = tuple(x.astype(dtype) if hasattr(x, "astype") else x for x in inputs)
        ours = None if trace_primitives_map.get(ufunc) in primitive_vjps else differentiable(ufunc)
        if ours is not None and method == "__call__" and not kwargs:
            return ours(*inputs)
        return RecordedBox.__array_ufunc__(self, ufunc, method, *inputs, **kwargs)

    # What a value decides has the derivative zero, as what it is rounded to.

    def __bool__(self) -> bool:
        return bool(plain(self))

    def __int__(self) -> int:
        return int(plain(self))

    def __index__(self) -> int:
        return operator.index(plain(self))

    def __float__(self) -> float:
        if not _is_shown(sys._getframe(1)):
            self._refuse("a Python float")
        return float(plain(self))

    def __format__(self, spec: str) -> str:
        return format(plain(self), spec)

    def __str__(self) -> str:
        return str(plain(self))

    def __repr__(self) -> str:
        return repr(plain(self))

    def item(self, *index: Any) -> object:
        """Return an entry as a Python number, which stays traced if it is a float."""
        if self.dtype.kind != "f":
            return plain(self).item(*index)
        if not index:
            return as_number(self)
        one = isinstance(index[0], tuple) or len(index) == self.ndim
        place = index[0] if isinstance(index[0], tuple) else index
        return as_number(self[place] if one else anp.ravel(self)[index[0]])

    def tolist(self) -> object:
        """Return the entries as nested lists of Python numbers; floats stay traced."""
        return [row.tolist() for row in self] if self.ndim else self.item()

    @property
    def flat(self) -> object:
        """The entries one after the other, to be read."""
        return anp.ravel(self)

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

    def astype(self, dtype: DTypeLike, *args: object, **kwargs: object) -> object:
        """Return the array in another dtype."""
        if np.dtype(dtype).kind in "cO":
            self._refuse(f"an array of dtype {np.dtype(dtype)}")
        if np.dtype(dtype).kind != "f":
            return np.asarray(plain(self)).astype(dtype)
        if np.dtype(dtype) == self.dtype:
            return self.copy()
        return _cast(self, np.dtype(dtype))

    nbytes = property(lambda self: np.asarray(plain(self)).nbytes)
    flags = property(lambda self: np.asarray(plain(self)).flags)


_PERCENT = {("BINARY_OP", 6), ("BINARY_OP", 19), ("BINARY_MODULO", 0), ("INPLACE_MODULO", 0)}


def _is_shown(frame: FrameType) -> bool:
    """Tell whether a frame is about to write a number into a string, as in ``"%f" % loss``."""
    code, at = frame.f_code.co_code, frame.f_lasti
    return (dis.opname[code[at]], code[at + 1]) in _PERCENT


def _in_place(function: Function) -> Function:
    return lambda box, other: box._assigned(function(box, other))


for _name, _function in {
    "__iadd__": _in_place(operator.add),
    "__isub__": _in_place(operator.sub),
    "__imul__": _in_place(operator.mul),
    "__itruediv__": _in_place(operator.truediv),
    "__floordiv__": lambda box, other: anp.floor_divide(box, other),
    "__rfloordiv__": lambda box, other: anp.floor_divide(other, box),
    "__round__": lambda box, *digits: round(float(plain(box)), *digits),
    "__floor__": lambda box: math.floor(plain(box)),
    "__ceil__": lambda box: math.ceil(plain(box)),
    "__trunc__": lambda box: math.trunc(plain(box)),
    "__and__": lambda box, other: anp.logical_and(box, other),
    "__or__": lambda box, other: anp.logical_or(box, other),
    "__invert__": lambda box: anp.logical_not(box),
}.items():
    setattr(NumpyBox, _name, _function)

Box.types.add(NumpyBox)
Box.type_mappings[NumpyBox] = NumpyBox


def _constant_like(make: Callable[..., Array]) -> object:
    def like(x: Array, *args: object, **kwargs: object) -> object:
        """Return constants in the shape of a box, in a box: they may be assigned into."""
        made = make(plain(x), *map(plain, args), **kwargs)
        if not isbox(x) or made.dtype.kind != "f":
            return made
        return x * 0.0 + made if np.isfinite(np.asarray(plain(x))).all() else made

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


def of_plain(function: Function) -> Function:
    """Return a function that is called without boxes."""
    return lambda *args, **kwargs: function(*map(plain, args), **kwargs)


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
        getattr(np, name): of_plain(getattr(np, name))
        for name in "shape ndim size argmax argmin argsort nonzero result_type iscomplexobj "
        "isrealobj shares_memory array2string array_str array_repr".split()
    },
}
