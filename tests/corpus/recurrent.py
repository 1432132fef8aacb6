"""Recurrent cells, and layers over time."""

# ruff: noqa: RUF059
import numpy as np

from corpus.check import layer, pair


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


class RNN:
    def __init__(self, Wx, Wh, b):
        self.params = [Wx, Wh, b]
        self.grads = [np.zeros_like(Wx), np.zeros_like(Wh), np.zeros_like(b)]
        self.cache = None

    def forward(self, x, h_prev):
        Wx, Wh, b = self.params
        t = np.dot(h_prev, Wh) + np.dot(x, Wx) + b
        h_next = np.tanh(t)

        self.cache = (x, h_prev, h_next)
        return h_next

    def backward(self, dh_next):
        Wx, Wh, b = self.params
        x, h_prev, h_next = self.cache

        dt = dh_next * (1 - h_next**2)
        db = np.sum(dt, axis=0)
        dWh = np.dot(h_prev.T, dt)
        dh_prev = np.dot(dt, Wh.T)
        dWx = np.dot(x.T, dt)
        dx = np.dot(dt, Wx.T)

        self.grads[0][...] = dWx
        self.grads[1][...] = dWh
        self.grads[2][...] = db

        return dx, dh_prev


class TimeRNN:
    def __init__(self, Wx, Wh, b, stateful=False):
        self.params = [Wx, Wh, b]
        self.grads = [np.zeros_like(Wx), np.zeros_like(Wh), np.zeros_like(b)]
        self.layers = None

        self.h, self.dh = None, None
        self.stateful = stateful

    def forward(self, xs):
        Wx, Wh, b = self.params
        N, T, D = xs.shape
        D, H = Wx.shape

        self.layers = []
        hs = np.empty((N, T, H), dtype="f8")

        if not self.stateful or self.h is None:
            self.h = np.zeros((N, H), dtype="f8")

        for t in range(T):
            layer = RNN(*self.params)
            self.h = layer.forward(xs[:, t, :], self.h)
            hs[:, t, :] = self.h
            self.layers.append(layer)

        return hs

    def backward(self, dhs):
        Wx, Wh, b = self.params
        N, T, H = dhs.shape
        D, H = Wx.shape

        dxs = np.empty((N, T, D), dtype="f8")
        dh = 0
        grads = [0, 0, 0]
        for t in reversed(range(T)):
            layer = self.layers[t]
            dx, dh = layer.backward(dhs[:, t, :] + dh)
            dxs[:, t, :] = dx

            for i, grad in enumerate(layer.grads):
                grads[i] += grad

        for i, grad in enumerate(grads):
            self.grads[i][...] = grad
        self.dh = dh

        return dxs


class LSTM:
    def __init__(self, Wx, Wh, b):
        self.params = [Wx, Wh, b]
        self.grads = [np.zeros_like(Wx), np.zeros_like(Wh), np.zeros_like(b)]
        self.cache = None

    def forward(self, x, h_prev, c_prev):
        Wx, Wh, b = self.params
        N, H = h_prev.shape

        A = np.dot(x, Wx) + np.dot(h_prev, Wh) + b

        f = A[:, :H]
        g = A[:, H : 2 * H]
        i = A[:, 2 * H : 3 * H]
        o = A[:, 3 * H :]

        f = sigmoid(f)
        g = np.tanh(g)
        i = sigmoid(i)
        o = sigmoid(o)

        c_next = f * c_prev + g * i
        h_next = o * np.tanh(c_next)

        self.cache = (x, h_prev, c_prev, i, f, g, o, c_next)
        return h_next, c_next

    def backward(self, dh_next, dc_next):
        Wx, Wh, b = self.params
        x, h_prev, c_prev, i, f, g, o, c_next = self.cache

        tanh_c_next = np.tanh(c_next)

        ds = dc_next + (dh_next * o) * (1 - tanh_c_next**2)

        dc_prev = ds * f

        di = ds * g
        df = ds * c_prev
        do = dh_next * tanh_c_next
        dg = ds * i

        di *= i * (1 - i)
        df *= f * (1 - f)
        do *= o * (1 - o)
        dg *= 1 - g**2

        dA = np.hstack((df, dg, di, do))

        dWh = np.dot(h_prev.T, dA)
        dWx = np.dot(x.T, dA)
        db = dA.sum(axis=0)

        self.grads[0][...] = dWx
        self.grads[1][...] = dWh
        self.grads[2][...] = db

        dx = np.dot(dA, Wx.T)
        dh_prev = np.dot(dA, Wh.T)

        return dx, dh_prev, dc_prev


class GRUCell:
    """One step; update gate z, reset gate r, candidate n."""

    def __init__(self, rng, n_in, n_hid):
        self.parameters = {
            "Wz": rng.normal(size=(n_in, n_hid)),
            "Uz": rng.normal(size=(n_hid, n_hid)),
            "Wr": rng.normal(size=(n_in, n_hid)),
            "Ur": rng.normal(size=(n_hid, n_hid)),
            "Wn": rng.normal(size=(n_in, n_hid)),
            "Un": rng.normal(size=(n_hid, n_hid)),
            "bn": rng.normal(size=n_hid),
        }
        self.gradients = {k: np.zeros_like(v) for k, v in self.parameters.items()}

    def forward(self, x, h):
        p = self.parameters
        z = sigmoid(x @ p["Wz"] + h @ p["Uz"])
        r = sigmoid(x @ p["Wr"] + h @ p["Ur"])
        rh = r * h
        n = np.tanh(x @ p["Wn"] + rh @ p["Un"] + p["bn"])
        h_new = (1 - z) * h + z * n
        self.saved = (x, h, z, r, rh, n)
        return h_new

    def backward(self, dh_new):
        p, g = self.parameters, self.gradients
        x, h, z, r, rh, n = self.saved

        dz = dh_new * (n - h)
        dn = dh_new * z
        dh = dh_new * (1 - z)

        # candidate
        dn_raw = dn * (1 - n * n)
        g["Wn"] = x.T @ dn_raw
        g["Un"] = rh.T @ dn_raw
        g["bn"] = dn_raw.sum(axis=0)
        drh = dn_raw @ p["Un"].T
        dr = drh * h
        dh = dh + drh * r

        # gates
        dz_raw = dz * z * (1 - z)
        g["Wz"] = x.T @ dz_raw
        g["Uz"] = h.T @ dz_raw
        dr_raw = dr * r * (1 - r)
        g["Wr"] = x.T @ dr_raw
        g["Ur"] = h.T @ dr_raw
        dh = dh + dz_raw @ p["Uz"].T + dr_raw @ p["Ur"].T

        dx = dn_raw @ p["Wn"].T + dz_raw @ p["Wz"].T + dr_raw @ p["Wr"].T
        return dx, dh


def rnn_forward(x, h0, Wx, Wh, b):
    """The whole sequence as a pair of functions: x is (N, T, D)."""
    N, T, D = x.shape
    hs = np.zeros((N, T, h0.shape[1]))
    prev = h0
    for t in range(T):
        prev = np.tanh(x[:, t].dot(Wx) + prev.dot(Wh) + b)
        hs[:, t] = prev
    return hs, (x, h0, Wx, Wh, b, hs)


def rnn_backward(dh, cache):
    x, h0, Wx, Wh, b, hs = cache
    N, T, D = x.shape
    dx = np.zeros_like(x)
    dWx, dWh, db = np.zeros_like(Wx), np.zeros_like(Wh), np.zeros_like(b)
    dprev = np.zeros_like(h0)
    for t in range(T - 1, -1, -1):
        before = hs[:, t - 1] if t > 0 else h0
        dnow = dh[:, t] + dprev
        draw = dnow * (1 - hs[:, t] ** 2)
        dx[:, t] = draw.dot(Wx.T)
        dprev = draw.dot(Wh.T)
        dWx += x[:, t].T.dot(draw)
        dWh += before.T.dot(draw)
        db += draw.sum(axis=0)
    return dx, dprev, dWx, dWh, db


def _weights(rng, s, gates=1):
    return (
        rng.normal(size=(s.d, gates * s.h)),
        rng.normal(size=(s.h, gates * s.h)),
        rng.normal(size=gates * s.h),
    )


CHECKS = {
    "rnn": lambda rng, s: layer(
        RNN(*_weights(rng, s)), rng.normal(size=(s.n, s.d)), rng.normal(size=(s.n, s.h))
    ),
    "time_rnn": lambda rng, s: layer(TimeRNN(*_weights(rng, s)), rng.normal(size=(s.n, s.t, s.d))),
    "lstm": lambda rng, s: layer(
        LSTM(*_weights(rng, s, 4)),
        rng.normal(size=(s.n, s.d)),
        rng.normal(size=(s.n, s.h)),
        rng.normal(size=(s.n, s.h)),
    ),
    "gru": lambda rng, s: layer(
        GRUCell(rng, s.d, s.h), rng.normal(size=(s.n, s.d)), rng.normal(size=(s.n, s.h))
    ),
    "rnn_pair": lambda rng, s: pair(
        rnn_forward,
        rnn_backward,
        rng.normal(size=(s.n, s.t, s.d)),
        rng.normal(size=(s.n, s.h)),
        *_weights(rng, s),
    ),
}
