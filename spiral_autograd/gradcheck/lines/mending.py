"""Which statement makes wrong gradients right when one small thing in it is changed."""

from __future__ import annotations

import ast
import io
import sys
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import redirect_stdout
from types import CodeType, FrameType
from typing import Any, NamedTuple

import numpy as np

from ...validation import Shape
from ..guard import CheckError, Deadline
from ..source import Place, targets_of, text_of
from .functions import FAILING, Function, named_in, running
from .statements import Reach
from .variants import Slot, Variant, variants

Gradients = Sequence[Any]
Spot = tuple[CodeType, int]  # a line of a function


class Asked(NamedTuple):
    """What is known of a line that is asked for."""

    more: float  # what it costs that it is this one
    shapes: Sequence[Shape]  # of what is made there
    repeats: bool  # it runs several times
    within: int  # statements that run while it does, of the functions that it calls
    shared: bool  # right gradients came from it, too


# How long is searched, in what is the same on every machine: about 2 microseconds each.
_WORK = 750_000  # statements that run and nodes that are compiled, in all runs together
_RUN = 200  # what a run costs beside them
_EVALUATED = 200_000  # the same, of statements that are evaluated where they first run
_UNLIKELY = 6_000  # those of a line that nothing speaks for
_EVALUATION = 40  # what an evaluation costs beside the statements that it runs
_AGAIN = 0.5  # what makes the same as a lesser change, or none, is that much less likely
_MOST = 1_200  # runs of a backward pass
_NEAR = 0.6  # what costs that much more than the least is as likely
_TAKING = {"pop", "popitem", "popleft", "next", "append", "extend", "insert", "update"}
_DEAREST = 2.1  # what costs more is no mistake, but chance
_FIRST = 0.3  # as much likelier is the line that the values speak for


class Mended(NamedTuple):
    """A line, and something else in it with which gradients are right."""

    spot: Spot
    body: Slot  # the statement
    variant: Variant
    function: Function

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
        gain: Callable[[Any], Callable[[Any], float]],
        deadline: Deadline,
        length: int,
    ) -> None:
        self.run, self.right, self.truth = run, right, truth
        self.gain, self.deadline, self.length = gain, deadline, length
        self.functions: dict[CodeType, Function] = {}
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
            self._left -= _RUN + self.length + len(mended.function.nodes)
        return self.ran[variant]

    # -------------------- what may stand there --------------------

    def _reach(self, spots: Mapping[Spot, Asked]) -> None:
        """Run the backward pass, and note what may stand in each line when it first runs."""
        self._asked = {spot: asked for spot, asked in spots.items() if spot not in self.tries}
        if not self._asked:
            return
        self.tries |= {spot: [] for spot in self._asked}
        new = {code for code, _ in self._asked if code not in self.functions}
        self.functions |= {code: Function(code, same) for code, same in running(new).items()}
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
            function = self.functions[code]
            words = {repr(w): w for some in self.functions.values() for w in some.words}
            reach = {**named_in(frame, function), **words}
            for body in function.statements(spot[1]):
                tries = self._tries(body, reach, asked, frame)
                self.tries[spot] += [
                    (cost, Mended(spot, body, variant, function)) for cost, variant in tries
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
        gains = [*map(self.gain, before or ())]
        for variant in sorted(variants(body, reach, written, asked.shapes), key=lambda v: v.cost):
            if not names or not before or room < 0 or self.deadline.is_over:
                yield variant.cost, variant
                continue
            room -= _EVALUATION + asked.within
            back = variant.stand()
            made = _made_by(body, names)
            signature = _signature(body, made)
            back.exchange()
            if made is not None:
                gain = max((of(v) for of, v in zip(gains, made, strict=False)), default=0.0)
                if _hands_on(body[3]):  # right elsewhere, and wrong where it is given
                    gain = max(gain, 0.0)
                again = _AGAIN * (signature in seen and not asked.repeats)
                seen.add(signature)
                yield variant.cost - gain + again, variant
        self._room = self._room if asked.more else room


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
        ast.fix_missing_locations(ast.copy_location(value, node))
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
        return eval(compile(ast.Expression(node), "<changed>", "eval"), names)
    except (CheckError, SyntaxError, *FAILING):  # also what is written to, which has no value
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
