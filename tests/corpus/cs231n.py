"""Function pairs: out, cache = ..._forward(...); grads = ..._backward(dout, cache)."""

# ruff: noqa: NPY002, RUF059
import numpy as np

from corpus.check import gradient, pair


def affine_forward(x, w, b):
    out = x.reshape(x.shape[0], -1) @ w + b
    cache = (x, w, b)
    return out, cache


def affine_backward(dout, cache):
    x, w, b = cache
    dx = (dout @ w.T).reshape(x.shape)
    dw = x.reshape(x.shape[0], -1).T @ dout
    db = dout.sum(axis=0)
    return dx, dw, db


def relu_forward(x):
    out = np.maximum(0, x)
    cache = x
    return out, cache


def relu_backward(dout, cache):
    x = cache
    dx = dout * (x > 0)
    return dx


def affine_relu_forward(x, w, b):
    a, fc_cache = affine_forward(x, w, b)
    out, relu_cache = relu_forward(a)
    return out, (fc_cache, relu_cache)


def affine_relu_backward(dout, cache):
    fc_cache, relu_cache = cache
    da = relu_backward(dout, relu_cache)
    return affine_backward(da, fc_cache)


def batchnorm_forward(x, gamma, beta, bn_param):
    mode = bn_param["mode"]
    eps = bn_param.get("eps", 1e-5)
    momentum = bn_param.get("momentum", 0.9)

    N, D = x.shape
    running_mean = bn_param.get("running_mean", np.zeros(D, dtype=x.dtype))
    running_var = bn_param.get("running_var", np.zeros(D, dtype=x.dtype))

    if mode == "train":
        mu = x.mean(axis=0)
        var = x.var(axis=0)
        std = np.sqrt(var + eps)
        x_hat = (x - mu) / std
        out = gamma * x_hat + beta
        cache = (x_hat, gamma, std)
        running_mean = momentum * running_mean + (1 - momentum) * mu
        running_var = momentum * running_var + (1 - momentum) * var
    else:
        std = np.sqrt(running_var + eps)
        x_hat = (x - running_mean) / std
        out = gamma * x_hat + beta
        cache = (x_hat, gamma, std)

    bn_param["running_mean"] = running_mean
    bn_param["running_var"] = running_var
    return out, cache


def batchnorm_backward(dout, cache):
    x_hat, gamma, std = cache
    N = dout.shape[0]
    dbeta = dout.sum(axis=0)
    dgamma = (dout * x_hat).sum(axis=0)
    dx_hat = dout * gamma
    dx = (dx_hat - dx_hat.mean(axis=0) - x_hat * (dx_hat * x_hat).sum(axis=0) / N) / std
    return dx, dgamma, dbeta


def layernorm_forward(x, gamma, beta, ln_param):
    eps = ln_param.get("eps", 1e-5)
    mu = np.mean(x, axis=1, keepdims=True)
    xmu = x - mu
    var = np.mean(xmu**2, axis=1, keepdims=True)
    ivar = 1.0 / np.sqrt(var + eps)
    x_hat = xmu * ivar
    out = gamma * x_hat + beta
    cache = (x_hat, gamma, xmu, ivar)
    return out, cache


def layernorm_backward(dout, cache):
    x_hat, gamma, xmu, ivar = cache
    N, D = dout.shape
    # step by step through the graph
    dbeta = np.sum(dout, axis=0)
    dgamma = np.sum(dout * x_hat, axis=0)
    dx_hat = dout * gamma
    divar = np.sum(dx_hat * xmu, axis=1, keepdims=True)
    dxmu1 = dx_hat * ivar
    dvar = -0.5 * ivar**3 * divar
    dxmu2 = 2 * xmu * dvar / D
    dx1 = dxmu1 + dxmu2
    dmu = -np.sum(dx1, axis=1, keepdims=True)
    dx2 = dmu / D
    dx = dx1 + dx2
    return dx, dgamma, dbeta


def dropout_forward(x, dropout_param):
    p, mode = dropout_param["p"], dropout_param["mode"]
    if "seed" in dropout_param:
        np.random.seed(dropout_param["seed"])
    mask = None
    out = None
    if mode == "train":
        mask = (np.random.rand(*x.shape) < p) / p
        out = x * mask
    elif mode == "test":
        out = x
    cache = (dropout_param, mask)
    return out, cache


def dropout_backward(dout, cache):
    dropout_param, mask = cache
    mode = dropout_param["mode"]
    dx = None
    if mode == "train":
        dx = dout * mask
    elif mode == "test":
        dx = dout
    return dx


def conv_forward_naive(x, w, b, conv_param):
    stride, pad = conv_param["stride"], conv_param["pad"]
    N, C, H, W = x.shape
    F, _, HH, WW = w.shape
    x_pad = np.pad(x, ((0, 0), (0, 0), (pad, pad), (pad, pad)), mode="constant")
    H_out = 1 + (H + 2 * pad - HH) // stride
    W_out = 1 + (W + 2 * pad - WW) // stride
    out = np.zeros((N, F, H_out, W_out))
    for n in range(N):
        for f in range(F):
            for i in range(H_out):
                for j in range(W_out):
                    hs, ws = i * stride, j * stride
                    window = x_pad[n, :, hs : hs + HH, ws : ws + WW]
                    out[n, f, i, j] = np.sum(window * w[f]) + b[f]
    cache = (x, w, b, conv_param)
    return out, cache


def conv_backward_naive(dout, cache):
    x, w, b, conv_param = cache
    stride, pad = conv_param["stride"], conv_param["pad"]
    N, C, H, W = x.shape
    F, _, HH, WW = w.shape
    _, _, H_out, W_out = dout.shape
    x_pad = np.pad(x, ((0, 0), (0, 0), (pad, pad), (pad, pad)), mode="constant")
    dx_pad = np.zeros_like(x_pad)
    dw = np.zeros_like(w)
    db = np.zeros_like(b)
    for n in range(N):
        for f in range(F):
            db[f] += dout[n, f].sum()
            for i in range(H_out):
                for j in range(W_out):
                    hs, ws = i * stride, j * stride
                    dw[f] += x_pad[n, :, hs : hs + HH, ws : ws + WW] * dout[n, f, i, j]
                    dx_pad[n, :, hs : hs + HH, ws : ws + WW] += w[f] * dout[n, f, i, j]
    dx = dx_pad[:, :, pad : pad + H, pad : pad + W]
    return dx, dw, db


def max_pool_forward_naive(x, pool_param):
    ph, pw = pool_param["pool_height"], pool_param["pool_width"]
    stride = pool_param["stride"]
    N, C, H, W = x.shape
    H_out = 1 + (H - ph) // stride
    W_out = 1 + (W - pw) // stride
    out = np.zeros((N, C, H_out, W_out))
    for i in range(H_out):
        for j in range(W_out):
            hs, ws = i * stride, j * stride
            out[:, :, i, j] = np.max(x[:, :, hs : hs + ph, ws : ws + pw], axis=(2, 3))
    cache = (x, pool_param)
    return out, cache


def max_pool_backward_naive(dout, cache):
    x, pool_param = cache
    ph, pw = pool_param["pool_height"], pool_param["pool_width"]
    stride = pool_param["stride"]
    N, C, H_out, W_out = dout.shape
    dx = np.zeros_like(x)
    for n in range(N):
        for c in range(C):
            for i in range(H_out):
                for j in range(W_out):
                    hs, ws = i * stride, j * stride
                    window = x[n, c, hs : hs + ph, ws : ws + pw]
                    best = window == window.max()
                    dx[n, c, hs : hs + ph, ws : ws + pw] += best * dout[n, c, i, j]
    return dx


class TwoLayerNet:
    """affine - relu - affine - softmax, with L2 regularization of strength reg."""

    def __init__(self, rng, input_dim, hidden_dim, num_classes, reg=0.1):
        self.params = {}
        self.reg = reg
        self.params["W1"] = rng.normal(size=(input_dim, hidden_dim))
        self.params["b1"] = rng.normal(size=hidden_dim)
        self.params["W2"] = rng.normal(size=(hidden_dim, num_classes))
        self.params["b2"] = np.zeros(num_classes)

    def loss(self, params, X, y):
        W1, b1 = params["W1"], params["b1"]
        W2, b2 = params["W2"], params["b2"]
        N = X.shape[0]

        pre = X.dot(W1) + b1
        hidden = np.maximum(0, pre)
        scores = hidden.dot(W2) + b2

        shifted = scores - np.max(scores, axis=1, keepdims=True)
        exps = np.exp(shifted)
        probs = exps / np.sum(exps, axis=1, keepdims=True)
        data_loss = np.sum(-np.log(probs[np.arange(N), y])) / N
        loss = data_loss + 0.5 * self.reg * (np.sum(W1 * W1) + np.sum(W2 * W2))

        grads = {}
        dscores = probs.copy()
        dscores[np.arange(N), y] -= 1
        dscores /= N
        grads["W2"] = hidden.T.dot(dscores) + self.reg * W2
        grads["b2"] = np.sum(dscores, axis=0)
        dhidden = dscores.dot(W2.T)
        dhidden[pre <= 0] = 0
        grads["W1"] = X.T.dot(dhidden) + self.reg * W1
        grads["b1"] = np.sum(dhidden, axis=0)
        return loss, grads

    def loss_only(self, params, X, y):
        return self.loss(params, X, y)[0]


def _image(rng, s):
    return rng.normal(size=(1 + s.n % 2, 1 + s.c % 2, s.side, s.side))


def _two_layer_net(rng, s):
    net = TwoLayerNet(rng, s.d, s.h, s.c)
    x, y = rng.normal(size=(s.n, s.d)), rng.integers(s.c, size=s.n)
    return gradient(net.loss_only, net.loss, net.params, x, y)


def _conv(rng, s):
    w, b = rng.normal(size=(2, 1 + s.c % 2, s.k, s.k)), rng.normal(size=2)
    param = {"stride": 1, "pad": 1}
    return pair(conv_forward_naive, conv_backward_naive, _image(rng, s), w, b, param)


def _batchnorm(rng, s):
    x = rng.normal(size=(s.n, s.d))
    gamma, beta = rng.normal(size=s.d), rng.normal(size=s.d)
    return pair(batchnorm_forward, batchnorm_backward, x, gamma, beta, {"mode": "train"})


def _layernorm(rng, s):
    x = rng.normal(size=(s.n, s.d))
    gamma, beta = rng.normal(size=s.d), rng.normal(size=s.d)
    return pair(layernorm_forward, layernorm_backward, x, gamma, beta, {})


def _max_pool(rng, s, x=None):
    param = {"pool_height": s.k, "pool_width": s.k, "stride": s.k}
    x = _image(rng, s) if x is None else x
    return pair(max_pool_forward_naive, max_pool_backward_naive, x, param)


def _dense(rng, s):
    return rng.normal(size=(s.n, 2, s.d)), rng.normal(size=(2 * s.d, s.h)), rng.normal(size=s.h)


def _zero(array):
    return 0.0 * array


CHECKS = {
    "affine_pair": lambda rng, s: pair(affine_forward, affine_backward, *_dense(rng, s)),
    "relu_pair": lambda rng, s: pair(relu_forward, relu_backward, rng.normal(size=(s.n, s.d))),
    "affine_relu": lambda rng, s: pair(affine_relu_forward, affine_relu_backward, *_dense(rng, s)),
    "batchnorm_pair": _batchnorm,
    "layernorm_pair": _layernorm,
    "dropout_pair": lambda rng, s: pair(
        dropout_forward,
        dropout_backward,
        rng.normal(size=(s.n, s.d)),
        {"mode": "train", "p": 0.6, "seed": 231},
    ),
    "conv_naive": _conv,
    "max_pool_naive": _max_pool,
    "two_layer_net": _two_layer_net,
    # for the kinks
    "affine_relu_at_zero": lambda rng, s: pair(
        affine_relu_forward,
        affine_relu_backward,
        _dense(rng, s)[0],
        *map(_zero, _dense(rng, s)[1:]),
    ),
    "relu_pair_at_zero": lambda rng, s: pair(
        relu_forward, relu_backward, np.round(rng.normal(size=(s.n, s.d)))
    ),
    "max_pool_ties": lambda rng, s: _max_pool(rng, s, np.ones((2, 2, s.side, s.side))),
}
