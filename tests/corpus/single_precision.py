"""float32 everywhere, as on a GPU."""

import numpy as np

from corpus.check import layer


class Dense32:
    def __init__(self, W, b):
        W, b = W.astype(np.float32), b.astype("f")
        self.params = [W, b]
        self.grads = [np.zeros_like(W), np.zeros_like(b)]

    def forward(self, x):
        W, b = self.params
        self.x = x
        z = np.dot(x, W) + b
        self.y = 1 / (1 + np.exp(-z))
        return self.y

    def backward(self, dy):
        W, _ = self.params
        dz = dy * self.y * (1 - self.y)
        self.grads[0][...] = np.dot(self.x.T, dz)
        self.grads[1][...] = np.sum(dz, axis=0)
        return np.dot(dz, W.T)


class Scale32:
    def __init__(self, gamma, beta):
        self.gamma = gamma.astype(np.float32)
        self.beta = beta.astype(np.float32)

    def forward(self, x):
        self.x = x.astype(np.float32)
        return self.gamma * self.x + self.beta

    def backward(self, dout):
        self.dgamma = (dout * self.x).sum(axis=0)
        self.dbeta = dout.sum(axis=0)
        return dout * self.gamma


CHECKS = {
    "dense_float32": lambda rng, s: layer(
        Dense32(rng.normal(size=(s.d, s.h)), rng.normal(size=s.h)),
        rng.normal(size=(s.n, s.d)).astype(np.float32),
    ),
    "scale_float32": lambda rng, s: layer(
        Scale32(rng.normal(size=s.d), rng.normal(size=s.d)),
        rng.normal(size=(s.n, s.d)).astype(np.float32),
    ),
}
