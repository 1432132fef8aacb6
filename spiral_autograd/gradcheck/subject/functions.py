"""A scalar loss and its gradient function, and the marks of intermediate values in the loss."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np

from ...pytree import Pytree, named_leaves, tree_map
from ...validation import Array
from ..finding import Said, found
from ..reference.rebind import rebound, rebound_data
from .conventions import differing, gradient_key, positional_names
from .inputs import Constant, Names, as_array, leaf_name, prepared, say_unread, written_into
from .parameters import nested
from .session import Session, put_back, states, streams_of
from .subject import (
    CheckError,
    Gradients,
    Subject,
    as_gradient,
    as_update_takes,
    called,
    checksums,
    described,
    is_float_array,
    name_of_function,
    other_shapes,
    outputs_of,
    require_function,
)

# -------------------- gradient functions, and marks --------------------

_taps = threading.local()


def tap(name: str, value: Any) -> Any:
    """Mark an intermediate value of a forward pass, whose gradient is to be checked.

    In a check the mark becomes a row of the report; elsewhere this returns `value` as it is.

    Parameters
    ----------
    name : str
        The name under which the dict of gradients has the handwritten one, with or without a d.
    value : array

    Returns
    -------
    array
        The value.

    Examples
    --------
    >>> tap("h", np.array([1.0, 2.0]))
    array([1., 2.])
    """
    collect = getattr(_taps, "collect", None)
    if collect is not None:
        collect.setdefault(name, np.zeros(np.shape(value), dtype=np.asarray(value).dtype))
    added = getattr(_taps, "added", None)
    return value + added[name] if added and name in added else value


@contextmanager
def _tapping(**state: Any) -> Iterator[None]:
    before = dict(_taps.__dict__)
    _taps.__dict__.update(state)
    try:
        yield
    finally:
        _taps.__dict__.clear()
        _taps.__dict__.update(before)


def _value_of(result: Any) -> Any:
    """Return the loss of what a function returns that gives the gradient beside it."""
    if not isinstance(result, tuple) or len(result) != 2 or not _is_scalar(result[0]):
        return result
    return result[0] if not _is_scalar(result[1]) else result


def _is_scalar(value: Any) -> bool:
    return not isinstance(value, dict | list | tuple) and np.ndim(value) == 0


class Gradient:
    """Runs somebody's scalar loss of a pytree, and the handwritten gradient of it.

    Parameters
    ----------
    loss, gradient : callables
        Or the finished gradient in place of the function.
    params : pytree
    data : sequence
        What else the two functions take.
    session : Session
    constant : names
        What is meant to have no gradient.
    """

    def __init__(
        self,
        loss: Any,
        gradient: Any,
        params: Pytree,
        data: Sequence[Any],
        session: Session,
        constant: Names = (),
    ) -> None:
        self.constant = Constant(constant)
        self.unchecked: list[str] = []
        self.failures: list[Said] = []
        require_function("loss", loss)
        self.loss, self.gradient, self.data = loss, gradient, data
        self.label = name_of_function(loss, "loss")
        (self.name,) = positional_names(loss, 1)
        (self.params,), self.remarks = prepared([tree_map(as_array, params)], ["params"])
        self.held = self._held()
        self.marks: dict[str, Array] = {}
        session.add(self.params)
        with session.fresh(), _tapping(collect=self.marks):
            self.outputs = self.run()
            self._say_written(self.label, session)
        if len(self.outputs) != 1 or self.outputs[0].size != 1:
            shapes = ", ".join(str(out.shape) for out in self.outputs)
            raise CheckError(
                f"{self.label} must return a scalar, got the shape {shapes}; for a function of "
                "arrays that returns (out, cache) use check_backward"
            )
        session.add(self.marks)
        self.follows_loss = False
        if callable(gradient) and not self.remarks:  # a loss that writes into params spoils them
            self.follows_loss = self._reads_what_is_left(session)
        with session.fresh():
            found = self.handwritten()
            self._say_written(name_of_function(gradient, "gradient"), session)
            paired = self._paired(found)
            keys = [str(key) for key in found] if isinstance(found, dict) else []
            self.constant.require_known(self.label, [*(name for name, _, _ in paired), *keys])
            self.entries = [e for e in paired if not self.constant.covers(e[0], e[2](found))]
            self.first = Gradients.of(self._read(found), session)
            self.remarks += other_shapes((n, read(found), v) for n, v, read in self.entries)

    def _reads_what_is_left(self, session: Session) -> bool:
        """Tell whether the gradient function reads what the loss has left, so that it comes after.

        Alone it then raises, or gives what belongs to an earlier loss.
        """
        alone, after = (self._tried(session, follows) for follows in (False, True))
        self.follows_loss = False
        return after is not None and alone != after

    def _tried(self, session: Session, follows_loss: bool) -> list[int] | None:
        self.follows_loss = follows_loss
        try:
            with session.fresh():
                return checksums([leaf for _, leaf in named_leaves("", self.handwritten())])
        except CheckError:
            return None

    def _say_written(self, label: str, session: Session) -> None:
        """Say into which parameters and data a function has written."""
        names = positional_names(self.loss, 1 + len(self.data))[1:]
        arrays = [(self._leaf(path), value) for path, value in self.held]
        for name, item in zip(names, self.data, strict=True):
            arrays += [(path, leaf) for path, _, leaf in nested(name, item)]
        self.remarks += [
            found("writes", who=label, name=name) for name in written_into(session, arrays)
        ]

    def _held(self) -> list[tuple[str, Array]]:
        found = list(named_leaves("", self.params))
        held = [(path, leaf) for path, leaf in found if is_float_array(leaf)]
        if not held:
            came = ", ".join(described(leaf) for _, leaf in found[:4]) or "none"
            raise CheckError(
                "params must hold floating-point arrays (an array, or a nest of dicts, lists and "
                f"tuples with arrays as leaves), got {came}; integer arrays have no gradient"
            )
        return held

    def run(self) -> list[Array]:
        """Run the loss."""
        value = _value_of(called(self.label, self.loss, self.params, *self.data))
        return outputs_of(self.label, value)

    def run_tapped(self) -> list[Array]:
        """Run the loss with what the marks add."""
        with _tapping(added=self.marks):
            return self.run()

    def handwritten(self) -> Any:
        """Return the handwritten gradient, without the value of the loss that may come with it."""
        if not callable(self.gradient):
            return self.gradient
        label = name_of_function(self.gradient, "gradient")
        if self.follows_loss:  # which is not to draw the random numbers of the gradient
            noted = states(streams_of(self.loss, self.gradient, self.params, self.data))
            self.run()
            put_back(noted)
        result = called(label, self.gradient, self.params, *self.data)
        return result[1] if self._has_value(result) else result

    def _has_value(self, result: Any) -> bool:
        """Tell whether the gradient comes in a tuple after the loss, and is not the tuple."""
        if not isinstance(result, tuple) or len(result) != 2 or self._is_like_params(result):
            return False
        return self._is_like_params(result[1]) or _is_scalar(result[0])

    def _is_like_params(self, tree: Any) -> bool:
        """Tell whether a tree has the structure of params; a dict, whether it has its keys."""
        if isinstance(tree, dict) and isinstance(self.params, dict):
            return True
        paths = [path for path, _ in named_leaves("", self.params)]
        return paths == [path for path, _ in named_leaves("", tree)]

    def _paired(self, grads: Any) -> list[tuple[str, Array, Callable[[Any], Any]]]:
        """Return each value with its name and how to read its gradient from what was returned."""
        if isinstance(grads, dict) and not (isinstance(self.params, dict) and _nested(self.params)):
            flat = self.params if isinstance(self.params, dict) else {}
            own = {f"[{key!r}]": key for key in flat}  # any keys, not names alone
            named = [(self._leaf(path), value, own.get(path)) for path, value in self.held]
            named += [(name, zeros, name) for name, zeros in self.marks.items()]
            self._require_keys(grads, {name: key for name, _, key in named})
            return [(name, value, _by_key(name, key)) for name, value, key in named]
        self._require_structure(grads)
        return [(self._leaf(path), value, _by_path(path)) for path, value in self.held]

    def _leaf(self, path: str) -> str:
        """Return what the reader calls a leaf: its key; in a list, or bare, by the parameter."""
        name = leaf_name(path)
        return f"{self.name}{name}" if not name or name.startswith("[") else name

    def _require_keys(self, grads: dict[Any, Any], names: dict[str, Any]) -> None:
        keys = {name: _key_of(grads, name, key) for name, key in names.items()}
        absent = [n for n, key in keys.items() if key is None and not self.constant.has(n)]
        unread = [str(key) for key in grads if key not in keys.values()]
        if isinstance(self.params, dict):
            self.remarks += [f"the keys differ: {text}" for text in differing(self.params, grads)]
        say_unread(self, {key: g for key, g in grads.items() if str(key) in unread}, "mark")
        if not absent:
            return
        text = f"the dict of gradients has no entry for {', '.join(absent)}" + (
            f", but has {', '.join(unread)}" if unread else ""
        )
        if len(absent) == len(names):
            raise CheckError(f"{text}; name the gradient of W1 dW1 or W1")
        self.remarks.append(text)

    def _require_structure(self, grads: Any) -> None:
        got = dict(named_leaves("", grads))
        wanted = [path for path, _ in self.held]
        if not any(path in got for path in wanted):
            raise CheckError(
                f"the gradient must have the structure of params, with the leaves "
                f"{', '.join(f'params{p}' for p in wanted)}, got {described(grads)} with "
                f"{', '.join(f'gradient{p}' for p in got) or 'none'}"
            )
        every = {path for path, _ in named_leaves("", self.params)}
        unread = [f"gradient{path}" for path in got if path not in every]
        if unread:
            self.remarks.append(
                f"the gradient has another structure than params: {', '.join(unread)} belongs to "
                "no parameter"
            )

    def is_mark(self, value: Any) -> bool:
        """Tell whether a value is what a mark adds."""
        return any(value is zeros for zeros in self.marks.values())

    def substitute(self, replacements: Sequence[Any]) -> list[Any]:
        """Run the loss on other values."""
        memo = {id(v): r for (_, v, _), r in zip(self.entries, replacements, strict=True)}
        others = tree_map(lambda leaf: memo.get(id(leaf), leaf), self.params)
        added = {name: memo.get(id(zero), zero) for name, zero in self.marks.items()}
        with _tapping(added=added):
            return [_value_of(rebound(self.loss)(others, *rebound_data(self.data)))]

    @contextmanager
    def given(self, others: Sequence[Any]) -> Iterator[None]:
        """Let the values hold other numbers for a while."""
        values = [value for _, value, _ in self.entries]
        here = [value.copy() for value in values]
        _fill(values, others)
        try:
            yield
        finally:
            _fill(values, here)

    def gradients(
        self, ups: list[Array], between: Callable[[Any], None] | None = None
    ) -> list[Any]:
        """Return the handwritten gradient of each value."""
        return self._read(self.handwritten())

    def _read(self, found: Any) -> list[Any]:
        return [
            as_update_takes(as_gradient(name, read(found)), value)
            for name, value, read in self.entries
        ]


def gradient_subject(
    loss: Callable[..., Any],
    gradient: Any,
    params: Pytree,
    data: Sequence[Any],
    session: Session,
    constant: Names = (),
) -> Subject:
    """Return a scalar loss of a pytree and its handwritten gradient as a subject."""
    run = Gradient(loss, gradient, params, data, session, constant)
    output = run.outputs[0]
    return Subject(
        names=[name for name, _, _ in run.entries],
        values=[value for _, value, _ in run.entries],
        session=session,
        forward=run.run_tapped,
        substitute=run.substitute,
        backward=run.gradients,
        upstream=[np.ones(output.shape, dtype=output.dtype)],
        outputs=run.outputs,
        first=run.first,
        inputs=[value for _, value, _ in run.entries],
        given=run.given,
        has_cache=False,
        forward_code=[loss],
        backward_code=[gradient] if callable(gradient) else [],
        takes_upstream=False,
        remarks=run.remarks,
        unchecked=run.unchecked,
        failures=run.failures,
        marks=frozenset(k for k, (_, v, _) in enumerate(run.entries) if run.is_mark(v)),
        is_loss=True,
    )


def _fill(values: Sequence[Array], contents: Sequence[Array]) -> None:
    for value, content in zip(values, contents, strict=True):
        value[...] = content


def _by_key(name: str, key: Any) -> Callable[[Any], Any]:
    return lambda found: found.get(_key_of(found, name, key))


def _key_of(grads: dict[Any, Any], name: str, key: Any) -> Any:
    """Return the key of a gradient: the parameter's own, or one that is made of its name."""
    if key in grads and not isinstance(key, str):
        return key
    return gradient_key(grads, key if isinstance(key, str) else name)


def _by_path(path: str) -> Callable[[Any], Any]:
    return lambda found: dict(named_leaves("", found)).get(path)


def _nested(params: dict[Any, Any]) -> bool:
    return any(isinstance(value, dict | list | tuple) for value in params.values())
