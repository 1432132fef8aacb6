"""Whatever a loss is made of, its program is valid source, or a refusal."""

import ast
import warnings

import autograd
import autograd.numpy as anp
import autograd.scipy.signal
import autograd.scipy.special as special
import numpy as np
import pytest
from autograd.scipy.stats import multivariate_normal, norm

import spiral_autograd as sa
from spiral_autograd.derive import DerivationError, DerivationWarning, cached, deriving, later
from spiral_autograd.derive.simplify import simplify
from spiral_autograd.pytree import leaves
from spiral_autograd.recording import name_of, record

A = np.random.default_rng(0).standard_normal((3, 4))
ROWS, COLUMNS = np.array([0, 2, 2]), np.array([1, 0, 3])
MASK = np.array([True, False, True])


@pytest.fixture(autouse=True)
def _fresh_cache():
    cached._cache.clear()
    cached._known.clear()


def assert_written(loss, *calls):
    """The text compiles, and it and both programs agree with autograd, types included."""
    derived = sa.derive(loss, *calls[0])
    ast.parse(derived.source)
    pasted = dict(derived.needs)
    exec(compile(derived.source, "pasted", "exec"), pasted)
    function = sa.value_and_grad(loss)
    for call in calls:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)
            want = autograd.value_and_grad(loss)(*call)
        for got in (pasted["value_and_grad"](*call), derived(*call), function(*call)):
            for ours, theirs in zip(leaves(list(got)), leaves(list(want)), strict=True):
                assert type(ours) is type(theirs)
                assert np.asarray(ours).dtype == np.asarray(theirs).dtype
                np.testing.assert_allclose(ours, theirs, rtol=1e-11, atol=1e-13)
    return derived


# -------------------- indices --------------------

INDICES = {
    "[:, i]": np.s_[:, COLUMNS],
    "[0:2, i]": np.s_[0:2, COLUMNS],
    "[..., i]": np.s_[..., COLUMNS],
    "[i, :]": np.s_[ROWS, :],
    "[i, ...]": np.s_[ROWS, ...],
    "[i, None]": np.s_[ROWS, None],
    "[None, i]": np.s_[None, ROWS],
    "[i, j]": np.s_[ROWS, COLUMNS],
    "[::-1, i]": np.s_[::-1, COLUMNS],
    "[-1, i]": np.s_[-1, COLUMNS],
    "[mask]": np.s_[MASK],
    "[mask, 1]": np.s_[MASK, 1],
    "[:, list]": np.s_[:, [0, 0, 1]],
    "[list]": [0, 2],
    "ix_": np.ix_([0, 2], [1, 3]),
    "two axes": np.array([[0, 1], [2, 2]]),
    "nothing": np.array([], dtype=int),
    "()": (),
    "numpy's ints": np.s_[np.int64(0) : np.int64(2), np.int8(1)],
    "a mask of all": A > 0,
}


@pytest.mark.parametrize("name", INDICES)
def test_an_index_of_the_parameters_and_of_the_data(name):
    index = INDICES[name]
    assert_written(lambda w: anp.sum(w[index] ** 3), (A,), (A + 1,))
    assert_written(lambda w, x: anp.sum(w) * anp.sum(x[index]), (A, A), (A, A + 1))


@pytest.mark.parametrize("name", ["[:, i]", "[0:2, i]", "[..., i]", "[i, j]", "[list]", "()"])
def test_an_index_that_is_an_argument(name):
    assert_written(
        lambda w, index: anp.sum(w[index] ** 3), (A, INDICES[name]), (A + 1, INDICES[name])
    )


# -------------------- functions that are not NumPy's --------------------

OF_ONE = [
    name
    for name in dir(special)
    if hasattr(getattr(special, name), "fun") and name not in ("logsumexp", "multigammaln")
]
ARGUMENTS = [(), (2,), (1.5, 2.5)]


@pytest.mark.parametrize("name", OF_ONE)
def test_autograd_scipy_special(name):
    function, w = getattr(special, name), np.array([0.3, 0.6, 0.8])
    for first in ARGUMENTS:

        def loss(w, first=first):
            return anp.sum(function(*first, w))

        try:
            autograd.value_and_grad(loss)(w)
        except (TypeError, ValueError, NotImplementedError):
            continue  # with so many arguments it has no value, or no gradient
        assert_written(loss, (w,), (w[::-1] * 1.1,))
        return
    pytest.fail(f"{name} was not tried")


def test_functions_of_scipys_that_are_python_code():
    x = np.random.default_rng(1).standard_normal((5, 3))
    assert_written(lambda w, x: special.logsumexp(x @ w), (A[:, 0], x), (A[:, 1], x + 1))
    assert_written(
        lambda w, x: anp.sum(special.logsumexp(x @ w, axis=1, keepdims=True)), (A, x), (A, x + 1)
    )
    convolve = autograd.scipy.signal.convolve
    assert_written(lambda w, x: anp.sum(convolve(x[:, 0], w) ** 2), (A[0], x), (A[1], x + 1))


def test_a_refusal_skips_the_frames_of_packages_and_names_the_readers_line():
    def loss(w):
        return special.logsumexp(w, b=anp.abs(w))

    with pytest.raises(DerivationError) as refusal:
        sa.derive(loss, np.ones(3))
    assert f"{__file__}, line {loss.__code__.co_firstlineno + 1}" in str(refusal.value)
    with pytest.raises(DerivationError) as refusal:
        sa.derive(lambda w: anp.sum(anp.sort(w)), np.ones(3))
    assert f"gradient of {__file__}, line" in str(refusal.value)


# -------------------- types --------------------

TYPES = {
    "a float": (lambda w: w * w, 2.0),
    "itself": (lambda w: w, 2.0),
    "NumPy's float": (lambda w: w * w, np.float64(2.0)),
    "NumPy's float32": (lambda w: w * w, np.float32(2.0)),
    "0-d": (lambda w: w * w, np.array(2.0)),
    "0-d itself": (lambda w: w, np.array(2.0)),
    "0-d in a dict": (
        lambda p: p["a"] * p["b"] * p["c"],
        {"a": 1.5, "b": np.array(2.0), "c": np.float64(3)},
    ),
    "0-d loss": (lambda w: anp.tensordot(w, w, 2), A),
    "float32": (lambda w: anp.sum(w**2), A.astype(np.float32)),
    "Fortran": (lambda w: anp.sum(w**2), np.asfortranarray(A)),
    "constant": (lambda w: 3.0, A),
    "an item": (lambda w: w[0, 1], A),
    "a negative base": (lambda w: anp.sum((-2.0) ** anp.round(w)) + anp.sum(w), A),
}


@pytest.mark.parametrize("name", TYPES)
def test_a_value_and_a_gradient_have_autograds_types(name):
    loss, params = TYPES[name]
    assert_written(loss, (params,))


# -------------------- Python numbers in the data --------------------

OF_A_NUMBER = {
    "nothing": lambda w, k: anp.sum(anp.tanh(w) ** 2) + 0 * k,
    "a quotient": lambda w, k: anp.sum(w**2) / (k + 1),
    "a decay": lambda w, k: anp.sum(w) * 0.9**k,
    "a schedule": lambda w, k: anp.sum(w) * (0.1 / (1 + k // 2)) + k % 3 - (-k),
    "an index": lambda w, k: w[k] ** 2,
    "NumPy's": lambda w, k: anp.sum(w) / anp.sqrt(k + 1.0),
    "a negative base": lambda w, k: anp.sum(w) * (-2) ** k,
}


@pytest.mark.parametrize("name", OF_A_NUMBER)
def test_one_program_holds_for_all_ints(name):
    calls = [(np.array([1.0, -3.0, 0.5, 2.0]), k) for k in (0, 1, 2, 3)]
    derived = assert_written(OF_A_NUMBER[name], *calls)
    assert derived.traces_ints
    assert len(cached._cache) == 1


def test_python_numbers_give_way_to_float32():
    single = A.astype(np.float32)
    assert_written(lambda w, k: anp.sum(w * (2 * k)), (single, 3), (single, 4))
    assert_written(lambda w, k: anp.sum(w * (2 * k) ** 2), (single, 3.0), (single, 4.5))


LENGTHS = {
    "a length": lambda w, k: anp.sum(w[: k + 1] ** 2),
    "a loop": lambda w, k: sum([anp.sum(w**2) for _ in range(k + 1)]),
    "a branch": lambda w, k: anp.sum(w) if k % 2 else anp.sum(w**2),
    "a text": lambda w, k: anp.sum(w) * len(f"{k}"),
    "a large number": lambda w, k: anp.sum(w) * 10 ** (k + 18),
    "a batch": lambda w, k: anp.sum(A[(k % 3) : (k % 3) + 1] * w),
}


@pytest.mark.parametrize("name", LENGTHS)
def test_an_int_that_is_no_number_is_a_constant_a_few_times_then_autograds(name, monkeypatch):
    derived = []
    original = cached.derive
    monkeypatch.setattr(cached, "derive", lambda *a: derived.append(1) or original(*a))
    loss, w = LENGTHS[name], np.array([1.0, -3.0, 0.5, 2.0])
    function = sa.value_and_grad(loss)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for k in range(20):
            value, grad = function(w, k)
            true, truth = autograd.value_and_grad(loss)(w, k)
            assert type(value) is type(true)
            np.testing.assert_allclose(value, true, rtol=1e-13)
            np.testing.assert_allclose(grad, truth, rtol=1e-13)
    assert len(derived) <= cached.FEW
    assert len(cached._cache) <= cached.FEW
    assert [w.category for w in caught].count(DerivationWarning) == 1


def test_another_int_than_derived_for_is_named_only_where_it_matters():
    general = sa.derive(lambda w, k: anp.sum(w) * k, A, 2)
    assert general(A, 3)[0] == 3 * np.sum(A)
    special_case = sa.derive(lambda w, k: anp.sum(w[:k]), A, 2)
    with pytest.raises(ValueError, match=r"data\[0\] must be as .* derived for: 2, got 3"):
        special_case(A, 3)


# -------------------- nothing but a refusal --------------------


@pytest.mark.parametrize(
    "step", ["write_listing", "_compiled", "write_buffered", "simplify", "record"]
)
def test_whatever_fails_on_the_way_is_a_refusal_with_one_warning(step, monkeypatch):
    def fails(*arguments, **options):
        raise AssertionError("of the library's own")

    monkeypatch.setattr(deriving, step, fails)
    with pytest.raises(DerivationError, match="AssertionError: of the library's own"):
        sa.derive(lambda w: anp.sum(w**2), A)
    function = sa.value_and_grad(lambda w: anp.sum(w**2))
    with pytest.warns(DerivationWarning) as caught:
        values = [function(A)[0] for _ in range(3)]
    assert values == [np.sum(A**2)] * 3
    assert len(caught) == 1


def test_a_large_constant_makes_no_larger_one():
    X = np.ones((200_000, 3))
    derived = sa.derive(lambda w: anp.mean(anp.dot(X, w) ** 2), np.ones(3))
    assert len(derived.source) < 5_000


# -------------------- what waits until the loss is looked at --------------------


def waiting(loss, params, *data):
    simple = simplify(record(loss, params, *data))
    late, kept = later.split(simple)
    return {name_of(e.fun) for e in late}, [(name_of(e.fun), e.shape) for e in kept]


def test_what_only_the_loss_needs_waits_and_what_it_reads_is_kept():
    params, x, t = sa.init_params(2, 10, 3, rng=0), np.ones((30, 2)), np.arange(30) % 3
    late, kept = waiting(sa.loss, params, x, np.eye(3)[t])
    assert late == {"log", "multiply", "sum", "subtract", "scale"}
    assert kept == [("sum", (30,)), ("subtract", (30, 3))]


def test_parameters_large_values_and_what_the_gradient_needs_do_not_wait():
    def loss(w, x):
        return anp.sum(w**2) + anp.sum((x @ w) ** 2)

    late, kept = waiting(loss, np.ones((4, 3)), np.ones((5, 4)))
    assert (late, kept) == ({"sum", "power", "add"}, [("power", (4, 3)), ("matmul", (5, 3))])
    late, kept = waiting(loss, np.ones((40, 30)), np.ones((50, 40)))
    assert (late, kept) == ({"add"}, [("sum", ()), ("sum", ())])
    assert waiting(lambda w, x: anp.exp(anp.sum(w * x)), A, A) == (set(), [("exp", ())])


# -------------------- SciPy's functions that are NumPy expressions --------------------

COV = 2.0 * np.eye(4)
BODIES = {
    "all": lambda w: special.logsumexp(w),
    "rows": lambda w: anp.sum(special.logsumexp(w, 1) ** 2),
    "one entry by two names": lambda w: anp.sin(w[0, 1]) + w[-2, 1] ** 3 - anp.cos(w[1, 1]),
    "columns": lambda w: anp.sum(special.logsumexp(w, axis=0, keepdims=True) * w),
    "nothing but zeros": lambda w: anp.sum(special.logsumexp(anp.where(w > 0, w, -np.inf))),
    "logpdf": lambda w: anp.sum(norm.logpdf(w, w[0], anp.exp(w[1]))),
    "pdf": lambda w: anp.sum(norm.pdf(w, 0.5)),
    "normals": lambda w: anp.sum(multivariate_normal.logpdf(w, w[0], COV)),
    "a normal": lambda w: multivariate_normal.pdf(w[0], w[1], w.T @ w + np.eye(4)),
    "entropy": lambda w: multivariate_normal.entropy(w[0], w.T @ w + np.eye(4)),
}


@pytest.mark.parametrize("name", BODIES)
def test_scipys_expressions_are_numpys(name):
    derived = assert_written(BODIES[name], (A,), (A + 0.1,))
    assert derived.needs == {}
    assert "scipy" not in derived.source


OTHERS = {
    "weights": lambda w: special.logsumexp(w, b=2.0),
    "no expression": lambda w: anp.sum(norm.cdf(w)),
}


@pytest.mark.parametrize("name", OTHERS)
def test_what_a_body_does_not_take_stays_scipys(name):
    derived = assert_written(OTHERS[name], (A,), (A + 0.1,))
    assert "scipy" in derived.source
    exec(compile(derived.source, "pasted", "exec"), {})  # it imports what it needs


def test_a_logsumexp_of_nothing_but_minus_infinity_is_scipys():
    loss = lambda w, x: anp.sum(special.logsumexp(w * x[:, None] + x[:, None], axis=1))  # noqa: E731
    derived = sa.derive(loss, np.ones(3), np.ones(2))
    with np.errstate(all="ignore"):
        assert derived(np.ones(3), np.full(2, -np.inf))[0] == -np.inf


# -------------------- sums, and what is placed into arrays --------------------

PLACED = {
    "apart": lambda w: anp.sum(w[0] ** 2) + anp.sum(w[1:] ** 3),
    "over each other": lambda w: anp.sum(w[:2] ** 2) + anp.sum(w[1:] ** 3) - anp.sum(w[-1] * w[0]),
    "with a rest": lambda w: anp.sum(w**2) + anp.sum(w[0] ** 3) - anp.sum(w[:, 1] ** 2),
    "a rest that is another gradient": lambda w: anp.sum(w * 3) - anp.sum(w[0]),
    "a smaller rest": lambda w: anp.sum(w[0] ** 2) + anp.sum(anp.sum(w, axis=0) ** 2),
    "one entry by two names": lambda w: anp.sin(w[0, 1]) + w[-2, 1] ** 3 - anp.cos(w[1, 1]),
    "columns": lambda w: anp.sum(w[:, 1] * w[:, 0]) - anp.sum(w[..., 2]),
    "by numbers": lambda w: anp.sum(w[ROWS] ** 2) - anp.sum(w[0] ** 2) - anp.sum(w[ROWS] ** 3),
    "a sum of a sum": lambda w: anp.sum((w[0] - (w[1] + w[2]) - w[0] * w[1]) ** 2),
}


@pytest.mark.parametrize("name", PLACED)
def test_what_is_placed_into_one_array_is_written_into_one(name):
    derived = assert_written(PLACED[name], (A,), (A + 1,))
    assert derived.source.count("np.zeros") <= 1


def test_a_long_sum_is_broken_and_no_line_is_too_long():
    def loss(w, x):
        h = w[0]
        for _ in range(6):
            h = anp.tanh(anp.dot(h, x) + anp.cos(h))
        return anp.sum(h)

    derived = assert_written(loss, (A, np.eye(4)), (A + 1, np.eye(4)))
    assert max(map(len, derived.source.splitlines())) <= 100
    assert "_part" not in derived.source
    assert ", turn 6" in derived.source
    assert ", turn 7" not in derived.source


X = np.random.default_rng(2).uniform(0.5, 1.0, (6, 4))
OF_ALL = {
    "rows": lambda s: anp.sum(anp.prod(s, axis=1)),
    "from the end": lambda s: anp.sum(anp.max(s, axis=-1) - anp.min(s, axis=0)[0]),
    "all": lambda s: anp.max(s) - anp.prod(s) + anp.sum(s),
    "two axes": lambda s: anp.sum(anp.reshape(s, (3, 2, 4)) ** 2, axis=(0, 2))[0] + anp.sum(s),
    "kept axes": lambda s: anp.sum(s / anp.sum(s, axis=(0, 1), keepdims=True)),
    "of another shape": lambda s: anp.sum(anp.reshape(s, (4, 6)) * np.arange(6.0)),
    "a choice": lambda s: anp.sum(anp.where(s > 0.7, s**2, 3.0)) + anp.sum(anp.log(s**2 + 1)),
}


@pytest.mark.parametrize("name", OF_ALL)
def test_losses_that_wait_are_those_of_one_batch_at_a_time(name):
    def loss(w, x):  # the gradient needs nothing of it
        return anp.sum(w * x) + OF_ALL[name](sa.network.stop_gradient(anp.tanh(w * x)))

    derived = sa.derive(loss, A[0], X)
    make, _ = derived.buffered
    params, grads, data = A[0].copy(), np.empty(4), np.stack([X, X / 2, X**2])
    steps, losses = make([params], [grads], [data], 3)
    expected = []
    for step, x in zip(steps, data, strict=True):
        params *= 1.1
        step()
        expected.append(loss(params, x))
        np.testing.assert_allclose(grads, np.sum(x, axis=0), rtol=1e-14)
    np.testing.assert_allclose(losses(3), expected, rtol=1e-14)
    np.testing.assert_array_equal(losses(2), losses(3)[:2])


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("options", [{"axis": a} for a in (0, -2, (0,), 1)] + [{"keepdims": True}])
def test_rows_are_added_exactly_where_their_numbers_allow_it(options, dtype):
    w, x = np.array([1, 2, -3], dtype=dtype), np.arange(12, dtype=dtype).reshape(4, 3)

    def loss(w, x):
        sums = anp.sum(w * x, **options), anp.sum((w * x).T, **options)
        return sum(anp.sum(s * s) for s in sums)

    params, grads = w.copy(), np.empty(3, dtype)
    step, _ = sa.derive(loss, w, x).buffered[0]([params], [grads], [np.stack([x])], 1)
    for factor in (1, -2):  # the second time over the buffers of the first
        params[:] = factor * w
        step[0]()
        np.testing.assert_array_equal(grads, autograd.grad(loss)(params, x))
