"""What a loss reaches besides its arguments may change: the value and the gradient follow."""

import collections
import ctypes
import dataclasses
import enum
import functools
import itertools
import math
import random
import sys
import threading
import types
import warnings

import autograd
import autograd.numpy as anp
import numpy as np
import pytest

import spiral_autograd as sa
from spiral_autograd.derive import DerivationError, DerivationWarning, cached, outside

W = np.array([1.0, -3.0, 0.5])


@pytest.fixture(autouse=True)
def _fresh_cache():
    cached._cache.clear()
    cached._known.clear()


def assert_follows(loss, changes, *, refused=False, data=()):
    """The loss's value, gradient and types are autograd's before and after each change."""
    function = sa.value_and_grad(loss)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for change in (lambda: None, *changes):
            change()
            for _ in range(2):
                value, grad = function(W, *data)
                true, truth = autograd.value_and_grad(loss)(W, *data)
                assert type(value) is type(true)
                assert value == pytest.approx(true, rel=1e-13)
                np.testing.assert_allclose(grad, truth, rtol=1e-13)
    reasons = [w for w in caught if w.category is DerivationWarning]
    assert len(reasons) == refused, [str(w.message) for w in reasons]


# -------------------- every way in which a loss reaches a value --------------------


class Slotted:
    __slots__ = ("__hidden", "l2")

    def __init__(self):
        self.l2, self.__hidden = 0.1, 1.0

    def hide(self, value):
        self.__hidden = value

    def scale(self):
        return self.l2 * self.__hidden


class Colour(enum.Enum):
    RED = 1
    BLUE = 2


class Config:
    l2 = 0.1
    nested = types.SimpleNamespace(power=2)


@dataclasses.dataclass
class Options:
    power: int = 2
    name: str = "ridge"
    parts: list = dataclasses.field(default_factory=lambda: [1.0, None])


class Model:
    decay = 0.1

    def __init__(self):
        self.kind, self.norm, self.layers, self.colour = "ridge", anp.sum, [1.0, 2.0], Colour.RED

    @property
    def twice(self):
        return 2 * self.decay

    @staticmethod
    def power(w):
        return w**2

    def penalty(self, w):
        return self.norm(self.power(w)) if self.kind == "ridge" else anp.sum(anp.abs(w))

    def loss(self, w):
        factor = 3.0 if self.colour is Colour.RED else 4.0
        return self.twice * self.penalty(w) * sum(self.layers) * factor

    def __call__(self, w):
        return self.loss(w)


def setter(owner, **values):
    return lambda: [setattr(owner, name, value) for name, value in values.items()]


def test_attributes_of_an_object_its_methods_and_its_class(monkeypatch):
    model = Model()
    changes = [
        setter(model, kind="lasso"),
        setter(model, kind="ridge"),
        setter(model, norm=anp.mean),
        lambda: model.layers.append(5.0),
        lambda: model.layers.__setitem__(0, 7.0),
        setter(model, decay=0.7),  # the instance's hides the class's
        lambda: delattr(model, "decay"),
        lambda: monkeypatch.setattr(Model, "decay", 0.9),
        setter(model, colour=Colour.BLUE),
        lambda: monkeypatch.setattr(Model, "power", staticmethod(lambda w: w**4)),
        lambda: monkeypatch.setattr(Model, "twice", property(lambda self: 5.0)),
    ]
    monkeypatch.setattr(cached, "FEW", 99)
    assert_follows(model.loss, changes)


def test_an_object_that_is_called_and_a_lambda_around_it(monkeypatch):
    monkeypatch.setattr(cached, "FEW", 99)
    for wrap in (lambda model: model, lambda model: lambda w: model(w) + 1.0):
        model = Model()
        assert_follows(wrap(model), [setter(model, kind="lasso"), setter(model, layers=[4.0])])


def test_settings_of_all_types(monkeypatch):
    monkeypatch.setattr(cached, "FEW", 99)
    settings = types.SimpleNamespace(
        kind="ridge",
        flag=None,
        on=True,
        l2=0.1,
        nest={"a": [1.0, ("x", {"power": 2})]},
        names={"b"},
    )

    def loss(w):
        value = anp.sum(w ** settings.nest["a"][1][1]["power"]) * settings.nest["a"][0]
        if settings.flag is not None:
            value = value + settings.flag
        if "c" in settings.names:
            value = value * 7.0
        return settings.l2 * value if settings.on and settings.kind == "ridge" else value

    inner = settings.nest["a"]
    assert_follows(
        loss,
        [
            setter(settings, kind="lasso"),
            setter(settings, kind="ridge", flag=2),
            setter(settings, flag=2.0),
            setter(settings, on=False),
            lambda: inner[1][1].update(power=4),
            lambda: inner.__setitem__(0, 3.0),
            lambda: settings.names.add("c"),
            lambda: settings.names.clear(),
        ],
    )


def test_closures_partials_defaults_slots_and_classes(monkeypatch):
    monkeypatch.setattr(cached, "FEW", 99)
    l2, slotted, options = 0.1, Slotted(), Options()
    history = collections.deque([1.0])
    table = collections.OrderedDict(a=1.0)

    def helper(w, *, scale=(1.0, {"s": 2.0})):
        return anp.sum(w**options.power) * scale[1]["s"] * l2

    def loss(scale, w, offset=0.0):
        value = helper(w) * scale["s"] * slotted.scale() + offset * Config.l2
        return (value + Config.nested.power) * history[-1] * table["a"]

    partial = functools.partial(loss, {"s": 3.0}, offset=1.0)

    def rebind(value):
        nonlocal l2
        l2 = value

    assert_follows(
        partial,
        [
            lambda: rebind(0.2),
            lambda: rebind(np.float64(0.2)),
            lambda: rebind(np.array(0.3)),
            lambda: partial.args[0].update(s=5.0),
            lambda: partial.keywords.update(offset=2.0),
            lambda: helper.__kwdefaults__["scale"][1].update(s=9.0),
            lambda: setattr(helper, "__kwdefaults__", {"scale": (1.0, {"s": 8.0})}),
            setter(slotted, l2=0.7),
            lambda: slotted.hide(3.0),
            setter(options, power=4),
            lambda: history.append(5.0),
            lambda: table.update(a=6.0),
            lambda: monkeypatch.setattr(Config, "l2", 0.9),
            lambda: monkeypatch.setattr(Config.nested, "power", 5),
        ],
    )


class Hiding:
    """Its attributes have other names than the code that reads them has."""

    def __getattr__(self, name):
        return object.__getattribute__(self, "_" + name)


class Marked(np.ndarray):
    """An array with attributes of its own."""


@functools.lru_cache
def remembered(power):
    return 1.0 / power


def marked(w):
    return w * marked.scale


def test_hidden_attributes_those_of_arrays_and_of_functions_and_what_is_compiled(monkeypatch):
    monkeypatch.setattr(cached, "FEW", 99)
    module = types.ModuleType("settings_of_the_user")
    module.__file__, module.offset = __file__, 0.5
    monkeypatch.setitem(sys.modules, module.__name__, module)
    hiding, array, history = Hiding(), np.ones(3).view(Marked), [1.0, 2.0]
    hiding._l2, array.power, marked.scale = 0.1, 2, 1.5
    size, function = history.__len__, math.sin

    def loss(w):
        import settings_of_the_user

        scale = hiding.l2 * size() * function(2.0) * remembered(4)
        return scale * anp.sum(marked(w) ** array.power) + settings_of_the_user.offset

    def rebind():
        nonlocal function
        function = math.cos

    assert_follows(
        loss,
        [
            setter(hiding, _l2=0.3),
            setter(array, power=3),
            lambda: history.append(3.0),
            setter(marked, scale=2.5),
            setter(module, offset=0.7),
            rebind,
        ],
    )


GLOBAL = {"power": 2}
SCALE = 2.0


def of_globals(w):
    return SCALE * globally(w) + getattr(Config, "l" + "2")


def globally(w):
    return anp.sum(w ** GLOBAL["power"])


def test_globals_of_the_functions_that_a_loss_calls(monkeypatch):
    monkeypatch.setattr(cached, "FEW", 99)
    monkeypatch.setitem(GLOBAL, "power", 2)
    module = types.ModuleType("of_the_user")
    module.l1 = 0.5
    module.__file__ = __file__
    monkeypatch.setitem(globals(), "module", module)

    def loss(w):
        return of_globals(w) + module.l1 * anp.sum(anp.abs(w))

    assert_follows(
        loss,
        [
            lambda: monkeypatch.setitem(globals(), "SCALE", 3.0),
            lambda: monkeypatch.setitem(GLOBAL, "power", 4),
            lambda: monkeypatch.setitem(globals(), "GLOBAL", {"power": 6}),
            lambda: monkeypatch.setattr(module, "l1", 0.7),
            lambda: monkeypatch.setattr(Config, "l2", 9.0),
            lambda: monkeypatch.setitem(globals(), "globally", lambda w: anp.sum(w)),
        ],
    )


def test_objects_and_sets_that_are_given_as_data_may_change(monkeypatch):
    monkeypatch.setattr(cached, "FEW", 99)
    settings, names = types.SimpleNamespace(l2=0.1), {"a"}

    def loss(w, settings, names, act):
        return anp.sum(act(w) ** 2) * settings.l2 * len(names)

    assert_follows(
        loss,
        [setter(settings, l2=0.2), lambda: names.add("b")],
        data=(settings, names, anp.tanh),
    )
    function = sa.value_and_grad(loss)
    assert function(W, settings, names, anp.tanh)[0] != function(W, settings, names, anp.sin)[0]


@pytest.mark.parametrize("size", [3, 20_000])
def test_arrays_that_are_changed_in_place(size, monkeypatch):
    monkeypatch.setattr(cached, "FEW", 99)
    X = np.random.default_rng(0).standard_normal((size, 3))

    def loss(w):
        return anp.mean(anp.dot(X, w) ** 2)

    def replace():
        nonlocal X
        X = X + 1.0

    assert_follows(
        loss,
        [
            lambda: X.__imul__(2.0),
            lambda: X.sort(axis=0),
            lambda: X.__setitem__(slice(None), 3.0),
            lambda: X.__setitem__((-1, -1), 99.0),  # the last entry is among the samples
            replace,
        ],
    )


def test_arrays_in_objects_and_of_objects(monkeypatch):
    monkeypatch.setattr(cached, "FEW", 99)
    table = np.array([1.0, "two", [3.0]], dtype=object)
    masked = np.ma.array([1.0, 2.0, 3.0], mask=[False, True, False])

    def loss(w):
        return anp.sum(w**2) * table[0] * table[2][0] * float(masked.sum())

    assert_follows(
        loss,
        [
            lambda: table.__setitem__(0, 5.0),
            lambda: table[2].__setitem__(0, 7.0),
            lambda: masked.mask.__setitem__(1, False),
            lambda: masked.__setitem__(0, 9.0),
        ],
    )


def test_a_name_that_a_class_gets_later_hides_its_bases(monkeypatch):
    class Special(Model):
        def __getitem__(self, key):
            return 1.0

    class Last(Special):
        pass

    model = Last()
    assert_follows(
        lambda w: model.loss(w) * model["any"],
        [
            lambda: setattr(Last, "decay", 9.0),
            lambda: setattr(Last, "power", staticmethod(lambda w: w**4)),
            lambda: setattr(Last, "__getitem__", lambda self, key: 7.0),
        ],
    )


def test_an_object_whose_state_is_compiled_is_refused():
    number = ctypes.c_double(1.0)
    changes = [setter(number, value=3.0)]
    assert_follows(lambda w: anp.sum(w) * number.value, changes, refused=True)


class Slippery:
    __slots__ = ("scale",)

    def __getattribute__(self, name):
        if name == "scale" and not Slippery.ready:
            raise OSError("not now")
        return object.__getattribute__(self, name)

    ready = False


def test_an_object_that_cannot_be_looked_at_is_refused():
    slippery = Slippery()

    def loss(w):
        return anp.sum(w**2)

    function = sa.value_and_grad(lambda w: loss(w) if slippery is not None else 0.0)
    with pytest.warns(DerivationWarning, match="not now"):
        assert function(W)[0] == np.sum(W**2)


def test_an_array_that_becomes_shorter_is_another():
    array = np.array([1.0, "two", None], dtype=object)
    watched = outside.Outside(lambda w: array[0] * w, [])
    assert watched.holds()
    array.resize(2, refcheck=False)
    assert not watched.holds()


def test_a_loss_that_is_made_anew_for_each_call_is_derived_once(monkeypatch):
    derived = []
    original = cached.derive
    monkeypatch.setattr(cached, "derive", lambda *a: derived.append(1) or original(*a))

    def made(l2):
        return lambda w: l2 * anp.sum(w**2)

    for _ in range(5):
        assert sa.value_and_grad(made(0.5))(W)[0] == 0.5 * np.sum(W**2)
    assert len(derived) == 1
    assert sa.value_and_grad(made(0.25))(W)[0] == 0.25 * np.sum(W**2)
    assert len(derived) == 2


def test_a_value_that_comes_back_finds_its_program_again(monkeypatch):
    derived = []
    original = cached.derive
    monkeypatch.setattr(cached, "derive", lambda *a: derived.append(1) or original(*a))
    settings = types.SimpleNamespace(on=True)

    def loss(w):
        return anp.sum(w**2) if settings.on else anp.sum(w**4)

    assert_follows(loss, [setter(settings, on=on) for on in (False, True) * 4])
    assert len(derived) == 2


@pytest.mark.parametrize("size", [3, 100])
def test_a_program_does_not_see_what_becomes_of_the_array_it_was_derived_for(size, monkeypatch):
    monkeypatch.setattr(cached, "FEW", 99)
    box = types.SimpleNamespace(x=np.random.default_rng(0).standard_normal((size, 3)))
    index = types.SimpleNamespace(i=np.arange(size)[::-1].copy())
    first, order = box.x.copy(), index.i.copy()

    def loss(w):
        return anp.mean(anp.dot(box.x[index.i] * np.arange(size)[:, None], w) ** 2)

    assert_follows(
        loss,
        [
            lambda: box.x.__imul__(2.0),
            lambda: index.i.sort(),
            lambda: (setattr(box, "x", first), setattr(index, "i", order)),
        ],
    )
    fixed = np.arange(size)[::-1].copy()
    array = types.SimpleNamespace(x=box.x)

    def direct(w):
        return anp.sum((array.x * w)[fixed] ** 2)

    again = array.x.copy()
    assert_follows(direct, [lambda: array.x.__imul__(2.0), lambda: setattr(array, "x", again)])


def test_equal_objects_among_the_data_share_a_program():
    def loss(w, settings, act, part):
        return settings.l2 * anp.sum(act(w[part]))

    function = sa.value_and_grad(loss)
    for k in range(20):
        settings = types.SimpleNamespace(l2=0.5 + k // 10)
        value, _ = function(W, settings, lambda z: z**2, slice(0, 2))
        assert value == settings.l2 * np.sum(W[:2] ** 2)
    assert len(cached._cache) == 2


def test_what_changes_all_the_time_is_autograds_after_a_few_programs_with_one_warning():
    settings = types.SimpleNamespace(l2=0.0)

    def loss(w):
        return settings.l2 * anp.sum(w**2)

    assert_follows(loss, [setter(settings, l2=0.1 * k) for k in range(40)], refused=True)
    assert len(cached._cache) == cached.FEW


# -------------------- what cannot be watched, and what the loss itself changes --------------------


class Opaque:
    pass


def counting():
    count = 0

    def loss(w):
        nonlocal count
        count += 1
        return anp.sum(w**2) * count

    return loss


def noting():
    history = []

    def loss(w):
        history.append(1)
        return anp.sum(w**2) * len(history)

    return loss


def caching():
    cache = types.SimpleNamespace(hidden=None)

    def loss(w):
        cache.hidden = anp.tanh(w)
        return anp.sum(cache.hidden)

    return loss


def writing():
    mean = np.zeros(3)

    def loss(w):
        mean[...] += 1.0
        return anp.sum(w * mean)

    return loss


def writing_large():
    mean = np.zeros(100_000)

    def loss(w):
        mean[...] += 1.0
        return anp.sum(w * mean[:3])

    return loss


def iterating():
    numbers = itertools.cycle([1.0, 2.0])
    return lambda w: anp.sum(w) * next(numbers)


def drawing(stream):
    return lambda w: anp.sum(w * (stream.random(3) < 2.0))


def drawing_global():
    return lambda w: anp.sum(w * (np.random.rand(3) < 2.0))  # noqa: NPY002


def drawing_python():
    return lambda w: anp.sum(w) * (random.random() < 2.0)


def noting_by_a_method():
    note = [].append
    return lambda w: anp.sum(w) if note(1) is None else w


def evaluating():
    return lambda w: eval("anp.sum(w**2)", {"anp": anp, "w": w})


def reaching_much():
    words = {f"word{k}": k for k in range(30_000)}
    return lambda w: anp.sum(w**2) * len(words)


def taking_a_value():
    from autograd.tracer import getval as value_of

    return lambda w: anp.sum(w**2) if value_of(w)[0] > 0 else anp.sum(w)


def writing_into_its_data():
    def loss(w, x):
        x -= 1.0
        return anp.sum(w * x)

    return loss


def test_a_loss_that_writes_into_its_data_is_autograds():
    function, x, y = sa.value_and_grad(writing_into_its_data()), np.zeros(3), np.zeros(3)
    with pytest.raises(DerivationError, match="writes into its arguments"):
        sa.derive(writing_into_its_data(), W, x)
    assert x.tolist() == [0.0] * 3
    with pytest.warns(DerivationWarning):
        values = [function(W, x)[0] for _ in range(3)]
    assert values == [autograd.value_and_grad(writing_into_its_data())(W, y)[0] for _ in range(3)]
    assert x.tolist() == [-3.0] * 3


CHANGING = {
    "a counter": counting,
    "a list that it appends to": noting,
    "a bound method of a list": noting_by_a_method,
    "a cache of its own": caching,
    "a running mean": writing,
    "a large running mean": writing_large,
    "an iterator": iterating,
    "a RandomState": lambda: drawing(np.random.RandomState(0)),
    "a Generator": lambda: drawing(np.random.default_rng(0)),
    "NumPy's global stream": drawing_global,
    "Python's global stream": drawing_python,
    "eval": evaluating,
    "much": reaching_much,
}


@pytest.mark.parametrize("name", CHANGING)
def test_what_cannot_hold_is_autograds_from_the_first_call_on(name):
    ours, autograds = CHANGING[name](), CHANGING[name]()
    np.random.seed(3)  # noqa: NPY002
    random.seed(3)
    want = [autograd.value_and_grad(autograds)(W) for _ in range(4)]
    streams = np.random.get_state()[1].tolist(), random.getstate()  # noqa: NPY002
    np.random.seed(3)  # noqa: NPY002
    random.seed(3)
    with pytest.warns(DerivationWarning) as caught:
        got = [sa.value_and_grad(ours)(W) for _ in range(4)]
    assert len(caught) == 1
    assert caught[0].filename == __file__
    for (value, grad), (true, truth) in zip(got, want, strict=True):
        assert value == true
        np.testing.assert_array_equal(grad, truth)
    assert streams == (np.random.get_state()[1].tolist(), random.getstate())  # noqa: NPY002


def test_random_numbers_without_a_state_are_refused():
    stream = random.SystemRandom()
    with pytest.raises(DerivationError, match="stream, random numbers that nothing can put back"):
        sa.derive(lambda w: anp.sum(w) * stream.random(), W)


def test_a_loss_that_draws_only_while_it_trains_holds_while_it_does_not():
    stream, settings = np.random.RandomState(0), types.SimpleNamespace(training=False)

    def loss(w):
        mask = stream.rand(3) < 0.5 if settings.training else 1.0
        return anp.sum((w * mask) ** 2)

    function = sa.value_and_grad(loss)
    assert function(W)[0] == np.sum(W**2)
    (program,) = cached._cache.values()
    assert program is not None
    settings.training = True
    with pytest.warns(DerivationWarning):
        values = {float(function(W)[0]) for _ in range(20)}
    assert len(values) > 2
    fresh = np.random.RandomState(0)
    assert values == {float(np.sum((W * (fresh.rand(3) < 0.5)) ** 2)) for _ in range(20)}


def test_derive_leaves_everything_as_it_was():
    np.random.seed(5)  # noqa: NPY002
    random.seed(5)
    state, of_python = np.random.get_state()[1].tolist(), random.getstate()  # noqa: NPY002
    filters = list(warnings.filters)
    large, small, settings = np.zeros(100_000), np.zeros(3), types.SimpleNamespace(h=None, n=[])

    def loss(w):
        settings.h, settings.new = anp.tanh(w), 1
        settings.n.append(w)
        small[0] += np.random.rand()  # noqa: NPY002
        return anp.sum(w) * random.random() + large[0]

    with pytest.raises(DerivationError):
        sa.derive(loss, W)
    assert vars(settings) == {"h": None, "n": []}
    assert small.tolist() == [0.0] * 3
    assert large.flags.writeable
    assert (state, of_python) == (np.random.get_state()[1].tolist(), random.getstate())  # noqa: NPY002
    assert warnings.filters == filters


def test_threads_that_derive_leave_the_warning_filters_as_they_were():
    filters, errors = list(warnings.filters), []
    barrier = threading.Barrier(6)

    def work(k):
        try:
            barrier.wait(10)
            for n in range(1, 5):
                program = sa.derive(lambda w: k * anp.sum(w**2), np.ones(n))
                assert program(np.ones(n))[0] == k * n
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=work, args=(k,)) for k in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    assert warnings.filters == filters


def test_an_error_of_the_loss_is_autograds():
    def loss(w, k):
        return anp.sum(w) / k

    function = sa.value_and_grad(loss)
    assert function(W, 2)[0] == np.sum(W) / 2
    function = sa.value_and_grad(lambda w, k: anp.sum(w) * (1 / k))
    assert function(W, 2)[0] == np.sum(W) / 2
    with pytest.raises(ZeroDivisionError):
        function(W, 0)


def test_getval_is_refused_with_its_line():
    loss = taking_a_value()
    with pytest.raises(DerivationError, match=r"getval") as refusal:
        sa.derive(loss, W)
    assert f"line {loss.__code__.co_firstlineno}" in str(refusal.value)
    assert __file__ in str(refusal.value)
    with pytest.warns(DerivationWarning):
        value, _ = sa.value_and_grad(loss)(-W)
    assert value == -np.sum(W)


def inner_value(box):
    while hasattr(box, "_value"):
        box = box._value
    return box


@pytest.mark.parametrize(
    "loss",
    [
        lambda w, x: anp.sum(w**2) if inner_value(w)[0] > 0 else anp.sum((w - 3) ** 2),
        lambda w, x: anp.sum(w * x / np.abs(inner_value(x)).max()),
        lambda w, x: anp.sum(w * x) if np.abs(inner_value(x)).max() < 4 else anp.sum(w),
        lambda w, x: anp.sum(w * x) / (1 + (inner_value(x).sum() > 0)),
        lambda w, x: anp.sum(w * np.sign(inner_value(w)) * x),
    ],
)
def test_a_value_that_escapes_otherwise_is_not_frozen_in_silence(loss):
    rng = np.random.default_rng(0)
    X = rng.standard_normal((5, 3))
    function = sa.value_and_grad(loss)
    with pytest.warns(DerivationWarning, match="pass"):
        function(W, X)
    for w, x in ((W, X), (-W, X), (W, 9 * X), (W, -X)):
        value, grad = function(w, x)
        true, truth = autograd.value_and_grad(loss)(w, x)
        assert value == true
        np.testing.assert_array_equal(grad, truth)


def test_a_large_array_is_watched_by_samples_and_costs_a_call_next_to_nothing():
    array = np.zeros((1000, 1000))
    watched = outside.Outside(lambda w: array @ w, [])
    (entries,) = (held.before[-1] for _, held, _ in watched.watches if held.item is array)
    assert len(entries) == outside.SAMPLES * array.itemsize
    assert watched.holds()
    array *= 0
    assert watched.holds()
    array += 1
    assert not watched.holds()


def test_sets_of_names_and_of_objects():
    chosen, layers = {"a"}, {Slotted()}

    def loss(w):
        scale = 2.0 if "b" in chosen else 1.0
        return anp.sum(w) * len(chosen) * scale + sum(layer.scale() for layer in layers)

    (layer,) = layers
    changes = [lambda: chosen.add("b"), lambda: chosen.discard("a"), setter(layer, l2=0.7)]
    assert_follows(loss, [*changes, lambda: layers.add(Slotted())])


# -------------------- fit --------------------

DATA = np.random.default_rng(0).standard_normal((20, 3))


def fitted(loss, on_eval, **options):
    options |= {"optimizer": sa.sgd(0.1), "max_epoch": 6, "batch_size": 5, "eval_interval": 4}
    return sa.fit(W, DATA, rng=0, loss=loss, on_eval=on_eval, **options)


@pytest.mark.parametrize("derived", [True, False])
def test_what_changes_during_a_training_run_is_followed_from_there_on(derived, recwarn):
    settings = types.SimpleNamespace(target=1.0, by_index=False)

    def loss(w, x):
        return anp.mean((anp.dot(x, w) - settings.target) ** 2)

    def change(evaluation):
        settings.target = 5.0 if evaluation.epoch >= 3 else 1.0

    options = {} if derived else {"value_and_grad": autograd.value_and_grad(loss)}
    state = fitted(loss, change, **options)
    settings.target = 1.0
    changed = fitted(loss, change, value_and_grad=autograd.value_and_grad(loss))
    settings.target = 1.0
    unchanged = fitted(loss, None)
    np.testing.assert_allclose(state.params, changed.params, rtol=1e-12)
    np.testing.assert_allclose(state.loss_list, changed.loss_list, rtol=1e-12)
    assert state.epoch == 6
    assert len(state.loss_list) == 6
    assert not np.allclose(state.params, unchanged.params, rtol=1e-3)
    reasons = [w for w in recwarn.list if w.category is DerivationWarning]
    assert len(reasons) == derived
