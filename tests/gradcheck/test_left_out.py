"""Nothing that a layer uses is left out in silence: it has a row, or a note and a title say so."""

# ruff: noqa: F841, RUF059  (variables that are never used are what this is about)

import copy
import cProfile
import linecache

import numpy as np
import pytest
from findings import has
from layers import Product

import spiral_autograd as sa

rng = np.random.default_rng(0)
x, W0, b0 = rng.normal(size=(5, 4)), rng.normal(size=(4, 3)), rng.normal(size=3)


class Affine:
    """`scale` is 1 in the right version, 2 in the wrong one."""

    scale = 1

    def __init__(self):
        self.W, self.b = W0.copy(), b0.copy()

    def forward(self, x):
        self.x = x
        return x @ self.W + self.b


def rows(report):
    right = ("exact", "match")
    return {row.name: "right" if row.verdict in right else row.verdict for row in report.rows}


def title(report):
    return str(report).split("\n")[0]


def check_twice(kind, wanted, wrong, *inputs):
    """Check a right and a wrong version: these rows, of which one is wrong."""
    layer = kind()
    before = copy.deepcopy(vars(layer))
    report = sa.check_layer(layer, *inputs)
    assert report.ok, str(report)
    assert list(rows(report)) == wanted, str(report)
    assert not report.unchecked
    same_attributes(before, vars(layer))
    report = sa.check_layer(type(kind.__name__, (kind,), {"scale": 2})(), *inputs)
    assert [name for name, verdict in rows(report).items() if verdict != "right"] == [wrong]
    assert rows(report)[wrong] == "wrong"


def same_attributes(before, now):
    assert before.keys() == now.keys()
    for name, value in before.items():
        assert type(now[name]) is type(value), name
        if isinstance(value, dict | list):
            pairs = [dict(enumerate(v)) if isinstance(v, list) else v for v in (value, now[name])]
            same_attributes(*pairs)
        else:
            assert np.array_equal(now[name], value), name


# -------------------- a forgotten self --------------------


class ForgottenW(Affine):
    def backward(self, dout):
        dW = self.x.T @ dout
        self.db = dout.sum(axis=0)
        return dout @ self.W.T


class ForgottenInPart(Affine):
    def backward(self, dout):
        self.parameter_gradients(dout)
        return dout @ self.W.T

    def parameter_gradients(self, dout):
        dW = np.zeros_like(self.W)
        for row, up in zip(self.x, dout, strict=True):
            dW += np.outer(row, up)
        self.db = dout.sum(axis=0)


class ForgottenWithPlace(Affine):
    def __init__(self):
        super().__init__()
        self.dW, self.db = None, None

    backward = ForgottenW.backward


class ForgottenBoth(Affine):
    def backward(self, dout):
        dx, dW, db = self.all(dout)
        return dx

    def all(self, dout):
        return dout @ self.W.T, self.x.T @ dout, dout.sum(axis=0)


@pytest.mark.parametrize("kind", [ForgottenW, ForgottenInPart, ForgottenWithPlace])
def test_a_gradient_that_is_only_a_local_variable_is_missing(kind):
    report = sa.check_layer(kind(), x)
    assert rows(report) == {"x": "right", "W": "missing", "b": "right"}
    row = next(row for row in report.rows if row.name == "W")
    assert row.rule == "unwritten"
    assert has(row, "unkept", variable="dW")
    assert any(" dW = " in line for line in str(report).split("\n"))


def test_a_local_variable_that_is_kept_as_well_is_not_lost():
    class ByPasses:
        def __init__(self):
            self.p, self.g = {"W": W0.copy()}, {}

        def forward(self, x):
            self.x = x
            return x @ self.p["W"]

        def backward(self, dout):
            self.dout = dout
            return dout @ self.p["W"].T

        def compute_gradients(self):
            dW = self.g["dW"] = self.x.T @ self.dout
            return dW

    report = sa.check_layer(ByPasses(), x)
    assert report.ok
    assert report.unchecked == ("p.W",)


def test_two_gradients_that_are_only_local_variables():
    report = sa.check_layer(ForgottenBoth(), x)
    assert rows(report) == {"x": "right", "W": "missing", "b": "missing"}
    assert report.to_dict()["ok"] is False


def test_a_number_whose_gradient_is_only_a_local_variable():
    class Shift:
        def __init__(self):
            self.b = 0.5

        def forward(self, x):
            return x + self.b

        def backward(self, dout):
            db = np.sum(dout)
            return dout

    layer = Shift()
    report = sa.check_layer(layer, x)
    assert rows(report) == {"x": "right", "b": "missing"}
    assert type(layer.b) is float


class KeptBeside(Affine):
    def backward(self, dout):
        dW = self.change_of_weights = self.x.T @ dout
        self.db = dout.sum(axis=0)
        return dout @ self.W.T


class KeptBelow(Affine):
    def backward(self, dout):
        dW = self.noted(self.x.T @ dout)
        self.db = dout.sum(axis=0)
        return dout @ self.W.T

    def noted(self, gradient):
        self.note = {"first": [gradient]}
        return gradient


class KeptInBuffer(Affine):
    def __init__(self):
        super().__init__()
        self.buffer = np.zeros(15)

    def backward(self, dout):
        dW = self.buffer[:12].reshape(4, 3)
        dW[...] = self.x.T @ dout
        self.db = dout.sum(axis=0)
        return dout @ self.W.T


class KeptByOther(Affine):
    """Whoever is given it may keep it."""

    def __init__(self):
        super().__init__()
        self.total = np.zeros(3)

    def backward(self, dout):
        dW = self.x.T @ dout
        self.db = dout.sum(axis=0)
        self.total += dW.sum(axis=0)
        return dout @ self.W.T


@pytest.mark.parametrize("kind", [KeptBeside, KeptBelow])
def test_a_gradient_that_is_kept_under_any_name_is_found(kind):
    report = sa.check_layer(kind(), x)
    assert rows(report) == {"x": "right", "b": "right", "W": "right"}
    assert report.unchecked == ()


@pytest.mark.parametrize("kind", [KeptInBuffer, KeptByOther])
def test_a_gradient_that_may_be_kept_somewhere_is_not_called_missing(kind):
    report = sa.check_layer(kind(), x)
    assert report.ok, str(report)
    assert report.unchecked == ("W",)
    assert title(report) == f"{kind.__name__}: right (W is not checked)"
    assert has(report, "used_without_gradient", name="W", last="W")


# -------------------- what forward uses --------------------


def test_a_constant_that_forward_uses_is_named():
    class Position:
        def __init__(self):
            self.table, self.unused = rng.normal(size=(5, 4)), np.ones(3)
            self.running_mean, self.limit = np.zeros(4), np.full(4, -9.0)

        def forward(self, x):
            self.mask = x > self.limit
            return (x - self.running_mean + self.table) * self.mask

        def backward(self, dout):
            return dout * self.mask

    report = sa.check_layer(Position(), x)
    assert report.ok, str(report)
    assert report.unchecked == ("table",)


@pytest.mark.parametrize("times", [1.0, 0.5])
def test_a_gradient_of_what_forward_does_not_use_is_told_so(times):
    class Affine:
        def __init__(self):
            self.W, self.b = rng.normal(size=(4, 3)), rng.normal(size=3)

        def forward(self, x):
            self.x = x
            return x @ self.W

        def backward(self, dout):
            self.dW = self.x.T @ dout
            self.db = times * dout.sum(axis=0)
            return dout @ self.W.T

    row = next(row for row in sa.check_layer(Affine(), x).rows if row.name == "b")
    assert has(row, "unused_by_forward"), row
    assert "self.db" in linecache.getline(*row.lines[-1])


def test_what_forward_writes_is_no_parameter():
    class Recurrent:
        def __init__(self):
            self.W, self.h, self.out = W0[:3].copy(), np.ones(3), np.zeros((5, 3))

        def forward(self, x):
            self.x, self.before, self.h = x, self.h, np.tanh(x.sum(axis=0) @ self.W)
            self.out[...] = x @ self.W
            return self.out + self.before

        def backward(self, dout):
            self.dW = self.x.T @ dout
            return dout @ self.W.T

    layer = Recurrent()
    layer.forward(x[:, :3] + 1)
    layer.backward(rng.normal(size=(5, 3)))
    report = sa.check_layer(layer, x[:, :3])
    assert report.ok, str(report)
    assert report.unchecked == ()
    assert report.notes == ()


def test_a_parameter_in_an_object_of_no_kind_known_is_named():
    class Store:
        pass

    class Scale:
        def __init__(self):
            self.store = Store()
            self.store.gains = [np.ones(4), rng.normal(size=4)]

        def forward(self, x):
            return x * self.store.gains[1]

        def backward(self, dout):
            return dout * self.store.gains[1]

    report = sa.check_layer(Scale(), x)
    assert report.unchecked == ("store.gains[1]",)


def test_an_input_without_a_gradient_stands_in_the_title():
    assert title(sa.check_layer(Product(), x, x + 1)) == "Product: right (y is not checked)"
    report = sa.check_backward(lambda a, b: (a * b, b), lambda dout, b: (dout * b,), x, x + 1)
    assert "right (b is not checked)" in title(report)


@pytest.mark.parametrize("in_place", [True, False])
def test_a_layer_that_updates_itself(in_place):
    class Updating(Affine):
        def backward(self, dout):
            dW, db, dx = self.x.T @ dout, dout.sum(axis=0), dout @ self.W.T
            if in_place:
                self.W -= 0.1 * dW
                self.b -= 0.1 * db
            else:
                self.W, self.b = self.W - 0.1 * dW, self.b - 0.1 * db
            return dx

    layer = Updating()
    report = sa.check_layer(layer, x)
    assert rows(report) == {"x": "right", "W": "right", "b": "right"}
    assert has(report, "by_its_change", names=["W", "b"], rate=0.1, n=1)
    assert np.array_equal(layer.W, W0)


def test_a_network_says_what_is_not_checked():
    class Loss:
        def forward(self, x, t):
            self.apart = x - t
            return 0.5 * np.sum(self.apart**2)

        def backward(self, dout=1):
            return dout * self.apart

    report = sa.check_network([KeptByOther()], x, np.zeros((5, 3)), loss=Loss())
    assert report.unchecked == ("layers[0].W",)


# -------------------- numbers --------------------


class PReLU:
    scale = 1

    def __init__(self):
        self.alpha = 0.25

    def forward(self, x):
        self.x = x
        return np.where(x > 0, x, self.alpha * x)

    def backward(self, dout):
        self.dalpha = self.scale * np.sum(dout * np.where(self.x > 0, 0, self.x))
        return dout * np.where(self.x > 0, 1, self.alpha)


class NumpyNumber(PReLU):
    def __init__(self):
        self.alpha = np.float64(0.25)


class NumberOfClass(PReLU):
    alpha = 0.25

    def __init__(self):
        pass


@pytest.mark.usefixtures("verdicts_alone")
@pytest.mark.parametrize("kind", [PReLU, NumpyNumber, NumberOfClass])
def test_a_number_is_a_parameter(kind):
    check_twice(kind, ["x", "alpha"], "alpha", x)


class InDict:
    scale = 1

    def __init__(self):
        self.params, self.grads = {"W": W0.copy(), "b": 0.0}, {}

    def forward(self, x):
        self.x = x
        return x @ self.params["W"] + self.params["b"]

    def backward(self, dout):
        self.grads = {"W": self.x.T @ dout, "b": self.scale * dout.sum()}
        return dout @ self.params["W"].T


class InList(InDict):
    def __init__(self):
        self.params, self.grads = [W0.copy(), 0.0], []

    def forward(self, x):
        self.x = x
        return x @ self.params[0] + self.params[1]

    def backward(self, dout):
        self.grads = [self.x.T @ dout, self.scale * dout.sum()]
        return dout @ self.params[0].T


class ReturnedNumber(Affine):
    def __init__(self):
        self.W, self.b = W0.copy(), 0.5

    def backward(self, dout):
        return dout @ self.W.T, self.x.T @ dout, self.scale * dout.sum()


@pytest.mark.usefixtures("verdicts_alone")
@pytest.mark.parametrize(
    ("kind", "names"),
    [
        (InDict, ["x", "W", "b"]),
        (InList, ["x", "params[0]", "params[1]"]),
        (ReturnedNumber, ["x", "W", "b"]),
    ],
)
def test_a_number_among_parameters(kind, names):
    check_twice(kind, names, names[-1], x)


def test_a_float32_layer_stays_one():
    report = sa.check_layer(PReLU(), x.astype(np.float32))
    assert report.ok, str(report)
    assert "float32" in str(report)


def test_numbers_that_are_no_parameters():
    class Step:
        """An explicit Euler step: h is its length, dh the gradient of a state."""

        def __init__(self):
            self.t, self.dt, self.h, self.times = 0.5, 0.1, 0.2, np.ones(3)
            self.dtimes, self.rate = 0.1, 0.9

        def forward(self, x):
            self.loss = 1.0
            return x * self.t * self.dt * self.rate + self.h * x

        def backward(self, dout):
            self.dh = dout * 1.0
            self.dloss = 2.0
            return dout * (self.t * self.dt * self.rate + self.h)

    report = sa.check_layer(Step(), x)
    assert report.ok, str(report)
    assert rows(report) == {"x": "right"}
    assert report.notes == ()


def test_a_number_that_must_stay_one():
    class Picky(PReLU):
        def forward(self, x):
            if not isinstance(self.alpha, float):
                raise TypeError("a float, please")
            return super().forward(x)

    layer = Picky()
    report = sa.check_layer(layer, x)
    assert report.ok, str(report)
    assert report.unchecked == ("alpha",)
    assert type(layer.alpha) is float


def test_a_number_whose_gradient_accumulates():
    class Accumulating(PReLU):
        def __init__(self):
            self.alpha, self.dalpha = 0.25, 0.0

        def backward(self, dout):
            before = self.dalpha
            dx = super().backward(dout)
            self.dalpha += before
            return dx

    report = sa.check_layer(Accumulating(), x)
    assert [row.name for row in report.rows] == ["x", "alpha"]
    assert has(report, "accumulating", names=["alpha"]), str(report)

    class Resettable(Accumulating):
        def zero_grad(self):
            self.dalpha = 0.0

    assert sa.check_layer(Resettable(), x).ok


# -------------------- where gradients may lie --------------------


class Listed(Affine):
    def backward(self, dout):
        dW, db = self.scale * (self.x.T @ dout), dout.sum(axis=0)
        self.grads = [dW, db]
        return dout @ self.W.T


class ListedWithInput(Affine):
    def __init__(self):
        self.b, self.W, self.constant = b0.copy(), W0.copy(), np.ones((5, 4))

    def backward(self, dout):
        dx, dW, db = dout @ self.W.T, self.scale * (self.x.T @ dout), dout.sum(axis=0)
        self.grads = []
        self.grads.append(dx)
        self.grads.append(dW)
        self.grads.append(db)
        return dx


class InDictOfGradients(Affine):
    def backward(self, dout):
        self.grad = {"W": self.scale * (self.x.T @ dout), "b": dout.sum(axis=0)}
        return dout @ self.W.T


class OfClass(Affine):
    W, b = W0.copy(), b0.copy()

    def __init__(self):
        pass

    def backward(self, dout):
        self.dW, self.db = self.scale * (self.x.T @ dout), dout.sum(axis=0)
        return dout @ self.W.T


class ReturnedDict(Affine):
    def backward(self, dout):
        return dout @ self.W.T, {"W": self.scale * (self.x.T @ dout), "b": dout.sum(axis=0)}


class ReturnedWholeDict(Affine):
    def backward(self, dout):
        dW = self.scale * (self.x.T @ dout)
        return {"dx": dout @ self.W.T, "dW": dW, "db": dout.sum(axis=0)}


class ReturnedList(Affine):
    def backward(self, dout):
        return dout @ self.W.T, [self.scale * (self.x.T @ dout), dout.sum(axis=0)]


class ReturnedAndKept(Affine):
    def backward(self, dout):
        self.dW, self.db = self.scale * (self.x.T @ dout), dout.sum(axis=0)
        return dout @ self.W.T, self.dW, self.db


PLACES = [
    Listed,
    ListedWithInput,
    InDictOfGradients,
    OfClass,
    ReturnedDict,
    ReturnedWholeDict,
    ReturnedList,
    ReturnedAndKept,
]


@pytest.mark.usefixtures("verdicts_alone")
@pytest.mark.parametrize("kind", PLACES)
def test_gradients_of_attributes_in_many_places(kind):
    check_twice(kind, ["x", "W", "b"], "W", x)
    assert np.array_equal(kind().W, W0)


@pytest.mark.usefixtures("verdicts_alone")
def test_square_weights_are_told_apart_by_the_names_of_their_gradients():
    class Two:
        scale = 1

        def __init__(self):
            self.V, self.W = rng.normal(size=(2, 4, 4))

        def forward(self, x):
            self.x = x
            return x @ self.W + 2 * x @ self.V

        def backward(self, dout):
            dW = self.scale * (self.x.T @ dout)
            dV = 2 * self.x.T @ dout
            return dout @ (self.W + 2 * self.V).T, dW, dV

    check_twice(Two, ["x", "V", "W"], "W", x)


@pytest.mark.usefixtures("verdicts_alone")
def test_one_array_under_two_names():
    class Twice:
        scale = 1

        def __init__(self):
            self.W = self.V = rng.normal(size=(4, 4))

        def forward(self, x):
            self.x, self.h = x, x @ self.W
            return self.h @ self.V

        def backward(self, dout):
            self.dV, dh = self.scale * (self.h.T @ dout), dout @ self.V.T
            self.dW = self.x.T @ dh
            return dh @ self.W.T

    check_twice(Twice, ["x", "W = V"], "W = V", x)


@pytest.mark.usefixtures("verdicts_alone")
def test_a_pair_with_a_dict_of_parameters_beside_its_input():
    def forward(x, params):
        return x @ params["W"] + params["b"], (x, params)

    def backward(dout, cache, scale=1):
        x, params = cache
        return dout @ params["W"].T, {"dW": scale * (x.T @ dout), "db": dout.sum(axis=0)}

    def wrong(dout, cache):
        return backward(dout, cache, 2)

    def short(dout, cache):
        dx, grads = backward(dout, cache)
        return dx, {"dW": grads["dW"]}

    params = {"W": W0, "b": b0}
    report = sa.check_backward(forward, backward, x, params)
    assert rows(report) == {"x": "right", "W": "right", "b": "right"}
    assert rows(sa.check_backward(forward, wrong, x, params))["W"] == "wrong"
    assert sa.check_backward(forward, short, x, params).unchecked == ("b",)


def test_a_profiler_may_run_meanwhile():
    class Unkept:
        def __init__(self):
            self.W = np.array([1.0, 2.0])

        def forward(self, x):
            self.x = x
            return x * self.W

        def backward(self, dout):
            dW = (self.x * dout).sum(axis=0)
            del dW
            return dout * self.W

    profile = cProfile.Profile()
    report = profile.runcall(sa.check_layer, Unkept(), np.random.default_rng(0).normal(size=(3, 2)))
    assert [row.verdict for row in report.rows if row.name == "x"] == ["exact"]
    assert "W" in str(report).split("\n")[0] or not report.ok


# -------------------- fewer gradients are returned than there are arguments --------------------


class Graph:
    """A layer of a graph network, which is given its adjacency matrix first."""

    def __init__(self, wrong=False):
        self.W, self.wrong = rng.normal(size=(3, 2)), wrong

    def forward(self, A, X):
        self.A, self.X = A, X
        return A @ X @ self.W

    def backward(self, dout):
        self.dW = (self.A @ self.X).T @ dout
        return (self.A if self.wrong else self.A.T) @ dout @ self.W.T


@pytest.mark.usefixtures("verdicts_alone")
@pytest.mark.parametrize("wrong", [False, True])
@pytest.mark.parametrize("constant", [(), ["A"]])
def test_gradients_belong_to_the_arguments_that_they_fit(constant, wrong):
    A, X = rng.normal(size=(4, 4)), rng.normal(size=(4, 3))
    report = sa.check_layer(Graph(wrong), A, X, constant=constant)
    assert [row.name for row in report.rows] == ["X", "W"]
    assert (report.rows[0].verdict == "wrong") == wrong
    assert report.unchecked == (() if constant else ("A",))


@pytest.mark.usefixtures("verdicts_alone")
def test_those_that_are_meant_to_have_none_are_left_out_where_all_have_one_shape():
    A, X = rng.normal(size=(3, 3)), rng.normal(size=(3, 3))
    assert sa.check_layer(Graph(), A, X, constant=["A"]).ok
    (first, _) = sa.check_layer(Graph(), A, X).rows
    assert (first.name, first.verdict) == ("A", "wrong")  # whatever comes near: it is the first


def test_one_argument_of_a_pair_in_the_middle_has_no_gradient():
    def forward(q, mask, W):
        p = np.exp(q + mask)
        return p @ W, (p, W)

    def backward(dout, cache):
        p, W = cache
        return dout @ W.T * p, p.T @ dout

    inputs = rng.normal(size=(4, 3)), rng.normal(size=3), rng.normal(size=(3, 2))
    report = sa.check_backward(forward, backward, *inputs)
    assert [row.name for row in report.rows] == ["q", "W"]
    assert report.ok
    assert report.unchecked == ("mask",)
