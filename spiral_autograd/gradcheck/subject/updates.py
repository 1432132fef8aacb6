"""Parameters that a backward pass changes itself: the gradient is the change over the rate.

The rate is an argument, or a number that the object keeps, as two runs show; or one in the code of
the pass, if autograd's gradient says so of one parameter at least.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from ...validation import Array
from ..blocks import close, inner
from ..finding import Finding, found
from ..guard import CheckError
from ..source import code_of
from .calling import RATE, given_rates
from .conventions import RATES
from .object_passes import ObjectPasses
from .objects import Held, is_number, optional_names, values_of
from .parameters import Parameter
from .session import Session, reach

Changes = dict[str, Array]


@dataclass(frozen=True)
class Update:
    """Somebody's pass that changes arrays, by a rate that is to be found."""

    owner: object
    method: Any
    session: Session
    changes: Callable[[], Changes]  # runs it, and returns by how much it makes arrays smaller
    true: Mapping[str, Array | None]  # autograd's gradients of these
    argument: float | None = None  # the rate, where it is given

    def rate(self) -> float | None:
        """Return the rate; None where it is not known."""
        if self.argument is not None:
            return self.argument
        kept = [self._begun(*one) for one in self._numbers() if self._is_rate(*one[:2])]
        rates = optional_names(self.method) | given_rates(self.method)
        default = [n for name, n in rates.items() if name in RATES]
        known = kept + [float(n) for n in default if is_number(n) and n]
        return known[0] if known else self._written()

    def _written(self) -> float | None:
        """Return the number in the pass's code that changes show, else the one that all show."""
        factors = [abs(f) for f in self.factors()]
        code = code_of(self.method)
        scope = getattr(self.method, "__globals__", {})
        constants = [] if code is None else [*code.co_consts, *map(scope.get, code.co_names)]
        written = [1.0, *(float(n) for n in constants if is_number(n) and 0 < n < 1)]
        likely = [n for n in written if any(abs(f / n - 1) < 1e-6 for f in factors)]
        is_one = len(factors) > 1 and max(factors) <= min(factors) * (1 + 1e-6)
        return next(iter(likely or factors * is_one), None)

    def _numbers(self) -> Iterator[tuple[Any, str, Any]]:
        """Yield the numbers with the name of a rate that the owner keeps, or an optimizer in it."""
        for item in reach(self.owner):
            for name, value in values_of(item).items() if hasattr(item, "__dict__") else ():
                if name.strip("_") in RATES and is_number(value) and value:
                    yield item, name, value

    def _is_rate(self, item: Any, name: str) -> bool:
        """Tell whether changes, of which some may lack it, grow with a number."""
        value, begun, before = getattr(item, name), self.session.start, self.changes()
        with self.session.fresh():
            setattr(item, name, value / 2)
            self.session.rebase()
        after = self.changes()
        self.session.start = begun
        self.session.restore()
        return any(n in after and close(after[n], before[n] / 2, 1e-6) for n in before)

    def _begun(self, item: Any, name: str, value: Any) -> float:
        """Return a rate that is kept: another in place of 1, which does not show what lacks it."""
        if value == 1:
            with self.session.fresh():
                setattr(item, name, RATE)
                self.session.rebase()
        return float(getattr(item, name))

    def pairs(self) -> dict[str, tuple[Array, Array]]:
        """Return by name the changes with autograd's gradients, where there are any."""
        true = [(name, change, self.true.get(name)) for name, change in self.changes().items()]
        return {name: (a.reshape(-1), t.reshape(-1)) for name, a, t in true if t is not None}

    def lacking(self, rate: float) -> list[Finding]:
        """Return what to say of arrays that are changed by the gradient without the rate."""
        names = [name for name, (a, t) in self.pairs().items() if close(a, t, 1e-7)]
        return [found("without_rate", names=names)] if names and abs(rate - 1) > 1e-6 else []

    def factors(self) -> list[float]:
        """Return by what factors changes are the gradient, of those that are."""
        factors = [(a, t, _factor(a, t)) for a, t in self.pairs().values()]
        return [f for a, t, f in factors if f and close(a, f * t, 1e-7)]

    @property
    def adds(self) -> bool:
        """Whether the changes add the gradient, all of them, rather than subtract it."""
        products = [inner(a, t) for a, t in self.pairs().values()]
        return any(products) and max(filter(None, products)) < 0


def take_updates(layer: ObjectPasses, held: Sequence[Held]) -> list[Held]:
    """Take a parameter for each array that backward changes by a known rate; return the others."""
    update = rate = None
    with suppress(CheckError):
        update = _update_of(layer, held)
        rate = update.rate() if update else None
        layer.decays = _decays(layer) if layer.decays else {}  # by that rate
    if update is None or rate is None:
        layer.updated = []
        return list(held)
    n, adds, start = _averaged(layer, update, rate), update.adds, layer.session.start
    layer.remarks += update.lacking(rate)
    gradient = partial(_gradient, layer, -rate / n if adds else rate / n)
    layer.take([Parameter(h.name, h.value, partial(gradient, h.name)) for h in layer.updated])
    names, label = [h.name for h in layer.updated], layer.backward_label
    for h in layer.updated:
        if h.name in layer.decays:
            share = _factor(layer.decays[h.name], start.kept(h.value, h.value)) / rate
            layer.remarks.append(found("decays", method=label, name=h.name, share=share))
    layer.remarks.append(
        found("by_its_change", method=label, names=names, rate=rate, n=n, adds=adds)
    )
    return [h for h in held if h.name not in names]


def _update_of(layer: ObjectPasses, held: Sequence[Held]) -> Update | None:
    """Return the update of the arrays whose changes are others with another upstream gradient."""
    layer.updated = list(held)
    layer.decays = _decays(layer)
    once, twice = (_changes(layer, factor) for factor in (1.0, 2.0))
    sized = [n for n in once if n in twice and not close(once[n], twice[n], 1e-3)]
    if not sized:
        return None
    layer.updated = [h for h in held if h.name in sized]
    true = layer.gradients_of([h.value for h in layer.updated])
    named = dict(zip([h.name for h in layer.updated], true, strict=True))
    argument = RATE if ("rate", None) in layer.calling.sources else None
    method, run = layer.backward_method, partial(_changes, layer)
    return Update(layer.layer, method, layer.session, run, named, argument)


def _averaged(layer: ObjectPasses, update: Update, rate: float) -> int:
    """Return over how many examples the pass averages the gradient before it changes arrays."""
    n = len(layer.outputs[0]) if layer.outputs[0].ndim > 1 else 1
    shares = [abs(f) / rate for f in update.factors()]
    return next((k for k in (1, n) if any(abs(f * k - 1) < 1e-6 for f in shares)), 1)


def _decays(layer: ObjectPasses) -> Changes:
    """Return what an update takes of arrays without any gradient, if that is a share of them."""
    if layer.is_scalar or not layer.calling.takes_upstream:
        return {}
    layer.decays, shares = {}, {}
    kept = {h.name: layer.session.start.kept(h.value, h.value) for h in layer.updated}
    for name, change in _changes(layer, 0.0).items():
        share = _factor(change, kept[name])
        if share > 0 and close(change, share * kept[name], 1e-6):
            shares[name] = change
    return shares


def _factor(ours: Array, theirs: Array) -> float:
    """Return by what factor an array is nearest to another."""
    return inner(ours, theirs) / (inner(theirs, theirs) or 1.0)


def _gradient(layer: ObjectPasses, rate: float, name: str) -> Array | None:
    change = layer.changes.get(name)
    return None if change is None else change / rate


def _changes(layer: ObjectPasses, factor: float = 1.0) -> Changes:
    """Return by how much a backward pass changes what the layer updates."""
    with layer.session.fresh():
        layer.reset()
        layer.run()
        layer.run_backward([np.array(factor * u) for u in layer.upstream])
        return layer.changes
