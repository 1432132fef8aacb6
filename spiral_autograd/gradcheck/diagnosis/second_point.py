"""A second point: other values and another upstream gradient, where a reason must hold too."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np

from ...validation import Array
from ..finding import Finding
from ..guard import CheckError
from ..reference.graph import Graph
from ..reference.nodes import Node
from ..subject.subject import MISSING
from ..verdict.excuses import ideals
from ..verdict.rows import Comparison
from .case import Case

Run = Callable[[], list[Any]]

DRAWS: tuple[Callable[[Array, np.random.Generator], Array], ...] = (
    lambda value, rng: moved(value, rng),
    lambda value, rng: value * rng.uniform(0.98, 1.02, value.shape),  # on the same path, perhaps
    lambda value, rng: value,  # for another upstream gradient only
)


def second_point(c: Comparison, case: Case, *, ideal: bool) -> Case | None:
    """Return a case at other values, and for another upstream gradient; None if there is none.

    With `ideal`, that of the forward pass without its small constant.
    """
    if not c.subject.backward_code or not c.reference.grads or not c.small:
        return None
    rng = np.random.default_rng(2)
    kept = c.subject.marks  # zeros, of which the handwritten pass knows nothing
    some = [k for k in range(len(c.grads)) if k not in kept]
    upstream = list(map(np.array, c.upstream))
    if c.subject.takes_upstream and not c.subject.is_loss:
        upstream = [_drawn(u, rng) for u in upstream]
    for draw in DRAWS:
        values = [c.subject.values[k] for k in some]
        others = [np.asarray(draw(v, rng), dtype=v.dtype) for v in values]
        with np.errstate(all="ignore"), c.subject.session.moved(values, others):
            try:
                second = _case(c, case, upstream, ideal)
            except CheckError:  # outside of the domain
                continue
        if second is not None:
            second.rerun = partial(_moved_to, c, values, others, second.rerun)
            return second
    return None


def _case(c: Comparison, case: Case, upstream: list[Array], ideal: bool) -> Case | None:
    """Return the case at the values as they are now, where its graph is like the first one."""
    case.deadline.check()
    there = c.at_these_values(upstream)
    grads = there.grads
    graph, true = there.graph, [np.asarray(g) for g in there.reference.grads]
    if graph is not None and ideal:
        graph = next((other for *_, other in ideals(graph)), None)
        true = [] if graph is None else [graph.gradient(k) for k in range(len(grads))]
    if case.graph is not None and (graph is None or not _are_like(graph, case.graph)):
        return None
    if not all(np.isfinite(g).all() for g in true):
        return None
    if graph is not None:
        _keep_values(graph)
    return replace(
        case,
        values=list(map(np.array, c.subject.values)),
        automatic=true,
        handwritten=[None if g is MISSING else g for g in grads],
        wrong=there.wrong,
        tolerance=100 * case.tolerance,
        graph=graph,
        upstream=upstream,
        again=None,
        second=lambda: case,
        rerun=partial(there.backward, upstream),
    )


def _keep_values(graph: Graph) -> None:
    """Let the nodes of a graph have copies of their values: the caller's arrays move back."""
    for node in graph.nodes:
        node.value, node.whole, node.args = deepcopy((node.value, node.whole, node.args))


def _moved_to(
    c: Comparison, values: list[Array], others: list[Array], run: Run | None
) -> list[Any]:
    """Return what a run gives with other values, for a while."""
    with c.subject.session.moved(values, others), c.subject.session.fresh():
        return run() if run is not None else []


def _drawn(value: Array, rng: np.random.Generator) -> Array:
    return np.asarray(rng.standard_normal(value.shape) * np.max(np.abs(value)), dtype=value.dtype)


def moved(value: Array, rng: np.random.Generator) -> Array:
    """Return other numbers in another order: within their rows, where these add up to 1.

    Where there are both signs, they are drawn anew.
    """
    if value.size > 1 and set(np.unique(value)) == {0, 1}:
        return rng.permuted(value, axis=-1)
    other = other_numbers(value, rng)
    if value.ndim and are_shares(value):
        return rng.permuted(other, axis=-1)
    if np.min(value) < 0 < np.max(value):
        other *= rng.choice([-1, 1], value.shape)
    return rng.permutation(other.ravel()).reshape(value.shape)


def other_numbers(value: Array, rng: np.random.Generator) -> Array:
    """Return other numbers: positive ones positive, and rows of probabilities such rows."""
    factors = rng.uniform(0.7, 1.3, value.shape)
    least = np.max(np.abs(value), initial=0.5)
    other = np.where(value == 0, 0.3 * least * factors, value * factors)
    if are_shares(value):
        other /= other.sum(axis=-1, keepdims=True)
    return np.asarray(other, dtype=value.dtype)


def are_shares(value: Array) -> bool:
    """Tell whether the rows of an array are probabilities."""
    some = value.shape[-1:] > (1,) and np.all(value > 0)
    return bool(some and np.allclose(value.sum(axis=-1), 1))


# -------------------- the same program there --------------------


def _are_like(one: Graph, other: Graph) -> bool:
    """Tell whether two runs made the same values by the same operations."""
    return list(map(_form, one.nodes)) == list(map(_form, other.nodes))


def _form(node: Node) -> tuple[object, ...]:
    parents = tuple(parent.number for parent in node.parents)
    return node.call.instruction, node.name, np.shape(node.value), node.argnums, parents


@contextmanager
def standing_at(there: Graph, graph: Graph) -> Iterator[None]:
    """Let the nodes of a graph have the values and gradients of another run that is like it."""
    pairs = [(a.__dict__, b.__dict__) for a, b in zip(graph.nodes, there.nodes, strict=True)]

    def exchange() -> None:
        for ours, theirs in pairs:
            for name in ("call", "made", "whole", "value", "args", "adjoint"):
                ours[name], theirs[name] = theirs[name], ours[name]
            ours.pop("_back", None), theirs.pop("_back", None)

    exchange()
    try:
        yield
    finally:
        exchange()


# -------------------- the same thing said --------------------


def says_the_same(one: object, other: object, tolerance: float) -> bool:
    """Tell whether two findings, or fields of them, say the same but for rounding."""
    if isinstance(one, Finding) and isinstance(other, Finding):
        ours, theirs = one.fields, other.fields
        return (
            one.kind == other.kind
            and ours.keys() == theirs.keys()
            and all(says_the_same(ours[name], theirs[name], tolerance) for name in ours)
        )
    if isinstance(one, float) and isinstance(other, float):
        return abs(one - other) <= max(1e-6, tolerance) * abs(one)
    if isinstance(one, list | tuple) and isinstance(other, list | tuple):
        pairs = zip(one, other, strict=False)
        return len(one) == len(other) and all(says_the_same(a, b, tolerance) for a, b in pairs)
    return one == other
