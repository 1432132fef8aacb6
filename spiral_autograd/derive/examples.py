"""Other inputs than those given, on which a program is tried."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, TypeAlias

import numpy as np

from ..pytree import Pytree, leaves, tree_map

Example: TypeAlias = tuple[Pytree, tuple[Pytree, ...]]


def examples(params: Pytree, data: tuple[Pytree, ...], trace_ints: bool) -> Iterator[Example]:
    """Yield the inputs given; others nearby; then others at full scale and with other signs.

    A value that left the trace, or a branch on it, shows only where it comes out differently.
    """
    yield tree_map(copied, params), tuple(tree_map(copied, tree) for tree in data)
    rng = np.random.default_rng(0)

    def nearby(leaf: Any) -> Any:
        return _like(leaf, leaf + 0.1 * _size(leaf) * rng.standard_normal(np.shape(leaf)))

    step = 1
    rows = {n: rng.integers(n, size=n) for n in _lengths(data)}

    def resampled(leaf: Any) -> Any:
        if trace_ints and type(leaf) is int:
            return leaf + step
        if not isinstance(leaf, np.ndarray) or leaf.ndim == 0:
            return leaf
        return leaf[rows[len(leaf)]]

    def mapped(move_params: Callable[[Any], Any], move_data: Callable[[Any], Any]) -> Example:
        return tree_map(move_params, params), tuple(tree_map(move_data, tree) for tree in data)

    yield mapped(nearby, resampled)

    def redrawn(scale: float, sign: Callable[[Any], Any], whole: bool) -> Callable[[Any], Any]:
        def move(leaf: Any) -> Any:
            if not _is_float(leaf) or (not whole and np.all(leaf == np.round(leaf))):
                return resampled(leaf)
            noise = np.abs(rng.standard_normal(np.shape(leaf)))
            return _like(leaf, scale * _size(leaf) * noise * sign(leaf))

        return move

    def random_sign(leaf: Any) -> Any:
        return rng.choice([-1.0, 1.0], size=np.shape(leaf))

    floats = [leaf for leaf in leaves(list(data)) if _is_float(leaf)]
    some_whole = any(np.all(leaf == np.round(leaf)) for leaf in floats)
    for scale, sign in ((1.0, lambda leaf: -_sign(leaf)), (5.0, _sign), (0.2, random_sign)):
        step += 1
        # Whole numbers may be classes, counts or one-hot rows.
        for whole in (True, False) if some_whole else (True,):
            yield mapped(redrawn(scale, sign, True), redrawn(scale, sign, whole))


def copied(leaf: Any) -> Any:
    """Return a leaf of the arguments that a loss may write into."""
    return leaf.copy() if isinstance(leaf, np.ndarray) else leaf


def is_equal(example: Example, other: Example) -> bool:
    """Tell whether two sets of arguments hold the same arrays."""
    ours, theirs = leaves(list(example)), leaves(list(other))
    return len(ours) == len(theirs) and all(
        np.array_equal(a, b, equal_nan=b.dtype.kind in "fc")
        for a, b in zip(ours, theirs, strict=True)
        if isinstance(b, np.ndarray)
    )


def _lengths(data: tuple[Pytree, ...]) -> list[int]:
    return sorted({len(leaf) for leaf in leaves(list(data)) if np.ndim(leaf) > 0})


def _is_float(leaf: Any) -> bool:
    return isinstance(leaf, float) or getattr(getattr(leaf, "dtype", None), "kind", "") == "f"


def _like(leaf: Any, values: Any) -> Any:
    """Return values in the type and dtype of a leaf."""
    if type(leaf) is float:
        return float(values)
    return np.asarray(values, dtype=np.asarray(leaf).dtype)[()]


def _size(leaf: Any) -> Any:
    return np.max(np.abs(leaf), initial=0.0) or 1.0


def _sign(leaf: Any) -> Any:
    return np.where(np.asarray(leaf) < 0, -1.0, 1.0)
