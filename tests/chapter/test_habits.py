"""What people do without thinking: dir, repr, a figure in a notebook."""

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.figure import Figure

import spiral_autograd as sa


def test_dir_shows_the_public_names_and_no_others():
    names = set(dir(sa))
    assert set(sa.__all__) <= names
    assert {name for name in names if not name.startswith("_")} == set(sa.__all__)
    assert all(hasattr(sa, name) for name in names)


class Doubled:
    def forward(self, x):
        return 2 * x

    def backward(self, g):
        return 3 * g


def test_the_figure_of_a_report_is_not_pyplots_but_shows_in_notebooks(tmp_path):
    figure = sa.check_layer(Doubled(), np.ones(3)).plot()
    assert isinstance(figure, Figure)
    assert plt.get_fignums() == []
    assert figure._repr_png_().startswith(b"\x89PNG")
    figure.savefig(tmp_path / "figure.png")


def test_the_repr_of_a_state_is_one_short_line():
    x, t = sa.load_data()
    state = sa.fit(sa.init_params(2, 10, 3, rng=0), x, t, max_epoch=20, eval_interval=10, rng=0)
    text = repr(state)
    assert len(text) < 250
    assert "\n" not in text
    assert "epoch=20" in text
    assert f"{state.loss_list[-1]:.4g}" in text
    assert "W1'] (2, 10)" in text
    many = {f"W{k}": np.ones(2) for k in range(100)}
    state = sa.fit(many, x, loss=lambda p, x: np.sum(p["W0"]) + 0 * np.sum(x), max_epoch=1, rng=0)
    assert len(repr(state)) < 400
