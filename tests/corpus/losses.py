"""Losses: forward(x, t) -> number, backward(dout=1)."""

import numpy as np

from corpus.check import gradient, layer

IDEALISED = ("exact", "match", "idealised")


def softmax(x):
    if x.ndim == 2:
        x = x - x.max(axis=1, keepdims=True)
        x = np.exp(x)
        x /= x.sum(axis=1, keepdims=True)
    elif x.ndim == 1:
        x = x - np.max(x)
        x = np.exp(x) / np.sum(np.exp(x))
    return x


def cross_entropy_error(y, t):
    if y.ndim == 1:
        t = t.reshape(1, t.size)
        y = y.reshape(1, y.size)

    # 教師データが one-hot-vector の場合, 正解ラベルのインデックスに変換
    if t.size == y.size:
        t = t.argmax(axis=1)

    batch_size = y.shape[0]
    return -np.sum(np.log(y[np.arange(batch_size), t] + 1e-7)) / batch_size


class SoftmaxWithLoss:
    def __init__(self):
        self.params, self.grads = [], []
        self.y = None  # softmax の出力
        self.t = None  # 教師ラベル

    def forward(self, x, t):
        self.t = t
        self.y = softmax(x)

        if self.t.size == self.y.size:
            self.t = self.t.argmax(axis=1)

        loss = cross_entropy_error(self.y, self.t)
        return loss

    def backward(self, dout=1):
        batch_size = self.t.shape[0]

        dx = self.y.copy()
        dx[np.arange(batch_size), self.t] -= 1
        dx *= dout
        dx = dx / batch_size

        return dx


class SigmoidWithLoss:
    def __init__(self):
        self.params, self.grads = [], []
        self.loss = None
        self.y = None
        self.t = None

    def forward(self, x, t):
        self.t = t
        self.y = 1 / (1 + np.exp(-x))

        self.loss = cross_entropy_error(np.c_[1 - self.y, self.y], self.t)

        return self.loss

    def backward(self, dout=1):
        batch_size = self.t.shape[0]

        dx = (self.y - self.t) * dout / batch_size
        return dx


class MSELoss:
    def forward(self, y_pred, y_true):
        self.diff = y_pred - y_true
        return np.mean(self.diff**2)

    def backward(self, dout=1.0):
        return dout * 2 * self.diff / self.diff.size


class CrossEntropyLoss:
    """Log-softmax and negative log likelihood, exact: no small constant."""

    def forward(self, logits, labels):
        shifted = logits - logits.max(axis=1, keepdims=True)
        self.logp = shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))
        self.labels = labels
        return -self.logp[np.arange(len(labels)), labels].mean()

    def backward(self, dout=1.0):
        n = len(self.labels)
        g = np.exp(self.logp)
        g[np.arange(n), self.labels] -= 1.0
        return dout * g / n


class HuberLoss:
    def __init__(self, delta=0.7):
        self.delta = delta

    def forward(self, y, t):
        self.r = y - t
        small = np.abs(self.r) <= self.delta
        values = np.where(small, 0.5 * self.r**2, self.delta * (np.abs(self.r) - self.delta / 2))
        return values.sum() / len(y)

    def backward(self, dout=1.0):
        small = np.abs(self.r) <= self.delta
        g = np.where(small, self.r, self.delta * np.sign(self.r))
        return dout * g / len(self.r)


# ---- two losses as one function that gives (loss, gradient), as in the CS231n assignments


def softmax_loss(x, y):
    shifted_logits = x - np.max(x, axis=1, keepdims=True)
    Z = np.sum(np.exp(shifted_logits), axis=1, keepdims=True)
    log_probs = shifted_logits - np.log(Z)
    probs = np.exp(log_probs)
    N = x.shape[0]
    loss = -np.sum(log_probs[np.arange(N), y]) / N
    dx = probs.copy()
    dx[np.arange(N), y] -= 1
    dx /= N
    return loss, dx


def svm_loss(x, y):
    N = x.shape[0]
    correct_class_scores = x[np.arange(N), y]
    margins = np.maximum(0, x - correct_class_scores[:, np.newaxis] + 1.0)
    not_the_class = np.arange(x.shape[1]) != y[:, np.newaxis]
    margins = margins * not_the_class
    loss = np.sum(margins) / N
    num_pos = np.sum(margins > 0, axis=1)
    dx = np.zeros_like(x)
    dx[margins > 0] = 1
    dx[np.arange(N), y] -= num_pos
    dx /= N
    return loss, dx


def softmax_loss_value(x, y):
    return softmax_loss(x, y)[0]


def svm_loss_value(x, y):
    return svm_loss(x, y)[0]


def _scores(rng, s):
    return rng.normal(size=(s.n, s.c)), rng.integers(s.c, size=s.n)


CHECKS = {
    "softmax_with_loss": lambda rng, s: layer(
        SoftmaxWithLoss(), *_scores(rng, s), verdicts=IDEALISED
    ),
    "softmax_with_loss_one_hot": lambda rng, s: layer(
        SoftmaxWithLoss(),
        rng.normal(size=(s.n, s.c)),
        np.eye(s.c)[rng.integers(s.c, size=s.n)],
        verdicts=IDEALISED,
    ),
    "sigmoid_with_loss": lambda rng, s: layer(
        SigmoidWithLoss(), rng.normal(size=s.n), rng.integers(2, size=s.n), verdicts=IDEALISED
    ),
    "mse": lambda rng, s: layer(
        MSELoss(), rng.normal(size=(s.n, s.h)), rng.normal(size=(s.n, s.h)), verdicts=IDEALISED
    ),
    "cross_entropy": lambda rng, s: layer(CrossEntropyLoss(), *_scores(rng, s)),
    "huber": lambda rng, s: layer(HuberLoss(), rng.normal(size=s.n), rng.normal(size=s.n)),
    "softmax_loss": lambda rng, s: gradient(softmax_loss_value, softmax_loss, *_scores(rng, s)),
    "svm_loss": lambda rng, s: gradient(svm_loss_value, svm_loss, *_scores(rng, s)),
}
