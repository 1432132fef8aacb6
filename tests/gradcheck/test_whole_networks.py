"""Networks without layers: the methods of the courses, and what they return or change."""

from collections import namedtuple

import numpy as np
import pytest
from findings import has

import spiral_autograd as sa


def rng(seed=0):
    return np.random.default_rng(seed)


x, t, labels = rng(1).normal(size=(5, 4)), rng(2).normal(size=(5, 3)), np.array([0, 1, 2, 1, 0])


def squares(y, t):
    return 0.5 * np.sum((y - t) ** 2)


class TwoLayers:
    """`slip` is 1 in the right version; `passes` gives the loss and both gradients."""

    slip = 1

    def __init__(self):
        self.W1, self.W2 = rng(3).normal(size=(4, 5)), rng(4).normal(size=(5, 3))

    def forward(self, X):
        self.h = np.tanh(X @ self.W1)
        return self.h @ self.W2

    def both(self, X, y, scores):
        d = scores - y
        return X.T @ (d @ self.W2.T * (1 - self.h**2)), self.slip * (self.h.T @ d)


class Welch(TwoLayers):
    def costFunction(self, X, y):  # noqa: N802
        return squares(self.forward(X), y)

    def costFunctionPrime(self, X, y):  # noqa: N802
        dJdW1, dJdW2 = self.both(X, y, self.forward(X))
        return dJdW1, dJdW2


class OfScores(TwoLayers):
    def compute_loss(self, y_pred, y):
        return squares(y_pred, y)

    def backward(self, X, y, y_pred):
        self.dW1, self.dW2 = self.both(X, y, y_pred)


class GradientsFirst(Welch):
    costFunctionPrime = None  # noqa: N815

    def train_step(self, X, y):
        scores = self.forward(X)
        g1, g2 = self.both(X, y, scores)
        return {"W2": g2, "W1": g1}, squares(scores, y)


class LossFirst(GradientsFirst):
    def train_step(self, X, y):
        grads, loss = super().train_step(X, y)
        return loss, grads["W1"], grads["W2"]


class AtRate(GradientsFirst):
    lr = 0.05

    def train_step(self, X, y):
        grads, loss = super().train_step(X, y)
        self.W1 -= self.lr * grads["W1"]
        self.W2 = self.W2 - self.lr * grads["W2"]
        return loss


class RateGiven(GradientsFirst):
    train_step = None

    def backward(self, y, learning_rate):
        g1, g2 = self.both(self.X, y, self.out)
        self.W1 -= learning_rate * g1
        self.W2 -= learning_rate * g2

    def forward(self, X):
        self.X, self.out = X, super().forward(X)
        return self.out


Weights = namedtuple("Weights", "W1 W2")


class NamedTuple(TwoLayers):
    def __init__(self):
        made = TwoLayers()
        self.params = Weights(made.W1, made.W2)

    W1, W2 = property(lambda self: self.params.W1), property(lambda self: self.params.W2)

    def loss(self, X, y):
        return squares(self.forward(X), y)

    def gradient(self, X, y):
        return Weights(*self.both(X, y, self.forward(X)))


NETWORKS = [
    Welch, OfScores, GradientsFirst, LossFirst, AtRate, RateGiven, NamedTuple,
]  # fmt: skip


@pytest.mark.usefixtures("verdicts_alone")
@pytest.mark.parametrize("kind", NETWORKS)
def test_a_network_of_two_layers(kind):
    network = kind()
    report = sa.check_network(network, x, t)
    assert report.ok
    assert sorted(row.name for row in report.rows) == ["W1", "W2"]
    network.slip = 1.5
    report = sa.check_network(network, x, t, budget=0.5)
    assert [row.name for row in report.rows if row.verdict == "wrong"] == ["W2"]


def test_the_rate_of_a_network_is_said():
    assert has(sa.check_network(AtRate(), x, t), "by_its_change", names=["W1", "W2"], rate=0.05)
    assert has(sa.check_network(RateGiven(), x, t), "by_its_change", rate=0.5)


class Nielsen:
    slip = 1

    def __init__(self):
        self.biases = [rng(5).normal(size=(n, 1)) for n in (5, 3)]
        self.weights = [rng(6).normal(size=shape) for shape in ((5, 4), (3, 5))]

    def feedforward(self, a):
        for b, w in zip(self.biases, self.weights, strict=True):
            a = np.tanh(np.dot(w, a) + b)
        return a

    def backprop(self, x, y):
        activations = [x]
        for b, w in zip(self.biases, self.weights, strict=True):
            activations.append(np.tanh(np.dot(w, activations[-1]) + b))
        nabla_b, nabla_w = [None, None], [None, None]
        delta = (activations[-1] - y) * (1 - activations[-1] ** 2)
        nabla_b[1], nabla_w[1] = delta, delta @ activations[1].T
        delta = self.weights[1].T @ delta * (1 - activations[1] ** 2)
        nabla_b[0], nabla_w[0] = delta, self.slip * (delta @ activations[0].T)
        return (nabla_b, nabla_w)


@pytest.mark.usefixtures("verdicts_alone")
def test_a_network_without_a_loss_is_given_one():
    network, column, y = Nielsen(), x[:1].T.copy(), t[:1].T.copy()
    with pytest.raises(sa.CheckError, match=r"feedforward and backprop, .* loss=lambda y, t: "):
        sa.check_network(network, column, y)
    report = sa.check_network(network, column, y, loss=squares)
    assert report.ok
    assert {row.name for row in report.rows} == {
        "weights[0]", "weights[1]", "biases[0]", "biases[1]",
    }  # fmt: skip
    network.slip = 1.5
    report = sa.check_network(network, column, y, loss=squares)
    assert [row.name for row in report.rows if row.verdict == "wrong"] == ["weights[0]"]


class Loy:
    """The data stand in the network, and are not given to its methods."""

    slip = 1

    def __init__(self, x, y):
        self.input, self.y, self.output = x, y, np.zeros(y.shape)
        self.weights1, self.weights2 = rng(3).normal(size=(4, 5)), rng(4).normal(size=(5, 3))

    def feedforward(self):
        self.layer1 = np.tanh(self.input @ self.weights1)
        self.output = np.tanh(self.layer1 @ self.weights2)

    def backprop(self):
        d = 2 * (self.y - self.output) * (1 - self.output**2)
        d_weights2 = self.layer1.T @ d
        d_weights1 = self.slip * (self.input.T @ (d @ self.weights2.T * (1 - self.layer1**2)))
        self.weights1 += d_weights1
        self.weights2 += d_weights2


@pytest.mark.usefixtures("verdicts_alone")
def test_a_network_that_holds_its_data():
    network = Loy(x, t)
    loss = lambda y, t: np.sum((t - y) ** 2)  # noqa: E731
    report = sa.check_network(network, x, t, loss=loss)
    assert report.ok
    assert [row.name for row in report.rows] == ["weights1", "weights2"]
    network.slip = 1.5
    report = sa.check_network(network, x, t, loss=loss)
    assert [row.name for row in report.rows if row.verdict == "wrong"] == ["weights1"]


class LinearClassifier:
    slip = 1

    def __init__(self):
        self.W = rng(7).normal(size=(4, 3))

    def loss(self, X, y, reg=0.1):
        e = np.exp(X @ self.W)
        p = e / e.sum(axis=1, keepdims=True)
        loss = -np.log(p[np.arange(len(X)), y]).mean() + reg * np.sum(self.W * self.W)
        p[np.arange(len(X)), y] -= 1
        dW = self.slip * (X.T @ p) / len(X) + 2 * reg * self.W
        return loss, dW


@pytest.mark.usefixtures("verdicts_alone")
def test_a_loss_that_returns_the_gradient_too():
    network = LinearClassifier()
    assert sa.check_network(network, x, labels).ok
    network.slip = 1.5
    assert not sa.check_network(network, x, labels).ok


# -------------------- chains of layers whose loss, or whose calls, are of another kind ------------


def mse(y_true, y_pred):
    return np.mean((y_true - y_pred) ** 2)


def mse_prime(y_true, y_pred):
    return 2 * (y_pred - y_true) / y_true.size


class FullyConnected:
    slip = 1

    def __init__(self, inputs, outputs):
        self.weights, self.bias = rng(8).normal(size=(inputs, outputs)), rng(9).normal(size=outputs)

    def forward_propagation(self, input_data):
        self.input = input_data
        return input_data @ self.weights + self.bias

    def backward_propagation(self, output_error, learning_rate):
        input_error = output_error @ self.weights.T
        self.weights -= learning_rate * self.slip * (self.input.T @ output_error)
        self.bias -= learning_rate * output_error.sum(axis=0)
        return input_error


class Activation:
    def forward_propagation(self, z):
        self.z = z
        return np.tanh(z)

    def backward_propagation(self, output_error, learning_rate):
        return (1 - np.tanh(self.z) ** 2) * output_error


class Sequential:
    def __init__(self):
        self.layers = [FullyConnected(4, 5), Activation(), FullyConnected(5, 3)]
        self.loss, self.loss_prime = mse, mse_prime


class SquareLoss:
    def loss(self, y_true, y_pred):
        return mse(y_true, y_pred)

    def gradient(self, y_true, y_pred):
        return mse_prime(y_true, y_pred)


FORMS = {
    "functions of the network": lambda: (Sequential(), None),
    "an object": lambda: (Sequential().layers, SquareLoss()),
    "a function alone": lambda: (Sequential().layers, mse),
}


@pytest.mark.parametrize("form", FORMS)
def test_a_chain_of_layers_that_update_themselves(form):
    network, loss = FORMS[form]()
    report = sa.check_network(network, x, t, loss=loss)
    assert report.ok
    assert not report.unchecked
    names = [row.name for row in report.rows]
    assert {"layers[0].weights", "layers[2].bias"} <= set(names)
    assert any(name.startswith("loss_layer") for name in names) == (form != "a function alone")
    layers = network if isinstance(network, list) else network.layers
    layers[0].slip = 1.5
    report = sa.check_network(network, x, t, loss=loss, budget=0.5)
    assert [row.name for row in report.rows if row.verdict == "wrong"] == ["layers[0].weights"]


class Combined:
    """Softmax and its loss: backward is given the output of the softmax, which is no input."""

    def forward(self, inputs, y_true):
        e = np.exp(inputs - inputs.max(axis=1, keepdims=True))
        self.output = e / e.sum(axis=1, keepdims=True)
        return -np.log(self.output[range(len(inputs)), y_true]).mean()

    def backward(self, dvalues, y_true):
        self.dinputs = dvalues.copy()
        self.dinputs[range(len(dvalues)), y_true] -= 1
        self.dinputs /= len(dvalues)


def test_a_loss_layer_that_is_given_its_softmax():
    report = sa.check_network(Sequential().layers, x, labels, loss=Combined())
    assert report.ok
    said = [("left", "output"), ("input", "y_true")]
    assert has(report.remarks, "called_with", arguments=said)


class OfSizes:
    """A network whose layers are only sizes; its passes are its own."""

    def __init__(self, slip=1.0):
        self.layers, self.slip = [4, 5, 3], slip
        self.weights = [rng(shape).normal(size=shape) for shape in ((4, 5), (5, 3))]

    def forward_propagation(self, inputs):
        self.a = [inputs, np.tanh(inputs @ self.weights[0])]
        return self.a[-1] @ self.weights[1]

    def backward_propagation(self, inputs, y_true, output):
        d = output - y_true
        self.dweights = [self.a[1].T @ d]
        d = self.slip * (d @ self.weights[1].T) * (1 - self.a[1] ** 2)
        self.dweights.insert(0, self.a[0].T @ d)


@pytest.mark.parametrize("slip", [1.0, 2.0])
def test_a_network_that_keeps_the_sizes_of_its_layers(slip):
    report = sa.check_network(OfSizes(slip), x, t, loss=squares)
    verdicts = {row.name: row.verdict == "wrong" for row in report.rows}
    assert verdicts == {"weights[0]": slip != 1.0, "weights[1]": False}
