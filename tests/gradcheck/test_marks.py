"""Marks one after another, as in the backprop ninja exercise: from the loss back, line by line."""

# ruff: noqa: N816

import linecache

import numpy as np
import pytest
from findings import has

import spiral_autograd as sa

RNG = np.random.default_rng(0)
X, LABELS = RNG.normal(size=(5, 3)), np.array([0, 1, 2, 1, 0])
PARAMS = {"W": RNG.normal(size=(3, 3)), "b": RNG.normal(size=3)}


def forward(params, x):
    logits = x @ params["W"] + params["b"]
    logit_maxes = logits.max(axis=1, keepdims=True)
    norm_logits = logits - logit_maxes
    counts = np.exp(norm_logits)
    counts_sum = counts.sum(axis=1, keepdims=True)
    probs = counts / counts_sum
    logprobs = np.log(probs)
    return -logprobs[np.arange(5), LABELS].mean()


logits = X @ PARAMS["W"] + PARAMS["b"]
counts = np.exp(logits - logits.max(axis=1, keepdims=True))
counts_sum = counts.sum(axis=1, keepdims=True)
probs = counts / counts_sum
dlogprobs = -np.eye(3)[LABELS] / 5
dprobs = dlogprobs / probs
dcounts_sum = -(dprobs * counts).sum(axis=1, keepdims=True) / counts_sum**2
dcounts = dprobs / counts_sum + dcounts_sum
dnorm_logits = dcounts * counts
dlogit_maxes = -dnorm_logits.sum(axis=1, keepdims=True)
dlogits = dnorm_logits + dlogit_maxes * np.eye(3)[logits.argmax(axis=1)]
dW, db = X.T @ dlogits, dlogits.sum(axis=0)
RIGHT = {name: value for name, value in globals().items() if name.startswith("d")}
ORDER = "logprobs probs counts_sum counts norm_logits logit_maxes logits W b"


def check(**grads):
    return sa.check_gradient(forward, grads, PARAMS, X)


def test_the_variables_of_the_loss_need_no_mark():
    report = check(**RIGHT)
    assert report.ok
    assert {row.name for row in report.rows} == set(ORDER.split())
    assert (report.reference, report.unchecked, report.notes) == ("autograd", (), ())


def test_only_what_has_a_gradient_is_asked():
    report = check(dlogprobs=dlogprobs, dprobs=dprobs)
    assert report.ok
    assert [row.name for row in report.rows] == ["logprobs", "probs"]
    assert report.unchecked == ("W", "b")
    wrong = check(dlogprobs=dlogprobs, dprobs=dlogprobs * probs)
    assert [row.verdict for row in wrong.rows] == ["exact", "wrong"]
    assert wrong.rows[1].rule == "value"
    assert wrong.rows[1].lines[0] == (__file__, forward.__code__.co_firstlineno + 7)


def test_all_globals_will_do():
    report = sa.check_gradient(forward, globals(), PARAMS, X)
    assert report.ok
    assert " ".join(row.name for row in report.rows) == ORDER
    assert report.unchecked == ()


def test_the_loss_is_run_as_it_was():
    before = forward.__code__
    check(dprobs=dprobs)
    assert forward.__code__ is before
    assert "__tap" not in globals()
    assert forward(PARAMS, X) == -np.log(probs)[np.arange(5), LABELS].mean()


def test_the_first_wrong_one_is_the_cause_of_those_behind():
    counts_off = dprobs / counts_sum
    norm_off = counts_off * counts
    wrong = {"dcounts": counts_off, "dnorm_logits": norm_off, "dlogits": norm_off}
    report = check(**{**RIGHT, **wrong, "dW": X.T @ norm_off, "db": norm_off.mean(axis=0)})
    rows = {row.name: row for row in report.rows}
    assert has(rows["counts"], "term", of="gradient_of", times=1.0, lacks=True)
    assert all(has(rows[name], "follows", names=["counts"]) for name in ("norm_logits", "W"))
    assert has(rows["b"], "made_from_wrong", names=["counts"])
    assert rows["logit_maxes"].verdict in ("exact", "match")


def test_what_does_not_come_from_the_wrong_one_is_explained_by_itself():
    wrong = {"dcounts": 2 * dcounts, "dW": -dW, "db": dlogits.mean(axis=0)}
    for grads in (wrong, {**wrong, "dcounts": dcounts}):
        rows = [row for row in check(**{**RIGHT, **grads}).rows if row.verdict == "wrong"]
        assert not any(has(row, kind) for row in rows for kind in ("follows", "made_from_wrong"))
        assert {row.rule for row in rows} == {"factor"}


def test_of_two_wrong_ones_both_are_the_cause():
    off, more = 2 * dprobs, 3 * dcounts_sum
    counts_off = off / counts_sum + more
    report = check(
        dlogprobs=dlogprobs, dprobs=off, dcounts_sum=more, dcounts=counts_off, dW=dW + 1.0
    )
    rows = {row.name: row for row in report.rows}
    assert [rows[name].rule for name in ("probs", "counts_sum")] == ["factor", None]
    assert has(rows["counts_sum"], "made_from_wrong", names=["probs"])
    assert has(rows["counts"], "follows", names=["probs", "counts_sum"])
    assert has(rows["W"], "made_from_wrong", names=["probs", "counts_sum"])


def test_a_gradient_function_answers_for_all_parameters():
    report = sa.check_gradient(forward, lambda params, x: {"dW": dW}, PARAMS, X)
    assert [row.verdict for row in report.rows] == ["exact", "missing"]
    with pytest.raises(sa.CheckError, match="no entry"):
        check()


def test_variables_in_closures_methods_and_lists():
    W = PARAMS["W"]

    class Net:
        def loss(self, params, scale=2.0, *, power=2):
            (W,) = params
            h: np.ndarray = X @ W
            return self.total(h) * scale + np.sum(factor * h**power)

        def total(self, h):
            return np.sum(h)

    factor = 3.0
    dh = 2.0 + 2 * factor * (X @ W)
    for wrong in (False, True):
        grads = {"dh": dh + wrong, "dW": X.T @ (dh + wrong)}
        report = sa.check_gradient(Net().loss, grads, [W])
        assert [(row.name, row.verdict == "wrong") for row in report.rows] == [
            ("h", wrong),
            ("W", wrong),
        ]
        assert has(report.rows[1], "follows") is wrong


def test_a_mark_of_two_values_is_refused():
    def twice(params):
        h = X @ params["W"]
        h = np.tanh(h)
        return np.sum(h)

    def in_a_loop(params):
        total, h = 0.0, X
        for _ in range(2):
            h = sa.tap("h", h @ params["W"])
            total = total + np.sum(h)
        return total

    for loss, times in ((twice, "2 times"), (in_a_loop, "2 times")):
        with pytest.raises(sa.CheckError, match=f"marks h {times}.*name of its own"):
            sa.check_gradient(loss, {"dh": X}, {"W": PARAMS["W"]})


def test_a_mark_that_nobody_uses_is_refused():
    def lost(params):
        h = X @ params["W"]
        sa.tap("h", h)
        return np.sum(h**2)

    def unused(params):
        h = X @ params["W"]
        return np.sum((X @ params["W"]) ** 2) + 0 * len(h)

    for loss in (lost, unused):
        with pytest.raises(sa.CheckError, match=r'does not depend on .*h = tap\("h", h\)'):
            sa.check_gradient(loss, {"dh": X}, {"W": PARAMS["W"]})


def test_without_a_source_variables_are_no_marks():
    space = {"np": np, "X": X}
    exec("def loss(p):\n    h = X @ p['W']\n    return np.sum(h**2)", space)
    report = sa.check_gradient(
        space["loss"], {"dh": X, "dW": 2 * X.T @ X @ np.eye(3)}, {"W": np.eye(3)}
    )
    assert report.unchecked == ("dh",)
    source = "def loss(p):\n    h = X @ p['W']\n    return np.sum(h**2)\n"
    linecache.cache["<cell 1>"] = (len(source), None, source.splitlines(True), "<cell 1>")
    exec(compile(source, "<cell 1>", "exec"), space)
    report = sa.check_gradient(space["loss"], {"dh": X}, {"W": np.eye(3)})
    assert [(row.name, row.verdict) for row in report.rows] == [("h", "wrong")]


# -------------------- no lines to mend --------------------

TANH = "lambda x: (np.tanh(x), np.tanh(x))", "lambda dout, y: dout * (1 - y)"


def test_a_derivative_is_told_by_its_numbers_where_no_source_can_be_read():
    (row,) = sa.check_backward(*(eval(text, {"np": np}) for text in TANH), X).rows
    assert has(row, "taken_as", text="1 - v")
    assert row.rule == "value"
