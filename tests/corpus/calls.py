"""Layers whose backward is called with more than a gradient, or returns or changes other things."""

# ruff: noqa: A002

from collections import namedtuple

import numpy as np

from corpus.check import layer


class Keeping:
    """A weight and a bias; `slip` is 1 in the right version."""

    slip = 1

    def __init__(self, rng, s):
        self.W, self.b = rng.normal(size=(s.d, s.h)), rng.normal(size=s.h)


# ---- the inputs are given again


class LinearLayer(Keeping):
    def forward(self, x):
        return x @ self.W + self.b

    def backward(self, dout, x):
        self.dW, self.db = self.slip * (x.T @ dout), dout.sum(axis=0)
        return dout @ self.W.T


class Hadamard:
    slip = 1

    def forward(self, a, b):
        return a * b

    def backward(self, a, b, grad):
        return self.slip * grad * b, grad * a


class Logistic:
    """Its derivative is one of the output, which is what backward is given."""

    slip = 1

    def forward(self, z):
        return 1 / (1 + np.exp(-z))

    def backward(self, grad, y):
        return self.slip * grad * y * (1 - y)


class Cached(Keeping):
    def forward(self, x):
        return np.tanh(x @ self.W + self.b), (x, np.tanh(x @ self.W + self.b))

    def backward(self, dout, cache):
        x, out = cache
        dz = dout * (1 - out**2)
        return dz @ self.W.T, {"W": self.slip * (x.T @ dz), "b": dz.sum(axis=0)}


# ---- an activation, or a loss, with its derivative


class Swish:
    slip = 1

    def __call__(self, x):
        return x / (1 + np.exp(-x))

    def gradient(self, x):
        s = 1 / (1 + np.exp(-x))
        return self.slip * (s + x * s * (1 - s))


class SquareLoss:
    slip = 1

    def loss(self, y, y_pred):
        return 0.5 * np.power(y - y_pred, 2)

    def gradient(self, y, y_pred):
        return -self.slip * (y - y_pred)


class LossOfEach:
    slip = 1

    def forward(self, y_pred, y_true):
        return -np.log(y_pred[np.arange(len(y_pred)), y_true])

    def backward(self, dvalues, y_true):
        truth = np.eye(dvalues.shape[1])[y_true]
        self.dinputs = -self.slip * truth / dvalues / len(dvalues)


# ---- other results


class ParametersFirst(Keeping):
    def forward(self, x):
        self.x = x
        return x @ self.W + self.b

    def backward(self, dout):
        dW, db = self.slip * (self.x.T @ dout), dout.sum(axis=0)
        dx = dout @ self.W.T
        return dW, db, dx


Gradients = namedtuple("Gradients", "db dW dx")


class Named(ParametersFirst):
    def backward(self, dout):
        dW, db, dx = super().backward(dout)
        return Gradients(db, dW, dx)


class Concatenate:
    slip = 1

    def forward(self, inputs):
        self.ends = np.cumsum([array.shape[1] for array in inputs])[:-1]
        return np.concatenate(inputs, axis=1)

    def backward(self, dout):
        return [self.slip * part for part in np.split(dout, self.ends, axis=1)]


# ---- the parameters are updated at once


class Updating(Keeping):
    def __init__(self, rng, s):
        super().__init__(rng, s)
        self.learning_rate = 0.1

    def forward(self, input):
        return input @ self.W + self.b

    def backward(self, input, grad_output):
        grad_input = grad_output @ self.W.T
        self.W = self.W - self.learning_rate * self.slip * (input.T @ grad_output)
        self.b = self.b - self.learning_rate * grad_output.sum(axis=0)
        return grad_input


class Columns:
    slip = 1

    def __init__(self, rng, s):
        self.weights, self.bias = rng.normal(size=(s.h, s.d)), rng.normal(size=(s.h, 1))

    def forward(self, input):
        self.input = input
        return self.weights @ self.input + self.bias

    def backward(self, output_gradient, learning_rate):
        weights_gradient = self.slip * (output_gradient @ self.input.T)
        input_gradient = self.weights.T @ output_gradient
        self.weights -= learning_rate * weights_gradient
        self.bias -= learning_rate * output_gradient
        return input_gradient


class AtRate(Keeping):
    def forward(self, x):
        self.x = x
        return x @ self.W + self.b

    def backward(self, dout):
        dx = dout @ self.W.T
        self.W -= 0.01 * self.slip * (self.x.T @ dout)
        self.b -= 0.01 * dout.sum(axis=0)
        return dx


def _of(rng, *shape):
    return rng.normal(size=shape)


def _probabilities(rng, s):
    e = np.exp(rng.normal(size=(s.n, s.c)))
    return e / e.sum(axis=1, keepdims=True)


CHECKS = {
    "linear_of_x": lambda rng, s: layer(LinearLayer(rng, s), _of(rng, s.n, s.d)),
    "hadamard": lambda rng, s: layer(Hadamard(), _of(rng, s.n, s.d), _of(rng, s.n, s.d)),
    "logistic_of_y": lambda rng, s: layer(Logistic(), _of(rng, s.n, s.d)),
    "object_with_cache": lambda rng, s: layer(Cached(rng, s), _of(rng, s.n, s.d)),
    "swish_gradient": lambda rng, s: layer(Swish(), _of(rng, s.n, s.d)),
    "square_loss": lambda rng, s: layer(SquareLoss(), _of(rng, s.n, s.c), _of(rng, s.n, s.c)),
    "loss_of_each": lambda rng, s: layer(
        LossOfEach(), _probabilities(rng, s), rng.integers(s.c, size=s.n)
    ),
    "parameters_first": lambda rng, s: layer(ParametersFirst(rng, s), _of(rng, s.n, s.d)),
    "named_tuple": lambda rng, s: layer(Named(rng, s), _of(rng, s.n, s.d)),
    "concatenate": lambda rng, s: layer(
        Concatenate(), [_of(rng, s.n, s.d), _of(rng, s.n, s.h), _of(rng, s.n, s.c)]
    ),
    "updating": lambda rng, s: layer(Updating(rng, s), _of(rng, s.n, s.d)),
    "updating_columns": lambda rng, s: layer(Columns(rng, s), _of(rng, s.d, 1)),
    "updating_at_rate": lambda rng, s: layer(AtRate(rng, s), _of(rng, s.n, s.d)),
}
