"""Where in the reader's code what a row says stands: asked once the verdicts stand."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cached_property
from typing import Any

from .finding import found
from .guard import CheckError, Deadline, guarded
from .lines.lines import Evidence, kink_places, state_places
from .lines.moments import Moments, moments
from .lines.slices import Slices
from .reference.backward_graph import BackwardGraph
from .source import Place, code_of, forward_line, is_readable
from .subject.subject import MISSING
from .verdict.comparison import Comparison

Places = tuple[Place, ...]
UNREADABLE = found("unreadable")


class Where:
    """Finds the lines of a check's rows, with the time for that, and for why."""

    def __init__(self, c: Comparison, budget: float) -> None:
        self.c = c
        self.deadline = Deadline.after(0.8 * budget)  # when to stop asking why
        self.until = Deadline.after(budget + 0.2)  # when to stop asking where
        self._evidence: Evidence | None = None

    @cached_property
    def backward_graph(self) -> BackwardGraph | None:
        """autograd's backward graph, for the diagnosis."""
        return None if self.c.graph is None else BackwardGraph(self.c.graph.recording)

    @cached_property
    def seen(self) -> Moments:
        """What the lines of the handwritten pass make, in order."""
        if not self.c.small:
            return Moments()
        found, session = Moments(), self.c.subject.session
        try:
            with session.fresh():
                moments(self.c.backward, found, self.until)
        except CheckError:  # what ran until then is told from
            pass
        finally:
            session.restore()
        return found if found.is_whole else Moments()

    def evidence(self, wrong: Sequence[int]) -> Evidence:
        """Return what the place of a mistake is told from, where these rows are wrong."""
        if self._evidence is None or self._evidence.wrong != wrong:
            c, graph = self.c, self.backward_graph
            calls = [] if graph is None else [*graph.forward, *graph.backward]
            forward, backward = c.subject.forward_code, c.subject.backward_code
            self._evidence = Evidence(
                grads=[None if g is MISSING else g for g in c.grads],
                automatic=c.reference.grads,
                wrong=list(wrong),
                right=[k for k in c.right if k not in wrong],
                seen=self.seen,
                true_values=[*c.upstream, *c.subject.values, *(call.value for call in calls)],
                upstream=c.upstream,
                graph=graph,
                forward=forward[0] if forward else None,
                backward=backward[0] if backward else None,
                tolerance=c.tolerance,
                slices=self.slices,
                deadline=self.until,
            )
        return self._evidence

    @cached_property
    def slices(self) -> Slices | None:
        """From what the lines of the handwritten pass made it."""
        return Slices(self.seen.history, self.until) if self.seen else None

    def places(self, where: Callable[..., Places], k: int, *why: Any) -> Places:
        """Return places in the reader's code; none where its source cannot be read."""
        found: Places = ()
        with guarded("the search for the lines", self.c.notes):
            evidence = self.evidence(sorted({k, *self.c.wrong}))
            self.until.check()
            found = tuple(filter(is_readable, where(evidence, k, *why)))
            code = code_of(evidence.backward)
            hidden = code is not None and not is_readable((code.co_filename, code.co_firstlineno))
            if hidden and not found and UNREADABLE not in self.c.notes:
                self.c.notes.append(UNREADABLE)
        return found

    def of_verdicts(self) -> None:
        """Write into the rows where kinks and small constants stand."""
        for k, row in self.c.rows.items():
            if row.rule == "kink":
                self.c.change(k, lines=self.places(kink_places, k))
            elif row.verdict == "idealised":
                lines = map(forward_line, self.c.constants[k])
                self.c.change(k, lines=tuple(dict.fromkeys(filter(None, lines)))[:2])

    def of_states(self) -> None:
        """Write into the rows where what changes from call to call stands."""
        for k, row in self.c.rows.items():
            if row.rule == "state":
                kind = row.findings[-1].kind
                kind = "accumulates" if kind == "grows" else kind
                self.c.change(k, lines=self.places(state_places, k, kind))
