"""Forward passes of several outputs: of which of them backward takes an upstream gradient."""

import numpy as np
import pytest
from findings import has

import spiral_autograd as sa

rng = np.random.RandomState(0)
X, H, C = rng.randn(2, 4), rng.randn(2, 3), rng.randn(2, 3)
SCORES, LABELS = rng.randn(4, 3), np.array([0, 2, 1, 1])


def softmax(x):
    e = np.exp(x - x.max(axis=1, keepdims=True))
    return e / e.sum(axis=1, keepdims=True)


# -------------------- a layer that shows its weights; a cell with two states --------------------


class Attention:
    """Returns what it has attended to, and how; backward is given the gradient of the first."""

    def __init__(self):
        self.W = np.random.RandomState(1).randn(4, 4)

    def forward(self, x):
        weights = softmax(x @ self.W @ x.T)
        self.cache = x, weights
        return weights @ x, weights

    def backward(self, dout):
        x, weights = self.cache
        d_weights = dout @ x.T
        d_scores = weights * (d_weights - (d_weights * weights).sum(axis=1, keepdims=True))
        self.dW = x.T @ d_scores @ x
        return weights.T @ dout + d_scores @ x @ self.W.T + d_scores.T @ x @ self.W


class AttentionWithoutKeys(Attention):
    def backward(self, dout):
        x, weights = self.cache
        dx = super().backward(dout)
        d_weights = dout @ x.T
        d_scores = weights * (d_weights - (d_weights * weights).sum(axis=1, keepdims=True))
        return dx - d_scores.T @ x @ self.W


class Cell:
    def __init__(self):
        self.W, self.U = np.random.RandomState(1).randn(4, 3), np.random.RandomState(2).randn(3, 3)

    def forward(self, x, h, c):
        z = np.tanh(x @ self.W + h @ self.U)
        c_next = 0.5 * c + z
        h_next = np.tanh(c_next)
        self.cache = x, h, z, h_next
        return h_next, c_next

    def step_back(self, dh, dc):
        x, h, z, h_next = self.cache
        dc = dc + dh * (1 - h_next**2)
        dz = dc * (1 - z**2)
        self.dW, self.dU = x.T @ dz, h.T @ dz
        return dz @ self.W.T, dz @ self.U.T, 0.5 * dc


class InTurn(Cell):
    def backward(self, da, db):
        return self.step_back(da, db)


class InTheOtherOrder(Cell):
    def backward(self, dc_next, dh_next):
        return self.step_back(dh_next, dc_next)


class InTheOtherOrderByNoName(Cell):
    def backward(self, d1, d2):
        return self.step_back(d2, d1)


class InATuple(Cell):
    def backward(self, grads):
        return self.step_back(*grads)


class OfTheFirst(Cell):
    def backward(self, dh):
        return self.step_back(dh, 0.0)


class OfTheSecondByName(Cell):
    def backward(self, dc_next):
        return self.step_back(0.0, dc_next)


class OfTheSecondAtWill(Cell):
    def backward(self, dh, dc=None):
        return self.step_back(dh, 0.0 if dc is None else dc)


@pytest.mark.usefixtures("no_lines")
def test_the_weights_of_attention_are_shown_and_have_no_upstream_gradient():
    report = sa.check_layer(Attention(), X)
    assert {row.verdict for row in report.rows} <= {"exact", "match"}
    assert [row.name for row in report.rows] == ["x", "W"]
    assert has(report, "of_some_outputs", outputs=[1])
    report = sa.check_layer(AttentionWithoutKeys(), X)
    assert [row.name for row in report.rows if row.verdict == "wrong"] == ["x"]


@pytest.mark.parametrize("cell", Cell.__subclasses__())
def test_backward_takes_the_gradients_of_two_states_in_each_way(cell):
    report = sa.check_layer(cell(), X, H, C)
    assert report.ok
    assert [row.name for row in report.rows] == ["x", "h", "c", "W", "U"]
    is_partial = cell in (OfTheFirst, OfTheSecondByName)
    assert has(report, "of_some_outputs") == is_partial
    assert has(report, "called_with") == (cell is InTheOtherOrderByNoName)


@pytest.mark.usefixtures("no_lines")
@pytest.mark.parametrize("cell", Cell.__subclasses__())
def test_a_wrong_row_is_found_in_each_way(cell):
    class Wrong(cell):
        def step_back(self, dh, dc):
            dx, dh, dc = super().step_back(dh, dc)
            self.dU = self.dU.T
            return dx, dh, dc

    report = sa.check_layer(Wrong(), X, H, C)
    assert [row.name for row in report.rows if row.verdict == "wrong"] == ["U"]
    assert report.rows[-1].rule == "layout"


def test_an_upstream_gradient_is_given_for_the_outputs_that_backward_takes():
    upstream = rng.randn(2, 4)
    assert sa.check_layer(Attention(), X, upstream=upstream).ok
    with pytest.raises(sa.CheckError, match="upstream must be an array"):
        sa.check_layer(Attention(), X, upstream=(upstream, np.ones((2, 2))))


# -------------------- a loss beside what it is made of --------------------


class Loss:
    def forward(self, x, t):
        self.t, self.p = t, softmax(x)
        return -np.log(self.p[np.arange(len(t)), t]).mean(), self.p

    def backward(self):
        dx = self.p.copy()
        dx[np.arange(len(self.t)), self.t] -= 1
        return dx / len(self.t)


class LossWithUpstream(Loss):
    def backward(self, dout=1):
        return dout * super().backward()


class LossBehind(Loss):
    def forward(self, x, t):
        return super().forward(x, t)[::-1]


class LossSummed(Loss):
    def backward(self):
        return super().backward() * len(self.t)


class LossOfOthers(LossWithUpstream):
    def backward(self, dout=1):
        return dout * (self.p - 1) / len(self.t)


def test_a_wrong_gradient_is_one_of_the_loss_too():
    report = sa.check_layer(LossOfOthers(), SCORES, LABELS)
    assert not report.ok
    assert has(report, "of_some_outputs", outputs=[1])


@pytest.mark.parametrize("layer", [Loss, LossWithUpstream, LossBehind])
def test_a_loss_layer_returns_the_probabilities_too(layer):
    assert sa.check_layer(layer(), SCORES, LABELS).ok


def test_a_wrong_factor_of_such_a_loss_is_said():
    (row,) = sa.check_layer(LossSummed(), SCORES, LABELS).rows
    assert row.verdict == "wrong"
    assert row.rule == "factor"


def cross_entropy(x, t):
    p = softmax(x)
    return -np.log(p[np.arange(len(t)), t]).mean(), (p, t)


def cross_entropy_backward(cache):
    p, t = cache
    dx = p.copy()
    dx[np.arange(len(t)), t] -= 1
    return dx / len(t)


def with_probabilities(x, t):
    loss, cache = cross_entropy(x, t)
    return loss, cache[0], cache


def probabilities_alone(x, t):
    return with_probabilities(x, t)[:2]


def test_a_cache_may_be_a_function_with_any_name():
    def forward(x):
        return np.sin(x), lambda g: g * np.cos(x)

    assert sa.check_backward(forward, lambda g, vjp: vjp(g), X).ok
    assert sa.check_backward(forward, lambda vjp, g: vjp(g), X).ok


def powers(x):
    return x**2, x**3


def test_two_functions_without_a_cache():
    assert sa.check_backward(powers, lambda d2, d3, x: 2 * x * d2 + 3 * x**2 * d3, X).ok


@pytest.mark.usefixtures("verdicts_alone")
@pytest.mark.parametrize(
    ("forward", "backward"),
    [
        (cross_entropy, cross_entropy_backward),
        (cross_entropy, lambda dout, cache: dout * cross_entropy_backward(cache)),
        (cross_entropy, lambda cache, dout=1.0: dout * cross_entropy_backward(cache)),
        (with_probabilities, cross_entropy_backward),
        (with_probabilities, lambda dout, cache: dout * cross_entropy_backward(cache)),
        (probabilities_alone, lambda p, t: cross_entropy_backward((p, t))),
        (probabilities_alone, lambda x, t: cross_entropy_backward((softmax(x), t))),
    ],
)
def test_the_two_functions_of_a_loss(forward, backward):
    report = sa.check_backward(forward, backward, SCORES, LABELS)
    assert report.ok
    assert [row.name for row in report.rows] == ["x"]
    twice = sa.check_backward(forward, _twice(backward), SCORES, LABELS)
    assert twice.rows[0].verdict == "wrong"


def _twice(backward):
    names = backward.__code__.co_varnames[: backward.__code__.co_argcount]
    given = ", ".join(names)
    return eval(f"lambda {given}: 2 * backward({given})", {"backward": backward})


# -------------------- layers whose caches grow, or whose reset breaks them --------------------


class Growing:
    """Makes its parameter in the first forward pass, and keeps what each of them was given."""

    def __init__(self):
        self.W, self.dW, self.seen = None, None, []

    def forward(self, x):
        if self.W is None:
            self.W = np.random.RandomState(3).randn(x.shape[1], 2)
        self.seen.append(x)
        return x @ self.W

    def backward(self, dout):
        (x,) = self.seen
        self.dW = x.T @ dout
        return dout @ self.W.T


class Module:
    """Its own reset leaves its parts without what they need."""

    def __init__(self):
        self.part = GrowingWithReset()

    def zero_grad(self):
        self.part.seen = None

    def forward(self, x):
        return self.part.forward(x)

    def backward(self, dout):
        return self.part.backward(dout)


class GrowingWithReset(Growing):
    def zero_grad(self):
        self.seen = []


def test_what_is_made_in_each_run_is_named_where_it_cannot_be_begun_from():
    report = sa.check_layer(Growing(), X)
    assert [row.name for row in report.rows] == ["x"]
    assert report.unchecked == ("W",)
    report = sa.check_layer(GrowingWithReset(), X)
    assert report.ok
    assert [row.name for row in report.rows] == ["x", "W"]


def test_the_resets_of_the_parts_serve_where_the_own_one_breaks_them():
    report = sa.check_layer(Module(), X)
    assert report.ok
    assert [row.name for row in report.rows] == ["x", "part.W"]
    assert has(report, "fails_behind_reset")
