"""Numbers in a statement: what others may have been meant, as factors, as indices, as counts."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from typing import Any

from .layouts import letters_swapped
from .statements import REFERENCE, Offer, Reach, Slot, parsed

_INDICES = ("{}", "-{}", "{} + 1", "{} - 1", "-{} + 1", "-{} - 1")  # of a number in reach
_INDEX = ast.Constant | ast.BinOp | ast.UnaryOp


def constants(value: Any, reach: Reach) -> Iterator[Offer]:
    """Yield other numbers, words or truths."""
    if isinstance(value, bool):
        yield 1.1, ast.Constant(not value)
    if isinstance(value, str):
        words = [thing for thing in reach.values() if isinstance(thing, str)]
        words += letters_swapped(value) if "->" in value else []
        yield from ((1.1, ast.Constant(word)) for word in words if word != value)
    if type(value) not in (int, float):
        return
    others: list[float] = [value + 1, value - 1, 0, 1, 2, -1] if type(value) is int else []
    others += [-value, 0.5, 1.0]
    yield from ((1.1, ast.Constant(o)) for o in dict.fromkeys(others) if o != value)
    for times in (2, 3, 0.5) if value else ():
        is_short = len(repr(times * value)) < 5
        product = ast.BinOp(ast.Constant(times), ast.Mult(), ast.Constant(value))
        yield 1.1, ast.Constant(times * value) if is_short else product
    for text, thing in reach.items():
        if not isinstance(thing, str):
            yield 1.35 if isinstance(thing, tuple) else 1.3, parsed(text)


def counts(slot: Slot, body: Slot) -> bool:
    """Tell whether an expression is an index, or says how a loop goes."""
    holder, field, *_ = slot
    is_in_index = field == "elts" and any(
        getattr(node, "slice", None) is holder for node in ast.walk(body[3])
    )
    return is_in_index or field in ("slice", "lower", "upper") or isinstance(body[3], ast.For)


def counted(slot: Slot, body: Slot, reach: Reach) -> Iterator[Offer]:
    """Yield another index, a step before or behind, or a loop that goes the other way."""
    _, field, _, node = slot
    if field == "iter":
        reverse = isinstance(node, ast.Call) and ast.unparse(node.func) == "reversed"
        other = node.args[0] if reverse else parsed(f"reversed({ast.unparse(node)})")
        yield 1.1, other
        return
    numbers = [text for text, thing in reach.items() if type(thing) is int]
    if isinstance(node, ast.Slice) and node.lower is node.upper is node.step is None:
        yield from ((1.3, parsed(f"np.arange({text})")) for text in numbers)
    if not counts(slot, body):
        return
    if isinstance(node, REFERENCE | ast.BinOp | ast.UnaryOp):
        for op in (ast.Add(), ast.Sub()):
            yield 1.1, ast.BinOp(node, op, ast.Constant(1))
        if type(reach.get(ast.unparse(node))) is int:
            yield 1.2, ast.Constant(0)
    cost = 1.0 if isinstance(node, ast.Constant) else 1.2
    for i, form in enumerate(_INDICES if isinstance(node, _INDEX) else ()):
        yield from ((cost + 0.2 * (i > 0), parsed(form.format(text))) for text in numbers)


def counted_otherwise(node: Any, held: Reach) -> Iterator[Offer]:
    """Yield other counts of the entries of an array whose length stands there, or their sum."""
    is_shape = isinstance(node, ast.Subscript) and getattr(node.value, "attr", "") == "shape"
    if is_shape or getattr(node, "attr", "") == "size":
        text = ast.unparse(node.value.value if is_shape else node.value)
    elif isinstance(node, ast.Call) and ast.unparse(node.func) == "len" and node.args:
        text = ast.unparse(node.args[0])
    else:
        return
    count = len(held[text]) if isinstance(held.get(text), tuple) else 0
    forms = [f"{text}.shape[{axis}]" for axis in range(count)]
    forms += [f"({text}.size // {form})" for form in forms] if count > 2 else []
    forms += [f"{text}.sum()"] if count == 1 else [f"{text}.size"]
    yield from ((1.2, parsed(form)) for form in forms if count)


def lengths_in(statement: ast.AST, reach: Reach) -> list[ast.expr]:
    """Return the lengths of the axes of what a statement names, of each length one."""
    names = {ast.unparse(part) for part in ast.walk(statement) if isinstance(part, REFERENCE)}
    arrays = [(name, reach[name]) for name in sorted(names) if isinstance(reach.get(name), tuple)]
    found = {n: f"{name}.shape[{i}]" for name, shape in arrays for i, n in enumerate(shape)}
    return [parsed(text) for n, text in found.items() if n > 1]
