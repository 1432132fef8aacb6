"""GradientReport: the rows of a check as text, HTML, dict, picture or assertion."""

from __future__ import annotations

import math
import os
import textwrap
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

from ..pages import printable
from ..saving import write_whole
from .finding import Finding
from .report_page import Reason, place_text, report_page
from .source import Place
from .verdict.rows import FAILURES, RIGHT, Row, Tolerances
from .words import sentence

if TYPE_CHECKING:
    from matplotlib.figure import Figure

WIDTH = 80  # of sentences
CODE = 100  # of tables and lines of code
COSTLY = 0.01  # the share from which on what a constant costs stands in the title
SCHEMA = 1  # of to_dict: a key that is renamed or gone makes it another
COLUMNS = ("", "shape", "largest", "max |diff|", "relative error", "at", "verdict")
SHOWN = (0, 1, 4, 5, 6)  # the columns that a report shows; `table` shows all


@dataclass(frozen=True, repr=False)
class GradientReport:
    """What a check found: a row for each argument, and notes.

    It is true where it is ok, so that ``assert report`` fails on a wrong gradient.

    Attributes
    ----------
    subject : str
        What was checked.
    reference : str
        "autograd", "complex step" or "central differences".
    rows : tuple of Row
    remarks : tuple of Finding
        Side effects, and what else is worth saying, as data; `notes` says it.
    faults : tuple of Finding
        What is wrong, and has no row or more than a row, as data; `failures` says it.
    unchecked : tuple of str
        What has no row, though it is used.
    tolerances : Tolerances
        How sharp the reference is, and what the caller accepts.

    Examples
    --------
    >>> import numpy as np
    >>> from spiral_autograd import check_backward, manual
    >>> report = check_backward(manual.sigmoid, manual.sigmoid_backward, np.array([[0.5, -1.0]]))
    >>> report.ok, report.rows[0].verdict in ("exact", "match")
    (True, True)
    """

    subject: str
    reference: str
    rows: tuple[Row, ...]
    remarks: tuple[Finding, ...] = ()
    faults: tuple[Finding, ...] = ()
    tolerances: Tolerances | None = None
    unchecked: tuple[str, ...] = ()

    @property
    def precision(self) -> str:
        """How sharp the reference is, and what the caller accepts."""
        return "" if self.tolerances is None else str(self.tolerances)

    @property
    def notes(self) -> tuple[str, ...]:
        """Side effects, and what else is worth saying."""
        return tuple(map(sentence, self.remarks))

    @property
    def failures(self) -> tuple[str, ...]:
        """What is wrong, and has no row or more than a row."""
        return tuple(map(sentence, self.faults))

    @property
    def findings(self) -> tuple[Finding, ...]:
        """All that is said beside the rows, as data: what is wrong, and what else."""
        return (*self.faults, *self.remarks)

    @property
    def ok(self) -> bool:
        """Whether no row is wrong or missing, and there is no failure besides."""
        return not self.faults and not any(row.verdict in FAILURES for row in self.rows)

    def __bool__(self) -> bool:
        return self.ok

    def raise_if_wrong(self, *, complete: bool = False) -> None:
        """Raise an AssertionError that bears the reason and the report, unless all is right.

        Parameters
        ----------
        complete : bool, default False
            Whether to raise too where something that is used is not checked; what is meant to
            have no gradient is named in the check: ``constant=["mask"]``.
        """
        __tracebackhide__ = True  # pytest shows the line that called this
        if not self.ok or (complete and self.unchecked):
            reason = self._first_reason()
            raise AssertionError(f"{reason}\n\n{self}" if reason else str(self))

    def _first_reason(self) -> str:
        """Return the first reason in one line: what pytest shows in its summary."""
        wrong = [str(reason) for reason in self._reasons() if reason.is_wrong]
        said = (wrong or self._failures() or [""])[0]
        return printable(" ".join(said.split()))

    def table(self) -> str:
        """Return the table with all its numbers.

        *largest* is the largest entry of the true gradient, *max |diff|* the largest difference
        from yours, *relative error* that divided by the largest entry of both, and *at* is where
        it is. Where a smaller difference is larger beside its own row and column, it is shown,
        divided by the largest entry of these.

        Examples
        --------
        >>> import numpy as np
        >>> from spiral_autograd import check_backward, manual
        >>> x = np.array([[0.5, -1.0]])
        >>> report = check_backward(manual.sigmoid, manual.sigmoid_backward, x)
        >>> print(report.table().splitlines()[0])
           shape   largest  max |diff|  relative error  at  verdict
        """
        return "\n".join(_table([COLUMNS, *(_cells(row, full=True) for row in self.rows)]))

    def to_dict(self) -> dict[str, object]:
        """Return the report as JSON-ready data; docs/checker.md says what each key holds."""
        return {
            "schema": SCHEMA,
            "subject": self.subject,
            "title": self._title(),
            "ok": self.ok,
            "reference": self.reference,
            "tolerances": asdict(self.tolerances) if self.tolerances else None,
            "rows": [row.to_dict() for row in self.rows],
            "notes": list(self.notes),
            "failures": list(self.failures),
            "findings": [finding.to_dict() for finding in self.findings],
            "unchecked": list(self.unchecked),
        }

    def __repr__(self) -> str:
        return str(self)  # what a prompt shows

    def __str__(self) -> str:
        lines = [
            *_wrapped(self._title()),
            *_wrapped(f"compared with {self.reference} {self.precision}".rstrip()),
        ]
        for failure in self._failures():
            lines += ["", *_wrapped(f"failure: {failure}")]
        if self.rows or not self.faults:
            head = tuple(COLUMNS[i] for i in SHOWN)
            lines += ["", *_table([head, *map(_cells, self.rows)])]
        for reason in self._reasons():
            lines += ["", *_wrapped(str(reason))]
            lines += [_short(f"    {place_text(place)}", CODE) for place in reason.places]
        for note in self._notes():
            lines += ["", *_wrapped(f"note: {note}")]
        return "\n".join(lines)

    def _title(self) -> str:
        said, wrong = self._said_of_right(), [row for row in self.rows if row.verdict in FAILURES]
        if wrong:
            return "; ".join([f"{self.subject}: {_count(wrong, len(self.rows))}", *said])
        more = f" ({'; '.join(said)})" if said else ""
        return f"{self.subject}: {'right' if self.ok else 'NOT right'}{more}"

    def _said_of_right(self) -> list[str]:
        """Return what the title says of rows that are right with a reserve, and what has none."""
        said = [
            f"{row.name} is idealised: {row.max_rel:.2g} off at these values"
            for row in self.rows
            if row.verdict == "idealised" and row.max_rel > COSTLY
        ]
        accepted = [row for row in self.rows if row.verdict == "accepted"]
        if accepted and self.tolerances:
            most = max(row.max_rel for row in accepted)
            by = f"accepted by {self.tolerances.given}, up to {most:.2g} off"
            said.append(f"{_names(accepted)}: {by}")
        if self.unchecked:
            be = "is" if len(self.unchecked) == 1 else "are"
            said.append(f"{', '.join(self.unchecked)} {be} not checked")
        return said

    def _reasons(self) -> list[Reason]:
        """Return what is said of the rows, once of those of which the same is."""
        groups: dict[str | int, list[Row]] = {}
        for i, row in enumerate(self.rows):
            if row.why or row.lines:
                groups.setdefault(row.why or i, []).append(row)
        return [
            Reason(_names(g), g[0].why or g[0].verdict, _places(g), g[0].verdict in FAILURES)
            for g in groups.values()
        ]

    def _failures(self) -> list[str]:
        """Return the failures that no row speaks of, each once."""
        states = [what for row in self.rows for what in row.findings if what.rule == "state"]
        untold = [f for f in self.faults if not any(p in states for p in f.parts())]
        return list(dict.fromkeys(map(sentence, untold)))

    def _notes(self) -> list[str]:
        """Return what is said besides, each once."""
        return list(dict.fromkeys(note for note in self.notes if note not in self.failures))

    def _repr_html_(self, template: str = "report_cell.html") -> str:
        return report_page(
            template,
            self._title(),
            f"{self.reference} {self.precision}".rstrip(),
            [["gradient", *(COLUMNS[i] for i in SHOWN[1:])], *map(_cells, self.rows)],
            self._reasons(),
            self._failures(),
            self._notes(),
            is_right=self.ok,
        )

    def to_html(self, path: str | os.PathLike[str]) -> None:
        """Write the report as a page, one file that loads nothing: as `save` writes.

        Beside the table it shows the source of what is wrong, with the reasons at their lines.

        Examples
        --------
        >>> import tempfile
        >>> import numpy as np
        >>> from spiral_autograd import check_derivative
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     check_derivative(np.sin, np.cos, np.ones(2)).to_html(f"{folder}/report.html")
        """
        text = self._repr_html_("report.html")
        write_whole(path, lambda file: file.write(text.encode()))

    def plot(self) -> Figure:
        """Draw, for each argument, handwritten, automatic and difference side by side.

        The three share a scale, so that what differs by rounding alone vanishes. A wrong row is
        red, bears its reason, and has the entry that is furthest off framed; of many rows only the
        wrong ones are drawn. The figure is not pyplot's: a notebook shows it once, as the value of
        a cell, and ``savefig`` saves it.
        """
        shown = [r for r in self.rows if r.handwritten is not None or r.automatic is not None]
        if not shown:
            raise ValueError("the report has no gradient to draw")
        from .pictures import draw_rows

        title = f"{_short(self._title(), CODE)}, compared with {self.reference}"
        return draw_rows(title, shown, self.reference)


def _count(wrong: Sequence[Row], of: int) -> str:
    """Say how many gradients are wrong or missing, and which."""
    what = " or ".join(v for v in FAILURES if any(row.verdict == v for row in wrong))
    if of == 1:
        return f"the gradient of {wrong[0].name} is {what}"
    verb = "is" if len(wrong) == 1 else "are"
    return f"{len(wrong)} of {of} gradients {verb} {what} ({_names(wrong)})"


def _names(rows: Sequence[Row], most: int = 8) -> str:
    return ", ".join(row.name for row in rows[:most]) + ", …" * (len(rows) > most)


def _cells(row: Row, full: bool = False) -> tuple[str, ...]:
    """Return what stands in the line of a row: where it is right, not where it differs most."""
    apart = [row.max_abs, row.max_rel]
    if row.index is None:  # of gradients of two shapes there is no difference
        apart = [math.nan if math.isinf(value) else value for value in apart]
    where = "" if row.index is None or row.max_abs == 0 else str(row.index).replace(" ", "")
    digits = ".2e" if full else ".2g"
    numbers = [
        "" if math.isnan(v) else "0" if v == 0 else f"{v:{digits}}" for v in (row.scale, *apart)
    ]
    cells = (
        row.name,
        str(row.shape).replace(" ", ""),
        *numbers,
        where if full or row.verdict not in RIGHT else "",
        f"{row.verdict} (kink)" if row.rule == "kink" else row.verdict,
    )
    return cells if full else tuple(cells[i] for i in SHOWN)


def _table(cells: Sequence[Sequence[str]]) -> list[str]:
    """Return lines that fit, the head first: where there is no room for all, long ones are cut."""
    head = cells[0]
    widths = [max(len(line[i]) for line in cells) for i in range(len(head))]
    room = (CODE if head == COLUMNS else WIDTH) - 2 * (len(head) - 1)
    while sum(widths) > room:  # a name needs more room than a shape or a place to be told
        i = max(range(len(widths)), key=lambda i: widths[i] - (20 if i == 0 else 0))
        widths[i] -= 1
    lines = []
    for line in cells:
        fitted = [_short(cell, width) for cell, width in zip(line, widths, strict=True)]
        aligned = [
            f"{cell:<{width}}" if head[i] in ("", "verdict") else f"{cell:>{width}}"
            for i, (cell, width) in enumerate(zip(fitted, widths, strict=True))
        ]
        lines.append("  ".join(aligned).rstrip())
    return lines


def _short(text: str, width: int) -> str:
    """Return a text in one line, without its middle where it is too long."""
    text = printable(text)
    if len(text) <= width:
        return text
    end = (width - 1) // 2
    return f"{text[: width - 1 - end]}…{text[len(text) - end :]}"


def _wrapped(text: str) -> list[str]:
    return textwrap.wrap(printable(text), WIDTH, subsequent_indent="    ")


def _places(rows: Sequence[Row]) -> list[Place]:
    """Return at most five places of rows with one reason, first those that most of them name."""
    named = Counter(place for row in rows for place in row.lines)
    found = dict.fromkeys(place for place, _ in named.most_common(3))
    if len(rows) > 1:
        found |= dict.fromkeys(row.lines[-1] for row in rows if row.lines)
    return list(found)[:5]
