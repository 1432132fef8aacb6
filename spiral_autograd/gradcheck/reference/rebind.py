"""The user's functions with another NumPy: one whose new arrays can hold boxes.

``out = np.zeros(n); out[i] = box`` cannot work: a plain array holds numbers. Here the user's
functions and classes are made anew, from the same code, with globals in which `np` is a stand-in
for NumPy whose `zeros`, `empty`, `array`, `c_` and the like return boxes while a recording runs.
Their own functions, their own classes and NumPy itself stay as they are.
"""

from __future__ import annotations

import copy
import os
import threading
from abc import ABCMeta
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from types import CellType, CodeType, FunctionType, MethodType, ModuleType
from typing import Any

import autograd
import autograd.numpy as anp
import numpy as np
from autograd.tracer import isbox

from ... import boxes, recording
from ...pytree import tree_map
from ..guard import CheckError, theirs

_LIBRARIES = (
    *(
        os.path.dirname(os.path.abspath(m)) + os.sep
        for m in (np.__file__, os.__file__, autograd.__file__, os.path.dirname(__file__))
    ),
    os.path.abspath(boxes.__file__),
    os.path.abspath(recording.__file__),
)

# -------------------- a stand-in for NumPy --------------------


def _has_box(value: Any) -> bool:
    return isbox(value) or (isinstance(value, list | tuple) and any(map(_has_box, value)))


def boxed(value: Any) -> Any:
    """Return a float array, or those of a nest, as boxes of constants; anything else as it is.

    Such a box can be assigned into, and its methods take other boxes, as in ``x.dot(W)``.
    """
    if isinstance(value, np.ndarray):
        return recording.constant(value) if value.dtype.kind == "f" else value
    return tree_map(boxed, value) if type(value) in (dict, list, tuple) else value


def _made(function: Callable[..., Any]) -> Callable[..., Any]:
    return lambda *args, **kwargs: boxed(function(*args, **kwargs))


def _converted(function: Callable[..., Any]) -> Callable[..., Any]:
    def convert(value: Any, *args: Any, **kwargs: Any) -> Any:
        if not _has_box(value):
            return boxed(function(value, *args, **kwargs))
        out = value.copy() if isbox(value) else anp.array(value)
        dtype = kwargs.get("dtype", args[0] if args else None)
        return out if dtype is None else out.astype(dtype)

    return convert


class _Joined:
    """np.r_ and np.c_ for arrays: what is joined may hold boxes."""

    def __init__(self, plain: Any, *, columns: bool) -> None:
        self._plain, self._columns = plain, columns

    def __getitem__(self, key: Any) -> Any:
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


class _At:
    """A ufunc that also works in place on boxes, at indices."""

    def __init__(self, ufunc: Any) -> None:
        self._ufunc = ufunc

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self._ufunc(*args, **kwargs)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._ufunc, name)

    def at(self, array: Any, index: Any, values: Any) -> None:
        """Add at indices, each as often as it is there."""
        if not _has_box((array, values)):
            self._ufunc.at(array, index, values)
            return
        flat = np.arange(np.size(array)).reshape(np.shape(array))[index].ravel()
        shape = np.shape(np.empty(np.shape(array))[index])
        parts = anp.reshape(anp.broadcast_to(values, shape), -1)
        for i, place in enumerate(flat):
            where = np.unravel_index(place, np.shape(array))
            array[where] = self._ufunc(array[where], parts[i])


def _copyto(target: Any, source: Any, **kwargs: Any) -> None:
    if kwargs or not _has_box((target, source)):
        np.copyto(target, source, **kwargs)
    else:
        target[...] = source


STAND_INS: dict[Any, Any] = {
    **{f: _made(f) for f in (np.zeros, np.ones, np.empty, np.full)},
    **{f: _made(f) for f in (np.zeros_like, np.ones_like, np.empty_like, np.full_like, np.copy)},
    **{f: _converted(f) for f in (np.array, np.asarray, np.asanyarray, np.ascontiguousarray)},
    np.c_: _Joined(np.c_, columns=True),
    np.r_: _Joined(np.r_, columns=False),
    np.add: _At(np.add),
    np.maximum: _At(np.maximum),
    np.multiply: _At(np.multiply),
    np.subtract: _At(np.subtract),
    np.copyto: _copyto,
}

# -------------------- functions and classes made anew --------------------


class _Active(threading.local):
    rebinding: Rebinding | None = None


_active = _Active()


@contextmanager
def rebinding(*, constants: bool = True) -> Iterator[None]:
    """Let the user's functions run with the stand-in for NumPy, in this thread, meanwhile.

    With `constants`, float arrays that are data, or attributes of objects, become boxes as well.
    """
    before, _active.rebinding = _active.rebinding, Rebinding(constants=constants)
    try:
        yield
    finally:
        _active.rebinding = before


def rebound(function: Any) -> Any:
    """Return what stands for a function of the user's, where the stand-in is wanted."""
    return function if _active.rebinding is None else _active.rebinding.value(function)


def adopt(memo: Mapping[int, Any]) -> None:
    """Let the copies of the user's objects, as deepcopy has noted them, run with the stand-in."""
    if _active.rebinding is not None:
        _active.rebinding.adopt(memo)


def rebound_data(data: Sequence[Any]) -> list[Any]:
    """Return what stands for data that have no gradient, where the stand-in is wanted."""
    wanted = _active.rebinding is not None and _active.rebinding.constants
    return [boxed(item) for item in data] if wanted else list(data)


class Rebinding:
    """Makes functions and classes of the user's anew, in which NumPy is the stand-in.

    Examples
    --------
    >>> def column(x):
    ...     out = np.zeros((len(x), 1))
    ...     out[:, 0] = x
    ...     return out
    >>> Rebinding().value(column)(np.ones(2))
    array([[1.],
           [1.]])
    """

    def __init__(self, *, constants: bool = True) -> None:
        self.constants = constants
        self._made: dict[int, Any] = {}
        self._globals: dict[int, dict[str, Any]] = {}
        self._originals: list[Any] = []

    def value(self, value: Any) -> Any:
        """Return what stands for a global, an attribute or a cell of the user's."""
        if isinstance(value, FunctionType):
            return self._function(value) if _is_theirs(value.__code__) else self._stand_in(value)
        if isinstance(value, type):
            return self._class(value)
        if isinstance(value, ModuleType):
            return self._module(value)
        if isinstance(value, MethodType):
            return MethodType(self.value(value.__func__), self.value(value.__self__))
        if any(_is_class_of_theirs(type(item)) for item in _items(value)):
            return self._object(value)
        return self._stand_in(value)

    def adopt(self, memo: Mapping[int, Any]) -> None:
        """Let the copies of the user's objects, as deepcopy has noted them, have the new classes.

        Parameters
        ----------
        memo : dict
            From the id of an object to its copy.
        """
        for key, item in list(memo.items()):
            attributes = getattr(item, "__dict__", None)
            if key in (id(memo), id(item)) or isinstance(item, type | FunctionType | ModuleType):
                continue
            if isinstance(attributes, dict) and not isbox(item):
                for name, held in list(attributes.items()):
                    if isinstance(held, FunctionType):
                        attributes[name] = self.value(held)
                    elif self.constants:
                        attributes[name] = boxed(held)
            other = self._class(type(item))
            if other is not type(item):
                item.__class__ = other

    def _object(self, value: Any) -> Any:
        """Return a copy of an object of the user's, or of what holds some, with the new classes."""
        if id(value) in self._made:
            return self._made[id(value)]
        memo: dict[int, Any] = {}
        try:
            with theirs():
                other = copy.deepcopy(value, memo)
        except CheckError:  # what cannot be copied stays as it is
            return value
        self._keep(value, other)
        self.adopt(memo)
        return other

    def _stand_in(self, value: Any) -> Any:
        try:
            return STAND_INS.get(value, value)
        except TypeError:  # not hashable
            return value

    def _keep(self, original: Any, made: Any) -> Any:
        self._originals.append(original)  # its id must stay its own
        self._made[id(original)] = made
        return made

    def _function(self, function: FunctionType, home: CellType | None = None) -> Any:
        if id(function) in self._made:
            return self._made[id(function)]
        names = self._globals.setdefault(id(function.__globals__), dict(function.__globals__))
        code = function.__code__
        cells = tuple(
            home if name == "__class__" and home is not None else self._cell(cell)
            for name, cell in zip(code.co_freevars, function.__closure__ or (), strict=True)
        )
        made = FunctionType(code, names, function.__name__, function.__defaults__, cells)
        made.__kwdefaults__ = function.__kwdefaults__
        made.__dict__.update(function.__dict__)
        made.__qualname__ = function.__qualname__
        self._keep(function, made)
        for name in _names(code):
            if name in function.__globals__:
                names[name] = self.value(function.__globals__[name])
        return made

    def _cell(self, cell: CellType) -> CellType:
        if id(cell) not in self._made:
            other = self._keep(cell, CellType())  # before its content, which may have it too
            with suppress(ValueError):  # not filled yet
                other.cell_contents = self.value(cell.cell_contents)
        return self._made[id(cell)]

    def _class(self, kind: type) -> type:
        if id(kind) in self._made:
            return self._made[id(kind)]
        if not _is_class_of_theirs(kind):
            return kind
        own = {name: item for name, item in vars(kind).items() if _code_of(item)}
        bases = tuple(b for b in map(self._class, kind.__bases__) if b not in kind.__bases__)
        home = CellType()
        namespace = {name: self._member(item, home) for name, item in own.items()}
        made = type(kind)(kind.__name__, (*bases, kind), {**namespace, "__slots__": ()})
        home.cell_contents = made
        return self._keep(kind, made)

    def _member(self, item: Any, home: CellType) -> Any:
        if isinstance(item, staticmethod | classmethod):
            return type(item)(self._member(item.__func__, home))
        if isinstance(item, property):
            parts = (item.fget, item.fset, item.fdel)
            return property(*(part and self._member(part, home) for part in parts))
        return self._function(item, home) if isinstance(item, FunctionType) else item

    def _module(self, module: ModuleType) -> Any:
        file = getattr(module, "__file__", None) or "<"
        if module is not np and file.startswith((*_LIBRARIES, "<")):
            return module
        if "site-packages" in file and module is not np:
            return module
        if id(module) not in self._made:
            self._keep(module, _Module(module, self))
        return self._made[id(module)]


class _Module:
    """A module whose functions are made anew when they are asked for."""

    def __init__(self, module: ModuleType, rebinding: Rebinding) -> None:
        self._module, self._rebinding = module, rebinding

    def __getattr__(self, name: str) -> Any:
        return self._rebinding.value(getattr(self._module, name))


def _is_class_of_theirs(kind: type) -> bool:
    """Tell whether a class, or one that it inherits from, has methods of the user's."""
    if type(kind) not in (type, ABCMeta):
        return False
    members = [item for base in kind.__mro__ if base is not object for item in vars(base).items()]
    codes = (_code_of(item) for _, item in members)
    special = any(name == "__init_subclass__" for name, _ in members)
    return not special and any(_is_theirs(code) for code in codes if code)


def _code_of(item: Any) -> CodeType | None:
    if isinstance(item, property):
        item = item.fget
    item = getattr(item, "__func__", item)
    return item.__code__ if isinstance(item, FunctionType) else None


def _is_theirs(code: CodeType) -> bool:
    return not code.co_filename.startswith((*_LIBRARIES, "<frozen"))


def _items(value: Any) -> Iterable[Any]:
    """Return what a container holds; else the value itself."""
    if isinstance(value, list | tuple):
        return value
    return list(value.values()) if isinstance(value, dict) else [value]


def _names(code: CodeType) -> Iterator[str]:
    yield from code.co_names
    for inner in code.co_consts:
        if isinstance(inner, CodeType):
            yield from _names(inner)
