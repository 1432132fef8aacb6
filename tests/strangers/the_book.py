"""Classes with lists of params and grads that are written into in place."""
# fmt: off
# ruff: noqa

import numpy as np

import spiral_autograd as sa
from strangers import wrong


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


class Affine:
    def __init__(self, W, b):
        self.params = [W, b]
        self.grads = [np.zeros_like(W), np.zeros_like(b)]
        self.x = None

    def forward(self, x):
        W, b = self.params
        self.x = x
        return np.dot(x, W) + b

    def backward(self, dout):
        W, b = self.params
        dx = np.dot(dout, W.T)
        dW = np.dot(self.x.T, dout)
        db = np.sum(dout, axis=0)
        self.grads[0][...] = dW
        self.grads[1][...] = db
        return dx

def check_affine(budget=10.0):
    r = np.random.RandomState(0)
    return sa.check_layer(Affine(r.randn(4, 4), r.randn(4)), r.randn(5, 4), budget=budget)


class Embedding:
    def __init__(self, W):
        self.params = [W]
        self.grads = [np.zeros_like(W)]
        self.idx = None

    def forward(self, idx):
        W, = self.params
        self.idx = idx
        return W[idx]

    def backward(self, dout):
        dW, = self.grads
        dW[...] = 0
        np.add.at(dW, self.idx, dout)
        return None


class TimeEmbedding:
    def __init__(self, W):
        self.params = [W]
        self.grads = [np.zeros_like(W)]

    def forward(self, xs):
        N, T = xs.shape
        W, = self.params
        out = np.empty((N, T, W.shape[1]))
        self.layers = []
        for t in range(T):
            layer = Embedding(W)
            out[:, t, :] = layer.forward(xs[:, t])
            self.layers.append(layer)
        return out

    def backward(self, dout):
        N, T, D = dout.shape
        grad = 0
        for t in range(T):
            layer = self.layers[t]
            layer.backward(dout[:, t, :])
            grad += layer.grads[0]
        self.grads[0][...] = grad
        return None

def check_embedding(budget=10.0):
    r = np.random.RandomState(4)
    return sa.check_layer(TimeEmbedding(r.randn(7, 3)), np.array([[1, 2, 1], [1, 5, 2], [3, 2, 4]]), budget=budget)


class WeightSum:
    def __init__(self):
        self.params, self.grads = [], []

    def forward(self, hs, a):
        N, T, H = hs.shape
        ar = a.reshape(N, T, 1)
        t = hs * ar
        c = np.sum(t, axis=1)
        self.cache = (hs, ar)
        return c

    def backward(self, dc):
        hs, ar = self.cache
        N, T, H = hs.shape
        dt = dc.reshape(N, 1, H).repeat(T, axis=1)
        dar = dt * hs
        dhs = dt * ar
        da = np.sum(dar, axis=2)
        return dhs, da

def check_weight_sum(budget=10.0):
    r = np.random.RandomState(5)
    return sa.check_layer(WeightSum(), r.randn(3, 3, 3), r.randn(3, 3), budget=budget)


class SoftmaxWithLoss:
    def __init__(self):
        self.params, self.grads = [], []

    def forward(self, x, t):
        self.t = t
        x = x - np.max(x, axis=1, keepdims=True)
        self.y = np.exp(x) / np.sum(np.exp(x), axis=1, keepdims=True)
        batch_size = x.shape[0]
        return -np.sum(np.log(self.y[np.arange(batch_size), t])) / batch_size

    def backward(self, dout=1):
        batch_size = self.t.shape[0]
        dx = self.y.copy()
        dx[np.arange(batch_size), self.t] -= 1
        dx *= dout
        dx = dx / batch_size
        return dx

def check_softmax_with_loss(budget=10.0):
    r = np.random.RandomState(6)
    return sa.check_layer(SoftmaxWithLoss(), r.randn(5, 4), np.array([0, 3, 1, 1, 2]), budget=budget)


def im2col(x, fh, fw, stride, pad):
    N, C, H, W = x.shape
    oh, ow = (H + 2*pad - fh)//stride + 1, (W + 2*pad - fw)//stride + 1
    img = np.pad(x, [(0, 0), (0, 0), (pad, pad), (pad, pad)], 'constant')
    col = np.zeros((N, C, fh, fw, oh, ow))
    for y in range(fh):
        for xx in range(fw):
            col[:, :, y, xx, :, :] = img[:, :, y:y + stride*oh:stride, xx:xx + stride*ow:stride]
    return col.transpose(0, 4, 5, 1, 2, 3).reshape(N*oh*ow, -1)

def col2im_back(col, shape, fh, fw, stride, pad):
    N, C, H, W = shape
    oh, ow = (H + 2*pad - fh)//stride + 1, (W + 2*pad - fw)//stride + 1
    col = col.reshape(N, oh, ow, C, fh, fw).transpose(0, 3, 4, 5, 1, 2)
    img = np.zeros((N, C, H + 2*pad, W + 2*pad))
    for y in range(fh):
        for xx in range(fw):
            img[:, :, y:y + stride*oh:stride, xx:xx + stride*ow:stride] += col[:, :, y, xx, :, :]
    return img[:, :, pad:H + pad, pad:W + pad]


class Convolution:
    def __init__(self, W, b, stride=1, pad=0):
        self.W, self.b, self.stride, self.pad = W, b, stride, pad

    def forward(self, x):
        FN, C, FH, FW = self.W.shape
        N, C, H, W = x.shape
        oh = 1 + int((H + 2*self.pad - FH) / self.stride)
        ow = 1 + int((W + 2*self.pad - FW) / self.stride)
        col = im2col(x, FH, FW, self.stride, self.pad)
        col_W = self.W.reshape(FN, -1).T
        out = np.dot(col, col_W) + self.b
        out = out.reshape(N, oh, ow, -1).transpose(0, 3, 1, 2)
        self.x, self.col, self.col_W = x, col, col_W
        return out

    def backward(self, dout):
        FN, C, FH, FW = self.W.shape
        dout = dout.transpose(0, 2, 3, 1).reshape(-1, FN)
        self.db = np.sum(dout, axis=0)
        self.dW = np.dot(self.col.T, dout)
        self.dW = self.dW.transpose(1, 0).reshape(FN, C, FH, FW)
        dcol = np.dot(dout, self.col_W.T)
        dx = col2im_back(dcol, self.x.shape, FH, FW, self.stride, self.pad)
        return dx

def check_convolution(budget=10.0):
    r = np.random.RandomState(7)
    return sa.check_layer(Convolution(r.randn(3, 2, 3, 3), r.randn(3), 2, 1), r.randn(2, 2, 5, 5), budget=budget)


class MatMulNet:
    """Two layers as a model of the first chapters: params and grads are gathered."""
    def __init__(self, W1, b1, W2, b2):
        self.layers = [Affine(W1, b1), Sigmoid(), Affine(W2, b2)]
        self.loss_layer = SoftmaxWithLoss()

    def predict(self, x):
        for layer in self.layers:
            x = layer.forward(x)
        return x

    def forward(self, x, t):
        return self.loss_layer.forward(self.predict(x), t)

    def backward(self, dout=1):
        dout = self.loss_layer.backward(dout)
        for layer in reversed(self.layers):
            dout = layer.backward(dout)
        return dout


class Sigmoid:
    def __init__(self):
        self.params, self.grads = [], []
        self.out = None

    def forward(self, x):
        out = sigmoid(x)
        self.out = out
        return out

    def backward(self, dout):
        dx = dout * (1.0 - self.out) * self.out
        return dx

def check_net(budget=10.0):
    r = np.random.RandomState(8)
    net = MatMulNet(r.randn(3, 4), r.randn(4), r.randn(4, 3), r.randn(3))
    return sa.check_network(net, r.randn(5, 3), np.array([0, 1, 2, 2, 1]), budget=budget)


CHECKS = {
    "affine": check_affine, "embedding": check_embedding, "weight_sum": check_weight_sum,
    "softmax_with_loss": check_softmax_with_loss, "convolution": check_convolution, "net": check_net,
}
CONV = "Convolution.backward"

MISTAKES = [
    wrong("affine_grad_of_W_for_b", "affine", "Affine.backward", "self.grads[1][...] = db", "self.grads[1][...] = dW[0]", "that_of the_first operand"),
    wrong("affine_W_updated", "affine", "Affine.backward", "        dx = np.dot(dout, W.T)\n        dW = np.dot(self.x.T, dout)\n", "        dW = np.dot(self.x.T, dout)\n        dx = np.dot(dout, (W - 0.1*dW).T)\n", "updated | upstream_not_linear", at="dx = np.dot(dout, (W - 0.1*dW).T)"),
    wrong("affine_grad_for_W", "affine", "Affine.backward", "        dx = np.dot(dout, W.T)\n        dW = np.dot(self.x.T, dout)\n", "        dW = np.dot(self.x.T, dout)\n        dx = np.dot(dout, dW.T)\n", "operand upstream_twice", at="dx = np.dot(dout, dW.T)"),
    wrong("embedding_set", "embedding", "Embedding.backward", "np.add.at(dW, self.idx, dout)", "dW[self.idx] = dout", "overwritten"),
    wrong("embedding_plus", "embedding", "Embedding.backward", "np.add.at(dW, self.idx, dout)", "dW[self.idx] += dout", "overwritten"),
    wrong("embedding_last_step", "embedding", "TimeEmbedding.backward", "grad += layer.grads[0]", "grad = layer.grads[0]", "overwritten only | left_out"),
    wrong("embedding_not_zeroed", "embedding", "Embedding.backward", "        dW[...] = 0\n        np.add.at(dW, self.idx, dout)\n", "        dW[self.idx] = dout.sum(axis=0)\n", ""),
    wrong("weight_sum_axis", "weight_sum", "WeightSum.backward", "da = np.sum(dar, axis=2)", "da = np.sum(dar, axis=1)", "summed other_sum"),
    wrong("weight_sum_repeat", "weight_sum", "WeightSum.backward", "dc.reshape(N, 1, H).repeat(T, axis=1)", "dc.reshape(N, H, 1).repeat(T, axis=2)", "axes_order g_transposed transposed"),
    wrong("weight_sum_hs_twice", "weight_sum", "WeightSum.backward", "dhs = dt * ar", "dhs = dt * hs", "operand taken_as"),
    wrong("loss_one_hot_added", "softmax_with_loss", "SoftmaxWithLoss.backward", "dx[np.arange(batch_size), self.t] -= 1", "dx[np.arange(batch_size), self.t] += 1", "term one_hot | wrong_sign"),
    wrong("loss_all_columns", "softmax_with_loss", "SoftmaxWithLoss.backward", "dx[np.arange(batch_size), self.t] -= 1", "dx[:, self.t] -= 1", "one_hot | summed"),
    wrong("loss_classes", "softmax_with_loss", "SoftmaxWithLoss.backward", "dx = dx / batch_size", "dx = dx / dx.shape[1]", "ratio | one_less"),
    wrong("conv_reshape", "convolution", CONV, "dout = dout.transpose(0, 2, 3, 1).reshape(-1, FN)", "dout = dout.reshape(-1, FN)", "reordered g_transposed axes_order | lost"),
    wrong("conv_dW_reshape", "convolution", CONV, "self.dW.transpose(1, 0).reshape(FN, C, FH, FW)", "self.dW.reshape(FN, C, FH, FW)", "reordered"),
    wrong("conv_dW_axes", "convolution", CONV, "self.dW.transpose(1, 0).reshape(FN, C, FH, FW)", "self.dW.transpose(1, 0).reshape(FN, C, FW, FH).transpose(0, 1, 3, 2)", "axes_order transposed"),
    wrong("col2im_set", "convolution", "col2im_back", "] += col[:, :, y, xx, :, :]", "] = col[:, :, y, xx, :, :]", "overwritten"),
    wrong("col2im_no_stride", "convolution", "col2im_back", "img[:, :, y:y + stride*oh:stride, xx:xx + stride*ow:stride] +=", "img[:, :, y:y + oh, xx:xx + ow] +=", "stride put_at"),
    wrong("col2im_pad", "convolution", "col2im_back", "img[:, :, pad:H + pad, pad:W + pad]", "img[:, :, :H, :W]", "cut_at"),
    wrong("col2im_axes", "convolution", "col2im_back", ".transpose(0, 3, 4, 5, 1, 2)", ".transpose(0, 3, 5, 4, 1, 2)", "axes_order g_transposed transposed"),
    wrong("net_sigmoid_out", "net", "Sigmoid.backward", "dout * (1.0 - self.out) * self.out", "dout * (1.0 - self.out)", "taken_as"),
    wrong("net_order", "net", "MatMulNet.backward", "dout = self.loss_layer.backward(dout)", "dout = self.loss_layer.backward(dout) * 5", "misgiven"),
]
