"""What is taken from another turn of a loop: an operand, a value, a gradient."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any

import numpy as np

from ...validation import Array
from ..reference.graph import Change, Graph, Site
from ..reference.nodes import Node
from .edits import FUNCTIONS
from .operands import slopes
from .probes import Edit, Family, Spot, Stock
from .turns import WHICH, Held, value_of

# -------------------- an array of another turn --------------------


def operands_of_turns(spot: Spot, stock: Stock) -> Iterator[Family]:
    """An operation multiplies by an array that belongs to another turn, or another operation."""
    y, x = spot.site.result, spot.site.argument
    if y is None or spot.site.steps > 1 or spot.site.via is not None or y.parents.count(x) > 1:
        return
    mine = y.argnums[y.parents.index(x)]
    for i, arg in enumerate(y.args):
        is_array = isinstance(arg, np.ndarray) and arg.ndim and arg.dtype.kind in "fb"
        if i == mine or not is_array or y.name in ("add", "subtract"):
            continue
        flat, held = slopes(spot, y, mine, i), stock.turns.at_turns(y, arg.shape)
        if flat is None or not held:
            continue
        keys, some = list(held), list(held.values())
        table = np.stack([np.ravel(value_of(at)) for at, _ in some]).astype(float)
        plain = y.name == "multiply" and arg.shape == spot.g.shape == spot.c.shape
        yield Family(
            table @ flat.T - spot.effect,
            np.abs(table) @ np.abs(flat).T + np.abs(spot.effect),
            partial(_nth_operand, y, x, i, some),
            partial(_nth_key, "operand of turn", i, keys),
            table if plain else None,
            [id(value_of(at)) for at, _ in some],
        )


def _nth_key(kind: str, of: object, keys: Sequence[Any], n: int) -> tuple[Any, ...]:
    return kind, of, keys[n]


def _nth_operand(y: Node, x: Node, i: int, some: Sequence[tuple[Held, str]], n: int) -> Edit:
    at, which = some[n]
    j = y.parents.index(x)

    def change(g: object, c: object, total: object) -> object:
        args = [value_of(at) if k == i else arg for k, arg in enumerate(y.args)]
        return y.vjp(g, args)[j]

    fields = {"operand": (y, i), "other": ("held", at), "turn": which}
    return Edit("operand", 3.0 + _UNLIKELY[which], change, fields)


_UNLIKELY = {
    "same": 0.0,
    "made before": 0.0,
    "before": 0.1,
    "after": 0.1,
    "first": 0.2,
    "last": 0.2,
}


# -------------------- a derivative at a value of another turn --------------------


def derivatives_of_turns(spot: Spot, stock: Stock) -> Iterator[Family]:
    """The derivative is right, but of another value: that of another turn, say."""
    y, weights = spot.site.result, spot.weights
    if y is None or weights is None or not spot.g.ndim or spot.g.shape != spot.c.shape:
        return
    held = stock.turns.at_turns(y, spot.g.shape)
    flat = weights.reshape(len(weights), -1)
    tried: list[tuple[Any, tuple[Held, str], int]] = [
        (key, at, i) for i in own_functions_of(spot, stock) for key, at in held.items()
    ]
    made: dict[tuple[int, int], Array] = {}
    for _, (at, _), i in tried:
        value = value_of(at)
        if (id(value), i) not in made:
            made[id(value), i] = np.ravel(FUNCTIONS[i][1](np.asarray(value, dtype=float)))
    rows = [made[id(value_of(at)), i] for _, (at, _), i in tried]
    fine = [n for n, row in enumerate(rows) if np.isfinite(row).all()]
    if not fine:
        return
    tried, table = [tried[n] for n in fine], np.stack([rows[n] for n in fine]).astype(float)
    yield Family(
        table @ flat.T - spot.effect,
        np.abs(table) @ np.abs(flat).T + np.abs(spot.effect),
        lambda n: _derivative(*tried[n][1:]),
        lambda n: ("derivative of turn", tried[n][2], tried[n][0]),
        table,
        [(id(value_of(at)), i) for _, (at, _), i in tried],
    )


def own_functions_of(spot: Spot, stock: Stock) -> list[int]:
    """Return which simple functions of the result or the argument the true derivative is."""
    true = np.ravel(np.asarray(spot.graph.part(spot.site, np.ones(spot.g.shape)), dtype=float))
    found: set[int] = set()
    for node in (spot.site.result, spot.site.argument):
        assert node is not None
        table = stock.functions(node)
        if table.shape[1] == spot.g.size:
            off = np.max(np.abs(table - true), axis=1)
            found |= {int(i) for i in np.flatnonzero(off <= 1e-9 * np.max(np.abs(true)))}
    return sorted(found - {0})


def _derivative(of: tuple[Held, str], i: int) -> Edit:
    at, which = of

    def change(g: Any, c: Any, total: object) -> object:
        return g * FUNCTIONS[i][1](np.asarray(value_of(at), dtype=float))

    fields = {"function": FUNCTIONS[i][0], "v": ("held", at), "minus": False, "turn": which}
    return Edit("taken_as", 2.0 + 0.02 * i + _UNLIKELY[which], change, fields, "derivative")


OF_TURNS = (operands_of_turns, derivatives_of_turns)

# -------------------- a gradient of another turn --------------------


def displaced(graph: Graph, sites: Sequence[Site]) -> Iterator[list[tuple[Site, Edit]]]:
    """Yield what flows at each of some sites as that of the site of another turn."""
    shapes = {np.shape(site.argument.value) for site in sites}
    count = len(sites)
    if len(shapes) > 1 or count < 2:
        return
    for which, at in WHICH.items():
        if which != "same":
            yield [(s, _moved(graph, sites[at(t, count)], which)) for t, s in enumerate(sites)]
    for which, step in (("before", -1), ("after", 1)):
        yield [
            (s, _moved(graph, sites[t + step] if 0 <= t + step < count else None, which))
            for t, s in enumerate(sites)
        ]


def _moved(graph: Graph, other: Site | None, which: str) -> Edit:
    change: Change = _nothing if other is None else partial(_of_site, graph, other)
    fields = {"turn": which.split()[0]}
    return Edit("from_turn", 3.15 + 0.3 * (" " in which), change, fields)


def _nothing(g: Any, c: Any, total: object) -> object:
    return 0 * c


def _of_site(graph: Graph, other: Site, g: object, c: object, total: Callable[..., Any]) -> object:
    return graph.part(other, total(other.result or other.argument))
