"""Every sentence that a person reads, made of a `Finding`: the one place where English stands."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

from .finding import Finding
from .words_of_mistakes import MISTAKES, Said


def _shape(ours: Sequence[int], theirs: Sequence[int], update: Sequence[int] | None) -> str:
    """Say that a gradient has another shape, and what an update W -= lr * dW makes of it."""
    text = f"has the shape {ours}, not {theirs}"
    if update is None:
        return f"{text}: the update W -= lr * dW fails"
    if update == theirs:
        return f"{text}: the update W -= lr * dW spreads it over W without an error"
    return f"{text}: W - lr * dW has the shape {update}"


def _gradients(names: Sequence[str], what: str) -> str:
    return f"the gradient of {', '.join(names)} {what}"


def _unread(keys: Sequence[str], other: str) -> str:
    return (
        f"the dict of gradients has {', '.join(keys)}, but there is no parameter and no {other} of "
        "that name"
    )


def _first(names: Sequence[str]) -> str:
    return f"{' and '.join(names)}, which {'is' if len(names) == 1 else 'are'} wrong"


# -------------------- networks --------------------


def _unheld(label: str, lacking: str, held: Sequence[str], places: Sequence[str]) -> str:
    """Say that a network does not hold the gradient of a parameter of its layers."""
    name = label.split(" = ")[0]
    name = name.replace("params", "grads") if name.startswith("params[") else f"grads[{name!r}]"
    if held:
        return (
            f"network.{name} is the gradient of {held[0]} alone, but {lacking} is the same array: "
            "add up the gradients of both"
        )
    return (
        f"network.{name} does not have the gradient of {lacking}: the layer replaces the array "
        f"that the network holds{_in_brackets(places)}; write into it: grads[i][...] = dW"
    )


def _in_brackets(places: Sequence[str], between: str = ", ") -> str:
    return f" ({between.join(places)})" if places else ""


def _estranged(names: Sequence[str]) -> str:
    """Say that a layer, under one name or more, gives another gradient in its network."""
    if len(names) > 1:
        return (
            f"{' and '.join(names)} are one object: the second forward pass overwrites what the "
            "first kept for backward; make a layer for each (they may share their weights)"
        )
    return (
        f"in the network {names[0]}.backward gives another gradient than by itself on the same "
        "input and upstream gradient: another layer writes into what it kept, or into what it gave"
    )


def _misgiven(name: str, wanted: str, given: Sequence[str], factor: float | None) -> str:
    """Say what a layer's backward pass is given in place of its upstream gradient."""
    start, true = f"it gives {name}.backward ", f"what {wanted}.backward returned"
    if given:
        return f"{start}what {given[0]}.backward returned, in place of {true}"
    if factor is not None:
        return f"{start}{factor:.6g} times {true}"
    return f"{start}another upstream gradient than {true}"


def _own_raised(
    method: str, error: str, why: Sequence[str], places: Sequence[str], is_sure: bool
) -> str:
    more = f"; {'; '.join(why)}{_in_brackets(places, '; ')}" if why else ""
    more = more if is_sure else "; the network's own backward pass is not checked"
    return f"{method} raised {error}{more}"


def _other_than_layers(method: str, returned: bool, why: Sequence[str]) -> str:
    """Say that a network's own gradient is not that of its layers, and why."""
    verb, text = "returns" if returned else "leaves", "; ".join(why)
    start = f"{method} {verb} another gradient than the layers have"
    if text.startswith(("is ", "has ", "lacks ", "differs ")):
        text = f"it {text}"
    return f"{start}: {text}" if text else start


def _of_layers(names: Sequence[str], what: str) -> str:
    """Say of some layers what was found in each."""
    return f"{', '.join(names[:6])}{', …' * (len(names) > 6)}: {what}"


def _called_with(method: str, arguments: Sequence[tuple[str, Any]], n: int, times: bool) -> str:
    """Say what a backward pass is called with, where no name of its arguments says so."""
    said = {
        "upstream": "the upstream gradient" if n == 1 else "that of the {} output",
        "output": "the output",
        "left": "self.{}",
        "input": "{}",
        "cache": "the cache",
        "rate": "a learning rate",
    }
    given = ", ".join(
        "a tuple of all upstream gradients"
        if (kind, what) == ("upstream", None)
        else said[kind].format(_ordinal(what) if kind == "upstream" else what)
        for kind, what in arguments
    )
    more = ", and what it returns is multiplied by the upstream gradient" if times else ""
    return f"{method} is called with ({given}){more}"


def _each_loss(method: str, share: float) -> str:
    """Say of which loss of all examples the gradient is checked."""
    n = round(1 / share)
    is_mean, ones = n > 1, "upstream=np.ones(shape)"
    mean = f"upstream=np.full(shape, 1 / {n if is_mean else 'n'})"
    of, other, by = ("mean", "sum", ones) if is_mean else ("sum", "mean", mean)
    return (
        f"forward returns a loss for each example: {method} is checked as the gradient of their "
        f"{of}; if you mean their {other}, check it with {by}"
    )


def _ordinal(i: int) -> str:
    """Return which one it is, counted from 0, in a word."""
    return ("first", "second", "third", "fourth", "fifth")[i] if i < 5 else f"{i + 1}th"


_MEANS = {"mean_missing": "a mean", "averaged_over": "a sum"}

# From the kind of a finding to its sentence: a template for `str.format`, or a function of the
# fields. Those of a row go on after the name of its gradient.
SENTENCES: dict[str, str | Callable[..., str]] = {
    **MISTAKES,
    # -------------------- rows: verdicts (shapes, kinks, small constants, rounding) ----------
    "no_gradient": "no gradient is returned",
    "dtype": "holds no real numbers, but the dtype {dtype}",
    "shape": _shape,
    "tangent_shape": "the tangent has the shape {ours} in place of {theirs}, that of the output",
    "directions_only": "too large to be compared entry by entry: compared along random directions",
    "hidden": lambda values, why: "; ".join(
        [
            f"right only by chance, as {' and '.join(values)}" if values else "off by little here",
            f"at other values: {'; '.join(why)}",
        ]
    ),
    "value_is": "{name} {value}",
    "kink": "there is a kink here (a ReLU at 0, a tie of a max), where any value between the two "
    "slopes is right; beside it, yours is right",
    "idealised": "right for the forward pass without its {constant:g}; with it, the true gradient "
    "differs by up to {apart:.2g} of the largest entry",
    "approximate": "is off by little, though by more than rounding, and why is not known (a match "
    "is off by at most {match:g} of its row and column)",
    "off_by_little": "is off by little, though by more than rounding, and {why}",
    "accepted": "is off by {apart:.2g}, more than rounding, which {text} accepts",
    "not_accepted": "is off by little, though by more than rounding and more than {text} accepts",
    "differences_disagree": "checked a second way (numerically), yours is right: {reference} may "
    "be wrong here",
    "imprecise": "{reference} are off by up to {apart:.1g} themselves here, as far as they can "
    "tell: a smaller mistake would not be seen",
    "amplified": "rounding errors grow so large here that a mistake could not be told from them; "
    "try fewer steps, or other inputs",
    # -------------------- rows: what is right elsewhere, by a convention ---------------------
    "of_loss": lambda factor: (
        f"{factor}: the loss is {_MEANS[factor.kind]} there, and this the gradient of "
        f"{_MEANS['averaged_over' if factor.kind == 'mean_missing' else 'mean_missing']}"
    ),
    "mean_of_cost": "{factor}. That is right if the 1/m of your cost belongs here, as in "
    "deeplearning.ai: then check the whole cost with check_gradient",
    "clipped": lambda bound: (
        (
            "is right where the upstream gradient is small, and cut off where it is large"
            if bound is None
            else f"is the true one clipped to -{bound:g} … {bound:g}"
        )
        + ": check it before it is clipped"
    ),
    "clipped_norm": "is the true one scaled to the norm {norm:g}: check it before it is clipped",
    "combined": "is that of the loss with the {activation} before it: right for what comes before "
    "the {activation}, whose backward must then pass it on; check the two together",
    "passed_on": "is the upstream gradient itself: right only if the loss's gradient has the "
    "derivative of this activation in it, as A - Y has; check the two together",
    # -------------------- rows and failures: calls, and what is left of earlier ones ---------
    "accumulates": "adds up from call to call, which not every gradient of the layer does: write "
    "it anew in each backward pass (=, not +=)",
    "unset": "{count} of its {of} entries come from entries that are never set, of `{text}`",
    "second_call": "changes at the second call, though the forward pass gives the same output",
    "third_call": "changes at the third call, though the forward pass gives the same output",
    "grows": "stays that of the first call: each backward pass appends to a list of gradients "
    "that is never emptied; begin a new list in each backward pass",
    "unsteady": "is another one in each run from the same state, as where gradients overwrite each "
    "other (= for +=) in the order of a set",
    "stale": "depends on an earlier call: it is made from what a forward pass on other inputs "
    "left; store it anew in each forward pass",
    "gradients": _gradients,
    # -------------------- rows: marks, one after another -------------------------------------
    "follows": lambda names: f"right for your gradient of {_first(names)}: mend that first",
    "made_from_wrong": lambda names: (
        f"neither right, nor right for your gradient of {_first(names)}: mend that first"
    ),
    # -------------------- notes: how the gradients were found, and what is beside them -------
    "accumulating": lambda names, reset: (
        f"the gradients accumulate, call by call ({', '.join(names)}): "
        f"{f'call {reset}()' if reset else 'set them to zero'} between calls"
    ),
    "no_other_call": "a second call raised {error}: whether it gives the same gradients is not "
    "known",
    "upstream_unused": "backward takes {name}, and does not use it: it is right only where "
    "{name} is 1",
    "differences_agree": lambda reference, names: (
        f"{'' if reference == 'autograd' else f'{reference} was '}checked a second way "
        f"(numerically): the same answer for {', '.join(names)}"
    ),
    "may_hide": "{name} {value}: mistakes may hide there, and it could not be checked at other "
    "values; give random numbers",
    "is_number": "is {value:g}",
    "is_constant": "is {value:g} everywhere",
    "has_one_size": "has one size only",
    "is_symmetric": "is symmetric",
    "never_any_slope": "all true gradients are zero, at other values too: the output changes with "
    "nothing that is checked",
    "has_no_slope": "is where all gradients are zero",
    "one_by_one": lambda names: (
        f"{', '.join(names)}: in a matrix of 1 by 1 a wrong transpose does not show; try other "
        "sizes"
    ),
    "unreadable": "no lines are shown, as the source cannot be read: it was typed at a prompt, run "
    "by exec or python -c, or compiled; put it in a Python file",
    "out_of_time": "{what} stopped when the budget= was spent: give a larger one",
    "stopped": "{what} stopped: {error}",
    "own_mistake": "{what} failed with {error} ({place}). The verdicts stand; this is a mistake of "
    "spiral_autograd's own: please report it",
    # what is given, and written into
    "shares_memory": "{name} shares memory with another input, or with what the object holds: a "
    "copy of it is checked",
    "float_input": "{name} is a float, whose gradient is not checked: give np.array({name})",
    "writes": "{who} writes into {name}",
    "writes_cache": lambda names: (
        f"backward writes into its cache{': ' if names else ''}{', '.join(names)}"
    ),
    "writes_upstream": "backward writes into its upstream gradient",
    "replaces_gradients": "backward puts new arrays in {holder}: what holds the old ones, as a "
    "network may, does not see them (write {holder}[i][...] = dW)",
    "value_gradients": lambda keys, other: (
        f"{_unread(keys, other)}: not checked"
        + (f' (mark the value: tap("{keys[0][1:].lstrip("_")}", ...))' if other == "mark" else "")
    ),
    "unread_gradients": _unread,
    # what backward returns, and keeps
    "not_returned": "{what} returns no gradient for {name}",
    "inputs_left_out": "backward returns nothing: the gradients of the inputs are left out",
    "integers": "{name} holds integers, which have no gradient (use {name}.astype(float))",
    "belongs_to_nothing": "entry {number} of what {what} returns belongs to no input and to no "
    "parameter",
    "update_takes": lambda names, ours, theirs: (
        f"the gradient of {', '.join(names)} has the shape {ours} in place of {theirs}, which the "
        f"update {names[0]} -= lr * gradient takes as it is; other code may not"
    ),
    "keys_differ": lambda key, name, places: (
        f"{' and '.join(places) or 'the keys'} differ: the gradient of {name!r} stands under "
        f"{key!r}, where an optimizer that reads both by one key does not find it"
    ),
    "no_entry": lambda names, others: (
        f"the dict of gradients has no entry for {', '.join(names)}"
        + (f", but has {', '.join(others)}" if others else "")
    ),
    "other_structure": lambda names: (
        f"the gradient has another structure than params: {', '.join(names)} belongs to no "
        "parameter"
    ),
    # what a derivative takes
    "takes": "{who} takes {what}, not {other}",
    "takes_either": "{who} gives the same for {what} and for {other}",
    "takes_neither": "{who} is right neither for {what} nor for {other}; it is given {what} here",
    # what is used, and not checked
    "unchecked": lambda why: f"{why}: it is not checked",
    "updates_itself": "backward changes {name} itself, and keeps no gradient of it "
    "(docs/checker.md, 'Layers that update themselves', says which layers can be checked so)",
    "used_without_gradient": "{name} is used by forward, but there is no gradient of it (d{last}, "
    "{last}_grad, grads['{last}'], …)",
    "made_anew": "{name} is made anew in each forward pass",
    "cannot_move": "{name} is a number that a check cannot change",
    "unkept": "is computed as the local variable {variable} of {function} and not kept: write "
    "self.{variable}",
    "by_its_change": lambda method, names, rate, n, adds: (
        f"{method} changes {', '.join(names)} itself: what is checked is the change divided by the "
        f"learning rate {rate:g}"
        + f", times the {n} examples (it is their mean: right if the loss is their sum)" * (n > 1)
        + "; the change is added, so backward must be given minus the gradient" * adds
    ),
    "fails_behind_reset": "behind the reset of its gradients the layer fails ({error}): it is "
    "checked without that",
    "without_rate": lambda names: (
        f"{', '.join(names)} {'is' if len(names) == 1 else 'are'} changed by the gradient itself, "
        "which the learning rate does not multiply"
    ),
    "decays": "{method} also takes {share:.4g} times {name} from it, times the rate, whatever the "
    "gradient is (weight decay): that is left out of what is checked",
    "called_with": _called_with,
    "of_some_outputs": lambda method, outputs: (
        f"{method} takes no upstream gradient of the {' and the '.join(map(_ordinal, outputs))} "
        "output: it is checked as if the loss did not depend on that"
    ),
    "each_loss": _each_loss,
    # -------------------- networks --------------------
    "unheld": _unheld,
    "estranged": _estranged,
    "replaced_later": lambda names: (
        f"{', '.join(names)}: right after the layer's own backward pass, and not any more at "
        "the end: a layer that runs later has put its gradient in the same place (an attribute of "
        "the class, which all its layers share?)"
    ),
    "not_the_sum": lambda names: (
        f"{' and '.join(names)} have one place for their gradient, and after a backward pass it is "
        "not their sum: add to it in each backward (+=)"
    ),
    "no_chain": "{loss} gives the loss {ours:.6g}, and the layers one after another give "
    "{theirs:.6g}: the network is more than the chain of its layers (what begins with network. is "
    "checked of the whole)",
    "no_chain_runs": "the layers cannot be run one after another ({error}): the network is checked "
    "as a whole (what begins with network.), and each layer with what it is given there",
    "own_raised": _own_raised,
    "skipped": "{method} never calls {name}.backward: its parameters get no gradient there",
    "other_pass": "{method} runs another forward pass than {than} (in training, with other "
    "options or other random numbers?): the two are not compared",
    "not_as_a_whole": "the network could not be checked as a whole: {error}",
    "other_than_layers": _other_than_layers,
    "loss_misgiven": lambda given: (
        f"it calls loss_layer.backward with {', '.join(given) or 'nothing'}"
    ),
    "misgiven": _misgiven,
    "never_called": "it never calls {name}.backward",
    "of_network": lambda what: f"network: {what}",
    "of_layers": _of_layers,
    "reference": "{name}: compared with {kind}{precision}",
    "first_wrong": "the first wrong layer on the way back is {name}: mend it first, then check "
    "again",
}


def sentence(finding: Finding) -> str:
    """Return the sentence of a finding."""
    return str(_said(finding))


def _said(value: Any) -> Any:
    """Return a field as it is said: a finding by its sentence."""
    if isinstance(value, Finding):
        made = SENTENCES[value.kind]
        fields = {name: _said(field) for name, field in value.fields.items() if name != "rule"}
        text = made(**fields) if callable(made) else made.format(**fields)
        return Said.of(text, value.kind, fields)
    return type(value)(map(_said, value)) if type(value) in (list, tuple) else value


def sentences(findings: Iterable[Finding]) -> str:
    """Return the sentences of some findings as one."""
    return "; ".join(map(sentence, findings))
