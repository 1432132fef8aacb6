"""The notebooks beside the examples: the scripts' code, with what it printed and drew."""

import importlib.util
from pathlib import Path

import nbformat
import pytest
from effort import SHARE
from test_examples import FIGURES, PICTURES, SCRIPTS, STUDY, _without_layout

TOOL = Path(__file__).parents[2] / "tools" / "notebooks.py"
SHORT = "02_network"  # the one that is run where not all are


@pytest.fixture(scope="module")
def tool():
    spec = importlib.util.spec_from_file_location("notebooks", TOOL)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def printed(notebook):
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    assert not [o for o in outputs if o.output_type == "error" or o.get("name") == "stderr"]
    text = "".join(o.text for o in outputs if o.output_type == "stream")
    return [_without_layout(line) for line in text.splitlines()]


def assert_has_its_figures(notebook, name):
    lines = printed(notebook)
    for figure in FIGURES[name].strip().splitlines():
        assert _without_layout(figure) in lines


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda script: script.stem)
def test_a_notebook_is_its_script_with_what_it_prints_and_draws(script, tool):
    path = script.with_suffix(".ipynb")
    how = f"python tools/notebooks.py {script.name} makes it anew"
    assert path.exists(), how
    kept, made = nbformat.read(path, as_version=4), tool.notebook_of(script)
    assert [(c.cell_type, c.source) for c in kept.cells] == [
        (c.cell_type, c.source) for c in made.cells
    ], how
    nbformat.validate(kept)
    assert_has_its_figures(kept, script.stem)
    pictures = [
        o for c in kept.cells for o in c.get("outputs", []) if "image/png" in o.get("data", {})
    ]
    assert len(pictures) >= PICTURES.get(script.stem, "").endswith(".png")
    assert path.stat().st_size < 300_000


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda script: script.stem)
def test_a_notebook_runs(script, tool):
    if SHARE < 1 and script.stem != SHORT:
        pytest.skip("EXAMPLES_SHARE=1 runs all notebooks")
    if script.stem == STUDY:
        pytest.skip("it takes its time, and a notebook has no arguments")
    notebook = tool.notebook_of(script)
    tool.run(notebook)
    assert_has_its_figures(notebook, script.stem)
