"""The reader's functions while they run with something else in one place, and what they see."""

from __future__ import annotations

import ast
import gc
import re
from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import cached_property
from itertools import permutations
from types import CodeType, FrameType, FunctionType
from typing import Any

import numpy as np

from ..source import definition_of, inner_codes
from .scope import Scope, fields_of
from .tree import Reach, Slot

# What a changed statement may raise, also where an adapter reads what comes of it.
FAILING = (
    *(ArithmeticError, AssertionError, AttributeError, LookupError, NameError),
    *(MemoryError, RuntimeError, StopIteration, TypeError, ValueError),
)
_TAKING = {"pop", "popitem", "popleft", "next", "append", "extend", "insert", "update"}
_FEW = 6  # functions that may be called
_OF_NUMPY = {"exp", "log", "sqrt", "sin", "cos", "tanh", "sign", "sinh", "cosh", "log1p", "expm1"}
_MOST = 80  # things in reach
_SLOPES = {"abs": "sign", "absolute": "sign", "sin": "cos"}  # functions that are other ones' slopes
_FUTURE = 0x1FF0000  # the flags of code that `from __future__` sets


class Function:
    """The functions of one code, which may run another for a while.

    `makers` are those that make such functions each time they run, as closures are made.
    """

    def __init__(
        self, code: CodeType, same: Sequence[FunctionType], makers: Sequence[FunctionType]
    ) -> None:
        self.code, self.same, self.makers = code, same, makers
        tree = definition_of(code)
        self.tree = _with_a_name(tree) if isinstance(tree, ast.Lambda) else tree

    def runs(self, code: CodeType) -> bool:
        """Tell whether a code is what they run now: what is loaded twice has equal ones."""
        if not self.same:
            return code == self.code
        return any(function.__code__ is code for function in self.same)

    @cached_property
    def module(self) -> ast.Module:
        """A module that defines the function where it stands, in a class of the same name."""
        names = self.same[0].__qualname__.split(".") if self.same else []
        owner = names[-2] if names[1:] and names[-2].isidentifier() else ""
        free = ", ".join(name for name in self.code.co_freevars if name != "__class__")
        inner = f"\n    class {owner}: pass" if owner else " pass"
        module = ast.parse(f"def around({free}):{inner}")
        holder: Any = module.body[0]
        holder = holder.body[0] if owner else holder
        holder.body = [self.tree]
        return module

    @cached_property
    def nodes(self) -> list[Any]:
        """The nodes of the function as it was written."""
        return [*ast.walk(self.tree)] if self.tree is not None else []

    @cached_property
    def parts(self) -> list[Any]:
        """The parts of variables that the function reads or writes, each once."""
        found = {
            ast.unparse(node): node
            for node in self.nodes
            if isinstance(node, ast.Subscript) and isinstance(node.value, ast.Name | ast.Attribute)
            if isinstance(node.slice, ast.Name | ast.BinOp | ast.UnaryOp | ast.Constant)
        }
        return [*found.values()]

    @cached_property
    def counters(self) -> list[str]:
        """The variables that loops of the function count with."""
        targets = [node.target for node in self.nodes if isinstance(node, ast.For)]
        return list(dict.fromkeys(t.id for t in targets if isinstance(t, ast.Name)))

    def counters_over(self, line: int) -> set[str]:
        """Return those of loops that a line is not in: what is left of them means nothing."""
        loops = [node for node in self.nodes if isinstance(node, ast.For)]
        around = [loop.target for loop in loops if loop.lineno <= line <= (loop.end_lineno or 0)]
        return set(self.counters) - {target.id for target in around if isinstance(target, ast.Name)}

    @cached_property
    def words(self) -> list[str]:
        """The texts that the function compares something with, or calls something with."""
        compared = [node for node in self.nodes if isinstance(node, ast.Compare | ast.Call)]
        sides = [side for node in compared for side in _sides(node)]
        values = [getattr(side, "value", None) for side in sides]
        return [value for value in values if isinstance(value, str)]

    @cached_property
    def naming(self) -> list[ast.stmt]:
        """What names the variables from around, and does nothing: they stay what is closed over."""
        return ast.parse("".join(f"if 0: {name}\n" for name in self.code.co_freevars)).body

    def statements(self, line: int) -> Iterator[Slot]:
        """Yield the statements that begin at a line, with their places."""
        nodes = self.nodes if self.same or self.makers else []
        for holder in nodes:
            for field in ("body", "orelse", "finalbody"):
                inner = getattr(holder, field, None)
                for i, node in enumerate(inner if isinstance(inner, list) else ()):
                    if node.lineno == line:
                        yield holder, field, i, node

    @contextmanager
    def being(self, code: CodeType) -> Iterator[None]:
        """Let the functions run another code for a while."""
        before = [(function, function.__code__) for function in (*self.same, *self.makers)]
        try:
            for function in self.same:
                function.__code__ = code
            for function in self.makers:
                function.__code__ = _making(function.__code__, code)
            yield
        finally:
            for function, own in before:
                function.__code__ = own

    def compiled(self) -> CodeType | None:
        """Return the code of the tree as it is now; None where it cannot run."""
        tree: Any = self.tree
        decorators, tree.decorator_list = tree.decorator_list, []
        body, tree.body = tree.body, [*tree.body, *self.naming]
        try:
            flags = self.code.co_flags & _FUTURE
            made = compile(self.module, self.code.co_filename, "exec", flags, dont_inherit=True)
        except (SyntaxError, ValueError, TypeError):
            return None
        finally:
            tree.decorator_list, tree.body = decorators, body
        own = (self.code.co_name, tree.lineno)
        same = (c for c in inner_codes(made) if (c.co_name, c.co_firstlineno) == own)
        code = next(same, None)
        return code if code and code.co_freevars == self.code.co_freevars else None


def _with_a_name(node: ast.Lambda) -> ast.FunctionDef:
    """Return a function without a name as one that is defined by a statement."""
    given = ast.copy_location(ast.Return(node.body), node.body)
    made = ast.copy_location(ast.parse("def named(): pass").body[0], node)
    assert isinstance(made, ast.FunctionDef)
    made.name, made.args, made.body = "<lambda>", node.args, [given]
    return made


def functions_of(codes: Collection[CodeType]) -> dict[CodeType, Function]:
    """Return the functions that run each of some codes, and those that make them."""
    found: dict[CodeType, tuple[list[FunctionType], list[FunctionType]]]
    found, files = {code: ([], []) for code in codes}, {code.co_filename for code in codes}
    for held in gc.get_objects() if codes else ():  # one way through all objects
        if type(held) is FunctionType and held.__code__.co_filename in files:
            for code in (held.__code__, *inner_codes(held.__code__)):
                if code in found:
                    found[code][code is not held.__code__].append(held)
    return {code: Function(code, *held) for code, held in found.items()}


def _making(code: CodeType, inner: CodeType) -> CodeType:
    """Return the code of a function that makes functions of another code."""

    def instead(item: object) -> object:
        if not isinstance(item, CodeType):
            return item
        places = [(one.co_name, one.co_firstlineno) for one in (item, inner)]
        return inner if places[0] == places[1] else _making(item, inner)

    return code.replace(co_consts=tuple(map(instead, code.co_consts)))


def takes(node: ast.AST) -> bool:
    """Tell whether a statement may change what it is made from, when it is evaluated."""
    calls = (part for part in ast.walk(node) if isinstance(part, ast.Name | ast.Attribute))
    return any(getattr(part, "attr", getattr(part, "id", "")) in _TAKING for part in calls)


def _sides(node: ast.Compare | ast.Call) -> list[ast.expr]:
    return node.comparators if isinstance(node, ast.Compare) else node.args


def named_in(frame: FrameType, function: Function) -> Reach:
    """Return what the variables of a function are and hold, with the texts that name it."""
    found, own = dict[str, Any](), {id(value) for value in frame.f_locals.values()}
    pending = [*_named(frame, function)]
    while pending and len(found) < _MOST:
        text, value, depth = pending.pop(0)
        thing = _thing(value)
        if thing is not None:
            found[text] = thing
        elif depth:
            pending += [(text + at, part, depth - 1) for at, part in _parts_of(value, own)]
    return found


def _named(frame: FrameType, function: Function) -> Iterator[tuple[str, Any, int]]:
    """Yield the variables, and how deep to look into each; then what is in reach beside them.

    Those are the parts that are written somewhere in the function, as `hs[t - 1]`, and globals.
    """
    over = function.counters_over(frame.f_lineno)
    for name, value in frame.f_locals.items():
        if name.isidentifier() and name not in over:
            yield name, value, 2
    texts = map(ast.unparse, function.parts)
    for text in (*texts, *_of_other_lists(frame, function), *_at_counters(frame, function)):
        held = _part(text, frame) if over.isdisjoint(re.findall(r"\w+", text)) else None
        if held is not None:
            yield text, held, 0
    for name, value in frame.f_globals.items():
        if name.isupper() or name in function.code.co_names:
            yield name, value, 0


def _thing(value: object) -> Any:
    """Return the shape of an array, or a number; None of anything else."""
    if isinstance(value, np.ndarray | np.generic) and value.dtype.kind in "fiub":
        return value.shape
    if hasattr(type(value), "__matmul__") and hasattr(value, "shape"):  # a sparse matrix
        return tuple(value.shape)
    if type(value) is list and value and all(map(_is_number, value)):
        return (len(value),)
    return value if type(value) in (int, float) else None


def _parts_of(value: object, own: Collection[int]) -> list[tuple[str, object]]:
    """Return what a dict, a tuple or an object holds, with the texts behind its own."""
    if type(value) is dict:
        return [(f"[{k!r}]", part) for k, part in value.items() if isinstance(k, str)]
    if type(value) is tuple:  # a cache that is not unpacked
        short = value if len(value) < 9 else ()
        return [(f"[{k}]", part) for k, part in enumerate(short) if id(part) not in own]
    return [(f".{k}", part) for k, part in fields_of(value).items()]


def calls_in(frame: FrameType, codes: Iterable[CodeType], called: Collection[str]) -> list[str]:
    """Return the functions of one thing that some code calls: it does no more if another does.

    Before them those that the passes have `called`, of NumPy too.
    """
    found, named = list[str](), {name for code in codes for name in code.co_names}
    called = {*called, *(_SLOPES[name] for name in called if name in _SLOPES), "tanh"}
    for name in (*sorted(called), *sorted(named - called)):
        held = frame.f_globals.get(name)
        if name in _OF_NUMPY and name in called and frame.f_globals.get("np") is np:
            found.append(f"np.{name}")
        if type(held) is FunctionType:
            given = held.__code__.co_argcount - len(held.__defaults__ or ())
            found += [name] * (given == 1)
    return list(dict.fromkeys(found))[:_FEW]


def _is_number(value: object) -> bool:
    return isinstance(value, float | np.generic | np.ndarray) and np.ndim(value) == 0


def _of_other_lists(frame: FrameType, function: Function) -> Iterator[str]:
    """Yield the parts of lists that are written in a function, of all lists."""
    names = {name: held for name, held in frame.f_locals.items() if name.isidentifier()}
    fields = {f"{n}.{k}": v for n, held in names.items() for k, v in fields_of(held).items()}
    kinds = (list, tuple, dict)
    lists = [name for name, held in (names | fields).items() if type(held) in kinds]
    parts = [node for node in function.parts if ast.unparse(node.value) in lists]
    yield from (f"{name}[{ast.unparse(node.slice)}]" for node in parts for name in lists)


def _at_counters(frame: FrameType, function: Function) -> Iterator[str]:
    """Yield the single entries of arrays at which loops are."""
    held = frame.f_locals
    counters = [name for name in function.counters if type(held.get(name)) is int]
    for name, array in held.items():
        if name.isidentifier() and isinstance(array, np.ndarray) and 0 < array.ndim < 3:
            yield from (f"{name}[{', '.join(at)}]" for at in permutations(counters, array.ndim))


def _part(text: str, frame: FrameType) -> Any:
    """Return the part of a list, a dict or an array that a text stands for there, if there is."""
    try:
        node: Any = ast.parse(text, mode="eval").body
        holder, _ = Scope(frame, 0, frame.f_locals).look(node.value)
        if type(holder) not in (list, tuple, dict, np.ndarray):
            return None
        made = compile(ast.unparse(node.slice), "<index>", "eval")
        held = holder[eval(made, {"__builtins__": {}}, frame.f_locals)]
        return held.item() if isinstance(held, np.float64 | np.int64) else held
    except FAILING:
        return None
