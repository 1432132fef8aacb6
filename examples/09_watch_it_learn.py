"""Watch it learn: the regions, the loss and the gradient's norm while the network is trained.

`fit` hands an evaluation with the parameters to `on_eval`; kept, they are a film of the run:
![the film](../docs/watch_it_learn.gif)
"""

# %% Training; every epoch is kept
from pathlib import Path

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

# %% What is seen in it: for 60 epochs next to nothing, then the arms are told apart
for epoch in (1, 60, 100, 150, 300):
    now = evaluations[epoch - 1]
    print(f"epoch {epoch}: loss {now.loss:.2f}, accuracy {sa.accuracy(now.params, x, t):.2f}")
