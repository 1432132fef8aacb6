"""What is heard of a network's layers in a pass: what they are given, and what they give."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np

from ...validation import Array
from ..guard import CheckError, theirs
from ..source import Place
from .objects import attributes_of, input_gradient_of, methods_of, output_of
from .own_passes import Way, gradients_of, noted, own
from .parameters import Parameter
from .session import states
from .subject import is_array

Named = Sequence[tuple[str, Any]]
NO_WAY = Way((), is_sure=False)


@dataclass
class Call:
    """One call of a layer's forward or backward pass, with copies of what it was given and gave."""

    name: str
    layer: Any
    arguments: tuple[Any, ...]
    place: Place
    streams: list[Any]  # the states of the random streams before it
    before: list[Parameter]  # the layer's gradients, if it is backward
    after: list[Parameter] = field(default_factory=list)
    result: Any = None  # the output, or the gradient of the first input
    is_done: bool = False


@dataclass
class Pass:
    """One run through a network, with the calls of its layers' passes in their order."""

    random: list[Any] = field(default_factory=list)  # the random streams that the network reaches
    way: Way = NO_WAY  # the network's own methods that were called
    forward: list[Call] = field(default_factory=list)
    backward: list[Call] = field(default_factory=list)
    result: Any = None  # of the network's own method, or the gradient of its input
    gradients: list[Parameter] = field(default_factory=list)  # that are returned or left: totals
    listed: list[Parameter] = field(default_factory=list)  # those that the network itself holds
    ups: dict[str, Any] = field(default_factory=dict)  # where they are not the first argument
    updates: list[Parameter] = field(default_factory=list)  # where there are none: the changes
    is_returned: bool = False
    streams: list[Any] = field(default_factory=list)  # the states of the random streams after it
    error: Exception | None = None

    def run(self, name: str, layer: Any, step: int, method: Any, *args: Any, **more: Any) -> Any:
        """Run a layer's forward (step 0) or backward pass (1), and note it."""
        code, calls = sys._getframe(1), self.backward if step else self.forward
        place = code.f_code.co_filename, code.f_lineno
        held = _copies(name, layer) if step else []
        call = Call(name, layer, tuple(map(own, args)), place, states(self.random), held)
        calls.append(call)
        result = method(*args, **more)
        call.result, call.is_done = own(result_of(layer, step, result)), True
        call.after = _copies(name, layer) if step else []
        return result

    @contextmanager
    def listening(self, named: Named) -> Iterator[None]:
        """Note what layers do while something else runs them; those with slots are not heard."""
        placed: list[tuple[object, str]] = []
        for name, layer in once(named):
            for step, method in enumerate(methods_of(layer)):
                if method.startswith("__") or method in attributes_of(layer):
                    continue
                with suppress(CheckError), theirs():
                    ear = partial(self.run, name, layer, step, getattr(layer, method))
                    setattr(layer, method, ear)
                    placed.append((layer, method))
        try:
            yield
        finally:
            for layer, method in placed:
                layer.__dict__.pop(method, None)

    @property
    def is_whole(self) -> bool:
        """Whether the pass went through all layers and back."""
        return len(self.backward) == len(self.forward) and all(c.is_done for c in self.backward)

    @property
    def uses(self) -> list[Parameter]:
        """The gradients that each backward pass has left, under the name of each of its calls."""
        return [p for call in self.backward for p in call.after if is_array(p.gradient())]

    def first_inputs(self) -> dict[object, Array]:
        """Return the arrays of floats that each layer is given first."""
        return {
            (id(call.layer), i): array
            for call in reversed(self.forward)
            for i, array in enumerate(call.arguments)
            if is_array(array) and array.dtype.kind == "f"
        }

    def given(self) -> dict[str, tuple[Call, Any]]:
        """Return the forward call of each layer that ran once, and its upstream gradient."""
        names = [call.name for call in self.forward]
        return {c.name: (c, self._upstream(c)) for c in self.forward if names.count(c.name) == 1}

    def _upstream(self, call: Call) -> object:
        """Return the one gradient that a layer is given which fits its output; None of others."""
        if call.name in self.ups:
            return self.ups[call.name]
        ups = [c.arguments[0] for c in self.backward if c.name == call.name and c.arguments]
        fits = len(ups) == 1 and is_array(ups[0]) and ups[0].shape == np.shape(call.result)
        return ups[0] if fits else None


def _copies(name: str, layer: object) -> list[Parameter]:
    now = gradients_of(name, layer)
    return [noted(p.name, p.value, own(p.gradient()), layer) for p in now]


def once(named: Named) -> Named:
    """Return each layer once, by its first name."""
    return list({id(layer): (name, layer) for name, layer in reversed(named)}.values())[::-1]


def result_of(layer: object, step: int, result: object) -> Any:
    """Return the output of a layer's forward pass, or the gradient of its first input."""
    result = input_gradient_of(layer, result) if step else output_of(layer, result)
    return result[0] if isinstance(result, tuple) and result else result
