"""Mistakes that do not show at the values that a layer begins with."""

import numpy as np
import pytest
from findings import has

import spiral_autograd as sa

rng = np.random.default_rng(5)
x, W0 = rng.normal(size=(5, 3)), rng.normal(size=(3, 3))


class Scale:
    """gamma x + beta, with the input's gradient given."""

    def __init__(self, gamma, beta=None, dx=lambda d, gamma: d * gamma):
        self.gamma, self.beta = gamma, np.zeros(3) if beta is None else beta
        self.dx = dx

    def forward(self, x):
        self.x = x
        return np.sin(x) * self.gamma + self.beta

    def backward(self, dout):
        self.dgamma, self.dbeta = np.sum(dout * np.sin(self.x), axis=0), np.sum(dout, axis=0)
        return self.dx(dout, self.gamma) * np.cos(self.x)


class Product:
    """x @ W, or something that is the same for some W."""

    def __init__(self, W, dx=lambda d, W: d @ W.T):
        self.W, self.dx = W, dx

    def forward(self, x):
        self.x = x
        return x @ self.W

    def backward(self, dout):
        self.dW = self.x.T @ dout
        return self.dx(dout, self.W)


class Squared:
    """(x + b)², in which the bias is forgotten."""

    def __init__(self, b, right=False):
        self.b, self.right = b, right

    def forward(self, x):
        self.x = x
        return (x + self.b) ** 2

    def backward(self, dout):
        dx = 2 * dout * (self.x + (self.b if self.right else 0))
        self.db = dx.sum(axis=0)
        return dx


RIGHT = [
    lambda: Scale(np.ones(3)),
    lambda: Scale(-np.ones(3)),
    lambda: Scale(np.zeros(3)),
    lambda: Product(np.eye(3)),
    lambda: Product(W0 + W0.T),
    lambda: Product(np.full((3, 3), 0.1)),
    lambda: Squared(np.zeros(3), right=True),
]
HIDDEN = [
    (lambda: Scale(np.ones(3), dx=lambda d, gamma: d), "x"),
    (lambda: Scale(np.ones(3), dx=lambda d, gamma: d / gamma), "x"),
    (lambda: Scale(-np.ones(3), dx=lambda d, gamma: d / gamma), "x"),
    (lambda: Scale(np.full(3, 2.0), dx=lambda d, gamma: d * gamma.mean()), "x"),
    (lambda: Product(np.eye(3), dx=lambda d, W: d @ W), "x"),
    (lambda: Product(W0 + W0.T, dx=lambda d, W: d @ W), "x"),
    (lambda: Product(np.full((3, 3), 0.1), dx=lambda d, W: d @ W), "x"),
    (lambda: Squared(np.zeros(3)), "x b"),
]


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize("make", RIGHT)
def test_right_layers_at_special_values_stay_right_and_nothing_is_said(make, dtype):
    layer = make()
    for name, value in vars(layer).items():
        if isinstance(value, np.ndarray):
            setattr(layer, name, value.astype(dtype))
    report = sa.check_layer(layer, x.astype(dtype))
    assert report.ok, str(report)
    assert report.notes == ()


@pytest.mark.usefixtures("verdicts_alone")
@pytest.mark.parametrize(("make", "names"), HIDDEN)
def test_mistakes_that_special_values_hide_are_found(make, names):
    layer = make()
    before = {name: np.array(v) for name, v in vars(layer).items() if isinstance(v, np.ndarray)}
    report = sa.check_layer(layer, x)
    assert not report.ok
    rows = {row.name: row for row in report.rows}
    assert [name for name, row in rows.items() if row.verdict == "wrong"] == names.split()
    assert has(rows["x"], "hidden")
    assert all(np.array_equal(getattr(layer, name), value) for name, value in before.items())


def test_a_column_of_ones_is_no_column_of_probabilities():
    def forward(x, gamma):
        return np.sin(x) * gamma, (x, gamma)

    def backward(dout, cache):
        x, _ = cache
        return dout * np.cos(x), np.sum(dout * np.sin(x), axis=1, keepdims=True)

    assert not sa.check_backward(forward, backward, x, np.ones((5, 1))).ok


def test_zeros_hide_a_gradient_that_is_never_written():
    class LowRank:
        def __init__(self):
            self.A, self.B = rng.normal(size=(3, 2)), np.zeros((2, 3))

        def forward(self, x):
            self.x = x
            return x @ self.A @ self.B

        def backward(self, dout):
            self.dA, self.dB = np.zeros((3, 2)), self.A.T @ self.x.T @ dout
            return dout @ self.B.T @ self.A.T

    report = sa.check_layer(LowRank(), x)
    assert [row.verdict in ("exact", "match") for row in report.rows] == [True, False, True]


@pytest.mark.usefixtures("no_lines")
def test_inputs_of_functions_too():
    def forward(x, gamma):
        return x * gamma, (x, gamma)

    def backward(dout, cache):
        x, _ = cache
        return dout, np.sum(dout * x, axis=0)

    assert not sa.check_backward(forward, backward, x, np.ones(3)).ok

    def loss(params):
        return np.sum((x * params["gamma"] + params["beta"]) ** 3)

    def gradient(params, b=0):
        dz = 3 * (x * params["gamma"] + b) ** 2
        return {"gamma": np.sum(dz * x, axis=0), "beta": np.sum(dz, axis=0)}

    params = {"gamma": np.ones(3), "beta": np.zeros(3)}
    assert not sa.check_gradient(loss, gradient, params).ok
    assert sa.check_gradient(loss, lambda p: gradient(p, p["beta"]), params).ok
    report = sa.check_gradient(loss, gradient(params), params)  # finished gradients
    assert len(report.findings) == 2
    assert report.findings[0].kind == "may_hide"


@pytest.mark.parametrize("factor", [0.4, 1.0])
def test_at_the_least_loss_any_factor_is_right(factor):
    def loss(w, x, y):
        return np.mean((x @ w - y) ** 2)

    def gradient(w, x, y):
        return factor * x.T @ (x @ w - y)

    w = np.array([1.0, -2.0, 3.0])
    report = sa.check_gradient(loss, gradient, w, x, x @ w)
    assert report.ok == (factor == 0.4)
    assert has(report.rows[0], "hidden") != report.ok
    assert report.notes == ()


@pytest.mark.usefixtures("verdicts_alone")
def test_an_input_that_is_the_same_everywhere():
    class Cube:
        def __init__(self, right):
            self.right = right

        def forward(self, x):
            self.x = x
            return x**3

        def backward(self, dout):
            return 3 * dout * (self.x**2 if self.right else self.x)

    for value in (np.ones((4, 3)), np.ones(3), np.array(1.0)):
        report = sa.check_layer(Cube(right=True), value)
        assert report.ok
        assert report.notes == ()
        assert not sa.check_layer(Cube(right=False), value).ok


def test_where_other_values_are_outside_of_the_domain_the_report_says_so():
    class Arcsine:
        def __init__(self):
            self.p = np.full(3, 0.999)

        def forward(self, x):
            if np.any(self.p > 1):
                raise ValueError("no probability")
            self.x = x
            return x * np.arcsin(self.p)

        def backward(self, dout):
            self.dp = np.sum(dout * self.x, axis=0) / np.sqrt(1 - self.p**2)
            return dout * np.arcsin(self.p)

    layer = Arcsine()
    report = sa.check_layer(layer, x)
    assert report.ok, str(report)
    assert has(report, "may_hide", name="p")
    assert np.array_equal(layer.p, np.full(3, 0.999))


def test_probabilities_stay_probabilities():
    """The gradient of a loss that knows that the rows of its input sum to one."""

    class Surprise:
        def forward(self, p):
            if not np.allclose(p.sum(axis=1), 1):
                raise ValueError("no probabilities")
            self.p = p
            return p * np.log(p)

        def backward(self, dout):
            return dout * (np.log(self.p) + 1)

    report = sa.check_layer(Surprise(), np.full((4, 3), 1 / 3))
    assert report.ok, str(report)


def test_a_matrix_that_stays_symmetric_may_be_meant_so():
    """Of a symmetric matrix, by which the gradient is symmetric too."""

    class Quadratic:
        def __init__(self):
            self.A = W0 + W0.T

        def forward(self, x):
            self.x = x
            return np.sum(x @ self.A * x)

        def backward(self, dout=1.0):
            self.dA = dout * self.x.T @ self.x
            return 2 * dout * self.x @ self.A

    assert sa.check_layer(Quadratic(), x).ok


def test_marks_are_not_moved():
    def loss(params):
        h = sa.tap("h", np.tanh(x @ params["W"]))
        return np.sum(h**3)

    def gradient(params):
        h = np.tanh(x @ params["W"])
        return {"dh": 3 * h**2, "dW": x.T @ (3 * h**2 * (1 - h**2))}

    for W in (W0, np.eye(3)):
        report = sa.check_gradient(loss, gradient, {"W": W})
        assert report.ok, str(report)
        assert report.notes == ()


def test_of_a_matrix_of_one_entry_no_transpose_shows():
    one = sa.check_layer(Product(np.array([[0.7]]), dx=lambda d, W: d @ W), x[:, :1])
    assert has(one, "one_by_one", names=["W"])
    assert sa.check_layer(Product(W0), x).notes == ()


@pytest.mark.usefixtures("no_lines")
def test_a_layer_that_returns_its_own_buffer_is_looked_at_elsewhere_too():
    class Buffered(Scale):
        def forward(self, x):
            self.out[...] = super().forward(x)
            return self.out

    right = Buffered(np.ones(3))
    wrong = Buffered(np.ones(3), dx=lambda d, gamma: d * gamma**2)
    for layer in (right, wrong):
        layer.out = np.zeros((5, 3))
    report = sa.check_layer(right, x)
    assert report.ok, str(report)
    assert not has(report, "may_hide")
    assert not sa.check_layer(wrong, x).ok
