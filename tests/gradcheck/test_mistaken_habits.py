"""What is right elsewhere, by a convention, is wrong here and said as that convention."""

import numpy as np
import pytest
from findings import has, kinds

import spiral_autograd as sa

RNG = np.random.default_rng(3)
COLUMNS = (RNG.normal(size=(3, 7)), RNG.normal(size=(4, 3)), RNG.normal(size=(4, 1)))
PARAMS = {"W1": RNG.normal(size=(3, 4)), "b1": RNG.normal(size=4), "W2": RNG.normal(size=4)}
X, T = RNG.normal(size=(6, 3)), RNG.normal(size=6)


def linear(A, W, b):
    return W @ A + b, (A, W, b)


def linear_backward(divide_b):
    def backward(dZ, cache):
        A, W, _ = cache
        m = A.shape[1]
        return W.T @ dZ, dZ @ A.T / m, dZ.sum(axis=1, keepdims=True) / (m if divide_b else 1)

    return backward


def test_the_mean_of_the_cost_in_all_parameters_is_a_convention():
    report = sa.check_backward(linear, linear_backward(True), *COLUMNS)
    assert [row.verdict for row in report.rows] == ["exact", "wrong", "wrong"]
    assert all(has(row, "mean_of_cost") and has(row, "averaged_over") for row in report.rows[1:])


def test_the_mean_of_the_cost_in_one_of_them_is_a_slip():
    report = sa.check_backward(linear, linear_backward(False), *COLUMNS)
    assert has(report.rows[1], "averaged_over", n=7.0)
    assert not has(report.rows[1], "mean_of_cost")


@pytest.mark.usefixtures("no_lines")
def test_the_gradient_of_a_loss_combined_with_its_activation():
    def bce(A, Y):
        return -np.mean(Y * np.log(A) + (1 - Y) * np.log(1 - A)), (A, Y)

    A, Y = RNG.uniform(0.1, 0.9, size=6), np.array([0.0, 1, 1, 0, 1, 0])
    backward = lambda d, c: d * (c[0] - c[1]) / len(c[0])  # noqa: E731
    row = sa.check_backward(bce, backward, A, Y).rows[0]
    assert (row.verdict, has(row, "combined", activation="sigmoid")) == ("wrong", True)

    def cross_entropy(p, t):
        return -np.mean(np.log(p[np.arange(len(p)), t])), (p, t)

    p = RNG.uniform(0.5, 1, size=(5, 3))
    p /= p.sum(axis=1, keepdims=True)
    backward = lambda d, c: d * (c[0] - np.eye(3)[c[1]]) / len(c[0])  # noqa: E731
    row = sa.check_backward(cross_entropy, backward, p, np.array([0, 1, 2, 1, 0])).rows[0]
    assert has(row, "combined", activation="softmax")


@pytest.mark.parametrize("power", [1, 2])
def test_an_activation_that_leaves_its_derivative_to_the_loss(power):
    def sigmoid(x):
        return 1 / (1 + np.exp(-x)), x

    row = sa.check_backward(sigmoid, lambda d, x: d**power, X).rows[0]
    assert has(row, "passed_on") == (power == 1)


def net(p, x, t):
    return np.mean((np.tanh(x @ p["W1"] + p["b1"]) @ p["W2"] - t) ** 2)


def net_gradient(p, x, t):
    h = np.tanh(x @ p["W1"] + p["b1"])
    e = 2 * (h @ p["W2"] - t) / len(x)
    da = np.outer(e, p["W2"]) * (1 - h**2)
    return {"W1": x.T @ da, "b1": da.sum(axis=0), "W2": h.T @ e}


def scaled_to(grads, norm):
    own = np.sqrt(sum((g**2).sum() for g in grads.values()))
    return {k: g * min(1, norm / own) for k, g in grads.items()}


CONVENTIONS = {
    "a sum": (lambda p, g: {k: 6 * v for k, v in g.items()}, "of_loss"),
    "clipped": (lambda p, g: {k: np.clip(v, -0.1, 0.1) for k, v in g.items()}, "clipped"),
    "clipped by the norm": (lambda p, g: scaled_to(g, 0.5), "clipped_norm"),
    "weight decay": (lambda p, g: {k: v + 0.01 * p[k] for k, v in g.items()}, "term"),
}


@pytest.mark.usefixtures("no_lines")
@pytest.mark.parametrize("name", CONVENTIONS)
def test_what_is_done_to_all_gradients_of_a_loss(name):
    change, kind = CONVENTIONS[name]
    report = sa.check_gradient(
        net, lambda p, *data: change(p, net_gradient(p, *data)), PARAMS, X, T
    )
    assert not report.ok
    assert {row.name for row in report.rows if kind in kinds(row)} >= {"W1", "W2"}


@pytest.mark.usefixtures("no_lines")
def test_one_gradient_of_a_loss_that_is_summed_is_a_slip():
    def gradient(p, *data):
        g = net_gradient(p, *data)
        return {**g, "W1": len(data[0]) * g["W1"]}

    row = sa.check_gradient(net, gradient, PARAMS, X, T).rows[0]
    assert has(row, "mean_missing")
    assert not has(row, "of_loss")


@pytest.mark.usefixtures("no_lines")
def test_the_gradients_of_the_parameters_alone_are_scaled_to_a_norm():
    def backward(dout, cache):
        x, w = cache
        grads = scaled_to({"w": x.T @ dout, "b": dout.sum(axis=0)}, 0.25)
        return dout @ w.T, grads["w"], grads["b"]

    w, b = PARAMS["W1"], PARAMS["b1"]
    rows = sa.check_backward(lambda x, w, b: (x @ w + b, (x, w)), backward, X, w, b).rows
    assert [has(row, "clipped_norm", norm=0.25) for row in rows] == [False, True, True]
