"""From a result of the forward pass back to an argument, whose derivative may be a wrong one.

A person differentiates `tanh` or `softmax` in one line, where autograd takes several steps. So
here the gradient that reaches an argument is set against the one that leaves the result.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from itertools import product
from typing import Any

import numpy as np

from ...recording import Call, name_of
from ..reference.backward_graph import BackwardGraph, again, is_number, paths_of
from .case import Case
from .edits import Edit, flow_of
from .loops import at_each_turn
from .values import FUNCTIONS, ONE, Factor


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


def passages(case: Case, graph: BackwardGraph, furthest: int = 12) -> Iterator[Passage]:
    """Yield the passages of a graph, short ones first."""
    found: list[Passage] = []
    roots = {
        root: grad
        for root, grad in zip(graph.roots, graph.recording.grads, strict=True)
        if isinstance(grad, Call)
    }
    brings = {**graph.adjoints, **roots}
    for result in graph.forward:
        case.deadline.check()
        if result not in graph.adjoints or np.ndim(result.value) == 0:
            continue
        above = list(ancestors(result, furthest))
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


def ancestors(call: Call, furthest: int) -> Iterator[tuple[Call, Call, int]]:
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


def multiplied(case: Case, call: Call, factor: Factor) -> Edit:
    """Return the edit in which a backward value is multiplied by a simple function of another."""
    text = f"{flow_of(case, call)} is multiplied by {factor.words(factor.name)}"

    def make(call: Call, get: Callable[[Any], Any]) -> Any:
        return np.asarray(again(call, get)) * factor.array()

    return Edit(factor.rule, text, call.gradient_of, {call: make}, ("multiplied", factor.text))
