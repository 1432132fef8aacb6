"""The trainer: a loop over shuffled batches, as a function from state to state."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from functools import partial
from types import NoneType
from typing import Any, NamedTuple

import numpy as np

from . import network
from .gradient_sources import (
    Buffers,
    Loss,
    Source,
    ValueAndGrad,
    automatic_sources,
    source_of_pytrees,
)
from .optimizers import Optimizer, clip_grads, sgd
from .progress import EVERY as PROGRESS_EVERY
from .progress import progress, watched
from .pytree import FlatLayout, Pytree, leaves, tree_map
from .saving import save
from .train_state import Evaluation, NonFiniteLossError, TrainState, begun, resumed, stream_of
from .validation import Array, Random, Stream, finite_array, hinting, number, positive_integer

Keep = Callable[[TrainState], Any]

SAVE_EVERY = 1.0  # seconds between two checkpoints
MOST_UPDATES = 20  # between which a state is noted, and checkpoints and progress come by
QUICK = 0.01  # seconds: where an update takes longer, each is noted: that costs little beside it


@hinting
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
    checkpoint: str | os.PathLike[str] | Keep | None = None,
    show_progress: bool | None = None,
) -> TrainState:
    """Train on shuffled batches for `max_epoch` more epochs, and return the new state.

    Each epoch re-orders the data, already shuffled by the epochs before it, by one
    ``permutation``; the examples that fill no whole batch are dropped. Nothing that is given is
    mutated, not even the random stream, and 100 epochs, then 200 from the state that they return,
    are 300 bit for bit. Saito, *Deep Learning from Scratch 2*, sections 1.4.3 and 1.4.4.

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
        The initial parameters, or the state from which to go on. An array that stands in the
        pytree twice, or once more transposed, is one parameter, and stays one.
    *data : arrays
        With one entry for each example, such as x and t.
    loss : callable, default `network.loss`
        ``loss(params, *batch)`` returns a scalar. Before the first update it is called on all the
        data, so that data which it refuses is refused before any work.
    value_and_grad : callable, optional
        ``value_and_grad(params, *batch)`` returns the loss and its gradient, a pytree as `params`;
        `loss` then is not used.
    optimizer : Optimizer, default ``sgd(0.01)``
    max_epoch, batch_size : int
        How many epochs more, of batches of how many examples. An epoch that was interrupted is
        finished and counts. From a state, 0 epochs return it as it is.
    max_grad : float, optional
        The largest global L2 norm of the gradient: see `clip_grads`.
    eval_interval : int or None
        After every so many iterations, counted over all epochs, their mean loss is kept in
        ``loss_list`` and handed to `on_eval`. None: never.
    rng : int, RandomState or Generator, optional
        The stream of the shuffles; by default the state's, or a new one from fresh entropy.
    on_eval : callable, optional
        Receives an `Evaluation` at the end of each interval; ``print`` writes the book's log.
    checkpoint : path of a file, or callable, optional
        Where the state is saved (see `save`) before the first update, each second and at the end,
        whatever ends the run: ``fit(load(path), x, t, ...)`` goes on even from a run that was
        killed. A function is given the state at these times.
    show_progress : bool, optional
        By default, how far the run is shows in a terminal or a notebook where there is no
        `on_eval`, as a bar where tqdm is installed.

    Raises
    ------
    ValueError, TypeError
        Before any work, for data, parameters, a loss, a gradient, a state or an option that do not
        fit together, or are not finite.
    NonFiniteLossError
        When the loss becomes NaN or infinite during training, with the epoch and iteration.

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
    for name, value, others, what in (
        ("loss", loss, (), "a function"),
        ("value_and_grad", value_and_grad, NoneType, "a function"),
        ("on_eval", on_eval, NoneType, "a function"),
        ("checkpoint", checkpoint, str | os.PathLike | None, "the path of a file or a function"),
    ):
        if not callable(value) and not isinstance(value, others):
            raise TypeError(f"{name} must be {what}, got {value!r}")
    arrays = _checked_data(data, batch_size)
    if isinstance(start, TrainState):
        state = resumed(start, optimizer, len(arrays[0]), batch_size, rng)
    else:
        state = begun(start, optimizer, len(arrays[0]), rng)
    state = replace(state, eval_interval=eval_interval)
    last_epoch = state.epoch + max_epoch
    loop = _Loop(state, optimizer, max_grad, batch_size, last_epoch, on_eval, started)
    try:
        loop.keep_and_show(checkpoint, show_progress)
        if value_and_grad is not None:
            return loop.run([source_of_pytrees(loop.buffers, value_and_grad, arrays)])
        room = min(MOST_UPDATES, loop.max_iters, eval_interval or MOST_UPDATES)
        return loop.run(automatic_sources(loop.buffers, loss, arrays, batch_size, room))
    except BaseException as stop:
        stop.state = loop.state()  # type: ignore[attr-defined]
        loop.end(stop.state)  # type: ignore[attr-defined]
        raise


def _every(seconds: float, call: Callable[[], Any]) -> Callable[[], None]:
    """Return what calls a function at most once in so many seconds."""
    last = time.monotonic()

    def hook() -> None:
        nonlocal last
        now = time.monotonic()
        if now - last >= seconds:
            call()
            last = time.monotonic()

    return hook


def _checked_data(data: tuple[Any, ...], batch_size: int) -> list[Array]:
    """Return the data as arrays of one length, at least that of a batch, or raise."""
    if not data:
        raise TypeError("fit needs data after params, such as fit(params, x, t)")
    names = ["x", "t", *(f"data[{i}]" for i in range(2, len(data)))][: len(data)]
    arrays = [finite_array(name, value) for name, value in zip(names, data, strict=True)]
    for name, array in zip(names, arrays, strict=True):
        if array.ndim == 0:
            raise ValueError(f"{name} must have one entry for each example, got a scalar")
        if len(array) != len(arrays[0]):
            lengths = f"{len(arrays[0])} and {len(array)}"
            raise ValueError(f"x and {name} must have one entry for each example, got {lengths}")
    if batch_size > len(arrays[0]):
        raise ValueError(
            f"batch_size must be at most the number of examples, {len(arrays[0])}, got "
            f"{batch_size}: there would be no whole batch to train on"
        )
    return arrays


# -------------------- the loop --------------------


class _Place(NamedTuple):
    """What one update changes, replaced in one assignment: a Ctrl-C finds the old or the new."""

    vectors: Pytree
    evaluations: int
    losses_since: tuple[float, int]  # this and what follows: the fields of TrainState
    optimizer_state: Any
    epoch: int
    iteration: int
    order: Array
    draws: int


@dataclass(eq=False)
class _Loop:
    """The loop over the batches; where it stands is its `place`, and all else stays the same."""

    start: TrainState
    optimizer: Optimizer
    max_grad: float | None
    batch_size: int
    last_epoch: int
    on_eval: Callable[[Evaluation], Any] | None
    started: float
    hooks: list[Callable[[], None]] = field(default_factory=list)  # called behind some updates
    ends: list[Keep] = field(default_factory=list)  # called with the last state
    sources: list[Source] = field(default_factory=list)  # each serves as long as it holds

    def __post_init__(self) -> None:
        start = self.start
        self.layout = FlatLayout.of(start.params, start.sharing)
        self.losses = list(start.loss_list)
        self.max_iters = len(start.order) // self.batch_size
        vectors, evaluations = self.layout.pack_tree(start.params), len(self.losses)
        same = (getattr(start, name) for name in _Place._fields[2:])
        self.place = self.good = _Place(vectors, evaluations, *same)
        self.order, self.draws = start.order, start.draws  # of the epoch that is worked at
        self.buffers = Buffers(self.layout, *tree_map(np.array, (vectors, vectors)))
        self.rule = self.optimizer.updating(*self.buffers[1:])
        self.loaded: Pytree = None  # the vectors whose numbers stand in the buffers

    def state(self) -> TrainState:
        """Return the state at the present place."""
        fields = self.place._asdict()
        params = self.layout.tree(fields.pop("vectors"))
        losses = tuple(self.losses[: fields.pop("evaluations")])
        return replace(self.start, params=params, loss_list=losses, **fields)

    def run(self, sources: list[Source]) -> TrainState:
        """Train to the end of the last epoch, and return the state there."""
        self.sources = sources
        stream, is_quick = stream_of(self.start), True
        for first, end in self.stretches(stream):
            began = time.perf_counter()
            (self.advance if is_quick else self.advance_one_by_one)(first, end)
            is_quick = time.perf_counter() - began < QUICK * (end - first)
        if not all(np.isfinite(vector).all() for vector in leaves(self.place.vectors)):
            self.place = self.good
            raise _not_finite("the last update is not finite", self.good)
        state = replace(self.state(), rng=stream, draws=0)
        self.end(state)
        return state

    def update(self, remembered: Any) -> Any:
        """Update the parameters in the buffers: what the rule remembers becomes the next."""
        if self.max_grad is not None:
            grads = self.buffers.grads
            tree_map(np.copyto, grads, clip_grads(grads, self.max_grad))
        return self.rule(remembered)

    def advance(self, first: int, end: int) -> None:
        """Make some updates of an epoch in the buffers, and look at their losses behind them.

        What stops them there is met once more one by one, which ends in the last whole state.
        """
        while not self.sources[0].holds():
            del self.sources[0]
        source, update, params = self.sources[0], self.update, self.buffers.params
        if end - first > len(source.steps):
            return self.advance_one_by_one(first, end)
        before, done, losses = self.place, first, []
        vectors, evaluations, (total, count), remembered, epoch, *_ = begun = before
        try:
            if self.loaded is not vectors:
                tree_map(np.copyto, params, vectors)
            self.loaded = None
            source.load(self.order[first * self.batch_size : end * self.batch_size], vectors)
            # No code of the user's runs in between: one look at what it reaches will do.
            for done, step in enumerate(source.steps[: end - first], first):
                if done > first:
                    remembered = update(remembered)
                step()
            *losses, last = source.losses(end - first).tolist()
            if all(map(math.isfinite, (*losses, last))):
                if losses:
                    for loss in losses:
                        total += loss
                    place = tree_map(np.array, params), evaluations
                    since = total, count + len(losses)
                    before = _Place(*place, since, remembered, epoch, done, self.order, self.draws)
                remembered = update(remembered)
                self.loaded = vectors = tree_map(np.array, params)
                return self.go_on(before, last, vectors, remembered)
        except BaseException:
            if self.place is begun:
                self.advance_one_by_one(first, min(done, end - 1))
            raise
        if losses:
            return self.advance_one_by_one(first, end)
        self.place = self.good
        raise _not_finite(f"the loss is {last}", begun)

    def advance_one_by_one(self, first: int, end: int) -> None:
        """Make some updates, each of which leaves a whole state."""
        for i in range(first, end):
            self.advance(i, i + 1)

    def go_on(self, before: _Place, loss: float, vectors: Pytree, remembered: Any) -> None:
        """Go to the place behind an update, and tell of it."""
        _, evaluations, (total, count), _, epochs, iteration, *_ = before
        since, interval = (total + loss, count + 1), self.start.eval_interval
        ends = interval is not None and since[1] >= interval
        if ends:
            self.losses[evaluations:] = [since[0] / since[1]]
            since = 0.0, 0
        more, iteration = divmod(iteration + 1, self.max_iters)
        place = vectors, evaluations + ends, since, remembered, epochs + more, iteration
        self.good, self.place = before, _Place(*place, self.order, self.draws)
        if ends and self.on_eval is not None:
            self.on_eval(self.evaluation(before))
        for hook in self.hooks:
            hook()

    def end(self, state: TrainState) -> None:
        """Do what is left to do with the last state."""
        while self.ends:
            self.ends.pop()(state)

    def stretches(self, stream: Stream) -> Iterator[tuple[int, int]]:
        """Yield the first and the end of some updates of an epoch, none beyond an evaluation."""
        interval = self.start.eval_interval
        while self.place.epoch < self.last_epoch:
            first = self.place.iteration
            if first == 0:
                order = self.order[stream.permutation(len(self.order))]
                self.order, self.draws = order, self.draws + 1
            more = MOST_UPDATES if interval is None else interval - self.place.losses_since[1]
            end = min(first + max(more, 1), first + MOST_UPDATES, self.max_iters)
            yield first, end

    def keep_and_show(
        self, checkpoint: str | os.PathLike[str] | Keep | None, show_progress: bool | None
    ) -> None:
        """Save the state, now, during the run and at its end; show how far the run is."""
        if checkpoint is not None:
            keep = checkpoint if callable(checkpoint) else partial(save, path=checkpoint)
            keep(self.start)
            self.hooks.append(_every(SAVE_EVERY, lambda: keep(self.state())))
            self.ends.append(keep)
        if show_progress or (show_progress is None and self.on_eval is None and watched()):
            max_iters = self.max_iters
            first = self.place.epoch * max_iters + self.place.iteration
            show, end = progress(self.last_epoch * max_iters - first)

            def look() -> None:
                loss = f", loss {self.losses[-1]:.4g}" if self.losses else ""
                done = self.place.epoch * max_iters + self.place.iteration - first
                show(done, f"epoch {min(self.place.epoch + 1, self.last_epoch)}{loss}")

            self.hooks.append(_every(PROGRESS_EVERY, look))
            self.ends.append(lambda state: end())

    def evaluation(self, before: _Place) -> Evaluation:
        """Return the evaluation behind the update that was made at a place."""
        return Evaluation(
            epoch=before.epoch + 1,
            iteration=before.iteration + 1,
            max_iters=self.max_iters,
            elapsed=time.monotonic() - self.started,
            loss=self.losses[-1],
            params=self.layout.tree(self.place.vectors),
        )


def _not_finite(what: str, place: _Place) -> NonFiniteLossError:
    """Return the error for what came of the update at a place."""
    return NonFiniteLossError(
        f"{what} at epoch {place.epoch + 1}, iteration {place.iteration + 1}: a smaller learning "
        "rate or max_grad may help; this error's attribute `state` is the last good state"
    )
