"""How benchmarks measure and report: jobs in turn, medians, tables with ratios, JSON that names machine and versions.

A benchmark is a script in benchmarks/speed: a docstring whose first line says what it measures, a function that returns tables, and

    if __name__ == "__main__":
        benchmark_main(__doc__, measure)

`frustum bench` runs it, and tools/bench_tables.py puts its tables into the documentation.
"""

from __future__ import annotations

import argparse
import contextlib
import ctypes
import gc
import os
import platform
import statistics
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TypeVar

from frustum.files import write_json
from frustum.types.table import Table as Table

Name = TypeVar("Name")


@dataclass(frozen=True)
class Timing:
    """Wall-clock seconds of the repeats of one job."""

    seconds: tuple[float, ...]

    @property
    def median(self) -> float:
        """The figure to report."""
        return statistics.median(self.seconds)

    @property
    def spread(self) -> float:
        """Distance of the middle half of the repeats, relative to the median: large on a busy machine."""
        if len(self.seconds) < 2:
            return float("nan")
        low, _, high = statistics.quantiles(self.seconds, n=4, method="inclusive")
        return (high - low) / self.median


def take_turns(jobs: Mapping[Name, Callable[[], object]], repeats: int, warm_up: int = 1, calls: int = 1) -> dict[Name, Timing]:
    """Time the jobs in turn (A B A B ...), so that other load on the machine slows all of them alike.

    Args:
        jobs: what to time, by name; a job on a GPU is waited for.
        repeats: timed rounds.
        warm_up: rounds before that are not counted: compilation, caches, first allocations.
        calls: of a job in its turn, one right after the other; their mean is what is noted.
    """
    times: dict[Name, list[float]] = {name: [] for name in jobs}
    torch = sys.modules.get("torch")
    wait = torch.cuda.synchronize if torch is not None and torch.cuda.is_available() else lambda: None
    for turn in range(warm_up + repeats):
        for name, job in jobs.items():
            wait()
            start = time.perf_counter()
            for _ in range(calls):
                job()
            wait()
            if turn >= warm_up:
                times[name].append((time.perf_counter() - start) / calls)
    return {name: Timing(tuple(seconds)) for name, seconds in times.items()}


def peak_rise(job: Callable[[], object]) -> dict[str, float | None]:
    """How far the memory of this process rises above what it holds at the start of the job, MiB, while it runs; and that peak.

    None on Windows, which does not tell.
    """
    gc.collect()
    with contextlib.suppress(OSError, AttributeError, TypeError):  # glibc: memory that is free but still held would hide a part of the rise
        ctypes.CDLL(None).malloc_trim(0)
    clear, status = Path("/proc/self/clear_refs"), Path("/proc/self/status")
    try:
        clear.write_text("5")  # Linux: forget the peak so far
        start: float | None = _status(status, "VmRSS")
        job()
        peak: float | None = _status(status, "VmHWM")
    except OSError:
        start = _most_so_far()
        job()
        peak = _most_so_far()
    if start is None or peak is None:
        return {"rise_mib": None, "peak_mib": None}
    return {"rise_mib": round(peak - start, 1), "peak_mib": round(peak, 1)}


def _status(path: Path, name: str) -> float:
    return next(int(line.split()[1]) for line in path.read_text(encoding="utf-8").splitlines() if line.startswith(name + ":")) / 1024


def _most_so_far() -> float | None:
    """MiB that this process has held at most since it began."""
    try:
        import resource
    except ImportError:  # Windows
        return None
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (2**20 if sys.platform == "darwin" else 2**10)


def machine() -> dict[str, Any]:
    """What the figures depend on: processor, cores, threads, versions, and how busy the machine was when asked."""
    import numba
    import torch

    from frustum.version import __version__

    # numba.get_num_threads() would start its OpenMP threads, which sets torch's number to theirs.
    load = getattr(os, "getloadavg", lambda: (None,))()[0]
    found = {
        "system": f"{platform.system()} {platform.machine()}", "processor": processor_name(), "cores": os.cpu_count(),
        "torch_threads": torch.get_num_threads(), "numba_threads": getattr(numba.config, "NUMBA_NUM_THREADS", None), "load_before": load,
        "python": platform.python_version(), "torch": torch.__version__, "numba": numba.__version__, "frustum": __version__,
    }  # fmt: skip
    if torch.cuda.is_available():
        found["gpu"] = torch.cuda.get_device_name()
    return found


def processor_name() -> str:
    """The processor's name as Linux gives it, else what Python knows."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text(encoding="utf-8").splitlines() if info.is_file() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def describe(found: Mapping[str, Any]) -> str:
    """One line about a machine, as `machine()` returns it."""
    load = "" if found.get("load_before") is None else f", load {found['load_before']:.1f} before the start"
    versions = ", ".join(f"{name} {found[name]}" for name in ("python", "torch", "numba", "frustum"))
    cores, threads = (f"{found[key]} {word}" + "s" * (found[key] != 1) for key, word in (("cores", "core"), ("torch_threads", "thread")))
    on = f"{found['processor']}, {cores}, {threads}" + (f", {found['gpu']}" if "gpu" in found else "")
    return f"{on}; {versions}{load}"


def benchmark_main(doc: str | None, measure: Callable[[bool], Iterable[Table]], arguments: Sequence[str] | None = None) -> None:
    """The command line of a benchmark: measure, print the tables, write them with machine and versions to `--json`."""
    about = (doc or "").strip().splitlines()[0]
    parser = argparse.ArgumentParser(description=about)
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the figures to FILE")
    parser.add_argument("--quick", action="store_true", help="small sizes and few repeats: does it run? The figures mean little")
    options = parser.parse_args(arguments)
    on, start = machine(), time.perf_counter()
    print(describe(on), flush=True)
    tables = []
    for table in measure(options.quick):
        print("\n" + table.plain(), flush=True)
        tables.append(table)
    if options.json:
        seconds = round(time.perf_counter() - start, 1)
        report = {"about": about, "quick": options.quick, "machine": on, "seconds": seconds, "tables": [asdict(t) for t in tables]}
        write_json(options.json, report, indent=2)
