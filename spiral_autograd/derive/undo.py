"""Putting back what a loss changes while it is recorded."""

from __future__ import annotations

import random
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

from .expressions import static_key

MISSING: Any = object()


def put_entry_back(table: dict[str, Any], name: str, value: Any) -> bool:
    """Give a name in a namespace its value again, or none; tell whether it had another."""
    if table.get(name, MISSING) is value:
        return False
    if value is MISSING:
        del table[name]
    else:
        table[name] = value
    return True


def put_attribute_back(owner: Any, name: str, value: Any) -> bool:
    """Give an attribute its value again, or none; tell whether it had another."""
    read = vars(owner).get if isinstance(owner, type) else partial(getattr, owner)
    if read(name, MISSING) is value:
        return False
    if value is MISSING:
        delattr(owner, name)
    else:
        setattr(owner, name, value)
    return True


def stream_undo(stream: Any) -> Callable[[], bool]:
    """Return a function that puts a random stream back, and tells whether it had moved."""
    read: Callable[[], Any]
    write: Callable[[Any], Any]
    if isinstance(stream, random.Random):
        read, write = stream.getstate, lambda state: stream.setstate(state)
    elif isinstance(stream, np.random.RandomState):
        read, write = (lambda: stream.get_state(legacy=False)), stream.set_state
    else:
        bits = stream.bit_generator
        read, write = (lambda: bits.state), (lambda state: setattr(bits, "state", state))
    before = read()

    def undo() -> bool:
        if static_key(read()) == static_key(before):
            return False
        write(before)
        return True

    return undo
