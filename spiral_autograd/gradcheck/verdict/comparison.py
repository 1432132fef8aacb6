"""The two gradients of a check, and what is known of them so far."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np

from ...recording import Call
from ...validation import Array
from ..finding import Said
from ..guard import theirs
from ..reference.graph import Graph
from ..reference.reference import Reference, once_more
from ..subject.subject import MISSING, Subject, copied
from .rows import FAILURES, RIGHT, Row, compare, compare_directions


@dataclass
class Comparison:
    """A handwritten gradient beside the reference, row by row, by the number of the value."""

    subject: Subject
    reference: Reference
    grads: list[Any]  # the handwritten ones: arrays, None, or MISSING: nothing to compare
    rng: np.random.Generator
    rows: dict[int, Row] = field(default_factory=dict)
    # How far rounding alone moves the entries of each gradient; infinite where a kink excuses any.
    noise: list[Any] = field(default_factory=list)
    # The forward calls with the small constants without which an idealised gradient is exact.
    constants: dict[int, list[Call]] = field(default_factory=dict)
    notes: list[Said] = field(default_factory=list)
    failures: list[Said] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.noise = [3 * error for error in self.reference.errors] or [0.0] * len(self.grads)
        self.compare()

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
    def floors(self) -> list[float]:
        """How far rounding alone moves each gradient."""
        return [float(np.max(n, where=np.isfinite(n), initial=0.0)) for n in self.noise]

    @property
    def tolerance(self) -> float:
        """The tolerance to which an explanation must give the handwritten numbers."""
        return max(self.reference.sharpness.match, 1e-9)

    @property
    def upstream(self) -> list[Array]:
        """The upstream gradient."""
        return self.subject.upstream

    @property
    def small(self) -> bool:
        """Whether the arrays are so small that a few more copies of them do not matter."""
        return is_small(self.subject)

    @cached_property
    def graph(self) -> Graph | None:
        """autograd's forward and backward pass, where autograd is the reference."""
        if self.reference.kind != "autograd":
            return None
        recording = self.reference.recording
        if recording is None:
            with theirs("the traced forward pass"):
                recording = once_more(self.subject, self.upstream, self.reference).recording
        return None if recording is None else Graph(recording)

    def backward(
        self,
        upstream: Sequence[Array] | None = None,
        between: Callable[[Any], None] | None = None,
    ) -> list[Any]:
        """Run forward and backward from where the objects stand; return copies."""
        upstream = self.upstream if upstream is None else upstream
        return [copied(g) for g in self.subject.backward([np.array(u) for u in upstream], between)]


def is_small(subject: Subject) -> bool:
    """Tell whether a few more copies of the arrays of a subject do not matter."""
    return sum(value.size for value in subject.values) <= 200_000
