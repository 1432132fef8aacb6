"""derive: record a loss's gradient, make sure that the recording holds, and run it.

A recording is a program only if it does not depend on the values that it was made with. Three
guards together see to that: boxes that refuse to become plain values; a second recording on other
parameters and re-ordered, resampled data, which must be the same program with the same constants;
and the finished program run against autograd on those inputs and on redrawn ones.
"""

from __future__ import annotations

import random
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import autograd
import numpy as np
from autograd.tracer import isbox, trace_stack

from ..pytree import (
    DEEPEST,
    Pytree,
    float_tree,
    leaves,
    named_leaves,
    too_deep,
    tree_map,
    with_leaves,
)
from ..recording import Call, Recording, RecordingError, name_of, process_lock, record
from ..validation import Array
from .buffers import write_buffered
from .expressions import Expr, static_key
from .listing import write_listing
from .outside import Outside, TracedError, UnwatchableError, stream_undo
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
    traces_ints : bool
        Whether the program holds for other Python ints than those in the data it was derived for.

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
    traces_ints: bool = field(repr=False)
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
        if signature(params, data, trace_ints=self.traces_ints) != self._signature:
            described = _described(params, data, trace_ints=self.traces_ints)
            raise ValueError(_mismatch(self._arguments, described))
        return self._function(params, *data)


def _buffered(simplified: Simplified) -> Buffered:
    source, needs, data_dtypes = write_buffered(simplified)
    return _compiled(source, needs)["make"], data_dtypes


def _run_buffered(
    buffered: Buffered, simplified: Simplified, recording: Recording, example: Pytree
) -> Callable[..., Any]:
    """Return the buffered program as a function of pytrees, with the gradients' own dtypes."""
    make, data_dtypes = buffered
    params = [np.array(leaf) for leaf in leaves(example)]
    grads = [np.empty_like(param) for param in params]
    step = make(params, grads)
    traced = [isinstance(leaf, Call) for leaf in leaves(list(recording.data))]

    def function(params_now: Pytree, *data: Pytree) -> tuple[Any, Pytree]:
        for param, now in zip(params, leaves(params_now), strict=True):
            np.copyto(param, now)
        taken = [
            leaf for leaf, is_taken in zip(leaves(list(data)), traced, strict=True) if is_taken
        ]
        loss = step(*map(_cast, taken, data_dtypes))
        new = [np.array(g, dtype=e.dtype) for g, e in zip(grads, simplified.grads, strict=True)]
        return np.array(loss), with_leaves(example, new)

    return function


def _cast(leaf: Any, dtype: Any) -> Any:
    return leaf if type(leaf) in (int, float) else np.asarray(leaf).astype(dtype)


def _compiled(source: str, needs: dict[str, Any]) -> dict[str, Any]:
    namespace = dict(needs)
    exec(compile(source, "<derived>", "exec"), namespace)
    return namespace


def signature(params: Pytree, data: tuple[Pytree, ...], *, trace_ints: bool = False) -> Any:
    """Return the structure, shapes and dtypes of the arguments, to be compared.

    Of a Python int it is the type alone, where ints are traced; else its value.
    """
    return tuple([_structure(tree, trace_ints, DEEPEST) for tree in (params, *data)])


def _structure(tree: Pytree, trace_ints: bool, depth: int) -> Any:
    kind = type(tree)
    if kind is np.ndarray:
        return tree.shape, tree.dtype
    if isinstance(tree, np.generic):
        return (), tree.dtype
    if kind is dict or kind is list or kind is tuple:
        if not depth:
            raise too_deep("an argument")
        if kind is dict:
            return dict, tuple(
                [(key, _structure(sub, trace_ints, depth - 1)) for key, sub in tree.items()]
            )
        return kind, tuple([_structure(sub, trace_ints, depth - 1) for sub in tree])
    if kind is float or (trace_ints and kind is int):
        return kind
    if isbox(tree):
        raise TypeError("inside another trace, autograd itself differentiates")
    if isinstance(tree, np.ndarray):
        return kind, tree.shape, tree.dtype
    return (
        static_key(tree) if isinstance(tree, bool | int | str | bytes | None) else (kind, id(tree))
    )


def _described(
    params: Pytree, data: tuple[Pytree, ...], *, trace_ints: bool = False
) -> dict[str, str]:
    """Return what each leaf of the arguments is, in words."""

    def words(leaf: Any) -> str:
        if isinstance(leaf, np.ndarray | np.generic):
            return f"{leaf.dtype} of the shape {leaf.shape}"
        if type(leaf) is float or (trace_ints and type(leaf) is int):
            return type(leaf).__name__
        return repr(leaf)

    trees = {"params": params} | {f"data[{i}]": tree for i, tree in enumerate(data)}
    return {
        path: words(leaf) for name, tree in trees.items() for path, leaf in named_leaves(name, tree)
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
    with process_lock:
        outside = reached_by(loss, data)
        with _unchanged(outside):
            if any(type(leaf) is int for leaf in leaves(list(data))):
                try:
                    return _derived(loss, params, data, trace_ints=True)
                except DerivationError:  # a length or an index, perhaps: a constant
                    pass
            return _derived(loss, params, data, trace_ints=False)


def reached_by(loss: Loss, data: tuple[Pytree, ...]) -> Outside:
    """Return what a loss reaches besides its arrays and numbers, or raise a refusal."""
    arrays = np.ndarray | np.generic | float | int
    objects = [leaf for leaf in leaves(list(data)) if not isinstance(leaf, arrays)]
    try:
        return Outside(loss, objects)
    except UnwatchableError as error:
        raise DerivationError(str(error)) from None
    except TracedError as error:
        raise DerivationError("it reaches a value of a trace that runs") from error


@contextmanager
def _unchanged(outside: Outside) -> Iterator[None]:
    """Put back what the loss changes meanwhile, random streams included, and refuse such a loss."""
    streams = {
        "NumPy's global random numbers": stream_undo(np.random.mtrand._rand),
        "Python's global random numbers": stream_undo(random._inst),
    }
    changed: list[str] = []
    try:
        with outside.kept(changed):
            yield
    finally:
        changed += [name for name, undo in streams.items() if undo()]
    if changed:
        raise DerivationError(
            f"each call changes {changed[0]}, which a program would not; pass what changes as data"
        )


def _derived(loss: Loss, params: Pytree, data: tuple[Pytree, ...], *, trace_ints: bool) -> Program:
    examples = list(_examples(params, data, trace_ints))
    given, near, *far = examples
    first = _recorded(loss, *given, trace_ints=trace_ints)
    _require_same(first, _recorded_elsewhere(loss, [*far, near], trace_ints=trace_ints))
    recording, simplified = first
    expected = _by_autograd(loss, *given, what="the loss raised ")
    with _refused("it could not be written as NumPy: "):
        source, needs, function = _listed(recording, simplified, loss, given, expected)
        buffered = _buffered(simplified)
        functions = function, _run_buffered(buffered, simplified, recording, params)
    finite = [_agree_with_autograd(functions, given, expected, far=False)]
    for example in examples[1:]:
        try:
            expected = _by_autograd(loss, *example, what="on redrawn inputs, the loss raised ")
        except DerivationError:
            if example is near:
                raise
            continue  # a far example may lie where the loss is not defined
        if example is near or _all_finite(expected):
            is_far = example is not near
            finite.append(_agree_with_autograd(functions, example, expected, far=is_far))
    if not any(finite):
        raise DerivationError(
            "the loss and its gradient are not finite for the inputs given, nor for any redrawn "
            "ones: there is nothing to check the program with"
        )
    return Program(
        source,
        needs,
        buffered,
        trace_ints,
        signature(params, data, trace_ints=trace_ints),
        _described(params, data, trace_ints=trace_ints),
        function,
    )


def _recorded(
    loss: Loss, params: Pytree, data: tuple[Pytree, ...], *, trace_ints: bool
) -> tuple[Recording, Simplified]:
    with _refused("while it was recorded, the loss raised "), _silence():
        recording = record(loss, params, *data, trace_ints=trace_ints)
        roots = [
            [leaf for leaf in leaves(tree) if isinstance(leaf, Call)]
            for tree in (recording.params, list(recording.data))
        ]
        return recording, simplify(recording, *roots)


def _recorded_elsewhere(
    loss: Loss, examples: Sequence[Example], *, trace_ints: bool
) -> tuple[Recording, Simplified]:
    """Return a second recording, on the first of some examples at which the loss is defined."""
    *others, last = examples
    for example in others:
        try:
            return _recorded(loss, *example, trace_ints=trace_ints)
        except DerivationError as error:
            if isinstance(error.__cause__, RecordingError):
                raise
    return _recorded(loss, *last, trace_ints=trace_ints)


def _listed(
    recording: Recording, simplified: Simplified, loss: Loss, given: Example, expected: Any
) -> tuple[str, dict[str, Any], Callable[..., Any]]:
    """Return the program's text, what it needs, and it as a function with autograd's own types."""
    params, data = given
    types: list[str | None] = [None] * (1 + len(leaves(params)))
    for _ in range(2):
        source, needs = write_listing(recording, simplified, loss, params, types)
        function = _compiled(source, needs)["value_and_grad"]
        with _silence():
            got = function(params, *data)
        types = [
            None if type(ours) is type(wanted) else _maker(wanted)
            for ours, wanted in zip(leaves(got), leaves(expected), strict=True)
        ]
        if not any(types):
            break
    return source, needs, function


def _maker(wanted: Any) -> str:
    if isinstance(wanted, np.generic):
        return f"np.{wanted.dtype.name}"
    return "np.array" if isinstance(wanted, np.ndarray) else type(wanted).__name__


@contextmanager
def _silence() -> Iterator[None]:
    with np.errstate(all="ignore"), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


@contextmanager
def _refused(what: str) -> Iterator[None]:
    """Turn any error into a refusal that says what happened, and close autograd's traces."""
    top = trace_stack.top
    try:
        yield
    except DerivationError:
        raise
    except Exception as error:  # the loss is the user's, and may raise anything
        message = str(error) if isinstance(error, RecordingError) else None
        raise DerivationError(message or f"{what}{type(error).__name__}: {error}") from error
    finally:
        trace_stack.top = top


# -------------------- the examples --------------------

Example: TypeAlias = tuple[Pytree, tuple[Pytree, ...]]


def _examples(params: Pytree, data: tuple[Pytree, ...], trace_ints: bool) -> Iterator[Example]:
    """Yield the inputs given; others nearby; then others at full scale and with other signs.

    A value that left the trace, or a branch on it, shows only where it comes out differently.
    """
    yield params, data
    rng = np.random.default_rng(0)

    def nearby(leaf: Any) -> Any:
        return _like(leaf, leaf + 0.1 * _size(leaf) * rng.standard_normal(np.shape(leaf)))

    step = 1
    rows = {n: rng.integers(n, size=n) for n in _lengths(data)}

    def resampled(leaf: Any) -> Any:
        if trace_ints and type(leaf) is int:
            return leaf + step
        if not isinstance(leaf, np.ndarray) or leaf.ndim == 0:
            return leaf
        return leaf[rows[len(leaf)]]

    def mapped(move_params: Callable[[Any], Any], move_data: Callable[[Any], Any]) -> Example:
        return tree_map(move_params, params), tuple(tree_map(move_data, tree) for tree in data)

    yield mapped(nearby, resampled)

    def redrawn(scale: float, sign: Callable[[Any], Any], whole: bool) -> Callable[[Any], Any]:
        def move(leaf: Any) -> Any:
            if not _is_float(leaf) or (not whole and np.all(leaf == np.round(leaf))):
                return resampled(leaf)
            noise = np.abs(rng.standard_normal(np.shape(leaf)))
            return _like(leaf, scale * _size(leaf) * noise * sign(leaf))

        return move

    def random_sign(leaf: Any) -> Any:
        return rng.choice([-1.0, 1.0], size=np.shape(leaf))

    floats = [leaf for leaf in leaves(list(data)) if _is_float(leaf)]
    some_whole = any(np.all(leaf == np.round(leaf)) for leaf in floats)
    for scale, sign in ((1.0, lambda leaf: -_sign(leaf)), (5.0, _sign), (0.2, random_sign)):
        step += 1
        # Whole numbers may be classes, counts or one-hot rows.
        for whole in (True, False) if some_whole else (True,):
            yield mapped(redrawn(scale, sign, True), redrawn(scale, sign, whole))


def _lengths(data: tuple[Pytree, ...]) -> list[int]:
    return sorted({len(leaf) for leaf in leaves(list(data)) if np.ndim(leaf) > 0})


def _is_float(leaf: Any) -> bool:
    return isinstance(leaf, float) or getattr(getattr(leaf, "dtype", None), "kind", "") == "f"


def _like(leaf: Any, values: Any) -> Any:
    """Return values in the type and dtype of a leaf."""
    if type(leaf) is float:
        return float(values)
    return np.asarray(values, dtype=np.asarray(leaf).dtype)[()]


def _size(leaf: Any) -> Any:
    return np.max(np.abs(leaf), initial=0.0) or 1.0


def _sign(leaf: Any) -> Any:
    return np.where(np.asarray(leaf) < 0, -1.0, 1.0)


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
                f"value that escaped the trace: pass it as data){where}"
            )
    ours_count, theirs_count = len(first.calls), len(second.calls)
    if ours_count != theirs_count:
        return f"{theirs_count} calls in place of {ours_count} (a loop or a branch on a value)"
    return "its calls take other values as arguments, or its results are others"


def _constants(call: Call) -> list[Any]:
    keys = [None if isinstance(arg, Call) else static_key(arg) for arg in call.args]
    return [*keys, static_key(call.kwargs)]


def _by_autograd(loss: Loss, params: Pytree, data: tuple[Pytree, ...], *, what: str) -> Any:
    with _refused(what), _silence():
        return autograd.value_and_grad(loss)(params, *data)


def _agree_with_autograd(
    functions: Sequence[Loss], example: Example, expected: Any, *, far: bool
) -> bool:
    """Raise unless the programs agree with autograd on an example; tell if all is finite there."""
    params, data = example
    with _refused("on redrawn inputs, its program raised "), _silence():
        results = [function(params, *data) for function in functions]
    scale = max(_largest(leaf) for leaf in leaves(expected[1]))
    given = [leaf for leaf in map(np.asarray, leaves([params, *data])) if leaf.dtype.kind == "f"]
    precision = max(np.finfo(leaf.dtype).eps for leaf in given)
    if far:  # where everything is saturated, a gradient may be what rounding left of larger terms
        scale = max(scale, 1e3 * np.sqrt(precision) * max(map(_largest, given)))
        precision = 1e-3 * np.sqrt(precision)
    for got in results:
        for (path, wanted), leaf in zip(named_leaves("", expected), leaves(got), strict=True):
            if not _agree(np.asarray(wanted), np.asarray(leaf), scale, precision):
                name = "the loss" if path == "[0]" else f"the gradient{path.removeprefix('[1]')}"
                raise DerivationError(
                    f"{name} differs from autograd's on redrawn inputs: the loss depends on "
                    "values in a way that a recording cannot hold; what it takes out of the trace "
                    "must be passed as data"
                )
    return _all_finite(expected)


def _all_finite(tree: Pytree) -> bool:
    return all(np.isfinite(leaf).all() for leaf in leaves(tree))


def _largest(array: Any) -> float:
    return float(np.max(np.abs(array), where=np.isfinite(array), initial=0.0))


def _agree(expected: Array, got: Array, scale: float, precision: float) -> bool:
    """Compare, where a gradient that cancels to nothing leaves the rounding of the larger ones."""
    if expected.shape != got.shape or expected.dtype != got.dtype:
        return False
    tolerance = 1e3 * precision * max(scale, _largest(expected))
    return np.allclose(got, expected, rtol=0, atol=tolerance, equal_nan=True)
