"""The changes of an expression that people mean: what stands there, and what may stand there.

In every form a letter is a hole. `a` is what stands there, `b` is something else in reach; in
`REWRITTEN` all are parts of what stands there. A cost tells how far a change is from that.
"""

from __future__ import annotations

import ast

Forms = tuple[str, ...]

_SUMS = [
    (f"a {times} b {plus} c", 1.2, (f"(a {plus} c) {times} b", f"a {times} (b {plus} c)"))
    for times in ("*", "/", "**")
    for plus in "+-"
]
_PRODUCTS = [
    (f"(a {plus} b) {times} c", 1.2, (f"a {times} c {plus} b",)) for times in "*/" for plus in "+-"
]
_RUNNING = [
    (f"np.{name}({how})", 1.2, (f"np.{name}({how.replace('a', 'a[::-1]', 1)})[::-1]",))
    for name in ("cumsum", "cumprod")
    for how in ("a", "a, 0", "a, axis=0")
]
REWRITTEN: list[tuple[str, float, Forms]] = [
    ("a + b", 1.0, ("a", "b")),
    ("a - b", 1.0, ("a", "-b", "b - a")),
    ("a * b", 1.0, ("a", "b")),
    ("a @ b", 1.0, ("a", "b", "b @ a")),
    ("a // b", 1.0, ("a", "b")),
    ("a % b", 1.0, ("a", "b")),
    ("a / b", 1.0, ("a",)),
    ("a ** b", 1.0, ("a",)),
    ("-a", 1.0, ("a",)),
    ("~a", 1.0, ("a",)),
    ("a.T", 1.0, ("a",)),
    ("a[b:c]", 1.05, ("a",)),
    ("a[b:]", 1.05, ("a",)),
    ("a[:b]", 1.05, ("a",)),
    ("a / b", 1.1, ("1 / b",)),
    ("np.where(a, b, c)", 1.1, ("np.where(a, c, b)",)),
    ("np.conj(a) * b", 1.1, ("a * np.conj(b)",)),
    ("a * np.conj(b)", 1.1, ("np.conj(a) * b",)),
    ("a[b - 1]", 1.1, ("a[b - 1] if b > 0 else np.zeros_like(a[b - 1])",)),
    (":-b", 1.1, ("b:",)),
    ("-b:", 1.1, (":b",)),
    (":b", 1.1, ("b:", "-b:")),
    ("b:", 1.1, (":b", ":-b")),
    *_RUNNING,
    *_SUMS,
    *_PRODUCTS,
    ("a * b * c", 1.2, ("a",)),
    ("np.take_along_axis(a, b, c)", 1.2, ("np.take_along_axis(a, np.argsort(b, c), c)",)),
    ("a[b]", 1.3, ("a", "a[np.argsort(b)]")),
    ("a / b", 1.3, ("a / np.sqrt(b)",)),
    ("a * b", 1.3, ("np.conj(a) * b", "a * np.conj(b)")),
    ("f(a) * b", 1.3, ("f(a * b)",)),
    ("f(a) / b", 1.3, ("f(a / b)",)),
    ("c * f(a) * b", 1.3, ("c * f(a * b)",)),
    ("c * f(a) / b", 1.3, ("c * f(a / b)",)),
    ("f(a * b)", 1.3, ("f(a) * b",)),
    ("f(a / b)", 1.3, ("f(a) / b",)),
    ("a - b * c", 1.3, tuple(f"a - (b * c).sum(axis={k}, keepdims=True)" for k in ("0", "-1"))),
    (
        "a * b",
        1.5,
        tuple(f"{p} * ({q} - (a * b).sum(axis=-1, keepdims=True))" for p, q in ("ab", "ba")),
    ),
]

DERIVATIVES = ("1 - b", "1 - b**2", "b * (1 - b)", "b > 0", "np.sign(b)")

# What may be made of an expression that has a part in its statement.
ALONE: list[tuple[str, float, Forms]] = [
    ("axes", 1.1, ("a.T",)),
    ("index", 1.1, ("a + 1", "a - 1")),
    ("value", 1.2, ("a**2", "1 - a")),
    ("counter", 1.2, ("0",)),
    ("rows", 1.3, ("a[::-1]",)),
    ("matrix", 1.3, ("a[::-1, ::-1]",)),
    ("name", 1.4, ("a - 1",)),
    ("array", 1.4, ("np.minimum(a, 0)", "np.maximum(a, 0)", "np.clip(a, -1, 1)")),
    ("square", 1.4, ("a + a.T",)),
    ("matrix", 1.4, ("a[..., ::-1]",)),
    ("term", 1.4, ("-a",)),
    ("array", 1.5, ("a > 0",)),
    ("whole", 1.5, ("a.sum(axis=0)", "a.sum(axis=1)")),
    ("term", 1.52, ("a * 2", "a * 0.5")),  # a name would say more
]

# And of one beside something else, by what that is for it.
BESIDE: list[tuple[str, str, float, Forms]] = [
    ("number index", "count", 1.0, ("b",)),
    ("number index", "count", 1.2, ("-b", "b + 1", "b - 1", "-b + 1", "-b - 1")),
    ("name", "alike", 1.2, ("b",)),
    ("counted", "count", 1.2, ("b",)),
    ("counted", "count", 1.4, ("-b", "b + 1", "b - 1", "-b + 1", "-b - 1")),
    ("all", "count", 1.3, ("np.arange(b)",)),
    ("number", "number", 1.3, ("b",)),
    ("number", "array", 1.35, ("b",)),
    ("shaped", "zero", 1.3, ("b",)),  # which may be an array that is carried on later
    ("zeros", "array", 1.4, ("b",)),
    ("name", "transpose", 1.4, ("b.T",)),
    ("made", "transpose", 1.5, ("b.T",)),
    ("made", "column", 1.5, ("np.diagflat(b) - np.outer(b, b)",)),  # of a softmax
    ("array", "other", 1.5, ("b",)),
    ("single", "factor", 1.5, ("a * b",)),
    ("term", "number", 1.5, ("a / b",)),
    ("term", "left", 1.5, ("a @ b",)),
    ("term", "left turned", 1.5, ("a @ b.T",)),
    ("term", "right", 1.5, ("b @ a",)),
    ("term", "right turned", 1.5, ("b.T @ a",)),
    ("name", "literal", 1.55, ("b",)),
    ("made", "alike", 1.55, ("b",)),
    ("sum", "factor", 1.55, ("a * b",)),  # of a sum rather a term than the whole
    ("term", "spread", 1.55, ("b * a",)),
    ("term", "of rows", 1.55, ("a * b[:, None]",)),
    ("term", "equal", 1.6, ("a + b", *(f"a * ({form})" for form in DERIVATIVES))),
    ("factor", "equal", 1.6, DERIVATIVES),
    ("term", "variable", 1.6, tuple(f"a * ({form})" for form in DERIVATIVES[:3])),
    ("whole", "equal", 1.6, ("a * (1 / (1 + np.exp(-b)))",)),  # the derivative of softplus
    ("whole", "count", 1.6, ("a / np.sqrt(b)",)),
    ("whole", "zero", 1.6, ("a + b",)),
    ("term", "variable", 1.65, ("a + b",)),
    ("term", "equal", 1.7, ("a - b",)),
    ("term", "fitting", 1.7, ("a / b",)),
    ("term", "of rows", 1.7, ("a / b[:, None]",)),
]

OPERATORS: dict[type[ast.AST], tuple[type[ast.AST], ...]] = {
    ast.Add: (ast.Sub, ast.Mult),
    ast.Sub: (ast.Add,),
    ast.Mult: (ast.Div, ast.MatMult),
    ast.Div: (ast.Mult,),
    ast.Lt: (ast.LtE, ast.Gt),
    ast.LtE: (ast.Lt, ast.GtE, ast.Gt),
    ast.Gt: (ast.GtE, ast.Lt),
    ast.GtE: (ast.Gt, ast.LtE, ast.Lt),
    ast.FloorDiv: (ast.Mod,),
    ast.Mod: (ast.FloorDiv,),
}

REDUCING = ("sum", "mean", "max", "median", "min")
FUNCTIONS: dict[str, Forms] = {
    **dict.fromkeys(REDUCING, ("sum", "mean", "max")),
    "sin": ("cos",),
    "cos": ("sin",),
    "maximum": ("minimum",),
    "minimum": ("maximum",),
    "argmax": ("argmin",),
    "argmin": ("argmax",),
    "fft": ("ifft",),
    "ifft": ("fft",),
    "fft2": ("ifft2",),
    "ifft2": ("fft2",),
    "rfft": ("irfft",),
    "irfft": ("rfft",),
}
