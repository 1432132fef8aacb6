"""Why a gradient is wrong, and where: what the diagnosis finds, written into the rows."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import replace
from functools import lru_cache, reduce
from operator import attrgetter

import numpy as np

from ..validation import Array
from .blocks import close, differing, largest
from .diagnosis.behind import behind
from .diagnosis.case import Case, Reason, other_upstream
from .diagnosis.diagnose import diagnose
from .diagnosis.elsewhere import elsewhere
from .diagnosis.factors import ratio
from .diagnosis.other_sizes import case_at_other_sizes
from .diagnosis.second_point import other_numbers, second_point
from .finding import Finding, found, together
from .guard import CheckError, guarded
from .lines.blame import places
from .reference.graph import Graph
from .reference.reference import at_these_values, find_reference
from .source import text_of
from .subject.conventions import TARGETS, means_upstream
from .subject.objects import positional_names
from .subject.subject import MISSING
from .verdict.doubt import compared, not_accepted
from .verdict.rows import FAILURES, Comparison, Gradients, Row
from .where import Where

_LITTLE = 2e-8  # to which a line is held to be right
_TERMS = ("term", "term_in_part")  # that differ from what is true by as much as is said


def explain(c: Comparison, where: Where, ideal: Graph | None) -> None:
    """Write into the wrong rows why they are wrong, by the true gradients or the ideal ones."""
    for k, why in (said := behind(c)).items():
        c.change(k, findings=(*c.rows[k].findings, why))
    left = [k for k in c.wrong if k not in said or said[k].kind == "follows"]
    too_little = not_accepted(c)
    left = [k for k in left if c.rows[k].findings[:1] != (too_little,)]
    if c.reference.grads:
        _explain_by_numbers(c, where, ideal, left, said)
        return
    nothing = found("no_pattern", late=False, differing=None)
    for k in left:
        c.change(k, findings=c.rows[k].findings or (nothing,))


def _explain_by_numbers(
    c: Comparison, where: Where, ideal: Graph | None, left: list[int], said: Collection[int]
) -> None:
    """Explain gradients by their numbers, and by lines that are right, but for those of `said`."""
    where.cases = cases = _cases(c, where, left, ideal)
    left = [k for k in left if k not in said]
    reasons = diagnose(*cases, rows=left)
    left = [k for k in left if not any(k in reason.rows for reason in reasons)]
    for k in left:
        lines, late = where.places(places, k), where.deadline.is_over
        why = where.remedy(k, cases) or _no_pattern(c.rows[k], c.tolerance, c.floors[k], late=late)
        if why.kind == "right_with" and ratio(cases[0], k) is not None:
            why = _of_sort(why, "factor")
        c.change(k, findings=together(c.rows[k].findings, why), lines=lines)
    for reason in reasons:
        for k in reason.rows:
            lines = reason.lines or where.places(places, k, reason)
            if reason.kind == "only" and where.sets(lines):
                fields = {**reason.finding.fields, "is_set": True}
                reason = replace(reason, finding=found("only", **fields))
            told = _told(where, k, reason, cases, left)
            c.change(k, findings=reduce(together, told, c.rows[k].findings), lines=lines)


def explain_what_is_off(c: Comparison, where: Where) -> None:
    """Write into rows that are off by little, and why is not known, with which line they are not.

    It may lack a small constant that backward has, say.
    """
    for k, row in c.rows.items():
        is_unknown = [what.kind for what in row.findings] == ["approximate"]
        if is_unknown and row.both is not None and not close(*row.both, _LITTLE, c.floors[k]):
            where.cases = _cases(c, where, [k], None)
            lines = where.places(places, k)
            why = where.remedy(k, where.cases)
            if why is not None:
                c.change(k, findings=(found("off_by_little", why=why),), lines=lines)


def _cases(c: Comparison, where: Where, left: Sequence[int], ideal: Graph | None) -> list[Case]:
    """Return the cases with the true gradients, and with those without a small constant."""
    cases = [_case(c, where, left, [np.asarray(g) for g in c.reference.grads], c.graph)]
    true = [] if ideal is None else [ideal.gradient(k) for k in range(len(c.grads))]
    if true and all(np.isfinite(largest(g)) for g in true):
        where.ideal = true
        cases.append(_case(c, where, left, true, ideal))
    return cases


def _told(
    where: Where, k: int, reason: Reason, cases: Sequence[Case], left: Sequence[int]
) -> list[Finding]:
    """Return what is said of a gradient with a reason: that, or a line that is right, or both."""
    mended: Finding | None = None
    # Twice the true gradient is that, whatever the line is; and a term may be one of the loss.
    is_twice = reason.kind == "times" and "n" in reason.finding.fields
    # A line that mends what no reason explains too tells more.
    if left or reason.tells_less:
        which = attrgetter("tells_more") if is_twice else bool
        mended = where.remedy(k, cases, [] if reason.tells_less else left, which)
    elif reason.kind in ("mean_missing", "averaged_over"):  # a number in the line: more
        mended = where.remedy(k, cases, which=attrgetter("is_number"))
    elif reason.kind in _TERMS or reason.finding.fields.get("is_set") is False:
        mended = where.remedy(k, cases)
    if mended is None:
        return [reason.finding]
    if not reason.is_unlikely and reason.rule is not None:
        mended = _of_sort(mended, reason.rule)
    return [reason.finding, mended] if is_twice or reason.kind in _TERMS else [mended]


def _of_sort(finding: Finding, rule: str) -> Finding:
    """Return a finding with what sort of mistake it is."""
    return found(finding.kind, **{**finding.fields, "rule": rule})


def _case(
    c: Comparison, where: Where, wrong: Sequence[int], true: list[Array], graph: Graph | None
) -> Case:
    """Return what the diagnosis has to go on, with these as the true gradients."""
    session, untold = c.subject.session, set(c.wrong).difference(wrong)
    session.restore()  # a pass may have updated the values
    before, changed = [*map(np.array, c.subject.values)], dict[str, None]()

    def again(kind: str) -> Gradients:
        try:
            with session.fresh():
                grads = c.backward(other_upstream(c.upstream, kind))
                now = zip(c.subject.names, c.subject.values, before, strict=True)
                changed.update({name: None for name, v, b in now if not np.array_equal(v, b)})
        except CheckError:  # the code does not take it
            grads = [None] * len(c.grads)
        finally:
            session.restore()
        return [g if k in c.wrong and g is not MISSING else None for k, g in enumerate(grads)]

    case = Case(
        names=c.subject.names,
        values=c.subject.values,
        automatic=true,
        handwritten=[None if g is MISSING or k in untold else g for k, g in enumerate(c.grads)],
        wrong=list(wrong),
        tolerance=c.tolerance,
        floors=c.floors,
        graph=graph,
        upstream=c.upstream,
        again=None if not c.subject.takes_upstream else lru_cache(again),
        deadline=where.deadline,
        changed=changed,
        n_inputs=c.subject.n_inputs,
        elsewhere=lru_cache(lambda: elsewhere(c.subject, c.reference.grads)),
        name_of_upstream=_name_of_upstream(c),
        has_lines=any(text_of(function) is not None for function in c.subject.backward_code),
    )
    case.second = lru_cache(lambda: second_point(c, case, ideal=graph is not c.graph))
    if graph is c.graph:
        case.at_other_sizes = lru_cache(lambda: case_at_other_sizes(case, where.elsewhere))
        case.at_other_settings = where.gradients_at_other_settings
    return case


def _name_of_upstream(c: Comparison) -> str | None:
    """Return what backward calls the upstream gradient; None where it takes none, or several."""
    if not c.subject.takes_upstream or len(c.upstream) != 1 or not c.subject.backward_code:
        return None
    at, code = c.subject.upstream_at, c.subject.backward_code[0]
    if at is None:
        names = filter(means_upstream, positional_names(code, 2))
        likeliest = sorted(names, key=lambda name: not name.startswith(("d", "grad")))
    else:
        likeliest = positional_names(code, at + 1)[-1:] if at >= 0 else []
    return next(filter(str.isidentifier, likeliest), None)


def _no_pattern(row: Row, tolerance: float, floor: float, *, late: bool) -> Finding:
    """Return what is said of a gradient that nothing explains."""
    h, g = np.asarray(row.handwritten), np.asarray(row.automatic)
    if row.handwritten is None or row.automatic is None or h.shape != g.shape:
        return found("no_pattern", late=late, differing=None)
    if not np.isfinite(largest(h)):
        return found("not_finite", count=int((~np.isfinite(h)).sum()), of=h.size)
    counts = (int(differing(h, g, share, floor).sum()) for share in (1e-6, tolerance))
    count = next(filter(None, counts), None)
    return found("no_pattern", late=late, differing=count, of=h.size, index=row.index)


# -------------------- values at which a mistake does not show --------------------

TELLING = (0.0, 1.0, -1.0, 2.0)  # single numbers that are like their squares, or doubles


def look_at_other_values(c: Comparison, where: Where) -> None:
    """Compare once more where values that hide mistakes are others; write it into the rows."""
    c.notes += _single_weights(c)
    is_flat = _is_flat(c)
    hiding = {k: what for k in c.rows if (what := _hides(c, k, is_flat=is_flat))}
    if not hiding:
        return
    beside = _beside(c, where, hiding)
    if beside is None:
        c.notes += [
            found("may_hide", name=c.subject.names[k], value=what) for k, what in hiding.items()
        ]
        return
    if is_flat and _is_flat(beside):
        c.notes.append(found("never_any_slope"))
    values = [found("value_is", name=c.subject.names[k], value=what) for k, what in hiding.items()]
    for k, row in beside.rows.items():
        if row.verdict in FAILURES and c.rows[k].verdict not in FAILURES:
            why = list(row.findings)
            by_chance = c.rows[k].verdict != "approximate"
            said = found("hidden", values=values if by_chance else [], why=why, rule=row.rule)
            c.rows[k] = replace(row, findings=(said,))


def _is_flat(c: Comparison) -> bool:
    """Tell whether all gradients are zero: then any multiple of them is right."""
    return bool(c.reference.grads) and not any(map(np.any, c.reference.grads))


def _single_weights(c: Comparison) -> list[Finding]:
    """Return what to say of matrices of one entry, whose transpose is the same at any value."""
    pairs = list(zip(c.subject.names, c.subject.values, c.grads, strict=True))[1:]
    single = [n for n, v, g in pairs if v.shape == (1, 1) and g is not MISSING]
    names = [n for n in single if n.split(".")[-1].strip("_")[:1].lower() != "b"]
    return [found("one_by_one", names=names)] if names else []


def _beside(c: Comparison, where: Where, hiding: dict[int, Finding]) -> Comparison | None:
    """Return the comparison at other values, explained; None where it cannot be had."""
    subject, rng = c.subject, np.random.default_rng(0)
    if not c.reference.grads or not subject.backward_code:
        return None
    values = [subject.values[k] for k in hiding]
    with subject.session.moved(values, [other_numbers(value, rng) for value in values]):
        try:
            moved = at_these_values(subject)
            reference = find_reference(moved, rng, 1.0)
            with subject.session.fresh():
                grads = c.backward()
        except CheckError:  # outside of the domain
            return None
        if reference.kind != c.reference.kind or not reference.grads:
            return None
        beside, ideal = compared(moved, reference, grads, c.tolerances)
        if not set(beside.wrong) <= set(c.wrong):
            with guarded("the search for why", c.notes):
                explain(beside, Where(beside, where.deadline.left), ideal)
        return beside


def _hides(c: Comparison, k: int, *, is_flat: bool) -> Finding | None:
    """Return what is to be said of a value that hides mistakes; None of any other."""
    value, name = c.subject.values[k], c.subject.names[k]
    if c.grads[k] is MISSING or k in c.subject.marks or name.strip("_") in TARGETS:
        return None
    if is_flat:  # any multiple of a gradient of zeros is right
        return found("has_no_slope")
    return _hides_by_its_numbers(value, c.reference.grads[k] if c.reference.grads else value)


def _hides_by_its_numbers(value: Array, gradient: Array) -> Finding | None:
    """Return what is to be said of numbers that are alike; None of others."""
    if value.size == 1:
        return found("is_number", value=value.item()) if value.item() in TELLING else None
    if abs(value.flat[0]) == abs(value.flat[-1]) and np.ptp(np.abs(value)) == 0:
        constant = found("is_constant", value=float(value.flat[0]))
        return constant if np.ptp(value) == 0 else found("has_one_size")
    is_square = value.ndim == 2 and value.shape[0] == value.shape[1]
    if not is_square or value[0, -1] != value[-1, 0] or not np.array_equal(value, value.T):
        return None
    # With a symmetric gradient it stays so, and may be meant so.
    return None if close(gradient, gradient.T, 1e-9) else found("is_symmetric")
