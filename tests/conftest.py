from types import SimpleNamespace

import autograd
import hypothesis
import matplotlib
import matplotlib.pyplot as plt
import numpy as np
import pytest
from effort import SHARE, examples
from witness import departure

import spiral_autograd as sa
from spiral_autograd.derive import cached
from spiral_autograd.gradcheck import checks, guard
from spiral_autograd.gradcheck.where import Where

guard.STRICT = True  # what fails beside a verdict is raised here, and not only said
matplotlib.use("Agg")
hypothesis.settings.register_profile(
    "suite", derandomize=True, database=None, deadline=None, max_examples=examples(40)
)
hypothesis.settings.load_profile("suite")


@pytest.fixture(autouse=True)
def _close_figures():
    yield
    plt.close("all")


@pytest.fixture(autouse=True, scope="module")
def _forget_losses():
    """Let no module, and no document behind them, meet the warnings of another's losses."""
    yield
    cached._known.clear()


@pytest.fixture
def no_lines(monkeypatch):
    """Do not search for lines, of which a test says nothing, but where all examples run."""
    if SHARE < 1:
        monkeypatch.setattr(Where, "places", lambda *asked: ())
        monkeypatch.setattr(Where, "remedy", lambda *asked, **how: None)


@pytest.fixture
def verdicts_alone(no_lines, monkeypatch):
    """Do not search for reasons either."""
    if SHARE < 1:
        of = checks.How.of

        def at_once(*given, **named):
            return of(*given, **named)._replace(budget=0.0)

        monkeypatch.setattr(checks.How, "of", at_once)


@pytest.fixture(scope="session")
def trained():
    """Both runs of facts.md, and on the way every one of the automatic run's batches compared."""
    stream = np.random.RandomState(1984)
    x, t = sa.load_data(stream)
    params = sa.init_params(2, 10, 3, rng=stream)
    automatic = autograd.value_and_grad(sa.loss)
    departures, evaluations = [], []

    def both(params, x, t):
        value, grads = automatic(params, x, t)
        by_hand_value, by_hand = sa.manual.value_and_grad(params, x, t)
        differences = {name: departure(by_hand[name], grads[name]) for name in params}
        departures.append(differences | {"loss": departure(by_hand_value, value)})
        return value, grads

    def run(value_and_grad, on_eval=None):
        return sa.fit(
            params,
            x,
            t,
            value_and_grad=value_and_grad,
            optimizer=sa.sgd(1.0),
            max_epoch=300,
            batch_size=30,
            eval_interval=10,
            rng=stream,
            on_eval=on_eval,
        )

    return SimpleNamespace(
        x=x,
        t=t,
        params=params,
        stream=stream,
        automatic=run(both, evaluations.append),
        handwritten=run(sa.manual.value_and_grad),
        departures=departures,
        evaluations=evaluations,
    )
