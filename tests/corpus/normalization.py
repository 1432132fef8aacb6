"""Normalisation as classes."""

# ruff: noqa: NPY002, RUF059
import numpy as np

from corpus.check import layer


class BatchNormalization:
    """http://arxiv.org/abs/1502.03167"""

    def __init__(self, gamma, beta, momentum=0.9, running_mean=None, running_var=None):
        self.gamma = gamma
        self.beta = beta
        self.momentum = momentum
        self.input_shape = None

        # テスト時に使用する平均と分散
        self.running_mean = running_mean
        self.running_var = running_var

        self.batch_size = None
        self.xc = None
        self.xn = None
        self.std = None
        self.dgamma = None
        self.dbeta = None

    def forward(self, x, train_flg=True):
        if self.running_mean is None:
            N, D = x.shape
            self.running_mean = np.zeros(D)
            self.running_var = np.zeros(D)

        if train_flg:
            mu = x.mean(axis=0)
            xc = x - mu
            var = np.mean(xc**2, axis=0)
            std = np.sqrt(var + 10e-7)
            xn = xc / std

            self.batch_size = x.shape[0]
            self.xc = xc
            self.xn = xn
            self.std = std
            self.running_mean = self.momentum * self.running_mean + (1 - self.momentum) * mu
            self.running_var = self.momentum * self.running_var + (1 - self.momentum) * var
        else:
            xc = x - self.running_mean
            xn = xc / (np.sqrt(self.running_var + 10e-7))

        out = self.gamma * xn + self.beta
        return out

    def backward(self, dout):
        dbeta = dout.sum(axis=0)
        dgamma = np.sum(self.xn * dout, axis=0)
        dxn = self.gamma * dout
        dxc = dxn / self.std
        dstd = -np.sum((dxn * self.xc) / (self.std * self.std), axis=0)
        dvar = 0.5 * dstd / self.std
        dxc += (2.0 / self.batch_size) * self.xc * dvar
        dmu = np.sum(dxc, axis=0)
        dx = dxc - dmu / self.batch_size

        self.dgamma = dgamma
        self.dbeta = dbeta
        return dx


class LayerNorm:
    def __init__(self, dim, eps=1e-5):
        self.eps = eps
        self.params = {"gain": np.ones(dim), "shift": np.zeros(dim)}
        self.grads = {"gain": np.zeros(dim), "shift": np.zeros(dim)}

    def forward(self, x):
        mean = x.mean(-1, keepdims=True)
        var = x.var(-1, keepdims=True)
        self.rstd = (var + self.eps) ** -0.5
        self.norm = (x - mean) * self.rstd
        return self.norm * self.params["gain"] + self.params["shift"]

    def backward(self, dout):
        axes = tuple(range(dout.ndim - 1))
        self.grads["shift"] = dout.sum(axis=axes)
        self.grads["gain"] = (dout * self.norm).sum(axis=axes)
        dnorm = dout * self.params["gain"]
        dx = dnorm - dnorm.mean(-1, keepdims=True)
        dx = dx - self.norm * (dnorm * self.norm).mean(-1, keepdims=True)
        return dx * self.rstd


class RMSNorm:
    def __init__(self, g):
        self.g = g
        self.dg = None

    def forward(self, x):
        self.x = x
        self.inv = 1.0 / np.sqrt(np.mean(x**2, axis=-1, keepdims=True) + 1e-6)
        return self.g * x * self.inv

    def backward(self, dy):
        x, inv = self.x, self.inv
        self.dg = np.sum(dy * x * inv, axis=0)
        gdy = self.g * dy
        dot = np.mean(gdy * x, axis=-1, keepdims=True)
        return inv * gdy - inv**3 * x * dot


class Dropout:
    """http://arxiv.org/abs/1207.0580"""

    def __init__(self, dropout_ratio=0.5):
        self.params, self.grads = [], []
        self.dropout_ratio = dropout_ratio
        self.mask = None

    def forward(self, x, train_flg=True):
        if train_flg:
            flg = np.random.rand(*x.shape) > self.dropout_ratio
            scale = 1 / (1.0 - self.dropout_ratio)
            self.mask = flg.astype(np.float64) * scale
            return x * self.mask
        return x

    def backward(self, dout):
        return dout * self.mask


class GaussianNoise:
    """Multiplicative noise: x * (1 + sigma * z)."""

    def __init__(self, sigma):
        self.sigma = sigma

    def forward(self, x):
        self.noise = 1 + self.sigma * np.random.standard_normal(x.shape)
        return x * self.noise

    def backward(self, dout):
        return dout * self.noise


CHECKS = {
    "batch_normalization": lambda rng, s: layer(
        BatchNormalization(rng.normal(size=s.d), rng.normal(size=s.d)), rng.normal(size=(s.n, s.d))
    ),
    "layer_norm": lambda rng, s: layer(LayerNorm(s.d), rng.normal(size=(s.n, s.t, s.d))),
    "rms_norm": lambda rng, s: layer(RMSNorm(rng.normal(size=s.d)), rng.normal(size=(s.n, s.d))),
    "dropout": lambda rng, s: layer(Dropout(0.4), rng.normal(size=(s.n, s.d))),
    "gaussian_noise": lambda rng, s: layer(GaussianNoise(0.3), rng.normal(size=(s.n, s.d))),
}
