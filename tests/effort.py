"""How many examples are drawn: a share of them by default, and all in `.ci/run`."""

import os

SHARE = float(os.environ.get("EXAMPLES_SHARE", "0.3"))


def examples(full):
    """Return how many of some examples are drawn now: EXAMPLES_SHARE=1 draws all of them."""
    return max(5, round(SHARE * full))


def some(names, times=1):
    """Return so many times a share of some names, from all of them in turn."""
    names = list(names)
    return names if times * SHARE >= 1 else names[:: round(1 / (times * SHARE))]
