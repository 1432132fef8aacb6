"""What code names, and what kind of object it is that a loss reaches through such names."""

from __future__ import annotations

import dis
import operator
import types
from functools import lru_cache
from types import CodeType
from typing import NamedTuple

import numpy as np

from ..state import slots_of

# Python's values that cannot change, for all their attributes.
CONSTANT_MODULES = ("fractions", "decimal", "datetime", "pathlib", "re", "uuid", "zoneinfo")
_COMPILED: tuple[type, ...] = (
    np.ufunc,
    type(np.sum),
    types.ClassMethodDescriptorType,
    types.GetSetDescriptorType,
    types.MemberDescriptorType,
    types.MethodDescriptorType,
    types.WrapperDescriptorType,
    operator.itemgetter,
    operator.attrgetter,
    operator.methodcaller,
)
_COMPILED_NAMES = ("_tuplegetter", "cython_function_or_method")
_PLAIN_SIZE = 32  # bytes of an object with attributes, by Python 3.10; later ones have smaller ones


class _Names(NamedTuple):
    """What code names: globals, attributes, imported modules; and the line that loads a name."""

    globals: set[str]
    attributes: set[str]
    modules: set[str]
    lines: dict[str, int]


@lru_cache(maxsize=1024)
def names_in(code: CodeType) -> _Names:
    """Return what code and the functions inside of it name."""
    names = _Names(set(), set(), set(), {})
    kinds = dict.fromkeys(("GLOBAL", "GLOBALS", "NAME"), names.globals)
    kinds |= dict.fromkeys(("ATTR", "METHOD", "FROM"), names.attributes)
    codes = [code]
    for part in codes:
        line, starts = part.co_firstlineno, dict(dis.findlinestarts(part))
        for instruction in dis.get_instructions(part):
            line = starts.get(instruction.offset) or line
            name, operation = instruction.argval, instruction.opname
            if operation == "IMPORT_NAME":
                names.modules.add(name)
            elif (kind := kinds.get(operation.rpartition("_")[2])) is not None:
                kind.add(name)
            if operation.startswith("LOAD_") and "CONST" not in operation:
                names.lines.setdefault(name, line)
        for const in part.co_consts:
            if isinstance(const, CodeType):
                codes.append(const)
            elif isinstance(const, str) and const.isidentifier():
                names.attributes.add(const)  # getattr(options, "decay")
    return names


def is_compiled(value: object) -> bool:
    """Tell whether a value is a function without Python code, and without state."""
    return isinstance(value, _COMPILED) or type(value).__name__ in _COMPILED_NAMES


def has_compiled_state(kind: type) -> bool:
    """Tell whether objects of a class have more in them than what Python code gave them."""
    is_large = kind.__basicsize__ > _PLAIN_SIZE + 8 * len(slots_of(kind))
    return is_large and kind is not type(lru_cache(len))
