"""A layer with a real mistake: the report that names it, and the mend.

The layer is plain NumPy, as a reader of the chapter writes it. The checker runs it unmodified,
compares its backward pass with autograd's, and says which gradient is wrong, why, and where.
"""

# %% A handwritten layer, in which one thing is wrong
import numpy as np

import spiral_autograd as sa


class Affine:
    def __init__(self, W, b):
        self.params = [W, b]
        self.grads = [np.zeros_like(W), np.zeros_like(b)]

    def forward(self, x):
        W, b = self.params
        self.x = x
        return np.dot(x, W) + b

    def backward(self, dout):
        W, _ = self.params
        dx = np.dot(dout, W.T)
        dW = np.dot(self.x.T, dout)
        db = np.mean(dout, axis=0)
        self.grads[0][...] = dW
        self.grads[1][...] = db
        return dx


rng = np.random.RandomState(0)
layer = Affine(rng.randn(4, 3), rng.randn(3))
x = rng.randn(5, 4)

# %% Is it right?
report = sa.check_layer(layer, x)
print(report)
assert not report.ok
assert [row.verdict for row in report.rows] == ["exact", "exact", "wrong"]


# %% The mend: b is added to each row of the batch, so its gradient is their sum
class Mended(Affine):
    def backward(self, dout):
        dx = super().backward(dout)
        self.grads[1][...] = np.sum(dout, axis=0)
        return dx


report = sa.check_layer(Mended(*layer.params), x)
report.raise_if_wrong()
print(report)
