"""Run somebody's layer, function pair or gradient function, in whichever convention it is written.

Each becomes a `Subject`: arrays by name, a forward pass, and a handwritten gradient for each array.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ..pytree import leaves
from ..validation import Array
from .state import Session


class CheckError(ValueError):
    """A layer, a pair or a gradient function cannot be checked as it is; the message says why."""


@dataclass
class Subject:
    """A forward pass and a handwritten backward pass, ready to be compared.

    Attributes
    ----------
    names : list of str
        A name for each array whose gradient is compared.
    values : list of arrays
        The caller's own arrays.
    session : Session
        Runs the caller's code from the same state each time.
    forward : callable
        ``forward()`` runs the caller's own objects and returns a list of output arrays.
    substitute : callable
        ``substitute(replacements)`` runs a copy in which other values (boxes, complex arrays)
        stand in place of `values`, and returns the outputs.
    backward : callable
        ``backward(upstream)`` runs forward and backward, and returns the gradient for each value:
        an array, or None. It does not restore the state before.
    sources : list of callables
        The functions whose lines the report may name: forward ones, then backward ones.
    """

    names: list[str]
    values: list[Array]
    session: Session
    forward: Callable[[], list[Array]]
    substitute: Callable[[Sequence[Any]], list[Any]]
    backward: Callable[[list[Array]], list[Any]]
    forward_code: list[Any] = field(default_factory=list)
    backward_code: list[Any] = field(default_factory=list)
    upstream: list[Array] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    is_loss: bool = False
    owner: Any = None
    disturb: Callable[[list[Array]], Any] | None = None
    idealised: Callable[[], Iterator[tuple[float, Subject]]] | None = None


def is_float_array(value: Any) -> bool:
    """Tell whether a value is an array that can have a gradient."""
    return isinstance(value, np.ndarray) and value.dtype.kind == "f" and value.size > 0


def called(what: str, function: Callable[..., Any], *args: Any) -> Any:
    """Call the user's code; what it raises is shown with what was called."""
    try:
        return function(*args)
    except CheckError:
        raise
    except Exception as error:
        shapes = ", ".join(_described(arg) for arg in args)
        raise CheckError(
            f"{what} raised {type(error).__name__}: {error}; it was called with ({shapes}). "
            "Its own traceback stands above"
        ) from error


def _described(value: Any) -> str:
    if isinstance(value, np.ndarray):
        return f"array {value.shape} {value.dtype}"
    return type(value).__name__


def outputs_of(what: str, value: Any) -> list[Array]:
    """Return the output arrays of a forward pass, which must be finite."""
    found = [np.asarray(leaf) for leaf in leaves(value)]
    for array in found:
        if array.dtype.kind not in "fiub":
            raise CheckError(f"{what} must return real arrays, got dtype {array.dtype}")
        if not np.isfinite(array).all():
            raise CheckError(
                f"{what} returned {int((~np.isfinite(array)).sum())} values that are NaN or "
                f"infinite, of {array.size}; the gradient is not defined there"
            )
    if not found:
        raise CheckError(f"{what} returned nothing")
    return found


def draw_upstream(outputs: Sequence[Any], rng: np.random.Generator) -> list[Array]:
    """Return a random upstream gradient for each output: never ones, which hide mistakes."""
    return [
        rng.standard_normal(np.shape(out)).astype(np.asarray(out).dtype)
        if np.asarray(out).dtype.kind == "f"
        else np.zeros(np.shape(out))
        for out in outputs
    ]


def given_upstream(upstream: Any, outputs: Sequence[Array]) -> list[Array]:
    """Return the caller's upstream gradient, which must have the shapes of the outputs."""
    given = [np.asarray(leaf, dtype=float) for leaf in leaves(upstream)]
    shapes, wanted = [u.shape for u in given], [np.shape(out) for out in outputs]
    if shapes != wanted:
        raise CheckError(
            f"upstream must have the shape of what forward returns: {wanted}, got {shapes}"
        )
    return [u.astype(np.asarray(out).dtype) for u, out in zip(given, outputs, strict=True)]


def positional_names(function: Any, count: int) -> list[str]:
    """Return the names of a function's first arguments."""
    try:
        parameters = list(inspect.signature(function).parameters.values())
    except (TypeError, ValueError):
        parameters = []
    names = [p.name for p in parameters if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
    return [names[i] if i < len(names) else f"input[{i}]" for i in range(count)]


# -------------------- the gradients that a backward pass returns --------------------


def gradient_key(gradients: dict[Any, Any], name: str) -> Any:
    """Return the key under which a dict of gradients holds that of `name`; None without one."""
    for key in (name, f"d{name}", f"d_{name}", f"grad_{name}", f"{name}_grad", f"g{name}"):
        if key in gradients:
            return key
    return None


def by_position(result: Any, names: Sequence[str], is_float: Sequence[bool]) -> dict[str, Any]:
    """Return the gradients for the arguments `names` from what a backward pass returned.

    An entry for each argument, or one for each that is differentiable, or for the first of them;
    or a dict by name.
    """
    if isinstance(result, dict):
        keys = {name: gradient_key(result, name) for name in names}
        return {name: result[key] for name, key in keys.items() if key is not None}
    if not isinstance(result, tuple | list):
        result = (result,)
    floats = [name for name, flag in zip(names, is_float, strict=True) if flag]
    if len(result) == len(names) > len(floats):
        pairs = dict(zip(names, result, strict=True))
        return {name: pairs[name] for name in floats}
    return dict(zip(floats, result, strict=False))


class _Missing:
    """Marks an array without a gradient of its own: a running average, no parameter."""


MISSING = _Missing()
