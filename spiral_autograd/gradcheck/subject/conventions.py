"""How people name and write things: each convention that is understood, as a row of a table."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from functools import lru_cache
from itertools import chain, product
from typing import Any

from ..finding import Finding, found

# -------------------- layers --------------------


def spelled(phrases: str) -> list[str]:
    """Return names in each spelling."""
    words = [phrase.split() for phrase in phrases.split(",")]
    forms = [("_".join(w), "".join(w), w[0] + "".join(map(str.title, w[1:]))) for w in words]
    return list(dict.fromkeys(chain.from_iterable(forms)))


def word_pairs(pairs: str) -> list[tuple[str, str]]:
    """Return the pairs of words that stand between commas."""
    return [(first, second) for first, second in map(str.split, pairs.split(","))]


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
    "evaluate, loss, compute loss, calc loss, cost, error, function, predict, fn"
)
DERIVATIVES = spelled(
    "gradient, grad, gradients, grads, derivative, derive, deriv, prime, compute gradient, "
    "compute gradients, calc gradient, calc gradients, calculate gradient, get gradient, "
    "loss gradient, loss derivative, loss prime, error derivative, diff"
)

# A switch to the derivative, as in sigmoid(x, deriv=True).
FLAGS = "deriv derivative derive derivate prime grad gradient backward back diff".split()

# Arguments of backward: by which an update is multiplied; what keeps values for a custom function;
# and what forward has returned for it.
RATES = spelled(
    "lr, learning rate, learn rate, eta, alpha, rate, epsilon, step size, l rate, lrate"
)
CONTEXTS = "ctx context cx _ctx fctx fn_ctx".split()
CACHES = [
    *CONTEXTS,
    *"cache caches cached memory mem saved res residual residuals intermediates tape".split(),
]

# Where a pass that returns nothing leaves what it has computed.
OUTPUTS = "output outputs out y Y a A activation activations result value z Z h".split()
INPUT_GRADIENTS = [
    *"dinputs dinput d_inputs d_input dx dX d_x grad_input grad_inputs input_grad".split(),
    *"input_gradient gradInput gradInputs grad_x x_grad gx d_in din dA_prev dA".split(),
]

# A list or dict of parameters, or a method that returns one, and that of their gradients.
CONTAINERS = word_pairs(
    "params grads, parameters gradients, params gradients, parameters grads, weights gradients, "
    "weights grads, params dparams, _params _grads, get_params get_grads, "
    "get_parameters get_gradients"
)

# Methods that give each parameter with its gradient.
PAIRS = spelled(
    "params and grads, parameters and gradients, params and gradients, parameters and grads, "
    "params grads, get params and grads, get params grads, get parameters and gradients, "
    "get params and gradients, parameters, params, get parameters, get params, trainable params"
)

# An object that is a parameter: its array, and the gradient of that.
HOLDERS = word_pairs(
    "data grad, value grad, val grad, array grad, data gradient, value gradient, values grads, "
    "data diff, tensor grad, v g"
)

_VERBS, _WHAT = "zero clear reset flush init zeros".split(), "grad grads gradient gradients".split()
RESETS = spelled(",".join(map(" ".join, product(_VERBS, _WHAT))) + ", zero grad parameters")

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

# What such a context calls the values that it keeps.
SAVED = "saved_tensors saved_values saved_variables saved".split()

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
_CHANGE_WORDS = (
    "update change step adjust adjustment correction adj adjoint bar sens err error".split()
)
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
    """Return which of `names` is that of the gradient of `name`; None where none is."""
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
    """Return what a parameter is called where it is kept."""
    return path.split(".")[-1]


def is_statistic(name: str) -> bool:
    """Tell whether something is a running statistic by its name, without a gradient by right."""
    return any(word in name for word in STATISTICS)


def is_like_gradient(path: str) -> bool:
    """Tell whether a path has a word for gradients in it."""
    steps = re.split(r"[.\[\]]", path.lower())
    begun = any(step.strip("_")[:1] in ("d", "g") and len(step) > 1 for step in steps)
    words = any(word in path.lower() for word in _GRADIENT_WORDS)
    return begun or words or path.endswith(("_d", "_g"))


def is_of_optimizer(name: str, stem: str) -> bool:
    """Tell whether an array is called like a velocity or a moment of what has the name `stem`."""
    rest = name.lower().replace(stem.strip("_").lower(), "", 1).strip("_.")
    return rest in ("v", "m", "s") or any(word in rest for word in _OPTIMIZER_WORDS)


def is_change_of(name: str, stem: str) -> bool:
    """Tell whether an array is called like a change, or an adjoint, of what has the name `stem`.

    Examples
    --------
    >>> is_change_of("kernel_update", "kernel"), is_change_of("kernel_cache", "kernel")
    (True, False)
    """
    rest = name.replace(stem.strip("_"), "", 1).strip("_.").lower()
    return rest != name.strip("_.").lower() and rest in _CHANGE_WORDS


def differing(
    names: Iterable[object], keys: Iterable[object], places: Sequence[str] = ()
) -> list[Finding]:
    """Return which keys of gradients are those of the parameters but for upper and lower case."""
    there, names = list(keys), list(names)
    pairs = [(name, key) for name in names for key in there if name not in there]
    return [
        found("keys_differ", key=key, name=name, places=tuple(places))
        for name, key in pairs
        if key not in names and str(key).lower() == str(name).lower()
    ]


_UPSTREAM = ("d", "g", "up", "err", "top", "loss", "out", "v")
_OUTPUT = ("y", "out", "act", "sig", "tanh")


def means_upstream(name: str) -> bool:
    """Tell whether an argument is an upstream gradient, by its name."""
    return name.lower().startswith(_UPSTREAM)


def means_output(name: str) -> bool:
    """Tell whether an argument of a derivative is the function's output, by its name."""
    return name.lower().startswith(_OUTPUT)


# -------------------- networks --------------------


LOSS_LAYERS = spelled(
    "loss layer, last layer, loss, criterion, loss fn, loss function, loss func, cost, "
    "cost function"
)
# What comes behind the name of a loss in that of its derivative.
PRIMES = "_prime _grad _gradient _derivative _deriv".split()

# A network's own methods: of (x, t) the loss, of x the scores, of (x, t) the gradients.
LOSSES = [
    *FORWARD,
    *spelled("loss, compute loss, calc loss, calculate loss, get loss, loss function, loss func"),
    *spelled("cost, compute cost, cost function, get cost, calculate cost, objective"),
]
SCORES = [*FORWARD, "predict"]
GRADIENTS = [
    *spelled("gradient, gradients, grad, grads, compute gradient, compute gradients"),
    *spelled("compute grads, calc gradient, calc gradients, calculate gradients, get gradients"),
    *spelled("loss and grads, loss and gradients, loss and gradient, loss gradient, loss prime"),
    *spelled("cost function prime, cost gradient, cost prime"),
]
# That take one step, and may change the weights.
STEPS = spelled(
    "train step, training step, train on batch, train batch, fit batch, step, update, learn, "
    "train, update weights, update parameters"
)
TRAINING = "train_flg train_flag train training is_train is_training train_mode".split()

_PREDICTED: tuple[str, ...] = ("pred", "score", "out", "logit", "prob", "hat", "yhat", "ypred")
_PREDICTED += ("model", "net", "estimat", "simulat", "comput")
_TRUE = "t true truth target targets targ targs tgt teacher gt ref reference observed obs".split()
_TRUE += "label labels lbl lbls gold answer answers expected actual desired onehot".split()
_SCORES, _ANY, _Y, _ONLY_Y, _TARGETS = range(5)  # how likely an argument is the targets


def _targetness(name: str) -> int:
    words = re.sub(r"(?<=[a-z])(?=[A-Z0-9])|_", " ", name).lower().split()
    if any(word in _TRUE for word in words):
        return _TARGETS
    if name.lower() in TRAINING or any(word.startswith(_PREDICTED) for word in words):
        return _SCORES
    is_y = name.lower().startswith("y")
    return _ANY if not is_y else _ONLY_Y if len(name) == 1 else _Y


def means_targets(name: str) -> bool:
    """Tell whether an argument is the targets, by its name: by a word, or as y is."""
    return _targetness(name) >= _Y


def means_scores(first: str, second: str) -> bool:
    """Tell whether the first of two arguments is the scores, by their names: y may be either."""
    ours = _targetness(first)
    return ours in (_SCORES, _Y) or (ours == _ONLY_Y and means_targets(second))


def is_target_first(names: Sequence[str], *, of_loss: bool = False) -> bool:
    """Tell whether a loss is given the targets before the scores, by their names.

    Of what is known to be a loss the scores may have any name.
    """
    if len(names) != 2:
        return False
    first, second = map(_targetness, names)
    return first > second and (of_loss or second != _ANY)
