"""What a check found, as data: a kind and its fields. The sentences stand in `words`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Finding:
    """One thing that is to be said.

    Attributes
    ----------
    kind : str
        A key of `words.SENTENCES`.
    fields : dict
        What the sentence of that kind is made of: names, numbers, shapes, places.
    """

    kind: str
    fields: Mapping[str, Any] = field(default_factory=dict)


def found(kind: str, /, **fields: Any) -> Finding:
    """Return a finding.

    Examples
    --------
    >>> found("factor", times=2.0).fields["times"]
    2.0
    """
    return Finding(kind, fields)
