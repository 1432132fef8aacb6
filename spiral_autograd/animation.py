"""A training run as a moving picture: the regions, the loss and the gradient's norm."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from .derive import value_and_grad
from .network import loss as loss_of_network
from .network import predict as predict_of_network
from .plotting import COLORS, decision_grid, plot_decision_boundary
from .pytree import leaves
from .train_state import Evaluation
from .validation import Array, positive_integer

if TYPE_CHECKING:
    from matplotlib.animation import FuncAnimation

SIZE = 4.8, 2.7  # inches, of 100 pixels each
PLACES = {"left": 0.02, "right": 0.98, "bottom": 0.16, "top": 0.9, "wspace": 0.16, "hspace": 0.6}
REST = 6  # frames for which the end is shown


def animate_training(
    evaluations: Sequence[Evaluation],
    x: Array,
    t: Array,
    *,
    every: int = 10,
    h: float = 0.01,
    loss: Callable[..., Any] = loss_of_network,
    predict: Callable[[Any, Array], Array] = predict_of_network,
) -> FuncAnimation:
    """Return a moving picture of a training run: what is predicted, the loss, the gradient's norm.

    Its ``save("run.gif", writer="pillow")`` writes a file, its ``to_jshtml()`` shows it in a
    notebook. The figure is not pyplot's. No evaluation, or data that cannot be drawn, raise
    ValueError or TypeError.

    Parameters
    ----------
    evaluations : sequence of Evaluation
        What `fit` handed to `on_eval`, as ``fit(..., on_eval=evaluations.append)`` keeps it.
    x, t : the data, as `plot_data` takes them
    every : int, default 10
        A frame for each so many evaluations; the first and the last one have a frame always.
    h : the spacing, as `decision_grid` takes it
    loss, predict : callable, optional
        ``loss(params, x, t)``, whose gradient's L2 norm on all the data is drawn, and
        ``predict(params, x)``, which returns scores or class indices; by default the network's.

    Examples
    --------
    >>> import io
    >>> from spiral_autograd import fit, init_params, load_data
    >>> seen, (x, t) = [], load_data()
    >>> state = fit(init_params(2, 5, 3, rng=0), x, t, max_epoch=3, rng=0, eval_interval=10,
    ...             on_eval=seen.append)
    >>> moving = animate_training(seen, x, t, every=2, h=0.2)
    >>> "<img" in moving.to_jshtml()
    True
    """
    every = positive_integer("every", every)
    for number, evaluation in enumerate(evaluations):
        if not isinstance(evaluation, Evaluation):
            got = type(evaluation).__name__
            raise TypeError(f"evaluations[{number}] must be an Evaluation of fit, got {got}")
    if not evaluations:
        raise ValueError("evaluations is empty: fit(..., on_eval=evaluations.append) fills it")
    from matplotlib.animation import FuncAnimation

    predictors = [partial(predict, now.params) for now in evaluations]
    ax, *axes = _axes()
    plot_decision_boundary(predictors[0], x, t, h, ax=ax, scatter={"s": 9, "linewidth": 0.4})
    ax.legend().remove()
    ax.set(xlabel="", ylabel="", xticks=[], yticks=[])
    last, gradient = len(evaluations) - 1, value_and_grad(loss)
    epochs = [now.epoch - 1 + now.iteration / now.max_iters for now in evaluations]
    losses = [now.loss for now in evaluations]
    grads = [leaves(gradient(now.params, x, t)[1]) for now in evaluations]
    norms = [float(np.linalg.norm(list(map(np.linalg.norm, each)))) for each in grads]
    for curve, values in zip(axes, (losses, norms), strict=True):
        curve.set(xlim=(0, 1.03 * epochs[-1]), ylim=(0, 1.08 * max(values) or 1.0))

    def draw(frame: int) -> list[Any]:
        ax.images[0].set_data(decision_grid(predictors[frame], x, h)[2])
        ax.set_title(f"epoch {evaluations[frame].epoch}", fontsize=9)
        for curve, values in zip(axes, (losses, norms), strict=True):
            curve.lines[0].set_data(epochs[: frame + 1], values[: frame + 1])
        return [*ax.images, *(curve.lines[0] for curve in axes)]

    frames = [*sorted({0, last, *range(every - 1, last, every)}), *[last] * REST]
    return FuncAnimation(ax.figure, draw, frames=frames, interval=125)


def _axes() -> list[Any]:
    """Return the axes of the map, the loss and the norm, with an empty curve in the last two."""
    from matplotlib.figure import Figure

    mosaic: list[Any] = [["map", "loss"], ["map", "gradient's norm"]]
    figure = Figure(figsize=SIZE, dpi=100)
    axes = figure.subplot_mosaic(mosaic, width_ratios=[4, 3], gridspec_kw=PLACES)
    for color, name in zip(COLORS, ("loss", "gradient's norm"), strict=False):
        axes[name].set_title(name, fontsize=9)
        axes[name].tick_params(labelsize=7)
        axes[name].plot([], [], "o-", color=color, linewidth=1, markersize=4, markevery=[-1])
    axes["gradient's norm"].set_xlabel("epoch", fontsize=8)
    return list(axes.values())
