"""What a layer uses beside the parameters that are checked: nothing is left out in silence."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from types import CodeType, FunctionType
from typing import TYPE_CHECKING, Any

import numpy as np

from ...pytree import leaves
from ..source import Step, text_of
from .choice import last_name
from .conventions import STATES, STATISTICS, TARGETS, gradient_keys
from .evidence import claim
from .moving import depends_on, depends_on_number, take_number
from .parameters import Held, Parameter, held_arrays, is_number, numbers_of
from .session import Snapshot, reach
from .subject import MISSING, is_float_array

if TYPE_CHECKING:
    from .objects import Layer


def may_be_parameters(layer: Any) -> list[Held]:
    """Return the float arrays that a layer keeps, each once, and that can be moved.

    Those that are statistics or targets by their names are left out.
    """
    found = {
        id(h.value): h
        for h in reversed(held_arrays(layer))
        if h.value.flags.writeable
        and last_name(h.name).strip("_") not in TARGETS
        and not any(word in h.name for word in STATISTICS)
    }
    return list(reversed(found.values()))


def unwritten(layer: Any, held: Sequence[Held], start: Snapshot) -> list[Held]:
    """Return those that a run has left where they are and as they were at the start."""
    now = {(h.name, id(h.value)) for h in held_arrays(layer)}
    return [
        h
        for h in held
        if (h.name, id(h.value)) in now
        and (kept := start.kept(h.value)) is not None
        and np.array_equal(kept, h.value)
    ]


# -------------------- what is left out --------------------


def look_beside(layer: Layer) -> None:
    """Look at what a layer uses and has no gradient of, right after a run of both passes.

    Where backward computes a gradient and does not keep it, there is a row for it; else a note.
    """
    numbers = {p.name: p.value for p in numbers_of(layer.layer)}
    changed = [n for n, v in layer.numbers.items() if n in numbers and numbers[n] is not v]
    constant, updated = _used(layer)
    updated += [name for name in changed if depends_on_number(layer, name)]
    constant = claim(layer, constant)
    for name in updated:
        layer.say_unchecked(name, _UPDATED.format(name))
    _find_unkept(layer, constant)
    for held in constant:
        if held.name not in layer.unkept:
            layer.say_unchecked(held.name, _NO_GRADIENT.format(held.name, last_name(held.name)))


_UPDATED = (
    "backward changes {0} itself, and keeps no gradient of it (docs/checker.md, 'Layers that "
    "update themselves', shows how to check such a layer)"
)
_NO_GRADIENT = (
    "{0} is used by forward, but there is no gradient of it (d{1}, {1}_grad, grads['{1}'], …)"
)


def _used(layer: Layer) -> tuple[list[Held], list[str]]:
    """Return the arrays without a gradient that the output depends on.

    First those that stay as they are, then the names of those that backward changes.
    """
    grads = [p.gradient() for p in layer.parameters]
    checked = {id(a) for a in (*layer.values, *layer.inputs, *grads)}
    given = {id(g) for g in grads}
    replaced = {h.name for h in held_arrays(layer.layer) if id(h.value) in given}
    there = [h for h in layer.unwritten if id(h.value) not in checked and h.name not in replaced]
    there = [h for h in there if not any(np.may_share_memory(h.value, v) for v in layer.values)]
    still = {id(h.value) for h in unwritten(layer.layer, there, layer.session.start)}
    used = _depended_on(layer, there)
    updated = [h.name for h in used if id(h.value) not in still]
    return [h for h in used if id(h.value) in still], updated


def _depended_on(layer: Layer, held: list[Held]) -> list[Held]:
    """Return those that the output depends on: by halves, as there may be many that it does not."""
    if not held or not depends_on(layer, [h.value for h in held]):
        return []
    if len(held) == 1:
        return held
    half = len(held) // 2
    return _depended_on(layer, held[:half]) + _depended_on(layer, held[half:])


def _find_unkept(layer: Layer, constant: Sequence[Held]) -> None:
    """Give the layer a parameter for each gradient that backward computes and does not keep."""
    grads = layer.first.arrays[len(layer.first.arrays) - len(layer.parameters) :]
    pairs = zip(layer.parameters, grads, strict=True)
    held = [*constant, *(Held(p.name, p.value, p.holder) for p, g in pairs if _is_nothing(g))]
    numbers = [p for p in numbers_of(layer.layer) if p.name in layer.numbers and _may_be_lost(p)]
    held += [Held(p.name, p.value, p.holder) for p in numbers if depends_on_number(layer, p.name)]
    if not held:
        return
    with layer.session.fresh():
        layer.reset()
        layer.run()
        with local_variables([h.name for h in held]) as seen:
            result = layer.run_backward([np.array(u) for u in layer.upstream])
        kept = what_remains(layer.layer, result)
    for h in held:
        lost = unkept(seen, h, kept) if last_name(h.name).strip("_") not in STATES else None
        if lost is not None:
            layer.unkept[h.name] = lost
            if is_number(h.value):
                take_number(layer, h.name)
            elif h in constant:
                layer.take(h.name, h.value)


def _may_be_lost(number: Parameter) -> bool:
    """Tell whether a method has a local variable named like the gradient of a number."""
    if number.put is None or number.gradient() is not MISSING:
        return False
    methods = [m for base in type(number.holder).__mro__ for m in vars(base).values()]
    codes = [m.__code__ for m in methods if isinstance(m, FunctionType)]
    return any(_locals_like(code, number.name) for code in codes)


def _is_nothing(gradient: Any) -> bool:
    return gradient is None or (_is_numeric(gradient) and not np.any(gradient))


# -------------------- gradients that are computed and not kept --------------------


@dataclass(frozen=True)
class Unkept:
    """A gradient that is a local variable of backward, or of what it calls, and nothing more."""

    text: str
    place: tuple[str, int]


Returning = list[tuple[CodeType, dict[str, Any]]]


@contextmanager
def local_variables(names: Sequence[str]) -> Iterator[Returning]:
    """Note the local variables of functions that have one named like the gradient of a name."""
    found: Returning = []

    def enter(frame: Any, event: str, _: Any) -> Any:
        wanted = any(_locals_like(frame.f_code, name) for name in names)
        return leave if event == "call" and wanted else None

    def leave(frame: Any, event: str, _: Any) -> Any:
        if event == "return":
            found.append((frame.f_code, dict(frame.f_locals)))
        return leave

    before = sys.gettrace()
    sys.settrace(enter)
    try:
        yield found
    finally:
        sys.settrace(before)


def _locals_like(code: CodeType, name: str) -> list[str]:
    """Return the local variables of a function that are named like the gradient of a name."""
    arguments = code.co_argcount + code.co_kwonlyargcount
    return gradient_keys(code.co_varnames[arguments:], last_name(name), itself=False)


def unkept(seen: Returning, held: Held, kept: Sequence[Any]) -> Unkept | None:
    """Return the local variable that is the gradient of what is held, and is lost.

    Parameters
    ----------
    seen : list
        The local variables of the functions that have run.
    held : Held
    kept : sequence of arrays and floats
        What remains after backward: a gradient that is among it is kept somewhere.
    """
    for code, variables in seen:
        for local in _locals_like(code, held.name):
            gradient = variables.get(local)
            if not _is_of(code, variables, held) or not _fits(gradient, held.value):
                continue
            where = _lost_at(code, local)
            if where is not None and not any(_is_in(gradient, other) for other in kept):
                return Unkept(
                    f"is computed as the local variable {local} of {code.co_name} and not kept: "
                    f"write self.{local}",
                    where,
                )
    return None


def what_remains(layer: Any, result: Any) -> list[Any]:
    """Return the arrays and floats that a layer keeps or backward has returned."""
    floats = [p.value for p in numbers_of(layer)]
    return floats + [a for a in (*reach(layer, result), *leaves(result)) if _is_numeric(a)]


def _is_numeric(value: Any) -> bool:
    return is_float_array(value) or is_number(value)


def _is_of(code: CodeType, variables: dict[str, Any], held: Held) -> bool:
    """Tell whether a function is a method of the holder, or none of anything like it."""
    first = variables.get(code.co_varnames[0]) if code.co_argcount else None
    return first is held.holder or not hasattr(first, last_name(held.name))


def _fits(gradient: Any, value: Any) -> bool:
    return _is_numeric(gradient) and np.shape(gradient) == np.shape(value)


def _is_in(gradient: Any, other: Any) -> bool:
    """Tell whether a gradient lies in another array, or all of its numbers do, in any order."""
    both = isinstance(gradient, np.ndarray) and isinstance(other, np.ndarray)
    if both and np.may_share_memory(gradient, other):
        return True
    return np.size(other) >= np.size(gradient) and bool(np.isin(gradient, other).all())


def _lost_at(code: CodeType, local: str) -> tuple[str, int] | None:
    """Return the line that makes a local variable that nothing else is made of."""
    text = text_of(code)
    if text is None or local in code.co_cellvars:
        return None
    readers = [step for step in text.steps if local in step.reads]
    makers = [step for step in text.steps if local in step.writes]
    if not makers or not all(_keeps_nothing(step, local) for step in readers):
        return None
    return text.place(makers[0])


def _keeps_nothing(step: Step, local: str) -> bool:
    return bool(step.writes) and step.writes <= {local}
