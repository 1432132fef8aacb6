"""What part an expression has in its statement, and what else is in reach beside it."""

from __future__ import annotations

import ast
from collections.abc import Callable, Sequence
from functools import cached_property, lru_cache
from typing import Any, NamedTuple

import numpy as np

from ...validation import Shape
from .tree import REFERENCE, Reach, Slot


class Seen(NamedTuple):
    """What is seen where a statement stands."""

    body: Slot  # the statement
    reach: Reach
    held: Reach  # what is in reach, and what its expressions are
    shapes: tuple[Shape, ...]  # of what it makes


class Part:
    """An expression, or an operator, of a statement."""

    def __init__(self, slot: Slot, seen: Seen) -> None:
        self.holder, self.field, _, self.node = slot
        self.seen, self.text = seen, ast.unparse(self.node)
        self.own: Any = seen.held.get(self.text)  # the shape of an array, or a number
        self.is_array = isinstance(self.own, tuple)
        self.ndim = len(self.own) if isinstance(self.own, tuple) else 0
        self.is_name = isinstance(self.node, REFERENCE) and self.text in seen.reach
        # What it is an operand of.
        self.op = self.holder.op if isinstance(self.holder, ast.BinOp) else None

    @cached_property
    def roles(self) -> frozenset[str]:
        """The parts that it has in its statement."""
        return frozenset(role for role, is_so in _ROLES.items() if is_so(self))

    @cached_property
    def fitting(self) -> tuple[Shape, ...]:
        """The shapes of which what is made of it may be."""
        is_inner = isinstance(self.own, tuple) and "whole" not in self.roles
        return (self.own,) if is_inner else self.seen.shapes

    @cached_property
    def is_index(self) -> bool:
        """Whether it is an index, or says how a loop goes."""
        statement = self.seen.body[3]
        held = (getattr(node, "slice", None) for node in ast.walk(statement))
        is_one_of_some = self.field == "elts" and any(some is self.holder for some in held)
        is_alone = self.field in ("slice", "lower", "upper")
        return is_one_of_some or is_alone or isinstance(statement, ast.For)

    @cached_property
    def is_value(self) -> bool:
        """Whether it is a number or an array, and no test or length."""
        node, holder = self.node, self.holder
        if isinstance(holder, ast.Call) and ast.unparse(holder.func) == "len":
            return False
        if isinstance(node, ast.Compare):
            return isinstance(holder, ast.BinOp)
        if isinstance(node, ast.Name | ast.Attribute):  # times an array, np.c_ would have no end
            return self.own is not None
        return isinstance(node, ast.expr) and not isinstance(node, ast.Tuple | ast.Lambda)

    @cached_property
    def is_term(self) -> bool:
        """Whether it may have a factor, or a term, more."""
        is_factor = isinstance(self.op, ast.Mult | ast.Div)
        is_asked = self.field in ("func", "iter", "test") or isinstance(self.node, ast.Constant)
        return self.is_value and not (is_factor or is_asked or self.is_index)

    @cached_property
    def has_axes(self) -> bool:
        """Whether it may be an array, of which another view may be taken."""
        may_be = self.is_array or self.is_name or isinstance(self.node, ast.Subscript | ast.Call)
        is_operand = self.field in ("left", "right", "args", "value", "elts")
        return may_be and is_operand and self.is_value

    @cached_property
    def is_sum(self) -> bool:
        """Whether it adds, or subtracts."""
        return isinstance(self.node, ast.BinOp) and isinstance(self.node.op, ast.Add | ast.Sub)


_ROLES: dict[str, Callable[[Part], bool]] = {
    "name": lambda part: part.is_name,
    "value": lambda part: part.is_name and type(part.own) is not int,
    "array": lambda part: part.is_name and part.is_array,
    "made": lambda part: part.is_array and not part.is_name,
    "shaped": lambda part: part.is_array,
    "square": lambda part: part.ndim == 2 and part.own[0] == part.own[1] > 1,
    "zeros": lambda part: isinstance(part.node, ast.Call) and ".zeros" in part.text,
    "number": lambda part: type(getattr(part.node, "value", None)) in (int, float),
    "all": lambda part: isinstance(part.node, ast.Slice) and part.text == ":",
    "index": lambda part: part.is_index and not isinstance(part.node, ast.Constant | ast.Slice),
    "counter": lambda part: part.is_index and part.is_name and type(part.own) is int,
    "counted": lambda part: part.is_index and isinstance(part.node, ast.BinOp | ast.UnaryOp),
    "number index": lambda part: part.is_index and isinstance(part.node, ast.Constant),
    "axes": lambda part: part.has_axes and not part.text.endswith(".T"),
    "rows": lambda part: part.has_axes and part.ndim > 0,
    "matrix": lambda part: part.has_axes and part.ndim > 1,
    "factor": lambda part: isinstance(part.op, ast.Mult) and part.field == "right",
    "term": lambda part: part.is_term,
    "single": lambda part: part.is_term and not part.is_sum,
    "sum": lambda part: part.is_term and part.is_sum,
    "whole": lambda part: part.is_term and part.holder is part.seen.body[3],
}


# What a number is for an expression that is a number or an array, and what an array is for one.
_OF_NUMBERS: dict[str, Callable[[Any, Any, bool], bool]] = {
    "number": lambda own, n, is_literal: True,
    "factor": lambda own, n, is_literal: True,
    "zero": lambda own, n, is_literal: bool(n == 0),
    "count": lambda own, n, is_literal: type(n) is int,
    "variable": lambda own, n, is_literal: type(n) is float and not is_literal,
    "alike": lambda own, n, is_literal: type(n) is type(own) and not is_literal,
    "literal": lambda own, n, is_literal: type(n) is type(own) and is_literal,
}
_OF_SHAPES: dict[str, Callable[[Shape, Sequence[Shape]], bool]] = {
    "array": lambda shape, fitting: True,
    "equal": lambda shape, fitting: shape in fitting,
    "factor": lambda shape, fitting: _fits(shape, fitting),
    "fitting": lambda shape, fitting: _fits(shape, fitting),
    "of rows": lambda shape, fitting: shape in [some[:-1] for some in fitting if some[1:]],
}
_OF_TWO_SHAPES: dict[str, Callable[[Shape, Shape], bool]] = {
    "alike": lambda own, shape: own == shape,
    "other": lambda own, shape: own != shape and len(own) == len(shape),
    "spread": lambda own, shape: own != shape and _fits(own, [shape]),
    "transpose": lambda own, shape: len(own) == 2 and shape == own[::-1],
    "column": lambda own, shape: len(own) == 2 and shape == (own[0], 1),
    "left": lambda own, shape: len(shape) == 2 and own[-1:] == shape[:1],
    "left turned": lambda own, shape: len(shape) == 2 and own[-1:] == shape[1:],
    "right": lambda own, shape: len(own) == len(shape) == 2 and own[0] == shape[1],
    "right turned": lambda own, shape: len(own) == len(shape) == 2 and own[0] == shape[0],
}


@lru_cache(maxsize=4096, typed=True)
def relations(
    own: Any, thing: Any, fitting: tuple[Shape, ...], is_literal: bool
) -> tuple[str, ...]:
    """Return what a thing in reach is for an expression, of which the shapes are fitting."""
    if isinstance(thing, str):
        return ()
    if not isinstance(thing, tuple):
        return tuple(how for how, is_so in _OF_NUMBERS.items() if is_so(own, thing, is_literal))
    found = [how for how, is_so in _OF_SHAPES.items() if is_so(thing, fitting)]
    pairs = _OF_TWO_SHAPES.items() if isinstance(own, tuple) else ()
    return (*found, *(how for how, is_so in pairs if is_so(own, thing)))


def _fits(shape: Shape, shapes: Sequence[Shape]) -> bool:
    """Tell whether an array of some shape can be a factor of one of some shapes."""
    if not shape:  # a number, of numbers that have no shape
        return True
    for made in shapes:
        try:
            if np.broadcast_shapes(shape, made) == made:
                return True
        except ValueError:
            continue
    return False
