"""Which methods of an object are its forward and its backward pass."""

from __future__ import annotations

from collections.abc import Sequence
from types import FunctionType
from typing import Any

from ..guard import CheckError
from .conventions import (
    BACKWARD,
    DERIVATIVES,
    FORWARD,
    VALUES,
    method_name,
    optional_names,
    read,
)

# A switch to the derivative, as in sigmoid(x, deriv=True).
FLAGS = "deriv derivative derive derivate prime grad gradient backward back diff".split()


def methods_of(layer: object) -> tuple[str, str]:
    """Return the names of a layer's forward and backward methods, or raise."""
    if isinstance(layer, type):
        raise CheckError(
            f"layer must be an object, got the class {layer.__name__} itself: give "
            f"{layer.__name__}(...)"
        )
    if isinstance(layer, FunctionType):
        use = with_flag(layer, layer.__name__) or "check_backward or check_gradient"
        raise CheckError(
            f"layer must be an object with forward and backward, got the function "
            f"{layer.__name__}; for functions use {use}"
        )
    forward = _method_of(layer, "forward", [*FORWARD, *VALUES])
    return forward, _method_of(layer, "backward", [*BACKWARD, *DERIVATIVES], forward)


def _method_of(layer: object, which: str, names: Sequence[str], forward: str = "") -> str:
    name = method_name(layer, names)
    if name is not None:
        return name
    own_name = "layer" if forward == "__call__" else f"layer.{forward}"
    use = with_flag(getattr(layer, forward), own_name) if forward else ""
    if use:
        raise CheckError(
            f"{type(layer).__name__} has no backward, but {forward} gives the derivative too: use "
            f"{use}"
        )
    own = [n for n in dir(layer) if callable(read(layer, n)) and n[0] != "_"]
    argument = "x" if which == "forward" else "dout"
    raise CheckError(
        f"layer must have the methods forward and backward, but {type(layer).__name__} has no "
        f"{which} (nor {', '.join(names[1:6])}, …); its methods are: {', '.join(own) or 'none'}. "
        f"A subclass may name it: def {which}(self, {argument}): return self.…({argument})"
    )


def with_flag(function: Any, name: str) -> str:
    """Return how to check a function that an argument switches to its derivative; else nothing."""
    flag = next((flag for flag in optional_names(function) if flag in FLAGS), "")
    return flag and f"check_derivative({name}, lambda x: {name}(x, {flag}=True), x)"
