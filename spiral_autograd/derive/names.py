"""What code names: the globals and attributes through which it reaches values."""

from __future__ import annotations

import dis
from functools import lru_cache
from types import CodeType
from typing import NamedTuple


class _Names(NamedTuple):
    """What code names: globals, attributes, and the modules that it imports."""

    globals: frozenset[str]
    attributes: frozenset[str]
    modules: frozenset[str]


@lru_cache(maxsize=1024)
def names_in(code: CodeType) -> _Names:
    """Return what code and the functions inside of it name."""
    named: dict[str, set[str]] = {"globals": set(), "attributes": set(), "modules": set()}
    kinds = {"GLOBAL": "globals", "GLOBALS": "globals", "NAME": "globals"}
    kinds |= dict.fromkeys(("ATTR", "METHOD", "FROM"), "attributes")
    codes = [code]
    for part in codes:
        for instruction in dis.get_instructions(part):
            kind = kinds.get(instruction.opname.rpartition("_")[2])
            if kind is not None:
                imports = instruction.opname == "IMPORT_NAME"
                named["modules" if imports else kind].add(instruction.argval)
        for const in part.co_consts:
            if isinstance(const, CodeType):
                codes.append(const)
            elif isinstance(const, str) and const.isidentifier():
                named["attributes"].add(const)  # getattr(options, "decay")
    return _Names(**{kind: frozenset(names) for kind, names in named.items()})


def line_of(name: str, code: CodeType) -> int | None:
    """Return the line on which code names a global or an attribute."""
    codes = [code]
    for part in codes:
        line = part.co_firstlineno
        starts = dict(dis.findlinestarts(part))
        for instruction in dis.get_instructions(part):
            line = starts.get(instruction.offset) or line
            loads = instruction.opname.startswith("LOAD_") and "CONST" not in instruction.opname
            if loads and instruction.argval == name:
                return line
        codes += [const for const in part.co_consts if isinstance(const, CodeType)]
    return None
