"""What the names of a statement stand for, told without running any of the user's code."""

from __future__ import annotations

import ast
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from types import FrameType, ModuleType
from typing import Any

import numpy as np

from ...state import is_vocabulary

UNKNOWN = object()
# What holds a value: ("local", run, name), ("attribute", id, name), ("entry", id, key), ….
Cell = tuple[object, ...]

# What a key may be made of that is known without running anything of the user's.
_KEY = ast.Constant | ast.Name | ast.BinOp | ast.Add | ast.Sub | ast.JoinedStr | ast.FormattedValue


@dataclass(frozen=True)
class Scope:
    """The names that a statement sees."""

    frame: FrameType
    run: int
    names: Mapping[str, Any]

    def look(self, node: ast.AST) -> tuple[Any, Cell | None]:
        """Return the object that an expression stands for, and what holds it."""
        if isinstance(node, ast.Name):
            if node.id in self.names:
                code = self.frame.f_code
                shared = node.id in code.co_freevars or node.id in code.co_cellvars
                return self.names[node.id], ("local", None if shared else self.run, node.id)
            return self.frame.f_globals.get(node.id, UNKNOWN), ("global", node.id)
        if isinstance(node, ast.Attribute):
            held, _ = self.look(node.value)
            return fields_of(held).get(node.attr, UNKNOWN), ("attribute", id(held), node.attr)
        if isinstance(node, ast.Subscript):
            held, _ = self.look(node.value)
            key = self._key(node.slice) if type(held) in (dict, list, tuple) else None
            if key is not None:
                with suppress(LookupError, TypeError):
                    return held[key], ("entry", id(held), key)
                return UNKNOWN, ("entry", id(held), key)
        return UNKNOWN, None

    def _key(self, node: ast.expr) -> Any:
        """Return a key that is a number or a text, or made of such variables; else None."""
        if isinstance(node, ast.Constant):
            return node.value
        ids = (n.id for n in ast.walk(node) if isinstance(n, ast.Name))
        names = {name: self.names.get(name, str if name == "str" else None) for name in ids}
        known = all(value is str or type(value) in (int, str) for value in names.values())
        if known and all(isinstance(n, _KEY | ast.Call | ast.Load) for n in ast.walk(node)):
            with suppress(TypeError):
                return eval(compile(ast.Expression(node), "<key>", "eval"), {}, names)
        return None

    def held(self, node: ast.AST) -> Any:
        """Return the innermost array, list or dict that an expression is rooted in."""
        while True:
            value = self.look(node)[0]
            inner = getattr(node, "func" if isinstance(node, ast.Call) else "value", None)
            if isinstance(value, np.ndarray | list | dict) or inner is None:
                return value
            node = inner


def fields_of(held: object) -> Mapping[str, Any]:
    """Return the attributes of an object, without asking its own methods for them."""
    found = None
    if not isinstance(held, type):
        with suppress(AttributeError, TypeError):
            found = object.__getattribute__(held, "__dict__")
    return found if isinstance(found, dict) else {}


def is_plain(value: object) -> bool:
    """Tell whether a value is a number, a text or a container: nothing with an identity."""
    return value is None or isinstance(value, int | float | str | np.generic | list | tuple | dict)


def entries(value: object, newest: bool = False) -> Iterator[tuple[Any, Any]]:
    """Yield the keys and values of a list, tuple or dict, if need be the newest first."""
    if isinstance(value, list | tuple):
        yield from ((i, value[i]) for i in range(len(value))[:: -1 if newest else 1])
    elif isinstance(value, dict):
        yield from list(dict.items(value))[:: -1 if newest else 1]


def leaves(value: object, depth: int, attributes: bool = False) -> Iterator[tuple[str, Any]]:
    """Yield the arrays that a value is or holds, with their paths; without attributes numbers."""
    number = isinstance(value, int | float | np.number) and not isinstance(value, bool)
    if isinstance(value, np.ndarray) or (number and not attributes):
        yield "", value
    elif depth and not is_vocabulary(value) and not isinstance(value, ModuleType):
        inner = list(entries(value)) or (list(fields_of(value).items()) if attributes else [])
        for key, item in inner:
            for path, leaf in leaves(item, depth - 1, attributes):
                yield f"[{key!r}]{path}", leaf
