"""The study of many runs: on one machine and on a Dask cluster, where a process dies on the way."""

import contextlib
import importlib.util
import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from test_examples import FIGURES, PICTURES

import spiral_autograd as sa

STUDY = Path(__file__).parents[2] / "examples" / "10_study.py"
KIND = ["--seeds", "8", "--epochs", "150", "--hidden", "4", "--rates", "1"]
ENV = os.environ | {
    "MPLBACKEND": "Agg",
    "PYTHONPATH": str(Path(sa.__file__).parents[1]),
    **dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1"),
}
needs_dask = pytest.mark.skipif(
    importlib.util.find_spec("distributed") is None, reason="dask is not installed"
)
pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("joblib") is None, reason="joblib is not installed"
)


def until(ready, process=None):
    """Wait for something to be there, and return it."""
    end = time.monotonic() + 100
    while not (found := ready()):
        assert time.monotonic() < end, "it takes too long"
        assert process is None or process.poll() is None, "it has ended"
        time.sleep(0.02)
    return found


@contextlib.contextmanager
def started(folder, *command):
    """Start a Python program, and end it if it still runs."""
    with open(folder / "log.txt", "a") as log:
        process = subprocess.Popen(
            [sys.executable, *command], cwd=folder, env=ENV, stdout=log, stderr=log
        )
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def results(folder):
    return sorted((folder / "spiral-output" / "10_study").glob("*.npz"))


def assert_whole(folder, printed):
    """All runs are there, and each is what `fit` gives here."""
    assert len(results(folder)) == 8
    run = sa.load(results(folder)[5])
    x, t = sa.load_data(1984)
    rng = np.random.default_rng(5)
    params = sa.init_params(2, 4, 3, rng=rng)
    state = sa.fit(params, x, t, optimizer=sa.sgd(1.0), batch_size=30, max_epoch=150, rng=rng)
    accuracy = sa.accuracy(state.params, x, t)
    kind = {"hidden": 4, "rate": 1.0, "seed": 5, "epochs": 150}
    assert run == kind | {"accuracy": pytest.approx(accuracy, abs=0.01)}
    learned = sum(sa.load(file)["accuracy"] >= 0.9 for file in results(folder))
    assert re.search(rf"^ +4 +1 +{learned} of 8 ", printed, flags=re.MULTILINE)
    assert FIGURES["10_study"] in map(str.strip, printed.splitlines())
    assert (folder / "spiral-output" / PICTURES["10_study"]).stat().st_size > 10_000


def children(process):
    return Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
def test_a_process_that_is_killed_costs_no_result_and_a_study_goes_on_where_it_stopped(tmp_path):
    with started(tmp_path, STUDY, *KIND) as study:
        until(lambda: results(tmp_path), study)
        workers = [
            c for c in children(study) if b"popen_loky" in Path(f"/proc/{c}/cmdline").read_bytes()
        ]
        os.kill(int(workers[0]), signal.SIGKILL)
        assert study.wait(100) == 0
    printed = (tmp_path / "log.txt").read_text()
    assert "a process has died: what it had not finished is run again" in printed
    assert_whole(tmp_path, printed)
    before = {file: file.stat().st_mtime_ns for file in results(tmp_path)}
    results(tmp_path)[3].unlink()
    with started(tmp_path, "-W", "error", STUDY, *KIND) as study:
        assert study.wait(100) == 0
    again = (tmp_path / "log.txt").read_text().removeprefix(printed)
    assert again.splitlines()[0] == "7 of 8 runs are done"
    changed = [f for f in results(tmp_path) if f.stat().st_mtime_ns != before[f]]
    assert changed == [results(tmp_path)[3]]
    assert again.splitlines()[2:] == printed.splitlines()[-2:]  # the same table


@needs_dask
def test_on_two_dask_workers_of_which_one_is_killed(tmp_path):
    file = tmp_path / "scheduler.json"
    quiet = ["--no-dashboard", "--scheduler-file", file]
    worker = ["-m", "distributed.cli.dask_worker", *quiet, "--no-nanny", "--nthreads", "1"]
    host = ["--host", "127.0.0.1", "--port", "0", "--no-show"]
    with contextlib.ExitStack() as stack:
        scheduler = ["-m", "distributed.cli.dask_scheduler", *quiet, *host]
        stack.enter_context(started(tmp_path, *scheduler))
        first, _ = (stack.enter_context(started(tmp_path, *worker)) for _ in range(2))
        until(lambda: (tmp_path / "log.txt").read_text().count("Registered to:") == 2)
        address = json.loads(file.read_text())["address"]
        folder = tmp_path / "study"
        folder.mkdir()
        with started(folder, STUDY, *KIND, "--scheduler", address) as study:
            until(lambda: results(folder), study)
            first.kill()
            assert study.wait(100) == 0
    printed = (folder / "log.txt").read_text()
    counts = re.findall(r"^\d of 8 runs are done$", printed, flags=re.MULTILINE)
    assert counts == ["0 of 8 runs are done", "8 of 8 runs are done"]  # Dask may warn in between
    assert_whole(folder, printed)
