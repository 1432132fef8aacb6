"""What a diagnosis has to go on, and what it finds."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property, partial
from itertools import combinations
from typing import Any

import numpy as np

from ...recording import Call, Site
from ...validation import Array
from ..blocks import close, largest
from ..finding import Finding, found
from ..guard import Deadline
from ..reference.graph import Graph, is_number
from ..reference.nodes import Node
from ..source import Place, assigned_to, expression

Lengths = Mapping[float, Finding]
UNLIKELY = 2.4  # what costs more, nobody thinks of
VAGUE = ("times", "ratio", "one_less", "either_way", "constant_added", "part", "that_of")


@dataclass(frozen=True)
class Reason:
    """A mistake that explains some of the wrong gradients.

    Attributes
    ----------
    finding : Finding
        What is wrong, after the name of the gradient.
    rows : list of int
        The gradients that it explains.
    call : Call or None
        The forward operation whose gradient is wrong.
    lines : tuple of Place
        Where it is, where the rule itself can tell.
    cost : float
        How far it is from what a person would think of first.
    """

    finding: Finding
    rows: list[int]
    call: Call | None = None
    lines: tuple[Place, ...] = ()
    cost: float = 0.0

    @property
    def is_unlikely(self) -> bool:
        """Whether it may explain the numbers by chance, or tells less than a line that is right."""
        fields = self.finding.fields
        is_plain = self.kind == "times" and fields["also"] is None
        is_vague = self.kind in VAGUE or fields.get("decides") is False
        return self.cost > UNLIKELY or (is_vague and not is_plain)

    @property
    def tells_less(self) -> bool:
        """Whether a line that is right tells more than it."""
        is_any_factor = self.kind == "times" and "n" not in self.finding.fields
        return self.is_unlikely or self.kind in ("left_out", "lost", "part") or is_any_factor

    @property
    def rule(self) -> str | None:
        """What sort of mistake it is."""
        return self.finding.rule

    @property
    def kind(self) -> str:
        """What is wrong: the kind of its finding."""
        return self.finding.kind


@dataclass
class Case:
    """What a diagnosis has to go on.

    Attributes
    ----------
    names : list of str
    values : list of arrays
        The arguments.
    automatic : list of arrays
        The true gradients.
    handwritten : list
        The handwritten ones, None where there is none.
    wrong : list of int
        Which of them are to be explained.
    tolerance : float
    floors : list of float
    graph : Graph or None
    upstream : list of arrays
    again : callable or None
        ``again(kind)`` returns the handwritten gradients for another upstream gradient.
    deadline : Deadline
    changed : dict
        The names of the arguments that backward has changed, once it has run `again`.
    elsewhere : callable
        Returns, by number, what is known of gradients that the object itself does not hold.
    n_inputs : int
        How many of the arguments, the first ones, are inputs and no parameters.
    name_of_upstream : str or None
        What backward calls the upstream gradient, if it is one.
    has_lines : bool
        Whether there is a backward pass whose lines can be read, and mended.
    second : callable
        Returns the case at a second point, where a reason must hold too; None if there is none.
    at_other_sizes : callable
        Returns the case for inputs of other sizes, where a reason should hold too; None if there is
        none.
    at_other_settings : callable
        Returns the handwritten and the true gradients where one setting is another, for each.
    rerun : callable or None
        Returns the handwritten gradients of a second point, once more.
    """

    names: list[str]
    values: list[Array]
    automatic: list[Array]
    handwritten: list[Any]
    wrong: list[int]
    tolerance: float
    floors: list[float]
    graph: Graph | None
    upstream: list[Array]
    again: Callable[[str], list[Any]] | None
    deadline: Deadline
    changed: dict[str, None] = field(default_factory=dict)
    elsewhere: Callable[[], Mapping[int, tuple[Finding, tuple[Place, ...]]]] = dict
    n_inputs: int = 0
    name_of_upstream: str | None = None
    has_lines: bool = True
    second: Callable[[], Case | None] = lambda: None
    at_other_sizes: Callable[[], Case | None] = lambda: None
    at_other_settings: Callable[[], Iterable[tuple[Sequence[Any], Sequence[Any]]]] = lambda: ()
    rerun: Callable[[], list[Any]] | None = None
    _variables: dict[Node, str | None] = field(default_factory=dict, repr=False)

    def explains(self, k: int, candidate: object) -> bool:
        """Tell whether a candidate is the k-th handwritten gradient, to the tolerance."""
        return close(self.handwritten[k], candidate, self.tolerance, self.floors[k])

    def same(self, k: int, ours: object, theirs: object) -> bool:
        """Tell whether two versions of the k-th gradient differ by no more than rounding."""
        return close(ours, theirs, self.tolerance, self.floors[k])

    def written(self, k: int) -> Array:
        """Return the k-th handwritten gradient in float64."""
        return np.asarray(self.handwritten[k], dtype=float)

    def comparable(self, k: int) -> bool:
        """Tell whether the k-th handwritten gradient has finite numbers and the true shape."""
        h = self.handwritten[k]
        if h is None or np.shape(h) != np.shape(self.automatic[k]):
            return False
        return bool(np.isfinite(self.written(k)).all())

    def noise(self, k: int) -> float:
        """Return up to which size a difference of the k-th gradients is rounding."""
        both = max(largest(self.handwritten[k]), largest(self.automatic[k]))
        return self.tolerance * both + self.floors[k]

    def is_zero(self, k: int) -> bool:
        """Tell whether the k-th true gradient is zero but for rounding."""
        return largest(self.automatic[k]) <= self.floors[k]

    # -------------------- names --------------------

    def name(self, node: Node) -> Finding:
        """Return what a value is called in the reader's code: a variable, else an expression."""
        variable = self.variable(node)
        return found("named", name=variable) if variable else self.expression(node)

    def variable(self, node: Node) -> str | None:
        """Return the variable or attribute that the reader's code has for a value, if any."""
        if node not in self._variables:
            self._variables[node] = self._variable(node)
        return self._variables[node]

    def _variable(self, node: Node) -> str | None:
        call, given = node.call, self.graph.recording.names if self.graph is not None else {}
        if call.fun is None:
            return self.names[node.number]
        if call.source is None:
            return None
        if given.get(call) not in (None, call.source[2]):
            return given[call]
        file, line, _ = call.source
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

    def expression(self, node: Node) -> Finding:
        """Return the reader's own expression for a value."""
        text = expression(self._result_at(node.call) or node.call)
        return found("expression", text=text) if text else found("result", of=node.name)

    def operand(self, node: Node, i: int) -> Finding:
        """Return what the i-th argument of an operation is called."""
        arg = node.call.args[i]
        if self.graph is not None and isinstance(arg, Call):
            if arg in self.graph.of:
                return self.name(self.graph.of[arg])
            name = self.graph.recording.names.get(arg)
            return found("named", name=name) if name else found("array")
        own = (n for n, v in zip(self.names, self.values, strict=True) if v is arg)
        name = next(own, None)
        return found("named", name=name) if name else found("array")

    # -------------------- what a factor may come from --------------------

    def constants(self) -> Iterator[tuple[float, Node]]:
        """Yield the numbers that the forward pass multiplies by, with the operation."""
        for node in self.graph.nodes if self.graph is not None else ():
            if node.call.source is None or node.name not in ("multiply", "divide", "true_divide"):
                continue
            for position, arg in enumerate(node.call.args):
                if is_number(arg) and abs(float(arg)) not in (0.0, 1.0):
                    inverse = position == 1 and node.name != "multiply"
                    yield 1 / float(arg) if inverse else float(arg), node

    def takes_mean_of(self, n: float) -> bool:
        """Tell whether a mean of n entries is taken: or something is divided by n, or by 1 / n."""
        return self.graph is None or any(_is_mean(node, n) for node in self.graph.nodes)

    def sums_over(self, n: float) -> bool:
        """Tell whether n entries are summed somewhere."""
        some = [node for node in self.graph.nodes if node.call.source] if self.graph else ()
        return self.graph is None or any(_sums(node, n) for node in some)

    @cached_property
    def lengths(self) -> Lengths:
        """The lengths of the axes of all values, with what they are."""
        return self._axis_lengths([*self._given, *self._made])

    @cached_property
    def dimensions(self) -> Lengths:
        """The lengths, and products of lengths, that a factor may come from, with what they are."""
        lengths = dict(self.lengths)
        for name, array in (*self._given, *self._made):
            lengths.setdefault(float(np.size(array)), found("entries", of=name))
        for name, array in self._given:
            axes = range(min(np.ndim(array), 5))
            for some in (c for count in (2, 3) for c in combinations(axes, count)):
                own = [np.shape(array)[axis] for axis in some]
                product = found("axes", lengths=own, axes=some, of=name)
                lengths.setdefault(float(np.prod(own)), product)
        return {n: what for n, what in lengths.items() if n > 1}

    @cached_property
    def measures(self) -> Mapping[tuple[str, tuple[int, ...]], tuple[float, Finding]]:
        """All lengths and products of lengths, with what they are, by the value and its axes."""
        arrays: dict[str, tuple[Finding, Array]] = {}
        for name, array in (*self._given, *self._made):
            arrays.setdefault(str(name.to_dict()), (name, array))
        return {
            (key, axes): (
                float(math.prod(np.shape(what[1])[axis] for axis in axes)),
                self._measure(*what, axes),
            )
            for count in range(1, 5)
            for key, what in arrays.items()
            for axes in combinations(range(np.ndim(what[1])), count)
        }

    def _measure(self, name: Finding, array: Array, axes: tuple[int, ...]) -> Finding:
        """Return what a length is, or a product of lengths."""
        shape, outputs = np.shape(array), [np.shape(u)[:1] for u in self.upstream]
        if axes == (0,) and {*outputs} <= {shape[:1], ()}:
            first = [name for name, _ in self._given[: len(outputs) + bool(self.n_inputs)]]
            if name in first:
                return found("batch_size")
        if len(axes) == 1:
            return found("axis", axis=axes[0], of=name)
        if len(axes) == len(shape):
            return found("entries", of=name)
        return found("axes", lengths=[shape[axis] for axis in axes], axes=axes, of=name)

    def axis_into(self, k: int, what: Finding, n: float) -> Finding:
        """Return the axis of that length of what the k-th argument goes into, if it has one."""
        root = self.graph.roots[k] if self.graph is not None else None
        inner = what.kind == "axis" and what.fields["of"].kind != "output"
        for node in root.users if root is not None and inner else ():
            if n in np.shape(node.value):
                return found("axis", axis=np.shape(node.value).index(n), of=self.name(node))
        return what

    @property
    def _given(self) -> list[tuple[Finding, Array]]:
        arguments = zip(self.names, self.values, strict=True)
        outputs = [(found("output"), u) for u in self.upstream]
        return [*outputs, *((found("named", name=name), value) for name, value in arguments)]

    @cached_property
    def _made(self) -> list[tuple[Finding, Array]]:
        nodes = self.graph.nodes if self.graph is not None else []
        return [(self.name(n), n.value) for n in nodes if n.call.source is not None]

    def _axis_lengths(self, arrays: Sequence[tuple[Finding, Array]]) -> Lengths:
        lengths: dict[float, Finding] = {}
        for number, (name, array) in enumerate(arrays):
            shape = np.shape(array)
            for axis, n in enumerate(shape):
                first = axis == 0 and number < len(self.upstream) + bool(self.n_inputs)
                which = found("batch_size") if first else found("axis", axis=axis, of=name)
                if n in shape[axis + 1 :]:  # the sizes do not tell which it is
                    other = found("axis", axis=shape.index(n, axis + 1), of=name)
                    which = found("either", what=which, other=other)
                if float(n) not in lengths or (first and which.kind == "either"):
                    lengths[float(n)] = which
        return {n: what for n, what in lengths.items() if n > 1}

    def same_shape(self, k: int) -> Iterator[tuple[Callable[[], Finding], Array]]:
        """Yield the arguments, upstream gradients and forward values in the k-th one's shape."""
        shape = np.shape(self.automatic[k])
        for j in (k, *(j for j in range(len(self.values)) if j != k)):
            if np.shape(self.values[j]) == shape:
                name = partial(found, "named", name=self.names[j])
                yield name, self._as_float(self.values[j])
        for u in self.upstream:
            if np.shape(u) == shape:
                yield partial(found, "upstream", name=self.name_of_upstream), self._as_float(u)
        for node in self.graph.nodes if self.graph is not None else ():
            is_theirs = node.parents and node.call.source is not None
            if is_theirs and np.shape(node.value) == shape and not self.deadline.is_over:
                yield partial(self.name, node), self._as_float(node.value)

    @staticmethod
    def _as_float(value: object) -> Array:
        return np.asarray(value, dtype=float)


def _is_mean(node: Node, n: float) -> bool:
    if node.name in ("mean", "average", "var", "std"):
        return any(np.size(parent.value) == n * np.size(node.value) for parent in node.parents)
    return any(is_number(a) and float(a) in (n, 1 / n, -n, -1 / n) for a in node.args)


def _sums(node: Node, n: float) -> bool:
    if node.name in ("matmul", "dot", "einsum", "tensordot"):
        return any(n in np.shape(arg) for arg in node.args)
    sizes = [np.size(p.value) / np.size(node.value) for p in node.parents]
    moves = node.name in ("max", "amax", "min", "amin", "__getitem__", "take")
    return not moves and (n in sizes or 1 / n in sizes)


_UPSTREAM: dict[str, Callable[[Array], Array]] = {
    "none": lambda u: 0 * u,
    "twice": lambda u: 2 * u,
    "turned": lambda u: -u,
    "other": lambda u: _uneven(u) * u,
    "tiny": lambda u: 1e-6 * u,
    "small": lambda u: 1e-3 * u,
    "mixed": lambda u: u + 0.5 * _uneven(u) * u,
    "positive": lambda u: np.maximum(u, 0),
    "negative": lambda u: np.minimum(u, 0),
    "sizes": lambda u: _uneven(u),
    "other sizes": lambda u: np.flip(_uneven(u)),
    "mixed sizes": lambda u: _uneven(u) + np.flip(_uneven(u)),
}


def _uneven(u: Array) -> Array:
    return np.random.default_rng(1).uniform(0.5, 2.0, np.shape(u))


def other_upstream(upstream: Sequence[Array], kind: str) -> list[Array]:
    """Return an upstream gradient made of another one, to see what becomes of the gradients."""
    return [np.asarray(_UPSTREAM[kind](u), dtype=u.dtype) for u in map(np.asarray, upstream)]
