"""The same slip at several places, and operands that are gradients or already updated weights."""

import numpy as np
import pytest
from findings import has, kinds

import spiral_autograd as sa

RNG = np.random.default_rng(7)


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


# -------------------- an LSTM --------------------


def lstm(x, W, U):
    h, c, cache = np.zeros((2, 3)), np.zeros((2, 3)), []
    for t in range(x.shape[1]):
        a = x[:, t] @ W + h @ U
        i, f, o, g = sigmoid(a[:, :3]), sigmoid(a[:, 3:6]), sigmoid(a[:, 6:9]), np.tanh(a[:, 9:])
        before, c_before = h, c
        c = f * c_before + i * g
        h = o * np.tanh(c)
        cache.append((before, c_before, c, i, f, o, g))
    return h, (x, W, U, cache)


def lstm_backward(dh, kept, *, mistake=""):
    x, W, U, cache = kept
    dx, dW, dU, dc = np.zeros_like(x), np.zeros_like(W), np.zeros_like(U), np.zeros((2, 3))
    for t in reversed(range(x.shape[1])):
        h, c_before, c, i, f, o, g = cache[t]
        dc = dc + dh * o * (1 - np.tanh(c) ** 2)
        di, df, do, dg = dc * g, dc * c_before, dh * np.tanh(c), dc * i
        if mistake != "gates":
            di, df, do, dg = di * i * (1 - i), df * f * (1 - f), do * o * (1 - o), dg * (1 - g**2)
        da = np.hstack([di, df, do, dg])
        dx[:, t], dW, dU = da @ W.T, dW + x[:, t].T @ da, dU + h.T @ da
        dh, dc = da @ U.T, dc * f
        if mistake == "back":
            dh, dc = 0 * dh, 0 * dc
    return dx, dW, dU


@pytest.mark.parametrize(
    ("steps", "mistake", "rule", "kind"),
    [(1, "gates", None, "right_with"), (3, "back", "term", "not_carried")],
)
def test_all_gates_and_all_that_is_carried(steps, mistake, rule, kind):
    inputs = RNG.normal(size=(2, steps, 4)), RNG.normal(size=(4, 12)), RNG.normal(size=(3, 12))
    assert sa.check_backward(lstm, lstm_backward, *inputs).ok

    def backward(dh, kept):
        return lstm_backward(dh, kept, mistake=mistake)

    report = sa.check_backward(lstm, backward, *inputs, budget=20.0)
    wrong = [row for row in report.rows if row.verdict == "wrong"]
    assert wrong
    for row in wrong:
        assert (row.rule, kind in kinds(row)) == (rule, True), str(report)


# -------------------- keys and values --------------------


def attention(x, M):
    q, k, v = x @ M[:, :3], x @ M[:, 3:6], x @ M[:, 6:]
    return q @ k.T @ v, (x, M, q, k, v)


def attention_backward(dout, cache, *, wrong=False):
    x, M, q, k, v = cache
    s, ds = q @ k.T, dout @ v.T
    dv, dk = (s @ dout, ds @ q) if wrong else (s.T @ dout, ds.T @ q)
    dqkv = np.hstack([ds @ k, dk, dv])
    return dqkv @ M.T, x.T @ dqkv


def test_keys_and_values_both_from_what_is_not_transposed():
    inputs = RNG.normal(size=(5, 4)), RNG.normal(size=(4, 9))
    assert sa.check_backward(attention, attention_backward, *inputs).ok
    report = sa.check_backward(
        attention, lambda g, c: attention_backward(g, c, wrong=True), *inputs
    )
    for row in report.rows:
        assert has(row, "right_with"), str(report)


# -------------------- a network of three layers --------------------

X, T = RNG.normal(size=(6, 5)), RNG.normal(size=(6, 2))


def network(p):
    h1 = np.tanh(X @ p["W1"])
    h2 = np.tanh(h1 @ p["W2"])
    y = sigmoid(h2 @ p["W3"])
    return np.sum((y - T) ** 2)


def by_hand(p, mistake=""):
    h1 = np.tanh(X @ p["W1"])
    h2 = np.tanh(h1 @ p["W2"])
    y = sigmoid(h2 @ p["W3"])
    slope = (lambda h: h * (1 - h)) if mistake == "output's" else (lambda h: 1 - h**2)
    d3 = 2 * (y - T) * y * (1 - y)
    dW3 = h2.T @ d3
    operand = {"gradient": dW3, "updated": p["W3"] - 0.1 * dW3}.get(mistake, p["W3"])
    d2 = d3 @ operand.T * slope(h2)
    d1 = d2 @ p["W2"].T * slope(h1)
    return {"W1": X.T @ d1, "W2": h1.T @ d2, "W3": dW3}


@pytest.mark.parametrize("mistake", ["gradient", "updated", "output's"])
def test_what_stands_in_the_place_of_a_weight_or_of_each_derivative(mistake):
    params = {"W1": RNG.normal(size=(5, 4)), "W2": RNG.normal(size=(4, 3))}
    params["W3"] = RNG.normal(size=(3, 2))
    assert sa.check_gradient(network, by_hand, params).ok
    report = sa.check_gradient(network, lambda p: by_hand(p, mistake), params)
    first, second, last = report.rows
    assert last.verdict in ("exact", "match")
    assert has(first, "right_with"), str(report)
    assert has(second, "right_with"), str(report)
    if mistake == "output's":  # both lines, of what both make wrong
        assert len(first.findings[0].fields["others"]) == 1, str(report)
        assert has(second, "right_with", derivatives=[("tanh", "1 - h2 ** 2")]), str(report)
