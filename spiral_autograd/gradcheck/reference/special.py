"""Derivatives that autograd lacks: of NumPy's, SciPy's and Python's own functions of numbers."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from math import log, pi, sqrt
from typing import Any

import autograd.numpy as anp
import numpy as np
from autograd.extend import defvjp, primitive
from autograd.numpy.numpy_vjps import unbroadcast_f
from autograd.tracer import isbox

from ...validation import Array

Axis = int | tuple[int, ...] | None
Derivative = Callable[..., Any]

# For each argument the derivative as a function of the result and the arguments; None where it is
# not known.
_DERIVATIVES: dict[str, tuple[Derivative | None, ...]] = {
    "cbrt": (lambda y, x: 1 / (3 * y**2),),
    "exp2": (lambda y, x: log(2) * y,),
    "exp10": (lambda y, x: log(10) * y,),
    "expm1": (lambda y, x: anp.exp(x),),
    "log1p": (lambda y, x: 1 / (1 + x),),
    "hypot": (lambda y, a, b: a / y, lambda y, a, b: b / y),
    "erf": (lambda y, x: 2 / sqrt(pi) * anp.exp(-(x**2)),),
    "erfc": (lambda y, x: -2 / sqrt(pi) * anp.exp(-(x**2)),),
    "ndtr": (lambda y, x: anp.exp(-(x**2) / 2) / sqrt(2 * pi),),
    "log_ndtr": (lambda y, x: anp.exp(-(x**2) / 2 - y) / sqrt(2 * pi),),
    "expit": (lambda y, x: y * (1 - y),),
    "logit": (lambda y, x: 1 / (x * (1 - x)),),
    "log_expit": (lambda y, x: 1 - anp.exp(y),),
    "softplus": (lambda y, x: 1 - anp.exp(-y),),
    "xlogy": (lambda y, a, b: anp.log(b), lambda y, a, b: a / b),
    "xlog1py": (lambda y, a, b: anp.log1p(b), lambda y, a, b: a / (1 + b)),
    "entr": (lambda y, x: -anp.log(x) - 1,),
    "rel_entr": (lambda y, a, b: anp.log(a / b) + 1, lambda y, a, b: -a / b),
    "kl_div": (lambda y, a, b: anp.log(a / b), lambda y, a, b: 1 - a / b),
    "huber": (None, lambda y, d, x: anp.clip(x, -d, d)),
    "pseudo_huber": (None, lambda y, d, x: x / anp.sqrt(1 + (x / d) ** 2)),
}


@lru_cache(maxsize=256)
def differentiable(function: Any) -> Derivative | None:
    """Return a function of numbers as a primitive with derivatives; None where none are known."""
    # autograd keeps its own primitives by the function that they run: this one runs another, so
    # that who uses autograd himself meets nothing of it.
    name = function.__name__
    if name not in _DERIVATIVES:
        return None

    def run(*args: object) -> object:
        return function(*args)

    run.__name__ = name
    known = [(i, each) for i, each in enumerate(_DERIVATIVES[name]) if each is not None]
    made = primitive(run)
    defvjp(made, *(_rule(i, each) for i, each in known), argnums=[i for i, _ in known])
    return made


def _rule(i: int, derivative: Derivative) -> Derivative:
    def of(ans: object, *args: object) -> object:
        return unbroadcast_f(args[i], lambda g: g * derivative(ans, *args))

    return of


def plain(value: Any) -> Any:
    """Return what a box stands for, without any box."""
    while isbox(value):
        value = value._value
    return value


# -------------------- of an axis --------------------


def logsumexp(x: Array, axis: Axis = None, *, keepdims: bool = False) -> object:
    """Return log Σ exp(x), traced step by step as the reader might have written it."""
    most = _most(x, axis)
    total = anp.log(anp.sum(anp.exp(x - most), axis=axis, keepdims=True)) + most
    shape = np.sum(np.empty(np.shape(most)), axis=axis, keepdims=keepdims).shape
    return anp.reshape(total, shape)


def softmax(x: Array, axis: Axis = None) -> object:
    """Return exp(x) / Σ exp(x)."""
    e = anp.exp(x - _most(x, axis))
    return e / anp.sum(e, axis=axis, keepdims=True)


def log_softmax(x: Array, axis: Axis = None) -> object:
    """Return x - log Σ exp(x)."""
    return anp.subtract(x, logsumexp(x, axis, keepdims=True))


def _most(x: Array, axis: Axis) -> Array:
    """Return the largest entries, as constants: nothing of what depends on them stays."""
    return np.asarray(np.max(plain(x), axis=axis, keepdims=True))
