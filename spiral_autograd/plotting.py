"""The pictures, and the grid behind them. matplotlib is imported when a figure is drawn.

Each is drawn on the Axes `ax` and returns it: by default one of a new figure; a title that it has
stays. The points `x` are floats (examples, 2), their classes `t` one-hot or ints. Data of another
shape or dtype, not finite or empty, raise ValueError or TypeError.
Source: Saito, *Deep Learning from Scratch 2*.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from .network import affine, predict, scores_or_classes, sigmoid
from .pytree import float_tree
from .train_state import TrainState
from .validation import Array, class_indices, examples, finite_array, network_params, number

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.colors import Colormap

# Okabe and Ito's blue, vermilion and green, then their others: told apart by colour-blind readers.
COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#F0E442", "#000000")
MARKERS = ("o", "x", "^", "s", "+", "v", "D", "*")

# -------------------- the decision grid --------------------

TILE = 16  # grid points along the side of a tile
BLOCK = 4096  # grid points evaluated at once: their arrays fit the processor's cache


def decision_grid(params: Any, x: Array, h: float = 0.001) -> tuple[Array, Array, Array]:
    """Return the class that is predicted at each point of a fine grid around the data.

    Saito, *Deep Learning from Scratch 2*, section 1.4.3: ``argmax(predict(params, point))``. For
    the network's parameters the grid is worked through in square tiles: the scores at a tile's
    centre, and a bound on how far each can move within it (sigmoid is monotone), tell whether one
    class wins everywhere in it; only the other tiles are evaluated point by point.

    Parameters
    ----------
    params : dict of float arrays, callable, or object with a method `predict`
        W1, b1, W2, b2 of a network with two inputs; or any other predictor, which returns scores
        (points, classes) or class indices (points,) for many points (points, 2) at a time.
    x : float array, shape (examples, 2)
        The grid reaches from ``x.min() - 0.1`` to ``x.max() + 0.1`` in each coordinate.
    h : float, above 0
        The spacing.

    Returns
    -------
    xs, ys : float arrays, shapes (columns,) and (rows,)
    classes : int array, shape (rows, columns)
        The class at (xs[j], ys[i]) stands at [i, j].

    Examples
    --------
    >>> from spiral_autograd import init_params
    >>> xs, ys, classes = decision_grid(init_params(2, 10, 3, rng=0), np.eye(2), h=0.5)
    >>> xs.round(6), classes.shape
    (array([-0.1,  0.4,  0.9]), (3, 3))
    """
    x = _two_columns(x)
    h = number("h", h, above=0)
    xs, ys = (np.arange(column.min() - 0.1, column.max() + 0.1, h) for column in x.T)
    if hasattr(params, "keys"):
        network_params(float_tree("params", params), x)
        classes, unsure = _classes_of_tiles(params, xs, ys)
    else:
        classes, unsure = (np.ones((len(ys), len(xs)), dtype) for dtype in (int, bool))
    points = np.flatnonzero(unsure)
    for start in range(0, len(points), BLOCK):
        row, column = np.divmod(points[start : start + BLOCK], len(xs))
        said = scores_or_classes(params, np.stack([xs[column], ys[row]], axis=1))
        classes[row, column] = said if said.ndim == 1 else np.argmax(said, axis=1)
    return xs, ys, classes


def _points(xs: Array, ys: Array) -> Array:
    """Return the points of a grid, (rows * columns, 2), row after row."""
    return np.stack(np.meshgrid(xs, ys), axis=-1).reshape(-1, 2)


def _two_columns(x: Array) -> Array:
    x = examples("x", x)
    if x.shape[1] != 2:
        raise ValueError(f"x must have two columns to be drawn in the plane, got {x.shape[1]}")
    return x


def _tiles(coordinates: Array) -> tuple[Array, Array]:
    """Return the middle of each tile of coordinates, and how far it reaches from there."""
    low, last = coordinates[::TILE], coordinates[-1:]
    high = np.concatenate([coordinates[TILE - 1 :: TILE], last])[: len(low)]
    return (low + high) / 2, (high - low) / 2


def _classes_of_tiles(params: dict[str, Array], xs: Array, ys: Array) -> tuple[Array, Array]:
    """Return for each point the class at its tile's centre, and whether it may have another."""
    (x, x_reach), (y, y_reach) = _tiles(xs), _tiles(ys)
    centres, radii = _points(x, y), _points(x_reach, y_reach)
    W1, b1, W2 = params["W1"], params["b1"], params["W2"]
    at_centre, reach = affine(centres, W1, b1), radii @ np.abs(W1)
    middle = sigmoid(at_centre)
    moved = np.maximum(sigmoid(at_centre + reach) - middle, middle - sigmoid(at_centre - reach))
    scores = predict(params, centres)
    best = np.argmax(scores, axis=1)
    certain = np.ones(len(best), dtype=bool)
    rounding = 1e3 * np.finfo(scores.dtype).eps * (1 + np.abs(scores).max() + np.abs(W2).sum())
    for k in range(scores.shape[1]):
        rows = best == k
        margins = scores[rows, k, None] - scores[rows]
        bounds = moved[rows] @ np.abs(W2[:, k, None] - W2) + rounding
        certain[rows] = np.delete(margins > bounds, k, axis=1).all(axis=1)

    def spread(of_tiles: Array) -> Array:
        whole = of_tiles.reshape(len(y), len(x)).repeat(TILE, axis=0).repeat(TILE, axis=1)
        return whole[: len(ys), : len(xs)]

    return spread(best), spread(~certain)


# -------------------- the pictures --------------------


def _axes(ax: Axes | None) -> Axes:
    if ax is not None:
        return ax
    import matplotlib.pyplot as plt

    return plt.figure(figsize=(5.6, 5.0), layout="constrained").add_subplot()


def _named(ax: Axes, x: str, y: str, title: str) -> Axes:
    """Name the axes; a title that the caller has given stays."""
    ax.set(xlabel=x, ylabel=y, title=ax.get_title() or title)
    return ax


def plot_data(x: Array, t: Array, *, ax: Axes | None = None, **scatter: Any) -> Axes:
    """Draw points (examples, 2), each class with a colour and a marker: Saito, section 1.4.1.

    Classes `t` are one-hot or ints; `scatter` are options of ``Axes.scatter``, such as ``s=40``.

    Examples
    --------
    >>> import matplotlib; matplotlib.use("Agg")
    >>> from spiral_autograd import load_data
    >>> plot_data(*load_data()).get_title()
    'Spiral Data Set'
    """
    x = _two_columns(x)
    labels, count = class_indices(t, len(x))
    ax = _axes(ax)
    for k in range(count):
        points = x[labels == k]
        marker = MARKERS[k % len(MARKERS)]
        style: dict[str, Any] = {"color": COLORS[k % len(COLORS)], "marker": marker, "s": 26}
        if marker not in "x+":
            style |= {"edgecolor": "white", "linewidth": 0.6}
        ax.scatter(points[:, 0], points[:, 1], label=f"class {k}", **(style | scatter))
    ax.set_aspect("equal")
    ax.legend(loc="upper right", framealpha=0.9)
    return _named(ax, "x[:, 0]", "x[:, 1]", "Spiral Data Set")


def plot_loss(
    state: TrainState,
    ylim: tuple[float, float] | None = None,
    *,
    ax: Axes | None = None,
    **line: Any,
) -> Axes:
    """Draw the loss of each evaluation interval of a training run: Saito, section 1.4.4.

    `ylim` limits the loss axis; `line` are options of ``Axes.plot``, such as ``label="sgd"``. A
    state that has no losses to draw raises ValueError.

    Examples
    --------
    >>> import matplotlib; matplotlib.use("Agg")
    >>> from spiral_autograd import fit, init_params, load_data
    >>> x, t = load_data()
    >>> state = fit(init_params(2, 10, 3, rng=0), x, t, max_epoch=3, eval_interval=5, rng=0)
    >>> plot_loss(state).get_xlabel()
    'iterations (x5)'
    """
    if not isinstance(state, TrainState):
        got = type(state).__name__
        raise TypeError(f"state must be a TrainState, as fit returns it, got {got}")
    if not state.loss_list:
        raise ValueError("state has no losses to draw: fit it with a smaller eval_interval")
    ax = _axes(ax)
    ax.plot(np.arange(len(state.loss_list)), state.loss_list, **({"color": COLORS[0]} | line))
    if ylim is not None:
        ax.set_ylim(ylim)
    return _named(ax, f"iterations (x{state.eval_interval})", "loss", "Cross Entropy Loss")


def plot_decision_boundary(
    params: Any,
    x: Array,
    t: Array,
    h: float = 0.001,
    *,
    ax: Axes | None = None,
    scatter: Mapping[str, Any] | None = None,
    **image: Any,
) -> Axes:
    """Draw the region of each class that is predicted, the data on top: Saito, section 1.4.3.

    `params` and `h` are the predictor and the spacing of `decision_grid`, `x` and `t` the data of
    `plot_data`, `scatter` its options as a dict, and `image` options of ``Axes.imshow``, such as
    ``alpha=0.5``.

    Examples
    --------
    >>> import matplotlib; matplotlib.use("Agg")
    >>> from spiral_autograd import init_params, load_data
    >>> ax = plot_decision_boundary(init_params(2, 10, 3, rng=0), *load_data(), h=0.1)
    >>> len(ax.images)
    1
    """
    x, t = examples("x", x), finite_array("t", t)  # parameters in their places are named first
    x = _two_columns(x)
    known = len(network_params(params, x)[-1]) if hasattr(params, "keys") else None
    labels, count = class_indices(t, len(x), known)
    xs, ys, classes = decision_grid(params, x, h)
    count = max(count, int(classes.max()) + 1)
    ax = _axes(ax)
    style: dict[str, Any] = {"cmap": _pale_colors(count), "vmin": -0.5, "vmax": count - 0.5}
    style |= {"origin": "lower", "interpolation": "nearest"}
    style["extent"] = xs[0] - h / 2, xs[-1] + h / 2, ys[0] - h / 2, ys[-1] + h / 2
    ax.imshow(classes, **(style | image))
    return plot_data(x, labels, ax=ax, **(scatter or {}))


def _pale_colors(count: int) -> Colormap:
    """Return each class's colour, mixed with so much white that the data stands out on it."""
    from matplotlib.colors import ListedColormap, to_rgba_array

    # Three shares of white in turn, so that neighbouring regions differ in grey print too.
    white = np.resize([0.55, 0.85, 0.70], count)[:, None]
    colors = np.resize(to_rgba_array(COLORS)[:, :3], (count, 3))
    return ListedColormap(white + (1 - white) * colors)
