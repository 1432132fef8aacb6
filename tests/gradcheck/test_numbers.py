"""What a factor comes from: the number in the reader's own line, a length, or either."""

import numpy as np
import pytest
from findings import has

import spiral_autograd as sa

RNG = np.random.default_rng(6)


def fit(w, x, t):
    return np.mean((x @ w - t) ** 2)


def checked(times, shape):
    """Return the row of a gradient with that factor, for an x of that shape."""
    x, t = RNG.normal(size=shape), RNG.normal(size=shape[0])
    right = lambda w, x, t: 2 / len(x) * x.T @ (x @ w - t)  # noqa: E731
    times = eval(f"lambda n, d: {times}")  # whose line cannot be read
    known = {"times": times, "right": right}
    gradient = eval("lambda w, x, t: times(*x.shape) * right(w, x, t)", known)
    return sa.check_gradient(fit, gradient, RNG.normal(size=shape[1]), x, t).rows[0]


def fourfold(w, x, t):
    return 4.0 * x.T @ (x @ w - t) / len(x)


def test_the_number_in_the_line_is_said_before_a_length_that_is_equal():
    x, t = RNG.normal(size=(2, 3)), RNG.normal(size=2)
    row = sa.check_gradient(fit, fourfold, RNG.normal(size=3), x, t).rows[0]
    assert has(row, "right_with", statement="return 2.0 * x.T @ (x @ w - t) / len(x)")
    x, t = RNG.normal(size=(4, 3)), RNG.normal(size=4)
    product = lambda w, x: (x @ w, (w, x))  # noqa: E731

    def backward(d, cache):
        dw = 4.0 * cache[1].T @ d
        return dw, d @ cache[0].T

    row = sa.check_backward(product, backward, RNG.normal(size=(3, 2)), x).rows[0]
    assert has(row, "right_with", statement="dw = cache[1].T @ d")


def test_the_number_in_the_line_is_said_before_a_mean_that_is_not_taken():
    x, t = RNG.normal(size=(4, 3)), RNG.normal(size=4)

    def loss(w, x, t):
        return 0.5 * np.mean((x @ w - t) ** 2)

    def gradient(w, x, t):
        return 4.0 / len(x) * x.T @ (x @ w - t)

    row = sa.check_gradient(loss, gradient, RNG.normal(size=3), x, t).rows[0]
    assert has(row, "right_with", statement="return 1 / len(x) * x.T @ (x @ w - t)")


@pytest.mark.usefixtures("no_lines")
@pytest.mark.parametrize(
    ("times", "shape", "kind"),
    [
        ("n", (7, 3), "mean_missing"),
        ("n / d", (7, 3), "ratio"),
        ("n / (n - 1)", (7, 3), "one_less"),
        ("n / d", (4, 3), "either_way"),
    ],
)
def test_a_factor_is_told_from_lengths(times, shape, kind):
    assert has(checked(times, shape), kind)


def test_a_square_batch_is_said_to_tell_not_enough():
    x, w = RNG.normal(size=(5, 5)), RNG.normal(size=(5, 2))
    backward = lambda d, c: (d @ c[1].T, c[0].T @ d / len(d))  # noqa: E731
    row = sa.check_backward(lambda x, w: (x @ w, (x, w)), backward, x, w).rows[1]
    assert has(row, "averaged_over", n=5.0)
    assert has(row, "batch_size")  # as another batch has shown


def test_a_mean_is_claimed_only_where_there_is_a_sum():
    def standardised(x):
        return np.tanh(x) + x.sum(axis=0), x

    backward = lambda d, x: d * (1 - np.tanh(x) ** 2) / len(x) + d.sum(0)  # noqa: E731
    row = sa.check_backward(standardised, backward, RNG.normal(size=(5, 3))).rows[0]
    assert has(row, "right_with"), row.why
    assert not has(row, "averaged_over")


def test_a_count_that_several_readings_of_a_line_give_is_said_as_a_number():
    def of_groups(x):
        g = x.reshape(len(x), 2, -1)
        means = (g**2 - g).mean(axis=-1, keepdims=True)
        return (g + means).reshape(x.shape), x

    def backward(dout, x):
        n, channels, height, width = x.shape
        m = height * width  # of a group it is half of the channels times that
        d, g = (some.reshape(n, channels // 2, -1) for some in (dout, x))
        s = d.sum(axis=-1, keepdims=True)
        return (d - s / m + 2 * g * s / m).reshape(x.shape)

    report = sa.check_backward(of_groups, backward, RNG.normal(size=(2, 4, 3, 2)))
    assert has(report.rows[0], "right_with", statement="m = 12"), str(report)
