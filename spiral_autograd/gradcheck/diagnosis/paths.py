"""Where a gradient flows: paths that are lost, kept alone, or taken for another one."""

from __future__ import annotations

import operator as op
from collections.abc import Callable, Iterator
from itertools import combinations, permutations
from typing import Any

import numpy as np

from ...recording import Call, name_of
from ..reference.backward_graph import (
    BackwardGraph,
    Make,
    again,
    has_twin,
    is_sum_of_paths,
    paths_of,
)
from .case import Case
from .edits import LEFT_OUT, Edit, edit, flow_of, times


def cuts(case: Case, graph: BackwardGraph, call: Call) -> Iterator[Edit]:
    """Leave out a backward value, or one of the paths that it is the sum of."""
    if not has_twin(graph, call):
        yield edit("term", f"{flow_of(case, call)} {LEFT_OUT}", call, times(0.0), "cut")
    if not is_sum_of_paths(call):
        return
    to = graph.summed_in(call)
    for i, path in enumerate(call.args[1:], 1):
        if isinstance(path, Call) or np.ndim(path):
            of = graph.way(path, to)
            text = f"{path_to(case, path, to)} {LEFT_OUT}"
            yield Edit("term", text, of, {call: _without_path(i)}, ("term", "path", i))


def path_to(case: Case, path: Any, to: Call | None) -> str:
    """Return in words which of the paths that meet in a forward value one is."""
    graph = case.graph
    if graph is None or not isinstance(path, Call) or path.gradient_of is None:
        return f"the gradient that flows in directly from {case.name_of(path)}"
    of = graph.way(path, to)
    if to is None or of is None or of.source is None:
        return flow_of(case, path)
    runs = graph.runs_of(of, to)
    which = f" (run {runs.index(of) + 1} of {len(runs)} of this line)" if len(runs) > 1 else ""
    return f"the gradient that flows back through {case.name_of(of)}{which} to {case.name_of(to)}"


def _without_path(i: int) -> Make:
    def make(call: Call, get: Callable[[Any], Any]) -> Any:
        return again(call, get) - np.asarray(get(call.args[i]))

    return make


_MANY = 6  # paths, of which each is tried


def kept_alone(case: Case, graph: BackwardGraph) -> Iterator[Edit]:
    """Keep one of many paths only: assigned where it should be added."""
    for to, whole in graph.wholes:
        paths = paths_of(whole)
        for path in paths if len(paths) <= _MANY else (paths[0], paths[-1]):
            of = graph.way(path, to)
            repeated = of is not None and len(graph.runs_of(of, to)) == len(paths)
            if len(paths) < (2 if repeated else 3):
                continue
            why = ": the others are overwritten, not added up" if repeated else ""
            text = f"only {path_to(case, path, to)} is kept{why}"
            rule = "sum" if repeated else "term"
            yield Edit(rule, text, of, {whole: _only(path)}, (rule, "only"))


def _only(path: Call) -> Make:
    return lambda call, get: np.asarray(get(path))


def wrong_gradients(case: Case, graph: BackwardGraph, call: Call) -> Iterator[Edit]:
    """Take the gradient of another value than the right one, before its activation, say."""
    if is_sum_of_paths(call):
        return
    for position, arg in enumerate(call.args):
        if not isinstance(arg, Call) or not graph.carries(arg) or not np.ndim(arg.value):
            continue
        right = _gradient_name(case, graph, arg)
        for name, other in _named_gradients(case, graph):
            fits = np.shape(other.value) == np.shape(arg.value) and other is not arg
            if fits and graph.position(other) < graph.position(call):
                text = f"{flow_of(case, call)} is made from {name} in place of {right}"
                make = _taking(position, other)
                yield edit("value", text, call, make, "gradient", position)


def _named_gradients(case: Case, graph: BackwardGraph) -> list[tuple[str, Call]]:
    found = [("the upstream gradient", root) for root in graph.upstream]
    named = [(to, whole) for to, whole in graph.wholes if case.is_named(to)]
    return found + [(f"the gradient of {case.name_of(to)}", whole) for to, whole in named]


def _gradient_name(case: Case, graph: BackwardGraph, arg: Call) -> str:
    if arg in graph.upstream:
        return "the upstream gradient"
    owners = [to for to, whole in graph.wholes if whole is arg]
    named = [to for to in owners if case.is_named(to)] or owners
    return f"the gradient of {case.name_of(named[0])}" if named else "the one that comes in"


def _taking(position: int, other: Call) -> Make:
    def make(call: Call, get: Callable[[Any], Any]) -> Any:
        args = [get(other) if i == position else get(arg) for i, arg in enumerate(call.args)]
        return call.fun.fun(*args, **call.kwargs)

    return make


def exchanges(case: Case, graph: BackwardGraph) -> Iterator[Edit]:
    """Exchange the gradients of parts of one array, such as the gates of an LSTM."""
    parts: dict[int, list[Call]] = {}
    for call in graph.forward:
        if name_of(call.fun) in ("__getitem__", "take") and call in graph.adjoints:
            parts.setdefault(id(call.args[0]), []).append(call)
    for siblings in parts.values():
        alike = [a for a in siblings[:12] if np.shape(a.value) == np.shape(siblings[0].value)]
        orders = permutations(alike) if len(alike) <= 4 else _two_exchanged(alike)
        for order in sorted(orders, key=lambda order: sum(map(op.is_not, order, alike))):
            moved = [(a, b) for a, b in zip(alike, order, strict=True) if a is not b]
            # All are read as they were before the exchange.
            changes = {graph.adjoints[a]: _always(graph.value(graph.adjoints[b])) for a, b in moved}
            if len(changes) == len(moved) > 0:
                names = " and ".join(case.name_of(a) for a, _ in moved)
                text = f"the gradients of {names} are exchanged"
                yield Edit("layout", text, moved[0][0], changes, ("layout", "exchange"))


def _two_exchanged(calls: list[Call]) -> Iterator[list[Call]]:
    for i, j in combinations(range(len(calls)), 2):
        order = list(calls)
        order[i], order[j] = order[j], order[i]
        yield order


def _always(value: Any) -> Make:
    return lambda call, get: value


def overwritten(case: Case, graph: BackwardGraph) -> Iterator[Edit]:
    """Assign where several gradients meet in one entry, in place of adding them up."""
    for value, whole in graph.wholes:
        puts = [_put(path) for path in paths_of(whole)]
        known = [put for put in puts if put is not None]
        if len(known) < len(puts) or not known:
            continue
        known.sort(key=lambda put: graph.position(put[0].gradient_of))
        name = case.name_of(value)
        text = f"the gradients that meet in one entry of {name} overwrite each other, not added up"
        yield Edit("sum", text, value, {whole: _assigned(known)}, ("sum", "overwritten"))


def _put(path: Call) -> tuple[Call, Any, Any] | None:
    """Return the call that puts a gradient into zeros at indices, the gradient and the indices."""
    if name_of(path.fun) == "sparse_add" and path.args[1] is None:
        path = path.args[2]
    if name_of(path.fun) == "untake":
        return path, path.args[0], path.args[1]
    if name_of(path.fun) == "add_at":
        return path, path.args[0], path.args[2:]
    return None


def _assigned(puts: list[tuple[Call, Any, Any]]) -> Make:
    def make(call: Call, get: Callable[[Any], Any]) -> Any:
        out = np.zeros_like(again(call, get))
        for _, gradient, index in puts:
            parts = index if isinstance(index, tuple) else (index,)
            out[tuple(map(get, parts))] = get(gradient)
        return out

    return make
