"""The README's table of other checkers: what each says of the same layers.

`python -m benchmarks.other_checkers` asks those that are installed. The layers: an affine layer
that averages its bias gradient over the batch; one that is right, in float32; a ReLU at 0, whose
gradient is 0; and a scale by 1, 1 and 1e-06 whose last gradient is twice what it should be.
"""

import importlib
import importlib.metadata
import warnings

import numpy as np

rng = np.random.default_rng(0)
X, W, B = rng.normal(size=(5, 4)), rng.normal(size=(4, 3)), rng.normal(size=3)
SCALE, TWICE = np.array([1.0, 1.0, 1e-6]), np.array([1.0, 1.0, 2e-6])
SINGLE = [array.astype(np.float32) for array in (X, W, B)]


def affine(x, w, b):
    """Return the layer that all are asked about."""
    return x @ w + b


def asked_here():
    """Ask this library: yes where the layer is right."""
    import spiral_autograd as sa

    def ask(forward, backward, *inputs):
        return bool(sa.check_backward(forward, backward, *inputs))

    def mean(g, cache):
        x, w = cache
        return g @ w.T, x.T @ g, g.mean(0)

    def summed(g, cache):
        x, w = cache
        return g @ w.T, x.T @ g, g.sum(0)

    def keep(x, w, b):
        return x @ w + b, (x, w)

    yield lambda: ask(keep, mean, X, W, B)
    yield lambda: ask(keep, summed, *SINGLE)
    yield lambda: ask(lambda x: (np.maximum(x, 0), x), lambda g, x: g * (x > 0), np.zeros(3))
    yield lambda: ask(lambda x: (x * SCALE, None), lambda g, _: g * TWICE, np.ones(3))


def asked_torch():
    """Ask PyTorch's gradcheck."""
    import torch

    def function(forward, backward):
        def keep(ctx, *inputs):
            ctx.save_for_backward(*inputs)
            return forward(*inputs)

        def back(ctx, g):
            return backward(g, *ctx.saved_tensors)

        methods = {"forward": staticmethod(keep), "backward": staticmethod(back)}
        return type("Made", (torch.autograd.Function,), methods).apply

    def ask(call, *arrays):
        inputs = tuple(torch.tensor(array, requires_grad=True) for array in arrays)
        return torch.autograd.gradcheck(call, inputs)

    scale, twice = torch.tensor(SCALE), torch.tensor(TWICE)
    mean = function(affine, lambda g, x, w, b: (g @ w.T, x.T @ g, g.mean(0)))
    yield lambda: ask(mean, X, W, B)
    yield lambda: ask(affine, *SINGLE)
    yield lambda: ask(torch.relu, np.zeros(3))
    yield lambda: ask(function(lambda x: x * scale, lambda g, x: g * twice), np.ones(3))


def asked_jax():
    """Ask JAX's check_grads."""
    import jax
    from jax.test_util import check_grads

    jax.config.update("jax_enable_x64", True)

    def made(forward, backward):
        call = jax.custom_vjp(forward)
        call.defvjp(lambda *inputs: (forward(*inputs), inputs), backward)
        return call

    def ask(call, *arrays):
        check_grads(call, tuple(jax.numpy.asarray(a) for a in arrays), order=1, modes=("rev",))
        return True

    mean = made(affine, lambda inputs, g: (g @ inputs[1].T, inputs[0].T @ g, g.mean(0)))
    yield lambda: ask(mean, X, W, B)
    yield lambda: ask(affine, *SINGLE)
    yield lambda: ask(jax.nn.relu, np.zeros(3))
    yield lambda: ask(made(lambda x: x * SCALE, lambda _, g: (g * TWICE,)), np.ones(3))


def asked_autograd():
    """Ask autograd's check_grads."""
    from autograd.extend import defvjp, primitive
    from autograd.test_util import check_grads

    def made(forward, *vjps):
        call = primitive(forward)
        defvjp(call, *vjps)
        return call

    def ask(call, *arrays):
        check_grads(call, tuple(range(len(arrays))), modes=["rev"], order=1)(*arrays)
        return True

    mean = made(
        affine,
        lambda ans, x, w, b: lambda g: g @ w.T,
        lambda ans, x, w, b: lambda g: x.T @ g,
        lambda ans, x, w, b: lambda g: g.mean(0),
    )
    relu = made(lambda x: np.maximum(x, 0), lambda ans, x: lambda g: g * (x > 0))
    yield lambda: ask(mean, X, W, B)
    yield lambda: ask(affine, *SINGLE)
    yield lambda: ask(relu, np.zeros(3))
    yield lambda: ask(made(lambda x: x * SCALE, lambda ans, x: lambda g: g * TWICE), np.ones(3))


def asked_chainer():
    """Ask Chainer's gradient_check, which needs a NumPy before 1.24."""
    import chainer
    from chainer import functions
    from chainer.gradient_check import check_backward

    def made(forward, backward):
        def keep(self, inputs):
            self.retain_inputs(tuple(range(len(inputs))))
            return (forward(*inputs),)

        def back(self, indexes, grads):
            return backward(grads[0], *self.get_retained_inputs())

        node = type("Made", (chainer.FunctionNode,), {"forward": keep, "backward": back})
        return lambda *inputs: node().apply(inputs)[0]

    def ask(call, g, *arrays):
        check_backward(call, arrays, g)
        return True

    def mean(g, x, w, b):
        products = functions.matmul(g, w.T), functions.matmul(x.T, g)
        return (*products, functions.sum(g, axis=0) / len(g))

    def right(x, w, b):
        return functions.matmul(x, w) + functions.broadcast_to(b, (5, 3))

    ones = np.ones((5, 3))
    yield lambda: ask(made(affine, mean), ones, X, W, B)
    yield lambda: ask(right, ones.astype(np.float32), *SINGLE)
    yield lambda: ask(functions.relu, np.ones(3), np.zeros(3))
    yield lambda: ask(made(lambda x: x * SCALE, lambda g, x: (g * TWICE,)), np.ones(3), np.ones(3))


CHECKERS = {
    "spiral_autograd": asked_here,
    "torch": asked_torch,
    "jax": asked_jax,
    "autograd": asked_autograd,
    "chainer": asked_chainer,
}


def said(ask):
    """Return what a checker says of a layer, in a word."""
    try:
        return "passes" if ask() else "fails"
    except Exception as error:
        return f"fails ({type(error).__name__})"


def main():
    """Print what each checker that is installed says of each layer."""
    print(f"{'':26}{'averaged bias':26}{'right, float32':26}{'right ReLU at 0':26}twice 1e-06")
    for name, asked in CHECKERS.items():
        try:
            importlib.import_module(name)
            version = importlib.metadata.version(name)
        except ImportError:
            print(f"{name:26}is not installed")
            continue
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            answers = [said(ask) for ask in asked()]
        print(f"{name + ' ' + version:26}" + "".join(f"{a:26}" for a in answers).rstrip())


if __name__ == "__main__":
    main()
