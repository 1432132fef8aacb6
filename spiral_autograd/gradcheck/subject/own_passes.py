"""What a network does and holds itself: its own methods, and the gradients that it lists."""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np

from ...pytree import Sharing
from ...validation import Array
from .conventions import (
    BACKWARD,
    CONTAINERS,
    GRADIENTS,
    LOSSES,
    SCORES,
    STATISTICS,
    TRAINING,
    accepts,
    attributes_of,
    gradient_key,
    means_scores,
    means_targets,
    means_upstream,
    method_name,
    positional_names,
    read,
)
from .held import entries
from .parameters import find_parameters

# -------------------- its methods --------------------


class Way(NamedTuple):
    """A way to have a network's gradients: methods of its own, called one after another."""

    calls: tuple[tuple[str, tuple[Any, ...]], ...]  # each with its arguments
    is_sure: bool  # whether the last can only be meant to be called so

    @property
    def method(self) -> str:
        """The method that gives the gradients."""
        return self.calls[-1][0]

    def run(self, network: Any) -> Any:
        """Call the methods; return what the last one returns."""
        *earlier, (name, arguments) = self.calls
        for before, data in earlier:
            call(network, before, *data)
        return call(network, name, *(map(own, arguments) if earlier else arguments))


def own(value: Any) -> Any:
    """Return an array that the user's code cannot write into."""
    return np.array(value) if isinstance(value, np.ndarray) else value


def call(network: Any, name: str, *data: Any) -> Any:
    """Call a network's own method, in training where it can be told so."""
    method = getattr(network, name)
    try:
        known = list(inspect.signature(method).parameters)
    except (TypeError, ValueError):
        known = []
    taken = positional_names(method, len(data))
    flags = [flag for flag in TRAINING if flag in known and flag not in taken]
    return method(*data, **dict.fromkeys(flags, True))


def loss_methods(network: Any) -> list[str]:
    """Return the methods that may give the loss of (x, t)."""
    found = []
    for name in LOSSES:
        method = read(network, name)
        if method_name(method, BACKWARD) is None and accepts(method, 2):
            first, second = positional_names(method, 2)
            if not means_scores(first, second) and second not in TRAINING:
                found.append(name)
    return found


def ways(network: Any, losses: Sequence[str], x: Any, t: Any, up: Any) -> Iterator[list[Way]]:
    """Yield, for each method that may give gradients, the ways in which it may be meant.

    The methods `losses` may have to be called before; some are to be given `up`, the gradient that
    the loss layer returns, if any.
    """
    before = [(loss, (x, t)) for loss in losses]
    for name in [*GRADIENTS, *BACKWARD]:
        method = read(network, name)
        takes = [count for count in range(3) if accepts(method, count)]
        if 0 not in takes and 2 in takes and _takes_data(method):
            last = name, (x, t)
            yield [Way((last,), True), *(Way((loss, last), False) for loss in before)]
        elif 0 in takes and name in BACKWARD:
            yield [Way((loss, (name, ())), True) for loss in before]
        elif 1 in takes and name in BACKWARD:
            (taken,) = positional_names(method, 1)
            given = [t] if means_targets(taken) else []
            given += [1.0, *([] if up is None else [up])] if means_upstream(taken) else []
            found = [Way((loss, (name, (g,))), False) for loss in before for g in given]
            scores = [n for n in SCORES if given and accepts(read(network, n), 1)]
            yield found + [Way(((n, (x,)), (name, (given[-1],))), False) for n in scores[:1]]


def _takes_data(method: Any) -> bool:
    """Tell whether a method takes the inputs and the targets, by the names of its arguments."""
    first, second = positional_names(method, 2)
    return means_targets(second) and not means_scores(first, second)


def number_in(result: Any) -> Any:
    """Return the loss among what a method returned; None where there is none."""
    for part in result[:2] if isinstance(result, tuple) else (result,):
        array = np.asarray(part) if not isinstance(part, dict | list) else np.empty(0)
        if array.size == 1 and array.dtype.kind == "f":
            return array.reshape(())
    return None


# -------------------- the gradients that it lists, and those of its layers --------------------


class Listed(NamedTuple):
    """A parameter and its gradient, as a network or one of its layers holds them."""

    label: str
    value: Array
    gradient: Any
    holder: Any = None


def gradients_of(name: str, layer: Any) -> list[Listed]:
    """Return the parameters of a layer with their gradients as they now stand."""
    found = find_parameters(layer)
    return [Listed(f"{name}.{p.name}", p.value, p.gradient(), layer) for p in found]


def listed_by(network: Any, result: Any) -> tuple[list[Listed], bool]:
    """Return the gradients that a network itself lists, and whether its method returned them."""
    if isinstance(result, tuple) and len(result) == 2 and number_in(result[0]) is not None:
        result = result[1]
    for values, _ in CONTAINERS:
        if listed := list(_paired(entries(network, values), result)):
            return listed, True
    if isinstance(result, dict):
        arrays = {n: v for n, v in attributes_of(network).items() if isinstance(v, np.ndarray)}
        if listed := list(_paired(arrays, result)):
            return [entry for entry in listed if entry.gradient is not None], True
    for values, grads in CONTAINERS:
        if listed := list(_paired(entries(network, values), entries(network, grads))):
            return listed, False
    return [], False


def _paired(values: Any, grads: Any) -> Iterator[Listed]:
    """Yield the arrays of a list or dict, each with its gradient in another."""
    if isinstance(values, dict) and isinstance(grads, dict):
        keys = {n: n if n in grads else gradient_key(grads, str(n)) for n in values}
        for name, value in values.items() if set(keys.values()) != {None} else ():
            gradient = None if keys[name] is None else grads[keys[name]]
            by_right = gradient is None and any(word in str(name) for word in STATISTICS)
            if isinstance(value, np.ndarray) and not by_right:
                yield Listed(str(name), value, gradient)
    elif isinstance(values, list | tuple) and isinstance(grads, list | tuple):
        arrays = [(v, g) for v, g in zip(values, grads, strict=False) if isinstance(v, np.ndarray)]
        fits = any(isinstance(g, np.ndarray) and v.shape == g.shape for v, g in arrays)
        for i, (value, gradient) in enumerate(zip(values, grads, strict=False)):
            if isinstance(value, np.ndarray) and fits and len(values) == len(grads):
                yield Listed(f"params[{i}]", value, gradient)


def groups(arrays: Sequence[Array]) -> list[list[tuple[int, bool]]]:
    """Return which arrays of a list are one array: their numbers, and which are its transpose."""
    found: dict[int, list[tuple[int, bool]]] = {}
    for i, (first, turned) in enumerate(Sharing.of(arrays).places):
        found.setdefault(first, []).append((i, turned))
    return list(found.values())


def totals(listed: Sequence[Listed]) -> list[Listed]:
    """Return each parameter once, with its gradients added; one array of gradients counts once."""
    found = []
    for members in groups([entry.value for entry in listed]):
        first = listed[members[0][0]]
        every = [(listed[i].gradient, turned) for i, turned in members]
        arrays = [g.T if turned else g for g, turned in every if isinstance(g, np.ndarray)]
        parts = Sharing.of(arrays).unique(arrays)
        fits = parts and all(part.shape == parts[0].shape for part in parts)
        total = np.array(sum(parts[1:], start=parts[0])) if fits else own(first.gradient)
        found.append(first._replace(gradient=total))
    return found


def gradient_in(listed: Sequence[Listed], value: Array) -> Any:
    """Return the gradient that is listed for an array or its transpose; None where none is."""
    first, turned = Sharing.of([*(entry.value for entry in listed), value]).places[-1]
    gradient = listed[first].gradient if first < len(listed) else None
    return gradient.T if turned and gradient is not None else gradient
