"""What NumPy's primitives do to their arguments, in one table."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Primitive:
    """What is known of one of NumPy's functions."""

    rounds: bool = False  # its results: those of what only chooses or moves numbers are not rounded
    is_arithmetic: bool = False  # +, -, * or /, which do not round where one argument is 0, or 1
    kinks: bool = False  # its derivative jumps somewhere, or it decides
    moves: bool = False  # it returns the numbers of its argument in another layout
    adds: bool = False  # its result is a sum of its arguments or of their entries, with signs
    multiplies: bool = False  # its first two arguments, or divides
    sums: bool = False  # it adds up entries
    is_singular: bool = False  # it has no value, or no derivative, at zero: logarithms and roots
    guards: bool = False  # a small constant among its arguments may keep its result from zero
    # It hands its argument on more or less as it is: what keeps that from zero keeps its result.
    hands_on: bool = False


_UNKNOWN = Primitive()
_TABLE = {
    "add subtract": Primitive(rounds=True, is_arithmetic=True, adds=True, guards=True),
    "negative": Primitive(adds=True, hands_on=True),
    "multiply": Primitive(rounds=True, is_arithmetic=True, multiplies=True, hands_on=True),
    "divide true_divide": Primitive(rounds=True, is_arithmetic=True, multiplies=True),
    "dot matmul inner tensordot einsum dot_adjoint_0 dot_adjoint_1 matmul_adjoint_0 "
    "matmul_adjoint_1 tensordot_adjoint_0 tensordot_adjoint_1": Primitive(
        rounds=True, multiplies=True, sums=True
    ),
    "outer": Primitive(rounds=True, multiplies=True),
    "sum": Primitive(rounds=True, adds=True, sums=True, hands_on=True),
    "mean": Primitive(rounds=True, sums=True, hands_on=True),
    "var std cumsum norm": Primitive(rounds=True, sums=True),
    "power square exp exp2 expm1 tanh sinh cosh sin cos tan arctan prod logaddexp "
    "erf erfc expit": Primitive(rounds=True),
    "log log2 log10 log1p sqrt reciprocal": Primitive(rounds=True, is_singular=True),
    "rsqrt cbrt": Primitive(is_singular=True),
    "reshape transpose swapaxes moveaxis ravel squeeze expand_dims": Primitive(
        moves=True, hands_on=True
    ),
    "rollaxis": Primitive(moves=True),
    "broadcast_to repeat tile concatenate stack take getitem __getitem__ copy astype _astype "
    "as_float": Primitive(hands_on=True),
    "maximum fmax clip where": Primitive(kinks=True, guards=True, hands_on=True),
    "minimum fmin max amax min amin": Primitive(kinks=True, hands_on=True),
    "abs absolute fabs sign heaviside argmax argmin argsort sort select greater less greater_equal "
    "less_equal": Primitive(kinks=True),
}
_BY_NAME = {name: primitive for names, primitive in _TABLE.items() for name in names.split()}


def primitive(name: str) -> Primitive:
    """Return what is known of a primitive by its name: nothing, of most."""
    return _BY_NAME.get(name, _UNKNOWN)
