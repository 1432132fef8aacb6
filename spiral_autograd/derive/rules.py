"""Algebra: small rules, each of which writes one kind of expression in a simpler way.

A rule takes the graph and an expression that is about to be made, and returns a simpler one; or
None, where it does not apply. What has another shape or dtype is not taken. No rule changes a value
by more than rounding, and none changes the order of a sum.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from fractions import Fraction
from math import prod
from typing import Any

import numpy as np

from .expressions import Expr, Graph, Rule, astype, broadcast, reshape, scale, transpose, uniform


def as_fraction(number: float, dtype: Any) -> Fraction:
    """Return the simple fraction whose rounding `number` is, or its exact value."""
    simple = Fraction(number).limit_denominator(10**6)
    return simple if np.dtype(dtype).type(float(simple)) == number else Fraction(number)


def _ordinary(factor: Fraction, dtype: Any) -> bool:
    """Tell whether a factor may change its place: a very large or small one may avoid overflow."""
    limit = Fraction(float(np.finfo(dtype).max) ** 0.25)
    return factor == 0 or 1 / limit <= abs(factor) <= limit


def _parts(x: Expr) -> tuple[Expr, Fraction]:
    """Return x as (expression, constant factor)."""
    return (x.args[0], x.args[1]) if x.fun is scale else (x, Fraction(1))


def _remade(graph: Graph, e: Expr, *args: object) -> Expr:
    """Return the same function of other arguments."""
    return graph.make(e.fun, args, e.shape, e.dtype, e.kwargs)


def _either_way(rule: Callable[[Graph, Expr, Expr, Expr], Expr | None]) -> Rule:
    """Return a rule that is tried with either of two arguments as the first."""

    @functools.wraps(rule)
    def both(graph: Graph, e: Expr) -> Expr | None:
        a, b = e.args
        found = (rule(graph, e, *pair) for pair in ((a, b), (b, a)))
        return next((x for x in found if x is not None and x.is_like(e)), None)

    return both


# -------------------- what does nothing, or passes through --------------------


def _unchanged(graph: Graph, e: Expr) -> Expr:
    """To the same shape, or to the same dtype, is nothing."""
    return e.args[0]


def _through(graph: Graph, e: Expr) -> Expr | None:
    """What only moves entries: f(f(x)) = f(x), f(c x) = c f(x), and a reshape of 1 / x."""
    x, shape = e.args
    if x.fun is e.fun:
        return _remade(graph, e, x.args[0], shape)
    if x.fun is scale:
        return graph.of(scale, graph.of(e.fun, x.args[0], shape), x.args[1])
    if x.fun is np.divide and uniform(x.args[0]) == 1.0 and e.fun is reshape:
        return graph.of(np.divide, x.args[0], graph.of(reshape, x.args[1], shape))
    return None


def _twice_transposed(graph: Graph, e: Expr) -> Expr | None:
    (x,) = e.args
    if len(x.shape) < 2:
        return x
    return x.args[0] if x.fun is transpose else None


def _without_broadcast(graph: Graph, e: Expr) -> Expr | None:
    """An operand need not be repeated to the shape that the other one gives the result."""
    for i, x in enumerate(e.args):
        repeated, factor = _parts(x)
        inner = repeated.args[0].shape if repeated.fun in (broadcast, reshape) else None
        leading = () if inner is None else (1,) * (len(x.shape) - len(inner))
        if repeated.fun is broadcast or (inner is not None and x.shape == leading + inner):
            plain = graph.of(scale, repeated.args[0], factor)
            args = (*e.args[:i], plain, *e.args[i + 1 :])
            if np.broadcast_shapes(*(arg.shape for arg in args)) == e.shape:
                return _remade(graph, e, *args)
    return None


@_either_way
def _without_cast(graph: Graph, e: Expr, x: Expr, other: Expr) -> Expr | None:
    """An operand need not be cast to the dtype that arithmetic would cast it to."""
    if x.fun is not astype or "f" not in (x.args[0].dtype.kind, other.dtype.kind):
        return None
    return graph.of(e.fun, *(x.args[0] if arg is x else arg for arg in e.args))


# -------------------- factors --------------------


def _scale_rule(graph: Graph, e: Expr) -> Expr | None:
    """1 a = a, and c (d a) = (c d) a."""
    x, factor = e.args
    if factor == 1:
        return x
    if x.fun is scale and _ordinary(x.args[1] * factor, e.dtype):
        return graph.of(scale, x.args[0], x.args[1] * factor)
    return None


def _negative_rule(graph: Graph, e: Expr) -> Expr | None:
    return graph.of(scale, e.args[0], Fraction(-1)) if e.dtype.kind == "f" else None


def _factor_of(constant: Expr, other: Expr, e: Expr) -> Fraction | None:
    """Return a constant of equal numbers as a factor; None if it, or its place, is otherwise."""
    number = uniform(constant)
    if number is None or other.dtype != e.dtype or e.dtype.kind != "f":
        return None
    factor = as_fraction(number, e.dtype)
    return factor if _ordinary(factor, e.dtype) else None


@_either_way
def _constant_factor(graph: Graph, e: Expr, constant: Expr, x: Expr) -> Expr | None:
    """c a and a c: a constant array of equal numbers is a factor."""
    factor = _factor_of(constant, x, e)
    return None if factor is None else graph.of(scale, graph.of(broadcast, x, e.shape), factor)


def _constant_quotient(graph: Graph, e: Expr) -> Expr | None:
    """a / c is a factor; c / a is a reciprocal, and a factor."""
    a, b = e.args
    is_divisor = bool(uniform(b))
    factor = _factor_of(b, a, e) if is_divisor else _factor_of(a, b, e)
    if factor is None or (not is_divisor and factor == 1 and not a.shape):
        return None
    x = a if is_divisor else graph.of(np.divide, graph.constant(1.0), b)
    return graph.of(scale, graph.of(broadcast, x, e.shape), 1 / factor if is_divisor else factor)


def _factors_out(graph: Graph, e: Expr) -> Expr | None:
    """(c a)(d b) = c d (a b), and the same for quotients."""
    (a, c), (b, d) = map(_parts, e.args)
    if c == d == 1 or (d == 0 and e.fun is np.divide):
        return None
    factor = c * d if e.fun is np.multiply else c / d
    return graph.of(scale, _remade(graph, e, a, b), factor) if _ordinary(factor, e.dtype) else None


@_either_way
def _times_reciprocal(graph: Graph, e: Expr, x: Expr, other: Expr) -> Expr | None:
    """a (1 / b) = a / b, but where 1 / b is there already."""
    is_reciprocal = x.fun is np.divide and uniform(x.args[0]) == 1.0 and x not in graph.forward
    if is_reciprocal and uniform(other) is None:
        return graph.of(np.divide, other, x.args[1])
    return None


def _power_rule(graph: Graph, e: Expr) -> Expr | None:
    """x ** 1 = x, and x ** -0.5 = 1 / √x where the root is known."""
    x, number = e.args[0], uniform(e.args[1])
    root = graph.known(np.sqrt, x)
    if number == -0.5 and root is not None:
        return graph.of(np.divide, graph.constant(1.0), root)
    return x if number == 1.0 else None


# -------------------- sums --------------------


@_either_way
def _plus_nothing(graph: Graph, e: Expr, x: Expr, other: Expr) -> Expr | None:
    """a + 0 = a, repeated to the shape of the zeros."""
    is_nothing = uniform(x) == 0.0 and (e.fun is np.add or x is e.args[1])
    return graph.of(broadcast, other, e.shape) if is_nothing else None


def _common_factor(graph: Graph, e: Expr) -> Expr | None:
    """c a ± c b = c (a ± b), c a + (-d b) = c a - d b, and (-c a) + d b = d b - c a."""
    (a, c), (b, d) = map(_parts, e.args)
    if e.fun is np.subtract:
        d = -d
    if c < 0 < d:
        (a, c), (b, d) = (b, d), (a, c)
    if abs(c) == abs(d):
        fun = np.add if c == d else np.subtract
    elif d < 0 < c:
        a, b, c, fun = graph.of(scale, a, c), graph.of(scale, b, -d), Fraction(1), np.subtract
    else:
        return None
    is_so = (fun, a, b) == (e.fun, *e.args)
    return None if is_so else graph.of(scale, graph.make(fun, (a, b), e.shape, e.dtype), c)


def _sum(graph: Graph, e: Expr) -> Expr | None:
    """A sum over axes of length 1 is a reshape; a sign passes through, which keeps the rounding."""
    x, factor = _parts(e.args[0])
    if not e.is_plain_reduction():
        return None
    if prod(x.shape) == prod(e.shape):
        return graph.of(reshape, e.args[0], e.shape)
    return graph.of(scale, _remade(graph, e, x), factor) if factor == -1 else None


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
            return _remade(graph, e, *e.args[:i], graph.constant(number), *e.args[i + 1 :])
    return None


_LIGHTER = (_without_broadcast, _without_cast)
RULES: dict[Any, tuple[Rule, ...]] = {
    scale: (_scale_rule,),
    np.negative: (_negative_rule,),
    np.multiply: (_constant_factor, _factors_out, _times_reciprocal, *_LIGHTER),
    np.divide: (_constant_quotient, _factors_out, *_LIGHTER),
    np.add: (_plus_nothing, _common_factor, *_LIGHTER),
    np.subtract: (_plus_nothing, _common_factor, *_LIGHTER),
    reshape: (_unchanged, _through),
    broadcast: (_unchanged, _through),
    astype: (_unchanged,),
    np.power: (_power_rule, _without_broadcast),
    transpose: (_twice_transposed,),
    np.sum: (_sum,),
    np.where: (_scalar_choice,),
    **dict.fromkeys((np.maximum, np.minimum), (_without_broadcast,)),
}
