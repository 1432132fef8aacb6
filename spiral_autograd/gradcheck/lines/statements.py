"""What a statement of a backward pass may have been meant to be as a whole."""

from __future__ import annotations

import ast
import copy
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from itertools import combinations, product
from typing import Any

from .tree import REFERENCE, Offer, Reach, parsed

# What windows may be in place of those that begin somewhere, that only end, and that take steps.
_WINDOWS = {
    "begin": ("{0}*{2}:{0}*{2} + {1}", "{0}:{0} + {1}*{2}:{2}"),
    "end": ("{2}:{2} + {1}",),
    "step": ("{0}:{1}",),
}
_NAMING = REFERENCE | ast.Call | ast.BinOp | ast.UnaryOp
_FEW = 8  # things in a statement, of which two may be exchanged


class Together(ast.If):
    """Several statements in the place of one."""


def together(*statements: ast.stmt) -> ast.If:
    """Return several statements as one."""
    return Together(ast.Constant(True), [*statements], [])


# -------------------- another one, or one more --------------------


def other_statements(node: Any, reach: Reach) -> Iterator[Offer]:
    """Yield other statements: one that adds for one that sets, the reverse, none, or one more."""
    if isinstance(node, ast.For):
        yield from _begun_anew(node, reach)
        yield from _counted_otherwise(node, reach)
    elif isinstance(node, ast.AugAssign):
        yield 1.0, ast.Assign([node.target], node.value)
        yield 1.4, ast.Pass()
        if isinstance(node.op, ast.Add | ast.Sub):
            yield from _added_at(node.target, node.value, node.op)
        yield from _followed(node, node.target, reach)
    elif isinstance(node, ast.Assign) and not isinstance(node.targets[0], ast.Tuple):
        target = node.targets[0]
        yield 1.0, ast.AugAssign(target, ast.Add(), node.value)  # type: ignore[arg-type]
        yield 0.9 if isinstance(node.value, ast.Constant) else 1.4, ast.Pass()
        yield from _added_at(target, node.value, ast.Add())
        if isinstance(target, ast.Subscript) and isinstance(node.value, ast.Constant | ast.UnaryOp):
            rows = ast.unparse(target.value)  # one number for what they add up to
            yield 1.3, ast.Assign([target], parsed(f"-{rows}.sum(axis=1)"))
        yield from _followed(node, target, reach)


def _begun_anew(node: ast.For, reach: Reach) -> Iterator[Offer]:
    """Yield a loop before which what it carries from turn to turn is zero again."""
    inner = [part for statement in node.body for part in ast.walk(statement)]
    names = [part for part in inner if isinstance(part, ast.Name)]
    written = {name.id for name in names if isinstance(name.ctx, ast.Store)}
    carried = dict.fromkeys(name.id for name in names if isinstance(name.ctx, ast.Load))
    for name in (name for name in carried if name in written & reach.keys()):
        zero = f"np.zeros_like({name})" if isinstance(reach[name], tuple) else "0"
        yield 1.0, together(ast.Assign([ast.Name(name, ast.Store())], parsed(zero)), node)


def _counted_otherwise(node: ast.For, reach: Reach) -> Iterator[Offer]:
    """Yield a loop that counts from zero, or up to another length that has a name."""
    iterable = node.iter
    if not isinstance(iterable, ast.Call) or ast.unparse(iterable.func) != "range":
        return
    *start, stop = iterable.args[:2]
    if start:
        yield 0.9, _with_iter(node, ast.Call(iterable.func, [stop], []))
    for text in (text for text, thing in reach.items() if type(thing) is int and thing > 1):
        yield 1.05, _with_iter(node, ast.Call(iterable.func, [*start, parsed(text)], []))


def _with_iter(node: ast.For, iterable: ast.expr) -> ast.For:
    return ast.For(node.target, iterable, node.body, node.orelse)


def _added_at(target: ast.expr, value: ast.expr, op: ast.operator) -> Iterator[Offer]:
    """Yield the statement that adds at indices as often as they are there."""
    if not isinstance(target, ast.Subscript):
        return
    parts = getattr(target.slice, "elts", [target.slice])
    windows = {ast.unparse(part) for part in parts if isinstance(part, ast.Slice)}
    if windows <= {":"}:
        texts = (ast.unparse(part) for part in parts)
        at = ", ".join("slice(None)" if text == ":" else text for text in texts)
        name = "subtract" if isinstance(op, ast.Sub) else "add"
        array, added = ast.unparse(target.value), ast.unparse(value)
        yield 1.0, ast.parse(f"np.{name}.at({array}, ({at}), {added})").body[0]


def _followed(node: ast.stmt, target: ast.expr, reach: Reach) -> Iterator[Offer]:
    """Yield a statement with another one behind it, which changes what it has written."""
    is_part = isinstance(target, ast.Subscript)
    made = ast.unparse(target.value if isinstance(target, ast.Subscript) else target)
    for text, thing in reach.items():
        forms, cost = [], 1.6
        if isinstance(thing, tuple) and len(thing) == 1:
            forms, cost = ["{0}[np.arange(len({1})), {1}] -= 1"], 1.3
        elif is_part and thing == reach.get(made):
            forms = ["{0}[{1} <= 0] = 0"]
        elif is_part and type(thing) in (int, float):
            forms = ["{0} /= {1}", "{0} *= {1}"]
        for form in forms:
            yield cost, together(node, *ast.parse(form.format(made, text)).body)


# -------------------- something else in all its places --------------------


def changed_throughout(statement: Any, reach: Reach, calls: Sequence[str]) -> Iterator[Offer]:
    """Yield the statement with something else wherever it names one thing, or takes a window."""
    if hasattr(statement, "body"):  # its lines are asked by themselves
        return
    texts = _named_in(statement)
    for text, other in _alike_in(texts, reach):
        yield 1.2, renamed(statement, {text: other})
    yield from _called_in(statement, texts, reach, calls)
    for node in (node for node in ast.walk(statement) if isinstance(node, ast.Call)):
        given = ast.unparse(node.args[0]) if len(node.args) == 1 else ""
        if isinstance(reach.get(given), tuple | float):
            yield 1.15, renamed(statement, {ast.unparse(node): given})
    yield from exchanged(statement, reach)
    yield from _other_windows(statement, reach)


def _called_in(
    statement: ast.AST, texts: Counter[str], reach: Reach, calls: Sequence[str]
) -> Iterator[Offer]:
    """Yield the statement with functions of what it names, or of what it makes on the way."""
    for text in (text for text in texts if type(reach.get(text)) in (tuple, float)):
        places = (None, *range(texts[text] if texts[text] > 1 else 0))
        for n, call in product(places, calls):
            yield 1.3, renamed(statement, {text: f"{call}({text})"}, n)
    inner = (node for node in ast.walk(statement) if isinstance(node, ast.BinOp | ast.UnaryOp))
    arrays = Counter(ast.unparse(node) for node in inner if _is_of_arrays(node, reach))
    for text, call in product(sorted(arrays)[:_FEW], calls):
        for n in range(arrays[text]):
            yield 1.4, renamed(statement, {text: f"{call}({text})"}, n)


def _alike_in(texts: Counter[str], reach: Reach) -> Iterator[tuple[str, str]]:
    """Yield what a statement names several times, and what may be meant by all of them."""
    for text in (text for text, times in texts.items() if times > 1 and text in reach):
        others = (other for other in reach if _alike(reach[other], reach[text]))
        yield from ((text, other) for other in (f"-{text}", *others) if other != text)


def exchanged(node: ast.AST, reach: Reach) -> Iterator[Offer]:
    """Yield a node with two things that are alike in each other's places."""
    known = [text for text in _named_in(node) if text in reach]
    for one, other in combinations(known, 2) if len(known) <= _FEW else ():
        if _alike(reach[one], reach[other]):
            yield 1.1, renamed(node, {one: other, other: one})


def _named_in(node: ast.AST) -> Counter[str]:
    """Return what is read by a node, and how often."""
    nodes = [part for part in ast.walk(node) if isinstance(part, REFERENCE)]
    return Counter(ast.unparse(part) for part in nodes if isinstance(part.ctx, ast.Load))


def _is_of_arrays(node: ast.AST, reach: Reach) -> bool:
    return any(isinstance(reach.get(text), tuple) for text in _named_in(node))


def _alike(one: object, other: object) -> bool:
    return type(one) is type(other) and (one == other or not isinstance(one, tuple))


def renamed(node: ast.AST, texts: Mapping[str, str], nth: int | None = None) -> Any:
    """Return a copy of a node with other things in the place of what is named by some texts.

    In all places, or only in the `nth` of them.
    """
    return _Renamed(texts, nth).visit(copy.deepcopy(node))


class _Renamed(ast.NodeTransformer):
    """Puts other things in the place of what is named by some texts."""

    def __init__(self, texts: Mapping[str, str], nth: int | None) -> None:
        self.texts, self.nth, self.met = texts, nth, 0

    def visit(self, node: ast.AST) -> Any:
        """Return what stands in the place of a node."""
        if isinstance(node, _NAMING) and (other := self.texts.get(ast.unparse(node))):
            self.met += 1
            return parsed(other) if self.nth in (None, self.met - 1) else node
        return self.generic_visit(node)


# -------------------- windows --------------------


def _other_windows(statement: Any, reach: Reach) -> Iterator[Offer]:
    """Yield the statement with other windows in the place of those of one sort."""
    numbers = [*(text for text, thing in reach.items() if type(thing) is int), "1", "2"]
    slices = [node for node in ast.walk(statement) if isinstance(node, ast.Slice)]
    for sort in sorted(set(map(_sort_of, slices))):
        for form in _WINDOWS.get(sort, ()):
            for number in numbers if "{2}" in form else ("",):
                yield 1.05, _Windows(sort, form, number).visit(copy.deepcopy(statement))


def _sort_of(window: ast.Slice) -> str:
    """Return what a window does first of all: it takes steps, begins somewhere, or only ends."""
    if window.step is not None or window.upper is None:
        return "step" if window.step is not None else ""
    return "end" if window.lower is None else "begin" * isinstance(window.lower, ast.Name)


class _Windows(ast.NodeTransformer):
    """Puts other windows in the place of those of a sort."""

    def __init__(self, sort: str, form: str, number: str) -> None:
        self.sort, self.form, self.number = sort, form, number

    def visit_Slice(self, node: ast.Slice) -> Any:
        """Return the window that is in the place of one."""
        if _sort_of(node) != self.sort:
            return node
        first, end = (ast.unparse(part) if part else "" for part in (node.lower, node.upper))
        length = end.removeprefix(first).lstrip(" +") if first else end
        if self.sort == "end" and self.number.isdigit() and length.lstrip("-").isdigit():
            return ast.Slice(*map(parsed, (self.number, str(int(length) + int(self.number)))))
        text = self.form.format(first, length, self.number)
        same = self.sort == "begin" and length == end
        return node if same else parsed(text)
