"""Run somebody's layer, function pair or gradient function, in whichever convention it is written.

Each becomes a `Subject`: arrays by name, a forward pass, and a handwritten gradient for each array.
"""

from __future__ import annotations

import copy
import inspect
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from types import FunctionType
from typing import Any

import numpy as np

from ..pytree import Pytree, leaves, named_leaves, tree_map, with_leaves
from ..validation import Array
from .state import Session


class CheckError(ValueError):
    """A layer, a pair or a gradient function cannot be checked as it is; the message says why."""


@dataclass
class Subject:
    """A forward pass and a handwritten backward pass, ready to be compared.

    Attributes
    ----------
    names : list of str
        A name for each array whose gradient is compared.
    values : list of arrays
        The caller's own arrays.
    session : Session
        Runs the caller's code from the same state each time.
    forward : callable
        ``forward()`` runs the caller's own objects and returns a list of output arrays.
    substitute : callable
        ``substitute(replacements)`` runs a copy in which other values (boxes, complex arrays)
        stand in place of `values`, and returns the outputs.
    backward : callable
        ``backward(upstream)`` runs forward and backward, and returns the gradient for each value:
        an array, or None. It does not restore the state before.
    sources : list of callables
        The functions whose lines the report may name: forward ones, then backward ones.
    """

    names: list[str]
    values: list[Array]
    session: Session
    forward: Callable[[], list[Array]]
    substitute: Callable[[Sequence[Any]], list[Any]]
    backward: Callable[[list[Array]], list[Any]]
    forward_code: list[Any] = field(default_factory=list)
    backward_code: list[Any] = field(default_factory=list)
    upstream: list[Array] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    is_loss: bool = False
    owner: Any = None
    disturb: Callable[[list[Array]], Any] | None = None
    idealised: Callable[[], Iterator[tuple[float, Subject]]] | None = None


def is_float_array(value: Any) -> bool:
    """Tell whether a value is an array that can have a gradient."""
    return isinstance(value, np.ndarray) and value.dtype.kind == "f" and value.size > 0


def called(what: str, function: Callable[..., Any], *args: Any) -> Any:
    """Call the user's code; what it raises is shown with what was called."""
    try:
        return function(*args)
    except CheckError:
        raise
    except Exception as error:
        shapes = ", ".join(_described(arg) for arg in args)
        raise CheckError(
            f"{what} raised {type(error).__name__}: {error}; it was called with ({shapes}). "
            "Its own traceback stands above"
        ) from error


def _described(value: Any) -> str:
    if isinstance(value, np.ndarray):
        return f"array {value.shape} {value.dtype}"
    return type(value).__name__


def outputs_of(what: str, value: Any) -> list[Array]:
    """Return the output arrays of a forward pass, which must be finite."""
    found = [np.asarray(leaf) for leaf in leaves(value)]
    for array in found:
        if array.dtype.kind not in "fiub":
            raise CheckError(f"{what} must return real arrays, got dtype {array.dtype}")
        if not np.isfinite(array).all():
            raise CheckError(
                f"{what} returned {int((~np.isfinite(array)).sum())} values that are NaN or "
                f"infinite, of {array.size}; the gradient is not defined there"
            )
    if not found:
        raise CheckError(f"{what} returned nothing")
    return found


def draw_upstream(outputs: Sequence[Any], rng: np.random.Generator) -> list[Array]:
    """Return a random upstream gradient for each output: never ones, which hide mistakes."""
    return [
        rng.standard_normal(np.shape(out)).astype(np.asarray(out).dtype)
        if np.asarray(out).dtype.kind == "f"
        else np.zeros(np.shape(out))
        for out in outputs
    ]


def given_upstream(upstream: Any, outputs: Sequence[Array]) -> list[Array]:
    """Return the caller's upstream gradient, which must have the shapes of the outputs."""
    given = [np.asarray(leaf, dtype=float) for leaf in leaves(upstream)]
    shapes, wanted = [u.shape for u in given], [np.shape(out) for out in outputs]
    if shapes != wanted:
        raise CheckError(
            f"upstream must have the shape of what forward returns: {wanted}, got {shapes}"
        )
    return [u.astype(np.asarray(out).dtype) for u, out in zip(given, outputs, strict=True)]


def positional_names(function: Any, count: int) -> list[str]:
    """Return the names of a function's first arguments."""
    try:
        parameters = list(inspect.signature(function).parameters.values())
    except (TypeError, ValueError):
        parameters = []
    names = [p.name for p in parameters if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
    return [names[i] if i < len(names) else f"input[{i}]" for i in range(count)]


# -------------------- the gradients that a backward pass returns --------------------


def gradient_key(gradients: dict[Any, Any], name: str) -> Any:
    """Return the key under which a dict of gradients holds that of `name`; None without one."""
    for key in (name, f"d{name}", f"d_{name}", f"grad_{name}", f"{name}_grad", f"g{name}"):
        if key in gradients:
            return key
    return None


def by_position(result: Any, names: Sequence[str], is_float: Sequence[bool]) -> dict[str, Any]:
    """Return the gradients for the arguments `names` from what a backward pass returned.

    An entry for each argument, or one for each that is differentiable, or for the first of them;
    or a dict by name.
    """
    if isinstance(result, dict):
        keys = {name: gradient_key(result, name) for name in names}
        return {name: result[key] for name, key in keys.items() if key is not None}
    if not isinstance(result, tuple | list):
        result = (result,)
    floats = [name for name, flag in zip(names, is_float, strict=True) if flag]
    if len(result) == len(names) > len(floats):
        pairs = dict(zip(names, result, strict=True))
        return {name: pairs[name] for name in floats}
    return dict(zip(floats, result, strict=False))


# -------------------- objects --------------------

_RESETS = (
    "zero_grad zero_grads zero_gradients clear_grad clear_grads cleargrads clear_gradients "
    "flush_gradients flush_grads reset_grad reset_grads reset_gradients"
).split()


def reset_of(layer: Any) -> Callable[[], Any] | None:
    """Return the method by which a layer that accumulates its gradients is reset."""
    for name in _RESETS:
        method = getattr(layer, name, None)
        if callable(method):
            return method
    return None


@dataclass(frozen=True)
class Parameter:
    """A parameter of a layer: its name, its array, and how to read its gradient."""

    name: str
    value: Array
    gradient: Callable[[], Any]


def _entries(holder: Any) -> Any:
    return holder() if callable(holder) else holder


def find_parameters(layer: Any) -> list[Parameter]:
    """Return the parameters that a layer keeps, in the first convention that it follows."""
    for values, grads in (
        ("params", "grads"),
        ("parameters", "gradients"),
        ("params", "gradients"),
        ("parameters", "grads"),
        ("weights", "gradients"),
    ):
        if not hasattr(layer, values) or not hasattr(layer, grads):
            continue
        held = called(
            f"{type(layer).__name__}.{values}", lambda v=values: _entries(getattr(layer, v))
        )
        if isinstance(held, dict) and held:
            return _from_dicts(layer, held, grads)
        if isinstance(held, list | tuple) and held:
            return _from_lists(layer, held, grads)
    return _from_attributes(layer)


def _from_dicts(layer: Any, held: dict[Any, Any], grads: str) -> list[Parameter]:
    def reader(name: str) -> Callable[[], Any]:
        def gradient() -> Any:
            found = _entries(getattr(layer, grads))
            key = gradient_key(found, name) if isinstance(found, dict) else None
            return MISSING if key is None else found[key]

        return gradient

    return [Parameter(str(k), v, reader(k)) for k, v in held.items() if is_float_array(v)]


def _from_lists(layer: Any, held: Sequence[Any], grads: str) -> list[Parameter]:
    attributes = {
        id(value): name
        for name, value in reversed(list(getattr(layer, "__dict__", {}).items()))
        if isinstance(value, np.ndarray)
    }

    def reader(i: int) -> Callable[[], Any]:
        def gradient() -> Any:
            found = _entries(getattr(layer, grads))
            return found[i] if found is not None and i < len(found) else None

        return gradient

    return [
        Parameter(attributes.get(id(value), f"params[{i}]"), value, reader(i))
        for i, value in enumerate(held)
        if is_float_array(value)
    ]


class _Missing:
    """Marks an array without a gradient of its own: a running average, no parameter."""


MISSING = _Missing()


def _from_attributes(layer: Any) -> list[Parameter]:
    attributes = getattr(layer, "__dict__", {})
    names = [name for name, value in attributes.items() if is_float_array(value)]

    def reader(name: str) -> Callable[[], Any]:
        def gradient() -> Any:
            key = gradient_key({k: 1 for k in layer.__dict__ if k != name}, name)
            return MISSING if key is None else getattr(layer, key)

        return gradient

    return [Parameter(name, attributes[name], reader(name)) for name in names]


def layer_subject(layer: Any, inputs: Sequence[Any], session: Session, upstream: Any) -> Subject:
    """Return an object with ``forward(*inputs)`` and ``backward(upstream)`` as a subject."""
    kind = type(layer).__name__
    for method in ("forward", "backward"):
        if not callable(getattr(layer, method, None)):
            raise CheckError(
                f"layer must have the methods forward and backward, but {kind} has no {method}"
            )
    names = positional_names(layer.forward, len(inputs))
    floats = [is_float_array(value) for value in inputs]

    def run() -> Any:
        return called(f"{kind}.forward", layer.forward, *inputs)

    def run_backward(ups: Sequence[Array]) -> Any:
        return called(f"{kind}.backward", layer.backward, *ups)

    found, extra = _parameters_after_a_run(layer, inputs, session, run, run_backward)
    with session.fresh():
        outputs = outputs_of(f"{kind}.forward", run())
    is_loss = len(outputs) == 1 and outputs[0].ndim == 0 and upstream is None
    default_upstream = is_loss and _takes_nothing(layer.backward)

    values = [value for value, flag in zip(inputs, floats, strict=True) if flag]
    input_names = [name for name, flag in zip(names, floats, strict=True) if flag]

    def forward() -> list[Array]:
        return outputs_of(f"{kind}.forward", run())

    def substitute(replacements: Sequence[Any]) -> list[Any]:
        memo = {id(v): r for v, r in zip(subject.values, replacements, strict=True)}
        other = copy.deepcopy(layer, memo)
        arguments = [memo.get(id(value), value) for value in inputs]
        return leaves(other.forward(*(copy.deepcopy(a, dict(memo)) for a in arguments)))

    def backward(ups: list[Array]) -> list[Any]:
        reset = reset_of(layer)
        if reset is not None:
            reset()
        run()
        result = run_backward([] if default_upstream and _is_one(ups) else ups)
        by_name = by_position(result, names, floats)
        rest = list(result[len(values) :]) if isinstance(result, tuple | list) else []
        grads = [by_name.get(name, MISSING) for name in input_names]
        return grads + [
            rest[i] if parameter.gradient() is MISSING and i < len(rest) else parameter.gradient()
            for i, parameter in enumerate(found)
        ]

    def disturb(ups: list[Array]) -> None:
        others = [
            value + (0.1 * (1 + np.abs(value))).astype(value.dtype) if flag else value
            for value, flag in zip(inputs, floats, strict=True)
        ]
        called(f"{kind}.forward", layer.forward, *others)
        run_backward([] if default_upstream and _is_one(ups) else ups)

    def idealised() -> Iterator[tuple[float, Subject]]:
        for constant, function in without_small_constants(type(layer).forward):

            def ideal(values: Sequence[Any], function: Any = function) -> list[Any]:
                memo = {id(v): r for v, r in zip(subject.values, values, strict=True)}
                other = copy.deepcopy(layer, memo)
                return leaves(function(other, *(memo.get(id(value), value) for value in inputs)))

            def plain(function: Any = function) -> list[Array]:
                return outputs_of(f"{kind}.forward", function(layer, *inputs))

            yield constant, replace(subject, forward=plain, substitute=ideal)

    subject = Subject(
        names=input_names + [p.name for p in found],
        values=values + [p.value for p in found],
        session=session,
        forward=forward,
        substitute=substitute,
        backward=backward,
        forward_code=[layer.forward],
        backward_code=[layer.backward],
        is_loss=is_loss,
        owner=layer,
        disturb=disturb if values else None,
        idealised=idealised
        if isinstance(type(layer).__dict__.get("forward"), FunctionType)
        else None,
        notes=extra,
    )
    if default_upstream:
        subject.upstream = [np.ones((), dtype=outputs[0].dtype)]
    return subject


def without_small_constants(function: Any, depth: int = 2) -> Iterator[tuple[float, Any]]:
    """Yield each small constant of a function or its helpers, and the function with zero for it."""
    code, names = function.__code__, function.__globals__

    def rebuilt(code: Any, names: dict[str, Any]) -> Any:
        defaults, closure = function.__defaults__, function.__closure__
        return FunctionType(code, names, function.__name__, defaults, closure)

    for constant in code.co_consts:
        if isinstance(constant, float) and 0 < abs(constant) <= 1e-2:
            others = tuple(0.0 if c is constant else c for c in code.co_consts)
            yield constant, rebuilt(code.replace(co_consts=others), names)
    for name in code.co_names:
        helper = names.get(name)
        if depth and isinstance(helper, FunctionType) and helper is not function:
            for constant, other in without_small_constants(helper, depth - 1):
                yield constant, rebuilt(code, {**names, name: other})


def _is_one(upstream: Sequence[Array]) -> bool:
    return len(upstream) == 1 and upstream[0].ndim == 0 and upstream[0] == 1


def _takes_nothing(method: Callable[..., Any]) -> bool:
    try:
        inspect.signature(method).bind()
    except (TypeError, ValueError):
        return False
    return True


def _parameters_after_a_run(
    layer: Any,
    inputs: Sequence[Any],
    session: Session,
    run: Callable[[], Any],
    run_backward: Callable[[Sequence[Array]], Any],
) -> tuple[list[Parameter], list[str]]:
    """Return the parameters with a gradient, once a forward and a backward pass have shown them.

    Where they are only made in the first forward pass, the state after it is what we begin from.
    """
    before = find_parameters(layer)
    known_names = {p.name for p in before}

    def backward() -> Any:
        outputs = [np.asarray(out) for out in leaves(run())]
        scalar = len(outputs) == 1 and outputs[0].ndim == 0
        ups = [np.ones(out.shape, dtype=out.dtype) for out in outputs]
        return run_backward([] if scalar and _takes_nothing(layer.backward) else ups)

    with session.fresh():
        backward()
        new = [p for p in find_parameters(layer) if p.name not in known_names]
        made = [p.name for p in new if p.gradient() is not MISSING]
        made = [name for name in made if not _is_cache(layer, name, inputs, run)]
    if made:
        with session.fresh():
            run()
            session.rebase()
    with session.fresh():
        result = backward()
        now = find_parameters(layer)
        kept = {id(p.value) for p in now}
        known = [p for p in now if p.name in made] if made else []
        known = [p for p in before if id(p.value) in kept] + known
        spare = len(result) - sum(map(is_float_array, inputs)) if isinstance(result, tuple) else 0
        found = [p for p in known if p.gradient() is not MISSING]
        if not found and spare > 0:
            found = known[:spare]
        inputs_at = {id(value) for value in inputs}
        return [p for p in found if id(p.value) not in inputs_at], []


def _is_cache(layer: Any, name: str, inputs: Sequence[Any], run: Callable[[], Any]) -> bool:
    """Tell whether a forward pass makes an attribute anew, as it does with what it caches."""
    if not name.isidentifier() or not hasattr(layer, name):
        return False
    first = getattr(layer, name)
    if any(first is value for value in inputs):
        return True
    run()
    return getattr(layer, name) is not first


# -------------------- function pairs --------------------


def pair_subject(
    forward: Callable[..., Any],
    backward: Callable[..., Any],
    inputs: Sequence[Any],
    session: Session,
) -> Subject:
    """Return ``out, cache = forward(*inputs)`` and ``backward(dout, cache)`` as a subject."""
    for name, function in (("forward", forward), ("backward", backward)):
        if not callable(function):
            raise CheckError(f"{name} must be a function, got {type(function).__name__}")
    label = getattr(forward, "__name__", "forward")
    names = positional_names(forward, len(inputs))
    floats = [is_float_array(value) for value in inputs]

    def run() -> tuple[list[Any], Any]:
        result = called(label, forward, *inputs)
        if not isinstance(result, tuple) or len(result) < 2:
            raise CheckError(
                f"{label} must return (out, cache), got {type(result).__name__}; for a scalar loss "
                "with a gradient function use check_gradient"
            )
        return list(result[:-1]), result[-1]

    with session.fresh():
        structure, _ = run()

    nested = _leaf_arguments(inputs, floats, names)
    with session.fresh():
        outputs, cache = run()
        ups = with_leaves(outputs, [np.ones(np.shape(leaf)) for leaf in leaves(outputs)])
        result = called(getattr(backward, "__name__", "backward"), backward, *ups, cache)
    if isinstance(result, dict):
        nested = [(n, v) for n, v in nested if gradient_key(result, n) is not None]
    else:
        nested = [(n, v) for n, v, f in zip(names, inputs, floats, strict=True) if f]

    def run_backward(ups: list[Array]) -> list[Any]:
        _, cache = run()
        tree = with_leaves(structure, list(ups))
        result = called(getattr(backward, "__name__", "backward"), backward, *tree, cache)
        if isinstance(result, dict):
            by_name = by_position(result, [name for name, _ in nested], [True] * len(nested))
        else:
            by_name = by_position(result, names, floats)
        return [by_name.get(name, MISSING) for name, _ in nested]

    def substitute(replacements: Sequence[Any]) -> list[Any]:
        memo = {id(v): r for (_, v), r in zip(nested, replacements, strict=True)}
        result = forward(*(copy.deepcopy(value, dict(memo)) for value in inputs))
        return leaves(list(result[:-1]))

    return Subject(
        names=[name for name, _ in nested],
        values=[value for _, value in nested],
        session=session,
        forward=lambda: outputs_of(label, run()[0]),
        substitute=substitute,
        backward=run_backward,
        forward_code=[forward],
        backward_code=[backward],
    )


def _leaf_arguments(
    inputs: Sequence[Any], floats: Sequence[bool], names: Sequence[str]
) -> list[tuple[str, Array]]:
    """Return the float arrays among the arguments, those in dicts and lists by their own names."""
    found = []
    for value, flag, name in zip(inputs, floats, names, strict=True):
        if flag:
            found.append((name, value))
        elif isinstance(value, dict | list | tuple):
            found += [
                (leaf_name(path), v) for path, v in named_leaves("", value) if is_float_array(v)
            ]
    return found


def leaf_name(path: str) -> str:
    """Return the short name of a leaf: its key, or its path where there is more than one step."""
    steps = path.replace("][", "|").strip("[]").split("|")
    text = "".join(
        (f".{step[1:-1]}" if step[:1] in "'\"" else f"[{step}]") for step in steps if step
    )
    return text.lstrip(".")


# -------------------- gradient functions, and marks --------------------

_taps = threading.local()


def tap(name: str, value: Any) -> Any:
    """Mark an intermediate value of a forward pass, whose gradient is to be checked.

    In a check the mark becomes a row of the report; elsewhere this returns `value` as it is.

    Parameters
    ----------
    name : str
        The name under which the dict of gradients has the handwritten one, with or without a d.
    value : array

    Returns
    -------
    array
        The value.

    Examples
    --------
    >>> tap("h", np.array([1.0, 2.0]))
    array([1., 2.])
    """
    collect = getattr(_taps, "collect", None)
    if collect is not None:
        collect.setdefault(name, np.zeros(np.shape(value), dtype=np.asarray(value).dtype))
    added = getattr(_taps, "added", None)
    return value + added[name] if added and name in added else value


@contextmanager
def _tapping(**state: Any) -> Iterator[None]:
    before = dict(_taps.__dict__)
    _taps.__dict__.update(state)
    try:
        yield
    finally:
        _taps.__dict__.clear()
        _taps.__dict__.update(before)


def gradient_subject(
    loss: Callable[..., Any], gradient: Any, params: Pytree, data: Sequence[Any], session: Session
) -> Subject:
    """Return a scalar loss of a pytree and its handwritten gradient as a subject."""
    if not callable(loss):
        raise CheckError(f"loss must be a function, got {type(loss).__name__}")
    label = getattr(loss, "__name__", "loss")
    held = [(path, leaf) for path, leaf in named_leaves("", params) if is_float_array(leaf)]
    if not held:
        raise CheckError("params must hold floating-point arrays; integer arrays have no gradient")
    marks: dict[str, Array] = {}
    with session.fresh(), _tapping(collect=marks):
        outputs = outputs_of(label, called(label, loss, params, *data))
    if len(outputs) != 1 or outputs[0].size != 1:
        raise CheckError(f"{label} must return a scalar, got the shape {outputs[0].shape}")

    def handwritten() -> Any:
        if not callable(gradient):
            return gradient
        result = called(getattr(gradient, "__name__", "gradient"), gradient, params, *data)
        has_value = isinstance(result, tuple) and len(result) == 2 and np.ndim(result[0]) == 0
        return result[1] if has_value and not is_float_array(params) else _last(result, has_value)

    session.add(marks)
    with session.fresh():
        grads = handwritten()
    pairs = _paired(held, marks, grads, params)

    def forward() -> list[Array]:
        with _tapping(added=marks):
            return outputs_of(label, called(label, loss, params, *data))

    def substitute(replacements: Sequence[Any]) -> list[Any]:
        memo = {id(v): r for (_, v, _), r in zip(pairs, replacements, strict=True)}
        others = tree_map(lambda leaf: memo.get(id(leaf), leaf), params)
        added = {name: memo.get(id(zero), zero) for name, zero in marks.items()}
        with _tapping(added=added):
            return [loss(others, *data)]

    def backward(ups: list[Array]) -> list[Any]:
        found = handwritten()
        return [read(found) for _, _, read in pairs]

    return Subject(
        names=[name for name, _, _ in pairs],
        values=[value for _, value, _ in pairs],
        session=session,
        forward=forward,
        substitute=substitute,
        backward=backward,
        forward_code=[loss],
        backward_code=[gradient] if callable(gradient) else [],
        upstream=[np.ones(outputs[0].shape, dtype=outputs[0].dtype)],
        is_loss=True,
    )


def _last(result: Any, has_value: bool) -> Any:
    return result[1] if has_value else result


def _paired(
    held: list[tuple[str, Array]], marks: dict[str, Array], grads: Any, params: Pytree
) -> list[tuple[str, Array, Callable[[Any], Any]]]:
    """Return each value with its name and how to read its gradient from what was returned."""
    if isinstance(grads, dict) and not (isinstance(params, dict) and _nested(params)):
        named = [(leaf_name(path) or "params", value) for path, value in held]
        named += list(marks.items())
        return [(name, value, _by_key(name)) for name, value in named]

    def reader(path: str) -> Callable[[Any], Any]:
        def read(found: Any) -> Any:
            return dict(named_leaves("", found)).get(path)

        return read

    return [(leaf_name(path) or "params", value, reader(path)) for path, value in held]


def _by_key(name: str) -> Callable[[Any], Any]:
    return lambda found: found.get(gradient_key(found, name))


def _nested(params: dict[Any, Any]) -> bool:
    return any(isinstance(value, dict | list | tuple) for value in params.values())
