"""What a layer uses beside the parameters that are checked: nothing is left out in silence.

Asked by evidence: what is moved a little, and changes the output, is used.
"""

from __future__ import annotations

import ast
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from types import FunctionType
from typing import Any

import numpy as np

from ...validation import Array
from ..finding import Finding, found
from ..guard import CheckError
from ..source import Place, Step, root_of, text_of
from .adapter import Adapter
from .conventions import STATES, TARGETS, gradient_keys, is_statistic, last_name
from .evidence import claim
from .object_passes import ObjectPasses
from .objects import Held, attributes_of, is_gradient, is_number, of_class
from .parameters import Kept, Parameter, find_parameters, fits_number, has_gradient, parts_of
from .session import Snapshot
from .subject import MISSING, differs, is_float_array
from .updates import take_updates

# -------------------- arrays in the place of numbers, and of what belongs to the class ------------


def lend(layer: ObjectPasses) -> None:
    """Give the objects the arrays of their classes as their own, which a copy takes along."""
    lent = [
        (item, name, value)
        for item in (layer.layer, *(part for _, part in parts_of(layer.layer)))
        for name, value in of_class(item).items()
        if isinstance(value, np.ndarray) and hasattr(item, "__dict__")
    ]
    if lent:
        layer.session.add([value for _, _, value in lent])
        for item, name, value in lent:
            item.__dict__[name] = value
        layer.session.rebase()


def exchange(layer: ObjectPasses, numbers: Sequence[str]) -> None:
    """Put arrays, which can be moved and traced, in the place of numbers: float32 where all is."""
    held = [*layer.inputs, *(p.value for p in find_parameters(layer.layer))]
    dtypes = {value.dtype for value in held if is_float_array(value)}
    plain = np.float32 if dtypes == {np.dtype(np.float32)} else np.float64
    for p in Kept(layer.layer).numbers:
        if p.name in numbers and p.put is not None:
            p.put(np.array(p.value, dtype=getattr(p.value, "dtype", plain)))


def trained_numbers(layer: ObjectPasses, before: dict[str, tuple[Parameter, object]]) -> list[str]:
    """Return the names of floats that have a gradient after a run, or had one `before` it."""
    start = layer.session.start
    free = [g.value for g in layer.returned() if layer.claimed.isdisjoint(g.path[:1])]
    given = any(np.ndim(value) == 0 for value in free)
    return [
        p.name
        for p in layer.now.numbers
        if p.put is not None and fits_number(p)
        if given or has_gradient(p, before.get(p.name, (p, None))[1], start)
    ]


def _take_number(layer: ObjectPasses, name: str) -> None:
    """Take a number of which nothing is kept, if an array can stand in its place."""
    begun = layer.session.start
    with layer.session.fresh():
        exchange(layer, [name])
        layer.session.rebase()
        placed = [p.value for p in Kept(layer.layer).arrays if p.name == name]
    if placed and not _depends_on(layer, lambda: None):
        layer.take([Parameter(name, placed[0], lambda: None)])
    else:
        layer.session.start = begun
        layer.say_unchecked(name, found("cannot_move", name=name))


# -------------------- what the output depends on --------------------


def depends_on_number(layer: ObjectPasses, name: str) -> bool:
    """Tell whether the output depends on a number that the layer keeps."""

    def move() -> None:
        if name not in {p.name for p in Kept(layer.layer).numbers}:
            layer.run()
        for p in Kept(layer.layer).numbers:
            if p.name == name and p.put is not None:
                p.put(moved(p.value))

    return _depends_on(layer, move)


def _depended_on(layer: ObjectPasses, held: list[Held]) -> list[Held]:
    """Return those that the output depends on: by halves, as there may be many that it does not."""
    if not held or not depends_on_arrays(layer, *(h.value for h in held)):
        return []
    half = len(held) // 2
    return _depended_on(layer, held[:half]) + _depended_on(layer, held[half:]) if half else held


def depends_on_arrays(adapter: Adapter, *values: Array) -> bool:
    """Tell whether the output depends on some arrays, which can be moved."""

    def move() -> None:
        for value in values:
            np.copyto(value, moved(value))

    return _depends_on(adapter, move)


def _depends_on(layer: Adapter, move: Callable[[], None]) -> bool:
    with layer.session.fresh():
        move()
        try:
            return differs(layer.outputs, layer.run_forward())
        except CheckError:
            return True


def moved(value: Any) -> Any:
    """Return other numbers, close by."""
    shift = 1e-3 * np.random.default_rng(0).uniform(0.5, 1.0, np.shape(value))
    other = value + shift * (1 + np.abs(value))
    return other.astype(value.dtype) if isinstance(value, np.ndarray) else float(other)


# -------------------- what is left out --------------------


def may_be_parameters(begun: Kept) -> list[Held]:
    """Return the float arrays that can be moved, each once, and are no statistics or targets."""
    every = {id(h.value): h for h in reversed(begun.held) if h.value.flags.writeable}
    fixed = [h for h in reversed(every.values()) if not is_statistic(h.name)]
    return [h for h in fixed if last_name(h.name).strip("_") not in TARGETS]


def unwritten(now: Kept, held: Sequence[Held], start: Snapshot) -> list[Held]:
    """Return those that a run has left where they are and as they were at the start."""
    places = {(h.name, id(h.value)) for h in now.held}
    there = [h for h in held if (h.name, id(h.value)) in places]
    return [h for h in there if start.is_as_before(h.value)]


def leave_out_state(layer: ObjectPasses, written: Sequence[str]) -> None:
    """Leave out work arrays, of which forward has `written` what is used, and steps' partners."""
    start = layer.session.start
    arrays = [p for p in layer.parameters if start.kept(p.value) is not None]
    state = [p for p in arrays if p.name in written and not _depends_on_written(layer, p.value)]
    partners = [(p, p.gradient()) for p in arrays if p not in state]
    still = [(p, g) for p, g in partners if _is_left(p, g, start)]
    state += [p for p, g in still if depends_on_arrays(layer, g)]
    if state:
        layer.parameters = [p for p in layer.parameters if p not in state]
        layer.take([])


def _is_left(p: Parameter, gradient: Any, start: Snapshot) -> bool:
    """Tell whether what stands in the place of a gradient is numbers that no pass has written."""
    is_other = isinstance(gradient, np.ndarray) and gradient is not p.value
    return is_other and bool(np.any(gradient)) and start.is_as_before(gradient)


def _depends_on_written(layer: ObjectPasses, value: Array) -> bool:
    """Tell whether the output depends on those entries of an array that forward writes."""
    with layer.session.fresh():
        layer.run()
        is_written = value != layer.session.start.kept(value)

    def move() -> None:
        value[is_written] = moved(value)[is_written]

    return _depends_on(layer, move)


def look_beside(layer: ObjectPasses) -> None:
    """Look at what a layer uses and has no gradient of: there is a row for it, or a note."""
    there = _beside(layer)
    still = {id(h.value) for h in unwritten(layer.now, there, layer.session.start)}
    used = _depended_on(layer, there)
    moving = [h for h in used if id(h.value) not in still]
    updated = [h.name for h in take_updates(layer, moving)] if moving else []
    numbers = [(p.name, p.value) for p in layer.now.numbers]
    changed = [name for name, value in numbers if layer.numbers.get(name, value) is not value]
    updated += filter(partial(depends_on_number, layer), changed)
    constant = claim(layer, [h for h in used if id(h.value) in still])
    for name in updated:
        layer.say_unchecked(name, found("updates_itself", name=name))
    _find_unkept(layer, constant)
    arrays = [h.name for h in constant if h.name not in layer.unkept]
    for name in (*arrays, *_lists_used(layer)):
        layer.say_unchecked(name, found("used_without_gradient", name=name, last=last_name(name)))


def _lists_used(layer: ObjectPasses) -> list[str]:
    """Return the lists of floats, of which nothing is checked, that the output depends on."""
    if not any(map(_is_of_floats, attributes_of(layer.layer).values())):
        return []
    checked = {name.partition("[")[0] for name in layer.value_names}
    with layer.session.fresh():
        own = attributes_of(layer.layer).items()
        lists = {n: held for n, held in own if n not in checked and _is_of_floats(held)}

    def move(held: list[float]) -> None:
        held[:] = map(moved, held)

    return [name for name, held in lists.items() if _depends_on(layer, partial(move, held))]


def _is_of_floats(held: object) -> bool:
    return type(held) is list and len(held) > 1 and all(type(entry) is float for entry in held)


def _beside(layer: ObjectPasses) -> list[Held]:
    """Return the arrays at the start that are no input, no parameter and no gradient."""
    grads = [p.gradient() for p in layer.parameters]
    given = {id(g) for g in grads}
    replaced = {h.name for h in layer.now.held if id(h.value) in given}
    checked = given | {id(a) for a in (*layer.values, *layer.inputs)}
    there = [h for h in layer.unwritten if id(h.value) not in checked and h.name not in replaced]
    return [h for h in there if not any(np.may_share_memory(h.value, v) for v in layer.values)]


# -------------------- gradients that are computed and not kept --------------------


def _find_unkept(layer: ObjectPasses, constant: Sequence[Held]) -> None:
    """Take a parameter for each gradient that backward computes and does not keep."""
    for h in (*constant, *_without_gradient(layer)):
        lost = [] if last_name(h.name).strip("_") in STATES else list(_lost(layer, h))
        if not lost:
            continue
        layer.unkept[h.name] = lost[0]
        if is_number(h.value):
            _take_number(layer, h.name)
        elif isinstance(h, Held):
            layer.take([Parameter(h.name, h.value, lambda: None)])


def _without_gradient(layer: ObjectPasses) -> list[Held | Parameter]:
    """Return parameters whose gradient is nothing, and numbers whose gradient is lost."""
    first = dict(zip(layer.value_names, layer.first.arrays, strict=True))
    numbers = [p for p in layer.now.numbers if p.name in layer.numbers and p.put is not None]
    lost = [p for p in numbers if p.gradient() is MISSING and any(_lost(layer, p))]
    return [
        *(p for p in layer.parameters if _is_nothing(first[p.name])),
        *(p for p in lost if depends_on_number(layer, p.name)),
    ]


def _is_nothing(gradient: Any) -> bool:
    return gradient is None or (is_gradient(gradient) and not np.any(gradient))


def _lost(layer: ObjectPasses, held: Held | Parameter) -> Iterator[tuple[Finding, Place]]:
    """Yield what to say of local variables named like a gradient that nothing reads."""
    methods = [m for base in type(held.holder).__mro__ for m in vars(base).values()]
    functions = [f for f in layer.session.start.items if "." not in getattr(f, "__qualname__", ".")]
    for function in (*methods, *functions):
        text = text_of(function) if isinstance(function, FunctionType) else None
        if text is not None:
            code = function.__code__
            own = code.co_varnames[code.co_argcount + code.co_kwonlyargcount :]
            for local in gradient_keys(own, last_name(held.name), itself=False):
                makers = [step for step in text.steps if local in step.writes]
                if makers and local not in code.co_cellvars and not _is_read(local, text.steps):
                    why = found("unkept", variable=local, function=code.co_name)
                    yield why, text.place(makers[0])


def _is_read(local: str, steps: Sequence[Step]) -> bool:
    """Tell whether something else is made of a local variable, or it may be a view of such."""
    stored = [(t, step.node) for step in steps for t in step.targets if root_of(t) == local]
    roots = [root_of(getattr(node, "value", node)) for t, node in stored if isinstance(t, ast.Name)]
    is_part = any(isinstance(t, ast.Subscript) for t, _ in stored)
    may_be_view = is_part and any(root.startswith("self.") for root in roots)
    is_used = any(local in step.reads and step.writes != {local} for step in steps)
    return may_be_view or is_used or _is_kept(local, steps)


def _is_kept(local: str, steps: Sequence[Step]) -> bool:
    """Tell whether a variable is assigned with something else at once, as in a = b = 0."""
    makers = [step.node for step in steps if local in step.writes]
    return any(len(getattr(node, "targets", ())) > 1 for node in makers)
