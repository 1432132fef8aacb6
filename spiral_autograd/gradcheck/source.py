"""The text of somebody's functions: their statements, what each reads and writes, and where."""

from __future__ import annotations

import ast
import inspect
import linecache
import os
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache
from itertools import islice
from types import CodeType

import numpy as np

from .. import pytree, state
from ..recording import Call, Site

Place = tuple[str, int]  # a line of a file

# -------------------- whose code it is --------------------

SKIP = (
    *(os.path.dirname(os.path.abspath(f)) + os.sep for f in (np.__file__, os.__file__, __file__)),
    os.path.abspath(pytree.__file__),
    os.path.abspath(state.__file__),
)


def is_readable(place: Place) -> bool:
    """Tell whether there is a source line to show at a place."""
    return bool(linecache.getline(*place).strip())


def forward_line(call: Call | None) -> Place | None:
    """Return the line of the user's forward pass that a call was recorded at, if it is theirs."""
    if call is None or call.source is None:
        return None
    file, line = call.source[:2]
    if os.path.normpath(file).startswith(SKIP) or "site-packages" in file or file.startswith("<"):
        return None
    return file, line


def code_of(function: object, method: str = "backward") -> CodeType | None:
    """Return the code of a function or method of the user's; of a class, that of a method."""
    if isinstance(function, CodeType):
        return function
    if inspect.isclass(function):
        function = getattr(function, method, None)
    function = inspect.unwrap(function) if callable(function) else function
    code = getattr(getattr(function, "__func__", function), "__code__", None)
    return code if isinstance(code, CodeType) else None


# -------------------- statements --------------------

# What writes into its own object, and what into its first argument.
_LISTS = ("append", "extend", "insert")
_OWN_MUTATORS = frozenset("append extend fill insert setdefault sort update".split())
_MUTATORS = frozenset("at copyto fill_diagonal place put put_along_axis putmask shuffle".split())
_COMPUTING = ast.BinOp | ast.UnaryOp | ast.Call | ast.IfExp | ast.Compare


@dataclass(frozen=True, eq=False)
class Step:
    """A statement of the reader's: of a block its head, with the blocks that it stands in."""

    node: ast.stmt
    line: int
    end: int
    heads: tuple[ast.AST, ...]  # the statement itself; of a block what stands in its head
    blocks: tuple[ast.AST, ...]
    beside: tuple[Step, ...] = ()  # the other statements of its line, which run as one with it

    @cached_property
    def targets(self) -> list[ast.expr]:
        """The expressions that are assigned to, those of tuples one by one."""
        walrus = [n.target for n in self._nodes if isinstance(n, ast.NamedExpr)]
        return [*targets_of(self.node), *walrus, *(t for step in self.beside for t in step.targets)]

    @cached_property
    def changed(self) -> list[ast.expr]:
        """The expressions of what is written into where it is, rather than made anew."""
        calls = [node for node in self._nodes if isinstance(node, ast.Call)]
        holders = [t.value for t in targets_of(self.node) if isinstance(t, ast.Subscript)]
        found = [*self._kept, *holders, *(node for call in calls for node in _mutated(call))]
        return found + [node for step in self.beside for node in step.changed]

    @cached_property
    def used(self) -> list[ast.expr]:
        """The largest expressions of names, attributes and entries that are read."""
        found = [*self._kept, *(node for head in self.heads for node in _references(head))]
        return found + [node for step in self.beside for node in step.used]

    @cached_property
    def parts(self) -> dict[str, list[ast.expr]]:
        """What each part reads of what is given or assigned, by ``[1]`` or ``['W']``."""
        if not isinstance(self.node, ast.Return | ast.Assign) or self.node.value is None:
            return {}
        if self.beside:
            return {}
        return {path: _references(node) for path, node in _parts_of(self.node.value) if path}

    @cached_property
    def reads(self) -> frozenset[str]:
        """The variables and attributes that are read, those that a block depends on included."""
        around = [getattr(b, name, None) for b in self.blocks for name in ("test", "iter")]
        nodes = [n for head in around if head for n in ast.walk(head)]
        read = [n for n in (*self._nodes, *nodes) if _is_name(n) and not _is_stored(n)]
        return frozenset(map(root_of, [*read, *self._kept]))

    @cached_property
    def writes(self) -> frozenset[str]:
        """The variables and attributes that are written, or written into."""
        stored = [n for n in self._nodes if _is_name(n) and _is_stored(n)]
        into = self.changed if isinstance(self.node, ast.Expr) else []
        return frozenset(map(root_of, [*stored, *self.targets, *into]))

    @cached_property
    def _nodes(self) -> list[ast.AST]:
        return [node for head in self.heads for node in ast.walk(head)]

    @cached_property
    def _kept(self) -> list[ast.expr]:
        """What an augmented assignment adds to."""
        return targets_of(self.node) if isinstance(self.node, ast.AugAssign) else []


@dataclass(frozen=True, eq=False)
class Text:
    """The statements of a function, in order."""

    file: str
    steps: tuple[Step, ...]

    def at(self, line: int) -> Step | None:
        """Return the innermost statement that a line belongs to."""
        return self._by_line.get(line)

    def place(self, step: Step) -> Place:
        """Return where a statement begins."""
        return self.file, step.line

    @cached_property
    def _by_line(self) -> dict[int, Step]:
        # The innermost statement of a line is the last one that has it.
        found: dict[int, Step] = {}
        for step in self.steps:
            before = found.get(step.line)
            if before is not None and before.line == before.end == step.line:
                step = replace(step, beside=(*before.beside, before))
            found.update(dict.fromkeys(range(step.line, step.end + 1), step))
        return found


def text_of(function: object) -> Text | None:
    """Return the statements of a function of the user's; None where there is no source."""
    return _text_of(code) if (code := code_of(function, "forward")) else None


@lru_cache(maxsize=512)
def _text_of(code: CodeType) -> Text | None:
    """Return the statements of a function from its file; a lambda is one that returns."""
    if (node := definition_of(code)) is None:
        return None
    given = b if isinstance(b := node.body, list) else [ast.copy_location(ast.Return(b), b)]
    return Text(code.co_filename, tuple(_steps(given, ())))


def definition_of(code: CodeType) -> ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda | None:
    """Return where a function is defined in its file."""
    first = min(((at, column) for at, _, column, end in code.co_positions() if end), default=None)
    for node in nodes_of("".join(linecache.getlines(code.co_filename))):
        if isinstance(node, ast.Lambda) and node.lineno == code.co_firstlineno:
            if first in (None, (node.body.lineno, node.body.col_offset)):  # of several there
                return node
        elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            first_lines = {part.lineno for part in (node, *node.decorator_list)}
            if node.name == code.co_name and code.co_firstlineno in first_lines:
                return node
    return None


@lru_cache(maxsize=4096)
def inner_codes(code: CodeType) -> tuple[CodeType, ...]:
    """Return the codes of the functions that stand in another one."""
    own = [item for item in code.co_consts if isinstance(item, CodeType)]
    return tuple(inner for item in own for inner in (item, *inner_codes(item)))


@lru_cache(maxsize=8)
def nodes_of(text: str) -> list[ast.AST]:
    """Return the nodes of a file's syntax tree; none where it cannot be read."""
    try:
        return list(ast.walk(ast.parse(text)))
    except (SyntaxError, ValueError):
        return []


def _steps(body: Sequence[ast.stmt], blocks: tuple[ast.AST, ...]) -> Iterator[Step]:
    for node in body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            continue
        inner = getattr(node, "body", None)
        if inner is None:
            yield Step(node, node.lineno, node.end_lineno or node.lineno, (node,), blocks)
            continue
        heads = [getattr(node, name, None) for name in ("iter", "test", "target")]
        end = max(inner[0].lineno - 1, node.lineno)
        yield Step(node, node.lineno, end, tuple(h for h in heads if h is not None), blocks)
        others = [getattr(node, name, []) for name in ("orelse", "finalbody")]
        for part in (inner, *others, *(handler.body for handler in getattr(node, "handlers", []))):
            yield from _steps(part, (*blocks, node))


def targets_of(node: ast.AST) -> list[ast.expr]:
    """Return the expressions that a statement assigns to, those of tuples one by one."""
    found: list[ast.expr] = []
    given = [*getattr(node, "targets", []), getattr(node, "target", None)]
    pending = [item for item in given if item is not None]
    while pending:
        item = pending.pop(0)
        inner = item.elts if isinstance(item, ast.Tuple | ast.List) else None
        if inner is None:
            found.append(item.value if isinstance(item, ast.Starred) else item)
        else:
            pending = [*inner, *pending]
    return found


def _is_name(node: ast.AST) -> bool:
    return isinstance(node, ast.Name | ast.Attribute)


def _is_stored(node: ast.AST) -> bool:
    return isinstance(getattr(node, "ctx", None), ast.Store)


def _mutated(call: ast.Call) -> list[ast.expr]:
    """Return the expressions that a call writes into, as far as NumPy and lists go."""
    found = [word.value for word in call.keywords if word.arg == "out"]
    if isinstance(call.func, ast.Attribute):
        found += [call.func.value] if call.func.attr in _OWN_MUTATORS else []
        found += call.args[:1] if call.func.attr in _MUTATORS else []
    return found


def _references(node: ast.AST) -> list[ast.expr]:
    """Return the largest expressions of names, attributes and entries that are read in one."""
    if isinstance(node, ast.Call) and getattr(node.func, "attr", "") in _LISTS:
        return _of_all([*node.args, *node.keywords])  # a list is not read to add to it
    if not isinstance(node, ast.Name | ast.Attribute | ast.Subscript):
        return _of_all(ast.iter_child_nodes(node))
    found: list[ast.expr] = [] if _is_stored(node) else [node]
    inner: ast.expr = node
    while isinstance(inner, ast.Attribute | ast.Subscript):
        if isinstance(inner, ast.Subscript):
            found += _references(inner.slice)
        inner = inner.value
    return found if isinstance(inner, ast.Name) else [*found, *_references(inner)]


def _of_all(nodes: Iterable[ast.AST]) -> list[ast.expr]:
    return [found for node in nodes for found in _references(node)]


def _parts_of(value: ast.expr, path: str = "") -> Iterator[tuple[str, ast.expr]]:
    """Yield the innermost parts of a tuple, list or dict as it is written down."""
    if isinstance(value, ast.Tuple | ast.List):
        for i, item in enumerate(value.elts):
            yield from _parts_of(item, f"{path}[{i}]")
    elif isinstance(value, ast.Dict):
        for key, item in zip(value.keys, value.values, strict=True):
            yield from _parts_of(item, f"{path}[{getattr(key, 'value', None)!r}]")
    else:
        yield path, value


def root_of(node: ast.AST) -> str:
    """Return the variable, or the attribute of one, that an expression is rooted in."""
    while True:
        if isinstance(node, ast.Name):
            return node.id
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            return f"{node.value.id}.{node.attr}"
        if isinstance(node, ast.Attribute | ast.Subscript | ast.Starred):
            node = node.value
        elif isinstance(node, ast.Call):
            node = node.func
        else:
            return ""


def is_computing(node: ast.AST) -> bool:
    """Tell whether an expression computes, rather than hands on what is there."""
    return any(isinstance(item, _COMPUTING) for item in ast.walk(node))


# -------------------- the reader's own words --------------------


def expression(call: Call | Site) -> str | None:
    """Return the reader's own text of what a call computes, as ``np.dot(x, W)``, if any."""
    if call.instruction is None or call.source is None:
        return None
    code, offset = call.instruction
    place = next(islice(code.co_positions(), offset // 2, None), (None,) * 4)
    text = _text_at(code.co_filename, *place)
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


def statement_at(file: str, line: int) -> str:
    """Return the statement that begins at a line, in one line; of a block its head."""
    lines, last = linecache.getlines(file), line
    for node in nodes_of("".join(lines)):
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
    found = {}
    for node in nodes_of(source):
        if isinstance(node, ast.Assign) and _is_name(node.targets[0]):
            value = node.value
            place = value.lineno, value.end_lineno, value.col_offset, value.end_col_offset
            text = " ".join((_text_at(file, *place) or "").split())
            found[value.lineno, text] = ast.unparse(node.targets[0])
    return found
