"""Which statement makes wrong gradients right when one small thing in it is changed."""

from __future__ import annotations

import ast
import gc
import io
import sys
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stdout
from types import CodeType, FrameType, FunctionType
from typing import Any

import numpy as np

from ...validation import Shape
from ..guard import CheckError, Deadline
from ..source import Place, definition_of, text_of
from .scope import fields_of
from .variants import Reach, Slot, Variant, variants

Gradients = Sequence[Any]
Spot = tuple[CodeType, int]  # a line of a function
_MOST = 200  # runs of a backward pass
_NEAR = 0.25  # what costs that much more than the least is as likely
_FUTURE = 0x1FF0000  # the flags of code that `from __future__` sets


def mending(
    spots: Mapping[Spot, tuple[float, Sequence[Shape]]],
    run: Callable[[], Gradients],
    is_mended: Callable[[Gradients], bool],
    deadline: Deadline,
) -> list[Place]:
    """Return the lines of which one small change makes all right, those of the least change.

    `spots` are the lines that are asked for, the likeliest first: what it costs that it is this
    one, and the shapes of what it makes. `run` runs the backward pass.
    """
    reach = _reached(spots, run)
    functions = {code: _Function(code) for code, _ in spots}
    tries: list[tuple[float, int, Spot, Variant]] = []
    for number, (spot, (more, shapes)) in enumerate(spots.items()):
        for body in functions[spot[0]].statements(spot[1]) if spot in reach else ():
            made = variants(body, reach[spot], shapes)
            tries += [(more + variant.cost, number, spot, variant) for variant in made]
    tries.sort(key=lambda t: t[:2])
    found: dict[Place, float] = {}
    for cost, _, (code, line), variant in tries[:_MOST]:
        if deadline.is_over or (found and cost > min(found.values()) + _NEAR):
            break
        place = code.co_filename, line
        if place not in found and is_mended(functions[code].run_with(variant, run)):
            found[place] = cost
    least = min(found.values(), default=0.0)
    return [place for place, cost in found.items() if cost == least]


class _Function:
    """The functions of one code, which may run another for a while."""

    def __init__(self, code: CodeType) -> None:
        self.code, self.tree = code, definition_of(code)
        referring = gc.get_referrers(code)
        self.same = [f for f in referring if isinstance(f, FunctionType) and f.__code__ is code]
        names = self.same[0].__qualname__.split(".") if self.same else []
        self.owner = names[-2] if names[1:] and names[-2].isidentifier() else ""

    def statements(self, line: int) -> Iterator[Slot]:
        """Yield the statements that begin at a line, with their places."""
        nodes = list(ast.walk(self.tree)) if self.tree is not None and self.same else []
        if any(isinstance(node, ast.While) for node in nodes):  # it may never end with another step
            return
        for holder in nodes:
            for field in ("body", "orelse", "finalbody"):
                inner = getattr(holder, field, None)
                for i, node in enumerate(inner if isinstance(inner, list) else ()):
                    if node.lineno == line:
                        yield holder, field, i, node

    def run_with(self, variant: Variant, run: Callable[[], Gradients]) -> Gradients:
        """Return the gradients with something else in one place; none where it cannot run."""
        back = variant.exchange()
        ast.copy_location(variant.node, back.node)
        ast.fix_missing_locations(variant.node)
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
            except CheckError:
                return ()

    def _compiled(self) -> CodeType | None:
        """Return the code of the tree as it is now, in a class of the same name."""
        tree: Any = self.tree
        free = ", ".join(name for name in self.code.co_freevars if name != "__class__")
        inner = f"\n    class {self.owner}: pass" if self.owner else " pass"
        module = ast.parse(f"def around({free}):{inner}")
        holder: Any = module.body[0]
        holder = holder.body[0] if self.owner else holder
        decorators, tree.decorator_list, holder.body = tree.decorator_list, [], [tree]
        try:
            flags = self.code.co_flags & _FUTURE
            made = compile(module, self.code.co_filename, "exec", flags, dont_inherit=True)
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


def _inside(code: CodeType, name: str, line: int) -> Iterator[CodeType]:
    """Yield the codes of a name and a line that some code holds."""
    for item in code.co_consts:
        if isinstance(item, CodeType):
            if item.co_name == name and item.co_firstlineno == line:
                yield item
            yield from _inside(item, name, line)


# -------------------- what is in reach --------------------


def _reached(spots: Mapping[Spot, object], run: Callable[[], object]) -> dict[Spot, Reach]:
    """Return what may be named at some lines when they first run."""
    found: dict[Spot, Reach] = {}
    codes = {code for code, _ in spots if text_of(code) is not None}

    def look(frame: FrameType, what: str, given: object) -> Any:
        if frame.f_code not in codes:
            return None
        text = text_of(frame.f_code)
        step = text.at(frame.f_lineno) if text is not None else None
        spot = frame.f_code, step.line if step is not None else 0
        if what == "line" and spot in spots and spot not in found:
            found[spot] = _named_in(frame)
        return look

    before = sys.gettrace()
    sys.settrace(look)
    try:
        run()
    except CheckError:
        pass
    finally:
        sys.settrace(before)
    return found


def _named_in(frame: FrameType) -> Reach:
    """Return what the variables of a function are and hold, with the texts that name it."""
    found: dict[str, Any] = {}
    pending = [(name, value, 2) for name, value in frame.f_locals.items() if name.isidentifier()]
    while pending and len(found) < 60:
        text, value, depth = pending.pop(0)
        if isinstance(value, np.ndarray) and value.dtype.kind in "fiub":
            found[text] = value.shape
        elif type(value) in (int, float):
            found[text] = value
        elif type(value) is dict and depth:
            held = [(k, v) for k, v in value.items() if isinstance(k, str)]
            pending += [(f"{text}[{k!r}]", v, depth - 1) for k, v in held]
        elif depth:
            pending += [(f"{text}.{k}", v, depth - 1) for k, v in fields_of(value).items()]
    return found
