"""The programs that are compared: the same training, in float64, by each of them.

Each module has ``train(task, lr, epochs, batch_size)``, which returns the trained parameters.
"""

from __future__ import annotations

from importlib import import_module
from importlib.util import find_spec
from types import ModuleType
from typing import NamedTuple


class Program(NamedTuple):
    """A program: its title, who writes it so, and the library that it needs."""

    title: str
    written: str
    needs: str | None = None


# Written as a tutorial has it, or as a person who knows the library well has it for speed.
PROGRAMS = {
    "derived": Program("`fit`, derived from autograd", "here"),
    "handwritten": Program("handwritten layer objects", "as in the book"),
    "function": Program("one handwritten function", "for speed"),
    "plain": Program("plain autograd", "as a tutorial"),
    "pytorch": Program("PyTorch, eager modules", "as a tutorial", needs="torch"),
    "torch_func": Program("PyTorch, `torch.func` and foreach", "for speed", needs="torch"),
    "torch_compiled": Program("PyTorch, the same compiled", "for speed", needs="torch"),
    "jax_step": Program("JAX, `jit` of a step", "as a tutorial", needs="jax"),
    "jax_flat": Program("JAX, `jit`, one donated vector", "for speed", needs="jax"),
    "jax_scan": Program("JAX, one `lax.scan`", "for speed", needs="jax"),
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
