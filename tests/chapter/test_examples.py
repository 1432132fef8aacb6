"""The examples run, without a warning, and print the chapter's figures."""

import os
import re
import runpy
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from corpus import deeplearning_ai, dense

import spiral_autograd as sa

FOLDER = Path(__file__).parents[2] / "examples"
SCRIPTS = sorted(FOLDER.glob("*.py"))

FIRST_POINTS = """
 [-0.78313528 -0.55524691]
 [-0.68338075 -0.68839723]
 [-0.6793856  -0.70628267]
 [-0.58700916 -0.79719524]
 [-0.         -0.        ]
 [-0.00837021 -0.00547171]
 [-0.01839967 -0.00783914]
 [-0.02386156 -0.01818313]
 [-0.0271639  -0.02936192]
"""
LOG = """
| epoch 1 | iter 10 / 10 | loss 1.13
| epoch 2 | iter 10 / 10 | loss 1.13
| epoch 3 | iter 10 / 10 | loss 1.12
| epoch 4 | iter 10 / 10 | loss 1.12
| epoch 5 | iter 10 / 10 | loss 1.11
| epoch 296 | iter 10 / 10 | loss 0.11
| epoch 297 | iter 10 / 10 | loss 0.12
| epoch 298 | iter 10 / 10 | loss 0.11
| epoch 299 | iter 10 / 10 | loss 0.11
| epoch 300 | iter 10 / 10 | loss 0.11
"""
FIRST_SCORES = """
 [ 7.0750414  -6.07991423 -1.0589919 ]
 [ 7.07900866 -6.07605854 -1.06679914]
 [ 7.08296037 -6.07223889 -1.07455478]
 [ 7.08689655 -6.06845546 -1.08225869]
 [ 7.09081721 -6.0647084  -1.0899107 ]
"""
FIGURES = {
    "01_data": FIRST_POINTS,
    "02_network": "loss 1.0988, log 3 = 1.0986",
    "03_training_loop": LOG,
    "04_fit": LOG,
    "05_manual_and_automatic": "p = 3e-07  true gradient / handwritten = 0.7500000",
    "07_check_a_layer": "Affine: 1 of 3 gradients is wrong (params[1])\nMended: right",
    "08_check_the_book": "TwoLayerNet: right\nrepeat {'x': 'exact'}",
    "10_study": "hidden  rate  learned  95 % interval",
    "06_decision_boundary": FIRST_SCORES + "2112 columns by 2047 rows, 4,323,264 points",
    "09_watch_it_learn": "300 epochs kept\nepoch 300: loss 0.11, accuracy 0.97",
}
STUDY = "10_study"  # test_study.py runs it, in processes of its own
PICTURES = {
    "10_study": "10_study.png",
    "01_data": "01_data.png",
    "04_fit": "04_loss.png",
    "06_decision_boundary": "06_decision_boundary.png",
    "09_watch_it_learn": "09_watch_it_learn.gif",
}


def _without_layout(line):
    """Drop the brackets that NumPy sets around rows, the padding, and the trainer's seconds."""
    line = re.sub(r" time \d+\[s\] \|", "", line)
    return " ".join(line.replace("[", " ").replace("]", " ").split())


@pytest.mark.parametrize(
    "script", [s for s in SCRIPTS if s.stem != STUDY], ids=lambda script: script.stem
)
def test_example_runs_and_prints_its_figures(script, tmp_path, monkeypatch, capfd):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", [str(script)])
    runpy.run_path(str(script), run_name="__main__")
    out, err = capfd.readouterr()
    assert err == ""
    printed = [_without_layout(line) for line in out.splitlines()]
    for figure in FIGURES[script.stem].strip().splitlines():
        assert _without_layout(figure) in printed
    if script.stem in PICTURES:
        assert (tmp_path / "spiral-output" / PICTURES[script.stem]).stat().st_size > 10_000


def test_the_readmes_layer_prints_the_readmes_report_and_its_mend_is_right(tmp_path):
    readme = (FOLDER.parent / "README.md").read_text(encoding="utf-8")
    section = readme.partition("## Check your own layer")[2]
    code, report = (
        section.partition(f"```{language}\n")[2].partition("```")[0]
        for language in ("python", "text")
    )
    file = tmp_path / "my_layer.py"
    wrong, right = "np.mean(dout, axis=0)", "np.sum(dout, axis=0)"
    assert wrong in code.splitlines()[13]
    assert f"`{right}` in line 14" in section

    def run(text):
        file.write_text(text, encoding="utf-8")
        env = os.environ | {"PYTHONPATH": str(Path(sa.__file__).parents[1])}
        return subprocess.run(
            [sys.executable, file], env=env, capture_output=True, text=True, check=True
        ).stdout

    assert run(code).splitlines() == report.splitlines()
    assert run(code.replace(wrong, right)).startswith("Affine: right\n")


def test_every_figure_belongs_to_a_script():
    assert {script.stem for script in SCRIPTS} == set(FIGURES)


# -------------------- the guide's recipes, with code to run them on --------------------

GUIDE = (FOLDER.parent / "docs" / "checker.md").read_text(encoding="utf-8")
RECIPES = [part.partition("```")[0] for part in GUIDE.split("```python\n")[1:]]


class Linear:
    """A network whose `loss` returns the gradients too."""

    right = 1.0

    def __init__(self):
        self.params = {"W": np.arange(12.0).reshape(4, 3) / 12}

    def loss(self, X, y):
        loss, residuals = sa.manual.softmax_with_loss(X @ self.params["W"], y)
        dscores = sa.manual.softmax_with_loss_backward(self.right, residuals)
        return loss, {"W": X.T @ dscores}


def given(right):
    """What each recipe is run on: right code, or code with its gradients doubled."""
    rng = np.random.default_rng(0)
    doubled = {} if right else {"right": 2.0}
    layer = type("Dense", (dense.FullyConnected,), {})
    if not right:
        layer.backward = lambda self, dout: 2 * dense.FullyConnected.backward(self, dout)
    backward = deeplearning_ai.backward_propagation
    return {
        "test_dense": {"Dense": layer},
        "net.params": {
            "net": type("Net", (Linear,), doubled)(),
            "X": rng.normal(size=(5, 4)),
            "y": np.array([0, 1, 2, 1, 0]),
        },
        "compute_cost": {
            **vars(deeplearning_ai),
            "parameters": deeplearning_ai.initialize_parameters(rng, 4, 3, 1),
            "X": rng.normal(size=(4, 5)),
            "Y": np.array([[0.0, 1, 1, 0, 1]]),
            "backward_propagation": lambda *args: {
                name: (1 if right else 2) * grad for name, grad in backward(*args).items()
            },
        },
    }


@pytest.mark.usefixtures("verdicts_alone")
@pytest.mark.parametrize("right", [True, False])
@pytest.mark.parametrize("recipe", ["test_dense", "net.params", "compute_cost"])
def test_the_guides_recipes_run(recipe, right, capsys):
    (code,) = (code for code in RECIPES if recipe in code)
    names = {"np": np, "sa": sa, **given(right)[recipe]}
    exec(code, names)
    if recipe == "test_dense":
        if right:
            names["test_dense"]()
        else:
            with pytest.raises(AssertionError, match=r"gradients? (is|are) wrong"):
                names["test_dense"]()
    else:
        title = capsys.readouterr().out.splitlines()[0]
        assert title.endswith(": right") if right else re.search(r" (is|are) wrong", title)


def test_every_recipe_of_the_guide_is_run():
    assert len(RECIPES) == len(given(True))
