"""What a handwritten backward pass did, held against all that is known to be true."""

from __future__ import annotations

import ast
import re
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from itertools import islice
from types import CodeType
from typing import Any

import numpy as np

from ...recording import Call, Recording, name_of
from ...validation import Array
from ..blocks import close, inner, largest
from ..guard import NEVER, Deadline
from ..reference.graph import is_number
from ..source import Place, code_of, forward_line, inner_codes, is_computing, root_of, targets_of
from .known import Known, is_known, numbers_of, slopes_of
from .trail import Event, Moment, Trail

_EMPTY = {"zeros", "zeros_like", "empty", "empty_like", "arange", "range", "len", "print"}
_SIZES = {"shape", "size", "ndim", "dtype"}
_STATEMENTS = ast.Assign | ast.AnnAssign | ast.AugAssign | ast.Return | ast.Expr
_KNOWN = 0.7  # what makes a true value is that much likelier
_SOUND = 0.4  # what makes a whole gradient as it is, is that much less likely
_COMMON = {0.0, 1.0, 2.0, -1.0, -2.0, 0.5, -0.5}
_NUMBERS = 8  # that the forward pass names
Key = tuple[Place, str]  # a statement, or a part of what it gives


Elsewhere = tuple[Callable[[], Sequence[Any]], Sequence[Sequence[Any]]]


@dataclass
class Evidence:
    """What the place of a mistake is told from: both sides' gradients, and how each came about."""

    names: Sequence[str]
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
    run: Callable[[], Sequence[Any]]  # both passes once more, from the start
    floors: Sequence[float]  # up to which size the gradients are rounding
    tolerance: float = 1e-9
    deadline: Deadline = NEVER
    ideal: Sequence[Any] = ()  # the true gradients without a small constant, where there is one
    # The backward pass for other values, and for inputs of other lengths, each with its truths.
    elsewhere: Callable[[], Iterable[Elsewhere]] = lambda: ()
    stays: Callable[[], bool] = lambda: True  # runs forward: are the outputs what they were?

    found: Any = None  # what has been made of it


class Ran:
    """The statements of a handwritten backward pass, held against what is known to be true."""

    def __init__(self, evidence: Evidence, trail: Trail) -> None:
        self.evidence, self.trail, self.events = evidence, trail, trail.events
        self.start = trail.start_of(code_of(evidence.backward))
        self.moments = [m for m in trail.moments if m.event >= self.start]
        self.made: dict[int, list[Array]] = {}  # by event, in the order of the first thing made
        self.handed: dict[int, list[Array]] = {}  # what was there before
        for m in self.moments:
            (self.made if m.fresh else self.handed).setdefault(m.event, []).append(m.value)
        self.calls = evidence.recording.calls if evidence.recording is not None else []
        self.equal, self.feeding = cache(self._equal), cache(self._feeding)
        self.pool, self.common = cache(self._pool), cache(self._common)

    # -------------------- what is known to be true --------------------

    @cached_property
    def wholes(self) -> list[Call]:
        """The calls that make whole gradients, not terms of them, in order."""
        made = self.evidence.recording
        gradients = [*made.grads, *made.adjoints.values()] if made is not None else []
        whole = {call for call in gradients if isinstance(call, Call)}
        return [call for call in self.calls if call in whole]

    @cached_property
    def upstream(self) -> Known:
        """The gradients that are handed to the backward pass."""
        return Known(self.evidence.upstream)

    @cached_property
    def whole(self) -> Known:
        """Those, and whole gradients."""
        return Known([*self.evidence.upstream, *(call.value for call in self.wholes)])

    @cached_property
    def scaled(self) -> Known:
        """Multiples of whole gradients."""
        return Known([call.value for call in self.wholes], scaled=True)

    @cached_property
    def before(self) -> Known:
        """What the forward pass is given, and what it makes."""
        made = [call.value for call in self.calls if call.gradient_of is None]
        return Known([*self.evidence.values, *made])

    @cached_property
    def true(self) -> Known:
        """What either pass is given, what it makes, and by what it multiplies gradients."""
        made = [call.value for call in self.calls]
        slopes = slopes_of([call.value for call in self.wholes])
        return Known([*self.evidence.upstream, *self.evidence.values, *made, *slopes])

    # -------------------- the way of one gradient --------------------

    def _equal(self, k: int) -> list[Moment]:
        """Return the moments that have just the numbers of a gradient."""
        value = self.evidence.grads[k]
        self.evidence.deadline.check()
        mine = [m for m in self.moments if value is not None and m.value.shape == np.shape(value)]
        same = [m for m in mine if np.array_equal(m.value, value)]
        same = same or [m for m in mine if close(m.value, value, 1e-9)]
        return same or [m for m in mine if self._updates(m, k)]

    def _updates(self, moment: Moment, k: int) -> bool:
        """Tell whether it is the k-th argument less a multiple of its gradient."""
        change = moment.value - self.evidence.values[k]
        gradient = np.asarray(self.evidence.grads[k])
        rate = inner(change.ravel(), gradient.ravel()) / (inner(gradient, gradient) or 1.0)
        return rate != 0 and close(change, rate * gradient, 1e-6)

    def sink(self, k: int) -> Moment | None:
        """Return the moment at which the k-th gradient came to be."""
        grad, equal = self.evidence.grads[k], self.equal(k)
        fresh = [i for i, moment in enumerate(equal) if moment.fresh]
        if not fresh:
            return equal[0] if equal else None
        if np.ndim(grad) == 0:  # numbers have no identity: each name that holds one is fresh
            return equal[fresh[0]]
        handed = equal[fresh[-1] + 1 :]
        if named := [i for i in fresh if self._is_named(equal[i], k)]:
            return equal[named[-1]]
        # What is the right gradient of something else is wrong only where it is handed on.
        innocent = np.size(grad) > 1 and self.whole.has(grad, 1e-12)
        return handed[0] if innocent and handed and k in self.evidence.wrong else equal[fresh[-1]]

    def _is_named(self, moment: Moment, k: int) -> bool:
        """Tell whether a statement names what it makes after the k-th argument: ``dW`` of W."""
        step, name = self.events[moment.event].step, self.evidence.names[k].split(".")[-1]
        texts = map(ast.unparse, step.targets if step is not None else ())
        return any(re.fullmatch(rf".*d_?(.*\W)?{re.escape(name)}\W*", text) for text in texts)

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
        found = {n: (e.place, e.part) for n, e in events.items() if self._computes(n, e)}
        return {n: key for n, key in found.items() if not self.is_forward(n)} or found

    def _computes(self, number: int, event: Event) -> bool:
        """Tell whether an event does more than unpack, allocate, count or hand on."""
        node, made = event.step and event.step.node, self.made.get(number, ())
        value: ast.AST | None = getattr(node, "value", None)
        if not isinstance(node, _STATEMENTS) or value is None:
            return False
        if isinstance(node, ast.AugAssign):
            return not isinstance(value, ast.Constant) or any(array.ndim for array in made)
        if isinstance(value, ast.Lambda) or _is_unpacking(node):
            return False
        if not made:
            return self._copies(number, event)
        computes = is_computing(node) or any(array.ndim for array in made)
        return computes and not _is_empty(value)

    def _copies(self, number: int, event: Event) -> bool:
        """Tell whether a statement takes one gradient for another: ``dh = dout``."""
        handed, targets = self.handed.get(number, []), event.step.targets if event.step else []
        names = all(isinstance(target, ast.Name) for target in targets)
        if event.copied is None or len(handed) != 1 or not names:
            return False
        if self.before.has(handed[0], 0.0) and not self.upstream.has(handed[0], 0.0):
            return False
        return event.copied >= self.start or self.upstream.has(handed[0], 0.0)

    # -------------------- what is innocent --------------------

    @cached_property
    def forward(self) -> set[Place]:
        """The statements of the forward pass, also where one function gives loss and gradient."""
        adjoints = self.evidence.recording.adjoints if self.evidence.recording is not None else ()
        found = {place for place in map(forward_line, adjoints) if place is not None}
        given = [
            m.event
            for m in self.moments
            if m.name == "return[0]" and not m.value.ndim
            if self.trail.runs[self.events[m.event].run].caller is None
        ]
        if given and self.evidence.upstream and np.size(self.evidence.upstream[0]) == 1:
            found |= {self.events[number].place for number in self.trail.feeding(given[-1])}
        return found

    @cached_property
    def forward_runs(self) -> set[int]:
        """The runs of functions that do what is a part of the forward pass."""
        found = {event.run for event in self.events if event.place in self.forward}
        for sink in map(self.sink, range(len(self.evidence.grads))):
            inside = self.events[sink.event].run if sink is not None else None
            while inside is not None:  # who gives a gradient is no part of the forward pass
                found.discard(inside)
                caller = self.trail.runs[inside].caller
                inside = self.events[caller].run if caller is not None else None
        for number, run in enumerate(self.trail.runs):
            if run.caller is not None and self.events[run.caller].run in found:
                found.add(number)
        return found

    @cached_property
    def ahead(self) -> int:
        """The event at which the last value of the forward pass is made, where it is made here."""
        calls = (call for call in reversed(self.calls) if call.gradient_of is None)
        made = (numbers_of(call.value) for call in calls)
        floats = (v for v in made if v is not None and v.dtype.kind == "f" and v.any())
        for value in islice(floats, 8):
            for m in self.moments:
                if m.fresh and m.value.shape == value.shape and close(m.value, value, 1e-9):
                    return m.event
        return -1

    def is_forward(self, number: int) -> bool:
        """Tell whether an event is one of the forward pass, or takes what that gives."""
        event = self.events[number]
        given = {self.events[n].run for n in event.returns}
        value = getattr(event.step and event.step.node, "value", None)
        is_call = isinstance(value, ast.Call) and bool(given) and given <= self.forward_runs
        return event.place in self.forward or event.run in self.forward_runs or is_call

    @cached_property
    def telling(self) -> list[int]:
        """The right gradients that are not zero whatever they are made of."""
        e = self.evidence
        return [k for k in e.right if largest(e.automatic[k]) > e.floors[k]]

    @cached_property
    def right(self) -> set[Key]:
        """The statements that feed right gradients."""
        return {key for j in self.telling for key in self.pool(j)}

    def _common(self, rows: tuple[int, ...]) -> set[Key]:
        """Return the statements that feed all of some gradients, of which there are any."""
        pools = [set(pool) for pool in map(self.pool, rows) if pool]
        return set.intersection(*pools) if pools else set()

    def values_of(self, calls: Iterable[Call]) -> Known:
        """Return the values of calls, but for numbers and what is only the upstream gradient."""
        values = (call.value for call in calls if is_known(call.value, least=2))
        return Known(value for value in values if not self.upstream.has(value, 1e-12))

    def gain_from(self, before: Any) -> Callable[[Any], float]:
        """Return how much likelier a change is that makes another value of a known one."""
        was_array = _is_array(before)
        was_whole, was_scaled = (
            was_array and some.has(before, 1e-9) for some in (self.whole, self.scaled)
        )

        def gain(value: Any) -> float:
            if not was_array or not _is_array(value) or np.array_equal(before, value):
                return 0.0
            true = self.whole.has(value, 1e-9) or (not was_whole and self.true.has(value, 1e-9))
            true = true or (not was_scaled and self.scaled.has(value, 1e-9))
            if true and np.any(value) and not self.all_made.has(value, 1e-9):
                return _KNOWN
            return -_SOUND * (was_whole and not self.scaled.has(value, 1e-9))

        return gain

    @cached_property
    def all_made(self) -> Known:
        """All that the backward pass makes."""
        return Known(value for values in self.made.values() for value in values)

    def terms(self) -> set[Call]:
        """Return the calls that are terms of a gradient in which several paths meet."""
        pending, found = list(self.wholes), set()
        while pending:
            call = pending.pop()
            if name_of(call.fun) == "add" and type(call.args[0]).__name__.endswith("VSpace"):
                terms = [arg for arg in call.args[1:] if isinstance(arg, Call)]
                found |= set(terms)
                pending += terms
        return found.difference(self.wholes)

    @cached_property
    def outer(self) -> dict[CodeType, CodeType]:
        """The function in which each one without a name stands, by their codes."""
        named = {run.code for run in self.trail.runs if run.code.co_name[:1] != "<"}
        pairs = ((inner, code) for code in named for inner in inner_codes(code))
        return {inner: code for inner, code in pairs if inner.co_name[:1] == "<"}

    @cached_property
    def numbers(self) -> dict[str, float]:
        """The numbers that the forward pass names, and few others do, by their texts."""
        before = (call for call in self.calls if call.gradient_of is None)
        named = {float(arg) for call in before for arg in call.args if is_number(arg)}
        return {repr(number): number for number in sorted(named - _COMMON)[:_NUMBERS]}

    @cached_property
    def conditions(self) -> dict[int, list[int]]:
        """The conditions on which an event came, each by the event that asked it."""
        last: dict[tuple[int, int], int] = {}
        found: dict[int, list[int]] = {}
        for number, event in enumerate(self.events):
            if event.step is not None:
                last[event.run, event.step.line] = number
                lines = [block.lineno for block in event.step.blocks if isinstance(block, ast.If)]
                asked = [last.get((event.run, line), -1) for line in lines]
                found[number] = [other for other in asked if 0 <= other < number]
        return found

    @cached_property
    def within(self) -> Counter[int]:
        """How many statements run while one does, by event: those of the functions it calls."""
        counts, found = Counter(event.run for event in self.events), Counter[int]()
        for number in reversed(range(len(self.trail.runs))):
            caller = self.trail.runs[number].caller
            if caller is not None:
                found[caller] += counts[number]
                counts[self.events[caller].run] += counts[number]
        return found


def _is_array(value: Any) -> bool:
    return isinstance(value, np.ndarray) and is_known(value, 2)


def _is_empty(value: ast.AST) -> bool:
    """Tell whether an expression only allocates, or counts."""
    if isinstance(value, ast.Tuple):
        return all(map(_is_empty, value.elts))
    if isinstance(value, ast.BinOp) and isinstance(value.op, ast.Mult):  # 0 * W
        return "0" in map(ast.unparse, (value.left, value.right))
    while isinstance(value, ast.Subscript):
        value = value.value
    called = root_of(value.func).split(".")[-1] if isinstance(value, ast.Call) else ""
    return called in _EMPTY or (isinstance(value, ast.Attribute) and value.attr in _SIZES)


def _is_unpacking(node: Any) -> bool:
    """Tell whether a statement only takes a thing from where it is: ``A = cache["A"]``."""
    value = node.value
    is_name = all(isinstance(target, ast.Name) for target in targets_of(node))
    is_part = isinstance(value, ast.Subscript) and isinstance(value.slice, ast.Constant)
    return is_name and is_part and isinstance(value.value, ast.Name | ast.Attribute)


def gradient_of(name: str) -> str:
    """Return of what a variable is the gradient, by its name: of `h` for ``dh`` or ``grad_h``."""
    found = re.fullmatch(r"(d|d_|grad_?|g_)(\w+)", name.split(".")[-1], re.IGNORECASE)
    return found[2] if found else ""
