"""Reasons that are right only by a coincidence of sizes: asked again with inputs of other sizes."""

import time

import numpy as np
import pytest
from findings import kinds

import spiral_autograd as sa
from spiral_autograd.gradcheck.diagnosis import other_sizes
from spiral_autograd.gradcheck.guard import NEVER
from spiral_autograd.gradcheck.subject.adapter import Terms
from spiral_autograd.gradcheck.subject.layer import Layer
from spiral_autograd.gradcheck.subject.session import untouched

RNG = np.random.default_rng(7)


def normal(*shape):
    return RNG.normal(size=shape)


class Grouped:
    """Centred within groups of channels."""

    def __init__(self, groups):
        self.groups = groups

    def forward(self, x):
        n, c, h, w = x.shape
        self.shape = (n, self.groups, c // self.groups, h, w)
        xg = x.reshape(self.shape)
        return (xg - xg.mean(axis=(2, 3, 4), keepdims=True)).reshape(x.shape)

    def backward(self, dout):
        _, g, c, h, w = self.shape
        d = dout.reshape(self.shape)
        m = g * c * h * w
        d = d - d.sum(axis=(2, 3, 4), keepdims=True) / m
        return d.reshape(dout.shape)


class MeanSquares:
    def forward(self, y, t):
        self.y, self.t = y, t
        return np.mean((y - t) ** 2)

    def backward(self):
        return 2 * (self.y - self.t) / len(self.y)


class Correlation:
    """With a kernel of two by two, whose two indices are exchanged in the backward pass."""

    def __init__(self):
        self.W, self.dW = normal(2, 2), np.zeros((2, 2))

    def forward(self, x):
        self.x = x
        h, w = x.shape[0] - 1, x.shape[1] - 1
        return sum(x[i : i + h, j : j + w] * self.W[i, j] for i in range(2) for j in range(2))

    def backward(self, dout):
        dx = np.zeros_like(self.x)
        h, w = dout.shape
        for i in range(2):
            for j in range(2):
                self.dW[i, j] = np.sum(self.x[i : i + h, j : j + w] * dout)
                dx[i : i + h, j : j + w] += self.W[j, i] * dout
        return dx


class Scaled:
    """Times a number that is also the length of an axis of the weights."""

    def __init__(self):
        self.s, self.W = 4.0, normal(3, 4)

    def forward(self, x):
        y = self.s * (x @ self.W)
        y[:, 0] = self.s * np.sin(x @ self.W)[:, 0]
        self.x, self.z = x, x @ self.W
        return y

    def backward(self, dout):
        dz = dout.copy()
        dz[:, 0] *= np.cos(self.z[:, 0])
        self.dW = self.x.T @ dz
        return dz @ self.W.T


def affine(x, W, b):
    return W @ x + b, (x, W)


def affine_backward(dout, cache):
    x, W = cache
    return W.T @ dout, dout @ x.T, dout.sum(axis=1, keepdims=True) / len(x)


def said(report):
    return " ".join(report.rows[-1].why.split())


@pytest.mark.parametrize(
    ("layer", "inputs", "statement"),
    [
        (Grouped(2), (normal(2, 4, 3, 2),), "m = c * h * w"),
        (Correlation(), (normal(4, 4),), "dx[i:i + h, j:j + w] += self.W[i, j] * dout"),
    ],
)
def test_what_is_right_at_other_sizes_too_is_said(layer, inputs, statement):
    report = sa.check_layer(layer, *inputs)
    assert statement in " ".join(report.rows[0].why.split()), str(report)


def test_a_factor_is_named_by_the_length_with_which_it_changes():
    report = sa.check_layer(MeanSquares(), normal(4, 2), normal(4, 2), constant=["t"])
    assert "summed over axis 1 of" in said(report), str(report)


def test_features_in_rows_are_not_called_the_batch():
    report = sa.check_backward(affine, affine_backward, normal(4, 7), normal(3, 4), normal(3, 1))
    assert "averaged over axis 0 of x (4)" in said(report), str(report)


def test_a_number_that_stands_in_several_operations_comes_before_a_length():
    report = sa.check_layer(Scaled(), normal(5, 3))
    assert "the factor 4 of" in said(report), str(report)


# -------------------- the check at other sizes itself --------------------


def subject_of(layer, inputs, session):
    return Layer(layer, inputs, Terms(session)).subject()


def longer(layer, *inputs):
    """Return the shapes of the values, and of the outputs, at other sizes."""
    with untouched(layer, inputs) as session:
        there = other_sizes._longer(subject_of(layer, inputs, session), NEVER)
        return [v.shape for v in there.values], [out.shape for out in there.outputs]


def test_the_batch_grows_in_all_inputs_and_no_two_axes_are_alike():
    shapes, _ = longer(MeanSquares(), normal(3, 3), normal(3, 3))
    assert shapes[0] == shapes[1]
    assert len({3, *shapes[0]}) == 3


def test_what_the_weights_fix_stays():
    shapes, outputs = longer(Scaled(), normal(5, 3))
    assert (shapes, outputs) == ([(6, 3), (3, 4)], [(6, 4)])


def test_a_right_layer_is_right_there_and_left_as_it_was():
    class Right(MeanSquares):
        def backward(self):
            return 2 * (self.y - self.t) / self.y.size

    layer, y, t = Right(), normal(4, 2), normal(4, 2)
    layer.forward(y, t)
    with untouched(layer, [y, t]) as session:
        subject = subject_of(layer, (y, t), session)
        there = other_sizes._longer(subject, NEVER)
        with there.session.fresh():
            grad = there.backward(there.upstream)[0]
        assert np.allclose(grad, 2 * np.subtract(*there.values) / grad.size)
        assert subject.values[0] is y
    assert (layer.y is y, layer.t is t) == (True, True)


def test_a_pass_for_these_sizes_only_tells_nothing():
    class Fixed:
        def forward(self, x):
            return x[:4, :4] ** 2

        def backward(self, dout):
            return 3 * self_x * dout

    self_x = normal(4, 4)
    report = sa.check_layer(Fixed(), self_x)
    assert "2 * self_x * dout" in said(report), str(report)


# -------------------- the derivatives that a line lacks --------------------


def test_the_derivative_of_a_function_that_is_not_there_is_not_named():
    def forward(x):
        return x - x**3 / 3, x

    def backward(dout, x):
        return dout * (1 - x)

    report = sa.check_backward(forward, backward, normal(4, 3))
    assert "1 - x ** 2" in said(report), str(report)
    assert "tanh" not in said(report), str(report)


def test_a_forward_pass_that_takes_too_long_there_tells_nothing():
    class Opaque:
        def forward(self, x):
            began = time.thread_time()
            while x.shape != (4, 5) and time.thread_time() < began + 0.004:
                pass
            self.x = np.frombuffer(x.astype(float).tobytes()).reshape(x.shape)  # no trace goes on
            return np.sin(self.x)

        def backward(self, dout):
            return dout * np.cos(self.x) / self.x.shape[0]

    (row,) = sa.check_layer(Opaque(), np.random.default_rng(1).normal(size=(4, 5))).rows
    assert row.verdict == "wrong"
    assert "averaged_over" in kinds(row)
