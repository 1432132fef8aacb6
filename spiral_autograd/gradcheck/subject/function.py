"""Custom functions: ``forward(ctx, *inputs)`` and ``backward(ctx, upstream)`` of one class."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from contextlib import suppress
from functools import partial
from types import FunctionType
from typing import Any

from ..guard import theirs
from ..source import code_of
from .conventions import CONTEXTS, SAVED
from .inputs import as_array
from .objects import accepts, positional_names, read
from .pair import Passes, Way
from .subject import CheckError, called, is_array, is_float_array


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
    takes_one_more = is_class and accepts(forward, n + 1) and not accepts(forward, n)
    is_own = is_plain and first not in CONTEXTS  # the context is the function itself
    if not (sets_up or first in CONTEXTS or (_saves(layer) if is_own else takes_one_more)):
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
