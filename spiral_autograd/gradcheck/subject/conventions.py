"""How people name and write things: each convention that is understood, as a row of a table."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Iterable, Sequence
from functools import lru_cache
from itertools import chain
from typing import Any

import numpy as np

from ... import state
from ..finding import Finding, found
from ..guard import CheckError, theirs

# -------------------- layers --------------------


def spelled(phrases: str) -> list[str]:
    """Return names in each spelling.

    Examples
    --------
    >>> spelled("loss, back prop")
    ['loss', 'back_prop', 'backprop', 'backProp']
    """
    words = [phrase.split() for phrase in phrases.split(",")]
    forms = [("_".join(w), "".join(w), w[0] + "".join(map(str.title, w[1:]))) for w in words]
    return list(dict.fromkeys(chain.from_iterable(forms)))


FORWARD = [
    *spelled("forward, __call__"),
    *spelled("fprop, forward pass, forward prop, forward propagation, forward propagate"),
    *spelled("feed forward, fwd, forwards, propagate"),
]
BACKWARD = [
    *spelled("backward, back prop, bprop, backward pass, backward prop, backward propagation"),
    *spelled("back propagation, back propagate, backward propagate, bwd, backwards"),
]

# What they are called where nothing has one of these names: an activation and its derivative.
VALUES = spelled(
    "activate, activation, compute, calculate, call, apply, process, run, transform, output, "
    "evaluate, loss, compute loss, calc loss, cost, error, function, predict"
)
DERIVATIVES = spelled(
    "gradient, grad, gradients, grads, derivative, derive, deriv, prime, compute gradient, "
    "compute gradients, calc gradient, calc gradients, calculate gradient, get gradient, "
    "loss gradient, loss derivative, loss prime, error derivative, diff"
)

# Arguments of backward: by which an update is multiplied; and what forward has returned for it.
RATES = spelled(
    "lr, learning rate, learn rate, eta, alpha, rate, epsilon, step size, l rate, lrate"
)
CACHES = "cache caches memory mem saved ctx context residuals intermediates tape".split()

# Where a pass that returns nothing leaves what it has computed.
OUTPUTS = "output outputs out y Y a A activation activations result value z Z h".split()
INPUT_GRADIENTS = [
    *"dinputs dinput d_inputs d_input dx dX d_x grad_input grad_inputs input_grad".split(),
    *"input_gradient gradInput gradInputs grad_x x_grad gx d_in din dA_prev dA".split(),
]

# A list or dict of parameters, or a method that returns one, and that of their gradients.
CONTAINERS = (
    ("params", "grads"),
    ("parameters", "gradients"),
    ("params", "gradients"),
    ("parameters", "grads"),
    ("weights", "gradients"),
    ("weights", "grads"),
    ("params", "dparams"),
    ("_params", "_grads"),
    ("get_params", "get_grads"),
    ("get_parameters", "get_gradients"),
)

# An object that is a parameter: its array, and the gradient of that.
HOLDERS = (
    ("data", "grad"),
    ("value", "grad"),
    ("val", "grad"),
    ("array", "grad"),
    ("data", "gradient"),
    ("value", "gradient"),
    ("values", "grads"),
    ("data", "diff"),
    ("tensor", "grad"),
    ("v", "g"),
)

RESETS = [
    form.format(verb, what)
    for verb in ("zero", "clear", "reset", "flush", "init", "zeros")
    for what in ("grad", "grads", "gradient", "gradients")
    for form in ("{}_{}", "{}{}")
] + "zeroGrad zeroGrads clearGrad clearGrads resetGrad resetGrads zeroGradParameters".split()

# Kept among the parameters, and without a gradient by right.
STATISTICS = ("running", "moving")

# Constants of a loss, which have no gradient by right.
TARGETS = "t y y_true true target targets label labels mask masks".split()

# What begins a sequence: it may have a gradient that nobody keeps.
STATES = "h c s h0 c0 s0 h_0 c_0 h_prev c_prev prev_h prev_c state hidden cell".split()

# Numbers that people train.
TRAINED = "w weight b bias alpha beta gamma slope scale shift".split()

# Where the gradients of attributes may lie: lists and dicts.
GRADIENT_LISTS = "grads gradients grad gradient _grads _gradients dparams".split()
GRADIENT_CONTAINERS = (*GRADIENT_LISTS, "derivatives", "deltas")

# What keeps values for the backward pass of a custom function, and what it calls them.
CONTEXTS = "ctx context cx _ctx fctx fn_ctx".split()
SAVED = "saved_tensors saved_values saved_variables saved".split()

# What a forward pass of a pair keeps for the backward pass.
CACHES = [*CONTEXTS, *"cache caches cached memory res residual residuals saved".split()]

# -------------------- names of gradients --------------------

_GRADIENT = (
    "{} d{} d_{} grad_{} {}_grad g{} g_{} grad{} {}grad gradient_{} {}_gradient gradient{} "
    "{}gradient {}_diff grads_{} {}_grads {}_gradients {}_derivative dL_d{} dLd{} dl_d{} dLoss_d{} "
    "dloss_d{} dJ_d{} dJd{} dE_d{} dEd{} dC_d{} dCd{} d_c_{} dcost_d{} nabla_{} nabla{} delta_{} "
    "delta{} {}_delta diff_{} accum_d{} acc_d{} accumulated_d{} accum_grad_{} sum_d{} total_d{} "
    "d{}_sum d{}_acc d{}_accum {}_d"
).split()
_SYNONYMS = (
    "W w weight weights kernel kernels".split(),
    "b bias biases".split(),
)
_GRADIENT_WORDS = ("grad", "nabla", "delta", "diff", "deriv")
_OPTIMIZER_WORDS = "vel mom cache adam rms step update prev last old ema avg".split()


def gradient_keys(
    names: Iterable[object], name: str, others: Iterable[object] = (), *, itself: bool = True
) -> list[Any]:
    """Return which of `names` may be that of the gradient of `name`, the likeliest first.

    What is exactly that of one of the `others`, which have gradients too, is not this one's. It may
    have the name `itself`, as in a dict of gradients.
    """
    return list(_gradient_keys(tuple(names), name, frozenset(map(str, others)), itself))


@lru_cache(maxsize=4096)
def _gradient_keys(
    names: tuple[object, ...], name: str, others: frozenset[str], itself: bool
) -> tuple[object, ...]:
    there = {key: key for key in names if itself or key != name}
    folded = {str(key).lstrip("_").lower(): key for key in reversed(there)}
    others, found = others - {name}, []
    for stems in ([name, name.lstrip("_")], _synonyms(name, others)):
        wanted = list(chain.from_iterable(_forms(stem, itself) for stem in stems))
        found += [there[key] for key in wanted if key in there]
        found += [folded[key.lower()] for key in wanted if key.lower() in folded]
    taken = set(chain.from_iterable(_forms(other, itself=False) for other in others))
    taken -= {*_forms(name, itself=False)}
    return tuple(key for key in dict.fromkeys(found) if key not in taken)


def gradient_key(
    names: Iterable[object], name: str, others: Iterable[object] = (), *, itself: bool = True
) -> Any:
    """Return which of `names` is that of the gradient of `name`; None where none is.

    Examples
    --------
    >>> gradient_key(["dW", "db"], "b"), gradient_key(["_grad_w"], "_w"), gradient_key(["dW"], "b")
    ('db', '_grad_w', None)
    >>> gradient_key(["weight_grad"], "W"), gradient_key(["db1"], "bias1")
    ('weight_grad', 'db1')
    """
    return next(iter(gradient_keys(names, name, others, itself=itself)), None)


@lru_cache(maxsize=4096)
def _forms(stem: str, itself: bool) -> tuple[str, ...]:
    """Return what the gradient of a name may be called; never what lists of gradients are."""
    found = [form.format(stem) for form in _GRADIENT[1:]]
    return (*([stem] if itself else []), *(k for k in found if k not in GRADIENT_CONTAINERS))


def _synonyms(name: str, others: frozenset[str]) -> list[str]:
    """Return what else people call the same, as weights1 for W1; none that something else has."""
    stem = name.strip("_").rstrip("0123456789_")
    number = name.strip("_")[len(stem) :]
    same = next((words for words in _SYNONYMS if stem in words), [])
    ends = dict.fromkeys([number, number.lstrip("_"), f"_{number}" if number else ""])
    return [word + end for word in same for end in ends if word + end not in {name, *others}]


def last_name(path: str) -> str:
    """Return what a parameter is called where it is kept.

    Examples
    --------
    >>> last_name("layers[0].W")
    'W'
    """
    return path.split(".")[-1]


def is_statistic(name: str) -> bool:
    """Tell whether something is a running statistic by its name, without a gradient by right."""
    return any(word in name for word in STATISTICS)


def is_like_gradient(path: str) -> bool:
    """Tell whether a path has a word for gradients in it.

    Examples
    --------
    >>> is_like_gradient("dW"), is_like_gradient("W_grad"), is_like_gradient("velocity.W")
    (True, True, False)
    """
    steps = re.split(r"[.\[\]]", path.lower())
    begun = any(step.strip("_")[:1] in ("d", "g") and len(step) > 1 for step in steps)
    words = any(word in path.lower() for word in _GRADIENT_WORDS)
    return begun or words or path.endswith(("_d", "_g"))


def is_of_optimizer(name: str, stem: str) -> bool:
    """Tell whether an array is called like a velocity or a moment of what has the name `stem`."""
    rest = name.lower().replace(stem.strip("_").lower(), "", 1).strip("_.")
    return rest in ("v", "m", "s") or any(word in rest for word in _OPTIMIZER_WORDS)


def differing(
    names: Iterable[object], keys: Iterable[object], places: Sequence[str] = ()
) -> list[Finding]:
    """Return which keys of gradients are those of the parameters but for upper and lower case.

    Examples
    --------
    >>> [dict(one.fields) for one in differing(["W", "b"], ["w", "b"])]
    [{'key': 'w', 'name': 'W', 'places': ()}]
    """
    there, names = list(keys), list(names)
    pairs = [(name, key) for name in names for key in there if name not in there]
    return [
        found("keys_differ", key=key, name=name, places=tuple(places))
        for name, key in pairs
        if key not in names and str(key).lower() == str(name).lower()
    ]


# -------------------- what somebody's object has --------------------

_READING = theirs()


def read(item: object, name: str) -> Any:
    """Return an attribute; None where there is none, or where reading it raises.

    A property may raise before the layer is built, or before there are gradients.
    """
    try:
        with _READING:
            return getattr(item, name, None)
    except CheckError:
        return None


def attributes_of(item: object) -> dict[str, Any]:
    """Return an object's own attributes, also those in slots."""
    held = {slot.__name__: state.standing_in(slot, item) for slot in state.slots_of(type(item))}
    present = {name: value for name, value in held.items() if value is not state.ABSENT}
    return {**present, **getattr(item, "__dict__", {})}


def asker(item: object) -> Callable[[str], bool]:
    """Return what tells whether an object has an attribute, even one that raises now."""
    names = set(read(item, "__dict__") or ()).union(*(vars(base) for base in type(item).__mro__))
    if "__getattr__" in names:  # which may make up others
        return lambda name: name in names or read(item, name) is not None
    return names.__contains__


def method_name(item: object, names: Iterable[str]) -> str | None:
    """Return the first of `names` that an object has as a method."""
    return next((name for name in names if callable(read(item, name))), None)


def reset_of(item: object) -> Callable[[], object] | None:
    """Return the method by which an object that accumulates its gradients is reset."""
    name = method_name(item, filter(asker(item), RESETS))
    return None if name is None else getattr(item, name)


def optional_names(function: Any) -> dict[str, Any]:
    """Return the arguments that need not be given, with what they are then."""
    try:
        parameters = list(inspect.signature(function).parameters.values())
    except (TypeError, ValueError):
        return {}
    return {p.name: p.default for p in parameters if p.default is not p.empty}


def required_names(function: Any) -> list[str]:
    """Return the arguments that must be given by position; none where it takes any number."""
    try:
        parameters = list(inspect.signature(function).parameters.values())
    except (TypeError, ValueError):
        return []
    if any(p.kind == p.VAR_POSITIONAL for p in parameters):
        return []
    kinds = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    return [p.name for p in parameters if p.default is p.empty and p.kind in kinds]


def output_of(layer: object, result: object) -> Any:
    """Return the output of a forward pass: what it returned, else what it left in the layer."""
    return _returned_or_left(layer, result, OUTPUTS)


def input_gradient_of(layer: object, result: object) -> Any:
    """Return the input's gradient: what backward returned, else what it left in the layer."""
    return _returned_or_left(layer, result, INPUT_GRADIENTS)


def _returned_or_left(layer: object, result: object, names: Sequence[str]) -> object:
    if result is not None:
        return result
    attributes = attributes_of(layer)
    return next((attributes[name] for name in names if name in attributes), None)


def accepts(function: Any, count: int) -> bool:
    """Tell whether a function can be called with so many positional arguments."""
    try:
        inspect.signature(function).bind(*range(count))
    except (TypeError, ValueError):
        return False
    return True


def positional_names(function: Any, count: int) -> list[str]:
    """Return the names of a function's first arguments.

    Examples
    --------
    >>> positional_names(lambda x, *more: x, 3)
    ['x', 'more[0]', 'more[1]']
    """
    try:
        parameters = list(inspect.signature(function).parameters.values())
    except (TypeError, ValueError):
        parameters = []
    names = [p.name for p in parameters if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
    more = next((p.name for p in parameters if p.kind == p.VAR_POSITIONAL), "input")
    if isinstance(function, np.ufunc):  # older NumPys do not say how they are called
        names = ["x"] if function.nin == 1 else [f"x{i + 1}" for i in range(function.nin)]
    first = len(names) if more != "input" else 0
    return [names[i] if i < len(names) else f"{more}[{i - first}]" for i in range(count)]


_UPSTREAM = ("d", "g", "up", "err", "top", "loss", "out", "v")
_OUTPUT = ("y", "out", "act", "sig", "tanh")


def means_upstream(name: str) -> bool:
    """Tell whether an argument is an upstream gradient, by its name."""
    return name.lower().startswith(_UPSTREAM)


def means_output(name: str) -> bool:
    """Tell whether an argument of a derivative is the function's output, by its name."""
    return name.lower().startswith(_OUTPUT)
