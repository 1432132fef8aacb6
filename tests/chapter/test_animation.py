"""The film of a training run: what each frame shows, and the file."""

from pathlib import Path

import autograd
import autograd.numpy as anp
import matplotlib.pyplot as plt
import numpy as np
import pytest
from PIL import Image
from witness import frozen

import spiral_autograd as sa

X, T = frozen(sa.load_data(rng=1984))


def kept(**options):
    evaluations = []
    params = sa.init_params(2, 5, 3, rng=0, scale=1.0)
    options = {"max_epoch": 7, "batch_size": 30, "eval_interval": 10, "rng": 0} | options
    sa.fit(params, X, T, on_eval=evaluations.append, **options)
    return evaluations


@pytest.fixture(scope="module")
def evaluations():
    return kept()


def shown(film, tmp_path):
    """Draw the film, and return its figure's picture and two curves as the last frame has them."""
    film.save(tmp_path / "film.gif", writer="pillow")
    picture, *curves = film._fig.axes
    return picture, curves


def test_the_last_frame_shows_the_end_of_the_run(evaluations, tmp_path):
    picture, (loss, norm) = shown(sa.animate_training(evaluations, X, T, every=3, h=0.1), tmp_path)
    params = evaluations[-1].params
    expected = sa.decision_grid(params, X, 0.1)[2]
    assert (expected != sa.decision_grid(evaluations[0].params, X, 0.1)[2]).any()
    np.testing.assert_array_equal(picture.images[0].get_array(), expected)
    assert picture.get_title() == "epoch 7"
    assert loss.lines[0].get_ydata() == [now.loss for now in evaluations]
    assert loss.lines[0].get_xdata() == [1, 2, 3, 4, 5, 6, 7]
    _, grads = autograd.value_and_grad(sa.loss)(params, X, T)
    length = np.sqrt(sum(np.sum(grad**2) for grad in grads.values()))
    assert norm.lines[0].get_ydata()[-1] == pytest.approx(length, rel=1e-12)
    assert (loss.get_title(), norm.get_title()) == ("loss", "gradient's norm")
    assert plt.get_fignums() == []


def test_a_frame_shows_what_was_known_then(evaluations, tmp_path):
    film = sa.animate_training(evaluations, X, T, every=3, h=0.1)
    film.save(tmp_path / "film.gif", writer="pillow")
    assert list(film.new_frame_seq())[:4] == [0, 2, 5, 6]
    film._draw_frame(2)
    picture, loss, _ = film._fig.axes
    expected = sa.decision_grid(evaluations[2].params, X, 0.1)[2]
    np.testing.assert_array_equal(picture.images[0].get_array(), expected)
    assert loss.lines[0].get_ydata() == [now.loss for now in evaluations[:3]]


def test_the_same_run_gives_the_same_file(evaluations, tmp_path):
    files = []
    for run in (evaluations, kept()):
        film = sa.animate_training(run, X, T, every=7, h=0.1)
        film.save(tmp_path / "film.gif", writer="pillow")
        files.append((tmp_path / "film.gif").read_bytes())
    assert files[0] == files[1]
    with Image.open(tmp_path / "film.gif") as gif:
        assert gif.size == (480, 270)


def test_any_network_is_filmed(tmp_path):
    def predict(params, x):
        return anp.dot(anp.tanh(x @ params[0]), params[1])

    def loss(params, x, t):
        return anp.mean((predict(params, x) - t) ** 2)

    evaluations, start = [], [np.eye(2, 4), np.ones((4, 3))]
    options = {"max_epoch": 2, "batch_size": 150, "eval_interval": 1, "rng": 0}
    sa.fit(start, X, T, loss=loss, on_eval=evaluations.append, **options)
    film = sa.animate_training(evaluations, X, T, h=0.2, loss=loss, predict=predict)
    picture, (curve, _) = shown(film, tmp_path)
    assert curve.lines[0].get_xdata() == [0.5, 1.0, 1.5, 2.0]
    assert picture.images[0].get_array().shape == sa.decision_grid(lambda x: x, X, 0.2)[2].shape


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"evaluations": []}, ValueError, "evaluations is empty"),
        ({"evaluations": [1.0]}, TypeError, r"evaluations\[0\] must be an Evaluation"),
        ({"every": 0}, ValueError, "every must be"),
        ({"h": -1.0}, ValueError, "h must be"),
        ({"x": np.ones((300, 3))}, ValueError, "x"),
        ({"t": T[:5]}, ValueError, "t must be"),
    ],
)
def test_bad_input_is_named(evaluations, changes, error, message):
    arguments = {"evaluations": evaluations, "x": X, "t": T, "h": 0.1} | changes
    with pytest.raises(error, match=message):
        sa.animate_training(**arguments)


def test_the_film_of_the_readme_is_small_enough_for_it():
    path = Path(__file__).parents[2] / "docs" / "watch_it_learn.gif"
    assert path.stat().st_size <= 700_000
    with Image.open(path) as gif:
        assert gif.size == (480, 270)
        assert gif.n_frames == 31  # the first epoch, and every tenth
