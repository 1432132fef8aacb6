"""Bad input to the checks: a clear error, or a row or a note that says so; nothing is changed."""

import copy
import pickle
import sys
import threading

import numpy as np
import pytest
from findings import has
from layers import Dense

import spiral_autograd as sa

# np.matrix warns that it will go; it is here to be refused.
pytestmark = [
    pytest.mark.filterwarnings("ignore::PendingDeprecationWarning"),
    pytest.mark.usefixtures("verdicts_alone"),
]

x = np.random.default_rng(0).standard_normal((4, 3))


def matrix(array):
    return np.asarray(array).view(np.matrix)


class Affine(Dense):
    def __init__(self, W=None, b=None):
        W = np.random.default_rng(1).standard_normal((3, 2)) if W is None else W
        super().__init__(W, np.zeros(2) if b is None else b)


class Square:
    def forward(self, x):
        self.x = x
        return x**2

    def backward(self, dout):
        return 2 * self.x * dout


def square(x):
    return x**2, x


def square_backward(dout, x):
    return 2 * x * dout


def verdicts(report):
    """The verdicts of the rows; "right" for those that match, whose last bit may be any."""
    right = ("exact", "match")
    return [(row.name, "right" if row.verdict in right else row.verdict) for row in report.rows]


def refused(match, check, *arguments, **options):
    """Run a check that must raise, and leave its arguments as they were."""
    objects = [a for a in arguments if hasattr(a, "__dict__") and not callable(a)]
    before = copy.deepcopy([a.__dict__ for a in objects])
    with pytest.raises(sa.CheckError, match=match) as caught:
        check(*arguments, **options)
    for old, new in zip(before, (a.__dict__ for a in objects), strict=True):
        assert old.keys() == new.keys()
        assert all(np.array_equal(old[k], new[k]) for k in old if isinstance(old[k], np.ndarray))
    return caught.value


# -------------------- what is no layer --------------------


def test_a_layer_without_backward_or_forward():
    class NoBackward:
        def forward(self, x):
            return x

    class NoForward:
        def backward(self, x):
            return x

    refused("NoBackward has no backward .nor back_prop.*its methods are: forward",
            sa.check_layer, NoBackward(), x)  # fmt: skip
    refused("NoForward has no forward", sa.check_layer, NoForward(), x)
    refused("int has no forward", sa.check_layer, 3, x)


def test_a_class_or_a_function_in_place_of_a_layer():
    refused(r"got the class Affine itself: give Affine\(...\)", sa.check_layer, Affine, x)
    refused("the function square; for functions use check_backward", sa.check_layer, square, x)
    refused("backward must be a function, got array", sa.check_backward, square, x, x)
    refused("forward must be a function, got the class Aff", sa.check_backward, Affine, square, x)
    refused("loss must be a function, got float 1.0", sa.check_gradient, 1.0, square, x)


# -------------------- signatures --------------------


def test_what_forward_cannot_be_called_with():
    class KeywordOnly(Square):
        def forward(self, *, x):
            return super().forward(x)

    class Two(Square):
        def forward(self, x, y):
            return super().forward(x)

    said = "by position, in their order"
    refused(rf"KeywordOnly.forward\(\*, x\) cannot be called with \(array.*{said}",
            sa.check_layer, KeywordOnly(), x)  # fmt: skip
    refused("missing a required argument: 'y'", sa.check_layer, Two(), x)
    refused("missing a required argument: 'x'", sa.check_layer, Square())


def test_forward_may_take_any_number():
    class Sum:
        def forward(self, first, *rest):
            return first + sum(rest)

        def backward(self, dout):
            return dout, dout, 2 * dout

    report = sa.check_layer(Sum(), x, x + 1, x + 2)
    assert verdicts(report) == [
        ("first", "right"),
        ("rest[0]", "right"),
        ("rest[1]", "wrong"),
    ]


# -------------------- the forward pass --------------------


def test_a_forward_pass_that_raises():
    error = refused(
        r"Affine.forward raised ValueError: matmul.*called with \(array \(4, 2\) float64\)",
        *(sa.check_layer, Affine(), x[:, :2]),
    )
    assert isinstance(error.__cause__, ValueError)
    assert error.__cause__.__traceback__.tb_next is not None
    refused("broken raised ZeroDivisionError", sa.check_backward, broken, square_backward, x)
    refused("broken raised ZeroDivisionError", sa.check_gradient, broken, square_backward, x)


def broken(x):
    return 1 // 0


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_forward_pass_that_is_not_finite(value):
    bad = x.copy()
    bad[1, 2] = value
    refused("Affine.forward returned . values that are NaN or infinite, of 8",
            sa.check_layer, Affine(), bad)  # fmt: skip
    refused(
        "square returned 1 values that are NaN", sa.check_backward, square, square_backward, bad
    )


def test_a_forward_pass_that_returns_no_array():
    class Nothing(Square):
        def forward(self, x):
            self.x = x

    class Words(Square):
        def forward(self, x):
            return "done"

    refused("Nothing.forward must return real arrays, got None", sa.check_layer, Nothing(), x)
    refused("Words.forward must return real arrays", sa.check_layer, Words(), x)


def test_a_forward_function_that_returns_no_cache():
    refused(r"must return \(out, cache\), got array \(4, 3\) float64 \(without a cache, <lambda>",
            sa.check_backward, np.square, lambda dout, cache: 2 * cache * dout, x)  # fmt: skip


def test_a_loss_that_is_not_scalar():
    refused(
        r"must return a scalar, got the shape \(4, 3\)", sa.check_gradient, np.square, square, x
    )


# -------------------- the upstream gradient --------------------


def test_an_upstream_gradient_of_the_wrong_shape():
    text = r"upstream must have the shape of what forward returns: \[\(4, 2\)\], got \[\(4, 3\)\]"
    refused(text, sa.check_layer, Affine(), x, upstream=x)
    refused(r"\[\(4, 3\)\], got \[\(4, 2\)\]", sa.check_backward, square, square_backward, x,
            upstream=x[:, :2])  # fmt: skip
    text = "upstream must be an array of real numbers"
    refused(text, sa.check_layer, Square(), x, upstream=[[1.0, 2.0], [3.0]])
    refused("upstream must be finite", sa.check_layer, Square(), x, upstream=x + np.nan)


def test_an_upstream_gradient_of_zeros():
    text = "upstream is all zeros, with which every gradient is zero"
    refused(text, sa.check_layer, Square(), x, upstream=np.zeros((4, 3)))
    refused(text, sa.check_backward, square, square_backward, x, upstream=np.zeros((4, 3)))
    assert sa.check_layer(Square(), x, upstream=np.eye(4, 3)).ok


def test_an_upstream_gradient_of_zeros_inside_a_network():
    class Nothing:
        def forward(self, x, t):
            return 0.0 * np.sum(x)

        def backward(self):
            return np.zeros((4, 3))

    assert sa.check_network([Square()], x, None, loss=Nothing()).ok


@pytest.mark.parametrize("budget", [-1, np.nan, np.inf, "long", None])
def test_a_budget_that_is_no_number_of_seconds(budget):
    for check, arguments in (
        (sa.check_layer, (Square(), x)),
        (sa.check_backward, (square, square_backward, x)),
        (sa.check_gradient, (loss, gradient, PARAMS)),
        (sa.check_network, ([Square()], x, x)),
    ):
        with pytest.raises((TypeError, ValueError), match="budget must be a"):
            check(*arguments, budget=budget)
    assert sa.check_layer(Square(), x, budget=0).ok


def test_an_upstream_gradient_may_be_a_list():
    assert sa.check_layer(Square(), x, upstream=x.tolist()).ok


# -------------------- the backward pass --------------------


def test_a_backward_pass_that_ends_the_program():
    class Exits(Square):
        def backward(self, dout):
            sys.exit("use another one")

    refused("Exits.backward raised SystemExit: use another one", sa.check_layer, Exits(), x)


def test_a_backward_pass_that_raises():
    class Raises(Affine):
        def backward(self, dout):
            return dout @ self.W

    error = refused(
        r"Raises.backward raised ValueError: matmul.*called with \(array \(4, 2\) float64\)",
        *(sa.check_layer, Raises(), x),
    )
    assert error.__cause__.__traceback__.tb_next.tb_frame.f_code.co_name == "backward"
    refused(
        r"broken_backward raised KeyError: 'w' in test_check_input.py:\d+: return {}\[\"w\"\]; "
        r"it was called with \(array \(4, 3\) float64, array",
        *(sa.check_backward, square, broken_backward, x),
    )


def broken_backward(dout, cache):
    return {}["w"]


def test_too_many_gradients():
    class Many(Square):
        def backward(self, dout):
            return dout, dout, dout

    refused(r"Many.backward returned 3 gradients, but there are 1 .*\(x\): return one",
            sa.check_layer, Many(), x)  # fmt: skip
    refused("returned 2 gradients", sa.check_backward, square, lambda d, c: (d, d), x)


def test_too_few_gradients():
    def multiply(a, b):
        return a * b, (a, b)

    report = sa.check_backward(multiply, lambda dout, cache: (dout * cache[1],), x, x + 1)
    assert [row.name for row in report.rows] == ["a"]
    assert has(report, "unchecked", why="not_returned")
    assert has(report, "not_returned", name="b")


@pytest.mark.parametrize(
    ("result", "text"),
    [({"foo": x}, "a dict with the keys 'foo'"), ({}, "dict of 0"), ((), "tuple of 0")],
)
def test_gradients_of_nothing_that_is_there(result, text):
    class Typo(Square):
        def backward(self, dout):
            return result

    text = f"returned {text}, and there is no gradient of x in it"
    refused(text, sa.check_layer, Typo(), x)
    refused(text, sa.check_backward, square, lambda dout, cache: result, x)


def test_no_gradient_at_all():
    report = sa.check_backward(square, lambda dout, cache: None, x)
    assert [(row.verdict, row.rule) for row in report.rows] == [("missing", "unwritten")]

    class Forgets(Affine):
        def backward(self, dout):
            self.dW, self.db = self.x.T @ dout, None

    report = sa.check_layer(Forgets(), x)
    assert verdicts(report) == [("x", "missing"), ("W", "right"), ("b", "missing")]


@pytest.mark.parametrize(
    ("make", "text"),
    [
        (lambda g: g.astype(complex), "complex numbers"),
        (lambda g: g.astype(object), "an array of dtype object"),
        (lambda g: [[1.0, 2.0], [3.0]], "list of 2, which is no array"),
        (lambda g: {0: g[0]}, "dict of 1"),
        (lambda g: "zero", "str 'zero'"),
    ],
)
def test_a_gradient_that_is_no_array_of_real_numbers(make, text):
    class Odd(Affine):
        def backward(self, dout):
            dx = super().backward(dout)
            self.dW = make(self.dW)
            return dx

    text = f"the gradient of W must be an array of real numbers, got {text}"
    refused(text, sa.check_layer, Odd(), x)


def test_a_gradient_may_be_a_list_or_a_float():
    report = sa.check_backward(square, lambda dout, x: (2 * x * dout).tolist(), x)
    assert report.ok, str(report)
    report = sa.check_backward(square, lambda dout, x: (3 * x * dout).tolist(), x)
    assert report.rows[0].verdict == "wrong"
    report = sa.check_backward(square, lambda dout, x: float(2 * x * dout), np.array(3.0))
    assert report.ok, str(report)
    report = sa.check_backward(square, lambda dout, x: 0.5, x)
    assert report.rows[0].verdict == "wrong"
    assert has(report.rows[0], "shape", ours=(), theirs=(4, 3))


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_gradient_that_is_not_finite(value):
    report = sa.check_backward(square, lambda dout, x: 2 * x * dout + value, x)
    assert report.rows[0].verdict == "wrong"
    assert has(report.rows[0], "not_finite", count=12, of=12)


# -------------------- gradients of pytrees --------------------

PARAMS = {"W": x[:2].T.copy(), "b": np.ones(2)}


def loss(params):
    return np.sum(np.tanh(x @ params["W"] + params["b"]))


def gradient(params):
    delta = 1 - np.tanh(x @ params["W"] + params["b"]) ** 2
    return {"W": x.T @ delta, "b": delta.sum(axis=0)}


def test_a_dict_of_gradients_with_unknown_keys():
    def typo(params):
        grads = gradient(params)
        return {"dW": grads["W"], "bias_": grads["b"]}

    report = sa.check_gradient(loss, typo, PARAMS)
    assert verdicts(report) == [("W", "right"), ("b", "missing")]
    assert has(report, "no_entry", names=["b"], others=["bias_"])
    refused("has no entry for W, b, but has one, two; name the gradient of W1 dW1",
            sa.check_gradient, loss, {"one": x, "two": x}, PARAMS)  # fmt: skip

    def more(params):
        return {**gradient(params), "dZ": x}

    assert sa.check_gradient(loss, more, PARAMS).ok


def test_a_gradient_of_another_structure():
    grads = list(gradient(PARAMS).values())
    refused(r"structure of params, with the leaves params\['W'\], params\['b'\], got list of 2 with"
            r" gradient\[0\], gradient\[1\]", sa.check_gradient, loss, grads, PARAMS)  # fmt: skip

    def of_list(params):
        return loss(dict(zip("Wb", params, strict=True)))

    params = list(PARAMS.values())
    assert sa.check_gradient(of_list, grads, params).ok
    assert sa.check_gradient(of_list, tuple(grads), params).ok
    report = sa.check_gradient(of_list, grads[:1], params)
    assert verdicts(report) == [("params[0]", "right"), ("params[1]", "missing")]
    report = sa.check_gradient(of_list, [*grads, x], params)
    assert report.ok
    assert has(report, "other_structure", names=["gradient[2]"])
    report = sa.check_gradient(of_list, [grads[0], grads[1][None]], params)
    assert has(report.rows[1], "extra_axis", shape=(1, 2), due=(2,))


def nielsen(params, a, y, wrong=1):
    """The loss of a network of two layers, and its gradient as two lists."""
    biases, weights = params
    acts = [a]
    for b, w in zip(biases, weights, strict=True):
        acts.append(1 / (1 + np.exp(-(w @ acts[-1] + b))))
    delta = (acts[2] - y) * acts[2] * (1 - acts[2])
    inner = weights[1].T @ delta * acts[1] * (1 - acts[1])
    nabla_b, nabla_w = [wrong * inner, delta], [inner @ acts[0].T, delta @ acts[1].T]
    return 0.5 * np.sum((acts[2] - y) ** 2), (nabla_b, nabla_w)


@pytest.mark.parametrize("kind", [tuple, list])
def test_a_gradient_as_a_tuple_of_two_lists(kind):
    rng = np.random.default_rng(0)
    shapes = [(5, 1), (2, 1)], [(5, 3), (2, 5)]
    params = kind([rng.normal(size=shape) for shape in part] for part in shapes)
    data = x[:1].T.copy(), np.eye(2)[:, :1]

    def value(params, a, y):
        return nielsen(params, a, y)[0]

    for wrong in (1, 3):
        for gradient in (
            lambda *a, w=wrong: nielsen(*a, w)[1],  # the gradient
            lambda *a, w=wrong: nielsen(*a, w),  # the loss and the gradient
        ):
            report = sa.check_gradient(value, gradient, params, *data)
            bad = [row.name for row in report.rows if row.verdict == "wrong"]
            assert len(report.rows) == 4
            assert bad == ([] if wrong == 1 else ["params[0][0]"]), str(report)


@pytest.mark.parametrize("b", [0.1, np.array(0.1), np.float64(0.1)])
def test_a_number_may_come_first_in_a_gradient(b):
    def line(params):
        b, w = params
        return np.sum((x @ w + b) ** 2)

    def both(params, wrong=1):
        b, w = params
        return wrong * np.sum(2 * (x @ w + b)), x.T @ (2 * (x @ w + b))

    params = (b, np.ones(3))
    assert sa.check_gradient(line, both, params).ok
    assert sa.check_gradient(line, lambda p: (line(p), both(p)), params).ok
    report = sa.check_gradient(line, lambda p: both(p, 2), params)
    assert [row.verdict == "wrong" for row in report.rows] == [True, False]


def test_params_that_hold_no_arrays():
    text = "params must hold floating-point arrays .*got int 3; integer arrays have no gradient"
    refused(text, sa.check_gradient, loss, gradient, {"W": 3})
    refused(r"got array \(2,\) int64", sa.check_gradient, loss, gradient, {"W": np.arange(2)})
    refused("got none", sa.check_gradient, loss, gradient, {})
    refused("got Affine", sa.check_gradient, loss, gradient, Affine())


def test_a_python_float_is_a_parameter_of_a_pytree():
    def line(params):
        return np.sum(params["w"] * x + params["b"])

    grads = {"w": x.sum(), "b": 12.0}
    assert sa.check_gradient(line, grads, {"w": 2.0, "b": np.array(0.5)}).ok
    report = sa.check_gradient(line, {**grads, "w": 1.0}, {"w": 2.0, "b": 0.5})
    assert verdicts(report) == [("w", "wrong"), ("b", "right")]


# -------------------- dtypes --------------------


def test_nothing_to_differentiate():
    numbers = np.arange(6).reshape(2, 3)
    refused("returned only integers", sa.check_layer, Square(), numbers)
    refused("returned only integers", sa.check_backward, square, square_backward, numbers)

    class Halve(Square):
        def forward(self, x):
            self.x = x
            return x / 2

    refused("Halve has nothing to differentiate", sa.check_layer, Halve(), numbers)


def test_integer_parameters():
    class Listed:
        def __init__(self):
            self.params, self.grads = [np.arange(6).reshape(3, 2)], [None]

        def forward(self, x):
            self.x = x
            return x @ self.params[0]

        def backward(self, dout):
            self.grads = [self.x.T @ dout]
            return dout @ self.params[0].T

    text = r"the parameter params\[0\] holds integers .array \(3, 2\) int64.*astype\(float\)"
    refused(text, sa.check_layer, Listed(), x)
    layer = Affine(W=np.arange(6).reshape(3, 2))
    refused("the parameter W holds integers", sa.check_layer, layer, x)


def test_integer_inputs_are_not_checked_and_it_is_said():
    report = sa.check_layer(Affine(), np.arange(6).reshape(2, 3))
    assert [row.name for row in report.rows] == ["W", "b"]
    assert has(report, "integers", name="x")


def test_nothing_is_said_of_indices_whose_gradient_is_returned_as_zeros():
    class Embedding:
        def __init__(self):
            self.W, self.dW = np.ones((5, 2)), None

        def forward(self, ids):
            self.ids = ids
            return self.W[ids]

        def backward(self, dout):
            self.dW = np.zeros_like(self.W)
            np.add.at(self.dW, self.ids, dout)
            return np.zeros(self.ids.shape)

    report = sa.check_layer(Embedding(), np.array([[0, 2], [2, 4]]))
    assert report.ok
    assert not report.unchecked


REFUSED = {
    "x is a masked array": np.ma.masked_array(x, x > 1),
    "x is an np.matrix": matrix(x),
    "x has the dtype object": x.astype(object),
    "x holds complex numbers": x.astype(complex),
    r"x is float16: .*x.astype\(np.float64\)": x.astype(np.float16),
    r"x is empty, with the shape \(0, 3\)": x[:0],
    r"x must be an array, got a list of 4; use np.array\(x\)": x.tolist(),
    r"x must be an array, got a float 0.5": 0.5,
}


@pytest.mark.parametrize("text", REFUSED)
def test_arrays_that_are_refused(text):
    bad = REFUSED[text]
    refused(text, sa.check_layer, Square(), bad)
    refused(text, sa.check_backward, square, square_backward, bad)


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("is a masked array", np.ma.masked_array),
        ("is an np.matrix", matrix),
        ("is float16", np.float16),
        ("holds complex numbers", np.complex128),
        ("has the byte order of another machine .>f8.", lambda a: a.astype(">f8")),
        ("is read-only", np.broadcast_arrays),
    ],
)
def test_parameters_that_are_refused(text, kind):
    W = np.ones((3, 2))
    if kind is np.broadcast_arrays:
        W.flags.writeable = False
    else:
        W = kind(W)
    grads = {"W": x.T @ np.ones((4, 2))}

    def forward(params):
        return np.sum(np.real(x @ np.asarray(params["W"])))

    class Keeps(Affine):
        def forward(self, x):
            self.x = x
            return np.real(np.asarray(x @ np.asarray(self.W)))

        def backward(self, dout):
            self.dW = self.x.T @ dout
            return dout @ np.real(np.asarray(self.W)).T

    refused(f"the parameter W {text}|^W {text}", sa.check_layer, Keeps(W=W), x)
    if "byte order" in text or "read-only" in text:  # of a pytree a copy can be taken
        assert sa.check_gradient(forward, grads, {"W": W}).ok
    else:
        refused(text, sa.check_gradient, forward, grads, {"W": W})


# -------------------- unusual arrays that are right --------------------


def unusual():
    read_only = x.copy()
    read_only.flags.writeable = False
    wide = np.zeros((8, 6))
    wide[::2, ::2] = x
    return {
        "0-d": np.array(0.7),
        "Fortran": np.asfortranarray(x),
        "not contiguous": wide[::2, ::2],
        "reversed": x[::-1, ::-1],
        "read-only": read_only,
        "broadcast": np.broadcast_to(x[0], (4, 3)),
        "big-endian": x.astype(">f8"),
        "float32": x.astype(np.float32),
    }


@pytest.mark.parametrize("name", unusual())
def test_unusual_arrays_are_checked(name):
    array = unusual()[name]
    before = array.copy()
    for scale in (1, 2):

        class Scaled(Square):
            def backward(self, dout, scale=scale):
                return scale * super().backward(dout)

        reports = [
            sa.check_layer(Scaled(), array),
            sa.check_backward(square, lambda d, x, s=scale: s * 2 * x * d, array),
        ]
        assert [report.ok for report in reports] == [scale == 1] * 2, str(reports[0])
    assert np.array_equal(before, array)
    assert array.dtype == before.dtype


# -------------------- shared memory --------------------


@pytest.mark.parametrize("view", [lambda W: W, lambda W: W[:2], lambda W: W.T[::-1].T])
def test_inputs_that_share_memory_with_a_parameter(view):
    W = np.random.default_rng(2).standard_normal((3, 3))
    layer = Affine(W=W, b=np.zeros(3))
    before = W.copy()
    report = sa.check_layer(layer, view(W))
    assert report.ok, str(report)
    assert [row.name for row in report.rows] == ["x", "W", "b"]
    assert has(report, "shares_memory", name="x")
    assert np.array_equal(W, before)
    assert layer.W is W

    class Wrong(Affine):
        def backward(self, dout):
            return 2 * super().backward(dout)

    report = sa.check_layer(Wrong(W=W, b=np.zeros(3)), view(W))
    assert verdicts(report) == [("x", "wrong"), ("W", "right"), ("b", "right")]


def test_one_array_given_twice():
    def multiply(a, b):
        return a * b, (a, b)

    def backward(dout, cache):
        a, b = cache
        return dout * b, dout * a

    report = sa.check_backward(multiply, backward, x, x)
    assert report.ok, str(report)
    assert has(report, "shares_memory", name="b")
    params = {"W": PARAMS["W"], "V": PARAMS["W"]}

    def product(params):
        return np.sum(params["W"] * params["V"])

    assert sa.check_gradient(product, {"W": params["V"], "V": params["W"]}, params).ok


def test_parameters_that_are_views_of_each_other():
    class Autoencoder:
        def __init__(self):
            W = np.ones((3, 2))
            self.params, self.grads = [W, W.T], [None, None]

        def forward(self, x):
            self.x = x
            return x @ self.params[0] @ self.params[1]

        def backward(self, dout):
            W, V = self.params
            self.grads = [self.x.T @ dout @ V.T, (self.x @ W).T @ dout]
            return dout @ V.T @ W.T

    text = r"params\[0\] and params\[1\] share memory .*one by one"
    refused(text, sa.check_layer, Autoencoder(), x)


def test_parameters_in_one_array_beside_each_other():
    whole = np.random.default_rng(3).standard_normal((4, 2))
    assert sa.check_layer(Affine(W=whole[:3], b=whole[3]), x).ok


# -------------------- objects that resist --------------------


def test_an_object_with_a_lock_or_a_module():
    class Locked(Affine):
        def __init__(self):
            super().__init__()
            self.lock, self.np = threading.Lock(), np

        def forward(self, x):
            with self.lock:
                return super().forward(x)

    report = sa.check_layer(Locked(), x)
    assert report.ok, str(report)
    assert report.reference == "autograd"


def test_an_object_that_cannot_be_copied():
    class Stubborn(Affine):
        def __deepcopy__(self, memo):
            raise TypeError("no copies of this")

    report = sa.check_layer(Stubborn(), x)
    assert report.ok, str(report)
    assert report.reference == "central differences"

    class Wrong(Stubborn):
        def backward(self, dout):
            return -super().backward(dout)

    report = sa.check_layer(Wrong(), x)
    assert verdicts(report) == [("x", "wrong"), ("W", "right"), ("b", "right")]


def test_an_object_that_holds_itself():
    layer = Affine()
    layer.me, layer.list = layer, []
    layer.list.append(layer.list)
    assert [row.name for row in sa.check_layer(layer, x).rows] == ["x", "W", "b"]


def test_what_the_readers_code_raises_has_a_short_name_and_can_be_sent_to_another_process():
    class Raising(Square):
        def backward(self, dout):
            raise KeyError("dW")

    with pytest.raises(sa.CheckError) as caught:
        sa.check_layer(Raising(), x)
    assert caught.exconly().startswith("spiral_autograd.TheirError: Raising.backward raised KeyErr")
    again = pickle.loads(pickle.dumps(caught.value))
    assert (type(again), str(again)) == (sa.CheckError, str(caught.value))
