"""Plans: operations in a row, each on values made before; edits of their backward pass; the truth.

The truth is the plan's own backward pass, unedited, in long double.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from .operations import Choices, Operation, Unfit
from .shapes import LOSSES, ONE_VALUE, TWO_VALUES

# Of the largest entry of the own row or column; differences in float32 know 2 % at best.
TOLERANCE = {np.float64: 1e-6, np.float32: 3e-2}
VANISHED = 1e-30  # smaller differences are those of saturated functions, which show in no step
MISPRINT = 1e-5  # the smallest relative mistake


class Step(NamedTuple):
    operation: Operation
    args: tuple[int, ...]  # the numbers of the values that it takes
    params: tuple[str, ...]


class Plan(NamedTuple):
    inputs: tuple[np.ndarray, ...]
    params: dict[str, np.ndarray]
    steps: tuple[Step, ...]
    upstream: np.ndarray
    dtype: type
    text: str

    def cast(self, dtype):
        """Return inputs, parameters and upstream in another precision than the plan's."""
        held = [a.astype(self.dtype).astype(dtype) for a in (*self.inputs, *self.params.values())]
        n = len(self.inputs)
        upstream = np.asarray(self.upstream, self.dtype).astype(dtype)
        return held[:n], dict(zip(self.params, held[n:], strict=True)), upstream


class Edit(NamedTuple):
    """One thing that is wrong: a mistake of an operation, or a change of one of its gradients."""

    step: int
    part: int  # of the operation's gradients; -1 is the upstream gradient; -2 is none
    change: str
    seed: int = 0

    def __str__(self):
        part = {-1: "upstream", -2: "as a whole"}.get(self.part, f"gradient {self.part}")
        return f"edit of step {self.step}, {part}: {self.change} (seed {self.seed})"


# -------------------- running --------------------


def forward(steps, inputs, params, mark=lambda name, value: value):
    """Return the output and the caches of all steps."""
    values, caches = list(inputs), []
    for i, step in enumerate(steps):
        args = [values[a] for a in step.args]
        y, cache = step.operation.forward(*args, *(params[name] for name in step.params))
        values.append(mark(f"v{i}", y))
        caches.append(cache)
    return values[-1], caches


def backward(steps, n_inputs, caches, upstream, edit=None):
    """Return the gradients of inputs, of parameters, and of the marks."""
    adjoints, grads, marks = {n_inputs + len(steps) - 1: upstream}, {}, {}
    for i in reversed(range(len(steps))):
        step, here = steps[i], edit if edit is not None and edit.step == i else None
        g = marks[f"v{i}"] = adjoints.pop(n_inputs + i)
        if here and here.part == -1:
            g = changed(g, here)
        wrong = here.change if here and here.part == -2 and here.change != "forgotten" else ""
        parts = [*step.operation.backward(g, caches[i], wrong)]
        if here and here.part >= 0:
            parts[here.part] = changed(parts[here.part], here)
        for a, part in zip(step.args, parts, strict=False):
            if a not in adjoints:
                adjoints[a] = part
            elif not (here and here.change == "forgotten"):
                adjoints[a] = adjoints[a] + part
        grads.update(zip(step.params, parts[len(step.args) :], strict=True))
    return [adjoints[a] for a in range(n_inputs)], grads, marks


# -------------------- edits --------------------


def _with(a, place, factor):
    a = np.array(a)
    a[place] *= factor
    return a


CHANGES = {
    "doubled": lambda a, r: 2 * a,
    "halved": lambda a, r: a / 2,
    "negated": lambda a, r: -a,
    "zero": lambda a, r: 0 * a,
    "averaged": lambda a, r: a / (len(a) if a.ndim else 3),
    "constant added": lambda a, r: a + 0.1 * np.abs(a).max(),
    "ones": lambda a, r: np.ones_like(a),
    "squared": lambda a, r: a * a,
    "absolute": lambda a, r: np.abs(a),
    "clipped": lambda a, r: np.clip(a, -0.5 * np.abs(a).max(), 0.5 * np.abs(a).max()),
    "by 1 %": lambda a, r: 1.01 * a,
    "misprint": lambda a, r: a * (1 + MISPRINT),
    "one row": lambda a, r: _with(a, r.integers(len(a)), 2) if a.ndim else 2 * a,
    "one row a little": lambda a, r: _with(a, r.integers(len(a)), 1.001) if a.ndim else 1.001 * a,
    "one column": lambda a, r: _with(a, (..., r.integers(a.shape[-1])), 0) if a.ndim else 0 * a,
    "one entry": lambda a, r: _with(a, tuple(r.integers(a.shape)), -1) if a.ndim else -a,
    "reversed": lambda a, r: a[::-1] if a.ndim else 2 * a,
    "rolled": lambda a, r: np.roll(a, 1),
    "transposed": lambda a, r: a.T.reshape(a.shape) if a.ndim > 1 else 2 * a,
}


def changed(a, edit):
    a = np.asarray(a)
    out = np.asarray(CHANGES[edit.change](a, np.random.default_rng(edit.seed)))
    return out.astype(a.dtype)


def draw_edit(choices, plan):
    """Return an edit of one step, by a mistake of the operation's own about half of the time."""
    i = choices.random.randrange(len(plan.steps))
    step = plan.steps[i]
    taken = [a for later in plan.steps[i + 1 :] for a in later.args]
    if any(a in taken for a in step.args) and choices.chance(0.5):
        return Edit(i, -2, "forgotten")
    if step.operation.mistakes and choices.chance(0.5):
        return Edit(i, -2, choices.choice(step.operation.mistakes))
    part = choices.random.randint(-1, len(step.args) + len(step.params) - 1)
    return Edit(i, part, choices.choice(list(CHANGES)), choices.random.getrandbits(16))


# -------------------- drawing a plan --------------------


def draw_input(choices, shape):
    x, kind = choices.normal(*shape), choices.choice(["plain"] * 6 + [*KINDS])
    return KINDS.get(kind, lambda x, r: x)(x, choices.rng()), kind


def _features(x, r):
    return x * 10.0 ** r.integers(-3, 6, size=x.shape[-1:])


KINDS = {
    "1e-4": lambda x, r: 1e-4 * x,
    "1e3": lambda x, r: 1e3 * x,
    "1e6": lambda x, r: 1e6 * x,
    "features": _features,
    "saturated": lambda x, r: 15 * x,
    "whole numbers": lambda x, r: x.round(),
    "row of zeros": lambda x, r: x * (np.arange(len(x)) > 0).reshape(-1, *(1,) * (x.ndim - 1)),
    "zeros": lambda x, r: x * (r.random(x.shape) < 0.5),
    "equal": lambda x, r: np.full_like(x, x.flat[0]),
    "far from zero": lambda x, r: x + 1e3,
    "positive": lambda x, r: np.abs(x),
}


def draw_plan(choices, *, loss=False, chain=False, dtype=None):
    """Return a plan of one to six steps, ended by a loss if asked for."""
    shape = [choices.size(1, 5) for _ in range(choices.choice([1, 2, 2, 2, 3]))]
    count = 1 if chain else choices.choice([1, 1, 2])
    inputs, kinds = zip(*(draw_input(choices, shape) for _ in range(count)), strict=True)
    values, params, steps = [*inputs], {}, []
    length = choices.size(1, 6)
    while len(steps) < length or loss:
        last = len(steps) >= length
        try:
            step, new, value = _draw_step(choices, values, len(steps), last, chain)
        except Unfit:
            if last:
                raise
            continue
        steps.append(step)
        values.append(value)
        params |= new
        if last:
            break
    names = " | ".join(f"{s.operation.name} of {s.args}" for s in steps)
    dtype = dtype or choices.choice([np.float64, np.float64, np.float32])
    shapes = ", ".join(f"{x.shape} {kind}" for x, kind in zip(inputs, kinds, strict=True))
    upstream = (
        np.ones(())
        if loss
        else choices.choice([1, 1, 1e-3, 1e4]) * choices.normal(*np.shape(values[-1]))
    )
    plan = _without_unused(Plan(inputs, params, tuple(steps), upstream, dtype, ""))
    return plan._replace(text=f"{dtype.__name__} {shapes}: {names}")


def _draw_step(choices, values, i, last, chain):
    args = (len(values) - 1,)
    if last:
        make = choices.choice(LOSSES)
    elif choices.chance(0.3) and not chain:
        make, shape = choices.choice(TWO_VALUES), values[-1].shape
        others = [k for k, v in enumerate(values) if v.shape == shape]
        args = (*args, choices.choice(others))
    else:
        make = choices.choice(ONE_VALUE)
    taken = [values[a] for a in args]
    operation = make(choices, *taken)
    with np.errstate(all="ignore"):
        y, _ = operation.forward(*taken, *operation.params.values())
    if not (np.all(np.isfinite(y)) and 0 < np.size(y) <= 200 and np.abs(y).max() < 1e8):
        raise Unfit
    names = {f"{name}{i + 1}": value for name, value in operation.params.items()}
    return Step(operation._replace(params={}), args, tuple(names)), names, y


def _without_unused(plan):
    """Drop the steps and the inputs that do not reach the output."""
    n = len(plan.inputs)
    used = {n + len(plan.steps) - 1}
    for i in reversed(range(len(plan.steps))):
        if n + i in used:
            used.update(plan.steps[i].args)
    number = {old: new for new, old in enumerate(sorted(used))}
    kept = [step for i, step in enumerate(plan.steps) if n + i in used]
    names = [name for step in kept for name in step.params]
    return plan._replace(
        inputs=tuple(x for i, x in enumerate(plan.inputs) if i in used),
        params={name: plan.params[name] for name in names},
        steps=tuple(s._replace(args=tuple(number[a] for a in s.args)) for s in kept),
    )


# -------------------- the truth --------------------


def gradients(plan, edit=None, dtype=None, moved=None, steps=None):
    """Return all gradients by name; at values moved by a stream where one is given."""
    inputs, params, upstream = plan.cast(dtype or plan.dtype)
    if moved is not None:
        inputs = [_moved(x, moved) for x in inputs]
        params = {name: _moved(value, moved) for name, value in params.items()}
    steps = steps or plan.steps
    with np.errstate(all="ignore"):
        _, caches = forward(steps, inputs, params)
        dxs, grads, _ = backward(steps, len(inputs), caches, upstream, edit)
    return {f"x{i}": dx for i, dx in enumerate(dxs)} | {name: grads[name] for name in params}


def _moved(x, rng):
    return x + 1e-9 * (np.abs(x) + np.abs(x).max()) * rng.normal(size=x.shape)


def own(a):
    """Return for each entry the smaller of the largest entries of its row and of its column."""
    a = np.abs(a)
    if a.ndim < 2:
        return np.full(a.shape, a.max())
    others = [tuple(k for k in range(a.ndim) if k != axis) for axis in range(a.ndim)]
    return np.min([np.broadcast_to(a.max(axis=o, keepdims=True), a.shape) for o in others], axis=0)


class Truth:
    """The gradients of a plan in long double, where a kink touches them, and how they round."""

    def __init__(self, plan):
        self.plan, rng = plan, np.random.default_rng(0)
        self.right = gradients(plan)
        self.true = gradients(plan, dtype=np.longdouble)
        runs = [gradients(plan, dtype=np.longdouble, moved=rng) for _ in range(8)]
        self.touched, self.noise, self.usable = {}, {}, True
        eps = np.finfo(plan.dtype).eps
        for name, true in self.true.items():
            beside = np.array([run[name] for run in runs])
            spread = np.ptp(beside, axis=0)
            self.touched[name] = spread > 1e-4 * own(true)
            self.noise[name] = np.abs(self.right[name] - true).max() + 4 * eps * np.abs(true).max()
            apart = np.abs(true - beside[0]) > 0.01 * own(true) + spread
            self.usable &= np.all(np.isfinite(true)) and np.all(np.isfinite(self.right[name]))
            self.usable &= not np.any(apart & ~self.touched[name])
        self.usable = bool(self.usable)

    def share_wrong(self, edit, names=None):
        """Return the largest clear difference that an edit makes, as a share of its own row.

        It is 0 too where the difference might be that of leaving out a small constant.
        """
        found = gradients(self.plan, edit)
        exact = gradients(self.plan, edit, np.longdouble)
        names = names or list(found)
        share = max(self._share(name, found[name], exact[name]) for name in names)
        ideals = [step.operation.ideal for step in self.plan.steps]
        if share and any(ideals):
            pairs = zip(self.plan.steps, ideals, strict=True)
            steps = [step._replace(operation=o or step.operation) for step, o in pairs]
            without = gradients(self.plan, dtype=np.longdouble, steps=steps)
            if all(_is_towards(found[k], self.true[k], without[k]) for k in names):
                return 0.0
        return share

    def _share(self, name, found, exact):
        """Return the largest clear difference as a share of its own row or column.

        It is that of long double, and clear if it is far above what is rounded on both sides.
        """
        true = self.true[name]
        if found.shape != true.shape or not np.all(np.isfinite(found)):
            return np.inf
        noise, difference = np.abs(found - exact).max() + self.noise[name], np.abs(exact - true)
        clear = (difference > np.maximum(300 * noise, VANISHED)) & ~self.touched[name]
        clear &= difference > TOLERANCE[self.plan.dtype] * own(true)
        if not clear.any():
            return 0.0
        with np.errstate(divide="ignore", invalid="ignore"):
            return float((difference / own(true))[clear].max())


def _is_towards(found, true, ideal):
    """Is the difference from the truth, if any, that of leaving out a small constant?"""
    if found.shape != true.shape or not np.all(np.isfinite(ideal)):
        return False
    return bool(np.abs(found - ideal).max() <= 0.1 * np.abs(found - true).max() + 1e-12)


def draw(random, **how):
    """Return a plan that can be used, and its truth."""
    for _ in range(100):
        try:
            plan = draw_plan(Choices(random), **how)
        except Unfit:
            continue
        truth = Truth(plan)
        if truth.usable:
            return plan, truth
    raise AssertionError("a hundred plans in a row cannot be used")
