"""The main job: train by the automatic and by the handwritten gradient, and compare them."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from errno import EISDIR
from pathlib import Path
from typing import IO, Any, NoReturn

import autograd
import numpy as np

from . import manual, network, plotting, run_page
from .data import load_data
from .optimizers import sgd
from .saving import load, save, write_whole
from .train_state import Evaluation, TrainState
from .training import fit
from .validation import Array, Params

TOLERANCE = 1e-10
STOPPED = 130  # the exit status after a Ctrl-C, as shells have it
CHECKPOINT = "checkpoint.npz"
SETTINGS = ("epochs", "batch_size", "hidden_size", "learning_rate", "seed", "max_grad")
PAGE, PARAMETERS = "index.html", "parameters.npz"
PICTURES = ("data.png", "loss.png", "decision_boundary.png")
Differences = dict[str, tuple[float, float]]
Rows = list[tuple[str, ...]]
Tables = dict[str, Rows]
Write = Callable[[IO[bytes]], Any]  # writes a file
Complain = Callable[[str], NoReturn]  # ends the process, having said what is wrong with an option


# -------------------- the comparison --------------------


def _differences(handwritten: Params, automatic: Params) -> Differences:
    """Return the largest difference for each parameter, absolute and relative.

    Relative to the parameter's largest entry, or to a millionth of the largest of all: a gradient
    that is smaller still is the rounding of what cancels in it.
    """
    scales = {name: float(np.abs(array).max()) for name, array in automatic.items()}
    least = 1e-6 * max(scales.values())
    found = {}
    for name, array in automatic.items():
        apart = float(np.abs(handwritten[name] - array).max())
        found[name] = apart, apart / (max(scales[name], least) or 1.0)
    return found


def _watched(largest: Differences) -> Callable[..., tuple[Any, Params]]:
    """Return the automatic gradient source, which notes how far the handwritten one departs."""
    automatic = autograd.value_and_grad(network.loss)

    def both(params: Params, *batch: Array) -> tuple[Any, Params]:
        value, grads = automatic(params, *batch)
        _, by_hand = manual.value_and_grad(params, *batch)
        for name, now in _differences(by_hand, grads).items():
            largest[name] = tuple(np.max([largest.get(name, (0.0, 0.0)), now], axis=0).tolist())
        return value, grads

    return both


def _rows(params: Params, differences: Differences) -> Rows:
    """Return the cells of a table of differences, the head first."""
    found = [
        (name, str(params[name].shape), f"{absolute:.1e}", f"{relative:.1e}")
        for name, (absolute, relative) in differences.items()
    ]
    return [("", "shape", "largest |difference|", "relative"), *found]


# -------------------- what is saved --------------------


def _make_folder(complain: Complain, folder: Path, names: Sequence[str], option: str) -> None:
    """Make the output folder, and raise where a directory is in the way of a file."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError) as error:
        complain(f"argument --{option}: cannot make the folder: {error}")
    for name in names:
        if (folder / name).is_dir():
            raise IsADirectoryError(EISDIR, "a directory is in the way", f"{folder / name}")


def _drawn(draw: Callable[..., Any], *args: Any) -> Write:
    """Return what draws a picture into a file."""
    from matplotlib.figure import Figure

    def write(file: IO[bytes]) -> None:
        figure = Figure(figsize=(5.6, 5.0), layout="constrained")
        draw(*args, ax=figure.add_subplot())
        figure.savefig(file, dpi=150, format="png")

    return write


def _files(job: _Job, state: TrainState, tables: Tables) -> Iterator[tuple[Path, Write]]:
    """Yield the files of a run, and what writes each: first the parameters."""
    options, folder = job.options, job.options.output
    yield folder / PARAMETERS, lambda file: np.savez(file, **state.params)
    if not options.no_plots:
        data, loss, boundary = (folder / name for name in PICTURES)
        yield data, _drawn(plotting.plot_data, *job.data)
        if state.loss_list:
            yield loss, _drawn(plotting.plot_loss, state)
        yield boundary, _drawn(plotting.plot_decision_boundary, state.params, *job.data)
    if options.html:
        yield options.html / PAGE, lambda file: file.write(_page(job, state, tables).encode())


def _page(job: _Job, state: TrainState, tables: Tables) -> str:
    """Return the page of the run."""
    options, (x, t) = job.options, job.data
    interval = 10 / (len(x) // options.batch_size)
    losses = [((k + 1) * interval, loss) for k, loss in enumerate(state.loss_list)]
    said = {
        "kind": "right" if job.agree else "wrong",
        "verdict": f"{'✓ the' if job.agree else '✗ NOT all'} gradients agree to {TOLERANCE:g}",
        "lead": f"{len(x)} points in three arms; a network of {options.hidden_size} hidden units, "
        f"trained for {options.epochs} epochs in batches of {options.batch_size} with the seed "
        f"{options.seed}, by the automatic gradient and by the handwritten one.",
    }
    if job.frames[-1]["epoch"] != options.epochs:
        job.frames.append(run_page.picture(state.params, x, t, options.epochs))
    points = np.column_stack([x.round(3), t.argmax(axis=1)]).tolist()
    drawn = {"frames": job.frames, "losses": losses, "points": points}
    batch = [array[: options.batch_size] for array in job.data]
    return run_page.run_page(said, tables, drawn, job.params, *batch)


# -------------------- the main job --------------------


def first_state(
    options: argparse.Namespace, complain: Complain
) -> tuple[Params, tuple[Array, Array], np.random.RandomState]:
    """Return the initial parameters, the data, and the stream behind their draws."""
    stream = np.random.RandomState(options.seed)
    x, t = load_data(stream)
    if options.batch_size > len(x):
        complain(f"argument --batch-size: there are only {len(x)} examples")
    return network.init_params(2, options.hidden_size, 3, rng=stream), (x, t), stream


@dataclass
class _Job:
    """Both runs of the main job, and what is saved of them on the way, for `--resume`."""

    options: argparse.Namespace
    params: Params
    data: tuple[Array, Array]
    stream: np.random.RandomState

    def __post_init__(self) -> None:
        kept = self.options.kept
        self.runs: dict[str, TrainState] = kept.get("runs", {})
        self.differences: Differences = kept.get("differences", {})
        self.frames: list[run_page.Frame] = kept.get("frames", [])
        if self.options.html and not self.frames:
            self.frames.append(run_page.picture(self.params, *self.data, 0))

    @property
    def agree(self) -> bool:
        """Whether the gradients were the same on all batches."""
        return all(relative <= TOLERANCE for _, relative in self.differences.values())

    def look(self, now: Evaluation) -> None:
        """Print an evaluation; for the page make a picture, where one is due."""
        print(now)
        epoch = now.epoch - 1 + now.iteration / now.max_iters
        wait = self.options.epochs / run_page.FRAMES
        if self.options.html and epoch >= self.frames[-1]["epoch"] + wait:
            self.frames.append(run_page.picture(now.params, *self.data, epoch))

    def train(self, run: str, **source: Any) -> TrainState:
        """Return the last state of a run, begun or gone on with; it is saved on the way."""
        options, start = self.options, self.runs.get(run)
        if start and start.epoch == options.epochs and run == "handwritten":
            print(
                f"that run had its {options.epochs} epochs: --epochs {2 * options.epochs} goes on"
            )

        def keep(state: TrainState) -> None:
            self.runs[run] = state
            said = {name: getattr(options, name) for name in SETTINGS}
            kept: dict[str, Any] = {"options": said, "runs": self.runs, "frames": self.frames}
            kept["differences"] = self.differences
            save(kept, options.output / CHECKPOINT)

        return fit(
            self.params if start is None else start,
            *self.data,
            optimizer=sgd(options.learning_rate),
            max_epoch=options.epochs - (start.epoch if start else 0),
            batch_size=options.batch_size,
            max_grad=options.max_grad,
            eval_interval=10,
            rng=self.stream if start is None else None,
            checkpoint=keep,
            **source,
        )


def kept_run(options: argparse.Namespace, complain: Complain) -> dict[str, Any]:
    """Return what was kept of the last run in the output folder, or end with why not."""
    try:
        kept = load(path := options.output / CHECKPOINT)
        kept["options"] = {name: kept["options"][name] for name in SETTINGS}
    except FileNotFoundError:
        complain(f"argument --resume: no run was begun in {options.output}")
    except (KeyError, TypeError, IndexError):
        complain(f"argument --resume: {path} is not of a run")
    except (OSError, ValueError) as error:
        complain(f"argument --resume: {error}")
    return dict(kept)


def _refuse_another_run(options: argparse.Namespace, complain: Complain) -> None:
    """End if the run that is gone on with was begun with other options; epochs may be added."""
    for name, before in options.kept.get("options", {}).items():
        now = getattr(options, name)
        if before != now and not (name == "epochs" and before < now):
            option = name.replace("_", "-")
            complain(f"argument --resume: that run was begun with --{option} {before}, not {now}")


def run(options: argparse.Namespace, complain: Complain) -> int:
    """Train by both gradients, compare them, save what came of it, and return the exit status."""
    _refuse_another_run(options, complain)
    params, data, stream = first_state(options, complain)
    x, t = data
    names = [PARAMETERS, CHECKPOINT, *(() if options.no_plots else PICTURES)]
    _make_folder(complain, options.output, names, "output")
    if options.html:
        _make_folder(complain, options.html, [PAGE], "html")
    job = _Job(options, params, data, stream)
    try:
        automatic = job.train(
            "automatic", value_and_grad=_watched(job.differences), on_eval=job.look
        )
        handwritten = job.train("handwritten", value_and_grad=manual.value_and_grad)
    except KeyboardInterrupt:
        state = job.runs.get("automatic")
        if state is None:  # before there was anything to keep
            raise
        path, write = next(_files(job, state, {}))
        write_whole(path, write)
        print(f"\nstopped in epoch {state.epoch + 1}; saved:", path, "(--resume goes on)")
        return STOPPED
    batches = options.epochs * (len(x) // options.batch_size)
    apart = _differences(handwritten.params, automatic.params)
    tables = {
        f"Handwritten against automatic gradients, on each of {batches:,} batches": _rows(
            params, job.differences
        ),
        "Parameters after training by each of them": _rows(params, apart),
    }
    for title, rows in tables.items():
        print("", title, *("{:4}{:>12}{:>24}{:>12}".format(*row) for row in rows), sep="\n")
    print(f"\naccuracy on the data: {network.accuracy(automatic.params, x, t):.1%}")
    for path, write in _files(job, automatic, tables):
        write_whole(path, write)
        print("saved:", path)
    print(f"The gradients {'agree' if job.agree else 'DO NOT agree'} to {TOLERANCE:g}.")
    return 0 if job.agree else 1
