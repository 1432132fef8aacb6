"""Which statement makes wrong gradients right when one small thing in it is changed."""

from __future__ import annotations

import sys
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from operator import attrgetter
from types import CodeType, FrameType
from typing import Any, NamedTuple

import numpy as np

from ..guard import Deadline
from ..source import Place, text_of
from .functions import Function, calls_in, functions_of, named_in, takes
from .remedy import Mended, Remedy, Spot, run_with, written
from .tree import Reach
from .trying import Asked, Statement, Tried
from .variants import Variant, variants

Gradients = Sequence[Any]


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
        self.tries: dict[Spot, list[Mended]] = {}
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
            mended._replace(cost=asked.more + mended.cost)
            for spot, asked in spots.items()
            for mended in self.tries[spot]
        ]
        found = self._found(sorted(tries, key=attrgetter("cost"))[:_MOST], rows)
        first = next(iter(spots))

        def rate(mended: Mended) -> tuple[float, float]:
            likelier = _FIRST * (mended.spot == first) - max(mended.cost, mended.variant.cost)
            truth = run_with((mended,), self.passes.truth, self.steps) if len(found) > 1 else 0.0
            return round(truth or 0.0, 6), likelier

        rated = {mended: rate(mended) for mended in found}
        best = [mended for mended in found if rated[mended] == max(rated.values())]
        return [(mended._replace(number=self._by_chance(mended)),) for mended in best]

    def _found(self, tries: Sequence[Mended], rows: frozenset[int]) -> list[Mended]:
        """Return the first of each line with which all are right: at other sizes, if any is."""
        found: dict[Place, Mended] = {}
        by_chance: dict[Place, Mended] = {}  # right for these sizes only
        least, left = np.inf, self._left / 3
        for mended in tries:
            if mended.cost > min(least + _NEAR, _DEAREST) or self._left < left:
                break
            if mended.place in found or not self._mends((mended,), rows):
                continue
            if self.holds((mended,), rows):
                found[mended.place], least = mended, min(least, mended.cost)
            else:
                left = max(left, self._left - _MORE) if not by_chance else left
                by_chance.setdefault(mended.place, mended)
        return [*(found or by_chance).values()]

    def _by_chance(self, mended: Mended) -> int | None:
        """Return the number that a line makes, where others that are as likely make it too."""
        cost = mended.variant.cost
        same = (m for m in self.tries[mended.spot] if m.number == mended.number)
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
        by_cost = sorted(self.tries[spot], key=attrgetter("cost"), reverse=True)
        some = [m for m in by_cost if m.back >= 0 and (m.cost < m.variant.cost or not new)]
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
        is_right = rows <= _whole(self._shares(remedy))
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
        functions = (f for f in self.functions.values() if f.runs(frame.f_code))
        function = next(functions, None)
        text = text_of(frame.f_code) if function is not None else None
        if function is None or text is None:
            return None
        step = text.at(frame.f_lineno)
        spot = function.code, step.line if step is not None else 0
        asked = self._asked.pop(spot, None) if what == "line" else None
        if asked is not None:
            self.tries[spot] = [*self._tries(spot, function, asked, frame)]
            if not self._asked:
                sys.settrace(None)
        return self._look

    def _in_reach(self, function: Function, frame: FrameType) -> Reach:
        """Return what is in reach of a line: first of all what the forward pass counts with."""
        words = {repr(w): w for some in self.functions.values() for w in some.words}
        named = named_in(frame, function)
        first = sorted(named, key=lambda name: name not in self.passes.operands)
        return {**{name: named[name] for name in first}, **words, **self.passes.numbers}

    def _tries(
        self, spot: Spot, function: Function, asked: Asked, frame: FrameType
    ) -> Iterator[Mended]:
        """Yield what may stand in the statements of a line, with how likely it is."""
        reach, calls = (
            self._in_reach(function, frame),
            calls_in(frame, self.functions, self.passes.called),
        )
        room = _UNLIKELY if asked.more else self._room
        for body in function.statements(spot[1]):
            is_once = takes(body[3]) or (self.passes.may_not_end and asked.within > 0)
            here = Statement(body, None if is_once else frame, self.passes.gain)
            was = [*map(self.passes.back, here.made or ())] if self._for_several else []
            offers = variants(body, reach, here.written(), asked.shapes, calls)
            for variant in sorted(offers, key=attrgetter("cost")):
                mended = Mended(spot, body, variant, function, variant.cost)
                if not here.made or room < 0 or self.deadline.is_over:
                    yield mended
                    continue
                room -= _EVALUATION + asked.within
                if (tried := here.tried(variant)) is not None:
                    yield self._rated(mended, tried, was, asked)
        self._room = self._room if asked.more else room

    def _rated(self, mended: Mended, tried: Tried, was: Sequence[int], asked: Asked) -> Mended:
        """Return a change with what is known of it by what it makes."""
        again = _AGAIN * (tried.again and not asked.repeats)
        pairs = zip(was, map(self.passes.back, tried.made), strict=False)
        return mended._replace(
            cost=mended.cost - tried.gain + again,
            back=max((now for then, now in pairs if now > then), default=-1),
            number=None if asked.repeats else tried.number,
        )


def _whole(shares: Sequence[float]) -> frozenset[int]:
    """Return the numbers of the gradients that are right."""
    return frozenset(k for k, share in enumerate(shares) if share == 1)
