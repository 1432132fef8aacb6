"""Listening to the layers of a network while its own passes run."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..blocks import close, largest
from ..guard import CheckError, theirs
from ..source import Place
from ..subject.chain import Chain, Named, Step, first_of, own, precision
from ..subject.conventions import attributes_of, input_gradient_of, methods_of, output_of
from ..subject.subject import described


@dataclass
class Heard:
    """One call of a layer's pass.

    Attributes
    ----------
    name : str
        The layer's.
    is_forward : bool
    arguments : tuple
    result : object
        None where the pass raised.
    place : (str, int)
        Where it was called.
    """

    name: str
    is_forward: bool
    arguments: tuple[Any, ...]
    result: Any
    place: Place


@contextmanager
def listening(named: Named) -> Iterator[list[Heard]]:
    """Note the calls of the layers' passes, in order; layers that cannot be listened to are not."""
    heard: list[Heard] = []
    placed: list[tuple[Any, str]] = []
    for name, layer in {id(layer): (name, layer) for name, layer in reversed(named)}.values():
        for is_forward, method in zip((True, False), methods_of(layer), strict=True):
            if method.startswith("__") or method in attributes_of(layer):
                continue
            with suppress(CheckError), theirs():  # it has slots, say
                setattr(layer, method, _ear(heard, name, layer, is_forward, getattr(layer, method)))
                placed.append((layer, method))
    try:
        yield heard
    finally:
        for layer, method in placed:
            layer.__dict__.pop(method, None)


def _ear(
    heard: list[Heard], name: str, layer: Any, is_forward: bool, plain: Callable[..., Any]
) -> Callable[..., Any]:
    def ear(*args: Any, **kwargs: Any) -> Any:
        frame = sys._getframe(1)
        place = frame.f_code.co_filename, frame.f_lineno
        call = Heard(name, is_forward, tuple(map(own, args)), None, place)
        heard.append(call)
        result = plain(*args, **kwargs)
        read = output_of if is_forward else input_gradient_of
        call.result = own(first_of(read(layer, result)))
        return result

    return ear


def steps_of(heard: Sequence[Heard], named: Named) -> list[Step]:
    """Return each layer that ran once, with what it was given in the network's own passes."""
    steps = []
    for name, layer in named:
        forth = [call for call in heard if call.name == name and call.is_forward]
        back = [call for call in heard if call.name == name and not call.is_forward]
        if len(forth) == 1:
            step = Step(name, layer, forth[0].arguments, output=forth[0].result)
            up = back[0].arguments[0] if len(back) == 1 and back[0].arguments else None
            fits = isinstance(up, np.ndarray) and np.shape(up) == np.shape(step.output)
            step.upstream = up if fits else None
            steps.append(step)
    return steps


def same_forward(ours: Sequence[Heard], theirs: Sequence[Heard]) -> bool:
    """Tell whether two passes give the layers the same in their forward passes."""
    inputs = [
        [(call.name, call.arguments) for call in heard if call.is_forward]
        for heard in (ours, theirs)
    ]
    if not all(inputs):  # the passes do not use the layers
        return True
    return len(inputs[0]) == len(inputs[1]) and all(
        name == other and _equal(a, b) for (name, a), (other, b) in zip(*inputs, strict=True)
    )


def _equal(ours: Sequence[Any], theirs: Sequence[Any]) -> bool:
    return len(ours) == len(theirs) and all(
        close(a, b, 1e-6) if isinstance(a, np.ndarray) and a.dtype.kind == "f" else True
        for a, b in zip(ours, theirs, strict=True)
    )


# -------------------- where the way back goes wrong --------------------


def misgiven(heard: Sequence[Heard], chain: Chain) -> tuple[str, tuple[Place, ...]] | None:
    """Return the first layer that a network's own backward pass gives another gradient, and where.

    None where each is given what the next one returned, or where that cannot be told.
    """
    steps = chain.steps
    calls = [call for call in heard if not call.is_forward]
    if len({id(step.layer) for step in steps}) < len(steps) or not calls:
        return None
    at = {step.name: i for i, step in enumerate(steps)}
    last = None
    for call in calls:
        step = steps[at[call.name]]
        places = tuple(dict.fromkeys((*((last.place,) if last else ()), call.place)))
        if step is steps[-1]:
            if call.result is not None and not _same(call.result, step.returned):
                given = ", ".join(map(described, call.arguments)) or "nothing"
                return f"it calls loss_layer.backward with {given}", (call.place,)
        elif step.upstream is not None and not _same(call.arguments[0], step.upstream):
            return _how_given(call.arguments[0], steps, at[call.name]), places
        last = call
    names = {call.name for call in calls}
    for step in reversed(steps):
        if step.name not in names and step.after:
            return f"it never calls {step.name}.backward", (calls[-1].place,)
    return None


def ran_otherwise(heard: Sequence[Heard], chain: Chain) -> bool:
    """Tell whether the loss layer, called as in the chain, has given another gradient there.

    Then the forward pass before was another one: in evaluation mode, say.
    """
    last = chain.steps[-1]
    calls = [call for call in heard if not call.is_forward and call.name == last.name]
    return any(
        all(np.all(np.asarray(argument) == 1) for argument in call.arguments)
        and call.result is not None
        and not _same(call.result, last.returned)
        for call in calls
    )


def _same(ours: Any, theirs: Any) -> bool:
    if ours is None or theirs is None or np.asarray(ours).dtype.kind not in "fiub":
        return ours is theirs
    tolerance = precision(theirs)
    return close(ours, theirs, tolerance, 1e-3 * tolerance * largest(np.asarray(theirs)))


def _how_given(given: Any, steps: Sequence[Step], i: int) -> str:
    """Return what a layer is given in place of its upstream gradient."""
    wanted = f"what {steps[i + 1].name}.backward returned"
    start = f"it gives {steps[i].name}.backward "
    for j in range(i + 1, len(steps) - 1):
        if steps[j].upstream is not None and _same(given, steps[j].upstream):
            return f"{start}what {steps[j + 1].name}.backward returned, in place of {wanted}"
    true = np.asarray(steps[i].upstream, dtype=float)
    norm = float(np.sum(true * true))
    if np.shape(given) == true.shape and norm > 0 and true.size > 1:
        factor = float(np.sum(np.asarray(given) * true)) / norm
        if _same(given, factor * true):
            return f"{start}{factor:.6g} times {wanted}"
    return f"{start}another upstream gradient than {wanted}"
