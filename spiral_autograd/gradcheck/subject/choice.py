"""Which of the parameters that a layer keeps have a gradient, and where it is."""

from __future__ import annotations

import ast
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from ..source import root_of, targets_of, text_of
from .conventions import GRADIENT_LISTS, TRAINED, gradient_key
from .parameters import Parameter, attributes_of, is_number
from .session import Snapshot
from .subject import MISSING, is_float_array


def last_name(name: str) -> str:
    """Return what a parameter is called where it is kept.

    Examples
    --------
    >>> last_name("layers[0].W")
    'W'
    """
    return name.split(".")[-1]


def has_gradient(parameter: Parameter, before: Any, start: Snapshot) -> bool:
    """Tell whether what is named like the gradient of a parameter is one.

    It is one where a run has written it, or where it stands ready to be written: None, zeros, or
    in the shape of the parameter. A time `t` with a step `dt` is none.

    Parameters
    ----------
    parameter : Parameter
    before : object
        What was in the place of the gradient before the run.
    start : Snapshot
    """
    now = parameter.gradient()
    if now is MISSING or now is None or now is not before:
        return now is not MISSING
    if not isinstance(now, np.ndarray | np.number | float | int | list | tuple):
        return False
    saved = start.kept(now) if isinstance(now, np.ndarray) else None
    if saved is not None and not np.array_equal(saved, now):
        return True
    try:
        is_ready = not np.any(now)
        shape = np.shape(now)
    except (TypeError, ValueError):
        return False
    return is_ready or (shape == np.shape(parameter.value) and not is_number(parameter.value))


def fits_number(number: Parameter) -> bool:
    """Tell whether the gradient of a number is one number, or that of one that people train.

    A step `h` beside the gradient `dh` of a state has none.
    """
    gradient = number.gradient()
    if gradient is None or last_name(number.name).strip("_0123456789").lower() in TRAINED:
        return True
    return isinstance(gradient, np.ndarray | np.generic | float | int) and np.size(gradient) == 1


# -------------------- what backward returns for parameters --------------------


def beside_inputs(result: Any, floats: int, inputs: int) -> Any:
    """Return what backward returned beside the gradients of the inputs: a list or a dict."""
    if isinstance(result, dict):
        return result
    if not isinstance(result, tuple):
        return []
    last = result[-1] if result else None
    if isinstance(last, dict) or (isinstance(last, list | tuple) and not _is_numbers(last)):
        return last if len(result) - 1 in (floats, inputs) else []
    return list(result[floats:])


def _is_numbers(value: Sequence[Any]) -> bool:
    return not any(isinstance(entry, np.ndarray) for entry in value)


def returned(
    known: Sequence[Parameter], kept: Sequence[Parameter], beside: Any, names: Sequence[str]
) -> list[Parameter]:
    """Return the parameters whose gradients backward returned, in their order.

    Parameters
    ----------
    known, kept : sequences of Parameter
        All of them, and those of which the layer keeps a gradient itself.
    beside : list or dict
        What backward returned beside the gradients of the inputs.
    names : sequence of str
        What the entries of the list are called in backward; none where that is not known.
    """
    free = [p for p in known if p not in kept and _is_gradient(p.value)]
    if isinstance(beside, dict):
        others = [last_name(p.name) for p in known]
        return [p for p in free if gradient_key(beside, last_name(p.name), others) is not None]
    found = []
    for i, gradient in enumerate(beside):
        own = [p for p in kept if p.gradient() is gradient]
        named = [p for p in free if names and _is_called(names[i], p)]
        fitting = [p for p in free if np.shape(p.value) == np.shape(gradient)]
        arrays = [p for p in free if not kept and not is_number(p.value)]
        for p in [*own, *named, *fitting, *arrays][:1]:
            found.append(p)
            free = [other for other in free if other is not p]
    return found


def _is_called(name: str, parameter: Parameter) -> bool:
    """Tell whether a variable is named like the gradient of a parameter."""
    own = last_name(parameter.name)
    return gradient_key([name.split(".")[-1]], own, itself=False) is not None


def returned_names(backward: Any, count: int) -> list[str]:
    """Return what the last entries are called that a backward pass returns in a tuple."""
    text = text_of(backward)
    steps = [s.node for s in text.steps if isinstance(s.node, ast.Return)] if text else []
    values = [node.value for node in steps]
    if not values or not isinstance(values[-1], ast.Tuple) or len(values[-1].elts) < count:
        return []
    return _names(values[-1].elts[len(values[-1].elts) - count :])


def _names(entries: Sequence[ast.expr]) -> list[str]:
    return [root_of(e) if isinstance(e, ast.Name | ast.Attribute) else "" for e in entries]


# -------------------- a list of gradients, and parameters as attributes --------------------


def listed(layer: Any, free: Sequence[Parameter], backward: Any) -> list[Parameter]:
    """Return the parameters whose gradients stand in a list that the layer keeps.

    They belong together by the names of what backward puts there, else by their order.
    """
    attributes = attributes_of(layer)
    for container in GRADIENT_LISTS:
        held = attributes.get(container)
        if isinstance(held, list | tuple) and held and all(_is_gradient(g) for g in held):
            names = _listed_names(backward, container)
            pairs = list(_paired(free, held, names if len(names) == len(held) else []))
            return [_at(layer, container, i, p) for p, i in pairs]
    return []


def _is_gradient(value: Any) -> bool:
    return is_float_array(value) or is_number(value)


def _at(layer: Any, container: str, i: int, parameter: Parameter) -> Parameter:
    def gradient() -> Any:
        held = attributes_of(layer).get(container)
        return held[i] if isinstance(held, list | tuple) and i < len(held) else None

    return replace(parameter, gradient=gradient)


def _paired(
    free: Sequence[Parameter], held: Sequence[Any], names: Sequence[str]
) -> Iterator[tuple[Parameter, int]]:
    by_name = {i: [p for p in free if _is_called(name, p)] for i, name in enumerate(names)}
    named = [(found[0], i) for i, found in by_name.items() if len(found) == 1]
    by_shape = [[p for p in free if np.shape(p.value) == np.shape(g)] for g in held]
    in_order = list(zip(free, range(len(held)), strict=False))
    if named:
        yield from named
    elif len(free) == len(held) and all(p in by_shape[i] for p, i in in_order):
        yield from in_order
    elif len({id(p) for found in by_shape for p in found}) == sum(map(len, by_shape)) == len(held):
        yield from ((found[0], i) for i, found in enumerate(by_shape) if found)
    elif len(free) == len(held):
        yield from in_order


def _listed_names(backward: Any, container: str) -> list[str]:
    """Return what the gradients are called that backward puts into a list of the layer."""
    text = text_of(backward)
    appended = []
    for step in text.steps if text is not None else ():
        node = step.node
        value = getattr(node, "value", None)
        into = [t.attr for t in targets_of(node) if isinstance(t, ast.Attribute)]
        if container in into and isinstance(value, ast.List | ast.Tuple) and value.elts:
            return _names(value.elts)
        if isinstance(node, ast.Expr) and isinstance(value, ast.Call):
            called = root_of(value.func).split(".")[-1]
            if called == container and getattr(value.func, "attr", "") == "append":
                appended += _names(value.args)
    return appended
