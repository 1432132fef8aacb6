"""Which lines of a handwritten backward pass are to blame for a wrong gradient."""

from __future__ import annotations

import ast
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from typing import Any

import numpy as np

from ...recording import Call, Recording, name_of, parents_of
from ...validation import Array
from ..blocks import close
from ..guard import NEVER, Deadline
from ..source import Place, code_of, forward_line, is_computing, root_of, skips
from .known import Known, is_known
from .trail import Event, Moment, Trail

_EMPTY = {"zeros", "zeros_like", "empty", "empty_like", "arange", "range", "len", "print"}
_SIZES = {"shape", "size", "ndim", "dtype"}
_STATEMENTS = ast.Assign | ast.AnnAssign | ast.AugAssign | ast.Return | ast.Expr
Key = tuple[Place, str]  # a statement, or a part of what it gives


@dataclass
class Evidence:
    """What the place of a mistake is told from: both sides' gradients, and how each came about."""

    grads: Sequence[Any]
    automatic: Sequence[Any]
    wrong: Sequence[int]  # the numbers of those that are wrong
    right: Sequence[int]
    trail: Trail | None  # of the handwritten pass
    values: Sequence[Array]  # the arguments
    upstream: Sequence[Array]
    recording: Recording | None  # of autograd's passes
    forward: Callable[..., object] | None  # the user's own functions
    backward: Callable[..., object] | None
    tolerance: float = 1e-9
    deadline: Deadline = NEVER

    @cached_property
    def blame(self) -> Blame | None:
        """The statements that ran, held against all that is known."""
        return Blame(self, self.trail) if self.trail is not None else None


def places(evidence: Evidence, k: int, reason: Any = None) -> tuple[Place, ...]:
    """Return where the k-th gradient goes wrong: at most three lines, forward ones first.

    A reason has a rule, rows, a kind, the forward call whose gradient is wrong, and the wrong
    values that it makes on the way.
    """
    blame, found = evidence.blame, [_forward_place(evidence, k, reason)]
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


class Blame:
    """The statements of a handwritten backward pass, held against what is known to be true."""

    def __init__(self, evidence: Evidence, trail: Trail) -> None:
        self.evidence, self.trail, self.events = evidence, trail, trail.events
        self.start = trail.start_of(code_of(evidence.backward))
        self.moments = [m for m in trail.moments if m.event >= self.start]
        self.made: dict[int, list[Array]] = {}  # by event, in the order of the first thing made
        self.handed: dict[int, list[Array]] = {}  # what was there before
        for m in self.moments:
            (self.made if m.fresh else self.handed).setdefault(m.event, []).append(m.value)
        made = evidence.recording
        self.calls = made.calls if made is not None else []
        gradients = [*made.grads, *made.adjoints.values()] if made is not None else []
        self.wholes = [g for g in gradients if isinstance(g, Call)]
        self.upstream = Known(evidence.upstream)
        self.whole = Known([*evidence.upstream, *(call.value for call in self.wholes)])
        values = [call.value for call in self.calls]
        self.true = Known([*evidence.upstream, *evidence.values, *values])
        self.equal, self.feeding = cache(self._equal), cache(self._feeding)
        self.pool, self.common, self.shown = (
            cache(self._pool),
            cache(self._common),
            cache(self._shown),
        )

    # -------------------- the way of one gradient --------------------

    def _equal(self, k: int) -> list[Moment]:
        """Return the moments that have just the numbers of a gradient."""
        value = self.evidence.grads[k]
        self.evidence.deadline.check()
        mine = [m for m in self.moments if value is not None and m.value.shape == np.shape(value)]
        same = [m for m in mine if np.array_equal(m.value, value)]
        return same or [m for m in mine if close(m.value, value, 1e-9)]

    def sink(self, k: int) -> Moment | None:
        """Return the moment at which the k-th gradient came to be."""
        grad, equal = self.evidence.grads[k], self.equal(k)
        fresh = [i for i, moment in enumerate(equal) if moment.fresh]
        if not fresh:
            return equal[0] if equal else None
        if np.ndim(grad) == 0:  # numbers have no identity: each name that holds one is fresh
            return equal[fresh[0]]
        handed = equal[fresh[-1] + 1 :]
        # What is the right gradient of something else is wrong only where it is handed on.
        innocent = np.size(grad) > 1 and self.whole.has(grad, 1e-12)
        return handed[0] if innocent and handed and k in self.evidence.wrong else equal[fresh[-1]]

    def _feeding(self, k: int) -> set[int]:
        """Return the events of the backward pass that the k-th gradient came from."""
        sink = self.sink(k)
        found = self.trail.feeding(sink.event) if sink is not None else set()
        return {number for number in found if number >= self.start}

    def _pool(self, k: int) -> dict[Key, None]:
        """Return the statements that the k-th gradient came from and that compute, in order."""
        self.evidence.deadline.check()
        fed = self.feeding(k)
        return dict.fromkeys(key for number, key in self.computing.items() if number in fed)

    @cached_property
    def computing(self) -> dict[int, Key]:
        """The statements that compute, or take one gradient for another, in order."""
        events = {m.event: self.events[m.event] for m in self.moments}
        return {n: (e.place, e.part) for n, e in events.items() if self._computes(n, e)}

    def _computes(self, number: int, event: Event) -> bool:
        """Tell whether an event does more than unpack, allocate, count or hand on."""
        node, made = event.step and event.step.node, self.made.get(number, ())
        value: ast.AST | None = getattr(node, "value", None)
        if not isinstance(node, _STATEMENTS) or value is None:
            return False
        if isinstance(node, ast.AugAssign):
            return not isinstance(value, ast.Constant)
        if not made:
            return self._copies(number, event)
        while isinstance(value, ast.Subscript):
            value = value.value
        called = root_of(value.func).split(".")[-1] if isinstance(value, ast.Call) else ""
        counts = isinstance(value, ast.Attribute) and value.attr in _SIZES
        computes = is_computing(node) or any(array.ndim for array in made)
        return computes and not counts and called not in _EMPTY

    def _copies(self, number: int, event: Event) -> bool:
        """Tell whether a statement takes one gradient for another: ``dh = dout``."""
        handed, targets = self.handed.get(number, []), event.step.targets if event.step else []
        names = all(isinstance(target, ast.Name) for target in targets)
        if event.copied is None or len(handed) != 1 or not names:
            return False
        return event.copied >= self.start or self.upstream.has(handed[0], 0.0)

    # -------------------- what is innocent --------------------

    @cached_property
    def forward(self) -> set[Key]:
        """The statements of the forward pass, also where one function gives loss and gradient."""
        adjoints = self.evidence.recording.adjoints if self.evidence.recording is not None else ()
        found = {(place, "") for place in map(forward_line, adjoints) if place is not None}
        given = [
            m.event
            for m in self.moments
            if m.name == "return[0]" and not m.value.ndim
            if self.trail.runs[self.events[m.event].run].caller is None
        ]
        if given and self.evidence.upstream and np.size(self.evidence.upstream[0]) == 1:
            events = (self.events[number] for number in self.trail.feeding(given[-1]))
            found |= {(event.place, event.part) for event in events}
        return found

    @cached_property
    def right(self) -> set[Key]:
        """The statements that feed right gradients."""
        return {key for j in self.evidence.right for key in self.pool(j)}

    def _common(self, rows: tuple[int, ...]) -> set[Key] | None:
        """Return the statements that feed all of some gradients; None where none are known."""
        pools = [set(pool) for pool in map(self.pool, rows) if pool]
        return set.intersection(*pools) if pools else None

    def _shown(self, rule: str | None) -> set[Key]:
        """Return the statements whose values autograd has too."""
        # Where a term is lacking, what is there is a part of the true value, not the whole of it.
        known = self._values(set(self.calls) - (self._terms() if rule == "term" else set()))
        # A gradient that is equal to a forward value has lost the rest of its factors.
        lost = rule in ("value", "upstream")
        gradients = self._values(self._carrying()) if lost else known
        found: dict[Key, bool] = {}
        for number, key in self.computing.items():  # at each turn of a loop
            self.evidence.deadline.check()
            true = gradients if _names_gradient(self.events[number]) else known
            values = self.made.get(number, ())
            right = bool(values) and all(true.has(value, 1e-9) for value in values)
            found[key] = right and found.get(key, True)
        return {key for key, right in found.items() if right}

    def _values(self, calls: Iterable[Call]) -> Known:
        """Return the values of calls, but for numbers and what is only the upstream gradient."""
        values = (call.value for call in calls if is_known(call.value, least=2))
        return Known(value for value in values if not self.upstream.has(value, 1e-12))

    def _carrying(self) -> set[Call]:
        """Return the backward calls that depend on the upstream gradient: no factors alone."""
        found = set(self.wholes)
        for call in self.calls:
            if call.gradient_of is not None and not found.isdisjoint(parents_of(call)):
                found.add(call)
        return found

    def _terms(self) -> set[Call]:
        """Return the calls that are terms of a gradient in which several paths meet."""
        pending, found = list(self.wholes), set()
        while pending:
            call = pending.pop()
            if name_of(call.fun) == "add" and type(call.args[0]).__name__.endswith("VSpace"):
                terms = [arg for arg in call.args[1:] if isinstance(arg, Call)]
                found |= set(terms)
                pending += terms
        return found.difference(self.wholes)

    # -------------------- what is left --------------------

    def swapped(self, k: int) -> Place | None:
        """Return where the right gradient of another argument is given out as the k-th."""
        others = Known(g for j, g in enumerate(self.evidence.automatic) if j != k)
        sink = self.sink(k)
        if sink is None or sink.fresh or not others.has(sink.value, 1e-9):
            return None
        return self.events[sink.event].place

    def suspects(self, k: int, reason: Any) -> list[Place]:
        """Return where the k-th gradient may have its mistake from, the likeliest places first."""
        sink = self.sink(k)
        if sink is None:
            return []
        rule = reason.rule if reason is not None else None
        giver = self._giver(k, sink)
        pool = [key for key in self.pool(k) if key not in self.forward] or [*self.pool(k)]
        left = self._left(pool, reason)
        made = self._first_wrong(k, left or pool, pool, reason)
        if rule == "part":
            made = [*self.skipping(self.feeding(k))[:1], *made][:1]
        first, last = [key[0] for key in left[:1]], [key[0] for key in left[-1:]]
        if rule is None:
            order = [*first, *made, *last]
        elif rule == "upstream":  # it may be lost at the first step, or not come in at the last
            order = [*first, giver]
        else:
            order = [*made, *first, *last]
        return list(dict.fromkeys(order)) or [giver]

    def _giver(self, k: int, sink: Moment) -> Place:
        """Return the statement that first hands out the k-th gradient."""
        given = (m for m in self.equal(k) if m.name.startswith("return") and m.event >= sink.event)
        return self.events[next(given, sink).event].place

    def _left(self, pool: Sequence[Key], reason: Any) -> list[Key]:
        """Return the statements that feed wrong gradients, no right one, and are not true."""
        rule = reason.rule if reason is not None else None
        left = [key for key in pool if key not in self.right]
        if self.calls:
            left = [key for key in left if key not in self.shown(rule)] or left
        for rows in (self.evidence.wrong, reason.rows if reason is not None else ()):
            common = self.common(tuple(rows)) if rule != "layout" else None
            left = [key for key in left if common is None or key in common] or left
        return left

    def _first_wrong(
        self, k: int, left: Sequence[Key], pool: Sequence[Key], reason: Any
    ) -> list[Place]:
        """Return the first of the statements that makes a value which the mistake makes, if any."""
        if reason is not None and (copies := self._copies_of(reason.products, pool)):
            return copies[-1:]
        products = [*(reason.products if reason is not None else ()), self.evidence.grads[k]]
        if reason is not None and reason.rule == "factor":
            c = _times(self.evidence, k)
            backward = [call.value for call in self.calls if call.gradient_of is not None]
            scaled = [c * np.asarray(v) for v in backward if is_known(v, least=2)]
            if found := self._first_of([*products, *scaled], left):
                return found
        return self._first_of(products, pool)

    def _copies_of(self, products: Sequence[object], keys: Iterable[Key]) -> list[Place]:
        """Return where a right gradient is handed on as it is, as in ``da = dh``."""
        true, among = Known([p for p in products if self.true.has(p, 1e-9)]), set(keys)
        return [
            self.events[number].place
            for number, key in self.computing.items()
            if key in among and number not in self.made
            if all(true.has(value, 1e-9) for value in self.handed.get(number, ()))
        ]

    def _first_of(self, products: Iterable[Any], keys: Iterable[Key]) -> list[Place]:
        tolerance = max(self.evidence.tolerance, 1e-9)
        some = [p for p in products if p is not None and is_known(p, least=2) and np.any(p)]
        wanted, among = Known([p for p in some if not self.true.has(p, tolerance)]), set(keys)
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
        return [*(self.events[m.event].place for m in made[:1]), *self.ends()]

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


def _names_gradient(event: Event) -> bool:
    names = event.step.writes if event.step is not None else ()
    return any(n.split(".")[-1].lower().startswith(("d", "grad", "g_")) for n in names)
