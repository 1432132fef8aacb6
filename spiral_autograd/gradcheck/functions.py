"""Functions: pairs of a forward and a backward one, gradient functions, and marks in them."""

from __future__ import annotations

import copy
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np

from ..pytree import Pytree, leaves, named_leaves, tree_map, with_leaves
from ..validation import Array
from .handwritten import (
    MISSING,
    CheckError,
    Subject,
    by_position,
    called,
    gradient_key,
    is_float_array,
    outputs_of,
    positional_names,
)
from .state import Session

# -------------------- function pairs --------------------


def pair_subject(
    forward: Callable[..., Any],
    backward: Callable[..., Any],
    inputs: Sequence[Any],
    session: Session,
) -> Subject:
    """Return ``out, cache = forward(*inputs)`` and ``backward(dout, cache)`` as a subject."""
    for name, function in (("forward", forward), ("backward", backward)):
        if not callable(function):
            raise CheckError(f"{name} must be a function, got {type(function).__name__}")
    label = getattr(forward, "__name__", "forward")
    names = positional_names(forward, len(inputs))
    floats = [is_float_array(value) for value in inputs]

    def run() -> tuple[list[Any], Any]:
        result = called(label, forward, *inputs)
        if not isinstance(result, tuple) or len(result) < 2:
            raise CheckError(
                f"{label} must return (out, cache), got {type(result).__name__}; for a scalar loss "
                "with a gradient function use check_gradient"
            )
        return list(result[:-1]), result[-1]

    with session.fresh():
        structure, _ = run()

    nested = _leaf_arguments(inputs, floats, names)
    with session.fresh():
        outputs, cache = run()
        ups = with_leaves(outputs, [np.ones(np.shape(leaf)) for leaf in leaves(outputs)])
        result = called(getattr(backward, "__name__", "backward"), backward, *ups, cache)
    if isinstance(result, dict):
        nested = [(n, v) for n, v in nested if gradient_key(result, n) is not None]
    else:
        nested = [(n, v) for n, v, f in zip(names, inputs, floats, strict=True) if f]

    def run_backward(ups: list[Array]) -> list[Any]:
        _, cache = run()
        tree = with_leaves(structure, list(ups))
        result = called(getattr(backward, "__name__", "backward"), backward, *tree, cache)
        if isinstance(result, dict):
            by_name = by_position(result, [name for name, _ in nested], [True] * len(nested))
        else:
            by_name = by_position(result, names, floats)
        return [by_name.get(name, MISSING) for name, _ in nested]

    def substitute(replacements: Sequence[Any]) -> list[Any]:
        memo = {id(v): r for (_, v), r in zip(nested, replacements, strict=True)}
        result = forward(*(copy.deepcopy(value, dict(memo)) for value in inputs))
        return leaves(list(result[:-1]))

    return Subject(
        names=[name for name, _ in nested],
        values=[value for _, value in nested],
        session=session,
        forward=lambda: outputs_of(label, run()[0]),
        substitute=substitute,
        backward=run_backward,
        forward_code=[forward],
        backward_code=[backward],
    )


def _leaf_arguments(
    inputs: Sequence[Any], floats: Sequence[bool], names: Sequence[str]
) -> list[tuple[str, Array]]:
    """Return the float arrays among the arguments, those in dicts and lists by their own names."""
    found = []
    for value, flag, name in zip(inputs, floats, names, strict=True):
        if flag:
            found.append((name, value))
        elif isinstance(value, dict | list | tuple):
            found += [
                (leaf_name(path), v) for path, v in named_leaves("", value) if is_float_array(v)
            ]
    return found


def leaf_name(path: str) -> str:
    """Return the short name of a leaf: its key, or its path where there is more than one step."""
    steps = path.replace("][", "|").strip("[]").split("|")
    text = "".join(
        (f".{step[1:-1]}" if step[:1] in "'\"" else f"[{step}]") for step in steps if step
    )
    return text.lstrip(".")


# -------------------- gradient functions, and marks --------------------

_taps = threading.local()


def tap(name: str, value: Any) -> Any:
    """Mark an intermediate value of a forward pass, whose gradient is to be checked.

    In a check the mark becomes a row of the report; elsewhere this returns `value` as it is.

    Parameters
    ----------
    name : str
        The name under which the dict of gradients has the handwritten one, with or without a d.
    value : array

    Returns
    -------
    array
        The value.

    Examples
    --------
    >>> tap("h", np.array([1.0, 2.0]))
    array([1., 2.])
    """
    collect = getattr(_taps, "collect", None)
    if collect is not None:
        collect.setdefault(name, np.zeros(np.shape(value), dtype=np.asarray(value).dtype))
    added = getattr(_taps, "added", None)
    return value + added[name] if added and name in added else value


@contextmanager
def _tapping(**state: Any) -> Iterator[None]:
    before = dict(_taps.__dict__)
    _taps.__dict__.update(state)
    try:
        yield
    finally:
        _taps.__dict__.clear()
        _taps.__dict__.update(before)


def gradient_subject(
    loss: Callable[..., Any], gradient: Any, params: Pytree, data: Sequence[Any], session: Session
) -> Subject:
    """Return a scalar loss of a pytree and its handwritten gradient as a subject."""
    if not callable(loss):
        raise CheckError(f"loss must be a function, got {type(loss).__name__}")
    label = getattr(loss, "__name__", "loss")
    held = [(path, leaf) for path, leaf in named_leaves("", params) if is_float_array(leaf)]
    if not held:
        raise CheckError("params must hold floating-point arrays; integer arrays have no gradient")
    marks: dict[str, Array] = {}
    with session.fresh(), _tapping(collect=marks):
        outputs = outputs_of(label, called(label, loss, params, *data))
    if len(outputs) != 1 or outputs[0].size != 1:
        raise CheckError(f"{label} must return a scalar, got the shape {outputs[0].shape}")

    def handwritten() -> Any:
        if not callable(gradient):
            return gradient
        result = called(getattr(gradient, "__name__", "gradient"), gradient, params, *data)
        has_value = isinstance(result, tuple) and len(result) == 2 and np.ndim(result[0]) == 0
        return result[1] if has_value and not is_float_array(params) else _last(result, has_value)

    session.add(marks)
    with session.fresh():
        grads = handwritten()
    pairs = _paired(held, marks, grads, params)

    def forward() -> list[Array]:
        with _tapping(added=marks):
            return outputs_of(label, called(label, loss, params, *data))

    def substitute(replacements: Sequence[Any]) -> list[Any]:
        memo = {id(v): r for (_, v, _), r in zip(pairs, replacements, strict=True)}
        others = tree_map(lambda leaf: memo.get(id(leaf), leaf), params)
        added = {name: memo.get(id(zero), zero) for name, zero in marks.items()}
        with _tapping(added=added):
            return [loss(others, *data)]

    def backward(ups: list[Array]) -> list[Any]:
        found = handwritten()
        return [read(found) for _, _, read in pairs]

    return Subject(
        names=[name for name, _, _ in pairs],
        values=[value for _, value, _ in pairs],
        session=session,
        forward=forward,
        substitute=substitute,
        backward=backward,
        forward_code=[loss],
        backward_code=[gradient] if callable(gradient) else [],
        upstream=[np.ones(outputs[0].shape, dtype=outputs[0].dtype)],
        is_loss=True,
    )


def _last(result: Any, has_value: bool) -> Any:
    return result[1] if has_value else result


def _paired(
    held: list[tuple[str, Array]], marks: dict[str, Array], grads: Any, params: Pytree
) -> list[tuple[str, Array, Callable[[Any], Any]]]:
    """Return each value with its name and how to read its gradient from what was returned."""
    if isinstance(grads, dict) and not (isinstance(params, dict) and _nested(params)):
        named = [(leaf_name(path) or "params", value) for path, value in held]
        named += list(marks.items())
        return [(name, value, _by_key(name)) for name, value in named]

    def reader(path: str) -> Callable[[Any], Any]:
        def read(found: Any) -> Any:
            return dict(named_leaves("", found)).get(path)

        return read

    return [(leaf_name(path) or "params", value, reader(path)) for path, value in held]


def _by_key(name: str) -> Callable[[Any], Any]:
    return lambda found: found.get(gradient_key(found, name))


def _nested(params: dict[Any, Any]) -> bool:
    return any(isinstance(value, dict | list | tuple) for value in params.values())
