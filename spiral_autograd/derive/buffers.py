"""The same program for speed: every value in a buffer that is there already.

What decides the speed of a small network is the number of calls and what each of them allocates.
So each ufunc writes into a preallocated array, reductions are the ufuncs' own, views are made
once, and the parameters and the gradients are views of two flat vectors.
"""

from __future__ import annotations

import functools
from fractions import Fraction
from math import prod
from typing import Any

import numpy as np
from numpy.lib.array_utils import normalize_axis_tuple

from ..validation import Shape
from .expressions import Expr, astype, concatenate, reshape, scale
from .later import REDUCTIONS, is_plain, split, viewed
from .simplify import Simplified
from .writer import ATOM, SCATTERS, Writer, is_view, literal, numpy_name

ARITHMETIC = (np.add, np.subtract, np.multiply, np.divide)


def write_buffered(simple: Simplified) -> tuple[str, dict[str, Any], list[Any]]:
    """Return the source of ``make(params, grads, data, count)``, what it needs, the data's dtypes.

    ``make`` takes the views of the two flat vectors, and for each leaf of the data the arrays, or
    the numbers, of `count` batches: each cast to its dtype, and in one place. It returns a step for
    each batch, which writes the gradients into `grads`, and ``losses(n)``: those of the first n.
    """
    program = _Buffered(simple)
    program.walk()
    for k, grad in enumerate(simple.grads):
        if program.plain(grad) != f"g{k}":
            program.step.append(f"copyto(g{k}, {program.plain(grad)})")
    losses, numbers = program.losses(), {"p": "params", "g": "grads"}
    source = [
        "def make(params, grads, data, count):",
        "    copyto = np.copyto",
        *(f"    {x}{k} = {numbers[x]}[{k}]" for k in range(len(simple.params)) for x in numbers),
        *(f"    {line}" for line in program.setup),
        "    def step_of(k):",
        *(f"        d{i} = data[{i}][k]" for i in range(len(simple.data))),
        *(f"        {line}" for line in program.views),
        "        def step():",
        *(f"            {line}" for line in program.step or ["pass"]),
        "        return step",
        "    def losses(n):",
        *(f"        {line}" for line in losses),
        "    return [step_of(k) for k in range(count)], losses",
    ]
    return "\n".join(source) + "\n", program.needs, program.data_dtypes


class _Buffered(Writer):
    """The lines of a buffered program, and which buffer holds what."""

    def __init__(self, simple: Simplified) -> None:
        super().__init__(simple)
        self.needs = {"np": np}
        self.setup: list[str] = []  # once
        self.views: list[str] = []  # once for each batch
        self.step: list[str] = []
        for prefix, inputs in (("p", simple.params), ("d", simple.data)):
            self.texts |= {e: (f"{prefix}{k}", ATOM) for k, e in enumerate(inputs)}
        self.data_dtypes = [self._data_dtype(e) for e in simple.data]
        self._buffer: dict[Expr, str] = {}  # the buffer that a value, or its base, lives in
        constants = {e for e in self.order if e.fun is None and not e.args}
        # What stays in one place from step to step.
        self._static = constants | set(simple.params) | {e for e in simple.data if e.shape}
        self._late, kept = split(simple)
        self._order, self.order = self.order, [e for e in self.order if e not in self._late]
        self._kept = {e: f"s{i}" for i, e in enumerate(kept)}
        self._free: dict[Any, list[str]] = {}  # buffers by shape and dtype
        self._functions: dict[str, str] = {}
        self._numbers: dict[Any, str] = {}
        self._count = 0
        self._last_use = self._last_uses()
        self._grads = {grad: k for k, grad in reversed([*enumerate(simple.grads)])}  # the first
        self._keep()

    def _keep(self) -> None:
        """Write where the values are kept that the losses are made of."""
        for e, name in self._kept.items():
            self.setup.append(f"{name.upper()} = {_empty('count', *e.shape, dtype=e.dtype)}")
            self.views.append(f"{name} = {name.upper()}[k, ...]")
            if e.fun is None or e in self.texts:
                value = self.plain(e) if e in self.texts else self.constant(e.value)
                self.step.append(f"copyto({name}, {value})")

    # ---- lifetimes ----

    def _last_uses(self) -> dict[Expr, int]:
        """Return where each value, seen through its views, is used last."""
        last: dict[Expr, int] = {}
        for position, e in enumerate(self.order):
            for parent in e.parents:
                last.update(dict.fromkeys(self.memory[parent], position))
        for result in self.simple.grads:
            last.update(dict.fromkeys(self.memory[result], len(self.order)))
        return last

    def _data_dtype(self, e: Expr) -> Any:
        """Return the float dtype that a data array of integers is only ever used in.

        It comes in that one, so that what casts it to that is done.
        """
        users = [user for user in self.order if e in user.parents]
        casts = [u for u in users if u.fun in (astype, *ARITHMETIC) and u.dtype.kind == "f"]
        wanted = {u.dtype if u in casts else e.dtype for u in users}
        if not (e.shape and len(wanted) == 1 and e.dtype.kind in "iub"):
            wanted = {e.dtype}
        self.texts |= {u: self.texts[e] for u in users if u.fun is astype and u.dtype in wanted}
        return wanted.pop()

    def _output(self, position: int, e: Expr) -> str:
        """Return the name of the array that a value is written into."""
        self._static.add(e)
        k = self._grads.get(e)
        if k is not None and e.dtype == self.simple.params[k].dtype:
            return f"g{k}"
        if e in self._kept:
            return self._kept[e]
        kind = e.shape, e.dtype
        elementwise = e.fun is scale or getattr(e.fun, "signature", "") is None
        ends = [x for x in e.parents if self.memory[x] == {x} and self._last_use[x] == position]
        over = [x for x in ends if elementwise and x in self._buffer and (x.shape, x.dtype) == kind]
        free = [self._buffer[x] for x in over] or self._free.setdefault(kind, [])
        if not free:
            free.append(self._new_name("b"))
            self.setup.append(f"{free[0]} = {_empty(*e.shape, dtype=e.dtype)}")
        self._buffer[e] = free.pop()
        return self._buffer[e]

    def _release(self, position: int, e: Expr) -> None:
        """Give the buffers that were used here for the last time back."""
        bases = {base: None for parent in e.parents for base in self.memory[parent]}
        for base in bases:
            buffer = self._buffer.get(base)
            if buffer and self._last_use[base] == position and buffer != self.plain(e):
                self._free.setdefault((base.shape, base.dtype), []).append(buffer)

    # ---- lines ----

    def emit(self, position: int, e: Expr) -> None:
        name = self._output(position, e) if e.shape and _has_out(e) else ""
        if name:
            self.step += self._lines(e, name)
        self.texts[e] = name or self._value(e), ATOM
        if e in self._kept and self.plain(e) != self._kept[e]:
            self.step.append(f"copyto({self._kept[e]}, {self.plain(e)})")
        self._release(position, e)

    def _value(self, e: Expr) -> str:
        """Write a number, a view, or what cannot be written into a buffer."""
        # autograd calls np.power; a number's ** rounds otherwise.
        write = self.call if e.fun is np.power else self.write
        text = write(e)[0]
        if not e.shape and e.fun in REDUCTIONS and e.is_plain_reduction():
            text = f"{self._reduction_of(e)}({self.plain(e.args[0])}, None)"
        # A reshape of a view may be a copy, which a later step would not see change; an index that
        # leaves a number makes a copy.
        stays = bool(e.shape) and is_view(e) and e.args[0] in self._static
        if stays and not (e.fun is reshape and is_view(e.args[0])):
            self._static.add(e)
            return self._view(text)
        name = self._new_name("v")
        self.step.append(f"{name} = {text}")
        return name

    def _ufunc(self, fun: object, args: str, out: str) -> str:
        # A positional out is quicker, but these two deprecate it.
        keyword = "out=" if fun in (np.maximum, np.minimum) else ""
        return f"{self._function(fun)}({args}, {keyword}{out})"

    def _lines(self, e: Expr, out: str) -> list[str]:
        """Return the lines that write a value into an array."""
        if isinstance(e.fun, np.ufunc):
            return [self._ufunc(e.fun, ", ".join(self._operand(arg, e) for arg in e.args), out)]
        if e.fun in REDUCTIONS:
            if _by_columns(e) and e.args[0] in self._static:
                return self._columns(e, out)
            if _adds_rows(e):
                adds = self._bound(f"np.ones({e.args[0].shape[0]}, np.{e.dtype.name}).dot")
                return [f"{adds}({self.plain(e.args[0])}, {out})"]
            options = f"{e.kwargs.get('axis')}, None, {out}, {bool(e.kwargs.get('keepdims'))}"
            return [f"{self._reduction_of(e)}({self.plain(e.args[0])}, {options})"]
        x, *rest = e.args
        if e.fun is scale:
            return [self._scale(self.plain(x), rest[0], e.dtype, out)]
        if e.fun is np.dot:
            if x.shape and x in self._static:  # its bound method is quicker
                return [f"{self._view(f'{self.plain(x)}.dot')}({self.plain(rest[0])}, {out})"]
            return [f"{self._function(np.dot)}({self.arguments(e.args, e)}, {out})"]
        if e.fun is astype:
            return [f"copyto({out}, {self.plain(x)}, casting='unsafe')"]
        if e.fun is concatenate:
            return [f"np.concatenate(({', '.join(map(self.plain, rest))},), {x}, {out})"]
        return [f"{out}.fill(0)", self.scattered(e, out)]

    def _scale(self, x: str, factor: Fraction, dtype: object, out: str) -> str:
        if factor == -1:
            return self._ufunc(np.negative, x, out)
        if abs(factor.numerator) == 1:
            divisor = self._number(factor.denominator * factor.numerator, dtype)
            return self._ufunc(np.divide, f"{x}, {divisor}", out)
        return self._ufunc(np.multiply, f"{x}, {self._number(float(factor), dtype)}", out)

    def _columns(self, e: Expr, out: str) -> list[str]:
        """Return a reduction along a short last axis as calls on whole columns.

        The order is that of NumPy's own reduction: the first column last.
        """
        x = e.args[0]
        first, total, *others = [
            self._view(f"{self.plain(x)}[..., {k}]") for k in range(x.shape[-1])
        ]
        column = out if len(e.shape) < len(x.shape) else self._view(f"{out}[..., 0]")
        lines = []
        for other in others:
            lines.append(self._ufunc(REDUCTIONS[e.fun], f"{total}, {other}", column))
            total = column
        return [*lines, self._ufunc(REDUCTIONS[e.fun], f"{first}, {total}", column)]

    def _view(self, text: str) -> str:
        """Return the name of a view that is made once."""
        name = self._new_name("v")
        self.views.append(f"{name} = {text}")
        return name

    # ---- the losses ----

    def losses(self) -> list[str]:
        """Return the lines that compute the losses of the first n batches, when all is written.

        Each value has a row for each batch, and all have as many axes: those that one has less are
        of length 1, and stand in front, where they are repeated as those of a single batch are.
        """
        loss, lines = self.simple.loss, []
        late = [e for e in self._order if e in self._late]
        read = {p: viewed(p, self._late) for e in late for p in e.parents}
        views = [p for p, base in read.items() if base is not p]
        axes = max(len(e.shape) for e in (loss, *late, *read, *read.values()))

        def rows(text: str, shape: Shape) -> str:
            return f"{text}.reshape({('n', *[1] * (axes - len(shape)), *shape)})".replace("'", "")

        for e, name in self._kept.items():
            self.texts[e] = rows(f"{name.upper()}[:n]", e.shape), ATOM
        for i, e in enumerate(self.simple.data):
            self.texts[e] = rows(f"data[{i}][:n]", e.shape) if e.shape else "", ATOM
        for e in dict.fromkeys([*views, *late]):
            x = e.args[0]
            if e.fun is reshape:
                text = rows(self.plain(x), e.shape)
            elif e.fun in REDUCTIONS:
                text = rows(self._reduced(e), e.shape)
            else:
                text = (self.call if e.fun is np.power else self.write)(e)[0]
            name = self._new_name("v")
            lines.append(f"{name} = {text}")
            self.texts[e] = name, ATOM
        return [*lines, f"return {self.plain(loss)}.reshape(n)"]

    def _reduced(self, e: Expr) -> str:
        """Return the text of a reduction in all batches: along axes counted from the end."""
        x = e.args[0]
        if _by_columns(e):
            first, *others = [f"{self.plain(x)}[..., {k}]" for k in range(x.shape[-1])]
            ufunc = self._function(REDUCTIONS[e.fun])
            total = functools.reduce(lambda total, k: f"{ufunc}({total}, {k})", others)
            return f"{ufunc}({first}, {total})"
        axis, ndim, flat = e.kwargs.get("axis"), len(x.shape), ""
        if axis is None:
            axis, ndim, flat = 0, 1, f".reshape(n, {prod(x.shape)})"
        ends = tuple(k - ndim for k in normalize_axis_tuple(axis, ndim))
        return f"{self._reduction_of(e)}({self.plain(x)}{flat}, {ends})"

    # ---- names ----

    def _new_name(self, prefix: str) -> str:
        self._count += 1
        return f"{prefix}{self._count}"

    def name_constant(self, value: object) -> str:
        return self._new_name("c")

    @staticmethod
    def literal(value: object) -> str | None:
        return None if isinstance(value, np.ndarray) else literal(value)

    def _operand(self, arg: Expr, e: Expr) -> str:
        """Return an operand; a Python number as an array of the dtype at work: that is quicker."""
        if type(arg.value) in (int, float) and arg.fun is None:
            dtypes = [other.dtype for other in e.args if other is not arg]
            if dtypes and dtypes[0].kind == "f":
                return self._number(arg.value, dtypes[0])
        return self.plain(arg)

    def _number(self, value: float, dtype: Any) -> str:
        key = value, dtype
        if key not in self._numbers:
            self._numbers[key] = self.constant(np.array(value, dtype=dtype))
        return self._numbers[key]

    def _function(self, fun: object, method: str = "") -> str:
        """Return a short name for a function of NumPy's, bound before the first step."""
        path = numpy_name(fun)
        if path is None:
            return self.constant(fun)
        path += method
        return self._bound(path, path.removeprefix("np.").replace(".", "_"))

    def _bound(self, text: str, name: str = "") -> str:
        """Return the name of a function that is bound before the first step."""
        if text not in self._functions:
            self._functions[text] = name or self._new_name("f")
            self.setup.append(f"{self._functions[text]} = {text}")
        return self._functions[text]

    def _reduction_of(self, e: Expr) -> str:
        return self._function(REDUCTIONS[e.fun], ".reduce")


def _empty(*shape: Any, dtype: Any) -> str:
    """Return the text of a new array."""
    return f"np.empty(({''.join(f'{n}, ' for n in shape)}), dtype=np.{dtype.name})"


def _by_columns(e: Expr) -> bool:
    """Tell whether a reduction runs along so short a last axis that columns are quicker."""
    x, axis = e.args[0], e.kwargs.get("axis")
    last = axis in (-1, len(x.shape) - 1) and not isinstance(axis, bool)
    return last and len(x.shape) > 1 and 2 <= x.shape[-1] <= 4 and x.dtype == e.dtype


def _adds_rows(e: Expr) -> bool:
    """Tell whether a sum is one of a matrix's rows, which BLAS adds at less cost."""
    x, axis = e.args[0], e.kwargs.get("axis")
    is_first = axis in (0, -2) and not isinstance(axis, bool)
    is_float = x.dtype == e.dtype and x.dtype in (np.float32, np.float64)
    return e.fun is np.sum and is_first and is_float and (len(x.shape), len(e.shape)) == (2, 1)


def _has_out(e: Expr) -> bool:
    """Tell whether a value can be written into an array that is there already."""
    if e.fun is np.dot:
        a, b = e.args
        return max(len(a.shape), len(b.shape)) <= 2 and a.dtype == b.dtype == e.dtype
    return is_plain(e) or e.fun in (scale, astype, concatenate, *SCATTERS)
