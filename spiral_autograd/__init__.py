"""Is this handwritten backward pass right? Compare it with an automatic one."""

from . import data, manual, network, optimizers, plotting, training
from .data import load_data
from .derive import DerivationError, DerivationWarning, Program, derive, value_and_grad
from .network import (
    accuracy,
    affine,
    cross_entropy,
    init_params,
    loss,
    predict,
    sigmoid,
    softmax,
    stop_gradient,
)
from .optimizers import (
    Optimizer,
    adagrad,
    adam,
    clip_grads,
    momentum,
    nesterov,
    remove_duplicate,
    rmsprop,
    sgd,
)
from .plotting import decision_grid, plot_data, plot_decision_boundary, plot_loss
from .training import Evaluation, NonFiniteLossError, TrainState, fit

__version__ = "0.1.0"

__all__ = [
    "DerivationError",
    "DerivationWarning",
    "Evaluation",
    "NonFiniteLossError",
    "Optimizer",
    "Program",
    "TrainState",
    "accuracy",
    "adagrad",
    "adam",
    "affine",
    "clip_grads",
    "cross_entropy",
    "data",
    "decision_grid",
    "derive",
    "fit",
    "init_params",
    "load_data",
    "loss",
    "manual",
    "momentum",
    "nesterov",
    "network",
    "optimizers",
    "plot_data",
    "plot_decision_boundary",
    "plot_loss",
    "plotting",
    "predict",
    "remove_duplicate",
    "rmsprop",
    "sgd",
    "sigmoid",
    "softmax",
    "stop_gradient",
    "training",
    "value_and_grad",
]
