"""The same mistake in each turn of a loop."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from ...recording import Call
from ..reference.backward_graph import BackwardGraph
from .case import Case
from .edits import Edit, exchanged, unmoved_operand, wrong_operands

Generate = Callable[[Case, BackwardGraph, Call], Iterator[Edit]]


def in_loops(case: Case, graph: BackwardGraph, generate: Generate) -> Iterator[Edit]:
    """Make the same change at all calls that one operation of a loop's body made."""
    for calls in graph.turns:
        case.deadline.check()
        together: dict[Any, list[Edit]] = {}
        for call in calls:
            for edit in generate(case, graph, call):
                together.setdefault(edit.key, []).append(edit)
        yield from at_each_turn(graph, [e for e in together.values() if len(e) == len(calls)])


def operands_in_loops(case: Case, graph: BackwardGraph) -> Iterator[Edit]:
    """Multiply by another value of the same turn, in each."""
    made: dict[Any, list[Call]] = {}
    for call in graph.forward:
        made.setdefault(call.instruction, []).append(call)
    for calls in graph.turns:
        for edit in wrong_operands(case, graph, calls[0]):
            case.deadline.check()
            _, _, position, instruction = edit.key
            others = made.get(instruction, [])
            due, moved = unmoved_operand(calls[0].args[position])
            shape = graph.array(due).shape
            if len(others) != len(calls) or any(graph.array(o).shape != shape for o in others):
                continue
            # Backward calls come from the last turn to the first.
            pairs = zip(calls, reversed(others), strict=True)
            changes = {c: exchanged(position, moved(graph.array(o))) for c, o in pairs}
            yield from at_each_turn(
                graph, [[Edit(edit.rule, edit.text, edit.of, changes, edit.key)]]
            )


def at_each_turn(graph: BackwardGraph, groups: list[list[Edit]]) -> Iterator[Edit]:
    """Yield each group of edits as one."""
    for edits in groups:
        changes = {call: make for edit in edits for call, make in edit.changes.items()}
        last, apart = edits[-1], graph.are_apart(list(changes))
        text = f"{last.text}, at each turn of the loop"
        yield Edit(last.rule, text, last.of, changes, last.key, screened=apart)
