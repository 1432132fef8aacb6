"""The text of somebody's function: its statements, what each reads and writes, what feeds what."""

from __future__ import annotations

import ast
import inspect
import linecache
import os
import re
import textwrap
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import islice
from types import CodeType
from typing import Any

import numpy as np

from .. import pytree
from ..recording import Call, Site, name_of

# A line of a file.
Place = tuple[str, int]

_OWN_MUTATORS = {"append", "extend", "fill", "update", "insert", "sort", "setdefault"}
_MUTATORS = {
    "at",
    "copyto",
    "put",
    "place",
    "putmask",
    "fill_diagonal",
    "put_along_axis",
} | _OWN_MUTATORS


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


_COMPUTING = ast.BinOp | ast.UnaryOp | ast.Call | ast.IfExp | ast.Compare
_SIZES = {"shape", "size", "ndim", "dtype"}

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


def statement_at(file: str, line: int) -> str:
    """Return the statement that begins at a line, in one line; of a block its head."""
    lines = linecache.getlines(file)
    tree, last = _tree("".join(lines)), line
    for node in ast.walk(tree) if tree is not None else ():
        if isinstance(node, ast.stmt) and node.lineno == line:
            body = getattr(node, "body", None)
            last = max(line, body[0].lineno - 1 if body else node.end_lineno or line)
    if last == line:
        return linecache.getline(file, line).strip()
    text = " ".join(part.split("#")[0].strip() for part in lines[line - 1 : last])
    return re.sub(r"(?<=[(\[{]) | (?=[)\]}])", "", text).strip()


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
    parts: tuple[ast.AST, ...]  # of a block its head
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

    def place(self, step: Step) -> Place:
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


@lru_cache(maxsize=512)
def steps_of(code: CodeType) -> dict[int, Step]:
    """Return the statements of a function by their lines; a lambda is one that returns."""
    file, first = code.co_filename, code.co_firstlineno
    tree = _tree("".join(linecache.getlines(file)))
    kind: Any = ast.Lambda if code.co_name == "<lambda>" else ast.FunctionDef | ast.AsyncFunctionDef
    for node in ast.walk(tree) if tree is not None else ():
        if not isinstance(node, kind):
            continue
        decorators = getattr(node, "decorator_list", [])
        if first not in (node.lineno, *(d.lineno for d in decorators)):
            continue
        if isinstance(node, ast.Lambda):
            given = ast.copy_location(ast.Return(node.body), node.body)
            steps = [_step(given, [given], (), given.end_lineno or given.lineno)]
        elif getattr(node, "name", "") == code.co_name:
            steps = list(_steps(node.body, ()))
        else:
            continue
        # The innermost statement of a line is the last one that has it.
        return {line: step for step in steps for line in range(step.line, step.end + 1)}
    return {}


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
        writes |= set(map(root_of, mutated(node.value)))
    # Inside a branch or a loop, what decides it is read too.
    for block in blocks:
        for head in (getattr(block, "test", None), getattr(block, "iter", None)):
            if head is not None:
                names = (n for n in ast.walk(head) if isinstance(n, ast.Name | ast.Attribute))
                reads |= {root_of(n) for n in names}
    last = max(end, node.lineno)
    return Step(
        node, node.lineno, last, frozenset(reads), frozenset(writes), whole, tuple(parts), blocks
    )


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


def mutated(call: ast.Call) -> list[ast.expr]:
    """Return the expressions that a call writes into, as far as NumPy and lists go."""
    found = [word.value for word in call.keywords if word.arg == "out"]
    if isinstance(call.func, ast.Attribute) and call.func.attr in _MUTATORS:
        own = call.func.attr in _OWN_MUTATORS
        found += [call.func.value] if own else call.args[:1]
    return found


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


def is_computing(node: ast.AST) -> bool:
    """Tell whether an expression computes, rather than hands on what is there."""
    return any(isinstance(item, _COMPUTING) for item in ast.walk(node))


def skips(node: ast.AST) -> bool:
    """Tell whether a loop is over a range that begins late, or ends at a computed place."""
    if not isinstance(node, ast.For) or not isinstance(node.iter, ast.Call):
        return False
    inner = node.iter
    if root_of(inner.func) == "reversed" and inner.args and isinstance(inner.args[0], ast.Call):
        inner = inner.args[0]
    if root_of(inner.func) != "range":
        return False
    late = len(inner.args) == 2 and getattr(inner.args[0], "value", None) != 0
    return late or any(isinstance(arg, ast.BinOp) for arg in inner.args[:2])


def only_calls(value: ast.Call) -> bool:
    """Tell whether a statement hands on what a function of the reader's has made."""
    return not any(map(is_computing, [*value.args, *(word.value for word in value.keywords)]))


def counts(value: ast.AST) -> bool:
    """Tell whether an expression is about shapes alone."""
    while isinstance(value, ast.Subscript):
        value = value.value
    return isinstance(value, ast.Attribute) and value.attr in _SIZES


def replacing_lines(backward: Any) -> list[Place]:
    """Return the lines of a backward pass that put a new array in the list of gradients."""
    text = text_of(backward)
    found: list[Place] = []
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


# -------------------- whose code it is --------------------

_SKIP = (
    *(os.path.dirname(os.path.abspath(f)) + os.sep for f in (np.__file__, os.__file__, __file__)),
    os.path.abspath(pytree.__file__),
)


def is_readable(place: Place) -> bool:
    """Tell whether there is a source line to show at a place."""
    return bool(linecache.getline(*place).strip())


def is_theirs(code: CodeType) -> bool:
    """Tell whether code is the user's: not NumPy's, not Python's, not this package's checker."""
    file = os.path.normpath(code.co_filename)
    return not file.startswith(_SKIP) and not file.startswith("<frozen")


def forward_line(call: Call | None) -> Place | None:
    """Return the line of the forward operation that a call was recorded at."""
    if call is None or call.source is None:
        return None
    file, line = call.source[0], call.source[1]
    if os.path.normpath(file).startswith(_SKIP) or "site-packages" in file or file.startswith("<"):
        return None
    return file, line


def code_of(function: Any) -> Any:
    """Return the code of a function or method of the user's."""
    if inspect.isclass(function):
        function = getattr(function, "backward", None)
    function = inspect.unwrap(function) if callable(function) else function
    return getattr(getattr(function, "__func__", function), "__code__", None)
