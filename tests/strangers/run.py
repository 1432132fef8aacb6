"""Judge the reports: ``python tests/strangers/run.py [part of a name]``."""

import sys
import tempfile
import time
import warnings
from collections import Counter
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))
from strangers import judge, streets


def main(only=""):
    counts, times = Counter(), []
    with tempfile.TemporaryDirectory() as folder:
        for street in streets():
            for mistake in street.module.MISTAKES:
                name = f"{street.name}/{mistake.name}"
                if only not in name:
                    continue
                start = time.process_time()
                try:
                    report, path, numbers = street.report(mistake, folder)
                except Exception as error:
                    counts["raised"] += 1
                    print(f"## {name} RAISED {type(error).__name__}: {error}")
                    continue
                times.append(time.process_time() - start)
                it = judge(mistake, report, path, numbers)
                counts.update(["all", f"reason {it.reason}", f"line {it.line}"])
                counts["not found"] += not it.found
                good = it.reason == "true" and it.line == "exact" and it.found
                print(
                    f"## {name} {'GOOD' if good else 'BAD'} reason {it.reason}, line {it.line}"
                    f" (wanted {list(it.wanted)}: {'/'.join(sorted(mistake.says)) or 'none'}"
                    f" {' '.join(mistake.of)}){'' if it.found else ' NOT FOUND'}"
                    f" {times[-1]:.1f} s\n    {it.said}",
                    flush=True,
                )
    print(dict(counts), f"median {sorted(times)[len(times) // 2]:.2f} s, max {max(times):.1f} s")


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    main(*sys.argv[1:])
