"""What kind of object a loss reaches: the user's, or an installed package's, or compiled."""

from __future__ import annotations

import operator
import sys
import types
from functools import lru_cache
from types import ModuleType
from typing import Any

import numpy as np

from ..recording import is_installed

_COMPILED: tuple[Any, ...] = (
    np.ufunc,
    type(np.sum),
    types.ClassMethodDescriptorType,
    types.GetSetDescriptorType,
    types.MemberDescriptorType,
    types.MethodDescriptorType,
    types.MethodWrapperType,
    types.WrapperDescriptorType,
    operator.itemgetter,
    operator.attrgetter,
    operator.methodcaller,
)


_COMPILED_NAMES = ("_tuplegetter", "cython_function_or_method")


CONSTANT_MODULES = ("fractions", "decimal", "datetime", "pathlib", "re", "uuid", "zoneinfo")


_PLAIN_SIZE = 32  # bytes of an object with attributes, by Python 3.10; later ones have smaller ones


def is_foreign(kind: type) -> bool:
    """Tell whether a class is Python's, or of an installed package."""
    module = sys.modules.get(kind.__module__)
    if module is None or kind.__module__ == "__main__":
        return False
    return is_foreign_module(module)


def is_foreign_module(module: ModuleType) -> bool:
    """Tell whether a module is Python's, or of an installed package."""
    file = getattr(module, "__file__", None)
    return file is None or is_installed(file)


def slots_of(base: type) -> tuple[str, ...]:
    """Return the names of the slots that a class itself adds, as attributes."""
    slots = vars(base).get("__slots__", ())
    names = (slots,) if isinstance(slots, str) else tuple(slots)
    names = tuple(name for name in names if name not in ("__dict__", "__weakref__"))
    private = f"_{base.__name__.lstrip('_')}"
    hidden = (name.startswith("__") and not name.endswith("__") for name in names)
    return tuple(private + name if h else name for name, h in zip(names, hidden, strict=True))


def is_compiled(value: Any) -> bool:
    """Tell whether a value is a function without Python code, and without state."""
    return isinstance(value, _COMPILED) or type(value).__name__ in _COMPILED_NAMES


def has_compiled_state(kind: type) -> bool:
    """Tell whether objects of a class have more in them than what Python code gave them."""
    slots = sum(len(slots_of(base)) for base in kind.__mro__)
    known = kind is types.SimpleNamespace or kind is type(lru_cache(len))
    return kind.__basicsize__ > _PLAIN_SIZE + 8 * slots and not known
