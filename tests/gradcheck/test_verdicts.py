"""What is a mistake, and what is rounding, a kink or a constant left out on purpose."""

import numpy as np
import pytest
from autograd.extend import defvjp, primitive
from layers import Elementwise

import spiral_autograd as sa
from spiral_autograd.gradcheck.blocks import differing, furthest, moved

pytestmark = pytest.mark.usefixtures("verdicts_alone")


def stream(seed=0):
    return np.random.default_rng(seed)


def verdicts(report):
    return {row.name: row.verdict for row in report.rows}


class Affine:
    def __init__(self, change, n=2, m=3, dtype=float):
        self.change = change
        self.W, self.b = stream(1).normal(size=(n, m)).astype(dtype), np.zeros(m, dtype=dtype)

    def forward(self, x):
        self.x = x
        return x @ self.W + self.b

    def backward(self, dout):
        self.dW, self.db = self.x.T @ dout, dout.sum(axis=0)
        dx = dout @ self.W.T
        self.change(self, dx)
        return dx


# -------------------- entries by the size of their own row and column --------------------


def features(*sizes, n=6):
    return np.stack([stream(i).normal(size, size / 3, n) for i, size in enumerate(sizes)], axis=1)


@pytest.mark.parametrize("share", [1.0, 1e-3, 3e-6])
@pytest.mark.parametrize("small", [0, 1])
def test_a_row_is_not_judged_by_another_that_is_far_larger(share, small):
    def change(layer, _):
        layer.dW[small] *= 1 + share

    sizes = (3.0, 3e5) if small == 0 else (3e5, 3.0)
    report = sa.check_layer(Affine(change), features(*sizes))
    assert verdicts(report) == {"x": "exact", "W": "wrong", "b": "exact"}, str(report)
    assert report.rows[1].index[0] == small
    assert sa.check_layer(Affine(lambda *_: None), features(*sizes)).ok


@pytest.mark.parametrize("entry", range(3))
def test_the_entries_of_a_vector_are_judged_each_by_itself(entry):
    def change(layer, _):
        layer.db[entry] *= 1.001

    upstream = stream().normal(size=(6, 3)) * [1e5, 1.0, 1e-5]
    report = sa.check_layer(Affine(change), features(1.0, 2.0), upstream=upstream)
    assert verdicts(report)["b"] == "wrong"
    assert report.rows[2].index == (entry,)


def test_what_is_small_where_it_stands_is_approximate():
    def change(layer, dx):
        dx[2] *= 1 + 3e-8

    report = sa.check_layer(Affine(change), features(1.0, 2.0))
    assert verdicts(report)["x"] == "approximate"
    assert report.ok


def test_the_furthest_entry_is_that_which_weighs_most_in_its_row_and_column():
    g = np.array([[1e6, 2e6], [1.0, 2.0]])
    h = g + np.array([[1e-3, 0], [0, 1e-4]])
    found = furthest(h, g)
    assert found.place == 3
    assert found.relative == pytest.approx(5e-5, rel=1e-3)
    assert differing(h, g, 1e-6, 0.0).tolist() == [[False, False], [False, True]]
    assert furthest(h, g, np.full((2, 2), 1e-4)).beyond < 1e-8


# -------------------- a mistake repeats, rounding does not --------------------


@pytest.mark.parametrize("salt", range(3))
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_moved_numbers_keep_zeros_ties_and_signs(salt, dtype):
    value = np.array([0.0, 1.0, -1.0, 0.3, 1.0, 2.0**-20, -0.0], dtype=dtype)
    other = moved(value, 4 * np.finfo(dtype).eps, salt)
    assert other.dtype == dtype
    assert (other == 0).tolist() == (value == 0).tolist()
    assert other[1] == other[4] == -other[2]
    assert np.all(other[value != 0] != value[value != 0])
    assert np.allclose(other, value, rtol=5 * np.finfo(dtype).eps)


def softmax(x):
    e = np.exp(x - x.max(axis=-1, keepdims=True))
    return e / e.sum(axis=-1, keepdims=True)


class Softmax:
    def forward(self, x):
        self.y = softmax(x)
        return self.y

    def backward(self, dout):
        return self.y * (dout - (dout * self.y).sum(axis=-1, keepdims=True))


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("scale", [1, 30, 1000])
@pytest.mark.parametrize("seed", range(3))
def test_saturated_layers_have_no_digits_and_are_right(dtype, scale, seed):
    x = (scale * stream(seed).normal(size=(2, 3))).astype(dtype)

    class Tanh(Softmax):
        def forward(self, x):
            self.y = np.tanh(x)
            return self.y

        def backward(self, dout):
            return dout * (1 - self.y * self.y)

    for layer in (Softmax(), Tanh()):
        report = sa.check_layer(layer, x, rng=seed, budget=0)
        assert report.ok, str(report)


def test_a_saturated_layer_does_not_hide_a_mistake():
    class Wrong(Softmax):
        def backward(self, dout):
            return self.y * (dout - (dout * self.y).sum())

    report = sa.check_layer(Wrong(), 30 * stream().normal(size=(4, 3)), budget=0)
    assert not report.ok


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("scale", [1e-6, 1.0, 1e3, 1e6])
def test_a_rounding_that_has_not_happened_excuses_nothing(scale, dtype):
    """Where tanh is exactly 1, a cache that were off by a bit would be off by 10^18 in the end."""

    class Gelu:
        def __init__(self, factor):
            self.factor = factor

        def forward(self, x):
            self.x, self.t = x, np.tanh(x + 0.044715 * x**3)
            return self.factor * x * (1 + self.t)

        def backward(self, dout):
            du = 1 + 3 * 0.044715 * self.x**2
            return dout * (0.5 * (1 + self.t) + 0.5 * self.x * (1 - self.t**2) * du)

    x = (scale * stream().normal(size=(4, 5))).astype(dtype)
    assert sa.check_layer(Gelu(0.5), x, budget=0).ok
    assert not sa.check_layer(Gelu(1.0), x, budget=0).ok


@pytest.mark.parametrize("scale", [1e-6, 1e-4, 1.0])
def test_a_forward_pass_in_float32_may_lose_digits(scale):
    class Elu:
        def forward(self, x):
            self.x, self.y = x, np.where(x > 0, x, np.exp(np.minimum(x, 0)) - 1)
            return self.y

        def backward(self, dout):
            return dout * np.where(self.x > 0, 1, self.y + 1)

    x = (scale * stream().normal(size=(4, 3))).astype(np.float32)
    assert sa.check_layer(Elu(), x, budget=0).ok


def test_a_gradient_of_zero_is_rounding():
    class Centred(Affine):
        def forward(self, x):
            z = super().forward(x)
            return np.tanh(z - z.mean(axis=0))

        def backward(self, dout):
            z = self.x @ self.W
            y = np.tanh(z - z.mean(axis=0))
            dz = dout * (1 - y**2)
            return super().backward(dz - dz.mean(axis=0))

    for scale in (1e-4, 1.0, 1e5):
        report = sa.check_layer(Centred(lambda *_: None), scale * features(*[1.0] * 2, n=7))
        assert report.ok, str(report)


@pytest.mark.parametrize("steps", [10, 60])
def test_where_rounding_is_all_there_is_nothing_is_claimed(steps):
    """The logistic map doubles an error at each step: after 60 no digit is left."""

    class Logistic:
        def forward(self, x):
            self.xs = [x]
            for _ in range(steps):
                x = 4 * x * (1 - x)
                self.xs.append(x)
            return x

        def backward(self, dout):
            for x in reversed(self.xs[:-1]):
                dout = dout * (4 - 8 * x)
            return dout

    (row,) = sa.check_layer(Logistic(), stream().uniform(0.1, 0.9, size=(2, 3)), budget=0).rows
    assert (row.verdict in ("exact", "match")) is (steps == 10), row
    assert row.verdict in ("exact", "match", "approximate"), row


# -------------------- kinks --------------------


def relu(x):
    return np.maximum(0, x)


@pytest.mark.parametrize("at", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_at_a_kink_what_lies_between_the_slopes_is_right(at, dtype):
    x = np.array([[0.0, -1.0, 0.3, 2.0]], dtype=dtype)
    report = sa.check_layer(Elementwise(relu, lambda v: (v > 0) + at * (v == 0)), x)
    assert report.ok, str(report)


@pytest.mark.parametrize("at", [-1.0, 1.5, 3.0])
@pytest.mark.parametrize("zeros", [1, 12])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_at_a_kink_what_lies_beyond_both_slopes_is_wrong(at, zeros, dtype):
    x = stream().normal(size=(6, 4)).astype(dtype)
    x.flat[:zeros] = 0
    layer = Elementwise(relu, lambda v: (v > 0) + dtype(at) * (v == 0))
    assert not sa.check_layer(layer, x, budget=0).ok


@pytest.mark.parametrize("at", [0.0, 1.0])
def test_a_mark_at_a_kink_that_no_parameter_moves_is_right_between_the_slopes(at):
    x, v = stream().normal(size=(4, 3)), np.array([0.5, -1.0])
    x[1] = 0

    def loss(params, x):
        return np.sum(relu(sa.tap("z", x @ params["W"])) @ v)

    def gradient(params, x):
        z = x @ params["W"]
        dz = v * ((z > 0) + at * (z == 0))
        return {"W": x.T @ dz, "z": dz}

    report = sa.check_gradient(loss, gradient, {"W": stream().normal(size=(3, 2))}, x)
    assert report.ok, str(report)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_a_saturated_loss_is_known_by_its_gradient_for_milder_values(dtype):
    class CrossEntropy:
        def forward(self, x, t):
            self.y, self.t = 1 / (1 + np.exp(-x)), t
            logs = t * np.log(self.y + 1e-7) + (1 - t) * np.log(1 - self.y + 1e-7)
            return -np.mean(logs)

        def backward(self):
            return (self.y - self.t) / len(self.t)

    x, t = np.array([40.0, -40.0, 0.5], dtype=dtype), np.array([0.0, 0.0, 1.0], dtype=dtype)
    assert sa.check_layer(CrossEntropy(), x, t).rows[0].verdict == "idealised"


@pytest.mark.parametrize(
    "mistake",
    [
        lambda dx: dx.__setitem__((slice(None), 1), 2 * dx[:, 1]),
        lambda dx: dx.__setitem__((2, 3), 0.1),
        lambda dx: dx.__imul__(1.001),
    ],
)
def test_a_kink_excuses_the_entries_that_it_touches(mistake):
    class Relu(Elementwise):
        def backward(self, dout):
            dx = super().backward(dout)
            mistake(dx)
            return dx

    x = stream().normal(size=(6, 4))
    x[0] = 0
    assert not sa.check_layer(Relu(relu, lambda v: 1.0 * (v > 0)), x).ok


@pytest.mark.parametrize("constant", [1e-9, 1e-8, 1e-7])
def test_what_changes_smoothly_is_no_kink(constant):
    class Normalised:
        def forward(self, x):
            self.x, self.norm = x, np.sqrt(np.sum(x**2, axis=1, keepdims=True))
            return x / self.norm

        def backward(self, dout):
            inner = np.sum(dout * self.x, axis=1, keepdims=True)
            return dout / (self.norm + constant) - self.x * inner / (self.norm**3 + constant)

    (row,) = sa.check_layer(Normalised(), stream().normal(size=(5, 4)), budget=0).rows
    assert row.rule != "kink", row


def test_a_tie_without_a_kink_excuses_nothing():
    layer = Elementwise(lambda v: np.maximum(np.tanh(v), np.tanh(v)), lambda v: 1 - np.tanh(v))
    assert not sa.check_layer(layer, 1e-4 * stream().normal(size=(2, 3))).ok


def test_a_kink_excuses_no_entry_that_is_smooth():
    class Mixed:
        def forward(self, x):
            self.x = x
            return np.stack([np.maximum(x[:, 0], 0), x[:, 1] ** 2], axis=1)

        def backward(self, dout):
            smooth = np.where(self.x[:, 1] == 0, 0.3, 2 * self.x[:, 1])
            return dout * np.stack([self.x[:, 0] >= 0, smooth], axis=1)

    report = sa.check_layer(Mixed(), np.array([[0.0, 0.0], [1.0, -2.0]]), upstream=np.ones((2, 2)))
    assert report.rows[0].verdict == "wrong", str(report)
    assert sa.check_layer(Mixed(), np.array([[0.0, 3.0], [1.0, -2.0]])).ok


def test_a_kink_far_away_excuses_nothing():
    x = 1e6 * stream().normal(size=(3, 2))

    def loss(p):
        h = x @ p[:2].reshape(2, 1) + p[2:]
        return np.sum(np.maximum(0, 0.01 - h @ h.T))

    assert not sa.check_gradient(loss, lambda p: np.zeros(3), np.array([2.7e-7, -4.6e-7, 0.32])).ok


@pytest.mark.parametrize("wrong", [False, True])
def test_a_mark_beside_a_kink_is_no_mistake(wrong):
    x, W = np.array([[1.0, -1.0], [2.0, 0.5]]), np.array([[1.0, 2.0], [1.0, -1.0]])

    def loss(p):
        z = sa.tap("z", x @ p["W"])
        h = sa.tap("h", np.maximum(0, z))
        return (h**2 + 3 * h).sum()

    def grad(p):
        z = x @ p["W"]
        dh = 2 * np.maximum(0, z) + (2 if wrong else 3)
        dz = dh * (z > 0)
        return {"W": x.T @ dz, "h": dh, "z": dz}

    assert sa.check_gradient(loss, grad, {"W": W}).ok is not wrong


# -------------------- constants left out on purpose, and forgotten ones --------------------

EPS = 1e-7

GUARDS = {
    "log": (lambda x: np.log(x**2 + EPS), lambda x: 2 / x),
    "root": (lambda x: np.sqrt(x**2 + EPS), np.sign),
    "quotient": (lambda x: x**3 / (x**2 + EPS), lambda x: 1.0),
    "two constants": (
        lambda x: np.log(x**2 + EPS) + x / (np.abs(x) + EPS),
        lambda x: 2 / x,
    ),
}


@pytest.mark.parametrize("name", GUARDS)
def test_a_constant_that_guards_may_be_left_out(name):
    function, derivative = GUARDS[name]
    x = stream().uniform(0.5, 2, size=(3, 4))
    (row,) = sa.check_layer(Elementwise(function, derivative), x).rows
    assert row.verdict == "idealised", row


FORGOTTEN = {
    "a target": (lambda x: (x - 0.01) ** 2, lambda x: 2 * x),
    "a margin": (lambda x: np.maximum(0, 0.01 - x) ** 2, lambda x: -2 * np.maximum(0, -x)),
    "a leak": (lambda x: np.where(x > 0, x, 0.01 * x), lambda x: 1.0 * (x > 0)),
    "a decay": (lambda x: np.tanh(x) + 0.01 * x, lambda x: 1 - np.tanh(x) ** 2),
    "a shift": (lambda x: np.tanh(x + 0.01), lambda x: 1 - np.tanh(x) ** 2),
    "a target under a square": (
        lambda x: np.log(1 + (x - 0.01) ** 2),
        lambda x: 2 * x / (1 + x**2),
    ),
}


@pytest.mark.parametrize("name", FORGOTTEN)
def test_a_constant_that_backward_forgot_is_a_mistake(name):
    function, derivative = FORGOTTEN[name]
    report = sa.check_layer(Elementwise(function, derivative), 0.02 * stream().normal(size=(3, 4)))
    assert not report.ok, str(report)


def test_what_a_constant_costs_stands_in_the_title_where_it_is_much():
    layer = Elementwise(*GUARDS["log"])
    for x, costs in ((1e-3, True), (1.0, False)):
        report = sa.check_layer(layer, x * stream().uniform(1, 2, size=(3, 4)))
        (row,) = report.rows
        assert row.verdict == "idealised"
        assert (row.max_rel > 0.01) is costs
        assert ("off at these values" in str(report).split("\n")[0]) is costs


def test_a_guard_is_known_among_pythons_own_numbers():
    class Log:
        def forward(self, x):
            self.x = x
            return np.array([[float(np.log(v * v + 1e-4)) for v in row] for row in x])

        def backward(self, dout):
            return 2 * dout / self.x

    class Target(Log):
        def forward(self, x):
            self.x = x
            return np.array([[float(v - 1e-2) ** 2 for v in row] for row in x])

        def backward(self, dout):
            return 2 * dout * self.x

    x = stream().uniform(0.5, 2, size=(2, 3))
    assert verdicts(sa.check_layer(Log(), x)) == {"x": "idealised"}
    assert verdicts(sa.check_layer(Target(), x)) == {"x": "wrong"}


@pytest.mark.parametrize("seed", [1, 4, 14, 28, 32])
def test_kinks_that_cancel_along_one_direction_are_seen_along_another(seed):
    class AffineRelu:
        def __init__(self):
            self.W, self.b = np.zeros((6, 4)), np.zeros(4)

        def forward(self, x):
            self.x, self.out = x, np.maximum(0, x @ self.W + self.b)
            return self.out

        def backward(self, dout):
            dout = dout * (self.out > 0)
            self.dW, self.db = self.x.T @ dout, dout.sum(axis=0)
            return dout @ self.W.T

    x = np.random.default_rng(seed).normal(size=(2, 6))
    report = sa.check_layer(AffineRelu(), x, rng=seed)
    assert report.ok, str(report)


# -------------------- references that have the right shape and value --------------------


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_the_gradient_of_what_where_broadcasts_has_its_shape(dtype):
    class Mix:
        def __init__(self, factor):
            self.b, self.factor = np.array([0.5, -0.5, 1.0], dtype=dtype), factor

        def forward(self, x):
            self.m = x > 0
            return np.where(self.m, x, self.b)

        def backward(self, dout):
            self.db = self.factor * np.sum(dout * ~self.m, axis=0)
            return dout * self.m

    x = stream().normal(size=(4, 3)).astype(dtype)
    assert sa.check_layer(Mix(1), x).ok
    assert not sa.check_layer(Mix(2), x).ok


ESCAPES = {
    "a cast to complex": lambda x: (x.astype(np.complex128) * (2 + 1j)).real,
    "floats": lambda x: np.array([[float(v) * 2 for v in row] for row in x]),
    "items": lambda x: np.array([[v.item() * 2 for v in row] for row in x]),
    "lists": lambda x: 2 * np.array(x.tolist()),
    "an array": lambda x: 2 * np.asarray(x),
    "a buffer": lambda x: np.multiply(x, 2, out=np.empty_like(x)),
    "a part": lambda x: x + np.array([[float(v) for v in row] for row in x]),
    "a small part": lambda x: 2 * x + 1e-3 * np.array(np.asarray(x).tolist()),
}


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("name", ESCAPES)
def test_a_value_that_leaves_the_trace_is_no_constant(name, dtype):
    true = 2.001 if name == "a small part" else 2.0
    x = stream().normal(size=(2, 3)).astype(dtype)
    for derivative, ok in ((true, True), (0.0, False), (1.0, False)):
        report = sa.check_layer(Elementwise(ESCAPES[name], lambda v, d=derivative: d), x)
        assert report.ok is ok, str(report)


@pytest.mark.parametrize("factor", [1.0, 1.01, 1.3])
def test_float32_is_no_excuse(factor):
    class Softsign:
        def forward(self, x):
            self.x, y = x, np.empty_like(x)
            np.divide(x, 1 + np.abs(x), out=y)
            return y

        def backward(self, dout):
            return factor * dout / (1 + np.abs(self.x)) ** 2

    x = stream().normal(size=(4, 5)).astype(np.float32)
    assert sa.check_layer(Softsign(), x).ok is (factor == 1)


@pytest.mark.parametrize("scale", [1e-6, 1e-4, 1.0, 1e4, 1e6])
@pytest.mark.parametrize("factor", [1.0, 1.00001, 0.5])
def test_differences_take_steps_of_the_size_of_the_values(scale, factor):
    class Measured:
        def __init__(self):
            self.W = stream(1).normal(size=(3, 2)) / scale

        def forward(self, x):
            self.x = x
            z = x @ self.W
            self.y = np.array([[float.fromhex(float(v).hex()) for v in row] for row in np.tanh(z)])
            return self.y

        def backward(self, dout):
            dz = factor * dout * (1 - self.y**2)
            self.dW = self.x.T @ dz
            return dz @ self.W.T

    x = scale * stream().normal(size=(4, 3))
    report = sa.check_layer(Measured(), x, budget=0.1)
    assert report.reference == "central differences"
    assert report.ok is (factor == 1), str(report)


SIZES = np.array([[1.0, 0.0], [0.0, 1e-7]])


@primitive
def scaled(x):
    return x * SIZES


# autograd's own rule is wrong in an entry that no random direction shows
defvjp(scaled, lambda ans, x: lambda g: g * SIZES * np.array([[1.0, 1.0], [1.0, 1.001]]))


@pytest.mark.parametrize("is_right", [True, False])
def test_what_differences_side_with_is_right_against_autograd(is_right):
    class Scaled:
        def forward(self, x):
            return scaled(x)

        def backward(self, dout):
            return dout * SIZES * (1.0 if is_right else [[1.0, 1.0], [1.0, 1.01]])

    report = sa.check_layer(Scaled(), np.array([[1.0, 2.0], [3.0, 4.0]]))
    assert verdicts(report) == {"x": "approximate" if is_right else "wrong"}, str(report)
    if is_right:
        assert [finding.kind for finding in report.rows[0].findings] == ["differences_disagree"]
