"""The sentences about mistakes: what the numbers of a gradient show, and what flows back.

They are handed the fields of a finding; where a field is a finding itself, its sentence.
"""

from __future__ import annotations

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


def listed(names: Sequence[object], most: int = 6) -> str:
    """Return names as a person lists them: a, b and c."""
    texts = [str(name) for name in names]
    if len(texts) > most:
        return f"{', '.join(texts[:most])}, ..."
    return " and ".join(filter(None, (", ".join(texts[:-1]), texts[-1])))


def upstream_name(name: str | None) -> str:
    """Return what the reader calls the upstream gradient."""
    return name or "the upstream gradient"


def _of_upstream(output: int | None = None, name: str | None = None) -> str:
    return f"{upstream_name(name)}{'' if output is None else f' of output {output}'}"


def _shapes(shape: object, due: object) -> str:
    return f"its shape is {shape}, it should be {due}"


# -------------------- what the numbers show --------------------


def _no_pattern(late: bool, differing: int | None, of: int = 0, index: object = None) -> str:
    text = "no known mistake gives these numbers"
    text += " (the search stopped when its budget= was spent)" if late else ""
    some = differing not in (None, of)
    return (
        f"{text}; {differing} of its {of} entries {'is' if differing == 1 else 'are'} wrong"
        if some
        else text
    )


def _right_with(
    statement: str, others: Sequence[str], derivatives: Sequence[tuple[str, str]]
) -> str:
    """Say what should stand in the place of a line, or of several; nothing, where one should go."""
    texts = [f"`{text}`" for text in (statement, *others) if text]
    parts = [f"with {listed(texts)}"] if texts else []
    if "" in (statement, *others):
        parts.append("without a line" if texts else "without this line")
    known = [f"the derivative of {name} is {text}" for name, text in derivatives]
    return "; ".join([f"is right {listed(parts)}", *known])


def _held(zeros: bool) -> str:
    return "is all zeros" if zeros else "is what it was before"


def _not_linear(decides: bool, name: str | None = None) -> str:
    upstream = upstream_name(name)
    if decides:
        return f"{upstream} decides which entries are kept: take the mask from the forward pass"
    return f"is not proportional to {upstream}, as a gradient is: only multiply it, and sum"


def _times(times: float) -> str:
    """Say that something is a multiple of what it should be."""
    text = _number(times)
    plain = f"{text} of" if text.startswith(("1/", "-1/")) else f"{text} times"
    return {2.0: "twice", 0.5: "half of"}.get(times, plain)


def _number(value: float) -> str:
    """Write a number: as a decimal of few digits, else as a fraction or a root, if it is."""
    fraction, square = (Fraction(v).limit_denominator(1000) for v in (value, value * value))
    tiny = 2e-9 * abs(value)
    if abs(round(value, 3) - value) <= tiny:
        return f"{value:.6g}"
    if abs(fraction - value) <= tiny:
        return str(fraction)
    root = value > 0 and square.denominator < 100 and abs(float(square) ** 0.5 - value) <= tiny
    return f"sqrt({square})" if root else f"{value:.6g}"


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
        return f"has blocks {listed(moved)} of its {count} along axis {axis} swapped"
    return f"has its {count} blocks along axis {axis} in a wrong order: {tuple(order)}"


def _should_keep(change: Said, shape: Sequence[int], due_axes: object) -> str:
    """Say that a sum is one over too many axes, and which are the right ones."""
    axes = change.fields.get("axes")
    summed = axes if isinstance(axes, tuple) else (axes,)
    one = not any(n > 1 for axis, n in enumerate(shape) if axis not in summed)
    start = "is one number" if one and change.kind == "summed" else change
    if due_axes is not None:  # axes of what is summed, as the others are of the gradient
        many = "is summed over an axis too many" if isinstance(axes, int) else "is summed too far"
        return f"{start if change.kind != 'summed' or one else many}: sum over axis {due_axes} only"
    return f"{start}: it should keep {'this axis' if isinstance(axes, int) else 'these axes'}"


def _other_sum(
    change: str, right: bool, due_axes: object, shape: object = None, due: object = None
) -> str:
    shapes = f" ({_shapes(shape, due)})" if shape is not None else ""
    if not right and due_axes is None:
        return f"{change}: not the right axes{shapes}"
    return f"{change}: it should be the sum{'' if right else f' over axis {due_axes}'}{shapes}"


def _term(of: str, times: float, own: bool, lacks: bool) -> str:
    decay = f"weight decay?{'' if lacks else ' then the loss must have it, as strong'}"
    what = f"{of} itself ({decay})" if own else of
    what = what if times == 1 else f"{times:.6g} times {what}"
    return f"lacks a term: {what}" if lacks else f"has a term too many: {what}"


# -------------------- wrong in part only --------------------

_SLICES = {(1, 0): ("entry", "entries"), (2, 0): ("row", "rows"), (2, 1): ("column", "columns")}


def _slices(axis: int, ndim: int, hit: Sequence[int], length: int) -> str:
    if (ndim, axis) in _SLICES:
        text = f"{_SLICES[ndim, axis][len(hit) > 1]} {listed(hit)}"
    else:
        is_run = len(hit) > 1 and hit[-1] - hit[0] == len(hit) - 1
        some = [f"{hit[0]}:{hit[-1] + 1}"] if is_run else hit
        index = [f"[{', '.join(':' if i != axis else str(n) for i in range(ndim))}]" for n in some]
        text = f"the entries {listed(index, 3)}"
    ends = {0: " (the first)", length - 1: " (the last)"}
    return f"{text}{ends.get(hit[0], '') if len(hit) == 1 else ''}"


def _part(wrong: int, of: int, mark: Said) -> str:
    hit = mark.fields.get("hit")
    is_one = mark.fields.get("ndim") in (1, 2) and isinstance(hit, Sequence) and len(hit) == 1
    return f"only {mark} {'is' if is_one else 'are'} wrong ({wrong} of its {of} entries)"


# -------------------- what flows back --------------------


def _flow(result: str, via: str | None, argument: str | None, run: Sequence[int] | None) -> str:
    """Say which part of the gradient is spoken of, by the way that it takes."""
    way = f"{result}{f' by way of {via}' if via else ''}"
    turn = f" (run {run[0]} of {run[1]} of this line)" if run else ""
    to = f" to {argument}" if argument not in (None, result) else ""
    return f"what flows back{to} through {way}{turn}"


MISTAKES: dict[str, str | Callable[..., str]] = {
    # -------------------- rows: what the numbers alone show --------------------
    "no_pattern": _no_pattern,
    "right_with": _right_with,
    "not_finite": "{count} of its {of} entries are NaN or infinite",
    "unused_by_forward": "the output does not change with it: the true gradient is zero",
    "nothing_returned": "no gradient is returned, or written (None)",
    "all_zeros": "the gradient is all zeros: it is never written, or written with zeros",
    "rounding_only": "is zero up to rounding: what it adds up cancels, or it is never written",
    "never_written": lambda zeros: f"the gradient is never written: it {_held(zeros)}",
    "stands_elsewhere": lambda zeros, attribute, owner: (
        f"the gradient is not written where it is looked for, which {_held(zeros)}: the true one "
        f"stands in {attribute} of {owner}"
    ),
    "array_replaced": lambda zeros: (
        f"the array was replaced: the network holds the old one, which {_held(zeros)}; write into "
        "it: grads[i][...] = dW"
    ),
    "upstream_ignored": lambda name=None: f"{upstream_name(name)} is ignored: multiply by it",
    "upstream_twice": lambda name=None: f"{upstream_name(name)} is multiplied in twice",
    "diagonal_of_softmax": lambda name=None: (
        "has the derivative y * (1 - y) of each output y by itself, but each depends on its whole "
        "row, as in every softmax: the true gradient is y * (g - sum(y * g)), g being "
        + upstream_name(name)
    ),
    "upstream_not_linear": _not_linear,
    "updated": lambda names: (
        f"is made from what backward has changed already ({listed(names)}): take what the forward "
        "pass had"
    ),
    "constant_factor": lambda times, factor, text, lost: (
        f"is {_times(times)} what it should be: the factor {_number(factor)} of {text} is "
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
    "either_way": lambda one, other: (
        "{one}; or {n:g} ({what}) / {m:g} ({other}): other sizes tell which"
    ).format(**{**other.fields, "one": one}),
    "either": "{what} or {other} (other sizes tell which)",
    "batch_size": "the batch size",
    "axis": "the length of axis {axis} of {of}",
    "entries": "the number of entries of {of}",
    "axes": lambda lengths, axes, of: (
        f"{' * '.join(map(str, lengths))}, the lengths of axes {listed(axes)} of {of}"
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
    "gradient_of": "the gradient of {of}",
    "taken_as": "is what you get with {text} as the derivative by it, where v is {of}",
    "part": _part,
    "term_in_part": lambda of, times, lacks, mark: (
        f"lacks a term, {times:.6g} * {of}, in {mark}"
        if lacks
        else f"has a term too many, {times:.6g} * {of}, in {mark} too"
    ),
    "constant_in_part": "has a constant added to {mark}: {constant:.6g}",
    "at": lambda places, more: f"the entries at {', '.join(map(str, places))}{', ...' * more}",
    "where": "the entries where {of} {sign} {bound:g}",
    "slices": _slices,
    "labels": "the entries that the forward pass picks (those of the labels)",
    "extreme": lambda of, largest: (
        f"the entries where {of} is {'largest' if largest else 'smallest'}"
    ),
    # -------------------- what flows back --------------------
    "named": "{name}",
    "expression": lambda text: f"`{text if len(text) <= 60 else f'{text[:36]}…{text[-20:]}'}`",
    "result": "the result of {of}",
    "array": "a constant array",
    "upstream": _of_upstream,
    "flow": _flow,
    "flow_to": "all that flows back to {argument}",
    "upstream_of": "the upstream gradient of {argument}",
    "left_out": "{flow} is missing",
    "lost": lambda result, by: f"the derivative of {result}{f' by {by}' if by else ''} is missing",
    "not_carried": lambda values: (
        f"nothing flows back from one turn of the loop to the turn before, through {listed(values)}"
    ),
    "truncated": lambda steps: (
        f"what flows back through the loop is cut off after {steps} turn{'s' * (steps > 1)} "
        "(truncated: right if that is meant)"
    ),
    "only": lambda flow, overwritten, is_set: (
        f"only {flow} is kept: {'each overwrites the one before; ' * overwritten}add up all (+=)"
        if is_set
        else f"only {flow} is kept: what flows back beside it is missing"
    ),
}
