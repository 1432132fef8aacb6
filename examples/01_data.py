"""The spiral: three arms of a hundred points each, which no straight line can separate.

Each point has two coordinates, a row of x, and one of three classes, a one-hot row of t.
"""

# %% The data
from pathlib import Path

import numpy as np

import spiral_autograd as sa

x, t = sa.load_data(rng=1984)
print("x", x.shape)
print("t", t.shape)

# %% The picture
output = Path("spiral-output")
output.mkdir(exist_ok=True)
ax = sa.plot_data(x, t)
ax.figure.savefig(output / "01_data.png", dpi=150, bbox_inches="tight")

# %% Where one arm ends at the rim and the next begins at the centre
print(x[96:105])
print(t[96:105])

book = [
    [-0.78313528, -0.55524691],
    [-0.68338075, -0.68839723],
    [-0.6793856, -0.70628267],
    [-0.58700916, -0.79719524],
    [0.0, 0.0],
    [-0.00837021, -0.00547171],
    [-0.01839967, -0.00783914],
    [-0.02386156, -0.01818313],
    [-0.0271639, -0.02936192],
]
assert np.array_equal(x[96:105].round(8), book)
assert np.array_equal(t[96:105].argmax(axis=1), [0, 0, 0, 0, 1, 1, 1, 1, 1])
print("the book's points, to eight decimals")
