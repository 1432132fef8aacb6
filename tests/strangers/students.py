"""Whole layers as students hand them in: activations, pooling, attention, losses, a policy."""
# fmt: off
# ruff: noqa

import numpy as np

import spiral_autograd as sa
from strangers import wrong

R = np.random.default_rng


def layernorm_forward(x, gamma, beta):
    mu = x.mean(axis=1, keepdims=True)
    std = np.sqrt(x.var(axis=1, keepdims=True) + 1e-5)
    norm = (x - mu) / std
    return gamma * norm + beta, (norm, gamma, std)

def layernorm_backward(dout, cache):
    norm, gamma, std = cache
    D = dout.shape[1]
    dnorm = dout * gamma
    dx = D * dnorm - np.sum(dnorm, axis=1, keepdims=True)
    dx -= norm * np.sum(dnorm * norm, axis=1, keepdims=True)
    dx /= D * std
    return dx, np.sum(dout * norm, axis=0), np.sum(dout, axis=0)


class Swish:
    def __init__(self, beta):
        self.beta = np.array([beta])
        self.dbeta = np.zeros(1)

    def forward(self, x):
        self.x = x
        self.s = 1 / (1 + np.exp(-self.beta * x))
        return x * self.s

    def backward(self, dout):
        ds = self.s * (1 - self.s)
        self.dbeta[0] = np.sum(dout * self.x ** 2 * ds)
        return dout * (self.s + self.beta * self.x * ds)


class PReLU:
    def __init__(self, channels):
        self.params = {"alpha": np.linspace(0.1, 0.4, channels)}
        self.grads = {"alpha": np.zeros(channels)}

    def forward(self, inputs):
        self.inputs = inputs
        a = self.params["alpha"].reshape(1, -1, 1, 1)
        return np.maximum(inputs, 0) + a * np.minimum(inputs, 0)

    def backward(self, grad):
        a = self.params["alpha"].reshape(1, -1, 1, 1)
        self.grads["alpha"] = np.sum(grad * np.minimum(self.inputs, 0), axis=(0, 2, 3))
        return np.where(self.inputs > 0, grad, a * grad)


class ELU:
    def __init__(self, alpha=0.7):
        self.alpha = alpha

    def forward(self, z):
        self.a = np.where(z > 0, z, self.alpha * (np.exp(z) - 1))
        return self.a

    def backward(self, da):
        dz = da.copy()
        neg = self.a <= 0
        dz[neg] = da[neg] * (self.a[neg] + self.alpha)
        return dz


class Bilinear:
    def __init__(self):
        self.W = R(44).normal(size=(5, 4, 4))

    def forward(self, a, c):
        self.a, self.c = a, c
        return np.einsum("ni,kij,nj->nk", a, self.W, c)

    def backward(self, g):
        self.dW = np.einsum("nk,ni,nj->kij", g, self.a, self.c)
        ga = np.einsum("nk,kij,nj->ni", g, self.W, self.c)
        gc = np.einsum("nk,kij,ni->nj", g, self.W, self.a)
        return ga, gc


class MaxPool:
    def forward(self, x):
        self.x = x
        n, c, h, w = x.shape
        out = np.zeros((n, c, h // 2, w // 2))
        for i in range(h // 2):
            for j in range(w // 2):
                out[:, :, i, j] = np.amax(x[:, :, 2 * i:2 * i + 2, 2 * j:2 * j + 2], axis=(2, 3))
        return out

    def backward(self, dout):
        dx = np.zeros(self.x.shape)
        for i in range(dout.shape[2]):
            for j in range(dout.shape[3]):
                region = self.x[:, :, 2 * i:2 * i + 2, 2 * j:2 * j + 2]
                mask = region == region.max(axis=(2, 3), keepdims=True)
                dx[:, :, 2 * i:2 * i + 2, 2 * j:2 * j + 2] += mask * dout[:, :, i, j][:, :, None, None]
        return dx


class Attention:
    def __init__(self, width, heads):
        self.h, self.dk = heads, width // heads
        self.Wq, self.Wk, self.Wv, self.Wo = (R(i).normal(size=(width, width)) / 2 for i in range(4))

    def split(self, x):
        B, T, D = x.shape
        return x.reshape(B, T, self.h, self.dk).transpose(0, 2, 1, 3)

    def merge(self, x):
        B, h, T, dk = x.shape
        return x.transpose(0, 2, 1, 3).reshape(B, T, h * dk)

    def forward(self, x):
        self.x = x
        self.q, self.k, self.v = self.split(x @ self.Wq), self.split(x @ self.Wk), self.split(x @ self.Wv)
        e = np.exp(self.q @ self.k.swapaxes(-1, -2) / np.sqrt(self.dk))
        self.att = e / e.sum(-1, keepdims=True)
        self.ctx = self.merge(self.att @ self.v)
        return self.ctx @ self.Wo

    def backward(self, dy):
        B, T, D = dy.shape
        self.dWo = self.ctx.reshape(-1, D).T @ dy.reshape(-1, D)
        dctx = self.split(dy @ self.Wo.T)
        datt = dctx @ self.v.swapaxes(-1, -2)
        dv = self.merge(self.att.swapaxes(-1, -2) @ dctx)
        ds = self.att * (datt - np.sum(datt * self.att, axis=-1, keepdims=True)) / np.sqrt(self.dk)
        dq = self.merge(ds @ self.k)
        dk = self.merge(ds.swapaxes(-1, -2) @ self.q)
        x2 = self.x.reshape(-1, D)
        self.dWq = x2.T @ dq.reshape(-1, D)
        self.dWk = x2.T @ dk.reshape(-1, D)
        self.dWv = x2.T @ dv.reshape(-1, D)
        return dq @ self.Wq.T + dk @ self.Wk.T + dv @ self.Wv.T


def rope(x):
    T, d = x.shape
    half = d // 2
    angle = np.arange(T)[:, None] * 100.0 ** (-np.arange(half) / half)
    cos, sin = np.cos(angle), np.sin(angle)
    x1, x2 = x[:, :half], x[:, half:]
    return np.concatenate([x1 * cos - x2 * sin, x1 * sin + x2 * cos], axis=1), (cos, sin)

def rope_backward(dy, cache):
    cos, sin = cache
    half = cos.shape[1]
    d1, d2 = dy[:, :half], dy[:, half:]
    return np.concatenate([d1 * cos + d2 * sin, -d1 * sin + d2 * cos], axis=1)


def causal_conv(x, w, dilation):
    y = np.zeros(len(x))
    for t in range(len(x)):
        for k in range(len(w)):
            if t - k * dilation >= 0:
                y[t] += w[k] * x[t - k * dilation]
    return y, (x, w, dilation)

def causal_conv_backward(dy, cache):
    x, w, dilation = cache
    dx, dw = np.zeros_like(x), np.zeros_like(w)
    for t in range(len(x)):
        for k in range(len(w)):
            s = t - k * dilation
            if s >= 0:
                dw[k] += dy[t] * x[s]
                dx[s] += dy[t] * w[k]
    return dx, dw


def hinge(W, X, y):
    n = X.shape[0]
    scores = X.dot(W)
    margins = np.maximum(0, scores - scores[np.arange(n), y][:, None] + 1)
    margins[np.arange(n), y] = 0
    return margins.sum() / n

def hinge_grad(W, X, y):
    n = X.shape[0]
    scores = X.dot(W)
    margins = scores - scores[np.arange(n), y][:, None] + 1
    binary = (margins > 0).astype(float)
    binary[np.arange(n), y] = 0
    binary[np.arange(n), y] = -binary.sum(axis=1)
    return X.T.dot(binary) / n


def chain_score(params, tags):
    E, A = params["E"], params["A"]
    alpha = E[0]
    for t in range(1, len(E)):
        alpha = E[t] + np.log(np.exp(alpha[:, None] + A).sum(axis=0))
    score = E[np.arange(len(E)), tags].sum() + A[tags[:-1], tags[1:]].sum()
    return np.log(np.exp(alpha).sum()) - score

def chain_score_grad(params, tags):
    E, A = params["E"], params["A"]
    T, K = E.shape
    alpha, beta = np.zeros((T, K)), np.zeros((T, K))
    alpha[0] = E[0]
    for t in range(1, T):
        alpha[t] = E[t] + np.log(np.exp(alpha[t - 1][:, None] + A).sum(axis=0))
    for t in range(T - 2, -1, -1):
        beta[t] = np.log(np.exp(A + (E[t + 1] + beta[t + 1])[None, :]).sum(axis=1))
    logZ = np.log(np.exp(alpha[-1]).sum())
    dE = np.exp(alpha + beta - logZ)
    dA = np.zeros_like(A)
    for t in range(T - 1):
        dA += np.exp(alpha[t][:, None] + A + (E[t + 1] + beta[t + 1])[None, :] - logZ)
    dE[np.arange(T), tags] -= 1
    np.subtract.at(dA, (tags[:-1], tags[1:]), 1)
    return {"E": dE, "A": dA}


def policy_loss(model, x, actions, adv):
    h = np.maximum(0, x @ model["W1"])
    p = 1 / (1 + np.exp(-(h @ model["W2"])))
    return -np.sum(adv * np.where(actions == 1, np.log(p), np.log(1 - p)))

def policy_backward(model, x, actions, adv):
    h = np.maximum(0, x @ model["W1"])
    p = 1 / (1 + np.exp(-(h @ model["W2"])))
    dlogp = actions - p
    dh = np.outer(dlogp * adv, model["W2"])
    dh[h <= 0] = 0
    dW2 = np.dot(h.T, dlogp * adv)
    dW1 = np.dot(x.T, dh)
    return {"W1": -dW1, "W2": -dW2}


def ratings_loss(params, rows, cols, ratings):
    U, V, bu = params
    e = np.sum(U[rows] * V[cols], axis=1) + bu[rows] - ratings
    return 0.5 * np.sum(e ** 2)

def ratings_gradient(params, rows, cols, ratings):
    U, V, bu = params
    e = np.sum(U[rows] * V[cols], axis=1) + bu[rows] - ratings
    gU, gV = np.zeros_like(U), np.zeros_like(V)
    np.add.at(gU, rows, e[:, None] * V[cols])
    np.add.at(gV, cols, e[:, None] * U[rows])
    return gU, gV, np.bincount(rows, weights=e, minlength=len(bu))


TAGS = np.array([0, 2, 2, 2, 1, 2, 2, 0])
ROWS, COLS = np.array([0, 1, 3, 1, 0, 3]), np.array([0, 1, 2, 4, 4, 0])

CHECKS = {
    "layernorm": lambda budget=10.0: sa.check_backward(layernorm_forward, layernorm_backward, R(1).normal(size=(4, 5)), R(2).normal(size=5), R(3).normal(size=5), budget=budget),
    "swish": lambda budget=10.0: sa.check_layer(Swish(1.5), R(29).normal(size=(3, 4)), budget=budget),
    "prelu": lambda budget=10.0: sa.check_layer(PReLU(3), R(30).normal(size=(2, 3, 2, 2)), budget=budget),
    "elu": lambda budget=10.0: sa.check_layer(ELU(), R(31).normal(size=(3, 5)), budget=budget),
    "bilinear": lambda budget=10.0: sa.check_layer(Bilinear(), R(45).normal(size=(6, 4)), R(46).normal(size=(6, 4)), budget=budget),
    "max_pool": lambda budget=10.0: sa.check_layer(MaxPool(), R(25).normal(size=(2, 3, 4, 4)), budget=budget),
    "attention": lambda budget=10.0: sa.check_layer(Attention(6, 2), R(16).normal(size=(2, 3, 6)), budget=budget),
    "rope": lambda budget=10.0: sa.check_backward(rope, rope_backward, R(57).normal(size=(5, 4)), budget=budget),
    "causal": lambda budget=10.0: sa.check_backward(causal_conv, causal_conv_backward, R(22).normal(size=9), R(23).normal(size=3), 2, budget=budget),
    "hinge": lambda budget=10.0: sa.check_gradient(hinge, hinge_grad, R(38).normal(size=(4, 5)), R(39).normal(size=(7, 4)), np.array([0, 1, 2, 3, 4, 0, 2]), budget=budget),
    "chain": lambda budget=10.0: sa.check_gradient(chain_score, chain_score_grad, {"E": R(7).normal(size=(8, 3)), "A": R(8).normal(size=(3, 3))}, TAGS, budget=budget),
    "policy": lambda budget=10.0: sa.check_gradient(policy_loss, policy_backward, {"W1": R(62).normal(size=(4, 5)), "W2": R(63).normal(size=5)}, R(64).normal(size=(6, 4)), np.array([1, 0, 1, 1, 0, 0]), R(65).normal(size=6), budget=budget),
    "ratings": lambda budget=10.0: sa.check_gradient(ratings_loss, ratings_gradient, (R(70).normal(size=(4, 2)), R(71).normal(size=(5, 2)), R(72).normal(size=4)), ROWS, COLS, R(73).normal(size=6), budget=budget),
}

MISTAKES = [
    wrong("layernorm_over_the_batch", "layernorm", "layernorm_backward", "np.sum(dnorm * norm, axis=1, keepdims=True)", "np.sum(dnorm * norm, axis=0)", "closed summed"),
    wrong("swish_x_once", "swish", "Swish.backward", "self.x ** 2 * ds", "self.x * ds", "lost factor_lost"),
    wrong("prelu_all_inputs", "prelu", "PReLU.backward", "np.minimum(self.inputs, 0)", "self.inputs", "operand"),
    wrong("elu_one_for_alpha", "elu", "ELU.backward", "(self.a[neg] + self.alpha)", "(self.a[neg] + 1)", "taken_as"),
    wrong("einsum_letters", "bilinear", "Bilinear.backward", 'gc = np.einsum("nk,kij,ni->nj"', 'gc = np.einsum("nk,kji,ni->nj"', "operand not_transposed"),
    wrong("max_over_the_batch", "max_pool", "MaxPool.backward", "region.max(axis=(2, 3), keepdims=True)", "region.max()", "taken_as"),
    wrong("heads_not_split", "attention", "Attention.backward", "dctx = self.split(dy @ self.Wo.T)", "dctx = (dy @ self.Wo.T).reshape(B, self.h, T, self.dk)", "reordered"),
    wrong("rotated_forward_again", "rope", "rope_backward", "[d1 * cos + d2 * sin, -d1 * sin + d2 * cos]", "[d1 * cos - d2 * sin, d1 * sin + d2 * cos]", "wrong_sign"),
    wrong("first_sample_left_out", "causal", "causal_conv_backward", "if s >= 0:", "if s > 0:", "lacks_entry"),
    wrong("label_counted_once", "hinge", "hinge_grad", "binary[np.arange(n), y] = -binary.sum(axis=1)", "binary[np.arange(n), y] = -1", "part"),
    wrong("pairs_that_repeat", "chain", "chain_score_grad", "np.subtract.at(dA, (tags[:-1], tags[1:]), 1)", "dA[tags[:-1], tags[1:]] -= 1", "overwritten"),
    wrong("advantage_too_late", "policy", "policy_backward", "dh = np.outer(dlogp * adv, model", "dh = np.outer(dlogp, model", "lost factor_lost"),
    wrong("ratings_not_subtracted", "ratings", "ratings_gradient", "+ bu[rows] - ratings", "+ bu[rows]", "made_from"),
]
