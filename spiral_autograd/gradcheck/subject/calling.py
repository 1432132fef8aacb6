"""What a layer's backward pass is called with: told by the names of its arguments, or by trying.

What stays open is told by autograd: of the ways that run, the one whose gradients are the nearest.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import replace
from itertools import islice, product
from types import SimpleNamespace
from typing import Any

import numpy as np

from ...validation import Array
from ..blocks import close, inner
from ..guard import CheckError
from .adapter import Automatic, Terms
from .conventions import CACHES, OUTPUTS, RATES, TARGETS, means_upstream
from .object_passes import Calling, ObjectPasses, Source
from .objects import attributes_of
from .session import untouched
from .subject import is_array, is_float_array, outputs_of

MOST = 60  # ways to try


def find_calling(layer: ObjectPasses) -> None:
    """Find out what a backward pass is called with, where that may be open."""
    with layer.session.fresh():
        layer.outputs = [np.array(out) for out in outputs_of(layer.label, layer.run())]
        layer.calling = _calling_of(layer)
    layer.remarks += [] if layer.calling is None else layer.calling.said(layer)


def _calling_of(layer: ObjectPasses) -> Calling | None:
    """Return how a backward pass is called; None where it takes upstream gradients alone.

    It is asked right after a first forward pass.
    """
    taken, n_outputs = layer.required, len(layer.outputs)
    is_weak = layer.may_be_derivative
    is_plain = len(taken) <= n_outputs and not is_weak and not layer.has_cache
    if is_plain and not (layer.takes_no_upstream and layer.outputs[0].ndim):
        return None
    every = [_sources(layer, name, i == len(taken) - 1) for i, name in enumerate(taken)]
    # By the names of the arguments: of what they say, or where they leave one thing only.
    told = {(i, s) for i, others in enumerate(every) for s in others if len(others) == 1}
    ups = [("upstream", k) for k in range(n_outputs)]
    told |= {(i, up) for i, name in enumerate(taken) if means_upstream(name) for up in ups}
    ways = [
        Calling(sources, is_open=not told.issuperset(enumerate(sources)))
        for sources in product(*every)
        if len(set(sources)) == len(sources)
        if sum(kind == "upstream" for kind, _ in sources) in (0, n_outputs)
    ]
    tried = _Tried(layer)
    every_reading = (w for way in ways for w in _readings(way, layer, is_weak))
    best = max(islice(every_reading, MOST), key=tried.nearness, default=None)
    if best is None or tried.nearness(best)[0] < 0:
        raise _refusal(layer, taken, tried.error, is_open=ways[0].is_open if ways else True)
    targets = [n for n in taken if n.lower() in TARGETS and n not in layer.names]
    if targets and not any(map(means_upstream, taken)) and tried.nearness(best)[1:2] <= (0.0,):
        raise CheckError(
            f"{layer.backward_label} takes {targets[0]}, which {layer.label} does not: are these "
            "targets, and is this a network with its loss? Then check_network(net, x, "
            f"{targets[0]}) checks it, with loss=lambda y, t: … where it has no loss of its own"
        )
    return best


def _sources(layer: ObjectPasses, name: str, is_last: bool) -> list[Source]:
    """Return what an argument may be: one thing where its name tells, the likeliest first."""
    ups: list[Source]
    same = [i for i, other in enumerate(layer.names) if other.lower() == name.lower()]
    if same:
        ups = [("upstream", 0)] if layer.takes_input else []
        return [("input", same[0]), *ups]
    if name in RATES:
        return [("rate", None)]
    if layer.has_cache and (name in CACHES or is_last):
        return [("cache", None)]
    n, left = len(layer.outputs), attributes_of(layer.layer)
    ups = [("upstream", i) for i in range(n)]
    inputs: list[Source] = [("input", i) for i in range(len(layer.names))]
    outputs: list[Source] = [("output", i) for i in range(n)]
    outputs += [("left", key) for key in OUTPUTS if is_float_array(left.get(key))]
    first, second = (ups, inputs) if means_upstream(name) else (inputs, ups)
    return [*first, *second, *outputs]


def _readings(way: Calling, layer: ObjectPasses, is_weak: bool) -> Iterator[Calling]:
    """Yield what a call may mean: times the upstream gradient, or of the sum, or of the mean."""
    sizes = [out.shape for out in layer.outputs]
    if way.takes_upstream or sizes == [()]:
        yield way
        return
    if is_weak:
        yield replace(way, is_derivative=True)
    shape = sizes[0]
    for n in dict.fromkeys([1, shape[0], math.prod(shape)] if len(sizes) == 1 else []):
        yield replace(way, share=1 / n)


class _Tried:
    """Tries ways to call a backward pass; `error` is that of the first that could not be."""

    def __init__(self, layer: ObjectPasses) -> None:
        self.layer = layer
        self.error: CheckError | None = None
        self.values = [value for _, value in layer.given_values()]
        self.known: dict[Calling, tuple[float, ...]] = {}
        self.true: dict[float | None, list[Any]] = {}

    def nearness(self, way: Calling) -> tuple[float, ...]:
        """Return how near the gradients of the inputs are to autograd's; -1 where it raises."""
        if way not in self.known:
            self.known[way] = self._nearness(way)
        return self.known[way]

    def _nearness(self, way: Calling) -> tuple[float, ...]:
        layer = self.layer
        layer.calling = way
        ups = layer.upstreams(np.random.default_rng(0))
        try:
            with layer.session.fresh():
                layer.reset()
                layer.run()
                layer.run_backward([np.array(u) for u in ups])
            there = layer.read_inputs()
        except CheckError as error:
            self.error = self.error or error
            return (-1.0,)
        pairs = [(g, v) for g, v in zip(there, self.values, strict=True)]
        fits = [is_array(g) and g.shape == v.shape for g, v in pairs]
        if not any(fits):
            return (0.0 if way.takes_upstream or not self.values else -0.5,)
        # A wrong gradient may be like that of a call that nobody means.
        is_told = float(not way.is_open or way.is_derivative)
        if layer.takes_input and way.sources == (("upstream", 0),):  # by another's name
            is_told = 1.5 if self._is_linear(there, ups) else 0.0
        true = self._true(way.share, ups)
        near = [_likeness(g, t) for g, t, fit in zip(there, true, fits, strict=True) if fit]
        return (1.0, float(sum(n == 2.0 for n in near)), is_told, round(sum(near), 1))

    def _is_linear(self, grads: Sequence[Any], ups: list[Array]) -> bool:
        """Tell whether gradients are twice as large for twice the upstream gradient."""
        with suppress(CheckError), self.layer.session.fresh():
            self.layer.reset()
            self.layer.run()
            self.layer.run_backward([2 * u for u in ups])
            pairs = zip(grads, self.layer.read_inputs(), strict=True)
            return all(is_array(a) and close(2 * a, b, 1e-6) for a, b in pairs)
        return False

    def _true(self, share: float | None, ups: list[Array]) -> list[Any]:
        if share not in self.true:
            self.layer.upstream = ups
            self.true[share] = list(self.layer.gradients_of(self.values))
        return self.true[share]


def _likeness(ours: Any, true: Any) -> float:
    """Return 2 where two gradients are equal; else the cosine of their angle, less for a factor.

    Its sign does not count: a gradient with the wrong sign is like the true one.
    """
    if true is None or not np.isfinite(ours).all():
        return 0.0
    if close(ours, true, 1e-9 if ours.dtype.itemsize > 4 else 1e-4):
        return 2.0
    a, b = np.ravel(ours), np.ravel(true)
    sizes = inner(a, a) * inner(b, b)
    if not sizes > 0:
        return 0.0
    apart = abs(math.log(inner(a, a) / inner(b, b)))
    return float(abs(inner(a, b)) / sizes**0.5 / (1 + apart))


def _refusal(
    layer: ObjectPasses, taken: Sequence[str], error: CheckError | None, *, is_open: bool
) -> CheckError:
    """Return why no way to call a backward pass could be found, and what to write."""
    if error is not None and not is_open:  # what it is called with is sure
        return error
    arguments = ", ".join(taken)
    return CheckError(
        f"{layer.backward_label}({arguments}): what to call it with is not known: none of the "
        f"upstream gradient, the inputs and the outputs fits ({error or 'all raise'}). Say it in a "
        f"subclass: def {layer.backward_name}(self, dout): return "
        f"super().{layer.backward_name}({arguments})"
    )


# -------------------- of a layer in a chain --------------------


def calling_back(layer: object, inputs: Sequence[object], automatic: Automatic) -> Calling | None:
    """Return how a layer is called back that takes more than a gradient; None of others."""
    with untouched(layer, inputs) as session:
        passes = ObjectPasses(layer, inputs, Terms(session, automatic=automatic))
        if passes.may_be_open:
            find_calling(passes)
        return passes.calling


def arguments_back(
    calling: Calling, layer: object, inputs: Sequence[object], output: Any, up: Any
) -> tuple[list[Any], Array]:
    """Return what a layer is called back with, right after its forward pass; and the upstream."""
    fixed = 1.0 if calling.share is None else calling.share
    ups = np.full(np.shape(output), fixed) if up is None else up
    view: Any = SimpleNamespace(inputs=inputs, last=output, cache=None, layer=layer)
    return calling.arguments(view, [ups]), ups
