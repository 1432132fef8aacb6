"""A gradient that is a multiple of the true one."""

from __future__ import annotations

import numpy as np

from ..blocks import close, inner, largest
from .case import Case, Finding


def named_factor(case: Case, k: int) -> Finding | None:
    """c g, with a factor that people lose or add: a sign, 2, a dimension, a constant of theirs."""
    c = ratio(case, k)
    text = None if c is None else factor_name(case, k, c)
    return None if text is None else Finding("factor", text, [k])


def any_factor(case: Case, k: int) -> Finding | None:
    """c g, with any other factor."""
    c = ratio(case, k)
    return None if c is None else Finding("factor", f"is {c:.6g} times the true one", [k])


def ratio(case: Case, k: int) -> float | None:
    """Return the c with which the k-th gradient is c times the true one; None if there is none.

    A factor is not claimed from one number: where the gradient has but one, it must be so for
    other upstream gradients as well, or another gradient must have the same factor.
    """
    g, h = case.automatic[k], np.asarray(case.handwritten[k])
    if h.shape != g.shape or largest(g) <= case.floors[k]:
        return None
    numbers = np.count_nonzero(np.abs(g) > case.floors[k])
    others = case.for_other_upstreams(k) if numbers == 1 else []
    pairs = [(g, h), *((graph.gradient(k, {}), other) for graph, other in others)]
    unit = g / largest(g)  # whose square is not rounded to zero
    c = inner(unit, h) / inner(unit, unit) / largest(g)
    if not np.isfinite(c) or min(abs(c), abs(c - 1)) <= case.tolerance:
        return None
    if not all(close(ours, c * true, case.tolerance, case.floors[k]) for true, ours in pairs):
        return None
    return c if numbers > 1 or len(pairs) > 1 or _is_shared(case, k, c) else None


def _is_shared(case: Case, k: int, c: float) -> bool:
    """Tell whether another gradient, of more numbers, is wrong by the same factor."""
    others = [j for j in case.wrong if j != k and case.comparable(j)]
    others = [j for j in others if np.count_nonzero(np.abs(case.automatic[j]) > case.floors[j]) > 1]
    found = [ratio(case, j) for j in others]
    return any(other is not None and abs(other - c) <= 1e-9 * abs(c) for other in found)


def factor_name(case: Case, k: int, c: float) -> str | None:
    """Return what a constant factor is, in words; None where it is just a number."""

    def near(value: float) -> bool:
        return abs(c - value) <= max(1e-6, case.tolerance) * abs(value)

    if near(-1.0):
        return "has the wrong sign: it is -1 times the true one"
    for factor, text, call in case.constants():
        which = "lost" if near(1 / factor) else "twice there" if near(factor) else None
        if which is not None and case.is_scaled_at(call, c, k):
            return f"is {c:.6g} times the true one: the factor {factor:.6g} of {text} is {which}"
    for n in (2.0, 0.5, -2.0, -0.5):
        if near(n):
            return f"is {n:g} times the true one{_also(case, abs(n))}"
    for n, text in case.dimensions.items():
        for sign, minus in ((1, ""), (-1, "minus ")):
            if near(sign * n):
                return f"is {minus}{n:g} times the true one ({text}): a mean is missing"
            if near(sign / n):
                return f"is {minus}1/{n:g} of the true one ({text}): averaged in place of summed"
            if n > 2 and (near(sign * n / (n - 1)) or near(sign * (n - 1) / n)):
                rest = f"divided by {n:g} ({text}) for {n - 1:g}, or the reverse"
                return f"is {c:.6g} times the true one: {rest}"
    for n, text in case.lengths.items():
        for m, other in case.lengths.items():
            if n != m and near(n / m):
                lengths = f"{n:g} ({text}) / {m:g} ({other})"
                return f"is {c:.6g} times the true one, which is {lengths}"
    return None


def _also(case: Case, n: float) -> str:
    """Return which dimension a small factor may be as well."""
    found = case.dimensions
    text = found.get(n) or found.get(1 / n)
    return f" ({max(n, 1 / n):g} is {text} too)" if text else ""
