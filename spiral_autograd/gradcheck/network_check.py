"""The check of a network: each layer with what it is given there, and the network's own passes."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from ..validation import Random
from .blocks import largest
from .checks import BUDGET, How, check_layer
from .finding import Finding, found
from .guard import Deadline, answerable
from .network_passes import Own, beside, check_own, check_whole, wrong
from .reference.reference import SHARPNESS
from .reference.reference import gradients_of as automatic
from .report import GradientReport
from .subject.heard import Call, Pass, gradients_of, groups, noted, replacing_lines, totals
from .subject.inputs import Constant, Names
from .subject.layer import names_in
from .subject.network import AutomaticLoss, Network, is_plain, naming, network_of
from .subject.objects import methods_of, positional_names, read
from .subject.parameters import Parameter
from .subject.session import untouched
from .subject.subject import is_float_array
from .verdict.rows import FAILURES, Row

Reports = Mapping[str, GradientReport]  # on the layers, by their names
Given = tuple[Call, Any]  # the forward call of a layer, and its upstream gradient
KINDS = list(dict.fromkeys(kind for kind, _ in SHARPNESS))  # of references, the sharpest first


def check_network(
    network: object,
    x: object,
    t: object,
    *,
    loss: object = None,
    constant: Names = (),
    rtol: float | None = None,
    atol: float | None = None,
    rng: Random = 0,
    budget: float = BUDGET,
) -> GradientReport:
    """Check each layer of a network with its real activations and upstream gradients.

    ``print(check_network(net, x, t))`` names the layers that are wrong, and the first to mend. The
    network's own passes are run too, where it has them: ``forward(x, t)`` or ``loss(x, t)``, and
    ``backward()`` or ``gradient(x, t)``. They must give the gradients that the layers do; a network
    that is more than the chain of its layers is checked as a whole.

    Parameters
    ----------
    network : object with ``layers`` and ``loss_layer``, or a list of layers
        Layers have ``forward(x)`` and ``backward(upstream)``; the loss layer ``forward(x, t)`` and
        ``backward()``. The layers may be a list, or a dict in order. A network without them must
        have passes of its own.
    x, t : arrays
    loss : object, optional
        The loss layer, where `network` is a list of layers.
    constant : names, optional
        What is meant to have no gradient, such as ``layers[0].mask``, or ``mask`` in any layer.
    rtol, atol, rng, budget : as `check_layer` has them

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
    deadline = Deadline.after(How.of(rtol, atol, rng, budget).budget)
    meant = Constant(constant)
    title = "a list of layers" if is_plain(network) else type(network).__name__
    with untouched(network, loss, x, t) as session, answerable(title):
        net = network_of(network, loss, x, t, session, automatic)
        net = replace(net, given={"rtol": rtol, "atol": atol, "rng": rng}, deadline=deadline)
        chain, own = net.chain, check_own(net)
        given = chain.given() | own.heard.given()
        meant.require_known(title, _names_in(net, given))
        if own.report is not None and not net.is_chain:
            return replace(own.report, subject=title, unchecked=_others(own.report, meant))
        reports = _check_layers(net, given, meant)
        faults, unheld = _estranged(net, reports), _unheld(chain)
        if faults and not own.differs and not is_plain(network):
            whole = check_whole(net, share=0.0).report
            own = replace(own, rows=[], is_right=whole is not None and whole.ok)
        rows = _with_shared(net, reports)
    rows += [row for row in own.rows if own.differs or row.name not in unheld]
    return _report(title, reports, rows, own, [*faults, *unheld.values()], meant)


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


def _check_layers(net: Network, given: Mapping[str, Given], meant: Constant) -> Reports:
    """Check each layer, the last one first: if time is short, it is for the first wrong one."""
    reports = {}
    for name, layer in reversed(net.layers):
        if name not in given or isinstance(layer, AutomaticLoss):
            continue
        there, up = given[name]
        names = _names_of(there)
        with net.session.fresh(), naming(name):
            reports[name] = check_layer(
                layer,
                *there.arguments,
                upstream=up if np.any(up) else None,  # a random one tells more than zeros
                constant=[n for n in names if meant.has(f"{name}.{n}") or meant.has(n)],
                budget=max(0.1, net.deadline.left),
                **net.given,
            )
        net.session.restore()
    return dict(reversed(reports.items()))


def _with_shared(net: Network, reports: Reports) -> list[Row]:
    """Return the rows with one for each weight that layers share, its gradients added."""
    named = [(f"{name}.{row.name}", row) for name, r in reports.items() for row in r.rows]
    rows = {name: replace(row, name=name) for name, row in named}
    held = [p for layer in net.layers for p in gradients_of(*layer) if p.name in rows]
    for members in groups(held):
        first, *others = [rows[p.name] for p, _ in members]
        if others and all(map(_can_be_added, (first, *others))):
            rows[first.name] = _summed(members, rows)
            for other in others:
                del rows[other.name]
    return list(rows.values())


def _summed(members: Sequence[tuple[Parameter, bool]], rows: Mapping[str, Row]) -> Row:
    """Return the row of a weight from those of its uses."""
    label = " = ".join(p.name + (".T" if turned else "") for p, turned in members)
    ours = [noted(label, p.value, rows[p.name].handwritten) for p, _ in members]
    true = [noted(label, p.value, rows[p.name].automatic) for p, _ in members]
    return beside(totals(ours), totals(true), 1.0)[0]


def _can_be_added(row: Row) -> bool:
    """Tell whether the gradients of a row are both known, and the same."""
    are_known = row.handwritten is not None and row.automatic is not None
    return are_known and row.verdict not in FAILURES


# -------------------- layers that are right by themselves, and not together --------------------


def _estranged(net: Network, reports: Reports) -> list[Finding]:
    """Return where layers that are right by themselves give other gradients in the chain."""
    chain = net.chain
    there = {call.name: call for call in chain.forward}
    right = [c for c in reversed(chain.backward[1:]) if c.name in reports and reports[c.name].ok]
    alone, said = Pass(), []
    for call in right:
        run = net.alone(there[call.name], call)
        if not run.backward or not _is_alike(there[call.name], run.forward[0]):
            continue  # it is not the same layer by itself
        alone.backward += run.backward
        if not call.is_done or not _is_alike(call, run.backward[0]):
            names = [other.name for other in chain.forward if other.layer is call.layer]
            said.append(found("estranged", names=names))
    return list(dict.fromkeys(said)) or _not_the_sum(chain, alone)


def _is_alike(call: Call, alone: Call) -> bool:
    """Tell whether a layer gave the same in the chain: where it adds gradients up, added."""
    arrays = [*call.arguments, *(p.gradient() for p in call.before)]
    scale = max((largest(a) for a in arrays if is_float_array(a)), default=0.0)
    left = beside(_given_by(call), _given_by(alone), scale)
    added = beside(_given_by(call, added=True), _given_by(alone, added=True), scale)
    return not {row.name for row in wrong(left)} & {row.name for row in wrong(added)}


def _given_by(call: Call, *, added: bool = False) -> list[Parameter]:
    """Return what a pass returned, and the gradients that it left, or by what it changed them."""
    before = {p.name: p.gradient() for p in call.before if added and is_float_array(p.gradient())}
    given = [noted("", None, call.result)]
    for p in call.after:
        now, was = p.gradient(), before.get(p.name, ())
        is_changed = is_float_array(now) and np.shape(was) == now.shape
        given.append(noted(p.name, p.value, now - was if is_changed else now))
    return given


def _not_the_sum(chain: Pass, alone: Pass) -> list[Finding]:
    """Return of which parameters the chain has not left the sum of the gradients of all uses."""
    by_itself = {use.name: use for use in alone.uses}
    said, replaced = [], []
    for members in groups(chain.uses):
        names = [use.name for use, _ in members]
        if by_itself.keys() >= set(names):
            parts = [by_itself[name] for name in names]
            scale = max(largest(part.gradient()) for part in parts)
            if wrong(beside(totals(parts), chain.gradients, scale)):
                said += [found("not_the_sum", names=names[::-1])] if len(names) > 1 else []
                replaced += names if len(names) == 1 else []
    return said + ([found("replaced_later", names=replaced)] if replaced else [])


# -------------------- the gradients that the network holds --------------------


def _unheld(chain: Pass) -> dict[str, Finding]:
    """Return, by row, which gradients that a network lists are not those that its layers leave."""
    values = {p.name: p.value for p in chain.listed}
    missing: dict[str, Finding] = {}
    for row in wrong(beside(chain.listed, chain.gradients)):
        uses = [use for use in reversed(chain.uses) if use.value is values[row.name]]
        held = [use for use in uses if np.array_equal(use.gradient(), np.asarray(row.handwritten))]
        for use in uses:
            if use not in held:
                missing[f"network.{row.name}"] = _lacking(row.name, held, use)
    return missing


def _lacking(label: str, held: Sequence[Parameter], use: Parameter) -> Finding:
    """Return what is said of a gradient that a network lacks, though a layer has it."""
    lines = replacing_lines(read(use.holder, methods_of(use.holder)[1]))
    places = [f"{os.path.basename(file)}:{line}" for file, line in dict.fromkeys(lines)]
    names = [other.name for other in held[:1]]
    return found("unheld", label=label, lacking=use.name, held=names, places=places)


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
    faults = [] if own.is_right else faults
    wrong_ones = [f"{name} ({report.subject})" for name, report in reports.items() if not report.ok]
    first = [found("first_wrong", name=name) for name in wrong_ones[-1:]]  # on the way back
    return GradientReport(
        title,
        least.reference,
        tuple(rows),
        (*own.remarks, *_merged(said), *_less_sharp(reports, least), *first),
        (*of_layers, *faults, *own.faults),
        least.tolerances,
        tuple(unchecked),
    )


def _less_sharp(reports: Reports, least: GradientReport) -> list[Finding]:
    """Return which layers have another reference than autograd, unless all have the same."""
    if all(report.reference == least.reference for report in reports.values()):
        return []
    return [
        found("reference", name=name, kind=report.reference, precision=f" {report.precision}")
        for name, report in reports.items()
        if report.reference != KINDS[0]
    ]


def _others(report: GradientReport, meant: Constant) -> tuple[str, ...]:
    """Return what is unchecked and not meant to have no gradient."""
    return tuple(name for name in report.unchecked if not meant.has(name))


def _merged(said: Mapping[str, Sequence[Finding]]) -> list[Finding]:
    """Return what is said of layers, once for those of which the same is said."""
    names: dict[Finding, list[str]] = {}
    for name, findings in said.items():
        for finding in findings:
            if finding.kind != "may_hide":  # of inputs, which are the network's own
                names.setdefault(finding, []).append(name)
    return [found("of_layers", names=of, what=what) for what, of in names.items()]
