"""The checker: its cost in runs of the layer itself, and against entry-by-entry differences.

Run with: python -m benchmarks.checker [--quick], which renews the section in ``results.md``.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable
from datetime import date
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

import spiral_autograd as sa

from .measure import Timings, interleaved, peak_memory, table
from .programs.handwritten import Affine, AttributeAffine
from .spiral import Array

LARGE = 1000  # inputs and outputs: a million weights
LARGE_BATCH = 100
RUNS_AT_MOST, COPIES_AT_MOST = 12, 6
SIDES = (3, 10, 30, 100, 300)
BATCH = 10
RUN, CHECK, ENTRIES = "forward and backward", "check_layer", "entry by entry"


class Doubled(Affine):
    """An Affine whose gradient of W is twice the true one: what the search for a reason costs."""

    def backward(self, dout: Array) -> Array:
        """Keep the gradients of W, doubled, and b, and return that of x."""
        dx = super().backward(dout)
        self.grads[0] *= 2
        return dx


class Cost(NamedTuple):
    """What a check of a large layer costs."""

    layer: str
    timings: Timings  # RUN, CHECK
    copies: float  # of the weights, at the peak of memory


class Figures(NamedTuple):
    """What was measured."""

    large: list[Cost]
    sizes: dict[int, Timings]  # by the side of the weights: RUN, CHECK, ENTRIES
    apart: dict[int, tuple[float, float]]  # the largest relative difference that each reports
    load: str


def difference_quotients(f: Callable[[], Array], array: Array, upstream: Array, h: float) -> Array:
    """Return the gradient of sum(f() * upstream) by central differences, entry by entry."""
    gradient = np.zeros_like(array)
    for index in np.ndindex(array.shape):
        before = array[index]
        array[index] = before + h
        above = f()
        array[index] = before - h
        below = f()
        array[index] = before
        gradient[index] = np.sum((above - below) * upstream) / (2 * h)
    return gradient


def entry_by_entry(layer: Affine, x: Array, upstream: Array) -> float:
    """Return the largest relative difference between a layer's gradients and differences."""
    layer.forward(x)
    by_hand = layer.backward(upstream), *(np.array(g) for g in layer.grads)
    apart = 0.0
    for array, gradient in zip((x, *layer.params), by_hand, strict=True):
        numeric = difference_quotients(partial(layer.forward, x), array, upstream, 1e-5)
        apart = max(apart, np.abs(gradient - numeric).max() / np.abs(numeric).max())
    return apart


def _dense(make: type, side: int, batch: int) -> tuple[Any, Array, Array]:
    rng = np.random.default_rng(0)
    layer = make(rng.normal(size=(side, side)) / np.sqrt(side), rng.normal(size=side))
    return layer, rng.normal(size=(batch, side)), rng.normal(size=(batch, side))


def measure(quick: bool = False) -> Figures:
    """Return all figures of the checker."""
    large = [_large(make, title, 5 if quick else 21) for make, title in LAYERS]
    sizes, apart = {}, {}
    for side in SIDES[:-1] if quick else SIDES:
        layer, x, upstream = _dense(Affine, side, BATCH)
        runs = {
            RUN: partial(_run, layer, x, upstream),
            CHECK: partial(sa.check_layer, layer, x, upstream=upstream),
            ENTRIES: partial(entry_by_entry, layer, x, upstream),
        }
        sizes[side] = interleaved(runs, repeats=3 if quick or side > 100 else 9)
        rows = sa.check_layer(layer, x, upstream=upstream).rows
        apart[side] = max(row.max_rel for row in rows), entry_by_entry(layer, x, upstream)
    load = f"{os.getloadavg()[0]:.1f}" if hasattr(os, "getloadavg") else "unknown"
    return Figures(large, sizes, apart, load)


LAYERS = (
    (Affine, "right, gradients written into a list"),
    (AttributeAffine, "right, gradients as attributes"),
    (Doubled, "wrong: W's gradient doubled"),
)


def _run(layer: Any, x: Array, upstream: Array) -> None:
    layer.forward(x)
    layer.backward(upstream)


def _large(make: type, title: str, repeats: int) -> Cost:
    layer, x, upstream = _dense(make, LARGE, LARGE_BATCH)
    report = sa.check_layer(layer, x)
    assert report.ok is (make is not Doubled), str(report)
    check = partial(sa.check_layer, layer, x)
    runs = {RUN: partial(_run, layer, x, upstream), CHECK: check}
    memory = peak_memory(check)
    weights = 8 * LARGE * LARGE
    return Cost(title, interleaved(runs, repeats=repeats), memory / weights)


# -------------------- Markdown --------------------

TITLE = "## The checker"


def markdown(figures: Figures) -> str:
    """Return the section of the results."""
    return "\n\n".join(
        [
            TITLE,
            f"{date.today().isoformat()}, load {figures.load} afterwards, one thread. A dense "
            f"layer with {LARGE:,} inputs and outputs, a million weights, batch {LARGE_BATCH}: a "
            "check in runs of the layer's own forward and backward pass, and the peak of its "
            "memory in copies of the weights.",
            _costs(figures.large),
            "`check_layer` against central differences entry by entry, layers of n inputs and "
            f"outputs, batch {BATCH}; *apart* is the largest relative difference that each finds "
            "in the right gradients.",
            _sizes(figures),
            "![check_layer and entry-by-entry differences as layers grow](checker.png)",
        ]
    )


def _costs(costs: list[Cost]) -> str:
    limits = f"at most {RUNS_AT_MOST}", f"at most {COPIES_AT_MOST}"
    header = "layer", "a run [ms]", "a check [ms]", "runs", limits[0], "copies", limits[1]
    rows = [
        (
            layer,
            f"{timings.median(RUN) * 1e3:.1f}",
            f"{timings.median(CHECK) * 1e3:.0f}",
            f"{timings.ratio(CHECK, RUN):.1f}",
            _met(timings.ratio(CHECK, RUN), RUNS_AT_MOST),
            f"{copies:.1f}",
            _met(copies, COPIES_AT_MOST),
        )
        for layer, timings, copies in costs
    ]
    return table(header, rows)


def _met(measured: float, at_most: float) -> str:
    return "yes" if measured <= at_most else "**no**"


def _sizes(figures: Figures) -> str:
    rows = [
        "| n | numbers | check_layer [ms] | apart | entry by entry [ms] | apart | ratio |",
        "|--:|--:|--:|--:|--:|--:|--:|",
    ]
    for side, timings in figures.sizes.items():
        ours, theirs = figures.apart[side]
        rows.append(
            f"| {side} | {side * (side + 1 + BATCH):,} | {timings.median(CHECK) * 1e3:,.1f} "
            f"| {ours:.0e} | {timings.median(ENTRIES) * 1e3:,.1f} | {theirs:.0e} "
            f"| {_short(timings.ratio(ENTRIES, CHECK))} |"
        )
    return "\n".join(rows)


def _short(ratio: float) -> str:
    return f"{ratio:.1f}" if ratio < 10 else f"{ratio:,.0f}"


def renewed(text: str, section: str) -> str:
    """Return the results with the checker's section in the place of the old one."""
    before, found, rest = text.partition(f"{TITLE}\n")
    if not found:
        before, found, rest = text.partition("## Targets\n")
        rest = f"\n{found}{rest}"
    _, heading, after = rest.partition("\n## ")
    return f"{before.rstrip()}\n\n{section}\n\n{heading.lstrip()}{after}".rstrip() + "\n"


# -------------------- the picture --------------------


def plot(figures: Figures, path: Path) -> None:
    """Save the seconds of a check as layers grow."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    fig, ax = plt.subplots(figsize=(7, 4.2), layout="constrained")
    sides = list(figures.sizes)
    for name, color, marker in (
        (ENTRIES, "#D55E00", "s"),
        (CHECK, "#0072B2", "o"),
        (RUN, "#999999", "^"),
    ):
        seconds = [figures.sizes[side].median(name) for side in sides]
        points = [side * (side + 1 + BATCH) for side in sides]
        ax.plot(points, seconds, color=color, marker=marker, linewidth=2)
        ax.annotate(
            name,
            (points[-1], seconds[-1]),
            xytext=(8, 0),
            textcoords="offset points",
            color=color,
            va="center",
        )
    ax.set_xscale("log")
    ax.set_yscale("log")
    ax.set_xlim(right=ax.get_xlim()[1] * 8)
    ax.set_xlabel("numbers to check in x, W and b")
    ax.set_ylabel("seconds")
    ax.set_title(
        "Checking a dense layer, and differences entry by entry", loc="left", fontweight="bold"
    )
    ax.spines[["top", "right"]].set_visible(False)
    fig.savefig(path, dpi=120)
    plt.close(fig)


def main() -> None:
    """Measure the checker, and renew its section and its picture."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.checker", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="few repeats: a look, not a result")
    parser.add_argument("--output", type=Path, default=Path(__file__).parent, metavar="FOLDER")
    options = parser.parse_args()
    figures = measure(options.quick)
    section = markdown(figures)
    print(section)
    options.output.mkdir(parents=True, exist_ok=True)
    results = options.output / "results.md"
    text = results.read_text(encoding="utf-8") if results.exists() else "# Benchmarks\n"
    results.write_text(renewed(text, section), encoding="utf-8")
    plot(figures, options.output / "checker.png")


if __name__ == "__main__":
    main()
