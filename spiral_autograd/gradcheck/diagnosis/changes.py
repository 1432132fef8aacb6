"""The changes that people make to what flows through one site of the backward pass."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator, Sequence
from functools import partial
from typing import Any

import numpy as np

from ...validation import Array
from ..primitives import primitive
from ..reference.graph import Graph, Site
from ..reference.nodes import UNFIT, Node
from .closed import Closed
from .edits import (
    FUNCTIONS,
    Pattern,
    broadcast,
    exchanged_blocks,
    one,
    rearrangements,
    reductions,
    unbroadcast,
    windows,
    without_an_end,
)
from .gathered import PICKING, gathered
from .loops import own_functions_of
from .operands import operands, wrong_gradients
from .probes import Edit, Family, Spot, Stock, folded
from .targets import targets

# -------------------- what is there, lost or multiplied --------------------

TIMES = (0.0, -1.0, 2.0, 0.5)  # none of an argument's own: that says no more than its zeros


def multiples(spot: Spot, stock: Stock) -> Iterator[Family]:
    """What reaches the argument is left out, or is a multiple of what it should be."""
    never_written = spot.site.result is None and not spot.site.argument.parents
    yield _multiples(spot, TIMES[never_written:])


def by_lengths(spot: Spot, stock: Stock) -> Iterator[Family]:
    """What reaches the argument is divided or multiplied by the length of an axis."""
    yield _multiples(spot, [c for n in stock.lengths if n > 2 for c in (1 / n, float(n))])


def _multiples(spot: Spot, factors: Sequence[float]) -> Family:
    sizes = np.abs(spot.c.ravel()) @ spot.sizes.T
    return Family(
        np.outer(np.array(factors) - 1, spot.effect),
        np.outer(np.abs(np.array(factors) - 1), sizes),
        lambda i: times(factors[i]),
        lambda i: ("times", factors[i]),
    )


def times(c: float) -> Edit:
    """Return the change by a factor; of zero, the loss of a term."""
    if c == 0:
        return Edit("left_out", 0.0, lambda g, part, total: 0 * part)
    return Edit("times", 1.0, lambda g, part, total: c * part, {"times": c})


# -------------------- in another order, or summed otherwise --------------------


Tried = tuple[Pattern, Callable[[Array], Array], str]


def arrangements(spot: Spot, stock: Stock) -> Iterator[Family]:
    """What reaches the argument is rearranged, summed, or lacks entries."""
    tried = [(pattern, pattern.make, "c") for pattern in _of_argument(spot)]
    yield from _tried(spot, tried)
    if spot.site.result is not None and spot.g.ndim:
        yield from _tried(spot, list(_of_result(spot)))


def _of_argument(spot: Spot) -> Iterator[Pattern]:
    """Yield what may be done to what reaches the argument."""
    shape, site = spot.c.shape, spot.site
    yield from without_an_end(shape)
    if site.steps == 1:
        yield from rearrangements(shape, shape)
    if site.result is None:
        yield from exchanged_blocks(shape)
    elif site.steps == 1 and site.result.name in PICKING and shape:
        for shift in range(2, min(shape[0], 50) - 1):
            rolled = partial(np.roll, shift=shift, axis=0)
            yield Pattern("shifted", 2.0, rolled, {"shift": shift, "axis": 0})
    for pattern in reductions(shape) if spot.g.shape == shape else ():
        yield broadcast(pattern, shape, pattern.fields["axes"])


def _of_result(spot: Spot) -> Iterator[Tried]:
    """Yield what may be done to what leaves the result."""
    g, shape, site, graph = spot.g, spot.c.shape, spot.site, spot.graph
    through = [Pattern("not_multiplied", 1.5, np.ones_like)]
    if site.steps == 1 and site.via is None:
        yield from ((pattern, pattern.make, "g") for pattern in windows(g.shape, shape))
        if g.ndim > 1 and g.shape[-1] == g.shape[-2] > 1:
            turned = partial(np.swapaxes, axis1=-1, axis2=-2)
            through.append(Pattern("g_transposed", 2.3, turned))
        if g.shape != shape:
            through += without_an_end(g.shape)
            for pattern in _unsummed_patterns(site, g):
                yield pattern, partial(_summed, site, pattern), "g"
    yield from ((pattern, partial(_through, graph, site, pattern), "g") for pattern in through)


def _unsummed_patterns(site: Site, g: Array) -> list[Pattern]:
    whole, _ = unsummed(site, g)
    return [] if whole is None else list(reductions(whole.shape, ends=True))


def _through(graph: Graph, site: Site, pattern: Pattern, g: Array) -> Array:
    return np.asarray(graph.part(site, pattern.make(g)))


def _summed(site: Site, pattern: Pattern, g: Array) -> Array:
    whole, factor = unsummed(site, g)
    made = broadcast(pattern, np.shape(site.argument.value), pattern.fields["axes"])
    return made.make(np.asarray(whole)) * factor


_BROADCASTING = "add subtract multiply divide true_divide maximum minimum".split()


def unsummed(site: Site, g: Array) -> tuple[Array | None, Any]:
    """Return what reaches the argument of an operation before it is summed to its shape.

    And by what the sum is multiplied, where people do that last: by -1 / x**2 for a / x.
    """
    y, x = site.result, site.argument
    if y is None or y.name not in _BROADCASTING or not np.ndim(y.value):
        return None, 1.0
    if "divide" in y.name and y.argnums[y.parents.index(x)] == 1:
        return np.broadcast_to(g * y.args[0], np.shape(y.value)), -1 / np.square(x.value)
    args = [np.broadcast_to(a, np.shape(y.value)) if np.ndim(a) else a for a in y.args]
    return np.asarray(y.vjp(g, args)[y.parents.index(x)]), 1.0


def closed_forms(spot: Spot, stock: Stock) -> Iterator[Family]:
    """The gradient of a softmax or a normalisation as a whole, written with a mistake."""
    site = spot.site
    reduces = any(np.size(node.value) < np.size(spot.g) for node in site.between)
    if site.result is None or site.via is not None or not reduces:
        return
    with np.errstate(all="ignore"):
        closed = Closed.of(site.result, spot.g, spot.c, partial(spot.graph.part, site))
    if closed is None:
        return
    patterns = list(closed.mistakes())
    whole = {"title": closed.title, "over": one(closed.axes)}
    for family in _tried(spot, [(p, p.make, "g") for p in patterns]):
        edit = family.edit

        def titled(i: int, edit: Callable[[int], Edit] = edit) -> Edit:
            made = edit(i)
            return Edit(made.kind, made.cost, made.change, {**made.fields, **whole}, "closed")

        yield Family(family.effects, family.sizes, titled, family.key)


def _key_of(some: Sequence[Tried], i: int) -> Hashable:
    return some[i][0].key, some[i][2]


def _tried(spot: Spot, tried: Sequence[Tried]) -> Iterator[Family]:
    """Yield the family of patterns of what leaves the result (g) or reaches the argument (c)."""
    others, fitting = [], []
    for pattern, make, of in tried:
        try:
            other = make(spot.g if of == "g" else spot.c)
        except UNFIT:
            continue
        if other.shape == spot.c.shape:
            others.append(other)
            fitting.append((pattern, make, of))
    step = max(1, 2_000_000 // max(1, spot.c.size))
    for start in range(0, len(others), step):
        some = fitting[start : start + step]

        def edit(i: int, some: Sequence[Tried] = some) -> Edit:
            pattern, make, of = some[i]
            change = (lambda g, c, t: make(g)) if of == "g" else (lambda g, c, t: make(c))
            picks = spot.site.result is not None and spot.site.result.name in PICKING
            if picks and pattern.kind == "shifted":
                return Edit("picked_beside", 1.0, change, pattern.fields)
            return Edit(pattern.kind, pattern.cost, change, pattern.fields)

        effects, sizes = spot.effects(others[start : start + step])
        yield Family(effects, sizes, edit, partial(_key_of, some))


# -------------------- another derivative --------------------


def own_functions(spot: Spot, stock: Stock) -> Iterator[Family]:
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
        table = stock.functions(node)
        scores, sizes = table @ weights.T, np.abs(table) @ np.abs(weights).T
        sizes = sizes + np.abs(spot.effect)
        for sign in (1, -1):
            yield Family(
                sign * scores - spot.effect,
                sizes,
                partial(taken_as, node, sign=sign, extra=1.6 * _is_plain(site, node)),
                partial(_function_key, end, sign),
                sign * stock.raw_functions(node) if np.size(node.value) == spot.g.size else None,
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
    return Family(
        table @ weights.T - spot.effect, sizes, edit, lambda i: ("function", "gradient", i, 1)
    )


def _is_plain(site: Site, node: Node) -> bool:
    """Tell whether a value is a mere product, or sum: nobody has a function of it for that."""
    if any(n.name not in ("add", "subtract") for n in site.between):
        return site.steps == 1 and node is site.result and node.name == "multiply"
    return True


def _function_key(end: str, sign: int, i: int) -> Hashable:
    return "function", end, i, sign


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


def derivatives_of_others(spot: Spot, stock: Stock) -> Iterator[Family]:
    """The derivative is right, but of another value that has a name."""
    site, shape = spot.site, spot.g.shape
    if site.result is None or spot.weights is None or not shape or shape != spot.c.shape:
        return
    others = [node for node in stock.named(shape) if node not in (site.result, site.argument)]
    tried = [(node, i) for i in own_functions_of(spot, stock) for node in others]
    rows = [stock.functions(node)[i] for node, i in tried]
    fine = [n for n, row in enumerate(rows) if np.isfinite(row).all()]
    if fine:
        table, flat = np.stack([rows[n] for n in fine]), spot.weights.reshape(len(spot.weights), -1)
        yield Family(
            table @ flat.T - spot.effect,
            np.abs(table) @ np.abs(flat).T + np.abs(spot.effect),
            lambda n: taken_as(*tried[fine[n]], extra=1.0),
            lambda n: ("derivative of", *tried[fine[n]]),
        )


# -------------------- a maximum, taken for something else: in pooling, say --------------------

_EXTREMES: dict[str, Callable[..., Array]] = {
    **dict.fromkeys(("max", "amax"), np.min),
    **dict.fromkeys(("min", "amin"), np.max),
}


def extremes(spot: Spot, stock: Stock) -> Iterator[Family]:
    """The derivative of a maximum is taken as that of a sum, of a mean or of the minimum."""
    y, x = spot.site.result, spot.site.argument
    if y is None or spot.site.steps > 1 or y.name not in _EXTREMES or not y.parents:
        return
    opposite = _EXTREMES[y.name]
    axis = y.call.kwargs.get("axis", y.args[1] if len(y.args) > 1 else None)
    n = np.size(x.value) // max(1, np.size(y.value))
    is_it = f"({{v}} == {opposite.__name__[-3:]}({{v}}))"
    tried: dict[str, Callable[[], object]] = {
        "1": lambda: 1.0,
        f"1 / {n}": lambda: 1 / n,
        is_it: lambda: x.value == opposite(x.value, axis=axis, keepdims=True),
    }

    def edit(function: str) -> Edit:
        def change(g: Array, c: Array, total: object) -> object:
            kept = np.shape(np.max(x.value, axis=axis, keepdims=True))
            return np.reshape(g, kept) * tried[function]() + 0 * c

        fields = {"function": function, "v": x, "minus": False}
        return Edit("taken_as", 1.2, change, fields, "derivative")

    yield from spot.family({("extreme", i): edit(f) for i, f in enumerate(tried)}, stock.bar)


# The likeliest first: where they explain something well, the others are not asked.
LIKELIEST = (multiples, targets, closed_forms, own_functions, extremes, gathered)
OTHERS = (arrangements, operands, wrong_gradients)
