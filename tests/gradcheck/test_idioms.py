"""Idioms that are taken for one another: the line that is meant is said."""

import numpy as np
import pytest
from findings import parts

import spiral_autograd as sa

rng = np.random.default_rng(5)
X, ORDERED = rng.normal(size=(4, 3)), rng.normal(size=6)


def running(x):
    return np.cumsum(x, axis=0), None


def running_backward(dout, cache):
    dx = np.cumsum(dout, axis=0)
    return dx


def sorted_squares(x):
    order = np.argsort(x)
    return x[order] ** 2 * np.arange(1.0, 7.0), (x, order)


def sorted_squares_backward(dout, cache):
    x, order = cache
    ds = dout * 2 * x[order] * np.arange(1.0, 7.0)
    dx = ds[order]
    return dx


def filtered(x):
    spectrum = np.fft.fft(np.array([1.0, 2.0, 0.5]))
    return np.fft.ifft(np.fft.fft(x, axis=1) * spectrum, axis=1).real, spectrum


def filtered_backward(dout, cache):
    spectrum = cache
    return np.fft.ifft(np.fft.fft(dout, axis=1) * spectrum, axis=1).real


def padded(x):
    return np.pad(x, ((0, 0), (2, 0))) ** 2, np.pad(x, ((0, 0), (2, 0)))


def padded_backward(dout, cache):
    dxp = 2 * dout * cache
    return dxp[:, :-2]


def decayed(x, a):
    return np.exp(x / a), (x, a)


def decayed_backward(dout, cache):
    x, a = cache
    dx = dout * np.exp(x) / a / a
    return dx, -np.sum(dout * np.exp(x / a) * x) / a**2


def steps(x):
    h = np.zeros_like(x)
    for t in range(len(x)):
        h[t] = np.tanh(x[t] + (h[t - 1] if t > 0 else 0))
    return h, (x, h)


def weighted(x, w):
    return x * w[:, None], (x, w)


def weighted_backward(dout, cache):
    x, w = cache  # noqa: RUF059
    return dout + 0.0, np.sum(dout * x, axis=1)


def exchanged(q, k, v):
    return q * k**2 * v**3, (q, k, v)


def exchanged_backward(dout, cache):
    q, k, v = cache
    return dout * k**2 * v**3, dout * 2 * k * q * v**3, dout * 3 * v**2 * k * q**2


IDIOMS = {
    "a sum that runs backwards": (running, running_backward, (X,), "[::-1]"),
    "the inverse of a permutation": (
        sorted_squares,
        sorted_squares_backward,
        (ORDERED,),
        "argsort",
    ),
    "conjugate": (filtered, filtered_backward, (X,), "np.conj(spectrum)"),
    "the other end": (padded, padded_backward, (X,), "dxp[:, 2:]"),
    "inside of a function": (decayed, decayed_backward, (X, np.array(1.5)), "np.exp(x / a)"),
    "a factor for each row": (weighted, weighted_backward, (X, np.ones(4) * 2.5), "w[:, None]"),
    "two exchanged": (exchanged, exchanged_backward, (X, X + 3, X - 3), "q * k ** 2"),
}


@pytest.mark.parametrize("name", IDIOMS)
def test_the_line_that_is_meant_is_said(name):
    forward, backward, inputs, wanted = IDIOMS[name]
    report = sa.check_backward(forward, backward, *inputs)
    findings = [what for row in report.rows for what in parts(row)]
    said = [what.fields["statement"] for what in findings if what.kind == "right_with"]
    assert any(wanted in statement for statement in said), str(report)


def test_an_index_before_the_first_is_zero():
    report = sa.check_backward(steps, _wrapping_backward, X)
    assert "if t > 0 else np.zeros_like" in str(report).replace("\n    ", " ")


def _wrapping_backward(dout, cache):
    x, h = cache
    dx, after = np.zeros_like(x), np.zeros_like(x[0])
    for t in reversed(range(len(x))):
        before = h[t - 1]
        new = np.tanh(x[t] + before)
        dx[t] = (dout[t] + after) * (1 - new**2)
        after = dx[t]
    return dx
