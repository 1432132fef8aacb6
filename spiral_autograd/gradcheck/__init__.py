"""The checker: is this handwritten backward pass right, and if not, where and why."""

from .checks import check_backward, check_gradient, check_layer
from .compare import Row
from .functions import tap
from .handwritten import CheckError
from .network import check_network
from .report import GradientReport

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
