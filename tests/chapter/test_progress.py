"""How far a run is: in a terminal, and nowhere else."""

import contextlib
import os
import re
import struct
import subprocess
import sys

import pytest

import spiral_autograd as sa

SLOW_RUN = """
import time, sys
import numpy as np
import spiral_autograd as sa
from spiral_autograd import progress

progress.AFTER = 0.0
if sys.argv[1] == "no tqdm":
    sys.modules["tqdm"] = sys.modules["tqdm.auto"] = None

def slow(params, x):
    time.sleep(0.01)
    return ((x @ params["w"]) ** 2).mean(), {"w": 2 * x.T @ (x @ params["w"]) / len(x)}

x = np.random.RandomState(0).randn(40, 2)
options = dict(value_and_grad=slow, batch_size=2, max_epoch=2)
for given in sys.argv[2:]:
    state = sa.fit({"w": np.ones(2)}, x, **options, **eval(given))
    print(repr(state)[:35])
    print("|", end="", file=sys.stderr, flush=True)
"""


def said_in_a_terminal(*arguments):
    """Run the slow trainings with standard error in a terminal, and return what each said."""
    import fcntl
    import termios

    ours, theirs = os.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))
    command = [sys.executable, "-c", SLOW_RUN, *arguments]
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=theirs, text=True, timeout=60)
    os.close(theirs)
    said = b""
    with contextlib.suppress(OSError), open(ours, "rb", buffering=0) as terminal:
        while part := terminal.read(65536):
            said += part
    assert done.stdout == "TrainState(epoch=2, iteration=0, la\n" * (len(arguments) - 1)
    return said.decode().removesuffix("|").split("|")


@pytest.mark.skipif(not hasattr(os, "openpty"), reason="needs a pseudo-terminal")
def test_how_far_a_run_is_shows_in_a_terminal_and_is_wiped_at_its_end():
    unseen = "{'show_progress': False}", "{'on_eval': print, 'eval_interval': 100}"
    said, *nothing = said_in_a_terminal("no tqdm", "{'eval_interval': 5}", *unseen)
    assert re.search(r"\r +\d+% of 40 batches, epoch [12], loss \d", said)
    assert said.endswith("\r")
    assert said.split("\r")[-2].strip() == ""
    assert nothing == ["", ""]


def test_nothing_is_said_in_a_pipe(capfd):
    sa.fit(sa.init_params(2, 3, 3, rng=0), *sa.load_data(), max_epoch=2, rng=0)
    assert capfd.readouterr() == ("", "")


@pytest.mark.skipif(not hasattr(os, "openpty"), reason="needs a pseudo-terminal")
def test_tqdm_draws_the_bar_where_it_is_installed():
    pytest.importorskip("tqdm")
    assert re.search(r"\d+/40 \[", "|".join(said_in_a_terminal("tqdm", "{}")))
