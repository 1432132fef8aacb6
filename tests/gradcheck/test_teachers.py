"""docs/teachers.md: its suite, run by pytest as a teacher would, and what pytest then shows."""

import os
import subprocess
import sys
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
    "chris": RIGHT.replace("@ dout * self.mask", "@ dout").replace("return s + ", "return "),
}


def block(language):
    return TEXT.partition(f"```{language}\n")[2].partition("```")[0]


@pytest.fixture
def suite(tmp_path):
    (tmp_path / "students").mkdir()
    (tmp_path / "test_students.py").write_text(block("python"))
    for name, code in STUDENTS.items():
        (tmp_path / "students" / f"{name}.py").write_text(code)

    def run(columns):
        env = {
            name: value for name, value in os.environ.items() if name not in ("CI", "BUILD_NUMBER")
        }
        env |= {"PYTHONPATH": str(Path(sa.__file__).parents[1]), "COLUMNS": str(columns)}
        env |= {"PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}
        command = [sys.executable, "-m", "pytest", "-q", "--tb=no", "-p", "no:cacheprovider"]
        result = subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True)
        return result.stdout.splitlines()

    return run


def test_pytest_shows_the_first_reason_as_the_guide_does(suite):
    *expected, total = block("text").splitlines()
    assert "COLUMNS=160 pytest -q --tb=no` then prints" in TEXT
    *shown, last = suite(160)
    assert [line for line in shown if line.startswith("FAILED")] == expected
    assert last.startswith(total)


def test_the_workflow_is_one():
    yaml = pytest.importorskip("yaml")
    (job,) = yaml.safe_load(block("yaml"))["jobs"].values()
    assert [step["run"] for step in job["steps"] if "run" in step][-1] == "pytest -q --tb=no"
