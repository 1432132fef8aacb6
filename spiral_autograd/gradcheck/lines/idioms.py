"""What people write for what they mean: idioms that are easily taken for one another."""

from __future__ import annotations

import ast
import copy
from collections.abc import Iterator
from itertools import combinations
from typing import Any

from .statements import REFERENCE, Offer, Reach, parsed, renamed, together

_FEW = 8  # things in a statement, of which two may be exchanged
_RUNNING = ("cumsum", "cumprod")
_SWAPPED = {ast.FloorDiv: ast.Mod, ast.Mod: ast.FloorDiv}


def idioms(node: ast.AST, statement: ast.AST, reach: Reach, written: Reach) -> Iterator[Offer]:
    """Yield what an expression may have been meant to be, by what it is."""
    if isinstance(node, ast.Call):
        yield from _of_call(node)
    elif isinstance(node, ast.Subscript) and isinstance(node.ctx, ast.Load):
        yield from _of_part(node, reach)
    elif isinstance(node, ast.Slice):
        yield from _of_slice(node)
    elif isinstance(node, ast.Tuple) and isinstance(node.ctx, ast.Load):
        yield from _of_tuple(node, reach)
    elif isinstance(node, ast.Compare) and ast.unparse(node).endswith("> 0"):
        slopes = [text for text, n in reach.items() if type(n) is float and 0 < n < 1]
        yield from ((1.3, parsed(f"np.where({ast.unparse(node)}, 1, {s})")) for s in slopes)
    elif isinstance(node, ast.BinOp):
        yield from _otherwise_bracketed(node)
        yield from _of_softmax(node, reach)
        yield from _conjugated(node, statement)
    if isinstance(node, ast.expr):
        text = ast.unparse(node)
        yield from _of_array(node, text, reach.get(text, written.get(text)))


def _of_array(node: ast.expr, text: str, held: Any) -> Iterator[Offer]:
    """Yield a square matrix with its transpose, or the positive part of a difference."""
    if isinstance(held, tuple) and len(held) == 2 and held[0] == held[1] > 1:
        yield 1.4, parsed(f"({text} + ({text}).T)")
    if isinstance(held, tuple) and isinstance(node, ast.BinOp) and isinstance(node.op, ast.Sub):
        yield 1.4, parsed(f"np.maximum({text}, 0)")


def _of_tuple(node: ast.Tuple, reach: Reach) -> Iterator[Offer]:
    """Yield a tuple with what may be in the place of one of its parts."""
    for i, part in enumerate(node.elts):
        for cost, other in _exchanged(part, reach):
            elements: list[Any] = [*node.elts[:i], other, *node.elts[i + 1 :]]
            yield cost, ast.Tuple(elements, node.ctx)


def _of_call(node: ast.Call) -> Iterator[Offer]:
    """Yield a sum that runs backwards, other branches, or a factor outside of a function."""
    called = getattr(node.func, "attr", "")
    if called in _RUNNING and node.args:
        first = node.args[0]
        if {key.arg: ast.unparse(key.value) for key in node.keywords}.get("axis", "0") == "0":
            turned = ast.Call(node.func, [_turned(first), *node.args[1:]], node.keywords)
            yield 1.2, _turned(turned)
    if called == "where" and len(node.args) == 3:
        test, yes, no = node.args
        yield 1.1, ast.Call(node.func, [test, no, yes], node.keywords)
    if called == "take_along_axis" and len(node.args) == 3:  # the order, not its inverse
        array, order, axis = node.args
        inverse = parsed(f"np.argsort({ast.unparse(order)}, {ast.unparse(axis)})")
        yield 1.2, ast.Call(node.func, [array, inverse, axis], node.keywords)
    part = node.args[0] if len(node.args) == 1 else None
    if isinstance(part, ast.BinOp) and isinstance(part.op, ast.Mult | ast.Div):
        inner = ast.Call(node.func, [part.left], node.keywords)
        yield 1.3, ast.BinOp(inner, part.op, part.right)


def _turned(node: ast.expr) -> ast.expr:
    return parsed(f"({ast.unparse(node)})[::-1]")


def _of_part(node: ast.Subscript, reach: Reach) -> Iterator[Offer]:
    """Yield the inverse of a permutation, or zeros where an index would begin from the end."""
    text, index = ast.unparse(node), ast.unparse(node.slice)
    if isinstance(reach.get(index), tuple) and len(reach[index]) == 1:
        yield 1.3, parsed(f"{ast.unparse(node.value)}[np.argsort({index})]")
    before = [
        part.left.id
        for part in ast.walk(node.slice)
        if isinstance(part, ast.BinOp) and isinstance(part.op, ast.Sub)
        if isinstance(part.left, ast.Name) and ast.unparse(part.right) == "1"
    ]
    for counter in before[:1]:
        yield 1.1, parsed(f"({text} if {counter} > 0 else np.zeros_like({text}))")


def _of_slice(node: ast.Slice) -> Iterator[Offer]:
    """Yield the other end of what a slice cuts off, or leaves."""
    end = node.lower or node.upper
    if end is None or node.step is not None or (node.lower is not None and node.upper is not None):
        return
    ends: list[ast.expr] = [end, ast.UnaryOp(ast.USub(), end)]
    if isinstance(end, ast.UnaryOp) and isinstance(end.op, ast.USub):
        ends = [end.operand]
    for other in ends:
        is_begun = node.lower is None
        yield 1.1, ast.Slice(other if is_begun else None, None if is_begun else other)


def _of_softmax(node: ast.BinOp, reach: Reach) -> Iterator[Offer]:
    """Yield the derivative of a softmax along the last axis for a product of one or two arrays."""
    if not isinstance(node.op, ast.Mult):
        return
    texts = {ast.unparse(part) for part in ast.walk(node) if isinstance(part, REFERENCE)}
    arrays = sorted(text for text in texts if isinstance(reach.get(text), tuple))
    if len(arrays) == 1 and len(reach[arrays[0]]) > 0:
        a, n = arrays[0], f"{arrays[0]}.shape[-1]"
        yield 1.6, parsed(f"{a}[..., None] * (np.eye({n}) - {a}[..., None, :])")
    if len(arrays) == 2 and len(reach[arrays[0]]) > 1 and reach[arrays[0]] == reach[arrays[1]]:
        for a, g in (arrays, arrays[::-1]):
            yield 1.5, parsed(f"{a} * ({g} - ({a} * {g}).sum(axis=-1, keepdims=True))")


def _otherwise_bracketed(node: ast.BinOp) -> Iterator[Offer]:
    """Yield a sum and a product with the brackets elsewhere; a factor inside of a function."""
    if isinstance(node.op, ast.Add | ast.Sub):
        factors, first = [], node.left
        while isinstance(first, ast.BinOp) and isinstance(first.op, ast.Mult | ast.Div):
            factors.append((first.op, first.right))
            first = first.left
            whole: ast.expr = ast.BinOp(first, node.op, node.right)
            for op, factor in reversed(factors):
                whole = ast.BinOp(whole, op, factor)
            yield 1.2, whole
        yield from ((1.2, other) for other in _further_in(node.left, node))
    elif isinstance(node.op, ast.Mult | ast.Div):
        for one, other, in_front in ((node.left, node.right, False), (node.right, node.left, True)):
            if isinstance(one, ast.BinOp) and isinstance(one.op, ast.Add | ast.Sub):
                part = (other, one.left) if in_front else (one.left, other)
                if isinstance(node.op, ast.Mult) or not in_front:
                    yield 1.2, ast.BinOp(ast.BinOp(part[0], node.op, part[1]), one.op, one.right)
        yield from _moved_inside(node)


def _further_in(left: ast.expr, node: ast.BinOp) -> Iterator[ast.expr]:
    """Yield a sum as one within the last factor, or the power: ``a ** (n - 1)``."""
    if isinstance(left, ast.BinOp) and not isinstance(left.op, ast.Add | ast.Sub):
        inner = ast.BinOp(left.right, node.op, node.right)
        for other in (inner, *_further_in(left.right, node)):
            yield ast.BinOp(left.left, left.op, other)


def _moved_inside(node: ast.BinOp) -> Iterator[Offer]:
    """Yield a function times, or by, something as the function of that."""
    before, call = None, node.left
    if isinstance(call, ast.BinOp) and isinstance(call.op, ast.Mult):
        before, call = call.left, call.right
    if isinstance(call, ast.Call) and len(call.args) == 1 and not call.keywords:
        inner = ast.Call(call.func, [ast.BinOp(call.args[0], node.op, node.right)], [])
        yield 1.3, inner if before is None else ast.BinOp(before, ast.Mult(), inner)


def _conjugated(node: ast.BinOp, statement: ast.AST) -> Iterator[Offer]:
    """Yield a product of which the other factor is conjugated, or one of them."""
    if not isinstance(node.op, ast.Mult):
        return
    first, second = (ast.unparse(side) for side in (node.left, node.right))
    plain = [_plain(side) for side in (node.left, node.right)]
    if plain[0] != first and plain[1] == second:
        yield 1.1, parsed(f"{plain[0]} * np.conj({second})")
    elif plain[1] != second and plain[0] == first:
        yield 1.1, parsed(f"np.conj({first}) * {plain[1]}")
    elif plain == [first, second] and _is_complex(statement):
        yield 1.3, parsed(f"np.conj({first}) * ({second})")
        yield 1.3, parsed(f"({first}) * np.conj({second})")


def _is_complex(statement: ast.AST) -> bool:
    """Tell whether a statement has complex numbers in it, by what it calls or asks for."""
    return "fft" in (text := ast.unparse(statement)) or ".real" in text


def _plain(node: ast.expr) -> str:
    is_conjugate = isinstance(node, ast.Call) and ast.unparse(node.func) == "np.conj"
    return ast.unparse(node.args[0] if isinstance(node, ast.Call) and is_conjugate else node)


# -------------------- of a whole statement --------------------


def other_idioms(statement: ast.AST, reach: Reach) -> Iterator[Offer]:
    """Yield the statement with two things in each other's places, or without its indices."""
    yield from _exchanged(statement, reach)
    turned = [part for part in ast.walk(statement) if getattr(part, "attr", "") == "T"]
    if len(turned) > 1:
        yield 1.2, _Unturned().visit(copy.deepcopy(statement))
    if any(type(part) in _SWAPPED for part in ast.walk(statement)):
        yield 1.1, _Swapped().visit(copy.deepcopy(statement))
    if not isinstance(statement, ast.AugAssign) or not isinstance(statement.target, ast.Subscript):
        return
    target, value = statement.target, statement.value
    if isinstance(value, ast.Subscript) and ast.unparse(value.slice) == ast.unparse(target.slice):
        whole: Any = target.value
        yield 1.2, ast.AugAssign(whole, statement.op, value.value)
    yield from _with_another_index(statement, target, reach)


def _exchanged(node: ast.AST, reach: Reach) -> Iterator[Offer]:
    """Yield a node with two things that are alike in each other's places."""
    nodes = [part for part in ast.walk(node) if isinstance(part, REFERENCE)]
    texts = dict.fromkeys(ast.unparse(n) for n in nodes if isinstance(n.ctx, ast.Load))
    known = [text for text in texts if text in reach]
    for one, other in combinations(known, 2) if len(known) <= _FEW else ():
        if _alike(reach[one], reach[other]):
            yield 1.1, renamed(node, {one: other, other: one})


def _alike(one: object, other: object) -> bool:
    return type(one) is type(other) and (one == other or not isinstance(one, tuple))


def _with_another_index(
    statement: ast.AugAssign, target: ast.Subscript, reach: Reach
) -> Iterator[Offer]:
    """Yield the statement, and behind it the same with the other sign at another index."""
    indices = getattr(target.slice, "elts", [target.slice])
    own = [ast.unparse(i) for i in indices if type(reach.get(ast.unparse(i))) is int]
    op = ast.Sub() if isinstance(statement.op, ast.Add) else ast.Add()
    for other in (text for text, n in reach.items() if type(n) is int and own):
        if other != own[-1] and not isinstance(parsed(other), ast.Constant):
            there = renamed(target, {own[-1]: other})
            yield 1.4, together(statement, ast.AugAssign(there, op, statement.value))


class _Unturned(ast.NodeTransformer):
    """Leaves transposes out."""

    def visit_Attribute(self, node: ast.Attribute) -> ast.AST:
        """Return a node that is not transposed."""
        self.generic_visit(node)
        return node.value if node.attr == "T" else node


class _Swapped(ast.NodeTransformer):
    """Puts quotients and remainders in each other's places."""

    def generic_visit(self, node: ast.AST) -> ast.AST:
        """Return a node with the other operator."""
        super().generic_visit(node)
        if isinstance(node, ast.BinOp) and type(node.op) in _SWAPPED:
            node.op = _SWAPPED[type(node.op)]()
        return node
