"""Differentiable operations, each with its handwritten backward pass and mistakes to make in it.

A maker takes a stream of choices and the values that come in, and returns an Operation whose
passes suit their shapes; it raises Unfit where they do not suit. ``forward(*values, *params)``
returns (output, cache), ``backward(g, cache, wrong)`` the gradients of values and parameters;
`wrong` is "" or one of the mistakes.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np


class Unfit(Exception):  # noqa: N818
    """The operation cannot take these values."""


def fits(condition):
    if not condition:
        raise Unfit


class Operation(NamedTuple):
    name: str
    forward: Callable[..., Any]
    backward: Callable[..., Any]
    params: dict[str, np.ndarray] = {}  # noqa: RUF012
    mistakes: tuple[str, ...] = ()
    ideal: Any = None  # the same without its small constant


class Choices:
    """A stream of choices: what a ``random.Random`` says, so that Hypothesis can replay it."""

    def __init__(self, random):
        self.random = random
        self.choice, self.chance = random.choice, lambda p: random.random() < p

    def size(self, low=1, high=4):
        return self.random.randint(low, high)

    def rng(self):
        return np.random.default_rng(self.random.getrandbits(32))

    def normal(self, *shape):
        return self.rng().normal(size=shape)

    def weights(self, x, *shape):
        """Weights that meet the last axis of x: as they come, or so that no column outweighs."""
        W = self.normal(*shape) / shape[0] ** 0.5
        largest = np.abs(x).reshape(-1, x.shape[-1]).max(axis=0)
        if self.chance(0.7) and np.all(largest > 0):
            W /= largest.reshape(-1, *(1,) * (W.ndim - 1))
        return W


# -------------------- entry by entry --------------------


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def cleared(x):
    y = x.copy()
    y[x < 0] = 0
    return y


def softsign_into(x):
    y = np.empty_like(x)
    np.divide(x, 1 + np.abs(x), out=y)
    return y


def gelu_slope(x, y):
    t = np.tanh(0.8 * (x + 0.04 * x**3))
    return 0.5 * (1 + t) + 0.5 * x * (1 - t**2) * 0.8 * (1 + 0.12 * x**2)


def anything(x):
    return True


def within(bound):
    return lambda x: np.abs(x).max() < bound


def positive(x):
    return x.min() > 1e-4 * x.max()


# name: function, its slope, wrong slopes, what it takes
# fmt: off
ENTRYWISE: dict[str, tuple] = {
    "tanh": (np.tanh, lambda x, y: 1 - y * y,
             [lambda x, y: 1 - y, lambda x, y: 1 - x * x, lambda x, y: y * (1 - y)], anything),
    "sigmoid": (sigmoid, lambda x, y: y * (1 - y),
                [lambda x, y: x * (1 - x), lambda x, y: 1 - y, lambda x, y: y], within(700)),
    "exp": (np.exp, lambda x, y: y, [lambda x, y: x, lambda x, y: y - 1], within(20)),
    "log": (np.log, lambda x, y: 1 / x, [lambda x, y: -1 / x, lambda x, y: x], positive),
    "log1p of a square": (lambda x: np.log1p(x**2), lambda x, y: 2 * x / (1 + x**2),
                          [lambda x, y: 1 / (1 + x**2)], within(1e5)),
    "sqrt": (np.sqrt, lambda x, y: 0.5 / y, [lambda x, y: 1 / y, lambda x, y: y / 2], positive),
    "square": (lambda x: x**2, lambda x, y: 2 * x, [lambda x, y: x], within(1e4)),
    "cube": (lambda x: x**3, lambda x, y: 3 * x**2, [lambda x, y: 3 * x], within(1e3)),
    "bell": (lambda x: 1 / (1 + x**2), lambda x, y: -2 * x * y**2,
             [lambda x, y: 2 * x * y**2, lambda x, y: -2 * x * y], within(1e4)),
    "relu": (lambda x: np.maximum(0, x), lambda x, y: x > 0,
             [lambda x, y: x < 0, lambda x, y: y > 1, lambda x, y: x != 0], anything),
    "relu in place": (cleared, lambda x, y: x >= 0, [lambda x, y: x >= 1], anything),
    "leaky relu": (lambda x: np.where(x > 0, x, 0.01 * x), lambda x, y: np.where(x > 0, 1, 0.01),
                   [lambda x, y: x > 0, lambda x, y: np.where(x > 0, 1, 0.1)], anything),
    "abs": (np.abs, lambda x, y: np.sign(x), [lambda x, y: x > 0, lambda x, y: x], anything),
    "clip": (lambda x: np.clip(x, -1, 1), lambda x, y: (x > -1) & (x < 1),
             [lambda x, y: x < 1, lambda x, y: np.abs(x) > 1], anything),
    "softplus": (lambda x: np.log(1 + np.exp(x)), lambda x, y: sigmoid(x),
                 [lambda x, y: y, lambda x, y: sigmoid(-x)], within(30)),
    "softsign": (lambda x: x / (1 + np.abs(x)), lambda x, y: 1 / (1 + np.abs(x)) ** 2,
                 [lambda x, y: 1 / (1 + np.abs(x))], anything),
    "softsign with out=": (softsign_into, lambda x, y: 1 / (1 + np.abs(x)) ** 2,
                           [lambda x, y: 1 / (1 + np.abs(x))], anything),
    "swish": (lambda x: x * sigmoid(x), lambda x, y: sigmoid(x) * (1 + x * (1 - sigmoid(x))),
              [lambda x, y: sigmoid(x), lambda x, y: y * (1 - y)], within(100)),
    "gelu": (lambda x: 0.5 * x * (1 + np.tanh(0.8 * (x + 0.04 * x**3))), gelu_slope,
             [lambda x, y: 0.5 * (1 + np.tanh(0.8 * (x + 0.04 * x**3)))], within(100)),
    "sine": (np.sin, lambda x, y: np.cos(x), [lambda x, y: -np.cos(x)], within(1e3)),
}
# fmt: on


def entrywise(choices, x):
    name = choices.choice(sorted(ENTRYWISE))
    function, slope, others, takes = ENTRYWISE[name]
    fits(takes(x))

    def forward(x):
        y = function(x)
        return y, (x, y)

    def backward(g, cache, wrong):
        return (g * (others[int(wrong[-1])] if wrong else slope)(*cache),)

    return Operation(name, forward, backward, {}, tuple(f"slope {i}" for i in range(len(others))))


def small_constant(choices, x):
    """A logarithm, root or quotient with a small constant against zero."""
    name = choices.choice(["log", "root", "quotient"])
    fits(name != "log" or x.min() >= 0)

    def build(small):
        def forward(x):
            if name == "log":
                return np.log(x + small), (x,)
            if name == "root":
                return np.sqrt(x**2 + small), (x,)
            return x / (np.sqrt(np.mean(x**2, axis=-1, keepdims=True)) + small), (x,)

        def backward(g, cache, wrong):
            (x,) = cache
            if name == "log":
                return (g * x if wrong else g / (x + small),)
            if name == "root":
                return ((g if wrong else g * x) / np.sqrt(x**2 + small),)
            root = np.sqrt(np.mean(x**2, axis=-1, keepdims=True))
            below = (g * x).mean(axis=-1, keepdims=True) / (root + small)
            with np.errstate(invalid="ignore"):
                through = np.where(root > 0, x * below / root, 0)
            return ((g - (0 if wrong else through)) / (root + small),)

        return Operation(f"{name} with a constant", forward, backward, {}, ("term",))

    small = choices.choice([1e-8, 1e-7, 1e-5])
    return build(small)._replace(ideal=build(0.0))


# -------------------- weights --------------------


def affine(choices, x):
    fits(x.ndim > 1)
    width = choices.size()
    W, b = choices.weights(x, x.shape[-1], width), choices.normal(width)

    def forward(x, W, b):
        return x @ W + b, (x, W)

    def backward(g, cache, wrong):
        x, W = cache
        rows, g2 = x.reshape(-1, x.shape[-1]), g.reshape(-1, g.shape[-1])
        db = {"mean": g2.mean(axis=0), "first": g2[0], "not summed": g2}.get(wrong, g2.sum(axis=0))
        return g @ (W if wrong == "not transposed" else W.T), rows.T @ g2, db

    square = ("not transposed",) if W.shape[0] == width > 1 else ()
    return Operation(
        "affine", forward, backward, {"W": W, "b": b}, ("mean", "first", "not summed", *square)
    )


def columns(choices, x):
    """W x + b with the examples in columns."""
    fits(x.ndim == 2)
    W = choices.weights(x.T, x.shape[0], choices.size()).T
    b = choices.normal(len(W), 1)

    def forward(x, W, b):
        return W @ x + b, (x, W)

    def backward(g, cache, wrong):
        x, W = cache
        db = {"mean": g.mean(axis=1, keepdims=True), "flat": g.sum(axis=1), "all": g.sum()}
        return W.T @ g, g @ x.T, db.get(wrong, g.sum(axis=1, keepdims=True))

    mistakes = ("mean", "flat", "all") if len(W) > 1 else ("mean",)
    return Operation("columns", forward, backward, {"W": W, "b": b}, mistakes)


def scale_and_shift(choices, x):
    gamma, beta = choices.normal(x.shape[-1]), choices.normal(x.shape[-1])

    def forward(x, gamma, beta):
        return x * gamma + beta, (x, gamma)

    def backward(g, cache, wrong):
        x, gamma = cache
        over = tuple(range(g.ndim - 1))
        return g * (x if wrong else gamma), (g * x).sum(axis=over), g.sum(axis=over)

    return Operation("scale", forward, backward, {"gamma": gamma, "beta": beta}, ("operand",))


def normalised(choices, x):
    """Batch or layer normalization, without its scale."""
    fits(x.ndim > 1)
    axis = choices.choice([0, -1])
    fits(x.shape[axis] > 1)

    def build(small):
        def forward(x):
            centred = x - x.mean(axis=axis, keepdims=True)
            deviation = np.sqrt((centred**2).mean(axis=axis, keepdims=True) + small)
            return centred / deviation, (centred / deviation, deviation)

        def backward(g, cache, wrong):
            y, deviation = cache
            mean = 0 if wrong == "mean" else g.mean(axis=axis, keepdims=True)
            along = 0 if wrong == "variance" else y * (g * y).mean(axis=axis, keepdims=True)
            return ((g - mean - along) / deviation,)

        return Operation("normalised", forward, backward, {}, ("mean", "variance"))

    return build(1e-5)._replace(ideal=build(0.0))


def embedding(choices, x):
    """Rows of a table by words: only the table has a gradient, and x is added to it."""
    fits(x.ndim == 2)
    table = choices.normal(choices.size(2, 5), x.shape[1])
    words = choices.rng().integers(len(table), size=len(x))

    def forward(x, table):
        return x + table[words], (table.shape,)

    def backward(g, cache, wrong):
        dtable = np.zeros(cache[0], g.dtype)
        if wrong:
            dtable[words] = g
        else:
            np.add.at(dtable, words, g)
        return g, dtable

    return Operation("embedding", forward, backward, {"E": table}, ("overwritten",))


def attention(choices, x):
    fits(x.ndim == 3 and np.abs(x).max() < 1e3)
    d = x.shape[-1]
    params = {name: choices.weights(x, d, d) for name in ("Wq", "Wk", "Wv")}
    root = d**0.5

    def forward(x, Wq, Wk, Wv):
        q, k, v = x @ Wq, x @ Wk, x @ Wv
        s = np.einsum("nqd,nkd->nqk", q, k) / root
        e = np.exp(s - s.max(axis=-1, keepdims=True))
        a = e / e.sum(axis=-1, keepdims=True)
        return a @ v, (x, Wq, Wk, Wv, q, k, v, a)

    def backward(g, cache, wrong):
        x, Wq, Wk, Wv, q, k, v, a = cache
        dv, da = a.swapaxes(1, 2) @ g, g @ v.swapaxes(1, 2)
        inner = 0 if wrong == "softmax" else (da * a).sum(axis=-1, keepdims=True)
        ds = a * (da - inner) / (1 if wrong == "scale" else root)
        dq, dk = ds @ k, (ds if wrong == "keys" else ds.swapaxes(1, 2)) @ q
        dx = dq @ Wq.T + dk @ Wk.T + (0 if wrong == "values" else dv @ Wv.T)
        return dx, *(np.einsum("ntd,nte->de", x, up) for up in (dq, dk, dv))

    mistakes = ("softmax", "keys", "values", "scale")
    return Operation("attention", forward, backward, params, mistakes)


def recurrence(choices, x):
    """h = tanh(x Wx + h Wh + b) over axis 1: all states, or the last."""
    fits(x.ndim == 3)
    width, last = choices.size(), choices.chance(0.5)
    Wx, Wh = choices.weights(x, x.shape[-1], width), choices.normal(width, width) / width**0.5

    def forward(x, Wx, Wh):
        hs = [np.zeros((len(x), Wh.shape[0]), x.dtype)]
        for t in range(x.shape[1]):
            hs.append(np.tanh(x[:, t] @ Wx + hs[-1] @ Wh))
        return hs[-1] if last else np.stack(hs[1:], axis=1), (x, Wx, Wh, hs)

    def backward(g, cache, wrong):
        x, Wx, Wh, hs = cache
        dx, dWx, dWh, dh = np.zeros_like(x), np.zeros_like(Wx), np.zeros_like(Wh), 0 * hs[0]
        for t in reversed(range(x.shape[1])):
            up = g if last and t == x.shape[1] - 1 else 0 if last else g[:, t]
            da = (dh + up) * (1 - hs[t + 1] ** 2)
            dx[:, t] = da @ Wx.T
            dWx = x[:, t].T @ da + (0 if wrong == "not added up" else dWx)
            dWh += hs[t + (wrong == "state after")].T @ da
            dh = 0 * dh if wrong == "not carried" else da @ Wh.T
        return dx, dWx, dWh

    mistakes = ("not added up", "state after", "not carried")
    return Operation("recurrence", forward, backward, {"Wx": Wx, "Wh": Wh}, mistakes)


def convolution(choices, x):
    """Along axis 1, written into an array made before."""
    fits(x.ndim == 3 and x.shape[1] > 1)
    kernel, width = 2, choices.size(1, 3)
    W = choices.normal(kernel, x.shape[2], width)
    if choices.chance(0.5):
        W /= np.abs(x).max() + 1

    def forward(x, W):
        y = np.zeros((x.shape[0], x.shape[1] - kernel + 1, W.shape[2]), x.dtype)
        for i in range(y.shape[1]):
            y[:, i] = np.tensordot(x[:, i : i + kernel], W, axes=2)
        return y, (x, W)

    def backward(g, cache, wrong):
        x, W = cache
        dx, dW = np.zeros_like(x), np.zeros_like(W)
        for i in range(g.shape[1]):
            window = x[:, i : i + kernel]
            dW += np.einsum(
                "nkd,nc->kdc", window[:, ::-1] if wrong == "flipped" else window, g[:, i]
            )
            part = np.einsum("nc,kdc->nkd", g[:, i], W)
            if wrong == "overwritten":
                dx[:, i : i + kernel] = part
            else:
                dx[:, i : i + kernel] += part
        return dx, dW

    return Operation("convolution", forward, backward, {"K": W}, ("flipped", "overwritten"))


WITH_WEIGHTS = [affine, columns, scale_and_shift, embedding, attention, recurrence, convolution]
