"""What a statement of a backward pass may have been meant to be: one small change each."""

from __future__ import annotations

import ast
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from ...validation import Shape
from .grammar import ALONE, BESIDE, REWRITTEN
from .parts import Part, Seen, relations
from .rewrites import rewritten
from .statements import changed_throughout, exchanged, other_statements
from .tree import REFERENCE, Offer, Reach, Slot, filled, matched, parsed

_MANY = 8  # things in a list, of which each is mistaken for another at most


@dataclass(frozen=True, eq=False)
class Variant:
    """A node in the place of another; the cost tells how far it is from what is written."""

    cost: float
    holder: Any
    field: str
    index: int | None
    node: ast.AST

    @property
    def there(self) -> ast.AST:
        """What stands in its place now."""
        held = getattr(self.holder, self.field)
        found: ast.AST = held if self.index is None else held[self.index]
        return found

    def exchange(self) -> Variant:
        """Put the node into its place; return what takes it out again."""
        back = Variant(0.0, self.holder, self.field, self.index, self.there)
        if self.index is None:
            setattr(self.holder, self.field, self.node)
        else:
            getattr(self.holder, self.field)[self.index] = self.node
        return back

    def stand(self) -> Variant:
        """Do the same, and let the node stand in the line of the other."""
        back = self.exchange()
        ast.fix_missing_locations(ast.copy_location(self.node, back.node))
        return back


def variants(
    body: Slot, reach: Reach, written: Reach, shapes: Sequence[Shape], calls: Sequence[str] = ()
) -> list[Variant]:
    """Return what may stand in the place of a statement.

    `written` is what its expressions are, `shapes` are those of what it makes, `calls` are the
    functions of one thing that it may call.
    """
    made = {text: thing for text, thing in written.items() if text.endswith(")")}
    reach = {**{text: thing for text, thing in made.items() if thing in shapes}, **reach}
    seen = Seen(body, reach, {**written, **reach}, tuple(shapes))
    wholes = (*other_statements(body[3], reach), *changed_throughout(body[3], reach, calls))
    found = [Variant(cost, *body[:3], node) for cost, node in wholes]
    for slot in _slots(body[3]):
        offers = _offered(Part(slot, seen))
        found += [Variant(cost, *slot[:3], node) for cost, node in offers]
    return found


def _slots(statement: ast.stmt) -> Iterator[Slot]:
    """Yield what is read by a statement, of a block by its head, with its places."""
    pending: list[ast.AST] = [statement]
    while pending:
        holder = pending.pop(0)
        for field, value in ast.iter_fields(holder):
            if field in ("body", "orelse") and isinstance(holder, ast.stmt):
                continue
            for i, item in enumerate(value if isinstance(value, list) else [value]):
                if isinstance(item, ast.AST) and not isinstance(item, ast.expr_context | ast.stmt):
                    pending.append(item)
                    if not isinstance(getattr(item, "ctx", None), ast.Store):
                        yield holder, field, i if isinstance(value, list) else None, item


def _offered(part: Part) -> Iterator[Offer]:
    """Yield what may stand in the place of a part of a statement."""
    node, seen, roles = part.node, part.seen, part.roles
    listed = getattr(part.holder, "elts", getattr(part.holder, "values", ()))
    if isinstance(node, REFERENCE) and len(listed) > _MANY:
        roles &= {"name"}
    else:
        yield from _rewritten(node)
        yield from rewritten(part)
    if isinstance(part.holder, ast.Tuple):
        yield from exchanged(node, seen.reach)
    yield from ((cost, filled(form, a=node)) for cost, form in _alone(roles))
    rows = _beside(roles)
    for other, thing in seen.reach.items() if rows else ():
        if other != part.text:
            for relation in relations(part.own, thing, part.fitting, other[0].isdigit()):
                for cost, form in rows.get(relation, ()):
                    yield cost, filled(form, a=node, b=parsed(other))


@lru_cache
def _forms_of(kind: Any) -> list[tuple[str, float, tuple[str, ...]]]:
    return [row for row in REWRITTEN if type(parsed(row[0])) is kind]


def _rewritten(node: ast.AST) -> Iterator[Offer]:
    """Yield what may be made of the parts of an expression."""
    kind: Any = type(node)
    for form, cost, others in _forms_of(kind):
        holes = matched(form, node)
        if holes is not None:
            yield from ((cost, filled(other, **holes)) for other in others)


@lru_cache
def _alone(roles: frozenset[str]) -> list[tuple[float, str]]:
    return [(cost, form) for role, cost, forms in ALONE if role in roles for form in forms]


@lru_cache
def _beside(roles: frozenset[str]) -> dict[str, list[tuple[float, str]]]:
    found = defaultdict[str, list[tuple[float, str]]](list)
    for role, relation, cost, forms in BESIDE:
        if role in roles:
            found[relation] += [(cost, form) for form in forms]
    return dict(found)
