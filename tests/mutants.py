"""Wrong versions of the layers in ``corpus``: the source text edited, one mistake at a time.

``Mutant("softmax", "Softmax", old, new, rules, forward=...)`` edits `old` to `new` inside the
class or function of that name. `rules` are the explanations that an honest expert would accept.
The expected line is the edited one, or the forward operation whose gradient is wrong.
"""

import ast
import difflib
import importlib
import importlib.util
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from corpus.check import Check, Sizes

CORPUS = Path(__file__).parent / "corpus"
FAMILIES = [
    path.stem for path in sorted(CORPUS.glob("*.py")) if path.stem not in ("__init__", "check")
]
MODULE = {
    name: family
    for family in FAMILIES
    for name in importlib.import_module(f"corpus.{family}").CHECKS
}


DEFAULT = Sizes()


@dataclass(frozen=True)
class Mutant:
    layer: str  # a name in CHECKS
    inside: str  # the class or function that is edited
    old: str
    new: str
    rules: frozenset[str | None]
    forward: tuple[str, ...] = ()  # other lines that may be named
    sizes: Sizes = DEFAULT
    effect: bool = False  # a note, not a failure
    seed: int = 0

    def source(self) -> str:
        """Return the mutated module."""
        text = (CORPUS / f"{MODULE[self.layer]}.py").read_text(encoding="utf-8")
        lines = text.splitlines(keepends=True)
        start, end = span(text, self.inside)
        part = "".join(lines[start:end])
        assert part.count(self.old) == 1, f"{self}: {part.count(self.old)} times"
        return "".join(lines[:start]) + part.replace(self.old, self.new) + "".join(lines[end:])

    def places(self) -> set[int]:
        """Return the numbers of the lines that may be named."""
        before = (CORPUS / f"{MODULE[self.layer]}.py").read_text(encoding="utf-8").splitlines()
        after = self.source().splitlines()
        numbers = set()
        for tag, _, _, start, end in difflib.SequenceMatcher(
            a=before, b=after, autojunk=False
        ).get_opcodes():
            if tag != "equal":
                numbers |= set(range(start + 1, end + 1))
        for text in self.forward:
            found = {i + 1 for i, line in enumerate(after) if line.strip() == text}
            assert found, f"{self}: no line {text!r}"
            nearby = set()
            for name in (self.inside, self.inside.replace("backward", "forward")):
                start, end = span("\n".join(after), name)
                nearby |= {i for i in found if start < i <= end}
            numbers |= nearby or found
        return numbers

    def check(self, path: Path) -> Check:
        """Write the mutated module to `path`, import it, and return its check."""
        path.write_text(self.source(), encoding="utf-8")
        spec = importlib.util.spec_from_file_location(path.stem, path)
        module = importlib.util.module_from_spec(spec)
        sys.modules[path.stem] = module
        spec.loader.exec_module(module)
        return module.CHECKS[self.layer](np.random.default_rng(self.seed), self.sizes)


def span(text: str, name: str) -> tuple[int, int]:
    for node in ast.parse(text).body:
        if getattr(node, "name", None) == name:
            return node.lineno - 1, node.end_lineno
    raise AssertionError(name)


SQUARE = Sizes(d=3, h=3)
VOCABULARY = Sizes(n=3, t=3, c=12)  # some words twice, some once, some never
MUTANTS: dict[str, Mutant] = {}


def add(name, layer, inside, old, new, rules, *forward, **how):
    rules = frozenset(None if rule == "none" else rule for rule in rules.split())
    assert name not in MUTANTS
    MUTANTS[name] = Mutant(layer, inside, old, new, rules, forward, **how)


# fmt: off
# ruff: noqa: E501

# -------------------- 1: a constant factor --------------------
OUT = "out = np.dot(x, W) + b"
add("factor-sign-dx", "affine", "Affine", "dx = np.dot(dout", "dx = -np.dot(dout", "factor", OUT)
add("factor-half-db", "fully_connected", "FullyConnected", "self.db = np.sum(dout, axis=0)", "self.db = np.sum(dout, axis=0) / 2", "factor", "out = np.dot(self.x, self.W) + self.b")
add("factor-mse-no-2", "mse", "MSELoss", "dout * 2 * self.diff", "dout * self.diff", "factor", "return np.mean(self.diff**2)")
add("factor-mse-rows", "mse", "MSELoss", "/ self.diff.size", "/ len(self.diff)", "factor sum", "return np.mean(self.diff**2)")
add("factor-ce-no-n", "cross_entropy", "CrossEntropyLoss", "return dout * g / n", "return dout * g", "factor sum", "return -self.logp[np.arange(len(labels)), labels].mean()")
add("factor-softmaxloss-no-n", "softmax_with_loss", "SoftmaxWithLoss", "dx = dx / batch_size", "# dx = dx / batch_size", "factor sum", "return -np.sum(np.log(y[np.arange(batch_size), t] + 1e-7)) / batch_size", "loss = cross_entropy_error(self.y, self.t)")
add("factor-softmaxloss-sign", "softmax_with_loss", "SoftmaxWithLoss", "dx = dx / batch_size", "dx = -dx / batch_size", "factor", "return -np.sum(np.log(y[np.arange(batch_size), t] + 1e-7)) / batch_size", "loss = cross_entropy_error(self.y, self.t)")
add("factor-sigmoidloss-no-n", "sigmoid_with_loss", "SigmoidWithLoss", "dout / batch_size", "dout", "factor sum", "self.loss = cross_entropy_error(np.c_[1 - self.y, self.y], self.t)", "return -np.sum(np.log(y[np.arange(batch_size), t] + 1e-7)) / batch_size")
add("factor-cs-softmax-no-n", "softmax_loss", "softmax_loss", "    dx /= N\n", "", "factor sum", "loss = -np.sum(log_probs[np.arange(N), y]) / N", "return loss, dx", "dx[np.arange(N), y] -= 1")
add("factor-gru-z-sign", "gru", "GRUCell", "dz = dh_new * (n - h)", "dz = dh_new * (h - n)", "factor", "h_new = (1 - z) * h + z * n", 'z = sigmoid(x @ p["Wz"] + h @ p["Uz"])')
add("factor-attention-scale", "attention", "attention_backward", "dS = dS * scale", "dS = dS", "factor", "S = Q @ K.transpose(0, 2, 1) * scale")
add("factor-columns-dW1", "two_layers_columns", "backward_propagation", "dW1 = (1 / m) * np", "dW1 = np", "factor sum", "Z1 = np.dot(W1, X) + b1")
add("factor-columns-twice-m", "two_layers_columns", "backward_propagation", "dZ2 = A2 - Y", "dZ2 = (A2 - Y) / m", "factor sum", "cost = -np.sum(logprobs) / m", "Z2 = np.dot(W2, A1) + b2", "A2 = 1 / (1 + np.exp(-Z2))")
add("factor-batchnorm-dvar", "batch_normalization", "BatchNormalization", "dvar = 0.5 * dstd", "dvar = dstd", "factor", "var = np.mean(xc**2, axis=0)", "std = np.sqrt(var + 10e-7)")
add("factor-layernorm-no-2", "layernorm_pair", "layernorm_backward", "dxmu2 = 2 * xmu", "dxmu2 = xmu", "factor", "var = np.mean(xmu**2, axis=1, keepdims=True)")
add("factor-gelu-3", "gelu", "GELU", "1 + 3 * 0.044715", "1 + 0.044715", "factor", "self.u = np.sqrt(2 / np.pi) * (x + 0.044715 * x**3)")
add("factor-mlp-2", "mlp_list", "mlpGrad", "delta = 2 * (acts", "delta = (acts", "factor", "return ((yPred - target) ** 2).sum() / len(x)")
add("factor-average-h", "global_average_pool", "GlobalAveragePool", "/ (h * w)", "/ h", "factor sum", "return x.mean(axis=(2, 3))", sizes=Sizes(side=3))
add("factor-float32-sign", "dense_float32", "Dense32", "= np.sum(dz, axis=0)", "= -np.sum(dz, axis=0)", "factor", "z = np.dot(x, W) + b")
add("factor-ninja-bnvar", "ninja", "ninja_grads", "dbnvar = -0.5 * ", "dbnvar = -1.0 * ", "factor", 'bnvar_inv = sa.tap("bnvar_inv", (bnvar + 1e-5) ** -0.5)')
add("factor-dropout-scale", "dropout", "Dropout", "return dout * self.mask", "return dout * (self.mask > 0)", "factor", "return x * self.mask")

# -------------------- 2: layout --------------------
add("layout-dW-T", "affine", "Affine", "dW = np.dot(self.x.T, dout)", "dW = np.dot(dout.T, self.x)", "layout", OUT, sizes=SQUARE)
add("layout-weight-T", "linear_module", "LinearModule", "grad_output.T @ self._saved", "self._saved.T @ grad_output", "layout", "return input_ @ self._weight.T + self._bias")
add("layout-W-not-T", "matmul", "MatMul", "np.dot(dout, W.T)", "np.dot(dout, W)", "layout", "out = np.dot(x, W)", sizes=SQUARE)
add("layout-bilinear-swap", "bilinear", "Bilinear", "return dx, dy", "return dy, dx", "layout", sizes=SQUARE)
add("layout-glu-swap", "glu", "glu_backward", "return da, db", "return db, da", "layout")
add("layout-rnn-swap", "rnn", "RNN", "return dx, dh_prev", "return dh_prev, dx", "layout", sizes=SQUARE)
add("layout-rnn-grads", "rnn", "RNN", "self.grads[0][...] = dWx\n        self.grads[1][...] = dWh", "self.grads[0][...] = dWh\n        self.grads[1][...] = dWx", "layout", sizes=SQUARE)
add("layout-attention-swap", "attention", "attention_backward", "return dQ, dK, dV", "return dK, dQ, dV", "layout")
add("layout-conv-reshape", "convolution", "Convolution", "self.dW.transpose(1, 0).reshape", "self.dW.reshape", "layout", "col_W = self.W.reshape(FN, -1).T")
add("layout-flatten", "flatten", "Flatten", "return dout.reshape(self.shape)", "n, c, h, w = self.shape\n        return dout.reshape(n, h, w, c).transpose(0, 3, 1, 2)", "layout", "return x.reshape(x.shape[0], -1)")
add("layout-linear-dicts", "linear_dicts", "Linear", "self.inputs.T @ grad", "grad.T @ self.inputs", "layout", 'return inputs @ self.params["w"] + self.params["b"]')
add("layout-pooling", "pooling", "Pooling", "dout = dout.transpose(0, 2, 3, 1)", "dout = dout.transpose(0, 3, 2, 1)", "layout", "out = out.reshape(N, out_h, out_w, C).transpose(0, 3, 1, 2)")
add("layout-gru-Un", "gru", "GRUCell", "rh.T @ dn_raw", "dn_raw.T @ rh", "layout", 'n = np.tanh(x @ p["Wn"] + rh @ p["Un"] + p["bn"])')
add("layout-lstm-gates", "lstm", "LSTM", "(df, dg, di, do)", "(df, di, dg, do)", "layout part", "g = A[:, H : 2 * H]", "i = A[:, 2 * H : 3 * H]")
add("layout-logistic", "logistic_regression", "propagate", "np.dot(X, (A - Y).T)", "np.dot(A - Y, X.T)", "layout", "A = 1 / (1 + np.exp(-(np.dot(w.T, X) + b)))")
add("layout-attention-Wq", "self_attention", "SelfAttention", "self.dWq = self.X.T @ dq", "self.dWq = dq.T @ self.X", "layout", "self.q = X @ self.Wq", sizes=SQUARE)

# -------------------- 3: sums --------------------
add("sum-db-none", "fully_connected", "FullyConnected", "self.db = np.sum(dout, axis=0)", "self.db = dout", "sum", "out = np.dot(self.x, self.W) + self.b")
add("sum-db-axis", "fully_connected", "FullyConnected", "self.db = np.sum(dout, axis=0)", "self.db = np.sum(dout, axis=1)", "sum", "out = np.dot(self.x, self.W) + self.b")
add("sum-db-axis-square", "affine", "Affine", "np.sum(dout, axis=0)", "np.sum(dout, axis=1)", "sum", OUT, sizes=Sizes(n=3, h=3))
add("sum-dbeta-mean", "batchnorm_pair", "batchnorm_backward", "dbeta = dout.sum(axis=0)", "dbeta = dout.mean(axis=0)", "sum factor", "out = gamma * x_hat + beta")
add("sum-tanh-all", "dense_tanh", "DenseTanh", "dZ.sum(axis=0)", "dZ.sum()", "sum", 'Z = A_prev @ self.parameters["weights"] + self.parameters["bias"]')
add("sum-keepdims", "linear_dicts", "Linear", "np.sum(grad, axis=0)", "np.sum(grad, axis=0, keepdims=True)", "sum", 'return inputs @ self.params["w"] + self.params["b"]')
add("sum-lazy-all", "lazy_dense", "LazyDense", "grad_out.sum(axis=0)", "grad_out.sum()", "sum", "return X.dot(self.W) + self.b")
add("sum-scale", "scaled_dense", "ScaledDense", "(dxs * self.x).sum(axis=0)", "dxs * self.x", "sum", "self.xs = x * self.scale")
add("sum-layernorm-axes", "layer_norm", "LayerNorm", '["gain"] = (dout * self.norm).sum(axis=axes)', '["gain"] = (dout * self.norm).sum(axis=0)', "sum", 'return self.norm * self.params["gain"] + self.params["shift"]')
add("sum-columns-keepdims", "two_layers_columns", "backward_propagation", "db1 = (1 / m) * np.sum(dZ1, axis=1, keepdims=True)", "db1 = (1 / m) * np.sum(dZ1, axis=1)", "sum", "Z1 = np.dot(W1, X) + b1")
add("sum-softmax-axis", "softmax", "Softmax", "sumdx = np.sum(dx, axis=1", "sumdx = np.sum(dx, axis=0", "sum", "self.out = e / np.sum(e, axis=1, keepdims=True)")
add("sum-batchnorm-mean", "batchnorm_pair", "batchnorm_backward", "dx_hat.mean(axis=0)", "dx_hat.mean()", "sum", "mu = x.mean(axis=0)", "x_hat = (x - mu) / std")
add("sum-weight-sum", "weight_sum", "WeightSum", "da = np.sum(dar", "da = np.mean(dar", "sum factor", "ar = a.reshape(N, T, 1).repeat(H, axis=2)")
add("sum-rnn-db", "rnn", "RNN", "np.sum(dt, axis=0)", "np.mean(dt, axis=0)", "sum factor", "t = np.dot(h_prev, Wh) + np.dot(x, Wx) + b")
add("sum-prelu", "prelu", "PReLU", "np.sum(dy * np", "np.mean(dy * np", "sum factor", "return np.maximum(x, 0) + self.alpha * np.minimum(x, 0)")
add("sum-first-missing", "dense_tanh", "DenseTanh", "dZ.sum(axis=0)", "dZ[1:].sum(axis=0)", "sum part", 'Z = A_prev @ self.parameters["weights"] + self.parameters["bias"]')
add("sum-conv-db", "convolution", "Convolution", "np.sum(dout, axis=0)", "np.mean(dout, axis=0)", "sum factor", "out = np.dot(col, col_W) + self.b")

# -------------------- 4: the upstream gradient --------------------
add("upstream-tanh", "tanh", "Tanh", "return dy * (1 - self.y * self.y)", "return 1 - self.y * self.y", "upstream", "self.y = np.tanh(x)")
add("upstream-sigmoid", "sigmoid", "Sigmoid", "dx = dout * (1.0", "dx = (1.0", "upstream", "out = 1 / (1 + np.exp(-x))")
add("upstream-relu", "relu_pair", "relu_backward", "dout * (x > 0)", "1.0 * (x > 0)", "upstream", "out = np.maximum(0, x)")
add("upstream-relu-sign", "relu_pair", "relu_backward", "dout * (x > 0)", "dout * (dout > 0)", "upstream", "out = np.maximum(0, x)")
add("upstream-swish-twice", "swish", "Swish", "return dy * (s", "return dy * dy * (s", "upstream", "return x * self.sig")
add("upstream-gelu", "gelu", "GELU", "return dout * (0.5", "return 1.0 * (0.5", "upstream", "return 0.5 * x * (1 + self.t)")
add("upstream-dropout", "dropout", "Dropout", "return dout * self.mask", "return self.mask", "upstream", "return x * self.mask")
add("upstream-rnn", "rnn", "RNN", "dt = dh_next * (1 - h_next**2)", "dt = 1 - h_next**2", "upstream", "h_next = np.tanh(t)")
add("upstream-float32", "scale_float32", "Scale32", "(dout * self.x).sum(axis=0)", "self.x.sum(axis=0)", "upstream", "return self.gamma * self.x + self.beta")
add("upstream-layernorm-twice", "layernorm_pair", "layernorm_backward", "np.sum(dout * x_hat, axis=0)", "np.sum(dout * dout * x_hat, axis=0)", "upstream", "out = gamma * x_hat + beta")
add("upstream-dgamma", "batch_normalization", "BatchNormalization", "np.sum(self.xn * dout, axis=0)", "np.sum(self.xn, axis=0)", "upstream", "out = self.gamma * xn + self.beta")
add("upstream-lstm-o", "lstm", "LSTM", "do = dh_next * tanh_c_next", "do = tanh_c_next.copy()", "upstream", "h_next = o * np.tanh(c_next)")
add("upstream-dot", "embedding_dot", "EmbeddingDot", "dh = dout * target_W", "dh = target_W", "upstream", "out = np.sum(target_W * h, axis=1)")

# -------------------- 5: a factor that is a value --------------------
add("value-tanh-1-y", "tanh", "Tanh", "(1 - self.y * self.y)", "(1 - self.y)", "value", "self.y = np.tanh(x)")
add("value-sigmoid-1-y", "sigmoid", "Sigmoid", "dout * (1.0 - self.out) * self.out", "dout * self.out", "value", "out = 1 / (1 + np.exp(-x))")
add("value-sigmoid-y2", "sigmoid", "Sigmoid", "* self.out\n", "* self.out**2\n", "value", "out = 1 / (1 + np.exp(-x))")
add("value-dense-tanh", "dense_tanh", "DenseTanh", "dZ = dA * (1 - A**2)", "dZ = dA", "value", "A = np.tanh(Z)")
add("value-scale", "scaled_dense", "ScaledDense", "return dxs * self.scale", "return dxs", "value", "self.xs = x * self.scale")
add("value-relu-mask", "relu_pair", "relu_backward", "dx = dout * (x > 0)", "dx = dout", "value part", "out = np.maximum(0, x)")
add("value-dgamma", "batchnorm_pair", "batchnorm_backward", "(dout * x_hat).sum(axis=0)\n    dx_hat", "dout.sum(axis=0)\n    dx_hat", "value layout", "out = gamma * x_hat + beta")
add("value-batchnorm-std", "batchnorm_pair", "batchnorm_backward", "/ N) / std", "/ N)", "value", "x_hat = (x - mu) / std")
add("value-batchnorm-gamma", "batch_normalization", "BatchNormalization", "dxn = self.gamma * dout", "dxn = dout", "value", "out = self.gamma * xn + self.beta")
add("value-lstm-f", "lstm", "LSTM", "dc_prev = ds * f", "dc_prev = ds", "value", "c_next = f * c_prev + g * i")
add("value-lstm-g", "lstm", "LSTM", "dg *= 1 - g**2", "dg *= 1 - g", "value", "g = np.tanh(g)")
add("value-lstm-i", "lstm", "LSTM", "di *= i * (1 - i)", "di *= i", "value", "i = sigmoid(i)", "return 1 / (1 + np.exp(-x))")
add("value-lstm-o", "lstm", "LSTM", "(dh_next * o) * (1 - tanh_c_next**2)", "(dh_next * o)", "value", "h_next = o * np.tanh(c_next)")
add("value-gru-r", "gru", "GRUCell", "dh = dh + drh * r", "dh = dh + drh", "value", "rh = r * h")
add("value-gru-z", "gru", "GRUCell", "dz_raw = dz * z * (1 - z)", "dz_raw = dz", "value", 'z = sigmoid(x @ p["Wz"] + h @ p["Uz"])', "return 1 / (1 + np.exp(-x))")
add("value-rnn", "rnn", "RNN", "dt = dh_next * (1 - h_next**2)", "dt = dh_next * 1", "value", "h_next = np.tanh(t)")
add("value-attention-P", "attention", "attention_backward", "dS = P * (dP", "dS = (dP", "value", "P = softmax(S)", "return e / e.sum(axis=axis, keepdims=True)", "e = np.exp(a - a.max(axis=axis, keepdims=True))")
add("value-dropout", "dropout", "Dropout", "return dout * self.mask", "return dout", "value", "return x * self.mask")
add("value-dropout-pair", "dropout_pair", "dropout_backward", "dx = dout * mask", "dx = dout * mask**2", "value factor", "out = x * mask")
add("value-ninja-gain", "ninja", "ninja_grads", 'dbnraw = params["bngain"] * dhpreact', "dbnraw = dhpreact", "value", 'hpreact = sa.tap("hpreact", params["bngain"] * bnraw + params["bnbias"])')
add("value-ninja-exp", "ninja", "ninja_grads", "dlogits = counts * dcounts", "dlogits = dcounts", "value", 'counts = sa.tap("counts", np.exp(logits))')
add("value-float32", "dense_float32", "Dense32", "dz = dy * self.y * (1 - self.y)", "dz = dy * self.y", "value", "self.y = 1 / (1 + np.exp(-z))")
add("value-softplus", "softplus", "softplus_backward", "return dout / (1 + np.exp(-z))", "return dout", "value", "out = np.log(1 + np.exp(z))")
add("value-layernorm-gamma", "layernorm_pair", "layernorm_backward", "dx_hat = dout * gamma", "dx_hat = dout", "value", "out = gamma * x_hat + beta")
add("value-columns-tanh", "two_layers_columns", "backward_propagation", "np.dot(W2.T, dZ2) * (1 - np.power(A1, 2))", "np.dot(W2.T, dZ2)", "value", "A1 = np.tanh(Z1)")
add("value-columns-z", "two_layers_columns", "backward_propagation", "dZ2 = A2 - Y", "dZ2 = (A2 - Y) * A2 * (1 - A2)", "value", "A2 = 1 / (1 + np.exp(-Z2))")
add("value-glu-gate", "glu", "glu_backward", "da = dout * gate\n", "da = dout\n", "value", "return a * gate, (a, gate)")
add("value-glu-derivative", "glu", "glu_backward", "a * gate * (1 - gate)", "a * gate", "value", "gate = 1 / (1 + np.exp(-b))")
add("value-mlp-tanh", "mlp_list", "mlpGrad", "(delta @ W.T) * (1 - acts[i] ** 2)", "(delta @ W.T)", "value", "activations.append(z if last else np.tanh(z))")

# -------------------- 6: terms --------------------
add("term-decay", "affine", "Affine", "np.dot(self.x.T, dout)", "np.dot(self.x.T, dout) + 0.01 * W", "term", OUT)
add("term-decay-dicts", "linear_dicts", "Linear", "self.inputs.T @ grad", 'self.inputs.T @ grad + 0.1 * self.params["w"]', "term", 'return inputs @ self.params["w"] + self.params["b"]')
add("term-constant", "affine", "Affine", "np.sum(dout, axis=0)", "np.sum(dout, axis=0) + 1", "term", OUT)
add("term-softmax", "softmax", "Softmax", "        dx -= self.out * sumdx\n", "", "term", "self.out = e / np.sum(e, axis=1, keepdims=True)", "dx = self.out * dout", "return dx")
add("term-rnn-time", "rnn_pair", "rnn_backward", "dnow = dh[:, t] + dprev", "dnow = dh[:, t]", "term part", "prev = np.tanh(x[:, t].dot(Wx) + prev.dot(Wh) + b)")
add("term-time-rnn", "time_rnn", "TimeRNN", "dhs[:, t, :] + dh)", "dhs[:, t, :])", "term part", "self.h = layer.forward(xs[:, t, :], self.h)", "hs[:, t, :] = self.h", "t = np.dot(h_prev, Wh) + np.dot(x, Wx) + b")
add("term-batchnorm-mean", "batchnorm_pair", "batchnorm_backward", "dx_hat - dx_hat.mean(axis=0) - x_hat", "dx_hat - x_hat", "term", "mu = x.mean(axis=0)", "x_hat = (x - mu) / std")
add("term-batchnorm-var", "batchnorm_pair", "batchnorm_backward", " - x_hat * (dx_hat * x_hat).sum(axis=0) / N", "", "term", "std = np.sqrt(var + eps)", "var = x.var(axis=0)", "x_hat = (x - mu) / std")
add("term-batchnorm-dmu", "batch_normalization", "BatchNormalization", "dx = dxc - dmu / self.batch_size", "dx = dxc", "term", "mu = x.mean(axis=0)", "xc = x - mu")
add("term-layernorm", "layernorm_pair", "layernorm_backward", "dx = dx1 + dx2", "dx = dx1", "term", "mu = np.mean(x, axis=1, keepdims=True)", "xmu = x - mu")
add("term-layernorm-class", "layer_norm", "LayerNorm", "dx = dx - self.norm * (dnorm * self.norm).mean(-1, keepdims=True)", "dx = 1.0 * dx", "term", "self.rstd = (var + self.eps) ** -0.5", "var = x.var(-1, keepdims=True)", "self.norm = (x - mean) * self.rstd")
add("term-gru-dh", "gru", "GRUCell", "dh = dh + drh * r", "dh = drh * r", "term", "h_new = (1 - z) * h + z * n")
add("term-gru-dx", "gru", "GRUCell", ' + dr_raw @ p["Wr"].T\n', "\n", "term", 'r = sigmoid(x @ p["Wr"] + h @ p["Ur"])')
add("term-lstm-dc", "lstm", "LSTM", "ds = dc_next + (dh_next", "ds = (dh_next", "term upstream", "c_next = f * c_prev + g * i", "return h_next, c_next")
add("term-lstm-dh", "lstm", "LSTM", "ds = dc_next + (dh_next * o) * (1 - tanh_c_next**2)", "ds = dc_next", "term", "h_next = o * np.tanh(c_next)")
add("term-no-decay", "two_layer_net", "TwoLayerNet", "hidden.T.dot(dscores) + self.reg * W2", "hidden.T.dot(dscores)", "term", "loss = data_loss + 0.5 * self.reg * (np.sum(W1 * W1) + np.sum(W2 * W2))", seed=1)
add("term-decay-2", "two_layer_net", "TwoLayerNet", "+ self.reg * W1", "+ 2 * self.reg * W1", "term factor", "loss = data_loss + 0.5 * self.reg * (np.sum(W1 * W1) + np.sum(W2 * W2))", seed=1)
add("term-swish", "swish", "Swish", "dy * (s + self.x", "dy * (self.x", "term", "return x * self.sig")
add("term-gelu", "gelu", "GELU", " + 0.5 * x * dt", "", "term", "return 0.5 * x * (1 + self.t)", "self.t = np.tanh(self.u)")
add("term-l2", "l2_normalize", "l2_normalize_backward", "(dy - y * inner) / norm", "dy / norm", "term", "y = x / norm", "norm = np.sqrt(np.sum(x * x, axis=1, keepdims=True))")
add("term-attention-v", "self_attention", "SelfAttention", " + dv @ self.Wv.T", "", "term", "self.v = X @ self.Wv")
add("term-attention-softmax", "attention", "attention_backward", "P * (dP - np.sum(dP * P, axis=-1, keepdims=True))", "P * dP", "term", "P = softmax(S)", "return e / e.sum(axis=axis, keepdims=True)")
add("term-ninja-mean", "ninja", "ninja_grads", "dhprebn = dbndiff + dbnmeani / n", "dhprebn = dbndiff", "term", 'bnmeani = sa.tap("bnmeani", hprebn.sum(0, keepdims=True) / n)')
add("term-ninja-counts", "ninja", "ninja_grads", "dcounts = dprobs / counts_sum + dcounts_sum", "dcounts = dprobs / counts_sum", "term", 'counts_sum = sa.tap("counts_sum", counts.sum(1, keepdims=True))')
add("term-rms", "rms_norm", "RMSNorm", "inv * gdy - inv**3 * x * dot", "inv * gdy", "term", "self.inv = 1.0 / np.sqrt(np.mean(x**2, axis=-1, keepdims=True) + 1e-6)", "return self.g * x * self.inv")
add("term-ce-label", "cross_entropy", "CrossEntropyLoss", "        g[np.arange(n), self.labels] -= 1.0\n", "", "term part", "return -self.logp[np.arange(len(labels)), labels].mean()", "self.logp = shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))", "g = np.exp(self.logp)")

# -------------------- 7: state --------------------
add("state-accumulate", "affine", "Affine", "self.grads[0][...] = dW", "self.grads[0][...] += dW", "state")
add("state-accumulate-dict", "layer_norm", "LayerNorm", 'self.grads["shift"] = ', 'self.grads["shift"] += ', "state")
add("state-accumulate-gru", "gru", "GRUCell", 'g["bn"] = dn_raw', 'g["bn"] += dn_raw', "state")
add("state-accumulate-time", "time_rnn", "TimeRNN", "self.grads[i][...] = grad", "self.grads[i][...] = grad + (i == 0) * self.grads[i]", "state")
add("state-embedding", "embedding", "Embedding", "dW[...] = 0", "dW[self.idx] = 0", "state", "np.add.at(dW, self.idx, dout)")
add("state-half-reset", "accumulating_dense", "AccumulatingDense", "self.dW = np.zeros_like(self.W)\n        self.db = np.zeros_like(self.b)", "self.dW = np.zeros_like(self.W)", "state", "self.db += dy.sum(axis=0)")
add("state-cache-lazy", "lazy_dense", "LazyDense", "        self.X = X\n", '        if not hasattr(self, "X"):\n            self.X = X\n', "state", "self.dW = self.X.T.dot(grad_out)")
add("state-cache-tanh", "dense_tanh", "DenseTanh", "self.cache = (A_prev, A)", "self.cache = self.cache or (A_prev, A)", "state", "A_prev, A = self.cache")
add("state-cache-sigmoid", "sigmoid", "Sigmoid", "self.out = out\n", "self.out = out if self.out is None else self.out\n", "state", "dx = dout * (1.0 - self.out) * self.out")
add("state-cache-conv", "convolution", "Convolution", "self.col = col\n", "self.col = col if self.col is None else self.col\n", "state", "self.dW = np.dot(self.col.T, dout)")
add("state-second-momentum", "accumulating_dense", "AccumulatingDense", "return dy @ self.W.T", 'self.calls = getattr(self, "calls", 0) + 1\n        return dy @ self.W.T / self.calls', "state")

# -------------------- 8: not written --------------------
add("unwritten-replaced", "three_layer_net", "PlainAffine", "self.grads[0][:] = dW", "self.grads[0] = dW", "unwritten")
add("unwritten-replaced-db", "three_layer_net", "PlainAffine", "self.grads[1][:] = db", "self.grads[1] = db", "unwritten")
add("unwritten-replaced-list", "three_layer_net", "PlainAffine", "self.grads[0][:] = dW\n        self.grads[1][:] = db", "self.grads = [dW, db]", "unwritten")
add("unwritten-zeros", "affine", "Affine", "        self.grads[1][...] = db\n", "", "unwritten", "db = np.sum(dout, axis=0)", OUT)
add("unwritten-gru", "gru", "GRUCell", '        g["Ur"] = h.T @ dr_raw\n', "", "unwritten", 'r = sigmoid(x @ p["Wr"] + h @ p["Ur"])')
add("unwritten-none", "dense_tanh", "DenseTanh", '        self.gradients["bias"] = dZ.sum(axis=0)\n', "", "unwritten", 'Z = A_prev @ self.parameters["weights"] + self.parameters["bias"]')
add("unwritten-key", "linear_dicts", "Linear", '        self.grads["b"] = np.sum(grad, axis=0)\n', "", "unwritten", 'return inputs @ self.params["w"] + self.params["b"]')
add("unwritten-local", "prelu", "PReLU", "self.dalpha = np.sum", "dalpha = np.sum", "unwritten", "return np.maximum(x, 0) + self.alpha * np.minimum(x, 0)")
add("unwritten-no-return", "matmul", "MatMul", "        return dx\n", "", "unwritten", "dx = np.dot(dout, W.T)", "out = np.dot(x, W)")
add("unwritten-pair", "affine_pair", "affine_backward", "return dx, dw, db", "return None, dw, db", "unwritten", "out = x.reshape(x.shape[0], -1) @ w + b")
add("unwritten-embedding", "embedding", "Embedding", "(dW,) = self.grads", "dW = np.zeros_like(self.params[0])", "unwritten", "out = W[idx]")
add("unwritten-dgamma", "batch_normalization", "BatchNormalization", "        self.dgamma = dgamma\n", "", "unwritten", "out = self.gamma * xn + self.beta", "dgamma = np.sum(self.xn * dout, axis=0)")
add("unwritten-columns", "two_layers_columns", "backward_propagation", ', "db2": db2}', "}", "unwritten", "Z2 = np.dot(W2, A1) + b2")
add("unwritten-mlp", "mlp_list", "mlpGrad", "reversed(range(len(params)))", "reversed(range(1, len(params)))", "unwritten", "z = activations[-1] @ W + b", "grads = [None] * len(params)")

# -------------------- 9: in part --------------------
add("part-leaky", "leaky_relu", "LeakyReLU", "self.inputs > 0, 1.0, self.alpha", "self.inputs > 0, 1.0, 0.0", "part value term", "return np.where(inputs > 0, inputs, self.alpha * inputs)", "return grad * slope")
add("part-elu", "elu", "ELU", "left = self.y + self.alpha", "left = self.y", "part term value", "self.y = np.where(x > 0, x, self.alpha * (np.exp(x) - 1))", "return np.where(self.x > 0, dy, dy * left)")
add("part-rnn-first", "rnn_pair", "rnn_backward", "range(T - 1, -1, -1)", "range(T - 1, 0, -1)", "part term value", "prev = np.tanh(x[:, t].dot(Wx) + prev.dot(Wh) + b)", "dx[:, t] = draw.dot(Wx.T)")
add("part-embedding", "embedding", "Embedding", "np.add.at(dW, self.idx, dout)", "dW[self.idx] += dout", "part sum", "out = W[idx]", sizes=VOCABULARY)
add("part-word-embedding", "word_embedding", "word_embedding_backward", "np.add.at(dW, x, dout)", "dW[x] = dout", "part sum", "out = W[x]", sizes=VOCABULARY)
add("part-padding", "word_embedding", "word_embedding_backward", "np.add.at(dW, x, dout)", "np.add.at(dW, x, dout)\n    dW[0] = 0", "part", "out = W[x]")
add("part-two-layer", "two_layer_net", "TwoLayerNet", "        dhidden[pre <= 0] = 0\n", "", "part value", "hidden = np.maximum(0, pre)", seed=1)
add("part-huber", "huber", "HuberLoss", "self.delta * np.sign(self.r)", "np.sign(self.r)", "part factor", "values = np.where(small, 0.5 * self.r**2, self.delta * (np.abs(self.r) - self.delta / 2))", "return values.sum() / len(y)")
add("part-svm", "svm_loss", "svm_loss", "    dx[np.arange(N), y] -= num_pos\n", "", "part term", "margins = np.maximum(0, x - correct_class_scores[:, np.newaxis] + 1.0)", "correct_class_scores = x[np.arange(N), y]", "dx[margins > 0] = 1")
add("part-label", "softmax_loss", "softmax_loss", "dx[np.arange(N), y] -= 1", "dx[np.arange(N), y - 1] -= 1", "part term", "loss = -np.sum(log_probs[np.arange(N), y]) / N")
add("part-pool-channel", "max_pool_naive", "max_pool_backward_naive", "for c in range(C):", "for c in range(1, C):", "part", "out[:, :, i, j] = np.max(x[:, :, hs : hs + ph, ws : ws + pw], axis=(2, 3))")
add("part-relu-twice", "affine", "Affine", "dx = np.dot(dout, W.T)", "dx = np.dot(dout, W.T) * (self.x > 0)", "part value", OUT)
add("part-weight-sum", "weight_sum", "WeightSum", "dhs = dt * ar", "dhs = dt * ar\n        dhs[:, -1] = 0", "part", "t = hs * ar")

# -------------------- 10: kinks --------------------
add("kink-relu-1", "relu_at_zero", "Relu", "self.mask = x <= 0\n        out = x.copy()\n        out[self.mask] = 0", "self.mask = x < 0\n        out = np.maximum(x, 0)", "kink", "dout[self.mask] = 0")
add("kink-relu-pair-1", "relu_pair_at_zero", "relu_backward", "(x > 0)", "(x >= 0)", "kink", "out = np.maximum(0, x)")
add("kink-leaky-1", "leaky_relu_at_zero", "LeakyReLU", "slope = np.where(self.inputs > 0", "slope = np.where(self.inputs >= 0", "kink", "return np.where(inputs > 0, inputs, self.alpha * inputs)", "return grad * slope")
add("kink-prelu", "prelu_at_zero", "PReLU", "negative = self.x < 0", "negative = self.x <= 0", "kink", "return np.maximum(x, 0) + self.alpha * np.minimum(x, 0)")
add("kink-max-first", "max_pool_ties", "max_pool_backward_naive", "best = window == window.max()", "best = np.arange(window.size).reshape(window.shape) == window.argmax()", "kink", "out[:, :, i, j] = np.max(x[:, :, hs : hs + ph, ws : ws + pw], axis=(2, 3))")
add("kink-pooling-last", "pooling_ties", "Pooling", "arg_max = np.argmax(col, axis=1)", "arg_max = col.shape[1] - 1 - np.argmax(col[:, ::-1], axis=1)", "kink", "out = np.max(col, axis=1)")

# -------------------- side effects: notes --------------------
add("effect-upstream", "relu", "Relu", "        dout = dout.copy()\n", "", "none", effect=True)
add("effect-cache", "rnn", "RNN", "dt = dh_next * (1 - h_next**2)", "h_next *= h_next\n        dt = dh_next * (1 - h_next)", "none", effect=True)
add("effect-parameter", "affine", "Affine", "return dx", "W -= 0.1 * dW\n        return dx", "none", effect=True)

# -------------------- outside the table --------------------
add("outside-layernorm-power", "layernorm_pair", "layernorm_backward", "ivar**3 * divar", "ivar**1.5 * divar", "none value")
add("outside-ninja-power", "ninja", "ninja_grads", "** -1.5", "** -0.5", "none value", 'bnvar_inv = sa.tap("bnvar_inv", (bnvar + 1e-5) ** -0.5)')
add("outside-gelu-cube", "gelu", "GELU", "3 * 0.044715 * x**2", "3 * 0.044715 * x**3", "none value")
add("outside-gelu-u", "gelu", "GELU", "(1 - t**2)", "(1 - self.u**2)", "none value")
add("outside-rnn-cache", "rnn", "RNN", "1 - h_next**2", "1 - h_prev**2", "none value")
add("outside-swish-x", "swish", "Swish", "s * (1 - s)", "s * (1 - self.x)", "none value")
add("outside-lstm-gates", "lstm", "LSTM", "do *= o * (1 - o)", "do *= o * (1 - f)", "none value part")
add("outside-lstm-tanh", "lstm", "LSTM", "dg *= 1 - g**2", "dg *= 1 - i**2", "none value")
add("outside-gru-z", "gru", "GRUCell", "dn * (1 - n * n)", "dn * (1 - z * z)", "none value")
add("outside-attention-max", "attention", "attention_backward", "np.sum(dP * P, axis", "np.max(dP * P, axis", "none upstream")
add("outside-noise", "affine", "Affine", "dW = np.dot(self.x.T, dout)", "dW = np.dot(self.x.T, dout) * (1 + 1e-3 * np.sin(7.3 * np.arange(W.size)).reshape(W.shape))", "none")
add("outside-sigmoid-root", "sigmoid", "Sigmoid", "* self.out\n", "* np.sqrt(self.out)\n", "none value")
add("outside-mse-sin", "mse", "MSELoss", "2 * self.diff", "2 * np.sin(self.diff)", "none")
add("outside-median", "layer_norm", "LayerNorm", "dnorm - dnorm.mean(-1, keepdims=True)", "dnorm - np.median(dnorm, -1, keepdims=True)", "none upstream term", sizes=Sizes(d=5))
add("outside-ce-square", "cross_entropy", "CrossEntropyLoss", "g = np.exp(self.logp)", "g = np.exp(self.logp) ** 2", "none value")
add("outside-softplus", "softplus", "softplus_backward", "np.exp(-z)", "np.exp(z / 2)", "none")
# fmt: on
