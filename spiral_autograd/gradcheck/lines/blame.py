"""Which lines of a handwritten backward pass are to blame for a wrong gradient."""

from __future__ import annotations

import ast
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from ...recording import Call, Recording, name_of, parents_of
from ...validation import Array, Shape
from ..blocks import close, largest
from ..guard import NEVER, Deadline
from ..source import Place, Step, code_of, forward_line, is_computing, root_of, skips, text_of
from .trail import LARGEST, Event, Moment, Trail

_EMPTY = {"zeros", "zeros_like", "empty", "empty_like", "arange", "range", "len", "print"}
_SIZES = {"shape", "size", "ndim", "dtype"}
_STATEMENTS = ast.Assign | ast.AnnAssign | ast.AugAssign | ast.Return | ast.Expr
_Key = tuple[Place, str]  # a statement, or a part of what it gives


@dataclass
class Evidence:
    """What the place of a mistake is told from.

    Attributes
    ----------
    grads, automatic : sequences
        The handwritten gradients and those of the reference.
    wrong, right : sequences of int
        Which of them are wrong, and which right.
    trail : Trail or None
        What the statements of the handwritten pass made.
    values, upstream : sequences of arrays
        The arguments, and the upstream gradient.
    recording : Recording or None
        autograd's forward and reverse pass.
    forward, backward : callables or None
        The user's own functions.
    tolerance : float
    deadline : Deadline
    """

    grads: Sequence[Any]
    automatic: Sequence[Any]
    wrong: Sequence[int]
    right: Sequence[int]
    trail: Trail | None
    values: Sequence[Array]
    upstream: Sequence[Array]
    recording: Recording | None
    forward: Any
    backward: Any
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
    blame, kind = evidence.blame, _kind(reason)
    first = _forward_place(evidence, k, reason)
    if reason is not None and reason.rule == "unwritten":
        found = [first, *(blame.unwritten(k) if blame is not None else ())]
    elif kind == "swapped" and blame is not None and len(evidence.wrong) > 1:
        found = [*blame.suspects(k, reason)]
    else:
        guilty = (blame.suspects(k, reason) or blame.ends()) if blame is not None else []
        if first is None and evidence.recording is None:
            first = _namesake(evidence, guilty)
        found = [first, *guilty]
    return tuple(dict.fromkeys(place for place in found if place is not None))[:3]


def _kind(reason: Any) -> str:
    kind: str = getattr(reason, "kind", "")
    return "part" if kind == "lacks_entry" else kind


def _forward_place(evidence: Evidence, k: int, reason: Any) -> Place | None:
    """Return the line of the forward operation whose gradient is wrong."""
    if evidence.recording is None or reason is None:
        return None
    recording = evidence.recording
    if reason.rule == "factor" and (place := _scaling_line(evidence, k)) is not None:
        return place
    if reason.call is not None:
        return forward_line(reason.call)
    root = recording.params[k]
    users = [c for c in recording.adjoints if any(a is root for a in c.args)]
    return next((line for line in map(forward_line, users) if line is not None), None)


def _times(evidence: Evidence, k: int) -> float:
    """Return by which factor the k-th gradient is off, if it is by one; else 0."""
    g, h = np.asarray(evidence.automatic[k]), np.asarray(evidence.grads[k])
    norm = float(np.sum(g * g))
    return float(np.sum(g * h)) / norm if g.shape == h.shape and norm > 0 else 0.0


def _scaling_line(evidence: Evidence, k: int) -> Place | None:
    """Return the last forward line that multiplies by, or averages over, the lost factor."""
    c = abs(_times(evidence, k))
    calls = evidence.recording.calls if evidence.recording is not None else []
    for call in reversed([call for call in calls if call.gradient_of is None]):
        factors = [float(a) for a in call.args if isinstance(a, int | float) and a]
        sizes = [np.size(a.value) for a in call.args if isinstance(a, Call)]
        if sizes and name_of(call.fun) in ("mean", "average"):
            factors.append(sizes[0] / max(1, np.size(call.value)))
        for f in factors:
            if f not in (1, -1) and any(abs(c - x) < 1e-6 * x for x in (abs(f), 1 / abs(f))):
                return forward_line(call)
    return None


def _namesake(evidence: Evidence, found: Iterable[Place]) -> Place | None:
    """Return the forward line that makes h, where the first suspect line makes dh."""
    text, forward = text_of(evidence.backward), text_of(evidence.forward)
    if text is None or forward is None:
        return None
    for place in found:
        step = text.at(place[1]) if place[0] == text.file else None
        for name in step.writes if step is not None else ():
            bare = name.split(".")[-1]
            makers = [s for s in forward.steps if bare[1:].lstrip("_") in s.writes]
            if bare[0] == "d" and len(bare) > 1 and makers:
                return forward.place(makers[-1])
    return None


class Blame:
    """The statements of a handwritten backward pass, held against what is known to be true."""

    def __init__(self, evidence: Evidence, trail: Trail) -> None:
        self.evidence, self.trail, self.events = evidence, trail, trail.events
        self.start = trail.start_of(code_of(evidence.backward))
        self.moments = [m for m in trail.moments if m.event >= self.start]
        self._feeding: dict[int, set[int]] = {}
        self._equal: dict[int, list[Moment]] = {}
        self.recording = evidence.recording

    # -------------------- the way of one gradient --------------------

    def equal(self, k: int) -> list[Moment]:
        """Return the moments that have just the numbers of a gradient."""
        if k not in self._equal:
            value = self.evidence.grads[k]
            mine = [m for m in self.moments if m.value.shape == np.shape(value)]
            self.evidence.deadline.check()
            same = [m for m in mine if np.array_equal(m.value, value)]
            self._equal[k] = same or [m for m in mine if close(m.value, value, 1e-9)]
        return self._equal[k]

    def sink(self, k: int) -> Moment | None:
        """Return the moment at which the k-th gradient came to be."""
        grad = self.evidence.grads[k]
        equal = self.equal(k) if grad is not None else []
        fresh = [i for i, moment in enumerate(equal) if moment.fresh]
        if not fresh:
            return equal[0] if equal else None
        if np.ndim(grad) == 0:  # numbers have no identity: each name that holds one is fresh
            return equal[fresh[0]]
        handed = equal[fresh[-1] + 1 :]
        # What is the right gradient of something else is wrong only where it is handed on.
        innocent = np.size(grad) > 1 and self.whole.has(grad, 1e-12)
        return handed[0] if innocent and handed and k in self.evidence.wrong else equal[fresh[-1]]

    def feeding(self, k: int) -> set[int]:
        """Return the events of the backward pass that the k-th gradient came from."""
        if k not in self._feeding:
            self.evidence.deadline.check()
            sink = self.sink(k)
            found = self.trail.feeding(sink.event) if sink is not None else set()
            self._feeding[k] = {number for number in found if number >= self.start}
        return self._feeding[k]

    def pool(self, k: int) -> list[_Key]:
        """Return the statements that the k-th gradient came from and that compute, in order."""
        fed = self.feeding(k)
        return [key for number, key in self._computing.items() if number in fed]

    @cached_property
    def made(self) -> dict[int, list[Moment]]:
        """What each event made, in the order of the first thing that it made."""
        found: dict[int, list[Moment]] = {}
        for moment in self.moments:
            if moment.fresh:
                found.setdefault(moment.event, []).append(moment)
        return found

    @cached_property
    def _handed(self) -> dict[int, list[Moment]]:
        """What each event handed on."""
        found: dict[int, list[Moment]] = {}
        for moment in self.moments:
            if not moment.fresh:
                found.setdefault(moment.event, []).append(moment)
        return found

    @cached_property
    def _computing(self) -> dict[int, _Key]:
        """The statements that compute, or take one gradient for another, in order."""
        numbers = dict.fromkeys(m.event for m in self.moments)
        events = {n: self.events[n] for n in numbers if self._computes(n, self.events[n])}
        return {number: (event.place, event.part) for number, event in events.items()}

    def _computes(self, number: int, event: Event) -> bool:
        """Tell whether an event does more than unpack, allocate, count or hand on."""
        node = event.step.node if event.step is not None else None
        if not isinstance(node, _STATEMENTS):
            return False
        value = node.value
        if isinstance(node, ast.AugAssign):
            return not isinstance(value, ast.Constant)
        made = self.made.get(number, ())
        if not made:
            return event.gives_back or self._copies(number, event)
        if value is None or not (is_computing(value) or any(m.value.ndim for m in made)):
            return False
        while isinstance(value, ast.Subscript):
            value = value.value
        if isinstance(value, ast.Attribute) and value.attr in _SIZES:
            return False
        called = root_of(value.func) if isinstance(value, ast.Call) else ""
        return called.split(".")[-1] not in _EMPTY

    def _copies(self, number: int, event: Event) -> bool:
        """Tell whether a statement takes one gradient for another: ``dh = dout``."""
        targets = event.step.targets if event.step is not None else []
        if len(targets) != 1 or not isinstance(targets[0], ast.Name):
            return False
        if event.copied is None:
            return False
        handed = (m.value for m in self._handed.get(number, ()))
        return event.copied >= self.start or any(self.upstream.has(v, 0.0) for v in handed)

    # -------------------- what is innocent --------------------

    @cached_property
    def upstream(self) -> Known:
        """The upstream gradient."""
        return Known(self.evidence.upstream)

    @cached_property
    def calls(self) -> list[Call]:
        """autograd's values, but for single numbers and what is only the upstream gradient."""
        calls = self.recording.calls if self.recording is not None else []
        return [c for c in calls if _is_known(c.value) and not self.upstream.has(c.value, 1e-12)]

    @cached_property
    def carrying(self) -> set[Call]:
        """The backward calls that depend on the upstream gradient: no factors by themselves."""
        found = set(self.wholes)
        for call in self.recording.calls if self.recording is not None else ():
            if call.gradient_of is not None and not found.isdisjoint(parents_of(call)):
                found.add(call)
        return found

    @cached_property
    def wholes(self) -> list[Call]:
        """autograd's gradients of the arguments and of all values of the forward pass."""
        made = self.recording
        found = [] if made is None else [*made.grads, *made.adjoints.values()]
        return [call for call in found if isinstance(call, Call)]

    @cached_property
    def whole(self) -> Known:
        """The upstream gradient, and the whole gradients of the values of the forward pass."""
        return Known([*self.evidence.upstream, *(call.value for call in self.wholes)])

    @cached_property
    def true(self) -> Known:
        """All values that are right, of whatever."""
        given = [*self.evidence.upstream, *self.evidence.values]
        calls = self.recording.calls if self.recording is not None else []
        return Known([*given, *(call.value for call in calls)])

    @cached_property
    def forward(self) -> set[_Key]:
        """The statements of the forward pass, also where one function gives loss and gradient."""
        calls = self.recording.adjoints if self.recording is not None else ()
        found = {(place, "") for place in map(forward_line, calls) if place is not None}
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
    def right(self) -> set[_Key]:
        """The statements that feed right gradients."""
        return {key for j in self.evidence.right for key in self.pool(j)}

    def shown(self, rule: str | None) -> set[_Key]:
        """Return the statements whose values autograd has too."""
        # Where a term is lacking, what is there is a part of the true value, not the whole of it.
        parts = self._parts if rule == "term" else set()
        known = Known([call.value for call in self.calls if call not in parts])
        carrying = Known([call.value for call in self.calls if call in self.carrying])
        bad = Known([self.evidence.grads[j] for j in self.evidence.wrong])
        found = set()
        for number, key in self._computing.items():
            self.evidence.deadline.check()
            values = [moment.value for moment in self.made.get(number, ())]
            # A gradient that is equal to a forward value has lost the rest of its factors.
            lost = rule in ("value", "upstream") and _names_gradient(self.events[number])
            true = carrying if lost else known
            if values and all(true.has(v, 1e-9) and not bad.has(v, 0.0) for v in values):
                found.add(key)
        return found

    @cached_property
    def _parts(self) -> set[Call]:
        """The calls that are terms of a gradient in which several paths meet."""
        pending, found = list(self.wholes), set()
        while pending:
            call = pending.pop()
            if name_of(call.fun) == "add" and type(call.args[0]).__name__.endswith("VSpace"):
                terms = [arg for arg in call.args[1:] if isinstance(arg, Call)]
                found |= set(terms)
                pending += terms
        return found.difference(self.wholes)

    # -------------------- what is left --------------------

    def suspects(self, k: int, reason: Any) -> list[Place]:
        """Return where the k-th gradient may have its mistake from, the likeliest places first."""
        sink = self.sink(k)
        if sink is None:
            return []
        rule = reason.rule if reason is not None else None
        giver = self._giver(k, sink)
        if _kind(reason) == "swapped":
            return [giver]
        pool = [key for key in self.pool(k) if key not in self.forward] or self.pool(k)
        left = self._left(k, pool, reason)
        first = self._first_wrong(k, left or pool, pool, reason)
        if _kind(reason) == "part":
            first = next(iter(self._skipping(self.feeding(k))), first)
        ends = [key[0] for key in (*left[:1], *left[-1:])]
        order = [*ends[:1], first, *ends[1:]] if rule is None else [first, *ends]
        if rule == "upstream":  # it may be lost at the first step, or not come in at the last
            order = [*ends[:1], giver, *order]
        found = list(dict.fromkeys(place for place in order if place is not None)) or [giver]
        alone = reason is not None and len(reason.rows) < len(self.evidence.wrong)
        own = self._own(k, pool) if alone else None
        return [*found[:2], own] if own is not None and own not in found[:2] else found

    def _left(self, k: int, pool: list[_Key], reason: Any) -> list[_Key]:
        """Return the statements that feed wrong gradients, no right one, and are not true."""
        rule = reason.rule if reason is not None else None
        left = [key for key in pool if key not in self.right]
        if pool and not left:
            return []
        shown = self.shown(rule) if self.recording is not None else set()
        left = [key for key in left if key not in shown] or left
        for rows in (self.evidence.wrong, reason.rows if reason is not None else ()):
            common = set(left) if rule != "layout" else set()
            for j in rows if common else ():
                common &= set(self.pool(j)) or common
            left = [key for key in left if key in common] or left
        return left

    def _giver(self, k: int, sink: Moment) -> Place:
        """Return the statement that first hands out the k-th gradient."""
        given = (m for m in self.equal(k) if m.name.startswith("return") and m.event >= sink.event)
        return self.events[next(given, sink).event].place

    def _own(self, k: int, pool: Sequence[_Key]) -> Place | None:
        """Return the last statement that feeds the k-th gradient and no other."""
        others = (j for j in (*self.evidence.wrong, *self.evidence.right) if j != k)
        shared = {key for j in others for key in self.pool(j)}
        own = [key[0] for key in pool if key not in shared | self.forward]
        return own[-1] if own else None

    def _first_wrong(
        self, k: int, left: Sequence[_Key], pool: Sequence[_Key], reason: Any
    ) -> Place | None:
        """Return the first of the statements that makes a value which the mistake makes."""
        products = [*(reason.products if reason is not None else ()), self.evidence.grads[k]]
        if reason is not None and reason.rule == "factor" and self.recording is not None:
            c = _times(self.evidence, k)
            backward = [call for call in self.calls if call.gradient_of is not None]
            scaled = [*products, *(c * np.asarray(call.value) for call in backward)]
            if (found := self._first_of(scaled, left)) is not None:
                return found
        return self._first_of(products, pool)

    def _first_of(self, products: Sequence[Any], keys: Sequence[_Key]) -> Place | None:
        tolerance = max(self.evidence.tolerance, 1e-9)
        some = [p for p in products if 1 < np.size(p) <= LARGEST and np.any(p)]
        wanted, among = Known([p for p in some if not self.true.has(p, tolerance)]), set(keys)
        for number, moments in self.made.items():
            self.evidence.deadline.check()
            values = [m.value for m in moments] if self._computing.get(number) in among else []
            if any(wanted.has(value, tolerance) for value in values):
                return self.events[number].place
        return None

    def _skipping(self, numbers: Iterable[int]) -> list[Place]:
        """Return the heads of loops that do not count from zero to a plain end."""
        events = [self.events[number] for number in sorted(numbers)]
        return [
            (event.place[0], block.lineno)
            for event in events
            for block in (event.step.blocks if event.step is not None else ())
            if isinstance(block, ast.For) and skips(block)
        ]

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


# -------------------- a second call, a kink --------------------


def state_places(evidence: Evidence, k: int, why: str) -> tuple[Place, ...]:
    """Return where a gradient depends on an earlier call ("accumulates", "stale", …)."""
    blame, text = evidence.blame, text_of(evidence.backward)
    made = [blame.events[m.event] for m in blame.equal(k)] if blame is not None else []
    if why == "stale":
        return tuple(_keeping(blame, k))[:3] if blame is not None else ()
    if why == "accumulates":
        adding = [e for e in made if e.step is not None and _adds(e.step)]
        kept = [e for e in adding if e.step is not None and any(map(_is_held, e.step.targets))]
        found = [event.place for event in (kept or adding or made)][-1:]
    else:
        steps = text.steps if text is not None else ()
        found = [text.place(step) for step in steps if text and _changes_itself(step)]
        found += [event.place for event in made][-1:]
    return tuple(place for place in dict.fromkeys(found) if _has_run(evidence, place))[:3]


def _keeping(blame: Blame, k: int) -> list[Place]:
    """Return the statements that may leave what an earlier call has set, and those that read it."""
    texts = [text for run in blame.trail.runs if (text := text_of(run.code)) is not None]
    texts = list(dict.fromkeys(texts))
    steps = {text.place(step): step for text in texts for step in text.steps}
    read = {name for n in blame.feeding(k) if (s := blame.events[n].step) for name in s.reads}
    used = {name.split(".")[-1] for name in read if "." in name}
    guarded = {place: step for place, step in steps.items() if _is_guarded(step)}
    kept = {p: s for p, s in guarded.items() if {n.split(".")[-1] for n in _kept(s)} & used}
    names = {name for step in (kept or guarded).values() for name in _kept(step)}
    readers = [place for place, step in steps.items() if step.reads & names]
    return list(dict.fromkeys([*(kept or guarded), *readers]))


def _has_run(evidence: Evidence, place: Place) -> bool:
    """Tell whether a line ran, or is the head of a branch that decides for another call."""
    blame, forward = evidence.blame, text_of(evidence.forward)
    if blame is None or any(event.place == place for event in blame.events):
        return True
    return forward is not None and place[0] == forward.file and forward.at(place[1]) is not None


def _changes_itself(step: Step) -> bool:
    return bool(_kept(step)) and (bool(_kept(step) & step.reads) or _asks(step))


def _kept(step: Step) -> set[str]:
    return {name for name in step.writes if "." in name}


def _asks(step: Step) -> bool:
    """Tell whether a statement asks for an attribute of which it is not sure: getattr, hasattr."""
    names = {n.split(".")[-1] for n in step.reads}
    return bool(names & {"getattr", "hasattr", "setdefault", "get"})


def _is_guarded(step: Step) -> bool:
    """Tell whether an attribute may keep its value: it is read, or asked for, where it is set."""
    if not _kept(step) or isinstance(step.node, ast.AugAssign):
        return bool(_kept(step))
    value = getattr(step.node, "value", None)
    choice = isinstance(value, ast.BoolOp | ast.IfExp) and bool(_kept(step) & step.reads)
    return choice or _asks(step) or any(isinstance(b, ast.If | ast.Try) for b in step.blocks)


def _adds(step: Step) -> bool:
    return isinstance(step.node, ast.AugAssign | ast.Expr) or _changes_itself(step)


def _is_held(target: ast.expr) -> bool:
    return isinstance(target, ast.Subscript | ast.Attribute)


_KINKS = set(
    "maximum minimum max min amax amin fmax fmin abs absolute fabs clip where sign heaviside "
    "argmax argmin greater less greater_equal less_equal argsort sort select".split()
)


def kink_places(evidence: Evidence, k: int) -> tuple[Place, ...]:
    """Return the forward line that has the kink, and the backward line that decides at it."""
    calls = evidence.recording.calls if evidence.recording is not None else []
    bent = [c for c in calls if c.gradient_of is None and name_of(c.fun) in _KINKS]
    found = [line for line in map(forward_line, bent) if line is not None][:1]
    for number, text in enumerate((text_of(evidence.forward), text_of(evidence.backward))):
        if text is not None and not (number == 0 and found):
            decisive = (text.place(step) for step in text.steps if _decides(step))
            found += [place for place in decisive if _has_run(evidence, place)][:1]
    if len(found) < 2 and evidence.blame is not None:
        found += evidence.blame.suspects(k, None)[:1]
    return tuple(dict.fromkeys(found))[:3]


def _decides(step: Step) -> bool:
    """Tell whether a statement compares, or takes a largest or smallest."""
    if isinstance(step.node, ast.If | ast.For | ast.While | ast.Assert):
        return False
    nodes = list(ast.walk(step.node))
    called = {root_of(node.func).split(".")[-1] for node in nodes if isinstance(node, ast.Call)}
    return bool(called & _KINKS) or any(isinstance(node, ast.Compare) for node in nodes)


# -------------------- arrays that are known --------------------


class Known:
    """Arrays, to be asked whether a value is one of them, to rounding.

    Each is known by a weighted sum of its entries, so that few have to be compared.
    """

    def __init__(self, values: Iterable[Any]) -> None:
        self._arrays: dict[Shape, list[Array]] = {}
        for value in values:
            if value is not None and _is_known(value, least=1):
                self._arrays.setdefault(np.shape(value), []).append(np.asarray(value))
        self._sums: dict[Shape, tuple[Array, Array]] = {}

    def has(self, value: Any, tolerance: float) -> bool:
        """Tell whether a value is one of the arrays."""
        value = np.asarray(value, dtype=float)
        arrays = self._arrays.get(value.shape)
        if arrays is None or not np.isfinite(largest(value)):
            return False
        weights = np.random.default_rng(0).uniform(0.5, 1.5, value.size)
        if value.shape not in self._sums:
            sums = np.array([np.ravel(array) @ weights for array in arrays])
            order = np.argsort(sums)
            self._arrays[value.shape] = arrays = [arrays[i] for i in order]
            self._sums[value.shape] = weights, sums[order]
        weights, sums = self._sums[value.shape]
        off = (2 * tolerance + 1e-15 * value.size) * float(weights.sum()) * largest(value)
        middle = float(np.ravel(value) @ weights)
        first, last = np.searchsorted(sums, [middle - off, middle + off + 1e-300])
        return any(close(value, array, tolerance) for array in arrays[first:last])


def _is_known(value: Any, least: int = 2) -> bool:
    array = np.asarray(value)
    finite = array.dtype.kind == "f" and bool(np.isfinite(array).all())
    return least <= array.size <= LARGEST and finite


def _names_gradient(event: Event) -> bool:
    names = event.step.writes if event.step is not None else ()
    return any(n.split(".")[-1].lower().startswith(("d", "grad", "g_")) for n in names)
