"""Changes of what an operation multiplies by: another operand, another gradient."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator, Sequence
from functools import partial

import numpy as np

from ...validation import Array
from ..reference.graph import Graph, Site
from ..reference.nodes import UNFIT, Node
from .probes import Edit, Family, Named, Spot, Stock


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
        is_array = isinstance(arg, np.ndarray) and arg.ndim and arg.dtype.kind in "fb"
        if i == mine or not is_array or y.name in ("add", "subtract"):
            continue
        flat = slopes(spot, y, mine, i)
        if flat is None:
            continue
        some, table = stock.like(y.name, arg)
        if not some:
            continue
        yield Family(
            table @ flat.T - spot.effect,
            np.abs(table) @ np.abs(flat).T + np.abs(spot.effect),
            partial(_nth_operand, stock, y, x, i, some),
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
        flat = slopes(spot, y, mine, i) if i != mine and not z.parents else None
        if flat is None:
            continue
        for way in (None, *(Site(user, z, (user,)) for user in z.users if len(z.users) in (2, 3))):
            gradient = partial(_gradient, spot.graph, z, way)
            effect = flat @ gradient().ravel()
            rates = [-share for share in probes.share(effect) if np.isfinite(share)]
            for rate in dict.fromkeys(float(f"{rate:.6g}") for rate in rates if rate > 0):
                rows = probes.passing(-rate * effect[None], np.abs(effect)[None])
                if rows.any():
                    edit = _operand(y, x, i, (None,), partial(_updated, z, rate, gradient))
                    fields = {"operand": (y, i), "rate": rate}
                    yield Edit("updated", 2.5, edit.change, fields), rows[0]


def slopes(spot: Spot, y: Node, mine: int, i: int) -> Array | None:
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


def _gradient(graph: Graph, z: Node, way: Site | None) -> Array:
    """Return the gradient of a parameter, or what of it comes by one way: without its decay."""
    if way is None or way.result is None:
        return np.asarray(z.adjoint)
    return np.asarray(graph.part(way, way.result.adjoint))


def _updated(z: Node, rate: float, gradient: Callable[[], Array]) -> Array:
    return np.asarray(z.value - rate * gradient())


def _nth_operand(stock: Stock, y: Node, x: Node, i: int, some: Sequence[Named], n: int) -> Edit:
    return _operand(y, x, i, some[n], lambda: stock.array(some[n], y.args[i]))


def _operand(
    y: Node, x: Node, i: int, name: tuple[object, ...], array: Callable[[], object]
) -> Edit:
    j = y.parents.index(x)

    def change(g: object, c: object, total: object) -> object:
        args = [array() if n == i else arg for n, arg in enumerate(y.args)]
        return y.vjp(g, args)[j]

    if name[0] == "T":
        return Edit("not_transposed", 2.0, change, {"operand": (y, i)})
    if name[0] == "flip":
        return Edit("flipped", 2.2, change, {"operand": (y, i), "axes": name[1]})
    return Edit("operand", 3.5, change, {"operand": (y, i), "other": name})


def wrong_gradients(spot: Spot, stock: Stock) -> Iterator[Family]:
    """What flows back is made from the gradient of another value."""
    y, x = spot.site.result, spot.site.argument
    if y is None or spot.site.steps > 1 or not spot.g.ndim or y.parents.count(x) > 1:
        return
    some, table = stock.gradients(spot.g.shape)
    known = [n for n, name in enumerate(some) if name != ("gradient", x)]  # before it is made
    if not known:
        return
    some, table = [some[n] for n in known], table[known]
    shape, j = np.shape(x.value), y.parents.index(x)
    pushed = [y.jvp({x: tangent.reshape(shape)}) for tangent in spot.tangents]
    flat = np.stack([np.broadcast_to(p, spot.g.shape).ravel() for p in pushed])
    moved = table - spot.g.ravel()
    yield Family(
        moved @ flat.T,
        np.abs(moved) @ np.abs(flat).T,
        lambda n: Edit(
            "made_from",
            3.3 if some[n][0] == "value" else 3.0,
            lambda g, c, total: y.vjp(stock.gradient(some[n], total))[j],
            {"other": some[n], "due": y},
        ),
        lambda n: ("gradient", stock.seen_from(y, some[n])),
    )
