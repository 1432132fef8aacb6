"""Layers and networks that update themselves: the gradient is their change over the rate."""

import numpy as np
import pytest

import spiral_autograd as sa
from tests.findings import has, kinds

rng = np.random.default_rng(5)
x, W0, b0 = rng.normal(size=(5, 3)), rng.normal(size=(3, 4)), rng.normal(size=4)


class Dense:
    lr = 0.1

    def __init__(self):
        self.W, self.b = W0.copy(), b0.copy()

    def forward(self, x):
        self.x = x
        return x @ self.W + self.b


class ByArgument(Dense):
    def backward(self, dout, learning_rate):
        dx = dout @ self.W.T
        self.W -= learning_rate * self.slope(dout)
        self.b -= self.step(dout, learning_rate)
        return dx

    def slope(self, dout):
        return self.x.T @ dout

    def step(self, dout, rate):
        return rate * dout.sum(axis=0)


class ByAttribute(ByArgument):
    def __init__(self):
        super().__init__()
        self.rate = 0.1

    def backward(self, dout):
        return super().backward(dout, self.rate)


class ByOne(ByAttribute):
    def __init__(self):
        super().__init__()
        self.rate = 1.0


class ByOption(ByAttribute):
    def backward(self, dout, learning_rate=None):
        self.rate = self.rate if learning_rate is None else learning_rate
        return super().backward(dout)


EVERY = [ByArgument, ByAttribute, ByOne, ByOption]


def wrong(report):
    return [row.name for row in report.rows if row.verdict not in ("exact", "match")]


@pytest.mark.parametrize("layer", EVERY)
def test_what_is_right(layer):
    layer = layer()
    report = sa.check_layer(layer, x)
    assert (wrong(report), report.unchecked) == ([], ())
    assert getattr(layer, "rate", 1.0) in (0.1, 1.0)
    assert np.array_equal(layer.W, W0)


@pytest.mark.usefixtures("no_lines")
@pytest.mark.parametrize("layer", EVERY)
def test_an_update_that_lacks_the_rate_is_wrong_whatever_the_rate_is(layer):
    class Lacking(layer):
        def step(self, dout, rate):
            return dout.sum(axis=0)

    report = sa.check_layer(Lacking(), x)
    assert wrong(report) == ["b"], str(report)
    assert has(report.remarks, "without_rate", names=["b"])


@pytest.mark.usefixtures("no_lines")
@pytest.mark.parametrize("layer", EVERY)
def test_a_weight_decay_is_left_out_and_said(layer):
    class Decaying(layer):
        def slope(self, dout):
            return super().slope(dout) + 0.01 * self.W

    report = sa.check_layer(Decaying(), x)
    assert wrong(report) == [], str(report)
    (said,) = [one for one in report.remarks if one.kind == "decays"]
    assert said.fields["name"] == "W"
    assert abs(said.fields["share"] - 0.01) < 1e-9

    class Mistaken(Decaying):
        def slope(self, dout):
            return super().slope(dout) + self.x.T @ dout

    assert wrong(sa.check_layer(Mistaken(), x)) == ["W"]


def test_the_update_that_is_wrong_is_named():
    class Mean(Dense):
        def backward(self, dout, lr):
            dx = dout @ self.W.T
            self.W -= lr * self.x.T @ dout
            self.b -= lr * dout.mean(axis=0)
            return dx

    row = sa.check_layer(Mean(), x).rows[2]
    first = Mean.backward.__code__.co_firstlineno
    assert "averaged_over" in kinds(row)
    assert [line for _, line in row.lines][-1] == first + 3


def test_what_is_multiplied_after_the_update():
    class Late(Dense):
        def backward(self, dout, lr):
            self.W -= lr * self.x.T @ dout
            self.b -= lr * dout.sum(axis=0)
            return dout @ self.W.T

    report = sa.check_layer(Late(), x)
    assert wrong(report) == ["x"]
    assert "updated" in kinds(report.rows[0]), str(report)
    assert not has(report.remarks, "called_with")


def test_an_argument_that_is_named_for_the_upstream_gradient_is_it():
    class Mistaken(ByArgument):
        def backward(self, dout, learning_rate):
            return np.tanh(super().backward(dout, learning_rate))

    report = sa.check_layer(Mistaken(), x)
    assert wrong(report) == ["x"]
    assert not has(report.remarks, "called_with")


def test_a_backward_that_raises_is_shown_with_its_line():
    class NotSummed(Dense):
        def backward(self, dout, lr):
            self.b -= lr * dout
            return dout @ self.W.T

    with pytest.raises(
        sa.CheckError, match=r"ValueError.*test_updates.py:\d+: self.b -= lr \* dout"
    ):
        sa.check_layer(NotSummed(), x)


class Net:
    """Two layers and a mean; its step may lack something."""

    decay, lost, whole, plain = 0.0, False, False, False

    def __init__(self):
        r = np.random.default_rng(2)
        self.W1, self.b1 = r.normal(size=(3, 5)), r.normal(size=5)
        self.W2, self.b2 = r.normal(size=(5, 4)), r.normal(size=4)

    def forward(self, x):
        self.h = np.tanh(x @ self.W1 + self.b1)
        return self.h @ self.W2 + self.b2

    def loss(self, x, t):
        squares = np.sum(self.W1**2) + np.sum(self.W2**2)
        return 0.5 * np.sum((self.forward(x) - t) ** 2) / len(x) + 0.5 * self.decay * squares

    def train_step(self, x, t, lr):
        d = (self.forward(x) - t) / len(x)
        dz = d @ self.W2.T * (1 - self.h**2)
        self.W1 -= lr * (x.T @ dz + (0 if self.lost else self.decay * self.W1))
        self.b1 -= lr * dz.sum(axis=0)
        self.W2 -= lr * (self.h.T @ d + self.decay * self.W2)
        self.b2 -= (1 if self.plain else lr) * d.sum(axis=0) * (len(x) if self.whole else 1)


t = rng.normal(size=(5, 4))


def test_a_network_that_is_right():
    net = Net()
    net.decay = 0.1
    assert wrong(sa.check_network(net, x, t)) == []


def test_a_decay_left_out_is_a_term_that_lacks():
    net = Net()
    net.decay, net.lost = 0.1, True
    report = sa.check_network(net, x, t)
    assert wrong(report) == ["W1"]
    assert "term" in kinds(report.rows[0]), str(report)
    first = Net.forward.__code__.co_firstlineno
    assert first + 1 not in [line for _, line in report.rows[0].lines]


def test_a_bias_without_the_mean_or_the_rate():
    net = Net()
    net.whole = True
    report = sa.check_network(net, x, t)
    assert wrong(report) == ["b2"]
    assert "W1" not in str(report.rows[3].findings), str(report)
    net.whole, net.plain = False, True
    report = sa.check_network(net, x, t)
    assert wrong(report) == ["b2"]
    assert has(report.remarks, "without_rate", names=["b2"])
