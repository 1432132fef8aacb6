"""One small layer for each way to keep parameters and gradients, and a wrong version of it."""

import copy
from collections import OrderedDict

import numpy as np
import pytest
from findings import has, parts
from layers import Product, Sequence

import spiral_autograd as sa
from spiral_autograd.gradcheck.finding import found
from spiral_autograd.gradcheck.reference.reference import SHARPNESS
from spiral_autograd.gradcheck.verdict.rows import compare


def arrays(seed=0):
    rng = np.random.default_rng(seed)
    return rng.standard_normal((4, 3)), rng.standard_normal((3, 2)), rng.standard_normal(2)


x, W0, b0 = arrays()


class Dense:
    """What all share: `scale` is 1 in the right version, 2 in the wrong one."""

    scale = 1

    def __init__(self):
        self.keep(W0.copy(), b0.copy())

    def forward(self, x):
        W, b = self.held()
        self.x = x
        return x @ W + b

    def backward(self, dout):
        W, _ = self.held()
        self.write(self.scale * (self.x.T @ dout), dout.sum(axis=0))
        return dout @ W.T


def attributes(W, b, dW, db):
    """Return a class that keeps its parameters as attributes of these names."""

    class Named(Dense):
        def keep(self, *values):
            self.__dict__.update(zip((W, b), values, strict=True))

        def held(self):
            return getattr(self, W), getattr(self, b)

        def write(self, *grads):
            self.__dict__.update(zip((dW, db), grads, strict=True))

    return Named


NAMES = [
    "W b dW db",
    "w b dw db",
    "W b grad_W grad_b",
    "W b W_grad b_grad",
    "W b gW gb",
    "W b d_W d_b",
    "W b delta_W delta_b",
    "W b gradW gradb",
    "W b dL_dW dL_db",
    "W b nabla_W nabla_b",
    "weights biases dweights dbiases",
    "weights bias grad_weights grad_bias",
    "weights biases dW db",
    "_W _b _dW _db",
    "_weight _bias _grad_weight _grad_bias",
    "W b dw db",
    "W b weight_grad bias_grad",
    "W b dWeight dbias",
    "w bias grad_weight dbiases",
    "W b deltaW deltab",
    "W b accum_dW accum_db",
    "W b W_d b_d",
    "W b dLdW dLdb",
    "kernel bias dW db",
    "weights1 bias1 dW1 db1",
    "W_1 b_1 dweights1 dbias1",
]


class Variable:
    def __init__(self, data):
        self.data, self.grad = data, None


class Parameter:
    def __init__(self, value):
        self.value, self.grad = value, np.zeros_like(value)


class Node:
    __slots__ = ("grad", "val")

    def __init__(self, val):
        self.val, self.grad = val, None


def objects(kind, array):
    class Held(Dense):
        def keep(self, W, b):
            self.W, self.b = kind(W), kind(b)

        def held(self):
            return getattr(self.W, array), getattr(self.b, array)

        def write(self, dW, db):
            self.W.grad, self.b.grad = dW, db

    return Held


class ListOfVariables(Dense):
    def keep(self, W, b):
        self.params = [Variable(W), Variable(b)]

    def held(self):
        return [p.data for p in self.params]

    def write(self, *grads):
        for p, grad in zip(self.params, grads, strict=True):
            p.grad = grad


class DictOfParameters(ListOfVariables):
    def keep(self, W, b):
        self.params = OrderedDict(W=Variable(W), b=Variable(b))

    def held(self):
        return [p.data for p in self.params.values()]

    def write(self, dW, db):
        self.params["W"].grad, self.params["b"].grad = dW, db


class Store:
    def __init__(self, *held):
        self.held = held


class Generator(ListOfVariables):
    """A method that yields the parameters, which are kept elsewhere."""

    def keep(self, W, b):
        self.store = Store(Parameter(W), Parameter(b))

    def parameters(self):
        yield from self.store.held

    def held(self):
        return [p.value for p in self.parameters()]

    def write(self, *grads):
        for p, grad in zip(self.parameters(), grads, strict=True):
            p.grad[...] = grad


class Methods(Dense):
    def keep(self, *values):
        self._values, self._grads = list(values), None

    def parameters(self):
        return self._values

    def gradients(self):
        return self._grads

    def held(self):
        return self._values

    def write(self, *grads):
        self._grads = list(grads)


class NumpyMl(Dense):
    def keep(self, W, b):
        self.parameters = {"W": W, "b": b}
        self.gradients = {"W": np.zeros_like(W), "b": np.zeros_like(b)}
        self.derived_variables = {"Z": []}
        self.X = []

    def flush_gradients(self):
        self.X = []
        for gradient in self.gradients.values():
            gradient[...] = 0

    def forward(self, X, retain_derived=True):
        out = X @ self.parameters["W"] + self.parameters["b"]
        if retain_derived:
            self.X.append(X)
            self.derived_variables["Z"].append(out)
        return out

    def backward(self, dLdy, retain_grads=True):
        self.gradients["W"] += self.scale * self.X[0].T @ dLdy
        self.gradients["b"] += dLdy.sum(axis=0)
        return dLdy @ self.parameters["W"].T


class Mixed(Dense):
    """A list of parameters, a dict of gradients."""

    def keep(self, W, b):
        self.W, self.b = W, b
        self.params, self.grads = [W, b], {}

    def held(self):
        return self.W, self.b

    def write(self, dW, db):
        self.grads = {"dW": dW, "db": db}


class Gates(Dense):
    """Attributes that are dicts, and the like of their gradients."""

    def keep(self, W, b):
        self.theta = {"W": W, "b": b}
        self.dtheta = {}

    def held(self):
        return self.theta["W"], self.theta["b"]

    def write(self, dW, db):
        self.dtheta = {"dW": dW, "db": db}


class Returned(Dense):
    """No place for gradients: backward returns them after that of the input."""

    def keep(self, W, b):
        self.b, self.W = b, W

    def held(self):
        return self.W, self.b

    def backward(self, dout):
        return dout @ self.W.T, self.scale * (self.x.T @ dout), dout.sum(axis=0)


class Nnfs(Dense):
    """Both passes return nothing: they leave their results as attributes."""

    def keep(self, W, b):
        self.weights, self.biases = W, b[None]

    def forward(self, inputs):
        self.inputs = inputs
        self.output = inputs @ self.weights + self.biases

    def backward(self, dvalues):
        self.dweights = self.scale * (self.inputs.T @ dvalues)
        self.dbiases = np.sum(dvalues, axis=0, keepdims=True)
        self.dinputs = dvalues @ self.weights.T


class Slots(Dense):
    __slots__ = ("W", "b", "dW", "db", "x")

    def keep(self, W, b):
        self.W, self.b = W, b

    def held(self):
        return self.W, self.b

    def write(self, dW, db):
        self.dW, self.db = dW, db


class Tied(Dense):
    """One array in two places, each with a gradient of its own."""

    def keep(self, W, b):
        self.W, self.b = W, b
        self.params, self.grads = [W, W, b], [None, None, None]

    def forward(self, x):
        self.x = x
        return x @ self.W + np.tanh(x @ self.W) + self.b

    def backward(self, dout):
        dtanh = dout * (1 - np.tanh(self.x @ self.W) ** 2)
        self.grads = [self.scale * (self.x.T @ dout), self.x.T @ dtanh, dout.sum(axis=0)]
        return (dout + dtanh) @ self.W.T


LAYERS = {
    **{names: attributes(*names.split()) for names in NAMES},
    "Variable": objects(Variable, "data"),
    "Parameter": objects(Parameter, "value"),
    "Node": objects(Node, "val"),
    **{
        kind.__name__: kind
        for kind in (
            ListOfVariables,
            DictOfParameters,
            Generator,
            Methods,
            NumpyMl,
            Mixed,
            Gates,
            Returned,
            Nnfs,
            Slots,
            Tied,
        )
    },
}


def wrong(kind):
    return type(kind.__name__, (kind,), {"scale": 2})


@pytest.mark.parametrize("name", LAYERS)
def test_the_parameters_of_a_right_layer_are_found(name):
    report = sa.check_layer(LAYERS[name](), x)
    assert report.ok, str(report)
    assert sorted(row.shape for row in report.rows[1:]) in ([(2,), (3, 2)], [(1, 2), (3, 2)])
    assert not report.notes, str(report)


@pytest.mark.usefixtures("no_lines")
@pytest.mark.parametrize("name", LAYERS)
def test_a_wrong_gradient_of_a_parameter_is_found(name):
    report = sa.check_layer(wrong(LAYERS[name])(), x)
    bad = [row for row in report.rows if row.verdict != "match" and row.verdict != "exact"]
    assert [(row.shape, row.verdict) for row in bad] == [((3, 2), "wrong")], str(report)
    assert name == "Tied" or has(bad[0], "times", times=2.0)


def test_one_name_is_not_taken_for_another():
    class Both(LAYERS["W b dW db"]):
        """What it calls weights has no gradient of its own, and w is a part of the cache."""

        def keep(self, W, b):
            self.weights, self.w = np.ones(4), np.ones((3, 2))
            super().keep(W, b)

        def forward(self, x):
            return super().forward(x) * self.weights[:, None]

        def backward(self, dout):
            return super().backward(dout * self.weights[:, None])

    report = sa.check_layer(Both(), x)
    assert report.ok, str(report)
    assert [row.name for row in report.rows] == ["x", "W", "b"]
    assert report.unchecked == ("weights",)


@pytest.mark.usefixtures("no_lines")
def test_keys_that_differ_in_a_letter_are_said():
    class Lower(Dense):
        def keep(self, W, b):
            self.params, self.grads = {"W": W, "b": b}, {}

        def held(self):
            return self.params.values()

        def write(self, dW, db):
            self.grads = {"w": dW, "b": db}

    report = sa.check_layer(Lower(), x)
    assert report.ok, str(report)
    assert has(report, "keys_differ", key="w", name="W")
    report = sa.check_layer(wrong(Lower)(), x)
    assert [row.name for row in report.rows if row.verdict == "wrong"] == ["W"]
    report = sa.check_gradient(lambda p: np.sum(p["W"] ** 2), {"w": 2 * W0}, {"W": W0})
    assert has(report, "keys_differ", key="w", name="W")


def test_parameters_are_named_as_the_person_named_them():
    def rows(kind):
        return [row.name for row in sa.check_layer(kind(), x).rows]

    assert rows(LAYERS["Variable"]) == ["x", "W", "b"]
    assert rows(ListOfVariables) == ["x", "params[0]", "params[1]"]
    assert rows(DictOfParameters) == ["x", "W", "b"]
    assert rows(Gates) == ["x", "theta.W", "theta.b"]
    assert rows(Nnfs) == ["inputs", "weights", "biases"]
    assert rows(Mixed) == ["x", "W", "b"]


# -------------------- names of the two passes --------------------

PASSES = [
    "forward backward",
    "__call__ backward",
    "forward backprop",
    "fprop bprop",
    "forward_pass backward_pass",
    "feed_forward back_propagation",
    "forward_propagation backward_propagation",
]


def renamed(kind, names):
    forward, backward = names.split()
    body = {
        forward: lambda self, x: kind.forward(self, x),
        backward: lambda self, dout: kind.backward(self, dout),
    }
    hidden = {"keep": kind.keep, "held": kind.held, "write": kind.write, "scale": kind.scale}
    return type("Renamed", (), {"__init__": kind.__init__, **hidden, **body})


@pytest.mark.usefixtures("verdicts_alone")
@pytest.mark.parametrize("names", PASSES)
def test_the_passes_may_have_other_names(names):
    kind = LAYERS["W b dW db"]
    report = sa.check_layer(renamed(kind, names)(), x)
    assert report.ok, str(report)
    assert [row.name for row in report.rows] == ["x", "W", "b"]
    report = sa.check_layer(renamed(wrong(kind), names)(), x)
    assert [row.name for row in report.rows if row.verdict == "wrong"] == ["W"]


def test_what_is_accepted_stands_in_the_error():
    class Odd:
        def forth(self, x):
            return x

        def backward(self, dout):
            return dout

    with pytest.raises(sa.CheckError, match=r"Odd has no forward \(nor __call__, fprop.*: .*forth"):
        sa.check_layer(Odd(), x)


# -------------------- layers of layers --------------------


class Sigmoid:
    def forward(self, x):
        self.out = 1 / (1 + np.exp(-x))
        return self.out

    def backward(self, dout):
        return dout * self.out * (1 - self.out)


class Block:
    """Keeps no list of its own."""

    def __init__(self, first, second, gain):
        self.affine1, self.sigmoid, self.affine2 = first, Sigmoid(), second
        self.gain, self.dgain = gain, None

    def forward(self, x):
        self.inner = self.affine2.forward(self.sigmoid.forward(self.affine1.forward(x)))
        return self.inner * self.gain

    def backward(self, dout):
        self.dgain = (dout * self.inner).sum(axis=0)
        dout = self.affine2.backward(dout * self.gain)
        return self.affine1.backward(self.sigmoid.backward(dout))


class Square(Dense):
    """In the book's manner: lists."""

    def keep(self, W, b):
        self.params, self.grads = [W[:2], b], [np.zeros((2, 2)), np.zeros(2)]

    def held(self):
        return self.params

    def write(self, *grads):
        for held, grad in zip(self.grads, grads, strict=True):
            held[...] = grad


@pytest.mark.usefixtures("verdicts_alone")
def test_the_parameters_of_a_block_are_those_of_its_layers():
    report = sa.check_layer(Block(LAYERS["W b dW db"](), Square(), np.ones(2)), x)
    assert report.ok, str(report)
    assert [row.name for row in report.rows] == [
        *("x", "gain", "affine1.W", "affine1.b", "affine2.params[0]", "affine2.params[1]")
    ]
    report = sa.check_layer(Block(wrong(LAYERS["W b dW db"])(), Square(), np.ones(2)), x)
    assert [row.name for row in report.rows if row.verdict == "wrong"] == ["affine1.W"]


@pytest.mark.usefixtures("verdicts_alone")
def test_layers_in_a_list_are_found():
    report = sa.check_layer(Sequence(LAYERS["Variable"](), Sigmoid(), wrong(Square)()), x)
    names = ["layers[0].W", "layers[0].b", "layers[2].params[0]", "layers[2].params[1]"]
    assert [row.name for row in report.rows] == ["x", *names]
    assert [row.name for row in report.rows if row.verdict == "wrong"] == ["layers[2].params[0]"]


def test_a_layer_that_is_used_twice_counts_once():
    square = Square()

    class Twice(Sequence):
        def __init__(self):
            super().__init__(LAYERS["W b dW db"](), square)
            self.last = square

    report = sa.check_layer(Twice(), x)
    assert report.ok, str(report)
    assert len(report.rows) == 5


def test_blocks_that_accumulate_are_reset_through_their_layers():
    class Accumulating(attributes("W", "b", "dW", "db")):
        def zero_grad(self):
            self.dW, self.db = 0.0, 0.0

        def write(self, dW, db):
            self.dW, self.db = self.dW + dW, self.db + db

    assert sa.check_layer(Sequence(Accumulating(), Sigmoid()), x).ok


# -------------------- flags, several outputs --------------------


def test_a_training_flag_is_given_by_position():
    class Dropout:
        def forward(self, x, train_flg=True):
            self.mask = np.random.rand(*x.shape) > 0.5 if train_flg else np.ones(x.shape)  # noqa: NPY002
            return x * self.mask

        def backward(self, dout):
            return dout * self.mask

    for flag in (True, False):
        report = sa.check_layer(Dropout(), x, flag)
        assert report.ok, str(report)
        assert [row.name for row in report.rows] == ["x"]


class Split:
    """Backward takes the gradients of both outputs in one tuple."""

    def forward(self, x):
        self.x = x
        return np.tanh(x), x**2

    def backward(self, grads):
        first, second = grads
        return first * (1 - np.tanh(self.x) ** 2) + 2 * self.x * second


@pytest.mark.usefixtures("verdicts_alone")
def test_several_upstream_gradients_may_come_as_a_tuple():
    assert sa.check_layer(Split(), x).ok

    class Wrong(Split):
        def backward(self, grads):
            return super().backward((grads[0], 0 * grads[1]))

    assert not sa.check_layer(Wrong(), x).ok


# -------------------- pairs in the manner of deeplearning.ai --------------------


def linear_activation_forward(A_prev, W, b, activation):
    Z = W @ A_prev + b
    A = np.maximum(0, Z) if activation == "relu" else 1 / (1 + np.exp(-Z))
    return A, ((A_prev, W, b), Z)


def linear_activation_backward(dA, cache, activation):
    (A_prev, W, _), Z = cache
    A = 1 / (1 + np.exp(-Z))
    dZ = dA * (Z > 0) if activation == "relu" else dA * A * (1 - A)
    return W.T @ dZ, dZ @ A_prev.T, dZ.sum(axis=1, keepdims=True)


@pytest.mark.usefixtures("verdicts_alone")
@pytest.mark.parametrize("activation", ["relu", "sigmoid"])
def test_backward_may_take_what_forward_took(activation):
    inputs = (x.T, W0.T.copy(), b0[:, None], activation)
    report = sa.check_backward(linear_activation_forward, linear_activation_backward, *inputs)
    assert report.ok, str(report)
    assert [row.name for row in report.rows] == ["A_prev", "W", "b"]

    def mistaken(dA, cache, activation):
        dA_prev, dW, db = linear_activation_backward(dA, cache, activation)
        return dA_prev, 3 * dW, db

    report = sa.check_backward(linear_activation_forward, mistaken, *inputs)
    assert [row.name for row in report.rows if row.verdict == "wrong"] == ["W"]


def rnn_cell_forward(xt, a_prev, parameters):
    Wax, Waa, Wya = parameters["Wax"], parameters["Waa"], parameters["Wya"]
    a_next = np.tanh(Wax @ xt + Waa @ a_prev)
    return a_next, Wya @ a_next, (a_next, a_prev, xt, parameters)


def rnn_cell_backward(da_next, cache):
    a_next, a_prev, xt, parameters = cache
    dtanh = (1 - a_next**2) * da_next
    return {
        "dxt": parameters["Wax"].T @ dtanh,
        "da_prev": parameters["Waa"].T @ dtanh,
        "dWax": dtanh @ xt.T,
        "dWaa": dtanh @ a_prev.T,
    }


@pytest.mark.usefixtures("verdicts_alone")
def test_backward_may_leave_out_an_output_and_return_a_dict():
    rng = np.random.default_rng(1)
    parameters = {name: rng.standard_normal((3, 3)) for name in ("Wax", "Waa", "Wya")}
    state = rng.standard_normal((3, 4))
    report = sa.check_backward(rnn_cell_forward, rnn_cell_backward, x.T, state, parameters)
    assert report.ok, str(report)
    assert [row.name for row in report.rows] == ["xt", "a_prev", "Wax", "Waa"]

    def mistaken(da_next, cache):
        grads = rnn_cell_backward(da_next, cache)
        return {**grads, "dWaa": grads["dWaa"].T}

    report = sa.check_backward(rnn_cell_forward, mistaken, x.T, state, parameters)
    assert [row.name for row in report.rows if row.verdict == "wrong"] == ["Waa"]


class Built(Dense):
    """Its parameters and gradients can be read only once they are made."""

    def __init__(self):
        self._values, self._grads = None, None

    def forward(self, x):
        if self._values is None:
            self._values = {"W": W0.copy(), "b": b0.copy()}
        return super().forward(x)

    def held(self):
        return self._values.values()

    def write(self, dW, db):
        self._grads = {"W": dW, "b": db}

    def parameters(self):
        return dict(self._values.items())

    @property
    def gradients(self):
        if self._grads is None:
            raise RuntimeError("call backward first")
        return self._grads


@pytest.mark.usefixtures("verdicts_alone")
def test_parameters_may_be_made_by_the_first_forward_pass():
    report = sa.check_layer(Built(), x)
    assert report.ok, str(report)
    assert [row.name for row in report.rows] == ["x", "W", "b"]
    report = sa.check_layer(wrong(Built)(), x)
    assert [row.name for row in report.rows if row.verdict == "wrong"] == ["W"]


# -------------------- losses, and what is no parameter --------------------


class SquaredError:
    scale = 1

    def forward(self, y, t):
        self.apart = y - t
        return np.sum(self.apart**2) / 2

    def backward(self):
        return self.scale * self.apart


def test_a_loss_may_take_no_upstream_gradient_and_no_gradient_of_its_targets():
    targets = np.eye(4, 3)
    report = sa.check_layer(SquaredError(), x, targets)
    assert report.ok, str(report)
    assert [row.name for row in report.rows] == ["y"]
    assert report.notes == ()
    report = sa.check_layer(wrong(SquaredError)(), x, targets)
    assert [row.verdict for row in report.rows] == ["wrong"]


def test_an_input_without_a_gradient_is_said():
    report = sa.check_layer(Product(), x, x + 1)
    assert [row.name for row in report.rows] == ["x"]
    said = found("not_returned", what="backward", name="y")
    assert report.findings == (found("unchecked", why=said),)


class Normalised:
    """Statistics among the parameters, which have no gradient by right."""

    def __init__(self):
        self.parameters = {"gamma": np.ones(3), "beta": np.zeros(3), "running_mean": np.ones(3)}
        self.gradients = {}

    def forward(self, x):
        self.apart = x - self.parameters["running_mean"]
        return self.apart * self.parameters["gamma"] + self.parameters["beta"]

    def backward(self, dout):
        self.gradients["gamma"] = np.sum(dout * self.apart, axis=0)
        self.gradients["beta"] = np.sum(dout, axis=0)
        return dout * self.parameters["gamma"]


def test_statistics_are_no_parameters_and_a_forgotten_key_is_a_missing_gradient():
    report = sa.check_layer(Normalised(), x)
    assert report.ok, str(report)
    assert [row.name for row in report.rows] == ["x", "gamma", "beta"]

    class Forgets(Normalised):
        def backward(self, dout):
            dx = super().backward(dout)
            del self.gradients["beta"]
            return dx

    report = sa.check_layer(Forgets(), x)
    assert [row.name for row in report.rows if row.verdict == "missing"] == ["beta"]


def test_a_state_beside_listed_parameters_is_no_parameter():
    class Cell(Square):
        def __init__(self):
            super().__init__()
            self.h, self.dh = np.ones(2), np.ones(2)

    layer = Cell()
    before = copy.deepcopy(layer.__dict__)
    report = sa.check_layer(layer, x[:, :2])
    assert [row.name for row in report.rows] == ["x", "params[0]", "params[1]"]
    assert before.keys() == layer.__dict__.keys()


# -------------------- shapes that an update takes as they are, or does not --------------------


class BiasOf:
    """Adds a bias of some shape, and keeps a gradient of another."""

    def __init__(self, bias, gradient):
        self.b, self.gradient = bias, gradient

    def forward(self, x):
        return x + self.b

    def backward(self, dout):
        self.db = self.gradient(dout)
        return dout


@pytest.mark.usefixtures("no_lines")
@pytest.mark.parametrize(
    ("shape", "gradient"),
    [
        ((1, 3), lambda g: g.sum(axis=0)),
        ((1, 1, 3), lambda g: g.sum(axis=0)),
        ((1,), lambda g: g.sum()),
        ((1, 1), lambda g: float(g.sum())),
    ],
)
def test_a_gradient_that_the_update_takes_as_it_is(shape, gradient):
    layer, x = BiasOf(np.full(shape, 0.3), gradient), np.random.default_rng(0).normal(size=(4, 3))
    if len(shape) == 3:
        layer.forward = lambda x: x + layer.b[0]
    report = sa.check_layer(layer, x)
    assert report.ok, str(report)
    ours = np.shape(gradient(np.ones((4, 3))))
    assert has(report, "update_takes", names=["b"], ours=ours, theirs=shape)
    layer.gradient = lambda g: (
        gradient(g) * np.linspace(1, 1.5, np.size(gradient(g))).reshape(np.shape(gradient(g)))
        + np.full_like(gradient(g), 0.1)
    )
    assert not sa.check_layer(layer, x, budget=0.1).ok


@pytest.mark.parametrize(
    ("shape", "gradient", "update"),
    [
        ((3,), lambda g: g.sum(axis=0, keepdims=True), (1, 3)),
        ((2, 3), lambda g: g.sum(axis=(0, 1)), (2, 3)),  # broadcasts
        ((3, 1), lambda g: g.sum(axis=(0, 2)), (3, 3)),
        ((3,), lambda g: np.ones(2), None),  # fails
    ],
)
def test_a_gradient_that_the_update_does_not_take_as_it_is(shape, gradient, update):
    layer = BiasOf(np.random.default_rng(1).normal(size=shape), gradient)
    wide = (4, 3) if shape == (3,) else (4, 2, 3) if shape == (2, 3) else (4, 3, 2)
    report = sa.check_layer(layer, np.random.default_rng(0).normal(size=wide), budget=0)
    assert not report.ok
    ours = np.shape(gradient(np.ones(wide)))
    said = [part.fields.get("shape", part.fields.get("ours")) for part in parts(report.rows[1])]
    assert ours in said, str(report)
    row = compare("b", gradient(np.ones(wide)), np.ones(shape), SHARPNESS["autograd", False], 0.0)
    assert has(row, "shape", ours=ours, theirs=shape, update=update)


@pytest.mark.usefixtures("no_lines")
def test_shapes_in_pairs_and_losses_too():
    rng = np.random.default_rng(0)
    x, b = rng.normal(size=(4, 3)), rng.normal(size=(1, 3))

    def forward(x, b):
        return x + b, None

    for backward, ok in (
        (lambda g, c: (g, g.sum(0)), True),
        (lambda g, c: (g, 2 * g.sum(0)), False),
    ):
        report = sa.check_backward(forward, backward, x, b)
        assert report.ok is ok, str(report)
        assert has(report, "update_takes", names=["b"], ours=(3,), theirs=(1, 3))
    row = x[:1]
    assert not sa.check_backward(forward, lambda g, c: (g[0], g), row, b).ok  # that of an input

    def loss(p):
        return np.sum((x + p["b"]) ** 2)

    report = sa.check_gradient(loss, lambda p: {"b": np.sum(2 * (x + p["b"]), axis=0)}, {"b": b})
    assert report.ok
    assert has(report, "update_takes", ours=(3,), theirs=(1, 3))


@pytest.mark.usefixtures("verdicts_alone")
@pytest.mark.parametrize("nothing", [[], (), {}, None])
def test_no_parameters_and_an_empty_list_of_their_gradients(nothing):
    class ReLU:
        def __init__(self, factor):
            self.factor = factor

        def forward(self, x):
            self.mask = x > 0
            return np.maximum(x, 0)

        def backward(self, dout):
            return self.factor * dout * self.mask, nothing

    x = np.random.default_rng(0).normal(size=(3, 4))
    assert sa.check_layer(ReLU(1), x).ok
    assert not sa.check_layer(ReLU(2), x).ok


@pytest.mark.parametrize("used_before", [False, True])
@pytest.mark.parametrize("factor", [1.0, 2.0])
def test_a_gradient_that_reads_what_the_loss_has_left(used_before, factor):
    left = {}

    def loss(W, x):
        left["x"], left["y"] = x, np.tanh(x @ W)
        return (left["y"] ** 2).sum()

    def gradient(W, x):
        return factor * left["x"].T @ (2 * left["y"] * (1 - left["y"] ** 2))

    stream = np.random.default_rng(0)
    W, x = stream.normal(size=(3, 2)), stream.normal(size=(4, 3))
    if used_before:
        loss(W + 1, x)
    before = dict(left)
    assert sa.check_gradient(loss, gradient, W, x).ok is (factor == 1)
    assert left.keys() == before.keys()
    assert all(left[name] is before[name] for name in left)
