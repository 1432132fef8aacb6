"""The true derivative of what one value is of another: what it is the derivative of, and a text."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np

from ...validation import Array
from ..blocks import close
from ..finding import Finding, found
from ..reference.graph import Graph, Site
from ..reference.nodes import UNFIT, Node
from .case import Case
from .edits import FUNCTIONS

# What people have a name for, by what it does: as one operation or written out.
NAMED: tuple[tuple[str, Callable[[Array], Array]], ...] = (
    ("tanh", np.tanh),
    ("the sigmoid", lambda v: 1 / (1 + np.exp(-v))),
    ("the ReLU", lambda v: np.maximum(v, 0)),
    ("exp", np.exp),
    ("log", np.log),
    ("the square", np.square),
    ("the square root", np.sqrt),
    ("the reciprocal", np.reciprocal),
    ("softplus", lambda v: np.log1p(np.exp(v))),
)
# Derivatives that nobody takes for others, beside FUNCTIONS.
ONLY_TRUE: tuple[tuple[str, Callable[[Array], Array]], ...] = (
    ("1 / (2 * {v})", lambda v: 1 / (2 * v)),
    ("1 / (2 * sqrt({v}))", lambda v: 1 / (2 * np.sqrt(v))),
    ("3 * {v}**2", lambda v: 3 * v**2),
    ("{v}**3 / 2", lambda v: v**3 / 2),
)


def true_derivative(case: Case, graph: Graph, site: Site) -> tuple[str | None, Finding | None]:
    """Return what a person calls the function, and its derivative in the reader's names."""
    y, x = site.result, site.argument
    if y is None or site.via is not None:
        return None, None
    if site.steps == 1 and y.name == "multiply" and y.parents.count(x) == 1:
        other = case.operand(y, 1 - y.argnums[y.parents.index(x)])
        return None, other if other.kind == "named" else None
    with np.errstate(all="ignore"):
        derivative = _entry_by_entry(graph, site)
        if derivative is None or derivative.size < 3:
            return None, None
        is_same = _same(x.value, y.value)
        is_like = (name for name, f in NAMED if not is_same and _same(f(_value(x)), y.value))
        return next(is_like, None), next(_like(case, graph, site, derivative), None)


def _entry_by_entry(graph: Graph, site: Site) -> Array | None:
    """Return the derivative of each entry by its own; None where an entry moves others too."""
    assert site.result is not None
    shape = np.shape(site.result.value)
    r = np.random.default_rng(0).standard_normal(shape)
    try:
        ones, weighted = (np.asarray(graph.part(site, g)) for g in (np.ones(shape), r))
    except UNFIT:
        return None
    is_own = ones.shape == shape and close(weighted, r * ones, 1e-12)
    return ones.astype(float) if is_own else None


def _like(case: Case, graph: Graph, site: Site, derivative: Array) -> Iterator[Finding]:
    """Yield what a derivative is: a function of the result or the argument, or a value."""
    for text, function in (*FUNCTIONS[1:], *ONLY_TRUE):
        for node in filter(None, (site.result, site.argument)):
            array = function(_value(node))
            for minus in (False, True):
                if _same(-array if minus else array, derivative):
                    yield found("function", function=text, v=case.name(node), minus=minus)
    for node in graph.nodes:
        if case.variable(node) is not None and _same(_value(node), derivative):
            yield case.name(node)


def _value(node: Node) -> Array:
    return np.asarray(node.value, dtype=float)


def _same(ours: object, theirs: object) -> bool:
    """Tell whether two arrays have the same entries, and not one number alone."""
    return close(ours, theirs, 1e-9) and float(np.ptp(np.asarray(theirs, dtype=float))) > 0
