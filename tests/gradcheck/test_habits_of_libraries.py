"""Layers, pairs and losses as libraries write them, each right, and each with a mistake."""

import numpy as np
import pytest

import spiral_autograd as sa
from tests.findings import has

pytestmark = pytest.mark.usefixtures("verdicts_alone")

rng = np.random.default_rng(11)
x, t = rng.normal(size=(4, 3)), rng.normal(size=(4, 3))


def sigmoid(z):
    return 1 / (1 + np.exp(-z))


def verdicts(report):
    return {row.name: row.verdict in ("exact", "match") for row in report.rows}


# -------------------- derivatives in the place of a backward pass --------------------


class OfItsInput:
    """Its backward takes what its forward takes, and returns the derivative."""

    def forward(self, z):
        return sigmoid(z)

    def backward(self, z):
        return sigmoid(z) * (1 - sigmoid(z))


class Mistaken(OfItsInput):
    def backward(self, z):
        return sigmoid(z) * (1 + sigmoid(z))


class NamedForTheInput:
    """Its backward takes an upstream gradient under the name of an input."""

    def forward(self, x):
        self.mask = x > 0
        return x * self.mask

    def backward(self, x):
        return x * self.mask


def test_a_backward_of_the_input_is_a_derivative():
    report = sa.check_layer(OfItsInput(), x)
    assert report.ok
    assert has(report.remarks, "called_with", times=True)
    assert not sa.check_layer(Mistaken(), x).ok
    assert sa.check_layer(NamedForTheInput(), x).ok


def test_a_function_and_its_derivative_are_a_pair():
    def of_input(x):
        return sigmoid(x) * (1 - sigmoid(x))

    def of_output(y):
        return y * (1 - y)

    def mistaken(x):
        return sigmoid(x) * (1 + sigmoid(x))

    for derivative in (of_input, of_output):
        report = sa.check_backward(sigmoid, derivative, x)
        assert report.ok
        assert has(report.remarks, "takes")
    assert not sa.check_backward(sigmoid, mistaken, x).ok


# -------------------- losses with the targets first --------------------


def mse(y_true, y_pred):
    return np.mean((y_true - y_pred) ** 2)


def mse_prime(y_true, y_pred):
    return 2 * (y_pred - y_true) / y_true.size


def test_a_gradient_is_that_of_the_scores_where_the_targets_come_first():
    report = sa.check_gradient(mse, mse_prime, t, x)
    assert (report.ok, [row.name for row in report.rows]) == (True, ["y_pred"])
    report = sa.check_gradient(mse, lambda y_true, y_pred: -mse_prime(y_true, y_pred), t, x)
    assert not report.ok


@pytest.mark.parametrize("wrapped", [lambda g: g, lambda g: (g, None)])
def test_a_loss_layer_with_the_targets_first(wrapped):
    class Loss:
        sign = 1

        def __call__(self, y_true, y_pred):
            self.given = y_true, y_pred
            return mse(y_true, y_pred)

        def backward(self):
            return wrapped(self.sign * mse_prime(*self.given))

    loss = Loss()
    assert verdicts(sa.check_layer(loss, t, x)) == {"y_pred": True}
    loss.sign = -1
    assert verdicts(sa.check_layer(loss, t, x)) == {"y_pred": False}


@pytest.mark.parametrize("name", "theta table tokens transition tensor teta trend".split())
def test_what_only_begins_like_targets_is_a_parameter(name):
    loss = eval(f"lambda {name}, y: np.sum(({name} - y) ** 2)", {"np": np})
    right, wrong = (eval(f"lambda {name}, y: {c} * ({name} - y)") for c in (2, -2))
    assert verdicts(sa.check_gradient(loss, right, x, t)) == {name: True}
    assert verdicts(sa.check_gradient(loss, wrong, x, t)) == {name: False}


def test_targets_are_no_nest_of_parameters():
    def loss(t, y):
        return np.sum((t["a"] * t["b"] - y) ** 2)

    def gradient(t, y):
        d = 2 * (t["a"] * t["b"] - y)
        return {"a": d * t["b"], "b": d * t["a"]}

    nest = {"a": x, "b": x + 1}
    assert verdicts(sa.check_gradient(loss, gradient, nest, x)) == {"a": True, "b": True}


def test_both_arguments_of_a_layer_have_gradients_whatever_their_names():
    class Product:
        def forward(self, t, y):
            self.t, self.y = t, y
            return t * y

        def backward(self, dout):
            return dout * self.y, dout * self.t

    assert verdicts(sa.check_layer(Product(), x, x + 1)) == {"t": True, "y": True}


def test_a_cost_with_a_cache_beside():
    def forward(X, Y, parameters):
        y = sigmoid(parameters["W"] @ X)
        cost = -np.sum(Y * np.log(y) + (1 - Y) * np.log(1 - y)) / X.shape[1]
        return cost, (y, parameters["W"]), y

    def backward(X, Y, cache):
        return {"dW": (cache[0] - Y) @ X.T / X.shape[1]}

    def mistaken(X, Y, cache):
        return {"dW": (cache[0] - Y) @ X.T}

    targets, given = (rng.normal(size=(1, 3)) > 0) * 1.0, {"W": rng.normal(size=(1, 4))}
    assert verdicts(sa.check_backward(forward, backward, x, targets, given)) == {"W": True}
    assert verdicts(sa.check_backward(forward, mistaken, x, targets, given)) == {"W": False}


# -------------------- refused, with a way out --------------------


def test_a_network_that_takes_targets_backwards_is_no_layer():
    class Net:
        def __init__(self):
            self.W = rng.normal(size=(3, 3))

        def forward(self, X):
            self.X = X
            return X @ self.W

        def backward(self, X, y, lr=0.1):
            self.W -= lr * X.T @ (self.forward(X) - y)

    with pytest.raises(sa.CheckError, match=r"check_network\(net, x, y\)"):
        sa.check_layer(Net(), x)


# -------------------- a reset that breaks the layer --------------------


class Resettable:
    slip = 1.0

    def __init__(self):
        self.W, self.grads = rng.normal(size=(3, 2)), {"W": None}

    def zero_grad(self):
        self.grads["W"] = []

    def forward(self, x):
        self.x = x
        return x @ self.W

    def backward(self, dout):
        dW = self.slip * self.x.T @ dout
        self.grads["W"] = dW if self.grads["W"] is None else dW + self.grads["W"]
        return dout @ self.W.T


class MadeByForward(Resettable):
    """Its parameters, and what its reset breaks, are made by the first forward pass."""

    def __init__(self):
        self.grads = {}

    def zero_grad(self):
        self.grads = {key: [] for key in self.grads}

    def forward(self, x):
        if not self.grads:
            super().__init__()
        return super().forward(x)


@pytest.mark.parametrize("kind", [Resettable, MadeByForward])
def test_a_reset_behind_which_a_layer_fails_is_left_out(kind):
    layer = kind()
    report = sa.check_layer(layer, x)
    assert verdicts(report) == {"x": True, "W": True}
    assert has(report.remarks, "fails_behind_reset")
    layer.slip = 2.0
    assert verdicts(sa.check_layer(layer, x)) == {"x": True, "W": False}


# -------------------- dicts of the same keys --------------------


class InDicts:
    """Keeps parameters and gradients in dicts whose names say nothing."""

    wrong = False

    def __init__(self):
        self.p = {"U": rng.normal(size=(3, 3)), "V": rng.normal(size=(3, 3))}

    def forward(self, x):
        self.x, self.h = x, np.tanh(x @ self.p["U"])
        return self.h @ self.p["V"]

    def backward(self, dout):
        dz = dout @ self.p["V"].T * (1 - self.h**2)
        self.g = {"U": self.x.T @ dz, "V": (self.x if self.wrong else self.h).T @ dout}
        return dz @ self.p["U"].T


def test_dicts_of_the_same_keys_belong_together():
    layer = InDicts()
    assert verdicts(sa.check_layer(layer, x)) == {"x": True, "p.U": True, "p.V": True}
    layer.wrong = True
    assert verdicts(sa.check_layer(layer, x)) == {"x": True, "p.U": True, "p.V": False}


# -------------------- names that say it by their likeness, or as changes --------------------


@pytest.mark.parametrize("form", ["{}_update", "{}_zz"])
@pytest.mark.parametrize("is_wrong", [False, True])
def test_a_gradient_is_named_as_another_is_or_as_a_change(form, is_wrong):
    class Named:
        def __init__(self):
            self.kernel, self.offset = rng.normal(size=(3, 2)), rng.normal(size=2)

        def forward(self, x):
            self.x = x
            return x @ self.kernel + self.offset

        def backward(self, dout):
            setattr(self, form.format("kernel"), self.x.T @ dout)
            setattr(self, form.format("offset"), dout.max(0) if is_wrong else dout.sum(0))
            return dout @ self.kernel.T

    said = {"x": True, "kernel": True, "offset": not is_wrong}
    assert verdicts(sa.check_layer(Named(), x)) == said


def test_parameters_in_an_object():
    class Params:
        def __init__(self, W, b):
            self.W, self.b = W, b

    def loss(p, x):
        return np.sum(np.tanh(x @ p.W + p.b))

    def gradient(p, x, slip=1.0):
        d = 1 - np.tanh(x @ p.W + p.b) ** 2
        return Params(x.T @ d, slip * d.sum(axis=0))

    given = Params(rng.normal(size=(3, 2)), rng.normal(size=2))
    assert verdicts(sa.check_gradient(loss, gradient, given, x)) == {"W": True, "b": True}
    report = sa.check_gradient(loss, lambda p, x: gradient(p, x, 2.0), given, x)
    assert verdicts(report) == {"W": True, "b": False}


def test_gradients_in_an_object():
    class Holder:
        def __init__(self, **held):
            self.__dict__.update(held)

    def forward(x, W):
        return np.tanh(x @ W), Holder(x=x, W=W, y=np.tanh(x @ W))

    def backward(dout, cache, slip=1.0):
        dz = dout * (1 - cache.y**2)
        return Holder(dx=dz @ cache.W.T, dW=slip * cache.x.T @ dz)

    W = rng.normal(size=(3, 2))
    assert verdicts(sa.check_backward(forward, backward, x, W)) == {"x": True, "W": True}
    report = sa.check_backward(forward, lambda dout, cache: backward(dout, cache, 0.5), x, W)
    assert verdicts(report) == {"x": True, "W": False}


# -------------------- nests, views of one vector, rates by default --------------------


def test_lists_of_parameters_of_a_pair():
    def forward(x, params):
        cache = []
        for W, b in params:
            cache.append((x, W))
            x = x @ W + b
        return x, cache

    def backward(dout, cache, slip=1.0):
        grads = []
        for x, W in cache[::-1]:
            grads.insert(0, (x.T @ dout, slip * dout.sum(axis=0)))
            dout = dout @ W.T
        return dout, grads

    given = [(rng.normal(size=(3, 4)), rng.normal(size=4)), (rng.normal(size=(4, 2)), np.ones(2))]
    report = sa.check_backward(forward, backward, x, given)
    assert (report.ok, len(report.rows), report.unchecked) == (True, 5, ())
    report = sa.check_backward(forward, lambda dout, cache: backward(dout, cache, 2.0), x, given)
    assert [row.verdict for row in report.rows if "1" in row.name[-3:]] == ["wrong", "wrong"]


def test_parameters_of_a_pair_that_have_no_gradient_are_said():
    def forward(x, params):
        return x @ params[0], (x, params)

    def backward(dout, cache):
        return dout @ cache[1][0].T

    report = sa.check_backward(forward, backward, x, [rng.normal(size=(3, 2))])
    assert report.unchecked == ("params[0]",)


@pytest.mark.parametrize("slip", [1.0, 2.0])
def test_views_of_one_vector_of_parameters(slip):
    class Flat:
        def __init__(self):
            self.theta, self.dtheta = rng.normal(size=8), np.zeros(8)
            self.W, self.b = self.theta[:6].reshape(3, 2), self.theta[6:]
            self.dW, self.db = self.dtheta[:6].reshape(3, 2), self.dtheta[6:]

        def forward(self, x):
            self.x = x
            return x @ self.W + self.b

        def backward(self, dout):
            self.dW[:], self.db[:] = self.x.T @ dout, slip * dout.sum(axis=0)
            return dout @ self.W.T

    assert verdicts(sa.check_layer(Flat(), x)) == {"x": True, "theta": slip == 1}


@pytest.mark.parametrize("lacks", [False, True])
def test_a_rate_that_is_one_by_default(lacks):
    class Updating:
        def __init__(self):
            self.W, self.b = rng.normal(size=(3, 2)), rng.normal(size=2)

        def forward(self, x):
            self.x = x
            return x @ self.W + self.b

        def backward(self, dout, lr=1.0):
            dx = dout @ self.W.T
            self.W -= lr * (self.x.T @ dout)
            self.b -= (1 if lacks else lr) * dout.sum(axis=0)
            return dx

    said = {"x": True, "W": True, "b": not lacks}
    assert verdicts(sa.check_layer(Updating(), x)) == said
