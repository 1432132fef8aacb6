"""Parameters that are lists of numbers, whose gradients first appear in the backward pass."""

import numpy as np
import pytest

import spiral_autograd as sa


class Neuron:
    def __init__(self):
        self.weights, self.bias = [0.5, -0.8, 1.2], 0.1

    def forward(self, inputs):
        self.inputs = inputs
        total = self.bias
        for w, i in zip(self.weights, inputs, strict=True):
            total += w * i
        self.total = total
        return np.tanh(total)

    def backward(self, grad):
        g = grad * (1 - np.tanh(self.total) ** 2)
        self.grad_weights = [g * i for i in self.inputs]
        self.grad_bias = g
        return [g * w for w in self.weights]


class NotActivated(Neuron):
    def backward(self, grad):
        dx = super().backward(grad)
        self.grad_weights = [grad * i for i in self.inputs]
        return dx


X = np.array([0.3, 1.4, -0.6])


def test_each_number_of_a_list_has_a_row():
    report = sa.check_layer(Neuron(), X)
    assert report.ok
    assert {row.name for row in report.rows} == {
        "inputs",
        "bias",
        *(f"weights[{i}]" for i in range(3)),
    }
    assert not report.notes
    wrong = sa.check_layer(NotActivated(), X)
    assert [row.name for row in wrong.rows if row.verdict == "wrong"] == [
        f"weights[{i}]" for i in range(3)
    ]


def test_a_long_record_of_numbers_is_no_list_of_parameters():
    layer = Neuron()
    layer.losses = [0.1] * 5000
    assert sa.check_layer(layer, X).ok


class WithoutGradient:
    def __init__(self):
        self.weights, self.betas = [0.3, -0.2, 0.5], [0.9, 0.99]

    def forward(self, inputs):
        self.inputs, self.made = inputs, [1.0, 2.0]
        return sum(w * i for w, i in zip(self.weights, inputs, strict=True)) + self.made[0]

    def backward(self, dout):
        return np.array([dout * w for w in self.weights])


class NeuronWithGradient(WithoutGradient):
    def backward(self, dout):
        self.grad_weights = [dout * i for i in self.inputs]
        return super().backward(dout)


@pytest.mark.parametrize("kind", [WithoutGradient, NeuronWithGradient])
def test_a_list_of_weights_without_a_gradient_is_not_checked_and_that_is_said(kind):
    report = sa.check_layer(kind(), np.array([0.1, 0.2, 0.3]))
    assert report.ok, str(report)
    assert report.unchecked == (() if kind is NeuronWithGradient else ("weights",))
