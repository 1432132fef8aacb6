"""Another NumPy for the user's functions, another `math`, another ``float``.

``out = np.zeros(n); out[i] = box`` cannot work: a plain array holds numbers. Nor can ``float(box)``
give a box: Python insists on a float. While a recording runs, something else (`stand_ins`) stands
wherever the user's code names these; then they are put back. NumPy itself stays as it is.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from operator import is_
from types import FunctionType

from ...recording import is_installed
from ...state import ABSENT, Held, Names
from ..subject.session import walk
from .stand_ins import BUILT_IN, standing_for


@contextmanager
def standing_in(roots: Sequence[object]) -> Iterator[None]:
    """Let stand-ins stand for NumPy and the like, wherever the code that objects reach holds it."""
    places = list(_places(roots))
    try:
        for held, instead in places:
            _hold(held, instead)
        yield
    finally:
        for held, _ in places:
            _hold(held, held.before)


def _hold(held: Held, parts: Sequence[object]) -> None:
    if held.kind.write is not None:
        with suppress(AttributeError):  # what can only be read: of a staticmethod, a partial
            held.kind.write(held.item, parts)


def _places(roots: Sequence[object]) -> Iterator[tuple[Held, list[object]]]:
    """Yield what holds something that has a stand-in, with all that it is to hold meanwhile."""
    libraries: set[int] = set()  # what their functions close over stays
    for item, held in walk(roots, with_code=True):
        if isinstance(item, FunctionType) and is_installed(item.__code__.co_filename):
            libraries.update(map(id, (item, *(item.__closure__ or ()))))
        for one in held if id(item) not in libraries else ():
            instead = list(map(standing_for, one.before))
            if isinstance(item, Names):  # Python's own functions are found after the globals
                pairs = zip(item.names, instead, strict=True)
                instead = [BUILT_IN.get(n, v) if v is ABSENT else v for n, v in pairs]
            if not all(map(is_, instead, one.before)):
                yield one, instead
