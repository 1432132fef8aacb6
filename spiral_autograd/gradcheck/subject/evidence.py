"""Which array is the gradient of which parameter: told by autograd's own, and by name second.

Asked of what the forward pass uses and no convention has a gradient for.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from ...pytree import leaves
from ...validation import Array
from ..blocks import checksum, close, inner
from ..reference.reference import find_reference
from .choice import returned_names
from .conventions import CONTAINERS, gradient_keys
from .parameters import Held, held_arrays, held_at, nested
from .subject import MISSING, CheckError, Gradients, Subject, is_float_array

MOST = 10_000  # pairs to look at: a layer may keep a table of many arrays

if TYPE_CHECKING:
    from .objects import Layer


@dataclass(frozen=True, eq=False)
class Part:
    """A parameter, or a view of a part of it, which may have a gradient of its own.

    Attributes
    ----------
    owner : Held
        The parameter.
    name : str
        What the part is called.
    places : array of int
        Which entries of the parameter it has.
    gradient : array or None
        Its automatic gradient, if one can be had.
    """

    owner: Held
    name: str
    places: Array
    gradient: Array | None


def claim(layer: Layer, held: Sequence[Held]) -> list[Held]:
    """Give the layer a parameter for each array whose gradient it keeps; return the others."""
    written = _written_by_backward(layer) if held else []
    if not written or len(held) * len(written) > MOST:
        return list(held)
    parts = _parts(layer, held)
    pairs = _assigned(parts, written, layer)
    left = []
    for h in held:
        own = [(part, pairs[part]) for part in parts if part.owner is h and part in pairs]
        whole = [pair for pair in own if pair[0].places.size == h.value.size]
        own = whole[:1] or own
        if own:
            read = partial(_read, layer, h.value, own)
            layer.claimed |= {g.path[1] for _, g in own if g.holder is layer and len(g.path) > 1}
            layer.take(_own_name(h.name), h.value, read, _first(h.value, own))
        else:
            left.append(h)
    return left


def _own_name(name: str) -> str:
    """Return what a parameter is called in the dict that keeps it."""
    first, _, rest = name.partition(".")
    return rest if rest and first in {values for values, _ in CONTAINERS} else name


# -------------------- what there is --------------------


def _written_by_backward(layer: Layer) -> list[Held]:
    """Return copies of the arrays that a backward pass has written, and that are not yet read."""
    with layer.session.fresh():
        layer.reset()
        layer.run()
        before = {h.name: (h.value, checksum(h.value)) for h in held_arrays(layer.layer)}
        result = layer.run_backward([np.array(u) for u in layer.upstream])
        gradients = [p.gradient() for p in layer.parameters]
        read = layer.by_name(result).values()
        known = {id(a) for a in (*gradients, *(a for g in read for a in leaves(g)), *layer.values)}
        found: dict[int, Held] = {}
        for h in held_arrays(layer.layer):
            array, content = before.get(h.name, (None, 0))
            if array is not h.value or checksum(h.value) != content:
                found.setdefault(id(h.value), h)
        for h in _returned(layer, result):
            found.setdefault(id(h.value), h)
        return [replace(h, value=np.array(h.value)) for i, h in found.items() if i not in known]


def _returned(layer: Layer, result: Any) -> list[Held]:
    """Return the arrays that backward returns, by their keys, or what they are called there."""
    called: dict[int, str] = {}
    if isinstance(result, tuple):
        names = returned_names(layer.backward_method, len(result))
        called = {i: name for i, name in enumerate(names) if name}
    found = []
    for _, steps, value in nested("", result):
        if is_float_array(value):
            first = called.get(steps[0], "returned") if steps else "returned"
            rest = steps[1:] if first != "returned" else steps
            found.append(Held(".".join(map(str, (first, *rest))), value, layer, ("result", *steps)))
    return found


def _parts(layer: Layer, held: Sequence[Held]) -> list[Part]:
    """Return the parameters and the views of parts of them, each with its automatic gradient."""
    grads = _automatic(layer, [h.value for h in held])
    with layer.session.fresh():
        layer.run()
        views = [(h.name, h.value) for h in held_arrays(layer.layer)]
    found = []
    for h, gradient in zip(held, grads, strict=True):
        for name, view in ((h.name, h.value), *(v for v in views if v[1] is not h.value)):
            places = _places(view, h.value)
            if places is not None:
                part = None if gradient is None else gradient.reshape(-1)[places]
                found.append(Part(h, name, places, part))
        names = {part.name for part in found}
        found += [
            Part(h, name, np.arange(h.value.size).reshape(h.value.shape), gradient)
            for name, view in views
            if view is h.value and name not in names
        ]
    return found


def _places(view: Array, base: Array) -> Array | None:
    """Return which entries of an array a view of it has; None where it is no such view."""
    if not np.may_share_memory(view, base) or not base.flags.c_contiguous:
        return None
    size = base.itemsize
    start = (_address(view) - _address(base)) // size
    places = np.full(view.shape, start)
    for axis, (n, stride) in enumerate(zip(view.shape, view.strides, strict=True)):
        places += (np.arange(n) * (stride // size)).reshape(-1, *(1,) * (view.ndim - axis - 1))
    inside = places.size and places.min() >= 0 and places.max() < base.size
    return places if inside and view.dtype == base.dtype else None


def _address(array: Array) -> int:
    return int(array.__array_interface__["data"][0])


def _automatic(layer: Layer, values: list[Array]) -> list[Array | None]:
    """Return the automatic gradients of arrays that the layer keeps."""
    subject = Subject(
        names=[""] * len(values),
        values=values,
        session=layer.session,
        forward=layer.run_forward,
        substitute=partial(layer.substitute, values=values),
        backward=layer.gradients,
        upstream=layer.upstream,
        outputs=layer.outputs,
        first=Gradients([], []),
        inputs=layer.inputs,
        given=layer.given,
    )
    try:
        rng = np.random.default_rng(0)
        found = find_reference(subject, layer.upstream, rng, 1.0, layer.outputs).grads
    except CheckError:
        found = []
    return list(found) if found else [None] * len(values)


# -------------------- what belongs together --------------------

Rule = Callable[[Part, Held], bool]


def _assigned(parts: Sequence[Part], written: Sequence[Held], layer: Layer) -> dict[Part, Held]:
    """Return the array that is the gradient of each part, by the surest sign that there is."""
    found: dict[Part, Held] = {}
    factors, shapes = _likely_factors(layer), _shapes_of_values(layer)

    def has_shape(part: Part, h: Held) -> bool:
        return h.value.shape == part.places.shape

    def equal(part: Part, h: Held) -> bool:
        return has_shape(part, h) and _factor(part, h) == 1.0

    def multiple(part: Part, h: Held) -> bool:
        factor = _factor(part, h)
        if factor is None or h.value.size < 2 or part.places.shape in shapes:
            return False
        known = any(abs(factor / f - 1) < 1e-6 for f in factors)
        return _may_be_gradient(h) or (known and not _is_of_optimizer(h.name, part.name))

    def alike(part: Part, h: Held) -> bool:
        return has_shape(part, h) and part.places.shape not in shapes and _is_alike(part, h)

    def is_beside(part: Part, h: Held) -> bool:
        """Tell whether the two stand beside two that belong together."""
        return (
            has_shape(part, h)
            and part.places.shape not in shapes
            and (_may_be_gradient(h) or len(h.path) > 1)
            and any(
                part.owner.path[:-1] == other.owner.path[:-1]
                and h.holder is theirs.holder
                and h.path[:-1] == theirs.path[:-1]
                for other, theirs in found.items()
            )
        )

    rules: tuple[Rule, ...] = (
        lambda part, h: equal(part, h) and _is_named(part, h),
        equal,
        lambda part, h: has_shape(part, h) and _is_named(part, h),
        _is_named,
        _is_named_by_base,
        multiple,
        alike,
        is_beside,
    )
    unsure = (_is_named_by_base, *rules[-2:])  # taken where there is but one
    free = list(written)
    for rule in rules:
        for part in parts:
            if any(other.owner is part.owner and _overlap(other, part) for other in found):
                continue
            fitting = [h for h in free if rule(part, h)]
            same = [h for h in fitting if _numbers(h.name) == _numbers(part.name)] or fitting
            if same and (len(same) == 1 or rule not in unsure):
                found[part] = same[0]
                free.remove(same[0])
    return found


def _overlap(ours: Part, theirs: Part) -> bool:
    return bool(np.isin(ours.places, theirs.places).any())


def _factor(part: Part, h: Held) -> float | None:
    """Return by what factor an array is the automatic gradient, perhaps of another layout."""
    gradient, array = part.gradient, h.value
    if gradient is None or array.size != gradient.size or not np.isfinite(array).all():
        return None
    scale = inner(gradient.reshape(-1), gradient.reshape(-1))
    if scale == 0 or not np.any(array):
        return None
    tolerance = 1e-9 if min(array.itemsize, gradient.itemsize) > 4 else 1e-4
    layouts = (gradient,) if array.shape == gradient.shape else (gradient, gradient.T)
    for layout in layouts:
        flat = np.reshape(layout, array.shape)
        factor = inner(array.reshape(-1), flat.reshape(-1)) / scale
        if close(array, factor * flat, tolerance):
            return 1.0 if abs(factor - 1) <= tolerance else factor
    return None


def _is_alike(part: Part, h: Held) -> bool:
    """Tell whether an array points where the automatic gradient does, as one with a mistake may."""
    if part.gradient is None or h.value.size < 4 or not _may_be_gradient(h):
        return False
    ours, theirs = h.value.reshape(-1), part.gradient.reshape(-1)
    size = inner(ours, ours) * inner(theirs, theirs)
    return bool(size > 0) and abs(inner(ours, theirs)) > 0.7 * size**0.5


def _shapes_of_values(layer: Layer) -> set[tuple[int, ...]]:
    """Return the shapes of inputs and outputs, and of one example of them.

    An array of such a shape may be a constant, beside the gradient of an intermediate value.
    """
    shapes = [np.shape(a) for a in (*layer.outputs, *layer.inputs) if np.ndim(a)]
    return {*shapes} | {shape[i:] for shape in shapes for i in range(1, len(shape) - 1)}


def _likely_factors(layer: Layer) -> list[float]:
    """Return by what a mistaken gradient may be multiplied: never a learning rate."""
    sizes = {n for a in (*layer.outputs, *layer.inputs) if np.ndim(a) for n in np.shape(a)}
    whole = sorted({1.0, 2.0, 3.0, 4.0, *map(float, sizes)})
    return [sign * f for n in whole for f in (n, 1 / n, 2 / n) for sign in (1, -1)]


def _last(name: str) -> str:
    """Return the attribute or the key in a path, without the places in lists behind it."""
    return re.sub(r"(\[\d+\])+$", "", name).split(".")[-1]


def _numbers(name: str) -> list[str]:
    return re.findall(r"\d+", name)


def _is_named(part: Part, h: Held) -> bool:
    own = is_like_gradient(h.name.rpartition(".")[0])  # as in a dict of gradients
    return bool(gradient_keys([_last(h.name)], _last(part.name), itself=own))


def _is_named_by_base(part: Part, h: Held) -> bool:
    """Tell whether an array of the shape is called something like a gradient of that name."""
    stem, name = _last(part.name).strip("_"), _last(h.name)
    words = re.findall(r"[A-Z]?[a-z]+|[A-Z]+|\d+", name)
    inside = stem in words or (len(stem) > 1 and stem.lower() in name.lower())
    fits = h.value.shape == part.places.shape
    return fits and inside and is_like_gradient(name) and not _is_of_optimizer(name, stem)


def _may_be_gradient(h: Held) -> bool:
    return h.path[0] == "result" or is_like_gradient(h.name)


def is_like_gradient(name: str) -> bool:
    """Tell whether a path has a word for gradients in it.

    Examples
    --------
    >>> is_like_gradient("dW"), is_like_gradient("W_grad"), is_like_gradient("velocity.W")
    (True, True, False)
    """
    steps = re.split(r"[.\[\]]", name.lower())
    begun = any(step.strip("_")[:1] in ("d", "g") and len(step) > 1 for step in steps)
    words = ("grad", "nabla", "delta", "diff", "deriv")
    return begun or any(word in name.lower() for word in words) or name.endswith(("_d", "_g"))


def _is_of_optimizer(name: str, stem: str) -> bool:
    """Tell whether an array is called like a velocity or a moment of what has this name."""
    rest = name.lower().replace(_last(stem).strip("_").lower(), "", 1).strip("_.")
    words = "vel mom cache adam rms step update prev last old ema avg".split()
    return rest in ("v", "m", "s") or any(word in rest for word in words)


# -------------------- how it is read --------------------


def _read(layer: Layer, value: Array, own: Sequence[tuple[Part, Held]]) -> Any:
    """Return the gradient of a parameter as it now stands."""
    roots = [layer if h.holder is layer else layer.layer for _, h in own]
    found = [held_at(root, h.path) for root, (_, h) in zip(roots, own, strict=True)]
    return _put_together(value, [(part, g) for (part, _), g in zip(own, found, strict=True)])


def _first(value: Array, own: Sequence[tuple[Part, Held]]) -> Any:
    return _put_together(value, [(part, h.value) for part, h in own])


def _put_together(value: Array, own: Sequence[tuple[Part, Any]]) -> Any:
    part, gradient = own[0]
    if gradient is MISSING or gradient is None:
        return None
    if part.places.shape == value.shape and np.array_equal(part.places.ravel(), _range(value)):
        return gradient
    whole = np.zeros_like(value)
    for part, gradient in own:
        if np.size(gradient) != part.places.size:
            return gradient
        whole.reshape(-1)[part.places] = np.reshape(gradient, part.places.shape)
    return whole


def _range(value: Array) -> Array:
    return np.arange(value.size)
