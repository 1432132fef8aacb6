"""Forward passes that fill arrays of their own are followed by autograd all the same."""

import itertools
import threading

import numpy
import numpy as np
import pytest
from numpy import zeros

import spiral_autograd as sa
from spiral_autograd.gradcheck.reference import stand_ins


class Filled:
    def forward(self, x):
        self.x = x
        out = np.zeros_like(x)
        for i in range(len(x)):
            out[i] = np.tanh(x[i])
        self.out = out
        return out

    def backward(self, dout):
        return dout * (1 - self.out**2)


class Inherited(Filled):
    def forward(self, x):
        return 2.0 * super().forward(x)

    def backward(self, dout):
        return super().backward(2.0 * dout)


def doubled(function):
    def inner(x):
        out = numpy.empty(x.shape)
        out[:] = function(x)
        return 2 * out

    return inner


@doubled
def squared(x):
    return x**2


class Decorated:
    def forward(self, x):
        self.x = x
        return squared(x)

    def backward(self, dout):
        return dout * 4 * self.x


class Members:
    scale = 3.0

    @staticmethod
    def pad(x):
        out = zeros((x.shape[0] + 2, x.shape[1]))
        out[1:-1] = x
        return out

    @classmethod
    def scaled(cls, x):
        return cls.scale * cls.pad(x)

    @property
    def doubled(self):
        out = np.full(self.x.shape, 2.0)
        out *= self.x
        return out

    def forward(self, x):
        self.x = x
        return self.scaled(self.doubled)

    def backward(self, dout):
        return 2.0 * self.scale * dout[1:-1]


class Joined:
    def forward(self, x):
        self.shape = x.shape
        return np.r_[np.c_[1 - x[:, 0], x[:, 0]], np.c_[x[:, 1], 2 * x[:, 1]]]

    def backward(self, dout):
        dx = np.zeros(self.shape)
        n = self.shape[0]
        dx[:, 0] = dout[:n, 1] - dout[:n, 0]
        dx[:, 1] = dout[n:, 0] + 2 * dout[n:, 1]
        return dx


class Listed:
    def forward(self, x):
        self.x = x
        return np.array([np.sum(row**2) for row in x])

    def backward(self, dout):
        return 2 * self.x * dout[:, None]


class Segments:
    """Rows added up in three groups."""

    def forward(self, x):
        self.groups = np.arange(len(x)) % 3
        out = np.zeros((3, x.shape[1]))
        np.add.at(out, self.groups, x)
        return out

    def backward(self, dout):
        return dout[self.groups]


class Copied:
    def forward(self, x):
        out = np.empty(x.shape)
        np.copyto(out, x * x)
        self.x = x
        return out

    def backward(self, dout):
        return 2 * self.x * dout


class Bound:
    """A function kept as an attribute, and a lambda that closes over NumPy."""

    def __init__(self):
        def fill(x):
            out = np.ones(x.shape)
            out[...] = x
            return out

        self.fill = fill
        self.then = lambda x: np.asarray(self.fill(x)) * 3.0

    def forward(self, x):
        return self.fill(x) * 3.0

    def backward(self, dout):
        return 3.0 * dout


class Empty(Copied):
    """Has no method of its own."""

    shown = True


LAYERS = [Filled, Empty, Inherited, Decorated, Members, Joined, Listed, Segments, Copied, Bound]


@pytest.mark.parametrize("kind", LAYERS, ids=lambda kind: kind.__name__)
def test_autograd_follows_a_forward_pass_that_fills_arrays(kind):
    layer, x = kind(), np.random.default_rng(0).normal(size=(4, 2))
    report = sa.check_layer(layer, x)
    assert report.ok, str(report)
    assert report.reference == "autograd"
    assert type(layer) is kind


@pytest.mark.usefixtures("no_lines")
@pytest.mark.parametrize("kind", LAYERS, ids=lambda kind: kind.__name__)
def test_a_mistake_in_such_a_layer_is_explained(kind):
    class Wrong(kind):
        def backward(self, dout):
            return 0.5 * super().backward(dout)

    report = sa.check_layer(Wrong(), np.random.default_rng(0).normal(size=(4, 2)))
    assert [row.rule for row in report.rows] == ["factor"], str(report)


def test_the_users_functions_and_numpy_stay_as_they_are():
    names = {"zeros": np.zeros, "empty": np.empty, "array": np.array, "c_": np.c_, "add": np.add}
    before = dict(globals())
    for kind in LAYERS:
        sa.check_layer(kind(), np.ones((4, 2)))
    assert all(getattr(np, name) is function for name, function in names.items())
    assert {name: id(value) for name, value in globals().items()} == {
        name: id(value) for name, value in before.items()
    }
    assert Filled.forward.__globals__ is globals()
    assert isinstance(Filled().forward(np.ones((4, 2))), np.ndarray)


def same_globals(before):
    return {name: id(value) for name, value in globals().items()} == before


@pytest.mark.parametrize("at", range(1, 9))
def test_an_interrupt_leaves_numpy_in_its_place(monkeypatch, at):
    hold, count = stand_ins._hold, itertools.count(1)

    def holding(held, parts):
        if next(count) == at:
            raise KeyboardInterrupt
        hold(held, parts)

    before = {name: id(value) for name, value in globals().items()}
    monkeypatch.setattr(stand_ins, "_hold", holding)
    with pytest.raises(KeyboardInterrupt):
        [sa.check_layer(Members(), np.ones((4, 2))) for _ in range(4)]
    assert same_globals(before)
    assert np is numpy


def test_numpy_is_back_where_the_recorded_pass_raised():
    class Refusing(Filled):
        def forward(self, x):
            if not isinstance(x, np.ndarray):
                raise TypeError("an array")
            return super().forward(x)

    before = {name: id(value) for name, value in globals().items()}
    assert sa.check_layer(Refusing(), np.ones((4, 2))).ok
    assert same_globals(before)


def test_other_threads_meet_numpy_itself_meanwhile(tmp_path):
    seen = tmp_path / "seen"  # a list would be put back

    def fill():
        with seen.open("a") as file:
            print(type(Filled().forward(np.ones((2, 2)))).__name__, file=file)

    class Threaded(Filled):
        def forward(self, x):
            thread = threading.Thread(target=fill)
            thread.start()
            thread.join()
            return super().forward(x)

    report = sa.check_layer(Threaded(), np.ones((4, 2)))
    assert (report.ok, report.reference) == (True, "autograd")
    assert set(seen.read_text().split()) == {"ndarray"}


KEPT = {}


def test_nothing_keeps_what_stands_for_numpy():
    class Keeping(Filled):
        def forward(self, x):
            self.xp = KEPT["np"] = np
            return super().forward(x)

    layer = Keeping()
    assert sa.check_layer(layer, np.ones((4, 2))).reference == "autograd"
    assert KEPT == {}
    assert not hasattr(layer, "xp")


def test_data_beside_the_parameters_may_have_its_methods_called():
    X = np.random.default_rng(0).normal(size=(5, 3))

    def loss(params, X):
        return np.sum(X.dot(params["W"]) ** 2)

    def gradient(params, X):
        return {"W": 2 * X.T.dot(X.dot(params["W"]))}

    report = sa.check_gradient(loss, gradient, {"W": np.ones((3, 2))}, X)
    assert (report.ok, report.reference) == (True, "autograd")


def test_a_view_that_was_taken_before_it_was_filled_is_not_believed():
    class View:
        def forward(self, x):
            out = np.zeros(x.shape)
            row = out[0]
            row[...] = x[0]  # with boxes, this fills a copy
            self.shape = x.shape
            return out

        def backward(self, dout):
            dx = np.zeros(self.shape)
            dx[0] = dout[0]
            return dx

    report = sa.check_layer(View(), np.ones((3, 2)))
    assert report.ok, str(report)
    assert report.reference != "autograd"


class Squares:
    """A network in small, whose methods fill an array."""

    def loss(self, params, x):
        self.params = params
        out = np.zeros(len(x))
        for i, row in enumerate(x):
            out[i] = self.one(row)
        return np.sum(out)

    def one(self, row):
        return np.sum((row * self.params["w"]) ** 2)

    def gradient(self, params, x):
        return {"w": 2 * params["w"] * np.sum(x**2, axis=0)}


def test_autograd_follows_methods_and_what_a_function_closes_over():
    net, nets = Squares(), [Squares()]
    params, x = {"w": np.array([0.5, -2.0])}, np.random.default_rng(0).normal(size=(3, 2))

    def loss(params, x):
        return net.loss(params, x)

    def listed(params, x):
        return nets[0].loss(params, x)

    def counted(params, x):
        def down(n):
            return 0.0 if n == 0 else down(n - 1)

        return net.loss(params, x) + down(3)

    for function in (net.loss, loss, listed, counted):
        report = sa.check_gradient(function, net.gradient, params, x)
        assert report.ok, str(report)
        assert report.reference == "autograd"
    assert type(net) is Squares
