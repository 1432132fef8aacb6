"""Handwritten layers in the manner of the book: objects that remember what backward needs."""

from __future__ import annotations

import numpy as np

from ..spiral import Array, Params, Task, batches


class Affine:
    """x W + b."""

    def __init__(self, W: Array, b: Array) -> None:
        self.params = [W, b]
        self.grads = [np.zeros_like(W), np.zeros_like(b)]

    def forward(self, x: Array) -> Array:
        """Return the layer's output."""
        W, b = self.params
        self.x = x
        return np.dot(x, W) + b

    def backward(self, dout: Array) -> Array:
        """Keep the gradients of W and b, and return that of x."""
        W, _ = self.params
        self.grads[0][...] = np.dot(self.x.T, dout)
        self.grads[1][...] = np.sum(dout, axis=0)
        return np.dot(dout, W.T)


class AttributeAffine:
    """x W + b, with its gradients made anew and kept as attributes."""

    def __init__(self, W: Array, b: Array) -> None:
        self.W, self.b = W, b

    def forward(self, x: Array) -> Array:
        """Return the layer's output."""
        self.x = x
        return x @ self.W + self.b

    def backward(self, dout: Array) -> Array:
        """Keep the gradients of W and b, and return that of x."""
        self.dW = self.x.T @ dout
        self.db = dout.sum(axis=0)
        return dout @ self.W.T


class Sigmoid:
    """1 / (1 + exp(-x))."""

    def __init__(self) -> None:
        self.params: list[Array] = []
        self.grads: list[Array] = []

    def forward(self, x: Array) -> Array:
        """Return the layer's output."""
        self.out = 1 / (1 + np.exp(-x))
        return self.out

    def backward(self, dout: Array) -> Array:
        """Return the gradient of x."""
        return dout * (1.0 - self.out) * self.out


class SoftmaxWithLoss:
    """The mean cross-entropy of softmax(x), with t one-hot or class indices."""

    def forward(self, x: Array, t: Array) -> float:
        """Return the loss."""
        exponentials = np.exp(x - x.max(axis=1, keepdims=True))
        self.y = exponentials / exponentials.sum(axis=1, keepdims=True)
        self.t = t.argmax(axis=1) if t.size == x.size else t
        n = len(x)
        return -np.sum(np.log(self.y[np.arange(n), self.t] + 1e-7)) / n

    def backward(self, dout: float = 1.0) -> Array:
        """Return the gradient of x: (y - t) / N."""
        n = len(self.t)
        dx = self.y.copy()
        dx[np.arange(n), self.t] -= 1
        dx *= dout
        return dx / n


class TwoLayerNet:
    """Affine, Sigmoid, Affine, and the loss."""

    def __init__(self, W1: Array, b1: Array, W2: Array, b2: Array) -> None:
        self.layers = [Affine(W1, b1), Sigmoid(), Affine(W2, b2)]
        self.loss_layer = SoftmaxWithLoss()
        self.params = [array for layer in self.layers for array in layer.params]
        self.grads = [array for layer in self.layers for array in layer.grads]

    def forward(self, x: Array, t: Array) -> float:
        """Return the loss."""
        for layer in self.layers:
            x = layer.forward(x)
        return self.loss_layer.forward(x, t)

    def backward(self) -> None:
        """Write the gradients into `grads`."""
        dout = self.loss_layer.backward()
        for layer in reversed(self.layers):
            dout = layer.backward(dout)


class SGD:
    """The update p -= lr g, in place."""

    def __init__(self, lr: float) -> None:
        self.lr = lr

    def update(self, params: list[Array], grads: list[Array]) -> None:
        """Update every parameter."""
        for p, g in zip(params, grads, strict=True):
            p -= self.lr * g


def train(task: Task, lr: float, epochs: int, batch_size: int) -> Params:
    """Return the trained parameters."""
    net = TwoLayerNet(**{name: array.copy() for name, array in task.params.items()})
    optimizer = SGD(lr)
    for x, t in batches(*task[1:], epochs, batch_size):
        net.forward(x, t)
        net.backward()
        optimizer.update(net.params, net.grads)
    return dict(zip(task.params, net.params, strict=True))
