"""What somebody's objects and functions are: what they hold, and how they are called."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from types import FunctionType, MethodType, ModuleType
from typing import Any

import numpy as np

from ... import state
from ...state import is_vocabulary
from ...validation import Array
from ..guard import CheckError, theirs
from .conventions import (
    BACKWARD,
    DERIVATIVES,
    FLAGS,
    FORWARD,
    INPUT_GRADIENTS,
    OUTPUTS,
    PAIRS,
    RESETS,
    VALUES,
)
from .subject import MISSING, described, is_float_array

# -------------------- what somebody's object has --------------------

_READING = theirs()


def read(item: object, name: str) -> Any:
    """Return an attribute; None where there is none, or where reading it raises.

    A property may raise before the layer is built, or before there are gradients.
    """
    try:
        with _READING:
            return getattr(item, name, None)
    except CheckError:
        return None


def attributes_of(item: object) -> dict[str, Any]:
    """Return an object's own attributes, also those in slots."""
    held = {slot.__name__: state.standing_in(slot, item) for slot in state.slots_of(type(item))}
    present = {name: value for name, value in held.items() if value is not state.ABSENT}
    return {**present, **getattr(item, "__dict__", {})}


def asker(item: object) -> Callable[[str], bool]:
    """Return what tells whether an object has an attribute, even one that raises now."""
    names = set(read(item, "__dict__") or ()).union(*(vars(base) for base in type(item).__mro__))
    if "__getattr__" in names:  # which may make up others
        return lambda name: name in names or read(item, name) is not None
    return names.__contains__


def method_name(item: object, names: Iterable[str]) -> str | None:
    """Return the first of `names` that an object has as a method."""
    return next((name for name in names if callable(read(item, name))), None)


def reset_of(item: object) -> Callable[[], object] | None:
    """Return the method by which an object that accumulates its gradients is reset."""
    name = method_name(item, filter(asker(item), RESETS))
    return None if name is None else getattr(item, name)


def signature_of(function: Any) -> inspect.Signature | None:
    """Return how a function is called, if it is known; None of compiled code, which may not tell.

    Whoever asks more than once of one function keeps it: what follows takes it, too.
    """
    if isinstance(function, inspect.Signature):
        return function
    try:
        return inspect.signature(function)
    except (TypeError, ValueError):
        return None


def parameters_of(function: Any) -> list[inspect.Parameter]:
    """Return the parameters of a function; none where they are not known."""
    signature = signature_of(function)
    return [] if signature is None else list(signature.parameters.values())


def optional_names(function: Any) -> dict[str, Any]:
    """Return the arguments that need not be given, with what they are then."""
    return {p.name: p.default for p in parameters_of(function) if p.default is not p.empty}


def required_names(function: Any) -> list[str]:
    """Return the arguments that must be given by position; any number may follow."""
    named = [p for p in parameters_of(function) if p.kind <= p.POSITIONAL_OR_KEYWORD]
    return [p.name for p in named if p.default is p.empty]


def output_of(layer: object, result: object) -> Any:
    """Return the output of a forward pass: what it returned, else what it left in the layer."""
    return _returned_or_left(layer, result, OUTPUTS)


def input_gradient_of(layer: object, result: object) -> Any:
    """Return the input's gradient: what backward returned, else what it left in the layer."""
    return _returned_or_left(layer, result, INPUT_GRADIENTS)


def _returned_or_left(layer: object, result: object, names: Sequence[str]) -> object:
    if result is not None and result is not layer:
        return result
    attributes = attributes_of(layer)
    return next((attributes[name] for name in names if name in attributes), None)


def accepts(function: Any, count: int) -> bool:
    """Tell whether a function can be called with so many positional arguments."""
    signature = signature_of(function)
    try:
        return signature is not None and bool(signature.bind(*range(count)))
    except TypeError:
        return False


def positional_names(function: Any, count: int) -> list[str]:
    """Return the names of a function's first arguments.

    Examples
    --------
    >>> positional_names(lambda x, *more: x, 3)
    ['x', 'more[0]', 'more[1]']
    """
    parameters = parameters_of(function)
    names = [p.name for p in parameters if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
    more = next((p.name for p in parameters if p.kind == p.VAR_POSITIONAL), "input")
    if isinstance(function, np.ufunc):  # older NumPys do not say how they are called
        names = ["x"] if function.nin == 1 else [f"x{i + 1}" for i in range(function.nin)]
    first = len(names) if more != "input" else 0
    return [names[i] if i < len(names) else f"{more}[{i - first}]" for i in range(count)]


# -------------------- what it holds --------------------

Steps = tuple[Any, ...]
# What is neither a layer nor an object that holds arrays.
ATOMS = (
    *(str, bytes, int, float, complex, type(None)),
    *(np.ndarray, np.generic, type, ModuleType, FunctionType, MethodType),
)


@dataclass(frozen=True)
class Held:
    """An array that a layer, or an object in it, keeps; `path` leads there from the layer.

    Where backward has returned it, there is no holder, and the path leads there from the result.
    `beside` are the ids of the arrays with which it stands in a pair.
    """

    name: str
    value: Array
    holder: Any
    path: Steps = ()
    beside: frozenset[int] = frozenset()


def is_number(value: object) -> bool:
    """Tell whether a value is a float, Python's or NumPy's."""
    return isinstance(value, float | np.float32)


def is_gradient(value: object) -> bool:
    """Tell whether a value may be a gradient: an array of floats, or one number."""
    return is_float_array(value) or is_number(value)


def values_of(item: object) -> dict[str, object]:
    """Return an object's attributes, with the arrays and floats that are those of its class."""
    return {**of_class(item), **attributes_of(item)}


_OF_CLASS = (np.ndarray, float, np.floating)


def of_class(item: object) -> dict[str, object]:
    """Return the arrays and floats that an object has from its class."""
    found = {
        name: value
        for base in reversed(type(item).__mro__[:-1])
        for name, value in vars(base).items()
        if isinstance(value, _OF_CLASS)
    }
    own = attributes_of(item) if found else {}
    return {
        name: value
        for name, value in found.items()
        if name not in own and read(item, name) is value
        if is_float_array(value) or is_number(value)
    }


def _contents_of(item: object) -> dict[str, object]:
    """Return a layer's attributes, and what its methods give that give parameters."""
    given = {name: entries(item, name) for name in filter(asker(item), PAIRS)}
    return {**values_of(item), **given}


def entries(item: object, name: str) -> Any:
    """Return the list or dict under a name, or what the method of that name returns."""
    held = read(item, name)
    try:
        with theirs():
            if callable(held) and not isinstance(held, dict):
                held = held() if accepts(held, 0) else None
            return list(held) if isinstance(held, Iterator) else held
    except CheckError:  # as before the first forward pass, which makes them
        return None


_NESTS = (dict, list, tuple)


def nested(name: str, held: object, steps: Steps = ()) -> Iterator[tuple[str, Steps, Any]]:
    """Yield what nested lists and dicts hold: its name, the steps to it, and itself."""
    if len(steps) > 5:  # no parameters lie so deep; a list may hold itself
        return
    if not isinstance(held, _NESTS):
        yield name, steps, held
    elif is_vocabulary(held):
        return
    elif isinstance(held, dict):
        for key, value in held.items():
            yield from nested(f"{name}.{key}" if name else str(key), value, (*steps, key))
    else:
        for i, value in enumerate(held):
            yield from nested(f"{name}[{i}]", value, (*steps, i))


def held_arrays(layer: object) -> list[Held]:
    """Return the float arrays that a layer and the objects in it keep, in each of their places."""
    found: list[Held] = []
    pending: list[tuple[str, Steps, object]] = [("", (), layer)]
    met = {id(layer)}
    while pending:
        before, path, item = pending.pop(0)
        # Methods are asked of the layer alone: those of just any object in it may do anything.
        contents = _contents_of(item) if item is layer else values_of(item)
        for attribute, value in contents.items():
            for name, steps, leaf in nested(before + attribute, value):
                here = (*path, attribute, *steps)
                if is_float_array(leaf):
                    found.append(Held(name, leaf, item, here))
                elif isinstance(leaf, ATOMS) or not hasattr(leaf, "__dict__"):
                    continue
                elif id(leaf) not in met and before.count(".") < 4:
                    met.add(id(leaf))
                    pending.append((f"{name}.", here, leaf))
    return found


def held_at(item: object, path: Steps) -> Any:
    """Return what a path now leads to; MISSING where there is nothing."""
    for step in path:
        if isinstance(item, dict):
            item = item.get(step, MISSING)
        elif isinstance(item, list | tuple):
            item = item[step] if isinstance(step, int) and step < len(item) else MISSING
        else:
            held = values_of(item).get(step, MISSING)
            item = entries(item, step) if held is MISSING and step in PAIRS else held
    return item


def changes_of(held: Sequence[Held], before: Sequence[Array], layer: object) -> dict[str, Array]:
    """Return by how much a pass has made arrays smaller, by their names."""
    pairs = [(h.name, b, held_at(layer, h.path)) for h, b in zip(held, before, strict=True)]
    return {name: b - now for name, b, now in pairs if np.shape(now) == b.shape}


# -------------------- its two passes --------------------


def methods_of(layer: object) -> tuple[str, str]:
    """Return the names of a layer's forward and backward methods, or raise."""
    if isinstance(layer, type):
        raise CheckError(
            f"layer must be an object, got the class {layer.__name__} itself: give "
            f"{layer.__name__}(...)"
        )
    if isinstance(layer, FunctionType):
        use = with_flag(layer, layer.__name__) or "check_backward or check_gradient"
        raise CheckError(
            f"layer must be an object with forward and backward, got the function "
            f"{layer.__name__}; for functions use {use}"
        )
    forward = _method_of(layer, "forward", [*FORWARD, *VALUES])
    return forward, _method_of(layer, "backward", [*BACKWARD, *DERIVATIVES], forward)


def _method_of(layer: object, which: str, names: Sequence[str], forward: str = "") -> str:
    name = method_name(layer, names)
    if name is not None:
        return name
    own_name = "layer" if forward == "__call__" else f"layer.{forward}"
    use = with_flag(getattr(layer, forward), own_name) if forward else ""
    if use:
        raise CheckError(
            f"{type(layer).__name__} has no backward, but {forward} gives the derivative too: use "
            f"{use}"
        )
    own = [n for n in dir(layer) if callable(read(layer, n)) and n[0] != "_"]
    argument = "x" if which == "forward" else "dout"
    raise CheckError(
        f"layer must have the methods forward and backward, but {type(layer).__name__} has no "
        f"{which} (nor {', '.join(names[1:6])}, …); its methods are: {', '.join(own) or 'none'}. "
        f"A subclass may name it: def {which}(self, {argument}): return self.…({argument})"
    )


def with_flag(function: Any, name: str) -> str:
    """Return how to check a function that an argument switches to its derivative; else nothing."""
    flag = next((flag for flag in optional_names(function) if flag in FLAGS), "")
    return flag and f"check_derivative({name}, lambda x: {name}(x, {flag}=True), x)"


def name_of_function(function: object, otherwise: str) -> str:
    """Return what to call a function."""
    name = read(function, "__name__")
    return name if isinstance(name, str) else otherwise


def require_function(name: str, function: object) -> None:
    """Raise unless an argument can be called, and is no class."""
    if not callable(function) or isinstance(function, type):
        came = (
            f"the class {function.__name__}" if isinstance(function, type) else described(function)
        )
        raise CheckError(f"{name} must be a function, got {came}")
