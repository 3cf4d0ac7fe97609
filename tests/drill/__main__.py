"""`python -m tests.drill` (or `make drill`): disturb commands and damage files for some minutes, and print what came of it."""

from __future__ import annotations

import argparse
import os
import platform
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import torch

from tests.drill.corpus import CORPUS
from tests.drill.disturb import COMMANDS, Disturbed, fill, kill
from tests.drill.fuzz import Row, fuzz
from tests.drill.outcome import Outcome

_SHARES = {"kill": 0.35, "disk": 0.55, "fuzz": 1.0}  # of the time, at which each part ends


def main(words: Sequence[str] | None = None) -> int:
    """Returns 1 if anything was found that must not be."""
    options = _options(words)
    os.environ["OMP_NUM_THREADS"] = "1"
    torch.set_num_threads(1)  # one thread: what is forked has no other
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="drill-") as name:
        folder = Path(name)
        os.environ["FRUSTUM_CACHE"] = str(folder / "cache")
        disturbed: dict[str, list[Disturbed]] = {"kill": [], "disk": []}
        for part, disturb in (("kill", kill), ("disk", fill)):
            commands = [c for c in COMMANDS if options.only in c.name] if hasattr(os, "fork") else []
            for number, command in enumerate(commands):
                end = began + options.seconds * _until(part, number, len(commands))
                place = folder / f"{part}-{number}"
                disturbed[part].append(disturb(command, place, options.times, options.seed, _after(end)))
                _say(f"{part} {command.name}: {dict(disturbed[part][-1].counts)}")
        entries, rows = [entry for entry in CORPUS if options.only in entry.name], []
        for number, entry in enumerate(entries):
            end = began + options.seconds * _until("fuzz", number, len(entries))
            rows.append(fuzz(entry, folder / f"fuzz-{number}", options.tries, options.seed, _after(end)))
            _say(f"{entry.name}: { ({outcome.value: count for outcome, count in rows[-1].counts.items()}) }")
    print(table(disturbed["kill"], disturbed["disk"], rows))
    bad = [line for part in (*disturbed["kill"], *disturbed["disk"], *rows) for line in part.bad]
    print("\n".join(bad), file=sys.stderr)
    used = sum(os.times()[:4])
    about = f"{platform.system()}, Python {platform.python_version()}, torch {torch.__version__}, seed {options.seed}"
    print(f"\n{about}; {used:.0f} s of one processor in {time.monotonic() - began:.0f} s")
    return int(bool(bad))


def table(kills: Sequence[Disturbed], disks: Sequence[Disturbed], rows: Sequence[Row]) -> str:
    """All that was found, as Markdown; what could not be run is not measured."""
    lines = ["| killed with SIGKILL | kills | equal in the end | faults |", "|---|---|---|---|"]
    lines += [f"| {d.name} | {d.counts['killed']} | {d.counts['equal in the end']} | {len(d.bad)} |" for d in kills]
    lines += ["| not measured | | | |"] * (not kills) + ["", "| no room | how | refused | fits | equal in the end | faults |"]
    lines += ["|---|---|---|---|---|---|"]
    for d in disks:
        how = next((name for name in ("a small disk", "a limit of file sizes") if name in d.counts), "")
        lines.append(f"| {d.name} | {how} | {d.counts['refused']} | {d.counts['fits']} | {d.counts['equal in the end']} | {len(d.bad)} |")
    lines += ["| not measured | | | | | |"] * (not disks)
    lines += ["", f"| damaged files | tries | {' | '.join(outcome.value for outcome in Outcome)} |", "|---" * (2 + len(Outcome)) + "|"]
    for row in rows:
        lines.append(f"| {row.name} | {row.counts.total()} | {' | '.join(str(row.counts[outcome]) for outcome in Outcome)} |")
    total = [sum(row.counts[outcome] for row in rows) for outcome in Outcome]
    return "\n".join([*lines, f"| together | {sum(total)} | {' | '.join(map(str, total))} |"])


def _options(words: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.drill", description=__doc__)
    parser.add_argument("--seconds", type=float, default=540, help="about how long it may take")
    parser.add_argument("--tries", type=int, default=200, help="damaged files of each kind")
    parser.add_argument("--times", type=int, default=6, help="how often each command is killed to the end, and given too small a disk")
    parser.add_argument("--seed", type=int, default=0, help="another one damages in other ways")
    parser.add_argument("--only", default="", help="part of the name of a command or a kind of file")
    return parser.parse_args(words)


def _until(part: str, number: int, count: int) -> float:
    """The share of the time at which the next of a part's `count` pieces ends."""
    ends = list(_SHARES.values())
    place = list(_SHARES).index(part)
    first = ends[place - 1] if place else 0.0
    return first + (ends[place] - first) * (number + 1) / max(count, 1)


def _after(moment: float) -> Callable[[], bool]:
    return lambda: time.monotonic() > moment


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
