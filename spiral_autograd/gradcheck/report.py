"""GradientReport: the rows of a check as text, HTML, dict, picture or assertion."""

from __future__ import annotations

import html
import linecache
import math
import os
import textwrap
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from .compare import FAILURES, Row

if TYPE_CHECKING:
    from matplotlib.figure import Figure

WIDTH = 100
COLUMNS = ("", "shape", "largest", "max |diff|", "relative", "at", "verdict")


@dataclass(frozen=True)
class GradientReport:
    """What a check found: a row for each argument, and notes.

    Attributes
    ----------
    subject : str
        What was checked.
    reference : str
        "autograd", "complex step" or "central differences".
    rows : tuple of Row
    notes : tuple of str
        Side effects, and what else is worth saying.
    failures : tuple of str
        Those notes that are failures.
    unchecked : tuple of str
        What has no row, though it is used.
    precision : str
        How sharp the reference is.

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
    notes: tuple[str, ...] = ()
    failures: tuple[str, ...] = ()
    precision: str = ""
    unchecked: tuple[str, ...] = ()

    @property
    def ok(self) -> bool:
        """Whether no row is wrong or missing, and no note marks a failure."""
        return not self.failures and not any(row.verdict in FAILURES for row in self.rows)

    def raise_if_wrong(self) -> None:
        """Raise an AssertionError that bears the table, unless all is right.

        Raises
        ------
        AssertionError
        """
        __tracebackhide__ = True  # pytest shows the line that called this
        if not self.ok:
            raise AssertionError(str(self))

    def to_dict(self) -> dict[str, Any]:
        """Return the report as JSON-ready data."""
        return {
            "subject": self.subject,
            "ok": self.ok,
            "reference": self.reference,
            "precision": self.precision,
            "rows": [_row_dict(row) for row in self.rows],
            "notes": list(self.notes),
            "failures": list(self.failures),
            "unchecked": list(self.unchecked),
        }

    def __str__(self) -> str:
        lines = [
            *_wrapped(self._title()),
            *_wrapped(f"reference: {self.reference}{self.precision}"),
            "",
            *_table([COLUMNS, *(_cells(row) for row in self.rows)]),
        ]
        for rows in self._reasons():
            names = ", ".join(row.name for row in rows[:8]) + (", …" if len(rows) > 8 else "")
            lines += ["", *_wrapped(f"{names}: {rows[0].why or rows[0].verdict}")]
            lines += [_short(f"    {_place(place)}", WIDTH) for place in _places(rows)]
        for note in self._notes():
            lines += ["", *_wrapped(f"note: {note}")]
        return "\n".join(lines)

    def _title(self) -> str:
        if not self.ok:
            return f"{self.subject}: NOT right"
        names = ", ".join(self.unchecked)
        said = f" ({names} {'is' if len(self.unchecked) == 1 else 'are'} not checked)"
        return f"{self.subject}: right{said if names else ''}"

    def _reasons(self) -> list[list[Row]]:
        """Return the rows of which something is said, together those of which the same is."""
        groups: dict[Any, list[Row]] = {}
        for i, row in enumerate(self.rows):
            if row.why or row.lines:
                groups.setdefault(row.why or i, []).append(row)
        return list(groups.values())

    def _notes(self) -> list[str]:
        """Return what is said besides the rows, failures first, each once."""
        return list(dict.fromkeys((*self.failures, *self.notes)))

    def _repr_html_(self) -> str:
        def cells(tag: str, texts: Iterable[str]) -> str:
            return "".join(f"<{tag}>{html.escape(text)}</{tag}>" for text in texts)

        body = "".join(f"<tr>{cells('td', _cells(row))}</tr>" for row in self.rows)
        for rows in self._reasons():
            names = html.escape(", ".join(row.name for row in rows))
            places = [f"<br><code>{html.escape(_place(place))}</code>" for place in _places(rows)]
            span = f'<td colspan="{len(COLUMNS) - 1}" style="text-align: left">'
            why = html.escape(rows[0].why)
            body += f"<tr><td>{names}</td>{span}{why}{''.join(places)}</td></tr>"
        notes = cells("li", self._notes())
        return (
            f"<p><b>{html.escape(self._title())}</b> "
            f"(reference: {html.escape(self.reference + self.precision)})</p>"
            f"<table><thead><tr>{cells('th', COLUMNS)}</tr></thead><tbody>{body}</tbody></table>"
            + (f"<ul>{notes}</ul>" if notes else "")
        )

    def plot(self) -> Figure:
        """Draw, for each argument, handwritten, automatic and difference on common scales.

        Returns
        -------
        matplotlib Figure
        """
        shown = [r for r in self.rows if r.handwritten is not None or r.automatic is not None]
        if not shown:
            raise ValueError("the report has no gradient to draw")
        from .pictures import draw_rows

        title = _short(self._title(), WIDTH)
        return draw_rows(f"{title} (reference: {self.reference})", shown)


def _number(value: float) -> str:
    return "" if math.isnan(value) else f"{value:.2e}"


def _cells(row: Row) -> tuple[str, ...]:
    where = "" if row.index is None or row.max_abs == 0 else str(row.index).replace(" ", "")
    return (
        row.name,
        str(row.shape).replace(" ", ""),
        _number(row.scale),
        _number(row.max_abs),
        _number(row.max_rel),
        where,
        row.verdict,
    )


def _table(cells: Sequence[Sequence[str]]) -> list[str]:
    """Return lines of at most `WIDTH`: where there is not room for all, the longest are cut."""
    widths = [max(len(line[i]) for line in cells) for i in range(len(COLUMNS))]
    room = WIDTH - 2 * (len(COLUMNS) - 1)
    while sum(widths) > room:  # a name needs more room than a shape or a place to be told
        i = max(range(len(widths)), key=lambda i: widths[i] - (20 if i == 0 else 0))
        widths[i] -= 1
    lines = []
    for line in cells:
        fitted = [_short(cell, width) for cell, width in zip(line, widths, strict=True)]
        aligned = [
            f"{cell:<{width}}" if COLUMNS[i] in ("", "verdict") else f"{cell:>{width}}"
            for i, (cell, width) in enumerate(zip(fitted, widths, strict=True))
        ]
        lines.append("  ".join(aligned).rstrip())
    return lines


def _short(text: str, width: int) -> str:
    """Return a text in one line, without its middle where it is too long."""
    text = text.replace("\n", " ")
    if len(text) <= width:
        return text
    end = (width - 1) // 2
    return f"{text[: width - 1 - end]}…{text[len(text) - end :]}"


def _wrapped(text: str) -> list[str]:
    return textwrap.wrap(text, WIDTH, subsequent_indent="    ")


def _places(rows: Sequence[Row]) -> list[tuple[str, int]]:
    """Return at most three places of rows with one reason: first those that most of them name."""
    named = Counter(place for row in rows for place in row.lines)
    return [place for place, _ in named.most_common(3)]


def _place(place: tuple[str, int]) -> str:
    file, line = place
    return f"{os.path.basename(file)}:{line}: {linecache.getline(file, line).strip()}"


def _row_dict(row: Row) -> dict[str, Any]:
    def finite(value: float) -> float | None:
        return value if math.isfinite(value) else None

    return {
        "name": row.name,
        "shape": list(row.shape),
        "scale": finite(row.scale),
        "max_abs": finite(row.max_abs),
        "max_rel": finite(row.max_rel),
        "index": None if row.index is None else list(row.index),
        "verdict": row.verdict,
        "rule": row.rule,
        "why": row.why,
        "lines": [list(place) for place in row.lines],
    }
