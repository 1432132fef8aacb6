"""Why a gradient is wrong, in the reader's own words: what the table of mistakes can tell."""

import linecache
import time

import numpy as np
import pytest
from findings import has, says

import spiral_autograd as sa

RNG = np.random.default_rng(0)


def said(report, name):
    """Return a row, its rule and its named lines."""
    row = next(row for row in report.rows if row.name == name)
    return row, row.rule, [linecache.getline(*place).strip() for place in row.lines]


# -------------------- loops --------------------


def characters(params, xs, targets):
    loss, h = 0.0, np.zeros(4)
    for x, target in zip(xs, targets, strict=True):
        h = np.tanh(params["Wx"] @ x + params["Wh"] @ h)
        y = params["Wy"] @ h
        loss += np.log(np.sum(np.exp(y))) - y[target]
    return loss


def characters_backward(params, xs, targets, *, mistake=""):
    hs = [np.zeros(4)]
    for x in xs:
        hs.append(np.tanh(params["Wx"] @ x + params["Wh"] @ hs[-1]))
    grads = {name: np.zeros_like(value) for name, value in params.items()}
    later = np.zeros(4)
    for t in reversed(range(len(xs))):
        y = params["Wy"] @ hs[t + 1]
        dy = np.exp(y) / np.exp(y).sum()
        dy[targets[t]] -= 1
        grads["Wy"] += np.outer(dy, hs[t + 1])
        dh = params["Wy"].T @ dy + (0 if mistake == "later" else later)
        dz = dh if mistake == "tanh" else dh * (1 - hs[t + 1] ** 2)
        grads["Wx"] += np.outer(dz, xs[t])
        grads["Wh"] += np.outer(dz, hs[t + 1 if mistake == "step" else t])
        later = (params["Wh"] if mistake == "T" else params["Wh"].T) @ dz
    return grads


RECURRENT = {
    "later": ("term", {"not_carried": {}}),
    "tanh": (None, {"right_with": {}}),
    "step": (None, {"right_with": {}}),
    "T": (None, {"right_with": {}}),
}


@pytest.mark.parametrize("mistake", RECURRENT)
def test_a_mistake_at_each_turn_of_a_loop(mistake):
    params = {"Wx": RNG.normal(size=(4, 3)), "Wh": RNG.normal(size=(4, 4)) / 2}
    params["Wy"] = RNG.normal(size=(5, 4))
    data = RNG.normal(size=(4, 3)), [1, 0, 4, 2]

    def backward(params, xs, targets):
        return characters_backward(params, xs, targets, mistake=mistake)

    assert sa.check_gradient(characters, characters_backward, params, *data).ok
    report = sa.check_gradient(characters, backward, params, *data)
    row, rule, _ = said(report, "Wh")
    assert (rule, says(row, RECURRENT[mistake][1])) == (RECURRENT[mistake][0], True), str(report)


def windows(x, w):
    out = np.zeros((4, 4))
    padded = np.pad(x, 1)
    for i in range(4):
        for j in range(4):
            out[i, j] = np.sum(padded[i : i + 3, j : j + 3] * w)
    return out, (x, w)


def windows_backward(dout, cache):
    x, w = cache
    padded = np.pad(x, 1)
    dpadded, dw = np.zeros_like(padded), np.zeros_like(w)
    for i in range(4):
        for j in range(4):
            dw += padded[i : i + 3, j : j + 3] * dout[i, j]
            dpadded[i : i + 3, j : j + 3] += w * dout[i, j]
    return dpadded[1:-1, 1:-1], dw


def windows_assigned(dout, cache):
    _, w = cache
    _, dw = windows_backward(dout, cache)
    dpadded = np.zeros((6, 6))
    for i in range(4):
        for j in range(4):
            dpadded[i : i + 3, j : j + 3] = w * dout[i, j]
    return dpadded[1:-1, 1:-1], dw


def windows_cut(dout, cache):
    _, w = cache
    _, dw = windows_backward(dout, cache)
    dpadded = np.zeros((6, 6))
    for i in range(4):
        for j in range(4):
            dpadded[i : i + 3, j : j + 3] += w * dout[i, j]
    return dpadded[:4, :4], dw


@pytest.mark.parametrize(
    ("backward", "rule", "said"),
    [
        (
            *(windows_assigned, None),
            {
                "right_with": {
                    "statement": "dpadded[i:i + 3, j:j + 3] += w * dout[i, j]",
                }
            },
        ),
        (windows_cut, None, {"right_with": {"statement": "return (dpadded[1:5, 1:5], dw)"}}),
    ],
)
def test_overlapping_windows(backward, rule, said):
    inputs = RNG.normal(size=(4, 4)), RNG.normal(size=(3, 3))
    assert sa.check_backward(windows, windows_backward, *inputs).ok
    report = sa.check_backward(windows, backward, *inputs)
    assert [row.rule for row in report.rows] == [rule, None], str(report)
    assert says(report.rows[0], said)


# -------------------- a network of two layers, wrong in one place or in two --------------------


def network(params, x, t):
    z = x @ params["W1"] + params["b1"]
    h = np.tanh(z)
    y = h @ params["W2"] + params["b2"]
    return np.mean((y - t) ** 2)


def network_backward(params, x, t, *, mistakes=()):
    z = x @ params["W1"] + params["b1"]
    h = np.tanh(z)
    y = h @ params["W2"] + params["b2"]
    dy = 2 * (y - t) / y.size
    db2 = dy.mean(axis=0) if "mean" in mistakes else dy.sum(axis=0)
    dW2 = (z if "z" in mistakes else h).T @ dy
    dh = dy @ params["W2"].T
    dz = dh * (1 - (h if "h" in mistakes else h**2))
    db1 = dz.mean(axis=0) if "mean1" in mistakes else dz.sum(axis=0)
    return {"W1": x.T @ dz, "b1": db1, "W2": dW2, "b2": db2}


def checked(*mistakes, **options):
    rng = np.random.default_rng(1)
    params = {"W1": rng.normal(size=(3, 4)), "b1": rng.normal(size=4)}
    params |= {"W2": rng.normal(size=(4, 2)), "b2": rng.normal(size=2)}
    x, t = rng.normal(size=(5, 3)), rng.normal(size=(5, 2))

    def backward(params, x, t):
        return network_backward(params, x, t, mistakes=mistakes)

    return sa.check_gradient(network, backward, params, x, t, **options)


def test_the_network_is_right_without_a_mistake():
    assert checked().ok


NOT_LINEAR = [
    "abs(dout) * (x > 0)",
    "np.sort(dout)",
    "dout.max(0) + 0 * x",
    "np.tanh(dout) * (x > 0)",
]


@pytest.mark.parametrize(
    ("backward", "kind", "fields"),
    [
        ("1.0 * (x > 0)", "upstream_ignored", {}),
        ("dout * dout * (x > 0)", "upstream_twice", {}),
        ("dout * (dout > 0)", "upstream_not_linear", {"decides": True}),
        ("np.where(dout > 0, 1, 0.1) * dout", "upstream_not_linear", {"decides": True}),
        *((text, "upstream_not_linear", {"decides": False}) for text in NOT_LINEAR),
    ],
)
def test_the_upstream_gradient_is_misused(backward, kind, fields):
    backward = eval(f"lambda dout, x: {backward}")  # whose lines cannot be read
    report = sa.check_backward(lambda x: (np.maximum(x, 0), x), backward, RNG.normal(size=(4, 3)))
    assert has(report.rows[0], kind, name="dout", **fields)


def test_a_line_that_is_right_says_more_than_that_backward_is_not_linear():
    def backward(dout, x):
        return abs(dout) * (x > 0)

    report = sa.check_backward(lambda x: (np.maximum(x, 0), x), backward, RNG.normal(size=(4, 3)))
    assert has(report.rows[0], "right_with", statement="return dout * (x > 0)"), str(report)


def test_the_upstream_gradient_is_called_as_backward_calls_it():
    def backward(cache, dy):  # the cache may come first
        return 1.0 * (cache > 0)

    report = sa.check_backward(lambda x: (np.maximum(x, 0), x), backward, RNG.normal(size=(4, 3)))
    assert has(report.rows[0], "upstream_ignored", name="dy")


def test_a_wrong_derivative_is_named_as_a_person_would():
    row, _, lines = said(checked("h"), "W1")
    assert has(row, "right_with"), row.why
    assert lines[0].startswith("dz = dh")


def test_the_wrong_factor_of_a_matrix_product():
    row, _, _ = said(checked("z"), "W2")
    assert has(row, "right_with"), row.why


@pytest.fixture(scope="module")
def two_wrong():
    return checked("z", "mean")


def test_two_mistakes_in_two_gradients(two_wrong):
    assert has(said(two_wrong, "W2")[0], "right_with")
    assert said(two_wrong, "b2")[1] == "factor"
    assert [row.verdict for row in two_wrong.rows].count("wrong") == 2


def test_two_mistakes_in_one_gradient():
    report = checked("h", "mean1")
    (told,) = said(report, "b1")[0].findings
    first, second = told.fields["statement"], *told.fields["others"]
    assert (told.kind, "h ** 2" in first) == ("right_with", True)
    assert second == "db1 = dz.sum(axis=0) if 'mean1' in mistakes else dz.sum(axis=0)"
    assert has(said(report, "W1")[0], "right_with")


def test_the_budget_is_kept():
    started = time.monotonic()
    report = checked("h", budget=0.0)
    assert time.monotonic() - started < 2
    assert has(said(report, "W1")[0], "no_pattern", late=True)


def test_the_answer_does_not_change_from_call_to_call(two_wrong):
    assert checked("z", "mean").to_dict() == two_wrong.to_dict()


# -------------------- softmax and normalisations as a whole --------------------


def softmax(x):
    e = np.exp(x - x.max(axis=1, keepdims=True))
    p = e / e.sum(axis=1, keepdims=True)
    return p, p


def standardise(x):
    xhat = (x - x.mean(axis=0)) / np.sqrt(x.var(axis=0) + 1e-5)
    return xhat, (xhat, np.sqrt(x.var(axis=0) + 1e-5))


WHOLE = {
    "without the sum": (softmax, lambda g, p: p * g, "right_with"),
    "over the batch": (softmax, lambda g, p: p * (g - np.sum(p * g, axis=0)), "right_with"),
    "the other sign": (
        softmax,
        lambda g, p: p * (g + np.sum(p * g, axis=1, keepdims=True)),
        "right_with",
    ),
    "without p": (softmax, lambda g, p: g - np.sum(p * g, axis=1, keepdims=True), "right_with"),
    "diagonal only": (softmax, lambda g, p: g * p * (1 - p), None),
    "without the mean": (
        standardise,
        lambda g, c: (g - c[0] * (g * c[0]).mean(axis=0)) / c[1],
        "left_out",
    ),
    "without the variance": (standardise, lambda g, c: (g - g.mean(axis=0)) / c[1], "left_out"),
    "without the root": (
        standardise,
        lambda g, c: g - g.mean(axis=0) - c[0] * (g * c[0]).mean(axis=0),
        "right_with",
    ),
}


@pytest.mark.parametrize("name", WHOLE)
def test_a_mistake_in_the_gradient_of_a_whole_operation(name):
    forward, backward, kind = WHOLE[name]
    report = sa.check_backward(forward, backward, RNG.normal(size=(5, 3)))
    row = report.rows[0]
    assert row.verdict == "wrong"
    assert kind is None or has(row, kind), str(report)


# -------------------- nothing is claimed that is not known --------------------


@pytest.mark.parametrize("seed", range(5))
def test_noise_has_no_pattern(seed):
    rng = np.random.default_rng(seed)

    def forward(x, w):
        return np.tanh(x @ w), (x, w)

    def backward(dout, cache):
        x, w = cache
        dz = dout * (1 - np.tanh(x @ w) ** 2)
        return dz @ w.T, x.T @ dz + 0.1 * rng.normal(size=w.shape)

    report = sa.check_backward(forward, backward, rng.normal(size=(4, 3)), rng.normal(size=(3, 2)))
    row = report.rows[1]
    assert (row.verdict, row.rule) in (("wrong", None), ("wrong", "state")), str(report)
    assert report.rows[0].verdict in ("exact", "match")


@pytest.mark.parametrize(("power", "rule"), [(2, "factor"), (1, None), (3, None)])
def test_one_number_tells_a_factor_where_it_is_the_same_elsewhere(power, rule):
    report = sa.check_backward(lambda x: (x**3, x), lambda g, x: 1.7 * g * x**power, np.ones(1))
    assert (report.rows[0].verdict, report.rows[0].rule) == ("wrong", rule)
