"""The programs that are compared: the same training, in float64, by each of them.

Each module has ``steps(params, x, t, lr)``, which returns ``run(n)``: take n more steps on this
batch; and ``train(task, lr, epochs, batch_size)``, which returns the trained parameters.
"""

from __future__ import annotations

from importlib import import_module
from importlib.util import find_spec
from types import ModuleType
from typing import NamedTuple


class Program(NamedTuple):
    """A program: its title in the table, the library that it needs, whether it can train alone."""

    title: str
    needs: str | None = None
    trains: bool = True


PROGRAMS = {
    "derived": Program("derived, as `fit` takes it"),
    "bare": Program("derived, the bare program", trains=False),
    "handwritten": Program("handwritten layers"),
    "plain": Program("plain autograd"),
    "pytorch": Program("PyTorch, eager", needs="torch"),
    "jax_step": Program("JAX, `jit` of a step", needs="jax"),
    "jax_scan": Program("JAX, one `lax.scan`", needs="jax"),
}


def installed() -> dict[str, Program]:
    """Return the programs whose library is there, by the names of their modules."""
    return {
        name: program
        for name, program in PROGRAMS.items()
        if program.needs is None or find_spec(program.needs)
    }


def missing() -> list[str]:
    """Return the libraries that are not there."""
    needed = {program.needs for program in PROGRAMS.values() if program.needs}
    return sorted(name for name in needed if not find_spec(name))


def module(name: str) -> ModuleType:
    """Import the module of a program, and with it its library."""
    return import_module(f"{__name__}.{name}")
