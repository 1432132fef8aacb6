"""Bad input is a TypeError or a ValueError that names it: never another error, never a NaN."""

import numpy as np
import pytest

import spiral_autograd as sa

X, T = sa.load_data(0)
X, T = X[::10], T[::10]


def deep(depth):
    tree = np.ones(2)
    for _ in range(depth):
        tree = [tree]
    return tree


def circular(kind):
    tree = {"W": np.ones(2)} if kind is dict else [np.ones(2)]
    if kind is dict:
        tree["itself"] = (tree,)
    else:
        tree.append(tree)
    return tree


USES_OF_A_PYTREE = {
    "value_and_grad": lambda tree: sa.value_and_grad(lambda p: 0.0)(tree),
    "data": lambda tree: sa.value_and_grad(lambda w, d: np.sum(w))(np.ones(2), tree),
    "derive": lambda tree: sa.derive(lambda p: 0.0, tree),
    "fit": lambda tree: sa.fit(tree, X, T),
    "fit's gradient": lambda tree: sa.fit(
        [np.ones(2)], X, loss=lambda p, x: 0.0, value_and_grad=lambda p, x: (0.0, tree)
    ),
    "clip_grads": lambda tree: sa.clip_grads(tree, 1.0),
    "an optimizer": lambda tree: sa.sgd(0.1).update(tree, tree, None),
    "check_gradient": lambda tree: sa.check_gradient(lambda p: 0.0, lambda p: p, tree),
}


TREES = {"deep": deep(3000), "list": circular(list), "dict": circular(dict)}


@pytest.mark.parametrize("tree", TREES.values(), ids=TREES)
@pytest.mark.parametrize("use", USES_OF_A_PYTREE)
def test_a_pytree_that_contains_itself_or_is_3000_deep(use, tree):
    with pytest.raises((TypeError, ValueError)):
        USES_OF_A_PYTREE[use](tree)


# -------------------- softmax & co --------------------

PARTS = {
    "sigmoid": sa.sigmoid,
    "softmax": sa.softmax,
    "cross_entropy": lambda s: sa.cross_entropy(s, T[: len(s)]),
    "manual.sigmoid": sa.manual.sigmoid,
    "manual.softmax": sa.manual.softmax,
    "manual.cross_entropy": lambda s: sa.manual.cross_entropy(s, T[: len(s)]),
    "manual.softmax_with_loss": lambda s: sa.manual.softmax_with_loss(s, T[: len(s)]),
}


@pytest.mark.parametrize("part", PARTS)
@pytest.mark.parametrize("dtype", [np.uint8, np.int64, bool, object, "U1"])
def test_what_is_no_floating_point_array_is_named_with_its_dtype(part, dtype):
    scores = np.array([[1, 0, 1], [0, 1, 0]]).astype(dtype)
    with pytest.raises(TypeError, match="floating-point numbers, got dtype"):
        PARTS[part](scores)


@pytest.mark.parametrize("part", PARTS)
@pytest.mark.parametrize("shape", [(0,), (0, 3), (3, 0)])
def test_an_empty_array_is_a_value_error(part, shape):
    with pytest.raises(ValueError, match=r"must have at least .* got the shape"):
        PARTS[part](np.zeros(shape))


def test_lists_and_numbers_are_converted():
    assert sa.sigmoid(0) == 0.5
    np.testing.assert_array_equal(sa.softmax([1, 1]), [0.5, 0.5])
    assert sa.cross_entropy([[0, 0]], np.array([1])) == np.log(2)


# -------------------- other arguments --------------------


@pytest.mark.parametrize("argnum", ["x", None, 1.5, ("x",), [0, None], {}])
def test_what_is_no_position_is_no_argnum(argnum):
    with pytest.raises(TypeError, match="argnum must be the position"):
        sa.value_and_grad(np.sum, argnum=argnum)


@pytest.mark.parametrize("loss", [None, 3, "loss", np.ones(2)])
def test_what_cannot_be_called_is_no_loss(loss):
    with pytest.raises(TypeError, match="loss must be a function"):
        sa.value_and_grad(loss)


@pytest.mark.parametrize("state", [None, [1.0, 0.5], {"loss_list": [1.0]}, np.ones(3), "loss"])
def test_the_loss_of_something_else_than_a_state_cannot_be_drawn(state):
    with pytest.raises(TypeError, match="state must be a TrainState"):
        sa.plot_loss(state)


@pytest.mark.parametrize(
    "swapped",
    [
        lambda p: sa.predict(X, p),
        lambda p: sa.loss(X, p, T),
        lambda p: sa.accuracy(X, p, T),
        lambda p: sa.manual.value_and_grad(X, p, T),
        lambda p: sa.fit(X, p, T),
        lambda p: sa.fit(X, T, p),
        lambda p: sa.decision_grid(X, p),
        lambda p: sa.plot_decision_boundary(X, p, T),
        lambda p: sa.plot_decision_boundary(X, T, p),
    ],
)
def test_parameters_in_the_place_of_the_data_are_said_to_be_so(swapped):
    with pytest.raises(TypeError, match="got a dict: parameters stand before the data"):
        swapped(sa.init_params(2, 3, 3, rng=0))


def test_an_option_of_another_library_is_told_what_it_is_here():
    with pytest.raises(
        TypeError, match=r"load_data has no seed=: use rng= \(it takes rng, samples"
    ):
        sa.load_data(seed=1)
    with pytest.raises(TypeError, match=r"init_params has no seed=: use rng= \("):
        sa.init_params(2, 10, 3, seed=1)
    params = sa.init_params(2, 3, 3, rng=0)
    with pytest.raises(TypeError, match=r"fit has no lr=: use optimizer= \("):
        sa.fit(params, X, T, lr=1.0)
    with pytest.raises(TypeError, match=r"fit has no seeds= \(it takes start, data, loss"):
        sa.fit(params, X, T, seeds=1)


# -------------------- any predictor --------------------

WEIGHTS = np.random.default_rng(0).normal(size=(2, 3))


class Scores:
    def predict(self, x):
        return x @ WEIGHTS


class Classes:
    def predict(self, x):
        return np.argmax(x @ WEIGHTS, axis=1)


PREDICTORS = [lambda x: x @ WEIGHTS, Scores(), Classes(), Classes().predict]


@pytest.mark.parametrize("predictor", PREDICTORS)
def test_a_function_or_an_object_predicts_as_the_networks_parameters_do(predictor):
    xs, ys, classes = sa.decision_grid(predictor, X, h=0.1)
    points = np.stack(np.meshgrid(xs, ys), axis=-1) @ WEIGHTS
    np.testing.assert_array_equal(classes, points.argmax(axis=-1))
    assert sa.accuracy(predictor, X, T) == np.mean((X @ WEIGHTS).argmax(1) == T.argmax(1))
    (image,) = sa.plot_decision_boundary(predictor, X, T, h=0.1).images
    np.testing.assert_array_equal(image.get_array(), classes)


def test_many_points_are_given_in_parts():
    counts = []

    def predictor(x):
        counts.append(len(x))
        return x @ WEIGHTS

    _, _, classes = sa.decision_grid(predictor, X, h=0.004)
    assert sum(counts) == classes.size > max(counts)
    assert max(counts) <= 65_536


@pytest.mark.parametrize(
    "predictor",
    [
        None,
        np.ones(3),
        lambda x: np.ones(len(x)),
        lambda x: x[1:],
        lambda x: np.full((len(x), 3), np.nan),
        lambda x: -np.ones(len(x), int),
        lambda x: None,
        lambda x: np.ones((len(x), 3, 2)),
    ],
)
def test_what_predicts_neither_scores_nor_classes_is_refused(predictor):
    with pytest.raises((TypeError, ValueError)):
        sa.decision_grid(predictor, X, h=0.1)
    with pytest.raises((TypeError, ValueError)):
        sa.accuracy(predictor, X, T)
