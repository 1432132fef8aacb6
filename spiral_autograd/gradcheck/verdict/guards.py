"""Small constants that keep a logarithm, a root or a quotient from zero, which people leave out.

Only these are left out of a backward pass on purpose. A target, a margin or a decay is none.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from types import CodeType, FunctionType
from typing import Any

import numpy as np

from ...recording import Call, name_of
from ..reference.backward_graph import BackwardGraph
from ..source import root_of, text_of

LOGS_AND_ROOTS = frozenset("log log2 log10 log1p sqrt rsqrt cbrt reciprocal".split())

# What hands a value on to a logarithm, a root or a quotient, more or less as it is.
HANDING_ON = frozenset(
    "reshape ravel transpose swapaxes moveaxis squeeze expand_dims broadcast_to repeat tile "
    "concatenate stack take getitem __getitem__ sum mean max amax min amin multiply negative "
    "maximum minimum fmax fmin clip where copy astype _astype float".split()
)


def is_root(exponent: Any) -> bool:
    """Tell whether a power is a root or a quotient."""
    plain = np.asarray(exponent)
    return plain.dtype.kind in "fiu" and bool(np.all(plain < 0) or np.all(plain % 1 != 0))


# -------------------- in a recording --------------------

Guard = tuple[Call, int, float]


def guards(graph: BackwardGraph) -> list[list[Guard]]:
    """Return what may be left out: each guard by itself, and all of them together.

    Each is a call, the number of its argument, and the value of that.
    """
    found = [
        (call, position, constant)
        for call, position, constant in graph.small_constants()
        if _reaches_guarded(graph, call)
    ]
    return [[guard] for guard in found] + ([found] if len(found) > 1 else [])


def _reaches_guarded(graph: BackwardGraph, call: Call) -> bool:
    """Tell whether a value is handed on to a logarithm, a root or a denominator."""
    pending, met = [call], {call}
    while pending:
        value = pending.pop()
        for user in graph.users(value):
            if user.gradient_of is not None or user in met:
                continue
            if _is_guarded(user, value):
                return True
            is_numerator = name_of(user.fun) in ("divide", "true_divide")
            if is_numerator or name_of(user.fun) in HANDING_ON:
                met.add(user)
                pending.append(user)
    return False


def _is_guarded(user: Call, value: Call) -> bool:
    name = name_of(user.fun)
    if name in ("divide", "true_divide"):
        return len(user.args) > 1 and user.args[1] is value
    if name == "power":
        exponent = user.args[1]
        power = exponent.value if isinstance(exponent, Call) else exponent
        return user.args[0] is value and is_root(power)
    return name in LOGS_AND_ROOTS


# -------------------- in the text --------------------


def without_small_constants(function: Any, depth: int = 2) -> Iterator[tuple[float, Any]]:
    """Yield each small constant of a function or its helpers, and the function with zero for it.

    Of several in one function, all of them together come last.
    """
    code, names = function.__code__, function.__globals__

    def rebuilt(code: Any, names: dict[str, Any]) -> Any:
        defaults, closure = function.__defaults__, function.__closure__
        return FunctionType(code, names, function.__name__, defaults, closure)

    small = [c for c in guards_in(function) if 0 < abs(c) <= 1e-2]
    for left_out in [[c] for c in small] + ([small] if len(small) > 1 else []):
        yield max(left_out), rebuilt(_without(code, left_out), names)
    for name in code.co_names:
        helper = names.get(name)
        if depth and isinstance(helper, FunctionType) and helper is not function:
            for constant, other in without_small_constants(helper, depth - 1):
                yield constant, rebuilt(code, {**names, name: other})


def _without(code: CodeType, numbers: list[float]) -> CodeType:
    """Return code in which some constants are zero, in the functions inside it too."""

    def other(constant: Any) -> Any:
        if isinstance(constant, CodeType):
            return _without(constant, numbers)
        return 0.0 if isinstance(constant, float) and constant in numbers else constant

    return code.replace(co_consts=tuple(map(other, code.co_consts)))


def guards_in(function: Any) -> list[float]:
    """Return the constants of a function's text that are such guards; none without a text."""
    text = text_of(function)
    if text is None:
        return []
    names = _guarded_names(text.steps)
    found = [
        node.value
        for step in text.steps
        for node, above in _with_parents(step.node)
        if isinstance(node, ast.Constant) and isinstance(node.value, float)
        if _is_within_guarded(node, above, names)
    ]
    return list(dict.fromkeys(found))


def _guarded_names(steps: Any) -> set[str]:
    """Return the variables that are handed on to a logarithm, a root or a denominator."""
    found: set[str] = set()
    for _ in range(3):  # by way of other variables
        found |= {
            ast.unparse(node)
            for step in steps
            for node, above in _with_parents(step.node)
            if isinstance(node, ast.Name | ast.Attribute)
            if _is_within_guarded(node, above, found)
        }
    return found


def _with_parents(node: ast.AST, above: tuple[ast.AST, ...] = ()) -> Iterator[Any]:
    yield node, above
    for child in ast.iter_child_nodes(node):
        yield from _with_parents(child, (node, *above))


def _is_within_guarded(node: ast.AST, above: tuple[ast.AST, ...], names: set[str]) -> bool:
    """Tell whether an expression is handed on to what it guards, as far as a statement tells."""
    for parent in above:
        if isinstance(parent, ast.Assign):
            return any(ast.unparse(target) in names for target in parent.targets)
        if isinstance(parent, ast.Call):
            called = root_of(parent.func).split(".")[-1]
            if node is not parent.func and called in LOGS_AND_ROOTS:
                return True
            if called not in HANDING_ON:
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
