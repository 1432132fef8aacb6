"""The parameters that an object keeps, and which gradient is whose, by convention."""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np

from ...state import has_any
from ..finding import Finding
from ..guard import CheckError, theirs
from .conventions import (
    BACKWARD,
    CONTAINERS,
    FORWARD,
    GRADIENT_CONTAINERS,
    HOLDERS,
    TRAINED,
    differing,
    gradient_key,
    gradient_keys,
    is_statistic,
    last_name,
)
from .objects import (
    ATOMS,
    Steps,
    asker,
    attributes_of,
    entries,
    held_arrays,
    is_number,
    method_name,
    nested,
    read,
    reset_of,
    values_of,
)
from .session import Snapshot
from .subject import MISSING, is_float_array


@dataclass(frozen=True, eq=False)
class Parameter:
    """An array or a number that an object keeps, and what reads its gradient as it now stands.

    The gradient is None where it is not written, and MISSING where there is no place for one; `put`
    puts another value in the place of the parameter, and `aliases` are its names, where it is kept
    in several places.
    """

    name: str
    value: Any
    gradient: Callable[[], Any]
    holder: Any = None
    put: Callable[[Any], Any] | None = None
    aliases: frozenset[str] = frozenset()

    @property
    def names(self) -> set[str]:
        """The names, more than one where an array is kept in several places."""
        return {self.name, *self.aliases}


def _reach(held: object, steps: Steps, name: str) -> Any:
    """Return the gradient in nested lists and dicts; None where it is not there."""
    if steps and isinstance(held, dict):
        key = gradient_key(held, name if isinstance(steps[0], int) else str(steps[0]))
        return None if key is None else _reach(held[key], steps[1:], name)
    if steps and isinstance(held, list | tuple):
        there = isinstance(steps[0], int) and steps[0] < len(held)
        return _reach(held[steps[0]], steps[1:], name) if there else None
    return held


def _placing(held: Any, steps: Steps) -> Callable[[object], object] | None:
    """Return what puts another value in a place in nested lists and dicts; tuples stay."""
    for step in steps[:-1]:
        held = held[step]
    return partial(operator.setitem, held, steps[-1]) if isinstance(held, dict | list) else None


LONGEST = 1_000  # a longer list of numbers is a record, whose gradients would be named

# -------------------- parameters, by convention --------------------


class Kept:
    """What a layer and its parts keep: by convention; and `held`, in each of its places."""

    def __init__(self, layer: object) -> None:
        self.every = kept_by(layer)
        self.arrays = [p for p in self.every if isinstance(p.value, np.ndarray)]
        self.numbers = [p for p in self.every if is_number(p.value)]
        self.held = held_arrays(layer)


def find_parameters(layer: object) -> list[Parameter]:
    """Return the float parameters that a layer and its parts keep, each array once."""
    return [p for p in kept_by(layer) if is_float_array(p.value)]


def kept_by(layer: object) -> list[Parameter]:
    """Return the arrays, each once, and the floats that a layer and its parts keep."""
    groups: dict[object, list[Parameter]] = {}
    for i, p in enumerate(_find(layer, set())):
        groups.setdefault(id(p.value) if isinstance(p.value, np.ndarray) else -i - 1, []).append(p)
    return [same[0] if len(same) == 1 else _merged(same) for same in groups.values()]


def _merged(same: list[Parameter]) -> Parameter:
    """Return one parameter for an array that is kept in several places: its gradients add up."""

    def gradient() -> Any:
        found = [g for g in (p.gradient() for p in same) if g is not MISSING]
        written = {id(g): g for g in found if g is not None}
        if not written:
            return None if found else MISSING
        return sum(np.asarray(g) for g in written.values())

    placed = [p.name for p in same if p.gradient() is not MISSING] or [same[0].name]
    names = frozenset(p.name for p in same)
    label = " = ".join(dict.fromkeys(placed))
    return replace(same[0], name=label, gradient=gradient, aliases=names)


# Lists and dicts of parameters with those of their gradients; and of parameter objects alone.
_OF_LAYERS = frozenset((*BACKWARD, *(values for values, _ in CONTAINERS)))
_LISTS = (*CONTAINERS, *dict.fromkeys((values, "") for values, _ in CONTAINERS))


def _find(item: object, met: set[int]) -> list[Parameter]:
    """Return what an object keeps, by the first convention that fits, and what its parts keep."""
    met.add(id(item))
    has = asker(item)
    for values, grads in _LISTS:
        if has(values) and (not grads or has(grads)):
            found = [p for p in _listed(item, values, grads) if grads or p.holder is not item]
            if found:
                return found
    found = list(_from_attributes(item))
    for name, part in parts_of(item):
        if id(part) not in met:
            found += [replace(p, name=f"{name}.{p.name}") for p in _find(part, met)]
    return found


def _listed(item: object, values: str, grads: str) -> Iterator[Parameter]:
    """Yield what a list or dict of an object holds, with its gradients in the like of it."""
    held = entries(item, values)
    if not isinstance(held, dict | list | tuple):
        return
    is_dict = isinstance(held, dict)
    own = {} if is_dict else {id(v): n for n, v in reversed(attributes_of(item).items())}
    places = list(nested("" if is_dict else "params", held))

    def gradient(name: str, steps: Steps, i: int) -> Any:
        there = entries(item, grads) if grads else MISSING
        if there is MISSING:
            return MISSING
        found = _reach(there, (i,) if is_dict and not isinstance(there, dict) else steps, name)
        # Keys say nothing of places in a list: evidence does.
        by_right = is_statistic(name) if is_dict else isinstance(there, dict)
        return MISSING if found is None and by_right else found

    for i, (name, steps, value) in enumerate(places):
        if isinstance(value, np.ndarray) or is_number(value):
            name = own.get(id(value), name) if isinstance(value, np.ndarray) else name
            gradients = partial(gradient, name, steps, i)
            yield Parameter(name, value, gradients, item, _placing(held, steps))
        else:
            yield from _from_holder(own.get(id(value), name), value)


def _from_attributes(item: object) -> Iterator[Parameter]:
    """Yield attributes, with partners for their gradients, and those that are parameter objects."""
    attributes = values_of(item)

    def gradient(name: str, steps: Steps) -> Any:
        now = values_of(item)
        keys = gradient_keys(now, name, now, itself=False)
        found = [_reach(now[key], steps, name) for key in keys]
        if not found and not steps:
            dicts = [now.get(container) for container in GRADIENT_CONTAINERS]
            places = [(d, gradient_key(d, name, now)) for d in dicts if isinstance(d, dict)]
            found = [held[key] for held, key in places if key is not None]
        return next((g for g in found if g is not None), None if found else MISSING)

    for attribute, value in attributes.items():
        has_place = bool(gradient_keys(attributes, attribute, attributes, itself=False))
        is_long = isinstance(value, list | tuple) and len(value) > LONGEST
        for name, steps, leaf in nested(attribute, value) if has_place or not is_long else ():
            if isinstance(leaf, np.ndarray) or is_number(leaf):
                if has_place or not steps or np.ndim(leaf) == 0:
                    placing = _placing(value, steps) if steps else partial(setattr, item, attribute)
                    yield Parameter(name, leaf, partial(gradient, attribute, steps), item, placing)
            else:
                yield from _from_holder(name, leaf)


def _from_holder(name: str, item: object) -> Iterator[Parameter]:
    """Yield the parameter that an object is: it has its array, and the gradient of that."""
    where = _in_holder(item)
    if where is not None:
        value, grad = where
        placing = partial(setattr, item, value)
        yield Parameter(name, getattr(item, value), lambda: getattr(item, grad), item, placing)


def _in_holder(item: object) -> tuple[str, str] | None:
    if issubclass(type(item), ATOMS):
        return None
    has = asker(item)
    for value, grad in HOLDERS:
        held = read(item, value) if has(value) and has(grad) else None
        if isinstance(held, np.ndarray) or is_number(held):
            return value, grad
    return None


def _objects_in(item: object) -> Iterator[tuple[str, object]]:
    """Yield what an object holds, in lists and dicts too, less arrays, numbers and functions."""
    for attribute, value in attributes_of(item).items():
        for name, _, leaf in nested(attribute, value):
            if not issubclass(type(leaf), ATOMS):
                yield name, leaf


def parts_of(item: object) -> Iterator[tuple[str, object]]:
    """Yield the layers among an object's attributes, and in the lists and dicts there."""
    return ((name, leaf) for name, leaf in _objects_in(item) if _is_layer(leaf))


def _is_layer(item: object) -> bool:
    if not has_any(item, _OF_LAYERS):  # a mock makes up whatever it is asked for, without an end
        return False
    has, methods = asker(item), [method_name(item, names) for names in (FORWARD, BACKWARD)]
    return all(methods) or any(has(values) and has(grads) for values, grads in CONTAINERS)


def other_keys(layer: object) -> list[Finding]:
    """Return what is to be said of dicts whose gradients have other keys than the parameters."""
    found: list[Finding] = []
    for item in (layer, *(part for _, part in parts_of(layer))):
        has = asker(item)
        for values, grads in (pair for pair in CONTAINERS if all(map(has, pair))):
            held, there = entries(item, values), entries(item, grads)
            if isinstance(held, dict) and isinstance(there, dict):
                found += [f for f in differing(held, there, (grads, values)) if f not in found]
    return found


def resets_of(
    layer: object, *, of_parts: bool = False, met: frozenset[int] = frozenset()
) -> list[Callable[[], Any]]:
    """Return what resets the accumulated gradients of a layer: its own method, or its parts'."""
    own = None if of_parts else reset_of(layer)
    if own is not None or id(layer) in met:
        return [own] if own is not None else []
    found: list[Any] = []
    for _, item in _objects_in(layer):
        if _is_layer(item):
            found += resets_of(item, met=met | {id(layer)})
        elif _in_holder(item):
            found.append(reset_of(item))
    return [reset for reset in found if reset is not None]


def run_resets(resets: Iterable[Callable[[], Any]]) -> None:
    """Reset accumulated gradients, as far as that can be: of parameters that are made later not."""
    for reset in resets:
        with suppress(CheckError), theirs():
            reset()


# -------------------- is it a gradient? --------------------


def has_gradient(parameter: Parameter, before: object, start: Snapshot) -> bool:
    """Tell whether what is named like a gradient is written in a run, or ready to be."""
    now = parameter.gradient()
    if now is MISSING or now is None or now is not before:
        return now is not MISSING
    if not isinstance(now, np.ndarray | np.number | float | int | list | tuple):
        return False
    if isinstance(now, np.ndarray) and start.kept(now) is not None and not start.is_as_before(now):
        return True
    try:
        is_ready, shape = not np.any(now), np.shape(now)
    except (TypeError, ValueError):
        return False
    return is_ready or (shape == np.shape(parameter.value) and not is_number(parameter.value))


def fits_number(number: Parameter) -> bool:
    """Tell whether a number's gradient is one number, or people train it: not a step `h`."""
    gradient = number.gradient()
    if gradient is None or last_name(number.name).strip("_0123456789").lower() in TRAINED:
        return True
    return isinstance(gradient, np.ndarray | np.generic | float | int) and np.size(gradient) == 1
