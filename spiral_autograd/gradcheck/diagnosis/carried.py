"""What flows back from one turn of a loop to the turn before: lost, or cut off after some turns."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from itertools import chain, combinations

import numpy as np

from ...validation import Array
from ..finding import Finding, found
from ..reference.graph import Change, Graph, Site
from ..reference.nodes import Node
from .search import Candidate, Search, nothing


def carried(search: Search) -> Iterator[Candidate]:
    """Yield the loss of all that flows back from one turn of a loop to the turn before."""
    lines, name = search.turns.carried(), search.case.name
    most = len(lines) if len(lines) <= 5 else 1
    groups = [*chain(*(combinations(lines, n) for n in range(1, most + 1))), tuple(lines)]
    for group in dict.fromkeys(filter(None, groups)):
        sites = [site for line in group for site in lines[line]]
        values = [lines[line][-1].argument for line in group]

        def say(values: Sequence[Node] = values) -> Finding:
            return found("not_carried", values=[*map(name, values)])

        node = sites[-1].result or sites[-1].argument
        yield Candidate(dict.fromkeys(sites, nothing), frozenset(search.rows), 0.1, node, say)


def truncated(search: Search) -> Iterator[Candidate]:
    """Yield what flows back through no more than so many turns of a loop from where it began."""
    by_turn: dict[int, list[Site]] = {}
    for site in chain(*search.turns.carried().values()):
        if np.ndim(site.argument.value):  # not the sum of the losses
            by_turn.setdefault(search.turns.turn[site.argument], []).append(site)
    if not 2 < len(by_turn) <= 30 or len(search.graph.nodes) > 600:
        return
    for steps in range(1, min(len(by_turn), 9)):
        search.case.deadline.check()
        changes = {
            site: _younger(search.graph, by_turn, steps, t, site)
            for t, some in by_turn.items()
            for site in some
        }
        last = [*changes][-1]
        node, say = last.result or last.argument, partial(found, "truncated", steps=steps)
        yield Candidate(changes, frozenset(search.rows), 1.3 + 0.01 * steps, node, say)


def _younger(
    graph: Graph, by_turn: Mapping[int, Sequence[Site]], steps: int, t: int, site: Site
) -> Change:
    """Return the change by which only that flows on which has come through fewer turns."""
    end, known = site.result or site.argument, list[Array]()

    def through(turns: range) -> Array:
        """Return what flows back to the site where it can leave none but some turns."""
        cut = [s for n, some in by_turn.items() if n not in turns for s in some]
        bars = graph.rerun(dict.fromkeys(cut, nothing)) if cut else {}
        return np.asarray(bars.get(end, end.adjoint))

    def change(g: Array, part: object) -> object:
        if t + steps not in by_turn:
            return part
        if not known or known[0] is not graph.roots[0].adjoint:  # at a second point it is another
            before = range(t + 1, t + steps + 1)
            known[:] = graph.roots[0].adjoint, through(before) - through(before[:-1])
        return graph.part(site, g - known[1])

    return change
