"""How people name the methods of a network and their arguments: rows of tables, as for layers."""

from __future__ import annotations

from collections.abc import Sequence

from .conventions import FORWARD, spelled

# -------------------- methods --------------------

LOSS_LAYERS = spelled(
    "loss layer, last layer, loss, criterion, loss fn, loss function, loss func, cost, "
    "cost function"
)
# What comes behind the name of a loss in that of its derivative.
PRIMES = "_prime _grad _gradient _derivative _deriv".split()

# A network's own methods: of (x, t) the loss, of x the scores, of (x, t) the gradients.
LOSSES = [
    *FORWARD,
    *spelled("loss, compute loss, calc loss, calculate loss, get loss, loss function, loss func"),
    *spelled("cost, compute cost, cost function, get cost, calculate cost, objective"),
]
SCORES = [*FORWARD, "predict"]
GRADIENTS = [
    *spelled("gradient, gradients, grad, grads, compute gradient, compute gradients"),
    *spelled("compute grads, calc gradient, calc gradients, calculate gradients, get gradients"),
    *spelled("loss and grads, loss and gradients, loss and gradient, loss gradient, loss prime"),
    *spelled("cost function prime, cost gradient, cost prime"),
]
# That take one step, and may change the weights.
STEPS = spelled(
    "train step, training step, train on batch, train batch, fit batch, step, update, learn, "
    "train, update weights, update parameters"
)
TRAINING = "train_flg train_flag train training is_train is_training train_mode".split()

_PREDICTED = ("pred", "score", "out", "logit", "prob")
_TRUE = ("t", "y", "label", "gold", "answer", "expected", "actual")
_NOT_TRUE = ("top", "tau", "temp", "tol", "thr", "time", "y_pred", "y_hat", "yhat", "ypred")


def means_targets(name: str) -> bool:
    """Tell whether an argument is the targets, by its name."""
    name = name.lower()
    return name.startswith(_TRUE) and not name.startswith(_NOT_TRUE) and name not in TRAINING


def means_scores(first: str, second: str) -> bool:
    """Tell whether the first of two arguments is the scores, by their names: y may be either."""
    first = first.lower()
    is_y = first.startswith("y") and (first != "y" or means_targets(second))
    return is_y or first.startswith(_PREDICTED)


def is_target_first(names: Sequence[str]) -> bool:
    """Tell whether a loss is given the targets before the scores, by their names.

    Examples
    --------
    >>> is_target_first(["y_true", "y_pred"]), is_target_first(["y", "t"])
    (True, False)
    """
    return len(names) == 2 and means_targets(names[0]) and means_scores(names[1], names[0])
