"""A network's own passes: its loss, its backward pass, the gradients that it returns or leaves."""

from collections import OrderedDict
from pathlib import Path

import numpy as np
import pytest
from corpus.losses import CrossEntropyLoss
from corpus.small_nets import PlainAffine, Tanh
from findings import has, says
from layers import Dense, Sequence

import spiral_autograd as sa
from spiral_autograd.gradcheck.finding import found

HERE = Path(__file__)


def rng(seed=0):
    return np.random.default_rng(seed)


X, LABELS = rng(7).normal(size=(6, 4)), rng(8).integers(3, size=6)


def dense(inputs, outputs, seed, kind=PlainAffine):
    return kind(rng(seed).normal(size=(inputs, outputs)), rng(seed + 9).normal(size=outputs))


def line_of(text):
    lines = HERE.read_text(encoding="utf-8").splitlines()
    return 1 + next(i for i, line in enumerate(lines) if text in line)


def wrong_rows(report):
    return {row.name for row in report.rows if row.verdict in ("wrong", "missing")}


class Net:
    """The parameters and gradients of its layers in lists."""

    def __init__(self):
        self.layers = [dense(4, 3, 1), Tanh(), dense(3, 3, 2)]
        self.loss_layer = CrossEntropyLoss()
        self.gather()

    def gather(self):
        self.params = [p for layer in self.layers for p in layer.params]
        self.grads = [g for layer in self.layers for g in layer.grads]

    def predict(self, x):
        for layer in self.layers:
            x = layer.forward(x)
        return x

    def forward(self, x, t):
        return self.loss_layer.forward(self.predict(x), t)

    def backward(self, dout=1):
        dout = self.loss_layer.backward(dout)
        for layer in reversed(self.layers):
            dout = layer.backward(dout)
        return dout


class Dropout:
    def forward(self, x, train_flg=True):
        self.mask = np.random.rand(*x.shape) > 0.3  # noqa: NPY002
        return x * self.mask if train_flg else x * 0.7

    def backward(self, dout):
        return dout * self.mask


class DictNet:
    """The parameters in a dict, and `gradient` returns one of gradients."""

    decay = 0.0

    def __init__(self):
        self.params = {
            "W1": rng(1).normal(size=(4, 3)),
            "b1": rng(2).normal(size=3),
            "W2": rng(3).normal(size=(3, 3)),
            "b2": rng(4).normal(size=3),
        }
        self.layers = OrderedDict()
        self.layers["Affine1"] = Dense(self.params["W1"], self.params["b1"])
        self.layers["Tanh"] = Tanh()
        self.layers["Affine2"] = Dense(self.params["W2"], self.params["b2"])
        self.lastLayer = CrossEntropyLoss()

    def predict(self, x):
        for layer in self.layers.values():
            x = layer.forward(x)
        return x

    def loss(self, x, t):
        decay = sum(np.sum(self.params[name] ** 2) for name in ("W1", "W2"))
        return self.lastLayer.forward(self.predict(x), t) + 0.5 * self.decay * decay

    def gradient(self, x, t):
        self.loss(x, t)
        return self.collected()

    def collected(self):
        dout = self.lastLayer.backward(1)
        for layer in reversed(list(self.layers.values())):
            dout = layer.backward(dout)
        first, second = self.layers["Affine1"], self.layers["Affine2"]
        grads = {"W1": first.dW + self.decay * first.W, "b1": first.db}
        return grads | {"W2": second.dW + self.decay * second.W, "b2": second.db}


# -------------------- right --------------------


class WithDecay(DictNet):
    decay = 0.1


class WithModes(WithDecay):
    """Drops in training, which only `loss(…, train_flg=True)` does."""

    def __init__(self):
        super().__init__()
        self.layers["Dropout"] = Dropout()

    def predict(self, x, train_flg=False):
        for name, layer in self.layers.items():
            x = layer.forward(x, train_flg) if name == "Dropout" else layer.forward(x)
        return x

    def loss(self, x, t, train_flg=False):
        decay = sum(np.sum(self.params[name] ** 2) for name in ("W1", "W2"))
        y = self.predict(x, train_flg)
        return self.lastLayer.forward(y, t) + 0.5 * self.decay * decay

    def gradient(self, x, t):
        self.loss(x, t, train_flg=True)
        return self.collected()


class WithHiddenModes(WithModes):
    """Its gradient is that of another forward pass than `loss` runs."""

    def loss(self, x, t):
        return super().loss(x, t)

    def gradient(self, x, t):
        self.lastLayer.forward(self.predict(x, train_flg=True), t)
        return self.collected()


class ReturnsBoth(DictNet):
    def gradient(self, x, t):
        return self.loss(x, t), super().gradient(x, t)


class ReturnsList(Net):
    def backward(self, dout=1):
        super().backward(dout)
        return list(self.grads)


class ReturnsNothing(Net):
    def backward(self, dout=1):
        super().backward(dout)


class Replacing(PlainAffine):
    def backward(self, dout):
        self.grads[0] = self.x.T @ dout
        self.grads[1] = dout.sum(axis=0)
        return dout @ self.params[0].T


class GathersAfter(Net):
    """Its layers make new gradients, which it gathers after each backward pass."""

    def __init__(self):
        super().__init__()
        self.layers = [dense(4, 3, 1, Replacing), Tanh(), dense(3, 3, 2, Replacing)]
        self.gather()

    def backward(self, dout=1):
        dout = super().backward(dout)
        self.gather()
        return dout


class Tied(Net):
    """Two layers share W, which the network lists twice."""

    def __init__(self):
        super().__init__()
        W = rng(1).normal(size=(4, 4))
        first, second = PlainAffine(W, np.zeros(4)), PlainAffine(W, np.ones(4))
        self.layers = [first, Tanh(), second, Tanh(), dense(4, 3, 3)]
        self.gather()


class OfScores(Net):
    """`backward` begins with the gradient of the scores."""

    def forward(self, x):
        return self.predict(x)

    def backward(self, dout):
        for layer in reversed(self.layers):
            dout = layer.backward(dout)
        return dout


class LossOfScores(OfScores):
    def loss(self, y, t):
        return self.loss_layer.forward(y, t)


class OfTargets(Net):
    def backward(self, t):
        self.loss_layer.t = t
        return super().backward()


class Residual(Net):
    def __init__(self):
        super().__init__()
        self.layers = [dense(4, 4, 1), Tanh(), dense(4, 3, 2)]
        self.gather()

    def predict(self, x):
        h = self.layers[1].forward(self.layers[0].forward(x))
        return self.layers[2].forward(x + h)

    def backward(self, dout=1):
        dout = self.layers[2].backward(self.loss_layer.backward(dout))
        return dout + self.layers[0].backward(self.layers[1].backward(dout))


class Concatenated(Net):
    """Its layers cannot be run one after another."""

    def __init__(self):
        super().__init__()
        self.layers = [dense(4, 4, 1), Tanh(), dense(8, 3, 2)]
        self.gather()

    def predict(self, x):
        h = self.layers[1].forward(self.layers[0].forward(x))
        return self.layers[2].forward(np.concatenate([x, h], axis=1))

    def backward(self, dout=1):
        dout = self.layers[2].backward(self.loss_layer.backward(dout))
        return dout[:, :4] + self.layers[0].backward(self.layers[1].backward(dout[:, 4:]))


class OwnStream(Net):
    """Two layers draw from one generator of the network."""

    def __init__(self):
        super().__init__()
        self.rng = rng(3)
        self.layers = [Drawing(self.rng), *self.layers[:2], Drawing(self.rng), self.layers[2]]


class Drawing:
    def __init__(self, rng):
        self.rng, self.params, self.grads = rng, [], []

    def forward(self, x):
        self.mask = self.rng.random(x.shape) > 0.3
        return x * self.mask

    def backward(self, dout):
        return dout * self.mask


class Nested(Net):
    def __init__(self):
        super().__init__()
        self.layers = [Sequence(*self.layers[:2]), self.layers[2]]


class WithoutList(Net):
    """No list of layers, but passes of its own."""

    def __init__(self):
        super().__init__()
        self.first, self.tanh, self.last = self.layers
        del self.layers

    def predict(self, x):
        return self.last.forward(self.tanh.forward(self.first.forward(x)))

    def backward(self, dout=1):
        dout = self.last.backward(self.loss_layer.backward(dout))
        return self.first.backward(self.tanh.backward(dout))


class ResidualGathersAfter(Residual):
    """More than its chain, and its layers make new gradients."""

    def __init__(self):
        super().__init__()
        self.layers = [dense(4, 4, 1, Replacing), Tanh(), dense(4, 3, 2, Replacing)]
        self.gather()

    def backward(self, dout=1):
        dout = super().backward(dout)
        self.gather()
        return dout


class RunsAgain(Net):
    """One object in two places, run forward again before each of its backward passes."""

    def __init__(self):
        super().__init__()
        twice = dense(4, 4, 1)
        self.layers = [twice, Tanh(), twice, dense(4, 3, 2)]
        self.params = [*twice.params, *self.layers[3].params]
        self.grads = [np.zeros_like(p) for p in self.params]

    def predict(self, x):
        self.inputs = []
        for layer in self.layers:
            self.inputs.append(x)
            x = layer.forward(x)
        return x

    def backward(self, dout=1):
        dout = self.loss_layer.backward(dout)
        for grad in self.grads:
            grad[...] = 0
        for layer, x in zip(self.layers[::-1], self.inputs[::-1], strict=True):
            layer.forward(x)
            dout = layer.backward(dout)
            first = 2 if layer is self.layers[3] else 0
            for grad, own in zip(self.grads[first:], layer.grads, strict=False):
                grad += own
        return dout


class Learns(Net):
    """`backward` takes more than a gradient."""

    def backward(self, dout, learning_rate):
        dout = super().backward(dout)
        for p, g in zip(self.params, self.grads, strict=True):
            p -= learning_rate * g
        return dout


class OfInputs(Net):
    """`backward` takes the data."""

    def backward(self, x):
        return super().backward() + 0 * x


RIGHT = [
    ResidualGathersAfter,
    RunsAgain,
    Learns,
    OfInputs,
    Net,
    DictNet,
    WithDecay,
    WithModes,
    WithHiddenModes,
    ReturnsBoth,
    ReturnsList,
    ReturnsNothing,
    GathersAfter,
    Tied,
    OfScores,
    LossOfScores,
    OfTargets,
    Residual,
    Concatenated,
    OwnStream,
    Nested,
    WithoutList,
]


@pytest.mark.parametrize("kind", RIGHT)
def test_a_right_network_is_right(kind):
    report = sa.check_network(kind(), X, LABELS)
    assert report.ok, str(report)
    assert {row.verdict for row in report.rows} <= {"exact", "match"}, str(report)


@pytest.mark.parametrize("kind", [Net, DictNet, WithModes, OwnStream, GathersAfter])
def test_the_network_comes_out_as_it_went_in(kind):
    net = kind()
    names, before = set(vars(net)), [set(vars(layer)) for layer in list_of(net)]
    sa.check_network(net, X, LABELS)
    assert set(vars(net)) == names
    assert [set(vars(layer)) for layer in list_of(net)] == before


def list_of(net):
    return list(net.layers.values()) if isinstance(net.layers, dict) else net.layers


def test_a_network_of_single_precision_is_right():
    net = Net()
    for layer in net.layers:
        layer.params = [p.astype(np.float32) for p in layer.params]
        layer.grads = [np.zeros_like(p) for p in layer.params]
    net.gather()
    report = sa.check_network(net, X.astype(np.float32), LABELS)
    assert report.ok, str(report)


@pytest.mark.parametrize("kind", [WithDecay, Residual])
def test_a_network_that_is_more_than_its_layers_is_checked_as_a_whole(kind):
    report = sa.check_network(kind(), X, LABELS)
    assert has(report, "no_chain")
    names = {row.name for row in report.rows}
    assert {"network.W1", "network.b2"} <= names or {"network.x", "network.params[0]"} <= names


def test_a_loss_of_the_scores_is_not_run_on_the_inputs():
    report = sa.check_network(LossOfScores(), X, LABELS)
    assert report.remarks == (), str(report)


def test_layers_are_checked_with_what_they_are_given_in_the_network():
    report = sa.check_network(Concatenated(), X, LABELS)
    assert {"layers[2].x", "layers[2].params[0]", "network.x"} <= {row.name for row in report.rows}
    assert next(row for row in report.rows if row.name == "layers[2].x").shape == (6, 8)
    assert report.findings[0].kind == "no_chain_runs"
    assert report.findings[0].fields["error"].startswith("layers[2].")


def test_a_gradient_of_another_forward_pass_is_not_compared():
    report = sa.check_network(WithHiddenModes(), X, LABELS)
    assert has(report, "other_pass")


# -------------------- wrong --------------------


class NotPassedOn(Net):
    def backward(self, dout=1):
        dout = self.loss_layer.backward(dout)
        for layer in reversed(self.layers):
            layer.backward(dout)  # not passed on
        return dout


class Doubled(Net):
    def backward(self, dout=1):
        dout = self.loss_layer.backward(dout) * 2  # doubled
        for layer in reversed(self.layers):
            dout = layer.backward(dout)
        return dout


class Unequal(NotPassedOn):
    """What is not passed on has another shape, so that the next backward pass raises."""

    def __init__(self):
        super().__init__()
        self.layers = [dense(4, 5, 1), Tanh(), dense(5, 3, 2)]
        self.gather()


class FirstForgotten(Net):
    def backward(self, dout=1):
        dout = self.loss_layer.backward(dout)
        for layer in self.layers[:0:-1]:
            dout = layer.backward(dout)  # never the first
        return dout


class LossOfTwo(Net):
    def backward(self, dout=1):
        dout = self.loss_layer.backward(2.0)  # of two
        for layer in reversed(self.layers):
            dout = layer.backward(dout)
        return dout


class HalvedOfScores(OfScores):
    def backward(self, dout):
        for layer in reversed(self.layers):
            dout = 0.5 * layer.backward(dout)  # halved
        return dout


WRONG_BACKWARD = {
    NotPassedOn: (
        {"misgiven": {"name": "layers[1]", "wanted": "layers[2]", "given": ["loss_layer"]}},
        "layer.backward(dout)  # not passed on",
    ),
    Doubled: (
        {"misgiven": {"name": "layers[2]", "wanted": "loss_layer", "given": [], "factor": 2.0}},
        "# doubled",
    ),
    FirstForgotten: ({"never_called": {"name": "layers[0]"}}, "# never the first"),
    LossOfTwo: ({"loss_misgiven": {"given": ["float 2.0"]}}, "# of two"),
    HalvedOfScores: ({"misgiven": {"wanted": "layers[2]", "factor": 0.5}}, "# halved"),
}


@pytest.mark.parametrize("kind", WRONG_BACKWARD)
def test_a_wrong_way_back_is_found_where_it_begins(kind):
    said, text = WRONG_BACKWARD[kind]
    report = sa.check_network(kind(), X, LABELS)
    assert "network.params[0]" in wrong_rows(report), str(report)
    assert all(name.startswith("network.") for name in wrong_rows(report)), str(report)
    row = next(row for row in report.rows if row.name == "network.params[0]")
    method = f"{kind.__name__}.backward"
    assert has(row, "other_than_layers", method=method, returned=False)
    assert says(row, said), row
    assert (str(HERE), line_of(text)) in row.lines


def test_an_own_backward_that_raises_is_a_failure():
    report = sa.check_network(Unequal(), X, LABELS)
    (failure,) = report.faults
    assert has([failure], "own_raised", method="Unequal.backward", is_sure=True)
    assert failure.fields["error"].startswith("ValueError")
    assert has([failure], "misgiven", name="layers[1]", given=["loss_layer"])
    assert "layer.backward(dout)  # not passed on" in "".join(failure.fields["places"])


class Exchanged(DictNet):
    def gradient(self, x, t):
        grads = super().gradient(x, t)
        grads["b2"] = self.layers["Affine1"].db  # exchanged
        return grads


class Left(DictNet):
    def gradient(self, x, t):
        grads = super().gradient(x, t)
        del grads["b2"]  # left out
        return grads


class ExtraDecay(DictNet):
    def gradient(self, x, t):
        grads = super().gradient(x, t)
        grads["W2"] = grads["W2"] + 0.1 * self.params["W2"]  # decayed
        return grads


WRONG_GRADIENT = {
    Exchanged: ("b2", {"that_of": {"name": "b1"}}, "# exchanged"),
    Left: ("b2", {"nothing_returned": {}}, "# left out"),
    ExtraDecay: ("W2", {"term": {"of": "W2", "own": True, "lacks": False}}, "# decayed"),
}


@pytest.mark.parametrize("kind", WRONG_GRADIENT)
def test_a_wrong_gradient_of_a_parameter_is_found_by_its_name(kind):
    name, said, text = WRONG_GRADIENT[kind]
    report = sa.check_network(kind(), X, LABELS)
    assert wrong_rows(report) == {f"network.{name}"}, str(report)
    row = next(row for row in report.rows if row.name == f"network.{name}")
    method = f"{kind.__name__}.gradient"
    assert has(row, "other_than_layers", method=method, returned=True)
    assert says(row, said), row
    assert (str(HERE), line_of(text)) in row.lines


class WithoutLoss(DictNet):
    """Has scores and gradients, and no loss of its own."""

    loss = None

    def gradient(self, x, t):
        self.lastLayer.forward(self.predict(x), t)
        grads = self.collected()
        return grads | {"W2": grads["W2"].T, "b2": 2 * grads["b2"]}


class WrongDense(Dense):
    def backward(self, dout):
        dx = super().backward(dout)
        self.dW = self.dW + 0.3 * self.W**2
        return dx


class WrongLayerToo(DictNet):
    def __init__(self):
        super().__init__()
        self.layers["Affine1"] = WrongDense(self.params["W1"], self.params["b1"])

    def gradient(self, x, t):
        grads = super().gradient(x, t)
        return grads | {"W1": 2 * grads["W1"], "b2": grads["b1"]}


@pytest.mark.parametrize(
    ("kind", "said"),
    [
        (WithoutLoss, {"W2": {"transposed": {}}, "b2": {"times": {"times": 2.0}}}),
        (WrongLayerToo, {"W1": {"times": {"times": 2.0}}, "b2": {"that_of": {"name": "b1"}}}),
    ],
)
def test_a_gathering_mistake_is_explained_without_a_loss_or_beside_a_wrong_layer(kind, said):
    report = sa.check_network(kind(), X, LABELS)
    rows = {row.name: row for row in report.rows}
    for name, findings in said.items():
        assert rows[f"network.{name}"].verdict == "wrong", str(report)
        assert says(rows[f"network.{name}"], findings), str(report)


class ForgottenDecay(WithDecay):
    def gradient(self, x, t):
        return super().gradient(x, t) | {"W1": self.layers["Affine1"].dW}


class ForgottenDecayInTraining(WithModes):
    def gradient(self, x, t):
        return super().gradient(x, t) | {"W1": self.layers["Affine1"].dW}


@pytest.mark.usefixtures("verdicts_alone")
@pytest.mark.parametrize("kind", [ForgottenDecay, ForgottenDecayInTraining])
def test_a_forgotten_decay_is_found_though_no_layer_has_it(kind):
    report = sa.check_network(kind(), X, LABELS)
    assert wrong_rows(report) == {"network.W1"}, str(report)


class ForgottenSkip(Residual):
    def backward(self, dout=1):
        dout = self.layers[2].backward(self.loss_layer.backward(dout))
        return self.layers[0].backward(self.layers[1].backward(dout))


@pytest.mark.usefixtures("verdicts_alone")
def test_a_forgotten_skip_connection_is_found():
    report = sa.check_network(ForgottenSkip(), X, LABELS)
    assert wrong_rows(report) == {"network.x"}, str(report)


class WrongHalf(Concatenated):
    def backward(self, dout=1):
        dout = self.layers[2].backward(self.loss_layer.backward(dout))
        return dout[:, 4:] + self.layers[0].backward(self.layers[1].backward(dout[:, :4]))


@pytest.mark.usefixtures("verdicts_alone")
def test_a_network_whose_layers_are_no_chain_is_found_wrong():
    report = sa.check_network(WrongHalf(), X, LABELS)
    assert {"network.x", "network.params[0]", "network.params[1]"} == wrong_rows(report)


class RaisingSkip(Residual):
    def backward(self, dout=1):
        dout = self.loss_layer.backward(dout)
        return self.layers[0].backward(self.layers[1].backward(dout))


def test_an_own_backward_that_raises_is_a_failure_of_a_network_that_is_no_chain():
    report = sa.check_network(RaisingSkip(), X, LABELS)
    raised = [fault for fault in report.faults if fault.kind == "own_raised"]
    assert [fault.fields["method"] for fault in raised] == ["RaisingSkip.backward"]
    assert raised[0].fields["error"].startswith("ValueError")


@pytest.mark.usefixtures("verdicts_alone")
def test_one_object_in_two_places_of_a_network_overwrites_what_it_kept():
    net = Net()
    net.layers[2] = net.layers[0] = dense(4, 4, 1)
    net.layers.append(dense(4, 3, 2))
    net.gather()
    report = sa.check_network(net, X, LABELS)
    assert found("estranged", names=["layers[0]", "layers[2]"]) in report.faults


class TiedOnce(Tied):
    def gather(self):
        super().gather()
        if len(self.params) == 6:
            del self.params[2], self.grads[2]


@pytest.mark.usefixtures("verdicts_alone")
def test_a_tied_weight_that_is_listed_once_lacks_a_part():
    report = sa.check_network(TiedOnce(), X, LABELS)
    held = {"held": ["layers[0].params[0]"], "lacking": "layers[2].params[0]"}
    assert has(report, "unheld", **held), str(report)
    assert "network.grads[0] is the gradient of" in str(report)


class WrongWithoutList(WithoutList):
    def backward(self, dout=1):
        dout = self.last.backward(self.loss_layer.backward(dout))
        return self.first.backward(dout)


@pytest.mark.usefixtures("verdicts_alone")
def test_a_network_without_a_list_of_layers_is_found_wrong():
    report = sa.check_network(WrongWithoutList(), X, LABELS)
    assert {"x", "params[0]", "params[1]"} == wrong_rows(report)


# -------------------- replaced --------------------


class Replaced(Net):
    def __init__(self):
        super().__init__()
        self.layers[0] = dense(4, 3, 1, Replacing)
        self.gather()


class ReplacedTied(Tied):
    def __init__(self):
        super().__init__()
        self.layers[0], self.layers[2] = (
            Replacing(*layer.params) for layer in (self.layers[0], self.layers[2])
        )
        self.gather()


@pytest.mark.parametrize("used", [False, True])
@pytest.mark.parametrize("kind", [Replaced, ReplacedTied])
def test_a_replaced_array_is_told_from_one_never_written(kind, used):
    net = kind()
    if used:  # there is something in the old arrays
        for grad in net.grads:
            grad[...] = rng(5).normal(size=grad.shape)
    report = sa.check_layer(net, X, LABELS)
    row = next(row for row in report.rows if "params[0]" in row.name)
    assert row.verdict == "wrong"
    assert row.rule == "unwritten"
    assert has(row, "array_replaced", zeros=not used)
    assert row.lines[0] == (str(HERE), line_of("self.grads[0] = self.x.T @ dout"))
    assert not sa.check_network(net, X, LABELS).ok


class Elsewhere(PlainAffine):
    def backward(self, dout):
        self.kept = self.x.T @ dout
        self.grads[1][...] = dout.sum(axis=0)
        return dout @ self.params[0].T


def test_a_gradient_that_stands_elsewhere_is_said_to():
    report = sa.check_layer(dense(4, 3, 1, Elsewhere), X)
    assert wrong_rows(report) == {"params[0]"}
    row = next(row for row in report.rows if row.name == "params[0]")
    assert has(row, "stands_elsewhere", zeros=True, attribute="kept", owner="Elsewhere")


def test_a_gradient_that_stands_nowhere_is_never_written():
    class Unwritten(PlainAffine):
        def backward(self, dout):
            self.grads[1][...] = dout.sum(axis=0)
            return dout @ self.params[0].T

    (row,) = (r for r in sa.check_layer(dense(4, 3, 1, Unwritten), X).rows if r.why)
    assert row.findings[0] in (found("all_zeros"), found("never_written", zeros=True))
    assert row.why.startswith("the gradient is ")
    assert "never written" in row.why
    assert "zeros" in row.why


@pytest.mark.parametrize("skipped", [None, 0, 1])
def test_a_layer_that_the_own_backward_pass_skips_is_named(skipped):
    class Layer:
        def __init__(self, n, m):
            self.W = np.random.default_rng(n).normal(size=(n, m))

        def forward(self, x):
            self.x, self.y = x, np.tanh(x @ self.W)
            return self.y

        def backward(self, dout):
            dz = dout * (1 - self.y**2)
            self.dW = self.x.T @ dz
            return dz @ self.W.T

    class Loss:
        def forward(self, y, t):
            self.d = y - t
            return np.mean(self.d**2)

        def backward(self):
            return 2 * self.d / self.d.size

    class Net:
        def __init__(self):
            self.layers = [Layer(4, 3), Layer(3, 3)]
            self.loss_layer = Loss()

        def forward(self, x, t):
            for layer in self.layers:
                x = layer.forward(x)
            return self.loss_layer.forward(x, t)

        def backward(self):
            dout = self.loss_layer.backward()
            for i in (1, 0):
                if i != skipped:
                    dout = self.layers[i].backward(dout)

    stream = np.random.default_rng(0)
    report = sa.check_network(Net(), stream.normal(size=(5, 4)), stream.normal(size=(5, 3)))
    assert report.ok is (skipped is None), str(report)
    if skipped == 0:
        assert has(report, "skipped", method="Net.backward", name="layers[0]"), str(report)
    if skipped == 1:
        row = report.rows[-1]
        assert has(row, "misgiven", name="layers[0]", wanted="layers[1]"), str(report)
