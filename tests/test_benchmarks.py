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


@pytest.mark.parametrize("name", MODULES)
def test_every_module_can_be_imported(name):
    assert importlib.import_module(name).__doc__


@pytest.mark.parametrize("name", installed())
def test_every_program_trains_the_same_network(name):
    expected = module("handwritten").train(task(), 1.0, 3, 30)
    start = task()
    trained = module(name).train(start, 1.0, 3, 30)
    np.testing.assert_equal(start.params, task().params)
    for key, array in expected.items():
        np.testing.assert_allclose(trained[key], array, rtol=1e-10, atol=1e-10)
