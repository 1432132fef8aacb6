"""What many courses do on purpose, held against a loss that does not have it: to be said as such."""
# fmt: off
# ruff: noqa

import numpy as np

import spiral_autograd as sa
from strangers import wrong


# ---- the 1/m of the cost, in the gradients of the parameters ----

def linear_forward(A_prev, W, b):
    Z = W @ A_prev + b
    return Z, (A_prev, W, b)

def linear_backward(dZ, cache):
    A_prev, W, b = cache
    m = A_prev.shape[1]
    dW = dZ @ A_prev.T
    db = dZ.sum(axis=1, keepdims=True)
    dA_prev = W.T @ dZ
    return dA_prev, dW, db

def check_linear(budget=10.0):
    r = np.random.default_rng(0)
    return sa.check_backward(linear_forward, linear_backward, r.normal(size=(4, 7)), r.normal(size=(3, 4)), r.normal(size=(3, 1)), budget=budget)


# ---- losses of probabilities ----

class CategoricalCrossEntropy:
    def forward(self, probs, onehot):
        self.probs, self.onehot = probs, onehot
        return -np.sum(onehot * np.log(probs)) / probs.shape[0]

    def backward(self, dout=1.0):
        n = self.probs.shape[0]
        grad = -self.onehot / self.probs / n
        return grad * dout

def check_ce(budget=10.0):
    r = np.random.default_rng(1)
    probs = r.uniform(0.1, 1, (6, 3))
    return sa.check_layer(CategoricalCrossEntropy(), probs / probs.sum(axis=1, keepdims=True), np.eye(3)[[0, 1, 2, 2, 1, 0]], budget=budget)


class MeanSquaredError:
    def forward(self, output, target):
        self.diff = output - target
        return 0.5 * np.mean(np.sum(self.diff ** 2, axis=1))

    def backward(self, dout=1.0):
        batch = len(self.diff)
        return dout * self.diff / batch

def check_mse(budget=10.0):
    r = np.random.default_rng(2)
    return sa.check_layer(MeanSquaredError(), r.normal(size=(6, 3)), r.normal(size=(6, 3)), budget=budget)


# ---- a recurrent network that clips, or stops, what flows back ----

def rnn_loss(params, x, y):
    U, W, V = params
    h = np.zeros((W.shape[0],))
    loss = 0.0
    for t in range(len(x)):
        h = np.tanh(U @ x[t] + W @ h)
        loss += 0.5 * np.sum((V @ h - y[t]) ** 2)
    return loss

def bptt(params, x, y, bptt_truncate=1000):
    U, W, V = params
    T = len(x)
    s = np.zeros((T + 1, W.shape[0]))
    for t in range(T):
        s[t] = np.tanh(U @ x[t] + W @ s[t-1])
    dU, dW, dV = np.zeros(U.shape), np.zeros(W.shape), np.zeros(V.shape)
    for t in np.arange(T)[::-1]:
        delta_o = V @ s[t] - y[t]
        dV += np.outer(delta_o, s[t])
        delta_t = V.T @ delta_o * (1 - s[t] ** 2)
        for bptt_step in np.arange(max(0, t-bptt_truncate), t+1)[::-1]:
            dW += np.outer(delta_t, s[bptt_step-1])
            dU += np.outer(delta_t, x[bptt_step])
            delta_t = W.T @ delta_t * (1 - s[bptt_step-1] ** 2)
    grads = [dU, dW, dV]
    return grads

def check_bptt(budget=10.0):
    r = np.random.default_rng(3)
    params = [r.normal(size=(3, 2)), r.normal(size=(3, 3)), r.normal(size=(2, 3))]
    return sa.check_gradient(rnn_loss, bptt, params, r.normal(size=(5, 2)), r.normal(size=(5, 2)), budget=budget)


CHECKS = {"linear": check_linear, "ce": check_ce, "mse": check_mse, "bptt": check_bptt}
CE, MSE = "CategoricalCrossEntropy.backward", "MeanSquaredError.backward"

MISTAKES = [
    wrong("linear_1_over_m", "linear", "linear_backward", "    dW = dZ @ A_prev.T\n    db = dZ.sum(axis=1, keepdims=True)\n", "    dW = dZ @ A_prev.T / m\n    db = dZ.sum(axis=1, keepdims=True) / m\n", "mean_of_cost | averaged_over", at=("dW = dZ @ A_prev.T / m", "db = dZ.sum(axis=1, keepdims=True) / m"), ok=None),
    wrong("ce_combined", "ce", CE, "grad = -self.onehot / self.probs / n", "grad = (self.probs - self.onehot) / n", "combined", ok=None),
    wrong("ce_sum_of_the_batch", "ce", CE, "grad = -self.onehot / self.probs / n", "grad = -self.onehot / self.probs", "mean_missing constant_factor", ok=None),
    wrong("mse_sum_of_the_batch", "mse", MSE, "return dout * self.diff / batch", "return dout * self.diff", "mean_missing", ok=None),
    wrong("mse_mean_of_all", "mse", MSE, "return dout * self.diff / batch", "return dout * self.diff / self.diff.size", "averaged_over", ok=None),
    wrong("mse_sign_of_the_descent", "mse", MSE, "return dout * self.diff / batch", "return -dout * self.diff / batch", "wrong_sign"),
    wrong("bptt_decay", "bptt", "bptt", "grads = [dU, dW, dV]", "grads = [dU + 0.01 * U, dW + 0.01 * W, dV + 0.01 * V]", "term", ok=None),
    wrong("bptt_clipped", "bptt", "bptt", "grads = [dU, dW, dV]", "grads = [np.clip(g, -1, 1) for g in (dU, dW, dV)]", "clipped", ok=None),
    wrong("bptt_clipped_by_norm", "bptt", "bptt", "grads = [dU, dW, dV]", "grads = [g / np.linalg.norm(g) for g in (dU, dW, dV)]", "clipped_norm | times", ok=None),
    wrong("bptt_truncated", "bptt", "bptt", "bptt_truncate=1000", "bptt_truncate=1", "truncated | left_out", ok=None),
    wrong("bptt_truncated_at_once", "bptt", "bptt", "max(0, t-bptt_truncate)", "t", "truncated not_carried left_out", ok=None),
    wrong("bptt_h_not_before", "bptt", "bptt", "np.outer(delta_t, s[bptt_step-1])", "np.outer(delta_t, s[bptt_step])", "operand"),
    wrong("bptt_x_of_t", "bptt", "bptt", "np.outer(delta_t, x[bptt_step])", "np.outer(delta_t, x[t])", "operand"),
    wrong("bptt_derivative_of_now", "bptt", "bptt", "(1 - s[bptt_step-1] ** 2)", "(1 - s[bptt_step] ** 2)", "taken_as operand not_derived"),
    wrong("bptt_W_not_T", "bptt", "bptt", "delta_t = W.T @ delta_t", "delta_t = W @ delta_t", "not_transposed"),
    wrong("bptt_dV_set", "bptt", "bptt", "dV += np.outer(delta_o, s[t])", "dV = np.outer(delta_o, s[t])", "overwritten only"),
    wrong("bptt_no_derivative", "bptt", "bptt", "delta_t = V.T @ delta_o * (1 - s[t] ** 2)", "delta_t = V.T @ delta_o", "lost not_derived"),
]
