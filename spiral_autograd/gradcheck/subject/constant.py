"""What is meant to have no gradient: the names that `constant=` gives."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Protocol

import numpy as np

from .choice import last_name
from .subject import MISSING, CheckError, described, is_array

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
