"""A network of layers: which layer is the first wrong one."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from ..optimizers import Sharing
from ..validation import Random, number
from .automatic import SHARPNESS
from .checks import BUDGET, check_layer
from .compare import FAILURES, Row, compare
from .conventions import BACKWARD, accepts, method_name
from .handwritten import CheckError, called
from .objects import input_gradient_of, methods_of, output_of
from .parameters import find_parameters
from .report import GradientReport
from .source import replacing_lines
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
    deadline = time.monotonic() + number("budget", budget, above=0, or_equal=True)
    named, loss_layer = _layers(network, loss)
    found = _Found()
    with untouched(network, loss, x, t) as session:
        with session.fresh():
            steps = _pass(named, loss_layer, x, t)
            found.failures += _replaced(network, named)
        for name, layer, inputs, upstream in steps:
            with session.fresh():
                left = max(0.1, deadline - time.monotonic())
                if upstream is not None and not np.any(upstream):
                    upstream = None  # a random one tells more than zeros
                report = check_layer(layer, *inputs, upstream=upstream, rng=rng, budget=left)
            session.restore()
            found.add(name, layer, report)
        rows = _with_shared(found.rows, named)
    title = "a list of layers" if isinstance(network, list | tuple) else type(network).__name__
    return found.report(title, rows)


@dataclass
class _Found:
    """What the checks of the layers have found."""

    reports: dict[str, GradientReport] = field(default_factory=dict)
    rows: list[Row] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)
    unchecked: list[str] = field(default_factory=list)

    def add(self, name: str, layer: Any, report: GradientReport) -> None:
        """Add the report on a layer; layers come in the order of the forward pass."""
        self.reports[name] = report
        self.rows += [replace(row, name=f"{name}.{row.name}") for row in report.rows]
        self.notes += [f"{name}: {note}" for note in report.notes]
        self.failures += [f"{name}: {failure}" for failure in report.failures]
        self.unchecked += [f"{name}.{what}" for what in report.unchecked]
        if not report.ok:
            self.wrong.append(f"{name} ({type(layer).__name__})")

    def report(self, title: str, rows: list[Row]) -> GradientReport:
        """Return the report on the network, with the least sharp of its references."""
        kinds = list(dict.fromkeys(kind for kind, _ in SHARPNESS))
        least = max(self.reports.values(), key=lambda report: kinds.index(report.reference))
        notes = list(self.notes)
        if any(report.reference != least.reference for report in self.reports.values()):
            notes += [
                f"{name}: the reference is {report.reference}{report.precision}"
                for name, report in self.reports.items()
                if report.reference != kinds[0]
            ]
        if self.wrong:
            notes.append(f"the first wrong layer on the way back is {self.wrong[-1]}")
        return GradientReport(
            title,
            least.reference,
            tuple(rows),
            tuple(notes),
            tuple(self.failures),
            least.precision,
            tuple(self.unchecked),
        )


def _pass(
    named: Sequence[tuple[str, Any]], loss_layer: Any, x: Any, t: Any
) -> list[tuple[str, Any, tuple[Any, ...], Any]]:
    """Run the network once; return each layer with its inputs and its upstream gradient."""
    activations = [x]
    for name, layer in named:
        forward = getattr(layer, methods_of(layer)[0])
        result = called(f"{name}.forward", forward, activations[-1])
        activations.append(output_of(layer, result))
    forward, backward = (getattr(loss_layer, method) for method in methods_of(loss_layer))
    called("the loss layer's forward", forward, activations[-1], t)
    one = () if accepts(backward, 0) else (1.0,)
    result = called("the loss layer's backward", backward, *one)
    ups = [input_gradient_of(loss_layer, result)]
    for name, layer in reversed(named):
        backward = getattr(layer, methods_of(layer)[1])
        result = called(f"{name}.backward", backward, np.array(ups[-1]))
        ups.append(input_gradient_of(layer, result))
    steps = [
        (name, layer, (_own(activation),), np.array(up))
        for (name, layer), activation, up in zip(
            named, activations[:-1], reversed(ups[:-1]), strict=True
        )
    ]
    return [*steps, ("loss_layer", loss_layer, (_own(activations[-1]), t), None)]


def _own(value: Any) -> Any:
    return np.array(value) if isinstance(value, np.ndarray) else value


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
    if found is None or method_name(found, BACKWARD) is None:
        raise CheckError(
            "network must have a loss_layer with forward(x, t) and backward(); or give one as loss="
        )
    return named, found


def _replaced(network: Any, named: Sequence[tuple[str, Any]]) -> list[str]:
    """Return where the network's own gradients are not those of its layers, after backward."""
    places = {id(p): (label, g) for label, p, g in _own_gradients(network)}
    found = []
    for name, layer in named:
        for parameter in find_parameters(layer):
            label, held = places.get(id(parameter.value), (None, None))
            gradient = parameter.gradient()
            if label is None or not isinstance(gradient, np.ndarray):
                continue
            if held is not gradient and not np.array_equal(np.asarray(held), gradient):
                found.append(
                    f"network.{label} does not have the gradient of {name}.{parameter.name}: the "
                    "layer replaces the array that the network holds"
                    f"{_written_at(layer)}; write into it: grads[...][...] = dW"
                )
    return found


def _own_gradients(network: Any) -> list[tuple[str, Any, Any]]:
    """Return what the network itself lists: a name, the parameter, and the gradient."""
    params, grads = (getattr(network, name, None) for name in ("params", "grads"))
    if isinstance(params, list) and isinstance(grads, list) and len(params) == len(grads):
        return [(f"grads[{i}]", p, grads[i]) for i, p in enumerate(params)]
    if isinstance(params, dict) and isinstance(grads, dict):
        return [(f"grads[{k!r}]", p, grads[k]) for k, p in params.items() if k in grads]
    return []


def _written_at(layer: Any) -> str:
    """Return where a layer's backward pass replaces its gradients, if that can be told."""
    try:
        lines = replacing_lines(getattr(layer, methods_of(layer)[1]))
    except Exception:
        lines = []
    places = ", ".join(f"{os.path.basename(file)}:{line}" for file, line in lines)
    return f" ({places})" if places else ""


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
