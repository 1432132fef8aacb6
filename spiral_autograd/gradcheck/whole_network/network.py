"""A network of layers: which layer is the first wrong one."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from ...pytree import Sharing
from ...validation import Random, number
from ..blocks import close
from ..checks import BUDGET, check_layer
from ..finding import Said
from ..guard import Deadline, answerable
from ..reference.reference import SHARPNESS
from ..report import GradientReport
from ..source import replacing_lines
from ..subject.chain import Chain, Named, Step, estranged, naming, run_chain, totals
from ..subject.conventions import BACKWARD, method_name, methods_of, positional_names, read
from ..subject.inputs import RANDOM_IS_BETTER, Constant, Names
from ..subject.layer import names_in
from ..subject.parameters import find_parameters
from ..subject.session import Session, untouched
from ..subject.subject import CheckError
from ..verdict.rows import FAILURES, Row, compare
from ..words import sentence
from .own_check import Network, OwnPasses, compare_own, is_right_as_a_whole
from .own_passes import listed_by
from .spy import steps_of

LOSSES = ("loss_layer", "lossLayer", "last_layer", "lastLayer", "loss", "criterion", "loss_fn")


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
    named, loss_layer = _layers(network, loss)
    meant = Constant(constant)
    with untouched(network, loss, x, t) as session, answerable(_title(network)):
        if named is None or loss_layer is None:
            report = _without_layers(network, named, loss_layer, session, x, t, rng, deadline)
            meant.require_known(_title(network), [*names_in(network, ["x", "t"])])
            return _without(report, meant)
        every = [*named, ("loss_layer", loss_layer)]
        chain, replaced, error = _chain(network, named, loss_layer, session, x, t)
        own, found = OwnPasses(), _Found()
        if not _is_plain(network):
            own = compare_own(Network(network, every, session, x, t), chain, rng, deadline)
        if chain is None and own.report is None:
            raise CheckError(sentence(own.failures[0])) if own.failures else error
        if chain is None:
            found.notes.append(
                f"the layers cannot be run one after another ({error}): the network is checked as "
                "a whole (network. before the name), and each layer with what it is given there"
            )
        heard = steps_of(own.heard, every) if own.differs else []
        names = {step.name for step in heard}
        steps = heard + [s for s in (chain.steps if chain else ()) if s.name not in names]
        meant.require_known(_title(network), _names_in(steps))
        _check_layers(steps, every, session, rng, deadline, found, meant)
        strange = [] if chain is None else estranged(chain, session, found.right)
        if strange and not own.differs and not _is_plain(network):
            own.is_right = is_right_as_a_whole(Network(network, every, session, x, t), rng)
            own.rows = []
        if not own.is_right:
            found.failures += [*strange, *replaced.values()]
        rows = _with_shared(found.rows, named)
    rows += [row for row in own.rows if own.differs or row.name not in replaced]
    found.notes = own.notes + found.notes
    found.failures += own.failures
    if own.report is not None:
        found.unchecked += [f"network.{name}" for name in _without(own.report, meant).unchecked]
    return found.report(_title(network), rows, own.report)


def _without_layers(
    network: Any,
    named: Named | None,
    loss_layer: Any,
    session: Session,
    x: Any,
    t: Any,
    rng: Random,
    deadline: Deadline,
) -> GradientReport:
    """Check a network without a list of layers, or without a loss layer, by its own passes."""
    if isinstance(network, type):
        raise CheckError(
            f"network must be an object, got the class {network.__name__} itself: give "
            f"{network.__name__}(...)"
        )
    if not _is_plain(network):
        own = compare_own(Network(network, named or [], session, x, t), None, rng, deadline)
        if own.report is not None:
            return replace(own.report, subject=_title(network))
        for text in (*own.failures, *own.notes):
            raise CheckError(sentence(text))
    if named is None:
        raise CheckError(
            "network must have layers (a list, or a dict in order), or be a list of them; or else "
            "forward(x, t) and backward() of its own, or loss(x, t) and gradient(x, t); for one "
            "method that returns the loss with its gradients use check_gradient"
        )
    raise CheckError(
        "network must have a loss_layer with forward(x, t) and backward(); or give one as loss="
    )


def _title(network: Any) -> str:
    return "a list of layers" if _is_plain(network) else type(network).__name__


def _is_plain(network: Any) -> bool:
    return isinstance(network, list | tuple | dict)


def _check_layers(
    steps: Sequence[Step],
    every: Named,
    session: Session,
    rng: Random,
    deadline: Deadline,
    found: _Found,
    meant: Constant,
) -> None:
    """Check each layer, the last one first: if time is short, it is for the first wrong one."""
    at = {step.name: step for step in steps}
    reports = {}
    for name, layer in reversed(every):
        if name in at:
            step = at[name]
            with session.fresh(), naming(name):
                left = max(0.1, deadline.left)
                constant = [n for n in _names_of(step) if meant.has(f"{name}.{n}") or meant.has(n)]
                inputs, up = step.inputs, step.upstream
                if up is not None and not np.any(up):
                    up = None  # a random one tells more than zeros
                reports[name] = check_layer(
                    layer, *inputs, upstream=up, rng=rng, budget=left, constant=constant
                )
            session.restore()
    for name, layer in every:
        if name in reports:
            found.add(name, layer, reports[name])


def _names_of(step: Step) -> list[str]:
    """Return the names of a layer's inputs, and of what it keeps."""
    forward = getattr(step.layer, methods_of(step.layer)[0])
    return names_in(step.layer, positional_names(forward, len(step.inputs)))


def _names_in(steps: Sequence[Step]) -> list[str]:
    return [f"{step.name}.{name}" for step in steps for name in _names_of(step)]


def _without(report: GradientReport, meant: Constant) -> GradientReport:
    """Return a report that does not name as unchecked what is meant to have no gradient."""
    return replace(report, unchecked=tuple(n for n in report.unchecked if not meant.has(n)))


def _chain(
    network: Any, named: Named, loss_layer: Any, session: Session, x: Any, t: Any
) -> tuple[Chain | None, dict[str, str], CheckError]:
    """Run the layers one after another; return what they replace, and the error if they cannot."""
    for name, layer in (*named, ("loss_layer", loss_layer)):
        with naming(name):
            methods_of(layer)
    try:
        with session.fresh():
            chain = run_chain(named, loss_layer, x, t)
            return chain, _replaced(network, named, chain), CheckError("")
    except CheckError as error:
        return None, {}, error
    finally:
        session.restore()


@dataclass
class _Found:
    """What the checks of the layers have found."""

    reports: dict[str, GradientReport] = field(default_factory=dict)
    rows: list[Row] = field(default_factory=list)
    notes: list[Said] = field(default_factory=list)
    failures: list[Said] = field(default_factory=list)
    notes_on: list[tuple[str, str]] = field(default_factory=list)  # a layer, and what is said
    failures_of: list[tuple[str, str]] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)
    unchecked: list[str] = field(default_factory=list)

    def add(self, name: str, layer: Any, report: GradientReport) -> None:
        """Add the report on a layer; layers come in the order of the forward pass."""
        self.reports[name] = report
        self.rows += [replace(row, name=f"{name}.{row.name}") for row in report.rows]
        notes = [note for note in report.notes if RANDOM_IS_BETTER not in note]
        self.notes_on += [(name, note) for note in notes]  # its inputs are the network's own
        self.failures_of += [(name, failure) for failure in report.failures]
        self.unchecked += [f"{name}.{what}" for what in report.unchecked]
        if not report.ok:
            self.wrong.append(f"{name} ({type(layer).__name__})")

    @property
    def right(self) -> set[str]:
        """The layers that are right by themselves."""
        return {name for name, report in self.reports.items() if report.ok}

    def report(self, title: str, rows: list[Row], whole: GradientReport | None) -> GradientReport:
        """Return the report on the network, with the least sharp of its references."""
        kinds = list(dict.fromkeys(kind for kind, _ in SHARPNESS))
        every = [*self.reports.values(), *([] if whole is None else [whole])]
        least = max(every, key=lambda report: kinds.index(report.reference))
        notes: list[Said] = [*self.notes, *_merged(self.notes_on)]
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
            (*_merged(self.failures_of), *self.failures),
            least.precision,
            tuple(self.unchecked),
        )


def _merged(said: Sequence[tuple[str, str]]) -> list[str]:
    """Return what is said of layers, once for those of which the same is said.

    Examples
    --------
    >>> _merged([("layers[0]", "forward writes into x"), ("layers[2]", "forward writes into x")])
    ['layers[0], layers[2]: forward writes into x']
    """
    names: dict[str, list[str]] = {}
    for name, text in said:
        names.setdefault(text, []).append(name)
    return [f"{', '.join(of[:6])}{', …' * (len(of) > 6)}: {text}" for text, of in names.items()]


def _layers(network: Any, loss: Any) -> tuple[list[tuple[str, Any]] | None, Any]:
    """Return the layers by name, and the loss layer; None where there are none."""
    layers = network if _is_plain(network) else read(network, "layers")
    named = list(_named("layers", layers)) if isinstance(layers, list | tuple | dict) else None
    candidates = [loss] if loss is not None else [read(network, name) for name in LOSSES]
    return named, next((c for c in candidates if method_name(c, BACKWARD) is not None), None)


def _named(name: str, held: Any) -> Iterator[tuple[str, Any]]:
    """Yield the layers of a list or dict, and of those in it."""
    for key, layer in held.items() if isinstance(held, dict) else enumerate(held):
        if isinstance(layer, list | tuple | dict):
            yield from _named(f"{name}[{key!r}]", layer)
        else:
            yield f"{name}[{key!r}]", layer


def _replaced(network: Any, named: Named, chain: Chain) -> dict[str, str]:
    """Return where the network's own gradients are not those of its layers, after backward.

    By the name of the parameter in the network.
    """
    listed, _ = listed_by(network, None)
    sums = totals(listed)
    held = [(f"{n}.{p.name}", layer, p) for n, layer in named for p in find_parameters(layer)]
    found: dict[str, str] = {}
    for name, layer, parameter in held:
        gradient = parameter.gradient()
        mine = [entry for entry in listed if entry.value is parameter.value]
        if not mine or not isinstance(gradient, np.ndarray):
            continue
        if any(e.gradient is gradient or np.array_equal(e.gradient, gradient) for e in mine):
            continue
        added = [entry.gradient for entry in sums if entry.value is parameter.value]
        wanted = [entry.gradient for entry in chain.left if entry.value is parameter.value]
        if wanted and close(added[0], wanted[0], 1e-9):
            continue
        label = f"network.{_gradient_label(mine[0].label)}"
        twins = [n for n, _, p in held if any(p.gradient() is e.gradient for e in mine)]
        found[f"network.{mine[0].label}"] = (
            f"{label} is the gradient of {twins[0]} alone, but {name} is the same array: add up "
            "the gradients of both"
            if twins
            else f"{label} does not have the gradient of {name}: the layer replaces the array "
            f"that the network holds{_written_at(layer)}; write into it: grads[i][...] = dW"
        )
    return found


def _gradient_label(label: str) -> str:
    return (
        label.replace("params", "grads", 1) if label.startswith("params[") else f"grads[{label!r}]"
    )


def _written_at(layer: Any) -> str:
    """Return where a layer's backward pass replaces its gradients, if that can be told."""
    lines = replacing_lines(read(layer, methods_of(layer)[1]))
    places = ", ".join(f"{os.path.basename(file)}:{line}" for file, line in dict.fromkeys(lines))
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
