"""Wrong layers: every one is found, and most get the right reason and the right line.

EXAMPLES_SHARE=0.5 runs all of them.
"""

import re
import warnings

import pytest
from effort import some
from findings import has
from mutants import MUTANTS

RULES = "factor layout sum upstream value term state unwritten part kink".split()
BUDGET = 10.0
DRAWN = some(MUTANTS, 2)


def outcome(name, path):
    """Return (found, right rule, right line, what was said)."""
    mutant = MUTANTS[name]
    check = mutant.check(path)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", RuntimeWarning)  # the mutant's own overflow
            report = check(budget=BUDGET)
    except Exception as error:
        return False, False, False, f"raised {type(error).__name__}: {error}"

    rules = {row.rule for row in report.rows if row.rule is not None}
    wrong = [row for row in report.rows if row.verdict in ("wrong", "missing", "approximate")]
    lines = {
        number
        for row in report.rows
        if row.rule is not None or row in wrong
        for file, number in row.lines
        if str(file).endswith(path.name)
    }
    failures = [*report.notes, *getattr(report, "failures", ())]
    if has(getattr(report, "faults", ()), "unheld", held=[]):  # said of the whole network
        rules.add("unwritten")
    for text in failures:
        lines |= {int(number) for number in re.findall(re.escape(path.name) + r":(\d+)", text)}
    if mutant.effect:
        found, right = report.ok and bool(report.notes), not rules
    elif "kink" in mutant.rules:
        found, right = "kink" in rules, rules == {"kink"} and report.ok
    else:
        # one row at least has an expected rule, and none an unexpected one
        found = not report.ok
        # a line that is right, in the place of the edited one, is a reason of any rule
        mended = has([f for row in wrong for f in row.findings], "right_with")
        told = bool(rules) or None in mutant.rules or (mended and bool(lines & mutant.places()))
        right = found and rules <= mutant.rules and told
    said = " | ".join(
        f"{row.name}: {row.verdict} [{row.rule}] {row.why} {[n for _, n in row.lines]}"
        for row in report.rows
        if row.rule is not None or row in wrong
    )
    places = mutant.places()
    said = f"{report.reference}; {said}; notes {failures}; lines wanted {sorted(places)}"
    return found, right, bool(lines & places), said


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory):
    folder = tmp_path_factory.mktemp("mutants")
    return {name: outcome(name, folder / f"mutant_{name.replace('-', '_')}.py") for name in DRAWN}


def in_table(name):
    return not MUTANTS[name].effect and None not in MUTANTS[name].rules


def show(title, outcomes, names, index):
    missed = [name for name in names if not outcomes[name][index]]
    rate = 1 - len(missed) / len(names)
    print(f"\n{title}: {len(names) - len(missed)} of {len(names)} ({rate:.1%})")
    for name in missed:
        print(f"  {name}, expected {set(MUTANTS[name].rules)}: {outcomes[name][3]}")
    return rate


def test_there_are_enough_mutants():
    table = [mutant for name, mutant in MUTANTS.items() if in_table(name)]
    assert len(table) >= 100
    for rule in RULES:
        assert sum(rule in mutant.rules for mutant in table) >= 3
        assert sum(mutant.rules == {rule} for mutant in table) >= 3 or rule == "part"
    assert sum(None in mutant.rules and not mutant.effect for mutant in MUTANTS.values()) >= 10


def test_every_mutant_is_found(outcomes):
    assert show("found", outcomes, DRAWN, 0) == 1


def test_the_reason_is_right(outcomes):
    names = [name for name in DRAWN if in_table(name)]
    for rule in RULES:
        of_rule = [name for name in names if name.startswith(rule)]
        print(f"{rule}: {sum(outcomes[name][1] for name in of_rule)} of {len(of_rule)}")
    assert show("right reason", outcomes, names, 1) >= 0.95


def test_the_line_is_right(outcomes):
    names = [name for name in DRAWN if in_table(name)]
    assert show("right line", outcomes, names, 2) >= 0.80


def test_no_reason_is_invented_for_mistakes_outside_the_table(outcomes):
    names = [name for name in DRAWN if None in MUTANTS[name].rules]
    assert show("honest", outcomes, names, 1) == 1
