"""derive: record a loss's gradient, make sure that the recording holds, and run it.

A recording is a program only if it does not depend on the values that it was made with. Three
guards together see to that: boxes that refuse to become plain values; a second recording on other
parameters and re-ordered, resampled data, which must be the same program with the same constants;
and the finished program run against autograd on those inputs and on redrawn ones.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import autograd
import numpy as np
from autograd.tracer import isbox, trace_stack

from ..pytree import Pytree, float_tree, leaves, named_leaves, tree_map, with_leaves
from ..recording import Call, Recording, RecordingError, name_of, one_at_a_time, record
from ..validation import Array
from .buffers import write_buffered
from .expressions import Expr, static_key
from .listing import write_listing
from .simplify import Simplified, simplify

Loss = Callable[..., Any]


class DerivationError(RecordingError):
    """A loss has no program: what it computes is not the same list of calls for all values."""


# -------------------- the program --------------------


Buffered: TypeAlias = tuple[Callable[..., Any], list[Any]]


@dataclass(frozen=True, eq=False)
class Program:
    """A loss and its gradient, as autograd derives them, written out as NumPy.

    Attributes
    ----------
    source : str
        The program as text, to be read, or to be pasted into a file.
    needs : dict
        What the text needs besides NumPy, by name; empty for most.
    buffered : tuple
        ``make(param_views, grad_views) -> step(*data)``, which writes the gradient into the views
        and returns the loss; and the dtypes that step takes its arrays in.

    Examples
    --------
    >>> from spiral_autograd import init_params, load_data, loss
    >>> x, t = load_data()
    >>> program = derive(loss, init_params(2, 10, 3, rng=0), x, t)
    >>> value, grads = program(init_params(2, 10, 3, rng=1), x, t)
    >>> grads["W1"].shape
    (2, 10)
    """

    source: str
    needs: dict[str, Any] = field(repr=False)
    buffered: Buffered = field(repr=False)
    _signature: Any = field(repr=False)
    _arguments: dict[str, str] = field(repr=False)
    _function: Callable[..., Any] = field(repr=False)

    def __call__(self, params: Pytree, *data: Pytree) -> tuple[Any, Pytree]:
        """Return the loss and its gradient with respect to `params`.

        Raises
        ------
        ValueError
            If an argument has another structure, shape or dtype than the program was derived for.
        """
        if signature(params, data) != self._signature:
            raise ValueError(_mismatch(self._arguments, _described(params, data)))
        return self._function(params, *data)


def _buffered(simplified: Simplified) -> Buffered:
    source, needs, data_dtypes = write_buffered(simplified)
    return _compiled(source, needs)["make"], data_dtypes


def _run_buffered(
    buffered: Buffered, simplified: Simplified, example: Pytree
) -> Callable[..., Any]:
    """Return the buffered program as a function of pytrees, with the gradients' own dtypes."""
    make, data_dtypes = buffered
    params = [np.array(leaf) for leaf in leaves(example)]
    grads = [np.empty_like(param) for param in params]
    step = make(params, grads)

    def function(params_now: Pytree, *data: Pytree) -> tuple[Any, Pytree]:
        for param, now in zip(params, leaves(params_now), strict=True):
            np.copyto(param, now)
        arrays = [leaf for leaf in map(_traced, leaves(list(data))) if leaf is not None]
        loss = step(*(a.astype(dtype) for a, dtype in zip(arrays, data_dtypes, strict=True)))
        new = [np.array(g, dtype=e.dtype) for g, e in zip(grads, simplified.grads, strict=True)]
        return np.array(loss), with_leaves(example, new)

    return function


def _traced(leaf: Any) -> Any:
    return np.asarray(leaf) if isinstance(leaf, np.ndarray | np.generic | float) else None


def _compiled(source: str, needs: dict[str, Any]) -> dict[str, Any]:
    namespace = dict(needs)
    exec(compile(source, "<derived>", "exec"), namespace)
    return namespace


def signature(params: Pytree, data: tuple[Pytree, ...]) -> Any:
    """Return the structure, shapes and dtypes of the arguments, to be compared."""
    return tuple(map(_structure, (params, *data)))


def _structure(tree: Pytree) -> Any:
    kind = type(tree)
    if kind is np.ndarray:
        return tree.shape, tree.dtype
    if isinstance(tree, np.generic):
        return (), tree.dtype
    if kind is dict:
        return dict, tuple((key, _structure(sub)) for key, sub in tree.items())
    if kind is list or kind is tuple:
        return kind, tuple(map(_structure, tree))
    if kind is float:
        return kind
    if isbox(tree):
        raise TypeError("inside another trace, autograd itself differentiates")
    return static_key(tree)


def _described(params: Pytree, data: tuple[Pytree, ...]) -> dict[str, str]:
    """Return what each leaf of the arguments is, in words."""
    trees = {"params": params} | {f"data[{i}]": tree for i, tree in enumerate(data)}
    return {
        path: f"{leaf.dtype} of the shape {leaf.shape}"
        if isinstance(leaf, np.ndarray | np.generic)
        else ("float" if isinstance(leaf, float) else repr(leaf))
        for name, tree in trees.items()
        for path, leaf in named_leaves(name, tree)
    }


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


# -------------------- deriving --------------------


def derive(loss: Loss, params: Pytree, *data: Pytree) -> Program:
    """Return autograd's gradient of a loss as a program of NumPy calls.

    The program holds for all parameters and data of the structure, shapes and dtypes given. A
    value that `loss` closes over is a constant of it, as is every argument that is no array and
    no float.

    Parameters
    ----------
    loss : callable
        ``loss(params, *data)`` returns a scalar; anything that autograd can differentiate.
    params : pytree of float arrays
    *data : arrays, or pytrees of arrays

    Returns
    -------
    Program

    Raises
    ------
    DerivationError
        If the loss is not the same list of calls for all values: a Python branch on a value, a
        random number, a value that escaped into plain NumPy, a shape that depends on values. The
        message says what differed, and where.
    TypeError, ValueError
        If `params` is no pytree of finite float arrays, or the loss is not a scalar.

    Examples
    --------
    >>> program = derive(lambda w, x: ((x * w) ** 2).sum(), np.ones(3), np.ones(3))
    >>> print(program.source)  # doctest: +ELLIPSIS
    import numpy as np
    <BLANKLINE>
    <BLANKLINE>
    def value_and_grad(w, x):
    <BLANKLINE>
        # forward
        product = x * w                                           # (3,) [1] ...
        loss = (product**2).sum()                                 # scalar [2] ...
    <BLANKLINE>
        # backward
        dw = 2 * (x * product)                                    # (3,) gradient of [1]
    <BLANKLINE>
        return loss, dw
    <BLANKLINE>
    """
    params = float_tree("params", params)
    rng = np.random.default_rng(0)
    examples = [(params, data), *(_redrawn(rng, params, data) for _ in range(3))]
    recording, simplified = _recorded(loss, *examples[0])
    _require_same((recording, simplified), _recorded(loss, *examples[1]))
    source, needs = write_listing(recording, simplified, loss, params, data)
    function = _compiled(source, needs)["value_and_grad"]
    buffered = _buffered(simplified)
    with _refused("on redrawn inputs, the loss or its program raised "):
        functions = function, _run_buffered(buffered, simplified, params)
        finite = [_agree_with_autograd(loss, functions, *example) for example in examples]
    if not any(finite):
        raise DerivationError(
            "the loss and its gradient are not finite for the inputs given, nor for any redrawn "
            "ones: there is nothing to check the program with"
        )
    return Program(
        source,
        needs,
        buffered,
        signature(params, data),
        _described(params, data),
        function,
    )


def _recorded(loss: Loss, params: Pytree, data: tuple[Pytree, ...]) -> tuple[Recording, Simplified]:
    with _refused("while it was recorded, the loss raised "), np.errstate(all="ignore"):
        recording = record(loss, params, *data)
        roots = [
            [leaf for leaf in leaves(tree) if isinstance(leaf, Call)]
            for tree in (recording.params, list(recording.data))
        ]
        return recording, simplify(recording, *roots)


@contextmanager
def _refused(what: str) -> Iterator[None]:
    """Turn any error into a refusal that says what happened, and close autograd's traces."""
    top = trace_stack.top
    try:
        yield
    except DerivationError:
        raise
    except Exception as error:
        trace_stack.top = top
        message = str(error) if isinstance(error, RecordingError) else None
        raise DerivationError(message or f"{what}{type(error).__name__}: {error}") from error


def _redrawn(
    rng: np.random.Generator, params: Pytree, data: tuple[Pytree, ...]
) -> tuple[Pytree, tuple[Pytree, ...]]:
    """Return other parameters, and the data's rows resampled, in another order."""

    def moved(leaf: Any) -> Any:
        size = np.max(np.abs(leaf), initial=0.0) or 1.0
        noise = 0.1 * size * rng.standard_normal(np.shape(leaf))
        return np.asarray(leaf + noise, dtype=np.asarray(leaf).dtype)[()]

    lengths = {len(leaf) for leaf in leaves(list(data)) if np.ndim(leaf) > 0}
    rows = {n: rng.integers(n, size=n) for n in sorted(lengths)}

    def resampled(leaf: Any) -> Any:
        if not isinstance(leaf, np.ndarray) or leaf.ndim == 0:
            return leaf
        return leaf[rows[len(leaf)]]

    return tree_map(moved, params), tuple(tree_map(resampled, tree) for tree in data)


# -------------------- the guards --------------------


def _require_same(
    first: tuple[Recording, Simplified], second: tuple[Recording, Simplified]
) -> None:
    """Raise unless both recordings are the same program with the same constants."""
    if list(_normal_form(first[1])) != list(_normal_form(second[1])):
        raise DerivationError(
            "a second recording, on other parameters and resampled data, is another program: "
            + _difference(first[0], second[0])
        )


def _normal_form(simple: Simplified) -> Iterator[Any]:
    """Yield each call with its arguments by number, then the results."""
    number: dict[Expr, int] = {}
    for e in simple.order():
        args = tuple(number[a] if isinstance(a, Expr) else static_key(a) for a in e.args)
        number[e] = len(number)
        value = static_key(e.value) if e.fun is None else None
        yield e.fun, args, static_key(tuple(e.kwargs)), e.shape, e.dtype, value
    for result in (simple.loss, *simple.grads):
        yield number[result]


def _difference(first: Recording, second: Recording) -> str:
    """Return what the first call is that differs, and where it stands."""
    for ours, theirs in zip(first.calls, second.calls, strict=False):
        source = (ours.gradient_of or ours).source
        where = f", in {source[0]}, line {source[1]}" if source else ""
        if ours.fun is not theirs.fun:
            names = f"{name_of(theirs.fun)} in place of {name_of(ours.fun)}"
            return f"{names} (a branch on a value){where}"
        if np.shape(ours.value) != np.shape(theirs.value):
            shapes = f"{np.shape(theirs.value)} in place of {np.shape(ours.value)}"
            return f"{name_of(ours.fun)} returns the shape {shapes}{where}"
        if _constants(ours) != _constants(theirs):
            return (
                f"a constant of {name_of(ours.fun)} differs (a random number, a counter, or a "
                f"value that escaped the trace){where}"
            )
    ours_count, theirs_count = len(first.calls), len(second.calls)
    if ours_count != theirs_count:
        return f"{theirs_count} calls in place of {ours_count} (a loop or a branch on a value)"
    return "its calls take other values as arguments, or its results are others"


def _constants(call: Call) -> list[Any]:
    keys = [None if isinstance(arg, Call) else static_key(arg) for arg in call.args]
    return [*keys, static_key(call.kwargs)]


def _agree_with_autograd(
    loss: Loss, functions: Sequence[Loss], params: Pytree, data: tuple[Pytree, ...]
) -> bool:
    """Raise unless the programs agree with autograd on an example; tell if all is finite there."""
    with one_at_a_time, np.errstate(all="ignore"), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        expected = autograd.value_and_grad(loss)(params, *data)
        results = [function(params, *data) for function in functions]
    scale = max(_largest(leaf) for leaf in leaves(expected[1]))
    precision = max(
        np.finfo(leaf.dtype).eps
        for leaf in map(np.asarray, leaves([params, *data]))
        if leaf.dtype.kind == "f"
    )
    for got in results:
        for (path, wanted), leaf in zip(named_leaves("", expected), leaves(got), strict=True):
            if not _agree(np.asarray(wanted), np.asarray(leaf), scale, precision):
                name = "the loss" if path == "[0]" else f"the gradient{path.removeprefix('[1]')}"
                raise DerivationError(
                    f"{name} differs from autograd's on redrawn inputs: the loss depends on "
                    "values in a way that a recording cannot hold"
                )
    return all(np.isfinite(leaf).all() for leaf in leaves(expected))


def _largest(array: Any) -> float:
    return float(np.max(np.abs(array), where=np.isfinite(array), initial=0.0))


def _agree(expected: Array, got: Array, scale: float, precision: float) -> bool:
    """Compare, where a gradient that cancels to nothing leaves the rounding of the larger ones."""
    if expected.shape != got.shape or expected.dtype != got.dtype:
        return False
    tolerance = 1e3 * precision * max(scale, _largest(expected))
    return np.allclose(got, expected, rtol=0, atol=tolerance, equal_nan=True)
