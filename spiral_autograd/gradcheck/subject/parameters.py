"""The parameters that an object keeps, and where it keeps their gradients."""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from types import FunctionType, MethodType, ModuleType
from typing import Any

import numpy as np

from ...validation import Array
from ..guard import CheckError, theirs
from .conventions import (
    BACKWARD,
    CONTAINERS,
    FORWARD,
    GRADIENT_CONTAINERS,
    HOLDERS,
    STATISTICS,
    accepts,
    differing,
    gradient_key,
    gradient_keys,
    has_attribute,
    method_name,
    read,
    reset_of,
)
from .reached import has_any, is_vocabulary
from .subject import MISSING, is_float_array

Steps = tuple[Any, ...]


@dataclass(frozen=True, eq=False)
class Parameter:
    """A parameter of a layer.

    Attributes
    ----------
    name : str
    value : array
        The layer's own.
    gradient : callable
        Returns the gradient as it now stands; None where it is not written, MISSING where there
        is no place for one.
    holder : object
        What keeps it.
    put : callable or None
        Puts another value in its place.
    aliases : frozenset of str
        Its names, where it is kept in several places.
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


def find_parameters(layer: Any) -> list[Parameter]:
    """Return the float parameters that a layer and its parts keep, each array once.

    Conventions are not mixed in one object: where it lists its parameters, what else it has is
    state.
    """
    return [p for p in every_parameter(layer) if is_float_array(p.value)]


def every_parameter(layer: Any) -> list[Parameter]:
    """Return the parameters of any dtype."""
    by_array: dict[int, list[Parameter]] = {}
    for parameter in _find(layer, set()):
        if isinstance(parameter.value, np.ndarray):
            by_array.setdefault(id(parameter.value), []).append(parameter)
    return [same[0] if len(same) == 1 else _merged(same) for same in by_array.values()]


def numbers_of(layer: Any) -> list[Parameter]:
    """Return the floats that a layer and its parts keep, of which most are no parameters."""
    return [p for p in _find(layer, set()) if is_number(p.value)]


def is_number(value: Any) -> bool:
    """Tell whether a value is a float, Python's or NumPy's."""
    return isinstance(value, float | np.float32)


def _find(item: Any, met: set[int]) -> list[Parameter]:
    met.add(id(item))
    for values, grads in CONTAINERS:
        if has_attribute(item, values) and has_attribute(item, grads):
            found = list(_from_container(item, values, grads))
            if found:
                return found
    for values in dict.fromkeys(values for values, _ in CONTAINERS):
        found = list(_from_holders(item, values))
        if found:
            return found
    found = [*_from_attributes(item), *_from_parts(item, met)]
    there = {id(parameter.value) for parameter in found}
    # A list of parameters without one of gradients: backward may return these.
    return found + [p for p in _from_container(item, "params", "") if id(p.value) not in there]


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


# -------------------- what an object holds --------------------


def attributes_of(item: Any) -> dict[str, Any]:
    """Return an object's own attributes, also those in slots."""
    slots: list[str] = []
    for base in type(item).__mro__:
        names = base.__dict__.get("__slots__", ())
        slots += [names] if isinstance(names, str) else list(names)
    held = {name: getattr(item, name) for name in slots if hasattr(item, name)}
    held.pop("__dict__", None)
    held.pop("__weakref__", None)
    return {**held, **getattr(item, "__dict__", {})}


def values_of(item: Any) -> dict[str, Any]:
    """Return an object's attributes, with the arrays and floats that are those of its class."""
    return {**of_class(item), **attributes_of(item)}


def of_class(item: Any) -> dict[str, Any]:
    """Return the arrays and floats that an object has from its class."""
    found = {
        name: value
        for base in reversed(type(item).__mro__[:-1])
        for name, value in vars(base).items()
        if isinstance(value, np.ndarray | float | np.floating)
    }
    if not found:
        return found
    own = attributes_of(item)
    return {
        name: value
        for name, value in found.items()
        if name not in own and read(item, name) is value
        if is_float_array(value) or is_number(value)
    }


def entries(item: Any, name: str) -> Any:
    """Return the list or dict under a name, or what the method of that name returns."""
    held = read(item, name)
    if callable(held) and not isinstance(held, dict):
        try:
            with theirs():
                held = held() if accepts(held, 0) else None
        except CheckError:  # as before the first forward pass, which makes them
            return None
    return list(held) if isinstance(held, Iterator) else held


def nested(name: str, held: Any, steps: Steps = ()) -> Iterator[tuple[str, Steps, Any]]:
    """Yield what nested lists and dicts hold: its name, the steps to it, and itself."""
    if len(steps) > 5:  # no parameters lie so deep; a list may hold itself
        return
    if is_vocabulary(held):
        return
    if isinstance(held, dict):
        for key, value in held.items():
            yield from nested(f"{name}.{key}" if name else str(key), value, (*steps, key))
    elif isinstance(held, list | tuple):
        for i, value in enumerate(held):
            yield from nested(f"{name}[{i}]", value, (*steps, i))
    else:
        yield name, steps, held


def reach(held: Any, steps: Steps, name: str) -> Any:
    """Return the gradient in nested lists and dicts; None where it is not there."""
    if steps and isinstance(held, dict):
        key = gradient_key(held, name if isinstance(steps[0], int) else str(steps[0]))
        return None if key is None else reach(held[key], steps[1:], name)
    if steps and isinstance(held, list | tuple):
        step = steps[0]
        return reach(held[step], steps[1:], name) if _is_index(step, held) else None
    return held


def _placing(held: Any, steps: Steps) -> Callable[[Any], Any] | None:
    """Return what puts another value in a place in nested lists and dicts; tuples stay."""
    for step in steps[:-1]:
        held = held[step]
    return partial(operator.setitem, held, steps[-1]) if isinstance(held, dict | list) else None


def _is_index(step: Any, held: Any) -> bool:
    return isinstance(step, int) and step < len(held)


def _in_holder(item: Any) -> tuple[str, str] | None:
    """Return the names under which a parameter object has its array and its gradient."""
    if isinstance(item, np.ndarray | np.generic | type):
        return None
    for value, grad in HOLDERS:
        held = read(item, value)
        if (isinstance(held, np.ndarray) or is_number(held)) and has_attribute(item, grad):
            return value, grad
    return None


@dataclass(frozen=True)
class Held:
    """An array that a layer, or an object in it, keeps; `path` leads there from the layer."""

    name: str
    value: Array
    holder: Any
    path: Steps = ()


def held_arrays(layer: Any) -> list[Held]:
    """Return the float arrays that a layer and the objects in it keep, in each of their places."""
    found: list[Held] = []
    pending: list[tuple[str, Steps, Any]] = [("", (), layer)]
    met = {id(layer)}
    while pending:
        before, path, item = pending.pop(0)
        for attribute, value in values_of(item).items():
            for name, steps, leaf in nested(before + attribute, value):
                here = (*path, attribute, *steps)
                if is_float_array(leaf):
                    found.append(Held(name, leaf, item, here))
                elif _is_object(leaf) and id(leaf) not in met and before.count(".") < 4:
                    met.add(id(leaf))
                    pending.append((f"{name}.", here, leaf))
    return found


def held_at(item: Any, path: Steps) -> Any:
    """Return what a path now leads to; MISSING where there is nothing."""
    for step in path:
        if isinstance(item, dict):
            item = item.get(step, MISSING)
        elif isinstance(item, list | tuple):
            item = item[step] if _is_index(step, item) else MISSING
        else:
            item = values_of(item).get(step, MISSING)
    return item


def _is_object(item: Any) -> bool:
    kinds = (type, ModuleType, FunctionType, MethodType)
    return hasattr(item, "__dict__") and not isinstance(item, kinds)


# -------------------- the conventions --------------------


def _from_container(item: Any, values: str, grads: str) -> Iterator[Parameter]:
    """Lists or dicts of arrays, and the like of their gradients."""
    held = entries(item, values)
    if not isinstance(held, dict | list | tuple):
        return
    own = {id(v): n for n, v in reversed(attributes_of(item).items()) if isinstance(v, np.ndarray)}
    in_order = [steps for _, steps, _ in nested("", held)]

    def gradient(name: str, steps: Steps) -> Any:
        found = entries(item, grads) if grads else MISSING
        if isinstance(found, list | tuple) and isinstance(held, dict):
            found = reach(found, (in_order.index(steps),), name)
        elif found is not MISSING:
            found = reach(found, steps, name)
        if (
            found is None
            and isinstance(held, list | tuple)
            and isinstance(entries(item, grads), dict)
        ):
            return MISSING  # keys that say nothing of places: evidence does
        by_right = isinstance(held, dict) and any(word in name for word in STATISTICS)
        return MISSING if found is None and by_right else found

    for name, steps, value in nested("" if isinstance(held, dict) else "params", held):
        if isinstance(value, np.ndarray) or is_number(value):
            name = name if isinstance(held, dict) else own.get(id(value), name)
            placing = _placing(held, steps)
            yield Parameter(name, value, partial(gradient, name, steps), item, placing)
        else:
            yield from _from_holder(name, value)


def _from_holders(item: Any, values: str) -> Iterator[Parameter]:
    """A list or dict of parameter objects, each with its own gradient."""
    own = {id(value): name for name, value in reversed(attributes_of(item).items())}
    held = entries(item, values)
    if isinstance(held, dict | list | tuple):
        for name, _, value in nested("" if isinstance(held, dict) else "params", held):
            yield from _from_holder(own.get(id(value), name), value)


def _from_holder(name: str, item: Any) -> Iterator[Parameter]:
    where = _in_holder(item)
    if where is not None:
        value, grad = where
        placing = partial(setattr, item, value)
        yield Parameter(name, getattr(item, value), lambda: getattr(item, grad), item, placing)


def _from_attributes(item: Any) -> Iterator[Parameter]:
    """Attributes with a partner for their gradient, and attributes that are parameter objects."""
    attributes = values_of(item)

    def gradient(name: str, steps: Steps) -> Any:
        now = values_of(item)
        keys = gradient_keys(now, name, now, itself=False)
        found = [reach(now[key], steps, name) for key in keys]
        if not found and not steps:
            found = _in_dicts(now, name)
        return next((g for g in found if g is not None), None if found else MISSING)

    for attribute, value in attributes.items():
        has_place = bool(gradient_keys(attributes, attribute, attributes, itself=False))
        for name, steps, leaf in nested(attribute, value):
            if (isinstance(leaf, np.ndarray) or is_number(leaf)) and (has_place or not steps):
                placing = _placing(value, steps) if steps else partial(setattr, item, attribute)
                yield Parameter(name, leaf, partial(gradient, attribute, steps), item, placing)
            else:
                yield from _from_holder(name, leaf)


def _in_dicts(attributes: dict[str, Any], name: str) -> list[Any]:
    """Return the gradient of an attribute that a dict of gradients has, if one does."""
    dicts = [attributes.get(container) for container in GRADIENT_CONTAINERS]
    places = [(d, gradient_key(d, name, attributes)) for d in dicts if isinstance(d, dict)]
    return [held[key] for held, key in places if key is not None]


def _from_parts(item: Any, met: set[int]) -> Iterator[Parameter]:
    """The parameters of the layers that an object is made of, by their paths."""
    for name, part in parts_of(item):
        if id(part) not in met:
            for parameter in _find(part, met):
                yield replace(parameter, name=f"{name}.{parameter.name}")


def parts_of(item: Any) -> Iterator[tuple[str, Any]]:
    """Yield the layers among an object's attributes, and in the lists and dicts there."""
    for attribute, value in attributes_of(item).items():
        for name, _, part in nested(attribute, value):
            if _is_layer(part):
                yield name, part


_OF_LAYERS = frozenset((*BACKWARD, *(values for values, _ in CONTAINERS)))
_NO_LAYERS = (
    *(str, bytes, int, float, complex, type(None)),
    *(np.ndarray, np.generic, type, ModuleType, FunctionType, MethodType),
)


def _is_layer(item: Any) -> bool:
    if issubclass(type(item), _NO_LAYERS) or not has_any(item, _OF_LAYERS):
        return False
    runs = method_name(item, FORWARD) is not None and method_name(item, BACKWARD) is not None
    return runs or any(has_attribute(item, v) and has_attribute(item, g) for v, g in CONTAINERS)


def other_keys(layer: Any) -> list[str]:
    """Return what is to be said of dicts whose gradients have other keys than the parameters."""
    found: list[str] = []
    for item in (layer, *(part for _, part in parts_of(layer))):
        for values, grads in CONTAINERS:
            held, there = entries(item, values), entries(item, grads)
            if isinstance(held, dict) and isinstance(there, dict):
                found += [f"{grads} and {values} differ: {text}" for text in differing(held, there)]
    return list(dict.fromkeys(found))


def resets_of(layer: Any, met: frozenset[int] = frozenset()) -> list[Callable[[], Any]]:
    """Return what resets the accumulated gradients of a layer: its own method, or its parts'."""
    own = reset_of(layer)
    if own is not None or id(layer) in met:
        return [own] if own is not None else []
    met |= {id(layer)}
    holders = [
        reset_of(leaf)
        for name, value in attributes_of(layer).items()
        for _, _, leaf in nested(name, value)
        if _in_holder(leaf)
    ]
    below = [reset for _, part in parts_of(layer) for reset in resets_of(part, met)]
    return [reset for reset in holders if reset is not None] + below
