"""The check of a network: each layer with what it is given there, and the network's own passes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from ..validation import Random, number
from .blocks import largest
from .checks import BUDGET, check_layer
from .finding import Finding, found
from .guard import CheckError, Deadline, answerable
from .network_passes import Own, check_own, check_whole
from .reference.reference import SHARPNESS
from .report import GradientReport
from .subject.conventions import methods_of, positional_names
from .subject.inputs import Constant, Names
from .subject.layer import names_in
from .subject.network import (
    Call,
    Network,
    Pass,
    equal,
    is_plain,
    naming,
    network_of,
    precision,
)
from .subject.own_passes import Listed, gradient_in, gradients_of, groups, totals
from .subject.session import untouched
from .verdict.rows import FAILURES, Row, compare
from .words import sentence

Reports = Mapping[str, GradientReport]  # on the layers, by their names
Given = tuple[Call, Any]  # the forward call of a layer, and its upstream gradient
KINDS = list(dict.fromkeys(kind for kind, _ in SHARPNESS))  # of references, the sharpest first


def check_network(
    network: Any,
    x: Any,
    t: Any,
    *,
    loss: Any = None,
    rng: Random = 0,
    budget: float = BUDGET,
    constant: Names = (),
) -> GradientReport:
    """Check each layer of a network with its real activations and upstream gradients.

    The network's own passes are run too, where it has them: ``forward(x, t)`` or ``loss(x, t)``,
    and ``backward()`` or ``gradient(x, t)``. They must give the gradients that the layers do; a
    network that is more than the chain of its layers is checked as a whole.

    Parameters
    ----------
    network : object with ``layers`` and ``loss_layer``, or a list of layers
        Layers have ``forward(x)`` and ``backward(upstream)``; the loss layer ``forward(x, t)`` and
        ``backward()``. The layers may be a list, or a dict in order. A network without them must
        have passes of its own.
    x, t : arrays
    loss : object, optional
        The loss layer, where `network` is a list of layers.
    rng : int, RandomState or Generator, default 0
    budget : float, default 10
        Seconds to spend on why a gradient is wrong.
    constant : names, optional
        What is meant to have no gradient, such as ``layers[0].mask``, or ``mask`` in any layer.

    Returns
    -------
    GradientReport
        Rows are named by their layer, such as ``layers[0].W``. A weight that layers share has one
        row, with its gradients added. A note names the first wrong layer on the way back. What
        only the network's own passes give wrong is named ``network.W1``.

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
    deadline = Deadline.after(number("budget", budget, above=0, or_equal=True))
    meant = Constant(constant)
    title = "a list of layers" if is_plain(network) else type(network).__name__
    with untouched(network, loss, x, t) as session, answerable(title):
        net = network_of(network, loss, x, t, session)
        chain = net.chain()
        own = check_own(net, chain, rng, deadline)
        if own.report is None:
            _require_chain(chain, own)
        given = chain.given() | own.heard.given() if own.differs else chain.given()
        meant.require_known(title, _names_in(net, given))
        if own.report is not None and not net.is_chain:
            return replace(own.report, subject=title, unchecked=_others(own.report, meant))
        reports = _check_layers(net, given, rng, deadline, meant)
        faults = _estranged(net, chain, reports)
        if faults and not own.differs and not is_plain(network):
            whole = check_whole(net, rng, Deadline.after(0.0)).report
            own = replace(own, rows=[], is_right=whole is not None and whole.ok)
        rows = _with_shared(net, reports)
    rows += [row for row in own.rows if own.differs or row.name not in chain.unheld]
    faults = [] if own.is_right else [*faults, *chain.unheld.values()]
    return _report(title, reports, rows, own, faults, meant)


def _require_chain(chain: Pass, own: Own) -> None:
    """Raise where the layers cannot be run one after another."""
    if chain.error is not None:
        raise CheckError(sentence(own.faults[0])) if own.faults else chain.error


def _names_in(net: Network, given: Mapping[str, Given]) -> list[str]:
    """Return the names of the layers' inputs, and of what they keep; else those of the network."""
    if not net.is_chain:
        return names_in(net.object, ["x", "t"])
    return [f"{name}.{what}" for name, (call, _) in given.items() for what in _names_of(call)]


def _names_of(call: Call) -> list[str]:
    """Return the names of the inputs of a layer, and of what it keeps."""
    forward = getattr(call.layer, methods_of(call.layer)[0])
    return names_in(call.layer, positional_names(forward, len(call.arguments)))


# -------------------- each layer with what it is given --------------------


def _check_layers(
    net: Network, given: Mapping[str, Given], rng: Random, deadline: Deadline, meant: Constant
) -> Reports:
    """Check each layer, the last one first: if time is short, it is for the first wrong one."""
    reports = {}
    for name, layer in reversed(net.layers):
        if name not in given:
            continue
        there, up = given[name]
        names = _names_of(there)
        with net.session.fresh(), naming(name):
            reports[name] = check_layer(
                layer,
                *there.arguments,
                upstream=up if np.any(up) else None,  # a random one tells more than zeros
                rng=rng,
                budget=max(0.1, deadline.left),
                constant=[n for n in names if meant.has(f"{name}.{n}") or meant.has(n)],
            )
        net.session.restore()
    return dict(reversed(reports.items()))


def _with_shared(net: Network, reports: Reports) -> list[Row]:
    """Return the rows with one for each weight that layers share, its gradients added."""
    named = [(f"{name}.{row.name}", row) for name, r in reports.items() for row in r.rows]
    rows = {name: replace(row, name=name) for name, row in named}
    held = [e for named in net.layers for e in gradients_of(*named) if e.label in rows]
    for members in groups([entry.value for entry in held]):
        label = " = ".join(held[i].label + (".T" if turned else "") for i, turned in members)
        first, *others = (held[i] for i, _ in members)
        summed = _summed(label, [first, *others], rows) if others else None
        if summed is not None:
            rows[first.label] = summed
            for use in others:
                del rows[use.label]
    return list(rows.values())


def _summed(label: str, uses: Sequence[Listed], rows: Mapping[str, Row]) -> Row | None:
    """Return the row of a weight from those of its uses; None where one of them fails."""
    pairs = [(use, rows[use.label]) for use in uses]
    if any(row.verdict in FAILURES or row.handwritten is None for _, row in pairs):
        return None
    (ours,) = totals([use._replace(gradient=row.handwritten) for use, row in pairs])
    (true,) = totals([use._replace(gradient=row.automatic) for use, row in pairs])
    return compare(label, ours.gradient, true.gradient, SHARPNESS["autograd", False], 1e-12)


# -------------------- layers that are right by themselves, and not together --------------------


def _estranged(net: Network, chain: Pass, reports: Reports) -> list[Finding]:
    """Return where layers that are right by themselves give other gradients in the chain."""
    runs = _alone(net, chain, {name for name, report in reports.items() if report.ok})
    said = []
    for call, alone in runs:
        if not _as_alone(call, alone):
            twins = [other.name for other in chain.forward if other.layer is call.layer]
            said.append(found("estranged", names=twins))
    return list(dict.fromkeys(said)) or _not_the_sum(chain, [alone for _, alone in runs])


def _alone(net: Network, chain: Pass, right: set[str]) -> list[tuple[Call, Call]]:
    """Return the backward calls of some layers in the chain, each with that by itself."""
    there = {call.name: call for call in chain.forward}
    back = [call for call in reversed(chain.backward[1:]) if call.name in right]
    runs = [(call, net.alone(there[call.name], call)) for call in back]
    return [(call, alone) for call, alone in runs if alone is not None]


def _as_alone(call: Call, alone: Call) -> bool:
    """Tell whether a layer gave the same in the chain: where it adds gradients up, added."""
    up = call.arguments[0]
    floor = 1e-3 * precision(up) * largest(up)
    if not call.is_done or not equal(call.result, alone.result, floor):
        return False
    for entries in zip(call.before, call.after, alone.before, alone.after, strict=False):
        before, after, before_alone, after_alone = (entry.gradient for entry in entries)
        if equal(after, after_alone, floor):
            continue
        if not all(isinstance(entry.gradient, np.ndarray) for entry in entries):
            return False
        if not equal(after - before, after_alone - before_alone, floor + 1e-9 * largest(before)):
            return False
    return True


def _not_the_sum(chain: Pass, alone: Sequence[Call]) -> list[Finding]:
    """Return of which parameters the chain has left the gradient of one use, not the sum of all."""
    uses = [entry for call in chain.backward for entry in call.after]
    by_itself = {entry.label: entry.gradient for run in alone for entry in run.after}
    said = []
    for members in groups([use.value for use in uses]):
        parts = [
            use._replace(gradient=by_itself.get(use.label)) for use in (uses[i] for i, _ in members)
        ]
        if len(parts) > 1 and all(isinstance(part.gradient, np.ndarray) for part in parts):
            (total,) = totals(parts)
            floor = 1e-9 * max(largest(part.gradient) for part in parts)
            if not equal(gradient_in(chain.gradients, total.value), total.gradient, floor):
                said.append(found("not_the_sum", names=[part.label for part in reversed(parts)]))
    return said


# -------------------- the report --------------------


def _report(
    title: str,
    reports: Reports,
    rows: Sequence[Row],
    own: Own,
    faults: Sequence[Finding],
    meant: Constant,
) -> GradientReport:
    """Return the report on a network, with the least sharp of the references."""
    whole = [] if own.report is None else [own.report]
    least = max((*reports.values(), *whole), key=lambda report: KINDS.index(report.reference))
    unchecked = [f"{name}.{what}" for name, report in reports.items() for what in report.unchecked]
    unchecked += [f"network.{name}" for report in whole for name in _others(report, meant)]
    said = {name: report.remarks for name, report in reports.items()}
    of_layers = _merged({name: report.faults for name, report in reports.items()})
    return GradientReport(
        title,
        least.reference,
        tuple(rows),
        (*own.remarks, *_merged(said), *_less_sharp(reports, least), *_first_wrong(reports)),
        (*of_layers, *faults, *own.faults),
        least.precision,
        tuple(unchecked),
    )


def _less_sharp(reports: Reports, least: GradientReport) -> list[Finding]:
    """Return which layers have another reference than autograd, unless all have the same."""
    if all(report.reference == least.reference for report in reports.values()):
        return []
    return [
        found("reference", name=name, kind=report.reference, precision=report.precision)
        for name, report in reports.items()
        if report.reference != KINDS[0]
    ]


def _first_wrong(reports: Reports) -> list[Finding]:
    """Return the first wrong layer on the way back."""
    wrong = [f"{name} ({report.subject})" for name, report in reports.items() if not report.ok]
    return [found("first_wrong", name=name) for name in wrong[-1:]]


def _others(report: GradientReport, meant: Constant) -> tuple[str, ...]:
    """Return what is unchecked and not meant to have no gradient."""
    return tuple(name for name in report.unchecked if not meant.has(name))


def _merged(said: Mapping[str, Sequence[Finding]]) -> list[Finding]:
    """Return what is said of layers, once for those of which the same is said.

    Examples
    --------
    >>> (finding,) = _merged({"layers[0]": [found("has_one_size")], "layers[2]": []})
    >>> sentence(finding)
    'layers[0]: has one size only'
    """
    names: dict[Finding, list[str]] = {}
    for name, findings in said.items():
        for finding in findings:
            if finding.kind != "may_hide":  # of inputs, which are the network's own
                names.setdefault(finding, []).append(name)
    return [found("of_layers", names=of, what=what) for what, of in names.items()]
