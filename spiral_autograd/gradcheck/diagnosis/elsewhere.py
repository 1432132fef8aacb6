"""Gradients that an object does not hold, though one of its parts does."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from ...validation import Array
from ..blocks import close
from ..finding import Finding, found
from ..guard import CheckError
from ..source import Place
from ..subject.conventions import BACKWARD
from ..subject.heard import replacing_lines, totals
from ..subject.objects import attributes_of, method_name, read
from ..subject.parameters import Parameter, find_parameters
from ..subject.session import objects_of
from ..subject.subject import MISSING, Subject

Found = tuple[Finding, tuple[Place, ...]]


def elsewhere(subject: Subject, automatic: Sequence[Array]) -> dict[int, Found]:
    """Return, by number, where the true gradients are of which an object holds what it held."""
    owner = subject.owner
    if owner is None:
        return {}
    try:
        with subject.session.fresh():
            before = {id(p.value): _copy(p.gradient()) for p in find_parameters(owner)}
            shared = _shared(owner)
            subject.backward([np.array(u) for u in subject.upstream])
            after = {id(p.value): p.gradient() for p in find_parameters(owner)}
            return {
                k: _place_of(owner, value, np.asarray(automatic[k]), shared)
                for k, value in enumerate(subject.values)
                if id(value) in before and _is_equal(before[id(value)], after.get(id(value)))
            }
    except CheckError:
        return {}
    finally:
        subject.session.restore()


def _is_equal(before: Any, after: Any) -> bool:
    return isinstance(after, np.ndarray) and np.array_equal(before, after)


def _copy(gradient: object) -> object:
    return np.array(gradient) if isinstance(gradient, np.ndarray) else None


def _shared(owner: object) -> set[int]:
    """Return the parameters, by id, whose gradient in a part is the array that the object holds."""
    own = {id(p.value): p.gradient() for p in find_parameters(owner)}
    parts = (p for item in objects_of(owner) if item is not owner for p in find_parameters(item))
    return {id(p.value) for p in parts if p.gradient() is own.get(id(p.value), MISSING)}


def _place_of(owner: object, value: Array, true: Array, shared: set[int]) -> Found:
    """Return where a gradient stands in the parts of an object, else in its attributes."""
    items = objects_of(owner)
    parts = [part for item in items if item is not owner for part in _listed(item, value)]
    sums = totals([listed for _, listed in parts])
    lines = tuple(dict.fromkeys(line for item, _ in parts for line in _replacing(item)))
    # By the lines it is known even where the forward pass has a small constant that it lacks.
    is_replaced = bool(lines) or id(value) in shared  # else they are arrays of the part's own
    if sums and is_replaced and _is(sums[0].gradient(), true, np.inf if lines else 1e-7):
        return found("array_replaced"), lines
    for item in items:
        for name, array in attributes_of(item).items():
            if _is(array, true, 1e-7):
                return found("stands_elsewhere", attribute=name, owner=type(item).__name__), ()
    return found("never_written"), ()


def _listed(item: object, value: Array) -> list[tuple[object, Parameter]]:
    """Return an object with what it holds for the gradient of a parameter."""
    return [(item, p) for p in find_parameters(item) if p.value is value]


def _is(array: object, true: Array, tolerance: float) -> bool:
    if not isinstance(array, np.ndarray) or array.dtype.kind != "f":
        return False
    return bool(array.any() and true.any()) and (
        array.shape == true.shape if np.isinf(tolerance) else close(array, true, tolerance)
    )


def _replacing(item: object) -> list[Place]:
    name = method_name(item, BACKWARD)
    return [] if name is None else replacing_lines(read(item, name))
