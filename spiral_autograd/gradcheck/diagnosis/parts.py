"""A gradient that is wrong in part only: which part, and what marks it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial

import numpy as np

from ...validation import Array
from ..blocks import largest
from ..finding import Finding, found
from ..reference.graph import is_number
from ..reference.nodes import Node
from .case import Case, Reason
from .patterns import one
from .second_point import says_the_same


def partly(case: Case, k: int) -> Reason | None:
    """Wrong in part only, and which part, at a second point too: where it has a mark, that."""
    second = case.second()
    cases = [case] if second is None else [case, second]
    if not all(some.comparable(k) for some in cases):
        return None
    points = [_differing(some, k) for some in cases]
    wrong, live = points[0]
    right, hit = live & ~wrong, np.any([w for w, _ in points], axis=0)
    if wrong.size < 3 or not all(w.any() and np.any(v & ~w) for w, v in points):
        return None

    def fits(mask: Array, n: int) -> bool:
        return mask.shape == wrong.shape and np.array_equal(mask & points[n][1], points[n][0])

    def marked() -> Iterator[Finding]:
        for mark, mask in _slices(hit):
            if all(fits(mask, n) for n in range(len(points))):
                yield mark()
        labels = [
            [m for node in _nodes(some) for _, m in _at_indices(node, wrong)] for some in cases
        ]
        if all(any(_is_among(m, *p) for m in some) for some, p in zip(labels, points, strict=True)):
            yield found("labels")
        there = [m() for m, mask in _marks(cases[-1], k, wrong) if fits(mask, len(points) - 1)]
        for mark, mask in _marks(case, k, wrong) if there else ():
            if fits(mask, 0) and any(says_the_same(mark(), other, 0.0) for other in there):
                yield mark()
        enough = int(right.sum()) >= max(3, int(wrong.sum()) // 2)
        if enough and all(fits(hit, n) for n in range(len(points))):
            places = [one(tuple(int(i) for i in place)) for place in np.argwhere(hit)[:4]]
            yield found("at", places=places, more=int(hit.sum()) > 4)

    mark = next(marked(), None)
    fields = {"wrong": int(wrong.sum()), "of": wrong.size}
    return None if mark is None else Reason(found("part", mark=mark, **fields), [k])


def term_in_part(case: Case, k: int) -> Reason | None:
    """A term in some rows or columns only: the decay of a bias that has none, say, or too few."""
    if not case.comparable(k):
        return None
    wrong, _ = _differing(case, k)
    for mark, mask in _slices(wrong):
        own, rest = np.asarray(case.values[k])[mask], (case.written(k) - case.automatic[k])[mask]
        if not np.array_equal(mask, wrong) or (rest.size < 2 and case.second() is None):
            continue
        c = float(np.sum(own * rest) / max(np.sum(own * own), 1e-300))
        if np.max(np.abs(rest - c * own)) <= 10 * case.noise(k) < abs(c) * largest(own):
            fields = {"of": case.names[k], "times": abs(c), "lacks": c < 0, "mark": mark()}
            return Reason(found("term_in_part", **fields), [k])
        if rest.size > 1 and np.ptp(rest) <= 10 * case.noise(k):
            constant = float(rest.flat[0])
            return Reason(found("constant_in_part", constant=constant, mark=mark()), [k])
    return None


def _differing(case: Case, k: int) -> tuple[Array, Array]:
    """Return which entries differ, and which are not zero in both."""
    g, h = case.automatic[k], case.written(k)
    noise = 10 * (case.tolerance * max(largest(g), largest(h)) + case.floors[k])
    return np.abs(h - g) > noise, (np.abs(g) > noise) | (np.abs(h) > noise)


SIGNS = {
    ">": np.greater,
    "<": np.less,
    ">=": np.greater_equal,
    "<=": np.less_equal,
    "==": np.equal,
}
Mark = tuple[Callable[[], Finding], Array]


def _nodes(case: Case) -> list[Node]:
    return case.graph.nodes if case.graph is not None else []


def _is_among(mask: Array, wrong: Array, live: Array) -> bool:
    """Tell whether all that is wrong is among some entries, most of which are, unlike others."""
    most = 2 * int(wrong.sum()) > int((mask & live).sum())
    return most and not np.any(wrong & ~mask) and bool(np.any(live & ~mask))


def _marks(case: Case, k: int, wrong: Array) -> Iterator[Mark]:
    nodes = _nodes(case)
    yield from (mark for node in nodes for mark in _at_indices(node, wrong))
    for name, v in case.same_shape(k):
        for sign, holds in SIGNS.items():
            yield partial(_where, name, sign, 0.0), holds(v, 0)
    yield from (mark for node in nodes for mark in _at_edges(case, node, wrong))


def _where(name: Callable[[], Finding], sign: str, bound: float) -> Finding:
    return found("where", of=name(), sign=sign, bound=bound)


def _slices(wrong: Array) -> Iterator[Mark]:
    """Yield the rows, columns or other slices that hold all the wrong entries."""
    for axis, n in enumerate(wrong.shape):
        hit = np.flatnonzero(wrong.any(axis=tuple(i for i in range(wrong.ndim) if i != axis)))
        if 0 < len(hit) < n:
            mask = np.zeros_like(wrong)
            mask[(slice(None),) * axis + (hit,)] = True
            fields = {"axis": axis, "ndim": wrong.ndim, "hit": list(map(int, hit)), "length": n}
            yield partial(found, "slices", **fields), mask


def _at_indices(node: Node, wrong: Array) -> Iterator[Mark]:
    """Yield the entries that the forward pass picks out by an array of indices: the labels."""
    if node.name not in ("__getitem__", "take") or np.shape(node.args[0]) != wrong.shape:
        return
    index = node.args[1] if node.name == "__getitem__" else tuple(node.args[1:])
    parts = index if isinstance(index, tuple) else (index,)
    parts = tuple(getattr(p, "value", p) for p in parts)
    if any(isinstance(p, list | np.ndarray) and np.ndim(p) for p in parts):
        mask = np.zeros_like(wrong)
        mask[parts] = True
        yield partial(found, "labels"), mask


def _at_edges(case: Case, node: Node, wrong: Array) -> Iterator[Mark]:
    """Yield where the forward pass takes a largest or smallest value, or reaches a bound."""
    best = {"max": np.max, "amax": np.max, "min": np.min, "amin": np.min}.get(node.name)
    if best is not None and np.shape(node.args[0]) == wrong.shape:
        axis = node.call.kwargs.get("axis", node.args[1] if len(node.args) > 1 else None)
        is_max = best is np.max
        value = node.args[0]
        yield (
            (lambda: found("extreme", of=case.operand(node, 0), largest=is_max)),
            value == best(value, axis=axis, keepdims=True),
        )
    if node.name not in ("maximum", "minimum", "clip", "fmax", "fmin"):
        return
    for i, j in ((0, 1), (1, 0), *(((0, 2),) if len(node.args) > 2 else ())):
        v, bound = node.args[i], node.args[j]
        if is_number(bound) and np.ndim(v):
            for sign in (">", "<"):
                yield (
                    partial(_where, partial(case.operand, node, i), sign, float(bound)),
                    SIGNS[sign](v, bound),
                )
