"""One check on its way: the two gradients, and what has been said of them so far."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np

from ...validation import Array
from ..finding import Said, found
from ..guard import CheckError, Deadline, guarded, theirs
from ..lines.lines import Evidence
from ..lines.moments import Moments, moments
from ..lines.slices import Slices
from ..reference.automatic import once_more
from ..reference.backward_graph import BackwardGraph
from ..reference.reference import Reference
from ..source import code_of, is_readable
from ..subject.subject import MISSING, Subject, copied
from .rows import FAILURES, RIGHT, Row, compare, compare_directions

Places = tuple[tuple[str, int], ...]
UNREADABLE = found("unreadable")


@dataclass
class Comparison:
    """A handwritten gradient beside the reference, row by row.

    Attributes
    ----------
    subject : Subject
    reference : Reference
    grads : list
        The handwritten gradients: arrays, None, or MISSING where there is nothing to compare.
    rng : Generator
    budget : float
        The seconds for what comes after the verdicts.
    deadline, until : Deadline
        When to stop asking why, and when to stop asking where.
    rows : dict of Row
        By the number of the value.
    noise : list of arrays or floats
        How far rounding alone moves the entries of each gradient; infinite where a kink excuses
        any.
    notes, failures : lists of Finding
    """

    subject: Subject
    reference: Reference
    grads: list[Any]
    rng: np.random.Generator
    budget: float
    rows: dict[int, Row] = field(default_factory=dict)
    noise: list[Any] = field(default_factory=list)
    notes: list[Said] = field(default_factory=list)
    failures: list[Said] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._evidence: Evidence | None = None
        self.begin()
        self.noise = [3 * error for error in self.reference.errors] or [0.0] * len(self.grads)
        self.compare()

    @property
    def floors(self) -> list[float]:
        """How far rounding alone moves each gradient."""
        return [float(np.max(n, where=np.isfinite(n), initial=0.0)) for n in self.noise]

    @property
    def upstream(self) -> list[Array]:
        """The upstream gradient."""
        return self.subject.upstream

    def begin(self) -> None:
        """Let the time begin for what comes after the verdicts: why, and then where."""
        self.deadline = Deadline.after(0.8 * self.budget)
        self.until = Deadline.after(self.budget + 0.2)

    # -------------------- rows --------------------

    def compare(self) -> None:
        """Compare afresh, all that there is."""
        self.rows = {k: self.compared(k) for k, g in enumerate(self.grads) if g is not MISSING}

    def compared(self, k: int) -> Row:
        """Return the row of one gradient, compared afresh."""
        name, reference = self.subject.names[k], self.reference
        if not reference.grads:
            shape = self.subject.values[k].shape
            return compare_directions(name, k, self.grads[k], shape, reference)
        return compare(name, self.grads[k], reference.grads[k], reference.sharpness, self.noise[k])

    def change(self, k: int, **changes: Any) -> None:
        """Change what is said in a row."""
        self.rows[k] = replace(self.rows[k], **changes)

    @property
    def right(self) -> list[int]:
        """The rows that are right."""
        return [k for k, row in self.rows.items() if row.verdict in RIGHT]

    @property
    def doubtful(self) -> list[int]:
        """The rows whose gradients differ by more than rounding, as far as is known."""
        return [k for k, row in self.rows.items() if row.verdict in ("wrong", "approximate")]

    @property
    def wrong(self) -> list[int]:
        """The rows that are failures."""
        return [k for k, row in self.rows.items() if row.verdict in FAILURES]

    @property
    def tolerance(self) -> float:
        """The tolerance to which an explanation must give the handwritten numbers."""
        return max(self.reference.sharpness.match, 1e-9)

    # -------------------- the handwritten side --------------------

    def backward(
        self,
        upstream: Sequence[Array] | None = None,
        between: Callable[[Any], None] | None = None,
    ) -> list[Any]:
        """Run forward and backward from where the objects stand; return copies."""
        ups = [np.array(u) for u in (self.upstream if upstream is None else upstream)]
        return [copied(g) for g in self.subject.backward(ups, between)]

    @property
    def small(self) -> bool:
        """Whether the arrays are so small that a few more copies of them do not matter."""
        return is_small(self.subject)

    # -------------------- the places --------------------

    @cached_property
    def graph(self) -> BackwardGraph | None:
        """autograd's backward graph, where autograd is the reference."""
        if self.reference.kind != "autograd":
            return None
        recording = self.reference.recording
        if recording is None:
            with theirs("the traced forward pass"):
                recording = once_more(self.subject, self.upstream, self.reference).recording
        return None if recording is None else BackwardGraph(recording)

    @cached_property
    def seen(self) -> Moments:
        """What the lines of the handwritten pass make, in order."""
        if not self.small:
            return Moments()
        found = Moments()
        try:
            with self.subject.session.fresh():
                moments(self.backward, found, self.until)
        except CheckError:  # what ran until then is told from
            pass
        finally:
            self.subject.session.restore()
        return found if found.is_whole else Moments()

    @cached_property
    def slices(self) -> Slices | None:
        """From what the lines of the handwritten pass made it."""
        return Slices(self.seen.history, self.until) if self.seen else None

    def evidence(self) -> Evidence:
        """Return what the place of a mistake is told from."""
        if self._evidence is None or self._evidence.wrong != self.wrong:
            self._evidence = self._all_evidence()
        return self._evidence

    def _all_evidence(self) -> Evidence:
        subject, graph = self.subject, self.graph
        calls = [] if graph is None else [*graph.forward, *graph.backward]
        return Evidence(
            grads=[None if g is MISSING else g for g in self.grads],
            automatic=self.reference.grads,
            wrong=self.wrong,
            right=self.right,
            seen=self.seen,
            true_values=[*self.upstream, *subject.values, *(call.value for call in calls)],
            upstream=self.upstream,
            graph=graph,
            forward=subject.forward_code[0] if subject.forward_code else None,
            backward=subject.backward_code[0] if subject.backward_code else None,
            tolerance=self.tolerance,
            slices=self.slices,
            deadline=self.until,
        )

    def places(self, where: Callable[..., Places], k: int, *why: Any) -> Places:
        """Return places in the reader's code; none where its source cannot be read."""
        found: Places = ()
        with guarded("the search for the lines", self.notes):
            evidence = self.evidence()
            self.until.check()
            found = tuple(filter(is_readable, where(evidence, k, *why)))
            code = code_of(evidence.backward)
            hidden = code is not None and not is_readable((code.co_filename, code.co_firstlineno))
            if hidden and not found and UNREADABLE not in self.notes:
                self.notes.append(UNREADABLE)
        return found


def is_small(subject: Subject) -> bool:
    """Tell whether a few more copies of the arrays of a subject do not matter."""
    return sum(value.size for value in subject.values) <= 200_000
