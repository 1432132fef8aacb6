"""Activations, as classes without parameters and as one pair of functions each."""

# ruff: noqa: RUF059
import numpy as np

from corpus.check import layer, pair


class Sigmoid:
    def __init__(self):
        self.params, self.grads = [], []
        self.out = None

    def forward(self, x):
        out = 1 / (1 + np.exp(-x))
        self.out = out
        return out

    def backward(self, dout):
        dx = dout * (1.0 - self.out) * self.out
        return dx


class Tanh:
    def forward(self, x):
        self.y = np.tanh(x)
        return self.y

    def backward(self, dy):
        return dy * (1 - self.y * self.y)


class Relu:
    def __init__(self):
        self.mask = None

    def forward(self, x):
        self.mask = x <= 0
        out = x.copy()
        out[self.mask] = 0
        return out

    def backward(self, dout):
        dout = dout.copy()
        dout[self.mask] = 0
        dx = dout
        return dx


class LeakyReLU:
    def __init__(self, alpha=0.01):
        self.alpha = alpha

    def forward(self, inputs):
        self.inputs = inputs
        return np.where(inputs > 0, inputs, self.alpha * inputs)

    def backward(self, grad):
        slope = np.where(self.inputs > 0, 1.0, self.alpha)
        return grad * slope


class PReLU:
    """The slope on the left is learned, one for each channel."""

    def __init__(self, alpha):
        self.alpha = alpha
        self.dalpha = np.zeros_like(alpha)

    def forward(self, x):
        self.x = x
        return np.maximum(x, 0) + self.alpha * np.minimum(x, 0)

    def backward(self, dy):
        negative = self.x < 0
        self.dalpha = np.sum(dy * np.minimum(self.x, 0), axis=0)
        return dy * np.where(negative, self.alpha, 1.0)


class Softmax:
    def __init__(self):
        self.params, self.grads = [], []
        self.out = None

    def forward(self, x):
        x = x - np.max(x, axis=1, keepdims=True)
        e = np.exp(x)
        self.out = e / np.sum(e, axis=1, keepdims=True)
        return self.out

    def backward(self, dout):
        dx = self.out * dout
        sumdx = np.sum(dx, axis=1, keepdims=True)
        dx -= self.out * sumdx
        return dx


class GELU:
    """The tanh approximation."""

    def forward(self, x):
        self.x = x
        self.u = np.sqrt(2 / np.pi) * (x + 0.044715 * x**3)
        self.t = np.tanh(self.u)
        return 0.5 * x * (1 + self.t)

    def backward(self, dout):
        x, t = self.x, self.t
        du = np.sqrt(2 / np.pi) * (1 + 3 * 0.044715 * x**2)
        dt = (1 - t**2) * du
        return dout * (0.5 * (1 + t) + 0.5 * x * dt)


class Swish:
    def forward(self, x):
        self.x = x
        self.sig = 1.0 / (1.0 + np.exp(-x))
        return x * self.sig

    def backward(self, dy):
        s = self.sig
        return dy * (s + self.x * s * (1 - s))


class ELU:
    def __init__(self, alpha=1.5):
        self.alpha = alpha

    def forward(self, x):
        self.x = x
        self.y = np.where(x > 0, x, self.alpha * (np.exp(x) - 1))
        return self.y

    def backward(self, dy):
        left = self.y + self.alpha
        return np.where(self.x > 0, dy, dy * left)


def softplus_forward(z):
    out = np.log(1 + np.exp(z))
    cache = z
    return out, cache


def softplus_backward(dout, cache):
    z = cache
    return dout / (1 + np.exp(-z))


def l2_normalize_forward(x):
    """Rows of length one."""
    norm = np.sqrt(np.sum(x * x, axis=1, keepdims=True))
    y = x / norm
    return y, (x, norm, y)


def l2_normalize_backward(dy, cache):
    x, norm, y = cache
    inner = np.sum(dy * y, axis=1, keepdims=True)
    dx = (dy - y * inner) / norm
    return dx


def glu_forward(a, b):
    """Gated linear unit: a * sigmoid(b)."""
    gate = 1 / (1 + np.exp(-b))
    return a * gate, (a, gate)


def glu_backward(dout, cache):
    a, gate = cache
    da = dout * gate
    db = dout * a * gate * (1 - gate)
    return da, db


def _x(rng, s):
    return rng.normal(size=(s.n, s.d))


CHECKS = {
    "sigmoid": lambda rng, s: layer(Sigmoid(), _x(rng, s)),
    "tanh": lambda rng, s: layer(Tanh(), _x(rng, s)),
    "relu": lambda rng, s: layer(Relu(), _x(rng, s)),
    "leaky_relu": lambda rng, s: layer(LeakyReLU(), _x(rng, s)),
    "prelu": lambda rng, s: layer(PReLU(rng.uniform(0.1, 0.5, s.d)), _x(rng, s)),
    "softmax": lambda rng, s: layer(Softmax(), rng.normal(size=(s.n, s.c))),
    "gelu": lambda rng, s: layer(GELU(), _x(rng, s)),
    "swish": lambda rng, s: layer(Swish(), _x(rng, s)),
    "elu": lambda rng, s: layer(ELU(), _x(rng, s)),
    "softplus": lambda rng, s: pair(softplus_forward, softplus_backward, _x(rng, s)),
    "l2_normalize": lambda rng, s: pair(l2_normalize_forward, l2_normalize_backward, _x(rng, s)),
    "glu": lambda rng, s: pair(glu_forward, glu_backward, _x(rng, s), _x(rng, s)),
    # for the kinks: x is 0 in places
    "relu_at_zero": lambda rng, s: layer(Relu(), np.maximum(_x(rng, s), 0)),
    "leaky_relu_at_zero": lambda rng, s: layer(LeakyReLU(), np.round(_x(rng, s))),
    "prelu_at_zero": lambda rng, s: layer(PReLU(np.full(s.d, 0.25)), np.round(_x(rng, s))),
}
