"""What a scheduler sets in its interpreter before it imports anything else."""

from __future__ import annotations

import gc
import os

# The garbage collector stops all threads. With Python's first threshold of 700, records of short tasks count as old.
# Next to 100,000 tasks, this causes a collection of all objects every few seconds, which takes 0.2 s. The imports of a
# start cause a hundred collections, which find almost nothing.
_GC_THRESHOLDS = (10_000, 50, 20)


def prepare() -> None:
    gc.set_threshold(*_GC_THRESHOLDS)
    # numpy would start a thread for each core. They compute products of matrices, which the scheduler never needs.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
