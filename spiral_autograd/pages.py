"""Pages: one file of HTML each, which loads nothing; the templates are files of their own."""

from __future__ import annotations

import html
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from importlib.resources import files
from string import Template


def page(template: str, **parts: str) -> str:
    """Return a page: a template of the folder, its style and script, and parts in HTML."""
    head = {"style": _file("page.css"), "script": _file("page.js")}
    return Template(_file(template)).substitute(**head, **parts)


def _file(name: str) -> str:
    return (files(__package__) / "templates" / name).read_text(encoding="utf-8")


def printable(text: str) -> str:
    """Return a text with escapes in place of what would command a terminal or reorder its line."""
    return "".join(
        c if c.isprintable() else " " if c in "\t\n" else c.encode("unicode_escape").decode()
        for c in text
    )


def as_html(text: str) -> str:
    """Return a text as HTML, without what would command a terminal or reorder its line."""
    return html.escape(printable(text))


def as_json(data: object) -> str:
    """Return data as JSON that can stand in an element of HTML."""
    return json.dumps(data, separators=(",", ":")).replace("<", "\\u003c")


def table(caption: str, head: Sequence[str], *rows: Sequence[str]) -> str:
    """Return a table of texts, the first of each row its name; what says "wrong" is marked so."""
    columns = "".join(f'<th scope="col">{as_html(name or "name")}</th>' for name in head)
    body = ""
    for label, *values in rows:
        cells = (f'<td class="is-{as_html(v.split(" ")[0])}">{as_html(v)}</td>' for v in values)
        body += f'<tr><th scope="row">{as_html(label)}</th>{"".join(cells)}</tr>'
    return (
        f'<div class="scroll" tabindex="0" role="region" aria-label="{as_html(caption)}"><table>'
        f"<caption>{as_html(caption)}</caption><thead><tr>{columns}</tr></thead>"
        f"<tbody>{body}</tbody></table></div>"
    )


@dataclass(frozen=True)
class Line:
    """A line of a listing: its number and text, what it is linked with, and HTML beside it."""

    number: int
    text: str
    links: tuple[str, ...] = ()
    mark: str = ""  # a class of the style sheet
    beside: str = ""


def listing(label: str, lines: Iterable[Line]) -> str:
    """Return a listing; between numbers that do not follow one another there is a gap."""
    rows, last = [], None
    for line in lines:
        gap = last is not None and line.number != last + 1
        code, _, comment = as_html(line.text.expandtabs(4).rstrip()).partition("  # ")
        code += f'<span class="comment">  # {comment}</span>' if comment else ""
        kind = " ".join(filter(None, ("line", line.mark, "gap" if gap else "")))
        links = f' tabindex="0" data-links="{" ".join(line.links)}"' if line.links else ""
        rows.append(
            f'<li class="{kind}" value="{line.number}"{links}>'
            f'<span class="number" aria-hidden="true">{line.number}</span>'
            f"<code>{code or ' '}</code>{line.beside}</li>"
        )
        last = line.number
    return (
        f'<div class="scroll" tabindex="0" role="region" aria-label="{as_html(label)}">'
        f'<ol class="code">{"".join(rows)}</ol></div>'
    )
