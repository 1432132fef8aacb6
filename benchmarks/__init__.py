"""The figures in the README, measured: ``python -m benchmarks``.

Every library gets one thread, before any is imported: on the small arrays of this network more
are no help, and on the large ones the comparison is between programs and not between cores.
"""

import os

for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(name, "1")
os.environ.setdefault("JAX_PLATFORMS", "cpu")
