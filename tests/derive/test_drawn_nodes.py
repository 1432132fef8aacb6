"""docs/derivations.md: the graph of each node is that of the program, on the section's numbers."""

import os
import pathlib
import re

import autograd.numpy as anp
import numpy as np
import pytest

import spiral_autograd as sa

DOC = pathlib.Path(__file__).parents[2] / "docs" / "derivations.md"
BLOCK = r"(<!-- graph of {} -->\n```mermaid\n)(.*?)(```\n)"


# -------------------- each node, as one function --------------------


def add(x, y):
    return x + y


def multiply(x, y):
    return x * y


def repeat(x, n):
    return anp.repeat(x, n, axis=0)


def sum_over_rows(x):
    return anp.sum(x, axis=0, keepdims=True)


def matmul(x, W):
    return anp.dot(x, W)


def cross_entropy(y, t):
    return -anp.sum(t * anp.log(y)) / len(y)


def softmax_with_loss(s, t):
    return -anp.sum(t * (s - anp.log(anp.sum(anp.exp(s), axis=1, keepdims=True)))) / len(s)


def upstream(out, g):
    """What follows the node: of this loss the gradient with respect to out is g."""
    return anp.sum(out * g)


def node_of(function, *names):
    """Return a loss that is one node, and what follows it."""

    def loss(params, g):
        out = function(*(params[name] for name in names))
        return upstream(out, g)

    return loss


def branch(params):
    x = params["x"]
    return anp.sum(1 * x + 2 * x + 3 * x)


ONE_HOT = np.eye(3)[[0, 1]]
X, T = sa.load_data(rng=1984)
NODES = {
    "add": (
        node_of(add, "x", "y"),
        {"x": np.array([1.0, 2.0]), "y": np.array([3.0, 4.0])},
        np.array([5.0, 6.0]),
    ),
    "multiply": (
        node_of(multiply, "x", "y"),
        {"x": np.array([2.0]), "y": np.array([3.0])},
        np.array([10.0]),
    ),
    "branch": (branch, {"x": np.array([1.0])}),
    "repeat": (
        node_of(lambda x: repeat(x, 3), "x"),
        {"x": np.array([[7.0, 8.0]])},
        np.array([[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]]),
    ),
    "sum": (
        node_of(sum_over_rows, "x"),
        {"x": np.array([[1.0, 2.0], [3.0, 4.0]])},
        np.array([[5.0, 6.0]]),
    ),
    "matmul": (
        node_of(matmul, "x", "W"),
        {"x": np.array([[1.0, 2.0]]), "W": np.array([[1.0, 0.0, 2.0], [0.0, 3.0, 1.0]])},
        np.array([[1.0, 1.0, 10.0]]),
    ),
    "affine": (
        node_of(sa.affine, "x", "W", "b"),
        {"x": np.ones((4, 2)), "W": np.ones((2, 3)), "b": np.zeros(3)},
        np.ones((4, 3)),
    ),
    "sigmoid": (
        node_of(sa.sigmoid, "x"),
        {"x": np.array([0.0, -np.log(3.0)])},
        np.array([1.0, 1.0]),
    ),
    "softmax": (
        node_of(sa.softmax, "s"),
        {"s": np.log([[1.0, 1.0, 2.0]])},
        np.array([[4.0, 0.0, 0.0]]),
    ),
    "cross-entropy": (
        lambda params, t: cross_entropy(params["y"], t),
        {"y": np.array([[0.25, 0.25, 0.5], [0.125, 0.375, 0.5]])},
        ONE_HOT,
    ),
    "softmax with loss": (
        lambda params, t: softmax_with_loss(params["s"], t),
        {"s": np.log([[1.0, 1.0, 2.0], [1.0, 3.0, 4.0]])},
        ONE_HOT,
    ),
    "the network": (sa.loss, sa.init_params(2, 10, 3, rng=0), X, T),
}


@pytest.mark.parametrize("name", NODES)
def test_the_graph_of_a_section_is_that_of_the_program(name):
    text = sa.derive(*NODES[name]).to_mermaid()
    written = DOC.read_text(encoding="utf-8")
    if os.environ.get("WRITE_DOCS"):
        block = BLOCK.format(name)
        written = re.sub(block, lambda m: m[1] + text + m[3], written, flags=re.DOTALL)
        DOC.write_text(written, encoding="utf-8")
    (found,) = re.findall(BLOCK.format(name), written, re.DOTALL)
    assert found[1] == text, "WRITE_DOCS=1 python -m pytest tests/derive/test_drawn_nodes.py"


def test_every_node_of_the_page_is_drawn_in_its_own_section():
    sections = DOC.read_text(encoding="utf-8").split("\n## ")[2:]
    drawn = {
        name: section.partition("\n")[0].lower()
        for section in sections
        for name in re.findall(r"<!-- graph of (.*) -->", section)
    }
    assert drawn == {name: name for name in NODES}
