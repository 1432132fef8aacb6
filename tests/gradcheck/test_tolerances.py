"""rtol and atol: what a caller accepts beyond rounding, and what no tolerance makes right."""

import dataclasses

import numpy as np
import pytest
from effort import examples
from findings import has
from hypothesis import given, settings
from hypothesis import strategies as st

import spiral_autograd as sa

RNG = np.random.default_rng(0)
X, W, B = RNG.normal(size=(5, 4)), RNG.normal(size=(4, 3)), RNG.normal(size=3)


class Affine:
    """Off in the gradient of b by a share `off`."""

    def __init__(self, off=0.0):
        self.W, self.b, self.off = W.copy(), B.copy(), off

    def forward(self, x):
        self.x = x
        return x @ self.W + self.b

    def backward(self, dout):
        self.dW = self.x.T @ dout
        self.db = dout.sum(axis=0) * (1 + self.off)
        return dout @ self.W.T


def verdict(report, name="b"):
    (row,) = (row for row in report.rows if row.name.split(".")[-1] == name)
    return row.verdict


@pytest.mark.usefixtures("no_lines")
@pytest.mark.parametrize(
    ("off", "given", "expected"),
    [
        (0.0, {"rtol": 0.0}, "exact"),
        (0.0, {"rtol": 0.5}, "exact"),
        (1e-15, {"rtol": 0.0, "atol": 0.0}, "match"),  # rounding is no mistake
        (1e-8, {}, "approximate"),
        (1e-8, {"rtol": 1e-6}, "accepted"),
        (1e-8, {"rtol": 1e-9}, "wrong"),
        (1e-8, {"atol": 1e-6}, "accepted"),
        (1e-8, {"rtol": 0.0}, "wrong"),
        (1e-3, {}, "wrong"),
        (1e-3, {"rtol": 1e-2}, "accepted"),
        (1e-3, {"rtol": 1e-4}, "wrong"),
        (1e-3, {"atol": 1e-1}, "accepted"),
        (1e-3, {"atol": 1e-4}, "wrong"),
        (1e-3, {"rtol": 9e-4, "atol": 1e-3}, "accepted"),
    ],
)
def test_the_border_of_what_is_wrong_is_the_callers(off, given, expected):
    report = sa.check_layer(Affine(off), X, **given)
    assert verdict(report) == expected
    assert report.ok is (expected != "wrong")
    assert not has(report.findings, "own_mistake")


def test_what_is_accepted_and_by_what_stands_in_the_report():
    lines = str(sa.check_layer(Affine(1e-3), X, rtol=0.01, atol=1e-8)).splitlines()
    assert lines[0] == "Affine: right (b: accepted by rtol=0.01, atol=1e-08, up to 0.001 off)"
    second = " ".join(" ".join(lines[1:3]).split())
    assert second.endswith("(float64; match: within 1e-10; accepted: rtol=0.01, atol=1e-08)")
    assert "b: is off by 0.001, more than rounding, which rtol=0.01, atol=1e-08 accepts" in lines
    data = sa.check_layer(Affine(1e-3), X, rtol=0.01).to_dict()["tolerances"]
    assert (data["rtol"], data["atol"]) == (0.01, None)


def test_without_tolerances_nothing_is_said_of_them():
    assert "accepted" not in str(sa.check_layer(Affine(1e-8), X))


@settings(max_examples=examples(25))
@given(st.integers(0, 10**6), st.floats(0, 0.1), st.floats(0, 0.1), st.floats(1e-4, 0.2))
def test_an_entry_is_accepted_as_by_numpys_allclose(seed, rtol, atol, size):
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(3, 2))
    noise = size * rng.normal(size=x.shape)

    def backward(dout, cache):
        return 2 * dout + noise

    def forward(x):
        return 2 * x, None

    row = sa.check_backward(forward, backward, x, rtol=rtol, atol=atol, budget=0).rows[0]
    close = np.allclose(row.handwritten, row.automatic, rtol=rtol, atol=atol)
    assert row.verdict == ("accepted" if close else "wrong")


def test_rounding_of_an_entry_that_is_zero_is_accepted_by_rtol_alone():
    mask = np.ones_like(X)
    mask[1, 2] = 0

    def forward(x):
        return x * mask, None

    def backward(dout, cache):
        return 1.001 * dout * mask + 1e-17

    report = sa.check_backward(forward, backward, X, rtol=0.01)
    assert report.rows[0].automatic[1, 2] == 0
    assert verdict(report, "x") == "accepted"


class Nan(Affine):
    def backward(self, dout):
        dx = super().backward(dout)
        self.db[0] = np.nan
        return dx


class OtherShape(Affine):
    def backward(self, dout):
        dx = super().backward(dout)
        self.db = np.sum(dout)
        return dx


class Missing(Affine):
    def backward(self, dout):
        dx = super().backward(dout)
        self.db = None
        return dx


class Adding(Affine):
    db = 0.0

    def backward(self, dout):
        before = self.db
        dx = super().backward(dout)
        self.db = before + self.db
        return dx


@pytest.mark.usefixtures("verdicts_alone")
@pytest.mark.parametrize("kind", [Nan, OtherShape, Missing, Adding])
def test_no_tolerance_accepts_what_no_number_is_off_by(kind):
    report = sa.check_layer(kind(), X, rtol=0.99, atol=1e9)
    assert not report.ok
    assert verdict(report) in ("wrong", "missing")


@pytest.mark.usefixtures("no_lines")
def test_values_that_hide_mistakes_are_decided_by_the_tolerances_too():
    class Scale:
        def __init__(self, off):
            self.gamma, self.off = np.ones(4), off

        def forward(self, x):
            self.x = x
            return x * self.gamma

        def backward(self, dout):
            self.dgamma = (dout * self.x).sum(axis=0)
            return dout * self.gamma ** (1 + self.off)

    assert not sa.check_layer(Scale(1e-3), X).ok
    assert not sa.check_layer(Scale(1.0), X, rtol=0.05).ok
    assert sa.check_layer(Scale(1e-3), X, rtol=0.05).ok


@pytest.mark.parametrize(
    ("given", "error"),
    [
        ({"rtol": -1e-3}, ValueError),
        ({"rtol": 1.0}, ValueError),  # would accept zeros
        ({"rtol": "1e-3"}, TypeError),
        ({"rtol": True}, TypeError),
        ({"atol": -1.0}, ValueError),
        ({"atol": np.nan}, ValueError),
        ({"atol": np.inf}, ValueError),
        ({"atol": [1e-3]}, TypeError),
    ],
)
def test_the_door(given, error):
    with pytest.raises(error, match=rf"^{next(iter(given))} must be"):
        sa.check_layer(Affine(), X, **given)


# -------------------- every check takes them --------------------


def gelu(x):
    return 0.5 * x * (1 + np.tanh(np.sqrt(2 / np.pi) * (x + 0.044715 * x**3)))


def gelu_prime(x):  # that of x * sigmoid(1.702 x), which is close
    s = 1 / (1 + np.exp(-1.702 * x))
    return s + 1.702 * x * s * (1 - s)


def half(x):
    return 0.5 * x


class Sum:
    def forward(self, x, t):
        return np.sum(x * t)

    def backward(self, dout=1):
        return dout * np.ones((5, 3))


class Net:
    """More than the chain of its layers: checked by its own loss."""

    off = 1e-3

    def __init__(self):
        self.params = {"W": W.copy()}

    def loss(self, x, t):
        return np.sum((x @ self.params["W"]) ** 2) + np.sum(self.params["W"] ** 2)

    def gradient(self, x, t):
        W = self.params["W"]
        return {"W": (2 * x.T @ (x @ W) + 2 * W) * (1 + self.off)}


CHECKS = {
    "backward": lambda **to: sa.check_backward(
        lambda x: (2 * x, None), lambda dout, _: 2.001 * dout, X, **to
    ),
    "gradient": lambda **to: sa.check_gradient(
        lambda p: np.sum(p["W"] ** 2), lambda p: {"W": 2.001 * p["W"]}, {"W": W}, **to
    ),
    "derivative": lambda **to: sa.check_derivative(gelu, gelu_prime, X, **to),
    "primitive": lambda **to: sa.check_primitive(
        half, X, vjps=[lambda ans, x: lambda g: 0.501 * g], **to
    ),
    "network": lambda **to: sa.check_network([Affine(1e-3)], X, np.ones((5, 3)), loss=Sum(), **to),
    "a whole network": lambda **to: sa.check_network(Net(), X, np.ones((5, 3)), **to),
}


@pytest.mark.usefixtures("no_lines")
@pytest.mark.parametrize("check", CHECKS)
def test_each_check_takes_them(check):
    assert not CHECKS[check](budget=0).ok
    assert not CHECKS[check](rtol=1e-7, budget=0).ok
    report = CHECKS[check](rtol=0.01, atol=0.1)
    assert report.ok
    assert "accepted" in {row.verdict for row in report.rows}
    assert dataclasses.astuple(report.tolerances)[:2] == (0.01, 0.1)
