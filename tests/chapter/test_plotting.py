import subprocess
import sys

import matplotlib.pyplot as plt
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from matplotlib.colors import to_rgb
from witness import frozen, random_params

import spiral_autograd as sa

X = frozen(np.random.RandomState(0).standard_normal((30, 2)))
T = frozen(np.arange(30) % 3)
PARAMS = frozen(random_params(np.random.RandomState(1)))

# -------------------- the grid --------------------


def scores_on_the_grid(params, xs, ys):
    points = np.stack(np.meshgrid(xs, ys), axis=-1).reshape(-1, 2)
    return sa.predict(params, points)


@pytest.fixture(scope="module")
def trained_grid(trained):
    return sa.decision_grid(trained.automatic.params, trained.x)


def test_the_figures_of_the_trained_grid(trained, trained_grid):
    xs, ys, classes = trained_grid
    assert classes.shape == (2047, 2112)
    assert classes.size == 4_323_264
    assert [f"{value:.3f}" for value in xs[:3]] == ["-1.022", "-1.021", "-1.020"]
    assert f"{ys[0]:.3f}" == "-0.989"
    for grid, column in ((xs, trained.x[:, 0]), (ys, trained.x[:, 1])):
        assert grid.tobytes() == np.arange(column.min() - 0.1, column.max() + 0.1, 0.001).tobytes()
    assert classes[:3, :3].tolist() == [[0] * 3] * 3
    assert classes[:3, -3:].tolist() == [[0] * 3] * 3
    assert classes[-3:, :3].tolist() == [[2] * 3] * 3
    assert classes[-3:, -3:].tolist() == [[1] * 3] * 3


def test_each_of_the_4_million_points_has_the_class_that_is_predicted(trained, trained_grid):
    xs, ys, classes = trained_grid
    for start in range(0, len(ys), 4):  # a few rows stay in the cache
        rows = slice(start, start + 4)
        scores = scores_on_the_grid(trained.automatic.params, xs, ys[rows])
        np.testing.assert_array_equal(classes[rows].ravel(), scores.argmax(axis=1))


@given(
    seed=st.integers(0, 2**32 - 1),
    hidden=st.integers(1, 12),
    classes=st.integers(1, 5),
    size=st.sampled_from([0.01, 1.0, 10.0, 1e3, 1e6]),
    h=st.sampled_from([0.013, 0.04, 0.3, 2.0]),
    dtype=st.sampled_from([np.float64, np.float32]),
)
def test_the_classes_are_those_predicted_for_any_network(seed, hidden, classes, size, h, dtype):
    rng = np.random.RandomState(seed)
    params = random_params(rng, 2, hidden, classes)
    params = frozen({name: (size * a).astype(dtype) for name, a in params.items()})
    x = frozen(rng.uniform(-1, 1, (5, 2)).astype(dtype))
    xs, ys, grid = sa.decision_grid(params, x, h)
    scores = scores_on_the_grid(params, xs, ys)
    best = scores.argmax(axis=1)
    second = np.sort(scores, axis=1)[:, -2:]
    # Where two scores are equal but for rounding, either class is right.
    rounding = 100 * np.finfo(scores.dtype).eps * np.abs(scores).max()
    tied = (second[:, -1] - second[:, 0] <= rounding) & (classes > 1)
    assert grid.shape == (len(ys), len(xs))
    np.testing.assert_array_equal(grid.ravel()[~tied], best[~tied])
    assert ((grid >= 0) & (grid < classes)).all()
    assert tied.mean() < 0.01


def test_a_grid_may_be_a_single_point():
    xs, ys, classes = sa.decision_grid(PARAMS, np.array([[0.0, 0.0]]), h=1.0)
    assert (xs.shape, ys.shape, classes.shape) == ((1,), (1,), (1, 1))
    assert classes[0, 0] == sa.predict(PARAMS, np.array([[-0.1, -0.1]])).argmax()


@pytest.mark.parametrize(
    ("params", "x", "h", "message"),
    [
        (PARAMS, np.ones((30, 3)), 0.1, "x must have two columns to be drawn in the plane, got 3"),
        (PARAMS, np.ones(2), 0.1, "x must have the shape"),
        (PARAMS, np.where(X > 2, np.nan, X), 0.1, "x must be finite"),
        (PARAMS, X[:0], 0.1, "x is empty"),
        (PARAMS, X, 0, "h must be a finite number above 0"),
        (PARAMS, X, -0.1, "h must be a finite number above 0"),
        (PARAMS, X, np.nan, "h must be a finite number above 0"),
        (PARAMS | {"W1": np.ones((3, 5))}, X, 0.1, r"x and params\['W1'\] do not fit"),
        ({"W": np.ones((2, 3))}, X, 0.1, "params must be a dict"),
        (PARAMS | {"b2": np.full(3, np.nan)}, X, 0.1, r"params.*finite"),
    ],
)
def test_bad_input_of_the_grid_is_named(params, x, h, message):
    with pytest.raises(ValueError, match=message):
        sa.decision_grid(params, x, h)
    with pytest.raises(ValueError, match=message):
        sa.plot_decision_boundary(params, x, T[: len(x)], h)
    assert plt.get_fignums() == []


# -------------------- the pictures --------------------


@pytest.fixture
def state():
    return sa.fit(PARAMS, X, T, max_epoch=6, batch_size=10, eval_interval=3, rng=0)


DRAWINGS = {
    "data": lambda state, ax=None: sa.plot_data(X, T, ax=ax),
    "loss": lambda state, ax=None: sa.plot_loss(state, ax=ax),
    "boundary": lambda state, ax=None: sa.plot_decision_boundary(PARAMS, X, T, 0.1, ax=ax),
}


@pytest.fixture(params=DRAWINGS)
def draw(request):
    return DRAWINGS[request.param]


def test_a_drawing_goes_on_the_axes_that_are_given(draw, state):
    figure, (left, right) = plt.subplots(1, 2)
    assert draw(state, ax=right) is right
    assert right.has_data()
    assert not left.has_data()
    assert plt.get_fignums() == [figure.number]


def test_a_drawing_makes_its_own_figure_otherwise(draw, state):
    plt.figure()
    ax = draw(state)
    assert plt.get_fignums() == [1, ax.figure.number] == [1, 2]
    ax.figure.canvas.draw()
    assert ax.has_data()


def test_drawing_mutates_no_parameters(draw, state):
    before = {name: array.copy() for name, array in state.params.items()}
    draw(state)  # X, T and PARAMS are read-only
    np.testing.assert_equal(state.params, before)


@pytest.mark.parametrize("t", [T, np.eye(3, dtype=int)[T]], ids=["indices", "one-hot"])
def test_each_class_has_its_points_marker_and_colour(t):
    ax = sa.plot_data(X, t)
    first, second, third = ax.collections
    for k, points in enumerate((first, second, third)):
        np.testing.assert_array_equal(points.get_offsets(), X[k == T])
    expected = plt.figure().add_subplot()
    for points, marker in zip(ax.collections, "ox^", strict=True):
        (shape,) = expected.scatter([0], [0], marker=marker).get_paths()
        np.testing.assert_array_equal(points.get_paths()[0].vertices, shape.vertices)
    colours = [tuple(points.get_facecolor()[0]) for points in ax.collections]
    assert len(set(colours)) == 3


def test_the_words_on_the_picture_of_the_data():
    ax = sa.plot_data(X, T)
    assert ax.get_title() == "Spiral Data Set"
    assert ax.get_xlabel()
    assert ax.get_ylabel()
    assert [text.get_text() for text in ax.get_legend().get_texts()] == [
        "class 0",
        "class 1",
        "class 2",
    ]
    assert ax.get_aspect() == 1.0


def test_a_class_without_points_keeps_its_place():
    ax = sa.plot_data(X[:2], np.array([[1, 0, 0], [0, 0, 1]]))
    assert [len(points.get_offsets()) for points in ax.collections] == [1, 0, 1]


def test_options_are_those_of_scatter():
    ax = sa.plot_data(X, T, s=50, alpha=0.5)
    assert {points.get_sizes()[0] for points in ax.collections} == {50}
    assert {points.get_alpha() for points in ax.collections} == {0.5}


def test_a_title_that_the_caller_has_given_stays(draw, state):
    _, (left, right) = plt.subplots(1, 2)
    right.set_title("moons")
    assert draw(state, ax=right).get_title() == "moons"
    assert draw(state, ax=left).get_title() in ("Spiral Data Set", "Cross Entropy Loss")


def test_options_style_the_regions_and_the_points(state):
    scatter = {"s": 9, "alpha": 0.7}
    ax = sa.plot_decision_boundary(PARAMS, X, T, 0.1, scatter=scatter, alpha=0.5, cmap="gray")
    (image,) = ax.images
    assert (image.get_alpha(), image.get_cmap().name) == (0.5, "gray")
    assert {points.get_sizes()[0] for points in ax.collections} == {9}
    assert scatter == {"s": 9, "alpha": 0.7}
    (line,) = sa.plot_loss(state, color="red", label="sgd").lines
    assert (line.get_color(), line.get_label()) == ("red", "sgd")


def test_the_loss_is_drawn_against_the_intervals(state):
    ax = sa.plot_loss(state)
    (line,) = ax.lines
    np.testing.assert_array_equal(line.get_xdata(), np.arange(6))
    np.testing.assert_array_equal(line.get_ydata(), state.loss_list)
    assert ax.get_xlabel() == "iterations (x3)"
    assert ax.get_ylabel() == "loss"
    assert ax.get_title() == "Cross Entropy Loss"


def test_the_limits_of_the_loss_are_those_given(state):
    assert sa.plot_loss(state, ylim=(0.25, 0.75)).get_ylim() == (0.25, 0.75)
    assert sa.plot_loss(state, (0.0, 2.0)).get_ylim() == (0.0, 2.0)


def test_the_books_words_on_the_trained_runs_loss(trained):
    assert sa.plot_loss(trained.automatic).get_xlabel() == "iterations (x10)"


def test_the_regions_are_the_class_map_where_it_belongs():
    ax = sa.plot_decision_boundary(PARAMS, X, T, h=0.1)
    xs, ys, classes = sa.decision_grid(PARAMS, X, h=0.1)
    (image,) = ax.images
    assert image.origin == "lower"
    np.testing.assert_array_equal(image.get_array(), classes)
    left, right, bottom, top = image.get_extent()  # each point is the centre of its pixel
    width, height = (right - left) / len(xs), (top - bottom) / len(ys)
    np.testing.assert_allclose([left + width / 2, right - width / 2], [xs[0], xs[-1]])
    np.testing.assert_allclose([bottom + height / 2, top - height / 2], [ys[0], ys[-1]])


def test_the_data_is_drawn_above_the_regions():
    ax = sa.plot_decision_boundary(PARAMS, X, T, h=0.1)
    assert len(ax.collections) == 3
    assert min(points.get_zorder() for points in ax.collections) > ax.images[0].get_zorder()
    assert ax.get_title() == "Spiral Data Set"
    assert ax.get_aspect() == 1.0
    assert ax.get_legend() is not None


def test_a_region_is_a_paler_shade_of_its_classs_colour():
    ax = sa.plot_decision_boundary(PARAMS, X, T, h=0.1)
    (image,) = ax.images
    for k, points in enumerate(ax.collections):
        region, colour = to_rgb(image.to_rgba(np.array([[k]]))[0, 0]), points.get_facecolor()[0]
        white = [(1 - r) / (1 - c) for r, c in zip(region, colour[:3], strict=True) if c < 1]
        np.testing.assert_allclose(white, white[0], rtol=1e-12)
        assert 0.1 < white[0] < 0.5


@pytest.mark.parametrize("classes", [1, 2, 10])
def test_any_number_of_classes_has_a_colour_each(classes):
    params = random_params(np.random.RandomState(1), outputs=classes)
    t = np.arange(30) % classes
    ax = sa.plot_decision_boundary(params, X, t, h=0.1)
    assert len(ax.collections) == classes
    ax.figure.canvas.draw()


# -------------------- bad input --------------------


@pytest.mark.parametrize(
    ("x", "t", "error", "message"),
    [
        (np.ones((30, 3)), T, ValueError, "x must have two columns to be drawn in the plane"),
        (X[:0], T[:0], ValueError, "x is empty"),
        (np.where(X > 2, np.nan, X), T, ValueError, "x must be finite"),
        (X, T[:-1], ValueError, "t must be one-hot"),
        (X, np.eye(3)[T][:-1], ValueError, "t must be one-hot"),
        (X, np.zeros((30, 3)), ValueError, "t must be one-hot"),
        (X, T - 1, ValueError, "t must hold class indices"),
        (X, T.astype(float), TypeError, "t must hold class indices as integers"),
        (X, np.where(T > 1, np.nan, T), ValueError, "t must be finite"),
        (X, np.array(["a"] * 30), TypeError, "t must hold real numbers"),
        (X, 3, ValueError, "t must be one-hot"),
    ],
)
def test_bad_data_is_named_before_a_figure_is_made(x, t, error, message):
    with pytest.raises(error, match=message):
        sa.plot_data(x, t)
    with pytest.raises(error, match=message):
        sa.plot_decision_boundary(PARAMS, x, t, 0.1)
    assert plt.get_fignums() == []


@pytest.mark.parametrize("t", [T + 1, np.eye(4, dtype=int)[T]], ids=["indices", "one-hot"])
def test_labels_outside_the_networks_classes_are_refused(t):
    with pytest.raises(ValueError, match="t must"):
        sa.plot_decision_boundary(PARAMS, X, t, 0.1)


def test_a_state_without_losses_is_refused():
    state = sa.fit(PARAMS, X, T, max_epoch=1, batch_size=10, eval_interval=None, rng=0)
    with pytest.raises(ValueError, match="state has no losses to draw"):
        sa.plot_loss(state)
    assert plt.get_fignums() == []


# -------------------- the import --------------------


def test_the_package_does_not_import_matplotlib():
    code = "import sys, spiral_autograd; print([m for m in sys.modules if 'matplotlib' in m])"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout == "[]\n"
