"""A function with its derivative, which may take the input x, the output y, and a gradient g."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import permutations
from typing import Any

import numpy as np

from ...validation import Array
from .conventions import means_output, means_upstream
from .inputs import as_array
from .objects import name_of_function, positional_names, required_names
from .pair import Passes, Way
from .subject import CheckError, called, described, is_float_array

# What a derivative may take, by the number of its arguments.
READINGS = (
    ["x", "y"],
    ["gx", "xg", "gy", "yg", "xy", "yx"],
    ["".join(order) for order in permutations("gxy")],
)


class Derivative:
    """A function, and the gradients that its derivative gives, by what this may take."""

    def __init__(
        self, function: Callable[..., object], derivative: Callable[..., object], x: object
    ) -> None:
        self.x: Any = as_array(x)
        if not is_float_array(self.x):
            raise CheckError(f"x must be an array of floats, or a float, got {described(x)}")
        self.function, self.derivative = function, derivative
        self.label = name_of_function(function, "the function")
        self.derivative_label = name_of_function(derivative, "the derivative")
        self.names = positional_names(function, 1)
        taken = required_names(derivative) or ["x"]
        if len(taken) > len(READINGS):
            raise CheckError(
                f"{self.derivative_label} must take x, y = {self.label}(x), the upstream gradient, "
                f"or some of these, but takes {', '.join(taken)}: fix the others with "
                "functools.partial"
            )

        gradients = [means_upstream(name) and not means_output(name) for name in taken]
        every = READINGS[len(taken) - 1]
        named = [r for r in every if any(gradients) and [one == "g" for one in r] == gradients]
        self.readings = {self._way(one): one for one in named or every}
        self.is_entrywise = self._takes_numbers_only()

    def passes(self) -> Passes:
        """Return the function and its derivative, called in one of several ways, as passes."""
        code = self.function, self.derivative
        labels = self.label, self.derivative_label
        return Passes(
            *labels, self.names, [self.x], self.forward, [*self.readings], code, is_sure=False
        )

    def forward(self, x: Array) -> tuple[list[object], object]:
        """Run the function; with one that takes numbers only, there is an output for each."""
        if not self.is_entrywise:
            y = called(self.label, self.function, x)
            return [y], y
        flat = x.reshape(-1)
        ys = [called(self.label, self.function, flat[i]) for i in range(x.size)]
        return ys, ys

    def _takes_numbers_only(self) -> bool:
        x = self.x
        try:
            called(self.label, self.function, x.copy())
        except CheckError as error:
            if x.ndim == 0:
                raise
            try:
                called(self.label, self.function, x.reshape(-1)[0])
            except CheckError:
                raise error from None
            return True
        return False

    def _way(self, reading: str) -> Way:
        def way(ups: list[Any], y: Any, inputs: Sequence[Array]) -> object:
            if not self.is_entrywise:
                return self._gradient(reading, inputs[0], y, ups[0])
            entries = zip(inputs[0].reshape(-1), y, ups, strict=True)
            grads = [self._gradient(reading, *map(np.asarray, entry)) for entry in entries]
            return np.reshape(np.array(grads), inputs[0].shape)

        return Way(way, reading.find("g"))

    def _gradient(self, reading: str, x: Array, y: Array, g: Array) -> object:
        """Return what the derivative gives for x, times the upstream gradient if that is left."""
        given = {"x": x, "y": y, "g": g}
        result = called(self.derivative_label, self.derivative, *(given[one] for one in reading))
        return result if "g" in reading or result is None else chained(g, result, y, x)


def chained(g: Array, derivative: object, y: Array, x: Array) -> object:
    """Return a gradient through a derivative: one for each entry, or a Jacobian, of all or rows."""
    d, shape = np.asarray(derivative), np.shape(y)
    if d.ndim == 0 or d.shape == shape == x.shape:
        return g * d
    if d.shape == shape + x.shape:
        return np.tensordot(g, d, len(shape))
    if shape == x.shape and d.shape == (*shape, shape[-1]):
        return np.einsum("...i,...ij->...j", g, d)
    return derivative
