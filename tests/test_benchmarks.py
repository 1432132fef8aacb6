"""The benchmarks' programs do what is timed: each trains the same network."""

import importlib
import pkgutil

import numpy as np
import pytest

import benchmarks
from benchmarks.programs import installed, module
from benchmarks.spiral import task

MODULES = sorted(
    m.name
    for m in pkgutil.walk_packages(benchmarks.__path__, "benchmarks.")
    if not m.name.endswith("__main__") and ".programs." not in m.name
)
TRAINED = [name for name, program in installed().items() if program.trains]


@pytest.mark.parametrize("name", MODULES)
def test_every_module_can_be_imported(name):
    assert importlib.import_module(name).__doc__


@pytest.mark.parametrize("name", TRAINED)
def test_every_program_trains_the_same_network(name):
    expected = module("handwritten").train(task(), 1.0, 3, 30)
    trained = module(name).train(task(), 1.0, 3, 30)
    for key, array in expected.items():
        np.testing.assert_allclose(trained[key], array, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("name", installed())
def test_the_steps_of_every_program_run(name):
    params, x, t, _ = task()
    before = {key: array.copy() for key, array in params.items()}
    module(name).steps(params, x[:30], t[:30], 0.1)(3)
    np.testing.assert_equal(params, before)
