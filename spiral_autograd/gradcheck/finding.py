"""What a check found, as data: a kind and its fields. The sentences stand in `words`."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

# What sort of mistake a kind is, as `Row.rule` has it. A kind that is not here is of none, unless
# one of its fields is a `rule`.
_KINDS = {
    "unwritten": "nothing_returned all_zeros rounding_only never_written stands_elsewhere "
    "array_replaced no_gradient unkept",
    "upstream": "upstream_ignored upstream_twice upstream_not_linear",
    "factor": "constant_factor wrong_sign times mean_missing averaged_over one_less ratio "
    "either_way of_loss mean_of_cost",
    "layout": "swapped that_of transposed axes_order reordered reversed shifted blocks",
    "sum": "extra_axis not_summed lost_axis should_keep other_sum summed averaged the_largest "
    "the_first the_last",
    "term": "term constant_added left_out not_carried term_in_part constant_in_part",
    "part": "part",
    "value": "taken_as unused_by_forward lost truncated updated clipped clipped_norm combined "
    "passed_on diagonal_of_softmax",
    "kink": "kink",
    "state": "accumulates second_call third_call grows stale unsteady unset",
}
RULES = {kind: rule for rule, kinds in _KINDS.items() for kind in kinds.split()}


@dataclass(frozen=True)
class Finding:
    """One thing that is to be said."""

    kind: str  # a key of `words.SENTENCES`
    # What its sentence is made of: names, numbers, shapes, places, other findings.
    fields: Mapping[str, Any] = field(default_factory=dict, hash=False)

    @property
    def rule(self) -> str | None:
        """What sort of mistake it is; None where it is none, or none of a sort."""
        rule: str | None = self.fields.get("rule", RULES.get(self.kind))
        return rule

    def parts(self) -> Iterator[Finding]:
        """Yield this finding and those that are fields of it."""
        yield self
        for value in self.fields.values():
            for item in value if isinstance(value, list | tuple) else [value]:
                if isinstance(item, Finding):
                    yield from item.parts()

    def to_dict(self) -> dict[str, object]:
        """Return the finding as JSON-ready data."""
        return {"kind": self.kind, **{name: _plain(value) for name, value in self.fields.items()}}


def found(kind: str, /, **fields: object) -> Finding:
    """Return a finding."""
    return Finding(kind, fields)


def together(before: Iterable[Finding], new: Finding) -> tuple[Finding, ...]:
    """Return findings with a new one, without those of which the new one tells more."""
    return (*(old for old in before if not _is_told_by(old, new)), new)


def _is_told_by(old: Finding, new: Finding) -> bool:
    """Tell whether a new finding says what an old one does: shapes, nothing, why it scatters."""
    is_shape = old.kind == "shape" and "shape" in new.fields
    is_nothing = old.kind == "no_gradient" and new.rule == "unwritten"
    is_noise = old.kind == "amplified" and new.rule == "state"
    return old == new or is_shape or is_nothing or is_noise


def _plain(value: object) -> object:
    """Return a field as JSON has it; of what it knows nothing, the text."""
    if isinstance(value, Finding):
        return value.to_dict()
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [_plain(item) for item in value]
    if isinstance(value, np.generic | np.ndarray):
        return _plain(value.tolist())
    if isinstance(value, float) and not np.isfinite(value):
        return None
    return value if value is None or isinstance(value, str | int | float) else str(value)
