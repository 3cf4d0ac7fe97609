"""Learn everything about this package on a GPU from one unattended command: tests, training, speed, memory, in under seven minutes.

    python tools/gpu_check.py --plan            what it would do, and for how long; touches no GPU
    python tools/gpu_check.py                   do it; figures and a log of each part in runs/gpu
    python tools/gpu_check.py forward rays      only these parts
    python tools/bench_tables.py runs/gpu/gpu.json docs/performance.md    put the tables into the documentation

Needs a checkout, a GPU that torch sees, and the packages that frustum depends on; nothing is installed and nothing downloaded. Every part
runs in a process of its own with its own time limit, so that a failure, a crash or a hang of one does not hide the others, and writes each
result as it comes. `--stand-in` replaces the GPU by the CPU and shrinks all sizes: it shows that the script runs, and its figures mean
nothing. The exit code is 0 if every part passed, else 1.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib.util
import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
if str(ROOT) not in sys.path:
    sys.path.insert(0, str(ROOT))  # a checkout that is not installed

from tools.gpu_device import Gpu, Run, StandIn  # noqa: E402
from tools.gpu_parts import PARTS  # noqa: E402

IMPORTED_AS = {"pillow": "PIL"}
GOALS = {  # what figure: (goal, whether it must lie below it)
    "bev_pool M1, forward, ms": (0.13, True),
    "bev_pool M1, forward + backward, ms": (0.40, True),
    "M0, batch 1, half precision, frames/s": (600.0, False),
    "loader, samples/s, for each one that training of M0 takes": (1.0, False),
}


def missing_packages() -> dict[str, list[str]]:
    """What frustum needs, and what this script needs in addition, that cannot be imported here."""
    text = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    block = text.partition("dependencies = [")[2].partition("]")[0]
    needed = re.findall(r'"([A-Za-z0-9_.-]+)', block)
    wanted = {"required": needed, "for the tests": ["pytest", "hypothesis"], "for the fast kernels": ["triton"]}

    def fault(name: str) -> str:
        module = IMPORTED_AS.get(name, name)
        if importlib.util.find_spec(module) is None:
            return name
        try:
            importlib.import_module(module)  # one that is there may still refuse the others' versions
        except Exception as error:
            return f"{name} ({type(error).__name__}: {str(error)[:120]})"
        return ""

    found = {why: [text for name in names if (text := fault(name))] for why, names in wanted.items()}
    return {why: texts for why, texts in found.items() if texts}


def about_machine() -> dict[str, Any]:
    """The machine as benchmarks name it; what can be said where that fails."""
    try:
        from frustum.benchmark import machine

        found = machine()
        import torch

        if torch.cuda.is_available():
            major, minor = torch.cuda.get_device_capability()
            memory = torch.cuda.get_device_properties(0).total_memory / 2**30
            found |= {"capability": f"{major}.{minor}", "gpu_memory_gib": round(memory, 1), "cuda": torch.version.cuda}
            if importlib.util.find_spec("triton"):
                import triton

                found["triton"] = triton.__version__
        return found
    except Exception as error:
        return {"error": f"{type(error).__name__}: {error}"}


def run_part(name: str, run: Run) -> None:
    """Run a part in this process, and write its results to OUT/NAME.json after each one."""
    import dataclasses

    from frustum.files import write_json

    tables: dict[str, Any] = {}
    figures: dict[str, Any] = {}
    for result in PARTS[name].run(run):
        if isinstance(result, dict):
            figures |= result
            print("".join(f"  {key}: {value}\n" for key, value in result.items()), flush=True)
        else:
            tables[result.title] = dataclasses.asdict(result)
            print(f"\n{result.plain()}", flush=True)
        write_json(run.out / f"{name}.json", {"tables": list(tables.values()), "figures": figures}, indent=2)


def run_all(names: list[str], out: Path, stand_in: bool) -> dict[str, Any]:
    """Run parts one after the other, each in its own process, and gather what they wrote; an interrupted or broken one does not hide
    the rest.
    """
    report: dict[str, Any] = {"machine": about_machine(), "missing": missing_packages(), "stand_in": stand_in, "parts": {}}
    for name in names:
        (out / f"{name}.json").unlink(missing_ok=True)
    for number, name in enumerate(names, 1):
        part = PARTS[name]
        print(f"\n==> [{number}/{len(names)}] {name}, at most {part.seconds} s: {part.about}", flush=True)
        words = [sys.executable, str(Path(__file__).resolve()), name, "--out", str(out), "--inside", str(part.seconds)]
        start, limit = time.monotonic(), part.seconds * (10 if stand_in else 1)
        log = out / f"{name}.log"
        with log.open("w", encoding="utf-8") as file:
            ended = _watched([*words, *(["--stand-in"] if stand_in else [])], file, limit + 15)
        text = log.read_text(encoding="utf-8", errors="replace")
        print(text.rstrip(), flush=True)
        written: dict[str, Any] = {"tables": [], "figures": {}}
        with contextlib.suppress(OSError, ValueError):
            written = json.loads((out / f"{name}.json").read_text(encoding="utf-8"))
        if ended == "" and not written["tables"]:
            ended = "ended well, but wrote nothing"
        why = "" if ended == "" else f"{ended}; the last line is: {(text.strip().splitlines() or ['(nothing)'])[-1][:300]}"
        report["parts"][name] = {**written, "seconds": round(time.monotonic() - start, 1), "failed": why}
        print(f"==> {name} {'passed' if not why else 'FAILED: ' + why}", flush=True)
        save(report, out)
    return report


def _watched(words: list[str], log: Any, seconds: float) -> str:
    """Run a command with its output in a file; how it ended, if it did not end well."""
    environment = {**os.environ, "PYTHONUNBUFFERED": "1"}
    process = subprocess.Popen(words, cwd=ROOT, stdout=log, stderr=subprocess.STDOUT, env=environment, start_new_session=os.name == "posix")

    def end() -> None:
        if os.name == "posix":
            os.killpg(process.pid, signal.SIGKILL)  # and what it has started
        process.kill()
        process.wait()

    try:
        code = process.wait(seconds)
    except subprocess.TimeoutExpired:
        end()
        return f"not done after {seconds:.0f} s"
    except BaseException:
        end()
        raise
    return "" if code == 0 else f"ended with code {code}"


def save(report: dict[str, Any], out: Path) -> None:
    """Write gpu.json, which tools/bench_tables.py reads, and gpu.md."""
    from frustum.files import write_bytes, write_json

    tables = [table for part in report["parts"].values() for table in part["tables"]]
    goals = goal_rows({k: v for part in report["parts"].values() for k, v in part["figures"].items()})
    summary = [(name, "passed" if not part["failed"] else "FAILED", part["seconds"]) for name, part in report["parts"].items()]
    made = [
        {"title": "Goals", "columns": ["figure", "here", "goal", "reached"], "rows": goals, "note": ""},
        {"title": "Parts of the check", "columns": ["part", "result", "s"], "rows": summary, "note": ""},
    ]
    entry = {"machine": report["machine"], "command": "make gpu-check", "tables": [*made, *tables]}
    write_json(out / "gpu.json", {"quick": report["stand_in"], "benchmarks": {"gpu": entry}, **report}, indent=2)
    from frustum.benchmark import Table

    write_bytes(out / "gpu.md", ("\n\n".join(Table(**table).markdown() for table in entry["tables"]) + "\n").encode())


def goal_rows(figures: dict[str, Any]) -> list[tuple]:
    """What was aimed at beside what was found."""
    rows: list[tuple] = []
    for name, (goal, below) in GOALS.items():
        here = figures.get(name)
        reached = "not measured" if here is None else "yes" if (here <= goal if below else here >= goal) else "no"
        rows.append((name, here, goal, reached))
    return rows


def main(arguments: list[str] | None = None) -> int:
    """The command line; returns the exit code."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0], epilog="Example: python tools/gpu_check.py --plan")
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"parts to run, by default all: {', '.join(PARTS)}")
    parser.add_argument("--plan", action="store_true", help="print what would be done, and how long it takes at most")
    parser.add_argument("--out", type=Path, default=Path("runs/gpu"), help="folder for figures and logs")
    parser.add_argument("--stand-in", action="store_true", help="the CPU in place of a GPU, small sizes: does the script run?")
    parser.add_argument("--inside", type=float, metavar="SECONDS", help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    names, options.out = options.parts or list(PARTS), options.out.resolve()
    for name in names:
        if name not in PARTS:
            parser.error(f"there is no part {name!r}; known: {', '.join(PARTS)}")
    if options.inside:
        gpu = StandIn() if options.stand_in else Gpu()
        for name in names:
            run_part(name, Run(gpu, time.monotonic() + options.inside, options.out))
        return 0
    missing = {} if options.plan else missing_packages()
    for why, packages in missing.items():
        print(f"missing, {why}: {', '.join(packages)} (unpack wheels into a folder and name it in PYTHONPATH)")
    for name in names if options.plan else ():
        print(f"{name:9} at most {PARTS[name].seconds:3} s  {PARTS[name].about}")
    if options.plan:
        print(f"together  at most {sum(PARTS[name].seconds for name in names)} s; figures in {options.out}/gpu.json, tables in gpu.md")
        return 0
    if "required" in missing:
        print("Nothing was run, because nothing runs without what is required.", file=sys.stderr)
        return 2
    if not options.stand_in and not _sees_gpu():
        why = "torch does not see a GPU here. Run this with a Python whose torch does (its path, then tools/gpu_check.py)."
        print(why, "--plan prints what would be done, --stand-in tries the script on the CPU.", file=sys.stderr)
        return 2
    options.out.mkdir(parents=True, exist_ok=True)
    report = run_all(names, options.out, options.stand_in)
    failed = [name for name, part in report["parts"].items() if part["failed"]]
    print(f"\n{options.out / 'gpu.json'}, {options.out / 'gpu.md'}: " + (f"FAILED: {', '.join(failed)}" if failed else "all parts passed"))
    return 1 if failed else 0


def _sees_gpu() -> bool:
    try:
        import torch

        return torch.cuda.is_available()
    except ImportError:
        return False


if __name__ == "__main__":
    sys.exit(main())
