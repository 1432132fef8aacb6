"""The two passes of an object: which methods they are, and what they return or leave in it."""

from __future__ import annotations

from collections.abc import Sequence
from types import FunctionType
from typing import Any

from .conventions import BACKWARD, FORWARD, INPUT_GRADIENTS, OUTPUTS, method_name
from .parameters import attributes_of
from .subject import CheckError


def methods_of(layer: Any) -> tuple[str, str]:
    """Return the names of a layer's forward and backward methods, or raise."""
    if isinstance(layer, type):
        raise CheckError(
            f"layer must be an object, got the class {layer.__name__} itself: give "
            f"{layer.__name__}(...)"
        )
    if isinstance(layer, FunctionType):
        raise CheckError(
            f"layer must be an object with forward and backward, got the function "
            f"{layer.__name__}; for functions use check_backward or check_gradient"
        )
    found = [method_name(layer, names) for names in (FORWARD, BACKWARD)]
    for which, name, names in zip(("forward", "backward"), found, (FORWARD, BACKWARD), strict=True):
        if name is None:
            own = [n for n in dir(layer) if callable(getattr(layer, n, None)) and n[0] != "_"]
            raise CheckError(
                f"layer must have the methods forward and backward, but {type(layer).__name__} has "
                f"no {which} (nor {', '.join(names[1:])}); its methods are: "
                f"{', '.join(own) or 'none'}"
            )
    return str(found[0]), str(found[1])


def output_of(layer: Any, result: Any) -> Any:
    """Return the output of a forward pass: what it returned, else what it left in the layer."""
    return _returned_or_left(layer, result, OUTPUTS)


def input_gradient_of(layer: Any, result: Any) -> Any:
    """Return the input's gradient: what backward returned, else what it left in the layer."""
    return _returned_or_left(layer, result, INPUT_GRADIENTS)


def _returned_or_left(layer: Any, result: Any, names: Sequence[str]) -> Any:
    if result is not None:
        return result
    attributes = attributes_of(layer)
    return next((attributes[name] for name in names if name in attributes), None)
