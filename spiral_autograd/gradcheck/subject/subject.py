"""Somebody's forward and backward pass as a `Subject`: arrays by name, and how to run the two.

`objects` and `functions` make subjects of layers, pairs and gradient functions.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np

from ...pytree import leaves
from ...validation import Array
from ..blocks import checksum
from ..finding import Finding, Said
from ..guard import CheckError as CheckError
from ..guard import theirs
from ..source import Place
from .conventions import gradient_key, read
from .session import Session


@dataclass
class Gradients:
    """Handwritten gradients as a call left them, in the user's own arrays where these are new.

    Attributes
    ----------
    arrays : list
        Arrays, None or MISSING.
    checksums : list of int
    """

    arrays: list[Any]
    checksums: list[int]

    @classmethod
    def of(cls, arrays: Sequence[Any], session: Session) -> Gradients:
        """Return gradients, with copies only of those that restoring would write into."""
        own = [copied(g) if is_array(g) and session.covers(g) else g for g in arrays]
        return cls(own, checksums(own))

    def are_whole(self) -> bool:
        """Tell whether no later call has written into them."""
        return checksums(self.arrays) == self.checksums


class Backward(Protocol):
    """Runs both passes, and returns the gradient for each value: an array, None, or MISSING.

    It does not restore the state before. Between the passes `between` is called with what the
    forward pass has left for the backward one: the layer, or the cache.
    """

    def __call__(self, ups: list[Array], between: Callable[[Any], None] | None = None) -> list[Any]:
        """Run forward, and backward on upstream gradients."""


Given = Callable[[Sequence[Any]], AbstractContextManager[None]]


@dataclass(frozen=True)
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
    upstream : list of arrays
        The gradient of the loss with respect to each output.
    outputs : list of arrays
        What the forward pass returns.
    first : Gradients
        The handwritten gradients of a first call.
    backward : Backward
        ``backward(upstream)`` runs forward and backward.
    inputs : list
        What the forward pass is given; of a loss, the arrays of its parameters.
    given : callable
        ``with given(others):`` lets the forward pass be given others for a while.
    n_inputs : int
        How many of the values, the first ones, are inputs and no parameters.
    has_cache : bool
        Whether the forward pass leaves something for the backward pass, which runs after it.
    forward_code, backward_code : lists of callables
        The functions whose lines the report may name.
    takes_upstream : bool
        Whether the backward pass takes an upstream gradient: that of a scalar loss need not.
    remarks : list of Finding or str
        What the report should say besides its rows.
    failures : list of Finding or str
        What is wrong whatever the numbers are.
    unchecked : list of str
        Inputs and parameters that have no row.
    unkept : dict
        From name to what is to be said of a gradient that is computed and not kept, and where.
    is_loss : bool
        Whether the output is a scalar, and the upstream gradient one.
    marks : set of int
        The numbers of the values that stand for marks: zeros that are added in the forward pass,
        of which the handwritten pass knows nothing.
    owner : object or None
        The layer, which may keep something from one call to the next.
    with_forward : callable or None
        ``with_forward(function)`` is the subject with another function in place of its forward.
    """

    names: list[str]
    values: list[Array]
    session: Session
    forward: Callable[[], list[Array]]
    substitute: Callable[[Sequence[Any]], list[Any]]
    backward: Backward
    upstream: list[Array]
    outputs: list[Array]
    first: Gradients
    inputs: Sequence[Any]
    given: Given
    n_inputs: int = 0
    has_cache: bool = True
    forward_code: list[Any] = field(default_factory=list)
    backward_code: list[Any] = field(default_factory=list)
    takes_upstream: bool = True
    remarks: list[Said] = field(default_factory=list)
    failures: list[Said] = field(default_factory=list)
    unchecked: list[str] = field(default_factory=list)
    unkept: dict[str, tuple[Finding, Place]] = field(default_factory=dict)
    is_loss: bool = False
    marks: frozenset[int] = frozenset()
    owner: Any = None
    with_forward: Callable[[Callable[..., Any]], Subject] | None = None


class _Missing:
    """Marks an array without a gradient of its own: a running average, no parameter."""

    def __repr__(self) -> str:
        return "MISSING"


MISSING = _Missing()


def is_float_array(value: Any) -> bool:
    """Tell whether a value is an array that can have a gradient."""
    return isinstance(value, np.ndarray) and value.dtype.kind == "f" and value.size > 0


def is_array(value: Any) -> bool:
    """Tell whether a value is an array of NumPy's."""
    return isinstance(value, np.ndarray)


def copied(grad: Any) -> Any:
    """Return a gradient that the user's code cannot write into any more."""
    return grad if grad is None or grad is MISSING else np.array(grad)


def checksums(grads: Sequence[Any]) -> list[int]:
    """Return a number for each gradient that another content changes."""
    return [checksum(np.asarray(g)) if _has_numbers(g) else 0 for g in grads]


def _has_numbers(grad: Any) -> bool:
    return isinstance(grad, np.ndarray | np.generic | float) and np.asarray(grad).dtype != object


# -------------------- calls --------------------


def called(what: str, function: Callable[..., Any], *args: Any) -> Any:
    """Call the user's code; what it raises is shown with what was called."""

    def given() -> str:
        shapes = ", ".join(described(arg) for arg in args)
        return f"; it was called with ({shapes}). Its own traceback stands above"

    with theirs(what, given):
        return function(*args)


def described(value: Any) -> str:
    """Return what a value is, in a few words.

    Examples
    --------
    >>> described(np.ones((2, 3))), described([1, 2]), described(0.5)
    ('array (2, 3) float64', 'list of 2', 'float 0.5')
    """
    if isinstance(value, np.ndarray):
        return f"array {value.shape} {value.dtype}"
    if isinstance(value, list | tuple | dict):
        return f"{type(value).__name__} of {len(value)}"
    if isinstance(value, bool | int | float | str | type(None)):
        return f"{type(value).__name__} {value!r}" if value is not None else "None"
    return type(value).__name__


def name_of_function(function: Any, otherwise: str) -> str:
    """Return what to call a function."""
    name = read(function, "__name__")
    return name if isinstance(name, str) else otherwise


def require_function(name: str, function: Any) -> None:
    """Raise unless an argument can be called, and is no class."""
    if not callable(function) or isinstance(function, type):
        came = (
            f"the class {function.__name__}" if isinstance(function, type) else described(function)
        )
        raise CheckError(f"{name} must be a function, got {came}")


# -------------------- outputs, and the gradients of the loss with respect to them ---------------


def outputs_of(what: str, value: Any) -> list[Array]:
    """Return the output arrays of a forward pass, which must be real and finite."""
    found = [np.asarray(leaf) for leaf in leaves(value)]
    for leaf, array in zip(leaves(value), found, strict=True):
        if array.dtype.kind not in "fiub":
            came = f"dtype {array.dtype}" if array.dtype.kind != "O" else described(leaf)
            raise CheckError(f"{what} must return real arrays, got {came}")
        if not np.isfinite(array).all():
            raise CheckError(
                f"{what} returned {int((~np.isfinite(array)).sum())} values that are NaN or "
                f"infinite, of {array.size}; the gradient is not defined there"
            )
    if not any(array.size for array in found):
        raise CheckError(f"{what} returned nothing")
    if not any(array.dtype.kind == "f" for array in found):
        raise CheckError(
            f"{what} returned only integers ({', '.join(map(described, found))}), which have no "
            "gradient; give it floating-point arrays"
        )
    return found


def draw_upstream(outputs: Sequence[Any], rng: np.random.Generator) -> list[Array]:
    """Return a random upstream gradient for each output: never ones, which hide mistakes."""
    return [
        rng.standard_normal(np.shape(out)).astype(np.asarray(out).dtype)
        if np.asarray(out).dtype.kind == "f"
        else np.zeros(np.shape(out))
        for out in outputs
    ]


def upstream_of(outputs: Sequence[Array], given: Any, rng: np.random.Generator) -> list[Array]:
    """Return the upstream gradient that is given, else a random one."""
    return draw_upstream(outputs, rng) if given is None else given_upstream(given, outputs)


def given_upstream(upstream: Any, outputs: Sequence[Array]) -> list[Array]:
    """Return the caller's upstream gradient, which must have the shapes of the outputs."""
    try:
        given = [np.asarray(leaf, dtype=float) for leaf in _whole(upstream, outputs)]
    except (TypeError, ValueError) as error:
        raise CheckError(f"upstream must be an array of real numbers: {error}") from None
    shapes, wanted = [u.shape for u in given], [np.shape(out) for out in outputs]
    if shapes != wanted:
        raise CheckError(
            f"upstream must have the shape of what forward returns: {wanted}, got {shapes}"
        )
    if not all(np.isfinite(u).all() for u in given):
        raise CheckError("upstream must be finite, but holds NaN or infinite values")
    if not any(u.any() for u in given):
        raise CheckError(
            "upstream is all zeros, with which every gradient is zero, a wrong one too: leave it "
            "out for a random one"
        )
    return [u.astype(np.asarray(out).dtype) for u, out in zip(given, outputs, strict=True)]


def _whole(upstream: Any, outputs: Sequence[Array]) -> list[Any]:
    """Return the arrays of an upstream gradient; that of one output may be a nest of numbers."""
    in_tuple = isinstance(upstream, tuple) and len(upstream) == 1
    return [upstream] if len(outputs) == 1 and not in_tuple else leaves(upstream)


# -------------------- the gradients that a backward pass returns --------------------


def by_position(
    what: str,
    result: Any,
    names: Sequence[str],
    is_float: Sequence[bool],
    more: Sequence[str] = (),
    *,
    surplus: bool = False,
) -> dict[str, Any]:
    """Return the gradients that a backward pass returned, by the names of what they belong to.

    There may be an entry for each argument, or one for each that is differentiable, or for the
    first of these; those of the parameters `more` may follow, and with `surplus` any others. Or a
    dict has them by name.
    """
    floats = [name for name, flag in zip(names, is_float, strict=True) if flag]
    if result is None and not floats:
        return {}
    if isinstance(result, dict):
        return by_key(result, [*floats, *more])
    if isinstance(result, tuple) and result and len(result) - 1 in (len(floats), len(names)):
        *first, last = result
        if more and isinstance(last, dict):
            return by_position(what, tuple(first), names, is_float) | by_key(last, more)
        if more and isinstance(last, list | tuple):
            result = (*first, *last)
    entries = list(result) if isinstance(result, tuple | list) else [result]
    while len(entries) > len(names) + len(more) and _is_empty(entries[-1]):
        entries.pop()  # the gradients of no parameters
    if isinstance(result, list) and len(floats) == 1 and not _are_arrays(entries):
        entries = [result]  # a gradient that is written as a list of numbers
    for order in ([*floats, *more], [*names, *more], floats, names):
        if len(entries) == len(order):
            pairs = dict(zip(order, entries, strict=True))
            return {name: g for name, g in pairs.items() if name in floats or name in more}
    if len(entries) > len(floats) and not surplus:
        raise CheckError(
            f"{what} returned {len(entries)} gradients, but there are {len(floats)} floating-point "
            f"arrays among the arguments ({', '.join(names)}): return one gradient for each of "
            f"{', '.join(floats) or 'them'}, in this order"
        )
    return dict(zip(floats, entries, strict=False))


def by_key(grads: dict[Any, Any], names: Sequence[str]) -> dict[str, Any]:
    """Return the gradients of a dict by the names of what they belong to."""
    last = {name: name.split(".")[-1] for name in names}
    keys = {name: gradient_key(grads, last[name], last.values()) for name in names}
    return {name: grads[key] for name, key in keys.items() if key is not None}


def require_any(what: str, result: Any, names: Sequence[str], first: Gradients) -> None:
    """Raise where a backward pass has given no gradient at all."""
    if names and all(g is MISSING for g in first.arrays):
        came = described(result)
        if isinstance(result, dict) and result:
            came = f"a dict with the keys {', '.join(map(repr, result))}"
        raise CheckError(
            f"{what} returned {came}, and there is no gradient of {', '.join(names)} in it: return "
            f"one for each, in this order, or a dict of them by the names {', '.join(names)}, with "
            "or without a d before"
        )


def _is_empty(entry: Any) -> bool:
    return entry is None or (isinstance(entry, list | tuple | dict) and not entry)


def _are_arrays(entries: Sequence[Any]) -> bool:
    return all(entry is None or isinstance(entry, np.ndarray) for entry in entries)


def is_of_loss(outputs: Any, result: Any) -> bool:
    """Tell whether one gradient is that of a scalar loss, which has none for its targets."""
    found = leaves(outputs)
    return len(found) == 1 and np.ndim(found[0]) == 0 and not isinstance(result, tuple | dict)


def as_gradient(name: str, value: Any) -> Any:
    """Return a gradient as it came, where it is None or can be an array of real numbers."""
    if value is None or value is MISSING:
        return value
    try:
        array = np.asarray(value)
    except ValueError:
        array = np.empty(0, dtype=object)
    if array.dtype.kind in "fiub":
        return value
    came = "complex numbers" if array.dtype.kind == "c" else _came(value)
    raise CheckError(f"the gradient of {name} must be an array of real numbers, got {came}")


def as_update_takes(gradient: Any, value: Array) -> Any:
    """Return a gradient in the shape of its parameter, where ``W -= lr * dW`` takes it as it is.

    Only where each entry belongs to one entry: nothing is broadcast.

    Examples
    --------
    >>> as_update_takes(np.ones(3), np.ones((1, 3))).shape
    (1, 3)
    >>> as_update_takes(np.ones((1, 3)), np.ones(3)).shape
    (1, 3)
    """
    if isinstance(gradient, list | tuple) and [np.shape(g) for g in gradient] == [value.shape]:
        return gradient[0]  # a list for one layer
    if not isinstance(gradient, np.ndarray | np.generic | float) or np.size(gradient) != value.size:
        return gradient
    short = np.ndim(gradient) < value.ndim and value.shape[: value.ndim - np.ndim(gradient)]
    fits = short and set(short) == {1} and np.shape(gradient) == value.shape[len(short) :]
    return np.reshape(gradient, value.shape) if fits else gradient


def other_shapes(named: Iterable[tuple[str, Any, Array]]) -> list[str]:
    """Return what to say of gradients that an update takes as they are in another shape."""
    names: dict[tuple[Any, Any], list[str]] = {}
    for name, gradient, value in named:
        shape = np.shape(as_update_takes(gradient, value))
        if not isinstance(gradient, list | tuple) and shape != np.shape(gradient):
            names.setdefault((np.shape(gradient), value.shape), []).append(name)
    return [
        f"the gradient of {', '.join(of)} has the shape {ours} in place of {theirs}, which the "
        f"update {of[0]} -= lr * gradient takes as it is; other code may not"
        for (ours, theirs), of in names.items()
    ]


def _came(value: Any) -> str:
    if isinstance(value, np.ndarray):
        return f"an array of dtype {value.dtype}"
    return f"{described(value)}, which is no array (are its rows of different lengths?)"
