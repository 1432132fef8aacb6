"""docs/teachers.md: its suite, run by pytest as a teacher would, and what pytest then shows."""

import json
import os
import re
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

import spiral_autograd as sa

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "docs" / "teachers.md").read_text(encoding="utf-8")

RIGHT = """
import numpy as np

class Affine:
    def __init__(self, W, b):
        self.W, self.b = W, b

    def forward(self, x):
        self.x = x
        return x @ self.W + self.b

    def backward(self, dout):
        self.dW = self.x.T @ dout
        self.db = dout.sum(axis=0)
        return dout @ self.W.T

class Masked:
    def __init__(self, W, mask):
        self.W, self.mask = W, mask.astype(float)

    def forward(self, x):
        self.x = x
        return x @ (self.W * self.mask)

    def backward(self, dout):
        self.dW = self.x.T @ dout * self.mask
        return dout @ (self.W * self.mask).T

def gelu(x):
    return 0.5 * x * (1 + np.tanh(np.sqrt(2 / np.pi) * (x + 0.044715 * x**3)))

def gelu_prime(x):
    s = 1 / (1 + np.exp(-1.702 * x))
    return s + 1.702 * x * s * (1 - s)
"""
STUDENTS = {
    "anna": RIGHT.replace("dout.sum(axis=0)", "dout.mean(axis=0)"),
    "ben": RIGHT,
    "dora": f"{RIGHT}\nimport sys\nsys.exit(0)\n",
    "chris": RIGHT.replace("@ dout * self.mask", "@ dout").replace("return s + ", "return "),
}


def block(language, number=0):
    found = re.findall(rf"^ *```{language}\n(.*?)^ *```", TEXT, re.DOTALL | re.MULTILINE)
    return textwrap.dedent(found[number])


@pytest.fixture
def suite(tmp_path):
    (tmp_path / "students").mkdir()
    (tmp_path / "setup.cfg").write_text((ROOT / "setup.cfg").read_text())  # as within the clone
    (tmp_path / "pytest.ini").write_text(block("ini"))
    (tmp_path / "test_students.py").write_text(block("python"))
    for name, code in STUDENTS.items():
        (tmp_path / "students" / f"{name}.py").write_text(code)

    def run(columns):
        env = {
            name: value for name, value in os.environ.items() if name not in ("CI", "BUILD_NUMBER")
        }
        env |= {"PYTHONPATH": str(Path(sa.__file__).parents[1]), "COLUMNS": str(columns)}
        env |= {"PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}
        command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider"]
        result = subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True)
        return result.stdout.splitlines()

    return run


def test_pytest_shows_the_first_reason_as_the_guide_does(suite):
    *expected, total = block("text").splitlines()
    assert "COLUMNS=160 pytest` then prints" in TEXT
    *shown, last = suite(160)
    assert [line for line in shown if line.startswith("FAILED")] == expected
    assert last.startswith(total)


def test_a_notebook_is_checked_as_a_file_is(suite, tmp_path):
    cells = [
        {"cell_type": "markdown", "source": ["# My layers\n"]},
        {"cell_type": "code", "source": ["%matplotlib inline\n", "!ls"]},
        {"cell_type": "code", "source": STUDENTS["anna"].splitlines(keepends=True)},
    ]
    (tmp_path / "students" / "eva.ipynb").write_text(json.dumps({"cells": cells}))
    tests = tmp_path / "test_students.py"
    head, files, rest = tests.read_text().partition("FILES =")
    tests.write_text(head + block("python", 1) + "\n" + files + rest)
    shown = [line for line in suite(160) if "[eva-" in line]
    (anna,) = (line for line in block("text").splitlines() if "[anna-" in line)
    assert shown == [anna.replace("[anna-", "[eva-")]


def test_the_workflow_is_one():
    yaml = pytest.importorskip("yaml")
    (job,) = yaml.safe_load(block("yaml"))["jobs"].values()
    assert [step["run"] for step in job["steps"] if "run" in step][-1] == "pytest"
