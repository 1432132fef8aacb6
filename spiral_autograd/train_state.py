"""The values of a training run: where it stands, what it reports, how it ends too early."""

from __future__ import annotations

import copy
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from .optimizers import Optimizer
from .pytree import FlatLayout, Pytree, Sharing, float_tree, named_leaves
from .validation import Array, Random, Stream, random_stream


@dataclass(frozen=True, eq=False, repr=False)
class TrainState:
    """Where a training run stands, as a value: all that `fit` needs to go on.

    Examples
    --------
    >>> from spiral_autograd import fit, init_params
    >>> x, t = np.zeros((4, 2)), np.array([0, 1, 0, 1])
    >>> fit(init_params(2, 3, 2, rng=0), x, t, max_epoch=5, batch_size=2, rng=0).epoch
    5
    """

    params: Pytree  # of float arrays
    optimizer: str  # its name
    optimizer_state: Any  # what it remembers
    rng: Stream  # of the shuffles
    order: Array  # int, of the examples in the last epoch begun; the next one re-orders it
    sharing: Sharing  # which leaves of the parameters are one array
    loss_list: tuple[float, ...] = ()  # the mean of each interval
    losses_since: tuple[float, int] = (0.0, 0)  # their sum and number
    eval_interval: int | None = None  # in iterations
    epoch: int = 0  # the whole epochs behind
    iteration: int = 0  # updates in the epoch begun: 0 but where the run was interrupted
    draws: int = 0  # the shuffles drawn since `rng` stood so: the same

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
    """What `fit` hands to `on_eval` at the end of an interval; as text, a line of the book's log.

    Examples
    --------
    >>> print(Evaluation(epoch=1, iteration=10, max_iters=10, elapsed=0.3, loss=1.1256, params={}))
    | epoch 1 | iter 10 / 10 | time 0[s] | loss 1.13
    """

    epoch: int  # counted from 1
    iteration: int  # within the epoch, counted from 1
    max_iters: int  # of an epoch
    elapsed: float  # seconds since `fit` was called
    loss: float  # the mean of the interval
    params: Pytree = field(repr=False)  # after the update of this iteration

    def __str__(self) -> str:
        return (
            f"| epoch {self.epoch} | iter {self.iteration} / {self.max_iters} "
            f"| time {int(self.elapsed)}[s] | loss {self.loss:.2f}"
        )


class NonFiniteLossError(FloatingPointError):
    """The loss, or the last update, became NaN or infinite.

    Its attribute ``state`` is the last good state: the last one whose loss was finite.

    Examples
    --------
    >>> issubclass(NonFiniteLossError, ArithmeticError)
    True
    """


# -------------------- the first state of a run --------------------


def begun(params: Pytree, optimizer: Optimizer, samples: int, rng: Random | None) -> TrainState:
    """Return the state of a new run; without `rng` its stream is of fresh entropy."""
    params = float_tree("params", params)
    layout = FlatLayout.of(params)
    return TrainState(
        params=params,
        optimizer=optimizer.name,
        optimizer_state=optimizer.init(layout.pack_tree(params)),
        rng=np.random.RandomState() if rng is None else _own_stream(rng),
        order=np.arange(samples),
        sharing=layout.sharing,
    )


def resumed(
    state: TrainState, optimizer: Optimizer, samples: int, batch_size: int, rng: Random | None
) -> TrainState:
    """Return the state from which a run goes on: that given, or with another stream; or raise."""
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
    if state.iteration >= samples // batch_size:
        raise ValueError(
            "batch_size must be the one that the state was trained with: it stands behind "
            f"iteration {state.iteration} of an epoch, which now has {samples // batch_size}"
        )
    float_tree("state.params", state.params)
    if rng is None:
        return state
    return replace(state, rng=_own_stream(rng), draws=0)


def _own_stream(rng: Random) -> Stream:
    stream = random_stream(rng)
    return copy.deepcopy(stream) if stream is rng else stream


def stream_of(state: TrainState) -> Stream:
    """Return a copy of the stream of a state, behind the draws of its present place."""
    stream = copy.deepcopy(state.rng)
    for _ in range(state.draws):
        stream.permutation(len(state.order))
    return stream
