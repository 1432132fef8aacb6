"""What stands for NumPy, for `math` and for Python's own functions while a recording runs.

``out = np.zeros(n); out[i] = box`` cannot work: a plain array holds numbers. Nor can ``float(box)``
give a box: Python insists on a float. So something else stands wherever the user's code names
these; then they are put back, and NumPy itself stays as it is.

Each does what it stands for, but that new arrays can hold boxes, and that a traced number stays
traced in ``float(x)``, in ``math.exp(x)`` and in lists. In other threads no recording runs, and
there it does just what it stands for.
"""

from __future__ import annotations

import builtins
import math
import operator
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from types import FunctionType, ModuleType
from typing import Any

import autograd.numpy as anp
import numpy as np
from autograd.tracer import isbox

from ... import recording
from ...state import ABSENT, Held, Names
from ...validation import Array
from . import special
from .boxes import Function, as_float, as_number, of_plain
from .special import plain


def _has_box(value: object) -> bool:
    return isbox(value) or (isinstance(value, list | tuple) and any(map(_has_box, value)))


class StandIn:
    """What stands for something: one for all copies of what holds it."""

    def __deepcopy__(self, memo: object) -> StandIn:
        return self


class _Call(StandIn):
    """A function that is no method of the class that holds it, as those of C are none."""

    def __init__(self, function: Function) -> None:
        self._function = function

    def __call__(self, *args: object, **kwargs: object) -> object:
        return self._function(*args, **kwargs)


def _as_call(made: Any) -> object:
    return _Call(made) if type(made) is FunctionType else made


# -------------------- of NumPy's functions --------------------


def boxed(value: object) -> object:
    """Return a float array as a box, which can be assigned into; anything else as it is."""
    is_float = isinstance(value, np.ndarray) and value.dtype.kind == "f"
    return recording.constant(value) if is_float else value


def _made(function: Function) -> Function:
    return lambda *args, **kwargs: boxed(function(*args, **kwargs))


def _converted(function: Function) -> Function:
    def convert(value: Any, *args: object, **kwargs: object) -> object:
        if not _has_box(value):
            return boxed(function(value, *args, **kwargs))
        out = value.copy() if isbox(value) else anp.array(value)
        dtype = kwargs.get("dtype", args[0] if args else None)
        return out if dtype is None else out.astype(dtype)

    return convert


_array = _converted(np.array)


class _Joined(StandIn):
    """np.r_ and np.c_ for arrays: what is joined may hold boxes."""

    def __init__(self, plain: Any, *, columns: bool) -> None:
        self._plain, self._columns = plain, columns

    def __getitem__(self, key: object) -> object:
        parts = key if isinstance(key, tuple) else (key,)
        if not any(map(_has_box, parts)):
            return boxed(self._plain[key])
        if any(isinstance(part, str | slice) for part in parts):
            raise TypeError("ranges and directives beside traced values are not followed")
        arrays = [anp.array(part) if isinstance(part, list) else part for part in parts]
        if not self._columns:
            return anp.concatenate([anp.reshape(a, -1) if anp.ndim(a) < 1 else a for a in arrays])
        arrays = [anp.reshape(a, (-1, 1)) if anp.ndim(a) < 2 else a for a in arrays]
        return anp.concatenate(arrays, axis=-1)


_OF_SEQUENCES = set(
    "block choose column_stack concatenate dstack hstack row_stack select stack vstack".split()
)


class _Function(StandIn):
    """A function that takes lists of boxes for arrays, and writes boxes into what is `out`."""

    def __init__(self, function: np.ufunc) -> None:
        self._function = function
        self._takes_arrays = function.__name__ not in _OF_SEQUENCES

    def __call__(self, *args: object, **kwargs: Any) -> object:
        if self._takes_arrays:
            lists = (isinstance(arg, list | tuple) and _has_box(arg) for arg in args)
            args = tuple(anp.array(a) if is_it else a for a, is_it in zip(args, lists, strict=True))
        out: Any = kwargs.get("out")
        if not isbox(out):
            return self._function(*args, **kwargs)
        out[...] = self._function(*args, **{**kwargs, "out": None})
        return out

    def __getattr__(self, name: str) -> object:
        return getattr(self._function, name)

    def at(self, array: Array, index: Any, values: Array) -> None:
        """Add at indices, each as often as it is there."""
        if not _has_box((array, values)):
            self._function.at(array, index, values)
            return
        flat = np.arange(np.size(array)).reshape(np.shape(array))[index].ravel()
        shape = np.shape(np.empty(np.shape(array))[index])
        parts = anp.reshape(anp.broadcast_to(values, shape), -1)
        for i, place in enumerate(flat):
            where = np.unravel_index(place, np.shape(array))
            array[where] = self._function(array[where], parts[i])


def _copyto(target: Array, source: Array, **kwargs: Any) -> None:
    if kwargs or not _has_box((target, source)):
        np.copyto(target, source, **kwargs)
    else:
        target[...] = source


def _vectorized(
    function: Function, *args: Any, made: np.vectorize | None = None, **kwargs: Any
) -> object:
    """Return np.vectorize of a function, which is called on boxes one by one."""
    made = made or np.vectorize(function, *args, **kwargs)

    def apply(*args: Array) -> object:
        if not _has_box(args):
            return made(*args)
        shape = np.broadcast_shapes(*map(np.shape, args))
        arrays = [anp.broadcast_to(arg, shape) for arg in args]
        called: Any = standing_for(function)
        found = [called(*(as_number(a[i]) for a in arrays)) for i in np.ndindex(shape)]
        return anp.reshape(anp.array(found), shape)

    return apply


# -------------------- of numbers --------------------


def _of_numbers(function: Function, traced: Function) -> Function:
    """Return a function of Python numbers that calls another where one of them is traced."""

    def call(*args: object) -> object:
        return traced(*map(as_number, args)) if any(map(isbox, args)) else function(*args)

    return call


def _of_lists(function: Function, traced: Function) -> Function:
    """Return a function of sequences of numbers that calls another where one is traced."""

    def call(*args: Iterable[object]) -> object:
        lists = [list(arg) for arg in args]
        return as_float(traced(*map(anp.array, lists))) if _has_box(lists) else function(*lists)

    return call


# By the names in `math` the names in NumPy: of functions of numbers.
_IN_NUMPY = {
    **{
        name: name
        for name in "exp exp2 expm1 log2 log10 log1p sqrt cbrt sin cos tan sinh cosh tanh fabs "
        "degrees radians fmod hypot".split()
    },
    **{f"a{name}": f"arc{name}" for name in "sin cos tan sinh cosh tanh".split()},
    "atan2": "arctan2",
    "pow": "power",
}
_MATH = {
    **{
        f: _of_numbers(f, getattr(np, ours))
        for name, ours in _IN_NUMPY.items()
        if (f := getattr(math, name, None)) is not None
    },
    **{f: of_plain(f) for f in (math.isnan, math.isinf, math.isfinite, math.isclose)},
    **{f: _of_numbers(f, special.differentiable(f) or f) for f in (math.erf, math.erfc)},
    math.log: _of_numbers(math.log, lambda x, *base: np.log(x) / (np.log(*base) if base else 1)),
    math.fsum: _of_lists(math.fsum, np.sum),
    math.dist: _of_lists(math.dist, lambda p, q: anp.sqrt(anp.sum((p - q) ** 2))),
}


class _Standing(type):
    """The type of a class that is another but for its call, which may give a box."""

    plain: type
    instead: Function

    def __call__(cls, *args: object, **kwargs: object) -> object:
        return cls.instead(*args, **kwargs)

    def __instancecheck__(cls, value: object) -> bool:
        return isinstance(plain(value), cls.plain)

    def __subclasscheck__(cls, kind: type) -> bool:
        return issubclass(kind, cls.plain)

    def __eq__(cls, other: object) -> bool:
        return True if other is cls.plain or other is cls else NotImplemented

    def __hash__(cls) -> int:
        return hash(cls.plain)


def _class_for(kind: type, instead: Function) -> type:
    fields = {"plain": kind, "instead": staticmethod(instead)}
    if kind is float:  # what NumPy 2.0 knows by itself of its own kinds only
        fields["dtype"] = np.dtype(float)
    return _Standing(kind.__name__, (kind,), fields)


def _cast_to(kind: type) -> Function:
    return lambda value=0.0: value.astype(kind) if isbox(value) else kind(value)


# -------------------- what stands for what --------------------


class _Module(StandIn):
    """A module, but for what has a stand-in; what it lacks another module has."""

    def __init__(self, *modules: ModuleType) -> None:
        self._modules = modules

    def __getattr__(self, name: str) -> object:
        holder = next((m for m in self._modules if hasattr(m, name)), self._modules[-1])
        return standing_for(getattr(holder, name))


STAND_INS: dict[object, object] = {
    **{f: _made(f) for f in (np.zeros, np.ones, np.empty, np.full)},
    **{f: _made(f) for f in (np.zeros_like, np.ones_like, np.empty_like, np.full_like, np.copy)},
    **{f: _converted(f) for f in (np.array, np.asarray, np.asanyarray, np.ascontiguousarray)},
    anp.array: _converted(anp.array),
    np.fromiter: lambda values, *args, **kwargs: _array(list(values), *args, **kwargs),
    np.c_: _Joined(np.c_, columns=True),
    np.r_: _Joined(np.r_, columns=False),
    np.copyto: _copyto,
    np.ndenumerate: lambda array: ((i, array[i]) for i in np.ndindex(np.shape(array))),
    np.vectorize: _class_for(np.vectorize, _vectorized),
    **{kind: _class_for(kind, _cast_to(kind)) for kind in (np.float64, np.float32, np.float16)},
    float: _class_for(float, lambda v=0.0: as_number(v) if isbox(v) else float(v)),
    type: _class_for(type, lambda *args: standing_for(type(*map(plain, args)))),
    isinstance: lambda value, kinds: isinstance(plain(value), kinds),
    **_MATH,
}
_MODULES = set("numpy math builtins scipy scipy.special autograd.scipy.special".split())
_OF_AXES = {f.__name__: f for f in (special.logsumexp, special.softmax, special.log_softmax)}


def _of_kind(value: Any) -> object:
    """Return what stands for something of one of the kinds of which each has a stand-in."""
    kind = type(value)
    if kind is tuple:
        parts = tuple(map(standing_for, value))
        return value if all(map(operator.is_, parts, value)) else parts
    if kind is ModuleType:
        return _Module(value) if value.__name__ in _MODULES else value
    if kind is np.vectorize:
        return _vectorized(value.pyfunc, made=value)
    if kind is not FunctionType:
        return _Function(value)
    if "_is_autograd_primitive" in vars(value):
        made = standing_for(vars(value)["fun"])
        return value if made is vars(value)["fun"] else made
    is_scipys = value.__module__.startswith("scipy.special")
    return _OF_AXES.get(value.__name__, value) if is_scipys else value


_KINDS = {tuple, ModuleType, np.vectorize, FunctionType, np.ufunc, type(np.sum)}
_MADE = {id(one): (one, _as_call(made)) for one, made in STAND_INS.items()}
_MADE[id(anp)] = anp, _Module(np, anp)
BUILT_IN = {name: _MADE[id(f)][1] for name, f in vars(builtins).items() if id(f) in _MADE}


def standing_for(value: object) -> object:
    """Return what stands for a module, a function or a class; any other value as it is."""
    if id(value) in _MADE:
        return _MADE[id(value)][1]
    if type(value) not in _KINDS:
        return value
    made = _of_kind(value)
    if made is value or type(value) is tuple:
        return made
    _MADE[id(value)] = value, _as_call(made)
    return _MADE[id(value)][1]


# -------------------- in their places, while a recording runs --------------------


@contextmanager
def standing_in(known: Sequence[Held]) -> Iterator[None]:
    """Let stand-ins stand for NumPy and the like, wherever what is known to be reached holds it."""
    places = list(_places(known))
    try:
        for held, instead in places:
            _hold(held, instead)
        yield
    finally:
        for held, _ in places:
            _hold(held, held.before)


def _hold(held: Held, parts: Sequence[object]) -> None:
    with suppress(AttributeError):  # what can only be read: of a staticmethod, a partial
        held.kind.write(held.item, parts)  # type: ignore[misc]


def _places(known: Sequence[Held]) -> Iterator[tuple[Held, list[object]]]:
    """Yield what holds something that has a stand-in, with all that it is to hold meanwhile."""
    libraries: set[int] = set()  # what their functions close over stays
    for held in known:
        item = held.item
        if isinstance(item, FunctionType) and recording.is_installed(item.__code__.co_filename):
            libraries.update(map(id, (item, *(item.__closure__ or ()))))
        if id(item) in libraries:
            continue
        instead = list(map(standing_for, held.before))
        if isinstance(item, Names):  # Python's own functions are found after the globals
            pairs = zip(item.names, instead, strict=True)
            instead = [BUILT_IN.get(n, v) if v is ABSENT else v for n, v in pairs]
        if not all(map(operator.is_, instead, held.before)):
            yield held, instead
