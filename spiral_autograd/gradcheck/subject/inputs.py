"""The arrays that a check is given: which are refused, and which are copied first."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any, Protocol

import numpy as np

from ...pytree import tree_map
from ...validation import Array
from .choice import last_name
from .subject import MISSING, CheckError, described, is_array, is_float_array

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


# -------------------- what is meant to have no gradient --------------------

Names = str | Iterable[str]


class Constant:
    """The names of what is meant to have no gradient.

    Parameters
    ----------
    names : str, or iterable of str
        In full, or the last part of a path.

    Examples
    --------
    >>> constant = Constant(["mask"])
    >>> constant.has("mask"), constant.has("layers[0].mask"), constant.has("W")
    (True, True, False)
    """

    def __init__(self, names: Names = ()) -> None:
        given: list[Any] = [names]
        if isinstance(names, Iterable) and not isinstance(names, str):
            given = list(names)
        for name in given:
            if not isinstance(name, str):
                raise CheckError(
                    "constant must be the names of what is meant to have no gradient, such as "
                    f'constant=["mask"], got {described(names)}'
                )
        self.names = tuple(given)

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


class Runner(Protocol):
    """What runs somebody's passes, and gathers what is to be said."""

    constant: Constant
    unchecked: list[str]
    remarks: list[str]
    failures: list[str]


def say_unread(runner: Runner, unread: dict[Any, Any], other: str = "input") -> None:
    """Say which entries of a dict of gradients belong to no parameter and no other.

    Those of intermediate values have a d before the name, and may be there for later ones.
    """
    arrays = [str(key) for key, gradient in unread.items() if is_array(gradient)]
    keys = [key for key in arrays if not runner.constant.has(key)]
    of_values = [key for key in keys if key[:1] == "d" and len(key) > 1]
    others = [key for key in keys if key not in of_values]
    text = f"the dict of gradients has {{}}, but there is no parameter and no {other} of that name"
    if of_values:
        runner.unchecked += of_values
        mark = of_values[0][1:].lstrip("_")
        how = f' (mark the value: tap("{mark}", ...))' if other == "mark" else ""
        runner.remarks.append(f"{text.format(', '.join(of_values))}: not checked{how}")
    if others:
        runner.failures.append(text.format(", ".join(others)))
