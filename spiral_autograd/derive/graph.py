"""The computational graph of a loss, as the book draws it: values forward, gradients backward."""

from __future__ import annotations

import functools
import operator
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import groupby
from types import CodeType
from typing import Any, TypeAlias

import numpy as np
from autograd.core import SparseObject

from ..pytree import leaves, tree_map
from ..recording import Call, Recording, name_of, parents_of
from ..validation import Shape
from .listing import argument_names, paths
from .writer import identifier

FEW = 6  # numbers that are shown; of a larger array its shape alone
SIGNS = {np.add: "+", np.subtract: "-", np.multiply: "×", np.divide: "÷", np.power: "^"}  # noqa: RUF001
NAMES = {np.dot: "MatMul", np.matmul: "MatMul"}  # as the book draws them


@dataclass(frozen=True)
class Node:
    """A box of the graph: a parameter, data, an operation or a function, or the loss."""

    key: str
    label: str
    kind: str  # "parameter", "data", "operation" or "loss"
    source: tuple[str, int] | None  # the file and the line of it
    operations: int  # that are merged in it


@dataclass(frozen=True)
class Edge:
    """A value on its way from one node to another, and its gradient on the way back.

    A value that goes several ways has on each a part of its gradient: they add up.
    """

    start: str
    end: str
    name: str
    shape: Shape
    value: str  # the numbers, where they are few
    gradient_name: str  # empty where no gradient goes back
    gradient: str  # its numbers


@dataclass(frozen=True)
class Graph:
    """Nodes and edges in the order of the forward pass, as plain data.

    >>> from spiral_autograd import derive
    >>> graph = derive(lambda w: (w - 2).sum(), np.array([1.0, 3.0])).graph()
    >>> [node.label for node in graph.nodes]
    ['w', '- 2', 'sum', 'loss']
    >>> graph.edges[0].value, graph.edges[0].gradient_name, graph.edges[0].gradient
    ('[1, 3]', 'dw', '[1, 1]')
    """

    nodes: tuple[Node, ...]
    edges: tuple[Edge, ...]

    def columns(self) -> dict[str, int]:
        """Return for each node a column: the length of the longest way to it."""
        column = dict.fromkeys((node.key for node in self.nodes), 0)
        for edge in self.edges:  # in the order of their starts, so that each start is known
            column[edge.end] = max(column[edge.end], column[edge.start] + 1)
        nearest = {e.start: column[e.end] - 1 for e in reversed(self.edges)}
        roots = {node.key for node in self.nodes if node.kind in ("parameter", "data")}
        return {key: nearest.get(key, at) if key in roots else at for key, at in column.items()}


# -------------------- of a recording --------------------


def draw(recording: Recording, loss: Callable[..., Any], *, full: bool) -> Graph:
    """Return the graph of a recording, its operations merged to the functions they stand in."""
    forward = _forward(recording)
    codes = {} if full else _functions(forward)

    def place_of(call: Call) -> Any:
        return codes.get(call, call)

    sketch = _Sketch(recording, loss)
    for call in forward:
        place, code = place_of(call), codes[call][1] if call in codes else None
        sketch.node(place, _label(call, code), "operation", _source(call, code))
        for parent in parents_of(call):
            if place_of(parent) != place:
                sketch.edge(parent, place_of(parent), place)
    sketch.nodes["loss"] = ["loss", "loss", None, 0]
    if isinstance(recording.loss, Call):
        sketch.edge(recording.loss, place_of(recording.loss), "loss")
    return sketch.graph(place_of)


class _Sketch:
    """The nodes and edges as they are found."""

    def __init__(self, recording: Recording, loss: Callable[..., Any]) -> None:
        self.recording = recording
        self.nodes: dict[Any, list[Any]] = {}  # by what they stand for: label, kind, source, number
        self.edges: dict[tuple[Call, Any], Any] = {}  # by value and end: the start
        self.taken = {"np"}
        self.names: dict[Call, str] = {}
        self.params = {leaf for leaf in leaves(recording.params) if isinstance(leaf, Call)}
        trees = recording.params, *recording.data
        for argument, tree in zip(argument_names(loss, len(trees), self.taken), trees, strict=True):
            for path, leaf in paths(tree):
                if isinstance(leaf, Call):
                    name = "_".join(map(str, path))
                    self.names[leaf] = identifier(name, self.taken) if path else argument

    def node(self, place: Any, label: str, kind: str, source: tuple[str, int] | None) -> None:
        self.nodes.setdefault(place, [label, kind, source, 0])[3] += 1

    def edge(self, value: Call, start: Any, end: Any) -> None:
        """Note that a value goes from one node to another."""
        self.edges.setdefault((value, end), start)
        if value.fun is None:
            kind = "parameter" if value in self.params else "data"
            self.nodes.setdefault(value, [self.names[value], kind, None, 0])

    def graph(self, place_of: Callable[[Call], Any]) -> Graph:
        """Return the graph: parameters and data, then the operations in their order."""
        order = sorted(self.nodes, key=lambda place: self.nodes[place][1] in ("operation", "loss"))
        rank = {place: i for i, place in enumerate(order)}
        parts: dict[Call | None, list[tuple[Any, Any]]] = {}
        for call, parent, part in self.recording.parts:
            parts.setdefault(parent, []).append((place_of(call), part))
        whole = dict(self.recording.adjoints)
        whole.update(zip(leaves(self.recording.params), self.recording.grads, strict=True))
        ways, edges = Counter(value for value, _ in self.edges), []
        for (value, end), start in self.edges.items():
            here = [part for place, part in parts.get(value, ()) if place == end]
            is_whole = ways[value] == 1 or len(here) == len(parts.get(value, ()))
            gradients = [whole[value]] if is_whole and value in whole else here
            edges.append((rank[start], rank[end], value, "" if is_whole else "part of ", gradients))
        return Graph(
            tuple(Node(f"n{rank[place]}", *self.nodes[place]) for place in order),
            tuple(self._drawn(*edge) for edge in sorted(edges, key=lambda edge: edge[:2])),
        )

    def _drawn(self, start: int, end: int, value: Call, part: str, gradients: list[Any]) -> Edge:
        if value not in self.names:
            name = "loss" if value is self.recording.loss else self.recording.names.get(value)
            self.names[value] = identifier(name, self.taken) if name else ""
        name, text, back, gradient = self.names[value], _text(value.value), "", ""
        if gradients:
            back = f"{part}d{name}" if name else f"{part}gradient"
            gradient = (
                _text(functools.reduce(operator.add, map(_number, gradients))) if text else ""
            )
        return Edge(f"n{start}", f"n{end}", name, np.shape(value.value), text, back, gradient)


def _forward(recording: Recording) -> list[Call]:
    """Return the calls that the loss is made of, in the order in which they were made."""
    found: set[Call] = set()
    pending = [recording.loss] if isinstance(recording.loss, Call) else []
    while pending:
        call = pending.pop()
        if call not in found:
            found.add(call)
            pending += parents_of(call)
    return [call for call in recording.calls if call in found]


# -------------------- which operations are one node --------------------

Frame: TypeAlias = tuple[int, CodeType]  # one call of a function: what it is, and its code


def _functions(forward: Sequence[Call]) -> dict[Call, Frame]:
    """Return, for the operations to be merged, the call of the function that they stand in.

    A function is one node where it calls no further one with operations; those of others, as of
    the loss itself, stay alone. A function without a public name is a part of its caller.
    """
    homes: dict[Call, Frame] = {}
    callers: set[Frame] = set()
    for call in forward:
        if call.frames:
            frames = call.frames
            is_public = [_is_public(code) for _, code in frames]
            at = is_public.index(True) if True in is_public else len(frames) - 1
            homes[call] = frames[at]
            callers.update(frames[at + 1 :], frames[-1:])
    runs = Counter(home for home, _ in groupby(forward, homes.get))
    is_one = {home for home, count in runs.items() if count == 1} - callers
    return {call: home for call, home in homes.items() if home in is_one}


def _is_public(code: CodeType) -> bool:
    name = code.co_name
    return name.isidentifier() and (not name.startswith("_") or name.endswith("__"))


def _label(call: Call, code: CodeType | None) -> str:
    """Return the name of a function, or that of an operation with its constants."""
    if code is not None:
        name: str = getattr(code, "co_qualname", code.co_name).rpartition("<locals>.")[2]
        return name.removesuffix(".__call__")
    fun, args = call.fun.fun, call.args
    if fun in SIGNS and len(args) == 2:
        sides = ["" if isinstance(arg, Call) else _text(arg) for arg in args]
        return f"{sides[0]} {SIGNS[fun]} {sides[1]}".strip()
    given = [("", arg) for arg in args] + [(f"{k}=", arg) for k, arg in call.kwargs.items()]
    plain = (int, float, str, tuple)
    short = [f"{k}{arg}" for k, arg in given if type(arg) in plain and len(str(arg)) < 12]
    return " ".join([NAMES.get(fun, name_of(fun).strip("_")), *short])


def _source(call: Call, code: CodeType | None) -> tuple[str, int] | None:
    if code is not None:
        return code.co_filename, code.co_firstlineno
    return call.source[:2] if call.source else None


# -------------------- numbers --------------------


def _number(value: Any) -> Any:
    """Return a recorded gradient as an array; None where there is none."""
    value = value.value if isinstance(value, Call) else value
    return value.mut_add(value.vs.zeros()) if isinstance(value, SparseObject) else value


class _Plain(float):
    """A number that is written with three digits."""

    def __repr__(self) -> str:
        return f"{self + 0.0:.3g}"  # no -0


def _text(value: Any) -> str:
    """Return few numbers as a text; nothing of many."""
    array = np.asarray(value) if isinstance(value, np.ndarray | np.generic | float | int) else None
    if array is None or array.size > FEW or array.dtype.kind not in "fiub":
        return ""
    return str(tree_map(_Plain, array.tolist()))


# -------------------- as text --------------------

WIDEST = 8  # columns; what is longer is drawn from top to bottom
RED = "#D55E00"  # of what goes backward
STYLES = {  # fill and stroke of each kind of node
    "parameter": ("#CDE6F5", "#0072B2"),
    "data": ("#EEEEEE", "#777777"),
    "operation": ("#FFFFFF", "#333333"),
    "loss": ("#FBE3D0", RED),
}


def _direction(graph: Graph) -> str:
    return "LR" if max(graph.columns().values()) <= WIDEST else "TB"


def _labels(edge: Edge) -> tuple[str, str]:
    """Return what goes forward along an edge, and the gradient that comes back."""
    shape = str(edge.shape) if edge.shape else ""
    back = f"{edge.gradient_name} {edge.gradient or shape}".strip() if edge.gradient_name else ""
    return f"{edge.name} {edge.value or shape}".strip(), back


def to_mermaid(graph: Graph) -> str:
    """Return a graph as Mermaid draws it: a link with two heads where a gradient comes back."""
    boxes = {"operation": ("[", "]"), "loss": ("((", "))")}
    direction = _direction(graph)
    there, back_again = "→←" if direction == "LR" else "↓↑"
    lines = [f"flowchart {direction}"]
    for node in graph.nodes:
        left, right = boxes.get(node.kind, ("([", "])"))
        label = "".join(f"#{ord(c)};" if c in '"#&;<>`' else c for c in _printable(node.label))
        lines.append(f'    {node.key}{left}"{label}"{right}:::{node.kind}')
    for edge in graph.edges:
        forward, back = _labels(edge)
        link, more = ("<-->", f"<br/>{back_again} {back}") if back else ("-->", "")
        lines.append(f'    {edge.start} {link}|"{there} {forward}{more}"| {edge.end}')
    for kind, (fill, stroke) in STYLES.items():
        lines.append(f"    classDef {kind} fill:{fill},stroke:{stroke},color:#000")
    return "\n".join(lines) + "\n"


def to_dot(graph: Graph) -> str:
    """Return a graph as Graphviz draws it."""
    boxes = {"operation": "box", "loss": "circle"}
    lines = [
        "digraph {",
        f"    rankdir={_direction(graph)}",
        '    node [fontname="Helvetica", style=filled]',
        '    edge [fontname="Helvetica", fontsize=10]',
    ]
    for node in graph.nodes:
        label = _printable(node.label).replace("\\", r"\\").replace('"', r"\"")
        shape, (fill, stroke) = boxes.get(node.kind, "ellipse"), STYLES[node.kind]
        looks = f'shape={shape}, fillcolor="{fill}", color="{stroke}"'
        lines.append(f'    {node.key} [label="{label}", {looks}]')
    for edge in graph.edges:
        forward, back = _labels(edge)
        lines.append(f'    {edge.start} -> {edge.end} [label=" {forward}"]')
        if back:
            looks = f'constraint=false, style=dashed, color="{RED}", fontcolor="{RED}"'
            lines.append(f'    {edge.end} -> {edge.start} [label=" {back}", {looks}]')
    return "\n".join([*lines, "}"]) + "\n"


def _printable(text: str) -> str:
    return "".join(c if c.isprintable() else " " for c in text)
