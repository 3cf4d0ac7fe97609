"""How many processes are worth starting."""

from __future__ import annotations

import os


def count_cores() -> int:
    """Cores that this process may use: a container or a batch job may have fewer than the machine."""
    affinity = getattr(os, "sched_getaffinity", None)
    return len(affinity(0)) if affinity else os.cpu_count() or 1
