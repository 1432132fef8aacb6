"""What a layer's backward pass is called with: told by the names of its arguments, or by trying.

What stays open is told by autograd: of the ways that run, the one whose gradients are the nearest.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import replace
from itertools import islice, product, takewhile
from typing import Any

import numpy as np

from ...validation import Array
from ..blocks import close, inner
from ..finding import Finding, found
from ..guard import CheckError
from .adapter import Automatic, Terms
from .calling import OF_LOSS, PLAIN, Calling, Source
from .conventions import CACHES, OUTPUTS, RATES, TARGETS, gradient_key, means_output, means_upstream
from .object_passes import ObjectPasses
from .objects import attributes_of, optional_names
from .returned import returned_names
from .session import untouched
from .subject import described, is_array, is_float_array, is_scalar, outputs_of

MOST = 60  # ways to try


def find_calling(layer: ObjectPasses) -> None:
    """Find out what a backward pass is called with, where that may be open."""
    try:
        _find(layer)
    except CheckError as error:
        if not layer.is_pair or layer.cache_at is None:
            raise
        layer.cache_at = None  # what stands last may be an output, too
        try:
            _find(layer)
        except CheckError:
            raise error from None
    layer.remarks += _said(layer.calling, layer) if not layer.told.ways else []


def _find(layer: ObjectPasses) -> None:
    with layer.session.fresh():
        layer.outputs = [np.array(out) for out in outputs_of(layer.label, layer.run())]
        layer.calling = _calling_of(layer)


def _said(calling: Calling, layer: ObjectPasses) -> list[Finding]:
    """Return what is to be said of a way to call a backward pass: what no name has told."""
    method, n, said = layer.backward_label, len(layer.parts), []
    if calling.is_derivative or calling.is_open:
        given = [(kind, layer.names[i] if kind == "input" else i) for kind, i in calling.sources]
        times = calling.is_derivative
        said = [found("called_with", method=method, arguments=given, n=n, times=times)]
    others = [i for i, is_known in enumerate(calling.differentiated(n)) if not is_known]
    if others and calling.takes_upstream:
        said.append(found("of_some_outputs", method=method, outputs=others))
    if calling.share is not None and n == 1 and not layer.is_scalar:
        said.append(found("each_loss", method=method, share=calling.share))
    return said


def _calling_of(layer: ObjectPasses) -> Calling:
    """Return how a backward pass is called, right after a first forward pass."""
    tried = _Tried(layer)
    if layer.told.ways:
        return tried.nearest(layer.told.ways) or layer.told.ways[0]
    n, is_weak, taken = len(layer.parts), layer.may_be_derivative, layer.required
    is_plain = n == 1 and len(taken) < 2 and not is_weak and layer.cache_at is None
    if is_plain and not (layer.takes_no_upstream and layer.outputs[0].ndim):
        return OF_LOSS if layer.takes_nothing and layer.is_scalar else PLAIN
    more = [*takewhile(means_upstream, optional_names(layer.taken))][: n - 1] if n > 1 else []
    ways = [*(_ways(layer, [*taken, *more]) if more else []), *_ways(layer, taken)]
    readings = list(islice((r for way in ways for r in _readings(way, layer, is_weak)), MOST))
    targets = [name for name in taken if name.lower() in TARGETS and name not in layer.names]
    best = tried.nearest(readings)
    if best is None:
        raise _refusal(layer, taken, tried.error, is_open=ways[0].is_open if ways else True)
    if targets and not any(map(means_upstream, taken)) and tried.nearness(best)[1:2] <= (0.0,):
        raise CheckError(
            f"{layer.backward_label} takes {targets[0]}, which {layer.label} does not: are these "
            "targets, and is this a network with its loss? Then check_network(net, x, "
            f"{targets[0]}) checks it, with loss=lambda y, t: … where it has no loss of its own"
        )
    return best


def _ways(layer: ObjectPasses, taken: Sequence[str]) -> list[Calling]:
    """Return the ways to call a backward pass with some arguments, the likeliest first."""
    n, has_cache = len(layer.parts), layer.cache_at is not None
    ups = [name for name in taken if name not in CACHES and means_upstream(name)]
    is_told = len(ups) < len(taken) if has_cache else n > 1
    if n == 1 and len(ups) == 1 < len(taken) and not means_output(ups[0]):  # of a loss, an input
        is_loss = any(layer.outputs[0].ndim < v.ndim for _, v in layer.given_values()[:1])
        is_told |= not (is_loss or layer.may_be_derivative)
    every = [_sources(layer, name, is_told=is_told) for name in taken]
    # By the names of the arguments: of what they say, or where they leave one thing only.
    told = {(i, s) for i, others in enumerate(every) for s in others if len(others) == 1}
    in_turn = [i for i, name in enumerate(taken) if means_upstream(name)]
    told |= {(len(taken) - 1, ("cache", None))}
    if len(in_turn) == 1:
        losses = [k for k, part in enumerate(layer.parts) if is_scalar(part)]
        likely = losses if len(losses) == 1 else [None, *range(n)]
        told |= {(in_turn[0], ("upstream", k)) for k in likely}
    else:
        told |= {(i, ("upstream", k)) for k, i in enumerate(in_turn) if k < n}
    ways = (
        Calling(sources, is_open=not told.issuperset(enumerate(sources)))
        for sources in product(*every)
        if len(set(sources)) == len(sources)
        if has_cache == (("cache", None) in sources)
    )
    return [way for way in ways if None not in way.upstream or len(way.upstream) == 1]


def _sources(layer: ObjectPasses, name: str, *, is_told: bool) -> list[Source]:
    """Return what an argument may be: one thing where its name tells, the likeliest first.

    Where it is told which argument the upstream gradient is, it is nothing else.
    """
    n, left, has_cache = len(layer.parts), attributes_of(layer.layer), layer.cache_at is not None
    ups: list[Source] = [("upstream", i) for i in range(n)]
    same = [i for i, other in enumerate(layer.names) if other.lower() == name.lower()]
    if same:
        kept: list[Source] = [("cache", None), *ups] if has_cache else []
        return [("input", same[0]), *(ups if layer.takes_input else kept)]
    if name in RATES:
        return [("rate", None)]
    if name in CACHES and (has_cache or layer.is_pair):
        return [("cache", None)]
    if n > 1:
        named = returned_names(layer.forward_method, n + has_cache)
        outputs = [out for i, out in enumerate(named) if i != layer.cache_at]
        own = [i for i, out in enumerate(outputs) if _is_gradient_of(name, out)]
        ups = [("upstream", own[0])] if len(own) == 1 else [*ups, ("upstream", None)]
    if means_upstream(name) and is_told:
        return ups
    if has_cache:
        return [*ups, ("cache", None)]
    inputs: list[Source] = [("input", i) for i in range(len(layer.names))]
    there: list[Source] = [("output", i) for i in range(len(layer.outputs))]
    there += [("left", key) for key in OUTPUTS if is_float_array(left.get(key))]
    first, second = (ups, inputs) if means_upstream(name) else (inputs, ups)
    return [*first, *second, *there]


def _is_gradient_of(name: str, output: str) -> bool:
    """Tell whether an argument has the name of the gradient of an output; h2 may be h."""
    stems = [output.rpartition(".")[2], *re.split(r"[_\d]", output.rpartition(".")[2])[:1]]
    names = [name, name.removesuffix("_next"), name.removesuffix("_out")]
    return any(stem and gradient_key(names, stem, itself=False) is not None for stem in stems)


def _readings(way: Calling, layer: ObjectPasses, is_weak: bool) -> Iterator[Calling]:
    """Yield what a call may mean: times the upstream gradient, or of the sum, or of the mean."""
    sizes = [out.shape for out in layer.outputs]
    scalars = [i for i, part in enumerate(layer.parts) if is_scalar(part)]
    if way.takes_upstream or sizes == [()]:
        yield way if way.takes_upstream else replace(way, share=1.0)
        return
    if len(layer.parts) > 1 and len(scalars) == 1:
        yield replace(way, share=1.0, of_output=scalars[0])
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
        self.true: dict[object, list[Any]] = {}

    def nearest(self, ways: Sequence[Calling]) -> Calling | None:
        """Return the way that gives the nearest gradients; None where there is none, or all raise.

        There may be only one, which its names tell.
        """
        if len(ways) == 1 and not ways[0].is_open:
            return ways[0]
        best = max(ways, key=self.nearness, default=None)
        return None if best is None or self.nearness(best)[0] < 0 else best

    def nearness(self, way: Calling) -> tuple[float, ...]:
        """Return how near the gradients of the inputs are to autograd's; -1 where it raises."""
        if way not in self.known:
            self.known[way] = self._nearness(way)
        return self.known[way]

    def _nearness(self, way: Calling) -> tuple[float, ...]:
        layer = self.layer
        try:
            there = gradients_by(layer, way)
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
            is_told = 1.5 if self._is_linear(way, there) else 0.0
        elif way.is_open and way.takes_upstream and layer.cache_at is not None:
            is_told = float(self._is_linear(way, there))
        true = self._true((way.share, *way.differentiated(len(layer.parts))))
        near = [_likeness(g, t) for g, t, fit in zip(there, true, fits, strict=True) if fit]
        return (1.0, float(sum(n == 2.0 for n in near)), is_told, round(sum(near), 1))

    def _is_linear(self, way: Calling, grads: Sequence[Any]) -> bool:
        """Tell whether gradients are twice as large for twice the upstream gradient."""
        with suppress(CheckError):
            pairs = zip(grads, gradients_by(self.layer, way, 2), strict=True)
            return all(is_array(a) and close(2 * a, b, 1e-6) for a, b in pairs)
        return False

    def _true(self, of: object) -> list[Any]:
        if of not in self.true:
            self.layer.upstream = self.layer.upstreams(np.random.default_rng(0))
            self.true[of] = list(self.layer.gradients_of(self.values))
        return self.true[of]


def gradients_by(layer: ObjectPasses, way: Calling, times: float = 1) -> list[Any]:
    """Return the gradients of the inputs that a way to call a backward pass gives."""
    layer.calling = way
    ups = layer.upstreams(np.random.default_rng(0))
    with layer.session.fresh():
        layer.reset()
        layer.run()
        layer.run_backward([times * u for u in ups])
        return layer.read_inputs()


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
    has_cache = layer.cache_at is not None
    if error is not None and (not is_open or (layer.is_pair and has_cache)):  # it is sure
        return error
    arguments, came = ", ".join(taken), "all raise" if error is None else str(error)
    if layer.is_pair:
        return CheckError(
            f"{layer.label} must return (out, cache), got {described(layer.structure)} (without a "
            f"cache, {layer.backward_label} must take the upstream gradient, inputs or the output: "
            f"{came}); for a scalar loss with a gradient function use check_gradient"
        )
    return CheckError(
        f"{layer.backward_label}({arguments}): what to call it with is not known: none of the "
        f"upstream gradient, the inputs and the outputs fits ({came}). Say it in a "
        f"subclass: def {layer.backward_name}(self, dout): return "
        f"super().{layer.backward_name}({arguments})"
    )


# -------------------- of a layer in a chain --------------------


def calling_back(layer: object, inputs: Sequence[object], automatic: Automatic) -> Calling | None:
    """Return how a layer is called back that may take more than a gradient; None of others."""
    with untouched(layer, inputs) as session:
        passes = ObjectPasses(layer, inputs, Terms(session, automatic=automatic))
        if not passes.may_be_open:
            return None
        find_calling(passes)
        return None if passes.calling in (PLAIN, OF_LOSS) else passes.calling


def arguments_back(
    calling: Calling, layer: object, inputs: Sequence[object], output: Any, up: Any
) -> tuple[list[Any], Array]:
    """Return what a layer is called back with, right after its forward pass; and the upstream."""
    fixed = 1.0 if calling.share is None else calling.share
    ups = np.full(np.shape(output), fixed) if up is None else up
    return calling.arguments([ups], inputs, output, layer), ups
