"""Which statement makes wrong gradients right when one small thing in it is changed."""

from __future__ import annotations

import ast
import gc
import io
import sys
import warnings
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stdout
from functools import cached_property
from itertools import permutations
from types import CodeType, FrameType, FunctionType
from typing import Any, NamedTuple

import numpy as np

from ...validation import Shape
from ..guard import CheckError, Deadline
from ..source import Place, definition_of, targets_of, text_of
from .scope import fields_of
from .variants import Reach, Slot, Variant, variants

Gradients = Sequence[Any]
Spot = tuple[CodeType, int]  # a line of a function


class Asked(NamedTuple):
    """What is known of a line that is asked for."""

    more: float  # what it costs that it is this one
    shapes: Sequence[Shape]  # of what is made there
    repeats: bool  # it runs several times
    within: int  # statements that run while it does, of the functions that it calls


# How long is searched, in what is the same on every machine: about 2 microseconds each.
_WORK = 750_000  # statements that run and nodes that are compiled, in all runs together
_RUN = 200  # what a run costs beside them
_EVALUATED = 200_000  # the same, of statements that are evaluated where they first run
_UNLIKELY = 6_000  # those of a line that nothing speaks for
_EVALUATION = 40  # what an evaluation costs beside the statements that it runs
_AGAIN = 0.5  # what makes the same as a lesser change, or none, is that much less likely
_MOST = 600  # runs of a backward pass
_NEAR = 0.6  # what costs that much more than the least is as likely
# What a changed statement may raise, also where an adapter reads what comes of it.
_FAILING = (
    *(ArithmeticError, AssertionError, AttributeError, LookupError, NameError),
    *(RuntimeError, TypeError, ValueError),
)
_TAKING = {"pop", "popitem", "popleft", "next", "append", "extend", "insert", "update"}
_DEAREST = 1.7  # what costs more is no mistake, but chance
_FIRST = 0.3  # as much likelier is the line that the values speak for
_FUTURE = 0x1FF0000  # the flags of code that `from __future__` sets


class Mended(NamedTuple):
    """A line, and something else in it with which gradients are right."""

    spot: Spot
    body: Slot  # the statement
    variant: Variant
    function: _Function

    @property
    def place(self) -> Place:
        """Where it stands."""
        return self.spot[0].co_filename, self.spot[1]

    @property
    def text(self) -> str:
        """What should stand there: a statement, of a block its head; nothing where it should go."""
        back = self.variant.exchange()
        try:
            node = _present(self.body)
            added = (
                getattr(node, "body", [])
                if isinstance(getattr(node, "test", None), ast.Constant)
                else [node]
            )
            texts = [ast.unparse(ast.fix_missing_locations(some)).split("\n")[0] for some in added]
            return "; ".join("" if isinstance(node, ast.Pass) else text for text in texts)
        finally:
            back.exchange()

    def run(self, run: Callable[[], Any]) -> Any:
        """Return what a run gives with it; nothing where it cannot run."""
        return self.function.run_with(self.variant, run)


class Mending:
    """A search for the lines of which one small change makes wrong gradients right.

    `run` runs the backward pass, `truth` tells how much of it is true when it runs, `gain`
    how much likelier a change is that makes one value another, and `right` which gradients are.
    `length` is how many statements a run takes.
    """

    def __init__(
        self,
        run: Callable[[], Gradients],
        right: Callable[[Gradients], frozenset[int]],
        truth: Callable[[], float],
        gain: Callable[[Any, Any], float],
        deadline: Deadline,
        length: int,
    ) -> None:
        self.run, self.right, self.truth = run, right, truth
        self.gain, self.deadline, self.length = gain, deadline, length
        self.functions: dict[CodeType, _Function] = {}
        self.tries: dict[Spot, list[tuple[float, Mended]]] = {}  # the cost, and what it is for
        self.ran: dict[Variant, frozenset[int]] = {}  # the gradients that are right with it
        self._asked: dict[Spot, Asked] = {}
        self._left, self._room = _WORK, _EVALUATED
        self._error: Exception | None = None

    def lines(self, spots: Mapping[Spot, Asked], rows: frozenset[int]) -> list[Mended]:
        """Return the lines of which one small change makes some gradients right, with it.

        Where several do, those with which the most of what is made on the way is true as well, then
        those that cost the least. `spots` are the lines that are asked for, the likeliest first.
        """
        if self._left < 0 or not spots:
            return []
        self._reach(spots)
        tries = [
            (asked.more + cost, number, mended)
            for number, (spot, asked) in enumerate(spots.items())
            for cost, mended in self.tries[spot]
        ]
        found: dict[Place, tuple[float, Mended]] = {}
        least, left = np.inf, self._left
        for cost, _, mended in sorted(tries, key=lambda t: t[:2])[:_MOST]:
            if cost > min(least + _NEAR, _DEAREST) or self._left < left / 3:
                break
            if mended.place not in found and rows <= self._right_with(mended):
                found[mended.place], least = (cost, mended), min(least, cost)
        first = next(iter(spots))
        rated = {
            mended: (
                round(mended.run(self.truth) or 0.0, 6) if len(found) > 1 else 0.0,
                _FIRST * (mended.spot == first) - max(cost, mended.variant.cost),
            )
            for cost, mended in found.values()
        }
        return [mended for mended in rated if rated[mended] == max(rated.values())]

    def _right_with(self, mended: Mended) -> frozenset[int]:
        """Return which gradients are right with something else in a line; it is run once."""
        variant = mended.variant
        if variant not in self.ran:
            if self._left < 0 or self.deadline.is_over:
                return frozenset()
            grads = mended.run(self.run)
            self.ran[variant] = self.right(grads) if grads else frozenset()
            self._left -= _RUN + self.length + mended.function.size
        return self.ran[variant]

    # -------------------- what may stand there --------------------

    def _reach(self, spots: Mapping[Spot, Asked]) -> None:
        """Run the backward pass, and note what may stand in each line when it first runs."""
        self._asked = {spot: asked for spot, asked in spots.items() if spot not in self.tries}
        if not self._asked:
            return
        self.tries |= {spot: [] for spot in self._asked}
        new = {code for code, _ in self._asked if code not in self.functions}
        self.functions |= {code: _Function(code, same) for code, same in _running(new).items()}
        self._room, before = _EVALUATED, sys.gettrace()
        with redirect_stdout(io.StringIO()), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            sys.settrace(self._look)
            try:
                self.run()
            except CheckError:  # as the code itself does; or what `_error` is
                pass
            finally:
                sys.settrace(before)
        if self._error is not None:
            raise self._error

    def _look(self, frame: FrameType, what: str, given: object) -> Any:
        """Look at a line, the way `sys.settrace` asks for; the reader's code sees no own error."""
        try:
            return self._look_at(frame, what)
        except Exception as error:
            self._error = error
            sys.settrace(None)
            return None

    def _look_at(self, frame: FrameType, what: str) -> Any:
        code = frame.f_code
        text = text_of(code) if code in self.functions else None
        if text is None:
            return None
        step = text.at(frame.f_lineno)
        spot = code, step.line if step is not None else 0
        if what == "line" and (asked := self._asked.pop(spot, None)) is not None:
            words = {w: w for function in self.functions.values() for w in function.words}
            reach = {**_named_in(frame, self.functions[code]), **words}
            for body in self.functions[code].statements(spot[1]):
                tries = self._tries(body, reach, asked, frame)
                of = spot, body, self.functions[code]
                self.tries[spot] += [
                    (cost, Mended(*of[:2], variant, of[2])) for cost, variant in tries
                ]
            if not self._asked:
                sys.settrace(None)
        return self._look

    def _tries(
        self, body: Slot, reach: Reach, asked: Asked, frame: FrameType
    ) -> Iterator[tuple[float, Variant]]:
        """Yield what may stand in a statement and can be evaluated there, with its cost."""
        names = None if _takes(body[3]) else {**frame.f_globals, **frame.f_locals}
        before = _made_by(body, names) if names else None
        written = _written_in(body[3], names) if names and before else {}
        seen, room = {_signature(body, before)}, _UNLIKELY if asked.more else self._room
        for variant in sorted(variants(body, reach, written, asked.shapes), key=lambda v: v.cost):
            if not names or not before or room < 0 or self.deadline.is_over:
                yield variant.cost, variant
                continue
            room -= _EVALUATION + asked.within
            back = variant.exchange()
            made = _made_by(body, names)
            signature = _signature(body, made)
            back.exchange()
            if made is not None:
                gain = max(map(self.gain, before, made), default=0.0)
                if _hands_on(body[3]):  # right elsewhere, and wrong where it is given
                    gain = max(gain, 0.0)
                again = _AGAIN * (signature in seen and not asked.repeats)
                seen.add(signature)
                yield variant.cost - gain + again, variant
        self._room = self._room if asked.more else room


class _Function:
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
    def size(self) -> int:
        """Of how many nodes the function is made."""
        return sum(1 for _ in ast.walk(self.tree)) if self.tree is not None else 0

    @cached_property
    def parts(self) -> list[Any]:
        """The parts of variables that the function reads or writes, each once."""
        nodes = ast.walk(self.tree) if self.tree is not None else ()
        found = {
            ast.unparse(node): node
            for node in nodes
            if isinstance(node, ast.Subscript) and isinstance(node.value, ast.Name)
            if isinstance(node.slice, ast.Name | ast.BinOp | ast.UnaryOp | ast.Constant)
        }
        return [*found.values()]

    @cached_property
    def counters(self) -> list[str]:
        """The variables that loops of the function count with."""
        nodes = ast.walk(self.tree) if self.tree is not None else ()
        targets = [node.target for node in nodes if isinstance(node, ast.For)]
        return list(dict.fromkeys(t.id for t in targets if isinstance(t, ast.Name)))

    @cached_property
    def words(self) -> list[str]:
        """The texts that the function compares something with."""
        nodes = ast.walk(self.tree) if self.tree is not None else ()
        sides = [side for n in nodes if isinstance(n, ast.Compare) for side in n.comparators]
        values = [getattr(side, "value", None) for side in sides]
        return [value for value in values if isinstance(value, str)]

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

    def run_with(self, variant: Variant, run: Callable[[], Any]) -> Any:
        """Return what a run gives with something else in one place; nothing where it cannot run."""
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
            except (CheckError, *_FAILING):
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


def _present(body: Slot) -> Any:
    """Return the statement that stands in a place now."""
    holder, field, index, _ = body
    return getattr(holder, field)[index]


def _made_by(body: Slot, names: dict[str, Any]) -> Sequence[Any] | None:
    """Return what a statement makes, nothing where it only does something; None where it fails."""
    node = _present(body)
    value = getattr(node, "value", None)
    if value is None or isinstance(node, ast.Expr):  # a call on its own is not made twice
        return ()
    if isinstance(node, ast.AugAssign) and isinstance(node.target, ast.Name):
        value = ast.BinOp(ast.Name(node.target.id, ast.Load()), node.op, value)
    made = _evaluated(value, names)
    return made if made is None or isinstance(made, tuple) else (made,)


def _signature(body: Slot, made: Sequence[Any] | None) -> object:
    """Return what is the same where a statement does the same with equal arrays."""
    node = _present(body)
    if not made or not all(isinstance(item, np.ndarray | float | int) for item in made):
        return object()
    arrays = [np.asarray(item) for item in made]
    rest = [ast.unparse(target) for target in targets_of(node)]
    op = type(getattr(node, "op", None))
    return type(node), op, *rest, *((array.shape, array.tobytes()) for array in arrays)


def _evaluated(node: Any, names: dict[str, Any]) -> Any:
    """Return what an expression is; None where it fails."""
    try:
        whole = ast.fix_missing_locations(ast.Expression(node))
        return eval(compile(whole, "<changed>", "eval"), names)
    except (CheckError, SyntaxError, *_FAILING):  # also what is written to, which has no value
        return None


def _written_in(statement: ast.AST, names: dict[str, Any]) -> Reach:
    """Return the shapes of the arrays that the expressions of a statement are."""
    found: dict[str, Any] = {}
    nodes = [n for n in ast.walk(statement) if isinstance(n, ast.Call | ast.BinOp | ast.Subscript)]
    for node in nodes:
        if isinstance(made := _evaluated(node, names), np.ndarray):
            found[ast.unparse(node)] = made.shape
    return found


def _hands_on(node: ast.stmt) -> bool:
    """Tell whether a statement gives something out, or another name, as it is."""
    copied = getattr(node, "value", None)
    return isinstance(node, ast.Return) or isinstance(copied, ast.Name | ast.Attribute)


def _takes(node: ast.AST) -> bool:
    """Tell whether a statement may change what it is made from, when it is evaluated."""
    calls = (part for part in ast.walk(node) if isinstance(part, ast.Name | ast.Attribute))
    return any(getattr(part, "attr", getattr(part, "id", "")) in _TAKING for part in calls)


def _running(codes: Collection[CodeType]) -> dict[CodeType, list[FunctionType]]:
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


def _named_in(frame: FrameType, function: _Function) -> Reach:
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
    while pending and len(found) < 80:
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


def _parts_alike(frame: FrameType, function: _Function) -> Iterator[str]:
    """Yield the same parts of other lists, and single entries at which loops are."""
    names = {name: held for name, held in frame.f_locals.items() if name.isidentifier()}
    lists = [name for name, held in names.items() if type(held) in (list, tuple, dict)]
    for node in function.parts:
        if node.value.id in lists:
            yield from (f"{name}[{ast.unparse(node.slice)}]" for name in lists)
    counters = [name for name in function.counters if type(names.get(name)) is int]
    for name, held in names.items():
        if isinstance(held, np.ndarray) and 0 < held.ndim < 3:
            yield from (f"{name}[{', '.join(at)}]" for at in permutations(counters, held.ndim))


def _part(text: str, frame: FrameType) -> Any:
    """Return the part of a list, a dict or an array that a text stands for there, if there is."""
    try:
        node: Any = ast.parse(text, mode="eval").body
        holder: Any = frame.f_locals.get(node.value.id)
        if type(holder) not in (list, tuple, dict, np.ndarray):
            return None
        made = compile(ast.unparse(node.slice), "<index>", "eval")
        held = holder[eval(made, {"__builtins__": {}}, frame.f_locals)]
        return held.item() if isinstance(held, np.float64 | np.int64) else held
    except _FAILING:
        return None
