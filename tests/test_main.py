import contextlib
import itertools
import os
import subprocess
import sys

import autograd
import numpy as np
import pytest
from matplotlib.image import imread
from witness import departure

import spiral_autograd as sa
from spiral_autograd import manual, plotting
from spiral_autograd.__main__ import main

PICTURES = ["data.png", "decision_boundary.png", "loss.png"]


@pytest.fixture
def run(tmp_path, capsys, monkeypatch):
    """Run the command line in an empty folder; the status, and the lines of both outputs."""
    monkeypatch.chdir(tmp_path)

    def run(*arguments):
        try:
            status = main(list(arguments))
        except SystemExit as stop:
            status = stop.code
        out, err = capsys.readouterr()
        return status, out.splitlines(), err.splitlines()

    return run


@pytest.fixture
def coarse_grid(monkeypatch):
    """The pictures with a coarse grid: quick."""
    fine = plotting.decision_grid
    monkeypatch.setattr(plotting, "decision_grid", lambda params, x, h: fine(params, x, 0.1))


def saved_params(path):
    with np.load(path) as saved:
        return dict(saved)


def assert_same_params(params, expected):
    assert list(params) == list(expected)
    for name, array in expected.items():
        assert departure(params[name], array) < 1e-12


def trained(epochs, hidden=10, seed=1984, lr=1.0, batch_size=30, **options):
    stream = np.random.RandomState(seed)
    x, t = sa.load_data(stream)
    params = sa.init_params(2, hidden, 3, rng=stream)
    return sa.fit(
        params,
        x,
        t,
        optimizer=sa.sgd(lr),
        max_epoch=epochs,
        batch_size=batch_size,
        eval_interval=10,
        rng=stream,
        **options,
    )


# -------------------- what it prints and saves --------------------


@pytest.mark.usefixtures("coarse_grid")
def test_the_main_job_prints_the_log_and_the_comparison_and_saves(run, tmp_path):
    status, out, err = run("--epochs", "3", "--output", "here/and/there")
    assert (status, err) == (0, [])
    assert [line.split(" | time")[0] for line in out[:3]] == [
        f"| epoch {epoch} | iter 10 / 10" for epoch in (1, 2, 3)
    ]
    assert [line.split("| ")[-1] for line in out[:3]] == ["loss 1.13", "loss 1.13", "loss 1.12"]
    text = "\n".join(out)
    assert "Handwritten against automatic gradients, on each of 30 batches" in text
    assert "Parameters after training by each of them" in text
    assert out[-1] == "The gradients agree to 1e-10."
    folder = tmp_path / "here" / "and" / "there"
    assert sorted(os.listdir(folder)) == [*PICTURES, "parameters.npz"]  # and no part of a file
    for name in [*PICTURES, "parameters.npz"]:
        assert f"here/and/there/{name}" in out[-2]
    for name in PICTURES:
        assert imread(folder / name).std() > 0.05  # something is drawn


def test_the_table_has_a_row_for_each_parameter(run):
    _, out, _ = run("--epochs", "2", "--no-plots")
    for name, shape in {"W1": "(2, 10)", "b1": "(10,)", "W2": "(10, 3)", "b2": "(3,)"}.items():
        rows = [line for line in out if line.startswith(f"{name} ")]
        assert len(rows) == 2
        for row in rows:
            absolute, relative = row.split(shape)[1].split()
            assert 0 <= float(absolute) < 1e-12
            assert 0 <= float(relative) < 1e-10


def test_the_saved_parameters_are_those_of_the_automatic_run(run, tmp_path):
    run("--epochs", "2", "--no-plots")
    saved = saved_params(tmp_path / "spiral-output" / "parameters.npz")
    assert_same_params(saved, trained(2).params)
    assert sa.predict(saved, np.zeros((5, 2))).shape == (5, 3)  # they can be used as they are


def test_without_plots_only_the_parameters_are_saved(run, tmp_path):
    status, _, _ = run("--epochs", "1", "--no-plots", "--output", "out")
    assert status == 0
    assert os.listdir(tmp_path / "out") == ["parameters.npz"]


def test_the_options_are_those_of_the_training(run, tmp_path):
    arguments = "--epochs 2 --hidden-size 4 --seed 7 --learning-rate 0.5 --batch-size 25"
    status, out, _ = run(*arguments.split(), "--max-grad", "0.1", "--no-plots", "--output", "out")
    assert status == 0
    expected = trained(2, hidden=4, seed=7, lr=0.5, batch_size=25, max_grad=0.1).params
    assert_same_params(saved_params(tmp_path / "out" / "parameters.npz"), expected)
    assert "Handwritten against automatic gradients, on each of 24 batches" in out


def test_a_second_run_replaces_the_first_ones_files(run, tmp_path):
    run("--epochs", "1", "--no-plots")
    run("--epochs", "2", "--no-plots")
    path = tmp_path / "spiral-output" / "parameters.npz"
    assert_same_params(saved_params(path), trained(2).params)


def test_a_file_is_replaced_whole_or_not_at_all(run, tmp_path, monkeypatch):
    def disk_full(path, **arrays):
        path.write_text("half of")
        raise OSError("disk full")

    run("--epochs", "1", "--no-plots")
    monkeypatch.setattr(np, "savez", disk_full)
    with contextlib.suppress(OSError):
        assert run("--epochs", "2", "--no-plots")[0] != 0
    folder = tmp_path / "spiral-output"
    assert os.listdir(folder) == ["parameters.npz"]
    assert_same_params(saved_params(folder / "parameters.npz"), trained(1).params)


def test_help_explains_every_option(run):
    status, out, err = run("--help")
    assert (status, err) == (0, [])
    text = " ".join(" ".join(out).split())
    for words in (
        "--epochs N passes over the data (default: 300)",
        "--batch-size N examples to an update (default: 30)",
        "--hidden-size N units of the hidden layer (default: 10)",
        "--learning-rate R step size of SGD (default: 1.0)",
        "--seed S of the data, weights and shuffles (default: 1984)",
        "--max-grad R clip gradients to this global L2 norm",
        "--output DIR where to save (default: spiral-output)",
        "--no-plots save the parameters only",
        "all gradients agree to 1e-10",
    ):
        assert words in text


# -------------------- when the gradients do not agree --------------------


def test_wrong_handwritten_gradients_give_status_1(run, monkeypatch):
    right = manual.sigmoid_backward
    monkeypatch.setattr(manual, "sigmoid_backward", lambda g, r: (1 + 1e-8) * right(g, r))
    status, out, err = run("--epochs", "1", "--no-plots")
    assert (status, err) == (1, [])
    assert out[-1] == "The gradients DO NOT agree to 1e-10."
    relative = {line[:2]: float(line.split()[-1]) for line in out[4:8]}
    assert {name: f"{value:.1e}" for name, value in relative.items() if value > 1e-12} == {
        "W1": "1.0e-08",
        "b1": "1.0e-08",
    }


def test_handwritten_gradients_that_are_nan_give_status_1(run, monkeypatch):
    monkeypatch.setattr(manual, "sigmoid_backward", lambda g, r: np.nan * g)
    status, out, _ = run("--epochs", "1", "--no-plots")
    assert status == 1
    assert not any("gradients agree" in line for line in out)


def test_a_loss_that_is_not_finite_is_one_line_and_status_1(run):
    with np.errstate(all="ignore"):
        status, _, err = run("--epochs", "5", "--learning-rate", "1e307", "--no-plots")
    assert status == 1
    (line,) = err
    assert "the loss is inf at epoch 1, iteration 3" in line


def test_a_large_learning_rate_is_no_disagreement(run):
    """Where every unit is saturated the gradients are nothing but rounding."""
    status, out, _ = run("--epochs", "20", "--learning-rate", "1e5", "--no-plots")
    assert (status, out[-1]) == (0, "The gradients agree to 1e-10.")


# -------------------- bad options --------------------


@pytest.mark.parametrize("option", ["--epochs", "--batch-size", "--hidden-size"])
@pytest.mark.parametrize("value", ["0", "-1", "2.5", "many", "", "nan"])
def test_a_bad_count_is_one_line_and_status_2(run, tmp_path, option, value):
    status, out, err = run(option, value)
    assert (status, out) == (2, [])
    (line,) = err
    assert f"argument {option}" in line
    assert f"must be a whole number of at least 1, got {value!r}" in line
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("option", ["--learning-rate", "--max-grad"])
@pytest.mark.parametrize("value", ["0", "-1", "nan", "inf", "fast", ""])
def test_a_bad_rate_is_one_line_and_status_2(run, tmp_path, option, value):
    status, out, err = run(option, value)
    assert (status, out) == (2, [])
    (line,) = err
    assert f"argument {option}" in line
    assert f"must be a number above 0, got {value!r}" in line
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("value", ["-1", str(2**32), "1.5", "x", ""])
def test_a_bad_seed_is_one_line_and_status_2(run, value):
    status, out, err = run("--seed", value)
    assert (status, out) == (2, [])
    (line,) = err
    assert "argument --seed: must be from 0 to 2**32 - 1" in line


@pytest.mark.parametrize("arguments", [["--nonsense"], ["extra"], ["--epochs"], ["--output"]])
def test_unknown_and_unfinished_arguments_are_one_line_and_status_2(run, arguments):
    status, out, err = run(*arguments)
    assert (status, out) == (2, [])
    (line,) = err
    assert arguments[0] in line
    assert "--help explains the options" in line


def test_a_batch_larger_than_the_data_is_one_line_and_status_2(run):
    status, out, err = run("--batch-size", "301")
    assert (status, out) == (2, [])
    (line,) = err
    assert "argument --batch-size: there are only 300 examples" in line


def test_an_output_that_is_a_file_is_one_line_and_status_2(run, tmp_path):
    (tmp_path / "taken").write_text("mine")
    status, out, err = run("--output", "taken")
    assert (status, out) == (2, [])
    (line,) = err
    assert "argument --output: cannot make the folder" in line
    assert (tmp_path / "taken").read_text() == "mine"


# -------------------- Ctrl-C --------------------


def interrupt_at(call, function):
    calls = itertools.count(1)

    def interrupted(*arguments):
        if next(calls) == call:
            raise KeyboardInterrupt
        return function(*arguments)

    return interrupted


def test_a_ctrl_c_saves_the_parameters_so_far_and_gives_status_130(run, tmp_path, monkeypatch):
    monkeypatch.setattr(manual, "value_and_grad", interrupt_at(25, manual.value_and_grad))
    status, out, err = run("--epochs", "5", "--no-plots", "--output", "out")
    assert (status, err) == (130, [])
    assert out[-1] == "stopped in epoch 3; saved: out/parameters.npz"
    assert os.listdir(tmp_path / "out") == ["parameters.npz"]
    saved = saved_params(tmp_path / "out" / "parameters.npz")

    with pytest.raises(KeyboardInterrupt) as stop:
        trained(5, value_and_grad=interrupt_at(25, autograd.value_and_grad(sa.loss)))
    assert_same_params(saved, stop.value.state.params)


def test_a_ctrl_c_before_the_first_update_saves_the_initial_parameters(run, tmp_path, monkeypatch):
    monkeypatch.setattr(manual, "value_and_grad", interrupt_at(1, manual.value_and_grad))
    status, _, err = run("--epochs", "2", "--no-plots", "--output", "out")
    assert (status, err) == (130, [])
    stream = np.random.RandomState(1984)
    sa.load_data(stream)
    expected = sa.init_params(2, 10, 3, rng=stream)
    assert_same_params(saved_params(tmp_path / "out" / "parameters.npz"), expected)


def test_a_ctrl_c_in_the_handwritten_run_keeps_the_finished_automatic_one(
    run, tmp_path, monkeypatch
):
    monkeypatch.setattr(manual, "value_and_grad", interrupt_at(25, manual.value_and_grad))
    status, _, _ = run("--epochs", "2", "--no-plots", "--output", "out")
    assert status == 130
    saved = saved_params(tmp_path / "out" / "parameters.npz")
    assert_same_params(saved, trained(2).params)


@pytest.mark.usefixtures("coarse_grid")
@pytest.mark.parametrize(
    ("drawing", "saved"),
    [("plot_data", []), ("plot_decision_boundary", ["data.png", "loss.png"])],
)
def test_a_ctrl_c_while_pictures_are_saved_tells_what_is_there(
    run, tmp_path, monkeypatch, drawing, saved
):
    def interrupted(*arguments, **options):
        raise KeyboardInterrupt

    monkeypatch.setattr(plotting, drawing, interrupted)
    status, out, err = run("--epochs", "1", "--output", "out")
    assert (status, err) == (130, [])
    names = ["parameters.npz", *saved]
    assert out[-1] == "stopped; saved: " + " ".join(f"out/{name}" for name in names)
    assert sorted(os.listdir(tmp_path / "out")) == sorted(names)


def test_a_ctrl_c_before_the_training_is_one_line_and_status_130(run, tmp_path, monkeypatch):
    monkeypatch.setattr("spiral_autograd.training._checked_data", interrupt_at(1, None))
    status, out, err = run("--epochs", "1", "--no-plots")
    assert (status, out, err) == (130, [], ["", "spiral-autograd: stopped"])
    assert os.listdir(tmp_path / "spiral-output") == []


# -------------------- what the options stand for, called from Python --------------------


@pytest.mark.parametrize("value", ["0.1", b"0.1", True, np.True_, np.str_("1")])
def test_text_and_booleans_are_no_numbers(value):
    x, t = sa.load_data()
    params = sa.init_params(2, 3, 3, rng=0)
    for name in ("sgd", "momentum", "nesterov", "adagrad", "rmsprop", "adam"):
        with pytest.raises(TypeError, match=r"lr must be a real number, got .*1|True"):
            getattr(sa, name)(value)
    for rule, name in (
        (sa.momentum, "momentum"),
        (sa.adam, "beta1"),
        (sa.adam, "beta2"),
        (sa.rmsprop, "decay"),
        (sa.adagrad, "eps"),
    ):
        with pytest.raises(TypeError, match=f"{name} must be a real number"):
            rule(**{name: value})
    with pytest.raises(TypeError, match="max_norm must be a real number"):
        sa.clip_grads(params, value)
    with pytest.raises(TypeError, match="max_grad must be a real number"):
        sa.fit(params, x, t, max_grad=value, max_epoch=1)


@pytest.mark.parametrize("value", [True, False, np.True_])
def test_a_boolean_is_no_seed_of_the_data(value):
    with pytest.raises(TypeError, match=r"rng must be an int seed, .* got .*(True|False)"):
        sa.load_data(value)


@pytest.mark.parametrize("name", ["on_eval", "loss", "value_and_grad"])
def test_what_fit_calls_must_be_a_function(name):
    def loss(params, x, t):
        pytest.fail("the training has begun")

    x, t = sa.load_data()
    arguments = {"loss": loss, name: 5}
    with pytest.raises(TypeError, match=rf"^{name} must be a function.*, got 5"):
        sa.fit(sa.init_params(2, 3, 3, rng=0), x, t, **arguments)


# -------------------- a process of its own --------------------


def test_it_runs_as_a_module(tmp_path):
    command = [sys.executable, "-m", "spiral_autograd", "--epochs", "2", "--no-plots"]
    root = os.path.dirname(os.path.dirname(sa.__file__))
    environment = os.environ | {"PYTHONPATH": root}
    run = subprocess.run(
        command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
    )
    assert (run.returncode, run.stderr) == (0, "")
    assert run.stdout.splitlines()[-1] == "The gradients agree to 1e-10."
    assert os.listdir(tmp_path / "spiral-output") == ["parameters.npz"]
