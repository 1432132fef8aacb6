"""Expressions as trees: forms with holes in them, what fits a form, and what fills it."""

from __future__ import annotations

import ast
from collections.abc import Mapping
from functools import lru_cache
from typing import Any, TypeGuard

# What is in reach, by its text: the shape of an array, a number, or a word that code asks for.
Reach = Mapping[str, Any]
Slot = tuple[Any, str, int | None, Any]  # who holds a node, in which field, where in it; the node
Offer = tuple[float, ast.AST]  # what may stand there, and how far it is from what is written

REFERENCE = ast.Name | ast.Attribute | ast.Subscript
_UNASKED = ("ctx", "kind")  # fields of a node that say nothing of what it computes


def parsed(text: str) -> Any:
    """Return a text as an expression, or as the part of an array that an index takes."""
    return _filled(_form(text), {})  # of its own: in two places at once it might hold itself


@lru_cache(maxsize=4096)
def _form(text: str) -> Any:
    subscript: Any = ast.parse(f"_[{text}]", mode="eval").body
    return subscript.slice


def matched(form: str, node: ast.AST) -> dict[str, Any] | None:
    """Return what of a node fills the holes of a form: its names of one letter."""
    holes: dict[str, Any] = {}
    return holes if _fits(_form(form), node, holes) else None


def _fits(form: Any, node: Any, holes: dict[str, Any]) -> bool:
    if isinstance(form, list):
        pairs = zip(form, node, strict=False)
        return len(form) == len(node) and all(_fits(one, other, holes) for one, other in pairs)
    if not isinstance(form, ast.AST) or not isinstance(node, ast.AST):
        return bool(form == node)
    if _is_hole(form):
        held = holes.setdefault(form.id, node)
        return held is node or ast.dump(held) == ast.dump(node)
    fields = (name for name in form._fields if name not in _UNASKED)
    return type(form) is type(node) and all(
        _fits(getattr(form, name), getattr(node, name), holes) for name in fields
    )


def filled(form: str, **holes: ast.AST) -> Any:
    """Return a form with nodes in its holes."""
    return _filled(_form(form), holes)


def _filled(form: Any, holes: Mapping[str, ast.AST]) -> Any:
    if isinstance(form, list):
        return [_filled(item, holes) for item in form]
    if not isinstance(form, ast.AST):
        return form
    if _is_hole(form) and form.id in holes:
        return holes[form.id]
    return type(form)(*(_filled(getattr(form, name, None), holes) for name in form._fields))


def _is_hole(node: ast.AST) -> TypeGuard[ast.Name]:
    """Tell whether a node of a form is a name of one letter."""
    return isinstance(node, ast.Name) and len(node.id) == 1
