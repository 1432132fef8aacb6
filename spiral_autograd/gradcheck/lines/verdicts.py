"""The lines of what verdicts tell by themselves: a gradient of an earlier call, a kink."""

from __future__ import annotations

import ast
from collections.abc import Callable, Iterable, Iterator

from ...recording import name_of
from ..primitives import primitive
from ..source import Place, Step, Text, forward_line, root_of, text_of
from .blame import Blame, blame_of
from .ran import Evidence


def state_places(evidence: Evidence, k: int, kind: str) -> tuple[Place, ...]:
    """Return where a gradient depends on an earlier call: it "accumulates", is "stale", …."""
    blame = blame_of(evidence)
    if kind == "stale":
        return tuple(_keeping(blame, k))[:1] if blame is not None else ()
    made = [blame.events[m.event] for m in blame.equal(k)] if blame is not None else []
    if kind == "accumulates":
        adding = [event for event in made if event.step is not None and _adds(event.step)]
        return tuple(event.place for event in (adding or made))[-1:]
    found = [*_where(evidence, text_of(evidence.backward), _changes_itself)]
    return tuple(dict.fromkeys([*found, *(event.place for event in made[-1:])]))[:3]


def _keeping(blame: Blame, k: int) -> list[Place]:
    """Return the statements that may leave what an earlier call has set, and those that read it."""
    texts = filter(None, dict.fromkeys(text_of(run.code) for run in blame.trail.runs))
    steps = {text.place(step): step for text in texts for step in text.steps}
    fed = filter(None, (blame.events[number].step for number in blame.feeding(k)))
    used = _attributes(name for step in fed for name in step.reads)
    guarded = {place: _kept(step) for place, step in steps.items() if _is_guarded(step)}
    kept = {place: names for place, names in guarded.items() if _attributes(names) & used}
    names = set().union(*(kept or guarded).values())
    readers = [place for place, step in steps.items() if step.reads & names]
    return list(dict.fromkeys([*(kept or guarded), *readers]))


def _attributes(names: Iterable[str]) -> set[str]:
    return {name.split(".")[-1] for name in names if "." in name}


def _where(evidence: Evidence, text: Text | None, asked: Callable[[Step], bool]) -> Iterator[Place]:
    """Yield the places of the statements of a text that ran and are asked for."""
    places = (text.place(step) for step in text.steps if asked(step)) if text is not None else ()
    return (place for place in places if _has_run(evidence, place))


def _has_run(evidence: Evidence, place: Place) -> bool:
    """Tell whether a line ran, or is one of the forward pass, which decides for another call."""
    forward, trail = text_of(evidence.forward), evidence.trail
    if trail is None or any(event.place == place for event in trail.events):
        return True
    return forward is not None and place[0] == forward.file and forward.at(place[1]) is not None


def _kept(step: Step) -> set[str]:
    """Return the attributes that a statement sets."""
    return {name for name in step.writes if "." in name}


def _changes_itself(step: Step) -> bool:
    return bool(_kept(step)) and (bool(_kept(step) & step.reads) or _asks(step))


def _asks(step: Step) -> bool:
    """Tell whether a statement asks for an attribute of which it is not sure: getattr, hasattr."""
    names = {name.split(".")[-1] for name in step.reads}
    return bool(names & {"getattr", "hasattr", "setdefault", "get"})


def _is_guarded(step: Step) -> bool:
    """Tell whether an attribute may keep its value: it is read, or asked for, where it is set."""
    if not _kept(step) or isinstance(step.node, ast.AugAssign):
        return bool(_kept(step))
    choice = isinstance(getattr(step.node, "value", None), ast.BoolOp | ast.IfExp)
    inside = any(isinstance(block, ast.If | ast.Try) for block in step.blocks)
    return inside or _asks(step) or (choice and bool(_kept(step) & step.reads))


def _adds(step: Step) -> bool:
    return isinstance(step.node, ast.AugAssign | ast.Expr) or _changes_itself(step)


def kink_places(evidence: Evidence, k: int) -> tuple[Place, ...]:
    """Return the forward line that has the kink, and the backward line that decides at it."""
    calls = evidence.recording.calls if evidence.recording is not None else []
    bent = [c for c in calls if c.gradient_of is None and primitive(name_of(c.fun)).kinks]
    found = [line for line in map(forward_line, bent) if line is not None][:1]
    found = found or [*_where(evidence, text_of(evidence.forward), _decides)][:1]
    found += [*_where(evidence, text_of(evidence.backward), _decides)][:1]
    if len(found) < 2 and (blame := blame_of(evidence)) is not None:
        found += blame.by_values(k)[0][:1]
    return tuple(dict.fromkeys(found))[:3]


def _decides(step: Step) -> bool:
    """Tell whether a statement compares, or takes a largest or smallest."""
    if isinstance(step.node, ast.If | ast.For | ast.While | ast.Assert):
        return False
    nodes = list(ast.walk(step.node))
    called = [root_of(node.func).split(".")[-1] for node in nodes if isinstance(node, ast.Call)]
    compares = any(isinstance(node, ast.Compare) for node in nodes)
    return compares or any(primitive(name).kinks for name in called)
