"""The same program for speed: every value in a buffer that is there already.

What decides the speed of a small network is the number of calls and what each of them allocates.
So each ufunc writes into a preallocated array, reductions are the ufuncs' own, views are made
once, and the parameters and the gradients are views of two flat vectors.
"""

from __future__ import annotations

import operator
from typing import Any

import numpy as np

from ..boxes import add_at, take
from .emit import (
    PYTHON_OPERATORS,
    VIEWS,
    factor_text,
    index_text,
    index_tuple_text,
    kept,
    literal,
    numpy_name,
)
from .expressions import Expr, astype, concatenate, is_basic, put, reshape, scale, transpose
from .simplify import Simplified, memory_of

REDUCTIONS = {np.sum: np.add, np.max: np.maximum, np.min: np.minimum, np.prod: np.multiply}
ARITHMETIC = {np.add: "+", np.subtract: "-", np.multiply: "*", np.divide: "/"}
SCALAR_ARITHMETIC = ARITHMETIC | PYTHON_OPERATORS


def write_buffered(simple: Simplified) -> tuple[str, dict[str, Any], list[Any]]:
    """Return the source of ``make(params, grads)``, what it needs, and the dtypes of the data.

    ``make`` takes the views of the two flat vectors, allocates the buffers, and returns
    ``step(*data)``, which writes the gradients into `grads` and returns the loss.

    Parameters
    ----------
    simple : Simplified

    Returns
    -------
    source : str
    needs : dict
    data_dtypes : list of dtypes
        Each array of the data must be cast to its dtype before it comes in.
    """
    program = _Buffered(simple)
    for position, e in enumerate(program.order):
        program.write(position, e)
    for k, grad in enumerate(simple.grads):
        if program.names[grad] != f"g{k}":
            program.step.append(f"copyto(g{k}, {program.names[grad]})")
    inputs = [program.names.get(e, f"d{k}") for k, e in enumerate(simple.data)]
    source = [
        "def make(params, grads):",
        "    copyto = np.copyto",
        *(f"    p{k} = params[{k}]" for k in range(len(simple.params))),
        *(f"    g{k} = grads[{k}]" for k in range(len(simple.params))),
        *(f"    {line}" for line in program.setup),
        f"    def step({', '.join(inputs)}):",
        *(f"        {line}" for line in program.step),
        f"        return {program.names[simple.loss]}",
        "    return step",
    ]
    return "\n".join(source) + "\n", program.needs, program.data_dtypes


class _Buffered:
    """The lines of a buffered program, and which buffer holds what."""

    def __init__(self, simple: Simplified) -> None:
        self.simple = simple
        self.order = simple.order()
        self.setup: list[str] = []
        self.step: list[str] = []
        self.needs: dict[str, Any] = {"np": np}
        self.names: dict[Expr, str] = {}
        self.data_dtypes = [self._data_dtype(e) for e in simple.data]
        self._buffer: dict[Expr, str] = {}  # the buffer that a value, or its base, lives in
        self._static: set[Expr] = set()  # what stays in one place from step to step
        self._free: dict[Any, list[str]] = {}
        self._functions: dict[str, str] = {}
        self._numbers: dict[Any, str] = {}
        self._count = 0
        self._memory = memory_of(self.order)
        self._last_use = self._last_uses()
        for prefix, leaves in (("p", simple.params), ("d", simple.data)):
            self.names.update({e: f"{prefix}{k}" for k, e in enumerate(leaves)})
        self._static.update(simple.params)
        self._grads: dict[Expr, int] = {}
        for k, grad in enumerate(simple.grads):
            self._grads.setdefault(grad, k)

    # ---- lifetimes ----

    def _last_uses(self) -> dict[Expr, int]:
        """Return where each value, seen through its views, is used last."""
        last: dict[Expr, int] = {}
        for position, e in enumerate(self.order):
            for parent in e.parents:
                last.update(dict.fromkeys(self._memory[parent], position))
        for result in (self.simple.loss, *self.simple.grads):
            last.update(dict.fromkeys(self._memory[result], len(self.order)))
        return last

    def _data_dtype(self, e: Expr) -> Any:
        """Return the float dtype that a data array of integers is only ever used in."""
        if not e.shape:
            return e.dtype
        wanted = set()
        for user in self.order:
            if any(parent is e for parent in user.parents):
                cast = user.fun is astype or user.fun in ARITHMETIC
                wanted.add(user.dtype if cast and user.dtype.kind == "f" else e.dtype)
        return wanted.pop() if len(wanted) == 1 and e.dtype.kind in "iub" else e.dtype

    def _new_name(self, prefix: str) -> str:
        self._count += 1
        return f"{prefix}{self._count}"

    def _output(self, position: int, e: Expr, *, elementwise: bool = False) -> str:
        """Return the name of the array that a value is written into."""
        k = self._grads.get(e)
        if k is not None and e.dtype == self.simple.params[k].dtype and e.shape:
            self._static.add(e)
            return f"g{k}"
        kind = e.shape, e.dtype
        name = None
        for parent in e.parents if elementwise else ():
            buffer = self._buffer.get(parent)
            ends = self._last_use[parent] == position
            whole = self._memory[parent] == {parent} and (parent.shape, parent.dtype) == kind
            if buffer is not None and ends and whole:
                name = buffer
        if name is None and self._free.get(kind):
            name = self._free[kind].pop()
        if name is None:
            name = self._new_name("b")
            self.setup.append(f"{name} = np.empty({e.shape}, dtype=np.{e.dtype.name})")
        self._buffer[e] = name
        self._static.add(e)
        return name

    def _release(self, position: int, e: Expr) -> None:
        """Give the buffers that were used here for the last time back."""
        bases: set[Expr] = set().union(*(self._memory[parent] for parent in e.parents))
        for base in bases:
            buffer = self._buffer.get(base)
            if buffer is not None and self._last_use[base] == position and buffer != self.names[e]:
                self._free.setdefault((base.shape, base.dtype), []).append(buffer)

    # ---- lines ----

    def write(self, position: int, e: Expr) -> None:
        """Write the line of one expression."""
        if e in self.names:
            return
        if e.fun is None:
            self.names[e] = self._constant(e.value)
            self._static.add(e)
            return
        for kind in (self._cast_data, self._view, self._scalar, self._into_buffer):
            name = kind(position, e)
            if name is not None:
                self.names[e] = name
                break
        else:
            self.names[e] = self._new_name("v")
            self.step.append(f"{self.names[e]} = {self._call(e)}")
        self._release(position, e)

    def _cast_data(self, position: int, e: Expr) -> str | None:
        x = e.args[0]
        if e.fun is not astype or x not in self.simple.data:
            return None
        comes_as = self.data_dtypes[self.simple.data.index(x)]
        return self.names[x] if comes_as == e.dtype else None

    def _view(self, position: int, e: Expr) -> str | None:
        if not _is_view(e) or not e.shape:  # an index that leaves a number makes a copy
            return None
        name, line = self._new_name("v"), f"{self._call(e)}"
        x = e.args[0]
        # A reshape of a view may be a copy, which a later step would not see change.
        stays = x in self._static and not (e.fun is reshape and _is_view(x))
        (self.setup if stays else self.step).append(f"{name} = {line}")
        if stays:
            self._static.add(e)
        return name

    def _scalar(self, position: int, e: Expr) -> str | None:
        if e.shape:
            return None
        name = self._new_name("v")
        if e.fun is scale:
            line = f"{self._text(e.args[0])} {self._factor(e.args[1])}"
        elif e.fun in SCALAR_ARITHMETIC:
            left, right = (
                f"({text})" if text[0] == "-" else text for text in map(self._text, e.args)
            )
            line = f"{left} {SCALAR_ARITHMETIC[e.fun]} {right}"
        elif e.fun in REDUCTIONS and _plain_reduction(e):
            reduction = self._reduction_of(e.fun)
            line = f"{reduction}({self._text(e.args[0])}, None)"
        else:
            line = self._call(e)
        self.step.append(f"{name} = {line}")
        return name

    def _factor(self, factor: Any) -> str:
        if abs(factor.numerator) == 1:
            return f"/ {factor.denominator * factor.numerator}"
        return f"* {factor_text(factor)}"

    def _into_buffer(self, position: int, e: Expr) -> str | None:
        if isinstance(e.fun, np.ufunc) and not e.kwargs and e.fun.nout == 1:
            args = ", ".join(self._operand(arg, e) for arg in e.args)
            name = self._output(position, e, elementwise=e.fun.signature is None)
            self._ufunc(e.fun, args, name)
            return name
        write = INTO.get(e.fun)
        return write(self, position, e) if write else None

    def _scale(self, position: int, e: Expr) -> str:
        x, factor = self._text(e.args[0]), e.args[1]
        name = self._output(position, e, elementwise=True)
        if factor == -1:
            self._ufunc(np.negative, x, name)
        elif abs(factor.numerator) == 1:
            divisor = self._number(factor.denominator * factor.numerator, e.dtype)
            self._ufunc(np.divide, f"{x}, {divisor}", name)
        else:
            self._ufunc(np.multiply, f"{x}, {self._number(float(factor), e.dtype)}", name)
        return name

    def _ufunc(self, fun: Any, args: str, out: str) -> None:
        # A positional out is quicker, but these two deprecate it.
        keyword = "out=" if fun in (np.maximum, np.minimum) else ""
        self.step.append(f"{self._function(fun)}({args}, {keyword}{out})")

    def _reduction(self, position: int, e: Expr) -> str | None:
        if not _plain_reduction(e):
            return None
        if _by_columns(e) and e.args[0] in self._static:
            return self._column_reduction(position, e)
        x, axis = self._text(e.args[0]), e.keyword("axis")
        reduction = self._reduction_of(e.fun)
        name = self._output(position, e)
        keepdims = bool(e.keyword("keepdims", False))
        self.step.append(f"{reduction}({x}, {axis}, None, {name}, {keepdims})")
        return name

    def _column_reduction(self, position: int, e: Expr) -> str:
        """Write a reduction along a short last axis as calls on whole columns.

        The order is that of NumPy's own reduction: the first column last.
        """
        x, columns = e.args[0], []
        for k in range(x.shape[-1]):
            columns.append(self._new_name("v"))
            self.setup.append(f"{columns[-1]} = {self.names[x]}[..., {k}]")
        name = column = self._output(position, e)
        if len(e.shape) == len(x.shape):
            column = self._new_name("v")
            self.setup.append(f"{column} = {name}[..., 0]")
        first, second, *others = columns
        total = second
        for other in others:
            self._ufunc(REDUCTIONS[e.fun], f"{total}, {other}", column)
            total = column
        self._ufunc(REDUCTIONS[e.fun], f"{first}, {total}", column)
        return name

    def _dot(self, position: int, e: Expr) -> str | None:
        a, b = e.args
        if max(len(a.shape), len(b.shape)) > 2 or not a.dtype == b.dtype == e.dtype:
            return None
        args = f"{self._text(a)}, {self._text(b)}"
        name = self._output(position, e)
        self.step.append(f"{self._function(np.dot)}({args}, {name})")
        return name

    def _astype(self, position: int, e: Expr) -> str:
        x = self._text(e.args[0])
        name = self._output(position, e)
        self.step.append(f"copyto({name}, {x}, casting='unsafe')")
        return name

    def _concatenate(self, position: int, e: Expr) -> str:
        axis, *parts = e.args
        inside = ", ".join(map(self._text, parts))
        name = self._output(position, e)
        self.step.append(f"np.concatenate(({inside},), {axis}, {name})")
        return name

    def _scatter(self, position: int, e: Expr) -> str:
        g, _, *index = e.args
        write_index = index_text if e.fun is put else index_tuple_text
        inside = write_index(index, lambda part: (self._text(part), 0)) or "()"
        name = self._output(position, e)
        self.step.append(f"{name}.fill(0)")
        if e.fun is put:
            self.step.append(f"{name}[{inside}] = {self._text(g)}")
        else:
            self.step.append(f"np.add.at({name}, {inside}, {self._text(g)})")
        return name

    # ---- texts ----

    def _text(self, arg: Any) -> str:
        return self.names[arg] if isinstance(arg, Expr) else self._constant(arg)

    def _operand(self, arg: Expr, e: Expr) -> str:
        """Return an operand; a Python number as an array of the dtype at work: that is quicker."""
        if type(arg.value) in (int, float) and arg.fun is None:
            dtypes = [other.dtype for other in e.args if other is not arg]
            if dtypes and dtypes[0].kind == "f":
                return self._number(arg.value, dtypes[0])
        return self._text(arg)

    def _number(self, value: float, dtype: Any) -> str:
        key = value, dtype
        if key not in self._numbers:
            self._numbers[key] = self._new_name("c")
            self.needs[self._numbers[key]] = np.array(value, dtype=dtype)
        return self._numbers[key]

    def _constant(self, value: Any) -> str:
        text = None if isinstance(value, np.ndarray) else literal(value)
        if text is None:
            text = self._new_name("c")
            self.needs[text] = kept(value)
        return text

    def _function(self, fun: Any) -> str:
        path = numpy_name(fun)
        return self._constant(fun) if path is None else self._short(path)

    def _reduction_of(self, fun: Any) -> str:
        return self._short(f"np.{REDUCTIONS[fun].__name__}.reduce")

    def _short(self, path: str) -> str:
        """Return a short name for a function of NumPy's."""
        if path not in self._functions:
            self._functions[path] = path.removeprefix("np.").replace(".", "_")
            self.setup.append(f"{self._functions[path]} = {path}")
        return self._functions[path]

    def _call(self, e: Expr) -> str:
        """Return a call that allocates its result."""
        if e.fun is operator.getitem or e.fun is take.fun:
            x, *index = e.args
            parts = index[0] if len(index) == 1 and isinstance(index[0], tuple) else index
            inside = index_text(parts, lambda part: (self._text(part), 0)) or "()"
            return f"{self._text(x)}[{inside}]"
        args = [self._text(arg) for arg in e.args]
        args += [f"{name}={self._constant(value)}" for name, value in e.kwargs]
        if e.fun is transpose:
            return f"{args[0]}.T"
        if e.fun is reshape:
            of_array = bool(e.args[0].shape)  # a Python number has no methods
            return f"{args[0]}.reshape({args[1]})" if of_array else f"np.reshape({', '.join(args)})"
        return f"{numpy_name(e.fun) or self._constant(e.fun)}({', '.join(args)})"


def _is_view(e: Expr) -> bool:
    if e.fun is operator.getitem:
        return is_basic(e.args[1])
    return e.fun in VIEWS


def _by_columns(e: Expr) -> bool:
    """Tell whether a reduction runs along so short a last axis that columns are quicker."""
    x, axis = e.args[0], e.keyword("axis")
    last = axis in (-1, len(x.shape) - 1) and not isinstance(axis, bool)
    return last and len(x.shape) > 1 and 2 <= x.shape[-1] <= 4 and x.dtype == e.dtype


def _plain_reduction(e: Expr) -> bool:
    return len(e.args) == 1 and set(dict(e.kwargs)) <= {"axis", "keepdims"}


INTO = {
    scale: _Buffered._scale,
    np.dot: _Buffered._dot,
    astype: _Buffered._astype,
    concatenate: _Buffered._concatenate,
    put: _Buffered._scatter,
    add_at.fun: _Buffered._scatter,
    **dict.fromkeys(REDUCTIONS, _Buffered._reduction),
}
