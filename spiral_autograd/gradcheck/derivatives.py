"""Wrong derivatives: of an elementwise operation, or of a softmax or a normalisation as a whole.

A person differentiates `tanh` or `softmax` in one line, where autograd takes several steps. So
here the gradient that reaches an argument is set against the one that leaves the result.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from itertools import combinations, product
from typing import Any

import numpy as np

from ..recording import Call, name_of
from ..validation import Array, Shape
from .case import Case
from .edits import LEFT_OUT, Edit, flow_of, is_constant
from .graph import BackwardGraph, again, is_number, is_sum_of_paths, paths_of
from .loops import at_each_turn

# -------------------- simple functions of a value --------------------

FUNCTIONS: tuple[tuple[str, Callable[[Any], Any]], ...] = (
    ("1", np.ones_like),
    ("{v}", lambda v: v),
    ("1 - {v}", lambda v: 1 - v),
    ("{v} (1 - {v})", lambda v: v * (1 - v)),
    ("{v}² (1 - {v})", lambda v: v * v * (1 - v)),
    ("{v} (1 - {v})²", lambda v: v * (1 - v) ** 2),
    ("{v} (1 + {v})", lambda v: v * (1 + v)),
    ("({v} (1 - {v}))²", lambda v: (v * (1 - v)) ** 2),
    ("(1 - {v})²", lambda v: (1 - v) ** 2),
    ("(1 - {v}²)²", lambda v: (1 - v * v) ** 2),
    ("1 - {v}²", lambda v: 1 - v * v),
    ("({v} > 0)", lambda v: (v > 0).astype(float)),
    ("({v} <= 0)", lambda v: (v <= 0).astype(float)),
    ("1 / {v}", lambda v: 1 / v),
    ("{v}²", lambda v: v * v),
    ("1 / {v}²", lambda v: 1 / (v * v)),
    ("1 + {v}", lambda v: 1 + v),
    ("2 {v}", lambda v: 2 * v),
    ("{v} / 2", lambda v: v / 2),
    ("{v}³", lambda v: v**3),
    ("1 / {v}³", lambda v: v**-3.0),
    ("1 + {v}²", lambda v: 1 + v * v),
    ("1 / (1 + {v}²)", lambda v: 1 / (1 + v * v)),
    ("1 / (1 - {v})", lambda v: 1 / (1 - v)),
    ("1 / ({v} (1 - {v}))", lambda v: 1 / (v * (1 - v))),
    ("1 / (1 - {v}²)", lambda v: 1 / (1 - v * v)),
    ("1 - √{v}", lambda v: 1 - np.sqrt(v)),
    ("exp({v})", np.exp),
    ("exp(-{v})", lambda v: np.exp(-v)),
    ("√{v}", np.sqrt),
    ("1 / √{v}", lambda v: 1 / np.sqrt(v)),
    ("sign {v}", np.sign),
    ("|{v}|", np.abs),
    ("log {v}", np.log),
    ("sigmoid({v})", lambda v: 1 / (1 + np.exp(-v))),
    ("sigmoid({v}) (1 - sigmoid({v}))", lambda v: np.exp(-v) / (1 + np.exp(-v)) ** 2),
    ("1 - sigmoid({v})", lambda v: 1 / (1 + np.exp(v))),
    ("tanh {v}", np.tanh),
    ("1 - tanh² {v}", lambda v: 1 - np.tanh(v) ** 2),
    ("cos {v}", np.cos),
    ("sin {v}", np.sin),
)


_ORDER = {text: i for i, (text, _) in enumerate(FUNCTIONS)}


@dataclass(frozen=True)
class Factor:
    """A simple function of a value, by which a gradient may have been multiplied."""

    text: str  # with {v} for the name
    function: Callable[[Any], Any]
    of: Call | None
    value: Array
    name: str = ""
    rule: str = "value"
    sign: int = 1

    def array(self) -> Array:
        """Return the function of the value."""
        with np.errstate(all="ignore"):
            return np.asarray(self.sign * self.function(self.value), dtype=float)

    @property
    def rank(self) -> int:
        """How far from the first thing that a person would think of."""
        return _ORDER.get(self.text, 0)

    def words(self, name: str) -> str:
        """Return the function with a name for the value."""
        text = self.text.format(v=name)
        if self.sign > 0:
            return text
        return f"-({text})" if " " in text and text[0] != "(" else f"-{text}"


ONE = Factor("1", lambda v: v, None, np.ones(()))
_LARGE = 20_000  # entries; functions of larger values are computed when they are asked for


def factors_of(case: Case, graph: BackwardGraph) -> list[Factor]:
    """Return the simple functions of the forward values, arguments and upstream gradients."""
    found: list[Factor] = []
    seen: list[Array] = []
    for call in (*graph.roots, *graph.forward, *graph.upstream):
        v = graph.array(call)
        if v.dtype.kind != "f" or v.size == 0 or any(v is s for s in seen):
            continue
        if v.ndim == 0 and call in graph.upstream:
            continue
        seen.append(v)
        rule = "upstream" if call in graph.upstream else "value"
        name = case.name_of(call)
        of_it = [Factor(text, function, call, v, name, rule) for text, function in FUNCTIONS]
        found += [f for f in of_it if not 1 < v.size <= _LARGE or not is_constant(f.array())]
    return found


class Screen:
    """Tells by one product of matrices which factors could explain a change, of many at once."""

    def __init__(self, factors: list[Factor]) -> None:
        self._groups: dict[Shape, list[Factor]] = {}
        for factor in factors:
            self._groups.setdefault(factor.value.shape, []).append(factor)
        self._matrices = {
            shape: np.stack([f.array().ravel() for f in group])
            for shape, group in self._groups.items()
            if np.prod(shape) <= _LARGE
        }

    def passing(self, weight: Array, target: float, tolerance: float) -> Iterator[Factor]:
        """Yield the factors f with Σ weight · f = target, or minus that."""
        for shape, group in self._groups.items():
            reduced = _summed_to(weight, shape)
            if reduced is None:
                continue
            flat, known = reduced.ravel(), self._matrices.get(shape)
            for first in range(0, len(group), 1 if known is None else len(group)):
                matrix = group[first].array().reshape(1, -1) if known is None else known
                with np.errstate(all="ignore"):
                    scores, sizes = matrix @ flat, np.abs(matrix) @ np.abs(flat)
                    noise = tolerance * (sizes + abs(target))
                    for sign in (1, -1):
                        for i in np.flatnonzero(np.abs(sign * scores - target) <= noise):
                            yield replace(group[first + i], sign=sign)


def _summed_to(array: Array, shape: Shape) -> Array | None:
    """Return an array summed over the axes along which `shape` would be broadcast to it."""
    try:
        if np.broadcast_shapes(array.shape, shape) != array.shape:
            return None
    except ValueError:
        return None
    extra = array.ndim - len(shape)
    out = array.sum(axis=tuple(range(extra))) if extra else array
    axes = tuple(i for i, n in enumerate(shape) if n == 1 and out.shape[i] > 1)
    return np.asarray(out.sum(axis=axes, keepdims=True)) if axes else np.asarray(out)


# -------------------- from a result to an argument --------------------


@dataclass(frozen=True)
class Passage:
    """From a forward value `result` back to an `argument` of the same shape.

    `target` is the backward call that brings the gradient to the argument: the whole of it, or
    that path of several which comes from the result. Where several do, the others are `kept`.
    """

    argument: Call
    result: Call
    target: Call
    steps: int
    kept: tuple[Call, ...] = ()


_MANY = 8  # paths, of which not every subset is tried


def passages(graph: BackwardGraph, furthest: int = 12) -> Iterator[Passage]:
    """Yield the passages of a graph, short ones first."""
    found: list[Passage] = []
    roots = {
        root: grad
        for root, grad in zip(graph.roots, graph.recording.grads, strict=True)
        if isinstance(grad, Call)
    }
    brings = {**graph.adjoints, **roots}
    for result in graph.forward:
        if result not in graph.adjoints or np.ndim(result.value) == 0:
            continue
        above = list(_ancestors(result, furthest))
        between = {result, *(call for call, _, _ in above)}
        for argument, first, steps in above:
            whole = brings.get(argument)
            if whole is None or np.shape(argument.value) != np.shape(result.value):
                continue
            if whole is graph.adjoints[result] or np.shape(whole.value) != np.shape(result.value):
                continue
            found.append(Passage(argument, result, whole, steps))
            found += _of_paths(graph, Passage(argument, result, whole, steps), first, between)
    yield from sorted(found, key=lambda p: p.steps)


def _of_paths(
    graph: BackwardGraph, p: Passage, first: Call, between: set[Call]
) -> Iterator[Passage]:
    """Yield the passages of those of several paths that come from the result."""
    paths = paths_of(p.target)
    for path in paths:
        own = path.gradient_of is first and path is not graph.adjoints[p.result]
        if own and path is not p.target:
            yield Passage(p.argument, p.result, path, p.steps)
    if len(paths) > _MANY:
        return
    kept = [path for path in paths if graph.way(path, p.argument) not in between]
    if kept and len(paths) - len(kept) > 1:
        yield replace(p, kept=tuple(kept))


def _ancestors(call: Call, furthest: int) -> Iterator[tuple[Call, Call, int]]:
    """Yield the calls that a call comes from, the call by which it does, and the distance."""
    met: set[Call] = set()
    pending = [(call, 0)]
    while pending:
        user, steps = pending.pop(0)
        for arg in user.args:
            if isinstance(arg, Call) and arg not in met and steps < furthest:
                met.add(arg)
                yield arg, user, steps + 1
                pending.append((arg, steps + 1))


def replaced(case: Case, graph: BackwardGraph, passage: Passage, factor: Factor) -> Edit:
    """Return the edit in which the derivative of a passage is a simple function of a value."""
    came = graph.adjoints[passage.result]

    def make(call: Call, get: Callable[[Any], Any]) -> Any:
        kept = sum(np.asarray(get(path)) for path in passage.kept)
        return kept + np.asarray(get(came)) * factor.array()

    result, argument = case.name_of(passage.result), case.name_of(passage.argument)
    if result == argument:  # i = sigmoid(i)
        result = case.expression(passage.result)
    of = passage.result if passage.steps == 1 else passage.target.gradient_of or passage.result
    rule, derivative = factor.rule, f"the derivative of {result} by {argument}"
    times = None if factor is ONE else _times_the_true(graph, passage, factor)
    if factor is ONE:
        what = f"the derivative of {result}{f' by {argument}' * (passage.steps > 1)} is left out"
    elif times is not None:
        rule = "factor"
        words = "has the wrong sign" if times == -1 else f"is {times:.6g} times what it should be"
        what = f"{derivative} {words}"
    else:
        value = factor.words(result if factor.of is passage.result else factor.name)
        what = f"{derivative} is taken as {value}"
    return Edit(rule, what, of, {passage.target: make}, ("derivative", factor.text))


def _times_the_true(graph: BackwardGraph, passage: Passage, factor: Factor) -> float | None:
    """Return the c with which a wrong derivative is c times the true one; None if it is another."""
    true = graph.array(passage.target) - sum(graph.array(path) for path in passage.kept)
    made = graph.array(graph.adjoints[passage.result]) * factor.array()
    norm = float(np.sum(true * true))
    c = float(np.sum(made * true)) / norm if norm > 0 and made.shape == true.shape else np.nan
    fits = np.isfinite(c) and np.max(np.abs(made - c * true)) <= 1e-9 * np.max(np.abs(made))
    return float(f"{c:.9g}") if fits else None


def replaced_in_loops(case: Case, graph: BackwardGraph, through: list[Passage]) -> Iterator[Edit]:
    """Yield the wrong derivatives of an operation of a loop's body, the same at each turn."""
    single: dict[tuple[Call, Call], Passage] = {}
    for p in through:  # of a sum of paths, the path that comes from the result
        if p.steps <= 4 and p.result.instruction is not None:
            whole = p.target is graph.adjoints.get(p.argument)
            if not whole or (p.result, p.argument) not in single:
                single[p.result, p.argument] = p
    groups: dict[Any, list[Passage]] = {}
    for p in single.values():
        key = (p.result.instruction, p.argument.instruction, p.steps)
        groups.setdefault(key, []).append(p)
    loops = [g for g in groups.values() if len(g) > 1 and len({p.target for p in g}) == len(g)]
    yield from at_each_turn(graph, [[replaced(case, graph, p, ONE) for p in g] for g in loops])
    natural = [g for g in loops if all(is_natural(case, c) for c in (g[0].result, g[0].argument))]
    for some in (natural, [g for g in loops if g not in natural]):
        for (text, function), end, group in product(FUNCTIONS, ("result", "argument"), some):
            factors = [_factor(case, graph, text, function, getattr(p, end)) for p in group]
            edits = [replaced(case, graph, p, f) for p, f in zip(group, factors, strict=True)]
            yield from at_each_turn(graph, [edits])


def _factor(case: Case, graph: BackwardGraph, text: str, function: Any, of: Call) -> Factor:
    return Factor(text, function, of, graph.array(of), case.name_of(of))


_INNER = frozenset("negative exp log log1p sqrt square power reciprocal tanh absolute abs".split())


def is_natural(case: Case, call: Call) -> bool:
    """Tell whether a person would differentiate by a value: not by the inside of a formula."""
    if case.is_named(call):
        return True
    return name_of(call.fun) not in _INNER and not any(map(is_number, call.args))


# -------------------- softmax, normalisations --------------------

Over = Callable[[Array, Any], Array]
Term = Callable[[Array, Array, Over], Array]


@dataclass(frozen=True)
class Composite:
    """An operation whose gradient is ``scale (g - Σ terms)``, sums being over some axes."""

    name: str
    formula: str
    is_one: Callable[[Array, Over], bool]  # tells a result of it
    scale: Callable[[Array], Any] | None  # of the result; None where it is what fits
    terms: tuple[str, ...]


# The result is y, the gradient that leaves it g; S sums and M averages over the axes.
TERMS: dict[str, Term] = {
    "Σ y g": lambda y, g, over: over(y * g, np.sum),
    "y Σ y g": lambda y, g, over: y * over(y * g, np.sum),
    "mean g": lambda y, g, over: over(g, np.mean),
    "y mean(y g)": lambda y, g, over: y * over(y * g, np.mean),
    "exp(y) Σ g": lambda y, g, over: np.exp(y) * over(g, np.sum),
}
VARIANTS: dict[str, tuple[tuple[str, str, Term], ...]] = {
    "Σ y g": (
        ("value", "Σ g", lambda y, g, over: over(g, np.sum)),
        ("sum", "mean(y g)", lambda y, g, over: over(y * g, np.mean)),
        ("sum", "y g, not summed", lambda y, g, over: y * g),
    ),
    "y Σ y g": (
        ("value", "Σ y g", lambda y, g, over: over(y * g, np.sum)),
        ("value", "y Σ g", lambda y, g, over: y * over(g, np.sum)),
        ("sum", "y mean(y g)", lambda y, g, over: y * over(y * g, np.mean)),
        ("sum", "y y g, not summed", lambda y, g, over: y * y * g),
    ),
    "mean g": (("sum", "Σ g", lambda y, g, over: over(g, np.sum)),),
    "y mean(y g)": (
        ("value", "mean(y g)", lambda y, g, over: over(y * g, np.mean)),
        ("value", "y mean g", lambda y, g, over: y * over(g, np.mean)),
        ("sum", "y Σ y g", lambda y, g, over: y * over(y * g, np.sum)),
    ),
    "exp(y) Σ g": (
        ("value", "Σ g", lambda y, g, over: over(g, np.sum)),
        ("value", "y Σ g", lambda y, g, over: y * over(g, np.sum)),
        ("sum", "exp(y) mean g", lambda y, g, over: np.exp(y) * over(g, np.mean)),
        ("sum", "exp(y) g, not summed", lambda y, g, over: np.exp(y) * g),
    ),
}


def _is(value: Any, number: float, off: float = 1e-6) -> bool:
    return bool(np.all(np.abs(np.asarray(value) - number) <= off))


COMPOSITES = (
    Composite(
        "softmax",
        "y (g - Σ y g)",
        lambda y, over: _is(over(y, np.sum), 1),
        lambda y: y,
        ("Σ y g",),
    ),
    Composite(
        "log-softmax",
        "g - exp(y) Σ g",
        lambda y, over: _is(over(np.exp(y), np.sum), 1),
        lambda y: np.ones(()),
        ("exp(y) Σ g",),
    ),
    Composite(
        "normalisation",
        "(g - mean g - y mean(y g)) / std",
        lambda y, over: _is(over(y, np.mean), 0),
        None,
        ("mean g", "y mean(y g)"),
    ),
    Composite(
        "subtracted mean",
        "g - mean g",
        lambda y, over: _is(over(y, np.mean), 0),
        lambda y: np.ones(()),
        ("mean g",),
    ),
    Composite(
        "division by the root mean square",
        "(g - y mean(y g)) / rms",
        lambda y, over: _is(over(y * y, np.mean), 1, 0.01),
        None,
        ("y mean(y g)",),
    ),
    Composite(
        "division by the norm",
        "(g - y Σ y g) / norm",
        lambda y, over: _is(over(y * y, np.sum), 1, 0.01),
        None,
        ("y Σ y g",),
    ),
)


def composites_of(y: Array) -> list[tuple[tuple[int, ...], Composite]]:
    """Return what an array may be the result of, by its numbers: a softmax over some axes, say."""
    if y.ndim == 0 or y.size < 2:
        return []
    with np.errstate(all="ignore"):
        return [
            (axes, composite)
            for axes in _axes(y.ndim)
            if np.prod([y.shape[axis] for axis in axes]) >= 2
            for composite in COMPOSITES
            if composite.is_one(y, _over(axes))
        ]


def composite_edits(
    case: Case,
    graph: BackwardGraph,
    passage: Passage,
    kinds: list[tuple[tuple[int, ...], Composite]],
) -> Iterator[Edit]:
    """Yield the mistakes in the gradient of a passage that is one of some kinds."""
    if passage.steps < 2 and not is_sum_of_paths(passage.target):
        return
    came, y = graph.adjoints[passage.result], graph.array(passage.result)
    g, true = graph.array(came), graph.array(passage.target)
    for axes, composite in kinds:
        scale = _scale(composite, y, g, true, axes)
        if scale is not None:
            yield from _variants(case, passage, came, composite, axes, scale)
            return


def _axes(ndim: int) -> list[tuple[int, ...]]:
    found = [axes for n in range(1, ndim + 1) for axes in combinations(range(ndim), n)]
    return sorted(found, key=lambda axes: (len(axes), -axes[-1])) if ndim <= 4 else []


def _over(axes: tuple[int, ...]) -> Over:
    return lambda a, reduce: reduce(a, axis=axes, keepdims=True)


def _scale(
    composite: Composite, y: Array, g: Array, true: Array, axes: tuple[int, ...]
) -> Array | None:
    """Return the scale with which a composite's gradient is the true one; None if it is not."""
    over = _over(axes)
    with np.errstate(all="ignore"):
        rest = g - sum(TERMS[term](y, g, over) for term in composite.terms)
        if composite.scale is not None:
            scale = np.asarray(composite.scale(y))
        else:
            norm = over(rest * rest, np.sum)
            scale = over(true * rest, np.sum) / np.where(norm > 0, norm, 1)
        apart = np.abs(scale * rest - true)
    largest = float(np.max(np.abs(true), initial=0.0))
    terms_matter = float(np.max(np.abs(rest - g), initial=0.0)) > 1e-9 * float(np.max(np.abs(g)))
    fits = np.isfinite(apart).all() and float(np.max(apart)) <= 1e-8 * largest
    return scale if fits and largest > 0 and terms_matter else None


def _reductions(passage: Passage) -> list[Call]:
    """Return the sums and means between an argument and a result, in their order."""
    found = [
        call
        for call, _, _ in _ancestors(passage.result, passage.steps)
        if name_of(call.fun) in ("sum", "mean", "var", "std", "norm") and call.fun is not None
    ]
    return found[::-1]


def _scaled(scale: Array, function: Callable[[Array], Array]) -> Callable[[Array], Array]:
    return lambda g: scale * function(g)


def _bracket(composite: Composite, y: Array, g: Array, over: Over, without: str = "") -> Array:
    return np.asarray(g - sum(TERMS[t](y, g, over) for t in composite.terms if t != without))


def _variants(
    case: Case,
    passage: Passage,
    came: Call,
    composite: Composite,
    axes: tuple[int, ...],
    scale: Array,
) -> Iterator[Edit]:
    """Yield what people write in place of ``scale (g - Σ terms)``."""
    assert case.graph is not None
    y, over, last = case.graph.array(passage.result), _over(axes), passage.result
    name = case.name_of(passage.result)
    whole = f"in the gradient of the {composite.name} y = {name}, {composite.formula},"

    sums = _reductions(passage)

    def edit(rule: str, text: str, gradient: Callable[[Array], Array], of: Call = last) -> Edit:
        def make(call: Call, get: Callable[[Any], Any]) -> Any:
            return gradient(np.asarray(get(came)))

        return Edit(rule, f"{whole} {text}", of, {passage.target: make}, (text,))

    def bracket(g: Array, without: str = "") -> Array:
        return _bracket(composite, y, g, over, without)

    def instead(term: str, other: Term, sums: Over = over) -> Any:
        return lambda g: scale * (bracket(g, term) - other(y, g, sums))

    for term, of in zip(composite.terms, (*sums, last, last), strict=False):
        left_out = instead(term, lambda y, g, over: np.zeros_like(g))
        yield edit("term", f"the term - {term} {LEFT_OUT}", left_out, of)
        for rule, name, function in VARIANTS[term]:
            yield edit(rule, f"the term - {term} is - {name}", instead(term, function))
        for other in _axes(y.ndim):
            names = ", ".join(map(str, other))
            text = f"the sum in the term - {term} runs over axis {names}"
            yield edit("sum", text, instead(term, TERMS[term], _over(other)))
    if len(composite.terms) > 1:
        yield edit("term", f"all but g {LEFT_OUT}", lambda g: scale * g)
        for other in _axes(y.ndim):
            names = ", ".join(map(str, other))
            all_over = partial(_bracket, composite, y, over=_over(other))
            yield edit("sum", f"all sums run over axis {names}", _scaled(scale, all_over))
    yield edit("term", "the term g is left out", lambda g: scale * (bracket(g) - g))
    yield edit("value", "the factor before the bracket is left out", bracket)
    yield edit("value", "only g is left", lambda g: g)
    yield edit("value", "the factor before the bracket is squared", lambda g: scale**2 * bracket(g))
    with np.errstate(all="ignore"):
        inverse = 1 / scale
    yield edit("value", "the factor before the bracket is inverted", lambda g: inverse * bracket(g))


def multiplied(case: Case, call: Call, factor: Factor) -> Edit:
    """Return the edit in which a backward value is multiplied by a simple function of another."""
    text = f"{flow_of(case, call)} is multiplied by {factor.words(factor.name)}"

    def make(call: Call, get: Callable[[Any], Any]) -> Any:
        return np.asarray(again(call, get)) * factor.array()

    return Edit(factor.rule, text, call.gradient_of, {call: make}, ("multiplied", factor.text))
