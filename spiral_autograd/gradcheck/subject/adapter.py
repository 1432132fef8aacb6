"""What all conventions share: some arrays, a way to run two passes, a way to read gradients."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import numpy as np

from ...pytree import leaves
from ...validation import Array
from ..finding import Finding, found
from .conventions import TARGETS, gradient_key
from .inputs import Constant, Names, prepared
from .parameters import Parameter
from .session import Session
from .subject import (
    MISSING,
    CheckError,
    Gradients,
    Subject,
    described,
    is_array,
    is_float_array,
    outputs_of,
)

Values = Sequence[Array] | None
Automatic = Callable[[Subject], Sequence[Any]]


@dataclass(frozen=True)
class Terms:
    """What a check is to run somebody's code with."""

    session: Session
    upstream: object = None  # a random one, unless it is given
    rng: np.random.Generator = field(default_factory=lambda: np.random.default_rng(0))
    constant: Names = ()
    automatic: Automatic = lambda subject: ()  # gives autograd's gradients, if it has any


class Adapter:
    """Runs somebody's passes; each convention has its own `run`, `run_backward` and `substitute`.

    Its values are the inputs that have a gradient, and the parameters.
    """

    layer: Any = None  # none of functions
    label, backward_label = "forward", "backward"

    def __init__(
        self,
        inputs: Sequence[object],
        names: Sequence[str],
        terms: Terms,
        held: Iterable[Array] = (),
    ) -> None:
        self.terms, self.session = terms, terms.session
        self.constant, self.names = Constant(terms.constant), list(names)
        self.failures: list[Finding] = []
        self.unchecked: list[str] = []
        self.inputs, remarks = prepared(inputs, self.names, held)
        self.remarks: list[Finding] = [*remarks]
        self.session.add(self.inputs)
        self.floats = [is_float_array(value) for value in self.inputs]
        self.of_inputs: list[Parameter] = []
        self.parameters: list[Parameter] = []
        self.structure: Any = None  # the outputs, as forward returned them
        self.result: Any = None  # of the last backward pass
        self.outputs: list[Array] = []
        self.upstream: list[Array] = []
        self.first = Gradients([], [])

    # -------------------- what each convention has of its own --------------------

    def run(self) -> Any:
        """Run the forward pass, and return its outputs."""
        raise NotImplementedError

    def run_backward(self, ups: Sequence[Array]) -> Any:
        """Run the backward pass, and return what it returns."""
        raise NotImplementedError

    def substitute(self, replacements: Sequence[object], values: Values = None) -> list[Any]:
        """Run a copy of the forward pass with replacements for the values, or for other arrays."""
        raise NotImplementedError

    def reset(self) -> None:
        """Reset gradients that add up from call to call."""

    @property
    def left(self) -> Any:
        """What the forward pass has left for the backward pass."""
        return self.layer

    # -------------------- what all have --------------------

    @property
    def values(self) -> list[Array]:
        """The arrays whose gradients are compared."""
        return [p.value for p in (*self.of_inputs, *self.parameters)]

    @property
    def value_names(self) -> list[str]:
        """What they are called."""
        return [p.name for p in (*self.of_inputs, *self.parameters)]

    def named_values(self) -> list[tuple[str, Array]]:
        """Return the inputs that are arrays of floats."""
        pairs = zip(self.names, self.inputs, strict=True)
        return [(name, value) for name, value in pairs if is_float_array(value)]

    def standing_in(self, replacements: Sequence[object], values: Values) -> dict[int, Any]:
        """Return what stands for arrays, by their ids: as a deep copy takes it."""
        values = self.values if values is None else values
        return {id(value): other for value, other in zip(values, replacements, strict=True)}

    def run_forward(self) -> list[Array]:
        """Run the forward pass, and return its output arrays, which must be real and finite."""
        return outputs_of(self.label, self.run())

    @contextmanager
    def given(self, others: Sequence[object]) -> Iterator[None]:
        """Give the forward pass other inputs for a while."""
        here, self.inputs = self.inputs, list(others)
        try:
            yield
        finally:
            self.inputs = here

    def gradients(
        self, ups: list[Array], between: Callable[[object], None] | None = None
    ) -> list[Any]:
        """Run both passes, and return the gradient of each value."""
        self.reset()
        self.run()
        if between is not None:
            between(self.left)
        self.run_backward(ups)
        return self.read()

    def read(self) -> list[Any]:
        """Return the gradient of each value after both passes."""
        grads = [as_gradient(p.name, p.gradient()) for p in (*self.of_inputs, *self.parameters)]
        n = len(self.of_inputs)
        own = zip(grads[n:], self.parameters, strict=True)
        return grads[:n] + [as_update_takes(gradient, p.value) for gradient, p in own]

    def settle(self) -> None:
        """Leave out what is meant to have no gradient, and has none; note the first gradients."""
        self.of_inputs = [p for p in self.of_inputs if not self._is_left_out(p)]
        self.parameters = [p for p in self.parameters if not self._is_left_out(p)]
        self.first = Gradients.of(self.read(), self.session)
        self.remarks += other_shapes((p.name, p.gradient(), p.value) for p in self.parameters)

    def _is_left_out(self, parameter: Parameter) -> bool:
        name = parameter.name
        gradient = as_gradient(name, parameter.gradient())
        if gradient is None and name in TARGETS and [np.ndim(o) for o in self.outputs] == [0]:
            self.say_not_returned(name)  # of the targets of a loss: that is meant so
            return True
        return self.constant.covers(name, gradient)

    def take(self, more: Sequence[Parameter]) -> None:
        """Take more parameters, and make the first call again."""
        self.parameters += more
        with self.session.fresh():
            grads = self.gradients([np.array(u) for u in self.upstream])
            self.first = Gradients.of(grads, self.session)
            self.remarks += other_shapes((p.name, p.gradient(), p.value) for p in more)

    def say_unchecked(self, name: str, why: Finding) -> None:
        """Say that there is no row for an input or a parameter, unless it is meant to have none."""
        if not self.constant.has(name):
            self.unchecked.append(name)
            self.remarks.append(found("unchecked", why=why))

    def say_not_returned(self, name: str) -> None:
        """Say that backward returns no gradient for an input."""
        what = self.backward_label if self.layer is None else "backward"
        self.say_unchecked(name, found("not_returned", what=what, name=name))

    def subject(self) -> Subject:
        """Return the arrays and the passes as a subject."""
        return Subject(
            names=self.value_names,
            values=self.values,
            session=self.session,
            forward=self.run_forward,
            substitute=self.substitute,
            backward=self.gradients,
            upstream=self.upstream,
            outputs=self.outputs,
            first=self.first,
            inputs=self.inputs,
            given=self.given,
            n_inputs=len(self.of_inputs),
            remarks=self.remarks,
            unchecked=self.unchecked,
            failures=self.failures,
        )

    def gradients_of(self, values: list[Array]) -> Sequence[Any]:
        """Return autograd's own gradients of arrays that the passes use; None where unknown."""
        substitute, names = partial(self.substitute, values=values), [""] * len(values)
        subject = replace(self.subject(), names=names, values=values, substitute=substitute)
        return self.terms.automatic(subject) or [None] * len(values)


# -------------------- the gradients that a backward pass returns --------------------


def by_position(
    what: str,
    result: object,
    names: Sequence[str],
    floats: Sequence[bool],
    *,
    surplus: bool = False,
) -> dict[str, Any]:
    """Return the gradients that a backward pass returned, by the names of what they belong to.

    There may be an entry for each argument, or one for each that is differentiable, or for the
    first of these; with `surplus` any others may follow. Or a dict has them by name.
    """
    wanted = [name for name, flag in zip(names, floats, strict=True) if flag]
    if isinstance(result, dict):
        return by_key(result, wanted)
    entries = _entries(result, names, wanted)
    if len(entries) == len(names) != len(wanted):
        by_name = dict(zip(names, entries, strict=True))
        return {name: by_name[name] for name in wanted}
    if len(entries) > len(wanted) and not surplus:
        raise CheckError(
            f"{what} returned {len(entries)} gradients, but there are {len(wanted)} floating-point "
            f"arrays among the arguments ({', '.join(names)}): return one gradient for each of "
            f"{', '.join(wanted) or 'them'}, in this order"
        )
    return dict(zip(wanted, entries, strict=False))


def _entries(result: object, names: Sequence[str], wanted: Sequence[str]) -> list[Any]:
    """Return the gradients that backward returned as a list, without empty ones at the end."""
    if result is None and not wanted:
        return []
    entries = list(result) if isinstance(result, tuple | list) else [result]
    while len(entries) > len(names) and _is_empty(entries[-1]):
        entries.pop()  # the gradients of no parameters
    is_numbers = not all(entry is None or is_array(entry) for entry in entries)
    # A gradient may be written as a list of numbers.
    return [result] if isinstance(result, list) and len(wanted) == 1 and is_numbers else entries


def _is_empty(entry: object) -> bool:
    return entry is None or (isinstance(entry, list | tuple | dict) and not entry)


def by_key(grads: dict[object, object], names: Sequence[str]) -> dict[str, Any]:
    """Return the gradients of a dict by the names of what they belong to."""
    last = {name: name.split(".")[-1] for name in names}
    keys = {name: gradient_key(grads, last[name], last.values()) for name in names}
    return {name: grads[key] for name, key in keys.items() if key is not None}


def require_any(what: str, result: object, names: Sequence[str], first: Gradients) -> None:
    """Raise where a backward pass has given no gradient at all."""
    if names and all(g is MISSING for g in first.arrays):
        came = described(result)
        if isinstance(result, dict) and result:
            came = f"a dict with the keys {', '.join(map(repr, result))}"
        raise CheckError(
            f"{what} returned {came}, and there is no gradient of {', '.join(names)} in it: return "
            f"one for each, in this order, or a dict of them by the names {', '.join(names)}, with "
            "or without a d before"
        )


def is_of_loss(outputs: object, result: object) -> bool:
    """Tell whether one gradient is that of a scalar loss, which has none for its targets."""
    found = leaves(outputs)
    return len(found) == 1 and np.ndim(found[0]) == 0 and not isinstance(result, tuple | dict)


def as_gradient(name: str, value: Any) -> Any:
    """Return a gradient as it came, where it is None or can be an array of real numbers."""
    if value is None or value is MISSING:
        return value
    try:
        array = np.asarray(value)
    except ValueError:
        array = np.empty(0, dtype=object)
    if array.dtype.kind in "fiub":
        return value
    came = f"{described(value)}, which is no array (are its rows of different lengths?)"
    if array.dtype.kind == "c":
        came = "complex numbers"
    elif is_array(value):
        came = f"an array of dtype {value.dtype}"
    raise CheckError(f"the gradient of {name} must be an array of real numbers, got {came}")


def as_update_takes(gradient: object, value: Array) -> Any:
    """Return a gradient in the shape of its parameter, where ``W -= lr * dW`` takes it as it is.

    Only where each entry belongs to one entry: nothing is broadcast.

    Examples
    --------
    >>> as_update_takes(np.ones(3), np.ones((1, 3))).shape
    (1, 3)
    >>> as_update_takes(np.ones((1, 3)), np.ones(3)).shape
    (1, 3)
    """
    if isinstance(gradient, list | tuple) and [np.shape(g) for g in gradient] == [value.shape]:
        return gradient[0]  # a list for one layer
    if not isinstance(gradient, np.ndarray | np.generic | float) or np.size(gradient) != value.size:
        return gradient
    short = np.ndim(gradient) < value.ndim and value.shape[: value.ndim - np.ndim(gradient)]
    fits = short and set(short) == {1} and np.shape(gradient) == value.shape[len(short) :]
    return np.reshape(gradient, value.shape) if fits else gradient


def other_shapes(named: Iterable[tuple[str, Any, Array]]) -> list[Finding]:
    """Return what to say of gradients that an update takes as they are in another shape."""
    names: dict[tuple[Any, Any], list[str]] = {}
    for name, gradient, value in named:
        shape = np.shape(as_update_takes(gradient, value))
        if not isinstance(gradient, list | tuple) and shape != np.shape(gradient):
            names.setdefault((np.shape(gradient), value.shape), []).append(name)
    return [
        found("update_takes", names=of, ours=ours, theirs=theirs)
        for (ours, theirs), of in names.items()
    ]
