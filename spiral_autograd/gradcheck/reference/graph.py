"""autograd's forward pass as nodes, and its backward pass as a linear map that can be changed."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
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

from ...pytree import leaves
from ...recording import Call, Recording, name_of
from ...validation import Array
from ..blocks import largest

# What NumPy raises where changed values do not fit an operation.
UNFIT = (ValueError, IndexError, ArithmeticError)

Rounding = Callable[[Call, Any, Sequence[Any]], Any]


@dataclass(eq=False, repr=False)
class Node:
    """A value of the forward pass: what it was made of, and how a gradient flows back to that."""

    call: Call
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
        return name_of(self.call.fun)

    @cached_property
    def _back(self) -> Callable[[Any], Sequence[Any]]:
        return self._back_of(self.args)

    def _back_of(self, args: Sequence[Any]) -> Callable[[Any], Sequence[Any]]:
        vjps = primitive_vjps[self.call.fun]
        back: Callable[[Any], Sequence[Any]]
        back = vjps(self.argnums, self.value, args, self.call.kwargs)
        return back

    def vjp(self, g: Any, args: Sequence[Any] | None = None) -> list[Any]:
        """Return what of a gradient flows to each parent; with other `args`, if they are given."""
        if not self.parents:
            return []
        back = self._back if args is None else self._back_of(args)
        return [_dense(part) for part in back(g)]

    def jvp(self, tangents: Sequence[Any]) -> Any:
        """Return how the value moves with its parents: the transpose of `vjp`."""
        if not self.parents:
            return np.zeros(np.shape(self.value))
        rule = primitive_jvps.get(self.call.fun)
        if rule is not None:
            try:
                return rule(self.argnums, tangents, self.value, self.args, self.call.kwargs)
            except (*UNFIT, TypeError, NotImplementedError):  # not all of autograd's rules work
                pass

        def moved(g: Any) -> Any:
            parts = zip(self._back_of(self.args)(g), tangents, strict=True)
            return sum((part * tangent).sum() for part, tangent in parts)

        return make_vjp(moved, np.zeros(np.shape(self.value)))[0](1.0)


class Graph:
    """A recorded forward pass, from the arguments to the loss, and the gradients of all values.

    Attributes
    ----------
    recording : Recording
    nodes : list of Node
        The values between the arguments and the loss, in the order in which they were made.
    roots : list of Node
        The arguments.
    end : Node or None
        The loss; None where it depends on no argument.
    of : dict
        From a recorded call to its node.
    """

    def __init__(self, recording: Recording, values: Mapping[Call, Any] | None = None) -> None:
        self.recording, self._values = recording, values or {}
        roots: list[Call] = list(recording.params)
        adjoints = dict(zip(roots, recording.grads, strict=True)) | recording.adjoints
        self.of: dict[Call, Node] = {}
        forward = (c for c in recording.calls if c.gradient_of is None and c in adjoints)
        for call in (*roots, *forward):
            found = [self.of.get(a) if isinstance(a, Call) else None for a in call.args]
            argnums = tuple(i for i, parent in enumerate(found) if parent is not None)
            self.of[call] = node = Node(
                call,
                self.value(call),
                [self.value(arg) for arg in call.args],
                argnums,
                [parent for parent in found if parent is not None],
                self.value(adjoints[call]),
                len(self.of),
            )
            for parent in dict.fromkeys(node.parents):
                parent.users.append(node)
        self.nodes = list(self.of.values())
        self.roots = self.nodes[: len(roots)]
        self.end = self.of.get(recording.loss)

    @property
    def upstream(self) -> list[Call]:
        """The calls that stand for the upstream gradient."""
        return [leaf for leaf in leaves(list(self.recording.data)) if isinstance(leaf, Call)]

    def value(self, arg: Any) -> Any:
        """Return the value of a call in this graph, or a constant itself."""
        return self._values.get(arg, arg.value) if isinstance(arg, Call) else arg

    def gradient(self, k: int) -> Array:
        """Return the gradient of the k-th argument."""
        return np.asarray(self.roots[k].adjoint)

    @cached_property
    def cancelled(self) -> set[Node]:
        """Each max or min through which nothing flows back, as in a softmax.

        Most handwritten backward passes leave it out, whatever is wrong elsewhere.
        """
        return {
            node
            for node in self.nodes
            if node.name in ("max", "amax", "min", "amin") and _cancels(node)
        }

    # -------------------- forward again --------------------

    def replay(
        self,
        start: Mapping[Call, Any] | None = None,
        *,
        without: Iterable[tuple[Call, int]] = (),
        rounded: Rounding | None = None,
    ) -> dict[Call, Any]:
        """Return the values that differ, of both passes, once both have run again.

        Parameters
        ----------
        start : dict, optional
            Other values for the calls that stand for arguments and upstream gradients.
        without : pairs of a call and the number of one of its arguments
            The constants that are zero.
        rounded : callable, optional
            ``rounded(call, value, args)`` returns what to take for the value of each call.
        """
        values: dict[Call, Any] = dict(start or {})
        zeros: dict[Call, list[int]] = {}
        for call, position in without:
            zeros.setdefault(call, []).append(position)
        still = {id(self.recording.adjoints[node.call]) for node in self.cancelled}
        for call in self.recording.calls:
            depends = call in zeros or any(isinstance(a, Call) and a in values for a in call.args)
            if id(call) in still or not (depends or rounded):
                continue
            args = [
                values[a] if isinstance(a, Call) and a in values else self.value(a)
                for a in call.args
            ]
            for position in zeros.get(call, ()):
                args[position] = np.zeros_like(args[position])[()]
            value = call.fun.fun(*args, **call.kwargs)
            values[call] = value if rounded is None else rounded(call, value, args)
        return values

    def gradients(self, values: Mapping[Call, Any]) -> list[Array]:
        """Return the gradient of each argument, given the values that a replay changed."""
        grads = self.recording.grads
        found = [values.get(g, self.value(g)) if isinstance(g, Call) else g for g in grads]
        return [np.asarray(g) for g in found]

    def changed(self, values: Mapping[Call, Any]) -> Graph:
        """Return the graph with the values that a replay changed."""
        return Graph(self.recording, {**self._values, **values})

    def without(self, constants: Iterable[tuple[Call, int]]) -> Graph | None:
        """Return the graph of the forward pass with some constants at zero; None if it has none."""
        try:
            with np.errstate(all="ignore"):
                return self.changed(self.replay(without=constants))
        except UNFIT:
            return None


def _dense(part: Any) -> Any:
    """Return a gradient as an array: autograd has sparse ones."""
    return sparse_add(vspace(part), None, part) if type(part) in sparse_object_types else part


def _cancels(node: Node) -> bool:
    """Tell whether what flows back to a value adds up to nothing."""
    most = max((largest(user.adjoint) for user in node.users), default=0.0)
    return largest(node.adjoint) <= 1e-6 * most


def is_number(arg: Any) -> bool:
    """Tell whether an argument of a call is one constant number."""
    kinds = int | float | np.generic | np.ndarray
    return isinstance(arg, kinds) and not isinstance(arg, bool | str) and np.ndim(arg) == 0
