"""Small frameworks of one's own: modules with names as in PyTorch, or with dvalues and dinputs."""
# fmt: off
# ruff: noqa

import numpy as np

import spiral_autograd as sa
from strangers import wrong


# ---- from scratch with dvalues, dinputs, dweights ----

class Layer_Dense:
    def __init__(self, weights, biases, l2=0.1):
        self.weights, self.biases = weights, biases
        self.l2 = l2

    def forward(self, inputs):
        self.inputs = inputs
        self.output = np.dot(inputs, self.weights) + self.biases
        return self.output

    def backward(self, dvalues):
        self.dweights = np.dot(self.inputs.T, dvalues)
        self.dbiases = np.sum(dvalues, axis=0, keepdims=True)
        self.dinputs = np.dot(dvalues, self.weights.T)
        return self.dinputs

def check_dense(budget=10.0):
    r = np.random.RandomState(0)
    return sa.check_layer(Layer_Dense(r.randn(3, 3), r.randn(1, 3)), r.randn(4, 3), budget=budget)


class Activation_Softmax:
    def forward(self, inputs):
        exp_values = np.exp(inputs - np.max(inputs, axis=1, keepdims=True))
        self.output = exp_values / np.sum(exp_values, axis=1, keepdims=True)
        return self.output

    def backward(self, dvalues):
        self.dinputs = np.empty_like(dvalues)
        for index, (single_output, single_dvalues) in enumerate(zip(self.output, dvalues)):
            single_output = single_output.reshape(-1, 1)
            jacobian = np.diagflat(single_output) - np.dot(single_output, single_output.T)
            self.dinputs[index] = np.dot(jacobian, single_dvalues)
        return self.dinputs

def check_softmax(budget=10.0):
    return sa.check_layer(Activation_Softmax(), np.random.RandomState(1).randn(4, 3), budget=budget)


class Loss_BinaryCrossentropy:
    def forward(self, y_pred, y_true):
        self.y_pred, self.y_true = y_pred, y_true
        sample_losses = -(y_true * np.log(y_pred) + (1 - y_true) * np.log(1 - y_pred))
        return np.mean(np.mean(sample_losses, axis=-1))

    def backward(self, dout=1.0):
        samples, outputs = self.y_pred.shape
        dinputs = -(self.y_true / self.y_pred - (1 - self.y_true) / (1 - self.y_pred)) / outputs
        dinputs = dinputs / samples
        return dinputs * dout

def check_bce(budget=10.0):
    r = np.random.RandomState(2)
    return sa.check_layer(Loss_BinaryCrossentropy(), r.uniform(.1, .9, (5, 3)), r.randint(0, 2, (5, 3)), budget=budget)


class HuberLoss:
    def __init__(self, delta=1.0):
        self.delta = delta

    def forward(self, pred, target):
        self.e = pred - target
        small = np.abs(self.e) <= self.delta
        return np.where(small, 0.5 * self.e ** 2, self.delta * (np.abs(self.e) - 0.5 * self.delta)).mean()

    def backward(self, dout=1.0):
        grad = np.where(np.abs(self.e) <= self.delta, self.e, self.delta * np.sign(self.e))
        return dout * grad / self.e.size

def check_huber(budget=10.0):
    r = np.random.RandomState(3)
    return sa.check_layer(HuberLoss(0.7), 2 * r.randn(6, 2), r.randn(6, 2), budget=budget)


# ---- modules with names as in PyTorch, gradients in grad_weight, grad_bias ----

class Linear:
    def __init__(self, in_features, out_features, rng):
        self.weight = rng.standard_normal((out_features, in_features))
        self.bias = rng.standard_normal(out_features)
        self.grad_weight = np.zeros_like(self.weight)
        self.grad_bias = np.zeros_like(self.bias)

    def zero_grad(self):
        self.grad_weight[:] = 0
        self.grad_bias[:] = 0

    def forward(self, input):
        self.input = input
        return input @ self.weight.T + self.bias

    def backward(self, grad_output):
        self.grad_weight += grad_output.T @ self.input
        self.grad_bias += grad_output.sum(axis=0)
        return grad_output @ self.weight

def check_linear(budget=10.0):
    rng = np.random.default_rng(4)
    return sa.check_layer(Linear(3, 3, rng), rng.standard_normal((5, 3)), budget=budget)


class LayerNorm:
    def __init__(self, dim, rng, eps=1e-5):
        self.gamma = rng.standard_normal(dim)
        self.beta = rng.standard_normal(dim)
        self.eps = eps

    def forward(self, x):
        self.mean = x.mean(axis=-1, keepdims=True)
        self.var = x.var(axis=-1, keepdims=True)
        self.x_hat = (x - self.mean) / np.sqrt(self.var + self.eps)
        return self.gamma * self.x_hat + self.beta

    def backward(self, grad):
        self.dgamma = (grad * self.x_hat).sum(axis=(0, 1))
        self.dbeta = grad.sum(axis=(0, 1))
        dx_hat = grad * self.gamma
        dx = dx_hat - dx_hat.mean(axis=-1, keepdims=True) - self.x_hat * (dx_hat * self.x_hat).mean(axis=-1, keepdims=True)
        return dx / np.sqrt(self.var + self.eps)

def check_layer_norm(budget=10.0):
    rng = np.random.default_rng(5)
    return sa.check_layer(LayerNorm(4, rng), rng.standard_normal((3, 2, 4)), budget=budget)


def softmax(x):
    e = np.exp(x - x.max(axis=-1, keepdims=True))
    return e / e.sum(axis=-1, keepdims=True)


class MultiHeadAttention:
    def __init__(self, d_model, n_heads, rng):
        self.h, self.d_k = n_heads, d_model // n_heads
        self.W_q, self.W_k, self.W_v, self.W_o = (rng.standard_normal((d_model, d_model)) for _ in range(4))

    def split(self, x):
        B, T, D = x.shape
        return x.reshape(B, T, self.h, self.d_k).transpose(0, 2, 1, 3)

    def merge(self, x):
        B, H, T, d = x.shape
        return x.transpose(0, 2, 1, 3).reshape(B, T, H * d)

    def forward(self, x):
        self.x = x
        self.q, self.k, self.v = self.split(x @ self.W_q), self.split(x @ self.W_k), self.split(x @ self.W_v)
        scores = self.q @ self.k.transpose(0, 1, 3, 2) / np.sqrt(self.d_k)
        self.attn = softmax(scores)
        self.context = self.merge(self.attn @ self.v)
        return self.context @ self.W_o

    def backward(self, grad):
        B, T, D = self.x.shape
        x_flat = self.x.reshape(-1, D)
        self.dW_o = self.context.reshape(-1, D).T @ grad.reshape(-1, D)
        d_context = self.split(grad @ self.W_o.T)
        d_attn = d_context @ self.v.transpose(0, 1, 3, 2)
        d_v = self.attn.transpose(0, 1, 3, 2) @ d_context
        d_scores = self.attn * (d_attn - (d_attn * self.attn).sum(axis=-1, keepdims=True))
        d_scores = d_scores / np.sqrt(self.d_k)
        d_q = self.merge(d_scores @ self.k)
        d_k = self.merge(d_scores.transpose(0, 1, 3, 2) @ self.q)
        d_v = self.merge(d_v)
        self.dW_q = x_flat.T @ d_q.reshape(-1, D)
        self.dW_k = x_flat.T @ d_k.reshape(-1, D)
        self.dW_v = x_flat.T @ d_v.reshape(-1, D)
        return d_q @ self.W_q.T + d_k @ self.W_k.T + d_v @ self.W_v.T

def check_attention(budget=10.0):
    rng = np.random.default_rng(6)
    return sa.check_layer(MultiHeadAttention(4, 2, rng), rng.standard_normal((2, 3, 4)), budget=budget)


class GRUCell:
    def __init__(self, D, H, rng):
        self.params = {n: rng.standard_normal((D if n[0] == "W" else H, H)) for n in ("Wz", "Uz", "Wr", "Ur", "Wh", "Uh")}
        self.params.update({n: rng.standard_normal(H) for n in ("bz", "br", "bh")})
        self.grads = {}

    def forward(self, x, h_prev):
        p = self.params
        z = 1 / (1 + np.exp(-(x @ p["Wz"] + h_prev @ p["Uz"] + p["bz"])))
        r = 1 / (1 + np.exp(-(x @ p["Wr"] + h_prev @ p["Ur"] + p["br"])))
        hh = np.tanh(x @ p["Wh"] + (r * h_prev) @ p["Uh"] + p["bh"])
        h = z * h_prev + (1 - z) * hh
        self.cache = x, h_prev, z, r, hh
        return h

    def backward(self, dh):
        p, g = self.params, self.grads
        x, h_prev, z, r, hh = self.cache
        dhh = dh * (1 - z)
        dz = dh * (h_prev - hh)
        dh_prev = dh * z
        dhh_in = dhh * (1 - hh ** 2)
        g["Wh"] = x.T @ dhh_in
        g["Uh"] = (r * h_prev).T @ dhh_in
        g["bh"] = dhh_in.sum(0)
        drh = dhh_in @ p["Uh"].T
        dr = drh * h_prev
        dh_prev += drh * r
        dr_in = dr * r * (1 - r)
        g["Wr"] = x.T @ dr_in
        g["Ur"] = h_prev.T @ dr_in
        g["br"] = dr_in.sum(0)
        dz_in = dz * z * (1 - z)
        g["Wz"] = x.T @ dz_in
        g["Uz"] = h_prev.T @ dz_in
        g["bz"] = dz_in.sum(0)
        dh_prev += dr_in @ p["Ur"].T + dz_in @ p["Uz"].T
        dx = dhh_in @ p["Wh"].T + dr_in @ p["Wr"].T + dz_in @ p["Wz"].T
        return dx, dh_prev

def check_gru(budget=10.0):
    rng = np.random.default_rng(7)
    return sa.check_layer(GRUCell(3, 3, rng), rng.standard_normal((4, 3)), rng.standard_normal((4, 3)), budget=budget)


class Embedding:
    def __init__(self, num, dim, rng):
        self.weight = rng.standard_normal((num, dim))

    def forward(self, ids):
        self.ids = ids
        return self.weight[ids]

    def backward(self, grad):
        self.weight_grad = np.zeros_like(self.weight)
        for b in range(self.ids.shape[0]):
            for t in range(self.ids.shape[1]):
                self.weight_grad[self.ids[b, t]] += grad[b, t]

def check_embedding(budget=10.0):
    rng = np.random.default_rng(8)
    return sa.check_layer(Embedding(6, 3, rng), np.array([[1, 2, 1], [2, 0, 3]]), budget=budget)


CHECKS = {
    "dense": check_dense, "softmax": check_softmax, "bce": check_bce, "huber": check_huber, "linear": check_linear,
    "layer_norm": check_layer_norm, "attention": check_attention, "gru": check_gru, "embedding": check_embedding,
}
DENSE, LINEAR, NORM, MHA, GRU = "Layer_Dense.backward", "Linear.backward", "LayerNorm.backward", "MultiHeadAttention.backward", "GRUCell.backward"
BCE, HUBER = "Loss_BinaryCrossentropy.backward", "HuberLoss.backward"

MISTAKES = [
    wrong("dense_l2_not_in_loss", "dense", DENSE, "np.dot(self.inputs.T, dvalues)", "np.dot(self.inputs.T, dvalues) + 2 * self.l2 * self.weights", "term", "weights"),
    wrong("dense_output_for_input", "dense", DENSE, "np.dot(self.inputs.T, dvalues)", "np.dot(self.output.T[:, :], dvalues)", "operand"),
    wrong("dense_clipped", "dense", DENSE, "self.dinputs = np.dot(dvalues, self.weights.T)", "self.dinputs = np.clip(np.dot(dvalues, self.weights.T), -1, 1)", "clipped | upstream_not_linear"),
    wrong("dense_clipped_before", "dense", DENSE, "self.dweights = np.dot(self.inputs.T, dvalues)", "dvalues = np.clip(dvalues, -0.5, 0.5)\n        self.dweights = np.dot(self.inputs.T, dvalues)", "clipped"),
    wrong("dense_no_keepdims", "dense", DENSE, "np.sum(dvalues, axis=0, keepdims=True)", "np.sum(dvalues, axis=1, keepdims=True)", "summed other_sum"),
    wrong("dense_dbiases_all", "dense", DENSE, "np.sum(dvalues, axis=0, keepdims=True)", "np.sum(dvalues, keepdims=True)", "should_keep summed"),
    wrong("dense_averaged", "dense", DENSE, "np.dot(self.inputs.T, dvalues)", "np.dot(self.inputs.T, dvalues) / len(dvalues)", "averaged_over"),
    wrong("softmax_diagonal", "softmax", "Activation_Softmax.backward", "np.diagflat(single_output) - np.dot(single_output, single_output.T)", "np.diagflat(single_output * (1 - single_output))", "diagonal_of_softmax"),
    wrong("softmax_jacobian_plus", "softmax", "Activation_Softmax.backward", "np.diagflat(single_output) - np.dot", "np.diagflat(single_output) + np.dot", "term_taken wrong_sign"),
    wrong("softmax_no_diagonal", "softmax", "Activation_Softmax.backward", "np.diagflat(single_output) - np.dot", "-np.dot", "g_left_out | term left_out"),
    wrong("bce_no_outputs", "bce", BCE, "(1 - self.y_pred)) / outputs", "(1 - self.y_pred))", "mean_missing constant_factor"),
    wrong("bce_no_samples", "bce", BCE, "        dinputs = dinputs / samples\n", "", "mean_missing constant_factor", at=("dinputs = -(self.y_true / self.y_pred - (1 - self.y_true) / (1 - self.y_pred)) / outputs", "return dinputs * dout")),
    wrong("bce_plus", "bce", BCE, "self.y_true / self.y_pred - (1", "self.y_true / self.y_pred + (1", "wrong_sign part"),
    wrong("bce_sign", "bce", BCE, "dinputs = -(self", "dinputs = (self", "wrong_sign"),
    wrong("bce_with_sigmoid", "bce", BCE, "-(self.y_true / self.y_pred - (1 - self.y_true) / (1 - self.y_pred)) / outputs", "(self.y_pred - self.y_true) / outputs", "combined | taken_as times_too"),
    wrong("bce_label_only", "bce", BCE, "(self.y_true / self.y_pred - (1 - self.y_true) / (1 - self.y_pred))", "(self.y_true / self.y_pred)", "left_out part"),
    wrong("huber_no_sign", "huber", HUBER, "self.delta * np.sign(self.e)", "self.delta", "part lost wrong_sign"),
    wrong("huber_no_delta", "huber", HUBER, "self.delta * np.sign(self.e)", "np.sign(self.e)", "lost part times constant_factor"),
    wrong("huber_by_rows", "huber", HUBER, "self.e.size", "len(self.e)", "times mean_missing constant_factor ratio"),
    wrong("linear_weight_T", "linear", LINEAR, "return grad_output @ self.weight", "return grad_output @ self.weight.T", "operand transposed not_transposed transposed_operand"),
    wrong("linear_grad_weight_T", "linear", LINEAR, "grad_output.T @ self.input", "self.input.T @ grad_output", "transposed"),
    wrong("linear_bias_set", "linear", LINEAR, "self.grad_bias += grad_output.sum(axis=0)", "self.grad_bias = grad_output.mean(axis=0)", "averaged_over averaged"),
    wrong("ln_dbeta_one_axis", "layer_norm", NORM, "self.dbeta = grad.sum(axis=(0, 1))", "self.dbeta = grad.sum(axis=0)", "not_summed"),
    wrong("ln_mean_axis_0", "layer_norm", NORM, "dx_hat.mean(axis=-1, keepdims=True)", "dx_hat.mean(axis=0, keepdims=True)", "term_axes"),
    wrong("ln_sum_for_mean", "layer_norm", NORM, "(dx_hat * self.x_hat).mean(axis=-1", "(dx_hat * self.x_hat).sum(axis=-1", "term_taken mean_missing"),
    wrong("ln_grad_for_dx_hat", "layer_norm", NORM, "dx = dx_hat - dx_hat.mean", "dx = grad - dx_hat.mean", "operand made_from term_taken | taken_as"),
    wrong("ln_var_not_root", "layer_norm", NORM, "return dx / np.sqrt(self.var + self.eps)", "return dx / (self.var + self.eps)", "scale_squared"),
    wrong("ln_gamma_in_dgamma", "layer_norm", NORM, "(grad * self.x_hat).sum", "(grad * self.gamma * self.x_hat).sum", "made_from times_too | taken_as"),
    wrong("ln_axis_of_3d", "layer_norm", NORM, "self.dgamma = (grad * self.x_hat).sum(axis=(0, 1))", "self.dgamma = (grad * self.x_hat).sum(axis=(0, 1)) / len(grad)", "averaged_over"),
    wrong("mha_scale", "attention", MHA, "        d_scores = d_scores / np.sqrt(self.d_k)\n", "", "times constant_factor", at=("d_q = self.merge(d_scores @ self.k)", "d_scores = self.attn * (d_attn - (d_attn * self.attn).sum(axis=-1, keepdims=True))")),
    wrong("mha_scale_d_model", "attention", MHA, "d_scores / np.sqrt(self.d_k)", "d_scores / np.sqrt(D)", "times constant_factor ratio"),
    wrong("mha_k_not_T", "attention", MHA, "d_scores.transpose(0, 1, 3, 2) @ self.q", "d_scores @ self.q", "g_transposed"),
    wrong("mha_attn_not_T", "attention", MHA, "self.attn.transpose(0, 1, 3, 2) @ d_context", "self.attn @ d_context", "not_transposed"),
    wrong("mha_kv_both", "attention", MHA, "self.dW_k = x_flat.T @ d_k.reshape(-1, D)\n        self.dW_v = x_flat.T @ d_v.reshape(-1, D)", "self.dW_k, self.dW_v = (d_k.reshape(-1, D).T @ x_flat, d_v.reshape(-1, D).T @ x_flat)", "transposed"),
    wrong("mha_softmax_axis", "attention", MHA, "(d_attn * self.attn).sum(axis=-1", "(d_attn * self.attn).sum(axis=-2", "term_axes"),
    wrong("mha_softmax_no_sum", "attention", MHA, "(d_attn * self.attn).sum(axis=-1, keepdims=True)", "d_attn * self.attn", "term_taken"),
    wrong("mha_not_merged", "attention", MHA, "d_q = self.merge(d_scores @ self.k)", "d_q = (d_scores @ self.k).reshape(B, T, D)", "reordered"),
    wrong("mha_dx_no_v", "attention", MHA, " + d_v @ self.W_v.T", "", "left_out"),
    wrong("mha_dx_v_for_k", "attention", MHA, "d_k @ self.W_k.T + d_v @ self.W_v.T", "d_k @ self.W_v.T + d_v @ self.W_v.T", "operand"),
    wrong("mha_W_o_left_out", "attention", MHA, "self.split(grad @ self.W_o.T)", "self.split(grad)", "lost"),
    wrong("mha_context_T", "attention", MHA, "self.split(grad @ self.W_o.T)", "self.split(grad @ self.W_o)", "not_transposed"),
    wrong("mha_q_from_q", "attention", MHA, "d_scores @ self.k)", "d_scores @ self.q)", "operand"),
    wrong("gru_z_sign", "gru", GRU, "dz = dh * (h_prev - hh)", "dz = dh * (hh - h_prev)", "wrong_sign"),
    wrong("gru_z_swapped", "gru", GRU, "dhh = dh * (1 - z)", "dhh = dh * z", "taken_as operand"),
    wrong("gru_r_forgotten", "gru", GRU, "(r * h_prev).T @ dhh_in", "h_prev.T @ dhh_in", "operand lost"),
    wrong("gru_dh_prev_overwritten", "gru", GRU, "dh_prev += drh * r", "dh_prev = drh * r", "left_out only overwritten"),
    wrong("gru_dh_prev_without_gates", "gru", GRU, "dh_prev += dr_in @ p[\"Ur\"].T + dz_in @ p[\"Uz\"].T", "dh_prev += dz_in @ p[\"Uz\"].T", "left_out"),
    wrong("gru_gates_bare", "gru", GRU, "dr_in = dr * r * (1 - r)", "dr_in = dr", "lost"),
    wrong("gru_r_tanh", "gru", GRU, "dr_in = dr * r * (1 - r)", "dr_in = dr * (1 - r ** 2)", "taken_as"),
    wrong("gru_bz_for_br", "gru", GRU, "g[\"br\"] = dr_in.sum(0)", "g[\"br\"] = g[\"bh\"]", "that_of"),
    wrong("gru_drh_r", "gru", GRU, "dr = drh * h_prev", "dr = drh * r", "taken_as operand"),
    wrong("gru_Uh_not_T", "gru", GRU, "drh = dhh_in @ p[\"Uh\"].T", "drh = dhh_in @ p[\"Uh\"]", "not_transposed"),
    wrong("gru_dh_for_dhh", "gru", GRU, "dhh_in = dhh * (1 - hh ** 2)", "dhh_in = dh * (1 - hh ** 2)", "lost made_from"),
    wrong("gru_dx_one_gate", "gru", GRU, "dx = dhh_in @ p[\"Wh\"].T + dr_in @ p[\"Wr\"].T + dz_in @ p[\"Wz\"].T", "dx = dhh_in @ p[\"Wh\"].T", "left_out only"),
    wrong("embedding_set", "embedding", "Embedding.backward", "self.weight_grad[self.ids[b, t]] += grad[b, t]", "self.weight_grad[self.ids[b, t]] = grad[b, t]", "overwritten"),
    wrong("embedding_from_1", "embedding", "Embedding.backward", "for t in range(self.ids.shape[1]):", "for t in range(1, self.ids.shape[1]):", "lacks_entry"),
    wrong("embedding_id_minus_1", "embedding", "Embedding.backward", "self.weight_grad[self.ids[b, t]] += grad[b, t]", "self.weight_grad[self.ids[b, t] - 1] += grad[b, t]", "shifted picked_beside"),
]
