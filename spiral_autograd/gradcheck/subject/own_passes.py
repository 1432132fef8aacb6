"""What a network does and holds itself: its own methods, and the gradients that it lists."""

from __future__ import annotations

import ast
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from itertools import product
from typing import Any, NamedTuple

import numpy as np

from ...pytree import Sharing, leaves
from ..source import Place, text_of
from .conventions import (
    BACKWARD,
    CONTAINERS,
    GRADIENTS,
    LOSSES,
    RATES,
    SCORES,
    TRAINING,
    gradient_key,
    is_statistic,
    is_target_first,
    means_scores,
    means_targets,
    means_upstream,
)
from .inputs import as_dict
from .objects import (
    accepts,
    attributes_of,
    entries,
    method_name,
    nested,
    output_of,
    parameters_of,
    positional_names,
    read,
    required_names,
)
from .parameters import Parameter, find_parameters
from .returned import returned_names
from .subject import MISSING, is_array

# -------------------- its methods --------------------


MethodCall = tuple[str, tuple[Any, ...]]  # a method's name, and its arguments


class Way(NamedTuple):
    """A way to have a network's loss or gradients: methods of its own, one after another."""

    calls: tuple[MethodCall, ...]
    is_sure: bool  # whether the last can only be meant to be called so
    then: Callable[[Any, Any], Any] | None = None  # the loss of what they return and the targets
    targets: Any = None
    rate: float = 1.0  # where the last takes one

    @property
    def takes_rate(self) -> bool:
        """Whether the last method is given the rate of an update."""
        return any(a is RATE for a in self.calls[-1][1])

    @property
    def method(self) -> str:
        """The method that gives the gradients."""
        return self.calls[-1][0]

    def run(self, network: object, memo: Mapping[int, Any] | None = None) -> Any:
        """Call the methods, with others in place of some arrays; return what the last returns."""
        memo, result, n = memo or {}, None, len(self.calls)
        for i, (name, arguments) in enumerate(self.calls):
            other = {id(RESULT): result, id(RATE): self.rate, **memo}
            data = [other.get(id(a), a) for a in arguments]
            data = [own(a) for a in data] if i == n - 1 > 0 else data
            result = run_method(network, name, *data)
            if i < n - 1 or self.then is not None:
                result = output_of(network, result)
        return result if self.then is None else self.then(result, self.targets)


RESULT: Any = object()  # stands for what the method before has returned
RATE: Any = object()  # stands for the rate of an update


def own(value: object) -> Any:
    """Return an array that the user's code cannot write into."""
    return np.array(value) if isinstance(value, np.ndarray) else value


def run_method(network: object, name: str, *data: object) -> object:
    """Call a network's own method, in training where it can be told so."""
    method = getattr(network, name)
    known = [p.name for p in parameters_of(method)]
    taken = positional_names(method, len(data))
    flags = [flag for flag in TRAINING if flag in known and flag not in taken]
    return method(*data, **dict.fromkeys(flags, True))


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
        if data is not None and any(a is RESULT for a in data):
            yield [Way((call, (name, data)), True) for call in scores]
        elif data is not None:
            alone: MethodCall = (name, data)
            is_sure = name not in steps
            yield [
                Way((alone,), is_sure),
                *(Way(calls, False) for calls in product(before, [alone]) if calls[0][0] != name),
            ]
        elif name in BACKWARD and accepts(method, 0):
            yield [Way(calls, True) for calls in product(before, [(name, ())])]
        elif name in BACKWARD and (n := max(1, len(required_names(method)))) < 3:
            given = [(name, argument) for argument in _may_be_given(method, n, t, up)]
            yield [Way(calls, False) for calls in _one_by_one(scores, before, given)]


def _one_by_one(
    scores: Sequence[MethodCall], before: Sequence[MethodCall], given: Sequence[MethodCall]
) -> Iterator[tuple[MethodCall, ...]]:
    """Yield what to call before a backward pass of one argument, with that: a loss, or scores."""
    yield from product(before, given)
    if before != scores:
        yield from product(scores, given[-1:])


def _data_for(method: object, x: object, t: object) -> tuple[Any, ...] | None:
    """Return what a method is given that takes the inputs and the targets, by its arguments' names.

    It may take the scores too, and the rate of an update, which is 1; None of any other.
    """
    if accepts(method, 0) or not (accepts(method, 2) or len(required_names(method)) > 2):
        return None
    first, second = positional_names(method, 2)
    if not means_targets(second) or means_scores(first, second):
        return None
    more = required_names(method)[2:]
    others = [RATE if n in RATES else RESULT if means_scores(n, second) else None for n in more]
    return None if any(a is None for a in others) else (x, t, *others)


def _may_be_given(method: object, n: int, t: object, up: object) -> list[tuple[Any, ...]]:
    """Return what a backward pass of one argument may be given: the targets, or a gradient.

    A rate may follow.
    """
    name, *others = positional_names(method, n)
    if not accepts(method, n) or any(other not in RATES for other in others):
        return []
    targets = [t] if means_targets(name) else []
    upstream = [1.0, up] if up is not None else [1.0]
    given = targets + (upstream if means_upstream(name) else [])
    return [(one, *(RATE for _ in others)) for one in given]


def number_in(result: object) -> Any:
    """Return the loss among what a method returned; None where there is none."""
    ends = (result[0], result[-1]) if isinstance(result, tuple) and result else (result,)
    for part in ends:
        array = np.asarray(part) if not isinstance(part, dict | list) else np.empty(0)
        if array.size == 1 and array.dtype.kind == "f":
            return array.reshape(())
    return None


# -------------------- the gradients that it lists, and those of its layers --------------------


def noted(name: str, value: object, gradient: object, holder: object = None) -> Parameter:
    """Return a parameter with a gradient that stays."""
    return Parameter(name, value, lambda: gradient, holder)


def gradients_of(name: str, layer: object) -> list[Parameter]:
    """Return the parameters of a layer with their gradients as they now stand."""
    found = find_parameters(layer)
    return [noted(f"{name}.{p.name}", p.value, p.gradient(), layer) for p in found]


def listed_by(network: Any, result: Any, method: Any = None) -> tuple[list[Parameter], bool]:
    """Return the gradients that a method of a network returned, or else those that it holds itself.

    And whether they were returned.
    """
    result, names = _without_loss(result, method)
    if isinstance(result, dict):
        returned = _by_key(network, result)
    else:
        returned = _in_order(network, result) or _by_place(network, result, names)
    return (returned, True) if returned else (_held_by(network), False)


def _without_loss(result: Any, method: Any) -> tuple[Any, list[str]]:
    """Return gradients without a loss before or behind them, and what their method calls them."""
    result = as_dict(result)
    if not isinstance(result, tuple | list):
        return result, []
    entries, names = list(result), returned_names(method, len(result))
    for i in (0, -1) if isinstance(result, tuple) and len(entries) > 1 else ():
        is_nest = isinstance(entries[i], dict | list | tuple)
        if not is_nest and (np.size(entries[i]) == 1 if i == 0 else np.ndim(entries[i]) == 0):
            entries, names = (entries[1:], names[1:]) if i == 0 else (entries[:-1], names[:-1])
            break
    is_one = isinstance(result, tuple) and len(entries) == 1 and len(result) > 1
    return (as_dict(entries[0]), names) if is_one else (entries, names)


def _held_by(network: object) -> list[Parameter]:
    held = [noted(p.name, p.value, p.gradient()) for p in find_parameters(network)]
    held = [p for p in held if p.gradient() is not MISSING]
    return held if any(map(_fits, held)) else []


def _listings(network: object) -> list[Any]:
    """Return what may be the lists or dicts of a network's parameters."""
    names = dict.fromkeys(values for values, _ in CONTAINERS)
    return [as_dict(entries(network, name)) for name in names]


def _by_key(network: object, result: dict[object, object]) -> list[Parameter]:
    """Return a network's parameters with their gradients in a dict; of attributes, those in it."""
    attributes = attributes_of(network)
    for held in (*_listings(network), attributes):
        if keys := _keys(held, result):
            listed = [noted(str(name), held[name], result.get(key)) for name, key in keys.items()]
            left_out = [p for p in listed if held is attributes or is_statistic(p.name)]
            return [p for p in listed if p.gradient() is not None or p not in left_out]
    return []


def _keys(held: object, result: dict[object, object]) -> dict[Any, Any]:
    """Return under which keys the gradients of a dict's arrays are in another, if any is there."""
    names = [n for n, v in held.items() if is_array(v)] if isinstance(held, dict) else []
    keys = {n: n if n in result else gradient_key(result, str(n)) for n in names}
    return keys if any(key is not None for key in keys.values()) else {}


def _in_order(network: Any, result: Any) -> list[Parameter]:
    """Return the parameters that a network has in a list with their gradients in another."""
    for held in _listings(network) if isinstance(result, list | tuple) else ():
        keys = list(held) if isinstance(held, dict) else ()
        values = held.values() if isinstance(held, dict) else held
        if isinstance(held, dict | list | tuple) and len(held) == len(result):
            pairs = enumerate(zip(values, result, strict=True))
            names = [str(key) for key in keys] or [f"params[{i}]" for i in range(len(held))]
            listed = [noted(names[i], value, gradient) for i, (value, gradient) in pairs]
            if any(map(_fits, listed)):
                return [p for p in listed if is_array(p.value)]
    return []


def _by_place(network: object, result: Any, names: Sequence[str]) -> list[Parameter]:
    """Return the arrays that a network keeps, or lists of them, with gradients of that structure.

    By what the method calls these, else in their order.
    """
    if not isinstance(result, tuple | list):  # one array
        result = [result]
    held = {n: v for n, v in attributes_of(network).items() if any(map(is_array, leaves(v)))}
    found: dict[int, str] = {}
    for i, name in enumerate(names):
        named = [n for n in held if name and gradient_key([name], n, held, itself=False)]
        found |= {i: named[0]} if named and named[0] not in found.values() else {}
    for i, gradient in enumerate(result):
        free = [n for n, v in held.items() if _shapes(v) == _shapes(gradient)]
        free = [n for n in free if n not in found.values()]
        found |= {i: free[0]} if i not in found and free else {}
    listed = []
    for i, n in found.items() if len(found) == len(result) else ():
        there = {path: leaf for path, _, leaf in nested(n, result[i])}
        listed += [noted(path, leaf, there.get(path)) for path, _, leaf in nested(n, held[n])]
    return [p for p in listed if is_array(p.value)] if any(map(_fits, listed)) else []


def _shapes(tree: Any) -> list[Any]:
    return [(path, np.shape(leaf)) for path, _, leaf in nested("", tree) if is_array(leaf)]


def _fits(p: Parameter) -> bool:
    """Tell whether a gradient is an array of the shape of its parameter."""
    return is_array(p.gradient()) and is_array(p.value) and p.gradient().shape == p.value.shape


def groups(listed: Sequence[Parameter]) -> list[list[tuple[Parameter, bool]]]:
    """Return parameters by their array; and of each whether it has the transpose of the first."""
    found: dict[int, list[tuple[Parameter, bool]]] = {}
    places = Sharing.of([p.value for p in listed]).places
    for p, (first, turned) in zip(listed, places, strict=True):
        found.setdefault(first, []).append((p, turned))
    return list(found.values())


def totals(listed: Sequence[Parameter]) -> list[Parameter]:
    """Return each parameter once, with its gradients added; one array of gradients counts once."""
    firsts = [(members[0][0], _total(members)) for members in groups(listed)]
    return [noted(p.name, p.value, total, p.holder) for p, total in firsts]


def _total(members: Sequence[tuple[Parameter, bool]]) -> object:
    every = [(p.gradient(), turned) for p, turned in members]
    arrays = [g.T if turned else g for g, turned in every if is_array(g)]
    parts = Sharing.of(arrays).unique(arrays)
    fits = len({part.shape for part in parts}) == 1
    return np.array(sum(parts[1:], start=parts[0])) if fits else own(every[0][0])


def gradient_in(listed: Sequence[Parameter], value: Any) -> object:
    """Return the gradient that is listed for an array or its transpose; None where none is."""
    first, turned = Sharing.of([*(p.value for p in listed), value]).places[-1]
    gradient = listed[first].gradient() if first < len(listed) else None
    return gradient.T if turned and gradient is not None else gradient


def replacing_lines(backward: Callable[..., object]) -> list[Place]:
    """Return the lines of a backward pass that put a new array in the list of gradients."""
    if (text := text_of(backward)) is None:
        return []
    return [
        text.place(step)
        for step in text.steps
        for target in (step.targets if isinstance(step.node, ast.Assign) else ())
        if getattr(_replaced_in(target), "attr", "") in ("grads", "gradients")
    ]


def _replaced_in(target: ast.expr) -> ast.expr | None:
    """Return what an assignment puts another object in: None where it writes into an array."""
    if not isinstance(target, ast.Subscript):
        return target
    whole = isinstance(target.slice, ast.Slice) or getattr(target.slice, "value", "") is Ellipsis
    return None if whole else target.value
