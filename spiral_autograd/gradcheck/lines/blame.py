"""Which lines of a handwritten backward pass are to blame for a wrong gradient."""

from __future__ import annotations

import ast
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import cached_property, partial
from typing import Any

import numpy as np

from ...recording import Call, name_of
from ...validation import Shape
from ..blocks import close, largest
from ..source import Place, Text, code_of, forward_line, text_of
from .doubt import Doubt
from .known import Known, is_known, shares_right
from .mending import Mending, Passes, There
from .ran import Evidence, Key
from .remedy import Remedy, Spot
from .trail import Moment, Trail, follow, is_unchecked
from .trying import Asked

_ASKED = 24  # statements that are changed
_TRUE_AND_WRONG = ("value", "upstream", "wrong_sign", "not_summed")  # rules and kinds: may be both
_LATE = 0.8  # what it costs at least that it is a line of the forward pass


def blame_of(evidence: Evidence) -> Blame | None:
    """Return the statements that ran, held against all that is known; None where none are known."""
    if evidence.found is None and evidence.trail is not None:
        evidence.found = Blame(evidence, evidence.trail)
    found: Blame | None = evidence.found
    return found


def places(evidence: Evidence, k: int, reason: Any = None) -> tuple[Place, ...]:
    """Return where the k-th gradient goes wrong: at most four lines, forward ones first.

    A reason has a rule, rows, a kind, and the forward call whose gradient is wrong.
    """
    blame, found = blame_of(evidence), [_forward_place(evidence, k, reason)]
    if blame is not None and reason is not None and reason.rule == "unwritten":
        found += blame.unwritten(k)
    elif blame is not None:
        found += blame.suspects(k, reason) or blame.ends()
    return tuple(dict.fromkeys(place for place in found if place is not None))[:4]


def _forward_place(evidence: Evidence, k: int, reason: Any) -> Place | None:
    """Return the line of the forward operation whose gradient is wrong."""
    if evidence.recording is None or reason is None:
        return None
    calls = [call for call in evidence.recording.calls if call.gradient_of is None]
    c = abs(_times(evidence, k)) if reason.rule == "factor" else 0.0
    scaling = [call for call in calls if any(_is(c, factor) for factor in _factors(call))]
    if scaling or reason.call is not None:
        return forward_line(scaling[-1] if scaling else reason.call)
    root = evidence.recording.params[k]
    users = (call for call in calls if any(arg is root for arg in call.args))
    return next(filter(None, map(forward_line, users)), None)


def _times(evidence: Evidence, k: int) -> float:
    """Return by which factor the k-th gradient is off, if it is by one; else 0."""
    g, h = np.asarray(evidence.automatic[k]), np.asarray(evidence.grads[k])
    norm = float(np.sum(g * g))
    return float(np.sum(g * h)) / norm if g.shape == h.shape and norm > 0 else 0.0


def _factors(call: Call) -> list[float]:
    """Return the numbers that a forward call multiplies by, and of how many it takes the mean."""
    factors = [abs(float(a)) for a in call.args if isinstance(a, int | float)]
    sizes = [np.size(a.value) for a in call.args if isinstance(a, Call)]
    if sizes and name_of(call.fun) in ("mean", "average"):
        factors.append(sizes[0] / max(1, np.size(call.value)))
    return factors


def _is(c: float, factor: float) -> bool:
    either = (factor, 1 / factor) if factor not in (0, 1) else ()
    return any(abs(c - x) < 1e-6 * x for x in either)


class Blame(Doubt):
    """The statements of a handwritten backward pass, and which of them is to blame."""

    def __init__(self, evidence: Evidence, trail: Trail) -> None:
        super().__init__(evidence, trail)
        self.mended: dict[tuple[int, ...], list[Remedy]] = {}
        self.several = Remedy()  # that have to be other ones together, once they are found

    # -------------------- what is left --------------------

    def swapped(self, k: int) -> Place | None:
        """Return where the right gradient of another argument is given out as the k-th."""
        others = Known(g for j, g in enumerate(self.evidence.automatic) if j != k)
        sink = self.sink(k)
        if sink is None or not others.has(sink.value, 1e-9):
            return None
        if sink.fresh and sink is next(moment for moment in self.equal(k) if moment.fresh):
            return None
        return self.events[sink.event].place

    def suspects(self, k: int, reason: Any) -> list[Place]:
        """Return where the k-th gradient may have its mistake from, the likeliest places first."""
        likely, left = self.by_values(k, reason)
        return self._mended(k, reason, [*likely, *left]) or likely

    def by_values(self, k: int, reason: Any = None) -> tuple[list[Place], list[Place]]:
        """Return the place that what the statements make speaks for, and others that are left.

        It is the first where wrong values begin. Where that is not known, the first of those that
        fed all wrong gradients, or all with the same reason; else the first that makes this one.
        """
        sink = self.sink(k)
        if sink is None:
            return [], []
        left, is_joint = self._left([*self.pool(k)], reason)
        places = [place for place, _ in left]
        ends = [place for place in self._makers(k) if place in places] or places[::-1]
        likely = self._begun(k, reason) or (places if is_joint else ends)[:1]
        if (swapped := self.swapped(k)) is not None:
            likely = [swapped]
        return likely or [self._giver(k, sink)], places

    def _begun(self, k: int, reason: Any) -> list[Place]:
        """Return the first statement of the k-th gradient where wrong values begin, if known."""
        if reason is not None and reason.rule in ("term", "part"):
            return []  # what lacks later is no mistake until then
        return [place for place, _ in self.pool(k) if place in self.doubtful][:1]

    def _makers(self, k: int) -> list[Place]:
        """Return the statements that make the k-th gradient, in order."""
        return [self.events[moment.event].place for moment in self.equal(k) if moment.fresh]

    def _left(self, pool: Sequence[Key], reason: Any) -> tuple[list[Key], bool]:
        """Return the statements that fed no right gradient, and do not make what autograd has too.

        Of those the ones that fed all wrong gradients, or all with the same reason, if there are
        such: and whether there are.
        """
        left = [key for key in pool if key not in self.right] or [*pool]
        # What is true may have lost its factors, be negated or be one of several sums.
        may_be = reason is not None and not {reason.rule, reason.kind}.isdisjoint(_TRUE_AND_WRONG)
        if not may_be:
            left = [key for key in left if key not in self.shown] or left
        joint = self._shared(left, reason.rows if reason is not None else ())
        return joint or left, bool(joint)

    def _shared(self, keys: Sequence[Key], rows: Sequence[int]) -> list[Key]:
        """Return the statements that fed all wrong gradients; else those that fed all of some."""
        common = [self.common(tuple(some)) for some in (self.evidence.wrong, rows) if len(some) > 1]
        return next(filter(None, ([key for key in keys if key in some] for some in common)), [])

    def _mended(self, k: int, reason: Any, likely: Sequence[Place]) -> list[Place]:
        """Return the statement of which one small change makes all right: gradients, or some.

        Where none does, and no reason is likely, the statements that do it together.
        """
        if self._writes_unchecked:
            return []
        rest = [tuple(reason.rows if reason else [k]), (k,)]
        for rows in (tuple(self.evidence.wrong), *([] if self.several else rest)):
            if k in rows:
                if rows not in self.mended:
                    self.mended[rows] = self._mending_all(rows, likely)
                if self.mended[rows]:
                    return list(dict.fromkeys(m.place for some in self.mended[rows] for m in some))
        together = self.together if reason is None or reason.is_unlikely else ()
        if together:
            wanted = frozenset({k, *self.telling})
            self.mended[k,] = [self.mending.least(together, wanted)]
        return [mended.place for remedy in self.mended.get((k,), ()) for mended in remedy]

    def _mending_all(self, rows: tuple[int, ...], likely: Sequence[Place]) -> list[Remedy]:
        """Return what makes some gradients right: in lines that fed no right ones, or in any."""
        wanted, spots = frozenset({*rows, *self.telling}), self._spots(rows, likely)
        few = {spot: asked for spot, asked in spots.items() if not asked.shared}
        # Through numbers in dicts, or in objects, there is no way to follow.
        leads = len(few) < 2 or any(asked.more < _LATE for asked in [*few.values()][1:])
        ways = [few, *([spots] if few != spots else [])] if leads else []
        ways.append(self._spots((), likely))
        return next(filter(None, (self.mending.lines(some, wanted) for some in ways)), [])

    @cached_property
    def together(self) -> Remedy:
        """The statements that have to be other ones together, that all gradients are right."""
        wanted = {*self.evidence.wrong, *self.telling}
        spots = self._spots(tuple(wanted), (), any)
        self.several = self.mending.several(spots, frozenset(wanted))
        return self.several

    def remedy(self, k: int, beside: Sequence[int] = ()) -> Remedy | None:
        """Return the likeliest change of lines that makes the k-th gradient right, if one is known.

        With some others beside it, if it makes these right too.
        """
        wanted = {k, *beside}
        some = next((some for rows, some in self.mended.items() if wanted <= {*rows} and some), [])
        return next(iter(some), None)

    @cached_property
    def mending(self) -> Mending:
        """The search for the statement of which a small change makes gradients right."""
        e = self.evidence
        tolerance = max(e.tolerance, 1e-8)
        ours = [0.0 if g is None else largest(g) for g in e.grads]
        # What should be zero is no more than rounding, beside what it is; beside infinity all is.
        sizes = [tolerance * m if np.isfinite(m) else 0.0 for m in ours]
        floors = [*map(max, e.floors, sizes)]
        right = partial(shares_right, floors, tolerance, [e.automatic, e.ideal])

        def elsewhere() -> Iterator[There]:
            # Without a small constant in the forward pass they are nearly so.
            shares = partial(shares_right, floors, 1e-3 if e.ideal else tolerance)
            return (There(run, partial(shares, true)) for run, true in e.elsewhere())

        def back(value: Any) -> int:
            known = isinstance(value, np.ndarray) and np.any(value)
            wholes = self.wholes if known and self.whole.has(value, 1e-9) else ()
            same = [n for n, call in enumerate(wholes) if close(value, call.value, 1e-9)]
            return max(same, default=-1)

        length = len(self.events) + sum(m.value.size for m in self.moments if m.fresh) // 20
        called = {run.code.co_name for run in self.trail.runs}
        called |= {name_of(call.fun) for call in self.calls}
        known = self.numbers, _operands_of(text_of(e.forward)), called, self.trail.may_not_end
        asked = e.run, right, elsewhere, e.stays, self._truth, self.gain_from, back
        return Mending(Passes(*asked, length, *known), e.deadline)

    @cached_property
    def _writes_unchecked(self) -> bool:
        """Whether the backward pass runs code that makes views beyond their arrays."""
        runs = {event.run for event in self.events[self.start :]}
        return any(is_unchecked(self.trail.runs[run].code) for run in runs)

    def _spots(
        self, rows: tuple[int, ...], likely: Sequence[Place], which: Callable[..., bool] = all
    ) -> dict[Spot, Asked]:
        """Return the lines that all, or any, of some gradients came from: the likely ones first."""
        fed = self._fed(rows)
        events = self._by_spot(set().union(*fed))
        calls = sorted(set().union(*events.values()) - set().union(*fed))
        order = [*likely, *(self.events[number].place for number in calls)]
        ranks = {place: rank for rank, place in reversed([*enumerate(order)])}
        makers = set().union(*(self.feeding(k) for k in rows))
        right = set().union(*(self._named(self.feeding(k)) for k in self.telling))
        spots = [
            (late + 0.4 * (rank == len(order)) + 0.1 * makers.isdisjoint(events[spot]), rank, spot)
            for spot, late in self._late(events, right).items()
            if which(events[spot] & some for some in fed)
            for rank in [ranks.get(_place(spot), len(order))]
        ]
        return {
            spot: Asked(
                late,
                self._shapes_at(events[spot]),
                self._runs[_place(spot)] > 1,
                max(self.within[n] for n in events[spot]),
                events[spot] <= right,
            )
            for late, _, spot in sorted(spots, key=lambda s: (s[0], s[1], s[2][1]))[:_ASKED]
        }

    def _fed(self, rows: tuple[int, ...]) -> list[set[int]]:
        """Return the events that some gradients came from, of each that is known."""
        made = [(self.feeding(k), {m.event for m in self.equal(k)}) for k in rows]
        fed = [self._named(numbers | equal) for numbers, equal in made if numbers]
        return fed or [set(range(self.start, len(self.events)))]  # a derivative, not yet multiplied

    def _by_spot(self, fed: Iterable[int]) -> dict[Spot, set[int]]:
        """Return some events by their lines, with those that called them or asked for them."""
        found = defaultdict[Spot, set[int]](set)
        for number in fed:
            caller = self.trail.runs[self.events[number].run].caller
            called = {caller} if caller is not None and caller >= self.start else set()
            for n in {number, *called, *self.conditions.get(number, ())}:
                code = self.trail.runs[self.events[n].run].code
                spot = self.outer.get(code, code), self.events[n].place[1]
                found[spot] |= {n, number}
        return found

    def _late(self, events: Mapping[Spot, set[int]], right: set[int]) -> dict[Spot, float]:
        """Return how unlikely each line is that can be changed, by where it stands."""
        found: dict[Spot, float] = {}
        for spot, numbers in events.items():
            own = [n for n in numbers if self.events[n].place[1] == spot[1]]
            step = self.events[own[0]].step
            if not is_unchecked(spot[0]) and step is not None:
                ahead = all(n <= self.ahead or self.is_forward(n) for n in own)
                far = self.is_far(_place(spot))
                found[spot] = 0.4 * ahead + 0.3 * far + 0.4 * (numbers <= right)
                found[spot] -= 0.4 * isinstance(step.node, ast.For)  # no value speaks for any
        return found

    def _named(self, numbers: set[int]) -> set[int]:
        """Return some events, and those that named what they or who called read: ``z = zs[-l]``."""
        found, pending = {*numbers}, [*numbers]
        while pending:
            event = self.events[pending.pop()]
            caller = self.trail.runs[event.run].caller
            calling = self.events[caller].namers if caller is not None else set()
            new = {n for n in event.namers | calling if n >= self.start} - found
            found |= new
            pending += new
        return found

    @cached_property
    def _runs(self) -> Counter[Place]:
        """How often each line runs."""
        return Counter(e.place for e in self.events if e.step is not None and not e.part)

    def _shapes_at(self, numbers: Iterable[int]) -> tuple[Shape, ...]:
        values = (v for n in numbers for v in (*self.made.get(n, ()), *self.handed.get(n, ())))
        return tuple(dict.fromkeys(value.shape for value in values))

    def _truth(self) -> float:
        """Return which part of what the backward pass makes is known to be true, run once more."""
        trail = Trail()
        follow(self.evidence.run, trail, self.evidence.deadline)
        start = trail.start_of(code_of(self.evidence.backward))
        made = [m for m in trail.moments if m.fresh and m.event >= start]
        made = [m for m in made if is_known(m.value, least=2)]
        # The gradient of something is in several of them: it tells more than a part of it.
        known = (self.true, self.whole, self.scaled)
        true = sum(values.has(m.value, 1e-8) for m in made for values in known)
        called = [(self.by_name[name], m) for m in made for name in self.called(trail, m.event)]
        true += sum(1 if values.has(np.squeeze(m.value), 1e-8) else -1 for values, m in called)
        return true / max(1, len(made))

    def _giver(self, k: int, sink: Moment) -> Place:
        """Return the statement that first hands out the k-th gradient."""
        given = (m for m in self.equal(k) if m.name.startswith("return") and m.event >= sink.event)
        return self.events[next(given, sink).event].place

    # -------------------- a gradient that is not there --------------------

    def unwritten(self, k: int) -> list[Place]:
        """Return the line that makes the true gradient, if any does, and where it is given out."""
        true = self.evidence.automatic[k]
        made = [m for m in self.moments if np.any(true) and close(m.value, true, 1e-6)]
        first = [] if self._gives_none() else made[:1]
        return [self.events[m.event].place for m in first] or self.ends()

    def _gives_none(self) -> bool:
        """Tell whether the backward pass says itself that it gives None for something."""
        steps = [event.step for event in self.events if event.place in self.ends()]
        return any("None" in ast.unparse(step.node) for step in steps if step is not None)

    def ends(self) -> list[Place]:
        """Return the statement that ends the backward pass: the innermost that hands it out."""
        code = code_of(self.evidence.backward)
        runs = [run.event for run in self.trail.runs if run.code is code]
        if not runs or runs[-1] is None:
            return []
        event = self.events[runs[-1]]
        while event.returns and not isinstance(event.step and event.step.node, ast.Expr):
            event = self.events[event.returns[-1]]
        return [event.place]


def _operands_of(text: Text | None) -> set[str]:
    """Return what a forward pass counts with: of two equal numbers rather that is meant."""
    nodes = [node for step in (text.steps if text else ()) for node in ast.walk(step.node)]
    pairs = ((node.left, node.right) for node in nodes if isinstance(node, ast.BinOp))
    return {ast.unparse(side) for pair in pairs for side in pair}


def _place(spot: Spot) -> Place:
    return spot[0].co_filename, spot[1]
