"""autograd's backward graph, changed in one place and run again."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cached_property
from typing import Any

import numpy as np
from autograd.core import VJPNode, add_outgrads
from autograd.tracer import isbox, new_box, toposort, trace_stack

from ...pytree import leaves
from ...recording import Call, Recording, name_of, parents_of
from ...validation import Array
from ..blocks import largest
from ..guard import NEVER, Deadline

# What NumPy raises where changed values do not fit an operation.
UNFIT = (ValueError, IndexError, ArithmeticError)

Values = dict[Call, Any]
Make = Callable[[Call, Callable[[Any], Any]], Any]


class BackwardGraph:
    """A recording whose values can be changed, to see which gradients come out.

    Attributes
    ----------
    recording : Recording
    calls : list of Call
    forward : list of Call
        The calls of the forward pass that have a float array as their value.
    backward : list of Call
        Those of the backward pass on the way from the upstream gradient to a gradient.
    wholes : list of (Call, Call)
        Forward values and arguments, each with the call of its whole gradient.
    reaches : dict
        From a call to the numbers of the gradients that it flows into.
    """

    def __init__(
        self, recording: Recording, values: Values | None = None, *, through_max: bool = False
    ) -> None:
        self.recording, self.through_max = recording, through_max
        self.base: Values = values or {}
        self.calls = recording.calls
        self.adjoints = {
            call: adjoint
            for call, adjoint in recording.adjoints.items()
            if isinstance(adjoint, Call)
        }
        self.reaches = self._reach()
        self._position = {call: i for i, call in enumerate(self.calls)}
        self._users = self._used_by()
        self._carrying = self._find_carrying()
        self.forward = [c for c in self.calls if c.gradient_of is None and _is_float(c.value)]
        self.backward = [
            c
            for c in self.calls
            if c.gradient_of is not None and c in self.reaches and c in self._carrying
            if _is_float(c.value)
        ]
        self.still = frozenset() if through_max else self._cancelled()
        grads = zip(self.roots, recording.grads, strict=True)
        self.wholes = [*self.adjoints.items(), *((r, g) for r, g in grads if isinstance(g, Call))]
        self._paths = {to: paths_of(whole) for to, whole in self.wholes}
        self._meeting = {whole: to for to, whole in self.wholes if is_sum_of_paths(whole)}
        self._destinations = {path: to for to, whole in self.wholes for path in paths_of(whole)}

    def value(self, arg: Any) -> Any:
        """Return the value of a call in this graph, or the constant itself."""
        return self.base.get(arg, arg.value) if isinstance(arg, Call) else arg

    def array(self, arg: Any) -> Array:
        """Return a value as an array."""
        return np.asarray(self.value(arg))

    @property
    def roots(self) -> list[Call]:
        """The calls that stand for the arguments."""
        return list(self.recording.params)

    @property
    def upstream(self) -> list[Call]:
        """The calls that stand for the upstream gradient."""
        return [leaf for leaf in leaves(list(self.recording.data)) if isinstance(leaf, Call)]

    def _reach(self) -> dict[Call, frozenset[int]]:
        reach: dict[Call, set[int]] = {}
        for k, grad in enumerate(self.recording.grads):
            if isinstance(grad, Call):
                reach.setdefault(grad, set()).add(k)
        for call in reversed(self.calls):
            mine = reach.get(call)
            if mine and call.gradient_of is not None:
                for arg in parents_of(call):
                    reach.setdefault(arg, set()).update(mine)
        return {call: frozenset(ks) for call, ks in reach.items()}

    def users(self, call: Call) -> list[Call]:
        """Return the calls that take the value of a call."""
        return self._users.get(call, [])

    def position(self, call: Call | None) -> int:
        """Return when a call was made."""
        return self._position.get(call, -1) if call is not None else -1

    def carries(self, call: Call) -> bool:
        """Tell whether a value depends on the upstream gradient."""
        return call in self._carrying

    @cached_property
    def turns(self) -> list[list[Call]]:
        """The backward calls that one operation in the body of a loop has led to, as groups."""
        number: dict[tuple[Any, ...], int] = {}
        groups: dict[tuple[Any, ...], list[Call]] = {}
        for call in self.backward:
            of = call.gradient_of
            if of is None or of.instruction is None:
                continue
            to = self.leads_to(call)
            argument = next((i for i, arg in enumerate(of.args) if arg is to), -1)
            branch = (name_of(call.fun), argument)
            mine = (id(of), *branch)
            number[mine] = number.get(mine, 0) + 1
            groups.setdefault((of.instruction, *branch, number[mine]), []).append(call)
        return [calls for calls in groups.values() if len(calls) > 1]

    def summed_in(self, part: Call) -> Call | None:
        """Return the forward value in which the paths meet that a sum, or a part of it, adds."""
        whole = part
        while whole not in self._meeting:
            sums = [user for user in self.users(whole) if is_sum_of_paths(user)]
            if not sums:
                return None
            whole = sums[0]
        return self._meeting[whole]

    def way(self, path: Any, to: Call | None) -> Call | None:
        """Return the forward call by which a value has led to a path of its gradient.

        What an addition brings to its terms is the very gradient of the sum: such a path is
        known by the value that it is the gradient of.
        """
        of = path.gradient_of if isinstance(path, Call) else None
        users = [user for user in self.users(to) if user.gradient_of is None] if to else []
        if of is None or to is None or of in users:
            return of
        making = {call.gradient_of for call in self._paths.get(to, [])}  # their paths are others
        bare = (user for user in users if self.adjoints.get(user) is path and user not in making)
        return next(bare, of)

    def runs_of(self, call: Call, arg: Call) -> list[Call]:
        """Return the forward calls that the same instruction made of a value, in order."""
        users = dict.fromkeys(u for u in self.users(arg) if u.gradient_of is None)
        return [u for u in users if u is call or (call.instruction or u) == u.instruction]

    def leads_to(self, call: Call) -> Call | None:
        """Return the argument of its forward call to which a part of the gradient leads."""
        following: Call | None = call
        while following is not None:
            if following in self._destinations:
                return self._destinations[following]
            of = call.gradient_of
            own = [user for user in self.users(following) if user.gradient_of is of]
            following = own[0] if own else None
        return None

    @cached_property
    def repeated(self) -> set[Call]:
        """The calls of loops of many turns, those of the first and the last turn left out."""
        return {call for calls in self.turns if len(calls) > 4 for call in calls[1:-1]}

    def are_apart(self, calls: Sequence[Call]) -> bool:
        """Tell whether none of some calls depends on another of them."""
        wanted, met = set(calls), set()
        pending = [user for call in calls for user in self.users(call)]
        while pending:
            call = pending.pop()
            if call in wanted:
                return False
            if call not in met:
                met.add(call)
                pending += self.users(call)
        return True

    def _used_by(self) -> dict[Call, list[Call]]:
        users: dict[Call, list[Call]] = {}
        for call in self.calls:
            for arg in parents_of(call):
                users.setdefault(arg, []).append(call)
        return users

    def _cancelled(self) -> frozenset[Call]:
        """Return the gradients of a max or min that cancel out, as in a softmax.

        Most handwritten backward passes leave them out, whatever is wrong elsewhere.
        """
        found = set()
        for call, adjoint in self.adjoints.items():
            if name_of(call.fun) in ("max", "amax", "min", "amin"):
                parts = [_size(self.value(a)) for a in parents_of(adjoint)]
                if _size(self.value(adjoint)) <= 1e-6 * max(parts, default=0):
                    found.add(adjoint)
        return frozenset(found)

    def _find_carrying(self) -> set[Call]:
        """Return the backward calls that depend on an upstream gradient: adjoints, not residuals.

        The gradient of a scalar loss begins with a constant one: there all of them do.
        """
        found = set(self.upstream)
        starts = {id(adjoint) for adjoint in self.recording.adjoints.values()}
        for call in self.calls:
            if call.gradient_of is not None and (
                id(call) in starts or any(arg in found for arg in parents_of(call))
            ):
                found.add(call)
        return found

    # -------------------- changed, and run again --------------------

    def replay(self, changes: Mapping[Call, Make], *, backward_only: bool = True) -> Values:
        """Return the values of all calls that depend on those changed, these included.

        Parameters
        ----------
        changes : dict
            From a call to what makes its new value: ``make(call, get)``, where ``get`` returns
            the value that a call has by then.
        """
        values: Values = {}

        def get(arg: Any) -> Any:
            return self._value_among(values, arg)

        first = min(self._position.get(call, 0) for call in changes)
        for call in self.calls[first:]:
            if call in changes:
                values[call] = changes[call](call, get)
            elif backward_only and call.gradient_of is None:
                continue
            elif any(arg in values for arg in parents_of(call)):
                still = call in self.still
                values[call] = np.zeros_like(self.value(call)) if still else again(call, get)
        return values

    def gradient(self, k: int, values: Values) -> Array:
        """Return the gradient of the k-th argument, given the values that a replay changed."""
        grad = self.recording.grads[k]
        if isinstance(grad, Call):
            return np.asarray(values[grad] if grad in values else self.value(grad))
        return np.asarray(grad)

    def for_upstream(self, upstream: Sequence[Array]) -> BackwardGraph:
        """Return the graph for another upstream gradient."""
        values: Values = dict(zip(self.upstream, upstream, strict=True))
        for call in self.calls:
            if call.gradient_of is not None and any(arg in values for arg in parents_of(call)):
                values[call] = again(call, lambda arg: self._value_among(values, arg))
        return self.changed(values)

    def _value_among(self, values: Values, arg: Any) -> Any:
        return values[arg] if isinstance(arg, Call) and arg in values else self.value(arg)

    def is_last(self, call: Call) -> bool:
        """Tell whether a backward call brings its gradient to an argument of its forward call."""
        return call in self._destinations

    def changed(self, values: Values) -> BackwardGraph:
        """Return the graph with some values in place of the recorded ones."""
        values = {**self.base, **values}
        return BackwardGraph(self.recording, values, through_max=self.through_max)

    def through_every_max(self) -> BackwardGraph | None:
        """Return the graph in which what flows through a max that cancels is run again too.

        None where there is no such max.
        """
        return BackwardGraph(self.recording, self.base, through_max=True) if self.still else None

    def sensitivities(
        self, weights: Mapping[int, Array], deadline: Deadline = NEVER
    ) -> dict[Call, Array]:
        """Return how Σ weights · gradients moves with each backward value.

        The backward pass is linear in its adjoints, so the inner product of a change with these
        tells what the change does to the gradients, without running it again.
        """
        nodes = [call for call in self.backward if self.reaches[call] & set(weights)]

        def moved(shifts: Sequence[Any]) -> Any:
            shift = dict(zip(nodes, shifts, strict=True))
            values: Values = {}
            for call in self.calls:
                known = any(arg in values for arg in parents_of(call))
                if call.gradient_of is None or not (known or call in shift):
                    continue
                if call in self.still:
                    continue
                deadline.check()
                value = self.value(call)
                if known:
                    args = [
                        values.get(a, self.value(a)) if isinstance(a, Call) else a
                        for a in call.args
                    ]
                    value = call.fun(*args, **call.kwargs)
                values[call] = value + shift[call] if call in shift else value
            total: Any = 0.0
            for k, weight in weights.items():
                grad = self.recording.grads[k]
                if isinstance(grad, Call) and isbox(values.get(grad)):
                    total = total + (values[grad] * weight).sum()
            return total

        zeros = [np.zeros(np.shape(call.value)) for call in nodes]
        return dict(zip(nodes, _gradients(moved, zeros, deadline), strict=True)) if nodes else {}

    # -------------------- without a small constant --------------------

    def without(self, constants: Sequence[tuple[Call, int, float]]) -> BackwardGraph | None:
        """Return the graph of the forward pass with some constants, arguments of calls, at zero."""

        def make(call: Call, get: Callable[[Any], Any]) -> Any:
            args = [get(arg) for arg in call.args]
            for position in (place for of, place, _ in constants if of is call):
                args[position] = np.zeros_like(args[position])[()]
            return call.fun.fun(*args, **call.kwargs)

        try:
            with np.errstate(all="ignore"):
                changes = {call: make for call, *_ in constants}
                return self.changed(self.replay(changes, backward_only=False))
        except UNFIT:
            return None

    def small_constants(self) -> Iterator[tuple[Call, int, float]]:
        """Yield each small constant that the forward pass adds or compares with."""
        for call in self.forward:
            if name_of(call.fun) not in ("add", "subtract", "maximum", "clip", "fmax", "where"):
                continue
            for position, arg in enumerate(call.args):
                if is_number(arg) and 0 < abs(float(arg)) <= 1e-2:
                    yield call, position, float(arg)


def _gradients(
    function: Callable[[list[Any]], Any], arrays: list[Array], deadline: Deadline
) -> list[Array]:
    """Return the gradient for each of many arrays: a root each, in one reverse pass."""
    top = trace_stack.top
    try:
        with trace_stack.new_trace() as trace:
            roots = [VJPNode.new_root() for _ in arrays]
            end = function([new_box(a, trace, n) for a, n in zip(arrays, roots, strict=True)])
    finally:
        trace_stack.top = top  # an exception leaves autograd's traces open
    if not isbox(end):
        return [np.zeros_like(array) for array in arrays]
    gradients: dict[Any, Any] = {end._node: (1.0, False)}
    for node in toposort(end._node):
        deadline.check()
        if node.parents:
            gradient = gradients.pop(node)[0]
            for parent, part in zip(node.parents, node.vjp(gradient), strict=True):
                gradients[parent] = add_outgrads(gradients.get(parent), part)
    return [
        np.asarray(gradients[root][0]) if root in gradients else np.zeros_like(array)
        for root, array in zip(roots, arrays, strict=True)
    ]


def is_sum_of_paths(call: Call) -> bool:
    """Tell whether a call adds up the gradients of the paths that meet in a forward value."""
    return name_of(call.fun) == "add" and type(call.args[0]).__name__.endswith("VSpace")


def paths_of(whole: Call) -> list[Call]:
    """Return the calls that a sum of paths adds up; the call itself where there is but one."""
    found, pending = [], [whole]
    while pending:
        call = pending.pop()
        if is_sum_of_paths(call):
            pending += [arg for arg in reversed(call.args[1:]) if isinstance(arg, Call)]
        else:
            found.append(call)
    return found


def has_twin(graph: BackwardGraph, path: Any) -> bool:
    """Tell whether another path brings just the same: to cut one is to halve, or to turn, both."""
    whole = path
    while isinstance(whole, Call):
        sums = [user for user in graph.users(whole) if is_sum_of_paths(user)]
        if not sums:
            break
        whole = sums[0]
    if whole is path:
        return False
    mine = [np.array_equal(graph.value(p), graph.value(path)) for p in paths_of(whole)]
    return sum(mine) > 1


def again(call: Call, get: Callable[[Any], Any]) -> Any:
    """Return what a call gives for the values that its arguments have by now."""
    return call.fun.fun(*map(get, call.args), **call.kwargs)


def is_number(arg: Any) -> bool:
    """Tell whether an argument of a call is one constant number."""
    kinds = int | float | np.generic | np.ndarray
    return isinstance(arg, kinds) and not isinstance(arg, bool | str) and np.ndim(arg) == 0


def _size(value: Any) -> float:
    """Return the largest entry of a value; 0 of what is no array, as autograd's sparse ones."""
    return largest(value) if _is_float(value) else 0.0


def _is_float(value: Any) -> bool:
    return isinstance(value, np.ndarray | np.floating) and np.asarray(value).dtype.kind == "f"
