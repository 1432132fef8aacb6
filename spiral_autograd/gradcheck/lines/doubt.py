"""Where wrong gradients begin: with what is made of true values, and of which none is made."""

from __future__ import annotations

from functools import cached_property
from typing import Any

import numpy as np

from ...recording import Call, name_of
from ..source import Place
from .known import Known
from .ran import Key, Ran, gradient_of
from .trail import Trail


class Doubt(Ran):
    """The statements of a handwritten backward pass, and where their values are true no more."""

    @cached_property
    def doubtful(self) -> set[Place]:
        """The statements where wrong gradients begin.

        No true value came from what they made, though it was made from such values.
        """
        sound = self.trail.feeding(*self.sound) | self._true_in(self.values_of(self.terms()))
        fed = set().union(*map(self.feeding, self.evidence.wrong))
        wrong, tainted = fed.intersection(self.computing) - sound, set[int]()
        found = set[Place]()
        for number in range(self.start, len(self.events)) if self.sound else ():
            event = self.events[number]
            if not tainted.isdisjoint(event.sources):
                tainted.add(number)
            elif number in wrong:
                found.add(event.place)
                tainted.add(number)
        return found

    @cached_property
    def sound(self) -> set[int]:
        """The events that make true values: not a term of one, which may be all that there is."""
        terms = self.terms() | self._of_negated()
        return self._true_in(self.values_of(set(self.calls) - terms))

    @cached_property
    def shown(self) -> set[Key]:
        """The statements whose values are true, at each turn of a loop."""
        wrong = {key for number, key in self.computing.items() if number not in self.sound}
        return {*self.computing.values()} - wrong

    def _of_negated(self) -> set[Call]:
        """Return the gradients of -x, as in a sigmoid: nobody means them, but a wrong sign does."""
        recording = self.evidence.recording
        adjoints = recording.adjoints.items() if recording is not None else ()
        pairs = ((call, g) for call, g in adjoints if isinstance(g, Call))
        return {g for call, g in pairs if name_of(call.fun) == "negative"}

    def is_far(self, place: Place) -> bool:
        """Tell whether wrong gradients are known to begin elsewhere."""
        return bool(self._near) and place not in self._near

    @cached_property
    def _near(self) -> set[Place]:
        """The statements where wrong gradients begin, and those that made what they read.

        What is true there may not be what was meant.
        """
        begun = [number for number in self.computing if self.events[number].place in self.doubtful]
        made = set().union(*(self.events[number].sources for number in begun))
        return {self.events[n].place for n in (*begun, *made.intersection(self.computing))}

    def _true_in(self, known: Known) -> set[int]:
        """Return the events that make true values alone, which are not zero.

        What has the name of a gradient must be that one.
        """
        found = set()
        for number, values in ((n, self.made[n]) for n in self.computing if n in self.made):
            truths = [self.by_name[name] for name in self.called(self.trail, number)] or [known]
            squeezed = truths[0] is not known
            pairs = [(true, np.squeeze(v) if squeezed else v) for v in values for true in truths]
            if all(np.any(v) and true.has(v, 1e-9) for true, v in pairs):
                found.add(number)
        return found

    def called(self, trail: Trail, number: int) -> list[str]:
        """Return of what a statement says by a name, such as ``dh``, that it makes the gradient."""
        step = trail.events[number].step
        names = map(gradient_of, step.writes if step is not None else ())
        return [name for name in names if name in self.by_name]

    @cached_property
    def by_name(self) -> dict[str, Known]:
        """The true gradients of what has a name in the forward pass."""
        recording, found = self.evidence.recording, dict[str, list[Any]]()
        for call, gradient in recording.adjoints.items() if recording is not None else ():
            name = recording.names.get(call) if recording is not None else None
            if name is not None and isinstance(gradient, Call):
                found.setdefault(name, []).append(np.squeeze(gradient.value))
        return {name: Known(values) for name, values in found.items()}
