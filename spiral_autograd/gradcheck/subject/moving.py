"""What a layer holds for the time of a check: arrays in the place of numbers, and of its class's.

Arrays can be moved and traced, and a copy of the layer takes them along; numbers, and what belongs
to a class, do not. The session puts all back.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from ...validation import Array
from ..blocks import close
from .choice import fits_number, has_gradient
from .parameters import Parameter, every_parameter, numbers_of, of_class, parts_of
from .subject import CheckError, is_float_array

if TYPE_CHECKING:
    from .objects import Layer


def lend(layer: Layer) -> None:
    """Give the objects the arrays of their classes as their own."""
    lent = [
        (item, name, value)
        for item in (layer.layer, *(part for _, part in parts_of(layer.layer)))
        for name, value in of_class(item).items()
        if isinstance(value, np.ndarray) and hasattr(item, "__dict__")
    ]
    if lent:
        layer.session.add([value for _, _, value in lent])
        for item, name, value in lent:
            item.__dict__[name] = value
        layer.session.rebase()


def exchange(layer: Layer, numbers: Sequence[str]) -> None:
    """Put arrays in the place of numbers, in float32 where everything is."""
    arrays = [v for v in layer.inputs if is_float_array(v)]
    arrays += [p.value for p in every_parameter(layer.layer) if is_float_array(p.value)]
    single = bool(arrays) and all(a.dtype == np.float32 for a in arrays)
    for p in numbers_of(layer.layer):
        if p.name in numbers and p.put is not None:
            own = p.value.dtype if isinstance(p.value, np.floating) else None
            p.put(np.array(p.value, dtype=own or (np.float32 if single else np.float64)))


def trained_numbers(layer: Layer, before: dict[str, tuple[Parameter, Any]]) -> list[str]:
    """Return the names of floats that have a gradient, right after a run of both passes.

    Parameters
    ----------
    layer : Layer
    before : dict
        From name to parameter, and what was in the place of its gradient before the run.
    """
    start = layer.session.start
    found = [
        p
        for p in numbers_of(layer.layer)
        if p.put is not None
        and (p.name in layer.more or has_gradient(p, before.get(p.name, (p, None))[1], start))
    ]
    return [p.name for p in found if p.name in layer.more or fits_number(p)]


def take_number(layer: Layer, name: str) -> None:
    """Take a number of which nothing is kept, if an array can stand in its place."""
    begun = layer.session.start
    with layer.session.fresh():
        exchange(layer, [name])
        layer.session.rebase()
        placed = [p.value for p in every_parameter(layer.layer) if p.name == name]
    with layer.session.fresh():
        if placed and not _output_differs(layer):
            layer.take(name, placed[0])
            return
    layer.session.start = begun
    layer.say_unchecked(name, CANNOT_MOVE.format(name))


CANNOT_MOVE = "{} is a number that cannot be moved"

# -------------------- what the output depends on --------------------


def depends_on_number(layer: Layer, name: str) -> bool:
    """Tell whether the output depends on a number that the layer keeps."""
    with layer.session.fresh():
        if name not in {p.name for p in numbers_of(layer.layer)}:
            layer.run()
        for p in numbers_of(layer.layer):
            if p.name == name and p.put is not None:
                p.put(moved(p.value))
        return _output_differs(layer)


def depends_on(layer: Layer, arrays: Sequence[Array]) -> bool:
    """Tell whether the output depends on arrays that the layer keeps."""
    others = [moved(array) for array in arrays]
    with layer.session.moved(arrays, others), layer.session.fresh():
        return _output_differs(layer)


def _output_differs(layer: Layer) -> bool:
    try:
        return differs(layer.outputs, layer.run_forward())
    except CheckError:
        return True


def moved(value: Any) -> Any:
    """Return other numbers, close by."""
    shift = 1e-3 * np.random.default_rng(0).uniform(0.5, 1.0, np.shape(value))
    other = value + shift * (1 + np.abs(value))
    return other.astype(value.dtype) if isinstance(value, np.ndarray) else float(other)


def differs(outputs: Sequence[Any], others: Sequence[Any]) -> bool:
    """Tell whether two forward passes gave different outputs."""
    if len(outputs) != len(others):
        return True
    return not all(close(a, b, 1e-14) for a, b in zip(outputs, others, strict=True))
