"""derive: record a loss's gradient, make sure that the recording holds, and run it.

A recording is a program only if it does not depend on the values that it was made with. Three
guards together see to that: boxes that refuse to become plain values; a second recording on other
parameters and re-ordered, resampled data, which must be the same program with the same constants;
and the finished program run against autograd on those inputs and on redrawn ones.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from ..boxes import RecordingError, process_lock
from ..pytree import Pytree, float_tree, leaves, with_leaves
from ..recording import Call, record
from . import guards
from .bodies import bodies
from .buffers import write_buffered
from .expressions import static_key
from .graph import draw
from .guards import DerivationError, Example, refused, silence
from .listing import write_listing
from .outside import Outside
from .program import Buffered, Program, described, signature
from .simplify import Simplified, simplify
from .writer import literal

Loss = Callable[..., Any]


def derive(loss: Loss, params: Pytree, *data: Pytree) -> Program:
    """Return autograd's gradient of a loss as a program of NumPy calls.

    The program holds for all parameters and data of the structure, shapes and dtypes given. What
    `loss` reaches besides them is a constant of it, as is every argument that is no array and no
    number; a Python int is a constant only where it is a length, or branched upon. Deriving leaves
    everything as it was, and draws from nobody's random stream.

    Parameters
    ----------
    loss : callable
        ``loss(params, *data)`` returns a scalar; anything that autograd can differentiate.
    params : pytree of finite float arrays
        Others raise TypeError or ValueError.
    *data : arrays, or pytrees of arrays

    Raises
    ------
    DerivationError
        If the loss is not the same list of calls for all values: a Python branch on a value, a
        random number, a value that escaped into plain NumPy, a shape that depends on values; if it
        changes what it reaches, or reaches what cannot be watched (see `value_and_grad`). The
        message says what differed, and where.

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
        with outside.unchanged():
            try:
                return _derived(loss, params, data, trace_ints=True)
            except DerivationError:
                if not any(type(leaf) is int for leaf in leaves(list(data))):
                    raise
            return _derived(loss, params, data, trace_ints=False)  # one is a length, perhaps


def reached_by(loss: Loss, data: tuple[Pytree, ...]) -> Outside:
    """Return what a loss reaches besides its arrays and numbers, or raise a refusal."""
    arrays = np.ndarray | np.generic | float | int
    objects = [leaf for leaf in leaves(list(data)) if not isinstance(leaf, arrays)]
    with refused("what it reaches cannot be looked at: it raised "):
        return Outside(loss, objects)


def _derived(loss: Loss, params: Pytree, data: tuple[Pytree, ...], *, trace_ints: bool) -> Program:
    given, near, *far = guards.examples(params, data, trace_ints)
    simplified = _recorded(loss, given, trace_ints)
    guards.require_same(simplified, _recorded_elsewhere(loss, [*far, near], trace_ints))
    expected = guards.by_autograd(loss, given, what="the loss raised ")
    if static_key(leaves(list(given))) != static_key(leaves([params, data])):
        raise DerivationError("the loss writes into its arguments, which a program would not")
    with refused("it could not be written as NumPy: "):
        source, needs, function = _listed(simplified, loss, given, expected)
        text, needs_of_text, data_dtypes = write_buffered(simplified)
        buffered = _compiled(text, needs_of_text)["make"], data_dtypes
        functions = function, _run_buffered(buffered, simplified)
    finite = guards.agree_with_autograd(functions, given, expected, far=False)
    for example in (near, *far):
        is_far = example is not near
        try:
            expected = guards.by_autograd(loss, example, what="on redrawn inputs, the loss raised ")
        except DerivationError:
            if is_far:
                continue  # the loss may not be defined there
            raise
        if not is_far or guards.all_finite(expected):
            finite |= guards.agree_with_autograd(functions, example, expected, far=is_far)
    if not finite:
        raise DerivationError(
            "the loss and its gradient are not finite for the inputs given, nor for any redrawn "
            "ones: there is nothing to check the program with"
        )
    arguments = described(params, data, trace_ints=trace_ints)
    place = signature(params, data, trace_ints=trace_ints)
    recording = simplified.recording
    graphs = draw(recording, loss, full=False), draw(recording, loss, full=True)
    return Program(source, needs, buffered, trace_ints, place, arguments, function, graphs)


def _recorded(loss: Loss, example: Example, trace_ints: bool) -> Simplified:
    params, data = example
    with refused("while it was recorded, the loss raised "), silence():
        return simplify(record(loss, params, *data, trace_ints=trace_ints, bodies=bodies()))


def _recorded_elsewhere(loss: Loss, examples: Sequence[Example], trace_ints: bool) -> Simplified:
    """Return a second recording, on the first of some examples at which the loss is defined."""
    *others, last = examples
    for example in others:
        try:
            return _recorded(loss, example, trace_ints)
        except DerivationError as error:
            if isinstance(error.__cause__, RecordingError):
                raise
    return _recorded(loss, last, trace_ints)


# -------------------- the program, to be run --------------------


def _listed(
    simplified: Simplified, loss: Loss, given: Example, expected: object
) -> tuple[str, dict[str, Any], Callable[..., Any]]:
    """Return the program's text, what it needs, and it as a function with autograd's own types."""
    params, data = given
    types: list[str | None] = [None] * (1 + len(leaves(params)))
    source, needs = write_listing(simplified, loss, types)
    function = _compiled(source, needs)["value_and_grad"]
    with silence():
        got = function(params, *data)
    for k, (ours, wanted) in enumerate(zip(leaves(got), leaves(expected), strict=True)):
        if type(ours) is not type(wanted):
            is_array = isinstance(wanted, np.ndarray)
            types[k] = "np.array" if is_array else literal(type(wanted))
    if any(types):
        source, needs = write_listing(simplified, loss, types)
        function = _compiled(source, needs)["value_and_grad"]
    return source, needs, function


def _run_buffered(buffered: Buffered, simplified: Simplified) -> Callable[..., Any]:
    """Return the buffered program as a function of pytrees, with the gradients' own dtypes."""
    make, data_dtypes = buffered
    recording = simplified.recording
    first = [np.array(leaf.value) for leaf in leaves(recording.params)]
    roots = leaves(list(recording.data))
    given = [root.value for root in roots if isinstance(root, Call)]

    def function(params_now: Pytree, *data: Pytree) -> tuple[Any, Pytree]:
        params = [param.copy() for param in first]
        grads = [np.empty_like(param) for param in params]
        taken = itertools.compress(leaves(list(data)), (isinstance(r, Call) for r in roots))
        pairs = zip(given, taken, data_dtypes, strict=True)
        cast = [
            [x if type(x) in (int, float) else np.asarray(x).astype(dtype) for x in pair]
            for *pair, dtype in pairs
        ]
        rows = [np.array(pair) if np.ndim(pair[0]) else pair for pair in cast]
        steps, losses = make(params, grads, rows, 2)
        steps[0]()
        for param, now in zip(params, leaves(params_now), strict=True):
            np.copyto(param, now)
        steps[1]()  # behind one on other arguments, which it must not see
        new = [np.array(g, dtype=e.dtype) for g, e in zip(grads, simplified.grads, strict=True)]
        return np.array(losses(2)[1]), with_leaves(recording.params, new)

    return function


def _compiled(source: str, needs: dict[str, Any]) -> dict[str, Any]:
    namespace = dict(needs)
    exec(compile(source, "<derived>", "exec"), namespace)
    return namespace
