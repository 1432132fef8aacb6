"""Judge the reports: ``python tests/strangers/run.py [part of a name]``.

``--write`` in place of the name writes anew what is not reached, with what is said instead.
"""

import sys
import tempfile
import time
import warnings
from collections import Counter
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))
from strangers import FOLDER, judge, streets

HEAD = '"""What is not reached: what is said instead (by kinds), written by `run.py --write`."""\n'


def judged(only=""):
    """Yield each mistake with its name, the judgement and the seconds that it took."""
    with tempfile.TemporaryDirectory() as folder:
        for street in streets():
            for mistake in street.module.MISTAKES:
                name = f"{street.name}/{mistake.name}"
                if only in name:
                    start = time.process_time()
                    it = judge(mistake, *street.report(mistake, folder), street.right)
                    yield name, mistake, it, time.process_time() - start


def show(name, mistake, it, seconds):
    """Print a judgement: the lines behind a reason are those said, the forward one first."""
    good = it.found and it.reason == ("true" if mistake.says else "none") and it.line == "exact"
    kinds = "/".join(sorted(mistake.says)) or "no reason"
    print(
        f"## {name} {'GOOD' if good else 'BAD'} reason {it.reason}, line {it.line}"
        f" (wanted {list(it.wanted)}: {kinds} {' '.join(mistake.of)})"
        f"{'' if it.found else ' NOT FOUND'} {seconds:.1f} s\n    {it.said}",
        flush=True,
    )


def main(only=""):
    write = only == "--write"
    counts, times, reasons, lines = Counter(), [], {}, {}
    for name, mistake, it, seconds in judged("" if write else only):
        show(name, mistake, it, seconds)
        times.append(seconds)
        nameable = bool(mistake.says)
        counts.update({"all": 1, f"reason {it.reason}": nameable, f"line {it.line}": 1})
        counts.update({"not found": not it.found, "no reason, honest": not nameable})
        if it.reason != "true" and (nameable or it.reason == "false"):
            reasons[name] = ", ".join((it.reason, *it.kinds))
        if it.line != "exact":
            lines[name] = it.line
    times = times or [0.0]
    print(dict(counts), f"median {sorted(times)[len(times) // 2]:.2f} s, max {max(times):.1f} s")
    if write:
        tables = [f"\n{n} = {_dict(t)}" for n, t in (("REASONS", reasons), ("LINES", lines))]
        (FOLDER / "_unreached.py").write_text(HEAD + "".join(tables), encoding="utf-8")


def _dict(table):
    return "".join(["{\n", *(f'    "{name}": "{said}",\n' for name, said in table.items()), "}\n"])


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    main(*sys.argv[1:])
