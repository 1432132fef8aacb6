"""The small constants of a recorded forward pass that guard a logarithm, a root or a quotient."""

from __future__ import annotations

from ...recording import Call, name_of
from ..reference.backward_graph import BackwardGraph
from ..subject.constants import HANDING_ON, LOGS_AND_ROOTS, is_root

Guard = tuple[Call, int, float]


def guards(graph: BackwardGraph) -> list[list[Guard]]:
    """Return what may be left out: each guard by itself, and all of them together.

    Each is a call, the number of its argument, and the value of that.
    """
    found = [
        (call, position, constant)
        for call, position, constant in graph.small_constants()
        if _reaches_guarded(graph, call)
    ]
    return [[guard] for guard in found] + ([found] if len(found) > 1 else [])


def _reaches_guarded(graph: BackwardGraph, call: Call) -> bool:
    """Tell whether a value is handed on to a logarithm, a root or a denominator."""
    pending, met = [call], {call}
    while pending:
        value = pending.pop()
        for user in graph.users(value):
            if user.gradient_of is not None or user in met:
                continue
            if _is_guarded(user, value):
                return True
            is_numerator = name_of(user.fun) in ("divide", "true_divide")
            if is_numerator or name_of(user.fun) in HANDING_ON:
                met.add(user)
                pending.append(user)
    return False


def _is_guarded(user: Call, value: Call) -> bool:
    name = name_of(user.fun)
    if name in ("divide", "true_divide"):
        return len(user.args) > 1 and user.args[1] is value
    if name == "power":
        exponent = user.args[1]
        power = exponent.value if isinstance(exponent, Call) else exponent
        return user.args[0] is value and is_root(power)
    return name in LOGS_AND_ROOTS
