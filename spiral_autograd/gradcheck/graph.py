"""autograd's backward graph, changed in one place and run again."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from ..recording import Call, Recording, name_of

Values = dict[Call, Any]


class BackwardGraph:
    """A recording whose values can be changed, to see which gradients come out.

    Attributes
    ----------
    forward, backward : lists of Call
    grads : list of Call or array
    """

    def __init__(self, recording: Recording, values: Values | None = None) -> None:
        self.recording = recording
        self.base: Values = values or {}
        self.calls = recording.calls
        needed = self._needed(recording)
        self.forward = [c for c in self.calls if c.gradient_of is None and _is_array(c.value)]
        self.backward = [
            c
            for c in self.calls
            if c.gradient_of is not None and c in needed and _is_array(c.value)
        ]
        self._position = {call: i for i, call in enumerate(self.calls)}
        self.reaches = self._reach(recording)

    def value(self, arg: Any) -> Any:
        """Return the value of a call in this graph, or the constant itself."""
        return self.base.get(arg, arg.value) if isinstance(arg, Call) else arg

    def _needed(self, recording: Recording) -> set[Call]:
        found: set[Call] = set()
        pending = [g for g in recording.grads if isinstance(g, Call)]
        while pending:
            call = pending.pop()
            if call not in found:
                found.add(call)
                pending.extend(a for a in call.args if isinstance(a, Call))
        return found

    def _reach(self, recording: Recording) -> dict[Call, frozenset[int]]:
        """Return which gradients each backward call flows into."""
        reach: dict[Call, set[int]] = {}
        for k, grad in enumerate(recording.grads):
            if isinstance(grad, Call):
                reach.setdefault(grad, set()).add(k)
        for call in reversed(self.calls):
            mine = reach.get(call)
            if mine and call.gradient_of is not None:
                for arg in call.args:
                    if isinstance(arg, Call):
                        reach.setdefault(arg, set()).update(mine)
        return {call: frozenset(ks) for call, ks in reach.items()}

    def replay(self, changed: Values, backward_only: bool = True) -> Values:
        """Return the values of all calls that depend on those changed, these included."""
        values = dict(changed)
        first = min(self._position.get(call, 0) for call in changed)
        for call in self.calls[first:]:
            if call in values or (backward_only and call.gradient_of is None):
                continue
            if any(isinstance(a, Call) and a in values for a in call.args):
                args = [
                    values[a] if isinstance(a, Call) and a in values else self.value(a)
                    for a in call.args
                ]
                values[call] = call.fun.fun(*args, **call.kwargs)
        return values

    def gradient(self, k: int, values: Values) -> Any:
        """Return the gradient of the k-th value, given the values that a replay changed."""
        grad = self.recording.grads[k]
        if isinstance(grad, Call):
            return np.asarray(values[grad] if grad in values else self.value(grad))
        return np.asarray(grad)

    def without(self, call: Call, position: int) -> BackwardGraph | None:
        """Return the graph of the forward pass with one of its constants set to zero."""
        args = [self.value(a) for a in call.args]
        args[position] = np.zeros_like(args[position])[()]
        try:
            with np.errstate(all="ignore"):
                changed = self.replay(
                    {call: call.fun.fun(*args, **call.kwargs)}, backward_only=False
                )
        except Exception:
            return None
        return BackwardGraph(self.recording, {**self.base, **changed})

    def small_constants(self) -> Iterator[tuple[Call, int, float]]:
        """Yield each small constant that the forward pass adds or compares with."""
        for call in self.forward:
            if name_of(call.fun) not in ("add", "subtract", "maximum", "clip", "fmax", "where"):
                continue
            for position, arg in enumerate(call.args):
                if isinstance(arg, Call | bool | str) or np.ndim(arg):
                    continue
                if (
                    isinstance(arg, int | float | np.generic | np.ndarray)
                    and 0 < abs(float(arg)) <= 1e-2
                ):
                    yield call, position, float(arg)


def _is_array(value: Any) -> bool:
    return isinstance(value, np.ndarray | np.floating) and np.asarray(value).dtype.kind == "f"
