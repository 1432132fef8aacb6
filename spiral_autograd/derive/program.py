"""A derived program, and which arguments it holds for."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import numpy as np
from autograd.tracer import isbox

from ..pytree import DEEPEST, Pytree, named_leaves, too_deep
from .expressions import static_key
from .graph import Graph, to_dot, to_mermaid

Buffered: TypeAlias = tuple[Callable[..., Any], list[Any]]


@dataclass(frozen=True, eq=False)
class Program:
    """A loss and its gradient, as autograd derives them, written out as NumPy.

    Its `buffered` form is ``make(params, grads, data, count) -> (steps, losses)``, which computes
    in place (see `write_buffered`), and the dtypes that it takes the data in.

    Examples
    --------
    >>> from spiral_autograd import derive, init_params, load_data, loss
    >>> x, t = load_data()
    >>> program = derive(loss, init_params(2, 10, 3, rng=0), x, t)
    >>> value, grads = program(init_params(2, 10, 3, rng=1), x, t)
    >>> grads["W1"].shape
    (2, 10)
    """

    source: str  # the program as text, to be read, or to be pasted into a file
    needs: dict[str, Any] = field(repr=False)  # besides NumPy, by name; empty for most
    buffered: Buffered = field(repr=False)
    traces_ints: bool = field(repr=False)  # does it hold for other Python ints among the data?
    _signature: Any = field(repr=False)
    _arguments: dict[str, str] = field(repr=False)
    _function: Callable[..., Any] = field(repr=False)
    _graphs: tuple[Graph, Graph] = field(repr=False)  # merged, and in full

    def __call__(self, params: Pytree, *data: Pytree) -> tuple[Any, Pytree]:
        """Return the loss and its gradient with respect to `params`.

        An argument of another structure, shape or dtype than those of the derivation: ValueError.
        """
        if signature(params, data, trace_ints=self.traces_ints) != self._signature:
            got = described(params, data, trace_ints=self.traces_ints)
            raise ValueError(_mismatch(self._arguments, got))
        return self._function(params, *data)

    def graph(self, *, full: bool = False) -> Graph:
        """Return the computational graph: what `to_mermaid` and `to_dot` write, as plain data.

        On its edges are the values and the gradients of the arguments that the program was derived
        for: names and shapes, and the numbers where they are few. With `full` each operation is a
        node; else one call of a function that calls no other is one, as affine is in the book.

        Examples
        --------
        >>> from spiral_autograd import derive, init_params, load_data, loss
        >>> x, t = load_data()
        >>> graph = derive(loss, init_params(2, 10, 3, rng=0), x, t).graph()
        >>> [node.label for node in graph.nodes if node.kind == "operation"]
        ['affine', 'sigmoid', 'affine', 'cross_entropy']
        """
        return self._graphs[full]

    def to_mermaid(self, *, full: bool = False) -> str:
        """Return the graph as a Mermaid flowchart, which GitHub and many notebooks draw.

        Saito, *Deep Learning from Scratch 2*, section 1.3.4, draws them so. See `graph`.
        """
        return to_mermaid(self.graph(full=full))

    def to_dot(self, *, full: bool = False) -> str:
        """Return the graph in Graphviz' language: ``dot -Tsvg`` draws it. See `graph`."""
        return to_dot(self.graph(full=full))


_PLAIN = (bool, int, str, bytes, complex, slice, range, type(None))


def signature(
    params: Pytree,
    data: tuple[Pytree, ...],
    *,
    trace_ints: bool = False,
    of_object: Callable[[Any], object] = lambda value: (type(value), id(value)),
) -> tuple[object, ...]:
    """Return the structure, shapes and dtypes of the arguments, to be compared.

    Of a Python int it is the type alone, where ints are traced; else its value. `of_object` says
    what stands for an object of another kind.
    """

    def of_tree(tree: Pytree, depth: int) -> object:
        kind = type(tree)
        if kind is np.ndarray or isinstance(tree, np.generic):
            return tree.shape, tree.dtype
        if kind in (dict, list, tuple):
            if not depth:
                raise too_deep("an argument")
            keys, items = (tuple(tree), tree.values()) if kind is dict else (None, tree)
            return kind, keys, tuple([of_tree(item, depth - 1) for item in items])
        if isinstance(tree, np.ndarray):
            return kind, tree.shape, tree.dtype
        if kind is float or (trace_ints and kind is int):
            return kind
        if isbox(tree):
            raise TypeError("inside another trace, autograd itself differentiates")
        return static_key(tree) if isinstance(tree, _PLAIN) else of_object(tree)

    return tuple([of_tree(tree, DEEPEST) for tree in (params, *data)])


def described(
    params: Pytree, data: tuple[Pytree, ...], *, trace_ints: bool = False
) -> dict[str, str]:
    """Return what each leaf of the arguments is, in words."""

    def words(leaf: object) -> str:
        if isinstance(leaf, np.ndarray | np.generic):
            return f"{leaf.dtype} of the shape {leaf.shape}"
        is_traced = type(leaf) is float or (trace_ints and type(leaf) is int)
        return type(leaf).__name__ if is_traced else repr(leaf)

    found = [*named_leaves("params", params), *named_leaves("data", list(data))]
    return {path: words(leaf) for path, leaf in found}


def _mismatch(expected: dict[str, str], got: dict[str, str]) -> str:
    """Return the first difference between the arguments and those of the derivation."""
    for path in expected | got:
        if expected.get(path) != got.get(path):
            return (
                f"{path} must be as the program was derived for: "
                f"{expected.get(path, 'absent')}, got {got.get(path, 'nothing there')}"
            )
    return (
        "params and data must be dicts, lists and tuples in the order that the program was "
        f"derived for: {', '.join(expected)}; got {', '.join(got)}"
    )
