"""Along what other axes, and in what other order, an expression may take an array."""

from __future__ import annotations

import ast
from collections.abc import Iterator, Sequence
from itertools import combinations
from typing import Any

from ...validation import Shape
from .statements import Offer, Reach, parsed

REDUCING = ("sum", "mean", "max", "median", "min")


def reduced(node: ast.Call, held: Reach) -> Iterator[Offer]:
    """Yield a sum, or the like, over other axes, which may be kept."""
    if not isinstance(node.func, ast.Attribute) or node.func.attr not in REDUCING:
        return
    shapes = [held.get(ast.unparse(some)) for some in (node.func.value, *node.args[:1])]
    count = next((len(shape) for shape in shapes if isinstance(shape, tuple)), 0)
    every = [some for n in range(1, count) for some in combinations(range(count), n)]
    args = node.args[: 0 if isinstance(shapes[0], tuple) else 1]
    named = {key.arg: key.value for key in node.keywords}
    axis = named.get("axis", next(iter(node.args[len(args) :]), None))
    kept, given = "keepdims" in named, getattr(axis, "elts", [axis])
    for some in every:
        cost = 1.05 if axis is not None and len(given) == len(some) else 1.2
        is_usual = len(some) in (1, count - 1) or some == (count - 2, count - 1)
        for keeps in (True, False) if is_usual else (kept,):
            over = parsed(str(some[0] if len(some) == 1 else some))
            keywords = [ast.keyword("axis", over)]
            keywords += [ast.keyword("keepdims", ast.Constant(True))] if keeps else []
            yield cost, ast.Call(node.func, args, keywords)


def split(node: ast.Call) -> Iterator[Offer]:
    """Yield an array whose axis is split in another order than the axes are to have."""
    sizes = node.args[0].elts if node.args and isinstance(node.args[0], ast.Tuple) else node.args
    if getattr(node.func, "attr", "") != "reshape" or len(sizes) < 3:
        return
    for axis in range(len(sizes) - 1):
        order = [*sizes[:axis], sizes[axis + 1], sizes[axis], *sizes[axis + 2 :]]
        swapped = ast.Attribute(ast.Call(node.func, order, []), "swapaxes", ast.Load())
        yield 1.2, ast.Call(swapped, [ast.Constant(axis), ast.Constant(axis + 1)], [])


def letters_swapped(subscripts: str) -> Iterator[str]:
    """Yield the subscripts of an `einsum` with two letters of one operand swapped."""
    at = [i for i, letter in enumerate(subscripts) if letter.isalpha()]
    for first, second in combinations(at, 2):
        if subscripts[first : second + 1].isalpha():
            letters = list(subscripts)
            letters[first], letters[second] = letters[second], letters[first]
            yield "".join(letters)


def turned(own: Any, shapes: Sequence[Shape]) -> Iterator[str]:
    """Yield how the axes of an array of more than two may be in another order."""
    ndim = len(own) if isinstance(own, tuple) else max(map(len, shapes), default=0)
    if ndim > 2:
        yield from (f".swapaxes({axis}, {axis + 1})" for axis in range(-ndim, -1))
    if ndim > 3:  # the channels to the end, or back from it
        yield f".transpose({', '.join(map(str, (0, *range(2, ndim), 1)))})"
        yield f".transpose({', '.join(map(str, (0, ndim - 1, *range(1, ndim - 1))))})"


def backwards(own: Any) -> Iterator[tuple[float, str]]:
    """Yield how an array may run backwards: along its first axis or two, or its last."""
    ndim = len(own) if isinstance(own, tuple) else 0
    yield from ((1.3, way) for way in ("::-1", "::-1, ::-1")[:ndim])
    if ndim > 1:
        yield from ((1.4, way) for way in ("..., ::-1", "..., ::-1, ::-1")[: ndim - 1])


def products(text: str, shape: Shape, reach: Reach) -> Iterator[str]:
    """Yield the matrix products with another matrix in reach, in place of an array."""
    for other, thing in reach.items():
        if isinstance(thing, tuple) and len(thing) == 2 and other != text:
            for turned, (rows, columns) in ((other, thing), (f"{other}.T", thing[::-1])):
                if rows == shape[-1]:
                    yield f"({text} @ {turned})"
                if len(shape) == 2 and columns == shape[0]:
                    yield f"({turned} @ {text})"
