"""The optimizers: an update is a pure function of any pytree of parameters and gradients."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from autograd.extend import vspace

from .pytree import Pytree, Sharing, leaves, same_structure, tree_map
from .validation import Array
from .validation import number as in_range

Update = Callable[[Pytree, Pytree, Any], tuple[Pytree, Any]]


@dataclass(frozen=True)
class Optimizer:
    """A rule that improves parameters, as two pure functions.

    Attributes
    ----------
    name : str
        The rule's name; a training state remembers it.
    init : callable
        ``init(params) -> state``: what the rule remembers before its first update.
    update : callable
        ``update(params, grads, state) -> (params, state)``: one update. Nothing is mutated.

    Examples
    --------
    >>> rule = momentum(lr=0.1)
    >>> params = {"w": np.array([1.0])}
    >>> state = rule.init(params)
    >>> params, state = rule.update(params, {"w": np.array([2.0])}, state)
    >>> params, state
    ({'w': array([0.8])}, {'w': array([-0.2])})
    """

    name: str
    init: Callable[[Pytree], Any]
    update: Update


def number(name: str, value: Any, **bounds: Any) -> float:
    """Return `value` as a finite float within its bounds; text and booleans are no numbers."""
    if isinstance(value, str | bytes | bool | np.bool_):
        raise TypeError(f"{name} must be a real number, got {value!r}")
    return in_range(name, value, **bounds)


def _zeros_like(params: Pytree) -> Pytree:
    return tree_map(np.zeros_like, params)


def sgd(lr: float = 0.01) -> Optimizer:
    """Return stochastic gradient descent: p ← p - lr g.

    Parameters
    ----------
    lr : float, default 0.01
        The learning rate, above 0.

    Returns
    -------
    Optimizer

    Raises
    ------
    ValueError, TypeError
        If `lr` is not a finite number above 0.

    References
    ----------
    Saito, *Deep Learning from Scratch 2*, section 1.3.6.

    Examples
    --------
    >>> rule = sgd(lr=0.5)
    >>> rule.update([np.array([1.0, 2.0])], [np.array([1.0, -1.0])], rule.init(None))[0]
    [array([0.5, 2.5])]
    """
    lr = number("lr", lr, above=0)

    def update(params: Pytree, grads: Pytree, state: Any) -> tuple[Pytree, Any]:
        return tree_map(lambda p, g: p - lr * g, params, grads), state

    return Optimizer("sgd", lambda params: (), update)


def momentum(lr: float = 0.01, momentum: float = 0.9) -> Optimizer:
    """Return gradient descent with momentum: v ← μ v - lr g, p ← p + v.

    Parameters
    ----------
    lr : float, default 0.01
        The learning rate, above 0.
    momentum : float, default 0.9
        μ, at least 0 and below 1.

    Returns
    -------
    Optimizer
        Its state is the velocity v, of the structure of the parameters.

    Raises
    ------
    ValueError, TypeError
        If a number is out of its range.

    References
    ----------
    Polyak (1964), *Some methods of speeding up the convergence of iteration methods*.

    Examples
    --------
    >>> rule = momentum(lr=0.1, momentum=0.5)
    >>> p, v = rule.update(np.array([1.0]), np.array([2.0]), np.array([0.4]))
    >>> p, v
    (array([1.]), array([0.]))
    """
    lr, mu = number("lr", lr, above=0), _fraction("momentum", momentum)

    def update(params: Pytree, grads: Pytree, velocity: Pytree) -> tuple[Pytree, Pytree]:
        velocity = tree_map(lambda v, g: mu * v - lr * g, velocity, grads)
        return tree_map(lambda p, v: p + v, params, velocity), velocity

    return Optimizer("momentum", _zeros_like, update)


def nesterov(lr: float = 0.01, momentum: float = 0.9) -> Optimizer:
    """Return Nesterov's accelerated gradient: v ← μ v - lr g, p ← p + μ v - lr g.

    The parameters are those of the look-ahead point, at which the next gradient is taken.

    Parameters
    ----------
    lr : float, default 0.01
        The learning rate, above 0.
    momentum : float, default 0.9
        μ, at least 0 and below 1.

    Returns
    -------
    Optimizer
        Its state is the velocity v, of the structure of the parameters.

    Raises
    ------
    ValueError, TypeError
        If a number is out of its range.

    References
    ----------
    Bengio, Boulanger-Lewandowski and Pascanu (2012), *Advances in optimizing recurrent
    networks*, section 3.5.

    Examples
    --------
    >>> rule = nesterov(lr=0.1, momentum=0.5)
    >>> p, v = rule.update(np.array([1.0]), np.array([2.0]), np.array([0.0]))
    >>> p.round(12), v
    (array([0.7]), array([-0.2]))
    """
    lr, mu = number("lr", lr, above=0), _fraction("momentum", momentum)

    def update(params: Pytree, grads: Pytree, velocity: Pytree) -> tuple[Pytree, Pytree]:
        velocity = tree_map(lambda v, g: mu * v - lr * g, velocity, grads)
        params = tree_map(lambda p, v, g: p + (mu * v - lr * g), params, velocity, grads)
        return params, velocity

    return Optimizer("nesterov", _zeros_like, update)


def adagrad(lr: float = 0.01, eps: float = 1e-7) -> Optimizer:
    """Return AdaGrad: h ← h + g², p ← p - lr g / (√h + ε).

    Parameters
    ----------
    lr : float, default 0.01
        The learning rate, above 0.
    eps : float, default 1e-7
        ε, above 0, which keeps the quotient finite.

    Returns
    -------
    Optimizer
        Its state is the sum of squares h, of the structure of the parameters.

    Raises
    ------
    ValueError, TypeError
        If a number is out of its range.

    References
    ----------
    Duchi, Hazan and Singer (2011), *Adaptive subgradient methods for online learning and
    stochastic optimization*.

    Examples
    --------
    >>> rule = adagrad(lr=0.1)
    >>> p, h = rule.update(np.array([1.0]), np.array([2.0]), np.array([0.0]))
    >>> p.round(6), h
    (array([0.9]), array([4.]))
    """
    lr, eps = number("lr", lr, above=0), number("eps", eps, above=0)

    def update(params: Pytree, grads: Pytree, squares: Pytree) -> tuple[Pytree, Pytree]:
        squares = tree_map(lambda h, g: h + g * g, squares, grads)
        return _scaled_step(lr, eps, params, grads, squares), squares

    return Optimizer("adagrad", _zeros_like, update)


def rmsprop(lr: float = 0.01, decay: float = 0.99, eps: float = 1e-7) -> Optimizer:
    """Return RMSprop: h ← d h + (1 - d) g², p ← p - lr g / (√h + ε).

    Parameters
    ----------
    lr : float, default 0.01
        The learning rate, above 0.
    decay : float, default 0.99
        d, at least 0 and below 1.
    eps : float, default 1e-7
        ε, above 0, which keeps the quotient finite.

    Returns
    -------
    Optimizer
        Its state is the mean of squares h, of the structure of the parameters.

    Raises
    ------
    ValueError, TypeError
        If a number is out of its range.

    References
    ----------
    Tieleman and Hinton (2012), *Lecture 6.5: rmsprop*, Neural Networks for Machine Learning.

    Examples
    --------
    >>> rule = rmsprop(lr=0.1, decay=0.75)
    >>> p, h = rule.update(np.array([1.0]), np.array([2.0]), np.array([0.0]))
    >>> p.round(6), h
    (array([0.8]), array([1.]))
    """
    lr, eps = number("lr", lr, above=0), number("eps", eps, above=0)
    rho = _fraction("decay", decay)

    def update(params: Pytree, grads: Pytree, squares: Pytree) -> tuple[Pytree, Pytree]:
        squares = tree_map(lambda h, g: rho * h + (1.0 - rho) * (g * g), squares, grads)
        return _scaled_step(lr, eps, params, grads, squares), squares

    return Optimizer("rmsprop", _zeros_like, update)


def adam(
    lr: float = 0.001, beta1: float = 0.9, beta2: float = 0.999, eps: float = 1e-7
) -> Optimizer:
    """Return Adam: m ← β₁ m + (1 - β₁) g, v ← β₂ v + (1 - β₂) g², p ← p - lrₜ m / (√v + ε).

    The step size lrₜ = lr √(1 - β₂ᵗ) / (1 - β₁ᵗ) corrects the bias of both means: the paper's
    efficient order, in which ε stands beside the uncorrected √v.

    Parameters
    ----------
    lr : float, default 0.001
        The learning rate, above 0.
    beta1, beta2 : float, defaults 0.9 and 0.999
        The decay of the means, at least 0 and below 1.
    eps : float, default 1e-7
        ε, above 0, which keeps the quotient finite.

    Returns
    -------
    Optimizer
        Its state is (m, v, t): both means, and the number of updates.

    Raises
    ------
    ValueError, TypeError
        If a number is out of its range.

    References
    ----------
    Kingma and Ba (2015), *Adam: a method for stochastic optimization*, section 2.

    Examples
    --------
    >>> rule = adam(lr=0.1)
    >>> p = np.array([1.0])
    >>> p, state = rule.update(p, np.array([2.0]), rule.init(p))
    >>> p.round(6)
    array([0.9])
    """
    lr, eps = number("lr", lr, above=0), number("eps", eps, above=0)
    b1, b2 = _fraction("beta1", beta1), _fraction("beta2", beta2)

    def init(params: Pytree) -> tuple[Pytree, Pytree, int]:
        return _zeros_like(params), _zeros_like(params), 0

    def update(params: Pytree, grads: Pytree, state: Any) -> tuple[Pytree, Any]:
        mean, squares, t = state
        t += 1
        mean = tree_map(lambda m, g: b1 * m + (1.0 - b1) * g, mean, grads)
        squares = tree_map(lambda v, g: b2 * v + (1.0 - b2) * (g * g), squares, grads)
        unbiased_lr = lr * float(np.sqrt(1.0 - b2**t)) / (1.0 - b1**t)
        return _scaled_step(unbiased_lr, eps, params, mean, squares), (mean, squares, t)

    return Optimizer("adam", init, update)


def _fraction(name: str, value: float) -> float:
    return number(name, value, above=0, below=1, or_equal=True)


def _scaled_step(
    lr: float, eps: float, params: Pytree, direction: Pytree, squares: Pytree
) -> Pytree:
    return tree_map(lambda p, d, h: p - lr * d / (np.sqrt(h) + eps), params, direction, squares)


# -------------------- gradients, before the update --------------------


def clip_grads(grads: Pytree, max_norm: float) -> Pytree:
    """Return the gradients scaled so that their global L2 norm is at most `max_norm`.

    All are multiplied by max_norm / (norm + 1e-6) where that is below 1.

    Parameters
    ----------
    grads : pytree of float arrays
    max_norm : float
        The largest norm allowed, above 0.

    Returns
    -------
    pytree of float arrays
        New arrays where the gradients were scaled, else `grads` itself.

    Raises
    ------
    ValueError, TypeError
        If `max_norm` is not a finite number above 0, or `grads` contains itself.

    References
    ----------
    Pascanu, Mikolov and Bengio (2013), *On the difficulty of training recurrent neural
    networks*, section 3.2.

    Examples
    --------
    >>> clip_grads({"W": np.array([3.0, 4.0])}, max_norm=1.0)["W"].round(6)
    array([0.6, 0.8])
    """
    max_norm = number("max_norm", max_norm, above=0)
    arrays = leaves(grads)
    space = vspace(grads)
    with np.errstate(over="ignore"):
        norm = float(np.sqrt(space.inner_prod(grads, grads)))
    if norm == np.inf:  # the squares overflow: scale the gradients down before squaring them
        largest = max(float(np.max(np.abs(leaf), initial=0.0)) for leaf in arrays)
        scaled = space.scalar_mul(grads, 1 / largest)
        norm = largest * float(np.sqrt(space.inner_prod(scaled, scaled)))
    rate = max_norm / (norm + 1e-6)
    return space.scalar_mul(grads, rate) if rate < 1 else grads


def remove_duplicate(
    params: Sequence[Array], grads: Sequence[Array]
) -> tuple[list[Array], list[Array]]:
    """Return the parameters without repetitions, the gradients of each added up.

    A parameter is repeated where the list holds the same array twice, or an array and its
    transpose: two views of one memory. Equal numbers in different memory are different
    parameters.

    Parameters
    ----------
    params : sequence of arrays
    grads : sequence of arrays
        The gradient for each parameter, of its shape.

    Returns
    -------
    params, grads : lists of arrays
        Each parameter where it first stood. Nothing that was given is mutated.

    Raises
    ------
    ValueError
        If the lists differ in length, or a gradient in shape from its parameter.

    References
    ----------
    Saito, *Deep Learning from Scratch 2*, section 1.4.4.

    Examples
    --------
    >>> W = np.zeros((2, 3))
    >>> params, grads = remove_duplicate([W, W.T], [np.ones((2, 3)), np.ones((3, 2))])
    >>> len(params), grads[0][0]
    (1, array([2., 2., 2.]))
    """
    same_structure("params", list(params), "grads", list(grads))
    shared = Sharing.of(params)
    return shared.unique(params), shared.merge(grads)
