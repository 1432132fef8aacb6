"""Which statements of a backward pass a wrong gradient may have its mistake from."""

from __future__ import annotations

import ast
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from ...recording import Call
from ..blocks import close
from ..reference.backward_graph import BackwardGraph, is_sum_of_paths
from ..source import (
    code_of,
    counts,
    forward_line,
    is_computing,
    only_calls,
    root_of,
    skips,
    targets_of,
)
from .moments import LARGEST, Event, Known, Moment
from .slices import Slices, gives_several, is_identical
from .uses import inside

if TYPE_CHECKING:
    from .lines import Evidence

Spot = tuple[str, int]
_EMPTY = {"zeros", "zeros_like", "empty", "empty_like", "arange", "range", "len", "print"}
_STATEMENTS = ast.Assign | ast.AnnAssign | ast.AugAssign | ast.Return | ast.Expr


def suspects(evidence: Evidence, k: int, finding: Any = None) -> list[Spot]:
    """Return where the k-th gradient may have its mistake from, the likeliest places first."""
    if evidence.slices is None or evidence.grads[k] is None:
        return []
    return _inquiry(evidence).suspects(k, finding)


def made_at(evidence: Evidence, k: int) -> list[Spot]:
    """Return the statements that make the k-th gradient just as it is, in order."""
    if evidence.slices is None:
        return []
    events = evidence.slices.history.events
    found = _inquiry(evidence).equal(k)
    return list(
        dict.fromkeys((events[m.event or 0].file, events[m.event or 0].line) for m in found)
    )


def attributes_of(evidence: Evidence, k: int) -> set[str]:
    """Return the names of the attributes that the k-th gradient was made with."""
    if evidence.slices is None:
        return set()
    numbers = _inquiry(evidence).feeding(k)
    events = (evidence.slices.history.events[number] for number in numbers)
    places = (place.where for event in events for place in event.reads)
    return {where[2] for where in places if where[0] == "attr"}


def _inquiry(evidence: Evidence) -> Inquiry:
    """Return the inquiry of some evidence, the same one each time."""
    if evidence.inquiry is None:
        assert evidence.slices is not None
        evidence.inquiry = Inquiry(evidence, evidence.slices)
    return cast(Inquiry, evidence.inquiry)


@dataclass(eq=False)
class Inquiry:
    """What the statements of a handwritten pass are held against."""

    evidence: Evidence
    slices: Slices
    _equal: dict[int, list[Moment]] = field(default_factory=dict)
    _feeding: dict[int, set[int]] = field(default_factory=dict)

    @property
    def events(self) -> list[Event]:
        """The statements as they ran."""
        return self.slices.history.events

    def suspects(self, k: int, finding: Any) -> list[Spot]:
        """Return where the k-th gradient may have its mistake from, the likeliest places first."""
        sink = self.sink(k)
        if sink is None:
            return []
        rule = finding.rule if finding is not None else None
        pool = self.statements(self.feeding(k))
        giver = self.giver(k, sink)
        left = self._left(k, pool, giver, finding)
        if finding is not None and finding.kind == "swapped":
            return [giver]
        made = self._first_wrong(k, left, pool, finding)
        if finding is not None and finding.kind in ("lacks_entry", "part"):
            made = next(iter(self._skipping(k)), made)
        ends = [*left[:1], *left[-1:]]
        order = [*ends[:1], made, *ends[1:]] if rule is None else [made, *ends]
        if rule == "upstream":  # it may be lost at the first step, or not come in at the last
            order = [*ends[:1], giver, *order]
        found = list(dict.fromkeys(place for place in order if place is not None)) or [giver]
        alone = finding is not None and len(finding.rows) < len(self.evidence.wrong)
        own = self._own(k, pool) if alone else None
        return [*found[:2], own] if own is not None and own not in found[:2] else found

    # -------------------- where a gradient comes out --------------------

    @cached_property
    def start(self) -> int:
        """The event with which the backward pass begins."""
        return self.slices.start_of(code_of(self.evidence.backward))

    def equal(self, k: int) -> list[Moment]:
        """Return the moments of the backward pass that have just the numbers of a gradient."""
        if k not in self._equal:
            value, shape = self.evidence.grads[k], np.shape(self.evidence.grads[k])
            mine = [m for m in self.evidence.seen if m.event is not None and m.event >= self.start]
            mine = [m for m in mine if m.value.shape == shape]
            same = [m for m in mine if self._asked(is_identical(m.value, value))]
            self._equal[k] = same or [m for m in mine if self._asked(close(m.value, value, 1e-9))]
        return self._equal[k]

    def _asked(self, answer: bool) -> bool:
        self.evidence.deadline.check()
        return answer

    def sink(self, k: int) -> Moment | None:
        """Return the moment at which the k-th gradient came to be."""
        grad = self.evidence.grads[k]
        if not isinstance(grad, np.ndarray | np.floating | float):
            return None
        equal = self.equal(k)
        fresh = [i for i, moment in enumerate(equal) if moment.fresh]
        if not fresh:
            return equal[0] if equal else None
        if np.ndim(grad) == 0:  # numbers have no identity: each name that holds one is fresh
            return equal[fresh[0]]
        passed = equal[fresh[-1] + 1 :]
        # What is the right gradient of something else is wrong only where it is handed on.
        innocent = np.size(grad) > 1 and bool(self.whole.which(grad, 1e-12))
        return passed[0] if innocent and passed and k in self.evidence.wrong else equal[fresh[-1]]

    def giver(self, k: int, sink: Moment) -> Spot:
        """Return the statement that first hands out the k-th gradient."""
        equal = self.equal(k)
        number = sink.event or 0
        later = [m for m in equal if m.name.startswith("return[") and (m.event or 0) >= number]
        event = self.events[(later[0] if later else sink).event or 0]
        return event.file, event.line

    def feeding(self, k: int) -> set[int]:
        """Return the events of the backward pass that the k-th gradient came from."""
        if k not in self._feeding:
            sink = self.sink(k)
            found = self.slices.feeding(sink) if sink is not None else set()
            self._feeding[k] = {number for number in found if number >= self.start}
        return self._feeding[k]

    # -------------------- what is cleared --------------------

    @cached_property
    def true(self) -> Known:
        """The upstream gradient, and the values of autograd's graph."""
        values = [v for v in self.evidence.true_values if np.size(v) <= LARGEST]
        return Known([np.asarray(value) for value in values])

    @cached_property
    def whole(self) -> Known:
        """The upstream gradient, and the whole gradients of the values of the forward pass."""
        graph = self.evidence.graph
        wholes = [call.value for _, call in graph.wholes] if graph is not None else []
        return Known([np.asarray(v) for v in (*self.evidence.upstream, *wholes)])

    @cached_property
    def forward(self) -> set[Spot]:
        """The lines of the forward pass."""
        graph = self.evidence.graph
        calls = graph.adjoints if graph is not None else ()
        found = {place for place in map(forward_line, calls) if place is not None}
        if self.evidence.upstream and np.size(self.evidence.upstream[0]) == 1:
            found |= self._of_loss()
        return found

    def _of_loss(self) -> set[Spot]:
        """Return the lines that the loss comes from, which one function gives with its gradient."""
        outermost = [m for m in self.evidence.seen if m.name == "return[0]" and not m.value.ndim]
        entries = self.slices.history.entries
        outermost = [
            m
            for m in outermost
            if m.event is not None and entries[self.events[m.event].frame].caller is None
        ]
        found = self.slices.feeding(outermost[-1]) if outermost else set()
        steps = (self.events[number] for number in found)
        return {(e.file, e.line) for e in steps if not gives_several(e.step)}

    @cached_property
    def right(self) -> set[Spot]:
        """The statements that feed right gradients."""
        numbers = {n for j in self.evidence.right for n in self.feeding(j)}
        events = (self.events[number] for number in numbers)
        return {(e.file, e.line) for e in events if not gives_several(e.step)}

    def statements(self, numbers: Iterable[int]) -> list[Spot]:
        """Return the places of events, without those that hold no mistake, in order."""
        found: dict[Spot, None] = {}
        for number in sorted(numbers, key=self._ends.__getitem__):
            event = self.events[number]
            if (event.file, event.line) not in found and not self._is_plain(event):
                found[event.file, event.line] = None
        return list(found)

    @cached_property
    def _ends(self) -> list[int]:
        """The event with which each statement ended: it waits for the functions it calls."""
        ends = list(range(len(self.events)))
        for number in reversed(ends):  # what a statement calls begins after it
            inner = [ends[event] for event, _ in self.events[number].returns]
            ends[number] = max(inner, default=number)
        return ends

    def _is_plain(self, event: Event) -> bool:
        """Tell whether a statement only unpacks, allocates, counts or hands on."""
        node = event.step.node if event.step is not None else None
        if not isinstance(node, _STATEMENTS):
            return True
        value = node.value
        if isinstance(node, ast.AugAssign) or any(not anew for _, anew in event.writes):
            return isinstance(node, ast.AugAssign) and isinstance(value, ast.Constant)
        if value is None or isinstance(node, ast.Expr) or not event.reads or counts(value):
            return True
        if isinstance(value, ast.Call):
            called = root_of(value.func).split(".")[-1]
            return called in _EMPTY or bool(event.returns and only_calls(value))
        if isinstance(node, ast.Return) and isinstance(value, ast.Name):
            return not self._gives_back(event, value.id)
        return not is_computing(value) and not self._copies(event, node)

    def _gives_back(self, event: Event, name: str) -> bool:
        """Tell whether a function returns just what it was given."""
        given = self.slices.history.entries[event.frame].given
        return name in given and id(given[name]) in event.objects

    def _copies(self, event: Event, node: ast.stmt) -> bool:
        """Tell whether a statement takes one gradient for another: ``dh = dout``."""
        value, targets = getattr(node, "value", None), targets_of(node)
        if not isinstance(value, ast.Name | ast.Attribute | ast.Subscript):
            return False
        if len(targets) != 1 or not isinstance(targets[0], ast.Name):
            return False
        born = self.slices.history.born
        arrays = [place.where[1] for place in event.reads if place.where[0] == "inside"]
        given = any(place.where in self._upstream for place in event.reads)
        return given or any(born.get(i, -1) > self.start for i in arrays)

    @cached_property
    def _upstream(self) -> set[Any]:
        """The parameters that the upstream gradient is given in, and its arrays."""
        code, found = code_of(self.evidence.backward), set()
        for number, entry in enumerate(self.slices.history.entries):
            for name, value in entry.given.items() if entry.code is code else ():
                if any(_is_same(value, up) for up in self.evidence.upstream):
                    found |= {("local", number, name), inside(value)}
        return found

    def _shown_right(self, rule: str | None) -> set[Spot]:
        """Return the statements whose values autograd has too, and those that feed them."""
        graph = self.evidence.graph
        if graph is None:
            return set()
        # Where a term is lacking, what is there is a part of the true value, not the whole of it.
        parts = _parts(graph) if rule == "term" else set()
        calls = [c for c in graph.calls if _is_known(c.value) and c not in parts]
        upstream = Known(self.evidence.upstream)
        calls = [c for c in calls if not upstream.which(c.value, 1e-12)]
        known = Known([c.value for c in calls])
        found: set[Spot] = set()
        for number, made in self._made().items():
            event = self.events[number]
            if gives_several(event.step) or any(map(self._is_wrong, made)):
                continue
            # A gradient that is equal to a forward value has lost the rest of its factors.
            lost = rule in ("value", "upstream") and _names_gradient(event)
            place = event.file, event.line

            def shown(value: Any, place: Spot = place, lost: bool = lost) -> bool:
                self.evidence.deadline.check()
                same = [calls[i] for i in known.which(value, 1e-9)]
                if lost:
                    return any(graph.carries(c) for c in same if c.gradient_of is not None)
                forward = [forward_line(c) for c in same if c.gradient_of is None]
                return len(forward) < len(same) or any(f != place for f in forward)

            if all(map(shown, made)):
                found.add(place)
        return found

    def _made(self) -> dict[int, list[Any]]:
        """Return what each statement of the backward pass made."""
        found: dict[int, list[Any]] = {}
        for moment in self.evidence.seen:
            if moment.event is not None and moment.event >= self.start and moment.fresh:
                self.evidence.deadline.check()
                found.setdefault(moment.event, []).append(moment.value)
        return found

    @cached_property
    def _named(self) -> set[Spot]:
        """The statements that write what is called a gradient, or take one for another."""
        return {
            (e.file, e.line)
            for e in self.events[self.start :]
            if _names_gradient(e) or (e.step is not None and self._copies(e, e.step.node))
        }

    def _is_wrong(self, value: Any) -> bool:
        bad = (self.evidence.grads[j] for j in self.evidence.wrong)
        return any(b is not None and is_identical(value, np.asarray(b)) for b in bad)

    # -------------------- what is left --------------------

    def _skipping(self, k: int) -> list[Spot]:
        """Return the heads of loops that do not count from zero to a plain end."""
        events = [self.events[number] for number in sorted(self.feeding(k))]
        return [(e.file, e.line) for e in events if e.step is not None and skips(e.step.node)]

    def _left(self, k: int, pool: list[Spot], giver: Spot, finding: Any) -> list[Spot]:
        """Return the statements that feed wrong gradients and no right one."""
        rule = finding.rule if finding is not None else None
        pool = [place for place in pool if place not in self.forward] or pool
        open_ones = [place for place in pool if place not in self.right]
        if pool and not open_ones:
            return [giver]
        shown = self._shown_right(rule)
        left = [place for place in open_ones if place not in shown] or open_ones
        if len(left) == len(pool):
            left = [place for place in left if place in self._named] or left
        if rule == "layout":
            return left
        for rows in (self.evidence.wrong, finding.rows if finding is not None else []):
            common = set(left)
            for j in rows:
                if j != k and (fed := self.statements(self.feeding(j))):
                    common &= set(fed)
            if common:
                return [place for place in left if place in common]
        return left

    def _own(self, k: int, pool: Sequence[Spot]) -> Spot | None:
        """Return the last statement that feeds the k-th gradient and no other."""
        others: set[Spot] = set()
        for j in (*self.evidence.wrong, *self.evidence.right):
            if j != k:
                others |= set(self.statements(self.feeding(j)))
        several = {(e.file, e.line) for e in self.events if gives_several(e.step)}
        own = [place for place in pool if place not in others | self.forward | several]
        return own[-1] if own else None

    def _first_wrong(
        self, k: int, left: Sequence[Spot], pool: Sequence[Spot], finding: Any
    ) -> Spot | None:
        """Return the first of the statements that makes a value which the mistake makes."""
        grad = self.evidence.grads[k]
        products = [*(finding.products if finding is not None else []), grad]
        found = self._first_of(products, [p for p in pool if p not in self.forward])
        if finding is not None and finding.rule == "factor":
            return self._first_of([*products, *self._scaled(k)], left) or found
        return found

    def _first_of(self, products: Sequence[Any], places: Sequence[Spot]) -> Spot | None:
        tolerance = max(self.evidence.tolerance, 1e-9)
        some = [p for p in products if 1 < np.size(p) <= LARGEST and np.any(p)]
        wanted = Known([np.asarray(p) for p in some if not self.true.which(p, tolerance)])
        for moment in self.evidence.seen:
            if moment.event is None or moment.event < self.start:
                continue
            self.evidence.deadline.check()
            event = self.events[moment.event]
            if (event.file, event.line) in places and wanted.which(moment.value, tolerance):
                return event.file, event.line
        return None

    def _scaled(self, k: int) -> list[Any]:
        """Return the backward values times the factor by which the k-th gradient is off."""
        g, h = np.asarray(self.evidence.automatic[k]), np.asarray(self.evidence.grads[k])
        graph = self.evidence.graph
        norm = float(np.sum(g * g))
        if graph is None or g.shape != h.shape or norm == 0:
            return []
        c = float(np.sum(g * h)) / norm
        return [c * np.asarray(call.value) for call in graph.backward]


def _parts(graph: BackwardGraph) -> set[Call]:
    """Return the calls that are terms of a gradient."""
    found: set[Call] = set()
    for _, whole in graph.wholes:
        pending = [whole]
        while pending:
            call = pending.pop()
            if is_sum_of_paths(call):
                pending += [arg for arg in call.args[1:] if isinstance(arg, Call)]
            found |= {call} - {whole}
    return found.difference(whole for _, whole in graph.wholes)


def _is_same(value: Any, upstream: Any) -> bool:
    number = isinstance(value, np.ndarray | np.floating | float | int)
    return number and is_identical(value, upstream)


def _is_known(value: Any) -> bool:
    array = np.asarray(value)
    return 1 < array.size <= LARGEST and array.dtype.kind == "f" and bool(np.isfinite(array).all())


def _names_gradient(event: Event) -> bool:
    names = event.step.writes if event.step is not None else ()
    return any(n.split(".")[-1].lower().startswith(("d", "grad", "g_")) for n in names)
