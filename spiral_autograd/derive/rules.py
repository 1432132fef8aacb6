"""Algebra: what is simpler than a call of each function, and the same.

A rule takes the graph and an expression that is about to be made, and yields simpler ones, of which
the first of the same shape and dtype is taken. No rule changes a value by more than rounding, and
none changes the order of a sum.
"""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction
from math import prod
from typing import Any

import numpy as np

from .expressions import (
    Expr,
    Exprs,
    Rule,
    astype,
    broadcast,
    reshape,
    scale,
    transpose,
    uniform,
)


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


def _remade(graph: Exprs, e: Expr, *args: object) -> Expr:
    """Return the same function of other arguments."""
    return graph.make(e.fun, args, e.shape, e.dtype, e.kwargs)


def _is_reciprocal(x: Expr) -> bool:
    return x.fun is np.divide and uniform(x.args[0]) == 1.0


# -------------------- what does nothing, or passes through --------------------


def itself(graph: Exprs, e: Expr) -> Iterator[Expr]:
    """A cast to the same dtype is nothing, and what else returns its argument if it is like it."""
    yield e.parents[0]


def _moved(graph: Exprs, e: Expr) -> Iterator[Expr]:
    """f(x) = x of the same shape, f(f(x)) = f(x), f(c x) = c f(x), and a reshape of 1 / x."""
    x = e.args[0]
    yield x
    if x.fun is e.fun:
        yield graph.of(e.fun, x.args[0], e.shape)
    if x.fun is scale:
        yield graph.of(scale, graph.of(e.fun, x.args[0], e.shape), x.args[1])
    if e.fun is reshape and _is_reciprocal(x):
        yield graph.of(np.divide, x.args[0], graph.of(reshape, x.args[1], e.shape))


def _transposed(graph: Exprs, e: Expr) -> Iterator[Expr]:
    (x,) = e.args
    if len(x.shape) < 2:
        yield x
    if x.fun is transpose:
        yield x.args[0]


def _lighter(graph: Exprs, e: Expr) -> Iterator[Expr]:
    """An operand need not be repeated to the shape that the other one gives the result."""
    for i, x in enumerate(e.args):
        repeated, factor = _parts(x)
        inner = repeated.args[0].shape if repeated.fun in (broadcast, reshape) else None
        leading = () if inner is None else (1,) * (len(x.shape) - len(inner))
        if repeated.fun is broadcast or (inner is not None and x.shape == leading + inner):
            plain = graph.of(scale, repeated.args[0], factor)
            args = (*e.args[:i], plain, *e.args[i + 1 :])
            if np.broadcast_shapes(*(arg.shape for arg in args)) == e.shape:
                yield _remade(graph, e, *args)


def _without_cast(graph: Exprs, e: Expr) -> Iterator[Expr]:
    """An operand need not be cast to the dtype that arithmetic would cast it to."""
    for x, other in (e.args, e.args[::-1]):
        if x.fun is astype and "f" in (x.args[0].dtype.kind, other.dtype.kind):
            yield graph.of(e.fun, *(x.args[0] if arg is x else arg for arg in e.args))


# -------------------- factors --------------------


def _scaled(graph: Exprs, e: Expr) -> Iterator[Expr]:
    """1 a = a, and c (d a) = (c d) a."""
    x, factor = e.args
    if factor == 1:
        yield x
    if x.fun is scale and _ordinary(x.args[1] * factor, e.dtype):
        yield graph.of(scale, x.args[0], x.args[1] * factor)


def _negated(graph: Exprs, e: Expr) -> Iterator[Expr]:
    if e.dtype.kind == "f":
        yield graph.of(scale, e.args[0], Fraction(-1))


def _factor_of(constant: Expr, other: Expr, e: Expr) -> Fraction | None:
    """Return a constant of equal numbers as a factor; None if it, or its place, is otherwise."""
    number = uniform(constant)
    if number is None or other.dtype != e.dtype or e.dtype.kind != "f":
        return None
    factor = as_fraction(number, e.dtype)
    return factor if _ordinary(factor, e.dtype) else None


def _factors_out(graph: Exprs, e: Expr) -> Iterator[Expr]:
    """(c a)(d b) = c d (a b), and the same for quotients."""
    (a, c), (b, d) = map(_parts, e.args)
    if not (c == d == 1 or (d == 0 and e.fun is np.divide)):
        factor = c * d if e.fun is np.multiply else c / d
        if _ordinary(factor, e.dtype):
            yield graph.of(scale, _remade(graph, e, a, b), factor)


def _product(graph: Exprs, e: Expr) -> Iterator[Expr]:
    """A constant of equal numbers is a factor; a (1 / b) = a / b, but where 1 / b is there."""
    for constant, x in (e.args, e.args[::-1]):
        factor = _factor_of(constant, x, e)
        if factor is not None:
            yield graph.of(scale, graph.of(broadcast, x, e.shape), factor)
    yield from _factors_out(graph, e)
    for x, other in (e.args, e.args[::-1]):
        if _is_reciprocal(x) and x not in graph.forward and uniform(other) is None:
            yield graph.of(np.divide, other, x.args[1])
    yield from (*_lighter(graph, e), *_without_cast(graph, e))


def _quotient(graph: Exprs, e: Expr) -> Iterator[Expr]:
    """a / c is a factor; c / a is a reciprocal, and a factor."""
    a, b = e.args
    divisor, factor = _factor_of(b, a, e), _factor_of(a, b, e)
    if divisor:
        yield graph.of(scale, graph.of(broadcast, a, e.shape), 1 / divisor)
    elif factor is not None and not uniform(b) and not (factor == 1 and not a.shape):
        reciprocal = graph.of(np.divide, graph.constant(1.0), b)
        yield graph.of(scale, graph.of(broadcast, reciprocal, e.shape), factor)
    yield from (*_factors_out(graph, e), *_lighter(graph, e), *_without_cast(graph, e))


def _power(graph: Exprs, e: Expr) -> Iterator[Expr]:
    """x ** 1 = x, and x ** -0.5 = 1 / √x where the root is known."""
    x, number = e.args[0], uniform(e.args[1])
    root = graph.known(np.sqrt, x)
    if number == 1.0:
        yield x
    if number == -0.5 and root is not None:
        yield graph.of(np.divide, graph.constant(1.0), root)
    yield from _lighter(graph, e)


# -------------------- sums --------------------


def _plus(graph: Exprs, e: Expr) -> Iterator[Expr]:
    """a + 0 = a, c a ± c b = c (a ± b), c a + (-d b) = c a - d b, and (-c a) + d b = d b - c a."""
    for x, other in (e.args, e.args[::-1]):
        if uniform(x) == 0.0 and (e.fun is np.add or x is e.args[1]):
            yield graph.of(broadcast, other, e.shape)
    (a, c), (b, d) = map(_parts, e.args)
    if e.fun is np.subtract:
        d = -d
    if c < 0 < d:
        (a, c), (b, d) = (b, d), (a, c)
    fun = np.add if c == d else np.subtract
    if abs(c) != abs(d) and d < 0 < c:
        a, b, c, d = graph.of(scale, a, c), graph.of(scale, b, -d), Fraction(1), Fraction(-1)
    if abs(c) == abs(d) and (fun, a, b) != (e.fun, *e.args):
        yield graph.of(scale, graph.make(fun, (a, b), e.shape, e.dtype), c)
    yield from (*_lighter(graph, e), *_without_cast(graph, e))


def _sum(graph: Exprs, e: Expr) -> Iterator[Expr]:
    """A sum over axes of length 1 is a reshape; a sign passes through, which keeps the rounding."""
    x, factor = _parts(e.args[0])
    if e.is_plain_reduction():
        if prod(x.shape) == prod(e.shape):
            yield graph.of(reshape, e.args[0], e.shape)
        if factor == -1:
            yield graph.of(scale, _remade(graph, e, x), factor)


def _choice(graph: Exprs, e: Expr) -> Iterator[Expr]:
    """In where(c, x, zeros) the zeros need not be an array."""
    for i, k in ((1, 2), (2, 1)) if len(e.args) == 3 else ():
        x, other, number = e.args[i], e.args[k], uniform(e.args[i])
        if number is not None and x.shape and isinstance(other, Expr) and other.dtype == e.dtype:
            shapes = [arg.shape for arg in (e.args[0], other) if isinstance(arg, Expr)]
            if np.broadcast_shapes(*shapes) == e.shape:
                yield _remade(graph, e, *e.args[:i], graph.constant(number), *e.args[i + 1 :])


RULES: dict[Any, Rule] = {
    scale: _scaled,
    np.negative: _negated,
    np.multiply: _product,
    np.divide: _quotient,
    **dict.fromkeys((np.add, np.subtract), _plus),
    **dict.fromkeys((reshape, broadcast), _moved),
    astype: itself,
    transpose: _transposed,
    np.power: _power,
    np.sum: _sum,
    np.where: _choice,
    **dict.fromkeys((np.maximum, np.minimum), _lighter),
}
