import ast
import inspect
from typing import NamedTuple

import autograd
import autograd.numpy as anp
import numpy as np
import pytest
from autograd.differential_operators import make_vjp
from hypothesis import given
from hypothesis import strategies as st
from witness import complex_step, departure, frozen, random_params

import spiral_autograd as sa
from spiral_autograd import manual

# -------------------- every node against two witnesses --------------------


class Node(NamedTuple):
    forward: object  # the handwritten forward function of the inputs
    backward: object
    reference: object  # the same forward pass in autograd.numpy
    inputs: object  # (rng, n, d, h) -> inputs


def normal(*shapes):
    return lambda rng, **size: [
        rng.standard_normal([size[letter] for letter in shape]) for shape in shapes
    ]


def with_axis(function, *arguments, axis):
    return lambda x: function(x, *arguments, axis=axis)


def probabilities(rng, n, h, **_):
    y = rng.uniform(0.1, 1.0, (n, h))
    return [y / y.sum(axis=1, keepdims=True)]


def textbook_softmax(scores):
    return anp.exp(scores) / anp.sum(anp.exp(scores), axis=1, keepdims=True)


def classes_of(scores):
    """Some class for each example, which depends on the shape alone."""
    n, classes = scores.shape
    return (np.arange(n) * 7 + n) % classes


def textbook_cross_entropy(y):
    return -anp.sum(anp.log(y[np.arange(len(y)), classes_of(y)])) / len(y)


NODES = {
    "add": Node(manual.add, manual.add_backward, lambda x, y: x + y, normal("nd", "nd")),
    "multiply": Node(
        manual.multiply, manual.multiply_backward, lambda x, y: x * y, normal("nd", "nd")
    ),
    "branch": Node(
        lambda x: manual.branch(x, 3),
        manual.branch_backward,
        lambda x: anp.stack([x, x, x]),
        normal("nd"),
    ),
    "repeat": Node(
        lambda x: manual.repeat(x[None], 4),
        lambda g, residuals: manual.repeat_backward(g, residuals)[0],
        lambda x: anp.stack([x, x, x, x]),
        normal("nd"),
    ),
    "repeat along the last axis": Node(
        lambda x: manual.repeat(x[:, None], 4, axis=-1),
        lambda g, residuals: manual.repeat_backward(g, residuals)[:, 0],
        lambda x: anp.stack([x, x, x, x], axis=1),
        normal("n"),
    ),
    "sum": Node(
        manual.sum,
        manual.sum_backward,
        lambda x: anp.sum(x, axis=0, keepdims=True),
        normal("nd"),
    ),
    "sum along the last axis": Node(
        with_axis(manual.sum, axis=-1),
        manual.sum_backward,
        lambda x: anp.sum(x, axis=1, keepdims=True),
        normal("nd"),
    ),
    "matmul": Node(manual.matmul, manual.matmul_backward, anp.dot, normal("nd", "dh")),
    "affine": Node(
        manual.affine,
        manual.affine_backward,
        lambda x, W, b: anp.dot(x, W) + b,
        normal("nd", "dh", "h"),
    ),
    "sigmoid": Node(
        manual.sigmoid, manual.sigmoid_backward, lambda x: 1 / (1 + anp.exp(-x)), normal("nd")
    ),
    "softmax": Node(manual.softmax, manual.softmax_backward, textbook_softmax, normal("nh")),
    "cross_entropy": Node(
        lambda y: manual.cross_entropy(y, classes_of(y)),
        manual.cross_entropy_backward,
        textbook_cross_entropy,
        probabilities,
    ),
    "softmax_with_loss": Node(
        lambda scores: manual.softmax_with_loss(scores, classes_of(scores)),
        manual.softmax_with_loss_backward,
        lambda scores: textbook_cross_entropy(textbook_softmax(scores)),
        normal("nh"),
    ),
}
SIZES = {"n": st.integers(1, 5), "d": st.integers(1, 5), "h": st.integers(2, 5)}


def as_tuple(gradients):
    return gradients if isinstance(gradients, tuple) else (gradients,)


@pytest.mark.parametrize("name", NODES)
@given(seed=st.integers(0, 2**32 - 1), **SIZES)
def test_a_node_agrees_with_autograd_and_with_the_complex_step(name, seed, **size):
    node, rng = NODES[name], np.random.RandomState(seed)
    inputs = frozen(node.inputs(rng, **size))
    output, residuals = node.forward(*inputs)
    for array in residuals:
        if isinstance(array, np.ndarray):
            array.flags.writeable = False
    argnums = tuple(range(len(inputs)))
    vjp, expected = make_vjp(lambda args: node.reference(*args))(tuple(inputs))
    assert departure(output, expected) < 1e-12

    g = frozen(rng.standard_normal(np.shape(output)))
    gradients = as_tuple(node.backward(tuple(g) if name == "branch" else g, residuals))
    for gradient, automatic, argnum in zip(gradients, vjp(np.array(g)), argnums, strict=True):
        witness = complex_step(lambda *a: np.sum(g * node.forward(*a)[0]), inputs, argnum)
        assert departure(gradient, automatic) < 1e-12
        assert departure(gradient, witness) < 1e-12


def test_the_table_above_holds_every_node():
    backwards = {name for name in vars(manual) if name.endswith("_backward")}
    assert backwards == {node.backward.__name__ for node in NODES.values()} - {"<lambda>"} | {
        "repeat_backward"
    }


def test_gradients_are_new_arrays():
    g = np.ones(3)
    dx, dy = manual.add_backward(g, ())
    dx += 1
    dy += 2
    assert g.tolist() == [1, 1, 1]
    (first, second), _ = manual.branch(g)
    first += 1
    assert second.tolist() == g.tolist() == [1, 1, 1]


# -------------------- softmax and cross-entropy, fused --------------------


@given(seed=st.integers(0, 2**32 - 1), n=st.integers(1, 5), classes=st.integers(2, 5))
def test_the_fused_node_is_softmax_then_cross_entropy(seed, n, classes):
    rng = np.random.RandomState(seed)
    scores, t = rng.standard_normal((n, classes)), rng.randint(classes, size=n)
    y, of_softmax = manual.softmax(scores)
    loss, of_cross_entropy = manual.cross_entropy(y, t)
    dy = manual.cross_entropy_backward(0.7, of_cross_entropy)
    fused, residuals = manual.softmax_with_loss(scores, t)
    assert departure(fused, loss) < 1e-12
    ds = manual.softmax_with_loss_backward(0.7, residuals)
    assert departure(manual.softmax_backward(dy, of_softmax), ds) < 1e-12


def test_one_hot_and_index_targets_agree():
    scores, t = np.random.RandomState(0).standard_normal((4, 3)), np.array([2, 0, 1, 1])
    for forward in (manual.softmax_with_loss, lambda s, t: manual.cross_entropy(np.exp(s), t)):
        np.testing.assert_equal(forward(scores, np.eye(3, dtype=int)[t]), forward(scores, t))


def test_cross_entropy_has_no_gradient_where_the_probability_of_another_class_is_0():
    with np.errstate(all="raise"):
        loss, residuals = manual.cross_entropy(np.array([[1.0, 0.0]]), np.array([0]))
        gradient = manual.cross_entropy_backward(1.0, residuals)
    assert loss == 0
    assert gradient.tolist() == [[-1.0, 0.0]]


# -------------------- the book's 1e-7 inside the logarithm --------------------


def book_loss(scores, t):
    """The loss as the book's program computes it."""
    y = textbook_softmax(scores)
    return -anp.sum(anp.log(y[np.arange(len(y)), t] + 1e-7)) / len(y)


def departure_of_the_books_gradient(scores, t):
    true = autograd.grad(book_loss)(scores, t)
    _, residuals = manual.softmax_with_loss(scores, t)
    return departure(manual.softmax_with_loss_backward(1.0, residuals), true)


def test_the_books_1e_7_moves_the_true_gradient_by_parts_per_million():
    rng = np.random.RandomState(0)
    scores, t = rng.standard_normal((3, 4)), rng.randint(4, size=3)
    assert 2.73e-6 < departure_of_the_books_gradient(scores, t) < 2.74e-6


def test_the_books_1e_7_moves_it_by_a_third_where_the_right_class_is_improbable():
    scores = np.log([[3e-7, 0.5, 0.5 - 3e-7]])
    moved = departure_of_the_books_gradient(scores, np.array([0]))
    np.testing.assert_allclose(moved, 1e-7 / 3e-7, rtol=1e-6)
    assert moved >= 0.16


# -------------------- the whole network --------------------


@given(seed=st.integers(0, 2**32 - 1), hidden=st.integers(1, 6), **SIZES)
def test_the_network_agrees_with_autograd_and_with_the_complex_step(seed, n, d, h, hidden):
    rng = np.random.RandomState(seed)
    params = frozen(random_params(rng, d, hidden, h))
    x, t = frozen([rng.standard_normal((n, d)), rng.randint(h, size=n)])
    value, grads = manual.value_and_grad(params, x, t)
    automatic_value, automatic = autograd.value_and_grad(sa.loss)(params, x, t)
    assert departure(value, automatic_value) < 1e-12
    assert list(grads) == list(automatic) == list(params)
    for name in params:

        def loss_of(array, name=name):
            return manual.value_and_grad(params | {name: array}, x, t)[0]

        assert departure(grads[name], automatic[name]) < 1e-12
        assert departure(grads[name], complex_step(loss_of, [params[name]])) < 1e-12


def test_the_signature_and_the_types_are_those_of_autograds():
    automatic = autograd.value_and_grad(sa.loss)
    names = list(inspect.signature(manual.value_and_grad).parameters)
    assert names == list(inspect.signature(sa.loss).parameters)
    params = random_params(np.random.RandomState(0))
    results = [
        f(params, np.ones((4, 2)), np.arange(4) % 3) for f in (manual.value_and_grad, automatic)
    ]
    (value, grads), (expected, expected_grads) = results
    assert type(value) is type(expected)
    assert type(grads) is type(expected_grads)
    for name in params:
        assert type(grads[name]) is type(expected_grads[name])


def test_manual_shares_no_code_with_network():
    tree = ast.parse(inspect.getsource(manual))
    imported = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            imported |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            imported |= {"." * node.level + (node.module or "")}
    assert imported <= {"__future__", "typing", "numpy", ".validation"}


# -------------------- bad input --------------------


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: manual.add(np.ones(2), np.ones(3)), "x and y must have the same shape"),
        (lambda: manual.add(np.ones((2, 1)), np.ones(2)), "x and y must have the same shape"),
        (lambda: manual.multiply(np.ones(2), 1.0), "x and y must have the same shape"),
        (lambda: manual.branch(np.ones(2), 0), "n must be a whole number of at least 1"),
        (lambda: manual.repeat(np.ones((1, 2)), 0), "n must be a whole number of at least 1"),
        (lambda: manual.repeat(np.ones((2, 2)), 3), "x must have the length 1 along axis 0"),
        (lambda: manual.repeat(np.ones((1, 2)), 3, axis=2), "axis 2 does not exist"),
        (lambda: manual.sum(np.ones((1, 2)), axis=-3), "axis -3 does not exist"),
        (lambda: manual.matmul(np.ones((4, 2)), np.ones((3, 2))), "x and W do not fit"),
        (lambda: manual.matmul(np.ones((4, 2)), np.ones(2)), "W must have the shape"),
        (lambda: manual.matmul(np.ones(2), np.ones((2, 3))), "x must"),
        (lambda: manual.affine(np.ones(2), np.ones((2, 3)), np.ones(3)), "x must"),
        (
            lambda: manual.affine(np.ones((1, 4, 2)), np.ones((2, 3)), np.ones(3)),
            "x must",
        ),
        (lambda: manual.softmax_with_loss(np.ones(3), np.array([1])), "scores must have the shape"),
        (
            lambda: manual.softmax_with_loss(np.ones((1, 3)), np.array([3])),
            "t must hold class indices from 0 to 2",
        ),
        (lambda: manual.cross_entropy(np.ones((2, 3)), np.array([0])), "t must be one-hot"),
    ],
)
def test_bad_input_of_a_node_is_named(call, message):
    with pytest.raises(ValueError, match=message):
        call()
