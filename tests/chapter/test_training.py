import copy
import itertools
import linecache
import pickle
import signal
import sys
import time
from dataclasses import FrozenInstanceError, replace
from types import SimpleNamespace

import autograd
import autograd.numpy as anp
import numpy as np
import pytest
from witness import assert_same_state, departure, frozen, position, random_params

import spiral_autograd as sa
from spiral_autograd import training
from spiral_autograd.derive import cached

LOG = """\
| epoch 1 | iter 10 / 10 | time 0[s] | loss 1.13
| epoch 2 | iter 10 / 10 | time 0[s] | loss 1.13
| epoch 3 | iter 10 / 10 | time 0[s] | loss 1.12
| epoch 4 | iter 10 / 10 | time 0[s] | loss 1.12
| epoch 5 | iter 10 / 10 | time 0[s] | loss 1.11
| epoch 296 | iter 10 / 10 | time 0[s] | loss 0.11
| epoch 297 | iter 10 / 10 | time 0[s] | loss 0.12
| epoch 298 | iter 10 / 10 | time 0[s] | loss 0.11
| epoch 299 | iter 10 / 10 | time 0[s] | loss 0.11
| epoch 300 | iter 10 / 10 | time 0[s] | loss 0.11""".splitlines()

SCORES = """\
7.07504140 -6.07991423 -1.05899190
7.07900866 -6.07605854 -1.06679914
7.08296037 -6.07223889 -1.07455478
7.08689655 -6.06845546 -1.08225869
7.09081721 -6.06470840 -1.08991070""".splitlines()

# -------------------- the figures --------------------


def test_the_books_log_with_its_time_column(trained):
    at_once = [replace(evaluation, elapsed=0.9) for evaluation in trained.evaluations]
    assert len(at_once) == 300
    assert [str(line) for line in at_once[:5] + at_once[-5:]] == LOG


def test_the_books_log_without_its_time_column(trained):
    epochs = [1, 2, 3, 4, 5, 296, 297, 298, 299, 300]
    assert [line.replace(" | time 0[s]", "") for line in LOG] == [
        f"| epoch {e} | iter 10 / 10 | loss {trained.handwritten.loss_list[e - 1]:.2f}"
        for e in epochs
    ]


@pytest.mark.parametrize("run", ["automatic", "handwritten"])
def test_the_scores_of_the_first_five_grid_points(trained, run):
    params = getattr(trained, run).params
    xs, ys, _ = sa.decision_grid(params, trained.x)
    points = np.stack([xs[:5], np.full(5, ys[0])], axis=1)
    rows = [" ".join(f"{score:.8f}" for score in row) for row in sa.predict(params, points)]
    assert rows == SCORES


def test_the_gradients_agree_on_all_3000_batches(trained):
    assert len(trained.departures) == 3000
    for name in ("W1", "b1", "W2", "b2", "loss"):
        assert max(batch[name] for batch in trained.departures) < 1e-12


def test_the_two_runs_end_at_the_same_parameters(trained):
    for name, array in trained.automatic.params.items():
        assert departure(trained.handwritten.params[name], array) < 1e-12
        assert departure(array, trained.params[name]) > 0.1  # they went somewhere


def test_the_evaluations_are_those_of_the_loss_list(trained):
    assert tuple(e.loss for e in trained.evaluations) == trained.automatic.loss_list
    assert [e.epoch for e in trained.evaluations] == list(range(1, 301))
    assert {(e.iteration, e.max_iters) for e in trained.evaluations} == {(10, 10)}
    np.testing.assert_equal(trained.evaluations[-1].params, trained.automatic.params)


# -------------------- a small run, for all that follows --------------------

RNG = np.random.RandomState(8)
X, T = frozen([RNG.standard_normal((23, 2)), RNG.randint(3, size=23)])
PARAMS = frozen(random_params(RNG))
SMALL = {
    "value_and_grad": sa.manual.value_and_grad,
    "optimizer": sa.sgd(0.5),
    "batch_size": 5,
    "eval_interval": 4,
    "rng": 3,
}


def fit(start=PARAMS, epochs=6, **options):
    options = SMALL | options
    if isinstance(start, sa.TrainState):
        del options["rng"]
    return sa.fit(start, X, T, max_epoch=epochs, **options)


def plain_loop(params, epochs, stream, lr=0.5, batch_size=5):
    """The book's loop, with all its losses."""
    x, t, losses = X, T, []
    for _ in range(epochs):
        order = stream.permutation(len(x))
        x, t = x[order], t[order]  # shuffled again, from where the last epoch left it
        for i in range(len(x) // batch_size):
            batch = slice(i * batch_size, (i + 1) * batch_size)
            loss, grads = sa.manual.value_and_grad(params, x[batch], t[batch])
            losses.append(loss)
            params = {name: params[name] - lr * grads[name] for name in params}
    return params, losses


@pytest.mark.parametrize("make", [np.random.RandomState, np.random.default_rng])
def test_fit_is_the_plain_loop_bit_for_bit(make):
    params, losses = plain_loop(PARAMS, 6, make(3))
    state = fit(rng=make(3), eval_interval=5)
    np.testing.assert_equal(state.params, params)
    assert (state.epoch, state.iteration, state.eval_interval) == (6, 0, 5)
    intervals = [losses[start : start + 5] for start in range(0, 20, 5)]  # 24 updates: 4 are left
    np.testing.assert_allclose(state.loss_list, np.mean(intervals, axis=1), rtol=1e-14)
    np.testing.assert_allclose(state.losses_since[0], sum(losses[20:]), rtol=1e-14)
    assert state.losses_since[1] == 4


def test_the_default_gradient_is_autograds_of_the_loss():
    state = fit(value_and_grad=None)
    expected = fit(value_and_grad=autograd.value_and_grad(sa.loss))
    for name, array in expected.params.items():
        assert departure(state.params[name], array) < 1e-12
    np.testing.assert_allclose(state.loss_list, expected.loss_list, rtol=1e-12)


def test_the_defaults():
    data = sa.load_data(0, samples_per_class=20)
    told = {"optimizer": sa.sgd(0.01), "max_epoch": 10, "batch_size": 32, "eval_interval": 20}
    assert_same_state(sa.fit(PARAMS, *data, rng=1), sa.fit(PARAMS, *data, rng=1, **told))


def test_one_hot_and_index_targets_train_alike():
    assert_same_state(sa.fit(PARAMS, X, np.eye(3)[T], max_epoch=6, **SMALL), fit())


def test_any_loss_on_any_pytree_of_any_data():
    def loss(params, x, weight, target):
        slope, (offset,) = params
        return anp.sum(weight * (slope * x + offset - target) ** 2) / len(x)

    x = np.linspace(-1, 1, 20)
    state = sa.fit(
        (np.array(0.0), [np.array(0.0)]),
        *(x, 1 + x**2, 3 * x - 2),
        loss=loss,
        optimizer=sa.sgd(0.2),
        max_epoch=300,
        batch_size=10,
        rng=0,
    )
    slope, (offset,) = state.params
    np.testing.assert_allclose([slope, offset], [3, -2], rtol=1e-12)


def test_float32_parameters_stay_float32():
    single = {name: array.astype(np.float32) for name, array in PARAMS.items()}
    for source in (None, sa.manual.value_and_grad):
        state = sa.fit(single, X.astype(np.float32), T, **SMALL | {"value_and_grad": source})
        assert {array.dtype for array in state.params.values()} == {np.dtype(np.float32)}


@pytest.mark.parametrize("options", [{}, {"optimizer": sa.adam(), "max_grad": 0.1}])
def test_the_order_of_the_keys_does_not_matter(options):
    for names in itertools.permutations(PARAMS):
        state = fit({name: PARAMS[name] for name in names}, epochs=1, **options)
        assert list(state.params) == list(names)
        for name, array in fit(epochs=1, **options).params.items():
            assert departure(state.params[name], array) < 1e-12


# -------------------- evaluations --------------------


def test_printing_on_eval_is_the_log(capsys, monkeypatch):
    ticks = itertools.chain([100.0], itertools.count(101.6, 30.0))
    monkeypatch.setattr(
        training,
        "time",
        SimpleNamespace(monotonic=lambda: next(ticks), perf_counter=time.perf_counter),
    )
    state = fit(epochs=2, on_eval=print)
    first, second = state.loss_list
    assert capsys.readouterr().out == (
        f"| epoch 1 | iter 4 / 4 | time 1[s] | loss {first:.2f}\n"
        f"| epoch 2 | iter 4 / 4 | time 31[s] | loss {second:.2f}\n"
    )


def test_intervals_run_on_over_the_epochs():
    seen = []
    state = fit(epochs=5, eval_interval=3, on_eval=seen.append)
    places = [(e.epoch, e.iteration) for e in seen]
    assert places == [(1, 3), (2, 2), (3, 1), (3, 4), (4, 3), (5, 2)]
    assert tuple(e.loss for e in seen) == state.loss_list


def test_an_evaluation_bears_the_parameters_behind_its_update():
    seen = []
    fit(epochs=3, on_eval=seen.append)
    for epochs, evaluation in enumerate(seen, start=1):
        np.testing.assert_equal(evaluation.params, fit(epochs=epochs).params)


def test_without_an_interval_nothing_is_evaluated():
    state = fit(eval_interval=None, on_eval=lambda evaluation: pytest.fail("evaluated"))
    assert state.loss_list == ()
    assert state.eval_interval is None
    np.testing.assert_equal(state.params, fit().params)


# -------------------- a state is a value, from which fit goes on --------------------


def test_100_epochs_then_200_are_300_bit_for_bit(trained):
    start, state = trained.params, None
    for epochs in (100, 200):
        state = sa.fit(
            state or start,
            trained.x,
            trained.t,
            value_and_grad=sa.manual.value_and_grad,
            optimizer=sa.sgd(1.0),
            max_epoch=epochs,
            batch_size=30,
            eval_interval=10,
            rng=None if state else trained.stream,
        )
    assert_same_state(state, trained.handwritten)


VARIATIONS = {
    "sgd": {},
    "automatic gradient": {"value_and_grad": autograd.value_and_grad(sa.loss)},
    "default gradient": {"value_and_grad": None},
    "momentum": {"optimizer": sa.momentum(0.1)},
    "nesterov": {"optimizer": sa.nesterov(0.1)},
    "adagrad": {"optimizer": sa.adagrad(0.1)},
    "rmsprop": {"optimizer": sa.rmsprop(0.01)},
    "adam": {"optimizer": sa.adam(0.01)},
    "remainder": {"batch_size": 7},
    "interval that does not divide": {"eval_interval": 7},
    "interval longer than the first part": {"eval_interval": 13},
    "no interval": {"eval_interval": None},
    "clipping": {"max_grad": 0.1},
    "Generator": {"rng": np.random.default_rng(5)},
}


@pytest.fixture(params=VARIATIONS)
def variation(request):
    return VARIATIONS[request.param]


def test_going_on_equals_one_run_bit_for_bit(variation):
    in_parts = fit(fit(fit(epochs=1, **variation), 2, **variation), 3, **variation)
    assert_same_state(in_parts, fit(epochs=6, **variation))


def test_a_run_from_the_same_start_is_the_same(variation):
    assert_same_state(fit(**variation), fit(**variation))


def test_a_state_can_be_pickled(variation):
    state = pickle.loads(pickle.dumps(fit(epochs=2, **variation)))
    assert_same_state(fit(state, 4, **variation), fit(epochs=6, **variation))


@pytest.mark.parametrize("make", [np.random.RandomState, np.random.default_rng])
def test_fit_changes_nothing_that_it_is_given(make):
    stream = make(3)
    state = fit(rng=stream, optimizer=sa.adam())  # parameters and data are read-only
    np.testing.assert_equal(position(stream), position(make(3)))
    kept = copy.deepcopy(state)
    fit(state, optimizer=sa.adam())
    assert_same_state(state, kept)
    sa.fit(state, X, T, **SMALL | {"optimizer": sa.adam(), "rng": stream})
    np.testing.assert_equal(position(stream), position(make(3)))
    assert_same_state(state, kept)


def test_a_state_cannot_be_changed():
    with pytest.raises(FrozenInstanceError):
        fit().epoch = 3


def test_a_stream_that_is_given_replaces_the_states():
    state = fit(epochs=2)
    anew = sa.fit(state, X, T, max_epoch=2, **SMALL | {"rng": 77})
    goes_on = fit(state, 2)
    assert np.any(anew.params["W1"] != goes_on.params["W1"])
    same = sa.fit(state, X, T, max_epoch=2, **SMALL | {"rng": state.rng})
    assert_same_state(same, goes_on)


def test_without_a_stream_each_run_shuffles_afresh():
    runs = [sa.fit(PARAMS, X, T, **SMALL | {"rng": None}).params["W1"] for _ in range(2)]
    assert np.any(runs[0] != runs[1])


@pytest.mark.parametrize("goes_on", [False, True])
def test_the_state_of_an_interrupted_run_has_a_stream_of_its_own(goes_on):
    start = fit(epochs=1) if goes_on else PARAMS
    stream = np.random.RandomState(3)
    options = SMALL | {"rng": stream}
    whole = sa.fit(start, X, T, max_epoch=2, **options)
    source = {"value_and_grad": interrupt_at(6, sa.manual.value_and_grad)}
    with pytest.raises(KeyboardInterrupt) as stop:
        sa.fit(start, X, T, max_epoch=2, **options | source)
    stream.randn(10)
    assert_same_state(finished(stop.value.state, whole.epoch), whole)


# -------------------- clipping and tied parameters --------------------


def test_max_grad_clips_the_global_norm():
    steps = []

    def source(params, x, t):
        steps.append(params)
        return sa.manual.value_and_grad(params, x, t)

    state = fit(value_and_grad=source, optimizer=sa.sgd(1.0), max_grad=0.01, epochs=2)
    path = [*steps, state.params]
    for before, after in itertools.pairwise(path):
        squares = [np.sum((after[name] - before[name]) ** 2) for name in before]
        np.testing.assert_allclose(np.sqrt(np.sum(squares)), 0.01, rtol=1e-3)
    assert_same_state(fit(max_grad=1e9), fit())


def tied_params():
    W = np.random.RandomState(1).standard_normal((2, 4))
    return {"W1": W, "b1": np.zeros(4), "W2": W.T, "b2": np.zeros(2)}


TIED_OPTIONS = SMALL | {"batch_size": 5, "rng": 3}
TWO_CLASSES = T % 2


def tied_fit(start, epochs=4, **options):
    options = TIED_OPTIONS | options
    if isinstance(start, sa.TrainState):
        del options["rng"]
    return sa.fit(start, X, TWO_CLASSES, max_epoch=epochs, **options)


@pytest.mark.parametrize(
    "rule", [sa.sgd(0.5), sa.momentum(0.1), sa.adam(0.01)], ids=lambda r: r.name
)
@pytest.mark.parametrize("max_grad", [None, 0.1])
def test_an_array_and_its_transpose_stay_one_parameter(rule, max_grad):
    def tied_loss(params, x, t):
        W, b1, b2 = params
        return sa.loss({"W1": W, "b1": b1, "W2": W.T, "b2": b2}, x, t)

    options = {"optimizer": rule, "max_grad": max_grad}
    start = tied_params()
    state = tied_fit(start, **options)
    np.testing.assert_array_equal(state.params["W1"], state.params["W2"].T)
    one = [start["W1"], start["b1"], start["b2"]]
    expected = tied_fit(one, value_and_grad=autograd.value_and_grad(tied_loss), **options)
    for name, array in zip(("W1", "b1", "b2"), expected.params, strict=True):
        assert departure(state.params[name], array) < 1e-12
    assert_same_state(tied_fit(tied_fit(start, 1, **options), 3, **options), state)


def test_the_same_array_twice_stays_one_parameter():
    def loss(params, x):
        return anp.sum((params[0] * x + params[1]) ** 2) / len(x)

    w = np.array([2.0])
    state = sa.fit([w, w], np.ones(4), loss=loss, optimizer=sa.sgd(0.01), batch_size=4, max_epoch=1)
    first, second = state.params
    np.testing.assert_array_equal(first, [2.0 - 0.01 * 2 * (2 * 4.0)])
    np.testing.assert_array_equal(first, second)


@pytest.mark.parametrize("rule", [sa.sgd(0.5), sa.momentum(0.1)], ids=lambda r: r.name)
@pytest.mark.parametrize("copied", [lambda s: pickle.loads(pickle.dumps(s)), copy.deepcopy])
def test_tied_parameters_stay_tied_in_a_state_that_was_saved(rule, copied):
    state = copied(tied_fit(tied_params(), 2, optimizer=rule))
    expected = tied_fit(tied_params(), 4, optimizer=rule)
    assert_same_state(tied_fit(state, 2, optimizer=rule), expected)


# -------------------- Ctrl-C loses nothing --------------------


def finished(state, epochs, **options):
    """Go on to the end as the documentation of fit says."""
    return fit(state, epochs - state.epoch, **options) if state.epoch < epochs else state


def interrupt_at(call, function):
    """The function, which raises KeyboardInterrupt at its call of that number."""
    calls = itertools.count(1)

    def interrupted(*arguments):
        if next(calls) == call:
            raise KeyboardInterrupt
        return function(*arguments)

    return interrupted


@pytest.mark.parametrize("call", [1, 2, 5, 6, 10, 24])
def test_a_ctrl_c_in_the_gradient_source(call, variation):
    options = variation | {"value_and_grad": sa.manual.value_and_grad}
    whole = fit(epochs=8, **options)
    interrupted = options | {"value_and_grad": interrupt_at(call, sa.manual.value_and_grad)}
    with pytest.raises(KeyboardInterrupt) as stop:
        fit(epochs=8, **interrupted)
    assert_same_state(finished(stop.value.state, 8, **options), whole)


@pytest.mark.parametrize("call", [1, 2, 4, 6])
def test_a_ctrl_c_in_on_eval(call):
    with pytest.raises(KeyboardInterrupt) as stop:
        fit(on_eval=interrupt_at(call, lambda evaluation: None))
    state = stop.value.state
    assert len(state.loss_list) == call  # the update had happened, and its loss is kept
    assert_same_state(finished(state, 6), fit())


def test_the_documented_recipe_also_works_where_ctrl_c_came_behind_the_last_update():
    with pytest.raises(KeyboardInterrupt) as stop:
        fit(on_eval=interrupt_at(6, lambda evaluation: None))
    state = stop.value.state
    state = fit(state, 6 - state.epoch)
    assert_same_state(state, fit())


def test_a_ctrl_c_at_any_call_of_the_loss(monkeypatch):
    predict = sa.predict
    source = {"value_and_grad": None}
    whole = fit(epochs=2, **source)
    lost = []
    for call in itertools.count(1):
        try:
            monkeypatch.setattr("spiral_autograd.network.predict", interrupt_at(call, predict))
            cached._cache.clear()
            cached._known.clear()
            fit(epochs=2, **source)
            break
        except KeyboardInterrupt as stop:
            monkeypatch.undo()
            if hasattr(stop, "state"):
                assert_same_state(finished(stop.state, 2, **source), whole)
            else:
                lost.append(call)
    assert call > 1
    assert lost == []


def test_a_ctrl_c_in_a_run_that_goes_on_in_the_middle_of_an_epoch():
    state, stops, left = PARAMS, 0, 6
    while left:
        try:
            state = fit(state, left, value_and_grad=interrupt_at(4, sa.manual.value_and_grad))
        except KeyboardInterrupt as stop:
            state, stops = stop.state, stops + 1
        left = 6 - state.epoch
    assert stops == 7  # at every third of the 24 updates but the last
    assert_same_state(state, fit())


def test_any_other_error_bears_the_state_too():
    def broken(params, x, t):
        if next(calls) == 10:
            raise OSError("disk full")
        return sa.manual.value_and_grad(params, x, t)

    calls = itertools.count(1)
    with pytest.raises(OSError, match="disk full") as stop:
        fit(value_and_grad=broken)
    assert_same_state(finished(stop.value.state, 6), fit())


def interrupted_at_line(moment, **options):
    """Run fit, with a KeyboardInterrupt at the line of that number that the loop executes."""
    lines = itertools.count()
    begun = False

    def trace(frame, event, argument):
        nonlocal begun
        if frame.f_code.co_filename != training.__file__:
            return None
        begun = begun or frame.f_code is training._Loop.run.__code__
        line = linecache.getline(training.__file__, frame.f_lineno).strip()
        if begun and event == "line" and line != "try:" and next(lines) == moment:
            raise KeyboardInterrupt(line)
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        return fit(epochs=2, **options)
    finally:
        sys.settrace(before)


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"optimizer": sa.momentum(0.1), "eval_interval": 3},
        {"optimizer": sa.momentum(0.1), "value_and_grad": None},  # four updates in buffers
    ],
)
def test_a_ctrl_c_at_any_line_of_the_loop(options):
    whole = fit(epochs=2, **options)
    lost, updates = [], set()
    for moment in itertools.count():
        try:
            state = interrupted_at_line(moment, **options)
            break
        except KeyboardInterrupt as stop:
            if hasattr(stop, "state"):
                updates.add(4 * stop.state.epoch + stop.state.iteration)
                assert_same_state(finished(stop.state, 2, **options), whole)
            else:
                lost.append(str(stop))
    assert moment > 100
    assert_same_state(state, whole)
    assert lost == []
    assert updates == set(range(9))  # the last whole state: not one update is made anew


@pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="needs POSIX timers")
def test_a_run_that_real_signals_interrupt_again_and_again():
    def stop_the_loop(number, frame):
        entering = frame.f_lineno == frame.f_code.co_firstlineno
        while frame is not None and frame.f_code is not training._Loop.run.__code__:
            frame = frame.f_back
        if frame is None or entering:  # not in the loop: a little later
            signal.setitimer(signal.ITIMER_REAL, 0.0005)
        else:
            raise KeyboardInterrupt

    whole = fit(epochs=150)
    state, stops, left = PARAMS, 0, 150
    before = signal.signal(signal.SIGALRM, stop_the_loop)
    try:
        while left:
            try:
                signal.setitimer(signal.ITIMER_REAL, 0.00171 * (stops + 1))  # longer and longer
                state = fit(state, left)
            except KeyboardInterrupt as stop:
                state, stops = stop.state, stops + 1
            left = 150 - state.epoch
    finally:
        signal.signal(signal.SIGALRM, signal.SIG_IGN)  # first: the handler may set the timer again
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    assert stops >= 3
    assert_same_state(state, whole)


# -------------------- a loss that turns NaN --------------------


def logarithm(params, x):
    """Falls without end; with a rate of 1 its seventh loss from 3 is the first NaN."""
    return anp.sum(x) / len(x) * anp.log(params["w"])


FALLING = {"loss": logarithm, "batch_size": 5, "max_epoch": 5, "eval_interval": 2, "rng": 0}


def test_a_nan_stops_the_run_and_says_where():
    w, seen = 3.0, [3.0]
    for _ in range(6):
        w -= 1 / w
        seen.append(w)
    assert [value > 0 for value in seen] == [True] * 6 + [False]

    with (
        np.errstate(invalid="ignore"),
        pytest.raises(sa.NonFiniteLossError, match=r"loss is nan at epoch 2, iteration 3") as stop,
    ):
        sa.fit({"w": np.array(3.0)}, np.ones(20), optimizer=sa.sgd(1.0), **FALLING)
    state = stop.value.state
    np.testing.assert_allclose(state.params["w"], seen[5], rtol=1e-14)  # its loss was the last good
    assert (state.epoch, state.iteration) == (1, 1)
    assert len(state.loss_list) == 2
    assert np.isfinite(logarithm(state.params, np.ones(5)))


def test_training_goes_on_from_the_last_good_state_with_a_smaller_rate():
    with np.errstate(invalid="ignore"), pytest.raises(sa.NonFiniteLossError) as stop:
        sa.fit({"w": np.array(3.0)}, np.ones(20), optimizer=sa.sgd(1.0), **FALLING)
    good = stop.value.state
    options = FALLING | {"max_epoch": 1, "rng": None}
    state = sa.fit(good, np.ones(20), optimizer=sa.sgd(0.01), **options)
    assert (state.epoch, state.iteration) == (2, 0)
    expected = float(good.params["w"])
    for _ in range(3):
        expected -= 0.01 / expected
    np.testing.assert_allclose(state.params["w"], expected, rtol=1e-14)
    assert len(state.loss_list) == 4  # 8 losses, an entry for every two


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_no_value_but_a_finite_one_goes_on(value):
    def source(params, x, t):
        loss, grads = sa.manual.value_and_grad(params, x, t)
        return (value if next(calls) == 10 else loss), grads

    calls = itertools.count(1)
    message = rf"loss is {value} at epoch 3, iteration 2"
    with pytest.raises(sa.NonFiniteLossError, match=message) as stop:
        fit(value_and_grad=source)
    assert isinstance(stop.value, FloatingPointError)
    assert_same_state(finished(stop.value.state, 6), fit())


def test_a_last_update_that_is_not_finite_is_not_handed_out():
    def source(params, x, t):
        loss, grads = sa.manual.value_and_grad(params, x, t)
        return loss, grads | {"b2": grads["b2"] * (np.nan if next(calls) == 24 else 1)}

    calls = itertools.count(1)
    message = "last update is not finite at epoch 6, iteration 4"
    with pytest.raises(sa.NonFiniteLossError, match=message) as stop:
        fit(value_and_grad=source)
    state = stop.value.state
    assert all(np.isfinite(array).all() for array in state.params.values())
    assert_same_state(finished(state, 6), fit())


# -------------------- bad input, before any work --------------------


def unused(*arguments):
    pytest.fail("work was begun")


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"max_epoch": 0}, ValueError, "max_epoch must be a whole number of at least 1"),
        ({"max_epoch": 1.5}, TypeError, "max_epoch must be a whole number"),
        ({"batch_size": 0}, ValueError, "batch_size must be a whole number of at least 1"),
        ({"batch_size": -5}, ValueError, "batch_size must be a whole number of at least 1"),
        ({"batch_size": 24}, ValueError, "batch_size must be at most .* 23, got 24"),
        ({"eval_interval": 0}, ValueError, "eval_interval must be a whole number of at least 1"),
        ({"eval_interval": 2.0}, TypeError, "eval_interval must be a whole number"),
        ({"max_grad": 0}, ValueError, "max_grad must be a finite number above 0"),
        ({"max_grad": -1.0}, ValueError, "max_grad must be a finite number above 0"),
        ({"max_grad": np.nan}, ValueError, "max_grad must be a finite number above 0"),
        ({"optimizer": 0.1}, TypeError, "optimizer must be an Optimizer"),
        ({"rng": -1}, ValueError, "rng must be a seed"),
        ({"rng": "3"}, TypeError, "rng must be an int seed"),
    ],
)
def test_bad_options_are_named_before_any_work(options, error, message):
    with pytest.raises(error, match=message):
        sa.fit(PARAMS, X, T, **SMALL | {"value_and_grad": unused} | options)


@pytest.mark.parametrize(
    ("data", "error", "message"),
    [
        ((), TypeError, "fit needs data after params"),
        ((X, T[:-1]), ValueError, "x and t must have one entry for each example, got 23 and 22"),
        ((X, T, T[:2]), ValueError, r"x and data\[2\] must have one entry for each example"),
        ((X, 3), ValueError, "t must have one entry for each example, got a scalar"),
        ((X[:0], T[:0]), ValueError, "x is empty"),
        ((np.where(X > 2, np.nan, X), T), ValueError, "x must be finite"),
        ((np.where(X > 2, np.inf, X), T), ValueError, "x must be finite"),
        ((X, np.where(T > 1, np.nan, T)), ValueError, "t must be finite"),
        ((X.astype(str), T), TypeError, "x must hold real numbers"),
    ],
)
def test_bad_data_is_named_before_any_work(data, error, message):
    with pytest.raises(error, match=message):
        sa.fit(PARAMS, *data, **SMALL | {"value_and_grad": unused})


@pytest.mark.filterwarnings("ignore::spiral_autograd.DerivationWarning")  # for the list of sizes
@pytest.mark.parametrize("only", [None, 150])
def test_large_data_is_looked_at_in_small_pieces_where_the_loss_takes_them(only):
    sizes = []

    def loss(w, x):
        sizes.append(len(x))
        assert only in (None, len(x))
        return anp.mean((x - w) ** 2)

    x = np.random.default_rng(0).standard_normal((600, 200))
    sa.fit(np.zeros(200), x, loss=loss, max_epoch=1, batch_size=150, rng=0)
    assert sizes[:6] == [100] * 6 if only is None else sizes[:5] == [100, *[150] * 4]


@pytest.mark.parametrize(
    ("x", "t", "message"),
    [
        (np.ones((23, 3)), T, r"x and params\['W1'\] do not fit"),
        (X, np.where(np.arange(23) == 22, 3, T), "t must hold class indices from 0 to 2"),
        (X, np.where(np.arange(23) == 22, -1, T), "t must hold class indices from 0 to 2"),
        (X, np.eye(4)[T], r"t must be one-hot with the shape"),
        (X, np.eye(3)[T] * (np.arange(23) < 22)[:, None], "t must be one-hot, a single 1"),
    ],
)
def test_data_that_the_loss_refuses_is_refused_before_any_update(x, t, message):
    rule = sa.Optimizer("none", lambda params: (), unused)
    with pytest.raises(ValueError, match=message):
        sa.fit(PARAMS, x, t, **SMALL | {"value_and_grad": None, "optimizer": rule})


@pytest.mark.parametrize(
    ("params", "error", "message"),
    [
        (None, TypeError, "params must be a floating-point array"),
        ({}, ValueError, "params is empty"),
        ([], ValueError, "params is empty"),
        ("abc", TypeError, "params must be a floating-point array"),
        (PARAMS | {"b1": [0, 0]}, TypeError, "params must be"),
        (PARAMS | {"b1": np.zeros(5, int)}, TypeError, r"params\['b1'\] must be a floating-point"),
        (PARAMS | {"b1": np.full(5, np.nan)}, ValueError, r"params\['b1'\] must be finite"),
        (
            [PARAMS, (np.array([0, np.inf]),)],
            ValueError,
            r"params\[1\]\[0\] must be finite",
        ),
    ],
)
def test_bad_params_are_named_before_any_work(params, error, message):
    with pytest.raises(error, match=message):
        fit(params, value_and_grad=unused)


def test_params_of_another_structure_are_named_before_any_work():
    with pytest.raises(ValueError, match="params must be a dict with the arrays W1, b1, W2 and b2"):
        fit({"W": np.ones((2, 3))}, value_and_grad=None)


@pytest.mark.parametrize(
    "loss", [lambda params, x, t: params["b2"], lambda params, x, t: np.sum(x, axis=1)]
)
def test_a_loss_that_is_no_scalar_is_refused(loss):
    with pytest.raises(TypeError, match="loss must return a scalar"):
        fit(value_and_grad=None, loss=loss)


@pytest.mark.parametrize("value", [None, "1.0", 1j])
def test_a_loss_that_is_no_real_number_is_refused(value):
    with pytest.raises(TypeError, match="loss must"):
        fit(value_and_grad=None, loss=lambda params, x, t: value)


@pytest.mark.parametrize("shape", [(1,), (3,), (1, 1)])
def test_a_gradient_source_whose_loss_is_no_scalar_is_refused(shape):
    with pytest.raises(TypeError, match=r"value_and_grad|loss must"):
        fit(value_and_grad=lambda params, x, t: (np.ones(shape), params))


def test_a_loss_that_is_nan_from_the_start_is_refused():
    with pytest.raises(ValueError, match="the loss is nan for the parameters given"):
        fit(value_and_grad=None, loss=lambda params, x, t: anp.sum(params["b2"]) * np.nan)


@pytest.mark.parametrize(
    ("grads", "message"),
    [
        ({"W1": PARAMS["W1"]}, r"the gradient must have the structure of params: \['b1'\] is miss"),
        (PARAMS | {"c": np.ones(1)}, r"the structure of params: \['c'\] is too much"),
        (PARAMS | {"b1": np.ones(4)}, r"gradient\['b1'\] must have the shape of params\['b1'\]"),
        (list(PARAMS.values()), "the gradient must have the structure of params"),
    ],
)
def test_a_gradient_of_another_structure_is_refused(grads, message):
    with pytest.raises(ValueError, match=message):
        fit(value_and_grad=lambda params, x, t: (1.0, grads))


def test_a_state_of_another_optimizer_is_refused():
    with pytest.raises(ValueError, match=r"optimizer must be sgd, .* got adam"):
        fit(fit(), optimizer=sa.adam())


def test_a_state_of_other_data_is_refused():
    with pytest.raises(ValueError, match="trained on 23 examples, got 20"):
        sa.fit(fit(), X[:20], T[:20], **SMALL)


def test_a_batch_size_that_does_not_fit_an_epoch_begun_is_refused():
    with pytest.raises(KeyboardInterrupt) as stop:
        fit(value_and_grad=interrupt_at(4, sa.manual.value_and_grad))
    with pytest.raises(ValueError, match="batch_size must be the one"):
        fit(stop.value.state, batch_size=10)


# -------------------- updates in the buffers of the program --------------------


@pytest.mark.parametrize(
    "rule", [sa.sgd, sa.momentum, sa.nesterov, sa.adagrad, sa.rmsprop, sa.adam], ids=str
)
@pytest.mark.parametrize("options", [{}, {"max_grad": 0.1}, {"eval_interval": None}], ids=str)
def test_updates_in_buffers_are_those_made_one_by_one(rule, options, monkeypatch):
    options = {"optimizer": rule(0.1), "value_and_grad": None, "epochs": 3} | options
    quick = fit(**options)
    monkeypatch.setattr(training, "QUICK", 0.0)
    slow = fit(**options)
    assert quick.loss_list == slow.loss_list
    assert quick.losses_since == slow.losses_since
    for name, array in quick.params.items():
        np.testing.assert_array_equal(array, slow.params[name])


def test_a_loss_that_reaches_what_may_change_is_trained_in_buffers_too(monkeypatch):
    settings = SimpleNamespace(decay=0.1)

    def loss(params, x, t):
        return sa.loss(params, x, t) + settings.decay * anp.sum(params["W1"] ** 2)

    stretches = []
    advance = training._Loop.advance

    def noted(loop, first, end):
        stretches.append(end - first)
        advance(loop, first, end)

    monkeypatch.setattr(training._Loop, "advance", noted)
    quick = fit(value_and_grad=None, loss=loss)
    assert stretches == 6 * [4]
    monkeypatch.setattr(training, "QUICK", 0.0)
    assert_same_state(quick, fit(value_and_grad=None, loss=loss))
    assert stretches == 7 * [4] + 20 * [1]


def test_a_rule_that_may_keep_what_it_is_given_is_not_given_buffers():
    given = []

    def update(params, grads, state):
        given.append((params, grads, params.copy(), grads.copy()))
        return params - 0.1 * grads, state

    fit(optimizer=sa.Optimizer("kept", lambda params: (), update), value_and_grad=None, epochs=2)
    for params, grads, *same in given:
        np.testing.assert_array_equal([params, grads], same)


def test_a_nan_of_on_eval_is_no_loss_of_the_run():
    def evaluated(evaluation):
        seen.append(evaluation)
        raise sa.NonFiniteLossError("of another run")

    seen = []
    with pytest.raises(sa.NonFiniteLossError, match="of another run") as stop:
        fit(value_and_grad=None, on_eval=evaluated)
    assert len(seen) == len(stop.value.state.loss_list) == 1
    assert_same_state(finished(stop.value.state, 6, value_and_grad=None), fit(value_and_grad=None))
