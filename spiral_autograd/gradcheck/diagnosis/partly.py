"""A gradient that is wrong in part only: which part, and what marks it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from ...recording import Call, name_of
from ...validation import Array
from ..blocks import largest
from ..reference.backward_graph import is_number
from .case import Case, Finding


def partly_wrong(case: Case, k: int) -> Finding | None:
    """Wrong in part only, and which part: where it has a mark, that."""
    if not case.comparable(k):
        return None
    g, h = case.automatic[k], np.asarray(case.handwritten[k], dtype=float)
    noise = 10 * case.noise(k)
    wrong = np.abs(h - g) > noise
    # Where both are zero, nothing could be wrong.
    live = (np.abs(g) > noise) | (np.abs(h) > noise)
    right = live & ~wrong
    if h.size < 3 or not wrong.any() or not right.any():
        return None
    share = f"is wrong in part only: {int(wrong.sum())} of {wrong.size} entries are wrong"
    for text, mask in _marks(case, k, wrong):
        is_like = mask.shape == wrong.shape and np.array_equal(mask & live, wrong)
        if is_like and _holds_elsewhere(case, k, mask):
            return Finding("part", f"{share}, {text}", [k])
    if int(right.sum()) >= max(3, int(wrong.sum()) // 2):
        return Finding("part", f"{share}, at {_listed(wrong)}", [k])
    return None


def _holds_elsewhere(case: Case, k: int, mask: Array) -> bool:
    """Tell whether the same entries are wrong for other upstream gradients too."""
    for graph, h in case.for_other_upstreams(k):
        g = graph.gradient(k, {})
        noise = 10 * case.tolerance * max(largest(g), largest(h)) + 10 * case.floors[k]
        wrong = np.abs(h - g) > noise
        live = (np.abs(g) > noise) | (np.abs(h) > noise)
        if not np.array_equal(mask & live, wrong):
            return False
    return True


def _listed(wrong: Array) -> str:
    places = [tuple(int(i) for i in place) for place in np.argwhere(wrong)[:4]]
    shown = ", ".join(str(place[0] if len(place) == 1 else place) for place in places)
    return shown + (", ..." if int(wrong.sum()) > 4 else "")


def _marks(case: Case, k: int, wrong: Array) -> Iterator[tuple[str, Array]]:
    yield from _slices(wrong)
    yield from _at_indices(case, wrong)
    for name, v in case.same_shape(k):
        for sign, mask in (
            ("> 0", v > 0),
            ("< 0", v < 0),
            (">= 0", v >= 0),
            ("<= 0", v <= 0),
            ("== 0", v == 0),
            ("is not 0", v != 0),
        ):
            yield f"just where {name} {sign}", mask
    yield from _at_edges(case, wrong)


_EDGES: dict[str, tuple[str, Callable[..., Any]]] = {
    **dict.fromkeys(("max", "amax"), ("largest", np.max)),
    **dict.fromkeys(("min", "amin"), ("smallest", np.min)),
}


def _at_edges(case: Case, wrong: Array) -> Iterator[tuple[str, Array]]:
    """Yield where the forward pass takes a largest or smallest value, or reaches a bound."""
    for call in case.graph.forward if case.graph is not None else ():
        kind, args = name_of(call.fun), [getattr(arg, "value", arg) for arg in call.args]
        if kind in _EDGES and np.shape(args[0]) == wrong.shape:
            word, best = _EDGES[kind]
            axis = call.kwargs.get("axis", args[1] if len(args) > 1 else None)
            name = case.name_of(call.args[0])
            yield f"where {name} is {word}", args[0] == best(args[0], axis=axis, keepdims=True)
        elif kind in ("maximum", "minimum", "clip", "fmax", "fmin"):
            for v, bound in ((call.args[0], b) for b in call.args[1:3]):
                yield from _beyond(case, v, bound)
                yield from _beyond(case, bound, v)


def _beyond(case: Case, v: Any, bound: Any) -> Iterator[tuple[str, Array]]:
    if isinstance(v, Call) and is_number(bound):
        name = case.name_of(v)
        yield f"just where {name} > {float(bound):g}", np.asarray(v.value) > bound
        yield f"just where {name} < {float(bound):g}", np.asarray(v.value) < bound


_SLICES = {(1, 0): "entry", (2, 0): "row", (2, 1): "column"}


def _slices(wrong: Array) -> Iterator[tuple[str, Array]]:
    """Yield the rows, columns or other slices that hold all the wrong entries."""
    for axis, n in enumerate(wrong.shape):
        others = tuple(i for i in range(wrong.ndim) if i != axis)
        hit = np.flatnonzero(wrong.any(axis=others))
        if len(hit) == n:
            continue
        mask = np.zeros_like(wrong)
        mask[(slice(None),) * axis + (hit,)] = True
        word = _SLICES.get((wrong.ndim, axis), f"index of axis {axis}")
        ends = {0: " (the first)", n - 1: " (the last)"}
        which = ends.get(int(hit[0]), "") if len(hit) == 1 else ""
        some = ", ".join(map(str, hit[:6])) + (", ..." if len(hit) > 6 else "")
        yield f"all in {word} {some}{which}", mask


def _at_indices(case: Case, wrong: Array) -> Iterator[tuple[str, Array]]:
    """Yield the entries that the forward pass picks out by an array of indices: the labels."""
    for call in case.graph.forward if case.graph is not None else ():
        if name_of(call.fun) not in ("__getitem__", "take"):
            continue
        index = call.args[1] if name_of(call.fun) == "__getitem__" else call.args[1:]
        parts = index if isinstance(index, tuple) else (index,)
        picks = [p for p in parts if isinstance(p, list | np.ndarray | Call)]
        if np.shape(call.args[0].value) != wrong.shape or not any(map(_is_many, picks)):
            continue
        mask = np.zeros_like(wrong)
        mask[tuple(getattr(p, "value", p) for p in parts)] = True
        yield "just at the indices that the forward pass picks (the labels)", mask


def _is_many(picks: Any) -> bool:
    return np.ndim(getattr(picks, "value", picks)) > 0
