"""Measure everything, and write ``results.md``, ``results.png`` and ``checker.png``.

Run with: python -m benchmarks [--quick] [--output FOLDER]
"""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

from . import checker, checkers, decision_grid, processes, report, steps


def main() -> None:
    """Run all benchmarks."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="few repeats: a look, not a result")
    parser.add_argument("--output", type=Path, default=Path(__file__).parent, metavar="FOLDER")
    options = parser.parse_args()
    quick = options.quick
    before = _load()
    figures = report.Figures(
        processes=processes.training(repeats=_say("whole processes", 2 if quick else 5)),
        imports=processes.imports(repeats=_say("imports", 5 if quick else 31)),
        grid=decision_grid.measure(repeats=_say("the decision grid", 3 if quick else 9)),
        steps=steps.measure(_say("steps", 3 if quick else 7), share=0.1 if quick else 1.0),
        checker=_checker(quick),
        checkers=checkers.measure(_say("other checkers", 3 if quick else 15)),
        load=(before, _load()),
    )
    options.output.mkdir(parents=True, exist_ok=True)
    text = report.markdown(figures)
    print(text)
    (options.output / "results.md").write_text(text + "\n", encoding="utf-8")
    report.plot(figures, options.output / "results.png")
    checker.plot(figures.checker, options.output / "checker.png")


def _checker(quick: bool) -> checker.Figures:
    print("measuring the checker", file=sys.stderr)
    return checker.measure(quick)


def _say(what: str, repeats: int) -> int:
    print(f"measuring {what}, {repeats} rounds", file=sys.stderr)
    return repeats


def _load() -> str:
    return f"{os.getloadavg()[0]:.1f}" if hasattr(os, "getloadavg") else "unknown"


if __name__ == "__main__":
    main()
