"""A verdict stands, whatever happens while it is explained; and what follows it ends in time."""

import sys
import time

import numpy as np
import pytest
from findings import has, parts

import spiral_autograd as sa
from spiral_autograd.gradcheck import checks, guard, where


def x_of(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape)


class Tanh:
    """Wrong: its derivative is that of a sigmoid, as it were."""

    def forward(self, x):
        self.y = np.tanh(x)
        return self.y

    def backward(self, dout):
        return dout * (1 - self.y)


# -------------------- what fails beside a verdict --------------------


def failing(*args, **kwargs):
    raise AttributeError("a mistake of ours")


@pytest.mark.parametrize("place", [(checks, "explain"), (where, "is_readable")])
def test_an_error_while_explaining_is_said_and_the_verdict_stands(monkeypatch, place):
    monkeypatch.setattr(*place, failing)
    monkeypatch.setattr(guard, "STRICT", False)
    report = sa.check_layer(Tanh(), x_of(3, 4))
    assert [row.verdict for row in report.rows] == ["wrong"]
    (note,) = [note for note in parts(report) if note.kind == "own_mistake"]
    assert note.fields["error"].startswith("AttributeError")
    assert "test_bounds.py" in note.fields["place"]  # where it was raised


def test_in_these_tests_it_is_raised(monkeypatch):
    monkeypatch.setattr(checks, "explain", failing)
    with pytest.raises(AttributeError, match="ours"):
        sa.check_layer(Tanh(), x_of(3, 4))


def test_an_interrupt_is_never_a_note(monkeypatch):
    def interrupted(*args):
        raise KeyboardInterrupt

    monkeypatch.setattr(checks, "explain", interrupted)
    monkeypatch.setattr(guard, "STRICT", False)
    with pytest.raises(KeyboardInterrupt):
        sa.check_layer(Tanh(), x_of(3, 4))


class Sulks:
    """Wrong, and its code raises from the n-th call on: nothing that we restore counts them."""

    def __init__(self, n):
        self.n, self.calls = n, iter(range(10**6))  # an iterator cannot be set back

    def forward(self, x):
        if next(self.calls) >= self.n:
            raise OSError("no more")
        self.y = np.tanh(x)
        return self.y

    backward = Tanh.backward


@pytest.mark.parametrize("n", [*range(2, 12), 15, 20, 30])
def test_code_that_raises_later_gives_a_verdict_or_a_check_error(n):
    try:
        assert not sa.check_layer(Sulks(n), x_of(3, 4)).ok
    except sa.CheckError as error:
        assert "no more" in str(error)  # noqa: PT017


class StrangeError(Exception):
    def __str__(self):
        raise TypeError("no text")


def test_an_error_without_a_text_is_a_check_error_too():
    class Raising(Tanh):
        def backward(self, dout):
            raise StrangeError

    with pytest.raises(sa.CheckError, match="Strange"):
        sa.check_layer(Raising(), x_of(3, 4))


# -------------------- what has crashed --------------------


class Picks:
    def __init__(self, pick):
        self.pick = pick

    def forward(self, x):
        self.shape, self.y = x.shape, np.tanh(x[self.pick])
        return self.y

    def backward(self, d):
        dx = np.zeros(self.shape)
        np.add.at(dx, self.pick, d * (1 - self.y))
        return dx


IDX = np.array([0, 2])
PICKS = {
    "[idx, ...]": (IDX, ...),
    "[idx, :]": (IDX, slice(None)),
    "[:, idx]": (slice(None), IDX),
    "[..., None, idx]": (..., None, IDX),
    "[1:, mask]": (slice(1, None), np.array([True, False, True, True])),
    "[idx[:, None], idx]": (IDX[:, None], IDX),
    "[[0, 2]]": ([0, 2],),
    "[2]": (2,),
}


@pytest.mark.parametrize("name", PICKS)
def test_a_wrong_gradient_of_what_an_index_picks(name):
    report = sa.check_layer(Picks(PICKS[name]), x_of(3, 4))
    assert not report.ok
    assert report.rows[0].rule == "value"


class Masked:
    """Wrong, and traced through an assignment: the derivative search must go through it too."""

    def forward(self, x):
        self.x, out = x, np.tanh(x)
        self.mask = x < 0.3
        out[self.mask] = 0
        self.y = np.tanh(out)
        return self.y

    def backward(self, d):
        d = d * (1 - self.y)
        d[self.mask] = 0
        return d * (1 - np.tanh(self.x) ** 2)


def test_why_is_found_behind_an_assignment():
    (row,) = sa.check_layer(Masked(), x_of(4, 5)).rows
    assert row.verdict == "wrong"
    assert row.rule == "value"


class SoftmaxWithLoss:
    """Right but for 1e-7; the max is taken with its axis and then given one back."""

    def forward(self, x, t):
        e = np.exp(x - np.max(x, axis=1)[:, None])
        self.y, self.t = e / np.sum(e, axis=1)[:, None], t
        return -np.sum(np.log(self.y[np.arange(len(t)), t] + 1e-7)) / len(t)

    def backward(self, dout=1):
        dx = self.y.copy()
        dx[np.arange(len(self.t)), self.t] -= 1
        return dx * dout / len(self.t)


def test_a_max_that_is_given_its_axis_back():
    report = sa.check_layer(SoftmaxWithLoss(), x_of(4, 3), np.array([0, 1, 2, 0]))
    assert [row.verdict for row in report.rows] == ["idealised"]


# -------------------- time --------------------


class Chain:
    """Wrong: many operations, one after another."""

    def __init__(self, length, scale):
        self.length, self.scale = length, scale

    def forward(self, x):
        self.xs = [x]
        for _ in range(self.length):
            self.xs.append(np.tanh(self.xs[-1]) + self.scale)
        return self.xs[-1]

    def backward(self, d):
        for x in self.xs[-2::-1]:
            d = d * (1 - np.tanh(x) ** 2 / 2)
        return d


class NaiveConvolution:
    """Wrong where windows overlap: their gradients overwrite each other."""

    def __init__(self):
        self.w = x_of(2, 2, 3, 3, seed=1)

    def windows(self, shape):
        n, _, h, v = shape
        return [(i, f, r, c) for i, f, r, c in np.ndindex(n, len(self.w), h - 2, v - 2)]

    def forward(self, x):
        self.x = x
        out = np.zeros((len(x), len(self.w), x.shape[2] - 2, x.shape[3] - 2))
        for i, f, r, c in self.windows(x.shape):
            out[i, f, r, c] = np.sum(x[i, :, r : r + 3, c : c + 3] * self.w[f])
        return out

    def backward(self, d):
        dx, self.dw = np.zeros_like(self.x), np.zeros_like(self.w)
        for i, f, r, c in self.windows(self.x.shape):
            self.dw[f] += self.x[i, :, r : r + 3, c : c + 3] * d[i, f, r, c]
            dx[i, :, r : r + 3, c : c + 3] = self.w[f] * d[i, f, r, c]
        return dx


LONG = {
    "a chain": (Chain(300, 0.0), (4,)),
    "a chain whose gradient is hardly a number": (Chain(300, 0.5), (4,)),
    "windows": (NaiveConvolution(), (1, 2, 12, 12)),
}


@pytest.mark.parametrize("name", LONG)
def test_the_budget_holds_for_long_graphs(name):
    layer, shape = LONG[name]
    started = time.process_time()
    report = sa.check_layer(layer, x_of(*shape), budget=0.1)
    assert time.process_time() - started < 10
    assert not report.ok


def test_what_was_not_tried_for_want_of_time_is_said():
    report = sa.check_layer(Chain(300, 0.0), x_of(4), budget=0.0)
    assert has(report.rows[0], "no_pattern", late=True)


def test_gradients_are_read_as_often_for_each_of_many_parameters():
    class Many:
        def __init__(self, n):
            self.params = {f"W{i}": x_of(3, 2 + i % 2, seed=i) for i in range(n)}
            self.kept = {}

        @property
        def grads(self):
            return self.kept

        def forward(self, x):
            self.x = x
            return sum((x @ W).sum(axis=1) for W in self.params.values())

        def backward(self, dout):
            up = dout[:, None]
            self.kept = {k: self.x.T @ (up + np.zeros(W.shape[1])) for k, W in self.params.items()}
            return sum(up * W.sum(axis=1) for W in self.params.values())

    def reads(n):
        return calls_of(Many.grads.fget, lambda: sa.check_layer(Many(n), x_of(4, 3)))

    assert 0 < reads(40) <= 5 * reads(10)


def calls_of(function, check):
    """How often a function is called during a check, which restores whatever counts itself."""
    seen, code, before = [], function.__code__, sys.getprofile()
    sys.setprofile(lambda frame, what, given: seen.append(what) if frame.f_code is code else 0)
    try:
        check()
    finally:
        sys.setprofile(before)
    return seen.count("call")


def test_a_large_wrong_layer_runs_seldom():
    class Doubled:
        def __init__(self, n):
            self.W = np.random.default_rng(0).normal(size=(n, n)) / n**0.5

        def forward(self, x):
            self.x = x
            return x @ self.W

        def backward(self, dout):
            self.dW = 2 * self.x.T @ dout
            return dout @ self.W.T

    layer, x = Doubled(500), np.random.default_rng(1).normal(size=(5, 500))
    assert 0 < calls_of(Doubled.backward, lambda: sa.check_layer(layer, x)) <= 8
