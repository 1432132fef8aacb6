"""Mistakes as strangers make them, in the styles of courses: found, explained, and at the line.

What is not reached yet stands in `strangers._unreached`, with what is said instead, so that no more
is claimed than holds, and nothing that holds is lost. EXAMPLES_SHARE=1 runs all of them.
"""

import warnings

import pytest
from effort import SHARE, some
from strangers import STREETS, Street, judge, streets
from strangers._unreached import LINES, REASONS

BUDGET = 10.0
REASONS_REACHED, LINES_REACHED, FALSE_REASONS = 0.95, 0.90, 0
SOUGHT = {
    f"{street.name}/{mistake.name}": (street, mistake)
    for street in streets()
    for mistake in street.module.MISTAKES
}
REACHED = [name for name in SOUGHT if name not in REASONS and name not in LINES]
DRAWN = list(SOUGHT) if SHARE == 1 else some(REACHED)


@pytest.fixture(scope="module")
def judged(tmp_path_factory):
    folder, it = tmp_path_factory.mktemp("strangers"), {}
    for name in DRAWN:
        street, mistake = SOUGHT[name]
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", RuntimeWarning)  # the mistake's own overflow
            report, path, numbers = street.report(mistake, folder, budget=BUDGET)
        it[name] = judge(mistake, report, path, numbers, street.right)
    return it


@pytest.mark.parametrize("name", STREETS)
def test_the_right_versions_are_right(name):
    for check in Street(name).module.CHECKS.values():
        report = check()
        assert report.ok, report
        assert not [row for row in report.rows if row.rule is not None], report


def test_every_mistake_is_found(judged):
    assert [name for name, it in judged.items() if not it.found] == []


def test_the_reason_is_the_one_that_a_teacher_gives(judged):
    wrong = [name for name, it in judged.items() if it.reason != "true" and _has_reason(name)]
    assert [(name, judged[name].said) for name in wrong if name not in REASONS] == []


def test_no_reason_is_false(judged):
    false = [name for name, it in judged.items() if it.reason == "false"]
    assert [name for name in false if not REASONS.get(name, "").startswith("false")] == []


def test_the_line_is_the_one_that_was_edited(judged):
    wrong = [name for name, it in judged.items() if it.line != "exact"]
    assert [(name, judged[name].said) for name in wrong if name not in LINES] == []


def test_what_is_listed_is_not_reached(judged):
    true = {name for name, it in judged.items() if it.reason == "true"}
    exact = {name for name, it in judged.items() if it.line == "exact"}
    assert not true & REASONS.keys() | exact & LINES.keys()


def test_the_shares_that_are_reached():
    assert len(SOUGHT) >= 200
    nameable = [name for name in SOUGHT if _has_reason(name)]
    false = [name for name, said in REASONS.items() if said.startswith("false")]
    assert {*REASONS, *LINES} <= SOUGHT.keys()
    assert 1 - len(REASONS) / len(nameable) >= REASONS_REACHED
    assert 1 - len(LINES) / len(SOUGHT) >= LINES_REACHED
    assert len(false) <= FALSE_REASONS


def _has_reason(name):
    return bool(SOUGHT[name][1].says)
