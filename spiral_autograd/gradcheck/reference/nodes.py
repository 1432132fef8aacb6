"""A value of a recorded forward pass, and how a gradient flows back through what made it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
from autograd.core import (
    make_vjp,
    primitive_jvps,
    primitive_vjps,
    sparse_add,
    sparse_object_types,
    vspace,
)

from ...recording import Call, name_of

# What NumPy raises where changed values do not fit an operation.
UNFIT = (ValueError, IndexError, ArithmeticError)

Back = Callable[[Any], Sequence[Any]]


@dataclass(eq=False, repr=False)
class Node:
    """A value of the forward pass: what it was made of, and how a gradient flows back to that."""

    call: Call
    made: Call  # the call whose derivative it is: the same, or the `split` that made all arrays
    whole: Any  # what that returned
    value: Any
    args: list[Any]
    argnums: tuple[int, ...]
    parents: list[Node]
    adjoint: Any
    number: int
    users: list[Node] = field(default_factory=list)

    @property
    def name(self) -> str:
        """The name of the primitive that made it."""
        return name_of(self.made.fun)

    @cached_property
    def _back(self) -> Back:
        return self._back_of(self.args, self.argnums)

    def _back_of(self, args: Sequence[object], argnums: tuple[int, ...]) -> Back:
        rule = primitive_vjps[self.made.fun]
        back: Back = rule(argnums, self.whole, tuple(args), self.made.kwargs)  # as einsum's needs
        if self.made is self.call:
            return back

        def back_of_one(g: object) -> Sequence[object]:
            parts: list[Any] = [np.zeros(np.shape(part)) for part in self.whole]
            parts[self.call.args[1]] = g
            return back(parts)

        return back_of_one

    def vjp(self, g: object, args: Sequence[object] | None = None) -> list[Any]:
        """Return what of a gradient flows to each parent; with other `args`, if they are given."""
        if not self.parents:
            return []
        back = self._back if args is None else self._back_of(args, self.argnums)
        return [_dense(part) for part in back(g)]

    def jvp(self, tangents: Mapping[Node, object]) -> Any:
        """Return how the value moves with those parents that move: the transpose of `vjp`."""
        moving = [(i, p) for i, p in zip(self.argnums, self.parents, strict=True) if p in tangents]
        argnums, moves = tuple(i for i, _ in moving), [tangents[p] for _, p in moving]
        rule = primitive_jvps.get(self.call.fun)
        if rule is not None and self.made is self.call:
            try:
                return rule(argnums, moves, self.value, tuple(self.args), self.call.kwargs)
            except (*UNFIT, TypeError, NameError, NotImplementedError):  # not all rules work
                pass

        def moved(g: object) -> Any:
            parts = zip(self._back_of(self.args, argnums)(g), moves, strict=True)
            return sum((part * move).sum() for part, move in parts)

        return make_vjp(moved, np.zeros(np.shape(self.value)))[0](1.0)


def _dense(part: object) -> object:
    """Return a gradient as an array: autograd has sparse ones."""
    return sparse_add(vspace(part), None, part) if type(part) in sparse_object_types else part
