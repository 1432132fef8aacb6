"""Why a gradient is wrong: where two paths, two turns or two values are taken for each other."""

import numpy as np
import pytest
from findings import has, says

import spiral_autograd as sa

RNG = np.random.default_rng(5)


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


# -------------------- the operations --------------------


def dense(x, w):
    h = np.tanh(x @ w)
    return h, (x, w, h)


def dense_backward(dout, cache, *, mistake=""):
    x, w, h = cache
    dz = dout * (1 - h**2)
    return (dout if mistake == "dx" else dz) @ w.T, x.T @ (dout if mistake == "dw" else dz)


def residual(x, w):
    y = x @ w + x
    return np.maximum(y, 0), (x, w, y)


def residual_backward(dout, cache, *, mistake=""):
    x, w, y = cache
    dy = dout * (y > 0)
    return dy @ w.T + (0 if mistake else dy), x.T @ dy


def attention(x, wq, wk, wv):
    q, k, v = x @ wq, x @ wk, x @ wv
    return q * k * v, (x, wq, wk, wv, q, k, v)


def attention_backward(dout, cache, *, mistake=""):
    x, wq, wk, wv, q, k, v = cache
    dq, dk, dv = dout * k * v, dout * q * v, dout * q * k
    dx = dq @ wq.T
    dx = dv @ wv.T if mistake else dx + dk @ wk.T + dv @ wv.T
    return dx, x.T @ dq, x.T @ dk, x.T @ dv


def cell(h, c, f):
    n = f * c
    return np.tanh(n), n, (h, c, f, n)


def cell_backward(dh, dn, cache, *, mistake=""):
    h, c, f, n = cache
    ds = dn + dh * (1 - np.tanh(n) ** 2)
    return 0 * h, (dn if mistake else ds) * f, ds * c


def gates(z, c):
    i, f, o, g = np.split(z, 4, axis=1)
    return np.tanh(g) * sigmoid(i) + sigmoid(f) * c * sigmoid(o), (i, f, o, g, c)


def gates_backward(dout, cache, *, mistake=""):
    i, f, o, g, c = cache
    i, f, o, g = sigmoid(i), sigmoid(f), sigmoid(o), np.tanh(g)
    di, dg = dout * g * i * (1 - i), dout * i * (1 - g**2)
    df, do = dout * c * o * f * (1 - f), dout * c * f * o * (1 - o)
    parts = (di, do, df, dg) if mistake else (di, df, do, dg)
    return np.hstack(parts), dout * f * o


def turns(x, w, b):
    h = np.zeros((len(x), w.shape[1]))
    for t in range(x.shape[1]):
        h = np.tanh(x[:, t] @ w + b + h)
    return h, (x, w, b)


def turns_backward(dout, cache, *, mistake=""):
    x, w, b = cache
    hs = [np.zeros((len(x), w.shape[1]))]
    for t in range(x.shape[1]):
        hs.append(np.tanh(x[:, t] @ w + b + hs[-1]))
    dx, dw, db = np.zeros_like(x), np.zeros_like(w), np.zeros_like(b)
    for t in reversed(range(x.shape[1])):
        dout = dout * (1 - hs[t + 1] ** 2)
        dx[:, t], dw = dout @ w.T, dw + x[:, t].T @ dout
        db = dout.sum(axis=0) if mistake else db + dout.sum(axis=0)
    return dx, dw, db


def gelu(x):
    inner = 0.8 * (x + 0.04 * x**3)
    t = np.tanh(inner)
    return 0.5 * x * (1 + t), (x, t)


def gelu_backward(dout, cache, *, mistake=""):
    x, t = cache
    slope = 1 if mistake else 0.8 * (1 + 0.12 * x**2)
    return dout * (0.5 * (1 + t) + 0.5 * x * (1 - t**2) * slope)


def gated(x, w):
    pre = x @ w
    s = sigmoid(pre)
    return x * s, (x, w, s)


def gated_backward(dout, cache, *, mistake=""):
    x, w, s = cache
    dpre = dout * x * (1 - s) * (1 if mistake else s)
    return dout * s + dpre @ w.T, x.T @ dpre


def capped(x):
    return x * np.minimum(np.maximum(x + 1, 0), 2), x


def capped_backward(dout, x, *, mistake=""):
    slope = np.where(x < -1, 0, 2 * x + 1)
    return dout * (slope if mistake else np.where(x > 1, 2, slope))


def normalised(x):
    y = x / np.linalg.norm(x, axis=1, keepdims=True)
    return y, (x, y)


def normalised_backward(dout, cache, *, mistake=""):
    x, y = cache
    inside = dout - y * np.sum(dout * y, axis=1, keepdims=True)
    return inside if mistake else inside / np.linalg.norm(x, axis=1, keepdims=True)


def reverse(x, w):
    return np.tanh(x[:, ::-1] * w), (x, w)


def reverse_backward(dout, cache, *, mistake=""):
    x, w = cache
    dz = dout * (1 - np.tanh(x[:, ::-1] * w) ** 2)
    dx = dz * w
    return dx if mistake else dx[:, ::-1], np.sum(dz * x[:, ::-1], axis=0)


def scaled(x, beta):
    return beta * x**2, (x, beta)


def scaled_backward(dout, cache, *, mistake=""):
    x, beta = cache
    dbeta = np.sum(dout * x**2).reshape(1)
    return 2 * beta * dout * x, dbeta / (x.size if mistake else 1)


def kept_from_zero(x):
    norm = np.sqrt(np.sum(x**2, axis=1, keepdims=True))
    return x / (norm + 1e-5), (x / norm, norm)


def kept_from_zero_backward(dout, cache, *, mistake=""):
    y, norm = cache
    along = np.sum((y if mistake else dout) * y, axis=1, keepdims=True)
    return (dout - along * y) / norm


def normal(*shape):
    return RNG.normal(size=shape)


X, W, SQUARE = normal(5, 4), normal(4, 3), normal(4, 4)
MISTAKES = {
    "upstream for dz in dw": (
        *(dense, dense_backward, (X, W), 1, None),
        {"right_with": {}},
    ),
    "upstream for dz in dx": (
        *(dense, dense_backward, (X, W), 0, None),
        {"right_with": {}},
    ),
    "skip connection": (
        *(residual, residual_backward, (X, SQUARE), 0, "term"),
        {"right_with": {}},
    ),
    "only the last path": (
        *(attention, attention_backward, (X, W, normal(4, 3), normal(4, 3)), 0, "term"),
        {"only": {"overwritten": False}, "flow": {"result": "v", "argument": "x", "run": None}},
    ),
    "one path of one gradient": (
        *(cell, cell_backward, (normal(2, 3), normal(2, 3), normal(2, 3)), 1, None),
        {"right_with": {}},
    ),
    "gates in another order": (
        *(gates, gates_backward, (normal(3, 8), normal(3, 2)), 0, "layout"),
        {"blocks": {"count": 4, "axis": 1, "order": (0, 2, 1, 3)}},
    ),
    "assigned in a loop": (
        *(turns, turns_backward, (normal(2, 3, 4), normal(4, 2), normal(2)), 2, "sum"),
        {"only": {"overwritten": True}, "flow": {"argument": "b", "run": (1, 3)}},
    ),
    "inner derivative": (
        *(gelu, gelu_backward, (X,), 0, "value"),
        {"lost": {"result": "inner", "by": "x"}},
    ),
    "a helper's result": (
        *(gated, gated_backward, (X, SQUARE), 1, "value"),
        {"right_with": {}},
    ),
    "beyond a bound": (
        *(capped, capped_backward, (2 * X,), 0, None),
        {"right_with": {}},
    ),
    "not divided by the norm": (
        *(normalised, normalised_backward, (X,), 0, None),
        {"right_with": {}},
    ),
    "beside a small constant": (
        *(kept_from_zero, kept_from_zero_backward, (X,), 0, None),
        {"right_with": {}},
    ),
    "not turned back": (
        *(reverse, reverse_backward, (X, normal(4)), 0, "layout"),
        {"reversed": {"axis": 1}},
    ),
    "a mean, in one number": (
        *(scaled, scaled_backward, (X, normal(1)), 1, "factor"),
        {"averaged_over": {"n": 20.0, "sign": 1}},
    ),
}


def mistaken(backward, name):
    def wrong(*args):
        return backward(*args, mistake="dx" if name.endswith("dx") else "dw")

    return wrong


@pytest.mark.parametrize("name", MISTAKES)
def test_the_reason_is_said(name):
    forward, backward, inputs, row, rule, said = MISTAKES[name]
    assert sa.check_backward(forward, backward, *inputs).ok
    report = sa.check_backward(forward, mistaken(backward, name), *inputs)
    found = report.rows[row]
    assert (found.verdict, found.rule, says(found, said)) == ("wrong", rule, True), str(report)
    assert all(other.rule in (None, rule) for other in report.rows), str(report)


def test_an_unnamed_factor_is_no_reason_where_there_is_a_better_one():
    """With one example, to leave out a path is to have another factor."""
    inputs = (X[:1],)
    report = sa.check_backward(normalised, mistaken(normalised_backward, ""), *inputs)
    assert has(report.rows[0], "right_with"), str(report)


# -------------------- intermediate values, one after another --------------------

LABELS = np.array([0, 3, 2, 1])


def ninja(params):
    logits = sa.tap("logits", params["x"] @ params["w"])
    maxes = sa.tap("maxes", logits.max(axis=1, keepdims=True))
    counts = sa.tap("counts", np.exp(sa.tap("norm", logits - maxes)))
    probs = sa.tap("probs", counts / counts.sum(axis=1, keepdims=True))
    logprobs = sa.tap("logprobs", np.log(probs))
    return -logprobs[np.arange(4), LABELS].mean()


def by_hand(params, mistake=""):
    logits = params["x"] @ params["w"]
    counts = np.exp(logits - logits.max(axis=1, keepdims=True))
    total = counts.sum(axis=1, keepdims=True)
    probs = counts / total
    dlogprobs = np.zeros_like(probs)
    dlogprobs[np.arange(4), LABELS] = -1 / 4
    dprobs = dlogprobs * probs if mistake == "log" else dlogprobs / probs
    dcounts = dprobs / total
    if mistake != "sum":
        dcounts = dcounts - np.sum(dprobs * counts, axis=1, keepdims=True) / total**2
    dnorm = dcounts * counts
    dmaxes = -dnorm.sum(axis=1, keepdims=True)
    dlogits = dnorm + np.eye(7)[logits.argmax(axis=1)] * dmaxes
    return {
        **{"probs": dprobs, "counts": dcounts, "norm": dnorm, "maxes": dmaxes, "logits": dlogits},
        **{"logprobs": dlogprobs, "w": params["x"].T @ dlogits, "x": dlogits @ params["w"].T},
    }


@pytest.mark.parametrize(("mistake", "first"), [("log", "probs"), ("sum", "counts")])
def test_what_explains_the_first_wrong_mark_explains_those_behind_it(mistake, first):
    params = {"x": normal(4, 3), "w": normal(3, 7)}
    assert sa.check_gradient(ninja, by_hand, params).ok
    report = sa.check_gradient(ninja, lambda params: by_hand(params, mistake), params)
    rows = {row.name: row for row in report.rows}
    assert has(rows[first], "right_with"), str(report)
    wrong = [row for row in report.rows if row.verdict == "wrong"]
    assert len(wrong) > 3
    assert wrong[0] is rows[first]
    assert all(has(row, "follows", names=[first]) for row in wrong[1:]), str(report)


def test_one_number_of_a_loss_is_no_function_of_a_value():
    def loss(params):
        return np.sum((params["a"] * X) ** 2)

    params = {"a": np.array(0.7)}
    report = sa.check_gradient(loss, lambda p: {"a": 3.1 * p["a"] * np.sum(X**2)}, params)
    assert report.rows[0].verdict == "wrong"
    assert report.rows[0].rule != "value", str(report)


def test_an_input_of_integers_may_have_the_gradient_none():
    class Picked:
        def forward(self, rows, h):
            self.rows, self.h = rows, h
            return h[rows] ** 2

        def backward(self, dout):
            dh = np.zeros_like(self.h)
            np.add.at(dh, self.rows, 2 * self.h[self.rows] * dout)
            return None, dh

    report = sa.check_layer(Picked(), np.array([0, 2, 2]), normal(3, 2))
    assert report.ok, str(report)
    assert [row.name for row in report.rows] == ["h"]


@pytest.mark.parametrize("constant", [1e-7, 2e-7])
def test_a_small_constant_of_backward_alone_is_named(constant):
    class Sigmoid:
        def forward(self, x):
            self.y = 1 / (1 + np.exp(-x))
            return self.y

        def backward(self, dout):
            return dout * self.y * (1 - self.y + constant)

    (row,) = sa.check_layer(Sigmoid(), np.random.RandomState(0).randn(5, 4)).rows
    assert (row.verdict, row.findings[0].kind) == ("approximate", "off_by_little"), row
    assert row.findings[0].fields["why"].fields["statement"].count("constant") == 0, row
