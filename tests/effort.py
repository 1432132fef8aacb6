"""How many examples are drawn: a share of them by default, and all in `.ci/run`."""

import os

SHARE = float(os.environ.get("EXAMPLES_SHARE", "0.3"))


def examples(full):
    """Return how many of some examples are drawn now: EXAMPLES_SHARE=1 draws all of them."""
    return max(5, round(SHARE * full))
