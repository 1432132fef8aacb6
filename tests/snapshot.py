"""What the checker says today of hundreds of layers, to be compared with what it says tomorrow.

    python tests/snapshot.py before.json             # takes a snapshot
    python tests/snapshot.py after.json --against before.json

No part of the tests: after a change to the checker it shows what the change does to the verdicts,
the kinds of reason and the places, for the layers of the corpus, the mutants, the layers of
docs/checker.md and generated wrong layers.
"""

import argparse
import importlib
import inspect
import json
import pkgutil
import random
import re
import sys
import tempfile
import time
import warnings
from collections.abc import Iterator
from pathlib import Path

import numpy as np

HERE = Path(__file__).parent
sys.path += [str(HERE), str(HERE.parent / "docs"), str(HERE.parent)]

import corpus  # noqa: E402
import wrong_layers  # noqa: E402
from corpus.check import Check, Sizes  # noqa: E402
from generated import conventions, plans  # noqa: E402
from mutants import MUTANTS  # noqa: E402

import spiral_autograd as sa  # noqa: E402
from spiral_autograd.gradcheck import guard  # noqa: E402

guard.STRICT = True
SIZES = (Sizes(), Sizes(n=3, d=3, h=3, c=4, t=2, side=3), Sizes(n=1, d=1, h=2, c=2, t=1))


def of_corpus() -> Iterator[tuple[str, Check]]:
    for module in pkgutil.iter_modules(corpus.__path__):
        if module.name == "check":
            continue
        for name, make in importlib.import_module(f"corpus.{module.name}").CHECKS.items():
            for number, sizes in enumerate(SIZES):
                yield f"corpus {name} {number}", make(np.random.default_rng(number), sizes)


def of_mutants(folder: Path) -> Iterator[tuple[str, Check]]:
    for name, mutant in MUTANTS.items():
        yield f"mutant {name}", mutant.check(folder / f"mutant_{name.replace('-', '_')}.py")


def of_docs() -> Iterator[tuple[str, Check]]:
    for name, kind in list(vars(wrong_layers).items()):
        if not inspect.isclass(kind) or not hasattr(kind, "backward"):
            continue
        rng = np.random.default_rng(0)
        x, W, b = rng.normal(size=(5, 3)), rng.normal(size=(3, 3)), rng.normal(size=3)
        given = [(), (W,), (W, b)][len(inspect.signature(kind).parameters)]
        inputs = {"SquaredError": (x, np.zeros((5, 3))), "Embedding": (np.array([0, 2, 2]),)}
        yield f"docs {name}", Check("check_layer", (kind(*given), *inputs.get(name, (x,))))


def of_generated(count: int) -> Iterator[tuple[str, Check]]:
    kinds = [*conventions.LAYERS, *conventions.GRADIENTS, *conventions.LOSS_LAYERS]
    for seed in range(count):
        stream = random.Random(seed)
        check = kinds[seed % len(kinds)]
        how = {} if check in conventions.LAYERS else {"loss": True}
        try:
            plan, _ = plans.draw(stream, **how)
            edit = plans.draw_edit(plans.Choices(stream), plan) if seed % 4 else None
        except Exception:  # a plan that cannot be drawn is none
            continue
        if plan.params or not how:
            yield (
                f"generated {seed} {check.__name__}",
                lambda p=plan, e=edit, c=check, **o: c(p, e, **o),
            )


def said(check: Check, budget: float) -> dict:
    begin = time.process_time()
    try:
        report = check(budget=budget)
    except Exception as error:  # an outcome like another
        return {"raised": f"{type(error).__name__}: {error}"}
    return {
        "ok": report.ok,
        "reference": report.reference,
        "rows": {
            row.name: {
                "verdict": row.verdict,
                "rule": row.rule,
                "kinds": [finding.kind for finding in getattr(row, "findings", ())],
                "lines": [f"{Path(file).name}:{line}" for file, line in row.lines],
                "why": row.why,
            }
            for row in report.rows
        },
        "notes": list(report.notes),
        "failures": list(report.failures),
        "unchecked": list(report.unchecked),
        "seconds": time.process_time() - begin,
    }


def taken(only: str, count: int, budget: float) -> dict:
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        every = [of_corpus(), of_docs(), of_mutants(Path(folder)), of_generated(count)]
        return {
            name: said(check, budget) for checks in every for name, check in checks if only in name
        }


def differences(before: dict, after: dict, words: bool) -> Iterator[str]:
    """Yield what is said otherwise: verdicts, rules and places; with `words` the sentences too."""
    for name in after:
        if name not in before:
            continue
        old, new = before[name], after[name]
        for key in (
            "raised",
            "ok",
            "reference",
            "unchecked",
            *(("notes", "failures") if words else ()),
        ):
            if old.get(key) != new.get(key):
                yield f"{name}: {key}: {old.get(key)} -> {new.get(key)}"
        for row in dict.fromkeys([*old.get("rows", {}), *new.get("rows", {})]):
            a, b = (side.get("rows", {}).get(row, {}) for side in (old, new))
            keys = [k for k in ("verdict", "rule", "lines") if a.get(k) != b.get(k)]
            if words and _plain(a.get("why")) != _plain(b.get("why")):
                keys.append("why")
            if keys:
                was, now = ([side.get(k) for k in [*keys, "why"]] for side in (a, b))
                yield f"{name}: {row}: {was}\n{'':8}-> {now}"


def _plain(text: str | None) -> str:
    return re.sub(r"[\d.e+-]+", "#", text or "")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("file", type=Path, help="where the snapshot is written")
    parser.add_argument("--against", type=Path, help="an earlier one, to print what differs")
    parser.add_argument("--only", default="", help="only names with this in them: 'mutant', say")
    parser.add_argument("--generated", type=int, default=200, help="how many generated layers")
    parser.add_argument("--budget", type=float, default=10.0)
    parser.add_argument("--words", action="store_true", help="compare the sentences too")
    options = parser.parse_args()
    after = taken(options.only, options.generated, options.budget)
    options.file.write_text(json.dumps(after, indent=1))
    print(
        f"{sa.__file__}: {len(after)} checks, "
        f"{sum(entry.get('seconds', 0.0) for entry in after.values()):.1f} s of CPU"
    )
    if options.against is None:
        return 0
    lines = list(differences(json.loads(options.against.read_text()), after, options.words))
    print("\n".join(lines) or "no difference")
    return 1 if lines else 0


if __name__ == "__main__":
    sys.exit(main())
