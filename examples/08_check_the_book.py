"""The chapter checked: its network as classes, each node by itself, and its loss with the 1e-07.

The network is written as a reader of "Deep Learning from Scratch 2" writes it: classes with
`forward` and `backward`, the parameters and gradients in lists. The checker runs it as it stands.
"""

# %% The layers, in plain NumPy
import numpy as np

import spiral_autograd as sa
from spiral_autograd import manual


class Affine:
    def __init__(self, W, b):
        self.params = [W, b]
        self.grads = [np.zeros_like(W), np.zeros_like(b)]

    def forward(self, x):
        self.x = x
        W, b = self.params
        return np.dot(x, W) + b

    def backward(self, dout):
        W, _ = self.params
        self.grads[0][...] = np.dot(self.x.T, dout)
        self.grads[1][...] = np.sum(dout, axis=0)
        return np.dot(dout, W.T)


class Sigmoid:
    def __init__(self):
        self.params, self.grads = [], []

    def forward(self, x):
        self.y = 1 / (1 + np.exp(-x))
        return self.y

    def backward(self, dout):
        return dout * self.y * (1 - self.y)


def softmax(scores):
    exponentials = np.exp(scores - np.max(scores, axis=1, keepdims=True))
    return exponentials / np.sum(exponentials, axis=1, keepdims=True)


class SoftmaxWithLoss:
    inside_log = 0.0

    def __init__(self):
        self.params, self.grads = [], []

    def forward(self, scores, t):
        self.y, self.t = softmax(scores), t
        return -np.sum(t * np.log(self.y + self.inside_log)) / len(t)

    def backward(self, dout=1):
        return dout * (self.y - self.t) / len(self.t)


# %% The network
class TwoLayerNet:
    def __init__(self, rng, inputs, hidden, classes, loss_layer):
        self.layers = [
            Affine(rng.randn(inputs, hidden), rng.randn(hidden)),
            Sigmoid(),
            Affine(rng.randn(hidden, classes), rng.randn(classes)),
        ]
        self.loss_layer = loss_layer
        self.params, self.grads = [], []
        for layer in self.layers:
            self.params += layer.params
            self.grads += layer.grads

    def forward(self, x, t):
        for layer in self.layers:
            x = layer.forward(x)
        return self.loss_layer.forward(x, t)

    def backward(self, dout=1):
        dout = self.loss_layer.backward(dout)
        for layer in reversed(self.layers):
            dout = layer.backward(dout)
        return dout


# %% Every layer, with its real activations and upstream gradients
def verdicts(report):
    return {row.name: row.verdict for row in report.rows}


rng = np.random.RandomState(1984)
x, t = sa.load_data(rng)
net = TwoLayerNet(rng, 2, 10, 3, SoftmaxWithLoss())
report = sa.check_network(net, x, t)
print(report)
assert set(verdicts(report).values()) <= {"exact", "match"}


# %% Every node of the chapter as the library derives it: pairs of a forward and a backward function
def pairs(rng, n, d, h):
    """Return the inputs of each node."""
    probabilities, targets = softmax(rng.randn(n, h)), np.eye(h)[rng.randint(h, size=n)]
    return {
        "add": (rng.randn(n, d), rng.randn(n, d)),
        "multiply": (rng.randn(n, d), rng.randn(n, d)),
        "branch": (rng.randn(n, d), 3),
        "repeat": (rng.randn(1, d), n),
        "sum": (rng.randn(n, d),),
        "matmul": (rng.randn(n, d), rng.randn(d, h)),
        "affine": (rng.randn(n, d), rng.randn(d, h), rng.randn(h)),
        "sigmoid": (rng.randn(n, d),),
        "softmax": (rng.randn(n, h),),
        "cross_entropy": (probabilities, targets),
        "softmax_with_loss": (rng.randn(n, h), targets),
    }


for node, inputs in pairs(rng, 5, 4, 3).items():
    report = sa.check_backward(getattr(manual, node), getattr(manual, f"{node}_backward"), *inputs)
    print(f"{node:18}{verdicts(report)}")
    assert set(verdicts(report).values()) <= {"exact", "match"}

# %% And the whole of it: one function that returns the loss and the gradient
params = sa.init_params(2, 10, 3, rng=rng)
report = sa.check_gradient(sa.loss, manual.value_and_grad, params, x, t)
print(f"{'value_and_grad':18}{verdicts(report)}")
assert set(verdicts(report).values()) <= {"exact", "match"}


# %% The book's program adds 1e-07 inside its logarithm; its backward pass leaves that out
class BookLoss(SoftmaxWithLoss):
    inside_log = 1e-7


for likely in (0.3, 3e-7):
    scores = np.log([[likely, 1 - likely], [0.5, 0.5]])
    report = sa.check_layer(BookLoss(), scores, np.eye(2))
    (row,) = report.rows
    print(f"probability of the right class {likely:g}: {row.verdict}, {row.why}")
    assert row.verdict == "idealised"
