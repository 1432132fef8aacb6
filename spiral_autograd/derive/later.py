"""What only the loss needs is computed later, for many batches at once.

A training step needs the gradient; its loss is looked at when an interval ends. What is computed
for the loss alone, and treats each batch as a row of a larger array, waits until then: the steps
keep what it reads.
"""

from __future__ import annotations

from math import prod

import numpy as np

from .expressions import Expr, astype, reshape, scale
from .simplify import Simplified, needed, parents

REDUCTIONS = {np.sum: np.add, np.max: np.maximum, np.min: np.minimum, np.prod: np.multiply}
MOST_BYTES = 2**13  # of a value that is kept; beside the work on a larger one a call is nothing


def split(simple: Simplified) -> tuple[set[Expr], list[Expr]]:
    """Return the expressions that can wait, and the values that a step keeps for them."""
    order, loss = simple.order(), simple.loss
    now = {e for e in order if not _is_rowwise(e)} | needed(simple.grads, parents)
    while True:
        late = _waiting(order, now)
        reads = {e: [viewed(p, late) for p in e.parents if p not in late] for e in late}
        early = {e for e, values in reads.items() if not all(map(_can_be_kept, values))}
        if not early:
            break
        now |= early
    kept = dict.fromkeys(v for e in order for v in reads.get(e, ()) if v.fun is not None)
    return late, list(kept) if loss in late else [loss]


def _waiting(order: list[Expr], now: set[Expr]) -> set[Expr]:
    """Return what neither is needed now nor read by what is."""
    read = set(now)
    for e in reversed(order):
        if e in read:
            read.update(e.parents)
    return set(order) - read


def viewed(e: Expr, late: set[Expr]) -> Expr:
    """Return the value that is kept for an expression: that which a reshape looks at."""
    return e.args[0] if e.fun is reshape and e not in late else e


def is_plain(e: Expr) -> bool:
    """Tell whether a ufunc of one result, or a reduction, is called without further options."""
    if isinstance(e.fun, np.ufunc):
        return e.fun.nout == 1 and not e.kwargs
    return e.fun in REDUCTIONS and e.is_plain_reduction()


def _is_rowwise(e: Expr) -> bool:
    is_of_matrices = getattr(e.fun, "signature", None) is not None
    return (is_plain(e) and not is_of_matrices) or e.fun in (scale, astype, reshape, np.where)


def _can_be_kept(e: Expr) -> bool:
    if e.fun is None and e.args:  # an input: the parameters change, and numbers have no rows
        return e.args[0][0] == "data" and bool(e.shape)
    is_small = prod(e.shape) * e.dtype.itemsize <= MOST_BYTES
    return e.fun is None or (is_small and e.dtype.kind in "fiub")
