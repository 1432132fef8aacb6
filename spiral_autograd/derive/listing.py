"""The listing: a program for people, one statement for each value that has a name."""

from __future__ import annotations

import inspect
import operator
import os
import sys
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..boxes import add_at, take
from ..pytree import Pytree, tree_map
from ..recording import Call, Recording
from .emit import (
    ATOM,
    VIEWS,
    Text,
    Writer,
    identifier,
    index_text,
    index_tuple_text,
    shape_text,
    text_of_constant,
)
from .expressions import Expr, astype, broadcast, concatenate, put, reshape, scale, transpose
from .simplify import Simplified, memory_of, needed

LONGEST = 56  # a longer expression becomes a statement of its own
WIDTH = 60  # the column at which the comments begin
PLAIN_NAMES = {
    np.dot: "product",
    np.sum: "total",
    np.max: "largest",
    np.min: "smallest",
    np.add: "total",
    np.subtract: "difference",
    np.divide: "quotient",
    np.multiply: "product",
    np.outer: "product",
    np.matmul: "product",
    np.einsum: "product",
    np.where: "chosen",
    reshape: "reshaped",
    transpose: "transposed",
    operator.getitem: "part",
    take.fun: "part",
    scale: "scaled",
    broadcast: "repeated",
    astype: "cast",
    concatenate: "joined",
    put: "placed",
    add_at.fun: "placed",
}
SCATTERS = {put: "{name}[{index}] = {g}", add_at.fun: "np.add.at({name}, {index}, {g})"}
HOMES = ("scipy.special", "scipy.linalg", "scipy.signal")  # of functions that do not know theirs


@dataclass(frozen=True)
class Inputs:
    """How the program's function takes its arguments apart."""

    signature: str
    unpack: list[str]
    names: dict[Expr, str]
    leaf_names: list[str]


@dataclass(frozen=True)
class Statement:
    """A value of the program that has a name, and its code."""

    expr: Expr
    name: str
    code: list[str]


def write_listing(
    recording: Recording,
    simple: Simplified,
    loss: Callable[..., Any],
    params: Pytree,
    types: Sequence[str | None],
) -> tuple[str, dict[str, Any]]:
    """Return the source of a program, and what it needs besides NumPy, by name.

    Parameters
    ----------
    recording : Recording
    simple : Simplified
        The same recording, as expressions.
    loss : callable
        What was recorded; the arguments get its arguments' names.
    params : pytree of float arrays
    types : sequence of (str or None)
        For the loss and each leaf of the gradient, the call that makes it autograd's own type.

    Returns
    -------
    source : str
    needs : dict
    """
    writer = Writer({"np"})
    inputs = _inputs(recording, simple, writer, loss)
    statements = _Statements(recording, simple, writer, inputs)
    texts = statements.texts
    lines = _with_comments(recording, simple, statements.done)
    of_loss, *of_grads = types
    value = texts[simple.loss][0] if of_loss is None else f"{of_loss}({texts[simple.loss][0]})"
    results = _results(simple, writer, texts, params, of_grads)
    body = [*inputs.unpack, *lines, f"return {value}, {results}"]
    source = [f"def value_and_grad({inputs.signature}):", *(f"    {x}" if x else "" for x in body)]
    return "\n".join([*_imports(writer.needs), *source]) + "\n", writer.needs


# -------------------- the arguments --------------------


def _inputs(
    recording: Recording, simple: Simplified, writer: Writer, loss: Callable[..., Any]
) -> Inputs:
    trees = recording.params, *recording.data
    argument_names = _argument_names(loss, len(trees), writer.taken)
    names: dict[Expr, str] = {}
    unpack: list[str] = []
    roots = iter([*simple.params, *simple.data])
    leaf_names: list[str] = []
    for argument, tree in zip(argument_names, trees, strict=True):
        found = []
        for path, leaf in _paths(tree):
            if not isinstance(leaf, Call):
                continue
            e = next(roots)
            stem = "_".join(str(key) for key in path) or argument
            name = identifier(stem, writer.taken) if path else argument
            names[e] = name
            found.append((name, argument + "".join(f"[{writer.constant(k)}]" for k in path)))
        if tree is recording.params:
            leaf_names = [name for name, _ in found]
        taken_apart = [(name, access) for name, access in found if name != access]
        for start in range(0, len(taken_apart), 4):
            some = taken_apart[start : start + 4]
            left, right = zip(*some, strict=True)
            unpack.append(f"{', '.join(left)} = {', '.join(right)}")
    return Inputs(", ".join(argument_names), unpack, names, leaf_names)


def _argument_names(loss: Callable[..., Any], count: int, taken: set[str]) -> list[str]:
    try:
        known = list(inspect.signature(loss).parameters.values())
    except (TypeError, ValueError):
        known = []
    positional = [p.name for p in known if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
    default = ["params", *(f"data_{i}" for i in range(1, count))]
    names = [*positional[:count], *default[len(positional) :]]
    return [identifier(name, taken) for name in names[:count]]


def _paths(tree: Pytree) -> list[tuple[tuple[Any, ...], Any]]:
    if type(tree) not in (dict, list, tuple):
        return [((), tree)]
    items = tree.items() if type(tree) is dict else enumerate(tree)
    return [((key, *path), leaf) for key, sub in items for path, leaf in _paths(sub)]


# -------------------- the statements --------------------


class _Statements:
    """The statements as they are written, and the text that stands for each expression."""

    def __init__(
        self, recording: Recording, simple: Simplified, writer: Writer, inputs: Inputs
    ) -> None:
        self.writer = writer
        self.texts: dict[Expr, Text] = {e: (name, ATOM) for e, name in inputs.names.items()}
        self.done: list[Statement] = []
        self._names, self._gradient_of = _names(recording, simple, inputs)
        self._part_of = _parts_of_gradients(simple, self._gradient_of)
        order = simple.order()
        self._uses = Counter(parent for e in order for parent in e.parents)
        self._results = {simple.loss, *simple.grads}
        self._named = set(self.texts)
        for e in order:
            if e not in self.texts:
                self._write(e)

    def text_of(self, arg: Any) -> Text:
        """Return the text of an argument."""
        if isinstance(arg, Expr):
            return self.texts[arg]
        return text_of_constant(self.writer.constant(arg))

    def _write(self, e: Expr) -> None:
        if e.fun is None:
            self.texts[e] = text_of_constant(self.writer.constant(e.value))
            return
        scatters = e.fun in SCATTERS
        self.texts[e] = ("", ATOM) if scatters else self.writer.write(e, self.text_of)
        while len(self.texts[e][0]) > LONGEST and (longest := self._longest_part(e)) is not None:
            self._give_name(longest)
            self.texts[e] = self.writer.write(e, self.text_of)
        many = self._uses[e] > 1 and e.fun not in VIEWS
        if scatters or many or e in self._results or self._own_name(e):
            self._give_name(e)

    def _longest_part(self, e: Expr) -> Expr | None:
        """Return the argument whose text is the longest, if that is a statement's worth."""
        inline = [arg for arg in e.parents if arg not in self._named and arg.fun is not None]
        longest = max(inline, key=lambda arg: len(self.texts[arg][0]), default=None)
        return longest if longest and len(self.texts[longest][0]) > LONGEST // 3 else None

    def _own_name(self, e: Expr) -> str | None:
        """Return the name that a value has by itself: of its variable, or of what it is."""
        name = self._names.get(e) or _formula_name(e)
        for value in self._gradient_of.get(e, ()):
            if name is None and value in self._named:
                name = f"d{self.texts[value][0]}"
        return name

    def _give_name(self, e: Expr) -> None:
        name = self._own_name(e)
        for whole in self._part_of.get(e, ()):
            if name is None and whole in self._named:
                name = f"d{self.texts[whole][0]}_part"
        name = identifier(name or _plain_name(e), self.writer.taken)
        scatters = e.fun in SCATTERS
        code = _scatter(e, name, self.text_of) if scatters else [f"{name} = {self.texts[e][0]}"]
        self.done.append(Statement(e, name, code))
        self._named.add(e)
        self.texts[e] = name, ATOM


def _parts_of_gradients(
    simple: Simplified, gradient_of: dict[Expr, list[Expr]]
) -> dict[Expr, list[Expr]]:
    """Return the summands of gradients -> the values whose gradients they are parts of."""
    part_of: dict[Expr, list[Expr]] = {}
    wholes = [(grad, value) for grad, values in gradient_of.items() for value in values]
    for grad, value in [*wholes, *zip(simple.grads, simple.params, strict=True)]:
        pending = [grad]
        while pending:
            e = pending.pop()
            if e.fun in (np.add, np.subtract):
                pending.extend(e.parents)
                for parent in e.parents:
                    part_of.setdefault(parent, []).append(value)
    return part_of


def _scatter(e: Expr, name: str, text_of: Callable[[Any], Text]) -> list[str]:
    g, shape, *index = e.args
    dtype = "" if e.dtype == float else f", dtype=np.{e.dtype.name}"
    write_index = index_text if e.fun is put else index_tuple_text
    inside = write_index(index, text_of) or "()"
    fill = SCATTERS[e.fun].format(name=name, index=inside, g=text_of(g)[0])
    return [f"{name} = np.zeros({shape_text(shape)}{dtype})", fill]


def _names(
    recording: Recording, simple: Simplified, inputs: Inputs
) -> tuple[dict[Expr, str], dict[Expr, list[Expr]]]:
    """Return the names that the recorded code and the parameters give, and gradient -> values."""
    names: dict[Expr, str] = {simple.loss: "loss"}
    for call, name in recording.names.items():
        if call in simple.of_call:
            names.setdefault(simple.of_call[call], name)
    adjoints: dict[Expr, set[Expr]] = {}
    for call, adjoint in recording.adjoints.items():
        if isinstance(adjoint, Call):
            adjoints.setdefault(simple.of_call[call], set()).add(simple.of_call[adjoint])
    gradient_of: dict[Expr, list[Expr]] = {}
    for value in sorted(adjoints, key=lambda value: value.birth):
        # A value that was computed twice, and merged, has the sum of two adjoints.
        if value is not simple.loss and len(adjoints[value]) == 1:
            gradient_of.setdefault(adjoints[value].pop(), []).append(value)
    for name, grad in zip(inputs.leaf_names, simple.grads, strict=True):
        names.setdefault(grad, f"d{name}")
    return names, gradient_of


def _formula_name(e: Expr) -> str | None:
    """Return the name of a formula that readers know: exp(s) / Σ exp(s)."""
    if e.fun is not np.divide or e.args[0].fun is not np.exp:
        return None
    above, below = e.args
    below = below.args[0] if below.fun is reshape else below
    return "softmax" if below.fun is np.sum and below.args[0] is above else None


def _plain_name(e: Expr) -> str:
    return PLAIN_NAMES.get(e.fun) or getattr(e.fun, "__name__", "value").strip("_")


# -------------------- the comments --------------------


def _with_comments(
    recording: Recording, simple: Simplified, statements: Sequence[Statement]
) -> list[str]:
    """Return the lines of the statements, each with its shape and where it comes from."""
    forward = needed([simple.loss])
    number: dict[Expr, int] = {}
    lines, section = [], ""
    for k, statement in enumerate(statements, 1):
        e = statement.expr
        _number_parts(e, k, number)
        kind = "forward" if e in forward else "backward"
        if kind != section:
            lines += ["", f"# {kind}"]
            section = kind
        where = _source(simple, e, k) if kind == "forward" else _gradient(simple, e, number)
        *first, last = statement.code
        lines += [*first, f"{last:{WIDTH}}  # {e.shape if e.shape else 'scalar'}{where}"]
    return [*lines, ""]


def _number_parts(e: Expr, k: int, number: dict[Expr, int]) -> None:
    pending = [e]
    while pending:
        part = pending.pop()
        if part.fun is not None and part not in number:
            number[part] = k
            pending.extend(part.parents)


def _source(simple: Simplified, e: Expr, k: int) -> str:
    call = simple.origin.get(e)
    if call is None or call.source is None:
        return f" [{k}]"
    file, line, _ = call.source
    name = "".join(c if c.isprintable() else "?" for c in os.path.basename(file))
    return f" [{k}] {name}:{line}"


def _gradient(simple: Simplified, e: Expr, number: dict[Expr, int]) -> str:
    call = simple.origin.get(e)
    if call is None or call.gradient_of is None:
        return ""
    line = number.get(simple.of_call[call.gradient_of])
    return "" if line is None else f" gradient of [{line}]"


# -------------------- what is returned, and what is needed --------------------


def _results(
    simple: Simplified,
    writer: Writer,
    texts: dict[Expr, Text],
    params: Pytree,
    types: Sequence[str | None],
) -> str:
    """Return the text of the gradient's pytree, in which each leaf is an array of its own."""
    memory = memory_of(simple.order())
    returned: set[Expr] = set()
    leaf_texts = []
    for grad, made_by in zip(simple.grads, types, strict=True):
        text = texts[grad][0]
        if made_by is not None:
            leaf_texts.append(f"{made_by}({text})")
            continue
        new = returned.isdisjoint(memory[grad]) and not any(
            e.fun in (None, broadcast) for e in memory[grad]
        )
        made_here = grad.fun is None and text.startswith("np.")
        returned |= memory[grad]
        leaf_texts.append(text if new or made_here else f"np.array({text})")
    remaining = iter(leaf_texts)
    return _tree_text(tree_map(lambda _: next(remaining), params), writer)


def _tree_text(tree: Pytree, writer: Writer) -> str:
    if type(tree) is dict:
        items = (f"{writer.constant(key)}: {_tree_text(sub, writer)}" for key, sub in tree.items())
        return "{" + ", ".join(items) + "}"
    if type(tree) is list:
        return "[" + ", ".join(_tree_text(sub, writer) for sub in tree) + "]"
    if type(tree) is tuple:
        inside = ", ".join(_tree_text(sub, writer) for sub in tree)
        return f"({inside},)" if len(tree) == 1 else f"({inside})"
    return str(tree)


def _imports(needs: dict[str, Any]) -> list[str]:
    """Return the head of the source: imports where they can be had, else what it must be given."""
    lines = ["import numpy as np"]
    for name, value in needs.items():
        for module in (getattr(value, "__module__", None), *HOMES):
            found = getattr(sys.modules.get(str(module)), name, None)
            if getattr(found, "fun", found) is value:
                break
        if getattr(found, "fun", found) is value:
            plain = ".fun" if found is not value else ""
            lines.append(f"from {module} import {name}")
            lines += [f"{name} = {name}{plain}"] if plain else []
        else:
            kind = type(value).__name__
            if isinstance(value, np.ndarray):
                kind = f"{value.dtype} array of the shape {value.shape}, frozen at derivation"
            lines.append(f"# needs {name} ({kind}): it is program.needs[{name!r}]")
    return [*lines, "", ""]
