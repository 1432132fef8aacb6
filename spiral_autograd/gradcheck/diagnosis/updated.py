"""A parameter that its own gradient has already changed, where the one before is due."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import numpy as np

from ...validation import Array
from ..reference.graph import Change, Graph, Site
from ..reference.nodes import UNFIT, Node
from .probes import Edit, Spot


def updated(spot: Spot) -> Iterator[tuple[Edit, Array]]:
    """An operation multiplies by a parameter that its own gradient has already changed.

    The effect of an operand is linear in it, where it is a factor: one gradient with respect to
    the operand tells that of all others. Each change is yielded with the gradients that it may
    explain.
    """
    y, x, probes = spot.site.result, spot.site.argument, spot.probes
    if y is None or spot.site.steps > 1 or spot.site.via is not None or y.parents.count(x) > 1:
        return
    mine = y.argnums[y.parents.index(x)]
    for i, z in zip(y.argnums, y.parents, strict=True):
        flat = _slopes(spot, y, mine, i) if i != mine and not z.parents else None
        if flat is None:
            continue
        for way in (None, *(Site(user, z, (user,)) for user in z.users if len(z.users) in (2, 3))):
            gradient = partial(_gradient, spot.graph, z, way)
            effect = flat @ gradient().ravel()
            rates = [-share for share in probes.share(effect) if np.isfinite(share)]
            for rate in dict.fromkeys(float(f"{rate:.6g}") for rate in rates if rate > 0):
                rows = probes.passing(-rate * effect[None], np.abs(effect)[None])
                if rows.any():
                    fields = {"operand": (y, i), "rate": rate}
                    change = _multiplied(y, x, i, z, rate, gradient)
                    yield Edit("updated", 1.0, change, fields), rows[0]


def _multiplied(
    y: Node, x: Node, i: int, z: Node, rate: float, gradient: Callable[[], Array]
) -> Change:
    """Return the change by which the i-th argument is what an update makes of it."""

    def change(g: object, c: object, total: object) -> Any:
        args = [z.value - rate * gradient() if n == i else arg for n, arg in enumerate(y.args)]
        return y.vjp(g, args)[y.parents.index(x)]

    return change


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


def _gradient(graph: Graph, z: Node, way: Site | None) -> Array:
    """Return the gradient of a parameter, or what of it comes by one way: without its decay."""
    if way is None or way.result is None:
        return np.asarray(z.adjoint)
    return np.asarray(graph.part(way, way.result.adjoint))
