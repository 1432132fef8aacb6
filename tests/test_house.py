"""The house as ARCHITECTURE.md draws it: the order of the imports, and rooms that stay small."""

import ast
import inspect
import sys
from functools import cache
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import numpy as np

import spiral_autograd as sa

ROOT = Path(sa.__file__).parent

# Whoever stands in a line may import from the lines above; a folder's modules from one another,
# without a circle.
ORDER = """
    interrupts  validation  boxes  progress  pages
    pytree
    data  network  manual  optimizers  recording
    state
    derive  train_state
    saving  gradient_sources
    training
    plotting
    animation
    gradcheck.primitives  gradcheck.finding
    gradcheck.words_of_mistakes
    gradcheck.words  gradcheck.guard  gradcheck.blocks  gradcheck.source
    gradcheck.subject
    gradcheck.reference
    gradcheck.verdict
    gradcheck.diagnosis
    gradcheck.lines
    gradcheck.where
    gradcheck.explain
    gradcheck.pictures
    gradcheck.report_page
    gradcheck.report
    gradcheck.checks
    gradcheck.function_checks
    gradcheck.network_passes
    gradcheck.network_check
    gradcheck
    __init__
    run_page
    main_job
    __main__
"""
RANKS = {name: rank for rank, line in enumerate(ORDER.split("\n")) for name in line.split()}
KNOWS_ONLY = {
    "manual": {"validation"},
    "boxes": set(),
    "recording": {"boxes", "pytree"},
    "gradcheck.words": {
        "gradcheck.finding",
        "gradcheck.words_of_mistakes",
    },
    "gradcheck.words_of_mistakes": set(),
    "gradcheck.pictures": {"validation", "gradcheck.verdict.rows"},
    "gradcheck.report": {
        *("gradcheck.finding", "gradcheck.words", "pages", "gradcheck.source"),
        *("gradcheck.verdict.rows", "gradcheck.pictures", "gradcheck.report_page", "saving"),
    },
}
LONGEST_FILE, LONGEST_FUNCTION = 400, 40  # lines; of a function without its docstring
LARGEST_SHARE_OF_ANY = 0.1
MOST_MODULES = {"right": 12, "wrong": 20}  # between check_layer and its report

# What is not yet so. It may only shrink: what is mended must leave it.
OPEN = """
    too many modules run for a right layer
    too many modules run for a wrong layer
"""


def name_of(path):
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" and parts[1:] else parts)


FILES = {name_of(path): path for path in ROOT.rglob("*.py")}


@cache
def trees():
    """Return every module's syntax; made late, for what looks through all objects meets it too."""
    return {name: ast.parse(path.read_text(encoding="utf-8")) for name, path in FILES.items()}


def imports_of(name):
    """Every module of the package that a module imports, wherever in it the import stands."""
    package = FILES[name].relative_to(ROOT).parent.parts
    for node in ast.walk(trees()[name]):
        if isinstance(node, ast.ImportFrom) and node.level:
            base = package[: len(package) - node.level + 1]
            base = (*base, *(node.module or "").split(".")) if node.module else base
            for alias in node.names:
                whole = ".".join((*base, alias.name))
                yield whole if whole in FILES else ".".join(base) or "__init__"
        elif isinstance(node, ast.Import | ast.ImportFrom):
            names = [alias.name for alias in node.names] + [getattr(node, "module", None) or ""]
            assert not any(n.split(".")[0] == "spiral_autograd" for n in names), (name, names)


@cache
def imports():
    return {name: set(imports_of(name)) - {name} for name in FILES}


def room(name):
    """The name in ORDER under which a module stands: its own, or that of its folder."""
    while name not in RANKS and name.count(".") > name.startswith("gradcheck."):
        name = name.rpartition(".")[0]
    return name


# -------------------- what is not as it should be --------------------


def wrong_imports():
    for name, imported in imports().items():
        if room(name) not in RANKS:
            yield f"{name} stands nowhere in ORDER"
            continue
        for other in imported:
            above = RANKS.get(room(other), -1) < RANKS[room(name)]
            if not (above or room(other) == room(name)):
                yield f"{name} imports {other}"
        for other in imported - KNOWS_ONLY.get(name, imported):
            yield f"{name} shall not know {other}"


def circles():
    graph = {name: set(imported) for name, imported in imports().items()}
    while True:
        try:
            TopologicalSorter(graph).prepare()
            return
        except CycleError as error:
            circle = error.args[1][:-1]
            first = circle.index(min(circle))
            yield "circle " + " <- ".join(circle[first:] + circle[:first])
            graph[circle[1]].discard(circle[0])


def long_ones():
    for name, path in FILES.items():
        if len(path.read_text(encoding="utf-8").splitlines()) > LONGEST_FILE:
            yield f"{name} is long"
        for node in ast.walk(trees()[name]):
            if isinstance(node, ast.FunctionDef):
                start = node.body[1 if ast.get_docstring(node) and node.body[1:] else 0].lineno
                if node.end_lineno - start >= LONGEST_FUNCTION:
                    yield f"{name}.{node.name} is long"


def without_docstring():
    for name in sa.__all__:
        value = getattr(sa, name)
        text = vars(value).get("__doc__") or getattr(value, "__doc__", None)
        own = not (isinstance(value, type) and "__doc__" not in vars(value))
        if not (text and own):
            yield f"{name} has no docstring"
        elif ">>>" not in text and not inspect.ismodule(value):
            yield f"{name} has no example"


def anything():
    annotations = []
    for name, tree in trees().items():
        if room(name).startswith("gradcheck"):
            for node in ast.walk(tree):
                if isinstance(node, ast.arg | ast.AnnAssign):
                    annotations.append(node.annotation)
                elif isinstance(node, ast.FunctionDef):
                    annotations.append(node.returns)
    annotations = [ast.unparse(node) for node in annotations if node is not None]
    share = sum("Any" in text for text in annotations) / len(annotations)
    if share >= LARGEST_SHARE_OF_ANY:
        yield f"too much Any in gradcheck: {share:.0%} of the annotations"


class Sigmoid:
    def forward(self, x):
        self.y = 1 / (1 + np.exp(-x))
        return self.y

    def backward(self, dy):
        return dy * self.y * (1 - self.y)


class WrongSigmoid(Sigmoid):
    def backward(self, dy):
        return dy * self.y * (1 + self.y)


def busy_modules():
    x, check = np.random.default_rng(0).standard_normal((4, 3)), sa.check_layer
    for layer, name in ((Sigmoid(), "right"), (WrongSigmoid(), "wrong")):
        check(layer, x)  # whatever is imported on the way has been
        seen = set()

        def look(frame, event, argument, seen=seen):
            seen.add(frame.f_code.co_filename)

        before = sys.getprofile()
        sys.setprofile(look)
        try:
            check(layer, x)
        finally:
            sys.setprofile(before)
        count = sum(str(path) in seen for path in FILES.values())
        if count > MOST_MODULES[name]:
            yield f"too many modules run for a {name} layer: {count}"


LOOKS = (wrong_imports, circles, long_ones, without_docstring, anything, busy_modules)


def test_the_house_is_as_it_is_drawn():
    found = {text.partition(": ")[0] for look in LOOKS for text in look()}
    still_open = {line.strip() for line in OPEN.strip().splitlines()}
    assert found - still_open == set(), "new"
    assert still_open - found == set(), "mended: out of OPEN with it"


if __name__ == "__main__":
    print("\n".join(sorted(text for look in LOOKS for text in look())))
