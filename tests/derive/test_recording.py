import gc
import threading
import weakref

import autograd
import autograd.numpy as anp
import numpy as np
import pytest
from autograd.extend import Box, defvjp, primitive
from autograd.tracer import trace_stack
from witness import frozen, random_params

import spiral_autograd as sa
from spiral_autograd import boxes
from spiral_autograd import recording as module
from spiral_autograd.boxes import RecordingError, add_at, take
from spiral_autograd.pytree import leaves
from spiral_autograd.recording import Call, name_of, parents_of, record

RNG = np.random.default_rng(5)
X, Y = RNG.standard_normal((6, 4)), RNG.standard_normal((6, 3))
T = np.array([0, 2, 1, 1, 0, 2])
PARAMS = {"W": RNG.standard_normal((4, 3)), "b": RNG.standard_normal(3)}


def squares(p, x, y):
    scores = anp.dot(x, p["W"]) + p["b"]
    return anp.sum((scores - y) ** 2)


def names(calls):
    return [name_of(call.fun) for call in calls]


# -------------------- the graph --------------------


def test_the_calls_of_the_forward_pass_with_their_arguments():
    recording = record(squares, PARAMS, X, Y)
    forward = [call for call in recording.calls if call.gradient_of is None]
    assert names(forward) == ["dot", "add", "subtract", "power", "sum"]
    dot, add, subtract, power, total = forward
    assert dot.args[0] is recording.data[0]
    assert dot.args[1] is recording.params["W"]
    assert parents_of(dot) == [recording.data[0], recording.params["W"]]
    assert parents_of(add) == [dot, recording.params["b"]]
    assert parents_of(subtract) == [add, recording.data[1]]
    assert (parents_of(power), power.args[1]) == ([subtract], 2)
    assert parents_of(total) == [power]
    assert recording.loss is total


def test_without_a_graph_the_gradients_are_the_same_and_no_call_is_noted():
    wanted = record(squares, PARAMS, X, Y)
    found = record(squares, PARAMS, X, Y, has_graph=False)
    assert (found.calls, found.adjoints, found.parts, found.names) == ([], {}, [], {})
    assert found.dtypes == wanted.dtypes == {np.dtype(float)}
    for ours, theirs in zip(found.grads, wanted.grads, strict=True):
        np.testing.assert_array_equal(ours, theirs.value)


def test_an_instruction_is_the_same_at_each_turn_also_where_python_has_quickened_it():
    def loss(p, x):
        return sum(p["b"][t % 3] * x[t % 3] for t in range(60))

    recording = record(loss, PARAMS, RNG.standard_normal(3))
    forward = [c for c in recording.calls if c.gradient_of is None]
    for name in ("__getitem__", "multiply"):
        found = [call.instruction for call in forward if name_of(call.fun) == name]
        assert len(found) >= 60
        assert len(set(found)) == (2 if name == "__getitem__" else 1)


def test_the_values_are_those_of_the_calls():
    recording = record(squares, PARAMS, X, Y)
    assert len(recording.calls) == 9
    for call in recording.calls:
        args = [arg.value if isinstance(arg, Call) else arg for arg in call.args]
        np.testing.assert_array_equal(call.fun(*args, **call.kwargs), call.value)


def test_the_loss_and_the_gradient_are_autograds_to_the_bit():
    recording = record(squares, PARAMS, X, Y)
    value, grads = autograd.value_and_grad(squares)(PARAMS, X, Y)
    assert recording.loss.value == value
    for call, grad in zip(recording.grads, grads.values(), strict=True):
        np.testing.assert_array_equal(call.value, grad)


def test_each_call_knows_the_line_and_the_function_that_made_it():
    recording = record(squares, PARAMS, X, Y)
    dot, add, _, power, _ = recording.calls[:5]
    first = squares.__code__.co_firstlineno
    assert dot.source == add.source == (__file__, first + 1, "squares")
    assert power.source == (__file__, first + 2, "squares")


def test_a_call_of_the_backward_pass_knows_whose_gradient_it_is():
    recording = record(squares, PARAMS, X, Y)
    forward = [call for call in recording.calls if call.gradient_of is None]
    backward = [call for call in recording.calls if call.gradient_of is not None]
    dot, add, _, power, _ = forward
    assert [call.gradient_of for call in backward] == [power, power, add, dot]
    assert names(backward) == ["power", "multiply", "sum", "dot_adjoint_1"]
    assert all(call.source is None for call in backward)
    assert recording.grads == [backward[3], backward[2]]


def test_each_adjoint_is_autograds_gradient_of_its_node():
    recording = record(squares, PARAMS, X, Y)
    dot, add, subtract, power, total = recording.calls[:5]
    downstream = {
        dot: lambda value: anp.sum((value + PARAMS["b"] - Y) ** 2),
        add: lambda value: anp.sum((value - Y) ** 2),
        subtract: lambda value: anp.sum(value**2),
        power: anp.sum,
        total: lambda value: 1.0 * value,
    }
    assert set(recording.adjoints) == set(downstream)
    for call, rest in downstream.items():
        adjoint = recording.adjoints[call]
        value = adjoint.value if isinstance(adjoint, Call) else adjoint
        np.testing.assert_array_equal(value, autograd.grad(rest)(call.value))


def test_values_have_the_names_of_their_variables_else_of_the_function_they_end():
    def loss(w, x):
        scaled = x * w
        return sa.sigmoid(scaled).sum()

    recording = record(loss, np.ones(3), np.ones(3))
    found = {name_of(call.fun): name for call, name in recording.names.items() if call.fun}
    assert found["multiply"] == "scaled"
    assert found["true_divide" if "true_divide" in found else "divide"] == "sigmoid"


def test_a_primitive_of_the_users_is_recorded_as_its_body_with_its_own_gradient():
    recording = record(lambda w: anp.sum(sa.sigmoid(w)), np.array([0.5, -1.0]))
    forward = names(call for call in recording.calls if call.gradient_of is None)
    assert "sigmoid" not in forward
    assert {"negative", "minimum", "exp", "add"} < set(forward)
    quotient = recording.calls[forward.index("sum") - 1]
    assert quotient in recording.adjoints  # the gradient is that of the primitive, at its last call
    np.testing.assert_array_equal(recording.grads[0].value, quotient.value * (1.0 - quotient.value))


def test_a_stopped_gradient_leaves_no_call():
    recording = record(lambda w: anp.sum(w * sa.stop_gradient(w)), np.array([2.0, 3.0]))
    assert "stop_gradient" not in names(recording.calls)
    np.testing.assert_array_equal(recording.grads[0].value, [2.0, 3.0])


def test_a_primitive_whose_body_cannot_run_on_boxes_stays_a_call():
    @primitive
    def doubled(x):
        return np.asarray(x, dtype=float) * 2

    defvjp(doubled, lambda ans, x: lambda g: 2 * g)
    top = trace_stack.top
    recording = record(lambda w: anp.sum(doubled(w)), np.ones(2))
    assert "doubled" in names(recording.calls)
    np.testing.assert_array_equal(recording.grads[0], [2.0, 2.0])
    assert trace_stack.top == top


def test_each_leaf_is_a_root_of_its_own_in_the_callers_containers():
    shared = np.ones(2)
    params = {"a": (shared, [shared]), "s": 1.5}
    recording = record(lambda p, d: anp.sum(p["a"][0] * p["a"][1][0]) * p["s"], params, {"k": X})
    first, (second,) = recording.params["a"]
    roots = [first, second, recording.params["s"], recording.data[0]["k"]]
    assert len(set(roots)) == 4
    assert all(root.fun is None and root.same_as is root for root in roots)
    assert repr(first) == "<root (2,)>"
    assert not any("sequence" in name or "dict" in name for name in names(recording.calls))
    assert [np.shape(grad.value) for grad in recording.grads] == [(2,), (2,), ()]


def test_a_leaf_that_the_loss_does_not_use_has_a_gradient_of_zeros():
    recording = record(lambda p: anp.sum(p["W"]), PARAMS)
    np.testing.assert_array_equal(recording.grads[1], np.zeros(3))


def test_a_loss_of_the_data_alone_has_gradients_of_zeros():
    recording = record(lambda p, x: anp.sum(x), PARAMS, X)
    assert recording.loss.value == np.sum(X)
    assert [grad.any() for grad in recording.grads] == [False, False]
    assert recording.adjoints == {}


def test_what_is_no_array_is_a_constant():
    recording = record(lambda w, n, name: anp.sum(w**n), np.ones(2), 3, "cube")
    assert recording.data == (3, "cube")
    assert recording.calls[0].args[1] == 3


def test_traced_indices_are_gathered_and_their_gradient_scattered():
    recording = record(lambda w, t: anp.sum(w[t] ** 2), np.array([1.0, 2.0, 3.0]), T)
    assert {take.fun, add_at.fun} <= {call.fun.fun for call in recording.calls}
    np.testing.assert_array_equal(recording.grads[0].value, 2 * np.array([1.0, 2.0, 3.0]) * 2)


def test_a_gradient_through_a_gradient_is_recorded():
    def inner(w):
        return anp.sum(w**3)

    def penalty(w):
        return anp.sum(autograd.grad(inner)(w) ** 2)

    w = np.array([1.0, -2.0])
    recording = record(penalty, w)
    np.testing.assert_allclose(recording.grads[0].value, 36 * w**3, rtol=1e-14)


# -------------------- refusals --------------------


def counted(p, t):
    rows = 0
    for _ in range(t.max()):
        rows += 1
    return anp.sum(p["W"]) * rows


@pytest.mark.parametrize(
    ("loss", "data", "what"),
    [
        (lambda p, x: anp.sum(p["W"]) if anp.sum(x) > 0 else 0.0, X, "a Python bool"),
        (lambda p, x: anp.sum(p["W"] * (not x[0, 0])), X, "a Python bool"),
        (lambda p, x: max(p["W"][0, 0], p["b"][0]), X, "a Python bool"),
        (lambda p, x: anp.sum(p["W"]) * float(anp.sum(x)), X, "a Python float"),
        (lambda p, x: anp.sum(p["W"]) * int(anp.sum(x)), X, "a Python int"),
        (lambda p, x: anp.sum(p["W"]) * abs(complex(anp.sum(x))), X, "a Python complex"),
        (counted, T, "a Python index or a length"),
        (lambda p, t: anp.sum(p["b"] * [1.0, 2.0, 3.0][t[0]]), T, "a Python index or a length"),
        (lambda p, x: anp.sum(p["W"]) * x.sum().item(), X, "a Python number"),
        (lambda p, x: anp.sum(p["W"]) * x.tolist()[0][0], X, "a Python number"),
        (lambda p, x: anp.sum(p["W"] * np.asarray(x)[0, 0]), X, "a plain NumPy array"),
        (lambda p, t: anp.sum(np.eye(3)[t] * p["b"]), T, "a plain NumPy array"),
        (lambda p, x: anp.sum(p["W"][p["W"] > 0]), X, "a boolean mask"),
        (lambda p, t: anp.sum(p["b"]) * len(anp.unique(t)), T, r"np\.unique"),
        (lambda p, t: anp.sum(p["b"]) * anp.arange(anp.max(t) + 1).sum(), T, r"np\.arange"),
        (lambda p, x: anp.sum(p["W"]) * len(anp.nonzero(x > 0)[0]), X, r"np\.nonzero"),
    ],
)
def test_a_value_that_would_escape_is_refused_with_its_line(loss, data, what):
    line = loss.__code__.co_firstlineno
    lines = range(line, line + 4) if loss is counted else [line]
    with pytest.raises(RecordingError, match=what) as refusal:
        record(loss, PARAMS, data)
    assert any(f"in {__file__}, line {number}" in str(refusal.value) for number in lines)


@pytest.mark.parametrize(
    "loss", [lambda p: p["b"], lambda p: np.ones(2), lambda p: anp.sum(p["W"], axis=1)]
)
def test_a_loss_that_is_no_scalar_is_refused(loss):
    with pytest.raises(TypeError, match="loss must return a scalar"):
        record(loss, PARAMS)


# -------------------- nothing is left behind --------------------


def raises(p, x):
    autograd.grad(lambda w: anp.sum(w) / no_such_name)(p["W"])  # noqa: F821


@pytest.mark.parametrize(
    ("loss", "error"), [(squares, None), (raises, NameError), (lambda p, *d: p["W"], TypeError)]
)
def test_autograds_trace_stack_and_registry_are_as_before(loss, error):
    top, mappings, types = trace_stack.top, dict(Box.type_mappings), set(Box.types)
    data = (X, Y) if error is None else (X,)
    if error is None:
        record(loss, PARAMS, *data)
    else:
        with pytest.raises(error):
            record(loss, PARAMS, *data)
    assert trace_stack.top == top
    assert Box.type_mappings == mappings
    assert list(Box.type_mappings) == list(mappings)
    assert Box.types == types
    assert boxes.running.tape is None
    value, _ = autograd.value_and_grad(squares)(PARAMS, X, Y)
    assert type(value) is np.float64


def test_nothing_that_is_given_is_changed():
    params, data = frozen(PARAMS), frozen([X, Y])
    record(squares, params, *data)
    for ours, theirs in zip(leaves([params, data]), leaves([PARAMS, [X, Y]]), strict=True):
        np.testing.assert_array_equal(ours, theirs)


def test_other_threads_keep_the_boxes_that_they_have():
    inside, done = threading.Event(), threading.Event()
    seen = {}

    def elsewhere():
        inside.wait(10)

        def loss(w):
            seen["box"] = type(w)
            seen["branch"] = bool(w[0] > 0)
            return anp.sum(w**2)

        seen["grad"] = autograd.grad(loss)(np.array([1.0, 2.0]))
        try:
            autograd.grad(lambda n: n * 2.0)(3)
        except TypeError as error:
            seen["int"] = str(error)
        done.set()

    def loss(w):
        inside.set()
        assert done.wait(10)
        return anp.sum(w**3)

    thread = threading.Thread(target=elsewhere)
    thread.start()
    recording = record(loss, np.array([1.0, 2.0]))
    thread.join()
    assert seen["box"].__name__ == "ArrayBox"
    assert seen["branch"] is True
    assert "int" in seen
    np.testing.assert_array_equal(seen["grad"], [2.0, 4.0])
    np.testing.assert_array_equal(recording.grads[0].value, [3.0, 12.0])


def test_a_trace_that_another_thread_ends_does_not_disturb_the_recording():
    top = trace_stack.top
    elsewhere = trace_stack.new_trace()
    elsewhere.__enter__()

    original = module._Tape.__init__

    def ends_meanwhile(self, *args, **kwargs):
        original(self, *args, **kwargs)
        elsewhere.__exit__(None, None, None)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module._Tape, "__init__", ends_meanwhile)
        recording = record(squares, PARAMS, X, Y)
    grads = autograd.grad(squares)(PARAMS, X, Y)
    np.testing.assert_array_equal(recording.grads[0].value, grads["W"])
    assert trace_stack.top == top


def test_a_recording_within_a_recording():
    inner = []

    def loss(w):
        inner.append(record(lambda v: anp.sum(v**2), np.array([3.0])))
        return anp.sum(w**3)

    outer = record(loss, np.array([2.0]))
    assert inner[0].grads[0].value == 6.0
    assert outer.grads[0].value == 12.0
    assert names(outer.calls)[:2] == ["power", "sum"]


def test_nothing_that_the_recorded_code_had_beside_is_kept():
    class Large:
        pass

    kept = []

    def loss(p):
        own = Large()
        kept.append(weakref.ref(own))
        return anp.sum(p["W"])

    gc.collect()
    gc.disable()
    try:
        recording = record(loss, PARAMS)
        assert kept[0]() is None
        assert len(recording.calls) > 0
    finally:
        gc.enable()


def test_a_derived_program_keeps_no_value_of_its_recording():
    kept = []
    original = Call.__init__

    def noted(self, value, *args):
        original(self, value, *args)
        if type(value) is np.ndarray:
            kept.append(weakref.ref(value))

    params, x, t = random_params(np.random.default_rng(0)), np.ones((7, 2)), np.zeros(7, dtype=int)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Call, "__init__", noted)
        program = sa.derive(sa.loss, params, x, t)
    gc.collect()
    assert len(kept) > 40
    assert [reference() for reference in kept if reference() is not None] == []
    assert program.buffered is not None  # which is written only now
