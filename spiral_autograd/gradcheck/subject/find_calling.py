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
from .objects import attributes_of, optional_names, required_names
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
    told = layer.told.ways
    plain = None if told else _plain_calling(layer)
    if plain is not None:
        return plain
    tried = _Tried(layer)
    if told:
        return tried.nearest(told) or told[0]
    taken, ways = layer.required, _every_way(layer)
    best = tried.nearest(list(islice((r for way in ways for r in _readings(way, layer)), MOST)))
    if best is None:
        raise _refusal(layer, taken, tried.error, is_open=ways[0].is_open if ways else True)
    targets = [name for name in taken if name.lower() in TARGETS and name not in layer.names]
    if targets and not any(map(means_upstream, taken)) and tried.is_unlike(best):
        raise CheckError(
            f"{layer.backward_label} takes {targets[0]}, which {layer.label} does not: are these "
            "targets, and is this a network with its loss? Then check_network(net, x, "
            f"{targets[0]}) checks it, with loss=lambda y, t: … where it has no loss of its own"
        )
    return best


def _plain_calling(layer: ObjectPasses) -> Calling | None:
    """Return how a backward pass of one output is called that takes its upstream gradient alone."""
    is_one = len(layer.parts) == 1 and len(layer.required) < 2 and layer.cache_at is None
    takes_it = not (layer.takes_no_upstream and layer.outputs[0].ndim)
    if not is_one or layer.may_be_derivative or not takes_it:
        return None
    return OF_LOSS if layer.takes_nothing and layer.is_scalar else PLAIN


def _every_way(layer: ObjectPasses) -> list[Calling]:
    """Return the ways to call a backward pass: with further upstream gradients, and without."""
    n, names = len(layer.parts), required_names(layer.taken)
    more = [*takewhile(means_upstream, optional_names(layer.taken))][: n - 1]
    # Of two functions with *args, an upstream gradient of each output.
    is_usual = layer.is_pair and not names
    taken = layer.required if not is_usual else [*["dout"] * (n - 1), *layer.required]
    asked = dict.fromkeys([(*taken, *more), (*taken,)])
    return [way for some in asked for way in _ways(layer, some)]


def _ways(layer: ObjectPasses, taken: Sequence[str]) -> list[Calling]:
    """Return the ways to call a backward pass with some arguments, the likeliest first."""
    has_cache, is_told = layer.cache_at is not None, _is_upstream_told(layer, taken)
    every = [_sources(layer, name, is_told=is_told) for name in taken]
    told = _told_by_names(layer, taken)
    # Or a name leaves one thing only.
    told |= {(i, s) for i, others in enumerate(every) for s in others if len(others) == 1}
    ways = (
        Calling(sources, is_open=not told.issuperset(enumerate(sources)))
        for sources in product(*every)
        if len(set(sources)) == len(sources)
        if has_cache == (("cache", None) in sources)
    )
    return [way for way in ways if None not in way.upstream or len(way.upstream) == 1]


def _is_upstream_told(layer: ObjectPasses, taken: Sequence[str]) -> bool:
    """Tell whether arguments that are called as upstream gradients are nothing else."""
    n, ups = len(layer.parts), [t for t in taken if t not in CACHES and means_upstream(t)]
    if layer.cache_at is not None and len(ups) < len(taken):
        return True
    if n > 1 or len(ups) != 1 or len(taken) == 1 or layer.may_be_derivative:
        return n > 1 and layer.cache_at is None
    is_loss = any(layer.outputs[0].ndim < v.ndim for _, v in layer.given_values()[:1])
    is_loss |= any(name.lower() in TARGETS for name in layer.names)
    return not is_loss and not means_output(ups[0])  # a loss may be given its input so


def _told_by_names(layer: ObjectPasses, taken: Sequence[str]) -> set[tuple[int, Source]]:
    """Return which arguments are the cache and upstream gradients by their names and places."""
    told: set[tuple[int, Source]] = {(len(taken) - 1, ("cache", None))}
    in_turn = [i for i, name in enumerate(taken) if means_upstream(name)]
    if len(in_turn) != 1:
        return told | {
            (i, ("upstream", k)) for i, k in zip(in_turn, range(len(layer.parts)), strict=False)
        }
    losses = [k for k, part in enumerate(layer.parts) if is_scalar(part)]
    likely = losses if len(losses) == 1 else [None, *range(len(layer.parts))]
    return told | {(in_turn[0], ("upstream", k)) for k in likely}


def _sources(layer: ObjectPasses, name: str, *, is_told: bool) -> list[Source]:
    """Return what an argument may be: one thing where its name tells, the likeliest first.

    Where it is told which argument the upstream gradient is, it is nothing else.
    """
    named = _named_sources(layer, name)
    if named:
        return named
    ups = _upstreams(layer, name)
    if means_upstream(name) and is_told:
        return ups
    if layer.cache_at is not None:
        return [*ups, ("cache", None)]
    inputs: list[Source] = [("input", i) for i in range(len(layer.names))]
    first, second = (ups, inputs) if means_upstream(name) else (inputs, ups)
    left = attributes_of(layer.layer)
    there: list[Source] = [("output", i) for i in range(len(layer.outputs))]
    there += [("left", key) for key in OUTPUTS if is_float_array(left.get(key))]
    return [*first, *second, *there]


def _named_sources(layer: ObjectPasses, name: str) -> list[Source]:
    """Return what an argument is that is called as an input, a rate or a cache; none of others."""
    has_cache = layer.cache_at is not None
    ups: list[Source] = [("upstream", i) for i in range(len(layer.parts))]
    for i in (i for i, other in enumerate(layer.names) if other.lower() == name.lower()):
        kept: list[Source] = [("cache", None), *ups] if has_cache else []
        return [("input", i), *(ups if layer.takes_input else kept)]
    if name in RATES:
        return [("rate", None)]
    return [("cache", None)] if name in CACHES and (has_cache or layer.is_pair) else []


def _upstreams(layer: ObjectPasses, name: str) -> list[Source]:
    """Return of which outputs an argument may be the upstream gradient: of one, by its name."""
    n = len(layer.parts)
    ups: list[Source] = [("upstream", i) for i in range(n)]
    if n == 1:
        return ups
    named = returned_names(layer.forward_method, n + (layer.cache_at is not None))
    outputs = [out for i, out in enumerate(named) if i != layer.cache_at]
    own = [i for i, out in enumerate(outputs) if _is_gradient_of(name, out)]
    return [("upstream", own[0])] if len(own) == 1 else [*ups, ("upstream", None)]


def _is_gradient_of(name: str, output: str) -> bool:
    """Tell whether an argument has the name of the gradient of an output; h2 may be h."""
    stems = [output.rpartition(".")[2], *re.split(r"[_\d]", output.rpartition(".")[2])[:1]]
    names = [name, name.removesuffix("_next"), name.removesuffix("_out")]
    return any(stem and gradient_key(names, stem, itself=False) is not None for stem in stems)


def _readings(way: Calling, layer: ObjectPasses) -> Iterator[Calling]:
    """Yield what a call may mean: times the upstream gradient, or of the sum, or of the mean."""
    sizes = [out.shape for out in layer.outputs]
    scalars = [i for i, part in enumerate(layer.parts) if is_scalar(part)]
    if way.takes_upstream or sizes == [()]:
        yield way if way.takes_upstream else replace(way, share=1.0)
        return
    if len(layer.parts) > 1 and len(scalars) == 1:
        yield replace(way, share=1.0, of_output=scalars[0])
        return
    if layer.may_be_derivative:
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

    def is_unlike(self, way: Calling) -> bool:
        """Tell whether none of the gradients that a way gives is autograd's."""
        return self.nearness(way)[1:2] <= (0.0,)

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
        true = self._true((way.share, *way.differentiated(len(layer.parts))))
        near = [_likeness(g, t) for g, t, fit in zip(there, true, fits, strict=True) if fit]
        if not any(t is not None and t.any() for t in true):  # of a count: any is like that
            near = [0.0] * len(near)
        equal = float(sum(n == 2.0 for n in near))
        return (1.0, equal, self._is_meant(way, there), round(sum(near), 1))

    def _is_meant(self, way: Calling, grads: Sequence[Any]) -> float:
        """Return how likely a way is meant: a wrong gradient may be like that of another one."""
        if self.layer.takes_input and way.sources == (("upstream", 0),):  # by another's name
            return 1.5 if self._is_linear(way, grads) else 0.0
        if way.takes_upstream and (not way.is_open or self.layer.cache_at is not None):
            return float(self._is_linear(way, grads))
        return float(not way.is_open or way.is_derivative)

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
