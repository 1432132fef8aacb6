"""What a diagnosis has to go on, and what it finds."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import combinations
from typing import Any

import numpy as np

from ...recording import Call, Site, name_of
from ...validation import Array
from ..blocks import close, largest
from ..guard import Deadline
from ..lines.trail import Moment
from ..reference.backward_graph import BackwardGraph, again, is_number
from ..source import assigned_to, expression


@dataclass
class Case:
    """What a diagnosis has to go on.

    Attributes
    ----------
    names : list of str
    values : list of arrays
        The arguments.
    automatic : list of arrays
        The reference gradients.
    handwritten : list
        The handwritten ones, None where there is none.
    wrong : list of int
        Which of them are to be explained.
    tolerance : float
    floors : list of float
    graph : BackwardGraph or None
    upstream : list of arrays
    again : callable
        ``again(kind)`` returns the handwritten gradients for another upstream gradient.
    is_loss : bool
    deadline : Deadline
    seen : callable
        Returns what the lines of the handwritten pass make.
    elsewhere : callable
        Returns, by number, where a true gradient stands that the object itself does not hold.
    """

    names: list[str]
    values: list[Array]
    automatic: list[Array]
    handwritten: list[Any]
    wrong: list[int]
    tolerance: float
    floors: list[float]
    graph: BackwardGraph | None
    upstream: list[Array]
    again: Callable[[str], list[Any]] | None
    is_loss: bool
    deadline: Deadline
    seen: Callable[[], Sequence[Moment]] = tuple
    elsewhere: Callable[[], Mapping[int, Any]] = dict
    stock: Any = None  # what a search of the graph keeps
    _known: dict[Call, str] = field(default_factory=dict, repr=False)

    def explains(self, k: int, candidate: Any) -> bool:
        """Tell whether a candidate is the k-th handwritten gradient, to the tolerance."""
        return close(self.handwritten[k], candidate, self.tolerance, self.floors[k])

    def comparable(self, k: int) -> bool:
        """Tell whether the k-th handwritten gradient has finite numbers and the true shape."""
        h = self.handwritten[k]
        if h is None or np.shape(h) != np.shape(self.automatic[k]):
            return False
        return bool(np.isfinite(np.asarray(h, dtype=float)).all())

    def noise(self, k: int) -> float:
        """Return up to which size a difference of the k-th gradients is rounding."""
        both = max(largest(self.handwritten[k]), largest(self.automatic[k]))
        return self.tolerance * both + self.floors[k]

    def late(self) -> bool:
        """Tell whether the time is up."""
        return self.deadline.is_over

    def name_of(self, call: Any) -> str:
        """Return what a value is called in the reader's code: a variable, else an expression."""
        if self.graph is None or not isinstance(call, Call):
            return self.constant_name(call)
        if call not in self._known:
            self._known[call] = self._name_of(call, self.graph)
        return self._known[call]

    def _name_of(self, call: Call, graph: BackwardGraph) -> str:
        for name, root in zip(self.names, graph.roots, strict=True):
            if root is call:
                return name
        for i, root in enumerate(graph.upstream):
            if root is call:
                which = f" of output {i}" if len(graph.upstream) > 1 else ""
                return f"the upstream gradient{which}"
        if call.fun is None:
            return self.constant_name(call.value)
        return self.variable(call) or self.expression(call)

    def variable(self, call: Call) -> str | None:
        """Return the variable or attribute that the reader's code has for a value, if any."""
        if self.graph is None or call.fun is None or call.source is None:
            return None
        file, line, function = call.source
        given = self.graph.recording.names.get(call)
        if given is not None and given != function:
            return given
        text, site = expression(call), self._result_at(call)
        name = assigned_to(text, file, line) if text else None
        if name is None and site is not None and (text := expression(site)):
            name = assigned_to(text, *site.source[:2])
        return name

    def _result_at(self, call: Call) -> Site | None:
        """Return where a function of the reader's was called that a value is the result of."""
        names = self.graph.recording.names if self.graph is not None else {}
        is_result = call.source is not None and names.get(call) == call.source[2]
        return call.called_at if is_result else None

    def expression(self, call: Call) -> str:
        """Return the reader's own expression for a value."""
        text = expression(self._result_at(call) or call) if call.gradient_of is None else None
        return f"`{_short(text)}`" if text else f"the result of {name_of(call.fun)}"

    def is_named(self, call: Call) -> bool:
        """Tell whether the reader's code has a name for a value."""
        roots = self.graph.roots if self.graph is not None else []
        return any(call is root for root in roots) or self.variable(call) is not None

    def constant_name(self, value: Any) -> str:
        """Return what to call an array that is a constant of the forward pass."""
        for name, own in zip(self.names, self.values, strict=True):
            if own is value:
                return name
        return "a constant array" if isinstance(value, np.ndarray) and value.ndim else f"{value}"

    def constants(self) -> Iterator[tuple[float, str, Call]]:
        """Yield the numbers that the forward pass multiplies by, with the expression and call."""
        for call in self.graph.forward if self.graph is not None else ():
            kind = name_of(call.fun)
            if call.source is None or kind not in ("multiply", "divide", "true_divide"):
                continue
            for position, arg in enumerate(call.args):
                if is_number(arg) and abs(float(arg)) not in (0.0, 1.0):
                    inverse = position == 1 and kind != "multiply"
                    yield 1 / float(arg) if inverse else float(arg), self.expression(call), call

    def for_other_upstreams(self, k: int) -> list[tuple[BackwardGraph, Array]]:
        """Return the graph and the k-th handwritten gradient for other upstream gradients.

        None where backward takes no upstream gradient, or one number, which only scales it.
        """
        if self.again is None or self.graph is None or sum(map(np.size, self.upstream)) < 2:
            return []
        return [
            (
                self.graph.for_upstream(other_upstream(self.upstream, kind)),
                np.asarray(self.again(kind)[k], dtype=float),
            )
            for kind in ("other", "mixed")
        ]

    def is_scaled_at(self, call: Call, c: float, k: int) -> bool:
        """Tell whether the k-th gradient comes out with c times what flows back through a call."""
        if self.graph is None:
            return False
        last = [b for b in self.graph.backward if b.gradient_of is call and self.graph.is_last(b)]
        if not last:
            return False
        changes = dict.fromkeys(last, lambda b, get: c * np.asarray(again(b, get)))
        values = self.graph.replay(changes)
        right = [j for j in range(len(self.names)) if j not in self.wrong and self.comparable(j)]
        return all(self.explains(j, self.graph.gradient(j, values)) for j in (k, *right))

    @cached_property
    def dimensions(self) -> dict[float, str]:
        """The lengths of axes that a factor may come from, with what they are."""
        arrays = list(self._given)
        if self.graph is not None:
            calls = self.graph.forward
            arrays += [(self.name_of(c), c.value) for c in calls if c.source is not None]
        found = self._axis_lengths(arrays)
        for name, array in arrays:
            found.setdefault(float(np.size(array)), f"the number of entries of {name}")
        for name, array in self._given:
            axes = range(min(np.ndim(array), 5))
            for some in (c for count in (2, 3) for c in combinations(axes, count)):
                lengths = [np.shape(array)[axis] for axis in some]
                which = f"{' x '.join(map(str, lengths))}, the lengths of axes {some} of {name}"
                found.setdefault(float(np.prod(lengths)), which)
        return {n: text for n, text in found.items() if n > 1}

    @cached_property
    def lengths(self) -> dict[float, str]:
        """The lengths of the axes of the output and of the arguments, with what they are."""
        return {n: text for n, text in self._axis_lengths(self._given).items() if n > 1}

    @property
    def _given(self) -> list[tuple[str, Array]]:
        arguments = zip(self.names, self.values, strict=True)
        return [*(("the output", u) for u in self.upstream), *arguments]

    def _axis_lengths(self, arrays: Sequence[tuple[str, Array]]) -> dict[float, str]:
        found: dict[float, str] = {}
        for number, (name, array) in enumerate(arrays):
            for axis, n in enumerate(np.shape(array)):
                first = axis == 0 and number <= len(self.upstream)
                which = "the batch size" if first else f"the length of axis {axis} of {name}"
                found.setdefault(float(n), which)
        return found

    def same_shape(self, k: int) -> Iterator[tuple[str, Array]]:
        """Yield the arguments, upstream gradients and forward values in the k-th one's shape."""
        shape = np.shape(self.automatic[k])
        for j in (k, *(j for j in range(len(self.values)) if j != k)):
            if np.shape(self.values[j]) == shape:
                yield self.names[j], np.asarray(self.values[j], dtype=float)
        for u in self.upstream:
            if np.shape(u) == shape:
                yield "the upstream gradient", np.asarray(u, dtype=float)
        for call in self.graph.adjoints if self.graph is not None else ():
            if np.shape(call.value) == shape and not self.late():
                assert self.graph is not None
                yield self.name_of(call), np.asarray(self.graph.value(call), dtype=float)


def _short(text: str) -> str:
    """Return an expression without its middle where it is long."""
    return text if len(text) <= 60 else f"{text[:36]}…{text[-20:]}"


@dataclass
class Finding:
    """A mistake that explains some of the wrong gradients.

    Attributes
    ----------
    rule : str
    text : str
        What is wrong, after the name of the gradient.
    rows : list of int
        The gradients that it explains.
    call : Call or None
        The forward operation whose gradient is wrong.
    products : list of arrays
        The wrong values that it makes on the way.
    values : dict
        The backward values with the mistake in them, where a graph was changed.
    lines : tuple of (str, int)
        Where the mistake is, where the rule itself can tell.
    """

    rule: str
    text: str
    rows: list[int]
    call: Call | None = None
    products: list[Any] = field(default_factory=list)
    values: Mapping[Call, Any] = field(default_factory=dict)
    lines: tuple[tuple[str, int], ...] = ()


Rule = Callable[[Case, int], Finding | None]


# -------------------- other upstream gradients --------------------

_UPSTREAM: dict[str, Callable[[Array], Array]] = {
    "none": lambda u: 0 * u,
    "twice": lambda u: 2 * u,
    "turned": lambda u: -u,
    "other": lambda u: _uneven(u) * u,
    "mixed": lambda u: u + 0.5 * _uneven(u) * u,
}


def _uneven(u: Array) -> Array:
    return np.random.default_rng(1).uniform(0.5, 2.0, np.shape(u))


def other_upstream(upstream: Sequence[Array], kind: str) -> list[Array]:
    """Return an upstream gradient made of another one, to see what becomes of the gradients."""
    return [np.asarray(_UPSTREAM[kind](u), dtype=u.dtype) for u in map(np.asarray, upstream)]
