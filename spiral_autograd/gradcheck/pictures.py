"""A report as a picture: handwritten, automatic and difference, side by side on common scales."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass
from math import prod
from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib.figure import Figure

from ..validation import Array, Shape
from .verdict.rows import RIGHT, Row

if TYPE_CHECKING:
    from matplotlib.axes import Axes

COLUMNS = ("handwritten", "automatic", "difference")
CELLS = 160  # along the side of a picture: of a larger array each cell shows the largest of several
BARS = 64  # entries that a row of bars can show


class Picture(Figure):
    """A figure that pyplot does not keep, and that notebooks show."""

    def _repr_png_(self) -> bytes:
        file = io.BytesIO()
        self.savefig(file, format="png")
        return file.getvalue()


def draw_rows(title: str, rows: Sequence[Row]) -> Figure:
    """Draw three pictures for each row, under a title."""
    figure = Picture(figsize=(10, 0.8 + 2.2 * len(rows)), layout="constrained")
    axes = figure.subplots(len(rows), 3, squeeze=False)
    figure.suptitle(title, fontsize=11)
    for ax, column in zip(axes[0], COLUMNS, strict=True):
        ax.set_title(column, fontsize=10, pad=12)
    for line, row in zip(axes, rows, strict=True):
        _draw(figure, line, row)
    return figure


def _draw(figure: Figure, axes: Sequence[Axes], row: Row) -> None:
    ours, theirs = (_array(g) for g in (row.handwritten, row.automatic))
    same = ours is not None and theirs is not None and ours.shape == theirs.shape
    with np.errstate(all="ignore"):
        apart = ours - theirs if same else None  # type: ignore[operator]
    limit = max(map(_limit, (ours, theirs, apart))) or 1.0
    absent = (
        "no gradient" if ours is None else "",
        "known along random\ndirections only" if theirs is None else "",
        "" if same else "shapes differ" if ours is not None and theirs is not None else "none",
    )
    for ax, array, text in zip(axes, (ours, theirs, apart), absent, strict=True):
        if array is None:
            _say(ax, text)
        else:
            _show(figure, ax, array, limit)
    shape = str(row.shape).replace(" ", "")
    name = row.name if len(row.name) <= 24 else f"{row.name[:11]}…{row.name[-12:]}"
    axes[0].set_ylabel(f"{name}\n{shape}\n{row.verdict}", fontsize=10)
    if apart is not None and row.verdict not in RIGHT:
        _mark(axes[2], apart, row)


def _array(gradient: Any) -> Array | None:
    return None if gradient is None else np.asarray(gradient, dtype=float)


def _limit(array: Array | None) -> float:
    """Return the largest finite absolute value."""
    if array is None:
        return 0.0
    return float(np.max(np.abs(array), initial=0.0, where=np.isfinite(array)))


def _say(ax: Axes, text: str) -> None:
    ax.text(0.5, 0.5, text, ha="center", va="center", transform=ax.transAxes, color="0.4")
    ax.set_xticks([])
    ax.set_yticks([])


def _show(figure: Figure, ax: Axes, array: Array, limit: float) -> None:
    if array.ndim <= 1:
        _show_vector(ax, np.atleast_1d(array), limit)
        return
    tiles = Tiles.of(array.shape)
    picture = tiles.picture(array)
    height, width = picture.shape
    image = ax.imshow(
        coarse(picture),
        cmap=_colours(),
        vmin=-limit,
        vmax=limit,
        aspect="auto",
        interpolation="nearest",
        extent=(-0.5, width - 0.5, height - 0.5, -0.5),
    )
    _ticks(ax.xaxis, width, tiles.across)
    _ticks(ax.yaxis, height, tiles.down)
    ax.vlines(tiles.edges(width, tiles.across), -0.5, height - 0.5, color="0.4", linewidth=0.8)
    ax.hlines(tiles.edges(height, tiles.down), -0.5, width - 0.5, color="0.4", linewidth=0.8)
    _remark(ax, array, tiles.remark, "dark: ")
    figure.colorbar(image, ax=ax, format=_number).ax.tick_params(labelsize=8)


@dataclass(frozen=True)
class Tiles:
    """How an array is laid out: its last two axes as tiles, or all but the first one flat."""

    down: int
    across: int
    height: int
    width: int
    remark: str = ""

    @classmethod
    def of(cls, shape: Shape) -> Tiles:
        """Return tiles where they make a small picture, else one of all axes but the first."""
        *lead, height, width = shape
        down, across = prod(lead[:-1]), prod(lead[-1:])
        if len(shape) == 2:
            return cls(1, 1, height, width)
        if max(down * height, across * width) <= CELLS:
            return cls(down, across, height, width, "tiles of the last two axes")
        return cls(1, 1, shape[0], prod(shape[1:]), f"axes 1 to {len(shape) - 1}, flat")

    def picture(self, array: Array) -> Array:
        """Return the array as one picture."""
        tiles = array.reshape(self.down, self.across, self.height, self.width)
        return tiles.swapaxes(1, 2).reshape(self.down * self.height, self.across * self.width)

    def place(self, flat: int) -> tuple[int, int]:
        """Return the column and the row of an entry in the picture."""
        shape = self.down, self.across, self.height, self.width
        a, b, i, j = map(int, np.unravel_index(flat, shape))
        return b * self.width + j, a * self.height + i

    def edges(self, length: int, count: int) -> list[float]:
        """Return where one tile ends and the next begins."""
        return [i * length / count - 0.5 for i in range(1, count)]


def _ticks(axis: Any, length: int, count: int) -> None:
    """Number the entries along an axis, or the tiles."""
    if count == 1:
        _whole_ticks(axis, length)
        return
    numbers = range(0, count, max(1, -(-count // 5)))
    middle = [(i + 0.5) * length / count - 0.5 for i in numbers]
    axis.set_ticks(middle, [str(i) for i in numbers])
    axis.set_tick_params(labelsize=8)


def _remark(ax: Axes, array: Array, said: str = "", how: str = "") -> None:
    """Say under a picture how it is laid out, and what is not finite in it."""
    bad = int((~np.isfinite(array)).sum())
    verb = "entry is" if bad == 1 else "entries are"
    lost = f"{how}{bad} {verb} not finite" if bad else ""
    ax.set_xlabel("; ".join(filter(None, (said, lost))))
    ax.xaxis.label.set_fontsize(8)


def _show_vector(ax: Axes, values: Array, limit: float) -> None:
    """Draw bars, or the range of each stretch of a long array; a cross where it is not finite."""
    places = np.arange(values.size)
    if values.size <= BARS:
        ax.bar(places, np.where(np.isfinite(values), values, 0.0), color="#0072B2")
    else:
        ax.plot(places, values, color="#0072B2", linewidth=0.8)
    bad = places[~np.isfinite(values)]
    _remark(ax, values)
    if bad.size:
        ax.plot(bad, np.zeros(bad.size), "x", color="#D55E00", clip_on=False)
    ax.axhline(0.0, color="0.7", linewidth=0.8, zorder=0)
    ax.set_ylim(-1.05 * limit, 1.05 * limit)
    margin = 0.6 if values.size <= BARS else 0.02 * values.size
    ax.set_xlim(-margin, values.size - 1 + margin)
    _whole_ticks(ax.xaxis, values.size)
    ax.yaxis.set_major_formatter(_number)
    ax.tick_params(labelsize=8)


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


def _mark(ax: Axes, apart: Array, row: Row) -> None:
    """Frame the entry that is furthest off."""
    from matplotlib.patheffects import withStroke

    if row.index is None or not row.max_abs > 0:
        return
    at = int(np.ravel_multi_index(row.index, apart.shape)) if apart.ndim else 0
    if apart.ndim <= 1:
        place = at, float(np.nan_to_num(apart.ravel()[at], posinf=0.0, neginf=0.0))
    else:
        place = Tiles.of(apart.shape).place(at)
    (frame,) = ax.plot(*place, "s", markersize=9, markerfacecolor="none", clip_on=False)
    frame.set(markeredgecolor="0.1", markeredgewidth=1.2)
    frame.set_path_effects([withStroke(linewidth=3.5, foreground="white")])


def _colours() -> Any:
    import matplotlib as mpl

    return mpl.colormaps["RdBu_r"].with_extremes(bad="0.2")


def _number(value: float, _: Any = None) -> str:
    return f"{value:.3g}"


def _whole_ticks(axis: Any, length: int) -> None:
    """Put ticks at indices, whole ones, few."""
    step = max(1, -(-length // 5))
    axis.set_ticks(np.arange(0, length, step))
    axis.set_tick_params(labelsize=8)
