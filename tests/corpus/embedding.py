"""Lookup tables."""

import numpy as np

from corpus.check import layer, pair


class Embedding:
    def __init__(self, W):
        self.params = [W]
        self.grads = [np.zeros_like(W)]
        self.idx = None

    def forward(self, idx):
        (W,) = self.params
        self.idx = idx
        out = W[idx]
        return out

    def backward(self, dout):
        (dW,) = self.grads
        dW[...] = 0
        np.add.at(dW, self.idx, dout)
        return None


class EmbeddingDot:
    """h と idx 番目の行の内積"""

    def __init__(self, W):
        self.embed = Embedding(W)
        self.params = self.embed.params
        self.grads = self.embed.grads
        self.cache = None

    def forward(self, h, idx):
        target_W = self.embed.forward(idx)
        out = np.sum(target_W * h, axis=1)
        self.cache = (h, target_W)
        return out

    def backward(self, dout):
        h, target_W = self.cache
        dout = dout.reshape(dout.shape[0], 1)

        dtarget_W = dout * h
        self.embed.backward(dtarget_W)
        dh = dout * target_W
        return dh


def word_embedding_forward(x, W):
    out = W[x]
    return out, (x, W)


def word_embedding_backward(dout, cache):
    x, W = cache
    dW = np.zeros_like(W)
    np.add.at(dW, x, dout)
    return None, dW


CHECKS = {
    "embedding": lambda rng, s: layer(
        Embedding(rng.normal(size=(s.c, s.d))), rng.integers(s.c, size=(s.n, s.t))
    ),
    "embedding_dot": lambda rng, s: layer(
        EmbeddingDot(rng.normal(size=(s.c, s.d))),
        rng.normal(size=(s.n, s.d)),
        rng.integers(s.c, size=s.n),
    ),
    "word_embedding": lambda rng, s: pair(
        word_embedding_forward,
        word_embedding_backward,
        rng.integers(s.c, size=(s.n, s.t)),
        rng.normal(size=(s.c, s.d)),
    ),
}
