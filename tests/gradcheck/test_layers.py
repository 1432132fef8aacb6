"""Correct handwritten layers in many conventions: none is called wrong."""

import copy
import importlib
import pkgutil
import types

import corpus
import numpy as np
import pytest
from corpus.check import Sizes
from corpus.losses import SigmoidWithLoss, SoftmaxWithLoss
from effort import examples
from findings import has
from hypothesis import given, settings
from hypothesis import strategies as st

import spiral_autograd as sa

MODULES = [
    importlib.import_module(f"corpus.{module.name}")
    for module in pkgutil.iter_modules(corpus.__path__)
    if module.name != "check"
]
LAYERS = {name: make for module in MODULES for name, make in module.CHECKS.items()}
AT_KINKS = [name for name in LAYERS if name.endswith(("_at_zero", "_ties"))]
SMOOTH = [name for name in LAYERS if name not in AT_KINKS]

SIZES = st.builds(
    Sizes,
    n=st.integers(1, 5),
    d=st.integers(1, 4),
    h=st.integers(1, 4),
    c=st.integers(2, 4),
    t=st.integers(1, 3),
    side=st.integers(2, 3),
    k=st.integers(1, 2),
)


def same(a, b, met=None):
    """Are the two deeply equal, bit for bit?"""
    met = set() if met is None else met
    if (id(a), id(b)) in met:
        return True
    met.add((id(a), id(b)))
    if type(a) is not type(b):
        return False
    if isinstance(a, np.ndarray):
        return (a.shape, a.dtype, a.tobytes()) == (b.shape, b.dtype, b.tobytes())
    if isinstance(a, dict):
        return list(a) == list(b) and all(same(a[key], b[key], met) for key in a)
    if isinstance(a, list | tuple):
        return len(a) == len(b) and all(map(same, a, b, [met] * len(a)))
    if isinstance(a, types.FunctionType | types.BuiltinFunctionType):
        return a is b
    if isinstance(a, types.MethodType):
        return a.__func__ is b.__func__ and same(a.__self__, b.__self__, met)
    if hasattr(a, "__dict__"):
        return same(vars(a), vars(b), met)
    return bool(a == b)


def run(name, sizes, seed, **options):
    check = LAYERS[name](np.random.default_rng(seed), sizes)
    before, stream = copy.deepcopy(check.arguments), np.random.get_state()  # noqa: NPY002
    report = check(**options)
    assert same(check.arguments, before), "the layer or its inputs were changed"
    assert same(stream, np.random.get_state()), "NumPy's random state was moved"  # noqa: NPY002
    return check, report


def test_the_corpus_has_many_conventions():
    assert len(SMOOTH) >= 16


@pytest.mark.parametrize("name", SMOOTH)
@given(sizes=SIZES, seed=st.integers(0, 2**32 - 1))
@settings(max_examples=examples(60, least=3), deadline=None)
def test_a_correct_layer_is_never_called_wrong(name, sizes, seed):
    check, report = run(name, sizes, seed)
    assert report.ok, str(report)
    assert report.rows
    for row in report.rows:
        assert row.verdict in check.verdicts, str(report)
        assert row.rule is None, str(report)


@pytest.mark.parametrize("name", AT_KINKS)
@given(seed=st.integers(0, 2**32 - 1))
@settings(max_examples=examples(20), deadline=None)
def test_a_kink_is_not_a_mistake(name, seed):
    _, report = run(name, Sizes(), seed)
    assert report.ok, str(report)
    assert all(row.verdict not in ("wrong", "missing") for row in report.rows), str(report)
    assert all(row.rule in (None, "kink") for row in report.rows), str(report)


@pytest.mark.parametrize("scale", [1, 10, 30, 100])
@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("kind", [SoftmaxWithLoss, SigmoidWithLoss])
def test_the_constant_in_the_logarithm_is_named_for_saturated_scores_too(kind, scale, seed):
    rng = np.random.default_rng(seed)
    shape, classes = ((5, 3), 3) if kind is SoftmaxWithLoss else ((6,), 2)
    scores, t = scale * rng.normal(size=shape), rng.integers(classes, size=shape[0])
    (row,) = sa.check_layer(kind(), scores, t).rows
    assert row.verdict == "idealised", row
    assert has(row, "idealised", constant=1e-7)


class CrossEntropy:
    def forward(self, y, t):
        self.y, self.t = y, t
        return -np.sum(t * np.log(y + 1e-7)) / len(y)

    def backward(self, dout=1):
        return -dout * self.t / self.y / len(self.y)


@pytest.mark.parametrize("seed", range(5))
def test_that_constant_is_named_where_it_hardly_matters(seed):
    rng = np.random.default_rng(seed)
    y = rng.dirichlet(np.ones(3), size=5)
    (row,) = sa.check_layer(CrossEntropy(), y, np.eye(3)[rng.integers(3, size=5)]).rows
    assert row.verdict == "idealised", row
    assert has(row, "idealised", constant=1e-7)


@pytest.mark.usefixtures("verdicts_alone")
@pytest.mark.parametrize("scale", [1, 10, 30, 100])
@pytest.mark.parametrize("factor", [-1.0, 1.01, 2.0])
def test_a_wrong_gradient_is_not_excused_by_that_constant(scale, factor):
    class Wrong(SoftmaxWithLoss):
        def backward(self, dout=1):
            return factor * super().backward(dout)

    rng = np.random.default_rng(1)
    scores, t = scale * rng.normal(size=(5, 3)), rng.integers(3, size=5)
    report = sa.check_layer(Wrong(), scores, t, budget=0.1)
    assert not report.ok, str(report)
