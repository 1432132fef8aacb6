"""Parameters that a backward pass changes itself: their gradient is the change, divided by the rate.

The rate is an argument or a number that the object keeps, as two runs show; or one in the code of
the pass, if autograd's gradient tells so of one parameter at least.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np

from ...validation import Array
from ..blocks import close, inner
from ..finding import found
from ..guard import CheckError
from ..source import code_of
from .adapter import Keeper
from .conventions import RATES, attributes_of, optional_names
from .held import Held, held_at, is_number
from .parameters import Parameter
from .session import reach

Changes = dict[str, Array]


def changes_of(held: Sequence[Held], before: Sequence[Array], layer: object) -> Changes:
    """Return by how much a pass has made arrays smaller, by their names."""
    now = [held_at(layer, h.path) for h in held]
    pairs = zip(held, before, now, strict=True)
    return {h.name: b - a for h, b, a in pairs if np.shape(a) == b.shape}


def take_updates(layer: Keeper, held: Sequence[Held]) -> list[Held]:
    """Give the layer a parameter for each array that backward changes by a rate; return the others.

    Others are changed otherwise: by an optimizer, to which the size of the gradient is nothing, or
    at a rate that is not known.
    """
    layer.updated = list(held)
    try:
        once, twice = _changes(layer), _changes(layer, 2.0)
        steady = [h for h in held if h.name in once and _is_scaled(once, twice, h.name)]
        layer.updated = steady
        rate = _rate(layer, steady, once) if steady else None
    except CheckError:
        rate = None
    if rate is None:
        layer.updated = []
        return list(held)
    found_at, adds = rate
    found_at *= _share(layer, steady, _changes(layer), found_at)
    for h in steady:
        gradient = partial(_gradient, layer, h.name, -found_at if adds else found_at)
        layer.take([Parameter(h.name, h.value, gradient)])
    names, method = [h.name for h in steady], layer.backward_label
    said = {"names": names, "rate": rate[0], "n": round(rate[0] / found_at), "adds": adds}
    layer.remarks.append(found("updated", method=method, **said))
    return [h for h in held if h not in steady]


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


def _is_scaled(once: Changes, twice: Changes, name: str) -> bool:
    """Tell whether the change grows with the upstream gradient, as that of Adam does not."""
    a, b = once[name], twice.get(name)
    return b is not None and not close(a, b, 1e-3)


def _share(layer: Keeper, held: Sequence[Held], once: Changes, rate: float) -> float:
    """Return 1, or 1/n where changes are by the mean over the n examples, as autograd tells."""
    n = len(layer.outputs[0]) if layer.outputs[0].ndim > 1 else 1
    true = layer.gradients_of([h.value for h in held])
    fitting = [_factor(once[h.name], t) for h, t in zip(held, true, strict=True) if t is not None]
    factors = [abs(f) / rate for f in fitting if f is not None]
    is_mean = n > 1 and any(abs(f * n - 1) < 1e-6 for f in factors)
    return 1 / n if is_mean and not any(abs(f - 1) < 1e-6 for f in factors) else 1.0


def _rate(layer: Keeper, held: Sequence[Held], once: Changes) -> tuple[float, bool] | None:
    """Return the rate of an update, and whether it adds the gradient; None where it is not known."""
    true = dict(zip([h.name for h in held], layer.gradients_of([h.value for h in held]), strict=True))
    known = [h.name for h in held if true[h.name] is not None]
    adds = sum(_cosine(once[name], true[name]) for name in known) < 0
    if layer.calling is not None and ("rate", None) in layer.calling.sources:
        return 1.0, adds
    if _is_kept(layer, held, once):
        return 1.0, adds
    defaults = optional_names(layer.backward_method)
    given = [float(v) for n, v in defaults.items() if n in RATES and is_number(v) and v]
    if given:
        return given[0], adds
    fitting = [_factor(once[name], true[name]) for name in known]
    factors = [abs(f) for f in fitting if f is not None]
    likely = [f for f in factors if any(abs(f / n - 1) < 1e-6 for n in _literals(layer))]
    if not likely and len(factors) > 1 and max(factors) <= min(factors) * (1 + 1e-6):
        likely = factors
    return (likely[0], adds) if likely else None


def _is_kept(layer: Keeper, held: Sequence[Held], once: Changes) -> bool:
    """Tell whether the rate is a number that the layer keeps, or its optimizer; and make it 1."""
    for item in reach(layer.layer):
        for name, value in attributes_of(item).items():
            if name.strip("_") not in RATES or not is_number(value) or not value:
                continue
            with layer.session.fresh():
                setattr(item, name, 1.0)
                layer.session.rebase()
            if all(close(layer_changes / 1.0, once[n] / value, 1e-6) for n, layer_changes in _changes(layer).items()):
                return True
            with layer.session.fresh():
                setattr(item, name, value)
                layer.session.rebase()
    return False


def _factor(change: Array, true: Array) -> float | None:
    """Return by what factor a change is the gradient; None where it is not."""
    scale = inner(true.reshape(-1), true.reshape(-1))
    if not scale:
        return None
    factor = inner(change.reshape(-1), true.reshape(-1)) / scale
    return factor if factor and close(change, factor * true, 1e-7) else None


def _cosine(a: Array, b: Array) -> float:
    size = inner(a.reshape(-1), a.reshape(-1)) * inner(b.reshape(-1), b.reshape(-1))
    return float(inner(a.reshape(-1), b.reshape(-1)) / size**0.5) if size > 0 else 0.0


def _literals(layer: Keeper) -> list[float]:
    """Return the numbers in the code of a backward pass, and those that it has as globals."""
    code = code_of(layer.backward_method)
    constants: list[Any] = [] if code is None else [*code.co_consts]
    scope = getattr(layer.backward_method, "__globals__", {})
    constants += [scope.get(name) for name in code.co_names] if code is not None else []
    return [float(n) for n in constants if is_number(n) and 0 < n < 1]
