"""Lines that have to be other ones together, and the reader's functions while they are."""

from __future__ import annotations

import ast
import io
import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, redirect_stdout
from copy import deepcopy
from dataclasses import replace
from types import CodeType, FrameType
from typing import Any, NamedTuple

import numpy as np

from ..guard import CheckError
from ..reference.graph import Graph, is_number
from ..source import Place, targets_of
from .functions import FAILING, Function
from .statements import Together
from .trail import is_theirs
from .tree import Slot
from .variants import Variant

Spot = tuple[CodeType, int]  # a line of a function


class Mended(NamedTuple):
    """A line, and something else in it with which gradients are right."""

    spot: Spot
    body: Slot  # the statement
    variant: Variant
    function: Function
    cost: float  # how unlikely it is, also by what it makes
    back: int = -1  # how far back the value is whose gradient it makes then, if it makes a new one
    number: int | None = None  # what it makes, where that is a whole number

    def apart(self) -> Mended:
        """Return it with nodes of its own: what is offered shares parts with other offers."""
        node = deepcopy(self.variant.node)
        return self._replace(variant=replace(self.variant, node=node))

    @property
    def is_number(self) -> bool:
        """Whether a number that is written there is another then, or is not there."""
        return _numbers(self.variant.there) != _numbers(self.variant.node)

    @property
    def tells_more(self) -> bool:
        """Whether it is more than a number times what is written, which any line may be."""
        node = self.variant.node
        is_times = isinstance(node, ast.BinOp) and isinstance(node.right, ast.Constant)
        return not (is_times and getattr(node, "left", None) is self.variant.there)

    @property
    def place(self) -> Place:
        """Where it stands."""
        return self.spot[0].co_filename, self.spot[1]


Remedy = tuple[Mended, ...]  # the lines that have to be other ones together


def _numbers(node: ast.AST) -> list[str]:
    """Return the numbers that are written in a node."""
    held = [getattr(part, "value", None) for part in ast.walk(node)]
    return sorted(str(float(n)) for n in held if isinstance(n, int | float) and n not in (0, 1))


@contextmanager
def written(remedy: Remedy) -> Iterator[None]:
    """Let what should stand in some lines stand there for a while: not yet run, but written."""
    backs = [mended.variant.stand() for mended in remedy]
    try:
        yield
    finally:
        for back in reversed(backs):
            back.exchange()


def run_with(remedy: Remedy, run: Callable[[], Any], steps: int) -> Any:
    """Return what a run gives with something else in some lines; nothing where it cannot run.

    Or where it takes more than so many steps: a loop may not end any more.
    """
    with written(remedy):
        codes = {function: function.compiled() for function in {m.function for m in remedy}}
    if None in codes.values():
        return ()
    with ExitStack() as stack, redirect_stdout(io.StringIO()), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for function, code in codes.items():
            if code is not None:
                stack.enter_context(function.being(code))
        stack.enter_context(_ending(steps))
        try:
            return run()
        except (CheckError, *FAILING):
            return ()


@contextmanager
def _ending(steps: int) -> Iterator[None]:
    """Raise once the reader's code has run more than so many lines."""
    left, before = steps, sys.gettrace()

    def count(frame: FrameType, what: str, given: object) -> Any:
        nonlocal left
        if what == "call" and not is_theirs(frame.f_code):
            return None
        left -= 1
        if left < 0:
            raise CheckError("with a changed line it does not end")
        return count

    sys.settrace(count)
    try:
        yield
    finally:
        sys.settrace(before)


def texts_of(remedy: Remedy) -> list[str]:
    """Return what should stand in some lines: a statement, of a block its head.

    Nothing where a line should go.
    """
    with written(remedy):
        nodes = [(present(m.body), m) for m in remedy]
        nodes = [(n.value if m.spot[0].co_name == "<lambda>" else n, m) for n, m in nodes]
        return list(dict.fromkeys(_text(node, m.number) for node, m in nodes))


_WRITTEN_WITH = {  # of what a forward pass makes a function
    "the ReLU": {"maximum", "fmax", "clip", "a choice"},
    "the sigmoid": {"expit", "tanh", "a reciprocal"},
    "tanh": {"tanh"},
}


def derivatives_of(remedy: Remedy, graph: Graph | None) -> list[tuple[str, str]]:
    """Return which derivatives of common functions stand in the lines then, and did not before.

    Only of functions that the forward pass may have: without its graph that is not known.
    """
    before = _derivatives_at(remedy)
    with written(remedy):
        after = _derivatives_at(remedy)
    has = _functions_of(graph) if graph is not None else set()
    known = (found for found in after if not has.isdisjoint(_WRITTEN_WITH[found[0]]))
    return [found for found in known if found not in before]


def _derivatives_at(remedy: Remedy) -> dict[tuple[str, str], None]:
    some = (found for mended in remedy for found in _derivatives_in(present(mended.body)))
    return dict.fromkeys(some)


def _functions_of(graph: Graph) -> set[str]:
    """Return the names of the functions of a forward pass, and what else it makes some with."""
    names = {node.name for node in graph.nodes}
    arguments = [arg for node in graph.nodes for arg in node.args]
    choices = {"a choice" for arg in arguments if isinstance(arg, np.ndarray) and arg.dtype == "?"}
    divided = (n.args[0] for n in graph.nodes if n.name in ("divide", "true_divide"))
    return names | choices | {"a reciprocal" for arg in divided if is_number(arg)}


def _derivatives_in(statement: ast.AST) -> Iterator[tuple[str, str]]:
    """Yield the functions whose derivatives stand in a statement, and their texts."""
    for node in ast.walk(statement):
        if isinstance(node, ast.Compare) and ast.unparse(node).endswith(" > 0"):
            yield "the ReLU", f"({ast.unparse(node)})"
        if not isinstance(node, ast.BinOp):
            continue
        factors = set(map(ast.unparse, _factors(node)))
        less = [f.removeprefix("1 - ") for f in factors if f.startswith("1 - ")]
        yield from (("the sigmoid", f"{y} * (1 - {y})") for y in less if y in factors)
        yield from (("tanh", f"1 - {y}") for y in less if y.endswith(" ** 2"))


def _factors(node: ast.AST) -> Iterator[ast.AST]:
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Mult):
        yield from (factor for side in (node.left, node.right) for factor in _factors(side))
    else:
        yield node


def _text(node: Any, number: int | None) -> str:
    if number is not None:
        return f"{', '.join(map(ast.unparse, targets_of(node)))} = {number}"
    parts = node.body if isinstance(node, Together) else [node]
    same = (ast.unparse(part) for part in (*targets_of(node), getattr(node, "value", None)) if part)
    if isinstance(node, ast.Assign) and len(set(same)) == 1:  # it does nothing
        return ""
    parts = [ast.fix_missing_locations(part) for part in parts]
    return "; ".join(ast.unparse(p).split("\n")[0] for p in parts if not isinstance(p, ast.Pass))


def present(body: Slot) -> Any:
    """Return the statement that stands in a place now."""
    holder, field, index, _ = body
    return getattr(holder, field)[index]
