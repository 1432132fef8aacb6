"""Where: the lines of a handwritten backward pass at which a gradient goes wrong."""

from __future__ import annotations

import ast
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ...recording import Call, name_of
from ..blocks import close
from ..guard import NEVER, Deadline
from ..source import Step, Text, code_of, forward_line, steps_of, targets_of, text_of
from .moments import Moment
from .slices import Slices
from .suspects import attributes_of, made_at, suspects

_KINKS = set(
    "maximum minimum max min amax amin fmax fmin abs absolute fabs clip where sign heaviside "
    "argmax argmin greater less greater_equal less_equal argsort sort select".split()
)


@dataclass
class Evidence:
    """What the place of a mistake is told from.

    Attributes
    ----------
    grads, automatic : lists
        The handwritten gradients and those of the reference.
    wrong, right : lists of int
        Which of them are wrong, and which right.
    seen : list of Moment
        What the lines of the handwritten pass made.
    true_values : list of arrays
        The upstream gradient, and the values of autograd's graph.
    upstream : list of arrays
    graph : BackwardGraph or None
    forward, backward : callables or None
        The user's own functions.
    tolerance : float
    slices : Slices or None
    deadline : Deadline
    """

    grads: Sequence[Any]
    automatic: Sequence[Any]
    wrong: Sequence[int]
    right: Sequence[int]
    seen: Sequence[Moment]
    true_values: Sequence[Any]
    upstream: Sequence[Any]
    graph: Any
    forward: Any
    backward: Any
    tolerance: float = 1e-9
    slices: Slices | None = None
    deadline: Deadline = NEVER
    inquiry: Any = None  # what suspects has found out so far


def places(evidence: Evidence, k: int, finding: Any = None) -> tuple[tuple[str, int], ...]:
    """Return where the k-th gradient goes wrong: at most three places, forward ones first.

    Parameters
    ----------
    evidence : Evidence
    k : int
    finding : Finding, optional
        The mistake, with its forward operation and the wrong values that it makes.

    Returns
    -------
    tuple of (str, int)
        File and line.
    """
    rule = finding.rule if finding is not None else None
    if rule == "unwritten":
        found = [_forward_place(evidence, k, finding), *_unwritten(evidence, k)]
    else:
        guilty = suspects(evidence, k, finding) or _ends(evidence)
        found = [_forward_place(evidence, k, finding), *guilty]
        if finding is not None and finding.kind == "swapped" and len(evidence.wrong) > 1:
            return tuple(guilty)
    text = text_of(evidence.backward)
    if found[0] is None and evidence.graph is None and text is not None:
        found[0] = _namesake(evidence, text, found[1:])
    return tuple(list(dict.fromkeys(place for place in found if place is not None))[:3])


def _forward_place(evidence: Evidence, k: int, finding: Any) -> tuple[str, int] | None:
    """Return the line of the forward operation whose gradient is wrong."""
    graph = evidence.graph
    if graph is None or finding is None:
        return None
    if finding.rule == "factor":
        scaled = _scaled_at(evidence, k)
        if scaled is not None:
            return scaled
    call = finding.call
    if call is None:
        root = graph.recording.params[k]
        users = [c for c in graph.adjoints if any(a is root for a in c.args)]
        call = next((c for c in users if forward_line(c) is not None), None)
    return forward_line(call)


def _scaled_at(evidence: Evidence, k: int) -> tuple[str, int] | None:
    """Return the last forward line that multiplies by, or averages over, the lost factor."""
    g, h = np.asarray(evidence.automatic[k]), np.asarray(evidence.grads[k])
    norm = float(np.sum(g * g))
    if g.shape != h.shape or norm == 0:
        return None
    c = float(np.sum(g * h)) / norm
    for call in reversed(evidence.graph.forward):
        factors = [float(a) for a in call.args if isinstance(a, int | float) and a]
        sizes = [np.size(a.value) for a in call.args if isinstance(a, Call)]
        if sizes and name_of(call.fun) in ("mean", "average"):
            factors.append(sizes[0] / max(1, np.size(call.value)))
        for f in factors:
            if f not in (1, -1) and any(abs(abs(c) - x) < 1e-6 * x for x in (abs(f), 1 / abs(f))):
                return forward_line(call)
    return None


def _unwritten(evidence: Evidence, k: int) -> list[tuple[str, int] | None]:
    """Return the line that makes the true gradient, if any does, and where it is given out."""
    true, end = evidence.automatic[k], _ends(evidence)
    for moment in evidence.seen:
        if close(moment.value, true, 1e-6) and np.any(true) and _ran(evidence, moment):
            return [(moment.file, moment.line), *end]
    return [*end]


def _ran(evidence: Evidence, moment: Moment) -> bool:
    """Tell whether a moment is one of the backward pass."""
    slices = evidence.slices
    start = slices.start_of(code_of(evidence.backward)) if slices is not None else 0
    return moment.event is not None and moment.event >= start


def _ends(evidence: Evidence) -> list[tuple[str, int]]:
    """Return the statement that ends the backward pass: the innermost that hands out its result."""
    slices, code = evidence.slices, code_of(evidence.backward)
    entries = slices.history.entries if slices is not None else []
    runs = [entry for entry in entries if entry.code is code and entry.event is not None]
    if slices is None or not runs:
        return []
    event = slices.history.events[runs[-1].event or 0]
    while event.returns and not isinstance(event.step and event.step.node, ast.Expr):
        event = slices.history.events[event.returns[-1][0]]
    return [(event.file, event.line)]


def _namesake(
    evidence: Evidence, text: Text, found: Sequence[tuple[str, int] | None]
) -> tuple[str, int] | None:
    """Return the forward line that makes h, where the first suspect line makes dh."""
    forward = text_of(evidence.forward)
    for place in found:
        step = text.at(place[1]) if place is not None and place[0] == text.file else None
        for name in step.writes if step is not None else ():
            bare = name.split(".")[-1]
            if forward is not None and len(bare) > 1 and bare[0] == "d":
                makers = [s for s in forward.steps if bare[1:].lstrip("_") in s.writes]
                if makers:
                    return forward.place(makers[-1])
    return None


# -------------------- a second call, a kink, a replaced array --------------------


def state_places(evidence: Evidence, k: int, why: str) -> tuple[tuple[str, int], ...]:
    """Return where a gradient depends on an earlier call.

    Parameters
    ----------
    evidence : Evidence
    k : int
    why : str
        "accumulates", "second call" or "stale".

    Returns
    -------
    tuple of (str, int)
    """
    text = text_of(evidence.backward)
    if why == "accumulates":
        found = _adding(evidence, k)
    elif why == "stale":
        found = _keeping(evidence, k)
    else:
        steps = text.steps if text is not None else ()
        found = [text.place(s) for s in steps if text and _changes_itself(s)]
        found += made_at(evidence, k)[-1:]
    ran = [p for p in dict.fromkeys(found) if why == "stale" or _has_run(evidence, p)]
    return tuple(ran[:3])


def _keeping(evidence: Evidence, k: int) -> list[tuple[str, int]]:
    """Return the statements that may leave what an earlier call has set, and those that read it."""
    history = evidence.slices.history if evidence.slices is not None else None
    codes = dict.fromkeys(entry.code for entry in history.entries) if history is not None else {}
    texts = [(code.co_filename, steps_of(code).values()) for code in codes]
    guarded = {(file, s.line): s for file, steps in texts for s in steps if _is_guarded(s)}
    used = attributes_of(evidence, k)
    kept = {
        place: step
        for place, step in guarded.items()
        if any(name.split(".")[-1] in used for name in _kept(step))
    } or guarded
    names = {name for step in kept.values() for name in _kept(step)}
    readers = [(file, s.line) for file, steps in texts for s in steps if s.reads & names]
    return [*kept, *(place for place in readers if place not in kept)]


def _has_run(evidence: Evidence, place: tuple[str, int]) -> bool:
    """Tell whether a line ran, or is the head of a branch that decides for another call."""
    return evidence.slices is None or evidence.slices.ran(place) or _is_forward(evidence, place)


def _is_forward(evidence: Evidence, place: tuple[str, int]) -> bool:
    forward = text_of(evidence.forward)
    return forward is not None and place[0] == forward.file and forward.at(place[1]) is not None


def _changes_itself(step: Step) -> bool:
    return bool(_kept(step)) and (bool(_kept(step) & step.reads) or _asks(step))


def _kept(step: Step) -> set[str]:
    return {name for name in step.writes if "." in name}


def _asks(step: Step) -> bool:
    """Tell whether a statement asks for an attribute of which it is not sure: getattr, hasattr."""
    names = {n.split(".")[-1] for n in step.reads}
    return bool(names & {"getattr", "hasattr", "setdefault", "get"})


def _is_guarded(step: Step) -> bool:
    """Tell whether an attribute may keep its value: it is read, or asked for, where it is set."""
    if not _kept(step) or isinstance(step.node, ast.AugAssign):
        return bool(_kept(step))
    value = getattr(step.node, "value", None)
    choice = isinstance(value, ast.BoolOp | ast.IfExp) and bool(_kept(step) & step.reads)
    inside = any(isinstance(block, ast.If | ast.Try) for block in step.blocks)
    return choice or inside or (_asks(step) and bool(_kept(step)))


def _adding(evidence: Evidence, k: int) -> list[tuple[str, int]]:
    """Return the statement that adds to what is there; else the one that makes the gradient."""
    slices = evidence.slices
    made = made_at(evidence, k)
    if slices is None:
        return made[-1:]
    steps = {(e.file, e.line): e.step for e in slices.history.events if (e.file, e.line) in made}
    adding = [place for place, step in steps.items() if step is not None and _adds(step)]
    kept = [place for place in adding if (step := steps[place]) is not None and _stores(step)]
    return (kept or adding or made)[-1:]


def _adds(step: Step) -> bool:
    return isinstance(step.node, ast.AugAssign | ast.Expr) or _changes_itself(step)


def _stores(step: Step) -> bool:
    return any(isinstance(t, ast.Subscript | ast.Attribute) for t in targets_of(step.node))


def kink_places(evidence: Evidence, k: int) -> tuple[tuple[str, int], ...]:
    """Return the forward line that has the kink, and the backward line that decides at it."""
    found: list[tuple[str, int] | None] = []
    calls = evidence.graph.calls if evidence.graph is not None else []
    bent = [c for c in calls if c.gradient_of is None and name_of(c.fun) in _KINKS]
    found += [place for place in map(forward_line, bent) if place is not None][:1]
    for number, text in enumerate((text_of(evidence.forward), text_of(evidence.backward))):
        if text is None or (number == 0 and found):
            continue
        places = [text.place(step) for step in text.steps if _decides(step)]
        found += [place for place in places if _has_run(evidence, place)][:1]
    if len(found) < 2:
        found += suspects(evidence, k)[:1]
    return tuple(dict.fromkeys(place for place in found if place is not None))[:3]


def _decides(step: Step) -> bool:
    """Tell whether a statement compares, or takes a largest or smallest."""
    if isinstance(step.node, ast.If | ast.For | ast.While | ast.Assert):
        return False
    for node in ast.walk(step.node):
        if isinstance(node, ast.Compare):
            return True
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name | ast.Attribute):
            name = node.func.id if isinstance(node.func, ast.Name) else node.func.attr
            if name in _KINKS:
                return True
    return False
