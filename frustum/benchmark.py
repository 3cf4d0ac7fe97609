"""How benchmarks measure and report: jobs in turn, medians, tables with ratios, JSON that names machine and versions.

A benchmark is a script in benchmarks/speed: a docstring whose first line says what it measures, a function that returns tables, and

    if __name__ == "__main__":
        benchmark_main(__doc__, measure)

`frustum bench` runs it, and tools/bench_tables.py puts its tables into the documentation.
"""

from __future__ import annotations

import argparse
import os
import platform
import statistics
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from frustum.files import write_json

Cell = str | float | None
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


@dataclass(frozen=True)
class Table:
    """Rows of figures, the first column naming the row; None is printed as `-`.

    Attributes:
        title: what was measured, sizes included.
        columns: headings with units.
        rows: as many cells as there are columns.
        note: what a reader must know to read the figures.
    """

    title: str
    columns: Sequence[str]
    rows: list[Sequence[Cell]] = field(default_factory=list)
    note: str = ""

    def __post_init__(self) -> None:
        for row in self.rows:
            if len(row) != len(self.columns):
                raise ValueError(f"row {row[0]!r} has {len(row)} cells for {len(self.columns)} columns of {self.title!r}")

    def texts(self) -> list[list[str]]:
        """The rows as text: numbers with three significant digits."""
        return [[show(cell) for cell in row] for row in self.rows]

    def plain(self) -> str:
        """For a terminal."""
        rows = [list(self.columns), *self.texts()]
        widths = [max(len(row[i]) for row in rows) for i in range(len(self.columns))]
        lines = [
            "  ".join(cell.ljust(w) if i == 0 else cell.rjust(w) for i, (cell, w) in enumerate(zip(row, widths, strict=True)))
            for row in rows
        ]
        return "\n".join([self.title, *(f"  {line.rstrip()}" for line in lines), *([f"  {self.note}"] if self.note else [])])

    def markdown(self) -> str:
        """For the documentation."""
        align = ["---", *["---:"] * (len(self.columns) - 1)]
        lines = ["| " + " | ".join(cells) + " |" for cells in (self.columns, align, *self.texts())]
        return "\n".join([f"**{self.title}**", "", *lines, *(["", self.note] if self.note else [])])


def show(cell: Cell) -> str:
    """A cell as text: three significant digits, never in exponents above 0.001."""
    if cell is None or cell != cell:
        return "-"
    if isinstance(cell, str):
        return cell
    if cell == 0 or abs(cell) < 1e-3:
        return f"{cell:.2g}"
    if abs(cell) >= 100 or isinstance(cell, int):
        return f"{cell:,.0f}"
    return f"{cell:.3g}"


def take_turns(jobs: Mapping[Name, Callable[[], object]], repeats: int, warm_up: int = 1) -> dict[Name, Timing]:
    """Time the jobs in turn (A B A B ...), so that other load on the machine slows all of them alike.

    Args:
        jobs: what to time, by name; a job on a GPU is waited for.
        repeats: timed rounds.
        warm_up: rounds before that are not counted: compilation, caches, first allocations.
    """
    times: dict[Name, list[float]] = {name: [] for name in jobs}
    wait = _waiter()
    for turn in range(warm_up + repeats):
        for name, job in jobs.items():
            wait()
            start = time.perf_counter()
            job()
            wait()
            if turn >= warm_up:
                times[name].append(time.perf_counter() - start)
    return {name: Timing(tuple(seconds)) for name, seconds in times.items()}


def _waiter() -> Callable[[], None]:
    torch = sys.modules.get("torch")
    return torch.cuda.synchronize if torch is not None and torch.cuda.is_available() else lambda: None


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
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
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
