"""Custom functions, primitives of autograd's, and derivatives: each as two passes."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from functools import partial
from itertools import permutations
from types import FunctionType
from typing import Any

import numpy as np
from autograd.core import add_outgrads, primitive_jvps, primitive_vjps
from autograd.tracer import isbox, trace_primitives_map

from ...pytree import leaves
from ...recording import is_installed
from ...validation import Array
from ..finding import Finding, found
from ..guard import theirs
from ..source import code_of
from .conventions import CONTEXTS, SAVED, means_output, means_upstream
from .inputs import as_array
from .objects import accepts, name_of_function, positional_names, read, required_names
from .pair import Pair, Passes, Way
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


def function_of(layer: Any, inputs: Sequence[object]) -> Passes | None:
    """Return a class or an object whose methods take a context as passes; None of a layer."""
    forward, backward, n = read(layer, "forward"), read(layer, "backward"), len(inputs)
    if not callable(forward) or not callable(backward):
        return None
    is_class, name = isinstance(layer, type), read(layer, "__name__") or type(layer).__name__
    is_plain = is_class and isinstance(inspect.getattr_static(layer, "forward"), FunctionType)
    first, second = positional_names(forward, 2)
    if is_plain and second in CONTEXTS and first not in CONTEXTS:  # forward(self, ctx, ...)
        return function_of(_instance_of(layer, ()), inputs)
    sets_up = callable(read(layer, "setup_context"))
    if not (sets_up or _takes_context(layer, forward, n, is_plain=is_plain)):
        return None
    label, backward_label = f"{name}.forward", f"{name}.backward"

    def run(*inputs: object) -> tuple[list[object], object]:
        context = _for_inputs(_instance_of(layer, inputs) if is_plain else Context(), inputs)
        if sets_up:
            result = called(label, forward, *inputs)
            called(f"{name}.setup_context", layer.setup_context, context, inputs, result)
        else:
            result = called(label, forward, context, *inputs)
        return list(result) if isinstance(result, tuple) else [result], context

    def way(ups: list[object], context: object, inputs: Sequence[object]) -> object:
        given = ups if accepts(backward, 1 + len(ups)) else [tuple(ups)]
        return called(backward_label, backward, context, *given)

    def alone(ups: list[object], context: object, inputs: Sequence[object]) -> object:
        """Give back one value that was saved as itself, as minitorch's saved_values may."""
        if isinstance(context, Context) and len(context.saved) == 1:
            context.saved_values = context.saved[0]
        return way(ups, context, inputs)

    names = positional_names(forward, n + 1 - sets_up)[1 - sets_up :]
    if not any(map(is_array, inputs)):
        inputs = [as_array(value) for value in inputs]
    code = forward, backward
    return Passes(label, backward_label, names, inputs, run, [Way(way, 1), Way(alone, 1)], code)


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


# -------------------- a function with its derivative --------------------

# What a derivative may take, by the number of its arguments.
READINGS = (
    ["x", "y"],
    ["gx", "xg", "gy", "yg", "xy", "yx"],
    ["".join(order) for order in permutations("gxy")],
)


class Derivative:
    """A function, and the gradients that its derivative gives, by what this may take."""

    def __init__(
        self, function: Callable[..., object], derivative: Callable[..., object], x: object
    ) -> None:
        self.x: Any = as_array(x)
        if not is_float_array(self.x):
            raise CheckError(f"x must be an array of floats, or a float, got {described(x)}")
        self.function, self.derivative = function, derivative
        self.label = name_of_function(function, "the function")
        self.derivative_label = name_of_function(derivative, "the derivative")
        self.names = positional_names(function, 1)
        taken = required_names(derivative) or ["x"]
        if len(taken) > len(READINGS):
            raise CheckError(
                f"{self.derivative_label} must take x, y = {self.label}(x), the upstream gradient, "
                f"or some of these, but takes {', '.join(taken)}: fix the others with "
                "functools.partial"
            )

        gradients = [means_upstream(name) and not means_output(name) for name in taken]
        every = READINGS[len(taken) - 1]
        named = [r for r in every if any(gradients) and [one == "g" for one in r] == gradients]
        self.readings = {self._way(one): one for one in named or every}
        self.is_entrywise = self._takes_numbers_only()

    def passes(self, ways: Sequence[Way] = ()) -> Passes:
        """Return the function and its derivative, called in one of some ways, as passes."""
        code = self.function, self.derivative
        labels = self.label, self.derivative_label
        ways = ways or [*self.readings]
        return Passes(*labels, self.names, [self.x], self.forward, ways, code, is_sure=False)

    def swapped(self, way: Way) -> Way | None:
        """Return the way in which y is given for x, or x for y; None where both are given."""
        reading = self.readings[way]
        other = reading.translate(str.maketrans("xy", "yx"))
        is_one = ("x" in reading) != ("y" in reading)
        return next(w for w, taken in self.readings.items() if taken == other) if is_one else None

    def said(self, pair: Pair, *, is_right: bool) -> list[Finding]:
        """Return what to say of what the derivative takes."""
        reading, other = self.readings[pair.way], self.swapped(pair.way)
        if other is None:
            return []
        pairs = zip(pair.given_by(pair.way), pair.given_by(other), strict=False)
        same = [np.array_equal(ours, theirs) for (ours, _), (theirs, _) in pairs]
        x, y = self.names[0], f"y = {self.label}({self.names[0]})"
        fields = dict(zip(("what", "other"), (x, y) if "x" in reading else (y, x), strict=True))
        is_either = bool(same) and all(same)
        kind = "takes_either" if is_either else "takes" if is_right else "takes_neither"
        return [found(kind, who=self.derivative_label, **fields)]

    def forward(self, x: Array) -> tuple[list[object], object]:
        """Run the function; with one that takes numbers only, there is an output for each."""
        if not self.is_entrywise:
            y = called(self.label, self.function, x)
            return [y], y
        flat = x.reshape(-1)
        ys = [called(self.label, self.function, flat[i]) for i in range(x.size)]
        return ys, ys

    def _takes_numbers_only(self) -> bool:
        x = self.x
        try:
            called(self.label, self.function, x.copy())
        except CheckError as error:
            if x.ndim == 0:
                raise
            try:
                called(self.label, self.function, x.reshape(-1)[0])
            except CheckError:
                raise error from None
            return True
        return False

    def _way(self, reading: str) -> Way:
        def way(ups: list[Any], y: Any, inputs: Sequence[Array]) -> object:
            if not self.is_entrywise:
                return self._gradient(reading, inputs[0], y, ups[0])
            entries = zip(inputs[0].reshape(-1), y, ups, strict=True)
            grads = [self._gradient(reading, *map(np.asarray, entry)) for entry in entries]
            return np.reshape(np.array(grads), inputs[0].shape)

        return Way(way, reading.find("g"))

    def _gradient(self, reading: str, x: Array, y: Array, g: Array) -> object:
        """Return what the derivative gives for x, times the upstream gradient if that is left."""
        given = {"x": x, "y": y, "g": g}
        result = called(self.derivative_label, self.derivative, *(given[one] for one in reading))
        return result if "g" in reading or result is None else chained(g, result, y, x)


def derivative_of(
    function: Any, derivative: Any, inputs: Sequence[object], session: Session
) -> Derivative | None:
    """Return two functions as a function and its derivative, if the second takes one value alone.

    It is no upstream gradient by its name, and the first leaves no cache.
    """
    if not all(callable(f) and not isinstance(f, type) for f in (function, derivative)):
        return None
    taken = required_names(derivative)
    is_upstream = [means_upstream(name) and not means_output(name) for name in taken]
    if is_upstream != [False] or len(inputs) != 1 or not is_float_array(as_array(inputs[0])):
        return None
    with suppress(CheckError), session.fresh():
        if not isinstance(called("", function, *inputs), tuple):
            return Derivative(function, derivative, inputs[0])
    return None


def chained(g: Array, derivative: object, y: Array, x: Array) -> object:
    """Return a gradient through a derivative: one for each entry, or a Jacobian, of all or rows."""
    d, shape = np.asarray(derivative), np.shape(y)
    if d.ndim == 0 or d.shape == shape == x.shape:
        return g * d
    if d.shape == shape + x.shape:
        return np.tensordot(g, d, len(shape))
    if shape == x.shape and d.shape == (*shape, shape[-1]):
        return np.einsum("...i,...ij->...j", g, d)
    return derivative
