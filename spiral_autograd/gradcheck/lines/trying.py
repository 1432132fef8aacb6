"""What stands in a line and what may, evaluated once where the line first runs."""

from __future__ import annotations

import ast
from collections.abc import Callable, Sequence
from types import FrameType
from typing import Any, NamedTuple

import numpy as np

from ...validation import Shape
from ..guard import CheckError
from ..source import targets_of
from .functions import FAILING
from .remedy import present
from .tree import Reach, Slot
from .variants import Variant


class Asked(NamedTuple):
    """What is known of a line that is asked for."""

    more: float  # what it costs that it is this one
    shapes: Sequence[Shape]  # of what is made there
    repeats: bool  # it runs several times
    within: int  # statements that run while it does, of the functions that it calls
    shared: bool  # right gradients came from it, too


class Tried(NamedTuple):
    """What a statement makes with a change."""

    made: Sequence[Any]
    gain: float  # how much likelier it is by what it makes
    again: bool  # a lesser change, or none, makes the same
    number: int | None  # what it assigns, where that is a whole number


class Statement:
    """A statement where it first runs; without a frame it is not evaluated."""

    def __init__(
        self, body: Slot, frame: FrameType | None, gain: Callable[[Any], Callable[[Any], float]]
    ) -> None:
        self.body = body
        self._names = None if frame is None else {**frame.f_globals, **frame.f_locals}
        self.made = self._made()
        self._gains = [*map(gain, self.made or ())]
        self._seen = {self._signature(self.made)}

    def tried(self, variant: Variant) -> Tried | None:
        """Return what is made with a change; None where that fails."""
        there = variant.stand()
        try:
            made = self._made()
            signature = self._signature(made)
        finally:
            there.exchange()
        if made is None:
            return None
        again = signature in self._seen
        self._seen.add(signature)
        gain = max((of(v) for of, v in zip(self._gains, made, strict=False)), default=0.0)
        if _hands_on(self.body[3]):  # right elsewhere, and wrong where it is given
            gain = max(gain, 0.0)
        is_number = [*map(type, made)] == [int] and isinstance(self.body[3], ast.Assign)
        return Tried(made, gain, again, made[0] if is_number else None)

    def written(self) -> Reach:
        """Return the shapes of the arrays that the expressions of the statement are."""
        found: dict[str, Any] = {}
        kinds = ast.Call | ast.BinOp | ast.UnaryOp | ast.Subscript
        nodes = ast.walk(self.body[3]) if self.made else ()
        for node in (node for node in nodes if isinstance(node, kinds)):
            if isinstance(made := self._evaluated(node), np.ndarray):
                found[ast.unparse(node)] = made.shape
        return found

    def _made(self) -> Sequence[Any] | None:
        """Return what is made now, nothing where it only does something; None where it fails."""
        if self._names is None:
            return None
        node = present(self.body)
        value = getattr(node, "value", None)
        if value is None or isinstance(node, ast.Expr):  # a call on its own is not made twice
            return ()
        if isinstance(node, ast.AugAssign) and isinstance(node.target, ast.Name):
            value = ast.BinOp(ast.Name(node.target.id, ast.Load()), node.op, value)
            ast.fix_missing_locations(ast.copy_location(value, node))
        made = self._evaluated(value)
        return made if made is None or isinstance(made, tuple) else (made,)

    def _evaluated(self, node: Any) -> Any:
        """Return what an expression is; None where it fails."""
        try:
            return eval(compile(ast.Expression(node), "<changed>", "eval"), self._names)
        except (CheckError, SyntaxError, *FAILING):  # also what is written to, without a value
            return None

    def _signature(self, made: Sequence[Any] | None) -> object:
        """Return what is the same where the statement does the same with equal arrays."""
        node = present(self.body)
        if not made or not all(isinstance(item, np.ndarray | float | int) for item in made):
            return object()
        arrays = [np.asarray(item) for item in made]
        rest = [ast.unparse(target) for target in targets_of(node)]
        op = type(getattr(node, "op", None))
        return type(node), op, *rest, *((array.shape, array.tobytes()) for array in arrays)


def _hands_on(node: ast.stmt) -> bool:
    """Tell whether a statement gives something out, or another name, as it is."""
    copied = getattr(node, "value", None)
    return isinstance(node, ast.Return) or isinstance(copied, ast.Name | ast.Attribute)
