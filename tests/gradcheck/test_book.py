"""The book's own chapter, checked: nothing right is called wrong, and each node broken is found."""

import contextlib
import io
import runpy
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from effort import examples
from findings import has
from hypothesis import given, settings
from hypothesis import strategies as st

import spiral_autograd as sa
from spiral_autograd import manual

RIGHT = {"exact", "match"}
SCRIPT = Path(__file__).parents[2] / "examples" / "08_check_the_book.py"

with contextlib.redirect_stdout(io.StringIO()):
    book = SimpleNamespace(**runpy.run_path(str(SCRIPT)))

NODES = list(book.pairs(np.random.RandomState(0), 2, 2, 2))
SEEDS = st.integers(0, 2**32 - 1)
SIZES = st.tuples(st.integers(1, 6), st.integers(1, 5), st.integers(2, 5))


def check_node(node, inputs, backward=None):
    forward = getattr(manual, node)
    return sa.check_backward(forward, backward or getattr(manual, f"{node}_backward"), *inputs)


def small_net(seed, sizes, loss_layer=book.SoftmaxWithLoss):
    rng = np.random.RandomState(seed)
    n, d, c = sizes
    net = book.TwoLayerNet(rng, d, 4, c, loss_layer())
    return net, rng.randn(n, d), np.eye(c)[rng.randint(c, size=n)]


def wrong_rows(report):
    return {row.name for row in report.rows if row.verdict in ("wrong", "missing")}


# -------------------- all is right --------------------


def test_every_node_of_the_chapter_is_checked():
    pairs = {name for name in dir(manual) if callable(getattr(manual, f"{name}_backward", None))}
    assert set(NODES) == pairs


@pytest.mark.parametrize("node", NODES)
@given(seed=SEEDS, sizes=SIZES)
@settings(max_examples=examples(15))
def test_every_node_is_right(node, seed, sizes):
    inputs = book.pairs(np.random.RandomState(seed), *sizes)[node]
    report = check_node(node, inputs)
    assert report.ok, str(report)
    assert report.reference == "autograd"
    assert report.rows
    assert {row.verdict for row in report.rows} <= RIGHT, str(report)


@pytest.mark.parametrize("node", ["cross_entropy", "softmax_with_loss"])
def test_class_indices_are_as_good_as_one_hot_targets(node):
    scores, t = book.pairs(np.random.RandomState(1), 5, 4, 3)[node]
    report = check_node(node, (scores, t.argmax(axis=1)))
    assert [row.verdict in RIGHT for row in report.rows] == [True], str(report)


@given(seed=SEEDS, sizes=SIZES)
@settings(max_examples=examples(15))
def test_the_whole_gradient_is_right(seed, sizes):
    n, d, c = sizes
    rng = np.random.RandomState(seed)
    params = sa.init_params(d, 4, c, rng=rng, scale=1.0)
    x, t = rng.randn(n, d), rng.randint(c, size=n)
    for loss in (sa.loss, lambda params, x, t: manual.value_and_grad(params, x, t)[0]):
        report = sa.check_gradient(loss, manual.value_and_grad, params, x, t)
        assert report.ok, str(report)
        assert [row.name for row in report.rows] == ["W1", "b1", "W2", "b2"]
        assert {row.verdict for row in report.rows} <= RIGHT, str(report)


@given(seed=SEEDS, sizes=SIZES)
@settings(max_examples=examples(15))
def test_the_network_of_classes_is_right(seed, sizes):
    report = sa.check_network(*small_net(seed, sizes))
    assert report.ok, str(report)
    assert len(report.rows) == 8
    assert {row.verdict for row in report.rows} <= RIGHT, str(report)


# -------------------- the 1e-07 inside the logarithm --------------------


@given(seed=SEEDS, sizes=SIZES)
@settings(max_examples=examples(15))
def test_with_the_1e_07_the_loss_of_ordinary_scores_is_idealised(seed, sizes):
    report = sa.check_network(*small_net(seed, sizes, book.BookLoss))
    assert report.ok, str(report)
    *rows, loss = report.rows
    assert {row.verdict for row in rows} <= RIGHT, str(report)
    assert loss.verdict == "idealised", str(report)
    assert has(loss, "idealised", constant=1e-7)


@given(seed=SEEDS, likely=st.floats(1e-8, 5e-7), n=st.integers(1, 5))
@settings(max_examples=examples(25))
def test_with_the_1e_07_the_loss_of_saturated_scores_is_idealised(seed, likely, n):
    rng = np.random.RandomState(seed)
    scores, t = rng.randn(n, 3), np.eye(3)[rng.randint(3, size=n)]
    others = np.sum(np.exp(scores) * (1 - t), axis=1, keepdims=True)
    scores = np.where(t == 1, np.log(others * likely / (1 - likely)), scores)
    (row,) = sa.check_layer(book.BookLoss(), scores, t).rows
    assert row.verdict == "idealised", row
    assert has(row, "idealised", constant=1e-7)
    assert row.max_rel > 0.16


# -------------------- a broken version of each is found --------------------


def averaged(g, residuals):
    dx, dW, db = manual.affine_backward(g, residuals)
    return dx, dW, db / len(g)


def no_transpose(g, residuals):
    x, W = residuals
    return np.dot(g, W), np.dot(x.T, g)


BROKEN = {
    "add": (lambda g, r: (g, -g), {"y"}),
    "multiply": (lambda g, r: (g * r[0], g * r[1]), {"x", "y"}),
    "branch": (lambda g, r: g[0], {"x"}),
    "repeat": (lambda g, r: np.mean(g, axis=r[0], keepdims=True), {"x"}),
    "sum": (lambda g, r: np.repeat(g, r[0], axis=r[1]) / r[0], {"x"}),
    "matmul": (no_transpose, {"x"}),
    "affine": (averaged, {"b"}),
    "sigmoid": (lambda g, r: g * r[0], {"x"}),
    "softmax": (lambda g, r: g * r[0], {"scores"}),
    "cross_entropy": (lambda g, r: -g * r[1] / r[0], {"y"}),
    "softmax_with_loss": (lambda g, r: g * (r[0] - r[1]), {"scores"}),
}


@pytest.mark.usefixtures("verdicts_alone")
@pytest.mark.parametrize("node", NODES)
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_a_broken_node_is_found_and_named(node, seed):
    broken, names = BROKEN[node]
    inputs = book.pairs(np.random.RandomState(seed), 5, 3, 3)[node]
    report = check_node(node, inputs, broken)
    assert wrong_rows(report) == names, str(report)
    with pytest.raises(AssertionError, match=r"(is|are) wrong|is missing"):
        report.raise_if_wrong()


@pytest.mark.usefixtures("verdicts_alone")
@pytest.mark.parametrize("name", ["W1", "b1", "W2", "b2"])
def test_a_broken_part_of_the_whole_gradient_is_found(name):
    def broken(params, x, t):
        loss, grads = manual.value_and_grad(params, x, t)
        return loss, grads | {name: grads[name] * 1.001}

    x, t = sa.load_data()
    params = sa.init_params(2, 10, 3, rng=0)
    report = sa.check_gradient(sa.loss, broken, params, x, t)
    assert wrong_rows(report) == {name}, str(report)


def scaled_gradient(index):
    class Broken(book.Affine):
        def backward(self, dout):
            dx = super().backward(dout)
            self.grads[index][...] *= 2
            return dx

    return Broken


class BrokenInput(book.Affine):
    def backward(self, dout):
        return -super().backward(dout)


class BrokenSigmoid(book.Sigmoid):
    def backward(self, dout):
        return dout * self.y


class BrokenLoss(book.SoftmaxWithLoss):
    def backward(self, dout=1):
        return dout * (self.y - self.t)


@pytest.mark.usefixtures("verdicts_alone")
@pytest.mark.parametrize(
    ("place", "broken", "row"),
    [
        (0, scaled_gradient(0), "layers[0].params[0]"),
        (0, scaled_gradient(1), "layers[0].params[1]"),
        (2, scaled_gradient(0), "layers[2].params[0]"),
        (2, BrokenInput, "layers[2].x"),
        (1, BrokenSigmoid, "layers[1].x"),
        ("loss", BrokenLoss, "loss_layer.scores"),
    ],
    ids=lambda value: getattr(value, "__name__", str(value)),
)
def test_a_broken_layer_of_the_network_is_found_and_no_other(place, broken, row):
    net, x, t = small_net(0, (6, 3, 3))
    if place == "loss":
        net.loss_layer = broken()
    else:
        net.layers[place].__class__ = broken
    report = sa.check_network(net, x, t)
    assert wrong_rows(report) == {row}, str(report)
    layer = row.rpartition(".")[0]
    assert has(report, "first_wrong", name=f"{layer} ({broken.__name__})")


@pytest.mark.usefixtures("verdicts_alone")
def test_a_factor_that_no_constant_explains_is_not_idealised():
    class Other(book.BookLoss):
        def backward(self, dout=1):
            return super().backward(dout) * (1 + 1e-3)

    scores, t = book.pairs(np.random.RandomState(0), 5, 3, 3)["softmax_with_loss"]
    (row,) = sa.check_layer(Other(), scores, t).rows
    assert row.verdict == "wrong", row
