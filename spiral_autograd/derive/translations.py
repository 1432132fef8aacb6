"""autograd's helpers, turned into the NumPy that a person writes: one entry for each function.

A translation takes the graph, the recorded call and its arguments as expressions, and returns an
expression of the value of the call; or None, where the call stays as autograd makes it.
"""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import Any

import autograd.numpy as anp
import numpy as np
from autograd.builtins import container_take
from autograd.core import VSpace, sparse_add
from autograd.numpy import numpy_vjps, numpy_wrapper
from autograd.numpy.numpy_boxes import ArrayBox
from autograd.numpy.numpy_vspaces import ArrayVSpace

from ..boxes import add_at
from ..recording import Call
from ..validation import Shape
from .expressions import Expr, Graph, astype, concatenate, is_basic, meta, put

untake = numpy_vjps.untake.fun


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


def _product(graph: Graph, fun: Any, a: Expr, b: Expr, call: Call) -> Expr | None:
    """Return a product in the dtype that autograd casts it to, if its shape is that of the call.

    It is not, where the factor that the gradient belongs to is a scalar.
    """
    if _shape_of_product(fun, a.shape, b.shape) != np.shape(call.value):
        return None
    result = graph.make(fun, (a, b), np.shape(call.value), np.result_type(a.dtype, b.dtype))
    return graph.make(astype, (result, call.value.dtype), result.shape, call.value.dtype)


def _shape_of_product(fun: Any, a: Shape, b: Shape) -> Shape | None:
    if fun is np.dot:
        return (*a[:-1], *b[1:]) if a[-1] == b[0] else None
    return (*a, *b)


def _space_add(graph: Graph, call: Call, space: Any, a: Any, b: Any) -> Expr | None:
    if isinstance(space, ArrayVSpace) and isinstance(a, Expr) and isinstance(b, Expr):
        return graph.make(np.add, (a, b), *meta(call.value))
    return None


def _untake(graph: Graph, call: Call, space: Any, zeros: Any, untaken: Any) -> Expr | None:
    if zeros is not None or not isinstance(untaken, Expr) or untaken.fun is not untake:
        return None
    g, index, _ = untaken.args
    if (call.value.dtype, call.value.dtype.kind) != (g.dtype, "f"):
        return None
    fun = put if is_basic(index) else add_at.fun
    parts = index if isinstance(index, tuple) else (index,)
    return graph.make(fun, (g, np.shape(call.value), *parts), np.shape(call.value), g.dtype)


def _getitem(graph: Graph, call: Call, x: Any, index: Any) -> Expr | None:
    if not isinstance(x, Expr):
        return None
    return graph.make(operator.getitem, (x, index), *meta(call.value))


def _concatenate(graph: Graph, call: Call, axis: Any, *parts: Any) -> Expr | None:
    if call.kwargs:
        return None
    return graph.make(concatenate, (axis, *parts), *meta(call.value))


def _same(graph: Graph, call: Call, options: Any, keywords: Any, x: Any) -> Expr | None:
    if isinstance(x, Expr) and (x.shape, x.dtype) == meta(call.value):
        return x
    return None


def _reshape(graph: Graph, call: Call, x: Any, *rest: Any) -> Expr | None:
    orders = {arg for arg in (*rest, *call.kwargs.values()) if isinstance(arg, str)}
    if isinstance(x, Expr) and orders <= {"C"}:
        return graph.reshaped(x, np.shape(call.value))
    return None


def _broadcast_to(graph: Graph, call: Call, x: Any, *_: Any) -> Expr | None:
    return graph.broadcast(x, np.shape(call.value)) if isinstance(x, Expr) else None


def _astype(graph: Graph, call: Call, x: Any, *_: Any) -> Expr | None:
    if isinstance(x, Expr):
        return graph.make(astype, (x, call.value.dtype), *meta(call.value))
    return None


def _transpose(graph: Graph, call: Call, x: Any, axes: Any = None) -> Expr | None:
    if isinstance(axes, Expr):  # autograd's own vjp has them in an array
        axes = axes.value
    if not isinstance(x, Expr) or call.kwargs:
        return None
    if axes is None or tuple(axes) == tuple(range(len(x.shape)))[::-1]:
        return graph.transposed(x)
    return None


def _swapaxes(graph: Graph, call: Call, x: Any, *axes: Any) -> Expr | None:
    if isinstance(x, Expr) and len(x.shape) == 2 and {axis % 2 for axis in axes} == {0, 1}:
        return graph.transposed(x)
    return None


def _real(graph: Graph, call: Call, x: Any) -> Expr | None:
    """A conjugate or a real part of what is real is nothing."""
    return x if isinstance(x, Expr) and x.dtype.kind == "f" else None


TRANSLATIONS: dict[Any, Callable[..., Expr | None]] = {
    numpy_vjps.dot_adjoint_0: _dot_adjoint_0,
    numpy_vjps.dot_adjoint_1: _dot_adjoint_1,
    VSpace.add: _space_add,
    VSpace.mut_add: _space_add,
    sparse_add: _untake,
    ArrayBox.__getitem__: _getitem,
    container_take: _getitem,
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
