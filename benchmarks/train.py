"""One program's whole training, from start to trained network.

Run with: python -m benchmarks.train NAME
"""

import sys

from .programs import module
from .spiral import task

LR, EPOCHS, BATCH_SIZE = 1.0, 300, 30  # the book's: 3,000 steps

if __name__ == "__main__":
    trained = module(sys.argv[1]).train(task(), LR, EPOCHS, BATCH_SIZE)
    print(*(f"{(array**2).sum():.12g}" for _, array in sorted(trained.items())))
