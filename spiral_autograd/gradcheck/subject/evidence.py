"""Which gradient is that of which array, where no convention says so: told by autograd's own."""

from __future__ import annotations

import operator
import re
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np

from ...pytree import leaves
from ...validation import Array
from ..blocks import checksum, close, inner
from .conventions import (
    BACKWARD,
    CONTAINERS,
    GRADIENT_LISTS,
    gradient_keys,
    is_change_of,
    is_like_gradient,
    is_of_optimizer,
    last_name,
)
from .object_passes import RETURNED, ObjectPasses
from .objects import Held, held_arrays, held_at, method_name, nested
from .parameters import Parameter
from .subject import MISSING

MOST = 10_000  # pairs to look at: a layer may keep a table of many arrays


@dataclass(frozen=True, eq=False)
class Part:
    """A parameter, or a view of a part of it, which may have a gradient of its own.

    `places` are the numbers of its entries in the owner; `gradient` is the automatic one, if any.
    """

    owner: Held
    name: str
    places: Array
    gradient: Array | None


Pairs = dict[Part, Held]


def claim(layer: ObjectPasses, held: Sequence[Held]) -> list[Held]:
    """Give the layer a parameter for each array whose gradient it keeps; return the others."""
    left, more = [], []
    parts = _gradients_of_parts(layer, held) if held else []
    for h, own in zip(held, parts, strict=True):
        if own:
            layer.claimed |= {step for _, g in own if g.holder is None for step in g.path[:1]}
            p = Parameter(_own_name(h.name), h.value, partial(_read, layer, h.value, own))
            g = own[0][1]
            more.append((g.path[-1] if g.holder is not None and _is_in_turn(g) else -1, p))
        else:
            left.append(h)
    nothing = _given_nothing(layer, left)
    more += [(-1, Parameter(h.name, h.value, partial(layer.at, g))) for h, g in nothing]
    if more:
        layer.take([p for _, p in sorted(more, key=operator.itemgetter(0))])
    return [h for h in left if not any(h is other for other, _ in nothing)]


def _gradients_of_parts(layer: ObjectPasses, held: Sequence[Held]) -> list[list[tuple[Part, Held]]]:
    """Return for each array its parts with their gradients: the whole, or such as are apart."""
    written = _written_by_backward(layer, held)
    if not written or len(held) * len(written) > MOST:
        return [[] for _ in held]
    parts = _parts(layer, held)
    pairs = _in_order(parts, _Signs(parts, layer).assign(written))
    return [[(p, pairs[p]) for p in parts if p.owner is h and p in pairs] for h in held]


def _given_nothing(layer: ObjectPasses, left: Sequence[Held]) -> list[tuple[Held, Held]]:
    """Return the arrays that backward returns None for, by key, or in order, if as many."""
    nothing = [steps for _, steps, g in nested("", layer.result) if g is None and steps]
    keyed = [s for s in nothing if isinstance(s[-1], str)]
    in_turn = [s for s in nothing if s not in keyed and (s[1:] or s[0] >= len(layer.shapes))]
    pairs = [(h, s) for s in keyed for h in left if gradient_keys([s[-1]], _stem(h.name))]
    pairs = list(zip(left, in_turn, strict=True)) if len(in_turn) == len(left) else pairs
    return [(h, replace(h, holder=None, path=steps)) for h, steps in pairs]


def _in_order(parts: Sequence[Part], pairs: Pairs) -> Pairs:
    """Return pairs with unnamed gradients in their order, or in one turned round in blocks."""
    plain = [p for p in parts if p in pairs and _is_known_by_place(p, pairs[p])]
    paths, n = [pairs[p].path for p in plain], len(plain)
    order = sorted(range(n), key=lambda i: (str(paths[i][:-1]), paths[i][-1]))
    blocks = [sorted(range(n), key=lambda i: (-(i // k), i)) for k in range(1, n + 1) if n % k == 0]
    turned = {part: pairs[plain[i]] for part, i in zip(plain, order, strict=True)}
    fits = all(_has_shape(part, h) for part, h in turned.items())
    return pairs if order in blocks or not fits else pairs | turned


def _is_known_by_place(part: Part, h: Held) -> bool:
    """Tell whether a gradient of a whole array has no name but its place in a list."""
    is_unnamed = h.holder is not None or h.name.startswith(f"{RETURNED}.")
    return _is_in_turn(h) and is_unnamed and _is_whole(part) and not h.beside


def _is_in_turn(h: Held) -> bool:
    """Tell whether a gradient stands in a list of such."""
    in_list = h.holder is None or h.path[:1] in [(name,) for name in GRADIENT_LISTS]
    return in_list and bool(h.path) and isinstance(h.path[-1], int)


def _own_name(name: str) -> str:
    """Return what a parameter is called in the dict that keeps it."""
    first, _, rest = name.partition(".")
    return rest if rest and first in {values for values, _ in CONTAINERS} else name


def _written_by_backward(layer: ObjectPasses, held: Sequence[Held]) -> list[Held]:
    """Return copies of the arrays that a backward pass has written, and that are not yet read."""
    with layer.session.fresh():
        before: dict[str, tuple[int, int]] = {}

        def note(kept: object) -> None:
            before.update({h.name: (id(h.value), checksum(h.value)) for h in held_arrays(kept)})

        read = layer.gradients([np.array(u) for u in layer.upstream], note)
        read = [a for g in read for a in leaves(g)]
        known = {id(a) for a in (*read, *layer.values, *(h.value for h in held))}
        found: dict[int, Held] = {}
        kept, given = held_arrays(layer.layer), list(layer.returned())
        for h in kept:
            if before.get(h.name) != (id(h.value), checksum(h.value)):
                found.setdefault(id(h.value), h)
        for h in given:
            found.setdefault(id(h.value), h)
        found = {i: h for i, h in found.items() if i not in known}
        beside = _company([*kept, *given], layer, set(found))
        return [replace(h, value=np.array(h.value), beside=beside[i]) for i, h in found.items()]


def _company(
    held: Sequence[Held], layer: ObjectPasses, written: set[int]
) -> defaultdict[int, frozenset[int]]:
    """Return by id the arrays beside a written one in a pair, or in a dict or list like its own."""
    groups = _groups(held, layer)
    found: defaultdict[int, frozenset[int]] = defaultdict(frozenset)
    fixed = [group for group in groups if written.isdisjoint(map(id, group.values()))]
    for group in groups:
        there = [id(a) for a in group.values() if id(a) in written]
        if len(there) == 1 and len(group) <= 3:
            found[there[0]] |= set(map(id, group.values())) - set(there)
        for other in fixed if len(there) == len(group) else ():
            if _is_like(group, other):
                for key, a in group.items():
                    found[id(a)] |= {id(other[key])}
    return found


def _groups(held: Sequence[Held], layer: ObjectPasses) -> list[dict[Any, Array]]:
    """Return the arrays that stand together in a list, in a dict or as an object's attributes."""
    groups: dict[Any, dict[Any, Array]] = {}
    for h in held:
        if not _is_alone(h, layer):
            groups.setdefault((h.holder is None, h.path[:-1]), {})[h.path[-1]] = h.value
    return list(groups.values())


def _is_alone(h: Held, layer: ObjectPasses) -> bool:
    """Tell whether an array is an attribute of a layer, or an entry of what backward returns."""
    if h.holder is None:
        return len(h.path) < 2
    is_own = h.holder is layer.layer or method_name(h.holder, BACKWARD) is not None
    return is_own and held_at(layer.layer, h.path[:-1]) is h.holder


def _is_like(group: dict[Any, Array], other: dict[Any, Array]) -> bool:
    """Tell whether a dict has the keys of another and a shape of it, or a list all its shapes."""
    if not group.keys() <= other.keys():
        return False
    same = [a.shape == other[key].shape for key, a in group.items()]
    is_dict = isinstance(next(iter(group)), str)
    return any(same) if is_dict else len(group) == len(other) and all(same)


def _parts(layer: ObjectPasses, held: Sequence[Held]) -> list[Part]:
    """Return the parameters and the views of parts of them, each with its automatic gradient."""
    grads = layer.gradients_of([h.value for h in held])
    with layer.session.fresh():
        layer.run()
        views = held_arrays(layer.layer)
    found = []
    for h, gradient in zip(held, grads, strict=True):
        names = set()
        for v in (h, *views):
            places = _places(v.value, h.value) if (v.name, id(v.value)) not in names else None
            if places is not None:
                names.add((v.name, id(v.value)))
                part = None if gradient is None else gradient.reshape(-1)[places]
                found.append(Part(h, v.name, places, part))
    return found


def _places(view: Array, base: Array) -> Array | None:
    """Return which entries of an array a view of it has; None where it is no such view."""
    if not view.size or view.dtype != base.dtype or not np.may_share_memory(view, base):
        return None
    if view is base:
        return np.arange(base.size).reshape(base.shape)
    ours, theirs = _addresses(view), _addresses(base).ravel()
    order = np.argsort(theirs, kind="stable")
    found = np.searchsorted(theirs, ours, sorter=order)
    places = order[np.minimum(found, theirs.size - 1)]
    return places if np.array_equal(theirs[places], ours) else None


def _addresses(array: Array) -> Array:
    """Return where in memory each entry of an array stands."""
    start = np.full(array.shape, array.__array_interface__["data"][0])
    steps = zip(array.shape, array.strides, strict=True)
    return sum(np.ix_(*(np.arange(n) * stride for n, stride in steps)), start=start)


class _Signs:
    """The signs that an array is the gradient of a part; `found` are those that belong together."""

    def __init__(self, parts: Sequence[Part], layer: ObjectPasses) -> None:
        self.parts, self.found = parts, Pairs()
        arrays = [a for a in (*layer.outputs, *layer.inputs) if np.ndim(a)]
        self.factors = _likely_factors({n for a in arrays for n in np.shape(a)})
        shapes = {np.shape(a) for a in arrays}
        # An array of the shape of a value, or of one example of it, may be a constant beside the
        # gradient of an intermediate value.
        self.shapes = shapes | {shape[i:] for shape in shapes for i in range(1, len(shape) - 1)}

    def assign(self, written: Sequence[Held]) -> Pairs:
        """Return the array that is the gradient of each part, by the surest sign that there is."""
        free = list(written)
        for rule, is_unsure in self._rules():
            for part in filter(self._is_open, self.parts):
                fitting = [h for h in free if rule(part, h)]
                same = [h for h in fitting if _numbers(h.name) == _numbers(part.name)] or fitting
                if len(same) == 1 or (same and not is_unsure):
                    self.found[part] = same[0]
                    free.remove(same[0])
        wholes = filter(_is_whole, reversed(self.parts))
        lacking = {id(part.owner): part for part in wholes if self._is_open(part)}
        in_turn = list(filter(_is_in_turn, free))
        if len(lacking) == len(in_turn):
            self.found |= dict(zip(reversed(lacking.values()), in_turn, strict=True))
        return self.found

    def _is_open(self, part: Part) -> bool:
        """Tell whether no gradient has been found of a part, nor of what overlaps with it."""
        return not any(o.owner is part.owner and _overlap(o, part) for o in self.found)

    def _rules(self) -> list[tuple[Callable[[Part, Held], bool], bool]]:
        """Return the signs, the surest first; an unsure one counts where it holds of one alone."""
        return [
            (lambda part, h: _is_named(part, h) and _is_equal(part, h), False),
            (lambda part, h: _is_equal(part, h) and not self._is_of_another(part, h), False),
            (_is_paired, False),
            (lambda part, h: _is_named(part, h) and _has_shape(part, h), False),
            (_is_named, False),
            (lambda part, h: _is_named_by_base(part, h) and _has_shape(part, h), True),
            (self._is_named_alike, False),
            (lambda part, h: is_change_of(_stem(h.name), _stem(part.name)), False),
            (self._is_multiple, False),
            (self._is_alike, True),
            (self._is_beside, True),
            (lambda part, h: _is_in_turn(h) and _is_whole(part) and _has_shape(part, h), False),
        ]

    def _is_of_another(self, part: Part, h: Held) -> bool:
        """Tell whether an array is named for another parameter, or stands in a pair with it."""
        others = [other for other in self.parts if other.owner is not part.owner]
        is_paired = any(_is_paired(other, h) for other in others) and not _is_paired(part, h)
        return is_paired or any(_is_named(other, h) for other in others)

    def _is_named_alike(self, part: Part, h: Held) -> bool:
        """Tell whether the two are named as two are that belong together."""
        form = _stem(h.name).replace(_stem(part.name), "{}", 1)
        return "{}" in form and any(
            form == _stem(theirs.name).replace(_stem(other.name), "{}", 1)
            for other, theirs in self.found.items()
        )

    def _is_multiple(self, part: Part, h: Held) -> bool:
        factor = _factor(part, h)
        if factor is None or h.value.size < 2 or part.places.shape in self.shapes:
            return False
        known = any(abs(factor / f - 1) < 1e-6 for f in self.factors)
        return _may_be_gradient(h) or (known and not is_of_optimizer(h.name, _stem(part.name)))

    def _is_alike(self, part: Part, h: Held) -> bool:
        """Tell whether it points where the automatic gradient does, as one with a mistake may."""
        if not _may_be_gradient(h) or part.gradient is None or h.value.size < 4:
            return False
        if not _has_shape(part, h) or part.places.shape in self.shapes:
            return False
        ours, theirs = h.value.reshape(-1), part.gradient.reshape(-1)
        size = inner(ours, ours) * inner(theirs, theirs)
        return bool(size > 0) and abs(inner(ours, theirs)) > 0.7 * size**0.5

    def _is_beside(self, part: Part, h: Held) -> bool:
        """Tell whether the two stand beside two that belong together."""
        if not _has_shape(part, h) or part.places.shape in self.shapes:
            return False
        return (_may_be_gradient(h) or len(h.path) > 1) and any(
            part.owner.path[:-1] == other.owner.path[:-1]
            and (h.holder, h.path[:-1]) == (theirs.holder, theirs.path[:-1])
            for other, theirs in self.found.items()
        )


def _has_shape(part: Part, h: Held) -> bool:
    return h.value.shape == part.places.shape


def _is_whole(part: Part) -> bool:
    return bool(part.places.size == part.owner.value.size)


def _is_paired(part: Part, h: Held) -> bool:
    return _is_whole(part) and id(part.owner.value) in h.beside


def _is_equal(part: Part, h: Held) -> bool:
    return _has_shape(part, h) and _factor(part, h) == 1.0


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


def _likely_factors(sizes: set[int]) -> list[float]:
    """Return by what a mistaken gradient may be multiplied: never a learning rate."""
    whole = sorted({1.0, 2.0, 3.0, 4.0, *map(float, sizes)})
    return [sign * f for n in whole for f in (n, 1 / n, 2 / n) for sign in (1, -1)]


def _stem(name: str) -> str:
    """Return the attribute or the key in a path, without the places in lists behind it."""
    return last_name(re.sub(r"(\[\d+\])+$", "", name))


def _numbers(name: str) -> list[str]:
    return re.findall(r"\d+", name)


def _is_named(part: Part, h: Held) -> bool:
    own = is_like_gradient(h.name.rpartition(".")[0])  # as in a dict of gradients
    return bool(gradient_keys([_stem(h.name)], _stem(part.name), itself=own))


def _is_named_by_base(part: Part, h: Held) -> bool:
    """Tell whether an array is called something like a gradient of that name."""
    stem, name = _stem(part.name).strip("_"), _stem(h.name)
    words = re.findall(r"[A-Z]?[a-z]+|[A-Z]+|\d+", name)
    inside = stem in words or (len(stem) > 1 and stem.lower() in name.lower())
    return inside and is_like_gradient(name) and not is_of_optimizer(name, stem)


def _may_be_gradient(h: Held) -> bool:
    return h.holder is None or is_like_gradient(h.name)


def _read(layer: ObjectPasses, value: Array, own: Sequence[tuple[Part, Held]]) -> Any:
    """Return the gradient of a parameter as it now stands."""
    part, gradient = own[0][0], layer.at(own[0][1])
    if gradient is MISSING or gradient is None:
        return None
    if part.places.shape == value.shape and (np.diff(part.places.ravel()) == 1).all():
        return gradient
    whole = np.zeros_like(value)
    for part, place in own:
        gradient = layer.at(place)
        if np.size(gradient) != part.places.size:
            return gradient
        whole.reshape(-1)[part.places] = np.reshape(gradient, part.places.shape)
    return whole
