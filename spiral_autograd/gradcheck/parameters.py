"""The parameters that an object keeps, and where it keeps their gradients."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..validation import Array
from .handwritten import MISSING, called, gradient_key, is_float_array

_RESETS = (
    "zero_grad zero_grads zero_gradients clear_grad clear_grads cleargrads clear_gradients "
    "flush_gradients flush_grads reset_grad reset_grads reset_gradients"
).split()


def reset_of(layer: Any) -> Callable[[], Any] | None:
    """Return the method by which a layer that accumulates its gradients is reset."""
    for name in _RESETS:
        method = getattr(layer, name, None)
        if callable(method):
            return method
    return None


@dataclass(frozen=True)
class Parameter:
    """A parameter of a layer: its name, its array, and how to read its gradient."""

    name: str
    value: Array
    gradient: Callable[[], Any]


def _entries(holder: Any) -> Any:
    return holder() if callable(holder) else holder


def find_parameters(layer: Any) -> list[Parameter]:
    """Return the parameters that a layer keeps, in the first convention that it follows."""
    for values, grads in (
        ("params", "grads"),
        ("parameters", "gradients"),
        ("params", "gradients"),
        ("parameters", "grads"),
        ("weights", "gradients"),
    ):
        if not hasattr(layer, values) or not hasattr(layer, grads):
            continue
        held = called(
            f"{type(layer).__name__}.{values}", lambda v=values: _entries(getattr(layer, v))
        )
        if isinstance(held, dict) and held:
            return _from_dicts(layer, held, grads)
        if isinstance(held, list | tuple) and held:
            return _from_lists(layer, held, grads)
    return _from_attributes(layer)


def _from_dicts(layer: Any, held: dict[Any, Any], grads: str) -> list[Parameter]:
    def reader(name: str) -> Callable[[], Any]:
        def gradient() -> Any:
            found = _entries(getattr(layer, grads))
            key = gradient_key(found, name) if isinstance(found, dict) else None
            return MISSING if key is None else found[key]

        return gradient

    return [Parameter(str(k), v, reader(k)) for k, v in held.items() if is_float_array(v)]


def _from_lists(layer: Any, held: Sequence[Any], grads: str) -> list[Parameter]:
    attributes = {
        id(value): name
        for name, value in reversed(list(getattr(layer, "__dict__", {}).items()))
        if isinstance(value, np.ndarray)
    }

    def reader(i: int) -> Callable[[], Any]:
        def gradient() -> Any:
            found = _entries(getattr(layer, grads))
            return found[i] if found is not None and i < len(found) else None

        return gradient

    return [
        Parameter(attributes.get(id(value), f"params[{i}]"), value, reader(i))
        for i, value in enumerate(held)
        if is_float_array(value)
    ]


def _from_attributes(layer: Any) -> list[Parameter]:
    attributes = getattr(layer, "__dict__", {})
    names = [name for name, value in attributes.items() if is_float_array(value)]

    def reader(name: str) -> Callable[[], Any]:
        def gradient() -> Any:
            key = gradient_key({k: 1 for k in layer.__dict__ if k != name}, name)
            return MISSING if key is None else getattr(layer, key)

        return gradient

    return [Parameter(name, attributes[name], reader(name)) for name in names]
