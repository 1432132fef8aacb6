"""Save and load: a training state, or a pytree of arrays, as one ``.npz`` file without pickle."""

from __future__ import annotations

import contextlib
import io
import itertools
import json
import os
import struct
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any, TypeAlias

import numpy as np

from .pytree import DEEPEST, Pytree, Sharing, float_tree, leaves, too_deep, with_leaves
from .state import kind_of
from .train_state import TrainState
from .validation import Array, Stream

FORMAT, VERSION, STRUCTURE = "spiral_autograd", 1, "structure"
DAMAGED = (
    *(zipfile.BadZipFile, zlib.error, struct.error, EOFError, NotImplementedError, RuntimeError),
    *(KeyError, IndexError, TypeError, ValueError, AttributeError, OverflowError),
)
Node: TypeAlias = Any  # what JSON holds: [kind, content]


def save(state: TrainState | Pytree, path: str | os.PathLike[str]) -> None:
    """Save a training state, or a pytree of arrays, as one ``.npz`` file: whole, or not at all.

    The file is written beside `path`, to which no suffix is added, and then moved there. It holds
    no pickle, and ``numpy.load(path)["['params']['W1']"]`` reads a parameter without this library.

    Leaves of another kind than arrays, numbers, text, None, random streams and states raise
    TypeError. Where a file cannot be written, as in a folder that is not there, OSError is raised;
    what stood there before is then still there.

    Examples
    --------
    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     save({"W": np.eye(2), "epoch": 3}, f"{folder}/run.npz")
    ...     load(f"{folder}/run.npz")
    {'W': array([[1., 0.],
           [0., 1.]]), 'epoch': 3}
    """
    arrays: dict[str, Array] = {}
    structure = {"format": FORMAT, "version": VERSION, "tree": _node("", state, arrays)}
    arrays[STRUCTURE] = np.array(json.dumps(structure))
    write_whole(path, lambda file: np.savez(file, **arrays))  # type: ignore[arg-type]


def load(path: str | os.PathLike[str]) -> Any:
    """Return what `save` saved: bit for bit, arrays that were one array as one array again.

    Raises
    ------
    ValueError
        For a file that is damaged, cut off, not made by `save`, or made by a newer version. The
        file is only read.
    OSError
        Where there is no such file, or it cannot be read.

    Examples
    --------
    >>> load("no such file.npz")
    Traceback (most recent call last):
    FileNotFoundError: [Errno 2] No such file or directory: 'no such file.npz'
    """
    with open(path, "rb") as file:
        data = io.BytesIO(file.read())
    try:
        # `read` compares each member with its checksum before anything is made of its bytes.
        with zipfile.ZipFile(data) as archive:
            members = {name.removesuffix(".npy"): archive.read(name) for name in archive.namelist()}
        arrays = {name: np.load(io.BytesIO(b), allow_pickle=False) for name, b in members.items()}
        if STRUCTURE in arrays:
            structure = json.loads(arrays[STRUCTURE].item())
            if structure["format"] != FORMAT:
                raise ValueError(f"its format is {structure['format']!r}")
            version = int(structure["version"])
            tree = _tree(structure["tree"], arrays) if version <= VERSION else None
    except DAMAGED as error:
        raise ValueError(
            f"{os.fspath(path)!r} is damaged, or was not made by save: "
            f"{type(error).__name__}: {error}"
        ) from error
    if STRUCTURE not in arrays:
        raise ValueError(
            f"{os.fspath(path)!r} was not made by save: it holds only the arrays "
            f"{', '.join([*arrays][:8])}, which dict(numpy.load(path)) reads"
        )
    if version > VERSION:
        raise ValueError(
            f"{os.fspath(path)!r} was saved by a newer spiral_autograd, in version {version} of "
            f"the format; this one reads up to {VERSION}: upgrade it"
        )
    return tree


def write_whole(path: str | os.PathLike[str], write: Callable[[IO[bytes]], Any]) -> None:
    """Write a new file beside a path, then move it there: whole, or not at all.

    An OSError names the path, not the new file, and a folder that is missing.
    """
    if not isinstance(path, str | os.PathLike):
        raise TypeError(f"path must be the path of a file, got a {type(path).__name__}")
    path = Path(path)
    part = path.with_name(f".{os.urandom(8).hex()}.part")
    try:
        with part.open("xb") as file:
            write(file)
        os.replace(part, path)
    except OSError as error:
        why = error.strerror or str(error)
        if isinstance(error, FileNotFoundError):
            why = f"there is no folder {str(path.parent)!r}, make it first (os.makedirs)"
        raise type(error)(error.errno, why, str(path)) from None
    finally:
        with contextlib.suppress(OSError):
            part.unlink()  # there only where something went wrong


# -------------------- a tree as JSON and arrays --------------------


def _node(path: str, value: Any, arrays: dict[str, Array], depth: int = DEEPEST) -> Node:
    """Return what describes a value in JSON; its arrays are put into `arrays`, by their path."""
    if not depth:
        raise too_deep(path[:60])
    kind = type(value)
    if value is None or kind in (bool, int, float, str):
        return ["value", value]

    def inside(key: Any, item: Any) -> Node:
        return _node(f"{path}[{key!r}]", item, arrays, depth - 1)

    if kind is dict:
        return ["dict", [[_key(path, key), inside(key, item)] for key, item in value.items()]]
    if kind in (list, tuple):
        return [kind.__name__, list(itertools.starmap(inside, enumerate(value)))]
    if kind is np.ndarray or isinstance(value, np.generic):
        if value.dtype.hasobject:
            raise TypeError(f"{path or 'an array'} must hold numbers, got dtype {value.dtype}")
        arrays[path] = np.asarray(value)
        return ["array" if kind is np.ndarray else "scalar", path]
    for name, (made_of, taken_apart, _) in _OBJECTS.items():
        if isinstance(value, made_of):
            return [name, _node(path, taken_apart(value), arrays, depth - 1)]
    raise TypeError(
        f"{path or 'state'} cannot be saved: it must be an array, a number, text, None, a random "
        f"stream, a TrainState, or a nest of dicts, lists and tuples of them, got {kind.__name__}"
    )


def _key(path: str, key: Any) -> Any:
    if type(key) not in (str, int, float, bool):
        raise TypeError(f"the keys of {path or 'state'} must be text or numbers, got {key!r}")
    return key


def _tree(node: Node, arrays: dict[str, Array]) -> Any:
    """Return the value that a node describes."""
    kind, content = node
    if kind == "value":
        return content
    if kind == "dict":
        return {key: _tree(item, arrays) for key, item in content}
    if kind in ("list", "tuple"):
        items = [_tree(item, arrays) for item in content]
        return items if kind == "list" else tuple(items)
    if kind in ("array", "scalar"):
        return arrays[content] if kind == "array" else arrays[content][()]
    return _OBJECTS[kind][2](_tree(content, arrays))


def _stream_state(stream: Stream) -> dict[str, Any]:
    (state,) = kind_of(type(stream)).read(stream)
    if isinstance(stream, np.random.RandomState) and state["bit_generator"] != "MT19937":
        # NumPy itself could not put it back
        raise TypeError("a RandomState must be of MT19937, as all are that a seed starts")
    return dict(state)


def _stream(kind: type[Any]) -> Callable[[dict[str, Any]], Stream]:
    """Return what makes a random stream, of a bit generator of NumPy's own, at a state."""

    def made(state: dict[str, Any]) -> Stream:
        bits = getattr(np.random, state["bit_generator"])
        if not issubclass(bits, np.random.BitGenerator):
            raise ValueError(f"{bits} is no random stream")
        stream: Stream = kind(bits())
        kind_of(kind).write(stream, [state])  # type: ignore[misc]
        return stream

    return made


def _train_state(fields: dict[str, Any]) -> TrainState:
    """Return the state of its fields, in which leaves that were one array are one array again."""
    params = float_tree("params", fields["params"])
    one = fields["sharing"].spread(leaves(params))
    return TrainState(**{**fields, "params": with_leaves(params, one)})


# How the objects among the leaves are taken apart, and made of these parts again.
_OBJECTS: dict[str, tuple[type, Callable[[Any], Any], Callable[[Any], Any]]] = {
    "TrainState": (TrainState, vars, _train_state),
    "Sharing": (Sharing, lambda sharing: sharing.places, Sharing),
    "RandomState": (np.random.RandomState, _stream_state, _stream(np.random.RandomState)),
    "Generator": (np.random.Generator, _stream_state, _stream(np.random.Generator)),
}
