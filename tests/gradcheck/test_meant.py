"""What a line was meant to be: one change of it with which the gradients are right."""

import linecache

import numpy as np
import pytest
from numpy.lib.stride_tricks import as_strided, sliding_window_view
from scipy import signal, sparse

import spiral_autograd as sa

rng = np.random.default_rng(4)


class ChannelNorm:
    def forward(self, x):
        self.centred = x - x.mean(axis=(0, 2), keepdims=True)
        self.std = np.sqrt((self.centred**2).mean(axis=(0, 2), keepdims=True))
        self.y = self.centred / self.std
        return self.y

    def backward(self, dout):
        n = dout.shape[0]  # wrong
        mean = dout.sum(axis=(0, 2), keepdims=True) / n
        along = (dout * self.y).sum(axis=(0, 2), keepdims=True) / n
        return (dout - mean - self.y * along) / self.std


class Convolution:
    def __init__(self):
        self.K = rng.normal(size=(2, 3))

    def forward(self, x):
        self.windows = sliding_window_view(x, (2, 3))
        return np.einsum("ijkl,kl->ij", self.windows, self.K)

    def backward(self, dout):
        self.dK = np.einsum("ijkl,ij->kl", self.windows, dout)
        wide = np.pad(dout, ((1, 1), (2, 2)))
        windows = sliding_window_view(wide, (2, 3))
        return np.einsum("ijkl,kl->ij", windows, self.K)  # wrong


class BothWays:
    def __init__(self):
        self.w = rng.normal(size=3)

    def forward(self, x):
        self.x, self.hs = x, np.zeros((2, 5, 3))
        for k, some in enumerate((x, x[::-1])):
            for t in range(4):
                self.hs[k, t + 1] = np.tanh(some[t] + self.w * self.hs[k, t])
        return self.hs[:, 1:]

    def backward(self, dout):
        self.dw, dx, carry = np.zeros(3), np.zeros((2, 4, 3)), np.zeros(3)
        for k in range(2):
            for t in reversed(range(4)):  # wrong
                dz = (dout[k, t] + carry) * (1 - self.hs[k, t + 1] ** 2)
                self.dw += dz * self.hs[k, t]
                dx[k, t] = dz
                carry = dz * self.w
        return dx[0] + dx[1][::-1]


class Spread:
    def __init__(self):
        self.A = sparse.csr_matrix((rng.uniform(size=(4, 4)) < 0.5) * 1.5)

    def forward(self, x):
        return self.A @ x

    def backward(self, dout):
        return self.A @ dout  # wrong


class Weighted:
    def forward(self, x, w):
        self.x, self.w = x, w
        return np.sum(w * x**2) / w.sum()

    def backward(self, dout):
        return 2 * dout * self.w * self.x / len(self.w), None  # wrong


class Correlation:
    def __init__(self):
        self.K = rng.normal(size=(2, 3))

    def forward(self, x):
        self.x = x
        return signal.correlate2d(x, self.K, "valid")

    def backward(self, dout):
        self.dK = signal.correlate2d(self.x, dout, "valid")
        return signal.correlate2d(dout, self.K, "full")  # wrong


class Tape:
    def forward(self, x):
        self.tape = []
        for i in range(3):
            y = np.tanh(x + i)
            self.tape.append(lambda g, y=y: (i + 1.0) * g * (1 - y**2))  # noqa: B023  # wrong
            x = (i + 1.0) * y
        return x

    def backward(self, dout):
        for pull in reversed(self.tape):
            dout = pull(dout)
        return dout


class Closures:
    def forward(self, x):
        y = np.tanh(x)

        def back(g):
            return (1 - y**3) * g  # wrong

        self.back = back
        return y

    def backward(self, dout):
        return self.back(dout)


class Leaky:
    def __init__(self):
        self.W = rng.normal(size=(3, 3))

    def forward(self, x):
        self.x = x
        self.z = x @ self.W
        return np.where(self.z > 0, self.z, 0.2 * self.z)

    def backward(self, dout):
        dz = dout * np.where(self.z > 0, 1.0, 0.02)  # wrong
        self.dW = self.x.T @ dz
        return dz @ self.W.T


class InDicts:
    def forward(self, x):
        self.cells = [[{"in": v, "out": np.tanh(v)} for v in row] for row in x]
        return np.array([[cell["out"] for cell in row] for row in self.cells])

    def backward(self, dout):
        for i, row in enumerate(self.cells):
            for j, cell in enumerate(row):
                cell["delta"] = dout[i, j] * (1 - cell["out"] ** 3)  # wrong
        return np.array([[cell["delta"] for cell in row] for row in self.cells])


class Counting:
    def __init__(self):
        self.w = rng.normal(size=3)

    def forward(self, xs):
        self.xs, self.hs = xs, [np.zeros(3)]
        for x in xs:
            self.hs.append(np.tanh(x + self.w * self.hs[-1]))
        return self.hs[-1]

    def backward(self, dh):
        self.dw, dxs, t = np.zeros(3), np.zeros_like(self.xs), len(self.xs) - 1
        while t >= 0:
            dxs[t] = dh * (1 - self.hs[t + 1] ** 2)
            self.dw += dxs[t] * self.hs[t + 1]  # wrong
            dh = dxs[t] * self.w
            t -= 1
        return dxs


def place(layer):
    """Return the line of a layer's mistake."""
    first = type(layer).backward.__code__.co_firstlineno
    lines = linecache.getlines(__file__)
    names = [i for i, text in enumerate(lines, 1) if text.startswith("class ") and i < first]
    ends = [i for i, text in enumerate(lines, 1) if text.endswith("# wrong\n") and i > names[-1]]
    return ends[0]


x = rng.normal(size=(4, 3))
FLIPPED = "return np.einsum('ijkl,kl->ij', windows, self.K[::-1, ::-1])"
TAPE = "self.tape.append(lambda g, y=y, i=i: (i + 1.0) * g * (1 - y ** 2))"
WEIGHTED = "return (2 * dout * self.w * self.x / self.w.sum(), None)"
CORRELATION = "return signal.correlate2d(dout, self.K[::-1, ::-1], 'full')"


@pytest.mark.parametrize(
    ("layer", "inputs", "constant", "meant"),
    [
        (ChannelNorm, [rng.normal(size=(4, 2, 3))], [], "n = dout.size // dout.shape[1]"),
        (Convolution, [rng.normal(size=(4, 5))], [], FLIPPED),
        (BothWays, [x], [], "carry = np.zeros_like(carry); for t in reversed(range(4)):"),
        (Spread, [x], [], "return self.A.T @ dout"),
        (Tape, [x], [], TAPE),
        (Closures, [x], [], "return (1 - y ** 2) * g"),
        (Leaky, [x], [], "dz = dout * np.where(self.z > 0, 1.0, 0.2)"),
        (InDicts, [x], [], "cell['delta'] = dout[i, j] * (1 - cell['out'] ** 2)"),
        (Counting, [x], [], "self.dw += dxs[t] * self.hs[t]"),
        (Weighted, [x[:, 0], x[:, 1] ** 2], ["w"], WEIGHTED),
        (Correlation, [rng.normal(size=(4, 5))], [], CORRELATION),
    ],
)
def test_a_line_is_right_with(layer, inputs, constant, meant):
    made = layer()
    report = sa.check_layer(made, *inputs, constant=constant)
    row = next(row for row in report.rows if row.verdict == "wrong")
    said = [what.fields["statement"] for what in row.findings if what.kind == "right_with"]
    assert said == [meant], str(report)
    assert (__file__, place(made)) in row.lines


def test_lines_of_code_with_strided_views_are_not_changed():
    """With other sizes it would write beside its arrays, and the process would die."""

    class Windows:
        def forward(self, x):
            self.x = np.ascontiguousarray(x)
            (step,) = self.x.strides
            return as_strided(self.x, (4, 3), (step, step)).sum(axis=1)

        def backward(self, dout):
            dx = np.zeros(6)
            (step,) = dx.strides
            for j in range(3):
                view = as_strided(dx[max(j - 1, 0) :], (4,), (step,))
                view += dout
            return dx

    row, *_ = sa.check_layer(Windows(), rng.normal(size=6)).rows
    assert row.verdict == "wrong"
    assert all(what.kind != "right_with" for what in row.findings)


@pytest.mark.parametrize(
    ("layer", "derivatives"),
    [(Closures, [("tanh", "1 - y ** 2")]), (Spread, [])],
)
def test_the_derivative_that_a_line_lacks_is_named(layer, derivatives):
    row, *_ = sa.check_layer(layer(), x).rows
    told = [what.fields["derivatives"] for what in row.findings if what.kind == "right_with"]
    assert told == [derivatives]
