"""`frustum bench`: run the benchmarks of benchmarks/speed, each in a process of its own.

They stay outside the package's modules because they hold the plain formulations that ours are compared with; a wheel carries them along as
`frustum/_benchmarks` (pyproject.toml), so that the verb works wherever the package is installed.
"""

from __future__ import annotations

import ast
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer

from frustum.cli.common import JsonOption, command, say, table, write_json
from frustum.errors import ConfigError, FrustumError, nearest_names


@dataclass(frozen=True)
class Benchmark:
    """A script: what it measures is the first line of its docstring; `--json FILE` makes it write its figures, `--quick` hurry."""

    name: str
    path: Path
    about: str


app = typer.Typer()


@command(
    app,
    "bench",
    "frustum bench --list",
    "frustum bench bev_pool loading",
    "frustum bench --quick --json bench.json",
    after_interrupt="the tables so far stand above, no figures were written; name the benchmarks that are left",
)
def bench(
    names: Annotated[list[str] | None, typer.Argument(metavar="NAME", help="benchmarks to run; by default all", show_default=False)] = None,
    quick: Annotated[bool, typer.Option("--quick", help="small sizes, few repeats: shows that they run; the figures mean little")] = False,
    list_: Annotated[bool, typer.Option("--list", help="only list what there is")] = False,
    json_file: JsonOption = None,
) -> None:
    """Measure how fast things are on this machine, each against its plain formulation in the same run, as medians.

    Let the machine rest meanwhile. All of them take about half an hour on two cores.
    """
    chosen = choose(names or [], find())
    if list_:
        table("Benchmarks", ["name", "what it measures"], [(b.name, b.about) for b in chosen], numbers=False)
        write_json(json_file, {b.name: b.about for b in chosen})
        return
    figures = {}
    for i, benchmark in enumerate(chosen, 1):
        say(f"[{i}/{len(chosen)}] {benchmark.name}: {benchmark.about}")
        sys.stdout.flush()
        report = run(benchmark, quick)
        if report is not None:
            figures[benchmark.name] = report
        say("")
    write_json(json_file, {"quick": quick, "benchmarks": figures})
    if failed := [b.name for b in chosen if b.name not in figures]:
        raise FrustumError(f"benchmarks that failed, with the reason above: {', '.join(failed)}. The others' figures were kept.")


def folder() -> Path:
    """Where the scripts lie: benchmarks/speed of a checkout, or next to the modules of an installed package. Raises ConfigError."""
    package = Path(__file__).resolve().parents[1]
    for place in (package.parent / "benchmarks" / "speed", package / "_benchmarks"):
        if place.is_dir():
            return place
    raise ConfigError(f"there are no benchmarks next to {package}. Install the package again, or run this in a checkout of the repository.")


def find() -> list[Benchmark]:
    """The benchmarks, without importing them."""
    found = []
    for path in sorted(folder().glob("*.py")):
        text = path.read_text(encoding="utf-8")
        about = (ast.get_docstring(ast.parse(text)) or "").split("\n")[0]
        if '__name__ == "__main__"' in text:
            found.append(Benchmark(path.stem, path, about))
    return found


def choose(names: Sequence[str], there: Sequence[Benchmark]) -> list[Benchmark]:
    """Those with the given names, in the order given; all where none are. Raises ConfigError with the nearest names."""
    known = {b.name: b for b in there}
    chosen = {name.replace("-", "_"): name for name in names}
    for name, given in chosen.items():
        if name not in known:
            raise ConfigError(f"there is no benchmark {given!r}; {nearest_names(name, known)} `frustum bench --list` shows all.")
    return [known[name] for name in chosen] if names else list(there)


def run(benchmark: Benchmark, quick: bool = False) -> Any:
    """Run a script, which prints its tables, and return what it wrote; None if it failed."""
    from frustum.files import read_json

    with tempfile.TemporaryDirectory() as temporary:
        written = Path(temporary) / "figures.json"
        command = [sys.executable, str(benchmark.path), "--json", str(written)]
        done = subprocess.run(command + (["--quick"] if quick else []), check=False)
        return read_json(written, "result of the benchmark") if done.returncode == 0 and written.is_file() else None
