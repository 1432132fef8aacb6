"""What all conventions share: some arrays, a way to run two passes, a way to read gradients."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import numpy as np

from ...validation import Array, Shape
from ..finding import Finding, found
from .conventions import TARGETS
from .inputs import Constant, Names, prepared, spread
from .parameters import Parameter
from .returned import as_gradient, as_update_takes, other_shapes
from .session import Session
from .subject import Backward, Gradients, Subject, is_array, is_float_array, outputs_of

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
    """Runs somebody's passes; each convention has its own `run`, `substitute` and `gradients`.

    Its values are the inputs that have a gradient, and the parameters.
    """

    layer: Any = None  # none of functions
    is_pair = True  # whether two functions are run, or an object's methods
    label, backward_label = "forward", "backward"
    # Of each convention's own: the forward pass, that of a copy with other arrays, both passes.
    run: Callable[[], Any]
    substitute: Callable[..., list[Any]]
    gradients: Backward

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
        # Of the arguments, those in lists and dicts too; None of what has no gradient.
        self.shapes = shapes_of(self.names, self.inputs)
        self.of_inputs: list[Parameter] = []
        self.parameters: list[Parameter] = []
        self.structure: Any = None  # the outputs, as forward returned them
        self.result: Any = None  # of the last backward pass
        self.outputs: list[Array] = []
        self.upstream: list[Array] = []
        self.first = Gradients([], [])

    @property
    def values(self) -> list[Array]:
        """The arrays whose gradients are compared."""
        return [p.value for p in (*self.of_inputs, *self.parameters)]

    @property
    def value_names(self) -> list[str]:
        """What they are called."""
        return [p.name for p in (*self.of_inputs, *self.parameters)]

    def given_values(self) -> list[tuple[str, Array]]:
        """Return the arrays of floats among the inputs, those in lists and dicts too."""
        return [(n, v) for n, v in spread(self.names, self.inputs) if is_float_array(v)]

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
        here = self.inputs, self.shapes
        self.inputs = list(others)
        self.shapes = shapes_of(self.names, others)
        try:
            yield
        finally:
            self.inputs, self.shapes = here

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
        self.session.stands_after_first_call = True
        self.remarks += other_shapes((p.name, p.gradient(), p.value) for p in self.parameters)

    def _is_left_out(self, parameter: Parameter) -> bool:
        name = parameter.name
        gradient = as_gradient(name, parameter.gradient())
        if gradient is None and name in TARGETS and [np.ndim(o) for o in self.outputs] == [0]:
            self.say_not_returned(name)  # of the targets of a loss: that is meant so
            return True
        return self.constant.covers(name, gradient)

    def say_unchecked(self, name: str, why: Finding) -> None:
        """Say that there is no row for an input or a parameter, unless it is meant to have none."""
        if not self.constant.has(name):
            self.unchecked.append(name)
            self.remarks.append(found("unchecked", why=why))

    def say_unread(self, unread: Mapping[object, object], other: str = "input") -> None:
        """Say which entries of a dict of gradients belong to no parameter and no other.

        Those of intermediate values have a d before the name, and may be there for later ones.
        """
        keys = [str(key) for key, gradient in unread.items() if is_array(gradient)]
        keys = [key for key in keys if not self.constant.has(key)]
        of_values = [key for key in keys if key[:1] == "d" and len(key) > 1]
        others = [key for key in keys if key not in of_values]
        self.unchecked += of_values
        if of_values:
            self.remarks.append(found("value_gradients", keys=of_values, other=other))
        if others:
            self.failures.append(found("unread_gradients", keys=others, other=other))

    def say_not_returned(self, name: str) -> None:
        """Say that backward returns no gradient for an input."""
        what = self.backward_label if self.is_pair else "backward"
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


def shapes_of(names: Sequence[str], inputs: Sequence[object]) -> dict[str, Shape | None]:
    """Return the shapes of the arguments by name; None of what has no gradient."""
    given = spread(names, inputs)
    return {name: value.shape if is_float_array(value) else None for name, value in given}


# -------------------- what is written into --------------------


def written_into(session: Session, arrays: Iterable[tuple[str, object]]) -> list[str]:
    """Return the names of arrays, of those at the start, whose content is another one now."""
    start = session.start
    # What was not there before is a view or a cache of forward's own, not written into.
    there = [(n, v) for n, v in arrays if isinstance(v, np.ndarray) and start.kept(v) is not None]
    return [name for name, value in there if not start.is_as_before(value)]
