"""The changes of one thing in a backward graph: each is a mistake that people make.

An edit is the mistake if, once the graph has run again with it, the handwritten gradients come out.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from ...recording import Call, name_of
from ...validation import Array
from ..reference.backward_graph import (
    BackwardGraph,
    Make,
    again,
    has_twin,
    is_number,
    is_sum_of_paths,
)
from ..source import expression, operand
from .case import Case


@dataclass(frozen=True)
class Edit:
    """One change of a backward graph.

    Attributes
    ----------
    rule : str
    text : str
        Completes "comes out if ...".
    of : Call or None
        The forward operation whose gradient is changed.
    changes : dict
        From backward calls to what makes their new values.
    key : tuple
        What the same change at another call has in common with this one.
    """

    rule: str
    text: str
    of: Call | None
    changes: Mapping[Call, Make]
    key: tuple[Any, ...]
    screened: bool = True  # whether the effects of its changes add up


def edit(rule: str, text: str, call: Call, make: Make, *key: Any) -> Edit:
    """Return the change of one backward call."""
    return Edit(rule, text, call.gradient_of, {call: make}, (rule, *key))


def flow_of(case: Case, call: Call) -> str:
    """Return in words which gradient a backward call makes."""
    of = call.gradient_of
    if of is None or case.graph is None:
        return "the gradient that flows back"
    if of.source is None:  # our own Σ upstream · output
        return f"the upstream gradient of {case.name_of(of.args[0])}"
    if is_sum_of_paths(call) and (meeting := case.graph.summed_in(call)) is not None:
        return f"the gradient that flows back to {case.name_of(meeting)}"
    to = case.graph.leads_to(call)
    several = len([arg for arg in of.args if isinstance(arg, Call)]) > 1
    whither = f" to {case.name_of(to)}" if several and to is not None else ""
    return f"the gradient that flows back through {case.name_of(of)}{whither}"


# -------------------- factors --------------------

LEFT_OUT = "is left out"


def times(c: float) -> Make:
    """Return what makes c times a value."""
    return lambda call, get: c * np.asarray(again(call, get))


def known_factors(case: Case) -> dict[float, str]:
    """Return the factors that people lose or add: signs, 2, 1/2, the dimensions, with the words."""
    known = {-1.0: "of the wrong sign"}
    known |= {c: f"{c:g} times what it should be" for c in (2.0, 0.5, -2.0, -0.5, 3.0)}
    for n, text in sorted(case.dimensions.items()):
        known.setdefault(n, f"{n:g} times what it should be ({text}): a mean is missing")
        inverse = f"1/{n:g} of what it should be ({text}): averaged in place of summed"
        known.setdefault(1 / n, inverse)
    return known


def factors(case: Case, graph: BackwardGraph, call: Call) -> Iterator[Edit]:
    """Multiply a backward value by one of the known factors."""
    if not has_twin(graph, call):
        for c, text in known_factors(case).items():
            yield edit("factor", f"{flow_of(case, call)} is {text}", call, times(c), "times", c)


def partly(edit: Edit, share: float, text: str) -> Edit:
    """Return the edit that changes by a share of what another one does: a cut becomes a factor."""

    def scaled(make: Make) -> Make:
        def part(call: Call, get: Callable[[Any], Any]) -> Any:
            whole = np.asarray(again(call, get))
            return whole + share * (np.asarray(make(call, get)) - whole)

        return part

    changes = {call: scaled(make) for call, make in edit.changes.items()}
    return Edit("factor", text, edit.of, changes, ("times", round(share, 9)))


# -------------------- products --------------------


def products(
    case: Case, graph: BackwardGraph, call: Call, *, residual: bool = False
) -> Iterator[Edit]:
    """Lose one operand of a product or quotient.

    With `residual`, only operands that autograd itself computes in its backward pass.
    """
    kind, flow = name_of(call.fun), flow_of(case, call)
    if kind not in ("multiply", "divide", "true_divide"):
        return
    multiplies = kind == "multiply"
    for lost in (1, 0) if multiplies else (1,):
        dropped = call.args[lost]
        if is_number(graph.value(dropped)) and float(graph.value(dropped)) == 1:
            continue
        rule, what = operand_of(case, graph, call, dropped)
        if residual != (rule == "value" and getattr(dropped, "gradient_of", None) is not None):
            continue
        text = f"without the factor {what}" if multiplies else f"not divided by {what}"
        if rule == "upstream":
            if is_constant(graph.array(dropped)[graph.array(dropped) != 0]):
                continue  # no more than a factor
            text = "not multiplied by the gradient that comes in"
            text += "" if case.is_loss else ": the upstream gradient is ignored"
        yield edit(rule, f"{flow} is {text}", call, _kept(1 - lost), "operand", lost)


def inverses(case: Case, graph: BackwardGraph, call: Call) -> Iterator[Edit]:
    """Divide by a value in place of multiplying by it, or the reverse."""
    kind = name_of(call.fun)
    if kind not in ("multiply", "divide", "true_divide"):
        return
    multiplies = kind == "multiply"
    for turned in (1, 0) if multiplies else (1,):
        rule, what = operand_of(case, graph, call, call.args[turned])
        if rule == "value":
            text = "divided by" if multiplies else "multiplied by"
            text = f"{flow_of(case, call)} is {text} {what}, the wrong way round"
            make = _combined(np.divide if multiplies else np.multiply, 1 - turned, turned)
            yield edit(rule, text, call, make, "turned", turned)


def _kept(position: int) -> Make:
    def make(call: Call, get: Callable[[Any], Any]) -> Any:
        value, shape = get(call.args[position]), np.shape(again(call, get))
        return np.broadcast_to(value, shape) if np.ndim(value) < len(shape) else value

    return make


def _combined(operation: Any, first: int, second: int) -> Make:
    return lambda call, get: operation(get(call.args[first]), get(call.args[second]))


def operand_of(case: Case, graph: BackwardGraph, call: Call, dropped: Any) -> tuple[str, str]:
    """Return the rule for a lost operand of a call, and what to call it."""
    value = graph.value(dropped)
    if isinstance(dropped, Call) and graph.carries(dropped):
        return "upstream", "the gradient that comes in"
    if is_number(value):
        return "factor", f"{float(value):.6g}"
    if isinstance(dropped, Call) and dropped.gradient_of is not None:
        equal = (c for c in (*graph.roots, *graph.forward) if _is_equal(graph, c, value))
        return "value", case.name_of(next(equal, dropped))
    if isinstance(dropped, Call):
        return "value", case.name_of(dropped)
    return "value", _written(call.gradient_of, value) or case.constant_name(value)


def _is_equal(graph: BackwardGraph, call: Call, value: Any) -> bool:
    """Tell whether a forward value is one that autograd has computed anew in its backward pass."""
    own = graph.array(call)
    return own.shape == np.shape(value) and np.allclose(own, value, rtol=1e-12, atol=0.0)


def is_constant(array: Array) -> bool:
    """Tell whether all entries of an array are equal: what any factor could be."""
    flat = np.ravel(array)
    return bool(flat.size and np.all(np.abs(flat - flat[0]) <= 1e-6 * np.abs(flat[0])))


def _written(of: Call | None, value: Any) -> str | None:
    """Return the text of the operand of a forward operation that is just this constant."""
    text = expression(of) if of is not None else None
    for position, arg in enumerate(of.args[:2] if of is not None and text else ()):
        if arg is value and text is not None:
            found = operand(text, position)
            return f"`{found}`" if found and len(found) <= 60 else None
    return None


MOVES = "reshape transpose swapaxes moveaxis ravel rollaxis squeeze expand_dims".split()
_FACTORS = "multiply divide true_divide dot matmul tensordot einsum".split()
_ADJOINTS = [f"{f}_adjoint_{i}" for f in ("dot", "matmul", "tensordot") for i in (0, 1)]


def wrong_operands(case: Case, graph: BackwardGraph, call: Call) -> Iterator[Edit]:
    """Multiply by another value of the forward pass than the right one."""
    if name_of(call.fun) not in (*_FACTORS, *_ADJOINTS):
        return
    for position, arg in enumerate(call.args):
        if isinstance(arg, str | tuple) or (position > 1 and name_of(call.fun) != "einsum"):
            continue
        due, moved = unmoved_operand(arg)
        if isinstance(due, Call) and (graph.carries(due) or due.gradient_of is not None):
            continue
        right = graph.array(due)
        for other in (*graph.roots, *graph.forward) if right.ndim else ():
            value = graph.array(other)
            if other is not due and value.shape == right.shape:
                name, given = operand_of(case, graph, call, due)[1], case.name_of(other)
                given = case.expression(other) if given == name and other.fun else given
                given += " of another run of that line" if given == name else ""
                text = f"{flow_of(case, call)} is multiplied by {given} in place of {name}"
                make = exchanged(position, moved(value))
                yield edit("value", text, call, make, "operand", position, other.instruction)


def unmoved_operand(arg: Any) -> tuple[Any, Callable[[Array], Array]]:
    """Return the value of which an operand is a transpose or the like, and how it is one."""
    if isinstance(arg, Call) and arg.gradient_of is not None and name_of(arg.fun) in MOVES:
        inner, moved = unmoved_operand(arg.args[0])
        return inner, lambda value: arg.fun.fun(moved(value), *arg.args[1:], **arg.kwargs)
    return arg, lambda value: value


def exchanged(position: int, value: Array) -> Make:
    """Return what makes a value with another array as one of its arguments."""

    def make(call: Call, get: Callable[[Any], Any]) -> Any:
        args = [value if i == position else get(arg) for i, arg in enumerate(call.args)]
        return call.fun.fun(*args, **call.kwargs)

    return make
