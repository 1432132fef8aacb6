"""Write a simplified program as Python source that a person reads: forward, then backward."""

from __future__ import annotations

import keyword
import math
import operator
import re
from collections.abc import Callable, Sequence
from fractions import Fraction
from typing import Any

import numpy as np

from ..boxes import take
from ..validation import Shape
from .expressions import Expr, astype, broadcast, concatenate, reshape, scale, transpose, uniform

# -------------------- literals --------------------


LONGEST_LITERAL = 64
COMPARED_BYTES = 2**18  # an array up to this size is compared entry by entry before each call


def literal(value: Any) -> str | None:
    """Return a constant as NumPy code; None if it is too large, or no value that code can name."""
    kind = type(value)
    if kind is np.ndarray:
        return _array_literal(value)
    if isinstance(value, np.generic):
        return f"{_dtype_literal(value.dtype)}({_number(value.item())})" if _plain(value) else None
    if kind in (bool, str, bytes, type(None)):
        return repr(value)
    if kind in (int, float):
        return _number(value)
    if value is Ellipsis:
        return "..."
    if isinstance(value, np.dtype):
        return _dtype_literal(value) if value.kind in "fiub" else None
    if isinstance(value, type) and issubclass(value, np.generic):
        return f"np.{value.__name__}"
    if kind is type and value in (bool, int, float):
        return str(value.__name__)
    if kind is slice:
        return _joined("slice(", (value.start, value.stop, value.step), ")")
    if kind is tuple:
        return _joined("(", value, ",)" if len(value) == 1 else ")")
    if kind in (list, range):
        return _joined("[", value, "]")
    return None


def _plain(value: Any) -> bool:
    return value.dtype.kind in "fiub" and value.dtype.itemsize <= 8


def _dtype_literal(dtype: Any) -> str:
    return f"np.{dtype.name}"


def _joined(opening: str, values: Sequence[Any], closing: str) -> str | None:
    texts = [literal(value) for value in values]
    return None if None in texts else opening + ", ".join(map(str, texts)) + closing


def _number(value: Any) -> str:
    if isinstance(value, float) and not math.isfinite(value):
        return "np.nan" if math.isnan(value) else ("np.inf" if value > 0 else "-np.inf")
    return repr(value)


def shape_text(shape: Shape) -> str:
    """Return a shape as NumPy's makers of arrays take it."""
    return str(shape[0]) if len(shape) == 1 else str(shape)


def _array_literal(value: np.ndarray[Any, Any]) -> str | None:
    if not _plain(value):
        return None
    dtype_argument = f", dtype={_dtype_literal(value.dtype)}"
    dtype = "" if value.dtype == float else dtype_argument
    if value.size == 0:
        return f"np.zeros({shape_text(value.shape)}{dtype})"
    number = uniform(Expr(None, (), (), value.shape, value.dtype, 0, value))
    if number is not None and value.ndim:
        first = _number(value.flat[0].item())
        maker = {"0.0": "zeros", "0": "zeros", "1.0": "ones", "1": "ones"}.get(first)
        inside = shape_text(value.shape) if maker else f"{shape_text(value.shape)}, {first}"
        return f"np.{maker or 'full'}({inside}{dtype})"
    square = value.ndim == 2 and value.shape[0] == value.shape[1] > 2
    if square or (value.ndim == 1 and len(value) > 2):
        made, maker = (np.eye(len(value)), "eye") if square else (np.arange(len(value)), "arange")
        if np.array_equal(made, value):
            usual = value.dtype == made.dtype
            return f"np.{maker}({len(value)}{'' if usual else dtype_argument})"
    return _short_literal(value, dtype)


def _short_literal(value: np.ndarray[Any, Any], dtype: str) -> str | None:
    if value.size > LONGEST_LITERAL:
        return None
    dtype = "" if value.dtype in (int, bool) else dtype
    function = "array"
    if value.ndim == 2 and np.array_equal(np.diag(np.diag(value)), value) and not dtype:
        function, value = "diag", np.diag(value)
    text = re.sub(r"\b(nan|inf)\b", r"np.\1", str(value.tolist()))
    text = f"np.{function}({text}{dtype})"
    return text if len(text) <= LONGEST_LITERAL else None


def identifier(name: Any, taken: set[str]) -> str:
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


# -------------------- expressions as text --------------------

ATOM, POWER, UNARY, TERM, SUM, COMPARISON = 5, 4, 3, 2, 1, 0
Text = tuple[str, int]
INFIX: dict[Any, tuple[str, int]] = {
    np.add: ("+", SUM),
    np.subtract: ("-", SUM),
    np.multiply: ("*", TERM),
}
INFIX |= {np.divide: ("/", TERM), np.matmul: ("@", TERM)}
PYTHON_OPERATORS = {operator.add: "+", operator.sub: "-", operator.mul: "*", operator.truediv: "/"}
PYTHON_OPERATORS |= {operator.floordiv: "//", operator.mod: "%", operator.pow: "**"}
COMPARISONS = {np.equal: "==", np.not_equal: "!=", np.less: "<", np.greater: ">"}
COMPARISONS |= {np.less_equal: "<=", np.greater_equal: ">="}
METHODS = (np.sum, np.max, np.min, np.mean, np.prod, np.cumsum)
VIEWS = (reshape, transpose, broadcast)


def grouped(text: Text, at_least: int) -> str:
    """Return a text in parentheses where it binds more loosely than it must."""
    return text[0] if text[1] >= at_least else f"({text[0]})"


def kept(value: Any) -> Any:
    """Return a constant that stays as it is, whoever writes into the array that it was taken from.

    What is a part of a large array stays a part of it: a program holds for that array alone.
    """
    if not isinstance(value, np.ndarray):
        return value
    owner = value
    while isinstance(owner.base, np.ndarray):
        owner = owner.base
    return value.copy() if owner.nbytes <= COMPARED_BYTES else value


def text_of_constant(text: str) -> Text:
    """Return a literal with how closely it binds: a sign binds less than a power."""
    return text, UNARY if text.startswith("-") else ATOM


class Writer:
    """Turns expressions into text, and notes what the text needs besides NumPy."""

    def __init__(self, taken: set[str]) -> None:
        self.taken = taken
        self.needs: dict[str, Any] = {}
        self._given: dict[str, Any] = {}

    def constant(self, value: Any) -> str:
        """Return the text of a constant, bound to a name where it has no literal."""
        text = literal(value)
        if text is not None:
            return text
        for name, known in self._given.items():
            if known is value:
                return name
        stem = getattr(value, "__name__", "constant")
        name = identifier(stem, self.taken)
        self.needs[name], self._given[name] = kept(value), value
        return name

    def write(self, e: Expr, text_of: Callable[[Any], Text]) -> Text:
        """Return the text of an expression whose arguments have the texts `text_of` returns."""
        write = WRITERS.get(e.fun)
        if write is not None:
            text = write(self, e, text_of)
            if text is not None:
                return text
        return self._call(e, text_of)

    def _call(self, e: Expr, text_of: Callable[[Any], Text]) -> Text:
        args = [text_of(arg)[0] for arg in e.args]
        args += [f"{name}={self.constant(value)}" for name, value in e.kwargs]
        name = numpy_name(e.fun)
        return f"{name or self.constant(e.fun)}({', '.join(args)})", ATOM


def numpy_name(fun: Any) -> str | None:
    """Return how code that has imported numpy as np calls a function; None if it is not NumPy's."""
    name = getattr(fun, "__name__", "")
    for prefix, module in (("np", np), ("np.linalg", np.linalg), ("np.fft", np.fft)):
        if getattr(module, name, None) is fun:
            return f"{prefix}.{name}"
    return None


def _infix(writer: Writer, e: Expr, text_of: Callable[[Any], Text]) -> Text:
    sign, level = INFIX[e.fun]
    left, right = map(text_of, e.args)
    return f"{grouped(left, level)} {sign} {grouped(right, level + 1)}", level


def _comparison(writer: Writer, e: Expr, text_of: Callable[[Any], Text]) -> Text:
    left, right = map(text_of, e.args)
    return f"{grouped(left, SUM)} {COMPARISONS[e.fun]} {grouped(right, SUM)}", COMPARISON


def _python_operation(writer: Writer, e: Expr, text_of: Callable[[Any], Text]) -> Text:
    left, right = (grouped(text_of(arg), ATOM) for arg in e.args)
    return f"{left} {PYTHON_OPERATORS[e.fun]} {right}", COMPARISON


def _power(writer: Writer, e: Expr, text_of: Callable[[Any], Text]) -> Text | None:
    if e.args[0].shape and e.args[0].dtype != e.dtype:
        return None  # NumPy's ** by a scalar has short cuts that keep the dtype
    base, exponent = map(text_of, e.args)
    number = uniform(e.args[1])
    alike = (e.args[0].shape, e.args[0].dtype) == (e.shape, e.dtype)
    if number is not None and number.is_integer() and abs(number) < 100 and alike:
        exponent = str(int(number)), ATOM
    return f"{grouped(base, ATOM)}**{grouped(exponent, UNARY)}", POWER


def _scale(writer: Writer, e: Expr, text_of: Callable[[Any], Text]) -> Text:
    x, factor = text_of(e.args[0]), e.args[1]
    if factor == -1:
        return f"-{grouped(x, UNARY)}", UNARY
    if abs(factor.numerator) == 1 and factor.denominator < 2**53:
        sign, level = ("-", UNARY) if factor < 0 else ("", TERM)
        return f"{sign}{grouped(x, level)} / {factor.denominator}", TERM
    return f"{factor_text(factor)} * {grouped(x, UNARY)}", TERM


def factor_text(factor: Fraction) -> str:
    """Return the literal of a constant factor."""
    whole = factor.denominator == 1 and abs(factor) < 2**53
    return str(factor.numerator) if whole else repr(float(factor))


def _method(writer: Writer, e: Expr, text_of: Callable[[Any], Text]) -> Text | None:
    x, *rest = e.args
    if not isinstance(x, Expr) or not x.shape:  # a Python float has no methods
        return None
    rest = [] if rest == [None] else rest
    args = [writer.constant(arg) for arg in rest]
    args += [f"{name}={writer.constant(value)}" for name, value in e.kwargs]
    return f"{grouped(text_of(x), ATOM)}.{e.fun.__name__}({', '.join(args)})", ATOM


def _reshape(writer: Writer, e: Expr, text_of: Callable[[Any], Text]) -> Text:
    x, shape = e.args
    if not x.shape:
        return f"np.reshape({text_of(x)[0]}, {shape_text(shape)})", ATOM
    inside = grouped(text_of(x), ATOM)
    if len(x.shape) == 1 and shape in ((*x.shape, 1), (1, *x.shape)):
        return f"{inside}[:, None]" if shape[1] == 1 else f"{inside}[None, :]", ATOM
    return f"{inside}.reshape({', '.join(map(str, shape)) or '()'})", ATOM


def _transpose(writer: Writer, e: Expr, text_of: Callable[[Any], Text]) -> Text:
    return f"{grouped(text_of(e.args[0]), ATOM)}.T", ATOM


def _broadcast(writer: Writer, e: Expr, text_of: Callable[[Any], Text]) -> Text:
    return f"np.broadcast_to({text_of(e.args[0])[0]}, {shape_text(e.args[1])})", ATOM


def _astype(writer: Writer, e: Expr, text_of: Callable[[Any], Text]) -> Text:
    x, dtype = text_of(e.args[0]), writer.constant(e.args[1])
    if not e.args[0].shape:
        return f"{dtype}({x[0]})", ATOM
    return f"{grouped(x, ATOM)}.astype({dtype})", ATOM


def _concatenate(writer: Writer, e: Expr, text_of: Callable[[Any], Text]) -> Text:
    axis, *parts = e.args
    inside = ", ".join(text_of(part)[0] for part in parts)
    return f"np.concatenate([{inside}], axis={writer.constant(axis)})", ATOM


def index_text(parts: Sequence[Any], text_of: Callable[[Any], Text]) -> str:
    """Return what stands between the brackets of an index."""
    texts = []
    for part in parts:
        if isinstance(part, slice) and all(
            bound is None or isinstance(bound, int) for bound in (part.start, part.stop, part.step)
        ):
            bounds = [
                "" if bound is None else str(bound) for bound in (part.start, part.stop, part.step)
            ]
            texts.append(":".join(bounds if part.step is not None else bounds[:2]))
        else:
            texts.append(text_of(part)[0])
    return ", ".join(texts)


def index_tuple_text(parts: Sequence[Any], text_of: Callable[[Any], Text]) -> str:
    """Return an index as a tuple, for a call, where a slice cannot be written with colons."""
    texts = [text_of(part)[0] for part in parts]
    return f"({', '.join(texts)},)" if texts else ""


def _getitem(writer: Writer, e: Expr, text_of: Callable[[Any], Text]) -> Text:
    x, *index = e.args
    parts = index[0] if len(index) == 1 and isinstance(index[0], tuple) else index
    inside = index_text(parts, text_of) or "()"
    return f"{grouped(text_of(x), ATOM)}[{inside}]", ATOM


WRITERS: dict[Any, Callable[[Writer, Expr, Callable[[Any], Text]], Text | None]] = {
    **dict.fromkeys(INFIX, _infix),
    **dict.fromkeys(COMPARISONS, _comparison),
    **dict.fromkeys(METHODS, _method),
    **dict.fromkeys(PYTHON_OPERATORS, _python_operation),
    np.power: _power,
    scale: _scale,
    reshape: _reshape,
    transpose: _transpose,
    broadcast: _broadcast,
    astype: _astype,
    concatenate: _concatenate,
    operator.getitem: _getitem,
    take.fun: _getitem,
}
