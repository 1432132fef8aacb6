"""Layers over time that run smaller ones, as classes with lists of params and grads."""
# fmt: off
# ruff: noqa

import numpy as np

import spiral_autograd as sa
from strangers import wrong


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
        dt = dh_next * (1 - h_next ** 2)
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
    def __init__(self, Wx, Wh, b):
        self.params = [Wx, Wh, b]
        self.grads = [np.zeros_like(Wx), np.zeros_like(Wh), np.zeros_like(b)]
        self.layers = None

    def forward(self, xs):
        Wx, Wh, b = self.params
        N, T, D = xs.shape
        D, H = Wx.shape
        self.layers = []
        hs = np.empty((N, T, H), dtype='f')
        hs = hs.astype(xs.dtype)
        h = np.zeros((N, H))
        for t in range(T):
            layer = RNN(*self.params)
            h = layer.forward(xs[:, t, :], h)
            hs[:, t, :] = h
            self.layers.append(layer)
        return hs

    def backward(self, dhs):
        Wx, Wh, b = self.params
        N, T, H = dhs.shape
        D, H = Wx.shape
        dxs = np.empty((N, T, D), dtype=dhs.dtype)
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
        return dxs

def check_time_rnn(budget=10.0):
    r = np.random.RandomState(1)
    return sa.check_layer(TimeRNN(r.randn(3, 3), r.randn(3, 3), r.randn(3)), r.randn(2, 4, 3), budget=budget)


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
        g = A[:, H:2*H]
        i = A[:, 2*H:3*H]
        o = A[:, 3*H:]
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
        ds = dc_next + (dh_next * o) * (1 - tanh_c_next ** 2)
        dc_prev = ds * f
        di = ds * g
        df = ds * c_prev
        do = dh_next * tanh_c_next
        dg = ds * i
        di *= i * (1 - i)
        df *= f * (1 - f)
        do *= o * (1 - o)
        dg *= (1 - g ** 2)
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


class TimeLSTM:
    def __init__(self, Wx, Wh, b):
        self.params = [Wx, Wh, b]
        self.grads = [np.zeros_like(Wx), np.zeros_like(Wh), np.zeros_like(b)]
        self.layers = None

    def forward(self, xs):
        N, T, D = xs.shape
        H = self.params[1].shape[0]
        self.layers = []
        hs = np.zeros((N, T, H))
        h, c = np.zeros((N, H)), np.zeros((N, H))
        for t in range(T):
            layer = LSTM(*self.params)
            h, c = layer.forward(xs[:, t, :], h, c)
            hs[:, t, :] = h
            self.layers.append(layer)
        return hs

    def backward(self, dhs):
        N, T, H = dhs.shape
        D = self.params[0].shape[0]
        dxs = np.zeros((N, T, D))
        dh, dc = 0, 0
        grads = [0, 0, 0]
        for t in reversed(range(T)):
            layer = self.layers[t]
            dx, dh, dc = layer.backward(dhs[:, t, :] + dh, dc)
            dxs[:, t, :] = dx
            for i, grad in enumerate(layer.grads):
                grads[i] += grad
        for i, grad in enumerate(grads):
            self.grads[i][...] = grad
        return dxs

def check_time_lstm(budget=10.0):
    r = np.random.RandomState(2)
    return sa.check_layer(TimeLSTM(r.randn(3, 8), r.randn(2, 8), r.randn(8)), r.randn(2, 3, 3), budget=budget)


class TimeDropoutAffine:
    """Variational dropout: one mask for each step, then an affine layer."""
    def __init__(self, W, b, ratio=0.4):
        self.params = [W, b]
        self.grads = [np.zeros_like(W), np.zeros_like(b)]
        self.ratio = ratio

    def forward(self, xs):
        W, b = self.params
        N, T, D = xs.shape
        self.masks = [np.random.rand(N, D) > self.ratio for _ in range(T)]
        self.xs = xs
        out = np.zeros((N, T, W.shape[1]))
        for t in range(T):
            out[:, t] = np.dot(xs[:, t] * self.masks[t], W) + b
        return out

    def backward(self, dout):
        W, b = self.params
        N, T, D = self.xs.shape
        dxs = np.zeros_like(self.xs)
        dW, db = np.zeros_like(W), np.zeros_like(b)
        for t in range(T):
            dxs[:, t] = np.dot(dout[:, t], W.T) * self.masks[t]
            dW += np.dot((self.xs[:, t] * self.masks[t]).T, dout[:, t])
            db += np.sum(dout[:, t], axis=0)
        self.grads[0][...] = dW
        self.grads[1][...] = db
        return dxs

def check_time_dropout(budget=10.0):
    r = np.random.RandomState(3)
    return sa.check_layer(TimeDropoutAffine(r.randn(4, 3), r.randn(3)), r.randn(3, 4, 4), budget=budget)


CHECKS = {"time_rnn": check_time_rnn, "time_lstm": check_time_lstm, "time_dropout": check_time_dropout}
T_RNN, T_LSTM, T_DROP = "TimeRNN.backward", "TimeLSTM.backward", "TimeDropoutAffine.backward"

MISTAKES = [
    wrong("time_no_carry", "time_rnn", T_RNN, "layer.backward(dhs[:, t, :] + dh)", "layer.backward(dhs[:, t, :])", "not_carried left_out"),
    wrong("time_next_step", "time_rnn", T_RNN, "layer.backward(dhs[:, t, :] + dh)", "layer.backward(dhs[:, (t + 1) % T, :] + dh)", "another_step shifted operand made_from"),
    wrong("time_grads_overwritten", "time_rnn", T_RNN, "grads[i] += grad", "grads[i] = grad", "overwritten only"),
    wrong("time_forward_order", "time_rnn", T_RNN, "for t in reversed(range(T)):", "for t in range(T):", ""),
    wrong("time_dx_first", "time_rnn", T_RNN, "dxs[:, t, :] = dx", "dxs[:, t, :] = dh", "that_of operand"),
    wrong("rnn_h_prev_derivative", "time_rnn", "RNN.backward", "(1 - h_next ** 2)", "(1 - h_prev ** 2)", "taken_as operand"),
    wrong("rnn_no_derivative", "time_rnn", "RNN.backward", "dt = dh_next * (1 - h_next ** 2)", "dt = dh_next", "lost"),
    wrong("rnn_h_next_for_h_prev", "time_rnn", "RNN.backward", "dWh = np.dot(h_prev.T, dt)", "dWh = np.dot(h_next.T, dt)", "operand"),
    wrong("rnn_x_for_h", "time_rnn", "RNN.backward", "dWh = np.dot(h_prev.T, dt)", "dWh = np.dot(x.T, dt)", "operand that_of"),
    wrong("rnn_Wh_not_T", "time_rnn", "RNN.backward", "dh_prev = np.dot(dt, Wh.T)", "dh_prev = np.dot(dt, Wh)", "not_transposed"),
    wrong("rnn_Wx_for_Wh", "time_rnn", "RNN.backward", "dh_prev = np.dot(dt, Wh.T)", "dh_prev = np.dot(dt, Wx.T)", "operand"),
    wrong("rnn_grads_swapped", "time_rnn", "RNN.backward", "self.grads[0][...] = dWx", "self.grads[0][...] = dWh", "that_of"),
    wrong("lstm_c_not_carried", "time_lstm", T_LSTM, "layer.backward(dhs[:, t, :] + dh, dc)", "layer.backward(dhs[:, t, :] + dh, 0)", "not_carried left_out"),
    wrong("lstm_nothing_carried", "time_lstm", T_LSTM, "layer.backward(dhs[:, t, :] + dh, dc)", "layer.backward(dhs[:, t, :], 0)", "not_carried"),
    wrong("lstm_h_not_carried", "time_lstm", T_LSTM, "layer.backward(dhs[:, t, :] + dh, dc)", "layer.backward(dhs[:, t, :], dc)", "not_carried left_out"),
    wrong("lstm_dc_twice", "time_lstm", "LSTM.backward", "dc_prev = ds * f", "dc_prev = 2 * ds * f", "times"),
    wrong("lstm_dc_next_lost", "time_lstm", "LSTM.backward", "ds = dc_next + (dh_next * o)", "ds = (dh_next * o)", "not_carried left_out"),
    wrong("lstm_gates_bare", "time_lstm", "LSTM.backward", "        di *= i * (1 - i)\n        df *= f * (1 - f)\n        do *= o * (1 - o)\n        dg *= (1 - g ** 2)\n", "", "lost", at=("di = ds * g", "df = ds * c_prev", "do = dh_next * tanh_c_next", "dg = ds * i")),
    wrong("lstm_i_bare", "time_lstm", "LSTM.backward", "        di *= i * (1 - i)\n", "", "lost", at=("dg = ds * i", "df *= f * (1 - f)", "di = ds * g")),
    wrong("lstm_i_f_mixed", "time_lstm", "LSTM.backward", "df *= f * (1 - f)", "df *= i * (1 - i)", "taken_as operand"),
    wrong("lstm_g_as_sigmoid", "time_lstm", "LSTM.backward", "dg *= (1 - g ** 2)", "dg *= g * (1 - g)", "taken_as"),
    wrong("lstm_no_tanh_c", "time_lstm", "LSTM.backward", "(dh_next * o) * (1 - tanh_c_next ** 2)", "(dh_next * o)", "lost"),
    wrong("lstm_c_for_tanh_c", "time_lstm", "LSTM.backward", "do = dh_next * tanh_c_next", "do = dh_next * c_next", "operand", "c_next"),
    wrong("lstm_f_of_c_next", "time_lstm", "LSTM.backward", "df = ds * c_prev", "df = ds * c_next", "operand taken_as"),
    wrong("lstm_order", "time_lstm", "LSTM.backward", "np.hstack((df, dg, di, do))", "np.hstack((df, di, dg, do))", "blocks"),
    wrong("dropout_first_mask", "time_dropout", T_DROP, "np.dot(dout[:, t], W.T) * self.masks[t]", "np.dot(dout[:, t], W.T) * self.masks[0]", "operand taken_as same_step"),
    wrong("dropout_unmasked_dW", "time_dropout", T_DROP, "(self.xs[:, t] * self.masks[t]).T", "self.xs[:, t].T", "operand lost"),
    wrong("dropout_db_of_one_step", "time_dropout", T_DROP, "db += np.sum(dout[:, t], axis=0)", "db = np.sum(dout[:, t], axis=0)", "overwritten only the_last"),
    wrong("dropout_mask_from_1", "time_dropout", T_DROP, "np.dot(dout[:, t], W.T) * self.masks[t]", "np.dot(dout[:, t], W.T) * self.masks[t - 1]", "operand taken_as another_step"),
]
