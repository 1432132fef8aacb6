"""A network's own passes against those of its layers: the loss, and the gradients."""

from __future__ import annotations

import ast
import copy
import inspect
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from ...pytree import Sharing
from ...validation import Array, Random
from ..blocks import largest
from ..checks import check_gradient, check_layer
from ..diagnosis.case import Case, Reason
from ..diagnosis.search import diagnose
from ..finding import Said
from ..finding import found as saying
from ..guard import Deadline, guarded, theirs
from ..reference.rebind import adopt
from ..reference.reference import SHARPNESS
from ..report import GradientReport, place_text
from ..source import Place, is_readable, text_of
from ..subject.chain import Chain, Listed, Named, left_in, precision, totals
from ..subject.conventions import BACKWARD, FORWARD, accepts, method_name
from ..subject.session import Session, same_states
from ..subject.subject import CheckError
from ..verdict.rows import FAILURES, Row, compare
from ..words import sentence
from .own_passes import (
    Outcome,
    Way,
    call,
    listed_by,
    loss_methods,
    number_of,
    outcome_of,
    ways,
)
from .spy import Heard, listening, misgiven, ran_otherwise, same_forward

Runs = dict[str, tuple[Any, list[Heard]]]  # what each method that may give the loss has given


@dataclass
class OwnPasses:
    """What a network's own passes have shown.

    Attributes
    ----------
    rows : list of Row
        Those that are wrong.
    notes, failures : lists of Finding
    differs : bool
        Whether the network computes something else than the chain of its layers.
    heard : list of Heard
        What the layers were given in the network's own passes.
    """

    rows: list[Row] = field(default_factory=list)
    notes: list[Said] = field(default_factory=list)
    failures: list[Said] = field(default_factory=list)
    is_right: bool = False
    differs: bool = False
    report: GradientReport | None = None
    heard: list[Heard] = field(default_factory=list)


@dataclass
class Network:
    """A network with what its own passes are run with."""

    object: Any
    named: Named  # the layers, the loss layer among them
    session: Session
    x: Any
    t: Any

    @property
    def title(self) -> str:
        """What its class is called."""
        return type(self.object).__name__

    def loss(self, name: str) -> tuple[Any, list[Heard]]:
        """Run one of its methods; return the loss, None where there is none, and what was heard."""
        with self.session.fresh(), listening(self.named) as heard:
            try:
                with theirs():
                    found = number_of(call(self.object, name, self.x, self.t))
            except CheckError:
                found = None
        self.session.restore()
        return found, heard


def compare_own(
    network: Network, chain: Chain | None, rng: Random, deadline: Deadline
) -> OwnPasses:
    """Run the network's own passes, and compare them with the chain of its layers.

    Where the network computes another loss than the chain, it is checked as a whole.
    """
    found = OwnPasses()
    runs = {name: network.loss(name) for name in loss_methods(network.object)}
    losses = [name for name, (value, _) in runs.items() if value is not None]
    if chain is None or (losses and not _same_loss(runs[losses[0]][0], chain.loss)):
        found.differs = True
        if chain is not None:
            found.notes.append(_unlike(network, losses[0], runs[losses[0]][0], chain))
        _as_a_whole(network, runs, rng, deadline, found)
        return found
    up = chain.steps[-1].returned
    for group in ways(network.object, losses, network.x, network.t, up):
        if group and chain.is_whole and not found.rows and not found.failures:
            _against_layers(network, chain, group, found)
    return found


def _unlike(network: Network, loss: str, value: Any, chain: Chain) -> str:
    return (
        f"{network.title}.{loss} gives the loss {float(value):.6g}, and the layers one after "
        f"another give {float(number_of(chain.loss)):.6g}: the network is more than the chain of "
        "its layers (network. is before the name of what is checked of the whole)"
    )


def _same_loss(ours: Any, theirs: Any) -> bool:
    wanted = number_of(theirs)
    if wanted is None:
        return True
    return bool(abs(ours - wanted) <= precision(ours, wanted) * max(abs(ours), abs(wanted), 1e-8))


# -------------------- the gradients, against those of the layers --------------------


def _against_layers(network: Network, chain: Chain, group: list[Way], found: OwnPasses) -> None:
    """Compare the gradients that a method leaves with those that the chain does."""
    outcomes = [outcome_of(way, network.object, network.named, network.session) for way in group]
    ran = [
        (way, outcome) for way, outcome in zip(group, outcomes, strict=True) if not outcome.error
    ]
    if not ran:
        way, outcome = group[0], outcomes[0]
        if way.is_sure:
            found.failures.append(_raised(network, way, outcome, chain))
        else:
            found.notes.append(
                f"{network.title}.{way.method} raised {type(outcome.error).__name__}: "
                f"{outcome.error}; the network's own backward pass is not checked"
            )
        return
    way, outcome = ran[0]
    if not all(_mismatches(network, chain, outcome) for _, outcome in ran):
        skipped = [] if any(_is_complete(chain, o) for _, o in ran) else skipped_by(outcome, chain)
        found.failures += [
            f"{network.title}.{way.method} never calls {name}.backward: its parameters get no "
            "gradient there"
            for name in skipped
        ]
        found.is_right = not skipped
        return
    if not same_states(outcome.streams, chain.streams):
        found.notes.append(
            f"{network.title}.{way.method} draws other random numbers than the layers one after "
            "another: its gradients are not compared"
        )
        return
    if ran_otherwise(outcome.heard, chain):
        found.notes.append(
            f"{network.title}.{way.method} runs another forward pass than the layers one after "
            "another (with other options?): its gradients are not compared"
        )
        return
    found.rows += _rows(network, chain, way, outcome, found.notes)


def _is_complete(chain: Chain, outcome: Outcome) -> bool:
    """Tell whether a pass has left a gradient for each parameter for which the layers do."""
    there = {id(entry.value) for entry in outcome.listed}
    return all(id(entry.value) in there for entry in chain.left)


def skipped_by(outcome: Outcome, chain: Chain) -> list[str]:
    """Return the layers with parameters whose backward a pass leaves out, but for others."""
    called = {call.name for call in outcome.heard if not call.is_forward}
    steps = [step for step in chain.steps[:-1] if step.after and step.name not in called]
    return [step.name for step in steps] if called else []


def _raised(network: Network, way: Way, outcome: Outcome, chain: Chain | None) -> str:
    text = f"{network.title}.{way.method} raised {type(outcome.error).__name__}: {outcome.error}"
    why = misgiven(outcome.heard, chain) if chain is not None else None
    return text if why is None else f"{text}; {why[0]}{_written(why[1])}"


def _written(places: Sequence[Place]) -> str:
    """Return places in one bracket."""
    shown = "; ".join(place_text(place) for place in places if is_readable(place))
    return f" ({shown})" if shown else ""


def _mismatches(network: Network, chain: Chain, outcome: Outcome) -> list[Row]:
    """Return a row for each gradient that is another than the layers' own."""
    rows = []
    for entry, true in _pairs(network, chain, outcome):
        scale = max((largest(e.gradient) for e in chain.left), default=0.0)
        single = precision(true) > 1e-6
        floor = 1e-3 * precision(true) * scale
        row = compare(entry.label, entry.gradient, true, SHARPNESS["autograd", single], floor)
        if row.verdict in FAILURES:
            rows.append(row)
    return rows


def _pairs(network: Network, chain: Chain, outcome: Outcome) -> list[tuple[Listed, Array]]:
    """Return the network's own gradients, each with that which the layers leave."""
    held = [entry for entry in chain.left if isinstance(entry.gradient, np.ndarray)]
    labels = {entry.label: entry.gradient for entry in held}
    found = []
    for entry in outcome.listed:
        places = Sharing.of([*(e.value for e in held), entry.value]).places
        first, turned = places[-1]
        true = held[first].gradient if first < len(held) else labels.get(entry.label)
        if true is not None:
            found.append((entry, true.T if turned else true))
    arrays = (network.x, chain.steps[0].returned, outcome.result)
    if all(isinstance(a, np.ndarray) and a.shape == arrays[0].shape for a in arrays):
        x, dx, result = arrays
        found.append((Listed("x", x, result), dx))
    return found


def _rows(
    network: Network, chain: Chain, way: Way, outcome: Outcome, notes: list[Said]
) -> list[Row]:
    """Return the wrong rows, with why and where."""
    verb = "returns" if outcome.is_returned else "leaves"
    start = f"{network.title}.{way.method} {verb} another gradient than the layers have"
    why = misgiven(outcome.heard, chain)
    texts = {} if why else _explained(network, chain, outcome, notes)
    rows = []
    for row in _mismatches(network, chain, outcome):
        text, rule = (why[0], "upstream") if why else texts.get(row.name, ("", row.rule))
        lines = why[1] if why else _places(network, way, row.name)
        rows.append(
            replace(
                row,
                name=f"network.{row.name}",
                findings=(saying("text", text=f"{start}: {text}" if text else start, rule=rule),),
                lines=tuple(filter(is_readable, lines)),
            )
        )
    return rows


def _explained(
    network: Network, chain: Chain, outcome: Outcome, notes: list[Said]
) -> dict[str, tuple[str, str | None]]:
    """Return what the numbers tell about each wrong gradient, and the kind of mistake."""
    pairs = _pairs(network, chain, outcome)
    bad = {row.name for row in _mismatches(network, chain, outcome)}
    names = [entry.label for entry, _ in pairs]
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
        deadline=Deadline.after(1.0),
    )
    reasons: list[Reason] = []
    with guarded("the search for why", notes):
        reasons = diagnose(case)
    return {names[k]: (_as_clause(sentence(r.finding)), r.rule) for r in reasons for k in r.rows}


def _as_clause(text: str) -> str:
    verbs = ("is ", "has ", "lacks ", "differs ")
    return f"it {text}" if text.startswith(verbs) else text


def _places(network: Network, way: Way, label: str) -> tuple[Place, ...]:
    """Return the lines of a method that name a parameter, else its last one."""
    text = text_of(getattr(network.object, way.method))
    if text is None or not text.steps:
        return ()
    named = [
        (text.file, node.lineno)
        for step in text.steps
        for node in ast.walk(step.node)
        if isinstance(node, ast.Constant) and str(node.value) in (label, f"d{label}")
    ]
    return tuple(dict.fromkeys(named))[-2:] or (text.place(text.steps[-1]),)


# -------------------- the network as a whole --------------------


def is_right_as_a_whole(network: Network, rng: Random) -> bool:
    """Tell whether a network's own gradients are those of its own loss, whatever its layers do."""
    found = OwnPasses()
    runs = {name: network.loss(name) for name in loss_methods(network.object)}
    _as_a_whole(network, runs, rng, Deadline.after(0.0), found)
    return found.report is not None and found.report.ok


def _as_a_whole(
    network: Network, runs: Runs, rng: Random, deadline: Deadline, found: OwnPasses
) -> None:
    """Check a network that is more than the chain of its layers by its own loss."""
    loss = next((name for name, (value, _) in runs.items() if value is not None), None)
    if loss is None:
        return
    found.heard = runs[loss][1]
    for group in ways(network.object, [loss], network.x, network.t, None):
        for way in group[:1]:
            outcome = outcome_of(way, network.object, network.named, network.session)
            if outcome.error is not None:
                if way.is_sure:
                    found.failures.append(_raised(network, way, outcome, None))
                continue
            found.heard = outcome.heard
            # The other half of the time is for the layers.
            budget = deadline.left / 2
            report = _whole_report(network, loss, way, outcome, rng, budget, found)
            if report is not None:
                found.report, found.is_right = report, report.ok
                found.rows += [replace(r, name=f"network.{r.name}") for r in report.rows]
                found.failures += [f"network: {failure}" for failure in report.failures]
                found.notes += [f"network: {note}" for note in report.notes]
                return


def _whole_report(
    network: Network,
    loss: str,
    way: Way,
    outcome: Outcome,
    rng: Random,
    budget: float,
    found: OwnPasses,
) -> GradientReport | None:
    """Return the check of a network by its loss, None where that cannot be checked."""
    owner = network.object
    names = method_name(owner, FORWARD), method_name(owner, BACKWARD)
    try:
        if names == (loss, way.method) and accepts(getattr(owner, way.method), 0):
            with network.session.fresh():
                return check_layer(owner, network.x, network.t, rng=rng, budget=budget)
        if same_forward(network.loss(loss)[1], outcome.heard):
            return _by_loss(network, loss, way, outcome, rng, budget)
    except CheckError as error:
        found.notes.append(f"the network could not be checked as a whole: {error}")
        return None
    finally:
        network.session.restore()
    found.is_right = True  # as far as can be told
    found.notes.append(
        f"{network.title}.{way.method} runs another forward pass than {network.title}.{loss} (in "
        "training, or with other random numbers?): the two are not compared"
    )
    return None


def _by_loss(
    network: Network, loss: str, way: Way, outcome: Outcome, rng: Random, budget: float
) -> GradientReport | None:
    """Check the gradients that a network lists against its own loss."""
    params = {e.label: e.value for e in outcome.listed if isinstance(e.value, np.ndarray)}
    if not params:
        return None
    shared = {id(module): module for module in sys.modules.values()}

    def of(params: dict[str, Any], x: Any, t: Any) -> Any:
        own = {e.label: e.value for e in outcome.listed}
        if all(params[name] is own[name] for name in params):
            return number_of(call(network.object, loss, x, t))
        memo = shared | {id(own[name]): value for name, value in params.items()}
        other = copy.deepcopy(network.object, memo)
        adopt(memo)
        result = call(other, loss, x, t)
        return result[0] if isinstance(result, tuple) else result

    def gradient(params: dict[str, Any], x: Any, t: Any) -> Any:
        del params, x, t
        again = Outcome(result=way.run())
        return _listed_again(network, again)

    for function, method in ((of, loss), (gradient, way.method)):
        plain = getattr(network.object, method)
        function.__signature__ = inspect.signature(function)  # type: ignore[attr-defined]
        function.__wrapped__ = plain  # type: ignore[attr-defined]
        function.__name__ = f"{network.title}.{method}"
    with network.session.fresh():
        return check_gradient(of, gradient, params, network.x, network.t, rng=rng, budget=budget)


def _listed_again(network: Network, outcome: Outcome) -> dict[str, Any]:
    listed, _ = listed_by(network.object, outcome.result)
    return {e.label: e.gradient for e in totals(listed or left_in(network.named))}
