"""The order of an array's axes, what is summed, and which part is lost: changes of a graph."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from itertools import combinations, permutations, product
from typing import Any

import numpy as np

from ...recording import Call, name_of
from ...validation import Array, Shape
from ..reference.backward_graph import BackwardGraph, Make, again
from .case import Case
from .edits import MOVES, Edit, edit, flow_of, operand_of, unmoved_operand
from .rules import unmoved

# -------------------- layout --------------------

_PRODUCTS = "dot matmul dot_adjoint_0 dot_adjoint_1 tensordot_adjoint_0 tensordot_adjoint_1".split()


def layouts(case: Case, graph: BackwardGraph, call: Call) -> Iterator[Edit]:
    """Transpose a matrix of a product, or what is reshaped or has its axes moved."""
    flow, kind, b = flow_of(case, call), name_of(call.fun), graph.array(call)
    if kind in _PRODUCTS:
        yield from _turned_products(case, graph, call)
    if kind == "einsum":
        yield from _turned_operands(case, graph, call)
    if b.ndim >= 2 and b.shape[-1] == b.shape[-2] and b.shape[-1] > 1:
        yield edit("layout", f"{flow} is transposed", call, _after(_transposed), "T")
    if kind not in MOVES:
        return
    text, ndim = f"{flow} is reshaped in the wrong order", graph.array(call.args[0]).ndim
    yield edit("layout", text, call, _moved(None), "moved", "F")
    for order in permutations(range(ndim)) if 1 < ndim <= 6 else ():
        yield edit("layout", text, call, _moved(order), "moved", order)
    for order in permutations(range(b.ndim)) if 1 < b.ndim <= 5 else ():
        yield edit("layout", text, call, _after(partial(unmoved, order=order)), "unmoved", order)


def _after(function: Callable[[Any], Any]) -> Make:
    return lambda call, get: function(np.asarray(again(call, get)))


def _transposed(array: Array) -> Array:
    return np.swapaxes(array, -1, -2)


def _moved(order: tuple[int, ...] | None) -> Make:
    def make(call: Call, get: Callable[[Any], Any]) -> Any:
        value, shape = get(call.args[0]), np.shape(again(call, get))
        if order is None:
            return np.reshape(value, shape, order="F")
        return np.reshape(np.transpose(value, order), shape)

    return make


def _turned_products(case: Case, graph: BackwardGraph, call: Call) -> Iterator[Edit]:
    arrays = [i for i, a in enumerate(call.args[:2]) if graph.array(a).ndim >= 2]
    if len(arrays) < 2:
        return
    shape = graph.array(call).shape
    for turned_a, turned_b, first in product((False, True), (False, True), (0, 1)):
        make = _turned(turned_a, turned_b, first)
        try:
            if np.shape(make(call, graph.value)) != shape:
                continue
        except ValueError:
            continue
        names = [_matrix(case, graph, call, call.args[i]) for i in arrays]
        bare = _left_as_it_is(graph, call, (turned_a, turned_b), first)
        if bare is not None:
            text = f"{flow_of(case, call)} is multiplied by {names[bare]}, which is not transposed"
        else:
            what = " and ".join(names)
            text = f"{flow_of(case, call)} multiplies {what} transposed or in another order"
        yield edit("layout", text, call, make, "turned", turned_a, turned_b, first)


def _matrix(case: Case, graph: BackwardGraph, call: Call, arg: Any) -> str:
    """Return what a matrix of a product is called, transposed or not."""
    return operand_of(case, graph, call, unmoved_operand(arg)[0])[1]


def _left_as_it_is(
    graph: BackwardGraph, call: Call, turned: tuple[bool, bool], first: int
) -> int | None:
    """Return which matrix is just not transposed, where it should be; None if that is not all."""
    kind = name_of(call.fun)
    if "_adjoint_" in kind:  # these transpose their first argument
        return 0 if turned == (False, False) and first == int(kind.endswith("_0")) else None
    moved = [unmoved_operand(arg)[0] is not arg for arg in call.args[:2]]
    gradients = [isinstance(arg, Call) and graph.carries(arg) for arg in call.args[:2]]
    alone = [i for i in (0, 1) if turned[i] and not gradients[i]]
    return alone[0] if sum(turned) == 1 and alone and moved[alone[0]] and not first else None


def _turned_operands(case: Case, graph: BackwardGraph, call: Call) -> Iterator[Edit]:
    for position, arg in enumerate(call.args[1:], 1):
        array = np.asarray(graph.value(arg)) if not isinstance(arg, str) else np.zeros(())
        for i, j in combinations(range(array.ndim), 2):
            if array.shape[i] == array.shape[j] > 1:
                what = operand_of(case, graph, call, arg)[1]
                text = f"{flow_of(case, call)} is made of {what} with axes {i} and {j} exchanged"
                make = _axes_exchanged(position, i, j)
                yield edit("layout", text, call, make, "axes", position, i, j)


def _axes_exchanged(position: int, i: int, j: int) -> Make:
    def make(call: Call, get: Callable[[Any], Any]) -> Any:
        args = [get(arg) for arg in call.args]
        args[position] = np.swapaxes(args[position], i, j)
        return call.fun.fun(*args, **call.kwargs)

    return make


def _turned(turned_a: bool, turned_b: bool, first: int) -> Make:
    def make(call: Call, get: Callable[[Any], Any]) -> Any:
        a, b = (np.asarray(get(arg)) for arg in call.args[:2])
        a = np.swapaxes(a, -1, -2) if turned_a else a
        b = np.swapaxes(b, -1, -2) if turned_b else b
        return np.matmul(b, a) if first else np.matmul(a, b)

    return make


def elsewhere(case: Case, graph: BackwardGraph, call: Call) -> Iterator[Edit]:
    """Take a part of an array from another place: the wrong padding cut off."""
    if name_of(call.fun) not in ("__getitem__", "_unpad") or not isinstance(call.args[0], Call):
        return
    whole, part = graph.array(call.args[0]), graph.array(call)
    if whole.ndim != part.ndim or not 0 < part.ndim <= 5:
        return
    room = [range(n - m + 1) for n, m in zip(whole.shape, part.shape, strict=True)]
    if np.prod([len(r) for r in room]) > 100:
        return
    for offsets in product(*room):
        text = f"{flow_of(case, call)} is cut out of the padded one at {offsets}, the wrong place"
        yield edit("layout", text, call, _cut_at(offsets, part.shape), "cut at", offsets)


def _cut_at(offsets: tuple[int, ...], shape: Shape) -> Make:
    index = tuple(slice(o, o + n) for o, n in zip(offsets, shape, strict=True))
    return lambda call, get: np.asarray(get(call.args[0]))[index]


# -------------------- sums --------------------


def sums(case: Case, graph: BackwardGraph, call: Call) -> Iterator[Edit]:
    """Sum over other axes, average, or leave an entry out of a sum; sum where none is due."""
    flow, b = flow_of(case, call), graph.array(call)
    if name_of(call.fun) not in ("sum", "mean") or not isinstance(call.args[0], Call):
        for axis, (word, reduce) in product(range(b.ndim), _REDUCTIONS):
            if b.shape[axis] > 1 and not _is_constant_along(b, axis):
                text = f"{flow} is {word} over axis {axis}"
                yield edit("sum", text, call, _replaced_by(reduce, axis), word, axis)
        return
    inner = graph.array(call.args[0])
    for axes, (word, reduce) in product(_subsets(inner.ndim), _REDUCTIONS):
        text = f"{flow} is {word} over axis {', '.join(map(str, axes))}"
        yield edit("sum", text, call, _reduced(reduce, axes), word, axes)
    ends = {"first": slice(1, None), "last": slice(None, -1)}
    for axis, (which, kept) in product(range(inner.ndim), ends.items()):
        text = f"the {which} entry along axis {axis} is left out of the sum in {flow}"
        yield edit("sum", text, call, _summed_without(axis, kept), which, axis)


def _is_constant_along(array: Array, axis: int) -> bool:
    """Tell whether a sum over an axis is but a factor."""
    first = np.take(array, [0], axis)
    return bool(np.all(np.abs(array - first) <= 1e-9 * np.abs(first)))


_REDUCTIONS = (("summed", np.sum), ("averaged", np.mean))


def _subsets(ndim: int) -> list[tuple[int, ...]]:
    return [axes for n in range(1, min(ndim, 4) + 1) for axes in combinations(range(ndim), n)]


def _reduced(reduce: Any, axes: tuple[int, ...]) -> Make:
    def make(call: Call, get: Callable[[Any], Any]) -> Any:
        like = np.shape(again(call, get))
        out = reduce(get(call.args[0]), axis=axes, keepdims=True)
        return _fitted(out, like, np.ndim(get(call.args[0])))

    return make


def _summed_without(axis: int, keep: slice) -> Make:
    def make(call: Call, get: Callable[[Any], Any]) -> Any:
        part = np.asarray(get(call.args[0]))[(slice(None),) * axis + (keep,)]
        return np.reshape(call.fun.fun(part, **call.kwargs), np.shape(again(call, get)))

    return make


def _fitted(out: Array, shape: tuple[int, ...], ndim: int) -> Any:
    """Return a reduced array in the shape that is wanted, where NumPy would broadcast it so."""
    if out.size == int(np.prod(shape)):
        return np.reshape(out, shape)
    if len(shape) == ndim:
        return np.broadcast_to(out, shape)
    return np.broadcast_to(np.squeeze(out), shape)


def _replaced_by(reduce: Any, axis: int) -> Make:
    def make(call: Call, get: Callable[[Any], Any]) -> Any:
        old = np.asarray(again(call, get))
        return np.broadcast_to(reduce(old, axis=axis, keepdims=True), old.shape)

    return make


# -------------------- parts --------------------


def parts(case: Case, graph: BackwardGraph, call: Call) -> Iterator[Edit]:
    """Lose the first or the last entry along an axis, as a loop that is one turn short does."""
    shape = graph.array(call).shape
    for axis, which in product(range(min(len(shape), 4)), (0, -1)):
        if shape[axis] > 1:
            word = "first" if which == 0 else "last"
            yield edit("part", f"{flow_of(case, call)} lacks the {word} entry along axis {axis}",
                        call, _zeroed((slice(None),) * axis + (which,)), word, axis)  # fmt: skip


def _zeroed(index: Any) -> Make:
    def make(call: Call, get: Callable[[Any], Any]) -> Any:
        out = np.array(again(call, get))
        out[index] = 0
        return out

    return make
