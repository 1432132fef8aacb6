"""A network's own loss, with the gradients that it gives, or by which it updates itself."""

from __future__ import annotations

import copy
import sys
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from ..blocks import close
from ..finding import found
from ..guard import CheckError
from .adapter import Terms, Values
from .calling import RATE
from .heard import Pass
from .loss import Gradient, value_of
from .network import Network
from .own_passes import THE_RATE, number_in
from .subject import Subject
from .updates import Update


class OwnLoss(Gradient):
    """A network's own loss, and the gradients that it gives in one of its ways."""

    def __init__(self, net: Network, run: Pass, terms: Terms) -> None:
        self.network, self.way, self.loss_way = net, run.way, net.losses[0].way
        listed, self.rate = run.gradients, run.way.rate
        if not listed:
            state = net.written_by(self.loss_way)
            listed = [p for p in run.updates if p.name not in state]
        params = {p.name: p.value for p in listed}

        def loss(params: object, x: object, t: object) -> Any:
            return number_in(self.loss_way.run(net.object))

        def gradient(params: Any, x: object, t: object) -> dict[str, Any]:
            there: Any = {p.name: p.gradient() for p in net.gradients_by(self.way)}
            if not run.gradients:
                there = {name: change / self.rate for name, change in there.items()}
            return {name: there.get(name) for name in params}

        loss.__name__, gradient.__name__ = net.label(net.losses[0]), net.label(run)
        super().__init__(loss, gradient, params, (net.x, net.t), terms)
        if not run.gradients:
            self._find_rate()

    def _find_rate(self) -> None:
        """Find the rate by which the network has updated its parameters, or raise."""
        names, gradients = self.value_names, self.gradients_of(self.values)
        true = dict(zip(names, gradients, strict=True))
        owner, method = self.network.object, getattr(self.network.object, self.way.method)
        argument = self.way.rate if self._is_by_argument() else None
        update = Update(owner, method, self.session, self._changes, true, argument)
        rate = update.rate()
        if rate is None:
            raise CheckError(
                f"{self.backward_label} changes {', '.join(names)} by a rate that is not known: "
                "keep it as self.learning_rate, or take it as an argument learning_rate"
            )
        self.rate = rate
        said = {"names": names, "rate": rate, "n": 1, "adds": False}
        self.remarks = [r for r in self.remarks if r.kind != "writes"]  # as it must
        self.remarks.append(found("by_its_change", method=self.backward_label, **said))
        self.remarks += update.lacking(rate)
        with self.session.fresh():
            self.run_backward()
            self.settle()

    def _changes(self, rate: float = RATE) -> dict[str, Any]:
        """Return by how much the parameters become smaller."""
        with self.session.fresh():
            there = self.network.gradients_by(self.way._replace(rate=rate))
            return {p.name: p.gradient() for p in there if p.name in self.value_names}

    def _is_by_argument(self) -> bool:
        """Tell whether the rate is an argument, with which changes grow."""
        if not any(argument is THE_RATE for argument in self.way.calls[-1][1]):
            return False
        whole, half = self._changes(), self._changes(RATE / 2)
        return any(n in half and close(half[n], g / 2, 1e-6) for n, g in whole.items())

    def substitute(self, replacements: Sequence[object], values: Values = None) -> list[Any]:
        """Run the loss of a copy of the network with replacements for arrays."""
        memo = {id(module): module for module in sys.modules.values()}
        memo |= self.standing_in(replacements, values)
        other = copy.deepcopy(self.network.object, memo)
        return [value_of(self.loss_way.run(other, memo))]

    def subject(self) -> Subject:
        """Return the loss and its gradients as a subject."""
        ways = self.loss_way, self.way
        forward, backward = (getattr(self.network.object, way.method) for way in ways)
        return replace(super().subject(), forward_code=[forward], backward_code=[backward])
