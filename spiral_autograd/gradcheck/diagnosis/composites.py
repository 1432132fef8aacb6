"""Wrong gradients of a softmax or a normalisation as a whole: `scale (g - Σ terms)`."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from itertools import combinations
from typing import Any

import numpy as np

from ...recording import Call, name_of
from ...validation import Array
from ..reference.backward_graph import BackwardGraph, is_sum_of_paths
from .case import Case
from .edits import LEFT_OUT, Edit
from .passages import Passage, ancestors

Over = Callable[[Array, Any], Array]
Term = Callable[[Array, Array, Over], Array]


@dataclass(frozen=True)
class Composite:
    """An operation whose gradient is ``scale (g - Σ terms)``, sums being over some axes."""

    name: str
    formula: str
    is_one: Callable[[Array, Over], bool]  # tells a result of it
    scale: Callable[[Array], Any] | None  # of the result; None where it is what fits
    terms: tuple[str, ...]


# The result is y, the gradient that leaves it g; S sums and M averages over the axes.
TERMS: dict[str, Term] = {
    "Σ y g": lambda y, g, over: over(y * g, np.sum),
    "y Σ y g": lambda y, g, over: y * over(y * g, np.sum),
    "mean g": lambda y, g, over: over(g, np.mean),
    "y mean(y g)": lambda y, g, over: y * over(y * g, np.mean),
    "exp(y) Σ g": lambda y, g, over: np.exp(y) * over(g, np.sum),
}
VARIANTS: dict[str, tuple[tuple[str, str, Term], ...]] = {
    "Σ y g": (
        ("value", "Σ g", lambda y, g, over: over(g, np.sum)),
        ("sum", "mean(y g)", lambda y, g, over: over(y * g, np.mean)),
        ("sum", "y g, not summed", lambda y, g, over: y * g),
    ),
    "y Σ y g": (
        ("value", "Σ y g", lambda y, g, over: over(y * g, np.sum)),
        ("value", "y Σ g", lambda y, g, over: y * over(g, np.sum)),
        ("sum", "y mean(y g)", lambda y, g, over: y * over(y * g, np.mean)),
        ("sum", "y y g, not summed", lambda y, g, over: y * y * g),
    ),
    "mean g": (("sum", "Σ g", lambda y, g, over: over(g, np.sum)),),
    "y mean(y g)": (
        ("value", "mean(y g)", lambda y, g, over: over(y * g, np.mean)),
        ("value", "y mean g", lambda y, g, over: y * over(g, np.mean)),
        ("sum", "y Σ y g", lambda y, g, over: y * over(y * g, np.sum)),
    ),
    "exp(y) Σ g": (
        ("value", "Σ g", lambda y, g, over: over(g, np.sum)),
        ("value", "y Σ g", lambda y, g, over: y * over(g, np.sum)),
        ("sum", "exp(y) mean g", lambda y, g, over: np.exp(y) * over(g, np.mean)),
        ("sum", "exp(y) g, not summed", lambda y, g, over: np.exp(y) * g),
    ),
}


def _is(value: Any, number: float, off: float = 1e-6) -> bool:
    return bool(np.all(np.abs(np.asarray(value) - number) <= off))


COMPOSITES = (
    Composite(
        "softmax",
        "y (g - Σ y g)",
        lambda y, over: _is(over(y, np.sum), 1),
        lambda y: y,
        ("Σ y g",),
    ),
    Composite(
        "log-softmax",
        "g - exp(y) Σ g",
        lambda y, over: _is(over(np.exp(y), np.sum), 1),
        lambda y: np.ones(()),
        ("exp(y) Σ g",),
    ),
    Composite(
        "normalisation",
        "(g - mean g - y mean(y g)) / std",
        lambda y, over: _is(over(y, np.mean), 0),
        None,
        ("mean g", "y mean(y g)"),
    ),
    Composite(
        "subtracted mean",
        "g - mean g",
        lambda y, over: _is(over(y, np.mean), 0),
        lambda y: np.ones(()),
        ("mean g",),
    ),
    Composite(
        "division by the root mean square",
        "(g - y mean(y g)) / rms",
        lambda y, over: _is(over(y * y, np.mean), 1, 0.01),
        None,
        ("y mean(y g)",),
    ),
    Composite(
        "division by the norm",
        "(g - y Σ y g) / norm",
        lambda y, over: _is(over(y * y, np.sum), 1, 0.01),
        None,
        ("y Σ y g",),
    ),
)


def composites_of(y: Array) -> list[tuple[tuple[int, ...], Composite]]:
    """Return what an array may be the result of, by its numbers: a softmax over some axes, say."""
    if y.ndim == 0 or y.size < 2:
        return []
    with np.errstate(all="ignore"):
        return [
            (axes, composite)
            for axes in _axes(y.ndim)
            if np.prod([y.shape[axis] for axis in axes]) >= 2
            for composite in COMPOSITES
            if composite.is_one(y, _over(axes))
        ]


def composite_edits(
    case: Case,
    graph: BackwardGraph,
    passage: Passage,
    kinds: list[tuple[tuple[int, ...], Composite]],
) -> Iterator[Edit]:
    """Yield the mistakes in the gradient of a passage that is one of some kinds."""
    if passage.steps < 2 and not is_sum_of_paths(passage.target):
        return
    came, y = graph.adjoints[passage.result], graph.array(passage.result)
    g, true = graph.array(came), graph.array(passage.target)
    for axes, composite in kinds:
        scale = _scale(composite, y, g, true, axes)
        if scale is not None:
            yield from _variants(case, passage, came, composite, axes, scale)
            return


def _axes(ndim: int) -> list[tuple[int, ...]]:
    found = [axes for n in range(1, ndim + 1) for axes in combinations(range(ndim), n)]
    return sorted(found, key=lambda axes: (len(axes), -axes[-1])) if ndim <= 4 else []


def _over(axes: tuple[int, ...]) -> Over:
    return lambda a, reduce: reduce(a, axis=axes, keepdims=True)


def _scale(
    composite: Composite, y: Array, g: Array, true: Array, axes: tuple[int, ...]
) -> Array | None:
    """Return the scale with which a composite's gradient is the true one; None if it is not."""
    over = _over(axes)
    with np.errstate(all="ignore"):
        rest = g - sum(TERMS[term](y, g, over) for term in composite.terms)
        if composite.scale is not None:
            scale = np.asarray(composite.scale(y))
        else:
            norm = over(rest * rest, np.sum)
            scale = over(true * rest, np.sum) / np.where(norm > 0, norm, 1)
        apart = np.abs(scale * rest - true)
    largest = float(np.max(np.abs(true), initial=0.0))
    terms_matter = float(np.max(np.abs(rest - g), initial=0.0)) > 1e-9 * float(np.max(np.abs(g)))
    fits = np.isfinite(apart).all() and float(np.max(apart)) <= 1e-8 * largest
    return scale if fits and largest > 0 and terms_matter else None


def _reductions(passage: Passage) -> list[Call]:
    """Return the sums and means between an argument and a result, in their order."""
    found = [
        call
        for call, _, _ in ancestors(passage.result, passage.steps)
        if name_of(call.fun) in ("sum", "mean", "var", "std", "norm") and call.fun is not None
    ]
    return found[::-1]


def _scaled(scale: Array, function: Callable[[Array], Array]) -> Callable[[Array], Array]:
    return lambda g: scale * function(g)


def _bracket(composite: Composite, y: Array, g: Array, over: Over, without: str = "") -> Array:
    return np.asarray(g - sum(TERMS[t](y, g, over) for t in composite.terms if t != without))


def _variants(
    case: Case,
    passage: Passage,
    came: Call,
    composite: Composite,
    axes: tuple[int, ...],
    scale: Array,
) -> Iterator[Edit]:
    """Yield what people write in place of ``scale (g - Σ terms)``."""
    assert case.graph is not None
    y, over, last = case.graph.array(passage.result), _over(axes), passage.result
    name = case.name_of(passage.result)
    whole = f"in the gradient of the {composite.name} y = {name}, {composite.formula},"

    sums = _reductions(passage)

    def edit(rule: str, text: str, gradient: Callable[[Array], Array], of: Call = last) -> Edit:
        def make(call: Call, get: Callable[[Any], Any]) -> Any:
            return gradient(np.asarray(get(came)))

        return Edit(rule, f"{whole} {text}", of, {passage.target: make}, (text,))

    def bracket(g: Array, without: str = "") -> Array:
        return _bracket(composite, y, g, over, without)

    def instead(term: str, other: Term, sums: Over = over) -> Any:
        return lambda g: scale * (bracket(g, term) - other(y, g, sums))

    for term, of in zip(composite.terms, (*sums, last, last), strict=False):
        left_out = instead(term, lambda y, g, over: np.zeros_like(g))
        yield edit("term", f"the term - {term} {LEFT_OUT}", left_out, of)
        for rule, name, function in VARIANTS[term]:
            yield edit(rule, f"the term - {term} is - {name}", instead(term, function))
        for other in _axes(y.ndim):
            names = ", ".join(map(str, other))
            text = f"the sum in the term - {term} runs over axis {names}"
            yield edit("sum", text, instead(term, TERMS[term], _over(other)))
    if len(composite.terms) > 1:
        yield edit("term", f"all but g {LEFT_OUT}", lambda g: scale * g)
        for other in _axes(y.ndim):
            names = ", ".join(map(str, other))
            all_over = partial(_bracket, composite, y, over=_over(other))
            yield edit("sum", f"all sums run over axis {names}", _scaled(scale, all_over))
    yield edit("term", "the term g is left out", lambda g: scale * (bracket(g) - g))
    yield edit("value", "the factor before the bracket is left out", bracket)
    yield edit("value", "only g is left", lambda g: g)
    yield edit("value", "the factor before the bracket is squared", lambda g: scale**2 * bracket(g))
    with np.errstate(all="ignore"):
        inverse = 1 / scale
    yield edit("value", "the factor before the bracket is inverted", lambda g: inverse * bracket(g))
