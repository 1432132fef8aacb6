"""The checks of single functions: what autograd is told of them, and derivatives."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

from ..validation import Random
from .checks import BUDGET, How, course
from .finding import found
from .guard import CheckError, answerable
from .reference.reference import gradients_of
from .report import GradientReport
from .subject.adapter import Terms
from .subject.calling import TwoFunctions
from .subject.inputs import Names, as_array
from .subject.layer import Layer
from .subject.objects import name_of_function, require_function
from .subject.passes import Primitive, swapped, takes, with_derivative
from .subject.session import untouched

Rule = Callable[..., object]


def check_primitive(
    function: Callable[..., object],
    *inputs: object,
    vjps: Rule | Sequence[Rule | None] | None = None,
    jvps: Rule | Sequence[Rule | None] | None = None,
    kwargs: Mapping[str, object] | None = None,
    upstream: object = None,
    constant: Names = (),
    rtol: float | None = None,
    atol: float | None = None,
    rng: Random = 0,
    budget: float = BUDGET,
) -> GradientReport:
    """Check what autograd is told of a primitive: the vjp and the jvp of each argument.

    ``print(check_primitive(f, x, y))`` says of each whether it is right; if not, why. They are held
    against the function itself, by autograd where its body is NumPy of your own, else by complex
    step or central differences.

    Parameters
    ----------
    function : callable
        Of `autograd.extend.primitive`; any other where its `vjps` or `jvps` are given.
    *inputs : arrays, floats and what else `function` takes
    vjps : callable or sequence of callables, optional
        Makers ``vjp(ans, *inputs) -> (g -> gradient)``, one for each argument in their order, as
        `defvjp` takes them. By default those that are registered.
    jvps : callable or sequence of callables, optional
        ``jvp(g, ans, *inputs) -> tangent``, as `defjvp` takes them.
    kwargs : dict, optional
        Keyword arguments of `function`, which each vjp and jvp takes too.
    upstream, constant, rtol, atol, rng, budget : as `check_layer` has them

    Returns
    -------
    GradientReport
        With the rows ``vjp of x`` and, where there is a jvp, ``jvp of x``: the gradient that
        follows from it.

    Raises
    ------
    CheckError
        If there is neither a vjp nor a jvp, or one of the functions cannot be run.

    Examples
    --------
    >>> import numpy as np
    >>> def times(x, y):
    ...     return x * y
    >>> vjps = (lambda ans, x, y: lambda g: g * y), (lambda ans, x, y: lambda g: g * x)
    >>> report = check_primitive(times, np.ones(3), np.arange(3.0), vjps=vjps)
    >>> [row.name for row in report.rows], report.ok
    (['vjp of x', 'vjp of y'], True)
    """
    require_function("function", function)
    how = How.of(rtol, atol, rng, budget)
    title, kwargs, reports = name_of_function(function, "a function"), kwargs or {}, []
    with untouched(function, inputs, vjps, jvps, kwargs) as session, answerable(title):
        for kind, given in (("vjp", vjps), ("jvp", jvps)):
            primitive = Primitive(function, inputs, kwargs, kind, given)
            if not primitive.rules:
                continue
            terms = Terms(session, upstream, how.stream, constant, gradients_of)
            subject = Layer(primitive.functions(), primitive.inputs, terms).subject()
            report = course(title, replace(subject, upstream_at=-1), how)
            reports.append(_named(report, kind, primitive.shapes))
    if not reports:
        raise CheckError(
            f"{title} has neither a vjp nor a jvp: register them with autograd.extend.defvjp and "
            "defjvp, or give them as vjps= and jvps="
        )
    return replace(
        reports[0],
        rows=tuple(row for report in reports for row in report.rows),
        remarks=tuple(dict.fromkeys(note for report in reports for note in report.remarks)),
        faults=tuple(dict.fromkeys(fault for report in reports for fault in report.faults)),
        unchecked=tuple(dict.fromkeys(name for report in reports for name in report.unchecked)),
    )


def _named(
    report: GradientReport, kind: str, shapes: Mapping[str, tuple[object, object]]
) -> GradientReport:
    """Return a report whose rows are named by the kind of their rule; and wrong shapes said."""
    rows = []
    for row in report.rows:
        if row.name in shapes:
            ours, theirs = shapes[row.name]
            said = found("tangent_shape", ours=ours, theirs=theirs)
            row = replace(row, verdict="wrong", findings=(said,))
        rows.append(replace(row, name=f"{kind} of {row.name}"))
    unchecked = tuple(f"{kind} of {name}" for name in report.unchecked)
    return replace(report, rows=tuple(rows), unchecked=unchecked)


# -------------------- derivatives --------------------


def check_derivative(
    function: Callable[..., object],
    derivative: Callable[..., object],
    x: object,
    *,
    upstream: object = None,
    rtol: float | None = None,
    atol: float | None = None,
    rng: Random = 0,
    budget: float = BUDGET,
) -> GradientReport:
    """Check a function, such as an activation, with its derivative, and say which values it takes.

    ``print(check_derivative(sigmoid, sigmoid_prime, x))`` says whether it is right; if not, why,
    and in which lines.

    Parameters
    ----------
    function : callable
        ``y = function(x)``, of arrays or of single numbers.
    derivative : callable
        Of x or of y, or of both; it may take the upstream gradient too. It returns the derivative
        of each entry, or a Jacobian; with the upstream gradient, the gradient of x.
    x : array or float
    upstream, rtol, atol, rng, budget : as `check_layer` has them

    Returns
    -------
    GradientReport
        A note says whether `derivative` takes x or y.

    Raises
    ------
    CheckError
        If one of the functions cannot be run.

    Examples
    --------
    >>> import numpy as np
    >>> def sigmoid(x):
    ...     return 1 / (1 + np.exp(-x))
    >>> def sigmoid_prime(y):
    ...     return y * (1 - y)
    >>> report = check_derivative(sigmoid, sigmoid_prime, np.linspace(-1, 1, 5))
    >>> report.ok, report.notes[0]
    (True, 'sigmoid_prime takes y = sigmoid(x), not x')
    """
    require_function("function", function)
    require_function("derivative", derivative)
    how = How.of(rtol, atol, rng, budget)
    title = (
        f"{name_of_function(function, 'f')} and {name_of_function(derivative, 'its derivative')}"
    )
    with untouched(function, derivative, x) as session, answerable(title):
        x = as_array(x)
        with session.fresh():
            two = with_derivative(function, derivative, x)
        terms = Terms(session, upstream, how.stream, automatic=gradients_of)
        layer = Layer(two, [x], terms)
        report, other = course(title, layer.subject(), how), swapped(layer.calling)
        if other is not None and not report.ok:  # a wrong one may be near by chance
            told = replace(two.told, ways=(other,))
            there = Layer(TwoFunctions(two.forward, two.backward, told), [x], terms)
            instead = course(title, there.subject(), how)
            if instead.ok or (_is_unexplained(report) and not _is_unexplained(instead)):
                layer, report = there, instead
        return replace(report, remarks=(*takes(layer, is_right=report.ok), *report.remarks))


def _is_unexplained(report: GradientReport) -> bool:
    return any(what.kind == "no_pattern" for row in report.rows for what in row.findings)
