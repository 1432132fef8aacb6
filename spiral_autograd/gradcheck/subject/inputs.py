"""The arrays that a check is given: which are refused, and which are copied first."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np

from ...pytree import tree_map
from ...validation import Array
from .subject import CheckError, described, is_float_array

# What cannot be checked: when, what it is, and how to mend it.
_REFUSED: tuple[tuple[Callable[[Array], bool], str, str], ...] = (
    (
        lambda a: isinstance(a, np.ma.MaskedArray),
        "is a masked array, whose mask many functions of NumPy drop",
        "use {0}.filled(0), and multiply by the mask",
    ),
    (
        lambda a: isinstance(a, np.matrix),
        "is an np.matrix, for which * is another product",
        "use np.asarray({0})",
    ),
    (
        lambda a: a.dtype.kind == "O",
        "has the dtype object (are its rows of different lengths?)",
        "use an array of numbers",
    ),
    (
        lambda a: a.dtype.kind == "c",
        "holds complex numbers, but the gradients here are those of real ones",
        "check it as two real arrays",
    ),
    (
        lambda a: a.dtype.kind == "f" and a.dtype.itemsize not in (4, 8),
        "is {1}: gradients are compared in float32 and float64",
        "use {0}.astype(np.float64)",
    ),
    (
        lambda a: a.dtype.kind == "f" and a.size == 0,
        "is empty, with the shape {2}: there is nothing to compare",
        "use one with at least one entry on each axis",
    ),
)


def refuse(name: str, value: Any) -> None:
    """Raise where a value is an array that cannot be checked."""
    if isinstance(value, np.ndarray):
        for applies, what, mend in _REFUSED:
            if applies(value):
                text = f"{what}; {mend}".format(name, value.dtype, value.shape)
                raise CheckError(f"{name} {text}")


def refuse_parameter(name: str, value: Array) -> None:
    """Raise where a parameter cannot be checked, or not be moved."""
    refuse(name, value)
    if value.dtype.kind in "iub":
        raise CheckError(
            f"the parameter {name} holds integers ({described(value)}), which have no gradient; "
            f"use {name}.astype(float)"
        )
    if not value.flags.writeable:
        raise CheckError(
            f"the parameter {name} is read-only, but the check moves it a little and back; "
            f"use {name}.copy()"
        )
    if not value.dtype.isnative:
        raise CheckError(
            f"the parameter {name} has the byte order of another machine ({value.dtype}); "
            f"use {name}.astype({value.dtype.name!r})"
        )


def refuse_overlap(names: Sequence[str], values: Sequence[Array]) -> None:
    """Raise where two parameters are views of the same memory: they cannot be moved apart."""
    for i, (name, value) in enumerate(zip(names, values, strict=True)):
        for other, array in zip(names[:i], values[:i], strict=True):
            if _overlap(value, array):
                raise CheckError(
                    f"{other} and {name} share memory (one is a view of the other), so that "
                    "neither has a gradient of its own; check the layers that use them one by one"
                )


def prepared(
    inputs: Sequence[Any], names: Sequence[str], held: Iterable[Array] = ()
) -> tuple[list[Any], list[str]]:
    """Return inputs that can be moved each on its own, and what is to be said of it.

    An array that shares memory with one in `held` or with another input is copied, as is one that
    is read-only or in the byte order of another machine.
    """
    apart = [array for array in held if array.size]
    remarks: list[str] = []

    def own(name: str, value: Any) -> Any:
        refuse(name, value)
        if not is_float_array(value):
            return value
        shared = any(_overlap(value, other) for other in apart)
        if shared:
            remarks.append(
                f"{name} shares memory with a parameter or another input: a copy of it is checked"
            )
        plain = type(value) is np.ndarray and value.flags.writeable and value.dtype.isnative
        if shared or not plain:
            value = np.array(value, dtype=value.dtype.newbyteorder("="))
        apart.append(value)
        return value

    found = [
        tree_map(lambda leaf, name=name: own(name, leaf), value)
        for name, value in zip(names, inputs, strict=True)
    ]
    if found and not isinstance(found[0], np.ndarray) and _is_numbers(found[0]):
        raise CheckError(
            f"{names[0]} must be an array, got a {described(inputs[0])}; use np.array({names[0]})"
        )
    return found, list(dict.fromkeys(remarks))


def _overlap(a: Array, b: Array) -> bool:
    return np.may_share_memory(a, b) and bool(np.shares_memory(a, b))


def _is_numbers(value: Any) -> bool:
    """Tell whether a value is a float, or lists of numbers with a float among them."""
    if isinstance(value, list) and value:
        kinds = [_is_numbers(entry) or isinstance(entry, int) for entry in value]
        return all(kinds) and any(map(_is_numbers, value))
    return isinstance(value, float)


RANDOM_IS_BETTER = "random numbers show more"


def as_array(value: Any) -> Any:
    """Return a Python float as an array, which can be moved in place; else the value."""
    return np.asarray(value, dtype=float) if isinstance(value, float) else value


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


def floats_with_gradients(names: Sequence[str], inputs: Sequence[Any], result: Any) -> list[str]:
    """Return what to say of inputs that are floats, and of which backward returns a gradient."""
    if not isinstance(result, tuple | list) or len(result) != len(inputs):
        return []
    return [
        f"{name} is a float, whose gradient is not checked: give np.array({name})"
        for name, value, gradient in zip(names, inputs, result, strict=True)
        if isinstance(value, float) and gradient is not None
    ]
