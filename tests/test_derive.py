import warnings

import autograd
import autograd.numpy as anp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import spiral_autograd as sa
from spiral_autograd.derive import derive
from spiral_autograd.flat import FlatLayout
from spiral_autograd.pytree import leaves, named_leaves, tree_map

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
    "float power": lambda z: anp.exp(z) ** 1.7 + anp.square(z),
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
    "orders": (
        lambda p: (
            anp.sum(anp.ravel(p["W"], "F")[:7] ** 2)
            + anp.sum(anp.reshape(p["V"], (3, 5), order="F")[0] ** 3)
        ),
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


def assert_programs_agree(loss, params, data, tolerance):
    """The program, its text and its buffered form against autograd, on fresh data, twice."""
    program = derive(loss, params, *data)
    pasted = dict(program.needs)
    exec(program.source, pasted)
    layout = FlatLayout.of(params)
    make, dtypes = program.buffered
    params_vector, grads_vector = layout.pack_tree(params), layout.pack_tree(params)
    step = make(layout.views(params_vector), layout.views(grads_vector))
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
        arrays = [leaf for leaf in leaves(new_data) if isinstance(leaf, np.ndarray | float)]
        value = step(*(np.asarray(a).astype(d) for a, d in zip(arrays, dtypes, strict=True)))
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


@settings(max_examples=150)
@given(recipes())
def test_random_losses_agree_with_autograd(recipe):
    assert_random_agrees(recipe)
