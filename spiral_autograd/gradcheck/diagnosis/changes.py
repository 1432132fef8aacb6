"""The changes that people make to what flows through one site of the backward pass."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import numpy as np

from ...validation import Array
from ..primitives import primitive
from ..reference.graph import Site
from ..reference.nodes import Node
from .closed import Closed
from .edits import FUNCTIONS, Pattern, one, unbroadcast
from .gathered import gathered
from .probes import Edit, Family, Spot, folded
from .targets import targets

# -------------------- what is there, lost or multiplied --------------------

TIMES = (0.0, -1.0, 2.0, 0.5)  # none of an argument's own: that says no more than its zeros


def multiples(spot: Spot) -> Iterator[Family]:
    """What reaches the argument is left out, or is a multiple of what it should be."""
    never_written = spot.site.result is None and not spot.site.argument.parents
    factors = np.array(TIMES[never_written:])
    sizes = np.abs(spot.c.ravel()) @ spot.sizes.T
    yield Family(
        np.outer(factors - 1, spot.effect),
        np.outer(np.abs(factors - 1), sizes),
        lambda i: times(float(factors[i])),
    )


def times(c: float) -> Edit:
    """Return the change by a factor; of zero, the loss of a term."""
    if c == 0:
        return Edit("left_out", 0.0, lambda g, part, total: 0 * part)
    return Edit("times", 1.0, lambda g, part, total: c * part, {"times": c})


# -------------------- a softmax, a normalisation --------------------


def closed_forms(spot: Spot) -> Iterator[Family]:
    """The gradient of a softmax or a normalisation as a whole, written with a mistake."""
    site = spot.site
    reduces = any(np.size(node.value) < np.size(spot.g) for node in site.between)
    if site.result is None or site.via is not None or not reduces:
        return
    with np.errstate(all="ignore"):
        closed = Closed.of(site.result, spot.g, spot.c, partial(spot.graph.part, site))
    if closed is None:
        return
    whole = {"title": closed.title, "over": one(closed.axes)}

    def edit(pattern: Pattern) -> Edit:
        fields = {**pattern.fields, **whole}
        return Edit(pattern.kind, pattern.cost, lambda g, c, t: pattern.make(g), fields, "closed")

    yield from spot.family(map(edit, closed.mistakes()))


# -------------------- another derivative --------------------


def own_functions(spot: Spot) -> Iterator[Family]:
    """The derivative is taken as a simple function of the result or of the argument.

    Or of the gradient that leaves the result, where a person confuses it with the value.
    """
    site = spot.site
    only_moves = all(primitive(node.name).moves for node in site.between)
    if spot.weights is None or not spot.g.ndim or only_moves:
        return
    for end in ("result", "argument"):
        node = getattr(site, end)
        weights = folded(spot.weights, np.shape(node.value))
        if weights is None:
            continue
        if end == "result":
            yield _of_the_gradient(spot, weights)
        table = spot.probes.functions(node)
        scores, sizes = table @ weights.T, np.abs(table) @ np.abs(weights).T
        sizes = sizes + np.abs(spot.effect)
        for sign in (1, -1):
            yield Family(
                sign * scores - spot.effect,
                sizes,
                partial(taken_as, node, sign=sign, extra=1.6 * _is_plain(site, node)),
            )


_OF_GRADIENTS = [
    (text, function)
    for text, function in FUNCTIONS
    if "> 0)" in text
    or "sigmoid" in text.split("*")[-1]
    or text in ("{v} * (1 - {v})", "1 - {v}**2")
]


def _of_the_gradient(spot: Spot, weights: Array) -> Family:
    """Return the changes by which a derivative is a function of the gradient that it multiplies."""
    tried = [(text, function, 1) for text, function in _OF_GRADIENTS]
    lengths = [n for n in spot.g.shape if n > 2]  # a gradient without the 1/m of the cost
    tried += [(t, f, n) for n in lengths for t, f in _OF_GRADIENTS if "0)" not in t]
    table = np.stack([np.ravel(function(n * spot.g)) for _, function, n in tried])

    def edit(i: int) -> Edit:
        text, function, n = tried[i]

        def change(g: Array, c: Array, total: object) -> object:
            return unbroadcast(g * function(n * g), np.shape(c))

        text = text if n == 1 else text.replace("{v}", f"{n} * {{v}}")
        fields = {"function": text, "v": ("gradient", spot.site.result), "minus": False}
        return Edit("taken_as", 2.1 + 0.05 * i, change, fields, "derivative")

    sizes = np.abs(table) @ np.abs(weights).T + np.abs(spot.effect)
    return Family(table @ weights.T - spot.effect, sizes, edit)


def _is_plain(site: Site, node: Node) -> bool:
    """Tell whether a value is a mere product, or sum: nobody has a function of it for that."""
    if any(n.name not in ("add", "subtract") for n in site.between):
        return site.steps == 1 and node is site.result and node.name == "multiply"
    return True


def taken_as(of: Node, i: int, sign: int = 1, extra: float = 0.0) -> Edit:
    """Return the change of a derivative to the i-th simple function of a value."""

    def array() -> Array:
        return sign * np.asarray(FUNCTIONS[i][1](np.asarray(of.value)), dtype=float)

    def change(g: Array, c: Array, total: object) -> object:
        return unbroadcast(g * array(), np.shape(c))

    if i == 0 and sign == 1:
        return Edit("lost", 0.5, change, {}, "derivative")
    cost = 1.5 + 0.02 * i + (0.5 if sign < 0 else 0.0) + extra
    fields = {"function": FUNCTIONS[i][0], "v": of, "minus": sign < 0, "array": array}
    return Edit("taken_as", cost, change, fields, "derivative")


FAMILIES = (multiples, targets, closed_forms, own_functions, gathered)
