"""Whole networks: a list of (W, b), a forward pass with marks, layers in a list."""

# ruff: noqa: RUF059
from itertools import pairwise

import numpy as np

import spiral_autograd as sa
from corpus.check import gradient, network
from corpus.dense import Affine
from corpus.losses import CrossEntropyLoss, SoftmaxWithLoss

# ---- an MLP with a squared error, parameters a list of pairs


def mlpForward(params, x):  # noqa: N802
    activations = [x]
    for index, (W, b) in enumerate(params):
        z = activations[-1] @ W + b
        last = index == len(params) - 1
        activations.append(z if last else np.tanh(z))
    return activations


def mlpLoss(params, x, target):  # noqa: N802
    yPred = mlpForward(params, x)[-1]
    return ((yPred - target) ** 2).sum() / len(x)


def mlpGrad(params, x, target):  # noqa: N802
    acts = mlpForward(params, x)
    grads = [None] * len(params)
    delta = 2 * (acts[-1] - target) / len(x)
    for i in reversed(range(len(params))):
        W, b = params[i]
        grads[i] = (acts[i].T @ delta, delta.sum(axis=0))
        if i > 0:
            delta = (delta @ W.T) * (1 - acts[i] ** 2)
    return ((acts[-1] - target) ** 2).sum() / len(x), grads


# ---- backprop ninja: every intermediate value by hand


def ninja_loss(params, Xb, Yb):
    n = len(Yb)
    emb = sa.tap("emb", params["C"][Xb])
    embcat = sa.tap("embcat", emb.reshape(emb.shape[0], -1))
    hprebn = sa.tap("hprebn", embcat @ params["W1"])
    bnmeani = sa.tap("bnmeani", hprebn.sum(0, keepdims=True) / n)
    bndiff = sa.tap("bndiff", hprebn - bnmeani)
    bndiff2 = sa.tap("bndiff2", bndiff**2)
    bnvar = sa.tap("bnvar", bndiff2.sum(0, keepdims=True) / n)
    bnvar_inv = sa.tap("bnvar_inv", (bnvar + 1e-5) ** -0.5)
    bnraw = sa.tap("bnraw", bndiff * bnvar_inv)
    hpreact = sa.tap("hpreact", params["bngain"] * bnraw + params["bnbias"])
    h = sa.tap("h", np.tanh(hpreact))
    logits = sa.tap("logits", h @ params["W2"] + params["b2"])
    counts = sa.tap("counts", np.exp(logits))
    counts_sum = sa.tap("counts_sum", counts.sum(1, keepdims=True))
    probs = sa.tap("probs", counts / counts_sum)
    logprobs = sa.tap("logprobs", np.log(probs))
    return -logprobs[np.arange(n), Yb].mean()


def ninja_grads(params, Xb, Yb):
    # forward again, without the marks
    n = len(Yb)
    emb = params["C"][Xb]
    embcat = emb.reshape(emb.shape[0], -1)
    hprebn = embcat @ params["W1"]
    bnmeani = hprebn.sum(0, keepdims=True) / n
    bndiff = hprebn - bnmeani
    bnvar = (bndiff**2).sum(0, keepdims=True) / n
    bnvar_inv = (bnvar + 1e-5) ** -0.5
    bnraw = bndiff * bnvar_inv
    h = np.tanh(params["bngain"] * bnraw + params["bnbias"])
    logits = h @ params["W2"] + params["b2"]
    counts = np.exp(logits)
    counts_sum = counts.sum(1, keepdims=True)
    probs = counts / counts_sum

    # and back
    dlogprobs = np.zeros_like(probs)
    dlogprobs[np.arange(n), Yb] = -1.0 / n
    dprobs = dlogprobs / probs
    dcounts_sum = (-counts / counts_sum**2 * dprobs).sum(1, keepdims=True)
    dcounts = dprobs / counts_sum + dcounts_sum
    dlogits = counts * dcounts
    dh = dlogits @ params["W2"].T
    dW2 = h.T @ dlogits
    db2 = dlogits.sum(0)
    dhpreact = (1.0 - h**2) * dh
    dbngain = (bnraw * dhpreact).sum(0, keepdims=True)
    dbnbias = dhpreact.sum(0, keepdims=True)
    dbnraw = params["bngain"] * dhpreact
    dbnvar_inv = (bndiff * dbnraw).sum(0, keepdims=True)
    dbnvar = -0.5 * (bnvar + 1e-5) ** -1.5 * dbnvar_inv
    dbndiff2 = np.ones_like(bndiff) * dbnvar / n
    dbndiff = bnvar_inv * dbnraw + 2 * bndiff * dbndiff2
    dbnmeani = (-dbndiff).sum(0, keepdims=True)
    dhprebn = dbndiff + dbnmeani / n
    dembcat = dhprebn @ params["W1"].T
    dW1 = embcat.T @ dhprebn
    demb = dembcat.reshape(emb.shape)
    dC = np.zeros_like(params["C"])
    np.add.at(dC, Xb, demb)
    return {
        "logprobs": dlogprobs,
        "probs": dprobs,
        "counts_sum": dcounts_sum,
        "counts": dcounts,
        "logits": dlogits,
        "h": dh,
        "W2": dW2,
        "b2": db2,
        "hpreact": dhpreact,
        "bngain": dbngain,
        "bnbias": dbnbias,
        "bnraw": dbnraw,
        "bnvar_inv": dbnvar_inv,
        "bnvar": dbnvar,
        "bndiff2": dbndiff2,
        "bndiff": dbndiff,
        "bnmeani": dbnmeani,
        "hprebn": dhprebn,
        "embcat": dembcat,
        "W1": dW1,
        "emb": demb,
        "C": dC,
    }


# ---- layers in a list, parameters gathered from them


class Tanh:
    def __init__(self):
        self.params, self.grads = [], []

    def forward(self, x):
        self.out = np.tanh(x)
        return self.out

    def backward(self, dout):
        return dout * (1 - self.out**2)


class PlainAffine:
    """The same as Affine; gradients are kept in a list made once."""

    def __init__(self, W, b):
        self.params = [W, b]
        self.grads = [np.zeros_like(W), np.zeros_like(b)]

    def forward(self, x):
        self.x = x
        return x @ self.params[0] + self.params[1]

    def backward(self, dout):
        dW = self.x.T @ dout
        db = dout.sum(axis=0)
        self.grads[0][:] = dW
        self.grads[1][:] = db
        return dout @ self.params[0].T


class ThreeLayerNet:
    def __init__(self, rng, input_size, hidden_size, output_size, loss_layer):
        I, H, O = input_size, hidden_size, output_size  # noqa: E741

        self.layers = [
            PlainAffine(rng.normal(size=(I, H)), rng.normal(size=H)),
            Tanh(),
            Affine(rng.normal(size=(H, O)), rng.normal(size=O)),
        ]
        self.loss_layer = loss_layer

        self.params, self.grads = [], []
        for layer in self.layers:
            self.params += layer.params
            self.grads += layer.grads

    def predict(self, x):
        for layer in self.layers:
            x = layer.forward(x)
        return x

    def forward(self, x, t):
        score = self.predict(x)
        loss = self.loss_layer.forward(score, t)
        return loss

    def backward(self, dout=1):
        dout = self.loss_layer.backward(dout)
        for layer in reversed(self.layers):
            dout = layer.backward(dout)
        return dout


def _mlp(rng, s):
    sizes = [s.d, s.h, s.h + 1, s.c]
    params = [(rng.normal(size=(i, o)), rng.normal(size=o)) for i, o in pairwise(sizes)]
    return gradient(
        mlpLoss, mlpGrad, params, rng.normal(size=(s.n, s.d)), rng.normal(size=(s.n, s.c))
    )


def _ninja(rng, s, finished=False):
    params = {
        "C": rng.normal(size=(s.c + 1, 2)),
        "W1": rng.normal(size=(2 * s.t, s.h)),
        "W2": rng.normal(size=(s.h, s.c + 1)),
        "b2": rng.normal(size=s.c + 1),
        "bngain": rng.normal(size=(1, s.h)),
        "bnbias": rng.normal(size=(1, s.h)),
    }
    Xb = rng.integers(s.c + 1, size=(s.n + 1, s.t))
    Yb = rng.integers(s.c + 1, size=s.n + 1)
    by_hand = ninja_grads(params, Xb, Yb) if finished else ninja_grads
    return gradient(ninja_loss, by_hand, params, Xb, Yb)


def _net(rng, s, loss_layer, **how):
    net = ThreeLayerNet(rng, s.d, s.h, s.c, loss_layer)
    return network(net, rng.normal(size=(s.n, s.d)), rng.integers(s.c, size=s.n), **how)


CHECKS = {
    "mlp_list": _mlp,
    "ninja": _ninja,
    "ninja_finished": lambda rng, s: _ninja(rng, s, finished=True),
    "three_layer_net": lambda rng, s: _net(rng, s, CrossEntropyLoss()),
    "three_layer_net_book": lambda rng, s: _net(
        rng, s, SoftmaxWithLoss(), verdicts=("exact", "match", "idealised")
    ),
}
