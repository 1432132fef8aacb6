"""Shared by the tests: a third witness, a measure of departure, inputs that refuse mutation."""

import copy

import numpy as np


def complex_step(function, args, argnum=0, step=1e-30):
    """The gradient of a real scalar function of NumPy arrays, exact to rounding."""
    gradient = np.zeros(np.shape(args[argnum]))
    for index in np.ndindex(gradient.shape):
        moved = np.array(args[argnum], dtype=complex)
        moved[index] += 1j * step
        value = function(*args[:argnum], moved, *args[argnum + 1 :])
        gradient[index] = np.imag(value) / step
    return gradient


def departure(array, reference):
    """The largest difference, relative to the largest entry of the reference."""
    assert np.shape(array) == np.shape(reference)
    largest = np.max(np.abs(np.subtract(array, reference)))
    scale = np.max(np.abs(reference))
    return largest / scale if scale > 0 else largest


def frozen(tree):
    """A copy of a nest of arrays, every one read-only: whoever writes into it raises."""
    if isinstance(tree, dict):
        return {key: frozen(value) for key, value in tree.items()}
    if isinstance(tree, list | tuple):
        return type(tree)(frozen(value) for value in tree)
    copy = np.array(tree)
    copy.flags.writeable = False
    return copy


def random_params(rng, inputs=2, hidden=5, outputs=3):
    """Parameters of a two-layer network, of ordinary size."""
    shapes = {"W1": (inputs, hidden), "b1": (hidden,), "W2": (hidden, outputs), "b2": (outputs,)}
    return {name: rng.standard_normal(shape) for name, shape in shapes.items()}


def position(rng):
    """Where a random stream stands, to be compared by np.testing.assert_equal."""
    if isinstance(rng, np.random.Generator):
        return rng.bit_generator.state
    return rng.get_state(legacy=False)


def assert_same_state(state, expected):
    """Bit for bit, in every field; of the stream and the draws from it, where they leave it."""
    for name in expected.__dataclass_fields__.keys() - {"rng", "draws"}:
        ours, theirs = getattr(state, name), getattr(expected, name)
        np.testing.assert_equal(ours, theirs, err_msg=name)
    np.testing.assert_equal(position(stream_behind(state)), position(stream_behind(expected)))


def stream_behind(state):
    """The stream of a training state, once its draws are done."""
    stream = copy.deepcopy(state.rng)
    for _ in range(state.draws):
        stream.permutation(len(state.order))
    return stream
