"""The reader's functions while they run with something else in one place, and what they see."""

from __future__ import annotations

import ast
import gc
import io
import warnings
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager, redirect_stdout
from functools import cached_property
from itertools import permutations
from types import CodeType, FrameType, FunctionType
from typing import Any

import numpy as np

from ..guard import CheckError
from ..source import definition_of
from .scope import Scope, fields_of
from .statements import Reach
from .variants import Slot, Variant

# What a changed statement may raise, also where an adapter reads what comes of it.
FAILING = (
    *(ArithmeticError, AssertionError, AttributeError, LookupError, NameError),
    *(RuntimeError, TypeError, ValueError),
)
_FUTURE = 0x1FF0000  # the flags of code that `from __future__` sets


class Function:
    """The functions of one code, which may run another for a while."""

    def __init__(self, code: CodeType, same: Sequence[FunctionType]) -> None:
        self.code, self.same, self.tree = code, same, definition_of(code)

    @cached_property
    def module(self) -> ast.Module:
        """A module that defines the function where it stands, in a class of the same name."""
        names = self.same[0].__qualname__.split(".")
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

    @cached_property
    def words(self) -> list[str]:
        """The texts that the function compares something with."""
        compared = [node for node in self.nodes if isinstance(node, ast.Compare)]
        sides = [side for node in compared for side in node.comparators]
        values = [getattr(side, "value", None) for side in sides]
        return [value for value in values if isinstance(value, str)]

    def statements(self, line: int) -> Iterator[Slot]:
        """Yield the statements that begin at a line, with their places."""
        nodes = self.nodes if self.same else []
        if any(isinstance(node, ast.While) for node in nodes):  # it may never end with another step
            return
        for holder in nodes:
            for field in ("body", "orelse", "finalbody"):
                inner = getattr(holder, field, None)
                for i, node in enumerate(inner if isinstance(inner, list) else ()):
                    if node.lineno == line:
                        yield holder, field, i, node

    def run_with(self, variant: Variant, run: Callable[[], Any]) -> Any:
        """Return what a run gives with something else in one place; nothing where it cannot run."""
        back = variant.stand()
        try:
            code = self._compiled()
        finally:
            back.exchange()
        if code is None or code.co_freevars != self.code.co_freevars:
            return ()
        with self._being(code), redirect_stdout(io.StringIO()), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            try:
                return run()
            except (CheckError, *FAILING):
                return ()

    def _compiled(self) -> CodeType | None:
        """Return the code of the tree as it is now."""
        tree: Any = self.tree
        decorators, tree.decorator_list = tree.decorator_list, []
        try:
            flags = self.code.co_flags & _FUTURE
            made = compile(self.module, self.code.co_filename, "exec", flags, dont_inherit=True)
        except (SyntaxError, ValueError, TypeError):
            return None
        finally:
            tree.decorator_list = decorators
        return next(_inside(made, self.code.co_name, tree.lineno), None)

    @contextmanager
    def _being(self, code: CodeType) -> Iterator[None]:
        try:
            for function in self.same:
                function.__code__ = code
            yield
        finally:
            for function in self.same:
                function.__code__ = self.code


def running(codes: Collection[CodeType]) -> dict[CodeType, list[FunctionType]]:
    """Return the functions that run each of some codes."""
    found: dict[CodeType, list[FunctionType]] = {code: [] for code in codes}
    for held in gc.get_referrers(*codes) if codes else ():  # one way through all objects
        if isinstance(held, FunctionType) and held.__code__ in found:
            found[held.__code__].append(held)
    return found


def _inside(code: CodeType, name: str, line: int) -> Iterator[CodeType]:
    """Yield the codes of a name and a line that some code holds."""
    for item in code.co_consts:
        if isinstance(item, CodeType):
            if item.co_name == name and item.co_firstlineno == line:
                yield item
            yield from _inside(item, name, line)


def named_in(frame: FrameType, function: Function) -> Reach:
    """Return what the variables of a function are and hold, with the texts that name it.

    Parts that are written somewhere in it, as `hs[t - 1]`, are in reach too.
    """
    found: dict[str, Any] = {}
    pending = [(name, value, 2) for name, value in frame.f_locals.items() if name.isidentifier()]
    pending += [
        (text, held, 0)
        for text in (*map(ast.unparse, function.parts), *_parts_alike(frame, function))
        if (held := _part(text, frame)) is not None
    ]
    pending += [(name, held, 0) for name, held in frame.f_globals.items() if name.isupper()]
    while pending and len(found) < 80:
        text, value, depth = pending.pop(0)
        if isinstance(value, np.ndarray | np.generic) and value.dtype.kind in "fiub":
            found[text] = value.shape
        elif hasattr(type(value), "__matmul__") and hasattr(value, "shape"):  # a sparse matrix
            found[text] = tuple(value.shape)
        elif type(value) in (int, float):
            found[text] = value
        elif type(value) is dict and depth:
            held = [(k, v) for k, v in value.items() if isinstance(k, str)]
            pending += [(f"{text}[{k!r}]", v, depth - 1) for k, v in held]
        elif depth:
            pending += [(f"{text}.{k}", v, depth - 1) for k, v in fields_of(value).items()]
    return found


def _parts_alike(frame: FrameType, function: Function) -> Iterator[str]:
    """Yield the same parts of other lists, and single entries at which loops are."""
    names = {name: held for name, held in frame.f_locals.items() if name.isidentifier()}
    lists = [name for name, held in names.items() if type(held) in (list, tuple, dict)]
    for node in function.parts:
        if getattr(node.value, "id", None) in lists:
            yield from (f"{name}[{ast.unparse(node.slice)}]" for name in lists)
    counters = [name for name in function.counters if type(names.get(name)) is int]
    for name, held in names.items():
        if isinstance(held, np.ndarray) and 0 < held.ndim < 3:
            yield from (f"{name}[{', '.join(at)}]" for at in permutations(counters, held.ndim))


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
