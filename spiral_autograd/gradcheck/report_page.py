"""A report as a page: the table, and the reader's source with the reasons beside the lines."""

from __future__ import annotations

import ast
import linecache
import os
import sys
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from ..pages import Line, as_html, listing, page, printable, table
from .source import Place, nodes_of, statement_at

LONGEST = 60  # lines of a class or function that is shown whole
MILD = "", " mild"  # the class of what is no fault: right but for a small constant
AROUND = 5  # lines before and after, where there is no function


@dataclass(frozen=True)
class Reason:
    """What is said of some gradients: why, and at which places."""

    names: str
    why: str
    places: Sequence[Place]
    is_wrong: bool

    def __str__(self) -> str:
        return f"{self.names}: {self.why}"


def report_page(
    template: str,
    title: str,
    reference: str,
    cells: Sequence[Sequence[str]],
    reasons: Sequence[Reason],
    failures: Sequence[str],
    notes: Sequence[str],
    *,
    is_right: bool,
) -> str:
    """Return the page of a report, or what a notebook shows of it; `cells` begin with the head."""
    faults = [f'<p class="why"><b>failure:</b> {as_html(text)}</p>' for text in failures]
    items = "".join(f"<li>{as_html(note)}</li>" for note in notes)
    files = dict.fromkeys(file for reason in reasons for file, _ in reason.places)
    return page(
        template,
        title=as_html(title),
        kind="right" if is_right else "wrong",
        verdict="✓ right" if is_right else "✗ not right",
        reference=as_html(reference),
        failures="".join(faults),
        table=table("Each gradient beside the automatic one", *cells) if cells[1:] else "",
        reasons="".join(_said(reason) for reason in reasons if not reason.places),
        sources="".join(_source(file, reasons) for file in files),
        reasons_and_places="".join(_said(reason, reason.places) for reason in reasons),
        notes=f"<h2>Notes</h2><ul>{items}</ul>" if notes else "",
    )


def _said(reason: Reason, places: Sequence[Place] = ()) -> str:
    said = f"<b>{as_html(reason.names)}:</b> {as_html(reason.why)}"
    code = "".join(f"<br><code>{as_html(place_text(place))}</code>" for place in places)
    return f'<p class="why{MILD[not reason.is_wrong]}" role="note">{said}{code}</p>'


def _source(file: str, reasons: Sequence[Reason]) -> str:
    """Return a file's functions that reasons point at, each line with what is said of it."""
    # A reason stands at its last line, that of the mistake; the others send the reader there.
    beside: dict[int, str] = defaultdict(str)
    for reason in reasons:
        for place in dict.fromkeys(reason.places):
            last, line = place == reason.places[-1], place[1]
            if place[0] == file and last:
                beside[line] += _said(reason)
            elif place[0] == file:
                where = f"see {as_html(_position(*reason.places[-1]))}"
                beside[line] += f'<p class="also"><b>{as_html(reason.names)}:</b> {where}</p>'
    lines = linecache.getlines(file)
    near = sorted({k for line in beside for k in _around("".join(lines), line)})
    kinds = sorted((r.is_wrong, line) for r in reasons for _, line in r.places)  # wrong ones last
    marks = {line: f"blamed{MILD[not is_wrong]}" for is_wrong, line in kinds}
    shown = [Line(k, lines[k - 1], (), marks.get(k, ""), beside.get(k, "")) for k in near]
    name = _cell_name(file) or os.path.basename(file)
    return f"<h2>{as_html(name)}</h2>{listing(f'The source: {name}', shown)}"


def _around(source: str, line: int) -> range:
    """Return the lines of the largest class or function around a line that is not too long."""
    fitting = []
    for node in nodes_of(source):
        if isinstance(node, ast.ClassDef | ast.FunctionDef):
            first = min([node.lineno, *(d.lineno for d in node.decorator_list)])
            span = range(first, (node.end_lineno or first) + 1)
            fitting += [span] if line in span and len(span) <= LONGEST else []
    last = min(line + AROUND, len(source.splitlines()))
    return max(fitting, key=len, default=range(max(1, line - AROUND), last + 1))


# -------------------- places and texts --------------------


def place_text(place: Place) -> str:
    """Return a place in words: the file, the line and its statement."""
    return printable(f"{_position(*place)}: {statement_at(*place)}")


def _position(file: str, line: int) -> str:
    """Return a file and a line, or a cell of a notebook and a line as IPython says them."""
    cell = _cell_name(file)
    return f"{cell}, line {line}" if cell else f"{os.path.basename(file)}:{line}"


def _cell_name(file: str) -> str:
    """Return how IPython calls a cell of a notebook; nothing for a file of its own."""
    interactive: Any = getattr(sys.modules.get("IPython"), "get_ipython", lambda: None)()
    try:
        return " ".join(interactive.compile.format_code_name(file))
    except (AttributeError, TypeError, ValueError):  # no notebook, or a file
        return ""
