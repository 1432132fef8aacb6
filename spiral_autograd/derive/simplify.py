"""Merge what is computed twice, drop what does nothing, and write the rest as a person would.

A recording becomes a graph of expressions, in which no two are alike: each is looked up by its
function and arguments before it is made. On the way, small rules rewrite it: first a table that
turns autograd's helpers into NumPy's functions, then a table of algebra. No rule changes a value
by more than rounding, and none changes the order of a sum.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from fractions import Fraction
from math import prod
from typing import Any

import autograd.numpy as anp
import numpy as np
from autograd.core import VSpace, sparse_add
from autograd.numpy import numpy_vjps, numpy_wrapper
from autograd.numpy.numpy_boxes import ArrayBox
from autograd.numpy.numpy_vspaces import ArrayVSpace

from ..recording import Call, Recording, add_at
from ..validation import Shape

# -------------------- expressions --------------------


@dataclass(frozen=True, eq=False)
class Expr:
    """A value of the program: a function of other expressions and of constants.

    Attributes
    ----------
    fun : callable or None
        None for an input and for a constant.
    args : tuple
        Expressions, and what the function takes besides them (axes, shapes, indices).
    kwargs : tuple of (str, object)
    shape : tuple of int
    dtype : numpy dtype
    birth : int
        Expressions born earlier never depend on later ones.
    value : object
        The value of a constant; None for any other expression.
    """

    fun: Any
    args: tuple[Any, ...]
    kwargs: tuple[tuple[str, Any], ...]
    shape: Shape
    dtype: Any
    birth: int
    value: Any = None

    @property
    def parents(self) -> list[Expr]:
        """The expressions among the arguments."""
        return [arg for arg in self.args if isinstance(arg, Expr)]

    def keyword(self, name: str, default: Any = None) -> Any:
        """Return a keyword argument."""
        return dict(self.kwargs).get(name, default)


def scale(x: Any, factor: Fraction) -> Any:
    """Return x times a constant: the normal form of signs, constant factors and quotients."""
    return x * float(factor)


def broadcast(x: Any, shape: Shape) -> Any:
    """Return x repeated to a shape."""
    return np.broadcast_to(x, shape)


class Graph:
    """The expressions of a program, each made once.

    Attributes
    ----------
    made : list of Expr
        Every expression, as it was born.
    forward : set of Expr
        The values of the forward pass: there already, so worth using again.
    """

    def __init__(self) -> None:
        self._table: dict[Any, Expr] = {}
        self.made: list[Expr] = []
        self.forward: set[Expr] = set()

    def input(self, name: Any, value: Any) -> Expr:
        """Return the expression of an input, a leaf of the parameters or of the data."""
        return self._intern(self._new(None, (name,), (), *_meta(value)))

    def constant(self, value: Any) -> Expr:
        """Return the expression of a constant number or array."""
        return self._intern(self._new(None, (), (), *_meta(value), value))

    def make(
        self, fun: Any, args: Iterable[Any], shape: Shape, dtype: Any, kwargs: Any = ()
    ) -> Expr:
        """Return the expression of a call, simplified."""
        expr = self._new(fun, tuple(args), tuple(kwargs), tuple(shape), np.dtype(dtype))
        for rule in RULES.get(fun, ()):
            simpler = rule(self, expr)
            if simpler is not None:
                return simpler
        return self._intern(expr)

    def known(self, fun: Any, *args: Expr) -> Expr | None:
        """Return the expression of a call if there is one already."""
        return self._table.get(_key(self._new(fun, args, (), (), None)))

    def arithmetic(self, fun: Any, a: Expr, b: Expr) -> Expr:
        """Return the expression of a sum, difference, product or quotient."""
        shape = np.broadcast_shapes(a.shape, b.shape)
        return self.make(fun, (a, b), shape, np.result_type(_typed(a), _typed(b)))

    def scaled(self, x: Expr, factor: Fraction) -> Expr:
        """Return the expression of x times a constant."""
        return self.make(scale, (x, factor), x.shape, x.dtype)

    def reshaped(self, x: Expr, shape: Shape) -> Expr:
        """Return the expression of x in another shape."""
        return self.make(np.reshape, (x, tuple(shape)), shape, x.dtype)

    def broadcast(self, x: Expr, shape: Shape) -> Expr:
        """Return the expression of x repeated to a shape."""
        return self.make(broadcast, (x, tuple(shape)), shape, x.dtype)

    def transposed(self, x: Expr) -> Expr:
        """Return the expression of x with its axes in reverse order."""
        return self.make(np.transpose, (x,), x.shape[::-1], x.dtype)

    def _new(
        self, fun: Any, args: Any, kwargs: Any, shape: Shape, dtype: Any, value: Any = None
    ) -> Expr:
        return Expr(fun, args, kwargs, shape, dtype, len(self.made), value)

    def _intern(self, expr: Expr) -> Expr:
        known = self._table.setdefault(_key(expr), expr)
        if known is expr:
            self.made.append(expr)
        return known


def _meta(value: Any) -> tuple[Shape, Any]:
    return np.shape(value), np.asarray(value).dtype if not hasattr(value, "dtype") else value.dtype


def _typed(x: Expr) -> Any:
    """Return what NumPy's promotion sees of an operand: Python numbers give way to arrays."""
    return x.value if isinstance(x.value, int | float) and not np.shape(x.value) else x.dtype


def _key(expr: Expr) -> Any:
    if expr.fun is None:
        return "input" if expr.args else "constant", expr.args, static_key(expr.value)
    args = tuple(id(arg) if isinstance(arg, Expr) else static_key(arg) for arg in expr.args)
    return expr.fun, args, tuple((name, static_key(value)) for name, value in expr.kwargs)


def static_key(value: Any) -> Any:
    """Return what tells one constant argument from another."""
    if isinstance(value, np.ndarray):
        return "array", value.shape, value.dtype.str, value.tobytes()
    if isinstance(value, tuple | list):
        return type(value), tuple(map(static_key, value))
    if isinstance(value, slice):
        return "slice", static_key((value.start, value.stop, value.step))
    if isinstance(value, dict):
        return "dict", tuple((key, static_key(item)) for key, item in value.items())
    if isinstance(value, float) and value == 0.0:
        return type(value), repr(value)
    if isinstance(value, VSpace):
        return type(value), repr(value)
    try:
        hash(value)
    except TypeError:
        return type(value), id(value)
    return type(value), value


# -------------------- autograd's helpers, as NumPy --------------------


def _product(graph: Graph, fun: Any, a: Expr, b: Expr, call: Call) -> Expr:
    """Return a product in the dtype that autograd casts it to."""
    result = graph.make(fun, (a, b), np.shape(call.value), np.result_type(a.dtype, b.dtype))
    return graph.make(astype, (result, call.value.dtype), result.shape, call.value.dtype)


def _dot_adjoint_0(graph: Graph, call: Call, B: Expr, g: Expr, *_: Any) -> Expr | None:
    dimensions = len(g.shape), len(B.shape)
    if dimensions in ((1, 2), (2, 2)):
        return _product(graph, np.dot, g, graph.transposed(B), call)
    if dimensions in ((0, 1), (1, 1)):
        return _product(graph, np.outer if g.shape else np.multiply, g, B, call)
    return None


def _dot_adjoint_1(graph: Graph, call: Call, A: Expr, g: Expr, *_: Any) -> Expr | None:
    dimensions = len(A.shape), len(g.shape)
    if dimensions in ((2, 1), (2, 2)):
        return _product(graph, np.dot, graph.transposed(A), g, call)
    if dimensions in ((1, 0), (1, 1)):
        return _product(graph, np.outer if g.shape else np.multiply, A, g, call)
    return None


def _space_add(graph: Graph, call: Call, space: Any, a: Any, b: Any) -> Expr | None:
    if isinstance(space, ArrayVSpace) and isinstance(a, Expr) and isinstance(b, Expr):
        return graph.make(np.add, (a, b), np.shape(call.value), call.value.dtype)
    return None


def _untake(graph: Graph, call: Call, space: Any, zeros: Any, untaken: Any) -> Expr | None:
    if zeros is not None or not isinstance(untaken, Expr) or untaken.fun is not untake:
        return None
    g, index, _ = untaken.args
    fun = put if is_basic(index) else add_at.fun
    parts = index if isinstance(index, tuple) else (index,)
    return graph.make(fun, (g, np.shape(call.value), *parts), np.shape(call.value), g.dtype)


def is_basic(index: Any) -> bool:
    """Tell whether an index selects a view: it holds ints, slices, None and ... only."""
    parts = index if isinstance(index, tuple) else (index,)
    return all(part is None or part is ... or isinstance(part, int | slice) for part in parts)


def put(g: Any, shape: Shape, *index: Any) -> Any:
    """Return zeros with `g` at a basic ``index``."""
    out = np.zeros(shape, dtype=g.dtype)
    out[index] = g
    return out


def _getitem(graph: Graph, call: Call, x: Any, index: Any) -> Expr | None:
    if not isinstance(x, Expr):
        return None
    return graph.make(operator.getitem, (x, index), *_meta(call.value))


def _concatenate(graph: Graph, call: Call, axis: Any, *parts: Any) -> Expr:
    return graph.make(concatenate, (axis, *parts), *_meta(call.value))


def concatenate(axis: int, *arrays: Any) -> Any:
    """Return the arrays joined along an axis."""
    return np.concatenate(arrays, axis=axis)


def _same(graph: Graph, call: Call, options: Any, keywords: Any, x: Any) -> Expr | None:
    if isinstance(x, Expr) and (x.shape, x.dtype) == _meta(call.value):
        return x
    return None


def _reshape(graph: Graph, call: Call, x: Any, *_: Any) -> Expr | None:
    order = call.kwargs.get("order")
    if isinstance(x, Expr) and order in (None, "C") and len(call.args) == 2:
        return graph.reshaped(x, np.shape(call.value))
    return None


def _broadcast_to(graph: Graph, call: Call, x: Any, *_: Any) -> Expr | None:
    return graph.broadcast(x, np.shape(call.value)) if isinstance(x, Expr) else None


def _astype(graph: Graph, call: Call, x: Any, *_: Any) -> Expr | None:
    if isinstance(x, Expr):
        return graph.make(astype, (x, call.value.dtype), *_meta(call.value))
    return None


def astype(x: Any, dtype: Any) -> Any:
    """Return x in another dtype."""
    return x.astype(dtype)


def _transpose(graph: Graph, call: Call, x: Any, axes: Any = None) -> Expr | None:
    if isinstance(x, Expr) and (axes is None or tuple(axes) == tuple(range(len(x.shape)))[::-1]):
        return None if call.kwargs else graph.transposed(x)
    return None


def _real(graph: Graph, call: Call, x: Any) -> Expr | None:
    """A conjugate or a real part of what is real is nothing."""
    return x if isinstance(x, Expr) and x.dtype.kind == "f" else None


def _swapaxes(graph: Graph, call: Call, x: Any, *axes: Any) -> Expr | None:
    if isinstance(x, Expr) and len(x.shape) == 2 and len(axes) == 2 and axes[0] != axes[1]:
        return graph.transposed(x)
    return None


untake = numpy_vjps.untake.fun
TRANSLATIONS: dict[Any, Callable[..., Expr | None]] = {
    numpy_vjps.dot_adjoint_0: _dot_adjoint_0,
    numpy_vjps.dot_adjoint_1: _dot_adjoint_1,
    VSpace.add: _space_add,
    VSpace.mut_add: _space_add,
    sparse_add: _untake,
    ArrayBox.__getitem__: _getitem,
    numpy_wrapper.concatenate_args: _concatenate,
    numpy_wrapper._array_from_scalar_or_array: _same,
    anp.reshape: _reshape,
    anp.ravel: _reshape,
    anp.expand_dims: _reshape,
    anp.squeeze: _reshape,
    anp.broadcast_to: _broadcast_to,
    numpy_wrapper._astype: _astype,
    anp.swapaxes: _swapaxes,
    anp.transpose: _transpose,
    anp.conj: _real,
    anp.real: _real,
}


@dataclass(frozen=True, eq=False)
class Simplified:
    """A recording as expressions.

    Attributes
    ----------
    loss : Expr
    grads : list of Expr
        The gradient for each leaf of the parameters.
    params, data : list of Expr
        The inputs, in the order of the leaves.
    of_call : dict
        The expression of each call that was recorded.
    origin : dict
        The call for which each expression was first made.
    """

    loss: Expr
    grads: list[Expr]
    params: list[Expr]
    data: list[Expr]
    of_call: dict[Call, Expr] = field(repr=False)
    origin: dict[Expr, Call] = field(repr=False)

    def order(self) -> list[Expr]:
        """Return what the results need: the forward part, then the rest, each as it was born."""
        forward = needed([self.loss])
        rest = needed(self.grads) - forward
        return [*sorted(forward, key=_birth), *sorted(rest, key=_birth)]


def _birth(expr: Expr) -> int:
    return expr.birth


def needed(results: Iterable[Expr]) -> set[Expr]:
    """Return the expressions that results are computed from, themselves included."""
    found: set[Expr] = set()
    pending = list(results)
    while pending:
        expr = pending.pop()
        if expr not in found:
            found.add(expr)
            pending.extend(expr.parents)
    return found


def simplify(recording: Recording, params: list[Call], data: list[Call]) -> Simplified:
    """Return a recording as simplified expressions.

    Parameters
    ----------
    recording : Recording
    params, data : lists of Call
        The roots, in the order of the leaves.

    Returns
    -------
    Simplified

    Examples
    --------
    >>> from spiral_autograd.recording import name_of, record
    >>> w = np.array([1.0, 2.0])
    >>> recording = record(lambda w: anp.sum(w * w), w)
    >>> simple = simplify(recording, [recording.params], [])
    >>> [name_of(expr.fun) for expr in simple.order() if expr.fun]
    ['multiply', 'sum', 'add']
    """
    graph = Graph()
    inputs = {root: graph.input(("params", i), root.value) for i, root in enumerate(params)}
    inputs |= {root: graph.input(("data", i), root.value) for i, root in enumerate(data)}
    of_call = dict(inputs)
    origin: dict[Expr, Call] = {}

    def expression(arg: Any) -> Any:
        if isinstance(arg, Call):
            return of_call[arg]
        return graph.constant(arg) if isinstance(arg, np.ndarray | np.generic) else arg

    for call in recording.calls:
        already = len(graph.made)
        of_call[call] = _translated(graph, call, [expression(arg) for arg in call.args])
        if call.gradient_of is None:
            graph.forward.add(of_call[call])
        origin.update(dict.fromkeys(graph.made[already:], call))

    def result(value: Any) -> Expr:
        return of_call[value] if isinstance(value, Call) else graph.constant(value)

    grads = [result(grad) for grad in recording.grads]
    if not isinstance(recording.params, Call):
        # autograd adds a container's gradients into zeros of each leaf's dtype.
        grads = [
            graph.make(astype, (grad, root.value.dtype), grad.shape, root.value.dtype)
            if hasattr(root.value, "dtype") and grad.dtype != root.value.dtype
            else grad
            for grad, root in zip(grads, params, strict=True)
        ]
    return Simplified(
        loss=result(recording.loss),
        grads=grads,
        params=[inputs[root] for root in params],
        data=[inputs[root] for root in data],
        of_call=of_call,
        origin=origin,
    )


def _translated(graph: Graph, call: Call, args: list[Any]) -> Expr:
    translate = TRANSLATIONS.get(call.fun)
    if translate is not None:
        expr = translate(graph, call, *args)
        if expr is not None:
            return expr
    fun = call.fun.fun
    if isinstance(fun, np.ufunc):
        args = [arg if isinstance(arg, Expr) else graph.constant(arg) for arg in args]
    shape, dtype = _meta_of_result(call.value)
    return graph.make(fun, args, shape, dtype, sorted(call.kwargs.items()))


def _meta_of_result(value: Any) -> tuple[Shape, Any]:
    if isinstance(value, np.ndarray | np.generic | float | int | bool | complex):
        return _meta(value)
    return (), object


# -------------------- algebra --------------------


def uniform(x: Any) -> float | None:
    """Return the number that a constant consists of throughout; None if it is not that."""
    if not isinstance(x, Expr) or x.fun is not None or x.value is None:
        return None
    values = np.asarray(x.value)
    if values.size == 0 or values.dtype.kind not in "fiub":
        return None
    first = values.flat[0]
    return float(first) if np.isfinite(first) and (values == first).all() else None


def as_fraction(number: float, dtype: Any) -> Fraction:
    """Return the simple fraction whose rounding `number` is, or its exact value."""
    simple = Fraction(number).limit_denominator(10**6)
    return simple if np.dtype(dtype).type(float(simple)) == number else Fraction(number)


def _parts(x: Expr) -> tuple[Expr, Fraction]:
    """Return x as (expression, constant factor)."""
    return (x.args[0], x.args[1]) if x.fun is scale else (x, Fraction(1))


def _scale_rule(graph: Graph, e: Expr) -> Expr | None:
    x, factor = e.args
    if factor == 1:
        return x
    if x.fun is scale:
        return graph.scaled(x.args[0], x.args[1] * factor)
    return None


def _negative_rule(graph: Graph, e: Expr) -> Expr | None:
    return graph.scaled(e.args[0], Fraction(-1)) if e.dtype.kind == "f" else None


def _without_broadcast(graph: Graph, e: Expr) -> Expr | None:
    """An operand need not be repeated to the shape that the other one gives the result."""
    for i, x in enumerate(e.args):
        if not isinstance(x, Expr):
            continue
        repeated, factor = _parts(x)
        if repeated.fun is broadcast:
            plain = graph.scaled(repeated.args[0], factor)
            args = (*e.args[:i], plain, *e.args[i + 1 :])
            if np.broadcast_shapes(*(arg.shape for arg in args)) == e.shape:
                return graph.make(e.fun, args, e.shape, e.dtype, e.kwargs)
    return None


def _without_cast(graph: Graph, e: Expr) -> Expr | None:
    """An operand need not be cast to the dtype that arithmetic would cast it to."""
    for x, other in (e.args, e.args[::-1]):
        if x.fun is astype and np.result_type(x.args[0].dtype, _typed(other)) == e.dtype:
            args = [x.args[0] if arg is x else arg for arg in e.args]
            if args[0].dtype.kind == "f" or args[1].dtype.kind == "f":
                return graph.make(e.fun, args, e.shape, e.dtype)
    return None


def _constant_factor(graph: Graph, e: Expr) -> Expr | None:
    """c a and a c: a constant array of equal numbers is a factor."""
    for x, other in (e.args, e.args[::-1]):
        number = uniform(x)
        if number is not None and other.dtype == e.dtype and e.dtype.kind == "f":
            whole = graph.broadcast(other, e.shape)
            return graph.scaled(whole, as_fraction(number, e.dtype))
    return None


def _factors_out(graph: Graph, e: Expr) -> Expr | None:
    """(c a)(d b) = c d (a b), and the same for quotients."""
    (a, c), (b, d) = map(_parts, e.args)
    if c == d == 1:
        return None
    if d == 0 and e.fun is np.divide:
        return None
    factor = c * d if e.fun is np.multiply else c / d
    return graph.scaled(graph.make(e.fun, (a, b), e.shape, e.dtype), factor)


def _times_reciprocal(graph: Graph, e: Expr) -> Expr | None:
    """a (1 / b) = a / b, but where 1 / b is there already."""
    for x, other in (e.args, e.args[::-1]):
        if x in graph.forward:
            continue
        if x.fun is np.divide and uniform(x.args[0]) == 1.0 and uniform(other) is None:
            return graph.make(np.divide, (other, x.args[1]), e.shape, e.dtype)
    return None


def _constant_quotient(graph: Graph, e: Expr) -> Expr | None:
    """a / c is a factor; c / a is a reciprocal, and a factor."""
    a, b = e.args
    below, above = uniform(b), uniform(a)
    if e.dtype.kind != "f":
        return None
    if below and a.dtype == e.dtype:
        whole = graph.broadcast(a, e.shape)
        return graph.scaled(whole, 1 / as_fraction(below, e.dtype))
    if above is not None and b.dtype == e.dtype and (above != 1.0 or a.shape):
        one = graph.make(np.divide, (graph.constant(1.0), b), b.shape, e.dtype)
        return graph.scaled(graph.broadcast(one, e.shape), as_fraction(above, e.dtype))
    return None


def _known_quotient(graph: Graph, e: Expr) -> Expr | None:
    """a x / y² = a q / y, and x / y² = q / y, where q = x / y is known: a quotient's gradient."""
    above, below = e.args
    if not (below.fun is np.power and uniform(below.args[1]) == 2.0):
        return None
    y = below.args[0]
    q = graph.known(np.divide, above, y)
    if q is not None:
        return graph.make(np.divide, (q, y), e.shape, e.dtype)
    if above.fun is np.multiply:
        for x, other in (above.args, above.args[::-1]):
            q = graph.known(np.divide, x, y)
            if q is not None:
                product = graph.arithmetic(np.multiply, other, q)
                return graph.make(np.divide, (product, y), e.shape, e.dtype)
    return None


def _plus_nothing(graph: Graph, e: Expr) -> Expr | None:
    """a + 0 = a, repeated to the shape of the zeros."""
    for x, other in (e.args, e.args[::-1]):
        if uniform(x) == 0.0 and other.dtype == e.dtype and (e.fun is np.add or x is e.args[1]):
            return graph.broadcast(other, e.shape)
    return None


def _common_factor(graph: Graph, e: Expr) -> Expr | None:
    """c a ± c b = c (a ± b), and a + (-b) = a - b."""
    (a, c), (b, d) = map(_parts, e.args)
    if e.fun is np.subtract:
        d = -d
    if abs(c) != abs(d):
        return _signs_out(graph, e, (a, c), (b, d))
    if c == 1 and (d == 1 or e.fun is np.subtract):
        return None
    if c == d:
        return graph.scaled(graph.make(np.add, (a, b), e.shape, e.dtype), c)
    if c < 0:
        a, b, c = b, a, d
    return graph.scaled(graph.make(np.subtract, (a, b), e.shape, e.dtype), c)


def _signs_out(
    graph: Graph, e: Expr, first: tuple[Expr, Fraction], second: tuple[Expr, Fraction]
) -> Expr | None:
    """c a + (-d b) = c a - d b, and (-c a) + d b = d b - c a."""
    (a, c), (b, d) = first, second
    if c < 0 < d:
        (a, c), (b, d) = (b, d), (a, c)
    if not d < 0 < c or (e.fun is np.subtract and e.args[0] is graph.scaled(a, c)):
        return None
    return graph.make(np.subtract, (graph.scaled(a, c), graph.scaled(b, -d)), e.shape, e.dtype)


def _reshape_rule(graph: Graph, e: Expr) -> Expr | None:
    """To the same shape is nothing; of a reshape is one; signs, factors and 1 / x pass through."""
    x, shape = e.args
    if x.shape == shape:
        return x
    if x.fun is np.reshape:
        return graph.reshaped(x.args[0], shape)
    if x.fun is scale:
        return graph.scaled(graph.reshaped(x.args[0], shape), x.args[1])
    if x.fun is np.divide and uniform(x.args[0]) == 1.0:
        return graph.arithmetic(np.divide, x.args[0], graph.reshaped(x.args[1], shape))
    return None


def _broadcast_rule(graph: Graph, e: Expr) -> Expr | None:
    x, shape = e.args
    if x.shape == shape:
        return x
    if x.fun is broadcast:
        return graph.broadcast(x.args[0], shape)
    if x.fun is scale:
        return graph.scaled(graph.broadcast(x.args[0], shape), x.args[1])
    return None


def _astype_rule(graph: Graph, e: Expr) -> Expr | None:
    x, dtype = e.args
    return x if x.dtype == dtype else None


def _power_rule(graph: Graph, e: Expr) -> Expr | None:
    """x ** 1 = x, and x ** -0.5 = 1 / √x where the root is known."""
    x, exponent = e.args
    number = uniform(exponent)
    if x.dtype != e.dtype or x.shape != e.shape:
        return None
    if number == 1.0:
        return x
    root = graph.known(np.sqrt, x)
    if number == -0.5 and root is not None:
        return graph.make(np.divide, (graph.constant(1.0), root), e.shape, e.dtype)
    return None


def _transpose_rule(graph: Graph, e: Expr) -> Expr | None:
    x, *axes = e.args
    if axes or e.kwargs:
        return None
    if len(x.shape) < 2:
        return x
    if x.fun is np.transpose and len(x.args) == 1 and not x.kwargs:
        return x.args[0]
    return None


def _sum_of_negative(graph: Graph, e: Expr) -> Expr | None:
    """Σ -a = -Σ a."""
    x, factor = _parts(e.args[0])
    if factor != -1 or len(e.args) > 1:
        return None
    return graph.scaled(graph.make(np.sum, (x,), e.shape, e.dtype, e.kwargs), factor)


def _sum_of_ones(graph: Graph, e: Expr) -> Expr | None:
    """A sum over axes of length 1 is a reshape."""
    x = e.args[0]
    if len(e.args) == 1 and prod(x.shape) == prod(e.shape) and x.dtype == e.dtype:
        return graph.reshaped(x, e.shape) if not e.keyword("where") else None
    return None


def _scalar_choice(graph: Graph, e: Expr) -> Expr | None:
    """In where(c, x, zeros) the zeros need not be an array."""
    if len(e.args) != 3:
        return None
    for i, other in ((1, e.args[2]), (2, e.args[1])):
        x, number = e.args[i], uniform(e.args[i])
        if number is None or not x.shape or not isinstance(other, Expr):
            continue
        shapes = [arg.shape for arg in (e.args[0], other) if isinstance(arg, Expr)]
        if other.dtype == e.dtype and np.broadcast_shapes(*shapes) == e.shape:
            args = (*e.args[:i], graph.constant(number), *e.args[i + 1 :])
            return graph.make(e.fun, args, e.shape, e.dtype)
    return None


Rule = Callable[[Graph, Expr], Expr | None]
RULES: dict[Any, tuple[Rule, ...]] = {
    scale: (_scale_rule,),
    np.negative: (_negative_rule,),
    np.multiply: (
        _constant_factor,
        _factors_out,
        _times_reciprocal,
        _without_broadcast,
        _without_cast,
    ),
    np.divide: (
        _constant_quotient,
        _factors_out,
        _known_quotient,
        _without_broadcast,
        _without_cast,
    ),
    np.add: (_plus_nothing, _common_factor, _without_broadcast, _without_cast),
    np.subtract: (_plus_nothing, _common_factor, _without_broadcast, _without_cast),
    np.reshape: (_reshape_rule,),
    broadcast: (_broadcast_rule,),
    astype: (_astype_rule,),
    np.power: (_power_rule, _without_broadcast),
    np.transpose: (_transpose_rule,),
    np.sum: (_sum_of_ones, _sum_of_negative),
    np.where: (_scalar_choice,),
    np.maximum: (_without_broadcast,),
    np.minimum: (_without_broadcast,),
}
