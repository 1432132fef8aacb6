"""What becomes of a loss that has no program."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
from autograd.tracer import trace_stack

from ..boxes import RecordingError


class DerivationError(RecordingError):
    """A loss has no program: what it computes is not the same list of calls for all values.

    Examples
    --------
    >>> from spiral_autograd import derive
    >>> try:
    ...     derive(lambda w: w if w > 0 else -w, 1.0)
    ... except DerivationError as error:
    ...     print(str(error)[:38])
    a value that depends on the parameters
    """


@contextmanager
def silence() -> Iterator[None]:
    """Let no warning out: what is computed on redrawn inputs is nobody's business."""
    with np.errstate(all="ignore"), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


@contextmanager
def refused(what: str) -> Iterator[None]:
    """Turn any error into a refusal that says what happened, and close autograd's traces."""
    top = trace_stack.top
    try:
        yield
    except DerivationError:
        raise
    except Exception as error:  # the loss is the user's, and may raise anything
        message = str(error) if isinstance(error, RecordingError) else None
        raise DerivationError(message or f"{what}{type(error).__name__}: {error}") from error
    finally:
        trace_stack.top = top
