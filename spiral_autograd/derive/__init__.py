"""autograd's gradient of a loss, recorded once and written out as NumPy.

outside     what the loss reaches besides its arguments, watched (kinds: what code names)
simplify    the recording as expressions (expressions), shortened by algebra (rules)
writer      expressions as text; of it two forms of the program:
            listing: for people; buffers: for speed, its losses computed later
guards      other inputs and a second recording: does the program hold for them?
deriving    derive: all of these in turn; bodies: what SciPy has is recorded as NumPy
program     what comes of it; graph: the recording as the book draws it
cached      a program for each loss and each form of its arguments
"""

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
