"""Long and deep layers, right, and with one of four mistakes each."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..spiral import Array

MISTAKES = (
    "the state of the next step",
    "carried over three steps only",
    "1 - h for 1 - h²",
    "a row of a weight's gradient 5 % off",
)
NEXT, CUT, SLOPE, SHARE = MISTAKES


class Recurrence:
    """Read h = tanh(x_t Wx + h Wh), and return the last state."""

    def __init__(self, steps: int, width: int, dtype: Any, wrong: str = "") -> None:
        rng = np.random.default_rng(0)
        self.Wx = (rng.normal(size=(4, width)) / 2).astype(dtype)
        self.Wh = (rng.normal(size=(width, width)) / width**0.5).astype(dtype)
        self.wrong = wrong

    @staticmethod
    def data(steps: int, width: int, dtype: Any) -> Array:
        """Return sequences of that length."""
        return np.random.default_rng(1).normal(size=(3, steps, 4)).astype(dtype)

    def forward(self, x: Array) -> Array:
        """Return the last state."""
        self.x, self.hs = x, [np.zeros((len(x), self.Wh.shape[0]), x.dtype)]
        for t in range(x.shape[1]):
            self.hs.append(np.tanh(x[:, t] @ self.Wx + self.hs[-1] @ self.Wh))
        return self.hs[-1]

    def backward(self, dh: Array) -> Array:
        """Keep the gradients of the weights, and return that of x."""
        self.dWx, self.dWh = np.zeros_like(self.Wx), np.zeros_like(self.Wh)
        dx, steps = np.zeros_like(self.x), self.x.shape[1]
        for t in reversed(range(steps)):
            h = self.hs[t + 1]
            da = dh * (1 - (h if self.wrong == SLOPE else h * h))
            self.dWx += self.x[:, t].T @ da
            self.dWh += self.hs[t + (self.wrong == NEXT)].T @ da
            dx[:, t] = da @ self.Wx.T
            dh = 0 * dh if self.wrong == CUT and t == steps - 3 else da @ self.Wh.T
        if self.wrong == SHARE:
            self.dWh[0] *= 1.05
        return dx


class LSTM:
    """One matrix for the four gates of [x_t, h], and no bias; return the last state."""

    data = Recurrence.data

    def __init__(self, steps: int, width: int, dtype: Any, wrong: str = "") -> None:
        rng = np.random.default_rng(0)
        self.W = (rng.normal(size=(4 + width, 4 * width)) / (4 + width) ** 0.5).astype(dtype)
        self.wrong = wrong

    def forward(self, x: Array) -> Array:
        """Return the last hidden state."""
        h = c = np.zeros((len(x), self.W.shape[1] // 4), x.dtype)
        self.x, self.steps = x, []
        for t in range(x.shape[1]):
            read = np.concatenate([x[:, t], h], axis=1)
            f, i, o, g = np.split(read @ self.W, 4, axis=1)
            f, i, o, g = _sigmoid(f), _sigmoid(i), _sigmoid(o), np.tanh(g)
            before, c = c, f * c + i * g
            h = o * np.tanh(c)
            self.steps.append((read, f, i, o, g, before, c))
        return h

    def backward(self, dh: Array) -> Array:
        """Keep the gradient of the weights, and return that of x."""
        self.dW, dx, dc = np.zeros_like(self.W), np.zeros_like(self.x), 0 * dh
        last = len(self.steps) - 1
        for t in range(last, -1, -1):
            read, f, i, o, g, before, c = self.steps[t]
            through = np.tanh(c)
            dc = dc + dh * o * (1 - (through if self.wrong == SLOPE else through**2))
            old = c if self.wrong == NEXT else before
            parts = dc * old * f * (1 - f), dc * g * i * (1 - i), dh * through * o * (1 - o)
            da = np.concatenate([*parts, dc * i * (1 - g**2)], axis=1)
            self.dW += read.T @ da
            dx[:, t], dh = np.split(da @ self.W.T, [self.x.shape[2]], axis=1)
            dc = dc * f
            if self.wrong == CUT and t == last - 2:
                dh, dc = 0 * dh, 0 * dc
        if self.wrong == SHARE:
            self.dW[0] *= 1.05
        return dx


class GRU:
    """Two gates and a candidate, each of x_t and h; return the last state."""

    data = Recurrence.data

    def __init__(self, steps: int, width: int, dtype: Any, wrong: str = "") -> None:
        rng, wide = np.random.default_rng(0), (4 + width, width)
        self.Wz, self.Wr, self.Wn = (
            (rng.normal(size=wide) / wide[0] ** 0.5).astype(dtype) for _ in range(3)
        )
        self.wrong = wrong

    def forward(self, x: Array) -> Array:
        """Return the last state."""
        h, self.x, self.steps = np.zeros((len(x), self.Wz.shape[1]), x.dtype), x, []
        for t in range(x.shape[1]):
            read = np.concatenate([x[:, t], h], axis=1)
            z, r = _sigmoid(read @ self.Wz), _sigmoid(read @ self.Wr)
            gated = np.concatenate([x[:, t], r * h], axis=1)
            n = np.tanh(gated @ self.Wn)
            before, h = h, (1 - z) * n + z * h
            self.steps.append((read, gated, z, r, n, before, h))
        return h

    def backward(self, dh: Array) -> Array:
        """Keep the gradients of the weights, and return that of x."""
        self.dWz, self.dWr, self.dWn = (np.zeros_like(W) for W in (self.Wz, self.Wr, self.Wn))
        dx, last, inputs = np.zeros_like(self.x), len(self.steps) - 1, self.x.shape[2]
        for t in range(last, -1, -1):
            read, gated, z, r, n, before, h = self.steps[t]
            dn = dh * (1 - z) * (1 - (n if self.wrong == SLOPE else n**2))
            dz = dh * ((h if self.wrong == NEXT else before) - n) * z * (1 - z)
            dgated = dn @ self.Wn.T
            dr = dgated[:, inputs:] * before * r * (1 - r)
            self.dWn += gated.T @ dn
            self.dWz += read.T @ dz
            self.dWr += read.T @ dr
            dread = dz @ self.Wz.T + dr @ self.Wr.T
            dx[:, t] = dgated[:, :inputs] + dread[:, :inputs]
            dh = dh * z + dgated[:, inputs:] * r + dread[:, inputs:]
            if self.wrong == CUT and t == last - 2:
                dh = 0 * dh
        if self.wrong == SHARE:
            self.dWz[0] *= 1.05
        return dx


class Network:
    """Layers h = tanh(h W + b), one upon the other."""

    residual = False

    def __init__(self, steps: int, width: int, dtype: Any, wrong: str = "") -> None:
        rng = np.random.default_rng(0)
        deviation = (0.5 if self.residual else 1.3) / width**0.5
        self.params = [
            part.astype(dtype)
            for _ in range(steps)
            for part in (deviation * rng.normal(size=(width, width)), 0.1 * rng.normal(size=width))
        ]
        self.grads = [np.zeros_like(p) for p in self.params]
        self.wrong = wrong

    @staticmethod
    def data(steps: int, width: int, dtype: Any) -> Array:
        """Return examples of that width."""
        return np.random.default_rng(1).normal(size=(3, width)).astype(dtype)

    def forward(self, x: Array) -> Array:
        """Return the last layer's output."""
        self.hs, self.ys = [x], []
        for W, b in zip(self.params[::2], self.params[1::2], strict=True):
            self.ys.append(np.tanh(self.hs[-1] @ W + b))
            self.hs.append(self.hs[-1] + self.ys[-1] if self.residual else self.ys[-1])
        return self.hs[-1]

    def backward(self, dh: Array) -> Array:
        """Write the gradients of weights and biases, and return that of x."""
        depth = len(self.ys)
        for k in reversed(range(depth)):
            y = self.ys[k]
            da = dh * (1 - (y if self.wrong == SLOPE else y * y))
            self.grads[2 * k][...] = self.hs[k + (self.wrong == NEXT)].T @ da
            self.grads[2 * k + 1][...] = da.sum(axis=0)
            passed = 0 * dh if self.wrong == CUT and k == depth - 3 else da @ self.params[2 * k].T
            dh = dh + passed if self.residual else passed
        if self.wrong == SHARE:
            self.grads[0][0] *= 1.05
        return dh


class Residual(Network):
    """Layers h = h + tanh(h W + b), one upon the other."""

    residual = True


def _sigmoid(x: Array) -> Array:
    return 1 / (1 + np.exp(-x))
