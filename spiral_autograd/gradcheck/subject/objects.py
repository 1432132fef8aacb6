"""Layers as objects: run from the outside, copied with other values in place of their arrays."""

from __future__ import annotations

import copy
import inspect
import io
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from functools import partial
from types import FunctionType, GeneratorType
from typing import Any

import numpy as np

from ...pytree import leaves, with_leaves
from ...validation import Array
from ..finding import Finding, Said, found
from ..guard import theirs
from ..reference.rebind import adopt, rebound
from ..source import Place
from .choice import beside_inputs, has_gradient, listed, returned, returned_names
from .conventions import (
    accepts,
    positional_names,
)
from .inputs import (
    Constant,
    Names,
    effects_on,
    floats_with_gradients,
    prepared,
    refuse_parameters,
    replaced_gradients,
    say_unread,
    watched,
)
from .parameters import (
    Held,
    Parameter,
    every_parameter,
    held_arrays,
    numbers_of,
    other_keys,
    resets_of,
)
from .passes import input_gradient_of, methods_of, output_of
from .reached import is_vocabulary, reach
from .session import Session
from .subject import (
    MISSING,
    CheckError,
    Gradients,
    Subject,
    as_gradient,
    as_update_takes,
    by_position,
    called,
    checksums,
    described,
    is_float_array,
    is_of_loss,
    other_shapes,
    outputs_of,
    require_any,
    upstream_of,
)
from .unchecked import (
    depends_on_number,
    differs,
    exchange,
    lend,
    look_beside,
    may_be_parameters,
    trained_numbers,
    unwritten,
)

# What a copy of an object shares with it, since it cannot be copied; and long lists of words.
_SHARED = (type(threading.Lock()), type(threading.RLock()), io.IOBase, GeneratorType)


class Layer:
    """Runs somebody's layer on its inputs.

    Parameters
    ----------
    layer : object
    inputs : sequence
        What its forward pass takes.
    session : Session
    upstream : array or None
        The upstream gradient, if one is given.
    rng : Generator
        The stream of a random one.
    constant : names
        What is meant to have no gradient.
    """

    def __init__(
        self,
        layer: Any,
        inputs: Sequence[Any],
        session: Session,
        upstream: Any,
        rng: np.random.Generator,
        constant: Names = (),
    ) -> None:
        self.constant = Constant(constant)
        self.left_out: set[str] = set()  # inputs that are meant to have no gradient
        self.forward_name, self.backward_name = methods_of(layer)
        self.layer, self.kind, self.session = layer, type(layer).__name__, session
        self.names = positional_names(self.forward_method, len(inputs))
        self._require_call(inputs)
        # An attribute that is called like an input is a cache of it, from an earlier call.
        held = [p.value for p in every_parameter(layer) if p.name not in self.names]
        reached = list(reach(layer))
        self.shared = [i for i in reached if issubclass(type(i), _SHARED) or is_vocabulary(i)]
        self.shared += list(sys.modules.values())
        self.inputs, self.remarks = prepared(inputs, self.names, held)
        session.add(self.inputs)
        self.floats = [is_float_array(value) for value in self.inputs]
        self.upstream_given, self.rng = upstream, rng
        self.takes_nothing = upstream is None and accepts(self.backward_method, 0)
        self.structure: Any = None
        self.result: Any = None  # of the last backward pass
        self.outputs: list[Array] = []
        self.upstream: list[Array] = []
        self.parameters: list[Parameter] = []
        self.more: list[str] = []  # parameters whose gradients backward returns
        self.held: list[Held] = []  # the arrays at the start; those that forward leaves alone
        self.unwritten: list[Held] = []
        self.made: list[tuple[str, Array, Array]] = []  # by forward: with their content
        self.numbers: dict[str, Any] = {}
        self.unchecked: list[str] = []
        self.failures: list[Said] = []
        self.unkept: dict[str, tuple[Finding, Place]] = {}
        self.claimed: set[Any] = set()  # the places in what backward returns that are read by it

    @property
    def forward_method(self) -> Any:
        """The layer's own forward pass."""
        return getattr(self.layer, self.forward_name)

    @property
    def backward_method(self) -> Any:
        """The layer's own backward pass."""
        return getattr(self.layer, self.backward_name)

    def _require_call(self, inputs: Sequence[Any]) -> None:
        try:
            inspect.signature(self.forward_method).bind(*inputs)
        except TypeError as error:
            raise CheckError(
                f"{self.kind}.{self.forward_name}{inspect.signature(self.forward_method)} cannot "
                f"be called with ({', '.join(map(described, inputs))}): {error}; the inputs are "
                "given by position, in their order"
            ) from None
        except ValueError:  # no signature, as of compiled code
            return

    # -------------------- the two passes --------------------

    def run(self) -> Any:
        """Run the forward pass."""
        what = f"{self.kind}.{self.forward_name}"
        result = called(what, self.forward_method, *self.inputs)
        return output_of(self.layer, result)

    def run_forward(self) -> list[Array]:
        """Run the forward pass, and return its output arrays, which must be real and finite."""
        return outputs_of(f"{self.kind}.{self.forward_name}", self.run())

    def run_backward(self, ups: Sequence[Array]) -> Any:
        """Run the backward pass, and return what it returns or leaves for the inputs."""
        what = f"{self.kind}.{self.backward_name}"
        if self.takes_nothing and len(ups) == 1 and ups[0].ndim == 0 and ups[0] == 1:
            arguments: Sequence[Any] = []
        elif len(ups) > 1 and not accepts(self.backward_method, len(ups)):
            arguments = [with_leaves(self.structure, list(ups))]
        else:
            arguments = ups
        result = called(what, self.backward_method, *arguments)
        self.result = input_gradient_of(self.layer, result)
        return self.result

    def reset(self) -> None:
        """Reset the gradients of a layer that accumulates them."""
        for reset in resets_of(self.layer):
            reset()

    def forward_and_backward(self) -> tuple[Any, list[Finding]]:
        """Run both for the first time, and return what backward returned, and the side effects."""
        with suppress(CheckError), theirs():  # it may be reset only once its parameters are made
            self.reset()
        self.held = may_be_parameters(self.layer)
        numbers = {p.name: p.value for p in numbers_of(self.layer)}
        self.structure = self.run()
        self.unwritten = unwritten(self.layer, self.held, self.session.start)
        found = [h for h in held_arrays(self.layer) if self.session.start.kept(h.value) is None]
        self.made = [(h.name, h.value, h.value.copy()) for h in found]
        now = {p.name: p.value for p in numbers_of(self.layer)}
        self.numbers = {n: v for n, v in numbers.items() if now.get(n) is v}
        outputs = outputs_of(f"{self.kind}.{self.forward_name}", self.structure)
        self.outputs = [np.array(out) for out in outputs]
        self.upstream = self._upstream()
        return watched(self, self.layer, self.run_backward, self.upstream)

    def _upstream(self) -> list[Array]:
        if self.takes_nothing and self.is_scalar:
            return [np.ones((), dtype=self.outputs[0].dtype)]
        return upstream_of(self.outputs, self.upstream_given, self.rng)

    @property
    def is_scalar(self) -> bool:
        """Whether the output is one number."""
        return len(self.outputs) == 1 and self.outputs[0].ndim == 0

    def named_values(self) -> list[tuple[str, Array]]:
        """Return the inputs and parameters that are arrays of floats."""
        inputs = zip(self.names, self.inputs, strict=True)
        known = {id(p.value): (p.name, p.value) for p in every_parameter(self.layer)}
        known |= {id(value): (name, value) for name, value in inputs}  # which a layer may keep
        return [(name, value) for name, value in known.values() if is_float_array(value)]

    # -------------------- the parameters --------------------

    def find(self) -> None:
        """Find the parameters by a run; where the first run makes them, begin from after it."""
        lend(self)
        before = self._known()
        with self.session.fresh():
            result, effects = self.forward_and_backward()
            self._choose(before, result)
            made = self._made(before)
            numbers = trained_numbers(self, before)
        if made or numbers:
            numbers = [name for name in numbers if depends_on_number(self, name)]
            result, effects = self._run_again(set(before), made, numbers)
        self._require_fit(result)
        self.first = Gradients.of(self._without_constants(self._read(result)), self.session)
        self.remarks += other_shapes(self._gradients_of_parameters(self.by_name(result)))
        self.remarks += effects_on(effects, self.value_names)
        self.remarks += replaced_gradients(self.layer, before)
        look_beside(self)
        self._require_no_surplus(result)
        self.remarks += other_keys(self.layer)
        require_any(f"{self.kind}.{self.backward_name}", result, self.value_names, self.first)
        self.constant.require_known(self.kind, names_in(self.layer, self.names))

    def _known(self) -> dict[str, tuple[Parameter, Any]]:
        """Return the parameters by name, with what is now in the place of their gradients."""
        found = (*every_parameter(self.layer), *numbers_of(self.layer))
        return {name: (p, p.gradient()) for p in found for name in p.names}

    def _run_again(
        self, before: set[str], made: list[str], numbers: list[str]
    ) -> tuple[Any, list[Finding]]:
        """Run both passes from where the parameters are made, and numbers are arrays."""
        begun, outputs = self.session.start, self.outputs
        try:
            with self.session.fresh():
                if made or not before.issuperset(numbers):
                    self.run()
                exchange(self, numbers)
                if made or numbers:
                    self.session.rebase()
                    self._put_back_inputs(begun.kept)
                known = self._known()
                known = {n: k for n, k in known.items() if n in {*before, *made, *numbers}}
                result = self.forward_and_backward()
                self._choose(known, result[0])
                if numbers and differs(outputs, self.outputs):
                    raise CheckError("the output is another one")
        except CheckError:
            if not numbers:
                raise
            self.session.start = begun
            for name in numbers:
                self.say_unchecked(name, found("cannot_move", name=name))
            return self._run_again(before, made, [])
        return result

    def _made(self, before: dict[str, Any]) -> list[str]:
        """Return the names of arrays that forward has made, and a second one leaves alone.

        Among them are the parameters that a layer makes in its first forward pass.
        """
        new = [p for p in every_parameter(self.layer) if not before.keys() & p.names]
        named = [(n, p.value) for p in new if p.gradient() is not MISSING for n in p.names]
        same = [(n, v) for n, v, content in self.made if np.array_equal(v, content)]
        if not named and not same:
            return []
        with suppress(CheckError):  # it may be run once only
            self.run()
        kept = {id(p.value) for p in every_parameter(self.layer)} - self._at_inputs()
        still = {id(h.value) for h in held_arrays(self.layer)} - self._at_inputs()
        contents = {id(v): content for _, v, content in self.made}
        return [n for n, v in named if id(v) in kept] + [
            n for n, v in same if id(v) in still and np.array_equal(v, contents[id(v)])
        ]

    def _put_back_inputs(self, kept: Callable[[Array], Array | None]) -> None:
        """Begin with the inputs as they were before a forward pass that may write into them."""
        for value in self.inputs:
            content = kept(value) if is_float_array(value) else None
            if content is not None:
                self.session.start.keep(value, content)
                np.copyto(value, content)

    def _at_inputs(self) -> set[int]:
        return {id(value) for value in self.inputs}

    def _choose(self, before: dict[str, tuple[Parameter, Any]], result: Any) -> None:
        """Take the parameters that have a gradient: in the layer, or returned by backward.

        What a pass puts in the place of another array is state, not a parameter.
        """
        there = {(n, id(p.value)): gradient for n, (p, gradient) in before.items()}
        grads = {
            p: there[place]
            for p in every_parameter(self.layer)
            for place in ((name, id(p.value)) for name in p.names)
            if place in there and id(p.value) not in self._at_inputs()
        }
        known, start = list(grads), self.session.start
        kept = [p for p in known if has_gradient(p, grads[p], start)]
        beside = beside_inputs(result, sum(self.floats), len(self.floats))
        names = returned_names(self.backward_method, len(beside))
        numbers = [p for p in numbers_of(self.layer) if p.name in before]
        more = returned([*known, *numbers], kept, beside, names)
        self.more = [p.name for p in more]
        self.parameters = [p for p in known if p in kept or p in more]
        free = [p for p in known if p not in self.parameters and is_float_array(p.value)]
        self.parameters += listed(self.layer, free, self.backward_method)

    def _require_no_surplus(self, result: Any) -> None:
        """Raise, or say, where backward returns what is no gradient of anything."""
        if isinstance(result, dict):
            read = {id(gradient) for gradient in self.by_name(result).values()}
            rest = {k: g for k, g in result.items() if k not in self.claimed and id(g) not in read}
            say_unread(self, rest)
            return
        what = f"{self.kind}.{self.backward_name}"
        if not self.claimed or not isinstance(result, tuple | list):
            by_position(what, result, self.names, self.floats, self.more)
            return
        for i in range(sum(self.floats) + len(self.more), len(result)):
            if i not in self.claimed and result[i] is not None:
                self.say_unchecked(f"entry {i} of what {what} returns", "it belongs to nothing")

    def _without_constants(self, grads: list[Any]) -> list[Any]:
        """Leave out what is meant to have no gradient, and has none; return those of the rest."""
        pairs = list(zip(self.value_names, grads, strict=True))
        inputs = len(pairs) - len(self.parameters)
        left = [self.constant.covers(name, gradient) for name, gradient in pairs]
        self.left_out = {name for (name, _), out in zip(pairs[:inputs], left, strict=False) if out}
        kept = zip(self.parameters, left[inputs:], strict=True)
        self.parameters = [p for p, out in kept if not out]
        return [gradient for gradient, out in zip(grads, left, strict=True) if not out]

    def _require_fit(self, result: Any) -> None:
        refuse_parameters([p.name for p in self.parameters], [p.value for p in self.parameters])
        found = self.by_name(result)
        pairs = list(zip(self.names, self.inputs, self.floats, strict=True))
        if result is None and self.takes_nothing and self.parameters:  # a network with its loss
            self.floats = [False] * len(self.floats)
            self.remarks.append(
                "backward returns nothing: the gradients of the inputs are left out"
            )
        for name, _, flag in pairs:
            if flag and name not in found and not is_of_loss(self.structure, result):
                self.say_unchecked(name, f"backward returns no gradient for {name}")
        self.remarks += floats_with_gradients(self.names, self.inputs, result)
        for name, value, flag in pairs[:1]:
            if not flag and is_float_array(result) and np.shape(value) == result.shape:
                why = f"{name} holds integers, which have no gradient (use {name}.astype(float))"
                self.say_unchecked(name, why)

    def take(
        self, name: str, value: Array, read: Callable[[], Any] = lambda: None, first: Any = None
    ) -> None:
        """Take one more parameter: how its gradient is read, and what it was at the first call.

        Nothing, where nothing is kept of it.
        """
        gradient = as_update_takes(as_gradient(name, first), value)
        self.remarks += other_shapes([(name, first, value)])
        self.parameters.append(Parameter(name, value, read))
        self.first.arrays.append(gradient)
        self.first.checksums += checksums([gradient])

    def say_unchecked(self, name: str, why: Said) -> None:
        """Say that there is no row for an input or a parameter, unless it is meant to have none."""
        if self.constant.has(name):
            return
        self.unchecked.append(name)
        self.remarks.append(found("unchecked", why=why))

    def by_name(self, result: Any) -> dict[str, Any]:
        """Return the gradients that backward returned, by name."""
        what = f"{self.kind}.{self.backward_name}"
        return by_position(what, result, self.names, self.floats, self.more, surplus=True)

    # -------------------- as a subject --------------------

    def gradients(
        self, ups: list[Array], between: Callable[[Any], None] | None = None
    ) -> list[Any]:
        """Run both passes, and return the gradient of each input and parameter."""
        self.reset()
        self.run()
        if between is not None:
            between(self.layer)
        return self._read(self.run_backward(ups))

    @contextmanager
    def given(self, others: Sequence[Any]) -> Iterator[None]:
        """Give the forward pass other inputs for a while."""
        here, self.inputs = self.inputs, list(others)
        try:
            yield
        finally:
            self.inputs = here

    def _read(self, result: Any) -> list[Any]:
        """Return the gradient of each input and parameter after both passes."""
        returned = self.by_name(result)
        grads = [as_gradient(name, returned.get(name, MISSING)) for name, _ in self._moving()]
        own = [(as_gradient(n, g), v) for n, g, v in self._gradients_of_parameters(returned)]
        return grads + [as_update_takes(gradient, value) for gradient, value in own]

    def _gradients_of_parameters(
        self, returned: dict[str, Any]
    ) -> Iterator[tuple[str, Any, Array]]:
        """Yield the name of each parameter, its gradient as it now stands, and itself."""
        for p in self.parameters:
            gradient = returned.get(p.name) if p.name in self.more else p.gradient()
            # Where it has been written at the first call, it may be left out at another.
            yield p.name, None if gradient is MISSING else gradient, p.value

    def memo(self, replacements: Sequence[Any], values: Sequence[Any]) -> dict[int, Any]:
        """Return what a deep copy is to have in place of the arrays, and what it shares.

        It shares what cannot be copied, and the gradients: large, and restored after each run.
        """
        gradients = [p.gradient() for p in self.parameters]
        shared = [*self.shared, *(g for g in gradients if isinstance(g, np.ndarray))]
        pairs = zip(values, replacements, strict=True)
        return {id(item): item for item in shared} | {id(v): r for v, r in pairs}

    def substitute(
        self, replacements: Sequence[Any], forward: Any = None, values: Any = None
    ) -> list[Any]:
        """Run the forward pass of a copy, or another forward function on the copy.

        The replacements are for those whose gradients are compared, or for other values.
        """
        memo = self.memo(replacements, self.values if values is None else values)
        other = copy.deepcopy(self.layer, memo)
        adopt(memo)
        arguments = [memo.get(id(value), value) for value in self.inputs]
        arguments = [copy.deepcopy(argument, dict(memo)) for argument in arguments]
        if forward is None:
            result = getattr(other, self.forward_name)(*arguments)
        else:
            result = rebound(forward)(other, *arguments)
        return leaves(output_of(other, result))

    def with_forward(self, subject: Subject, function: Callable[..., Any]) -> Subject:
        """Return the subject with another function in place of the class's forward pass."""
        what = f"{self.kind}.{self.forward_name}"

        def plain() -> list[Array]:
            return outputs_of(what, output_of(self.layer, function(self.layer, *self.inputs)))

        return replace(
            subject, forward=plain, substitute=partial(self.substitute, forward=function)
        )

    def _moving(self) -> list[tuple[str, Array]]:
        """Return the inputs whose gradients are compared."""
        inputs = zip(self.names, self.inputs, self.floats, strict=True)
        return [(n, v) for n, v, flag in inputs if flag and n not in self.left_out]

    @property
    def values(self) -> list[Array]:
        """The arrays whose gradients are compared."""
        return [value for _, value in self._moving()] + [p.value for p in self.parameters]

    @property
    def value_names(self) -> list[str]:
        """What they are called."""
        return [name for name, _ in self._moving()] + [p.name for p in self.parameters]

    def subject(self) -> Subject:
        """Return the layer as a subject."""
        self.find()
        subject = Subject(
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
            n_inputs=len(self._moving()),
            forward_code=[self.forward_method],
            backward_code=[self.backward_method],
            is_loss=self.is_scalar and self.upstream_given is None,
            takes_upstream=not (self.is_scalar and self.takes_nothing),
            owner=self.layer,
            remarks=self.remarks,
            unchecked=self.unchecked,
            failures=self.failures,
            unkept=self.unkept,
        )
        if isinstance(getattr(self.forward_method, "__func__", None), FunctionType):
            subject = replace(subject, with_forward=partial(self.with_forward, subject))
        return subject


def layer_subject(
    layer: Any,
    inputs: Sequence[Any],
    session: Session,
    upstream: Any,
    rng: np.random.Generator,
    constant: Names = (),
) -> Subject:
    """Return an object with ``forward(*inputs)`` and ``backward(upstream)`` as a subject."""
    return Layer(layer, inputs, session, upstream, rng, constant).subject()


def names_in(layer: Any, inputs: Sequence[str]) -> list[str]:
    """Return the names of a layer's inputs, and of what it keeps."""
    kept = [p.name for p in (*every_parameter(layer), *numbers_of(layer))]
    held = [h.name for h in held_arrays(layer)]
    return [*inputs, *dict.fromkeys(one for name in kept + held for one in name.split(" = "))]
