"""What backward is called with, what it returns, and what it changes: told by names or evidence."""

import numpy as np
import pytest
from corpus import calls
from corpus.check import Sizes
from findings import has, parts

import spiral_autograd as sa

SLIPS = {
    "linear_of_x": ("LinearLayer", "W"),
    "hadamard": ("Hadamard", "a"),
    "logistic_of_y": ("Logistic", "z"),
    "object_with_cache": ("Cached", "W"),
    "swish_gradient": ("Swish", "x"),
    "square_loss": ("SquareLoss", "y_pred"),
    "loss_of_each": ("LossOfEach", "y_pred"),
    "parameters_first": ("ParametersFirst", "W"),
    "named_tuple": ("Named", "W"),
    "concatenate": ("Concatenate", "inputs[0] inputs[1] inputs[2]"),
    "updating": ("Updating", "W"),
    "updating_columns": ("Columns", "weights"),
    "updating_at_rate": ("AtRate", "W"),
}
x = np.random.default_rng(1).normal(size=(5, 4))


def rng(seed=0):
    return np.random.default_rng(seed)


def wrong_rows(report):
    return [row.name for row in report.rows if row.verdict in ("wrong", "missing")]


@pytest.mark.usefixtures("verdicts_alone")
@pytest.mark.parametrize("name", calls.CHECKS)
def test_a_slip_is_found_whatever_the_call(name, monkeypatch):
    kind, rows = SLIPS[name]
    report = calls.CHECKS[name](rng(), Sizes())()
    assert report.ok
    assert not report.unchecked
    monkeypatch.setattr(getattr(calls, kind), "slip", 1.5)
    assert wrong_rows(calls.CHECKS[name](rng(), Sizes())(budget=0.5)) == rows.split()


def test_the_call_is_said_where_no_name_tells_it():
    report = calls.CHECKS["logistic_of_y"](rng(), Sizes())()
    assert has(report.remarks, "called_with", arguments=[("upstream", 0), ("output", 0)])
    report = calls.CHECKS["linear_of_x"](rng(), Sizes())()
    assert not has(report.remarks, "called_with")


def test_an_upstream_gradient_by_its_name_is_nothing_else():
    def sigmoid(x):
        return 1 / (1 + np.exp(-x))

    def of_upstream(x, dout):
        return dout * (1 - dout)  # right, if it were given the output

    def of_output(x, out):
        return out * (1 - out)

    assert wrong_rows(sa.check_backward(sigmoid, of_upstream, x)) == ["x"]
    report = sa.check_backward(sigmoid, of_output, x)
    assert report.ok
    assert has(report, "called_with", arguments=[("input", "x"), ("output", 0)])


@pytest.mark.parametrize(("times", "is_right"), [(1, True), (2, False)])
def test_an_optional_upstream_gradient_is_that_of_the_loss_and_not_of_a_count(times, is_right):
    class SoftmaxWithLoss:
        def forward(self, x, t):
            e = np.exp(x - x.max(axis=1, keepdims=True))
            self.y, self.t = e / e.sum(axis=1, keepdims=True), t
            right = int(np.sum(self.y.argmax(axis=1) == t))
            return -np.mean(np.log(self.y[np.arange(len(t)), t])), right

        def backward(self, d_out=1):
            dx = self.y.copy()
            dx[np.arange(len(dx)), self.t] -= 1
            return times * d_out * dx / len(dx)

    report = sa.check_layer(SoftmaxWithLoss(), x, np.array([0, 1, 2, 3, 0]))
    assert report.ok is is_right, str(report)


def test_where_no_gradient_can_tell_that_is_said():
    class Sign:
        def forward(self, x):
            return np.sign(x)

        def backward(self, dout):
            return 0 * dout

    assert has(sa.check_layer(Sign(), x), "never_any_slope")
    assert not has(sa.check_layer(Sign(), np.sign(x)), "may_hide")


@pytest.mark.parametrize(
    "names",
    [
        *("y_model, y_true", "y, y_true", "y_hat, y", "y_pred, target", "prediction, y", "A, Y"),
        *("values, y_true", "estimate, truth", "simulated, observed", "prob, onehot", "x, t"),
    ],
)
@pytest.mark.parametrize("is_first", [False, True])
def test_the_gradient_of_a_loss_is_not_that_of_the_targets(names, is_first):
    scores, targets = names.split(", ")
    taken = f"{targets}, {scores}" if is_first else names
    space = {"np": np}
    exec(
        f"class Loss:\n"
        f"    def forward(self, {taken}): return 0.5 * np.sum(({scores} - {targets}) ** 2)\n"
        f"    def backward(self, {taken}): return {scores} - {targets}\n",
        space,
    )
    report = sa.check_layer(space["Loss"](), x, rng(1).normal(size=x.shape))
    assert [row.name for row in report.rows] == [scores], str(report)
    assert report.ok


def test_a_loss_is_given_its_input_as_dvalues():
    class CrossEntropy:
        def forward(self, y_pred, y_true):  # of each output
            return -(y_true * np.log(y_pred) + (1 - y_true) * np.log(1 - y_pred))

        def backward(self, dvalues, y_true):
            self.dinputs = (dvalues - y_true) / (dvalues * (1 - dvalues)) / dvalues.size

    y, t = rng(2).uniform(0.1, 0.9, (5, 2)), rng(3).integers(2, size=(5, 2))
    report = sa.check_layer(CrossEntropy(), y, t)
    assert report.ok, str(report)
    assert has(report, "called_with", arguments=[("input", "y_pred"), ("input", "y_true")])


def test_the_gradients_of_a_tuple_s_entries_stand_in_a_dict_by_any_names():
    def forward(x, weights):
        w, b = weights
        return x @ w + b

    def backward(x, weights, dout):
        return {"x": dout @ weights[0].T, "w": x.T @ dout, "b": dout.sum(axis=0)}

    def without_bias(x, weights, dout):
        return {"x": dout @ weights[0].T, "w": x.T @ dout}

    weights = rng(1).normal(size=(x.shape[1], 2)), np.zeros(2)
    report = sa.check_backward(forward, backward, x, weights)
    assert report.ok
    assert [row.name for row in report.rows] == ["x", "weights[0]", "weights[1]"]
    assert not sa.check_backward(forward, without_bias, x, weights).ok


def test_an_activation_is_given_its_input_or_its_output():
    class Tanh:
        def forward(self, x):
            return np.tanh(x)

        def derivative(self, y):
            return 1 - y**2

    class OfInput(Tanh):
        def derivative(self, x):
            return 1 - x**2  # of the output, and given the input

    report = sa.check_layer(Tanh(), x)
    assert report.ok
    assert has(report.remarks, "called_with", arguments=[("output", 0)], times=True)
    assert wrong_rows(sa.check_layer(OfInput(), x)) == ["x"]


@pytest.mark.parametrize("share", [1, 5])
def test_a_loss_for_each_example_is_summed_or_averaged(share):
    class Squares:
        def forward(self, y, t):
            self.apart = y - t
            return np.sum(self.apart**2, axis=1)

        def backward(self):
            return 2 * self.apart / share

    report = sa.check_layer(Squares(), x, x[::-1].copy())
    assert report.ok
    assert has(report.remarks, "each_loss", share=1 / share)
    told = sa.check_layer(Squares(), x, x[::-1].copy(), upstream=np.full(5, 1 / (6 - share)))
    assert wrong_rows(told) == ["y"]


def test_a_loss_for_each_example_whose_gradient_has_the_wrong_sign():
    class Distances:
        def forward(self, y, t):
            return np.abs(t - y).mean(axis=-1)

        def backward(self, y, t):
            return np.sign(t - y) / y.size

    report = sa.check_layer(Distances(), x, x[::-1].copy())
    assert has(report.remarks, "each_loss", share=1 / 5)
    assert has(report.rows[0].findings, "wrong_sign")


def test_the_refusal_names_the_call_to_write():
    class Odd:
        def forward(self, x):
            return 2 * x

        def backward(self, what, ever, more):
            raise ValueError("no")

    with pytest.raises(sa.CheckError, match=r"backward\(what, ever, more\).*def backward\(self"):
        sa.check_layer(Odd(), x)


@pytest.mark.parametrize("in_object", [True, False])
def test_a_switch_to_the_derivative_shows_the_way(in_object):
    def sigmoid(x, deriv=False):
        return x * (1 - x) if deriv else 1 / (1 + np.exp(-x))

    class Sigmoid:
        forward = staticmethod(sigmoid)

    way = r"check_derivative\(.*deriv=True\)"
    with pytest.raises(sa.CheckError, match=way):
        sa.check_layer(Sigmoid() if in_object else sigmoid, x)


def test_a_gradient_of_the_input_may_be_left_as_delta():
    class Tanh:
        def forward(self, x):
            self.y = np.tanh(x)

        def backward(self, error):
            self.delta = error * (1 - self.y**2)

    assert [row.verdict for row in sa.check_layer(Tanh(), x).rows] == ["match"]


# -------------------- updates --------------------


class Updating:
    rate, slip, sign, mean = 0.1, 1, -1, False

    def __init__(self):
        self.W, self.b = rng(2).normal(size=(4, 3)), rng(3).normal(size=3)
        self.before = np.zeros((4, 3))

    def forward(self, x):
        self.x = x
        return x @ self.W + self.b

    def backward(self, dout):
        n = len(dout) if self.mean else 1
        dx = dout @ self.W.T
        self.W += self.sign * self.rate * self.slip * (self.x.T @ dout) / n
        self.b += self.sign * self.rate * dout.sum(axis=0) / n
        return dx


def test_the_update_may_be_by_the_mean():
    layer = Updating()
    layer.mean = True
    report = sa.check_layer(layer, x)
    assert report.ok
    assert has(report.remarks, "by_its_change", names=["W", "b"], n=5)


def test_an_update_that_adds_is_said():
    layer = Updating()
    layer.sign = 1
    report = sa.check_layer(layer, x)
    assert report.ok
    assert has(report.remarks, "by_its_change", adds=True)

    class Mixed(Updating):
        def backward(self, dout):
            dx = super().backward(dout)
            self.b += 2 * self.rate * dout.sum(axis=0)
            return dx

    assert len(wrong_rows(sa.check_layer(Mixed(), x))) == 1


def test_a_rate_in_an_optimizer_is_found_by_two_runs():
    class Descent:
        def __init__(self, learning_rate):
            self.learning_rate = learning_rate

        def update(self, w, gradient):
            return w - self.learning_rate * gradient

    class Dense(Updating):
        def __init__(self):
            super().__init__()
            self.optimizer = Descent(0.003)

        def backward(self, dout):
            dx = dout @ self.W.T
            self.W = self.optimizer.update(self.W, self.slip * (self.x.T @ dout))
            self.b = self.optimizer.update(self.b, dout.sum(axis=0))
            return dx

    layer = Dense()
    report = sa.check_layer(layer, x)
    assert report.ok
    assert has(report.remarks, "by_its_change", names=["W", "b"], rate=0.003)
    assert layer.optimizer.learning_rate == 0.003
    layer.slip = 1.5
    assert wrong_rows(sa.check_layer(layer, x)) == ["W"]


def test_an_optimizer_to_which_the_size_is_nothing_stays_unchecked():
    class Signs(Updating):
        def backward(self, dout):
            dx = dout @ self.W.T
            self.W = self.W - 0.1 * np.sign(self.x.T @ dout)
            self.b = self.b - 0.1 * np.sign(dout.sum(axis=0))
            return dx

    report = sa.check_layer(Signs(), x)
    assert report.unchecked == ("W", "b")
    assert has(report.remarks, "updates_itself", name="W")


def test_a_rate_that_is_not_known_stays_unchecked():
    class Once(Updating):
        def backward(self, dout):
            dx = dout @ self.W.T
            self.W -= self.step.item() * self.x.T @ dout
            return dx

    layer = Once()
    layer.step, layer.b = np.array(0.37), 0
    report = sa.check_layer(layer, x)
    assert report.unchecked == ("W",)
    assert not any(part.kind == "by_its_change" for part in parts(report.remarks))


class Module:
    def __init__(self):
        self.storage = {}

    def __call__(self, x):
        self.storage["x"] = x
        return self.forward(x)


@pytest.mark.parametrize("times", [1.0, 2.0])
def test_a_call_may_keep_what_backward_needs(times):
    class Tanh(Module):
        def forward(self, x):
            return np.tanh(x)

        def backward(self, dout):
            return times * dout * (1 - np.tanh(self.storage["x"]) ** 2)

    assert sa.check_layer(Tanh(), x).ok is (times == 1.0)


def test_what_backward_lacks_behind_a_call_too_is_told_of_the_forward_pass():
    class Tanh(Module):
        def forward(self, x):
            return np.tanh(x)

        def backward(self, dout):
            return dout * (1 - self.storage["y"] ** 2)

    with pytest.raises(sa.CheckError, match="KeyError: 'y'"):
        sa.check_layer(Tanh(), x)
