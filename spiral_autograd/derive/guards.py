"""Does a recording hold for other values? What does not is refused, and why is said.

Other inputs than those given are made; a second recording on them must be the same program, and
the finished program must agree with autograd there.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any, TypeAlias

import autograd
import numpy as np
from autograd.tracer import trace_stack

from ..boxes import RecordingError
from ..pytree import Pytree, leaves, named_leaves, tree_map
from ..recording import Call, Recording, name_of
from ..validation import Array
from .expressions import Expr, static_key
from .simplify import Simplified

Example: TypeAlias = tuple[Pytree, tuple[Pytree, ...]]  # params, data


class DerivationError(RecordingError):
    """A loss has no program: what it computes is not the same list of calls for all values.

    Examples
    --------
    >>> from spiral_autograd import derive
    >>> try:
    ...     derive(lambda w: w if w > 0 else -w, 1.0)
    ... except DerivationError as error:
    ...     print(str(error)[:38])
    a value that depends on the parameters
    """


@contextmanager
def silence() -> Iterator[None]:
    """Let no warning out: what is computed on redrawn inputs is nobody's business."""
    with np.errstate(all="ignore"), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


@contextmanager
def refused(what: str) -> Iterator[None]:
    """Turn any error into a refusal that says what happened, and close autograd's traces."""
    top = trace_stack.top
    try:
        yield
    except DerivationError:
        raise
    except Exception as error:  # the loss is the user's, and may raise anything
        message = str(error) if isinstance(error, RecordingError) else None
        raise DerivationError(message or f"{what}{type(error).__name__}: {error}") from error
    finally:
        trace_stack.top = top


# -------------------- other inputs --------------------


def examples(params: Pytree, data: tuple[Pytree, ...], trace_ints: bool) -> Iterator[Example]:
    """Yield the inputs given; others nearby; then others at full scale and with other signs.

    A value that left the trace, or a branch on it, shows only where it comes out differently.
    """
    rng = np.random.default_rng(0)
    lengths = sorted({len(leaf) for leaf in leaves(list(data)) if np.ndim(leaf) > 0})
    rows = {n: rng.integers(n, size=n) for n in lengths}

    def mapped(of_params: Callable[[Any], Any], of_data: Callable[[Any], Any]) -> Example:
        return tree_map(of_params, params), tuple(tree_map(of_data, tree) for tree in data)

    def resampled(leaf: Any) -> Any:
        if trace_ints and type(leaf) is int:
            return leaf + step
        is_array = isinstance(leaf, np.ndarray) and leaf.ndim
        return leaf[rows[len(leaf)]] if is_array else leaf

    def nearby(leaf: Any) -> Any:
        return _like(leaf, leaf + 0.1 * _size(leaf) * rng.standard_normal(np.shape(leaf)))

    def redrawn(leaf: Any, scale: float, sign: int, whole: bool) -> Any:
        if not _is_float(leaf) or (_is_whole(leaf) and not whole):
            return resampled(leaf)
        noise = rng.standard_normal(np.shape(leaf))
        noise = sign * np.copysign(noise, leaf) if sign else noise
        return _like(leaf, scale * _size(leaf) * noise)

    yield mapped(_copied, _copied)
    step = 1
    yield mapped(nearby, resampled)
    some_whole = any(_is_float(leaf) and _is_whole(leaf) for leaf in leaves(list(data)))
    for scale, sign in ((1.0, -1), (5.0, 1), (0.2, 0)):
        step += 1
        # Whole numbers may be classes, counts or one-hot rows.
        for whole in (True, False) if some_whole else (True,):
            move = partial(redrawn, scale=scale, sign=sign)
            yield mapped(partial(move, whole=True), partial(move, whole=whole))


def _copied(leaf: object) -> Any:
    """Return a leaf of the arguments that a loss may write into."""
    return leaf.copy() if isinstance(leaf, np.ndarray) and not leaf.dtype.hasobject else leaf


def _is_float(leaf: object) -> bool:
    return isinstance(leaf, float) or getattr(getattr(leaf, "dtype", None), "kind", "") == "f"


def _is_whole(leaf: Any) -> bool:
    return bool(np.all(leaf == np.round(leaf)))


def _like(leaf: Any, values: Any) -> Any:
    """Return values in the type and dtype of a leaf."""
    if type(leaf) is float:
        return float(values)
    return np.asarray(values, dtype=np.asarray(leaf).dtype)[()]


def _size(leaf: Any) -> float:
    return np.max(np.abs(leaf), initial=0.0) or 1.0


# -------------------- the same program --------------------


def require_same(first: Simplified, second: Simplified) -> None:
    """Raise unless both recordings are the same program with the same constants."""
    if list(_normal_form(first)) != list(_normal_form(second)):
        raise DerivationError(
            "a second recording, on other parameters and resampled data, is another program: "
            + _difference(first.recording, second.recording)
        )


def _normal_form(simple: Simplified) -> Iterator[object]:
    """Yield each call with its arguments by number, then the results."""
    number: dict[Expr, int] = {}
    for e in simple.order():
        args = tuple(number[a] if isinstance(a, Expr) else static_key(a) for a in e.args)
        number[e] = len(number)
        value = static_key(e.value) if e.fun is None else None
        yield e.fun, args, static_key(e.kwargs), e.shape, e.dtype, value
    yield [number[result] for result in (simple.loss, *simple.grads)]


def _difference(first: Recording, second: Recording) -> str:
    """Return what the first call is that differs, and where it stands."""
    for ours, theirs in zip(first.calls, second.calls, strict=False):
        name, shape = name_of(ours.fun), np.shape(theirs.value)
        if ours.fun is not theirs.fun:
            what = f"{name_of(theirs.fun)} in place of {name} (a branch on a value: use np.where, "
            what += "or pass it as data)"
        elif np.shape(ours.value) != shape:
            what = f"{name} returns the shape {shape} in place of {np.shape(ours.value)}"
        elif _constants(ours) != _constants(theirs):
            what = f"a constant of {name} differs (a random number, a counter, or a value that "
            what += "escaped the trace: pass it as data)"
        else:
            continue
        source = (ours.gradient_of or ours).source
        return what + (f", in {source[0]}, line {source[1]}" if source else "")
    counts = len(second.calls), len(first.calls)
    if counts[0] != counts[1]:
        return "{} calls in place of {} (a loop or a branch on a value)".format(*counts)
    return "its calls take other values as arguments, or its results are others"


def _constants(call: Call) -> list[object]:
    keys = [None if isinstance(arg, Call) else static_key(arg) for arg in call.args]
    return [*keys, static_key(call.kwargs)]


# -------------------- the same values --------------------


def by_autograd(loss: Callable[..., Any], example: Example, *, what: str) -> Any:
    """Return what autograd makes of a loss, or raise a refusal."""
    params, data = example
    with refused(what), silence():
        return autograd.value_and_grad(loss)(params, *data)


def agree_with_autograd(
    functions: Sequence[Callable[..., Any]], example: Example, expected: Any, *, far: bool
) -> bool:
    """Raise unless the programs agree with autograd on an example; tell if all is finite there."""
    params, data = example
    with refused("on redrawn inputs, its program raised "), silence():
        results = [function(params, *data) for function in functions]
    scale = max(map(_largest, leaves(expected[1])))
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
    """Tell whether all floats among the leaves of a pytree are finite."""
    floats = [leaf for leaf in map(np.asarray, leaves(tree)) if leaf.dtype.kind == "f"]
    return all(np.isfinite(leaf).all() for leaf in floats)


def _largest(array: Any) -> float:
    return float(np.max(np.abs(array), where=np.isfinite(array), initial=0.0))


def _agree(expected: Array, got: Array, scale: float, precision: float) -> bool:
    """Compare, where a gradient that cancels to nothing leaves the rounding of the larger ones."""
    if expected.shape != got.shape or expected.dtype != got.dtype:
        return False
    tolerance = 1e3 * precision * max(scale, _largest(expected))
    return np.allclose(got, expected, rtol=0, atol=tolerance, equal_nan=True)
