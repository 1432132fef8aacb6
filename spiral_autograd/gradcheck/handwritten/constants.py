"""Code without one of its small constants, such as the 1e-7 inside a logarithm."""

from __future__ import annotations

from collections.abc import Iterator
from types import FunctionType
from typing import Any


def without_small_constants(function: Any, depth: int = 2) -> Iterator[tuple[float, Any]]:
    """Yield each small constant of a function or its helpers, and the function with zero for it."""
    code, names = function.__code__, function.__globals__

    def rebuilt(code: Any, names: dict[str, Any]) -> Any:
        defaults, closure = function.__defaults__, function.__closure__
        return FunctionType(code, names, function.__name__, defaults, closure)

    for constant in code.co_consts:
        if isinstance(constant, float) and 0 < abs(constant) <= 1e-2:
            others = tuple(0.0 if c is constant else c for c in code.co_consts)
            yield constant, rebuilt(code.replace(co_consts=others), names)
    for name in code.co_names:
        helper = names.get(name)
        if depth and isinstance(helper, FunctionType) and helper is not function:
            for constant, other in without_small_constants(helper, depth - 1):
                yield constant, rebuilt(code, {**names, name: other})
