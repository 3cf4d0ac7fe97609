"""Long benchmarks as named results: each is made by a process of its own, kept in a folder, and not made twice."""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from frustum.cli.worlds import generate_world
from frustum.engine.progress import progress_bar
from frustum.files import make_folder, read_json, write_json
from frustum.ops.threads import count_cores
from frustum.recipes.finding import get_recipe
from frustum.worlds.street.world_config import WorldConfig


class HelpFormatter(argparse.ArgumentDefaultsHelpFormatter, argparse.RawDescriptionHelpFormatter):
    """Keeps the lines of the description and shows defaults that say something."""

    def _get_help_string(self, action: argparse.Action) -> str | None:
        return super()._get_help_string(action) if action.default else action.help


def claim_parser(doc: str | None, name: str, settings: str) -> argparse.ArgumentParser:
    """The options that all claims share: budget, world, folders, KEY=VALUE settings.

    Args:
        doc: the script's docstring.
        name: the claim's; results go to runs/claims/NAME by default.
        settings: help of the settings.
    """
    parser = argparse.ArgumentParser(description=doc, formatter_class=HelpFormatter)
    parser.add_argument("--steps", type=int, default=2000, help="training steps of each run")
    parser.add_argument("--seeds", type=int, default=3, help="runs of each network")
    parser.add_argument("--scenes", type=int, default=140, help="training scenes of the world")
    parser.add_argument("--val-scenes", type=int, default=18)
    parser.add_argument("--frames", type=int, default=5, help="keyframes per scene")
    parser.add_argument("--world", type=Path, help="the world's folder, generated if it is not there; by default OUT/world")
    parser.add_argument("--jobs", type=int, default=2, help="trainings at a time; the cores are shared out between them")
    parser.add_argument("--repeats", type=int, default=15, help="of each timing")
    parser.add_argument("--measure-again", action="store_true", help="forget the stored figures of speed and memory")
    parser.add_argument("--out", type=Path, default=Path("runs/claims") / name, help="folder of the runs")
    parser.add_argument("--json", type=Path, help=f"by default {name}.json in the folder of this script; another budget needs another file")
    parser.add_argument("settings", nargs="*", metavar="KEY=VALUE", help=settings)
    parser.add_argument("--work", help=argparse.SUPPRESS)  # what a child process does: the name of one result
    return parser


def world_of(options: argparse.Namespace) -> Path:
    """The folder of the claim's world."""
    return options.world or options.out / "world"


def generate_missing(options: argparse.Namespace, save: tuple[str, ...] = ()) -> None:
    """Generate the claim's world unless its folder has it; `save` names truth images that it needs (`WorldConfig.save`)."""
    named = {"train_scenes": options.scenes, "val_scenes": options.val_scenes, "frames": options.frames, "save": save}
    world = WorldConfig.model_validate(named)
    if not (world_of(options) / world.version).is_dir():
        generate_world(world, world_of(options))


def fingerprint(options: argparse.Namespace, *what: str) -> str:
    """Of what results must have in common to belong together: world, budget, settings, and `what` else.

    Of a recipe that is the JSON of what is not at its default: a setting that is new changes nothing then.
    """
    names = ("steps", "scenes", "val_scenes", "frames", "settings")
    return hashlib.sha256(json.dumps([*(getattr(options, name) for name in names), *what]).encode()).hexdigest()[:10]


@lru_cache
def recipe_json(name: str) -> str:
    """A recipe as JSON, for `fingerprint`."""
    return get_recipe(name).model_dump_json(exclude_defaults=True)


@dataclass(frozen=True)
class Tasks:
    """The results of one script.

    A child is the script itself, called with the same words and `--work TASK`; it calls `write`.

    Attributes:
        script: its file.
        out: folder of results and logs.
    """

    script: Path
    out: Path

    def path(self, task: str) -> Path:
        return self.out / "results" / f"{task}.json"

    def read(self, task: str) -> dict[str, Any]:
        return read_json(self.path(task), "result")

    def write(self, task: str, result: dict[str, Any]) -> None:
        write_json(self.path(task), result, indent=2)

    def finished(self) -> dict[str, Any]:
        """All results that are there, by task."""
        return {path.stem: read_json(path, "result") for path in sorted((self.out / "results").glob("*.json"))}

    def restore(self, path: Path, print_of: str) -> None:
        """Take over the `results` of the claim in a JSON file, made earlier, perhaps on another machine.

        Raises SystemExit if its `fingerprint` is another one than `print_of`.
        """
        if not path.is_file():
            return
        stored = read_json(path, "claim")
        if stored.get("fingerprint") != print_of:
            raise SystemExit(f"{path} holds results of another budget, recipe or other settings: name another file with --json.")
        for task, result in stored.get("results", {}).items():
            if not self.path(task).is_file():
                self.write(task, result)

    def forget(self, tasks: Sequence[str]) -> None:
        for task in tasks:
            self.path(task).unlink(missing_ok=True)

    def make(self, tasks: Sequence[str], jobs: int = 1, say: Callable[[str, dict[str, Any]], str] | None = None) -> None:
        """Make what is missing, `jobs` results at a time; the cores are shared out between them. `say` puts a result into words."""
        waiting = [task for task in tasks if not self.path(task).is_file()]
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that children are stopped, too
        running: dict[str, subprocess.Popen] = {}
        with progress_bar("results", len(waiting), unit="results", every=30.0) as bar:
            try:
                while waiting or running:
                    while waiting and len(running) < jobs:
                        task = waiting.pop(0)
                        running[task] = self.start(task, max(1, count_cores() // jobs))
                    time.sleep(0.2)
                    for task in [t for t, process in running.items() if process.poll() is not None]:
                        self.check(task, running.pop(task).returncode)
                        bar.advance(task)
                        if say is not None:
                            bar.note(f"{task}: {say(task, self.read(task))}")
            finally:
                for process in running.values():
                    process.terminate()

    def check(self, task: str, code: int) -> None:
        """Stop with the end of its log if a child failed."""
        if code != 0 or not self.path(task).is_file():
            log = self._log(task)
            lines = log.read_text("utf-8").splitlines()[-12:] if log.is_file() else []
            raise SystemExit(f"{task} failed (exit status {code}); the end of {log}:\n" + "\n".join(lines))

    def _log(self, task: str) -> Path:
        return self.out / "logs" / f"{task}.log"

    def start(self, task: str, threads: int) -> subprocess.Popen:
        """The process that makes a result; what it prints goes to a log."""
        make_folder(self.out / "logs")
        words = [sys.executable, str(self.script.resolve()), *sys.argv[1:], "--work", task]
        environment = os.environ | {"OMP_NUM_THREADS": str(threads), "NUMBA_NUM_THREADS": str(threads)}
        with self._log(task).open("a", encoding="utf-8") as stream:
            return subprocess.Popen(words, stdout=stream, stderr=subprocess.STDOUT, env=environment)


def run_claim(
    options: argparse.Namespace,
    tasks: Tasks,
    work: Callable[[str, argparse.Namespace], dict[str, Any]],
    make_missing: Callable[[argparse.Namespace, Tasks], None],
    collect: Callable[[argparse.Namespace], dict[str, Any]],
    show: Callable[[dict[str, Any]], None],
) -> None:
    """What a script with `--arms` and `--finished` does: one result in a process of its own, or all that are missing, JSON and tables."""
    if options.work:
        tasks.write(options.work, work(options.work, options))
        return
    make_folder(options.out)
    tasks.restore(options.json, options.fingerprint)
    if not options.finished:
        make_missing(options, tasks)
    numbers = collect(options)
    if options.writes:
        write_json(options.json, numbers, indent=2)
    if not numbers["accuracy"]:
        print(f"no training of these arms is finished; without --finished they are made: {', '.join(options.arms)}")
    show(numbers)
