"""The derivative of a maximum or minimum, taken for that of something else: of pooling, say."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np

from ...validation import Array
from .probes import Edit, Family, Spot, Stock

_EXTREMES: dict[str, Callable[..., Array]] = {
    **dict.fromkeys(("max", "amax"), np.min),
    **dict.fromkeys(("min", "amin"), np.max),
}


def extremes(spot: Spot, stock: Stock) -> Iterator[Family]:
    """The derivative of a maximum is taken as that of a sum, of a mean or of the minimum."""
    y, x = spot.site.result, spot.site.argument
    if y is None or spot.site.steps > 1 or y.name not in _EXTREMES or not y.parents:
        return
    opposite = _EXTREMES[y.name]
    axis = y.call.kwargs.get("axis", y.args[1] if len(y.args) > 1 else None)
    n = np.size(x.value) // max(1, np.size(y.value))
    is_it = f"({{v}} == {opposite.__name__[-3:]}({{v}}))"
    tried: list[tuple[str, Callable[[], object]]] = [
        ("1", lambda: 1.0),
        (f"1 / {n}", lambda: 1 / n),
        (is_it, lambda: x.value == opposite(x.value, axis=axis, keepdims=True)),
    ]

    def edit(i: int) -> Edit:
        def change(g: Array, c: Array, total: object) -> object:
            kept = np.shape(np.max(x.value, axis=axis, keepdims=True))
            return np.reshape(g, kept) * tried[i][1]() + 0 * c

        fields = {"function": tried[i][0], "v": x, "minus": False}
        return Edit("taken_as", 1.2, change, fields, "derivative")

    others = [np.asarray(edit(i).change(spot.g, spot.c, stock.bar)) for i in range(len(tried))]
    effects, sizes = spot.effects(others)
    yield Family(effects, sizes, edit, lambda i: ("extreme", i))
