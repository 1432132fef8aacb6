import math

import autograd
import numpy as np
import pytest
from witness import departure, frozen, random_params

import spiral_autograd as sa
from spiral_autograd import manual

# -------------------- the published recurrences, number by number --------------------


def gradient(theta):
    """Of some function of one number; it changes along the way."""
    return 3.0 * theta + math.sin(5.0 * theta)


def by_sgd(theta, steps, lr=0.1):
    for _ in range(steps):
        theta -= lr * gradient(theta)
    return theta


def by_polyak(theta, steps, lr=0.1, mu=0.8):
    before = theta
    for _ in range(steps):
        theta, before = theta - lr * gradient(theta) + mu * (theta - before), theta
    return theta


def by_nesterov(theta, steps, lr=0.1, mu=0.8):
    """The look-ahead definition; returns the look-ahead point, which the package stores."""
    v = 0.0
    for _ in range(steps):
        v = mu * v - lr * gradient(theta + mu * v)
        theta = theta + v
    return theta + mu * v


def by_adagrad(theta, steps, lr=0.1, eps=1e-3):
    total = 0.0
    for _ in range(steps):
        total += gradient(theta) ** 2
        theta -= lr * gradient(theta) / (math.sqrt(total) + eps)
    return theta


def by_rmsprop(theta, steps, lr=0.1, decay=0.7, eps=1e-3):
    mean = 0.0
    for _ in range(steps):
        mean = decay * mean + (1 - decay) * gradient(theta) ** 2
        theta -= lr * gradient(theta) / (math.sqrt(mean) + eps)
    return theta


def by_adam(theta, steps, lr=0.1, beta1=0.7, beta2=0.9, eps=1e-3):
    """The paper's algorithm, in the efficient order at the end of its section 2."""
    m = v = 0.0
    for t in range(1, steps + 1):
        g = gradient(theta)
        m = beta1 * m + (1 - beta1) * g
        v = beta2 * v + (1 - beta2) * g**2
        alpha = lr * math.sqrt(1 - beta2**t) / (1 - beta1**t)
        theta -= alpha * m / (math.sqrt(v) + eps)
    return theta


RULES = {
    "sgd": (sa.sgd(0.1), by_sgd),
    "momentum": (sa.momentum(0.1, momentum=0.8), by_polyak),
    "nesterov": (sa.nesterov(0.1, momentum=0.8), by_nesterov),
    "adagrad": (sa.adagrad(0.1, eps=1e-3), by_adagrad),
    "rmsprop": (sa.rmsprop(0.1, decay=0.7, eps=1e-3), by_rmsprop),
    "adam": (sa.adam(0.1, beta1=0.7, beta2=0.9, eps=1e-3), by_adam),
}
NESTED = {
    "layers": [(np.array([[0.3, -1.0], [2.0, 0.7]]), np.array([0.5])), (np.array(-0.4),)],
    "b": np.array([1.5, -0.2, 0.1]),
}
elementwise_gradient = np.vectorize(gradient)


def numbers(tree):
    if isinstance(tree, dict):
        return [number for key in tree for number in numbers(tree[key])]
    if isinstance(tree, list | tuple):
        return [number for subtree in tree for number in numbers(subtree)]
    return np.ravel(tree).tolist()


def leafwise(function, tree):
    if isinstance(tree, dict):
        return {key: leafwise(function, value) for key, value in tree.items()}
    if isinstance(tree, list | tuple):
        return type(tree)(leafwise(function, value) for value in tree)
    return function(tree)


@pytest.mark.parametrize("name", RULES)
def test_a_rule_follows_its_published_recurrence_on_a_nested_pytree(name):
    rule, published = RULES[name]
    params, state = frozen(NESTED), frozen_state(rule.init(frozen(NESTED)))
    for steps in range(1, 8):
        grads = frozen(leafwise(elementwise_gradient, params))
        params, state = rule.update(params, grads, state)  # read-only: a mutation would raise
        params, state = frozen(params), frozen_state(state)
        expected = [published(theta, steps) for theta in numbers(NESTED)]
        np.testing.assert_allclose(numbers(params), expected, rtol=1e-12)
    assert leafwise(np.shape, params) == leafwise(np.shape, NESTED)


def frozen_state(state):
    return leafwise(lambda leaf: leaf if isinstance(leaf, int) else frozen(leaf), state)


@pytest.mark.parametrize("name", RULES)
def test_an_update_is_a_pure_function(name):
    rule, _ = RULES[name]
    params, grads = {"w": np.array([1.0, -2.0])}, {"w": np.array([0.5, 0.25])}
    state = rule.init(params)
    _, state = rule.update(params, grads, state)
    np.testing.assert_equal(rule.update(params, grads, state), rule.update(params, grads, state))
    np.testing.assert_equal((params, grads), ({"w": [1.0, -2.0]}, {"w": [0.5, 0.25]}))


@pytest.mark.parametrize("name", RULES)
def test_float32_stays_float32(name):
    rule, _ = RULES[name]
    params = [np.array([1.0, -2.0], dtype=np.float32)]
    state = rule.init(params)
    for _ in range(3):
        params, state = rule.update(params, [np.array([0.5, 0.1], dtype=np.float32)], state)
    assert params[0].dtype == np.float32


def test_the_defaults_are_the_books():
    w, g = np.array([1.0]), np.array([0.5])
    for rule, expected in {
        sa.sgd(): 1 - 0.01 * 0.5,
        sa.momentum(): 1 - 0.01 * 0.5,
        sa.nesterov(): 1 - 0.01 * 0.5 * 1.9,
        sa.adagrad(): 1 - 0.01 * 0.5 / (0.5 + 1e-7),
        sa.rmsprop(): 1 - 0.01 * 0.5 / (0.5 * 0.1 + 1e-7),
        sa.adam(): 1 - 0.001 * 0.5 * 0.001**0.5 / (0.5 * 0.001**0.5 + 1e-7),
    }.items():
        stepped, _ = rule.update(w, g, rule.init(w))
        np.testing.assert_allclose(1 - stepped, [1 - expected], rtol=1e-12, err_msg=rule.name)


def test_the_second_step_shows_the_default_decay_of_each():
    w, g = np.array([0.0]), np.array([1.0])
    adam = 0.001 * math.sqrt(1 - 0.999**2) / (math.sqrt(1 - 0.999**2) + 1e-7)
    for rule, expected in {
        sa.momentum(): 0.01 * 1.9,
        sa.nesterov(): 0.01 * (1 + 0.9 + 0.9**2),
        sa.rmsprop(): 0.01 / (math.sqrt(1 - 0.99**2) + 1e-7),
        sa.adam(): adam,
    }.items():
        first, state = rule.update(w, g, rule.init(w))
        second, _ = rule.update(first, g, state)
        np.testing.assert_allclose(first - second, [expected], rtol=1e-10, err_msg=rule.name)


@pytest.mark.parametrize("name", RULES)
@pytest.mark.parametrize("lr", [0, -1.0, np.nan, np.inf, "fast", None, 1j])
def test_the_rate_must_be_a_finite_number_above_0(name, lr):
    with pytest.raises((ValueError, TypeError), match="lr must be"):
        getattr(sa, name)(lr=lr)


@pytest.mark.parametrize(
    ("rule", "name", "values"),
    [
        (sa.momentum, "momentum", [-0.1, 1.0, np.nan]),
        (sa.nesterov, "momentum", [-0.1, 1.0, np.nan]),
        (sa.adagrad, "eps", [0.0, -1e-7, np.inf]),
        (sa.rmsprop, "decay", [-0.1, 1.0]),
        (sa.rmsprop, "eps", [0.0]),
        (sa.adam, "beta1", [-0.1, 1.0]),
        (sa.adam, "beta2", [-0.1, 1.0]),
        (sa.adam, "eps", [0.0]),
    ],
)
def test_the_other_numbers_must_be_in_their_ranges(rule, name, values):
    for value in values:
        with pytest.raises(ValueError, match=f"^{name} must be a finite number"):
            rule(**{name: value})


# -------------------- clip_grads --------------------


def test_clipping_scales_all_gradients_by_the_global_norm():
    grads = frozen({"a": np.array([3.0, 0.0]), "b": [np.array([[4.0]])]})
    clipped = sa.clip_grads(grads, 2.0)
    rate = 2.0 / (5.0 + 1e-6)
    np.testing.assert_equal(clipped, {"a": [3.0 * rate, 0.0], "b": [[[4.0 * rate]]]})
    assert clipped["a"][0] != 1.2  # the 1e-6 is there


def test_clipping_leaves_smaller_gradients_as_they_are():
    grads = frozen({"a": np.array([3.0]), "b": np.array([4.0])})
    for max_norm in (5.0 + 1e-6, 5.1, 1e9):
        assert sa.clip_grads(grads, max_norm) is grads
    assert sa.clip_grads(grads, 5.0)["a"] < 3.0


def test_clipping_keeps_float32():
    clipped = sa.clip_grads([np.array([3.0, 4.0], dtype=np.float32)], 1.0)
    assert clipped[0].dtype == np.float32
    np.testing.assert_allclose(clipped[0], [0.6, 0.8], rtol=1e-5)


def test_clipping_keeps_the_direction_of_huge_gradients():
    with np.errstate(all="ignore"):
        clipped = sa.clip_grads([np.array([3e200, 4e200])], 1.0)
    np.testing.assert_allclose(clipped[0], [0.6, 0.8], rtol=1e-12)


@pytest.mark.parametrize("max_norm", [0, -1.0, np.nan, np.inf])
def test_the_norm_must_be_a_finite_number_above_0(max_norm):
    with pytest.raises(ValueError, match="max_norm must be a finite number above 0"):
        sa.clip_grads([np.ones(2)], max_norm)


# -------------------- remove_duplicate --------------------


def test_the_same_array_twice_is_one_parameter():
    W, b = frozen([np.arange(6.0).reshape(2, 3), np.arange(3.0)])
    grads = frozen([np.full((2, 3), 1.0), np.full(3, 7.0), np.full((2, 3), 10.0)])
    params, merged = sa.remove_duplicate([W, b, W], grads)
    assert [id(p) for p in params] == [id(W), id(b)]
    np.testing.assert_equal(merged, [np.full((2, 3), 11.0), np.full(3, 7.0)])


def test_an_array_and_its_transpose_are_one_parameter():
    W = frozen(np.arange(6.0).reshape(2, 3))
    g, of_transpose = frozen([np.arange(6.0).reshape(2, 3), np.arange(6.0).reshape(3, 2) ** 2])
    params, merged = sa.remove_duplicate([W, W.T], [g, of_transpose])
    assert params[0] is W
    np.testing.assert_equal(merged, [g + of_transpose.T])
    params, merged = sa.remove_duplicate([W.T, W], [of_transpose, g])
    np.testing.assert_equal(params, [W.T])
    np.testing.assert_equal(merged, [of_transpose + g.T])


def test_a_square_array_and_its_transpose_are_one_parameter():
    W = np.arange(4.0).reshape(2, 2)
    g = np.array([[1.0, 2.0], [3.0, 4.0]])
    _, merged = sa.remove_duplicate([W, W.T], [g, 10 * g])
    np.testing.assert_equal(merged, [[[11.0, 32.0], [23.0, 44.0]]])


def test_three_uses_are_one_parameter():
    W = frozen(np.arange(6.0).reshape(2, 3))
    grads = [np.full((2, 3), 1.0), np.full((3, 2), 10.0), np.full((2, 3), 100.0)]
    params, merged = sa.remove_duplicate([W, W.T, W], frozen(grads))
    assert len(params) == 1
    np.testing.assert_equal(merged, [np.full((2, 3), 111.0)])


def test_equal_numbers_in_different_memory_are_different_parameters():
    W = np.ones((2, 2))
    params, merged = sa.remove_duplicate([W, W.copy(), W[:1]], [W, 2 * W, 3 * W[:1]])
    assert len(params) == 3
    np.testing.assert_equal(merged, [W, 2 * W, 3 * W[:1]])


def test_merging_mutates_nothing():
    W = np.ones((2, 2))
    params, grads = [W, W.T, W], [np.full((2, 2), k) for k in (1.0, 2.0, 3.0)]
    sa.remove_duplicate(params, grads)
    assert len(params) == len(grads) == 3
    np.testing.assert_equal(grads, [np.full((2, 2), k) for k in (1.0, 2.0, 3.0)])


@pytest.mark.parametrize(
    ("grads", "message"),
    [
        ([np.ones(2)], r"grads must have the structure of params: \[1\] is missing"),
        ([np.ones(2)] * 3, r"grads must have the structure of params: \[2\] is too much"),
        ([np.ones(2), np.ones(3)], r"grads\[1\] must have the shape of params\[1\], \(2,\), got"),
    ],
)
def test_gradients_that_do_not_fit_are_named(grads, message):
    with pytest.raises(ValueError, match=message):
        sa.remove_duplicate([np.ones(2), np.ones(2)], grads)


def test_the_merged_handwritten_gradient_is_autograds_of_the_loss_with_tied_parameters():
    rng = np.random.RandomState(4)
    x, t = rng.standard_normal((6, 3)), rng.randint(3, size=6)
    free = random_params(rng, 3, 5, 3)
    W, b1, b2 = free["W1"], free["b1"], free["b2"]

    h, first = manual.affine(x, W, b1)
    a, activation = manual.sigmoid(h)
    scores, second = manual.affine(a, W.T, b2)
    _, of_loss = manual.softmax_with_loss(scores, t)
    da, dW2, db2 = manual.affine_backward(manual.softmax_with_loss_backward(1.0, of_loss), second)
    _, dW1, db1 = manual.affine_backward(manual.sigmoid_backward(da, activation), first)
    _, merged = sa.remove_duplicate([W, b1, W.T, b2], [dW1, db1, dW2, db2])

    def tied_loss(params):
        W, b1, b2 = params
        return sa.loss({"W1": W, "b1": b1, "W2": W.T, "b2": b2}, x, t)

    automatic = autograd.grad(tied_loss)([W, b1, b2])
    for by_hand, expected in zip(merged, automatic, strict=True):
        assert departure(by_hand, expected) < 1e-12
    assert departure(merged[0], dW1) > 0.1  # both uses count
