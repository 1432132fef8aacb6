"""The sentences about what flows back, and where nothing does.

They are handed the fields of a finding; where a field is a finding itself, its sentence.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any


class Said(str):
    """The sentence of a finding, with its kind and its fields as they are said."""

    kind: str
    fields: Mapping[str, Any]

    @classmethod
    def of(cls, text: str, kind: str, fields: Mapping[str, Any]) -> Said:
        """Return a sentence with what it was made of."""
        said = cls(text)
        said.kind, said.fields = kind, fields
        return said


def listed(names: Sequence[object], most: int = 6) -> str:
    """Return names as a person lists them: a, b and c."""
    texts = [str(name) for name in names]
    if len(texts) > most:
        return f"{', '.join(texts[:most])}, ..."
    return " and ".join(filter(None, (", ".join(texts[:-1]), texts[-1])))


def upstream_name(name: str | None) -> str:
    """Return what the reader calls the upstream gradient."""
    return name or "the upstream gradient"


def _of_upstream(output: int | None = None, name: str | None = None) -> str:
    return f"{upstream_name(name)}{'' if output is None else f' of output {output}'}"


# -------------------- what flows back --------------------


def _flow(result: str, via: str | None, argument: str | None, run: Sequence[int] | None) -> str:
    """Say which part of the gradient is spoken of, by the way that it takes."""
    way = f"{result}{f' by way of {via}' if via else ''}"
    turn = f" (run {run[0]} of {run[1]} of this line)" if run else ""
    to = f" to {argument}" if argument not in (None, result) else ""
    return f"what flows back{to} through {way}{turn}"


CHANGES: dict[str, str | Callable[..., str]] = {
    "named": "{name}",
    "expression": lambda text: f"`{text if len(text) <= 60 else f'{text[:36]}…{text[-20:]}'}`",
    "result": "the result of {of}",
    "array": "a constant array",
    "upstream": _of_upstream,
    "flow": _flow,
    "flow_to": "all that flows back to {argument}",
    "upstream_of": "the upstream gradient of {argument}",
    "left_out": "{flow} is missing",
    "lost": lambda result, by: f"the derivative of {result}{f' by {by}' if by else ''} is missing",
    "not_carried": lambda values: (
        f"nothing flows back from one turn of the loop to the turn before, through {listed(values)}"
    ),
    "truncated": lambda steps: (
        f"what flows back through the loop is cut off after {steps} turn{'s' * (steps > 1)} "
        "(truncated: right if that is meant)"
    ),
    "only": lambda flow, overwritten: (
        f"only {flow} is kept: {'each overwrites the one before; ' * overwritten}add up all (+=)"
    ),
}
