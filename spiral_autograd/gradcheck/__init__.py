"""The checker: is this handwritten backward pass right, and if not, where and why."""

from .checks import check_backward, check_gradient, check_layer
from .compare.compare import Row
from .handwritten.functions import tap
from .handwritten.subject import CheckError
from .network.network import check_network
from .report.report import GradientReport

__all__ = [
    "CheckError",
    "GradientReport",
    "Row",
    "check_backward",
    "check_gradient",
    "check_layer",
    "check_network",
    "tap",
]
