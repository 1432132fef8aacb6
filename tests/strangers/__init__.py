"""Mistakes as strangers make them: right code in the styles of courses, and one edit that is wrong.

A street is a module of right code as its people write it, with ``CHECKS``, the ways to check it,
and ``MISTAKES``: each edits one text to another inside one function or method. The line of a
mistake is exactly known: it is the one that was edited (where a line was taken away, one of those
that `at` has). `says` are the kinds of findings that a teacher would accept as the reason, behind
a bar those that are true too but that a student would not understand; `of` are words that the
fields of the reason must have, so that it is about the right thing.
"""

import ast
import importlib
import importlib.util
import re
import sys
from dataclasses import dataclass
from pathlib import Path

FOLDER = Path(__file__).parent
STREETS = [path.stem for path in sorted(FOLDER.glob("*.py")) if path.stem[0] != "_"]
STREETS.remove("run")
WRONG = ("wrong", "missing", "approximate")


@dataclass(frozen=True)
class Mistake:
    name: str
    check: str  # a key of the street's CHECKS
    inside: str  # the function, or Class.method, that is edited
    old: str
    new: str
    says: frozenset[str]  # the kinds that are accepted; empty: no reason can be named
    obscure: frozenset[str] = frozenset()  # those that are true, and not understood
    of: tuple[str, ...] = ()  # words that the fields of the reason must have
    at: tuple[str, ...] = ()  # the lines of which one is to be named; else the edited one
    ok: bool | None = False  # whether the report is; None: a convention, which may be either


def wrong(name, check, inside, old, new, says, of="", at=(), ok=False):
    """Return a mistake; `says` and `of` are words, `at` a line or several."""
    at = (at,) if isinstance(at, str) else at
    true, _, obscure = says.partition("|")
    kinds = frozenset(true.split()), frozenset(obscure.split())
    return Mistake(name, check, inside, old, new, *kinds, tuple(of.split()), at, ok)


@dataclass(frozen=True)
class Judgement:
    """What a report is worth to a reader, against what is known."""

    found: bool
    reason: str  # true, obscure, false, none
    line: str  # exact, several, wrong, none
    kinds: tuple[str, ...]  # of the reasons that are given
    said: str
    wanted: tuple[int, ...]


class Street:
    """A module of right code, and its wrong versions."""

    def __init__(self, name):
        self.name, self.path = name, FOLDER / f"{name}.py"
        self.text = self.path.read_text(encoding="utf-8")
        self.right = statements_of(self.text)
        self.module = importlib.import_module(f"strangers.{name}")

    def source(self, mistake):
        """Return the text with the mistake, and the numbers of the lines to be named."""
        lines = self.text.splitlines()
        first, last = _span(self.text, mistake.inside)
        part = "\n".join(lines[first:last])
        assert part.count(mistake.old) == 1, f"{mistake.name}: {part.count(mistake.old)} times"
        changed = part.replace(mistake.old, mistake.new).split("\n")
        after = [*lines[:first], *changed, *lines[last:]]
        numbers = [
            first + i + 1
            for i, line in enumerate(changed)
            if (line.strip() in mistake.at if mistake.at else line not in lines[first:last])
        ]
        assert len(numbers) == max(1, len(mistake.at)), f"{mistake.name}: lines {numbers}"
        return "\n".join(after) + "\n", tuple(numbers)

    def report(self, mistake, folder, budget=10.0):
        """Return the report of the wrong version, where it stands, and the lines to be named."""
        text, numbers = self.source(mistake)
        path = Path(folder) / f"{self.name}_{mistake.name}.py"
        path.write_text(text, encoding="utf-8")
        spec = importlib.util.spec_from_file_location(path.stem, path)
        module = importlib.util.module_from_spec(spec)
        sys.modules[path.stem] = module
        spec.loader.exec_module(module)
        return module.CHECKS[mistake.check](budget=budget), path, numbers


def _span(text, name):
    body, node = ast.parse(text).body, None
    for part in name.split("."):
        node = next(node for node in body if getattr(node, "name", None) == part)
        body = getattr(node, "body", [])
    return node.lineno - 1, node.end_lineno


def streets():
    return [Street(name) for name in STREETS]


def judge(mistake, report, path, numbers, right):
    """Hold a report against what is known of its mistake, and the statements of the right text."""
    rows = [row for row in report.rows if row.rule is not None or row.verdict in WRONG]
    back = _backward_lines(path.read_text(encoding="utf-8"))
    findings = [
        (
            finding,
            _are_there([n for file, n in row.lines if Path(file) == path and n in back], numbers),
        )
        for row in rows
        for finding in row.findings
    ]
    findings += [(finding, False) for finding in report.findings]
    says = mistake.says | {"right_with"}
    told = [(f, at) for f, at in findings if any(p.rule or p.kind in says for p in f.parts())]
    worth = {_worth(mistake, finding, right, at) for finding, at in told}
    told = [finding for finding, _ in told]
    reason = next((word for word in ("false", "obscure", "true") if word in worth), "none")
    said = {n for row in rows for file, n in row.lines if Path(file) == path and n in back}
    line = "several" if said & set(numbers) else "wrong" if said else "none"
    edited = set(numbers) if all(text in mistake.new for text in mistake.at) else set()
    line = "exact" if line == "several" and (len(said) == 1 or said == edited) else line
    found = mistake.ok in (None, report.ok)
    kinds = tuple(dict.fromkeys(kinds_of(told)))
    return Judgement(found, reason, line, kinds, words_of(rows, report), numbers)


def _are_there(lines, numbers):
    """Tell whether the lines are those that were edited, or one of those beside a lost one."""
    return set(lines) == set(numbers) or (len(lines) == 1 and lines[0] in numbers)


def words_of(rows, report):
    """Return reasons and lines, each reason once."""
    together = {}
    for row in rows:
        key = (row.why or row.verdict, tuple(n for _, n in row.lines))
        together.setdefault(key, []).append(row.name)
    kinds = {row.why: "/".join(dict.fromkeys(kinds_of(row.findings))) for row in rows}
    said = [
        f"{','.join(names)}: {why} <{kinds.get(why, '')}> {list(lines)}"
        for (why, lines), names in together.items()
    ]
    return "\n    ".join([*said, *(f"FAILURE {text}" for text in report.failures)])


def kinds_of(findings):
    """Return the kinds that are reasons, of findings and of those that are their fields."""
    return [part.kind for finding in findings for part in finding.parts() if part.rule is not None]


def statements_of(text):
    """Return the statements of a text as Python writes them, of a block the head."""
    nodes = [node for node in ast.walk(ast.parse(text)) if isinstance(node, ast.stmt)]
    return {ast.unparse(node).split("\n")[0] for node in nodes}


def _worth(mistake, finding, right, is_there):
    kinds = {part.kind for part in finding.parts()}
    if "right_with" in kinds:  # the true one where it is what stood there before, or mends that
        known = finding.kind == "right_with" and finding.fields["statement"] in {"", *right}
        return "true" if is_there or known else "obscure"
    texts = " ".join(str(value) for part in finding.parts() for value in part.fields.values())
    # Which entries are wrong is true of any mistake; two are said where there is one.
    obscure = mistake.obscure | {"part", "two_mistakes"}
    if "two_mistakes" in kinds - mistake.says:
        return "obscure"
    if kinds & mistake.says:
        return "true" if all(word in texts for word in mistake.of) else "false"
    return "obscure" if kinds & obscure else "false"


_BACK = re.compile(r"back|bptt|grad|deriv|prime", re.IGNORECASE)


def _backward_lines(text):
    """Return the lines that are of a backward pass.

    Those of functions that are called so, and those with a comment that says so, or below it.
    """
    lines, found = text.splitlines(), set()
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef):
            here = bool(_BACK.search(node.name))
            for n in range(node.lineno, node.end_lineno + 1):
                code, _, comment = lines[n - 1].partition("#")
                says = bool(re.search(r"\bback", comment, re.IGNORECASE))
                here = here or (says and not code.strip())
                found |= {n} if here or says else set()
    return found
