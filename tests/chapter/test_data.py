import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from witness import position

import spiral_autograd as sa


def by_the_loop(draw, samples=100, classes=3):
    x = np.zeros((samples * classes, 2))
    t = np.zeros((samples * classes, classes), dtype=int)
    for j in range(classes):
        for i in range(samples):
            rate = i / samples
            angle = 4.0 * j + 4.0 * rate + 0.2 * draw()
            x[samples * j + i] = rate * np.sin(angle), rate * np.cos(angle)
            t[samples * j + i, j] = 1
    return x, t


def test_the_data_is_the_loops_bit_for_bit():
    x, t = sa.load_data()
    expected_x, expected_t = by_the_loop(np.random.RandomState(1984).randn)
    np.testing.assert_array_equal(x, expected_x, strict=True)
    np.testing.assert_array_equal(t, expected_t, strict=True)


def test_the_figures_to_eight_decimals():
    x, t = sa.load_data()
    assert x.shape == (300, 2)
    assert t.shape == (300, 3)
    printed = [[f"{v:.8f}" for v in row] for row in x[96:105]]
    assert printed == [
        ["-0.78313528", "-0.55524691"],
        ["-0.68338075", "-0.68839723"],
        ["-0.67938560", "-0.70628267"],
        ["-0.58700916", "-0.79719524"],
        ["-0.00000000", "-0.00000000"],
        ["-0.00837021", "-0.00547171"],
        ["-0.01839967", "-0.00783914"],
        ["-0.02386156", "-0.01818313"],
        ["-0.02716390", "-0.02936192"],
    ]
    assert t[96:105].argmax(axis=1).tolist() == [0, 0, 0, 0, 1, 1, 1, 1, 1]


def test_a_stream_that_is_given_moves_on_by_one_normal_a_point():
    stream, other = np.random.RandomState(7), np.random.RandomState(7)
    sa.load_data(stream)
    other.randn(300)
    np.testing.assert_equal(position(stream), position(other))


def test_a_stream_that_is_given_is_drawn_from_where_it_stands():
    stream, other = np.random.RandomState(7), np.random.RandomState(7)
    stream.randn(5), other.randn(5)
    np.testing.assert_array_equal(sa.load_data(stream)[0], by_the_loop(other.randn)[0])


def test_a_generator_is_drawn_from_in_the_same_order():
    x, _ = sa.load_data(np.random.default_rng(5))
    other = np.random.default_rng(5)
    np.testing.assert_array_equal(x, by_the_loop(other.standard_normal)[0])


def test_numpys_global_stream_is_untouched():
    before = np.random.get_state(legacy=False)  # noqa: NPY002
    sa.load_data()
    sa.load_data(3)
    np.testing.assert_equal(np.random.get_state(legacy=False), before)  # noqa: NPY002


@given(samples=st.integers(1, 40), classes=st.integers(1, 6), seed=st.integers(0, 2**32 - 1))
def test_other_sizes_follow_the_same_recipe(samples, classes, seed):
    x, t = sa.load_data(seed, samples_per_class=samples, classes=classes)
    expected_x, expected_t = by_the_loop(np.random.RandomState(seed).randn, samples, classes)
    np.testing.assert_array_equal(x, expected_x, strict=True)
    np.testing.assert_array_equal(t, expected_t, strict=True)


@pytest.mark.parametrize("name", ["samples_per_class", "classes"])
@pytest.mark.parametrize(
    ("value", "error"),
    [
        *[(0, ValueError), (-3, ValueError)],
        *[(2.5, TypeError), ("3", TypeError), (True, TypeError), (np.True_, TypeError)],
    ],
)
def test_a_count_must_be_a_whole_number_of_at_least_1(name, value, error):
    with pytest.raises(error, match=f"{name} must be a whole number"):
        sa.load_data(**{name: value})


@pytest.mark.parametrize(
    ("rng", "error"),
    [(-1, ValueError), (2**32, ValueError), (None, TypeError), ("1984", TypeError)],
)
def test_rng_must_be_a_seed_or_a_stream(rng, error):
    with pytest.raises(error, match="rng must be"):
        sa.load_data(rng)
