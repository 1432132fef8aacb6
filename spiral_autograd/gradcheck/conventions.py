"""How people name things: the passes of a layer, what it keeps, and the gradients of that."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable
from typing import Any

FORWARD = (
    "forward __call__ fprop forward_pass forward_prop forward_propagation forward_propagate "
    "feed_forward feedforward"
).split()
BACKWARD = (
    "backward backprop bprop backward_pass backward_prop back_prop backward_propagation "
    "back_propagation backpropagate backward_propagate"
).split()

# Where a pass that returns nothing leaves what it has computed.
OUTPUTS = "output outputs out".split()
INPUT_GRADIENTS = (
    "dinputs dinput d_inputs d_input dx dX d_x grad_input grad_inputs input_grad input_gradient"
).split()

# A list or dict of parameters, or a method that returns one, and that of their gradients.
CONTAINERS = (
    ("params", "grads"),
    ("parameters", "gradients"),
    ("params", "gradients"),
    ("parameters", "grads"),
    ("weights", "gradients"),
    ("weights", "grads"),
    ("params", "dparams"),
    ("_params", "_grads"),
    ("get_params", "get_grads"),
    ("get_parameters", "get_gradients"),
)

# An object that is a parameter: its array, and the gradient of that.
HOLDERS = (
    ("data", "grad"),
    ("value", "grad"),
    ("val", "grad"),
    ("array", "grad"),
    ("data", "gradient"),
    ("value", "gradient"),
)

RESETS = (
    "zero_grad zero_grads zero_gradients clear_grad clear_grads cleargrad cleargrads "
    "clear_gradients flush_gradients flush_grads reset_grad reset_grads reset_gradients"
).split()

# Kept among the parameters, and without a gradient by right.
STATISTICS = ("running", "moving")

_GRADIENT = (
    "{} d{} d_{} grad_{} {}_grad g{} grad{} {}grad gradient_{} {}_gradient "
    "dL_d{} dLd{} dl_d{} nabla_{} delta_{}"
).split()
_SYNONYMS = {"weights": "W", "weight": "W", "biases": "b", "bias": "b"}


def gradient_key(names: Iterable[Any], name: str) -> Any:
    """Return which of `names` is that of the gradient of `name`; None where none is.

    Examples
    --------
    >>> gradient_key(["dW", "db"], "b"), gradient_key(["_grad_w"], "_w"), gradient_key(["dW"], "b")
    ('db', '_grad_w', None)
    """
    there = list(names)
    bare = name.lstrip("_")
    stems = [name, bare, *([_SYNONYMS[bare]] if bare in _SYNONYMS else [])]
    wanted = [form.format(stem) for stem in stems for form in _GRADIENT]
    for key in wanted:
        if key in there:
            return key
    folded = {str(key).lstrip("_").lower(): key for key in reversed(there)}
    return next((folded[key.lower()] for key in wanted if key.lower() in folded), None)


def read(item: Any, name: str) -> Any:
    """Return an attribute; None where there is none, or where reading it raises.

    A property may raise before the layer is built, or before there are gradients.
    """
    try:
        return getattr(item, name, None)
    except Exception:
        return None


def has_attribute(item: Any, name: str) -> bool:
    """Tell whether an object has an attribute, even one that raises now."""
    nowhere = object()
    return (
        inspect.getattr_static(item, name, nowhere) is not nowhere or read(item, name) is not None
    )


def method_name(item: Any, names: Iterable[str]) -> str | None:
    """Return the first of `names` that an object has as a method."""
    return next((name for name in names if callable(read(item, name))), None)


def reset_of(item: Any) -> Callable[[], Any] | None:
    """Return the method by which an object that accumulates its gradients is reset."""
    name = method_name(item, RESETS)
    return None if name is None else getattr(item, name)


def accepts(function: Any, count: int) -> bool:
    """Tell whether a function can be called with so many positional arguments."""
    try:
        inspect.signature(function).bind(*range(count))
    except (TypeError, ValueError):
        return False
    return True


def positional_names(function: Any, count: int) -> list[str]:
    """Return the names of a function's first arguments.

    Examples
    --------
    >>> positional_names(lambda x, *more: x, 3)
    ['x', 'more[0]', 'more[1]']
    """
    try:
        parameters = list(inspect.signature(function).parameters.values())
    except (TypeError, ValueError):
        parameters = []
    names = [p.name for p in parameters if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
    more = next((p.name for p in parameters if p.kind == p.VAR_POSITIONAL), "input")
    first = len(names) if more != "input" else 0
    return [names[i] if i < len(names) else f"{more}[{i - first}]" for i in range(count)]
