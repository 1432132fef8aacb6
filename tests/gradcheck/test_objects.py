"""Nobody's objects are damaged: all that the code reaches comes out as it went in."""

import array
import collections
import functools
import itertools
import pickle
import random
import threading
import time
import types
import warnings
import weakref
from unittest import mock

import autograd.numpy as anp
import numpy as np
import pytest
from autograd.tracer import isbox, trace_stack
from effort import some
from layers import Dense

import spiral_autograd as sa
from spiral_autograd.gradcheck import guard
from spiral_autograd.gradcheck.finding import found
from spiral_autograd.gradcheck.subject.session import Snapshot, reach

pytestmark = pytest.mark.filterwarnings("ignore:the matrix")


def x_of(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape)


class Affine(Dense):
    def __init__(self):
        super().__init__(x_of(2, 3, seed=1), np.zeros(3))


class Wrong(Affine):
    def backward(self, dout):
        dx = super().backward(dout)
        self.dW = 2 * self.dW
        return dx


# -------------------- the globals that code uses --------------------


class Running:
    """A network that keeps running statistics, as a global."""

    def __init__(self):
        self.model, self.caches = None, {"mean": None}

    def step(self, x):
        h = x @ self.model["W"]
        if self.caches["mean"] is None:
            self.caches["mean"] = np.zeros(4)
        self.caches["mean"] = 0.9 * self.caches["mean"] + 0.1 * h.mean(axis=0)
        return (h**2).sum(), {"W": 2 * x.T @ h}


net = Running()
history, seen, counter = [], set(), 0
cache = {"calls": 0}


def both(p, x):
    net.model = p
    return net.step(x)


def only_loss(p, x):
    return both(p, x)[0]


def test_a_global_network_keeps_no_box_and_can_be_checked_again():
    x = x_of(5, 3)
    for _ in range(2):
        assert sa.check_gradient(only_loss, both, {"W": np.ones((3, 4))}, x).ok
        assert net.caches == {"mean": None}
        assert net.model is None
    assert not any(map(isbox, reach(net)))


def helper(x):
    global counter, made
    counter += 1
    made = x
    history.append(x)
    seen.add(counter)
    cache["calls"] += 1
    cache["x"] = x
    return x * x


class Tidy:
    """Its methods change globals, through a helper."""

    count, log, table = 0, [], {}

    def forward(self, x):
        type(self).count += 1
        Tidy.last = x
        self.log.append(x)
        self.table[len(self.log)] = x
        self.x = x
        return helper(x)

    def backward(self, dout):
        return 2 * self.x * dout


def fails_in_backward(error):
    class Raising(Tidy):
        def backward(self, dout):
            raise error

    return Raising()


@pytest.mark.parametrize("error", [None, ValueError, KeyboardInterrupt, RecursionError, SystemExit])
def test_globals_and_class_attributes_come_out_as_they_went_in(error):
    def picture():
        names = [name for name in vars(Tidy) if not name.startswith("__")]
        return names, dict(cache), list(history), set(seen), counter

    before = picture()
    layer = Tidy() if error is None else fails_in_backward(error)
    if error is None:
        assert sa.check_layer(layer, x_of(3, 4)).ok
    else:
        expected = error if error is KeyboardInterrupt else sa.CheckError
        with pytest.raises(expected):
            sa.check_layer(layer, x_of(3, 4))
    assert picture() == before
    assert (Tidy.count, Tidy.log, Tidy.table) == (0, [], {})
    assert "made" not in globals()
    assert vars(layer) == {}


def square(x, more):
    more.append(x)
    return x * x


class Counting:
    def __init__(self):
        self.calls = 0

    def __call__(self, p):
        self.calls += 1
        return anp.sum(square(p, history))


def closing_over(held):
    count = 0

    def loss(p):
        nonlocal count
        count += 1
        held.append(p)
        return anp.sum(p * p) + 0 * count

    loss.count = lambda: count
    return loss


def with_default(p, held=[], *, more={}):  # noqa: B006
    held.append(p)
    more["p"] = p
    with_default.calls = len(held)
    return anp.sum(p * p)


def test_closures_defaults_partials_and_callable_objects():
    p, held = x_of(4), []
    closed = closing_over(held)
    partial = functools.partial(lambda more, p: anp.sum(square(p, more)), [])
    instance = Counting()
    for loss in (closed, with_default, partial, instance):
        assert sa.check_gradient(loss, lambda p: 2 * p, p).ok
    assert closed.count() == 0
    assert held == partial.args[0] == history == []
    assert instance.calls == 0
    assert with_default.__defaults__ == ([],)
    assert with_default.__kwdefaults__ == {"more": {}}
    assert not hasattr(with_default, "calls")


def test_a_module_of_the_users_own_too(tmp_path, monkeypatch):
    (tmp_path / "own_settings.py").write_text(
        "calls = 0\nheld = []\n\ndef f(x):\n    return x * x\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    import own_settings

    def loss(p):
        own_settings.calls += 1
        own_settings.held.append(p)
        own_settings.last = p
        return own_settings.f(p).sum()

    assert sa.check_gradient(loss, lambda p: 2 * p, x_of(3)).ok
    assert (own_settings.calls, own_settings.held) == (0, [])
    assert not hasattr(own_settings, "last")


# -------------------- what is written into --------------------


@pytest.mark.parametrize("which", ["loss", "gradient"])
@pytest.mark.parametrize("what", ["W", "x", "t"])
def test_a_loss_or_a_gradient_that_writes_into_its_arguments_is_noted(which, what):
    def meddle(p, x, t, where):
        if where == which and not isbox(p["W"]):
            {"W": p["W"], "x": x, "t": t["t"]}[what][...] *= 2

    def loss(p, x, t):
        value = ((x @ p["W"] - t["t"]) ** 2).sum()
        meddle(p, x, t, "loss")
        return value

    def gradient(p, x, t):
        grad = {"W": 2 * x.T @ (x @ p["W"] - t["t"])}
        meddle(p, x, t, "gradient")
        return grad

    p, x, t = {"W": x_of(2, 3)}, x_of(5, 2), {"t": x_of(5, 3)}
    before = pickle.dumps((p, x, t))
    report = sa.check_gradient(loss, gradient, p, x, t)
    assert report.ok, str(report)
    (note,) = [note for note in report.findings if note.kind == "writes"]
    assert note == found("writes", who=which, name={"t": "t.t"}.get(what, what))
    assert pickle.dumps((p, x, t)) == before


# -------------------- kinds of objects --------------------


class Slots:
    __slots__ = ("__private", "value", "word")

    def __init__(self):
        self.__private, self.value = [1], 2

    def change(self):
        self.__private.append(2)
        self.value, self.word = 3, 4

    def same(self):
        return self.__private == [1] and self.value == 2 and not hasattr(self, "word")


def changed(held):
    held["set"].add(3)
    held["deque"].append(3)
    held["bytes"][0] = 7
    held["numbers"][0] = 7.0
    held["ordered"].move_to_end("a")
    held["default"]["new"].append(1)
    held["counter"].update("b")
    held["masked"][0] = np.ma.masked
    held["matrix"][0, 0] = 9
    held["record"]["a"][0] = 9
    held["shape"].shape = (6,)
    held["shape"][0] = 9
    held["locked"].flags.writeable = True
    held["locked"][0] = 9
    held["unlocked"][0] = 9
    held["unlocked"].flags.writeable = False
    held["nan"][...] = 0
    held["objects"][0].append(1)
    held["objects"][1] = None
    held["slots"].change()
    held["local"].value = 2
    held["space"].value = 2
    held["random"].random()
    held["tuple"][0].append(1)
    held["memory"][0] = 9
    del held["gone"]


def test_all_kinds_of_objects(tmp_path):
    locked = np.ones(3)
    locked.flags.writeable = False
    held = {
        "set": {1},
        "deque": collections.deque([1, 2], maxlen=2),
        "bytes": bytearray(b"abc"),
        "numbers": array.array("d", [1.0]),
        "ordered": collections.OrderedDict(b=1, a=2, c=3),
        "default": collections.defaultdict(list, old=[1]),
        "counter": collections.Counter("aab"),
        "masked": np.ma.masked_array([1.0, 2.0], [False, True]),
        "matrix": np.matrix([[1.0, 2.0]]),
        "record": np.zeros(2, dtype=[("a", float), ("b", int)]),
        "shape": np.arange(6.0).reshape(2, 3),
        "locked": locked,
        "unlocked": np.ones(3),
        "nan": np.array([0x7FF8_0000_0000_0001, 1 << 63], dtype=np.uint64).view(float),
        "objects": np.array([[1], [2, 3]], dtype=object),
        "slots": Slots(),
        "local": threading.local(),
        "space": types.SimpleNamespace(value=1),
        "random": random.Random(3),
        "tuple": ([1],),
        "memory": np.memmap(tmp_path / "memory", dtype=float, mode="w+", shape=3),
        "gone": 1,
    }
    held["local"].value = 1
    held["self"] = held  # it holds itself
    pictures = {k: pickle.dumps(v) for k, v in held.items() if k not in ("slots", "local", "self")}
    nan = held["nan"].tobytes()
    snapshot = Snapshot(held)
    changed(held)
    snapshot.restore()
    assert list(held) == [*pictures, *("slots", "local", "self")] or set(held) >= set(pictures)
    for name, picture in pictures.items():
        assert pickle.dumps(held[name]) == picture, name
    assert held["nan"].tobytes() == nan
    assert held["slots"].same()
    assert held["local"].value == 1
    assert not held["locked"].flags.writeable
    assert held["unlocked"].flags.writeable
    assert held["memory"].tolist() == [0.0] * 3


class Hostile:
    """Everything that is asked of it raises."""

    def __getattribute__(self, name):
        raise AttributeError(name) if name.startswith("__") else OSError(name)

    def __eq__(self, other):
        raise OSError

    __hash__ = None

    def __bool__(self):
        raise OSError

    def __len__(self):
        raise OSError

    def __iter__(self):
        raise OSError


class Mute(dict):
    def __iter__(self):
        raise OSError

    keys = items = values = __len__ = __eq__ = __iter__
    __hash__ = None


class Everything:
    def __getattr__(self, name):
        return lambda *args: self


STRANGE = {
    "hostile": Hostile,
    "a dict that does not answer": lambda: Mute(a=[1]),
    "an object that has every attribute": Everything,
    "a lock": threading.Lock,
    "a generator": lambda: (i for i in range(3)),
    "an iterator": lambda: itertools.count(),
    "a weak reference": lambda: weakref.ref(Affine),
    "a weak dict": weakref.WeakValueDictionary,
    "a thread's own": threading.local,
    "an open file": lambda: open(__file__),  # noqa: SIM115
    "a module": lambda: np,
    "a class": lambda: Affine,
    "a matrix": lambda: np.matrix([[1.0]]),
    "a masked array": lambda: np.ma.masked_array([1.0, 2.0], [True, False]),
    "an array of objects": lambda: np.array([[1], None], dtype=object),
    "a list that holds itself": lambda: (a := [1], a.append(a), a)[2],
    "a deep list": lambda: functools.reduce(lambda inner, _: [inner], range(3000), []),
    "many strings": lambda: [str(i) for i in range(20_000)],
    "many lists": lambda: [[i, i] for i in range(5_000)],
    "a mock": mock.MagicMock,
    "many arrays": lambda: [np.ones(2) for _ in range(500)],
    "an exception": lambda: ValueError("text"),
    "a property that raises": lambda: type("P", (), {"p": property(lambda self: 1 / 0)})(),
}


@pytest.mark.parametrize(("name", "kind"), some(itertools.product(STRANGE, [Affine, Wrong]), 5))
def test_a_layer_may_hold_anything(name, kind, monkeypatch):
    layer = kind()
    layer.strange = strange = STRANGE[name]()
    raises = name in ("hostile", "a dict that does not answer")
    monkeypatch.setattr(guard, "STRICT", not raises)
    try:
        assert sa.check_layer(layer, x_of(5, 2), budget=0.2).ok == (kind is Affine)
    except sa.CheckError:
        assert raises
    assert list(vars(layer)) == ["W", "b", "strange"]
    assert vars(layer)["strange"] is strange
    if name == "an open file":
        strange.close()


def test_long_lists_of_words_cost_next_to_nothing():
    layer, x = Affine(), x_of(5, 2)
    started = time.process_time()
    sa.check_layer(layer, x)
    without = time.process_time() - started
    layer.words = {f"word{i}": i for i in range(16_000)}
    layer.more = [str(i) for i in range(100_000)]
    started = time.process_time()
    assert sa.check_layer(layer, x).ok
    assert time.process_time() - started < 2 + 5 * without


# -------------------- what is the whole process's --------------------


class Meddles(Affine):
    """Changes the settings of NumPy and of warnings, and draws from both global streams."""

    def forward(self, x):
        np.seterr(all="raise")
        np.set_printoptions(precision=1)
        warnings.simplefilter("error")
        noise = random.random() + np.random.rand()  # noqa: NPY002
        self.x = x
        return x @ self.W + self.b + noise


class StopsInTheMiddle(Meddles):
    def backward(self, dout):
        sa.value_and_grad(lambda p: anp.sum(p * p))(self.b)
        raise KeyboardInterrupt


def of_the_process():
    return (
        np.geterr(),
        np.get_printoptions(),
        list(warnings.filters),
        random.getstate(),
        pickle.dumps(np.random.get_state()),  # noqa: NPY002
        trace_stack.top,
    )


def test_settings_and_global_streams_are_put_back():
    before = of_the_process()
    assert sa.check_layer(Meddles(), x_of(5, 2)).ok
    assert of_the_process() == before
    with pytest.raises(KeyboardInterrupt):
        sa.check_layer(StopsInTheMiddle(), x_of(5, 2))
    assert of_the_process() == before


def test_an_interrupt_while_boxes_run_leaves_no_trace_open():
    def loss(p):
        if isbox(p):
            raise KeyboardInterrupt
        return anp.sum(p * p)

    top = trace_stack.top
    with pytest.raises(KeyboardInterrupt):
        sa.check_gradient(loss, lambda p: 2 * p, x_of(3))
    assert trace_stack.top == top


# -------------------- eight threads --------------------


@pytest.mark.parametrize("shared", [True, False])
def test_eight_threads_check_at_once(shared):
    one = Meddles()
    layers = [one if shared else Meddles() for _ in range(8)]
    before, found, together = of_the_process(), {}, threading.Barrier(8)

    def check(i):
        together.wait()
        right = sa.check_layer(layers[i], x_of(5, 2, seed=i)).ok
        grad = sa.value_and_grad(lambda p, c: anp.sum(p**2) * c)(np.ones(2), i + 1.0)[1]
        wrong = sa.check_gradient(anp.sum, lambda p: 2 * p, x_of(3)).ok
        found[i] = right, wrong, grad.tolist()

    threads = [threading.Thread(target=check, args=[i]) for i in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == {i: (True, False, [2.0 * (i + 1)] * 2) for i in range(8)}
    assert of_the_process() == before
    assert all(list(vars(layer)) == ["W", "b"] for layer in layers)
