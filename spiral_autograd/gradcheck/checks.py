"""The checks: run, compare, look twice, call again, and say why."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import lru_cache
from typing import NamedTuple

import numpy as np

from ..pytree import Pytree
from ..validation import Random, number, random_stream
from .diagnosis.behind import require_used
from .explain import explain, explain_what_is_off, look_at_other_values
from .guard import CheckError, answerable, guarded
from .reference.reference import find_reference, gradients_of
from .report import GradientReport
from .subject.adapter import Terms
from .subject.calling import layer_of
from .subject.inputs import Names, as_array
from .subject.layer import Layer, by_forward_or_call
from .subject.loss import Gradient
from .subject.marks import among_globals
from .subject.objects import name_of_function
from .subject.passes import derivative_of, function_of, takes
from .subject.session import untouched
from .subject.subject import Subject
from .verdict.doubt import ask_differences, compared
from .verdict.rows import Comparison, Tolerances
from .verdict.second_call import call_again, first_gradients, judge, unused_upstream
from .where import Where

BUDGET = 10.0


def check_layer(
    layer: object,
    *inputs: object,
    upstream: object = None,
    constant: Names = (),
    rtol: float | None = None,
    atol: float | None = None,
    rng: Random = 0,
    budget: float = BUDGET,
) -> GradientReport:
    """Check an object with ``forward(*inputs)`` and ``backward(upstream)``.

    ``print(check_layer(layer, x))`` says of x and of each parameter whether its gradient is right;
    if not, why, and in which lines. In a test: ``check_layer(layer, x).raise_if_wrong()``.

    The parameters and gradients may be lists (``params``, ``grads``), attributes (``W`` with
    ``dW``) or dicts, known at construction or made in the first forward pass. The object and the
    inputs come out as they went in.

    Parameters
    ----------
    layer : object
        Or a class, or an object, whose methods take a context first, ``forward(ctx, *inputs)`` and
        ``backward(ctx, upstream)``, as the custom functions of PyTorch and minitorch do.
    *inputs : arrays
        What `forward` takes. Integer arrays have no gradient; what is no array is passed on.
    upstream : array or tuple of arrays, optional
        The gradient of the loss with respect to what `forward` returns; by default random, or
        that of a scalar loss whose `backward` needs none.
    constant : names, optional
        What is meant to have no gradient: it is then not named as unchecked.
    rtol, atol : float, optional
        Beyond rounding, accept ``|yours - true| <= atol + rtol * |true|``; what is not given is 0.
        By default a millionth of the entry's row and column (float32: a ten-thousandth).
    rng : int, RandomState or Generator, default 0
        The stream of the random upstream gradient.
    budget : float, default 10
        Seconds of the processor to spend on why a gradient is wrong.

    Returns
    -------
    GradientReport

    Raises
    ------
    CheckError
        If the layer cannot be run: no backward, a forward pass that raises or returns NaN, an
        upstream gradient of another shape.

    Examples
    --------
    >>> class Double:
    ...     def forward(self, x):
    ...         return 2 * x
    ...     def backward(self, dout):
    ...         return 2 * dout
    >>> check_layer(Double(), np.ones((2, 3))).rows[0].verdict
    'exact'
    """
    how = How.of(rtol, atol, rng, budget)
    title = (layer if isinstance(layer, type) else type(layer)).__name__
    with untouched(layer, inputs) as session, answerable(title):
        terms = Terms(session, upstream, how.stream, constant, gradients_of)
        return course(title, by_forward_or_call(*function_of(layer, inputs), terms).subject(), how)


def check_backward(
    forward: Callable[..., object],
    backward: Callable[..., object],
    *inputs: object,
    upstream: object = None,
    constant: Names = (),
    rtol: float | None = None,
    atol: float | None = None,
    rng: Random = 0,
    budget: float = BUDGET,
) -> GradientReport:
    """Check a pair of functions, ``out, cache = forward(*inputs)`` and ``backward(dout, cache)``.

    ``print(check_backward(forward, backward, x, W, b))`` says of each input whether its gradient
    is right; if not, why, and in which lines.

    Parameters
    ----------
    forward, backward : callables
        `backward` returns a gradient for each differentiable input, or a dict of them by name. It
        may take the cache first, as JAX's custom_vjp has it; or be the derivative, of x or of y.
    *inputs : arrays and what else `forward` takes
    upstream, constant, rtol, atol, rng, budget : as `check_layer` has them

    Returns
    -------
    GradientReport

    Raises
    ------
    CheckError
        If the functions cannot be run.

    Examples
    --------
    >>> from spiral_autograd import manual
    >>> report = check_backward(
    ...     manual.affine, manual.affine_backward, np.ones((4, 2)), np.ones((2, 3)), np.ones(3))
    >>> [row.name for row in report.rows], report.ok
    (['x', 'W', 'b'], True)
    """
    how = How.of(rtol, atol, rng, budget)
    title = " and ".join(name_of_function(f, "a function") for f in (forward, backward))
    with untouched(forward, backward, inputs) as session, answerable(title):
        terms = Terms(session, upstream, how.stream, constant, gradients_of)
        two = derivative_of(forward, backward, inputs, session)
        if two is None:
            layer = Layer(layer_of(forward, backward, len(inputs)), inputs, terms)
        else:
            layer = Layer(two, list(map(as_array, inputs)), terms)
        report = course(title, layer.subject(), how)
        return replace(report, remarks=(*takes(layer, is_right=report.ok), *report.remarks))


def check_gradient(
    loss: Callable[..., object],
    gradient: object,
    params: Pytree,
    *data: object,
    constant: Names = (),
    rtol: float | None = None,
    atol: float | None = None,
    rng: Random = 0,
    budget: float = BUDGET,
) -> GradientReport:
    """Check a handwritten gradient of a scalar loss of any pytree.

    ``print(check_gradient(loss, gradient, params, x, t))`` says of each array in `params` whether
    its gradient is right; if not, why, and in which lines.

    Parameters
    ----------
    loss : callable
        ``loss(params, *data)`` returns a scalar. In it, ``tap("h", h)`` marks an intermediate
        value whose gradient is checked too.
    gradient : callable or pytree
        ``gradient(params, *data)`` returns the gradient, or (loss, gradient): of the structure of
        `params`, or a dict with the keys of `params` and of the marks, with or without a d.
        Or the finished gradient itself: of a dict, or of ``globals()``, also what has a d before
        the name of a variable of `loss` is checked, and what has no gradient yet is left out.
    params : pytree of float arrays
    *data : what else the functions take
    constant, rtol, atol, rng, budget : as `check_layer` has them

    Returns
    -------
    GradientReport

    Raises
    ------
    CheckError
        If the functions cannot be run, or `params` holds no float arrays.

    Examples
    --------
    >>> import spiral_autograd as sa
    >>> x, t = sa.load_data()
    >>> params = sa.init_params(2, 10, 3, rng=0)
    >>> sa.check_gradient(sa.loss, sa.manual.value_and_grad, params, x, t).ok
    True
    """
    how = How.of(rtol, atol, rng, budget)
    title, gradient = name_of_function(loss, "loss"), among_globals(gradient, loss, params)
    with untouched(loss, gradient, params, data) as session, answerable(title):
        subject = Gradient(
            loss, gradient, params, data, Terms(session, constant=constant)
        ).subject()
        return course(title, subject, how)


# -------------------- the course of a check --------------------


class How(NamedTuple):
    """What a check is to go by: what it accepts, a stream of its own, and the time for reasons."""

    tolerances: Tolerances
    stream: np.random.Generator
    budget: float

    @classmethod
    def of(cls, rtol: float | None, atol: float | None, rng: Random, budget: float) -> How:
        """Return what is given, or raise; the stream begins with one draw from the caller's."""
        budget = number("budget", budget, above=0, or_equal=True)
        tolerances = Tolerances.of(rtol, atol)
        draw = _first_draw(rng) if type(rng) is int else random_stream(rng).standard_normal()
        return cls(tolerances, np.random.default_rng(int(abs(draw) * 1e9)), budget)


@lru_cache(maxsize=64)
def _first_draw(seed: int) -> float:
    """Return the first number of a seed's stream, which takes long to begin."""
    return random_stream(seed).standard_normal()


def course(title: str, subject: Subject, how: How) -> GradientReport:
    """Call twice, find the reference, compare, look again, and say why and where it is wrong."""
    if not subject.values:
        raise CheckError(
            f"{title} has nothing to differentiate: no input and no parameter is a floating-point "
            "array (integer arrays have no gradient; use x.astype(float))"
        )
    calls = call_again(subject)
    reference = find_reference(subject, how.stream, max(1.0, how.budget / 3))
    require_used(subject, reference)
    c, ideal = compared(subject, reference, first_gradients(subject), how.tolerances)
    c.failures += subject.failures
    c.notes += [*subject.remarks, *unused_upstream(subject, c.grads)]
    ask_differences(c)
    where = Where(c, how.budget)  # the verdicts on the first call stand
    where.of_verdicts()
    if c.wrong:
        with guarded("the search for why", c.notes):
            explain(c, where, ideal)
    explain_what_is_off(c, where)
    look_at_other_values(c, where)
    judge(c, calls)
    where.of_unset()
    where.of_states()
    where.of_forward()
    _say_unkept(c)
    return _report(title, c)


def _say_unkept(c: Comparison) -> None:
    """Write into the rows without a gradient where it is computed and not kept."""
    for k, row in c.rows.items():
        lost = c.subject.unkept.get(row.name)
        if lost is not None and row.rule == "unwritten":
            why, place = lost
            lines = tuple(dict.fromkeys((*row.lines[:1], place, *row.lines)))[:3]
            c.change(k, findings=(why,), lines=lines)


def _report(title: str, c: Comparison) -> GradientReport:
    dtype = "float32" if c.reference.single else "float64"
    sharp = c.reference.sharpness
    return GradientReport(
        subject=title,
        reference=c.reference.kind,
        rows=tuple(c.rows[k] for k in sorted(c.rows)),
        remarks=tuple(c.notes),
        faults=tuple(c.failures),
        unchecked=tuple(dict.fromkeys(c.subject.unchecked)),
        tolerances=replace(
            c.tolerances, dtype=dtype, match=sharp.match, approximate=sharp.approximate
        ),
    )
