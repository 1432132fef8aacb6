"""Parameters that a backward pass changes itself: the gradient is the change over the rate.

The rate is an argument, or a number that the object keeps, as two runs show; or one in the code of
the pass, if autograd's gradient says so of one parameter at least.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any

import numpy as np

from ...validation import Array
from ..blocks import close, inner
from ..finding import found
from ..guard import CheckError
from ..source import code_of
from .adapter import Keeper
from .conventions import RATES, optional_names
from .held import Held, held_at, is_number, values_of
from .parameters import Parameter
from .session import reach

Changes = dict[str, Array]


def changes_of(held: Sequence[Held], before: Sequence[Array], layer: object) -> Changes:
    """Return by how much a pass has made arrays smaller, by their names."""
    pairs = [(h.name, b, held_at(layer, h.path)) for h, b in zip(held, before, strict=True)]
    return {name: b - now for name, b, now in pairs if np.shape(now) == b.shape}


def take_updates(layer: Keeper, held: Sequence[Held]) -> list[Held]:
    """Give the layer a parameter for each array that backward changes by a rate; return the others.

    An optimizer may change them to which the size of a gradient is nothing, as Adam; or the rate is
    not known.
    """
    layer.updated = list(held)
    try:
        once, twice = (_changes(layer, factor) if held else {} for factor in (1.0, 2.0))
        sized = [n for n in once if n in twice and not close(once[n], twice[n], 1e-3)]
        layer.updated = [h for h in held if h.name in sized]
        rate = _rate(layer) if sized else None
    except CheckError:
        rate = None
    if rate is None:
        layer.updated = []
        return list(held)
    factors = _factors(layer, rate)
    n = len(layer.outputs[0]) if layer.outputs[0].ndim > 1 else 1
    is_mean = any(abs(abs(f) * n - 1) < 1e-6 for f in factors) and n > 1
    n = n if is_mean and not any(abs(abs(f) - 1) < 1e-6 for f in factors) else 1
    adds = _points_up(layer)
    for h in layer.updated:
        gradient = partial(_gradient, layer, h.name, -rate / n if adds else rate / n)
        layer.take([Parameter(h.name, h.value, gradient)])
    names, method = [h.name for h in layer.updated], layer.backward_label
    change = found("by_its_change", method=method, names=names, rate=rate, n=n, adds=adds)
    layer.remarks.append(change)
    return [h for h in held if h.name not in names]


def _gradient(layer: Keeper, name: str, rate: float) -> Array | None:
    change = layer.changes.get(name)
    return None if change is None else change / rate


def _changes(layer: Keeper, factor: float = 1.0) -> Changes:
    """Return by how much a backward pass changes what the layer updates."""
    with layer.session.fresh():
        layer.reset()
        layer.run()
        layer.run_backward([np.array(factor * u) for u in layer.upstream])
        return layer.changes


def _rate(layer: Keeper) -> float | None:
    """Return the rate of an update; None where it is not known. What can be set is set to 1."""
    if layer.calling is not None and ("rate", None) in layer.calling.sources:
        return 1.0
    if any(_is_rate(layer, item, name) for item, name in _numbers_named_rate(layer)):
        return 1.0
    defaults = optional_names(layer.backward_method)
    known = [float(n) for name, n in defaults.items() if name in RATES and is_number(n) and n]
    if known:
        return known[0]
    factors = [abs(f) for f in _factors(layer, 1.0)]
    likely = [n for n in _literals(layer) if any(abs(f / n - 1) < 1e-6 for f in factors)]
    is_one = len(factors) > 1 and max(factors) <= min(factors) * (1 + 1e-6)
    return next(iter(likely or factors * is_one), None)


def _numbers_named_rate(layer: Keeper) -> Iterator[tuple[Any, str]]:
    """Yield the numbers with the name of a rate that a layer keeps, or an optimizer in it."""
    for item in reach(layer.layer):
        for name, value in values_of(item).items() if hasattr(item, "__dict__") else ():
            if name.strip("_") in RATES and is_number(value) and value:
                yield item, name


def _is_rate(layer: Keeper, item: Any, name: str) -> bool:
    """Tell whether the changes grow with a number, and let it begin as 1 if so."""
    value, begun = getattr(item, name), layer.session.start
    before = _changes(layer)
    with layer.session.fresh():
        setattr(item, name, 1.0)
        layer.session.rebase()
    after = _changes(layer)
    if all(n in after and close(after[n], before[n] / value, 1e-6) for n in before):
        return True
    layer.session.start = begun
    layer.session.restore()
    return False


def _pairs(layer: Keeper) -> list[tuple[Array, Array]]:
    """Return the changes with autograd's gradients, where there are any."""
    changes, true = _changes(layer), layer.gradients_of([h.value for h in layer.updated])
    pairs = zip(layer.updated, true, strict=True)
    return [(changes[h.name].reshape(-1), t.reshape(-1)) for h, t in pairs if t is not None]


def _factors(layer: Keeper, rate: float) -> list[float]:
    """Return by what factors changes over the rate are the gradient, of those that are."""
    factors = [(a / rate, t, inner(a / rate, t) / (inner(t, t) or 1.0)) for a, t in _pairs(layer)]
    return [f for a, t, f in factors if f and close(a, f * t, 1e-7)]


def _points_up(layer: Keeper) -> bool:
    """Tell whether the changes add the gradient rather than subtract it."""
    pairs = _pairs(layer)
    return sum(inner(a, t) / ((inner(a, a) * inner(t, t)) ** 0.5 or 1.0) for a, t in pairs) < 0


def _literals(layer: Keeper) -> list[float]:
    """Return the numbers in the code of a backward pass, and those that it has as globals."""
    code = code_of(layer.backward_method)
    scope = getattr(layer.backward_method, "__globals__", {})
    constants = [] if code is None else [*code.co_consts, *map(scope.get, code.co_names)]
    return [float(n) for n in constants if is_number(n) and 0 < n < 1]
