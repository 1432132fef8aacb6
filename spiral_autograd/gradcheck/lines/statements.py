"""What a statement of a backward pass may have been meant to be as a whole."""

from __future__ import annotations

import ast
import copy
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import lru_cache
from itertools import combinations
from typing import Any

from ..source import Text

# What is in reach, by its text: the shape of an array, a number, or a word that code asks for.
Reach = Mapping[str, Any]
Slot = tuple[Any, str, int | None, Any]  # who holds a node, in which field, where in it; the node
Offer = tuple[float, ast.AST]  # what may stand there, and how far it is from what is written

REFERENCE = ast.Name | ast.Attribute | ast.Subscript
# What windows may be in place of those that begin somewhere, that only end, and that take steps.
_WINDOWS = {
    "begin": ("{0}*{2}:{0}*{2} + {1}", "{0}:{0} + {1}*{2}:{2}"),
    "end": ("{2}:{2} + {1}",),
    "step": ("{0}:{1}",),
}


def other_statements(node: Any, reach: Reach) -> Iterator[Offer]:
    """Yield other statements: one that adds for one that sets, the reverse, none, or one more."""
    if isinstance(node, ast.AugAssign):
        yield 1.0, ast.Assign([node.target], node.value)
        yield 1.4, ast.Pass()
        yield from _added_at(node.target, node.value, node.op)
    elif isinstance(node, ast.Assign) and not isinstance(node.targets[0], ast.Tuple):
        target: Any = node.targets[0]
        yield 1.0, ast.AugAssign(target, ast.Add(), node.value)
        if isinstance(target, ast.Subscript):
            yield 1.1, ast.AugAssign(target, ast.Mult(), node.value)
        yield 0.9 if isinstance(node.value, ast.Constant) else 1.4, ast.Pass()
        yield from _added_at(target, node.value, ast.Add())
        is_constant = isinstance(node.value, ast.Constant | ast.UnaryOp)
        if isinstance(target, ast.Subscript) and is_constant:  # one number for what rows add up to
            yield 1.3, ast.Assign([target], parsed(f"-{ast.unparse(target.value)}.sum(axis=1)"))
    elif isinstance(node, ast.For):
        yield from _begun_anew(node, reach)
        return
    else:
        return
    yield from _followed(node, reach)


class Together(ast.If):
    """Several statements in the place of one."""


def together(*statements: ast.stmt) -> ast.If:
    """Return several statements as one."""
    return Together(ast.Constant(True), [*statements], [])


def _begun_anew(node: ast.For, reach: Reach) -> Iterator[Offer]:
    """Yield a loop before which what it carries from turn to turn is zero again."""
    inner = [part for statement in node.body for part in ast.walk(statement)]
    names = [part for part in inner if isinstance(part, ast.Name)]
    written = {name.id for name in names if isinstance(name.ctx, ast.Store)}
    read = dict.fromkeys(name.id for name in names if isinstance(name.ctx, ast.Load))
    for name in (name for name in read if name in written and name in reach):
        is_array = isinstance(reach[name], tuple)
        zero = parsed(f"np.zeros_like({name})" if is_array else "0")
        anew = ast.Assign([ast.Name(name, ast.Store())], zero)
        yield 1.0, together(anew, node)


def _followed(node: Any, reach: Reach) -> Iterator[Offer]:
    """Yield a statement with another one behind it, which changes what it has written."""
    target = node.target if isinstance(node, ast.AugAssign) else node.targets[0]
    made = ast.unparse(target.value if isinstance(target, ast.Subscript) else target)
    for text, thing in reach.items():
        forms, cost = [], 1.6
        if isinstance(thing, tuple) and len(thing) == 1:
            forms, cost = ["{0}[np.arange(len({1})), {1}] -= 1"], 1.3
        elif isinstance(target, ast.Subscript) and thing == reach.get(made):
            forms = ["{0}[{1} <= 0] = 0"]
        elif isinstance(target, ast.Subscript) and type(thing) in (int, float):
            forms = ["{0} /= {1}", "{0} *= {1}"]
        for form in forms:
            more = ast.parse(form.format(made, text)).body
            yield cost, together(node, *more)


def changed_throughout(statement: Any, reach: Reach, calls: Sequence[str]) -> Iterator[Offer]:
    """Yield the statement with something else wherever it names one thing, or takes a window.

    Or a function of it, or what it is a function of.
    """
    if hasattr(statement, "body"):  # its lines are asked by themselves
        return
    nodes = [node for node in ast.walk(statement) if isinstance(node, REFERENCE)]
    texts = Counter(ast.unparse(node) for node in nodes if isinstance(node.ctx, ast.Load))
    for text in (text for text, times in texts.items() if times > 1 and text in reach):
        for other in (f"-{text}", *alike(text, reach[text], reach)):
            yield 1.2, renamed(statement, {text: other})
    yield from _called_throughout(statement, texts, reach, calls)
    shaped = {text: thing for text, thing in reach.items() if isinstance(thing, tuple)}
    matrices = [text for text in texts if len(shaped.get(text, ())) == 2]
    for pair in combinations(matrices, 2):
        yield 1.3, renamed(statement, {text: f"{text}.T" for text in pair})
    yield from _other_windows(statement, reach)


def _called_throughout(
    statement: Any, texts: Iterable[str], reach: Reach, calls: Sequence[str]
) -> Iterator[Offer]:
    """Yield the statement with functions of a thing for it, or with it for a function of it."""
    for text in (text for text in texts if type(reach.get(text)) in (tuple, float)):
        yield from ((1.3, renamed(statement, {text: f"{call}({text})"})) for call in calls)
    for node in (node for node in ast.walk(statement) if isinstance(node, ast.Call)):
        if len(node.args) == 1 and isinstance(reach.get(ast.unparse(node.args[0])), tuple | float):
            yield 1.15, renamed(statement, {ast.unparse(node): ast.unparse(node.args[0])})


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


class _Renamed(ast.NodeTransformer):
    """Puts other things in the place of what is named by some texts."""

    def __init__(self, texts: Mapping[str, str]) -> None:
        self.texts = texts

    def visit(self, node: ast.AST) -> Any:
        """Return what stands in the place of a node."""
        if isinstance(node, REFERENCE | ast.Call) and (other := self.texts.get(ast.unparse(node))):
            return parsed(other)
        return self.generic_visit(node)


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
        return node if same else parsed(f"_[{text}]").slice  # type: ignore[attr-defined]


def renamed(node: ast.AST, texts: Mapping[str, str]) -> Any:
    """Return a copy of a node with other things in the place of what is named by some texts."""
    return _Renamed(texts).visit(copy.deepcopy(node))


def alike(text: str, held: Any, reach: Reach) -> Iterator[str]:
    """Yield what else there is of the same shape, or another number."""
    for other, thing in reach.items():
        alike = thing == held or not isinstance(thing, tuple)
        if other != text and type(thing) is type(held) and alike:
            yield other


def _added_at(target: ast.expr, value: ast.expr, op: ast.operator) -> Iterator[Offer]:
    """Yield the statement that adds at indices as often as they are there."""
    if not isinstance(target, ast.Subscript) or not isinstance(op, ast.Add | ast.Sub):
        return
    index = target.slice
    parts = index.elts if isinstance(index, ast.Tuple) else [index]
    windows = {ast.unparse(part) for part in parts if isinstance(part, ast.Slice)}
    if windows <= {":"}:
        texts = map(ast.unparse, parts)
        at = ", ".join("slice(None)" if text == ":" else text for text in texts)
        name = "subtract" if isinstance(op, ast.Sub) else "add"
        array, added = ast.unparse(target.value), ast.unparse(value)
        yield 1.0, ast.parse(f"np.{name}.at({array}, ({at}), {added})").body[0]


def operands_of(text: Text | None) -> set[str]:
    """Return what a forward pass counts with: of two equal numbers rather that is meant."""
    nodes = [node for step in (text.steps if text else ()) for node in ast.walk(step.node)]
    pairs = ((node.left, node.right) for node in nodes if isinstance(node, ast.BinOp))
    return {ast.unparse(side) for pair in pairs for side in pair}


@lru_cache(maxsize=4096)
def parsed(text: str) -> ast.expr:
    """Return a text as an expression."""
    return ast.parse(text, mode="eval").body
