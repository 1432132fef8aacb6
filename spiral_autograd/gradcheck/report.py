"""GradientReport: the rows of a check as text, HTML, dict, picture or assertion."""

from __future__ import annotations

import html
import linecache
import math
import os
import textwrap
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

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
    precision : str
        How sharp the reference is.

    Examples
    --------
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
        if not self.ok:
            raise AssertionError(f"\n{self}")

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
        }

    def __str__(self) -> str:
        verdict = "right" if self.ok else "NOT right"
        lines = [
            *_wrapped(f"{self.subject}: {verdict}", 0),
            *_wrapped(f"reference: {self.reference}{self.precision}", 0),
            "",
        ]
        cells = [COLUMNS, *(_cells(row) for row in self.rows)]
        widths = [min(max(len(r[i]) for r in cells), 30) for i in range(len(COLUMNS))]
        for r in cells:
            line = "  ".join(
                f"{c[:w]:<{w}}" if i in (0, 6) else f"{c[:w]:>{w}}"
                for i, (c, w) in enumerate(zip(r, widths, strict=True))
            )
            lines.append(line.rstrip()[:WIDTH])
        for row in self.rows:
            if row.why:
                lines += ["", *_wrapped(f"{row.name}: {row.why}", 0)]
                lines += [line for place in row.lines for line in _place(place)]
        for note in (*self.failures, *(n for n in self.notes if n not in self.failures)):
            lines += ["", *_wrapped(f"note: {note}", 0)]
        return "\n".join(lines)

    def _repr_html_(self) -> str:
        head = "".join(f"<th>{html.escape(c)}</th>" for c in COLUMNS)
        body = "".join(
            f"<tr>{''.join(f'<td>{html.escape(c)}</td>' for c in _cells(row))}</tr>"
            + (f"<tr><td></td><td colspan=6>{html.escape(_why(row))}</td></tr>" if row.why else "")
            for row in self.rows
        )
        notes = "".join(f"<li>{html.escape(n)}</li>" for n in (*self.failures, *self.notes))
        verdict = "right" if self.ok else "<b>not right</b>"
        return (
            f"<p>{html.escape(self.subject)}: {verdict} "
            f"(reference: {html.escape(self.reference + self.precision)})</p>"
            f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table><ul>{notes}</ul>"
        )

    def plot(self) -> Figure:
        """Draw, for each argument, handwritten, automatic and difference on common scales.

        Returns
        -------
        matplotlib Figure
        """
        import matplotlib.pyplot as plt

        shown = [r for r in self.rows if r.handwritten is not None and r.automatic is not None]
        shown = [r for r in shown if np.shape(r.handwritten) == np.shape(r.automatic)]
        if not shown:
            raise ValueError("the report has no gradient to draw")
        figure, axes = plt.subplots(
            len(shown), 3, squeeze=False, layout="constrained", figsize=(9, 2.4 * len(shown))
        )
        for line, row in zip(axes, shown, strict=True):
            _draw(figure, line, row)
        return figure


def _draw(figure: Any, axes: Any, row: Row) -> None:
    pictures = [_picture(a) for a in (row.handwritten, row.automatic)]
    difference = pictures[0] - pictures[1]
    limit = max(float(np.nanmax(np.abs(p), initial=0.0)) for p in pictures) or 1.0
    apart = float(np.nanmax(np.abs(difference), initial=0.0)) or limit
    titles = (f"{row.name}: handwritten", "automatic", f"difference ({row.verdict})")
    for ax, picture, title, vmax in zip(
        axes, (*pictures, difference), titles, (limit, limit, apart), strict=True
    ):
        image = ax.imshow(
            picture, cmap="RdBu_r", vmin=-vmax, vmax=vmax, aspect="auto", interpolation="nearest"
        )
        ax.set_title(title, fontsize=10)
        ax.set_xticks([])
        ax.set_yticks([])
        if title != titles[0]:
            figure.colorbar(image, ax=ax)


def _picture(array: Any) -> Any:
    array = np.atleast_2d(np.asarray(array, dtype=float))
    return array.reshape(array.shape[0], -1) if array.ndim > 2 else array


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


def _why(row: Row) -> str:
    places = "; ".join(
        f"{os.path.basename(f)}:{n} {linecache.getline(f, n).strip()}" for f, n in row.lines
    )
    return f"{row.why} {places}".strip()


def _wrapped(text: str, indent: int) -> list[str]:
    return textwrap.wrap(text, WIDTH, subsequent_indent=" " * (indent + 4), break_long_words=True)


def _place(place: tuple[str, int]) -> list[str]:
    file, line = place
    text = f"    {os.path.basename(file)}:{line}: {linecache.getline(file, line).strip()}"
    return [text[:WIDTH]]


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
