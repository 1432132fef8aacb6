"""Merge what is computed twice, drop what does nothing, and write the rest as a person would.

A recording becomes a graph of expressions. On the way, autograd's helpers become the NumPy that a
person writes, by a table of translations; then a table of algebra (`rules`) rewrites the result.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Container, Iterable
from dataclasses import dataclass
from typing import Any, TypeVar

import autograd.numpy as anp
import numpy as np
from autograd.core import VSpace, sparse_add
from autograd.numpy import numpy_vjps, numpy_wrapper
from autograd.numpy.numpy_vspaces import ArrayVSpace

from ..boxes import add_at, take
from ..pytree import leaves
from ..recording import Call, Recording
from .expressions import (
    Expr,
    Graph,
    astype,
    broadcast,
    concatenate,
    is_basic,
    meta,
    put,
    reshape,
    scale,
    transpose,
)
from .rules import RULES

METHODS = (np.sum, np.max, np.min, np.mean, np.prod, np.cumsum)
DEFAULTS = {"axis": None, "keepdims": False, "out": None, "dtype": None}
T = TypeVar("T")


@dataclass(frozen=True, eq=False)
class Simplified:
    """A recording as expressions."""

    recording: Recording
    loss: Expr
    grads: list[Expr]  # for each leaf of the parameters
    params: list[Expr]
    data: list[Expr]
    of_call: dict[Call, Expr]  # the expression of each call that was recorded
    origin: dict[Expr, Call]  # the call for which each expression was first made

    def order(self) -> list[Expr]:
        """Return what the results need: the forward part, then the rest, each as it was born."""
        forward = needed([self.loss], parents)
        rest = needed(self.grads, parents, forward)
        birth = operator.attrgetter("birth")
        return [*sorted(forward, key=birth), *sorted(rest, key=birth)]


parents = operator.attrgetter("parents")


def needed(
    results: Iterable[T], parents_of: Callable[[T], Iterable[T]], known: Container[T] = ()
) -> set[T]:
    """Return what results are computed from, themselves included, but for what is known."""
    found: set[T] = set()
    pending = list(results)
    while pending:
        value = pending.pop()
        if value not in found and value not in known:
            found.add(value)
            pending.extend(parents_of(value))
    return found


_NEW = {scale, astype, concatenate, put, add_at.fun, take.fun, np.dot, np.outer, np.where}
_NEW |= {np.sum, np.max, np.min, np.prod, np.mean, np.var, np.std, np.cumsum, np.tensordot}


def memory_of(order: Iterable[Expr]) -> dict[Expr, set[Expr]]:
    """Return, for each expression, those whose memory its value may share, itself included.

    What a function returns that is not known to make a new array may be a view of its arguments.
    """
    memory: dict[Expr, set[Expr]] = {}
    for e in order:
        is_new = e.fun is None or isinstance(e.fun, np.ufunc) or e.fun in _NEW
        memory[e] = {e} if is_new else {e}.union(*(memory[parent] for parent in e.parents))
    return memory


def simplify(recording: Recording) -> Simplified:
    """Return a recording as simplified expressions.

    >>> from spiral_autograd.recording import name_of, record
    >>> simple = simplify(record(lambda w: (w * w).sum(), np.array([1.0, 2.0])))
    >>> [name_of(expr.fun) for expr in simple.order() if expr.fun]
    ['multiply', 'sum', 'add']
    """
    graph = Graph(RULES)
    of_call: dict[Call, Expr] = {}
    inputs: dict[str, list[Expr]] = {}
    for name, tree in (("params", recording.params), ("data", list(recording.data))):
        roots = [leaf for leaf in leaves(tree) if isinstance(leaf, Call)]
        inputs[name] = [graph.input((name, i), root.value) for i, root in enumerate(roots)]
        of_call.update(zip(roots, inputs[name], strict=True))
    origin: dict[Expr, Call] = {}

    def expression(arg: object) -> Any:
        if isinstance(arg, Call):
            return of_call[arg]
        return graph.constant(arg) if isinstance(arg, np.ndarray | np.generic) else arg

    for call in recording.calls:
        already = len(graph.made)
        of_call[call] = _translated(graph, call, [expression(arg) for arg in call.args])
        if call.gradient_of is None:
            graph.forward.add(of_call[call])
        origin.update(dict.fromkeys(graph.made[already:], call))
    loss, *grads = (
        of_call[value] if isinstance(value, Call) else graph.constant(value)
        for value in (recording.loss, *recording.grads)
    )
    if not isinstance(recording.params, Call):
        # autograd adds a container's gradients into zeros of each leaf's dtype.
        grads = [
            graph.of(astype, grad, getattr(root.value, "dtype", grad.dtype))
            for grad, root in zip(grads, leaves(recording.params), strict=True)
        ]
    return Simplified(recording, loss, grads, inputs["params"], inputs["data"], of_call, origin)


def _translated(graph: Graph, call: Call, args: list[Any]) -> Expr:
    """Return the expression of a call: its translation, or the call as autograd makes it."""
    if call.fun in TRANSLATIONS:
        expr = TRANSLATIONS[call.fun](graph, call, *args)
        if expr is not None:
            return expr
    fun, value = call.fun.fun, call.value
    if isinstance(fun, np.ufunc):
        args = [arg if isinstance(arg, Expr) else graph.constant(arg) for arg in args]
    is_array = isinstance(value, np.ndarray | np.generic | float | int | bool | complex)
    shape, dtype = meta(value) if is_array else ((), object)
    kwargs = {
        k: v for k, v in call.kwargs.items() if not (fun in METHODS and DEFAULTS.get(k, k) is v)
    }
    return graph.make(fun, args, shape, dtype, sorted(kwargs.items()))


# -------------------- translations --------------------


def _dot_adjoint(graph: Graph, call: Call, factor: Expr, g: Expr, *_: object) -> Expr | None:
    """g · Bᵀ and Aᵀ · g, of matrices; of vectors, the outer product.

    It stays as autograd makes it where the factor that the gradient belongs to is a scalar.
    """
    dimensions = len(factor.shape), len(g.shape)
    if dimensions not in ((1, 0), (1, 1), (2, 1), (2, 2)):
        return None
    first = call.fun is numpy_vjps.dot_adjoint_0
    factor = graph.of(transpose, factor)
    a, b = (g, factor) if first else (factor, g)
    fun = np.dot if dimensions[0] == 2 else np.outer if g.shape else np.multiply
    fits = fun is not np.dot or a.shape[-1] == b.shape[0]
    shape = (*a.shape[:-1], *b.shape[1:]) if fun is np.dot else (*a.shape, *b.shape)
    if not fits or shape != np.shape(call.value):
        return None
    result = graph.make(fun, (a, b), shape, np.result_type(a.dtype, b.dtype))
    return graph.of(astype, result, call.value.dtype)


def _untake(graph: Graph, call: Call, space: Any, zeros: Any, untaken: Any) -> Expr | None:
    is_untaken = isinstance(untaken, Expr) and untaken.fun is numpy_vjps.untake.fun
    if zeros is not None or not is_untaken:
        return None
    g, index, _ = untaken.args
    if (call.value.dtype, call.value.dtype.kind) != (g.dtype, "f"):
        return None
    fun = put if is_basic(index) else add_at.fun
    parts = index if isinstance(index, tuple) else (index,)
    return graph.make(fun, (g, np.shape(call.value), *parts), np.shape(call.value), g.dtype)


def _reshape(graph: Graph, call: Call, x: Expr, *rest: object) -> Expr | None:
    orders = {arg for arg in (*rest, *call.kwargs.values()) if isinstance(arg, str)}
    return graph.of(reshape, x, np.shape(call.value)) if orders <= {"C"} else None


def _transpose(graph: Graph, call: Call, x: Expr, *axes: Any) -> Expr | None:
    """The axes in reverse order, if that is what the call makes of distinct lengths."""
    lengths = tuple(range(2, 2 + len(x.shape)))
    plain = [a.value if isinstance(a, Expr) else a for a in axes]  # autograd's vjp has an array
    turned = call.fun.fun(np.broadcast_to(0, lengths), *plain, **call.kwargs)
    return graph.of(transpose, x) if turned.shape == lengths[::-1] else None


# Each takes the graph, the recorded call and its arguments as expressions, and returns an
# expression of the value of the call; or None, where the call stays as autograd makes it.
TRANSLATIONS: dict[Any, Callable[..., Expr | None]] = {
    **dict.fromkeys((numpy_vjps.dot_adjoint_0, numpy_vjps.dot_adjoint_1), _dot_adjoint),
    **dict.fromkeys(
        (VSpace.add, VSpace.mut_add),
        lambda graph, call, space, a, b: (
            graph.make(np.add, (a, b), *meta(call.value))
            if isinstance(space, ArrayVSpace) and isinstance(a, Expr) and isinstance(b, Expr)
            else None
        ),
    ),
    sparse_add: _untake,
    numpy_wrapper._array_from_scalar_or_array: lambda graph, call, options, keywords, x: (
        x if isinstance(x, Expr) and (x.shape, x.dtype) == meta(call.value) else None
    ),
    **dict.fromkeys((anp.reshape, anp.ravel, anp.expand_dims, anp.squeeze), _reshape),
    **dict.fromkeys((anp.atleast_1d, anp.atleast_2d, anp.atleast_3d), _reshape),
    anp.broadcast_to: lambda graph, call, x, *_: graph.of(broadcast, x, np.shape(call.value)),
    numpy_wrapper._astype: lambda graph, call, x, *_: graph.of(astype, x, call.value.dtype),
    **dict.fromkeys((anp.transpose, anp.swapaxes), _transpose),
    # A conjugate or a real part of what is real is nothing.
    **dict.fromkeys(
        (anp.conj, anp.real), lambda graph, call, x: x if x.dtype.kind == "f" else None
    ),
}
