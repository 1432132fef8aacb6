import autograd
import autograd.numpy as anp
import numpy as np
import pytest
from autograd.test_util import check_grads
from hypothesis import given
from hypothesis import strategies as st
from witness import complex_step, departure, frozen, position, random_params

import spiral_autograd as sa

X = frozen(np.random.RandomState(1).standard_normal((4, 2)))
T = frozen(np.array([0, 2, 1, 1]))
PARAMS = frozen(random_params(np.random.RandomState(2)))


@pytest.fixture
def strict():
    with np.errstate(over="raise", invalid="raise", divide="raise"):
        yield


def one_hot(t, classes=3):
    return np.eye(classes, dtype=int)[t]


# -------------------- shapes and exact values --------------------


@given(*(st.integers(1, 6) for _ in range(4)))
def test_scores_have_a_row_for_each_example_and_a_column_for_each_class(n, inputs, hidden, classes):
    params = sa.init_params(inputs, hidden, classes, rng=0)
    x, t = np.ones((n, inputs)), np.zeros(n, dtype=int)
    assert sa.predict(params, x).shape == (n, classes)
    assert np.shape(sa.loss(params, x, t)) == ()


def test_sigmoid_of_known_odds():
    odds = np.array([[1 / 3, 1.0], [3.0, 9.0]])
    np.testing.assert_allclose(
        sa.sigmoid(np.log(odds)), [[0.25, 0.5], [0.75, 0.9]], rtol=1e-15, atol=0
    )


def test_softmax_and_cross_entropy_of_known_odds():
    scores = np.log([[1.0, 2.0, 5.0], [1.0, 1.0, 2.0]])
    expected = [[1 / 8, 2 / 8, 5 / 8], [1 / 4, 1 / 4, 2 / 4]]
    np.testing.assert_allclose(sa.softmax(scores), expected, rtol=1e-15)
    loss = sa.cross_entropy(scores, np.array([0, 2]))
    np.testing.assert_allclose(loss, (np.log(8) + np.log(2)) / 2, rtol=1e-15)


def test_the_network_is_affine_sigmoid_affine():
    params = {
        "W1": np.diag(np.log([3.0, 9.0])),
        "b1": np.array([0.0, np.log(3.0)]),
        "W2": np.array([[4.0, 0.0, 1.0], [0.0, 4.0, 1.0]]),
        "b2": np.array([0.0, 0.0, 10.0]),
    }
    x = np.array([[1.0, 0.0], [-1.0, -1.0]])  # hidden: 3/4 3/4, then 1/4 1/4
    scores = [[3.0, 3.0, 11.5], [1.0, 1.0, 10.5]]
    np.testing.assert_allclose(sa.predict(params, x), scores, rtol=1e-15)


def test_equal_scores_lose_the_logarithm_of_the_number_of_classes():
    loss = sa.cross_entropy(np.zeros((5, 7)), np.arange(5))
    np.testing.assert_allclose(loss, np.log(7), rtol=1e-15)


def test_accuracy_is_the_fraction_of_right_classes():
    params = sa.init_params(2, 4, 3, rng=0) | {"b2": np.array([0.0, 5.0, 0.0])}
    t = np.array([1, 0, 1, 1])
    assert sa.accuracy(params, X, t) == 0.75
    assert sa.accuracy(params, X, one_hot(t)) == 0.75


def test_one_hot_and_index_targets_agree_in_loss_and_gradient():
    for t in (one_hot(T), one_hot(T).astype(float), one_hot(T).astype(bool)):
        for source in (autograd.value_and_grad(sa.loss), sa.manual.value_and_grad):
            np.testing.assert_equal(source(PARAMS, X, t), source(PARAMS, X, T))


def test_inputs_may_be_lists():
    assert sa.loss(PARAMS, X.tolist(), T.tolist()) == sa.loss(PARAMS, X, T)


# -------------------- gradients --------------------


def textbook_sigmoid(x):
    return 1.0 / (1.0 + anp.exp(-x))


@given(st.lists(st.floats(-8, 8), min_size=1, max_size=8))
def test_sigmoids_rule_is_autograds_derivation_of_the_quotient(values):
    x = np.array(values)
    gradient = autograd.elementwise_grad(sa.sigmoid)(x)
    expected = autograd.elementwise_grad(textbook_sigmoid)(x)
    np.testing.assert_allclose(gradient, expected, rtol=1e-12)


def test_sigmoid_where_the_quotient_has_a_nan_gradient():
    x = np.array([-720.0, -1e4, 1e4])
    with np.errstate(all="ignore"):
        assert np.isnan(autograd.elementwise_grad(textbook_sigmoid)(x)).any()
    gradient = autograd.elementwise_grad(sa.sigmoid)(x)
    assert ((gradient >= 0) & (gradient < 1e-300)).all()


def test_sigmoids_second_derivative():
    x = np.linspace(-5, 5, 11)
    y = textbook_sigmoid(x)
    second = autograd.elementwise_grad(autograd.elementwise_grad(sa.sigmoid))(x)
    np.testing.assert_allclose(second, y * (1 - y) * (1 - 2 * y), rtol=1e-12, atol=1e-16)


@pytest.mark.parametrize("part", [sa.sigmoid, sa.softmax, lambda s: sa.cross_entropy(s, T)])
def test_each_part_has_both_modes_to_second_order(part):
    scores = np.random.RandomState(3).standard_normal((4, 3))
    check_grads(part, modes=["fwd", "rev"], order=2)(scores)  # asserts


def test_affine_has_both_modes_to_second_order():
    arguments = X, PARAMS["W1"], PARAMS["b1"]
    check_grads(sa.affine, modes=["fwd", "rev"], order=2)(*arguments)  # asserts


@pytest.mark.parametrize("scores", [np.zeros((2, 3)), np.array([[2.0, 2.0, 0.0], [1.0, 5.0, 5.0]])])
def test_the_stabilising_maximum_has_no_gradient_even_where_it_is_tied(scores):
    t = np.array([0, 1])
    expected = (sa.softmax(scores) - one_hot(t)) / 2
    gradient = autograd.grad(sa.cross_entropy)(scores, t)
    np.testing.assert_allclose(gradient, expected, rtol=1e-15, atol=1e-16)


def test_stop_gradient_is_a_constant_in_both_modes():
    def function(x):
        return x * sa.stop_gradient(x * x)

    assert function(3.0) == 27.0
    assert autograd.grad(function)(3.0) == 9.0
    assert autograd.make_jvp(function)(3.0)(1.0) == (27.0, 9.0)


def test_forward_mode_of_the_loss_is_the_gradient_along_the_direction():
    direction = random_params(np.random.RandomState(5))
    value, slope = autograd.make_jvp(sa.loss)(PARAMS, X, T)(direction)

    def along(s):
        moved = {name: PARAMS[name] + s * direction[name] for name in PARAMS}
        return sa.manual.value_and_grad(moved, X, T)[0]

    assert value == sa.loss(PARAMS, X, T)
    assert departure(slope, complex_step(along, [np.array(0.0)])) < 1e-12


def test_second_derivatives_of_the_loss():
    direction = random_params(np.random.RandomState(5))

    def along(params):
        grads = autograd.grad(sa.loss)(params, X, T)
        return sum(anp.sum(grads[name] * direction[name]) for name in params)

    moved = {name: PARAMS[name] + 1e-30j * direction[name] for name in PARAMS}
    witness = sa.manual.value_and_grad(moved, X, T)[1]
    for name, product in autograd.grad(along)(PARAMS).items():
        assert departure(product, witness[name].imag / 1e-30) < 1e-12


# -------------------- precision and range --------------------


@pytest.mark.parametrize("t", [T, one_hot(T)], ids=["indices", "one-hot"])
@pytest.mark.parametrize("source", [autograd.value_and_grad(sa.loss), sa.manual.value_and_grad])
def test_float32_in_float32_out(source, t):
    single = {name: array.astype(np.float32) for name, array in PARAMS.items()}
    value, grads = source(single, X.astype(np.float32), t)
    expected_value, expected = source(PARAMS, X, t)
    assert value.dtype == np.float32
    assert departure(value, expected_value) < 1e-6
    for name in PARAMS:
        assert grads[name].dtype == np.float32
        assert departure(grads[name], expected[name]) < 1e-5


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_the_parts_keep_the_dtype(dtype):
    scores = np.linspace(-3, 3, 12, dtype=dtype).reshape(4, 3)
    for part in (sa.sigmoid, sa.softmax, lambda s: sa.cross_entropy(s, T)):
        assert part(scores).dtype == dtype
        assert autograd.elementwise_grad(part)(scores).dtype == dtype


@pytest.mark.usefixtures("strict")
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_sigmoid_and_its_gradient_do_not_overflow(dtype):
    x = np.array([-1e4, -1e2, 0, 1e2, 1e4], dtype=dtype)
    np.testing.assert_allclose(sa.sigmoid(x), [0, 0, 0.5, 1, 1], rtol=0, atol=1e-37)
    gradient = autograd.elementwise_grad(sa.sigmoid)(x)
    np.testing.assert_allclose(gradient, [0, 0, 0.25, 0, 0], rtol=0, atol=1e-37)
    y, residuals = sa.manual.sigmoid(x)
    np.testing.assert_allclose(y, [0, 0, 0.5, 1, 1], rtol=0, atol=1e-37)
    by_hand = sa.manual.sigmoid_backward(np.ones_like(x), residuals)
    np.testing.assert_allclose(by_hand, [0, 0, 0.25, 0, 0], rtol=0, atol=1e-37)


@pytest.mark.usefixtures("strict")
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_softmax_and_cross_entropy_do_not_overflow(dtype):
    scores = np.array([[1e4, -1e4, 0], [-1e4, -1e4, -1e4], [1e4, 1e4, 0]], dtype=dtype)
    t = np.array([1, 0, 2])
    y = np.array([[1, 0, 0], [1 / 3, 1 / 3, 1 / 3], [0.5, 0.5, 0]])
    loss = (2e4 + np.log(3) + 1e4 + np.log(2)) / 3
    expected = (y - one_hot(t)) / 3
    np.testing.assert_allclose(sa.softmax(scores), y, rtol=1e-6)
    assert departure(sa.cross_entropy(scores, t), loss) < 1e-6
    np.testing.assert_allclose(
        autograd.grad(sa.cross_entropy)(scores, t), expected, rtol=1e-6, atol=1e-7
    )
    by_hand, residuals = sa.manual.softmax_with_loss(scores, t)
    assert departure(by_hand, loss) < 1e-6
    by_hand = sa.manual.softmax_with_loss_backward(1.0, residuals)
    np.testing.assert_allclose(by_hand, expected, rtol=1e-6, atol=1e-7)


@pytest.mark.usefixtures("strict")
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("source", [autograd.value_and_grad(sa.loss), sa.manual.value_and_grad])
def test_the_whole_network_does_not_overflow(source, dtype):
    params = {
        "W1": np.array([[1e4, -1e4, 1.0]]),
        "b1": np.zeros(3),
        "W2": 1e4 * np.array([[1.0, -1.0], [-1.0, 1.0], [0.0, 0.0]]),
        "b2": np.zeros(2),
    }
    params = {name: array.astype(dtype) for name, array in params.items()}
    x = np.array([[1.0], [-1.0]], dtype=dtype)  # hidden: 1 0, then 0 1; scores ±1e4
    value, grads = source(params, x, np.array([1, 1]))
    assert value == 1e4  # of one example 2e4, of the other 0
    assert all(np.isfinite(grad).all() for grad in grads.values())
    np.testing.assert_array_equal(grads["b2"], [0.5, -0.5])


# -------------------- init_params --------------------


@pytest.mark.parametrize("make", [np.random.RandomState, np.random.default_rng])
def test_the_weights_are_drawn_in_order_and_scaled(make):
    stream, other = make(3), make(3)
    params = sa.init_params(2, 10, 3, rng=stream, scale=0.5)
    np.testing.assert_array_equal(params["W1"], 0.5 * other.standard_normal((2, 10)))
    np.testing.assert_array_equal(params["W2"], 0.5 * other.standard_normal((10, 3)))
    np.testing.assert_equal(position(stream), position(other))
    np.testing.assert_array_equal(params["b1"], np.zeros(10), strict=True)
    np.testing.assert_array_equal(params["b2"], np.zeros(3), strict=True)


def test_the_weights_are_a_hundredth_of_the_normals_unless_told():
    params = sa.init_params(2, 10, 3, rng=3)
    np.testing.assert_array_equal(params["W1"], 0.01 * np.random.RandomState(3).randn(2, 10))


@pytest.mark.parametrize("name", ["input_size", "hidden_size", "output_size"])
@pytest.mark.parametrize(("value", "error"), [(0, ValueError), (-1, ValueError), (2.0, TypeError)])
def test_sizes_must_be_whole_numbers_of_at_least_1(name, value, error):
    sizes = {"input_size": 2, "hidden_size": 3, "output_size": 4} | {name: value}
    with pytest.raises(error, match=f"{name} must be a whole number"):
        sa.init_params(**sizes, rng=0)


@pytest.mark.parametrize(
    ("scale", "error"),
    [
        (0, ValueError),
        (-1, ValueError),
        (np.nan, ValueError),
        (np.inf, ValueError),
        (1j, TypeError),
    ],
)
def test_the_scale_must_be_above_0(scale, error):
    with pytest.raises(error, match="scale must be"):
        sa.init_params(2, 3, 4, rng=0, scale=scale)


def test_a_refused_call_draws_nothing():
    stream = np.random.RandomState(3)
    with pytest.raises(ValueError, match="output_size"):
        sa.init_params(2, 3, 0, rng=stream)
    np.testing.assert_equal(position(stream), position(np.random.RandomState(3)))


# -------------------- bad input --------------------

OF_PARAMS_X_T = {
    "loss": sa.loss,
    "automatic": autograd.value_and_grad(sa.loss),
    "handwritten": sa.manual.value_and_grad,
    "accuracy": sa.accuracy,
}


@pytest.fixture(params=OF_PARAMS_X_T, ids=str)
def function(request):
    return OF_PARAMS_X_T[request.param]


@pytest.mark.parametrize(
    ("x", "error", "message"),
    [
        (np.zeros((4, 3)), ValueError, r"x and params\['W1'\] do not fit"),
        (np.zeros(2), ValueError, r"x must have the shape \(examples, features\), got \(2,\)"),
        (np.zeros((4, 2, 1)), ValueError, r"x must have the shape"),
        (3.0, ValueError, r"x must have the shape"),
        (np.zeros((0, 2)), ValueError, "x is empty"),
        (np.where(np.eye(4, 2) > 0, np.nan, X), ValueError, r"x must be finite.*index \(0, 0\)"),
        (np.where(np.eye(4, 2) > 0, X, -np.inf), ValueError, r"x must be finite.*index \(0, 1\)"),
        (X + 1j, TypeError, "x must hold real numbers"),
        ([["a", "b"]] * 4, TypeError, "x must hold real numbers"),
        ([[1.0, 2.0], [3.0]], ValueError, "^x must"),
    ],
)
def test_bad_x_is_named(function, x, error, message):
    with pytest.raises(error, match=message):
        function(PARAMS, x, T)


@pytest.mark.parametrize(
    ("t", "error", "message"),
    [
        (T[:3], ValueError, r"t must be one-hot with the shape \(4, 3\) .* got \(3,\)"),
        (one_hot(T)[:3], ValueError, r"t must be one-hot .* got \(3, 3\)"),
        (one_hot(T, 4), ValueError, r"t must be one-hot .* got \(4, 4\)"),
        (1, ValueError, r"t must be one-hot .* got \(\)"),
        (np.array([0, 1, 2, 3]), ValueError, r"t must hold class indices from 0 to 2.*t\[3\] = 3"),
        (
            np.array([0, -1, 2, 1]),
            ValueError,
            r"t must hold class indices.*t\[1\] = -1",
        ),
        (T.astype(float), TypeError, "t must hold class indices as integers"),
        (np.zeros((4, 3)), ValueError, "t must be one-hot.*row 0"),
        (one_hot(T) + np.eye(4, 3, -1, int), ValueError, "t must be one-hot.*row 1"),
        (np.full((4, 3), 1 / 3), ValueError, "t must be one-hot.*row 0"),
        (2 * one_hot(T) - 1, ValueError, "t must be one-hot.*row 0"),
        (np.where(one_hot(T), np.nan, 0.0), ValueError, "t must be finite"),
        (np.zeros(0, dtype=int), ValueError, "t is empty"),
        (["a"] * 4, TypeError, "t must hold real numbers"),
    ],
)
def test_bad_t_is_named(function, t, error, message):
    with pytest.raises(error, match=message):
        function(PARAMS, X, t)


def changed(**arrays):
    return PARAMS | arrays


@pytest.mark.parametrize(
    ("params", "error", "message"),
    [
        ({}, ValueError, "params must be a dict with the arrays W1, b1, W2 and b2"),
        (changed(b3=np.zeros(3)), ValueError, "params must be a dict"),
        ({n: a for n, a in PARAMS.items() if n != "b1"}, ValueError, "params must be a dict"),
        (np.zeros(3), ValueError, "params must be a dict"),
        (changed(W1=np.zeros(5)), ValueError, r"params\['W1'\] must have the shape"),
        (changed(W1=np.zeros((3, 5))), ValueError, r"x and params\['W1'\] do not fit"),
        (changed(b1=np.zeros(4)), ValueError, r"params\['b1'\] must have one entry for each col"),
        (changed(b1=np.zeros((1, 5))), ValueError, r"params\['b1'\] must have one entry"),
        (changed(W2=np.zeros((4, 3))), ValueError, r"params\['W2'\] do not fit"),
        (changed(b2=np.zeros(2)), ValueError, r"params\['b2'\] must have one entry"),
    ],
)
def test_params_of_another_structure_are_named(function, params, error, message):
    with pytest.raises(error, match=message):
        function(params, X, T)


@pytest.mark.parametrize("function", [sa.loss, sa.manual.value_and_grad])
def test_a_list_among_the_params_is_named(function):
    with pytest.raises(TypeError, match=r"params\['b1'\] must be an array, got list"):
        function(changed(b1=[0.0] * 5), X, T)


def test_affine_names_what_does_not_fit():
    x, W, b = np.zeros((4, 2)), np.zeros((2, 3)), np.zeros(3)
    for affine in (sa.affine, sa.manual.affine):
        with pytest.raises(ValueError, match="x and W do not fit"):
            affine(np.zeros((4, 5)), W, b)
        with pytest.raises(ValueError, match="W must have the shape"):
            affine(x, np.zeros(2), b)
        with pytest.raises(ValueError, match="b must have one entry for each column of W"):
            affine(x, W, np.zeros(2))
