"""Why a gradient is wrong, and where: what the diagnosis finds, written into the rows."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np

from ..validation import Array
from .blocks import largest
from .diagnosis.case import Case, other_upstream
from .diagnosis.elsewhere import elsewhere
from .diagnosis.search import diagnose
from .finding import Finding, found, together
from .guard import CheckError
from .lines.lines import places
from .reference.graph import Graph
from .reference.stepping import best_of, estimates, unit_of
from .subject.subject import MISSING
from .verdict.comparison import Comparison
from .verdict.rows import Row
from .where import Where


def explain(c: Comparison, where: Where, ideal: Graph | None) -> None:
    """Write into the wrong rows why they are wrong, and where.

    `ideal` is the graph of the forward pass without its small constant: a mistake may be one
    against the gradient of that.
    """
    left = c.wrong
    if not c.reference.grads:
        for k in left:
            c.change(
                k, findings=c.rows[k].findings or (found("no_pattern", late=False, differing=None),)
            )
        return
    cases = [_case(c, where, [np.asarray(g) for g in c.reference.grads], c.graph)]
    if ideal is not None:
        true = [ideal.gradient(k) for k in range(len(c.grads))]
        if all(np.isfinite(largest(g)) for g in true):
            cases.append(_case(c, where, true, ideal))
    for reason in diagnose(*cases):
        for k in reason.rows:
            left.remove(k)
            lines = reason.lines or where.places(places, k, reason)
            c.change(k, findings=together(c.rows[k].findings, reason.finding), lines=lines)
    for k in left:
        why = _no_pattern(c.rows[k], late=where.deadline.is_over)
        c.change(k, findings=together(c.rows[k].findings, why), lines=where.places(places, k))


def ask_differences(c: Comparison) -> None:
    """Ask central differences about the wrong rows; what they side with is right, or said."""
    agreeing = [c.rows[k].name for k in c.wrong if c.reference.grads and _differences_agree(c, k)]
    if agreeing and c.reference.kind != "central differences":
        side = "autograd" if c.reference.kind == "autograd" else f"the {c.reference.kind}"
        c.notes.append(f"central differences side with {side}: {', '.join(agreeing)}")


def _case(c: Comparison, where: Where, true: list[Array], graph: Graph | None) -> Case:
    """Return what the diagnosis has to go on, with these as the true gradients."""
    session = c.subject.session

    def again(kind: str) -> list[Any]:
        try:
            with session.fresh():
                grads = c.backward(other_upstream(c.upstream, kind))
        except CheckError:  # the code does not take it
            grads = [None] * len(c.grads)
        finally:
            session.restore()
        return [g if k in c.wrong and g is not MISSING else None for k, g in enumerate(grads)]

    return Case(
        names=c.subject.names,
        values=c.subject.values,
        automatic=true,
        handwritten=[None if g is MISSING else g for g in c.grads],
        wrong=c.wrong,
        tolerance=c.tolerance,
        floors=c.floors,
        graph=graph,
        upstream=c.upstream,
        again=None if not c.subject.takes_upstream else lru_cache(again),
        deadline=where.deadline,
        elsewhere=lru_cache(lambda: elsewhere(c.subject, c.reference.grads)),
    )


def _no_pattern(row: Row, *, late: bool) -> Finding:
    """Return what is said of a gradient that nothing explains."""
    h, g = np.asarray(row.handwritten), np.asarray(row.automatic)
    if row.handwritten is None or row.automatic is None or h.shape != g.shape:
        return found("no_pattern", late=late, differing=None)
    if not np.isfinite(largest(h)):
        return found("not_finite", count=int((~np.isfinite(h)).sum()), of=h.size)
    differing = int((np.abs(h - g) > 1e-6 * max(largest(h), largest(g))).sum())
    return found("no_pattern", late=late, differing=differing, of=h.size, index=row.index)


def _differences_agree(c: Comparison, k: int) -> bool:
    """Ask central differences, in the direction in which the two gradients differ most.

    Where they side with the handwritten gradient, the row says so, and is not called wrong.
    """
    h, g = c.grads[k], c.reference.grads[k]
    if h is None or np.shape(h) != g.shape or not np.isfinite(largest(h)):
        return False
    h = np.asarray(h, dtype=float)  # of a matrix too
    direction = h - g
    norm = float(np.linalg.norm(direction.ravel()))
    if norm == 0 or not np.isfinite(norm):
        return False
    direction /= norm
    ours, theirs = float(np.vdot(h, direction)), float(np.vdot(g, direction))
    single, double = c.reference.single, c.reference.double
    sizes = np.maximum(np.abs(direction), 1e-12 * largest(direction))
    unit = float(
        np.min(unit_of(c.subject.values[k]) / sizes)
    )  # no entry moves by more than its own
    along = {k: unit * direction}
    best = best_of(estimates(c.subject, c.upstream, along, single=single, double=double))
    measured = best.value / unit
    if not best.error / unit <= 0.1 * abs(ours - theirs):
        return False  # they cannot tell
    if abs(measured - theirs) < 0.1 * abs(measured - ours):
        return True
    if abs(measured - ours) < 0.1 * abs(measured - theirs):
        why = (
            f"central differences side with the handwritten gradient, not with the reference "
            f"({c.reference.kind}), which may be wrong here"
        )
        c.change(k, verdict="approximate", findings=(found("text", text=why),), lines=())
    return False
