"""Marks one after another: what is wrong only because it is made from a wrong gradient."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import chain

import numpy as np

from ...recording import Call
from ...validation import Array
from ..blocks import close
from ..finding import Finding, found
from ..reference.graph import Change, Graph, Site
from ..reference.nodes import Node
from ..reference.reference import Reference
from ..subject.subject import MISSING, CheckError, Subject
from ..verdict.rows import Comparison


def require_used(subject: Subject, reference: Reference) -> None:
    """Raise where the loss does not go on with a value that is marked."""
    recording = reference.recorded(subject) if subject.marks else None
    if recording is None:
        return
    for k in sorted(subject.marks):
        if not isinstance(recording.grads[k], Call):
            name = subject.names[k]
            raise CheckError(
                f"the loss does not depend on the marked {name}: go on with what tap returns, "
                f'{name} = tap("{name}", {name}), or leave out its gradient'
            )


def behind(c: Comparison) -> dict[int, Finding]:
    """Return what to say of wrong gradients that are made from a wrong one of a mark.

    Each is held against what comes out with the reader's own gradients of all marks before it, in
    the order of the backward pass: it is right for these, or has a mistake of its own too.
    """
    graph, marks = c.graph, c.subject.marks
    if graph is None or not marks:
        return {}
    ends = _ends(c, graph)
    given = {end: np.asarray(c.grads[k]) for k, end in ends.items() if k in marks}
    runs = [_arriving(graph, given, through_max=through) for through in (False, True)]
    causes: dict[Node, list[str]] = {}  # of a wrong mark: which are to be mended first
    said: dict[int, Finding] = {}
    for k, end in ((k, end) for k, end in ends.items() if k in c.wrong):
        before = [causes.get(mark, []) for mark in _next_marks(end, given)]
        names = list(dict.fromkeys(chain(*before)))
        follows = any(close(c.grads[k], run.get(end, end.adjoint), c.tolerance) for run in runs)
        if names:
            said[k] = found("follows" if follows else "made_from_wrong", names=names)
        causes[end] = names if names and follows else [*names, c.subject.names[k]]
    return said


def _ends(c: Comparison, graph: Graph) -> dict[int, Node]:
    """Return where the gradients of marks, and wrong ones, arrive, as the backward pass does."""
    marks, some = c.subject.marks, dict[int, Node]()
    for k in (*c.subject.marks, *c.wrong):
        root, h = graph.roots[k], c.grads[k]
        is_there = bool(root.users) and h is not None and h is not MISSING
        if is_there and np.shape(h) == np.shape(root.value):
            some[k] = root.users[0] if k in marks else root
    return dict(sorted(some.items(), key=lambda item: -graph.roots[item[0]].users[0].number))


def _arriving(graph: Graph, given: dict[Node, Array], *, through_max: bool) -> dict[Node, object]:
    """Return what arrives at each value with some gradients in the place of the true ones."""
    arrived: dict[Node, object] = {}

    def instead(node: Node) -> Change:
        def change(g: object, part: object) -> Array:
            arrived[node] = g
            return given[node]

        return change

    changes = {Site(None, node): instead(node) for node in given}
    return graph.rerun(changes, through_max=through_max) | arrived


def _next_marks(node: Node, given: dict[Node, Array]) -> Iterator[Node]:
    """Yield the marks that are made of a value without another between, the first wrong first."""
    met = dict.fromkeys(node.users)
    pending = list(met)
    while pending:
        other = pending.pop()
        if other in given:
            yield other
            continue
        new = [user for user in other.users if user not in met]
        met |= dict.fromkeys(new)
        pending += new
