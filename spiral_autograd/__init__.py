"""Is this handwritten backward pass right? Compare it with an automatic one."""

import sys
from typing import TYPE_CHECKING

from . import interrupts  # noqa: F401  # first: from now on Ctrl-C ends the imports in one line

# isort: split
from . import data, manual, network, optimizers, plotting, training
from .animation import animate_training
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
from .saving import load, save
from .train_state import Evaluation, NonFiniteLossError, TrainState
from .training import fit

__version__ = "0.1.0"

if TYPE_CHECKING:
    from .gradcheck import (
        CheckError,
        GradientReport,
        check_backward,
        check_derivative,
        check_gradient,
        check_layer,
        check_network,
        check_primitive,
        tap,
    )

# fmt: off
__all__ = [  # noqa: RUF022  # as the streets go
    # the chapter: data, a network, its gradients by hand, a trainer, pictures
    "data", "network", "manual", "optimizers", "training", "plotting",
    "load_data", "init_params", "predict", "loss", "accuracy",
    "affine", "sigmoid", "softmax", "cross_entropy", "stop_gradient",
    "Optimizer", "sgd", "momentum", "nesterov", "adagrad", "rmsprop", "adam",
    "clip_grads", "remove_duplicate",
    "fit", "TrainState", "Evaluation", "NonFiniteLossError", "save", "load",
    "decision_grid", "plot_data", "plot_loss", "plot_decision_boundary",
    "animate_training",
    # the engine between: autograd's backward pass as NumPy
    "derive", "value_and_grad", "Program", "DerivationError", "DerivationWarning",
    # the checker
    "check_layer", "check_backward", "check_gradient", "check_network",
    "check_derivative", "check_primitive",
    "tap", "GradientReport", "CheckError",
]
# fmt: on


# The book's names, those of its folder common too, and what does their work here.
BOOK = {
    name: here.format(name.lower())
    for names, here in (
        ("spiral dataset", "load_data"),
        ("TwoLayerNet two_layer_net", "init_params, whose dict predict, loss and accuracy take"),
        ("Trainer trainer", "fit(params, x, t), whose state plot_loss draws"),
        ("SGD Momentum Nesterov AdaGrad RMSprop Adam", "{0}"),
        ("Affine Sigmoid Softmax", "{0}; by hand manual.{0} and manual.{0}_backward"),
        ("MatMul", "affine; by hand manual.{0} and manual.{0}_backward"),
        ("SoftmaxWithLoss", "cross_entropy; by hand manual.softmax_with_loss"),
        ("cross_entropy_error", "cross_entropy, which takes scores"),
        ("layers functions", "network, or by hand manual"),
        ("optimizer", "optimizers"),
        ("util", "clip_grads"),
        ("Relu relu Dropout Embedding SigmoidWithLoss", "your own, which check_layer checks"),
    )
    for name in names.split()
}


def __dir__() -> list[str]:
    return sorted({*__all__, *(name for name in globals() if name.startswith("_"))})


def __getattr__(name: str) -> object:
    """Import the checker when it is first asked for: whoever only trains need not wait for it."""
    if name not in __all__:
        here = f": for the book's {name} use {BOOK[name]}" if name in BOOK else ""
        said = f"module {__name__!r} has no attribute {name!r}{here}"
        raise AttributeError(said, name=name, obj=sys.modules[__name__])
    from . import gradcheck

    return getattr(gradcheck, name)
