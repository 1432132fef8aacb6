"""The recorded forward pass as nodes: values, gradients, and both passes once more."""

import autograd.numpy as anp
import numpy as np
import pytest

from spiral_autograd.gradcheck.diagnosis.second_point import standing_at
from spiral_autograd.gradcheck.guard import Deadline, OutOfTime
from spiral_autograd.gradcheck.reference.graph import Graph, Site
from spiral_autograd.recording import record

RNG = np.random.default_rng(0)
X, W, U = RNG.normal(size=(4, 3)), RNG.normal(size=(3, 2)), RNG.normal(size=(4, 2))


def guarded(params, data):
    x, w = params
    h = anp.tanh(x @ w)
    scores = h - anp.max(h, axis=1, keepdims=True)
    p = anp.exp(scores) / anp.sum(anp.exp(scores), axis=1, keepdims=True)
    return anp.sum(anp.log(p + 1e-3) * data[0] + x[:, :2] ** 2)


@pytest.fixture
def graph():
    return Graph(record(guarded, [X, W], [U]))


def test_each_value_knows_its_users_and_its_gradient(graph):
    for node in graph.nodes:
        assert np.shape(node.adjoint) == np.shape(node.value)
        assert all(node in user.parents for user in node.users)
    assert graph.nodes[: len(graph.roots)] == graph.roots
    assert graph.end.adjoint == 1


def test_a_vjp_gives_what_autograd_adds_up_and_a_jvp_is_its_transpose(graph):
    for node in graph.nodes:
        parts = [
            part
            for user in node.users
            for parent, part in zip(user.parents, user.vjp(user.adjoint), strict=True)
            if parent is node
        ]
        if parts:
            np.testing.assert_allclose(sum(parts), node.adjoint, atol=1e-12)
        if node.parents:
            tangents = [RNG.normal(size=np.shape(parent.value)) for parent in node.parents]
            g = RNG.normal(size=np.shape(node.value))
            back = sum(np.sum(p * t) for p, t in zip(node.vjp(g), tangents, strict=True))
            assert np.sum(
                g * node.jvp(dict(zip(node.parents, tangents, strict=True)))
            ) == pytest.approx(back)


def test_a_replay_at_other_values_is_the_recording_there(graph):
    there = graph.replay({graph.recording.params[0]: 2 * X})
    expected = record(guarded, [2 * X, W], [U]).grads
    for ours, theirs in zip(graph.gradients(there), expected, strict=True):
        np.testing.assert_allclose(ours, theirs.value, rtol=1e-12)


def test_without_a_constant(graph):
    (log,) = (node for node in graph.nodes if node.name == "log")
    ideal = graph.without([(log.parents[0].call, 1)])
    shorter = Graph(record(lambda p, d: guarded(p, d), [X, W], [U]))
    assert not np.allclose(ideal.gradient(1), graph.gradient(1), rtol=1e-6)
    np.testing.assert_allclose(shorter.gradient(1), graph.gradient(1))
    zero = next(n for n in ideal.nodes if n.call is log.parents[0].call)
    np.testing.assert_array_equal(zero.value, zero.parents[0].value)


def test_what_flows_back_through_the_max_of_a_softmax_cancels(graph):
    assert [node.name in ("max", "amax") for node in graph.cancelled] == [True]


def test_a_change_at_one_edge_is_one_way_less(graph):
    dot = next(n for n in graph.nodes if n.name == "matmul")
    off = graph.rerun({Site(dot, graph.roots[0], (dot,)): lambda g, c: 0 * c})
    left = 2 * X
    left[:, 2] = 0
    np.testing.assert_allclose(off[graph.roots[0]], left)
    assert graph.roots[1] not in off


@pytest.mark.parametrize("through_max", [False, True])
def test_a_tangent_tells_what_a_change_does(graph, through_max):
    weights = RNG.normal(size=X.shape)
    moves = graph.tangents({0: weights}, through_max=through_max)
    for site in [*graph.edges(), *graph.wholes(), *graph.passages(lambda node: True)]:
        if site.argument in moves:
            part = graph.part(site, (site.result or site.argument).adjoint, through_max=through_max)
            off = graph.rerun({site: lambda g, c: 3 * c}, through_max=through_max)
            before, after = graph.roots[0].adjoint, off.get(graph.roots[0])
            moved = np.sum(weights * (after - before)) if after is not None else 0
            np.testing.assert_allclose(2 * np.sum(moves[site.argument] * part), moved, atol=1e-11)


def test_a_graph_stands_at_other_values_for_a_while():
    def forward(params, data):
        return anp.sum(anp.tanh(params[0] @ params[1]) * data[0])

    graph, other = Graph(record(forward, [X, W], [U])), Graph(record(forward, [X + 1, W], [2 * U]))
    halved = {site: lambda g, c: c / 2 for site in graph.edges() if site.result is graph.end}
    before = graph.rerun(halved)
    with standing_at(other, graph):
        there = graph.rerun(halved)
    for root, theirs in zip(graph.roots, other.roots, strict=True):
        np.testing.assert_allclose(there[root], theirs.adjoint / 2)
        np.testing.assert_array_equal(graph.rerun(halved)[root], before[root])


def test_arguments_come_to_a_rule_as_they_come_from_autograd():
    def product(params):
        x, w = params
        return anp.sum(anp.einsum("ij,jk,k->i", x, w, anp.array([0.5, 2.0])) ** 2)

    graph = Graph(record(product, [X, W]))
    node = next(n for n in graph.nodes if n.name == "einsum")
    parts = node.vjp(node.adjoint, node.args)
    for part, root in zip(parts, graph.roots, strict=True):
        np.testing.assert_allclose(part, root.adjoint)


def test_gradients_of_a_list_of_arrays_are_added_one_by_one():
    def gated(params, data):
        first, second = anp.split(params[0], 2)
        return anp.sum(first * second * data[0])

    graph = Graph(record(gated, [X], [U[:2, :1]]))
    other = record(gated, [X], [2 * U[:2, :1]])
    end = next(site for site in graph.edges() if site.result is graph.end)
    bars = graph.rerun({end: lambda g, c: 2 * c})
    np.testing.assert_allclose(bars[graph.roots[0]], other.grads[0].value)


def test_the_arrays_of_an_uneven_split_are_values_of_their_own():
    def parts(params, data):
        first, second = anp.split(params[0], [1])
        return anp.sum(first**3) + 2 * anp.sum(second**2)

    graph = Graph(record(parts, [X], []))
    assert not any(isinstance(node.value, list) for node in graph.nodes)
    pieces = [node for node in graph.nodes if node.name == "split"]
    assert [node.parents for node in pieces] == [[graph.roots[0]]] * 2
    back = sum(part for node in pieces for part in node.vjp(node.adjoint))
    np.testing.assert_allclose(back, graph.roots[0].adjoint)
    moves = graph.tangents({0: np.ones(X.shape)})
    np.testing.assert_allclose(moves[graph.end], np.sum(graph.roots[0].adjoint))


def test_what_moves_with_the_arguments_asks_the_deadline():
    graph = Graph(record(lambda params, data: anp.sum(params[0] ** 2), [X], []))
    with pytest.raises(OutOfTime):
        graph.tangents({0: X}, deadline=Deadline.after(-1.0))
