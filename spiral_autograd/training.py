"""The trainer: a loop over shuffled batches, as a function from state to state."""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

import autograd
import numpy as np

from . import network
from .derive import Watched, cached_program, warn_of_change
from .optimizers import Optimizer, clip_grads, number, sgd
from .pytree import (
    FlatLayout,
    Pytree,
    Sharing,
    float_tree,
    leaves,
    named_leaves,
    same_structure,
    tree_map,
)
from .validation import (
    Array,
    Random,
    Stream,
    finite_array,
    positive_integer,
    random_stream,
)

Loss = Callable[..., Any]
ValueAndGrad = Callable[..., tuple[Any, Pytree]]

# -------------------- the values --------------------


@dataclass(frozen=True, eq=False, repr=False)
class TrainState:
    """Where a training run stands, as a value: all that `fit` needs to go on.

    Attributes
    ----------
    params : pytree of float arrays
        The parameters.
    loss_list : tuple of float
        The mean loss of each evaluation interval.
    epoch : int
        The number of whole epochs behind.
    iteration : int
        The number of updates in the epoch begun; 0 but where the run was interrupted.
    eval_interval : int or None
        The number of iterations to an entry of `loss_list`.
    optimizer, optimizer_state
        The optimizer's name, and what it remembers.
    rng : RandomState or Generator
        The stream of the shuffles.
    draws : int
        The shuffles already drawn since `rng` stood so; 0 but where the run was interrupted.
    order : int array, shape (examples,)
        The order of the examples in the last epoch begun; the next one re-orders it.
    losses_since : tuple of (float, int)
        The sum and the number of the losses since the last entry of `loss_list`.
    sharing : Sharing
        Which leaves of the parameters are one array.

    Examples
    --------
    >>> x, t = np.zeros((4, 2)), np.array([0, 1, 0, 1])
    >>> state = fit(network.init_params(2, 3, 2, rng=0), x, t, max_epoch=5, batch_size=2, rng=0)
    >>> state.epoch
    5
    """

    params: Pytree
    loss_list: tuple[float, ...]
    epoch: int
    iteration: int
    eval_interval: int | None
    optimizer: str
    optimizer_state: Any = field(repr=False)
    rng: Stream = field(repr=False)
    draws: int = field(repr=False)
    order: Array = field(repr=False)
    losses_since: tuple[float, int] = field(repr=False)
    sharing: Sharing = field(repr=False)

    def __repr__(self) -> str:
        """Return one line: how far the run is, its last loss, the shapes of its parameters."""
        loss = f"{self.loss_list[-1]:.4g}" if self.loss_list else "none yet"
        shapes = [f"{path} {np.shape(leaf)}" for path, leaf in named_leaves("", self.params)]
        more = f", and {len(shapes) - 6} more" if len(shapes) > 6 else ""
        params = ", ".join(shapes[:6])[:200] + more
        return (
            f"TrainState(epoch={self.epoch}, iteration={self.iteration}, last loss {loss}, "
            f"optimizer={self.optimizer!r}, params: {params})"
        )


@dataclass(frozen=True, eq=False)
class Evaluation:
    """What `fit` hands to `on_eval` at the end of an evaluation interval.

    Its ``str()`` is the line of the book's log.

    Attributes
    ----------
    epoch, iteration : int
        Counted from 1; the iteration within the epoch.
    max_iters : int
        The iterations of an epoch.
    elapsed : float
        Seconds since `fit` was called.
    loss : float
        The mean loss of the interval.
    params : pytree of float arrays
        The parameters after the update of this iteration.

    Examples
    --------
    >>> print(Evaluation(epoch=1, iteration=10, max_iters=10, elapsed=0.3, loss=1.1256, params={}))
    | epoch 1 | iter 10 / 10 | time 0[s] | loss 1.13
    """

    epoch: int
    iteration: int
    max_iters: int
    elapsed: float
    loss: float
    params: Pytree = field(repr=False)

    def __str__(self) -> str:
        return (
            f"| epoch {self.epoch} | iter {self.iteration} / {self.max_iters} "
            f"| time {int(self.elapsed)}[s] | loss {self.loss:.2f}"
        )


class _OutsideChanged(Exception):  # noqa: N818
    """What a loss reaches is no longer as it was when its gradient was derived."""

    state: TrainState


class NonFiniteLossError(FloatingPointError):
    """The loss, or the last update, became NaN or infinite.

    Its attribute ``state`` is the last good state: the last one whose loss was finite.
    """


# -------------------- the loop --------------------


def fit(
    start: Pytree | TrainState,
    *data: Any,
    loss: Loss = network.loss,
    value_and_grad: ValueAndGrad | None = None,
    optimizer: Optimizer | None = None,
    max_epoch: int = 10,
    batch_size: int = 32,
    max_grad: float | None = None,
    eval_interval: int | None = 20,
    rng: Random | None = None,
    on_eval: Callable[[Evaluation], Any] | None = None,
) -> TrainState:
    """Train on shuffled batches for `max_epoch` more epochs, and return the new state.

    Each epoch re-orders the data, already shuffled by the epochs before it, by one
    ``permutation``; the examples that fill no whole batch are dropped. Nothing that is given is
    mutated, the random stream included (a copy is drawn from), and
    ``fit(…, max_epoch=100)`` then ``fit(state, …, max_epoch=200)`` is ``max_epoch=300`` bit for
    bit.

    Whatever stops the run (Ctrl-C, a loss that is not finite, an error raised in `loss` or
    `on_eval`) loses nothing: the exception bears the last whole state as its attribute
    ``state``, from which `fit` goes on, in the middle of an epoch too::

        try:
            state = fit(params, x, t, max_epoch=300)
        except KeyboardInterrupt as stop:
            state = stop.state
        state = fit(state, x, t, max_epoch=300 - state.epoch)

    Parameters
    ----------
    start : pytree of float arrays, or TrainState
        The initial parameters, or the state from which to go on. Arrays that stand in the pytree
        twice, or once more as their transpose, are one parameter: their gradients are added, and
        they stay one array.
    *data : arrays
        Arrays with one entry for each example, such as x and t.
    loss : callable, default `network.loss`
        ``loss(params, *batch)`` returns a scalar. Before the first update it is called on all the
        data, so that data which it refuses is refused before any work.
    value_and_grad : callable, optional
        ``value_and_grad(params, *batch)`` returns the loss and its gradient, of the structure of
        `params`; in place of the automatic gradient of `loss`, which then is not used.
    optimizer : Optimizer, default ``sgd(0.01)``
    max_epoch : int, default 10
        How many epochs more. An epoch that was interrupted is finished and counts. A state may
        ask for 0, which returns it as it is.
    batch_size : int, default 32
    max_grad : float, optional
        The largest global L2 norm of the gradient: see `clip_grads`.
    eval_interval : int or None, default 20
        After every so many iterations, counted over all epochs, their mean loss is kept in
        ``loss_list`` and handed to `on_eval`. None: never.
    rng : int, RandomState or Generator, optional
        The stream of the shuffles. Without it a run goes on with its state's stream, and a new
        one starts from fresh entropy.
    on_eval : callable, optional
        Receives an `Evaluation` at the end of each interval; ``print`` writes the book's log.

    Returns
    -------
    TrainState

    Raises
    ------
    ValueError, TypeError
        At the door, for bad input: data of different lengths, empty or not finite, fewer examples
        than a batch, parameters that are no pytree of finite float arrays, an option out of its
        range, a loss that is not a scalar or not finite from the start, a gradient of another
        structure, a state of another optimizer or of other data.
    NonFiniteLossError
        When the loss becomes NaN or infinite during training, with the epoch and iteration.

    References
    ----------
    Saito, *Deep Learning from Scratch 2*, sections 1.4.3 and 1.4.4.

    Examples
    --------
    >>> x, t = np.array([[0.0, 1.0], [1.0, 0.0]] * 5), np.array([0, 1] * 5)
    >>> params = network.init_params(2, 3, 2, rng=0)
    >>> state = fit(params, x, t, optimizer=sgd(1.0), max_epoch=100, batch_size=10, rng=0)
    >>> state.epoch, len(state.loss_list), network.accuracy(state.params, x, t)
    (100, 5, 1.0)
    """
    started = time.monotonic()
    optimizer = sgd() if optimizer is None else optimizer
    if not isinstance(optimizer, Optimizer):
        raise TypeError(f"optimizer must be an Optimizer such as sgd(0.1), got {optimizer!r}")
    if not (isinstance(start, TrainState) and max_epoch == 0):
        max_epoch = positive_integer("max_epoch", max_epoch)
    batch_size = positive_integer("batch_size", batch_size)
    if max_grad is not None:
        max_grad = number("max_grad", max_grad, above=0)
    if eval_interval is not None:
        eval_interval = positive_integer("eval_interval", eval_interval)
    for name, function in (("on_eval", on_eval), ("value_and_grad", value_and_grad)):
        if function is not None and not callable(function):
            raise TypeError(f"{name} must be a function or None, got {function!r}")
    if not callable(loss):
        raise TypeError(f"loss must be a function, got {loss!r}")
    arrays = _checked_data(data, batch_size)
    if isinstance(start, TrainState):
        state = _resumed(start, optimizer, len(arrays[0]), batch_size, rng)
    else:
        state = _begun(start, optimizer, len(arrays[0]), rng)
    state = replace(state, eval_interval=eval_interval)
    layout = FlatLayout.of(state.params, state.sharing)
    last_epoch = state.epoch + max_epoch
    try:
        source, cast = _source(layout, loss, value_and_grad, arrays, batch_size)
        step = _make_step(source, optimizer, max_grad)
        try:
            return _run(state, layout, last_epoch, step, cast, batch_size, on_eval, started)
        except _OutsideChanged as stop:
            warn_of_change(loss)
            state = stop.state
        source = _from_pytrees(layout, autograd.value_and_grad(loss))
        step = _make_step(source, optimizer, max_grad)
        return _run(state, layout, last_epoch, step, arrays, batch_size, on_eval, started)
    except BaseException as stop:
        if not hasattr(stop, "state"):
            stop.state = state  # type: ignore[attr-defined]
        raise


# -------------------- a step --------------------

Source = Callable[[Pytree, list[Array]], tuple[float, Pytree]]
Step = Callable[[Pytree, Any, list[Array]], tuple[float, Pytree, Any]]


def _source(
    layout: FlatLayout,
    loss: Loss,
    value_and_grad: ValueAndGrad | None,
    data: list[Array],
    batch_size: int,
) -> tuple[Source, list[Array]]:
    """Return where the gradients come from, and the data as it takes it."""
    if value_and_grad is not None:
        return _from_pytrees(layout, value_and_grad), data
    _check_loss(loss, layout.template, data, batch_size)
    found = cached_program(loss, layout.template, tuple(array[:batch_size] for array in data))
    if found is None:
        return _from_pytrees(layout, autograd.value_and_grad(loss)), data
    source, cast = _from_program(layout, found, data)
    holds = found.outside.holds

    def watched(vectors: Pytree, batch: list[Array]) -> tuple[float, Pytree]:
        if not holds():
            raise _OutsideChanged
        return source(vectors, batch)

    return (watched if found.outside.watches else source), cast


def _from_pytrees(layout: FlatLayout, value_and_grad: ValueAndGrad) -> Source:
    """Return the loss and its gradient as flat vectors, from a function of pytrees."""
    structure_is_known = False

    def source(vectors: Pytree, batch: list[Array]) -> tuple[float, Pytree]:
        nonlocal structure_is_known
        params = layout.tree(vectors)
        loss, grads = value_and_grad(params, *batch)
        if not structure_is_known:
            _require_scalar(loss)
            same_structure("params", params, "the gradient", grads)
            structure_is_known = True
        return float(loss), layout.pack_grads(grads)

    return source


def _from_program(
    layout: FlatLayout, found: Watched, data: list[Array]
) -> tuple[Source, list[Array]]:
    """Return the loss and its gradient from a derived program, and the data as it takes it."""
    program = found.program
    assert program is not None
    if any(turned or first != i for i, (first, turned) in enumerate(layout.sharing.places)):
        return _from_pytrees(layout, program), data
    make, data_dtypes = program.buffered
    params, grads = (layout.pack_tree(layout.template) for _ in range(2))
    run = make(layout.views(params), layout.views(grads))

    def source(vectors: Pytree, batch: list[Array]) -> tuple[float, Pytree]:
        tree_map(np.copyto, params, vectors)
        # The optimizer may keep what it is given, so it is given a copy of the buffers.
        return float(run(*batch)), tree_map(np.array, grads)

    cast = [array.astype(dtype, copy=False) for array, dtype in zip(data, data_dtypes, strict=True)]
    return source, cast


def _make_step(source: Source, optimizer: Optimizer, max_grad: float | None) -> Step:
    """Return step(vectors, optimizer_state, batch) -> (loss, vectors, optimizer_state)."""

    def step(
        vectors: Pytree, optimizer_state: Any, batch: list[Array]
    ) -> tuple[float, Pytree, Any]:
        loss, grads = source(vectors, batch)
        if max_grad is not None:
            grads = clip_grads(grads, max_grad)
        return loss, *optimizer.update(vectors, grads, optimizer_state)

    return step


# -------------------- the loop --------------------


class _Cursor(NamedTuple):
    """A place in the sequence of batches: `order` holds the `draws` shuffles since the stream."""

    epoch: int
    iteration: int
    order: Array
    draws: int


class _Place(NamedTuple):
    """What one update changes, replaced in one assignment: a Ctrl-C finds the old or the new."""

    vectors: Pytree
    optimizer_state: Any
    cursor: _Cursor
    evaluations: int
    losses_since: tuple[float, int]


def _batches(
    start: _Cursor, last_epoch: int, stream: Stream, data: list[Array], batch_size: int
) -> Iterator[tuple[_Cursor, list[Array]]]:
    """Yield each batch with the cursor behind it."""
    order, draws, first = start.order, start.draws, start.iteration
    max_iters = len(order) // batch_size
    for epoch in range(start.epoch, last_epoch):
        if first == 0:
            order, draws = order[stream.permutation(len(order))], draws + 1
        shuffled = [array[order] for array in data]
        for i in range(first, max_iters):
            batch = [array[i * batch_size : (i + 1) * batch_size] for array in shuffled]
            carry, iteration = divmod(i + 1, max_iters)
            yield _Cursor(epoch + carry, iteration, order, draws), batch
        first = 0


def _run(
    state: TrainState,
    layout: FlatLayout,
    last_epoch: int,
    step: Step,
    data: list[Array],
    batch_size: int,
    on_eval: Callable[[Evaluation], Any] | None,
    started: float,
) -> TrainState:
    stream = _stream_of(state)
    losses = list(state.loss_list)
    max_iters = len(data[0]) // batch_size
    cursor = _Cursor(state.epoch, state.iteration, state.order, state.draws)
    vectors = layout.pack_tree(state.params)
    place = good = _Place(vectors, state.optimizer_state, cursor, len(losses), state.losses_since)
    try:
        for behind, batch in _batches(cursor, last_epoch, stream, data, batch_size):
            epoch, iteration = place.cursor.epoch + 1, place.cursor.iteration + 1
            loss, vectors, optimizer_state = step(place.vectors, place.optimizer_state, batch)
            if not math.isfinite(loss):
                place = good
                raise NonFiniteLossError(_stopped(f"the loss is {loss}", epoch, iteration))
            total, count = place.losses_since[0] + loss, place.losses_since[1] + 1
            ends = state.eval_interval is not None and count >= state.eval_interval
            if ends:
                losses.append(total / count)
                total, count = 0.0, 0
            evaluations = place.evaluations + ends
            good, place = (
                place,
                _Place(vectors, optimizer_state, behind, evaluations, (total, count)),
            )
            if ends and on_eval is not None:
                elapsed = time.monotonic() - started
                params = layout.tree(vectors)
                on_eval(Evaluation(epoch, iteration, max_iters, elapsed, losses[-1], params))
        if not all(np.isfinite(vector).all() for vector in leaves(place.vectors)):
            place = good
            raise NonFiniteLossError(_stopped("the last update is not finite", epoch, iteration))
        return replace(_snapshot(state, layout, place, losses), rng=stream, draws=0)
    except BaseException as stop:
        stop.state = _snapshot(state, layout, place, losses)  # type: ignore[attr-defined]
        raise


def _snapshot(
    state: TrainState, layout: FlatLayout, place: _Place, losses: list[float]
) -> TrainState:
    return replace(
        state,
        params=layout.tree(place.vectors),
        loss_list=tuple(losses[: place.evaluations]),
        optimizer_state=place.optimizer_state,
        losses_since=place.losses_since,
        **place.cursor._asdict(),
    )


def _stopped(what: str, epoch: int, iteration: int) -> str:
    return (
        f"{what} at epoch {epoch}, iteration {iteration}: a smaller learning rate or max_grad may "
        "help; this error's attribute `state` is the last good state"
    )


# -------------------- the door --------------------


def _checked_data(data: tuple[Any, ...], batch_size: int) -> list[Array]:
    if not data:
        raise TypeError("fit needs data after params, such as fit(params, x, t)")
    names = ["x", "t", *(f"data[{i}]" for i in range(2, len(data)))]
    arrays = [finite_array(name, value) for name, value in zip(names, data, strict=False)]
    for name, array in zip(names, arrays, strict=False):
        if array.ndim == 0:
            raise ValueError(f"{name} must have one entry for each example, got a scalar")
        if len(array) != len(arrays[0]):
            raise ValueError(
                f"x and {name} must have one entry for each example, got {len(arrays[0])} and "
                f"{len(array)}"
            )
    if batch_size > len(arrays[0]):
        raise ValueError(
            f"batch_size must be at most the number of examples, {len(arrays[0])}, got "
            f"{batch_size}: there would be no whole batch to train on"
        )
    return arrays


def _begun(params: Pytree, optimizer: Optimizer, samples: int, rng: Random | None) -> TrainState:
    params = float_tree("params", params)
    layout = FlatLayout.of(params)
    return TrainState(
        params=params,
        loss_list=(),
        epoch=0,
        iteration=0,
        eval_interval=None,
        optimizer=optimizer.name,
        optimizer_state=optimizer.init(layout.pack_tree(params)),
        rng=np.random.RandomState() if rng is None else copy.deepcopy(random_stream(rng)),
        draws=0,
        order=np.arange(samples),
        losses_since=(0.0, 0),
        sharing=layout.sharing,
    )


def _resumed(
    state: TrainState, optimizer: Optimizer, samples: int, batch_size: int, rng: Random | None
) -> TrainState:
    if state.optimizer != optimizer.name:
        raise ValueError(
            f"optimizer must be {state.optimizer}, with which the state was trained, got "
            f"{optimizer.name}; start anew from state.params to change it"
        )
    if len(state.order) != samples:
        raise ValueError(
            f"the state was trained on {len(state.order)} examples, got {samples}; start anew "
            "from state.params to train on other data"
        )
    max_iters = samples // batch_size
    if state.iteration >= max_iters:
        raise ValueError(
            f"batch_size must be the one that the state was trained with: it stands behind "
            f"iteration {state.iteration} of an epoch, which now has {max_iters}"
        )
    float_tree("state.params", state.params)
    if rng is not None:
        return replace(state, rng=copy.deepcopy(random_stream(rng)), draws=0)
    return state


def _stream_of(state: TrainState) -> Stream:
    """Return the stream of a state, moved on to its present place."""
    stream = copy.deepcopy(state.rng)
    for _ in range(state.draws):
        stream.permutation(len(state.order))
    return stream


def _check_loss(loss: Loss, params: Pytree, data: list[Array], batch_size: int) -> None:
    for start in range(0, len(data[0]), batch_size):
        value = loss(params, *(array[start : start + batch_size] for array in data))
        _require_scalar(value)
        if not np.isfinite(value):
            raise ValueError(f"the loss is {value} for the parameters given, before any update")


def _require_scalar(loss: Any) -> None:
    if np.ndim(loss) != 0:
        raise TypeError(
            f"loss must return a scalar, got the shape {np.shape(loss)}; np.mean makes one"
        )
    if np.asarray(loss).dtype.kind not in "fiu":
        raise TypeError(f"loss must return a real number, got {loss!r}")
