"""Layers as objects: ``forward(*inputs)`` and ``backward(upstream)``, and what they keep."""

from __future__ import annotations

import copy
import inspect
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from types import FunctionType
from typing import Any

import numpy as np

from ..pytree import leaves
from ..validation import Array
from .handwritten import (
    MISSING,
    CheckError,
    Subject,
    by_position,
    called,
    is_float_array,
    outputs_of,
    positional_names,
)
from .parameters import Parameter, find_parameters, reset_of
from .state import Session


def layer_subject(layer: Any, inputs: Sequence[Any], session: Session, upstream: Any) -> Subject:
    """Return an object with ``forward(*inputs)`` and ``backward(upstream)`` as a subject."""
    kind = type(layer).__name__
    for method in ("forward", "backward"):
        if not callable(getattr(layer, method, None)):
            raise CheckError(
                f"layer must have the methods forward and backward, but {kind} has no {method}"
            )
    names = positional_names(layer.forward, len(inputs))
    floats = [is_float_array(value) for value in inputs]

    def run() -> Any:
        return called(f"{kind}.forward", layer.forward, *inputs)

    def run_backward(ups: Sequence[Array]) -> Any:
        return called(f"{kind}.backward", layer.backward, *ups)

    found, extra = _parameters_after_a_run(layer, inputs, session, run, run_backward)
    with session.fresh():
        outputs = outputs_of(f"{kind}.forward", run())
    is_loss = len(outputs) == 1 and outputs[0].ndim == 0 and upstream is None
    default_upstream = is_loss and _takes_nothing(layer.backward)

    values = [value for value, flag in zip(inputs, floats, strict=True) if flag]
    input_names = [name for name, flag in zip(names, floats, strict=True) if flag]

    def forward() -> list[Array]:
        return outputs_of(f"{kind}.forward", run())

    def substitute(replacements: Sequence[Any]) -> list[Any]:
        memo = {id(v): r for v, r in zip(subject.values, replacements, strict=True)}
        other = copy.deepcopy(layer, memo)
        arguments = [memo.get(id(value), value) for value in inputs]
        return leaves(other.forward(*(copy.deepcopy(a, dict(memo)) for a in arguments)))

    def backward(ups: list[Array]) -> list[Any]:
        reset = reset_of(layer)
        if reset is not None:
            reset()
        run()
        result = run_backward([] if default_upstream and _is_one(ups) else ups)
        by_name = by_position(result, names, floats)
        rest = list(result[len(values) :]) if isinstance(result, tuple | list) else []
        grads = [by_name.get(name, MISSING) for name in input_names]
        return grads + [
            rest[i] if parameter.gradient() is MISSING and i < len(rest) else parameter.gradient()
            for i, parameter in enumerate(found)
        ]

    def disturb(ups: list[Array]) -> None:
        others = [
            value + (0.1 * (1 + np.abs(value))).astype(value.dtype) if flag else value
            for value, flag in zip(inputs, floats, strict=True)
        ]
        called(f"{kind}.forward", layer.forward, *others)
        run_backward([] if default_upstream and _is_one(ups) else ups)

    def idealised() -> Iterator[tuple[float, Subject]]:
        for constant, function in without_small_constants(type(layer).forward):

            def ideal(values: Sequence[Any], function: Any = function) -> list[Any]:
                memo = {id(v): r for v, r in zip(subject.values, values, strict=True)}
                other = copy.deepcopy(layer, memo)
                return leaves(function(other, *(memo.get(id(value), value) for value in inputs)))

            def plain(function: Any = function) -> list[Array]:
                return outputs_of(f"{kind}.forward", function(layer, *inputs))

            yield constant, replace(subject, forward=plain, substitute=ideal)

    subject = Subject(
        names=input_names + [p.name for p in found],
        values=values + [p.value for p in found],
        session=session,
        forward=forward,
        substitute=substitute,
        backward=backward,
        forward_code=[layer.forward],
        backward_code=[layer.backward],
        is_loss=is_loss,
        owner=layer,
        disturb=disturb if values else None,
        idealised=idealised
        if isinstance(type(layer).__dict__.get("forward"), FunctionType)
        else None,
        notes=extra,
    )
    if default_upstream:
        subject.upstream = [np.ones((), dtype=outputs[0].dtype)]
    return subject


def without_small_constants(function: Any, depth: int = 2) -> Iterator[tuple[float, Any]]:
    """Yield each small constant of a function or its helpers, and the function with zero for it."""
    code, names = function.__code__, function.__globals__

    def rebuilt(code: Any, names: dict[str, Any]) -> Any:
        defaults, closure = function.__defaults__, function.__closure__
        return FunctionType(code, names, function.__name__, defaults, closure)

    for constant in code.co_consts:
        if isinstance(constant, float) and 0 < abs(constant) <= 1e-2:
            others = tuple(0.0 if c is constant else c for c in code.co_consts)
            yield constant, rebuilt(code.replace(co_consts=others), names)
    for name in code.co_names:
        helper = names.get(name)
        if depth and isinstance(helper, FunctionType) and helper is not function:
            for constant, other in without_small_constants(helper, depth - 1):
                yield constant, rebuilt(code, {**names, name: other})


def _is_one(upstream: Sequence[Array]) -> bool:
    return len(upstream) == 1 and upstream[0].ndim == 0 and upstream[0] == 1


def _takes_nothing(method: Callable[..., Any]) -> bool:
    try:
        inspect.signature(method).bind()
    except (TypeError, ValueError):
        return False
    return True


def _parameters_after_a_run(
    layer: Any,
    inputs: Sequence[Any],
    session: Session,
    run: Callable[[], Any],
    run_backward: Callable[[Sequence[Array]], Any],
) -> tuple[list[Parameter], list[str]]:
    """Return the parameters with a gradient, once a forward and a backward pass have shown them.

    Where they are only made in the first forward pass, the state after it is what we begin from.
    """
    before = find_parameters(layer)
    known_names = {p.name for p in before}

    def backward() -> Any:
        outputs = [np.asarray(out) for out in leaves(run())]
        scalar = len(outputs) == 1 and outputs[0].ndim == 0
        ups = [np.ones(out.shape, dtype=out.dtype) for out in outputs]
        return run_backward([] if scalar and _takes_nothing(layer.backward) else ups)

    with session.fresh():
        backward()
        new = [p for p in find_parameters(layer) if p.name not in known_names]
        made = [p.name for p in new if p.gradient() is not MISSING]
        made = [name for name in made if not _is_cache(layer, name, inputs, run)]
    if made:
        with session.fresh():
            run()
            session.rebase()
    with session.fresh():
        result = backward()
        now = find_parameters(layer)
        kept = {id(p.value) for p in now}
        known = [p for p in now if p.name in made] if made else []
        known = [p for p in before if id(p.value) in kept] + known
        spare = len(result) - sum(map(is_float_array, inputs)) if isinstance(result, tuple) else 0
        found = [p for p in known if p.gradient() is not MISSING]
        if not found and spare > 0:
            found = known[:spare]
        inputs_at = {id(value) for value in inputs}
        return [p for p in found if id(p.value) not in inputs_at], []


def _is_cache(layer: Any, name: str, inputs: Sequence[Any], run: Callable[[], Any]) -> bool:
    """Tell whether a forward pass makes an attribute anew, as it does with what it caches."""
    if not name.isidentifier() or not hasattr(layer, name):
        return False
    first = getattr(layer, name)
    if any(first is value for value in inputs):
        return True
    run()
    return getattr(layer, name) is not first
