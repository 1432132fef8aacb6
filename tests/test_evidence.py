"""Which array is the gradient of which parameter, under whatever names."""

import numpy as np
import pytest

import spiral_autograd as sa

rng = np.random.default_rng(7)
x, W0, b0 = rng.normal(size=(5, 4)), rng.normal(size=(4, 3)), np.array([0.3, -0.2, 0.5])


def mistaken(dW):
    """No multiple of the true one."""
    return dW * np.linspace(1, 2, dW.size).reshape(dW.shape)


MISTAKES = {"right": lambda dW: dW, "doubled": lambda dW: 2 * dW, "mistaken": mistaken}


class Kept:
    """Keeps its parameters in some way; subclasses say which, and where the gradients go."""

    def __init__(self, change):
        self.change = change
        self.keep(W0.copy(), b0.copy())

    def forward(self, x):
        W, b = self.held()
        self.x = x
        return np.tanh(x @ W + b)

    def backward(self, dout):
        W, b = self.held()
        dz = dout * (1 - np.tanh(self.x @ W + b) ** 2)
        self.write(self.change(self.x.T @ dz), dz.sum(axis=0))
        return dz @ W.T


class InDict(Kept):
    def keep(self, W, b):
        self.params = {"W": W, "b": b}

    def held(self):
        return self.params["W"], self.params["b"]

    def write(self, dW, db):
        self.dW, self.db = dW, db


class InDictOfDicts(InDict):
    def keep(self, W, b):
        self.model = {"first": {"W": W, "b": b}}

    def held(self):
        return self.model["first"].values()

    def write(self, dW, db):
        self.grad_model = {"first": {"W": dW, "b": db}}


class InDicts(InDict):
    """Two lists of dicts, each with keys of its own."""

    def keep(self, W, b):
        self.blocks = [{"W": W}, {"W": np.eye(3), "b": b}]

    def held(self):
        return self.blocks[0]["W"] @ self.blocks[1]["W"], self.blocks[1]["b"]

    def write(self, dW, db):
        A, B = self.blocks[0]["W"], self.blocks[1]["W"]
        self.steps = [{"dW": dW @ B.T}, {"dW": A.T @ dW, "db": db}]


class InObject(InDict):
    """In an object that is no layer, with the gradients outside of it."""

    def keep(self, W, b):
        self.theta = type("Theta", (), {})()
        self.theta.W, self.theta.b = W, b

    def held(self):
        return self.theta.W, self.theta.b

    def write(self, dW, db):
        self.W_diff, self.b_diff = dW, db


class Packed(InDict):
    """In one vector, of which forward makes views."""

    def keep(self, W, b):
        self.theta = np.concatenate([W.ravel(), b])

    def held(self):
        self.W, self.b = self.theta[:12].reshape(4, 3), self.theta[12:]
        return self.W, self.b

    def write(self, dW, db):
        self.dW, self.db = dW, db


class Transposed(InDict):
    """Forward makes a transposed view, and backward has the gradient of that."""

    def keep(self, W, b):
        self.kernel, self.b = W.T.copy(), b

    def held(self):
        self.W = self.kernel.T
        return self.W, self.b

    def write(self, dW, db):
        self.dW, self.db = dW, db


class TwoNames(InDict):
    def keep(self, W, b):
        self.kernel = self.weights = W
        self.bias = self.b = b

    def held(self):
        return self.kernel, self.b

    def write(self, dW, db):
        self.dweights, self.db = dW, db


def named(pattern):
    class Named(InDict):
        def keep(self, W, b):
            self.W, self.b = W, b

        def held(self):
            return self.W, self.b

        def write(self, dW, db):
            setattr(self, pattern.format("W"), dW)
            setattr(self, pattern.format("b"), db)

    Named.__name__ = pattern
    return Named


PATTERNS = """{}_diff dEd{} dE_d{} d_{} d_c_{} dc_d{} grad{} {}grad delta_{} {}_delta Grad{} {}_g
d{}_total diff_{} d_loss_{} {}_derivative nabla_{} dloss_d{} g{} {}Gradient {}_gradients_""".split()


@pytest.mark.parametrize("change", MISTAKES)
@pytest.mark.parametrize(
    "kind",
    [InDict, InDictOfDicts, InDicts, InObject, Packed, Transposed, TwoNames, *map(named, PATTERNS)],
    ids=lambda kind: kind.__name__,
)
def test_each_parameter_is_held_against_its_own_gradient(kind, change):
    report = sa.check_layer(kind(MISTAKES[change]), x)
    assert report.unchecked == (), str(report)
    assert report.ok == (change == "right"), str(report)
    wrong = [row.name for row in report.rows if row.verdict == "wrong"]
    assert len(wrong) == (0 if change == "right" else 2 if kind is InDicts else 1), str(report)


def test_an_array_of_any_name_is_the_gradient_that_it_equals():
    for name in ("u", "foo", "buffer_3"):

        class Odd(named("d{}")):
            def write(self, dW, db, name=name):
                setattr(self, name, dW)
                self.db = db

        report = sa.check_layer(Odd(MISTAKES["right"]), x)
        assert report.unchecked == (), str(report)
        report = sa.check_layer(Odd(MISTAKES["doubled"]), x)
        assert not report.ok, str(report)
        report = sa.check_layer(Odd(MISTAKES["mistaken"]), x)  # what it is, nobody can tell
        assert report.unchecked == ("W",), str(report)


class Momentum(InDict):
    """Keeps a velocity, and no gradient."""

    def keep(self, W, b):
        self.W, self.b, self.vW, self.m_b = W, b, np.zeros_like(W), np.zeros_like(b)

    def held(self):
        return self.W, self.b

    def write(self, dW, db):
        self.vW = 0.9 * self.vW - 0.1 * dW
        self.m_b = 0.9 * self.m_b + 0.1 * db


def test_a_velocity_is_no_gradient():
    report = sa.check_layer(Momentum(MISTAKES["right"]), x)
    assert report.ok, str(report)
    assert set(report.unchecked) == {"W", "b"}
