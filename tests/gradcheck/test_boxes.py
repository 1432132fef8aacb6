"""Boxes that other people's NumPy code takes for arrays: values and derivatives as NumPy's own."""

import autograd.numpy as anp
import numpy as np
import pytest
from autograd import grad
from autograd.numpy.numpy_boxes import ArrayBox
from autograd.tracer import isbox

from spiral_autograd.gradcheck.reference.boxes import NumpyBox
from spiral_autograd.recording import Call, record

A = np.random.default_rng(0).uniform(0.5, 2.0, (3, 4))
B = np.random.default_rng(1).uniform(0.5, 2.0, (4, 2))
WEIGHTS = np.random.default_rng(2).standard_normal(60)


def weighed(out):
    """A scalar in which every entry of `out` counts by its own weight."""
    flat = out.reshape(-1)
    return (flat * WEIGHTS[: flat.shape[0]]).sum()


def gradient(function, *arrays):
    """Return the value and the gradients of `weighed(function(*arrays))`, traced with our boxes."""
    met = []

    def loss(values, _):
        out = function(*values)
        met.append(isbox(out))
        return weighed(out)

    recording = record(loss, list(arrays), [], box_type=NumpyBox)
    grads = [np.asarray(g.value if isinstance(g, Call) else g) for g in recording.grads]
    return met[0], grads


def differences(function, *arrays):
    grads = []
    for k, array in enumerate(arrays):
        grad = np.zeros(array.shape)
        for index in np.ndindex(array.shape):
            up, down = array.copy(), array.copy()
            up[index] += 1e-6
            down[index] -= 1e-6
            sides = [weighed(function(*arrays[:k], a, *arrays[k + 1 :])) for a in (up, down)]
            grad[index] = (sides[0] - sides[1]) / 2e-6
        grads.append(grad)
    return grads


def assign(x):
    out = x.copy()
    out[1] = 3.0 * x[0]
    out[:, 2] *= 2
    out[0, 0] = 7.0
    return out


def assign_by_mask(x):
    out = x.copy()
    out[x < 1] = 0.1 * x[x < 1]
    return out


def fill_like(x):
    out = np.zeros_like(x)
    for i in range(x.shape[0]):
        out[i] = x[i] * x[i - 1]
    return out


def in_place(x):
    y = x * 1.0
    y += x
    y -= x**2
    y *= x
    y /= 2 + x
    return y


def two_names(x):
    y = x * 1.0
    z = y
    z += x
    return y * 3  # y is z, as of arrays


def scatter(x):
    out = x.copy()
    out[np.array([0, 2]), np.array([1, 3])] = x[1, :2]
    return out


ONE = {
    "sum": lambda x: np.sum(x, axis=1, keepdims=True),
    "mean": lambda x: np.mean(x, axis=0),
    "method sum": lambda x: x.sum(axis=0),
    "method mean": lambda x: x.mean(axis=1),
    "max": lambda x: x.max(axis=1),
    "var": lambda x: np.var(x, axis=0),
    "std": lambda x: x.std(axis=0),
    "exp": lambda x: np.exp(x),
    "logaddexp": lambda x: np.logaddexp(0, x),
    "maximum": lambda x: np.maximum(1.0, x),
    "where": lambda x: np.where(x > 1, x, x**2),
    "clip": lambda x: np.clip(x, 0.8, 1.5),
    "clip by keyword": lambda x: np.clip(x, 0.8, None),
    "copy": lambda x: np.copy(x) * x,
    "method copy": lambda x: x.copy() * x,
    "transpose": lambda x: np.transpose(x) * 2,
    "T": lambda x: x.T * 2,
    "method transpose": lambda x: x.reshape(3, 2, 2).transpose(2, 0, 1) * 2,
    "method transpose by tuple": lambda x: x.reshape(3, 2, 2).transpose((0, 2, 1)) * 2,
    "method transpose by None": lambda x: x.transpose(None) * x.T,
    "reshape": lambda x: np.reshape(x, (2, -1)) * 2,
    "ravel": lambda x: np.ravel(x) * 2,
    "flatten": lambda x: x.flatten() ** 2,
    "astype": lambda x: x.astype(float) * x,
    "astype the same": lambda x: x.astype("float64") ** 2,
    "pad": lambda x: np.pad(x, ((1, 0), (0, 2))) * 3,
    "concatenate": lambda x: np.concatenate([x, x**2], axis=1),
    "stack": lambda x: np.stack([x, 2 * x]),
    "expand_dims": lambda x: np.expand_dims(x, 0) * 2,
    "squeeze": lambda x: np.squeeze(x[:1]) * 2,
    "tile": lambda x: np.tile(x, (1, 2)),
    "cumsum": lambda x: np.cumsum(x, axis=1),
    "norm": lambda x: np.linalg.norm(x) * np.ones(1),
    "norm of rows": lambda x: np.linalg.norm(x, axis=1),
    "norm of rows, kept": lambda x: x / np.linalg.norm(x, axis=1, keepdims=True),
    "norm of one row, kept": lambda x: x[:1] / np.linalg.norm(x[:1], axis=1, keepdims=True),
    "norm of columns, by order": lambda x: np.linalg.norm(x, 2, axis=0),
    "norm of a vector, by order": lambda x: np.linalg.norm(x[0], 2) * x,
    "Frobenius norm of matrices": lambda x: np.linalg.norm(x.reshape(2, 3, 2), axis=(1, 2)),
    "norm of absolute values": lambda x: np.linalg.norm(x, 1, axis=1, keepdims=True) * x,
    "norm of the largest": lambda x: np.linalg.norm(x, np.inf, axis=1),
    "einsum": lambda x: np.einsum("ij,kj->ik", x, x),
    "tensordot": lambda x: np.tensordot(x, x, axes=([1], [1])),
    "zeros_like": lambda x: x + np.zeros_like(x),
    "ones_like": lambda x: x * np.ones_like(x),
    "full_like": lambda x: x * np.full_like(x, 3.0),
    "shape": lambda x: x * np.shape(x)[0] * np.ndim(x) * np.size(x) * x.nbytes,
    "argmax": lambda x: x[np.arange(3), np.argmax(x, axis=1)],
    "index": lambda x: x[1:, ::2] * 2,
    "mask": lambda x: x * (x > 1),
    "and": lambda x: x * ((x > 0.8) & (x < 1.5)),
    "or": lambda x: x * ((x < 0.8) | (x > 1.5)),
    "not": lambda x: x * ~(x > 1),
    "pos": lambda x: +x * 2,
    "assign": assign,
    "assign by mask": assign_by_mask,
    "fill_like": fill_like,
    "in place": in_place,
    "two names": two_names,
    "scatter": scatter,
    "set a scalar into a broadcast row": lambda x: assign_row(x),
}


def assign_row(x):
    out = np.zeros_like(x)
    out[1] = x[0, 0]
    return out


TWO = {
    "matmul": lambda a, b: a @ b,
    "dot": lambda a, b: np.dot(a, b),
    "method dot": lambda a, b: a.dot(b),
    "a column": lambda a, b: a @ b[:, :1] + b[:1],
    "outer": lambda a, b: np.outer(a[0], b[:, 0]),
    "multiply": lambda a, b: np.multiply(a[:, :2], b[:3]),
}


@pytest.mark.parametrize("name", ONE)
def test_numpy_code_of_one_array(name):
    check(ONE[name], A)


@pytest.mark.parametrize("name", TWO)
def test_numpy_code_of_two_arrays(name):
    check(TWO[name], A, B)


def check(function, *arrays):
    before = [array.copy() for array in arrays]
    met, grads = gradient(function, *arrays)
    assert met, "the box was lost on the way"
    for got, expected in zip(grads, differences(function, *arrays), strict=True):
        assert np.allclose(got, expected, rtol=1e-6, atol=1e-6)
    assert all(np.array_equal(a, b) for a, b in zip(arrays, before, strict=True))


def test_values_are_those_of_numpy():
    for function in ONE.values():
        values = []

        def loss(arrays, _, function=function, values=values):
            out = function(*arrays)
            plain = out
            while isbox(plain):
                plain = plain._value
            values.append(plain)
            return weighed(out)

        record(loss, [A], [], box_type=NumpyBox)
        expected = function(A.copy())
        assert np.array_equal(values[0], expected)
        assert np.shape(values[0]) == np.shape(expected)


def run(function, array=A):
    """Return the gradient of a scalar function of one array."""
    (g,) = record(lambda values, _: function(*values), [array], [], box_type=NumpyBox).grads
    return np.asarray(g.value if isinstance(g, Call) else g)


def test_a_copy_is_another_array():
    def forward(x):
        y = x.copy()
        y[0] = 0.0
        return weighed(x * 1.0)

    assert np.allclose(run(forward).ravel(), WEIGHTS[:12])


def test_values_decide_branches_and_counts():
    def forward(x):
        assert bool(x[0, 0] > 0)
        assert int(np.sum(x > 0)) == 12
        assert [10, 20, 30][np.argmax(x[0, :3])] in (10, 20, 30)
        return weighed(x) if x.sum() > 0 else weighed(-x)

    assert np.allclose(run(forward).ravel(), WEIGHTS[:12])


def test_a_float_that_would_be_cut_off_from_its_derivative_is_refused():
    with pytest.raises(Exception, match="float"):
        run(lambda x: float(x[0, 0]) * x.sum())


def test_what_autograd_has_not_is_refused():
    with pytest.raises(TypeError, match="no implementation found"):
        run(lambda x: np.sum(np.lib.stride_tricks.sliding_window_view(x, 2, axis=0)))
    with pytest.raises(NotImplementedError, match="VJP of unwrap"):
        run(lambda x: np.sum(np.unwrap(x)))
    with pytest.raises(NotImplementedError, match="zeros"):
        run(lambda x: np.sum(np.pad(x, 1, constant_values=2.0)))
    with pytest.raises(NotImplementedError, match="zeros"):
        run(lambda x: np.sum(np.pad(x, 1, mode="edge")))


def test_what_has_no_derivative_is_plain():
    def forward(x):
        assert not isbox(np.argmax(x))
        assert not isbox(np.argsort(x, axis=0))
        assert not isbox(x.astype(int))
        assert not isbox(np.zeros_like(x > 1))
        assert not isbox(np.ones_like(x, dtype=int))
        assert np.result_type(x, np.float32(1)) == np.float64
        assert x.flags.c_contiguous
        return x.sum()

    run(forward)


def test_numpy_itself_is_not_patched():
    before = {name: getattr(np, name) for name in ("sum", "zeros", "copy", "clip", "pad")}
    run(lambda x: np.sum(np.clip(np.copy(x), 0, 1)))
    assert all(getattr(np, name) is function for name, function in before.items())
    assert isinstance(np.sum(A), float)


def test_autograds_own_boxes_stay_as_they_are():
    kinds = []
    grad(lambda x: (kinds.append(type(x)), anp.sum(x))[1])(A)
    assert kinds == [ArrayBox]
    assert not hasattr(ArrayBox, "__setitem__")
    assert not hasattr(ArrayBox, "__array_function__")
