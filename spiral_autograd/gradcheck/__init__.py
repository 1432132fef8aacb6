"""The checker: is this handwritten backward pass right, and if not, where and why."""

from .checks import check_backward, check_gradient, check_layer
from .function_checks import check_derivative, check_primitive
from .network_check import check_network
from .report import GradientReport
from .subject.marks import tap
from .subject.subject import CheckError
from .verdict.rows import Row

__all__ = [
    "CheckError",
    "GradientReport",
    "Row",
    "check_backward",
    "check_derivative",
    "check_gradient",
    "check_layer",
    "check_network",
    "check_primitive",
    "tap",
]
