"""What is right with one setting only, such as a power of 2, is no reason: another is asked too."""

import time

import numpy as np
from scipy import sparse

import spiral_autograd as sa
from spiral_autograd.gradcheck.diagnosis import other_settings
from spiral_autograd.gradcheck.subject.session import untouched


def normal(*shape):
    return np.random.default_rng(sum(shape)).standard_normal(shape)


class Softplus:
    """With a sharpness, which cancels in the derivative; of what is large the identity."""

    def __init__(self):
        self.beta = 2.0

    def forward(self, x):
        self.bx = self.beta * x
        return np.where(self.bx > 1.5, x, np.log1p(np.exp(np.minimum(self.bx, 1.5))) / self.beta)

    def backward(self, dout):
        return dout * np.where(self.bx > 1.5, 1.0, self.beta / (1 + np.exp(-self.bx)))


def power(x, gamma=2.0):
    return np.sum(np.exp(x) ** gamma), (x, gamma)


def power_backward(dout, cache):
    x, gamma = cache
    return dout * gamma * np.exp(x)


class MaskedMean:
    """The mean of squares where a mask is 1: of half of the entries here."""

    def forward(self, x, mask):
        self.x, self.mask = x, mask
        return np.sum(mask * x**2) / mask.sum()

    def backward(self):
        return 2 * self.mask * self.x / self.mask.size


class Switched:
    """Centred in training only."""

    def __init__(self, train):
        self.train, self.W = train, normal(3, 2)

    def forward(self, x):
        self.x = x
        y = x @ self.W
        return np.sin(y - y.mean(axis=0) if self.train else y)

    def backward(self, dout):
        y = self.x @ self.W
        centred = y - y.mean(axis=0) if self.train else y
        d = dout * np.cos(centred)
        self.dW = self.x.T @ (d - d.mean(axis=0))
        return (d - d.mean(axis=0) if self.train else d) @ self.W.T


def said(report, row=0):
    return " ".join(report.rows[row].why.split())


def test_what_is_right_for_one_number_of_the_object_is_not_said():
    layer = Softplus()
    report = sa.check_layer(layer, normal(4, 3))
    assert "1.0, 1 / (1 + np.exp(-self.bx))" in said(report), str(report)
    assert layer.beta == 2.0


def test_what_is_right_for_one_default_of_a_function_is_not_said():
    report = sa.check_backward(power, power_backward, normal(3, 2))
    assert not report.ok
    assert "** 2" not in said(report), str(report)


def test_a_factor_that_comes_from_a_mask_is_not_called_a_number():
    report = sa.check_layer(MaskedMean(), normal(2, 4), np.array([[1, 1, 0, 1], [0, 0, 1, 0]]))
    assert "half" not in said(report), str(report)


def test_what_is_right_in_one_mode_only_is_not_said():
    report = sa.check_layer(Switched(train=False), normal(5, 3))
    why = said(report, 1)
    assert "is right with" not in why or "self.train" in why, str(report)


class Spread:
    """Spreads along the edges of a graph, which a sparse matrix holds."""

    def __init__(self):
        self.A = sparse.csr_matrix((normal(4, 4) > 0) * 1.5)

    def forward(self, x):
        return self.A @ x

    def backward(self, dout):
        return self.A @ dout


def test_what_a_matrix_of_a_library_holds_is_no_setting():
    """With other numbers in it, it would read beside its arrays."""
    layer = Spread()
    with untouched(layer) as session:
        inside = other_settings._inside_of_libraries(session)
    assert {id(layer.A.indices), id(layer.A.indptr), id(vars(layer.A))} <= inside
    assert "self.A.T @ dout" in said(sa.check_layer(layer, normal(4, 2)))


class MadeAtFirst:
    """Makes its weight in the first forward pass."""

    def __init__(self):
        self.is_made, self.rng = False, np.random.default_rng(1)

    def forward(self, x):
        if not self.is_made:
            self.W, self.is_made = self.rng.normal(size=(x.shape[1], 3)), True
        self.x = x
        return x @ self.W

    def backward(self, dout):
        self.dW = self.x.T @ dout / len(dout)
        return dout @ self.W.T


def test_where_a_weight_is_made_anew_nothing_is_told():
    report = sa.check_layer(MadeAtFirst(), normal(5, 4))
    assert [row.name for row in report.rows if row.verdict == "wrong"] == ["W"]
    assert "averaged over the batch (5)" in said(report, 1), str(report)


def test_where_a_setting_makes_the_forward_pass_slow_nothing_is_told():
    class Opaque:
        power = 2.0

        def forward(self, x):
            began = time.thread_time()
            while self.power != 2.0 and time.thread_time() < began + 0.01:
                pass
            self.x = np.frombuffer(x.astype(float).tobytes()).reshape(x.shape)  # no trace goes on
            return np.exp(self.x / self.power)

        def backward(self, dout):
            return dout * np.exp(self.x / self.power) / self.power / len(dout)

    report = sa.check_layer(Opaque(), normal(5, 4))
    assert not report.ok
    assert "averaged over the batch (5)" in said(report), str(report)
