"""The listing: a program for people, one statement for each value that has a name."""

from __future__ import annotations

import inspect
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from pprint import pformat
from typing import Any

import numpy as np

from ..boxes import add_at, take
from ..pytree import Pytree, paths, with_leaves
from ..recording import Call
from .expressions import Expr, astype, broadcast, concatenate, put, reshape, scale, transpose
from .simplify import Simplified, needed, parents
from .writer import (
    ATOM,
    GETITEMS,
    SCATTERS,
    TERM,
    VIEWS,
    Code,
    Writer,
    grouped,
    identifier,
    shape_text,
)

LONGEST = 56  # a longer expression becomes a statement of its own
WIDTH, WIDEST = 60, 96  # the column at which the comments begin, and that before which they end
HOMES = ("scipy.special", "scipy.linalg", "scipy.signal")  # of functions that do not know theirs
PLAIN_NAMES = {
    **dict.fromkeys((np.dot, np.multiply, np.outer, np.matmul, np.einsum), "product"),
    **dict.fromkeys((np.sum, np.add), "total"),
    **dict.fromkeys((*GETITEMS, take.fun), "part"),
    **dict.fromkeys((put, add_at.fun), "placed"),
    np.subtract: "difference",
    np.divide: "quotient",
    np.max: "largest",
    np.min: "smallest",
    np.where: "chosen",
    reshape: "reshaped",
    transpose: "transposed",
    scale: "scaled",
    broadcast: "repeated",
    astype: "cast",
    concatenate: "joined",
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
    grads = with_leaves(simple.recording.params, listing.gradients(types[1:]))
    end = f"return {value}, "
    returned = pformat(listing.tree(grads), width=WIDEST - len(end), sort_dicts=False)
    body = [*listing.unpack, *listing.lines(), "", end + returned.replace("\n", f"\n{' ' * 17}")]
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
        self._users: dict[Expr, list[Expr]] = {}
        for e in self.order:
            for parent in e.parents:
                self._users.setdefault(parent, []).append(e)
        self._results = {simple.loss, *simple.grads}
        self._turns: dict[Any, list[Call]] = {}  # of a loop: the calls at one place of one function
        self._forward = needed([simple.loss], parents)
        self._placed: set[Expr] = set()  # sums that are written once all their summands are known
        self._gradient_of = _gradient_of(simple)
        self._names = {simple.loss: "loss"}
        for call, name in recording.names.items():
            if call in simple.of_call:
                self._names.setdefault(simple.of_call[call], name)

    def _take_apart(self, argument: str, tree: Pytree) -> None:
        """Name the leaves of an argument, and write the lines that bind them."""
        names, places = [], []
        for path, leaf, name in named_inputs(argument, tree, self.taken):
            self.texts[self.simple.of_call[leaf]] = name, ATOM
            names += [name] if path else []
            places.append(argument + "".join(f"[{self.constant(key)}]" for key in path))
        each = 4 if len(", ".join([*names[:4], *places[:4]])) < WIDEST else 1
        for k in range(0, len(names), each):
            parts = names[k : k + each], places[k : k + each]
            self.unpack.append(" = ".join(map(", ".join, parts)))

    def name_constant(self, value: object) -> str:
        return identifier(getattr(value, "__name__", "constant"), self.taken)

    # ---- statements ----

    def emit(self, position: int, e: Expr) -> None:
        placed = e.fun in SCATTERS or any(parent in self._placed for parent in e.parents)
        self.texts[e] = ("", ATOM) if e.fun in SCATTERS else self.write(e)
        while (longest := self._longest_part(e)) is not None:
            self._give_name(longest)
            self.texts[e] = self.write(e)
        users = self._users.get(e, [])
        many = len(users) > 1 and e.fun not in VIEWS
        if placed:
            self._placed.add(e)
            many = many or not (users and self._goes_on(e, users[0]))
        if many or e in self._results or (not placed and self._own_name(e)):
            self._give_name(e)

    def _goes_on(self, e: Expr, user: Expr) -> bool:
        """Tell whether a sum of parts that are placed into an array goes on in another one."""
        alike = (e.shape, e.dtype) == (user.shape, user.dtype)
        is_first = e is user.args[0] or e.fun in SCATTERS
        return user.fun in (np.add, np.subtract) and alike and is_first

    def _is_sum(self, e: Expr) -> bool:
        return e.fun in (np.add, np.subtract) and e not in self._named

    def _summands(self, e: Expr) -> list[tuple[str, Expr]]:
        """Return what a sum is written as, with the signs."""
        terms = []
        while self._is_sum(e):
            e, term = e.args[0], ("+" if e.fun is np.add else "-", e.args[1])
            terms.append(term)
        return [("+", e), *reversed(terms)]

    def _longest_part(self, e: Expr) -> Expr | None:
        """Return the part of a text that is the longest, if that is too long, for a statement."""
        # A sum can be broken: what is too long is a term, and those of the sum before were seen.
        terms = [e]
        if self._is_sum(e):
            terms = [x for x in e.args if x is e.args[1] or not self._is_sum(x)]
        term = max(terms, key=lambda x: len(self.plain(x)))
        if len(self.plain(term)) <= LONGEST:
            return None
        parts = [x for x in term.parents if x not in self._named and x.fun] if term is e else [term]
        longest = max(parts, key=lambda x: len(self.plain(x)), default=None)
        return longest if longest and len(self.plain(longest)) > LONGEST // 3 else None

    def _own_name(self, e: Expr) -> str | None:
        """Return the name that a value has by itself: of its variable, or of what it is."""
        values = () if e in self._forward else self._gradient_of.get(e, ())
        named = (f"d{self.plain(value)}" for value in values if value in self._named)
        return self._names.get(e) or _formula_name(e) or next(named, None)

    def _give_name(self, e: Expr) -> None:
        plain_name = PLAIN_NAMES.get(e.fun) or getattr(e.fun, "__name__", "value").strip("_")
        name = identifier(self._own_name(e) or plain_name, self.taken)
        self.done.append((e, self._statement(e, name)))
        self._named.add(e)
        self._placed.discard(e)
        self.texts[e] = name, ATOM

    def _statement(self, e: Expr, name: str) -> list[str]:
        """Return the lines that compute a value: a sum may have several."""
        terms = self._summands(e)
        placed = [(sign, x) for sign, x in terms if x.fun in SCATTERS and x not in self._named]
        rest = [(sign, x) for sign, x in terms if (sign, x) not in placed]
        texts = self._texts(rest)
        if not placed:
            return _broken(f"{name} = ", texts if len(self.plain(e)) > LONGEST else [self.plain(e)])
        in_zeros = all((x.shape, x.dtype) != (e.shape, e.dtype) for _, x in rest)
        lines = _begun(name, e, texts, in_zeros=in_zeros)
        for k, (sign, x) in enumerate(placed):
            is_alone = not rest and all(_apart(x, other) for _, other in placed[:k])
            lines.append(self.scattered(x, name, "" if is_alone and sign == "+" else sign))
        return lines

    def _texts(self, terms: Sequence[tuple[str, Expr]]) -> list[str]:
        """Return the terms of a sum with their signs: the first with a minus alone."""
        texts = [f"{sign} {grouped(self.text_of(x), TERM)}" for sign, x in terms]
        return [text.removeprefix("+ ").replace("- ", "-", 1) for text in texts[:1]] + texts[1:]

    # ---- lines ----

    def lines(self) -> list[str]:
        """Return the lines of the statements, each with its shape and where it comes from."""
        number: dict[Expr, int] = {}  # the statement that each expression is a part of
        lines, section = [], ""
        for k, (e, (*first, last)) in enumerate(self.done, 1):
            number.update(
                (part, k) for part in needed([e], parents, number) if part.fun is not None
            )
            kind = "forward" if e in self._forward else "backward"
            if kind != section:
                lines += ["", f"# {kind}"]
                section = kind
            where = self._source(e, k) if kind == "forward" else self._whose(e, number)
            comment = f"# {e.shape if e.shape else 'scalar'}{where}"
            column = min(WIDTH, WIDEST - len(comment) - 2)
            fits = len(last) <= column
            lines += [*first, f"{last:{column}}  {comment}"] if fits else [comment, *first, last]
        return lines

    def _source(self, e: Expr, k: int) -> str:
        call = self.simple.origin.get(e)
        if call is None or call.source is None:
            return f" [{k}]"
        file, line, _ = call.source
        name = "".join(c if c.isprintable() else "?" for c in os.path.basename(file))
        turns = self._turns.setdefault((call.instruction, call.frames[0]), [])
        turns += [call] if call not in turns else []
        turn = turns.index(call) + 1
        return f" [{k}] {name}:{line}{f', turn {turn}' if turn > 1 else ''}"

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

    def tree(self, tree: Pytree) -> Any:
        """Return a pytree of texts as one whose repr is code."""
        if type(tree) is dict:
            return {Code(self.constant(key)): self.tree(sub) for key, sub in tree.items()}
        return type(tree)(map(self.tree, tree)) if type(tree) in (list, tuple) else Code(tree)


# -------------------- names --------------------


def argument_names(loss: Callable[..., Any], count: int, taken: set[str]) -> list[str]:
    """Return names for the arguments of a loss, its own where they can be known."""
    known = {}
    with suppress(TypeError, ValueError):  # what is compiled has no signature
        bound = inspect.signature(loss).bind(*range(count)).arguments
        known = {number: name for name, number in bound.items() if isinstance(number, int)}
    default = ["params", *(f"data_{i}" for i in range(1, count))]
    return [identifier(known.get(i, default[i]), taken) for i in range(count)]


def named_inputs(argument: str, tree: Pytree, taken: set[str]) -> Iterator[tuple[Any, Call, str]]:
    """Yield the traced leaves of an argument: the keys that lead to each, itself, a name."""
    for path, leaf in paths(tree):
        if isinstance(leaf, Call):
            yield path, leaf, identifier("_".join(map(str, path)), taken) if path else argument


def _gradient_of(simple: Simplified) -> dict[Expr, list[Expr]]:
    """Return, for each gradient, the values that it is the whole gradient of, by birth."""
    adjoints: dict[Expr, set[Expr]] = {}
    for param, grad in zip(simple.params, simple.grads, strict=True):
        adjoints[param] = {grad}
    for call, adjoint in simple.recording.adjoints.items():
        if isinstance(adjoint, Call):
            adjoints.setdefault(simple.of_call[call], set()).add(simple.of_call[adjoint])
    gradient_of: dict[Expr, list[Expr]] = {}
    for value in sorted(adjoints, key=lambda value: value.birth):
        # A value that was computed twice, and merged, has the sum of two adjoints.
        if value is not simple.loss and len(adjoints[value]) == 1:
            gradient_of.setdefault(adjoints[value].pop(), []).append(value)
    return gradient_of


def _broken(start: str, texts: Sequence[str]) -> list[str]:
    """Return a sum in lines that are not too long."""
    lines = [start + texts[0]]
    for text in texts[1:]:
        if len(lines[-1]) + len(text) < LONGEST:
            lines[-1] += f" {text}"
        else:
            lines.append(f"    {text}")
    if len(lines) > 1:
        lines[0] = f"{start}({lines[0].removeprefix(start)}"
        lines[-1] += ")"
    return lines


def _begun(name: str, e: Expr, texts: Sequence[str], *, in_zeros: bool) -> list[str]:
    """Return the lines that make a new array of a sum: in zeros where it is of other shapes."""
    if not in_zeros:
        return _broken(f"{name} = ", texts if len(texts) > 1 else [f"np.array({texts[0]})"])
    dtype = "" if e.dtype == float else f", dtype=np.{e.dtype.name}"
    zeros = f"{name} = np.zeros({shape_text(e.shape)}{dtype})"
    return [zeros, *(_broken(f"{name} += ", texts) if texts else ())]


def _apart(e: Expr, other: Expr) -> bool:
    """Tell whether two values are placed at indices of an array that have no entry in common."""
    if not e.fun is other.fun is put:
        return False
    whole = np.empty(e.shape, bool)
    indices = [x.args[2:] if ... in x.args else (*x.args[2:], ...) for x in (e, other)]
    return not np.shares_memory(*(whole[index] for index in indices))


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
        autograds = [module for module in sys.modules if module.startswith("autograd.scipy.")]
        for module in (*HOMES, getattr(value, "__module__", None), *autograds):
            found = getattr(sys.modules.get(str(module)), name, None)
            if getattr(found, "fun", found) is value:
                lines.append(f"from {module} import {name}")
                lines += [f"{name} = {name}.fun"] if found is not value else []
                break
        else:
            kind = type(value).__name__
            if isinstance(value, np.ndarray):
                kind = f"{value.dtype} array of the shape {value.shape}, frozen at derivation"
            lines.append(f"# needs {name} ({kind}): it is program.needs[{name!r}]")
    return [*lines, "", ""]
