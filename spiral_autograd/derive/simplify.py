"""Merge what is computed twice, drop what does nothing, and write the rest as a person would.

A recording becomes a graph of expressions. On the way, small rules rewrite it: first a table that
turns autograd's helpers into NumPy's functions (`translations`), then a table of algebra (`rules`).
"""

from __future__ import annotations

from collections.abc import Container, Iterable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ..boxes import add_at, take
from ..recording import Call, Recording
from ..validation import Shape
from .expressions import Expr, Graph, astype, concatenate, meta, put, scale
from .rules import RULES
from .translations import TRANSLATIONS


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


def needed(results: Iterable[Expr], known: Container[Expr] = ()) -> set[Expr]:
    """Return what results are computed from, themselves included, but for what is known."""
    found: set[Expr] = set()
    pending = list(results)
    while pending:
        expr = pending.pop()
        if expr not in found and expr not in known:
            found.add(expr)
            pending.extend(expr.parents)
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
    >>> recording = record(lambda w: (w * w).sum(), w)
    >>> simple = simplify(recording, [recording.params], [])
    >>> [name_of(expr.fun) for expr in simple.order() if expr.fun]
    ['multiply', 'sum', 'add']
    """
    graph = Graph(RULES)
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

    def in_container(grad: Expr, root: Call) -> Expr:
        # autograd adds a container's gradients into zeros of each leaf's dtype.
        dtype = getattr(root.value, "dtype", grad.dtype)
        return graph.make(astype, (grad, dtype), grad.shape, dtype)

    grads = [result(grad) for grad in recording.grads]
    if not isinstance(recording.params, Call):
        grads = list(map(in_container, grads, params))
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
        return meta(value)
    return (), object
