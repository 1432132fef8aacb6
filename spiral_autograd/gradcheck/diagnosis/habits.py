"""What differs from the gradient by a convention: right elsewhere, and said as such."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

import numpy as np

from ...recording import Call
from ...validation import Array
from ..blocks import largest
from ..finding import found
from .arrays import Rule
from .case import Case, Reason
from .factors import named_factor, ratio
from .patterns import Axes, subsets


def unused(case: Case, k: int) -> Reason | None:
    """A gradient of what the output does not depend on, as of a bias that forward leaves out."""
    if case.graph is None or isinstance(case.graph.recording.grads[k], Call):
        return None
    return Reason(found("unused_by_forward"), [k])


def cost_or_sum(case: Case, k: int) -> Reason | None:
    """All gradients are n times or 1/n of the true ones: of a loss, or of a layer's parameters."""
    reason = named_factor(case, k)
    if reason is None or reason.kind not in ("mean_missing", "averaged_over"):
        return None
    n, c = reason.finding.fields["n"], ratio(case, k)
    live = [j for j in range(len(case.names)) if case.comparable(j) and not case.is_zero(j)]
    wrong = [j for j in live if j in case.wrong]
    right = [j for j in live if j not in wrong]
    if c is None or not _is_that_of_all(case, c, wrong):
        return None
    if sum(map(np.size, case.upstream)) == 1:
        kind, holds = "of_loss", len(wrong) == len(live) > 1
    else:
        kind, holds = "mean_of_cost", 0 < c < 1 and _are_of_examples(case, right, n)
    return Reason(found(kind, factor=reason.finding), [k]) if holds else None


def _is_that_of_all(case: Case, c: float, rows: Iterable[int]) -> bool:
    """Tell whether several gradients are all c times the true ones."""
    others = (ratio(case, j) for j in rows)
    return all(other is not None and abs(other - c) <= 1e-6 * abs(c) for other in others)


def _are_of_examples(case: Case, right: Sequence[int], n: float) -> bool:
    """Tell whether the right gradients are those of n examples, each its own."""
    of_batch = any(n in np.shape(u) for u in case.upstream)
    return of_batch and bool(right) and all(n in np.shape(case.values[j]) for j in right)


def clipped(case: Case, k: int) -> Reason | None:
    """Entries cut off at a bound, or all gradients scaled to a norm."""
    if not case.comparable(k):
        return None
    h, g = case.written(k), case.automatic[k]
    most = largest(h)
    at_bound = int(np.sum(np.abs(h) == most))
    every = [case.written(j) for j in case.wrong if case.comparable(j)]
    inside = any(((np.abs(a) < most) & (a != 0)).any() for a in every if largest(a) == most)
    told = inside and (at_bound > 1 or _is_round(most))  # else the gradient has but a size
    if told and case.explains(k, np.clip(g, -most, most)):
        return Reason(found("clipped", bound=most), [k])
    c = ratio(case, k) if h.size > 1 else None
    for norm in _norms(case, k) if c is not None and 0 < c < 1 else ():
        if _is_round(norm):
            return Reason(found("clipped_norm", norm=float(f"{norm:.6g}")), [k])
    return None


def _norms(case: Case, k: int) -> Iterator[float]:
    """Yield the norms of a gradient, of all that are wrong, and of all."""
    for some in ([k], case.wrong, range(len(case.names))):
        every = [case.written(j) for j in some if case.comparable(j)]
        yield float(np.sqrt(sum(np.sum(other * other) for other in every)))


def _is_round(number: float) -> bool:
    return abs(number - float(f"{number:.1e}")) <= 1e-6 * number


def combined(case: Case, k: int) -> Reason | None:
    """The gradient of a loss with that of the sigmoid or softmax before it, or that left to it."""
    if not case.comparable(k) or np.ndim(case.values[k]) == 0:
        return None
    g, y = case.automatic[k], np.asarray(case.values[k], dtype=float)
    is_loss = sum(map(np.size, case.upstream)) == 1
    if not is_loss:
        return _passed_on(case, k)
    if not ((y > 0) & (y < 1)).all():
        return None
    if case.explains(k, y * (1 - y) * g):
        return Reason(found("combined", activation="sigmoid"), [k])
    for axes in _axes_of_softmax(y):
        if case.explains(k, y * (g - (y * g).sum(axis=axes, keepdims=True))):
            return Reason(found("combined", activation="softmax"), [k])
    return None


def _axes_of_softmax(y: Array) -> list[Axes]:
    """Return the axes along which shares add up to 1."""
    return [axes for axes in subsets(y.ndim) if np.allclose(y.sum(axis=axes), 1)]


def _passed_on(case: Case, k: int) -> Reason | None:
    """The upstream gradient itself, for an output between 0 and 1; or each entry's by itself."""
    if case.graph is None or len(case.upstream) != 1 or len(case.names) > 1:
        return None
    outputs = [site.argument.value for site in case.graph.outputs]
    if len(outputs) != 1 or not ((outputs[0] >= 0) & (outputs[0] <= 1)).all():
        return None
    (y,), (up,) = outputs, case.upstream
    if np.shape(up) != np.shape(case.automatic[k]):
        return None
    if case.explains(k, up):
        return Reason(found("passed_on"), [k])
    if _axes_of_softmax(y) and case.explains(k, y * (1 - y) * up):
        return Reason(found("diagonal_of_softmax", name=case.name_of_upstream), [k])
    return None


RULES: tuple[Rule, ...] = (unused, clipped, combined, cost_or_sum)
