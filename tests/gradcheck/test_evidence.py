"""Which array is the gradient of which parameter, under whatever names."""

import time
from itertools import product

import numpy as np
import pytest
from effort import some

import spiral_autograd as sa
from spiral_autograd.gradcheck.finding import found

rng = np.random.default_rng(7)
x, W0, b0 = rng.normal(size=(5, 4)), rng.normal(size=(4, 3)), np.array([0.3, -0.2, 0.5])


def mistaken(dW):
    """No multiple of the true one."""
    return dW * np.linspace(1, 2, dW.size).reshape(dW.shape)


MISTAKES = {"right": lambda dW: dW, "doubled": lambda dW: 2 * dW, "mistaken": mistaken}


class Kept:
    """Keeps its parameters in some way; subclasses say which, and where the gradients go."""

    def __init__(self, change):
        self.change = change
        self.keep(W0.copy(), b0.copy())

    def forward(self, x):
        W, b = self.held()
        self.x = x
        return np.tanh(x @ W + b)

    def backward(self, dout):
        W, b = self.held()
        dz = dout * (1 - np.tanh(self.x @ W + b) ** 2)
        self.write(self.change(self.x.T @ dz), dz.sum(axis=0))
        return dz @ W.T


class InDict(Kept):
    def keep(self, W, b):
        self.params = {"W": W, "b": b}

    def held(self):
        return self.params["W"], self.params["b"]

    def write(self, dW, db):
        self.dW, self.db = dW, db


class InDictOfDicts(InDict):
    def keep(self, W, b):
        self.model = {"first": {"W": W, "b": b}}

    def held(self):
        return self.model["first"].values()

    def write(self, dW, db):
        self.grad_model = {"first": {"W": dW, "b": db}}


class InDicts(InDict):
    """Two lists of dicts, each with keys of its own."""

    def keep(self, W, b):
        self.blocks = [{"W": W}, {"W": np.eye(3), "b": b}]

    def held(self):
        return self.blocks[0]["W"] @ self.blocks[1]["W"], self.blocks[1]["b"]

    def write(self, dW, db):
        A, B = self.blocks[0]["W"], self.blocks[1]["W"]
        self.steps = [{"dW": dW @ B.T}, {"dW": A.T @ dW, "db": db}]


class InObject(InDict):
    """In an object that is no layer, with the gradients outside of it."""

    def keep(self, W, b):
        self.theta = type("Theta", (), {})()
        self.theta.W, self.theta.b = W, b

    def held(self):
        return self.theta.W, self.theta.b

    def write(self, dW, db):
        self.W_diff, self.b_diff = dW, db


class Packed(InDict):
    """In one vector, of which forward makes views."""

    def keep(self, W, b):
        self.theta = np.concatenate([W.ravel(), b])

    def held(self):
        self.W, self.b = self.theta[:12].reshape(4, 3), self.theta[12:]
        return self.W, self.b

    def write(self, dW, db):
        self.dW, self.db = dW, db


class Transposed(InDict):
    """Forward makes a transposed view, and backward has the gradient of that."""

    def keep(self, W, b):
        self.kernel, self.b = W.T.copy(), b

    def held(self):
        self.W = self.kernel.T
        return self.W, self.b

    def write(self, dW, db):
        self.dW, self.db = dW, db


class TwoNames(InDict):
    def keep(self, W, b):
        self.kernel = self.weights = W
        self.bias = self.b = b

    def held(self):
        return self.kernel, self.b

    def write(self, dW, db):
        self.dweights, self.db = dW, db


def named(pattern):
    class Named(InDict):
        def keep(self, W, b):
            self.W, self.b = W, b

        def held(self):
            return self.W, self.b

        def write(self, dW, db):
            setattr(self, pattern.format("W"), dW)
            setattr(self, pattern.format("b"), db)

    Named.__name__ = pattern
    return Named


PATTERNS = """{}_diff dEd{} dE_d{} d_{} d_c_{} dc_d{} grad{} {}grad delta_{} {}_delta Grad{} {}_g
d{}_total diff_{} d_loss_{} {}_derivative nabla_{} dloss_d{} g{} {}Gradient {}_gradients_ {}_update
{}_bar {}_error change_{}""".split()


KEPT = [InDict, InDictOfDicts, InDicts, InObject, Packed, Transposed, TwoNames]


@pytest.mark.usefixtures("verdicts_alone")
@pytest.mark.parametrize(
    ("kind", "change"), some(product([*KEPT, *map(named, PATTERNS)], MISTAKES), 5)
)
def test_each_parameter_is_held_against_its_own_gradient(kind, change):
    report = sa.check_layer(kind(MISTAKES[change]), x)
    assert report.unchecked == (), str(report)
    assert report.ok == (change == "right"), str(report)
    wrong = [row.name for row in report.rows if row.verdict == "wrong"]
    assert len(wrong) == (0 if change == "right" else 2 if kind is InDicts else 1), str(report)


@pytest.mark.usefixtures("verdicts_alone")
def test_an_array_of_any_name_is_the_gradient_that_it_equals():
    for name in ("u", "foo", "buffer_3"):

        class Odd(named("d{}")):
            def write(self, dW, db, name=name):
                setattr(self, name, dW)
                self.db = db

        report = sa.check_layer(Odd(MISTAKES["right"]), x)
        assert report.unchecked == (), str(report)
        report = sa.check_layer(Odd(MISTAKES["doubled"]), x)
        assert not report.ok, str(report)
        report = sa.check_layer(Odd(MISTAKES["mistaken"]), x)  # what it is, nobody can tell
        assert report.unchecked == ("W",), str(report)


class Momentum(InDict):
    """Keeps a velocity, and no gradient."""

    def keep(self, W, b):
        self.W, self.b, self.vW, self.m_b = W, b, np.zeros_like(W), np.zeros_like(b)

    def held(self):
        return self.W, self.b

    def write(self, dW, db):
        self.vW = 0.9 * self.vW - 0.1 * dW
        self.m_b = 0.9 * self.m_b + 0.1 * db


def test_a_velocity_is_no_gradient():
    report = sa.check_layer(Momentum(MISTAKES["right"]), x)
    assert report.ok, str(report)
    assert set(report.unchecked) == {"W", "b"}


class InLists(InDict):
    """As in scikit-learn: lists of weights and of biases, and the like of their gradients."""

    def keep(self, W, b):
        self.coefs_, self.intercepts_ = [W], [b]

    def held(self):
        return self.coefs_[0], self.intercepts_[0]

    def write(self, dW, db):
        self.coef_grads, self.intercept_grads = [dW], [db]


class InTuple(InDict):
    """Under names that have nothing in common."""

    def keep(self, W, b):
        self.theta = (W, b)

    def held(self):
        return self.theta

    def write(self, dW, db):
        self.grad_weights, self.grad_bias = dW, db


class ReturningLists(InDict):
    """Returns the gradients of what no convention names a parameter."""

    def keep(self, W, b):
        self.coefs_, self.intercepts_ = [W], [b]

    def held(self):
        return self.coefs_[0], self.intercepts_[0]

    def backward(self, dout):
        W, b = self.held()
        dz = dout * (1 - np.tanh(self.x @ W + b) ** 2)
        return dz @ W.T, [self.change(self.x.T @ dz)], [dz.sum(axis=0)]


class InListOfAnyName(InDict):
    """Where the others in it say what it holds."""

    def write(self, dW, db):
        self.everything = [db, dW]


class InListAndDict(InDict):
    """A list of parameters, and a dict of their gradients."""

    def keep(self, W, b):
        self.params, self.grads = [W, b], {}

    def held(self):
        return self.params

    def write(self, dW, db):
        self.grads = {"dW": dW, "db": db}


class MadeInForward(InDict):
    """Makes its weights in the first forward pass, and has odd names for their gradients."""

    def keep(self, W, b):
        self.made = (W, b)

    def held(self):
        if not hasattr(self, "kernel"):
            self.kernel, self.shift = self.made[0].copy(), self.made[1].copy()
        return self.kernel, self.shift

    def write(self, dW, db):
        self.grad_of_first, self.grad_of_second = dW, db


@pytest.mark.usefixtures("verdicts_alone")
@pytest.mark.parametrize("change", MISTAKES)
@pytest.mark.parametrize(
    "kind", [InLists, InTuple, ReturningLists, InListOfAnyName, InListAndDict, MadeInForward]
)
def test_gradients_that_no_convention_names_are_found(kind, change):
    layer = kind(MISTAKES[change])
    before = set(vars(layer))
    report = sa.check_layer(layer, x)
    assert report.unchecked == (), str(report)
    assert report.ok == (change == "right"), str(report)
    assert len(report.rows) == 3
    assert set(vars(layer)) == before


def test_what_is_made_in_a_forward_pass_that_writes_into_its_input():
    class Centred(MadeInForward):
        def forward(self, x):
            x -= x.mean(axis=0)
            return super().forward(x)

        def backward(self, dout):
            dx = super().backward(dout)
            return dx - dx.mean(axis=0)

    for change, ok in (("right", True), ("doubled", False)):
        given = x.copy()
        report = sa.check_layer(Centred(MISTAKES[change]), given)
        assert report.ok is ok, str(report)
        assert found("writes", who="forward", name="x") in report.findings
        assert np.array_equal(given, x)


def test_what_is_made_and_used_without_a_gradient_stays_in_the_title():
    class Hidden(MadeInForward):
        def write(self, dW, db):
            pass

    report = sa.check_layer(Hidden(MISTAKES["right"]), x)
    assert set(report.unchecked) == {"kernel", "shift"}
    assert "not checked" in str(report).splitlines()[0]


def test_caches_are_no_parameters():
    """Normalized inputs, their gradients, a mask that is drawn once, a constant that is added."""

    class Cached(InDict):
        def keep(self, W, b):
            self.W, self.b, self.noise = W, b, rng.uniform(size=(5, 3))

        def held(self):
            return self.W, self.b

        def forward(self, x):
            out = super().forward(x)
            self.xhat, self.out = out * self.noise, out
            return self.xhat

        def backward(self, dout):
            self.dxhat = dout
            self.dout = self.dxhat * self.noise
            return super().backward(self.dout)

        def write(self, dW, db):
            self.dW, self.db = dW, db

    report = sa.check_layer(Cached(MISTAKES["right"]), x)
    assert report.ok, str(report)
    assert [row.name for row in report.rows] == ["x", "W", "b"]
    assert report.unchecked == ("noise",)


def test_a_surplus_that_belongs_to_nothing_is_refused():
    class Surplus(named("d{}")):
        def backward(self, dout):
            return super().backward(dout), np.ones((7, 7))

    with pytest.raises(sa.CheckError, match="returned 2 gradients"):
        sa.check_layer(Surplus(MISTAKES["right"]), x)


class Positions(InDict):
    """Adds a constant of the shape of an example, or of all, and keeps gradients of values."""

    def __init__(self, shape, scale):
        self.W, self.offset = W0.copy(), np.sin(np.arange(np.prod(shape))).reshape(shape)
        self.scale = scale

    def forward(self, x):
        self.h = self.scale * (x + self.offset)
        return self.h @ self.W

    def backward(self, dout):
        self.dout = dout
        self.dh = dout @ self.W.T
        self.grad_output = 3 * self.dh
        self.dW = self.h.T @ dout
        return self.scale * self.dh


@pytest.mark.parametrize("scale", [1.0, 0.5, -2.0])
@pytest.mark.parametrize("shape", [(5, 4), (1, 4)])
def test_gradients_of_values_are_not_those_of_constants(shape, scale):
    report = sa.check_layer(Positions(shape, scale), x)
    assert report.ok, str(report)


def test_a_table_of_many_arrays_costs_little():
    class Table(named("d{}")):
        def keep(self, W, b):
            super().keep(W, b)
            self.table = {f"word{i}": np.ones(4) * i for i in range(2000)}

        def forward(self, x):
            return super().forward(x) + self.table["word1"].sum()

        def backward(self, dout):
            self.kept = [np.ones(3) for _ in range(100)]
            return super().backward(dout)

    layer = Table(MISTAKES["right"])
    start = time.process_time()
    report = sa.check_layer(layer, x)
    assert report.ok, str(report)
    assert report.unchecked == ("table.word1",)
    assert time.process_time() - start < 10


@pytest.mark.usefixtures("verdicts_alone")
@pytest.mark.parametrize(
    "keys", [(0, 1), ((0, "W"), (1, "W")), ("a\\b", 'it\'s "b"'), ("\x1b[2J", 1)]
)
def test_parameters_under_any_keys_have_their_gradients_under_the_same(keys):
    def loss(params):
        return np.sum(params[keys[0]] ** 2) + np.sum(params[keys[1]] ** 3)

    def gradient(params, share=1.0):
        return {keys[0]: 2 * params[keys[0]], keys[1]: 3 * share * params[keys[1]] ** 2}

    params = {key: np.random.default_rng(k).normal(size=(2, 3)) for k, key in enumerate(keys)}
    report = sa.check_gradient(loss, gradient, params)
    assert report.ok, str(report)
    assert report.unchecked == report.notes == ()
    report = sa.check_gradient(loss, lambda p: gradient(p, 0.5), params)
    assert [row.verdict == "wrong" for row in report.rows] == [False, True]
    assert "\x1b" not in str(report)


@pytest.mark.usefixtures("verdicts_alone")
def test_gradients_that_have_changed_places_are_wrong():
    """Each equals the other's true one; their names say whose they ought to be."""

    class Two:
        def __init__(self):
            self.weights_of = {"A": np.sin(np.arange(16.0)).reshape(4, 4), "B": np.eye(4) + 0.5}

        def forward(self, x):
            self.x = x
            return x @ self.weights_of["A"] + np.tanh(x @ self.weights_of["B"])

        def backward(self, dout):
            A, B = self.weights_of.values()
            inner = dout * (1 - np.tanh(self.x @ B) ** 2)
            self.dA, self.dB = self.x.T @ inner, self.x.T @ dout
            return dout @ A.T + inner @ B.T

    report = sa.check_layer(Two(), x)
    verdicts = {row.name.split(".")[-1]: row.verdict for row in report.rows}
    assert verdicts["A"] == verdicts["B"] == "wrong", str(report)


# -------------------- gradients that are returned beside that of the input --------------------

TWO = ["W1", "b1", "W2", "b2"]
FORMS = {
    "unnamed": lambda layer, grads, order: tuple(grads[n] for n in order),
    "listed": lambda layer, grads, order: ([grads[n] for n in order],),
    "keyed": lambda layer, grads, order: ({n: grads[n] for n in order},),
    "named": lambda layer, grads, order: ([(n, grads[n]) for n in order],),
    "paired": lambda layer, grads, order: ([(getattr(layer, n), grads[n]) for n in order],),
}
SLIPS = {
    "right": (lambda grads: {}, []),
    "doubled": (lambda grads: {"W1": 2 * grads["W1"]}, ["W1"]),
    "kept axis": (lambda grads: {"b1": grads["b1"][None]}, ["b1"]),
    "of no kind": (lambda grads: {"W2": np.cos(37 * grads["W2"])}, ["W2"]),
    "nothing": (lambda grads: {"W1": None}, ["W1"]),
    "exchanged": (lambda grads: {"b1": grads["b2"], "b2": grads["b1"]}, ["b1", "b2"]),
}


@pytest.mark.usefixtures("verdicts_alone")
@pytest.mark.parametrize(("form", "slip", "width"), some(product(FORMS, SLIPS, [3, 4]), 5))
def test_each_gradient_that_is_returned_is_held_against_its_own(form, slip, width):
    if width == 3 and slip == "exchanged" and form in ("unnamed", "listed"):
        pytest.skip("where each fits one array alone, their order says nothing")
    change, wanted = SLIPS[slip]

    class Two:
        def __init__(self):
            stream = np.random.default_rng(1)
            shapes = [(4, 3), (3,), (3, 5), (5,)] if width == 3 else [(4, 4), (4,)] * 2
            for name, shape in zip(TWO, shapes, strict=True):
                setattr(self, name, 0.5 * stream.normal(size=shape))

        def forward(self, x):
            self.x, self.a = x, np.tanh(x @ self.W1 + self.b1)
            return self.a @ self.W2 + self.b2

        def backward(self, dout):
            dz = dout @ self.W2.T * (1 - self.a**2)
            grads = {"W1": self.x.T @ dz, "b1": dz.sum(axis=0)}
            grads |= {"W2": self.a.T @ dout, "b2": dout.sum(axis=0)}
            return dz @ self.W1.T, *FORMS[form](self, grads | change(grads), self.order)

    x = np.random.default_rng(0).normal(size=(5, 4))
    for order in (TWO, TWO[2:] + TWO[:2]):
        layer = Two()
        layer.order = order
        report = sa.check_layer(layer, x, budget=0)
        rows = {row.name: row.verdict in ("exact", "match") for row in report.rows}
        assert sorted(rows) == sorted(["x", *TWO]), str(report)
        if slip == "exchanged" and form in ("unnamed", "listed"):
            assert not report.ok  # which of them is the wrong one, their order may leave open
        else:
            assert [name for name in TWO if not rows[name]] == wanted, str(report)


def test_gradients_that_are_kept_and_returned_under_names_of_their_own():
    class Named:
        def __init__(self):
            self.params = [W0.copy(), b0.copy()]
            self.grads = {"W_grad": np.zeros_like(W0), "b_grad": np.zeros_like(b0)}
            self.grads["x_grad"] = np.zeros_like(x)

        def forward(self, x):
            self.x = x
            return x @ self.params[0] + self.params[1]

        def backward(self, dout):
            self.grads["W_grad"][...] = self.x.T @ dout
            self.grads["b_grad"][...] = dout.sum(axis=0)
            self.grads["x_grad"][...] = dout @ self.params[0].T
            return self.grads

    report = sa.check_layer(Named(), x)
    assert report.ok, str(report)
    assert [row.name for row in report.rows] == ["x", "params[0]", "params[1]"]


@pytest.mark.parametrize("order", ["F", "C"])
@pytest.mark.parametrize("is_returned", [False, True])
def test_arrays_that_are_not_contiguous_have_gradients_as_others_have(order, is_returned):
    class Dense:
        def __init__(self):
            self.weights = np.asarray(W0, order=order)
            self.bias = np.stack([b0, b0], axis=1)[:, 0]

        def forward(self, x):
            self.x = x
            return x @ self.weights + self.bias

        def backward(self, dout):
            first, second = self.x.T @ dout, dout.sum(axis=0)
            if is_returned:
                return dout @ self.weights.T, first, second
            self.first, self.second = first, second
            return dout @ self.weights.T

    for given in x, np.array(x, order="F"), np.repeat(x, 2, axis=1)[:, ::2]:
        report = sa.check_layer(Dense(), given)
        assert report.ok, str(report)
        assert not report.unchecked
        assert [row.name for row in report.rows] == ["x", "weights", "bias"]


# -------------------- what is wrong, and has neither a name nor its own shape --------------------

SCALED = {"W": W0, "b": b0, "c": np.array([0.7, 1.3, -0.6])}


class Scaled:
    """A layer whose gradient of b, or of c, is not summed over the examples."""

    def __init__(self, unsummed):
        self.unsummed = unsummed
        self.W, self.b, self.c = (value.copy() for value in SCALED.values())

    def forward(self, x):
        self.x, self.z = x, x @ self.W + self.b
        return self.z * self.c

    def gradients(self, dout):
        dz = dout * self.c
        terms = {"b": dz, "c": dout * self.z}
        sums = [g if name == self.unsummed else g.sum(axis=0) for name, g in terms.items()]
        return dz @ self.W.T, [self.x.T @ dz, *sums]


class ScaledReturned(Scaled):
    def backward(self, dout):
        return self.gradients(dout)


class ScaledInTurn(Scaled):
    def backward(self, dout):
        dx, grads = self.gradients(dout)
        return (dx, *grads)


class ScaledInList(Scaled):
    def backward(self, dout):
        dx, self.grads = self.gradients(dout)
        return dx


@pytest.mark.parametrize("kind", [ScaledReturned, ScaledInTurn, ScaledInList])
@pytest.mark.parametrize("unsummed", ["b", "c"])
def test_a_gradient_of_another_shape_is_that_of_the_parameter_that_is_left(kind, unsummed):
    rows = {row.name: row.verdict for row in sa.check_layer(kind(unsummed), x, budget=0).rows}
    assert [name for name, verdict in rows.items() if verdict == "wrong"] == [unsummed]
    assert set(rows) == {"x", *SCALED}


def test_gradients_in_a_dict_like_that_of_the_parameters_are_theirs_whatever_they_are():
    class InDicts(Scaled):
        def __init__(self):
            super().__init__("b")
            self.things = {name: getattr(self, name) for name in SCALED}

        def backward(self, dout):
            dx, grads = self.gradients(dout)
            changed = (1.7 * grads[0] + 1, grads[1], grads[2] + dout.sum(axis=0))
            self.other = dict(zip(SCALED, changed, strict=True))
            return dx

    rows = {row.name: row.verdict for row in sa.check_layer(InDicts(), x, budget=0).rows}
    assert [name for name, verdict in rows.items() if verdict == "wrong"] == list(SCALED)


# -------------------- what forward writes is no parameter --------------------


class Buffered:
    """Keeps its hidden values, and their gradients, in arrays that are made once."""

    def __init__(self):
        self.W, self.dW = W0.copy(), np.zeros_like(W0)
        self.h, self.dh = np.zeros((len(x) + 1, 3)), np.zeros((len(x) + 1, 3))

    def forward(self, x):
        self.x = x
        self.h[1:] = np.tanh(x @ self.W)
        return self.h[1:].copy()

    def backward(self, dout):
        self.dh[1:] = dout * (1 - self.h[1:] ** 2)
        self.dW[...] = self.x.T @ self.dh[1:]
        return self.dh[1:] @ self.W.T


class BufferedOverTime(Buffered):
    def forward(self, x):
        self.x = x
        for t, row in enumerate(x):
            self.h[t + 1] = np.tanh(row @ self.W + self.h[t])
        return self.h[1:].copy()

    def backward(self, dout):
        self.dh[...] = self.dW[...] = 0
        dx = np.zeros_like(self.x)
        for t in reversed(range(len(dout))):
            self.dh[t] = dz = (dout[t] + self.dh[t + 1]) * (1 - self.h[t + 1] ** 2)
            self.dW += np.outer(self.x[t], dz)
            dx[t] = dz @ self.W.T
        return dx


@pytest.mark.parametrize("kind", [Buffered, BufferedOverTime])
def test_an_array_that_forward_fills_is_no_parameter_though_its_partner_is_a_gradient(kind):
    report = sa.check_layer(kind(), x)
    assert report.ok, str(report)
    assert [row.name for row in report.rows] == ["x", "W"]
    assert not report.unchecked
