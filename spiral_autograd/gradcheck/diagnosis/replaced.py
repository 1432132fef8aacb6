"""Gradients that an object does not hold, though one of its parts does."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from types import FunctionType, MethodType
from typing import Any

import numpy as np

from ...validation import Array
from ..blocks import close
from ..guard import CheckError
from ..source import replacing_lines
from ..subject.conventions import BACKWARD, attributes_of, method_name, read
from ..subject.own_passes import Listed, totals
from ..subject.parameters import find_parameters
from ..subject.session import reach
from ..subject.subject import Subject

Places = tuple[tuple[str, int], ...]


@dataclass(frozen=True)
class Elsewhere:
    """Where the true gradient stands, if anywhere, which the object itself does not hold.

    Attributes
    ----------
    text : str
        With {} for what the object holds instead.
    lines : tuple of (str, int)
    """

    text: str
    lines: Places = ()


def elsewhere(subject: Subject, automatic: Sequence[Array]) -> dict[int, Elsewhere]:
    """Return of which gradients an object holds what it held before, and where the true ones are.

    By their number.
    """
    owner = subject.owner
    if owner is None:
        return {}
    try:
        with subject.session.fresh():
            before = {id(p.value): _copy(p.gradient()) for p in find_parameters(owner)}
            subject.backward([np.array(u) for u in subject.upstream])
            after = {id(p.value): p.gradient() for p in find_parameters(owner)}
            return {
                k: _place_of(owner, value, np.asarray(automatic[k]))
                for k, value in enumerate(subject.values)
                if _is_as_before(before.get(id(value)), after.get(id(value)))
            }
    except CheckError:
        return {}
    finally:
        subject.session.restore()


def _copy(gradient: Any) -> Any:
    return np.array(gradient) if isinstance(gradient, np.ndarray) else None


def _is_as_before(before: Any, after: Any) -> bool:
    return isinstance(after, np.ndarray) and before is not None and np.array_equal(before, after)


def _place_of(owner: Any, value: Array, true: Array) -> Elsewhere:
    """Return where a gradient stands in the parts of an object, else in its attributes."""
    kinds = (FunctionType, MethodType)
    items = [i for i in reach(owner) if hasattr(i, "__dict__") and not isinstance(i, kinds)]
    parts = [
        (item, Listed(parameter.name, parameter.value, parameter.gradient()))
        for item in items
        if item is not owner
        for parameter in find_parameters(item)
        if parameter.value is value
    ]
    sums = totals([listed for _, listed in parts])
    lines = tuple(dict.fromkeys(line for item, _ in parts for line in _replacing(item)))
    # By the lines it is known even where the forward pass has a small constant that it lacks.
    if sums and _is(sums[0].gradient, true, np.inf if lines else 1e-7):
        return Elsewhere(
            "the array was replaced: the network holds the old one, which {}; write into it: "
            "grads[i][...] = dW",
            lines,
        )
    for item in items:
        for name, array in attributes_of(item).items():
            if _is(array, true, 1e-7):
                return Elsewhere(
                    "the gradient is never written where it is looked for: it {}; the true one "
                    f"stands in {name} of {type(item).__name__}"
                )
    return Elsewhere("the gradient is never written: it {}")


def _is(array: Any, true: Array, tolerance: float) -> bool:
    if not isinstance(array, np.ndarray) or array.dtype.kind != "f":
        return False
    return bool(array.any() and true.any()) and (
        array.shape == true.shape if np.isinf(tolerance) else close(array, true, tolerance)
    )


def _replacing(item: Any) -> list[tuple[str, int]]:
    name = method_name(item, BACKWARD)
    return [] if name is None else replacing_lines(read(item, name))
