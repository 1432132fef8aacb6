"""Primitives of autograd's: what each has for a vjp and a jvp of its arguments."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
from autograd.core import add_outgrads, primitive_jvps, primitive_vjps
from autograd.tracer import isbox, trace_primitives_map

from ...pytree import leaves
from ...recording import is_installed
from ...validation import Array
from ..source import code_of
from .inputs import as_array
from .objects import name_of_function, positional_names
from .pair import Passes, Way
from .subject import CheckError, called, described, is_float_array

LARGEST = 400  # entries of an input whose jvp is asked entry by entry

Function = Callable[..., Any]
Rules = Mapping[int, Function]  # by the number of the argument, as defvjp takes them


def rules_of(function: Function, given: object, kind: str, n: int) -> Rules:
    """Return the vjp makers or the jvps that are given for n arguments, or else registered."""
    if callable(given):
        return {0: given}
    if isinstance(given, list | tuple):
        return {k: rule for k, rule in enumerate(given) if rule is not None}
    if given is not None:
        raise CheckError(f"{kind}s must be a function for each argument, got {described(given)}")
    whole = (primitive_vjps if kind == "vjp" else primitive_jvps).get(
        trace_primitives_map.get(function, function)
    )
    if whole is None:
        return {}
    names = inspect.getclosurevars(whole).nonlocals
    rules: Rules | None = names.get(f"{kind}s_dict")
    if rules is not None:
        return rules
    from_whole = _vjp_from if kind == "vjp" else _jvp_from
    return {k: partial(from_whole, whole, k) for k in range(n)}


def _vjp_from(whole: Function, k: int, ans: object, *args: object, **kwargs: object) -> object:
    pull = whole((k,), ans, args, kwargs)
    return lambda g: next(iter(pull(g)))


def _jvp_from(
    whole: Function, k: int, g: object, ans: object, *args: object, **kwargs: object
) -> object:
    return whole((k,), (g,), ans, args, kwargs)


class Primitive:
    """A function, with what autograd is to be told of it: the gradients that this gives."""

    def __init__(
        self,
        function: Function,
        inputs: Sequence[object],
        kwargs: Mapping[str, object],
        kind: str,
        given: object,
    ) -> None:
        self.raw = getattr(function, "fun", function)
        self.kwargs, self.kind = kwargs, kind
        self.rules = rules_of(function, given, kind, len(inputs))
        self.label = name_of_function(function, "the function")
        self.inputs = [as_array(value) for value in inputs]
        self.names = positional_names(self.raw, len(inputs))
        self.shapes: dict[str, tuple[object, object]] = {}  # of tangents that have a wrong one
        code = code_of(self.raw)
        own = code is not None and not is_installed(code.co_filename)
        self.is_followed = own or given is not None

    def forward(self, *inputs: object) -> tuple[list[object], object]:
        """Run the function itself; autograd is no witness of what it is told."""
        if not self.is_followed and any(map(isbox, inputs)):
            raise CheckError(f"what autograd knows of {self.label} is what is to be checked")
        ans = called(self.label, partial(self.raw, **self.kwargs), *inputs)
        return [ans], ans

    def passes(self) -> Passes:
        """Return the function, and the gradients that follow from its vjps or jvps, as passes."""
        gradient, rules = getattr(self, f"_from_{self.kind}"), self.rules
        there = [k for k, value in enumerate(self.inputs) if is_float_array(value) and k in rules]

        def way(ups: list[object], ans: object, inputs: Sequence[object]) -> dict[str, object]:
            return {self.names[k]: gradient(k, rules[k], ups[0], ans, inputs) for k in there}

        code = (self.raw, rules[there[0]] if there else self.raw)
        label = f"the {self.kind}"
        return Passes(
            self.label, label, self.names, self.inputs, self.forward, [Way(way, -1)], code
        )

    def _from_vjp(
        self, k: int, rule: Function, up: object, ans: object, inputs: Sequence[object]
    ) -> object:
        what = f"the vjp of {self.label} by {self.names[k]}"
        vjp = called(what, partial(rule, **self.kwargs), ans, *inputs)
        if not callable(vjp):
            raise CheckError(
                f"{what} must return a function of the upstream gradient g, got {described(vjp)}: "
                f"lambda ans, {', '.join(self.names)}: lambda g: ..."
            )
        return add_outgrads(None, called(what, vjp, up))[0]  # dense, where it is sparse

    def _from_jvp(
        self, k: int, rule: Function, up: object, ans: object, inputs: Sequence[object]
    ) -> Array | None:
        """Return the gradient that a jvp implies, from its tangent for each entry of the input.

        The tangents that it is given have different sizes, so that it must be linear in them.
        """
        gradient, what = np.zeros_like(inputs[k]), f"the jvp of {self.label} by {self.names[k]}"
        if gradient.size > LARGEST:
            raise CheckError(
                f"{what} is asked entry by entry, for at most {LARGEST} entries, and "
                f"{self.names[k]} has {gradient.size}: give a smaller one, or leave out the jvps "
                "with jvps=()"
            )
        sizes = np.random.default_rng(0).uniform(-2, 2, gradient.shape)
        jvp, due = partial(rule, **self.kwargs), [np.shape(one) for one in leaves(ans)]
        for index in np.ndindex(gradient.shape):
            entry = np.zeros_like(gradient)
            entry[index] = sizes[index]
            tangents = leaves(called(what, jvp, entry, ans, *inputs))
            shapes = [np.shape(one) for one in tangents]
            if shapes != due:
                self.shapes[self.names[k]] = _of_one(shapes), _of_one(due)
                return None
            total = sum(np.sum(u * t) for u, t in zip(leaves(up), tangents, strict=True))
            gradient[index] = total / sizes[index]
        return gradient


def _of_one(shapes: Sequence[object]) -> object:
    return shapes[0] if len(shapes) == 1 else shapes
