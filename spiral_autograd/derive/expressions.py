"""The expressions of a program: a graph in which no two are alike.

Each is rewritten by rules, and looked up by its function and arguments, before it is made.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from fractions import Fraction
from types import EllipsisType, NoneType
from typing import Any, TypeAlias

import numpy as np
from autograd.core import VSpace
from autograd.numpy.numpy_wrapper import concatenate_args

from ..validation import Array, Shape


@dataclass(frozen=True, eq=False)
class Expr:
    """A value of the program: a function of other expressions and of constants."""

    fun: Any  # None for an input and for a constant
    args: tuple[Any, ...]  # expressions, and what the function takes besides (axes, shapes, ...)
    kwargs: Mapping[str, Any]
    shape: Shape
    dtype: Any
    birth: int = -1  # expressions born earlier never depend on later ones
    value: Any = None  # that of a constant

    @property
    def parents(self) -> list[Expr]:
        """The expressions among the arguments."""
        return [arg for arg in self.args if isinstance(arg, Expr)]

    def is_like(self, other: Expr) -> bool:
        """Tell whether another value has the same shape and dtype."""
        return (self.shape, self.dtype) == (other.shape, other.dtype)

    def is_plain_reduction(self) -> bool:
        """Tell whether a reduction has no more than axes: no start, no dtype, no mask."""
        return len(self.args) == 1 and self.kwargs.keys() <= {"axis", "keepdims"}


def meta(value: Any) -> tuple[Shape, Any]:
    """Return the shape and dtype of a value."""
    return np.shape(value), np.asarray(value).dtype if not hasattr(value, "dtype") else value.dtype


def uniform(x: object) -> float | None:
    """Return the number that a constant consists of throughout; None if it is not that."""
    if not isinstance(x, Expr) or x.fun is not None or x.value is None:
        return None
    return uniform_number(np.asarray(x.value))


def uniform_number(values: Array) -> float | None:
    """Return the finite number that an array consists of throughout, to the sign of its zeros."""
    if values.size == 0 or values.dtype.kind not in "fiub":
        return None
    first = values.flat[0]
    same = np.isfinite(first) and (values == first).all()
    if values.dtype.kind == "f":
        same = same and (np.signbit(values) == np.signbit(first)).all()
    return float(first) if same else None


# -------------------- functions that NumPy lacks, or has in another form --------------------

broadcast = np.broadcast_to
concatenate = concatenate_args.fun  # of an axis, and the arrays


def scale(x: Any, factor: Fraction) -> Any:
    """Return x times a constant: the normal form of signs, constant factors and quotients."""
    return x * float(factor)


def reshape(x: Any, shape: Shape) -> Any:
    """Return x in another shape, in C order."""
    return np.reshape(x, shape)


def transpose(x: Any) -> Any:
    """Return x with its axes in reverse order."""
    return np.transpose(x)


def astype(x: Any, dtype: Any) -> Any:
    """Return x in another dtype."""
    return x.astype(dtype) if hasattr(x, "astype") else np.dtype(dtype).type(x)


def put(g: Any, shape: Shape, *index: Any) -> Any:
    """Return zeros with `g` at a basic ``index``."""
    out = np.zeros(shape, dtype=g.dtype)
    out[index] = g
    return out


def is_basic(index: object) -> bool:
    """Tell whether an index selects a view: it holds ints, slices, None and ... only."""
    parts = index if isinstance(index, tuple) else (index,)
    kinds = int, np.integer, slice, NoneType, EllipsisType
    return all(isinstance(part, kinds) and not isinstance(part, bool) for part in parts)


# -------------------- the graph --------------------


class Exprs:
    """The expressions of a program, each made once: `made`, as they were born.

    Those in `forward`, the values of the forward pass, are there already: worth using again.
    """

    def __init__(self, rules: Mapping[Any, Rule]) -> None:
        self._rules = rules
        self._table: dict[Any, Expr] = {}
        self.made: list[Expr] = []
        self.forward: set[Expr] = set()

    def input(self, name: object, value: object) -> Expr:
        """Return the expression of an input, a leaf of the parameters or of the data."""
        return self._intern(Expr(None, (name,), {}, *meta(value)))

    def constant(self, value: object) -> Expr:
        """Return the expression of a constant number or array."""
        return self._intern(Expr(None, (), {}, *meta(value), value=value))

    def make(
        self, fun: Any, args: Iterable[Any], shape: Shape, dtype: Any, kwargs: Any = ()
    ) -> Expr:
        """Return the expression of a call, simplified."""
        expr = Expr(fun, tuple(args), dict(kwargs), tuple(shape), np.dtype(dtype))
        for simpler in self._rules[fun](self, expr) if fun in self._rules else ():
            if simpler.is_like(expr):
                return simpler
        return self._intern(expr)

    def of(self, fun: Any, *args: Any) -> Expr:
        """Return the expression of arithmetic, or of one of the functions above."""
        if fun in _METAS:
            return self.make(fun, args, *_METAS[fun](*args))
        shape = np.broadcast_shapes(*(x.shape for x in args))
        # Python numbers give way to arrays.
        types = (type(x.value) if type(x.value) in (int, float) else x.dtype for x in args)
        return self.make(fun, args, shape, fun.resolve_dtypes((*types, None))[-1])

    def known(self, fun: object, *args: Expr) -> Expr | None:
        """Return the expression of a call if there is one already."""
        return self._table.get(_key(Expr(fun, args, {}, (), None)))

    def _intern(self, expr: Expr) -> Expr:
        key = _key(expr)
        if key not in self._table:
            self._table[key] = replace(expr, birth=len(self.made))
            self.made.append(self._table[key])
        return self._table[key]


Rule: TypeAlias = Callable[[Exprs, Expr], Iterable[Expr]]

# The shape and the dtype of what a function returns.
_METAS: dict[Any, Callable[..., tuple[Shape, Any]]] = {
    scale: lambda x, factor: (x.shape, x.dtype),
    transpose: lambda x: (x.shape[::-1], x.dtype),
    astype: lambda x, dtype: (x.shape, dtype),
    **dict.fromkeys((reshape, broadcast), lambda x, shape: (shape, x.dtype)),
}


def _key(expr: Expr) -> Any:
    """Return what an expression has in common with all that are the same."""
    args = tuple(id(arg) if isinstance(arg, Expr) else static_key(arg) for arg in expr.args)
    return expr.fun, args, static_key(expr.kwargs), static_key(expr.value)


def static_key(value: object) -> Any:
    """Return what tells one constant argument from another."""
    kind = type(value)
    if isinstance(value, np.ndarray) and value.dtype != object:
        return "array", value.shape, value.dtype.str, value.tobytes()
    if isinstance(value, np.generic):
        return kind, value.tobytes()
    if isinstance(value, tuple | list):
        return kind, tuple(map(static_key, value))
    if isinstance(value, slice):
        return kind, static_key((value.start, value.stop, value.step))
    if isinstance(value, dict):
        return "dict", static_key(list(value.items()))
    if isinstance(value, float):
        return kind, value.hex()
    if isinstance(value, VSpace):
        return kind, repr(value)
    try:
        hash(value)
    except TypeError:
        return kind, id(value)
    return kind, value
