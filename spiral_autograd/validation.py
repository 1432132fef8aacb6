"""The door: bad input raises here, with the argument's name and how to mend it."""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping
from functools import wraps
from inspect import signature
from typing import Any, ParamSpec, TypeAlias, TypeVar

import numpy as np
from numpy.typing import NDArray

Array: TypeAlias = NDArray[Any]
Random: TypeAlias = int | np.random.RandomState | np.random.Generator
Stream: TypeAlias = np.random.RandomState | np.random.Generator
Shape: TypeAlias = tuple[int, ...]
Params: TypeAlias = dict[str, Array]
_P = ParamSpec("_P")
_R = TypeVar("_R")

_USUAL = {"seed": "rng", "lr": "optimizer", "learning_rate": "optimizer", "epochs": "max_epoch"}


def hinting(function: Callable[_P, _R]) -> Callable[_P, _R]:
    """Let a function name the options that it has to whoever gives it one that it has not."""
    known = signature(function).parameters

    @wraps(function)
    def hinted(*args: _P.args, **kwargs: _P.kwargs) -> _R:
        for name in kwargs.keys() - known.keys():
            use = f": use {_USUAL[name]}=" if _USUAL.get(name) in known else ""
            options = ", ".join(known)
            raise TypeError(f"{function.__name__} has no {name}={use} (it takes {options})")
        return function(*args, **kwargs)

    return hinted


def _index(value: Any) -> int:
    """Return `value` as an int; unlike to `operator.index`, booleans are no numbers."""
    if isinstance(value, bool | np.bool_):
        raise TypeError
    return operator.index(value)


def positive_integer(name: str, value: Any) -> int:
    """Return `value` as an int of at least 1, or raise."""
    try:
        integer = _index(value)
    except TypeError:
        raise TypeError(f"{name} must be a whole number, got {value!r}") from None
    if integer < 1:
        raise ValueError(f"{name} must be a whole number of at least 1, got {value!r}")
    return integer


def number(
    name: str, value: Any, *, above: float = -np.inf, below: float = np.inf, or_equal: bool = False
) -> float:
    """Return `value` as a finite float with above < value < below, or raise.

    With `or_equal`, `above` itself is allowed. Text and booleans are no numbers.
    """
    try:
        if isinstance(value, str | bytes | bool | np.bool_):
            raise TypeError
        real = float(value)
    except (TypeError, ValueError):
        raise TypeError(f"{name} must be a real number, got {value!r}") from None
    large_enough = real >= above if or_equal else real > above
    if not (np.isfinite(real) and large_enough and real < below):
        lower = f"at least {above:g}" if or_equal else f"above {above:g}"
        upper = f" and below {below:g}" if below < np.inf else ""
        raise ValueError(f"{name} must be a finite number {lower}{upper}, got {value!r}")
    return real


def random_stream(rng: Any) -> Stream:
    """Return the random stream that `rng` names: a seed starts a legacy `RandomState`."""
    if isinstance(rng, np.random.RandomState | np.random.Generator):
        return rng
    try:
        seed = _index(rng)
    except TypeError:
        raise TypeError(
            "rng must be an int seed, a numpy.random.RandomState or a numpy.random.Generator, "
            f"got {rng!r}"
        ) from None
    if not 0 <= seed < 2**32:
        raise ValueError(f"rng must be a seed from 0 to 2**32 - 1, got {seed}")
    return np.random.RandomState(seed)


def finite_array(name: str, value: Any) -> Array:
    """Return `value` as an array of finite real numbers with at least one entry, or raise."""
    if isinstance(value, Mapping):
        kind = type(value).__name__
        raise TypeError(f"{name} must be an array, got a {kind}: parameters stand before the data")
    try:
        array = np.asarray(value)
    except ValueError as error:
        raise ValueError(f"{name} must be an array: {error}") from None
    if array.dtype.kind not in "fiub":
        raise TypeError(f"{name} must hold real numbers, got dtype {array.dtype}")
    if array.size == 0:
        raise ValueError(f"{name} is empty: its shape is {array.shape}")
    require_finite(name, array)
    return array


def require_finite(name: str, array: Array) -> None:
    """Raise unless each entry of an array of numbers is finite."""
    finite = np.isfinite(array)
    if not finite.all():
        outside = np.argwhere(~finite)
        index = tuple(outside[0].tolist())
        raise ValueError(
            f"{name} must be finite: {len(outside)} of its {array.size} entries are not, "
            f"the first, {array[index]}, at index {index}"
        )


def _finite_or_traced(name: str, value: Any) -> Any:
    """Return a finite array, or the value of a tracer as it is: only its shape can be known."""
    if hasattr(value, "shape") and not isinstance(value, np.ndarray):
        return value
    return finite_array(name, value)


def examples(name: str, value: Any) -> Any:
    """Return `value` as a finite (examples, features) array or a tracer's value, or raise."""
    value = _finite_or_traced(name, value)
    if len(value.shape) != 2:
        raise ValueError(
            f"{name} must have the shape (examples, features), got {value.shape}; "
            "a single example x is x[None, :]"
        )
    return value


def float_scores(name: str, value: Any, *, axes: int = 0) -> Any:
    """Return `value` as a floating-point array with at least so many axes and one entry, or raise.

    Lists and numbers are converted. A value that a tracer carries is passed through.
    """
    if not hasattr(value, "dtype"):
        value = np.asarray(value, dtype=float)
    if value.dtype.kind not in "fc":
        raise TypeError(
            f"{name} must hold floating-point numbers, got dtype {value.dtype}; "
            f"use {name}.astype(float)"
        )
    if value.ndim < axes or value.size == 0:
        what = f"at least {axes} axes" if value.ndim < axes else "at least one entry"
        raise ValueError(f"{name} must have {what}, got the shape {value.shape}")
    return value


def targets(t: Any, scores_shape: Shape) -> Any:
    """Return `t` as the one-hot or index array for scores (examples, classes), or raise."""
    if len(scores_shape) != 2:
        raise ValueError(f"the scores must have the shape (examples, classes), got {scores_shape}")
    samples, classes = scores_shape
    t = _finite_or_traced("t", t)
    if t.shape not in ((samples, classes), (samples,)):
        raise ValueError(
            f"t must be one-hot with the shape ({samples}, {classes}) or class indices with the "
            f"shape ({samples},), got {t.shape}"
        )
    if isinstance(t, np.ndarray):
        (_require_indices if t.ndim == 1 else _require_one_hot)(t, classes)
    return t


def _require_one_hot(t: Array, classes: int) -> None:
    right = ((t != 0).sum(axis=1) == 1) & (t.max(axis=1) == 1)
    if not right.all():
        row = int(np.argmin(right))
        raise ValueError(f"t must be one-hot, a single 1 in each row, got row {row}: {t[row]}")


def _require_indices(t: Array, classes: int) -> None:
    if t.dtype.kind not in "iu":
        raise TypeError(
            f"t must hold class indices as integers, got dtype {t.dtype}; use t.astype(int)"
        )
    outside = (t < 0) | (t >= classes)
    if outside.any():
        place = int(np.argmax(outside))
        raise ValueError(
            f"t must hold class indices from 0 to {classes - 1}, got t[{place}] = {t[place]}"
        )


def class_indices(t: Any, samples: int, classes: int | None = None) -> tuple[Array, int]:
    """Return each example's class index, and the number of classes: as given, or as `t` has."""
    t = finite_array("t", t)
    if classes is None:
        classes = t.shape[1] if t.ndim == 2 else int(t.max()) + 1
    t = targets(t, (samples, classes))
    return (t if t.ndim == 1 else np.argmax(t, axis=1)), classes


def affine_shapes(**named: Shape) -> Shape:
    """Return the shape of x @ W + b for three named shapes (…, n), (n, m), (m,), or raise."""
    (x_name, x_shape), (W_name, W_shape), (b_name, b_shape) = named.items()
    if len(W_shape) != 2:
        raise ValueError(f"{W_name} must have the shape (inputs, outputs), got {W_shape}")
    if not x_shape or x_shape[-1] != W_shape[0]:
        raise ValueError(
            f"{x_name} and {W_name} do not fit: the last axis of {x_name} {x_shape} must be as "
            f"long as the first axis of {W_name} {W_shape}"
        )
    if b_shape != W_shape[1:]:
        raise ValueError(
            f"{b_name} must have one entry for each column of {W_name} {W_shape}: the shape "
            f"{W_shape[1:]}, got {b_shape}"
        )
    return (*x_shape[:-1], W_shape[1])


def network_params(params: Any, x: Any) -> tuple[Any, Any, Any, Any]:
    """Return W1, b1, W2, b2 of a two-layer network that fits the inputs `x`, or raise."""
    names = ("W1", "b1", "W2", "b2")
    if not hasattr(params, "keys") or set(params.keys()) != set(names):
        got = sorted(map(str, params)) if hasattr(params, "keys") else type(params).__name__
        raise ValueError(
            f"params must be a dict with the arrays W1, b1, W2 and b2 (see init_params), got {got}"
        )
    for name in names:
        if not hasattr(params[name], "shape"):
            raise TypeError(f"params[{name!r}] must be an array, got {type(params[name]).__name__}")
    W1, b1, W2, b2 = (params[name] for name in names)
    h = affine_shapes(**{"x": x.shape, "params['W1']": W1.shape, "params['b1']": b1.shape})
    affine_shapes(**{"the hidden layer": h, "params['W2']": W2.shape, "params['b2']": b2.shape})
    return W1, b1, W2, b2
