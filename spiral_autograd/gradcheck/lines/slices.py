"""From which statements a value came about, as they ran: through helpers, layers and containers."""

from __future__ import annotations

import ast
from bisect import bisect_left
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from operator import itemgetter
from types import CodeType
from typing import Any

import numpy as np

from ..guard import NEVER, Deadline
from ..source import Step
from .moments import Event, History, Moment
from .uses import Place, Where, references, uses_of

_ANY = object()  # any key


@dataclass
class Slices:
    """The history of a run, to be asked what fed what.

    Attributes
    ----------
    history : History
    deadline : Deadline
    """

    history: History
    deadline: Deadline = NEVER
    _writers: dict[tuple[Where, Any], list[tuple[int, Any, bool]]] = field(default_factory=dict)
    _places: set[tuple[str, int]] = field(default_factory=set)

    def __post_init__(self) -> None:
        for number, event in enumerate(self.history.events):
            for place, anew in event.writes:
                writing = (number, place.key, anew)
                for which in {(place.where, place.key), (place.where, _ANY)}:
                    self._writers.setdefault(which, []).append(writing)

    def start_of(self, code: CodeType | None) -> int:
        """Return the first event of the first run of a function; 0 where it did not run."""
        return next((entry.first for entry in self.history.entries if entry.code is code), 0)

    def ran(self, place: tuple[str, int]) -> bool:
        """Tell whether the statement that begins at a line ran."""
        if not self._places:
            self._places.update((event.file, event.line) for event in self.history.events)
        return place in self._places

    def feeding(self, moment: Moment) -> set[int]:
        """Return the events that a value came from, that which made it included."""
        if moment.event is None:
            return set()
        event = self.history.events[moment.event]
        found = {moment.event}
        pending = list(self._asked(moment.event, self._part(event, moment)))
        met: set[tuple[int, Place]] = set(pending)

        def ask(more: Iterable[tuple[int, Place]]) -> None:
            for question in more:
                if question not in met:
                    met.add(question)
                    pending.append(question)

        if moment.fresh and not moment.name.startswith("return["):
            ask(self._returned(moment.event, found))
        while pending:
            self.deadline.check()
            number, place = pending.pop()
            writing = self._last_before(number, place)
            if writing is None:
                ask(self._given(number, place, found))
                continue
            writer, key, anew = writing
            ask(self._through(writer, place, found))
            if not anew or key not in (None, place.key):  # it has kept some of what was there
                ask([(writer, place)])
        return found

    def _asked(self, number: int, places: Iterable[Place]) -> Iterator[tuple[int, Place]]:
        return ((number, place) for place in places)

    def _part(self, event: Event, moment: Moment) -> Iterable[Place]:
        """Return what is read for that part of a statement which a value is."""
        part = part_of(event.step, moment.name)
        return event.reads if part is None else self._reads_of(event, part)

    def _reads_of(self, event: Event, part: ast.AST) -> list[Place]:
        # The places that a part reads were looked up with those of the whole, in the same order.
        assert event.step is not None
        texts = {ast.dump(node) for node in references(part)}
        nodes = uses_of(event.step).reads
        return [
            place
            for node, places in zip(nodes, event.by_node, strict=False)
            if ast.dump(node) in texts
            for place in places
        ]

    def _last_before(self, number: int, place: Place) -> tuple[int, Any, bool] | None:
        """Return the last event that may have written what another reads, its key, if anew."""
        found = None
        for key in [_ANY] if place.key is None else [place.key, None]:
            writings = self._writers.get((place.where, key), [])
            i = bisect_left(writings, number, key=itemgetter(0))
            if i and (found is None or writings[i - 1][0] >= found[0]):
                found = writings[i - 1]
        return found

    def _through(self, writer: int, place: Place, found: set[int]) -> Iterator[tuple[int, Place]]:
        """Yield what a writing event asks for in turn; what a function gives, it made."""
        event = self.history.events[writer]
        held = next((i for p, i in event.made.items() if p.where == place.where), None)
        for inner, ids in event.returns:
            if held is not None and held in ids:
                found.add(inner)
                yield from self._given_back(inner, ids.index(held) - 1, found)
                return
        found.add(writer)
        if held in event.objects:  # it was there before: one of several that are unpacked
            yield from self._asked(writer, event.objects[held])
            return
        yield from self._asked(writer, event.reads)
        yield from self._returned(writer, found)

    def _returned(self, number: int, found: set[int]) -> Iterator[tuple[int, Place]]:
        for inner, _ in self.history.events[number].returns:
            found.add(inner)
            yield from self._given_back(inner, -1, found)

    def _given_back(self, inner: int, index: int, found: set[int]) -> Iterator[tuple[int, Place]]:
        """Yield what a return statement asks for, of one part of it where that is told."""
        event = self.history.events[inner]
        part = part_of(event.step, f"return[{index}]") if index >= 0 else None
        places = event.reads if part is None else self._reads_of(event, part)
        yield from self._asked(inner, places)
        if event.returns:
            yield from self._returned(inner, found)

    def _given(self, number: int, place: Place, found: set[int]) -> Iterator[tuple[int, Place]]:
        """Yield what the caller asks for, for an argument of a function."""
        kind, *rest = place.where
        if kind not in ("local", "cell"):
            return
        entry = self.history.entries[self.history.events[number].frame]
        name = rest[-1]
        if name not in entry.given or entry.caller is None:
            return
        caller = self.history.events[entry.caller]
        same = caller.objects.get(id(entry.given[name]))
        if same is None:
            found.add(entry.caller)
        yield from self._asked(entry.caller, caller.reads if same is None else same)


def part_of(step: Step | None, name: str) -> ast.expr | None:
    """Return the expression for one part of what a statement gives, such as "return[1]"."""
    value = getattr(step.node, "value", None) if step is not None else None
    if not isinstance(step and step.node, ast.Return | ast.Assign):
        return None
    root, _, rest = name.partition("[")
    if isinstance(step and step.node, ast.Return) and root != "return":
        return None
    keys = [key.rstrip("]").strip("'\"") for key in rest.split("[")] if rest else []
    if root == "return" and not isinstance(value, ast.Tuple | ast.List):
        keys = keys[1:]
    for key in keys:
        if isinstance(value, ast.Tuple | ast.List) and key.isdigit():
            value = value.elts[int(key)] if int(key) < len(value.elts) else None
        elif isinstance(value, ast.Dict):
            names = [getattr(k, "value", None) for k in value.keys]
            value = value.values[names.index(key)] if key in names else None
        else:
            return None
    return value if keys else None


def gives_several(step: Step | None) -> bool:
    """Tell whether a statement makes several values, of which some may be right."""
    value = getattr(step.node, "value", None) if step is not None else None
    returned = step is not None and isinstance(step.node, ast.Return)
    return isinstance(value, ast.List | ast.Dict) or (returned and isinstance(value, ast.Tuple))


def is_identical(ours: Any, theirs: Any) -> bool:
    """Tell whether two arrays have the same shape and the same numbers."""
    return np.shape(ours) == np.shape(theirs) and np.array_equal(ours, theirs)
