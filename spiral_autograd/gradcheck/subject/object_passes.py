"""An object's two passes: run from the outside, copied with other values in place of its arrays."""

from __future__ import annotations

import copy
import inspect
import io
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from functools import cached_property, partial
from types import GeneratorType
from typing import Any

import numpy as np

from ...pytree import leaves, with_leaves
from ...state import is_vocabulary
from ...validation import Array
from ..finding import Finding
from ..source import Place
from .adapter import Adapter, Terms, Values
from .calling import PLAIN, Told, TwoFunctions, given_rates, place_of_cache
from .conventions import CACHES, DERIVATIVES, is_target_first, means_upstream
from .inputs import by_company
from .objects import (
    Held,
    accepts,
    changes_of,
    held_at,
    input_gradient_of,
    is_gradient,
    methods_of,
    nested,
    output_of,
    positional_names,
    required_names,
    signature_of,
)
from .parameters import Kept, Parameter, resets_of, run_resets
from .returned import arranged, by_position, flattened, other_shapes, returned_names
from .subject import (
    MISSING,
    CheckError,
    Gradients,
    called,
    described,
    draw_upstream,
    given_upstream,
    is_float_array,
)

# What a copy of an object shares with it, since it cannot be copied; and long lists of words.
_SHARED = (type(threading.Lock()), type(threading.RLock()), io.IOBase, GeneratorType)


Resets = Callable[[object], list[Callable[[], Any]]]

RETURNED = "gradients"  # what begins the names of those that backward returns without a name


class ObjectPasses(Adapter):
    """Runs somebody's object with ``forward(*inputs)`` and ``backward(upstream)``."""

    def __init__(
        self, layer: object, inputs: Sequence[object], terms: Terms, forward: str = ""
    ) -> None:
        self.layer, self.is_pair = layer, isinstance(layer, TwoFunctions)
        usual, self.backward_name = methods_of(layer)
        self.forward_name = forward or usual
        signature, self.taken = map(signature_of, (self.forward_method, self.backward_method))
        self.told = layer.told if isinstance(layer, TwoFunctions) else self._told(signature, inputs)
        self.label, self.backward_label = self.told.label, self.told.backward_label
        self._require_call(signature, inputs)
        names = self.told.names
        # An attribute that is called like an input is a cache of it, from an earlier call.
        self.look()
        held = [p.value for p in self.now.arrays if p.name not in names]
        reached = terms.session.start.items
        super().__init__(inputs, names, terms, held)
        shared = [i for i in reached if issubclass(type(i), _SHARED) or is_vocabulary(i)]
        shared.append(self.told)
        self.shared = {id(item): item for item in (*shared, *sys.modules.values())}
        self.takes_nothing = terms.upstream is None and accepts(self.taken, 0)
        # Of two functions with *args, or of compiled code, what is usual.
        self.required = required_names(self.taken) or ["dout", "cache"] * self.is_pair
        self.calling = PLAIN
        self.cache: Any = None
        self.has_run = False
        self.cache_at: int | None = None  # where a cache stands in what forward returns
        # What resets it: not by its own method where it cannot be run behind that.
        self.resets: Resets = resets_of
        self.claimed: set[Any] = set()  # the places of parameters' gradients in what it returns
        self.updated: list[Held] = []  # the arrays that backward changes itself
        self.changes: dict[str, Array] = {}  # and by how much it has made them smaller
        self.decays: dict[str, Array] = {}  # less what it takes of them whatever the gradient is
        self.unwritten: list[Held] = []  # the arrays at the start that a forward pass leaves alone
        self.numbers: dict[str, Any] = {}  # the like of these, by name
        # What is said of gradients that are computed and not kept.
        self.unkept: dict[str, tuple[Finding, Place]] = {}

    @property
    def forward_method(self) -> Any:
        """The layer's own forward pass."""
        return getattr(self.layer, self.forward_name)

    @property
    def backward_method(self) -> Any:
        """The layer's own backward pass."""
        return getattr(self.layer, self.backward_name)

    def _told(self, signature: inspect.Signature | None, inputs: Sequence[object]) -> Told:
        kind, names = type(self.layer).__name__, positional_names(signature, len(inputs))
        labels = f"{kind}.{self.forward_name}", f"{kind}.{self.backward_name}"
        return Told(*labels, names, (self.forward_method, self.backward_method))

    def _require_call(self, signature: inspect.Signature | None, inputs: Sequence[object]) -> None:
        try:
            if signature is not None:
                signature.bind(*inputs)
        except TypeError as error:
            raise CheckError(
                f"{self.label}{signature} cannot be called with "
                f"({', '.join(map(described, inputs))}): {error}; the inputs are given by "
                "position, in their order"
            ) from None

    def look(self) -> None:
        """Take stock of what the layer keeps now."""
        self.now = Kept(self.layer)

    @property
    def left(self) -> Any:
        """What the forward pass has left for the backward pass."""
        return self.cache if self.is_pair and self.cache_at is not None else self.layer

    def names_left(self) -> dict[int, str]:
        """Return what the arrays are called that the layer keeps, or that are in the cache."""
        names = {id(h.value): f"self.{h.name}" for h in reversed(self.now.held)}
        entries = [(name, v) for name, steps, v in nested("cache", self.cache) if steps]
        return names | {id(v): name for name, v in entries if is_float_array(v)}

    # -------------------- the two passes --------------------

    def run(self) -> Any:
        """Run the forward pass."""
        result = output_of(self.layer, called(self.label, self.forward_method, *self.inputs))
        if not self.has_run:
            self.has_run, named = True, (self.required, self.names)
            self.cache_at = place_of_cache(result, *named, is_pair=self.is_pair)
        self.cache = None if self.cache_at is None else result[self.cache_at]
        self.structure = self.without_cache(result)
        return self.structure

    def without_cache(self, result: Any) -> Any:
        """Return what forward has returned without the cache."""
        if self.cache_at is None:
            return result
        rest = (*result[: self.cache_at], *result[self.cache_at + 1 :])
        return rest[0] if len(rest) == 1 else rest

    @property
    def parts(self) -> list[Any]:
        """The outputs that may each have an upstream gradient: a list or dict is one.

        But not where backward takes so many.
        """
        held, n = self.structure, sum(map(means_upstream, self.required))
        if type(held) not in (tuple, list, dict) or len(held) < 2:
            return [held]
        is_one = type(held) is not tuple and len(held) != n
        return [held] if is_one else list(held.values() if isinstance(held, dict) else held)

    def by_output(self, ups: Sequence[Array]) -> list[Any]:
        """Return the upstream gradient of each output, in its structure."""
        return with_leaves(self.parts, list(ups)) if len(ups) > 1 else list(ups)

    def run_backward(self, ups: Sequence[Array]) -> Any:
        """Run the backward pass, and return what it returns or leaves for the inputs."""
        given = self.by_output(ups), self.inputs, self.structure, self.layer, self.cache
        arguments = self.calling.arguments(*given)
        before = [np.array(held_at(self.layer, h.path)) for h in self.updated]
        method = self.backward_method
        rates = given_rates(self.taken)
        method = partial(method, **rates) if rates else method
        result = called(self.backward_label, method, *arguments)
        changes = changes_of(self.updated, before, self.layer)
        self.changes = {n: change - self.decays.get(n, 0.0) for n, change in changes.items()}
        result = input_gradient_of(self.layer, result)
        result = self.calling.result(result, ups, self.inputs)
        result = flattened(by_company(result, dict), self.names, self.inputs)
        self.result = arranged(result, self.inputs, self.given_values(), self.backward_method)
        return self.result

    def reset(self) -> None:
        """Reset the gradients of a layer that accumulates them, as far as they are made."""
        run_resets(self.resets(self.layer))

    def gradients(
        self, ups: list[Array], between: Callable[[object], None] | None = None
    ) -> list[Any]:
        """Run both passes, and return the gradient of each value."""
        self.reset()
        self.run()
        if between is not None:
            between(self.left)
        self.run_backward(ups)
        return self.read()

    def take(self, more: Sequence[Parameter]) -> None:
        """Take more parameters, and make the first call again."""
        self.parameters += more
        with self.session.fresh():
            grads = self.gradients([np.array(u) for u in self.upstream])
            self.first = Gradients.of(grads, self.session)
            self.remarks += other_shapes((p.name, p.gradient(), p.value) for p in more)

    def substitute(self, replacements: Sequence[Any], values: Values = None) -> list[Any]:
        """Run the forward pass of a copy.

        It shares what cannot be copied, and the gradients: large, and restored after each run.
        """
        gradients = [p.gradient() for p in self.parameters]
        own = {id(g): g for g in gradients if isinstance(g, np.ndarray)}
        memo = self.shared | own | self.standing_in(replacements, values)
        other = copy.deepcopy(self.layer, memo)
        arguments = [memo.get(id(value), value) for value in self.inputs]
        arguments = [copy.deepcopy(argument, dict(memo)) for argument in arguments]
        result = getattr(other, self.forward_name)(*arguments)
        return leaves(self.without_cache(output_of(other, result)))

    def named_values(self) -> list[tuple[str, Array]]:
        """Return the arrays of floats among the inputs, and those that the layer keeps."""
        known = {id(p.value): (p.name, p.value) for p in self.now.arrays}
        known |= {id(value): (name, value) for name, value in self.given_values()}
        return [(name, value) for name, value in known.values() if is_float_array(value)]

    @property
    def is_scalar(self) -> bool:
        """Whether the output is one number."""
        return len(self.outputs) == 1 and self.outputs[0].ndim == 0

    def upstreams(self, rng: np.random.Generator) -> list[Array]:
        """Return the upstream gradient: a random one, unless that of a loss is fixed."""
        given, share, parts = self.terms.upstream, self.calling.share, self.parts
        known = self.calling.differentiated(len(parts))
        is_known = [k for k, part in zip(known, parts, strict=True) for _ in leaves(part)]
        there = [out for out, k in zip(self.outputs, is_known, strict=True) if k]
        if given is not None:
            ups = given_upstream(given, there)
        elif share is not None:
            ups = [np.full_like(out, share) for out in there]
        else:
            ups = draw_upstream(there, rng)
        left = iter(ups)
        zeros = (np.zeros(out.shape, np.result_type(out, np.float32)) for out in self.outputs)
        return [next(left) if k else zero for k, zero in zip(is_known, zeros, strict=True)]

    @property
    def takes_no_upstream(self) -> bool:
        """Whether the backward pass can be given nothing, and nothing else."""
        return accepts(self.taken, 0) and not accepts(self.taken, 1)

    @property
    def may_be_open(self) -> bool:
        """Whether backward may be called otherwise than with an upstream gradient alone."""
        is_other = self.takes_no_upstream or not set(CACHES).isdisjoint(self.required)
        return self.may_be_derivative or len(self.required) > 1 or is_other or self.is_pair

    @property
    def may_be_derivative(self) -> bool:
        """Whether what backward returns may have to be multiplied by the upstream gradient."""
        return self.backward_name in DERIVATIVES or self.takes_input

    @cached_property
    def takes_input(self) -> bool:
        """Whether backward takes one argument, with the name of an input: it may be that."""
        taken = self.required
        return len(taken) == 1 and taken[0] in self.names and not means_upstream(taken[0])

    def read_inputs(self) -> list[Any]:
        """Return the gradient of each input after both passes."""
        return [self.gradient_of(name) for name, _ in self.given_values()]

    def gradient_of(self, name: str) -> object:
        """Return the gradient of an input; MISSING where there is none."""
        return self.by_name().get(name, MISSING)

    def by_name(self) -> dict[str, Any]:
        """Return the gradients of the inputs that backward has returned, by name."""
        rest, taken = self.result, self.claimed  # by the parameters
        if isinstance(rest, tuple) and taken:
            rest = tuple(g for i, g in enumerate(rest) if i not in taken)
        elif isinstance(rest, dict):
            rest = {key: g for key, g in rest.items() if key not in taken}
        names = list(self.shapes)
        if is_target_first(names, of_loss=True):
            if isinstance(rest, tuple) and len(rest) == 2 and rest[1] is None:
                rest = rest[0]  # None is that of the targets
            if self.is_of_loss(rest) and None not in self.shapes.values():
                rest = {f"d{names[1]}": rest}  # a loss has one gradient
        return by_position(self.backward_label, rest, self.shapes, self.constant, surplus=True)

    def returned(self) -> Iterator[Held]:
        """Yield the gradients that backward has returned, by their keys, or as they are called."""
        result, method = self.result, self.backward_method
        names = returned_names(method, len(result)) if isinstance(result, tuple) else []
        for _, steps, value in nested("", result):
            if is_gradient(value):
                name = names[steps[0]] if names else ""
                parts = (name, *steps[1:]) if name else (RETURNED, *steps)
                yield Held(".".join(map(str, parts)), value, None, steps)

    def is_of_loss(self, result: object) -> bool:
        """Tell whether one gradient is that of a loss, which has none for its targets."""
        is_given = {kind for kind, _ in self.calling.sources} <= {"input"}
        is_loss = is_given or is_target_first([*self.shapes]) or self.is_scalar
        return is_loss and not isinstance(result, tuple | dict)

    def at(self, gradient: Held) -> Any:
        """Return what stands in the place of a gradient: in the layer, or in what backward gave."""
        return held_at(self.result if gradient.holder is None else self.layer, gradient.path)
