"""Factors that a reader's own line has as a number: they tell more than a length that is equal."""

from __future__ import annotations

import ast
from collections.abc import Iterable, Iterator
from dataclasses import replace

from ..finding import Finding, found
from ..source import Place, statement_at

_ABOUT_LENGTHS = ("mean_missing", "averaged_over", "one_less", "ratio", "times")


def with_literal(finding: Finding, places: Iterable[Place]) -> Finding:
    """Return a finding about a factor as one about the number in the blamed lines, if it is there.

    What the factor may come from beside that is kept.
    """
    change = finding.fields.get("change")
    if isinstance(change, Finding):
        inner = with_literal(change, places)
        fields = {**finding.fields, "change": inner, "rule": inner.rule}
        return finding if inner is change else replace(finding, fields=fields)
    length = finding.fields.get("what", finding.fields.get("also"))
    times = _times(finding) if length is not None and finding.kind in _ABOUT_LENGTHS else None
    for place in places if times is not None else ():
        for factor, text in _factors(statement_at(*place)):
            if times is not None and abs(abs(times) - factor) <= 1e-6 * factor:
                n = finding.fields["n"]
                return found("literal", times=times, text=text, also=length, n=n)
    return finding


def _times(finding: Finding) -> float:
    fields = finding.fields
    if "times" in fields:
        return float(fields["times"])
    n = float(fields["n"] * fields["sign"])
    return n if finding.kind == "mean_missing" else 1 / n


def _factors(statement: str) -> Iterator[tuple[float, str]]:
    """Yield the numbers that a statement multiplies by, or divides by, with their text."""
    try:
        nodes = list(ast.walk(ast.parse(statement)))
    except SyntaxError:  # the head of a block
        return
    found: list[tuple[ast.expr, bool]] = []  # a factor, or what is divided by
    for node in nodes:
        if isinstance(node, ast.AugAssign) and isinstance(node.op, ast.Mult | ast.Div):
            found.append((node.value, isinstance(node.op, ast.Div)))
        elif isinstance(node, ast.BinOp) and isinstance(node.op, ast.Mult | ast.Div):
            found += [(node.left, False), (node.right, isinstance(node.op, ast.Div))]
    for part, divides in found:
        number = part.operand if isinstance(part, ast.UnaryOp) else part
        value = getattr(number, "value", None)
        if isinstance(value, int | float) and value not in (0, 1):
            text = ast.get_source_segment(statement, number) or str(value)
            yield (1 / value if divides else float(value)), text
