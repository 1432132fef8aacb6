"""The chapter's network as pure functions of its parameters, for autograd to differentiate.

Parameters are a dict as `init_params` makes them. Classes are one-hot (examples, classes), or ints
(examples,). Bad input (another structure, shape or dtype than is said, empty, not finite) raises
ValueError or TypeError with the argument's name. Source: Saito, *Deep Learning from Scratch 2*.
"""

from __future__ import annotations

from typing import Any

import autograd.numpy as np
import numpy as onp
from autograd.extend import JVPNode, VJPNode, defjvp, defvjp, primitive, register_notrace

from .validation import (
    Array,
    Params,
    Random,
    affine_shapes,
    class_indices,
    examples,
    finite_array,
    float_scores,
    hinting,
    network_params,
    number,
    positive_integer,
    random_stream,
    targets,
)

# -------------------- the parts --------------------


@primitive  # type: ignore[untyped-decorator]
def stop_gradient(x: Array) -> Array:
    """Return `x` as a constant: the identity, with no gradient in either mode.

    Examples
    --------
    >>> from autograd import grad
    >>> float(grad(lambda x: x * stop_gradient(x))(3.0))
    3.0
    """
    return x


register_notrace(VJPNode, stop_gradient)
register_notrace(JVPNode, stop_gradient)


@primitive  # type: ignore[untyped-decorator]
def sigmoid(x: Array) -> Array:
    """Return 1 / (1 + exp(-x)) of each entry of a float array, without overflow.

    An elementary function with a derivative rule of its own, as autograd has them for exp and
    tanh: traced through the quotient, the gradient would be inf / inf where exp(-x) overflows.
    Saito, section 1.3.5.

    Examples
    --------
    >>> sigmoid(onp.array([-1e4, 0.0, 1e4])).round(12)
    array([0. , 0.5, 1. ])
    """
    x = float_scores("x", x)
    largest = float(onp.floor(onp.log(onp.finfo(onp.result_type(x.dtype, onp.float16)).max)))
    return 1.0 / (1.0 + np.exp(np.minimum(-x, largest)))


defvjp(sigmoid, lambda y, x: lambda g: g * (y * (1.0 - y)))
defjvp(sigmoid, lambda g, y, x: g * (y * (1.0 - y)))


def affine(x: Array, W: Array, b: Array) -> Array:
    """Return x W + b, a float array (examples, outputs): Saito, section 1.3.5.

    Of float arrays (examples, inputs), (inputs, outputs) and (outputs,).

    Examples
    --------
    >>> affine(onp.ones((1, 2)), onp.ones((2, 3)), onp.zeros(3))
    array([[2., 2., 2.]])
    """
    affine_shapes(x=onp.shape(x), W=onp.shape(W), b=onp.shape(b))
    return np.dot(x, W) + b


def _shifted(scores: Array) -> Array:
    """Scores with their row's largest at 0: exp cannot overflow, and the shift cancels exactly."""
    return scores - np.max(stop_gradient(scores), axis=-1, keepdims=True)


def softmax(scores: Array) -> Array:
    """Return the probabilities exp(s) / Σ exp(s) of float scores (..., classes): Saito, 1.3.1.

    Examples
    --------
    >>> softmax(onp.array([[0.0, 0.0], [1e4, -1e4]]))
    array([[0.5, 0.5],
           [1. , 0. ]])
    """
    exponentials = np.exp(_shifted(float_scores("scores", scores, axes=1)))
    return exponentials / np.sum(exponentials, axis=-1, keepdims=True)


def cross_entropy(scores: Array, t: Array) -> Any:
    """Return the mean over the examples of -log softmax(scores)[class], by log-sum-exp.

    Of float scores (examples, classes), not probabilities, and their classes `t`, one-hot or ints:
    a scalar of the scores' dtype. Saito, section 1.3.1.

    Examples
    --------
    >>> scores = onp.zeros((1, 4))
    >>> bool(cross_entropy(scores, onp.array([2])) == onp.log(4))
    True
    """
    scores = float_scores("scores", scores, axes=1)
    t = targets(t, scores.shape)
    samples, classes = scores.shape
    one_hot = t[:, None] == np.arange(classes) if t.ndim == 1 else t
    shifted = _shifted(scores)
    log_sum_exp = np.log(np.sum(np.exp(shifted), axis=1))
    of_class = np.sum(shifted * one_hot.astype(scores.dtype), axis=1)
    # A division by the Python int keeps float32: autograd's rule for mean divides by an int64.
    return np.sum(log_sum_exp - of_class) / samples


# -------------------- the network --------------------


@hinting
def init_params(
    input_size: int, hidden_size: int, output_size: int, *, rng: Random, scale: float = 0.01
) -> Params:
    """Return new parameters, small normal weights and zero biases: Saito, section 1.4.2.

    They are a dict of float64 arrays: W1 (input_size, hidden_size), b1 (hidden_size,),
    W2 (hidden_size, output_size), b2 (output_size,).

    Parameters
    ----------
    input_size, hidden_size, output_size : int
    rng : int, RandomState or Generator
        The stream of the draws, W1's first, then W2's. A stream that is given is advanced.
    scale : float, above 0
        The standard deviation of the weights.

    Examples
    --------
    >>> {name: array.shape for name, array in init_params(2, 10, 3, rng=0).items()}
    {'W1': (2, 10), 'b1': (10,), 'W2': (10, 3), 'b2': (3,)}
    """
    sizes = {"input_size": input_size, "hidden_size": hidden_size, "output_size": output_size}
    n, h, m = (positive_integer(name, size) for name, size in sizes.items())
    scale = number("scale", scale, above=0)
    stream = random_stream(rng)
    W1, W2 = (scale * stream.standard_normal(shape) for shape in ((n, h), (h, m)))
    return {"W1": W1, "b1": onp.zeros(h), "W2": W2, "b2": onp.zeros(m)}


def predict(params: Params, x: Array) -> Array:
    """Return the scores (examples, classes) of the network: affine, sigmoid, affine.

    Of a float array `x` (examples, inputs). Saito, section 1.4.2.

    Examples
    --------
    >>> params = init_params(2, 10, 3, rng=0)
    >>> predict(params, onp.zeros((5, 2))).shape
    (5, 3)
    """
    x = examples("x", x)
    W1, b1, W2, b2 = network_params(params, x)
    hidden = sigmoid(affine(x, W1, b1))
    return affine(hidden, W2, b2)


def loss(params: Params, x: Array, t: Array) -> Any:
    """Return the mean cross-entropy of the network's scores, a float scalar.

    Of a float array `x` (examples, inputs) and its classes `t`, one-hot or ints: Saito, 1.4.2.

    Examples
    --------
    >>> params = init_params(2, 10, 3, rng=0)
    >>> round(float(loss(params, onp.zeros((5, 2)), onp.zeros(5, dtype=int))), 1)
    1.1
    """
    return cross_entropy(predict(params, x), t)


# -------------------- any predictor --------------------


def scores_or_classes(predictor: Any, x: Array) -> Array:
    """Return what a predictor says of examples: scores (examples, classes), or classes (examples,).

    A predictor is the parameters of this network, a function of the examples, or an object with
    a method ``predict``.
    """
    if hasattr(predictor, "keys"):
        return predict(predictor, x)
    function = getattr(predictor, "predict", predictor)
    if not callable(function):
        raise ValueError(
            "params must be a dict with the arrays W1, b1, W2 and b2 (see init_params), a function "
            f"of x, or an object with a method predict(x), got {type(predictor).__name__}"
        )
    said, samples = finite_array("what the predictor returns", function(x)), len(x)
    are_classes = said.shape == (samples,) and said.dtype.kind in "iu" and said.min() >= 0
    if not (are_classes or (said.ndim == 2 and len(said) == samples)):
        raise ValueError(
            f"the predictor must return scores of the shape ({samples}, classes), or a class index "
            f"for each of {samples} examples, got {said.dtype} of the shape {said.shape}"
        )
    return said


def accuracy(params: Any, x: Array, t: Array) -> float:
    """Return the fraction, from 0 to 1, of the examples whose largest score is their class's.

    `params` may be any other predictor too: a function, or an object with a method `predict`, that
    returns scores (examples, classes), or classes (examples,), for `x`.

    Examples
    --------
    >>> params = init_params(2, 10, 3, rng=0)
    >>> params["b2"][1] = 1.0
    >>> accuracy(params, onp.zeros((4, 2)), onp.array([1, 1, 1, 0]))
    0.75
    >>> accuracy(lambda x: onp.argmax(x, axis=1), onp.eye(2), onp.array([0, 0]))
    0.5
    """
    said = scores_or_classes(params, examples("x", x))
    by_scores = said.ndim == 2
    classes, _ = class_indices(t, len(said), said.shape[1] if by_scores else None)
    found = onp.argmax(said, axis=1) if by_scores else said
    return float(onp.mean(found == classes))
