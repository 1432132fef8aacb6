"""Every sentence that a person reads, made of a `Finding`: the one place where English stands."""

from __future__ import annotations

from collections.abc import Callable

from .finding import Finding

# From the kind of a finding to its sentence: a template for `str.format`, or a function of the
# fields. Those of a row go on after the name of its gradient.
SENTENCES: dict[str, str | Callable[..., str]] = {
    # -------------------- rows: what the numbers alone show --------------------
    # -------------------- rows: what a change of the backward pass shows --------------------
    # -------------------- rows: verdicts (shapes, kinks, small constants, rounding) ----------
    # -------------------- rows and failures: calls, and what is left of earlier ones ---------
    # -------------------- notes: how the gradients were found, and what is beside them -------
    # -------------------- networks --------------------
}


def sentence(finding: Finding) -> str:
    """Return the sentence of a finding."""
    made = SENTENCES[finding.kind]
    return made(**finding.fields) if callable(made) else made.format(**finding.fields)
