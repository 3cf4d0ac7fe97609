"""How many processes and threads are worth starting: numba's parallel kernels get as many threads as torch's operations."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable
from typing import Any

import numba
import torch


def count_cores() -> int:
    """Cores that this process may use: a container or a batch job may have fewer than the machine."""
    affinity = getattr(os, "sched_getaffinity", None)
    return len(affinity(0)) if affinity else os.cpu_count() or 1


def on_torch_threads(kernel: Callable[..., Any]) -> Callable[..., Any]:
    """Decorate a kernel that is compiled with parallel=True.

    By itself numba takes all cores, whatever OMP_NUM_THREADS or torch.set_num_threads say; and where both libraries share one OpenMP
    runtime, the start of numba's threads sets torch's number to numba's: trainings that share a machine would then fight for its cores.
    """

    @functools.wraps(kernel)
    def run(*arguments: Any) -> Any:
        threads = torch.get_num_threads()
        numba.set_num_threads(max(1, min(threads, vars(numba.config)["NUMBA_NUM_THREADS"])))
        try:
            return kernel(*arguments)
        finally:
            if torch.get_num_threads() != threads:
                torch.set_num_threads(threads)

    return run
