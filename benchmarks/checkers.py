"""What a check of a right layer costs, by each library's checker.

The others' check operations of their own library, and no handwritten code.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from importlib.util import find_spec
from typing import Any

import numpy as np

import spiral_autograd as sa

from .measure import Timings, interleaved, one_core, table
from .programs.handwritten import AttributeAffine
from .programs.long import LSTM
from .spiral import Array

OURS = "spiral_autograd"
CHECKERS = {
    OURS: "`check_layer`",
    "torch": "`torch.autograd.gradcheck(fast_mode=True)`",
    "jax": '`jax.test_util.check_grads(modes=("rev",))`',
    "autograd": '`autograd.test_util.check_grads(modes=["rev"])`',
}
STEPS, WIDTH = 10, 8


class Convolution:
    """A valid convolution of (N, C, H, W) with (O, C, K, K), and no bias."""

    def __init__(self, w: Array) -> None:
        self.w = w

    def _windows(self) -> Iterator[tuple[int, int, tuple[slice, ...]]]:
        (height, width), size = self.x.shape[2:], self.w.shape[-1]
        for i, j in np.ndindex(size, size):
            rows, columns = (slice(k, n - size + 1 + k) for k, n in ((i, height), (j, width)))
            yield i, j, (slice(None), slice(None), rows, columns)

    def forward(self, x: Array) -> Array:
        """Return the layer's output."""
        self.x = x
        parts = (
            np.einsum("nchw,oc->nohw", x[at], self.w[..., i, j]) for i, j, at in self._windows()
        )
        return np.sum(list(parts), axis=0)

    def backward(self, dout: Array) -> Array:
        """Keep the gradient of w, and return that of x."""
        self.dw, dx = np.zeros_like(self.w), np.zeros_like(self.x)
        for i, j, at in self._windows():
            self.dw[..., i, j] = np.einsum("nohw,nchw->oc", dout, self.x[at])
            dx[at] += np.einsum("nohw,oc->nchw", dout, self.w[..., i, j])
        return dx


def _lstm(np: Any, x: Any, W: Any) -> Any:
    """Return the last hidden state, in any library's array functions."""

    def sigmoid(a: Any) -> Any:
        return 1 / (1 + np.exp(-a))

    h = c = x[:, 0, :1] * np.zeros((1, WIDTH), dtype=x.dtype)
    for t in range(STEPS):
        gates = np.concatenate([x[:, t], h], axis=1) @ W
        f, i, o, g = (gates[:, k * WIDTH : (k + 1) * WIDTH] for k in range(4))
        c = sigmoid(f) * c + sigmoid(i) * np.tanh(g)
        h = sigmoid(o) * np.tanh(c)
    return h


def _dense(x: Any, W: Any, b: Any) -> Any:
    return x @ W + b


Ask = Callable[[Callable[..., Any], list[Array]], Callable[[], object]]


def _torch() -> tuple[Ask, dict[str, Callable[..., Any]]]:
    import torch

    def ask(layer: Callable[..., Any], arrays: list[Array]) -> Callable[[], object]:
        inputs = tuple(torch.tensor(array, requires_grad=True) for array in arrays)
        return lambda: torch.autograd.gradcheck(layer, inputs, fast_mode=True)

    return ask, {"convolution": torch.nn.functional.conv2d, "LSTM": partial(_lstm, torch)}


def _jax() -> tuple[Ask, dict[str, Callable[..., Any]]]:
    import jax
    from jax.test_util import check_grads

    jax.config.update("jax_enable_x64", True)

    def ask(layer: Callable[..., Any], arrays: list[Array]) -> Callable[[], object]:
        inputs = tuple(map(jax.numpy.asarray, arrays))
        return lambda: check_grads(layer, inputs, order=1, modes=("rev",))

    def convolution(x: Any, w: Any) -> Any:
        return jax.lax.conv(x, w, (1, 1), "VALID")

    return ask, {"convolution": convolution, "LSTM": partial(_lstm, jax.numpy)}


def _autograd() -> tuple[Ask, dict[str, Callable[..., Any]]]:
    import autograd.numpy
    from autograd.scipy.signal import convolve
    from autograd.test_util import check_grads

    def ask(layer: Callable[..., Any], arrays: list[Array]) -> Callable[[], object]:
        check = check_grads(layer, tuple(range(len(arrays))), modes=["rev"], order=1)
        return lambda: check(*arrays)

    def convolution(x: Any, w: Any) -> Any:
        axes = ([2, 3], [2, 3])
        return convolve(x, w[:, :, ::-1, ::-1], axes=axes, dot_axes=([1], [1]), mode="valid")

    return ask, {"convolution": convolution, "LSTM": partial(_lstm, autograd.numpy)}


OTHERS = {"torch": _torch, "jax": _jax, "autograd": _autograd}


def _cases() -> Iterator[tuple[str, str, Any, list[Array]]]:
    """Yield each layer: its title, its kind, the handwritten one, and all that is checked."""
    rng = np.random.default_rng(0)
    for n in (30, 1000):
        W, b = rng.normal(size=(n, n)) / np.sqrt(n), rng.normal(size=n)
        arrays = [rng.normal(size=(10, n)), W, b]
        yield f"dense, {n:,} x {n:,}", "dense", AttributeAffine(W, b), arrays
    images, w = rng.normal(size=(2, 3, 8, 8)), rng.normal(size=(4, 3, 3, 3))
    yield "convolution, 3 x 3 of 8 x 8", "convolution", Convolution(w), [images, w]
    lstm = LSTM(STEPS, WIDTH, np.float64)
    x = LSTM.data(STEPS, WIDTH, np.float64)
    yield f"LSTM, {STEPS} steps of {WIDTH}", "LSTM", lstm, [x, lstm.W]


def measure(repeats: int) -> dict[str, Timings]:
    """Return the seconds of a check, by layer; the layers are right, and all must say so."""
    found = {name: make() for name, make in OTHERS.items() if find_spec(name)}
    timings = {}
    with one_core():
        for title, kind, layer, arrays in _cases():
            assert sa.check_layer(layer, arrays[0]).ok, title
            runs = {OURS: partial(sa.check_layer, layer, arrays[0])}
            for name, (ask, layers) in found.items():
                runs[name] = ask(layers.get(kind, _dense), arrays)
            timings[title] = interleaved(runs, repeats=repeats)
    return timings


def compared(timings: dict[str, Timings]) -> str:
    """Return the milliseconds of a check, and the ratio to each other checker."""
    names = [name for name in CHECKERS if any(name in some for some in timings.values())]
    header = ["layer", *(CHECKERS[name] for name in names)]
    rows = [
        [
            title,
            *(
                f"{some.median(name) * 1e3:,.1f}"
                + ("" if name == OURS else f" ({some.ratio(OURS, name):.2f})")
                for name in names
            ),
        ]
        for title, some in timings.items()
    ]
    return table(header, rows)
