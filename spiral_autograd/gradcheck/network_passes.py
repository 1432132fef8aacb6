"""A network's own passes, beside those of its layers one after another, or against its own loss."""

from __future__ import annotations

import ast
import copy
import inspect
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import pairwise
from typing import Any

import numpy as np

from ..validation import Array, Random
from .blocks import close, largest
from .checks import check_gradient, check_layer
from .diagnosis.case import Case
from .diagnosis.diagnose import diagnose
from .finding import Finding, Said, as_finding, found
from .guard import CheckError, Deadline, guarded
from .reference.reference import SHARPNESS
from .report import GradientReport, place_text
from .source import Place, is_readable, text_of
from .subject.conventions import BACKWARD, FORWARD, accepts, method_name
from .subject.network import Call, Network, Pass, is_plain, precision
from .subject.own_passes import Listed, Way, call, gradient_in, loss_methods, number_in, ways
from .subject.session import same_states
from .subject.subject import described
from .verdict.rows import FAILURES, Row, compare

Misgiven = tuple[Finding, tuple[Place, ...]]


@dataclass
class Own:
    """What a network's own passes have shown."""

    rows: list[Row] = field(default_factory=list)  # the wrong ones; as a whole: all
    remarks: list[Said] = field(default_factory=list)
    faults: list[Said] = field(default_factory=list)
    is_right: bool = False  # its gradients are those of its layers, or of its own loss
    differs: bool = False  # it computes something else than its layers one after another
    report: GradientReport | None = None  # the check of it as a whole
    heard: Pass = field(default_factory=Pass)  # what its layers are given then


def check_own(net: Network, chain: Pass, rng: Random, deadline: Deadline) -> Own:
    """Run a network's own passes, and compare them with the chain of its layers.

    Where there is no chain, or it gives another loss, the network is checked as a whole.
    """
    own = Own()
    if is_plain(net.object):
        return own
    losses = losses_of(net)
    if chain.error is None and _same_loss(losses, chain):
        for group in ways(net.object, list(losses), net.x, net.t, chain.backward[0].result):
            if group and chain.is_whole and not own.rows and not own.faults:
                _beside_layers(net, chain, group, own)
        return own
    own.differs = True
    if chain.error is None:
        name, ours = next(
            (_label(net, name), float(heard.result)) for name, heard in losses.items()
        )
        theirs = float(number_in(chain.forward[-1].result))
        own.remarks.append(found("no_chain", loss=name, ours=ours, theirs=theirs))
    elif net.is_chain:
        own.remarks.append(found("no_chain_runs", error=str(chain.error)))
    check_whole(net, losses, rng, deadline, own)
    return own


def losses_of(net: Network) -> dict[str, Pass]:
    """Run each method of a network that may give its loss; return those that do."""
    runs = {name: net.heard(partial(_loss, net, name)) for name in loss_methods(net.object)}
    return {name: heard for name, heard in runs.items() if heard.result is not None}


def _loss(net: Network, name: str) -> Any:
    return number_in(call(net.object, name, net.x, net.t))


def _same_loss(losses: Mapping[str, Pass], chain: Pass) -> bool:
    """Tell whether the first loss is that of the layers one after another, if both are known."""
    true = number_in(chain.forward[-1].result)
    for heard in list(losses.values())[:1] if true is not None else ():
        tolerance = precision(heard.result, true)
        return close(heard.result, true, tolerance, 1e-8 * tolerance)
    return True


# -------------------- its gradients, beside those of the layers --------------------


def _beside_layers(net: Network, chain: Pass, group: Sequence[Way], own: Own) -> None:
    """Compare the gradients that a method returns or leaves with those of the layers."""
    runs = [(way, net.heard(partial(way.run, net.object))) for way in group]
    ran = [(way, heard) for way, heard in runs if heard.error is None]
    way, heard = (ran or runs)[0]
    method = _label(net, way.method)
    wrong = [_wrong_rows(net, chain, heard) for _, heard in ran]
    if not ran:
        said = own.faults if way.is_sure else own.remarks
        said.append(_raised(method, heard, chain if way.is_sure else None, is_sure=way.is_sure))
    elif not all(wrong):
        skipped = _skipped(chain, [heard for _, heard in ran])
        own.faults += [found("skipped", method=method, name=name) for name in skipped]
        own.is_right = not skipped
    elif same_states(heard.streams, chain.streams) and same_inputs(heard, chain):
        own.rows += _explained(net, chain, way, heard, wrong[0], own.remarks)
    else:
        own.remarks.append(found("other_pass", method=method, than="the layers one after another"))


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
    if len({id(call.layer) for call in chain.forward}) < len(chain.forward):
        return None
    last: tuple[Place, ...] = ()
    for ran in heard.backward:
        back = chain.backward[: order.index(ran.name) + 1]
        wrong = _loss_misgiven(ran, back[0]) if len(back) == 1 else _how_given(ran, back)
        if wrong is not None:
            places = (ran.place,) if len(back) == 1 else (*last, ran.place)
            return wrong, tuple(dict.fromkeys(places))
        last = (ran.place,)
    names = {ran.name for ran in heard.backward}
    skipped = [c.name for c in chain.backward if c.after and c.name not in names]
    return (found("never_called", name=skipped[0]), last) if skipped and names else None


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


def _raised(method: str, heard: Pass, chain: Pass | None, *, is_sure: bool = True) -> Finding:
    """Return what is said of an own pass that raises: where the way back goes wrong, if known."""
    error = f"{type(heard.error).__name__}: {heard.error}"
    why, lines = (_misgiven(heard, chain) if chain is not None else None) or (None, ())
    places = [place_text(place) for place in lines if is_readable(place)]
    return found("own_raised", method=method, error=error, why=why, places=places, is_sure=is_sure)


def _explained(
    net: Network, chain: Pass, way: Way, heard: Pass, rows: Sequence[Row], remarks: list[Said]
) -> list[Row]:
    """Return wrong rows, with why and where."""
    said = {"method": _label(net, way.method), "verb": "returns" if heard.is_returned else "leaves"}
    misgiven = _misgiven(heard, chain)
    reasons = {} if misgiven else _reasons(_pairs(net, chain, heard), rows, remarks)
    explained = []
    for row in rows:
        places = _places(getattr(net.object, way.method), row.name)
        why, lines = misgiven or (reasons.get(row.name), places)
        whole = found(
            "other_than_layers",
            **said,
            why=row.findings if why is None else [why],
            rule=row.rule if why is None else why.rule,
        )
        lines = tuple(filter(is_readable, lines))
        explained.append(replace(row, name=f"network.{row.name}", findings=(whole,), lines=lines))
    return explained


def _reasons(
    pairs: Sequence[tuple[Listed, Any]], rows: Sequence[Row], remarks: list[Said]
) -> dict[str, Finding]:
    """Return what the numbers alone tell about wrong gradients, by name."""
    names = [entry.label for entry, _ in pairs]
    bad = {row.name for row in rows}
    scale = max((largest(true) for _, true in pairs), default=0.0)
    case = Case(
        names=names,
        values=[entry.value for entry, _ in pairs],
        automatic=[np.asarray(true, dtype=float) for _, true in pairs],
        handwritten=[entry.gradient for entry, _ in pairs],
        wrong=[k for k, name in enumerate(names) if name in bad],
        tolerance=max(precision(true) for _, true in pairs),
        floors=[1e-12 * scale] * len(pairs),
        graph=None,
        upstream=[np.ones(())],
        again=None,
        is_loss=True,
        deadline=Deadline.after(1.0),
    )
    reasons: list[Any] = []
    with guarded("the search for why", remarks):
        reasons = diagnose(case)
    return {names[k]: found("text", text=r.text, rule=r.rule) for r in reasons for k in r.rows}


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


# -------------------- as a whole --------------------


def check_whole(
    net: Network, losses: Mapping[str, Pass], rng: Random, deadline: Deadline, own: Own
) -> None:
    """Check a network by its own loss, whatever its layers do."""
    if not losses:
        return
    loss, own.heard = next(iter(losses.items()))
    for group in ways(net.object, [loss], net.x, net.t, None):
        for way in group[:1]:
            heard = net.heard(partial(way.run, net.object))
            if heard.error is not None:
                own.faults += [_raised(_label(net, way.method), heard, None)] * way.is_sure
                continue
            own.heard = heard
            # The other half of the time is for the layers.
            _check_by(net, loss, way, losses[loss], rng, deadline.left / 2, own)
            if own.report is not None:
                return


def is_right_as_a_whole(net: Network, rng: Random) -> bool:
    """Tell whether a network's own gradients are those of its own loss, whatever its layers do."""
    whole = Own()
    if not is_plain(net.object):
        check_whole(net, losses_of(net), rng, Deadline.after(0.0), whole)
    return whole.report is not None and whole.report.ok


def _check_by(
    net: Network, loss: str, way: Way, before: Pass, rng: Random, budget: float, own: Own
) -> None:
    """Check what a method gives as the gradients of a loss, unless the two run other passes."""
    names = method_name(net.object, FORWARD), method_name(net.object, BACKWARD)
    try:
        with net.session.fresh():
            if names == (loss, way.method) and accepts(getattr(net.object, way.method), 0):
                report = check_layer(net.object, net.x, net.t, rng=rng, budget=budget)
            elif not same_inputs(own.heard, before):
                own.is_right = True  # as far as can be told
                than = _label(net, loss)
                own.remarks.append(found("other_pass", method=_label(net, way.method), than=than))
                return
            elif own.heard.gradients:
                report = _by_loss(net, loss, way, own.heard.gradients, rng, budget)
            else:
                return
    except CheckError as error:
        own.remarks.append(found("not_as_a_whole", error=str(error)))
        return
    finally:
        net.session.restore()
    own.report, own.is_right = report, report.ok
    own.rows = [replace(row, name=f"network.{row.name}") for row in report.rows]
    own.faults += [found("of_network", what=as_finding(fault)) for fault in report.faults]
    own.remarks += [found("of_network", what=as_finding(remark)) for remark in report.remarks]


def _by_loss(
    net: Network, loss: str, way: Way, listed: Sequence[Listed], rng: Random, budget: float
) -> GradientReport:
    """Check the gradients that a network lists against its own loss."""
    held = {entry.label: entry.value for entry in listed}
    shared = {id(module): module for module in sys.modules.values()}

    def value(params: dict[str, Any], x: Any, t: Any) -> Any:
        if all(params[name] is array for name, array in held.items()):
            return number_in(call(net.object, loss, x, t))
        memo = shared | {id(held[name]): array for name, array in params.items()}
        other = copy.deepcopy(net.object, memo)
        result = call(other, loss, x, t)
        return result[0] if isinstance(result, tuple) else result

    def gradient(params: dict[str, Any], x: Any, t: Any) -> Any:
        gradients, _ = net.gradients(way.run(net.object))
        return {entry.label: entry.gradient for entry in gradients}

    for function, method in ((value, loss), (gradient, way.method)):
        function.__signature__ = inspect.signature(function)  # type: ignore[attr-defined]
        function.__wrapped__ = getattr(net.object, method)  # type: ignore[attr-defined]
        function.__name__ = _label(net, method)
    return check_gradient(value, gradient, held, net.x, net.t, rng=rng, budget=budget)


def _label(net: Network, method: str) -> str:
    return f"{type(net.object).__name__}.{method}"
