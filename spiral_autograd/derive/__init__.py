"""autograd's gradient of a loss, recorded once and written out as NumPy."""

from .program import (
    DerivationError,
    DerivationWarning,
    Program,
    cached_program,
    derive,
    value_and_grad,
)

__all__ = [
    "DerivationError",
    "DerivationWarning",
    "Program",
    "cached_program",
    "derive",
    "value_and_grad",
]
