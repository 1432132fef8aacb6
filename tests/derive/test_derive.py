import functools
import keyword
import threading
import warnings
from fractions import Fraction
from types import SimpleNamespace

import autograd
import autograd.numpy as anp
import numpy as np
import pytest
from autograd.extend import defvjp, primitive
from autograd.numpy.numpy_boxes import ArrayBox
from autograd.tracer import trace_stack
from effort import examples
from hypothesis import given, settings
from hypothesis import strategies as st
from witness import frozen

import spiral_autograd as sa
from spiral_autograd.derive import (
    DerivationError,
    DerivationWarning,
    cached,
    derive,
    rules,
    writer,
)
from spiral_autograd.pytree import FlatLayout, leaves, named_leaves, tree_map

R = np.random.default_rng(3)
N = 12
X, Y, T = R.standard_normal((N, 4)), R.standard_normal((N, 3)), R.integers(3, size=N)
T[:3] = [0, 1, 2]
W, B = R.standard_normal((4, 5)), R.standard_normal(5)
V, C = R.standard_normal((5, 3)), R.standard_normal(3)
U = 0.3 * R.standard_normal((5, 5))
P = {"W": W, "b": B, "V": V, "c": C}
EYE = 5.0 * np.eye(4)
LARGE = R.standard_normal((20, 30))

# -------------------- the losses --------------------


def mlp(act):
    def loss(p, x, y):
        hidden = act(anp.dot(x, p["W"]) + p["b"])
        return anp.mean((anp.dot(hidden, p["V"]) + p["c"] - y) ** 2)

    return loss


def deep(act):
    def loss(p, x):
        for W, b in p:
            x = act(anp.dot(x, W) + b)
        return anp.mean(x**2)

    return loss


def unrolled(steps):
    def loss(p, x):
        h = anp.zeros((4, 5))
        for _ in range(steps):
            h = anp.tanh(anp.dot(x[:4], p["W"]) + anp.dot(h, p["U"]) + p["b"])
        return anp.sum(h**2)

    return loss


def normed(z):
    return (z - anp.mean(z, axis=0)) / anp.sqrt(anp.var(z, axis=0) + 1e-5)


def gelu(z):
    return 0.5 * z * (1 + anp.tanh(0.79788456 * (z + 0.044715 * z**3)))


def picked(p, x, t):
    scores = anp.dot(anp.dot(x, p["W"]), p["V"])
    return -anp.mean(anp.log(sa.softmax(scores))[anp.arange(len(t)), t])


def nested(p, x):
    (W, b), (V, c) = p["layers"]
    return anp.sum(anp.tanh(anp.dot(x, W) + b) @ V + c) * p["s"] + p["zero_d"] ** 2


def attention(p, x):
    scores = anp.dot(anp.dot(x, p["Q"]), anp.dot(x, p["K"]).T) / 2.0
    return anp.sum(anp.dot(sa.softmax(scores), x) ** 2)


def convolved(p, x):
    windows = [x[:, k : k + 2] for k in range(3)]
    return anp.sum(anp.stack([anp.dot(window, p["W"][:2]) for window in windows]) ** 2)


SHARED = R.standard_normal((4, 4))
LAYERS = [(0.5 * R.standard_normal((4, 4)), R.standard_normal(4)) for _ in range(8)]
NESTED = {"layers": [(W, B), (V, C)], "s": 1.5, "zero_d": np.array(0.7)}
NET = sa.init_params(4, 6, 3, rng=0, scale=0.5)
ONE_HOT = np.eye(3, dtype=int)[T]


def single(tree):
    return tree_map(lambda leaf: np.asarray(leaf, dtype=np.float32), tree)


ACTIVATIONS = {
    "tanh": anp.tanh,
    "relu": lambda z: anp.maximum(0, z),
    "abs": anp.abs,
    "sqrt": lambda z: anp.sqrt(1 + z * z),
    "softplus": lambda z: anp.log(1 + anp.exp(z)),
    "where": lambda z: anp.where(z > 0, z, 0.1 * z),
    "logaddexp": lambda z: anp.logaddexp(0, z),
    "batch norm": normed,
    "std": lambda z: z / anp.std(z, axis=1, keepdims=True),
    "max": lambda z: z - anp.max(z, axis=1, keepdims=True),
    "min": lambda z: z - anp.min(z, axis=0),
    "clip": lambda z: anp.clip(z, -1, 1),
    "trigonometry": lambda z: anp.sin(z) * anp.cos(z) + anp.arctan(z) - anp.sinh(z * 0.1),
    "minimum": lambda z: anp.minimum(z, 1.0) + anp.maximum(z, anp.zeros_like(z)),
    "sigmoid": sa.sigmoid,
    "gelu": gelu,
    "swish": lambda z: z * sa.sigmoid(z),
    "norm": lambda z: z / anp.linalg.norm(z),
    "reciprocal": lambda z: 1.0 / (2.0 + z**2),
    "log1p": lambda z: anp.log1p(z**2) + anp.expm1(-anp.abs(z)),
    "sign": lambda z: z * anp.sign(z) - anp.negative(z),
    "float power": lambda z: anp.exp(0.1 * z) ** 1.7 + anp.square(z),
    "softmax": sa.softmax,
    "powers": lambda z: z**3 - 2.0 * z**2 + z,
    "reshaped": lambda z: anp.reshape(anp.ravel(z * 2), z.shape) + anp.squeeze(z[None]),
    "mean of all": lambda z: z - anp.mean(z),
}
LOSSES = {
    **{name: (mlp(act), P, X, Y) for name, act in ACTIVATIONS.items()},
    "matmul": (lambda p, x, y: anp.sum((anp.matmul(x, p["W"]) @ p["V"] - y) ** 2), P, X, Y),
    "einsum": (lambda p, x: anp.sum((anp.einsum("ni,ij->nj", x, p["W"]) @ p["V"]) ** 2), P, X),
    "regularised": (
        lambda p, x, y: mlp(anp.tanh)(p, x, y) + 0.01 * sum(anp.sum(p[k] ** 2) for k in p),
        P,
        X,
        Y,
    ),
    "tied": (lambda p, x: anp.mean((anp.tanh(x @ p["W"]) @ p["W"].T - x) ** 2), P, X),
    "slices": (
        lambda p, x: (
            anp.sum(anp.dot(x[:, :2], p["W"][1:3]) ** 2) + anp.sum(p["W"][0, ::2] * p["b"][1])
        ),
        P,
        X,
    ),
    "negative indices": (
        lambda p, x: anp.sum(p["W"][-1, ::-2] * x[-3:, -1:] ** 2) * p["b"][-1],
        P,
        X,
    ),
    "ellipsis": (lambda p: anp.sum(p["W"][..., 1] ** 2) + anp.sum(p["b"][None, 1:] ** 3), P),
    "fancy": (lambda p: anp.sum(p["W"][np.array([0, 0, 2])] ** 3), P),
    "mask of constants": (lambda p: anp.sum(p["c"][np.array([True, False, True])] ** 3), P),
    "embedding": (lambda p, t: anp.sum(anp.tanh(p["V"][t]) ** 2), P, T),
    "picked": (picked, P, X, T),
    "nested": (nested, NESTED, X),
    "list": (lambda p, x: anp.sum(anp.dot(x, p[0]) * p[1]), [W, B], X),
    "tuple": (lambda p, x: anp.sum(anp.dot(x, p[0]) * p[1]), (W, B), X),
    "tuple of one": (lambda p, x: anp.sum(anp.dot(x, p[0]) ** 2), (W,), X),
    "bare": (lambda w: anp.sum(w**3) / 3, W),
    "float": (lambda w: anp.sin(w) * w, 0.7),
    "sum of a float": (lambda p: anp.sum(p["s"]) * anp.mean(p["w"]), {"s": 2.0, "w": B}),
    "0-d array": (lambda w: w**2 + 3 * w, np.array(1.5)),
    "0-d in a dict": (lambda p, x: p["a"] * anp.sum(x * p["a"]), {"a": np.array(1.5)}, X),
    "scalar times array": (lambda p, x: anp.sum(anp.dot(p["a"], x) ** 2), {"a": np.array(0.3)}, X),
    "scalar times vector": (lambda p: anp.sum(anp.dot(p["s"], p["b"]) ** 2), {"s": 2.0, "b": B}),
    "concatenate": (
        lambda p, x: anp.sum(anp.concatenate([x, anp.dot(x, p["W"])], axis=1) ** 2),
        P,
        X,
    ),
    "stack": (lambda p, x: anp.sum(anp.stack([x @ p["W"], (x @ p["W"]) * 2]) ** 2), P, X),
    "power": (lambda p: anp.sum(2.0 ** p["b"]) + anp.sum((1 + p["c"] ** 2) ** p["c"]), P),
    "quotient": (lambda p, x: anp.sum(x[:, :1] / (1 + p["b"] ** 2)), P, X),
    "outer": (lambda p: anp.sum(anp.outer(p["b"], p["c"]) ** 2), P),
    "inverse": (
        lambda p: anp.linalg.norm(p["b"]) + anp.sum(anp.linalg.inv(EYE + p["W"][:, :4] * 0.1)),
        P,
    ),
    "determinant": (lambda p: anp.linalg.slogdet(EYE + p["W"][:, :4] * 0.1)[1], P),
    "product": (lambda p: anp.prod(p["b"]) + anp.sum(anp.cumsum(p["c"]) ** 2), P),
    "unused": (lambda p, x: anp.sum(p["W"] ** 2), P, X),
    "sum": (lambda p, x: anp.sum(p["W"]), P, X),
    "constant": (lambda p, x: anp.sum(x), P, X),
    "itself": (lambda p: p["s"], {"s": 2.0, "W": W}),
    "data as gradient": (lambda p, x: anp.sum(x * p["W"][:, 0]), P, X),
    "data is the gradient": (lambda w, x: anp.sum(x * w), R.standard_normal((N, 4)), X),
    "one gradient for two": (
        lambda p, x: anp.sum((x * (p["a"] + p["b"])) ** 2),
        {"a": R.standard_normal(4), "b": R.standard_normal(4)},
        X,
    ),
    "plain numpy": (lambda p, x: (np.tanh(x @ p["W"]) ** 2).sum(), P, X),
    "plain numpy methods": (lambda p, x: ((x @ p["W"]).T.mean(axis=1) ** 2).sum(), P, X),
    "mean over an axis": (lambda p, x: anp.sum(anp.mean(x @ p["W"], axis=0) ** 2), P, X),
    "transposes": (
        lambda p, x: (
            anp.sum(anp.transpose(x @ p["W"]).reshape(-1) ** 2)
            + anp.sum(anp.swapaxes(p["V"], 0, 1) ** 2 * 3)
            + anp.sum(anp.swapaxes(p["V"], 0, -2) ** 2 * 3)
        ),
        P,
        X,
    ),
    "axes": (
        lambda p: (
            anp.sum(anp.transpose(p["T"], (2, 0, 1))[0] ** 2)
            + anp.sum(anp.transpose(p["W"], (1, 0)) ** 3)
        ),
        {"T": X.reshape(3, 4, 4), "W": W},
    ),
    "orders": (
        lambda p: (
            anp.sum(anp.ravel(p["W"], "F")[:7] ** 2)
            + anp.sum(anp.reshape(p["V"], (3, 5), order="F")[0] ** 3)
        ),
        P,
    ),
    # what is copied by a reshape is no view that is made once
    "a transpose, reshaped": (lambda p: anp.sum(anp.tanh(p["W"].T.reshape(-1)) ** 3), P),
    "rows of what is made anew": (
        lambda p: anp.sum(anp.sum(anp.where(p["V"] > 0, p["V"], 0.1 * p["V"]), axis=1) ** 3),
        P,
    ),
    "vectors": (
        lambda p, x: (
            anp.dot(p["b"], p["b"])
            + anp.sum(anp.dot(x, p["W"][:, 0]) ** 2)
            + anp.sum(anp.dot(p["c"], p["V"].T))
        ),
        P,
        X,
    ),
    "three axes": (
        lambda p, x: (
            anp.sum(anp.tensordot(x.reshape(3, 4, 4), p["W"], 1) ** 2)
            + anp.sum(anp.dot(x.reshape(3, 4, 4), p["W"]) ** 3)
            + anp.sum(anp.transpose(x.reshape(3, 4, 4), (2, 0, 1)) * p["W"][0, 0]) ** 2
        ),
        P,
        X,
    ),
    "views by other functions": (
        lambda p, x: (
            anp.sum(anp.moveaxis(anp.tanh(x @ p["W"]).reshape(2, 6, 5), 0, 2) ** 3)
            * anp.sum(anp.exp(anp.flipud(anp.sin(x @ p["W"])))[:3])
            + anp.sum(anp.rot90(anp.cos(x @ p["W"])) ** 2 * anp.tanh(p["b"][:, None]))
        ),
        P,
        X,
    ),
    "split": (
        lambda p, x: sum(anp.sum(part**3) for part in anp.split(x @ p["W"] * 2, 3)),
        P,
        X,
    ),
    "attention": (attention, {"Q": SHARED, "K": SHARED.T.copy()}, X),
    "convolution": (convolved, P, X),
    "deep tanh": (deep(anp.tanh), LAYERS, X),
    "deep relu": (deep(lambda z: anp.maximum(z, 0.0)), LAYERS, X),
    "rnn of 5": (unrolled(5), P | {"U": U}, X),
    "rnn of 300": (unrolled(300), P | {"U": U}, X),
    "batch of 1": (mlp(anp.tanh), P, X[:1], Y[:1]),
    "width of 1": (
        mlp(sa.softmax),
        {"W": W[:, :1], "b": B[:1], "V": V[:1], "c": C},
        X,
        Y,
    ),
    "data as a pytree": (
        lambda p, d: mlp(anp.tanh)(p, d["x"], d["more"][0]) * d["scale"],
        P,
        {"x": X, "more": (Y,), "scale": 2.5},
    ),
    "static arguments": (
        lambda p, x, n, name: anp.sum((x @ p[name]) ** n) / n,
        P,
        X,
        3,
        "W",
    ),
    "integer data": (lambda p, t: anp.sum((t[:, None] - p["c"]) ** 2 / (t[:, None] + 1)), P, T),
    "boolean data": (lambda p, m: anp.sum(p["c"] ** 2 * m[:, None] + p["b"][0]), P, T > 0),
    "small data type": (lambda p, t: anp.sum((t[:, None] * p["c"]) ** 2), P, T.astype(np.int8)),
    "one element sums": (lambda p, x: anp.sum(anp.sum(x[:, :1] * p["c"][0], axis=1) ** 2), P, X),
    "sums with a start": (lambda p, x: anp.sum(x[:1, 0], initial=2.0) * anp.sum(p["c"] ** 2), P, X),
    "the network": (sa.loss, NET, X, T),
    "the network, one-hot": (sa.loss, NET, X, ONE_HOT),
    "the network, float one-hot": (sa.loss, NET, X, ONE_HOT.astype(float)),
}
NEEDS = {
    "three axes": {"dot_adjoint_1", "tensordot_adjoint_1"},
    "scalar times array": {"dot_adjoint_0"},
    "scalar times vector": {"dot_adjoint_0", "dot_adjoint_1"},
}
SINGLE_LOSSES = {
    "tanh": (mlp(anp.tanh), single(P), single(X), single(Y)),
    "relu": (mlp(lambda z: anp.maximum(z, 0.0)), single(P), single(X), single(Y)),
    "network": (sa.loss, single(NET), single(X), T),
    "network, one-hot": (sa.loss, single(NET), single(X), ONE_HOT),
    "parameters only": (mlp(anp.tanh), single(P), X, Y),
    "data only": (mlp(anp.tanh), P, single(X), single(Y)),
    "one leaf": (mlp(anp.tanh), P | {"V": single(V)}, X, Y),
    "bare": (lambda w, x: anp.sum((x @ w) ** 2 * np.float64(2.0)), single(W), X),
    "float": (lambda p, x: p["s"] * anp.sum(x * p["w"]), {"s": 2.0, "w": single(C)}, Y),
    "0-d": (lambda p: p["a"] ** 2 * anp.sum(p["b"]), {"a": np.float32(2.0), "b": B}),
    "statistics": (mlp(normed), single(P), single(X), single(Y)),
    "rnn": (unrolled(5), single(P | {"U": U}), single(X)),
    "double power": (lambda p: anp.sum(p["c"] ** np.float64(2.0)), single(P)),
}


if not hasattr(ArrayBox, "__array_ufunc__"):  # autograd 1.8 traces autograd.numpy alone
    del LOSSES["plain numpy"]


def fresh(tree, rng):
    """Other values of the same structure: floats nearby, whole numbers in another order."""

    def moved(leaf):
        if isinstance(leaf, float) and not isinstance(leaf, np.generic):
            return leaf * 1.1
        if not isinstance(leaf, np.ndarray | np.generic):
            return leaf
        if leaf.dtype.kind == "f" and not np.array_equal(leaf, np.round(leaf)):
            return (leaf * rng.uniform(0.9, 1.1, leaf.shape)).astype(leaf.dtype)
        return rng.permutation(leaf) if leaf.ndim else leaf

    return tree_map(moved, tree)


def assert_agrees(got, want, tolerance):
    """Container types, shapes and dtypes; values relative to the largest entry of the gradient."""
    got_paths, want_paths = (dict(named_leaves("", list(result))) for result in (got, want))
    assert list(got_paths) == list(want_paths)
    assert structure(got[1]) == structure(want[1])
    largest = max(np.max(np.abs(leaf)) for leaf in leaves(want[1]))
    for path, ours in got_paths.items():
        theirs = np.asarray(want_paths[path])
        assert (np.shape(ours), np.asarray(ours).dtype) == (theirs.shape, theirs.dtype), path
        scale = max(np.abs(theirs), 1e-300) if path == "[0]" else largest
        error = np.max(np.abs(np.asarray(ours, float) - theirs))
        assert error <= tolerance * max(scale, largest), (path, error / scale)


def structure(tree):
    if isinstance(tree, dict):
        return {key: structure(sub) for key, sub in tree.items()}
    if isinstance(tree, list | tuple):
        return type(tree)(map(structure, tree))
    return "leaf"


def buffered_step(program, params, grads):
    """The buffered program as a function of a batch: its step behind one on an older batch."""
    make, dtypes = program.buffered
    made = []

    def step(*arrays):
        cast = [np.asarray(a).astype(d) for a, d in zip(arrays, dtypes, strict=True)]
        if not made or not all(a.ndim for a in cast):
            rows = [np.array([a, a]) if a.ndim else [a, a] for a in cast]
            made[:] = rows, make(params, grads, rows, 2)
        rows, (steps, losses) = made
        for row, array in zip(rows, cast, strict=True):
            row[1] = array
        for run in steps:
            run()
        return losses(2)[1]

    return step


def assert_programs_agree(loss, params, data, tolerance):
    """The program, its text and its buffered form against autograd, on fresh data, twice."""
    program = derive(loss, params, *data)
    pasted = dict(program.needs)
    exec(program.source, pasted)
    layout = FlatLayout.of(params)
    params_vector, grads_vector = layout.pack_tree(params), layout.pack_tree(params)
    step = buffered_step(program, layout.views(params_vector), layout.views(grads_vector))
    rng = np.random.default_rng(8)
    for _ in range(2):
        new_params, new_data = fresh(params, rng), fresh(list(data), rng)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # "Output seems independent of input."
            want = autograd.value_and_grad(loss)(new_params, *new_data)
        assert_agrees(program(new_params, *new_data), want, tolerance)
        assert_agrees(pasted["value_and_grad"](new_params, *new_data), want, tolerance)
        vectors = leaves(params_vector), leaves(layout.pack_tree(new_params))
        for vector, now in zip(*vectors, strict=True):
            vector[...] = now
        numbers = np.ndarray | float | (int if program.traces_ints else float)
        arrays = [leaf for leaf in leaves(new_data) if isinstance(leaf, numbers)]
        value = step(*arrays)
        largest = max(np.max(np.abs(leaf)) for leaf in leaves(want[1]))
        for ours, theirs in zip(layout.views(grads_vector), leaves(want[1]), strict=True):
            assert np.max(np.abs(ours - theirs)) <= tolerance * largest
        assert abs(value - want[0]) <= tolerance * max(abs(want[0]), largest)
    return program


@pytest.mark.parametrize("name", LOSSES)
def test_a_program_agrees_with_autograd_on_fresh_data(name):
    loss, params, *data = LOSSES[name]
    program = assert_programs_agree(loss, params, data, 1e-14)
    if name == "split":
        assert "container_untake" in program.needs
    else:
        assert set(program.needs) == NEEDS.get(name, set())


@pytest.mark.parametrize("name", SINGLE_LOSSES)
def test_a_program_in_float32_agrees_with_autograd_in_its_dtypes(name):
    loss, params, *data = SINGLE_LOSSES[name]
    assert_programs_agree(loss, params, data, 1e-6)


def test_a_program_in_float16_agrees_with_autograd_in_its_dtypes():
    half = [tree_map(lambda leaf: leaf.astype(np.float16), tree) for tree in (P, X, Y)]
    assert_programs_agree(mlp(anp.tanh), half[0], half[1:], 4e-3)


def test_factors_that_keep_a_product_from_overflowing_stay_where_they_are():
    def loss(p, x):
        return anp.sum((x * 1e-3) * (x * 1e-3) * p["w"])

    half = np.float16
    params, x = {"w": np.ones(3, half)}, np.array([[1.0, 2.0, 3.0]], half)
    program = derive(loss, params, x)
    large = np.full((1, 3), 6e2, half)
    want = autograd.value_and_grad(loss)(params, large)
    assert np.isfinite(want[0])
    assert_agrees(program(params, large), want, 4e-3)


def test_leaves_that_are_one_array_have_a_gradient_each():
    def loss(p, x):
        return anp.sum((x @ p["a"] @ p["b"]) ** 2)

    params = {"a": SHARED, "b": SHARED}
    program = derive(loss, params, X)
    assert_agrees(program(params, X), autograd.value_and_grad(loss)(params, X), 1e-14)


# -------------------- random losses --------------------

UNARY = {
    "tanh": anp.tanh,
    "exp": lambda x: anp.exp(anp.tanh(x)),
    "negative": lambda x: -x,
    "square": lambda x: x**2,
    "cube": lambda x: x**3,
    "third": lambda x: x / 3,
    "triple": lambda x: 3 * x,
    "one minus": lambda x: 1.0 - x,
    "reciprocal": lambda x: 1.0 / (1.5 + x**2),
    "root": lambda x: anp.sqrt(1.0 + x**2),
    "log": lambda x: anp.log(2.0 + x**2),
    "relu": lambda x: anp.maximum(x, 0.0),
    "abs": anp.abs,
    "sigmoid": sa.sigmoid,
    "row sums": lambda x: anp.sum(x, axis=0, keepdims=True),
    "column means": lambda x: anp.mean(x, axis=-1, keepdims=True),
    "maximum": lambda x: anp.max(x, axis=-1, keepdims=True),
    "transposed": lambda x: x.T,
    "first": lambda x: x[:1],
    "reversed": lambda x: x[::-1],
    "every other": lambda x: x[:, ::2],
    "last column": lambda x: x[:, -1:],
    "softmax": sa.softmax,
    "doubled rows": lambda x: anp.concatenate([x, -x], axis=0),
    "variance": lambda x: anp.var(x, axis=0, keepdims=True),
    "chosen": lambda x: anp.where(x > 0.1, x, 0.5 * x),
}
BINARY = {
    "add": lambda a, b: a + b,
    "subtract": lambda a, b: a - b,
    "multiply": lambda a, b: a * b,
    "divide": lambda a, b: a / (1.0 + b**2),
    "dot": anp.dot,
    "minimum": anp.minimum,
    "logaddexp": anp.logaddexp,
}


@st.composite
def recipes(draw):
    """A list of operations on a stack of values, and the shapes of the leaves."""
    rows, columns = draw(st.integers(1, 4)), draw(st.integers(1, 4))
    shapes = [(rows, columns), (1, columns), (rows, 1), (columns, rows)]
    steps = draw(
        st.lists(
            st.one_of(
                st.tuples(st.sampled_from(sorted(UNARY)), st.integers(0, 9)),
                st.tuples(st.sampled_from(sorted(BINARY)), st.integers(0, 9), st.integers(0, 9)),
            ),
            min_size=1,
            max_size=7,
        )
    )
    return shapes, steps, draw(st.sampled_from([np.float64, np.float32])), draw(st.integers(0, 99))


def loss_of(steps):
    """The sum of what the operations leave; one whose operands do not fit is left out."""

    def loss(p, x):
        values = [*p, x]
        for name, *operands in steps:
            chosen = [values[k % len(values)] for k in operands]
            if len(chosen) == 1:
                values.append(UNARY[name](*chosen))
                continue
            shapes = [np.shape(value) for value in chosen]
            if name == "dot":
                fits = shapes[0][1] == shapes[1][0]
            else:
                fits = all(a == b or 1 in (a, b) for a, b in zip(*shapes, strict=True))
            if fits:
                values.append(BINARY[name](*chosen))
        return sum(anp.mean(value) for value in values[2:])

    return loss


def assert_random_agrees(recipe):
    shapes, steps, dtype, seed = recipe
    rng = np.random.default_rng(seed)
    a, b, x, y = (rng.uniform(-1, 1, shape).astype(dtype) for shape in shapes)
    precision = 1e-14 if dtype is np.float64 else 1e-5
    assert_programs_agree(loss_of(steps), [a, b, y], [x], precision)


@settings(max_examples=examples(150))
@given(recipes())
def test_random_losses_agree_with_autograd(recipe):
    assert_random_agrees(recipe)


# -------------------- the text --------------------


@pytest.fixture(scope="module")
def spiral():
    x, t = sa.load_data(rng=0)
    params = sa.init_params(2, 10, 3, rng=0, scale=0.5)
    x, t = x[::10], t[::10]
    return SimpleNamespace(program=derive(sa.loss, params, x, t), params=params, x=x, t=t)


def statements(source):
    """The lines between the signature and the return, without comments."""
    body = source[source.index("# forward") : source.index("    return ")]
    code = [line.split("  #")[0].strip() for line in body.splitlines()]
    return [line for line in code if line and not line.startswith("#")]


def test_the_spirals_program_is_short_and_says_nothing_twice(spiral):
    found = statements(spiral.program.source)
    assert 10 < len(found) <= 28
    assert len({line.split(" = ", 1)[1] for line in found}) == len(found)


def test_the_step_out_of_softmax_with_loss_reads_as_the_books(spiral):
    assert "(softmax - t) / 30" in spiral.program.source
    assert "softmax = exp / total[:, None]" in spiral.program.source


def test_the_text_alone_gives_the_same_numbers(spiral):
    assert spiral.program.needs == {}
    assert spiral.program.source.startswith(
        "import numpy as np\n\n\ndef value_and_grad(params, x, t)"
    )
    namespace = {}
    exec(spiral.program.source, namespace)
    ours = namespace["value_and_grad"](spiral.params, spiral.x, spiral.t)
    assert_agrees(ours, spiral.program(spiral.params, spiral.x, spiral.t), 0.0)


def test_each_line_says_its_shape_and_where_it_comes_from(spiral):
    source = spiral.program.source
    forward, backward = source.split("# backward")
    lines = [line for line in forward.splitlines() if " = " in line][1:]
    assert all("network.py:" in line for line in lines)
    assert [f"[{k}]" in line for k, line in enumerate(lines, 1)] == [True] * len(lines)
    lines = [line for line in backward.splitlines() if " = " in line]
    assert all("gradient of [" in line for line in lines)
    assert "# (30, 10) [1]" in source
    assert max(map(len, source.splitlines())) < 110


def test_backward_values_are_named_after_the_values_they_are_the_gradient_of(spiral):
    names = [line.split(" = ")[0] for line in statements(spiral.program.source)]
    forward = names[: names.index("softmax")]
    backward = names[names.index("softmax") + 1 :]
    given = {"W1", "b1", "W2", "b2"}
    assert {name.removeprefix("d") for name in backward} <= {*forward, *given}
    assert all(name.startswith("d") for name in backward)


@pytest.mark.parametrize("name", ["batch norm", "slices", "where", "transposes", "rnn of 5"])
def test_no_line_is_too_long_nor_named_after_a_python_internal(name):
    loss, params, *data = LOSSES[name]
    source = derive(loss, params, *data).source
    code = [line.split("  # ")[0].rstrip() for line in source.splitlines()]
    assert max(map(len, code)) <= 90
    assert "getitem" not in source
    assert "np.zeros((5,))" not in source
    assert all(line.startswith(" ") or not line.strip() for line in code[3:][1:])


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (np.zeros(5), "np.zeros(5)"),
        (np.ones((2, 3)), "np.ones((2, 3))"),
        (np.full(2, -0.0), "np.full(2, -0.0)"),
        (np.array([0.0, -0.0]), "np.array([0.0, -0.0])"),
        (np.zeros(2, np.float32), "np.zeros(2, dtype=np.float32)"),
        (np.ones(2, int), "np.ones(2, dtype=np.int64)"),
        (np.full((1, 2), np.nan), "np.array([[np.nan, np.nan]])"),
        (np.arange(30), "np.arange(30)"),
        (np.arange(4, dtype=np.int8), "np.arange(4, dtype=np.int8)"),
        (np.arange(30.0), "np.arange(30, dtype=np.float64)"),
        (np.eye(4), "np.eye(4)"),
        (5 * np.eye(4), "np.diag([5.0, 5.0, 5.0, 5.0])"),
        (np.array([[1.0, 2.0], [3.0, 4.0]]), "np.array([[1.0, 2.0], [3.0, 4.0]])"),
        (np.array(2.5), "np.array(2.5)"),
        (np.array([True, False]), "np.array([True, False])"),
        (np.zeros((0, 2)), "np.zeros((0, 2))"),
        (np.float32(0.1), "np.float32(0.10000000149011612)"),
        (np.inf, "np.inf"),
        (-np.inf, "-np.inf"),
        ((1, None, ...), "(1, None, ...)"),
        (slice(1, None), "slice(1, None, None)"),
        (np.dtype(np.float32), "np.float32"),
    ],
)
def test_a_constant_is_written_as_what_it_is(value, text):
    written = writer.literal(value)
    back = eval(written, {"np": np})
    np.testing.assert_array_equal(back, value)
    if isinstance(value, np.ndarray):
        assert (back.dtype, back.shape) == (value.dtype, value.shape)
        np.testing.assert_array_equal(np.signbit(back), np.signbit(value))
    assert written == text


class Evil(str):
    def __repr__(self):
        return "(evil.append(1) or 'W')"


class Number(int):
    def __repr__(self):
        return "evil.append(1)"


@pytest.mark.parametrize(
    "value",
    [
        Evil("W"),
        Number(1),
        np.str_("W"),
        object(),
        {1},
        R.standard_normal((9, 9)),
        np.longdouble(1),
    ],
)
def test_what_code_cannot_name_has_no_literal(value):
    assert writer.literal(value) is None


def test_a_large_constant_is_asked_for_by_name():
    program = derive(lambda p: anp.sum((LARGE * p["w"]) ** 2), {"w": R.standard_normal(30)})
    assert "# needs constant (float64 array of the shape (20, 30)" in program.source
    np.testing.assert_array_equal(program.needs["constant"], LARGE)


def test_a_name_that_is_needed_is_imported_where_it_can_be():
    source = derive(*LOSSES["scalar times array"]).source
    assert "from autograd.numpy.numpy_vjps import dot_adjoint_0" in source
    exec(source, {})


HOSTILE = [
    "W; import os",
    "__import__('os')",
    "np",
    "def",
    "",
    "1x",
    "größe",
    "日本",
    "x\nevil.append(1)",
    "'] + evil.append(1) + ['",
    '"""',
    "loss",
    "params",
    "value_and_grad",
    "print",
    "x" * 200,
    ("a", 1),
    3,
    -1,
    2.5,
    None,
    True,
    b"W",
    Evil("W"),
    "a b",
    "a-b",
    "a_b",
    "dW",
    "W",
]


def test_hostile_keys_give_harmless_identifiers_and_right_results():
    params = {key: R.standard_normal(2) for key in HOSTILE}

    def loss(params, x):
        return sum(anp.sum((x * leaf) ** 2) for leaf in params.values())

    x = R.standard_normal((3, 2))
    program = derive(loss, params, x)
    evil = []
    namespace = dict(program.needs) | {"evil": evil}
    exec(program.source, namespace)
    got = namespace["value_and_grad"](params, x)
    assert evil == []
    want = autograd.value_and_grad(loss)(params, x)
    assert_agrees(got, want, 1e-14)
    assert_agrees(program(params, x), want, 1e-14)
    assert list(got[1]) == list(params)
    names = [line.split(" = ")[0].strip() for line in program.source.splitlines() if " = " in line]
    names = [name for line in names for name in line.split(", ")]
    assert len(names) > 2 * len(params)
    assert all(name.isascii() and name.isidentifier() and len(name) < 60 for name in names)
    assert not any(keyword.iskeyword(name) for name in names)
    assert names.count("np") == 0
    assert len(set(names)) == len(names)
    assert "import os" not in "".join(names)


def test_a_hostile_file_name_stays_a_comment():
    namespace = {"anp": anp}
    code = compile("def loss(w):\n    return anp.sum(w**2)\n", "a\nevil = 1 #.py", "exec")
    exec(code, namespace)
    program = derive(namespace["loss"], W)
    assert "evil" in program.source
    assert not any(line.startswith("evil") for line in program.source.splitlines())
    exec(program.source, found := {})
    assert "evil" not in found


def test_a_hostile_argument_name_and_module():
    def loss(λ, np):
        return anp.sum(np * λ)

    loss.__module__ = loss.__qualname__ = "x\nimport os"
    program = derive(loss, R.standard_normal(3), R.standard_normal(3))
    assert "import os" not in program.source
    assert program.source.count("import") == 1
    exec(program.source, {})


# -------------------- what is handed out --------------------


@pytest.mark.parametrize(
    ("loss", "params", "data"),
    [
        (lambda p: anp.sum(p["W"]), {"W": W, "b": B}, ()),
        (lambda p, x: anp.sum(x * p["a"]), {"a": X.copy()}, (X,)),
        (lambda p: anp.sum(p["a"] * p["b"]), {"a": W.copy(), "b": W + 1}, ()),
        (lambda p: anp.sum((p["a"] + p["b"]) ** 2), {"a": W, "b": W + 1}, ()),
        (lambda p: anp.sum((p["a"] + p["b"].T) ** 2), {"a": W, "b": W.T + 1}, ()),
        (lambda p: anp.sum((p["a"] + p["b"]) * W), {"a": W + 2, "b": W + 1}, ()),
        (lambda p: anp.sum(p["a"]) + anp.sum(p["b"]), {"a": W, "b": W}, ()),
        (lambda w, x: anp.sum(x.T * w), X.T.copy(), (X,)),
        (lambda p: anp.sum(anp.reshape(p["a"], (5, 4)) * p["b"]), {"a": W, "b": W.T.copy()}, ()),
        (lambda p: anp.sum(p["a"][:2] * p["b"]), {"a": W, "b": W[:2].copy()}, ()),
        (lambda p: anp.sum(anp.flipud(p["a"]) * p["b"]), {"a": W, "b": W + 1}, ()),
        (lambda p: anp.sum(anp.moveaxis(p["a"], 0, 1) * p["b"]), {"a": W, "b": W.T.copy()}, ()),
    ],
)
def test_a_returned_gradient_is_nobody_elses_array(loss, params, data):
    program = derive(loss, params, *data)
    given = leaves([params, list(data)])
    before = [np.array(leaf) for leaf in given]
    value, grads = program(params, *data)
    want = [np.array(leaf) for leaf in leaves(grads)]
    found = leaves(grads)
    for k, grad in enumerate(found):
        assert grad.flags.writeable
        grad[...] = 99.0
        for other, copy in zip(found[k + 1 :], want[k + 1 :], strict=True):
            np.testing.assert_array_equal(other, copy)
    for leaf, copy in zip(given, before, strict=True):
        np.testing.assert_array_equal(leaf, copy)
    again = program(params, *data)
    assert again[0] == value
    for ours, first in zip(leaves(again[1]), want, strict=True):
        np.testing.assert_array_equal(ours, first)


@pytest.mark.parametrize("name", ["tanh", "nested", "embedding", "the network", "transposes"])
def test_neither_deriving_nor_running_changes_what_is_given(name):
    loss, params, *data = LOSSES[name]
    params, data = (
        tree_map(lambda p: p if isinstance(p, float) else frozen(p), params),
        frozen(data),
    )
    before = [np.array(leaf) for leaf in leaves([params, data])]
    derive(loss, params, *data)(params, *data)
    for ours, theirs in zip(leaves([params, data]), before, strict=True):
        np.testing.assert_array_equal(ours, theirs)


@pytest.mark.parametrize(
    ("params", "data", "message"),
    [
        (P, (X[:5], Y), r"data\[0\] must be as the program was derived for: float64 of the shape"),
        (P, (X.astype("f"), Y), r"data\[0\] .* float64 .* got float32 of the shape \(12, 4\)"),
        (P | {"W": single(W)}, (X, Y), r"params\['W'\] .* got float32"),
        ({k: P[k] for k in "WbV"}, (X, Y), r"params\['c'\] .* got nothing there"),
        (P | {"d": C}, (X, Y), r"params\['d'\] .* derived for: absent"),
        (dict(reversed(P.items())), (X, Y), "in the order that the program was derived for"),
        (P, (X,), r"data\[1\] .* got nothing there"),
        (list(P.values()), (X, Y), r"params\['W'\] .* got nothing there"),
    ],
)
def test_other_arguments_than_the_program_was_derived_for_are_named(params, data, message):
    with pytest.raises(ValueError, match=message):
        derive(mlp(anp.tanh), P, X, Y)(params, *data)


# -------------------- never silently wrong --------------------


class Counter:
    calls = 0.0


def counts(p, x):
    Counter.calls += 1.0
    return anp.sum(p["W"]) * Counter.calls


def two_ways(p, x):
    if p["W"]._value._value.sum() > -1e9 if hasattr(p["W"]._value, "_value") else False:
        return anp.sum(p["W"])
    return anp.sum(p["W"] ** 2)


def escapes(p, x):
    inner = x
    while hasattr(inner, "_value"):
        inner = inner._value
    return anp.sum(p["W"]) * float(inner.sum())


def raises_elsewhere(p, x):
    inner = p["W"]
    while hasattr(inner, "_value"):
        inner = inner._value
    if not np.array_equal(inner, W):
        raise ValueError("these parameters are not the first ones")
    return anp.sum(p["W"] ** 2)


GENERATOR = np.random.RandomState(0)
REFUSED = {
    "a branch": (
        lambda p, x: anp.sum(p["W"]) if anp.sum(p["W"]) > 0 else 0.0,
        X,
        "became a Python bool",
    ),
    "a branch that all recordings pass the same way": (
        lambda p, x: anp.sum(p["W"] ** 2) if anp.sum(x**2) >= 0 else 0.0,
        X,
        "became a Python bool",
    ),
    "an assertion": (
        lambda p, x: [anp.sum(p["W"]), None][bool(anp.max(x) > 1e9)],
        X,
        "became a Python bool",
    ),
    "a branch behind the boxes": (two_ways, X, "the loss differs from autograd's"),
    "a random number": (
        lambda p, x: anp.sum(p["W"] * GENERATOR.randn(4, 5)),
        X,
        "a constant of .* differs",
    ),
    "NumPy's global random numbers": (
        lambda p, x: anp.sum(p["W"] * (np.random.rand(4, 5) < 0.5)),  # noqa: NPY002
        X,
        "a constant of .* differs",
    ),
    "a counter": (counts, X, "a constant of .* differs"),
    "a float": (lambda p, x: anp.sum(p["W"]) * float(anp.sum(x)), X, "became a Python float"),
    "an escaped value": (escapes, X, "a constant of .* differs"),
    "a shape": (lambda p, t: anp.sum(p["b"]) * len(anp.unique(t)), T, r"np\.unique returns"),
    "plain unique": (lambda p, t: anp.sum(p["b"]) * len(np.unique(t)), T, "plain NumPy array"),
    "an eye": (lambda p, t: anp.sum(np.eye(3)[t] * p["c"]), T, "became a plain NumPy array"),
    "an arange": (
        lambda p, t: anp.sum(p["b"]) * anp.arange(anp.max(t) + 1).sum(),
        T,
        r"np\.arange returns",
    ),
    "a mask": (lambda p, x: anp.sum(p["W"][p["W"] > 0]), X, "a boolean mask"),
    "an item": (lambda p, x: anp.sum(p["W"]) * x.sum().item(), X, "became a Python number"),
    "a loop": (
        lambda p, t: sum((anp.sum(p["b"]) for _ in range(int(t[0]))), 0.0),
        T,
        "became a Python int",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_depends_on_values_is_refused_with_what_and_where(name):
    loss, data, message = REFUSED[name]
    top = trace_stack.top
    with pytest.raises(DerivationError, match=message) as refusal:
        derive(loss, P, data)
    if "differs from autograd" not in message:
        first = loss.__code__.co_firstlineno
        lines = [f"{__file__}, line {first + k}" for k in range(6)]
        assert any(line in str(refusal.value) for line in lines)
    assert trace_stack.top == top


def test_a_loss_that_raises_on_other_parameters_is_refused():
    with pytest.raises(DerivationError, match=r"raised ValueError: these parameters"):
        derive(raises_elsewhere, P, X)


@pytest.mark.parametrize(
    ("loss", "message"),
    [
        (lambda p, x: anp.sum(p["W"]) * no_such_name, "raised NameError: name 'no_such_name'"),  # noqa: F821
        (lambda p, x: p["W"], "loss must return a scalar"),
    ],
)
def test_a_loss_that_fails_is_refused_with_its_error(loss, message):
    top = trace_stack.top
    with pytest.raises(TypeError, match=message):
        derive(loss, P, X)
    assert trace_stack.top == top


def test_a_loss_that_is_finite_nowhere_is_refused():
    with pytest.raises(DerivationError, match="not finite for the inputs given"):
        derive(lambda p, x: anp.sum(p["W"]) * np.nan, P, X)


def test_a_loss_that_is_infinite_at_the_inputs_given_is_no_reason():
    program = derive(lambda p, x: anp.sum(anp.log(p["b"] ** 2)) * anp.sum(x), {"b": np.zeros(2)}, X)
    params = {"b": np.ones(2) * 2}
    assert program(params, X)[1]["b"] == pytest.approx(np.full(2, np.sum(X)), rel=1e-13)


@pytest.mark.parametrize(
    ("params", "error", "message"),
    [
        ({"W": W.astype(int)}, TypeError, r"params\['W'\] must be a floating-point"),
        ({}, ValueError, "params is empty"),
        ({"W": np.full(2, np.nan)}, ValueError, r"params\['W'\] must be finite"),
    ],
)
def test_bad_parameters_are_named(params, error, message):
    with pytest.raises(error, match=message):
        derive(lambda p: anp.sum(p["W"]), params)


def test_a_wrong_rule_is_caught_by_the_guard(monkeypatch):
    def wrong(graph, e):
        return [graph.of(writer.scale, e.args[0], Fraction(1))]

    monkeypatch.setitem(rules.RULES, np.sin, wrong)
    with pytest.raises(DerivationError, match="differs from autograd's"):
        derive(lambda w: anp.sum(anp.sin(w)), W)


def test_a_wrong_buffered_program_is_caught_by_the_guard(monkeypatch):
    monkeypatch.setattr(writer, "memory_of", lambda order: {e: {e} for e in order})
    loss, params, *data = LOSSES["views by other functions"]
    with pytest.raises(DerivationError, match="differs from autograd's"):
        derive(loss, params, *data)


# -------------------- value_and_grad --------------------


@pytest.fixture(autouse=True)
def _fresh_cache():
    cached._cache.clear()
    cached._known.clear()


def test_value_and_grad_is_a_drop_in():
    loss = mlp(anp.tanh)
    ours, autograds = sa.value_and_grad(loss), autograd.value_and_grad(loss)
    for params, x, y in [(P, X, Y), (P, X[:5], Y[:5]), (single(P), single(X), single(Y))]:
        for _ in range(2):
            assert_agrees(
                ours(params, x, y), autograds(params, x, y), 1e-6 if x is not X else 1e-14
            )
    assert len(cached._cache) == 3
    reordered = dict(reversed(P.items()))
    assert list(ours(reordered, X, Y)[1]) == list(reordered)


def test_value_and_grad_derives_once_for_a_signature(monkeypatch):
    calls = []
    original = cached.derive
    monkeypatch.setattr(cached, "derive", lambda *a: calls.append(1) or original(*a))
    function = sa.value_and_grad(mlp(anp.tanh))
    for _ in range(3):
        function(P, X, Y)
    assert len(calls) == 1
    function(P, X[:4], Y[:4])
    assert len(calls) == 2


def test_value_and_grad_of_another_argument_or_with_keywords_is_autograds():
    def loss(p, x, power=2):
        return anp.sum((x @ p["W"]) ** power)

    value, grad = sa.value_and_grad(loss, argnum=1)(P, X)
    assert_agrees([value, {"x": grad}], [loss(P, X), {"x": autograd.grad(loss, 1)(P, X)}], 0.0)
    assert_agrees(
        sa.value_and_grad(loss)(P, x=X, power=3), autograd.value_and_grad(loss)(P, X, 3), 1e-14
    )
    assert len(cached._cache) == 0
    assert_agrees(sa.value_and_grad(loss)(P, X, 3), autograd.value_and_grad(loss)(P, X, 3), 1e-14)
    assert len(cached._cache) == 1


def test_the_cache_is_bounded(monkeypatch):
    monkeypatch.setattr(cached, "CACHE_SIZE", 3)
    function = sa.value_and_grad(lambda w: anp.sum(w**2))
    for n in range(1, 7):
        np.testing.assert_array_equal(function(np.ones(n))[1], np.full(n, 2.0))
    assert len(cached._cache) == 3


@pytest.mark.parametrize("name", ["a branch", "a float", "a mask", "an eye", "a shape"])
def test_what_has_no_program_is_autograds_with_one_warning(name):
    loss, data, message = REFUSED[name]
    function, top = sa.value_and_grad(loss), trace_stack.top
    try:
        want = autograd.value_and_grad(loss)(P, data)
    except (TypeError, IndexError, AttributeError, ValueError) as error:
        with pytest.warns(DerivationWarning, match=message), pytest.raises(type(error)):
            function(P, data)
        return
    finally:
        trace_stack.top = top  # which autograd leaves raised
    with pytest.warns(DerivationWarning, match=message) as caught:
        got = function(P, data)
    assert len(caught) == 1
    assert "plain autograd, which is slower" in str(caught[0].message)
    assert caught[0].filename == __file__
    assert_agrees(got, want, 0.0)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert_agrees(function(P, data), want, 0.0)


def test_inputs_that_are_not_finite_are_autograds_this_once():
    function = sa.value_and_grad(lambda w: anp.sum(w**2))
    value, grad = function(np.array([np.nan, 1.0]))
    assert np.isnan(value)
    np.testing.assert_array_equal(grad, [np.nan, 2.0])
    assert len(cached._cache) == 0
    function(np.array([2.0, 1.0]))
    assert len(cached._cache) == 1
    np.testing.assert_array_equal(function(np.array([np.nan, 1.0]))[1], [np.nan, 2.0])


def test_a_number_or_array_from_outside_that_changes_makes_a_new_program():
    scale, target, options = 2.0, np.ones(3), {"power": 2}

    def inner(w):
        return anp.sum((w - target) ** options["power"])

    def loss(w):
        return sum([scale * inner(w) for _ in range(1)])

    function = sa.value_and_grad(loss)
    w = np.array([1.0, 2.0, 4.0])
    assert function(w)[0] == 20.0
    scale = 3.0
    assert function(w)[0] == 30.0
    target = np.zeros(3)
    assert function(w)[0] == 63.0
    target[0] = 1.0
    assert function(w)[0] == 60.0
    options["power"] = 4
    assert function(w)[0] == 3 * (16 + 256)
    assert len(cached._cache) == 5


FACTOR = 2.0


def with_global(w):
    return sum([FACTOR * anp.sum(w) for _ in range(1)])


def test_a_global_or_an_attribute_that_changes_makes_a_new_program(monkeypatch):
    class Model:
        def __init__(self):
            self.decay = 2.0

        def loss(self, w):
            return self.decay * anp.sum(w)

    model = Model()
    function, method = sa.value_and_grad(with_global), sa.value_and_grad(model.loss)
    assert (function(np.ones(2))[0], method(np.ones(2))[0]) == (4.0, 4.0)
    monkeypatch.setitem(globals(), "FACTOR", 5.0)
    model.decay = 7.0
    assert (function(np.ones(2))[0], method(np.ones(2))[0]) == (10.0, 14.0)


def test_partial_objects_callables_and_what_cannot_be_hashed():
    class Loss:
        __hash__ = None

        def __call__(self, w):
            return anp.sum(w**2)

    assert sa.value_and_grad(Loss())(np.ones(2))[0] == 2.0
    power = functools.partial(lambda n, w: anp.sum(w**n), 3)
    assert sa.value_and_grad(power)(2 * np.ones(2))[0] == 16.0


def test_a_gradient_of_a_gradient_is_autograds():
    inner = sa.value_and_grad(lambda w: anp.sum(w**3))

    def penalty(w):
        return anp.sum(inner(w)[1] ** 2)

    w = np.array([1.0, -2.0])
    np.testing.assert_allclose(autograd.grad(penalty)(w), 36 * w**3, rtol=1e-14)
    np.testing.assert_allclose(sa.value_and_grad(penalty)(w)[1], 36 * w**3, rtol=1e-14)


def test_threads_share_the_programs():
    function = sa.value_and_grad(mlp(anp.tanh))
    want = autograd.value_and_grad(mlp(anp.tanh))
    results, errors = {}, []
    barrier = threading.Barrier(8)

    def work(k):
        try:
            barrier.wait(10)
            for _ in range(20):
                n = 3 + k % 4
                results[k] = function(P, X[:n], Y[:n])
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=work, args=(k,)) for k in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    assert len(cached._cache) == 4
    for k, result in results.items():
        n = 3 + k % 4
        assert_agrees(result, want(P, X[:n], Y[:n]), 1e-14)


def test_a_losss_primitive_without_a_rule_of_ours_is_called_as_autograd_calls_it():
    @primitive
    def strange(x):
        return np.sort(np.asarray(x, dtype=float) ** 3)[::-1][np.argsort(np.argsort(-x))]

    defvjp(strange, lambda ans, x: lambda g: 3 * g * x**2)
    program = derive(lambda w: anp.sum(strange(w)), B)
    want = autograd.value_and_grad(lambda w: anp.sum(strange(w)))(B)
    assert_agrees(program(B), want, 1e-14)
    assert list(program.needs) == ["strange"]
    assert "# needs strange (function)" in program.source


# -------------------- fit --------------------


def fitted(loss, params, data, **options):
    settings = {"optimizer": sa.sgd(0.05), "max_epoch": 1, "batch_size": len(data[0]), "rng": 0}
    return sa.fit(params, *data, loss=loss, **settings | options)


def assert_same_fit(loss, params, data, tolerance=1e-12, **options):
    ours = fitted(loss, params, data, **options)
    plain = fitted(loss, params, data, value_and_grad=autograd.value_and_grad(loss), **options)
    for a, b in zip(leaves(ours.params), leaves(plain.params), strict=True):
        assert np.asarray(a).dtype == np.asarray(b).dtype
        np.testing.assert_allclose(a, b, rtol=0, atol=tolerance * max(1.0, np.max(np.abs(b))))
    np.testing.assert_allclose(ours.loss_list, plain.loss_list, rtol=tolerance)


FITTED = [
    name
    for name, (_, params, *data) in LOSSES.items()
    if data
    and all(isinstance(d, np.ndarray) and d.dtype != bool for d in data)
    and name not in ("rnn of 300", "batch of 1", "constant")
    and not any(isinstance(leaf, float) for leaf in leaves(params))
]


@pytest.mark.parametrize("name", FITTED)
def test_steps_of_fit_are_those_of_plain_autograd(name):
    loss, params, *data = LOSSES[name]
    assert_same_fit(
        loss, params, data, optimizer=sa.sgd(1e-6), max_epoch=3, batch_size=12, eval_interval=1
    )
    (program,) = cached._cache.values()
    assert program is not None


RULES_OF_TRAINING = [
    sa.sgd(0.05),
    sa.momentum(0.02),
    sa.nesterov(0.02),
    sa.adagrad(0.05),
    sa.rmsprop(0.01),
    sa.adam(0.01),
]


@pytest.mark.parametrize("rule", RULES_OF_TRAINING, ids=lambda rule: rule.name)
@pytest.mark.parametrize("max_grad", [None, 0.1])
@pytest.mark.parametrize(
    "params",
    [
        {"a": SHARED, "b": SHARED},
        {"a": SHARED, "b": SHARED.T},
        {"a": SHARED, "b": SHARED.copy()},
        {"a": SHARED.astype(np.float32), "b": SHARED},
    ],
    ids=["same", "transposed", "two", "mixed"],
)
def test_training_on_the_derived_path_equals_the_pytree_path(rule, max_grad, params):
    def loss(p, x):
        return anp.mean((x @ anp.tanh(p["a"]) @ p["b"] - 1.0) ** 2)

    tolerance = 1e-4 if params["a"].dtype == np.float32 else 1e-9
    assert_same_fit(
        loss,
        params,
        (X,),
        tolerance,
        optimizer=rule,
        max_grad=max_grad,
        max_epoch=5,
        batch_size=4,
        eval_interval=3,
    )
    state = fitted(loss, params, (X,), optimizer=rule, max_epoch=2, batch_size=4)
    if params["a"] is params["b"]:
        assert state.params["a"] is state.params["b"]


def test_fit_falls_back_to_plain_autograd_with_one_warning():
    def loss(p, x):
        return anp.sum((x @ p["W"]) ** 2) * (1.0 if anp.sum(x) < 1e9 else 2.0)

    with pytest.warns(DerivationWarning, match="became a Python bool") as caught:
        ours = fitted(loss, P, (X,), optimizer=sa.sgd(1e-3), max_epoch=3)
    assert len(caught) == 1
    plain = autograd.value_and_grad(loss)
    theirs = fitted(loss, P, (X,), optimizer=sa.sgd(1e-3), max_epoch=3, value_and_grad=plain)
    for a, b in zip(leaves(ours.params), leaves(theirs.params), strict=True):
        np.testing.assert_array_equal(a, b)


def test_a_buffered_step_gives_the_same_twice_and_follows_the_parameters():
    for name in ("slices", "nested", "batch norm", "transposes", "views by other functions"):
        loss, params, *data = LOSSES[name]
        layout = FlatLayout.of(params)
        vector, grads = layout.pack_tree(params), layout.pack_tree(params)
        program = derive(loss, params, *data)
        step = buffered_step(program, layout.views(vector), layout.views(grads))
        first, of_first = step(*data), grads.copy()
        vector *= 1.5
        other = float(step(*data))
        assert not np.array_equal(grads, of_first)
        vector /= 1.5
        assert abs(step(*data) - first) <= 1e-13 * abs(first)
        np.testing.assert_allclose(grads, of_first, atol=1e-12 * np.max(np.abs(of_first)))
        assert other != first
