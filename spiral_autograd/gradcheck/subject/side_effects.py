"""What a first call of both passes writes into, and should not."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from types import FunctionType, MethodType
from typing import Any, Protocol

import numpy as np

from ...pytree import leaves
from ...validation import Array
from ..blocks import checksum
from .conventions import GRADIENT_LISTS
from .parameters import Parameter, attributes_of, find_parameters, held_arrays, nested
from .session import Session, reach
from .subject import is_float_array


class Runner(Protocol):
    """What runs somebody's two passes: a Layer or a Pair."""

    session: Session
    layer: Any  # None of a Pair

    def named_values(self) -> list[tuple[str, Array]]:
        """Return the inputs and parameters."""


@dataclass
class SideEffects:
    """What has been written into.

    Attributes
    ----------
    upstream : bool
        Whether backward has written into its upstream gradient.
    cache : list of str
        What backward has written into of what forward kept for it; empty where it has no name.
    by_forward, by_backward : lists of str
        The inputs and parameters that the one and the other have written into.
    """

    upstream: bool = False
    cache: list[str] = field(default_factory=list)
    by_forward: list[str] = field(default_factory=list)
    by_backward: list[str] = field(default_factory=list)

    def notes(self, names: Sequence[str]) -> list[str]:
        """Return what is to be said of it; of inputs and parameters, where they have these names.

        Examples
        --------
        >>> SideEffects(cache=["self.t"], by_forward=["x", "running_mean"]).notes(["x", "gamma"])
        ['backward writes into its cache: self.t', 'forward writes into x']
        """
        found = ["backward writes into its upstream gradient"] if self.upstream else []
        if self.cache:
            which = ", ".join(filter(None, self.cache))
            found.append(f"backward writes into its cache{': ' if which else ''}{which}")
        found += [f"forward writes into {name}" for name in self.by_forward if name in names]
        return found + [
            f"backward writes into {name}" for name in self.by_backward if name in names
        ]


def watched(
    runner: Runner, kept: Any, backward: Callable[[list[Array]], Any], upstream: Sequence[Array]
) -> tuple[Any, SideEffects]:
    """Run a backward pass, and return what it returned, and what the two passes wrote into.

    Parameters
    ----------
    runner : Runner
    kept : object
        The layer or the cache: what backward finds again of the forward pass that has just run.
    backward : callable
        ``backward(upstream)``.
    upstream : sequence of arrays
    """
    start = runner.session.start
    by_forward = _written(runner)
    names = _names_in(kept, runner.layer)
    made = [
        (array, checksum(array), bool(array.any()))
        for array in reach(kept)
        if isinstance(array, np.ndarray) and array.dtype != object
        if not _is_as_before(start.kept(array), array)
    ]
    ups = [np.array(u) for u in upstream]
    result = backward(ups)
    gradients = _gradient_arrays(kept) if kept is runner.layer else []
    effects = SideEffects(
        upstream=any(not np.array_equal(a, b) for a, b in zip(upstream, ups, strict=True)),
        cache=[
            names.get(id(array), "")
            for array, before, is_filled in made
            if checksum(array) != before
            and not _shares(array, gradients)
            and (is_filled or not _shares(array, leaves(result)))
        ],
        by_forward=by_forward,
        by_backward=[name for name in _written(runner) if name not in by_forward],
    )
    return result, effects


def _names_in(kept: Any, layer: Any) -> dict[int, str]:
    """Return what the arrays of a cache are called: attributes of the layer, or its entries."""
    if kept is layer:
        return {id(h.value): f"self.{h.name}" for h in reversed(held_arrays(layer))}
    entries = nested("cache", kept)
    return {id(v): name for name, _, v in entries if name != "cache" and is_float_array(v)}


def _gradient_arrays(layer: Any) -> list[Any]:
    """Return the gradients that a layer holds, and those of the layers that it has made inside."""
    kinds = (FunctionType, MethodType)
    holders = [i for i in reach(layer) if hasattr(i, "__dict__") and not isinstance(i, kinds)]
    return [p.gradient() for item in holders for p in find_parameters(item)]


def _written(runner: Runner) -> list[str]:
    """Return the names of the values whose content is not that at the start."""
    # What was not there before is a view or a cache of forward's own, not written into.
    return written_into(runner.session, runner.named_values())


def written_into(session: Session, arrays: Iterable[tuple[str, Any]]) -> list[str]:
    """Return the names of arrays, of those at the start, whose content is another one now."""
    known = [(name, session.start.kept(v), v) for name, v in arrays if isinstance(v, np.ndarray)]
    return [n for n, before, v in known if before is not None and not _is_as_before(before, v)]


def _is_as_before(before: Array | None, array: Array) -> bool:
    return before is not None and np.array_equal(before, array)


def _shares(array: Array, others: Sequence[Any]) -> bool:
    return any(isinstance(o, np.ndarray) and np.may_share_memory(array, o) for o in others)


def replaced_gradients(layer: Any, before: Mapping[str, tuple[Parameter, Any]]) -> list[str]:
    """Return what to say of a list of gradients in which backward has put other arrays.

    That is right by itself. But a network keeps the arrays that it has found in the list.
    """
    lists = [n for n in GRADIENT_LISTS if isinstance(attributes_of(layer).get(n), list)]
    pairs = [(gradient, parameter.gradient()) for parameter, gradient in before.values()]
    arrays = [(a, b) for a, b in pairs if isinstance(a, np.ndarray) and isinstance(b, np.ndarray)]
    if not lists or all(a is b for a, b in arrays):
        return []
    return [
        f"backward puts new arrays in {lists[0]}: what holds the old ones, as a network may, does "
        f"not see them (write {lists[0]}[i][...] = dW)"
    ]
