"""What a statement of a backward pass may have been meant to be: one small change each."""

from __future__ import annotations

import ast
from collections.abc import Iterable, Iterator, Sequence
from copy import deepcopy
from dataclasses import dataclass
from itertools import combinations, permutations
from typing import Any

import numpy as np

from ...validation import Shape
from .idioms import idioms, other_idioms
from .layouts import REDUCING, backwards, products, reduced, split, turned
from .numbers import constants, counted, counted_otherwise, counts, lengths_in
from .statements import (
    REFERENCE,
    Offer,
    Reach,
    Slot,
    alike,
    changed_throughout,
    other_statements,
    parsed,
)

_OPERATORS: dict[type[ast.AST], tuple[type[ast.AST], ...]] = {
    ast.Add: (ast.Sub, ast.Mult),
    ast.Sub: (ast.Add,),
    ast.Mult: (ast.Div, ast.MatMult),
    ast.Div: (ast.Mult,),
    ast.Lt: (ast.LtE, ast.Gt),
    ast.LtE: (ast.Lt, ast.GtE, ast.Gt),
    ast.Gt: (ast.GtE, ast.Lt),
    ast.GtE: (ast.Gt, ast.LtE, ast.Lt),
    ast.FloorDiv: (ast.Mod,),
    ast.Mod: (ast.FloorDiv,),
}
_FUNCTIONS: dict[str, tuple[str, ...]] = {
    **dict.fromkeys(REDUCING, ("sum", "mean", "max")),
    "sin": ("cos",),
    "cos": ("sin",),
    "maximum": ("minimum",),
    "minimum": ("maximum",),
    "argmax": ("argmin",),
    "argmin": ("argmax",),
    "fft": ("ifft",),
    "ifft": ("fft",),
    "fft2": ("ifft2",),
    "ifft2": ("fft2",),
    "rfft": ("irfft",),
    "irfft": ("rfft",),
}
_CUT_OFF = ("np.minimum({0}, 0)", "np.maximum({0}, 0)", "np.clip({0}, -1, 1)")
_DERIVATIVES = ("(1 - {0})", "(1 - {0}**2)", "{0} * (1 - {0})", "({0} > 0)", "np.sign({0})")
_SIGMOID = "(1 / (1 + np.exp(-{0})))"  # the derivative of softplus
_SLOPES = _DERIVATIVES[:3]
_FACTORS = 16  # arrays of which two may be a product that lacks, at most
_MANY = 8  # things in a list, of which each is mistaken for another at most


@dataclass(frozen=True, eq=False)
class Variant:
    """A node in the place of another; the cost tells how far it is from what is written."""

    cost: float
    holder: Any
    field: str
    index: int | None
    node: ast.AST

    @property
    def there(self) -> ast.AST:
        """What stands in its place now."""
        held = getattr(self.holder, self.field)
        found: ast.AST = held if self.index is None else held[self.index]
        return found

    def exchange(self) -> Variant:
        """Put the node into its place; return what takes it out again."""
        back = Variant(0.0, self.holder, self.field, self.index, self.there)
        if self.index is None:
            setattr(self.holder, self.field, self.node)
        else:
            getattr(self.holder, self.field)[self.index] = self.node
        return back

    def stand(self) -> Variant:
        """Do the same, and let the node stand in the line of the other."""
        back = self.exchange()
        ast.fix_missing_locations(ast.copy_location(self.node, back.node))
        return back


def variants(
    body: Slot, reach: Reach, written: Reach, shapes: Sequence[Shape], calls: Sequence[str] = ()
) -> list[Variant]:
    """Return what may stand in the place of a statement.

    `written` is what its expressions are, `shapes` are those of what it makes, `calls` are the
    functions of one thing that it may call.
    """
    holder, field, index, statement = body
    called = {text: thing for text, thing in written.items() if text.endswith(")")}
    reach = {**{text: thing for text, thing in called.items() if thing in shapes}, **reach}
    offered = (*other_statements(statement, reach), *changed_throughout(statement, reach, calls))
    offered = (*offered, *other_idioms(statement, reach))
    found = [Variant(cost, holder, field, index, node) for cost, node in offered]
    for slot in _slots(statement):
        holder, _, _, node = slot
        offers: tuple[Offer, ...]
        if isinstance(node, REFERENCE) and len(_listed(holder)) > _MANY:  # by another's name
            offers = tuple(_in_place_of(node, ast.unparse(node), reach, written))
        else:
            other = (*_simpler(node), *_other(node, reach, written), *counted(slot, body, reach))
            other = (*other, *idioms(node, statement, reach, written), *_inside(slot, written))
            offers = (*other, *_more(slot, body, reach, written, shapes))
        found += [Variant(cost, *slot[:3], node) for cost, node in offers]
    return found


def _listed(node: object) -> Sequence[object]:
    """Return what a list, a tuple or a dict that is written out has in it."""
    return getattr(node, "elts", getattr(node, "values", ()))


def _slots(statement: ast.stmt) -> Iterator[Slot]:
    """Yield what is read by a statement, of a block by its head, with its places."""
    pending: list[ast.AST] = [statement]
    while pending:
        holder = pending.pop(0)
        for field, value in ast.iter_fields(holder):
            if field in ("body", "orelse") and isinstance(holder, ast.stmt):
                continue
            for i, item in enumerate(value if isinstance(value, list) else [value]):
                if isinstance(item, ast.AST) and not isinstance(item, ast.expr_context | ast.stmt):
                    pending.append(item)
                    if not isinstance(getattr(item, "ctx", None), ast.Store):
                        yield holder, field, i if isinstance(value, list) else None, item


def _simpler(node: ast.AST) -> Iterator[Offer]:
    """Yield an expression without one of its parts."""
    if isinstance(node, ast.BinOp):
        yield 1.0, node.left
        if isinstance(node.op, ast.Sub):
            yield 1.0, ast.UnaryOp(ast.USub(), node.right)
        elif isinstance(node.op, ast.Div):
            yield 1.1, ast.BinOp(ast.Constant(1), node.op, node.right)
        elif not isinstance(node.op, ast.Pow):
            yield 1.0, node.right
    elif isinstance(node, ast.UnaryOp):
        yield 1.0, node.operand
    elif isinstance(node, ast.Attribute) and node.attr == "T":
        yield 1.0, node.value
    elif isinstance(node, ast.Subscript):
        yield 1.05 if isinstance(node.slice, ast.Slice) else 1.3, node.value
    elif isinstance(node, ast.Compare):
        yield 1.0, node.left
    elif isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
        if node.args:
            yield 1.3, node.args[0]
        if node.func.attr in (*REDUCING, "copy", "transpose"):
            yield 1.3, node.func.value


def _other(node: Any, reach: Reach, written: Reach) -> Iterator[Offer]:
    """Yield an expression of the same form with something else in one place."""
    if isinstance(node, ast.operator | ast.cmpop):
        yield from ((1.0, other()) for other in _OPERATORS.get(type(node), ()))
    elif isinstance(node, ast.BinOp) and isinstance(node.op, ast.Sub | ast.MatMult):
        yield 1.0, ast.BinOp(node.right, node.op, node.left)
    elif isinstance(node, ast.Tuple | ast.List):
        for order in _orders(len(node.elts)):
            yield 1.0, type(node)([node.elts[i] for i in order], node.ctx)
    elif isinstance(node, ast.Constant):
        yield from constants(node.value, reach)
    elif isinstance(node, ast.Call):
        yield from reduced(node, {**written, **reach})
        yield from split(node)
        if len(node.args) == 2:
            yield 1.1, ast.Call(node.func, node.args[::-1], node.keywords)
    elif isinstance(node, ast.Lambda):
        yield from _bound(node, reach)
    elif isinstance(node, ast.Attribute) and node.attr in _FUNCTIONS:
        for attr in _FUNCTIONS[node.attr]:
            yield 1.0, ast.Attribute(node.value, attr, node.ctx)
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Mult):
        yield from _derived_otherwise(node, reach, written)
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Mult | ast.Sub):
        names = reach.keys() & {ast.unparse(n) for n in ast.walk(node) if isinstance(n, REFERENCE)}
        if len(names) == 1 and isinstance(reach.get(text := names.pop()), tuple):
            yield from ((1.3, parsed(form.format(text))) for form in _DERIVATIVES)
    if isinstance(node, ast.expr):
        yield from _in_place_of(node, ast.unparse(node), reach, written)
        yield from counted_otherwise(node, {**written, **reach})


def _orders(n: int) -> Iterator[tuple[int, ...]]:
    """Yield the orders of n things in which a few have changed places, of many two."""
    if n < 5:
        every = permutations(range(n))
        yield from (o for o in every if 0 < sum(i != j for i, j in enumerate(o)) < 4)
    for one, other in combinations(range(n), 2) if 5 <= n <= _MANY else ():
        yield tuple(other if i == one else one if i == other else i for i in range(n))


def _derived_otherwise(node: ast.BinOp, reach: Reach, written: Reach) -> Iterator[Offer]:
    """Yield the first factor of a product, without the others or times another derivative."""
    shape, first = written.get(ast.unparse(node)), node.left
    begun = [first]
    while isinstance(first, ast.BinOp) and isinstance(first.op, ast.Mult):
        first = first.left
        begun.append(first)
    if first is not node.left:
        yield 1.2, first
    for text in (text for text, thing in reach.items() if thing == shape):
        for form in _DERIVATIVES:
            for some in begun[1:] or begun:
                yield 1.6, ast.BinOp(some, ast.Mult(), parsed(form.format(text)))


def _bound(node: ast.Lambda, reach: Reach) -> Iterator[Offer]:
    """Yield a function that keeps a number as it is now: a loop goes on behind it."""
    names = dict.fromkeys(n.id for n in ast.walk(node.body) if isinstance(n, ast.Name))
    for name in (name for name in names if type(reach.get(name)) is int):
        kept = deepcopy(node)
        kept.args.args.append(ast.arg(name))
        kept.args.defaults.append(ast.Name(name, ast.Load()))
        yield 1.1, kept


def _in_place_of(node: Any, text: str, reach: Reach, written: Reach) -> Iterator[Offer]:
    """Yield what is in reach and of the same shape as an expression, and simple forms of it."""
    held = reach.get(text, written.get(text))
    if held is None:
        return
    named = isinstance(node, REFERENCE) and text in reach
    if named and type(held) is not int:
        yield 1.2, ast.BinOp(node, ast.Pow(), ast.Constant(2))
        yield 1.2, ast.BinOp(ast.Constant(1), ast.Sub(), node)
    if named:
        yield 1.4, ast.BinOp(node, ast.Sub(), ast.Constant(1))
    if named and isinstance(held, tuple):
        yield from ((1.4, parsed(form.format(text))) for form in _CUT_OFF)
    if named or isinstance(held, tuple):
        for other in alike(text, held, reach):
            yield 1.2 if named and not other[0].isdigit() else 1.55, parsed(other)
    if isinstance(held, tuple):
        yield from ((1.3, parsed(o)) for o, thing in reach.items() if _begins(o, thing))
    if isinstance(held, tuple) and len(held) == 2:
        columns = [other for other, thing in reach.items() if thing == (held[0], 1)]
        jacobian = "np.diagflat({0}) - np.outer({0}, {0})"  # of a softmax
        yield from ((1.5, parsed(jacobian.format(other))) for other in columns if not named)
        turned = [other for other, thing in reach.items() if thing == held[::-1]]
        yield from ((1.4 if named else 1.5, parsed(f"{other}.T")) for other in turned)
    if named and isinstance(held, tuple):
        yield 1.5, parsed(f"({text} > 0)")
        others = [o for o, thing in reach.items() if isinstance(thing, tuple) and thing != held]
        yield from ((1.5, parsed(o)) for o in others if len(reach[o]) == len(held))
    called = ast.unparse(node.func).split(".")[-1] if isinstance(node, ast.Call) else ""
    if called.startswith("zeros"):
        arrays = [text for text, thing in reach.items() if isinstance(thing, tuple)]
        yield from ((1.4, parsed(text)) for text in arrays)


def _begins(text: str, thing: Any) -> bool:
    """Tell whether a variable is zero now, and may be an array that is carried on later."""
    return type(thing) in (int, float) and thing == 0 and text.isidentifier()


def _more(
    slot: Slot, body: Slot, reach: Reach, written: Reach, shapes: Sequence[Shape]
) -> Iterator[Offer]:
    """Yield an expression with one more factor, term, transpose or sign."""
    holder, field, _, node = slot
    if not isinstance(node, ast.expr) or isinstance(node, ast.Tuple | ast.Lambda):
        return
    if isinstance(node, ast.Compare) and not isinstance(holder, ast.BinOp):
        return
    if isinstance(holder, ast.Call) and ast.unparse(holder.func) == "len":
        return
    text, is_read = ast.unparse(node), isinstance(node, ast.Subscript | ast.Call)
    own = reach.get(text, written.get(text))
    if own is None and isinstance(node, ast.Name | ast.Attribute):
        return  # no array: a module, a text, np.c_, which times an array is a list without an end
    is_array = isinstance(own, tuple) or is_read or text in reach
    if is_array and field in ("left", "right", "args", "value", "elts"):
        if not text.endswith(".T"):
            yield 1.1, ast.Attribute(node, "T", ast.Load())
        yield from ((1.1, parsed(f"({text}){way}")) for way in turned(own, shapes))
        yield from ((cost, parsed(f"({text})[{way}]")) for cost, way in backwards(own))
    in_product = isinstance(holder, ast.BinOp) and isinstance(holder.op, ast.Mult | ast.Div)
    is_count = counts(slot, body) or isinstance(node, ast.Constant)
    if in_product or is_count or field in ("func", "iter", "test"):
        return
    yield 1.4, ast.UnaryOp(ast.USub(), node)
    for number in (2, 0.5):
        yield 1.52, ast.BinOp(node, ast.Mult(), ast.Constant(number))  # a name would say more
    whole = holder is body[3]
    fitting = [own] if isinstance(own, tuple) and not whole else shapes
    for other, thing in reach.items():
        yield from _with(node, parsed(other), other, thing, fitting, whole)
        if isinstance(own, tuple) and own != thing in shapes and _fits(own, [thing]):
            yield 1.55, ast.BinOp(parsed(other), ast.Mult(), node)  # which it is spread over
    if isinstance(own, tuple):
        yield from ((1.6, ast.BinOp(node, ast.Div(), n)) for n in lengths_in(body[3], reach))
    if isinstance(own, tuple) and own:
        yield from ((1.5, parsed(form)) for form in products(text, own, reach))
    if whole:
        yield from _as_a_whole(node, own, reach)


def _as_a_whole(node: ast.expr, own: Any, reach: Reach) -> Iterator[Offer]:
    """Yield all that a statement gives summed along an axis, or with one more product."""
    for axis in (0, 1):
        keywords = [ast.keyword("axis", ast.Constant(axis))]
        yield 1.5, ast.Call(ast.Attribute(node, "sum", ast.Load()), [], keywords)
    shapes = {o: thing for o, thing in reach.items() if isinstance(own, tuple) and thing}
    fitting = [o for o, thing in shapes.items() if type(thing) is tuple and _fits(thing, [own])]
    for one, other in combinations(fitting, 2) if len(fitting) <= _FACTORS else ():
        if own in (shapes[one], shapes[other]):  # so dear that it is to make something true
            product = ast.BinOp(parsed(one), ast.Mult(), parsed(other))
            yield 2.5, ast.BinOp(node, ast.Add(), product)
            yield 2.5, ast.BinOp(node, ast.Sub(), product)


def _inside(slot: Slot, written: Reach) -> Iterator[Offer]:
    """Yield a divisor as a root, and a product that is subtracted as a sum along an axis."""
    holder, field, _, node = slot
    op, text = holder.op if isinstance(holder, ast.BinOp) else None, ast.unparse(node)
    if isinstance(op, ast.Div) and field == "right" and not isinstance(node, ast.Constant):
        yield 1.3, parsed(f"np.sqrt({text})")
    if isinstance(op, ast.Sub) and isinstance(getattr(node, "op", None), ast.Mult):
        for axis, _ in enumerate(written.get(text, ())):
            yield 1.3, parsed(f"({text}).sum(axis={axis}, keepdims=True)")


def _with(
    node: ast.expr, other: ast.expr, text: str, thing: Any, shapes: Sequence[Shape], whole: bool
) -> Iterator[Offer]:
    """Yield an expression with one more factor, or term, that is in reach."""
    if isinstance(thing, str):
        return
    is_number = not isinstance(thing, tuple)
    if whole and type(thing) is int and thing > 1:
        yield 1.6, ast.BinOp(node, ast.Div(), parsed(f"np.sqrt({text})"))
    if is_number or _fits(thing, shapes):  # of a sum rather a term than the whole
        is_sum = isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add | ast.Sub)
        yield 1.5 + 0.05 * is_sum, ast.BinOp(node, ast.Mult(), other)
        yield 1.5 if is_number else 1.7, ast.BinOp(node, ast.Div(), other)
    if type(thing) is float and not (isinstance(other, ast.Constant) or text.isupper()):
        yield from ((1.6, ast.BinOp(node, ast.Mult(), parsed(f.format(text)))) for f in _SLOPES)
    if not is_number and thing in [made[:-1] for made in shapes if len(made) > 1]:
        column = parsed(f"{text}[{':, ' * len(thing)}None]")
        yield 1.55, ast.BinOp(node, ast.Mult(), column)
        yield 1.7, ast.BinOp(node, ast.Div(), column)
    if type(thing) is float and not isinstance(other, ast.Constant):
        yield 1.65, ast.BinOp(node, ast.Add(), other)
    if whole and _begins(text, thing):
        yield 1.6, ast.BinOp(node, ast.Add(), other)
    if not is_number and thing in shapes:
        yield 1.6, ast.BinOp(node, ast.Add(), other)
        yield 1.7, ast.BinOp(node, ast.Sub(), other)
        for form in (*_DERIVATIVES, *([_SIGMOID] * whole)):
            yield 1.6, ast.BinOp(node, ast.Mult(), parsed(form.format(text)))


def _fits(shape: Shape, shapes: Iterable[Shape]) -> bool:
    """Tell whether an array of some shape can be a factor of one of some shapes."""
    if not shape:  # a number, of numbers that have no shape
        return True
    for made in shapes:
        try:
            if np.broadcast_shapes(shape, made) == made:
                return True
        except ValueError:
            continue
    return False
