"""The loss at the end of a chain of layers: a layer, an object, or functions; and its call back."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from functools import partial
from types import FunctionType, MethodType, SimpleNamespace
from typing import Any

import numpy as np

from ...validation import Array
from ..guard import CheckError
from .adapter import Automatic, Terms
from .calling import find_calling
from .conventions import BACKWARD, LOSS_LAYERS, PRIMES
from .loss import Gradient
from .object_passes import Calling, ObjectPasses
from .objects import methods_of, read, required_names
from .own_passes import in_order
from .session import untouched


class GivenLoss:
    """A loss and its derivative, two functions, as a layer."""

    def __init__(self, forward: Any, gradient: Any) -> None:
        self.forward, self.gradient = forward, gradient


class AutomaticLoss:
    """A loss that has no derivative, and is given autograd's: nothing of it is to be checked."""

    def __init__(self, loss: Any, automatic: Automatic) -> None:
        self.loss, self.automatic = loss, automatic

    def forward(self, scores: Any, targets: Any) -> Any:
        """Return the loss."""
        self.scores, self.targets = scores, targets
        return in_order(self.loss, scores, targets)

    def backward(self) -> Any:
        """Return the gradient of the scores."""
        scores, targets = np.array(self.scores), self.targets
        with untouched(self.loss, scores, targets) as session:
            ours, terms = partial(in_order, self.loss), Terms(session, automatic=self.automatic)
            loss = Gradient(ours, np.zeros_like(scores), scores, (targets,), terms)
            (gradient,) = loss.gradients_of(loss.values)
        if gradient is None:
            raise CheckError("loss has no derivative that autograd knows: give a loss layer")
        return gradient


def loss_layer_of(network: object, loss: object, automatic: Automatic) -> Any:
    """Return the loss layer that is given, or that a network has; None where there is none."""
    names = LOSS_LAYERS if loss is None else [""]
    for name in names:
        item = read(network, name) if name else loss
        if isinstance(item, FunctionType | MethodType):
            primes = (read(network, name + end) for end in PRIMES if name)
            prime = next(filter(callable, primes), None)
            if prime is not None:
                return GivenLoss(item, prime)
            if not name:
                return AutomaticLoss(item, automatic)
        with suppress(CheckError):
            if item is not None and methods_of(item):
                return item
    return loss


def calling_back(layer: object, inputs: Sequence[object], automatic: Automatic) -> Calling | None:
    """Return how a layer is called back that takes more than a gradient; None of others."""
    backward = methods_of(layer)[1]
    if backward in BACKWARD and len(required_names(getattr(layer, backward))) < 2:
        return None
    with untouched(layer, inputs) as session:
        passes = ObjectPasses(layer, inputs, Terms(session, automatic=automatic))
        find_calling(passes)
        return passes.calling


def arguments_back(
    calling: Calling, layer: object, inputs: Sequence[object], output: Any, up: Any
) -> tuple[list[Any], Array]:
    """Return what a layer is called back with, right after its forward pass; and the upstream."""
    fixed = 1.0 if calling.share is None else calling.share
    ups = np.full(np.shape(output), fixed) if up is None else up
    view: Any = SimpleNamespace(inputs=inputs, last=output, cache=None, layer=layer)
    return calling.arguments(view, [ups]), ups
