"""What a check is given: what is refused, what is copied first, and what is written into.

And the names of what is meant to have no gradient.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Protocol

import numpy as np

from ...pytree import leaves, named_leaves, tree_map
from ...validation import Array
from ..blocks import checksum
from ..finding import Finding, found
from .conventions import GRADIENT_LISTS, last_name
from .objects import attributes_of, held_arrays, nested
from .parameters import Parameter, find_parameters
from .session import Session, objects_of, reach
from .subject import MISSING, CheckError, described, is_array, is_float_array

# -------------------- what is refused --------------------


def _why_refused(a: Array) -> str | None:
    """Return why an array cannot be checked, and what to do about it; None where it can."""
    kind = a.dtype.kind
    if isinstance(a, np.ma.MaskedArray):
        return (
            "is a masked array, whose mask many functions of NumPy drop; use {0}.filled(0), and "
            "multiply by the mask"
        )
    if isinstance(a, np.matrix):
        return "is an np.matrix, for which * is another product; use np.asarray({0})"
    if kind == "O":
        return "has the dtype object (are its rows of different lengths?); use an array of numbers"
    if kind == "c":
        return (
            "holds complex numbers, but the gradients here are those of real ones; check it as "
            "two real arrays"
        )
    if kind == "f" and a.dtype.itemsize not in (4, 8):
        return "is {1}: gradients are compared in float32 and float64; use {0}.astype(np.float64)"
    if kind == "f" and a.size == 0:
        return (
            "is empty, with the shape {2}: there is nothing to compare; use one with at least one "
            "entry on each axis"
        )
    return None


def _why_no_parameter(a: Array) -> str | None:
    """Return why an array cannot be moved in place, as parameters are."""
    if a.dtype.kind in "iub":
        return "holds integers (array {2} {1}), which have no gradient; use {0}.astype(float)"
    if not a.flags.writeable:
        return "is read-only, but the check moves it a little and back; use {0}.copy()"
    if not a.dtype.isnative:
        return "has the byte order of another machine ({1}); use {0}.astype({1.name!r})"
    return None


def refuse_parameters(names: Sequence[str], values: Sequence[Array]) -> None:
    """Raise where parameters cannot be checked, or not be moved, or not each on its own."""
    for i, (name, value) in enumerate(zip(names, values, strict=True)):
        _refuse(name, name, value, _why_refused(value))
        _refuse(f"the parameter {name}", name, value, _why_no_parameter(value))
        for other, array in zip(names[:i], values[:i], strict=True):
            if _overlap(value, array):
                raise CheckError(
                    f"{other} and {name} share memory (one is a view of the other), so that "
                    "neither has a gradient of its own; check the layers that use them one by one"
                )


def _refuse(what: str, name: str, value: Array, why: str | None) -> None:
    if why is not None:
        raise CheckError(f"{what} {why.format(name, value.dtype, value.shape)}")


# -------------------- what is copied first --------------------


def prepared(
    inputs: Sequence[Any], names: Sequence[str], held: Iterable[Array] = ()
) -> tuple[list[Any], list[Finding]]:
    """Return inputs that can be moved each on its own, and what is to be said of it.

    An array that shares memory with one in `held` or with another input is copied, as is one that
    is read-only or in the byte order of another machine.
    """
    apart = [array for array in held if array.size]
    remarks: dict[str, Finding] = {}

    def own(name: str, value: Any) -> Any:
        if isinstance(value, np.ndarray):
            _refuse(name, name, value, _why_refused(value))
        if not is_float_array(value):
            return value
        shared = any(_overlap(value, other) for other in apart)
        if shared:
            remarks[name] = found("shares_memory", name=name)
        plain = type(value) is np.ndarray and value.flags.writeable and value.dtype.isnative
        if shared or not plain:
            value = np.array(value, dtype=value.dtype.newbyteorder("="))
        apart.append(value)
        return value

    pairs = zip(names, inputs, strict=True)
    ours = [tree_map(lambda leaf, name=name: own(name, leaf), value) for name, value in pairs]
    if ours and not isinstance(ours[0], np.ndarray) and _is_numbers(ours[0]):
        raise CheckError(
            f"{names[0]} must be an array, got a {described(inputs[0])}; use np.array({names[0]})"
        )
    return ours, list(remarks.values())


def _overlap(a: Array, b: Array) -> bool:
    return np.may_share_memory(a, b) and bool(np.shares_memory(a, b))


def _is_numbers(value: object) -> bool:
    """Tell whether a value is a float, or lists of numbers with a float among them."""
    if isinstance(value, list) and value:
        kinds = [_is_numbers(entry) or isinstance(entry, int) for entry in value]
        return all(kinds) and any(map(_is_numbers, value))
    return isinstance(value, float)


def as_array(value: object) -> object:
    """Return a Python float as an array, which can be moved in place; else the value."""
    return np.asarray(value, dtype=float) if isinstance(value, float) else value


def is_named_tuple(value: object) -> bool:
    """Tell whether a value is a tuple whose entries have names."""
    return isinstance(value, tuple) and hasattr(value, "_asdict")


def as_dict(value: Any) -> Any:
    """Return a named tuple as a dict; else the value."""
    return value._asdict() if is_named_tuple(value) else value


def leaf_name(path: str) -> str:
    """Return the short name of a leaf: its key, or its path where there is more than one step.

    Examples
    --------
    >>> leaf_name("['W1']"), leaf_name("[0]['W']")
    ('W1', '[0].W')
    """
    steps = path.replace("][", "|").strip("[]").split("|")
    text = "".join(
        (f".{step[1:-1]}" if step[:1] in "'\"" else f"[{step}]") for step in steps if step
    )
    return text.lstrip(".")


def spread(names: Sequence[str], inputs: Sequence[Any]) -> list[tuple[str, Any]]:
    """Return inputs by name, with the arrays in lists and dicts each by its own.

    Examples
    --------
    >>> [name for name, _ in spread(["x", "state"], [1, [np.ones(2), np.ones(3)]])]
    ['x', 'state[0]', 'state[1]']
    """
    found: list[tuple[str, Any]] = []
    for name, value in zip(names, inputs, strict=True):
        parts = list(named_leaves("", value)) if is_nest(value) else [("", value)]
        own = [(leaf_name(path), leaf) for path, leaf in parts]
        found += [(f"{name}{n}" if n[:1] in ("", "[") else n, leaf) for n, leaf in own]
    return found


def is_nest(value: object) -> bool:
    """Tell whether an input is a list, tuple or dict with arrays of floats in it."""
    return type(value) in (list, tuple, dict) and any(map(is_float_array, leaves(value)))


def floats_with_gradients(
    names: Sequence[str], inputs: Sequence[object], result: object
) -> list[Finding]:
    """Return what to say of inputs that are floats, and of which backward returns a gradient."""
    if not isinstance(result, tuple | list) or len(result) != len(inputs):
        return []
    return [
        found("float_input", name=name)
        for name, value, gradient in zip(names, inputs, result, strict=True)
        if isinstance(value, float) and gradient is not None
    ]


# -------------------- what is written into --------------------


class Runner(Protocol):
    """What runs somebody's two passes, and gathers what is to be said of them."""

    session: Session
    layer: Any  # None of a pair
    constant: Constant
    unchecked: list[str]
    remarks: list[Finding]
    failures: list[Finding]

    def named_values(self) -> list[tuple[str, Array]]:
        """Return the inputs and parameters."""


def watched(
    runner: Runner,
    kept: object,
    backward: Callable[[list[Array]], object],
    upstream: Sequence[Array],
) -> tuple[Any, list[Finding]]:
    """Run a backward pass, and return what it returned, and what both passes have written into.

    `kept` is the layer or the cache: where backward finds what the forward pass has just left.
    """
    session, layer = runner.session, runner.layer
    by_forward = written_into(session, runner.named_values())
    names, made = _names_in(kept, layer), _made_for(kept, session)
    blank = [a for a in made if not a.any()]
    ups = [np.array(u) for u in upstream]
    noted, noted_ups = _noted(made), _noted(ups)
    result = backward(ups)
    own = _gradient_arrays(kept) if kept is layer else []
    own += [a for a in blank if _shares(a, leaves(result))]
    effects = [found("writes_upstream")] if _changed(noted_ups) else []
    cache = [a for a in _changed(noted) if not _shares(a, own)]
    if cache:
        called = filter(None, map(names.get, map(id, cache)))
        effects.append(found("writes_cache", names=list(called)))
    by_both = written_into(session, runner.named_values())
    effects += [found("writes", who="forward", name=n) for n in by_forward]
    effects += [found("writes", who="backward", name=n) for n in by_both if n not in by_forward]
    return result, effects


def _made_for(kept: object, session: Session) -> list[Array]:
    """Return the arrays that a forward pass has made, or written into, for the backward pass."""
    arrays = [a for a in reach(kept) if isinstance(a, np.ndarray) and a.dtype != object]
    return [a for a in arrays if not is_as_before(session.start.kept(a), a)]


def _noted(arrays: Sequence[Array]) -> list[tuple[Array, int]]:
    return [(array, checksum(array)) for array in arrays]


def _changed(noted: Sequence[tuple[Array, int]]) -> list[Array]:
    return [array for array, before in noted if checksum(array) != before]


def effects_on(effects: Iterable[Finding], names: Sequence[str]) -> list[Finding]:
    """Return what is to be said of side effects; of inputs and parameters, where so named."""
    return [e for e in effects if e.fields.get("name") is None or e.fields["name"] in names]


def written_into(session: Session, arrays: Iterable[tuple[str, object]]) -> list[str]:
    """Return the names of arrays, of those at the start, whose content is another one now."""
    # What was not there before is a view or a cache of forward's own, not written into.
    known = [(name, session.start.kept(v), v) for name, v in arrays if isinstance(v, np.ndarray)]
    return [n for n, before, v in known if before is not None and not is_as_before(before, v)]


def is_as_before(before: object, after: object) -> bool:
    """Tell whether what stands there is an array, with the numbers that were there before."""
    is_kept = before is not None and isinstance(after, np.ndarray)
    return is_kept and np.array_equal(before, after)  # type: ignore[arg-type]


def _names_in(kept: object, layer: object) -> dict[int, str]:
    """Return what the arrays of a cache are called: attributes of the layer, or its entries."""
    if kept is layer:
        return {id(h.value): f"self.{h.name}" for h in reversed(held_arrays(layer))}
    entries = nested("cache", kept)
    return {id(v): name for name, _, v in entries if name != "cache" and is_float_array(v)}


def _gradient_arrays(layer: object) -> list[object]:
    """Return the gradients that a layer holds, and those of the layers that it has made inside."""
    return [p.gradient() for item in objects_of(layer) for p in find_parameters(item)]


def _shares(array: Array, others: Sequence[object]) -> bool:
    return any(isinstance(o, np.ndarray) and np.may_share_memory(array, o) for o in others)


def replaced_gradients(
    layer: object, before: Mapping[str, tuple[Parameter, object]]
) -> list[Finding]:
    """Return what to say of a list of gradients in which backward has put other arrays.

    That is right by itself. But a network keeps the arrays that it has found in the list.
    """
    lists = [n for n in GRADIENT_LISTS if isinstance(attributes_of(layer).get(n), list)]
    pairs = [(gradient, parameter.gradient()) for parameter, gradient in before.values()]
    replaced = any(is_array(a) and is_array(b) and a is not b for a, b in pairs)
    return [found("replaces_gradients", holder=lists[0])] if lists and replaced else []


# -------------------- what is meant to have no gradient --------------------

Names = str | Iterable[str]


class Constant:
    """The names of what is meant to have no gradient, in full, or the last part of a path.

    Examples
    --------
    >>> constant = Constant(["mask"])
    >>> constant.has("mask"), constant.has("layers[0].mask"), constant.has("W")
    (True, True, False)
    """

    def __init__(self, names: Names = ()) -> None:
        is_one = isinstance(names, str) or not isinstance(names, Iterable)
        self.names: tuple[Any, ...] = (names,) if is_one else tuple(names)
        if not all(isinstance(name, str) for name in self.names):
            raise CheckError(
                "constant must be the names of what is meant to have no gradient, such as "
                f'constant=["mask"], got {described(names)}'
            )

    def has(self, name: str) -> bool:
        """Tell whether a name is among them."""
        every = name.split(" = ")
        return any(one in self.names or last_name(one) in self.names for one in every)

    def covers(self, name: str, gradient: Any) -> bool:
        """Tell whether a name is among them, and there is no gradient of it, or zeros."""
        nothing = gradient is None or gradient is MISSING or not np.any(gradient)
        return nothing and self.has(name)

    def require_known(self, what: str, known: Sequence[str]) -> None:
        """Raise where one of the names is not among those that there are."""
        there = {one for name in known for one in (name, last_name(name))}
        for name in self.names:
            if name not in there:
                raise CheckError(
                    f"constant names {name!r}, but {what} has no input and no parameter of that "
                    f"name; there are: {', '.join(dict.fromkeys(known)) or 'none'}"
                )


def say_unread(runner: Runner, unread: Mapping[object, object], other: str = "input") -> None:
    """Say which entries of a dict of gradients belong to no parameter and no other.

    Those of intermediate values have a d before the name, and may be there for later ones.
    """
    keys = [str(key) for key, gradient in unread.items() if is_array(gradient)]
    keys = [key for key in keys if not runner.constant.has(key)]
    of_values = [key for key in keys if key[:1] == "d" and len(key) > 1]
    others = [key for key in keys if key not in of_values]
    if of_values:
        runner.unchecked += of_values
        runner.remarks.append(found("value_gradients", keys=of_values, other=other))
    if others:
        runner.failures.append(found("unread_gradients", keys=others, other=other))
