import errno
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
    files = sorted([*PICTURES, "parameters.npz", "checkpoint.npz"])
    assert sorted(os.listdir(folder)) == files  # and no part of a file
    for name in [*PICTURES, "parameters.npz"]:
        assert f"saved: here/and/there/{name}" in out[-5:-1]
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
    assert sorted(os.listdir(tmp_path / "out")) == ["checkpoint.npz", "parameters.npz"]


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
    def disk_full(file, **arrays):
        file.write(b"half of")
        raise OSError("disk full")

    run("--epochs", "1", "--no-plots")
    monkeypatch.setattr(np, "savez", disk_full)
    status, _, err = run("--epochs", "2", "--no-plots")
    assert (status, len(err)) == (3, 1)
    folder = tmp_path / "spiral-output"
    assert sorted(os.listdir(folder)) == ["checkpoint.npz", "parameters.npz"]
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
    assert "None" not in text
    assert "False" not in text


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


@pytest.mark.parametrize(
    "ignored", [["--epochs", "5"], ["--no-plots"], ["--output", "x"], ["--resume"]], ids=" ".join
)
def test_derive_refuses_the_options_that_it_would_ignore(run, ignored):
    status, out, (line,) = run("derive", *ignored)
    assert (status, out) == (2, [])
    assert f"argument {ignored[0]}: derive takes no other options than" in line
    assert "--batch-size" in line


def test_graph_prints_the_graph_of_the_derived_program(run):
    program = sa.derive(sa.loss, *batch_of_the_main_job(30, 10))
    for arguments, text in (
        ((), program.to_mermaid()),
        (("--format", "dot", "--full"), program.to_dot(full=True)),
    ):
        status, out, err = run("graph", *arguments)
        assert (status, err) == (0, [])
        assert out == text.splitlines()
    assert "(7, 4)" in "".join(run("graph", "--batch-size", "7", "--hidden-size", "4")[1])


def batch_of_the_main_job(size, hidden):
    stream = np.random.RandomState(1984)
    x, t = sa.load_data(stream)
    return sa.init_params(2, hidden, 3, rng=stream), x[:size], t[:size]


@pytest.mark.parametrize(
    "arguments", [("graph", "--epochs", "5"), ("derive", "--full"), ("train", "--format", "dot")]
)
def test_the_commands_refuse_the_options_of_others(run, arguments):
    status, out, (line,) = run(*arguments)
    assert (status, out) == (2, [])
    assert f"argument {arguments[1]}: {arguments[0]} takes no other options than" in line


def test_the_version(run, capsys):
    with pytest.raises(SystemExit) as end:
        main(["--version"])
    assert end.value.code == 0
    assert capsys.readouterr().out == f"{sa.__version__}\n"


# -------------------- files that cannot be written --------------------


def no_training(*arguments, **options):
    pytest.fail("the training has begun")


@pytest.mark.parametrize("name", ["parameters.npz", "loss.png"])
def test_a_directory_in_the_way_is_found_before_the_training(run, tmp_path, monkeypatch, name):
    monkeypatch.setattr("spiral_autograd.main_job.fit", no_training)
    (tmp_path / "out" / name).mkdir(parents=True)
    status, out, err = run("--output", "out")
    assert (status, out) == (3, [])
    assert f"cannot write out/{name}: a directory is in the way" in err[0]
    assert len(err) == 1
    assert os.listdir(tmp_path / "out") == [name]


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EROFS, errno.EACCES])
def test_a_folder_that_takes_no_files_is_found_before_the_training(
    run, tmp_path, monkeypatch, number
):
    def refuse(*arguments, **options):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr("spiral_autograd.training._Loop.run", no_training)
    monkeypatch.setattr("pathlib.Path.open", refuse)
    status, out, err = run("--output", "out")
    assert (status, out) == (3, [])
    assert f"cannot write out/checkpoint.npz: {os.strerror(number)}" in err[0]
    assert len(err) == 1
    monkeypatch.setattr("pathlib.Path.mkdir", refuse)
    status, out, err = run("--output", "new")
    assert (status, out, len(err)) == (3, [], 1)


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may write")
def test_a_read_only_folder_is_found_before_the_training(run, tmp_path, monkeypatch):
    monkeypatch.setattr("spiral_autograd.training._Loop.run", no_training)
    (tmp_path / "out").mkdir(mode=0o500)
    status, out, err = run("--output", "out")
    assert (status, out, len(err)) == (3, [], 1)


@pytest.mark.usefixtures("coarse_grid")
def test_a_disk_that_is_full_after_the_training_leaves_nothing_half_written(
    run, tmp_path, monkeypatch
):
    def full(self, file, **options):
        file.write(b"half of")
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr("matplotlib.figure.Figure.savefig", full)
    status, _, err = run("--epochs", "1", "--output", "out")
    assert status == 3
    assert err == ["spiral-autograd: cannot write out/data.png: No space left on device"]
    assert sorted(os.listdir(tmp_path / "out")) == ["checkpoint.npz", "parameters.npz"]
    monkeypatch.undo()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("spiral_autograd.main_job.fit", lambda state, *_, **options: state)
    assert run("--epochs", "1", "--output", "out", "--resume")[0] == 0
    assert {"data.png", "loss.png"} <= set(os.listdir(tmp_path / "out"))


def test_a_file_is_written_beside_a_link_and_not_through_it(run, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "mine").write_text("mine")
    (tmp_path / "out" / "parameters.npz").symlink_to(tmp_path / "mine")
    assert run("--epochs", "1", "--no-plots", "--output", "out")[0] == 0
    assert (tmp_path / "mine").read_text() == "mine"
    assert not (tmp_path / "out" / "parameters.npz").is_symlink()


def test_a_file_has_the_permissions_that_others_have(run, tmp_path):
    run("--epochs", "1", "--no-plots", "--output", "out")
    (tmp_path / "plain").write_text("")
    modes = [os.stat(tmp_path / name).st_mode for name in ("plain", "out/parameters.npz")]
    assert modes[0] == modes[1]


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
    assert out[-1] == "stopped in epoch 3; saved: out/parameters.npz (--resume goes on)"
    assert sorted(os.listdir(tmp_path / "out")) == ["checkpoint.npz", "parameters.npz"]
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
    assert (status, err) == (130, ["", "spiral-autograd: stopped"])
    names = ["parameters.npz", *saved]
    assert [line for line in out if "saved" in line] == [f"saved: out/{name}" for name in names]
    assert sorted(os.listdir(tmp_path / "out")) == sorted(["checkpoint.npz", *names])


def test_a_ctrl_c_before_the_training_is_one_line_and_status_130(run, tmp_path, monkeypatch):
    monkeypatch.setattr("spiral_autograd.training._checked_data", interrupt_at(1, None))
    status, out, err = run("--epochs", "1", "--no-plots")
    assert (status, out, err) == (130, [], ["", "spiral-autograd: stopped"])
    assert os.listdir(tmp_path / "spiral-output") == []


# -------------------- a run that goes on --------------------


@pytest.mark.parametrize("call", [25, 70])  # in the first of the runs, and in the second
def test_a_run_that_was_stopped_goes_on_to_the_same_numbers(run, tmp_path, monkeypatch, call):
    options = ("--epochs", "5", "--no-plots")
    whole = run(*options, "--output", "whole")[1]
    with monkeypatch.context() as stopping:
        stopping.setattr(manual, "value_and_grad", interrupt_at(call, manual.value_and_grad))
        assert run(*options, "--output", "out")[0] == 130
    status, out, err = run(*options, "--output", "out", "--resume")
    assert (status, err) == (0, [])
    where = len(whole) - whole.index(
        "Handwritten against automatic gradients, on each of 50 batches"
    )
    assert out[-where:-2] == whole[-where:-2]  # the largest differences are of both parts
    saved = saved_params(tmp_path / "out" / "parameters.npz")
    assert_same_params(saved, saved_params(tmp_path / "whole" / "parameters.npz"))


def test_a_run_goes_on_for_more_epochs_and_with_no_other_option_changed(run, monkeypatch):
    with monkeypatch.context() as stopping:
        stopping.setattr(manual, "value_and_grad", interrupt_at(5, manual.value_and_grad))
        assert run("--epochs", "2", "--no-plots")[0] == 130
    for option in ("--seed", "--hidden-size", "--batch-size", "--learning-rate", "--max-grad"):
        status, out, (line,) = run("--epochs", "2", option, "7", "--no-plots", "--resume")
        assert (status, out) == (2, [])
        assert f"that run was begun with {option}" in line
    assert run("--epochs", "1", "--no-plots", "--resume")[0] == 2
    assert run("--epochs", "3", "--no-plots", "--resume")[0] == 0


def test_a_finished_run_goes_on_with_the_options_that_it_had(run, tmp_path):
    options = ("--hidden-size", "4", "--seed", "7", "--no-plots")
    run("--epochs", "2", *options)
    _, out, _ = run("--resume", "--no-plots")
    assert out[0] == "that run had its 2 epochs: --epochs 4 goes on"
    status, out, _ = run("--resume", "--epochs", "3", "--no-plots")
    assert (status, [line[:9] for line in out[:2]]) == (0, ["| epoch 3", ""])
    saved = saved_params(tmp_path / "spiral-output" / "parameters.npz")
    assert_same_params(saved, trained(3, hidden=4, seed=7).params)


def test_what_cannot_be_gone_on_with_is_named(run, tmp_path):
    status, out, (line,) = run("--resume", "--output", "out")
    assert (status, out) == (2, [])
    assert "no run was begun in out" in line
    (tmp_path / "out").mkdir(exist_ok=True)
    (tmp_path / "out" / "checkpoint.npz").write_bytes(b"PK")
    status, out, (line,) = run("--resume", "--output", "out")
    assert (status, out) == (2, [])
    assert "damaged" in line
    sa.save({"no": "run"}, tmp_path / "run.npz")
    (tmp_path / "run.npz").rename(tmp_path / "out" / "checkpoint.npz")
    assert "is not of a run" in run("--resume", "--output", "out")[2][0]
    (tmp_path / "out" / "checkpoint.npz").write_bytes(b"PK")
    run("--resume", "--output", "out")
    assert (tmp_path / "out" / "checkpoint.npz").read_bytes() == b"PK"


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


def command(tmp_path, *arguments, **options):
    root = os.path.dirname(os.path.dirname(sa.__file__))
    environment = os.environ | {"PYTHONPATH": root}
    arguments = [sys.executable, "-m", "spiral_autograd", *arguments]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE} | options
    return subprocess.Popen(arguments, cwd=tmp_path, env=environment, text=True, **pipes)


def test_it_runs_as_a_module(tmp_path):
    process = command(tmp_path, "--epochs", "2", "--no-plots")
    out, err = process.communicate()
    assert (process.returncode, err) == (0, "")
    assert out.splitlines()[-1] == "The gradients agree to 1e-10."
    assert sorted(os.listdir(tmp_path / "spiral-output")) == ["checkpoint.npz", "parameters.npz"]


def test_a_ctrl_c_during_the_imports_is_one_line_and_status_130(tmp_path):
    (tmp_path / "autograd.py").write_text(
        "import os, signal\nos.kill(os.getpid(), signal.SIGINT)\nraise ImportError\n"
    )
    process = command(tmp_path)
    out, err = process.communicate()
    assert (process.returncode, out) == (130, "")
    assert err.split("\n") == ["", "spiral-autograd: stopped", ""]


@pytest.mark.parametrize("arguments", [["derive"], ["--epochs", "2000", "--no-plots"]])
def test_a_closed_pipe_is_one_line_and_a_status_of_its_own(tmp_path, arguments):
    process = command(tmp_path, *arguments, bufsize=1)
    process.stdout.close()
    err = process.stderr.read()
    process.stderr.close()
    assert process.wait() == 141
    assert err == "spiral-autograd: the reader of the output closed it\n"


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="there is no /dev/full")
def test_an_output_that_is_full_is_one_line_and_status_3(tmp_path):
    with open("/dev/full", "w") as full:
        process = command(tmp_path, "derive", stdout=full)
        _, err = process.communicate()
    assert process.returncode == 3
    assert err.startswith("spiral-autograd: cannot write the output")
    assert err.count("\n") == 1
