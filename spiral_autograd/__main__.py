"""The command line: train the chapter's network, and check its handwritten gradients on the way."""

from __future__ import annotations

import argparse
import contextlib
import os
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import IO, Any, NoReturn

import autograd
import numpy as np

from . import manual, network, plotting
from .data import load_data
from .derive import derive
from .interrupts import raise_again
from .optimizers import sgd
from .train_state import NonFiniteLossError, TrainState
from .training import fit
from .validation import Array, number, positive_integer

TOLERANCE = 1e-10
UNWRITABLE, CLOSED, STOPPED = 3, 141, 130  # the last two are those of shells
PARAMETERS, PICTURES = "parameters.npz", ("data.png", "loss.png", "decision_boundary.png")
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
        epilog=(
            f"Exit status: 0 if all gradients agree to {TOLERANCE:g}, 1 if not, 2: bad options, "
            f"{UNWRITABLE}: the files or the output cannot be written, {STOPPED}: stopped by "
            f"Ctrl-C, {CLOSED}: the reader of the output closed it"
        ),
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


class _UnwritableError(Exception):
    """A file cannot be written, or the output; the message says which, and why."""


def _umask() -> int:
    mask = os.umask(0o077)
    os.umask(mask)
    return mask


def _save(path: Path, write: Callable[[IO[bytes]], Any]) -> None:
    """Write a new file beside a path, then move it there: whole, or not at all."""
    part = None
    try:
        number, part = tempfile.mkstemp(prefix=".", suffix=".part", dir=path.parent)
        with open(number, "wb") as file:
            write(file)
        os.chmod(part, 0o666 & ~_umask())
        os.replace(part, path)
        part = None
    except OSError as error:
        raise _UnwritableError(f"cannot write {path}: {error.strerror or error}") from error
    finally:
        if part is not None:
            os.unlink(part)


def _try_folder(folder: Path, names: Sequence[str]) -> None:
    """Make the output folder, and raise unless all the files can be written there."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError):
        raise
    except OSError as error:
        reason = error.strerror or error
        raise _UnwritableError(f"cannot make the folder {folder}: {reason}") from error
    for name in names:
        if (folder / name).is_dir():
            raise _UnwritableError(f"cannot write {folder / name}: a directory is in the way")
    trial = folder / f".{os.urandom(8).hex()}"
    try:
        _save(trial, lambda file: file.write(bytes(8192)))
    except _UnwritableError as error:
        message = str(error).replace(str(trial), f"into {folder}")
        raise _UnwritableError(message) from error
    trial.unlink()


def _save_parameters(folder: Path, params: Params) -> list[Path]:
    path = folder / PARAMETERS
    _save(path, lambda file: np.savez(file, **params))  # type: ignore[arg-type]
    return [path]


def _save_plots(folder: Path, state: TrainState, x: Array, t: Array) -> Iterator[Path]:
    """Save the pictures one by one, and yield where each is."""
    from matplotlib.figure import Figure

    draw: tuple[Callable[[Any], Any], ...] = (
        lambda ax: plotting.plot_data(x, t, ax=ax),
        lambda ax: plotting.plot_loss(state, ax=ax),
        lambda ax: plotting.plot_decision_boundary(state.params, x, t, ax=ax),
    )
    for name, picture in zip(PICTURES, draw, strict=True):
        if name == "loss.png" and not state.loss_list:
            continue
        figure = Figure(figsize=(5.6, 5.0), layout="constrained")
        picture(figure.add_subplot())
        _save(folder / name, partial(figure.savefig, dpi=150, format="png"))
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
        _try_folder(options.output, [PARAMETERS, *(() if options.no_plots else PICTURES)])
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
        return STOPPED
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
        return STOPPED
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
        options, 3 where the files or the output cannot be written, 130 after a Ctrl-C, 141 where
        the reader of the output closed it.

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
    try:
        raise_again()
        options = parser.parse_args(argv)
        status = _run(parser, options)
        sys.stdout.flush()
        return status
    except NonFiniteLossError as error:
        return _ended(parser, str(error), 1)
    except _UnwritableError as error:
        return _ended(parser, str(error), UNWRITABLE)
    except BrokenPipeError:
        _abandon_output()
        return _ended(parser, "the reader of the output closed it", CLOSED)
    except OSError as error:
        _abandon_output()
        return _ended(parser, f"cannot write the output: {error}", UNWRITABLE)
    except KeyboardInterrupt:
        print(file=sys.stderr)
        return _ended(parser, "stopped", STOPPED)


def _ended(parser: argparse.ArgumentParser, why: str, status: int) -> int:
    print(f"{parser.prog}: {why}", file=sys.stderr)
    return status


def _abandon_output() -> None:
    """Send what is still to be written nowhere: else Python would complain at its end."""
    with contextlib.suppress(OSError):  # where it is no file
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


if __name__ == "__main__":
    sys.exit(main())
