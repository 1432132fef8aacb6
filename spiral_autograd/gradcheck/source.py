"""The text of somebody's function: its statements, what each reads and writes, what feeds what."""

from __future__ import annotations

import ast
import inspect
import linecache
import textwrap
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import islice
from typing import Any

from ..recording import Call, Site, name_of

_MUTATORS = {"at", "copyto", "put", "place", "putmask", "append", "extend", "fill", "update"}
_EMPTY = {"zeros", "zeros_like", "empty", "empty_like", "arange", "range", "len", "print"}


def expression(call: Call | Site) -> str | None:
    """Return the reader's own text of what a call computes, such as ``np.dot(x, W) + b``.

    None where there is no source.
    """
    if call.instruction is None or call.source is None:
        return None
    code, offset = call.instruction
    if hasattr(code, "co_positions"):  # from Python 3.11 on, an instruction knows its place
        place = next(islice(code.co_positions(), offset // 2, None), (None,) * 4)
        text = _text_at(code.co_filename, *place)
    else:
        text = _only_one_like(call, call.source[0], call.source[1])
    return " ".join(text.split()) or None if text else None


def _text_at(
    file: str, first: int | None, last: int | None, start: int | None, end: int | None
) -> str | None:
    if first is None or last is None or start is None or end is None:
        return None
    lines = [linecache.getline(file, n).encode() for n in range(first, last + 1)]
    lines[-1] = lines[-1][:end]
    lines[0] = lines[0][start:]
    return b" ".join(lines).decode(errors="ignore")


_OPERATORS = {
    ast.Add: "add",
    ast.Sub: "subtract",
    ast.Mult: "multiply",
    ast.Div: "divide true_divide",
    ast.Pow: "power",
    ast.MatMult: "matmul",
    ast.USub: "negative",
}


def _only_one_like(call: Call | Site, file: str, line: int) -> str | None:
    """Return the one expression on a line that may be a call of a function."""
    lines = linecache.getlines(file)
    tree = _tree("".join(lines))
    found = (
        [
            node
            for node in ast.walk(tree)
            if isinstance(node, ast.expr)
            if node.lineno == line and name_of(call.fun) in _may_be(node)
        ]
        if tree is not None
        else []
    )
    return ast.get_source_segment("".join(lines), found[0]) if len(found) == 1 else None


@lru_cache(maxsize=8)
def _tree(text: str) -> ast.Module | None:
    try:
        return ast.parse(text)
    except (SyntaxError, ValueError):
        return None


def _may_be(node: ast.expr) -> list[str]:
    if isinstance(node, ast.BinOp | ast.UnaryOp):
        return _OPERATORS.get(type(node.op), "").split()
    if isinstance(node, ast.Call):
        return [root_of(node.func).split(".")[-1], getattr(node.func, "attr", "")]
    return ["__getitem__", "take"] if isinstance(node, ast.Subscript) else []


def assigned_to(text: str, file: str, line: int) -> str | None:
    """Return what a line assigns to, such as ``self.out``, where all of its value is the text."""
    return _assignments(file, "".join(linecache.getlines(file))).get((line, text))


@lru_cache(maxsize=8)
def _assignments(file: str, source: str) -> dict[tuple[int, str], str]:
    tree, found = _tree(source), {}
    for node in ast.walk(tree) if tree is not None else ():
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name | ast.Attribute):
            value = node.value
            place = value.lineno, value.end_lineno, value.col_offset, value.end_col_offset
            text = " ".join((_text_at(file, *place) or "").split())
            found[value.lineno, text] = ast.unparse(node.targets[0])
    return found


def operand(text: str, position: int) -> str | None:
    """Return the text of the left (0) or right (1) operand of an expression."""
    try:
        node = ast.parse(text, mode="eval").body
    except SyntaxError:
        return None
    if not isinstance(node, ast.BinOp):
        return None
    return ast.unparse((node.left, node.right)[position])


@dataclass(frozen=True, eq=False)
class Step:
    """A statement of the reader's: what it reads and writes, by name, and the blocks it is in."""

    node: ast.stmt
    line: int
    end: int
    reads: frozenset[str]
    writes: frozenset[str]
    whole: bool  # what it writes is made anew
    blocks: tuple[ast.AST, ...]


@dataclass(frozen=True, eq=False)
class Text:
    """The statements of a function, in order."""

    file: str
    first: int
    last: int
    steps: tuple[Step, ...]
    upstream: str | None

    def at(self, line: int) -> Step | None:
        """Return the innermost statement that a line belongs to."""
        for step in self.steps:
            if step.line <= line <= step.end:
                return step
        return None

    def place(self, step: Step) -> tuple[str, int]:
        """Return where a statement begins."""
        return self.file, step.line


def text_of(function: Any) -> Text | None:
    """Return the statements of a function of the user's; None where there is no source."""
    try:
        if inspect.isclass(function):
            function = getattr(function, "forward", None)
        function = inspect.unwrap(function)
        lines, first = inspect.getsourcelines(function)
        tree = ast.parse(textwrap.dedent("".join(lines)))
        file = str(inspect.getsourcefile(function))
    except (TypeError, OSError, SyntaxError, AttributeError, ValueError):
        return None
    definition = tree.body[0] if tree.body else None
    if not isinstance(definition, ast.FunctionDef | ast.AsyncFunctionDef):
        return None
    ast.increment_lineno(tree, first - 1)
    return _text(file, definition, first)


def text_around(file: str, line: int) -> Text | None:
    """Return the statements of the innermost function that a line is in."""
    tree = _tree("".join(linecache.getlines(file)))
    if tree is None:
        return None
    inner = [
        node
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef) and node.lineno <= line <= (node.end_lineno or 0)
    ]
    found = max(inner, key=lambda node: node.lineno, default=None)
    return _text(file, found, found.lineno) if found is not None else None


def _text(file: str, definition: ast.FunctionDef | ast.AsyncFunctionDef, first: int) -> Text:
    names = [a.arg for a in definition.args.args if a.arg not in ("self", "cls")]
    steps = tuple(_steps(definition.body, ()))
    return Text(file, first, definition.end_lineno or first, steps, names[0] if names else None)


def _steps(body: Sequence[ast.stmt], blocks: tuple[ast.AST, ...]) -> Iterator[Step]:
    for node in body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            continue
        inner = [getattr(node, field, []) for field in ("body", "orelse", "finalbody")]
        if not any(inner):
            yield _step(node, [node], blocks, node.end_lineno or node.lineno)
            continue
        heads = [getattr(node, field, None) for field in ("iter", "test", "target")]
        parts: list[ast.AST] = [head for head in heads if head is not None]
        yield _step(node, parts, blocks, inner[0][0].lineno - 1 if inner[0] else node.lineno)
        for part in inner:
            yield from _steps(part, (*blocks, node))


def _step(node: ast.stmt, parts: Sequence[ast.AST], blocks: tuple[ast.AST, ...], end: int) -> Step:
    reads: set[str] = set()
    writes: set[str] = set()
    for part in parts:
        for item in ast.walk(part):
            if isinstance(item, ast.Name | ast.Attribute):
                stored = isinstance(item.ctx, ast.Store)
                (writes if stored else reads).add(root_of(item))
    whole = isinstance(node, ast.Assign | ast.AnnAssign)
    targets = targets_of(node)
    for target in targets:
        if isinstance(target, ast.Subscript):
            writes.add(root_of(target))
            whole = False
    if isinstance(node, ast.AugAssign):
        reads.add(root_of(node.target))
    if isinstance(node, ast.Expr) and isinstance(node.value, ast.Call):
        writes |= _mutated(node.value)
    # Inside a branch or a loop, what decides it is read too.
    for block in blocks:
        for head in (getattr(block, "test", None), getattr(block, "iter", None)):
            if head is not None:
                names = (n for n in ast.walk(head) if isinstance(n, ast.Name | ast.Attribute))
                reads |= {root_of(n) for n in names}
    last = max(end, node.lineno)
    return Step(node, node.lineno, last, frozenset(reads), frozenset(writes), whole, blocks)


def targets_of(node: ast.AST) -> list[ast.expr]:
    """Return the expressions that a statement assigns to, those of tuples one by one."""
    found: list[ast.expr] = list(getattr(node, "targets", []))
    target = getattr(node, "target", None)
    pending = [*found, *([target] if target is not None else [])]
    flat: list[ast.expr] = []
    while pending:
        item = pending.pop(0)
        if isinstance(item, ast.Tuple | ast.List):
            pending = [*item.elts, *pending]
        else:
            flat.append(item)
    return flat


def _mutated(call: ast.Call) -> set[str]:
    if not isinstance(call.func, ast.Attribute) or call.func.attr not in _MUTATORS:
        return set()
    first = call.args[0] if call.args else None
    if call.func.attr in ("append", "extend", "fill", "update"):
        return {root_of(call.func.value)}
    return {root_of(first)} if first is not None else set()


def root_of(node: ast.AST) -> str:
    """Return the variable, or the attribute of one, that an expression is rooted in."""
    while True:
        if isinstance(node, ast.Name):
            return node.id
        if isinstance(node, ast.Attribute):
            if isinstance(node.value, ast.Name):
                return f"{node.value.id}.{node.attr}"
            node = node.value
        elif isinstance(node, ast.Subscript | ast.Starred):
            node = node.value
        elif isinstance(node, ast.Call):
            node = node.func
        else:
            return ""


def is_plain(text: Text, step: Step) -> bool:
    """Tell whether a statement only unpacks, allocates or counts: no place for a mistake."""
    node = step.node
    if not isinstance(node, ast.Assign | ast.AnnAssign | ast.AugAssign | ast.Return | ast.Expr):
        return True
    value = getattr(node, "value", None)
    if isinstance(node, ast.Expr):
        return not step.writes
    if value is None or isinstance(node, ast.AugAssign | ast.Return):
        return False
    if any(isinstance(target, ast.Subscript) for target in targets_of(node)):
        return False
    if isinstance(value, ast.Call):
        return root_of(value.func).split(".")[-1] in _EMPTY
    if isinstance(value, ast.Name | ast.Attribute | ast.Subscript | ast.Tuple | ast.Constant):
        return text.upstream is None or text.upstream not in step.reads
    return False


def _before(text: Text, step: Step, name: str) -> list[Step]:
    """Return the statements that a statement may have the value of `name` from."""
    found: list[Step] = []
    position = text.steps.index(step)
    for other in reversed(text.steps[:position]):
        if name in other.writes:
            found.append(other)
            if other.whole and set(map(id, other.blocks)) <= set(map(id, step.blocks)):
                break
    loops = {id(b) for b in step.blocks if isinstance(b, ast.For | ast.While)}
    for other in text.steps[position:]:
        if name in other.writes and loops & {id(b) for b in other.blocks}:
            found.append(other)
    return found


def feeding(text: Text, start: Step, reads: Iterable[str]) -> list[Step]:
    """Return the statements that feed a statement, itself included, in order."""
    found: dict[int, Step] = {id(start): start}
    pending = [(start, name) for name in reads]
    while pending:
        step, name = pending.pop()
        for other in _before(text, step, name):
            if id(other) not in found:
                found[id(other)] = other
                pending += [(other, read) for read in other.reads]
    return [step for step in text.steps if id(step) in found]


def replacing_lines(backward: Any) -> list[tuple[str, int]]:
    """Return the lines of a backward pass that put a new array in the list of gradients."""
    text = text_of(backward)
    found: list[tuple[str, int]] = []
    if text is None:
        return found
    for step in text.steps:
        for target in targets_of(step.node) if isinstance(step.node, ast.Assign) else ():
            if isinstance(target, ast.Subscript):
                index = target.slice
                if isinstance(index, ast.Slice) or getattr(index, "value", None) is Ellipsis:
                    continue
                target = target.value
            if isinstance(target, ast.Attribute) and target.attr in ("grads", "gradients"):
                found.append((text.file, step.line))
    return found
