"""Does a recording hold for other values? Both guards raise a refusal where it does not."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import autograd
import numpy as np

from ..pytree import Pytree, leaves, named_leaves
from ..recording import Call, Recording, name_of
from ..validation import Array
from .examples import Example
from .expressions import Expr, static_key
from .refusal import DerivationError, refused, silence
from .simplify import Simplified


def require_same(first: tuple[Recording, Simplified], second: tuple[Recording, Simplified]) -> None:
    """Raise unless both recordings are the same program with the same constants."""
    if list(_normal_form(first[1])) != list(_normal_form(second[1])):
        raise DerivationError(
            "a second recording, on other parameters and resampled data, is another program: "
            + _difference(first[0], second[0])
        )


def _normal_form(simple: Simplified) -> Iterator[Any]:
    """Yield each call with its arguments by number, then the results."""
    number: dict[Expr, int] = {}
    for e in simple.order():
        args = tuple(number[a] if isinstance(a, Expr) else static_key(a) for a in e.args)
        number[e] = len(number)
        value = static_key(e.value) if e.fun is None else None
        yield e.fun, args, static_key(tuple(e.kwargs)), e.shape, e.dtype, value
    for result in (simple.loss, *simple.grads):
        yield number[result]


def _difference(first: Recording, second: Recording) -> str:
    """Return what the first call is that differs, and where it stands."""
    for ours, theirs in zip(first.calls, second.calls, strict=False):
        source = (ours.gradient_of or ours).source
        where = f", in {source[0]}, line {source[1]}" if source else ""
        if ours.fun is not theirs.fun:
            names = f"{name_of(theirs.fun)} in place of {name_of(ours.fun)}"
            return f"{names} (a branch on a value: use np.where, or pass it as data){where}"
        if np.shape(ours.value) != np.shape(theirs.value):
            shapes = f"{np.shape(theirs.value)} in place of {np.shape(ours.value)}"
            return f"{name_of(ours.fun)} returns the shape {shapes}{where}"
        if _constants(ours) != _constants(theirs):
            return (
                f"a constant of {name_of(ours.fun)} differs (a random number, a counter, or a "
                f"value that escaped the trace: pass it as data){where}"
            )
    ours_count, theirs_count = len(first.calls), len(second.calls)
    if ours_count != theirs_count:
        return f"{theirs_count} calls in place of {ours_count} (a loop or a branch on a value)"
    return "its calls take other values as arguments, or its results are others"


def _constants(call: Call) -> list[Any]:
    keys = [None if isinstance(arg, Call) else static_key(arg) for arg in call.args]
    return [*keys, static_key(call.kwargs)]


def by_autograd(
    loss: Callable[..., Any], params: Pytree, data: tuple[Pytree, ...], *, what: str
) -> Any:
    """Return what autograd makes of a loss, or raise a refusal."""
    with refused(what), silence():
        return autograd.value_and_grad(loss)(params, *data)


def agree_with_autograd(
    functions: Sequence[Callable[..., Any]], example: Example, expected: Any, *, far: bool
) -> bool:
    """Raise unless the programs agree with autograd on an example; tell if all is finite there."""
    params, data = example
    with refused("on redrawn inputs, its program raised "), silence():
        results = [function(params, *data) for function in functions]
    scale = max(_largest(leaf) for leaf in leaves(expected[1]))
    given = [leaf for leaf in map(np.asarray, leaves([params, *data])) if leaf.dtype.kind == "f"]
    precision = max(np.finfo(leaf.dtype).eps for leaf in given)
    if far:  # where everything is saturated, a gradient may be what rounding left of larger terms
        scale = max(scale, 1e3 * np.sqrt(precision) * max(map(_largest, given)))
        precision = 1e-3 * np.sqrt(precision)
    for got in results:
        for (path, wanted), leaf in zip(named_leaves("", expected), leaves(got), strict=True):
            if not _agree(np.asarray(wanted), np.asarray(leaf), scale, precision):
                name = "the loss" if path == "[0]" else f"the gradient{path.removeprefix('[1]')}"
                raise DerivationError(
                    f"{name} differs from autograd's on redrawn inputs: the loss depends on "
                    "values in a way that a recording cannot hold; what it takes out of the trace "
                    "must be passed as data"
                )
    return all_finite(expected)


def all_finite(tree: Pytree) -> bool:
    """Tell whether all leaves of a pytree are finite."""
    return all(np.isfinite(leaf).all() for leaf in leaves(tree))


def _largest(array: Any) -> float:
    return float(np.max(np.abs(array), where=np.isfinite(array), initial=0.0))


def _agree(expected: Array, got: Array, scale: float, precision: float) -> bool:
    """Compare, where a gradient that cancels to nothing leaves the rounding of the larger ones."""
    if expected.shape != got.shape or expected.dtype != got.dtype:
        return False
    tolerance = 1e3 * precision * max(scale, _largest(expected))
    return np.allclose(got, expected, rtol=0, atol=tolerance, equal_nan=True)
