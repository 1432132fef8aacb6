"""Another NumPy for the user's functions: one whose new arrays can hold boxes.

``out = np.zeros(n); out[i] = box`` cannot work: a plain array holds numbers. While a recording
runs, every global of the user's functions that is NumPy, or one of its functions, is therefore a
stand-in whose `zeros`, `empty`, `array`, `c_` and the like return boxes; then they are put back.
NumPy itself stays as it is, and in other threads the stand-in does what NumPy does.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from types import CellType
from typing import Any

import autograd.numpy as anp
import numpy as np
from autograd.tracer import isbox

from ... import recording
from ...state import Names
from ..subject.session import walk

# -------------------- a stand-in for NumPy --------------------


def _has_box(value: object) -> bool:
    return isbox(value) or (isinstance(value, list | tuple) and any(map(_has_box, value)))


def boxed(value: object) -> object:
    """Return a float array as the box of a constant; anything else as it is.

    Such a box can be assigned into, and its methods take other boxes, as in ``x.dot(W)``.
    """
    is_float = isinstance(value, np.ndarray) and value.dtype.kind == "f"
    return recording.constant(value) if is_float else value


def _made(function: Callable[..., object]) -> Callable[..., object]:
    return lambda *args, **kwargs: boxed(function(*args, **kwargs))


def _converted(function: Callable[..., object]) -> Callable[..., object]:
    def convert(value: Any, *args: object, **kwargs: object) -> object:
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


class _At:
    """A ufunc that also works in place on boxes, at indices."""

    def __init__(self, ufunc: Any) -> None:
        self._ufunc = ufunc

    def __call__(self, *args: object, **kwargs: object) -> object:
        return self._ufunc(*args, **kwargs)

    def __getattr__(self, name: str) -> object:
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


STAND_INS: dict[object, object] = {
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


class _Numpy:
    """NumPy, but for the functions that have a stand-in."""

    def __getattr__(self, name: str) -> object:
        return _standing_for(getattr(np, name))


_NUMPY = _Numpy()
_BY_ID = {id(function): made for function, made in STAND_INS.items()} | {id(np): _NUMPY}


def _standing_for(value: object) -> object:
    """Return what stands for NumPy, or for one of its functions; any other value as it is."""
    return _BY_ID.get(id(value), value)


# -------------------- in the place of NumPy --------------------


@contextmanager
def standing_in(roots: Sequence[object]) -> Iterator[None]:
    """Let NumPy be the stand-in for a while, wherever the code that some objects reach names it."""
    places = list(_places_of_numpy(roots))
    try:
        for put, value in places:
            put(_standing_for(value))
        yield
    finally:
        for put, value in places:
            put(value)


def _places_of_numpy(roots: Sequence[Any]) -> Iterator[tuple[Callable[[object], None], object]]:
    """Yield where functions of the user's hold NumPy or one of its functions: how it is put."""
    for item, held in walk(roots, with_code=True):
        values = [value for one in held for value in one.before]
        if isinstance(item, Names):
            for name, value in zip(item.names, values, strict=True):
                if id(value) in _BY_ID:
                    yield partial(item.owner.__setitem__, name), value
        elif isinstance(item, CellType):
            for value in values:
                if id(value) in _BY_ID:
                    yield partial(setattr, item, "cell_contents"), value
