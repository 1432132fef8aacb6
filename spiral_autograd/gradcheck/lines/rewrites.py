"""Changes of an expression that have to be counted out: axes, orders, numbers, lengths."""

from __future__ import annotations

import ast
from collections.abc import Callable, Iterator
from copy import deepcopy
from itertools import combinations, permutations
from typing import Any

from .grammar import DERIVATIVES, FUNCTIONS, OPERATORS, REDUCING
from .parts import Part, Seen
from .tree import REFERENCE, Offer, filled, matched, parsed


def rewritten(part: Part) -> Iterator[Offer]:
    """Yield what may stand in the place of an expression, by what it is."""
    node, roles, seen = part.node, part.roles, part.seen
    for kind, offers in _BY_KIND.items():
        if isinstance(node, kind):
            yield from offers(node, seen)
    if "axes" in roles:
        yield from _turned(node, seen)
    if "shaped" in roles and "term" in roles:
        yield from ((1.6, filled("a / b", a=node, b=n)) for n in _lengths_in(seen))
    if part.field == "iter":
        is_reversed = isinstance(node, ast.Call) and ast.unparse(node.func) == "reversed"
        yield 1.1, node.args[0] if is_reversed else filled("reversed(a)", a=node)


# -------------------- by what stands there --------------------


def _of_call(node: ast.Call, seen: Seen) -> Iterator[Offer]:
    """Yield what is given, or arguments in each other's places."""
    if isinstance(node.func, ast.Attribute):
        if node.args:
            yield 1.3, node.args[0]
        if node.func.attr in (*REDUCING, "copy", "transpose"):
            yield 1.3, node.func.value
    if len(node.args) == 2:
        yield 1.1, ast.Call(node.func, node.args[::-1], node.keywords)
    yield from _over_other_axes(node, seen)
    yield from _split(node)


def _over_other_axes(node: ast.Call, seen: Seen) -> Iterator[Offer]:
    """Yield a sum, or the like, over other axes, which may be kept."""
    if not isinstance(node.func, ast.Attribute) or node.func.attr not in REDUCING:
        return
    given = [node.func.value, *node.args]  # an array, or a module and an array; then axes
    shapes = [seen.held.get(ast.unparse(some)) for some in given[:2]]
    at, shape = next(((i, s) for i, s in enumerate(shapes) if isinstance(s, tuple)), (0, ()))
    axes = [*given[at + 1 :], *(key.value for key in node.keywords if key.arg == "axis")]
    written = len(getattr(axes[0], "elts", axes[:1])) if axes else 0
    every = range(len(shape))
    for some in (some for n in every[1:] for some in combinations(every, n)):
        over = ast.keyword("axis", parsed(str(some[0] if len(some) == 1 else some)))
        for kept in ([ast.keyword("keepdims", ast.Constant(True))], []):
            cost = 1.05 if written == len(some) else 1.2
            yield cost, ast.Call(node.func, given[1 : at + 1], [over, *kept])


def _split(node: ast.Call) -> Iterator[Offer]:
    """Yield an array whose axis is split in another order than the axes are to have."""
    sizes = node.args[0].elts if node.args and isinstance(node.args[0], ast.Tuple) else node.args
    if getattr(node.func, "attr", "") != "reshape" or len(sizes) < 3:
        return
    for axis in range(len(sizes) - 1):
        order = [*sizes[:axis], sizes[axis + 1], sizes[axis], *sizes[axis + 2 :]]
        split = ast.Call(node.func, order, [])
        yield 1.2, filled(f"a.swapaxes({axis}, {axis + 1})", a=split)


def _reordered(node: ast.Tuple | ast.List, seen: Seen) -> Iterator[Offer]:
    """Yield a tuple or a list in which a few things have changed places, of many two."""
    n, orders = len(node.elts), list[tuple[int, ...]]()
    if n < 5:
        every = permutations(range(n))
        orders += [o for o in every if 0 < sum(i != j for i, j in enumerate(o)) < 4]
    elif n < 9:
        for one, other in combinations(range(n), 2):
            orders.append(tuple({one: other, other: one}.get(i, i) for i in range(n)))
    yield from ((1.0, type(node)([node.elts[i] for i in o], node.ctx)) for o in orders)


def _of_one_thing(node: ast.BinOp, seen: Seen) -> Iterator[Offer]:
    """Yield other derivatives where all is made of one array."""
    names = seen.reach.keys() & {ast.unparse(n) for n in ast.walk(node) if isinstance(n, REFERENCE)}
    if not isinstance(node.op, ast.Mult | ast.Sub) or len(names) != 1:
        return
    if isinstance(seen.reach[name := names.pop()], tuple):
        yield from ((1.3, filled(form, b=parsed(name))) for form in DERIVATIVES)


def _bound(node: ast.Lambda, seen: Seen) -> Iterator[Offer]:
    """Yield a function that keeps a number as it is now: a loop goes on behind it."""
    names = dict.fromkeys(n.id for n in ast.walk(node.body) if isinstance(n, ast.Name))
    for name in (name for name in names if type(seen.held.get(name)) is int):
        kept = deepcopy(node)
        kept.args.args.append(ast.arg(name))
        kept.args.defaults.append(ast.Name(name, ast.Load()))
        yield 1.1, kept


def _of_comparison(node: ast.Compare, seen: Seen) -> Iterator[Offer]:
    """Yield what is compared, or the slopes of a leaky ReLU."""
    yield 1.0, node.left
    slopes = [text for text, n in seen.reach.items() if type(n) is float and 0 < n < 1]
    yield from ((1.3, filled("np.where(a, 1, b)", a=node, b=parsed(s))) for s in slopes)


def _of_operator(node: ast.operator | ast.cmpop, seen: Seen) -> Iterator[Offer]:
    yield from ((1.0, other()) for other in OPERATORS.get(type(node), ()))


def _of_function(node: ast.Attribute, seen: Seen) -> Iterator[Offer]:
    """Yield other functions of a module, or of an array."""
    for name in FUNCTIONS.get(node.attr, ()):
        yield 1.0, ast.Attribute(node.value, name, node.ctx)


# -------------------- numbers and words --------------------


def _other_constants(node: ast.Constant, seen: Seen) -> Iterator[Offer]:
    """Yield other numbers, words or truths."""
    value: Any = node.value
    others: list[ast.expr] = []
    if isinstance(value, bool):
        others = [ast.Constant(not value)]
    elif isinstance(value, str):
        words = [thing for thing in seen.reach.values() if isinstance(thing, str)]
        swapped = _letters_swapped(value) if "->" in value else ()
        others = [ast.Constant(word) for word in (*words, *swapped) if word != value]
    elif type(value) in (int, float):
        others = [*_other_numbers(value)]
    yield from ((1.1, other) for other in others)


def _other_numbers(value: float) -> Iterator[ast.expr]:
    """Yield numbers near another one, common ones, and multiples of it."""
    near = [value + 1, value - 1, 0, 1, 2, -1] if isinstance(value, int) else []
    for other in dict.fromkeys([*near, -value, 0.5, 1.0]):
        if other != value:
            yield ast.Constant(other)
    for times in (2, 3, 0.5) if value else ():
        is_short = len(repr(times * value)) < 5
        yield ast.Constant(times * value) if is_short else parsed(f"{times} * {value!r}")


def _letters_swapped(subscripts: str) -> Iterator[str]:
    """Yield the subscripts of an `einsum` with two letters of one operand swapped."""
    at = [i for i, letter in enumerate(subscripts) if letter.isalpha()]
    for first, second in combinations(at, 2):
        if subscripts[first : second + 1].isalpha():
            letters = list(subscripts)
            letters[first], letters[second] = letters[second], letters[first]
            yield "".join(letters)


def _other_lengths(node: ast.expr, seen: Seen) -> Iterator[Offer]:
    """Yield other counts of the entries of an array whose length stands there, or their sum."""
    of = ("a.shape[b]", "a.size", "len(a)")
    found = next((holes for form in of if (holes := matched(form, node)) is not None), None)
    text = ast.unparse(found["a"]) if found else ""
    count = len(seen.held[text]) if isinstance(seen.held.get(text), tuple) else 0
    forms = [f"{text}.shape[{axis}]" for axis in range(count)]
    forms += [f"({text}.size // {form})" for form in forms] if count > 2 else []
    forms += [f"{text}.sum()"] if count == 1 else [f"{text}.size"]
    yield from ((1.2, parsed(form)) for form in forms if count)


# -------------------- arrays --------------------


def _turned(node: ast.expr, seen: Seen) -> Iterator[Offer]:
    """Yield an array of more than two axes with these in another order."""
    own = seen.held.get(ast.unparse(node))
    ndim = len(own) if isinstance(own, tuple) else max(map(len, seen.shapes), default=0)
    views = [f"swapaxes({axis}, {axis + 1})" for axis in range(-ndim, -1) if ndim > 2]
    if ndim > 3:  # the channels to the end, or back from it
        orders = (0, *range(2, ndim), 1), (0, ndim - 1, *range(1, ndim - 1))
        views += [f"transpose({', '.join(map(str, order))})" for order in orders]
    yield from ((1.1, filled(f"a.{view}", a=node)) for view in views)


def _lengths_in(seen: Seen) -> list[ast.expr]:
    """Return the lengths of the axes of what a statement names, of each length one."""
    nodes = (node for node in ast.walk(seen.body[3]) if isinstance(node, REFERENCE))
    shapes = {name: seen.reach.get(name) for name in sorted(set(map(ast.unparse, nodes)))}
    arrays = [(name, shape) for name, shape in shapes.items() if isinstance(shape, tuple)]
    found = {n: f"{name}.shape[{i}]" for name, shape in arrays for i, n in enumerate(shape)}
    return [parsed(text) for n, text in found.items() if n > 1]


_BY_KIND: dict[Any, Callable[[Any, Seen], Iterator[Offer]]] = {
    ast.Call: _of_call,
    ast.Tuple | ast.List: _reordered,
    ast.BinOp: _of_one_thing,
    ast.Lambda: _bound,
    ast.Compare: _of_comparison,
    ast.Attribute: _of_function,
    ast.operator | ast.cmpop: _of_operator,
    ast.Constant: _other_constants,
    ast.expr: _other_lengths,
}
