"""The page of the chapter's run: the regions epoch by epoch, and the gradient in two accounts."""

from __future__ import annotations

import ast
import base64
import inspect
import re
import sys
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from types import FrameType
from typing import Any

import numpy as np

from . import manual, network
from .derive import derive
from .pages import Line, as_html, as_json, listing, page, table
from .plotting import decision_grid
from .validation import Array, Params

SIDE = 150  # cells along the longer side of the picture of the regions
FRAMES = 60  # pictures of a run, about
DERIVED = "<derived>"  # the file of the derived program
Frame = dict[str, Any]
Values = list[tuple[int, Any]]  # lines, each with a value that it makes


def picture(params: Params, x: Array, t: Array, epoch: float) -> Frame:
    """Return what a page shows of an epoch; of the regions four cells to a byte, from above."""
    _, _, classes = decision_grid(params, x, float(np.ptp(x, axis=0).max() + 0.2) / SIDE)
    cells = np.resize(classes[::-1], (-(-classes.size // 4), 4))
    return {
        "epoch": float(epoch),
        "loss": float(network.loss(params, x, t)),
        "accuracy": float(network.accuracy(params, x, t)),
        "size": list(classes.shape),
        "regions": base64.b64encode((cells @ [1, 4, 16, 64]).astype(np.uint8).tobytes()).decode(),
    }


def run_page(
    said: Mapping[str, str],
    tables: Mapping[str, Sequence[Sequence[str]]],
    drawn: Mapping[str, Any],
    params: Params,
    x: Array,
    t: Array,
) -> str:
    """Return the page: its texts, its tables by their captions, what its script draws, a batch."""
    program = derive(network.loss, params, x, t)
    graph = program.graph()
    columns = graph.columns()
    derived, by_hand = _linked(program.source, params, x, t)
    data = {
        **drawn,
        "nodes": [[n.key, n.label, n.kind, columns[n.key]] for n in graph.nodes],
        "edges": [[e.start, e.end, e.name, str(e.shape), e.gradient_name] for e in graph.edges],
    }
    return page(
        "run.html",
        **{name: as_html(value) for name, value in said.items()},
        tables="".join(table(caption, *rows) for caption, rows in tables.items()),
        derived=listing("Derived from autograd", derived),
        handwritten=listing("By hand", by_hand),
        data=as_json(data),
    )


# -------------------- which lines make the same numbers --------------------


def _linked(source: str, params: Params, x: Array, t: Array) -> tuple[list[Line], list[Line]]:
    """Return the lines of the derived and of the handwritten program, linked by their values."""
    space: dict[str, Any] = {}
    exec(compile(source, DERIVED, "exec"), space)
    rng = np.random.default_rng(0)  # of zeros one would be like another
    moved = {name: array + rng.normal(size=array.shape) for name, array in params.items()}
    _, ours = _made(source, DERIVED, lambda: space["value_and_grad"](moved, x, t))
    text = inspect.getsource(manual)
    ran, theirs = _made(text, manual.__file__, lambda: manual.value_and_grad(moved, x, t))
    links: dict[tuple[bool, int], dict[str, None]] = defaultdict(dict)
    for line, value in ours:
        for other, same in theirs:
            if np.shape(value) == np.shape(same) and np.allclose(value, same, 1e-9, 1e-12):
                links[True, line][f"{line}"] = links[False, other][f"{line}"] = None
    narrow = re.sub(" {3,}# (?=[(s])", "  # ", source)  # the comments' column is far to the right
    lines = text.splitlines()
    return (
        [Line(k, text, tuple(links[True, k])) for k, text in enumerate(narrow.splitlines(), 1)],
        [Line(k, lines[k - 1], tuple(links[False, k])) for k in _shown_lines(ran)],
    )


def _made(text: str, file: str, call: Callable[[], object]) -> tuple[list[ast.FunctionDef], Values]:
    """Return the functions of a text that a call runs, and what their lines make."""
    known = {f.name: f for f in ast.parse(text).body if isinstance(f, ast.FunctionDef)}
    ran: dict[ast.FunctionDef, None] = {}
    made: Values = []

    def look(frame: FrameType, event: str, result: object) -> None:
        function = known.get(frame.f_code.co_name)
        if event == "return" and frame.f_code.co_filename == file and function:
            ran[function] = None
            made.extend(_values(function, frame.f_locals, result))

    before = sys.getprofile()
    sys.setprofile(look)
    try:
        call()
    finally:
        sys.setprofile(before)
    return [f for f in ran if not f.name.startswith("_")], made


def _values(function: ast.FunctionDef, names: Mapping[str, Any], result: object) -> Values:
    """Return what the lines of a function made: what they assign, and what is returned."""
    found: Values = []
    given = {argument.arg for argument in function.args.args}
    for node in function.body:
        if isinstance(node, ast.Return):
            parts = result if isinstance(result, tuple) else (result,)
            found += [(node.lineno, part) for part in parts]
        elif isinstance(node, ast.Assign) and not isinstance(node.value, ast.Name):
            targets = [n.id for n in ast.walk(node.targets[0]) if isinstance(n, ast.Name)]
            found += [(node.lineno, names[name]) for name in targets if name not in given]
    return [(k, v) for k, v in found if isinstance(v, np.ndarray | np.floating)]


def _shown_lines(functions: Sequence[ast.FunctionDef]) -> Iterator[int]:
    """Yield the lines of functions without their docstrings, that of the network first."""
    for f in sorted(functions, key=lambda f: (f.name != "value_and_grad", f.lineno)):
        yield from range(f.lineno, f.body[0].lineno)
        yield from range((f.body[0].end_lineno or 0) + 1, (f.end_lineno or 0) + 1)
