"""autograd's forward and reverse pass as a plain graph, to be read, edited and run again.

autograd traces a function by running it on boxes. Here its whole reverse pass runs inside one
more trace, whose nodes only note what was called: function, arguments, value, source line. Each
leaf of the parameters and of the data is a root of that trace, so nothing of the containers
remains, and what is left is the list of NumPy calls that the gradient is made of.
"""

from __future__ import annotations

import inspect
import itertools
import operator
import os
import sys
import sysconfig
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from types import CodeType, FrameType
from typing import Any, NamedTuple, NoReturn

import autograd
import autograd.numpy as anp
import numpy as np
from autograd.core import VJPNode, sparse_add, sparse_object_types
from autograd.extend import defvjp, primitive, register_notrace, vspace
from autograd.numpy.numpy_boxes import ArrayBox
from autograd.tracer import Box, Node, isbox, new_box, notrace_primitives, toposort, trace_stack
from autograd.util import subvals

from .pytree import Pytree, leaves, tree_map

# Held while what the process shares (warning filters, random streams, autograd's registry) is
# changed and put back.
process_lock = threading.RLock()


class RecordingError(TypeError):
    """A function cannot be recorded: what it computes depends on values, not on shapes alone."""


# -------------------- the graph --------------------


class Site(NamedTuple):
    """Where a function of the user's was called: the place, the instruction, and where in turn."""

    fun: None  # a call of the user's own function is no primitive
    source: tuple[str, int, str]
    instruction: tuple[CodeType, int]
    called_at: Site | None

    @classmethod
    def of(cls, frames: Sequence[FrameType], depth: int = 3) -> Site | None:
        """Return the site that the first of some frames is at; None where there is none."""
        if not frames or not depth:
            return None
        frame, code = frames[0], frames[0].f_code
        source = code.co_filename, frame.f_lineno, code.co_name
        return cls(None, source, (code, frame.f_lasti), cls.of(frames[1:], depth - 1))


class Call(Node):  # type: ignore[misc]
    """One call of a function: a node of the graph. Its `args` hold the calls they come from.

    Attributes
    ----------
    fun : callable or None
        autograd's primitive; None for a root, a leaf of the parameters or of the data.
    args : tuple
        The arguments: calls, or constants as they were passed.
    kwargs : dict
    value : object
        What the call returned while it was recorded.
    source : (str, int, str) or None
        File, line and function that made the call, where it was not autograd itself.
    instruction : (code, int) or None
        Where in that function's bytecode: the same at each turn of a loop.
    gradient_of : Call or None
        The forward call whose vjp made this call; None in the forward pass.
    same_as : Call
        The call itself; of a primitive whose body was recorded in its place, that body's last.
    """

    __slots__ = [
        "args",
        "called_at",
        "fun",
        "gradient_of",
        "instruction",
        "kwargs",
        "same_as",
        "source",
        "value",
    ]

    source: tuple[str, int, str] | None
    instruction: tuple[CodeType, int] | None
    called_at: Site | None
    gradient_of: Call | None
    same_as: Call

    def __init__(
        self,
        value: Any,
        fun: Any,
        args: Sequence[Any],
        kwargs: dict[str, Any],
        parent_argnums: Sequence[int],
        parents: Sequence[Call],
    ) -> None:
        sources = [parent.same_as for parent in parents]
        self.value, self.fun, self.kwargs = value, fun, kwargs
        self.args = subvals(args, zip(parent_argnums, sources, strict=True))
        self.gradient_of = self.source = self.instruction = self.called_at = None
        self.same_as = _active.tape.body_of(self) if _is_composite(fun) else self
        if self.same_as is self:
            _active.tape.append(self)

    def initialize_root(self, value: Any) -> None:
        """Set up a root: a leaf of the parameters or of the data."""
        self.value, self.fun, self.args, self.kwargs = value, None, (), {}
        self.gradient_of = self.source = self.instruction = self.called_at = None
        self.same_as = self

    def __repr__(self) -> str:
        return f"<{name_of(self.fun) if self.fun else 'root'} {np.shape(self.value)}>"


def name_of(fun: Any) -> str:
    """Return the name of a primitive."""
    return getattr(fun, "__name__", type(fun).__name__)


def parents_of(call: Call) -> list[Call]:
    """Return the calls whose values `call` takes, in the order of its arguments."""
    return [arg for arg in call.args if isinstance(arg, Call)]


_PACKAGES = os.path.dirname(os.path.dirname(os.path.abspath(np.__file__)))
_LIBRARIES = (
    os.path.dirname(os.path.abspath(autograd.__file__)) + os.sep,
    os.path.dirname(os.path.abspath(np.__file__)) + os.sep,
    os.path.join(_PACKAGES, "scipy") + os.sep,
    os.path.abspath(__file__),
    os.path.join(os.path.dirname(os.path.abspath(__file__)), "gradcheck") + os.sep,
    "<",
)


_PATHS = sysconfig.get_paths()
_INSTALLED = tuple(
    os.path.abspath(path) + os.sep
    for path in {_PATHS[name] for name in ("stdlib", "platstdlib", "purelib", "platlib")}
    | {_PACKAGES, os.path.dirname(__file__)}
)


def is_installed(filename: str) -> bool:
    """Tell whether a file belongs to Python, to an installed package, or to this one."""
    return os.path.abspath(filename).startswith(_INSTALLED)


def _is_composite(fun: Any) -> bool:
    """Tell whether a primitive's body is Python code of the user's, to be recorded in its place."""
    body = getattr(fun, "fun", fun)
    return inspect.isfunction(body) and not body.__code__.co_filename.startswith(_LIBRARIES)


# What these return depends on shapes alone: a constant of the recording.
for function in (anp.size, anp.isscalar, anp.zeros_like, anp.ones_like):
    register_notrace(Call, function)

# The shape of what these return depends on values, so no list of calls can stand for them.
_SHAPED_BY_VALUES = {
    getattr(anp, name)
    for name in (
        "arange argwhere bincount compress empty extract eye flatnonzero histogram identity "
        "intersect1d linspace nonzero ones setdiff1d trim_zeros union1d unique zeros"
    ).split()
}


class _Differentiated(VJPNode):  # type: ignore[misc]
    """autograd's own node, which also knows the recorded call that it differentiates."""

    __slots__ = ["call"]

    def __init__(self, value: Any, *call: Any) -> None:
        self.call = value._node.same_as
        with _active.tape.differentiating(self.call):
            super().__init__(value, *call)


notrace_primitives[_Differentiated] = notrace_primitives[VJPNode]

# -------------------- the tape --------------------


class _Active(threading.local):
    tape: _Tape | None = None


_active: Any = _Active()


class _Tape:
    """The calls of one recording, in order, and the names that the recorded code gave them."""

    def __init__(self, trace: int, *, strict: bool) -> None:
        self.trace, self.strict = trace, strict
        self.above: int | None = None  # the trace of the differentiation, while the loss runs
        self.calls: list[Call] = []
        self.names: dict[Call, str] = {}
        self._differentiated: Call | None = None
        self._frames: dict[FrameType, Call | None] = {}
        self._home: dict[Call, FrameType] = {}

    def append(self, call: Call) -> None:
        """Note a call, the line that made it, and the names its values have there."""
        if self.strict and call.fun in _SHAPED_BY_VALUES:
            raise RecordingError(
                f"the shape of what np.{name_of(call.fun)} returns depends on a value{self.here()}"
            )
        call.gradient_of = self._differentiated
        if call.gradient_of is None and (frames := list(self._calling_frames())):
            frame = frames[0]
            call.source = frame.f_code.co_filename, frame.f_lineno, frame.f_code.co_name
            call.instruction = frame.f_code, frame.f_lasti
            call.called_at = Site.of(frames[1:])
            self._home[call] = frame
            for outer in frames:
                self._read_names(outer)
                self._frames.setdefault(outer, None)
            self._frames[frame] = call
        self.calls.append(call)

    def body_of(self, call: Call) -> Call:
        """Return the last call of a primitive's body, run on boxes; or the call, if it cannot."""
        boxes = [
            new_box(arg.value, self.trace, arg) if isinstance(arg, Call) else arg
            for arg in call.args
        ]
        top = trace_stack.top
        try:
            result = call.fun.fun(*boxes, **call.kwargs)
        except Exception:  # the user's code, which may raise anything where it cannot run on boxes
            trace_stack.top = top
            return call
        return result._node.same_as if isbox(result) else call

    @contextmanager
    def differentiating(self, call: Call) -> Iterator[None]:
        """Note the calls made meanwhile as parts of the gradient of `call`."""
        outer, self._differentiated = self._differentiated, call
        try:
            yield
        finally:
            self._differentiated = outer

    def here(self) -> str:
        """Return where the recorded code stands now, for a message: the reader's own line."""
        frames = list(self._calling_frames())
        own = (frame for frame in frames if not is_installed(frame.f_code.co_filename))
        for frame in itertools.chain(own, frames):
            return f", in {frame.f_code.co_filename}, line {frame.f_lineno}"
        return ""

    def finish(self) -> dict[Call, str]:
        """Return the name of each call: that of its variable, else of the function it ends."""
        for frame in self._frames:
            self._read_names(frame)
        for frame, last in self._frames.items():
            if last is not None and frame.f_code.co_name.isidentifier():
                self.names.setdefault(last, frame.f_code.co_name)
        self._frames.clear()
        return self.names

    def _calling_frames(self) -> Iterator[FrameType]:
        frame: FrameType | None = sys._getframe(1)
        while frame is not None and frame.f_code is not record.__code__:
            if not frame.f_code.co_filename.startswith(_LIBRARIES[:-1]):
                yield frame
            frame = frame.f_back

    def _read_names(self, frame: FrameType) -> None:
        arguments = frame.f_code.co_varnames[: frame.f_code.co_argcount]
        for name, value in list(frame.f_locals.items()):
            call = _call_of(value)
            # An argument's name belongs to the caller's value, unless it was bound anew.
            if call is not None and (name not in arguments or self._home.get(call) is frame):
                self.names.setdefault(call, name)


def _call_of(value: Any) -> Call | None:
    while isbox(value):
        if isinstance(value._node, Call):
            return value._node.same_as
        value = value._value
    return None


# -------------------- the boxes --------------------


class RecordedBox(ArrayBox):  # type: ignore[misc]
    """A box that stays in the recording: it refuses to become a plain Python or NumPy value."""

    __slots__: list[str] = []

    strict = True

    def _refuse(self, what: str) -> NoReturn:
        raise RecordingError(
            f"a value that depends on the parameters or the data became {what}"
            f"{_active.tape.here() if _active.tape else ''}; a recording holds for other values too"
        )

    def __bool__(self) -> bool:
        self._refuse("a Python bool (a branch, assert, while, and, or, not)")

    def __float__(self) -> float:
        self._refuse("a Python float")

    def __int__(self) -> int:
        self._refuse("a Python int")

    def __index__(self) -> int:
        self._refuse("a Python index or a length")

    def __complex__(self) -> complex:
        self._refuse("a Python complex")

    def __array__(self, *args: Any, **kwargs: Any) -> Any:
        self._refuse("a plain NumPy array")

    def item(self, *args: Any) -> Any:
        """Refuse."""
        self._refuse("a Python number")

    tolist = item

    def __getitem__(self, index: Any) -> Any:
        parts = index if isinstance(index, tuple) else (index,)
        if not any(isbox(part) for part in parts):
            return ArrayBox.__getitem__(self, index)
        return take(self, *parts)


@primitive  # type: ignore[untyped-decorator]
def take(A: Any, *index: Any) -> Any:
    """Return ``A[index]`` where a part of the index is itself traced."""
    tape = _active.tape
    if tape is not None and tape.strict and any(np.asarray(i).dtype == bool for i in index):
        raise RecordingError(
            f"the shape of what a boolean mask selects depends on values{tape.here()}"
        )
    return A[index]


@primitive  # type: ignore[untyped-decorator]
def add_at(g: Any, shape: tuple[int, ...], *index: Any) -> Any:
    """Return zeros with `g` added at ``index``: the vjp of `take`."""
    out = np.zeros(shape, dtype=g.dtype)
    np.add.at(out, index, g)
    return out


defvjp(take, lambda ans, A, *index: lambda g: add_at(g, anp.shape(A), *index))
defvjp(add_at, lambda ans, g, shape, *index: lambda h: take(h, *index))


class RecordedNumber(RecordedBox):
    """A Python number in a recording: with other Python numbers it does Python's arithmetic.

    So a product of Python numbers gives way to an array's dtype, as it does without the recording.
    """

    __slots__: list[str] = []


def _python_operator(name: str) -> Callable[..., Any]:
    apply = primitive(getattr(operator, name.strip("_")))
    of_arrays = getattr(ArrayBox, name, None)

    def method(self: Any, *other: Any) -> Any:
        if all(type(number) in (RecordedNumber, int, float, bool) for number in other):
            return apply(self, *other)
        return of_arrays(self, *other) if of_arrays else NotImplemented

    return method


def _reflected(name: str) -> Callable[..., Any]:
    apply = primitive(getattr(operator, name.strip("_")))
    of_arrays = getattr(ArrayBox, f"__r{name.strip('_')}__", None)

    def method(self: Any, other: Any) -> Any:
        if type(other) in (RecordedNumber, int, float, bool):
            return apply(other, self)
        return of_arrays(self, other) if of_arrays else NotImplemented

    return method


for name in ("add", "sub", "mul", "truediv", "floordiv", "mod", "pow"):
    setattr(RecordedNumber, f"__{name}__", _python_operator(f"__{name}__"))
    setattr(RecordedNumber, f"__r{name}__", _reflected(f"__{name}__"))
for name in ("neg", "pos", "abs"):
    setattr(RecordedNumber, f"__{name}__", _python_operator(f"__{name}__"))

for box_of_ours in (RecordedBox, RecordedNumber):
    Box.types.add(box_of_ours)
    Box.type_mappings[box_of_ours] = RecordedBox
_BOXED_TYPES = [type_ for type_, box in Box.type_mappings.items() if box is ArrayBox]
_BOXED_TYPES.remove(ArrayBox)
_BOXED_TYPES = list(dict.fromkeys([*_BOXED_TYPES, np.bool_, *np.sctypeDict.values()]))


@contextmanager
def _recorded_boxes(box_type: type[RecordedBox]) -> Iterator[None]:
    """Let autograd box arrays and scalars of all types in boxes that stay in the recording.

    autograd's registry serves all threads; those that record nothing get the boxes they had.
    """
    mappings = Box.type_mappings
    boxed_types = [*_BOXED_TYPES, int] if box_type.strict else _BOXED_TYPES

    def box(value: Any, trace: int, node: Any) -> Any:
        tape = _active.tape
        if tape is None:
            return before[type(value)](value, trace, node)  # a KeyError is autograd's own refusal
        if tape.strict and trace == tape.trace and type(value) in (int, float):
            return RecordedNumber(value, trace, node)
        return box_type(value, trace, node)

    with process_lock:
        before = {type_: mappings[type_] for type_ in boxed_types if type_ in mappings}
        mappings.update(dict.fromkeys(boxed_types, box))
        try:
            yield
        finally:
            mappings.update(before)
            for type_ in boxed_types:
                if type_ not in before:
                    del mappings[type_]


def constant(value: Any) -> Any:
    """Return a box of a constant of the recording that runs; the value itself where none does."""
    tape = _active.tape
    if tape is None or tape.above is None:
        return value
    # A box of the upper trace alone may be assigned into: vjps keep those of the lower one.
    box = new_box(value, tape.trace, Call.new_root(value))
    return new_box(box, tape.above, _Differentiated.new_root())


# -------------------- recording --------------------


@dataclass(frozen=True, eq=False)
class Recording:
    """A loss and its gradient as a graph of calls.

    Attributes
    ----------
    params : pytree of Call
        The roots that stand for the leaves of the parameters.
    data : tuple of pytrees of Call
        The roots that stand for the arrays of the data; what is no array stands as it is.
    loss : Call or constant
    grads : list of Call or array
        The gradient for each leaf of the parameters; a constant array where it depends on nothing.
    calls : list of Call
        Every call, in the order in which it was made.
    adjoints : dict
        From each forward call on the way to the loss to the call of its whole gradient.
    names : dict
        From calls to the names that the recorded code has for them.
    """

    params: Pytree
    data: tuple[Pytree, ...]
    loss: Any
    grads: list[Any]
    calls: list[Call]
    adjoints: dict[Call, Any]
    names: dict[Call, str]


def record(
    loss: Callable[..., Any],
    params: Pytree,
    *data: Pytree,
    box_type: type[RecordedBox] = RecordedBox,
    trace_ints: bool = False,
) -> Recording:
    """Record ``loss(params, *data)`` and autograd's gradient with respect to `params`.

    Parameters
    ----------
    loss : callable
        Returns a scalar; anything that autograd can differentiate.
    params : pytree of float arrays
    *data : pytrees
        Arrays and floats in them are traced; anything else is a constant of the recording.
    box_type : type, default RecordedBox
        The box of the traced values. A type whose ``strict`` is false may let a shape or a branch
        depend on values: its recording holds for these values alone.
    trace_ints : bool, default False
        Whether Python ints in the data are traced as well.

    Returns
    -------
    Recording

    Raises
    ------
    RecordingError
        If a traced value becomes a plain one, or a shape depends on a value.
    TypeError
        If the loss is not a scalar.

    Examples
    --------
    >>> recording = record(lambda w: anp.sum(w * w), np.array([1.0, 2.0]))
    >>> recording.calls[:2]
    [<multiply (2,)>, <sum ()>]
    >>> recording.grads[0].value
    array([2., 4.])
    """
    top = trace_stack.top
    outer_tape = _active.tape
    try:
        with _recorded_boxes(box_type), trace_stack.new_trace() as trace:
            tape = _active.tape = _Tape(trace, strict=box_type.strict)

            def root(leaf: Any) -> Any:
                traced = isinstance(leaf, np.ndarray | np.generic | float)
                if not (traced or (trace_ints and type(leaf) is int)):
                    return leaf
                return new_box(leaf, trace, Call.new_root(leaf))

            param_boxes, data_boxes = tree_map(root, params), [tree_map(root, d) for d in data]
            value, grads, adjoints = _reverse_pass(loss, param_boxes, data_boxes)
            return Recording(
                params=tree_map(_unboxed, param_boxes),
                data=tuple(tree_map(_unboxed, boxes) for boxes in data_boxes),
                loss=_unboxed(value),
                grads=[_unboxed(grad) for grad in grads],
                calls=tape.calls,
                adjoints={call: _unboxed(adjoint) for call, adjoint in adjoints.items()},
                names=tape.finish(),
            )
    except BaseException:
        trace_stack.top = top  # an exception leaves autograd's traces open
        raise
    finally:
        _active.tape = outer_tape


def _unboxed(value: Any) -> Any:
    return value._node.same_as if isbox(value) else value


def _reverse_pass(
    loss: Callable[..., Any], params: Pytree, data: Sequence[Pytree]
) -> tuple[Any, list[Any], dict[Call, Any]]:
    """Return the loss, the gradient for each leaf and each call's adjoint, by autograd's rules.

    autograd's own backward pass keeps one root's gradient and adds gradients up in place; this
    one keeps every root's, and leaves each value as it was recorded.
    """
    roots: list[Any] = []
    with trace_stack.new_trace() as trace:
        # Another thread may have ended a trace meanwhile, and ours must be above the recording's.
        trace = _active.tape.above = max(trace, _active.tape.trace + 1)

        def root(leaf: Any) -> Any:
            roots.append(_Differentiated.new_root())
            return new_box(leaf, trace, roots[-1])

        end = loss(tree_map(root, params), *data)
    if not (isbox(end) and end._trace == trace):
        _require_scalar(end)
        return end, [np.zeros_like(box._value) for box in leaves(params)], {}
    _require_scalar(end._value)
    gradients: dict[Any, Any] = {end._node: vspace(end._value).ones()}
    adjoints = {}
    for node in toposort(end._node):
        gradient = gradients[node]
        if node.parents:
            adjoints[node.call] = gradient
            with _active.tape.differentiating(node.call):
                for parent, part in zip(node.parents, node.vjp(gradient), strict=True):
                    gradients[parent] = _sum(gradients.get(parent), part)
    grads = [
        gradients[node] if node in gradients else np.zeros_like(box._value)
        for node, box in zip(roots, leaves(params), strict=True)
    ]
    return end._value, grads, adjoints


def _require_scalar(loss: Any) -> None:
    if anp.shape(loss) != ():
        raise TypeError(f"loss must return a scalar, got the shape {anp.shape(loss)}")


def _sum(total: Any, part: Any) -> Any:
    if type(part) in sparse_object_types:
        part = sparse_add(vspace(part), None, part)
    return part if total is None else vspace(part).add(total, part)
