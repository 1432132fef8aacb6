"""How much is drawn of what is drawn: EXAMPLES_SHARE, which CONTRIBUTING.md explains."""

import os

SHARE = float(os.environ.get("EXAMPLES_SHARE", "0.05"))


def examples(full, least=5):
    """Return how many examples are drawn now of so many."""
    return max(least, round(SHARE * full))


def some(cases, times=1):
    """Return so many times a share of some cases, from all of them in turn; more hold the fewer."""
    return [case for i, case in enumerate(cases) if i * 0.6180339887 % 1 < times * SHARE]
