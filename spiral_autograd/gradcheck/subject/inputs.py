"""What a check is given: what is refused or copied first, and what is meant to have no gradient."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from ...pytree import leaves, named_leaves, tree_map
from ...validation import Array
from ..finding import Finding, found
from .conventions import BACKWARD, last_name
from .objects import ATOMS, attributes_of, method_name
from .subject import MISSING, CheckError, described, is_float_array

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
    """Return inputs, copied where they cannot be moved alone; and what is to be said of it."""
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


def unshared(data: Sequence[Any], params: Any) -> list[Any]:
    """Return data that are not moved with the parameters: an array that shares memory is copied."""
    moved = [leaf for leaf in leaves(params) if is_float_array(leaf)]
    shared = [is_float_array(one) and any(_overlap(one, other) for other in moved) for one in data]
    return [one.copy() if is_one else one for one, is_one in zip(data, shared, strict=True)]


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
    """Return what holds arrays by name as a dict: a named tuple, or an object; else the value."""
    if is_named_tuple(value):
        return value._asdict()
    if isinstance(value, dict) or issubclass(type(value), ATOMS) or callable(value):
        return value
    if method_name(value, BACKWARD) is not None:  # a layer is no nest
        return value
    held = dict(value) if isinstance(value, Mapping) else attributes_of(value)
    return held if any(map(is_float_array, held.values())) else value


def by_company(held: Any, names_of_arrays: Callable[[], Mapping[int, str]]) -> Any:
    """Return nests in which gradients that stand beside their arrays, or names, are in dicts."""
    held = as_dict(held)
    if not isinstance(held, list | tuple | dict):
        return held
    own = list(held.values() if isinstance(held, dict) else held)
    entries = [by_company(one, names_of_arrays) for one in own]
    has_nests = any(isinstance(one, list | tuple | dict) for one in entries)
    names = names_of_arrays() if has_nests else {}
    pairs = [_in_company(one, names) for one in entries]
    if isinstance(held, dict):
        known = zip(held, entries, pairs, strict=True)
        return {key: entry if pair is None else pair[1] for key, entry, pair in known}
    if pairs and None not in pairs:
        return dict(filter(None, pairs))
    return tuple(entries) if isinstance(held, tuple) else entries


def _in_company(entry: Any, names: Mapping[int, str]) -> tuple[str, Any] | None:
    """Return the gradient that stands alone with its array, its name, or both; and the name."""
    held = list(entry.values()) if isinstance(entry, dict) else entry
    if not isinstance(held, list | tuple) or not 2 <= len(held) <= 3:
        return None
    of_arrays = [names[id(one)] for one in held if id(one) in names]
    texts = [] if isinstance(entry, dict) else [one for one in held if isinstance(one, str)]
    others = [one for one in held if id(one) not in names and not isinstance(one, str)]
    named = of_arrays or texts
    return (named[0], others[0]) if len(named) == len(others) == 1 else None


def leaf_name(path: str) -> str:
    """Return the short name of a leaf: its key, or its path where there is more than one step."""
    steps = path.replace("][", "|").strip("[]").split("|")
    text = "".join(
        (f".{step[1:-1]}" if step[:1] in "'\"" else f"[{step}]") for step in steps if step
    )
    return text.lstrip(".")


def spread(names: Sequence[str], inputs: Sequence[Any]) -> list[tuple[str, Any]]:
    """Return inputs by name, with the arrays in lists and dicts each by its own."""
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


# -------------------- what is meant to have no gradient --------------------

Names = str | Iterable[str]


class Constant:
    """The names of what is meant to have no gradient, in full, or the last part of a path."""

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
