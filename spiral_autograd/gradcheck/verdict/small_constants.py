"""The gradient of the forward pass without its small constants, such as 1e-07 in a logarithm.

Only what keeps a logarithm, a root or a quotient from zero is left out of a backward pass on
purpose. A target, a margin or a decay is not.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from types import CodeType, FunctionType
from typing import Any

import numpy as np

from ...recording import Call
from ...validation import Array
from ..blocks import close, largest
from ..finding import found
from ..guard import CheckError
from ..primitives import primitive
from ..reference.graph import Graph, is_number
from ..reference.nodes import Node
from ..reference.reference import by_autograd, find_reference
from ..source import root_of, text_of
from .repeats import drawn_anew
from .rows import Comparison

SMALL = 1e-2
Without = tuple[float, FunctionType]  # a constant, and a function with zero for it
Nested = tuple[ast.AST, tuple[ast.AST, ...]]  # a part of a statement, and what it is in
Guard = tuple[Call, int]  # a call, and the number of its argument that is a small constant
_DIVIDES = ("divide", "true_divide")


def find_idealised(c: Comparison) -> Graph | None:
    """Say which gradients are those of the forward pass without some of its small constants.

    Returns the graph of the forward pass without the first of them, where it has one.
    """
    if not (c.doubtful or c.wrong):
        return None
    if c.graph is None:
        _find_in_code(c)
        return None
    first = None
    milder: list[set[int]] | None = None
    for number, left_out in enumerate(guards(c.graph)):
        ideal = c.graph.without(left_out)
        if ideal is None:
            continue
        first = first or ideal
        for k in c.doubtful:
            agrees = _agrees(c, k, ideal.gradient(k))
            if not agrees and not _is_steady(c, ideal, k, left_out):
                milder = _agreeing_at_milder_values(c)[0] if milder is None else milder
                agrees = number < len(milder) and k in milder[number]
            if agrees:
                _say(c, k, _largest_of(left_out), [call for call, _ in left_out])
    return first


def _say(c: Comparison, k: int, constant: float, calls: list[Call]) -> None:
    said = found("idealised", constant=constant, apart=c.rows[k].max_rel)
    c.change(k, verdict="idealised", findings=(said,))
    c.constants[k] = calls


def _agrees(c: Comparison, k: int, gradient: Array) -> bool:
    """Tell whether a gradient is the ideal one; zeros are not written on purpose.

    One that is no larger than rounding is near to any that is: it must be far nearer to the ideal
    gradient than the true one is.
    """
    h, true = c.grads[k], c.reference.grads[k]
    if h is None or largest(h) == 0 or not np.isfinite(largest(gradient)):
        return False
    if not close(h, gradient, c.tolerance, c.floors[k]):
        return False
    is_sized = largest(h) > np.max(c.floors[k])
    return is_sized or largest(h - gradient) <= 0.1 * largest(true - gradient)


def _is_steady(c: Comparison, ideal: Graph, k: int, without: list[Guard]) -> bool:
    """Tell whether a gradient has its digits: the log of a saturated 1 - y has few or none."""
    gradient = ideal.gradient(k)
    if not np.isfinite(largest(gradient)):
        return False
    for salt in (1, 2, 3):
        rounded = drawn_anew(c.reference.eps_of_trace, salt)
        there = ideal.gradients(ideal.replay(without=without, rounded=rounded))[k]
        if not largest(there - gradient) <= 1e-2 * c.tolerance * largest(gradient):
            return False
    return True


def _agreeing_at_milder_values(c: Comparison) -> tuple[list[set[int]], list[float]]:
    """Return for each small constant the gradients that are those without it, and the constants.

    Where the ideal forward pass has no digits left, as in the log of a probability that is rounded
    to zero, a handwritten gradient can only be known by its formula: for smaller values, where
    saturated functions are not, it must be the ideal one.
    """
    found: list[set[int]] = []
    constants: list[float] = []
    most = max((largest(value) for value in c.subject.values), default=1.0)
    for factor in (0.1, 0.01, *((3 / most,) if most > 1e3 else ())):
        agreeing = _agreeing_at(c, factor)
        constants = [constant for constant, _ in agreeing] or constants
        found += [set() for _ in agreeing[len(found) :]]
        for known, (_, ks) in zip(found, agreeing, strict=False):
            known |= ks
    return found, constants


def _agreeing_at(c: Comparison, factor: float) -> list[tuple[float, set[int]]]:
    """Return each constant, and which gradients are those without it at scaled values."""
    subject, reference = c.subject, c.reference
    others = [(factor * value).astype(value.dtype) for value in subject.values]
    tolerance = 100 * c.tolerance if reference.single else c.tolerance
    with subject.session.moved(subject.values, others):
        try:
            there = by_autograd(
                subject, c.upstream, rebind=reference.rebound, double=reference.double
            )
            with subject.session.fresh():
                grads = c.backward()
        except CheckError:
            return []
        subject.session.restore()
        assert there.recording is not None
        graph, found = Graph(there.recording), []
        for left_out in guards(graph):
            ideal = graph.without(left_out)
            agreeing = {
                k
                for k in c.doubtful
                if ideal is not None
                and _is_steady(c, ideal, k, left_out)
                and close(grads[k], ideal.gradient(k), tolerance)
            }
            found.append((_largest_of(left_out), agreeing))
        return found


# -------------------- in a graph --------------------


def guards(graph: Graph) -> list[list[Guard]]:
    """Return what may be left out: each small constant by itself, and all of them together."""
    found = [
        (node.call, position)
        for node in graph.nodes
        if primitive(node.name).guards
        for position, arg in enumerate(node.call.args)
        if is_number(arg) and 0 < abs(float(arg)) <= SMALL and _reaches_guarded(node)
    ]
    return [[guard] for guard in found] + ([found] if len(found) > 1 else [])


def _largest_of(left_out: list[Guard]) -> float:
    return max(float(call.args[position]) for call, position in left_out)


def _reaches_guarded(node: Node) -> bool:
    """Tell whether a value is handed on to a logarithm, a root or a denominator."""
    pending, met = [node], {id(node)}
    while pending:
        value = pending.pop()
        for user in value.users:
            if id(user) in met:
                continue
            if _is_guarded(user, value):
                return True
            if user.name in _DIVIDES or primitive(user.name).hands_on:
                met.add(id(user))
                pending.append(user)
    return False


def _is_guarded(user: Node, value: Node) -> bool:
    places = [i for i, p in zip(user.argnums, user.parents, strict=True) if p is value]
    if user.name in _DIVIDES:
        return 1 in places
    if user.name == "power":
        return 0 in places and is_root(user.args[1])
    return primitive(user.name).is_singular


def is_root(exponent: object) -> bool:
    """Tell whether a power is a root or a quotient."""
    plain = np.asarray(exponent)
    return plain.dtype.kind in "fiu" and bool(np.all(plain < 0) or np.all(plain % 1 != 0))


# -------------------- in code, where there is no graph --------------------


def _find_in_code(c: Comparison) -> None:
    """Do the same with forward's code, in which the constants are zero."""
    if c.subject.with_forward is None:
        return
    is_defined = True
    method: Any = c.subject.forward_code[0]
    code: FunctionType = getattr(method, "__func__", method)
    for constant, function in without_small_constants(code):
        try:
            ideal = c.subject.with_forward(function)
            grads = find_reference(ideal, c.upstream, np.random.default_rng(0), 1.0).grads
        except CheckError:
            is_defined = False
            continue
        for k in c.doubtful if grads else ():
            if _agrees(c, k, grads[k]):
                _say(c, k, constant, [])
    if c.doubtful and not is_defined:
        for agreeing, constant in zip(*_agreeing_at_milder_values(c), strict=False):
            for k in agreeing & set(c.doubtful):
                _say(c, k, constant, [])


def without_small_constants(function: FunctionType, depth: int = 2) -> Iterator[Without]:
    """Yield each small constant of a function or its helpers, and the function with zero for it.

    Of several in one function, all of them together come last.
    """
    code, names = function.__code__, function.__globals__

    def rebuilt(code: CodeType, names: dict[str, object]) -> FunctionType:
        defaults, closure = function.__defaults__, function.__closure__
        return FunctionType(code, names, function.__name__, defaults, closure)

    small = [c for c in guards_in(function) if 0 < abs(c) <= SMALL]
    for left_out in [[c] for c in small] + ([small] if len(small) > 1 else []):
        yield max(left_out), rebuilt(_without(code, left_out), names)
    for name in code.co_names:
        helper = names.get(name)
        if depth and isinstance(helper, FunctionType) and helper is not function:
            for constant, other in without_small_constants(helper, depth - 1):
                yield constant, rebuilt(code, {**names, name: other})


def _without(code: CodeType, numbers: list[float]) -> CodeType:
    """Return code in which some constants are zero, in the functions inside it too."""

    def other(constant: object) -> object:
        if isinstance(constant, CodeType):
            return _without(constant, numbers)
        return 0.0 if isinstance(constant, float) and constant in numbers else constant

    return code.replace(co_consts=tuple(map(other, code.co_consts)))


def guards_in(function: FunctionType) -> list[float]:
    """Return the constants of a function's text that are such guards; none without a text."""
    text = text_of(function)
    if text is None:
        return []
    nodes = [pair for step in text.steps for pair in _with_parents(step.node)]
    names: set[str] = set()  # the variables that are handed on to a logarithm, a root, …
    for _ in range(3):  # by way of other variables
        names |= {
            ast.unparse(node)
            for node, above in nodes
            if isinstance(node, ast.Name | ast.Attribute)
            if _is_within_guarded(node, above, names)
        }
    found = [
        node.value
        for node, above in nodes
        if isinstance(node, ast.Constant) and isinstance(node.value, float)
        if _is_within_guarded(node, above, names)
    ]
    return list(dict.fromkeys(found))


def _with_parents(node: ast.AST, above: tuple[ast.AST, ...] = ()) -> Iterator[Nested]:
    yield node, above
    for child in ast.iter_child_nodes(node):
        yield from _with_parents(child, (node, *above))


def _is_within_guarded(node: ast.AST, above: tuple[ast.AST, ...], names: set[str]) -> bool:
    """Tell whether an expression is handed on to what it guards, as far as a statement tells."""
    for parent in above:
        if isinstance(parent, ast.Assign):
            return any(ast.unparse(target) in names for target in parent.targets)
        if isinstance(parent, ast.Call):
            called = primitive(root_of(parent.func).split(".")[-1])
            if node is not parent.func and called.is_singular:
                return True
            if not called.hands_on:
                return False
        elif isinstance(parent, ast.BinOp):
            if isinstance(parent.op, ast.Div) and node is parent.right:
                return True
            if isinstance(parent.op, ast.Pow):
                return node is parent.left and _is_literal_root(parent.right)
        elif not isinstance(parent, ast.Subscript | ast.UnaryOp | ast.Attribute):
            return False
        node = parent
    return False


def _is_literal_root(exponent: ast.expr) -> bool:
    try:
        return is_root(ast.literal_eval(exponent))
    except (ValueError, TypeError):
        return False
