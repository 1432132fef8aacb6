"""The figures as Markdown tables and as one picture."""

from __future__ import annotations

import os
import platform
from collections.abc import Iterable
from datetime import date
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, NamedTuple

from . import checker, checkers, decision_grid, steps
from .measure import Timings, table
from .programs import PROGRAMS, installed, missing

SPIRAL = (10, 30)
REFERENCE = "handwritten"
STEP_TARGETS = {
    REFERENCE: 0.42,
    "function": 0.55,
    "plain": 0.07,
    "pytorch": 1.0,
    "jax_step": 1.0,
    "jax_flat": 0.8,
}
CHECK_TARGETS = 1.5, 1.3, 3.0, 1.2  # a dense layer, a large one, a convolution, an LSTM
LIBRARIES = ("spiral_autograd", "numpy", "autograd", "torch", "jax", "jaxlib")


class Figures(NamedTuple):
    """What was measured."""

    steps: dict[tuple[int, int], Timings]
    processes: Timings
    imports: Timings
    grid: tuple[Timings, dict[str, int]]
    checker: checker.Figures
    checkers: dict[str, Timings]
    load: tuple[str, str]  # of the machine, before and after


# -------------------- Markdown --------------------


def markdown(figures: Figures) -> str:
    """Return all tables, with the machine and what was compared."""
    return "\n\n".join(
        [
            "# Benchmarks",
            _setting(figures.load),
            "## A training step\n\nThe spiral's: 2 inputs, 10 hidden units, 3 classes, batch 30. "
            "Whole runs of the book's 300 epochs, their shuffles, batches and loop included, for "
            "`fit` also its derivation; what a library compiles it has compiled before.",
            _comparison(figures.steps[SPIRAL], "a step", 1e6, "µs", 1),
            "The same for other sizes, µs; in the last columns the step of `fit` relative to the "
            "handwritten layer objects, and to the one handwritten function.",
            _sizes(figures.steps),
            "## The whole process\n\nFrom the start of Python to the trained network: imports, "
            "whatever is derived or compiled, 3,000 steps, no plots. All train the same network.",
            _comparison(figures.processes, "the process", 1, "s", 2),
            "## The import",
            _imports(figures.imports),
            "## The decision grid",
            decision_grid.compared(*figures.grid),
            checker.markdown(figures.checker),
            "## Other checkers\n\nA check of a right layer in ms, and in brackets the time of "
            "`check_layer` relative to it. The others check operations of their own library, by "
            "differences in one random direction; none of them looks at handwritten NumPy code.",
            checkers.compared(figures.checkers),
            "## Targets",
            _targets(figures),
        ]
    )


def _setting(load: tuple[str, str]) -> str:
    lines = [
        f"{date.today().isoformat()}, {_processor()}, {os.cpu_count()} cores, "
        f"{platform.system()} {platform.release()}, Python {platform.python_version()}, "
        f"{', '.join(_versions(LIBRARIES))}.",
        f"Load before and after: {load[0]} and {load[1]}.",
        "All programs ran side by side in one run, in turn; the times are medians, the ratios "
        "medians of the ratios within a round. float64 everywhere, one thread for each library; "
        "the steps and the checks of other libraries ran on one core, the processes on any.",
    ]
    if missing():
        lines.append(f"Left out, as they are not installed: {', '.join(missing())}.")
    return "\n".join(lines)


def _versions(names: Iterable[str]) -> Iterable[str]:
    for name in names:
        try:
            yield f"{name} {version(name)}"
        except PackageNotFoundError:
            continue


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def _comparison(timings: Timings, what: str, scale: float, unit: str, digits: int) -> str:
    header = "program", "written", f"{what} [{unit}]", "relative to objects", "`fit` relative to it"
    rows = [
        (
            PROGRAMS[name].title,
            PROGRAMS[name].written,
            f"{timings.median(name) * scale:.{digits}f}",
            f"{timings.ratio(name, REFERENCE):.2f}",
            f"{timings.ratio('derived', name):.3f}",
        )
        for name in timings
    ]
    return table(header, rows)


def _sizes(measured: dict[tuple[int, int], Timings]) -> str:
    programs = installed()
    header = ["hidden", "batch", *(p.title for p in programs.values()), "to objects", "to function"]
    rows = [
        [
            str(hidden),
            str(batch),
            *(f"{timings.median(name) * 1e6:,.0f}" for name in programs),
            *(f"{timings.ratio('derived', name):.2f}" for name in (REFERENCE, "function")),
        ]
        for (hidden, batch), timings in measured.items()
    ]
    return table(header, rows)


def _imports(timings: Timings) -> str:
    rows = [
        (f"`import {name}`", f"{timings.median(name) * 1e3:.0f}", f"{ratio:.2f}")
        for name in timings
        for ratio in [timings.ratio(name, "autograd.numpy")]
    ]
    return table(("process", "time [ms]", "ratio"), rows)


def _targets(figures: Figures) -> str:
    step, process = figures.steps[SPIRAL], figures.processes
    hidden, largest = figures.steps[100, 30], figures.steps[1000, 3000]
    ours, check = checkers.OURS, list(figures.checkers.items())
    wanted = [
        *(
            (f"step: fit / {PROGRAMS[to].title}", step, "derived", to, target)
            for to, target in STEP_TARGETS.items()
        ),
        ("step, hidden 100: fit / function", hidden, "derived", "function", 0.65),
        ("step, hidden 1000, batch 3000: fit / objects", largest, "derived", REFERENCE, 1.05),
        ("process: fit / JAX `jit`", process, "derived", "jax_step", 0.5),
        ("process: fit / JAX `scan`", process, "derived", "jax_scan", 0.5),
        ("process: fit / PyTorch", process, "derived", "pytorch", 0.2),
        ("import: spiral_autograd / autograd.numpy", figures.imports, ours, "autograd.numpy", 1.15),
        *(
            (f"check: {title}: `check_layer` / PyTorch", timings, ours, "torch", target)
            for (title, timings), target in zip(check, CHECK_TARGETS, strict=True)
        ),
    ]
    rows = [
        (what, f"{target:.2f}", f"{ratio:.3f}", "yes" if ratio <= target else "**no**")
        for what, timings, name, to, target in wanted
        if to in timings.seconds
        for ratio in [timings.ratio(name, to)]
    ]
    return table(("ratio", "at most", "measured", "met"), rows)


# -------------------- the picture --------------------

INK, OURS, OTHERS = "#333333", "#0072B2", "#B8BEC4"
# Okabe and Ito's colours, told apart by colour-blind readers; a marker each besides.
LINES = {
    "derived": (OURS, "o"),
    "function": ("#56B4E9", "P"),
    "plain": ("#D55E00", "s"),
    "pytorch": ("#009E73", "^"),
    "jax_flat": ("#CC79A7", "v"),
    "jax_scan": ("#E69F00", "D"),
}


def plot(figures: Figures, path: Path) -> None:
    """Save the step, the process and the sizes, side by side."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    style = {
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.titlelocation": "left",
        "axes.titleweight": "bold",
        "text.color": INK,
        "axes.edgecolor": INK,
    }
    with plt.rc_context(style):
        fig, axes = plt.subplots(
            1, 3, figsize=(15, 4), layout="constrained", width_ratios=(3, 3, 5)
        )
        _bars(axes[0], figures.steps[SPIRAL], 1e6, "{:.0f} µs", "A training step")
        _bars(axes[1], figures.processes, 1, "{:.2f} s", "Start to trained network")
        _lines(axes[2], figures.steps)
        fig.savefig(path, dpi=120)
        plt.close(fig)


def _label(name: str) -> str:
    return PROGRAMS[name].title.replace("`", "")


def _bars(axes: Any, timings: Timings, scale: float, text: str, title: str) -> None:
    names = sorted(timings, key=timings.median, reverse=True)
    values = [timings.median(name) * scale for name in names]
    colors = [OURS if name == "derived" else OTHERS for name in names]
    bars = axes.barh([_label(name) for name in names], values, color=colors)
    axes.axvline(timings.median(REFERENCE) * scale, color=INK, linewidth=1, linestyle=":", zorder=0)
    box = {"facecolor": "white", "edgecolor": "none", "pad": 1}
    axes.bar_label(bars, [text.format(value) for value in values], padding=4, bbox=box)
    axes.set_title(title)
    axes.set_xscale("log")
    axes.set_xlim(min(values) / 2, max(values) * 4)
    axes.set_xlabel("logarithmic; dotted: layer objects")
    axes.xaxis.set_major_formatter("{x:g}")
    axes.tick_params(left=False)


def _lines(axes: Any, measured: dict[tuple[int, int], Timings]) -> None:
    width = len(steps.BATCHES)
    at = {size: i + i // width for i, size in enumerate(measured)}  # a gap between the networks
    axes.axhline(1, color=INK, linewidth=1)
    for name in (name for name in LINES if name in installed()):
        color, marker = LINES[name]
        for hidden in steps.HIDDEN:
            sizes = [(hidden, batch) for batch in steps.BATCHES]
            axes.plot(
                [at[size] for size in sizes],
                [measured[size].ratio(name, REFERENCE) for size in sizes],
                color=color,
                marker=marker,
                linewidth=3 if name == "derived" else 1.3,
                label=_label(name) if hidden == steps.HIDDEN[0] else None,
            )
    axes.set_yscale("log", base=2)
    axes.yaxis.set_major_formatter("{x:g}")
    axes.set_xticks(list(at.values()), [str(batch) for _, batch in at], fontsize=8)
    axes.set_xlabel("batch")
    axes.set_ylabel("below 1 is faster")
    for hidden in steps.HIDDEN:
        middle = at[hidden, steps.BATCHES[width // 2]]
        place = {"transform": axes.get_xaxis_transform(), "ha": "center", "va": "bottom"}
        axes.text(middle, 0.01, f"{hidden} hidden", **place)
    axes.set_ylim(bottom=axes.get_ylim()[0] / 1.8)
    axes.set_title("A step of other sizes, relative to handwritten layers")
    axes.legend(frameon=False, loc="center left", bbox_to_anchor=(1, 0.5))
