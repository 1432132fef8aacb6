"""Two functions in the place of an object, and how a backward pass is called: with what.

`Calling` is one way; `find_calling` tells which one is meant.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ...pytree import leaves
from ...validation import Array, Shape
from .conventions import CACHES, RATES, means_upstream
from .objects import (
    attributes_of,
    methods_of,
    name_of_function,
    optional_names,
    positional_names,
    require_function,
    required_names,
)
from .subject import CheckError, is_array, is_scalar

Function = Callable[..., Any]

# What an argument of backward is: the upstream gradient of an output, or of all in a tuple (None),
# an input, an output, what forward has left under a name, the cache that it has returned, or what a
# function makes of that, the rate of an update, or an upstream gradient that is left out where it
# is 1, as that of a loss is.
Source = tuple[str, Any]

RATE = 0.5  # of updates: exact, and not 1, with which one that lacks the rate would be right


def given_rates(backward: Any) -> dict[str, float]:
    """Return the rates that a backward pass is given though it need not be: in place of 1, or none.

    Any other stays a default, which may be another one as a setting.
    """
    rates = {name: rate for name, rate in optional_names(backward).items() if name in RATES}
    return {name: RATE for name, rate in rates.items() if rate is None or rate == 1}


@dataclass(frozen=True)
class Calling:
    """A way to call a backward pass."""

    sources: tuple[Source, ...]
    is_derivative: bool = False  # what it returns is still to be multiplied by the upstream
    share: float | None = None  # the fixed upstream of a loss; of one for each example: their sum 1
    of_output: int = 0  # which output is that loss
    is_open: bool = False  # whether names alone did not tell it

    @property
    def upstream(self) -> list[int | None]:
        """The outputs whose upstream gradients it takes, by their numbers."""
        return [i for kind, i in self.sources if kind == "upstream"]

    @property
    def takes_upstream(self) -> bool:
        """Whether the gradient depends on an upstream gradient."""
        return self.is_derivative or bool(self.upstream)

    @property
    def upstream_at(self) -> int:
        """Where the upstream gradient stands among the arguments; -1 where it is not there."""
        kinds = [kind for kind, _ in self.sources]
        return kinds.index("upstream") if "upstream" in kinds else -1

    def differentiated(self, n: int) -> list[bool]:
        """Return for each of n outputs whether its upstream gradient is given, or known."""
        there = self.upstream if self.share is None else [self.of_output]
        return [n == 1 or not there or None in there or i in there for i in range(n)]

    def arguments(
        self, ups: Sequence[Any], inputs: Sequence[Any], outputs: Any, layer: Any, cache: Any = None
    ) -> list[Any]:
        """Return what the backward pass is given, right after the forward pass.

        `ups` has one upstream gradient for each output, a nest where that is one.
        """
        given: dict[str, Callable[[Any], Any]] = {
            "upstream": lambda i: tuple(ups) if i is None else ups[i],
            "input": lambda i: inputs[i],
            "output": lambda i: leaves(outputs)[i],
            "left": lambda name: attributes_of(layer)[name],
            "cache": lambda read: cache if read is None else read(cache),
            "rate": lambda _: RATE,
            "optional": lambda i: ups[i],
        }
        there = [s for s in self.sources if s[0] != "optional" or np.any(ups[s[1]] != 1)]
        return [given[kind](what) for kind, what in there]

    def result(self, result: Any, ups: Sequence[Array], inputs: Sequence[Any]) -> Any:
        """Return the gradients of what a backward pass has returned."""
        if not self.is_derivative or result is None or isinstance(result, dict | list | tuple):
            return result
        return chained(ups[0], result, np.shape(inputs[0]))


PLAIN = Calling((("upstream", 0),))
OF_LOSS = Calling((("optional", 0),), share=1.0)


def chained(g: Array, derivative: Any, shape_of_x: Shape) -> Any:
    """Return a gradient through a derivative: one for each entry, or a Jacobian, of all or rows."""
    d, shape = np.asarray(derivative), np.shape(g)
    if d.ndim == 0 or d.shape == shape:
        return g * d
    if d.shape == shape + shape_of_x:
        return np.tensordot(g, d, len(shape))
    if shape == shape_of_x and d.shape == (*shape, shape[-1]):
        return np.einsum("...i,...ij->...j", g, d)
    return derivative


# -------------------- two functions --------------------


@dataclass(frozen=True, slots=True)
class Told:
    """What two passes are called, and what is known of how the second is called."""

    label: str
    backward_label: str
    names: list[str]  # of the inputs
    code: tuple[Callable[..., Any], Callable[..., Any]]  # the user's own
    ways: tuple[Calling, ...] = ()  # the likeliest first; none where they are to be found


class TwoFunctions:
    """Two functions that are a forward and a backward pass, in the place of an object."""

    def __init__(self, forward: Function, backward: Function, told: Told) -> None:
        self.forward, self.backward, self.told = forward, backward, told


def layer_of(forward: Any, backward: Any, n: int) -> object:
    """Return the object whose passes two methods are, if backward is given a gradient alone.

    What it needs beside that is kept by the object. Of two functions of n inputs, return these.
    """
    require_function("forward", forward)
    require_function("backward", backward)
    taken, owner = required_names(backward), getattr(forward, "__self__", None)
    is_own = owner is not None and owner is getattr(backward, "__self__", None)
    if not is_own or len(taken) != 1 or not means_upstream(taken[0]):
        labels = name_of_function(forward, "forward"), name_of_function(backward, "backward")
        told = Told(*labels, positional_names(forward, n), (forward, backward))
        return TwoFunctions(forward, backward, told)
    if methods_of(owner) != (forward.__name__, backward.__name__):
        raise CheckError(
            f"{forward.__name__} and {backward.__name__} are methods of one object, whose own "
            "parameters check_layer checks; it needs methods called forward and backward"
        )
    return owner


def place_of_cache(
    result: object, taken: Sequence[str], inputs: Sequence[str], *, is_pair: bool
) -> int | None:
    """Return where a cache, which backward is given back, stands in what forward returned.

    Of two functions there is one wherever backward takes something beside an upstream gradient.
    """
    free = [name for name in taken if name not in inputs and name not in RATES]
    if type(result) is not tuple or len(result) < 2 or not free:
        return None
    if not set(CACHES).isdisjoint(free):
        nests = [i for i, one in enumerate(result) if isinstance(one, dict | list | tuple)]
        return nests[-1] if nests and any(map(_is_loss, result)) else len(result) - 1
    return len(result) - 1 if _is_kept_last(result, taken, free, is_pair=is_pair) else None


def _is_kept_last(
    result: tuple[Any, ...], taken: Sequence[str], free: Sequence[str], *, is_pair: bool
) -> bool:
    """Tell whether what stands last is a cache, where no argument has the name of one."""
    is_told = not is_array(result[-1]) or not means_upstream(free[-1])
    is_all = len(free) == len(taken) == len(result)
    return is_told or len(taken) > 1 if is_pair else is_told and is_all


def _is_loss(entry: object) -> bool:
    return is_scalar(entry) and np.asarray(entry).dtype != object
