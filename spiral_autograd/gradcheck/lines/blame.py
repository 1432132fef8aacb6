"""Which lines of a handwritten backward pass are to blame for a wrong gradient."""

from __future__ import annotations

import ast
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from ...recording import Call, name_of
from ..blocks import close
from ..guard import Deadline
from ..source import Place, code_of, forward_line, skips
from .known import Known, is_known
from .mending import Spot, mending
from .ran import Evidence, Key, Ran
from .trail import Moment, Trail

_LONGEST = 1.5  # seconds to try what a statement may have been meant to be


def blame_of(evidence: Evidence) -> Blame | None:
    """Return the statements that ran, held against all that is known; None where none are known."""
    if evidence.found is None and evidence.trail is not None:
        evidence.found = Blame(evidence, evidence.trail)
    found: Blame | None = evidence.found
    return found


def places(evidence: Evidence, k: int, reason: Any = None) -> tuple[Place, ...]:
    """Return where the k-th gradient goes wrong: at most three lines, forward ones first.

    A reason has a rule, rows, a kind, the forward call whose gradient is wrong, and the wrong
    values that it makes on the way.
    """
    blame, found = blame_of(evidence), [_forward_place(evidence, k, reason)]
    if blame is not None and reason is not None and reason.rule == "unwritten":
        found += blame.unwritten(k)
    elif blame is not None and (place := blame.swapped(k)) is not None:
        found = [place]
    elif blame is not None:
        found += blame.suspects(k, reason) or blame.ends()
    return tuple(dict.fromkeys(place for place in found if place is not None))[:3]


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


class Blame(Ran):
    """The statements of a handwritten backward pass, and which of them is to blame."""

    def __init__(self, evidence: Evidence, trail: Trail) -> None:
        super().__init__(evidence, trail)
        self.mended: dict[tuple[int, ...], list[Place]] = {}
        self.until = Deadline.after(min(_LONGEST, evidence.deadline.left))

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
        sink = self.sink(k)
        if sink is None:
            return []
        pool = [*self.pool(k)]
        left, is_joint = self._left(pool, reason)
        if not left:
            return [self._giver(k, sink)]
        likely, is_sure = self._likely(k, reason, pool, left, is_joint)
        own = code_of(self.evidence.backward)  # in a helper it may be the call that is wrong
        places = {event.place for event in self.events if self.trail.runs[event.run].code is own}
        if is_sure and places.issuperset(likely):
            return likely
        return self._mended(k, reason, likely, [key[0] for key in left]) or likely

    def _mended(
        self, k: int, reason: Any, likely: Sequence[Place], left: Sequence[Place]
    ) -> list[Place]:
        """Return the statement of which one small change makes all right: gradients, or some."""
        for rows in (tuple(self.evidence.wrong), tuple(reason.rows if reason else [k])):
            if k in rows and rows not in self.mended:
                self.mended[rows] = self._mending(rows, likely, left)
            if k in rows and self.mended[rows]:
                return self.mended[rows][:1]
        return []

    def _mending(
        self, rows: tuple[int, ...], likely: Sequence[Place], left: Sequence[Place]
    ) -> list[Place]:
        e = self.evidence
        fed = [self.feeding(k) | {m.event for m in self.equal(k)} for k in rows if self.feeding(k)]
        right = set().union(*(self.feeding(k) for k in e.right))
        found: dict[Spot, dict[Any, None]] = {}
        common = set.intersection(*fed) - right if fed else set()
        runs = {self.trail.runs[self.events[number].run] for number in common}
        calls = {run.caller for run in runs if run.caller is not None and run.caller >= self.start}
        called = [self.events[number].place for number in sorted(calls)]
        for number in sorted(common | calls):
            event = self.events[number]
            if event.step is None or self.is_forward(number):
                continue
            spot = self.trail.runs[event.run].code, event.place[1]
            values = (*self.made.get(number, ()), *self.handed.get(number, ()))
            found.setdefault(spot, {}).update(dict.fromkeys(value.shape for value in values))
        counting = {place for place, _ in self.counting}
        order = [*likely, *(place for place in left if place not in counting), *called]
        ranks = {
            spot: order.index(p) if (p := (spot[0].co_filename, spot[1])) in order else 99
            for spot in found
        }
        spots = {
            spot: (0.4 * (ranks[spot] == 99), tuple(found[spot]))
            for spot in sorted(found, key=lambda s: ranks[s])
        }
        tolerance = max(e.tolerance, 1e-8)

        def is_mended(grads: Sequence[Any]) -> bool:
            return bool(grads) and all(
                g is not None and np.shape(g) == np.shape(true) and close(g, true, tolerance)
                for k, g, true in zip(range(len(grads)), grads, e.automatic, strict=True)
                if k in rows or k in e.right
            )

        asked = dict(list(spots.items())[:8])
        return mending(asked, e.run, is_mended, self.until) if asked else []

    def _likely(
        self, k: int, reason: Any, pool: Sequence[Key], left: Sequence[Key], is_joint: bool
    ) -> tuple[list[Place], bool]:
        """Return the likeliest of the statements that are left, and whether it is sure to be it."""
        rule = reason.rule if reason is not None else None
        counting = self.counting
        left = sorted(left, key=lambda key: key in counting)
        places = list(dict.fromkeys(key[0] for key in left))
        if rule == "part" and (heads := self.skipping(self.feeding(k))):
            return heads[:1], False
        if rule is None or rule == "part":
            working = [place for place in places if place in self.working]
            return places[:1] if is_joint else (working or places)[-1:], False
        if rule == "upstream":
            ignored = reason.kind == "upstream_ignored"
            return [places[-1 if ignored else 0]], ignored
        products = list(reason.products)
        if copies := self._copies_of(products, pool):
            return copies[-1:], True
        alone = len(places) == 1 and reason.kind != "operand"
        terms = rule == "term" and self._first_of(products, left, true=True)
        if made := terms or self._first_of(products, pool):
            if rule == "value":  # what is true may be the wrong thing here: z for 1 - z
                places = [key[0] for key in self._left(pool, reason, shown=True)[0]]
            is_sure = alone and rule != "value"
            likely = made[0] if made[0] in places else left[0][0]
            return [likely], is_sure or made[0] == places[0]
        if rule == "factor" and (scaled := self._scaled(k, left)):
            return scaled, alone
        if is_joint:
            return places[:1], alone
        if rule == "term" and products:
            return places[-1:], alone
        return self._first_of([self.evidence.grads[k]], pool) or places[-1:], alone

    def _scaled(self, k: int, left: Sequence[Key]) -> list[Place]:
        """Return the first statement that makes a multiple of what it should, as the k-th is one.

        Where a backward pass begins with it, it is the last: there the factor should stand.
        """
        c = _times(self.evidence, k)
        backward = [call.value for call in self.calls if call.gradient_of is not None]
        scaled = [c * np.asarray(v) for v in backward if is_known(v, least=2)]
        found = self._first_of(scaled, left)
        fed = [n for n, key in self.computing.items() if key[0] in found]
        true = {n for n, key in self.computing.items() if key in self.shown("factor")}
        begins = not any(self.events[n].sources & true for n in fed)
        return [left[-1][0]] if found and begins else found

    def _giver(self, k: int, sink: Moment) -> Place:
        """Return the statement that first hands out the k-th gradient."""
        given = (m for m in self.equal(k) if m.name.startswith("return") and m.event >= sink.event)
        return self.events[next(given, sink).event].place

    def _left(
        self, pool: Sequence[Key], reason: Any, shown: bool = False
    ) -> tuple[list[Key], bool]:
        """Return the statements that feed wrong gradients, no right one, and are not true.

        Also whether they feed several wrong gradients, all those that there are.
        """
        rule = reason.rule if reason is not None else None
        left = [key for key in pool if key not in self.right] or [*pool]
        if self.calls and not shown and (reason is None or reason.kind != "wrong_sign"):
            made = self._makers_of(reason.products if reason is not None else ())
            left = [key for key in left if key in made or key not in self.shown(rule)] or left
        for rows in (self.evidence.wrong, reason.rows if reason is not None else ()):
            common = self.common(tuple(rows)) if len(rows) > 1 else None
            joint = [key for key in left if common is not None and key in common]
            if joint:
                return joint, True
        return left, False

    def _makers_of(self, products: Sequence[Any]) -> set[Key]:
        """Return the statements that make some wrong values."""
        wanted = Known(p for p in products if is_known(p, least=2) and np.any(p))
        return {
            key
            for number, key in self.computing.items()
            if any(wanted.has(value, 1e-9) for value in self.made.get(number, ()))
        }

    def _copies_of(self, products: Sequence[object], keys: Iterable[Key]) -> list[Place]:
        """Return where a right gradient is handed on as it is, as in ``da = dh``."""
        true, among = Known([p for p in products if self.true.has(p, 1e-9)]), set(keys)
        return [
            self.events[number].place
            for number, key in self.computing.items()
            if key in among and number not in self.made
            if all(true.has(value, 1e-9) for value in self.handed.get(number, ()))
        ]

    def _first_of(
        self, products: Iterable[Any], keys: Iterable[Key], true: bool = False
    ) -> list[Place]:
        """Return the first of some statements that makes one of some values, true ones or not."""
        tolerance = max(self.evidence.tolerance, 1e-9)
        some = [p for p in products if p is not None and is_known(p, least=2) and np.any(p)]
        wrong = [p for p in some if true or not self.true.has(p, tolerance)]
        wanted, among = Known(wrong), set(keys)
        for number, arrays in self.made.items():
            self.evidence.deadline.check()
            mine = arrays if self.computing.get(number) in among else []
            if any(wanted.has(array, tolerance) for array in mine):
                return [self.events[number].place]
        return []

    def skipping(self, numbers: Iterable[int]) -> list[Place]:
        """Return the heads of the loops around that do not count from zero to a plain end."""
        steps = [(self.events[n].place[0], self.events[n].step) for n in sorted(numbers)]
        around = [(file, block) for file, step in steps if step for block in step.blocks]
        return [(file, b.lineno) for file, b in around if isinstance(b, ast.For) and skips(b)]

    # -------------------- a gradient that is not there --------------------

    def unwritten(self, k: int) -> list[Place]:
        """Return the line that makes the true gradient, if any does, and where it is given out."""
        true = self.evidence.automatic[k]
        made = [m for m in self.moments if np.any(true) and close(m.value, true, 1e-6)]
        ends = self.ends()
        return (
            ends if self._gives_none() else [self.events[m.event].place for m in made[:1]] or ends
        )

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
