"""Fully connected layers: seven people, seven ways to keep a weight and its gradient."""

# ruff: noqa: RUF059
import numpy as np

from corpus.check import layer


# 1. 本のやり方 (params と grads はリスト)
class Affine:
    def __init__(self, W, b):
        self.params = [W, b]
        self.grads = [np.zeros_like(W), np.zeros_like(b)]
        self.x = None

    def forward(self, x):
        W, b = self.params
        out = np.dot(x, W) + b
        self.x = x
        return out

    def backward(self, dout):
        W, b = self.params
        dx = np.dot(dout, W.T)
        dW = np.dot(self.x.T, dout)
        db = np.sum(dout, axis=0)

        self.grads[0][...] = dW
        self.grads[1][...] = db
        return dx


class MatMul:
    def __init__(self, W):
        self.params = [W]
        self.grads = [np.zeros_like(W)]
        self.x = None

    def forward(self, x):
        (W,) = self.params
        out = np.dot(x, W)
        self.x = x
        return out

    def backward(self, dout):
        (W,) = self.params
        dx = np.dot(dout, W.T)
        dW = np.dot(self.x.T, dout)
        self.grads[0][...] = dW
        return dx


# 2. attributes W / dW, tensors of any rank flattened on the way in
class FullyConnected:
    def __init__(self, W, b):
        self.W = W
        self.b = b
        self.x = None
        self.original_x_shape = None
        self.dW = None
        self.db = None

    def forward(self, x):
        self.original_x_shape = x.shape
        x = x.reshape(x.shape[0], -1)
        self.x = x
        out = np.dot(self.x, self.W) + self.b
        return out

    def backward(self, dout):
        dx = np.dot(dout, self.W.T)
        self.dW = np.dot(self.x.T, dout)
        self.db = np.sum(dout, axis=0)
        dx = dx.reshape(*self.original_x_shape)  # back to the tensor that came in
        return dx


# 3. dicts "params" and "grads"
class Linear:
    """output = inputs @ w + b"""

    def __init__(self, input_size: int, output_size: int, rng) -> None:
        self.params = {}
        self.grads = {}
        self.params["w"] = rng.normal(size=(input_size, output_size))
        self.params["b"] = rng.normal(size=output_size)

    def forward(self, inputs):
        self.inputs = inputs
        return inputs @ self.params["w"] + self.params["b"]

    def backward(self, grad):
        self.grads["b"] = np.sum(grad, axis=0)
        self.grads["w"] = self.inputs.T @ grad
        return grad @ self.params["w"].T


# 4. dicts "parameters" and "gradients", dense layer and its activation in one
class DenseTanh:
    def __init__(self, weights, bias):
        self.parameters = {"weights": weights, "bias": bias}
        self.gradients = {"weights": None, "bias": None}
        self.cache = ()

    def forward(self, A_prev):
        Z = A_prev @ self.parameters["weights"] + self.parameters["bias"]
        A = np.tanh(Z)
        self.cache = (A_prev, A)
        return A

    def backward(self, dA):
        A_prev, A = self.cache
        dZ = dA * (1 - A**2)
        self.gradients["weights"] = A_prev.T @ dZ
        self.gradients["bias"] = dZ.sum(axis=0)
        return dZ @ self.parameters["weights"].T


# 5. weights are made when the first batch is seen
class LazyDense:
    def __init__(self, units, seed=0):
        self.units = units
        self.seed = seed
        self.W = None
        self.b = None

    def build(self, fan_in):
        rs = np.random.RandomState(self.seed)
        self.W = rs.randn(fan_in, self.units) / np.sqrt(fan_in)
        self.b = np.zeros(self.units)

    def forward(self, X):
        if self.W is None:
            self.build(X.shape[1])
        self.X = X
        return X.dot(self.W) + self.b

    def backward(self, grad_out):
        self.dW = self.X.T.dot(grad_out)
        self.db = grad_out.sum(axis=0)
        return grad_out.dot(self.W.T)


# 6. properties, and column-major thinking: weight is (out, in)
class LinearModule:
    def __init__(self, weight, bias):
        self._weight, self._bias = weight, bias
        self._weight_grad, self._bias_grad = None, None
        self._saved = None

    @property
    def params(self):
        return [self._weight, self._bias]

    @property
    def grads(self):
        return [self._weight_grad, self._bias_grad]

    def forward(self, input_):
        self._saved = input_
        return input_ @ self._weight.T + self._bias

    def backward(self, grad_output):
        self._weight_grad = grad_output.T @ self._saved
        self._bias_grad = grad_output.sum(0)
        return grad_output @ self._weight


# 7. gradients pile up until somebody calls zero_grad
class AccumulatingDense:
    def __init__(self, W, b):
        self.W, self.b = W, b
        self.dW, self.db = np.zeros_like(W), np.zeros_like(b)

    def zero_grad(self):
        self.dW = np.zeros_like(self.W)
        self.db = np.zeros_like(self.b)

    def forward(self, x):
        self.x = x
        return x @ self.W + self.b

    def backward(self, dy):
        self.dW += self.x.T @ dy
        self.db += dy.sum(axis=0)
        return dy @ self.W.T


# 8. dense layer with an L2 penalty that is *not* part of the layer, only a per-feature scale is
class ScaledDense:
    """y = (x * scale) W, the scale learned as well."""

    def __init__(self, W, scale):
        self.W, self.scale = W, scale

    def forward(self, x):
        self.x = x
        self.xs = x * self.scale
        return np.matmul(self.xs, self.W)

    def backward(self, dy):
        dxs = np.matmul(dy, self.W.T)
        self.dW = np.matmul(self.xs.T, dy)
        self.dscale = (dxs * self.x).sum(axis=0)
        return dxs * self.scale


# 9. two inputs: z_k = x^T W_k y
class Bilinear:
    def __init__(self, W):
        self.params, self.grads = [W], [np.zeros_like(W)]

    def forward(self, x, y):
        W = self.params[0]
        self.cache = (x, y)
        return np.einsum("ni,nj,ijk->nk", x, y, W)

    def backward(self, dz):
        W = self.params[0]
        x, y = self.cache
        self.grads[0][...] = np.einsum("ni,nj,nk->ijk", x, y, dz)
        dx = np.einsum("nk,nj,ijk->ni", dz, y, W)
        dy = np.einsum("nk,ni,ijk->nj", dz, x, W)
        return dx, dy


CHECKS = {
    "affine": lambda rng, s: layer(
        Affine(rng.normal(size=(s.d, s.h)), rng.normal(size=s.h)), rng.normal(size=(s.n, s.d))
    ),
    "matmul": lambda rng, s: layer(
        MatMul(rng.normal(size=(s.d, s.h))), rng.normal(size=(s.n, s.d))
    ),
    "fully_connected": lambda rng, s: layer(
        FullyConnected(rng.normal(size=(2 * s.d, s.h)), rng.normal(size=s.h)),
        rng.normal(size=(s.n, 2, s.d)),
    ),
    "linear_dicts": lambda rng, s: layer(Linear(s.d, s.h, rng), rng.normal(size=(s.n, s.d))),
    "dense_tanh": lambda rng, s: layer(
        DenseTanh(rng.normal(size=(s.d, s.h)), rng.normal(size=(1, s.h)).reshape(s.h)),
        rng.normal(size=(s.n, s.d)),
    ),
    "lazy_dense": lambda rng, s: layer(LazyDense(s.h), rng.normal(size=(s.n, s.d))),
    "linear_module": lambda rng, s: layer(
        LinearModule(rng.normal(size=(s.h, s.d)), rng.normal(size=s.h)),
        rng.normal(size=(s.n, s.d)),
    ),
    "accumulating_dense": lambda rng, s: layer(
        AccumulatingDense(rng.normal(size=(s.d, s.h)), rng.normal(size=s.h)),
        rng.normal(size=(s.n, s.d)),
    ),
    "scaled_dense": lambda rng, s: layer(
        ScaledDense(rng.normal(size=(s.d, s.h)), rng.normal(size=s.d)),
        rng.normal(size=(s.n, s.d)),
    ),
    "bilinear": lambda rng, s: layer(
        Bilinear(rng.normal(size=(s.d, s.h, s.c))),
        rng.normal(size=(s.n, s.d)),
        rng.normal(size=(s.n, s.h)),
    ),
}
