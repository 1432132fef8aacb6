"""Mistakes that show in the numbers of one gradient, held against those of the true one."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial

import numpy as np

from ...recording import Call, name_of
from ...validation import Array
from ..blocks import close, largest
from ..finding import Finding, found
from ..subject.subject import is_array
from .case import Case, Reason
from .factors import any_factor, named_factor, ratio
from .parts import partly, term_in_part
from .patterns import exchanged_blocks, one, rearrangements, reductions, subsets

Rule = Callable[[Case, int], Reason | None]

# -------------------- never written --------------------


def unwritten(case: Case, k: int) -> Reason | None:
    """All zeros, or nothing at all, where the gradient is not.

    Beside others that are wrong zeros may be what a mistake makes: that is looked for first.
    """
    h = case.handwritten[k]
    if h is not None and largest(h) == 0 and any(map(largest, _others(case, k))):
        return None
    return zeros(case, k)


def _others(case: Case, k: int) -> list[object]:
    others = (case.handwritten[j] for j in case.wrong if j != k)
    return [h for h in others if h is not None]


def zeros(case: Case, k: int) -> Reason | None:
    """The same, wherever it is: for want of a reason."""
    h = case.handwritten[k]
    if h is None:
        return Reason(found("nothing_returned"), [k])
    known = case.explains(k, case.automatic[k]) or ratio(case, k) is not None
    place = None if known else case.elsewhere().get(k)
    if place is not None:
        finding, lines = place
        fields = {**finding.fields, "zeros": largest(h) == 0}
        return Reason(found(finding.kind, **fields), [k], lines=lines)
    if largest(h) == 0 and not case.is_zero(k):
        return Reason(found("all_zeros"), [k])
    return None


# -------------------- the upstream gradient --------------------

_SINGLE = 1e-5  # what is counted in float32 on the way is linear only to this


def misused_upstream(case: Case, k: int) -> Reason | None:
    """The upstream gradient ignored, used twice, or backward not linear in it."""
    h, again = case.written(k), case.again
    if again is None or case.is_zero(k) or not (largest(h) and any(map(largest, case.upstream))):
        return None
    if sum(map(np.size, case.upstream)) > 1 and ratio(case, k) is not None:
        return None  # no misuse of many numbers gives a multiple of the true gradient

    def given(kind: str) -> Array:
        array = again(kind)[k]
        fits = array is not None and np.shape(array) == h.shape
        return np.asarray(array, dtype=float) if fits else np.full(h.shape, np.nan)

    if close(h, given("other"), 1e-12) and close(h, given("turned"), 1e-12):
        return Reason(found("upstream_ignored", name=case.name_of_upstream), [k])
    if largest(h) <= 1e-3 * case.tolerance * largest(case.automatic[k]):
        return Reason(found("rounding_only"), [k])
    finding = _not_linear(case, k, given) if np.isfinite(given("none")).all() else None
    return None if finding is None else Reason(finding, [k])


def _not_linear(case: Case, k: int, given: Callable[[str], Array]) -> Finding | None:
    """Return how a gradient depends on the upstream gradient, unless linearly.

    Where it is affine, a term is added: that is no matter of the upstream gradient.
    """
    h, nothing = case.written(k), given("none")
    kinds = ("twice", "turned", "other", "mixed")
    twice, turned, other, mixed = (given(kind) - nothing for kind in kinds)
    linear = h - nothing
    if case.same(k, twice, 4 * linear):
        return found("upstream_twice", name=case.name_of_upstream)
    pairs = (twice, 2 * linear), (turned, -linear), (mixed, linear + 0.5 * other)
    rounding = max(case.tolerance, _SINGLE)
    scales, *turns = (close(ours, due, rounding, case.floors[k]) for ours, due in pairs)
    if scales and all(turns):
        return None
    decides = scales and not case.same(k, turned, linear) and _is_linear_by_sign(case, k, given)
    said = found("upstream_not_linear", name=case.name_of_upstream, decides=decides)
    return _right_while_small(case, k, given) or said


def _right_while_small(case: Case, k: int, given: Callable[[str], Array]) -> Finding | None:
    """Return why a gradient is right for small upstream gradients only; None where it is not."""
    if not close(1e6 * given("tiny"), case.automatic[k], 1e-4):
        return None
    if case.same(k, 1e3 * given("small"), case.automatic[k]):  # below a bound it is linear
        return found("clipped", bound=None)
    return found("updated", names=[*case.changed]) if case.changed else None


def _is_linear_by_sign(case: Case, k: int, given: Callable[[str], Array]) -> bool:
    """Tell whether backward is linear in entries that are all positive, and adds up over signs.

    It asks then which they are: a sort, or the largest entry, is not linear in them.
    """
    kinds = ("none", "sizes", "other sizes", "mixed sizes", "positive", "negative")
    nothing, sizes, others, mixed, positive, negative = map(given, kinds)
    pairs = (mixed + nothing, sizes + others), (positive + negative - nothing, case.written(k))
    return all(case.same(k, one, other) for one, other in pairs)


# -------------------- layout --------------------


def layout(case: Case, k: int) -> Reason | None:
    """Transposed, reshaped in the wrong order, or another argument's gradient."""
    g, h = case.automatic[k], np.asarray(case.handwritten[k])
    is_turned = g.ndim > 1 and g.T.shape == h.shape and case.explains(k, g.T)
    j = None if is_turned else _owner(case, k)
    if j is not None and case.comparable(j) and case.explains(j, case.automatic[k]):
        return Reason(found("swapped", name=case.names[j]), [k])
    finding = _rearranged(case, k) if h.size == g.size > 1 else None
    return None if finding is None else Reason(finding, [k])


def _rearranged(case: Case, k: int) -> Finding | None:
    """Return in which other order the entries of the true gradient are; None where in none."""
    g, shape = case.automatic[k], np.shape(case.handwritten[k])
    blocks = exchanged_blocks(g.shape) if g.shape == shape else ()
    for pattern in (*rearrangements(g.shape, shape), *blocks):
        candidate = pattern.make(g)
        is_turned = g.shape != shape and pattern.kind in ("transposed", "axes_order")
        # A different shape alone is a lost axis, not another order.
        is_other = is_turned or not np.array_equal(candidate, g.reshape(shape))
        told = pattern.kind not in _WITHIN or np.count_nonzero(g) > 0.75 * g.size
        if is_other and told and case.explains(k, candidate):
            return pattern.finding
    return None


_WITHIN = ("blocks", "shifted", "reversed")  # of a few rows that are not zero, any is the other


def given_twice(case: Case, k: int) -> Reason | None:
    """Another argument's gradient, which that one has too."""
    j = _owner(case, k)
    return None if j is None else Reason(found("that_of", name=case.names[j]), [k])


def _owner(case: Case, k: int) -> int | None:
    """Return the other argument whose true gradient the k-th one is."""
    for j, other in enumerate(case.automatic):
        same = j != k and other.shape == np.shape(case.handwritten[k]) and not case.is_zero(j)
        if same and case.explains(k, other):
            return j
    return None


# -------------------- sums --------------------


def sums(case: Case, k: int) -> Reason | None:
    """Not summed, summed over the wrong axis, averaged, a lost or an extra axis."""
    for rule in (_unsummed, _lost_axis, _oversummed, _other_sum):
        finding = rule(case, k)
        if finding is not None:
            return Reason(finding, [k])
    return None


def _shapes(case: Case, k: int) -> dict[str, object]:
    ours, theirs = np.shape(case.handwritten[k]), case.automatic[k].shape
    return {} if ours == theirs else {"shape": ours, "due": theirs}


def _unsummed(case: Case, k: int) -> Finding | None:
    g, h = case.automatic[k], case.written(k)
    for axes in subsets(h.ndim) if h.shape != g.shape else ():
        for keep in (False, True):
            if not case.same(k, np.sum(h, axis=axes, keepdims=keep), g):
                continue
            if all(h.shape[axis] == 1 for axis in axes):
                return found("extra_axis", **_shapes(case, k))
            whole = any(np.ndim(u) == h.ndim for u in case.upstream)  # nothing is summed yet
            batch = axes == (0,) and whole
            return found("not_summed", axes=one(axes), batch=batch, **_shapes(case, k))
    return None


def _lost_axis(case: Case, k: int) -> Finding | None:
    g, h = case.automatic[k], case.written(k)
    is_same = h.size == g.size and h.shape != g.shape and case.same(k, h.reshape(g.shape), g)
    return found("lost_axis", **_shapes(case, k)) if is_same else None


def _oversummed(case: Case, k: int) -> Finding | None:
    g, h = case.automatic[k], case.written(k)
    for pattern in reductions(g.shape) if g.size > 1 else ():
        kept = pattern.make(g)
        for candidate in (kept, np.squeeze(kept), np.broadcast_to(kept, g.shape)):
            if candidate.shape == h.shape and case.explains(k, candidate):
                due = next((axis for _, axis in _summed(case, k) if axis is not None), None)
                return found("should_keep", change=pattern.finding, shape=h.shape, due_axes=due)
    return None


def _other_sum(case: Case, k: int) -> Finding | None:
    """Another sum or mean of what the gradient is the sum of."""
    h, g = case.written(k), case.automatic[k]
    for array, due in _summed(case, k):
        for pattern in reductions(array.shape, ends=True):
            candidate = np.asarray(pattern.make(array))
            if candidate.size == h.size and case.explains(k, candidate.reshape(h.shape)):
                axes = pattern.fields["axes"]
                total = np.sum(array, axis=axes)
                right = total.size == g.size and close(total.ravel(), g.ravel(), 1e-9)
                fields = {"due_axes": None if right else due, **_shapes(case, k)}
                return found("other_sum", change=pattern.finding, right=right, **fields)
    return None


def _summed(case: Case, k: int) -> Iterator[tuple[Array, object]]:
    """Yield the backward values that the k-th gradient is a mere sum of, with its axis."""
    call: object = case.graph.recording.grads[k] if case.graph is not None else None
    axis = None
    while isinstance(call, Call) and name_of(call.fun) in ("sum", "reshape"):
        total, call = call, call.args[0]
        if not isinstance(call, Call) or case.graph is None:
            return
        array = np.asarray(case.graph.value(call))
        is_sum = array.size > np.size(case.graph.value(total))  # not of one entry
        axis = total.kwargs.get("axis") if axis is None and is_sum else axis
        yield array, axis


# -------------------- terms --------------------


def plain_term(case: Case, k: int) -> Reason | None:
    """h - g is a forward value, or the parameter with a coefficient as people write them."""
    return next((term for c, own, term in _terms(case, k) if _is_plain(c, own)), None)


def any_term(case: Case, k: int) -> Reason | None:
    """h - g is a multiple of a parameter or of a forward value, or a constant, also along axes."""
    if not case.comparable(k) or ratio(case, k) is not None:
        return None
    term = next((term for *_, term in _terms(case, k)), None)
    rest, noise = case.written(k) - case.automatic[k], 10 * case.noise(k)
    if term is not None or rest.size < 2:
        return term
    if np.ptp(rest) <= noise:
        return Reason(found("constant_added", constant=float(rest.flat[0])), [k])
    return None


def _terms(case: Case, k: int) -> Iterator[tuple[float, bool, Reason]]:
    """Yield what h - g is a multiple of: the coefficient, and whether of the argument itself."""
    if not case.comparable(k) or case.automatic[k].size < 2:
        return
    rest, noise = case.written(k) - case.automatic[k], 10 * case.noise(k)
    gradients = _other_gradients(case, k) if not case.has_lines else ()
    for number, (name, v) in enumerate((*case.same_shape(k), *gradients)):
        norm = float(np.sum(v * v))
        c = float(np.sum(rest * v)) / norm if norm > 0 else 0.0
        if abs(c) * largest(v) <= noise or not np.max(np.abs(rest - c * v)) <= noise:
            continue
        if np.ptp(v) == 0 or np.count_nonzero(v) < 2:
            continue
        own, of = number == 0, name()
        lacks = abs(c + 1) <= 1e-6 or (own and c < 0)
        fields = {"of": of, "times": abs(c) if lacks else c, "own": own, "lacks": lacks}
        yield c, own, Reason(found("term", **fields), [k], _alone(case, k) if own else None)


def _other_gradients(case: Case, k: int) -> Iterator[tuple[Callable[[], Finding], Array]]:
    """Yield the other arguments' gradients, as NumPy would broadcast them."""
    shape = case.automatic[k].shape
    for j, (name, other) in enumerate(zip(case.names, case.automatic, strict=True)):
        fits = zip(other.shape[::-1], shape[::-1], strict=False)
        if j != k and other.ndim <= len(shape) and all(n in (1, m) for n, m in fits):
            of = partial(found, "gradient_of", of=found("named", name=name))
            yield of, np.broadcast_to(other, shape)


# What derivatives are mistaken for, by the value.
_TAKEN: dict[str, Callable[[Array], Array]] = {
    "1": np.ones_like,
    "{0}": lambda v: v,
    "{0}**2": lambda v: v**2,
    "1 - {0}": lambda v: 1 - v,
    "{0} * (1 - {0})": lambda v: v * (1 - v),
    "1 - {0}**2": lambda v: 1 - v**2,
    "1 / {0}": lambda v: 1 / v,
    "({0} > 0)": lambda v: (v > 0) * 1.0,
    "exp({0})": np.exp,
}


def taken_as(case: Case, k: int) -> Reason | None:
    """A wrong derivative of the one operation on a value, where there are no lines to mend."""
    if case.has_lines or case.graph is None or not case.comparable(k):
        return None
    node = case.graph.roots[k]
    while len(node.users) == 1 and np.array_equal(node.users[0].adjoint, node.adjoint):
        node = node.users[0]  # a mark adds zeros
    made = node.users[0] if len(node.users) == 1 else node
    if made is node or np.shape(made.adjoint) != case.automatic[k].shape:
        return None
    for name, value in (("its value", node.value), ("what is made of it", made.value)):
        for text, derivative in _TAKEN.items():
            with np.errstate(all="ignore"):
                ours = made.adjoint * derivative(np.asarray(value, dtype=float))
            if np.isfinite(ours).all() and case.explains(k, ours):
                return Reason(found("taken_as", text=text.format("v"), of=name), [k], made.call)
    return None


def _is_plain(c: float, own: bool) -> bool:
    """Tell whether people write a coefficient: a rate with two digits, else 1."""
    return abs(c - float(f"{c:.1e}")) <= 1e-6 * abs(c) if own else abs(abs(c) - 1) <= 1e-6


def _alone(case: Case, k: int) -> Call | None:
    """Return the forward operation that takes nothing but the k-th argument: its square, say."""
    root = case.graph.roots[k] if case.graph is not None else None
    users = root.users if root is not None else []
    alone = (n for n in users if all(p is root for p in n.parents))
    return next((n.call for n in alone if not any(map(is_array, n.call.args))), None)


FIRST: tuple[Rule, ...] = (
    *(misused_upstream, named_factor, layout, sums, plain_term),
    term_in_part,
)
LATER: tuple[Rule, ...] = (taken_as, zeros, any_factor, any_term, given_twice)
LAST: tuple[Rule, ...] = (partly,)  # less than a reason: for want of one
