"""The check of a network: each layer with what it is given there, and the network's own passes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from ..validation import Array, Random, number
from .blocks import largest
from .checks import BUDGET, check_layer
from .finding import Finding, Said, as_finding, found
from .guard import CheckError, Deadline, answerable
from .network_passes import Own, check_own, is_right_as_a_whole
from .reference.reference import SHARPNESS
from .report import GradientReport
from .subject.conventions import methods_of, positional_names
from .subject.inputs import RANDOM_IS_BETTER, Constant, Names
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
from .subject.own_passes import gradient_in, gradients_of, groups, totals
from .subject.session import untouched
from .verdict.rows import FAILURES, Row, compare
from .words import sentence

Reports = Mapping[str, GradientReport]  # on the layers, by their names


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
        chain = net.chain() if net.is_chain else Pass(error=_no_chain(net))
        own = Own() if is_plain(network) else check_own(net, chain, rng, deadline)
        if own.report is None and chain.error is not None:
            raise CheckError(sentence([*own.faults, str(chain.error)][0]))
        if own.report is not None and not net.is_chain:
            meant.require_known(title, names_in(network, ["x", "t"]))
            return replace(own.report, subject=title, unchecked=_others(own.report, meant))
        given = chain.given() | (own.heard.given() if own.differs else {})
        meant.require_known(title, [f"{n}.{what}" for n in given for what in _names_in(given[n])])
        reports = _check_layers(net, given, rng, deadline, meant)
        faults = _estranged(net, chain, reports)
        if faults and not own.differs and not is_plain(network):
            own = replace(own, rows=[], is_right=is_right_as_a_whole(net, rng))
        rows = _with_shared(net, reports)
    rows += [row for row in own.rows if own.differs or row.name not in chain.unheld]
    faults = [] if own.is_right else [*faults, *chain.unheld.values()]
    return _report(title, reports, rows, own, faults, meant)


def _no_chain(net: Network) -> CheckError:
    """Return why there are no layers to be run one after another."""
    if isinstance(net.object, type):
        name = net.object.__name__
        return CheckError(
            f"network must be an object, got the class {name} itself: give {name}(...)"
        )
    if net.layers:
        return CheckError(
            "network must have a loss_layer with forward(x, t) and backward(); or give one as loss="
        )
    return CheckError(
        "network must have layers (a list, or a dict in order), or be a list of them; or else "
        "forward(x, t) and backward() of its own, or loss(x, t) and gradient(x, t); for one "
        "method that returns the loss with its gradients use check_gradient"
    )


Given = tuple[Call, Any]  # the forward call of a layer, and its upstream gradient


def _names_in(given: Given) -> list[str]:
    """Return the names of a layer's inputs, and of what it keeps."""
    call, _ = given
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
        names = _names_in(given[name])
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
    rows = {f"{n}.{r.name}": r for n, report in reports.items() for r in report.rows}
    rows = {name: replace(row, name=name) for name, row in rows.items()}
    held = [e for named in net.layers for e in gradients_of(*named) if e.label in rows]
    for members in groups([entry.value for entry in held]):
        parts = [(rows[held[i].label], turned) for i, turned in members]
        if len(parts) < 2 or any(p.verdict in FAILURES or p.handwritten is None for p, _ in parts):
            continue
        ours = _sum([(p.handwritten, turned) for p, turned in parts])
        true = _sum([(p.automatic, turned) for p, turned in parts])
        label = " = ".join(part.name + (".T" if turned else "") for part, turned in parts)
        first, *others = (part.name for part, _ in parts)
        rows[first] = compare(label, ours, true, SHARPNESS["autograd", False], 1e-12)
        for name in others:
            del rows[name]
    return list(rows.values())


def _sum(parts: Sequence[tuple[Any, bool]]) -> Array:
    """Return the sum of gradients, of which some are to be transposed."""
    return np.sum([np.asarray(g).T if turned else np.asarray(g) for g, turned in parts], axis=0)


# -------------------- layers that are right by themselves, and not together --------------------


def _estranged(net: Network, chain: Pass, reports: Reports) -> list[Finding]:
    """Return where layers that are right by themselves give other gradients in the chain."""
    there = {call.name: call for call in chain.forward}
    calls = [c for c in reversed(chain.backward[1:]) if c.name in reports and reports[c.name].ok]
    runs = [(call, net.alone(there[call.name], call)) for call in calls]
    said = []
    for call, alone in runs:
        if alone is not None and not _as_alone(call, alone):
            twins = [other.name for other in chain.forward if other.layer is call.layer]
            said.append(found("estranged", names=twins))
    return list(dict.fromkeys(said)) or _not_the_sum(chain, [a for _, a in runs if a is not None])


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
    uses = [e for call in chain.backward for e in call.after if isinstance(e.gradient, np.ndarray)]
    by_itself = {entry.label: entry for call in alone for entry in call.after}
    said = []
    for members in groups([use.value for use in uses]):
        names = [uses[i].label for i, _ in reversed(members)]
        if len(names) < 2 or not all(name in by_itself for name in names):
            continue
        parts = [uses[i]._replace(gradient=by_itself[uses[i].label].gradient) for i, _ in members]
        (total,) = totals(parts)
        floor = 1e-9 * max(largest(part.gradient) for part in parts)
        if not equal(gradient_in(chain.gradients, total.value), total.gradient, floor):
            said.append(found("not_the_sum", names=names))
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
    kinds = list(dict.fromkeys(kind for kind, _ in SHARPNESS))
    whole = [] if own.report is None else [own.report]
    least = max((*reports.values(), *whole), key=lambda report: kinds.index(report.reference))
    remarks = [*own.remarks, *_merged({name: report.remarks for name, report in reports.items()})]
    if any(report.reference != least.reference for report in reports.values()):
        remarks += [
            found("reference", name=name, kind=report.reference, precision=report.precision)
            for name, report in reports.items()
            if report.reference != kinds[0]
        ]
    wrong = [f"{name} ({report.subject})" for name, report in reports.items() if not report.ok]
    remarks += [found("first_wrong", name=name) for name in wrong[-1:]]
    of_layers = _merged({name: report.faults for name, report in reports.items()})
    unchecked = [f"{name}.{what}" for name, report in reports.items() for what in report.unchecked]
    unchecked += [f"network.{name}" for report in whole for name in _others(report, meant)]
    return GradientReport(
        title,
        least.reference,
        tuple(rows),
        tuple(remarks),
        (*of_layers, *faults, *own.faults),
        least.precision,
        tuple(unchecked),
    )


def _others(report: GradientReport, meant: Constant) -> tuple[str, ...]:
    """Return what is unchecked and not meant to have no gradient."""
    return tuple(name for name in report.unchecked if not meant.has(name))


def _merged(said: Mapping[str, Sequence[Said]]) -> list[Finding]:
    """Return what is said of layers, once for those of which the same is said.

    Examples
    --------
    >>> (finding,) = _merged({"layers[0]": ["forward writes into x"], "layers[2]": []})
    >>> sentence(finding)
    'layers[0]: forward writes into x'
    """
    names: dict[Said, list[str]] = {}
    for name, findings in said.items():
        for finding in findings:
            if RANDOM_IS_BETTER not in sentence(finding):  # of inputs, which are the network's own
                names.setdefault(finding, []).append(name)
    return [found("of_layers", names=of, what=as_finding(what)) for what, of in names.items()]
