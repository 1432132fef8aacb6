"""Layers as objects: run from the outside, copied with other values in place of their arrays."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np

from ...validation import Array, Shape
from ..finding import Finding, found
from ..guard import theirs
from .adapter import Terms, effects_on, replaced_gradients
from .conventions import is_statistic
from .evidence import claim
from .find_calling import find_calling
from .inputs import floats_with_gradients, refuse_parameters
from .object_passes import ObjectPasses, Resets
from .objects import Held, held_arrays, nested
from .parameters import Kept, Parameter, has_gradient, other_keys, resets_of
from .returned import by_position, require_any
from .subject import MISSING, CheckError, Subject, is_array, is_float_array, outputs_of
from .unchecked import (
    depends_on_arrays,
    depends_on_number,
    differs,
    exchange,
    leave_out_state,
    lend,
    look_beside,
    may_be_parameters,
    trained_numbers,
    unwritten,
)

# By name: a parameter, and what stood in the place of its gradient before a run.
Before = dict[str, tuple[Parameter, Any]]


class Layer(ObjectPasses):
    """An object with ``forward(*inputs)`` and ``backward(upstream)``, with its parameters."""

    def __init__(self, layer: object, inputs: Sequence[object], terms: Terms) -> None:
        super().__init__(layer, inputs, terms)
        self.made: list[tuple[Held, Array]] = []  # by forward: with their content
        self._prepare()

    # -------------------- the parameters --------------------

    def _prepare(self) -> None:
        """Find the parameters by a run; where the first run makes them, begin from after it."""
        lend(self)
        self._find_reset()
        if self.may_be_open:
            self._find_calling()
        with self.session.fresh():
            before = self._known()
            effects = self._first_run()
            self._choose(before)
            made, numbers = self._made(), trained_numbers(self, before)
        numbers = [name for name in numbers if depends_on_number(self, name)]
        if made or numbers:
            effects = self._run_again(set(before), made, numbers)
        # The arrays that stand for numbers are ours, and n += 1 writes into none of the reader's.
        effects = [e for e in effects if e.fields.get("name") not in numbers]
        self._require_fit()
        self.settle()
        written = [e.fields for e in effects if e.kind == "writes"]
        leave_out_state(self, [w["name"] for w in written if w["who"] == "forward"])
        self.remarks += effects_on(effects, self.value_names)
        self.remarks += replaced_gradients(self.layer, before)
        look_beside(self)
        self._find_left()
        self._require_no_surplus()
        self.remarks += other_keys(self.layer)
        require_any(self.backward_label, self.result, self.value_names, self.first)
        if self.constant.names:
            known = names_in(self.layer, self.names)
            self.constant.require_known(self.label.partition(".")[0], known)

    def _find_calling(self) -> None:
        find_calling(self)
        if self.calling is not None:
            self._find_reset()  # now its backward pass can be run, too

    def _find_reset(self) -> None:
        """Take the reset of a layer's parts, or none, where it cannot be run behind its own."""
        own = self._behind(resets_of) if resets_of(self.layer) else None
        if not isinstance(own, CheckError):
            return
        plain = self._behind(lambda layer: [])
        if isinstance(plain, CheckError):  # it cannot be run at all
            self.resets = resets_of
            return
        if self._behind(partial(resets_of, of_parts=True)) != plain:
            self.resets = lambda layer: []
        self.remarks.append(found("fails_behind_reset", error=str(own)))

    def _behind(self, resets: Resets) -> list[tuple[str, Shape]] | CheckError:
        """Return the places and shapes of what backward returns in a second run, behind a reset."""
        self.resets = resets
        try:
            with self.session.fresh():
                if resets(self.layer):
                    with suppress(CheckError), theirs():
                        self.run()  # which may make what is reset
                        self.reset()
                self.outputs = [np.array(out) for out in outputs_of("", self.run())]
                if self.calling is None and (self.may_be_open or len(self.parts) > 1):
                    return []
                result = self.run_backward(self.upstreams(np.random.default_rng(0)))
                return [(name, np.shape(gradient)) for name, _, gradient in nested("", result)]
        except CheckError as error:
            return error

    def _find_left(self) -> None:
        """Find the gradients of inputs among what backward leaves, where it returns none."""
        n, lacking = len(self.parameters), [p for p in self.of_inputs if not is_array(p.gradient())]
        if self.result is not None or not lacking:
            return
        claim(self, [Held(p.name, p.value, None) for p in lacking])
        there = {p.name: p for p in self.parameters[n:]}
        del self.parameters[n:]
        self.of_inputs = [there.get(p.name, p) for p in self.of_inputs]
        self.take([])

    def _known(self) -> Before:
        """Return the parameters by name, with what is now in the place of their gradients."""
        return {name: (p, p.gradient()) for p in self.now.every for name in p.names}

    def _first_run(self) -> list[Finding]:
        """Run both passes, note what there is and is made, and return the side effects."""
        begun, start = self.now, self.session.start
        free = may_be_parameters(begun)
        with suppress(CheckError), theirs():  # it may be reset only once its parameters are made
            self.reset()
        self.run()
        if len(self.parts) > 1 and self.calling is None:
            self._find_calling()
            with self.session.fresh():
                return self._first_run()
        self.look()
        self.unwritten = unwritten(self.now, free, start)
        held = [h for h in self.now.held if start.kept(h.value) is None]
        self.made = [(h, h.value.copy()) for h in held]
        numbers = {(p.name, id(p.value)) for p in begun.numbers}
        still = [p for p in self.now.numbers if (p.name, id(p.value)) in numbers]
        self.numbers = {p.name: p.value for p in still}
        self.outputs = [np.array(out) for out in outputs_of(self.label, self.structure)]
        self.upstream = self.upstreams(self.terms.rng)
        return self.watched_backward()

    def _made(self) -> set[str]:
        """Return the names of arrays that forward has made, and a second one leaves alone.

        Among them are the parameters that a layer makes in its first forward pass.
        """
        made = [(h, content) for h, content in self.made if np.array_equal(h.value, content)]
        if made:
            with suppress(CheckError):  # it may be run once only
                self.run()
        inputs = {id(value) for value in self.inputs}
        still = {id(h.value) for h in held_arrays(self.layer)} - inputs if made else set()
        return {h.name for h, c in made if id(h.value) in still and np.array_equal(h.value, c)}

    def _run_again(self, before: set[str], made: set[str], numbers: list[str]) -> list[Finding]:
        """Run both passes from where the parameters are made, and numbers are arrays."""
        begun, outputs = self.session.start, self.outputs
        try:
            with self.session.fresh():
                if made or not before.issuperset(numbers):
                    self.run()
                exchange(self, numbers)
                self.session.rebase()
                for _, value in self.given_values():
                    content = begun.kept(value)
                    if content is not None:  # a forward pass may have written into it
                        self.session.start.keep(value, content)
                        np.copyto(value, content)
                self.look()
                known, there = self._known().items(), {*before, *numbers}
                arrays = {id(h.value) for h in self.now.held if h.name in made}
                now = {n: k for n, k in known if n in there or id(k[0].value) in arrays}
                effects = self._first_run()
                self._choose(now)
                if numbers and differs(outputs, self.outputs):
                    raise CheckError("the output is another one")
        except CheckError:
            if not made and not numbers:
                raise
            self.session.start = begun
            for name in numbers:
                self.say_unchecked(name, found("cannot_move", name=name))
            if not numbers:  # they are caches of each run, which grow, or parameters among such
                lost = [p for p in self.now.arrays if p.names & made]
                for p in (p for p in lost if p.gradient() is not MISSING):
                    self.say_unchecked(p.name, found("made_anew", name=p.name))
                made = set()
            return self._run_again(before, made, [])
        return effects

    def _choose(self, before: Before) -> None:
        """Take the parameters that have a gradient: in the layer, or returned by backward.

        What a pass puts in the place of another array is state, not a parameter.
        """
        given, start = {id(value) for value in self.inputs}, self.session.start
        was = {(n, id(p.value)): g for n, (p, g) in before.items() if id(p.value) not in given}
        there = [(p, (n, id(p.value))) for p in self.now.every for n in p.names]
        known = {p: was[place] for p, place in there if place in was}
        arrays = [p for p in known if is_array(p.value)]
        self.parameters = [p for p in arrays if has_gradient(p, known[p], start)]
        own = {id(p.gradient()) for p in self.parameters}
        there = [g.path[:1] for g in self.returned() if id(g.value) in own]
        self.claimed = {step for path in there for step in path}
        inputs = [Parameter(n, v, partial(self.gradient_of, n)) for n, v in self.given_values()]
        # An update takes the gradients of what two functions are given behind the first.
        first = sum(p.name == self.names[0] for p in inputs) if self.is_pair else len(inputs)
        later = [p for p in inputs[first:] if p.gradient() is not MISSING]
        self.of_inputs, self.parameters = inputs[:first], [*later, *self.parameters]

    def read(self) -> list[Any]:
        """Return the gradient of each value after both passes.

        Where that of a parameter has been written at the first call, it may be left out at another.
        """
        grads, n = super().read(), len(self.of_inputs)
        return grads[:n] + [None if g is MISSING else g for g in grads[n:]]

    def _require_fit(self) -> None:
        self.parameters = _without_views(self.parameters)
        refuse_parameters([p.name for p in self.parameters], [p.value for p in self.parameters])
        if self.result is None and self.takes_nothing and self.parameters:
            self.of_inputs = []  # a network with its loss
            self.remarks.append(found("inputs_left_out"))
        elif not self.is_of_loss(self.result):
            self._say_not_returned()
        self.remarks += floats_with_gradients(self.names, self.inputs, self.result)
        is_array = is_float_array(self.result) and [*self.shapes.values()][:1] == [None]
        if is_array and np.shape(self.inputs[0]) == self.result.shape and np.any(self.result):
            self.say_unchecked(self.names[0], found("integers", name=self.names[0]))

    def _say_not_returned(self) -> None:
        """Say which inputs have no gradient: of those in nests, the ones that are used."""
        returned, own = self.by_name(), {id(value) for value in self.inputs}
        for name, value in self.given_values():
            if returned.get(name, MISSING) is not MISSING:
                continue
            if id(value) in own or (not is_statistic(name) and depends_on_arrays(self, value)):
                self.say_not_returned(name)

    def _require_no_surplus(self) -> None:
        """Raise, or say, where backward returns what is no gradient of anything."""
        result, what = self.result, self.backward_label
        n = sum(shape is not None for shape in self.shapes.values())
        if isinstance(result, dict):
            read = set(map(id, [*self.by_name().values(), *(p.gradient() for p in self.parameters)]))
            rest = {k: g for k, g in result.items() if k not in self.claimed and id(g) not in read}
            self.say_unread(rest)
        elif not self.claimed or not isinstance(result, tuple | list):
            by_position(what, result, self.shapes, self.constant)
        else:
            for i in range(n, len(result)):
                if i not in self.claimed and result[i] is not None:
                    why = found("belongs_to_nothing", number=i, what=what)
                    self.say_unchecked(f"entry {i} of what {what} returns", why)

    # -------------------- as a subject --------------------

    def subject(self) -> Subject:
        """Return the layer as a subject."""
        return replace(
            super().subject(),
            forward_code=self.told.code[:1],
            backward_code=self.told.code[1:],
            is_loss=self.terms.upstream is None and (self.is_scalar or not self.takes_upstream),
            takes_upstream=self.takes_upstream,
            takes_other_sizes=True,
            owner=self.layer,
            unkept=self.unkept,
            upstream_at=None if self.calling is None else self.calling.upstream_at,
        )


def _without_views(parameters: Sequence[Parameter]) -> list[Parameter]:
    """Return parameters but for the views of another one whose gradients are of that one's."""
    read = [(p, p.value, p.gradient()) for p in parameters]
    arrays = [(p, (value, g)) for p, value, g in read if is_array(value) and is_array(g)]
    views = [held for _, held in arrays if not held[0].flags.owndata]  # two others share nothing
    wholes = {p: views if held[0].flags.owndata else [h for _, h in arrays] for p, held in arrays}
    inner = {p for p, held in arrays if any(_is_in(held, whole) for whole in wholes[p])}
    return [p for p in parameters if p not in inner]


def _is_in(part: tuple[Array, Array], whole: tuple[Array, Array]) -> bool:
    """Tell whether an array and its gradient are views of a larger one and of its gradient."""
    pairs = zip(part, whole, strict=True)
    return all(a.size < b.size and np.shares_memory(a, b) for a, b in pairs)


def names_in(layer: object, inputs: Sequence[str]) -> list[str]:
    """Return the names of a layer's inputs, and of what it keeps."""
    now = Kept(layer)
    kept = [p.name for p in now.every] + [h.name for h in now.held]
    return [*inputs, *dict.fromkeys(one for name in kept for one in name.split(" = "))]
