"""Two gradients, row by row: exact, match, approximate, wrong or missing, and what is known so far.

Shapes are never broadcast.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from ...recording import Call
from ...validation import Array, Shape, number
from ..blocks import furthest, inner, largest
from ..finding import Finding, found
from ..guard import CheckError
from ..reference.graph import Graph
from ..reference.reference import Reference, Sharpness, at_these_values
from ..source import Place, statement_at
from ..subject.subject import MISSING, Subject, copied
from ..words import sentences

Gradients = list[Any]  # handwritten ones: arrays, None, or MISSING: nothing to compare
Floor = Array | float  # how far rounding moves the entries


@dataclass(frozen=True)
class Tolerances:
    """What a check goes by: how sharp its reference is, and what the caller accepts beyond it.

    That is, if given, an entry with |yours - true| <= atol + rtol * |true|.
    """

    rtol: float | None = None
    atol: float | None = None
    dtype: str = "float64"
    match: float = 0.0
    approximate: float = 0.0

    @classmethod
    def of(cls, rtol: float | None, atol: float | None) -> Tolerances:
        """Return what a caller gives, or raise."""
        if rtol is not None:  # from 1 on, a gradient of zeros would do
            rtol = number("rtol", rtol, above=0, below=1, or_equal=True)
        if atol is not None:
            atol = number("atol", atol, above=0, or_equal=True)
        return cls(rtol, atol)

    @property
    def given(self) -> str:
        """What the caller accepts; empty where nothing is given."""
        pairs = (("rtol", self.rtol), ("atol", self.atol))
        return ", ".join(f"{name}={value:g}" for name, value in pairs if value is not None)

    def allows(self, h: Array, g: Array) -> Array:
        """Return which entries may differ as they do."""
        return np.abs(h - g) <= (self.atol or 0.0) + (self.rtol or 0.0) * np.abs(g)

    def __str__(self) -> str:
        more = f"; accepted: {self.given}" if self.given else ""
        return f"({self.dtype}; match: within {self.match:g}{more})"


@dataclass(frozen=True)
class Row:
    """What was found about one gradient.

    Attributes
    ----------
    name : str
        The argument's name, as the person named it.
    shape : tuple of int
        Its shape.
    scale : float
        The largest entry of the reference gradient.
    max_abs, max_rel : float
        The largest difference, and that relative to the largest entry of both gradients. Where a
        smaller one weighs more in its own row or column: that, and relative to the largest entry
        of these. Of gradients that are zero up to rounding the second is 0.
    index : tuple of int or None
        Where this difference is.
    verdict : str
        "exact", "match", "idealised", "approximate", "accepted", "wrong" or "missing".
    findings : tuple of Finding
        What is said of it, as data.
    lines : tuple of (str, int)
        The places in the reader's code: file and line.
    of_forward : tuple of (str, int)
        Those of them that are of the forward pass; the others are of the backward pass.
    """

    name: str
    shape: Shape
    scale: float
    max_abs: float
    max_rel: float
    index: tuple[int, ...] | None
    verdict: str
    findings: tuple[Finding, ...] = ()
    lines: tuple[Place, ...] = ()
    of_forward: tuple[Place, ...] = field(default=(), repr=False, compare=False)
    handwritten: Array | None = field(default=None, repr=False, compare=False)
    automatic: Array | None = field(default=None, repr=False, compare=False)

    @property
    def both(self) -> tuple[Array, Array] | None:
        """The handwritten gradient and the reference; None unless of one shape and finite."""
        if self.index is None or not math.isfinite(self.max_abs):
            return None
        return np.asarray(self.handwritten, dtype=float), np.asarray(self.automatic)

    @property
    def why(self) -> str:
        """The mistake in one sentence with the evidence; empty where there is none."""
        return sentences(self.findings)

    @property
    def rule(self) -> str | None:
        """The kind of mistake, where it is of a kind.

        It is "factor", "layout", "sum", "upstream", "value", "term", "state", "unwritten", "part"
        or "kink".
        """
        rules = [finding.rule for finding in self.findings if finding.rule is not None]
        return rules[-1] if rules else None

    def to_dict(self) -> dict[str, object]:
        """Return the row as JSON-ready data; numbers that are not finite are None."""
        return {
            "name": self.name,
            "shape": list(self.shape),
            "largest": _finite(self.scale),
            "max_diff": _finite(self.max_abs),
            "relative_error": _finite(self.max_rel),
            "at": None if self.index is None else list(self.index),
            "verdict": self.verdict,
            "rule": self.rule,
            "why": self.why,
            "findings": [finding.to_dict() for finding in self.findings],
            "lines": list(map(self._line, self.lines)),
        }

    def _line(self, place: Place) -> dict[str, object]:
        which = "forward" if place in self.of_forward else "backward"
        file, line = _relative(place[0]), place[1]
        return {"file": file, "line": line, "pass": which, "code": statement_at(*place)}


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None


def _relative(file: str) -> str:
    """Return the path of a file from the current folder, where it is below it."""
    path, here = Path(file), Path.cwd()
    return str(path.relative_to(here)) if path.is_relative_to(here) else file


RIGHT = ("exact", "match")
FAILURES = ("wrong", "missing")


def compare(
    name: str, handwritten: object, automatic: Array, sharp: Sharpness, floor: Floor = 0.0
) -> Row:
    """Return the row for two gradients, where rounding alone moves entries by up to a floor."""
    scale, h = largest(automatic), np.asarray(handwritten)
    blank = Row(name, automatic.shape, scale, np.nan, np.nan, None, "wrong", automatic=automatic)
    if (unfit := _unfit(blank, handwritten)) is not None:
        is_zero = handwritten is None and not np.any(np.abs(automatic) > floor)
        return replace(unfit, verdict="match") if is_zero else unfit
    most = furthest(h if h.dtype.kind == "f" else h.astype(float), automatic, floor)
    return replace(
        blank,
        max_abs=most.distance,
        max_rel=0.0 if _are_zero(h, scale, floor) else most.relative,
        index=tuple(int(i) for i in np.unravel_index(most.place, h.shape)),
        verdict=_verdict(most.distance, most.beyond, sharp),
        handwritten=h,
    )


def _are_zero(h: Array, scale: float, floor: Floor) -> bool:
    """Tell whether a gradient, and one of this size, are zero up to rounding."""
    least = float(np.min(floor, initial=np.inf))
    return scale <= least < np.inf and largest(h) <= least


def _unfit(row: Row, handwritten: object) -> Row | None:
    """Return the row of what cannot be compared: no gradient, no numbers, or of another shape."""
    if handwritten is None:
        return replace(row, verdict="missing", findings=(found("no_gradient"),))
    h, update = np.asarray(handwritten), None
    if h.dtype.kind not in "fiub":
        return replace(row, findings=(found("dtype", dtype=str(h.dtype)),))
    if h.shape == row.shape:
        return None
    with suppress(ValueError):  # what an update makes of it
        update = np.broadcast_shapes(h.shape, row.shape)
    said = found("shape", ours=h.shape, theirs=row.shape, update=update)
    return replace(row, max_abs=np.inf, max_rel=np.inf, findings=(said,), handwritten=h)


def _verdict(distance: float, beyond: float, sharp: Sharpness) -> str:
    """Return the verdict on gradients that differ by `beyond`, relative to what stands there."""
    if distance == 0:
        return "exact"
    for verdict, tolerance in (("match", sharp.match), ("approximate", sharp.approximate)):
        if np.isfinite(distance) and beyond <= tolerance:
            return verdict
    return "wrong"


def compare_directions(
    name: str, k: int, handwritten: object, shape: Shape, reference: Reference
) -> Row:
    """Return the row for a gradient of which only derivatives in random directions are known."""
    along = [(d[k], value) for d, value in reference.directions if k in d]
    scale = max((abs(value) for _, value in along), default=0.0)
    blank, h = Row(name, shape, scale, np.nan, np.nan, None, "wrong"), np.asarray(handwritten)
    if (unfit := _unfit(blank, handwritten)) is not None:
        return unfit
    distance = max((abs(inner(h, d) - value) for d, value in along), default=0.0)
    both = max(scale, float(np.sqrt(inner(h, h) / max(h.size, 1))))
    beyond = max(distance - reference.noise, 0.0) / both if both > 0 else distance
    verdict = _verdict(distance, beyond, reference.sharpness)
    return replace(
        blank,
        verdict="match" if verdict == "exact" else verdict,
        max_abs=distance,
        max_rel=distance / both if both > 0 else 0.0,
        handwritten=h,
        findings=() if verdict in RIGHT else (found("directions_only"),),
    )


# -------------------- all rows of a check --------------------


@dataclass
class Comparison:
    """A handwritten gradient beside the reference, row by row, by the number of the value."""

    subject: Subject
    reference: Reference
    grads: Gradients  # the handwritten ones
    tolerances: Tolerances = field(default_factory=Tolerances)  # the caller's
    rows: dict[int, Row] = field(default_factory=dict)
    # How far rounding alone moves the entries of each gradient; infinite where a kink excuses any.
    noise: list[Floor] = field(default_factory=list)
    # The forward calls with the small constants without which an idealised gradient is exact.
    constants: dict[int, list[Call]] = field(default_factory=dict)
    notes: list[Finding] = field(default_factory=list)
    failures: list[Finding] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.noise = [3 * e for e in self.reference.errors] or [0.0] * len(self.grads)
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
    def size(self) -> float:
        """Σ |upstream · output|: what the gradients are a part of."""
        pairs = zip(self.subject.outputs, self.upstream, strict=True)
        return sum(float(np.sum(np.abs(o * u))) for o, u in pairs)

    @property
    def small(self) -> bool:
        """Whether the arrays are so small that a few more copies of them do not matter."""
        return sum(value.size for value in self.subject.values) <= 200_000

    @cached_property
    def graph(self) -> Graph | None:
        """autograd's forward and backward pass, where autograd is the reference."""
        recording = self.reference.recorded(self.subject)
        return None if recording is None else Graph(recording)

    def backward(
        self,
        upstream: Sequence[Array] | None = None,
        between: Callable[[object], None] | None = None,
    ) -> Gradients:
        """Run forward and backward from where the objects stand; return copies."""
        upstream = self.upstream if upstream is None else upstream
        return [copied(g) for g in self.subject.backward([np.array(u) for u in upstream], between)]

    def rerun(self) -> Gradients:
        """Run both passes once more, from the start."""
        return run_passes(self.subject)

    def at_these_values(self, upstream: list[Array] | None = None) -> Comparison:
        """Return the comparison for the values as they are now; CheckError where there is none."""
        return self.there(at_these_values(self.subject, upstream))

    def there(self, subject: Subject) -> Comparison:
        """Return the comparison for a subject like this one; CheckError where there is none."""
        reference = self.reference_there(subject)
        grads = run_passes(subject)
        subject.session.restore()  # a pass may have updated the values
        return Comparison(subject, reference, grads, self.tolerances)

    def reference_there(self, subject: Subject) -> Reference:
        """Return the reference for a subject like this one, if it knows all that this one knows."""
        reference = self.reference.make(subject)
        if len(reference.grads) < len(self.reference.grads):
            raise CheckError("gradients are known along random directions only")
        return reference


def run_passes(subject: Subject) -> Gradients:
    """Run both passes of a subject from the start; return copies of the gradients."""
    with subject.session.fresh():
        return [copied(g) for g in subject.backward([np.array(u) for u in subject.upstream])]
