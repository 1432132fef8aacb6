"""Marks of intermediate values in a loss, whose gradients are checked too."""

from __future__ import annotations

import ast
import copy
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from types import CellType, CodeType, FunctionType, MethodType
from typing import Any

import numpy as np

from ...validation import Array
from ..guard import CheckError
from ..source import code_of, definition_of, targets_of
from .subject import is_float_array

_taps = threading.local()


def tap(name: str, value: Array) -> Array:
    """Mark an intermediate value of a forward pass, whose gradient is to be checked.

    In a check the mark becomes a row of the report; elsewhere this returns `value` as it is.

    Parameters
    ----------
    name : str
        The name under which the dict of gradients has the handwritten one, with or without a d.
        Each mark has a name of its own: in a loop ``tap(f"h{t}", h)``.
    value : array

    Returns
    -------
    array
        The value, which the loss must go on with: ``h = tap("h", h)``.

    Examples
    --------
    >>> tap("h", np.array([1.0, 2.0]))
    array([1., 2.])
    """
    collect = getattr(_taps, "collect", None)
    if collect is not None:
        _taps.times[name] += 1
        collect.setdefault(name, np.zeros(np.shape(value), dtype=np.asarray(value).dtype))
    added = getattr(_taps, "added", None)
    return value + added[name] if added and name in added else value


@contextmanager
def tapping(**state: object) -> Iterator[None]:
    """Let the marks add something meanwhile."""
    before = dict(_taps.__dict__)
    _taps.__dict__.update(state)
    try:
        yield
    finally:
        _taps.__dict__.clear()
        _taps.__dict__.update(before)


@contextmanager
def collecting(label: str) -> Iterator[dict[str, Array]]:
    """Give the marks of a run, with zeros that each adds; of one name there must be one."""
    marks: dict[str, Array] = {}
    times: Counter[str] = Counter()
    with tapping(collect=marks, times=times):
        yield marks
    for name, count in times.items():
        if count > 1:
            raise CheckError(
                f"{label} marks {name} {count} times, and whose gradient is d{name}? Give each "
                f'value a name of its own, in a loop tap(f"{name}{{t}}", {name}), else tap('
                f'"{name}2", …)'
            )


def among_globals(gradient: Any, loss: object, params: object) -> Any:
    """Return the gradients among the globals of a module, or a notebook; else what is given.

    They are those with a d before the name of a parameter, or of a variable of the loss.
    """
    if not isinstance(gradient, dict) or "__name__" not in gradient:
        return gradient
    code = code_of(loss)
    names = {*(params if isinstance(params, dict) else ()), *(code.co_varnames if code else ())}
    keys = (k for k in gradient if k[:1] == "d" and k[1:].lstrip("_") in names)
    return {key: gradient[key] for key in keys if is_float_array(gradient[key])}


# -------------------- marks that nobody has set --------------------


def marked(loss: Any, names: set[str]) -> Any:
    """Return a loss that also marks some of its own variables, as far as its source can be read.

    Behind each assignment to one, its copy has ``name = tap("name", name)``, in the same line.
    """
    function = loss.__func__ if isinstance(loss, MethodType) else loss
    node = definition_of(function.__code__) if isinstance(function, FunctionType) else None
    if not names or not isinstance(node, ast.FunctionDef):
        return loss
    code = _compiled(function.__code__, _Marker(names).visit(copy.deepcopy(node)))
    cells = dict(zip(function.__code__.co_freevars, function.__closure__ or (), strict=True))
    cells[_TAP] = CellType(tap)
    closure = tuple(cells[name] for name in code.co_freevars)
    made = FunctionType(
        code, function.__globals__, function.__name__, function.__defaults__, closure
    )
    made.__kwdefaults__ = function.__kwdefaults__
    return MethodType(made, loss.__self__) if function is not loss else made


_TAP = "__tap"


class _Marker(ast.NodeTransformer):
    """Puts a mark behind each assignment to one of some variables."""

    def __init__(self, names: set[str]) -> None:
        self.names, self._depth = names, 0

    def visit(self, node: ast.AST) -> Any:
        """Return a node with the marks in it; what stands in inner functions stays."""
        is_function = isinstance(node, ast.FunctionDef | ast.Lambda | ast.ClassDef)
        if is_function and self._depth:
            return node
        self._depth += is_function
        self.generic_visit(node)
        self._depth -= is_function
        if not isinstance(node, ast.Assign | ast.AugAssign | ast.AnnAssign):
            return node
        targets = (target for target in targets_of(node) if isinstance(target, ast.Name))
        return [node, *(_mark(target) for target in targets if target.id in self.names)]


def _mark(target: ast.Name) -> ast.AST:
    statement = ast.parse(f"{target.id} = {_TAP}({target.id!r}, {target.id})").body[0]
    for node in ast.walk(statement):
        ast.copy_location(node, target)
    return statement


def _compiled(code: CodeType, body: ast.FunctionDef) -> CodeType:
    """Return the code of a function whose free variables are those of another, and the marker's."""
    module = ast.parse(f"def outer({', '.join((*code.co_freevars, _TAP))}): pass")
    module.body[0].body = [body]  # type: ignore[attr-defined]
    found = compile(module, code.co_filename, "exec")
    for name in ("outer", body.name):
        inner = (c for c in found.co_consts if isinstance(c, CodeType) and c.co_name == name)
        found = next(inner)
    return found
