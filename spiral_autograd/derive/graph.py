"""The computational graph of a loss, as the book draws it: values forward, gradients backward."""

from __future__ import annotations

import operator
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import groupby
from types import CodeType
from typing import Any, TypeAlias

import numpy as np
from autograd.core import SparseObject

from ..pytree import leaves
from ..recording import Call, Recording, name_of, parents_of
from ..validation import Shape
from .listing import argument_names, named_inputs
from .simplify import needed
from .writer import identifier

FEW = 6  # numbers that are shown; of a larger array its shape alone
WIDEST = 8  # columns; a longer graph is drawn from top to bottom
SIGNS = {np.add: "+", np.subtract: "-", np.multiply: "×", np.divide: "÷", np.power: "^"}  # noqa: RUF001
NAMES = {np.dot: "MatMul", np.matmul: "MatMul"}  # as the book draws them
RED = "#D55E00"  # of what goes backward
STYLES = {  # of each kind of node: Mermaid's box, Graphviz', fill and stroke
    "parameter": ("([", "])", "ellipse", "#CDE6F5", "#0072B2"),
    "data": ("([", "])", "ellipse", "#EEEEEE", "#777777"),
    "operation": ("[", "]", "box", "#FFFFFF", "#333333"),
    "loss": ("((", "))", "circle", "#FBE3D0", RED),
}


@dataclass(frozen=True)
class Node:
    """A box of the graph: a parameter, data, an operation or a function, or the loss."""

    key: str
    label: str
    kind: str  # of STYLES
    source: tuple[str, int] | None = None  # the file and the line of it
    operations: int = 0  # that are merged in it


@dataclass(frozen=True)
class Edge:
    """A value on its way to a node, and its gradient, or this way's part of it, on the way back."""

    start: str
    end: str
    name: str
    shape: Shape
    value: str  # the numbers, where they are few
    gradient_name: str  # empty where no gradient goes back
    gradient: str  # its numbers

    @property
    def labels(self) -> tuple[str, str]:
        """What goes forward, and what comes back."""
        shape = str(self.shape) if self.shape else ""
        back = self.gradient_name and f"{self.gradient_name} {self.gradient or shape}".strip()
        return f"{self.name} {self.value or shape}".strip(), back


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
        nearest = {edge.start: column[edge.end] - 1 for edge in reversed(self.edges)}
        return {key: at or nearest.get(key, 0) for key, at in column.items()}


# -------------------- of a recording --------------------


def draw(recording: Recording, loss: Callable[..., Any], *, full: bool) -> Graph:
    """Return the graph of a recording, its operations merged to the functions they stand in."""
    ends = [recording.loss] if isinstance(recording.loss, Call) else []
    made_of = needed(ends, parents_of)
    forward = [call for call in recording.calls if call in made_of]
    inside = {} if full else _functions(forward)
    home: dict[Any, Any] = {call: inside.get(call, call) for call in forward}
    ways = _ways(recording, home)
    names, params = _names(recording, loss), set(leaves(recording.params))
    roots = filter({value for value, _ in ways}.__contains__, names)
    boxes: dict[Any, Any] = {r: (names[r], "parameter" if r in params else "data") for r in roots}
    boxes |= {place: _box(place, count) for place, count in Counter(home.values()).items()}
    boxes |= {"loss": ("loss", "loss")}
    rank = {place: i for i, place in enumerate(boxes)}
    edge = _edge_of(recording, ways, names)
    found = [(rank[home.get(value, value)], rank[end], value, end) for value, end in ways]
    return Graph(
        tuple(Node(f"n{rank[place]}", *box) for place, box in boxes.items()),
        tuple(edge(*way) for way in sorted(found, key=operator.itemgetter(0, 1))),
    )


def _ways(recording: Recording, home: dict[Any, Any]) -> dict[tuple[Call, Any], list[Any]]:
    """Return by each value, and where it goes, the parts of its gradient that come back so."""
    ways: dict[tuple[Any, Any], list[Any]] = {
        (value, place): []
        for call, place in home.items()
        for value in parents_of(call)
        if home.get(value, value) != place
    }
    if isinstance(recording.loss, Call):
        ways[recording.loss, "loss"] = []
    for call, value, part in recording.parts:
        if (way := (value, home.get(call))) in ways:
            ways[way].append(part)
    return ways


def _edge_of(
    recording: Recording, ways: dict[tuple[Call, Any], list[Any]], names: dict[Call, str]
) -> Callable[..., Edge]:
    """Return what makes an edge of a value and the node where it goes."""
    whole = recording.adjoints | dict(zip(leaves(recording.params), recording.grads, strict=True))
    parts = Counter(value for _, value, _ in recording.parts)
    goes = Counter(value for value, _ in ways)
    taken = {"np", *names.values()}

    def edge(start: int, number: int, value: Call, end: Any) -> Edge:
        if value not in names:
            name = "loss" if end == "loss" else recording.names.get(value)
            names[value] = identifier(name, taken) if name else ""
        here, name, text = ways[value, end], names[value], _text(value.value)
        is_whole = len(here) == parts[value] or (not here and goes[value] == 1)
        gradients = [whole[value]] if is_whole and value in whole else here
        back = f"{'' if is_whole else 'part of '}{f'd{name}' if name else 'gradient'}"
        total = _text(sum(map(_number, gradients))) if text and gradients else ""
        shape = np.shape(value.value)
        back = back if gradients else ""
        return Edge(f"n{start}", f"n{number}", name, shape, text, back, total)

    return edge


def _names(recording: Recording, loss: Callable[..., Any]) -> dict[Call, str]:
    """Return the names of the leaves of the arguments."""
    taken, trees = {"np"}, (recording.params, *recording.data)
    return {
        leaf: name
        for argument, tree in zip(argument_names(loss, len(trees), taken), trees, strict=True)
        for _, leaf, name in named_inputs(argument, tree, taken)
    }


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


def _box(place: Call | Frame, operations: int) -> tuple[Any, ...]:
    """Return what a node says of an operation, or of a function with so many."""
    if isinstance(place, Call):
        return _label(place), "operation", place.source and place.source[:2], operations
    _, code = place
    name: str = getattr(code, "co_qualname", code.co_name).rpartition("<locals>.")[2]
    source = code.co_filename, code.co_firstlineno
    return name.removesuffix(".__call__"), "operation", source, operations


def _label(call: Call) -> str:
    """Return the name of an operation with its constants."""
    fun, args = call.fun.fun, call.args
    if fun in SIGNS and len(args) == 2:
        sides = ["" if isinstance(arg, Call) else _text(arg) for arg in args]
        return f"{sides[0]} {SIGNS[fun]} {sides[1]}".strip()
    given = [("", arg) for arg in args] + [(f"{k}=", arg) for k, arg in call.kwargs.items()]
    plain = (int, float, str, tuple)
    said = [f"{k}{arg}" for k, arg in given if type(arg) in plain]
    short = [text for text in said if len(text) < 20 and text.isprintable()]
    return " ".join([NAMES.get(fun, name_of(fun).strip("_")), *short])


# -------------------- numbers --------------------


def _number(value: Any) -> Any:
    """Return a recorded gradient as an array; None where there is none."""
    value = value.value if isinstance(value, Call) else value
    return value.mut_add(value.vs.zeros()) if isinstance(value, SparseObject) else value


def _text(value: Any) -> str:
    """Return few numbers as a text; nothing of many."""
    array = np.asarray(value) if isinstance(value, np.ndarray | np.generic | float | int) else None
    if array is None or array.size > FEW or array.dtype.kind not in "fiub":
        return ""
    array = array + 0.0  # no -0
    text = np.array2string(array, separator=", ", formatter={"float_kind": "{:.3g}".format})
    return " ".join(text.split())


# -------------------- as text --------------------


def to_mermaid(graph: Graph) -> str:
    """Return a graph as Mermaid draws it: a link with two heads where a gradient comes back."""
    direction, there, and_back = ("LR", *"→←") if _is_narrow(graph) else ("TB", *"↓↑")
    lines = [f"flowchart {direction}"]
    for node in graph.nodes:
        left, right, *_ = STYLES[node.kind]
        label = "".join(f"#{ord(c)};" if c in '"#&;<>`' else c for c in node.label)
        lines.append(f'    {node.key}{left}"{label}"{right}:::{node.kind}')
    for edge in graph.edges:
        forward, back = edge.labels
        link, more = ("<-->", f"<br/>{and_back} {back}") if back else ("-->", "")
        lines.append(f'    {edge.start} {link}|"{there} {forward}{more}"| {edge.end}')
    for kind, (*_, fill, stroke) in STYLES.items():
        lines.append(f"    classDef {kind} fill:{fill},stroke:{stroke},color:#000")
    return "\n".join(lines) + "\n"


def to_dot(graph: Graph) -> str:
    """Return a graph as Graphviz draws it."""
    lines = [
        "digraph {",
        f"    rankdir={'LR' if _is_narrow(graph) else 'TB'}",
        '    node [fontname="Helvetica", style=filled]',
        '    edge [fontname="Helvetica", fontsize=10]',
    ]
    for node in graph.nodes:
        *_, shape, fill, stroke = STYLES[node.kind]
        label = node.label.replace("\\", r"\\").replace('"', r"\"")
        looks = f'shape={shape}, fillcolor="{fill}", color="{stroke}"'
        lines.append(f'    {node.key} [label="{label}", {looks}]')
    for edge in graph.edges:
        forward, back = edge.labels
        lines.append(f'    {edge.start} -> {edge.end} [label=" {forward}"]')
        if back:
            looks = f'constraint=false, style=dashed, color="{RED}", fontcolor="{RED}"'
            lines.append(f'    {edge.end} -> {edge.start} [label=" {back}", {looks}]')
    return "\n".join([*lines, "}"]) + "\n"


def _is_narrow(graph: Graph) -> bool:
    return max(graph.columns().values()) <= WIDEST
