"""A gradient beside its array: in a pair, a dict, an object; kept, returned or given."""

from types import SimpleNamespace

import numpy as np
import pytest
from effort import some

import spiral_autograd as sa

pytestmark = pytest.mark.usefixtures("verdicts_alone")

rng = np.random.default_rng(3)
x, W0, b0 = rng.normal(size=(5, 3)), rng.normal(size=(3, 4)), rng.normal(size=4)


class Dense:
    """Its backward hands both gradients to `put`, and returns that of x, and what `put` returns."""

    def __init__(self, change=lambda db: db):
        self.change = change
        self.keep(W0.copy(), b0.copy())

    def keep(self, W, b):
        self.W, self.b = W, b

    def held(self):
        return self.W, self.b

    def forward(self, x):
        self.x = x
        W, b = self.held()
        return x @ W + b

    def backward(self, dout):
        W, _ = self.held()
        rest = self.put(self.x.T @ dout, self.change(dout.sum(axis=0)))
        dx = dout @ W.T
        return dx if rest is None else (dx, rest)


class Pairs(Dense):
    """In a list of pairs, whose gradients are buffers."""

    def keep(self, W, b):
        self.pairs = [(W, np.zeros_like(W)), (b, np.zeros_like(b))]

    def held(self):
        return [value for value, _ in self.pairs]

    def put(self, dW, db):
        for (_, buffer), gradient in zip(self.pairs, (dW, db), strict=True):
            buffer[...] = gradient


class NewPairs(Dense):
    """The list of pairs is made by backward."""

    def put(self, dW, db):
        self.pairs = [(self.W, dW), (self.b, db)]


class DictOfLists(Pairs):
    def keep(self, W, b):
        self.entries = {"W": [W, None], "b": [b, None]}

    def held(self):
        return [value for value, _ in self.entries.values()]

    def put(self, dW, db):
        self.entries["W"][1], self.entries["b"][1] = dW, db


class DictOfDicts(Pairs):
    def keep(self, W, b):
        self.entries = {"W": {"now": W, "slope": None}, "b": {"now": b, "slope": None}}

    def held(self):
        return [entry["now"] for entry in self.entries.values()]

    def put(self, dW, db):
        self.entries["W"]["slope"], self.entries["b"]["slope"] = dW, db


class Objects(Pairs):
    """Objects of two arrays, by names that nobody knows."""

    def keep(self, W, b):
        self.entries = [SimpleNamespace(theta=a, adjoint=np.zeros_like(a)) for a in (W, b)]

    def held(self):
        return [entry.theta for entry in self.entries]

    def put(self, dW, db):
        self.entries[0].adjoint[:], self.entries[1].adjoint[:] = dW, db


class Generated(Dense):
    """A method yields the pairs."""

    def put(self, dW, db):
        self.first, self.second = dW, db

    def params_and_grads(self):
        yield self.W, self.first
        yield self.b, self.second


class Triples(Generated):
    def params_and_grads(self):
        yield "W", self.W, self.first
        yield "b", self.b, self.second


class Returned(Dense):
    def put(self, dW, db):
        return [(self.W, dW), (self.b, db)]


class ReturnedTurned(Dense):
    def put(self, dW, db):
        return (dW, self.W), (db, self.b)


class ReturnedDict(Dense):
    def put(self, dW, db):
        return {"W": (self.W, dW), "b": (self.b, db)}


class ReturnedNamed(Dense):
    def put(self, dW, db):
        return [("W", dW), ("b", db)]


class ReturnedObject(Dense):
    def put(self, dW, db):
        return SimpleNamespace(dW=dW, db=db)


LAYERS = [
    *(Pairs, NewPairs, DictOfLists, DictOfDicts, Objects, Generated, Triples),
    *(Returned, ReturnedTurned, ReturnedDict, ReturnedNamed, ReturnedObject),
]
MISTAKES = {
    "other numbers": lambda db: np.array([0.3, -0.7, 0.2, 1.1]),
    "another shape": lambda db: db[None, :2],
    "negative": lambda db: -db,
    "zeros": lambda db: 0 * db,
}


@pytest.mark.parametrize("layer", LAYERS)
def test_what_is_right(layer):
    report = sa.check_layer(layer(), x)
    assert (report.ok, len(report.rows), report.unchecked) == (True, 3, ()), str(report)


PAIRS = [(layer, mistake) for layer in LAYERS for mistake in MISTAKES]
BUFFERS = [(layer, "another shape") for layer in (Pairs, Objects)]  # which do not take it


@pytest.mark.parametrize(
    ("layer", "mistake"), some([pair for pair in PAIRS if pair not in BUFFERS], 5)
)
def test_a_gradient_is_known_by_its_company_whatever_its_numbers(layer, mistake):
    report = sa.check_layer(layer(MISTAKES[mistake]), x, budget=0)
    verdicts = [row.verdict for row in report.rows]
    assert (verdicts[:2], report.ok) == (["exact", "exact"], False), str(report)


def test_two_that_have_changed_places():
    class Swapped(Returned):
        def keep(self, W, b):
            self.W, self.b, self.c = W, b, 2 * b

        def forward(self, x):
            return super().forward(x) + np.tanh(self.c)

        def put(self, dW, db):
            dc = db * (1 - np.tanh(self.c) ** 2)
            self.pairs = [(self.W, dW), (self.b, dc), (self.c, db)]

    report = sa.check_layer(Swapped(), x, budget=0)
    assert [row.verdict for row in report.rows][2:] == ["wrong", "wrong"], str(report)


def test_what_stands_beside_a_parameter_and_is_not_written_is_no_gradient():
    class Momentum(Dense):
        def keep(self, W, b):
            self.W, self.b = W, b
            self.state = [(W, np.zeros_like(W)), (b, np.ones_like(b))]

        def put(self, dW, db):
            self.first, self.second = dW, db

    report = sa.check_layer(Momentum(), x)
    assert (report.ok, len(report.rows)) == (True, 3), str(report)
