"""The same plan as code in the conventions that the checker knows, ready to be checked."""

from __future__ import annotations

import numpy as np

import spiral_autograd as sa

from .operations import Operation
from .plans import backward, forward


class Layer:
    """What all objects share: they run the steps of a plan."""

    def __init__(self, params):
        self.keep(params)

    def forward(self, *xs):
        self.n = len(xs)
        y, self.caches = forward(self.steps(), xs, self.held())
        return y

    def backward(self, g=1.0):
        dxs, grads, _ = backward(self.steps(), self.n, self.caches, g, self.edit())
        self.write(grads)
        return dxs[0] if len(dxs) == 1 else tuple(dxs)


class Attributes(Layer):
    prefix = "d{}"

    def keep(self, params):
        self.__dict__.update(params)

    def held(self):
        return {name: getattr(self, name) for name in self.names()}

    def write(self, grads):
        for name, grad in grads.items():
            setattr(self, self.prefix.format(name), grad)


class LongNames(Attributes):
    prefix = "grad_{}"


class Lists(Layer):
    def keep(self, params):
        self.params = list(params.values())
        self.grads = [np.zeros_like(p) for p in self.params]

    def held(self):
        return dict(zip(self.names(), self.params, strict=True))

    def write(self, grads):
        for place, name in enumerate(self.names()):
            if np.shape(grads[name]) == self.grads[place].shape:
                self.grads[place][...] = grads[name]
            else:
                self.grads[place] = grads[name]


class Dicts(Layer):
    def keep(self, params):
        self.params, self.grads = dict(params), {}

    def held(self):
        return self.params

    def write(self, grads):
        self.grads = dict(grads)


class Variable:
    def __init__(self, data):
        self.data, self.grad = data, None


class Variables(Layer):
    def keep(self, params):
        self.params = [Variable(value) for value in params.values()]

    def held(self):
        return {name: p.data for name, p in zip(self.names(), self.params, strict=True)}

    def write(self, grads):
        for name, p in zip(self.names(), self.params, strict=True):
            p.grad = grads[name]


class Returned(Attributes):
    def backward(self, g=1.0):
        dxs, grads, _ = backward(self.steps(), self.n, self.caches, g, self.edit())
        return (*dxs, *(grads[name] for name in self.names()))


class Nested(Layer):
    """Each step is a layer of its own, which the outer one holds."""

    def keep(self, params):
        self.parts = parts_of(self.plan(), params, self.edit())

    def steps(self):
        return tuple(
            step._replace(operation=_as_operation(part), params=())
            for step, part in zip(self.plan().steps, self.parts, strict=True)
        )

    def held(self):
        return {}

    def backward(self, g=1.0):
        edit = self.edit()
        outer = edit if edit is not None and edit.change == "forgotten" else None
        dxs, _, _ = backward(self.steps(), self.n, self.caches, g, outer)
        return dxs[0] if len(dxs) == 1 else tuple(dxs)


def _as_operation(part):
    def back(g, cache, wrong):
        dxs = part.backward(g)
        return dxs if isinstance(dxs, tuple) else (dxs,)

    return Operation("part", lambda *xs: (part.forward(*xs), None), back)


def parts_of(plan, params, edit, kind=Attributes):
    """Return a layer for each step of a plan."""
    parts = []
    for i, step in enumerate(plan.steps):
        args, held = tuple(range(len(step.args))), {name: params[name] for name in step.params}
        alone = plan._replace(steps=(step._replace(args=args),), params=held)
        here = edit is not None and edit.step == i and edit.change != "forgotten"
        parts.append(make(kind, alone, edit._replace(step=0) if here else None, held))
    return parts


class Accumulating(Attributes):
    """Every parameter's gradient is added to that of the call before, from zero on: right."""

    def write(self, grads):
        for name, grad in grads.items():
            before = getattr(self, f"d{name}", 0)
            setattr(self, f"d{name}", before + grad)


class OneAccumulating(Accumulating):
    """The first parameter's gradient alone is added to that of the call before: wrong."""

    def write(self, grads):
        first, *others = grads
        super().write({first: grads[first]})
        Attributes.write(self, {name: grads[name] for name in others})


class Stale(Attributes):
    """Keeps what the first forward pass cached: wrong from the second call on."""

    def forward(self, *xs):
        caches = getattr(self, "caches", None)
        y = super().forward(*xs)
        self.caches = caches or self.caches
        return y


class WrongFromTheThird(Attributes):
    """The third call and all after it give twice the first parameter's gradient."""

    calls = 0

    def write(self, grads):
        self.calls += 1
        first = next(iter(grads))
        super().write(grads | {first: grads[first] * (2 if self.calls > 2 else 1)})


def make(kind, plan, edit, params=None):
    """Return an object of a kind that runs the plan's steps, edited."""
    methods = {
        "plan": lambda self: plan,
        "steps": lambda self: plan.steps,
        "names": lambda self: tuple(plan.params),
        "edit": lambda self: edit,
    }
    kept = {name: method for name, method in methods.items() if not hasattr(kind, name)}
    made = type(kind.__name__, (kind,), kept)
    return made(plan.cast(plan.dtype)[1] if params is None else params)


def as_object(kind):
    def check(plan, edit, **options):
        inputs, _, upstream = plan.cast(plan.dtype)
        how = {} if plan.upstream.ndim == 0 else {"upstream": upstream}
        return sa.check_layer(make(kind, plan, edit), *inputs, **how, **options)

    check.__name__ = kind.__name__
    return check


# -------------------- pairs of functions --------------------


def pair(plan, edit, as_dict=False, **options):
    inputs, params, upstream = plan.cast(plan.dtype)
    steps, n, names = plan.steps, len(inputs), (*(f"x{i}" for i in range(len(inputs))), *params)

    def run(*values):
        y, caches = forward(steps, values[:n], dict(zip(names[n:], values[n:], strict=True)))
        return y, caches

    def back(dout, cache):
        dxs, grads, _ = backward(steps, n, cache, dout, edit)
        return (*dxs, *(grads[name] for name in names[n:]))

    return sa.check_backward(run, back, *inputs, *params.values(), upstream=upstream, **options)


# -------------------- losses --------------------


def loss_of(structure, together=False, marks=False):
    """Return a check of a plan that ends in a loss, its parameters in a structure."""

    def check(plan, edit, **options):
        inputs, params, _ = plan.cast(plan.dtype)
        pack, unpack = structure(params)
        steps = plan.steps

        def loss(params, *xs):
            mark = sa.tap if marks else lambda name, value: value
            return forward(steps, xs, unpack(params), mark)[0]

        def gradient(params, *xs):
            value, caches = forward(steps, xs, unpack(params))
            _, grads, adjoints = backward(steps, len(xs), caches, np.ones_like(value), edit)
            packed = pack(grads)
            if marks:
                packed |= adjoints
            return (value, packed) if together else packed

        return sa.check_gradient(loss, gradient, pack(params), *inputs, **options)

    check.__name__ = f"loss of {structure.__name__}, {together=}, {marks=}"
    return check


def a_dict(params):
    return dict, lambda held: held


def a_list(params):
    def pack(values):
        return [values[name] for name in params]

    return pack, lambda held: dict(zip(params, held, strict=True))


def a_flat_array(params):
    shapes = {name: value.shape for name, value in params.items()}

    def pack(values):
        return np.concatenate([np.ravel(values[name] + 0 * held) for name, held in params.items()])

    def unpack(flat):
        out, start = {}, 0
        for name, shape in shapes.items():
            stop = start + int(np.prod(shape))
            out[name], start = flat[start:stop].reshape(shape), stop
        return out

    return pack, unpack


def d_keys(params):
    """deeplearning.ai: the gradients' keys have a d before them."""

    def pack(values):
        given = values is params
        return {name if given else f"d{name}": values[name] for name in params}

    return pack, lambda held: held


# -------------------- networks --------------------


def network(plan, edit, **options):
    """Each step of a chain is a layer of its own, the last one the loss."""
    (x,), params, _ = plan.cast(plan.dtype)
    *chain, last = parts_of(plan, params, edit, Lists)
    last.__class__ = type("Loss", (type(last),), {"forward": _with_labels})
    return sa.check_network(chain, x, np.zeros(len(x), int), loss=last, **options)


def _with_labels(self, x, t):
    return Layer.forward(self, x)


LAYERS = [
    *map(as_object, (Attributes, LongNames, Lists, Dicts, Variables, Returned, Nested)),
    pair,
]
GRADIENTS = [
    loss_of(a_dict),
    loss_of(a_dict, together=True),
    loss_of(a_list),
    loss_of(a_flat_array),
    loss_of(d_keys),
    loss_of(a_dict, marks=True),
]
LOSS_LAYERS = [as_object(Attributes), as_object(Lists)]
