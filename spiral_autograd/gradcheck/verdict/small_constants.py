"""The gradient of the forward pass without its small constants, such as 1e-07 in a logarithm.

Only what keeps a logarithm, a root or a quotient from zero is left out of a backward pass on
purpose. A target, a margin or a decay is not.
"""

from __future__ import annotations

import numpy as np

from ...recording import Call
from ...validation import Array
from ..blocks import close, largest
from ..finding import found
from ..guard import CheckError
from ..primitives import primitive
from ..reference.graph import Graph, is_number
from ..reference.nodes import Node
from .repeats import drawn_anew
from .rows import Comparison

SMALL = 1e-2
Guard = tuple[Call, int]  # a call, and the number of its argument that is a small constant
_DIVIDES = ("divide", "true_divide")


def find_idealised(c: Comparison) -> Graph | None:
    """Say which gradients are those of the forward pass without some of its small constants.

    Returns the graph of the forward pass without the first of them, where it has one.
    """
    if not (c.doubtful or c.wrong) or c.graph is None:
        return None
    first = None
    milder: list[set[int]] | None = None
    for number, left_out in enumerate(guards(c.graph)):
        ideal = c.graph.without(left_out)
        if ideal is None:
            continue
        first = first or ideal
        for k in c.doubtful:
            agrees = _agrees(c, k, ideal.gradient(k))
            if not agrees and not _is_steady(c, ideal, k, left_out):
                milder = _agreeing_at_milder_values(c) if milder is None else milder
                agrees = number < len(milder) and k in milder[number]
            if agrees:
                _say(c, k, _largest_of(left_out), [call for call, _ in left_out])
    return first


def _say(c: Comparison, k: int, constant: float, calls: list[Call]) -> None:
    said = found("idealised", constant=constant, apart=c.rows[k].max_rel)
    c.change(k, verdict="idealised", findings=(said,))
    c.constants[k] = calls


def _agrees(c: Comparison, k: int, gradient: Array) -> bool:
    """Tell whether a gradient is the ideal one; zeros are not written on purpose.

    One that is no larger than rounding is near to any that is: it must be far nearer to the ideal
    gradient than the true one is.
    """
    h, true = c.grads[k], c.reference.grads[k]
    if h is None or largest(h) == 0 or not np.isfinite(largest(gradient)):
        return False
    if not close(h, gradient, c.tolerance, c.floors[k]):
        return False
    is_sized = largest(h) > np.max(c.floors[k])
    return is_sized or largest(h - gradient) <= 0.1 * largest(true - gradient)


def _is_steady(c: Comparison, ideal: Graph, k: int, without: list[Guard]) -> bool:
    """Tell whether a gradient has its digits: the log of a saturated 1 - y has few or none."""
    gradient = ideal.gradient(k)
    if not np.isfinite(largest(gradient)):
        return False
    for salt in (1, 2, 3):
        rounded = drawn_anew(c.reference.eps_of_trace, salt)
        there = ideal.gradients(ideal.replay(without=without, rounded=rounded))[k]
        if not largest(there - gradient) <= 1e-2 * c.tolerance * largest(gradient):
            return False
    return True


def _agreeing_at_milder_values(c: Comparison) -> list[set[int]]:
    """Return for each small constant the gradients that are those without it.

    Where the ideal forward pass has no digits left, as in the log of a probability that is rounded
    to zero, a handwritten gradient can only be known by its formula: for smaller values, where
    saturated functions are not, it must be the ideal one.
    """
    found: list[set[int]] = []
    most = max((largest(value) for value in c.subject.values), default=1.0)
    for factor in (0.1, 0.01, *((3 / most,) if most > 1e3 else ())):
        agreeing = _agreeing_at(c, factor)
        found += [set() for _ in agreeing[len(found) :]]
        for known, ks in zip(found, agreeing, strict=False):
            known |= ks
    return found


def _agreeing_at(c: Comparison, factor: float) -> list[set[int]]:
    """Return for each constant which gradients are those without it at scaled values."""
    subject, reference = c.subject, c.reference
    others = [(factor * value).astype(value.dtype) for value in subject.values]
    tolerance = 100 * c.tolerance if reference.single else c.tolerance
    with subject.session.moved(subject.values, others):
        try:
            there = c.at_these_values()
        except CheckError:
            return []
        subject.session.restore()
        graph, found = there.graph, []
        assert graph is not None
        for left_out in guards(graph):
            ideal = graph.without(left_out)
            agreeing = {
                k
                for k in c.doubtful
                if ideal is not None
                and _is_steady(c, ideal, k, left_out)
                and close(there.grads[k], ideal.gradient(k), tolerance)
            }
            found.append(agreeing)
        return found


# -------------------- in a graph --------------------


def guards(graph: Graph) -> list[list[Guard]]:
    """Return what may be left out: each small constant by itself, and all of them together."""
    found = [
        (node.call, position)
        for node in graph.nodes
        if primitive(node.name).guards
        for position, arg in enumerate(node.call.args)
        if is_number(arg) and 0 < abs(float(arg)) <= SMALL and _reaches_guarded(node)
    ]
    return [[guard] for guard in found] + ([found] if len(found) > 1 else [])


def _largest_of(left_out: list[Guard]) -> float:
    return max(float(call.args[position]) for call, position in left_out)


def _reaches_guarded(node: Node) -> bool:
    """Tell whether a value is handed on to a logarithm, a root or a denominator."""
    pending, met = [node], {id(node)}
    while pending:
        value = pending.pop()
        for user in value.users:
            if id(user) in met:
                continue
            if _is_guarded(user, value):
                return True
            if user.name in _DIVIDES or primitive(user.name).hands_on:
                met.add(id(user))
                pending.append(user)
    return False


def _is_guarded(user: Node, value: Node) -> bool:
    places = [i for i, p in zip(user.argnums, user.parents, strict=True) if p is value]
    if user.name in _DIVIDES:
        return 1 in places
    if user.name == "power":
        return 0 in places and is_root(user.args[1])
    return primitive(user.name).is_singular


def is_root(exponent: object) -> bool:
    """Tell whether a power is a root or a quotient."""
    plain = np.asarray(exponent)
    return plain.dtype.kind in "fiu" and bool(np.all(plain < 0) or np.all(plain % 1 != 0))
