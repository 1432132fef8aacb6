"""autograd's forward and reverse pass as a plain graph, to be read, edited and run again.

autograd traces a function by running it on boxes. Here its whole reverse pass runs inside one
more trace, whose nodes only note what was called: function, arguments, value, source line. Each
leaf of the parameters and of the data is a root of that trace, so nothing of the containers
remains, and what is left is the list of NumPy calls that the gradient is made of.
"""

from __future__ import annotations

import inspect
import os
import sys
import sysconfig
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from types import CodeType, FrameType
from typing import Any, NamedTuple

import autograd
import autograd.numpy as anp
import numpy as np
from autograd.core import VJPNode, sparse_add, sparse_object_types
from autograd.extend import register_notrace, vspace
from autograd.tracer import Node, getval, isbox, new_box, notrace_primitives, toposort, trace_stack
from autograd.util import subvals

from . import boxes
from .boxes import RecordedBox, RecordingError, recorded_boxes, running
from .pytree import Pytree, leaves, tree_map

# -------------------- whose code it is --------------------

_NUMPY, _AUTOGRAD, _HERE = (
    os.path.dirname(os.path.abspath(file)) for file in (np.__file__, autograd.__file__, __file__)
)
_PACKAGES = os.path.dirname(_NUMPY)
_FOLDERS = _NUMPY, _AUTOGRAD, os.path.join(_PACKAGES, "scipy"), os.path.join(_HERE, "gradcheck")
_FILES = map(os.path.abspath, (__file__, boxes.__file__))
_LIBRARIES = (*(folder + os.sep for folder in _FOLDERS), *_FILES)
_OF_PYTHON = map(sysconfig.get_path, ("stdlib", "platstdlib", "purelib", "platlib"))
_INSTALLED = tuple(os.path.abspath(path) + os.sep for path in (*_OF_PYTHON, _PACKAGES, _HERE))


@lru_cache(maxsize=4096)
def is_installed(filename: str) -> bool:
    """Tell whether a file belongs to Python, to an installed package, or to this one."""
    path = os.path.abspath(filename)
    packages = {"site-packages", "dist-packages"}.intersection(path.split(os.sep))
    return bool(packages) or path.startswith(_INSTALLED) or filename.startswith("<frozen")


def _is_composite(fun: object) -> bool:
    """Tell whether a primitive's body is Python code of the user's, to be recorded in its place."""
    body = getattr(fun, "fun", fun)
    return inspect.isfunction(body) and not body.__code__.co_filename.startswith((*_LIBRARIES, "<"))


# -------------------- the graph --------------------


class Site(NamedTuple):
    """Where a function of the user's was called: the place, the instruction, and where in turn."""

    fun: None  # a call of the user's own function is no primitive
    source: tuple[str, int, str]
    instruction: tuple[CodeType, int]
    called_at: Site | None

    @classmethod
    def of(cls, frames: Sequence[FrameType], depth: int = 4) -> Site | None:
        """Return the site that the first of some frames is at; None where there is none."""
        if not frames or not depth:
            return None
        frame, code, at = frames[0], frames[0].f_code, frames[0].f_lasti
        source = code.co_filename, frame.f_lineno, code.co_name
        while at > 0 and not code.co_code[at]:  # Python may stand behind one that it has quickened
            at -= 2
        return cls(None, source, (code, at), cls.of(frames[1:], depth - 1))


class Call(Node):  # type: ignore[misc]
    """One call of a function: a node of the graph. Its `args` hold the calls they come from."""

    __slots__ = (
        "args called_at frames fun gradient_of instruction kwargs same_as source value".split()
    )

    fun: Any  # autograd's primitive; None for a root, a leaf of the parameters or of the data
    args: tuple[Any, ...]  # calls, or constants as they were passed
    kwargs: dict[str, Any]
    value: Any  # what the call returned while it was recorded
    source: tuple[str, int, str] | None  # file, line, function; None where autograd itself calls
    instruction: tuple[CodeType, int] | None  # in the bytecode: the same at each turn of a loop
    called_at: Site | None  # where the function of `source` was called
    frames: tuple[tuple[int, CodeType], ...]  # the calls it stands in, the innermost first
    gradient_of: Call | None  # the forward call whose vjp made this call
    same_as: Call  # itself; of a primitive whose body was recorded in its place, that body's last

    def __init__(
        self,
        value: object,
        fun: object,
        args: Sequence[Any],
        kwargs: dict[str, Any],
        parent_argnums: Sequence[int],
        parents: Sequence[Call],
    ) -> None:
        self.initialize_root(value)
        self.fun, self.kwargs = fun, kwargs
        sources = [parent.same_as for parent in parents]
        self.args = subvals(args, zip(parent_argnums, sources, strict=True))
        self.same_as = running.tape.body_of(self)
        if self.same_as is self:
            running.tape.append(self)

    def initialize_root(self, value: object) -> None:
        """Set up a root: a leaf of the parameters or of the data."""
        self.value, self.fun, self.args, self.kwargs = value, None, (), {}
        self.gradient_of = self.source = self.instruction = self.called_at = None
        self.same_as, self.frames = self, ()

    def __repr__(self) -> str:
        return f"<{name_of(self.fun) if self.fun else 'root'} {np.shape(self.value)}>"


def name_of(fun: object) -> str:
    """Return the name of a primitive."""
    return getattr(fun, "__name__", type(fun).__name__)


def parents_of(call: Call) -> list[Call]:
    """Return the calls whose values `call` takes, in the order of its arguments."""
    return [arg for arg in call.args if isinstance(arg, Call)]


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
    """autograd's own node, which also knows the call that it differentiates, if it is recorded."""

    __slots__ = ["call"]

    def __init__(self, value: Any, *call: Any) -> None:
        tape = running.tape
        self.call = recorded(value) if tape.has_graph else None
        tape.dtypes.add(getattr(value, "dtype", None))
        outer, tape.differentiated = tape.differentiated, self.call
        super().__init__(value, *call)
        tape.differentiated = outer


notrace_primitives[_Differentiated] = notrace_primitives[VJPNode]

# -------------------- the tape --------------------


class _Tape:
    """The calls of one recording, in order, and the names that the recorded code gave them."""

    def __init__(self, trace: int, bodies: Mapping[Any, Any], strict: bool, has_graph: bool):
        self.trace, self.bodies, self.strict, self.has_graph = trace, bodies, strict, has_graph
        self.above: int | None = None  # the trace of the differentiation, while the loss runs
        self.calls: list[Call] = []
        self.dtypes: set[Any] = set()
        self.names: dict[Call, str] = {}
        self.differentiated: Call | None = None  # of whose gradient the calls made now are parts
        self._frames: dict[FrameType, Call | None] = {}  # each frame seen, and its last call
        self._home: dict[Call, FrameType] = {}

    def append(self, call: Call) -> None:
        """Note a call, the line that made it, and the names its values have there."""
        if self.strict and call.fun in _SHAPED_BY_VALUES:
            raise RecordingError(
                f"the shape of what np.{name_of(call.fun)} returns depends on a value{self.here()}"
            )
        call.gradient_of = self.differentiated
        frames = [] if call.gradient_of is not None else list(_calling_frames())
        if (site := Site.of(frames)) is not None:
            _, call.source, call.instruction, call.called_at = site
            self._home[call] = frames[0]
            call.frames = tuple((id(frame), frame.f_code) for frame in frames)  # all are kept alive
            for outer in frames:
                self._read_names(outer)
                self._frames.setdefault(outer, None)
            self._frames[frames[0]] = call
        self.calls.append(call)

    def body_of(self, call: Call) -> Call:
        """Return the last call of a primitive's body, run on boxes; or the call, if it cannot."""
        body = self.bodies.get(call.fun)
        if body is None and not _is_composite(call.fun):
            return call
        args = [
            new_box(arg.value, self.trace, arg) if isinstance(arg, Call) else arg
            for arg in call.args
        ]
        top, outer = trace_stack.top, self.differentiated
        try:
            result = (body or call.fun.fun)(*args, **call.kwargs)
        except Exception:  # the user's code, which may raise anything where it cannot run on boxes
            trace_stack.top, self.differentiated = top, outer
            return call
        last = result._node.same_as if isbox(result) else call
        return last if vspace(last.value) == vspace(call.value) else call

    def here(self) -> str:
        """Return where the recorded code stands now, for a message: the reader's own line."""
        if self.differentiated is not None and self.differentiated.source is not None:
            file, line, _ = self.differentiated.source
            return f", in the gradient of {file}, line {line}"
        frames = sorted(_calling_frames(), key=lambda frame: is_installed(frame.f_code.co_filename))
        return f", in {frames[0].f_code.co_filename}, line {frames[0].f_lineno}" if frames else ""

    def finish(self) -> dict[Call, str]:
        """Return the name of each call: that of its variable, else of the function it ends."""
        for frame in self._frames:
            self._read_names(frame)
        for frame, last in self._frames.items():
            if last is not None and frame.f_code.co_name.isidentifier():
                self.names.setdefault(last, frame.f_code.co_name)
        self._frames.clear()
        self._home.clear()  # each frame holds those it was called from, and all that they name
        return self.names

    def _read_names(self, frame: FrameType) -> None:
        arguments = frame.f_code.co_varnames[: frame.f_code.co_argcount]
        for name, value in list(frame.f_locals.items()):
            call = recorded(value) if isbox(value) else None
            # An argument's name belongs to the caller's value, unless it was bound anew.
            if isinstance(call, Call) and (name not in arguments or self._home.get(call) is frame):
                self.names.setdefault(call, name)


def _calling_frames() -> Iterator[FrameType]:
    """Yield the frames of the recorded code, the innermost first."""
    frame: FrameType | None = sys._getframe(1)
    while frame is not None and frame.f_code is not record.__code__:
        if not frame.f_code.co_filename.startswith(_LIBRARIES):
            yield frame
        frame = frame.f_back


def recorded(value: Any) -> Any:
    """Return the call that a box stands for; the value itself where it stands for none."""
    inside = value
    while isbox(inside):
        if isinstance(inside._node, Call):
            return inside._node.same_as
        inside = inside._value
    return value


def constant(value: object) -> Any:
    """Return a box of a constant of the recording that runs; the value itself where none does."""
    tape = running.tape
    if tape is None or tape.above is None:
        return value
    # A box of the upper trace alone may be assigned into: vjps keep those of the lower one.
    box = new_box(value, tape.trace, Call.new_root(value)) if tape.has_graph else value
    return new_box(box, tape.above, _Differentiated.new_root())


# -------------------- recording --------------------


@dataclass(frozen=True, eq=False)
class Recording:
    """A loss and its gradient as a graph of calls."""

    params: Pytree  # of the roots that stand for the leaves of the parameters
    data: tuple[Pytree, ...]  # of roots; what is no array stands as it is
    loss: Any  # a call, or a constant
    grads: list[Any]  # for each leaf of the parameters a call; an array where there is none
    calls: list[Call]  # every call, in the order in which it was made
    adjoints: dict[Call, Any]  # from forward calls on the way to the loss to their whole gradients
    parts: list[tuple[Call, Call | None, Any]]  # a call, one whose value it takes, its part of that
    names: dict[Call, str]  # those that the recorded code has for the values
    dtypes: set[Any]  # of the values on the way to the loss


def record(
    loss: Callable[..., Any],
    params: Pytree,
    *data: Pytree,
    box_type: type[RecordedBox] = RecordedBox,
    trace_ints: bool = False,
    bodies: Mapping[Any, Any] | None = None,
    has_graph: bool = True,
) -> Recording:
    """Record ``loss(params, *data)`` and autograd's gradient with respect to `params`.

    Arrays and floats among the data are traced, with `trace_ints` also Python ints; anything else
    is a constant. `bodies` has functions to be recorded in place of primitives. A `box_type` whose
    ``strict`` is false may let a shape or a branch depend on values: such a recording holds for
    these values alone. Else a traced value that becomes a plain one, or that decides upon a shape,
    raises a RecordingError; a loss that is no scalar, TypeError. Without `has_graph` the gradients
    are found in less time, as arrays, and no call is noted.
    """
    top, outer_tape = trace_stack.top, running.tape
    try:
        with recorded_boxes(box_type), trace_stack.new_trace() as trace:
            tape = running.tape = _Tape(trace, bodies or {}, box_type.strict, has_graph)

            def root(leaf: object) -> Any:
                traced = isinstance(leaf, np.ndarray | np.generic | float)
                is_root = has_graph and (traced or (trace_ints and type(leaf) is int))
                return new_box(leaf, trace, Call.new_root(leaf)) if is_root else leaf

            param_boxes, data_boxes = tree_map(root, params), [tree_map(root, d) for d in data]
            value, grads, adjoints, parts = _reverse_pass(loss, param_boxes, data_boxes)
            params, data = tree_map(recorded, (param_boxes, tuple(data_boxes)))
            names = tape.finish()
            noted = tape.calls, adjoints, parts, names, tape.dtypes
            return Recording(params, data, value, grads, *noted)
    except BaseException:
        trace_stack.top = top  # an exception leaves autograd's traces open
        raise
    finally:
        running.tape = outer_tape


def _reverse_pass(
    loss: Callable[..., Any], params: Pytree, data: Sequence[Pytree]
) -> tuple[Any, list[Any], dict[Call, Any], list[tuple[Call, Any, Any]]]:
    """Return the loss, leaves' gradients, calls' adjoints and their parts, by autograd's rules.

    autograd's own backward pass keeps one root's gradient and adds gradients up in place; this
    one keeps every root's, and leaves each value as it was recorded.
    """
    roots: list[Any] = []
    with trace_stack.new_trace() as trace:
        # Another thread may have ended a trace meanwhile, and ours must be above the recording's.
        trace = running.tape.above = max(trace, running.tape.trace + 1)

        def root(leaf: object) -> Any:
            roots.append(_Differentiated.new_root())
            roots[-1].call = recorded(leaf)
            return new_box(leaf, trace, roots[-1])

        end = loss(tree_map(root, params), *data)
    depends = isbox(end) and end._trace == trace
    value = end._value if depends else end
    if anp.shape(value) != ():
        raise TypeError(f"loss must return a scalar, got the shape {anp.shape(value)}")
    gradients: dict[Any, Any] = {end._node: vspace(value).ones()} if depends else {}
    adjoints, parts = {}, []
    for node in toposort(end._node) if depends else ():
        if node.parents:
            gradient = gradients.pop(node)
            if node.call is not None:
                adjoints[node.call] = recorded(gradient)
            running.tape.differentiated = node.call
            for parent, part in zip(node.parents, node.vjp(gradient), strict=True):
                if node.call is not None:
                    parts.append((node.call, getattr(parent, "call", None), recorded(part)))
                gradients[parent] = _sum(gradients.get(parent), part)
    grads = [
        recorded(gradients[node]) if node in gradients else np.zeros_like(getval(box))
        for node, box in zip(roots, leaves(params), strict=True)
    ]
    return recorded(value), grads, adjoints, parts


def _sum(total: object, part: object) -> Any:
    if type(part) in sparse_object_types:
        part = sparse_add(vspace(part), None, part)
    return part if total is None else vspace(part).add(total, part)
