"""autograd's gradient of a loss, recorded once and written out as NumPy."""

from .cached import DerivationWarning, cached_program, value_and_grad, warn_of_change
from .deriving import derive
from .guards import DerivationError
from .program import Program

__all__ = [
    "DerivationError",
    "DerivationWarning",
    "Program",
    "cached_program",
    "derive",
    "value_and_grad",
    "warn_of_change",
]
