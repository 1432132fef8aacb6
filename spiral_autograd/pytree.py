"""Pytrees: nests of dicts, lists and tuples, as autograd has them.

autograd's vector spaces add and scale pytrees of arrays; these few functions serve where a leaf is
something else, such as a shape, a name or a call of a recording.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np

from .validation import Array

Pytree: TypeAlias = Any


DEEPEST = 100  # a deeper nest contains itself, or is no nest of parameters that a person wrote


def tree_map(function: Callable[..., Any], tree: Pytree, *rest: Pytree) -> Pytree:
    """Return a tree of `function` called with the leaves of `tree` and of `rest`, in step."""
    return _mapped(function, DEEPEST, tree, *rest)


def _mapped(function: Callable[..., Any], depth: int, tree: Pytree, *rest: Pytree) -> Pytree:
    kind = type(tree)
    if kind not in (dict, list, tuple):
        return function(tree, *rest)
    if not depth:
        raise too_deep("a pytree")
    if kind is dict:
        return {
            key: _mapped(function, depth - 1, tree[key], *(r[key] for r in rest)) for key in tree
        }
    return kind(_mapped(function, depth - 1, *items) for items in zip(tree, *rest, strict=True))


def named_leaves(name: str, tree: Pytree) -> Iterator[tuple[str, Any]]:
    """Yield each leaf with the expression that reaches it, such as ``params['W1']``."""
    return _named(name, tree, name, DEEPEST)


def _named(name: str, tree: Pytree, top: str, depth: int) -> Iterator[tuple[str, Any]]:
    if type(tree) in (dict, list, tuple):
        if not depth:
            raise too_deep(top or "a pytree")
        for key, subtree in tree.items() if type(tree) is dict else enumerate(tree):
            yield from _named(f"{name}[{key!r}]", subtree, top, depth - 1)
    else:
        yield name, tree


def too_deep(name: str) -> ValueError:
    """Return the error for a nest that contains itself."""
    return ValueError(
        f"{name} must be a nest of at most {DEEPEST} levels of dicts, lists and tuples; this one "
        "is deeper, or contains itself"
    )


def leaves(tree: Pytree) -> list[Any]:
    """Return the leaves of `tree` in its own order."""
    return [leaf for _, leaf in named_leaves("", tree)]


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
        if not np.isfinite(leaf).all():
            raise ValueError(f"{path} must be finite, got {_first_not_finite(leaf)}")
    if count == 0:
        raise ValueError(f"{name} is empty: it holds no array")
    return tree


def _first_not_finite(leaf: Array) -> str:
    index = tuple(int(i) for i in np.argwhere(~np.isfinite(leaf))[0])
    return f"{np.asarray(leaf)[index]} at index {index}"


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


@dataclass(frozen=True)
class Sharing:
    """Which arrays of a list are one array: for each, (where it first stood, is it transposed)."""

    places: tuple[tuple[int, bool], ...]

    @classmethod
    def of(cls, arrays: Sequence[Array]) -> Sharing:
        """Return the sharing among `arrays`."""
        first: dict[Any, int] = {}
        places = []
        for index, array in enumerate(arrays):
            view, transposed = _view(array), _view(np.transpose(array))
            if view in first or transposed not in first:
                places.append((first.setdefault(view, index), False))
            else:
                places.append((first[transposed], True))
        return cls(tuple(places))

    def unique(self, arrays: Sequence[Array]) -> list[Array]:
        """Return each array once."""
        return [arrays[i] for i, (first, _) in enumerate(self.places) if i == first]

    def merge(self, grads: Sequence[Array]) -> list[Array]:
        """Return the gradient for each array that `unique` keeps."""
        sums: dict[int, Array] = {}
        for grad, (first, transposed) in zip(grads, self.places, strict=True):
            own = np.transpose(grad) if transposed else grad
            sums[first] = sums[first] + own if first in sums else own
        return list(sums.values())

    def spread(self, unique: Sequence[Array]) -> list[Array]:
        """Return the list of arrays again, from those that `unique` keeps."""
        by_place = dict(zip(dict.fromkeys(first for first, _ in self.places), unique, strict=True))
        return [by_place[first].T if turned else by_place[first] for first, turned in self.places]


def _view(array: Any) -> Any:
    """Return what makes two arrays the same one: address, shape, strides and dtype."""
    if not isinstance(array, np.ndarray):
        return object()
    address = array.__array_interface__["data"][0]
    return address, array.shape, array.strides, array.dtype.str
