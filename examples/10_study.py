"""How often does the book's network learn the spiral?

A study over seeds, learning rates and sizes of the hidden layer, on all processors of this
machine, or on a Dask cluster: `python examples/10_study.py --scheduler tcp://ADDRESS:8786`. Each
result is saved as it comes, so that a study goes on where it stopped.
"""

# %% What is varied
import argparse
import contextlib
import itertools
import sys
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path

import joblib
import matplotlib.pyplot as plt
import numpy as np

import spiral_autograd as sa

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("--seeds", type=int, default=10, help="runs of each kind")
parser.add_argument("--epochs", type=int, default=300, help="of each run")
parser.add_argument("--rates", type=float, nargs="+", default=[0.3, 1.0, 3.0])
parser.add_argument("--hidden", type=int, nargs="+", default=[3, 4, 5, 10])
parser.add_argument("--scheduler", help="address of a Dask scheduler, such as tcp://host:8786")
options = parser.parse_args([] if "ipykernel" in sys.modules else None)  # in a notebook: none
output = Path("spiral-output")
folder = output / "10_study"
folder.mkdir(parents=True, exist_ok=True)


# %% One run: a function of its arguments, which any process can call
def train(hidden, rate, seed, epochs):
    rng = np.random.default_rng(seed)  # of the start and the shuffles; the data are the book's
    x, t = sa.load_data(1984)
    params = sa.init_params(2, hidden, 3, rng=rng)
    settings = {"optimizer": sa.sgd(rate), "batch_size": 30, "max_epoch": epochs}
    try:
        state = sa.fit(params, x, t, rng=rng, show_progress=False, **settings)
    except sa.NonFiniteLossError as stop:  # too high a rate: not learned, and no reason to stop
        state = stop.state
    run = {"hidden": hidden, "rate": rate, "seed": seed, "epochs": epochs}
    return run | {"accuracy": sa.accuracy(state.params, x, t)}


def file_of(hidden, rate, seed, epochs):
    return folder / f"hidden {hidden}, rate {rate:g}, seed {seed}, epochs {epochs}.npz"


# %% All runs: here by joblib's processes, there by Dask's workers
kinds = list(itertools.product(options.hidden, options.rates))
runs = [(*kind, seed, options.epochs) for kind in kinds for seed in range(options.seeds)]


def run_all(jobs):
    parallel = joblib.Parallel(n_jobs=-1, return_as="generator_unordered")
    for result in parallel(joblib.delayed(train)(*job) for job in jobs):
        sa.save(result, file_of(*(result[key] for key in ("hidden", "rate", "seed", "epochs"))))


with contextlib.ExitStack() as stack:
    if options.scheduler:  # whose workers need this library, and no disk in common
        from dask.distributed import Client

        stack.enter_context(Client(options.scheduler))
        stack.enter_context(joblib.parallel_config(backend="dask"))
    for _ in range(3):
        left = [run for run in runs if not file_of(*run).exists()]
        print(f"{len(runs) - len(left)} of {len(runs)} runs are done")
        if not left:
            break
        try:
            run_all(left)
        except BrokenProcessPool:  # a process was killed; Dask gives its runs to another worker
            print("a process has died: what it had not finished is run again")
    else:
        sys.exit("processes die again and again: is there enough memory?")


# %% A table: how many learned it (90 % of the points), and Wilson's interval for the share
def wilson(count, n, z=1.96):
    """Return the 95 % interval of a proportion (Wilson 1927), which holds at 0 and 1 too."""
    centre, half = count + z**2 / 2, z * np.sqrt(count * (n - count) / n + z**2 / 4)
    return (centre - half) / (n + z**2), (centre + half) / (n + z**2)


table = {}
print(" hidden  rate  learned  95 % interval")
for hidden, rate in kinds:
    files = [file_of(hidden, rate, seed, options.epochs) for seed in range(options.seeds)]
    learned = sum(sa.load(file)["accuracy"] >= 0.9 for file in files)
    low, high = wilson(learned, len(files))
    table[hidden, rate] = learned / len(files), low, high
    print(f"{hidden:7}  {rate:4g}  {learned:3} of {len(files)}  {low:.0%} to {high:.0%}")

# %% A picture: the share that learned it, with its interval
_, ax = plt.subplots(figsize=(6.4, 4.0), layout="constrained")
for i, rate in enumerate(options.rates):
    share, low, high = np.array([table[hidden, rate] for hidden in options.hidden]).T
    at = np.arange(len(share)) + 0.1 * (i - (len(options.rates) - 1) / 2)  # beside each other
    apart = np.maximum([share - low, high - share], 0)
    bars = {"yerr": apart.tolist(), "capsize": 3}
    color, marker = (some[i % len(some)] for some in (sa.plotting.COLORS, "os^Dv"))
    ax.errorbar(at, share, **bars, fmt=f"{marker}-", lw=1, color=color, label=f"rate {rate:g}")
ax.set_xticks(np.arange(len(options.hidden)), options.hidden)
ax.set(xlabel="units in the hidden layer", ylabel="share that learned the spiral")
ax.set_ylim(-0.03, 1.03)
ax.yaxis.set_major_formatter("{x:.0%}")
ax.spines[["top", "right"]].set_visible(False)
ax.set_title(f"{options.seeds} runs each, {options.epochs} epochs; 95 % intervals", fontsize=10)
ax.legend(frameon=False, loc="center left", bbox_to_anchor=(1.0, 0.5))
ax.figure.savefig(output / "10_study.png", dpi=150)
