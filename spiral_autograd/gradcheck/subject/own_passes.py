"""What a network does and holds itself: its own methods, and the gradients that it lists."""

from __future__ import annotations

import ast
import inspect
from collections.abc import Callable, Iterator, Sequence
from itertools import product
from typing import Any, NamedTuple

import numpy as np

from ...pytree import Sharing
from ..source import Place, text_of
from .conventions import (
    BACKWARD,
    CONTAINERS,
    accepts,
    attributes_of,
    gradient_key,
    is_statistic,
    means_upstream,
    method_name,
    positional_names,
    read,
)
from .conventions_of_networks import (
    GRADIENTS,
    LOSSES,
    SCORES,
    TRAINING,
    means_scores,
    means_targets,
)
from .held import entries
from .parameters import Parameter, find_parameters
from .subject import MISSING, is_array

# -------------------- its methods --------------------


MethodCall = tuple[str, tuple[Any, ...]]  # a method's name, and its arguments


class Way(NamedTuple):
    """A way to have a network's gradients: methods of its own, called one after another."""

    calls: tuple[MethodCall, ...]
    is_sure: bool  # whether the last can only be meant to be called so

    @property
    def method(self) -> str:
        """The method that gives the gradients."""
        return self.calls[-1][0]

    def run(self, network: object) -> Any:
        """Call the methods; return what the last one returns."""
        *earlier, (name, arguments) = self.calls
        for before, data in earlier:
            run_method(network, before, *data)
        return run_method(network, name, *(map(own, arguments) if earlier else arguments))


def own(value: object) -> Any:
    """Return an array that the user's code cannot write into."""
    return np.array(value) if isinstance(value, np.ndarray) else value


def run_method(network: object, name: str, *data: object) -> object:
    """Call a network's own method, in training where it can be told so."""
    method = getattr(network, name)
    try:
        known = list(inspect.signature(method).parameters)
    except (TypeError, ValueError):
        known = []
    taken = positional_names(method, len(data))
    flags = [flag for flag in TRAINING if flag in known and flag not in taken]
    return method(*data, **dict.fromkeys(flags, True))


def loss_methods(network: object) -> list[str]:
    """Return the methods that may give the loss of (x, t)."""
    found = []
    for name in LOSSES:
        method = read(network, name)
        if method_name(method, BACKWARD) is None and accepts(method, 2):
            first, second = positional_names(method, 2)
            if not means_scores(first, second) and second not in TRAINING:
                found.append(name)
    return found


def ways(
    network: object, losses: Sequence[str], x: object, t: object, up: object
) -> Iterator[list[Way]]:
    """Yield, for each method that may give gradients, the ways in which it may be meant.

    The methods `losses` may have to be called before; some are to be given `up`, the gradient that
    the loss layer returns, if any.
    """
    before = [(loss, (x, t)) for loss in losses]
    for name in [*GRADIENTS, *BACKWARD]:
        method = read(network, name)
        if _takes_data(method):
            alone: MethodCall = (name, (x, t))
            yield [Way((alone,), True), *(Way(calls, False) for calls in product(before, [alone]))]
        elif name in BACKWARD and accepts(method, 0):
            yield [Way(calls, True) for calls in product(before, [(name, ())])]
        elif name in BACKWARD and accepts(method, 1):
            given = [(name, (argument,)) for argument in _may_be_given(method, t, up)]
            yield [Way(calls, False) for calls in _one_by_one(network, before, given, x)]


def _one_by_one(
    network: object, losses: Sequence[MethodCall], given: Sequence[MethodCall], x: object
) -> Iterator[tuple[MethodCall, ...]]:
    """Yield what to call before a backward pass of one argument, with that: a loss, or scores."""
    yield from product(losses, given)
    scores = [name for name in SCORES if accepts(read(network, name), 1)]
    for name in scores[:1]:
        yield from (((name, (x,)), last) for last in given[-1:])


def _takes_data(method: object) -> bool:
    """Tell whether a method takes the inputs and the targets, by the names of its arguments."""
    if accepts(method, 0) or not accepts(method, 2):
        return False
    first, second = positional_names(method, 2)
    return means_targets(second) and not means_scores(first, second)


def _may_be_given(method: object, t: object, up: object) -> list[object]:
    """Return what a backward pass of one argument may be given: the targets, or a gradient."""
    (name,) = positional_names(method, 1)
    targets = [t] if means_targets(name) else []
    upstream = [1.0, up] if up is not None else [1.0]
    return targets + (upstream if means_upstream(name) else [])


def number_in(result: object) -> Any:
    """Return the loss among what a method returned; None where there is none."""
    for part in result[:2] if isinstance(result, tuple) else (result,):
        array = np.asarray(part) if not isinstance(part, dict | list) else np.empty(0)
        if array.size == 1 and array.dtype.kind == "f":
            return array.reshape(())
    return None


# -------------------- the gradients that it lists, and those of its layers --------------------


def noted(name: str, value: object, gradient: object, holder: object = None) -> Parameter:
    """Return a parameter with a gradient that stays."""
    return Parameter(name, value, lambda: gradient, holder)


def gradients_of(name: str, layer: object) -> list[Parameter]:
    """Return the parameters of a layer with their gradients as they now stand."""
    found = find_parameters(layer)
    return [noted(f"{name}.{p.name}", p.value, p.gradient(), layer) for p in found]


def listed_by(network: Any, result: Any) -> tuple[list[Parameter], bool]:
    """Return the gradients that a method of a network returned, or else those that it holds itself.

    And whether they were returned.
    """
    if isinstance(result, tuple) and len(result) == 2 and number_in(result[0]) is not None:
        result = result[1]
    returned = (_by_key if isinstance(result, dict) else _in_order)(network, result)
    return (returned, True) if returned else (_held_by(network), False)


def _held_by(network: object) -> list[Parameter]:
    held = [noted(p.name, p.value, p.gradient()) for p in find_parameters(network)]
    held = [p for p in held if p.gradient() is not MISSING]
    return held if any(map(_fits, held)) else []


def _listings(network: object) -> list[Any]:
    """Return what may be the lists or dicts of a network's parameters."""
    return [entries(network, name) for name in dict.fromkeys(values for values, _ in CONTAINERS)]


def _by_key(network: object, result: dict[object, object]) -> list[Parameter]:
    """Return a network's parameters with their gradients in a dict; of attributes, those in it."""
    attributes = attributes_of(network)
    for held in (*_listings(network), attributes):
        if keys := _keys(held, result):
            listed = [noted(str(name), held[name], result.get(key)) for name, key in keys.items()]
            left_out = [p for p in listed if held is attributes or is_statistic(p.name)]
            return [p for p in listed if p.gradient() is not None or p not in left_out]
    return []


def _keys(held: object, result: dict[object, object]) -> dict[Any, Any]:
    """Return under which keys the gradients of a dict's arrays are in another, if any is there."""
    names = [n for n, v in held.items() if is_array(v)] if isinstance(held, dict) else []
    keys = {n: n if n in result else gradient_key(result, str(n)) for n in names}
    return keys if any(key is not None for key in keys.values()) else {}


def _in_order(network: Any, result: Any) -> list[Parameter]:
    """Return the parameters that a network has in a list with their gradients in another."""
    for held in _listings(network) if isinstance(result, list | tuple) else ():
        if isinstance(held, list | tuple) and len(held) == len(result):
            pairs = enumerate(zip(held, result, strict=True))
            listed = [noted(f"params[{i}]", value, gradient) for i, (value, gradient) in pairs]
            if any(map(_fits, listed)):
                return [p for p in listed if is_array(p.value)]
    return []


def _fits(p: Parameter) -> bool:
    """Tell whether a gradient is an array of the shape of its parameter."""
    return is_array(p.gradient()) and is_array(p.value) and p.gradient().shape == p.value.shape


def groups(listed: Sequence[Parameter]) -> list[list[tuple[Parameter, bool]]]:
    """Return parameters by their array; and of each whether it has the transpose of the first."""
    found: dict[int, list[tuple[Parameter, bool]]] = {}
    places = Sharing.of([p.value for p in listed]).places
    for p, (first, turned) in zip(listed, places, strict=True):
        found.setdefault(first, []).append((p, turned))
    return list(found.values())


def totals(listed: Sequence[Parameter]) -> list[Parameter]:
    """Return each parameter once, with its gradients added; one array of gradients counts once."""
    firsts = [(members[0][0], _total(members)) for members in groups(listed)]
    return [noted(p.name, p.value, total, p.holder) for p, total in firsts]


def _total(members: Sequence[tuple[Parameter, bool]]) -> object:
    every = [(p.gradient(), turned) for p, turned in members]
    arrays = [g.T if turned else g for g, turned in every if is_array(g)]
    parts = Sharing.of(arrays).unique(arrays)
    fits = len({part.shape for part in parts}) == 1
    return np.array(sum(parts[1:], start=parts[0])) if fits else own(every[0][0])


def gradient_in(listed: Sequence[Parameter], value: Any) -> object:
    """Return the gradient that is listed for an array or its transpose; None where none is."""
    first, turned = Sharing.of([*(p.value for p in listed), value]).places[-1]
    gradient = listed[first].gradient() if first < len(listed) else None
    return gradient.T if turned and gradient is not None else gradient


def replacing_lines(backward: Callable[..., object]) -> list[Place]:
    """Return the lines of a backward pass that put a new array in the list of gradients."""
    if (text := text_of(backward)) is None:
        return []
    return [
        text.place(step)
        for step in text.steps
        for target in (step.targets if isinstance(step.node, ast.Assign) else ())
        if getattr(_replaced_in(target), "attr", "") in ("grads", "gradients")
    ]


def _replaced_in(target: ast.expr) -> ast.expr | None:
    """Return what an assignment puts another object in: None where it writes into an array."""
    if not isinstance(target, ast.Subscript):
        return target
    whole = isinstance(target.slice, ast.Slice) or getattr(target.slice, "value", "") is Ellipsis
    return None if whole else target.value
