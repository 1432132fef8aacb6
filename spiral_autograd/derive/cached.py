"""A program for each loss and signature, derived once and kept for the process."""

from __future__ import annotations

import warnings
from collections import OrderedDict
from collections.abc import Callable, Iterator
from functools import partial
from types import CodeType, FunctionType, MethodType
from typing import Any

import autograd
import numpy as np

from ..pytree import Pytree, leaves
from ..recording import one_at_a_time
from .expressions import static_key
from .program import Loss, Program, derive, signature

CACHE_SIZE = 128


class DerivationWarning(UserWarning):
    """A loss is differentiated by plain autograd, for the reason given: right, but slower."""


_VALUES = (bool, int, float, np.generic, np.ndarray, dict, list, tuple)
_LIBRARIES = ("numpy", "autograd", __name__.partition(".")[0])
_cache: OrderedDict[Any, Program | None] = OrderedDict()
_MISSING: Any = object()


def cached_program(loss: Loss, params: Pytree, data: tuple[Pytree, ...]) -> Program | None:
    """Return the program for a loss and a signature; None, after one warning, if it has none."""
    try:
        key = loss, _frozen_values(loss), signature(params, data)
        program = _cache.get(key, _MISSING)
    except TypeError:  # a loss or an argument that cannot be hashed, or one of another trace
        return None
    if program is not _MISSING:
        return program
    with one_at_a_time:
        if key not in _cache:
            if not _all_finite((params, data)):
                return None  # nothing could be compared: autograd's turn, this once
            _cache[key] = _derived_or_none(loss, params, data)
            while len(_cache) > CACHE_SIZE:
                _cache.popitem(last=False)
        return _cache[key]


def _all_finite(arguments: Pytree) -> bool:
    arrays = [leaf for leaf in map(np.asarray, leaves(arguments)) if leaf.dtype.kind == "f"]
    return all(np.isfinite(array).all() for array in arrays)


def _frozen_values(loss: Loss) -> tuple[Any, ...]:
    """Return the values that a loss takes from outside: with others, it is another program.

    These are the numbers, arrays, and nests of them that it, or a function that it calls, names as
    globals or closes over, and those in the object whose method it is.
    """
    found: list[Any] = []
    pending, seen = [loss], set()
    while pending:
        function = pending.pop()
        function = getattr(function, "func", function)  # of a functools.partial
        if id(function) in seen or not hasattr(function, "__code__"):
            continue
        seen.add(id(function))
        for value in _outside(function):
            if isinstance(value, FunctionType | MethodType | partial):
                if str(value.__module__).partition(".")[0] not in _LIBRARIES:
                    found.append(value)
                    pending.append(value)
            elif isinstance(value, _VALUES):
                found.append(static_key(value))
    return tuple(found)


def _outside(function: Any) -> Iterator[Any]:
    """Yield what a function closes over, the globals it names, and its object's attributes."""
    for cell in function.__closure__ or ():
        try:
            yield cell.cell_contents
        except ValueError:  # an empty cell
            continue
    yield from getattr(getattr(function, "__self__", None), "__dict__", {}).values()
    names = function.__globals__
    codes = [function.__code__]
    for code in codes:
        yield from (names[name] for name in code.co_names if name in names)
        codes.extend(const for const in code.co_consts if isinstance(const, CodeType))


def _derived_or_none(loss: Loss, params: Pytree, data: tuple[Pytree, ...]) -> Program | None:
    try:
        return derive(loss, params, *data)
    except (TypeError, ValueError) as error:
        name = getattr(loss, "__name__", repr(loss))
        warnings.warn(
            f"{name} is differentiated by plain autograd, which is slower: {error}",
            DerivationWarning,
            stacklevel=4,
        )
        return None


def value_and_grad(loss: Loss, argnum: int = 0) -> Callable[..., tuple[Any, Pytree]]:
    """Return a function that computes a loss and its gradient, as ``autograd.value_and_grad`` does.

    At the first call for each signature (structure, shapes and dtypes) the gradient is derived;
    then the derived program runs. A loss that has no program is differentiated by autograd, with
    one warning that says why. A value that `loss` closes over is a constant of the program.

    Parameters
    ----------
    loss : callable
        ``loss(params, *data)`` returns a scalar.
    argnum : int, default 0
        The argument to differentiate with respect to. For any but the first, and where keyword
        arguments are given, autograd itself is called.

    Returns
    -------
    callable
        ``value_and_grad(params, *data) -> (loss, gradient)``.

    Warns
    -----
    DerivationWarning
        Where plain autograd takes over.

    Examples
    --------
    >>> value, grad = value_and_grad(lambda w: (w * w).sum())(np.array([1.0, 2.0]))
    >>> float(value), grad
    (5.0, array([2., 4.]))
    """
    by_autograd = autograd.value_and_grad(loss, argnum)

    def value_and_grad_of_loss(*args: Any, **kwargs: Any) -> tuple[Any, Pytree]:
        if argnum == 0 and args and not kwargs:
            program = cached_program(loss, args[0], args[1:])
            if program is not None:
                return program._function(*args)
        return by_autograd(*args, **kwargs)

    return value_and_grad_of_loss
