"""Mistakes in loops: what is taken from another turn, put at another place, or added to itself."""

import numpy as np
import pytest
from findings import has

import spiral_autograd as sa

RNG = np.random.default_rng(11)

# -------------------- a recurrent network, from the last step to the first --------------------

STEPS, MASKS = 4, [(RNG.random((2, 4)) > 0.4) / 0.6 for _ in range(4)]


def rnn(x, Wx, Wh, b, h0):
    h, hs, out = h0, [h0], []
    for t in range(STEPS):
        h = np.tanh(x[:, t] @ Wx + h @ Wh + b)
        hs.append(h)
        out.append(h * MASKS[t])
    return np.stack(out, axis=1), (x, Wx, Wh, b, hs)


def rnn_backward(dout, cache, *, mistake=""):
    x, Wx, Wh, b, hs = cache
    dx, dWx, dWh, db, dh_next = np.zeros_like(x), 0 * Wx, 0 * Wh, 0 * b, np.zeros_like(hs[0])
    for t in reversed(range(STEPS)):
        s = min(t + 1, STEPS - 1) if mistake == "upstream" else t
        dh = dout[:, s] * MASKS[0 if mistake == "mask" else s] + dh_next
        if mistake == "doubled":
            dh += dh
        h = hs[t] if mistake == "derivative" else hs[t + 1]
        da = dh * (1 - h**2)
        dx[:, t], db = da @ Wx.T, db + da.sum(axis=0)
        dWx = dWx + x[:, t].T @ da
        dWh = dWh + hs[0 if mistake == "first state" else t].T @ da
        dh_next = da @ Wh.T
    return dx, dWx, dWh, db, dh_next


@pytest.mark.parametrize(
    ("mistake", "kind", "fields"),
    [
        ("upstream", "right_with", {}),
        ("derivative", "right_with", {}),
        ("first state", "right_with", {}),
        ("doubled", "right_with", {}),
    ],
)
def test_what_is_taken_from_another_turn(mistake, kind, fields):
    inputs = [RNG.normal(size=shape) for shape in ((2, STEPS, 3), (3, 4), (4, 4), (4,), (2, 4))]
    assert sa.check_backward(rnn, rnn_backward, *inputs).ok
    report = sa.check_backward(rnn, lambda d, c: rnn_backward(d, c, mistake=mistake), *inputs)
    wrong = [row for row in report.rows if row.verdict == "wrong"]
    assert wrong
    for row in wrong:
        assert has(row, kind, **fields), str(report)


# -------------------- a cell whose gradient is added to itself --------------------


def cells(a, f):
    c, out = np.zeros((2, 3)), []
    for t in range(3):
        c = f[t] * c + a[t]
        out.append(np.tanh(c))
    return np.stack(out), (a, f)


def cells_backward(dout, cache, *, wrong=False):
    a, f = cache
    cs = [np.zeros((2, 3))]
    for t in range(3):
        cs.append(f[t] * cs[-1] + a[t])
    da, df, dc_next = 0 * a, 0 * f, 0
    for t in reversed(range(3)):
        dc = dout[t] * (1 - np.tanh(cs[t + 1]) ** 2)
        dc = dc + dc if wrong else dc + dc_next
        da[t], df[t], dc_next = dc, dc * cs[t], dc * f[t]
    return da, df


def test_a_gradient_added_to_itself():
    inputs = RNG.normal(size=(3, 2, 3)), RNG.normal(size=(3, 2, 3))
    assert sa.check_backward(cells, cells_backward, *inputs).ok
    report = sa.check_backward(cells, lambda d, c: cells_backward(d, c, wrong=True), *inputs)
    for row in report.rows:
        assert has(row, "right_with"), str(report)


# -------------------- windows --------------------


def conv(x, w):
    out = np.zeros((2, 2, 2))
    for i in range(2):
        for j in range(2):
            window = x[:, 2 * i : 2 * i + 3, 2 * j : 2 * j + 3]
            out[:, i, j] = np.sum(window * w, axis=(1, 2))
    return out, (x, w)


def conv_backward(dout, cache, *, mistake=""):
    x, w = cache
    dx, dw = np.zeros_like(x), np.zeros_like(w)
    step = 1 if mistake == "stride" else 2
    shift = 1 if mistake == "shift" else 0
    for i in range(2):
        for j in range(2):
            d = dout[:, i, j][:, None, None]
            at = (
                slice(step * i, step * i + 3),
                slice(max(step * j - shift, 0), step * j + 3 - shift),
            )
            at = at if mistake != "shift" or j else (at[0], slice(0, 3))
            dx[(slice(None), *at)] += d * (w[::-1, ::-1] if mistake == "flip" else w)
            dw += np.sum(d * x[(slice(None), *at)], axis=0)
    return dx, dw


@pytest.mark.parametrize(
    ("mistake", "is_wrong"), [("stride", (1, 1)), ("shift", (1, 1)), ("flip", (1, 0))]
)
def test_windows_at_another_place(mistake, is_wrong):
    inputs = RNG.normal(size=(2, 5, 5)), RNG.normal(size=(3, 3))
    assert sa.check_backward(conv, conv_backward, *inputs).ok
    report = sa.check_backward(conv, lambda d, c: conv_backward(d, c, mistake=mistake), *inputs)
    for row, wrong in zip(report.rows, is_wrong, strict=True):
        assert (row.verdict == "wrong", has(row, "right_with")) == (wrong, wrong), str(report)


# -------------------- gradients that are exchanged, terms in a part --------------------


def heads(x, Wq, Wk, Wv):
    q, k, v = x @ Wq, x @ Wk, x @ Wv
    return (q @ k.T) @ v, (x, Wq, Wk, Wv, q, k, v)


def heads_backward(dout, cache, *, order=(0, 1, 2)):
    x, Wq, Wk, Wv, q, k, v = cache
    ds = dout @ v.T
    some = ds @ k, ds.T @ q, (q @ k.T).T @ dout
    dq, dk, dv = (some[i] for i in order)
    return dq @ Wq.T + dk @ Wk.T + dv @ Wv.T, x.T @ dq, x.T @ dk, x.T @ dv


@pytest.mark.parametrize("order", [(1, 0, 2), (1, 2, 0)])
def test_gradients_of_values_that_are_taken_for_one_another(order):
    inputs = [RNG.normal(size=(4, 3)), *(RNG.normal(size=(3, 3)) for _ in range(3))]
    assert sa.check_backward(heads, heads_backward, *inputs).ok
    report = sa.check_backward(heads, lambda d, c: heads_backward(d, c, order=order), *inputs)
    assert has(report.rows[0], "right_with"), str(report)


X, T = np.c_[np.ones(7), RNG.normal(size=(7, 3))], RNG.normal(size=7)


def ridge(theta):
    return np.mean((X @ theta - T) ** 2) + 0.3 * np.sum(theta[1:] ** 2)


def ridge_gradient(theta, mistake=""):
    first = {"bias too": 0, "too few": 2}.get(mistake, 1)
    decay = 0.6 * theta * (np.arange(4) >= first)
    added = 0.1 * (np.arange(4) > 0) if mistake == "constant" else 0
    return 2 * X.T @ (X @ theta - T) / 7 + decay + added


@pytest.mark.parametrize(
    ("mistake", "kind", "fields"),
    [
        ("bias too", "term_in_part", {"times": pytest.approx(0.6), "lacks": False}),
        ("too few", "term_in_part", {"times": pytest.approx(0.6), "lacks": True}),
        ("constant", "constant_in_part", {"constant": pytest.approx(0.1)}),
    ],
)
def test_a_term_in_some_entries_only(mistake, kind, fields):
    theta = RNG.normal(size=4)
    assert sa.check_gradient(ridge, ridge_gradient, theta).ok
    report = sa.check_gradient(ridge, lambda p: ridge_gradient(p, mistake), theta)
    assert has(report.rows[0], kind, **fields), str(report)
    assert report.rows[0].rule == "term"


class Gated:
    """A loop that takes a part of an array at each turn, and carries two values."""

    def __init__(self, W, mistake=""):
        self.params, self.mistake = [W], mistake
        self.grads = [np.zeros_like(W)]

    def forward(self, x):
        (W,), h, c, self.cache = self.params, np.zeros(2), np.zeros(2), []
        for t in range(4):
            a = x[t] + W @ h
            i, o = 1 / (1 + np.exp(-a[:2])), np.tanh(a[2:])
            self.cache.append((h, c, i, o))
            c = 0.5 * c + i
            h = o * c
        return h

    def backward(self, dout):
        (W,), dx, dW, dh, dc = self.params, np.zeros((4, 4)), 0, dout, 0
        for t in reversed(range(4)):
            h, c, i, o = self.cache[t]
            c = 0.5 * c + i
            if self.mistake == "nothing carried" and t < 3:
                dh, dc = 0 * dh, 0 * dc
            dc = dc + dh * o
            of_i = {"bare": 1, "other": o * (1 - o)}.get(self.mistake, i * (1 - i))
            dx[t] = np.concatenate([dc * of_i, dh * c * (1 - o**2)])
            dW, dh, dc = dW + np.outer(dx[t], h), W.T @ dx[t], 0.5 * dc
        self.grads[0][...] = dW
        return dx


@pytest.mark.parametrize(
    ("mistake", "kind"),
    [
        ("", None),
        ("bare", "right_with"),
        ("other", "right_with"),
        ("nothing carried", "not_carried"),
    ],
)
def test_what_a_loop_takes_by_an_index_is_the_same_at_each_turn(mistake, kind):
    report = sa.check_layer(Gated(RNG.normal(size=(4, 2)), mistake), RNG.normal(size=(4, 4)))
    assert report.ok == (kind is None), str(report)
    assert all(has(row, kind) for row in report.rows if kind), str(report)


KEPT = RNG.random((3, 5)) > 0.4


def pooled(x):
    masked = np.array([x[t] * KEPT[t] for t in range(3)])
    return np.array([np.max(masked[t] + x[t]) for t in range(3)])


def pooled_backward(dout, x, mistake):
    dx = np.zeros_like(x)
    for t in range(3):
        v = x[t] * KEPT[t] + x[t]
        most = {"average": np.full(5, 0.2), "least": v == v.min()}.get(mistake, v == v.max())
        d = dout[t] * (np.ones(5) if mistake == "sum" else most)
        dx[t] = d + d * KEPT[t]
    return dx


@pytest.mark.parametrize(
    ("mistake", "kind", "fields"),
    [
        ("", None, {}),
        ("average", "right_with", {}),
        ("least", "right_with", {}),
        ("sum", "right_with", {}),
    ],
)
def test_maxima_and_masks(mistake, kind, fields):
    x = np.arange(15.0).reshape(3, 5)[:, ::-1] / 7 - RNG.random((3, 5))
    backward = lambda dout, x: pooled_backward(dout, x, mistake)  # noqa: E731
    report = sa.check_backward(pooled, backward, x)
    assert report.ok == (kind is None), str(report)
    assert not kind or has(report.rows[0], kind, **fields), str(report)
