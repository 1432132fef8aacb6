"""The lines that a report shows: the one with the mistake, and no innocent ones."""

import linecache
import runpy

import numpy as np
import pytest
from findings import has, parts

import spiral_autograd as sa

X = np.random.default_rng(0).standard_normal((4, 3))
W = np.random.default_rng(1).standard_normal((3, 3))


def shown(report, name=None):
    """The statements that the wrong rows show, with the comment that marks the mistake."""
    rows = [r for r in report.rows if r.verdict == "wrong" and name in (None, r.name)]
    assert rows
    return [linecache.getline(*place).strip() for row in rows for place in row.lines]


def assert_marked(report, *innocent):
    lines = shown(report)
    assert any(line.endswith("# mistake") for line in lines), lines
    for text in innocent:
        assert not any(text in line for line in lines), lines


# -------------------- layers, helpers, containers --------------------


class Dense:
    def __init__(self, W):
        self.W = W.copy()

    def forward(self, x):
        self.x = x
        return x @ self.W

    def backward(self, dout):
        self.dW = self.x.T @ dout
        return dout @ self.W.T


class WrongDense(Dense):
    def backward(self, dout):
        self.dW = self.x.T @ dout
        dx = dout @ self.W  # mistake
        return dx


class Relu:
    def forward(self, x):
        self.mask = x > 0
        return x * self.mask

    def backward(self, dout):
        return dout * self.mask


class PassingRelu(Relu):
    def backward(self, dout):
        return dout  # mistake


class Sequence:
    def __init__(self, *layers):
        self.layers = list(layers)

    def forward(self, x):
        for layer in self.layers:
            x = layer.forward(x)
        return x

    def backward(self, dout):
        for layer in reversed(self.layers):
            dout = layer.backward(dout)
        return dout


@pytest.mark.parametrize("wrong", [WrongDense(W), PassingRelu()])
def test_the_line_of_a_layer_inside_a_layer(wrong):
    report = sa.check_layer(Sequence(Dense(W), wrong, Dense(W + 1)), X)
    assert_marked(report, "return dx", "layer.backward", "for layer")


def test_the_line_of_a_layer_inside_a_layer_inside_a_layer():
    inner = Sequence(Dense(W), Relu(), WrongDense(W))
    assert_marked(sa.check_layer(Sequence(Dense(W + 1), inner), X), "layer.backward")


def scattered(dout, index, shape):
    dx = np.zeros(shape)
    dx[index] = dout  # mistake
    return dx


class Gather:
    def forward(self, x):
        self.index, self.shape = np.array([0, 1, 1, 2]), x.shape
        return x[self.index] * 2

    def backward(self, dout):
        dy = dout * 2
        return scattered(dy, self.index, self.shape)


class Private:
    def forward(self, x):
        self.x = x
        return np.tanh(x)

    def backward(self, dout):
        return self.__backward(dout)

    def __backward(self, dout):
        y = np.tanh(self.x)
        slope = 1 - y  # mistake
        return dout * slope


@pytest.mark.parametrize("layer", [Gather(), Private()])
def test_the_line_of_a_helper(layer):
    assert_marked(sa.check_layer(layer, X), "return dx", "return self", "return scattered", "zeros")


# -------------------- what ran, and what is innocent --------------------


class Branches:
    def __init__(self, mode):
        self.mode = mode

    def forward(self, x):
        self.x = x
        return np.sin(x) if self.mode == "sin" else 3 * x

    def backward(self, dout):
        if self.mode == "other":
            dx = dout
        elif self.mode == "sin":
            dx = dout * np.cos(2 * self.x)  # mistake
        else:
            dx = 3 * dout
        return dx


def test_branches_that_did_not_run_are_not_shown():
    report = sa.check_layer(Branches("sin"), X)
    assert_marked(report, "dx = dout\n", "3 * dout", "return dx")
    assert "dx = dout" not in shown(report)


def forward(x, w):
    return x @ w, (x, w)


def backward(dout, cache):
    x, w = cache
    n, _ = x.shape
    length = x.shape[0]
    dw = np.zeros_like(w)
    for i in range(length):
        dw += np.outer(x[i], dout[i]) / n  # mistake
    dx = dout @ w.T
    return dx, dw


def test_unpacking_counting_allocating_and_heads_of_loops_are_innocent():
    innocent = ("= cache", ".shape", "zeros_like", "for i in", "return dx", "dx = dout")
    assert_marked(sa.check_backward(forward, backward, X, W), *innocent)


def net(params, x, y):
    n, _ = x.shape
    hidden = np.maximum(0, x @ params["W1"] + params["b1"])
    scores = hidden @ params["W2"]
    p = np.exp(scores - scores.max(axis=1, keepdims=True))
    p /= p.sum(axis=1, keepdims=True)
    loss = -np.log(p[np.arange(n), y]).sum() / n
    grads = {}
    dscores = p.copy()
    dscores[np.arange(n), y] -= 1
    dscores /= n
    grads["W2"] = hidden.T @ dscores
    dhidden = dscores @ params["W2"].T
    dhidden[hidden <= 0] = 0
    grads["W1"] = x.T @ dhidden
    grads["b1"] = dhidden.mean(axis=0)  # mistake
    return loss, grads


def test_one_function_for_both_passes_has_a_backward_half():
    params = {"W1": W, "b1": np.zeros(3) + 0.1, "W2": W.T}
    labels = np.array([0, 2, 1, 1])
    report = sa.check_gradient(lambda *a: net(*a)[0], net, params, X, labels)
    lines = shown(report, "b1")
    assert 'grads["b1"] = dhidden.mean(axis=0)  # mistake' in lines
    for text in ("n, _ =", 'grads["W1"]', 'grads["W2"]', "return loss"):
        assert not any(text in line for line in lines)


# -------------------- the culprit, not its neighbour --------------------


class Contrast:
    def forward(self, a, b):
        self.apart = a - b
        return 0.5 * np.sum(self.apart**2)

    def backward(self, dout=1):
        g = dout * self.apart
        return g, g  # mistake


class Entries:
    def forward(self, x):
        self.x = x
        return np.where(x > 0, x, 0.1 * x)

    def backward(self, dout):
        dx = dout.copy()
        dx[self.x <= 0] = 0  # mistake
        return dx


class Copying:
    def forward(self, x):
        self.x = x
        return np.tanh(x) * 2

    def backward(self, dout):
        dy = 2 * dout
        dx = dy  # mistake
        return dx


class InDict:
    def __init__(self):
        self.params = {"W": W.copy(), "b": np.zeros(3)}
        self.grads = {}

    def forward(self, x):
        self.x = x
        return x @ self.params["W"] + self.params["b"]

    def backward(self, dout):
        self.grads["W"] = self.x.T @ dout
        self.grads["b"] = dout.sum()  # mistake
        return dout @ self.params["W"].T


class Adding:
    def __init__(self):
        self.gamma, self.beta = np.ones(3), np.zeros(3)

    def forward(self, x):
        self.x = x
        return x * self.gamma + self.beta

    def backward(self, dout):
        self.dgamma = getattr(self, "dgamma", 0) + (dout * self.x).sum(axis=0)  # mistake
        self.dbeta = dout.sum(axis=0)
        return dout * self.gamma


@pytest.mark.parametrize(
    ("layer", "innocent"),
    [
        (Entries(), ("return dx",)),
        (Copying(), ("return dx",)),
        (InDict(), ("return", 'grads["W"]')),
        (Adding(), ("return dout",)),
    ],
)
def test_the_culprit_is_shown(layer, innocent):
    report = sa.check_layer(layer, X)
    lines = [line for line in shown(report) if not line.startswith("return x @ ")]
    assert any(line.endswith("# mistake") for line in lines), lines
    for text in innocent:
        assert not any(text in line for line in lines), lines


def test_one_of_two_equal_gradients_is_wrong_where_it_is_handed_out():
    assert_marked(sa.check_layer(Contrast(), X, X + 1), "g = dout")


class TwoMeans:
    def __init__(self):
        self.W, self.b, self.c = W.copy(), np.zeros(3), np.zeros(3)

    def forward(self, x):
        self.x = x
        self.y = np.tanh(x @ self.W + self.b)
        return 3 * self.y + self.c

    def backward(self, dout):
        dz = 3 * dout * (1 - self.y**2)
        self.dc = dout.mean(axis=0)  # mistake of c
        self.db = dz.mean(axis=0)  # mistake of b
        self.dW = self.x.T @ dz
        return dz @ self.W.T


def test_rows_with_one_reason_each_show_their_own_line():
    text = str(sa.check_layer(TwoMeans(), X))
    assert "c, b: " in text or "b, c: " in text
    assert "# mistake of c" in text
    assert "# mistake of b" in text
    assert "dz = 3" not in text


# -------------------- no source --------------------


def test_code_without_source_is_said_to_have_none():
    names = {}
    code = (
        "class Square:\n"
        "    def forward(self, x):\n        self.x = x\n        return x ** 2\n"
        "    def backward(self, dout):\n        return dout * self.x\n"
    )
    exec(code, names)
    report = sa.check_layer(names["Square"](), X)
    assert [row.lines for row in report.rows] == [()]
    assert [part.kind for part in parts(report)].count("unreadable") == 1
    assert not has(sa.check_layer(Entries(), X), "unreadable")


# -------------------- general rules --------------------


class Calling(InDict):
    """A layer that can be called, as modules can, and shows its gradients by a property."""

    def __call__(self, x):
        return self.forward(x)

    def backward(self, dout):
        self.grads["W"] = self.x.T @ dout
        total = dout.sum()  # mistake
        self.grads["b"] = np.zeros(3)
        self.grads["b"] += total
        return dout @ self.params["W"].T


def test_a_layer_that_can_be_called_is_looked_into():
    assert_marked(sa.check_layer(Calling(), X), 'grads["W"]', "return dout")


class Loops:
    def forward(self, x):
        self.x = x
        return x**2

    def backward(self, dout):
        dx = np.zeros(dout.shape)
        for i in range(1, len(dout)):  # mistake
            for j in range(3):
                dx[i, j] = 2 * dout[i, j] * self.x[i, j]
        return dx


def test_a_loop_that_leaves_entries_out_is_shown():
    assert_marked(sa.check_layer(Loops(), X), "for j in", "zeros", "return dx")


class Ignoring:
    def forward(self, x):
        self.x = x
        return x**3

    def backward(self, dout):
        square = self.x**2
        dx = 3 * square  # mistake
        return dx


def test_where_the_upstream_gradient_is_ignored_the_last_statement_that_computes_is_shown():
    assert_marked(sa.check_layer(Ignoring(), X))


class Stale:
    def __init__(self):
        self.scale, self.size = None, None

    def forward(self, x):
        return self.__forward(x)

    def __forward(self, x):
        scale = np.exp(x)
        if self.size is None:
            self.size = len(x)
        self.scale = scale if self.scale is None else self.scale  # mistake
        return scale

    def backward(self, dout):
        return dout * self.scale


def test_what_a_private_method_leaves_from_an_earlier_call():
    assert_marked(sa.check_layer(Stale(), X), "self.size")


class Weighted:
    def __init__(self):
        self.layers = {"a": Dense(W), "b": Dense(W.T)}

    def forward(self, x):
        self.x = x
        return self.layers["a"].forward(x) + 2 * self.layers["b"].forward(x)

    def backward(self, dout):
        parts = [(self.layers["a"], dout), (self.layers["b"], dout * 3)]  # mistake
        return sum(layer.backward(part) for layer, part in parts)


def test_what_a_layer_is_given_is_not_its_own_mistake():
    lines = shown(sa.check_layer(Weighted(), X))
    assert any(line.endswith("# mistake") for line in lines), lines


class Aliases:
    """Two names for one array, a view, and a call that writes into what it is given."""

    def forward(self, x):
        self.x = x
        return np.sin(x) * np.array([1.0, 2.0, 3.0])

    def backward(self, dout):
        dx = np.zeros_like(self.x)
        rows = dx[:]
        np.copyto(rows, dout * np.cos(self.x))
        self.weigh(rows)
        return dx

    def weigh(self, rows):
        rows *= np.array([1.0, 2.0, 2.0])  # mistake


def test_writing_through_another_name_is_followed():
    assert_marked(sa.check_layer(Aliases(), X), "zeros_like", "return dx", "self.weigh")


class HandedOn:
    """Sums, where the derivative of tanh is missing: the gradient is just handed on."""

    def forward(self, x):
        self.y = np.tanh(x)
        return np.cumsum(self.y, axis=1)

    def backward(self, dout):
        dy = np.cumsum(dout[:, ::-1], axis=1)[:, ::-1]
        dz = dy
        return dz


def test_where_a_gradient_is_handed_on_and_a_factor_is_missing():
    report = sa.check_layer(HandedOn(), np.random.default_rng(0).normal(size=(3, 4)))
    assert "dz = dy" in {linecache.getline(*place).strip() for place in report.rows[0].lines}


# -------------------- exactly the line --------------------


class Steps:
    """A layer in small steps; each of the classes below has one of them wrong."""

    def __init__(self, W=W):
        self.W, self.b = W.copy(), W[0].copy()

    def forward(self, x):
        self.x = x
        self.y = np.tanh(x @ self.W + self.b)
        self.p = np.exp(self.y) / np.exp(self.y).sum(axis=1, keepdims=True)
        return self.p


class SumOverColumns(Steps):
    def backward(self, dout):
        total = np.sum(dout * self.p, axis=0, keepdims=True)  # mistake
        dy = self.p * (dout - total)
        dz = dy * (1 - self.y**2)
        self.dW, self.db = self.x.T @ dz, dz.sum(axis=0)
        return dz @ self.W.T


class SlopeOfP(Steps):
    def backward(self, dout):
        dy = self.p * (dout - np.sum(dout * self.p, axis=1, keepdims=True))
        slope = 1 - self.p**2  # mistake
        dz = dy * slope
        self.dW, self.db = self.x.T @ dz, dz.sum(axis=0)
        return dz @ self.W.T


class OnOneLine(Steps):
    def backward(self, dout):
        dy = self.p * (dout - np.sum(dout * self.p, axis=1, keepdims=True))
        if self.W.size < 3: dy = dout  # fmt: skip # noqa: E701
        dz = dy * (1 - self.y**2); n = len(dz)  # fmt: skip # noqa: E702
        self.dW, self.db = self.x.T @ dz, dz.sum(axis=0) / n  # mistake
        return dz @ self.W.T


def in_the_slope(dy, y):
    square = y**3  # mistake
    return dy * (1 - square)


class InAHelper(Steps):
    def backward(self, dout):
        dy = self.p * (dout - np.sum(dout * self.p, axis=1, keepdims=True))
        dz = in_the_slope(dy, self.y)
        self.dW, self.db = self.x.T @ dz, dz.sum(axis=0)
        return dz @ self.W.T


def into_the_slope(dy, y):
    return dy * (1 - y**2)


class TheCall(Steps):
    def backward(self, dout):
        dy = self.p * (dout - np.sum(dout * self.p, axis=1, keepdims=True))
        dz = into_the_slope(dy, self.p)  # mistake
        self.dW, self.db = self.x.T @ dz, dz.sum(axis=0)
        return dz @ self.W.T


@pytest.mark.parametrize("layer", [SumOverColumns, SlopeOfP, OnOneLine, InAHelper, TheCall])
def test_the_statement_is_named_alone(layer):
    code = layer.backward.__code__
    lines = [line for line in shown(sa.check_layer(layer(), X)) if not line.startswith("self.p =")]
    marked = [line for line in dict.fromkeys(lines) if not line.startswith("self.y =")]
    assert [line.endswith("# mistake") for line in marked] == [True], marked
    assert layer.backward.__code__ is code  # what was tried in its place is gone


class Printing(SumOverColumns):
    def backward(self, dout):
        print("backward")
        return super().backward(dout)


def test_what_is_tried_prints_nothing_and_leaves_the_layer_as_it_was(capsys):
    layer = Printing()
    before = dict(vars(layer))
    assert not sa.check_layer(layer, X).ok
    assert list(vars(layer)) == list(before)
    assert len(capsys.readouterr().out.splitlines()) < 30


def test_what_is_indexed_and_is_no_array_is_not_multiplied():
    """Such as np.c_: times an array it is a list without an end."""

    def sig(z):
        return 1 / (1 + np.exp(-z))

    def cost(theta, x, y):
        first, second = theta[:12].reshape(3, 4), theta[12:].reshape(1, 4)
        a1 = np.c_[np.ones(len(x)), x]
        a2 = np.c_[np.ones(len(x)), sig(a1 @ first.T)]
        return np.mean((sig(a2 @ second.T) - y) ** 2)

    def gradient(theta, x, y):
        first, second = theta[:12].reshape(3, 4), theta[12:].reshape(1, 4)
        m = len(x)
        a1 = np.c_[np.ones(m), x]
        z2 = a1 @ first.T
        a2 = np.c_[np.ones(m), sig(z2)]
        h = sig(a2 @ second.T)
        d3 = 2 * (h - y) * h * (1 - h)
        d2 = (d3 @ second)[:, 1:] * sig(z2)
        return np.concatenate([(d2.T @ a1 / m).ravel(), (d3.T @ a2 / m).ravel()])

    r = np.random.default_rng(7)
    report = sa.check_gradient(cost, gradient, r.normal(size=16), r.normal(size=(5, 3)), 0.0)
    assert [row.verdict for row in report.rows] == ["wrong"]
    assert report.rows[0].lines


def test_of_code_that_is_loaded_twice_the_lines_are_found_in_either(tmp_path):
    file = tmp_path / "masked.py"
    file.write_text(
        "class Masked:\n"
        "    def __init__(self, W, mask):\n"
        "        self.W, self.mask = W, mask\n"
        "    def forward(self, x):\n"
        "        self.x = x\n"
        "        return x @ (self.W * self.mask)\n"
        "    def backward(self, dout):\n"
        "        self.dW = self.x.T @ dout\n"
        "        return dout @ (self.W * self.mask).T\n"
    )
    rng = np.random.default_rng(0)
    x, W = rng.normal(size=(5, 4)), rng.normal(size=(4, 3))
    loaded = [runpy.run_path(str(file)) for _ in range(2)]
    for space in loaded:
        masked = space["Masked"](W, 1.0 * (W > 0))
        row = sa.check_layer(masked, x, constant=["mask"]).rows[1]
        assert has(row, "right_with", statement="self.dW = self.x.T @ dout * self.mask"), row.why
