"""Pytrees: nests of dicts, lists and tuples, as autograd has them; and the flat vectors of one.

autograd's vector spaces add and scale pytrees of arrays; these few functions serve where a leaf is
something else, such as a shape, a name or a call of a recording.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np

from .validation import Array, Shape, require_finite

Pytree: TypeAlias = Any

DEEPEST = 100  # a deeper nest contains itself, or is no nest of parameters that a person wrote


def tree_map(
    function: Callable[..., Any], tree: Pytree, *rest: Pytree, depth: int = DEEPEST
) -> Pytree:
    """Return a tree of `function` called with the leaves of `tree` and of `rest`, in step."""
    kind = type(tree)
    if kind not in (dict, list, tuple):
        return function(tree, *rest)
    if not depth:
        raise too_deep("a pytree")
    if kind is dict:
        return {
            key: tree_map(function, tree[key], *(r[key] for r in rest), depth=depth - 1)
            for key in tree
        }
    items = zip(tree, *rest, strict=True)
    return kind(tree_map(function, *item, depth=depth - 1) for item in items)


def paths(
    tree: Pytree, name: str = "", depth: int = DEEPEST
) -> Iterator[tuple[tuple[Any, ...], Any]]:
    """Yield each leaf of the tree of a name, and before it the keys that lead to it."""
    if type(tree) not in (dict, list, tuple):
        yield (), tree
        return
    if not depth:
        raise too_deep(name or "a pytree")
    for key, subtree in tree.items() if type(tree) is dict else enumerate(tree):
        for path, leaf in paths(subtree, name, depth - 1):
            yield (key, *path), leaf


def named_leaves(name: str, tree: Pytree) -> Iterator[tuple[str, Any]]:
    """Yield each leaf with the expression that reaches it, such as ``params['W1']``."""
    for path, leaf in paths(tree, name):
        yield name + "".join(f"[{key!r}]" for key in path), leaf


def too_deep(name: str) -> ValueError:
    """Return the error for a nest that contains itself."""
    return ValueError(
        f"{name} must be a nest of at most {DEEPEST} levels of dicts, lists and tuples; this one "
        "is deeper, or contains itself"
    )


def leaves(tree: Pytree) -> list[Any]:
    """Return the leaves of `tree` in its own order."""
    return [leaf for _, leaf in paths(tree)]


def leaves_like(template: Pytree, tree: Pytree) -> list[Any]:
    """Return the leaves of `tree` in the order of `template`: the keys of its dicts may differ."""
    found: list[Any] = []
    tree_map(lambda _, leaf: found.append(leaf), template, tree)
    return found


def with_leaves(tree: Pytree, new_leaves: list[Any]) -> Pytree:
    """Return `tree` with `new_leaves`, in the order of `leaves`, in place of its own."""
    remaining = iter(new_leaves)
    return tree_map(lambda _: next(remaining), tree)


def float_tree(name: str, tree: Pytree) -> Pytree:
    """Return `tree`, whose leaves must be finite floating-point arrays or floats, or raise."""
    count = 0
    for path, leaf in named_leaves(name, tree):
        count += 1
        dtype = getattr(leaf, "dtype", None)
        if not (isinstance(leaf, float) or (dtype is not None and dtype.kind == "f")):
            came = type(leaf).__name__ if dtype is None else f"dtype {dtype}"
            raise TypeError(
                f"{path} must be a floating-point array, got {came}; {name} must be a nest of "
                "dicts, lists and tuples with such arrays as leaves"
            )
        require_finite(path, np.asarray(leaf))
    if count == 0:
        raise ValueError(f"{name} is empty: it holds no array")
    return tree


def same_structure(name: str, tree: Pytree, other_name: str, other: Pytree) -> None:
    """Raise unless `other` has the leaves of `tree`, by path and by shape."""
    expected = {path: np.shape(leaf) for path, leaf in named_leaves("", tree)}
    got = {path: np.shape(leaf) for path, leaf in named_leaves("", other)}
    for path in expected | got:
        if path not in got:
            raise ValueError(f"{other_name} must have the structure of {name}: {path} is missing")
        if path not in expected:
            raise ValueError(f"{other_name} must have the structure of {name}: {path} is too much")
        if got[path] != expected[path]:
            raise ValueError(
                f"{other_name}{path} must have the shape of {name}{path}, {expected[path]}, "
                f"got {got[path]}"
            )


# -------------------- flat vectors --------------------


@dataclass(frozen=True)
class Sharing:
    """Which arrays of a list are one array: for each, (where it first stood, is it transposed)."""

    places: tuple[tuple[int, bool], ...]

    @classmethod
    def of(cls, arrays: Sequence[Array]) -> Sharing:
        """Return the sharing among `arrays`."""
        first: dict[object, int] = {}
        places = []
        for index, array in enumerate(arrays):
            view, transposed = _view(array), _view(np.transpose(array))
            if view in first or transposed not in first:
                places.append((first.setdefault(view, index), False))
            else:
                places.append((first[transposed], True))
        return cls(tuple(places))

    def spread(self, arrays: Sequence[Array]) -> list[Array]:
        """Return the arrays, in place of each the one that it is."""
        return [arrays[first].T if turned else arrays[first] for first, turned in self.places]


def _view(array: Array) -> object:
    """Return what makes two arrays the same one: address, shape, strides and dtype."""
    if not isinstance(array, np.ndarray):
        return object()
    address = array.__array_interface__["data"][0]
    return address, array.shape, array.strides, array.dtype.str


@dataclass(frozen=True, eq=False)
class FlatLayout:
    """Where each leaf of a pytree lies in flat vectors, one vector for each dtype.

    Leaves that share their memory have one place. With a single dtype, as is usual, the vectors
    are one array; else they are a tuple, which is a pytree for the optimizers.
    """

    template: Pytree
    sharing: Sharing
    sizes: dict[np.dtype[Any], int]  # of the vectors, by dtype
    places: tuple[tuple[int, slice, Shape], ...]  # of each leaf: its vector, part and shape

    @classmethod
    def of(cls, params: Pytree, sharing: Sharing | None = None) -> FlatLayout:
        """Return the layout of a pytree of float arrays, whose sharing may be known before."""
        sharing = Sharing.of(leaves(params)) if sharing is None else sharing
        sizes: dict[np.dtype[Any], int] = {}
        places: list[tuple[int, slice, Shape]] = []
        for leaf, (first, _) in zip(leaves(params), sharing.places, strict=True):
            if first == len(places):
                dtype = np.asarray(leaf).dtype
                start = sizes.get(dtype, 0)
                sizes[dtype] = start + np.size(leaf)
                part = slice(start, sizes[dtype])
                places.append((list(sizes).index(dtype), part, np.shape(leaf)))
            else:
                places.append(places[first])
        return cls(params, sharing, sizes, tuple(places))

    def pack_tree(self, params: Pytree) -> Pytree:
        """Return new vectors that hold a pytree of parameters."""
        vectors = tuple(np.empty(size, dtype) for dtype, size in self.sizes.items())
        packed = vectors[0] if len(vectors) == 1 else vectors
        tree_map(np.copyto, self.tree(packed), params)
        return packed

    def views(self, vectors: Pytree) -> list[Array]:
        """Return the place of each leaf, as a view of the vectors."""
        each = leaves(vectors)
        return [each[vector][part].reshape(shape) for vector, part, shape in self.places]

    def tree(self, vectors: Pytree) -> Pytree:
        """Return the pytree, its leaves as views of the vectors."""
        return with_leaves(self.template, self.sharing.spread(self.views(vectors)))

    def write_grads(self, vectors: Pytree, grads: Pytree) -> None:
        """Write a gradient into vectors; those of a repeated leaf are added."""
        tree_map(lambda vector: vector.fill(0), vectors)
        parts = self.sharing.spread(self.views(vectors))
        for part, grad in zip(parts, leaves_like(self.template, grads), strict=True):
            part += grad
