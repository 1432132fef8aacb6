"""Merge what is computed twice, drop what does nothing, and write the rest as a person would.

A recording becomes a graph of expressions, which rules rewrite on the way: those here turn
autograd's helpers into the NumPy that a person writes, those of algebra (`rules`) shorten it.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Container, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
from autograd.core import VSpace, sparse_add
from autograd.numpy import numpy_vjps, numpy_wrapper
from autograd.numpy.numpy_vspaces import ArrayVSpace

from ..boxes import add_at, take
from ..pytree import leaves
from ..recording import Call, Recording
from .expressions import (
    Expr,
    Exprs,
    Rule,
    astype,
    concatenate,
    is_basic,
    meta,
    put,
    reshape,
    scale,
    transpose,
)
from .rules import RULES, itself

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
    graph = Exprs(RULES | TRANSLATIONS)
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
        of_call[call] = _made(graph, call, [expression(arg) for arg in call.args])
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


def _made(graph: Exprs, call: Call, args: list[Any]) -> Expr:
    """Return the expression of a call, without the options that are the default."""
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


def _dot_adjoint(graph: Exprs, e: Expr) -> Iterator[Expr]:
    """g · Bᵀ and Aᵀ · g, of matrices; of vectors, the outer product.

    It stays as autograd makes it where the factor that the gradient belongs to is a scalar.
    """
    factor, g, *_ = e.args
    funs = {(1, 0): np.multiply, (1, 1): np.outer, (2, 1): np.dot, (2, 2): np.dot}
    fun = funs.get((len(factor.shape), len(g.shape)))
    factor = graph.of(transpose, factor)
    a, b = (g, factor) if e.fun is numpy_vjps.dot_adjoint_0.fun else (factor, g)
    if fun is not None and e.shape:
        result = graph.make(fun, (a, b), e.shape, np.result_type(a.dtype, b.dtype))
        yield graph.of(astype, result, e.dtype)


def _add(graph: Exprs, e: Expr) -> Iterator[Expr]:
    space, *parts = e.args
    if isinstance(space, ArrayVSpace) and all(isinstance(part, Expr) for part in parts):
        yield graph.make(np.add, parts, e.shape, e.dtype)


def _untake(graph: Exprs, e: Expr) -> Iterator[Expr]:
    _, zeros, untaken = e.args
    if zeros is None and untaken.fun is numpy_vjps.untake.fun:
        g, index, _ = untaken.args
        fun = put if is_basic(index) else add_at.fun
        parts = index if isinstance(index, tuple) else (index,)
        if g.dtype.kind == "f":
            yield graph.make(fun, (g, e.shape, *parts), e.shape, g.dtype)


def _reshape(graph: Exprs, e: Expr) -> Iterator[Expr]:
    orders = {arg for arg in (*e.args[1:], *e.kwargs.values()) if isinstance(arg, str)}
    if orders <= {"C"}:
        yield graph.of(reshape, e.args[0], e.shape)


def _transpose(graph: Exprs, e: Expr) -> Iterator[Expr]:
    """The axes in reverse order, if that is what the call makes of distinct lengths."""
    x, *axes = e.args
    lengths = tuple(range(2, 2 + len(x.shape)))
    plain = [a.value if isinstance(a, Expr) else a for a in axes]  # autograd's vjp has an array
    if e.fun(np.broadcast_to(0, lengths), *plain, **e.kwargs).shape == lengths[::-1]:
        yield graph.of(transpose, x)


# Rules for the helpers that autograd calls, and for other names of what a program calls by one.
TRANSLATIONS: dict[Any, Rule] = {
    numpy_vjps.dot_adjoint_0.fun: _dot_adjoint,
    numpy_vjps.dot_adjoint_1.fun: _dot_adjoint,
    VSpace.add.fun: _add,
    VSpace.mut_add.fun: _add,
    sparse_add.fun: _untake,
    numpy_wrapper._array_from_scalar_or_array.fun: lambda graph, e: e.parents,
    np.real: itself,
    np.conj: lambda graph, e: e.parents if e.dtype.kind != "c" else [],
    **dict.fromkeys((np.reshape, np.ravel, np.expand_dims, np.squeeze), _reshape),
    **dict.fromkeys((np.atleast_1d, np.atleast_2d, np.atleast_3d), _reshape),
    numpy_wrapper._astype.fun: lambda graph, e: [graph.of(astype, e.args[0], e.dtype)],
    **dict.fromkeys((np.transpose, np.swapaxes), _transpose),
}
