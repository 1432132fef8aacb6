"""Attention, three times."""

import numpy as np

from corpus.check import layer, pair


def softmax(a, axis=-1):
    e = np.exp(a - a.max(axis=axis, keepdims=True))
    return e / e.sum(axis=axis, keepdims=True)


def attention_forward(Q, K, V):
    """softmax(Q K^T / sqrt(d)) V, batched: Q (B, T, d)"""
    scale = 1.0 / np.sqrt(Q.shape[-1])
    S = Q @ K.transpose(0, 2, 1) * scale
    P = softmax(S)
    O = P @ V  # noqa: E741
    return O, (Q, K, V, P, scale)


def attention_backward(dO, cache):
    Q, K, V, P, scale = cache
    dV = P.transpose(0, 2, 1) @ dO
    dP = dO @ V.transpose(0, 2, 1)
    dS = P * (dP - np.sum(dP * P, axis=-1, keepdims=True))
    dS = dS * scale
    dQ = dS @ K
    dK = dS.transpose(0, 2, 1) @ Q
    return dQ, dK, dV


class SelfAttention:
    """One head on one sequence (T, d); attributes Wq, Wk, Wv."""

    def __init__(self, Wq, Wk, Wv):
        self.Wq, self.Wk, self.Wv = Wq, Wk, Wv

    def forward(self, X):
        self.X = X
        self.q = X @ self.Wq
        self.k = X @ self.Wk
        self.v = X @ self.Wv
        logits = self.q @ self.k.T / np.sqrt(self.q.shape[1])
        self.a = softmax(logits)
        return self.a @ self.v

    def backward(self, dY):
        da = dY @ self.v.T
        dv = self.a.T @ dY
        dlogits = self.a * (da - (da * self.a).sum(axis=1, keepdims=True))
        dlogits /= np.sqrt(self.q.shape[1])
        dq = dlogits @ self.k
        dk = dlogits.T @ self.q
        self.dWq = self.X.T @ dq
        self.dWk = self.X.T @ dk
        self.dWv = self.X.T @ dv
        dX = dq @ self.Wq.T + dk @ self.Wk.T + dv @ self.Wv.T
        return dX


class WeightSum:
    """系列 hs を重み a で足し合わせる"""

    def __init__(self):
        self.params, self.grads = [], []
        self.cache = None

    def forward(self, hs, a):
        N, T, H = hs.shape

        ar = a.reshape(N, T, 1).repeat(H, axis=2)
        t = hs * ar
        c = np.sum(t, axis=1)

        self.cache = (hs, ar)
        return c

    def backward(self, dc):
        hs, ar = self.cache
        N, T, H = hs.shape
        dt = dc.reshape(N, 1, H).repeat(T, axis=1)
        dar = dt * hs
        dhs = dt * ar
        da = np.sum(dar, axis=2)

        return dhs, da


def _qkv(rng, s):
    return [rng.normal(size=(2, s.t, s.d)) for _ in range(3)]


CHECKS = {
    "attention": lambda rng, s: pair(attention_forward, attention_backward, *_qkv(rng, s)),
    "self_attention": lambda rng, s: layer(
        SelfAttention(*(rng.normal(size=(s.d, s.h)) for _ in range(3))),
        rng.normal(size=(s.t + 1, s.d)),
    ),
    "weight_sum": lambda rng, s: layer(
        WeightSum(), rng.normal(size=(s.n, s.t, s.h)), rng.normal(size=(s.n, s.t))
    ),
}
