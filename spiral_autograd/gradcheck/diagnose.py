"""Why a gradient is wrong: a table of known mistakes, cheap ones first.

A mistake is claimed only where it explains all the numbers to the tolerance.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ..recording import Call, name_of
from ..validation import Array
from .compare import close, largest
from .graph import BackwardGraph, Values


@dataclass
class Case:
    """What a diagnosis has to go on.

    Attributes
    ----------
    names : list of str
    values : list of arrays
        The arguments.
    automatic : list of arrays
        The reference gradients.
    handwritten : list
        The handwritten ones, None where there is none.
    wrong : list of int
        Which of them are to be explained.
    tolerance : float
    floors : list of float
    graph : BackwardGraph or None
    upstream : list of arrays
    again : callable
        ``again(upstream)`` returns the handwritten gradients for another upstream gradient.
    deadline : float
    """

    names: list[str]
    values: list[Array]
    automatic: list[Array]
    handwritten: list[Any]
    wrong: list[int]
    tolerance: float
    floors: list[float]
    graph: BackwardGraph | None
    upstream: list[Array]
    again: Callable[[list[Array]], list[Any]] | None
    is_loss: bool
    deadline: float
    variant: str = ""

    def explains(self, k: int, candidate: Any) -> bool:
        """Tell whether a candidate is the k-th handwritten gradient, to the tolerance."""
        return close(self.handwritten[k], candidate, self.tolerance, self.floors[k])

    def late(self) -> bool:
        """Tell whether the time is up."""
        return time.monotonic() > self.deadline


@dataclass
class Finding:
    """A mistake that explains some of the wrong gradients."""

    rule: str
    text: str
    rows: list[int]
    call: Call | None = None
    products: list[Any] = field(default_factory=list)


Rule = Callable[[Case, int], Finding | None]

# -------------------- one gradient by itself --------------------


def never_written(case: Case, k: int) -> Finding | None:
    """All zeros, or nothing at all, where the gradient is not."""
    h = case.handwritten[k]
    if h is None:
        return Finding("unwritten", "no gradient is written (None)", [k])
    if largest(h) == 0 and largest(case.automatic[k]) > case.floors[k]:
        return Finding("unwritten", "the gradient is never written: it is all zeros", [k])
    return None


def _dimensions(case: Case) -> dict[float, str]:
    """Return the lengths of axes that a factor may come from, by value."""
    found: dict[float, str] = {}
    arrays = [*case.upstream, *case.values]
    if case.graph is not None:
        arrays += [call.value for call in case.graph.forward]
    for number, array in enumerate(arrays):
        for axis, n in enumerate(np.shape(array)):
            if n > 1:
                word = (
                    "the batch size"
                    if axis == 0 and number <= len(case.upstream)
                    else "a dimension"
                )
                found.setdefault(float(n), f"{n}, {word}")
    sizes = {float(np.size(a)): f"{np.size(a)}, the number of entries" for a in arrays}
    return {**{n: text for n, text in sizes.items() if n > 1}, **found}


def factor_name(case: Case, c: float) -> str:
    """Return what a constant factor is, in words."""

    def near(value: float) -> bool:
        return abs(c - value) <= 1e-6 * abs(value)

    if near(-1.0):
        return "has the wrong sign: it is -1 times the true one"
    for n in (2.0, 0.5, -2.0, -0.5, 3.0, 4.0):
        if near(n):
            return f"is {n:g} times the true one"
    for n, text in _dimensions(case).items():
        for sign in (1, -1):
            minus = "minus " if sign < 0 else ""
            if near(sign * n):
                return f"is {minus}{n:g} times the true one ({text}): a mean is missing"
            if near(sign / n):
                return f"is {minus}1/{n:g} of the true one ({text}): averaged in place of summed"
    return f"is {c:.6g} times the true one"


def constant_factor(case: Case, k: int) -> Finding | None:
    """c g, where there is more than one number to tell it from."""
    g, h = case.automatic[k], np.asarray(case.handwritten[k])
    if h.shape != g.shape or np.count_nonzero(np.abs(g) > case.floors[k]) < 2:
        return None
    norm = float(np.sum(g * g))
    c = float(np.sum(g * h)) / norm if norm > 0 else 0.0
    if c == 0 or not np.isfinite(c):
        return None
    if not close(h, c * g, case.tolerance, case.floors[k]) or abs(c - 1) <= case.tolerance:
        return None
    return Finding("factor", factor_name(case, c), [k])


def layout(case: Case, k: int) -> Finding | None:
    """Transposed, reshaped in the wrong order, or another argument's gradient."""
    g, h = case.automatic[k], np.asarray(case.handwritten[k])
    if g.ndim >= 2:
        if g.T.shape == h.shape and case.explains(k, g.T):
            return Finding("layout", "is the transpose of the true one", [k])
        for axes in _swaps(g.ndim):
            if np.transpose(g, axes).shape == h.shape and case.explains(k, np.transpose(g, axes)):
                return Finding("layout", f"has its axes in the order {axes}", [k])
    for j, other in enumerate(case.automatic):
        if (
            j != k
            and other.shape == h.shape
            and largest(other) > case.floors[j]
            and case.explains(k, other)
        ):
            return Finding("layout", f"is that of {case.names[j]}: arguments swapped", [k])
    if h.size == g.size and g.ndim >= 1:
        for label, candidate in _reorderings(g, h.shape):
            if case.explains(k, candidate):
                return Finding("layout", label, [k])
    return None


def _swaps(ndim: int) -> list[tuple[int, ...]]:
    from itertools import permutations

    return [p for p in permutations(range(ndim)) if p != tuple(range(ndim))] if ndim <= 4 else []


def _reorderings(g: Array, shape: tuple[int, ...]) -> Iterator[tuple[str, Array]]:
    yield "is reshaped in the wrong order", g.reshape(shape, order="F")
    yield "is reshaped in the wrong order", np.asarray(g, order="C").T.reshape(shape)
    if g.shape == shape:
        for axes in _swaps(g.ndim):
            yield "is reshaped in the wrong order", np.transpose(g, axes).reshape(shape)
        for axis in range(g.ndim):
            yield f"is reversed along axis {axis}", np.flip(g, axis)
            for shift in (1, -1):
                yield f"is shifted by {shift} along axis {axis}", np.roll(g, shift, axis)


def summed_axes(case: Case, k: int) -> Finding | None:
    """Not summed, summed over the wrong axis, averaged, a lost or an extra axis."""
    g, h = case.automatic[k], np.asarray(case.handwritten[k])
    for axis in range(h.ndim):
        for keep in (False, True):
            summed = np.sum(h, axis=axis, keepdims=keep)
            if (
                summed.shape == g.shape
                and h.shape != g.shape
                and close(summed, g, case.tolerance, case.floors[k])
            ):
                if h.shape[axis] == 1:
                    return Finding(
                        "sum", f"has an extra axis: {h.shape} in place of {g.shape}", [k]
                    )
                batch = "the batch" if axis == 0 else f"axis {axis}"
                return Finding(
                    "sum", f"is not summed over {batch}: {h.shape} in place of {g.shape}", [k]
                )
    if (
        h.size == g.size
        and h.shape != g.shape
        and close(h.reshape(g.shape), g, case.tolerance, case.floors[k])
    ):
        return Finding(
            "sum", f"has the shape {h.shape} in place of {g.shape}: an axis is lost", [k]
        )
    for axes in _axis_sets(g.ndim):
        for keep in (False, True):
            for word, reduce in (("summed", np.sum), ("averaged", np.mean)):
                candidate = np.asarray(reduce(g, axis=axes, keepdims=keep))
                if candidate.shape == h.shape and g.size > 1 and case.explains(k, candidate):
                    return Finding("sum", f"is {word} over axis {axes}, which it should keep", [k])
                if (
                    g.size > 1
                    and h.shape == g.shape
                    and keep
                    and case.explains(k, np.broadcast_to(candidate, g.shape))
                ):
                    return Finding("sum", f"is {word} over axis {axes}, which it should keep", [k])
    return _other_reduction(case, k)


def _axis_sets(ndim: int) -> list[tuple[int, ...]]:
    from itertools import combinations

    return (
        [c for n in range(1, ndim + 1) for c in combinations(range(ndim), n)] if ndim <= 4 else []
    )


def _other_reduction(case: Case, k: int) -> Finding | None:
    """Another sum or mean of what the gradient is the sum of."""
    if case.graph is None:
        return None
    h, grad = np.asarray(case.handwritten[k]), case.graph.recording.grads[k]
    chain = [grad]
    while isinstance(chain[-1], Call) and name_of(chain[-1].fun) in ("sum", "reshape", "add"):
        calls = [a for a in chain[-1].args if isinstance(a, Call)]
        if len(calls) != 1:
            break
        chain.append(calls[0])
    for source in chain[1:]:
        array = np.asarray(case.graph.value(source))
        for axes in _axis_sets(array.ndim):
            for word, reduce in (
                ("summed", np.sum),
                ("averaged", np.mean),
                ("the largest", np.max),
            ):
                candidate = np.asarray(reduce(array, axis=axes))
                for shaped in (candidate, _fitted(candidate, h.shape)):
                    if shaped is not None and shaped.shape == h.shape and case.explains(k, shaped):
                        return Finding(
                            "sum",
                            f"is {word} over axis {_one(axes)} in place of the right axes",
                            [k],
                            source,
                        )
        if array.ndim and array.shape[1:] == h.shape:
            for i in (0, -1):
                if case.explains(k, array[i]):
                    which = "first" if i == 0 else "last"
                    return Finding(
                        "sum", f"is that of the {which} example alone, not the sum", [k], source
                    )
    return None


def _one(axes: tuple[int, ...]) -> Any:
    return axes[0] if len(axes) == 1 else axes


def _fitted(array: Array, shape: tuple[int, ...]) -> Array | None:
    return array.reshape(shape) if array.size == int(np.prod(shape)) else None


def upstream_misused(case: Case, k: int) -> Finding | None:
    """The upstream gradient ignored, used twice, or backward not linear in it."""
    if case.again is None or not any(largest(u) for u in case.upstream):
        return None
    h = np.asarray(case.handwritten[k], dtype=float)
    if largest(case.automatic[k]) <= case.floors[k]:
        return None
    rng = np.random.default_rng(1)
    other = [(rng.uniform(0.5, 2.0, np.shape(u)) * u).astype(u.dtype) for u in case.upstream]
    if close(h, _read(case.again(other), k, h), 1e-12):
        return Finding("upstream", "does not depend on the upstream gradient: it is ignored", [k])
    twice = _read(case.again([2 * u for u in case.upstream]), k, h)
    if close(twice, 2 * h, case.tolerance, case.floors[k]):
        return None
    nothing = _read(case.again([0 * u for u in case.upstream]), k, h)
    if close(twice - nothing, 2 * (h - nothing), case.tolerance, case.floors[k]):
        return None  # affine: a term is added, not a matter of the upstream gradient
    if close(twice, 4 * h, case.tolerance, case.floors[k]):
        return Finding("upstream", "uses the upstream gradient twice (it grows as its square)", [k])
    return Finding("upstream", "is not linear in the upstream gradient", [k])


def _read(grads: list[Any], k: int, like: Array) -> Array:
    found = grads[k]
    array = np.full(like.shape, np.nan) if found is None else np.asarray(found, dtype=float)
    return array if array.shape == like.shape else np.full(like.shape, np.nan)


def additive_term(case: Case, k: int) -> Finding | None:
    """h - g is proportional to a parameter or to a forward value, or constant along an axis."""
    g, h = case.automatic[k], np.asarray(case.handwritten[k], dtype=float)
    if h.shape != g.shape or h.size < 2:
        return None
    rest = h - g
    floor = case.floors[k] + case.tolerance * max(largest(h), largest(g))
    for name, v in _same_shape_values(case, k):
        c = _coefficient(rest, v)
        if c is not None and np.max(np.abs(rest - c * v)) <= 10 * floor and np.count_nonzero(v) > 1:
            if np.all(v == v.flat[0]):
                continue
            own = name == case.names[k]
            what = f"{name} itself (weight decay?)" if own else name
            return Finding("term", f"has an extra term: {c:.6g} times {what}", [k])
    if np.max(np.abs(rest - rest.flat[0])) <= 10 * floor:
        return Finding("term", f"has a constant added: {rest.flat[0]:.6g}", [k])
    return None


def constant_along(case: Case, k: int) -> Finding | None:
    """h - g is constant along an axis: a sum over it is missing or too much."""
    g, h = case.automatic[k], np.asarray(case.handwritten[k], dtype=float)
    if h.shape != g.shape or h.ndim < 2:
        return None
    rest = h - g
    floor = case.floors[k] + case.tolerance * max(largest(h), largest(g))
    for axis in range(h.ndim):
        if h.shape[axis] < 3:
            continue
        middle = rest.mean(axis=axis, keepdims=True)
        if np.max(np.abs(rest - middle)) <= 10 * floor:
            return Finding(
                "term",
                f"differs by a term that is constant along axis {axis}, such as a sum over it",
                [k],
            )
    return None


def _coefficient(rest: Array, v: Array) -> float | None:
    norm = float(np.sum(v * v))
    return float(np.sum(rest * v)) / norm if norm > 0 else None


def _same_shape_values(case: Case, k: int) -> Iterator[tuple[str, Array]]:
    shape = np.shape(case.automatic[k])
    order = [k, *(j for j in range(len(case.values)) if j != k)]
    for j in order:
        if np.shape(case.values[j]) == shape:
            yield case.names[j], np.asarray(case.values[j], dtype=float)
    if case.graph is not None:
        for u in case.upstream:
            if np.shape(u) == shape:
                yield "the upstream gradient", np.asarray(u, dtype=float)
        for call in case.graph.forward:
            if np.shape(call.value) == shape:
                yield call_name(case, call), np.asarray(case.graph.value(call), dtype=float)


def call_name(case: Case, call: Call) -> str:
    """Return what a forward value is called in the reader's code."""
    assert case.graph is not None
    name = case.graph.recording.names.get(call)
    if name is not None:
        return name
    if call.fun is None:
        for value_name, root in zip(case.names, case.graph.recording.params, strict=False):
            if root is call:
                return value_name
    return f"the result of {name_of(call.fun)}" if call.fun is not None else "an input"


def partly_wrong(case: Case, k: int) -> Finding | None:
    """Wrong in part only, where the part has a mark."""
    g, h = case.automatic[k], np.asarray(case.handwritten[k], dtype=float)
    if h.shape != g.shape or h.size < 3:
        return None
    scale = case.tolerance * max(largest(g), largest(h)) * 10 + case.floors[k]
    wrong = ~(np.abs(h - g) <= scale)
    if wrong.all() or not wrong.any():
        return None
    share = f"{int(wrong.sum())} of {wrong.size} entries are wrong"
    for text, mask in _marks(case, wrong):
        if np.array_equal(mask, wrong):
            return Finding("part", f"is wrong in part only: {share}, {text}", [k])
    return None


def _marks(case: Case, wrong: Array) -> Iterator[tuple[str, Any]]:
    for axis in range(wrong.ndim):
        n = wrong.shape[axis]
        others = tuple(i for i in range(wrong.ndim) if i != axis)
        hit = np.flatnonzero(wrong.any(axis=others))
        mask = np.zeros_like(wrong)
        mask[(slice(None),) * axis + (hit,)] = True
        if len(hit) < n:
            word = {0: "row", 1: "column"}.get(axis, f"index of axis {axis}")
            some = ", ".join(map(str, hit[:6])) + (", ..." if len(hit) > 6 else "")
            kind = (
                " (the first)"
                if list(hit) == [0]
                else " (the last)"
                if list(hit) == [n - 1]
                else ""
            )
            if np.array_equal(mask, wrong) or wrong.ndim == 1:
                yield f"all in {word} {some}{kind}", mask
    arrays: list[tuple[str, Array]] = [
        (name, np.asarray(v)) for name, v in zip(case.names, case.values, strict=True)
    ]
    if case.graph is not None:
        arrays += [
            (call_name(case, c), np.asarray(case.graph.value(c))) for c in case.graph.forward
        ]
    arrays += [("the upstream gradient", np.asarray(u)) for u in case.upstream]
    for name, v in arrays:
        if v.shape != wrong.shape:
            continue
        for sign, test in (
            ("> 0", v > 0),
            ("< 0", v < 0),
            (">= 0", v >= 0),
            ("<= 0", v <= 0),
            ("== 0", v == 0),
        ):
            yield f"just where {name} {sign}", test
            # Where the true and the handwritten gradient are both zero, nothing can be wrong.
            yield f"where {name} {sign}", test & wrong if _mostly(test, wrong) else ~wrong
        for axis in range(v.ndim):
            yield f"where {name} is largest along axis {axis}", v == v.max(axis=axis, keepdims=True)


def _mostly(test: Array, wrong: Array) -> bool:
    """Tell whether all wrong entries lie in a part, which has few right ones."""
    inside = int((test & wrong).sum())
    return inside == int(wrong.sum()) and inside >= 0.9 * int(test.sum()) and not test.all()


# -------------------- one change in autograd's backward graph --------------------

FUNCTIONS: list[tuple[str, Callable[[Any], Any]]] = [
    ("{v}", lambda v: v),
    ("1 - {v}", lambda v: 1 - v),
    ("{v} (1 - {v})", lambda v: v * (1 - v)),
    ("1 - {v}²", lambda v: 1 - v * v),
    ("({v} > 0)", lambda v: (v > 0).astype(float)),
    ("({v} <= 0)", lambda v: (v <= 0).astype(float)),
    ("1 / {v}", lambda v: 1 / v),
    ("{v}²", lambda v: v * v),
    ("1 / {v}²", lambda v: 1 / (v * v)),
    ("1 + {v}", lambda v: 1 + v),
    ("exp({v})", np.exp),
    ("√{v}", np.sqrt),
    ("1 / √{v}", lambda v: 1 / np.sqrt(v)),
    ("sign {v}", np.sign),
    ("log {v}", np.log),
]


@dataclass(frozen=True)
class Edit:
    """One change of one backward value."""

    rule: str
    text: str
    call: Call
    value: Any


def edits(case: Case, call: Call) -> Iterator[Edit]:
    """Yield the cheap changes of one backward value: factors, cuts, lost operations, sums."""
    assert case.graph is not None
    b = np.asarray(case.graph.value(call))
    for c in (-1.0, 2.0, 0.5):
        yield Edit("factor", f"{c:g} times what it should be", call, c * b)
    yield Edit("term", "left out", call, 0 * b)
    args = [np.asarray(case.graph.value(a)) for a in call.args if isinstance(a, Call)]
    if name_of(call.fun) in ("multiply", "divide", "true_divide"):
        for a in args:
            if a.shape == b.shape:
                other = [
                    x for x in call.args if not (isinstance(x, Call) and case.graph.value(x) is a)
                ]
                what = _operand_name(case, other)
                yield Edit("value", f"without the factor {what}", call, a)
    elif name_of(call.fun) not in ("dot_adjoint_0", "dot_adjoint_1"):
        for a in args:
            if a.shape == b.shape and call.fun is not None and len(args) == 1:
                yield Edit("value", f"without its {name_of(call.fun)}", call, a)
    if b.ndim == 2 and b.shape[0] == b.shape[1]:
        yield Edit("layout", "transposed", call, b.T)
    for n in sorted(_dimensions(case)):
        yield Edit("factor", f"{n:g} times what it should be", call, n * b)
        yield Edit("factor", f"1/{n:g} of what it should be", call, b / n)
    for axis in range(b.ndim):
        if b.shape[axis] > 1:
            mean = np.broadcast_to(b.mean(axis=axis, keepdims=True), b.shape)
            total = np.broadcast_to(b.sum(axis=axis, keepdims=True), b.shape)
            yield Edit("sum", f"averaged over axis {axis}", call, mean)
            yield Edit("sum", f"summed over axis {axis}", call, total)
    if name_of(call.fun) == "sum" and args and args[0].ndim > b.ndim:
        for axis in range(args[0].ndim):
            other_sum = args[0].sum(axis=axis)
            if other_sum.shape == b.shape:
                yield Edit("sum", f"summed over axis {axis}", call, other_sum)
            if args[0].shape[:axis] + args[0].shape[axis + 1 :] == b.shape:
                yield Edit("sum", f"averaged over axis {axis}", call, args[0].mean(axis=axis))


def _operand_name(case: Case, others: list[Any]) -> str:
    for other in others:
        if isinstance(other, Call):
            return call_name(case, other)
        if np.ndim(other) == 0:
            return (
                f"{float(other):.6g}"
                if isinstance(other, int | float | np.generic | np.ndarray)
                else str(other)
            )
    return "that belongs to it"


def value_edits(case: Case, call: Call) -> Iterator[Edit]:
    """Yield one backward value multiplied by a simple function of a forward value."""
    assert case.graph is not None
    b = np.asarray(case.graph.value(call))
    if b.ndim == 0:
        return
    candidates: list[tuple[str, Any]] = [
        (call_name(case, c), case.graph.value(c)) for c in _forward_and_roots(case)
    ]
    candidates += [("the upstream gradient", u) for u in case.upstream if np.ndim(u)]
    for name, value in candidates:
        v = np.asarray(value)
        if v.dtype.kind != "f" or (v.ndim == 0 and not np.isfinite(v)):
            continue
        try:
            if np.broadcast_shapes(v.shape, b.shape) != b.shape:
                continue
        except ValueError:
            continue
        for text, function in FUNCTIONS:
            with np.errstate(all="ignore"):
                f = function(v)
                if np.isfinite(f).all():
                    rule = "upstream" if name == "the upstream gradient" else "value"
                    yield Edit(rule, f"multiplied by {text.format(v=name)}", call, b * f)


def _forward_and_roots(case: Case) -> list[Call]:
    assert case.graph is not None
    return [*case.graph.recording.params, *case.graph.forward]


def changed_graph(case: Case, rows: list[int]) -> Finding | None:
    """Find the one change in the backward graph after which all of `rows` come out."""
    graph = case.graph
    if graph is None:
        return None
    touching = [
        call
        for call in reversed(graph.backward)
        if set(rows) <= graph.reaches.get(call, frozenset()) and call.gradient_of is not None
    ]
    for generate in (edits, value_edits):
        for call in touching:
            if case.late():
                return None
            for edit in generate(case, call):
                if case.late():
                    return None
                changed = _explained(case, graph, edit, rows)
                if changed is not None:
                    return _finding(case, edit, rows, changed)
    return None


def _explained(case: Case, graph: BackwardGraph, edit: Edit, rows: list[int]) -> Values | None:
    """Return what a replay changes if all the handwritten gradients come out; else None."""
    try:
        with np.errstate(all="ignore"):
            changed = graph.replay({edit.call: edit.value})
    except Exception:
        return None
    for k in rows:
        if not case.explains(k, graph.gradient(k, changed)):
            return None
    for k in graph.reaches.get(edit.call, frozenset()):
        h = case.handwritten[k]
        if k not in rows and h is not None and not case.explains(k, graph.gradient(k, changed)):
            return None
    return changed


def _finding(case: Case, edit: Edit, rows: list[int], changed: Values) -> Finding:
    of = edit.call.gradient_of
    where = call_name(case, of) if of is not None else "the loss"
    text = f"comes out if the gradient that flows back through {where} is {edit.text}"
    products = [v for call, v in changed.items() if call.gradient_of is not None]
    return Finding(edit.rule, text, rows, of, products)


# -------------------- the table --------------------

SINGLE: tuple[Rule, ...] = (
    never_written,
    summed_axes,
    constant_factor,
    layout,
    upstream_misused,
    additive_term,
)
LAST: tuple[Rule, ...] = (constant_along, partly_wrong)


def diagnose(case: Case) -> list[Finding]:
    """Return what explains the wrong gradients, as far as anything does.

    Parameters
    ----------
    case : Case

    Returns
    -------
    list of Finding
        Each names the rows that it explains.
    """
    findings: list[Finding] = []
    open_rows = list(case.wrong)

    def settle(finding: Finding | None) -> None:
        if finding is not None:
            findings.append(finding)
            for k in finding.rows:
                open_rows.remove(k)

    for rule in SINGLE:
        for k in list(open_rows):
            settle(_safely(rule, case, k))
    if len(open_rows) > 1:
        settle(_safely_graph(case, list(open_rows)))
    for k in list(open_rows):
        settle(_safely_graph(case, [k]))
    for rule in LAST:
        for k in list(open_rows):
            settle(_safely(rule, case, k))
    return findings


def _safely(rule: Rule, case: Case, k: int) -> Finding | None:
    if case.late() or (case.handwritten[k] is None and rule is not never_written):
        return None
    if case.handwritten[k] is not None and not np.isfinite(np.asarray(case.handwritten[k])).all():
        return None
    with np.errstate(all="ignore"):
        return rule(case, k)


def _safely_graph(case: Case, rows: list[int]) -> Finding | None:
    for k in rows:
        h = case.handwritten[k]
        if h is None or np.shape(h) != np.shape(case.automatic[k]) or not np.isfinite(h).all():
            return None
    return changed_graph(case, rows)
