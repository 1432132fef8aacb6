"""Is this handwritten backward pass right? Compare it with an automatic one."""

from typing import TYPE_CHECKING

from . import interrupts  # noqa: F401  # first: from now on Ctrl-C ends the imports in one line

# isort: split
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
from .train_state import Evaluation, NonFiniteLossError, TrainState
from .training import fit

__version__ = "0.1.0"

if TYPE_CHECKING:
    from .gradcheck import (
        CheckError,
        GradientReport,
        check_backward,
        check_gradient,
        check_layer,
        check_network,
        tap,
    )

__all__ = [
    "CheckError",
    "DerivationError",
    "DerivationWarning",
    "Evaluation",
    "GradientReport",
    "NonFiniteLossError",
    "Optimizer",
    "Program",
    "TrainState",
    "accuracy",
    "adagrad",
    "adam",
    "affine",
    "check_backward",
    "check_gradient",
    "check_layer",
    "check_network",
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
    "tap",
    "training",
    "value_and_grad",
]


def __dir__() -> list[str]:
    return sorted({*__all__, *(name for name in globals() if name.startswith("_"))})


def __getattr__(name: str) -> object:
    """Import the checker when it is first asked for: whoever only trains need not wait for it."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from . import gradcheck

    return getattr(gradcheck, name)
