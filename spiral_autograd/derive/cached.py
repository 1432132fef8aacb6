"""A program for each loss and signature, derived once and kept for the process."""

from __future__ import annotations

import contextlib
import operator
import os
import sys
import warnings
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from types import FunctionType, MethodType
from typing import Any, NamedTuple

import autograd

from ..boxes import process_lock
from ..pytree import Pytree
from .deriving import Loss, derive, reached_by
from .guards import DerivationError, all_finite
from .outside import Outside, TracedError
from .program import Program, signature

CACHE_SIZE = 128
FEW = 6  # programs that a loss may have before it must be called often for each further one
WORTH = 200  # calls for which a further program is derived
_PACKAGE = os.path.dirname(os.path.dirname(os.path.abspath(__file__))) + os.sep


class DerivationWarning(UserWarning):
    """A loss is differentiated by plain autograd, for the reason given: right, but slower.

    Examples
    --------
    >>> with warnings.catch_warnings(record=True) as said:
    ...     warnings.simplefilter("always")
    ...     loss, gradient = value_and_grad(lambda w: w if w > 0 else -w)(-2.0)
    >>> float(gradient), said[0].category.__name__
    (-1.0, 'DerivationWarning')
    """


class CachedProgram(NamedTuple):
    """A program, if there is one, and what the loss reached when it was derived."""

    loss: Loss
    outside: Outside
    program: Program | None


class _Bounded(OrderedDict[Any, Any]):
    """A dict that forgets what came first."""

    def __setitem__(self, key: object, value: object) -> None:
        super().__setitem__(key, value)
        while len(self) > CACHE_SIZE:
            self.popitem(last=False)


@dataclass(eq=False)
class _Known:
    """What is known of the code of a loss."""

    code: Any  # kept alive: its identity is the key
    calls: int = 0
    derived: int = 0
    warned: bool = False
    unwatchable: bool = False
    traces_ints: bool = True
    current: _Bounded = field(default_factory=_Bounded)

    def warn(self, loss: Loss, reason: str) -> None:
        """Say once of a loss why plain autograd differentiates it, at the reader's own line."""
        if self.warned:
            return
        self.warned = True
        level, caller = 1, sys._getframe().f_back
        while caller is not None and caller.f_code.co_filename.startswith(_PACKAGE):
            level, caller = level + 1, caller.f_back
        name = getattr(loss, "__name__", type(loss).__name__)
        message = f"{name} is differentiated by plain autograd, which is slower: {reason}"
        warnings.warn(message, DerivationWarning, stacklevel=level + 1)


_cache = _Bounded()  # programs, by code, signature and what is reached
_known = _Bounded()  # what is known of losses, by the identity of their code


def cached_program(
    loss: Loss, params: Pytree, data: tuple[Pytree, ...], *, once: bool = False
) -> CachedProgram | None:
    """Return the program for a loss and a signature; after one warning none, if it has none.

    It holds as long as its `outside` holds. With `once` it is asked for a single call: whether
    another program pays is then weighed.
    """
    code = _code_of(loss)
    known = _known.get(id(code)) or _Known(code)
    try:
        place = signature(params, data, trace_ints=known.traces_ints)
        current = known.current.get(place)
    except TypeError:  # a key that cannot be hashed, or an argument of another trace
        return None
    known.calls += 1
    if current is not None:
        same = current.loss is loss or (type(loss) is MethodType and current.loss == loss)
        if same and current.outside.holds():
            return current
    if known.unwatchable:
        return None
    with process_lock:
        return _looked_up(_known.setdefault(id(code), known), loss, params, data, once)


def _code_of(loss: Loss) -> Any:
    """Return what a loss shares with one made anew, such as a method that is looked up again."""
    while isinstance(loss, MethodType | partial):
        loss = loss.__func__ if isinstance(loss, MethodType) else loss.func
    return loss.__code__ if isinstance(loss, FunctionType) else loss


def _looked_up(
    known: _Known, loss: Loss, params: Pytree, data: tuple[Pytree, ...], once: bool
) -> CachedProgram | None:
    try:
        outside = reached_by(loss, data)
    except TracedError:
        return None
    except DerivationError as error:
        known.unwatchable = True
        known.warn(loss, str(error))
        return None

    def key() -> Any:
        # Objects among the data are in the key of what is reached, by value.
        place = signature(params, data, trace_ints=known.traces_ints, of_object=type)
        return id(known.code), place, outside.key

    if key() not in _cache:
        if not all_finite((params, data)):
            return None  # nothing could be compared: autograd's turn, this once
        if once and known.derived >= FEW and known.calls < WORTH * known.derived:
            reason = (
                f"{known.derived} programs were derived in {known.calls} calls, each for other "
                "values or shapes; pass what changes as a float or an array"
            )
            known.warn(loss, reason)
            return None
        known.derived += 1
        program = None
        try:
            program = derive(loss, params, *data)
        except (TypeError, ValueError) as error:
            known.warn(loss, str(error))
        if program is not None:
            known.traces_ints &= program.traces_ints
        _cache[key()] = program
    place = signature(params, data, trace_ints=known.traces_ints)
    known.current[place] = found = CachedProgram(loss, outside, _cache[key()])
    return found


def warn_of_change(loss: Loss) -> None:
    """Say once of a loss that what it reaches changed in the middle of a training run."""
    code = _code_of(loss)
    reason = "what it reaches from outside changed during the training; pass it as data"
    _known.setdefault(id(code), _Known(code)).warn(loss, reason)


def value_and_grad(loss: Loss, argnum: Any = 0) -> Callable[..., tuple[Any, Pytree]]:
    """Return a function that computes a loss and its gradient, as ``autograd.value_and_grad`` does.

    At the first call for each signature (structure, shapes and dtypes) the gradient is derived;
    then the derived program runs. A loss that has no program is differentiated by autograd, with
    one `DerivationWarning` that says why.

    Parameters
    ----------
    loss : callable
        ``loss(params, *data)`` returns a scalar. TypeError if it is no function.
    argnum : int or tuple of int, default 0
        The argument to differentiate with respect to. For any but the first, and where keyword
        arguments are given, autograd itself is called. TypeError if it is no position.

    Returns
    -------
    callable
        ``value_and_grad(params, *data) -> (loss, gradient)``.

    Notes
    -----
    A program holds the values that the loss reaches besides its arguments: what it closes over,
    the globals and the attributes that its code and that of the functions it calls name, default
    and partial arguments; whatever their type, and the entries of dicts, lists and tuples. At each
    call they are compared with those of the derivation, by identity where nothing could have
    changed in place, and arrays entry by entry. With another value the gradient is derived anew.
    Of an array of more than 256 KB only its identity, shape and 1,024 entries spread over it are
    compared: whoever writes into a part of such an array between two calls passes it as data.

    What cannot be watched so is refused at the first derivation, and differentiated by autograd:
    iterators, open files, objects that keep their state in compiled code, more than 20,000 values;
    also a loss that changes what it reaches (a counter, a list of what it computed) or draws
    random numbers, and one that takes values out of the trace by ``getval``. The insides of
    installed packages are not looked at, nor what a function in an ``lru_cache`` has kept. A loss
    whose values or shapes are others at almost every call is left to autograd after a few
    programs.

    Examples
    --------
    >>> import numpy as np
    >>> value, grad = value_and_grad(lambda w: (w * w).sum())(np.array([1.0, 2.0]))
    >>> float(value), grad
    (5.0, array([2., 4.]))
    """
    if not callable(loss):
        raise TypeError(f"loss must be a function, got {loss!r}")
    try:
        several = isinstance(argnum, tuple | list)
        argnum = tuple(map(operator.index, argnum)) if several else operator.index(argnum)
    except TypeError:
        raise TypeError(
            "argnum must be the position of an argument, such as 0, or a tuple of positions, got "
            f"{argnum!r}"
        ) from None
    by_autograd = autograd.value_and_grad(loss, argnum)

    def value_and_grad_of_loss(*args: object, **kwargs: object) -> tuple[Any, Pytree]:
        if argnum == 0 and args and not kwargs:
            found = cached_program(loss, args[0], args[1:], once=True)
            if found is not None and found.program is not None:
                # An error of the loss's own has autograd's type and its place in the loss.
                with contextlib.suppress(ArithmeticError, LookupError, TypeError, ValueError):
                    return found.program._function(*args)
        return by_autograd(*args, **kwargs)

    return value_and_grad_of_loss
