"""SciPy's functions that are NumPy expressions: recorded as such, they are quicker and readable.

Only their values: the gradients are autograd's own rules, which are NumPy already. What a body does
not take, such as the weights of a logsumexp, stays SciPy's.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Callable
from typing import Any

import autograd.numpy as anp

_LOG_2_PI = math.log(2 * math.pi)


def _logsumexp(x: Any, axis: Any = None, *, keepdims: bool = False) -> Any:
    largest = anp.max(x, axis=axis, keepdims=axis is not None or keepdims)
    largest = anp.where(anp.isfinite(largest), largest, 0.0)
    log_sum_exp = anp.log(anp.sum(anp.exp(x - largest), axis=axis, keepdims=keepdims))
    return log_sum_exp + anp.reshape(largest, anp.shape(log_sum_exp))


def _log_normal(x: Any, loc: Any = 0.0, scale: Any = 1.0) -> Any:
    return -0.5 * ((x - loc) / scale) ** 2 - anp.log(scale) - _LOG_2_PI / 2


def _log_determinant(cov: Any) -> Any:
    return 2 * anp.sum(anp.log(anp.diag(anp.linalg.cholesky(cov))))


def _log_normals(x: Any, mean: Any, cov: Any) -> Any:
    size, difference = anp.shape(cov)[0], x - mean
    if anp.shape(mean) != (size,) or anp.shape(cov) != (size, size) or anp.ndim(x) > 2:
        raise NotImplementedError
    squares = anp.sum(difference.T * anp.linalg.solve(cov, difference.T), axis=0)
    return -0.5 * (squares + _log_determinant(cov) + size * _LOG_2_PI)


def _entropy(mean: Any, cov: Any) -> Any:
    return 0.5 * (_log_determinant(cov) + anp.shape(cov)[0] * (_LOG_2_PI + 1))


def _exponential(log: Callable[..., Any]) -> Callable[..., Any]:
    return lambda *args, **options: anp.exp(log(*args, **options))


_BODIES: dict[str, dict[str, Callable[..., Any]]] = {
    "special": {"logsumexp": _logsumexp},
    "stats.norm": {"logpdf": _log_normal, "pdf": _exponential(_log_normal)},
    "stats.multivariate_normal": {
        "logpdf": _log_normals,
        "pdf": _exponential(_log_normals),
        "entropy": _entropy,
    },
}


def bodies() -> dict[Any, Callable[..., Any]]:
    """Return the body of each function that autograd.scipy has, of the modules that are loaded."""
    found = {}
    for name, rows in _BODIES.items():
        module = sys.modules.get(f"autograd.scipy.{name}")
        found.update({getattr(module, fun): body for fun, body in rows.items() if module})
    return found
