"""Gradients that are a multiple of the true one, and what the factor comes from."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from ..blocks import inner, largest
from ..finding import Finding, found
from ..reference.nodes import Node
from .case import Case, Lengths, Reason


def named_factor(case: Case, k: int) -> Reason | None:
    """c g, with a factor that people lose or add: a sign, 2, a dimension, a constant of theirs."""
    c = ratio(case, k)
    if c is None:
        return None
    constant = _lost_constant(case, c, k) if abs(c + 1) > 1e-6 else None
    if constant is not None:
        return constant
    finding = factor_of(case, c, k) if _stays(case, c, k) else None
    return Reason(finding, [k]) if finding is not None else None


def _stays(case: Case, c: float, k: int) -> bool:
    """Tell whether the factor is the same where a setting is another: else it comes from that."""
    pairs = ((ours[k], true[k]) for ours, true in case.at_other_settings())
    same = (pair for pair in pairs if np.shape(pair[1]) == np.shape(case.automatic[k]))
    return all(case.same(k, ours, c * np.asarray(true)) for ours, true in same)


def _lost_constant(case: Case, c: float, k: int) -> Reason | None:
    """Return a number that one operation multiplies by, or all with it, where c is that."""
    by_factor: dict[float, list[Node]] = {}
    for factor, node in case.constants():
        if is_near(case, c, factor) or is_near(case, c, 1 / factor):
            by_factor.setdefault(factor, []).append(node)
    for factor, nodes in by_factor.items():
        for some in (*([node] for node in nodes), nodes):
            if _is_scaled_at(case, some, c, k):
                text, is_lost = case.expression(some[0]), is_near(case, c, 1 / factor)
                fields = {"times": c, "factor": factor, "text": text, "lost": is_lost}
                return Reason(found("constant_factor", **fields), [k], some[0].call)
    return None


def any_factor(case: Case, k: int) -> Reason | None:
    """c g, with any other factor."""
    c = ratio(case, k)
    if c is None or not _stays(case, c, k):
        return None
    return Reason(found("times", times=c, also=None), [k])


def ratio(case: Case, k: int) -> float | None:
    """Return the c with which the k-th gradient is c times the true one; None if there is none.

    A factor is not claimed from one number: where the gradient has but one, it must be so at a
    second point as well, or another gradient must have the same factor.
    """
    g, h = case.automatic[k], np.asarray(case.handwritten[k])
    if h.shape != g.shape or case.is_zero(k):
        return None
    numbers = np.count_nonzero(np.abs(g) > case.floors[k])
    second = case.second() if numbers == 1 else None
    pairs = [(g, h)]
    if second is not None and second.comparable(k):
        pairs.append((second.automatic[k], second.written(k)))
    unit = g / largest(g)  # whose square is not rounded to zero
    c = inner(unit, h) / inner(unit, unit) / largest(g)
    if not np.isfinite(c) or min(abs(c), abs(c - 1)) <= case.tolerance:
        return None
    if not all(case.same(k, ours, c * true) for true, ours in pairs):
        return None
    return c if numbers > 1 or len(pairs) > 1 or _is_shared(case, k, c) else None


def _is_shared(case: Case, k: int, c: float) -> bool:
    """Tell whether another gradient, of more numbers, is wrong by the same factor."""
    others = [j for j in case.wrong if j != k and case.comparable(j)]
    others = [j for j in others if np.count_nonzero(np.abs(case.automatic[j]) > case.floors[j]) > 1]
    shared = [ratio(case, j) for j in others]
    return any(other is not None and abs(other - c) <= 1e-9 * abs(c) for other in shared)


def _is_scaled_at(case: Case, nodes: Sequence[Node], c: float, k: int) -> bool:
    """Tell whether the k-th gradient comes out with c times what flows back through some nodes."""
    assert case.graph is not None
    sites = [site for site in case.graph.edges() if site.result in nodes]
    off = case.graph.rerun(dict.fromkeys(sites, lambda g, part: c * part))
    right = [j for j in range(len(case.names)) if j not in case.wrong and case.comparable(j)]
    roots = case.graph.roots
    return all(case.explains(j, off.get(roots[j], roots[j].adjoint)) for j in (k, *right))


def is_near(case: Case, c: float, value: float) -> bool:
    """Tell whether a factor is a number, to the tolerance."""
    return abs(c - value) <= max(1e-6, case.tolerance) * abs(value)


def factor_of(case: Case, c: float, k: int) -> Finding | None:
    """Return what the factor of the k-th gradient comes from; None where it is just a number.

    A sum, or a mean, is said where one is taken.
    """
    if is_near(case, c, -1.0):
        return found("wrong_sign")
    there, dimensions = _ratio_there(case, k), _dimensions(case, c, k)
    for times in (2.0, 0.5, -2.0, -0.5):
        if is_near(case, c, times) and (there is None or is_near(case, there, times)):
            n = max(abs(times), 1 / abs(times))
            return found("times", times=times, also=dimensions.get(n), n=n)
    named = (_length_of(case, c, k, n, what) for n, what in dimensions.items())
    if (length := next(filter(None, named), None)) is not None:
        return length
    ratio = next(_ratios(case, c), None)
    for n, what in case.dimensions.items():
        if n > 2 and any(is_near(case, abs(c), v) for v in (n / (n - 1), (n - 1) / n)):
            less = found("one_less", times=c, n=n, less=n - 1, what=what)
            return less if ratio is None else found("either_way", one=less, other=ratio)
    return ratio


def _length_of(case: Case, c: float, k: int, n: float, what: Finding) -> Finding | None:
    """Return what is said of a factor that is a length, or one over it; None of any other."""
    for sign in (1, -1):
        fields = {"n": n, "sign": sign, "what": case.axis_into(k, what, n)}
        if is_near(case, c, sign * n):
            is_mean = case.takes_mean_of(n)
            return found("mean_missing", **fields) if is_mean else _also(c, n, what)
        if is_near(case, c, sign / n):
            is_output = what.kind == "batch_size" or what.fields.get("of") == found("output")
            is_over = case.sums_over(n) or is_output
            return found("averaged_over", **fields) if is_over else _also(c, n, what)
    return None


def _ratio_there(case: Case, k: int) -> float | None:
    """Return the factor of the k-th gradient at other sizes, where it can be asked."""
    there = case.at_other_sizes()
    return None if there is None else ratio(there, k)


def _dimensions(case: Case, c: float, k: int) -> Lengths:
    """Return the lengths that a factor may come from: at other sizes it comes from the same."""
    there, other = case.at_other_sizes(), _ratio_there(case, k)
    if there is None or other is None:  # of many products one is any number, by chance
        return {n: what for n, what in case.dimensions.items() if what.kind != "axes"}
    for measured, (n, what) in case.measures.items():
        m = there.measures[measured][0] if measured in there.measures else 0.0
        if n > 1 and m > 0 and _is_of(case, c, n) and _is_of(case, other, m):
            return {n: what}
    return {n: what for n, what in case.dimensions.items() if not _is_of(case, c, n)}


def _is_of(case: Case, c: float, n: float) -> bool:
    """Tell whether a factor is a length, or one over it."""
    return is_near(case, abs(c), n) or is_near(case, abs(c), 1 / n)


def _also(c: float, n: float, what: Finding) -> Finding:
    return found("times", times=c, also=what, n=n)


def _ratios(case: Case, c: float) -> Iterator[Finding]:
    """Yield the ratios of two lengths that a factor is."""
    for n, what in case.lengths.items():
        for m, other in case.lengths.items():
            if n != m and is_near(case, c, n / m):
                yield found("ratio", times=c, n=n, what=what, m=m, other=other)
