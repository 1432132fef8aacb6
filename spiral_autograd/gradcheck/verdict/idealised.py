"""The gradient of the forward pass without one of its small constants, such as 1e-07 in a log."""

from __future__ import annotations

import numpy as np

from ...validation import Array
from ..blocks import close, largest
from ..finding import found
from ..guard import CheckError
from ..reference.automatic import by_autograd, find_reference
from ..reference.backward_graph import BackwardGraph
from ..source import forward_line
from .comparison import Comparison, Places
from .guards import Guard, guards, without_small_constants
from .repeats import replayed


def find_idealised(c: Comparison) -> BackwardGraph | None:
    """See whether gradients are those of the forward pass without one of its small constants.

    Returns
    -------
    BackwardGraph or None
        That of the forward pass without its first small constant, where it has one.
    """
    if not (c.doubtful or c.wrong):
        return None
    if c.graph is None:
        _by_steps(c)
        return None
    first = None
    milder: _Milder | None = None
    for number, left_out in enumerate(guards(c.graph)):
        ideal = c.graph.without(left_out)
        if ideal is None:
            continue
        first = first or ideal
        places = tuple(dict.fromkeys(filter(None, (forward_line(call) for call, *_ in left_out))))
        for k in c.doubtful:
            agrees = c.grads[k] is not None and _agrees(c, k, ideal.gradient(k, {}))
            if not agrees and not _is_steady(c, ideal, k, left_out):
                milder = milder or _Milder(c)
                agrees = milder.agrees(k, number)
            if agrees:
                _say(c, k, max(constant for *_, constant in left_out), places[:2])
    return first


def _agrees(c: Comparison, k: int, gradient: Array) -> bool:
    """Tell whether a gradient is the ideal one; zeros are not written on purpose."""
    return (
        largest(c.grads[k]) > 0
        and bool(np.isfinite(largest(gradient)))
        and close(c.grads[k], gradient, c.tolerance, c.floors[k])
    )


def _is_steady(c: Comparison, graph: BackwardGraph, k: int, without: list[Guard]) -> bool:
    """Tell whether a gradient has its digits: the log of a saturated 1 - y has few or none."""
    gradient = graph.gradient(k, {})
    eps = float(np.finfo(float).eps) if c.reference.double else c.reference.eps
    if not np.isfinite(largest(gradient)):
        return False
    moves = [
        largest(replayed(graph, eps, salt, without=without)[k] - gradient) for salt in (1, 2, 3)
    ]
    return all(move <= 1e-2 * c.tolerance * largest(gradient) for move in moves)


class _Milder:
    """The gradients for smaller values, where saturated functions are not.

    Where the ideal forward pass has no digits left, as in the log of a probability that is rounded
    to zero, a handwritten gradient can only be known by its formula: here it must be the ideal one.
    """

    def __init__(self, c: Comparison) -> None:
        self._c = c
        self.constants: list[float] = []
        most = max((largest(value) for value in c.subject.values), default=1.0)
        factors = (0.1, 0.01, *((3 / most,) if most > 1e3 else ()))
        self._found: list[dict[int, set[int]]] = [self._at(factor) for factor in factors]

    def _at(self, factor: float) -> dict[int, set[int]]:
        """Return, for each constant, the gradients that are those without it; where they can be."""
        c, subject = self._c, self._c.subject
        found: dict[int, set[int]] = {}
        milder = [(factor * value).astype(value.dtype) for value in subject.values]
        with subject.session.moved(subject.values, milder):
            try:
                there = by_autograd(
                    subject, c.upstream, rebind=c.reference.rebound, double=c.reference.double
                )
                with subject.session.fresh():
                    grads = c.backward()
            except CheckError:
                return found
            subject.session.restore()
            assert there.recording is not None
            graph = BackwardGraph(there.recording)
            candidates = guards(graph)
            self.constants = [max(value for *_, value in left_out) for left_out in candidates]
            for number, left_out in enumerate(candidates):
                ideal = graph.without(left_out)
                if ideal is None:
                    continue
                for k in c.doubtful:
                    if _is_steady(c, ideal, k, left_out):
                        tolerance = 100 * c.tolerance if c.reference.single else c.tolerance
                        agrees = close(grads[k], ideal.gradient(k, {}), tolerance)
                        found.setdefault(number, set()).update({k} if agrees else ())
        return found

    def agrees(self, k: int, number: int) -> bool:
        """Tell whether a gradient is that of the forward pass without one of its constants."""
        return any(k in found.get(number, ()) for found in self._found)


def _by_steps(c: Comparison) -> None:
    """Do the same without a graph: with forward's code, in which the constant is zero."""
    with_forward = c.subject.with_forward
    if with_forward is None:
        return
    is_defined = True
    for constant, function in without_small_constants(c.subject.forward_code[0]):
        try:
            ideal = with_forward(function)
            found = find_reference(ideal, c.upstream, np.random.default_rng(0), 1.0).grads
        except CheckError:
            is_defined = False
            continue
        for k in c.doubtful if found else ():
            if c.grads[k] is not None and _agrees(c, k, found[k]):
                _say(c, k, constant)
    if c.doubtful and not is_defined:
        milder = _Milder(c)
        for number, constant in enumerate(milder.constants):
            for k in c.doubtful:
                if milder.agrees(k, number):
                    _say(c, k, constant)


def _say(c: Comparison, k: int, constant: float, lines: Places = ()) -> None:
    said = found("idealised", constant=constant, apart=c.rows[k].max_rel)
    c.change(k, verdict="idealised", lines=lines, findings=(said,))
