"""Two gradients side by side: shapes, tolerances, floors; and the same for large arrays."""

import numpy as np
import pytest
from findings import has

from spiral_autograd.gradcheck.blocks import apart, blocks, close, inner, largest, moved
from spiral_autograd.gradcheck.reference.reference import SHARPNESS, Reference, by_differences
from spiral_autograd.gradcheck.verdict.rows import compare, compare_directions

SHARP = SHARPNESS["autograd", False]
G = np.random.default_rng(0).normal(size=(4, 3))


def verdict(h, g=G, floor=0.0, sharp=SHARP):
    return compare("W", h, g, sharp, floor).verdict


# -------------------- small arrays --------------------


@pytest.mark.parametrize(
    ("factor", "expected"),
    [(0.0, "exact"), (1e-12, "match"), (1e-7, "approximate"), (1e-3, "wrong")],
)
def test_the_verdict_follows_the_relative_difference(factor, expected):
    assert verdict(G * (1 + factor)) == expected
    assert verdict(1e9 * G * (1 + factor), 1e9 * G) == expected


@pytest.mark.parametrize("key", SHARPNESS)
def test_the_tolerances_are_those_of_the_reference(key):
    sharp = SHARPNESS[key]
    for tolerance, inside, outside in (
        (sharp.match, "match", "approximate"),
        (sharp.approximate, "approximate", "wrong"),
    ):
        assert verdict(G * (1 + 0.9 * tolerance), sharp=sharp) == inside
        assert verdict(G * (1 + 1.2 * tolerance), sharp=sharp) == outside


@pytest.mark.parametrize("shape", [(3,), (1, 3), (4, 1), (4, 3, 1), (12,), (3, 4), ()])
def test_shapes_are_compared_and_never_broadcast(shape):
    row = compare("W", np.zeros(shape), np.zeros((4, 3)), SHARP, 0.0)
    assert row.verdict == "wrong"
    assert has(row, "shape", ours=shape, theirs=(4, 3))


def test_the_largest_difference_is_named_where_it_is():
    h = G.copy()
    h[2, 1] += 0.5
    h[0, 0] -= 0.25
    row = compare("W", h, G, SHARP, 0.0)
    assert row.index == (2, 1)
    assert row.max_abs == pytest.approx(0.5)
    assert row.max_rel == pytest.approx(0.5 / max(np.abs(h).max(), np.abs(G).max()))
    assert row.scale == np.abs(G).max()


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_what_is_not_finite_is_wrong_and_named(bad):
    h = G.copy()
    h[1, 2] = bad
    row = compare("W", h, G, SHARP, 1.0)
    assert row.verdict == "wrong"
    assert row.index == (1, 2)


def test_no_gradient_is_missing_unless_the_true_one_is_zero():
    assert verdict(None) == "missing"
    assert verdict(None, np.zeros(3)) == "match"
    assert verdict(None, np.full(3, 1e-17), floor=1e-16) == "match"


def test_a_floor_lets_rounding_pass_where_the_true_gradient_is_zero():
    assert verdict(np.full(3, 1e-16), np.zeros(3)) == "wrong"
    assert verdict(np.full(3, 1e-16), np.zeros(3), floor=1e-15) == "match"


def test_words_are_no_gradient():
    row = compare("W", np.array(["a"]), np.zeros(1), SHARP, 0.0)
    assert has(row, "dtype", dtype="<U1")


def test_close_takes_no_other_shape_and_nothing_infinite():
    assert close(G, G * (1 + 1e-12), 1e-10)
    assert not close(G, G[:1], 1.0)
    assert not close(np.full(2, np.inf), np.full(2, np.inf), 1e-3)
    assert close(np.zeros(0), np.zeros(0), 0.0)
    assert close(np.zeros(2), np.full(2, 1e-16), 1e-3, floor=1e-15)
    assert not close(np.zeros(2), np.full(2, 1e-16), 1e-3)


# -------------------- along directions --------------------


def test_known_directions_alone_tell_right_from_wrong():
    rng = np.random.default_rng(1)
    parts = [rng.normal(size=G.shape) for _ in range(2)]
    along = [({0: part}, float(np.sum(G * part))) for part in parts]
    reference = Reference("central differences", False, [], by_differences, directions=along)
    assert compare_directions("W", 0, G, G.shape, reference).verdict == "match"
    wrong = compare_directions("W", 0, 1.1 * G, G.shape, reference)
    assert wrong.verdict == "wrong"
    assert has(wrong, "directions_only")
    assert compare_directions("W", 0, None, G.shape, reference).verdict == "missing"
    assert compare_directions("W", 0, G.T, G.shape, reference).verdict == "wrong"


# -------------------- block by block --------------------

SHAPES = [(), (1,), (7, 5), (200_000,), (1000, 333), (3, 70_000), (1, 100_000), (50, 60, 70)]


@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize("shape", SHAPES)
def test_blocks_give_what_the_whole_gives(shape, order):
    rng = np.random.default_rng(2)
    a, b = (np.asarray(rng.normal(size=shape), order=order) for _ in range(2))
    assert sum(a[rows].size for rows in blocks(a)) == a.size
    assert largest(a) == np.abs(a).max()
    assert inner(a, b) == pytest.approx(np.sum(a * b), abs=1e-9 * a.size)
    distance, place = apart(a, b)
    assert distance == np.abs(a - b).max()
    assert place == np.argmax(np.abs(a - b))
    parts = [moved(part, 1e-3, 1) for part in np.array_split(a.ravel(), 9)]
    np.testing.assert_array_equal(np.ravel(moved(a, 1e-3, 1)), np.concatenate(parts))


@pytest.mark.parametrize("place", [0, 70_000, 199_999])
@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_blocks_see_what_is_not_finite(place, bad):
    a = np.zeros(200_000)
    a[place] = bad
    assert not np.isfinite(largest(a))
    assert apart(a, np.zeros_like(a)) == (np.inf, place)


def test_single_precision_is_summed_in_double():
    ones = np.ones(100_000, dtype=np.float32)
    assert inner(1e-3 * ones, ones) == pytest.approx(100_000 * float(np.float32(1e-3)), rel=1e-12)
