"""Somebody's forward and backward pass as a `Subject`: arrays by name, and how to run the two."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np

from ...pytree import leaves
from ...validation import Array
from ..blocks import checksum, close
from ..finding import Finding
from ..guard import CheckError as CheckError
from ..guard import theirs
from ..source import Place
from .session import Session


@dataclass
class Gradients:
    """Handwritten gradients as a call left them, in the user's own arrays where these are new."""

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
    """A forward pass and a handwritten backward pass, ready to be compared."""

    names: list[str]  # of the arrays whose gradients are compared
    values: list[Array]  # the caller's own
    session: Session  # runs the caller's code from the same state each time
    # Runs the caller's own objects.
    forward: Callable[[], list[Array]]
    # `substitute(replacements)` runs a copy in which others (boxes, complex arrays) stand in place
    # of `values`; with ``values=``, of other arrays.
    substitute: Callable[..., list[Any]]
    backward: Backward
    upstream: list[Array]  # the gradient of the loss with respect to each output
    outputs: list[Array]
    first: Gradients  # the handwritten gradients of a first call
    inputs: Sequence[Any]  # what the forward pass is given; of a loss, the arrays of its parameters
    given: Given  # `with given(others):` lets the forward pass be given others for a while
    takes_other_sizes: bool = False  # whether these others may have other shapes
    n_inputs: int = 0  # how many of the values, the first ones, are inputs and no parameters
    has_cache: bool = True  # whether forward leaves something for backward, which runs after it
    # The functions whose lines the report may name.
    forward_code: Sequence[Callable[..., Any]] = ()
    backward_code: Sequence[Callable[..., Any]] = ()  # none of a finished gradient
    takes_upstream: bool = True  # whether backward takes a gradient: that of a loss need not
    upstream_at: int | None = None  # where backward takes it, if that is known; -1: nowhere
    remarks: Sequence[Finding] = ()  # what the report should say besides its rows
    failures: Sequence[Finding] = ()  # what is wrong whatever the numbers are
    unchecked: Sequence[str] = ()  # inputs and parameters that have no row
    # From name to what is said of a gradient that is computed and not kept, and where.
    unkept: Mapping[str, tuple[Finding, Place]] = field(default_factory=dict)
    is_loss: bool = False  # whether the output is a scalar, and the upstream gradient one
    # The numbers of the values that stand for marks: zeros that are added in the forward pass, of
    # which the handwritten pass knows nothing.
    marks: frozenset[int] = frozenset()
    owner: Any = None  # the layer, which may keep something from one call to the next


class _Missing:
    """Marks an array without a gradient of its own: a running average, no parameter."""

    def __repr__(self) -> str:
        return "MISSING"


MISSING = _Missing()


def is_float_array(value: object) -> bool:
    """Tell whether a value is an array that can have a gradient."""
    return isinstance(value, np.ndarray) and value.dtype.kind == "f" and value.size > 0


def is_array(value: object) -> bool:
    """Tell whether a value is an array of NumPy's."""
    return isinstance(value, np.ndarray)


def is_scalar(value: Any) -> bool:
    """Tell whether a value is a number, or an array without axes."""
    return not isinstance(value, dict | list | tuple) and np.ndim(value) == 0


def copied(grad: object) -> Any:
    """Return a gradient that the user's code cannot write into any more."""
    return grad if grad is None or grad is MISSING else np.array(grad)


def checksums(grads: Sequence[object]) -> list[int]:
    """Return a number for each gradient that another content changes."""
    numbers = (isinstance(g, np.ndarray | np.generic | float) and np.asarray(g) for g in grads)
    return [checksum(a) if isinstance(a, np.ndarray) and a.dtype != object else 0 for a in numbers]


# -------------------- calls --------------------


def called(what: str, function: Callable[..., Any], *args: Any) -> Any:
    """Call the user's code; what it raises is shown with what was called."""

    def given() -> str:
        shapes = ", ".join(described(arg) for arg in args)
        return f"; it was called with ({shapes})"

    with theirs(what, given):
        return function(*args)


def described(value: object) -> str:
    """Return what a value is, in a few words."""
    if isinstance(value, np.ndarray):
        return f"array {value.shape} {value.dtype}"
    if isinstance(value, list | tuple | dict):
        return f"{type(value).__name__} of {len(value)}"
    if isinstance(value, bool | int | float | str | type(None)):
        return f"{type(value).__name__} {value!r}" if value is not None else "None"
    return type(value).__name__


# -------------------- outputs, and the gradients of the loss with respect to them ---------------


def outputs_of(what: str, value: object) -> list[Array]:
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


def differs(outputs: Sequence[object], others: Sequence[object], tolerance: float = 1e-14) -> bool:
    """Tell whether two forward passes gave different outputs."""
    same = len(outputs) == len(others)
    pairs = zip(outputs, others, strict=False)
    return not same or not all(close(a, b, tolerance) for a, b in pairs)


def draw_upstream(outputs: Sequence[Any], rng: np.random.Generator) -> list[Array]:
    """Return a random upstream gradient for each output: never ones, which hide mistakes."""
    return [
        rng.standard_normal(np.shape(out)).astype(np.asarray(out).dtype)
        if np.asarray(out).dtype.kind == "f"
        else np.zeros(np.shape(out))
        for out in outputs
    ]


def given_upstream(upstream: object, outputs: Sequence[Array]) -> list[Array]:
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


def _whole(upstream: Any, outputs: Sequence[Array]) -> list[object]:
    """Return the arrays of an upstream gradient; that of one output may be a nest of numbers."""
    in_tuple = isinstance(upstream, tuple) and len(upstream) == 1
    return [upstream] if len(outputs) == 1 and not in_tuple else leaves(upstream)
