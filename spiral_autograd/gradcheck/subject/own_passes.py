"""A network's own methods: in which ways they may give its loss, and its gradients."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from itertools import product
from typing import Any, NamedTuple

import numpy as np

from .calling import RATE
from .conventions import (
    BACKWARD,
    GRADIENTS,
    LOSSES,
    RATES,
    SCORES,
    TRAINING,
    is_target_first,
    means_scores,
    means_targets,
    means_upstream,
)
from .objects import (
    accepts,
    method_name,
    output_of,
    parameters_of,
    positional_names,
    read,
    required_names,
)

# -------------------- its methods --------------------


MethodCall = tuple[str, tuple[Any, ...]]  # a method's name, and its arguments


class Way(NamedTuple):
    """A way to have a network's loss or gradients: methods of its own, one after another."""

    calls: tuple[MethodCall, ...]
    is_sure: bool  # whether the last can only be meant to be called so
    then: Callable[[Any, Any], Any] | None = None  # the loss of what they return and the targets
    targets: Any = None
    rate: float = RATE  # where the last takes one

    @property
    def method(self) -> str:
        """The method that gives the gradients."""
        return self.calls[-1][0]

    def run(self, network: object, memo: Mapping[int, Any] | None = None) -> Any:
        """Call the methods, with others in place of some arrays; return what the last returns."""
        memo, result, n = memo or {}, None, len(self.calls)
        for i, (name, arguments) in enumerate(self.calls):
            other = {id(RESULT): result, id(THE_RATE): self.rate, **memo}
            data = [other.get(id(a), a) for a in arguments]
            data = [own(a) for a in data] if i == n - 1 > 0 else data
            method = getattr(network, name)
            more = parameters_of(method)[len(data) :]
            result = method(*data, **{p.name: True for p in more if p.name in TRAINING})
            if i < n - 1 or self.then is not None:
                result = output_of(network, result)
        return result if self.then is None else self.then(result, self.targets)


RESULT: Any = object()  # stands for what the method before has returned
THE_RATE: Any = object()  # stands for the rate of an update


def own(value: object) -> Any:
    """Return an array that the user's code cannot write into."""
    return np.array(value) if isinstance(value, np.ndarray) else value


def loss_ways(network: object, x: object, t: object, loss: Any = None) -> list[Way]:
    """Return the ways that may give the loss: of (x, t), or of the scores; or `loss` of these."""
    scores = [] if loss is None else scores_call(network, x)
    if loss is not None:
        return [Way(tuple(scores), True, partial(in_order, loss), t)] if scores else []
    found, of_scores = [], []
    for name in LOSSES:
        method = read(network, name)
        if method_name(method, BACKWARD) is None and accepts(method, 2):
            first, second = positional_names(method, 2)
            if not means_scores(first, second) and not is_target_first([first, second]):
                found += [Way(((name, (x, t)),), True)] if second not in TRAINING else []
            else:
                data = (t, RESULT) if is_target_first([first, second]) else (RESULT, t)
                of_scores += [Way((call, (name, data)), True) for call in scores_call(network, x)]
    return found or of_scores


def scores_call(network: object, x: object) -> list[MethodCall]:
    """Return the call that gives a network's scores, if there is one."""
    methods = {name: read(network, name) for name in SCORES}
    for count, data in ((1, (x,)), (0, ())):
        for name, method in methods.items():
            if method is not None and accepts(method, count):
                return [(name, data)]
    return []


def in_order(loss: Any, scores: Any, targets: Any) -> Any:
    """Return the loss of scores and targets, in the order in which it takes them."""
    is_first = is_target_first(positional_names(loss, 2))
    return loss(targets, scores) if is_first else loss(scores, targets)


def ways(
    network: object,
    losses: Sequence[str],
    x: object,
    t: object,
    up: object,
    steps: Sequence[str] = (),
) -> Iterator[list[Way]]:
    """Yield, for each method that may give gradients, the ways in which it may be meant.

    The methods `losses` may have to be called before; some are to be given `up`, the gradient that
    the loss layer returns, if any. `steps` are methods that may give gradients, or a loss alone.
    """
    scores = scores_call(network, x)
    before = [(loss, (x, t)) for loss in losses] or scores
    for name in dict.fromkeys([*GRADIENTS, *BACKWARD, *steps]):
        method = read(network, name)
        data = _data_for(method, x, t)
        if data is not None:
            own = (name, data)
            yield [*_with_data(own, before, scores, is_sure=name not in steps)]
        elif name in BACKWARD and accepts(method, 0):
            yield [Way(calls, True) for calls in product(before, [(name, ())])]
        elif name in BACKWARD:
            given = [(name, argument) for argument in _may_be_given(method, t, up)]
            every = [*product(before, given), *(product(scores, given[-1:]) if losses else ())]
            yield [Way(calls, False) for calls in every]  # after a loss, or after the scores


def _with_data(
    own: MethodCall, before: Sequence[MethodCall], scores: Sequence[MethodCall], *, is_sure: bool
) -> Iterator[Way]:
    """Yield the ways to call a method that takes the data: alone, or behind another one."""
    if any(argument is RESULT for argument in own[1]):
        yield from (Way((call, own), True) for call in scores)
        return
    yield Way((own,), is_sure)
    yield from (Way((call, own), False) for call in before if call[0] != own[0])


def _data_for(method: object, x: object, t: object) -> tuple[Any, ...] | None:
    """Return what a method is given that takes the inputs and the targets, by its arguments' names.

    It may take the scores too, and the rate of an update; None of any other.
    """
    if accepts(method, 0) or not (accepts(method, 2) or len(required_names(method)) > 2):
        return None
    first, second = positional_names(method, 2)
    if not means_targets(second) or means_scores(first, second):
        return None
    more = required_names(method)[2:]
    others = [THE_RATE if n in RATES else RESULT if means_scores(n, second) else None for n in more]
    return None if any(a is None for a in others) else (x, t, *others)


def _may_be_given(method: object, t: object, up: object) -> list[tuple[Any, ...]]:
    """Return what a backward pass of one argument may be given: the targets, or a gradient.

    A rate may follow.
    """
    n = max(1, len(required_names(method)))
    name, *others = positional_names(method, n)
    if n > 2 or not accepts(method, n) or any(other not in RATES for other in others):
        return []
    targets = [t] if means_targets(name) else []
    upstream = [1.0, up] if up is not None else [1.0]
    given = targets + (upstream if means_upstream(name) else [])
    return [(one, *(THE_RATE for _ in others)) for one in given]


def number_in(result: object) -> Any:
    """Return the loss among what a method returned; None where there is none."""
    ends = (result[0], result[-1]) if isinstance(result, tuple) and result else (result,)
    for part in ends:
        array = np.asarray(part) if not isinstance(part, dict | list) else np.empty(0)
        if array.size == 1 and array.dtype.kind == "f":
            return array.reshape(())
    return None
