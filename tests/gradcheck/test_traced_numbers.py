"""Numbers that become Python's own, in `float`, `math` and lists, stay traced; so do SciPy's."""

import builtins
import logging
import math
from math import exp, tanh
from math import log as ln

import autograd.numpy as anp
import numpy as np
import pytest
import scipy.special
from autograd.numpy import tanh as traced_tanh
from autograd.numpy import zeros as traced_zeros
from scipy.special import expit, logsumexp, softmax

import spiral_autograd as sa

W = np.array([0.5, -1.25, 2.0])
Y = np.array([0.0, 1.0, 1.0])
ACTIVATIONS = {"exp": math.exp, "all": [np.tanh, math.tanh]}
sigmoid = np.vectorize(lambda z: 1 / (1 + math.exp(-z)))


def squeezed(w):
    cost = -np.mean(Y * np.log(expit(w)) + (1 - Y) * np.log(1 - expit(w)))
    cost = float(np.squeeze(cost))
    assert isinstance(cost, float)
    assert type(cost) is float
    return cost


def by_default(w, exp=math.exp, number=float):
    return number(exp(w[0])) * w[1]


def by_keyword(w, *, exp=math.exp):
    return exp(w[0]) * w[1]


def closed_over():
    power = math.pow
    return lambda w: power(w[0], 3) * w[1]


class Net:
    act = math.exp

    def __init__(self):
        self.act_too, self.xp = math.tanh, np

    def loss(self, w):
        filled = self.xp.zeros(3)
        filled[:] = w
        return self.act(w[0]) * self.act_too(w[1]) * filled[2] + self.helper(filled)

    @staticmethod
    def helper(w, scale=(math.sqrt, 2.0)):
        return scale[0](w[0]) * scale[1]


def shown(w):
    loss = float(np.sum(w**2))
    text = f"{loss:.3f} {loss} {w} {w[0]:g}" + "%.3f %d %s" % (loss, loss, w)  # noqa: UP031
    text += f"{loss:.2e} {round(loss, 3)} {np.array2string(w)}"
    logging.getLogger("test").debug("loss %.3f", loss)
    text += logging.makeLogRecord({"msg": "%.3f", "args": (loss,)}).getMessage()
    print(loss, w, text)
    return loss


def rounded(w):
    k, rest = int(w[2] * 3 + 0.5), math.floor(w[0] * 9) + math.ceil(w[0]) + math.trunc(w[1] * 9)
    return k * w[0] + rest * w[1] + round(float(w[0] * 33.3)) * w[2] ** 2 + w[1] * (w[2] // 0.3)


def listed(w):
    out = [[0.0, 0.0], [0.0, 0.0]]
    for i in range(2):
        for j in range(2):
            out[i][j] = math.exp(w[i]) * w.tolist()[j] + w.item(i)
    return np.mean(out) + np.sum([float(v) for v in w]) + sum(map(math.tanh, w.flat))


def in_turn(w):
    total = 0.0
    for i, v in np.ndenumerate(w):
        total += np.float64(v) ** 2 * (1 + i[0])
    return total + np.sum(np.fromiter((v * v for v in w), dtype=np.float64))


MATH = {
    "exp": lambda w: math.exp(w[0]) + exp(w[1]) + math.expm1(w[2]),
    "log": lambda w: math.log(w[0]) + ln(w[2]) + math.log(w[2], 2) + math.log2(w[0]),
    "log10": lambda w: math.log10(w[0]) + math.log1p(w[2]) + math.sqrt(w[2]) + math.fabs(w[1]),
    "circle": lambda w: math.sin(w[0]) + math.cos(w[1]) + math.tan(w[0]) + math.atan(w[2]),
    "hyperbola": lambda w: tanh(w[0]) + math.sinh(w[1]) + math.cosh(w[2]) + math.asinh(w[0]),
    "arcs": lambda w: math.asin(w[0]) + math.acos(w[0] / 2) + math.atan2(w[1], w[2]),
    "powers": lambda w: math.pow(w[2], 1.5) + math.hypot(w[0], w[1]) + math.dist(w, Y),
    "sums": lambda w: math.fsum(v * v for v in w) + math.prod(w) + math.fsum([1.0, 2.0]),
    "erf": lambda w: math.erf(w[0]) * math.erfc(w[1]) + math.degrees(w[0]) + math.radians(w[1]),
    "finite": lambda w: w[0] ** 2 if math.isfinite(w[0]) and not math.isnan(w[1]) else 0.0,
}
SCIPY = {
    "expit": lambda w: np.sum(expit(w) * scipy.special.log_expit(w)),
    "softmax": lambda w: np.sum(softmax(w) ** 2 * scipy.special.log_softmax(w, axis=0)),
    "logsumexp": lambda w: logsumexp(w) + np.sum(logsumexp(w[None], axis=1, keepdims=True) ** 2),
    "xlogy": lambda w: np.sum(scipy.special.xlogy(Y, w**2) + scipy.special.xlog1py(w, w**2)),
    "entropies": lambda w: (
        np.sum(scipy.special.rel_entr(w**2, w**2 + 1) * w)
        + np.sum(scipy.special.entr(w**2) - scipy.special.kl_div(w**2, 2.0))
    ),
    "erf": lambda w: np.sum(w * scipy.special.erf(w) - scipy.special.ndtr(w) ** 2),
    "huber": lambda w: np.sum(scipy.special.huber(1.0, w) + scipy.special.pseudo_huber(1.0, w)),
    "roots": lambda w: np.sum(np.cbrt(w) + np.hypot(w, Y) + scipy.special.exp10(w)),
}
OWN_AUTOGRAD = {
    "modules": lambda w: anp.sum(anp.tanh(w) ** 2) + anp.dot(w, w),
    "names": lambda w: np.sum(traced_tanh(w)),
    "filled": lambda w: _filled(anp.zeros(3), traced_tanh(w)) + _filled(traced_zeros(3), w),
}


def _filled(out, w):
    out[1:] = w[:2] * w[1:]
    return anp.sum(anp.array([out[1], out[2] ** 2]))


PLAIN = {
    "squeezed": squeezed,
    "default": by_default,
    "keyword": by_keyword,
    "closure": closed_over(),
    "method": Net().loss,
    "dict": lambda w: ACTIVATIONS["exp"](w[0]) * ACTIVATIONS["all"][1](w[1]),
    "module": lambda w: builtins.float(w[0]) ** 2,
    "vectorised": lambda w: np.sum(sigmoid(w) * np.vectorize(math.exp)(w)),
    "listed": listed,
    "shown": shown,
    "rounded": rounded,
    "in_turn": in_turn,
    "kind": lambda w: np.sum(w**2) if isinstance(w, np.ndarray) and type(w) is np.ndarray else 0,
    "out": lambda w: np.sum(np.multiply(w, w, out=np.empty(3))),
    "cast": lambda w: np.sum(w.astype(float) ** 2 + np.zeros(3, dtype=float) + np.float64(w) ** 3),
    "any number": lambda w: float("0.5") * float(True) * float(w[0]) ** float(3),
}
LOSSES = {**PLAIN, **MATH, **SCIPY, **OWN_AUTOGRAD}


def slope(loss, w, step=1e-6):
    def moved(k):
        there, back = w.copy(), w.copy()
        there[k] += step
        back[k] -= step
        return (float(loss(there)) - float(loss(back))) / (2 * step)

    return np.array([moved(k) for k in range(len(w))])


@pytest.mark.parametrize("name", LOSSES)
def test_autograd_follows_numbers(name):
    loss = LOSSES[name]
    report = sa.check_gradient(loss, slope(loss, W), W)
    assert report.reference == "autograd"
    assert report.rows[0].max_rel < 1e-6, str(report)
    wrong = sa.check_gradient(loss, 1.5 * slope(loss, W), W, budget=0)
    assert [row.verdict for row in wrong.rows] == ["wrong"]


def test_what_stands_for_them_is_gone_afterwards():
    before, net = dict(globals()), Net()
    held = dict(vars(net)), dict(vars(Net))
    sa.check_gradient(net.loss, slope(net.loss, W), W)
    sa.check_gradient(by_default, slope(by_default, W), W)
    assert {k: id(v) for k, v in globals().items()} == {k: id(v) for k, v in before.items()}
    assert (dict(vars(net)), dict(vars(Net))) == held
    assert by_default.__defaults__ == (math.exp, float)
    assert by_keyword.__kwdefaults__ == {"exp": math.exp}
    assert Net.helper.__defaults__ == ((math.sqrt, 2.0),)
    assert anp.tanh.fun is np.tanh
    assert type(by_default(W)) is np.float64


@pytest.mark.parametrize(
    "lost",
    [
        lambda v: float(str(v)),
        lambda v: float(f"{v}"),
        lambda v: float.fromhex(float(v).hex()),
        lambda v: complex(v).real,
    ],
)
def test_a_number_that_leaves_the_trace_is_no_constant(lost):
    def loss(w):
        return w[1] ** 2 + 1e-3 * lost(w[0])

    right = np.array([1e-3, 2 * W[1], 0.0])
    assert sa.check_gradient(loss, right, W).ok
    assert not sa.check_gradient(loss, right * [0, 1, 1], W).ok


def cost_of(w):
    z = w * 2.0
    a = np.array([1 / (1 + math.exp(-v)) for v in z])
    cost = -np.mean(Y * np.log(a) + (1 - Y) * np.log(1 - a))
    return float(np.squeeze(cost))


def gradient_of_cost(w):
    a = 1 / (1 + np.exp(-2.0 * w))
    da = -(Y / a - (1 - Y) / (1 - a)) / len(w)
    dz = da * (1 - a**2)
    return 2.0 * dz


def test_a_mistake_behind_a_float_is_explained():
    report = sa.check_gradient(cost_of, gradient_of_cost, W)
    (row,) = report.rows
    assert report.reference == "autograd"
    assert row.rule == "value", str(report)
    assert (__file__, gradient_of_cost.__code__.co_firstlineno + 3) in row.lines


class Scaled:
    def __init__(self):
        self.W = W.copy()

    def backward(self, dout):
        dz = dout * (1 - self.y)
        self.dW = dz * self.x
        return dz * self.W


class InNumpy(Scaled):
    def forward(self, x):
        self.x = x
        self.y = np.tanh(x * self.W)
        return self.y


class InAutograd(Scaled):
    def forward(self, x):
        self.x = x
        self.y = anp.tanh(x * self.W)
        return self.y


def test_users_autograd_is_read_as_numpy():
    x = np.random.default_rng(0).normal(size=3)
    plain, traced = (sa.check_layer(kind(), x) for kind in (InNumpy, InAutograd))
    assert plain.reference == traced.reference == "autograd"
    ours, theirs = (str(r).replace("anp.", "np.").split("\n") for r in (plain, traced))
    start = InAutograd.forward.__code__.co_firstlineno - InNumpy.forward.__code__.co_firstlineno
    at = InNumpy.forward.__code__.co_firstlineno + 2
    moved = [line.replace(f"py:{at}:", f"py:{at + start}:") for line in ours]
    assert [line.replace("InNumpy", "InAutograd") for line in moved] == theirs
    assert [row.rule for row in traced.rows] == ["value", "value"]
