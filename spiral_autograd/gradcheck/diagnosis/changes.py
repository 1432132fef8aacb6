"""The changes that people make to what flows through one site of the backward pass."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np

from ...validation import Array
from ..reference.graph import UNFIT, Change, Graph, Node, Site
from .edits import (
    FUNCTIONS,
    Closed,
    Pattern,
    broadcast,
    exchanged_blocks,
    rearrangements,
    reductions,
    unbroadcast,
    windows,
    without_an_end,
)
from .probes import Named, Spot, Stock, folded


@dataclass(frozen=True)
class Edit:
    """A change at a site, and what is said of it.

    Attributes
    ----------
    kind : str
        Of the finding.
    cost : float
        How far from the first thing that a person would think of.
    change : Change
    fields : dict
        Those of the finding; nodes stand for their names.
    of : str
        What is said to be changed: the "flow" through the site, the "derivative", or "closed".
    """

    kind: str
    cost: float
    change: Change
    fields: Mapping[str, Any] = field(default_factory=dict)
    of: str = "flow"


@dataclass(frozen=True)
class Family:
    """Changes of one sort at a site.

    Attributes
    ----------
    effects, sizes : arrays (changes, probes)
        What each does to the probes, and the size of the terms of that.
    edit : callable
        Returns the i-th change.
    key : callable
        Returns what the i-th has in common with the same change at another site.
    """

    effects: Array
    sizes: Array
    edit: Callable[[int], Edit]
    key: Callable[[int], Hashable]


# -------------------- what is there, lost or multiplied --------------------

TIMES = (0.0, -1.0, 2.0, 0.5)


def multiples(spot: Spot, stock: Stock) -> Iterator[Family]:
    """What reaches the argument is left out, or is a multiple of what it should be."""
    effects = np.outer(np.array(TIMES) - 1, spot.effect)
    sizes = np.abs(spot.c.ravel()) @ spot.sizes.T
    yield Family(
        effects,
        np.outer(np.abs(np.array(TIMES) - 1), sizes),
        lambda i: times(TIMES[i]),
        lambda i: ("times", TIMES[i]),
    )


def times(c: float) -> Edit:
    """Return the change by a factor; of zero, the loss of a term."""
    if c == 0:
        return Edit("left_out", 0.0, lambda g, part, total: 0 * part)
    return Edit("times", 1.0, lambda g, part, total: c * part, {"times": c})


# -------------------- in another order, or summed otherwise --------------------


def arrangements(spot: Spot, stock: Stock) -> Iterator[Family]:
    """What reaches the argument is rearranged, summed, or lacks entries."""
    g, c, site = spot.g, spot.c, spot.site
    shape, graph = c.shape, spot.graph
    tried: list[tuple[Pattern, Callable[[Array], Array], str]] = []
    if c.ndim:
        of_c = list(without_an_end(shape))
        if site.steps == 1:
            of_c += rearrangements(shape, shape)
            of_c += exchanged_blocks(shape) if site.result is None else []
        sums = [] if g.shape != shape else reductions(shape)
        of_c += [broadcast(p, shape, p.fields["axes"]) for p in sums]
        tried += [(p, p.make, "c") for p in of_c]
    if site.result is not None and g.ndim and site.steps == 1 and site.via is None:
        tried += [(p, p.make, "g") for p in windows(g.shape, shape)]
        if g.shape != shape:
            for p in without_an_end(g.shape):
                tried.append((p, partial(_through, graph, site, p), "g"))
            tried += [(p, partial(_summed, site, p), "g") for p in _unsummed_patterns(site, g)]
    if site.result is not None and g.ndim:
        ones = Pattern("not_multiplied", 1.5, lambda a: graph.part(site, np.ones_like(a)))
        tried.append((ones, ones.make, "g"))
        if g.ndim > 1 and g.shape[-1] == g.shape[-2] > 1 and site.steps == 1:
            turned = Pattern("g_transposed", 2.3, partial(np.swapaxes, axis1=-1, axis2=-2))
            tried.append((turned, partial(_through, graph, site, turned), "g"))
    yield from _tried(spot, tried)


def _unsummed_patterns(site: Site, g: Array) -> list[Pattern]:
    whole = unsummed(site, g)
    return [] if whole is None else list(reductions(whole.shape, ends=True))


def _through(graph: Graph, site: Site, pattern: Pattern, g: Array) -> Array:
    return np.asarray(graph.part(site, pattern.make(g)))


def _summed(site: Site, pattern: Pattern, g: Array) -> Array:
    whole = unsummed(site, g)
    made = broadcast(pattern, np.shape(site.argument.value), pattern.fields["axes"])
    return made.make(np.asarray(whole))


_BROADCASTING = "add subtract multiply divide true_divide maximum minimum".split()


def unsummed(site: Site, g: Array) -> Array | None:
    """Return what reaches the argument of an operation before it is summed to its shape."""
    y, x = site.result, site.argument
    if y is None or y.name not in _BROADCASTING or not np.ndim(y.value):
        return None
    args = [np.broadcast_to(a, np.shape(y.value)) if np.ndim(a) else a for a in y.args]
    return np.asarray(y.vjp(g, args)[y.parents.index(x)])


def closed_forms(spot: Spot, stock: Stock) -> Iterator[Family]:
    """The gradient of a softmax or a normalisation as a whole, written with a mistake."""
    site = spot.site
    reduces = any(np.size(node.value) < np.size(spot.g) for node in site.between)
    if site.result is None or site.via is not None or not reduces:
        return
    with np.errstate(all="ignore"):
        closed = Closed.of(np.asarray(site.result.value, dtype=float), spot.g, spot.c)
    if closed is None:
        return
    patterns = list(closed.mistakes())
    axes = {"title": closed.title}
    for family in _tried(spot, [(p, p.make, "g") for p in patterns]):
        edit = family.edit

        def titled(i: int, edit: Callable[[int], Edit] = edit) -> Edit:
            made = edit(i)
            return Edit(made.kind, made.cost, made.change, {**made.fields, **axes}, "closed")

        yield Family(family.effects, family.sizes, titled, family.key)


def _key_of(some: Sequence[Any], i: int) -> Hashable:
    return some[i][0].key, some[i][2]


PICKING = ("__getitem__", "take")


def _tried(
    spot: Spot, tried: Sequence[tuple[Pattern, Callable[[Array], Array], str]]
) -> Iterator[Family]:
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

        def edit(i: int, some: Any = some) -> Edit:
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
    """The derivative is taken as a simple function of the result or of the argument."""
    site = spot.site
    if site.result is None or spot.weights is None or not spot.g.ndim:
        return
    for end in ("result", "argument"):
        node = getattr(site, end)
        weights = folded(spot.weights, np.shape(node.value))
        if weights is None:
            continue
        table = stock.functions(node)
        scores, sizes = table @ weights.T, np.abs(table) @ np.abs(weights).T
        sizes = sizes + np.abs(spot.effect)
        for sign in (1, -1):
            yield Family(
                sign * scores - spot.effect,
                sizes,
                partial(taken_as, node, sign),
                partial(_function_key, end, sign),
            )


def _function_key(end: str, sign: int, i: int) -> Hashable:
    return "function", end, i, sign


def taken_as(node: Node, sign: int, i: int, extra: float = 0.0) -> Edit:
    """Return the change of a derivative to the i-th simple function of a value."""
    array = sign * np.asarray(FUNCTIONS[i][1](np.asarray(node.value)), dtype=float)

    def change(g: Any, c: Any, total: Any) -> Any:
        return unbroadcast(g * array, np.shape(c))

    if i == 0 and sign == 1:
        return Edit("lost", 0.5, change, {}, "derivative")
    cost = 1.5 + 0.02 * i + (0.5 if sign < 0 else 0.0) + extra
    fields = {"function": FUNCTIONS[i][0], "v": node, "minus": sign < 0, "array": array}
    return Edit("taken_as", cost, change, fields, "derivative")


def other_functions(spot: Spot, stock: Stock) -> Iterator[tuple[Edit, Array]]:
    """The derivative is, or is multiplied by, a function of another value.

    Only those are yielded that pass the probes, each with the gradients that it may explain.
    """
    site, probes = spot.site, spot.probes
    beside = (spot.tangents * spot.c.ravel()).reshape(-1, *spot.c.shape)
    due = probes.target + spot.effect
    for shape, (factors, table, sizes) in stock.all_functions.items():
        for weights, extra in ((spot.weights, 1.0), (beside, 3.5)):
            flat = None if weights is None else folded(weights, shape)
            if flat is None or (site.result is None and extra == 1.0):
                continue
            scores = table @ flat.T
            some = np.flatnonzero(probes.near(np.abs(scores), np.abs(due)))
            if not len(some):
                continue
            size = sizes[some] @ np.abs(flat).T + np.abs(spot.effect)
            for sign in (1, -1):
                for n, rows in zip(
                    some, probes.passing(sign * scores[some] - spot.effect, size), strict=True
                ):
                    node, i = factors[n]
                    own = extra == 1.0 and node in (site.result, site.argument)
                    if rows.any() and not own and (i or extra == 1.0):
                        edit = taken_as(node, sign, i, extra)
                        yield (edit if extra == 1.0 else _too(edit)), rows


def _too(edit: Edit) -> Edit:
    array = edit.fields["array"]
    return Edit("times_too", edit.cost, lambda g, c, total: c * array, edit.fields)


# -------------------- other operands, other gradients --------------------


def operands(spot: Spot, stock: Stock) -> Iterator[Family]:
    """An operation multiplies by another array than its operand.

    The effect of an operand is linear in it, where it is a factor: one gradient with respect to
    the operand tells that of all others.
    """
    y, x = spot.site.result, spot.site.argument
    if y is None or spot.site.steps > 1 or spot.site.via is not None or y.parents.count(x) > 1:
        return
    mine = y.argnums[y.parents.index(x)]
    for i, arg in enumerate(y.args):
        is_array = isinstance(arg, np.ndarray) and arg.ndim and arg.dtype.kind == "f"
        if i == mine or not is_array or y.name in ("add", "subtract"):
            continue
        flat = _slopes(spot, y, mine, i)
        if flat is None:
            continue
        some, table = stock.like(y.name, arg)
        if not some:
            continue
        yield Family(
            table @ flat.T - spot.effect,
            np.abs(table) @ np.abs(flat).T + np.abs(spot.effect),
            partial(_nth_operand, y, x, i, some, table),
            partial(_operand_key, stock, y, i, some),
        )


def updated(spot: Spot) -> Iterator[tuple[Edit, Array]]:
    """An operation multiplies by a parameter that its own gradient has already changed.

    Each change is yielded with the gradients that it may explain.
    """
    y, x, probes = spot.site.result, spot.site.argument, spot.probes
    if y is None or spot.site.steps > 1 or spot.site.via is not None or y.parents.count(x) > 1:
        return
    mine = y.argnums[y.parents.index(x)]
    for i, z in zip(y.argnums, y.parents, strict=True):
        flat = _slopes(spot, y, mine, i) if i != mine and not z.parents else None
        if flat is None:
            continue
        effect = flat @ z.adjoint.ravel()
        shares = probes.share(effect)
        for rate in dict.fromkeys(float(f"{-share:.6g}") for share in shares if np.isfinite(share)):
            rows = probes.passing(-rate * effect[None], np.abs(effect)[None])
            if rows.any() and rate > 0:
                edit = _operand(y, x, i, (None,), z.value - rate * z.adjoint)
                fields = {"operand": (y, i), "rate": rate}
                yield Edit("updated", 2.5, edit.change, fields), rows[0]


def _slopes(spot: Spot, y: Node, mine: int, i: int) -> Array | None:
    """Return the gradient of each probe with respect to another argument of an operation.

    None where the effect is not that of a factor.
    """
    shape = np.shape(spot.site.argument.value)
    try:
        slopes = []
        for tangent in spot.tangents:
            args = [tangent.reshape(shape) if j == mine else a for j, a in enumerate(y.args)]
            slopes.append(y.vjp_of(i, spot.g, args))
    except (*UNFIT, TypeError, NotImplementedError):
        return None
    flat = np.stack(slopes).reshape(len(slopes), -1)
    is_factor = np.allclose(flat @ np.ravel(y.args[i]), spot.effect, rtol=1e-7, atol=1e-12)
    return flat if is_factor else None


def _operand_key(stock: Stock, y: Node, i: int, some: Sequence[Named], n: int) -> Hashable:
    return "operand", i, stock.seen_from(y, some[n])


def _nth_operand(y: Node, x: Node, i: int, some: Sequence[Named], table: Array, n: int) -> Edit:
    return _operand(y, x, i, some[n], table[n])


def _operand(y: Node, x: Node, i: int, name: tuple[Any, ...], flat: Array) -> Edit:
    j, array = y.parents.index(x), flat.reshape(np.shape(y.args[i]))

    def change(g: Any, c: Any, total: Any) -> Any:
        args = [array if n == i else arg for n, arg in enumerate(y.args)]
        return y.vjp(g, args)[j]

    if name[0] == "T":
        return Edit("not_transposed", 2.0, change, {"operand": (y, i)})
    return Edit("operand", 3.5, change, {"operand": (y, i), "other": name})


def wrong_gradients(spot: Spot, stock: Stock) -> Iterator[Family]:
    """What flows back is made from the gradient of another value."""
    y, x = spot.site.result, spot.site.argument
    if y is None or spot.site.steps > 1 or not spot.g.ndim or y.parents.count(x) > 1:
        return
    some, table = stock.gradients(spot.g.shape)
    if not some:
        return
    shape, j = np.shape(x.value), y.parents.index(x)
    pushed = [y.jvp({x: tangent.reshape(shape)}) for tangent in spot.tangents]
    flat = np.stack([np.broadcast_to(p, spot.g.shape).ravel() for p in pushed])
    moved = table - spot.g.ravel()
    yield Family(
        moved @ flat.T,
        np.abs(moved) @ np.abs(flat).T,
        lambda n: Edit(
            "made_from",
            3.0,
            lambda g, c, total: y.vjp(stock.gradient(some[n], total))[j],
            {"other": some[n], "due": y},
        ),
        lambda n: ("gradient", stock.seen_from(y, some[n])),
    )


# -------------------- several that meet --------------------


def gathered(spot: Spot, stock: Stock) -> Iterator[Family]:
    """Gradients that meet in a value overwrite each other, in place of adding up."""
    site, x = spot.site, spot.site.argument
    if site.result is not None:
        return
    users = [u for u in x.users if np.shape(u.adjoint) == np.shape(u.value)]
    ways = [Site(u, x, (u,)) for u in users]
    tried: list[tuple[Any, float, Change, Mapping[str, Any]]] = []
    if len(ways) > 1:
        same = len({u.call.instruction for u in users}) == 1
        for n in range(len(ways)) if len(ways) <= 6 else (0, len(ways) - 1):
            if len(ways) > 2 or same:
                runs = [u for u in users if u.call.instruction == users[n].call.instruction]
                run = (runs.index(users[n]) + 1, len(runs)) if len(runs) > 1 else None
                fields = {"path": ways[n], "run": run, "rule": "sum" if same else "term"}
                tried.append(("only", 1.0, _only(spot, ways[n]), fields))
    if ways and all(u.name in PICKING for u in users):
        for order in (ways, ways[::-1]):
            tried.append(("overwritten", 0.5, _assigned(spot, order), {"of": x}))
    others = [np.asarray(change(spot.c, spot.c, _recorded)) for _, _, change, _ in tried]
    if others:
        effects, sizes = spot.effects(others)
        yield Family(effects, sizes, lambda n: Edit(*tried[n], of=""), lambda n: (tried[n][0], n))


def _recorded(node: Node) -> Any:
    return node.adjoint


def _only(spot: Spot, way: Site) -> Change:
    assert way.result is not None
    result = way.result
    return lambda g, c, total: spot.graph.part(way, total(result)) + 0 * c


def _assigned(spot: Spot, ways: Sequence[Site]) -> Change:
    def change(g: Any, c: Any, total: Callable[[Node], Any]) -> Any:
        out = np.zeros(np.shape(c))
        for way in ways:
            user = way.result
            assert user is not None
            index = user.args[1] if user.name == "__getitem__" else tuple(user.args[1:])
            out[index] = total(user)
        return out

    return change


# The likeliest first: where they explain something well, the others are not asked.
LIKELIEST = (multiples, closed_forms, own_functions, gathered)
OTHERS = (arrangements, operands, wrong_gradients)
