"""Make the notebooks beside the examples: `python tools/notebooks.py [NAME ...]`.

An example's docstring becomes the first text, the title after each mark of a cell a heading, and
each cell is run, so that the notebook shows what it prints and draws.
"""

import re
import sys
import tempfile
from pathlib import Path

import nbformat
from nbclient import NotebookClient
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook

EXAMPLES = Path(__file__).resolve().parents[1] / "examples"


def scripts():
    """Return the examples, in the order of their numbers."""
    return sorted(EXAMPLES.glob("[0-9]*.py"))


def notebook_of(script):
    """Return a script as a notebook that has not been run."""
    head, *cells = re.split(r"^# %% ?", script.read_text(encoding="utf-8"), flags=re.MULTILINE)
    title, _, text = head.strip().strip('"').strip().partition("\n")
    made = [("markdown", f"# {title}\n{text}\n\nMade from [{script.name}]({script.name}).")]
    for cell in cells:
        heading, _, code = cell.partition("\n")
        made += [("markdown", f"## {heading}"), ("code", code.strip())]
    notebook = new_notebook(
        cells=[
            {"markdown": new_markdown_cell, "code": new_code_cell}[kind](source, id=f"cell-{i}")
            for i, (kind, source) in enumerate(made)
        ]
    )
    notebook.metadata.kernelspec = {
        "name": "python3",
        "display_name": "Python 3",
        "language": "python",
    }
    return notebook


def run(notebook):
    """Run all cells in a folder that is thrown away; what they print and draw stays inside."""
    with tempfile.TemporaryDirectory() as folder:
        client = NotebookClient(
            notebook,
            extra_arguments=["--IPKernelApp.log_level=40"],
            timeout=300,
            record_timing=False,
            store_widget_state=False,
            coalesce_streams=True,
            resources={"metadata": {"path": folder}},
        )
        client.execute()
    notebook.metadata.pop("language_info", None)  # the version of whose Python it was


def main(names):
    """Write the notebooks of the scripts whose names begin so, or all."""
    for script in scripts():
        if not names or script.name.startswith(tuple(names)):
            notebook = notebook_of(script)
            run(notebook)
            path = script.with_suffix(".ipynb")
            nbformat.write(notebook, path)
            print(f"{path.relative_to(EXAMPLES.parent)}  {path.stat().st_size // 1000} kB")


if __name__ == "__main__":
    main(sys.argv[1:])
