"""Saved states: the same bit for bit, whole or not at all, and damaged files said to be so."""

import json
import os
import pickle
import subprocess
import sys
import zipfile

import numpy as np
import pytest
from effort import examples
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

import spiral_autograd as sa
from spiral_autograd import training
from spiral_autograd.pytree import Sharing, named_leaves

X, T = sa.load_data(rng=0)
STREAMS = {
    "seed": lambda: 5,
    "RandomState": lambda: np.random.RandomState(5),
    "PCG64": lambda: np.random.default_rng(5),
    "Philox": lambda: np.random.Generator(np.random.Philox(5)),
    "SFC64": lambda: np.random.Generator(np.random.SFC64(5)),
    "MT19937": lambda: np.random.Generator(np.random.MT19937(5)),
}
OPTIMIZERS = (sa.sgd, sa.momentum, sa.nesterov, sa.adagrad, sa.rmsprop, sa.adam)


def trained(start, epochs, optimizer=sa.sgd, **options):
    return sa.fit(start, X, T, optimizer=optimizer(0.1), max_epoch=epochs, **options)


def stream_state(stream):
    if isinstance(stream, np.random.RandomState):
        return stream.get_state(legacy=False)
    return stream.bit_generator.state


def same(a, b):
    """Tell whether two trees hold the same, bit for bit, in the same kinds of containers."""
    if isinstance(a, sa.TrainState):
        return isinstance(b, sa.TrainState) and same(vars(a), vars(b))
    if isinstance(a, np.random.RandomState | np.random.Generator):
        return type(a) is type(b) and same(stream_state(a), stream_state(b))
    if isinstance(a, Sharing):
        return a == b
    if isinstance(a, dict):
        return type(b) is dict and list(a) == list(b) and all(same(a[k], b[k]) for k in a)
    if isinstance(a, list | tuple):
        return type(a) is type(b) and len(a) == len(b) and all(map(same, a, b))
    if isinstance(a, np.ndarray | np.generic):
        return (
            type(a) is type(b)
            and a.dtype == b.dtype
            and np.shape(a) == np.shape(b)
            and (np.asarray(a).tobytes() == np.asarray(b).tobytes())
        )
    return type(a) is type(b) and repr(a) == repr(b)


@pytest.fixture
def path(tmp_path):
    return tmp_path / "run.npz"


@pytest.mark.parametrize("stream", STREAMS)
@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_a_state_that_was_saved_goes_on_as_it_would_have(path, optimizer, stream):
    state = trained(sa.init_params(2, 4, 3, rng=1), 2, optimizer, rng=STREAMS[stream]())
    sa.save(state, path)
    loaded = sa.load(path)
    for name in ("params", "optimizer_state", "order", "loss_list", "losses_since", "sharing"):
        assert same(getattr(loaded, name), getattr(state, name))
    assert same(trained(loaded, 2, optimizer).params, trained(state, 2, optimizer).params)


def test_a_state_in_the_middle_of_an_epoch(path):
    def stop(evaluation):
        if evaluation.epoch == 2:
            raise KeyboardInterrupt

    params = sa.init_params(2, 4, 3, rng=1)
    with pytest.raises(KeyboardInterrupt) as stopped:
        trained(params, 3, rng=7, eval_interval=7, on_eval=stop)
    sa.save(stopped.value.state, path)
    loaded = sa.load(path)
    assert loaded.iteration != 0
    finished = trained(loaded, 3 - loaded.epoch, eval_interval=7)
    assert same(finished.params, trained(params, 3, rng=7, eval_interval=7).params)


def test_arrays_that_are_one_are_one_again(path):
    W = np.random.RandomState(0).randn(2, 3)
    params = {"V": W, "W": W, "turned": W.T}
    state = sa.fit(
        params,
        X,
        loss=lambda p, x: np.mean(0.0) + ((x @ p["W"] @ p["turned"] @ p["V"]) ** 2).mean(),
        max_epoch=1,
    )
    sa.save(state, path)
    loaded = sa.load(path).params
    assert np.shares_memory(loaded["V"], loaded["W"])
    assert np.shares_memory(loaded["V"], loaded["turned"])
    assert same(loaded, state.params)


numbers = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5)
arrays = hnp.arrays(
    st.sampled_from(["f2", "f4", "f8", "i1", "u8", "c16", "?", "U3", ">f8"]),
    hnp.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=3),
)
trees = st.recursive(
    numbers | arrays | arrays.filter(np.size).map(lambda a: a.ravel()[0]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.lists(inner, max_size=3).map(tuple)
        | st.dictionaries(st.text(max_size=3) | st.integers() | st.booleans(), inner, max_size=3)
    ),
    max_leaves=8,
)
per_function = settings(
    max_examples=examples(60),
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)


@per_function
@given(trees)
def test_any_pytree_comes_back_bit_for_bit(path, tree):
    sa.save(tree, path)
    assert same(sa.load(path), tree)


@pytest.mark.parametrize(
    "leaf",
    [object(), {1, 2}, np.array([None]), lambda: 0, {(1, 2): 0.0}, np.random.PCG64(1)],
    ids=repr,
)
def test_what_cannot_be_saved_is_named_and_nothing_is_written(path, leaf):
    path.write_bytes(b"what was there")
    with pytest.raises(TypeError, match=r"'memory'"):
        sa.save({"params": np.ones(2), "memory": [leaf]}, path)
    assert path.read_bytes() == b"what was there"
    assert os.listdir(path.parent) == ["run.npz"]


def test_a_nest_that_contains_itself_is_refused(path):
    nest = []
    nest.append(nest)
    with pytest.raises(ValueError, match="contains itself"):
        sa.save(nest, path)


def test_a_disk_that_is_full_leaves_the_file_before(path, monkeypatch):
    sa.save({"a": 1}, path)
    before = path.read_bytes()

    def full(file, **arrays):
        file.write(b"half of it")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(np, "savez", full)
    with pytest.raises(OSError, match="No space"):
        sa.save({"a": 2}, path)
    assert path.read_bytes() == before
    assert os.listdir(path.parent) == ["run.npz"]


# -------------------- files that are not what they should be --------------------


STATE = sa.fit({"w": np.ones(2)}, X, loss=lambda p, x: (x @ p["w"]).mean(), max_epoch=1, rng=3)


@per_function
@given(st.data())
def test_a_damaged_file_is_said_to_be_so_or_holds_what_was_saved(path, data):
    sa.save(STATE, path)
    content = bytearray(path.read_bytes())
    if data.draw(st.booleans()):
        del content[data.draw(st.integers(0, len(content) - 1)) :]
    else:
        place = data.draw(st.integers(0, len(content) - 1) | st.integers(-2000, -1))
        content[place] ^= data.draw(st.integers(1, 255))
    path.write_bytes(content)
    try:
        loaded = sa.load(path)
    except ValueError as error:
        assert "run.npz" in str(error)  # noqa: PT017
    else:
        assert same(loaded, STATE)
    assert path.read_bytes() == content


def test_the_file_of_another_program_a_pickle_and_a_picture_are_refused(path):
    sa.save(np.ones(2), path)
    assert same(sa.load(path), np.ones(2))
    np.savez(path, W=np.ones(2))
    for content in (path.read_bytes(), pickle.dumps({"W": 1}), b"", b"\x89PNG\r\n\x1a\n"):
        path.write_bytes(content)
        with pytest.raises(ValueError, match="not made by save"):
            sa.load(path)
        assert path.read_bytes() == content
    with path.open("wb") as file:
        np.savez(file, structure=np.array([print], dtype=object))
    with pytest.raises(ValueError, match="not made by save"):
        sa.load(path)


def test_the_plain_arrays_of_numpy_are_named_with_what_reads_them(path):
    np.savez(path, W1=np.ones(2), b1=np.ones(2))
    with pytest.raises(ValueError, match=r"only the arrays W1, b1, which dict\(numpy.load\(path"):
        sa.load(path)


@pytest.mark.parametrize("folder", ["missing", "a/b"])
def test_a_folder_that_is_not_there_is_named_with_the_way_out(tmp_path, folder):
    path, report = tmp_path / folder / "x", sa.check_derivative(np.sin, np.cos, np.ones(2))
    for write in (lambda path: sa.save({"a": 1}, path), report.to_html):
        with pytest.raises(FileNotFoundError, match=r"there is no folder .*make it first") as error:
            write(path)
        assert error.value.filename == str(path)
        with pytest.raises(TypeError, match="path must be the path of a file, got a dict"):
            write({})


def test_a_newer_format_asks_for_a_newer_library(path):
    text = json.dumps({"format": "spiral_autograd", "version": 99, "tree": ["hologram", 7]})
    np.savez(path, structure=np.array(text))
    with pytest.raises(ValueError, match=r"newer spiral_autograd, in version 99.*upgrade"):
        sa.load(path)


def test_numpy_alone_reads_the_parameters(path):
    state = trained(sa.init_params(2, 4, 3, rng=1), 1, rng=0)
    sa.save(state, path)
    with zipfile.ZipFile(path) as archive:
        assert archive.testzip() is None
    with np.load(path, allow_pickle=False) as file:
        for name, leaf in named_leaves("['params']", state.params):
            np.testing.assert_array_equal(file[name], leaf)


# -------------------- checkpoints --------------------


def test_a_checkpoint_holds_the_state_that_fit_returns(path):
    state = trained(sa.init_params(2, 4, 3, rng=1), 2, rng=0, checkpoint=path)
    assert same(sa.load(path), state)


def test_a_function_is_given_the_first_and_the_last_state_and_those_between(monkeypatch):
    monkeypatch.setattr(training, "SAVE_EVERY", 0.0)
    states = []
    state = trained(sa.init_params(2, 4, 3, rng=1), 2, rng=0, checkpoint=states.append)
    assert states[-1] is state
    places = [s.epoch * 9 + s.iteration for s in states]
    assert places[0] == 0
    assert places[-2:] == [18, 18]
    assert len(places) > 3
    assert places[:-1] == sorted(set(places))
    assert all(same(trained(s, 2 - s.epoch).params, state.params) for s in states[1:-2])


def test_a_run_that_ends_too_early_is_saved_where_it_stands(path):
    def stop(evaluation):
        raise RuntimeError("enough")

    with pytest.raises(RuntimeError, match="enough") as stopped:
        trained(sa.init_params(2, 4, 3, rng=1), 2, eval_interval=4, on_eval=stop, checkpoint=path)
    loaded = sa.load(path)
    assert (loaded.epoch, loaded.iteration) == (0, 4)
    assert same(loaded.params, stopped.value.state.params)


@pytest.mark.parametrize("checkpoint", [5, object()])
def test_a_checkpoint_that_is_no_path_is_refused(checkpoint):
    with pytest.raises(TypeError, match="checkpoint must be the path of a file or a function"):
        trained(sa.init_params(2, 4, 3, rng=1), 1, checkpoint=checkpoint)


def test_a_checkpoint_that_cannot_be_written_is_found_before_any_update(tmp_path):
    with pytest.raises(OSError, match="nowhere"):
        trained(sa.init_params(2, 4, 3, rng=1), 1, checkpoint=tmp_path / "nowhere" / "run.npz")


KILLED_AGAIN_AND_AGAIN = """
import os, signal, sys, time, warnings
import numpy as np
import spiral_autograd as sa
from spiral_autograd import training

warnings.simplefilter("ignore")  # newer Pythons warn of fork beside the threads of NumPy's BLAS
training.SAVE_EVERY = 0.0
LAST = 401  # long enough for all the kills
path, times = sys.argv[1], int(sys.argv[2])
x, t = sa.load_data(rng=0)
first = sa.fit(sa.init_params(2, 4, 3, rng=1), x, t, max_epoch=1, rng=3)
whole = sa.fit(first, x, t, optimizer=sa.sgd(), max_epoch=LAST - 1)
sa.save(first, path)
moments, killed = np.random.RandomState(int(sys.argv[3])), 0
while (state := sa.load(path)).epoch < LAST:
    child = os.fork()
    if not child:
        sa.fit(state, x, t, max_epoch=LAST - state.epoch, checkpoint=path)
        os._exit(0)
    if killed < times:
        time.sleep(moments.uniform(0.0, 0.03))
        os.kill(child, signal.SIGKILL)
        killed += 1
    os.waitpid(child, 0)
assert all((state.params[k] == whole.params[k]).all() for k in whole.params)
assert state.loss_list == whole.loss_list
print(killed, os.listdir(os.path.dirname(path)) == [os.path.basename(path)])
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_run_that_is_killed_at_20_moments_ends_bit_identical(path):
    command = [sys.executable, "-c", KILLED_AGAIN_AND_AGAIN, path, "20", "0"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.split()[0] == "20"


# -------------------- what is sent to another process --------------------


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_what_fit_takes_and_returns_can_be_pickled(optimizer):
    state = trained(sa.init_params(2, 4, 3, rng=1), 1, optimizer, rng=0)
    rule, again = pickle.loads(pickle.dumps((optimizer(0.1), state)))
    further = sa.fit(again, X, T, optimizer=rule, max_epoch=1)
    assert same(further.params, trained(state, 1, optimizer).params)
