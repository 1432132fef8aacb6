"""An object's two passes: run from the outside, copied with other values in place of its arrays."""

from __future__ import annotations

import copy
import inspect
import io
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from types import GeneratorType
from typing import Any

import numpy as np

from ...pytree import leaves, with_leaves
from ...state import is_vocabulary
from ...validation import Array
from ..finding import Finding, found
from ..source import Place
from .adapter import Adapter, Terms, Values
from .conventions import (
    CACHES,
    DERIVATIVES,
    RATES,
    is_target_first,
    means_upstream,
)
from .inputs import by_company
from .objects import (
    Held,
    accepts,
    attributes_of,
    changes_of,
    held_at,
    input_gradient_of,
    is_gradient,
    methods_of,
    nested,
    optional_names,
    output_of,
    positional_names,
    required_names,
    signature_of,
)
from .parameters import Kept, resets_of
from .returned import arranged, by_position, flattened, is_of_loss, returned_names
from .subject import CheckError, called, described, is_array, is_float_array, upstream_of

# What a copy of an object shares with it, since it cannot be copied; and long lists of words.
_SHARED = (type(threading.Lock()), type(threading.RLock()), io.IOBase, GeneratorType)


# What an argument of backward is: the gradient of an output, an input, an output, what forward has
# left under a name, the cache that it has returned, or the rate of an update.
Source = tuple[str, Any]


RETURNED = "gradients"  # what begins the names of those that backward returns without a name
RATE = 0.5  # of updates: exact, and not 1, with which one that lacks the rate would be right


@dataclass(frozen=True)
class Calling:
    """A way to call a backward pass."""

    sources: tuple[Source, ...]
    is_derivative: bool = False  # what it returns is still to be multiplied by the upstream
    share: float | None = None  # the fixed upstream of a loss for each example: of their sum 1
    is_open: bool = False  # whether names alone did not tell it

    @property
    def takes_upstream(self) -> bool:
        """Whether the gradient depends on an upstream gradient."""
        return self.is_derivative or any(kind == "upstream" for kind, _ in self.sources)

    @property
    def upstream_at(self) -> int:
        """Where the upstream gradient stands among the arguments; -1 where it is not there."""
        kinds = [kind for kind, _ in self.sources]
        return kinds.index("upstream") if "upstream" in kinds else -1

    def arguments(self, layer: ObjectPasses, ups: Sequence[Array]) -> list[Any]:
        """Return what the backward pass is given, right after the forward pass."""
        given: dict[str, Callable[[Any], Any]] = {
            "upstream": lambda i: ups[i],
            "input": lambda i: layer.inputs[i],
            "output": lambda i: leaves(layer.last)[i],
            "left": lambda name: attributes_of(layer.layer)[name],
            "cache": lambda _: layer.cache,
            "rate": lambda _: RATE,
        }
        return [given[kind](what) for kind, what in self.sources]

    def result(self, result: Any, ups: Sequence[Array]) -> Any:
        """Return the gradients of what a backward pass has returned."""
        fits = self.is_derivative and np.shape(result) == ups[0].shape
        return result * ups[0] if fits else result

    def said(self, layer: ObjectPasses) -> list[Finding]:
        """Return what is to be said of it: what no name has told."""
        method, said = layer.backward_label, []
        if self.is_derivative or self.is_open:
            given = [(kind, layer.names[i] if kind == "input" else i) for kind, i in self.sources]
            times = self.is_derivative
            said = [found("called_with", method=method, arguments=given, times=times)]
        if self.share is not None:
            said.append(found("each_loss", method=method, share=self.share))
        return said


def keeps_cache(result: object, backward: object) -> bool:
    """Tell whether the last of what forward returned is a cache, which backward is given back."""
    taken = required_names(backward)
    if type(result) is not tuple or len(result) < 2 or len(taken) != len(result):
        return False
    name, last = taken[-1], result[-1]
    return name in CACHES or not is_array(last) or not means_upstream(name)


class ObjectPasses(Adapter):
    """Runs somebody's object with ``forward(*inputs)`` and ``backward(upstream)``."""

    def __init__(self, layer: object, inputs: Sequence[object], terms: Terms) -> None:
        self.layer, kind = layer, type(layer).__name__
        self.forward_name, self.backward_name = methods_of(layer)
        self.label = f"{kind}.{self.forward_name}"
        self.backward_label = f"{kind}.{self.backward_name}"
        signature, self.taken = map(signature_of, (self.forward_method, self.backward_method))
        names = positional_names(signature, len(inputs))
        self._require_call(signature, inputs)
        # An attribute that is called like an input is a cache of it, from an earlier call.
        self.look()
        held = [p.value for p in self.now.arrays if p.name not in names]
        reached = terms.session.start.items
        super().__init__(inputs, names, terms, held)
        shared = [i for i in reached if issubclass(type(i), _SHARED) or is_vocabulary(i)]
        self.shared = {id(item): item for item in (*shared, *sys.modules.values())}
        self.takes_nothing = terms.upstream is None and accepts(self.taken, 0)
        self.required = required_names(self.taken)
        self.calling: Calling | None = None
        self.cache: Any = None
        self.last: Any = None  # what forward has returned, without a cache
        self.has_cache: bool | None = None
        self.has_reset = True  # whether the layer can be run behind its reset
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

    def names_left(self) -> dict[int, str]:
        """Return what the arrays are called that the layer keeps: its attributes."""
        return {id(h.value): f"self.{h.name}" for h in reversed(self.now.held)}

    # -------------------- the two passes --------------------

    def run(self) -> Any:
        """Run the forward pass."""
        result = output_of(self.layer, called(self.label, self.forward_method, *self.inputs))
        if self.has_cache is None:
            self.has_cache = keeps_cache(result, self.taken)
        self.cache = result[-1] if self.has_cache else None
        self.last = self.without_cache(result)
        return self.last

    def without_cache(self, result: Any) -> Any:
        """Return what forward has returned without the cache."""
        if not self.has_cache:
            return result
        return result[0] if len(result) == 2 else result[:-1]

    def run_backward(self, ups: Sequence[Array]) -> Any:
        """Run the backward pass, and return what it returns or leaves for the inputs."""
        if self.calling is not None:
            arguments: Sequence[Any] = self.calling.arguments(self, ups)
        elif self.takes_nothing and len(ups) == 1 and ups[0].ndim == 0 and ups[0] == 1:
            arguments = []
        elif len(ups) > 1 and not accepts(self.taken, len(ups)):
            arguments = [with_leaves(self.structure, list(ups))]
        else:
            arguments = ups
        before = [np.array(held_at(self.layer, h.path)) for h in self.updated]
        method = self.backward_method
        default = {n: RATE for n, v in optional_names(self.taken).items() if n in RATES and v == 1}
        method = partial(method, **default) if default else method
        result = called(self.backward_label, method, *arguments)
        changes = changes_of(self.updated, before, self.layer)
        self.changes = {n: change - self.decays.get(n, 0.0) for n, change in changes.items()}
        result = input_gradient_of(self.layer, result)
        if self.calling is not None:
            result = self.calling.result(result, ups)
        result = flattened(by_company(result, dict), self.names, self.inputs)
        self.result = arranged(result, self.inputs, self.given_values(), self.backward_method)
        return self.result

    def reset(self) -> None:
        """Reset the gradients of a layer that accumulates them."""
        for reset in resets_of(self.layer) if self.has_reset else ():
            reset()

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
    def takes_upstream(self) -> bool:
        """Whether the backward pass takes an upstream gradient."""
        if self.calling is not None:
            return self.calling.takes_upstream
        return not (self.is_scalar and self.takes_nothing)

    @property
    def is_scalar(self) -> bool:
        """Whether the output is one number."""
        return len(self.outputs) == 1 and self.outputs[0].ndim == 0

    def upstreams(self, rng: np.random.Generator) -> list[Array]:
        """Return the upstream gradient: a random one, unless that of a loss is fixed."""
        share = None if self.calling is None else self.calling.share
        if self.terms.upstream is None and share is not None:
            return [np.full_like(out, share) for out in self.outputs]
        if not self.takes_upstream and self.is_scalar and self.terms.upstream is None:
            return [np.ones((), dtype=self.outputs[0].dtype)]
        return upstream_of(self.outputs, self.terms.upstream, rng)

    @property
    def takes_no_upstream(self) -> bool:
        """Whether the backward pass can be given nothing, and nothing else."""
        return accepts(self.taken, 0) and not accepts(self.taken, 1)

    @property
    def may_be_open(self) -> bool:
        """Whether backward may be called otherwise than with an upstream gradient alone."""
        return self.may_be_derivative or len(self.required) > 1 or self.takes_no_upstream

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

    def by_name(self) -> dict[str, Any]:
        """Return the gradients of the inputs by name."""
        rest = self.result
        if self.claimed and isinstance(rest, tuple):
            rest = tuple(g for i, g in enumerate(rest) if i not in self.claimed)
        elif self.claimed and isinstance(rest, dict):
            rest = {key: g for key, g in rest.items() if key not in self.claimed}
        names = list(self.shapes)
        if isinstance(rest, tuple) and is_target_first(names) and len(rest) == 2:
            rest = rest[0] if rest[1] is None else rest  # None is that of the targets
        if self.is_of_loss(rest) and is_target_first(names) and None not in self.shapes.values():
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
        kinds = {kind for kind, _ in self.calling.sources} if self.calling is not None else {""}
        is_loss = kinds <= {"input"} or is_target_first([*self.shapes])
        is_one = not isinstance(result, tuple | dict) and is_loss
        return is_one or is_of_loss(self.structure, result)

    def at(self, gradient: Held) -> Any:
        """Return what stands in the place of a gradient: in the layer, or in what backward gave."""
        return held_at(self.result if gradient.holder is None else self.layer, gradient.path)
