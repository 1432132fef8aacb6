"""Layer functions with caches, one by one, with `dout` and what the forward pass has kept."""
# fmt: off
# ruff: noqa

import numpy as np

import spiral_autograd as sa
from strangers import wrong


def affine_forward(x, w, b):
    N = x.shape[0]
    out = x.reshape(N, -1).dot(w) + b
    cache = (x, w, b)
    return out, cache

def affine_backward(dout, cache):
    x, w, b = cache
    N = x.shape[0]
    dx = dout.dot(w.T).reshape(x.shape)
    dw = x.reshape(N, -1).T.dot(dout)
    db = dout.sum(axis=0)
    return dx, dw, db

def check_affine(budget=10.0):
    r = np.random.default_rng(231)
    return sa.check_backward(affine_forward, affine_backward, r.normal(size=(4, 2, 3)), r.normal(size=(6, 6)), r.normal(size=6), budget=budget)


def leaky_relu_forward(x, alpha):
    out = np.where(x > 0, x, alpha * x)
    cache = (x, alpha)
    return out, cache

def leaky_relu_backward(dout, cache):
    x, alpha = cache
    dx = np.where(x > 0, 1, alpha) * dout
    return dx

def check_leaky(budget=10.0):
    r = np.random.default_rng(1)
    x = r.normal(size=(4, 5))
    return sa.check_backward(lambda x: leaky_relu_forward(x, 0.01), leaky_relu_backward, x, budget=budget)


# ---- batch normalisation, step by step as in the graph ----

def batchnorm_forward(x, gamma, beta, eps=1e-5):
    N, D = x.shape
    mu = 1. / N * np.sum(x, axis=0)
    xmu = x - mu
    sq = xmu ** 2
    var = 1. / N * np.sum(sq, axis=0)
    sqrtvar = np.sqrt(var + eps)
    ivar = 1. / sqrtvar
    xhat = xmu * ivar
    gammax = gamma * xhat
    out = gammax + beta
    cache = (xhat, gamma, xmu, ivar, sqrtvar, var, eps)
    return out, cache

def batchnorm_backward(dout, cache):
    xhat, gamma, xmu, ivar, sqrtvar, var, eps = cache
    N, D = dout.shape
    dbeta = np.sum(dout, axis=0)
    dgammax = dout
    dgamma = np.sum(dgammax * xhat, axis=0)
    dxhat = dgammax * gamma
    divar = np.sum(dxhat * xmu, axis=0)
    dxmu1 = dxhat * ivar
    dsqrtvar = -1. / (sqrtvar ** 2) * divar
    dvar = 0.5 * 1. / np.sqrt(var + eps) * dsqrtvar
    dsq = 1. / N * np.ones((N, D)) * dvar
    dxmu2 = 2 * xmu * dsq
    dx1 = dxmu1 + dxmu2
    dmu = -1 * np.sum(dxmu1 + dxmu2, axis=0)
    dx2 = 1. / N * np.ones((N, D)) * dmu
    dx = dx1 + dx2
    return dx, dgamma, dbeta

def check_batchnorm(budget=10.0):
    r = np.random.default_rng(2)
    return sa.check_backward(batchnorm_forward, batchnorm_backward, 2 * r.normal(size=(6, 4)) + 1, r.normal(size=4), r.normal(size=4), budget=budget)


def layernorm_forward(x, gamma, beta):
    x_T = x.T
    mu = np.mean(x_T, axis=0)
    var = np.var(x_T, axis=0) + 1e-5
    std = np.sqrt(var)
    z = (x_T - mu) / std
    out = gamma * z.T + beta
    return out, (z, std, gamma)

def layernorm_backward(dout, cache):
    z, std, gamma = cache
    D = z.shape[0]
    dbeta = dout.sum(axis=0)
    dgamma = (dout * z.T).sum(axis=0)
    dz = (dout * gamma).T
    dx = (D * dz - dz.sum(axis=0) - z * (dz * z).sum(axis=0)) / (D * std)
    return dx.T, dgamma, dbeta

def check_layernorm(budget=10.0):
    r = np.random.default_rng(3)
    return sa.check_backward(layernorm_forward, layernorm_backward, r.normal(size=(5, 5)), r.normal(size=5), r.normal(size=5), budget=budget)


# ---- naive convolution, pooling ----

def conv_forward_naive(x, w, b, conv_param):
    stride, pad = conv_param['stride'], conv_param['pad']
    N, C, H, W = x.shape
    F, _, HH, WW = w.shape
    Ho = 1 + (H + 2 * pad - HH) // stride
    Wo = 1 + (W + 2 * pad - WW) // stride
    xp = np.pad(x, ((0, 0), (0, 0), (pad, pad), (pad, pad)), mode='constant')
    out = np.zeros((N, F, Ho, Wo))
    for n in range(N):
        for f in range(F):
            for i in range(Ho):
                for j in range(Wo):
                    window = xp[n, :, i*stride:i*stride+HH, j*stride:j*stride+WW]
                    out[n, f, i, j] = np.sum(window * w[f]) + b[f]
    return out, (x, w, b, conv_param)

def conv_backward_naive(dout, cache):
    x, w, b, conv_param = cache
    stride, pad = conv_param['stride'], conv_param['pad']
    N, F, Ho, Wo = dout.shape
    _, C, HH, WW = w.shape
    xp = np.pad(x, ((0, 0), (0, 0), (pad, pad), (pad, pad)), mode='constant')
    dxp = np.zeros_like(xp)
    dw = np.zeros_like(w)
    db = np.zeros_like(b)
    for n in range(N):
        for f in range(F):
            db[f] += np.sum(dout[n, f])
            for i in range(Ho):
                for j in range(Wo):
                    window = xp[n, :, i*stride:i*stride+HH, j*stride:j*stride+WW]
                    dw[f] += window * dout[n, f, i, j]
                    dxp[n, :, i*stride:i*stride+HH, j*stride:j*stride+WW] += w[f] * dout[n, f, i, j]
    dx = dxp[:, :, pad:pad+x.shape[2], pad:pad+x.shape[3]]
    return dx, dw, db

def check_conv(budget=10.0):
    r = np.random.default_rng(4)
    return sa.check_backward(
        lambda x, w, b: conv_forward_naive(x, w, b, {'stride': 2, 'pad': 1}), conv_backward_naive,
        r.normal(size=(2, 2, 5, 5)), r.normal(size=(3, 2, 3, 3)), r.normal(size=3), budget=budget)


def max_pool_forward_naive(x, pool_param):
    ph, pw, s = pool_param
    N, C, H, W = x.shape
    Ho, Wo = 1 + (H - ph) // s, 1 + (W - pw) // s
    out = np.zeros((N, C, Ho, Wo))
    for i in range(Ho):
        for j in range(Wo):
            out[:, :, i, j] = np.max(x[:, :, i*s:i*s+ph, j*s:j*s+pw], axis=(2, 3))
    return out, (x, pool_param)

def max_pool_backward_naive(dout, cache):
    x, (ph, pw, s) = cache
    N, C, Ho, Wo = dout.shape
    dx = np.zeros_like(x)
    for n in range(N):
        for c in range(C):
            for i in range(Ho):
                for j in range(Wo):
                    window = x[n, c, i*s:i*s+ph, j*s:j*s+pw]
                    mask = (window == np.max(window))
                    dx[n, c, i*s:i*s+ph, j*s:j*s+pw] += mask * dout[n, c, i, j]
    return dx

def check_pool(budget=10.0):
    r = np.random.default_rng(5)
    x = r.normal(size=(2, 2, 5, 5))
    return sa.check_backward(lambda x: max_pool_forward_naive(x, (3, 3, 2)), max_pool_backward_naive, x, budget=budget)


# ---- losses that return their gradient ----

def svm_loss(x, y):
    N = x.shape[0]
    correct = x[np.arange(N), y]
    margins = np.maximum(0, x - correct[:, np.newaxis] + 1.0)
    margins[np.arange(N), y] = 0
    loss = np.sum(margins) / N
    # backward
    num_pos = np.sum(margins > 0, axis=1)
    dx = np.zeros_like(x)
    dx[margins > 0] = 1
    dx[np.arange(N), y] -= num_pos
    dx /= N
    return loss, dx

def check_svm(budget=10.0):
    r = np.random.default_rng(6)
    x, y = r.normal(size=(5, 4)), np.array([0, 3, 1, 1, 2])
    return sa.check_gradient(lambda x, y: svm_loss(x, y)[0], svm_loss, x, y, budget=budget)


def softmax_loss_vectorized(W, X, y, reg):
    num_train = X.shape[0]
    scores = X.dot(W)
    scores = scores - np.max(scores, axis=1, keepdims=True)
    p = np.exp(scores) / np.sum(np.exp(scores), axis=1, keepdims=True)
    loss = -np.sum(np.log(p[np.arange(num_train), y])) / num_train
    loss += reg * np.sum(W * W)
    # backward pass
    dscores = p.copy()
    dscores[np.arange(num_train), y] -= 1
    dW = X.T.dot(dscores)
    dW /= num_train
    dW += 2 * reg * W
    return loss, dW

def check_softmax(budget=10.0):
    r = np.random.default_rng(7)
    W, X, y = r.normal(size=(4, 3)), r.normal(size=(6, 4)), np.array([0, 1, 2, 1, 0, 2])
    return sa.check_gradient(lambda W, X, y, reg: softmax_loss_vectorized(W, X, y, reg)[0], softmax_loss_vectorized, W, X, y, 0.05, budget=budget)


class TwoLayerNet(object):
    def __init__(self, D, H, C):
        r = np.random.default_rng(8)
        self.params = {'W1': r.normal(size=(D, H)), 'b1': r.normal(size=H),
                       'W2': r.normal(size=(H, C)), 'b2': r.normal(size=C)}

    def loss(self, X, y, reg=0.0):
        W1, b1 = self.params['W1'], self.params['b1']
        W2, b2 = self.params['W2'], self.params['b2']
        N, D = X.shape
        hidden = np.maximum(0, X.dot(W1) + b1)
        scores = hidden.dot(W2) + b2
        exp_scores = np.exp(scores - np.max(scores, axis=1, keepdims=True))
        probs = exp_scores / np.sum(exp_scores, axis=1, keepdims=True)
        loss = np.mean(-np.log(probs[range(N), y]))
        loss += 0.5 * reg * (np.sum(W1 * W1) + np.sum(W2 * W2))
        # Backward pass: compute gradients
        grads = {}
        dscores = probs.copy()
        dscores[range(N), y] -= 1
        dscores /= N
        grads['W2'] = np.dot(hidden.T, dscores)
        grads['b2'] = np.sum(dscores, axis=0)
        dhidden = np.dot(dscores, W2.T)
        dhidden[hidden <= 0] = 0
        grads['W1'] = np.dot(X.T, dhidden)
        grads['b1'] = np.sum(dhidden, axis=0)
        grads['W2'] += reg * W2
        grads['W1'] += reg * W1
        return loss, grads

def check_two_layer(budget=10.0):
    net = TwoLayerNet(4, 5, 3)
    r = np.random.default_rng(9)
    X, y = r.normal(size=(6, 4)), np.array([0, 1, 2, 2, 1, 0])
    def loss_and_grads(params, X, y):
        net.params = params
        return net.loss(X, y, reg=0.3)
    return sa.check_gradient(lambda params, X, y: loss_and_grads(params, X, y)[0], loss_and_grads, net.params, X, y, budget=budget)


CHECKS = {
    "affine": check_affine, "leaky": check_leaky, "batchnorm": check_batchnorm, "layernorm": check_layernorm,
    "conv": check_conv, "pool": check_pool, "svm": check_svm, "softmax": check_softmax, "two_layer": check_two_layer,
}
LOSS = "TwoLayerNet.loss"

MISTAKES = [
    wrong("affine_w_not_T", "affine", "affine_backward", "dout.dot(w.T)", "dout.dot(w)", "not_transposed", "w"),
    wrong("affine_dw_T", "affine", "affine_backward", "x.reshape(N, -1).T.dot(dout)", "dout.T.dot(x.reshape(N, -1))", "transposed"),
    wrong("affine_db_axis_1", "affine", "affine_backward", "dout.sum(axis=0)", "dout.sum(axis=1)", "summed other_sum"),
    wrong("affine_reshape_T", "affine", "affine_backward", "dout.dot(w.T).reshape(x.shape)", "w.dot(dout.T).reshape(x.shape)", "reordered transposed axes_order"),
    wrong("leaky_alpha_lost", "leaky", "leaky_relu_backward", "np.where(x > 0, 1, alpha)", "np.where(x > 0, 1, 0)", "part left_out taken_as"),
    wrong("leaky_x_too", "leaky", "leaky_relu_backward", "np.where(x > 0, 1, alpha)", "np.where(x > 0, x, alpha)", "part taken_as times_too"),
    wrong("leaky_on_dout", "leaky", "leaky_relu_backward", "np.where(x > 0, 1, alpha)", "np.where(dout > 0, 1, alpha)", "upstream_not_linear"),
    wrong("bn_ivar_squared", "batchnorm", "batchnorm_backward", "-1. / (sqrtvar ** 2) * divar", "-1. / sqrtvar * divar", "taken_as times"),
    wrong("bn_dvar_no_half", "batchnorm", "batchnorm_backward", "0.5 * 1. / np.sqrt(var + eps)", "1. / np.sqrt(var + eps)", "times taken_as"),
    wrong("bn_dsq_not_divided", "batchnorm", "batchnorm_backward", "dsq = 1. / N * np.ones((N, D)) * dvar", "dsq = np.ones((N, D)) * dvar", "mean_missing times constant_factor | term_taken"),
    wrong("bn_no_2", "batchnorm", "batchnorm_backward", "dxmu2 = 2 * xmu * dsq", "dxmu2 = xmu * dsq", "times constant_factor"),
    wrong("bn_dmu_sign", "batchnorm", "batchnorm_backward", "dmu = -1 * np.sum", "dmu = np.sum", "wrong_sign term_taken | lost"),
    wrong("bn_dx_without_dx2", "batchnorm", "batchnorm_backward", "dx = dx1 + dx2", "dx = dx1", "left_out term_left_out"),
    wrong("bn_gamma_forgotten", "batchnorm", "batchnorm_backward", "dxhat = dgammax * gamma", "dxhat = dgammax", "lost", "gamma"),
    wrong("bn_dgamma_of_xmu", "batchnorm", "batchnorm_backward", "np.sum(dgammax * xhat, axis=0)", "np.sum(dgammax * xmu, axis=0)", "operand", "xmu"),
    wrong("bn_dgamma_of_dxhat", "batchnorm", "batchnorm_backward", "    dgamma = np.sum(dgammax * xhat, axis=0)\n    dxhat = dgammax * gamma\n", "    dxhat = dgammax * gamma\n    dgamma = np.sum(dxhat * xhat, axis=0)\n", "times_too made_from | taken_as", at="dgamma = np.sum(dxhat * xhat, axis=0)"),
    wrong("bn_dxmu1_var", "batchnorm", "batchnorm_backward", "dxmu1 = dxhat * ivar", "dxmu1 = dxhat * var", "operand taken_as", "var"),
    wrong("ln_axis", "layernorm", "layernorm_backward", "z * (dz * z).sum(axis=0)", "z * (dz * z).sum(axis=1)", "term_axes"),
    wrong("ln_D_from_1", "layernorm", "layernorm_backward", "(D * std)", "(D * std ** 2)", "scale_squared"),
    wrong("ln_not_back", "layernorm", "layernorm_backward", "return dx.T, dgamma, dbeta", "return dx, dgamma, dbeta", "transposed"),
    wrong("ln_no_D", "layernorm", "layernorm_backward", "(D * dz - dz.sum", "(dz - dz.sum", "term_taken term times two_mistakes"),
    wrong("conv_dw_set", "conv", "conv_backward_naive", "dw[f] += window", "dw[f] = window", "overwritten only"),
    wrong("conv_dx_set", "conv", "conv_backward_naive", "] += w[f] * dout", "] = w[f] * dout", "overwritten only"),
    wrong("conv_dx_window_without_stride", "conv", "conv_backward_naive", "dxp[n, :, i*stride:i*stride+HH, j*stride:j*stride+WW] += w[f] * dout[n, f, i, j]", "dxp[n, :, i:i+HH, j:j+WW] += w[f] * dout[n, f, i, j]", "stride put_at shifted picked_beside"),
    wrong("conv_window_of_x", "conv", "conv_backward_naive", "window = xp[n, :, i*stride:i*stride+HH, j*stride:j*stride+WW]", "window = xp[n, :, i:i+HH, j:j+WW]", "stride put_at operand picked_at"),
    wrong("conv_db_one", "conv", "conv_backward_naive", "db[f] += np.sum(dout[n, f])", "db[f] = np.sum(dout[n, f])", "overwritten only the_last"),
    wrong("conv_db_mean", "conv", "conv_backward_naive", "db[f] += np.sum(dout[n, f])", "db[f] += np.mean(dout[n, f])", "averaged_over averaged"),
    wrong("conv_pad_not_cut", "conv", "conv_backward_naive", "dx = dxp[:, :, pad:pad+x.shape[2], pad:pad+x.shape[3]]", "dx = dxp[:, :, :x.shape[2], :x.shape[3]]", "cut_at"),
    wrong("conv_w_flipped", "conv", "conv_backward_naive", "w[f] * dout[n, f, i, j]", "w[f, :, ::-1, ::-1] * dout[n, f, i, j]", "reversed operand flipped"),
    wrong("conv_ij", "conv", "conv_backward_naive", "window * dout[n, f, i, j]", "window * dout[n, f, j, i]", "g_transposed transposed operand axes_order | picked_at"),
    wrong("conv_last_filter", "conv", "conv_backward_naive", "+= w[f] * dout[n, f, i, j]", "+= w[0] * dout[n, f, i, j]", "operand picked_at"),
    wrong("pool_set", "pool", "max_pool_backward_naive", "] += mask * dout", "] = mask * dout", "overwritten only"),
    wrong("pool_all", "pool", "max_pool_backward_naive", "mask * dout[n, c, i, j]", "dout[n, c, i, j] * np.ones((ph, pw))", "lost taken_as"),
    wrong("pool_average", "pool", "max_pool_backward_naive", "mask * dout[n, c, i, j]", "dout[n, c, i, j] / (ph * pw)", "taken_as"),
    wrong("pool_stride_1", "pool", "max_pool_backward_naive", "dx[n, c, i*s:i*s+ph, j*s:j*s+pw] +=", "dx[n, c, i:i+ph, j:j+pw] +=", "stride put_at shifted"),
    wrong("pool_min", "pool", "max_pool_backward_naive", "window == np.max(window)", "window == np.min(window)", "the_smallest part taken_as"),
    wrong("svm_count_is_one", "svm", "svm_loss", "dx[np.arange(N), y] -= num_pos", "dx[np.arange(N), y] -= 1", "part"),
    wrong("svm_no_N", "svm", "svm_loss", "    dx /= N\n", "", "mean_missing constant_factor", at=("dx[np.arange(N), y] -= num_pos", "return loss, dx")),
    wrong("svm_label_not_touched", "svm", "svm_loss", "    dx[np.arange(N), y] -= num_pos\n", "", "part left_out", at=("dx /= N", "dx[margins > 0] = 1")),
    wrong("svm_label_set", "svm", "svm_loss", "dx[np.arange(N), y] -= num_pos", "dx[np.arange(N), y] += num_pos", "part wrong_sign"),
    wrong("softmax_no_one", "softmax", "softmax_loss_vectorized", "    dscores[np.arange(num_train), y] -= 1\n", "", "lacks_entry term one_hot | left_out g_left_out", at=("dscores = p.copy()", "dW = X.T.dot(dscores)")),
    wrong("softmax_reg_half", "softmax", "softmax_loss_vectorized", "dW += 2 * reg * W", "dW += reg * W", "term times constant_factor", "W"),
    wrong("softmax_N_twice", "softmax", "softmax_loss_vectorized", "dW /= num_train", "dW /= num_train ** 2", "averaged_over times two_mistakes"),
    wrong("softmax_reg_before", "softmax", "softmax_loss_vectorized", "    dW /= num_train\n    dW += 2 * reg * W\n", "    dW += 2 * reg * W\n    dW /= num_train\n", "averaged_over times term", at="dW /= num_train"),
    wrong("two_mask_forgotten", "two_layer", LOSS, "        dhidden[hidden <= 0] = 0\n", "", "lost taken_as", at=("dhidden = np.dot(dscores, W2.T)", "grads['W1'] = np.dot(X.T, dhidden)")),
    wrong("two_reg_of_W1", "two_layer", LOSS, "grads['W1'] += reg * W1", "grads['W1'] += reg * np.sum(W1)", "term constant_added summed"),
    wrong("two_reg_left_out", "two_layer", LOSS, "        grads['W2'] += reg * W2\n", "", "term left_out", at="grads['W2'] = np.dot(hidden.T, dscores)"),
    wrong("two_X_for_hidden", "two_layer", LOSS, "np.dot(X.T, dhidden)", "np.dot(hidden.T[:4], dhidden)", "operand"),
    wrong("two_N_forgotten", "two_layer", LOSS, "        dscores /= N\n", "", "mean_missing", at=("dscores[range(N), y] -= 1", "grads['W2'] = np.dot(hidden.T, dscores)")),
    wrong("two_scores_for_dscores", "two_layer", LOSS, "np.sum(dscores, axis=0)", "np.sum(scores, axis=0)", "operand made_from"),
    wrong("two_max_not_less", "two_layer", LOSS, "dhidden[hidden <= 0] = 0", "dhidden[hidden < 0] = 0", "lost taken_as"),
]
