"""Right layers that nobody wrote down, and wrong ones with one edit: all verdicts are true.

EXAMPLES_SHARE=50 draws thousands. Where one fails, it prints its seed, its plan, its edit and
by how much the edit is wrong: ``plans.draw(random.Random(seed))`` gives the plan again.
"""

import random

import numpy as np
import pytest
from effort import examples
from generated import conventions, plans
from generated.conventions import GRADIENTS, LAYERS, LOSS_LAYERS, as_object, network
from hypothesis import HealthCheck, Phase, assume, example, given, note, settings
from hypothesis import strategies as st

BUDGET = 0.0  # for the reason, which is not judged here

SEEDS = st.integers(0, 2**32 - 1)
FORMS = {
    "layer": (LAYERS, {}),
    "loss": (GRADIENTS, {"loss": True}),
    "loss layer": (LOSS_LAYERS, {"loss": True}),
    "network": ([network], {"loss": True, "chain": True}),
}

pytestmark = [pytest.mark.filterwarnings("error"), pytest.mark.usefixtures("verdicts_alone")]
generated = settings(
    max_examples=examples(40, least=2),
    phases=[Phase.explicit, Phase.generate],  # a smaller seed is no smaller plan
    suppress_health_check=[
        HealthCheck.too_slow,
        HealthCheck.filter_too_much,
        HealthCheck.function_scoped_fixture,
    ],
)


def drawn(form, stream):
    """Return a check, a plan for it and the plan's truth."""
    checks, how = FORMS[form]
    plan, truth = plans.draw(stream, **how)
    assume(plan.params or form != "loss")
    check = stream.choice(checks)
    note(f"{check.__name__}: {plan.text}")
    return check, plan, truth


@pytest.mark.parametrize("form", FORMS)
@given(seed=SEEDS)
@example(seed=114957)  # float32 makes a quarter of a per cent of a gradient near zero
@generated
def test_what_is_right_is_called_right(form, seed):
    check, plan, _ = drawn(form, random.Random(seed))
    report = check(plan, None, budget=BUDGET)
    assert report.ok, str(report)
    assert report.rows


@pytest.mark.parametrize("form", FORMS)
@given(seed=SEEDS)
@example(seed=10769)  # a fifth of a gradient that is no larger than what rounding may be
@generated
def test_one_wrong_step_is_found(form, seed):
    stream = random.Random(seed)
    check, plan, truth = drawn(form, stream)
    edit = plans.draw_edit(plans.Choices(stream), plan)
    note(str(edit))
    share = truth.share_wrong(edit, plan.params if form == "loss" else None)
    note(f"off by {share} of the own row or column")
    assume(share > 0)
    report = check(plan, edit, budget=BUDGET)
    assert not report.ok, str(report)


STATES = {
    conventions.Accumulating: True,
    conventions.OneAccumulating: False,
    conventions.Stale: False,
    conventions.WrongFromTheThird: False,
}


@pytest.mark.parametrize("kind", STATES, ids=lambda kind: kind.__name__)
@given(seed=SEEDS)
@example(seed=7744)
@generated
def test_what_is_left_of_earlier_calls_is_found(kind, seed):
    plan, _ = plans.draw(random.Random(seed))
    note(plan.text)
    assume(len(plan.params) > 1)
    grads = plans.gradients(plan)
    assume(all(np.abs(grads[name]).max() > 1e-3 for name in plan.params))
    if kind is conventions.Stale:  # it shows only where other inputs have other gradients
        other = plans.gradients(plan._replace(inputs=tuple(1.01 * x for x in plan.inputs)))
        assume(any(np.abs(other[k] - grads[k]).max() > 1e-4 for k in grads))
    report = as_object(kind)(plan, None, budget=BUDGET)
    assert report.ok is STATES[kind], str(report)


# -------------------- the generators themselves --------------------


def quotient(plan, direction, step):
    """Return the difference quotient of the output along a direction, in long double."""
    inputs, params, upstream = plan.cast(np.longdouble)

    def at(h):
        moved = [x + h * d for x, d in zip([*inputs, *params.values()], direction, strict=True)]
        values = dict(zip(params, moved[len(inputs) :], strict=True))
        y, _ = plans.forward(plan.steps, moved[: len(inputs)], values)
        return np.sum(y * upstream)

    with np.errstate(all="ignore"):
        coarse, fine = ((at(h) - at(-h)) / (2 * h) for h in (step, step / 2))
    return (4 * fine - coarse) / 3, abs(fine - coarse)


@pytest.mark.parametrize("seed", range(60))
def test_the_truth_is_that_of_differences(seed):
    stream, rng = random.Random(seed), np.random.default_rng(seed)
    plan, truth = plans.draw(stream, loss=seed % 2 == 0)
    if any(np.any(touched) for touched in truth.touched.values()):
        pytest.skip("at a kink")
    arrays = [*plan.inputs, *plan.params.values()]
    direction = [np.abs(a).max() * rng.normal(size=a.shape) for a in arrays]
    terms = [np.sum(g * d) for g, d in zip(truth.true.values(), direction, strict=True)]
    numeric, doubt = quotient(plan, direction, np.longdouble(1e-6))
    if doubt > 1e-4 * np.sum(np.abs(terms)):
        pytest.skip("too steep for differences")
    assert abs(numeric - sum(terms)) <= 1e-5 * np.sum(np.abs(terms)) + 1e-15, plan.text


def test_the_generators_reach_every_operation_and_every_change():
    names, edits = set(), set()
    for seed in range(400):
        stream = random.Random(seed)
        try:
            plan = plans.draw_plan(plans.Choices(stream), loss=seed % 4 == 0)
        except plans.Unfit:
            continue
        names |= {step.operation.name for step in plan.steps}
        edits.add(plans.draw_edit(plans.Choices(stream), plan).change)
    assert len(names) > 45, names
    assert set(plans.CHANGES) < edits, edits
