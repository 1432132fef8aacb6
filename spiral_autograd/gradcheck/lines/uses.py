"""What a statement reads and writes as it runs: variables, attributes, the insides of objects."""

from __future__ import annotations

import ast
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from types import FrameType
from typing import Any

import numpy as np

from ..source import Step, mutated, targets_of

# ("local", frame, name), ("cell", name), ("global", module, name), ("attr", object, name), or
# ("inside", object): objects are told by their id.
Where = tuple[Any, ...]


@dataclass(frozen=True)
class Place:
    """Something that holds a value; of a list or dict the entry, where it is known."""

    where: Where
    key: Any = None


class _Unknown:
    """What cannot be told without running the user's code."""


UNKNOWN = _Unknown()


@dataclass(frozen=True)
class Scope:
    """The names that a statement sees, and the frame that it runs in."""

    frame: FrameType
    number: int
    names: Mapping[str, Any]

    def value(self, node: ast.AST) -> Any:
        """Return the object that an expression stands for, as far as a look-up tells."""
        if isinstance(node, ast.Name):
            if node.id in self.names:
                return self.names[node.id]
            return self.frame.f_globals.get(node.id, UNKNOWN)
        if isinstance(node, ast.Attribute):
            return _fields(self.value(node.value)).get(node.attr, UNKNOWN)
        if isinstance(node, ast.Subscript):
            held, key = self.value(node.value), self.key(node)
            if type(held) in (dict, list, tuple) and key is not None:
                try:
                    return held[key]
                except (LookupError, TypeError):
                    return UNKNOWN
        return UNKNOWN

    def key(self, node: ast.Subscript) -> Any:
        """Return the key of an entry of a list or dict; None where it is not plain."""
        if type(self.value(node.value)) not in (dict, list, tuple):
            return None
        key = node.slice.value if isinstance(node.slice, ast.Constant) else self.value(node.slice)
        return key if isinstance(key, str | int) else None

    def variable(self, name: str) -> Where:
        """Return where a variable is held."""
        code = self.frame.f_code
        if name in code.co_freevars or name in code.co_cellvars:
            return ("cell", name)
        if name in self.names or name in code.co_varnames:
            return ("local", self.number, name)
        return ("global", id(self.frame.f_globals), name)

    def read(self, node: ast.AST) -> Iterator[Place]:
        """Yield what an expression of names, attributes and entries is read from."""
        value = self.value(node)
        if isinstance(node, ast.Name):
            yield Place(self.variable(node.id))
        elif isinstance(node, ast.Attribute):
            held = self.value(node.value)
            if node.attr in _fields(held):
                yield Place(("attr", id(held), node.attr))
            else:
                yield from self.read(node.value)
        elif isinstance(node, ast.Subscript):
            held = self.value(node.value)
            if held is not UNKNOWN and self.key(node) is not None:
                yield Place(("inside", id(held)), self.key(node))
                yield from (p for p in self.read(node.value) if p.where[0] != "inside")
            else:
                yield from self.read(node.value)
        if isinstance(value, np.ndarray | list | dict):
            yield Place(inside(value))

    def written(self, node: ast.AST, anew: bool) -> Iterator[tuple[Place, bool]]:
        """Yield what an assignment to an expression writes, and whether it writes all of it."""
        value = self.value(node)
        if isinstance(node, ast.Name):
            yield Place(self.variable(node.id)), anew
        elif isinstance(node, ast.Attribute):
            held = self.value(node.value)
            if held is not UNKNOWN:
                yield Place(("attr", id(held), node.attr)), anew
        elif isinstance(node, ast.Subscript):
            held, key = self.value(node.value), self.key(node)
            all_of_it = key is not None or (isinstance(held, np.ndarray) and _is_all(node.slice))
            if held is not UNKNOWN:
                yield Place(inside(held), key), anew and all_of_it
        if not anew and isinstance(value, np.ndarray):
            yield Place(inside(value)), False


def _fields(held: Any) -> Mapping[str, Any]:
    return held.__dict__ if hasattr(type(held), "__dict__") and _has_fields(held) else {}


def _has_fields(held: Any) -> bool:
    return not isinstance(held, type) and isinstance(getattr(held, "__dict__", None), dict)


def inside(value: Any) -> Where:
    """Return the place of what an object holds; views are the array that they look into."""
    while isinstance(value, np.ndarray) and isinstance(value.base, np.ndarray):
        value = value.base
    return ("inside", id(value))


def _is_all(index: ast.expr) -> bool:
    if isinstance(index, ast.Slice):
        return index.lower is index.upper is index.step is None
    return isinstance(index, ast.Constant) and index.value is Ellipsis


@dataclass(frozen=True)
class Uses:
    """The expressions that a statement reads, and those that it assigns to."""

    reads: tuple[ast.AST, ...]
    anew: tuple[ast.AST, ...]
    into: tuple[ast.AST, ...]


@lru_cache(maxsize=4096)
def uses_of(step: Step) -> Uses:
    """Return what a statement reads, and what it writes: anew, or into what is there."""
    node = step.node
    targets = targets_of(node)
    reads: list[ast.AST] = []
    for part in step.parts:
        reads += references(part)
    # What is written into, rather than anew, keeps some of what it had.
    keeping = isinstance(node, ast.AugAssign)
    reads += [target for target in targets if keeping or isinstance(target, ast.Subscript)]
    heads = [
        head
        for block in step.blocks
        for head in (getattr(block, "test", None), getattr(block, "iter", None))
        if head is not None
    ]
    for head in heads:  # what decides whether a statement runs is read too
        reads += references(head)
    into: list[ast.AST] = list(targets) if keeping else []
    anew: list[ast.AST] = [] if into else list(targets)
    for part in step.parts:
        for item in ast.walk(part):
            if isinstance(item, ast.NamedExpr):
                anew.append(item.target)
            elif isinstance(item, ast.Call):
                into += mutated(item)
    return Uses(tuple(reads), tuple(anew), tuple(into))


def references(node: ast.AST) -> list[ast.AST]:
    """Return the largest expressions of names, attributes and entries that are read in one."""
    if isinstance(node, ast.Name | ast.Attribute | ast.Subscript):
        found: list[ast.AST] = []
        stored = isinstance(node.ctx, ast.Store)
        if not stored:
            found.append(node)
        inner: ast.AST = node
        while isinstance(inner, ast.Attribute | ast.Subscript):
            if isinstance(inner, ast.Subscript):
                found += references(inner.slice)
            inner = inner.value
        return found if isinstance(inner, ast.Name) else [*found, *references(inner)]
    return _of_all(ast.iter_child_nodes(node))


def _of_all(nodes: Iterable[ast.AST]) -> list[ast.AST]:
    return [found for node in nodes for found in references(node)]
