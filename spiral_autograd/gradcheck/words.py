"""Every sentence that a person reads, made of a `Finding`: the one place where English stands."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

from .finding import Finding, Said


def _shape(ours: Sequence[int], theirs: Sequence[int], update: Sequence[int] | None) -> str:
    """Say that a gradient has another shape, and what an update W -= lr * dW makes of it."""
    text = f"has the shape {ours} in place of {theirs}"
    if update is None:
        return f"{text}: the update W -= lr * dW fails"
    if update == theirs:
        return f"{text}: the update W -= lr * dW broadcasts it in silence"
    return f"{text}: W - lr * dW has the shape {update}"


def _gradients(names: Sequence[str], what: str) -> str:
    return f"the gradient of {', '.join(names)} {what}"


def _no_pattern(late: bool, differing: int | None, of: int = 0, index: object = None) -> str:
    text = "no known pattern" + (" (the search stopped when its budget= was spent)" if late else "")
    if differing is None:
        return text
    return f"{text}; {differing} of {of} entries differ, most at {index}"


def _held(zeros: bool) -> str:
    return "is all zeros" if zeros else "is what it was before"


def _other_sum(
    change: str, right: bool, due_axes: object, shape: object = None, due: object = None
) -> str:
    axes = "the right axes" if due_axes is None else f"axis {due_axes}"
    where = "" if right else f" over {axes}"
    shapes = f": {shape} in place of {due}" if shape is not None else ""
    return f"{change} in place of summed{where}{shapes}"


def _term(of: str, times: float, own: bool, lacks: bool) -> str:
    what = f"{of} itself (weight decay?)" if own else of
    what = what if times == 1 else f"{times:.6g} times {what}"
    return f"{'lacks a term' if lacks else 'has an extra term'}: {what}"


_SIGNS = {
    "greater": ">",
    "less": "<",
    "greater_equal": ">=",
    "less_equal": "<=",
    "equal": "==",
    "not_equal": "is not",
}
_SLICES = {(1, 0): "entry", (2, 0): "row", (2, 1): "column"}


def _slices(axis: int, ndim: int, hit: Sequence[int], length: int) -> str:
    word = _SLICES.get((ndim, axis), f"index of axis {axis}")
    ends = {0: " (the first)", length - 1: " (the last)"}
    which = ends.get(hit[0], "") if len(hit) == 1 else ""
    some = ", ".join(map(str, hit[:6])) + (", ..." if len(hit) > 6 else "")
    return f"all in {word} {some}{which}"


_CLOSED = {
    "softmax": ("softmax", "y (g - Σ y g)"),
    "log_softmax": ("log-softmax", "g - exp(y) Σ g"),
    "mean": ("subtracted mean", "g - mean g"),
    "normalisation": ("normalisation", "(g - mean g - y mean(y g)) / std"),
    "rms": ("division by the root mean square", "(g - y mean(y g)) / rms"),
    "norm": ("division by the norm", "(g - y Σ y g) / norm"),
}


def _comes_out(flow: str, change: str, turns: bool, likewise: Sequence[str]) -> str:
    """Say which change of the backward pass makes the gradient come out."""
    text = f"comes out if {flow} {change}" if flow else f"comes out if {change}"
    text += f", and likewise at {' and '.join(dict.fromkeys(likewise))}" if likewise else ""
    return f"{text}, at each turn of the loop" if turns else text


def _function(function: str, v: str, minus: bool) -> str:
    """Write a simple function of a value."""
    text = function.format(v=v)
    if not minus:
        return text
    return f"-({text})" if " " in text and text[0] != "(" else f"-{text}"


def _unread(keys: Sequence[str], other: str) -> str:
    return (
        f"the dict of gradients has {', '.join(keys)}, but there is no parameter and no {other} of "
        "that name"
    )


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
    method: str, error: str, why: Sequence[Finding], places: Sequence[str], is_sure: bool
) -> str:
    more = f"; {sentences(why)}{_in_brackets(places, '; ')}" if why else ""
    more = more if is_sure else "; the network's own backward pass is not checked"
    return f"{method} raised {error}{more}"


def _other_than_layers(method: str, returned: bool, why: Sequence[Finding]) -> str:
    """Say that a network's own gradient is not that of its layers, and why."""
    verb, text = "returns" if returned else "leaves", sentences(why)
    start = f"{method} {verb} another gradient than the layers have"
    if text.startswith(("is ", "has ", "lacks ", "differs ")):
        text = f"it {text}"
    return f"{start}: {text}" if text else start


def _of_layers(names: Sequence[str], what: Finding) -> str:
    """Say of some layers what was found in each."""
    return f"{', '.join(names[:6])}{', …' * (len(names) > 6)}: {sentence(what)}"


# From the kind of a finding to its sentence: a template for `str.format`, or a function of the
# fields. Those of a row go on after the name of its gradient.
SENTENCES: dict[str, str | Callable[..., str]] = {
    "text": "{text}",  # a sentence of the user's code, or one that is not data yet
    # -------------------- rows: what the numbers alone show --------------------
    "no_pattern": _no_pattern,
    "not_finite": "{count} of {of} entries are not finite",
    "nothing_returned": "no gradient is returned, or written (None)",
    "all_zeros": "the gradient is never written: it is all zeros",
    "rounding_only": "the gradient is never written: it is zero up to rounding",
    "never_written": lambda zeros: f"the gradient is never written: it {_held(zeros)}",
    "stands_elsewhere": lambda zeros, attribute, owner: (
        f"the gradient is never written where it is looked for: it {_held(zeros)}; the true one "
        f"stands in {attribute} of {owner}"
    ),
    "array_replaced": lambda zeros: (
        f"the array was replaced: the network holds the old one, which {_held(zeros)}; write into "
        "it: grads[i][...] = dW"
    ),
    "upstream_ignored": "does not depend on the upstream gradient: it is ignored",
    "upstream_twice": "uses the upstream gradient twice (it grows as its square)",
    "upstream_not_linear": "is not linear in the upstream gradient",
    "constant_factor": lambda times, factor, text, lost: (
        f"is {times:.6g} times the true one: the factor {factor:.6g} of {text} is "
        f"{'lost' if lost else 'twice there'}"
    ),
    "wrong_sign": "is of the wrong sign: -1 times the true one",
    "times": lambda times, also, n=0.0: (
        f"is {times:.6g} times the true one{f' ({n:g} is {also} too)' if also else ''}"
    ),
    "mean_missing": lambda n, sign, what: (
        f"is {'minus ' * (sign < 0)}{n:g} times the true one ({what}): a mean is missing"
    ),
    "averaged_over": lambda n, sign, what: (
        f"is {'minus ' * (sign < 0)}1/{n:g} of the true one ({what}): averaged in place of summed"
    ),
    "one_less": "is {times:.6g} times the true one: divided by {n:g} ({what}) for {less:g}, or the "
    "reverse",
    "ratio": "is {times:.6g} times the true one, which is {n:g} ({what}) / {m:g} ({other})",
    "batch_size": "the batch size",
    "axis": "the length of axis {axis} of {of}",
    "entries": "the number of entries of {of}",
    "axes": lambda lengths, axes, of: (
        f"{' x '.join(map(str, lengths))}, the lengths of axes {tuple(axes)} of {of}"
    ),
    "output": "the output",
    "swapped": "is that of {name}: arguments swapped",
    "that_of": "is that of {name}",
    "transposed": "is transposed",
    "axes_order": "has its axes in the order {axes}",
    "reordered": "is reshaped in the wrong order",
    "reversed": "is reversed along axis {axis}",
    "shifted": "is shifted by {shift} along axis {axis}",
    "blocks": "has its {count} blocks along axis {axis} in the order {order}",
    "extra_axis": "has an extra axis: {shape} in place of {due}",
    "not_summed": lambda axes, batch, shape, due: (
        f"is not summed over {'the batch' if batch else f'axis {axes}'}: {shape} in place of {due}"
    ),
    "lost_axis": "has the shape {shape} in place of {due}: an axis is lost, or one too many",
    "should_keep": "{change}, which it should keep",
    "other_sum": _other_sum,
    "summed": "is summed over axis {axes}",
    "averaged": "is averaged over axis {axes}",
    "the_largest": "is the largest over axis {axes}",
    "the_first": "is the first over axis {axes}",
    "the_last": "is the last over axis {axes}",
    "term": _term,
    "constant_added": "has a constant added: {constant:.6g}",
    "constant_along": "differs by a term that is constant along axis {axis}, such as a sum over it",
    "part": "is wrong in part only: {wrong} of {of} entries are wrong, {mark}",
    "at": lambda places, more: f"at {', '.join(map(str, places))}{', ...' * more}",
    "where": lambda of, sign, bound: f"just where {of} {_SIGNS[sign]} {bound:g}",
    "slices": _slices,
    "labels": "just at the indices that the forward pass picks (the labels)",
    "extreme": lambda of, largest: f"where {of} is {'largest' if largest else 'smallest'}",
    # -------------------- rows: what a change of the backward pass shows --------------------
    "two_mistakes": "has two mistakes: it {first}; and beside that, {second}",
    "comes_out": _comes_out,
    "named": "{name}",
    "expression": lambda text: f"`{text if len(text) <= 60 else f'{text[:36]}…{text[-20:]}'}`",
    "result": "the result of {of}",
    "array": "a constant array",
    "upstream": lambda output=None: (
        f"the upstream gradient{'' if output is None else f' of output {output}'}"
    ),
    "gradient_of": "the gradient of {of}",
    "flow": lambda result, via, argument, run: (
        f"the gradient that flows back through {result}{f' by way of {via}' if via else ''}"
        f"{f' (run {run[0]} of {run[1]} of this line)' if run else ''}"
        f"{f' to {argument}' if argument else ''}"
    ),
    "flow_to": "the gradient that flows back to {argument}",
    "upstream_of": "the upstream gradient of {argument}",
    "derivative": lambda result, by: f"the derivative of {result}{f' by {by}' if by else ''}",
    "closed": lambda result, title: (
        f"in the gradient of the {_CLOSED[title][0]} y = {result}, {_CLOSED[title][1]},"
    ),
    "left_out": "is left out",
    "lost": "is left out",
    "not_carried": lambda values: (
        f"nothing flows back from one turn of the loop to the turn before, through "
        f"{' and '.join(values)}"
    ),
    "not_multiplied": "is not multiplied by the gradient that comes in",
    "lacks_entry": lambda last, axis: (
        f"lacks the {'last' if last else 'first'} entry along axis {axis}"
    ),
    "picked_beside": "is put beside the entries that are picked there: shifted by {shift} along "
    "axis {axis}",
    "cut_at": "is cut out of the padded one at {offsets}, the wrong place",
    "taken_as": lambda function, v, minus: f"is taken as {_function(function, v, minus)}",
    "times_too": lambda function, v, minus: f"is multiplied by {_function(function, v, minus)} too",
    "operand": "is multiplied by {other} in place of {operand}",
    "not_transposed": "is multiplied by {operand}, which is not transposed",
    "product_order": "is multiplied by {operand} transposed or in another order",
    "updated": "is multiplied by {operand} as it is after its update, with a rate of {rate:.6g}",
    "made_from": "is made from {other} in place of the gradient of {due}",
    "only": lambda flow, overwritten: (
        f"only {flow} is kept{': the others are overwritten, not added up' * overwritten}"
    ),
    "overwritten": "the gradients that meet in one entry of {of} overwrite each other, not added "
    "up",
    "another_run": "{of} of another run of that line",
    "term_left_out": "the term - {term} is left out",
    "term_taken": "the term - {term} is - {other}",
    "term_axes": "the sum in the term - {term} runs over axis {axes}",
    "only_scaled_g": "all but g is left out",
    "all_axes": "all sums run over axis {axes}",
    "g_left_out": "the term g is left out",
    "scale_left_out": "the factor before the bracket is left out",
    "scale_squared": "the factor before the bracket is squared",
    "scale_inverted": "the factor before the bracket is inverted",
    "only_g": "only g is left",
    # -------------------- rows: verdicts (shapes, kinks, small constants, rounding) ----------
    "no_gradient": "no gradient is returned",
    "dtype": "a gradient of dtype {dtype}",
    "shape": _shape,
    "directions_only": "compared along random directions only",
    "kink": "the forward pass has a kink here (a ReLU at 0, a tie of a max): the gradient is "
    "undefined, and beside the kink the handwritten one is right",
    "idealised": "exact for the forward pass without its {constant:g}; with it the true gradient "
    "differs by up to {apart:.2g} of the largest entry",
    "approximate": "differs by more than rounding, though by little; why is not known (a match "
    "differs by at most {match:g} of its row and column)",
    "differences_disagree": "central differences side with the handwritten gradient, not with the "
    "reference ({reference}), which may be wrong here",
    "amplified": "rounding is amplified so much here that a mistake could not be told from it; try "
    "fewer steps, or other inputs",
    # -------------------- rows and failures: calls, and what is left of earlier ones ---------
    "accumulates": "accumulates, which not every gradient of the layer does: a second call adds to "
    "that of the first; write it anew in each backward pass",
    "second_call": "changes at the second call, though the forward pass gives the same output",
    "third_call": "changes at the third call, though the forward pass gives the same output",
    "grows": "stays that of the first call: each backward pass appends to a list of gradients, "
    "which grows, and the layer offers no reset; begin a new list in each backward pass",
    "stale": "depends on an earlier call: a cache is left from a forward pass on other inputs",
    "gradients": _gradients,
    # -------------------- notes: how the gradients were found, and what is beside them -------
    "accumulating": lambda names, reset: (
        f"the gradients accumulate from call to call ({', '.join(names)}): "
        f"{f'call {reset}()' if reset else 'set them to zero'} between calls"
    ),
    "may_hide": "{name} {what}, and mistakes may hide there, but it could not be checked at other "
    "values: random numbers show more",
    "no_other_call": "what another call gives is not known; it raised {error}",
    "upstream_unused": "backward takes {name}, and does not use it: it is right for {name} = 1 "
    "only",
    "differences_agree": lambda reference, names: (
        f"central differences side with {'' if reference == 'autograd' else 'the '}{reference}: "
        f"{', '.join(names)}"
    ),
    "unreadable": "no lines are shown, as the source cannot be read: it was typed at a prompt, or "
    "run by exec or python -c; put it in a file",
    "out_of_time": "{what} stopped when the budget= was spent",
    "stopped": "{what} stopped: {error}",
    "own_mistake": "{what} failed with {error} ({place}). The verdicts stand; this is a mistake of "
    "spiral_autograd's own: please report it",
    # what is given, and written into
    "shares_memory": "{name} shares memory with a parameter or another input: a copy of it is "
    "checked",
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
    "belongs_to_nothing": "entry {number} of what {what} returns belongs to nothing",
    "update_takes": lambda names, ours, theirs: (
        f"the gradient of {', '.join(names)} has the shape {ours} in place of {theirs}, which the "
        f"update {names[0]} -= lr * gradient takes as it is; other code may not"
    ),
    "keys_differ": lambda key, name, places: (
        f"{' and '.join(places) or 'the keys'} differ: {key!r} is no key {name!r}, by which an "
        "optimizer reads both"
    ),
    "no_entry": lambda names, others: (
        f"the dict of gradients has no entry for {', '.join(names)}"
        + (f", but has {', '.join(others)}" if others else "")
    ),
    "other_structure": lambda names: (
        f"the gradient has another structure than params: {', '.join(names)} belongs to no "
        "parameter"
    ),
    # what is used, and not checked
    "unchecked": lambda why: f"{sentence(why)}: it is not checked",
    "updates_itself": "backward changes {name} itself, and keeps no gradient of it "
    "(docs/checker.md, 'Layers that update themselves', shows how to check such a layer)",
    "used_without_gradient": "{name} is used by forward, but there is no gradient of it (d{last}, "
    "{last}_grad, grads['{last}'], …)",
    "cannot_move": "{name} is a number that cannot be moved",
    "unkept": "is computed as the local variable {variable} of {function} and not kept: write "
    "self.{variable}",
    # -------------------- networks --------------------
    "unheld": _unheld,
    "estranged": _estranged,
    "not_the_sum": lambda names: (
        f"{' and '.join(names)} have one place for their gradient, and after a backward pass it is "
        "not their sum: add to it in each backward (+=)"
    ),
    "no_chain": "{loss} gives the loss {ours:.6g}, and the layers one after another give "
    "{theirs:.6g}: the network is more than the chain of its layers (network. is before the name "
    "of what is checked of the whole)",
    "no_chain_runs": "the layers cannot be run one after another ({error}): the network is checked "
    "as a whole (network. before the name), and each layer with what it is given there",
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
    "of_network": lambda what: f"network: {sentence(what)}",
    "of_layers": _of_layers,
    "reference": "{name}: the reference is {kind}{precision}",
    "first_wrong": "the first wrong layer on the way back is {name}",
}


def sentence(finding: Said) -> str:
    """Return the sentence of a finding."""
    if isinstance(finding, str):
        return finding
    made = SENTENCES[finding.kind]
    fields = {name: _said(value) for name, value in finding.fields.items() if name != "rule"}
    return made(**fields) if callable(made) else made.format(**fields)


def _said(value: Any) -> Any:
    """Return a field as it is said: a finding by its sentence."""
    if isinstance(value, Finding):
        return sentence(value)
    return [_said(item) for item in value] if isinstance(value, list) else value


def sentences(findings: Iterable[Said]) -> str:
    """Return the sentences of some findings as one."""
    return "; ".join(map(sentence, findings))
