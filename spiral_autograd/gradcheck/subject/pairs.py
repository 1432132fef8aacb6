"""Pairs of functions: ``out, cache = forward(*inputs)`` and ``backward(dout, cache)``."""

from __future__ import annotations

import copy
import inspect
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

import numpy as np

from ...pytree import leaves, named_leaves, with_leaves
from ...validation import Array
from ..finding import Said
from ..reference.rebind import rebound
from .conventions import STATISTICS, gradient_key, positional_names
from .inputs import (
    Constant,
    Names,
    effects_on,
    floats_with_gradients,
    leaf_name,
    prepared,
    say_unread,
    watched,
)
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
    described,
    is_float_array,
    is_of_loss,
    name_of_function,
    other_shapes,
    outputs_of,
    require_any,
    require_function,
    upstream_of,
)
from .unchecked import differs, moved


class Pair:
    """Runs somebody's ``out, cache = forward(*inputs)`` and ``backward(dout, cache)``.

    Parameters
    ----------
    forward, backward : callables
    inputs : sequence
    session : Session
    upstream : array, tuple of arrays or None
        The upstream gradient, if one is given.
    rng : Generator
        The stream of a random one.
    constant : names
        What is meant to have no gradient.
    """

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
        self.constant = Constant(constant)
        require_function("forward", forward)
        require_function("backward", backward)
        self.forward, self.backward = forward, backward
        self.label = name_of_function(forward, "forward")
        self.backward_label = name_of_function(backward, "backward")
        self.names = positional_names(forward, len(inputs))
        self.inputs, self.remarks = prepared(inputs, self.names)
        self.session, self.layer = session, None
        self.left_out: list[tuple[str, Array]] = []
        self.failures: list[Said] = []
        session.add(self.inputs)
        self.floats = [is_float_array(value) for value in self.inputs]
        self.taken = self._taken()
        with session.fresh():
            self.structure, cache = self.run()
            self.outputs = [np.array(out) for out in leaves(self.structure)]
            self.upstream = upstream_of(self.outputs, upstream, rng)
            backward = partial(self.run_backward, cache=cache)
            result, effects = watched(self, cache, backward, self.upstream)
            self.arguments = self._differentiable(result)
            self.first = Gradients.of(self._read(result), session)
            parameters = [n for n in self._as_returned(result) if n[0] != self.names[0]]
            self.remarks += other_shapes(parameters)
        self._say_left_out()
        known = [*self.names, *(name for name, _ in (*self.arguments, *self.left_out))]
        self.constant.require_known(self.label, known)
        if not self.arguments:
            floats = [n for n, flag in zip(self.names, self.floats, strict=True) if flag]
            require_any(self.backward_label, result, floats, self.first)
        if self.arguments:
            outputs_of(self.label, self.outputs)
        self.remarks += effects_on(effects, [name for name, _ in self.arguments])

    def _taken(self) -> list[str]:
        """Return the parameters that `backward` requires."""
        try:
            parameters = list(inspect.signature(self.backward).parameters.values())
        except (TypeError, ValueError):
            return []
        if any(p.kind == p.VAR_POSITIONAL for p in parameters):
            return []
        return [p.name for p in parameters if p.default is p.empty and p.kind != p.VAR_KEYWORD]

    @property
    def options(self) -> dict[str, Any]:
        """What backward takes besides the upstream gradients and the cache: forward's own."""
        given = dict(zip(self.names, self.inputs, strict=True))
        return {name: given[name] for name in self.taken[2:] if name in given}

    def named_values(self) -> list[tuple[str, Array]]:
        """Return the inputs that are arrays of floats."""
        pairs = zip(self.names, self.inputs, strict=True)
        return [(name, value) for name, value in pairs if is_float_array(value)]

    def run(self) -> tuple[list[Any], Any]:
        """Run the forward pass, and return the outputs that backward has a gradient of; the cache.

        Outputs that backward takes no upstream gradient of come after those of which it does.
        """
        result = called(self.label, self.forward, *self.inputs)
        if not isinstance(result, tuple) or len(result) < 2:
            raise CheckError(
                f"{self.label} must return (out, cache), got {described(result)}; for a scalar "
                "loss with a gradient function use check_gradient"
            )
        return self._outputs(result), result[-1]

    def _outputs(self, result: tuple[Any, ...]) -> list[Any]:
        wanted = len(self.taken) - len(self.options) - 1
        outputs = list(result[:-1])
        return outputs[:wanted] if 0 < wanted < len(outputs) else outputs

    def run_backward(self, ups: Sequence[Array], cache: Any) -> Any:
        """Run the backward pass on upstream gradients and a cache."""
        tree = with_leaves(self.structure, list(ups))
        function = partial(self.backward, **self.options) if self.options else self.backward
        return self._flat(called(self.backward_label, function, *tree, cache))

    def _flat(self, result: Any) -> Any:
        """Return gradients, where some stand in dicts as the parameters do, as one dict."""
        holders = [(n, v) for n, v in zip(self.names, self.inputs, strict=True) if _has_floats(v)]
        if not isinstance(result, tuple) or len(result) != len(holders):
            return result
        pairs = [(n, g, isinstance(v, dict)) for (n, v), g in zip(holders, result, strict=True)]
        if not any(inner for _, _, inner in pairs):
            return result
        if not all(isinstance(g, dict) == inner for _, g, inner in pairs):
            return result
        flat: dict[Any, Any] = {}
        for name, gradient, inner in pairs:
            flat |= gradient if inner else {name: gradient}
        return flat

    def _differentiable(self, result: Any) -> list[tuple[str, Array]]:
        """Return the arrays that have a gradient; those in dicts and lists by their own names."""
        by_name = self._by_name(result)
        unread: dict[Any, Any] = {}
        pairs = list(zip(self.names, self.inputs, self.floats, strict=True))
        found = [(name, value) for name, value, flag in pairs if flag]
        if isinstance(result, dict):
            inside = [
                (leaf_name(path), leaf)
                for _, value, flag in pairs
                if not flag
                for path, leaf in named_leaves("", value)
                if is_float_array(leaf)
            ]
            keys = {name: gradient_key(result, name) for name, _ in inside}
            found += [(name, leaf) for name, leaf in inside if keys[name] is not None]
            self.left_out = [(name, leaf) for name, leaf in inside if keys[name] is None]
            by_name |= {name: result[key] for name, key in keys.items() if key is not None}
            read = {id(gradient) for gradient in by_name.values()}
            unread = {key: g for key, g in result.items() if id(g) not in read}
        self.unchecked = [
            name
            for name, _ in found
            if name not in by_name and not is_of_loss(self.structure, result)
            if not self.constant.has(name)
        ]
        self.remarks += floats_with_gradients(self.names, self.inputs, result)
        self.remarks += [
            f"{self.backward_label} returns no gradient for {name}: it is not checked"
            for name in self.unchecked
        ]
        say_unread(self, unread)
        return [
            (name, value)
            for name, value in found
            if name in by_name and not self.constant.covers(name, by_name[name])
        ]

    def _say_left_out(self) -> None:
        """Say which arrays in dicts the output depends on, and backward has no gradient of."""
        for name, leaf in self.left_out:
            with self.session.moved([leaf], [moved(leaf)]), self.session.fresh():
                used = differs(self.outputs, leaves(self.run()[0]))
            by_right = any(word in name for word in STATISTICS) or self.constant.has(name)
            if used and not by_right:
                self.unchecked.append(name)
                self.remarks.append(
                    f"{self.backward_label} returns no gradient for {name}: it is not checked"
                )

    def _by_name(self, result: Any) -> dict[str, Any]:
        return by_position(self.backward_label, result, self.names, self.floats)

    @contextmanager
    def given(self, others: Sequence[Any]) -> Iterator[None]:
        """Give the forward pass other inputs for a while."""
        here, self.inputs = self.inputs, list(others)
        try:
            yield
        finally:
            self.inputs = here

    def gradients(
        self, ups: list[Array], between: Callable[[Any], None] | None = None
    ) -> list[Any]:
        """Run both passes, and return the gradient of each argument."""
        _, cache = self.run()
        if between is not None:
            between(cache)
        return self._read(self.run_backward(ups, cache))

    def _read(self, result: Any) -> list[Any]:
        return [
            gradient if name == self.names[0] else as_update_takes(gradient, value)
            for name, gradient, value in self._as_returned(result)
        ]

    def _as_returned(self, result: Any) -> list[tuple[str, Any, Array]]:
        """Return the name of each argument, its gradient, and itself."""
        names = [name for name, _ in self.arguments]
        if isinstance(result, dict):
            by_name = by_position(self.backward_label, result, names, [True] * len(names))
        else:
            by_name = self._by_name(result)
        return [(n, as_gradient(n, by_name.get(n, MISSING)), v) for n, v in self.arguments]

    def substitute(self, replacements: Sequence[Any]) -> list[Any]:
        """Run the forward pass on other values."""
        memo = {id(v): r for (_, v), r in zip(self.arguments, replacements, strict=True)}
        function = rebound(self.forward)
        result = function(*(copy.deepcopy(value, dict(memo)) for value in self.inputs))
        return leaves(self._outputs(result))


def _has_floats(value: Any) -> bool:
    return any(is_float_array(leaf) for _, leaf in named_leaves("", value))


def pair_subject(
    forward: Callable[..., Any],
    backward: Callable[..., Any],
    inputs: Sequence[Any],
    session: Session,
    upstream: Any,
    rng: np.random.Generator,
    constant: Names = (),
) -> Subject:
    """Return ``out, cache = forward(*inputs)`` and ``backward(dout, cache)`` as a subject."""
    pair = Pair(forward, backward, inputs, session, upstream, rng, constant)
    return Subject(
        names=[name for name, _ in pair.arguments],
        values=[value for _, value in pair.arguments],
        session=session,
        forward=lambda: outputs_of(pair.label, pair.run()[0]),
        substitute=pair.substitute,
        backward=pair.gradients,
        upstream=pair.upstream,
        outputs=pair.outputs,
        first=pair.first,
        inputs=pair.inputs,
        given=pair.given,
        n_inputs=1,
        forward_code=[forward],
        backward_code=[backward],
        remarks=pair.remarks,
        unchecked=pair.unchecked,
        failures=pair.failures,
    )
