"""Which statement makes wrong gradients right when one small thing in it is changed."""

from __future__ import annotations

import ast
import sys
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from types import CodeType, FrameType
from typing import Any, NamedTuple

import numpy as np

from ...validation import Shape
from ..guard import CheckError, Deadline
from ..source import Place, targets_of, text_of
from .functions import FAILING, Function, calls_in, functions_of, named_in, takes
from .remedy import Mended, Remedy, Spot, present, run_with, written
from .tree import Reach, Slot
from .variants import Variant, variants

Gradients = Sequence[Any]


class Asked(NamedTuple):
    """What is known of a line that is asked for."""

    more: float  # what it costs that it is this one
    shapes: Sequence[Shape]  # of what is made there
    repeats: bool  # it runs several times
    within: int  # statements that run while it does, of the functions that it calls
    shared: bool  # right gradients came from it, too


class There(NamedTuple):
    """The backward pass for other values, sizes or settings."""

    run: Callable[[], Gradients]
    right: Callable[[Gradients], Sequence[float]]


# How long is searched, in what is the same on every machine: about 2 microseconds each.
_WORK = 900_000  # statements that run and nodes that are compiled, in all runs together
_RUN = 200  # what a run costs beside them
_EVALUATED = 300_000  # the same, of statements that are evaluated where they first run
_UNLIKELY = 6_000  # those of a line that nothing speaks for
_EVALUATION = 40  # what an evaluation costs beside the statements that it runs
_LONGER, _STEPS = 20, 10_000  # how much longer a run may take with another line
_AGAIN = 0.5  # what makes the same as a lesser change, or none, is that much less likely
_MORE = 200_000  # for one that is right at other sizes too, where one is by chance
_MOST = 1_200  # runs of a backward pass
_NEAR = 0.6  # what costs that much more than the least is as likely
_UNSURE, _ALIKE = 1.2, 0.35  # a number that costs so much is by chance where others are near
_DEAREST = 2.1  # what costs more is no mistake, but chance
_SEVERAL = 4  # lines that may be wrong together
_TRUE = 6  # of what makes something true in a line, so many are tried
_FIRST = 0.3  # as much likelier is the line that the values speak for


class Passes(NamedTuple):
    """What a search for lines asks of the passes, and knows of them."""

    run: Callable[[], Gradients]  # the backward pass
    right: Callable[[Gradients], Sequence[float]]  # which share of each is: 1 of one to rounding
    elsewhere: Callable[[], Iterable[There]]  # with other values, sizes and settings, as may be
    stays: Callable[[], bool]  # runs the forward pass: does it give what it gave?
    truth: Callable[[], float]  # how much of the backward pass is true when it runs
    # How much likelier a change is that makes another value of one.
    gain: Callable[[Any], Callable[[Any], float]]
    back: Callable[[Any], int]  # how far back the value is whose gradient one is
    length: int  # statements that a run takes
    numbers: Mapping[str, float]  # that the forward pass names
    operands: Collection[str]  # that it counts with
    called: Collection[str]  # the functions that they have called
    may_not_end: bool  # there is a loop that may go on for ever if its function is given others


class Mending:
    """A search for the lines of which one small change makes wrong gradients right."""

    def __init__(self, passes: Passes, deadline: Deadline) -> None:
        self.passes, self.deadline = passes, deadline
        self.steps = _LONGER * passes.length + _STEPS
        self.functions: dict[CodeType, Function] = {}
        self.tries: dict[Spot, list[tuple[float, Mended]]] = {}  # the cost, and what it is for
        self.ran: dict[tuple[Variant, ...], Sequence[float]] = {}  # what is right with them
        # And what is elsewhere, as far as it was asked.
        self.held: dict[tuple[Variant, ...], list[frozenset[int]]] = {}
        self._asked: dict[Spot, Asked] = {}
        self._left, self._room = _WORK, _EVALUATED
        self._error: Exception | None = None
        self._for_several = False

    def lines(self, spots: Mapping[Spot, Asked], rows: frozenset[int]) -> list[Remedy]:
        """Return the lines of which one small change makes some gradients right, with it.

        Where several do, those with which the most of what is made on the way is true as well, then
        those that cost the least. `spots` are the lines that are asked for, the likeliest first.
        """
        if self._left < 0 or not spots:
            return []
        self._reach(spots, ())
        tries = [
            (asked.more + cost, number, mended)
            for number, (spot, asked) in enumerate(spots.items())
            for cost, mended in self.tries[spot]
        ]
        found = self._found(sorted(tries, key=lambda t: t[:2])[:_MOST], rows)
        first = next(iter(spots))
        rated = {
            mended: (
                round(run_with((mended,), self.passes.truth, self.steps) or 0.0, 6)
                if len(found) > 1
                else 0.0,
                _FIRST * (mended.spot == first) - max(cost, mended.variant.cost),
            )
            for cost, mended in found.values()
        }
        best = [mended for mended in rated if rated[mended] == max(rated.values())]
        return [(mended._replace(number=self._by_chance(mended)),) for mended in best]

    def _found(
        self, tries: Sequence[tuple[float, int, Mended]], rows: frozenset[int]
    ) -> dict[Place, tuple[float, Mended]]:
        """Return the first of each line with which all are right: at other sizes, if any is."""
        found: dict[Place, tuple[float, Mended]] = {}
        by_chance: dict[Place, tuple[float, Mended]] = {}  # right for these sizes only
        least, left = np.inf, self._left / 3
        for cost, _, mended in tries:
            if cost > min(least + _NEAR, _DEAREST) or self._left < left:
                break
            if mended.place in found or not self._mends((mended,), rows):
                continue
            if self.holds((mended,), rows):
                found[mended.place], least = (cost, mended), min(least, cost)
            else:
                left = max(left, self._left - _MORE) if not by_chance else left
                by_chance.setdefault(mended.place, (cost, mended))
        return found or by_chance

    def _by_chance(self, mended: Mended) -> int | None:
        """Return the number that a line makes, where others that are as likely make it too."""
        cost = mended.variant.cost
        same = (m for _, m in self.tries[mended.spot] if m.number == mended.number)
        others = sum(m.variant.cost <= cost + _ALIKE for m in same)
        return mended.number if cost >= _UNSURE and others > 1 else None

    def several(self, spots: Mapping[Spot, Asked], rows: frozenset[int]) -> Remedy:
        """Return lines that make some gradients right together, and what each should be.

        Each makes the true gradient of something; the one is taken first with which the most
        entries of the gradients are right, and the others are looked for with that.
        """
        done, most, tries = Remedy(), sum(self.passes.right(self.passes.run())), self.tries
        by_chance = Remedy()
        self._left = max(self._left, _WORK // 8)
        self._for_several = True
        alike = {spot: asked._replace(more=0.0) for spot, asked in spots.items()}
        try:
            while len(done) < _SEVERAL and self._left > 0:
                self.tries = {}
                self._reach(alike, done)
                every = tuple(m for spot in spots for m in self._true(spot, new=True)[:1])
                ones = [(mended,) for spot in spots for mended in self._true(spot)]
                rated = {(*done, *some): 0.0 for some in (every, *ones)}
                for remedy in rated:
                    if not self._mends(remedy, rows):
                        rated[remedy] = sum(self._shares(remedy))
                    elif self.holds(remedy, rows):
                        return self.least(remedy, rows)
                    else:
                        by_chance = by_chance or self.least(remedy, rows)
                best = max(rated, key=lambda remedy: rated[remedy], default=done)
                if rated.get(best, 0.0) <= most + 1e-9:
                    break
                done, most = tuple(mended.apart() for mended in best), rated[best]
        finally:
            self.tries, self._for_several = tries, False
        return by_chance

    def _true(self, spot: Spot, new: bool = False) -> list[Mended]:
        """Return what makes in a line a true gradient, the furthest back first: a new one."""
        by_cost = sorted(self.tries[spot], key=lambda t: -t[0])
        some = [m for cost, m in by_cost if m.back >= 0 and (cost < m.variant.cost or not new)]
        cheapest = {mended.back: mended for mended in some}
        return [cheapest[back] for back in sorted(cheapest, reverse=True)[:_TRUE]]

    def least(self, remedy: Remedy, rows: frozenset[int]) -> Remedy:
        """Return a remedy without the lines that need not be other ones."""
        holds = self.holds(remedy, rows)
        for mended in remedy if len(remedy) > 1 else ():
            less = tuple(other for other in remedy if other is not mended)
            is_right = self._mends(less, rows) and holds <= self.holds(less, rows)
            remedy = less if is_right else remedy
        return remedy

    def _right_with(self, remedy: Remedy) -> frozenset[int]:
        """Return which gradients are right with something else in some lines."""
        return _whole(self._shares(remedy))

    def holds(self, remedy: Remedy, rows: frozenset[int]) -> bool:
        """Tell whether gradients are right elsewhere too: for other values, sizes and settings."""
        known = self.held.setdefault(tuple(mended.variant for mended in remedy), [])
        for number, there in enumerate(self.passes.elsewhere()):
            if number == len(known):
                grads = run_with(remedy, there.run, self.steps)
                known.append(_whole(there.right(grads) if grads else ()))
            if not rows <= known[number]:
                return False
        return True

    def _mends(self, remedy: Remedy, rows: frozenset[int]) -> bool:
        """Tell whether gradients are right with other lines, and the outputs what they were."""
        is_right = rows <= self._right_with(remedy)
        return is_right and bool(run_with(remedy, self.passes.stays, self.steps))

    def _shares(self, remedy: Remedy) -> Sequence[float]:
        """Return of each gradient which share is right with other lines; they are run once."""
        key = tuple(mended.variant for mended in remedy)
        if key not in self.ran:
            if self._left < 0 or self.deadline.is_over:
                return ()
            grads = run_with(remedy, self.passes.run, self.steps)
            self.ran[key] = self.passes.right(grads) if grads else ()
            nodes = sum(len(mended.function.nodes) for mended in remedy)
            self._left -= _RUN + self.passes.length + nodes
        return self.ran[key]

    # -------------------- what may stand there --------------------

    def _reach(self, spots: Mapping[Spot, Asked], done: Remedy) -> None:
        """Run the backward pass, and note what may stand in each line when it first runs."""
        self._asked = {spot: asked for spot, asked in spots.items() if spot not in self.tries}
        if not self._asked:
            return
        self.tries |= {spot: [] for spot in self._asked}
        new = {code for code, _ in self._asked if code not in self.functions}
        self.functions |= functions_of(new)
        self._room = _EVALUATED

        def looked_at() -> None:
            before = sys.gettrace()
            sys.settrace(self._look)
            try:
                self.passes.run()
            finally:
                sys.settrace(before)

        with written(done):
            run_with(done, looked_at, self.steps)
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
        functions = (f for f in self.functions.values() if f.running is frame.f_code)
        function = next(functions, None)
        text = text_of(frame.f_code) if function is not None else None
        if function is None or text is None:
            return None
        step = text.at(frame.f_lineno)
        spot = function.code, step.line if step is not None else 0
        if what == "line" and (asked := self._asked.pop(spot, None)) is not None:
            words = {repr(w): w for some in self.functions.values() for w in some.words}
            named = named_in(frame, function)
            first = sorted(named, key=lambda name: name not in self.passes.operands)
            reach = {**{name: named[name] for name in first}, **words, **self.passes.numbers}
            for body in function.statements(spot[1]):
                self.tries[spot] += [
                    (cost, Mended(spot, body, variant, function, back, number))
                    for cost, variant, back, number in self._tries(body, reach, asked, frame)
                ]
            if not self._asked:
                sys.settrace(None)
        return self._look

    def _tries(
        self, body: Slot, reach: Reach, asked: Asked, frame: FrameType
    ) -> Iterator[tuple[float, Variant, int, int | None]]:
        """Yield what may stand in a statement and can be evaluated there, with its cost.

        Also how far back the value is whose gradient it makes, if that is a new one.
        """
        is_once = takes(body[3]) or (self.passes.may_not_end and asked.within > 0)
        names = None if is_once else {**frame.f_globals, **frame.f_locals}
        before = _made_by(body, names) if names else None
        written = _written_in(body[3], names) if names and before else {}
        was = [*map(self.passes.back, before or ())] if self._for_several else []
        seen, room = {_signature(body, before)}, _UNLIKELY if asked.more else self._room
        gains = [*map(self.passes.gain, before or ())]
        calls = calls_in(frame, self.functions, self.passes.called)
        offers = variants(body, reach, written, asked.shapes, calls)
        for variant in sorted(offers, key=lambda v: v.cost):
            if not names or not before or room < 0 or self.deadline.is_over:
                yield variant.cost, variant, -1, None
                continue
            room -= _EVALUATION + asked.within
            there = variant.stand()
            made = _made_by(body, names)
            signature = _signature(body, made)
            there.exchange()
            if made is not None:
                gain = max((of(v) for of, v in zip(gains, made, strict=False)), default=0.0)
                if _hands_on(body[3]):  # right elsewhere, and wrong where it is given
                    gain = max(gain, 0.0)
                again = _AGAIN * (signature in seen and not asked.repeats)
                seen.add(signature)
                pairs = zip(was, map(self.passes.back, made), strict=False) if was else ()
                back = max((now for then, now in pairs if now > then), default=-1)
                is_number = [*map(type, made)] == [int] and isinstance(body[3], ast.Assign)
                number = made[0] if is_number and not asked.repeats else None
                yield variant.cost - gain + again, variant, back, number
        self._room = self._room if asked.more else room


def _whole(shares: Sequence[float]) -> frozenset[int]:
    """Return the numbers of the gradients that are right."""
    return frozenset(k for k, share in enumerate(shares) if share == 1)


def _made_by(body: Slot, names: dict[str, Any]) -> Sequence[Any] | None:
    """Return what a statement makes, nothing where it only does something; None where it fails."""
    node = present(body)
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
    node = present(body)
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
    kinds = ast.Call | ast.BinOp | ast.UnaryOp | ast.Subscript
    for node in (node for node in ast.walk(statement) if isinstance(node, kinds)):
        if isinstance(made := _evaluated(node, names), np.ndarray):
            found[ast.unparse(node)] = made.shape
    return found


def _hands_on(node: ast.stmt) -> bool:
    """Tell whether a statement gives something out, or another name, as it is."""
    copied = getattr(node, "value", None)
    return isinstance(node, ast.Return) or isinstance(copied, ast.Name | ast.Attribute)
