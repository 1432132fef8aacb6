"""The same check with inputs of other lengths: what is right by a coincidence of sizes is not."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from itertools import product
from typing import Any

import numpy as np

from ...validation import Array
from ..guard import CheckError, Deadline, OutOfTime
from ..subject.subject import MISSING, Subject, draw_upstream, is_array
from ..verdict.rows import Comparison, run_passes
from .case import Case
from .second_point import are_shares, moved

Growth = Mapping[tuple[int, int], int]  # by how much an input is longer along an axis

_LARGEST = 20_000  # entries of the inputs: with more it takes too long


def at_other_sizes(c: Comparison, deadline: Deadline) -> Comparison | None:
    """Return the comparison for inputs of other lengths; None where there is none to learn from.

    A backward pass that fails there gives no gradient. One that is wrong where it is right here, or
    has a gradient of another shape, is not written for other sizes.
    """
    subject = c.subject
    is_known = subject.backward_code and c.reference.grads
    if not (subject.takes_other_sizes and is_known and c.small):
        return None
    try:
        with np.errstate(all="ignore"):
            there = _longer(subject, deadline)
            reference = c.reference_there(there)
    except (CheckError, OutOfTime):
        return None
    finally:
        subject.session.restore()
    found = Comparison(there, reference, _handwritten(c, there), c.tolerances)
    return found if _depends_on_all(found, c) and _is_meant_for(found, c) else None


def _depends_on_all(there: Comparison, here: Comparison) -> bool:
    """Tell whether the output depends on what is longer: a loop may end before it."""
    for g, before in zip(there.reference.grads, here.reference.grads, strict=True):
        beyond = np.array(g)
        beyond[tuple(map(slice, np.shape(before)))] = 0
        if np.shape(g) != np.shape(before) and not beyond.any():
            return False
    return True


def _is_meant_for(there: Comparison, here: Comparison) -> bool:
    """Tell whether a backward pass may be meant for other sizes: where it fails, it may be."""
    if all(g is None or g is MISSING for g in there.grads):
        return True
    return _misshapen(there) <= _misshapen(here) and set(here.right) <= set(there.right)


def _misshapen(c: Comparison) -> set[int]:
    return {k for k, row in c.rows.items() if np.isinf(row.max_abs)}


def case_at_other_sizes(case: Case, there: Comparison | None) -> Case | None:
    """Return the case at other sizes; None where there is none."""
    if there is None:
        return None
    return replace(
        case,
        values=there.subject.values,
        automatic=[np.asarray(g) for g in there.reference.grads],
        handwritten=[None if g is MISSING else g for g in there.grads],
        wrong=there.wrong,
        graph=there.graph,
        upstream=there.upstream,
        again=None,
        second=lambda: None,
        at_other_sizes=lambda: None,
    )


def _handwritten(c: Comparison, there: Subject) -> list[Any]:
    try:
        return run_passes(there)
    except CheckError:
        return [g if g is MISSING else None for g in c.grads]
    finally:
        there.session.restore()


def _longer(subject: Subject, deadline: Deadline) -> Subject:
    """Return a subject whose inputs are longer along as many axes of the first as may be."""
    arrays = {i: v for i, v in enumerate(subject.inputs) if is_array(v) and v.size}
    growth: Growth = {}
    found: Subject | None = None
    for axis in range(arrays[min(arrays)].ndim if arrays else 0):
        for more in _ways(arrays, axis, growth):
            deadline.check()
            other = _with(subject, arrays, {**growth, **more})
            if other is not None:
                growth, found = {**growth, **more}, other
                break
    if found is None:
        raise CheckError("the forward pass takes no other sizes")
    return found


def _ways(arrays: Mapping[int, Array], axis: int, growth: Growth) -> Iterator[Growth]:
    """Yield which inputs may be longer together, and by how much.

    Those with the same axis, the first alone, or those with an axis of that length anywhere.
    """
    first = min(arrays)
    n = arrays[first].shape[axis]
    same = [(i, axis) for i, v in arrays.items() if v.shape[axis : axis + 1] == (n,)]
    anywhere = [(i, v.shape.index(n)) for i, v in arrays.items() if i != first and n in v.shape]
    ways = [same, [(first, axis)], [(first, axis), *anywhere]]
    lengths = [m + growth.get((first, i), 0) for i, m in enumerate(arrays[first].shape)]
    for more, places in product(_other_lengths(n, lengths), ways[:: -1 if n == 1 else 1]):
        yield dict.fromkeys(places, more)


def _other_lengths(n: int, lengths: Sequence[int]) -> list[int]:
    """Return by how much an axis may be longer: no two are alike then; one is a multiple."""
    free = [more for more in range(1, 8) if n + more not in lengths]
    multiples = [more for more in range(n, 8 * n, n) if n + more not in lengths]
    return [*free[:2], *multiples[:1]]


def _with(subject: Subject, arrays: Mapping[int, Array], growth: Growth) -> Subject | None:
    """Return a subject with such inputs; None where its forward pass does not take them."""
    rng, grown = np.random.default_rng(3), dict(arrays)
    for (i, axis), more in growth.items():
        grown[i] = _grown(grown[i], axis, more, rng)
    if sum(array.size for array in grown.values()) > _LARGEST:
        return None
    others = {id(arrays[i]): grown[i] for i in arrays}
    inputs, values = (
        [others.get(id(value), value) for value in some]
        for some in (subject.inputs, subject.values)
    )
    subject.session.restore()
    subject.session.add(inputs)
    inside = partial(_inside, subject, inputs)
    other = replace(
        subject,
        values=values,
        inputs=inputs,
        forward=inside(subject.forward),
        backward=inside(subject.backward),
        substitute=inside(partial(subject.substitute, values=values)),
        takes_other_sizes=False,
    )
    try:
        with subject.session.fresh():
            outputs = [np.array(out) for out in other.forward()]
        return replace(other, outputs=outputs, upstream=_upstream(subject, outputs, rng))
    except CheckError:
        return None
    finally:
        subject.session.restore()


def _inside(subject: Subject, inputs: Sequence[Any], run: Callable[..., Any]) -> Callable[..., Any]:
    """Return a run of the passes on other inputs."""

    def running(*args: Any, **named: Any) -> Any:
        with subject.given(inputs):
            return run(*args, **named)

    return running


def _grown(value: Array, axis: int, more: int, rng: np.random.Generator) -> Array:
    """Return an array with more entries along an axis: like those that are there, and others."""
    there = np.take(value, np.arange(more) % value.shape[axis], axis)
    if value.dtype.kind == "f" and not np.array_equal(value, np.round(value)):
        there = moved(there, rng)
    elif axis and set(np.unique(value)) == {0, 1}:
        there = np.zeros_like(there)  # of a row with a single one there is another length
    found = np.concatenate([value, there], axis)
    return found / found.sum(-1, keepdims=True) if are_shares(value) else found


def _upstream(subject: Subject, outputs: Sequence[Array], rng: np.random.Generator) -> list[Array]:
    """Return an upstream gradient for other outputs."""
    is_fixed = subject.is_loss or not subject.takes_upstream
    pairs = zip(subject.upstream, draw_upstream(outputs, rng), strict=True)
    return [_upstream_there(here, drawn, is_fixed or np.ptp(here) == 0) for here, drawn in pairs]


def _upstream_there(here: Array, drawn: Array, is_fixed: bool) -> Array:
    """Return the upstream gradient of an output that may be longer: zero where it is zero here."""
    if here.shape == drawn.shape:
        return here
    if is_fixed and here.any() and here.size > 1:
        raise CheckError("the upstream gradient may depend on the sizes")
    return drawn * bool(here.any())
