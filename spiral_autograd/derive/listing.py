"""The listing: a program for people, one statement for each value that has a name."""

from __future__ import annotations

import inspect
import operator
import os
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from ..boxes import add_at, take
from ..pytree import Pytree, paths, with_leaves
from ..recording import Call
from .expressions import Expr, astype, broadcast, concatenate, put, reshape, scale, transpose
from .simplify import Simplified, needed, parents
from .writer import ATOM, SCATTERS, VIEWS, Writer, identifier, shape_text

LONGEST = 56  # a longer expression becomes a statement of its own
WIDTH = 60  # the column at which the comments begin
HOMES = ("scipy.special", "scipy.linalg", "scipy.signal")  # of functions that do not know theirs
PLAIN_NAMES = {
    fun: name
    for name, funs in {
        "product": (np.dot, np.multiply, np.outer, np.matmul, np.einsum),
        "total": (np.sum, np.add),
        "difference": (np.subtract,),
        "quotient": (np.divide,),
        "largest": (np.max,),
        "smallest": (np.min,),
        "chosen": (np.where,),
        "reshaped": (reshape,),
        "transposed": (transpose,),
        "part": (operator.getitem, take.fun),
        "scaled": (scale,),
        "repeated": (broadcast,),
        "cast": (astype,),
        "joined": (concatenate,),
        "placed": (put, add_at.fun),
    }.items()
    for fun in funs
}


def write_listing(
    simple: Simplified, loss: Callable[..., Any], types: Sequence[str | None]
) -> tuple[str, dict[str, Any]]:
    """Return the source of a program, and what it needs besides NumPy, by name.

    `types` has, for the loss and each leaf of the gradient, the call that makes it autograd's own
    type, where that is needed.
    """
    listing = _Listing(simple, loss)
    listing.walk()
    value = listing.plain(simple.loss)
    value = f"{types[0]}({value})" if types[0] else value
    grads = listing.tree(with_leaves(simple.recording.params, listing.gradients(types[1:])))
    body = [*listing.unpack, *listing.lines(), "", f"return {value}, {grads}"]
    source = [f"def value_and_grad({', '.join(listing.arguments_of_loss)}):"]
    source += [f"    {line}" if line else "" for line in body]
    return "\n".join([*_imports(listing.needs), *source]) + "\n", listing.needs


class _Listing(Writer):
    """The statements as they are written."""

    def __init__(self, simple: Simplified, loss: Callable[..., Any]) -> None:
        super().__init__(simple)
        recording = simple.recording
        self.taken = {"np"}
        self.unpack: list[str] = []  # the lines that take the arguments apart
        self.done: list[tuple[Expr, list[str]]] = []  # what has a name, and its lines
        trees = recording.params, *recording.data
        self.arguments_of_loss = argument_names(loss, len(trees), self.taken)
        for argument, tree in zip(self.arguments_of_loss, trees, strict=True):
            self._take_apart(argument, tree)
        self._named = set(self.texts)
        self._uses = Counter(parent for e in self.order for parent in e.parents)
        self._results = {simple.loss, *simple.grads}
        self._gradient_of = _gradient_of(simple)
        self._part_of = _parts_of_gradients(simple, self._gradient_of)
        self._names = {simple.loss: "loss"}
        for call, name in recording.names.items():
            if call in simple.of_call:
                self._names.setdefault(simple.of_call[call], name)
        for param, grad in zip(simple.params, simple.grads, strict=True):
            self._names.setdefault(grad, f"d{self.plain(param)}")

    def _take_apart(self, argument: str, tree: Pytree) -> None:
        """Name the leaves of an argument, and write the lines that bind them, four to each."""
        names, places = [], []
        for path, leaf, name in named_inputs(argument, tree, self.taken):
            self.texts[self.simple.of_call[leaf]] = name, ATOM
            names += [name] if path else []
            places.append(argument + "".join(f"[{self.constant(key)}]" for key in path))
        for k in range(0, len(names), 4):
            self.unpack.append(f"{', '.join(names[k : k + 4])} = {', '.join(places[k : k + 4])}")

    def name_constant(self, value: object) -> str:
        return identifier(getattr(value, "__name__", "constant"), self.taken)

    # ---- statements ----

    def emit(self, position: int, e: Expr) -> None:
        scatters = e.fun in SCATTERS
        self.texts[e] = ("", ATOM) if scatters else self.write(e)
        while len(self.plain(e)) > LONGEST and (longest := self._longest_part(e)) is not None:
            self._give_name(longest)
            self.texts[e] = self.write(e)
        many = self._uses[e] > 1 and e.fun not in VIEWS
        if scatters or many or e in self._results or self._own_name(e):
            self._give_name(e)

    def _longest_part(self, e: Expr) -> Expr | None:
        """Return the argument whose text is the longest, if that is a statement's worth."""
        inline = [arg for arg in e.parents if arg not in self._named and arg.fun is not None]
        longest = max(inline, key=lambda arg: len(self.plain(arg)), default=None)
        return longest if longest and len(self.plain(longest)) > LONGEST // 3 else None

    def _own_name(self, e: Expr) -> str | None:
        """Return the name that a value has by itself: of its variable, or of what it is."""
        name = self._names.get(e) or _formula_name(e)
        return name or self._named_after(self._gradient_of.get(e, ()), "d{}")

    def _named_after(self, values: Sequence[Expr], form: str) -> str | None:
        named = (form.format(self.plain(value)) for value in values if value in self._named)
        return next(named, None)

    def _give_name(self, e: Expr) -> None:
        name = self._own_name(e) or self._named_after(self._part_of.get(e, ()), "d{}_part")
        plain_name = PLAIN_NAMES.get(e.fun) or getattr(e.fun, "__name__", "value").strip("_")
        name = identifier(name or plain_name, self.taken)
        code = [f"{name} = {self.plain(e)}"]
        if e.fun in SCATTERS:
            dtype = "" if e.dtype == float else f", dtype=np.{e.dtype.name}"
            code = [f"{name} = np.zeros({shape_text(e.args[1])}{dtype})", self.scattered(e, name)]
        self.done.append((e, code))
        self._named.add(e)
        self.texts[e] = name, ATOM

    # ---- lines ----

    def lines(self) -> list[str]:
        """Return the lines of the statements, each with its shape and where it comes from."""
        forward = needed([self.simple.loss], parents)
        number: dict[Expr, int] = {}  # the statement that each expression is a part of
        lines, section = [], ""
        for k, (e, (*first, last)) in enumerate(self.done, 1):
            number.update(
                (part, k) for part in needed([e], parents, number) if part.fun is not None
            )
            kind = "forward" if e in forward else "backward"
            if kind != section:
                lines += ["", f"# {kind}"]
                section = kind
            where = self._source(e, k) if kind == "forward" else self._whose(e, number)
            lines += [*first, f"{last:{WIDTH}}  # {e.shape if e.shape else 'scalar'}{where}"]
        return lines

    def _source(self, e: Expr, k: int) -> str:
        call = self.simple.origin.get(e)
        if call is None or call.source is None:
            return f" [{k}]"
        file, line, _ = call.source
        name = "".join(c if c.isprintable() else "?" for c in os.path.basename(file))
        return f" [{k}] {name}:{line}"

    def _whose(self, e: Expr, number: dict[Expr, int]) -> str:
        """Return the number of the line that a backward line is the gradient of."""
        call = self.simple.origin.get(e)
        of = self.simple.of_call[call.gradient_of] if call and call.gradient_of else None
        return f" gradient of [{number[of]}]" if of in number else ""

    # ---- what is returned ----

    def gradients(self, types: Sequence[str | None]) -> list[str]:
        """Return the texts of the gradients, each an array of its own."""
        returned: set[Expr] = set()
        texts = []
        for grad, made_by in zip(self.simple.grads, types, strict=True):
            text, memory = self.plain(grad), self.memory[grad]
            if made_by is None:
                is_given = any(e.fun in (None, broadcast) for e in memory)
                is_literal = grad.fun is None and text.startswith("np.")
                is_new = is_literal or not (is_given or returned & memory)
                made_by = None if is_new else "np.array"
                returned |= memory
            texts.append(text if made_by is None else f"{made_by}({text})")
        return texts

    def tree(self, tree: Pytree) -> str:
        """Return the text of a pytree of texts."""
        if type(tree) is dict:
            items = (f"{self.constant(key)}: {self.tree(sub)}" for key, sub in tree.items())
            return "{" + ", ".join(items) + "}"
        if type(tree) not in (list, tuple):
            return str(tree)
        inside = ", ".join(map(self.tree, tree))
        if type(tree) is list:
            return f"[{inside}]"
        return f"({inside},)" if len(tree) == 1 else f"({inside})"


# -------------------- names --------------------


def argument_names(loss: Callable[..., Any], count: int, taken: set[str]) -> list[str]:
    """Return names for the arguments of a loss, its own where they can be known."""
    try:
        known = list(inspect.signature(loss).parameters.values())
    except (TypeError, ValueError):
        known = []
    positional = [p.name for p in known if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
    default = ["params", *(f"data_{i}" for i in range(1, count))]
    names = [*positional[:count], *default[len(positional) :]]
    return [identifier(name, taken) for name in names[:count]]


def named_inputs(argument: str, tree: Pytree, taken: set[str]) -> Iterator[tuple[Any, Call, str]]:
    """Yield the traced leaves of an argument: the keys that lead to each, itself, a name."""
    for path, leaf in paths(tree):
        if isinstance(leaf, Call):
            yield path, leaf, identifier("_".join(map(str, path)), taken) if path else argument


def _gradient_of(simple: Simplified) -> dict[Expr, list[Expr]]:
    """Return, for each gradient, the values that it is the whole gradient of, by birth."""
    adjoints: dict[Expr, set[Expr]] = {}
    for call, adjoint in simple.recording.adjoints.items():
        if isinstance(adjoint, Call):
            adjoints.setdefault(simple.of_call[call], set()).add(simple.of_call[adjoint])
    gradient_of: dict[Expr, list[Expr]] = {}
    for value in sorted(adjoints, key=lambda value: value.birth):
        # A value that was computed twice, and merged, has the sum of two adjoints.
        if value is not simple.loss and len(adjoints[value]) == 1:
            gradient_of.setdefault(adjoints[value].pop(), []).append(value)
    return gradient_of


def _parts_of_gradients(
    simple: Simplified, gradient_of: dict[Expr, list[Expr]]
) -> dict[Expr, list[Expr]]:
    """Return the summands of gradients -> the values whose gradients they are parts of."""
    part_of: dict[Expr, list[Expr]] = {}
    totals = [(grad, value) for grad, values in gradient_of.items() for value in values]
    for grad, value in [*totals, *zip(simple.grads, simple.params, strict=True)]:
        pending = [grad]
        while pending:
            e = pending.pop()
            if e.fun in (np.add, np.subtract):
                pending.extend(e.parents)
                for parent in e.parents:
                    part_of.setdefault(parent, []).append(value)
    return part_of


def _formula_name(e: Expr) -> str | None:
    """Return the name of a formula that readers know: exp(s) / Σ exp(s)."""
    if e.fun is not np.divide or e.args[0].fun is not np.exp:
        return None
    above, below = e.args
    below = below.args[0] if below.fun is reshape else below
    return "softmax" if below.fun is np.sum and below.args[0] is above else None


def _imports(needs: dict[str, Any]) -> list[str]:
    """Return the head of the source: imports where they can be had, else what it must be given."""
    lines = ["import numpy as np"]
    for name, value in needs.items():
        for module in (getattr(value, "__module__", None), *HOMES):
            found = getattr(sys.modules.get(str(module)), name, None)
            if getattr(found, "fun", found) is value:
                break
        if getattr(found, "fun", found) is value:
            lines.append(f"from {module} import {name}")
            lines += [f"{name} = {name}.fun"] if found is not value else []
        else:
            kind = type(value).__name__
            if isinstance(value, np.ndarray):
                kind = f"{value.dtype} array of the shape {value.shape}, frozen at derivation"
            lines.append(f"# needs {name} ({kind}): it is program.needs[{name!r}]")
    return [*lines, "", ""]
