"""The sentences about changes of the backward pass: what is done to a gradient on its way back.

They are handed the fields of a finding; where a field is a finding itself, its sentence.
"""

from __future__ import annotations

import ast
import re
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


# -------------------- formulas --------------------

_CLOSED = {
    "softmax": ("a softmax", "{y} * (g - sum({y} * g))"),
    "log_softmax": ("a log-softmax", "g - exp({y}) * sum(g)"),
    "mean": ("a subtracted mean", "g - mean(g)"),
    "normalisation": ("a normalisation", "(g - mean(g) - {y} * mean({y} * g)) / std"),
    "rms": ("a division by the root mean square", "(g - {y} * mean({y} * g)) / rms"),
    "norm": ("a division by the norm", "(g - {y} * sum({y} * g)) / norm"),
}


def _closed(result: str, title: str, over: object) -> str:
    name, formula = _CLOSED[title]
    sums = "means" if "mean(" in formula else "sums"
    y = result if _is_plain(result) else "y"
    where = f"where g is the gradient of {y}, and the {sums} are over axis {over}"
    where += "" if y == result else f" (y is {result})"
    return f"the gradient of {name} is {formula.format(y=y)}, {where}"


def _is_plain(name: str) -> bool:
    """Tell whether a name can stand in a formula."""
    return re.fullmatch(r"[\w.]+", name) is not None


def _parsed(text: str) -> ast.expr | None:
    """Return an expression; None where it is none, or was shortened."""
    try:
        return ast.parse(text, mode="eval").body
    except SyntaxError:
        return None


def _function(function: str, v: str, minus: bool) -> str:
    """Write a simple function of a value."""
    name, quote = v.strip("`"), "`" if v.startswith("`") else ""
    is_atom = isinstance(_parsed(name), ast.Name | ast.Attribute | ast.Call | ast.Subscript)
    if not (is_atom or function == "{v}"):
        function, name = function.replace("({v})", "{v}"), f"({name})"
    text = function.format(v=name)
    made = _parsed(text)
    is_sum = isinstance(made, ast.BinOp) and isinstance(made.op, ast.Add | ast.Sub)
    text = f"-({text})" if minus and (is_sum or made is None) else f"{'-' * minus}{text}"
    return f"{quote}{text}{quote}"


def _derivative(
    result: str, by: str | None, function: str | None = None, true: str | None = None
) -> str:
    """Say what a derivative is one of, and what it is."""
    what = function or f"{result}{f' by {by}' if by else ''}"
    return f"the derivative of {what}{f', {true},' if true else ''}"


# -------------------- changes of the backward pass --------------------


def _of_derivative(derivative: Said, change: Said) -> str:
    """Say how a derivative is wrong, and what is right."""
    true = derivative.fields.get("true")
    if change.kind == "lost" and true is not None and true.kind != "function":
        return f"the factor {true} is missing"
    if change.kind != "taken_as":
        return f"{derivative} {change}"
    what = _derivative(**{**derivative.fields, "true": None})
    yours = f"your numbers are exactly those you get with {change}"
    if true == change:
        yours = f"your numbers are exactly those you get with another {change.fields['v']}"
    return f"{yours} as {what}" if true is None else f"{what} is {true}; {yours}"


def _comes_out(flow: Said, change: Said) -> str:
    """Say which change of the backward pass makes the gradient come out."""
    kind = flow.kind if flow else ""
    text = f"{flow} {change}" if flow else str(change)
    if kind == "derivative":
        text = _of_derivative(flow, change)
    elif kind == "closed":
        y = flow.fields["result"]
        text = f"{flow}; in yours, {change.replace('{y}', y if _is_plain(y) else 'y')}"
    return text


def _flow(result: str, via: str | None, argument: str | None, run: Sequence[int] | None) -> str:
    """Say which part of the gradient is spoken of, by the way that it takes."""
    way = f"{result}{f' by way of {via}' if via else ''}"
    turn = f" (run {run[0]} of {run[1]} of this line)" if run else ""
    to = f" to {argument}" if argument not in (None, result) else ""
    return f"what flows back{to} through {way}{turn}"


CHANGES: dict[str, str | Callable[..., str]] = {
    "comes_out": _comes_out,
    "named": "{name}",
    "expression": lambda text: f"`{text if len(text) <= 60 else f'{text[:36]}…{text[-20:]}'}`",
    "result": "the result of {of}",
    "array": "a constant array",
    "upstream": _of_upstream,
    "gradient_of": "the gradient of {of}",
    "flow": _flow,
    "flow_to": "all that flows back to {argument}",
    "upstream_of": "the upstream gradient of {argument}",
    "derivative": _derivative,
    "function": _function,
    "closed": _closed,
    "left_out": "is missing",
    "lost": "is missing",
    "not_carried": lambda values: (
        f"nothing flows back from one turn of the loop to the turn before, through {listed(values)}"
    ),
    "taken_as": _function,
    "one_hot": "the gradient of a softmax with cross-entropy by {scores} is p - one_hot (1 is "
    "subtracted at the target); in yours it is {yours}",
    "truncated": lambda steps: (
        f"what flows back through the loop is cut off after {steps} turn{'s' * (steps > 1)} "
        "(truncated: right if that is meant)"
    ),
    "updated": "is multiplied by {operand} as it is after its update (with the rate {rate:.6g}): "
    "take the {operand} of the forward pass",
    "only": lambda flow, overwritten: (
        f"only {flow} is kept: {'each overwrites the one before; ' * overwritten}add up all (+=)"
    ),
    "overwritten": "where an entry of {of} is used more than once, its gradients overwrite each "
    "other: add them up (+=, and np.add.at where an index repeats)",
    "term_left_out": "the term - {term} is missing",
    "term_taken": "the term - {term} is - {other}",
    "term_axes": "{term} is over axis {axes}",
    "only_scaled_g": "only g is left of the bracket",
    "all_axes": "all of them are over axis {axes}",
    "g_left_out": "the term g is missing",
    "scale_left_out": "the factor beside the bracket is missing",
    "scale_squared": "the factor beside the bracket is there twice",
    "scale_inverted": "the factor beside the bracket is upside down (divided by, not multiplied)",
    "only_g": "only g is left",
}
