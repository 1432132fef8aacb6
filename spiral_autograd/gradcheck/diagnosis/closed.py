"""The gradients of a softmax and of normalisations as a whole, and how people mistake them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import product

import numpy as np

from ...validation import Array
from ..reference.nodes import Node
from .edits import Axes, Pattern, one, subsets


@dataclass(frozen=True)
class Term:
    """``outer * R(inner * g)``, R being a sum, a mean or nothing: a term of a closed gradient."""

    outer: str
    reduce: str
    inner: str

    @property
    def text(self) -> str:
        """The term as a person writes it, with {y} for the result."""
        inside = f"{self.inner}g"
        return f"{self.outer}{self.reduce}({inside})" if self.reduce else f"{self.outer}{inside}"

    def value(self, y: Array, g: Array, axes: Axes, keepdims: bool = True) -> Array:
        """Return the term for the result y of the operation and the gradient g that leaves it."""
        inside = _FACTORS[self.inner](y) * g
        if self.reduce:
            inside = _REDUCE[self.reduce](inside, axis=axes, keepdims=keepdims)
        return np.asarray(_FACTORS[self.outer](y) * inside)

    def mistaken(self) -> Iterator[tuple[str, Term]]:
        """Yield what is written in its place, with the rule."""
        other = {"sum": "mean", "mean": "sum"}[self.reduce]
        yield "sum", Term(self.outer, other, self.inner)
        yield "sum", Term(self.outer, "", self.inner)
        if self.inner:
            yield "value", Term(self.outer, self.reduce, "")
        if self.outer:
            yield "value", Term("", self.reduce, self.inner)
        if self.outer == "exp({y}) * ":
            yield "value", Term("{y} * ", self.reduce, self.inner)


_REDUCE: dict[str, Callable[..., Array]] = {"sum": np.sum, "mean": np.mean}
_FACTORS: dict[str, Callable[[Array], object]] = {
    "": lambda y: 1.0,
    "{y} * ": lambda y: y,
    "exp({y}) * ": np.exp,
}

Own = Callable[[Array], object] | None
Less = Callable[[Array], Array]

# What it is, the terms of its gradient scale (g - Σ terms), and the scale (None: what fits).
CLOSED: tuple[tuple[str, tuple[Term, ...], Own], ...] = (
    ("softmax", (Term("", "sum", "{y} * "),), lambda y: y),
    ("log_softmax", (Term("exp({y}) * ", "sum", ""),), np.ones_like),
    ("mean", (Term("", "mean", ""),), np.ones_like),
    ("normalisation", (Term("", "mean", ""), Term("{y} * ", "mean", "{y} * ")), None),
    ("rms", (Term("{y} * ", "mean", "{y} * "),), None),
    ("norm", (Term("{y} * ", "sum", "{y} * "),), None),
)


@dataclass(frozen=True)
class Closed:
    """A passage whose gradient is ``scale (g - Σ terms)`` over some axes.

    `now` returns its result y and the scale, of the run whose values the nodes have.
    """

    title: str
    terms: tuple[Term, ...]
    axes: Axes
    ndim: int
    now: Callable[[], tuple[Array, Array]]

    @classmethod
    def of(cls, result: Node, g: Array, c: Array, back: Callable[[Array], object]) -> Closed | None:
        """Return the form of the gradient c that reaches an argument of a result, if it has one.

        `back` returns for a gradient of the result what reaches the argument.
        """
        y = np.asarray(result.value, dtype=float)
        if y.ndim == 0 or y.ndim > 4 or c.shape != y.shape:
            return None
        for axes in sorted(subsets(y.ndim), key=lambda axes: (len(axes), -axes[-1])):
            for title, terms, own in CLOSED if np.prod([y.shape[a] for a in axes]) > 1 else ():
                scale, rest = _scale(y, g, c, terms, own, axes)
                fits = np.max(np.abs(scale * rest - c)) <= 1e-8 * np.max(np.abs(c))
                if fits and np.max(np.abs(rest - g)) > 1e-9 * np.max(np.abs(g)):
                    now = _followed(result, back, terms, own, axes, (result.value, scale))
                    return cls(title, terms, axes, y.ndim, now)
        return None

    def bracket(self, g: Array, terms: Sequence[Term], axes: Axes | None = None) -> Array:
        """Return g minus some terms, whose sums are over some axes."""
        y, axes = self.now()[0], self.axes if axes is None else axes
        return np.asarray(g - sum(term.value(y, g, axes) for term in terms))

    def _scaled(self, bracket: Callable[[Array], Array]) -> Callable[[Array], Array]:
        return lambda g: np.asarray(self.now()[1] * bracket(g))

    def mistakes(self) -> Iterator[Pattern]:
        """Yield what people write in its place; the patterns are of the gradient g."""
        now, all_terms = self.now, self.terms
        for number, term in enumerate(all_terms):
            rest = [t for t in all_terms if t is not term]
            less = partial(self.bracket, terms=rest)
            fields = {"term": term.text, "number": number}
            yield Pattern("term_left_out", 0.0, self._scaled(less), fields)
            for rule, other in term.mistaken():
                taken = fields | {"other": other.text, "rule": rule}
                instead = partial(self.bracket, terms=[*rest, other])
                yield Pattern("term_taken", 0.5, self._scaled(instead), taken)
            for axes, keep in product(subsets(self.ndim), (True, False)):

                def over(
                    g: Array, t: Term = term, m: Less = less, axes: Axes = axes, keep: bool = keep
                ) -> Array:
                    y, scale = now()
                    return np.asarray(scale * (m(g) - t.value(y, g, axes, keep)))

                yield Pattern("term_axes", 0.6, over, fields | {"axes": one(axes)})
        if len(all_terms) > 1:
            yield Pattern("only_scaled_g", 0.1, lambda g: now()[1] * g)
            for axes in subsets(self.ndim):
                every = partial(self.bracket, terms=all_terms, axes=axes)
                fields = {"axes": one(axes)}
                yield Pattern("all_axes", 0.6, self._scaled(every), fields)
        whole = partial(self.bracket, terms=all_terms)
        yield Pattern("g_left_out", -0.4, lambda g: now()[1] * (whole(g) - g))
        yield Pattern("scale_left_out", 0.5, whole)
        yield Pattern("scale_squared", 0.6, lambda g: now()[1] ** 2 * whole(g))
        yield Pattern("scale_inverted", 0.7, lambda g: whole(g) / now()[1])
        yield Pattern("only_g", 0.7, lambda g: g)


def _scale(
    y: Array, g: Array, c: Array, terms: Sequence[Term], own: Own, axes: Axes
) -> tuple[Array, Array]:
    """Return by what ``g - Σ terms`` is multiplied to be c, and that itself."""
    rest = g - sum(term.value(y, g, axes) for term in terms)
    over = partial(np.sum, axis=axes, keepdims=True)
    scale = own(y) if own else over(c * rest) / np.maximum(over(rest * rest), 1e-300)
    return np.asarray(scale), np.asarray(rest)


def _followed(
    result: Node,
    back: Callable[[Array], object],
    terms: Sequence[Term],
    own: Own,
    axes: Axes,
    known: tuple[object, Array],
) -> Callable[[], tuple[Array, Array]]:
    """Return what tells y and the scale of the run whose values the nodes have."""

    def now() -> tuple[Array, Array]:
        nonlocal known
        if known[0] is not result.value:
            y, g = np.asarray(result.value, dtype=float), np.asarray(result.adjoint, dtype=float)
            known = result.value, _scale(y, g, np.asarray(back(g)), terms, own, axes)[0]
        return np.asarray(known[0], dtype=float), known[1]

    return now
