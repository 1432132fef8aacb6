"""Reasons that would be false are not said: what speaks for them is asked once more."""

import linecache

import numpy as np
import pytest
from findings import has

import spiral_autograd as sa

X = np.random.default_rng(0).standard_normal((5, 3))


def says(layer, *inputs):
    """The only wrong row of a report."""
    (row,) = (row for row in sa.check_layer(layer, *inputs).rows if row.verdict == "wrong")
    return row


def cited(row):
    return [linecache.getline(*place).strip() for place in row.lines]


class Leaky:
    def forward(self, x):
        self.x = x
        return np.where(x > 0, x, 0.25 * x)

    def backward(self, dout):
        with np.errstate(divide="ignore"):
            return dout / (self.x > 0)  # infinite where it is not


def test_beside_infinity_not_everything_is_right():
    row = says(Leaky(), X)
    for finding in row.findings:
        assert finding.kind != "right_with" or "dout" in finding.fields["statement"]
        assert finding.fields.get("statement") not in ("return dout", "return -dout"), row.why


class Windows:
    """The mean of windows beside each other, of which but the first comes back."""

    def forward(self, x):
        self.shape = x.shape
        return np.stack([x[:, i : i + 2].mean(axis=1) for i in (0, 2, 4)], axis=1)

    def backward(self, dout):
        dx = np.zeros(self.shape)
        for n in range(dout.shape[1]):
            if not n:
                dx[:, 2 * n : 2 * n + 2] += dout[:, n : n + 1] / 2
        return dx


def test_what_adds_up_is_not_told_to_add_up():
    row = says(Windows(), np.random.default_rng(1).standard_normal((4, 6)))
    assert not has(row, "only") or "+=" not in row.why


class PooledInFloors:
    def forward(self, x):
        n, h, w = x.shape
        return x.reshape(n, h // 2, 2, w // 2, 2).mean(axis=(2, 4))

    def backward(self, dout):
        return np.repeat(np.repeat(dout, 2, axis=1), 2, axis=2) * 4


def test_a_factor_is_no_product_of_lengths_by_one_check_alone():
    row = says(PooledInFloors(), np.random.default_rng(2).standard_normal((2, 2, 4)))
    assert "lengths of axes" not in row.why, row.why


class Columns:
    """A bias for columns of examples, of which each is a matrix of one column."""

    def __init__(self):
        self.b = np.array([[0.3], [-0.2], [0.5]])

    def forward(self, x):
        return x[:, :, None] * 2.0 + self.b

    def backward(self, dout):
        self.db = dout.reshape(-1, 1).sum(axis=0)
        return 2.0 * dout[:, :, 0]


def test_the_axis_that_is_named_is_one_that_is_summed():
    row = says(Columns(), X)
    assert "axis 0" in row.why, row.why
    assert "axis 1" not in row.why, row.why


class OfSoftmax:
    """A bias whose gradient adds up to zero along the axis that is taken by mistake."""

    def __init__(self):
        self.b = np.array([0.3, -0.2, 0.5])

    def forward(self, x):
        e = np.exp(x + self.b)
        self.p = e / e.sum(axis=1, keepdims=True)
        return -np.log(self.p[:, 0]).sum()

    def backward(self):
        d = self.p - np.eye(3)[np.zeros(len(self.p), int)]
        self.db = d.sum(axis=1)
        return d


def test_what_is_written_is_not_said_to_be_never_written():
    row = says(OfSoftmax(), X)
    assert "never written" not in row.why, row.why


class CrossEntropy:
    """A loss whose backward pass takes the predictions, by the name of a gradient."""

    def forward(self, p, t):
        return -(t * np.log(p) + (1 - t) * np.log(1 - p)).mean()

    def backward(self, dvalues, t):
        return -(t / dvalues - (1 - t) / (1 - dvalues))


def test_predictions_are_not_told_to_be_an_upstream_gradient():
    r = np.random.default_rng(3)
    p, t = r.uniform(0.1, 0.9, (4, 2)), r.integers(0, 2, (4, 2)).astype(float)
    row = sa.check_layer(CrossEntropy(), p, t, constant="t").rows[0]
    assert row.verdict == "wrong"
    assert not has(row, "upstream_not_linear"), row.why


class Softmax:
    def forward(self, x):
        e = np.exp(x)
        self.p = e / e.sum(axis=1, keepdims=True)
        return self.p

    def backward(self, dout):
        dx = np.empty_like(dout)
        for i in range(len(dout) - 1):
            p = self.p[i]
            dx[i] = (np.diag(p) - np.outer(p, p)) @ dout[i]
        return dx


class AddedToNothing(Softmax):
    def backward(self, dout):
        dx = np.empty_like(dout)
        dx += self.p * (dout - (self.p * dout).sum(axis=1, keepdims=True))
        return dx


@pytest.mark.parametrize(("layer", "count"), [(Softmax(), 3), (AddedToNothing(), 15)])
def test_entries_that_are_never_set_are_told_with_the_line_that_makes_them(layer, count):
    row = says(layer, X)
    assert has(row, "unset")
    assert row.findings[-1].fields["count"] == count
    assert "dx = np.empty_like(dout)" in cited(row)
    assert np.empty.__name__ == "empty"  # NumPy has its own again


# -------------------- loops, helpers, functions --------------------


class Memory:
    """What decays from turn to turn."""

    a = 0.7

    def forward(self, x):
        self.x = x
        h, out = np.zeros_like(x[0]), []
        for t in range(len(x)):
            h = np.tanh(x[t] + self.a * h)
            out.append(h)
        self.h = np.stack(out)
        return self.h


class Forwards(Memory):
    def backward(self, dout):
        dx, dh = np.zeros_like(self.x), np.zeros_like(self.x[0])
        for t in range(len(self.x)):
            dz = (dout[t] + dh) * (1 - self.h[t] ** 2)
            dx[t] = dz
            dh = self.a * dz
        return dx


class TooFew(Memory):
    def backward(self, dout):
        dx, dh = np.zeros_like(self.x), np.zeros_like(self.x[0])
        for t in reversed(range(1, len(self.x))):
            dz = (dout[t] + dh) * (1 - self.h[t] ** 2)
            dx[t] = dz
            dh = self.a * dz
        return dx


@pytest.mark.parametrize("layer", [Forwards(), TooFew()])
def test_the_head_of_a_loop_is_asked_though_it_makes_no_value(layer):
    row = says(layer, X)
    assert has(row, "right_with"), row.why
    assert any(line.startswith("for t in") for line in cited(row))


def squashed(x):
    return 1 / (1 + np.exp(-x))


def squashed_slope(x):
    y = squashed(x)
    return y * (y - 1)


class Squash:
    def forward(self, x):
        self.x = x
        return squashed(x)

    def backward(self, dout):
        return dout * squashed_slope(self.x)


def test_a_helper_that_makes_no_true_slope_is_cited_not_its_caller():
    assert "return y * (y - 1)" in cited(says(Squash(), X))


class Log1p:
    def forward(self, x):
        self.x = x
        return np.log(1 + np.exp(-x))

    def backward(self, dout):
        e = -self.x  # without the function
        return -dout * e / (1 + e)


def test_a_function_that_the_forward_pass_calls_may_be_lacking():
    row = says(Log1p(), X)
    assert has(row, "right_with"), row.why
    assert "np.exp" in row.why


class OverTime:
    """A bias of all examples and turns, of whose gradient one sum is forgotten."""

    def __init__(self):
        self.b = np.array([0.3, -0.2, 0.5])

    def forward(self, x):
        return x * 2.0 + self.b

    def backward(self, dout):
        count = dout.reshape(-1, 3)
        self.db = dout.sum(axis=0)
        return 2.0 * count.reshape(dout.shape)


def test_a_sum_that_is_true_by_itself_is_cited_where_another_is_forgotten():
    row = says(OverTime(), np.random.default_rng(4).standard_normal((4, 2, 3)))
    assert has(row, "not_summed")
    assert "self.db = dout.sum(axis=0)" in cited(row)
