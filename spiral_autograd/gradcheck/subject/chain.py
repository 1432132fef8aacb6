"""The layers of a network one after another: what each is given and gives, there and by itself."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np

from ...pytree import Sharing
from ...validation import Array
from ..blocks import close, largest
from ..guard import theirs
from .conventions import accepts, input_gradient_of, methods_of, output_of
from .parameters import find_parameters, resets_of
from .session import Session, put_back, states, streams_of
from .subject import CheckError, called

Named = Sequence[tuple[str, Any]]


class Listed(NamedTuple):
    """A parameter and its gradient, as a network or its layers hold them."""

    label: str
    value: Array
    gradient: Any


@dataclass
class Step:
    """One layer in a pass of the network.

    Attributes
    ----------
    name : str
    layer : object
    inputs : tuple
    streams : list
        The states of the random streams before the forward pass.
    output, upstream, returned : arrays
        What forward gave, and what backward was given and gave; None where it did not run.
    before, after : lists
        The gradients of the layer's parameters before its backward pass, and after it.
    left : list
        These gradients after the whole pass: the layer's own array, and a copy.
    is_broken : bool
        Whether its backward pass raised.
    """

    name: str
    layer: Any
    inputs: tuple[Any, ...]
    streams: list[Any] = field(default_factory=list)
    output: Any = None
    upstream: Any = None
    returned: Any = None
    before: list[Any] = field(default_factory=list)
    after: list[Any] = field(default_factory=list)
    left: list[tuple[Any, Any]] = field(default_factory=list)
    is_broken: bool = False


@dataclass
class Chain:
    """A pass through all layers, forward and back.

    Attributes
    ----------
    steps : list of Step
        In the order of the forward pass; the last is the loss layer.
    left : list of Listed
        The gradients that are left in the layers after the pass.
    streams : list
        The states of the random streams after it.
    """

    steps: list[Step]
    left: list[Listed]
    streams: list[Any]

    @property
    def loss(self) -> Any:
        """What the loss layer gave."""
        return self.steps[-1].output

    @property
    def is_whole(self) -> bool:
        """Whether the backward pass went through all layers."""
        return not any(s.is_broken or s.upstream is None for s in self.steps[:-1])


def run_chain(named: Named, loss_layer: Any, x: Any, t: Any) -> Chain:
    """Run the layers of a network one after another, and the backward passes after that."""
    random = streams_of(*(layer for _, layer in named), loss_layer)
    for _, layer in named:
        reset_gradients(layer)
    steps: list[Step] = []
    value = x
    for name, layer in (*named, ("loss_layer", loss_layer)):
        arguments = (value, t) if len(steps) == len(named) else (value,)
        step = Step(name, layer, tuple(map(own, arguments)), states(random))
        with naming(name):
            forward = getattr(layer, methods_of(layer)[0])
        value = output_of(layer, called(f"{name}.forward", forward, *arguments))
        step.output = own(value)
        steps.append(step)
    up: Any = None
    for i in range(len(steps) - 1, -1, -1):
        try:
            up = _step_back(steps[i], up, is_loss=i == len(steps) - 1)
        except CheckError:
            if sum(step.layer is steps[i].layer for step in steps) < 2:
                raise
            steps[i].is_broken = True  # by the other forward pass of one object
            break
        if i > 0 and np.shape(up) != np.shape(steps[i - 1].output):
            break  # the check of this layer tells what it lacks
    for step in steps:
        step.left = [(g, own(g)) for g in (p.gradient() for p in find_parameters(step.layer))]
    return Chain(steps, totals(left_in(named)), states(random))


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


def _step_back(step: Step, up: Any, is_loss: bool) -> Any:
    """Run one backward pass; return the gradient that the layer before is given."""
    backward = getattr(step.layer, methods_of(step.layer)[1])
    step.before = gradients_of(step.layer)
    if is_loss:
        arguments: tuple[Any, ...] = () if accepts(backward, 0) else (1.0,)
    else:
        arguments, step.upstream = (up,), own(up)
    result = called(f"{step.name}.backward", backward, *arguments)
    returned = first_of(input_gradient_of(step.layer, result))
    step.returned, step.after = own(returned), gradients_of(step.layer)
    return returned


def first_of(result: Any) -> Any:
    """Return the gradient of the first input, where backward returns more than one."""
    return result[0] if isinstance(result, tuple) and result else result


def own(value: Any) -> Any:
    """Return an array that the user's code cannot write into."""
    return np.array(value) if isinstance(value, np.ndarray) else value


def reset_gradients(layer: Any) -> None:
    """Reset the gradients of a layer that accumulates them."""
    for reset in resets_of(layer):
        try:
            with theirs():
                reset()
        except CheckError:  # a layer may be reset only once its parameters are made
            return


def gradients_of(layer: Any) -> list[Any]:
    """Return copies of the gradients that a layer now holds, in the order of its parameters."""
    return [own(parameter.gradient()) for parameter in find_parameters(layer)]


def left_in(named: Named) -> list[Listed]:
    """Return the gradients that are left in layers."""
    met: set[int] = set()
    found = []
    for name, layer in named:
        if id(layer) not in met:
            met.add(id(layer))
            found += [
                Listed(f"{name}.{p.name}", p.value, p.gradient()) for p in find_parameters(layer)
            ]
    return [entry for entry in found if isinstance(entry.gradient, np.ndarray)]


def totals(listed: Sequence[Listed]) -> list[Listed]:
    """Return each parameter once, with its gradients added; one array of gradients counts once."""
    groups: dict[int, list[tuple[Listed, bool]]] = {}
    places = Sharing.of([entry.value for entry in listed]).places
    for entry, (first, turned) in zip(listed, places, strict=True):
        groups.setdefault(first, []).append((entry, turned))
    return [_total(members) for members in groups.values()]


def _total(members: Sequence[tuple[Listed, bool]]) -> Listed:
    """Return one parameter that is listed in several places."""
    first = members[0][0]
    found = [
        entry.gradient.T if turned else entry.gradient
        for entry, turned in members
        if isinstance(entry.gradient, np.ndarray)
    ]
    arrays = Sharing.of(found).unique(found)
    if not arrays or any(array.shape != arrays[0].shape for array in arrays):
        return first._replace(gradient=own(first.gradient))
    return first._replace(gradient=np.array(sum(arrays[1:], start=arrays[0])))


# -------------------- each layer by itself --------------------


def estranged(chain: Chain, session: Session, right: set[str]) -> list[str]:
    """Return where layers that are right by themselves give other gradients in the chain.

    Parameters
    ----------
    chain : Chain
    session : Session
    right : set of str
        The names of the layers that are right by themselves.
    """
    steps = [s for s in chain.steps[:-1] if s.upstream is not None and s.name in right]
    runs = [(s.name, _alone(s, session)) for s in steps]
    alone = {name: run for name, run in runs if run is not None}
    twins = [[o.name for o in chain.steps if o.layer is s.layer] for s in steps]
    found = []
    for step, names in zip(steps, twins, strict=True):
        if step.name in alone and not _as_alone(step, alone[step.name]):
            found.append(_overwritten(names) if len(names) > 1 else _other(step.name))
    return list(dict.fromkeys(found)) or _lost(chain, alone)


def _overwritten(names: list[str]) -> str:
    return (
        f"{' and '.join(names)} are one object: the second forward pass overwrites what the first "
        "kept for backward; make a layer for each (they may share their weights)"
    )


def _other(name: str) -> str:
    return (
        f"in the network {name}.backward gives another gradient than by itself on the same input "
        "and upstream gradient: another layer writes into what it kept, or into what it gave"
    )


def _alone(step: Step, session: Session) -> Step | None:
    """Run a layer by itself as in the chain; None where its output depends on more than that."""
    with session.fresh(), suppress(CheckError), theirs():
        put_back(step.streams)
        reset_gradients(step.layer)
        again = Step(step.name, step.layer, step.inputs)
        forward, backward = (getattr(step.layer, name) for name in methods_of(step.layer))
        again.output = own(output_of(step.layer, forward(*map(own, step.inputs))))
        if not _close(again.output, step.output):
            return None
        again.before = gradients_of(step.layer)
        result = backward(own(step.upstream))
        again.returned = own(first_of(input_gradient_of(step.layer, result)))
        again.after = gradients_of(step.layer)
        return again
    return None


def _close(ours: Any, theirs: Any, floor: float = 0.0) -> bool:
    if not isinstance(ours, np.ndarray) or not isinstance(theirs, np.ndarray):
        return True
    if ours.dtype.kind != "f" or theirs.dtype.kind != "f":
        return True
    return close(ours, theirs, precision(ours, theirs), floor)


def precision(*arrays: Any) -> float:
    """Return up to which relative difference gradients of one formula are equal."""
    return 1e-4 if any(np.asarray(a).dtype.itemsize < 8 for a in arrays) else 1e-9


def _as_alone(step: Step, alone: Step) -> bool:
    """Tell whether a layer gave the same in the chain: where it adds gradients up, added."""
    floor = 1e-3 * precision(step.upstream) * largest(step.upstream)
    if step.is_broken or not _close(step.returned, alone.returned, floor):
        return False
    pairs = zip(step.before, step.after, alone.before, alone.after, strict=False)
    for before, after, before_alone, after_alone in pairs:
        if _close(after, after_alone, floor):
            continue
        every = (before, after, before_alone, after_alone)
        if not all(isinstance(a, np.ndarray) for a in every):
            return False
        if not _close(after - before, after_alone - before_alone, floor + 1e-9 * largest(before)):
            return False
    return True


def _lost(chain: Chain, alone: dict[str, Step]) -> list[str]:
    """Return where one place of a gradient keeps the last one only, in place of the sum."""
    uses = [
        (f"{step.name}.{p.name}", place, kept, gradient)
        for step in chain.steps[:-1]
        if step.name in alone
        for p, (place, kept), gradient in zip(
            find_parameters(step.layer), step.left, alone[step.name].after, strict=False
        )
        if isinstance(kept, np.ndarray) and isinstance(gradient, np.ndarray)
    ]
    groups: dict[int, list[int]] = {}
    places = Sharing.of([place for _, place, _, _ in uses]).places
    for i, (first, _) in enumerate(places):
        groups.setdefault(first, []).append(i)
    found = []
    for members in groups.values():
        parts = [uses[i][3].T if places[i][1] else uses[i][3] for i in members]
        if len(parts) < 2 or any(part.shape != parts[0].shape for part in parts):
            continue
        floor = 1e-9 * max(map(largest, parts))
        if not _close(uses[members[0]][2], sum(parts), floor):
            names = " and ".join(uses[i][0] for i in members)
            found.append(
                f"{names} have one place for their gradient, and after a backward pass it is not "
                "their sum: add to it in each backward (+=)"
            )
    return found
