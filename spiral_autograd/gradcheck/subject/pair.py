"""Pairs of functions: ``out, cache = forward(*inputs)`` and ``backward(dout, cache)``."""

from __future__ import annotations

import copy
import inspect
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np

from ...pytree import leaves, named_leaves, with_leaves
from ...validation import Array
from .adapter import Adapter, Values, by_key, by_position, is_of_loss, require_any
from .conventions import is_statistic, positional_names
from .inputs import Names, effects_on, floats_with_gradients, leaf_name, say_unread, watched
from .parameters import Parameter
from .session import Session
from .subject import (
    MISSING,
    CheckError,
    Subject,
    called,
    described,
    is_float_array,
    name_of_function,
    outputs_of,
    require_function,
    upstream_of,
)
from .unchecked import differs, moved


class Pair(Adapter):
    """Runs somebody's ``out, cache = forward(*inputs)`` and ``backward(dout, cache)``."""

    def __init__(
        self,
        forward: Callable[..., Any],
        backward: Callable[..., Any],
        inputs: Sequence[Any],
        session: Session,
        upstream: Any,
        rng: np.random.Generator,
        constant: Names = (),
    ) -> None:
        require_function("forward", forward)
        require_function("backward", backward)
        self.forward, self.backward = forward, backward
        self.label = name_of_function(forward, "forward")
        self.backward_label = name_of_function(backward, "backward")
        super().__init__(inputs, positional_names(forward, len(inputs)), session, constant)
        self.cache: Any = None
        taken = _required_names(backward)
        given = dict(zip(self.names, self.inputs, strict=True))
        # What backward takes besides the upstream gradients and the cache: forward's own.
        self.options = {name: given[name] for name in taken[2:] if name in given}
        self.n_wanted = len(taken) - len(self.options) - 1
        with session.fresh():
            self.structure = self.run()
            self.outputs = [np.array(out) for out in leaves(self.structure)]
            self.upstream = upstream_of(self.outputs, upstream, rng)
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

    @property
    def left(self) -> Any:
        """What the forward pass has left for the backward pass."""
        return self.cache

    def run(self) -> list[Any]:
        """Run the forward pass, and return the outputs that backward has a gradient of.

        Outputs that backward takes no upstream gradient of come after those of which it does.
        """
        result = called(self.label, self.forward, *self.inputs)
        if not isinstance(result, tuple) or len(result) < 2:
            raise CheckError(
                f"{self.label} must return (out, cache), got {described(result)}; for a scalar "
                "loss with a gradient function use check_gradient"
            )
        self.cache = result[-1]
        return self._outputs(result)

    def _outputs(self, result: tuple[Any, ...]) -> list[object]:
        outputs = list(result[:-1])
        return outputs[: self.n_wanted] if 0 < self.n_wanted < len(outputs) else outputs

    def run_backward(self, ups: Sequence[Array]) -> Any:
        """Run the backward pass on upstream gradients and the cache."""
        tree = with_leaves(self.structure, list(ups))
        function = partial(self.backward, **self.options) if self.options else self.backward
        self.result = self._flat(called(self.backward_label, function, *tree, self.cache))
        return self.result

    def substitute(self, replacements: Sequence[Any], values: Values = None) -> list[Any]:
        """Run the forward pass on other values."""
        memo = self.standing_in(replacements, values)
        arguments = (copy.deepcopy(value, dict(memo)) for value in self.inputs)
        return leaves(self._outputs(self.forward(*arguments)))

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
        subject = super().subject()
        return replace(subject, forward_code=[self.forward], backward_code=[self.backward])


def _required_names(function: Callable[..., Any]) -> list[str]:
    """Return the parameters that a function requires; none where it takes any number."""
    try:
        parameters = list(inspect.signature(function).parameters.values())
    except (TypeError, ValueError):
        return []
    if any(p.kind == p.VAR_POSITIONAL for p in parameters):
        return []
    return [p.name for p in parameters if p.default is p.empty and p.kind != p.VAR_KEYWORD]
