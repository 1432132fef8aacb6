"""Where: the lines of a handwritten backward pass at which a gradient goes wrong."""

from __future__ import annotations

import ast
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..recording import Call, name_of
from .compare import close
from .moments import LARGEST, Known, Moment, backward_line, forward_line, last_line_of
from .source import Step, Text, feeding, is_plain, root_of, targets_of, text_around, text_of

_KINKS = set(
    "maximum minimum max min amax amin fmax fmin abs absolute fabs clip where sign heaviside "
    "argmax argmin greater less greater_equal less_equal argsort sort select".split()
)


@dataclass(frozen=True, eq=False)
class Trail:
    """How a gradient came about: the statement that gives it out, and those that feed it."""

    sink: Step
    steps: tuple[Step, ...]
    value: Any = None  # the part of the statement that is this gradient


def _inside(text: Text, seen: Sequence[Moment]) -> list[Moment]:
    return [m for m in seen if m.file == text.file and text.first <= m.line <= text.last]


def _trail(text: Text, mine: Sequence[Moment], grad: Any) -> Trail | None:
    """Return the trail of a handwritten gradient, found by its numbers."""
    if grad is None or not isinstance(grad, np.ndarray | np.floating | float):
        return None
    equal = [m for m in mine if _identical(m.value, grad)]
    given = [m for m in equal if m.name.startswith("return[")]
    for moment in reversed([*equal, *given]):
        step = text.at(moment.line)
        if step is None:
            continue
        reads: Iterable[str] = step.reads
        value = getattr(step.node, "value", None)
        if moment.name.startswith("return[") and isinstance(value, ast.Tuple):
            index = moment.name[7:].split("]")[0]
            if index.isdigit() and int(index) < len(value.elts):
                value = value.elts[int(index)]
                names = ast.walk(value)
                reads = {root_of(n) for n in names if isinstance(n, ast.Name | ast.Attribute)}
        return Trail(step, tuple(feeding(text, step, reads)), value)
    return None


def _identical(ours: Any, theirs: Any) -> bool:
    return np.shape(ours) == np.shape(theirs) and np.array_equal(ours, theirs)


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
    text = _working_text(evidence, k)
    rule = finding.rule if finding is not None else None
    if rule == "layout" and "arguments swapped" in finding.text and text is not None:
        trail = _trail(text, _inside(text, evidence.seen), evidence.grads[k])
        if trail is not None and len(evidence.wrong) > 1:
            return (text.place(trail.sink),)
    found = [_forward_place(evidence, k, finding)]
    if rule == "unwritten":
        found += _unwritten(evidence, k, text)
    else:
        suspects = _suspects(evidence, k, text, rule) if text is not None else []
        products = [*(finding.products if finding is not None else []), evidence.grads[k]]
        tolerance = max(evidence.tolerance, 1e-9)
        made = backward_line(evidence.seen, products, evidence.true_values, tolerance)
        whole = text_of(evidence.backward)
        outside = whole is None or made is None or not _within(whole, made)
        if made is not None and text is not None and outside and not _within(text, made):
            made = made if not suspects else None
        ends = [*suspects[:1], *suspects[-1:]]
        found += [*ends[:1], made, *ends[1:]] if rule is None else [made, *ends]
        if found == [None] * len(found) and evidence.grads[k] is not None:
            found.append(last_line_of(evidence.seen, evidence.grads[k]))
    if found[0] is None and evidence.graph is None and text is not None:
        found[0] = _namesake(evidence, text, found[1:])
    return tuple(list(dict.fromkeys(place for place in found if place is not None))[:3])


def _working_text(evidence: Evidence, k: int) -> Text | None:
    """Return the text of the backward pass; or of what it hands the work to."""
    text, grad = text_of(evidence.backward), evidence.grads[k]
    if text is None or grad is None:
        return text
    trail = _trail(text, _inside(text, evidence.seen), grad)
    made = last_line_of(evidence.seen, grad)
    if trail is None or made is None or _within(text, made):
        return text
    working = [s for s in trail.steps if not is_plain(text, s)]
    working = [s for s in working if s is not trail.sink or not _only_gives(trail)]
    return (text_around(*made) or text) if len(working) <= 2 else text


def _within(text: Text, place: tuple[str, int]) -> bool:
    return place[0] == text.file and text.first <= place[1] <= text.last


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
        users = [c for c in graph.forward if any(a is root for a in c.args)]
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


def _suspects(evidence: Evidence, k: int, text: Text, rule: str | None) -> list[tuple[str, int]]:
    """Return the lines that feed wrong gradients and no right one, those shown right left out."""
    mine = _inside(text, evidence.seen)
    own = _trail(text, mine, evidence.grads[k])
    if own is None:
        ends = [step for step in text.steps if isinstance(step.node, ast.Return)]
        return [text.place(step) for step in ends[-1:]]
    shared = own.steps if rule == "layout" else _shared(evidence, text, mine, own)
    fine = _feeding_right(evidence, text, mine)
    shown = _shown_right(evidence, text, mine, rule)
    for cleared in (fine | shown, shown, fine, set()):
        left = [s for s in shared if id(s) not in cleared and not is_plain(text, s)]
        left = [s for s in left if s is not own.sink or not _only_gives(own)]
        if left:
            given = [s for s in left if any(map(_is_gradient_name, s.writes))]
            return [text.place(step) for step in (left if cleared else given or left)]
    return [text.place(own.sink)]


def _only_gives(trail: Trail) -> bool:
    """Tell whether a gradient is returned as others made it."""
    if not isinstance(trail.sink.node, ast.Return) or trail.value is None:
        return False
    computing = ast.BinOp | ast.UnaryOp | ast.Call | ast.IfExp
    return not any(isinstance(item, computing) for item in ast.walk(trail.value))


def _shared(evidence: Evidence, text: Text, mine: Sequence[Moment], own: Trail) -> tuple[Step, ...]:
    """Return the statements that all wrong gradients come from, else those of this one."""
    trails = [_trail(text, mine, evidence.grads[j]) for j in evidence.wrong]
    common = {id(step) for step in own.steps}
    for trail in trails:
        if trail is not None:
            common &= {id(step) for step in trail.steps}
    steps = tuple(s for s in own.steps if id(s) in common)
    return steps if any(not is_plain(text, s) for s in steps) else own.steps


def _feeding_right(evidence: Evidence, text: Text, mine: Sequence[Moment]) -> set[int]:
    found: set[int] = set()
    for j in evidence.right:
        trail = _trail(text, mine, evidence.grads[j])
        if trail is not None:
            found |= {id(s) for s in trail.steps if not isinstance(s.node, ast.Return)}
    return found


def _shown_right(
    evidence: Evidence, text: Text, mine: Sequence[Moment], rule: str | None
) -> set[int]:
    """Return the statements whose values autograd has too, and those that feed them."""
    calls = [c for c in _calls(evidence.graph) if _is_known(c.value)]
    upstream = Known(evidence.upstream)
    calls = [c for c in calls if not upstream.which(c.value, 1e-12)]
    made_at = [forward_line(c) if c.gradient_of is None else None for c in calls]
    known = Known([c.value for c in calls])
    bad = [np.asarray(evidence.grads[j]) for j in evidence.wrong if evidence.grads[j] is not None]
    found: set[int] = set()
    for step in text.steps:
        here = [m for m in mine if step.line <= m.line <= step.end]
        made = [m.value for m in here if _root_name(m) in step.writes]
        if not made or any(_identical(v, b) for v in made for b in bad):
            continue
        # A gradient that is equal to a forward value has lost the rest of its factors.
        lost = rule in ("value", "upstream") and any(map(_is_gradient_name, step.writes))

        def is_shown(value: Any, step: Step = step, lost: bool = lost) -> bool:
            same = [(calls[i], made_at[i]) for i in known.which(value, 1e-9)]
            forward = [at for call, at in same if call.gradient_of is None]
            return len(forward) < len(same) or (
                not lost and any(at != text.place(step) for at in forward)
            )

        if all(map(is_shown, made)):
            found |= {id(other) for other in feeding(text, step, step.reads)}
    return found


def _calls(graph: Any) -> list[Call]:
    return list(graph.calls) if graph is not None else []


def _is_known(value: Any) -> bool:
    array = np.asarray(value)
    return 1 < array.size <= LARGEST and array.dtype.kind == "f" and bool(np.isfinite(array).all())


def _is_gradient_name(name: str) -> bool:
    return name.split(".")[-1].lower().startswith(("d", "grad", "g_"))


def _root_name(moment: Moment) -> str:
    return moment.name.split("[")[0]


def _unwritten(evidence: Evidence, k: int, text: Text | None) -> list[tuple[str, int] | None]:
    """Return the line that makes the true gradient, if any does, and where it is given out."""
    if text is None:
        return []
    true = evidence.automatic[k]
    for moment in _inside(text, evidence.seen):
        if close(moment.value, true, 1e-6) and np.any(true):
            return [(moment.file, moment.line), _end(text)]
    return [_end(text)]


def _end(text: Text) -> tuple[str, int]:
    ends = [step.line for step in text.steps if isinstance(step.node, ast.Return)]
    return text.file, ends[-1] if ends else text.first


def _namesake(
    evidence: Evidence, text: Text, found: Sequence[tuple[str, int] | None]
) -> tuple[str, int] | None:
    """Return the forward line that makes h, where the first suspect line makes dh."""
    forward = text_of(evidence.forward)
    for place in found:
        step = text.at(place[1]) if place is not None and _within(text, place) else None
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
    text, forward = text_of(evidence.backward), text_of(evidence.forward)
    if why == "stale" and forward is not None:
        kept = [step for step in forward.steps if _is_guarded(step)]
        names = {name for step in kept for name in step.writes}
        found = [forward.place(step) for step in kept]
        if text is not None:
            found += [text.place(step) for step in text.steps if step.reads & names]
        return tuple(dict.fromkeys(found))[:3]
    if text is None:
        return ()
    if why == "accumulates":
        return _adding(evidence, k, text)
    found = [text.place(s) for s in text.steps if _kept(s) and (_kept(s) & s.reads or _asks(s))]
    trail = _trail(text, _inside(text, evidence.seen), evidence.grads[k])
    found += [text.place(trail.sink)] if trail is not None else []
    return tuple(dict.fromkeys(found))[:3]


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


def _adding(evidence: Evidence, k: int, text: Text) -> tuple[tuple[str, int], ...]:
    """Return the line that adds to what is there."""
    mine = _inside(text, evidence.seen)
    lines = {m.line for m in mine if _identical(m.value, evidence.grads[k])}
    adding = [s for s in text.steps if isinstance(s.node, ast.AugAssign | ast.Expr) and s.writes]
    of_it = [s for s in adding if any(s.line <= n <= s.end for n in lines)]
    kept = [s for s in of_it if not isinstance(s.node, ast.AugAssign) or _stores(s)]
    chosen = kept or of_it or [s for s in adding if _stores(s)]
    return tuple(text.place(step) for step in chosen[-1:])


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
        found += [text.place(s) for s in text.steps if _decides(s)][:1]
    if len(found) < 2:
        text = text_of(evidence.backward)
        trail = _trail(text, _inside(text, evidence.seen), evidence.grads[k]) if text else None
        steps = [s for s in (trail.steps if trail else ()) if text and not is_plain(text, s)]
        masked = [s for s in steps if any(isinstance(t, ast.Subscript) for t in targets_of(s.node))]
        found += [text.place(s) for s in (masked or steps)[-1:] if text]
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
