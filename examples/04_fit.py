"""The same training with `sa.fit`, in two calls, and a picture of the loss.

`fit` is a function from a state to a state: what it returns is all that it needs to go on.
"""

# %% The data, the parameters and the options
from pathlib import Path

import numpy as np

import spiral_autograd as sa

rng = np.random.RandomState(1984)
x, t = sa.load_data(rng)
params = sa.init_params(2, 10, 3, rng=rng)
options = {"optimizer": sa.sgd(1.0), "batch_size": 30, "eval_interval": 10, "on_eval": print}

# %% The first 100 epochs
state = sa.fit(params, x, t, max_epoch=100, rng=rng, **options)

# %% And 200 more: the state knows its epoch, its losses and the stream of its shuffles
state = sa.fit(state, x, t, max_epoch=200, **options)

# %% The loss, one point an epoch: no seam where the second call begins
output = Path("spiral-output")
output.mkdir(exist_ok=True)
ax = sa.plot_loss(state, ylim=(0, 1.2))
ax.axvline(100, color="0.6", linestyle=":")
ax.text(102, 1.14, "second call", color="0.4")
ax.figure.savefig(output / "04_loss.png", dpi=150)

# %% The book's figures, as if the run had never stopped
print("epochs", state.epoch)
print("first losses", *(f"{loss:.2f}" for loss in state.loss_list[:5]))
print("last losses", *(f"{loss:.2f}" for loss in state.loss_list[-5:]))
assert np.round(state.loss_list[:5], 2).tolist() == [1.13, 1.13, 1.12, 1.12, 1.11]
assert np.round(state.loss_list[-5:], 2).tolist() == [0.11, 0.12, 0.11, 0.11, 0.11]
