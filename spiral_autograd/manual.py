"""The chapter's derivations by hand: each node's forward and backward function, in plain NumPy.

Every forward function returns its output and the residuals that its backward function needs;
every backward function takes the upstream gradient g (the gradient of the loss with respect to
the node's output, of the output's shape) and these residuals, and returns the gradient with
respect to each input. Nothing here is shared with ``network``: two independent accounts of the
same mathematics, which the tests compare. Bad input raises ValueError or TypeError with the
argument's name.

Source: Saito, *Deep Learning from Scratch 2*, sections 1.3.4 and 1.3.5. The derivations are
written out in ``docs/derivations.md``.
"""

from __future__ import annotations

from typing import Any, TypeAlias

import numpy as np

from .validation import (
    Array,
    Params,
    affine_shapes,
    examples,
    float_scores,
    network_params,
    positive_integer,
    targets,
)

Residuals: TypeAlias = tuple[Any, ...]

# -------------------- add, multiply, branch, repeat, sum --------------------


def _same_shape(x: Array, y: Array) -> None:
    if np.shape(x) != np.shape(y):
        raise ValueError(
            f"x and y must have the same shape, got {np.shape(x)} and {np.shape(y)}; "
            "the repeat node makes an axis of length 1 longer"
        )


def add(x: Array, y: Array) -> tuple[Array, Residuals]:
    """Return x + y, for arrays of the same shape, and its residuals (none).

    >>> add(np.array([1.0, 2.0]), np.array([3.0, 4.0]))[0]
    array([4., 6.])
    """
    _same_shape(x, y)
    return np.add(x, y), ()


def add_backward(g: Array, residuals: Residuals) -> tuple[Array, Array]:
    """Return dx = g and dy = g: the upstream gradient flows on unchanged.

    >>> add_backward(np.array([5.0]), ())
    (array([5.]), array([5.]))
    """
    return np.copy(g), np.copy(g)


def multiply(x: Array, y: Array) -> tuple[Array, Residuals]:
    """Return x y, elementwise, for arrays of the same shape, and its residuals (x, y).

    >>> multiply(np.array([1.0, 2.0]), np.array([3.0, 4.0]))[0]
    array([3., 8.])
    """
    _same_shape(x, y)
    return np.multiply(x, y), (x, y)


def multiply_backward(g: Array, residuals: Residuals) -> tuple[Array, Array]:
    """Return dx = g y and dy = g x: each input is the other's factor.

    >>> multiply_backward(np.array([1.0]), (np.array([2.0]), np.array([3.0])))
    (array([3.]), array([2.]))
    """
    x, y = residuals
    return g * y, g * x


def branch(x: Array, n: int = 2) -> tuple[tuple[Array, ...], Residuals]:
    """Return `n` copies of x and its residuals (none).

    >>> branch(np.array([1.0]))[0]
    (array([1.]), array([1.]))
    """
    return tuple(np.copy(x) for _ in range(positive_integer("n", n))), ()


def branch_backward(g: tuple[Array, ...], residuals: Residuals) -> Array:
    """Return dx = g₁ + g₂ + …: the upstream gradients of the copies, added.

    >>> branch_backward((np.array([1.0]), np.array([2.0])), ())
    array([3.])
    """
    return np.sum(np.stack(g), axis=0)


def _axis_length(x: Array, axis: int) -> int:
    shape = np.shape(x)
    if not -len(shape) <= axis < len(shape):
        raise ValueError(f"axis {axis} does not exist: x has the shape {shape}")
    return shape[axis]


def repeat(x: Array, n: int, axis: int = 0) -> tuple[Array, Residuals]:
    """Return x repeated `n` times along an `axis` of length 1, and its residuals (axis,).

    >>> repeat(np.array([[1.0, 2.0]]), 3)[0]
    array([[1., 2.],
           [1., 2.],
           [1., 2.]])
    """
    if _axis_length(x, axis) != 1:
        raise ValueError(f"x must have the length 1 along axis {axis}, got the shape {np.shape(x)}")
    return np.repeat(x, positive_integer("n", n), axis=axis), (axis,)


def repeat_backward(g: Array, residuals: Residuals) -> Array:
    """Return dx = Σ g along the axis: a repeat is a branch, so its backward is a sum.

    >>> repeat_backward(np.array([[1.0, 2.0], [3.0, 4.0]]), (0,))
    array([[4., 6.]])
    """
    (axis,) = residuals
    return np.sum(g, axis=axis, keepdims=True)


def sum(x: Array, axis: int = 0) -> tuple[Array, Residuals]:  # noqa: A001 (the node's name)
    """Return the sum of x along an `axis`, kept with length 1, and its residuals (n, axis).

    >>> sum(np.array([[1.0, 2.0], [3.0, 4.0]]))[0]
    array([[4., 6.]])
    """
    n = _axis_length(x, axis)
    return np.sum(x, axis=axis, keepdims=True), (n, axis)


def sum_backward(g: Array, residuals: Residuals) -> Array:
    """Return dx = g repeated along the axis: every summand gets the whole upstream gradient.

    >>> sum_backward(np.array([[1.0, 2.0]]), (2, 0))
    array([[1., 2.],
           [1., 2.]])
    """
    n, axis = residuals
    return np.repeat(g, n, axis=axis)


# -------------------- matmul, affine, sigmoid --------------------


def _check_affine(x: Array, W: Array, b_shape: tuple[int, ...]) -> None:
    if np.ndim(x) != 2:
        raise ValueError(f"x must have the shape (examples, inputs), got {np.shape(x)}")
    affine_shapes(x=np.shape(x), W=np.shape(W), b=b_shape)


def matmul(x: Array, W: Array) -> tuple[Array, Residuals]:
    """Return x W for x (N, D) and W (D, H), and its residuals (x, W).

    >>> matmul(np.ones((1, 2)), np.ones((2, 3)))[0]
    array([[2., 2., 2.]])
    """
    _check_affine(x, W, np.shape(W)[1:])
    return np.dot(x, W), (x, W)


def matmul_backward(g: Array, residuals: Residuals) -> tuple[Array, Array]:
    """Return dx = g Wᵀ and dW = xᵀ g: the only products whose shapes fit.

    >>> dx, dW = matmul_backward(np.ones((1, 3)), (np.ones((1, 2)), np.ones((2, 3))))
    >>> dx, dW.shape
    (array([[3., 3.]]), (2, 3))
    """
    x, W = residuals
    return np.dot(g, W.T), np.dot(x.T, g)


def affine(x: Array, W: Array, b: Array) -> tuple[Array, Residuals]:
    """Return x W + b for x (N, D), W (D, H) and b (H,), and its residuals (x, W).

    >>> affine(np.ones((1, 2)), np.ones((2, 3)), np.ones(3))[0]
    array([[3., 3., 3.]])
    """
    _check_affine(x, W, np.shape(b))
    return np.dot(x, W) + b, (x, W)


def affine_backward(g: Array, residuals: Residuals) -> tuple[Array, Array, Array]:
    """Return dx = g Wᵀ, dW = xᵀ g and db = Σ g over the batch, along which b is repeated.

    >>> dx, dW, db = affine_backward(np.ones((4, 3)), (np.ones((4, 2)), np.ones((2, 3))))
    >>> db
    array([4., 4., 4.])
    """
    x, W = residuals
    return np.dot(g, W.T), np.dot(x.T, g), np.sum(g, axis=0)


def sigmoid(x: Array) -> tuple[Array, Residuals]:
    """Return y = 1 / (1 + exp(-x)), elementwise, and its residuals (y,).

    Both parts of the quotient are multiplied by exp(-max(x, 0)), so that neither overflows.

    >>> sigmoid(np.array([-1e4, 0.0, 1e4]))[0]
    array([0. , 0.5, 1. ])
    """
    x = float_scores("x", x)
    largest = np.maximum(x, 0.0)
    of_x = np.exp(x - largest)
    y = of_x / (np.exp(-largest) + of_x)
    return y, (y,)


def sigmoid_backward(g: Array, residuals: Residuals) -> Array:
    """Return dx = g y (1 - y): the derivative by the output alone.

    >>> sigmoid_backward(np.array([1.0]), (np.array([0.5]),))
    array([0.25])
    """
    (y,) = residuals
    return g * y * (1.0 - y)


# -------------------- softmax, cross-entropy, and the two fused --------------------


def softmax(scores: Array) -> tuple[Array, Residuals]:
    """Return y = exp(s) / Σ exp(s) of each row of scores (N, C), and its residuals (y,).

    >>> softmax(np.array([[0.0, 0.0], [1e4, -1e4]]))[0]
    array([[0.5, 0.5],
           [1. , 0. ]])
    """
    scores = float_scores("scores", scores, axes=1)
    exponentials = np.exp(scores - np.max(scores, axis=-1, keepdims=True))
    y = exponentials / exponentials.sum(axis=-1, keepdims=True)
    return y, (y,)


def softmax_backward(g: Array, residuals: Residuals) -> Array:
    """Return ds = y (g - Σ g y), the sum over the classes of each row.

    >>> softmax_backward(np.array([[1.0, 0.0]]), (np.array([[0.5, 0.5]]),))
    array([[ 0.25, -0.25]])
    """
    (y,) = residuals
    return y * (g - np.sum(g * y, axis=-1, keepdims=True))


def _one_hot(t: Array, like: Array) -> Array:
    t = targets(t, np.shape(like))
    if t.ndim == 1:
        t = np.eye(np.shape(like)[1])[t]
    return t.astype(np.result_type(like, np.float16))


def cross_entropy(y: Array, t: Array) -> tuple[Any, Residuals]:
    """Return the mean of -Σ t log y over the N examples, and its residuals (y, one-hot t).

    The class probabilities y (N, C) must be above 0 where t is 1; t is one-hot (N, C) or class
    indices (N,). From scores, `softmax_with_loss` computes the same without this limit.

    >>> loss, residuals = cross_entropy(np.array([[0.5, 0.5]]), np.array([0]))
    >>> bool(loss == np.log(2))
    True
    """
    y = float_scores("y", y, axes=1)
    t = _one_hot(t, y)
    of_class = np.sum(y * t, axis=1)
    return -np.sum(np.log(of_class)) / len(y), (y, t)


def cross_entropy_backward(g: Any, residuals: Residuals) -> Array:
    """Return dy = -g t / (N y), where t is 1; elsewhere 0.

    >>> cross_entropy_backward(1.0, (np.array([[0.5, 0.5]]), np.array([[1.0, 0.0]])))
    array([[-2.,  0.]])
    """
    y, t = residuals
    dy = np.zeros_like(t)
    return np.divide(-g * t, len(y) * y, out=dy, where=t > 0)


def softmax_with_loss(scores: Array, t: Array) -> tuple[Any, Residuals]:
    """Return the mean cross-entropy of softmax(scores), and its residuals (y, one-hot t).

    The scores have the shape (N, C); t is one-hot (N, C) or class indices (N,).

    >>> loss, (y, t) = softmax_with_loss(np.zeros((1, 2)), np.array([0]))
    >>> y
    array([[0.5, 0.5]])
    """
    scores = float_scores("scores", scores, axes=1)
    t = _one_hot(t, scores)
    y, _ = softmax(scores)
    above_least = scores - np.max(scores, axis=1, keepdims=True)
    log_y = above_least - np.log(np.exp(above_least).sum(axis=1, keepdims=True))
    return -np.sum(t * log_y) / len(scores), (y, t)


def softmax_with_loss_backward(g: Any, residuals: Residuals) -> Array:
    """Return ds = g (y - t) / N: all that is left of softmax and cross-entropy together.

    >>> softmax_with_loss_backward(1.0, (np.array([[0.5, 0.5]]), np.array([[1.0, 0.0]])))
    array([[-0.5,  0.5]])
    """
    y, t = residuals
    return g * (y - t) / len(t)


# -------------------- the network --------------------


def value_and_grad(params: Params, x: Array, t: Array) -> tuple[Any, Params]:
    """Return the loss of the two-layer network and its gradient, derived by hand.

    The arguments and the result (a float, and an array for each parameter, of its shape) are those
    of ``autograd.value_and_grad(network.loss)``. Saito, section 1.4.2.

    Examples
    --------
    >>> params = {"W1": np.eye(2), "b1": np.zeros(2), "W2": np.eye(2), "b2": np.zeros(2)}
    >>> loss, grads = value_and_grad(params, np.array([[1.0, -1.0]]), np.array([0]))
    >>> grads["b2"].round(4)
    array([-0.3865,  0.3865])
    """
    x = examples("x", x)
    W1, b1, W2, b2 = network_params(params, x)
    h, affine1 = affine(x, W1, b1)
    a, activation = sigmoid(h)
    scores, affine2 = affine(a, W2, b2)
    loss, loss_residuals = softmax_with_loss(scores, t)

    dscores = softmax_with_loss_backward(1.0, loss_residuals)
    da, dW2, db2 = affine_backward(dscores, affine2)
    dh = sigmoid_backward(da, activation)
    _, dW1, db1 = affine_backward(dh, affine1)
    return loss, {"W1": dW1, "b1": db1, "W2": dW2, "b2": db2}
