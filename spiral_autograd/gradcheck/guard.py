"""What guards a verdict: a deadline for all that comes after it, and the errors of that.

A verdict is not lost. What fails while it is explained is said in the report; with `STRICT`, as in
the library's own tests, it is raised.
"""

from __future__ import annotations

import os
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from ..pages import printable
from ..recording import is_installed
from .finding import Finding, found

STRICT = False


class CheckError(ValueError):
    """A layer, a pair or a gradient function cannot be checked as it is; the message says why.

    Examples
    --------
    >>> from spiral_autograd import check_layer
    >>> try:
    ...     check_layer("no layer", 1.0)
    ... except CheckError as error:
    ...     print(str(error)[:48])
    layer must have the methods forward and backward
    """

    __module__ = "spiral_autograd"  # where it is to be had: a test's summary shows it in one line

    def __init__(self, message: str = "") -> None:
        super().__init__("\n".join(map(printable, message.split("\n"))))


class TheirError(CheckError):
    """The user's code raised, where it was run otherwise than the user does: on boxes, say."""

    __module__ = "spiral_autograd"

    def __reduce__(self) -> tuple[object, ...]:
        return CheckError, self.args


__test__ = {"CheckError": CheckError}  # for doctest, which goes by the module


class OutOfTime(Exception):  # noqa: N818 (no error: what has been found until then counts)
    """The time for what comes after a verdict is spent."""


@dataclass(frozen=True)
class Deadline:
    """When to stop: by the processor time of the thread, and at last by the clock.

    So the same is found on a machine that does other things besides, and code that waits ends too.
    """

    processor: float
    clock: float

    @classmethod
    def after(cls, seconds: float) -> Deadline:
        """Return the deadline that is so many seconds of the processor from now."""
        return cls(time.thread_time() + seconds, time.monotonic() + _WAITING * seconds)

    @property
    def left(self) -> float:
        """The seconds that are left, none at the least."""
        clock = (self.clock - time.monotonic()) / _WAITING
        return max(0.0, min(self.processor - time.thread_time(), clock))

    @property
    def is_over(self) -> bool:
        """Whether the time is spent."""
        return time.thread_time() > self.processor or time.monotonic() > self.clock

    def check(self) -> None:
        """Raise OutOfTime where the time is spent."""
        if self.is_over:
            raise OutOfTime


_WAITING = 3  # times as long as the processor's time, by the clock
NEVER = Deadline(float("inf"), float("inf"))


class theirs:  # noqa: N801 (it is used as a function)
    """Run the user's code: whatever it raises becomes a TheirError. It may raise anything."""

    __slots__ = ("more", "what")

    def __init__(self, what: str = "the code", more: Callable[[], str] = str) -> None:
        self.what, self.more = what, more

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: object, error: BaseException | None, traceback: object) -> None:
        if not isinstance(error, Exception | SystemExit):
            return
        if not isinstance(error, CheckError | OutOfTime):
            text = f"{self.what} raised {_text(error)}{_line_of(error)}{self.more()}"
            raise TheirError(text) from error


@contextmanager
def guarded(what: str, notes: list[Finding]) -> Iterator[None]:
    """Let what fails while a verdict is explained be a note, so that the verdict stands."""
    try:
        yield
    except OutOfTime:
        _say(notes, found("out_of_time", what=what))
    except CheckError as error:
        _say(notes, found("stopped", what=what, error=str(error)))
    except Exception as error:
        if STRICT:
            raise
        place = _place_of(error)
        _say(notes, found("own_mistake", what=what, error=_text(error), place=place))


@contextmanager
def answerable(title: str) -> Iterator[None]:
    """Let what fails before there is a verdict be a CheckError; what a door raises stays."""
    try:
        yield
    except CheckError:
        raise
    except RecursionError as error:
        text = f"{title} cannot be checked: one of its arguments contains itself, or is nested deep"
        raise CheckError(text) from error
    except Exception as error:
        if STRICT or _place_of(error).startswith(_DOORS):
            raise
        raise CheckError(
            f"{title} cannot be checked: {_text(error)} ({_place_of(error)}). Unless one of its "
            "objects raises this, it is a mistake of spiral_autograd's own: please report it"
        ) from error


_DOORS = ("pytree.py", "validation.py")


def _place_of(error: Exception) -> str:
    last = traceback.extract_tb(error.__traceback__)[-1]
    return f"{os.path.basename(last.filename)}:{last.lineno}"


def _line_of(error: BaseException) -> str:
    """Return the last line of the reader's own that an error went through."""
    frames = traceback.extract_tb(error.__traceback__)
    own = [f for f in frames if not is_installed(f.filename) and f.line]
    return (
        f" in {os.path.basename(own[-1].filename)}:{own[-1].lineno}: {own[-1].line}" if own else ""
    )


def _text(error: BaseException) -> str:
    """Return the kind and the message of an error; its message is made by the user's code too."""
    try:
        return f"{type(error).__name__}: {error}"
    except Exception:
        return type(error).__name__


def _say(notes: list[Finding], said: Finding) -> None:
    if said not in notes:
        notes.append(said)
