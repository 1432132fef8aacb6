"""Custom functions, primitives of autograd's, and derivatives: each as two functions."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import partial, wraps
from itertools import permutations
from types import FunctionType
from typing import Any

import autograd.numpy as anp
import numpy as np
from autograd.core import add_outgrads, primitive_jvps, primitive_vjps
from autograd.tracer import isbox, trace_primitives_map

from ...pytree import leaves, with_leaves
from ...recording import is_installed
from ...validation import Array
from ..finding import Finding, found
from ..guard import theirs
from ..source import code_of
from .calling import Calling, Function, Source, Told, TwoFunctions
from .conventions import CONTEXTS, SAVED, means_output, means_upstream
from .find_calling import gradients_by
from .inputs import as_array
from .object_passes import ObjectPasses
from .objects import accepts, name_of_function, positional_names, read, required_names
from .session import Session
from .subject import CheckError, called, described, is_array, is_float_array

# -------------------- custom functions: forward(ctx, *inputs), backward(ctx, upstream) -----------


class Context:
    """Keeps what a forward pass saves for the backward pass, as the frameworks' own do."""

    saved_tensors = saved_values = saved_variables = saved = ()

    def save_for_backward(self, *values: object) -> None:
        """Keep values, under each of the names by which they are asked for."""
        self.__dict__.update(dict.fromkeys(SAVED, values))

    def mark_non_differentiable(self, *_: object) -> None:
        """Do nothing: what is said here of outputs shows in their dtype."""

    mark_dirty = set_materialize_grads = mark_non_differentiable


def function_of(layer: Any, inputs: Sequence[object]) -> tuple[Any, Sequence[object]]:
    """Return a class or an object whose methods take a context as two functions; a layer as it is.

    And with it the inputs, arrays where there are none.
    """
    forward, backward, n = read(layer, "forward"), read(layer, "backward"), len(inputs)
    if not callable(forward) or not callable(backward):
        return layer, inputs
    is_class, name = isinstance(layer, type), read(layer, "__name__") or type(layer).__name__
    is_plain = is_class and isinstance(inspect.getattr_static(layer, "forward"), FunctionType)
    first, second = positional_names(forward, 2)
    if is_plain and second in CONTEXTS and first not in CONTEXTS:  # forward(self, ctx, ...)
        return function_of(_instance_of(layer, ()), inputs)
    sets_up = callable(read(layer, "setup_context"))
    if not (sets_up or _takes_context(layer, forward, n, is_plain=is_plain)):
        return layer, inputs
    label, backward_label = f"{name}.forward", f"{name}.backward"

    def run(*inputs: object) -> tuple[object, object]:
        context = _for_inputs(_instance_of(layer, inputs) if is_plain else Context(), inputs)
        if not sets_up:
            return called(label, forward, context, *inputs), context
        result = called(label, forward, *inputs)
        called(f"{name}.setup_context", layer.setup_context, context, inputs, result)
        return result, context

    def back(context: object, ups: tuple[object, ...]) -> object:
        return backward(context, *(ups if accepts(backward, 1 + len(ups)) else [ups]))

    names = positional_names(forward, n + 1 - sets_up)[1 - sets_up :]
    ways = (Calling((("cache", None), _ALL)), Calling((("cache", _with_one_value), _ALL)))
    is_open = "saved_values" in getattr(code_of(backward), "co_names", ())
    told = Told(label, backward_label, names, (forward, backward), ways if is_open else ways[:1])
    given = inputs if any(map(is_array, inputs)) else [as_array(value) for value in inputs]
    return TwoFunctions(run, back, told), given


_ALL: Source = ("upstream", None)


def _with_one_value(context: object) -> object:
    """Return a context that gives one saved value as itself, as minitorch's may."""
    if isinstance(context, Context) and len(context.saved) == 1:
        context.saved_values = context.saved[0]
    return context


def _takes_context(layer: Any, forward: Any, n: int, *, is_plain: bool) -> bool:
    """Tell whether a forward pass takes a context before n inputs, or is a method of one."""
    is_class, (first,) = isinstance(layer, type), positional_names(forward, 1)
    takes_as_many, takes_one_more = accepts(forward, n), accepts(forward, n + 1)
    if first in CONTEXTS:  # unless that is an input
        return is_class or takes_one_more or not takes_as_many
    return _saves(layer) if is_plain else is_class and takes_one_more and not takes_as_many


def _saves(function: type) -> bool:
    """Tell whether the methods of a class use themselves as a context."""
    codes = [code_of(function, which) for which in ("forward", "backward")]
    return any({"save_for_backward", *SAVED}.intersection(c.co_names) for c in codes if c)


def _instance_of(function: Any, inputs: Sequence[object]) -> Any:
    """Return an object of a class, whose framework may make it of the inputs."""
    for arguments in ((), inputs):
        if accepts(function, len(arguments)):
            with suppress(CheckError), theirs():
                return function(*arguments)
    return function.__new__(function)


def _for_inputs(context: Context, inputs: Sequence[object]) -> Context:
    """Return a context, with what it lacks of that which frameworks give it."""
    given = {
        "save_for_backward": partial(Context.save_for_backward, context),
        "needs_input_grad": tuple(map(is_float_array, inputs)),
    }
    for name, value in given.items():
        with suppress(CheckError), theirs():
            if not hasattr(context, name):
                setattr(context, name, value)
    return context


# -------------------- primitives: a vjp and a jvp of each argument --------------------

LARGEST = 400  # entries of an input whose jvp is asked entry by entry

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

    def functions(self) -> TwoFunctions:
        """Return the function, and one that gives the gradients that follow from its rules."""
        gradient, rules = getattr(self, f"_from_{self.kind}"), self.rules
        there = [k for k, value in enumerate(self.inputs) if is_float_array(value) and k in rules]

        def run(*inputs: object) -> tuple[object, object]:
            if not self.is_followed and any(map(isbox, inputs)):  # autograd is no witness of it
                raise CheckError(f"what autograd knows of {self.label} is what is to be checked")
            ans = called(self.label, partial(self.raw, **self.kwargs), *inputs)
            return ans, ans

        def back(ups: object, cache: object, *inputs: object) -> dict[str, object]:
            up = with_leaves(cache, leaves(ups))
            return {self.names[k]: gradient(k, rules[k], up, cache, inputs) for k in there}

        code = (self.raw, rules[there[0]] if there else self.raw)
        inputs: list[Source] = [("input", k) for k in range(len(self.inputs))]
        ways = (Calling((_ALL, ("cache", None), *inputs)),)
        return TwoFunctions(run, back, Told(self.label, f"the {self.kind}", self.names, code, ways))

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


# -------------------- a function with its derivative --------------------

# What a derivative may take: x, y, and the upstream gradient.
_X, _Y, _G = ("input", 0), ("output", 0), ("upstream", 0)


def with_derivative(function: Function, derivative: Function, x: Any) -> TwoFunctions:
    """Return a function with its derivative: of x, of y, and of the upstream gradient if it may be.

    Where the function takes numbers only, both are called for each entry.
    """
    if not is_float_array(x):
        raise CheckError(f"x must be an array of floats, or a float, got {described(x)}")
    labels = (
        name_of_function(function, "the function"),
        name_of_function(derivative, "the derivative"),
    )
    taken = required_names(derivative) or ["x"]
    if len(taken) > 3:
        raise CheckError(
            f"{labels[1]} must take x, y = {labels[0]}(x), the upstream gradient, or some of "
            f"these, but takes {', '.join(taken)}: fix the others with functools.partial"
        )
    gradients = list(map(_is_upstream, taken))
    every = [one for one in permutations((_G, _X, _Y), len(taken)) if one != (_G,)]
    named = [one for one in every if any(gradients) and [s == _G for s in one] == gradients]
    ways = tuple(Calling(one, is_derivative=_G not in one) for one in named or every)
    told = Told(*labels, positional_names(function, 1), (function, derivative), ways)
    if _takes_numbers_only(labels[0], function, x):
        function, derivative = _entrywise(function), _entrywise(derivative)
    return TwoFunctions(function, derivative, told)


def derivative_of(
    function: Any, derivative: Any, inputs: Sequence[object], session: Session
) -> TwoFunctions | None:
    """Return two functions as a function and its derivative, if the second takes one value alone.

    It is no upstream gradient by its name, and the first leaves no cache.
    """
    if not all(callable(f) and not isinstance(f, type) for f in (function, derivative)):
        return None
    is_upstream = list(map(_is_upstream, required_names(derivative)))
    if is_upstream != [False] or len(inputs) != 1 or not is_float_array(as_array(inputs[0])):
        return None
    with suppress(CheckError), session.fresh():
        if not isinstance(called("", function, *inputs), tuple):
            return with_derivative(function, derivative, as_array(inputs[0]))
    return None


def _is_upstream(name: str) -> bool:
    return means_upstream(name) and not means_output(name)


def _takes_numbers_only(label: str, function: Function, x: Array) -> bool:
    try:
        called(label, function, x.copy())
    except CheckError:
        if x.ndim > 0:
            with suppress(CheckError):
                called(label, function, x.reshape(-1)[0])
                return True
        raise
    return False


def _entrywise(function: Function) -> Function:
    """Return a function of arrays that calls one of numbers for each of their entries."""

    @wraps(function)
    def run(*arrays: Any) -> Any:
        flat = [np.reshape(array, -1) for array in arrays]
        results = [function(*(one[i] for one in flat)) for i in range(flat[0].size)]
        return np.reshape(anp.array(results), np.shape(arrays[0]))

    return run


def swapped(way: Calling | None) -> Calling | None:
    """Return the way in which y is given for x, or x for y; None where both are given."""
    if way is None or (_X in way.sources) == (_Y in way.sources):
        return None
    other = {_X: _Y, _Y: _X}
    return replace(way, sources=tuple(other.get(one, one) for one in way.sources))


def takes(layer: ObjectPasses, *, is_right: bool) -> list[Finding]:
    """Return what to say of what a derivative takes."""
    way, names = layer.calling, layer.names
    other = swapped(way) if layer.told.ways else None
    if way is None or other is None:
        return []
    own, others = gradients_by(layer, way), gradients_by(layer, other)
    x, y = names[0], f"y = {layer.label}({names[0]})"
    fields = dict(zip(("what", "other"), (x, y) if _X in way.sources else (y, x), strict=True))
    is_either = bool(own) and all(map(np.array_equal, own, others))
    kind = "takes_either" if is_either else "takes" if is_right else "takes_neither"
    return [found(kind, who=layer.backward_label, **fields)]
