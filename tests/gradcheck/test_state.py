"""The user's objects come out as they went in, and each run begins from the same state."""

import copy
import itertools
import math
import pickle
import subprocess
import sys
import threading
from contextlib import suppress

import numpy as np
import pytest
from findings import has

import spiral_autograd as sa
from spiral_autograd.gradcheck.finding import found
from spiral_autograd.gradcheck.subject.session import Session, Snapshot
from spiral_autograd.state import GLOBAL_STREAMS


def x_of(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape)


class Dropout:
    """Draws its mask from whichever stream it is given."""

    def __init__(self, stream):
        self.stream = stream

    def forward(self, x):
        self.mask = (self.stream.random(size=x.shape) > 0.4) / 0.6
        return x * self.mask

    def backward(self, dout):
        return dout * self.mask


class Dense:
    def __init__(self, W, b):
        self.W, self.b, self.dW, self.db = W, b, np.zeros_like(W), np.zeros_like(b)
        self.history = [np.ones(2), {"calls": 0}]

    def forward(self, x):
        self.x = x
        self.history[1]["calls"] += 1
        return x @ self.W + self.b

    def backward(self, dout):
        self.dW[...] = self.x.T @ dout
        self.db[...] = dout.sum(axis=0)
        self.history[0] *= 2
        self.history.append("called")
        return dout @ self.W.T


def dense():
    return Dense(x_of(3, 2, seed=1), x_of(2, seed=2))


# -------------------- as they went in --------------------

STREAMS = {
    "np.random": lambda: np.random,
    "RandomState": lambda: np.random.RandomState(3),
    "Generator": lambda: np.random.default_rng(3),
}


def global_state():
    return pickle.dumps(np.random.get_state())  # noqa: NPY002


@pytest.mark.parametrize("name", STREAMS)
def test_a_random_layer_is_held_still_and_its_stream_is_left_alone(name):
    layer, x = Dropout(STREAMS[name]()), x_of(4, 5)
    stream = None if name == "np.random" else pickle.dumps(layer.stream)
    state, before = global_state(), x.tobytes()
    report = sa.check_layer(layer, x)
    assert report.ok, str(report)
    assert all(row.verdict in ("exact", "match") for row in report.rows)
    assert x.tobytes() == before
    assert global_state() == state
    assert list(vars(layer)) == ["stream"]
    assert stream is None or pickle.dumps(layer.stream) == stream


def test_an_object_and_all_it_reaches_come_out_bit_for_bit():
    layer, x = dense(), x_of(4, 3)
    holders = vars(layer) | {"first": layer.history[0], "counts": layer.history[1]}
    before = pickle.dumps((layer, x))
    assert sa.check_layer(layer, x).ok
    assert pickle.dumps((layer, x)) == before
    assert layer.W is holders["W"]
    assert layer.dW is holders["dW"]
    assert layer.history[0] is holders["first"]
    assert layer.history[1] is holders["counts"]


@pytest.mark.parametrize("fails_at", range(1, 6))
@pytest.mark.parametrize("method", ["forward", "backward"])
def test_so_they_do_when_the_code_raises(method, fails_at):
    calls = []

    class Failing(Dense):
        pass

    def failing(self, value):
        calls.append(method)
        result = getattr(Dense, method)(self, value)
        if len(calls) >= fails_at:
            self.W += 1
            raise ZeroDivisionError("on purpose")
        return result

    setattr(Failing, method, failing)
    layer, x = Failing(x_of(3, 2), x_of(2)), x_of(4, 3)
    before, state = [a.tobytes() for a in (layer.W, layer.b, layer.dW, x)], global_state()
    with suppress(sa.CheckError):
        sa.check_layer(layer, x)
    assert [a.tobytes() for a in (layer.W, layer.b, layer.dW, x)] == before
    assert layer.history[1] == {"calls": 0}
    assert len(layer.history) == 2
    assert global_state() == state
    assert not hasattr(layer, "x")


def test_an_interrupt_leaves_them_as_they_were():
    class Interrupted(Dense):
        def backward(self, dout):
            super().backward(dout)
            self.W += 1
            raise KeyboardInterrupt

    layer = Interrupted(x_of(3, 2), x_of(2))
    before = layer.W.copy()
    with pytest.raises(KeyboardInterrupt):
        sa.check_layer(layer, x_of(4, 3))
    assert np.array_equal(layer.W, before)


def test_slots_lists_dicts_and_objects_in_them_are_restored():
    class Slotted:
        __slots__ = ("value", "word")

    item = Slotted()
    item.value = np.zeros(2)
    held = {"list": [1, np.ones(2)], "item": item, "set": {1}}
    snapshot = Snapshot(held)
    inner = held["list"]
    inner[1] += 1
    inner.append(3)
    item.value += 5
    item.value = None
    held["more"] = 1
    del held["set"]
    snapshot.restore()
    assert list(held) == ["list", "item", "set"]
    assert held["list"] is inner
    assert inner[0] == 1
    assert len(inner) == 2
    assert np.array_equal(inner[1], np.ones(2))
    assert np.array_equal(item.value, np.zeros(2))


# -------------------- each run from the same state --------------------


def test_every_fresh_run_begins_alike():
    counts = {"n": 0}
    session = Session(counts)
    drawn = []
    for _ in range(3):
        with session.fresh():
            counts["n"] += 1
            drawn.append((counts["n"], np.random.rand()))  # noqa: NPY002
    assert len(set(drawn)) == 1


@pytest.mark.parametrize("bits", [np.random.MT19937, np.random.PCG64])
def test_a_stream_that_keeps_a_normal_number_for_later_is_restored(bits):
    stream = np.random.RandomState(bits(3))
    snapshot = Snapshot([stream])
    first = stream.standard_normal(3)  # an odd count
    snapshot.restore()
    assert np.array_equal(stream.standard_normal(3), first)


def test_parameters_that_are_drawn_in_the_first_forward_pass_are_drawn_alike():
    class Drawn(Lazy):
        stream = None

        def forward(self, x):
            if not hasattr(self, "W"):
                self.W = self.stream.standard_normal((3, 5))
            self.x = x
            return x @ self.W

    for seed in range(3):
        layer = Drawn(right=True)
        layer.stream = np.random.RandomState(seed)
        report = sa.check_layer(layer, x_of(4, 3))
        assert report.ok, str(report)
        assert [row.name for row in report.rows] == ["x", "W"]


def test_arrays_can_begin_elsewhere_for_a_while():
    values = {"a": np.zeros(3), "b": np.ones(2)}
    session = Session(values)
    with session.moved([values["a"]], [np.full(3, 7.0)]), session.fresh():
        assert np.array_equal(values["a"], np.full(3, 7.0))
        values["a"] += 1
        values["b"] += 1
    assert np.array_equal(values["a"], np.zeros(3))
    assert np.array_equal(values["b"], np.ones(2))


def test_a_new_start_shares_what_has_not_changed():
    values = {"large": np.zeros(1000)}
    session = Session(values)
    with session.fresh():
        values["new"] = np.ones(2)
        session.rebase()
    assert session.start.kept(values["large"]) is session.original.kept(values["large"])
    with session.unused():
        assert "new" not in values
    with session.fresh():
        assert "new" in values


def test_two_checks_in_two_threads_are_two_checks_one_after_the_other():
    def check(seed):
        return sa.check_layer(Dropout(np.random), x_of(20, 30, seed=seed), rng=seed)

    def check_together(seed):
        together.wait()
        found[seed] = check(seed)

    alone = [check(seed) for seed in range(4)]
    state, found, together = global_state(), {}, threading.Barrier(4)
    threads = [threading.Thread(target=check_together, args=[seed]) for seed in range(4)]
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    finally:
        sys.setswitchinterval(interval)
    assert [found.get(seed) for seed in range(4)] == alone
    assert global_state() == state


# -------------------- what an earlier call leaves --------------------


class Plain:
    """y = x @ W; the variants below keep what they should not."""

    def __init__(self, W):
        self.W, self.dW = W, np.zeros_like(W)

    def forward(self, x):
        self.x = x
        return x @ self.W

    def backward(self, dout):
        self.dW = self.x.T @ dout
        return dout @ self.W.T


class Guarded(Plain):
    def forward(self, x):
        if not hasattr(self, "x"):
            self.x = x
        return x @ self.W


class Lazy:
    """Makes its parameters in the first forward pass, and keeps the first input."""

    def __init__(self, right):
        self.right = right

    def forward(self, x):
        if not hasattr(self, "W"):
            self.W = np.random.default_rng(0).normal(size=(x.shape[1], 2))
        if self.right or not hasattr(self, "x"):
            self.x = x
        return x @ self.W

    def backward(self, dout):
        self.dW = self.x.T @ dout
        return dout @ self.W.T


class Accumulating(Plain):
    def backward(self, dout):
        self.dW += self.x.T @ dout
        return dout @ self.W.T


class PartlyAccumulating(Plain):
    """Adds to the one gradient, and begins the other anew."""

    def __init__(self, W):
        super().__init__(W)
        self.b, self.db = np.zeros(W.shape[1]), np.zeros(W.shape[1])

    def forward(self, x):
        return super().forward(x) + self.b

    def backward(self, dout):
        self.db += dout.sum(axis=0)
        return super().backward(dout)


class AccumulatingBeyond(Accumulating):
    """Adds to what it passes on, too."""

    dx = 0.0

    def backward(self, dout):
        self.dx = self.dx + super().backward(dout)
        return self.dx


class FromThirdCall(Plain):
    calls = 0

    def backward(self, dout):
        self.calls += 1
        self.dW = self.x.T @ dout * (1 if self.calls < 3 else 2)
        return dout @ self.W.T


class OnlyOnce(Plain):
    """Cannot be run again before something else is done."""

    has_run = False

    def forward(self, x):
        if self.has_run:
            raise RuntimeError("update the weights first")
        self.has_run = True
        return super().forward(x)


class OnlyTwice(OnlyOnce):
    calls = 0

    def forward(self, x):
        self.calls += 1
        self.has_run = self.calls > 2
        return super().forward(x)


class WritesIntoInput(Plain):
    def forward(self, x):
        x -= x.mean(axis=0)
        self.x = x
        return x @ self.W

    def backward(self, dout):
        dx = super().backward(dout)
        return dx - dx.mean(axis=0)


class Resettable(Accumulating):
    def zero_grad(self):
        self.dW[...] = 0


class Fading(Plain):
    calls = 0

    def backward(self, dout):
        self.calls += 1
        self.dW = self.x.T @ dout / self.calls
        return dout @ self.W.T


class Recurrent(Plain):
    """Stateful by design: the next call begins where this one ended."""

    scale = 1.0

    def forward(self, x):
        self.x, self.now = x, self.scale
        self.scale *= 1.5
        return x @ self.W * self.now

    def backward(self, dout):
        self.dW = self.x.T @ dout * self.now
        return dout @ self.W.T * self.now


class ZeroedInForward(Plain):
    def forward(self, x):
        self.dW = np.zeros_like(self.W)
        return super().forward(x)

    def backward(self, dout):
        self.dW += self.x.T @ dout
        return dout @ self.W.T


class LabelLoss:
    """Keeps the first labels it was given."""

    def forward(self, x, t):
        self.x = x
        if not hasattr(self, "t"):
            self.t = t
        return float(np.sum(x[np.arange(len(t)), t] ** 2))

    def backward(self, dout=1.0):
        dx = np.zeros_like(self.x)
        at = np.arange(len(self.t)), self.t
        dx[at] = 2 * dout * self.x[at]
        return dx


STATES = [
    (lambda: Plain(x_of(3, 2)), None),
    (lambda: Guarded(x_of(3, 2)), "stale"),
    (lambda: Lazy(right=True), None),
    (lambda: Lazy(right=False), "stale"),
    (lambda: PartlyAccumulating(x_of(3, 2)), "accumulates"),
    (lambda: FromThirdCall(x_of(3, 2)), "third_call"),
    (lambda: Resettable(x_of(3, 2)), None),
    (lambda: Fading(x_of(3, 2)), "second_call"),
    (lambda: Recurrent(x_of(3, 2)), None),
    (lambda: ZeroedInForward(x_of(3, 2)), None),
]


@pytest.mark.parametrize(
    ("make", "said"),
    STATES,
    ids="plain guarded lazy lazy-guarded partly third resettable fading recurrent zeroed".split(),
)
def test_what_is_kept_from_an_earlier_call_is_found(make, said):
    report = sa.check_layer(make(), x_of(4, 3, seed=5))
    assert report.ok == (said is None), str(report)
    rules = {row.rule for row in report.rows}
    assert rules == ({None} if said is None else {None, "state"}), str(report)
    assert said is None or has(report, said)


class ReLU:
    """Takes its mask anew, or keeps the first one."""

    def __init__(self, right):
        self.right = right

    def forward(self, x):
        if self.right or not hasattr(self, "mask"):
            self.mask = x > 0
        return np.where(x > 0, x, 0)

    def backward(self, dout):
        return dout * self.mask


class Max(ReLU):
    def forward(self, x):
        self.shape = x.shape
        if self.right or not hasattr(self, "at"):
            self.at = x.argmax(axis=1)
        return x.max(axis=1)

    def backward(self, dout):
        dx = np.zeros(self.shape)
        dx[np.arange(len(dx)), self.at] = dout
        return dx


class Logit(ReLU):
    """Of a probability: other numbers must lie between 0 and 1 as well."""

    def forward(self, x):
        if self.right or not hasattr(self, "x"):
            self.x = x
        return np.log(x / (1 - x))

    def backward(self, dout):
        return dout / (self.x * (1 - self.x))


KEPT = [
    *((ReLU, x_of(*shape, seed=5)) for shape in ((4, 3), (6,), (1, 5), (1,), ())),
    (Max, x_of(4, 3)),
    (Max, np.random.default_rng(0).dirichlet(np.ones(4), 5)),
    (Logit, np.random.default_rng(0).uniform(0.9, 0.99, size=(3, 2))),
    (Logit, np.array([0.4])),
]


@pytest.mark.parametrize(("kind", "x"), KEPT)
def test_a_mask_of_an_earlier_forward_pass_is_found(kind, x):
    report = sa.check_layer(kind(right=False), x)
    assert not report.ok, str(report)
    assert has(report.faults[:1], "stale")
    report = sa.check_layer(kind(right=True), x)
    assert report.ok, str(report)


def test_a_list_of_gradients_that_grows_is_said_to_grow():
    class Growing(Plain):
        def __init__(self, W):
            self.params, self.grads = [W], []

        def forward(self, x):
            self.x = x
            return x @ self.params[0]

        def backward(self, dout):
            self.grads.append(self.x.T @ dout)
            return dout @ self.params[0].T

    report = sa.check_layer(Growing(x_of(3, 2)), x_of(4, 3))
    assert not report.ok
    assert has(report.faults[:1], "grows")
    assert not has(report, "stale")
    assert "self.grads.append(" in str(report)

    class Emptied(Growing):
        def zero_grad(self):
            self.grads.clear()

    assert sa.check_layer(Emptied(x_of(3, 2)), x_of(4, 3)).ok


def test_labels_that_are_kept_are_found():
    x, t = x_of(5, 3), np.array([0, 1, 2, 1, 0])
    report = sa.check_layer(LabelLoss(), x, t)
    assert not report.ok, str(report)
    assert report.rows[0].rule == "state"


def test_a_layer_that_has_been_used_is_checked_as_a_new_one_is():
    layer, x = Plain(x_of(3, 2)), x_of(4, 3, seed=5)
    new = sa.check_layer(layer, x)
    layer.forward(x_of(7, 3))
    layer.backward(x_of(7, 2))
    used = sa.check_layer(layer, x)
    assert used == new


# -------------------- side effects --------------------


def effect(change):
    class Effect(Plain):
        def forward(self, x):
            out = super().forward(x)
            self.out = out
            return out

        def backward(self, dout):
            dx = super().backward(dout)
            change(self, dout)
            return dx

    return Effect(x_of(3, 2))


def spoil(name):
    def change(layer, dout):
        array = dout if name == "dout" else getattr(layer, name)
        array *= 0.5

    return change


@pytest.mark.parametrize(
    ("name", "note"),
    [
        ("dout", found("writes_upstream")),
        ("out", found("writes_cache", names=["self.out"])),
        ("W", found("writes", who="backward", name="W")),
        ("x", found("writes", who="backward", name="x")),
    ],
)
def test_what_backward_writes_into_is_a_note_and_no_failure(name, note):
    report = sa.check_layer(effect(spoil(name)), x_of(4, 3, seed=5))
    assert report.ok, str(report)
    assert report.findings == (note,), str(report)


def test_the_same_notes_for_large_parameters():
    layer = effect(spoil("W"))
    layer.W, layer.dW = x_of(600, 400), np.zeros((600, 400))
    report = sa.check_layer(layer, x_of(2, 600))
    assert report.findings == (found("writes", who="backward", name="W"),)


@pytest.mark.parametrize("make", [dense, *(make for make, said in STATES if said is None)])
def test_gradients_and_attributes_may_be_written(make):
    report = sa.check_layer(make(), x_of(4, 3, seed=5))
    assert report.notes == (), str(report)


def test_forward_that_writes_into_its_input_is_noted():
    class InPlace:
        def forward(self, x):
            self.mask = x > 0
            x *= self.mask
            return x * 1.0

        def backward(self, dout):
            return dout * self.mask

    report = sa.check_layer(InPlace(), x_of(4, 3))
    assert report.ok, str(report)
    assert found("writes", who="forward", name="x") in report.findings


def test_a_pair_that_spoils_its_cache_is_noted():
    def forward(x, w):
        out = x * w
        return out, (x, w, out)

    def backward(dout, cache):
        x, w, out = cache
        out *= 0
        return dout * w, (dout * x).sum(axis=0)

    report = sa.check_backward(forward, backward, x_of(4, 3), x_of(3))
    assert report.ok, str(report)
    assert report.findings == (found("writes_cache", names=["cache[2]"]),)


# -------------------- a loss, and the upstream gradient that it need not take --------------------


class SquaredLoss:
    def forward(self, x, t):
        self.apart = x - t
        return np.sum(self.apart**2)

    def backward(self, dout=1):
        return 2 * self.apart * dout


class Deaf(SquaredLoss):
    def backward(self, dout=1):
        return 2 * self.apart


class Rated(SquaredLoss):
    def backward(self, learning_rate=0.1):
        return 2 * self.apart


@pytest.mark.parametrize(("kind", "says"), [(SquaredLoss, False), (Deaf, True), (Rated, False)])
def test_a_loss_that_does_not_use_its_upstream_gradient_says_so(kind, says):
    rng = np.random.default_rng(0)
    report = sa.check_layer(kind(), rng.normal(size=(3, 2)), rng.normal(size=(3, 2)))
    assert report.ok, str(report)
    assert has(report, "upstream_unused", name="dout") is says, str(report)


# -------------------- what is said of right layers is true --------------------


class Kept:
    """Keeps something else than its input under the input's name."""

    def __init__(self, keep):
        self.keep = keep

    def forward(self, x):
        self.x = self.keep(x)
        return x**2

    def backward(self, dout):
        return 2 * self.x.reshape(dout.shape) * dout


@pytest.mark.parametrize(
    "keep", [lambda x: x.reshape(len(x), -1), lambda x: x[:], lambda x: 1.0 * x, lambda x: x]
)
def test_a_view_of_an_input_is_not_written_into(keep):
    layer, x = Kept(keep), np.random.default_rng(0).normal(size=(4, 2, 3))
    assert sa.check_layer(layer, x).notes == ()
    layer.forward(x)  # what is kept from an earlier call is no parameter
    assert sa.check_layer(layer, x).notes == ()


class Adding(Plain):
    def backward(self, dout):
        self.dW += self.x.T @ dout
        return dout @ self.W.T


class Emptied(Adding):
    def start_batch(self):
        self.dW.fill(0)


def test_what_accumulates_as_a_whole_is_right_and_said():
    report = sa.check_layer(Accumulating(x_of(3, 2)), x_of(4, 3, seed=5))
    assert report.ok, str(report)
    assert has(report, "accumulating", names=["W"])


def test_what_accumulates_in_float32_is_rounded_at_each_call():
    class Table:
        def __init__(self):
            self.W = x_of(3, 4).astype(np.float32)
            self.dW = np.zeros_like(self.W)

        def forward(self, words):
            self.words = words
            return self.W[words]

        def backward(self, dout):
            np.add.at(self.dW, self.words, dout)

    report = sa.check_layer(Table(), np.array([0, 1, 1, 2, 2, 2, 0, 1]))
    assert report.ok, str(report)
    assert has(report, "accumulating")


def test_what_accumulates_in_the_gradient_of_the_input_too_is_wrong():
    report = sa.check_layer(AccumulatingBeyond(x_of(3, 2)), x_of(4, 3, seed=5))
    assert [row.rule for row in report.rows] == ["state", "state"], str(report)


@pytest.mark.parametrize("kind", [OnlyOnce, OnlyTwice])
def test_a_layer_that_cannot_run_again_says_so(kind):
    report = sa.check_layer(kind(x_of(3, 2)), x_of(4, 3, seed=5))
    assert [row.verdict for row in report.rows] == ["exact", "exact"]
    (note,) = [note for note in report.findings if note.kind == "no_other_call"]
    assert "update the weights first" in note.fields["error"]


def test_a_forward_pass_that_writes_into_its_input_is_run_on_what_was_given():
    report = sa.check_layer(WritesIntoInput(x_of(3, 2)), x_of(4, 3, seed=5))
    assert report.ok, str(report)
    assert report.findings == (found("writes", who="forward", name="x"),)


def test_a_gradient_that_is_not_written_for_a_zero_upstream_is_explained():
    class Guarded(Plain):
        def __init__(self, W):
            self.W = W

        def backward(self, dout):
            if dout.any():
                self.dW = 2 * self.x.T @ dout
            return dout @ self.W.T

    report = sa.check_layer(Guarded(x_of(3, 2)), x_of(4, 3, seed=5))
    assert [row.rule for row in report.rows] == [None, "factor"], str(report)


def test_a_method_is_a_reset_if_it_resets():
    rng = np.random.default_rng(0)
    W, x = rng.normal(size=(3, 2)), rng.normal(size=(4, 3))
    report = sa.check_layer(Emptied(W), x)
    assert report.ok, str(report)
    assert has(report, "accumulating", reset="start_batch")
    assert not has(sa.check_layer(Adding(W), x), "accumulating", reset="start_batch")


class Listing:
    def __init__(self, W, in_place):
        self.params, self.grads, self.in_place = [W], [np.zeros_like(W)], in_place

    def forward(self, x):
        self.x = x
        return x @ self.params[0]

    def backward(self, dout):
        if self.in_place:
            self.grads[0][...] = self.x.T @ dout
        else:
            self.grads[0] = self.x.T @ dout
        return dout @ self.params[0].T


class Twice:
    """Two layers with the same weights, each with a gradient of its own, as the book has them."""

    def __init__(self, W, in_place):
        self.layers = [Listing(W, in_place), Listing(W, in_place)]
        self.params = [layer.params[0] for layer in self.layers]
        self.grads = [layer.grads[0] for layer in self.layers]

    def forward(self, x):
        return self.layers[0].forward(x) + self.layers[1].forward(2 * x)

    def backward(self, dout):
        return self.layers[0].backward(dout) + 2 * self.layers[1].backward(dout)


@pytest.mark.parametrize(("kind", "in_place"), [(Listing, True), (Listing, False), (Twice, True)])
def test_new_arrays_in_a_list_of_gradients_are_noted(kind, in_place):
    rng = np.random.default_rng(0)
    report = sa.check_layer(kind(rng.normal(size=(3, 2)), in_place), rng.normal(size=(4, 3)))
    assert report.ok, str(report)
    assert has(report, "replaces_gradients", holder="grads") is not in_place


def test_a_float_of_which_a_gradient_is_returned_is_noted():
    def forward(x, k):
        return k * x, (x, k)

    report = sa.check_backward(forward, lambda g, c: (g * c[1], 7.0), np.arange(3.0), 0.5)
    assert has(report, "float_input", name="k"), str(report)


@pytest.mark.parametrize("seed", range(20))
def test_a_gradient_of_zero_is_not_called_wrong_for_the_noise_of_differences(seed):
    def always_zero(w):
        e = [math.exp(v) for v in w]
        return math.log(sum(v / sum(e) for v in e))

    w = np.random.default_rng(seed).normal(size=4)
    report = sa.check_gradient(always_zero, np.zeros_like, w)
    assert report.ok, str(report)


# -------------------- functions that keep something --------------------


def functions():
    """Return a loss, and a gradient that gives what it keeps beside."""
    x, kept = x_of(5, 3), {}

    def loss(params):
        return np.sum(np.tanh(x @ params["W"]) ** 2)

    def gradient(params):
        h = np.tanh(x @ params["W"])
        kept["calls"] = kept.get("calls", 0) + 1
        g = x.T @ (2 * h * (1 - h * h))
        kept["sum"] = kept.get("sum", 0) + g
        return {"W": g}, kept

    return loss, gradient


@pytest.mark.parametrize(
    ("kind", "change"),
    [
        ("second_call", lambda g, kept: g["W"] * (1 + (kept["calls"] > 1))),
        ("third_call", lambda g, kept: g["W"] * (1 + (kept["calls"] > 2))),
        ("stale", lambda g, kept: kept.setdefault("first", g["W"])),
    ],
)
def test_functions_that_change_from_call_to_call(kind, change):
    loss, gradient = functions()
    params = {"W": x_of(3, 2)}
    right = sa.check_gradient(loss, lambda p: gradient(p)[0], params)
    assert right.ok, str(right)
    assert not right.notes
    report = sa.check_gradient(loss, lambda p: {"W": change(*gradient(p))}, params)
    assert [row.rule for row in report.rows] == ["state"]
    assert has(report.faults[:1], kind)

    def forward(W):
        return np.array(loss({"W": W})), W

    def backward(dout, W):
        return dout * change(*gradient({"W": W}))

    assert [row.rule for row in sa.check_backward(forward, backward, x_of(3, 2)).rows] == ["state"]


def test_functions_that_accumulate_or_read_what_the_loss_left():
    loss, gradient = functions()
    params = {"W": x_of(3, 2)}
    report = sa.check_gradient(loss, lambda p: {"W": gradient(p)[1]["sum"]}, params)
    assert report.ok, str(report)
    assert has(report, "accumulating")
    left, x = {}, x_of(5, 3)

    def leaving(params):
        left["h"] = np.tanh(x @ params["W"])
        return np.sum(left["h"])

    leaving(params)
    report = sa.check_gradient(leaving, lambda p: {"W": x.T @ (1 - left["h"] ** 2)}, params)
    assert report.ok, str(report)
    assert not report.notes


# -------------------- marks of random streams --------------------


def normal(stream):
    return stream.standard_normal()


@pytest.mark.parametrize("drawn_before", [0, 1, 2])
@pytest.mark.parametrize(
    "draw",
    [
        normal,
        lambda stream: [normal(stream), normal(stream)],
        lambda stream: stream.random_sample(),
        lambda stream: stream.randint(2),
        lambda stream: stream.seed(0),
        lambda stream: stream.set_state(np.random.RandomState(1).get_state()),
        lambda stream: None,
    ],
)
def test_whatever_is_drawn_from_a_stream_is_drawn_again(draw, drawn_before):
    stream = np.random.RandomState(7)
    for _ in range(drawn_before):
        normal(stream)
    wanted = copy.deepcopy(stream)
    before = Snapshot({"stream": stream})
    for _ in range(2):
        draw(stream)
        before.restore()
    assert pickle.dumps(stream.get_state()) == pickle.dumps(wanted.get_state())
    assert normal(stream) == normal(wanted)


def test_a_stream_of_another_kind_is_put_back_too():
    stream = np.random.RandomState(np.random.PCG64(3))
    before, wanted = Snapshot({"stream": stream}), copy.deepcopy(stream).standard_normal(3)
    stream.standard_normal(3)
    before.restore()
    assert np.array_equal(stream.standard_normal(3), wanted)


def test_the_global_stream_is_left_as_it_was_though_a_layer_seeds_it_to_the_same_place():
    stream = GLOBAL_STREAMS[0]

    class Seeds:
        def forward(self, x):
            stream.seed(0)
            self.noise = stream.randn(1)
            return x + self.noise

        def backward(self, dout):
            return dout

    stream.seed(0)
    stream.randn(2)
    before = pickle.dumps(stream.get_state())
    assert sa.check_layer(Seeds(), np.ones((2, 3))).ok
    assert pickle.dumps(stream.get_state()) == before


# -------------------- gradients that overwrite each other in the order of a set ------------------

TICKS = itertools.count()


class Term:
    def __init__(self, factor):
        self.factor = factor

    def __hash__(self):  # each set of two is in the other order than the one before
        tick = next(TICKS)
        return tick % 2 ^ tick // 2 % 2


class Overwriting:
    def forward(self, x):
        self.x = x
        return 3 * x * x

    def backward(self, dout):
        terms = [Term(2), Term(4)]
        for term in set(terms):
            dx = term.factor * self.x * dout
        return dx


@pytest.mark.parametrize("seed", range(3))
def test_a_gradient_that_scatters_by_itself_is_not_rounding(seed):
    report = sa.check_layer(Overwriting(), np.random.default_rng(seed).normal(size=(2, 3)))
    (row,) = report.rows
    assert row.verdict == "wrong"
    assert [finding.kind for finding in row.findings] == ["unsteady"], str(report)


NAMESPACES = """
import builtins, json, sys, types
import numpy as np
import spiral_autograd as sa

class Tanh:
    def __init__(self, space):
        self.space = space

    def forward(self, x):
        self.y = np.tanh(x)
        return self.y

    def backward(self, dout):
        return 2 * dout * (1 - self.y**2)

before, modules = dict(vars(builtins)), len(sys.modules)
spaces = vars(builtins), vars(json), globals(), types.SimpleNamespace(**vars(json)), sys.modules
for space in spaces:
    report = sa.check_layer(Tanh(space), np.ones((2, 3)) / 3)
    assert [row.verdict for row in report.rows] == ["wrong"], str(report)
    assert vars(builtins) == before and len(sys.modules) >= modules
"""


def test_what_code_runs_in_is_left_alone():
    assert subprocess.run([sys.executable, "-W", "ignore", "-c", NAMESPACES]).returncode == 0


@pytest.mark.parametrize("more", [{}, {"table": np.ones(3) / 3}, {"table": [0.1, 0.2, 0.3]}])
def test_what_changes_at_the_third_call_is_found_whatever_else_the_layer_holds(more):
    class Wrong:
        calls = 0

        def __init__(self):
            self.W = x_of(4, 3)
            vars(self).update(more)

        def forward(self, x):
            self.x = x
            return x @ self.W + np.asarray(vars(self).get("table", 0.0))

        def backward(self, dout):
            self.calls += 1
            self.dW = self.x.T @ dout * (2 if self.calls > 2 else 1)
            return dout @ self.W.T

    row = sa.check_layer(Wrong(), x_of(5, 4)).rows[1]
    assert has(row, "third_call"), row
