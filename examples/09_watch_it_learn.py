"""Watch it learn: the regions, the loss and the gradient's norm while the network is trained.

`fit` hands an evaluation with the parameters to `on_eval`; kept, they are a film of the run.

![The film of this run](../docs/watch_it_learn.gif)
"""

# %% Training; every epoch is kept
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np

import spiral_autograd as sa

rng = np.random.RandomState(1984)
x, t = sa.load_data(rng)
params = sa.init_params(2, 10, 3, rng=rng)
evaluations = []
state = sa.fit(
    params,
    x,
    t,
    optimizer=sa.sgd(1.0),
    max_epoch=300,
    batch_size=30,
    eval_interval=10,
    on_eval=evaluations.append,
    rng=rng,
)
print(len(evaluations), "epochs kept")

# %% The film: a frame for every tenth of them
film = sa.animate_training(evaluations, x, t, every=10)

output = Path("spiral-output")
output.mkdir(exist_ok=True)
film.save(output / "09_watch_it_learn.gif", writer="pillow")
print(f"{(output / '09_watch_it_learn.gif').stat().st_size / 1000:.0f} kB")

# %% Four moments of it: after 60 epochs almost straight lines, at the end the arms
figure, axes = plt.subplots(1, 4, figsize=(14, 3.9), layout="constrained")
for ax, epoch in zip(axes, (1, 60, 100, 300), strict=True):
    now = evaluations[epoch - 1]
    ax.set_title(f"epoch {epoch}, loss {now.loss:.2f}")
    sa.plot_decision_boundary(now.params, x, t, h=0.01, ax=ax, scatter={"s": 12})
    ax.label_outer()
    print(f"epoch {epoch}: loss {now.loss:.2f}, accuracy {sa.accuracy(now.params, x, t):.2f}")
figure.savefig(output / "09_watch_it_learn.png", dpi=110)
