"""Each gradient twice: derived by hand, and by autograd from the forward pass alone.

The two share no code and agree to the last digits, node by node and for the whole network. The
last cells show the one place where the book's loss and its backward pass differ, and by how much.
"""

# %% Some inputs
import autograd
import autograd.numpy as np
from autograd.builtins import tuple as traced_tuple
from autograd.misc.flatten import flatten

import spiral_autograd as sa
from spiral_autograd import manual

rng = np.random.RandomState(1984)
x, y, g, h = rng.randn(4, 5, 4)
W, b, row = rng.randn(4, 4), rng.randn(4), rng.randn(1, 4)
t = np.eye(4)[[0, 1, 2, 3, 0]]


# %% The comparison: both gradients from one upstream gradient
def difference(by_hand, automatic):
    by_hand, automatic = flatten(by_hand)[0], flatten(automatic)[0]
    return np.abs(by_hand - automatic).max() / np.abs(automatic).max()


def compare(node, automatic, inputs, upstream, *constants):
    _, residuals = getattr(manual, node)(*inputs, *constants)
    by_hand = getattr(manual, f"{node}_backward")(upstream, residuals)
    vjp, _ = autograd.make_vjp(automatic, tuple(range(len(inputs))))(*inputs, *constants)
    print(f"{node:18}{difference(by_hand, vjp(upstream)):.0e}")
    assert difference(by_hand, vjp(upstream)) < 1e-12


# %% The nodes: the largest difference, relative to the largest entry
compare("add", lambda x, y: x + y, (x, y), g)
compare("multiply", lambda x, y: x * y, (x, y), g)
compare("branch", lambda x: traced_tuple((x, x)), (x,), (g, h))
compare("repeat", lambda row, n: np.repeat(row, n, axis=0), (row,), g, 5)
compare("sum", lambda x: np.sum(x, axis=0, keepdims=True), (x,), row)
compare("matmul", np.dot, (x, W), g)
compare("affine", sa.affine, (x, W, b), g)
# The plain quotient: the rule y (1 - y) is built into sa.sigmoid, so that it would prove nothing.
compare("sigmoid", lambda x: 1 / (1 + np.exp(-x)), (x,), g)
compare("softmax", sa.softmax, (x,), g)
compare("cross_entropy", lambda y, t: -np.sum(t * np.log(y)) / len(y), (sa.softmax(x),), 1.0, t)
compare("softmax_with_loss", sa.cross_entropy, (x,), 1.0, t)

# %% The whole network, with weights of an ordinary size
data = sa.load_data(rng=1984)
params = sa.init_params(2, 10, 3, rng=rng, scale=1.0)
loss, by_hand = manual.value_and_grad(params, *data)
same_loss, automatic = autograd.value_and_grad(sa.loss)(params, *data)

for name in params:
    print(f"{name:18}{difference(by_hand[name], automatic[name]):.0e}")
    assert difference(by_hand[name], automatic[name]) < 1e-12
assert np.isclose(loss, same_loss, rtol=1e-12, atol=0)


# %% The book's program adds 1e-07 inside its logarithm; its backward pass leaves that out
def book_loss(scores, t):
    return -np.sum(t * np.log(sa.softmax(scores) + 1e-7)) / len(scores)


def handwritten(scores, t):
    _, residuals = manual.softmax_with_loss(scores, t)
    return manual.softmax_with_loss_backward(1.0, residuals)


apart = difference(handwritten(x, t), autograd.grad(book_loss)(x, t))
print(f"with 1e-07 inside the logarithm: {apart:.1e}")
assert 1e-7 < apart < 1e-5

# %% The less likely the right class, the larger the gap: the factor is p / (p + 1e-07)
right = np.array([[1.0, 0.0]])
for p in (0.5, 1e-3, 1e-5, 3e-7):
    scores = np.log([[p, 1 - p]])
    factor = autograd.grad(book_loss)(scores, right) / handwritten(scores, right)
    print(f"p = {p:.0e}  true gradient / handwritten = {factor[0, 0]:.7f}")
    assert np.allclose(factor, p / (p + 1e-7), rtol=1e-9, atol=0)
