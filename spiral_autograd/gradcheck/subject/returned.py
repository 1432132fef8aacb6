"""What a backward pass returns, or leaves in a list: whose gradient is which, and in what form."""

from __future__ import annotations

import ast
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from itertools import chain, combinations, repeat
from typing import Any

import numpy as np

from ...pytree import leaves, leaves_like
from ...validation import Array, Shape
from ..finding import Finding, found
from ..source import root_of, text_of
from .conventions import gradient_key
from .inputs import Constant, is_nest, spread
from .subject import MISSING, CheckError, Gradients, described, is_array, is_float_array

# -------------------- those of the inputs --------------------

_MANY = 10  # so many arguments of which the gradients may be


def by_position(
    what: str,
    result: object,
    shapes: Mapping[str, Shape | None],
    constant: Constant,
    *,
    surplus: bool = False,
) -> dict[str, Any]:
    """Return the gradients that a backward pass returned, by the names of what they belong to.

    There may be an entry for each argument, or one for each that is differentiable, or for some of
    these; with `surplus` any others may follow. Or a dict has them by name. `shapes` are those of
    the arguments, None of those that are not differentiable.
    """
    names = list(shapes)
    wanted = [name for name, shape in shapes.items() if shape is not None]
    if isinstance(result, dict):
        return _with_entries(by_key(result, wanted), result, shapes, wanted)
    entries = _entries(result, names, wanted)
    if len(entries) == len(names) != len(wanted):
        by_name = dict(zip(names, entries, strict=True))
        return {name: by_name[name] for name in wanted}
    if 0 < len(entries) < len(wanted):
        wanted = _chosen([np.shape(entry) for entry in entries], shapes, wanted, constant)
    if len(entries) > len(wanted) and not surplus:
        raise CheckError(
            f"{what} returned {len(entries)} gradients, but there are {len(wanted)} floating-point "
            f"arrays among the arguments ({', '.join(names)}): return one gradient for each of "
            f"{', '.join(wanted) or 'them'}, in this order"
        )
    return dict(zip(wanted, entries, strict=False))


def _with_entries(
    known: dict[str, Any],
    result: dict[object, object],
    shapes: Mapping[str, Shape | None],
    wanted: Sequence[str],
) -> dict[str, Any]:
    """Return gradients by names, with those of the entries of lists, which have no names, last."""
    taken, lacking = set(map(id, known.values())), [n for n in wanted if n not in known]
    others: list[Any] = [g for g in result.values() if id(g) not in taken]
    are_entries = all(name.endswith("]") for name in lacking)
    if are_entries and [np.shape(g) for g in others] == [shapes[name] for name in lacking]:
        known.update(zip(lacking, others, strict=True))
    return known


def _chosen(
    ours: Sequence[Shape],
    shapes: Mapping[str, Shape | None],
    wanted: Sequence[str],
    constant: Constant,
) -> list[str]:
    """Return of which arguments the gradients are: the first, or those of their shapes."""
    needed = [name for name in wanted if not constant.has(name)]
    wanted = needed if len(needed) >= len(ours) else wanted
    first = list(wanted[: len(ours)])
    if len(wanted) > _MANY or [shapes[name] for name in first] == ours:
        return first
    choices = combinations(wanted, len(ours))
    fitting = [c for c in choices if [shapes[name] for name in c] == ours]
    return list(fitting[0]) if len(fitting) == 1 else first


def _entries(result: object, names: Sequence[str], wanted: Sequence[str]) -> list[Any]:
    """Return the gradients that backward returned as a list, without empty ones at the end."""
    if result is None and not wanted:
        return []
    entries = list(result) if isinstance(result, tuple | list) else [result]
    while len(entries) > len(names) and _is_empty(entries[-1]):
        entries.pop()  # the gradients of no parameters
    is_numbers = not all(entry is None or is_array(entry) for entry in entries)
    # A gradient may be written as a list of numbers.
    return [result] if isinstance(result, list) and len(wanted) == 1 and is_numbers else entries


def _is_empty(entry: object) -> bool:
    return entry is None or (isinstance(entry, list | tuple | dict) and not entry)


def by_key(grads: dict[object, object], names: Sequence[str]) -> dict[str, Any]:
    """Return the gradients of a dict by the names of what they belong to."""
    last = {name: name.split(".")[-1] for name in names}
    keys = {name: gradient_key(grads, last[name], last.values()) for name in names}
    return {name: grads[key] for name, key in keys.items() if key is not None}


def require_any(what: str, result: object, names: Sequence[str], first: Gradients) -> None:
    """Raise where a backward pass has given no gradient at all."""
    if names and all(g is MISSING for g in first.arrays):
        came = described(result)
        if isinstance(result, dict) and result:
            came = f"a dict with the keys {', '.join(map(repr, result))}"
        raise CheckError(
            f"{what} returned {came}, and there is no gradient of {', '.join(names)} in it: return "
            f"one for each, in this order, or a dict of them by the names {', '.join(names)}, with "
            "or without a d before"
        )


def place_of_loss(entries: tuple[Any, ...], loss: Any = None) -> int | None:
    """Return where a loss stands before or behind gradients; None where there is none."""
    ends = [i for i in (0, len(entries) - 1) if _is_number(entries[i], i == 0 and loss is None)]
    ends.sort(key=lambda i: not np.array_equal(entries[i], loss))
    return ends[0] if ends and len(entries) > 1 else None


def _is_number(entry: Any, may_be_array: bool) -> bool:
    is_nest = isinstance(entry, dict | list | tuple)
    return not is_nest and (np.size(entry) == 1 if may_be_array else np.ndim(entry) == 0)


def arranged(
    result: Any, inputs: Sequence[object], given: Sequence[tuple[str, Array]], backward: Any
) -> Any:
    """Return gradients in the order of the inputs, whose arrays are `given`, or as a dict."""
    least = max(len(given), len(inputs))
    if not isinstance(result, tuple | list) or len(result) <= least or not given:
        return result
    if isinstance(result, list) and not all(map(is_array, result)):
        return result
    entries = tuple(result)
    if not isinstance(entries[-1], dict) and any(isinstance(entry, dict) for entry in entries):
        return tuple(sorted(entries, key=lambda entry: isinstance(entry, dict)))  # the dicts last
    if isinstance(entries[-1], dict | list | tuple):
        return entries
    return _as_called(entries, returned_names(backward, len(entries)), given)


def _as_called(
    entries: tuple[Any, ...], names: Sequence[str], given: Sequence[tuple[str, Array]]
) -> Any:
    """Return gradients by name where they are in another order; that of one input's shape first."""
    first, value = given[0]
    is_named = len({*names} - {""}) == len(entries)
    is_other = is_named and gradient_key(names[:1], first) is None
    if is_other and all(gradient_key(names, name) for name, _ in given):
        return dict(zip(names, entries, strict=True))
    fits = [getattr(entry, "shape", ()) == value.shape for entry in entries]
    if len(given) == 1 and fits.count(True) == 1 and not all(names):
        at = fits.index(True)
        return (entries[at], *entries[:at], *entries[at + 1 :])
    return entries


def flattened(result: object, names: Sequence[str], inputs: Sequence[object]) -> Any:
    """Return gradients in lists as the inputs are one after another; those in dicts as one dict."""
    if not any(map(is_nest, inputs)):
        return result
    if len(inputs) == 1 and isinstance(result, list | tuple) and all(map(is_array, result)):
        return tuple(result)
    entries = list(result) if isinstance(result, tuple | list) else [result]
    named = _as_one_dict(entries, names, inputs)
    if named is not None:
        return named
    pairs = zip(entries, chain(inputs, repeat(None)), strict=False)
    found = [gradient for entry, value in pairs for gradient in _gradients_in(entry, value)]
    return tuple(found) if len(found) > 1 else result


def _as_one_dict(
    entries: Sequence[Any], names: Sequence[str], inputs: Sequence[object]
) -> dict[str, Any] | None:
    """Return the gradients of all inputs, some of them in dicts, by name; None of any others."""
    if not any(isinstance(gradient, dict) for gradient in entries):
        return None
    given = zip(names, inputs, strict=True)
    holders = {name: is_nest(v) for name, v in given if is_nest(v) or is_float_array(v)}
    if list(holders.values()) != [isinstance(g, dict | list | tuple) for g in entries]:
        return None
    found: dict[str, Any] = {}
    for name, gradient in zip(holders, entries, strict=True):
        found |= gradient if isinstance(gradient, dict) else dict(spread([name], [gradient]))
    return found


def _gradients_in(entry: Any, value: object) -> list[Any]:
    """Return the gradients of the arrays of an input, in their order; of one array the entry."""
    if is_nest(value) and entry is None:
        return [MISSING] * len(leaves(value))
    if not is_nest(value) or not isinstance(entry, list | tuple):
        return [entry]
    try:
        return leaves_like(value, entry)
    except (LookupError, TypeError, ValueError):  # of another structure
        return list(entry)


def returned_names(backward: object, count: int) -> list[str]:
    """Return what the last entries are called that a backward pass returns in a tuple."""
    text = text_of(backward)
    steps = [s.node for s in text.steps if isinstance(s.node, ast.Return)] if text else []
    value = steps[-1].value if steps else None
    if isinstance(value, ast.Tuple) and isinstance(value.elts[-1], ast.List | ast.Tuple):
        value = value.elts[-1] if len(value.elts[-1].elts) == count else value
    if not isinstance(value, ast.Tuple | ast.List) or not 0 < count <= len(value.elts):
        return []
    entries = value.elts[-count:]
    return [root_of(e) if isinstance(e, ast.Name | ast.Attribute) else "" for e in entries]


# -------------------- one gradient --------------------


def as_gradient(name: str, value: Any) -> Any:
    """Return a gradient as it came, where it is None or can be an array of real numbers."""
    if value is None or value is MISSING:
        return value
    array = np.empty(0, dtype=object)
    # To try it with whatever has entries might never end, as with np.r_.
    if isinstance(value, float | int | list | tuple) or hasattr(type(value), "__array__"):
        with suppress(ValueError):
            array = np.asarray(value)
    if array.dtype.kind in "fiub":
        return value
    came = f"{described(value)}, which is no array (are its rows of different lengths?)"
    if array.dtype.kind == "c":
        came = "complex numbers"
    elif is_array(value):
        came = f"an array of dtype {value.dtype}"
    raise CheckError(f"the gradient of {name} must be an array of real numbers, got {came}")


def as_update_takes(gradient: object, value: Array) -> Any:
    """Return a gradient in its parameter's shape, where an update takes it without broadcasting."""
    if isinstance(gradient, list | tuple) and [np.shape(g) for g in gradient] == [value.shape]:
        return gradient[0]  # a list for one layer
    if not isinstance(gradient, np.ndarray | np.generic | float) or np.size(gradient) != value.size:
        return gradient
    short = np.ndim(gradient) < value.ndim and value.shape[: value.ndim - np.ndim(gradient)]
    fits = short and set(short) == {1} and np.shape(gradient) == value.shape[len(short) :]
    return np.reshape(gradient, value.shape) if fits else gradient


def other_shapes(named: Iterable[tuple[str, Any, Array]]) -> list[Finding]:
    """Return what to say of gradients that an update takes as they are in another shape."""
    names: dict[tuple[Any, Any], list[str]] = {}
    for name, gradient, value in named:
        shape = np.shape(as_update_takes(gradient, value))
        if not isinstance(gradient, list | tuple) and shape != np.shape(gradient):
            names.setdefault((np.shape(gradient), value.shape), []).append(name)
    return [
        found("update_takes", names=of, ours=ours, theirs=theirs)
        for (ours, theirs), of in names.items()
    ]
