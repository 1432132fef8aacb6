"""The checks: run, compare, look twice, and say why."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from ..pytree import Pytree
from ..validation import Array, Random, random_stream
from .automatic import (
    Reference,
    by_autograd,
    find_reference,
    nearby,
    richardson,
    step_for,
)
from .compare import FAILURES, Row, close, compare, compare_directions, largest
from .diagnose import Case, Finding, diagnose
from .functions import gradient_subject, pair_subject
from .graph import BackwardGraph
from .handwritten import MISSING, CheckError, Subject, draw_upstream, given_upstream
from .lines import Evidence, forward_line, kink_places, moments, places, state_places
from .objects import layer_subject
from .report import GradientReport
from .state import untouched

BUDGET = 10.0


def check_layer(
    layer: Any, *inputs: Any, upstream: Any = None, rng: Random = 0, budget: float = BUDGET
) -> GradientReport:
    """Check an object with ``forward(*inputs)`` and ``backward(upstream)``.

    Its parameters and gradients may be lists (``params``, ``grads``), attributes (``W`` with
    ``dW``) or dicts, known at construction or made in the first forward pass. The object and the
    inputs come out as they went in.

    Parameters
    ----------
    layer : object
    *inputs : arrays
        What `forward` takes. Integer arrays have no gradient; what is no array is passed on.
    upstream : array or tuple of arrays, optional
        The gradient of the loss with respect to what `forward` returns; by default random, or
        that of a scalar loss whose `backward` needs none.
    rng : int, RandomState or Generator, default 0
        The stream of the random upstream gradient.
    budget : float, default 10
        Seconds to spend on why a gradient is wrong.

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
    with untouched(layer, inputs) as session:
        subject = layer_subject(layer, inputs, session, upstream)
        return _checked(type(layer).__name__, subject, upstream, rng, budget)


def check_backward(
    forward: Callable[..., Any],
    backward: Callable[..., Any],
    *inputs: Any,
    upstream: Any = None,
    rng: Random = 0,
    budget: float = BUDGET,
) -> GradientReport:
    """Check a pair of functions, ``out, cache = forward(*inputs)`` and ``backward(dout, cache)``.

    Parameters
    ----------
    forward, backward : callables
        `backward` returns a gradient for each differentiable input, or a dict of them by name.
    *inputs : arrays and what else `forward` takes
    upstream : array or tuple of arrays, optional
        By default random.
    rng : int, RandomState or Generator, default 0
    budget : float, default 10
        Seconds to spend on why a gradient is wrong.

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
    with untouched(forward, backward, inputs) as session:
        subject = pair_subject(forward, backward, inputs, session)
        names = [getattr(f, "__name__", "a function") for f in (forward, backward)]
        title = " and ".join(names)
        return _checked(title, subject, upstream, rng, budget)


def check_gradient(
    loss: Callable[..., Any],
    gradient: Any,
    params: Pytree,
    *data: Any,
    rng: Random = 0,
    budget: float = BUDGET,
) -> GradientReport:
    """Check a handwritten gradient of a scalar loss of any pytree.

    Parameters
    ----------
    loss : callable
        ``loss(params, *data)`` returns a scalar. In it, ``tap("h", h)`` marks an intermediate
        value whose gradient is checked too.
    gradient : callable or pytree
        ``gradient(params, *data)`` returns the gradient, or (loss, gradient): of the structure of
        `params`, or a dict with the keys of `params` and of the marks, with or without a d.
        Or the finished gradient itself.
    params : pytree of float arrays
    *data : what else the functions take
    rng : int, RandomState or Generator, default 0
    budget : float, default 10
        Seconds to spend on why a gradient is wrong.

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
    with untouched(loss, gradient, params, data) as session:
        subject = gradient_subject(loss, gradient, params, data, session)
        return _checked(getattr(loss, "__name__", "loss"), subject, None, rng, budget)


# -------------------- one subject --------------------


def _checked(
    title: str, subject: Subject, upstream: Any, rng: Random, budget: float
) -> GradientReport:
    if not subject.values:
        raise CheckError(
            f"{title} has nothing to differentiate: no input and no parameter is a floating-point "
            "array (integer arrays have no gradient; use x.astype(float))"
        )
    deadline = time.monotonic() + budget
    drawn = float(random_stream(rng).standard_normal())
    stream = np.random.default_rng(int(abs(drawn) * 1e9))
    with subject.session.fresh():
        outputs = subject.forward()
    if upstream is not None:
        ups = given_upstream(upstream, outputs)
    else:
        ups = subject.upstream or draw_upstream(outputs, stream)
    reference = find_reference(subject, ups, stream, max(1.0, budget / 3))
    grads, notes = _handwritten(subject, ups)
    keep = [k for k, g in enumerate(grads) if g is not MISSING]
    rows = {k: _row(subject, reference, k, grads[k], 0.0) for k in keep}
    if any(row.verdict not in ("exact", "match") for row in rows.values()):
        rows = _second_look(subject, ups, reference, grads, rows, stream, deadline)
    failures = _state_rules(subject, ups, reference, grads, rows)
    kind = "float32" if reference.single else "float64"
    precision = f" ({kind}; match up to {reference.sharpness.match:g} of the largest entry)"
    return GradientReport(
        subject=title,
        reference=reference.kind,
        rows=tuple(rows[k] for k in keep),
        notes=tuple(notes),
        failures=tuple(failures),
        precision=precision,
    )


def _row(subject: Subject, reference: Reference, k: int, grad: Any, floor: float) -> Row:
    name = subject.names[k]
    if not reference.grads:
        return compare_directions(name, k, grad, subject.values[k].shape, reference)
    return compare(name, grad, reference.grads[k], reference.sharpness, floor)


def _copied(grad: Any) -> Any:
    return grad if grad is None or grad is MISSING else np.array(grad)


def _run_backward(subject: Subject, ups: Sequence[Array]) -> list[Any]:
    return [_copied(g) for g in subject.backward([np.array(u) for u in ups])]


def _handwritten(subject: Subject, ups: list[Array]) -> tuple[list[Any], list[str]]:
    """Return the handwritten gradients, and notes of what the backward pass wrote into."""
    notes = []
    with subject.session.fresh():
        given = [np.array(u) for u in ups]
        before = [np.array(v) for v in subject.values] if _small(subject) else None
        grads = [_copied(g) for g in subject.backward(given)]
        if any(not np.array_equal(a, b) for a, b in zip(given, ups, strict=True)):
            notes.append("backward writes into its upstream gradient")
        if before is not None:
            for name, old, now in zip(subject.names, before, subject.values, strict=True):
                if not np.array_equal(old, now):
                    notes.append(f"forward or backward writes into {name}")
    subject.session.restore()
    return grads, notes


def _small(subject: Subject) -> bool:
    return sum(v.size for v in subject.values) <= 200_000


# -------------------- what is not a match --------------------


def _second_look(
    subject: Subject,
    ups: list[Array],
    reference: Reference,
    grads: list[Any],
    rows: dict[int, Row],
    stream: np.random.Generator,
    deadline: float,
) -> dict[int, Row]:
    """Tell rounding, kinks, idealised constants and mistakes apart."""
    floors = _floors(subject, ups, reference, stream)
    rows = {k: _row(subject, reference, k, grads[k], floors[k]) for k in rows}
    doubtful = [k for k, row in rows.items() if row.verdict not in ("exact", "match")]
    if not doubtful:
        return rows
    graph = BackwardGraph(reference.recording) if reference.recording is not None else None
    ideal = None
    if graph is not None:
        rows, ideal = _idealised(subject, reference, graph, grads, rows, floors)
    elif reference.grads:
        _idealised_by_steps(subject, ups, reference, grads, rows)
    doubtful = [k for k, row in rows.items() if row.verdict in ("wrong", "approximate")]
    for k in _kinks(subject, ups, reference, doubtful, stream):
        rows[k] = replace(
            rows[k],
            verdict="match",
            rule="kink",
            why="the forward pass has a kink here (a ReLU at 0, a tie of a max): the gradient is "
            "undefined, and beside the kink the handwritten one is right",
            lines=_placed(kink_places, _evidence(subject, ups, reference, grads, rows), k),
        )
    wrong = [k for k, row in rows.items() if row.verdict in FAILURES]
    if wrong:
        _explain(
            subject, ups, reference, grads, rows, floors, wrong, graph, ideal, stream, deadline
        )
    return rows


def _floors(
    subject: Subject, ups: list[Array], reference: Reference, stream: np.random.Generator
) -> list[float]:
    """Return how far rounding alone moves each reference gradient: noise where the true is 0."""
    eps = float(np.finfo(np.float32 if reference.single else np.float64).eps)
    noise_of_all = 1e2 * eps * _largest_of(reference.grads)
    if reference.recording is None:
        return [noise_of_all if largest(g) <= noise_of_all else 0.0 for g in reference.grads] or [
            0.0
        ] * len(subject.values)
    saved = [value.copy() for value in subject.values]
    floors = [0.0] * len(subject.values)
    try:
        for _ in range(2):
            with subject.session.fresh():
                for value in subject.values:
                    noise = 1 + 4 * eps * stream.choice([-1.0, 1.0], value.shape)
                    value *= noise.astype(value.dtype)
                subject.session.rebase()
            moved = by_autograd(subject, ups)
            for k, (a, b) in enumerate(zip(moved.grads, reference.grads, strict=True)):
                floors[k] = max(floors[k], 8 * largest(a - b))
            subject.session.restore()
            for value, old in zip(subject.values, saved, strict=True):
                np.copyto(value, old)
            subject.session.rebase()
    except Exception:
        floors = [0.0] * len(subject.values)
    finally:
        for value, old in zip(subject.values, saved, strict=True):
            np.copyto(value, old)
        subject.session.rebase()
    # Rounding moves a gradient that is not zero by its own size: no floor is needed there.
    return [
        floor
        if largest(g) <= 1e6 * eps * max(1.0, _largest_of(reference.grads))
        or floor > 1e-3 * largest(g)
        else 0.0
        for floor, g in zip(floors, reference.grads, strict=True)
    ]


def _largest_of(grads: Iterable[Array]) -> float:
    return max((largest(g) for g in grads), default=0.0)


def _idealised(
    subject: Subject,
    reference: Reference,
    graph: BackwardGraph,
    grads: list[Any],
    rows: dict[int, Row],
    floors: list[float],
) -> tuple[dict[int, Row], BackwardGraph | None]:
    """See whether gradients are those of the forward pass without one of its small constants."""
    ideal_of_all = None
    for call, position, constant in graph.small_constants():
        ideal = graph.without(call, position)
        if ideal is None:
            continue
        ideal_of_all = ideal_of_all or ideal
        for k, row in rows.items():
            if row.verdict not in ("wrong", "approximate") or grads[k] is None:
                continue
            gradient = ideal.gradient(k, {})
            if np.isfinite(gradient).all() and close(
                grads[k], gradient, max(reference.sharpness.match, 1e-9), floors[k]
            ):
                place = forward_line(call)
                rows[k] = replace(
                    row,
                    verdict="idealised",
                    lines=(place,) if place else (),
                    why=_without(constant, row.max_rel),
                )
    return rows, ideal_of_all


def _idealised_by_steps(
    subject: Subject,
    ups: list[Array],
    reference: Reference,
    grads: list[Any],
    rows: dict[int, Row],
) -> None:
    """Do the same without a graph: with forward's code, in which the constant is zero."""
    if subject.idealised is None:
        return
    for constant, ideal in subject.idealised():
        try:
            found = find_reference(ideal, ups, np.random.default_rng(0), 1.0)
        except Exception:
            continue
        for k, row in rows.items():
            if row.verdict not in ("wrong", "approximate") or not found.grads or grads[k] is None:
                continue
            if close(grads[k], found.grads[k], max(found.sharpness.match, 1e-9)):
                rows[k] = replace(row, verdict="idealised", why=_without(constant, row.max_rel))


def _without(constant: float, apart: float) -> str:
    return (
        f"exact for the forward pass without its {constant:g}; with it the true gradient "
        f"differs by up to {apart:.2g} of the largest entry"
    )


def _kinks(
    subject: Subject,
    ups: list[Array],
    reference: Reference,
    doubtful: list[int],
    stream: np.random.Generator,
) -> list[int]:
    """Return which of the gradients are right beside the place where they are not."""
    if not doubtful or not reference.grads:
        return []
    again = {"autograd": by_autograd}.get(reference.kind)
    back = nearby(subject, stream)
    try:
        moved = again(subject, ups) if again else find_reference(subject, ups, stream, 1.0)
        with subject.session.fresh():
            grads = _run_backward(subject, ups)
        return [
            k
            for k in doubtful
            if grads[k] is not None
            and moved.grads
            and compare("", grads[k], moved.grads[k], moved.sharpness, 0.0).verdict
            in ("exact", "match")
            and largest(moved.grads[k]) > 0
            and largest(np.asarray(grads[k]) - reference.grads[k]) < 1e6 * largest(grads[k])
        ]
    except Exception:
        return []
    finally:
        back()


def _explain(
    subject: Subject,
    ups: list[Array],
    reference: Reference,
    grads: list[Any],
    rows: dict[int, Row],
    floors: list[float],
    wrong: list[int],
    graph: BackwardGraph | None,
    ideal: BackwardGraph | None,
    stream: np.random.Generator,
    deadline: float,
) -> None:
    """Write into the wrong rows why they are wrong, and where."""
    if not reference.grads:
        for k in wrong:
            rows[k] = replace(rows[k], why=rows[k].why or "no known pattern")
        return

    def again(others: list[Array]) -> list[Any]:
        with subject.session.fresh():
            return _run_backward(subject, others)

    tolerance = max(reference.sharpness.match, 1e-9)
    automatic = [np.asarray(g) for g in reference.grads]
    findings: list[Finding] = []
    remaining = list(wrong)
    for variant in (graph, ideal):
        if not remaining or (variant is None and variant is not graph):
            break
        true = automatic
        if variant is not None and variant is not graph:
            true = [np.asarray(variant.gradient(k, {})) for k in range(len(automatic))]
        if not all(np.isfinite(g).all() for g in true):
            break
        case = Case(
            subject.names,
            subject.values,
            true,
            [None if g is MISSING else g for g in grads],
            remaining,
            tolerance,
            floors,
            variant,
            ups,
            None if subject.is_loss else again,
            subject.is_loss,
            deadline,
        )
        found = diagnose(case)
        findings += found
        explained = {k for finding in found for k in finding.rows}
        remaining = [k for k in remaining if k not in explained]
    evidence = _evidence(subject, ups, reference, grads, rows)
    for finding in findings:
        for k in finding.rows:
            rows[k] = replace(
                rows[k],
                rule=finding.rule,
                why=_join(rows[k].why, finding.text),
                lines=_placed(places, evidence, k, finding),
            )
    for k in remaining:
        lines = _placed(places, evidence, k)
        rows[k] = replace(rows[k], why=_join(rows[k].why, _no_pattern(rows[k])), lines=lines)
    _witness(subject, ups, reference, grads, rows, wrong, stream)


def _join(before: str, text: str) -> str:
    return text if not before or before in text else f"{before}; {text}"


def _no_pattern(row: Row) -> str:
    if row.handwritten is None or row.automatic is None:
        return "no known pattern"
    h, g = np.asarray(row.handwritten), np.asarray(row.automatic)
    if h.shape != g.shape:
        return "no known pattern"
    if not np.isfinite(h).all():
        return f"{int((~np.isfinite(h)).sum())} of {h.size} entries are not finite"
    off = np.abs(h - g) > 1e-6 * max(largest(h), largest(g))
    return f"no known pattern; {int(off.sum())} of {h.size} entries differ, most at {row.index}"


def _seen(subject: Subject, ups: list[Array]) -> list[Any]:
    """Return what the lines of the handwritten pass make, in order."""
    if not _small(subject):
        return []
    with subject.session.fresh():
        try:
            found = moments(lambda: subject.backward([np.array(u) for u in ups]))
        except Exception:
            found = []
    subject.session.restore()
    return found


def _true_values(graph: BackwardGraph | None, ups: list[Array], subject: Subject) -> list[Any]:
    values: list[Any] = [*ups, *subject.values]
    if graph is not None:
        values += [c.value for c in (*graph.forward, *graph.backward)]
    return values


def _evidence(
    subject: Subject,
    ups: list[Array],
    reference: Reference,
    grads: list[Any],
    rows: dict[int, Row],
) -> Evidence:
    """Return what the place of a mistake is told from."""
    graph = BackwardGraph(reference.recording) if reference.recording is not None else None
    return Evidence(
        grads=[None if g is MISSING else g for g in grads],
        automatic=reference.grads,
        wrong=[k for k, row in rows.items() if row.verdict in FAILURES],
        right=[k for k, row in rows.items() if row.verdict in ("exact", "match")],
        seen=_seen(subject, ups),
        true_values=_true_values(graph, ups, subject),
        upstream=ups,
        graph=graph,
        forward=subject.forward_code[0] if subject.forward_code else None,
        backward=subject.backward_code[0] if subject.backward_code else None,
        tolerance=max(reference.sharpness.match, 1e-9),
    )


def _placed(where: Callable[..., tuple[tuple[str, int], ...]], *args: Any) -> Any:
    """Return places in the reader's code; none where its source cannot be read."""
    try:
        return where(*args)
    except Exception:
        return ()


def _witness(
    subject: Subject,
    ups: list[Array],
    reference: Reference,
    grads: list[Any],
    rows: dict[int, Row],
    wrong: list[int],
    stream: np.random.Generator,
) -> None:
    """Ask central differences along a random direction which side they are on."""
    for k in wrong:
        h = grads[k]
        if h is None or np.shape(h) != subject.values[k].shape or not np.isfinite(h).all():
            continue
        direction = [np.zeros(v.shape) for v in subject.values]
        apart = np.asarray(h, dtype=float) - reference.grads[k]
        norm = float(np.linalg.norm(apart.ravel()))
        if norm == 0:
            continue
        direction[k] = apart / norm
        measured = richardson(subject, ups, direction, step_for(reference.single))
        ours = float(np.sum(h * direction[k]))
        theirs = float(np.sum(reference.grads[k] * direction[k]))
        side = "autograd" if reference.kind == "autograd" else f"the {reference.kind}"
        if abs(measured - ours) < 0.1 * abs(measured - theirs):
            rows[k] = replace(
                rows[k],
                verdict="approximate",
                why=f"central differences side with the handwritten gradient, not with {side}: "
                "the reference may be wrong here",
            )
        elif abs(measured - theirs) < 0.1 * abs(measured - ours):
            rows[k] = replace(rows[k], why=f"{rows[k].why} (central differences side with {side})")


# -------------------- the second call --------------------


def _state_rules(
    subject: Subject,
    ups: list[Array],
    reference: Reference,
    grads: list[Any],
    rows: dict[int, Row],
) -> list[str]:
    """See what a second call, and one after other inputs, give."""
    if subject.owner is None:
        return []
    failures: list[str] = []
    with subject.session.fresh():
        first_output = subject.forward()
    with subject.session.fresh():
        _run_backward(subject, ups)
        _same_random(subject)
        second_output = subject.forward()
        _same_random(subject)
        second = _run_backward(subject, ups)
    if _equal(first_output, second_output):
        _judge(subject, grads, second, rows, failures, "second call")
    if not failures:
        stale = _after_other_inputs(subject, ups, first_output)
        if stale is not None:
            _judge(subject, grads, stale, rows, failures, "stale")
    subject.session.restore()
    if failures:
        evidence = _evidence(subject, ups, reference, grads, rows)
        for k, row in rows.items():
            if row.rule == "state":
                what = next(w for w in _STATES if _STATES[w] in row.why)
                rows[k] = replace(row, lines=_placed(state_places, evidence, k, what))
    return failures


_STATES = {
    "accumulates": "accumulates",
    "second call": "changes at the second call",
    "stale": "depends on an earlier call",
}


def _same_random(subject: Subject) -> None:
    subject.session.same_random()


def _equal(ours: Sequence[Any], theirs: Sequence[Any]) -> bool:
    return all(close(a, b, 1e-12) for a, b in zip(ours, theirs, strict=True))


def _after_other_inputs(
    subject: Subject, ups: list[Array], first_output: list[Array]
) -> list[Any] | None:
    """Return the gradients for the inputs after a call on others; None where the output differs."""
    if subject.disturb is None:
        return None
    with subject.session.fresh():
        try:
            subject.disturb([np.array(u) for u in ups])
        except CheckError:
            return None
        _same_random(subject)
        output = subject.forward()
        if not _equal(first_output, output):
            return None
        _same_random(subject)
        return _run_backward(subject, ups)


def _judge(
    subject: Subject,
    grads: list[Any],
    second: list[Any],
    rows: dict[int, Row],
    failures: list[str],
    what: str,
) -> None:
    for k, row in list(rows.items()):
        h, again = grads[k], second[k]
        if h is None or again is None or np.shape(h) != np.shape(again):
            continue
        if close(h, again, 1e-9, 1e-300) or not np.isfinite(h).all():
            continue
        h, again = np.asarray(h, dtype=float), np.asarray(again, dtype=float)
        twice = close(again, 2 * h, 1e-9) or close(again, 3 * h, 1e-9)
        if what == "second call" and twice:
            why = (
                "accumulates: a second call adds to the gradient of the first, and the layer "
                "offers no reset (zero_grad or the like); write it anew in each backward pass"
            )
        elif what == "second call":
            why = "changes at the second call, though the forward pass gives the same output"
        else:
            why = "depends on an earlier call: a cache is left from a forward pass on other inputs"
        rows[k] = replace(
            row, verdict="wrong", rule="state", why=_join(row.why if row.rule is None else "", why)
        )
        failures.append(f"the gradient of {subject.names[k]} {why}")
