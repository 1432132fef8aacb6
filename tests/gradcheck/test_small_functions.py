"""What the checker's small functions of names and nests return."""

import numpy as np
import pytest

from spiral_autograd.gradcheck.subject import conventions as names
from spiral_autograd.gradcheck.subject.inputs import Constant, by_company, leaf_name, spread
from spiral_autograd.gradcheck.subject.returned import as_update_takes, flattened
from spiral_autograd.gradcheck.subject.session import Snapshot
from spiral_autograd.gradcheck.subject.subject import described

W, b = np.ones((2, 2)), np.ones(2)


@pytest.mark.parametrize(
    ("function", "arguments", "result"),
    [
        (names.spelled, ["loss, back prop"], ["loss", "back_prop", "backprop", "backProp"]),
        (names.gradient_key, [["dW", "db"], "b"], "db"),
        (names.gradient_key, [["_grad_w"], "_w"], "_grad_w"),
        (names.gradient_key, [["dW"], "b"], None),
        (names.gradient_key, [["weight_grad"], "W"], "weight_grad"),
        (names.gradient_key, [["db1"], "bias1"], "db1"),
        (names.last_name, ["layers[0].W"], "W"),
        (names.is_like_gradient, ["dW"], True),
        (names.is_like_gradient, ["W_grad"], True),
        (names.is_like_gradient, ["velocity.W"], False),
        (names.means_targets, ["t_batch"], True),
        (names.means_targets, ["trueLabels"], True),
        (names.means_targets, ["ytrain"], True),
        (names.means_targets, ["theta"], False),
        (names.means_targets, ["y_hat"], False),
        (names.is_target_first, [["y_true", "y_pred"]], True),
        (names.is_target_first, [["y", "t"]], False),
        (leaf_name, ["['W1']"], "W1"),
        (leaf_name, ["[0]['W']"], "[0].W"),
        (described, [np.ones((2, 3))], "array (2, 3) float64"),
        (described, [[1, 2]], "list of 2"),
        (described, [0.5], "float 0.5"),
        (Constant(["mask"]).has, ["mask"], True),
        (Constant(["mask"]).has, ["layers[0].mask"], True),
        (Constant(["mask"]).has, ["W"], False),
        (
            flattened,
            [(1.0, {"W": 2.0, "b": 3.0}), ["x", "params"], [b, {"W": W, "b": b}]],
            {"x": 1.0, "W": 2.0, "b": 3.0},
        ),
        (by_company, [[(W, 2.0), ("b", 3.0)], lambda: {id(W): "W"}], {"W": 2.0, "b": 3.0}),
    ],
)
def test_what_is_returned(function, arguments, result):
    assert function(*arguments) == result


def test_keys_that_differ_in_case_alone():
    (one,) = names.differing(["W", "b"], ["w", "b"])
    assert dict(one.fields) == {"key": "w", "name": "W", "places": ()}


def test_the_arrays_in_a_nest_have_names_of_their_own():
    found = spread(["x", "state"], [1, [np.ones(2), np.ones(3)]])
    assert [name for name, _ in found] == ["x", "state[0]", "state[1]"]


@pytest.mark.parametrize(("ours", "theirs"), [((3,), (1, 3)), ((1, 3), (3,))])
def test_a_gradient_takes_the_shape_of_its_parameter(ours, theirs):
    shape = as_update_takes(np.ones(ours), np.ones(theirs)).shape
    assert shape == (theirs if len(ours) < len(theirs) else ours)


def test_a_snapshot_puts_back_what_was_there():
    values = {"W": np.zeros(2)}
    before = Snapshot(values)
    values["W"] += 1
    values["b"] = None
    before.restore()
    assert list(values) == ["W"]
    assert not values["W"].any()
