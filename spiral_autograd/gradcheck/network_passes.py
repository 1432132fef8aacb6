"""A network's own passes, beside those of its layers one after another, or against its own loss."""

from __future__ import annotations

import ast
import copy
import inspect
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import pairwise
from typing import Any

import numpy as np

from ..validation import Array, Random
from .blocks import close, largest
from .checks import check_gradient, check_layer
from .finding import Finding, found
from .guard import CheckError, Deadline
from .reference.reference import SHARPNESS
from .report import GradientReport, place_text
from .source import Place, is_readable, text_of
from .subject.conventions import BACKWARD, FORWARD, method_name
from .subject.network import Call, Network, Pass, is_plain, precision
from .subject.own_passes import Listed, Way, gradient_in, number_in, run_method, ways
from .subject.session import same_states
from .subject.subject import described
from .verdict.rows import FAILURES, Row, compare

Misgiven = tuple[Sequence[Finding], Sequence[Place]]  # what is wrong on the way back, and where


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


def check_own(net: Network, chain: Pass, rng: Random, deadline: Deadline) -> Own:
    """Run a network's own passes, and compare them with the chain of its layers.

    Where there is no chain, or it gives another loss, the network is checked as a whole.
    """
    if is_plain(net.object):
        return Own()
    if chain.error is None and _same_loss(net, chain):
        own = Own()
        for group in ways(net.object, list(net.losses), net.x, net.t, chain.backward[0].result):
            if group and chain.is_whole and not own.rows and not own.faults:
                _beside_layers(net, chain, group, rng, deadline, own)
        return own
    own = check_whole(net, rng, deadline)
    if chain.error is None:
        name, ours = next((net.label(n), float(heard.result)) for n, heard in net.losses.items())
        theirs = float(number_in(chain.forward[-1].result))
        own.remarks.insert(0, found("no_chain", loss=name, ours=ours, theirs=theirs))
    elif net.is_chain:
        own.remarks.insert(0, found("no_chain_runs", error=str(chain.error)))
    return own


def _same_loss(net: Network, chain: Pass) -> bool:
    """Tell whether the first loss is that of the layers one after another, if both are known."""
    true = number_in(chain.forward[-1].result)
    for heard in list(net.losses.values())[:1] if true is not None else ():
        tolerance = precision(heard.result, true)
        return close(heard.result, true, tolerance, 1e-8 * tolerance)
    return True


# -------------------- its gradients, beside those of the layers --------------------


def _beside_layers(
    net: Network, chain: Pass, group: Sequence[Way], rng: Random, deadline: Deadline, own: Own
) -> None:
    """Compare the gradients that a method returns or leaves with those of the layers."""
    runs = [(way, net.heard(partial(way.run, net.object))) for way in group]
    ran = [(way, heard) for way, heard in runs if heard.error is None]
    way, heard = (ran or runs)[0]
    method = net.label(way.method)
    wrong = [_wrong_rows(net, chain, heard) for _, heard in ran]
    if not ran:
        said = own.faults if way.is_sure else own.remarks
        said.append(_raised(method, heard, chain, is_sure=way.is_sure))
    elif not all(wrong):
        skipped = _skipped(chain, [heard for _, heard in ran])
        own.faults += [found("skipped", method=method, name=name) for name in skipped]
        own.is_right = not skipped
    elif same_states(heard.streams, chain.streams) and same_inputs(heard, chain):
        own.rows += _explained(net, chain, way, heard, wrong[0], rng, deadline.left / 2)
    else:
        own.remarks.append(found("other_pass", method=method, than="the layers one after another"))


def _explained(
    net: Network,
    chain: Pass,
    way: Way,
    heard: Pass,
    rows: Sequence[Row],
    rng: Random,
    budget: float,
) -> list[Row]:
    """Return wrong rows, with why and where: by the way back, else by the network's own loss."""
    misgiven = _misgiven(heard, chain)
    whole = Own() if misgiven else against_loss(net, way, heard, rng, budget)
    reasons = {row.name: row for row in whole.rows}
    explained = []
    for row in rows:
        there = reasons.get(f"network.{row.name}", row)
        places = _places(getattr(net.object, way.method), row.name)
        why, lines = misgiven or (there.findings, (*places, *there.lines))
        said = found(
            "other_than_layers",
            method=net.label(way.method),
            returned=heard.is_returned,
            why=why,
            rule=next((one.rule for one in why if one.rule is not None), None),
        )
        shown = tuple(dict.fromkeys(filter(is_readable, lines)))[:3]
        explained.append(replace(row, name=f"network.{row.name}", findings=(said,), lines=shown))
    return explained


def _places(method: Any, label: str) -> tuple[Place, ...]:
    """Return the lines of a method that name a parameter, else its last one."""
    text = text_of(method)
    if text is None or not text.steps:
        return ()
    named = [
        (text.file, node.lineno)
        for step in text.steps
        for node in ast.walk(step.node)
        if isinstance(node, ast.Constant) and str(node.value) in (label, f"d{label}")
    ]
    return tuple(dict.fromkeys(named))[-2:] or (text.place(text.steps[-1]),)


def _pairs(net: Network, chain: Pass, heard: Pass) -> list[tuple[Listed, Any]]:
    """Return the network's own gradients, each with that which the layers leave."""
    labels = {entry.label: entry.gradient for entry in chain.gradients}
    pairs = [(e, gradient_in(chain.gradients, e.value)) for e in heard.gradients]
    pairs = [(e, labels.get(e.label) if true is None else true) for e, true in pairs]
    dx = chain.backward[-1].result
    if all(isinstance(a, np.ndarray) and a.shape == np.shape(net.x) for a in (dx, heard.result)):
        pairs.append((Listed("x", net.x, heard.result), dx))
    return [(entry, true) for entry, true in pairs if true is not None]


def _wrong_rows(net: Network, chain: Pass, heard: Pass) -> list[Row]:
    """Return a row for each gradient that is another than the layers' own."""
    scale = max((largest(entry.gradient) for entry in chain.gradients), default=0.0)
    rows = []
    for entry, true in _pairs(net, chain, heard):
        sharp = SHARPNESS["autograd", precision(true) > 1e-6]
        floor = 1e-3 * precision(true) * scale
        rows.append(compare(entry.label, entry.gradient, true, sharp, floor))
    return [row for row in rows if row.verdict in FAILURES]


def _skipped(chain: Pass, passes: Sequence[Pass]) -> list[str]:
    """Return the layers with parameters whose backward is left out, if any gradient is missing."""
    wanted = {id(entry.value) for entry in chain.gradients}
    ran = {call.name for call in passes[0].backward}
    if not ran or any(wanted <= {id(entry.value) for entry in p.gradients} for p in passes):
        return []
    return [c.name for c in reversed(chain.backward[1:]) if c.after and c.name not in ran]


def same_inputs(one: Pass, other: Pass) -> bool:
    """Tell whether two passes first run the layers that both run on the same inputs."""
    there = {id(call.layer): call.arguments for call in reversed(other.forward)}
    here = {id(call.layer): call.arguments for call in reversed(one.forward)}
    pairs = [(here[key], there[key]) for key in here.keys() & there.keys()]
    return all(
        close(a, b, 1e-6)
        for ours, theirs in pairs
        for a, b in zip(ours, theirs, strict=False)
        if isinstance(a, np.ndarray) and a.dtype.kind == "f"
    )


# -------------------- where its way back goes wrong --------------------


def _misgiven(heard: Pass, chain: Pass) -> Misgiven | None:
    """Return the first layer that a network's own backward pass gives another gradient, and where.

    None where each is given what the next one returned, or where that cannot be told.
    """
    order = [call.name for call in chain.backward]
    if not order or len({id(call.layer) for call in chain.forward}) < len(chain.forward):
        return None
    last: tuple[Place, ...] = ()
    for ran in heard.backward:
        back = chain.backward[: order.index(ran.name) + 1]
        wrong = _loss_misgiven(ran, back[0]) if len(back) == 1 else _how_given(ran, back)
        if wrong is not None:
            places = (ran.place,) if len(back) == 1 else (*last, ran.place)
            return [wrong], places
        last = (ran.place,)
    names = {ran.name for ran in heard.backward}
    skipped = [c.name for c in chain.backward if c.after and c.name not in names]
    return ([found("never_called", name=skipped[0])], last) if skipped and names else None


def _same(ours: Any, theirs: Any) -> bool:
    if ours is None or theirs is None or np.asarray(ours).dtype.kind not in "fiub":
        return ours is theirs
    tolerance = precision(theirs)
    return close(ours, theirs, tolerance, 1e-3 * tolerance * largest(np.asarray(theirs)))


def _loss_misgiven(ran: Call, true: Call) -> Finding | None:
    """Return with what the loss layer's backward pass is called, where it returns another."""
    if ran.result is None or _same(ran.result, true.result):
        return None
    return found("loss_misgiven", given=[described(argument) for argument in ran.arguments])


def _how_given(ran: Call, back: Sequence[Call]) -> Finding | None:
    """Return what the last layer on a way back is given in place of its upstream gradient."""
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


def _raised(method: str, heard: Pass, chain: Pass, *, is_sure: bool = True) -> Finding:
    """Return what is said of an own pass that raises: where the way back goes wrong, if known."""
    error = f"{type(heard.error).__name__}: {heard.error}"
    why, lines = (_misgiven(heard, chain) if is_sure else None) or ([], [])
    places = [place_text(place) for place in dict.fromkeys(lines) if is_readable(place)]
    return found("own_raised", method=method, error=error, why=why, places=places, is_sure=is_sure)


# -------------------- as a whole --------------------


def check_whole(net: Network, rng: Random, deadline: Deadline) -> Own:
    """Check a network by its own loss, whatever its layers do."""
    first = list(net.losses)[:1]
    own = Own(differs=True, heard=net.losses[first[0]] if first else Pass())
    for group in ways(net.object, first, net.x, net.t, None) if first else ():
        for way in group[:1]:
            heard = net.heard(partial(way.run, net.object))
            if heard.error is None:  # the other half of the time is for the layers
                whole = against_loss(net, way, heard, rng, deadline.left / 2)
                remarks, faults = own.remarks + whole.remarks, own.faults + whole.faults
                own = replace(whole, remarks=remarks, faults=faults)
            elif way.is_sure:
                own.faults.append(_raised(net.label(way.method), heard, Pass()))
            if own.report is not None:
                return own
    return own


def against_loss(net: Network, way: Way, heard: Pass, rng: Random, budget: float) -> Own:
    """Check what a method gives as the gradients of the loss, unless the two run other passes."""
    own = Own(differs=True, heard=heard)
    loss, before = next(iter(net.losses.items()), ("", heard))
    (first, data), (_, given) = way.calls[0], way.calls[-1]
    names = method_name(net.object, FORWARD), method_name(net.object, BACKWARD)
    up = given[0] if len(data) == 1 and given else None
    try:
        with net.session.fresh():
            if names == (first, way.method) and (up is not None or not given):
                report = check_layer(net.object, *data, upstream=up, rng=rng, budget=budget)
            elif not same_inputs(heard, before):
                own.is_right = True  # as far as can be told
                own.remarks.append(
                    found("other_pass", method=net.label(way.method), than=net.label(loss))
                )
                return own
            elif loss and heard.gradients:
                report = _by_loss(net, loss, way, heard.gradients, rng, budget)
            else:
                return own
    except CheckError as error:
        own.remarks.append(found("not_as_a_whole", error=str(error)))
        return own
    finally:
        net.session.restore()
    own.report, own.is_right = report, report.ok
    own.rows = [replace(row, name=f"network.{row.name}") for row in report.rows]
    own.faults = [found("of_network", what=fault) for fault in report.faults]
    own.remarks = [found("of_network", what=remark) for remark in report.remarks]
    return own


def _by_loss(
    net: Network, loss: str, way: Way, listed: Sequence[Listed], rng: Random, budget: float
) -> GradientReport:
    """Check the gradients that a network lists against its own loss."""
    held = {entry.label: entry.value for entry in listed}
    shared = {id(module): module for module in sys.modules.values()}

    def value(params: dict[str, Any], x: Any, t: Any) -> Any:
        if all(params[name] is array for name, array in held.items()):
            return number_in(run_method(net.object, loss, x, t))
        memo = shared | {id(held[name]): array for name, array in params.items()}
        result = run_method(copy.deepcopy(net.object, memo), loss, x, t)
        return result[0] if isinstance(result, tuple) else result

    def gradient(params: dict[str, Any], x: Any, t: Any) -> Any:
        gradients, _ = net.gradients(way.run(net.object))
        return {entry.label: entry.gradient for entry in gradients}

    for function, method in ((value, loss), (gradient, way.method)):
        function.__signature__ = inspect.signature(function)  # type: ignore[attr-defined]
        function.__wrapped__ = getattr(net.object, method)  # type: ignore[attr-defined]
        function.__name__ = net.label(method)
    return check_gradient(value, gradient, held, net.x, net.t, rng=rng, budget=budget)
