"""What is said of a change that explains gradients: a finding, with the reader's own names."""

from __future__ import annotations

import ast
from typing import Any

import numpy as np

from ...validation import Array
from ..blocks import largest
from ..finding import Finding, found
from ..reference.graph import Site
from ..reference.nodes import Node
from .case import Reason
from .edits import unbroadcast
from .factors import factor_of, is_near
from .gathered import PICKING
from .probes import Edit
from .search import Explained, Search
from .true_derivative import true_derivative


def tell(search: Search, explained: Explained) -> Reason:
    """Return a change that has been verified as a reason."""
    candidate = explained.candidate
    site, edit = candidate.edits[-1]
    change = _change(search, site, edit)
    finding = found(
        "comes_out",
        flow=_subject(search, site, edit),
        change=change,
        rule=change.rule,
    )
    products = [np.asarray(value) for value in (*explained.made, *explained.bars.values())]
    of = _operation(search, site, edit)
    return Reason(finding, explained.rows, of.call, products, cost=candidate.cost)


def _operation(search: Search, site: Site, edit: Edit) -> Node:
    """Return the forward operation whose gradient is wrong."""
    if "number" in edit.fields:
        sums = [n for n in reversed(site.between) if n.name in ("sum", "mean", "var", "std")]
        if edit.fields["number"] < len(sums):
            return sums[edit.fields["number"]]
    if edit.kind == "one_hot":  # where the target is picked
        later = search.graph.nodes[site.argument.number :]
        return next((node for node in later if node.name in PICKING), site.argument)
    path: Site | None = edit.fields.get("path")
    return (path.result if path is not None else site.result) or site.argument


def _change(search: Search, site: Site, edit: Edit) -> Finding:
    """Return what is done there, with names in place of values."""
    fields = {name: _named(search, value) for name, value in edit.fields.items()}
    array = fields.pop("array", None)
    if edit.kind == "only":
        path, run = edit.fields["path"], fields.pop("run")
        flow = _flow(search, path, run)
        return found("only", flow=flow, overwritten=fields["rule"] == "sum", rule=fields["rule"])
    if edit.kind == "times":
        return _factor(search, site, float(f"{edit.fields['times']:.9g}"))
    if edit.kind in ("taken_as", "lost"):
        times = _times_the_true(search, site, 1.0 if array is None else array())
        if times:  # of zero, the function tells more
            return _factor(search, site, times)
    return found(edit.kind, **fields)


def _factor(search: Search, site: Site, c: float) -> Finding:
    """Return what a factor comes from."""
    case, way = search.case, [*site.between, site.argument]
    factor = factor_of(case, c, way)
    for constant, node in case.constants() if factor is None else ():
        is_lost = is_near(case, c, 1 / constant)
        if node.number > site.argument.number and (is_lost or is_near(case, c, constant)):
            text = case.expression(node)
            return found("constant_factor", times=c, factor=constant, text=text, lost=is_lost)
    return factor or found("times", times=c, also=None)


def _times_the_true(search: Search, site: Site, array: Array | float) -> float | None:
    """Return the c with which a wrong derivative is c times the true one, if it is that."""
    spot = search.spot(site)
    if spot is None or spot.weights is None:
        return None
    made, true = unbroadcast(spot.g * array, spot.c.shape), spot.c
    norm = float(np.sum(true * true))
    c = float(np.sum(made * true)) / norm if norm > 0 else np.nan
    fits = np.isfinite(c) and largest(made - c * true) <= 1e-9 * largest(made)
    if not fits or (true.size == 1 and factor_of(search.case, c) is None):  # as any number is
        return None
    return float(f"{c:.9g}")


def _argument(search: Search, node: Node, i: int) -> Finding:
    """Return what an argument is called where it is used, else where it is made."""
    text = str(search.case.expression(node).fields.get("text", ""))
    try:
        made: Any = ast.parse(text, mode="eval").body
    except SyntaxError:
        made = None
    args = made.args if isinstance(made, ast.Call) else []
    args = [made.left, made.right] if isinstance(made, ast.BinOp) else args
    if i < len(args) and isinstance(args[i], ast.Name | ast.Attribute | ast.Subscript):
        return found("named", name=ast.unparse(args[i]))
    return search.case.operand(node, i)


def _named(search: Search, value: object) -> Any:
    """Return a field of an edit with names in the place of values."""
    case = search.case
    if isinstance(value, Node):
        return case.name(value)
    if isinstance(value, list):
        return [_named(search, item) for item in value]
    if not isinstance(value, tuple) or not isinstance(value[-1], Node | int):
        return value
    what, of = value
    if isinstance(what, Node):
        operand = case.operand(what, of)
        return _argument(search, what, of) if operand.kind == "array" else operand
    return found("gradient_of", of=case.name(of)) if what == "gradient" else value


def _subject(search: Search, site: Site, edit: Edit) -> Finding | None:
    """Return what is said to be changed."""
    y, x = site.result, site.argument
    if not edit.of:
        return None
    if y is None:
        return found("flow_to", argument=search.case.name(x))
    result, argument = search.case.name(y), search.case.name(x)
    if result == argument:  # i = sigmoid(i)
        result = search.case.expression(y)
    if edit.of == "closed":
        return found("closed", result=result, title=edit.fields["title"], over=edit.fields["over"])
    if edit.of == "derivative":
        by = argument if site.steps > 1 or edit.kind != "lost" else None
        function, true = true_derivative(search.case, search.graph, site)
        return found("derivative", result=result, by=by, function=function, true=true)
    if y.call.source is None:
        return found("upstream_of", argument=argument)
    return _flow(search, site)


def _flow(search: Search, site: Site, run: tuple[int, int] | None = None) -> Finding:
    """Return a gradient on its way; `run` tells which of several runs of a line it is."""
    y, x, via = site.result, site.argument, site.via
    assert y is not None
    several = len(y.parents) > 1 or site.steps > 1
    return found(
        "flow",
        result=search.case.name(y),
        via=search.case.name(via) if via not in (None, y) else None,
        argument=search.case.name(x) if several else None,
        run=run,
    )
