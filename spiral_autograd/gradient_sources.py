"""Where a batch's loss and gradient come from, as flat vectors: a derived program, or autograd."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import autograd
import numpy as np

from .derive import Program, cached_program, warn_of_change
from .pytree import FlatLayout, Pytree, same_structure, tree_map
from .validation import Array

Loss = Callable[..., Any]
ValueAndGrad = Callable[..., tuple[Any, Pytree]]
Vectors = Callable[[Pytree, list[Array]], tuple[float, Pytree]]


class Buffers(NamedTuple):
    """The vectors that a program reads the parameters from, and writes their gradient into."""

    params: Pytree
    grads: Pytree
    load: Callable[[Array], None]  # gather the examples of some batches, by their numbers
    steps: list[Callable[[], None]]  # of each of these batches: write its gradient
    losses: Callable[[int], Array]  # of the first so many, behind their steps


class Source(NamedTuple):
    """What makes a batch's loss and its gradient, and the data as it takes it."""

    value_and_grad: Vectors
    data: list[Array]
    buffers: Buffers | None = None  # none where the parameters must be handed over each time
    holds: Callable[[], bool] = lambda: True  # is what `buffers` computes still the loss?


def automatic_source(
    layout: FlatLayout, loss: Loss, data: list[Array], batch_size: int, count: int
) -> Source:
    """Return the derived program of a loss as a source; where there is none, autograd.

    The program has room for `count` batches.
    """
    for first in range(0, len(data[0]), batch_size):
        value = loss(layout.template, *(array[first : first + batch_size] for array in data))
        _require_scalar(value)
        if not np.isfinite(value):
            raise ValueError(f"the loss is {value} for the parameters given, before any update")
    plain = source_of_pytrees(layout, autograd.value_and_grad(loss), data)
    found = cached_program(loss, layout.template, tuple(array[:batch_size] for array in data))
    if found is None or found.program is None:
        return plain
    derived = source_of_program(layout, found.program, data, batch_size, count)
    outside, has_changed = found.outside, False
    if not outside.watches:
        return derived

    def watched(vectors: Pytree, batch: list[Array]) -> tuple[float, Pytree]:
        nonlocal has_changed
        if not (has_changed or outside.holds()):
            has_changed = True
            warn_of_change(loss)
        if has_changed:  # what the loss reaches is no longer as it was when it was derived
            return plain.value_and_grad(vectors, batch[: len(data)])
        return derived.value_and_grad(vectors, batch[len(data) :])

    return Source(watched, [*data, *derived.data], derived.buffers, outside.holds)


def source_of_pytrees(
    layout: FlatLayout, value_and_grad: ValueAndGrad, data: list[Array]
) -> Source:
    """Return the source that a function of pytrees is, once its first result was looked at."""
    structure_is_known = False

    def source(vectors: Pytree, batch: list[Array]) -> tuple[float, Pytree]:
        nonlocal structure_is_known
        params = layout.tree(vectors)
        loss, grads = value_and_grad(params, *batch)
        if not structure_is_known:
            _require_scalar(loss)
            same_structure("params", params, "the gradient", grads)
            structure_is_known = True
        return float(loss), layout.pack_grads(grads)

    return Source(source, data)


def source_of_program(
    layout: FlatLayout, program: Program, data: list[Array], batch_size: int, count: int
) -> Source:
    """Return the source that a derived program is, with the data in the dtypes it computes in."""
    if any(turned or first != i for i, (first, turned) in enumerate(layout.sharing.places)):
        return source_of_pytrees(layout, program, data)
    make, dtypes = program.buffered
    params, grads = (layout.pack_tree(layout.template) for _ in range(2))
    cast = [a.astype(dtype, copy=False) for a, dtype in zip(data, dtypes, strict=True)]
    batches = [np.empty((count, batch_size, *a.shape[1:]), a.dtype) for a in cast]
    examples = [(a, b.reshape(-1, *a.shape[1:])) for a, b in zip(cast, batches, strict=True)]
    steps, losses = make(layout.views(params), layout.views(grads), batches, count)

    def load(chosen: Array) -> None:
        for array, places in examples:  # with mode="raise" NumPy would copy it once more
            np.take(array, chosen, 0, places[: len(chosen)], mode="clip")

    def source(vectors: Pytree, batch: list[Array]) -> tuple[float, Pytree]:
        tree_map(np.copyto, params, vectors)
        for array, places in zip(batch, batches, strict=True):
            np.copyto(places[0], array)
        steps[0]()
        # The optimizer may keep what it is given, so it is given a copy of the buffers.
        return float(losses(1)[0]), tree_map(np.array, grads)

    return Source(source, cast, Buffers(params, grads, load, steps, losses))


def _require_scalar(loss: Any) -> None:
    if np.ndim(loss) != 0:
        raise TypeError(
            f"loss must return a scalar, got the shape {np.shape(loss)}; np.mean makes one"
        )
    if np.asarray(loss).dtype.kind not in "fiu":
        raise TypeError(f"loss must return a real number, got {loss!r}")
