"""What an object holds: its attributes, and the arrays in them, in each of their places."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from types import FunctionType, MethodType, ModuleType
from typing import Any

import numpy as np

from ...state import is_vocabulary
from ...validation import Array
from ..guard import CheckError, theirs
from .conventions import accepts, attributes_of, read
from .subject import MISSING, is_float_array

Steps = tuple[Any, ...]
# What is neither a layer nor an object that holds arrays.
ATOMS = (
    *(str, bytes, int, float, complex, type(None)),
    *(np.ndarray, np.generic, type, ModuleType, FunctionType, MethodType),
)


@dataclass(frozen=True)
class Held:
    """An array that a layer, or an object in it, keeps; `path` leads there from the layer.

    Where backward has returned it, there is no holder, and the path leads there from the result.
    """

    name: str
    value: Array
    holder: Any
    path: Steps = ()


def is_number(value: object) -> bool:
    """Tell whether a value is a float, Python's or NumPy's."""
    return isinstance(value, float | np.float32)


def is_gradient(value: object) -> bool:
    """Tell whether a value may be a gradient: an array of floats, or one number."""
    return is_float_array(value) or is_number(value)


def values_of(item: object) -> dict[str, object]:
    """Return an object's attributes, with the arrays and floats that are those of its class."""
    return {**of_class(item), **attributes_of(item)}


def of_class(item: object) -> dict[str, object]:
    """Return the arrays and floats that an object has from its class."""
    found = {
        name: value
        for base in reversed(type(item).__mro__[:-1])
        for name, value in vars(base).items()
        if isinstance(value, np.ndarray | float | np.floating)
    }
    own = attributes_of(item) if found else {}
    return {
        name: value
        for name, value in found.items()
        if name not in own and read(item, name) is value
        if is_float_array(value) or is_number(value)
    }


def entries(item: object, name: str) -> Any:
    """Return the list or dict under a name, or what the method of that name returns."""
    held = read(item, name)
    if callable(held) and not isinstance(held, dict):
        try:
            with theirs():
                held = held() if accepts(held, 0) else None
        except CheckError:  # as before the first forward pass, which makes them
            return None
    return list(held) if isinstance(held, Iterator) else held


def nested(name: str, held: object, steps: Steps = ()) -> Iterator[tuple[str, Steps, Any]]:
    """Yield what nested lists and dicts hold: its name, the steps to it, and itself."""
    if len(steps) > 5 or is_vocabulary(held):  # no parameters lie so deep; a list may hold itself
        return
    if isinstance(held, dict):
        for key, value in held.items():
            yield from nested(f"{name}.{key}" if name else str(key), value, (*steps, key))
    elif isinstance(held, list | tuple):
        for i, value in enumerate(held):
            yield from nested(f"{name}[{i}]", value, (*steps, i))
    else:
        yield name, steps, held


def held_arrays(layer: object) -> list[Held]:
    """Return the float arrays that a layer and the objects in it keep, in each of their places."""
    found: list[Held] = []
    pending: list[tuple[str, Steps, object]] = [("", (), layer)]
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


def _is_object(item: object) -> bool:
    return not isinstance(item, ATOMS) and hasattr(item, "__dict__")


def held_at(item: object, path: Steps) -> Any:
    """Return what a path now leads to; MISSING where there is nothing."""
    for step in path:
        if isinstance(item, dict):
            item = item.get(step, MISSING)
        elif isinstance(item, list | tuple):
            item = item[step] if isinstance(step, int) and step < len(item) else MISSING
        else:
            item = values_of(item).get(step, MISSING)
    return item
