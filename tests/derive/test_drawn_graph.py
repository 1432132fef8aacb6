"""The computational graph: its nodes, what stands on its edges, and the two texts of it."""

# ruff: noqa: RUF001  # the sign of a multiplication

import re

import autograd
import autograd.numpy as anp
import numpy as np
import pytest

import spiral_autograd as sa
from spiral_autograd.derive.graph import FEW

X, T = sa.load_data(rng=1984)
PARAMS = sa.init_params(2, 10, 3, rng=0)
A, B, C = np.array([1.0, 2.0]), np.array([3.0, 4.0]), np.array([5.0, 6.0])


def labels(graph, kind="operation"):
    return [node.label for node in graph.nodes if node.kind == kind]


def ends(graph):
    label = {node.key: node.label for node in graph.nodes}
    return [(label[edge.start], label[edge.end]) for edge in graph.edges]


def square(x):
    return x * x


def _halved(x):
    return x / 2


def scaled(w, x):
    return _halved(w) * x


class Dense:
    def __call__(self, x, w):
        return self.forward(x, w)

    def forward(self, x, w):
        return anp.dot(x, w) + 1.0


# -------------------- the chapter's network --------------------


@pytest.fixture(scope="module")
def program():
    return sa.derive(sa.loss, PARAMS, X[::10], T[::10])


def test_the_chapters_network_is_drawn_in_the_chapters_nodes(program):
    graph = program.graph()
    assert labels(graph) == ["affine", "sigmoid", "affine", "cross_entropy"]
    assert labels(graph, "parameter") == ["W1", "b1", "W2", "b2"]
    assert labels(graph, "data") == ["x", "t"]
    assert ends(graph)[-4:] == [
        ("affine", "sigmoid"),
        ("sigmoid", "affine"),
        ("affine", "cross_entropy"),
        ("cross_entropy", "loss"),
    ]
    forward = {(edge.name, edge.shape) for edge in graph.edges}
    assert forward >= {("x", (30, 2)), ("W1", (2, 10)), ("hidden", (30, 10)), ("loss", ())}
    back = {edge.gradient_name for edge in graph.edges if edge.name not in ("x", "t")}
    assert back == {*("dW1", "db1", "dW2", "db2"), "daffine", "dhidden", "daffine_2", "dloss"}
    assert {edge.gradient_name for edge in graph.edges if edge.name in ("x", "t")} == {""}


def test_each_node_knows_where_it_is_and_how_many_operations_it_stands_for(program):
    nodes = {node.label: node for node in program.graph().nodes}
    file, line = nodes["cross_entropy"].source
    with open(file, encoding="utf-8") as text:
        assert text.readlines()[line - 1].startswith("def cross_entropy(")
    assert (nodes["affine"].operations, nodes["sigmoid"].operations) == (2, 5)
    full = [node for node in program.graph(full=True).nodes if node.kind == "operation"]
    assert {node.operations for node in full} == {1}
    merged = [node for node in program.graph().nodes if node.kind == "operation"]
    assert sum(node.operations for node in merged) == len(full) == 20


def test_what_is_small_stands_on_its_edge_in_numbers(program):
    _, grads = autograd.value_and_grad(sa.loss)(PARAMS, X[::10], T[::10])
    edges = {edge.name: edge for edge in program.graph().edges}
    assert edges["b2"].value == "[0, 0, 0]"
    said = [float(number) for number in edges["b2"].gradient.strip("[]").split(",")]
    np.testing.assert_allclose(said, grads["b2"], rtol=5e-3)
    assert (edges["W1"].value, edges["W1"].gradient) == ("", "")
    assert (edges["loss"].gradient_name, edges["loss"].gradient) == ("dloss", "1")


def test_each_call_of_a_function_in_a_loop_is_a_node_of_its_own():
    def deep(params, x):
        for W, b in params:
            x = sa.affine(x, W, b)
        return anp.sum(x)

    layers = [(np.eye(2), A), (np.eye(2), B), (np.eye(2), C)]
    graph = sa.derive(deep, layers, X[:3]).graph()
    assert labels(graph) == ["affine", "affine", "affine", "sum"]
    assert ends(graph)[-4:] == [
        *[("affine", "affine")] * 2,
        ("affine", "sum"),
        ("sum", "loss"),
    ]


def test_what_is_merged_depends_on_the_calls_and_on_no_list_of_names():
    def outer(w, x):
        return square(w) + x  # calls another, and works itself: neither hides the other

    layer = Dense()
    for loss, expected in (
        (lambda w, x: anp.sum(scaled(w, x)), ["scaled", "sum"]),
        (lambda w, x: anp.sum(outer(w, x)), ["square", "+", "sum"]),
        (lambda w, x: anp.sum(w * x), ["×", "sum"]),
        (lambda w, x: layer(x, w) ** 2, ["Dense.forward", "^ 2"]),
        (lambda w, x: anp.sum((lambda v: v - 1)(w) / x), ["- 1", "÷", "sum"]),
    ):
        found = labels(sa.derive(loss, A, B).graph())
        assert [label.removeprefix("Dense.") for label in found] == [
            label.removeprefix("Dense.") for label in expected
        ]


def test_a_function_that_is_left_and_entered_again_is_not_one_node():
    def parts(w):
        yield w * 2
        yield w * 3

    def loss(w):
        steps = parts(w)
        first = anp.exp(next(steps))
        return anp.sum(first + next(steps))

    graph = sa.derive(loss, A).graph()
    assert labels(graph) == ["× 2", "exp", "× 3", "+", "sum"]
    columns = graph.columns()
    assert all(columns[edge.start] < columns[edge.end] for edge in graph.edges)


# -------------------- a value that goes several ways --------------------


def test_each_way_of_a_value_has_its_own_part_of_the_gradient():
    graph = sa.derive(lambda w: anp.sum(3 * w) + anp.sum(square(w)), A).graph()
    ways = [edge for edge in graph.edges if edge.name == "w"]
    assert [edge.gradient_name for edge in ways] == ["part of dw"] * 2
    assert [edge.gradient for edge in ways] == ["[3, 3]", "[2, 4]"]


def test_the_parts_add_up_to_the_gradient():
    def loss(w, x):
        return anp.sum(w * x) + anp.sum(w[:1] ** 2) + w[1] * anp.sum(anp.tanh(w))

    graph = sa.derive(loss, A, B).graph(full=True)
    parts = [eval(edge.gradient) for edge in graph.edges if edge.name == "w"]
    assert len(parts) == 4
    np.testing.assert_allclose(np.sum(parts, axis=0), autograd.grad(loss)(A, B), rtol=5e-3)


def test_where_one_way_alone_bears_a_gradient_it_is_whole():
    graph = sa.derive(lambda w: anp.sum(w * sa.stop_gradient(anp.exp(w))), A).graph()
    assert [edge.gradient_name for edge in graph.edges if edge.name == "w"] == ["", "dw"]


# -------------------- the texts --------------------


def test_the_mermaid_text_of_a_small_program():
    text = sa.derive(lambda w, x: anp.sum(w * x), A, B).to_mermaid()
    assert text.partition("    classDef")[0] == (
        "flowchart LR\n"
        '    n0(["w"]):::parameter\n'
        '    n1(["x"]):::data\n'
        '    n2["×"]:::operation\n'
        '    n3["sum"]:::operation\n'
        '    n4(("loss")):::loss\n'
        '    n0 <-->|"→ w [1, 2]<br/>← dw [3, 4]"| n2\n'
        '    n1 -->|"→ x [3, 4]"| n2\n'
        '    n2 <-->|"→ [3, 8]<br/>← gradient [1, 1]"| n3\n'
        '    n3 <-->|"→ loss 11<br/>← dloss 1"| n4\n'
    )


def test_the_dot_text_has_an_edge_each_way(program):
    text = program.to_dot()
    arrows = re.findall(r"(n\d+) -> (n\d+) \[label=\"([^\"]*)\"(.*)\]", text)
    there = {(start, end) for start, end, _, look in arrows if not look}
    back = {(end, start) for start, end, _, look in arrows if "dashed" in look}
    assert there == {(edge.start, edge.end) for edge in program.graph().edges}
    assert there - back == {(e.start, e.end) for e in program.graph().edges if e.name in "xt"}
    assert '[label=" dhidden (30, 10)"' in text


def test_no_name_breaks_a_text():
    odd = {'a"b': A, "]-->n9": B, "x\ny;": C, "<b>": A, "名前": B}

    def loss(p):
        return anp.sum(sum(p.values())) + anp.einsum("i,i->", A, p["<b>"])

    program = sa.derive(loss, odd)
    for text in (program.to_mermaid(), program.to_dot()):
        for line in text.splitlines():
            assert line.replace(r"\"", "").count('"') % 2 == 0
            assert "-->n9" not in line
    assert "einsum i,i-#62;" in program.to_mermaid()


def test_a_large_graph_is_drawn_downwards_and_keeps_no_large_numbers(program):
    assert program.to_mermaid(full=True).startswith("flowchart TB\n")
    assert "rankdir=TB" in program.to_dot(full=True)
    texts = [(edge.value, edge.gradient) for edge in program.graph(full=True).edges]
    assert all(text.count(",") < FEW for pair in texts for text in pair)


def test_numbers_of_every_kind_are_written_short():
    program = sa.derive(lambda w, x: anp.sum(w * x), np.array([1e-9, np.pi]), np.array([7, 1e6]))
    edges = {edge.name: edge.value for edge in program.graph().edges}
    assert edges["w"] == "[1e-09, 3.14]"
    assert edges["x"] == "[7, 1e+06]"
