import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from spiral_autograd.pytree import FlatLayout, leaves

RNG = np.random.default_rng(2)
TREE = {
    "W": RNG.standard_normal((2, 3)),
    "list": [RNG.standard_normal(4), (RNG.standard_normal(()), RNG.standard_normal((1, 0)))],
}


def assert_same_tree(tree, expected):
    assert type(tree) is type(expected)
    if isinstance(expected, dict):
        assert list(tree) == list(expected)
    ours, theirs = leaves(tree), leaves(expected)
    assert len(ours) == len(theirs)
    for a, b in zip(ours, theirs, strict=True):
        assert (np.shape(a), a.dtype) == (np.shape(b), b.dtype)
        np.testing.assert_array_equal(a, b)


def test_a_pytree_goes_into_one_vector_and_back():
    layout = FlatLayout.of(TREE)
    vector = layout.pack_tree(TREE)
    assert vector.shape == (6 + 4 + 1 + 0,)
    np.testing.assert_array_equal(vector, np.concatenate([np.ravel(leaf) for leaf in leaves(TREE)]))
    assert_same_tree(layout.tree(vector), TREE)


def test_the_vector_is_a_copy_and_the_tree_is_views_of_it():
    layout = FlatLayout.of(TREE)
    vector = layout.pack_tree(TREE)
    assert not any(np.shares_memory(vector, leaf) for leaf in leaves(TREE) if leaf.size)
    views = layout.views(vector)
    assert all(np.shares_memory(vector, view) for view in views if view.size)
    vector *= 2.0
    assert_same_tree(layout.tree(vector), {k: _twice(v) for k, v in TREE.items()})


def _twice(tree):
    if isinstance(tree, list | tuple):
        return type(tree)(map(_twice, tree))
    return np.asarray(2.0 * tree)


def test_each_dtype_has_a_vector_of_its_own():
    tree = [np.ones(2, np.float32), np.full(3, 2.0), np.full((2, 2), 3.0, np.float32)]
    layout = FlatLayout.of(tree)
    single, double = layout.pack_tree(tree)
    assert tuple(layout.sizes) == (np.float32, np.float64) == (single.dtype, double.dtype)
    np.testing.assert_array_equal(single, [1, 1, 3, 3, 3, 3])
    np.testing.assert_array_equal(double, [2, 2, 2])
    assert_same_tree(layout.tree((single, double)), tree)


@pytest.mark.parametrize("turned", [False, True])
def test_leaves_that_are_one_array_have_one_place(turned):
    W = RNG.standard_normal((2, 2))
    tree = {"a": W, "b": W.T if turned else W, "c": np.ones(3)}
    layout = FlatLayout.of(tree)
    vector = layout.pack_tree(tree)
    assert vector.shape == (7,)
    assert_same_tree(layout.tree(vector), tree)
    vector[1] = 99.0
    params = layout.tree(vector)
    assert params["a"][0, 1] == 99.0 == params["b"][(1, 0) if turned else (0, 1)]


@pytest.mark.parametrize("turned", [False, True])
def test_the_gradients_of_leaves_that_are_one_array_are_added(turned):
    W, ga, gb = (RNG.standard_normal((2, 2)) for _ in range(3))
    layout = FlatLayout.of({"a": W, "b": W.T if turned else W})
    vector = layout.pack_tree(layout.template)
    layout.write_grads(vector, {"b": gb, "a": ga})  # in another order of the keys
    np.testing.assert_array_equal(vector, np.ravel(ga + (gb.T if turned else gb)))


def test_gradients_come_in_the_dtype_of_their_parameters():
    layout = FlatLayout.of({"a": np.ones(2, np.float32)})
    vector = layout.pack_tree(layout.template)
    layout.write_grads(vector, {"a": np.array([0.1, 0.2])})
    assert vector.dtype == np.float32
    np.testing.assert_array_equal(vector, np.array([0.1, 0.2], np.float32))


def test_a_gradient_that_is_no_float_is_refused():
    layout = FlatLayout.of({"a": np.ones(2)})
    with pytest.raises(TypeError, match="cast"):
        layout.write_grads(layout.pack_tree(layout.template), {"a": np.ones(2) * 1j})


@given(st.lists(st.lists(st.integers(0, 3), max_size=3), min_size=1, max_size=6), st.data())
def test_any_shapes_go_there_and_back(shapes, data):
    dtypes = [data.draw(st.sampled_from([np.float32, np.float64])) for _ in shapes]
    tree = [
        np.arange(np.prod(shape)).reshape(shape).astype(dtype) + k
        for k, (shape, dtype) in enumerate(zip(shapes, dtypes, strict=True))
    ]
    layout = FlatLayout.of(tree)
    assert_same_tree(layout.tree(layout.pack_tree(tree)), tree)
    assert sum(np.size(v) for v in leaves(layout.pack_tree(tree))) == sum(a.size for a in tree)
