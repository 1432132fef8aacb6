"""Why a gradient is wrong, and where: what the diagnosis finds, written into the rows."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np

from ...validation import Array
from ..blocks import largest
from ..finding import found, together
from ..guard import CheckError
from ..lines.blame import places
from ..reference.backward_graph import BackwardGraph
from ..reference.graph import Graph
from ..subject.subject import MISSING
from ..verdict.rows import Comparison, Row
from ..where import Where
from .case import Case, Finding, other_upstream
from .diagnose import diagnose
from .replaced import elsewhere


def explain(c: Comparison, where: Where, ideal: Graph | None) -> None:
    """Write into the wrong rows why they are wrong, and where.

    `ideal` is the graph of the forward pass without its small constant: a mistake may be one
    against the gradient of that.
    """
    wrong = c.wrong
    if not c.reference.grads:
        for k in wrong:
            c.change(k, findings=c.rows[k].findings or (found("text", text="no known pattern"),))
        return
    findings, remaining = _diagnosed(c, where, wrong, ideal)
    for finding in findings:
        for k in finding.rows:
            lines = finding.lines or where.places(places, k, finding)
            said = found("text", text=finding.text, rule=finding.rule)
            if " in place of (" in finding.text:  # the shapes, which the row tells as well
                said = found("text", text=finding.text, rule=finding.rule, shape=())
            c.change(k, findings=together(c.rows[k].findings, said), lines=lines)
    for k in remaining:
        why = found("text", text=_no_pattern(c.rows[k], late=where.deadline.is_over))
        c.change(k, findings=together(c.rows[k].findings, why), lines=where.places(places, k))


def _diagnosed(
    c: Comparison, where: Where, wrong: list[int], ideal: Graph | None
) -> tuple[list[Finding], list[int]]:
    """Return what is found, and the rows that nothing explains."""
    cases = [
        _case(c, where, [np.asarray(g) for g in c.reference.grads], wrong, where.backward_graph)
    ]
    if ideal is not None:
        true = [ideal.gradient(k) for k in range(len(c.grads))]
        if all(np.isfinite(largest(g)) for g in true):
            graph = BackwardGraph(ideal.recording, dict(ideal._values))
            cases.append(_case(c, where, true, wrong, graph))
    findings = diagnose(*cases)
    explained = {k for finding in findings for k in finding.rows}
    return findings, [k for k in wrong if k not in explained]


def _case(
    c: Comparison, where: Where, true: list[Array], wrong: list[int], graph: BackwardGraph | None
) -> Case:
    session = c.subject.session

    def again(kind: str) -> list[Any]:
        try:
            with session.fresh():
                found = c.backward(other_upstream(c.upstream, kind))
        except CheckError:  # the code does not take it
            found = [None] * len(c.grads)
        finally:
            session.restore()
        return [g if k in wrong and g is not MISSING else None for k, g in enumerate(found)]

    return Case(
        names=c.subject.names,
        values=c.subject.values,
        automatic=true,
        handwritten=[None if g is MISSING else g for g in c.grads],
        wrong=wrong,
        tolerance=c.tolerance,
        floors=c.floors,
        graph=graph,
        upstream=c.upstream,
        again=None if not c.subject.takes_upstream else lru_cache(again),
        is_loss=c.subject.is_loss,
        deadline=where.deadline,
        seen=lambda: where.trail.moments if where.trail is not None else (),
        elsewhere=lru_cache(lambda: elsewhere(c.subject, c.reference.grads)),
    )


def _no_pattern(row: Row, *, late: bool) -> str:
    none = "no known pattern" + (" (the search stopped when its budget= was spent)" if late else "")
    if row.handwritten is None or row.automatic is None:
        return none
    h, g = np.asarray(row.handwritten), np.asarray(row.automatic)
    if h.shape != g.shape:
        return none
    if not np.isfinite(largest(h)):
        return f"{int((~np.isfinite(h)).sum())} of {h.size} entries are not finite"
    off = np.abs(h - g) > 1e-6 * max(largest(h), largest(g))
    return f"{none}; {int(off.sum())} of {h.size} entries differ, most at {row.index}"
