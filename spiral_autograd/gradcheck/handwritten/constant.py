"""What is meant to have no gradient: the names that `constant=` gives."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from .choice import last_name
from .subject import MISSING, CheckError, described

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
