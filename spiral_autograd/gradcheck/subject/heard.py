"""What is heard of a network in a pass: what its layers are given and give, and its gradients."""

from __future__ import annotations

import ast
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np

from ...pytree import Sharing, leaves
from ...validation import Array
from ..guard import CheckError, theirs
from ..source import Place, text_of
from .conventions import CONTAINERS, gradient_key, is_statistic
from .inputs import as_dict
from .objects import attributes_of, entries, input_gradient_of, methods_of, nested, output_of
from .own_passes import Way, own
from .parameters import Parameter, find_parameters
from .returned import place_of_loss, returned_names
from .session import states
from .subject import MISSING, is_array

Named = Sequence[tuple[str, Any]]
NO_WAY = Way((), is_sure=False)


@dataclass
class Call:
    """One call of a layer's forward or backward pass, with copies of what it was given and gave."""

    name: str
    layer: Any
    arguments: tuple[Any, ...]
    place: Place
    streams: list[Any]  # the states of the random streams before it
    before: list[Parameter]  # the layer's gradients, if it is backward
    after: list[Parameter] = field(default_factory=list)
    result: Any = None  # the output, or the gradient of the first input
    is_done: bool = False


@dataclass
class Pass:
    """One run through a network, with the calls of its layers' passes in their order."""

    random: list[Any] = field(default_factory=list)  # the random streams that the network reaches
    way: Way = NO_WAY  # the network's own methods that were called
    forward: list[Call] = field(default_factory=list)
    backward: list[Call] = field(default_factory=list)
    result: Any = None  # of the network's own method, or the gradient of its input
    gradients: list[Parameter] = field(default_factory=list)  # that are returned or left: totals
    listed: list[Parameter] = field(default_factory=list)  # those that the network itself holds
    ups: dict[str, Any] = field(default_factory=dict)  # where they are not the first argument
    updates: list[Parameter] = field(default_factory=list)  # where there are none: the changes
    is_returned: bool = False
    streams: list[Any] = field(default_factory=list)  # the states of the random streams after it
    error: Exception | None = None

    def run(self, name: str, layer: Any, step: int, method: Any, *args: Any, **more: Any) -> Any:
        """Run a layer's forward (step 0) or backward pass (1), and note it."""
        code, calls = sys._getframe(1), self.backward if step else self.forward
        place = code.f_code.co_filename, code.f_lineno
        held = _copies(name, layer) if step else []
        call = Call(name, layer, tuple(map(own, args)), place, states(self.random), held)
        calls.append(call)
        result = method(*args, **more)
        call.result, call.is_done = own(result_of(layer, step, result)), True
        call.after = _copies(name, layer) if step else []
        return result

    @contextmanager
    def listening(self, named: Named) -> Iterator[None]:
        """Note what layers do while something else runs them; those with slots are not heard."""
        placed: list[tuple[object, str]] = []
        for name, layer in once(named):
            for step, method in enumerate(methods_of(layer)):
                if method.startswith("__") or method in attributes_of(layer):
                    continue
                with suppress(CheckError), theirs():
                    ear = partial(self.run, name, layer, step, getattr(layer, method))
                    setattr(layer, method, ear)
                    placed.append((layer, method))
        try:
            yield
        finally:
            for layer, method in placed:
                layer.__dict__.pop(method, None)

    @property
    def is_whole(self) -> bool:
        """Whether the pass went through all layers and back."""
        return len(self.backward) == len(self.forward) and all(c.is_done for c in self.backward)

    @property
    def uses(self) -> list[Parameter]:
        """The gradients that each backward pass has left, under the name of each of its calls."""
        return [p for call in self.backward for p in call.after if is_array(p.gradient())]

    def first_inputs(self) -> dict[object, Array]:
        """Return the arrays of floats that each layer is given first."""
        return {
            (id(call.layer), i): array
            for call in reversed(self.forward)
            for i, array in enumerate(call.arguments)
            if is_array(array) and array.dtype.kind == "f"
        }

    def given(self) -> dict[str, tuple[Call, Any]]:
        """Return the forward call of each layer that ran once, and its upstream gradient."""
        names = [call.name for call in self.forward]
        return {c.name: (c, self._upstream(c)) for c in self.forward if names.count(c.name) == 1}

    def _upstream(self, call: Call) -> object:
        """Return the one gradient that a layer is given which fits its output; None of others."""
        if call.name in self.ups:
            return self.ups[call.name]
        ups = [c.arguments[0] for c in self.backward if c.name == call.name and c.arguments]
        fits = len(ups) == 1 and is_array(ups[0]) and ups[0].shape == np.shape(call.result)
        return ups[0] if fits else None


def _copies(name: str, layer: object) -> list[Parameter]:
    now = gradients_of(name, layer)
    return [noted(p.name, p.value, own(p.gradient()), layer) for p in now]


def once(named: Named) -> Named:
    """Return each layer once, by its first name."""
    return list({id(layer): (name, layer) for name, layer in reversed(named)}.values())[::-1]


def result_of(layer: object, step: int, result: object) -> Any:
    """Return the output of a layer's forward pass, or the gradient of its first input."""
    result = input_gradient_of(layer, result) if step else output_of(layer, result)
    return result[0] if isinstance(result, tuple) and result else result


# -------------------- gradients: those of the layers, and those that the network lists -----------


def noted(name: str, value: object, gradient: object, holder: object = None) -> Parameter:
    """Return a parameter with a gradient that stays."""
    return Parameter(name, value, lambda: gradient, holder)


def gradients_of(name: str, layer: object) -> list[Parameter]:
    """Return the parameters of a layer with their gradients as they now stand."""
    found = find_parameters(layer)
    return [noted(f"{name}.{p.name}", p.value, p.gradient(), layer) for p in found]


def listed_by(network: Any, result: Any, method: Any = None) -> tuple[list[Parameter], bool]:
    """Return the gradients that a network's method returned, else its own; and which."""
    result, names = _without_loss(result, method)
    if isinstance(result, dict):
        returned = _by_key(network, result)
    else:
        returned = _in_order(network, result) or _by_place(network, result, names)
    if returned:
        return returned, True
    held = [noted(p.name, p.value, p.gradient()) for p in find_parameters(network)]
    held = [p for p in held if p.gradient() is not MISSING]
    return held if any(map(_fits, held)) else [], False


def _without_loss(result: Any, method: Any) -> tuple[Any, list[str]]:
    """Return gradients without a loss before or behind them, and what their method calls them."""
    result = as_dict(result)
    if not isinstance(result, tuple | list):
        return result, []
    entries, names = list(result), returned_names(method, len(result))
    at = place_of_loss(result) if isinstance(result, tuple) and result else None
    if at is None:
        return entries, names
    del entries[at], names[at : at + 1]
    return (as_dict(entries[0]) if len(entries) == 1 else entries), names


def _listings(network: object) -> list[Any]:
    """Return what may be the lists or dicts of a network's parameters."""
    names = dict.fromkeys(values for values, _ in CONTAINERS)
    return [as_dict(entries(network, name)) for name in names]


def _by_key(network: object, result: dict[object, object]) -> list[Parameter]:
    """Return a network's parameters with their gradients in a dict; of attributes, those in it."""
    attributes = attributes_of(network)
    for held in (*_listings(network), attributes):
        named = held.items() if isinstance(held, dict) else ()
        arrays = {name: value for name, value in named if is_array(value)}
        keys = {n: n if n in result else gradient_key(result, str(n)) for n in arrays}
        if any(key is not None for key in keys.values()):
            return [
                noted(str(n), arrays[n], result.get(key))
                for n, key in keys.items()
                if key is not None or not (held is attributes or is_statistic(str(n)))
            ]
    return []


def _in_order(network: Any, result: Any) -> list[Parameter]:
    """Return the parameters that a network has in a list with their gradients in another."""
    for held in _listings(network) if isinstance(result, list | tuple) else ():
        if isinstance(held, list | tuple):
            held = {f"params[{i}]": value for i, value in enumerate(held)}
        if isinstance(held, dict) and len(held) == len(result):
            pairs = zip(held.items(), result, strict=True)
            listed = [noted(str(key), value, gradient) for (key, value), gradient in pairs]
            if any(map(_fits, listed)):
                return [p for p in listed if is_array(p.value)]
    return []


def _by_place(network: object, result: Any, names: Sequence[str]) -> list[Parameter]:
    """Return what a network keeps with gradients of its structure, by name, else in order."""
    if not isinstance(result, tuple | list):  # one array
        result = [result]
    held = {n: v for n, v in attributes_of(network).items() if any(map(is_array, leaves(v)))}
    found = _attributes_for(result, names, held)
    listed = []
    for i, n in found.items() if len(found) == len(result) else ():
        there = {path: leaf for path, _, leaf in nested(n, result[i])}
        listed += [noted(path, leaf, there.get(path)) for path, _, leaf in nested(n, held[n])]
    return [p for p in listed if is_array(p.value)] if any(map(_fits, listed)) else []


def _attributes_for(grads: Any, names: Sequence[str], held: dict[str, Any]) -> dict[int, str]:
    """Return of which attribute each gradient is: by its name, else the first left of its shape."""
    found: dict[int, str] = {}
    taken = found.values()
    for i, name in enumerate(names):
        named = [n for n in held if gradient_key([name], n, held, itself=False)]
        if named and named[0] not in taken:
            found[i] = named[0]
    for i, gradient in enumerate(grads):
        free = [n for n in held if n not in taken and _shapes(held[n]) == _shapes(gradient)]
        if free and i not in found:
            found[i] = free[0]
    return found


def _shapes(tree: Any) -> list[Any]:
    return [(path, np.shape(leaf)) for path, _, leaf in nested("", tree) if is_array(leaf)]


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
    parts = [arrays[k] for k, (first, _) in enumerate(Sharing.of(arrays).places) if k == first]
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
