"""Two passes with a cache between: ``out, cache = forward(*inputs)``, ``backward(dout, cache)``."""

from __future__ import annotations

import copy
import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np

from ...pytree import leaves, named_leaves, with_leaves
from ...validation import Array
from .adapter import Adapter, Automatic, Values, by_key, by_position, is_of_loss, require_any
from .conventions import is_statistic, means_upstream, positional_names
from .inputs import Names, effects_on, floats_with_gradients, leaf_name, say_unread, watched
from .parameters import Parameter
from .session import Session
from .subject import (
    MISSING,
    CheckError,
    Subject,
    called,
    described,
    is_array,
    is_float_array,
    name_of_function,
    outputs_of,
    require_function,
    upstream_of,
)
from .unchecked import differs, moved

# Calls a backward pass with upstream gradients, the cache and the inputs.
Way = Callable[[list[Any], Any, Sequence[Any]], Any]


@dataclass(frozen=True)
class Passes:
    """A forward pass that gives its outputs and a cache, and a backward pass."""

    label: str
    backward_label: str
    names: list[str]  # of the inputs
    inputs: Sequence[Any]
    forward: Callable[..., tuple[list[Any], Any]]
    ways: Sequence[Way]  # to call the backward pass, the likeliest first
    code: tuple[Callable[..., Any], Callable[..., Any]]  # the user's own functions
    is_sure: bool = True  # whether the first of the ways that fits is meant


def passes_of(
    forward: Callable[..., Any], backward: Callable[..., Any], inputs: Sequence[object]
) -> Passes:
    """Return ``out, cache = forward(*inputs)`` and ``backward(dout, cache)`` as passes.

    Backward may take the cache first, as JAX's custom_vjp has it, and inputs by their names.
    Outputs that it takes no upstream gradient of come after those of which it does.
    """
    require_function("forward", forward)
    require_function("backward", backward)
    label = name_of_function(forward, "forward")
    backward_label = name_of_function(backward, "backward")
    names, taken = positional_names(forward, len(inputs)), _required_names(backward)
    known = [name for name, value in zip(names, inputs, strict=True) if not is_array(value)]
    options = [name for name in taken[2:] if name in names]
    options += [name for name in taken[: max(0, len(taken) - 2)] if name in known]
    free = [name for name in taken if name not in options]

    def run(*inputs: object) -> tuple[list[Any], Any]:
        result = called(label, forward, *inputs)
        if not isinstance(result, tuple) or len(result) < 2:
            raise CheckError(
                f"{label} must return (out, cache), got {described(result)}; for a scalar "
                "loss with a gradient function use check_gradient"
            )
        n = len(free) - 1
        return list(result[: n if 0 < n < len(result) - 1 else -1]), result[-1]

    def call(arguments: Sequence[Any], inputs: Sequence[Any]) -> object:
        given, rest = dict(zip(names, inputs, strict=True)), iter(arguments)
        if options:
            arguments = [given[n] if n in options else next(rest) for n in taken]
        return called(backward_label, backward, *arguments)

    cache_last, cache_first = (
        lambda ups, cache, inputs: call([*ups, cache], inputs),
        lambda ups, cache, inputs: call([cache, *ups], inputs),
    )
    ways: list[Way] = [cache_last, cache_first]
    first, last = (means_upstream(name) for name in (free[0], free[-1])) if free else (True, False)
    if first != last:  # their names tell
        ways = ways[:1] if first else ways[::-1]
    return Passes(
        *(label, backward_label, names, inputs, run, ways), (forward, backward), first != last
    )


class Pair(Adapter):
    """Runs two passes of which the first leaves a cache for the second."""

    def __init__(
        self,
        passes: Passes,
        session: Session,
        upstream: Any,
        rng: np.random.Generator,
        constant: Names = (),
        automatic: Automatic = lambda subject: (),
    ) -> None:
        self.passes, self.automatic = passes, automatic
        self.label, self.backward_label = passes.label, passes.backward_label
        super().__init__(passes.inputs, passes.names, session, constant)
        self.cache: Any = None
        self.way = passes.ways[0]
        with session.fresh():
            self.structure = self.run()
            self.outputs = [np.array(out) for out in leaves(self.structure)]
            self.upstream = upstream_of(self.outputs, upstream, rng)
        if len(passes.ways) > 1:
            self.way = self._way()
        with session.fresh():
            self.run()
            _, effects = watched(self, self.cache, self.run_backward, self.upstream)
            left_out = self._choose()
            self.settle()
        self._say_left_out(left_out)
        known = [*self.names, *self.value_names, *(name for name, _ in left_out)]
        self.constant.require_known(self.label, known)
        if self.values:
            outputs_of(self.label, self.outputs)
        else:
            floats = [name for name, _ in self.named_values()]
            require_any(self.backward_label, self.result, floats, self.first)
        self.remarks += effects_on(effects, self.value_names)

    def _way(self) -> Way:
        """Return the way to call backward: the first that fits.

        Or, where that is not sure, the one whose gradients are the nearest to autograd's; of two,
        the one that is linear in the upstream gradient.
        """
        given = {way: self.given_by(way) for way in self.passes.ways}
        fitting = [way for way, grads in given.items() if grads and all(map(_fits, grads))]
        if self.passes.is_sure or len(fitting) < 2:
            return next(iter(fitting), self.way)
        true = self.gradients_of([value for _, value in self.named_values()])

        def nearness(way: Way) -> tuple[int, int]:
            doubled = [None if g is None else np.multiply(2, g) for g, _ in given[way]]
            return agreement(given[way], true), agreement(self.given_by(way, times=2), doubled)

        return max(fitting, key=nearness)

    def given_by(self, way: Way, times: float = 1) -> list[tuple[Any, Array]]:
        """Return the gradients that a way to call backward gives, each with what it is of."""
        before, self.way = self.way, way
        try:
            with self.session.fresh():
                self.run()
                self.run_backward([times * u for u in self.upstream])
                there = self._by_name()
                return [(there.get(name), value) for name, value in self.named_values()]
        except CheckError:
            return []
        finally:
            self.way = before

    @property
    def left(self) -> Any:
        """What the forward pass has left for the backward pass."""
        return self.cache

    def run(self) -> list[Any]:
        """Run the forward pass, and return the outputs that backward has a gradient of."""
        outputs, self.cache = self.passes.forward(*self.inputs)
        return outputs

    def run_backward(self, ups: Sequence[Array]) -> Any:
        """Run the backward pass on upstream gradients and the cache."""
        tree = with_leaves(self.structure, list(ups))
        self.result = self._flat(self.way(tree, self.cache, self.inputs))
        return self.result

    def substitute(self, replacements: Sequence[Any], values: Values = None) -> list[Any]:
        """Run the forward pass on other values."""
        memo = self.standing_in(replacements, values)
        arguments = (copy.deepcopy(value, dict(memo)) for value in self.inputs)
        return leaves(self.passes.forward(*arguments)[0])

    # -------------------- the gradients --------------------

    def _flat(self, result: Any) -> object:
        """Return gradients, where some stand in dicts as the parameters do, as one dict."""
        inputs = zip(self.names, self.inputs, strict=True)
        holders = [(n, v) for n, v in inputs if any(map(is_float_array, leaves(v)))]
        if not isinstance(result, tuple) or len(result) != len(holders):
            return result
        pairs = list(zip(holders, result, strict=True))
        is_in_dict = [isinstance(value, dict) for _, value in holders]
        if not any(is_in_dict) or is_in_dict != [isinstance(g, dict) for g in result]:
            return result
        flat: dict[Any, Any] = {}
        for (name, value), gradient in pairs:
            flat |= gradient if isinstance(value, dict) else {name: gradient}
        return flat

    def _choose(self) -> list[tuple[str, Array]]:
        """Take the arrays that have a gradient, those in dicts and lists by their own names.

        Return those there that have none.
        """
        arrays = self.named_values()
        inside = self._inside() if isinstance(self.result, dict) else []
        self.known = [name for name, _ in (*arrays, *inside)]
        there = self._by_name()
        self._say_beside(dict(arrays), there)
        pairs = [(name, value) for name, value in (*arrays, *inside) if name in there]
        entries = [Parameter(name, v, partial(self._gradient_of, name)) for name, v in pairs]
        n = sum(p.name == self.names[0] for p in entries)
        self.of_inputs, self.parameters = entries[:n], entries[n:]
        return [(name, leaf) for name, leaf in inside if name not in there]

    def _say_beside(self, arrays: dict[str, Array], there: dict[str, Any]) -> None:
        """Say which gradients are not returned, and which that are returned are nobody's."""
        for name in [] if is_of_loss(self.structure, self.result) else arrays:
            if name not in there:
                self.say_not_returned(name)
        self.remarks += floats_with_gradients(self.names, self.inputs, self.result)
        if isinstance(self.result, dict):
            read = {id(gradient) for gradient in there.values()}
            say_unread(self, {key: g for key, g in self.result.items() if id(g) not in read})

    def _inside(self) -> list[tuple[str, Array]]:
        """Return the arrays in the dicts and lists among the inputs, by their own names."""
        found = [(leaf_name(path), leaf) for v in self.inputs for path, leaf in named_leaves("", v)]
        inputs = {id(value) for value in self.inputs}
        return [(n, leaf) for n, leaf in found if is_float_array(leaf) and id(leaf) not in inputs]

    def _gradient_of(self, name: str) -> object:
        return self._by_name().get(name, MISSING)

    def _by_name(self) -> dict[str, Any]:
        if isinstance(self.result, dict):
            return by_key(self.result, self.known)
        return by_position(self.backward_label, self.result, self.names, self.floats)

    def _say_left_out(self, left_out: Sequence[tuple[str, Array]]) -> None:
        """Say which arrays in dicts the output depends on, and backward has no gradient of."""
        for name, leaf in left_out:
            with self.session.moved([leaf], [moved(leaf)]), self.session.fresh():
                is_used = differs(self.outputs, leaves(self.run()))
            if is_used and not is_statistic(name):
                self.say_not_returned(name)

    def subject(self) -> Subject:
        """Return the two functions as a subject."""
        forward, backward = self.passes.code
        return replace(super().subject(), forward_code=[forward], backward_code=[backward])


def _fits(pair: tuple[Any, Array]) -> bool:
    gradient, value = pair
    return gradient is None or np.shape(gradient) == value.shape


def agreement(given: Sequence[tuple[Any, Array]], true: Sequence[Any]) -> int:
    """Return how many entries of gradients that were given are as autograd has them."""
    pairs = [(h, g) for (h, _), g in zip(given, true, strict=True) if g is not None]
    return sum(int(np.isclose(h, g).sum()) for h, g in pairs if np.shape(h) == np.shape(g))


def _required_names(function: Callable[..., Any]) -> list[str]:
    """Return the parameters that a function requires; none where it takes any number."""
    try:
        parameters = list(inspect.signature(function).parameters.values())
    except (TypeError, ValueError):
        return []
    if any(p.kind == p.VAR_POSITIONAL for p in parameters):
        return []
    return [p.name for p in parameters if p.default is p.empty and p.kind != p.VAR_KEYWORD]
