"""Training in a plain loop: shuffle, take a batch, step against its gradient.

One random stream feeds the data, then the weights, then the shuffles, as in the book. Drawn in
this order, the loop prints the book's log to the last digit.
"""

# %% The data, the parameters and the gradient
import autograd
import numpy as np

import spiral_autograd as sa

rng = np.random.RandomState(1984)
x, t = sa.load_data(rng)
params = sa.init_params(2, 10, 3, rng=rng)
value_and_grad = autograd.value_and_grad(sa.loss)

# %% The options
max_epoch = 300
batch_size = 30
learning_rate = 1.0

# %% The loop
max_iters = len(x) // batch_size
log = []
for epoch in range(max_epoch):
    # x and t themselves are re-ordered, so that each shuffle starts from the one before it.
    order = rng.permutation(len(x))
    x, t = x[order], t[order]
    losses = []
    for i in range(max_iters):
        batch = slice(i * batch_size, (i + 1) * batch_size)
        loss, grads = value_and_grad(params, x[batch], t[batch])
        params = {name: params[name] - learning_rate * grads[name] for name in params}
        losses.append(loss)
    mean = np.mean(losses)
    log.append(f"| epoch {epoch + 1} | iter {max_iters} / {max_iters} | loss {mean:.2f}")

# %% The log: its first and its last lines
print(*log[:5], "...", *log[-5:], sep="\n")
assert [line[-4:] for line in log[:5]] == ["1.13", "1.13", "1.12", "1.12", "1.11"]
assert [line[-4:] for line in log[-5:]] == ["0.11", "0.12", "0.11", "0.11", "0.11"]
print(f"accuracy {sa.accuracy(params, x, t):.1%}")
