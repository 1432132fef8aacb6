"""autograd's gradient of a loss, recorded once and written out as NumPy."""

from .cached import DerivationWarning, cached_program, value_and_grad
from .program import DerivationError, Program, derive

__all__ = [
    "DerivationError",
    "DerivationWarning",
    "Program",
    "cached_program",
    "derive",
    "value_and_grad",
]
