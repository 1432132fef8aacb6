"""What the network has learnt: the class that it gives to every point of the plane.

A grid of more than four million points, 0.001 apart, shows the curves between the three arms.
"""

# %% Training
from pathlib import Path

import numpy as np

import spiral_autograd as sa

rng = np.random.RandomState(1984)
x, t = sa.load_data(rng)
params = sa.init_params(2, 10, 3, rng=rng)
state = sa.fit(params, x, t, optimizer=sa.sgd(1.0), max_epoch=300, batch_size=30, rng=rng)

# %% The class at each point of the grid
xs, ys, classes = sa.decision_grid(state.params, x, h=0.001)
print(f"{len(xs)} columns by {len(ys)} rows, {classes.size:,} points")
assert classes.shape == (2047, 2112)

# %% The picture
output = Path("spiral-output")
output.mkdir(exist_ok=True)
ax = sa.plot_decision_boundary(state.params, x, t)
ax.figure.savefig(output / "06_decision_boundary.png", dpi=150, bbox_inches="tight")

# %% The corners of the map: its first and its last three rows
print(classes[:3])
print(classes[-3:])
ends = [0, 1, 2, -3, -2, -1]
assert np.array_equal(classes[:3, ends], [[0, 0, 0, 0, 0, 0]] * 3)
assert np.array_equal(classes[-3:, ends], [[2, 2, 2, 1, 1, 1]] * 3)

# %% The scores of the first five grid points
first = np.stack([xs[:5], np.full(5, ys[0])], axis=1)
scores = sa.predict(state.params, first)
print(scores)

book = [
    [7.0750414, -6.07991423, -1.0589919],
    [7.07900866, -6.07605854, -1.06679914],
    [7.08296037, -6.07223889, -1.07455478],
    [7.08689655, -6.06845546, -1.08225869],
    [7.09081721, -6.0647084, -1.0899107],
]
assert np.array_equal(scores.round(8), book)
print("the book's scores, to eight decimals")
