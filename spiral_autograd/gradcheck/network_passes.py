"""A network's own passes, beside those of its layers one after another, or against its own loss."""

from __future__ import annotations

import ast
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import Any

import numpy as np

from ..validation import Array
from .blocks import close, largest
from .checks import How, check_layer, course
from .diagnosis.case import Case
from .diagnosis.diagnose import diagnose
from .finding import Finding, found, together
from .guard import CheckError, Deadline, answerable, guarded
from .reference.reference import SHARPNESS, gradients_of
from .report import GradientReport
from .report_page import place_text
from .source import Place, is_readable, text_of
from .subject.adapter import Terms
from .subject.conventions import STEPS
from .subject.heard import Call, Pass, gradient_in, noted
from .subject.network import Network, is_plain
from .subject.own_loss import OwnLoss
from .subject.own_passes import number_in, ways
from .subject.parameters import Parameter
from .subject.session import same_states, untouched
from .subject.subject import described, is_array
from .verdict.rows import FAILURES, Row, compare
from .words import sentence

Reason = tuple[Sequence[Finding], Sequence[Place]]  # what is wrong, and where


# -------------------- two lists of gradients --------------------


def precision(*arrays: object) -> float:
    """Return up to which relative difference gradients of one formula are equal."""
    return 1e-4 if any(np.asarray(a).dtype.itemsize < 8 for a in arrays) else 1e-9


def beside(ours: Sequence[Parameter], theirs: Sequence[Parameter], scale: float = 0.0) -> list[Row]:
    """Return a row for each parameter in two lists, of gradients rounded as what has this scale."""
    named = {p.name: p.gradient() for p in theirs}
    rows = []
    for p in ours:
        true: Any = gradient_in(theirs, p.value)
        true = named.get(p.name) if true is None else true
        if is_array(true) and true.dtype.kind in "fiu":
            sharp = SHARPNESS["autograd", precision(true) > 1e-6]
            rows.append(compare(p.name, p.gradient(), true, sharp, 1e-3 * precision(true) * scale))
    return rows


def wrong(rows: Sequence[Row]) -> list[Row]:
    """Return the rows of gradients that are others."""
    return [row for row in rows if row.verdict in FAILURES]


# -------------------- a network's own passes --------------------


@dataclass
class Own:
    """What a network's own passes have shown."""

    rows: list[Row] = field(default_factory=list)  # the wrong ones; as a whole: all
    remarks: list[Finding] = field(default_factory=list)
    faults: list[Finding] = field(default_factory=list)
    is_right: bool = False  # its gradients are those of its layers, or of its own loss
    differs: bool = False  # it computes something else than its layers one after another
    report: GradientReport | None = None  # the check of it as a whole
    heard: Pass = field(default_factory=Pass)  # what its layers are given then


def check_own(net: Network) -> Own:
    """Compare a network's own passes with the chain of its layers, else check it as a whole."""
    said, error = _no_chain(net), net.chain.error
    if not said and error is None:
        return _beside_chain(net)
    own = check_whole(net)
    if own.report is None and error is not None:
        raise CheckError(sentence(own.faults[0])) if own.faults else error
    return replace(own, remarks=[*said, *own.remarks])


def _no_chain(net: Network) -> list[Finding]:
    """Return why a network is more than its layers one after another, if it is: by its loss."""
    chain = net.chain
    if chain.error is not None:
        return [found("no_chain_runs", error=str(chain.error))] if net.is_chain else []
    true = number_in(chain.forward[-1].result)
    for run in net.losses[:1] if true is not None else ():
        tolerance = precision(run.result, true)
        if not close(run.result, true, tolerance, 1e-8 * tolerance):
            name, ours = net.label(run), float(run.result)
            return [found("no_chain", loss=name, ours=ours, theirs=float(true))]
    return []


# -------------------- its gradients, beside those of the layers --------------------


def _beside_chain(net: Network) -> Own:
    """Compare what each of a network's methods gives with what its layers give."""
    own = Own()
    if is_plain(net.object) or not net.chain.is_whole:
        return own
    for group in ways(net.object, net.loss_names, net.x, net.t, net.chain.backward[0].result):
        if group and not own.rows and not own.faults:
            _beside_layers(net, [net.run(way) for way in group], own)
    return own


def _beside_layers(net: Network, runs: Sequence[Pass], own: Own) -> None:
    """Compare the gradients that a method returns or leaves with those of the layers."""
    ran = [run for run in runs if run.error is None]
    first = (ran or runs)[0]
    rows = [_rows(net, run) for run in ran]
    if not ran:
        said = own.faults if first.way.is_sure else own.remarks
        said.append(_raised(net, first, net.chain))
    elif not all(map(wrong, rows)):
        skipped = _skipped(net.chain, ran)
        own.faults += [found("skipped", method=net.label(first), name=name) for name in skipped]
        own.is_right = not skipped
    elif same_states(first.streams, net.chain.streams) and same_inputs(first, net.chain):
        own.rows += _explained(net, first, rows[0])
    else:
        than = "the layers one after another"
        own.remarks.append(found("other_pass", method=net.label(first), than=than))


def _rows(net: Network, heard: Pass) -> list[Row]:
    """Return a row for each of the network's own gradients beside that which the layers leave."""
    chain = net.chain
    scale = max((largest(p.gradient()) for p in chain.gradients), default=0.0)
    fits = all(is_array(a) and a.shape == np.shape(net.x) for a in (chain.result, heard.result))
    of_x = [[noted("x", net.x, run.result)] if fits else [] for run in (heard, chain)]
    return beside(heard.gradients + of_x[0], chain.gradients + of_x[1], scale)


def _skipped(chain: Pass, passes: Sequence[Pass]) -> list[str]:
    """Return the layers with parameters whose backward is left out, if any gradient is missing."""
    wanted = {id(p.value) for p in chain.gradients}
    if any(wanted <= {id(p.value) for p in heard.gradients} for heard in passes):
        return []
    return _never_called(passes[0], chain)[::-1]


def _never_called(heard: Pass, chain: Pass) -> list[str]:
    """Return the layers with parameters whose backward is left out, from the last one on."""
    ran = {call.name for call in heard.backward}
    return [c.name for c in chain.backward[1:] if c.after and c.name not in ran] if ran else []


def same_inputs(one: Pass, other: Pass) -> bool:
    """Tell whether two passes first run the layers that both run on the same inputs."""
    here, there = one.first_inputs(), other.first_inputs()
    pairs = [(array, there[key]) for key, array in here.items() if key in there]
    return all(close(ours, theirs, 1e-6) for ours, theirs in pairs)


# -------------------- why they are others --------------------


def _explained(net: Network, run: Pass, rows: Sequence[Row]) -> list[Row]:
    """Return the wrong rows with why and where."""
    misgiven = _misgiven(run, net.chain)
    reasons = {} if misgiven else _reasons(net, run, rows)
    explained = []
    for row in wrong(rows):
        why, lines = misgiven or reasons[row.name]
        fields = {"method": net.label(run), "returned": run.is_returned, "why": why}
        rule = next((one.rule for one in why if one.rule is not None), None)
        said = found("other_than_layers", rule=rule, **fields)
        shown = tuple(dict.fromkeys(filter(is_readable, lines)))[:3]
        explained.append(replace(row, name=f"network.{row.name}", findings=(said,), lines=shown))
    return explained


def _reasons(net: Network, run: Pass, rows: Sequence[Row]) -> dict[str, Reason]:
    """Return why gradients are wrong: by the numbers alone, else by the network's own loss."""
    # Where a layer is wrong as well, only the numbers tell the mistake of the network itself.
    known = _by_numbers(run, rows, min(net.deadline.left / 2, 1.0))
    reasons = {row.name: row for row in wrong(rows)}
    if reasons.keys() - known.keys():
        by_loss = {row.name: row for row in _against_loss(net, run).rows}
        reasons = {name: by_loss.get(f"network.{name}", row) for name, row in reasons.items()}
    for row in rows:
        if row.name in known:
            reasons[row.name] = replace(row, findings=together(row.findings, known[row.name]))
    method = getattr(net.object, run.way.method)
    return {n: (row.findings, (*_places(method, n), *row.lines)) for n, row in reasons.items()}


def _by_numbers(run: Pass, rows: Sequence[Row], budget: float) -> dict[str, Finding]:
    """Return what the numbers tell of wrong gradients beside those of the layers."""
    said: dict[str, Finding] = {}
    with guarded("the search for why", []):
        for reason in diagnose(_case(run, rows, budget)):
            names = [rows[k].name for k in reason.rows if reason.rule != "part"]
            said |= dict.fromkeys(names, reason.finding)
    return said


def _case(run: Pass, rows: Sequence[Row], budget: float) -> Case:
    """Return what the diagnosis has to go on: numbers alone."""
    values = {p.name: p.value for p in run.gradients}
    return Case(
        names=[row.name for row in rows],
        values=[values.get(row.name, np.zeros(row.shape)) for row in rows],
        automatic=[np.asarray(row.automatic, dtype=float) for row in rows],
        handwritten=[row.handwritten for row in rows],
        wrong=[k for k, row in enumerate(rows) if row.verdict in FAILURES],
        tolerance=max(precision(row.automatic) for row in rows),
        floors=[1e-12 * max(row.scale for row in rows)] * len(rows),
        graph=None,
        upstream=[np.ones(())],
        again=None,
        deadline=Deadline.after(budget),
    )


def _places(method: object, label: str) -> tuple[Place, ...]:
    """Return the lines of a method that name a parameter, else its last one."""
    text = text_of(method)
    if text is None or not text.steps:
        return ()
    nodes = [node for step in text.steps for node in ast.walk(step.node)]
    constants = [node for node in nodes if isinstance(node, ast.Constant)]
    named = [(text.file, n.lineno) for n in constants if str(n.value) in (label, f"d{label}")]
    return tuple(dict.fromkeys(named))[-2:] or (text.place(text.steps[-1]),)


# -------------------- where its way back goes wrong --------------------


def _misgiven(heard: Pass, chain: Pass) -> Reason | None:
    """Return which layer an own backward pass first gives another gradient, and where, if known."""
    order = [call.name for call in chain.backward]
    if not order or len({id(call.layer) for call in chain.forward}) < len(chain.forward):
        return None
    for i, ran in enumerate(heard.backward):
        wrong = _how_given(ran, chain.backward[: order.index(ran.name) + 1])
        if wrong is not None:
            return [wrong], [call.place for call in heard.backward[max(0, i - 1) : i + 1]]
    for name in _never_called(heard, chain)[:1]:
        return [found("never_called", name=name)], [heard.backward[-1].place]
    return None


def _same(ours: object, theirs: object) -> bool:
    if ours is None or theirs is None or np.asarray(ours).dtype.kind not in "fiub":
        return ours is theirs
    tolerance = precision(theirs)
    return close(ours, theirs, tolerance, 1e-3 * tolerance * largest(np.asarray(theirs)))


def _how_given(ran: Call, back: Sequence[Call]) -> Finding | None:
    """Return what the last layer on a way back is given in place of its upstream gradient."""
    if len(back) == 1:  # the loss layer: it may be given anything with which it returns the same
        is_same = ran.result is None or _same(ran.result, back[0].result)
        given = [described(argument) for argument in ran.arguments]
        return None if is_same else found("loss_misgiven", given=given)
    (given,), (true,) = ran.arguments[:1], back[-1].arguments
    if _same(given, true):
        return None
    # What one returns is what the next one on the way back is given.
    same = [one.name for one, after in pairwise(back[:-1]) if _same(given, after.arguments[0])]
    return found(
        "misgiven",
        name=back[-1].name,
        wanted=back[-2].name,
        given=same[-1:],
        factor=None if same else _factor(given, np.asarray(true, dtype=float)),
    )


def _factor(given: Any, true: Array) -> float | None:
    """Return by what a gradient is multiplied, if it is."""
    norm = float(np.sum(true * true))
    if np.shape(given) != true.shape or norm == 0 or true.size < 2:
        return None
    factor = float(np.sum(np.asarray(given) * true)) / norm
    return factor if _same(given, factor * true) else None


def _raised(net: Network, run: Pass, chain: Pass) -> Finding:
    """Return what is said of an own pass that raises: where the way back goes wrong, if known."""
    error, is_sure = f"{type(run.error).__name__}: {run.error}", run.way.is_sure
    why, lines = (_misgiven(run, chain) if is_sure else None) or ([], [])
    places = [place_text(place) for place in dict.fromkeys(lines) if is_readable(place)]
    said = {"method": net.label(run), "error": error, "is_sure": is_sure}
    return found("own_raised", why=why, places=places, **said)


# -------------------- as a whole --------------------


def check_whole(net: Network, share: float = 0.5) -> Own:
    """Check a network by its own loss, whatever its layers do, in a share of the time left."""
    own = Own(differs=True)
    for loss in net.losses[:1]:
        own.heard = loss
        steps = [*net.loss_names, *STEPS]
        for group in ways(net.object, net.loss_names[:1], net.x, net.t, None, steps):
            if not group or own.report is not None:
                continue
            run = next((run for run in map(net.run, group) if run.error is None), None)
            run = run or net.run(group[0])
            if run.way.method in steps and not (run.is_returned or run.updates):
                continue
            if run.error is None:
                before, own = own, _against_loss(net, run, share)
                own.remarks, own.faults = before.remarks + own.remarks, before.faults + own.faults
            elif run.way.is_sure:
                own.faults.append(_raised(net, run, Pass()))
    return own


def _against_loss(net: Network, run: Pass, share: float = 0.5) -> Own:
    """Check what a method gives as the gradients of the loss, unless the two run other passes."""
    own, is_layer = Own(differs=True, heard=run), net.is_run_as_layer(run.way)
    budget = share * net.deadline.left  # the rest is for the layers
    for loss in net.losses[:1] if not is_layer else ():
        if not same_inputs(run, loss):  # it is right as far as can be told
            said = found("other_pass", method=net.label(run), than=net.label(loss))
            return replace(own, is_right=True, remarks=[said])
    try:
        with net.session.fresh():
            report = (_as_layer if is_layer else _by_loss)(net, run, budget)
    except CheckError as error:
        return replace(own, remarks=[found("not_as_a_whole", error=str(error))])
    finally:
        net.session.restore()
    if report is None:
        return own
    return replace(
        own,
        report=report,
        is_right=report.ok,
        rows=[replace(row, name=f"network.{row.name}") for row in report.rows],
        faults=[found("of_network", what=fault) for fault in report.faults],
        remarks=[found("of_network", what=remark) for remark in report.remarks],
    )


def _as_layer(net: Network, run: Pass, budget: float) -> GradientReport:
    """Check a network's own forward and backward pass as those of a layer."""
    (_, data), (_, given) = run.way.calls[0], run.way.calls[-1]
    up = given[0] if given else None
    return check_layer(net.object, *data, upstream=up, budget=budget, **net.given)


def _by_loss(net: Network, run: Pass, budget: float) -> GradientReport | None:
    """Check the gradients that a network lists against its own loss, if it has both."""
    if not net.losses or not (run.gradients or run.updates):
        return None
    title = net.label(net.losses[0])
    with untouched(net.object, net.x, net.t) as session, answerable(title):
        subject = OwnLoss(net, run, Terms(session, automatic=gradients_of)).subject()
        return course(title, subject, How.of(budget=budget, **net.given))
