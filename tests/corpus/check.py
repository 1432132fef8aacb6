"""A check that is ready to run: which function of the library, on what."""

import inspect
from dataclasses import dataclass, field
from typing import NamedTuple

import spiral_autograd as sa


class Sizes(NamedTuple):
    n: int = 5  # examples
    d: int = 4  # inputs
    h: int = 3  # outputs, hidden units
    c: int = 3  # classes
    t: int = 3  # time steps
    side: int = 4  # of an image
    k: int = 2  # of a filter


@dataclass
class Check:
    function: str
    arguments: tuple
    options: dict = field(default_factory=dict)
    verdicts: tuple = ("exact", "match")  # those that a right layer may have

    def __call__(self, **options):
        check = getattr(sa, self.function)
        accepted = inspect.signature(check).parameters
        options = {name: value for name, value in options.items() if name in accepted}
        return check(*self.arguments, **{**self.options, **options})


def layer(layer, *inputs, **how):
    return Check("check_layer", (layer, *inputs), **how)


def pair(forward, backward, *inputs, **how):
    return Check("check_backward", (forward, backward, *inputs), **how)


def gradient(loss, gradient, params, *data, **how):
    return Check("check_gradient", (loss, gradient, params, *data), **how)


def network(net, x, t, **how):
    return Check("check_network", (net, x, t), **how)
