"""Long recurrences and deep networks: right stays right, four mistakes are found, in what time.

Run with: python -m benchmarks.long_and_deep [--quick], which writes ``long_and_deep.md``.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator
from datetime import date
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

import spiral_autograd as sa

from .programs.long import GRU, LSTM, MISTAKES, Network, Recurrence, Residual

BUDGET = 1.0
WIDTH = 8
STEPS: dict[type, tuple[int, ...]] = {
    Recurrence: (10, 30, 60, 100, 200),
    LSTM: (10, 50, 100),
    GRU: (10, 50, 100),
    Network: (3, 10, 30, 50),
    Residual: (3, 10, 30, 50),
}


class Line(NamedTuple):
    """What the checks of one layer say, and what they cost."""

    layer: str
    steps: int
    dtype: str
    right: bool
    found: dict[str, bool]
    seconds: float  # of the right one
    slowest: float  # of the wrong ones


def check(
    kind: type, steps: int, dtype: Any, wrong: str = "", budget: float = BUDGET
) -> sa.GradientReport:
    """Check such a layer of a fixed width, right or with a mistake."""
    layer, x = kind(steps, WIDTH, dtype, wrong), kind.data(steps, WIDTH, dtype)  # type: ignore[attr-defined]
    return sa.check_layer(layer, x, budget=budget)


def _timed(*args: Any) -> tuple[bool, float]:
    started = time.process_time()
    report = check(*args)
    return report.ok, time.process_time() - started


def measure(longest: int = 200) -> Iterator[Line]:
    """Yield a line for each layer, length and precision."""
    for kind, lengths in STEPS.items():
        for steps in (n for n in lengths if n <= longest):
            for dtype in (np.float64, np.float32):
                right, seconds = _timed(kind, steps, dtype)
                wrong = {name: _timed(kind, steps, dtype, name) for name in MISTAKES}
                yield Line(
                    kind.__name__,
                    steps,
                    dtype.__name__,
                    right,
                    {name: not ok for name, (ok, _) in wrong.items()},
                    seconds,
                    max(spent for _, spent in wrong.values()),
                )


def row(line: Line) -> str:
    """Return a line of the table in Markdown."""
    missed = [name for name, found in line.found.items() if not found]
    found = f"{len(line.found) - len(missed)} of {len(line.found)}"
    return (
        f"| {line.layer} | {line.steps} | {line.dtype} | {'right' if line.right else '**wrong**'} "
        f"| {found}{': not ' + ', '.join(missed) if missed else ''} "
        f"| {line.seconds:.2f} | {line.slowest:.2f} |"
    )


def main() -> None:
    """Measure, and write the table."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.long_and_deep", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="up to 30 steps: a look")
    parser.add_argument("--output", type=Path, default=Path(__file__).parent, metavar="FOLDER")
    options = parser.parse_args()
    text = [
        "# Long and deep layers",
        f"{date.today().isoformat()}. Width {WIDTH}, three examples, budget {BUDGET:g} s. Each "
        f"layer as it is, and with one of {len(MISTAKES)} mistakes: {'; '.join(MISTAKES)}. The "
        "seconds are those of the processor.",
    ]
    table = [
        "| layer | steps | precision | the right one is called | mistakes found "
        "| seconds, right | seconds, slowest wrong |",
        "|---|--:|---|---|---|--:|--:|",
    ]
    print("\n\n".join(text), *table, sep="\n")
    for line in measure(30 if options.quick else 200):
        table.append(row(line))
        print(table[-1], flush=True)
    options.output.mkdir(parents=True, exist_ok=True)
    path = options.output / "long_and_deep.md"
    path.write_text("\n\n".join([*text, "\n".join(table)]) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
