"""A network of layers: what it is made of, and what its layers are given and give in a pass."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import cached_property, partial
from types import FunctionType, MethodType
from typing import Any

import numpy as np

from ..guard import NEVER, CheckError, Deadline, theirs
from .adapter import Automatic, Terms
from .calling import Calling
from .conventions import BACKWARD, FORWARD, LOSS_LAYERS, PRIMES, is_target_first
from .find_calling import arguments_back, calling_back
from .heard import Call, Named, Pass, gradients_of, listed_by, noted, once, result_of, totals
from .loss import Gradient
from .objects import (
    accepts,
    changes_of,
    held_arrays,
    method_name,
    methods_of,
    output_of,
    positional_names,
    read,
)
from .own_passes import Way, in_order, loss_ways, number_in, own, scores_call, ways
from .parameters import Parameter, resets_of, run_resets
from .session import Session, put_back, states, streams_of, untouched
from .subject import called, is_array


def _reset(*layers: object) -> None:
    """Reset the gradients of objects that accumulate them."""
    for layer in layers:
        run_resets(resets_of(layer))


# -------------------- the network --------------------


@dataclass(frozen=True)
class Network:
    """A network with its layers by name, and what its passes are run with."""

    object: Any  # the caller's own, or a list or dict of layers
    layers: Named  # the loss layer is the last one, where there is one
    is_chain: bool  # whether there are both, so that they can be run one after another
    x: Any
    t: Any
    session: Session
    loss: Any = None  # a loss of the scores and the targets, given as a function
    automatic: Automatic = lambda subject: ()  # gives autograd's gradients
    given: Mapping[str, Any] = field(default_factory=dict)  # to the checks of it, of its layers
    deadline: Deadline = NEVER

    def label(self, run: Pass) -> str:
        """Return what the network's own method is called that a run ends with."""
        return f"{type(self.object).__name__}.{run.way.method}"

    @cached_property
    def losses(self) -> list[Pass]:
        """A run of each method that gives the loss, with the loss as its result."""
        runs = [self.run(way) for way in loss_ways(self.object, self.x, self.t, self.loss)]
        for run in runs:
            run.result = number_in(run.result)
        return [run for run in runs if run.result is not None]

    @property
    def loss_names(self) -> list[str]:
        """The methods that give the loss."""
        return [run.way.method for run in self.losses if len(run.way.calls[-1][1]) == 2]

    def is_run_as_layer(self, way: Way) -> bool:
        """Tell whether a way is to run the network forward and backward, as a layer is run."""
        (first, data), (last, given) = way.calls[0], way.calls[-1]
        passes = [method_name(self.object, names) for names in (FORWARD, BACKWARD)]
        fits = not given or (len(data) == len(given) == 1 and given[0] is not None)
        return [first, last] == passes and fits and bool(data)

    def run(self, way: Way) -> Pass:
        """Run the network's own methods while the layers are listened to; an error is noted."""
        heard = Pass(streams_of(self.object), way)
        with self.session.fresh(), heard.listening(self.layers):
            _reset(*(layer for _, layer in self.layers), self.object)
            try:
                self._hear(heard)
                heard.streams = states(heard.random)
            except CheckError as error:
                cause = error.__cause__
                heard.error = cause if isinstance(cause, Exception) else error
        self.session.restore()
        return heard

    def _hear(self, heard: Pass) -> None:
        """Run the methods, and note the result, and the gradients that are given, held or made."""
        held = list({id(h.value): h for h in held_arrays(self.object)}.values())
        before = [np.array(h.value) for h in held]
        with theirs():
            result = heard.result = heard.way.run(self.object)
        method = getattr(self.object, heard.way.method)
        listed, heard.is_returned = listed_by(self.object, result, method)
        heard.gradients = totals(listed) or self._left()
        changes = changes_of(held, before, self.object) if not heard.gradients else {}
        updated = [h for h in held if h.name in changes and changes[h.name].any()]
        heard.updates = [noted(h.name, h.value, changes[h.name]) for h in updated]

    def written_by(self, way: Way) -> set[str]:
        """Return the names of the network's arrays that its methods write, or put others for."""
        heard = Pass(way=way)
        with self.session.fresh():
            self._hear(heard)
        return {p.name for p in heard.updates}

    def gradients_by(self, way: Way) -> list[Parameter]:
        """Run the network's own methods, and return the gradients, or the changes."""
        heard = Pass(way=way)
        self._hear(heard)
        return heard.gradients or heard.updates

    def _left(self) -> list[Parameter]:
        """Return the gradients that the layers now hold."""
        left = [p for named in once(self.layers) for p in gradients_of(*named)]
        return totals([p for p in left if is_array(p.gradient())])

    @cached_property
    def chain(self) -> Pass:
        """A run of the layers one after another, and back; an error is noted."""
        if not self.is_chain:
            return Pass(error=self._no_chain())
        for name, layer in self.layers:
            with naming(name):
                methods_of(layer)
        ran = Pass(streams_of(*(layer for _, layer in self.layers)))
        try:
            with self.session.fresh():
                self._there(ran)
            callings = [calling_back(c.layer, c.arguments, self.automatic) for c in ran.forward]
            ran.forward.clear()
            with self.session.fresh():
                self._there(ran)
                self._back(ran, callings)
                ran.gradients, ran.streams = self._left(), states(ran.random)
                ran.listed = totals(listed_by(self.object, None)[0])
                ran.result = ran.backward[-1].result
        except CheckError as error:
            ran = Pass(error=error)
        self.session.restore()
        return ran

    def _no_chain(self) -> CheckError:
        """Return why there are no layers to be run one after another."""
        if isinstance(self.object, type):
            return CheckError(
                f"network must be an object, got the class {self.object.__name__} itself: give "
                f"{self.object.__name__}(...)"
            )
        if self.layers:
            return CheckError(
                "network must have a loss_layer with forward(x, t) and backward(); or give one as "
                "loss="
            )
        scores = scores_call(self.object, self.x)
        group = next(filter(None, ways(self.object, [], self.x, self.t, None)), [])
        if scores and group and self.loss is None:
            return CheckError(
                f"{type(self.object).__name__} has {scores[0][0]} and {group[0].method}, but no "
                "loss: give it, as loss=lambda y, t: 0.5 * np.sum((y - t) ** 2), of what "
                f"{scores[0][0]} returns and of the targets"
            )
        return CheckError(
            "network must have layers (a list, or a dict in order), or be a list of them; or else "
            "forward(x, t) and backward() of its own, or loss(x, t) and gradient(x, t); where "
            "only the loss is lacking, give it: loss=lambda y, t: …, of what forward(x) returns"
        )

    def _there(self, ran: Pass) -> None:
        """Give each layer what the one before gives, and the last one the targets as well."""
        _reset(*(layer for _, layer in self.layers))
        value = self.x
        for i, (name, layer) in enumerate(self.layers, start=1):
            method = getattr(layer, methods_of(layer)[0])
            run = partial(ran.run, name, layer, 0, method)
            given = [value, self.t] if i == len(self.layers) else [value]
            is_swapped = len(given) == 2 and is_target_first(positional_names(method, 2))
            given = given[::-1] if is_swapped else given
            value = output_of(layer, called(f"{name}.forward", run, *given))

    def _back(self, ran: Pass, callings: Sequence[Calling | None]) -> None:
        """Give each backward pass what the one after it has given, from the last one on."""
        given: tuple[Any, ...] | None = None
        outputs = [None, *(call.result for call in ran.forward[:-1])]
        steps = zip(self.layers, outputs, callings, ran.forward, strict=True)
        for (name, layer), output, calling, there in reversed(list(steps)):
            method = getattr(layer, methods_of(layer)[1])
            if calling is not None:
                up = None if given is None else given[0]
                data = calling, layer, there.arguments, there.result, up
                arguments, ups = arguments_back(*data)
                given = tuple(arguments)
                ran.ups |= {name: ups if calling.takes_upstream else None}
            elif given is None:
                given = () if accepts(method, 0) else (1.0,)
            run = partial(ran.run, name, layer, 1, method)
            try:
                up = result_of(layer, 1, called(f"{name}.backward", run, *given))
                up = up if calling is None else calling.result(up, [ups], there.arguments)
            except CheckError:
                if sum(other is layer for _, other in self.layers) < 2:
                    raise
                return  # by the other forward pass of one object
            if np.shape(up) != np.shape(output):
                return  # the check of this layer tells what it lacks
            given = (up,)

    def alone(self, there: Call, back: Call) -> Pass:
        """Run a layer by itself as it was run in a chain; an error ends the pass."""
        layer = there.layer
        ran = Pass()
        with self.session.fresh(), suppress(CheckError), theirs():
            forward, backward = (getattr(layer, name) for name in methods_of(layer))
            put_back(there.streams)
            _reset(layer)
            ran.run(there.name, layer, 0, forward, *map(own, there.arguments))
            ran.run(there.name, layer, 1, backward, *map(own, back.arguments))
        return ran


@contextmanager
def naming(name: str) -> Iterator[None]:
    """Let an error about a layer say which layer of the network it is."""
    try:
        yield
    except CheckError as error:
        text = str(error)
        if text.startswith(f"{name}."):
            raise
        is_subject = text.startswith("layer ")
        text = name + text.removeprefix("layer") if is_subject else f"{name}: {text}"
        raise CheckError(text) from error.__cause__


# -------------------- its layers by name --------------------


def network_of(
    network: object,
    loss: object,
    x: object,
    t: object,
    session: Session,
    automatic: Automatic = lambda subject: (),
) -> Network:
    """Return a network with its layers by name, and its loss layer."""
    held = network if is_plain(network) else read(network, "layers")
    if held is not network and not _holds_layers(held):  # such as their sizes
        return Network(network, [], False, x, t, session, loss)
    item = loss_layer_of(network, loss, automatic)
    last = [("loss_layer", item)] if item is not None else []
    layers = [*_named("layers", held), *last]
    return Network(network, layers, bool(last), x, t, session, automatic=automatic)


def is_plain(network: object) -> bool:
    """Tell whether a network is a list or dict of layers, which has no passes of its own."""
    return isinstance(network, list | tuple | dict)


def _holds_layers(held: object) -> bool:
    """Tell whether a list or dict has a layer in it."""
    items = _named("", held) if is_plain(held) else ()
    return any(method_name(item, FORWARD) is not None for _, item in items)


def _named(name: str, held: Any) -> Iterator[tuple[str, Any]]:
    """Yield the layers of a list or dict, and of those in it."""
    for key, layer in held.items() if isinstance(held, dict) else enumerate(held):
        if is_plain(layer):
            yield from _named(f"{name}[{key!r}]", layer)
        else:
            yield f"{name}[{key!r}]", layer


# -------------------- its loss layer --------------------


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
    if isinstance(loss, FunctionType | MethodType):
        return AutomaticLoss(loss, automatic)
    for name in LOSS_LAYERS if loss is None else ():
        item = read(network, name)
        if isinstance(item, FunctionType | MethodType):
            primes = (read(network, name + end) for end in PRIMES)
            prime = next(filter(callable, primes), None)
            if prime is not None:
                return GivenLoss(item, prime)
        with suppress(CheckError):
            if item is not None and methods_of(item):
                return item
    return loss
