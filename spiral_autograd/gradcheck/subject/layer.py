"""Layers as objects: run from the outside, copied with other values in place of their arrays."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np

from ...pytree import leaves
from ...validation import Array
from ..blocks import checksum
from ..finding import Finding, found
from ..guard import TheirError
from .adapter import Terms, written_into
from .conventions import GRADIENT_LISTS, is_statistic
from .evidence import claim
from .find_calling import find_calling
from .inputs import floats_with_gradients, refuse_parameters
from .object_passes import ObjectPasses, Resets
from .objects import Held, attributes_of, held_arrays, read
from .parameters import Kept, Parameter, find_parameters, has_gradient, other_keys, resets_of
from .returned import by_position, require_any
from .session import Session, objects_of, reach
from .subject import (
    MISSING,
    CheckError,
    Subject,
    differs,
    is_array,
    is_float_array,
    outputs_of,
)
from .unchecked import (
    depends_on_arrays,
    depends_on_number,
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

    def __init__(
        self, layer: object, inputs: Sequence[object], terms: Terms, forward: str = ""
    ) -> None:
        super().__init__(layer, inputs, terms, forward)
        self.made: list[tuple[Held, Array]] = []  # by forward: with their content
        self._prepare()

    # -------------------- the parameters --------------------

    def _prepare(self) -> None:
        """Find the parameters by a run; where the first run makes them, begin from after it."""
        lend(self)
        find_calling(self)
        self._find_reset()
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
        # Of inputs and parameters, where a side effect is on something that has a name.
        names = {None, *self.value_names}
        self.remarks += [e for e in effects if e.fields.get("name") in names]
        self.remarks += replaced_gradients(self.layer, before)
        look_beside(self)
        self._find_left()
        self._require_no_surplus()
        self.remarks += other_keys(self.layer)
        require_any(self.backward_label, self.result, self.value_names, self.first)
        if self.constant.names:
            known = names_in(self.layer, self.names)
            self.constant.require_known(self.label.partition(".")[0], known)

    def _find_reset(self) -> None:
        """Take its own reset, else its parts', else none: the first that it can be run behind."""
        if not resets_of(self.layer):
            return
        first: Resets = resets_of
        others: list[Resets] = [partial(resets_of, of_parts=True), lambda layer: []]
        error = self._fails_behind(first)
        if error is not None and any(self._fails_behind(resets) is None for resets in others):
            self.remarks.append(found("fails_behind_reset", error=str(error)))
        elif error is not None:  # it cannot be run at all
            self.resets = first

    def _fails_behind(self, resets: Resets) -> CheckError | None:
        """Return the error of a second run behind a reset, which stays the one to be used."""
        self.resets = resets
        try:
            with self.session.fresh():
                if resets(self.layer):
                    with suppress(CheckError):
                        self.run()  # which may make what is reset
                        self.reset()
                self.outputs = [np.array(out) for out in outputs_of("", self.run())]
                self.run_backward(self.upstreams(np.random.default_rng(0)))
        except CheckError as error:
            return error
        return None

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
        self.reset()
        self.run()
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

    def watched_backward(self) -> list[Finding]:
        """Run the backward pass, and return what is to be said of what both have written into."""
        session, names = self.session, self.names_left()
        by_forward = written_into(session, self.named_values())
        made = _made_for(self.left, session)
        blank = [a for a in made if not a.any()]
        ups = [np.array(u) for u in self.upstream]
        noted, noted_ups = ([(a, checksum(a)) for a in arrays] for arrays in (made, ups))
        result = self.run_backward(ups)
        self.look()
        effects = [found("writes_upstream")] if _changed(noted_ups) else []
        own = [a for a in blank if _shares(a, leaves(result))]
        cache = self._without_gradients(_changed(noted), own)
        if cache:
            called = filter(None, map(names.get, map(id, cache)))
            effects.append(found("writes_cache", names=list(called)))
        by_both = written_into(session, self.named_values())
        effects += [found("writes", who="forward", name=n) for n in by_forward]
        effects += [found("writes", who="backward", name=n) for n in by_both if n not in by_forward]
        return effects

    def _without_gradients(self, arrays: list[Array], own: Sequence[object]) -> list[Array]:
        """Return arrays that share nothing with gradients, those of layers made inside among them.

        `own` are those that are known.
        """
        if not arrays:
            return []
        inner = [p.gradient() for item in objects_of(self.layer) for p in find_parameters(item)]
        return [a for a in arrays if not _shares(a, [*own, *inner])]

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
        """Run both passes from where the parameters are made, and numbers are arrays, if it can."""
        begun, outputs = self.session.start, self.outputs
        try:
            with self.session.fresh():
                effects = self._run_from(before, made, numbers)
                if numbers and differs(outputs, self.outputs):
                    raise CheckError("the output is another one")
            return effects
        except CheckError:
            if not made and not numbers:
                raise
        self.session.start = begun
        for name in numbers:
            self.say_unchecked(name, found("cannot_move", name=name))
        if numbers:
            return self._run_again(before, made, [])
        # What is made is caches of each run, which grow, or parameters among such.
        for p in self.now.arrays:
            if p.names & made and p.gradient() is not MISSING:
                self.say_unchecked(p.name, found("made_anew", name=p.name))
        return self._run_again(before, set(), [])

    def _run_from(self, before: set[str], made: set[str], numbers: list[str]) -> list[Finding]:
        """Begin the session anew behind a first forward pass, and run both passes from there."""
        begun = self.session.start
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
        return effects

    def _choose(self, before: Before) -> None:
        """Take the inputs, and the parameters that have a gradient: kept, or returned by backward.

        What a pass puts in the place of another array is state, not a parameter.
        """
        kept = self._still_kept(before)
        own = {id(p.gradient()) for p in kept}
        self.claimed = {step for g in self.returned() if id(g.value) in own for step in g.path[:1]}
        inputs = [Parameter(n, v, partial(self.gradient_of, n)) for n, v in self.given_values()]
        # An update takes the gradients of what two functions are given behind the first.
        first = sum(p.name == self.names[0] for p in inputs) if self.is_pair else len(inputs)
        later = [p for p in inputs[first:] if p.gradient() is not MISSING]
        self.of_inputs, self.parameters = inputs[:first], [*later, *kept]

    def _still_kept(self, before: Before) -> list[Parameter]:
        """Return the parameters with a gradient that stand where they stood, but for inputs."""
        given = {id(value) for value in self.inputs}
        was = {(n, id(p.value)): g for n, (p, g) in before.items() if id(p.value) not in given}
        places = [(p, (n, id(p.value))) for p in self.now.every for n in p.names]
        known = {p: was[place] for p, place in places if place in was and is_array(p.value)}
        return [p for p, g in known.items() if has_gradient(p, g, self.session.start)]

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
            own = (p.gradient() for p in self.parameters)
            read = set(map(id, [*self.by_name().values(), *own]))
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
        takes_upstream = self.calling.takes_upstream
        return replace(
            super().subject(),
            forward_code=self.told.code[:1],
            backward_code=self.told.code[1:],
            is_loss=self.terms.upstream is None and (self.is_scalar or not takes_upstream),
            takes_upstream=takes_upstream,
            takes_other_sizes=True,
            owner=self.layer,
            unkept=self.unkept,
            upstream_at=self.calling.upstream_at,
        )


def by_forward_or_call(layer: object, inputs: Sequence[object], terms: Terms) -> Layer:
    """Return an object as a layer: by its forward pass, or by a call that runs this.

    The call may keep what backward fails without.
    """
    try:
        return Layer(layer, inputs, terms)
    except TheirError:
        code = getattr(read(layer, "__call__"), "__code__", None)
        if code is not None and "forward" in code.co_names:
            with suppress(CheckError):
                return Layer(layer, inputs, terms, "__call__")
        raise


def _without_views(parameters: Sequence[Parameter]) -> list[Parameter]:
    """Return parameters but for the views of another one whose gradients are of that one's."""
    read = [(p, p.value, p.gradient()) for p in parameters]
    arrays = [(p, (value, g)) for p, value, g in read if is_array(value) and is_array(g)]
    inner = {p for p, held in arrays if any(_is_in(held, whole) for _, whole in arrays)}
    return [p for p in parameters if p not in inner]


def _is_in(part: tuple[Array, Array], whole: tuple[Array, Array]) -> bool:
    """Tell whether an array and its gradient are views of a larger one and of its gradient."""
    pairs = zip(part, whole, strict=True)
    return all(a.size < b.size and np.shares_memory(a, b) for a, b in pairs)


def replaced_gradients(
    layer: object, before: Mapping[str, tuple[Parameter, object]]
) -> list[Finding]:
    """Return what to say of a list of gradients in which backward has put other arrays.

    That is right by itself. But a network keeps the arrays that it has found in the list.
    """
    attributes = attributes_of(layer)
    lists = [n for n in GRADIENT_LISTS if isinstance(attributes.get(n), list)]
    kept = [(p, gradient) for p, gradient in before.values() if lists and not p.aliases]
    pairs = ((gradient, p.gradient()) for p, gradient in kept)  # of several it would be their sum
    replaced = any(is_array(a) and is_array(b) and a is not b for a, b in pairs)
    return [found("replaces_gradients", holder=lists[0])] if replaced else []


def _made_for(kept: object, session: Session) -> list[Array]:
    """Return the arrays that a forward pass has made, or written into, for the backward pass."""
    arrays = [a for a in reach(kept) if isinstance(a, np.ndarray) and a.dtype != object]
    return [a for a in arrays if not session.start.is_as_before(a)]


def _changed(noted: Sequence[tuple[Array, int]]) -> list[Array]:
    return [array for array, before in noted if checksum(array) != before]


def _shares(array: Array, others: Sequence[object]) -> bool:
    return any(isinstance(o, np.ndarray) and np.may_share_memory(array, o) for o in others)


def names_in(layer: object, inputs: Sequence[str]) -> list[str]:
    """Return the names of a layer's inputs, and of what it keeps."""
    now = Kept(layer)
    kept = [p.name for p in now.every] + [h.name for h in now.held]
    return [*inputs, *dict.fromkeys(one for name in kept for one in name.split(" = "))]
