"""What a backward pass returns, in the order of the inputs, or by name in another order."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ...validation import Array
from .conventions import gradient_key
from .inputs import as_dict, is_nest
from .parameters import returned_names
from .subject import is_array


def arranged(
    result: Any, inputs: Sequence[object], given: Sequence[tuple[str, Array]], backward: Any
) -> Any:
    """Return gradients in the order of the inputs, and what else there is; or as a dict of them.

    `given` are the arrays among the inputs, those in lists each by its own.
    """
    result = as_dict(result)
    if any(map(is_nest, inputs)):
        result = _flat(result, inputs)
    least = max(len(given), len(inputs))
    if not isinstance(result, tuple | list) or len(result) <= least or not given:
        return result
    if isinstance(result, list) and not all(map(is_array, result)):
        return result
    entries = tuple(result)
    dicts = [entry for entry in entries if isinstance(entry, dict)]
    if dicts and not isinstance(entries[-1], dict):
        return (*(e for e in entries if not isinstance(e, dict)), *dicts)
    if isinstance(entries[-1], dict | list | tuple):
        return entries
    names, (first, value) = returned_names(backward, len(entries)), given[0]
    is_named = all(names) and len(set(names)) == len(names)
    is_other = is_named and gradient_key(names[:1], first) is None
    if is_other and all(gradient_key(names, name) for name, _ in given):
        return dict(zip(names, entries, strict=True))
    fitting = [i for i, entry in enumerate(entries) if getattr(entry, "shape", ()) == value.shape]
    if len(given) == 1 and len(fitting) == 1 and fitting != [0] and not all(names):
        i = fitting[0]
        return (entries[i], *entries[:i], *entries[i + 1 :])
    return entries


def _flat(result: Any, inputs: Sequence[object]) -> Any:
    """Return gradients that stand in lists as the inputs do, one after another."""
    if len(inputs) == 1 and isinstance(result, list | tuple) and all(map(is_array, result)):
        return tuple(result)
    entries = list(result) if isinstance(result, tuple | list) else [result]
    nests = [i for i, value in enumerate(inputs) if is_nest(value)]
    found: list[Any] = []
    for i, entry in enumerate(entries):
        found += entry if i in nests and isinstance(entry, list | tuple) else [entry]
    return tuple(found) if len(found) > 1 else result
