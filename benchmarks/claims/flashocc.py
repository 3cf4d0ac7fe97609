"""FlashOCC's claim in miniature: a 2D occupancy part in place of a 3D one is as accurate, faster, and needs less memory.

    python benchmarks/claims/flashocc.py                        # three seeds of both networks, then speed and memory
    python benchmarks/claims/flashocc.py --measure-again        # speed and memory once more, on a quieter machine

`flashocc-tiny` and `bevdet-occ-tiny`, which differ in the occupancy part alone, are trained with the same budget on the same generated
world. Speed is measured in turn within one process, memory in a process of its own for each figure; and so is the occupancy part alone at
the published sizes (pooled features -> logits). What is finished is kept in the folder --out and not done again.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from benchmarks.claims import measuring
from benchmarks.claims.tasks import Tasks, claim_parser, generate_missing, world_of
from frustum.engine import overrides
from frustum.engine.evaluate import evaluate
from frustum.engine.progress import Reporter, progress_bar
from frustum.engine.recipe import Recipe
from frustum.engine.run import git_commit
from frustum.engine.train import train
from frustum.files import make_folder, write_json
from frustum.recipes.finding import get_recipe
from frustum.tasks.occupancy import OccupancyTask
from frustum.worlds.street.world_config import WorldConfig

ROOT = Path(__file__).resolve().parents[2]
FLAT, SOLID = "flashocc-tiny", "bevdet-occ-tiny"
PARTS = ("flashocc-r50-m0", "flashocc-r50", "bevdet-occ-r50")
FIGURES = {
    "miou": "miou.camera",
    "ray_iou": "ray_iou.mean",
    "geometric_iou": "geometric_iou.camera",
    "above_ground": "geometric_iou_above_ground.camera",
}


def parse(words: list[str] | None = None) -> argparse.Namespace:
    parser = claim_parser(__doc__, "flashocc", settings="settings of both recipes")
    parser.add_argument("--without-parts", action="store_true", help="leave out the occupancy parts at the published sizes")
    options = parser.parse_args(words)
    options.json = options.json or ROOT / "benchmarks/claims/flashocc.json"
    return options


# ---- one result each, in a process of its own ----------------------------------------------------------------------------------


def recipe_of(name: str, seed: int, options: argparse.Namespace) -> Recipe:
    changes = [f"data.root={world_of(options)}", f"train.steps={options.steps}", f"train.seed={seed}"]
    return overrides.apply(get_recipe(name), [*changes, *options.settings])


def run_training(name: str, seed: int, options: argparse.Namespace) -> dict[str, Any]:
    """Train and evaluate; an interrupted training goes on where it was stopped."""
    recipe = recipe_of(name, seed, options)
    result = train(recipe, options.out / f"{name}-{seed}", source=name, progress=False)
    report = evaluate(recipe, result.model, progress=False)
    metrics = report.results["occupancy"]
    found = {figure.key: float("nan") if figure.value is None else figure.value for figure in OccupancyTask.figures(metrics)}
    figures = {name: found.get(key, float("nan")) for name, key in FIGURES.items()}
    rays = {f"ray_iou@{t}": value for t, value in (metrics["ray_iou"] or {}).items() if t != "mean"}
    return {"seed": seed, "steps": result.steps, "loss": result.loss, **figures, **rays, "class_iou": metrics["class_iou"]["camera"]}


def work(task: str, options: argparse.Namespace) -> dict[str, Any]:
    """What the result called `task` holds."""
    kind, *words = task.split("+")
    if kind == "train":
        return run_training(words[0], int(words[1]), options)
    if kind == "speed":
        return measuring.network_speed({name: recipe_of(name, 0, options) for name in (FLAT, SOLID)}, options.repeats)
    if kind == "memory":
        return measuring.network_memory(recipe_of(words[0], 0, options), training=words[1] == "training")
    if kind == "parts":
        return measuring.part_speed({name: get_recipe(name) for name in PARTS}, words[0], max(3, options.repeats // 3))
    return measuring.part_memory(get_recipe(words[0]), words[1])


def tasks_of(options: argparse.Namespace) -> Tasks:
    return Tasks(Path(__file__), options.out)


# ---- all results ------------------------------------------------------------------------------------------------------------------


def train_all(names: list[str], options: argparse.Namespace) -> None:
    """Several trainings at a time, with one bar over the steps of all that are left."""
    tasks = tasks_of(options)
    waiting = [task for task in names if not tasks.path(task).is_file()]
    if not waiting:
        return
    cores = os.cpu_count() or 1
    running: dict[str, subprocess.Popen] = {}
    done = sum(steps_done(task, options) for task in waiting)
    with progress_bar("training", options.steps * len(waiting), done=done, every=30.0) as bar:
        try:
            left = list(waiting)
            while left or running:
                while left and len(running) < options.jobs:
                    task = left.pop(0)
                    running[task] = tasks.start(task, max(1, cores // options.jobs))
                time.sleep(0.5)
                for task in [t for t, process in running.items() if process.poll() is not None]:
                    tasks.check(task, running.pop(task).returncode)
                    found = tasks.read(task)
                    bar.note(f"{task}: mIoU {100 * found['miou']:.2f}, RayIoU {100 * found['ray_iou']:.2f}")
                _advance(bar, sum(steps_done(task, options) for task in waiting))
        finally:
            for process in running.values():
                process.terminate()


def _advance(bar: Reporter, done: int) -> None:
    if done > bar.done:
        bar.advance(count=done - bar.done)


def steps_done(task: str, options: argparse.Namespace) -> int:
    """Steps that the run's log counts."""
    _, name, seed = task.split("+")
    try:
        return json.loads((options.out / f"{name}-{seed}" / "metrics.jsonl").read_text("utf-8").splitlines()[-1])["step"]
    except (OSError, IndexError, ValueError):
        return 0


def accuracy_of(runs: dict[str, list[dict[str, Any]]]) -> dict[str, Any]:
    """Mean and spread of every figure, and of the difference between the two networks with the same seed."""
    names = [*FIGURES, *(key for key in runs[FLAT][0] if key.startswith("ray_iou@"))]
    figures = {name: {key: measuring.mean_and_spread([run[key] for run in rows]) for key in names} for name, rows in runs.items()}
    pairs = list(zip(runs[FLAT], runs[SOLID], strict=True))
    figures["difference"] = {key: measuring.mean_and_spread([flat[key] - solid[key] for flat, solid in pairs]) for key in names}
    return figures


def collect(options: argparse.Namespace, trainings: list[str], measurements: list[str]) -> dict[str, Any]:
    """Everything as JSON values."""
    results = {task: tasks_of(options).read(task) for task in [*trainings, *measurements]}
    runs = {name: [results[f"train+{name}+{seed}"] for seed in range(options.seeds)] for name in (FLAT, SOLID)}
    budget = {"steps": options.steps, "batch_size": recipe_of(FLAT, 0, options).train.batch_size, "seeds": list(range(options.seeds))}
    world = {"scenes": options.scenes, "val_scenes": options.val_scenes, "frames": options.frames, "image_size": WorldConfig().image_size}
    numbers: dict[str, Any] = {
        "benchmark": "claims/flashocc",
        "command": " ".join(["python benchmarks/claims/flashocc.py", *(w for w in sys.argv[1:] if w != "--measure-again")]),
        "commit": git_commit(),
        "machine": measuring.machine(),
        "world": world,
        "budget": budget,
        "settings": options.settings,
        "accuracy": accuracy_of(runs),
        "runs": runs,
        "network": {
            name: results["speed"][name] | {"peak_memory_mib": {k: results[f"memory+{name}+{k}"] for k in ("prediction", "training")}}
            for name in (FLAT, SOLID)
        },
    }
    precisions = [task.split("+")[1] for task in measurements if task.startswith("parts+")]
    if precisions:
        numbers["occupancy_part"] = {
            precision: {name: results[f"parts+{precision}"][name] | results[f"part_memory+{name}+{precision}"] for name in PARTS}
            for precision in precisions
        }
    return numbers


def show(numbers: dict[str, Any]) -> None:
    accuracy, network = numbers["accuracy"], numbers["network"]
    print(
        f"\n{'percent, mean over ' + str(len(numbers['budget']['seeds'])) + ' seeds +- spread':<40}{FLAT:>18}{SOLID:>18}{'difference':>18}"
    )
    for key in accuracy[FLAT]:
        cells = [accuracy[name][key] for name in (FLAT, SOLID, "difference")]
        print(f"{key:<40}" + "".join(f"{100 * c['mean']:>10.2f} +- {100 * (c['std'] or 0):4.2f}" for c in cells))
    for key in ("parameters", "occupancy_parameters", "latency_ms", "training_step_ms"):
        print(f"{key:<40}{network[FLAT][key]:>18,}{network[SOLID][key]:>18,}")
    for kind in ("prediction", "training"):
        peaks = [network[name]["peak_memory_mib"][kind]["rise_mib"] for name in (FLAT, SOLID)]
        print(f"{'peak memory, ' + kind + ', MiB':<40}{peaks[0]:>18,}{peaks[1]:>18,}")
    for precision, parts in numbers.get("occupancy_part", {}).items():
        print(f"\n{'occupancy part, ' + precision:<40}" + "".join(f"{name:>18}" for name in PARTS))
        for key in ("parameters", "gmacs", "latency_ms", "rise_mib"):
            print(f"{key:<40}" + "".join(f"{parts[name][key]:>18,}" for name in PARTS))


def main() -> None:
    options = parse()
    if options.work:
        tasks_of(options).write(options.work, work(options.work, options))
        return
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that children are stopped, too
    make_folder(options.out)
    generate_missing(options)
    # the two networks in turn, so that whatever else the machine does hits both
    trainings = [f"train+{name}+{seed}" for seed in range(options.seeds) for name in (FLAT, SOLID)]
    measurements = ["speed", *(f"memory+{name}+{kind}" for name in (FLAT, SOLID) for kind in ("prediction", "training"))]
    if not options.without_parts:
        for precision in measuring.precisions():
            measurements += [f"parts+{precision}", *(f"part_memory+{name}+{precision}" for name in PARTS)]
    train_all(trainings, options)
    if options.measure_again:
        tasks_of(options).forget(measurements)
    tasks_of(options).make(measurements)  # one after the other, alone on the machine as far as we can help it
    numbers = collect(options, trainings, measurements)
    write_json(options.json, numbers, indent=2)
    show(numbers)


if __name__ == "__main__":
    main()
