"""The command line: train the chapter's network, and check its handwritten gradients on the way."""

from __future__ import annotations

import argparse
import contextlib
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NoReturn

import numpy as np

from . import __version__, network
from .derive import Program, derive
from .interrupts import raise_again
from .main_job import SETTINGS, STOPPED, TOLERANCE, Complain, first_state, kept_run, run
from .train_state import NonFiniteLossError

UNWRITABLE, CLOSED = 3, 141  # the last as shells have it
DESCRIPTION = (
    "Trains the two-layer network of 'Deep Learning from Scratch 2', chapter 1, on the spiral with "
    "automatic gradients, compares every handwritten gradient with them on every batch, and saves "
    "the pictures and the trained parameters."
)
EXIT_STATUS = (
    f"Exit status: 0 if all gradients agree to {TOLERANCE:g}, 1 if not, 2: bad options, "
    f"{UNWRITABLE}: the files or the output cannot be written, {STOPPED}: stopped by Ctrl-C, "
    f"{CLOSED}: the reader of the output closed it"
)

# -------------------- the options --------------------


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: {message} (--help explains the options)\n")


def _read(
    convert: Callable[[str], Any], accept: Callable[[Any], bool], kind: str
) -> Callable[[str], Any]:
    """Return what makes an option's value of its text, or says of what kind it must be."""

    def read(text: str) -> Any:
        with contextlib.suppress(ValueError):
            value = convert(text)
            if accept(value):
                return value
        raise argparse.ArgumentTypeError(f"must be {kind}, got {text!r}")

    return read


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(prog="spiral-autograd", description=DESCRIPTION, epilog=EXIT_STATUS)
    unless_given = " (default: %(default)s)"
    count = _read(int, lambda n: n >= 1, "a whole number of at least 1")
    rate = _read(float, lambda r: 0 < r < np.inf, "a number above 0")
    seed = _read(int, lambda s: 0 <= s < 2**32, "from 0 to 2**32 - 1")
    command = "'derive' prints autograd's backward pass of the network, as NumPy; 'graph' its graph"
    command += unless_given
    parser.add_argument("command", nargs="?", choices=COMMANDS, default="train", help=command)
    for name, kind, default, letter, meaning in (
        ("epochs", count, 300, "N", "passes over the data"),
        ("batch-size", count, 30, "N", "examples to an update"),
        ("hidden-size", count, 10, "N", "units of the hidden layer"),
        ("learning-rate", rate, 1.0, "R", "step size of SGD"),
        ("seed", seed, 1984, "S", "of the data, weights and shuffles"),
        ("max-grad", rate, None, "R", "clip gradients to this global L2 norm"),
        ("output", Path, Path("spiral-output"), "DIR", "where to save"),
        ("html", Path, None, "DIR", "save the run as a page, too: DIR/index.html"),
    ):
        meaning += unless_given if default is not None else ""
        parser.add_argument(f"--{name}", type=kind, default=default, metavar=letter, help=meaning)
    parser.add_argument("--resume", action="store_true", help="go on with the run in --output")
    written = "how the graph is written" + unless_given
    parser.add_argument("--format", choices=FORMATS, default="mermaid", help=written)
    parser.add_argument("--full", action="store_true", help="each operation of the graph a node")
    parser.add_argument("--no-plots", action="store_true", help="save the parameters only")
    parser.add_argument("--version", action="version", version=__version__)
    parser.set_defaults(kept={})
    return parser


def _refuse_what_is_ignored(parser: argparse.ArgumentParser, options: argparse.Namespace) -> None:
    """End with the first option that was given, but means nothing to the command."""
    means = COMMANDS[options.command][1]
    for name, value in vars(options).items():
        if name not in ("command", *means) and value != parser.get_default(name):
            parser.error(
                f"argument --{name.replace('_', '-')}: {options.command} takes no other options "
                f"than {', '.join('--' + other.replace('_', '-') for other in means)}"
            )


# -------------------- the commands --------------------


def _print_program(options: argparse.Namespace, complain: Complain) -> int:
    """Print autograd's backward pass of the network for a batch, as NumPy or as a graph."""
    params, data, _ = first_state(options, complain)
    program = derive(network.loss, params, *(array[: options.batch_size] for array in data))
    is_graph = options.command == "graph"
    text = FORMATS[options.format](program, full=options.full) if is_graph else program.source
    print(text, end="")
    return 0


FORMATS = {"mermaid": Program.to_mermaid, "dot": Program.to_dot}
# What each command runs, and the options that mean something to it.
COMMANDS: dict[str, tuple[Callable[[argparse.Namespace, Complain], int], tuple[str, ...]]] = {
    "train": (run, (*SETTINGS, "output", "html", "resume", "no_plots")),
    "derive": (_print_program, ("batch_size", "hidden_size", "seed")),
    "graph": (_print_program, ("batch_size", "hidden_size", "seed", "format", "full")),
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit status, which `EXIT_STATUS` explains."""
    parser = _parser()
    try:
        raise_again()
        options = parser.parse_args(argv)
        _refuse_what_is_ignored(parser, options)
        if options.resume:  # what is not said is as it was in that run
            kept = kept_run(options, parser.error)
            options = parser.parse_args(argv, argparse.Namespace(kept=kept, **kept["options"]))
        status = COMMANDS[options.command][0](options, parser.error)
        sys.stdout.flush()
        return status
    except NonFiniteLossError as error:
        status, why = 1, str(error)
    except OSError as error:
        if not error.filename:  # what is still to be written goes nowhere: else Python complains
            with contextlib.suppress(OSError):  # where it is no file
                os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        what = error.filename or "the output"
        status, why = UNWRITABLE, f"cannot write {what}: {error.strerror or error}"
        if isinstance(error, BrokenPipeError):
            status, why = CLOSED, "the reader of the output closed it"
    except KeyboardInterrupt:
        status, why = STOPPED, "stopped"
        print(file=sys.stderr)
    print(f"{parser.prog}: {why}", file=sys.stderr)
    return status


if __name__ == "__main__":
    sys.exit(main())
