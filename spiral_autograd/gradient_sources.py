"""Where a batch's loss and gradient come from, as flat vectors: a derived program, or autograd."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from typing import Any, NamedTuple

import autograd
import numpy as np

from .derive import Program, cached_program, warn_of_change
from .pytree import FlatLayout, Pytree, same_structure
from .validation import Array

# The loss is looked at in calls on so many bytes of data, at least so many examples, if a batch has
# as many: what it makes of them stays in the processor's cache.
LITTLE, FEW = 2**14, 100

Loss = Callable[..., Any]
ValueAndGrad = Callable[..., tuple[Any, Pytree]]


class Buffers(NamedTuple):
    """The vectors that the parameters are read from, and their gradient is written into."""

    layout: FlatLayout
    params: Pytree
    grads: Pytree


class Source(NamedTuple):
    """What writes the gradients of some batches, one behind the other, into the buffers."""

    load: Callable[[Array, Pytree], None]  # take some examples, by their numbers, and parameters
    steps: list[Callable[[], None]]  # of each of these batches: write its gradient
    losses: Callable[[int], Array]  # of the first so many, behind their steps
    holds: Callable[[], bool] = lambda: True  # is this still the loss?


def automatic_sources(
    buffers: Buffers, loss: Loss, data: list[Array], batch_size: int, count: int
) -> list[Source]:
    """Return the derived program of a loss as a source, and autograd for where it does not hold.

    The program has room for `count` batches.
    """
    params, is_right = buffers.layout.template, False
    little = LITTLE * len(data[0]) // sum(array.nbytes for array in data)
    with suppress(Exception):  # of the user's loss, which may hold for one size of batches only
        is_right = _is_right(loss, params, data, max(little, min(batch_size, FEW)))
    if not is_right:
        _is_right(loss, params, data, batch_size)
    plain = source_of_pytrees(buffers, autograd.value_and_grad(loss), data)
    found = cached_program(loss, params, tuple(array[:batch_size] for array in data))
    if found is None or found.program is None:
        return [plain]
    derived = source_of_program(buffers, found.program, data, batch_size, count)
    outside = found.outside

    def holds() -> bool:
        if outside.holds():
            return True
        warn_of_change(loss)
        return False

    return [derived._replace(holds=holds) if outside.watches else derived, plain]


def _is_right(loss: Loss, params: Pytree, data: list[Array], size: int) -> bool:
    """Raise unless the loss is a finite scalar for all the data, so many examples at a time."""
    for first in range(0, len(data[0]), size):
        value = loss(params, *(array[first : first + size] for array in data))
        _require_scalar(value)
        if not np.isfinite(value):
            raise ValueError(f"the loss is {value} for the parameters given, before any update")
    return True


def source_of_pytrees(buffers: Buffers, value_and_grad: ValueAndGrad, data: list[Array]) -> Source:
    """Return the source that a function of pytrees is, once its first result was looked at."""
    layout, value = buffers.layout, np.empty(1)
    given: list[Pytree] = []
    structure_is_known = False

    def load(chosen: Array, vectors: Pytree) -> None:
        # The function may keep what it is given, so it is not given the buffers.
        given[:] = layout.tree(vectors), *(array[chosen] for array in data)

    def step() -> None:
        nonlocal structure_is_known
        loss, new = value_and_grad(*given)
        if not structure_is_known:
            _require_scalar(loss)
            same_structure("params", layout.template, "the gradient", new)
            structure_is_known = True
        value[0] = float(loss)
        layout.write_grads(buffers.grads, new)

    return Source(load, [step], lambda n: value)


def source_of_program(
    buffers: Buffers, program: Program, data: list[Array], batch_size: int, count: int
) -> Source:
    """Return the source that a derived program is, with the data in the dtypes it computes in."""
    layout, params, grads = buffers
    if any(turned or first != i for i, (first, turned) in enumerate(layout.sharing.places)):
        return source_of_pytrees(buffers, program, data)
    make, dtypes = program.buffered
    cast = [a.astype(dtype, copy=False) for a, dtype in zip(data, dtypes, strict=True)]
    batches = [np.empty((count, batch_size, *a.shape[1:]), a.dtype) for a in cast]
    examples = [(a, b.reshape(-1, *a.shape[1:])) for a, b in zip(cast, batches, strict=True)]
    steps, losses = make(layout.views(params), layout.views(grads), batches, count)

    def load(chosen: Array, vectors: Pytree) -> None:
        for array, places in examples:  # with mode="raise" NumPy would copy it once more
            np.take(array, chosen, 0, places[: len(chosen)], mode="clip")

    return Source(load, steps, losses)


def _require_scalar(loss: Any) -> None:
    if np.ndim(loss) != 0:
        raise TypeError(
            f"loss must return a scalar, got the shape {np.shape(loss)}; np.mean makes one"
        )
    if np.asarray(loss).dtype.kind not in "fiu":
        raise TypeError(f"loss must return a real number, got {loss!r}")
