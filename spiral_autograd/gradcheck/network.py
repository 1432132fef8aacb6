"""A network of layers: which layer is the first wrong one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from ..optimizers import Sharing
from ..validation import Random
from .automatic import SHARPNESS
from .checks import BUDGET, check_layer
from .compare import FAILURES, Row, compare
from .handwritten import CheckError, called
from .parameters import find_parameters
from .report import GradientReport
from .state import untouched

LOSSES = ("loss_layer", "lossLayer", "last_layer", "lastLayer", "loss", "criterion", "loss_fn")


def check_network(
    network: Any,
    x: Any,
    t: Any,
    *,
    loss: Any = None,
    rng: Random = 0,
    budget: float = BUDGET,
) -> GradientReport:
    """Check each layer of a network with its real activations and upstream gradients.

    Parameters
    ----------
    network : object with ``layers`` and ``loss_layer``, or a list of layers
        Layers have ``forward(x)`` and ``backward(upstream)``; the loss layer ``forward(x, t)`` and
        ``backward()``. The layers may be a list, or a dict in order.
    x, t : arrays
    loss : object, optional
        The loss layer, where `network` is a list of layers.
    rng : int, RandomState or Generator, default 0
    budget : float, default 10
        Seconds to spend on why a gradient is wrong.

    Returns
    -------
    GradientReport
        Rows are named by their layer, such as ``layers[0].W``. A weight that layers share has one
        row, with its gradients added. A note names the first wrong layer on the way back.

    Raises
    ------
    CheckError
        If the network has no layers, or one of them cannot be run.

    Examples
    --------
    >>> class Double:
    ...     def forward(self, x):
    ...         return 2 * x
    ...     def backward(self, dout):
    ...         return 2 * dout
    >>> class Sum:
    ...     def forward(self, x, t):
    ...         return np.sum(x * t)
    ...     def backward(self, dout=1):
    ...         return dout * np.ones((1, 2))
    >>> check_network([Double()], np.ones((1, 2)), np.ones((1, 2)), loss=Sum()).ok
    True
    """
    named, loss_layer = _layers(network, loss)
    with untouched(network, loss, x, t) as session:
        with session.fresh():
            activations = [x]
            for name, layer in named:
                activations.append(called(f"{name}.forward", layer.forward, activations[-1]))
            called("the loss layer's forward", loss_layer.forward, activations[-1], t)
            ups = [called("the loss layer's backward", loss_layer.backward)]
            for name, layer in reversed(named):
                ups.append(called(f"{name}.backward", layer.backward, np.array(ups[-1])))
            stale = _stale_lists(network, [layer for _, layer in named])
        rows: list[Row] = []
        notes: list[str] = []
        failures: list[str] = list(stale)
        wrong: list[str] = []
        reference = "autograd"
        checks = [
            (f"{name}", layer, (np.array(a),), np.array(up))
            for (name, layer), a, up in zip(named, activations, reversed(ups[:-1]), strict=False)
        ]
        for name, layer, inputs, upstream in checks:
            with session.fresh():
                report = check_layer(layer, *inputs, upstream=upstream, rng=rng, budget=budget)
            session.restore()
            _collect(report, name, layer, rows, notes, failures, wrong)
            reference = report.reference if report.reference != "autograd" else reference
        with session.fresh():
            report = check_layer(loss_layer, np.array(activations[-1]), t, rng=rng, budget=budget)
        session.restore()
        _collect(report, "loss_layer", loss_layer, rows, notes, failures, wrong)
        shared = _with_shared(rows, named)
    if wrong:
        notes.append(f"the first wrong layer on the way back is {wrong[-1]}")
    title = "a list of layers" if isinstance(network, list | tuple) else type(network).__name__
    return GradientReport(title, reference, tuple(shared), tuple(notes), tuple(failures))


def _layers(network: Any, loss: Any) -> tuple[list[tuple[str, Any]], Any]:
    layers = (
        network if isinstance(network, list | tuple | dict) else getattr(network, "layers", None)
    )
    if isinstance(layers, dict):
        named = [(f"layers[{key!r}]", layer) for key, layer in layers.items()]
    elif isinstance(layers, list | tuple):
        named = [(f"layers[{i}]", layer) for i, layer in enumerate(layers)]
    else:
        raise CheckError(
            "network must have layers (a list, or a dict in order), or be a list of them"
        )
    found = loss
    for name in LOSSES:
        found = getattr(network, name, None) if found is None else found
    if found is None or not hasattr(found, "backward"):
        raise CheckError(
            "network must have a loss_layer with forward(x, t) and backward(); or give one as loss="
        )
    return named, found


def _collect(
    report: GradientReport,
    name: str,
    layer: Any,
    rows: list[Row],
    notes: list[str],
    failures: list[str],
    wrong: list[str],
) -> None:
    rows += [replace(row, name=f"{name}.{row.name}") for row in report.rows]
    notes += [f"{name}: {note}" for note in report.notes]
    failures += [f"{name}: {failure}" for failure in report.failures]
    if not report.ok:
        wrong.append(f"{name} ({type(layer).__name__})")


def _stale_lists(network: Any, layers: Sequence[Any]) -> list[str]:
    """Return what is wrong with the network's own list of gradients, after a backward pass."""
    own = getattr(network, "grads", None)
    params = getattr(network, "params", None)
    if not isinstance(own, list) or not isinstance(params, list) or len(own) != len(params):
        return []
    found = []
    places = {id(p): (i, g) for i, (p, g) in enumerate(zip(params, own, strict=True))}
    for number, layer in enumerate(layers):
        for parameter in find_parameters(layer):
            place = places.get(id(parameter.value))
            gradient = parameter.gradient()
            if place is None or not isinstance(gradient, np.ndarray):
                continue
            i, held = place
            if held is not gradient and not np.array_equal(held, gradient):
                found.append(
                    f"network.grads[{i}] does not have the gradient of layers[{number}]."
                    f"{parameter.name}: the layer replaces the array that the network holds; write "
                    "into it: grads[...][...] = dW"
                )
    return found


def _with_shared(rows: list[Row], named: Sequence[tuple[str, Any]]) -> list[Row]:
    """Return the rows with one for each weight that layers share, its gradients added."""
    arrays = {f"{name}.{p.name}": p.value for name, layer in named for p in find_parameters(layer)}
    names = [row.name for row in rows if row.name in arrays]
    sharing = Sharing.of([arrays[name] for name in names])
    groups: dict[int, list[tuple[str, bool]]] = {}
    for name, (first, turned) in zip(names, sharing.places, strict=True):
        groups.setdefault(first, []).append((name, turned))
    merged = list(rows)
    for members in groups.values():
        if len(members) < 2:
            continue
        parts = [next(r for r in merged if r.name == name) for name, _ in members]
        if any(p.verdict in FAILURES or p.handwritten is None for p in parts):
            continue
        sums: list[Any] = [
            sum(
                np.asarray(getattr(p, side)).T if turned else np.asarray(getattr(p, side))
                for p, (_, turned) in zip(parts, members, strict=True)
            )
            for side in ("handwritten", "automatic")
        ]
        label = " = ".join(name + (".T" if turned else "") for name, turned in members)
        row = compare(label, sums[0], sums[1], SHARPNESS["autograd", False], 1e-12)
        merged[merged.index(parts[0])] = row
        for part in parts[1:]:
            merged.remove(part)
    return merged
