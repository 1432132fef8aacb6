"""What is meant to have no gradient, and reports that must be complete."""

import numpy as np
import pytest
from findings import has

import spiral_autograd as sa
from spiral_autograd.gradcheck.finding import found

rng = np.random.default_rng(3)
x, W0 = rng.normal(size=(5, 4)), rng.normal(size=(4, 3))


class Masked:
    """Multiplies by a constant of its own, and has a gradient of the weights alone."""

    def __init__(self, mask="gate"):
        self.W, self.mask_name = W0.copy(), mask
        setattr(self, mask, np.array([1.0, 0.5, 2.0]))

    def forward(self, x):
        self.x = x
        return x @ self.W * getattr(self, self.mask_name)

    def backward(self, dout):
        dz = dout * getattr(self, self.mask_name)
        self.dW = self.x.T @ dz
        return dz @ self.W.T


def test_what_is_meant_to_have_no_gradient_is_not_unchecked():
    report = sa.check_layer(Masked(), x)
    assert report.unchecked == ("gate",)
    with pytest.raises(AssertionError, match="gate"):
        report.raise_if_wrong(complete=True)
    for names in (["gate"], ("gate",), "gate", {"gate"}):
        report = sa.check_layer(Masked(), x, constant=names)
        assert report.ok
        assert report.unchecked == ()
        assert report.notes == ()
        report.raise_if_wrong(complete=True)


def test_a_constant_without_a_gradient_is_not_missing():
    class Forgets(Masked):
        def backward(self, dout):
            self.dgate = None
            return super().backward(dout)

    assert [row.verdict for row in sa.check_layer(Forgets(), x).rows][-1] == "missing"
    report = sa.check_layer(Forgets(), x, constant=["gate"])
    assert report.ok, str(report)
    assert [row.name for row in report.rows] == ["x", "W"]


@pytest.mark.usefixtures("verdicts_alone")
def test_a_gradient_that_is_there_is_checked_all_the_same():
    class Wrong(Masked):
        def backward(self, dout):
            self.dgate = np.ones(3)
            return super().backward(dout)

    assert not sa.check_layer(Wrong(), x, constant=["gate"]).ok


def test_an_input_that_is_meant_to_have_no_gradient():
    class Product:
        def forward(self, x, mask):
            self.mask = mask
            return x * mask

        def backward(self, dout):
            return dout * self.mask

    mask = rng.uniform(size=(5, 4))
    assert sa.check_layer(Product(), x, mask).unchecked == ("mask",)
    assert sa.check_layer(Product(), x, mask, constant=["mask"]).unchecked == ()

    def product(x, mask):
        return x * mask, mask

    for backward in (lambda d, mask: (d * mask, None), lambda d, mask: {"x": d * mask}):
        report = sa.check_backward(product, backward, x, mask, constant=["mask"])
        report.raise_if_wrong(complete=True)
        assert [row.name for row in report.rows] == ["x"]

    class Returns(Product):
        def backward(self, dout):
            return dout * self.mask, None

    assert not sa.check_layer(Returns(), x, mask).ok
    report = sa.check_layer(Returns(), x, mask, constant=["mask"])
    assert report.ok, str(report)
    assert [row.name for row in report.rows] == ["x"]


def test_a_constant_among_the_parameters_of_a_loss():
    def loss(params):
        return np.sum((x @ params["W"] * params["gate"]) ** 2)

    def gradient(params):
        return {"W": 2 * x.T @ (x @ params["W"] * params["gate"] ** 2)}

    params = {"W": W0, "gate": np.array([1.0, 0.5, 2.0])}
    assert not sa.check_gradient(loss, gradient, params).ok
    report = sa.check_gradient(loss, gradient, params, constant="gate")
    report.raise_if_wrong(complete=True)
    assert [row.name for row in report.rows] == ["W"]


class Squares:
    def forward(self, x, t):
        self.d = x - t
        return np.sum(self.d**2)

    def backward(self, dout=1):
        return 2 * dout * self.d


@pytest.mark.parametrize("names", [["layers[0].gate"], ["gate"]])
def test_a_constant_in_a_network(names):
    layers, t = [Masked()], np.ones((5, 3))
    assert sa.check_network(layers, x, t, loss=Squares()).unchecked == ("layers[0].gate",)
    report = sa.check_network(layers, x, t, loss=Squares(), constant=names)
    report.raise_if_wrong(complete=True)


def test_unknown_names_are_refused():
    calls = [
        lambda names: sa.check_layer(Masked(), x, constant=names),
        lambda names: sa.check_backward(lambda x: (x, None), lambda d, c: d, x, constant=names),
        lambda names: sa.check_gradient(np.sum, np.ones_like, x, constant=names),
        lambda names: sa.check_network(
            [Masked()], x, np.ones((5, 3)), loss=Squares(), constant=names
        ),
    ]
    for call in calls:
        with pytest.raises(sa.CheckError, match=r"constant names 'gaet'.*there are: "):
            call(["gaet"])
        for strange in (3, [3], [None]):
            with pytest.raises(sa.CheckError, match="constant must be"):
                call(strange)


# -------------------- dicts of gradients with keys of their own --------------------


def loss(params):
    return np.sum(np.tanh(x @ params["W"]))


def gradient(params):
    return {"W": x.T @ (1 - np.tanh(x @ params["W"]) ** 2)}


def test_a_key_that_is_no_parameter_and_no_mark_is_a_failure():
    def more(params):
        return gradient(params) | {"h": np.ones((5, 3))}

    report = sa.check_gradient(loss, more, {"W": W0})
    assert not report
    assert [(fault.kind, fault.fields["keys"]) for fault in report.faults] == [
        ("unread_gradients", ["h"])
    ]
    assert str(report).count("no parameter and no mark") == 1


def test_the_gradient_of_an_intermediate_value_without_a_mark_is_not_checked():
    def more(params):
        return gradient(params) | {"dh": np.ones((5, 3)), "loss": 3.0}

    report = sa.check_gradient(loss, more, {"W": W0})
    assert report.ok
    assert report.unchecked == ("dh",)
    with pytest.raises(AssertionError):
        report.raise_if_wrong(complete=True)
    sa.check_gradient(loss, more, {"W": W0}, constant=["dh"]).raise_if_wrong(complete=True)

    def marked(params):
        return np.sum(sa.tap("h", np.tanh(x @ params["W"])))

    report = sa.check_gradient(marked, more, {"W": W0})
    assert report.unchecked == ()
    assert report.ok


def test_what_is_said_of_several_layers_is_said_once():
    class Pass:
        def forward(self, x):
            return 2 * x

        def backward(self, dout):
            dout *= 2
            return dout

    report = sa.check_network([Pass(), Pass()], x, x, loss=Squares())
    assert report.ok
    said = found("writes_upstream")
    assert report.findings == (found("of_layers", names=["layers[0]", "layers[1]"], what=said),)


class Dense:
    def __init__(self):
        self.W = W0.copy()

    def forward(self, x):
        self.x = x
        return x @ self.W

    def backward(self, dout):
        return {"dx": dout @ self.W.T, "dW": self.x.T @ dout, self.key: np.ones(3)}


@pytest.mark.parametrize(("key", "ok"), [("other", False), ("dother", True)])
def test_keys_of_nothing_in_a_returned_dict(key, ok):
    layer = Dense()
    layer.key = key

    def forward(x, W):
        layer.W = W
        return layer.forward(x), None

    for report in (
        sa.check_layer(layer, x),
        sa.check_backward(forward, lambda dout, cache: layer.backward(dout), x, W0),
    ):
        assert report.ok is ok, str(report)
        assert [row.verdict in ("exact", "match") for row in report.rows] == [True, True]
        assert report.unchecked == (("dother",) if ok else ())
        kind = "value_gradients" if ok else "unread_gradients"
        assert has(report, kind, keys=[key])
