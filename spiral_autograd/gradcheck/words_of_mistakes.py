"""The sentences about mistakes: what the numbers show, and what a change of the backward pass does.

They are handed the fields of a finding; where a field is a finding itself, its sentence.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Callable, Mapping, Sequence
from fractions import Fraction
from typing import Any


class Said(str):
    """The sentence of a finding, with its kind and its fields as they are said."""

    kind: str
    fields: Mapping[str, Any]

    @classmethod
    def of(cls, text: str, kind: str, fields: Mapping[str, Any]) -> Said:
        """Return a sentence with what it was made of."""
        said = cls(text)
        said.kind, said.fields = kind, fields
        return said


def _listed(names: Sequence[object], most: int = 6) -> str:
    """Return names as one lists them: a, b and c."""
    texts = [str(name) for name in names]
    if len(texts) > most:
        return f"{', '.join(texts[:most])}, ..."
    return " and ".join(filter(None, (", ".join(texts[:-1]), texts[-1])))


def _shapes(shape: object, due: object) -> str:
    return f"its shape is {shape}, it should be {due}"


# -------------------- what the numbers show --------------------


def _no_pattern(late: bool, differing: int | None, of: int = 0, index: object = None) -> str:
    text = "no known mistake gives these numbers"
    text += " (the search stopped when its budget= was spent)" if late else ""
    if differing is None:
        return text
    some = f"all {of}" if differing == of else f"{differing} of its {of}"
    return f"{text}; {some} entries are wrong, most at {index}"


def _held(zeros: bool) -> str:
    return "is all zeros" if zeros else "is what it was before"


def _upstream(name: str | None) -> str:
    """Return what the reader calls the upstream gradient."""
    return name or "the upstream gradient"


def _upstream_of(output: int | None = None, name: str | None = None) -> str:
    return f"{_upstream(name)}{'' if output is None else f' of output {output}'}"


def _not_linear(decides: bool, name: str | None = None) -> str:
    if decides:
        return (
            f"{_upstream(name)} decides which entries are kept: take the mask from the forward pass"
        )
    return f"is not proportional to {_upstream(name)}, as a gradient is: only multiply it, and sum"


def _times(times: float) -> str:
    """Say a factor: as a decimal of few digits, else as a fraction, such as 31/32, if it is one."""
    fraction = Fraction(times).limit_denominator(1000)
    tiny = 2e-9 * abs(times)
    near = abs(fraction - times) <= tiny < abs(round(times, 3) - times)
    if near and abs(fraction) < 1 and fraction.numerator in (1, -1):
        return f"{fraction} of"
    plain = f"{fraction} times" if near else f"{times:.6g} times"
    return {2.0: "twice", 0.5: "half of"}.get(times, plain)


def _fraction(factor: float) -> str:
    """Write a number as a person does: 1/5 for 0.2."""
    n = round(1 / factor) if factor else 0
    return f"1/{n}" if n > 2 and abs(n * factor - 1) < 1e-9 else f"{factor:.6g}"


_OVER = {
    "batch_size": "the batch ({n:g})",
    "axis": "axis {axis} of {of} ({n:g})",
    "entries": "all {n:g} entries of {of}",
}


def _mean(n: float, what: Said) -> str:
    """Say over what a mean of n is taken."""
    known = _OVER.get(what.kind)
    return f"{n:g} = {what}" if known is None else known.format(**what.fields, n=n)


def _blocks(count: int, axis: int, order: Sequence[int]) -> str:
    """Say in which order blocks are, or which two of them are swapped."""
    moved = [i for i, block in enumerate(order) if i != block]
    if len(moved) == 2:
        return f"has blocks {_listed(moved)} of its {count} along axis {axis} swapped"
    return f"has its {count} blocks along axis {axis} in a wrong order: {tuple(order)}"


def _should_keep(change: Said, shape: Sequence[int], due_axes: object) -> str:
    """Say that a sum is one over too many axes, and which are the right ones."""
    one = not any(n > 1 for n in shape)
    start = "is one number" if one and change.kind == "summed" else change
    axes = change.fields.get("axes")
    if due_axes is not None:
        return f"{start}: sum over axis {due_axes} only"
    return f"{start}: it should keep {'this axis' if isinstance(axes, int) else 'these axes'}"


def _other_sum(
    change: str, right: bool, due_axes: object, shape: object = None, due: object = None
) -> str:
    axes = "the right axes" if due_axes is None else f"axis {due_axes}"
    shapes = f" ({_shapes(shape, due)})" if shape is not None else ""
    return f"{change}: it should be the sum{'' if right else f' over {axes}'}{shapes}"


def _term(of: str, times: float, own: bool, lacks: bool) -> str:
    decay = f"weight decay?{'' if lacks else ' then the loss needs it too'}"
    what = f"{of} itself ({decay})" if own else of
    what = what if times == 1 else f"{times:.6g} times {what}"
    return f"lacks a term: {what}" if lacks else f"has a term too many: {what}"


# -------------------- wrong in part only --------------------

_SLICES = {(1, 0): ("entry", "entries"), (2, 0): ("row", "rows"), (2, 1): ("column", "columns")}


def _slices(axis: int, ndim: int, hit: Sequence[int], length: int) -> str:
    if (ndim, axis) in _SLICES:
        text = f"{_SLICES[ndim, axis][len(hit) > 1]} {_listed(hit)}"
    else:
        is_run = len(hit) > 1 and hit[-1] - hit[0] == len(hit) - 1
        some = [f"{hit[0]}:{hit[-1] + 1}"] if is_run else hit
        index = [f"[{', '.join(':' if i != axis else str(n) for i in range(ndim))}]" for n in some]
        text = f"the entries {_listed(index, 3)}"
    ends = {0: " (the first)", length - 1: " (the last)"}
    return f"{text}{ends.get(hit[0], '') if len(hit) == 1 else ''}"


def _part(wrong: int, of: int, mark: Said) -> str:
    hit = mark.fields.get("hit")
    is_one = mark.fields.get("ndim") in (1, 2) and isinstance(hit, Sequence) and len(hit) == 1
    return f"only {mark} {'is' if is_one else 'are'} wrong ({wrong} of its {of} entries)"


# -------------------- formulas --------------------

_CLOSED = {
    "softmax": ("a softmax", "{y} * (g - sum({y} * g))"),
    "log_softmax": ("a log-softmax", "g - exp({y}) * sum(g)"),
    "mean": ("a subtracted mean", "g - mean(g)"),
    "normalisation": ("a normalisation", "(g - mean(g) - {y} * mean({y} * g)) / std"),
    "rms": ("a division by the root mean square", "(g - {y} * mean({y} * g)) / rms"),
    "norm": ("a division by the norm", "(g - {y} * sum({y} * g)) / norm"),
}


def _closed(result: str, title: str, over: object) -> str:
    name, formula = _CLOSED[title]
    sums = "means" if "mean(" in formula else "sums"
    y = result if _is_plain(result) else "y"
    where = f"where g is the gradient of {y}, and the {sums} are over axis {over}"
    where += "" if y == result else f" (y is {result})"
    return f"the gradient of {name} is {formula.format(y=y)}, {where}"


def _is_plain(name: str) -> bool:
    """Tell whether a name can stand in a formula."""
    return re.fullmatch(r"[\w.]+", name) is not None


def _parsed(text: str) -> ast.expr | None:
    """Return an expression; None where it is none, or was shortened."""
    try:
        return ast.parse(text, mode="eval").body
    except SyntaxError:
        return None


def _function(function: str, v: str, minus: bool) -> str:
    """Write a simple function of a value."""
    name, quote = v.strip("`"), "`" if v.startswith("`") else ""
    is_atom = isinstance(_parsed(name), ast.Name | ast.Attribute | ast.Call | ast.Subscript)
    if not (is_atom or function == "{v}"):
        function, name = function.replace("({v})", "{v}"), f"({name})"
    text = function.format(v=name)
    made = _parsed(text)
    is_sum = isinstance(made, ast.BinOp) and isinstance(made.op, ast.Add | ast.Sub)
    text = f"-({text})" if minus and (is_sum or made is None) else f"{'-' * minus}{text}"
    return f"{quote}{text}{quote}"


def _derivative(
    result: str, by: str | None, function: str | None = None, true: str | None = None
) -> str:
    """Say what a derivative is one of, and what it is."""
    what = function or f"{result}{f' by {by}' if by else ''}"
    return f"the derivative of {what}{f', {true},' if true else ''}"


# -------------------- changes of the backward pass --------------------


def _of_derivative(derivative: Said, change: Said) -> str:
    """Say how a derivative is wrong, and what is right."""
    true = derivative.fields.get("true")
    if change.kind == "lost" and true is not None and true.kind != "function":
        return f"the factor {true} is missing"
    if change.kind != "taken_as":
        return f"{derivative} {change}"
    what = _derivative(**{**derivative.fields, "true": None})
    yours = f"your numbers are exactly those you get with {change}"
    return f"{yours} as {what}" if true is None else f"{what} is {true}; {yours}"


def _comes_out(flow: Said, change: Said, turns: bool, likewise: Sequence[str]) -> str:
    """Say which change of the backward pass makes the gradient come out."""
    kind = flow.kind if flow else ""
    text = f"{flow} {change}" if flow else str(change)
    if kind == "derivative":
        text = _of_derivative(flow, change)
    elif kind == "closed":
        y = flow.fields["result"]
        text = f"{flow}; in yours, {change.replace('{y}', y if _is_plain(y) else 'y')}"
    text += f", and likewise at {_listed(list(dict.fromkeys(likewise)))}" if likewise else ""
    return f"{text}, at each turn of the loop" if turns else text


def _flow(result: str, via: str | None, argument: str | None, run: Sequence[int] | None) -> str:
    """Say which part of the gradient is spoken of, by the way that it takes."""
    way = f"{result}{f' by way of {via}' if via else ''}"
    turn = f" (run {run[0]} of {run[1]} of this line)" if run else ""
    return f"what flows back{f' to {argument}' if argument else ''} through {way}{turn}"


MISTAKES: dict[str, str | Callable[..., str]] = {
    # -------------------- rows: what the numbers alone show --------------------
    "no_pattern": _no_pattern,
    "not_finite": "{count} of its {of} entries are NaN or infinite",
    "nothing_returned": "no gradient is returned, or written (None)",
    "all_zeros": "the gradient is never written: it is all zeros",
    "rounding_only": "the gradient is never written: it is zero up to rounding",
    "never_written": lambda zeros: f"the gradient is never written: it {_held(zeros)}",
    "stands_elsewhere": lambda zeros, attribute, owner: (
        f"the gradient is not written where it is looked for, which {_held(zeros)}: the true one "
        f"stands in {attribute} of {owner}"
    ),
    "array_replaced": lambda zeros: (
        f"the array was replaced: the network holds the old one, which {_held(zeros)}; write into "
        "it: grads[i][...] = dW"
    ),
    "upstream_ignored": lambda name=None: f"{_upstream(name)} is ignored: multiply by it",
    "upstream_twice": lambda name=None: f"{_upstream(name)} is multiplied in twice",
    "upstream_not_linear": _not_linear,
    "constant_factor": lambda times, factor, text, lost: (
        f"is {_times(times)} what it should be: the factor {_fraction(factor)} of {text} is "
        f"{'missing' if lost else 'there twice'}"
    ),
    "wrong_sign": "has the wrong sign: it is -1 times the true one",
    "times": lambda times, also, n=0.0: (
        f"is {_times(times)} what it should be{f' ({n:g} is {also} too)' if also else ''}"
    ),
    "mean_missing": lambda n, sign, what: (
        f"is {'minus ' * (sign < 0)}{n:g} times what it should be: summed over {_mean(n, what)}, "
        "not averaged"
    ),
    "averaged_over": lambda n, sign, what: (
        f"is {'minus ' * (sign < 0)}1/{n:g} of what it should be: averaged over {_mean(n, what)}, "
        "not summed"
    ),
    "one_less": lambda times, n, less, what: (
        f"is {_times(times)} what it should be: divided by {n:g} ({what}) for {less:g}, or the "
        "reverse"
    ),
    "ratio": lambda times, n, what, m, other: (
        f"is {_times(times)} what it should be: {n:g} ({what}) / {m:g} ({other})"
    ),
    "literal": lambda times, text, also, n: (
        f"is {_times(times)} what it should be: look at the {text} in this line ({n:g} is {also} "
        "too)"
    ),
    "either_way": lambda one, other: (
        "{one}; or {n:g} ({what}) / {m:g} ({other}): other sizes tell which"
    ).format(**{**other.fields, "one": one}),
    "either": "{what} or {other} (other sizes tell which)",
    "batch_size": "the batch size",
    "axis": "the length of axis {axis} of {of}",
    "entries": "the number of entries of {of}",
    "axes": lambda lengths, axes, of: (
        f"{' * '.join(map(str, lengths))}, the lengths of axes {_listed(axes)} of {of}"
    ),
    "output": "the output",
    "swapped": "is the gradient of {name}: the two are swapped",
    "that_of": "is the gradient of {name}",
    "transposed": "is the transpose of the true gradient",
    "axes_order": "has its axes in a wrong order: {axes} of the true gradient",
    "reordered": "has the true numbers in another order: reshaped in the wrong way",
    "reversed": "is reversed along axis {axis}",
    "shifted": "is shifted by {shift} along axis {axis}",
    "blocks": _blocks,
    "extra_axis": lambda shape, due: f"has an axis too many: {_shapes(shape, due)}",
    "not_summed": lambda axes, batch, shape, due: (
        f"is not summed over {'the batch' if batch else f'axis {axes}'}: {_shapes(shape, due)}"
    ),
    "lost_axis": lambda shape, due: (
        f"has the right numbers in another shape: {_shapes(shape, due)}"
    ),
    "should_keep": _should_keep,
    "other_sum": _other_sum,
    "summed": "is summed over axis {axes}",
    "averaged": "is averaged over axis {axes}",
    "the_largest": "is the largest over axis {axes}",
    "the_first": "is the first over axis {axes}",
    "the_last": "is the last over axis {axes}",
    "term": _term,
    "constant_added": "has a constant added to each entry: {constant:.6g}",
    "part": _part,
    "at": lambda places, more: f"the entries at {', '.join(map(str, places))}{', ...' * more}",
    "where": "the entries where {of} {sign} {bound:g}",
    "slices": _slices,
    "labels": "the entries that the forward pass picks (those of the labels)",
    "extreme": lambda of, largest: (
        f"the entries where {of} is {'largest' if largest else 'smallest'}"
    ),
    # -------------------- rows: what a change of the backward pass shows --------------------
    "two_mistakes": "has two mistakes: {first}; and beside that, {second}",
    "comes_out": _comes_out,
    "named": "{name}",
    "expression": lambda text: f"`{text if len(text) <= 60 else f'{text[:36]}…{text[-20:]}'}`",
    "result": "the result of {of}",
    "array": "a constant array",
    "upstream": _upstream_of,
    "gradient_of": "the gradient of {of}",
    "flow": _flow,
    "flow_to": "all that flows back to {argument}",
    "upstream_of": "the upstream gradient of {argument}",
    "derivative": _derivative,
    "function": _function,
    "closed": _closed,
    "left_out": "is missing",
    "lost": "is missing",
    "not_carried": lambda values: (
        f"nothing flows back from one turn of the loop to the turn before, through "
        f"{_listed(values)}"
    ),
    "not_multiplied": "is not multiplied by the gradient that comes in",
    "lacks_entry": lambda last, axis: (
        f"lacks its {'last' if last else 'first'} entry along axis {axis}"
    ),
    "picked_beside": "goes to other entries than the forward pass picks: {shift} further along "
    "axis {axis}",
    "cut_at": "is cut out of the padded array at the wrong place: from {offsets} on",
    "taken_as": _function,
    "times_too": lambda function, v, minus: (
        f"is multiplied by {_function(function, v, minus)} too, which it should not be"
    ),
    "operand": "is multiplied by {other}: it should be {operand}",
    "not_transposed": "is multiplied by {operand}: it should be the transpose of {operand}",
    "g_transposed": "is made from the transpose of the gradient that comes in",
    "updated": "is multiplied by {operand} as it is after its update (with the rate {rate:.6g}): "
    "take the {operand} of the forward pass",
    "made_from": "is made from {other}: it should be the gradient of {due}",
    "only": lambda flow, overwritten: (
        f"only {flow} is kept: {'each overwrites the one before; ' * overwritten}add up all (+=)"
    ),
    "overwritten": "where an entry of {of} is used more than once, its gradients overwrite each "
    "other: add them up (+=, and np.add.at where an index repeats)",
    "another_run": "{of} of another run of that line",
    "term_left_out": "the term - {term} is missing",
    "term_taken": "the term - {term} is - {other}",
    "term_axes": "{term} is over axis {axes}",
    "only_scaled_g": "only g is left of the bracket",
    "all_axes": "all of them are over axis {axes}",
    "g_left_out": "the term g is missing",
    "scale_left_out": "the factor beside the bracket is missing",
    "scale_squared": "the factor beside the bracket is there twice",
    "scale_inverted": "the factor beside the bracket is upside down (divided by, not multiplied)",
    "only_g": "only g is left",
}
