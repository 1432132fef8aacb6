"""The optimizers: an update is a pure function of any pytree of parameters and gradients.

Each rule is formulas for one parameter p with the gradient g, applied leaf by leaf; its numbers
are bound by `partial`, so that an optimizer can be pickled and sent to another process. What a rule
remembers has the structure of the parameters. The learning rate `lr`, and ε, which keeps quotients
finite, are above 0; the part of a velocity or a mean that is kept is at least 0 and below 1. A
number that is out of its range raises ValueError, what is no number TypeError.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from autograd.extend import vspace

from .pytree import Pytree, Sharing, leaves, same_structure, tree_map
from .validation import Array, number


@dataclass(frozen=True)
class Optimizer:
    """A rule that improves parameters, as two pure functions.

    ``init(params)`` returns what the rule remembers before its first update, and
    ``update(params, grads, state)`` new parameters and what it then remembers. Nothing is mutated.

    Examples
    --------
    >>> rule = momentum(lr=0.1)
    >>> params = {"w": np.array([1.0])}
    >>> state = rule.init(params)
    >>> params, state = rule.update(params, {"w": np.array([2.0])}, state)
    >>> params, state
    ({'w': array([0.8])}, {'w': array([-0.2])})
    """

    name: str  # a training state remembers it
    init: Callable[[Pytree], Any]
    update: Callable[[Pytree, Pytree, Any], tuple[Pytree, Any]]
    # ``in_place(params, grads)`` returns the same update of these arrays, which are written to: a
    # pure function from what the rule remembers to what it then remembers.
    in_place: Callable[[Pytree, Pytree], Callable[[Any], Any]] | None = None
    keeps: bool = True  # may `update` keep the arrays that it is given, or return them?

    def updating(self, params: Pytree, grads: Pytree) -> Callable[[Any], Any]:
        """Return the update of these arrays in place: of what the rule remembers, the next."""
        if self.in_place is not None:
            return self.in_place(params, grads)

        def update(state: Any) -> Any:
            p, g = tree_map(np.array, (params, grads)) if self.keeps else (params, grads)
            new, state = self.update(p, g, state)
            tree_map(np.copyto, params, new)
            return state

        return update


def _zeros_like(params: Pytree) -> Pytree:
    return tree_map(np.zeros_like, params)


def _positive(name: str, value: float) -> float:
    return number(name, value, above=0)


def _fraction(name: str, value: float) -> float:
    return number(name, value, above=0, below=1, or_equal=True)


# -------------------- the rules --------------------


def sgd(lr: float = 0.01) -> Optimizer:
    """Return stochastic gradient descent, which remembers nothing: p ← p - lr g.

    Saito, *Deep Learning from Scratch 2*, section 1.3.6.

    Examples
    --------
    >>> rule = sgd(lr=0.5)
    >>> rule.update([np.array([1.0, 2.0])], [np.array([1.0, -1.0])], rule.init(None))[0]
    [array([0.5, 2.5])]
    """
    lr = _positive("lr", lr)
    return Optimizer("sgd", _nothing, partial(_sgd, lr), partial(_sgd_in_place, lr))


def _nothing(params: Pytree) -> tuple[()]:
    return ()


def _sgd(lr: float, params: Pytree, grads: Pytree, state: Any) -> tuple[Pytree, Any]:
    return tree_map(lambda p, g: p - lr * g, params, grads), state


def _sgd_in_place(lr: float, params: Pytree, grads: Pytree) -> Callable[[Any], Any]:
    pairs = zip(leaves(params), leaves(grads), strict=True)
    rows = [(p, g, np.array(lr, p.dtype)) for p, g in pairs]  # an array of one number is quicker

    def in_place(state: Any) -> Any:
        for p, g, rate in rows:
            np.subtract(p, np.multiply(g, rate, g), p)
        return state

    return in_place


def momentum(lr: float = 0.01, momentum: float = 0.9) -> Optimizer:
    """Return gradient descent with momentum: v ← μ v - lr g, p ← p + v.

    It remembers the velocity v; μ is `momentum`. Polyak (1964), *Some methods of speeding up the
    convergence of iteration methods*.

    Examples
    --------
    >>> rule = momentum(lr=0.1, momentum=0.5)
    >>> rule.update(np.array([1.0]), np.array([2.0]), np.array([0.4]))
    (array([1.]), array([0.]))
    """
    lr, mu = _positive("lr", lr), _fraction("momentum", momentum)
    return Optimizer("momentum", _zeros_like, partial(_momentum, lr, mu), keeps=False)


def _momentum(lr: float, mu: float, params: Pytree, grads: Pytree, v: Pytree) -> tuple[Any, Any]:
    v = tree_map(lambda v, g: mu * v - lr * g, v, grads)
    return tree_map(lambda p, v: p + v, params, v), v


def nesterov(lr: float = 0.01, momentum: float = 0.9) -> Optimizer:
    """Return Nesterov's accelerated gradient: v ← μ v - lr g, p ← p + μ v - lr g.

    It remembers the velocity v; μ is `momentum`. The parameters are those of the look-ahead point,
    at which the next gradient is taken. Bengio, Boulanger-Lewandowski and Pascanu (2012),
    *Advances in optimizing recurrent networks*, section 3.5.

    Examples
    --------
    >>> rule = nesterov(lr=0.1, momentum=0.5)
    >>> p, v = rule.update(np.array([1.0]), np.array([2.0]), np.array([0.0]))
    >>> p.round(12), v
    (array([0.7]), array([-0.2]))
    """
    lr, mu = _positive("lr", lr), _fraction("momentum", momentum)
    return Optimizer("nesterov", _zeros_like, partial(_nesterov, lr, mu), keeps=False)


def _nesterov(lr: float, mu: float, params: Pytree, grads: Pytree, v: Pytree) -> tuple[Any, Any]:
    v = tree_map(lambda v, g: mu * v - lr * g, v, grads)
    return tree_map(lambda p, g, v: p + (mu * v - lr * g), params, grads, v), v


def adagrad(lr: float = 0.01, eps: float = 1e-7) -> Optimizer:
    """Return AdaGrad: h ← h + g², p ← p - lr g / (√h + ε).

    It remembers the sum of squares h. Duchi, Hazan and Singer (2011), *Adaptive subgradient methods
    for online learning and stochastic optimization*.

    Examples
    --------
    >>> rule = adagrad(lr=0.1)
    >>> p, h = rule.update(np.array([1.0]), np.array([2.0]), np.array([0.0]))
    >>> p.round(6), h
    (array([0.9]), array([4.]))
    """
    lr, eps = _positive("lr", lr), _positive("eps", eps)
    return Optimizer("adagrad", _zeros_like, partial(_adagrad, lr, eps), keeps=False)


def _adagrad(lr: float, eps: float, params: Pytree, grads: Pytree, h: Pytree) -> tuple[Any, Any]:
    h = tree_map(lambda h, g: h + g * g, h, grads)
    return tree_map(lambda p, g, h: p - lr * g / (np.sqrt(h) + eps), params, grads, h), h


def rmsprop(lr: float = 0.01, decay: float = 0.99, eps: float = 1e-7) -> Optimizer:
    """Return RMSprop: h ← d h + (1 - d) g², p ← p - lr g / (√h + ε).

    It remembers the mean of squares h; d is `decay`. Tieleman and Hinton (2012), *Lecture 6.5:
    rmsprop*, Neural Networks for Machine Learning.

    Examples
    --------
    >>> rule = rmsprop(lr=0.1, decay=0.75)
    >>> p, h = rule.update(np.array([1.0]), np.array([2.0]), np.array([0.0]))
    >>> p.round(6), h
    (array([0.8]), array([1.]))
    """
    lr, d, eps = _positive("lr", lr), _fraction("decay", decay), _positive("eps", eps)
    return Optimizer("rmsprop", _zeros_like, partial(_rmsprop, lr, d, eps), keeps=False)


def _rmsprop(
    lr: float, d: float, eps: float, params: Pytree, grads: Pytree, h: Pytree
) -> tuple[Any, Any]:
    h = tree_map(lambda h, g: d * h + (1.0 - d) * (g * g), h, grads)
    return tree_map(lambda p, g, h: p - lr * g / (np.sqrt(h) + eps), params, grads, h), h


def adam(
    lr: float = 0.001, beta1: float = 0.9, beta2: float = 0.999, eps: float = 1e-7
) -> Optimizer:
    """Return Adam: m ← β₁ m + (1 - β₁) g, v ← β₂ v + (1 - β₂) g², p ← p - lrₜ m / (√v + ε).

    The step size lrₜ = lr √(1 - β₂ᵗ) / (1 - β₁ᵗ) corrects the bias of both means: the efficient
    order of Kingma and Ba (2015), *Adam: a method for stochastic optimization*, section 2, in
    which ε stands beside the uncorrected √v. It remembers (m, v, t): both means, and the number of
    updates.

    Examples
    --------
    >>> rule = adam(lr=0.1)
    >>> p = np.array([1.0])
    >>> p, state = rule.update(p, np.array([2.0]), rule.init(p))
    >>> p.round(6)
    array([0.9])
    """
    lr, eps = _positive("lr", lr), _positive("eps", eps)
    b1, b2 = _fraction("beta1", beta1), _fraction("beta2", beta2)

    return Optimizer("adam", _two_means, partial(_adam, lr, b1, b2, eps), keeps=False)


def _two_means(params: Pytree) -> tuple[Pytree, Pytree, int]:
    return _zeros_like(params), _zeros_like(params), 0


def _adam(
    lr: float, b1: float, b2: float, eps: float, params: Pytree, grads: Pytree, state: Any
) -> tuple[Pytree, Any]:
    m, v, t = state
    m = tree_map(lambda m, g: b1 * m + (1.0 - b1) * g, m, grads)
    v = tree_map(lambda v, g: b2 * v + (1.0 - b2) * (g * g), v, grads)
    rate = lr * float(np.sqrt(1.0 - b2 ** (t + 1))) / (1.0 - b1 ** (t + 1))
    params = tree_map(lambda p, m, v: p - rate * m / (np.sqrt(v) + eps), params, m, v)
    return params, (m, v, t + 1)


# -------------------- gradients, before the update --------------------


def clip_grads(grads: Pytree, max_norm: float) -> Pytree:
    """Return the gradients scaled so that their global L2 norm is at most `max_norm`.

    All are multiplied by max_norm / (norm + 1e-6) where that is below 1: Pascanu, Mikolov and
    Bengio (2013), *On the difficulty of training recurrent neural networks*, section 3.2.

    Parameters
    ----------
    grads : pytree of float arrays
        ValueError if it contains itself. What is returned is `grads` itself, or new arrays.
    max_norm : float, above 0

    Examples
    --------
    >>> clip_grads({"W": np.array([3.0, 4.0])}, max_norm=1.0)["W"].round(6)
    array([0.6, 0.8])
    """
    max_norm = _positive("max_norm", max_norm)
    arrays = leaves(grads)  # first: it names a nest that contains itself
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
    parameters. Saito, *Deep Learning from Scratch 2*, section 1.4.4.

    Parameters
    ----------
    params : sequence of arrays
    grads : sequence of arrays
        The gradient for each parameter, of its shape (else ValueError).

    Returns
    -------
    params, grads : lists of arrays
        Each parameter where it first stood. Nothing that was given is mutated.

    Examples
    --------
    >>> W = np.zeros((2, 3))
    >>> params, grads = remove_duplicate([W, W.T], [np.ones((2, 3)), np.ones((3, 2))])
    >>> len(params), grads[0][0]
    (1, array([2., 2., 2.]))
    """
    same_structure("params", list(params), "grads", list(grads))
    sums: dict[int, Array] = {}
    for grad, (first, turned) in zip(grads, Sharing.of(params).places, strict=True):
        own = np.transpose(grad) if turned else grad
        sums[first] = sums[first] + own if first in sums else own
    return [params[first] for first in sums], list(sums.values())
