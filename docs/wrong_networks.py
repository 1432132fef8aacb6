"""The layers and networks of gallery.md: each has one mistake, or a convention that is none."""

# ruff: noqa: D101, D102, D103

import numpy as np


def sigmoid(z):
    return 1 / (1 + np.exp(-z))


# -------------------- networks: a loss, and gradients of it --------------------


def loss(p, X, t):
    h1 = np.tanh(X @ p["W1"])
    h2 = np.tanh(h1 @ p["W2"])
    y = h2 @ p["W3"] + p["b"]
    return np.mean((y - t) ** 2)


def same_slip_in_both_layers(p, X, t):
    h1 = np.tanh(X @ p["W1"])
    h2 = np.tanh(h1 @ p["W2"])
    dy = 2 * (h2 @ p["W3"] + p["b"] - t) / t.size
    da2 = dy @ p["W3"].T * (1 - h2)
    da1 = da2 @ p["W2"].T * (1 - h1)
    return {"W1": X.T @ da1, "W2": h1.T @ da2, "W3": h2.T @ dy, "b": dy.sum(axis=0)}


def gradient_for_the_value(p, X, t):
    h1 = np.tanh(X @ p["W1"])
    h2 = np.tanh(h1 @ p["W2"])
    dy = 2 * (h2 @ p["W3"] + p["b"] - t) / t.size
    grad_W3 = h2.T @ dy
    da2 = dy @ grad_W3.T * (1 - h2**2)
    da1 = da2 @ p["W2"].T * (1 - h1**2)
    return {"W1": X.T @ da1, "W2": h1.T @ da2, "W3": grad_W3, "b": dy.sum(axis=0)}


def updated_too_early(p, X, t):
    h1 = np.tanh(X @ p["W1"])
    h2 = np.tanh(h1 @ p["W2"])
    dy = 2 * (h2 @ p["W3"] + p["b"] - t) / t.size
    W3 = p["W3"] - 0.1 * h2.T @ dy
    da2 = dy @ W3.T * (1 - h2**2)
    da1 = da2 @ p["W2"].T * (1 - h1**2)
    return {"W1": X.T @ da1, "W2": h1.T @ da2, "W3": h2.T @ dy, "b": dy.sum(axis=0)}


def decay_that_the_loss_has_not(p, X, t):
    h1 = np.tanh(X @ p["W1"])
    h2 = np.tanh(h1 @ p["W2"])
    dy = 2 * (h2 @ p["W3"] + p["b"] - t) / t.size
    da2 = dy @ p["W3"].T * (1 - h2**2)
    da1 = da2 @ p["W2"].T * (1 - h1**2)
    dW3 = h2.T @ dy + 0.01 * p["W3"]
    return {"W1": X.T @ da1, "W2": h1.T @ da2, "W3": dW3, "b": dy.sum(axis=0)}


def four_for_two(p, X, t):
    h1 = np.tanh(X @ p["W1"])
    h2 = np.tanh(h1 @ p["W2"])
    dy = 4 * (h2 @ p["W3"] + p["b"] - t) / t.size
    da2 = dy @ p["W3"].T * (1 - h2**2)
    da1 = da2 @ p["W2"].T * (1 - h1**2)
    return {"W1": X.T @ da1, "W2": h1.T @ da2, "W3": h2.T @ dy, "b": dy.sum(axis=0)}


def ridge(theta, X, t):
    error = theta[0] + X @ theta[1:] - t
    return error @ error / 2 + 0.1 / 2 * theta[1:] @ theta[1:]


def ridge_of_the_bias_too(theta, X, t):
    error = theta[0] + X @ theta[1:] - t
    d = np.concatenate([[error.sum()], X.T @ error])
    return d + 0.1 * theta


# -------------------- layers over time --------------------


class RNN:
    def __init__(self, Wx, Wh):
        self.Wx, self.Wh = Wx, Wh

    def forward(self, x):
        h = np.ones((len(x), len(self.Wh)))
        self.x, self.h = x, [h]
        for t in range(x.shape[1]):
            h = np.tanh(x[:, t] @ self.Wx + h @ self.Wh)
            self.h.append(h)
        return np.stack(self.h[1:], axis=1)


class NothingFlowsBack(RNN):
    def backward(self, dout):
        dx, self.dWx, self.dWh = np.zeros_like(self.x), 0 * self.Wx, 0 * self.Wh
        for t in reversed(range(self.x.shape[1])):
            da = dout[:, t] * (1 - self.h[t + 1] ** 2)
            self.dWx += self.x[:, t].T @ da
            self.dWh += self.h[t].T @ da
            dx[:, t] = da @ self.Wx.T
        return dx


class Overwritten(RNN):
    def backward(self, dout):
        dx, dh = np.zeros_like(self.x), 0
        self.dWx = np.zeros_like(self.Wx)
        for t in reversed(range(self.x.shape[1])):
            da = (dout[:, t] + dh) * (1 - self.h[t + 1] ** 2)
            self.dWx += self.x[:, t].T @ da
            self.dWh = self.h[t].T @ da
            dx[:, t] = da @ self.Wx.T
            dh = da @ self.Wh.T
        return dx


class NextStep(RNN):
    def backward(self, dout):
        dx, dh = np.zeros_like(self.x), 0
        self.dWx, self.dWh = np.zeros_like(self.Wx), np.zeros_like(self.Wh)
        for t in reversed(range(self.x.shape[1])):
            da = (dout[:, t] + dh) * (1 - self.h[t + 1] ** 2)
            self.dWx += self.x[:, t].T @ da
            self.dWh += self.h[t + 1].T @ da
            dx[:, t] = da @ self.Wx.T
            dh = da @ self.Wh.T
        return dx


class MaskedSteps:
    def __init__(self, W):
        self.W, self.rng = W, np.random.default_rng(0)

    def forward(self, x):
        self.x, self.masks = x, self.rng.random(x.shape) > 0.4
        out = np.zeros((*x.shape[:2], self.W.shape[1]))
        for t in range(x.shape[1]):
            out[:, t] = (x[:, t] * self.masks[:, t]) @ self.W
        return out


class FirstMaskForAll(MaskedSteps):
    def backward(self, dout):
        dx, self.dW = np.zeros_like(self.x), np.zeros_like(self.W)
        for t in range(self.x.shape[1]):
            dx[:, t] = dout[:, t] @ self.W.T * self.masks[:, 0]
            self.dW += (self.x[:, t] * self.masks[:, t]).T @ dout[:, t]
        return dx


class Embedding:
    def __init__(self, W):
        self.W = W

    def forward(self, words):
        self.words = words
        out = np.zeros((*words.shape, self.W.shape[1]))
        for t in range(words.shape[1]):
            out[:, t] = self.W[words[:, t]]
        return out

    def backward(self, dout):
        self.dW = np.zeros_like(self.W)
        for t in range(self.words.shape[1]):
            self.dW[self.words[:, t]] += dout[:, t]


# -------------------- where things are --------------------


class Convolution:
    def __init__(self, W):
        self.W = W

    def forward(self, x):
        self.padded = np.pad(x, 1)
        size = range((len(x) + 1) // 2)
        out = np.zeros((len(size), len(size)))
        for i in size:
            for j in size:
                window = self.padded[2 * i : 2 * i + 3, 2 * j : 2 * j + 3]
                out[i, j] = np.sum(window * self.W)
        return out


class NoStride(Convolution):
    def backward(self, dout):
        self.dW, d = np.zeros_like(self.W), np.zeros_like(self.padded)
        for i in range(len(dout)):
            for j in range(len(dout)):
                self.dW += dout[i, j] * self.padded[2 * i : 2 * i + 3, 2 * j : 2 * j + 3]
                d[i : i + 3, j : j + 3] += dout[i, j] * self.W
        return d[1:-1, 1:-1]


class PadKept(Convolution):
    def backward(self, dout):
        self.dW, d = np.zeros_like(self.W), np.zeros_like(self.padded)
        for i in range(len(dout)):
            for j in range(len(dout)):
                self.dW += dout[i, j] * self.padded[2 * i : 2 * i + 3, 2 * j : 2 * j + 3]
                d[2 * i : 2 * i + 3, 2 * j : 2 * j + 3] += dout[i, j] * self.W
        return d[:-2, :-2]


# -------------------- numbers --------------------


class Variance:
    def forward(self, x):
        self.centred = x - x.mean(axis=0)
        return np.sum(self.centred**2, axis=0) / (len(x) - 1)

    def backward(self, dout):
        return 2 * self.centred * dout / len(self.centred)


# -------------------- conventions that are no mistakes --------------------


def linear_forward(A, W, b):
    return W @ A + b, (A, W)


def linear_backward(dZ, cache):
    A, W = cache
    m = A.shape[1]
    return W.T @ dZ, dZ @ A.T / m, dZ.sum(axis=1, keepdims=True) / m


class CrossEntropy:
    def forward(self, y, t):
        self.y, self.t = y, t
        return -np.mean(t * np.log(y) + (1 - t) * np.log(1 - y))

    def backward(self, dout=1.0):
        return dout * (self.y - self.t) / self.t.size


class Clipping:
    def __init__(self, W):
        self.W = W

    def forward(self, x):
        self.x = x
        return x @ self.W

    def backward(self, dout):
        self.dW = np.clip(self.x.T @ dout, -1, 1)
        return dout @ self.W.T


# -------------------- a loss that computes its gradient, too --------------------


def hinge(scores, labels):
    rows = np.arange(len(scores))
    margins = np.maximum(0, scores - scores[rows, labels][:, None] + 1)
    margins[rows, labels] = 0
    d = (margins > 0) / len(scores)
    d[rows, labels] -= 1 / len(scores)
    return margins.sum() / len(scores), d


# -------------------- one function for another --------------------


class EachByItself:
    """A softmax whose backward pass takes it for a sigmoid."""

    def forward(self, x):
        e = np.exp(x - x.max(axis=1, keepdims=True))
        self.y = e / e.sum(axis=1, keepdims=True)
        return self.y

    def backward(self, dout):
        return dout * self.y * (1 - self.y)
