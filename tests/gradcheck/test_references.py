"""Whatever the reference, it is believed only where it is right."""

from contextlib import contextmanager

import numpy as np
import pytest
from findings import has
from layers import Elementwise

import spiral_autograd as sa
from spiral_autograd.gradcheck.reference import reference as references
from spiral_autograd.gradcheck.subject.adapter import Terms
from spiral_autograd.gradcheck.subject.layer import Layer
from spiral_autograd.gradcheck.subject.session import untouched


def x_of(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape)


@contextmanager
def prepared(layer, *inputs):
    """Yield the layer as a subject, with an upstream gradient of its own."""
    with untouched(layer, inputs) as session:
        subject, rng = Layer(layer, inputs, Terms(session)).subject(), np.random.default_rng(1)
        ups = [rng.normal(size=np.shape(out)) for out in subject.outputs]
        yield references.at_these_values(subject, ups), rng


def believed(reference, subject, rng):
    return references.agrees_with_differences(subject, reference, rng)


# -------------------- complex step --------------------


def test_a_cast_that_drops_the_imaginary_part_is_an_error():
    def forward(x):
        out = np.empty(x.shape)
        out[...] = x * x
        return out

    layer = Elementwise(forward, lambda x: 2 * x)
    with prepared(layer, x_of(2, 3)) as (subject, _), pytest.raises(sa.CheckError):
        references.by_complex_step(subject)


@pytest.mark.parametrize(
    "forward",
    [
        lambda x: x * np.abs(x),
        lambda x: x * x.var(),
        lambda x: x * np.linalg.norm(x),
        lambda x: x * np.real(x),
    ],
    ids=["abs", "var", "norm", "real"],
)
def test_what_is_not_analytic_is_not_believed(forward):
    with prepared(Elementwise(forward, lambda x: 2 * x), x_of(2, 3)) as (subject, rng):
        reference = references.by_complex_step(subject)
        assert not believed(reference, subject, rng)


def test_what_carries_complex_numbers_is_believed():
    layer = Elementwise(lambda x: np.tanh(x) * x.sum(), lambda x: x)
    with prepared(layer, x_of(2, 3)) as (subject, rng):
        reference = references.by_complex_step(subject)
        assert believed(reference, subject, rng)
        exact = references.by_autograd(subject)
        np.testing.assert_allclose(reference.grads[0], exact.grads[0], rtol=1e-12)


def test_what_does_not_carry_them_is_refused():
    refused = pytest.raises(references.CheckError, match="does not carry")
    with prepared(Elementwise(np.abs, np.sign), x_of(2, 3)) as (subject, _), refused:
        references.by_complex_step(subject)


# -------------------- autograd --------------------


class Closure:
    """Its forward pass finds W in a closure, which a deep copy leaves as it is."""

    def __init__(self, W):
        self.W, self.dW = W, None
        self.product = lambda x: x @ W

    def forward(self, x):
        self.x = x
        return self.product(x)

    def backward(self, dout):
        self.dW = self.x.T @ dout
        return dout @ self.W.T


class EarlyView:
    """Takes a view of its buffer before the buffer is filled."""

    def forward(self, x):
        self.x = x
        buffer = np.empty_like(x)
        first = buffer[0]
        buffer[...] = x * x
        return first * 1.0

    def backward(self, dout):
        dx = np.zeros_like(self.x)
        dx[0] = 2 * self.x[0] * dout
        return dx


def patched(W):
    """Return a layer whose forward pass is a function put into the instance."""

    class Patched:
        def forward(self, x):
            raise NotImplementedError

        def backward(self, dout):
            self.dW = x_at[0].T @ dout
            return dout @ self.W.T

    layer, x_at = Patched(), [None]
    layer.W, layer.dW = W, np.zeros_like(W)

    def forward(x):
        x_at[0] = x
        return x @ layer.W

    layer.forward = forward
    return layer


def rows_normalized():
    def forward(x):
        return np.linalg.norm(x, axis=1, keepdims=True)

    return Elementwise(forward, lambda x: x / forward(x))


MISLEADING = {
    "closure": lambda: (Closure(x_of(3, 2)), x_of(4, 3, seed=1)),
    "early view": lambda: (EarlyView(), x_of(4, 3)),
    "patched instance": lambda: (patched(x_of(3, 2)), x_of(4, 3, seed=1)),
    "norm with keepdims": lambda: (rows_normalized(), x_of(4, 3)),
}


@pytest.mark.parametrize("name", MISLEADING)
def test_code_that_misleads_autograd_is_checked_all_the_same(name):
    report = sa.check_layer(*MISLEADING[name]())
    assert report.ok, str(report)
    assert all(row.verdict in ("exact", "match") for row in report.rows), str(report)
    assert all(row.scale > 0 for row in report.rows)


@pytest.mark.parametrize("name", MISLEADING)
def test_plain_tracing_of_it_is_not_believed(name):
    with prepared(*MISLEADING[name]()) as (subject, rng):
        try:
            reference = references.by_autograd(subject)
        except Exception:
            return  # an error is not believed either
        right = all(
            np.allclose(a, b, rtol=1e-6)
            for a, b in zip(
                reference.grads, references.by_differences(subject, 10.0).grads, strict=True
            )
        )
        assert believed(reference, subject, rng) == right


def test_a_traced_output_must_be_the_plain_one():
    calls = []

    class Fickle:
        def forward(self, x):
            calls.append(type(x))
            return x * (2.0 if x.__class__ is np.ndarray else 3.0)

        def backward(self, dout):
            return 2.0 * dout

    refused = pytest.raises(references.CheckError, match="another output")
    with prepared(Fickle(), x_of(2, 2)) as (subject, _), refused:
        references.by_autograd(subject)
    report = sa.check_layer(Fickle(), x_of(2, 2))
    assert report.ok
    assert report.reference != "autograd"


# -------------------- which one, and how sharp --------------------


class ByMath:
    """A forward pass through Python's own floats: neither boxes nor complex numbers pass."""

    def forward(self, x):
        import math

        self.y = np.array([math.tanh(v) for v in x.ravel()]).reshape(x.shape)
        return self.y

    def backward(self, dout):
        return dout * (1 - self.y**2)


def test_the_last_reference_is_central_differences():
    report = sa.check_layer(ByMath(), x_of(3, 2))
    assert report.ok
    assert report.reference == "central differences"
    assert "1e-07" in str(report)


def test_what_differences_cannot_tell_is_no_match():
    class Rounded(ByMath):
        def forward(self, x):
            return super().forward(x).astype(np.float32).astype(float)

    report = sa.check_layer(Rounded(), x_of(3, 2))
    assert report.reference == "central differences"
    assert [row.verdict for row in report.rows] == ["approximate"], str(report)
    assert has(report.rows[0], "imprecise")


@pytest.mark.parametrize("dtype", [np.float32, "float32", np.float64])
def test_a_ufunc_computes_in_the_dtype_that_it_is_given(dtype):
    layer = Elementwise(lambda v: np.exp(-v, dtype=dtype), lambda v: -np.exp(-v, dtype=dtype))
    report = sa.check_layer(layer, x_of(3, 2))
    assert report.ok, str(report)
    assert report.reference == "autograd"


def test_large_arrays_are_measured_in_random_directions_only():
    layer, x = ByMath(), x_of(200, 100)
    report = sa.check_layer(layer, x, budget=1.0)
    assert report.ok
    assert report.reference == "central differences"
    layer.backward = lambda dout: 1.01 * dout * (1 - layer.y**2)
    wrong = sa.check_layer(layer, x, budget=1.0)
    assert not wrong.ok
    assert has(wrong.rows[0], "directions_only")


@pytest.mark.parametrize("forward", [np.abs, lambda x: np.maximum(0, x)], ids=["abs", "relu"])
def test_a_kink_does_not_cost_the_reference(forward):
    x = x_of(3, 4)
    x[1] = 0.0
    layer = Elementwise(forward, np.sign if forward is np.abs else (lambda x: 1.0 * (x > 0)))
    report = sa.check_layer(layer, x)
    assert report.ok, str(report)
    assert report.reference == "autograd"


def test_differences_take_a_shorter_step_at_the_edge_of_the_domain():
    class Root:
        def forward(self, x):
            self.y = np.array([float(v) ** 0.5 for v in x + 1e-6])
            if np.isnan(self.y).any():
                raise ValueError("negative")
            return self.y

        def backward(self, dout):
            return dout / (2 * self.y)

    report = sa.check_layer(Root(), np.array([1.0, 2e-6]))
    assert all(row.max_rel < 1e-3 for row in report.rows), str(report)


def test_a_gradient_of_zero_is_rounding_and_not_a_mistake():
    class Shifted:
        """A bias before a subtracted mean has no effect."""

        def __init__(self, b):
            self.b, self.db = b, None

        def forward(self, x):
            z = x + self.b
            return (z - z.mean(axis=0)) ** 3

        def backward(self, dout):
            raise NotImplementedError

    class ByHand(Shifted):
        def forward(self, x):
            z = x + self.b
            self.c = z - z.mean(axis=0)
            return self.c**3

        def backward(self, dout):
            g = 3 * self.c**2 * dout
            dz = g - g.mean(axis=0)
            self.db = dz.sum(axis=0)
            return dz

    report = sa.check_layer(ByHand(1e3 * x_of(3)), x_of(50, 3, seed=2))
    assert report.ok, str(report)
    assert [row.verdict in ("exact", "match") for row in report.rows] == [True, True], str(report)
