"""Windows and entries that a loop picks out of an array: picked, or put back, at another place."""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np

from ..reference.nodes import Node
from .edits import unbroadcast
from .operands import slopes
from .probes import Edit, Family, Spot, Stock
from .turns import Turns, index_of

INDEXED = ("__getitem__", "set_at")
Index = tuple[Any, ...]


def put_elsewhere(spot: Spot, stock: Stock) -> Iterator[Family]:
    """What flows back to what is picked is put at another place."""
    y, x = spot.site.result, spot.site.argument
    is_picked = y is not None and spot.site.steps == 1 and y.name == "__getitem__"
    others = places(stock.turns, y) if y is not None and is_picked else {}
    edits: dict[Hashable, Edit] = {
        ("put at", key): Edit("put_at", 2.2, partial(_put, x, at), _fields(key, x))
        for key, at in others.items()
    }
    yield from spot.family(edits, stock.bar)


def taken_elsewhere(spot: Spot, stock: Stock) -> Iterator[Family]:
    """What flows back to what is written into an array is taken from another place of it."""
    y, x = spot.site.result, spot.site.argument
    if y is None or spot.site.steps > 1 or y.name != "set_at" or y.args[1] is not x.value:
        return
    whole, others = _as_last_written(y), places(stock.turns, y)
    edits: dict[Hashable, Edit] = {}
    for key, at in others.items():
        fields = {**_fields(key, whole), "flow": True}
        edits["taken at", key] = Edit("picked_at", 2.1, partial(_taken, x, whole, at), fields)
    yield from spot.family(edits, stock.bar)


def _as_last_written(y: Node) -> Node:
    """Return an array once all of it has been written."""
    while True:
        later = [user for user in y.users if user.name == "set_at" and user.parents[0] is y]
        if len(later) != 1:
            return y
        y = later[0]


def _taken(x: Node, whole: Node, index: Index, g: Any, c: Any, total: Any) -> Any:
    return unbroadcast(np.asarray(total(whole))[index], np.shape(x.value))


def picked_elsewhere(spot: Spot, stock: Stock) -> Iterator[Family]:
    """An operation multiplies by what is picked at another place."""
    y, x = spot.site.result, spot.site.argument
    if y is None or spot.site.steps > 1 or spot.site.via is not None or y.parents.count(x) > 1:
        return
    mine = y.argnums[y.parents.index(x)]
    for i, picked in zip(y.argnums, y.parents, strict=True):
        is_other = i != mine and picked.name == "__getitem__"
        others = places(stock.turns, picked) if is_other else {}
        flat = slopes(spot, y, mine, i) if others else None
        if flat is None:
            continue
        keys = list(others)
        rows = [np.ravel(picked.args[0][others[key]]) for key in keys]
        table = np.stack(rows).astype(float)
        of = picked.parents[0]
        edits = [
            Edit("picked_at", 2.2, partial(_multiplied, y, x, i, picked, others[k]), _fields(k, of))
            for k in keys
        ]
        yield Family(
            table @ flat.T - spot.effect,
            np.abs(table) @ np.abs(flat).T + np.abs(spot.effect),
            lambda n, edits=edits: edits[n],  # type: ignore[misc]
            lambda n, keys=keys: ("picked at", keys[n]),  # type: ignore[misc]
        )


def _fields(key: Hashable, of: Node) -> dict[str, Any]:
    return {"how": key, "of": of}


def _put(x: Node, index: Index, g: Any, c: Any, total: object) -> Any:
    out = np.zeros(np.shape(x.value))
    out[index] += g
    return out


def _multiplied(y: Node, x: Node, i: int, picked: Node, at: Index, g: Any, c: Any, t: Any) -> Any:
    args = [picked.args[0][at] if n == i else arg for n, arg in enumerate(y.args)]
    return y.vjp(g, args)[y.parents.index(x)]


def places(turns: Turns, picked: Node) -> Mapping[Hashable, Index]:
    """Return the other places where a value may be picked, the same ones at each turn."""
    if picked not in turns.places:
        runs = turns.runs(picked)
        found = _places(runs) if 1 < len(runs) <= 200 and picked.name in INDEXED else []
        turns.places |= dict(zip(runs, found, strict=True)) if found else {run: {} for run in runs}
    return turns.places[picked]


def _places(runs: Sequence[Node]) -> list[dict[Hashable, Index]]:
    indices = [_whole(index_of(node), np.shape(node.args[0])) for node in runs]
    known = [index for index in indices if index is not None]
    if len(known) < len(runs) or len({len(index) for index in known}) > 1:
        return []
    starts = np.array([[_start(part) for part in index] for index in known])
    found: list[dict[Hashable, Index]] = [{} for _ in runs]
    tried = [starts]
    for key, other in _moved(starts):
        if any(np.array_equal(other, before) for before in tried):
            continue
        tried.append(other)
        moved = [
            tuple(_at(part, int(start)) for part, start in zip(index, row, strict=True))
            for index, row in zip(known, other, strict=True)
        ]
        if all(_fits(n, i) for n, i in zip(runs, moved, strict=True)):
            for alternatives, index in zip(found, moved, strict=True):
                alternatives[key] = index
    return found


def _moved(starts: Any) -> Iterator[tuple[Hashable, Any]]:
    """Yield where the windows of all turns may start in the place of where they do."""
    varying = np.flatnonzero(np.ptp(starts, axis=0))
    least = starts.min(axis=0)
    steps = np.gcd.reduce(starts - least, axis=0)
    apart = np.where(steps > 0, steps, 1)
    yield "no_stride", least + (starts - least) // apart
    for axis in varying:
        for which, end in (("first", 0), ("last", -1)):
            fixed = starts.copy()
            fixed[:, axis] = starts[end, axis]
            yield (which, int(axis)), fixed
        one = np.where(np.arange(starts.shape[1]) == axis, apart, 1)
        yield ("no_stride", int(axis)), least + (starts - least) // one
        for shift in (1, -1, 2, -2):
            moved = starts.copy()
            moved[:, axis] += shift
            yield ("shifted", shift, int(axis)), moved
            moved = moved.copy()
            moved[:, axis] = np.maximum(moved[:, axis], 0)
            yield ("shifted", shift, int(axis), 0), moved
    for shift in (1, -1, 2, -2):
        moved = starts.copy()
        moved[:, varying] += shift
        yield ("shifted", shift), moved
    for n, axis in enumerate(varying):
        for other in varying[n + 1 :]:
            order = np.arange(starts.shape[1])
            order[[axis, other]] = order[[other, axis]]
            yield ("exchanged", int(axis), int(other)), starts[:, order]


def _whole(index: Any, shape: Sequence[int]) -> Index | None:
    """Return an index of whole numbers and slices with its ends; None of any other."""
    parts = index if isinstance(index, tuple) else (index,)
    if len(parts) > len(shape) or not all(isinstance(p, int | np.integer | slice) for p in parts):
        return None
    ends = zip(parts, shape, strict=False)
    return tuple(slice(*p.indices(n)) if isinstance(p, slice) else int(p) for p, n in ends)


def _start(part: Any) -> int:
    return int(part.start if isinstance(part, slice) else part)


def _at(part: Any, start: int) -> Any:
    if isinstance(part, slice):
        return slice(start, start + part.stop - part.start, part.step)
    return start


def _fits(picked: Node, index: Index) -> bool:
    array = np.asarray(picked.args[0])
    inside = all(
        _start(part) >= 0 and (not isinstance(part, slice) or part.stop <= n)
        if isinstance(part, slice)
        else -n <= part < n
        for part, n in zip(index, array.shape, strict=False)
    )
    due = picked.value if picked.name == "__getitem__" else array[index_of(picked)]
    return inside and np.shape(array[index]) == np.shape(due)
