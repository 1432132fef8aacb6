"""The gradient p - one_hot of a softmax with its cross-entropy, and how people mistake it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial

import numpy as np

from ...validation import Array
from ..blocks import close
from ..reference.nodes import Node
from .probes import Edit, Family, Spot


@dataclass(frozen=True)
class Targets:
    """``scale * (p - one_hot)``: what flows back to the scores of a softmax."""

    scores: Array
    p: Array
    one_hot: Array
    scale: Array

    @classmethod
    def of(cls, scores: Array, c: Array) -> Targets | None:
        """Return a gradient of scores in this form, if it has it."""
        for axis in reversed(range(scores.ndim)):
            if scores.shape[axis] < 2:
                continue
            over = partial(np.sum, axis=axis, keepdims=True)
            exp = np.exp(scores - np.max(scores, axis=axis, keepdims=True))
            p = exp / over(exp)
            for sign in (1, -1):
                one_hot = (sign * c < 0).astype(float)
                if np.array_equal(over(one_hot), np.ones_like(over(one_hot))):
                    scale = over(c * (1 - one_hot)) / over(p * (1 - one_hot))
                    if close(scale * (p - one_hot), c, 1e-8):
                        return cls(scores, p, one_hot, scale)
        return None


# What is written in the place of p - one_hot.
MISTAKES: dict[str, Callable[[Targets], Array]] = {
    "p": lambda t: t.p,
    "p + one_hot": lambda t: t.p + t.one_hot,
    "-one_hot": lambda t: -t.one_hot,
    "p - 1": lambda t: t.p - 1,
    "scores - one_hot": lambda t: t.scores - t.one_hot,
    "exp(scores) - one_hot": lambda t: np.exp(t.scores) - t.one_hot,
    "log(p) - one_hot": lambda t: np.log(t.p) - t.one_hot,
}


def targets(spot: Spot) -> Iterator[Family]:
    """The gradient of a softmax with its cross-entropy, written with a mistake."""
    z = spot.site.argument
    known = _at(z, spot.c) if spot.site.result is None and z.parents else None
    if known is None:
        return
    yield from spot.family(_edit(z, text, made) for text, made in MISTAKES.items())


def _at(z: Node, c: Array) -> Targets | None:
    scores = np.asarray(z.value)
    return Targets.of(scores, c) if scores.dtype.kind == "f" and 0 < scores.ndim < 4 else None


def _edit(z: Node, text: str, made: Callable[[Targets], Array]) -> Edit:
    def change(g: Array, c: Array, total: object) -> object:
        known = _at(z, np.asarray(c))
        return c if known is None else known.scale * made(known)

    rule = "value" if text.endswith(" - one_hot") else "term"
    fields = {"yours": text, "scores": z, "rule": rule}
    return Edit("one_hot", -0.5, change, fields, of="")
