"""The sentences about mistakes: what the numbers show, and what a change of the backward pass does.

They are handed the fields of a finding; where a field is a finding itself, its sentence.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence


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


_TURNS = {
    "before": "the turn before",
    "after": "the turn after",
    "first": "the first turn",
    "last": "the last turn",
}


def _function(function: str, v: str, minus: bool) -> str:
    """Write a simple function of a value."""
    text = function.format(v=v)
    if not minus:
        return text
    return f"-({text})" if " " in text and text[0] != "(" else f"-{text}"


MISTAKES: dict[str, str | Callable[..., str]] = {
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
    "transposed": "is the transpose of the true one",
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
    "part": "is wrong in part only: {wrong} of {of} entries are wrong, {mark}",
    "at": lambda places, more: f"at {', '.join(map(str, places))}{', ...' * more}",
    "where": "just where {of} {sign} {bound:g}",
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
    "taken_as": lambda function, v, minus, turn="same": (
        f"is taken as {_function(function, v, minus)}"
        + (f" with {v} of {_TURNS[turn]}" if turn != "same" else "")
    ),
    "times_too": lambda function, v, minus: f"is multiplied by {_function(function, v, minus)} too",
    "operand": lambda other, operand, turn="same": (
        f"is multiplied by {other}{f' of {_TURNS[turn]}' if turn != 'same' else ''} "
        f"in place of {operand}"
    ),
    "not_transposed": "is multiplied by {operand}, which is not transposed",
    "g_transposed": "is made from the gradient that comes in transposed",
    "updated": "is multiplied by {operand} as it is after its update, with a rate of {rate:.6g}",
    "made_from": "is made from {other} in place of the gradient of {due}",
    "only": lambda flow, overwritten: (
        f"only {flow} is kept{': the others are overwritten, not added up' * overwritten}"
    ),
    "added_to_itself": "{flow} is added to itself, in place of what flows back otherwise",
    "overwritten": "the gradients that meet in one entry of {of} overwrite each other, not added "
    "up",
    "from_turn": lambda turn: f"is taken from {_TURNS[turn]}",
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
}
