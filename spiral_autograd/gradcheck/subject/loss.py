"""A scalar loss and its gradient function, and the marks of intermediate values in the loss."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np

from ...pytree import Pytree, named_leaves, paths, tree_map
from ...validation import Array
from ..finding import found
from ..source import code_of
from .adapter import Adapter, Terms, Values, written_into
from .conventions import differing, gradient_key, is_target_first
from .inputs import as_array, as_dict, by_company, is_named_tuple, leaf_name, unshared
from .marks import collecting, marked, tapping
from .objects import name_of_function, nested, positional_names, require_function
from .parameters import Parameter
from .returned import place_of_loss, returned_names
from .session import put_back, states, streams_of
from .subject import (
    CheckError,
    Subject,
    called,
    checksums,
    described,
    is_float_array,
    is_scalar,
    outputs_of,
)

# -------------------- the loss and its gradient --------------------


class Gradient(Adapter):
    """Runs somebody's scalar loss of a pytree, and the gradient function, or has the gradient."""

    def __init__(
        self, loss: Any, gradient: Any, params: Pytree, data: Sequence[Any], terms: Terms
    ) -> None:
        require_function("loss", loss)
        self.loss, self.gradient, self.data = loss, gradient, data
        self.label = name_of_function(loss, "loss")
        self.backward_label = name_of_function(gradient, "gradient")
        names = positional_names(loss, 1 + len(data))
        # as in mse(y_true, y_pred); a nest of arrays is no targets
        self.is_swapped = not isinstance(params, dict) and is_target_first(names[:2])
        if self.is_swapped:
            params, data = data[0], (params, *data[1:])
            self.data, names = data, [names[1], names[0], *names[2:]]
        self.form = params
        params = tree_map(as_array, as_dict(params))
        super().__init__([params], ["params"], terms)
        session = self.session
        (self.params,), self.name, self.data_names = self.inputs, names[0], names[1:]
        self.data = unshared(self.data, self.params)
        self.paths = _floats_in(self.params)
        with session.fresh(), collecting(self.label) as self.marks:
            self.outputs = outputs_of(self.label, self.run())
            self._say_written(self.label)
        if len(self.outputs) != 1 or self.outputs[0].size != 1:
            shapes = ", ".join(str(out.shape) for out in self.outputs)
            raise CheckError(
                f"{self.label} must return a scalar, got the shape {shapes}; for a function of "
                "arrays that returns (out, cache) use check_backward"
            )
        # A loss that writes into its parameters spoils them.
        self.follows_loss = callable(gradient) and not self.remarks and self._reads_what_is_left()
        self._mark_variables()
        session.add(self.marks, self.data)
        with session.fresh():
            self.run_backward()
            self._say_written(self.backward_label)
            self._choose()
            keys = [str(key) for key in self.result] if isinstance(self.result, dict) else []
            self.constant.require_known(self.label, [*self.value_names, *keys])
            self.settle()

    def run(self) -> Any:
        """Run the loss."""
        return value_of(called(self.label, self.loss, *self._given(self.params, self.data)))

    def _given(self, params: Pytree, data: Sequence[Any]) -> list[Any]:
        """Return what both functions are given, in their order."""
        first = [self._own(params), *data[:1]]
        return [*(reversed(first) if self.is_swapped else first), *data[1:]]

    def _own(self, params: Pytree) -> Pytree:
        """Return parameters as they were given: in a named tuple or an object, if they were."""
        if isinstance(self.form, dict) or not isinstance(params, dict):
            return params
        if is_named_tuple(self.form):
            return type(self.form)(**params)
        other = copy.copy(self.form)
        for name, value in params.items():
            object.__setattr__(other, name, value)
        return other

    def run_forward(self) -> list[Array]:
        """Run the loss with what the marks add."""
        with tapping(added=self.marks):
            return super().run_forward()

    def run_backward(self, ups: Sequence[Array] = ()) -> Any:
        """Get the handwritten gradient, without the value of the loss that may come with it."""
        self.result = self.gradient
        if not callable(self.gradient):
            return self.result
        if self.follows_loss:  # which is not to draw the random numbers of the gradient
            noted = states(streams_of(self.loss, self.gradient, self.params, self.data))
            self.run()
            put_back(noted)
        result = called(self.backward_label, self.gradient, *self._given(self.params, self.data))
        names = {id(leaf): leaf_name(path) for path, leaf in self.paths}
        result = by_company(self._without_value(result), lambda: names)
        self.result = self._as_params(result)
        return self.result

    def gradients(
        self, ups: list[Array], between: Callable[[Any], None] | None = None
    ) -> list[Any]:
        """Return the handwritten gradient of each value."""
        self.run_backward(ups)
        return self.read()

    def substitute(self, replacements: Sequence[Any], values: Values = None) -> list[Any]:
        """Run the loss on other values."""
        memo = self.standing_in(replacements, values)
        here = self.params, list(self.data), dict(self.marks)
        params, data, marks = tree_map(lambda leaf: memo.get(id(leaf), leaf), here)
        with tapping(added=marks):
            return [value_of(self.loss(*self._given(params, data)))]

    @contextmanager
    def given(self, others: Sequence[Any]) -> Iterator[None]:
        """Let the values hold other numbers for a while."""
        here = [value.copy() for value in self.values]
        _fill(self.values, others)
        try:
            yield
        finally:
            _fill(self.values, here)

    def _mark_variables(self) -> None:
        """Mark the loss's own variables, too, of which a finished gradient has a d before them."""
        code, grads = code_of(self.loss), self.gradient
        if code is None or not isinstance(grads, dict):
            return
        known = {*self.marks, *(self.params if isinstance(self.params, dict) else ())}
        names = {*code.co_varnames, *code.co_cellvars} - known
        self.loss = marked(self.loss, {n for n in names if f"d{n}" in grads or f"d_{n}" in grads})
        with self.session.fresh(), collecting(self.label) as self.marks:
            self.run()

    def _reads_what_is_left(self) -> bool:
        """Tell whether the gradient function reads what the loss has left, and comes after."""
        alone, after = (self._tried(follows) for follows in (False, True))
        return after is not None and alone != after

    def _tried(self, follows_loss: bool) -> list[int] | None:
        self.follows_loss = follows_loss
        try:
            with self.session.fresh():
                return checksums([leaf for _, leaf in named_leaves("", self.run_backward())])
        except CheckError:
            return None

    def _say_written(self, label: str) -> None:
        """Say into which parameters and data a function has written."""
        arrays = [(self._leaf(path), value) for path, value in self.paths]
        for name, item in zip(self.data_names, self.data, strict=True):
            arrays += [(path, leaf) for path, _, leaf in nested(name, item)]
        written = written_into(self.session, arrays)
        self.remarks += [found("writes", who=label, name=name) for name in written]

    def _without_value(self, result: Any) -> Any:
        """Return the gradients without the loss that may stand before or behind them."""
        if not isinstance(result, tuple) or len(result) < 2:
            return result
        own, theirs = ([path for path, _ in paths(tree)] for tree in (self.params, result))
        if own == theirs:
            return result
        at = place_of_loss(result, np.reshape(self.outputs[0], ()))
        rest = result if at is None else (*result[:at], *result[at + 1 :])
        return rest[0] if len(rest) == 1 else rest

    def _as_params(self, grads: Any) -> Any:
        """Return gradients in a tuple by the parameters' keys: by name, else by order and shape."""
        own = self.params if isinstance(self.params, dict) else {}
        if not isinstance(grads, tuple | list) or len(grads) != len(own):
            return grads
        names = returned_names(self.gradient, len(grads))
        if all(gradient_key(names, str(key), own) for key in own):
            return dict(zip(names, grads, strict=True))
        shapes = [(np.shape(own[key]), np.shape(g)) for key, g in zip(own, grads, strict=True)]
        return dict(zip(own, grads, strict=True)) if all(a == b for a, b in shapes) else grads

    # -------------------- the parameters, each with its gradient --------------------

    def _choose(self) -> None:
        """Take the leaves of params: by keys where gradients come in a dict, else by structure."""
        params, grads = self.params, self.result
        flat = params if isinstance(params, dict) else {}
        has_nests = any(isinstance(value, dict | list | tuple) for value in flat.values())
        if not isinstance(grads, dict) or has_nests:
            self._require_structure(grads)
            self.parameters = [
                Parameter(self._leaf(path), value, partial(self._at_path, path))
                for path, value in self.paths
            ]
            return
        own = {f"[{key!r}]": key for key in flat}  # any keys, not names alone
        named: list[tuple[str, Array, Any]] = [
            (name, zeros, name)
            for name, zeros in reversed(self.marks.items())  # as the backward pass meets them
            if _key_of(grads, name, name) is not None
        ]
        in_turn = bool(named) and not callable(self.gradient)
        named += [(self._leaf(path), value, own.get(path)) for path, value in self.paths]
        absent = self._say_keys(grads, {name: key for name, _, key in named}, in_turn)
        self.parameters = [
            Parameter(name, value, partial(self._at_key, name, key))
            for name, value, key in named
            if not (in_turn and name in absent)
        ]

    def _at_path(self, path: str) -> object:
        return dict(named_leaves("", self.result)).get(path)

    def _at_key(self, name: str, key: object) -> object:
        return self.result.get(_key_of(self.result, name, key))

    def _leaf(self, path: str) -> str:
        """Return what the reader calls a leaf: its key; in a list, or bare, by the parameter."""
        name = leaf_name(path)
        return f"{self.name}{name}" if not name or name.startswith("[") else name

    def _say_keys(self, grads: dict[Any, Any], names: dict[str, Any], in_turn: bool) -> list[str]:
        """Say which keys are missing, differ in a letter only, or belong to nothing."""
        keys = {name: _key_of(grads, name, key) for name, key in names.items()}
        absent = [n for n, key in keys.items() if key is None and not self.constant.has(n)]
        unread = {key: g for key, g in grads.items() if key not in keys.values()}
        if isinstance(self.params, dict):
            self.remarks += differing(self.params, grads)
        self.say_unread(unread, "mark")
        if absent and len(absent) == len(names):
            others = f", but has {', '.join(map(str, unread))}" if unread else ""
            raise CheckError(
                f"the dict of gradients has no entry for {', '.join(absent)}{others}; name the "
                "gradient of W1 dW1 or W1"
            )
        if in_turn:
            self.unchecked += absent
        elif absent:
            self.remarks.append(found("no_entry", names=absent, others=list(map(str, unread))))
        return absent

    def _require_structure(self, grads: object) -> None:
        """Raise, or say, where the gradient has another structure than params."""
        got = dict(named_leaves("", grads))
        wanted = [path for path, _ in self.paths]
        if not any(path in got for path in wanted):
            raise CheckError(
                f"the gradient must have the structure of params, with the leaves "
                f"{', '.join(f'params{p}' for p in wanted)}, got {described(grads)} with "
                f"{', '.join(f'gradient{p}' for p in got) or 'none'}"
            )
        every = {path for path, _ in named_leaves("", self.params)}
        unread = [f"gradient{path}" for path in got if path not in every]
        if unread:
            self.remarks.append(found("other_structure", names=unread))

    def subject(self) -> Subject:
        """Return the loss and its gradient as a subject."""
        marks = {id(zeros) for zeros in self.marks.values()}
        return replace(
            super().subject(),
            upstream=[np.ones(self.outputs[0].shape, dtype=self.outputs[0].dtype)],
            inputs=self.values,
            has_cache=False,
            forward_code=[self.loss],
            backward_code=[self.gradient] if callable(self.gradient) else [],
            takes_upstream=False,
            is_loss=True,
            marks=frozenset(k for k, value in enumerate(self.values) if id(value) in marks),
        )


def value_of(result: object) -> object:
    """Return the loss of what a function returns that gives the gradient beside it."""
    if not isinstance(result, tuple) or len(result) < 2 or all(map(is_scalar, result)):
        return result
    return next((end for end in (result[0], result[-1]) if is_scalar(end)), result)


def _floats_in(params: Pytree) -> list[tuple[str, Array]]:
    """Return the paths and the arrays of the float leaves of params, which must have some."""
    found = list(named_leaves("", params))
    floats = [(path, leaf) for path, leaf in found if is_float_array(leaf)]
    if not floats:
        came = ", ".join(described(leaf) for _, leaf in found[:4]) or "none"
        raise CheckError(
            "params must hold floating-point arrays (an array, or a nest of dicts, lists and "
            f"tuples with arrays as leaves), got {came}; integer arrays have no gradient"
        )
    return floats


def _key_of(grads: dict[Any, Any], name: str, key: object) -> Any:
    """Return the key of a gradient: the parameter's own, or one that is made of its name."""
    if key in grads and not isinstance(key, str):
        return key
    return gradient_key(grads, key if isinstance(key, str) else name)


def _fill(values: Sequence[Array], contents: Sequence[Array]) -> None:
    for value, content in zip(values, contents, strict=True):
        value[...] = content
