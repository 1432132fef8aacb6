"""Convolution and pooling by im2col: classes with attributes W, b, dW, db."""

# ruff: noqa: RUF059
import numpy as np

from corpus.check import layer


def im2col(input_data, filter_h, filter_w, stride=1, pad=0):
    N, C, H, W = input_data.shape
    out_h = (H + 2 * pad - filter_h) // stride + 1
    out_w = (W + 2 * pad - filter_w) // stride + 1

    img = np.pad(input_data, [(0, 0), (0, 0), (pad, pad), (pad, pad)], "constant")
    col = np.zeros((N, C, filter_h, filter_w, out_h, out_w))

    for y in range(filter_h):
        y_max = y + stride * out_h
        for x in range(filter_w):
            x_max = x + stride * out_w
            col[:, :, y, x, :, :] = img[:, :, y:y_max:stride, x:x_max:stride]

    return col.transpose(0, 4, 5, 1, 2, 3).reshape(N * out_h * out_w, -1)


def col2im(col, input_shape, filter_h, filter_w, stride=1, pad=0):
    N, C, H, W = input_shape
    out_h = (H + 2 * pad - filter_h) // stride + 1
    out_w = (W + 2 * pad - filter_w) // stride + 1
    col = col.reshape(N, out_h, out_w, C, filter_h, filter_w).transpose(0, 3, 4, 5, 1, 2)

    img = np.zeros((N, C, H + 2 * pad + stride - 1, W + 2 * pad + stride - 1))
    for y in range(filter_h):
        y_max = y + stride * out_h
        for x in range(filter_w):
            x_max = x + stride * out_w
            img[:, :, y:y_max:stride, x:x_max:stride] += col[:, :, y, x, :, :]

    return img[:, :, pad : H + pad, pad : W + pad]


class Convolution:
    def __init__(self, W, b, stride=1, pad=0):
        self.W = W
        self.b = b
        self.stride = stride
        self.pad = pad

        # 中間データ (backward 時に使用)
        self.x = None
        self.col = None
        self.col_W = None

        self.dW = None
        self.db = None

    def forward(self, x):
        FN, C, FH, FW = self.W.shape
        N, C, H, W = x.shape
        out_h = 1 + int((H + 2 * self.pad - FH) / self.stride)
        out_w = 1 + int((W + 2 * self.pad - FW) / self.stride)

        col = im2col(x, FH, FW, self.stride, self.pad)
        col_W = self.W.reshape(FN, -1).T

        out = np.dot(col, col_W) + self.b
        out = out.reshape(N, out_h, out_w, -1).transpose(0, 3, 1, 2)

        self.x = x
        self.col = col
        self.col_W = col_W

        return out

    def backward(self, dout):
        FN, C, FH, FW = self.W.shape
        dout = dout.transpose(0, 2, 3, 1).reshape(-1, FN)

        self.db = np.sum(dout, axis=0)
        self.dW = np.dot(self.col.T, dout)
        self.dW = self.dW.transpose(1, 0).reshape(FN, C, FH, FW)

        dcol = np.dot(dout, self.col_W.T)
        dx = col2im(dcol, self.x.shape, FH, FW, self.stride, self.pad)

        return dx


class Pooling:
    def __init__(self, pool_h, pool_w, stride=1, pad=0):
        self.pool_h = pool_h
        self.pool_w = pool_w
        self.stride = stride
        self.pad = pad

        self.x = None
        self.arg_max = None

    def forward(self, x):
        N, C, H, W = x.shape
        out_h = int(1 + (H - self.pool_h) / self.stride)
        out_w = int(1 + (W - self.pool_w) / self.stride)

        col = im2col(x, self.pool_h, self.pool_w, self.stride, self.pad)
        col = col.reshape(-1, self.pool_h * self.pool_w)

        arg_max = np.argmax(col, axis=1)
        out = np.max(col, axis=1)
        out = out.reshape(N, out_h, out_w, C).transpose(0, 3, 1, 2)

        self.x = x
        self.arg_max = arg_max

        return out

    def backward(self, dout):
        dout = dout.transpose(0, 2, 3, 1)

        pool_size = self.pool_h * self.pool_w
        dmax = np.zeros((dout.size, pool_size))
        dmax[np.arange(self.arg_max.size), self.arg_max.flatten()] = dout.flatten()
        dmax = dmax.reshape(*dout.shape, pool_size)

        dcol = dmax.reshape(dmax.shape[0] * dmax.shape[1] * dmax.shape[2], -1)
        dx = col2im(dcol, self.x.shape, self.pool_h, self.pool_w, self.stride, self.pad)

        return dx


class MaxPool2x2:
    """The reshape trick: works where windows tile the image."""

    def forward(self, x):
        n, c, h, w = x.shape
        self.xr = x.reshape(n, c, h // 2, 2, w // 2, 2)
        self.out = self.xr.max(axis=3).max(axis=4)
        return self.out

    def backward(self, dout):
        n, c, hh, _, ww, _ = self.xr.shape
        mask = self.xr == self.out[:, :, :, None, :, None]
        count = mask.sum(axis=(3, 5), keepdims=True)
        d = mask * dout[:, :, :, None, :, None] / count
        return d.reshape(n, c, 2 * hh, 2 * ww)


class GlobalAveragePool:
    def forward(self, x):
        self.shape = x.shape
        return x.mean(axis=(2, 3))

    def backward(self, dout):
        n, c, h, w = self.shape
        d = dout[:, :, None, None] / (h * w)
        return np.ones(self.shape) * d


class Flatten:
    def forward(self, x):
        self.shape = x.shape
        return x.reshape(x.shape[0], -1)

    def backward(self, dout):
        return dout.reshape(self.shape)


def _image(rng, s):
    return rng.normal(size=(1 + s.n % 2, 1 + s.c % 2, s.side, s.side))


CHECKS = {
    "convolution": lambda rng, s: layer(
        Convolution(rng.normal(size=(2, 1 + s.c % 2, s.k, s.k)), rng.normal(size=2), pad=1),
        _image(rng, s),
    ),
    "pooling": lambda rng, s: layer(Pooling(s.k, s.k, stride=s.k), _image(rng, s)),
    "max_pool_2x2": lambda rng, s: layer(
        MaxPool2x2(), rng.normal(size=(s.n, s.c, 2 * s.k, 2 * s.k))
    ),
    "global_average_pool": lambda rng, s: layer(GlobalAveragePool(), _image(rng, s)),
    "flatten": lambda rng, s: layer(Flatten(), _image(rng, s)),
    "pooling_ties": lambda rng, s: layer(
        Pooling(s.k, s.k, stride=s.k), np.round(0.3 * _image(rng, s))
    ),
    "overlapping_pooling_ties": lambda rng, s: layer(
        Pooling(s.k, s.k, stride=1), np.maximum(_image(rng, s), 0)
    ),
}
