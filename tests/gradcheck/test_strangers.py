"""Mistakes as strangers make them, in the styles of courses: found, explained, and at the line."""

import warnings

import pytest
from effort import SHARE
from strangers import STREETS, Street, judge, streets

BUDGET = 3.0
SOUGHT = [(street, mistake) for street in streets() for mistake in street.module.MISTAKES]
DRAWN = SOUGHT[:: max(1, round(1 / SHARE))]


@pytest.fixture(scope="module")
def judged(tmp_path_factory):
    folder, it = tmp_path_factory.mktemp("strangers"), {}
    for street, mistake in DRAWN:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", RuntimeWarning)  # the mistake's own overflow
            report, path, numbers = street.report(mistake, folder, budget=BUDGET)
        it[f"{street.name}/{mistake.name}"] = judge(mistake, report, path, numbers)
    return it


def test_there_are_enough():
    names = [f"{street.name}/{mistake.name}" for street, mistake in SOUGHT]
    assert len(names) == len(set(names)) >= 75


@pytest.mark.parametrize("name", STREETS)
def test_the_right_versions_are_right(name):
    for check in Street(name).module.CHECKS.values():
        report = check()
        assert report.ok, report
        assert not [row for row in report.rows if row.rule is not None], report


def test_every_mistake_is_found(judged):
    assert [name for name, it in judged.items() if not it.found] == []
