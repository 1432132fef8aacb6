"""What others hand over: functions with a context, JAX's custom_vjp, vjps, derivatives.

Each is as its framework has it, right and wrong.
"""
# ruff: noqa: A001, A002  # "input", as PyTorch calls it

import functools
import inspect
import math

import autograd.numpy as anp
import numpy as np
import pytest
from autograd.extend import defjvp, defvjp, defvjp_argnum, primitive
from findings import has, kinds

import spiral_autograd as sa

rng = np.random.default_rng(0)
x, y = rng.standard_normal((2, 4, 3))
W, b = rng.standard_normal((3, 2)), rng.standard_normal(2)
v = rng.standard_normal(5)

RIGHT = ("exact", "match")


def verdicts(report):
    return {row.name: "right" if row.verdict in RIGHT else row.verdict for row in report.rows}


def row_of(report, name):
    return next(row for row in report.rows if row.name == name)


def line_of(function, text):
    """The file and the line of a function that has a text in it."""
    lines, start = inspect.getsourcelines(function)
    return inspect.getsourcefile(function), start + next(
        i for i, line in enumerate(lines) if text in line
    )


# -------------------- functions whose methods take a context --------------------


class Function:
    """What a framework has; here it does nothing."""


class Linear(Function):
    """As in PyTorch's own tutorial."""

    @staticmethod
    def forward(ctx, input, weight, bias=None):
        ctx.save_for_backward(input, weight, bias)
        output = input @ weight
        return output if bias is None else output + bias

    @staticmethod
    def backward(ctx, grad_output):
        input, weight, bias = ctx.saved_tensors
        grad_input = grad_weight = grad_bias = None
        if ctx.needs_input_grad[0]:
            grad_input = grad_output @ weight.T
        if ctx.needs_input_grad[1]:
            grad_weight = input.T @ grad_output
        if bias is not None and ctx.needs_input_grad[2]:
            grad_bias = grad_output.sum(0)
        return grad_input, grad_weight, grad_bias


class NotSummed(Linear):
    @staticmethod
    def backward(ctx, grad_output):
        grad_input, grad_weight, _ = Linear.backward(ctx, grad_output)
        return grad_input, grad_weight, grad_output


class Scale(Function):
    """A number and an axis have no gradient."""

    @staticmethod
    def forward(ctx, tensor, constant, axis):
        ctx.constant = constant
        return tensor.sum(axis, keepdims=True) * constant * np.ones_like(tensor)

    @staticmethod
    def backward(ctx, grad_output):
        return ctx.constant * grad_output.sum(1, keepdims=True) * np.ones((1, 3)), None, None


class Inv(Function):
    """minitorch gives one value back as itself."""

    @staticmethod
    def forward(ctx, a):
        ctx.save_for_backward(a)
        return 1.0 / a

    @staticmethod
    def backward(ctx, d_output):
        a = ctx.saved_values
        return -d_output / a**2


class InvInTuple(Inv):
    @staticmethod
    def backward(ctx, d_output):
        (a,) = ctx.saved_values
        return -d_output / a**2


class Power(Function):
    """minitorch's newer ones are class methods."""

    @classmethod
    def forward(cls, ctx, a, n):
        ctx.n, ctx.a = n, a
        return a**n

    @classmethod
    def backward(cls, ctx, g):
        return g * ctx.n * ctx.a ** (ctx.n - 1)


class PowerWithoutFactor(Power):
    @classmethod
    def backward(cls, ctx, g):
        return g * ctx.a ** (ctx.n - 1)


class Node:
    """As in tinygrad: made of the tensors, and itself the context."""

    def __init__(self, device, *tensors):
        raise RuntimeError("there is no device here")

    def save_for_backward(self, *tensors):
        self.saved_tensors = tensors

    def flipped(self, array):
        return array.T


class Dot(Node):
    def forward(self, a, w):
        self.save_for_backward(a, w)
        return a.dot(w)

    def backward(self, grad_output):
        a, w = self.saved_tensors
        return grad_output.dot(self.flipped(w)), self.flipped(a).dot(grad_output)


class Relu(Function):
    """The old tinygrad, in which ctx stands for self."""

    def forward(ctx, input):  # noqa: N805
        ctx.save_for_backward(input)
        return np.maximum(input, 0)

    def backward(ctx, grad_output):  # noqa: N805
        (input,) = ctx.saved_tensors
        grad_input = grad_output.copy()
        grad_input[input < 0] = 0
        return grad_input


class Cube:
    """An object's methods, with a context beside."""

    def forward(self, context, a):
        context.a = a
        return a**3

    def backward(self, context, g):
        return 3 * context.a**2 * g


class SinTimes(Function):
    """PyTorch 2: forward without a context, which another method sets up."""

    @staticmethod
    def forward(a, b):
        return np.sin(a) * b

    @staticmethod
    def setup_context(ctx, inputs, output):
        ctx.save_for_backward(*inputs)

    @staticmethod
    def backward(ctx, g):
        a, b = ctx.saved_tensors
        return g * np.cos(a) * b, g * np.sin(a)


class Max(Function):
    """Two outputs, one of them integers."""

    @staticmethod
    def forward(ctx, input):
        index = input.argmax(axis=1)
        ctx.mark_non_differentiable(index)
        ctx.save_for_backward(index)
        return input.max(axis=1), index

    @staticmethod
    def backward(ctx, g, _):
        (index,) = ctx.saved_variables
        grad = np.zeros((4, 3))
        grad[np.arange(4), index] = g
        return grad


class Unnamed(Function):
    """No name tells what the first argument is; but it is one more than there are inputs."""

    @staticmethod
    def forward(memo, a):
        memo.y = np.tanh(a)
        return memo.y

    @staticmethod
    def backward(memo, g):
        return g * (1 - memo.y**2)


@pytest.mark.parametrize(
    ("function", "inputs", "names"),
    [
        (Linear, (x, W, b), "input weight bias"),
        (Linear, (x, W), "input weight"),
        (Scale, (x, 3.0, 1), "tensor"),
        (Inv, (2.0,), "a"),
        (Inv, (x,), "a"),
        (InvInTuple, (2.0,), "a"),
        (InvInTuple, (x,), "a"),
        (Power, (x, 3), "a"),
        (Dot, (x, W), "a w"),
        (Relu, (x,), "input"),
        (Cube, (x,), "a"),
        (Cube(), (x,), "a"),
        (SinTimes, (x, y), "a b"),
        (Max, (x,), "input"),
        (Unnamed, (x,), "a"),
    ],
)
def test_a_function_with_a_context_is_right(function, inputs, names):
    report = sa.check_layer(function, *inputs)
    assert verdicts(report) == dict.fromkeys(names.split(), "right")
    assert report.ok
    assert not report.unchecked
    named = function if isinstance(function, type) else type(function)
    assert report.subject == named.__name__


def test_wrong_functions_are_explained_with_their_lines():
    report = sa.check_layer(NotSummed, x, W, b)
    assert verdicts(report) == {"input": "right", "weight": "right", "bias": "wrong"}
    assert has(row_of(report, "bias"), "not_summed", batch=True)
    assert line_of(NotSummed, "return grad_input") in row_of(report, "bias").lines

    report = sa.check_layer(PowerWithoutFactor, x, 3)
    assert row_of(report, "a").rule == "factor"
    assert line_of(PowerWithoutFactor, "return g") in row_of(report, "a").lines


class Swapped(Function):
    @staticmethod
    def forward(ctx, a, b):
        ctx.save_for_backward(a, b)
        return a * b

    @staticmethod
    def backward(ctx, grad):
        a, b = ctx.saved_tensors
        return grad * a, grad * b


class Forgetful(Swapped):
    @staticmethod
    def backward(ctx, grad):
        return grad * ctx.saved_tensors[1], None


class Ignoring(Swapped):
    @staticmethod
    def backward(ctx, grad):
        a, b = ctx.saved_tensors
        return b, a


class Keeping(Swapped):
    """Keeps the first arrays in the class, not in the context."""

    kept = None

    @staticmethod
    def backward(ctx, grad):
        if Keeping.kept is None:
            Keeping.kept = ctx.saved_tensors
        a, b = Keeping.kept
        return grad * b, grad * a


@pytest.mark.usefixtures("no_lines")
def test_each_mistake_has_its_own_verdict():
    report = sa.check_layer(Swapped, x, y)
    assert verdicts(report) == {"a": "wrong", "b": "wrong"}
    assert has(row_of(report, "a"), "swapped", name="b")
    report = sa.check_layer(Forgetful, x, y)
    assert verdicts(report) == {"a": "right", "b": "missing"}
    assert row_of(report, "b").rule == "unwritten"
    assert has(row_of(sa.check_layer(Ignoring, x, y), "a"), "upstream_ignored", name="grad")
    report = sa.check_layer(Keeping, x, y)
    assert not report.ok
    assert "stale" in kinds(report.rows[0]) | kinds(report.faults)
    assert Keeping.kept is None


class MeanSquare(Function):
    @staticmethod
    def forward(ctx, input, target):
        ctx.save_for_backward(input, target)
        return np.mean((input - target) ** 2)

    @staticmethod
    def backward(ctx, grad):
        input, target = ctx.saved_tensors
        return grad * 2 * (input - target) / input.size, None


def test_none_for_the_targets_of_a_loss_is_meant_so():
    report = sa.check_layer(MeanSquare, x, y)
    assert report.ok
    assert report.unchecked == ("target",)
    report = sa.check_layer(MeanSquare, x, y, constant="target")
    assert report.ok
    assert not report.unchecked


@pytest.mark.parametrize(
    ("function", "inputs", "match"),
    [
        (Linear, (x,), r"^Linear\.forward raised TypeError: .*'weight'; it was called with \(C"),
        (Function, (x,), r"got the class Function itself: give Function\(...\)"),
        (Dot, (x, x), r"^Dot\.forward raised ValueError: shapes"),
    ],
)
def test_what_cannot_be_checked_is_refused(function, inputs, match):
    with pytest.raises(sa.CheckError, match=match):
        sa.check_layer(function, *inputs)


# -------------------- the cache first, as JAX has it --------------------


def f_fwd(x, W):
    h = np.tanh(x @ W)
    return h, (x, W, h)


def f_bwd(res, g):
    x, W, h = res
    da = g * (1 - h**2)
    return da @ W.T, x.T @ da


def f_bwd_wrong(res, g):
    x, W, h = res
    da = g * (1 - h)
    return da @ W.T, x.T @ da


def logistic_fwd(x):
    out = 1 / (1 + np.exp(-x))
    return out, out


def logistic_bwd(s, ct):
    return (s * (1 - s) * ct,)


def logistic_backward(ct, s):
    return (s * (1 - s) * ct,)


def logistic_bwd_wrong(s, ct):
    return (s * (1 + s) * ct,)


def power_fwd(x, n):
    return x**n, x


def power_bwd(n, x, g):
    return (n * x ** (n - 1) * g,)


def two_fwd(x):
    return (x**2, np.sin(x)), {"x": x}


def two_bwd(residuals, gs):
    g, h = gs
    return 2 * residuals["x"] * g + np.cos(residuals["x"]) * h


@pytest.mark.parametrize(
    ("forward", "backward", "inputs"),
    [
        (f_fwd, f_bwd, (x, W)),
        (logistic_fwd, logistic_bwd, (x,)),  # nothing but the numbers tells which is which
        (logistic_fwd, logistic_backward, (x,)),
        (power_fwd, power_bwd, (x, 3)),  # nondiff_argnums
        (two_fwd, two_bwd, (x,)),
    ],
)
def test_the_cache_may_come_first(forward, backward, inputs):
    report = sa.check_backward(forward, backward, *inputs)
    assert report.ok
    assert not report.unchecked
    assert len(report.rows) == sum(isinstance(one, np.ndarray) for one in inputs)


def test_a_wrong_pair_is_called_in_the_order_that_is_meant():
    report = sa.check_backward(f_fwd, f_bwd_wrong, x, W)
    assert verdicts(report) == {"x": "wrong", "W": "wrong"}
    assert has(report.rows[0], "right_with")
    assert line_of(f_bwd_wrong, "da = ") in report.rows[0].lines
    report = sa.check_backward(f_fwd, lambda res, g: (res[0], res[1]), x, W)
    assert has(report.rows[0], "upstream_ignored", name="g")
    report = sa.check_backward(logistic_fwd, logistic_bwd_wrong, x)
    assert report.rows[0].rule == "value"  # in the other order it would not be linear


def test_what_raises_in_both_orders_is_shown_in_the_documented_one():
    def backward(a, b):
        raise KeyError(a.shape)

    with pytest.raises(sa.CheckError, match=r"^backward raised KeyError: \(4, 2\) in .*; it was"):
        sa.check_backward(f_fwd, backward, x, W)


# -------------------- no cache, but the inputs once more --------------------


def affine(x, W, b):
    return x @ W + b


def affine_backward(dout, x, W, b):
    return dout @ W.T, x.T @ dout, dout.sum(0)


def affine_backward_last(W, x, grad):
    return {"dx": grad @ W.T, "dW": x.T @ grad, "db": grad.sum(0)}


def affine_backward_renamed(dY, inputs, weights):
    return dY @ weights.T, inputs.T @ dY, dY.sum(0)


def affine_backward_mean(dout, W, x):
    return dout @ W.T, x.T @ dout, dout.mean(0)


def square_matrices(a, b):
    return a @ b


def square_matrices_backward(p, q, r):
    return p @ r.T, q.T @ p


def logistic(x):
    return 1 / (1 + np.exp(-x))


def logistic_backward_of_output(dA, A):
    return dA * A * (1 - A)


def logistic_backward_of_input(dA, Z):
    return dA * logistic(Z) * (1 - logistic(Z))


@pytest.mark.parametrize(
    ("forward", "backward", "inputs"),
    [
        (affine, affine_backward, (x, W, b)),
        (affine, affine_backward_last, (x, W, b)),
        (affine, affine_backward_renamed, (x, W, b)),
        (square_matrices, square_matrices_backward, rng.standard_normal((2, 3, 3))),
        (logistic, logistic_backward_of_output, (x,)),
        (logistic, logistic_backward_of_input, (x,)),
    ],
)
def test_backward_may_take_the_inputs_or_the_output_in_place_of_a_cache(forward, backward, inputs):
    report = sa.check_backward(forward, backward, *inputs)
    assert report.ok
    assert not report.unchecked
    assert len(report.rows) == len(inputs)


def test_a_mistake_without_a_cache_is_explained():
    report = sa.check_backward(affine, affine_backward_mean, x, W, b)
    assert verdicts(report) == {"x": "right", "W": "right", "b": "wrong"}
    assert has(row_of(report, "b"), "averaged_over", n=4)


# -------------------- what autograd is told of a primitive --------------------


@primitive
def log_sum_exp(x, axis=None):
    largest = np.max(x)
    return largest + np.log(np.sum(np.exp(x - largest), axis=axis))


defvjp(
    log_sum_exp,
    lambda ans, x, axis=None: (
        lambda g: np.expand_dims(g, axis) * np.exp(x - np.expand_dims(ans, axis))
    ),
)
defjvp(
    log_sum_exp,
    lambda g, ans, x, axis=None: (
        np.sum(g * np.exp(x - np.expand_dims(ans, axis)), axis) / (1 + axis)
    ),
)


@primitive
def add(a, b):
    return a + b


defvjp(add, lambda ans, a, b: lambda g: g, lambda ans, a, b: lambda g: g)
defjvp(add, lambda g, ans, a, b: g, lambda g, ans, a, b: g)


@primitive
def matmul(a, b):
    return a @ b


def matmul_vjp(argnum, ans, args, kwargs):
    a, b = args
    return (lambda g: a.T @ g) if argnum else (lambda g: g @ b.T)


defvjp_argnum(matmul, matmul_vjp)


@primitive
def partly(a, b):
    return a * b


defvjp(partly, lambda ans, a, b: lambda g: -g * b, argnums=[0])


@pytest.mark.usefixtures("no_lines")
def test_each_vjp_and_jvp_of_a_primitive_has_a_row():
    report = sa.check_primitive(log_sum_exp, x, kwargs={"axis": 1})
    assert report.subject == "log_sum_exp"
    assert verdicts(report) == {"vjp of x": "right", "jvp of x": "wrong"}
    assert has(row_of(report, "jvp of x"), "times", times=0.5) or (
        row_of(report, "jvp of x").rule == "factor"
    )
    assert report.reference == "autograd"  # which follows the body, not what it is told

    report = sa.check_primitive(add, x, y[0])
    assert verdicts(report) == {
        "vjp of a": "right",
        "vjp of b": "wrong",
        "jvp of a": "right",
        "jvp of b": "wrong",
    }
    assert has(row_of(report, "vjp of b"), "not_summed")
    assert has(row_of(report, "jvp of b"), "tangent_shape", ours=(3,), theirs=(4, 3))

    assert sa.check_primitive(add, x, y).ok
    assert verdicts(sa.check_primitive(matmul, x, W)) == {"vjp of a": "right", "vjp of b": "right"}


@pytest.mark.usefixtures("no_lines")
def test_what_has_no_vjp_is_named():
    report = sa.check_primitive(partly, x, y)
    assert verdicts(report) == {"vjp of a": "wrong"}
    assert row_of(report, "vjp of a").rule == "factor"
    assert report.unchecked == ("vjp of b",)
    assert not sa.check_primitive(partly, x, y, constant="b").unchecked


@pytest.mark.parametrize(
    ("function", "inputs", "kwargs", "reference"),
    [
        (np.sin, (x,), {}, "complex step"),
        (anp.multiply, (x, y[0]), {}, "complex step"),
        (np.power, (np.abs(x), 2.5), {}, "complex step"),
        (np.linalg.norm, (x,), {"axis": 1}, "central differences"),
        (np.max, (x,), {"axis": 0}, "complex step"),
    ],
)
def test_autograd_s_own_primitives_are_held_against_the_function_itself(
    function, inputs, kwargs, reference
):
    report = sa.check_primitive(function, *inputs, kwargs=kwargs)
    assert (report.reference, report.ok, report.unchecked) == (reference, True, ())
    assert {row.name[:3] for row in report.rows} == {"vjp", "jvp"}


@pytest.mark.usefixtures("no_lines")
def test_vjps_that_are_given_need_no_registration():
    makers = (lambda ans, x, y: lambda g: g * y), (lambda ans, x, y: lambda g: g * y)
    report = sa.check_primitive(lambda x, y: x * y, x, y, vjps=makers)
    assert verdicts(report) == {"vjp of x": "right", "vjp of y": "wrong"}
    report = sa.check_primitive(np.exp, x, vjps=lambda ans, x: lambda g: g, jvps=())
    assert verdicts(report) == {"vjp of x": "wrong"}
    assert row_of(report, "vjp of x").rule == "value"
    report = sa.check_primitive(np.exp, x, vjps=(), jvps=lambda g, ans, x: g * g * ans)
    assert verdicts(report) == {"jvp of x": "wrong"}  # it is not linear in g


@pytest.mark.parametrize(
    ("function", "options", "match"),
    [
        (lambda x: x, {}, "has neither a vjp nor a jvp: register them with"),
        (np.exp, {"vjps": lambda ans, x: ans}, r"must return a function of the upstream gradient"),
        (np.exp, {"vjps": 3}, r"^vjps must be a function for each argument, got int 3"),
        ("exp", {}, "^function must be a function, got str"),
    ],
)
def test_what_is_no_primitive_is_refused(function, options, match):
    with pytest.raises(sa.CheckError, match=match):
        sa.check_primitive(function, x, **options)


def test_a_jvp_of_a_large_array_is_refused():
    large = np.ones((30, 30))
    with pytest.raises(sa.CheckError, match="give a smaller one, or leave out the jvps"):
        sa.check_primitive(np.sin, large, vjps=())
    assert sa.check_primitive(np.sin, large, jvps=()).ok


# -------------------- a function with its derivative --------------------


def logistic_prime(x):
    s = logistic(x)
    return s * (1 - s)


def of_output(x):  # which most people call x all the same
    return x * (1 - x)


def of_output_wrong(x):
    return x * (1 + x)


def relu(x):
    return np.maximum(0, x)


def relu_prime(x):
    x[x <= 0] = 0
    x[x > 0] = 1
    return x


def selu(x, alpha=1.6732632423543772, scale=1.0507009873554805):
    return scale * np.where(x > 0, x, alpha * (np.exp(x) - 1))


def of_selu_wrong(x, alpha=1.6732632423543772, scale=1.0507009873554805):
    return alpha * np.where(x > 0, 1, alpha * np.exp(x))


def relu_of_number(x):
    return max(0.0, x)


def relu_prime_of_number(x):
    return 1 if x > 0 else 0


def logistic_of_number(z):
    return 1 / (1 + math.exp(-z))


def softmax(x):
    e = np.exp(x - x.max(-1, keepdims=True))
    y = e / e.sum(-1, keepdims=True)
    return y


def softmax_jacobian(s):
    return np.diagflat(s) - np.outer(s, s)


def softmax_jacobians(s):
    return s[:, :, None] * np.eye(s.shape[1]) - s[:, :, None] * s[:, None, :]


def with_flag(x, deriv=False):
    return x * (1 - x) if deriv else logistic(x)


@pytest.mark.parametrize(
    ("function", "derivative", "at", "says"),
    [
        (logistic, logistic_prime, x, ("takes", "x")),
        (logistic, of_output, x, ("takes", "y = logistic(x)")),
        (logistic, lambda g, x: g * logistic_prime(x), x, ("takes", "x")),
        (logistic, lambda out, dout: dout * of_output(out), x, ("takes", "y = logistic(x)")),
        (logistic, lambda a, b: a * of_output(b), x, ("takes", "y = logistic(x)")),
        (logistic, lambda g, x, y: g * of_output(y), x, None),
        (np.tanh, lambda y: 1 - y**2, x, ("takes", "y = tanh(x)")),
        (np.tanh, lambda y: 1 - y**2, 0.5, ("takes", "y = tanh(x)")),
        (relu, relu_prime, x, ("takes_either", "x")),
        (relu, relu_prime, np.where(x > 1, 0, x), ("takes_either", "x")),
        (relu_of_number, relu_prime_of_number, x, ("takes_either", "x")),
        (relu_of_number, relu_prime_of_number, -2.0, ("takes_either", "x")),
        (logistic_of_number, of_output, x, ("takes", "y = logistic_of_number(z)")),
        (softmax, softmax_jacobian, v, ("takes", "y = softmax(x)")),
        (softmax, softmax_jacobians, x, ("takes", "y = softmax(x)")),
        (with_flag, functools.partial(with_flag, deriv=True), x, ("takes", "y = with_flag(x)")),
        (lambda x: 3 * x, lambda x: 3, x, ("takes_either", "x")),
    ],
)
def test_a_derivative_is_right_and_says_what_it_takes(function, derivative, at, says):
    report = sa.check_derivative(function, derivative, at)
    assert report.ok
    taken = [note for note in report.remarks if note.kind.startswith("takes")]
    assert [(note.kind, note.fields["what"].replace("x1", "x")) for note in taken] == (
        [] if says is None else [says]
    )


@pytest.mark.parametrize(
    ("function", "derivative", "kind", "rule"),
    [
        (logistic, of_output_wrong, "right_with", "value"),
        (logistic, lambda x: 1 - logistic(x), "right_with", "value"),  # y is the nearer one
        (logistic, lambda g, y: y * (1 - y), None, "upstream"),
        (logistic, lambda x: 2 * logistic_prime(x), None, "factor"),
        (softmax, of_output, "diagonal_of_softmax", "value"),
        (relu, lambda x: np.where(x > 0, 1.0, 0.5), "right_with", None),
        (selu, of_selu_wrong, "right_with", "factor"),  # of x, though y comes nearer
    ],
)
def test_a_wrong_derivative_has_a_reason(function, derivative, kind, rule):
    report = sa.check_derivative(function, derivative, x)
    assert verdicts(report) == {"x": "wrong"}
    assert report.rows[0].rule == rule
    assert kind is None or has(report.rows[0], kind)
    assert "takes" not in kinds(report.remarks)


def test_a_wrong_derivative_names_its_line():
    report = sa.check_derivative(logistic, of_output_wrong, x)
    assert line_of(of_output_wrong, "return") in report.rows[0].lines
    assert has(report.remarks, "takes_neither", who="of_output_wrong", what="y = logistic(x)")


@pytest.mark.parametrize(
    ("function", "derivative", "at", "match"),
    [
        (
            logistic,
            logistic_prime,
            np.arange(3),
            r"^x must be an array of floats.*got array \(3,\)",
        ),
        (logistic, lambda a, b, c, d: a, x, "fix the others with functools.partial"),
        (logistic, lambda x: x.missing, x, "^<lambda> raised AttributeError"),
        (lambda x: x.missing, logistic_prime, x, "^<lambda> raised AttributeError"),
        (logistic, 1, x, "^derivative must be a function, got int 1"),
    ],
)
def test_what_is_no_derivative_is_refused(function, derivative, at, match):
    with pytest.raises(sa.CheckError, match=match):
        sa.check_derivative(function, derivative, at)


def test_nothing_that_is_given_is_changed():
    at = np.abs(x)
    sa.check_derivative(relu, relu_prime, at)
    sa.check_derivative(relu, lambda x: 2 * relu_prime(x), at)
    sa.check_primitive(np.power, at, 2.0)
    assert np.array_equal(at, np.abs(x))


def test_an_array_that_is_also_data_is_not_moved_as_data():
    def loss(w, start):
        return np.sum((w * w - start) ** 2)

    def gradient(w, start):
        return 4 * w * (w * w - start)

    w = np.random.default_rng(0).normal(size=(3, 2))
    assert sa.check_gradient(loss, gradient, w, w).ok
    assert not sa.check_gradient(loss, lambda w, start: -gradient(w, start), w, w).ok


def test_two_functions_that_keep_what_backward_needs_elsewhere():
    def made(sign):
        kept = {}

        def cube(x):
            kept["x"] = x
            return x**3

        def cube_backward(dout):
            return sign * dout * 3 * kept["x"] ** 2

        return cube, cube_backward

    x = np.random.default_rng(0).normal(size=(3, 2))
    assert sa.check_backward(*made(1), x).ok
    assert not sa.check_backward(*made(-1), x).ok


def test_two_methods_are_checked_with_what_their_object_has():
    class Scale:
        def __init__(self, times):
            self.w, self.times = np.array([2.0, 3.0]), times

        def fprop(self, x):
            self.x = x
            return x * self.w

        def bprop(self, delta):
            self.dw = self.times * np.sum(delta * self.x, axis=0)
            return delta * self.w

    x = np.random.default_rng(0).normal(size=(3, 2))
    for times in (1, 2):
        layer = Scale(times)
        report = sa.check_backward(layer.fprop, layer.bprop, x)
        assert {row.name: row.verdict != "wrong" for row in report.rows} == {
            "x": True,
            "w": times == 1,
        }
