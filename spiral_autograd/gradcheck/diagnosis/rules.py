"""Mistakes that show in one gradient by itself: in its numbers against the true ones."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import combinations, permutations
from typing import Any

import numpy as np

from ...recording import Call, name_of
from ...validation import Array, Shape
from ..blocks import close, largest
from .case import Case, Finding
from .factors import ratio

# -------------------- never written --------------------


def never_written(case: Case, k: int) -> Finding | None:
    """All zeros, or nothing at all, where the gradient is not."""
    h = case.handwritten[k]
    if h is None:
        return Finding("unwritten", "no gradient is returned, or written (None)", [k])
    zeros = largest(h) == 0
    known = case.explains(k, case.automatic[k]) or ratio(case, k) is not None
    place = None if known else case.elsewhere().get(k)
    if place is not None:
        text = place.text.format("is all zeros" if zeros else "is what it was before")
        return Finding("unwritten", text, [k], lines=place.lines)
    if zeros and largest(case.automatic[k]) > case.floors[k]:
        return Finding("unwritten", "the gradient is never written: it is all zeros", [k])
    return None


# -------------------- layout --------------------


def layout(case: Case, k: int) -> Finding | None:
    """Transposed, reshaped in the wrong order, or another argument's gradient."""
    g, h = case.automatic[k], np.asarray(case.handwritten[k])
    if g.ndim >= 2 and g.size > 1:
        if g.T.shape == h.shape and case.explains(k, g.T):
            return Finding("layout", "is the transpose of the true one", [k])
        for axes in _orders(g.ndim):
            if np.transpose(g, axes).shape == h.shape and case.explains(k, np.transpose(g, axes)):
                return Finding("layout", f"has its axes in the order {axes}", [k])
    j = _owner(case, k)
    if j is not None and j in case.wrong:
        return Finding("layout", f"is that of {case.names[j]}: arguments swapped", [k])
    if h.size == g.size > 1:
        for label, candidate in _reorderings(g, h.shape):
            if case.explains(k, candidate):
                return Finding("layout", label, [k])
    return None


def given_twice(case: Case, k: int) -> Finding | None:
    """Another argument's gradient, which that one has too."""
    j = _owner(case, k)
    return None if j is None else Finding("layout", f"is that of {case.names[j]}", [k])


def _owner(case: Case, k: int) -> int | None:
    """Return the other argument whose true gradient the k-th one is."""
    h = np.asarray(case.handwritten[k])
    for j, other in enumerate(case.automatic):
        same = j != k and other.shape == h.shape and largest(other) > case.floors[j]
        if same and case.explains(k, other):
            return j
    return None


def _orders(ndim: int) -> list[tuple[int, ...]]:
    return [p for p in permutations(range(ndim)) if p != tuple(range(ndim))] if ndim <= 5 else []


def unmoved(array: Array, order: tuple[int, ...]) -> Array:
    """Return an array taken for one with its axes in another order, and moved back from it."""
    if len(order) != array.ndim:
        return array
    return array.reshape([array.shape[i] for i in order]).transpose(np.argsort(order))


def _reorderings(g: Array, shape: Shape) -> Iterator[tuple[str, Array]]:
    # A different shape alone is a lost axis, not another order: only orders that differ are asked.
    flat = np.reshape(g, shape)
    for axes in _orders(g.ndim):
        for candidate in (np.transpose(g, axes).reshape(shape), unmoved(flat, axes)):
            if not np.array_equal(candidate, flat):
                yield "is reshaped in the wrong order", candidate
    for candidate in (g.reshape(shape, order="F"), np.reshape(g.ravel(order="F"), shape)):
        if not np.array_equal(candidate, flat):
            yield "is reshaped in the wrong order", candidate
    if g.shape == shape:
        for axis, n in enumerate(shape):
            if n > 1:
                yield f"is reversed along axis {axis}", np.flip(g, axis)
                for shift in (1, -1):
                    yield f"is shifted by {shift} along axis {axis}", np.roll(g, shift, axis)
                yield from _blocks_exchanged(g, axis)


def _blocks_exchanged(g: Array, axis: int) -> Iterator[tuple[str, Array]]:
    """Yield an array with its halves, thirds or quarters in another order, as gates may be."""
    for count in (2, 3, 4):
        if g.shape[axis] % count == 0:
            blocks = np.split(g, count, axis)
            for order in list(permutations(range(count)))[1:]:
                text = f"has its {count} blocks along axis {axis} in the order {order}"
                yield text, np.concatenate([blocks[i] for i in order], axis)


# -------------------- sums --------------------


def summed_axes(case: Case, k: int) -> Finding | None:
    """Not summed, summed over the wrong axis, averaged, a lost or an extra axis."""
    text = _unsummed(case, k) or _lost_axis(case, k) or _oversummed(case, k)
    return Finding("sum", text, [k]) if text else _other_reduction(case, k)


def _unsummed(case: Case, k: int) -> str | None:
    g, h = case.automatic[k], np.asarray(case.handwritten[k])
    if h.shape == g.shape:
        return None
    for axes in _axis_sets(h.ndim):
        for keep in (False, True):
            summed = np.sum(h, axis=axes, keepdims=keep)
            if summed.shape == g.shape and close(summed, g, case.tolerance, case.floors[k]):
                if all(h.shape[axis] == 1 for axis in axes):
                    return f"has an extra axis: {h.shape} in place of {g.shape}"
                whole = any(np.ndim(u) == h.ndim for u in case.upstream)  # nothing is summed yet
                over = "the batch" if axes == (0,) and whole else f"axis {_one(axes)}"
                return f"is not summed over {over}: {h.shape} in place of {g.shape}"
    return None


def _lost_axis(case: Case, k: int) -> str | None:
    g, h = case.automatic[k], np.asarray(case.handwritten[k])
    if h.size != g.size or h.shape == g.shape:
        return None
    if not close(h.reshape(g.shape), g, case.tolerance, case.floors[k]):
        return None
    return f"has the shape {h.shape} in place of {g.shape}: an axis is lost, or one too many"


def _oversummed(case: Case, k: int) -> str | None:
    g, h = case.automatic[k], np.asarray(case.handwritten[k])
    if g.size < 2:
        return None
    for axes in _axis_sets(g.ndim):
        for word, reduce in (("summed", np.sum), ("averaged", np.mean)):
            kept = np.asarray(reduce(g, axis=axes, keepdims=True))
            for candidate in (kept, np.squeeze(kept, axes), np.broadcast_to(kept, g.shape)):
                if candidate.shape == h.shape and case.explains(k, candidate):
                    return f"is {word} over axis {_one(axes)}, which it should keep"
    return None


def _axis_sets(ndim: int) -> list[tuple[int, ...]]:
    return [c for n in range(1, ndim + 1) for c in combinations(range(ndim), n)] if ndim < 6 else []


def _other_reduction(case: Case, k: int) -> Finding | None:
    """Another sum or mean of what the gradient is the sum of."""
    h = np.asarray(case.handwritten[k])
    for source in _summed_calls(case, k):
        assert case.graph is not None
        array = case.graph.array(source)
        for axes in _axis_sets(array.ndim):
            for word, reduce in (
                ("summed", np.sum),
                ("averaged", np.mean),
                ("the largest", np.max),
                ("the last", lambda a, axis: np.take(a, -1, axis[0]) if len(axis) == 1 else a),
                ("the first", lambda a, axis: np.take(a, 0, axis[0]) if len(axis) == 1 else a),
            ):
                candidate = np.asarray(reduce(array, axis=axes))
                if candidate.size == h.size and case.explains(k, candidate.reshape(h.shape)):
                    right = _axis_of(case, k)
                    summed = np.sum(array, axis=axes)
                    only = summed.size == case.automatic[k].size and close(
                        summed.ravel(), case.automatic[k].ravel(), 1e-9
                    )
                    where = "" if only else f" over {right}"
                    text = f"is {word} over axis {_one(axes)} in place of summed{where}"
                    shapes = "" if h.shape == case.automatic[k].shape else _shapes(case, k)
                    return Finding("sum", text + shapes, [k], source)
    return None


def _summed_calls(case: Case, k: int) -> list[Call]:
    """Return the backward values that the k-th gradient is a mere sum of, the nearest first."""
    if case.graph is None:
        return []
    chain: list[Any] = [case.graph.recording.grads[k]]
    while isinstance(chain[-1], Call) and name_of(chain[-1].fun) in ("sum", "reshape"):
        chain.append(chain[-1].args[0])
    return [call for call in chain[1:] if isinstance(call, Call)]


def _axis_of(case: Case, k: int) -> str:
    grad = case.graph.recording.grads[k] if case.graph is not None else None
    axis = grad.kwargs.get("axis") if isinstance(grad, Call) else None
    return "the right axes" if axis is None else f"axis {axis}"


def _shapes(case: Case, k: int) -> str:
    return f": {np.shape(case.handwritten[k])} in place of {case.automatic[k].shape}"


def _one(axes: tuple[int, ...]) -> Any:
    return axes[0] if len(axes) == 1 else axes


# -------------------- the upstream gradient --------------------


def upstream_misused(case: Case, k: int) -> Finding | None:
    """The upstream gradient ignored, used twice, or backward not linear in it."""
    again = case.again
    if again is None or not any(largest(u) for u in case.upstream):
        return None
    h = np.asarray(case.handwritten[k], dtype=float)
    if largest(case.automatic[k]) <= case.floors[k]:
        return None
    if sum(np.size(u) for u in case.upstream) > 1 and ratio(case, k) is not None:
        return None  # no misuse of many numbers gives a multiple of the true gradient

    def given(kind: str) -> Array:
        array = again(kind)[k]
        found = np.full(h.shape, np.nan) if array is None else np.asarray(array, dtype=float)
        return found if found.shape == h.shape else np.full(h.shape, np.nan)

    def same(a: Array, b: Array) -> bool:
        return close(a, b, case.tolerance, case.floors[k])

    if close(h, given("other"), 1e-12) and close(h, given("turned"), 1e-12):
        return Finding("upstream", "does not depend on the upstream gradient: it is ignored", [k])
    if largest(h) <= 1e-3 * case.tolerance * largest(case.automatic[k]):
        text = "the gradient is never written: it is zero up to rounding"
        return Finding("unwritten", text, [k])
    nothing = given("none")
    if not np.isfinite(nothing).all():
        return None
    twice, turned = given("twice") - nothing, given("turned") - nothing
    linear = h - nothing  # where it is affine, a term is added: not the upstream gradient's matter
    if same(twice, 4 * linear):
        return Finding("upstream", "uses the upstream gradient twice (it grows as its square)", [k])
    mixed = linear + 0.5 * (given("other") - nothing)
    if same(twice, 2 * linear) and same(turned, -linear) and same(given("mixed") - nothing, mixed):
        return None
    return Finding("upstream", "is not linear in the upstream gradient", [k])


# -------------------- terms --------------------


def plain_term(case: Case, k: int) -> Finding | None:
    """h - g is a forward value, or the parameter with a coefficient as people write them."""
    return next((term for c, own, term in _terms(case, k) if _is_plain(c, own)), None)


def any_term(case: Case, k: int) -> Finding | None:
    """h - g is proportional to a parameter or to a forward value, or a constant."""
    found = next((term for *_, term in _terms(case, k)), None)
    if found is not None or not case.comparable(k):
        return found
    rest = np.asarray(case.handwritten[k], dtype=float) - case.automatic[k]
    if rest.size > 1 and np.max(np.abs(rest - rest.flat[0])) <= 10 * case.noise(k):
        return Finding("term", f"has a constant added: {rest.flat[0]:.6g}", [k])
    return None


def _terms(case: Case, k: int) -> Iterator[tuple[float, bool, Finding]]:
    """Yield what h - g is a multiple of: the coefficient, and whether of the argument itself."""
    if not case.comparable(k) or case.automatic[k].size < 2:
        return
    rest = np.asarray(case.handwritten[k], dtype=float) - case.automatic[k]
    noise = 10 * case.noise(k)
    for name, v in case.same_shape(k):
        norm = float(np.sum(v * v))
        c = float(np.sum(rest * v)) / norm if norm > 0 else 0.0
        if abs(c) * largest(v) <= noise or not np.max(np.abs(rest - c * v)) <= noise:
            continue
        if np.all(v == v.flat[0]) or np.count_nonzero(v) < 2:
            continue
        own = name == case.names[k]
        what = f"{name} itself (weight decay?)" if own else name
        lacks = abs(c + 1) <= 1e-6 or (own and c < 0)
        has = "lacks a term" if lacks else "has an extra term"
        times = abs(c) if lacks else c
        what = what if times == 1 else f"{times:.6g} times {what}"
        yield c, own, Finding("term", f"{has}: {what}", [k], _alone(case, k) if own else None)


def _is_plain(c: float, own: bool) -> bool:
    """Tell whether people write a coefficient: a rate with two digits, else 1."""
    return abs(c - float(f"{c:.1e}")) <= 1e-6 * abs(c) if own else abs(abs(c) - 1) <= 1e-6


def _alone(case: Case, k: int) -> Call | None:
    """Return the forward operation that takes nothing but the k-th argument: its square, say."""
    if case.graph is None:
        return None
    root = case.graph.roots[k]
    taking = [c for c in case.graph.users(root) if c.gradient_of is None]
    return next((c for c in taking if all(a is root for a in c.args if isinstance(a, Call))), None)


def constant_along(case: Case, k: int) -> Finding | None:
    """h - g is constant along an axis: a sum over it is missing or too much."""
    g, h = case.automatic[k], np.asarray(case.handwritten[k], dtype=float)
    if h.shape != g.shape or h.ndim < 2:
        return None
    rest = h - g
    for axis in range(h.ndim):
        if h.shape[axis] < 3:
            continue
        middle = rest.mean(axis=axis, keepdims=True)
        if np.max(np.abs(rest - middle)) <= 10 * case.noise(k):
            what = f"differs by a term that is constant along axis {axis}, such as a sum over it"
            return Finding("term", what, [k])
    return None
