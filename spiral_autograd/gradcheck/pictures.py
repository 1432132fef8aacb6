"""A report as a picture: handwritten, automatic and difference, side by side on common scales."""

from __future__ import annotations

import io
import textwrap
from collections.abc import Sequence
from math import prod

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.patheffects import withStroke

from ..validation import Array
from .verdict.rows import FAILURES, Row

COLUMNS = ("your gradient", "the true one", "difference")
CELLS = 160  # along the side of a picture: of a larger array each cell shows the largest of several
BARS = 64  # entries that a row of bars can show
MOST = 6  # rows; of more only the wrong ones are drawn, and of these so many
BLUE, RED, DARK_RED = "#0072B2", "#D55E00", "#B03000"


class Picture(Figure):
    """A figure that pyplot does not keep, and that notebooks show."""

    def _repr_png_(self) -> bytes:
        file = io.BytesIO()
        self.savefig(file, format="png")
        return file.getvalue()


def draw_rows(title: str, rows: Sequence[Row], reference: str) -> Figure:
    """Draw three pictures for each row, under a title; of many rows only the wrong ones."""
    wrong = [row for row in rows if row.verdict in FAILURES]
    shown = rows if len(rows) <= MOST else (wrong or rows)[:MOST]
    title += f"\ndrawn: {len(shown)} of {len(rows)} rows" * (len(shown) < len(rows))
    reasons = [_reason(row) for row in shown]
    lines = sum(reason.count("\n") + 1 for reason in reasons if reason)
    height = 0.8 + 2.2 * len(shown) + 0.2 * lines
    figure = Picture(figsize=(10, height), layout="constrained")
    axes = figure.subplots(len(shown), 3, squeeze=False)
    figure.suptitle(title, fontsize=11, parse_math=False)
    columns = [COLUMNS, *[("",) * 3] * len(shown)]
    for line, row, reason, names in zip(axes, shown, reasons, columns, strict=False):
        _draw(figure, line, row, reference)
        _head(line, names, reason)
    return figure


def _reason(row: Row) -> str:
    """Return why a row is wrong, in a few lines."""
    why = row.why if row.verdict in FAILURES else ""
    return "\n".join(
        textwrap.wrap(why and f"{row.name}: {why}", 120, max_lines=3, placeholder=" …")
    )


def _head(axes: Sequence[Axes], columns: Sequence[str], reason: str) -> None:
    """Name the columns over a row, and say why it is wrong, across them."""
    room = "\n" * (reason.count("\n") + 1) if reason else ""
    for ax, column in zip(axes, columns, strict=True):
        ax.set_title(column + room, fontsize=10, pad=12 if column else 6)
    if reason:
        said = axes[0].text(-0.1, 1.03, reason, color=DARK_RED, fontsize=9.5, va="bottom")
        said.set(transform=axes[0].transAxes, in_layout=False, parse_math=False)


def _draw(figure: Figure, axes: Sequence[Axes], row: Row, reference: str) -> None:
    """Draw the two gradients of a row and their difference."""
    arrays, is_wrong = _three(row), row.verdict in FAILURES
    ours, theirs, apart = arrays
    lacking = "none" if ours is None or theirs is None else "shapes differ"
    absent = ("no gradient", "known along random\ndirections only", lacking)
    is_rounding = row.max_rel == 0 < row.max_abs
    limit = 1.0 if is_rounding else max(map(_limit, arrays)) or 1.0
    for ax, array, text in zip(axes, arrays, absent, strict=True):
        if array is None:
            ax.text(0.5, 0.5, text, ha="center", va="center", transform=ax.transAxes, color="0.4")
            ax.set(xticks=[], yticks=[])
            continue
        label = f"yours - {reference}" if array is apart else ""
        if array.ndim > 1:
            _show_tiles(figure, ax, array, limit, label)
        else:
            color = RED if is_wrong and label else BLUE
            _show_vector(ax, np.atleast_1d(array), limit, color, label)
    _name(axes[0], row)
    if is_wrong:
        axes[2].spines[:].set(color=RED, linewidth=1.5)
        _mark(axes[2], apart, row)


def _name(ax: Axes, row: Row) -> None:
    """Write the name, the shape and the verdict of a row beside it."""
    shape = str(row.shape).replace(" ", "")
    name = row.name if len(row.name) <= 24 else f"{row.name[:11]}…{row.name[-12:]}"
    ax.yaxis.set_label_position("left")
    ax.set_ylabel(f"{name}\n{shape}\n{row.verdict}", fontsize=10, parse_math=False)
    if row.verdict in FAILURES:
        ax.yaxis.label.set(color=DARK_RED, fontweight="bold")


def _three(row: Row) -> tuple[Array | None, Array | None, Array | None]:
    """Return the two gradients of a row, and their difference, as far as there are any."""
    ours, theirs = (
        None if g is None else np.asarray(g, dtype=float) for g in (row.handwritten, row.automatic)
    )
    if ours is None or theirs is None or ours.shape != theirs.shape:
        return ours, theirs, None
    with np.errstate(all="ignore"):
        return ours, theirs, ours - theirs


def _limit(array: Array | None) -> float:
    """Return the largest finite absolute value, 0 where there is none."""
    some = np.zeros(1) if array is None else array
    return float(np.max(np.abs(some), initial=0.0, where=np.isfinite(some)))


# -------------------- matrices, and what has more axes --------------------


def _laid_out(array: Array) -> tuple[Array, int, int, str]:
    """Return an array as one picture, the number of tiles down and across, and what they are."""
    *lead, height, width = shape = array.shape
    down, across = prod(lead[:-1]), prod(lead[-1:])
    if lead and max(down * height, across * width) <= CELLS:
        tiles = array.reshape(down, across, height, width).swapaxes(1, 2)
        picture = tiles.reshape(down * height, across * width)
        return picture, down, across, "tiles of the last two axes"
    remark = f"axes 1 to {len(lead) + 1}, flat" if lead else ""
    return array.reshape(shape[0], prod(shape[1:])), 1, 1, remark


def _show_tiles(figure: Figure, ax: Axes, array: Array, limit: float, label: str) -> None:
    """Draw an array as an image, its tiles apart."""
    picture, down, across, remark = _laid_out(array)
    height, width = picture.shape
    image = ax.imshow(
        coarse(picture),
        cmap=mpl.colormaps["RdBu_r"].with_extremes(bad="0.2"),
        vmin=-limit,
        vmax=limit,
        aspect="auto",
        interpolation="nearest",
        extent=(-0.5, width - 0.5, height - 0.5, -0.5),
    )
    for axis, length, count in ((ax.xaxis, width, across), (ax.yaxis, height, down)):
        _ticks(axis, length, count)
    ax.vlines(_edges(width, across), -0.5, height - 0.5, color="0.4", linewidth=0.8)
    ax.hlines(_edges(height, down), -0.5, width - 0.5, color="0.4", linewidth=0.8)
    _remark(ax, array, remark, "dark: ")
    bar = figure.colorbar(image, ax=ax, format=_number)
    bar.ax.tick_params(labelsize=8)
    bar.set_label(label, fontsize=8)


def _edges(length: int, count: int) -> list[float]:
    """Return where one tile ends and the next begins."""
    return [i * length / count - 0.5 for i in range(1, count)]


def _ticks(axis: Axis, length: int, count: int = 1) -> None:
    """Number the entries along an axis, or the tiles."""
    size = 1 if count == 1 else length // count
    numbers = range(0, length // size, max(1, -(-(length // size) // 5)))
    axis.set_ticks([size * i + (size - 1) / 2 for i in numbers], [str(i) for i in numbers])
    axis.set_tick_params(labelsize=8)


def coarse(rows: Array) -> Array:
    """Return a picture of at most `CELLS` by `CELLS`: of each block the largest entry, or a NaN.

    Examples
    --------
    >>> rows = np.zeros((400, 400)); rows[301, 7] = -3.0
    >>> coarse(rows).shape, float(coarse(rows).min())
    ((134, 134), -3.0)
    """
    for axis, length in enumerate(rows.shape):
        step = -(-length // CELLS)
        if step > 1:
            starts = np.arange(0, length, step)
            most = np.maximum.reduceat(rows, starts, axis=axis)
            least = np.minimum.reduceat(rows, starts, axis=axis)
            rows = np.where(most >= -least, most, least)
    return rows


# -------------------- vectors --------------------


def _show_vector(ax: Axes, values: Array, limit: float, color: str, label: str) -> None:
    """Draw bars, or the range of each stretch of a long array; a cross where it is not finite."""
    places, is_short = np.arange(values.size), values.size <= BARS
    if is_short:
        ax.bar(places, np.where(np.isfinite(values), values, 0.0), color=color)
    else:
        ax.plot(places, values, color=color, linewidth=0.8)
    _remark(ax, values)
    bad = places[~np.isfinite(values)]
    if bad.size:
        ax.plot(bad, np.zeros(bad.size), "x", color=RED, clip_on=False)
    ax.axhline(0.0, color="0.7", linewidth=0.8, zorder=0)
    margin = 0.6 if is_short else 0.02 * values.size
    ax.set(ylim=(-1.05 * limit, 1.05 * limit), xlim=(-margin, values.size - 1 + margin))
    _ticks(ax.xaxis, values.size)
    ax.yaxis.set_major_formatter(_number)
    ax.tick_params(labelsize=8)
    ax.yaxis.set_label_position("right")
    ax.set_ylabel(label, fontsize=8)


def _remark(ax: Axes, array: Array, said: str = "", how: str = "") -> None:
    """Say under a picture how it is laid out, and what is not finite in it."""
    bad = int((~np.isfinite(array)).sum())
    verb = "entry is" if bad == 1 else "entries are"
    lost = f"{how}{bad} {verb} not finite" if bad else ""
    zero = "" if np.any(array) else "all zero"
    ax.set_xlabel("; ".join(filter(None, (said, lost, zero))), fontsize=8)


def _mark(ax: Axes, apart: Array | None, row: Row) -> None:
    """Frame the entry that is furthest off."""
    if apart is None or row.index is None or not row.max_abs > 0:
        return
    at = int(np.ravel_multi_index(row.index, apart.shape)) if apart.ndim else 0
    height = float(np.nan_to_num(apart.ravel()[at], posinf=0.0, neginf=0.0))
    place = at, height
    if apart.ndim > 1:
        numbers, *_ = _laid_out(np.arange(apart.size).reshape(apart.shape))
        place = tuple(np.argwhere(numbers == at)[0][::-1])
    (frame,) = ax.plot(*place, "s", markersize=9, markerfacecolor="none", clip_on=False)
    frame.set(markeredgecolor="0.1", markeredgewidth=1.2)
    frame.set_path_effects([withStroke(linewidth=3.5, foreground="white")])


def _number(value: float, _: object = None) -> str:
    return f"{value:.3g}"
