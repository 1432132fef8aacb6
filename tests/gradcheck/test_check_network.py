"""Whole networks: which layer is wrong, shared weights, gradients that the network holds."""

import math
import time
from collections import OrderedDict
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from corpus.dense import Affine
from corpus.embedding import Embedding
from corpus.losses import CrossEntropyLoss, MSELoss
from corpus.small_nets import PlainAffine, Tanh
from findings import has

import spiral_autograd as sa
from spiral_autograd.gradcheck.finding import found


def rng(seed=0):
    return np.random.default_rng(seed)


class Doubled(PlainAffine):
    """Its gradient of W is twice what it should be."""

    def backward(self, dout):
        dx = super().backward(dout)
        self.grads[0][...] *= 2
        return dx


class Replacing(PlainAffine):
    """Puts a new array where the network holds the old one."""

    def backward(self, dout):
        self.grads[0] = self.x.T @ dout
        self.grads[1][...] = dout.sum(axis=0)
        return dout @ self.params[0].T


class Transposed:
    """y = x @ W.T, of a W that another layer uses as it is."""

    def __init__(self, W, factor=1.0):
        self.params, self.grads = [W.T], [np.zeros_like(W.T)]
        self.factor = factor

    def forward(self, x):
        self.x = x
        return x @ self.params[0]

    def backward(self, dout):
        self.grads[0][...] = self.factor * self.x.T @ dout
        return dout @ self.params[0].T


def dense(inputs=3, outputs=3, kind=PlainAffine, seed=1):
    return kind(rng(seed).normal(size=(inputs, outputs)), rng(seed + 9).normal(size=outputs))


def data(n=5, d=3, c=3):
    return rng(7).normal(size=(n, d)), rng(8).integers(c, size=n)


def net(layers, loss=None, **more):
    return SimpleNamespace(layers=layers, loss_layer=loss or CrossEntropyLoss(), **more)


# -------------------- the ways to write one --------------------


def three():
    return [dense(seed=1), Tanh(), dense(seed=2)]


def named():
    return OrderedDict(zip(["Affine1", "Tanh", "Affine2"], three(), strict=True))


FORMS = {
    "layers and loss_layer": (lambda: (net(three()), None), "layers[0]"),
    "a dict of layers": (lambda: (net(named()), None), "layers['Affine1']"),
    "last_layer": (
        lambda: (SimpleNamespace(layers=named(), last_layer=CrossEntropyLoss()), None),
        "layers['Affine1']",
    ),
    "lastLayer": (
        lambda: (SimpleNamespace(layers=three(), lastLayer=CrossEntropyLoss()), None),
        "layers[0]",
    ),
    "a list and a loss": (lambda: (three(), CrossEntropyLoss()), "layers[0]"),
    "a tuple and a loss": (lambda: (tuple(three()), CrossEntropyLoss()), "layers[0]"),
    "a dict and a loss": (lambda: (named(), CrossEntropyLoss()), "layers['Affine1']"),
}


@pytest.mark.parametrize("form", FORMS)
def test_a_network_is_checked_in_whichever_form(form):
    make, first = FORMS[form]
    network, loss = make()
    report = sa.check_network(network, *data(), loss=loss)
    assert report.ok, str(report)
    assert report.rows[0].name == f"{first}.x"
    assert report.rows[-1].name.startswith("loss_layer.")
    assert report.notes == ()
    assert "match: within 1e-10" in str(report)


@pytest.mark.parametrize(
    ("network", "loss", "said"),
    [
        (SimpleNamespace(), None, "must have layers"),
        (three(), None, "must have a loss_layer"),
        (net(three(), loss=lambda x, t: 0.0), None, "must have a loss_layer"),
    ],
)
def test_what_is_no_network_is_refused(network, loss, said):
    with pytest.raises(sa.CheckError, match=said):
        sa.check_network(network, *data(), loss=loss)


# -------------------- the first wrong layer --------------------


@pytest.mark.usefixtures("verdicts_alone")
@pytest.mark.parametrize("place", [0, 2])
def test_the_wrong_layer_is_named(place):
    layers = three()
    layers[place] = dense(kind=Doubled)
    report = sa.check_network(net(layers), *data())
    assert [row.name for row in report.rows if row.verdict == "wrong"] == [
        f"layers[{place}].params[0]"
    ]
    assert has(report, "first_wrong", name=f"layers[{place}] (Doubled)")


@pytest.mark.usefixtures("verdicts_alone")
def test_of_two_wrong_layers_the_later_is_the_first_on_the_way_back():
    report = sa.check_network(net([dense(kind=Doubled), Tanh(), dense(kind=Doubled)]), *data())
    assert sum(row.verdict == "wrong" for row in report.rows) == 2
    assert report.findings[-1] == found("first_wrong", name="layers[2] (Doubled)")


@pytest.mark.usefixtures("verdicts_alone")
def test_a_wrong_loss_is_the_first_of_all():
    class Wrong(CrossEntropyLoss):
        def backward(self, dout=1.0):
            return 2 * super().backward(dout)

    report = sa.check_network(net([dense(kind=Doubled)], Wrong()), *data())
    assert report.findings[-1] == found("first_wrong", name="loss_layer (Wrong)")


def test_integer_ids_go_into_an_embedding():
    ids = rng(3).integers(6, size=7)
    layers = [Embedding(rng(4).normal(size=(6, 3))), dense(3, 4), Tanh()]
    report = sa.check_network(net(layers), ids, rng(5).integers(4, size=7))
    assert report.ok, str(report)
    assert report.rows[0].name == "layers[0].params[0]"


def test_the_least_sharp_reference_is_the_report_s():
    class ByMath:
        def forward(self, x):
            self.y = np.array([float.fromhex(math.tanh(v).hex()) for v in x.ravel()]).reshape(
                x.shape
            )
            return self.y

        def backward(self, dout):
            return dout * (1 - self.y**2)

    report = sa.check_network(net([dense(), ByMath(), dense(seed=2)]), *data())
    assert report.ok, str(report)
    assert report.reference == "central differences"
    (note,) = report.findings
    assert has([note], "reference", name="layers[1]", kind="central differences")


def test_everything_comes_out_as_it_went_in():
    network, (x, t) = net(three()), data()
    arrays = [a for layer in network.layers for a in (*layer.params, *layer.grads)]
    before = [a.tobytes() for a in (*arrays, x, t)]
    sa.check_network(network, x, t)
    assert [a.tobytes() for a in (*arrays, x, t)] == before
    assert not hasattr(network.layers[0], "x")


# -------------------- shared weights --------------------


def test_a_weight_of_two_layers_has_one_row_with_the_sum():
    W = rng(1).normal(size=(3, 3))
    layers = [PlainAffine(W, np.zeros(3)), Tanh(), PlainAffine(W, np.ones(3))]
    x, _t = data()
    report = sa.check_network(net(layers, MSELoss()), x, rng(2).normal(size=(5, 3)))
    assert report.ok, str(report)
    shared = [row for row in report.rows if " = " in row.name]
    assert [row.name for row in shared] == ["layers[0].params[0] = layers[2].params[0]"]
    assert shared[0].verdict in ("exact", "match")
    assert sum(row.name.endswith("params[0]") for row in report.rows) == 1


def test_the_sum_is_the_gradient_of_the_whole_network():
    W, (x, _) = rng(1).normal(size=(3, 3)), data()
    layers, target = [Transposed(W), Tanh(), PlainAffine(W, np.ones(3))], rng(2).normal(size=(5, 3))
    report = sa.check_network(net(layers, MSELoss()), x, target)
    row = next(row for row in report.rows if " = " in row.name)
    assert row.name == "layers[0].params[0] = layers[2].params[0].T"

    def loss(W):
        return np.mean((np.tanh(x @ W.T) @ W + 1 - target) ** 2)

    step = 1e-6
    for i, j in np.ndindex(3, 3):
        E = np.zeros((3, 3))
        E[i, j] = step
        slope = (loss(W + E) - loss(W - E)) / (2 * step)
        assert row.handwritten[j, i] == pytest.approx(slope, abs=1e-8)


@pytest.mark.usefixtures("verdicts_alone")
@pytest.mark.usefixtures("verdicts_alone")
@pytest.mark.parametrize("place", [0, 2])
def test_a_mistake_in_one_that_shares_is_found_where_it_is(place):
    W = rng(1).normal(size=(3, 3))
    layers = [PlainAffine(W, np.zeros(3)), Tanh(), PlainAffine(W, np.ones(3))]
    layers[place] = Doubled(W, np.zeros(3))
    report = sa.check_network(net(layers, MSELoss()), data()[0], rng(2).normal(size=(5, 3)))
    assert not report.ok
    assert [row.name for row in report.rows if row.verdict == "wrong"] == [
        f"layers[{place}].params[0]"
    ]


@pytest.mark.usefixtures("verdicts_alone")
def test_two_mistakes_that_cancel_in_the_sum_are_found():
    W = rng(1).normal(size=(3, 3))
    x = data()[0]
    layers = [Transposed(W, 1.5), Transposed(W, 0.5)]
    report = sa.check_network(net(layers, MSELoss()), x, rng(2).normal(size=(5, 3)))
    assert sum(row.verdict == "wrong" for row in report.rows) == 2, str(report)


# -------------------- the gradients that the network holds --------------------


def holding(layers, **more):
    params = [p for layer in layers for p in layer.params]
    grads = [g for layer in layers for g in layer.grads]
    return net(layers, params=params, grads=grads, **more)


def test_a_network_that_holds_its_gradients_is_right():
    assert sa.check_network(holding(three()), *data()).ok


@pytest.mark.parametrize("as_dict", [False, True])
def test_a_replaced_gradient_is_found_with_its_line(as_dict):
    network = holding([dense(kind=Replacing), Tanh(), dense(seed=2)])
    if as_dict:
        network.params = {f"W{i}": p for i, p in enumerate(network.params)}
        network.grads = {f"W{i}": g for i, g in enumerate(network.grads)}
    report = sa.check_network(network, *data())
    assert not report.ok
    source = Path(__file__).read_text(encoding="utf-8").splitlines()
    line = 1 + next(i for i, text in enumerate(source) if "self.grads[0] = self.x.T" in text)
    (failure,) = report.faults
    label = "grads['W0']" if as_dict else "grads[0]"
    assert has([failure], "unheld", lacking="layers[0].params[0]", held=[])
    assert f"network.{label} does not have the gradient" in report.failures[0]
    assert f"test_check_network.py:{line}" in failure.fields["places"][0]


def test_affine_of_the_corpus_holds_its_gradients():
    assert sa.check_network(holding([dense(kind=Affine), Tanh()]), *data()).ok


# -------------------- one object twice --------------------


class Scaling:
    """Keeps nothing, so that it may stand in two places."""

    def forward(self, x):
        return 3 * x

    def backward(self, dout):
        return 3 * dout


class Stacking:
    """Keeps each input until its backward pass, and adds up its gradients."""

    def __init__(self, W):
        self.W, self.dW, self.xs = W, np.zeros_like(W), []

    def zero_grad(self):
        self.dW[...] = 0

    def forward(self, x):
        self.xs.append(x)
        return x @ self.W

    def backward(self, dout):
        self.dW += self.xs.pop().T @ dout
        return dout @ self.W.T


class KeepingTheLast(Stacking):
    def backward(self, dout):
        self.dW = self.xs.pop().T @ dout
        return dout @ self.W.T


@pytest.mark.parametrize("kind", ["stateless", "with a stack"])
def test_one_object_may_stand_in_two_places_if_it_keeps_nothing_of_one(kind):
    twice = Scaling() if kind == "stateless" else Stacking(rng(3).normal(size=(3, 3)))
    report = sa.check_network(net([twice, Tanh(), twice, dense()]), *data())
    assert report.ok, str(report)


@pytest.mark.parametrize("twice", [dense(), Tanh()])
def test_one_object_in_two_places_overwrites_what_it_kept(twice):
    report = sa.check_network(net([dense(seed=4), twice, dense(seed=5), twice]), *data())
    assert report.faults == (found("estranged", names=["layers[1]", "layers[3]"]),)


def test_one_object_in_two_places_of_other_shapes_raises_no_error():
    twice = Tanh()
    report = sa.check_network(net([dense(3, 4), twice, dense(4, 3), twice]), *data())
    assert report.faults == (found("estranged", names=["layers[1]", "layers[3]"]),)


def test_one_place_for_the_gradients_of_two_uses_must_hold_the_sum():
    twice = KeepingTheLast(rng(3).normal(size=(3, 3)))
    report = sa.check_network(net([twice, Tanh(), twice, dense()]), *data())
    assert report.faults == (found("not_the_sum", names=["layers[0].W", "layers[2].W"]),)


@pytest.mark.parametrize("is_list", [True, False])
def test_gradients_in_the_class_are_those_of_the_layer_that_ran_last(is_list):
    class Dense:
        grads = {}  # noqa: RUF012  (this is the mistake)

        def __init__(self, W):
            self.params = {"W": W}

        def forward(self, x):
            self.x = x
            return x @ self.params["W"]

        def backward(self, dout):
            self.grads["W"] = self.x.T @ dout
            return dout @ self.params["W"].T

    layers = [Dense(rng(k).normal(size=(3, 3))) for k in (1, 2)]
    network, loss = (layers, CrossEntropyLoss()) if is_list else (net(layers), None)
    report = sa.check_network(network, *data(), loss=loss)
    assert report.faults == (found("replaced_later", names=["layers[1].W"]),)
    layers[1].grads = {}
    assert sa.check_network(network, *data(), loss=loss).ok


def test_layers_that_share_memory_spoil_each_other():
    class Buffered:
        buffer = np.empty((5, 3))

        def forward(self, x):
            self.buffer[...] = np.tanh(x)
            return self.buffer.copy()

        def backward(self, dout):
            return dout * (1 - self.buffer**2)

    report = sa.check_network(net([Buffered(), dense(), Buffered()]), *data())
    assert found("estranged", names=["layers[0]"]) in report.faults


def test_dropout_layers_draw_one_after_another():
    class Dropout:
        def forward(self, x):
            self.mask = np.random.rand(*x.shape) > 0.3  # noqa: NPY002
            return x * self.mask

        def backward(self, dout):
            return dout * self.mask

    report = sa.check_network(net([Dropout(), dense(), Dropout(), dense(seed=2)]), *data())
    assert report.ok, str(report)


# -------------------- errors name the layer --------------------


class Raising(Tanh):
    def backward(self, dout):
        raise RuntimeError("no")


@pytest.mark.parametrize(
    ("layers", "loss", "said"),
    [
        (
            [dense(), Tanh],
            CrossEntropyLoss(),
            r"^layers\[1\] must be an object, got the class Tanh",
        ),
        ([dense(), np.tanh], CrossEntropyLoss(), r"^layers\[1\] must have the methods forward and"),
        ([dense()], CrossEntropyLoss, r"^loss_layer must be an object, got the class Cross"),
        (
            [dense(), Raising()],
            CrossEntropyLoss(),
            r"^layers\[1\].backward raised RuntimeError: no",
        ),
        ([dense(), dense(4, 3)], CrossEntropyLoss(), r"^layers\[1\].forward raised ValueError"),
    ],
)
def test_an_error_names_the_layer(layers, loss, said):
    with pytest.raises(sa.CheckError, match=said):
        sa.check_network(layers, *data(), loss=loss)


def test_an_error_keeps_its_cause_whose_traceback_is_shown():
    with pytest.raises(sa.CheckError) as caught:
        sa.check_network([dense(), Raising()], *data(), loss=CrossEntropyLoss())
    assert isinstance(caught.value.__cause__, RuntimeError)


def test_a_class_is_no_network():
    with pytest.raises(sa.CheckError, match="network must be an object, got the class Tanh"):
        sa.check_network(Tanh, *data())


@pytest.mark.parametrize("returned", [None, np.zeros((5, 2))])
def test_a_layer_that_gives_nothing_back_is_the_wrong_one(returned):
    class Ending(PlainAffine):
        def backward(self, dout):
            super().backward(dout)
            return returned

    report = sa.check_network(net([dense(), Tanh(), dense(kind=Ending)]), *data())
    assert {row.name for row in report.rows if row.verdict in ("wrong", "missing")} == {
        "layers[2].x"
    }
    assert report.findings[-1] == found("first_wrong", name="layers[2] (Ending)")


# -------------------- layers in layers, and time --------------------


def test_lists_of_layers_may_be_nested():
    report = sa.check_network(net([[dense(), Tanh()], {"last": dense(seed=2)}]), *data())
    assert report.ok, str(report)
    names = {row.name for row in report.rows}
    assert {"layers[0][0].x", "layers[0][1].x", "layers[1]['last'].params[0]"} <= names


def test_the_last_layer_has_the_time_first(monkeypatch):
    from spiral_autograd.gradcheck import network_check

    asked = []

    def check(layer, *inputs, budget, **more):
        asked.append((type(layer).__name__, budget))
        end = time.thread_time() + 0.05
        while time.thread_time() < end:
            pass
        return sa.check_layer(layer, *inputs, budget=budget, **more)

    monkeypatch.setattr(network_check, "check_layer", check)
    sa.check_network(net([dense(kind=Doubled), Tanh()]), *data(), budget=2.0)
    assert [name for name, _ in asked] == ["CrossEntropyLoss", "Tanh", "Doubled"]
    budgets = [budget for _, budget in asked]
    assert budgets[0] <= 2.0
    assert budgets == sorted(budgets, reverse=True)
    assert budgets[2] <= budgets[0] - 0.1


@pytest.mark.parametrize("budget", [-1.0, np.nan])
def test_a_budget_that_is_no_time_is_refused(budget):
    with pytest.raises(ValueError, match="budget"):
        sa.check_network(net(three()), *data(), budget=budget)


@pytest.mark.usefixtures("verdicts_alone")
def test_a_mistake_shows_where_the_real_upstream_gradient_is_zero():
    layer, (x, _) = dense(kind=Doubled), data()
    report = sa.check_network(net([layer], MSELoss()), x, dense().forward(x))
    assert [row.name for row in report.rows if row.verdict == "wrong"] == ["layers[0].params[0]"]
