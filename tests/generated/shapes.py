"""Operations without weights that sum, choose, move and join values; and the losses."""

from __future__ import annotations

import numpy as np

from .operations import WITH_WEIGHTS, Operation, entrywise, fits, normalised, small_constant


def softmax(choices, x):
    axis = choices.choice([0, -1])

    def forward(x):
        e = np.exp(x - x.max(axis=axis, keepdims=True))
        y = e / e.sum(axis=axis, keepdims=True)
        return y, (y,)

    def backward(g, cache, wrong):
        (y,) = cache
        over = -1 - axis if wrong == "axis" else axis
        return (y * (g - (0 if wrong == "term" else (g * y).sum(axis=over, keepdims=True))),)

    mistakes = ("term", "axis") if x.ndim == 2 else ("term",)
    return Operation("softmax", forward, backward, {}, mistakes)


def reduced(choices, x):
    """The sum, mean or maximum along an axis."""
    fits(x.ndim > 1)
    axis, name = choices.choice([0, -1]), choices.choice(["sum", "mean", "max"])

    def forward(x):
        y = {"sum": np.sum, "mean": np.mean, "max": np.max}[name](x, axis=axis)
        return y, (x,)

    def backward(g, cache, wrong):
        (x,) = cache
        up = np.expand_dims(g, axis)
        if name == "max":
            first = np.expand_dims(x.argmax(axis=axis), axis)
            dx = np.zeros_like(x)
            np.put_along_axis(dx, first, up, axis=axis)
            return (np.broadcast_to(up, x.shape) if wrong else dx,)
        whole = name == "sum" or wrong
        return (np.broadcast_to(up / (1 if whole else x.shape[axis]), x.shape),)

    return Operation(name, forward, backward, {}, () if name == "sum" else ("all",))


def centred(choices, x):
    axis = choices.choice([0, -1])

    def forward(x):
        return x - x.mean(axis=axis, keepdims=True), ()

    def backward(g, cache, wrong):
        return (g if wrong else g - g.mean(axis=axis, keepdims=True),)

    return Operation("centred", forward, backward, {}, ("term",))


def unit_norm(choices, x):
    fits(np.linalg.norm(x, axis=-1).min() > 1e-3)

    def forward(x):
        norm = np.linalg.norm(x, axis=-1, keepdims=True)
        return x / norm, (x / norm, norm)

    def backward(g, cache, wrong):
        y, norm = cache
        return ((g - (0 if wrong else y * (g * y).sum(axis=-1, keepdims=True))) / norm,)

    return Operation("unit norm", forward, backward, {}, ("term",))


def log_sum_exp(choices, x):
    fits(x.ndim > 1)

    def forward(x):
        top = x.max(axis=-1, keepdims=True)
        e = np.exp(x - top)
        return np.log(e.sum(axis=-1)) + top[..., 0], (e / e.sum(axis=-1, keepdims=True), e)

    def backward(g, cache, wrong):
        return (g[..., None] * cache[1 if wrong else 0],)

    return Operation("log-sum-exp", forward, backward, {}, ("unscaled",))


def moved(choices, x):
    """The same entries in another order or shape."""
    fits(x.ndim > 1)
    name = choices.choice(["transposed", "flat", "reversed", "split in two"])
    fits(name != "split in two" or x.shape[-1] % 2 == 0)

    def forward(x):
        if name == "transposed":
            return x.swapaxes(-1, -2), (x.shape,)
        if name == "reversed":
            return x[:, ::-1], (x.shape,)
        return x.reshape((x.shape[0], -1) if name == "flat" else (x.shape[0], -1, 2)), (x.shape,)

    def backward(g, cache, wrong):
        if name == "transposed":
            return (g.reshape(cache[0]) if wrong else g.swapaxes(-1, -2),)
        if name == "reversed":
            return (g if wrong else g[:, ::-1],)
        return (g.reshape(cache[0]),)

    mistakes = ("order",) if name in ("transposed", "reversed") else ()
    return Operation(name, forward, backward, {}, mistakes)


def gathered(choices, x):
    """Columns or rows by an index array that may name one twice."""
    axis = choices.choice([0, x.ndim - 1])
    index = choices.rng().integers(x.shape[axis], size=choices.size(2, 4))
    place = (*(slice(None),) * axis, index)

    def forward(x):
        return x[place], (x.shape,)

    def backward(g, cache, wrong):
        dx = np.zeros(cache[0], g.dtype)
        if wrong:
            dx[place] += g
        else:
            np.add.at(dx, place, g)
        return (dx,)

    return Operation("gathered", forward, backward, {}, ("overwritten",))


def gated(choices, x):
    """One half of the columns times the other."""
    fits(x.shape[-1] % 2 == 0 and np.abs(x).max() < 1e5)

    def forward(x):
        a, b = np.split(x, 2, axis=-1)
        return a * b, (a, b)

    def backward(g, cache, wrong):
        a, b = cache
        return (np.concatenate([g * a, g * b] if wrong else [g * b, g * a], axis=-1),)

    return Operation("gated", forward, backward, {}, ("exchanged",))


def running_sum(choices, x):
    """A loop that writes into an array and reads what it wrote."""
    fits(x.ndim == 2)

    def forward(x):
        y = np.zeros_like(x)
        y[:, 0] = x[:, 0]
        for i in range(1, x.shape[1]):
            y[:, i] = 0.9 * y[:, i - 1] + x[:, i]
        return y, ()

    def backward(g, cache, wrong):
        dx = np.array(g)
        for i in reversed(range(g.shape[1] - 1)):
            dx[:, i] += (1.0 if wrong == "decay" else 0.9) * (g if wrong == "stale" else dx)[
                :, i + 1
            ]
        return (dx,)

    return Operation("running sum", forward, backward, {}, ("decay", "stale"))


def masked(choices, x):
    mask = (choices.rng().random(x.shape) < 0.7) / 0.7

    def forward(x):
        return x * mask.astype(x.dtype), ()

    def backward(g, cache, wrong):
        return (g * (mask > 0) if wrong else g * mask.astype(g.dtype),)

    return Operation("dropout", forward, backward, {}, ("unscaled",))


# -------------------- of two values --------------------


def joined(choices, x, y):
    name = choices.choice(["sum", "product", "concatenation", "quotient", "larger"])
    fits(name == "sum" or max(np.abs(x).max(), np.abs(y).max()) < 1e4)

    def forward(x, y):
        if name == "concatenation":
            return np.concatenate([x, y], axis=-1), (x, y)
        if name == "quotient":
            return x / (1 + y**2), (x, y)
        return {"sum": np.add, "product": np.multiply, "larger": np.maximum}[name](x, y), (x, y)

    def backward(g, cache, wrong):
        x, y = cache
        if name == "sum":
            return (g, -g) if wrong else (g, g)
        if name == "product":
            return (g * x, g * x) if wrong else (g * y, g * x)
        if name == "larger":
            return (g * (x >= y), g * (x >= y if wrong else x < y))
        if name == "quotient":
            return g / (1 + y**2), (2 if wrong else -2) * g * x * y / (1 + y**2) ** 2
        a, b = np.split(g, 2, axis=-1)
        return (b, a) if wrong else (a, b)

    return Operation(name, forward, backward, {}, ("second",))


def products(choices, x, y):
    """All products of a row of x and a row of y; or their inner products."""
    fits(x.ndim == 2 and max(np.abs(x).max(), np.abs(y).max()) < 1e4)
    spec = choices.choice(["ni,nj->nij", "ni,mi->nm"])
    first, second = ("nij,nj->ni", "nij,ni->nj") if "nij" in spec else ("nm,mi->ni", "nm,ni->mi")

    def forward(x, y):
        return np.einsum(spec, x, y), (x, y)

    def backward(g, cache, wrong):
        x, y = cache
        turned = g.swapaxes(-1, -2) if wrong else g
        return np.einsum(first, turned, y), np.einsum(second, g, x)

    square = ("turned",) if (x.shape[-1] if "nij" in spec else len(x)) > 1 else ()
    fits(x.shape[-1] * len(x) < 60)
    return Operation("products", forward, backward, {}, square)


# -------------------- losses --------------------


def squared_error(choices, x):
    fits(np.abs(x).max() < 1e6)
    target = (choices.choice([0.01, 1.0]) * choices.normal(*x.shape)).round(3)

    def forward(x):
        return np.mean((x - target.astype(x.dtype)) ** 2), (x,)

    def backward(g, cache, wrong):
        (x,) = cache
        difference = x if wrong == "target" else x - target.astype(x.dtype)
        return (g * (1 if wrong == "half" else 2) * difference / x.size,)

    return Operation("squared error", forward, backward, {}, ("target", "half"))


def cross_entropy(choices, x):
    fits(x.ndim == 2 and x.shape[1] > 1)
    t, rows = choices.rng().integers(x.shape[1], size=len(x)), np.arange(len(x))

    def forward(x):
        shifted = x - x.max(axis=1, keepdims=True)
        logs = shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))
        return -np.sum(logs[rows, t]) / len(x), (np.exp(logs),)

    def backward(g, cache, wrong):
        d = cache[0].copy()
        if wrong != "label":
            d[rows, t] -= 1
        return (g * d / (1 if wrong == "batch" else len(d)),)

    return Operation("cross-entropy", forward, backward, {}, ("label", "batch"))


def hinge(choices, x):
    margin = 0.01

    def forward(x):
        return np.sum(np.maximum(0, margin - x)), (x,)

    def backward(g, cache, wrong):
        return (-g * (cache[0] < (1 if wrong else margin)),)

    return Operation("hinge", forward, backward, {}, ("margin",))


WITHOUT_WEIGHTS = [
    entrywise, entrywise, entrywise, small_constant, normalised, softmax, reduced, centred,
    unit_norm, log_sum_exp, moved, gathered, gated, running_sum, masked,
]  # fmt: skip
ONE_VALUE = [*WITH_WEIGHTS, *WITHOUT_WEIGHTS]
TWO_VALUES = [joined, joined, products]
LOSSES = [squared_error, cross_entropy, hinge]
