"""Where in the reader's code what a row says stands: asked once the verdicts stand."""

from __future__ import annotations

import ast
import linecache
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from functools import cached_property
from typing import Any

import numpy as np

from ..validation import Array
from .diagnosis.case import Case
from .diagnosis.other_settings import There, at_other_settings
from .diagnosis.other_sizes import at_other_sizes
from .finding import Finding, found
from .guard import CheckError, Deadline, OutOfTime, guarded
from .lines.blame import blame_of
from .lines.ran import Elsewhere, Evidence
from .lines.remedy import Mended, derivatives_of, texts_of
from .lines.trail import Trail, follow
from .lines.unset import makes_empty, unset_at
from .lines.verdicts import kink_places, state_places
from .source import Place, code_of, forward_line, is_readable
from .subject.subject import MISSING, differs
from .verdict.rows import Comparison

Places = tuple[Place, ...]
UNREADABLE = found("unreadable")
_MAY_BE_UNSET = ("second_call", "third_call", "no_pattern", "not_finite")  # what was there before


class Where:
    """Finds the lines of a check's rows, with the time for that, and for why."""

    def __init__(self, c: Comparison, budget: float) -> None:
        self.c = c
        self.deadline = Deadline.after(0.8 * budget)  # when to stop asking why
        self.until = Deadline.after(budget + 0.2)  # when to stop asking where
        self.ideal: Sequence[Array] = ()  # the true gradients without a small constant
        self.cases: Sequence[Case] = ()  # of what is asked for
        self._evidence: Evidence | None = None

    @cached_property
    def trail(self) -> Trail | None:
        """The statements of the handwritten pass as they ran, with what they made."""
        if not self.c.small:
            return None
        trail, session = Trail(), self.c.subject.session
        try:
            with session.fresh():
                follow(self.c.backward, trail, self.until)
        except CheckError:  # what ran until then is told from
            pass
        finally:
            session.restore()
        return trail if trail.is_whole and trail.moments else None

    def evidence(self, wrong: Sequence[int]) -> Evidence:
        """Return what the place of a mistake is told from, where these rows are wrong."""
        if self._evidence is None or self._evidence.wrong != wrong:
            c = self.c
            forward, backward = c.subject.forward_code, c.subject.backward_code
            self._evidence = Evidence(
                names=c.subject.names,
                grads=[None if g is MISSING else g for g in c.grads],
                automatic=c.reference.grads,
                wrong=list(wrong),
                right=[k for k in c.right if k not in wrong],
                trail=self.trail,
                values=c.subject.values,
                upstream=c.upstream,
                recording=None if c.graph is None else c.graph.recording,
                forward=forward[0] if forward else None,
                backward=backward[0] if backward else None,
                run=c.rerun,
                floors=c.floors,
                tolerance=c.tolerance,
                deadline=self.until,
                ideal=self.ideal,
                elsewhere=self._others,
                stays=self._outputs_stay,
            )
        return self._evidence

    @cached_property
    def elsewhere(self) -> Comparison | None:
        """The same check for inputs of other lengths; None where there may be none."""
        return at_other_sizes(self.c, self.deadline)

    def _others(self) -> Iterator[Elsewhere]:
        """Yield the backward pass at a second point and for other sizes, if any, with the truth."""
        seconds = [second for case in self.cases if (second := case.second()) is not None]
        if seconds and seconds[0].rerun is not None:
            yield seconds[0].rerun, [second.automatic for second in seconds]
        if self.elsewhere is not None:
            yield self.elsewhere.rerun, [self.elsewhere.reference.grads]
        yield from ((there.run, [there.true]) for there in self.other_settings)

    def gradients_at_other_settings(self) -> list[tuple[Sequence[Any], Sequence[Any]]]:
        """Return the handwritten and the true gradients where only a setting is another."""
        return [(t.run(), t.true) for t in self.other_settings if t.has_same_outputs]

    @cached_property
    def other_settings(self) -> list[There]:
        """The backward pass where a setting is another."""
        with suppress(CheckError, OutOfTime):
            return [*at_other_settings(self.c, self.until)]
        return []

    def _outputs_stay(self) -> bool:
        """Run the forward pass once more; tell whether its outputs are what they were."""
        subject = self.c.subject
        with subject.session.fresh():
            return not differs(subject.forward(), subject.outputs, 1e-12)

    def places(self, where: Callable[..., Places], k: int, *why: object) -> Places:
        """Return places in the reader's code; none where its source cannot be read."""
        found: Places = ()
        with guarded("the search for the lines", self.c.notes):
            evidence = self.evidence(sorted({k, *self.c.wrong}))
            self.until.check()
            try:
                found = tuple(filter(is_readable, where(evidence, k, *why)))
            finally:
                self.c.subject.session.restore()
            code = code_of(evidence.backward)
            hidden = code is not None and not is_readable((code.co_filename, code.co_firstlineno))
            if hidden and not found and UNREADABLE not in self.c.notes:
                self.c.notes.append(UNREADABLE)
        return found

    def sets(self, lines: Sequence[Place]) -> bool:
        """Tell whether one of some lines of the backward pass sets what it does not add to."""
        own = [event for event in self.trail.events if event.place in lines] if self.trail else []
        steps = (event.step for event in own if event.place not in self._recorded)
        return any(step is not None and isinstance(step.node, ast.Assign) for step in steps)

    def remedy(
        self,
        k: int,
        cases: Sequence[Case],
        beside: Sequence[int] = (),
        which: Callable[[Mended], bool] = bool,
    ) -> Finding | None:
        """Return what in place of a statement makes a gradient right, elsewhere too.

        With `beside` those that nothing else explains as well; of its lines all are to be `which`.
        """
        right, texts, derivatives = False, [""], list[tuple[str, str]]()
        with guarded("the search for the lines", self.c.notes):
            blame = blame_of(self.evidence(sorted({k, *self.c.wrong})))
            remedy = blame.remedy(k, beside) if blame is not None else None
            told = np.size(self.c.grads[k]) > 1 or any(case.second() for case in cases)
            if blame is not None and remedy and told and all(map(which, remedy)):
                is_here = any(mended.number is not None for mended in remedy)  # and said to be so
                right = is_here or blame.mending.holds(remedy, frozenset((k, *beside)))
                texts, derivatives = texts_of(remedy), derivatives_of(remedy, self.c.graph)
        self.c.subject.session.restore()
        said = {"statement": texts[0], "others": texts[1:], "derivatives": derivatives}
        said |= {"rule": "value"} if derivatives else {}
        return found("right_with", **said) if right else None

    def of_verdicts(self) -> None:
        """Write into the rows where kinks and small constants stand."""
        for k, row in self.c.rows.items():
            if row.rule == "kink":
                self.c.change(k, lines=self.places(kink_places, k))
            elif row.verdict == "idealised":
                lines = map(forward_line, self.c.constants[k])
                self.c.change(k, lines=tuple(dict.fromkeys(filter(None, lines)))[:2])

    def of_forward(self) -> None:
        """Write into the rows which of their lines are of the forward pass."""
        c = self.c
        with_lines = [k for k, row in c.rows.items() if row.lines]
        if not with_lines:
            return
        forward, backward = map(_lines, (c.subject.forward_code, c.subject.backward_code))
        for k in with_lines:
            own = [p for p in c.rows[k].lines if p in forward or p in self._recorded - backward]
            c.change(k, of_forward=tuple(own))

    def of_unset(self) -> None:
        """Write into the rows which of them come of what was never set, and where that is."""
        rows = {k: {what.kind for what in row.findings} for k, row in self.c.rows.items()}
        doubtful = [k for k, kinds in rows.items() if not kinds.isdisjoint(_MAY_BE_UNSET)]
        if not doubtful or self.trail is None or not makes_empty(self.trail):
            return
        for k in doubtful:
            row, there = self.c.rows[k], None
            with guarded("the search for the lines", self.c.notes):
                there = unset_at(self.c.rerun, k)
            if there is not None:
                place, count = there
                text = linecache.getline(*place).strip()
                said = found("unset", count=count, of=np.size(self.c.grads[k]), text=text)
                other = [what for what in row.findings if what.kind not in _MAY_BE_UNSET]
                lines = tuple(dict.fromkeys((*row.lines, place)))
                self.c.change(k, findings=(*other, said), lines=lines)

    @cached_property
    def _recorded(self) -> set[Place | None]:
        """The lines of the forward pass that made something."""
        calls = [] if self.c.graph is None else self.c.graph.recording.calls
        return {forward_line(call) for call in calls if call.gradient_of is None}

    def of_states(self) -> None:
        """Write into the rows where what changes from call to call stands."""
        for k, row in self.c.rows.items():
            if row.rule == "state" and row.findings[-1].kind != "unset":
                kind = row.findings[-1].kind
                kind = "accumulates" if kind == "grows" else kind
                self.c.change(k, lines=self.places(state_places, k, kind))


def _lines(functions: Sequence[Callable[..., object]]) -> set[Place]:
    """Return the lines of the reader's functions."""
    codes = list(filter(None, map(code_of, functions)))
    return {(code.co_filename, line) for code in codes for *_, line in code.co_lines() if line}
