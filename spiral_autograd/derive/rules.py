"""Algebra: small rules, each of which writes one kind of expression in a simpler way.

A rule takes the graph and an expression that is about to be made, and returns a simpler one of the
same shape and dtype; or None, where it does not apply. No rule changes a value by more than
rounding, and none changes the order of a sum.
"""

from __future__ import annotations

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


def _scale_rule(graph: Graph, e: Expr) -> Expr | None:
    x, factor = e.args
    if factor == 1:
        return x
    if x.fun is scale and _ordinary(x.args[1] * factor, e.dtype):
        return graph.scaled(x.args[0], x.args[1] * factor)
    return None


def _negative_rule(graph: Graph, e: Expr) -> Expr | None:
    return graph.scaled(e.args[0], Fraction(-1)) if e.dtype.kind == "f" else None


def _without_broadcast(graph: Graph, e: Expr) -> Expr | None:
    """An operand need not be repeated to the shape that the other one gives the result."""
    for i, x in enumerate(e.args):
        repeated, factor = _parts(x)
        if repeated.fun is broadcast or _adds_leading_axes(repeated):
            plain = graph.scaled(repeated.args[0], factor)
            args = (*e.args[:i], plain, *e.args[i + 1 :])
            if np.broadcast_shapes(*(arg.shape for arg in args)) == e.shape:
                return graph.make(e.fun, args, e.shape, e.dtype, e.kwargs)
    return None


def _adds_leading_axes(x: Expr) -> bool:
    if x.fun is not reshape:
        return False
    inner = x.args[0].shape
    return x.shape == (1,) * (len(x.shape) - len(inner)) + inner


def _without_cast(graph: Graph, e: Expr) -> Expr | None:
    """An operand need not be cast to the dtype that arithmetic would cast it to."""
    for x, other in (e.args, e.args[::-1]):
        if x.fun is astype and "f" in (x.args[0].dtype.kind, other.dtype.kind):
            a, b = (x.args[0] if arg is x else arg for arg in e.args)
            plain = graph.in_place_of(e, e.fun, a, b)
            if plain is not None:
                return plain
    return None


def _constant_factor(graph: Graph, e: Expr) -> Expr | None:
    """c a and a c: a constant array of equal numbers is a factor."""
    for x, other in (e.args, e.args[::-1]):
        number = uniform(x)
        if number is None or other.dtype != e.dtype or e.dtype.kind != "f":
            continue
        factor = as_fraction(number, e.dtype)
        if _ordinary(factor, e.dtype):
            return graph.scaled(graph.broadcast(other, e.shape), factor)
    return None


def _factors_out(graph: Graph, e: Expr) -> Expr | None:
    """(c a)(d b) = c d (a b), and the same for quotients."""
    (a, c), (b, d) = map(_parts, e.args)
    if c == d == 1:
        return None
    if d == 0 and e.fun is np.divide:
        return None
    factor = c * d if e.fun is np.multiply else c / d
    if not _ordinary(factor, e.dtype):
        return None
    return graph.scaled(graph.make(e.fun, (a, b), e.shape, e.dtype), factor)


def _times_reciprocal(graph: Graph, e: Expr) -> Expr | None:
    """a (1 / b) = a / b, but where 1 / b is there already."""
    for x, other in (e.args, e.args[::-1]):
        if x in graph.forward:
            continue
        if x.fun is np.divide and uniform(x.args[0]) == 1.0 and uniform(other) is None:
            return graph.in_place_of(e, np.divide, other, x.args[1])
    return None


def _constant_quotient(graph: Graph, e: Expr) -> Expr | None:
    """a / c is a factor; c / a is a reciprocal, and a factor."""
    a, b = e.args
    below, above = uniform(b), uniform(a)
    if e.dtype.kind != "f":
        return None
    if below and a.dtype == e.dtype:
        factor = 1 / as_fraction(below, e.dtype)
        if _ordinary(factor, e.dtype):
            return graph.scaled(graph.broadcast(a, e.shape), factor)
    elif above is not None and b.dtype == e.dtype and (above != 1.0 or a.shape):
        factor = as_fraction(above, e.dtype)
        if _ordinary(factor, e.dtype):
            one = graph.make(np.divide, (graph.constant(1.0), b), b.shape, e.dtype)
            return graph.scaled(graph.broadcast(one, e.shape), factor)
    return None


def _known_quotient(graph: Graph, e: Expr) -> Expr | None:
    """a x / y² = a q / y, and x / y² = q / y, where q = x / y is known: a quotient's gradient."""
    above, below = e.args
    if not (below.fun is np.power and uniform(below.args[1]) == 2.0):
        return None
    y = below.args[0]
    q = graph.known(np.divide, above, y)
    if q is not None:
        return graph.in_place_of(e, np.divide, q, y)
    if above.fun is np.multiply:
        for x, other in (above.args, above.args[::-1]):
            q = graph.known(np.divide, x, y)
            if q is not None:
                product = graph.arithmetic(np.multiply, other, q)
                return graph.in_place_of(e, np.divide, product, y)
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
    if e.args == (a, b):
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
    if x.fun is reshape:
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
    (x,) = e.args
    if len(x.shape) < 2:
        return x
    return x.args[0] if x.fun is transpose else None


def _is_plain_sum(e: Expr) -> bool:
    return len(e.args) == 1 and {name for name, _ in e.kwargs} <= {"axis", "keepdims"}


def _sum_of_negative(graph: Graph, e: Expr) -> Expr | None:
    """Σ -a = -Σ a."""
    x, factor = _parts(e.args[0])
    if factor != -1 or not _is_plain_sum(e):
        return None
    return graph.scaled(graph.make(np.sum, (x,), e.shape, e.dtype, e.kwargs), factor)


def _sum_of_ones(graph: Graph, e: Expr) -> Expr | None:
    """A sum over axes of length 1 is a reshape."""
    x = e.args[0]
    if _is_plain_sum(e) and prod(x.shape) == prod(e.shape) and x.dtype == e.dtype:
        return graph.reshaped(x, e.shape)
    return None


def _over_all(graph: Graph, e: Expr) -> Expr | None:
    """Along the one axis there is, is over all."""
    x, axis = e.args[0], e.keyword("axis")
    if len(e.args) > 1 or len(x.shape) != 1 or axis not in (0, -1, (0,)):
        return None
    kwargs = [(name, value) for name, value in e.kwargs if name != "axis"]
    return graph.make(e.fun, e.args, e.shape, e.dtype, kwargs)


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
    reshape: (_reshape_rule,),
    broadcast: (_broadcast_rule,),
    astype: (_astype_rule,),
    np.power: (_power_rule, _without_broadcast),
    transpose: (_transpose_rule,),
    np.sum: (_sum_of_ones, _sum_of_negative, _over_all),
    np.mean: (_over_all,),
    np.max: (_over_all,),
    np.min: (_over_all,),
    np.where: (_scalar_choice,),
    np.maximum: (_without_broadcast,),
    np.minimum: (_without_broadcast,),
}
