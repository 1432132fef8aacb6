"""Ctrl-C while the command line is still being imported: one line, and no traceback."""

import os
import signal
import sys
from types import FrameType


def _is_command() -> bool:
    """Tell whether this process was started as the command line of this package."""
    name = sys.argv[0] if sys.argv else ""
    if name == "-m":  # as it is while Python imports the package that it is to run
        arguments = sys.orig_argv
        return arguments[arguments.index("-m") + 1 :][:1] == ["spiral_autograd"]
    return os.path.basename(name).partition(".")[0] == "spiral-autograd"


def _stop(number: int, frame: FrameType | None) -> None:
    os.write(2, b"\nspiral-autograd: stopped\n")
    os._exit(130)  # nothing has begun that would have to be ended


def raise_again() -> None:
    """Let Ctrl-C raise KeyboardInterrupt, as it does by default."""
    if signal.getsignal(signal.SIGINT) is _stop:
        signal.signal(signal.SIGINT, signal.default_int_handler)


if signal.getsignal(signal.SIGINT) is signal.default_int_handler and _is_command():
    signal.signal(signal.SIGINT, _stop)  # until `raise_again` is called
