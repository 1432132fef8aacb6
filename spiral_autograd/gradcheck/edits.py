"""The changes of one thing in a backward graph: each is a mistake that people make.

An edit is the mistake if, once the graph has run again with it, the handwritten gradients come out.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from itertools import combinations, permutations, product
from typing import Any

import numpy as np

from ..recording import Call, name_of
from ..validation import Array, Shape
from .case import Case
from .graph import BackwardGraph, Make, again, is_number, is_sum_of_paths, paths_of
from .rules import unmoved
from .source import expression, operand


@dataclass(frozen=True)
class Edit:
    """One change of a backward graph.

    Attributes
    ----------
    rule : str
    text : str
        Completes "comes out if ...".
    of : Call or None
        The forward operation whose gradient is changed.
    changes : dict
        From backward calls to what makes their new values.
    key : tuple
        What the same change at another call has in common with this one.
    """

    rule: str
    text: str
    of: Call | None
    changes: Mapping[Call, Make]
    key: tuple[Any, ...]
    screened: bool = True  # whether the effects of its changes add up


def _edit(rule: str, text: str, call: Call, make: Make, *key: Any) -> Edit:
    return Edit(rule, text, call.gradient_of, {call: make}, (rule, *key))


def flow_of(case: Case, call: Call) -> str:
    """Return in words which gradient a backward call makes."""
    of = call.gradient_of
    if of is None or case.graph is None:
        return "the gradient that flows back"
    if of.source is None:  # our own Σ upstream · output
        return f"the upstream gradient of {case.name_of(of.args[0])}"
    to = case.graph.leads_to(call)
    several = len([arg for arg in of.args if isinstance(arg, Call)]) > 1
    whither = f" to {case.name_of(to)}" if several and to is not None else ""
    return f"the gradient that flows back through {case.name_of(of)}{whither}"


# -------------------- cuts, signs, factors --------------------


LEFT_OUT = "is left out"


def cuts(case: Case, graph: BackwardGraph, call: Call) -> Iterator[Edit]:
    """Leave out a backward value, or one of the paths that it is the sum of."""
    if not _has_twin(graph, call):
        yield _edit("term", f"{flow_of(case, call)} {LEFT_OUT}", call, _times(0.0), "cut")
    if not is_sum_of_paths(call):
        return
    for i, path in enumerate(call.args[1:], 1):
        if isinstance(path, Call) or np.ndim(path):
            text = f"{_path(case, path)} {LEFT_OUT}"
            yield _edit("term", text, call, _without_path(i), "path", i)


def _path(case: Case, path: Any) -> str:
    if isinstance(path, Call) and path.gradient_of is not None:
        return flow_of(case, path)
    return f"the gradient that flows in directly from {case.name_of(path)}"


def _without_path(i: int) -> Make:
    def make(call: Call, get: Callable[[Any], Any]) -> Any:
        return again(call, get) - np.asarray(get(call.args[i]))

    return make


def _has_twin(graph: BackwardGraph, path: Any) -> bool:
    """Tell whether another path brings just the same: to cut one is to halve, or to turn, both."""
    whole = path
    while isinstance(whole, Call):
        sums = [user for user in graph.users(whole) if is_sum_of_paths(user)]
        if not sums:
            break
        whole = sums[0]
    if whole is path:
        return False
    mine = [np.array_equal(graph.value(p), graph.value(path)) for p in paths_of(whole)]
    return sum(mine) > 1


def _times(c: float) -> Make:
    return lambda call, get: c * np.asarray(again(call, get))


def known_factors(case: Case) -> dict[float, str]:
    """Return the factors that people lose or add: signs, 2, 1/2, the dimensions, with the words."""
    known = {-1.0: "of the wrong sign"}
    known |= {c: f"{c:g} times what it should be" for c in (2.0, 0.5, -2.0, -0.5, 3.0)}
    for n, text in sorted(case.dimensions.items()):
        known.setdefault(n, f"{n:g} times what it should be ({text}): a mean is missing")
        inverse = f"1/{n:g} of what it should be ({text}): averaged in place of summed"
        known.setdefault(1 / n, inverse)
    return known


def factors(case: Case, graph: BackwardGraph, call: Call) -> Iterator[Edit]:
    """Multiply a backward value by one of the known factors."""
    if not _has_twin(graph, call):
        for c, text in known_factors(case).items():
            yield _edit("factor", f"{flow_of(case, call)} is {text}", call, _times(c), "times", c)


def partly(edit: Edit, share: float, text: str) -> Edit:
    """Return the edit that changes by a share of what another one does: a cut becomes a factor."""

    def scaled(make: Make) -> Make:
        def part(call: Call, get: Callable[[Any], Any]) -> Any:
            whole = np.asarray(again(call, get))
            return whole + share * (np.asarray(make(call, get)) - whole)

        return part

    changes = {call: scaled(make) for call, make in edit.changes.items()}
    return Edit("factor", text, edit.of, changes, ("times", round(share, 9)))


# -------------------- products --------------------


def products(
    case: Case, graph: BackwardGraph, call: Call, *, residual: bool = False
) -> Iterator[Edit]:
    """Lose one operand of a product or quotient, or divide in place of multiplying.

    With `residual`, only operands that autograd itself computes in its backward pass.
    """
    kind, flow = name_of(call.fun), flow_of(case, call)
    if kind not in ("multiply", "divide", "true_divide"):
        return
    multiplies = kind == "multiply"
    for lost in (1, 0) if multiplies else (1,):
        dropped = call.args[lost]
        if is_number(graph.value(dropped)) and float(graph.value(dropped)) == 1:
            continue
        rule, what = _operand(case, graph, call, dropped)
        if residual != (rule == "value" and getattr(dropped, "gradient_of", None) is not None):
            continue
        text = f"without the factor {what}" if multiplies else f"not divided by {what}"
        if rule == "upstream":
            text = "not multiplied by the gradient that comes in: the upstream gradient is ignored"
        yield _edit(rule, f"{flow} is {text}", call, _kept(1 - lost), "operand", lost)
        if rule == "value":
            text = "divided by" if multiplies else "multiplied by"
            make = _combined(np.divide if multiplies else np.multiply, 1 - lost, lost)
            yield _edit(rule, f"{flow} is {text} {what}, the wrong way round", call, make, lost)


def _kept(position: int) -> Make:
    def make(call: Call, get: Callable[[Any], Any]) -> Any:
        value, shape = get(call.args[position]), np.shape(again(call, get))
        return np.broadcast_to(value, shape) if np.ndim(value) < len(shape) else value

    return make


def _combined(operation: Any, first: int, second: int) -> Make:
    return lambda call, get: operation(get(call.args[first]), get(call.args[second]))


def _operand(case: Case, graph: BackwardGraph, call: Call, dropped: Any) -> tuple[str, str]:
    """Return the rule for a lost operand of a call, and what to call it."""
    value = graph.value(dropped)
    if isinstance(dropped, Call) and graph.carries(dropped):
        return "upstream", "the gradient that comes in"
    if is_number(value):
        return "factor", f"{float(value):.6g}"
    if isinstance(dropped, Call):
        return "value", case.name_of(dropped)
    return "value", _written(call.gradient_of, value) or case.constant_name(value)


def _written(of: Call | None, value: Any) -> str | None:
    """Return the text of the operand of a forward operation that is just this constant."""
    text = expression(of) if of is not None else None
    for position, arg in enumerate(of.args[:2] if of is not None and text else ()):
        if arg is value and text is not None:
            found = operand(text, position)
            return f"`{found}`" if found else None
    return None


_FACTORS = "multiply divide true_divide dot matmul tensordot einsum".split()
_ADJOINTS = [f"{f}_adjoint_{i}" for f in ("dot", "matmul", "tensordot") for i in (0, 1)]


def wrong_operands(case: Case, graph: BackwardGraph, call: Call) -> Iterator[Edit]:
    """Multiply by another value of the forward pass than the right one."""
    if name_of(call.fun) not in (*_FACTORS, *_ADJOINTS):
        return
    for position, arg in enumerate(call.args):
        if isinstance(arg, str | tuple) or (position > 1 and name_of(call.fun) != "einsum"):
            continue
        due, moved = _unmoved(arg)
        if isinstance(due, Call) and (graph.carries(due) or due.gradient_of is not None):
            continue
        right = graph.array(due)
        for other in (*graph.roots, *graph.forward) if right.ndim else ():
            value = graph.array(other)
            if other is not due and value.shape == right.shape:
                name, given = _operand(case, graph, call, due)[1], case.name_of(other)
                given = case.expression(other) if given == name and other.fun else given
                text = f"{flow_of(case, call)} is multiplied by {given} in place of {name}"
                make = _exchanged(position, moved(value))
                yield _edit("value", text, call, make, "operand", position, other.instruction)


def _unmoved(arg: Any) -> tuple[Any, Callable[[Array], Array]]:
    """Return the value of which an operand is a transpose or the like, and how it is one."""
    if isinstance(arg, Call) and arg.gradient_of is not None and name_of(arg.fun) in _MOVES:
        inner, moved = _unmoved(arg.args[0])
        return inner, lambda value: arg.fun.fun(moved(value), *arg.args[1:], **arg.kwargs)
    return arg, lambda value: value


def _exchanged(position: int, value: Array) -> Make:
    def make(call: Call, get: Callable[[Any], Any]) -> Any:
        args = [value if i == position else get(arg) for i, arg in enumerate(call.args)]
        return call.fun.fun(*args, **call.kwargs)

    return make


# -------------------- layout --------------------

_PRODUCTS = "dot matmul dot_adjoint_0 dot_adjoint_1 tensordot_adjoint_0 tensordot_adjoint_1".split()
_MOVES = "reshape transpose swapaxes moveaxis ravel rollaxis squeeze expand_dims".split()


def layouts(case: Case, graph: BackwardGraph, call: Call) -> Iterator[Edit]:
    """Transpose a matrix of a product, or what is reshaped or has its axes moved."""
    flow, kind, b = flow_of(case, call), name_of(call.fun), graph.array(call)
    if kind in _PRODUCTS:
        yield from _turned_products(case, graph, call)
    if kind == "einsum":
        yield from _turned_operands(case, graph, call)
    if b.ndim >= 2 and b.shape[-1] == b.shape[-2] and b.shape[-1] > 1:
        yield _edit("layout", f"{flow} is transposed", call, _after(_transposed), "T")
    if kind not in _MOVES:
        return
    text, ndim = f"{flow} is reshaped in the wrong order", graph.array(call.args[0]).ndim
    yield _edit("layout", text, call, _moved(None), "moved", "F")
    for order in permutations(range(ndim)) if 1 < ndim <= 6 else ():
        yield _edit("layout", text, call, _moved(order), "moved", order)
    for order in permutations(range(b.ndim)) if 1 < b.ndim <= 5 else ():
        yield _edit("layout", text, call, _after(partial(unmoved, order=order)), "unmoved", order)


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
        what = " and ".join(_operand(case, graph, call, call.args[i])[1] for i in arrays)
        text = f"{flow_of(case, call)} multiplies {what} transposed or in another order"
        yield _edit("layout", text, call, make, "turned", turned_a, turned_b, first)


def _turned_operands(case: Case, graph: BackwardGraph, call: Call) -> Iterator[Edit]:
    for position, arg in enumerate(call.args[1:], 1):
        array = np.asarray(graph.value(arg)) if not isinstance(arg, str) else np.zeros(())
        for i, j in combinations(range(array.ndim), 2):
            if array.shape[i] == array.shape[j] > 1:
                what = _operand(case, graph, call, arg)[1]
                text = f"{flow_of(case, call)} is made of {what} with axes {i} and {j} exchanged"
                make = _axes_exchanged(position, i, j)
                yield _edit("layout", text, call, make, "axes", position, i, j)


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
        yield _edit("layout", text, call, _cut_at(offsets, part.shape), "cut at", offsets)


def _cut_at(offsets: tuple[int, ...], shape: Shape) -> Make:
    index = tuple(slice(o, o + n) for o, n in zip(offsets, shape, strict=True))
    return lambda call, get: np.asarray(get(call.args[0]))[index]


def exchanges(case: Case, graph: BackwardGraph) -> Iterator[Edit]:
    """Exchange the gradients of two parts of one array, such as two gates of an LSTM."""
    parts: dict[int, list[Call]] = {}
    for call in graph.forward:
        if name_of(call.fun) in ("__getitem__", "take") and call in graph.adjoints:
            parts.setdefault(id(call.args[0]), []).append(call)
    for siblings in parts.values():
        for a, b in combinations(siblings[:12], 2):
            ours, theirs = graph.adjoints[a], graph.adjoints[b]
            if np.shape(a.value) == np.shape(b.value) and ours is not theirs:
                # Both are read as they were before the exchange.
                changes = {ours: _always(graph.value(theirs)), theirs: _always(graph.value(ours))}
                text = f"the gradients of {case.name_of(a)} and {case.name_of(b)} are exchanged"
                yield Edit("layout", text, a, changes, ("layout", "exchange"))


def _always(value: Any) -> Make:
    return lambda call, get: value


# -------------------- sums --------------------


def sums(case: Case, graph: BackwardGraph, call: Call) -> Iterator[Edit]:
    """Sum over other axes, average, or leave an entry out of a sum; sum where none is due."""
    flow, b = flow_of(case, call), graph.array(call)
    if name_of(call.fun) not in ("sum", "mean") or not isinstance(call.args[0], Call):
        for axis, (word, reduce) in product(range(b.ndim), _REDUCTIONS):
            if b.shape[axis] > 1:
                text = f"{flow} is {word} over axis {axis}"
                yield _edit("sum", text, call, _replaced_by(reduce, axis), word, axis)
        return
    inner = graph.array(call.args[0])
    for axes, (word, reduce) in product(_subsets(inner.ndim), _REDUCTIONS):
        text = f"{flow} is {word} over axis {', '.join(map(str, axes))}"
        yield _edit("sum", text, call, _reduced(reduce, axes), word, axes)
    ends = {"first": slice(1, None), "last": slice(None, -1)}
    for axis, (which, kept) in product(range(inner.ndim), ends.items()):
        text = f"the {which} entry along axis {axis} is left out of the sum in {flow}"
        yield _edit("sum", text, call, _summed_without(axis, kept), which, axis)


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


def overwritten(case: Case, graph: BackwardGraph) -> Iterator[Edit]:
    """Assign where several gradients meet in one entry, in place of adding them up."""
    for value, whole in graph.wholes:
        puts = [_put(path) for path in paths_of(whole)]
        known = [put for put in puts if put is not None]
        if len(known) < len(puts) or not known:
            continue
        known.sort(key=lambda put: graph.position(put[0].gradient_of))
        name = case.name_of(value)
        text = f"the gradients that meet in one entry of {name} overwrite each other, not added up"
        yield Edit("sum", text, value, {whole: _assigned(known)}, ("sum", "overwritten"))


def _put(path: Call) -> tuple[Call, Any, Any] | None:
    """Return the call that puts a gradient into zeros at indices, the gradient and the indices."""
    if name_of(path.fun) == "sparse_add" and path.args[1] is None:
        path = path.args[2]
    if name_of(path.fun) == "untake":
        return path, path.args[0], path.args[1]
    if name_of(path.fun) == "add_at":
        return path, path.args[0], path.args[2:]
    return None


def _assigned(puts: list[tuple[Call, Any, Any]]) -> Make:
    def make(call: Call, get: Callable[[Any], Any]) -> Any:
        out = np.zeros_like(again(call, get))
        for _, gradient, index in puts:
            parts = index if isinstance(index, tuple) else (index,)
            out[tuple(map(get, parts))] = get(gradient)
        return out

    return make


# -------------------- parts --------------------


def parts(case: Case, graph: BackwardGraph, call: Call) -> Iterator[Edit]:
    """Lose the first or the last entry along an axis, as a loop that is one turn short does."""
    shape = graph.array(call).shape
    for axis, which in product(range(min(len(shape), 4)), (0, -1)):
        if shape[axis] > 1:
            word = "first" if which == 0 else "last"
            yield _edit("part", f"{flow_of(case, call)} lacks the {word} entry along axis {axis}",
                        call, _zeroed((slice(None),) * axis + (which,)), word, axis)  # fmt: skip


def _zeroed(index: Any) -> Make:
    def make(call: Call, get: Callable[[Any], Any]) -> Any:
        out = np.array(again(call, get))
        out[index] = 0
        return out

    return make


# -------------------- the same mistake in each turn of a loop --------------------

Generate = Callable[[Case, BackwardGraph, Call], Iterator[Edit]]
BY_CALL: tuple[Generate, ...] = (
    cuts,
    products,
    layouts,
    sums,
    parts,
    elsewhere,
)
WHOLE: tuple[Callable[[Case, BackwardGraph], Iterator[Edit]], ...] = (exchanges, overwritten)


def in_loops(case: Case, graph: BackwardGraph, generate: Generate) -> Iterator[Edit]:
    """Make the same change at all calls that one operation of a loop's body made."""
    for calls in graph.turns:
        together: dict[Any, list[Edit]] = {}
        for call in calls:
            for edit in generate(case, graph, call):
                together.setdefault(edit.key, []).append(edit)
        yield from at_each_turn(graph, [e for e in together.values() if len(e) == len(calls)])


def operands_in_loops(case: Case, graph: BackwardGraph) -> Iterator[Edit]:
    """Multiply by another value of the same turn, in each."""
    made: dict[Any, list[Call]] = {}
    for call in graph.forward:
        made.setdefault(call.instruction, []).append(call)
    for calls in graph.turns:
        for edit in wrong_operands(case, graph, calls[0]):
            _, _, position, instruction = edit.key
            others = made.get(instruction, [])
            if len(others) != len(calls):
                continue
            # Backward calls come from the last turn to the first.
            moved = _unmoved(calls[0].args[position])[1]
            pairs = zip(calls, reversed(others), strict=True)
            changes = {c: _exchanged(position, moved(graph.array(o))) for c, o in pairs}
            yield from at_each_turn(
                graph, [[Edit(edit.rule, edit.text, edit.of, changes, edit.key)]]
            )


def at_each_turn(graph: BackwardGraph, groups: list[list[Edit]]) -> Iterator[Edit]:
    """Yield each group of edits as one."""
    for edits in groups:
        changes = {call: make for edit in edits for call, make in edit.changes.items()}
        last, apart = edits[-1], graph.are_apart(list(changes))
        text = f"{last.text}, at each turn of the loop"
        yield Edit(last.rule, text, last.of, changes, last.key, screened=apart)
