"""Expressions as Python text: what both forms of a program have in common."""

from __future__ import annotations

import keyword
import math
import operator
import re
from collections.abc import Callable, Iterable, Sequence
from types import EllipsisType, NoneType
from typing import Any, TypeAlias

import numpy as np
from autograd.builtins import container_take
from autograd.numpy.numpy_boxes import ArrayBox

from ..boxes import add_at, take
from ..validation import Array, Shape
from .expressions import (
    Expr,
    astype,
    broadcast,
    concatenate,
    is_basic,
    put,
    reshape,
    scale,
    transpose,
    uniform,
    uniform_number,
)
from .outside import COMPARED_BYTES
from .simplify import METHODS, Simplified, memory_of

# -------------------- literals --------------------

LONGEST_LITERAL = 64


def literal(value: object) -> str | None:
    """Return a constant as NumPy code; None if it is too large, or no value that code can name."""
    if type(value) in _LITERALS:
        return _LITERALS[type(value)](value)
    if isinstance(value, np.generic):
        return f"np.{value.dtype.name}({_number(value.item())})" if _plain(value) else None
    if isinstance(value, np.dtype):
        return f"np.{value.name}" if value.kind in "fiub" else None
    if isinstance(value, type) and issubclass(value, np.generic):
        return f"np.{value.__name__}"
    return value.__name__ if isinstance(value, type) and value in (bool, int, float) else None


def _plain(value: Any) -> bool:
    return value.dtype.kind in "fiub" and value.dtype.itemsize <= 8


def _number(value: float) -> str:
    if isinstance(value, float) and not math.isfinite(value):
        return "np.nan" if math.isnan(value) else ("np.inf" if value > 0 else "-np.inf")
    return repr(value)


class Code(str):
    """A text that stands for itself in the repr of what holds it."""

    __slots__ = ()
    __repr__ = str.__str__


def _holding(values: Iterable[Any], make: Callable[..., Any]) -> str | None:
    """Return the text of a container that is made of some values."""
    texts = [None if text is None else Code(text) for text in map(literal, values)]
    return None if None in texts else repr(make(texts))


def shape_text(shape: Shape) -> str:
    """Return a shape as NumPy's makers of arrays take it."""
    return str(shape[0]) if len(shape) == 1 else str(shape)


def _array_literal(value: Array) -> str | None:
    if not _plain(value):
        return None
    made = _made_by(value)
    if made is None and value.size > LONGEST_LITERAL:
        return None
    call, own_dtypes = made or _spelt_out(value)
    dtype = "" if value.dtype in own_dtypes else f", dtype=np.{value.dtype.name}"
    text = f"np.{call}{dtype})"
    return text if made or len(text) <= LONGEST_LITERAL else None


def _made_by(value: Array) -> tuple[str, tuple[type, ...]] | None:
    """Return the call that makes a regular array, open at its end, and the dtypes it has itself."""
    shape, n = shape_text(value.shape), len(value) if value.ndim else 0
    if value.size == 0:
        return f"zeros({shape}", (float,)
    if n and uniform_number(value) is not None:
        first = _number(value.flat[0].item())
        maker = {"0.0": "zeros", "0": "zeros", "1.0": "ones", "1": "ones"}.get(first)
        return f"{maker}({shape}" if maker else f"full({shape}, {first}", (float,)
    if n > 2 and value.ndim == 1 and np.array_equal(np.arange(n), value):
        return f"arange({n}", (int,)
    if n > 2 and value.shape == (n, n) and np.array_equal(np.eye(n), value):
        return f"eye({n}", (float,)
    return None


def _spelt_out(value: Array) -> tuple[str, tuple[type, ...]]:
    maker, usual = "array", (float, int, bool)
    if value.ndim == 2 and value.dtype in usual and np.array_equal(np.diag(np.diag(value)), value):
        maker, value = "diag", np.diag(value)
    entries = re.sub(r"\b(nan|inf)\b", r"np.\1", str(value.tolist()))
    return f"{maker}({entries}", usual


_LITERALS: dict[type, Callable[[Any], str | None]] = {
    **dict.fromkeys((bool, str, bytes, NoneType), repr),
    **dict.fromkeys((int, float), _number),
    **dict.fromkeys((list, range), lambda value: _holding(value, list)),
    EllipsisType: lambda value: "...",
    slice: lambda value: _holding((value.start, value.stop, value.step), lambda t: slice(*t)),
    tuple: lambda value: _holding(value, tuple),
    np.ndarray: _array_literal,
}


def kept(value: object) -> Any:
    """Return a constant that stays as it is, whoever writes into the array that it was taken from.

    What is a part of a large array stays a part of it: a program holds for that array alone.
    """
    if not isinstance(value, np.ndarray):
        return value
    owner = value
    while isinstance(owner.base, np.ndarray):
        owner = owner.base
    return value.copy() if owner.nbytes <= COMPARED_BYTES else value


def identifier(name: object, taken: set[str]) -> str:
    """Return a harmless identifier that is close to `name` and not yet taken, and take it."""
    plain = re.sub(r"\W", "_", str(name), flags=re.ASCII).strip("_")[:40]
    if not plain or plain[0].isdigit() or keyword.iskeyword(plain):
        plain = f"v{plain}"
    unique, count = plain, 1
    while unique in taken:
        count += 1
        unique = f"{plain}_{count}"
    taken.add(unique)
    return unique


def numpy_name(fun: object) -> str | None:
    """Return how code that has imported numpy as np calls a function; None if it is not NumPy's."""
    name = getattr(fun, "__name__", "")
    for prefix, module in (("np", np), ("np.linalg", np.linalg), ("np.fft", np.fft)):
        if getattr(module, name, None) is fun:
            return f"{prefix}.{name}"
    return None


# -------------------- expressions --------------------

# A text, and how closely what it is made of binds.
ATOM, POWER, UNARY, TERM, SUM, COMPARISON = 5, 4, 3, 2, 1, 0
Text: TypeAlias = tuple[str, int]
VIEWS = (reshape, transpose, broadcast)
SCATTERS = (put, add_at.fun)
GETITEMS = ArrayBox.__getitem__.fun, container_take.fun

# How a call is written, how closely that binds, and how closely its arguments must.
FORMS: dict[Any, tuple[str, int, tuple[int, ...]]] = {
    np.add: ("{} + {}", SUM, (SUM, TERM)),
    np.subtract: ("{} - {}", SUM, (SUM, TERM)),
    np.multiply: ("{} * {}", TERM, (TERM, UNARY)),
    np.divide: ("{} / {}", TERM, (TERM, UNARY)),
    np.matmul: ("{} @ {}", TERM, (TERM, UNARY)),
    transpose: ("{}.T", ATOM, (ATOM,)),
}
_COMPARISONS = {"equal": "==", "less": "<", "greater": ">"}
_COMPARISONS |= {"not_equal": "!=", "less_equal": "<=", "greater_equal": ">="}
for name, sign in _COMPARISONS.items():
    FORMS[getattr(np, name)] = f"{{}} {sign} {{}}", COMPARISON, (SUM, SUM)
_PYTHONS = {"add": "+", "sub": "-", "mul": "*", "truediv": "/", "floordiv": "//", "mod": "%"}
for name, sign in {**_PYTHONS, "pow": "**"}.items():
    FORMS[getattr(operator, name)] = f"{{}} {sign} {{}}", COMPARISON, (ATOM, ATOM)


def grouped(text: Text, at_least: int) -> str:
    """Return a text in parentheses where it binds more loosely than it must."""
    return text[0] if text[1] >= at_least else f"({text[0]})"


def is_view(e: Expr) -> bool:
    """Tell whether an expression is another look at its argument's memory."""
    return is_basic(e.args[1]) if e.fun in GETITEMS else e.fun in VIEWS


class Writer:
    """Walks over a program and turns each expression into text, which `emit` puts into lines."""

    emit: Callable[[int, Expr], None]  # write an expression's lines, note what stands for it
    name_constant: Callable[[object], str]  # the name of a constant that has no literal
    literal = staticmethod(literal)  # the text of one that has

    def __init__(self, simple: Simplified) -> None:
        self.simple = simple
        self.order = simple.order()
        self.memory = memory_of(self.order)
        self.texts: dict[Expr, Text] = {}  # what stands for each expression
        self.needs: dict[str, Any] = {}  # what the text needs besides NumPy, by name
        self._given: dict[str, Any] = {}

    def walk(self) -> None:
        """Write what is not yet there, in the order in which it is needed."""
        for position, e in enumerate(self.order):
            if e in self.texts:
                continue
            if e.fun is None:
                self.texts[e] = self.text_of(e.value)
            else:
                self.emit(position, e)

    def constant(self, value: object) -> str:
        """Return the text of a constant, bound to a name where it has no literal."""
        text = self.literal(value)
        if text is not None:
            return text
        for name, known in self._given.items():
            if known is value:
                return name
        name = self.name_constant(value)
        self.needs[name], self._given[name] = kept(value), value
        return name

    def text_of(self, arg: object) -> Text:
        """Return the text of an argument."""
        if isinstance(arg, Expr):
            return self.texts[arg]
        text = self.constant(arg)
        return text, UNARY if text.startswith("-") else ATOM  # a sign binds less than a power

    def plain(self, arg: object) -> str:
        """Return the text of an argument that stands between commas."""
        return self.text_of(arg)[0]

    def write(self, e: Expr) -> Text:
        """Return the text of an expression whose arguments have texts."""
        if e.fun in FORMS and not e.kwargs:
            form, level, at_least = FORMS[e.fun]
            texts = [grouped(self.text_of(x), n) for x, n in zip(e.args, at_least, strict=True)]
            return form.format(*texts), level
        is_written = e.fun in WRITERS and (not e.kwargs or e.fun in METHODS)
        return (WRITERS[e.fun](self, e) if is_written else None) or self.call(e)

    def call(self, e: Expr) -> Text:
        """Return the text of a plain call."""
        inside = self.arguments(e.args, e)
        return f"{numpy_name(e.fun) or self.constant(e.fun)}({inside})", ATOM

    def arguments(self, args: Sequence[Any], e: Expr) -> str:
        """Return what stands between the parentheses of a call."""
        texts = [self.plain(arg) for arg in args]
        texts += [f"{k}={self.constant(value)}" for k, value in e.kwargs.items()]
        return ", ".join(texts)

    def index(self, parts: Sequence[Any]) -> str:
        """Return what stands between the brackets of an index."""
        texts = []
        for part in parts:
            bounds = (part.start, part.stop, part.step) if isinstance(part, slice) else None
            if bounds and all(bound is None or isinstance(bound, int) for bound in bounds):
                shown = ["" if bound is None else str(bound) for bound in bounds]
                texts.append(":".join(shown if part.step is not None else shown[:2]))
            else:
                texts.append(self.plain(part))
        return ", ".join(texts) or "()"

    def scattered(self, e: Expr, name: str, sign: str = "") -> str:
        """Return the statement that puts or adds values into an array at an index."""
        g, _, *index = e.args
        if e.fun is put:
            return f"{name}[{self.index(index)}] {sign}= {self.plain(g)}"
        inside = f"({', '.join(map(self.plain, index))},)" if index else "()"
        return f"np.{'subtract' if sign == '-' else 'add'}.at({name}, {inside}, {self.plain(g)})"


def _power(writer: Writer, e: Expr) -> Text | None:
    if e.args[0].shape and e.args[0].dtype != e.dtype:
        return None  # NumPy's ** by a scalar has short cuts that keep the dtype
    base, exponent = map(writer.text_of, e.args)
    number = uniform(e.args[1])
    alike = (e.args[0].shape, e.args[0].dtype) == (e.shape, e.dtype)
    if number is not None and number.is_integer() and abs(number) < 100 and alike:
        exponent = str(int(number)), ATOM
    return f"{grouped(base, ATOM)}**{grouped(exponent, UNARY)}", POWER


def _scale(writer: Writer, e: Expr) -> Text:
    x, factor = writer.text_of(e.args[0]), e.args[1]
    if factor == -1:
        return f"-{grouped(x, UNARY)}", UNARY
    if abs(factor.numerator) == 1 and factor.denominator < 2**53:
        sign, level = ("-", UNARY) if factor < 0 else ("", TERM)
        return f"{sign}{grouped(x, level)} / {factor.denominator}", TERM
    is_whole = factor.denominator == 1 and abs(factor) < 2**53
    number = str(factor.numerator) if is_whole else repr(float(factor))
    return f"{number} * {grouped(x, UNARY)}", TERM


def _method(writer: Writer, e: Expr) -> Text | None:
    x, *rest = e.args
    if not isinstance(x, Expr) or not x.shape:  # a Python float has no methods
        return None
    inside = writer.arguments([] if rest == [None] else rest, e)
    return f"{grouped(writer.text_of(x), ATOM)}.{e.fun.__name__}({inside})", ATOM


def _reshape(writer: Writer, e: Expr) -> Text:
    x, shape = e.args
    if not x.shape:
        return f"np.reshape({writer.plain(x)}, {shape_text(shape)})", ATOM
    inside = grouped(writer.text_of(x), ATOM)
    if len(x.shape) == 1 and shape in ((*x.shape, 1), (1, *x.shape)):
        return f"{inside}[:, None]" if shape[1] == 1 else f"{inside}[None, :]", ATOM
    return f"{inside}.reshape({', '.join(map(str, shape)) or '()'})", ATOM


def _astype(writer: Writer, e: Expr) -> Text:
    x, dtype = writer.text_of(e.args[0]), writer.constant(e.args[1])
    return f"{grouped(x, ATOM)}.astype({dtype})" if e.args[0].shape else f"{dtype}({x[0]})", ATOM


def _concatenate(writer: Writer, e: Expr) -> Text:
    axis, *parts = e.args
    inside = ", ".join(map(writer.plain, parts))
    return f"np.concatenate([{inside}], axis={writer.constant(axis)})", ATOM


def _getitem(writer: Writer, e: Expr) -> Text:
    x, *index = e.args
    parts = index[0] if len(index) == 1 and isinstance(index[0], tuple) else index
    return f"{grouped(writer.text_of(x), ATOM)}[{writer.index(parts)}]", ATOM


WRITERS: dict[Any, Callable[[Any, Expr], Text | None]] = {
    **dict.fromkeys(METHODS, _method),
    np.power: _power,
    scale: _scale,
    reshape: _reshape,
    astype: _astype,
    concatenate: _concatenate,
    **dict.fromkeys((*GETITEMS, take.fun), _getitem),
}
