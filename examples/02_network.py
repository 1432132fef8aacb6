"""The network as pure functions: the scores, their loss, and the gradient of the loss.

Parameters go in and a number comes out, and nothing is remembered in between. That is all that
autograd asks of a program that it is to differentiate.
"""

# %% The data and the parameters, drawn from one random stream
import autograd
import numpy as np

import spiral_autograd as sa

rng = np.random.RandomState(1984)
x, t = sa.load_data(rng)
params = sa.init_params(2, 10, 3, rng=rng)
for name, array in params.items():
    print(name, array.shape)

# %% The scores: affine, sigmoid, affine
hidden = sa.sigmoid(sa.affine(x, params["W1"], params["b1"]))
scores = sa.affine(hidden, params["W2"], params["b2"])
assert np.array_equal(scores, sa.predict(params, x))
print("scores", scores.shape)

# %% The loss: before training, nearly that of a guess among three classes
print(f"loss {sa.loss(params, x, t):.4f}, log 3 = {np.log(3):.4f}")

# %% One gradient, with one array for each parameter
grads = autograd.grad(sa.loss)(params, x, t)
for name, array in grads.items():
    print(name, array.shape, f"largest entry {np.abs(array).max():.1e}")

# %% A witness that knows no calculus: move one weight a little, both ways
step = 1e-5
W2 = params["W2"]
nudge = np.zeros_like(W2)
nudge[4, 1] = step
up = sa.loss(params | {"W2": W2 + nudge}, x, t)
down = sa.loss(params | {"W2": W2 - nudge}, x, t)
measured = (up - down) / (2 * step)

print(f"autograd {grads['W2'][4, 1]:.8f}")
print(f"measured {measured:.8f}")
assert np.isclose(grads["W2"][4, 1], measured, rtol=0, atol=1e-9)
