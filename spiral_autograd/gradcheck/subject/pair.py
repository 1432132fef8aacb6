"""Two passes with a cache between, as custom functions, primitives and derivatives are run."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np

from ...pytree import leaves, with_leaves
from ...validation import Array
from .adapter import Adapter, Terms, Values, effects_on
from .calling import TwoFunctions
from .conventions import is_statistic, means_upstream
from .inputs import by_company, floats_with_gradients
from .objects import (
    methods_of,
    names_in_cache,
    require_function,
    required_names,
)
from .parameters import Parameter
from .returned import by_position, flattened, is_of_loss, require_any
from .subject import (
    MISSING,
    CheckError,
    Subject,
    outputs_of,
    upstream_of,
)
from .unchecked import depends_on_array

Given = list[tuple[Any, Array]]  # gradients, each with what it is of


@dataclass(frozen=True, eq=False)
class Way:
    """A way to call a backward pass: with what, and where among it the upstream gradient is."""

    call: Callable[[list[Any], Any, Sequence[Any]], object]  # upstream gradients, cache, inputs
    upstream_at: int  # -1 where it takes none


@dataclass(frozen=True)
class Passes:
    """A forward pass that gives its outputs and a cache, and a backward pass."""

    label: str
    backward_label: str
    names: list[str]  # of the inputs
    inputs: Sequence[object]
    forward: Callable[..., tuple[list[object], object]]
    ways: Sequence[Way]  # to call the backward pass, the likeliest first
    code: tuple[Callable[..., object], Callable[..., object]]  # the user's own functions
    is_sure: bool = True  # whether the first of the ways that fits is meant


def layer_of(forward: Any, backward: Any) -> object:
    """Return the object whose passes two methods are, if backward is given a gradient alone.

    What it needs beside that is kept by the object. Of two functions, return these.
    """
    require_function("forward", forward)
    require_function("backward", backward)
    taken, owner = required_names(backward), getattr(forward, "__self__", None)
    is_own = owner is not None and owner is getattr(backward, "__self__", None)
    if not is_own or len(taken) != 1 or not means_upstream(taken[0]):
        return TwoFunctions(forward, backward)
    if methods_of(owner) != (forward.__name__, backward.__name__):
        raise CheckError(
            f"{forward.__name__} and {backward.__name__} are methods of one object, whose own "
            "parameters check_layer checks; it needs methods called forward and backward"
        )
    return owner


class Pair(Adapter):
    """Runs two passes of which the first leaves a cache for the second."""

    def __init__(self, passes: Passes, terms: Terms) -> None:
        self.passes, session = passes, terms.session
        self.label, self.backward_label = passes.label, passes.backward_label
        super().__init__(passes.inputs, passes.names, terms)
        self.cache: Any = None
        with session.fresh():
            self.structure = self.run()
            self.way = passes.ways[0]
            self.outputs = [np.array(out) for out in leaves(self.structure)]
            self.upstream = upstream_of(self.outputs, terms.upstream, terms.rng)
        if len(passes.ways) > 1:
            self.way = self._way()
        with session.fresh():
            self.run()
            effects = self.watched_backward()
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

        Or, where that is not sure, the one whose gradients are most often autograd's; else one that
        is linear in the upstream gradient; else the nearest.
        """
        given = {way: self.given_by(way) for way in self.passes.ways}
        fitting = [
            way
            for way, grads in given.items()
            if grads and all(g is None or np.shape(g) == value.shape for g, value in grads)
        ]
        if self.passes.is_sure or len(fitting) < 2:
            return next(iter(fitting), self.way)
        true = self.gradients_of([value for _, value in self.named_values()])

        def nearness(way: Way) -> tuple[int, int, float]:
            doubled = [g if g is None else np.multiply(2, g) for g, _ in given[way]]
            linear, _ = agreement(self.given_by(way, times=2), doubled)
            equal, apart = agreement(given[way], true)
            return equal, linear, -apart

        return max(fitting, key=nearness)

    def given_by(self, way: Way, times: float = 1) -> Given:
        """Return the gradients that a way to call backward gives, each with what it is of."""
        before, self.way = self.way, way
        try:
            with self.session.fresh():
                self.run()
                self.run_backward([times * u for u in self.upstream])
                there = self.by_name()
                return [(there.get(name), value) for name, value in self.named_values()]
        except CheckError:
            return []
        finally:
            self.way = before

    @property
    def left(self) -> Any:
        """What the forward pass has left for the backward pass."""
        return self.cache

    def names_left(self) -> dict[int, str]:
        """Return what the arrays of the cache are called: its entries."""
        return names_in_cache(self.cache)

    def run(self) -> list[object]:
        """Run the forward pass, and return the outputs that backward has a gradient of."""
        outputs, self.cache = self.passes.forward(*self.inputs)
        return outputs

    def run_backward(self, ups: Sequence[Array]) -> Any:
        """Run the backward pass on upstream gradients and the cache."""
        tree = with_leaves(self.structure, list(ups))
        result = by_company(self.way.call(tree, self.cache, self.inputs), self._names)
        self.result = flattened(result, self.names, self.inputs)
        return self.result

    def substitute(self, replacements: Sequence[object], values: Values = None) -> list[object]:
        """Run the forward pass on other values."""
        memo = self.standing_in(replacements, values)
        arguments = (copy.deepcopy(value, dict(memo)) for value in self.inputs)
        return leaves(self.passes.forward(*arguments)[0])

    # -------------------- the gradients --------------------

    def _names(self) -> dict[int, str]:
        return {id(leaf): name for name, leaf in self.given_values()}

    def _choose(self) -> list[tuple[str, Array]]:
        """Take the arrays that have a gradient, those in dicts and lists by their own names.

        Return those there that have none.
        """
        there = self.by_name()
        own = {id(value) for value in self.inputs}
        lacking = [(n, value) for n, value in self.given_values() if n not in there]
        self._say_beside([n for n, value in lacking if id(value) in own], there)
        pairs = [(name, value) for name, value in self.given_values() if name in there]
        entries = [Parameter(name, v, partial(self.gradient_of, name)) for name, v in pairs]
        n = sum(p.name == self.names[0] for p in entries)
        self.of_inputs, self.parameters = entries[:n], entries[n:]
        return [(name, leaf) for name, leaf in lacking if id(leaf) not in own]

    def _say_beside(self, lacking: Sequence[str], there: dict[str, object]) -> None:
        """Say which gradients are not returned, and which that are returned are nobody's."""
        for name in [] if is_of_loss(self.structure, self.result) else lacking:
            self.say_not_returned(name)
        self.remarks += floats_with_gradients(self.names, self.inputs, self.result)
        if isinstance(self.result, dict):
            read = {id(gradient) for gradient in there.values()}
            self.say_unread({key: g for key, g in self.result.items() if id(g) not in read})

    def by_name(self) -> dict[str, Any]:
        """Return the gradients of the inputs by name."""
        found = by_position(self.backward_label, self.result, self.shapes, self.constant)
        return {name: gradient for name, gradient in found.items() if gradient is not MISSING}

    def _say_left_out(self, left_out: Sequence[tuple[str, Array]]) -> None:
        """Say which arrays in dicts the output depends on, and backward has no gradient of."""
        for name, leaf in left_out:
            if not is_statistic(name) and depends_on_array(self, leaf):
                self.say_not_returned(name)

    def subject(self) -> Subject:
        """Return the two functions as a subject."""
        forward, backward = self.passes.code
        return replace(
            super().subject(),
            forward_code=[forward],
            backward_code=[backward],
            upstream_at=self.way.upstream_at,
            takes_other_sizes=True,
        )


def agreement(given: Given, true: Sequence[object]) -> tuple[int, float]:
    """Return how many entries of gradients are as autograd has them, and how far all are off."""
    both = [(h, g) for (h, _), g in zip(given, true, strict=True) if not (h is None or g is None)]
    pairs = [(np.asarray(h), np.asarray(g)) for h, g in both]
    pairs = [(h, g) for h, g in pairs if h.shape == g.shape]
    equal = sum(int(np.isclose(h, g).sum()) for h, g in pairs)
    return equal, sum(float(np.abs(h - g).sum()) for h, g in pairs)
