"""Long recurrences and deep networks: rounding grows with each step, and hides no mistake."""

from itertools import product

import numpy as np
import pytest
from effort import some

from benchmarks.long_and_deep import check
from benchmarks.programs.long import GRU, LSTM, MISTAKES, Network, Recurrence, Residual

LENGTHS = [
    (Recurrence, 40, np.float64),
    (Recurrence, 12, np.float32),
    (LSTM, 20, np.float64),
    (GRU, 20, np.float64),
    (Network, 30, np.float64),
    (Network, 10, np.float32),
    (Residual, 30, np.float64),
]


@pytest.mark.usefixtures("verdicts_alone")
@pytest.mark.parametrize(("length", "wrong"), some(product(LENGTHS, MISTAKES), 5))
def test_a_mistake_is_found_however_many_steps_there_are(length, wrong):
    report = check(*length, wrong, budget=0)
    assert not report.ok, str(report)


@pytest.mark.parametrize(("kind", "steps", "dtype"), [*LENGTHS, (Recurrence, 200, np.float64)])
def test_a_right_layer_stays_right(kind, steps, dtype):
    report = check(kind, steps, dtype)
    assert report.ok, str(report)
    assert all(row.verdict in ("exact", "match") for row in report.rows), str(report)
