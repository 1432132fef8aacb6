"""The passes that a network has itself: its loss, and the gradients that it gives or leaves."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, NamedTuple

import numpy as np

from ..guard import CheckError, theirs
from ..subject.chain import (
    Listed,
    Named,
    left_in,
    own,
    reset_gradients,
    totals,
)
from ..subject.conventions import (
    BACKWARD,
    CONTAINERS,
    FORWARD,
    STATISTICS,
    accepts,
    attributes_of,
    gradient_key,
    method_name,
    positional_names,
    read,
)
from ..subject.held import entries
from ..subject.session import Session, states, streams_of
from .spy import Heard, listening

LOSSES = [
    *FORWARD,
    *"loss compute_loss calc_loss get_loss loss_function cost compute_cost".split(),
]
SCORES = [*FORWARD, "predict"]
GRADIENTS = (
    "gradient gradients compute_gradient compute_gradients compute_grads calc_gradient "
    "calc_gradients get_gradients loss_and_grads loss_and_gradients loss_and_gradient"
).split()

# Arguments that are not the data: what a method that has them takes.
_PREDICTED = ("y", "pred", "score", "out", "logit", "prob")
_TRUE = ("t", "y", "label", "gold", "answer", "expected")
_NOT_TRUE = ("top", "tau", "temp", "tol", "thr", "time", "y_pred", "y_hat", "yhat", "ypred")
_UPSTREAM = ("d", "g", "up", "err", "top", "loss", "out", "v")
_TRAINING = "train_flg train_flag train training is_train is_training train_mode".split()


class Way(NamedTuple):
    """A way to have a network's gradients: its own method, and a run of the passes up to it."""

    method: str
    run: Callable[[], Any]
    is_sure: bool  # whether the method can only be meant to be called so


@dataclass
class Outcome:
    """What a run of a network's own passes has left.

    Attributes
    ----------
    result : object
        What the method returned.
    listed : list of Listed
        The gradients that it returned or left, each parameter once.
    is_returned : bool
        Whether it returned them.
    heard : list of Heard
    streams : list
        The states of the random streams after it.
    error : Exception or None
    """

    result: Any = None
    listed: list[Listed] = field(default_factory=list)
    is_returned: bool = False
    heard: list[Heard] = field(default_factory=list)
    streams: list[Any] = field(default_factory=list)
    error: Exception | None = None


def call(network: Any, name: str, *data: Any) -> Any:
    """Call a network's own method, in training where it can be told so."""
    method = getattr(network, name)
    try:
        known = inspect.signature(method).parameters
    except (TypeError, ValueError):
        known = {}  # type: ignore[assignment]
    taken = positional_names(method, len(data))
    return method(
        *data, **{flag: True for flag in _TRAINING if flag in known and flag not in taken}
    )


def number_of(result: Any) -> Any:
    """Return the loss among what a method returned; None where there is none."""
    parts = result if isinstance(result, tuple) else (result,)
    for part in parts[:2]:
        array = np.asarray(part) if not isinstance(part, dict | list) else np.empty(0)
        if array.size == 1 and array.dtype.kind == "f":
            return array.reshape(())
    return None


def loss_methods(network: Any) -> list[str]:
    """Return the methods that may give the loss of (x, t)."""
    found = []
    for name in LOSSES:
        method = read(network, name)
        if callable(method) and method_name(method, BACKWARD) is None and accepts(method, 2):
            first, second = positional_names(method, 2)
            if not _is_predicted(first, second) and second not in _TRAINING:
                found.append(name)
    return found


def _is_predicted(first: str, second: str) -> bool:
    """Tell whether the first of two arguments is the scores, by their names."""
    is_y = first.lower() == "y"
    return first.lower().startswith(_PREDICTED) and not (is_y and not _is_true(second))


def _is_true(name: str) -> bool:
    """Tell whether an argument is the targets, by its name."""
    name = name.lower()
    return name.startswith(_TRUE) and not name.startswith(_NOT_TRUE) and name not in _TRAINING


def ways(network: Any, losses: Sequence[str], x: Any, t: Any, up: Any) -> Iterator[list[Way]]:
    """Yield, for each own method that may give gradients, the ways in which it may be meant.

    Parameters
    ----------
    network : object
    losses : list of str
        The methods that give the loss.
    x, t : arrays
    up : array or None
        The gradient that the loss layer returns, which some are to be given.
    """
    for name in [*GRADIENTS, *BACKWARD]:
        method = read(network, name)
        if callable(method) and not accepts(method, 0) and accepts(method, 2):
            first, second = positional_names(method, 2)
            if _is_true(second) and not _is_predicted(first, second):
                alone = Way(name, partial(call, network, name, x, t), True)
                yield [alone, *(_after(network, loss, name, (x, t), x, t) for loss in losses)]
    for name in BACKWARD:
        method = read(network, name)
        if callable(method) and accepts(method, 0):
            yield [_after(network, loss, name, (), x, t)._replace(is_sure=True) for loss in losses]
        elif callable(method) and accepts(method, 1):
            yield list(_of_one(network, name, losses, x, t, up))


def _of_one(
    network: Any, name: str, losses: Sequence[str], x: Any, t: Any, up: Any
) -> Iterator[Way]:
    """Yield the ways to call a backward pass of one argument: the targets, or a gradient."""
    (taken,) = positional_names(getattr(network, name), 1)
    upstream = [(1.0,), *([] if up is None else [(up,)])]
    given: list[Any] = [(t,)] if _is_true(taken) else []
    given += upstream if taken.lower().startswith(_UPSTREAM) else []
    for loss in losses:
        yield from (_after(network, loss, name, arguments, x, t) for arguments in given)
    scores = [n for n in SCORES if callable(read(network, n)) and accepts(getattr(network, n), 1)]
    if scores and given:
        yield _after(network, scores[0], name, given[-1], x)


def _after(network: Any, first: str, name: str, given: tuple[Any, ...], *data: Any) -> Way:
    """Return the way of calling a method after another."""

    def run() -> Any:
        call(network, first, *data)
        return call(network, name, *map(own, given))

    return Way(name, run, False)


def outcome_of(way: Way, network: Any, named: Named, session: Session) -> Outcome:
    """Run a network's own passes; the layers are listened to."""
    random = streams_of(network)
    with session.fresh(), listening(named) as heard:
        for _, layer in named:
            reset_gradients(layer)
        reset_gradients(network)
        found = Outcome(heard=heard)
        try:
            with theirs():
                found.result = way.run()
        except CheckError as error:
            cause = error.__cause__
            found.error = cause if isinstance(cause, Exception) else error
            return found
        listed, found.is_returned = listed_by(network, found.result)
        found.listed = totals(listed or left_in(named))
        found.streams = states(random)
    session.restore()
    return found


# -------------------- the gradients that a network lists --------------------


def listed_by(network: Any, result: Any) -> tuple[list[Listed], bool]:
    """Return what a network itself lists, and whether its method has returned it."""
    if isinstance(result, tuple) and len(result) == 2 and number_of(result[0]) is not None:
        result = result[1]
    for values, _ in CONTAINERS:
        found = list(_paired(entries(network, values), result))
        if found:
            return found, True
    arrays = {n: v for n, v in attributes_of(network).items() if isinstance(v, np.ndarray)}
    returned = list(_paired(arrays, result)) if isinstance(result, dict) else []
    if returned:
        return [entry for entry in returned if entry.gradient is not None], True
    for values, grads in CONTAINERS:
        found = list(_paired(entries(network, values), entries(network, grads)))
        if found:
            return found, False
    return [], False


def _paired(values: Any, grads: Any) -> Iterator[Listed]:
    """Yield the arrays of a list or dict, each with its gradient in another."""
    if isinstance(values, dict) and isinstance(grads, dict):
        keys = {name: gradient_key(grads, str(name)) for name in values}
        keys |= {name: name for name in values if name in grads}
        if all(key is None for key in keys.values()):
            return
        for name, value in values.items():
            gradient = None if keys[name] is None else grads[keys[name]]
            by_right = gradient is None and any(word in str(name) for word in STATISTICS)
            if isinstance(value, np.ndarray) and not by_right:
                yield Listed(str(name), value, gradient)
    elif isinstance(values, list | tuple) and isinstance(grads, list | tuple):
        pairs = list(zip(values, grads, strict=False))
        fits = any(_shape(value) == _shape(gradient) for value, gradient in pairs)
        for i, (value, gradient) in enumerate(pairs if len(values) == len(grads) and fits else ()):
            if isinstance(value, np.ndarray):
                yield Listed(f"params[{i}]", value, gradient)


def _shape(value: Any) -> Any:
    return value.shape if isinstance(value, np.ndarray) else None
