"""A reason is claimed only where it holds at a second point too: a coincidence is none."""

import numpy as np
import pytest
from findings import has

import spiral_autograd as sa

RNG = np.random.default_rng(5)
X = RNG.normal(size=(4, 5))
WHOLE = np.array([[1.0, -2.0, 3.0], [0.0, 2.0, -1.0], [-3.0, 1.0, 2.0]])
SYMMETRIC = np.array([[1.0, 2.0, 3.0], [2.0, 4.0, 5.0], [3.0, 5.0, 6.0]])


def affine(x, w, b):
    return x @ w + b, (x, w, b)


def relu(x):
    return np.maximum(x, 0), x


def affine_with(make):
    """Return a backward pass with another gradient of b."""
    return lambda d, cache: (d @ cache[1].T, cache[0].T @ d, make(d, *cache))


# Mistakes without a simple reason, at values where one seems to fit.
COINCIDENCES = {
    "a cube of ones is no constant": (
        affine,
        affine_with(lambda d, x, w, b: d.sum(0) + b**3),
        (X, RNG.normal(size=(5, 2)), np.ones(2)),
    ),
    "one example, whose gradients are all negative": (
        affine,
        affine_with(lambda d, x, w, b: np.abs(d).sum(0)),
        (X[:1], RNG.normal(size=(5, 2)), np.ones(2)),
    ),
    "rows of equal sums": (
        affine,
        lambda d, c: ((d + 1) @ c[1].T, c[0].T @ d, d.sum(0)),
        (SYMMETRIC, np.eye(3) + 1, np.arange(3.0)),
    ),
    "right for whole numbers, but for the kink": (relu, lambda d, x: d * (x > 0.5), (WHOLE,)),
    "zero for whole numbers": (relu, lambda d, x: d * ((x > 0) & (x < 1)), (WHOLE,)),
    "a triangle": (relu, lambda d, x: np.tril(d * (x > 0)), (WHOLE,)),
    "wrong but where it is zero": (relu, lambda d, x: d * (x > 0) + np.sin(x), (WHOLE,)),
}
CLAIMS = {"factor", "term", "value", "unwritten", "sum", "layout"}


@pytest.mark.parametrize("name", COINCIDENCES)
def test_a_coincidence_is_no_reason(name):
    forward, backward, inputs = COINCIDENCES[name]
    report = sa.check_backward(forward, backward, *inputs)
    wrong = [row for row in report.rows if row.verdict == "wrong"]
    assert wrong
    assert not {row.rule for row in wrong} & CLAIMS


def test_the_part_of_a_gradient_that_is_wrong_is_the_same_elsewhere():
    def by(mask):
        backward = eval("lambda d, x: np.where(mask(x), d, 0.01 * d)", {"np": np, "mask": mask})
        return sa.check_backward(relu, backward, X).rows[0]  # whose line cannot be read

    kinds = [f.kind for f in by(lambda x: x > 0).findings for f in f.parts()]
    assert kinds[:2] == ["part", "where"]
    assert by(lambda x: (x > 0) & (np.abs(x) < np.abs(x).mean())).rule is None


def test_a_norm_that_is_one_by_division_is_no_factor():
    def loss(w, x):
        return np.sum((x @ w) ** 2)

    def normalised(w, x):
        gradient = 2 * x.T @ (x @ w)
        return gradient / np.linalg.norm(gradient)

    report = sa.check_gradient(loss, normalised, RNG.normal(size=5), X)
    assert report.rows[0].verdict == "wrong"
    assert report.rows[0].rule != "factor"


def test_arguments_are_swapped_only_if_each_has_the_gradient_of_the_other():
    def product(a, b):
        return a * b, (a, b)

    a, b = X[0], X[1]
    both = sa.check_backward(product, lambda d, c: (d * c[0], d * c[1]), a, b)
    assert [row.findings[-1].kind for row in both.rows] == ["swapped", "swapped"]
    one = sa.check_backward(product, lambda d, c: (d * c[0], d * np.sin(c[1])), a, b)
    assert not any(f.kind == "swapped" for row in one.rows for f in row.findings)


def svm(w, x, y):
    """Return a loss and, from the same function, its gradient, where the counts have no sign."""
    rows = np.arange(len(x))
    scores = x @ w
    margins = np.maximum(0, scores - scores[rows, y][:, None] + 1)
    margins[rows, y] = 0
    mask = np.zeros(margins.shape)
    mask[margins > 0] = 1
    mask[rows, y] = mask.sum(axis=1)
    return margins.sum() / len(x), x.T @ mask / len(x)


def test_a_gradient_from_the_function_of_the_loss_is_no_evidence_of_itself():
    w, x, y = RNG.normal(size=(4, 3)), RNG.normal(size=(6, 4)), np.array([0, 1, 2, 1, 0, 2])
    report = sa.check_gradient(lambda w, *d: svm(w, *d)[0], lambda w, *d: svm(w, *d)[1], w, x, y)
    right = {"statement": "mask[rows, y] = -mask.sum(axis=1)"}
    assert has(report.rows[0], "right_with", **right), str(report)
