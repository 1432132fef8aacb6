"""The command line: train the chapter's network, and check its handwritten gradients on the way."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NoReturn

import autograd
import numpy as np

from . import manual, network, plotting
from .data import load_data
from .derive import derive
from .optimizers import sgd
from .training import NonFiniteLossError, TrainState, fit
from .validation import Array, number, positive_integer

TOLERANCE = 1e-10
Params = dict[str, Array]
Differences = dict[str, tuple[float, float]]

# -------------------- the options --------------------


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: {message} (--help explains the options)\n")


def _checked(check: Callable[[str, Any], Any], convert: type) -> Callable[[str], Any]:
    def parse(text: str) -> Any:
        try:
            return check("the value", convert(text))
        except (ValueError, TypeError):
            kind = "a whole number of at least 1" if convert is int else "a number above 0"
            raise argparse.ArgumentTypeError(f"must be {kind}, got {text!r}") from None

    return parse


def _seed(text: str) -> int:
    if not text.isdecimal() or int(text) >= 2**32:
        raise argparse.ArgumentTypeError(f"must be from 0 to 2**32 - 1, got {text!r}")
    return int(text)


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="spiral-autograd",
        description=(
            "Trains the two-layer network of 'Deep Learning from Scratch 2', chapter 1, on the "
            "spiral with automatic gradients, compares every handwritten gradient with them on "
            "every batch, and saves the pictures and the trained parameters."
        ),
        epilog=f"Exit status: 0 if all gradients agree to {TOLERANCE:g}, 1 if not, 2: bad options",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    count = _checked(positive_integer, int)
    above_zero = _checked(lambda name, value: number(name, value, above=0), float)
    option = parser.add_argument
    option(
        "command",
        nargs="?",
        choices=["train", "derive"],
        default="train",
        help="'derive' prints autograd's backward pass of the network, as NumPy",
    )
    option("--epochs", type=count, default=300, metavar="N", help="passes over the data")
    option("--batch-size", type=count, default=30, metavar="N", help="examples to an update")
    option("--hidden-size", type=count, default=10, metavar="N", help="units of the hidden layer")
    option("--learning-rate", type=above_zero, default=1.0, metavar="R", help="step size of SGD")
    option(
        "--seed", type=_seed, default=1984, metavar="S", help="of the data, weights and shuffles"
    )
    option("--max-grad", type=above_zero, metavar="R", help="clip gradients to this global L2 norm")
    option(
        "--output", type=Path, default=Path("spiral-output"), metavar="DIR", help="where to save"
    )
    option("--no-plots", action="store_true", help="save the parameters only")
    return parser


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
            absolute, relative = np.max([largest.get(name, (0.0, 0.0)), now], axis=0)
            largest[name] = float(absolute), float(relative)
        return value, grads

    return both


def _table(title: str, params: Params, differences: Differences) -> str:
    lines = [title, f"{'':4}{'shape':>12}{'largest |difference|':>24}{'relative':>12}"]
    for name, (absolute, relative) in differences.items():
        shape = str(params[name].shape)
        lines.append(f"{name:4}{shape:>12}{absolute:>24.1e}{relative:>12.1e}")
    return "\n".join(lines)


# -------------------- what is saved --------------------


def _save(path: Path, write: Callable[[Path], Any]) -> None:
    """Write a file beside its place, then move it there: whole, or not at all."""
    part = path.with_name(f".{path.stem}.part{path.suffix}")
    try:
        write(part)
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)


def _save_parameters(folder: Path, params: Params) -> list[Path]:
    path = folder / "parameters.npz"
    _save(path, lambda part: np.savez(part, **params))  # type: ignore[arg-type]
    return [path]


def _save_plots(folder: Path, state: TrainState, x: Array, t: Array) -> Iterator[Path]:
    """Save the pictures one by one, and yield where each is."""
    from matplotlib.figure import Figure

    draw: dict[str, Callable[[Any], Any]] = {
        "data.png": lambda ax: plotting.plot_data(x, t, ax=ax),
        "loss.png": lambda ax: plotting.plot_loss(state, ax=ax),
        "decision_boundary.png": lambda ax: plotting.plot_decision_boundary(
            state.params, x, t, ax=ax
        ),
    }
    if not state.loss_list:
        del draw["loss.png"]
    for name, picture in draw.items():
        figure = Figure(figsize=(5.6, 5.0), layout="constrained")
        picture(figure.add_subplot())
        _save(folder / name, partial(figure.savefig, dpi=150))
        yield folder / name


# -------------------- the main job --------------------


def _run(parser: argparse.ArgumentParser, options: argparse.Namespace) -> int:
    stream = np.random.RandomState(options.seed)
    x, t = load_data(stream)
    if options.batch_size > len(x):
        parser.error(f"argument --batch-size: there are only {len(x)} examples")
    params = network.init_params(2, options.hidden_size, 3, rng=stream)
    if options.command == "derive":
        batch = x[: options.batch_size], t[: options.batch_size]
        print(derive(network.loss, params, *batch).source, end="")
        return 0
    try:
        options.output.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        parser.error(f"argument --output: cannot make the folder: {error}")
    differences: Differences = {}

    def train(value_and_grad: Callable[..., Any], on_eval: Any) -> TrainState:
        return fit(
            params,
            x,
            t,
            value_and_grad=value_and_grad,
            optimizer=sgd(options.learning_rate),
            max_epoch=options.epochs,
            batch_size=options.batch_size,
            max_grad=options.max_grad,
            eval_interval=10,
            rng=stream,
            on_eval=on_eval,
        )

    automatic, saved = None, list[Path]()
    try:
        automatic = train(_watched(differences), print)
        handwritten = train(manual.value_and_grad, None)
    except KeyboardInterrupt as stop:
        state = automatic or getattr(stop, "state", None)
        if state is None:  # before there was anything to keep
            raise
        saved = _save_parameters(options.output, state.params)
        print(f"\nstopped in epoch {state.epoch + 1}; saved:", *saved)
        return 130
    batches = options.epochs * (len(x) // options.batch_size)
    title = f"Handwritten against automatic gradients, on each of {batches:,} batches"
    apart = _differences(handwritten.params, automatic.params)
    print(f"\n{_table(title, params, differences)}\n")
    print(f"{_table('Parameters after training by each of them', params, apart)}\n")
    print(f"accuracy on the data: {network.accuracy(automatic.params, x, t):.1%}")
    try:
        saved += _save_parameters(options.output, automatic.params)
        for picture in () if options.no_plots else _save_plots(options.output, automatic, x, t):
            saved.append(picture)
    except KeyboardInterrupt:
        print("\nstopped; saved:", " ".join(map(str, saved)) or "nothing")
        return 130
    print("saved:", *saved)
    return _verdict(differences)


def _verdict(differences: Differences) -> int:
    agree = all(relative <= TOLERANCE for _, relative in differences.values())
    print(f"The gradients {'agree' if agree else 'DO NOT agree'} to {TOLERANCE:g}.")
    return 0 if agree else 1


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit status.

    Parameters
    ----------
    argv : sequence of str, optional
        The arguments; by default those of the process.

    Returns
    -------
    int
        0 where every handwritten gradient agrees with the automatic one, 1 where not, 2 for bad
        options, 130 after a Ctrl-C.

    Examples
    --------
    >>> import contextlib, io
    >>> with contextlib.redirect_stderr(io.StringIO()) as said:
    ...     try:
    ...         main(["--epochs", "0"])
    ...     except SystemExit as stop:
    ...         print(stop.code, said.getvalue()[:69])
    2 spiral-autograd: argument --epochs: must be a whole number of at least
    """
    parser = _parser()
    options = parser.parse_args(argv)
    try:
        return _run(parser, options)
    except NonFiniteLossError as error:
        print(f"{parser.prog}: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print(f"\n{parser.prog}: stopped", file=sys.stderr)
        return 130


if __name__ == "__main__":
    sys.exit(main())
